//! WITH (retention = ...): a row goes when it has been there for so long.
//!
//! 1. A row is kept under the logical time of the epoch in which it came, plus the retention.
//! 2. `on_epoch`: rows whose time has come are taken back; then the epoch's changes are given on.
//!    What deletes a row that has gone by itself is passed over; copies that came last go first.
//! 3. The operator asks to be woken when the next row goes.
//!
//! An update is a deletion and an insertion, so a row that changes stays. After a restart without
//! its state everything is as old as the restart.
//!
//! Keeps: the rows that are there, by time and by content.

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use std::sync::Arc;

use crate::dataflow::operator::{Operator, Output};
use crate::dataflow::operators::clocked::Clocked;
use crate::dataflow::operators::materialize::consolidate;
use crate::dataflow::operators::timed_rows::TimedRows;
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::state::multi_table::{MultiTable, Walk};
use crate::state::spill::StoreVisitor;
use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use crate::types::time::{Epoch, Watermark};

/// Pairs of a deletion and a row that are looked at a time.
const PAIRS_MAX: usize = 8192;

/// The `retain` operator.
pub struct Retain {
    keep_us: i64,
    epoch: Clocked,
    by_time: TimedRows,
    /// The same rows by all their columns, with their time last.
    by_row: MultiTable,
}

impl Retain {
    /// Over input of this schema.
    ///
    /// # Errors
    /// For a column whose type cannot be compared.
    pub fn new(keep_us: i64, schema: &SchemaRef) -> Result<Retain> {
        let mut fields = schema.fields().to_vec();
        fields.push(Arc::new(Field::new("until", DataType::Int64, false)));
        let key = (0..schema.fields().len()).collect();
        Ok(Retain {
            keep_us,
            epoch: Clocked::new(schema.clone()),
            by_time: TimedRows::new(schema.clone())?,
            by_row: MultiTable::keyed(Arc::new(Schema::new(fields)), key)?,
        })
    }

    /// Adds weights of rows under these times to both tables.
    fn add(&mut self, change: &ChangeBatch, times: Int64Array) -> Result<()> {
        if change.is_empty() {
            return Ok(());
        }
        let mut columns = change.rows().columns().to_vec();
        columns.push(Arc::new(times.clone()));
        let rows = RecordBatch::try_new(self.by_row.schema().clone(), columns)?;
        self.by_row.apply(&change.with_rows(rows))?;
        self.by_time.add(change, times)
    }

    /// Takes out the rows whose time has come.
    fn expire(&mut self, sent: &mut Vec<ChangeBatch>) -> Result<()> {
        for (gone, times) in self.by_time.take_timed_until(self.epoch.now_us())? {
            let mut columns = gone.rows().columns().to_vec();
            columns.push(Arc::new(times));
            let rows = RecordBatch::try_new(self.by_row.schema().clone(), columns)?;
            self.by_row.apply(&gone.with_rows(rows).negate())?;
            sent.push(gone.negate());
        }
        Ok(())
    }

    /// What of these deletions is still there, with its times. `change` has each row once.
    fn found(&mut self, change: &ChangeBatch) -> Result<Option<(ChangeBatch, Int64Array)>> {
        let columns: Vec<ArrayRef> = change.rows().columns().to_vec();
        let heads = self.by_row.heads(columns, change.num_rows())?;
        let mut left: Vec<i64> = (0..change.num_rows()).map(|row| -change.weight(row)).collect();
        let (mut picked, mut weights, mut times) = (Vec::new(), Vec::new(), Vec::new());
        let mut walk = Walk::new(&heads);
        loop {
            let (mut rows, mut ids) = (Vec::new(), Vec::new());
            let more = self.by_row.walk(&mut walk, PAIRS_MAX, &mut rows, &mut ids);
            let at = self.by_row.gather(&[self.epoch.schema().fields().len()], &ids)?;
            let at = at[0].as_primitive::<Int64Type>();
            let copies = self.by_row.weights(&ids);
            for (place, row) in rows.iter().enumerate() {
                let there = copies.as_ref().map_or(1, |copies| copies[place]);
                let taken = left[*row as usize].min(there);
                if taken > 0 {
                    left[*row as usize] -= taken;
                    picked.push(*row);
                    weights.push(-taken);
                    times.push(at.value(place));
                }
            }
            if !more {
                break;
            }
        }
        if picked.is_empty() {
            return Ok(None);
        }
        let picked = arrow::array::UInt32Array::from(picked);
        let rows = arrow::compute::take_record_batch(change.rows(), &picked)?;
        Ok(Some((ChangeBatch::new(rows, weights)?, Int64Array::from(times))))
    }

    fn take_changes(&mut self, sent: &mut Vec<ChangeBatch>) -> Result<()> {
        let until = self.epoch.now_us().saturating_add(self.keep_us);
        let changes = self.epoch.take();
        for change in consolidate(self.epoch.schema(), changes)? {
            let weights = change.weights_vec();
            let of_sign = |sign: i64| {
                let keep = weights.iter().map(|weight| Some(weight.signum() == sign));
                change.filter(&arrow::array::BooleanArray::from_iter(keep))
            };
            let (gone, come) = (of_sign(-1)?, of_sign(1)?);
            if !gone.is_empty()
                && let Some((found, times)) = self.found(&gone)?
            {
                self.add(&found, times)?;
                sent.push(found);
            }
            if !come.is_empty() {
                self.add(&come, Int64Array::from(vec![until; come.num_rows()]))?;
                sent.push(come);
            }
        }
        Ok(())
    }
}

impl Operator for Retain {
    fn name(&self) -> &'static str {
        "retain"
    }

    fn on_batch(&mut self, _: usize, batch: ChangeBatch, _: &mut Output) -> Result<()> {
        self.epoch.on_batch(batch);
        Ok(())
    }

    fn on_watermark(&mut self, port: usize, watermark: Watermark, _: &mut Output) -> Result<()> {
        self.epoch.on_watermark(port, watermark);
        Ok(())
    }

    fn on_epoch(&mut self, _: Epoch, out: &mut Output) -> Result<()> {
        let mut sent = Vec::new();
        self.expire(&mut sent)?;
        self.take_changes(&mut sent)?;
        self.epoch.send(sent, [self.by_time.next_time()], out)
    }

    fn checkpoint(&mut self, _: Epoch, writer: &mut CheckpointWriter) -> Result<()> {
        writer.write("rows", self.by_row.checkpoint_delta()?);
        Ok(())
    }

    fn restore(&mut self, reader: &mut CheckpointReader) -> Result<()> {
        let schema = self.epoch.schema().clone();
        let width = schema.fields().len();
        self.by_row.restore(reader.read("rows", &(0..width).collect::<Vec<_>>())?)?;
        let mut parts = Vec::new();
        for part in self.by_row.live() {
            let (ids, rows) = part?;
            parts.push((self.by_row.weights(&ids), rows));
        }
        for (weights, rows) in parts {
            let times = rows.column(width).as_primitive::<Int64Type>().clone();
            let rows = RecordBatch::try_new(schema.clone(), rows.columns()[..width].to_vec())?;
            let change = match weights {
                Some(weights) => ChangeBatch::new(rows, weights)?,
                None => ChangeBatch::inserts(rows),
            };
            self.by_time.add(&change, times)?;
        }
        Ok(())
    }

    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        visit(self.by_time.store());
        visit(&mut self.by_row);
    }

    fn memory_bytes(&self) -> usize {
        self.by_time.memory_bytes() + self.by_row.memory_bytes() + self.epoch.memory_bytes()
    }

    fn state_rows(&self) -> usize {
        self.by_row.live_rows()
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::dataflow::script::{check, schema};

    #[test]
    fn rows_go_when_they_have_been_there_for_long() {
        check(
            || Box::new(Retain::new(10, &schema("k bigint, v text")).expect("new")),
            &[schema("k bigint, v text"), schema("")],
            "
            batch 0
              + 1 a
              +2 2 b
            watermark 1 100
            epoch 1
            batch 0
              - 1 a
              + 1 c           # an update: it stays for longer
              + 2 b
            watermark 1 105
            epoch 2
            recover
            batch 0
              - 2 b           # the copy that came last
            watermark 1 107
            epoch 3
            watermark 1 110
            epoch 4
            batch 0
              - 2 b           # has gone by itself
            watermark 1 120
            epoch 5
            ",
            expect![[r#"
                epoch 1
                + 1 a
                +2 2 b
                wake 110
                epoch 2
                - 1 a
                + 1 c
                + 2 b
                wake 110
                epoch 3
                - 2 b
                wake 110
                epoch 4
                -2 2 b
                wake 115
                epoch 5
                - 1 c
            "#]],
        );
    }
}
