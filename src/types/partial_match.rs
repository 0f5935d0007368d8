//! A match of a row pattern that is under way, for those who look (`millstream.partial_matches`).

/// A beginning of a match of a row pattern that may still become one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialMatch {
    /// `who = ann, rule = 7`.
    pub partition: String,
    /// The times of its first and its last row so far, if rows are in the order of a time.
    pub began_us: Option<i64>,
    pub latest_us: Option<i64>,
    /// Rows so far.
    pub rows: u64,
    /// What they are mapped to: `a b b`.
    pub variables: String,
    /// What the next row should be.
    pub waits_for: String,
    pub condition: String,
    /// When its time is over.
    pub deadline_us: Option<i64>,
    /// There is a match already, but a preferred one may yet come.
    pub is_complete: bool,
}
