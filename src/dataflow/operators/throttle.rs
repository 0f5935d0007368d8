//! EMIT ON UPDATE EVERY interval: changes are held back and leave together, so that a row changes at
//! most once in each interval.
//!
//! 1. `on_batch`: changes gather; those that take each other back are gone.
//! 2. `on_epoch`: when the interval in which changes left last is over, those that there are leave,
//!    and the watermark with them. Until then the operator asks to be woken.
//!
//! Intervals are those of logical time that begin at multiples of the length. The first content of
//! a view leaves at once.
//!
//! Keeps: the changes of one interval, added up.

use arrow::array::Int64Array;
use arrow::datatypes::SchemaRef;

use crate::dataflow::operator::{Operator, Output};
use crate::dataflow::operators::timed_rows::TimedRows;
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::state::spill::StoreVisitor;
use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use crate::types::time::{Epoch, EventTime, Watermark};

/// The port of logical time.
const CLOCK: usize = 1;
/// All changes wait for the same time.
const WAITING: i64 = 0;

/// The `throttle` operator.
pub struct Throttle {
    every_us: i64,
    changes: TimedRows,
    now_us: i64,
    /// Changes leave from this time on.
    due_us: i64,
    /// The input's watermark, when it has moved since it was sent on.
    watermark: Option<Watermark>,
}

impl Throttle {
    /// Over input of this schema.
    ///
    /// # Errors
    /// For a column whose type cannot be compared.
    pub fn new(every_us: i64, schema: &SchemaRef) -> Result<Throttle> {
        assert!(every_us > 0, "planned with an interval");
        Ok(Throttle {
            every_us,
            changes: TimedRows::new(schema.clone())?,
            now_us: i64::MIN,
            due_us: i64::MIN,
            watermark: None,
        })
    }
}

impl Operator for Throttle {
    fn name(&self) -> &'static str {
        "throttle"
    }

    fn on_batch(&mut self, _: usize, batch: ChangeBatch, _: &mut Output) -> Result<()> {
        self.changes.add(&batch, Int64Array::from(vec![WAITING; batch.num_rows()]))
    }

    fn on_watermark(&mut self, port: usize, watermark: Watermark, _: &mut Output) -> Result<()> {
        if port == CLOCK {
            self.now_us = watermark.0.0;
        } else {
            self.watermark = Some(watermark);
        }
        Ok(())
    }

    fn on_epoch(&mut self, _: Epoch, out: &mut Output) -> Result<()> {
        if self.changes.next_time().is_none() && self.watermark.is_none() {
            return Ok(());
        }
        if self.now_us < self.due_us {
            out.wake_at(EventTime(self.due_us));
            return Ok(());
        }
        for batch in self.changes.take_until(WAITING)? {
            out.emit(batch);
        }
        if let Some(watermark) = self.watermark.take() {
            out.emit_watermark(watermark);
        }
        let begun = self.now_us.saturating_sub(self.now_us.rem_euclid(self.every_us));
        self.due_us = begun.saturating_add(self.every_us);
        Ok(())
    }

    fn checkpoint(&mut self, _: Epoch, writer: &mut CheckpointWriter) -> Result<()> {
        writer.write("changes", self.changes.checkpoint_delta()?);
        Ok(())
    }

    fn restore(&mut self, reader: &mut CheckpointReader) -> Result<()> {
        let columns: Vec<usize> = (0..self.changes.width()).collect();
        self.changes.restore(reader.read("changes", &columns)?)
    }

    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        visit(self.changes.store());
    }

    fn memory_bytes(&self) -> usize {
        self.changes.memory_bytes()
    }

    fn state_rows(&self) -> usize {
        self.changes.len()
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::dataflow::script::{check, schema};

    #[test]
    fn changes_leave_together_once_in_an_interval() {
        let input = schema("k bigint, n bigint");
        let clock = schema("");
        check(
            || Box::new(Throttle::new(1_000_000, &schema("k bigint, n bigint")).expect("new")),
            &[input, clock],
            "
            batch 0
              + 1 1
            watermark 1 2500000
            epoch 1
            batch 0
              - 1 1
              + 1 2
            watermark 0 77
            watermark 1 2600000
            epoch 2
            recover
            batch 0
              - 1 2
              + 1 3
            watermark 0 78
            watermark 1 3000000
            epoch 3
            watermark 1 3100000
            epoch 4
            ",
            expect![[r#"
                epoch 1
                + 1 1
                epoch 2
                wake 3000000
                epoch 3
                - 1 1
                + 1 3
                watermark 78
                epoch 4
            "#]],
        );
    }
}
