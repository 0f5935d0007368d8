//! Rows in windows of time, and in the order of time.

use super::{OPEN_ROWS, OPEN_ROWS_AND_KEYS, Query, SESSION, WINDOW, query};

pub(super) fn windows() -> Vec<Query> {
    vec![
        query(
            "a",
            WINDOW,
            OPEN_ROWS,
            "SELECT k, window_start, window_end, count(*) AS n, sum(v) AS sv, min(v) AS lo, max(s) AS \
             hi, count(DISTINCT v) AS dv FROM TUMBLE({a}, ts, INTERVAL '1 minute') \
             GROUP BY k, window_start, window_end",
        ),
        query(
            "a",
            WINDOW,
            OPEN_ROWS,
            "SELECT k, window_start, window_end, count(*) AS n, sum(v) AS sv, avg(v) AS av FROM \
             HOP({a}, ts, INTERVAL '20 seconds', INTERVAL '1 minute') GROUP BY k, window_start, \
             window_end",
        ),
        query(
            "a",
            WINDOW,
            OPEN_ROWS,
            "SELECT window_start, window_end, min(v) AS lo, max(v) AS hi, count(*) FILTER (WHERE v > 3) \
             AS n FROM HOP({a}, ts, INTERVAL '25 seconds', INTERVAL '1 minute', INTERVAL '5 seconds') \
             GROUP BY window_start, window_end",
        ),
        query(
            "a",
            WINDOW,
            OPEN_ROWS,
            "SELECT window_start, window_end, string_agg(s, ',' ORDER BY id) AS all_s, \
             count(DISTINCT k) AS dk FROM HOP({a}, ts, INTERVAL '30 seconds', INTERVAL '1 minute') \
             GROUP BY window_start, window_end",
        ),
        query(
            "a",
            WINDOW,
            OPEN_ROWS,
            "SELECT k, window_start, window_end, count(*) AS n, sum(v) AS sv FROM CUMULATE({a}, ts, \
             INTERVAL '20 seconds', INTERVAL '2 minutes') GROUP BY k, window_start, window_end",
        ),
        query(
            "a",
            SESSION,
            OPEN_ROWS,
            "SELECT k, window_start, window_end, count(*) AS n, sum(v) AS sv, min(v) AS lo FROM \
             SESSION(TABLE {a} PARTITION BY k, ts, INTERVAL '15 seconds') \
             GROUP BY k, window_start, window_end",
        ),
        query(
            "a",
            SESSION,
            OPEN_ROWS,
            "SELECT window_start, window_end, count(DISTINCT s) AS ds, avg(v) AS av, max(s) AS hi FROM \
             SESSION({a}, ts, INTERVAL '4 seconds') GROUP BY window_start, window_end",
        ),
        query(
            "a",
            SESSION,
            OPEN_ROWS,
            "SELECT id, k, window_start, window_end FROM \
             SESSION(TABLE {a} PARTITION BY (k, s), ts, INTERVAL '30 seconds')",
        ),
        query(
            "a",
            "m + INTERVAL '1 minute' <= {w}",
            OPEN_ROWS,
            "SELECT date_trunc('minute', ts) AS m, k, count(*) AS n, min(ts) AS first, max(v) AS hi \
             FROM {a} GROUP BY 1, 2",
        ),
        query("a", "ts < {w}", OPEN_ROWS, "SELECT id, k, ts FROM {a} WHERE v > 2"),
        query(
            "a",
            WINDOW,
            OPEN_ROWS,
            "SELECT DISTINCT k, window_start, window_end FROM TUMBLE({a}, ts, INTERVAL '30 seconds')",
        ),
        query(
            "a",
            "window_end <= {w}",
            OPEN_ROWS,
            "SELECT window_start, window_end, max(n) AS most, sum(n) AS n FROM TUMBLE((SELECT k, \
             window_time AS t, count(*) AS n FROM TUMBLE({a}, ts, INTERVAL '30 seconds') GROUP BY k, \
             window_start, window_end, window_time), t, INTERVAL '2 minutes') \
             GROUP BY window_start, window_end",
        ),
        query(
            "a",
            WINDOW,
            OPEN_ROWS,
            "SELECT k, s, window_start, window_end, count(*) AS n, sum(v) AS sv FROM TUMBLE({a}, ts, \
             INTERVAL '1 minute') GROUP BY window_start, window_end, GROUPING SETS ((k), (s), ())",
        ),
        query(
            "a",
            WINDOW,
            OPEN_ROWS,
            "SELECT k, s, window_start, window_end, count(*) AS n, max(v) AS hi FROM HOP({a}, ts, \
             INTERVAL '20 seconds', INTERVAL '1 minute') \
             GROUP BY window_start, window_end, ROLLUP (k, s)",
        ),
        query(
            "ab",
            WINDOW,
            OPEN_ROWS,
            "SELECT window_start, window_end, sum(n) AS n FROM (SELECT window_start, window_end, \
             count(*) AS n FROM TUMBLE({a}, ts, INTERVAL '1 minute') GROUP BY window_start, window_end \
             UNION ALL SELECT window_start, window_end, count(v) AS n FROM TUMBLE({b}, ts, \
             INTERVAL '1 minute') GROUP BY window_start, window_end) AS u \
             GROUP BY window_start, window_end",
        ),
    ]
}

pub(super) fn more_windows() -> Vec<Query> {
    vec![
        query(
            "a",
            WINDOW,
            3 * 12,
            "SELECT k, window_start, window_end, count(*) AS n, sum(v) AS sv, min(v) AS lo, \
             max(ts) AS last FROM HOP({a}, ts, INTERVAL '5 seconds', INTERVAL '1 minute') \
             GROUP BY k, window_start, window_end",
        ),
        query(
            "a",
            WINDOW,
            3 * 8,
            "SELECT window_end, s, window_start, avg(v::float8 / 3) AS af, sum(v) FILTER (WHERE k > 0) \
             AS sv FROM HOP({a}, ts, INTERVAL '8 seconds', INTERVAL '1 minute', INTERVAL '-3 seconds') \
             GROUP BY window_end, s, window_start",
        ),
        // Windows that do not touch: some rows are in none.
        query(
            "a",
            WINDOW,
            OPEN_ROWS,
            "SELECT k, window_start, window_end, count(*) AS n FROM HOP({a}, ts, INTERVAL '30 seconds', \
             INTERVAL '10 seconds') GROUP BY k, window_start, window_end",
        ),
        query(
            "a",
            WINDOW,
            OPEN_ROWS,
            "SELECT s, window_start, window_end, count(*) AS n, max(v) AS hi FROM CUMULATE({a}, ts, \
             INTERVAL '20 seconds', INTERVAL '2 minutes', INTERVAL '7 seconds') \
             GROUP BY s, window_start, window_end",
        ),
        query(
            "a",
            WINDOW,
            OPEN_ROWS,
            "SELECT k, s, window_start, window_end, count(*) AS n FROM CUMULATE({a}, ts, \
             INTERVAL '30 seconds', INTERVAL '1 minute') \
             GROUP BY window_start, window_end, CUBE (k, s)",
        ),
        // A day has many windows of HOP: one group of several.
        query(
            "a",
            "",
            OPEN_ROWS,
            "SELECT date_trunc('hour', window_start) AS h, count(*) AS n FROM HOP({a}, ts, \
             INTERVAL '20 seconds', INTERVAL '1 minute') GROUP BY 1",
        ),
        query(
            "a",
            WINDOW,
            OPEN_ROWS,
            "SELECT window_start, window_end, max(n) AS most FROM (SELECT k, window_start, window_end, \
             count(*) AS n FROM HOP({a}, ts, INTERVAL '10 seconds', INTERVAL '1 minute') \
             GROUP BY k, window_start, window_end) AS x GROUP BY window_start, window_end",
        ),
        query(
            "ab",
            WINDOW,
            OPEN_ROWS,
            "SELECT x.id AS i, y.id AS j, y.window_start, y.window_end FROM \
             TUMBLE({a}, ts, INTERVAL '30 seconds') x RIGHT JOIN TUMBLE({b}, ts, INTERVAL '30 seconds') \
             y ON x.k = y.k AND x.window_start = y.window_start AND x.window_end = y.window_end",
        ),
        // Flink's window of an outer join: whichever side has it.
        query(
            "ab",
            WINDOW,
            OPEN_ROWS,
            "SELECT x.id AS i, y.id AS j, coalesce(x.window_start, y.window_start) AS window_start, \
             coalesce(x.window_end, y.window_end) AS window_end FROM \
             TUMBLE({a}, ts, INTERVAL '30 seconds') x FULL JOIN TUMBLE({b}, ts, INTERVAL '30 seconds') \
             y ON x.k = y.k AND x.window_start = y.window_start AND x.window_end = y.window_end",
        ),
        query(
            "ab",
            "",
            OPEN_ROWS,
            "SELECT x.id AS i, y.id AS j FROM (SELECT * FROM {a} WHERE ts IS NOT NULL) x FULL JOIN \
             (SELECT * FROM {b} WHERE ts IS NOT NULL) y ON x.k = y.k AND \
             x.ts BETWEEN y.ts - INTERVAL '10 seconds' AND y.ts + INTERVAL '10 seconds'",
        ),
        // The first row of each key in each window, and the last one by arrival at the same time.
        query(
            "a",
            WINDOW,
            3 * 6,
            "SELECT id, k, v, window_start, window_end FROM (SELECT *, row_number() OVER (PARTITION BY \
             window_start, window_end, k ORDER BY ts, id) AS place FROM HOP({a}, ts, INTERVAL \
             '10 seconds', INTERVAL '1 minute')) AS x WHERE place <= 1",
        ),
        // The last row of each key and text, however late it came.
        query(
            "a",
            "",
            0,
            "SELECT id, k, s, v, ts FROM (SELECT *, row_number() OVER (PARTITION BY k, s ORDER BY \
             ts DESC NULLS LAST, id DESC) AS place FROM {a}) AS x WHERE place = 1",
        ),
    ]
}

pub(super) fn rows_in_order() -> Vec<Query> {
    vec![
        query(
            "a",
            WINDOW,
            OPEN_ROWS,
            "SELECT id, k, v, window_start, window_end, place FROM (SELECT *, row_number() OVER \
             (PARTITION BY window_start, window_end ORDER BY v DESC, id) AS place FROM TUMBLE({a}, ts, \
             INTERVAL '1 minute')) AS x WHERE place <= 2",
        ),
        query(
            "a",
            WINDOW,
            OPEN_ROWS,
            "SELECT k, n, window_start, window_end FROM (SELECT *, rank() OVER (PARTITION BY \
             window_start, window_end ORDER BY n DESC) AS place FROM (SELECT k, window_start, \
             window_end, count(*) AS n FROM HOP({a}, ts, INTERVAL '30 seconds', INTERVAL '1 minute') \
             GROUP BY k, window_start, window_end) AS x) AS y WHERE place <= 1",
        ),
        // Comparisons with now(), which is years behind the events of the far future.
        query("a", "", 0, "SELECT id, k, v FROM {a} WHERE ts < now() - INTERVAL '1 day' OR v > 3"),
        query(
            "a",
            "",
            0,
            "SELECT k, count(*) AS n, max(ts) AS latest FROM {a} \
             WHERE NOT (ts > now() + INTERVAL '1 hour' AND v > 0) GROUP BY k",
        ),
        query(
            "a",
            "",
            0,
            "SELECT DISTINCT ON (k, s) k, s, id, ts FROM {a} WHERE ts IS NOT NULL \
             ORDER BY k, s, ts DESC, id DESC",
        ),
        // The first and the last row of each key in each window.
        query(
            "a",
            WINDOW,
            OPEN_ROWS,
            "SELECT id, k, window_start, window_end FROM (SELECT *, row_number() OVER (PARTITION BY k, \
             window_start, window_end ORDER BY ts DESC, id DESC) AS place FROM TUMBLE({a}, ts, \
             INTERVAL '1 minute')) AS x WHERE place = 1",
        ),
        query(
            "a",
            "",
            OPEN_ROWS_AND_KEYS,
            "SELECT id, k, ts FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY ts, id) AS place \
             FROM {a} WHERE ts IS NOT NULL) AS x WHERE place = 1",
        ),
        query(
            "a",
            "ts < {w}",
            OPEN_ROWS_AND_KEYS,
            "SELECT id, k, ts, sum(v) OVER (PARTITION BY k ORDER BY ts RANGE BETWEEN INTERVAL '30 \
             seconds' PRECEDING AND CURRENT ROW) AS sv, count(*) OVER (PARTITION BY k ORDER BY ts \
             RANGE BETWEEN INTERVAL '10 seconds' PRECEDING AND CURRENT ROW) AS n FROM {a} \
             WHERE ts IS NOT NULL",
        ),
        query(
            "a",
            "ts < {w}",
            OPEN_ROWS_AND_KEYS,
            "SELECT id, k, ts, lag(v) OVER w AS before, lag(id, 2) OVER w AS before2 FROM {a} \
             WHERE ts IS NOT NULL WINDOW w AS (PARTITION BY k ORDER BY ts, id)",
        ),
        query(
            "a",
            "",
            OPEN_ROWS_AND_KEYS,
            "SELECT id, k, ts, lead(v) OVER w AS after, lag(ts) OVER w AS before FROM {a} \
             WHERE ts IS NOT NULL WINDOW w AS (PARTITION BY k ORDER BY ts, id)",
        ),
        query(
            "a",
            WINDOW,
            OPEN_ROWS,
            "SELECT id, window_start, window_end, sum(v) OVER (PARTITION BY window_start, window_end \
             ORDER BY id) AS sv, count(*) OVER (PARTITION BY window_start, window_end) AS n FROM \
             TUMBLE({a}, ts, INTERVAL '1 minute')",
        ),
    ]
}
