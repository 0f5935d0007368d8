-- Calculation: bids within a range of prices, with the time of day and a count of letters. One
-- row of the greatest values stands for a sink that drops what it gets.
SELECT
    count(*) AS bids,
    max(auction) AS auction,
    max(bidder) AS bidder,
    max(price) AS price,
    max(bid_time_type) AS bid_time_type,
    max(date_time) AS date_time,
    max(octet_length(extra)) AS extra,
    max(c_counts) AS c_counts
FROM (
    SELECT auction, bidder, 0.908 * price AS price,
        CASE
            WHEN extract(hour FROM date_time) >= 8 AND extract(hour FROM date_time) <= 18
                THEN 'dayTime'
            WHEN extract(hour FROM date_time) <= 6 OR extract(hour FROM date_time) >= 20
                THEN 'nightTime'
            ELSE 'otherTime'
        END AS bid_time_type,
        date_time, extra, length(extra) - length(replace(extra, 'c', '')) AS c_counts
    FROM bid
    WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000
) AS output
