//! Conditions that compare a row's time with now(): rows enter and leave when time passes.
//!
//! 1. Each condition holds from a time on or until a time, which the row alone decides; so a row is
//!    visible in one interval of logical time.
//! 2. `on_epoch`, with the time of the epoch: visible rows whose interval has ended are taken back,
//!    waiting ones whose interval has begun are given. Then the epoch's changes are looked at: what
//!    is over is passed over, what has not begun waits, the rest is given on.
//! 3. The operator asks to be woken when the next row enters or leaves.
//!
//! Keeps: exactly the rows that are not yet visible, and those that are and will not be for ever.

use arrow::array::{Array, BooleanArray, Int64Array};
use arrow::datatypes::SchemaRef;

use crate::dataflow::operator::{Operator, Output, RowError};
use crate::dataflow::operators::evaluate::{Evaluated, evaluate, shown_row};
use crate::dataflow::operators::materialize::consolidate;
use crate::dataflow::operators::timed_rows::TimedRows;
use crate::plan::event_time::{Step, time_values};
use crate::plan::node::{self, NowCondition, NowOp};
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::state::spill::StoreVisitor;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};
use crate::types::time::{Epoch, EventTime, Watermark};

/// The port of logical time.
const CLOCK: usize = 1;

/// The `temporal_filter` operator.
pub struct TemporalFilter {
    conditions: Vec<NowCondition>,
    schema: SchemaRef,
    /// Changes of the epoch.
    changes: Vec<ChangeBatch>,
    /// By the time from which they are visible.
    waiting: TimedRows,
    /// By the time from which they are not visible any more.
    visible: TimedRows,
    now_us: i64,
}

/// When each row of a batch is visible: from a time on, until before another.
struct Intervals {
    from: Vec<i64>,
    until: Vec<i64>,
}

impl TemporalFilter {
    /// Over input of this schema.
    ///
    /// # Errors
    /// For a column whose type cannot be compared.
    pub fn new(node: &node::TemporalFilter, schema: &SchemaRef) -> Result<TemporalFilter> {
        Ok(TemporalFilter {
            conditions: node.conditions.clone(),
            schema: schema.clone(),
            changes: Vec::new(),
            waiting: TimedRows::new(schema.clone())?,
            visible: TimedRows::new(schema.clone())?,
            now_us: i64::MIN,
        })
    }

    fn intervals(&self, change: &ChangeBatch, out: Option<&mut Output>) -> Result<Intervals> {
        let rows = change.num_rows();
        let mut from = vec![i64::MIN; rows];
        let mut until = vec![i64::MAX; rows];
        let mut errors = Vec::new();
        for condition in &self.conditions {
            let Evaluated { values, failed } = evaluate(&condition.value, change.rows())?;
            errors.extend(failed.into_iter().map(|(row, error)| RowError {
                error,
                expression: condition.display.clone(),
                row: shown_row(change.rows(), row),
                weight: change.weight(row),
            }));
            let values = time_values(&values)
                .ok_or_else(|| Error::internal("what is compared with now() is a time"))?;
            for row in 0..rows {
                // A comparison with NULL is never true.
                let (begins, ends) = if values.is_null(row) {
                    (i64::MAX, i64::MIN)
                } else {
                    interval(condition, values.value(row))
                };
                from[row] = from[row].max(begins);
                until[row] = until[row].min(ends);
            }
        }
        if let Some(out) = out {
            errors.into_iter().for_each(|error| out.row_error(error));
        }
        Ok(Intervals { from, until })
    }

    /// Rows that begin to be visible, or are: given on, and kept if they will go.
    fn show(
        &mut self,
        change: ChangeBatch,
        until: &[i64],
        sent: &mut Vec<ChangeBatch>,
    ) -> Result<()> {
        if until.iter().all(|until| *until == i64::MAX) {
            sent.push(change);
            return Ok(());
        }
        let ending = BooleanArray::from_iter(until.iter().map(|until| Some(*until != i64::MAX)));
        let times = until.iter().copied().filter(|until| *until != i64::MAX);
        self.visible.add(&change.filter(&ending)?, Int64Array::from_iter_values(times))?;
        sent.push(change);
        Ok(())
    }

    /// Lets the time of the epoch begin.
    fn advance(&mut self, sent: &mut Vec<ChangeBatch>) -> Result<()> {
        for gone in self.visible.take_until(self.now_us)? {
            sent.push(gone.negate());
        }
        for come in self.waiting.take_until(self.now_us)? {
            let Intervals { until, .. } = self.intervals(&come, None)?;
            self.take(come, None, &until, sent)?;
        }
        Ok(())
    }

    /// Rows that are not over; `from`: when those are visible that are not yet.
    fn take(
        &mut self,
        change: ChangeBatch,
        from: Option<&[i64]>,
        until: &[i64],
        sent: &mut Vec<ChangeBatch>,
    ) -> Result<()> {
        let now = self.now_us;
        let begins = |row: usize| from.map_or(i64::MIN, |from| from[row]);
        let shown = |row: usize| begins(row) <= now && until[row] > now;
        // A row whose interval is empty never shows.
        let waits = |row: usize| begins(row) > now && until[row] > begins(row);
        let rows = change.num_rows();
        if (0..rows).any(waits) {
            let waiting = BooleanArray::from_iter((0..rows).map(|row| Some(waits(row))));
            let times = (0..rows).filter(|row| waits(*row)).map(begins);
            let times = Int64Array::from_iter_values(times);
            self.waiting.add(&change.filter(&waiting)?, times)?;
        }
        if (0..rows).all(shown) {
            return self.show(change, until, sent);
        }
        let showing = BooleanArray::from_iter((0..rows).map(|row| Some(shown(row))));
        let ends: Vec<i64> = (0..rows).filter(|row| shown(*row)).map(|row| until[row]).collect();
        self.show(change.filter(&showing)?, &ends, sent)
    }
}

/// When a condition holds for a row of this time: from, and until before.
fn interval(condition: &NowCondition, value: i64) -> (i64, i64) {
    let reaches = |value| first_reaching(&condition.steps, value);
    let after = value.saturating_add(1);
    match condition.op {
        NowOp::Greater => (i64::MIN, reaches(value)),
        NowOp::GreaterOrEqual => (i64::MIN, reaches(after)),
        NowOp::Less => (reaches(after), i64::MAX),
        NowOp::LessOrEqual => (reaches(value), i64::MAX),
        NowOp::Equal => (reaches(value), reaches(after)),
    }
}

/// The first time at which the function is at least `value`.
fn first_reaching(steps: &[Step], value: i64) -> i64 {
    steps.iter().rev().fold(value, |value, step| step.first_reaching(value))
}

impl Operator for TemporalFilter {
    fn name(&self) -> &'static str {
        "temporal_filter"
    }

    fn on_batch(&mut self, _: usize, batch: ChangeBatch, _: &mut Output) -> Result<()> {
        self.changes.push(batch);
        Ok(())
    }

    fn on_watermark(&mut self, port: usize, watermark: Watermark, _: &mut Output) -> Result<()> {
        if port == CLOCK {
            self.now_us = watermark.0.0;
        }
        Ok(())
    }

    fn on_epoch(&mut self, _: Epoch, out: &mut Output) -> Result<()> {
        let mut sent = Vec::new();
        self.advance(&mut sent)?;
        for change in std::mem::take(&mut self.changes) {
            let Intervals { from, until } = self.intervals(&change, Some(out))?;
            self.take(change, Some(&from), &until, &mut sent)?;
        }
        for batch in consolidate(&self.schema, sent)? {
            out.emit(batch);
        }
        let next = [self.waiting.next_time(), self.visible.next_time()];
        if let Some(next) = next.into_iter().flatten().min() {
            out.wake_at(EventTime(next));
        }
        Ok(())
    }

    fn checkpoint(&mut self, _: Epoch, writer: &mut CheckpointWriter) -> Result<()> {
        writer.write("waiting", self.waiting.checkpoint_delta()?);
        writer.write("visible", self.visible.checkpoint_delta()?);
        Ok(())
    }

    fn restore(&mut self, reader: &mut CheckpointReader) -> Result<()> {
        let columns: Vec<usize> = (0..self.schema.fields().len()).collect();
        self.waiting.restore(reader.read("waiting", &columns)?)?;
        self.visible.restore(reader.read("visible", &columns)?)
    }

    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        visit(self.waiting.store());
        visit(self.visible.store());
    }

    fn memory_bytes(&self) -> usize {
        let changes = self.changes.iter().map(ChangeBatch::size_bytes).sum::<usize>();
        self.waiting.memory_bytes() + self.visible.memory_bytes() + changes
    }

    fn state_rows(&self) -> usize {
        self.waiting.len() + self.visible.len()
    }
}

#[cfg(test)]
mod tests;
