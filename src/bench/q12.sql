-- Bids of each user in each period. The benchmark takes periods of processing time; here it is
-- the time of the events, so that the answer can be checked.
SELECT bidder, count(*) AS bid_count, window_start AS starttime, window_end AS endtime
FROM TUMBLE(bid, date_time, INTERVAL '10' SECOND)
GROUP BY bidder, window_start, window_end
