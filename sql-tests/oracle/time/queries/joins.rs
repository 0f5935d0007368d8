//! Joins in time: of pairs that are close, of windows, with the version that held.

use super::{OPEN_ROWS, OPEN_ROWS_AND_KEYS, Query, WINDOW, query};

pub(super) fn joins() -> Vec<Query> {
    vec![
        query(
            "ab",
            "ts < {w} - INTERVAL '20 seconds'",
            OPEN_ROWS,
            "SELECT x.id AS i, y.id AS j, x.ts, y.v FROM {a} x JOIN {b} y ON x.k = y.k AND \
             x.ts BETWEEN y.ts - INTERVAL '20 seconds' AND y.ts + INTERVAL '10 seconds'",
        ),
        // Rows of windows over pairs that are close in time.
        query(
            "ab",
            "window_end <= {w} - INTERVAL '20 seconds'",
            OPEN_ROWS,
            "SELECT window_start, window_end, count(*) AS n FROM TUMBLE((SELECT x.ts, y.id FROM {a} x \
             LEFT JOIN {b} y ON x.k = y.k AND x.ts BETWEEN y.ts - INTERVAL '20 seconds' AND \
             y.ts + INTERVAL '10 seconds'), ts, INTERVAL '1 minute') GROUP BY window_start, window_end",
        ),
        query(
            "ab",
            "",
            OPEN_ROWS,
            "SELECT x.id AS i, y.id AS j FROM {a} x LEFT JOIN {b} y ON x.k = y.k AND \
             y.ts >= x.ts AND y.ts < x.ts + INTERVAL '15 seconds' WHERE x.ts IS NOT NULL",
        ),
        query(
            "ab",
            "",
            OPEN_ROWS,
            "SELECT id, ts FROM {a} x WHERE x.ts IS NOT NULL AND NOT EXISTS (SELECT 1 FROM {b} y WHERE \
             x.k = y.k AND y.ts BETWEEN x.ts - INTERVAL '10 seconds' AND x.ts)",
        ),
        query(
            "ab",
            WINDOW,
            OPEN_ROWS,
            "SELECT x.id AS i, y.id AS j, x.window_start, x.window_end FROM \
             TUMBLE({a}, ts, INTERVAL '30 seconds') x JOIN TUMBLE({b}, ts, INTERVAL '30 seconds') y ON \
             x.k = y.k AND x.window_start = y.window_start AND x.window_end = y.window_end",
        ),
        query(
            "ab",
            WINDOW,
            OPEN_ROWS,
            "SELECT x.id AS i, y.id AS j, x.window_start, x.window_end FROM \
             TUMBLE({a}, ts, INTERVAL '30 seconds') x LEFT JOIN TUMBLE({b}, ts, INTERVAL '30 seconds') \
             y ON x.k = y.k AND x.window_start = y.window_start AND x.window_end = y.window_end",
        ),
        query(
            "ab",
            "",
            OPEN_ROWS,
            "SELECT x.id AS i, y.id AS j, x.window_start AS s1, y.window_start AS s2 FROM \
             TUMBLE({a}, ts, INTERVAL '20 seconds') x FULL JOIN TUMBLE({b}, ts, INTERVAL '20 seconds') \
             y ON x.k = y.k AND x.window_start = y.window_start AND x.window_end = y.window_end \
             AND x.v < y.v",
        ),
        query(
            "ab",
            WINDOW,
            OPEN_ROWS,
            "SELECT id, window_start, window_end FROM TUMBLE({a}, ts, INTERVAL '30 seconds') x WHERE \
             NOT EXISTS (SELECT 1 FROM TUMBLE({b}, ts, INTERVAL '30 seconds') y WHERE x.k = y.k AND \
             x.window_start = y.window_start AND x.window_end = y.window_end)",
        ),
        query(
            "ab",
            WINDOW,
            OPEN_ROWS,
            "SELECT x.k, x.n AS xn, y.n AS yn, x.window_start, x.window_end FROM (SELECT k, count(*) AS \
             n, window_start, window_end FROM TUMBLE({a}, ts, INTERVAL '1 minute') GROUP BY k, \
             window_start, window_end) x JOIN (SELECT k, count(*) AS n, window_start, window_end FROM \
             TUMBLE({b}, ts, INTERVAL '1 minute') GROUP BY k, window_start, window_end) y ON \
             x.k = y.k AND x.window_start = y.window_start AND x.window_end = y.window_end",
        ),
        query(
            "ab",
            "ts < {w}",
            OPEN_ROWS_AND_KEYS,
            "SELECT x.id AS i, y.id AS j, x.ts FROM {a} x ASOF LEFT JOIN (SELECT max(id) AS id, k, ts \
             FROM {b} GROUP BY k, ts) y ON x.k = y.k AND x.ts >= y.ts WHERE x.ts IS NOT NULL",
        ),
        query(
            "ab",
            "",
            0,
            "SELECT x.id AS i, y.id AS j, x.ts FROM {a} x ASOF JOIN (SELECT min(id) AS id, k, ts \
             FROM {b} GROUP BY k, ts) y ON x.k = y.k AND x.ts < y.ts",
        ),
        query(
            "ab",
            "ts < {w}",
            OPEN_ROWS,
            "SELECT x.id AS i, y.id AS j, x.ts FROM {a} x JOIN {b} y ON x.ts = y.ts",
        ),
        query(
            "ab",
            "",
            OPEN_ROWS,
            "SELECT id, ts FROM {a} x WHERE x.ts IS NOT NULL AND EXISTS (SELECT 1 FROM {b} y WHERE \
             x.k = y.k AND y.ts BETWEEN x.ts - INTERVAL '10 seconds' AND x.ts)",
        ),
        query(
            "ab",
            "",
            OPEN_ROWS,
            "SELECT x.id AS i, y.id AS j FROM {a} x RIGHT JOIN {b} y ON x.k = y.k AND \
             x.ts BETWEEN y.ts - INTERVAL '20 seconds' AND y.ts WHERE y.ts IS NOT NULL",
        ),
        query(
            "ab",
            WINDOW,
            OPEN_ROWS,
            "SELECT id, window_start, window_end FROM TUMBLE({a}, ts, INTERVAL '30 seconds') x WHERE \
             EXISTS (SELECT 1 FROM TUMBLE({b}, ts, INTERVAL '30 seconds') y WHERE x.k = y.k AND \
             x.window_start = y.window_start AND x.window_end = y.window_end AND y.v > 3)",
        ),
    ]
}

/// What the joins with versions ask of: streams whose rows hold from their time on, views of the newest
/// row of each key, and a table that does not change.
pub const VERSIONED: [&str; 4] = [
    "CREATE TABLE names (k int PRIMARY KEY, name text)",
    "INSERT INTO names VALUES (0, 'zero'), (1, 'one'), (2, 'two'), (7, 'seven')",
    "CREATE VIEW newest_b AS SELECT DISTINCT ON (k) id, k, v, ts FROM b ORDER BY k, ts DESC",
    "CREATE VIEW newest_a AS SELECT id, k, v, ts FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY k \
     ORDER BY ts DESC) AS place FROM a) AS x WHERE place = 1",
];

/// Joins with the version that held at a time. As a batch they are asked in plain SQL.
pub(super) fn versions() -> Vec<Query> {
    let latest = |join: &str, columns: &str, left: &str, right: &str| {
        format!(
            "SELECT {columns} FROM {left} x {join} LATERAL (SELECT * FROM {right} z WHERE z.k = x.k AND \
             z.ts <= x.ts ORDER BY z.ts DESC, z.id DESC LIMIT 1) y ON true WHERE x.ts IS NOT NULL"
        )
    };
    let both = |query: Query, batch: String| Query { batch: Some(batch), ..query };
    vec![
        both(
            query(
                "ab",
                "ts < {w}",
                OPEN_ROWS_AND_KEYS,
                "SELECT x.id AS i, y.id AS j, y.v, x.ts FROM {a} x JOIN {b} FOR SYSTEM_TIME AS OF x.ts \
                 AS y ON x.k = y.k WHERE x.ts IS NOT NULL",
            ),
            latest("JOIN", "x.id AS i, y.id AS j, y.v, x.ts", "{a}", "{b}"),
        ),
        both(
            query(
                "ab",
                "ts < {w}",
                OPEN_ROWS_AND_KEYS,
                "SELECT x.id AS i, y.id AS j, y.v, x.ts FROM {a} x LEFT JOIN newest_b FOR SYSTEM_TIME \
                 AS OF x.ts AS y ON x.k = y.k WHERE x.ts IS NOT NULL",
            ),
            latest("LEFT JOIN", "x.id AS i, y.id AS j, y.v, x.ts", "{a}", "{b}"),
        ),
        // Windows over rows with their versions: the join keeps the time.
        both(
            query(
                "ab",
                WINDOW,
                OPEN_ROWS_AND_KEYS,
                "SELECT k, window_start, window_end, count(*) AS n, sum(w) AS sw FROM HOP((SELECT x.k, \
                 x.ts, y.v AS w FROM {b} x LEFT JOIN newest_a FOR SYSTEM_TIME AS OF x.ts AS y \
                 ON x.k = y.k WHERE x.ts IS NOT NULL), ts, INTERVAL '20 seconds', INTERVAL '1 minute') \
                 GROUP BY k, window_start, window_end",
            ),
            format!(
                "SELECT k, window_start, window_end, count(*) AS n, sum(w) AS sw FROM HOP(({}), ts, \
                 INTERVAL '20 seconds', INTERVAL '1 minute') GROUP BY k, window_start, window_end",
                latest("LEFT JOIN", "x.k, x.ts, y.v AS w", "{b}", "{a}"),
            ),
        ),
        both(
            query(
                "a",
                "ts < {w}",
                OPEN_ROWS,
                "SELECT x.id, x.ts, n.name FROM {a} x LEFT JOIN names FOR SYSTEM_TIME AS OF PROCTIME() \
                 AS n ON x.k = n.k",
            ),
            "SELECT x.id, x.ts, n.name FROM {a} x LEFT JOIN names n ON x.k = n.k".to_owned(),
        ),
        both(
            query(
                "ab",
                "",
                0,
                "SELECT x.id AS i, y.id AS j, x.ts FROM {a} x ASOF LEFT JOIN (SELECT max(id) AS id, k, ts \
                 FROM {b} GROUP BY k, ts) y ON x.k = y.k AND x.ts <= y.ts",
            ),
            "SELECT x.id AS i, y.id AS j, x.ts FROM {a} x LEFT JOIN LATERAL (SELECT * FROM {b} z WHERE \
             z.k = x.k AND z.ts >= x.ts ORDER BY z.ts, z.id DESC LIMIT 1) y ON true"
                .to_owned(),
        ),
        both(
            query(
                "ab",
                "ts < {w}",
                OPEN_ROWS_AND_KEYS,
                "SELECT x.id AS i, y.id AS j, x.ts FROM {a} x ASOF JOIN (SELECT max(id) AS id, k, ts \
                 FROM {b} GROUP BY k, ts) y ON x.k = y.k AND x.ts > y.ts WHERE x.ts IS NOT NULL",
            ),
            "SELECT x.id AS i, y.id AS j, x.ts FROM {a} x JOIN LATERAL (SELECT * FROM {b} z WHERE \
             z.k = x.k AND z.ts < x.ts ORDER BY z.ts DESC, z.id DESC LIMIT 1) y ON true"
                .to_owned(),
        ),
    ]
}
