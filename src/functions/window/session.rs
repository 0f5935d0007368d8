//! `session_start(ts, gap)` and `session_end(ts, gap)` over partitions in the order of `ts`.
//!
//! A session is the rows of which each is at most `gap` after the one before it; it begins with its
//! first row and ends `gap` after its last one. Rows at a distance of exactly `gap` are in one
//! session, as in Flink. `sql::windows` writes SESSION with these; a view has an operator of its
//! own for them (`plan::Node::Session`), which computes by [`SessionEdges`] too.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{
    DataType, Field, FieldRef, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
    TimestampMicrosecondType,
};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    PartitionEvaluator, Signature, Volatility, WindowUDF, WindowUDFImpl,
};

use crate::functions::scalar::windows::positive_us;
use crate::types::error::{Error, SqlState};

/// Which end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bound {
    Start,
    End,
}

/// A function of sessions.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct SessionFunction {
    pub bound: Bound,
    signature: Signature,
}

/// Both of them.
pub fn all() -> Vec<Arc<WindowUDF>> {
    [Bound::Start, Bound::End]
        .into_iter()
        .map(|bound| {
            let signature = Signature::any(2, Volatility::Immutable);
            Arc::new(WindowUDF::new_from_impl(SessionFunction { bound, signature }))
        })
        .collect()
}

/// The gap of a session in microseconds, from the value of an argument.
///
/// # Errors
/// SQLSTATE 22023 when it is no positive interval.
pub fn gap_us(gap: &dyn Array) -> crate::types::error::Result<i64> {
    let wrong = || {
        Error::user(SqlState::INVALID_PARAMETER_VALUE, "the gap of SESSION must be an interval")
            .hint("Write INTERVAL '10 minutes'.")
    };
    let gap = gap.as_primitive_opt::<IntervalMonthDayNanoType>().ok_or_else(wrong)?;
    if gap.is_empty() || gap.is_null(0) {
        return Err(wrong());
    }
    positive_us(gap.value(0), "gap")
}

/// Follows the times of a partition, ascending, and tells where sessions end.
pub struct SessionEdges {
    gap_us: i64,
    last: Option<i64>,
}

impl SessionEdges {
    pub fn new(gap_us: i64) -> SessionEdges {
        SessionEdges { gap_us, last: None }
    }

    /// Whether the row at this time begins a session.
    pub fn begins(&mut self, time_us: i64) -> bool {
        let before = self.last.replace(time_us);
        before.is_none_or(|before| is_apart(before, time_us, self.gap_us))
    }
}

/// Whether two times that follow each other are in different sessions.
pub fn is_apart(before_us: i64, after_us: i64, gap_us: i64) -> bool {
    after_us.checked_sub(before_us).is_none_or(|distance| distance > gap_us)
}

impl WindowUDFImpl for SessionFunction {
    fn name(&self) -> &str {
        match self.bound {
            Bound::Start => "session_start",
            Bound::End => "session_end",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(
        &self,
        _args: PartitionEvaluatorArgs<'_>,
    ) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(SessionEvaluator { bound: self.bound }))
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        let time = args.input_fields().first().map(|field| field.data_type().clone());
        match (time, args.input_fields().get(1).map(|gap| gap.data_type())) {
            (
                Some(time @ DataType::Timestamp(TimeUnit::Microsecond, _)),
                Some(DataType::Interval(IntervalUnit::MonthDayNano)),
            ) => Ok(Arc::new(Field::new(args.name(), time, true))),
            (Some(DataType::Timestamp(_, _)), _) => Err(external(
                Error::user(SqlState::DATATYPE_MISMATCH, "the gap of SESSION must be an interval")
                    .hint("Write INTERVAL '10 minutes'."),
            )),
            (time, _) => {
                let time = time.map_or_else(String::new, |time| format!(", not {time}"));
                let message = format!("the time of SESSION must be a timestamp{time}");
                Err(external(
                    Error::user(SqlState::DATATYPE_MISMATCH, message)
                        .hint("Cast it in a subquery, which can take the table's place."),
                ))
            }
        }
    }
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

#[derive(Debug)]
struct SessionEvaluator {
    bound: Bound,
}

impl PartitionEvaluator for SessionEvaluator {
    fn evaluate_all(&mut self, values: &[ArrayRef], num_rows: usize) -> Result<ArrayRef> {
        let [times, gap] = values else {
            return Err(DataFusionError::Internal("a session has a time and a gap".to_owned()));
        };
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let gap = gap_us(gap).map_err(external)?;
        let bounds = session_bounds(times, gap, self.bound);
        assert_eq!(bounds.len(), num_rows, "a bound for each row");
        Ok(Arc::new(bounds.with_data_type(times.data_type().clone())))
    }
}

/// A bound of the session of each row; the rows of a partition in order, those without a time at
/// either end.
fn session_bounds(
    times: &TimestampMicrosecondArray,
    gap_us: i64,
    bound: Bound,
) -> TimestampMicrosecondArray {
    let mut bounds: Vec<Option<i64>> = Vec::with_capacity(times.len());
    let mut edges = SessionEdges::new(gap_us);
    let (mut first, mut start, mut last) = (0, 0, 0);
    let fill = |bounds: &mut Vec<Option<i64>>, first: usize, start: i64, last: i64| {
        let value = match bound {
            Bound::Start => start,
            Bound::End => session_end(last, gap_us),
        };
        bounds[first..].fill(Some(value));
    };
    for (row, time) in times.iter().enumerate() {
        let Some(time) = time else {
            if first < bounds.len() {
                fill(&mut bounds, first, start, last);
            }
            bounds.push(None);
            first = bounds.len();
            continue;
        };
        if edges.begins(time) {
            if first < bounds.len() {
                fill(&mut bounds, first, start, last);
            }
            (first, start) = (row, time);
        }
        last = time;
        bounds.push(Some(time));
    }
    if first < bounds.len() {
        fill(&mut bounds, first, start, last);
    }
    TimestampMicrosecondArray::from(bounds)
}

/// When a session ends whose last row is at this time; at the end of time at the latest.
pub fn session_end(last_us: i64, gap_us: i64) -> i64 {
    last_us.saturating_add(gap_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(times: &[Option<i64>], bound: Bound) -> Vec<Option<i64>> {
        let times = TimestampMicrosecondArray::from(times.to_vec());
        session_bounds(&times, 10, bound).iter().collect()
    }

    #[test]
    fn rows_at_most_a_gap_apart_are_in_one_session() {
        let times = [Some(-5), Some(5), Some(5), Some(16), Some(40), None];
        let starts = bounds(&times, Bound::Start);
        assert_eq!(starts, [Some(-5), Some(-5), Some(-5), Some(16), Some(40), None]);
        let ends = bounds(&times, Bound::End);
        assert_eq!(ends, [Some(15), Some(15), Some(15), Some(26), Some(50), None]);
        assert_eq!(bounds(&[None, Some(1)], Bound::Start), [None, Some(1)]);
        assert!(bounds(&[], Bound::End).is_empty());
    }

    #[test]
    fn times_further_apart_than_numbers_reach_are_apart() {
        assert!(is_apart(i64::MIN, i64::MAX, 10));
        assert_eq!(session_end(i64::MAX - 3, 10), i64::MAX);
    }
}
