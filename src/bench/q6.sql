-- Average selling price by seller, of the last auctions. The id orders auctions of one time.
SELECT q.seller, q.id,
    avg(q.price) OVER (
        PARTITION BY q.seller ORDER BY q.date_time, q.id
        ROWS BETWEEN 10 PRECEDING AND CURRENT ROW
    ) AS average
FROM (
    SELECT id, seller, price, date_time
    FROM (
        SELECT a.id, a.seller, b.price, b.date_time,
            row_number() OVER (PARTITION BY a.id, a.seller ORDER BY b.price DESC) AS rownum
        FROM auction AS a, bid AS b
        WHERE a.id = b.auction AND b.date_time BETWEEN a.date_time AND a.expires
    ) AS numbered
    WHERE rownum <= 1
) AS q
