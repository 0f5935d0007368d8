//! A compiled window function: values for the rows of one partition in order, and how far a row
//! looks. DataFusion's window expressions stop here.
//!
//! How far a row looks tells an operator which rows a change may concern, and which rows it needs
//! to compute those anew: with `ROWS 2 PRECEDING` a change concerns the two rows after it, and
//! they need the two before it.
//!
//! Calls that look to the beginning or the end of the partition say besides how rows can be summed
//! up for them ([`Summable`]): what stands before a row then counts as one summary, not row by row.
//! Those with a frame of so many rows say that, too: a frame follows from the one before.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use datafusion::physical_expr::window::WindowExpr;

use crate::plan::node::AggregateCall;
use crate::types::error::Result;

/// How far a row looks in one direction.
#[derive(Clone, Debug, PartialEq)]
pub enum Distance {
    /// This many rows.
    Rows(u64),
    /// This many groups of rows that sort alike; 0: those that sort like the row itself.
    Groups(u64),
    /// Rows whose sort value differs by at most this (an array of one value).
    Range(ArrayRef),
    /// To the end of the partition.
    Unbounded,
}

/// A call whose value follows from sums: over all rows before or after a place, or over the rows
/// that a frame takes in and gives up as it moves on.
#[derive(Clone, Debug, PartialEq)]
pub enum Summable {
    Number(Numbering),
    Aggregate {
        call: AggregateCall,
        frame: OpenFrame,
    },
    /// Over a frame that moves along with the row.
    Sliding {
        call: AggregateCall,
        frame: MovingFrame,
    },
}

/// A frame with two ends that move along with the row.
#[derive(Clone, Debug, PartialEq)]
pub enum MovingFrame {
    /// From the `first` to the `last` row, counted from the row itself; below 0: before it.
    Rows { first: i64, last: i64 },
    /// Of rows whose sort value differs by so much.
    Range { start: RangeEdge, end: RangeEdge },
}

/// Where a frame by sort values begins or ends.
#[derive(Clone, Debug, PartialEq)]
pub enum RangeEdge {
    /// At the outermost row that sorts like the row itself.
    Peers,
    /// So far before the row (an array of one value).
    Before(ArrayRef),
    After(ArrayRef),
}

/// A function of a row's place in its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbering {
    RowNumber,
    Rank,
    DenseRank,
    PercentRank,
    CumeDist,
    /// Of so many buckets; at least 1.
    Ntile(u64),
}

/// A frame that reaches to an end of the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenFrame {
    All,
    /// From the first row.
    To(Edge),
    /// To the last row.
    From(Edge),
}

/// The other end of an open frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// So many rows after the row itself; below 0: before it.
    Row(i64),
    /// The outermost row that sorts like the row itself.
    Peers,
}

/// A window function over partitions in order. Cheap to clone.
#[derive(Clone)]
pub struct WindowCall {
    expr: Arc<dyn WindowExpr>,
    /// How far a row looks to rows before it, and after it.
    pub preceding: Distance,
    pub following: Distance,
    /// How rows can be summed up for it.
    pub summable: Option<Summable>,
    pub return_type: DataType,
    /// As the user wrote it, for EXPLAIN and errors.
    pub display: String,
}

impl WindowCall {
    pub fn new(
        expr: Arc<dyn WindowExpr>,
        (preceding, following): (Distance, Distance),
        return_type: DataType,
        display: String,
    ) -> WindowCall {
        WindowCall { expr, preceding, following, summable: None, return_type, display }
    }

    /// The same with what is known of it.
    #[must_use]
    pub fn summed_up(self, summable: Option<Summable>) -> WindowCall {
        WindowCall { summable, ..self }
    }

    /// One value per row of a partition, or of a part of it that has all rows that its rows look
    /// at.
    ///
    /// # Errors
    /// When some value cannot be computed; it does not say which.
    pub fn evaluate(&self, rows: &RecordBatch) -> Result<ArrayRef> {
        let values = self.expr.evaluate(rows)?;
        if values.data_type() != &self.return_type {
            return Ok(arrow::compute::cast(&values, &self.return_type)?);
        }
        Ok(values)
    }
}

/// Calls that were compiled apart are different: window expressions cannot be compared.
impl PartialEq for WindowCall {
    fn eq(&self, other: &WindowCall) -> bool {
        Arc::ptr_eq(&self.expr, &other.expr)
    }
}

impl fmt::Debug for WindowCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display)
    }
}
