//! Queries in time over the streams `{a}` and `{b}`, and when their rows are final.

mod joins;
mod random;
mod windows;

pub use self::joins::VERSIONED;
pub use self::random::generated;

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
    let mut all = windows::windows();
    all.extend(windows::rows_in_order());
    all.extend(joins::joins());
    all.extend(joins::versions());
    all.extend(windows::more_windows());
    all
}

/// A query whose rows are never final where `is_final` is empty; `rows_max` 0: it keeps all rows.
fn query(streams: &'static str, is_final: &str, rows_max: u64, sql: &str) -> Query {
    Query {
        sql: sql.to_owned(),
        batch: None,
        streams,
        is_final: (!is_final.is_empty()).then(|| is_final.to_owned()),
        rows_max: (rows_max > 0).then_some(rows_max),
    }
}
