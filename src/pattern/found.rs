//! What a matcher has found: matches, and what could not be computed.

use crate::pattern::partial::Waits;
use crate::plan::match_recognize::Variables;
use crate::types::error::Error;

/// A label whose row ALL ROWS PER MATCH does not show.
pub const HIDDEN: usize = 1 << 15;

/// What the matcher found, in order.
#[derive(Debug, Default)]
pub struct Found {
    pub matches: Vec<FoundMatch>,
    /// Rows of all matches, as places (`PartitionRows::place`).
    pub rows: Vec<u32>,
    /// What they are mapped to; [`HIDDEN`] is set for those within an exclusion.
    pub labels: Vec<u16>,
    pub failures: Vec<Failure>,
}

impl Found {
    pub fn clear(&mut self) {
        self.matches.clear();
        self.rows.clear();
        self.labels.clear();
        self.failures.clear();
    }
}

/// A match, or a row of no match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundMatch {
    pub kind: MatchKind,
    /// Which of the partitions.
    pub partition: usize,
    /// 1 for the partition's first match; 0 for what is no match.
    pub number: i64,
    /// The place of the row that it begins at.
    pub first: u32,
    /// Where its rows begin among [`Found::rows`], and end.
    pub from: usize,
    pub to: usize,
    /// Of a partial match, what it waited for.
    pub waits: Waits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchKind {
    Match,
    /// A partial match whose time is over.
    TimedOut,
    /// A partial match that a row ended.
    Failed,
    /// A partial match that the end of the partition left.
    Open,
    /// A row that no match has.
    Unmatched,
}

/// Something could not be computed.
#[derive(Debug)]
pub struct Failure {
    pub partition: usize,
    /// The row's place.
    pub row: u32,
    pub part: FailedPart,
    pub error: Error,
}

/// What of a MATCH_RECOGNIZE could not be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailedPart {
    /// A variable's.
    Condition(usize),
    /// Where the next match begins.
    Skip,
    /// The partition's own.
    Pattern,
}

/// Whether a row with this label belongs to one of the variables.
pub(super) fn labelled(label: u16, set: Variables) -> bool {
    set.contains(usize::from(label) & !HIDDEN)
}
