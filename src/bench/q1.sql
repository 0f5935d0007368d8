-- Currency conversion. One row of the greatest values stands for a sink that drops what it gets.
SELECT
    count(*) AS bids,
    max(auction) AS auction,
    max(bidder) AS bidder,
    max(price) AS price,
    max(date_time) AS date_time,
    max(octet_length(extra)) AS extra
FROM (SELECT auction, bidder, 0.908 * price AS price, date_time, extra FROM bid) AS output
