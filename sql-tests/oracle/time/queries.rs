//! Queries in time over the streams `{a}` and `{b}`, and when their rows are final.

use rand::Rng;
use rand::rngs::StdRng;

/// A query, and what is known of it.
#[derive(Clone, Debug)]
pub struct Query {
    pub sql: String,
    /// Which streams it reads.
    pub streams: &'static str,
    /// Which of its rows are final at the watermark `{w}`; `None`: it has no closing time.
    pub is_final: Option<String>,
    /// Rows that each of its operators keeps when time has passed all but one row of each split.
    pub rows_max: Option<u64>,
}

/// Three splits have a row of the far future each, and such a row may be in six windows.
const OPEN_ROWS: u64 = 18;
/// The same, and a row for each key: the newest version of what may be asked for still.
const OPEN_ROWS_AND_KEYS: u64 = 24;

/// When windows `window_start` to `window_end` are final.
const WINDOW: &str = "window_end <= {w}";
/// A session's end may still be met by a row.
const SESSION: &str = "window_end < {w}";

/// Each operator in time in several forms.
pub fn listed() -> Vec<Query> {
    let query = |streams: &'static str, is_final: &str, rows_max: u64, sql: &str| Query {
        sql: sql.to_owned(),
        streams,
        is_final: (!is_final.is_empty()).then(|| is_final.to_owned()),
        rows_max: (rows_max > 0).then_some(rows_max),
    };
    let mut all = windows(&query);
    all.extend(rows_in_order(&query));
    all.extend(joins(&query));
    all
}

type Make<'a> = &'a dyn Fn(&'static str, &str, u64, &str) -> Query;

fn windows(query: Make<'_>) -> Vec<Query> {
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

fn rows_in_order(query: Make<'_>) -> Vec<Query> {
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

fn joins(query: Make<'_>) -> Vec<Query> {
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

fn one_of<T: Clone>(random: &mut StdRng, list: &[T]) -> T {
    list[random.random_range(0..list.len())].clone()
}

/// Some columns of a list, each at most once, under new names.
fn aggregates(random: &mut StdRng) -> String {
    const ALL: &[&str] = &[
        "count(*)",
        "count(v)",
        "sum(v)",
        "avg(v)",
        "min(v)",
        "max(v)",
        "min(s)",
        "max(s)",
        "count(DISTINCT s)",
        "sum(DISTINCT v)",
        "sum(v) FILTER (WHERE s = 'x')",
        "bool_or(v > 5)",
        "min(ts)",
        "max(id)",
        "array_agg(id ORDER BY id)",
    ];
    let count = random.random_range(1..4);
    let calls: Vec<String> =
        (0..count).map(|n| format!("{} AS c{n}", one_of(random, ALL))).collect();
    calls.join(", ")
}

/// A window function over a stream, when its windows are final.
fn windowed(random: &mut StdRng, stream: &str) -> (String, &'static str) {
    let seconds = |n: i64| format!("INTERVAL '{n} seconds'");
    let unit = one_of(random, &[5, 10, 30]);
    match random.random_range(0..5) {
        0 | 1 => (format!("TUMBLE({stream}, ts, {})", seconds(unit * 3)), WINDOW),
        2 => {
            let slides = random.random_range(2..5);
            (format!("HOP({stream}, ts, {}, {})", seconds(unit), seconds(unit * slides)), WINDOW)
        }
        3 => {
            let steps = random.random_range(2..5);
            (
                format!("CUMULATE({stream}, ts, {}, {})", seconds(unit), seconds(unit * steps)),
                WINDOW,
            )
        }
        _ => {
            let by = one_of(random, &["", " PARTITION BY k", " PARTITION BY (k, s)"]);
            (format!("SESSION(TABLE {stream}{by}, ts, {})", seconds(unit)), SESSION)
        }
    }
}

/// A random query: an aggregation over windows, with something above it or not.
pub fn generated(random: &mut StdRng) -> Query {
    let (window, is_final) = windowed(random, "{a}");
    let calls = aggregates(random);
    let filter = one_of(random, &["", " WHERE v > 1", " WHERE s IS NOT NULL"]);
    // Where the session's key is not grouped by, one session of each key may be a group.
    let keys = one_of(random, &["k, ", "", "k, s, "]);
    let bounds = "window_start, window_end";
    let grouped =
        format!("SELECT {keys}{bounds}, {calls} FROM {window}{filter} GROUP BY {keys}{bounds}");
    let (sql, streams) = match random.random_range(0..6) {
        0 => (format!("{grouped} HAVING count(*) > 1"), "a"),
        1 => {
            let rank = one_of(random, &["row_number", "rank", "dense_rank"]);
            let order = one_of(random, &["c0 DESC", "c0"]);
            let by = if rank == "row_number" { ", to_text" } else { "" };
            let sql = format!(
                "SELECT * FROM (SELECT *, {rank}() OVER (PARTITION BY {bounds} ORDER BY {order}{by}) AS \
                 place FROM (SELECT *, concat({keys}c0) AS to_text FROM ({grouped}) AS x) AS y) AS z \
                 WHERE place <= 2"
            );
            (sql, "a")
        }
        2 => {
            let other = window.replace("{a}", "{b}");
            let right = format!("SELECT {bounds}, count(*) AS n FROM {other} GROUP BY {bounds}");
            let kind = one_of(random, &["JOIN", "LEFT JOIN"]);
            let sql = format!(
                "SELECT x.*, y.n FROM ({grouped}) x {kind} ({right}) y ON \
                 x.window_start = y.window_start AND x.window_end = y.window_end"
            );
            (sql, "ab")
        }
        _ => (grouped, "a"),
    };
    Query { sql, streams, is_final: Some(is_final.to_owned()), rows_max: Some(OPEN_ROWS) }
}
