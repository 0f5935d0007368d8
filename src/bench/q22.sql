-- The folders of each bid's url. One row of the greatest values stands for a sink that drops what
-- it gets.
SELECT
    count(*) AS bids,
    max(auction) AS auction,
    max(bidder) AS bidder,
    max(price) AS price,
    max(channel) AS channel,
    max(dir1) AS dir1,
    max(dir2) AS dir2,
    max(dir3) AS dir3
FROM (
    SELECT auction, bidder, price, channel, split_part(url, '/', 4) AS dir1,
        split_part(url, '/', 5) AS dir2, split_part(url, '/', 6) AS dir3
    FROM bid
) AS output
