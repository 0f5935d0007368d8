//! What is written in MATCH_RECOGNIZE beside expressions, on its way through sqlparser's tree.
//!
//! `sql::extensions` turns `t MATCH_RECOGNIZE (...)` into
//! `(SELECT __match_recognize('clauses'), expressions... FROM t)`: the expressions stand in the
//! tree as any others, and what sqlparser has no place for stands in that string.

use serde::{Deserialize, Serialize};

use crate::plan::match_recognize::Contiguity;
use crate::plan::match_recognize::text::{Named, NamedPattern};

/// The function whose argument are the clauses.
pub const MARKER: &str = "__match_recognize";
/// What `RUNNING f(x)` and `FINAL f(x)` are called in the tree.
pub const RUNNING: &str = "__running";
pub const FINAL: &str = "__final";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sort {
    pub descending: bool,
    pub nulls_first: Option<bool>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum RowsClause {
    One,
    AllShowEmpty,
    AllOmitEmpty,
    AllWithUnmatched,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum SkipClause {
    PastLastRow,
    ToNextRow,
    ToFirst(Named),
    ToLast(Named),
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum ContiguityClause {
    Strict,
    Relaxed,
    RelaxedAny,
}

impl From<ContiguityClause> for Contiguity {
    fn from(clause: ContiguityClause) -> Contiguity {
        match clause {
            ContiguityClause::Strict => Contiguity::Strict,
            ContiguityClause::Relaxed => Contiguity::Relaxed,
            ContiguityClause::RelaxedAny => Contiguity::RelaxedAny,
        }
    }
}

/// An interval literal's text, its unit included.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WithinClause {
    pub interval: String,
    pub position: usize,
}

/// A window's frame with a pattern. The table that it makes of its rows has each of them, with the
/// columns under their own tables' names, and the measures behind.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct FrameClause {
    /// Rows behind the current one; `None`: all.
    pub rows_following: Option<u64>,
    /// A match may begin behind the current row.
    pub seek: bool,
}

/// All of it. The expressions follow in this order: PARTITION BY, ORDER BY, MEASURES, DEFINE,
/// PATTERN FROM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Clauses {
    pub position: usize,
    pub partition: usize,
    pub order_by: Vec<Sort>,
    pub measures: Vec<Named>,
    pub rows: RowsClause,
    pub skip: SkipClause,
    pub frame: Option<FrameClause>,
    /// Nothing, if `pattern_from`.
    pub pattern: NamedPattern,
    /// The pattern is the value of an expression.
    pub pattern_from: bool,
    pub pattern_position: usize,
    pub contiguity: ContiguityClause,
    pub within: Option<WithinClause>,
    pub timeout_rows: bool,
    /// Beginnings that came to nothing give rows, too.
    pub partial_rows: bool,
    pub subsets: Vec<(Named, Vec<Named>)>,
    pub defines: Vec<Named>,
}
