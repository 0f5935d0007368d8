//! Queries by chance: windows of any shape, what is aggregated in them, and what stands above.

use rand::Rng;
use rand::rngs::StdRng;

use super::{OPEN_ROWS, Query, SESSION, WINDOW};

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
