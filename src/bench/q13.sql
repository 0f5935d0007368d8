-- Bids with values of a side input. One row of the greatest values stands for a sink that drops
-- what it gets.
SELECT
    count(*) AS bids,
    max(auction) AS auction,
    max(bidder) AS bidder,
    max(price) AS price,
    max(date_time) AS date_time,
    max(value) AS value
FROM (
    SELECT b.auction, b.bidder, b.price, b.date_time, s.value
    FROM bid AS b JOIN side_input FOR SYSTEM_TIME AS OF PROCTIME() AS s
    ON mod(b.auction, 10000) = s.key
) AS output
