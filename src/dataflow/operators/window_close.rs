//! EMIT ON WINDOW CLOSE: each row once, when its time has passed and it cannot change any more.
//!
//! 1. `on_batch`: changes are kept under the first watermark that passes any of the row's times.
//! 2. `on_epoch`: what the watermark has passed is emitted, as rows that never go.
//!
//! Keeps: the rows of open windows, once each. An aggregation does the same by itself and needs no
//! such operator above it.

use arrow::array::{Array, Int64Array};
use arrow::datatypes::SchemaRef;

use crate::dataflow::operator::{Operator, Output};
use crate::dataflow::operators::timed_rows::TimedRows;
use crate::plan::event_time::{TimeBound, time_values};
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::state::spill::StoreVisitor;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};
use crate::types::time::{Epoch, Watermark};

/// Stands for a row without a time: the end of the stream closes it.
const NEVER: i64 = i64::MAX;

/// The `window_close` operator.
pub struct WindowClose {
    /// Of times; a row is final when one of them has passed.
    bounds: Vec<TimeBound>,
    rows: TimedRows,
    watermark: Option<Watermark>,
}

impl WindowClose {
    /// Over input of this schema, whose `bounds` say when rows are final.
    ///
    /// # Errors
    /// For a column whose type cannot be compared.
    pub fn new(bounds: Vec<TimeBound>, schema: &SchemaRef) -> Result<WindowClose> {
        Ok(WindowClose { bounds, rows: TimedRows::new(schema.clone())?, watermark: None })
    }
}

impl Operator for WindowClose {
    fn name(&self) -> &'static str {
        "window_close"
    }

    fn on_batch(&mut self, _: usize, batch: ChangeBatch, _: &mut Output) -> Result<()> {
        let mut closes_at = vec![NEVER; batch.num_rows()];
        for bound in &self.bounds {
            let times = time_values(batch.column(bound.column))
                .ok_or_else(|| Error::internal("a row's time is a timestamp or a date"))?;
            for (row, at) in
                closes_at.iter_mut().enumerate().filter(|(row, _)| times.is_valid(*row))
            {
                *at = bound.closes_at(times.value(row)).min(*at);
            }
        }
        let times = Int64Array::from(closes_at);
        self.rows.add(&batch, times)
    }

    fn on_watermark(&mut self, _: usize, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.watermark = Some(watermark);
        out.emit_watermark(watermark);
        Ok(())
    }

    fn on_epoch(&mut self, _: Epoch, out: &mut Output) -> Result<()> {
        let Some(watermark) = self.watermark.take() else { return Ok(()) };
        for batch in self.rows.take_until(watermark.0.0)? {
            out.emit(batch);
        }
        Ok(())
    }

    fn checkpoint(&mut self, _: Epoch, writer: &mut CheckpointWriter) -> Result<()> {
        writer.write("rows", self.rows.checkpoint_delta()?);
        Ok(())
    }

    fn restore(&mut self, reader: &mut CheckpointReader) -> Result<()> {
        let width = self.rows.width();
        self.rows.restore(reader.read("rows", &(0..width).collect::<Vec<_>>())?)
    }

    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        visit(self.rows.store());
    }

    fn memory_bytes(&self) -> usize {
        self.rows.memory_bytes()
    }

    fn state_rows(&self) -> usize {
        self.rows.len()
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::dataflow::script::{check, schema};

    #[test]
    fn rows_come_once_when_their_time_has_passed() {
        let input = schema("ts timestamp, n bigint");
        check(
            || {
                let bound = TimeBound::of_watermark(0);
                Box::new(
                    WindowClose::new(vec![bound], &schema("ts timestamp, n bigint")).expect("new"),
                )
            },
            std::slice::from_ref(&input),
            "
            batch 0
              + 1000000 1
              + 2000000 1
              + . 7
            epoch 1
            batch 0
              - 1000000 1
              + 1000000 2
              +2 3000000 5
            watermark 0 2000000
            epoch 2
            recover
            watermark 0 2000001
            epoch 3
            watermark 0 9223372036854775807
            epoch 4
            ",
            expect![[r#"
                epoch 1
                epoch 2
                + 1970-01-01T00:00:01 2
                watermark 2000000
                epoch 3
                + 1970-01-01T00:00:02 1
                watermark 2000001
                epoch 4
                + . 7
                +2 1970-01-01T00:00:03 5
                watermark 9223372036854775807
            "#]],
        );
    }
}
