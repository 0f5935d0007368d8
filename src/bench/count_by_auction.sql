-- The plainest stateful query.
SELECT auction, count(*) AS bids FROM bid GROUP BY auction
