-- Average price for a category: of the highest bid within each auction's time.
SELECT final.category, avg(final.price) AS average
FROM (
    SELECT a.id, a.category, max(b.price) AS price
    FROM auction AS a JOIN bid AS b ON a.id = b.auction
    WHERE b.date_time BETWEEN a.date_time AND a.expires
    GROUP BY a.id, a.category
) AS final
GROUP BY final.category
