-- The number of each bid's channel. One row of the greatest values stands for a sink that drops
-- what it gets.
SELECT
    count(*) AS bids,
    max(auction) AS auction,
    max(bidder) AS bidder,
    max(price) AS price,
    max(channel) AS channel,
    max(channel_id) AS channel_id
FROM (
    SELECT auction, bidder, price, channel,
        CASE
            WHEN lower(channel) = 'apple' THEN '0'
            WHEN lower(channel) = 'google' THEN '1'
            WHEN lower(channel) = 'facebook' THEN '2'
            WHEN lower(channel) = 'baidu' THEN '3'
            ELSE (regexp_match(url, '(&|^)channel_id=([^&]*)'))[2]
        END AS channel_id
    FROM bid
    WHERE (regexp_match(url, '(&|^)channel_id=([^&]*)'))[2] IS NOT NULL
        OR lower(channel) IN ('apple', 'google', 'facebook', 'baidu')
) AS output
