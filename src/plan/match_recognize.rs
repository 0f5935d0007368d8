//! MATCH_RECOGNIZE as plain data: the pattern, what its conditions and measures read, and how the
//! matches become rows. `program` compiles the pattern, `pattern::matcher` runs it.
//!
//! Conditions and measures are scalar expressions over *reads*: the value of a column at some row
//! of the match, an aggregate over rows of the match, the match's number. So everything that is
//! special to row patterns is in [`Read`]; the rest is ordinary expressions.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::logical_expr::{Accumulator, GroupsAccumulator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use crate::plan::expr::Expr;
use crate::plan::node::SortColumn;
use crate::types::error::{Error, Result};

pub mod program;
mod reach;
pub mod text;

/// Variables are bits of a word.
pub const VARIABLES_MAX: usize = 64;
/// Columns that the arguments of aggregates have beside the input's: the name of the variable that
/// a row is mapped to, and the number of its match.
pub const CLASSIFIER_COLUMN: &str = "classifier()";
pub const MATCH_NUMBER_COLUMN: &str = "match_number()";

/// The values of MATCH_STATE(): the pattern is complete; a partial match whose time is over; one
/// that a row ended; one that the end of the rows left.
pub const STATES: [&str; 4] = ["complete", "timed out", "failed", "open"];

/// A set of pattern variables: bit n is variable n.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Variables(pub u64);

impl Variables {
    /// The universal row pattern variable: every row of the match.
    pub const ALL: Variables = Variables(u64::MAX);

    pub fn one(variable: usize) -> Variables {
        debug_assert!(variable < VARIABLES_MAX, "checked when the pattern was bound");
        Variables(1 << variable)
    }

    pub fn contains(self, variable: usize) -> bool {
        self.0 >> variable & 1 == 1
    }
}

/// A row pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pattern {
    /// `()`: matches no rows.
    Empty,
    /// One row that the variable's condition holds for.
    Variable(usize),
    Concat(Vec<Pattern>),
    /// The first that leads to a match is preferred.
    Alternation(Vec<Pattern>),
    /// All of them, in any order; orders that begin with earlier ones are preferred.
    Permute(Vec<Pattern>),
    Repeat {
        inner: Box<Pattern>,
        min: u32,
        /// `None`: without end.
        max: Option<u32>,
        /// Rather more than fewer.
        greedy: bool,
    },
    /// `{- ... -}`: its rows belong to the match, but ALL ROWS PER MATCH does not show them.
    Exclude(Box<Pattern>),
    /// `^`: before the partition's first row.
    Start,
    /// `$`: behind the partition's last row.
    End,
    /// `NOT v`: the next row is none of v (strict); none of v comes before the next row of the
    /// match (relaxed).
    Not(usize),
}

/// Where each partition has its own pattern as a text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PatternFrom {
    /// A column of the partition.
    pub column: usize,
    /// The names of the variables, folded.
    pub names: Vec<String>,
}

/// Which rows may stand between two rows of a match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Contiguity {
    /// None, as in the standard.
    #[default]
    Strict,
    /// Rows that cannot go on with the match.
    Relaxed,
    /// Any rows.
    RelaxedAny,
}

/// Which rows a match gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RowsPerMatch {
    One,
    /// Its rows; an empty match gives the row that it begins at if `shows_empty`; rows of no match
    /// are given if `shows_unmatched`.
    All {
        shows_empty: bool,
        shows_unmatched: bool,
    },
}

impl RowsPerMatch {
    pub fn shows_unmatched(self) -> bool {
        matches!(self, RowsPerMatch::All { shows_unmatched: true, .. })
    }
}

/// The frame of a row pattern in a window: each row of the input gives one row, with what is read
/// of the match that belongs to it, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frame {
    /// Rows behind the current one; `None`: all. Nothing beyond them is read, nor before it.
    pub rows_following: Option<u64>,
    /// A match may begin behind the current row.
    pub seek: bool,
}

/// Where the next match is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Skip {
    PastLastRow,
    ToNextRow,
    /// To the first row of these variables.
    ToFirst(Variables),
    ToLast(Variables),
}

/// What a condition or a measure reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Read {
    Row(RowRead),
    Aggregate {
        /// Of [`MatchSpec::aggregates`].
        aggregate: usize,
        of: Variables,
        /// Over the rows up to the current one only.
        running: bool,
    },
    /// 1 for the first match of a partition.
    MatchNumber,
    /// Whether the match was given up because its time is over.
    TimedOut,
    /// What became of it: [`STATES`].
    State,
    /// What a partial match waited for when it ended.
    WaitedFor,
}

/// A value of one row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowRead {
    pub value: RowValue,
    /// Among the rows of these variables, ...
    pub of: Variables,
    /// ... counted from the last, or else from the first, ...
    pub from_last: bool,
    /// ... passing over so many of them; ...
    pub offset: u64,
    /// ... from there so many rows of the partition forward, or back if negative.
    pub shift: i64,
    /// Only rows up to the current one count.
    pub running: bool,
}

impl RowRead {
    /// Whether it is a row at a fixed distance from the current one, which is being tried for
    /// `variable`.
    pub fn is_near(&self, variable: usize) -> bool {
        self.from_last
            && self.offset == 0
            && self.of.contains(variable)
            && matches!(self.value, RowValue::Column(_))
    }
}

/// What of a row is read.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RowValue {
    /// A column of the input.
    Column(usize),
    /// The name of the variable that the row is mapped to.
    Classifier,
}

/// When a row may be mapped to a variable.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// What depends on the row and rows at fixed distances from it only.
    pub near: Option<Predicate>,
    /// What depends on how the match has come here; looked at where `near` holds.
    pub far: Option<Predicate>,
}

/// An expression over some reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Predicate {
    pub expr: Expr,
    /// The expression's columns: places in [`MatchSpec::reads`].
    pub reads: Vec<usize>,
    pub schema: SchemaRef,
}

/// Rows must be within a time of the match's first row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Within {
    /// A time column of the input, by which rows are sorted ascending.
    pub column: usize,
    pub duration_us: i64,
}

/// A column of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MatchColumn {
    /// A column of the input: of the row shown; of the match's first row with one row per match.
    Input(usize),
    /// A place in [`MatchSpec::reads`].
    Read(usize),
}

/// An aggregate function over rows of a match; DataFusion's aggregates stop here.
#[derive(Clone)]
pub struct MatchAggregate {
    function: Arc<AggregateFunctionExpr>,
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    /// Whether an argument is or contains CLASSIFIER() or MATCH_NUMBER().
    pub reads_match: bool,
    /// As the user wrote it.
    pub display: String,
}

impl MatchAggregate {
    /// `filter` and the function's arguments are over the input's columns and those of
    /// [`CLASSIFIER_COLUMN`] and [`MATCH_NUMBER_COLUMN`] behind them.
    pub fn new(
        function: Arc<AggregateFunctionExpr>,
        filter: Option<Arc<dyn PhysicalExpr>>,
        reads_match: bool,
        display: String,
    ) -> MatchAggregate {
        // Accumulators take what they sort by behind their arguments.
        let mut arguments = function.expressions();
        arguments.extend(function.order_bys().iter().map(|sort| sort.expr.clone()));
        MatchAggregate { function, arguments, filter, reads_match, display }
    }

    /// A fresh state for one group of rows.
    ///
    /// # Errors
    /// When the function cannot be computed here.
    pub fn accumulator(&self) -> Result<Box<dyn Accumulator>> {
        Ok(self.function.create_accumulator()?)
    }

    /// A fresh state for many groups; `None`: the function has none.
    ///
    /// # Errors
    /// When the function cannot be computed here.
    pub fn groups_accumulator(&self) -> Result<Option<Box<dyn GroupsAccumulator>>> {
        if !self.function.groups_accumulator_supported() {
            return Ok(None);
        }
        Ok(Some(self.function.create_groups_accumulator()?))
    }

    /// The arguments of rows.
    ///
    /// # Errors
    /// When one of them cannot be computed.
    pub fn arguments(&self, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        self.arguments
            .iter()
            .map(|argument| Ok(argument.evaluate(rows)?.into_array(rows.num_rows())?))
            .collect()
    }

    /// The rows that count, if not all.
    ///
    /// # Errors
    /// When the condition of some row cannot be computed.
    pub fn filter(&self, rows: &RecordBatch) -> Result<Option<ArrayRef>> {
        let Some(filter) = &self.filter else { return Ok(None) };
        Ok(Some(filter.evaluate(rows)?.into_array(rows.num_rows())?))
    }

    pub fn data_type(&self) -> DataType {
        self.function.field().data_type().clone()
    }
}

impl fmt::Debug for MatchAggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display)
    }
}

/// Functions that were compiled apart are different: they cannot be compared.
impl PartialEq for MatchAggregate {
    fn eq(&self, other: &MatchAggregate) -> bool {
        Arc::ptr_eq(&self.function, &other.function)
    }
}

/// All that is to be known of one MATCH_RECOGNIZE. Columns are the input's.
#[derive(Clone, Debug, PartialEq)]
pub struct MatchSpec {
    pub partition: Vec<usize>,
    pub order_by: Vec<SortColumn>,
    /// Names of the variables, as the user spells them in PATTERN.
    pub variables: Vec<String>,
    pub pattern: Pattern,
    /// Each partition has a pattern of its own; `pattern` is none then.
    pub pattern_from: Option<PatternFrom>,
    pub contiguity: Contiguity,
    pub skip: Skip,
    pub rows: RowsPerMatch,
    /// It is a window's.
    pub frame: Option<Frame>,
    pub within: Option<Within>,
    /// Partial matches whose time is over give rows too.
    pub timeout_rows: bool,
    /// So do beginnings at which some rows, but no match, were found.
    pub partial_rows: bool,
    /// One for each variable; `None`: every row.
    pub conditions: Vec<Option<Condition>>,
    pub reads: Vec<Read>,
    /// The types of `reads`.
    pub reads_schema: SchemaRef,
    pub aggregates: Vec<MatchAggregate>,
    /// The input with the columns that arguments of aggregates have beside it.
    pub aggregates_schema: SchemaRef,
    pub columns: Vec<MatchColumn>,
    pub schema: SchemaRef,
}

impl MatchSpec {
    /// How many rows before a row conditions and measures look at most.
    pub fn rows_back(&self) -> u64 {
        self.shifts().map(|shift| shift.min(0).unsigned_abs()).max().unwrap_or(0)
    }

    /// How many rows after a row conditions and measures look at most.
    pub fn rows_ahead(&self) -> u64 {
        self.shifts().map(|shift| shift.max(0).unsigned_abs()).max().unwrap_or(0)
    }

    fn shifts(&self) -> impl Iterator<Item = i64> {
        self.reads.iter().map(|read| match read {
            Read::Row(row) => row.shift,
            _ => 0,
        })
    }

    /// Whether any condition satisfies `test`.
    pub fn any_far_read(&self, test: impl Fn(&Read) -> bool) -> bool {
        self.conditions
            .iter()
            .flatten()
            .filter_map(|condition| condition.far.as_ref())
            .flat_map(|far| &far.reads)
            .any(|read| test(&self.reads[*read]))
    }

    /// Whether the number of a match shows or decides anything.
    pub fn uses_match_number(&self) -> bool {
        self.reads.contains(&Read::MatchNumber) || self.aggregates.iter().any(|a| a.reads_match)
    }

    /// The condition's parts as one text.
    pub fn condition_text(&self, variable: usize) -> String {
        let Some(condition) = &self.conditions[variable] else { return "true".to_owned() };
        let parts = [&condition.near, &condition.far].into_iter().flatten();
        parts.map(|part| part.expr.to_string()).collect::<Vec<_>>().join(" AND ")
    }

    /// # Errors
    /// When there is no such variable: our mistake.
    pub fn variable_name(&self, variable: usize) -> Result<&str> {
        self.variables
            .get(variable)
            .map(String::as_str)
            .ok_or_else(|| Error::internal(format!("there is no pattern variable {variable}")))
    }
}

/// The pattern as SQL, for EXPLAIN.
pub struct PatternText<'a> {
    pub pattern: &'a Pattern,
    pub variables: &'a [String],
}

impl fmt::Display for PatternText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_pattern(f, self.pattern, self.variables, 0)
    }
}

/// `level` 0: alternatives need no parentheses; 1: a part of a sequence; 2: what is repeated.
fn write_pattern(
    f: &mut fmt::Formatter<'_>,
    pattern: &Pattern,
    variables: &[String],
    level: u8,
) -> fmt::Result {
    let list = |items: &[Pattern], between: &str, own: u8, f: &mut fmt::Formatter<'_>| {
        let wrapped = level > own;
        f.write_str(if wrapped { "(" } else { "" })?;
        for (index, item) in items.iter().enumerate() {
            f.write_str(if index > 0 { between } else { "" })?;
            write_pattern(f, item, variables, own + 1)?;
        }
        f.write_str(if wrapped { ")" } else { "" })
    };
    match pattern {
        Pattern::Empty => f.write_str("()"),
        Pattern::Variable(variable) => f.write_str(&variables[*variable]),
        Pattern::Not(variable) => write!(f, "NOT {}", variables[*variable]),
        Pattern::Concat(items) => list(items, " ", 1, f),
        Pattern::Alternation(items) => list(items, " | ", 0, f),
        Pattern::Permute(items) => {
            f.write_str("PERMUTE(")?;
            for (index, item) in items.iter().enumerate() {
                f.write_str(if index > 0 { ", " } else { "" })?;
                write_pattern(f, item, variables, 0)?;
            }
            f.write_str(")")
        }
        Pattern::Repeat { inner, min, max, greedy } => {
            write_pattern(f, inner, variables, 2)?;
            match (min, max) {
                (0, None) => f.write_str("*")?,
                (1, None) => f.write_str("+")?,
                (0, Some(1)) => f.write_str("?")?,
                (min, None) => write!(f, "{{{min},}}")?,
                (min, Some(max)) if min == max => write!(f, "{{{min}}}")?,
                (min, Some(max)) => write!(f, "{{{min},{max}}}")?,
            }
            f.write_str(if *greedy { "" } else { "?" })
        }
        Pattern::Exclude(inner) => {
            f.write_str("{- ")?;
            write_pattern(f, inner, variables, 0)?;
            f.write_str(" -}")
        }
        Pattern::Start => f.write_str("^"),
        Pattern::End => f.write_str("$"),
    }
}
