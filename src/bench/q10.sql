-- Log to a file system, by day and minute. One row of the greatest values stands for a sink that
-- drops what it gets.
SELECT
    count(*) AS bids,
    max(auction) AS auction,
    max(bidder) AS bidder,
    max(price) AS price,
    max(date_time) AS date_time,
    max(octet_length(extra)) AS extra,
    max(day) AS day,
    max(minute) AS minute
FROM (
    SELECT auction, bidder, price, date_time, extra,
        to_char(date_time, 'YYYY-MM-DD') AS day, to_char(date_time, 'HH24:MI') AS minute
    FROM bid
) AS output
