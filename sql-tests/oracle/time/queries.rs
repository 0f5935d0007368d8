//! Queries in time over the streams `{a}` and `{b}`, and when their rows are final.

use rand::Rng;
use rand::rngs::StdRng;

/// A query, and what is known of it.
#[derive(Clone, Debug)]
pub struct Query {
    pub sql: String,
    /// The same said in another way, for the batch; `None`: as it is.
    pub batch: Option<String>,
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
        batch: None,
        streams,
        is_final: (!is_final.is_empty()).then(|| is_final.to_owned()),
        rows_max: (rows_max > 0).then_some(rows_max),
    };
    let mut all = windows(&query);
    all.extend(rows_in_order(&query));
    all.extend(joins(&query));
    all.extend(versions(&query));
    all.extend(more_windows(&query));
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
fn versions(query: Make<'_>) -> Vec<Query> {
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

fn more_windows(query: Make<'_>) -> Vec<Query> {
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

/// A window function over a stream.
struct Windowed {
    sql: String,
    /// When its windows are final.
    is_final: &'static str,
    rows_max: u64,
}

/// One of them.
fn windowed(random: &mut StdRng, stream: &str) -> Windowed {
    let seconds = |n: i64| format!("INTERVAL '{n} seconds'");
    let unit = one_of(random, &[5, 10, 30]);
    let offset = match random.random_range(0..3) {
        0 => format!(", {}", seconds(random.random_range(-40..40))),
        _ => String::new(),
    };
    let of = |sql: String, of_a_row: i64| Windowed {
        sql,
        is_final: WINDOW,
        rows_max: OPEN_ROWS.max(3 * of_a_row as u64),
    };
    match random.random_range(0..5) {
        0 => of(format!("TUMBLE({stream}, ts, {}{offset})", seconds(unit * 3)), 1),
        1 | 2 => {
            // Windows that are a multiple of the slide, and others: their panes are shorter.
            let size = unit * random.random_range(2..=12) - one_of(random, &[0, 0, 2]);
            let sql = format!("HOP({stream}, ts, {}, {}{offset})", seconds(unit), seconds(size));
            of(sql, size / unit + 1)
        }
        3 => {
            let steps = random.random_range(2..5);
            let (step, size) = (seconds(unit), seconds(unit * steps));
            of(format!("CUMULATE({stream}, ts, {step}, {size}{offset})"), steps)
        }
        _ => {
            let by = one_of(random, &["", " PARTITION BY k", " PARTITION BY (k, s)"]);
            let sql = format!("SESSION(TABLE {stream}{by}, ts, {})", seconds(unit));
            Windowed { sql, is_final: SESSION, rows_max: OPEN_ROWS }
        }
    }
}

/// A random query: an aggregation over windows, with something above it or not.
pub fn generated(random: &mut StdRng) -> Query {
    let Windowed { sql: window, is_final, rows_max } = windowed(random, "{a}");
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
    let is_final = Some(is_final.to_owned());
    Query { sql, batch: None, streams, is_final, rows_max: Some(rows_max) }
}
