//! Rows that wait for a time: what several operators keep.
//!
//! A row stands under a time. Weights of equal rows under one time add up, so a row that came and
//! went is not there. `take_until` takes out everything up to a time, in one go.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};

use crate::state::delta::TableDelta;
use crate::state::multi_table::{MultiTable, Walk};
use crate::state::spill::Spill;
use crate::types::change::ChangeBatch;
use crate::types::error::Result;

/// Rows that are taken out at a time.
const PAIRS_MAX: usize = 8192;

/// Rows by time.
pub struct TimedRows {
    schema: SchemaRef,
    /// The rows with their time in a last column.
    rows: MultiTable,
    /// Times that rows stand under; some may have none left.
    times: BTreeSet<i64>,
}

impl TimedRows {
    /// For rows of this schema.
    ///
    /// # Errors
    /// For a column whose type cannot be compared (SQLSTATE 0A000).
    pub fn new(schema: SchemaRef) -> Result<TimedRows> {
        let mut fields = schema.fields().to_vec();
        fields.push(Arc::new(Field::new("at", DataType::Int64, false)));
        let key = vec![schema.fields().len()];
        let rows = MultiTable::keyed(Arc::new(Schema::new(fields)), key)?;
        Ok(TimedRows { schema, rows, times: BTreeSet::new() })
    }

    /// Adds the weights of rows, each under its time.
    ///
    /// # Errors
    /// When the table is full.
    pub fn add(&mut self, change: &ChangeBatch, times: Int64Array) -> Result<()> {
        if change.is_empty() {
            return Ok(());
        }
        assert_eq!(times.len(), change.num_rows(), "one time a row");
        self.times.extend(times.values());
        let mut columns = change.rows().columns().to_vec();
        columns.push(Arc::new(times));
        let rows = RecordBatch::try_new(self.rows.schema().clone(), columns)?;
        self.rows.apply(&change.with_rows(rows))
    }

    /// The earliest time that rows stand under, perhaps.
    pub fn next_time(&self) -> Option<i64> {
        self.times.first().copied()
    }

    /// Takes out all rows up to `time` and including it.
    ///
    /// # Errors
    /// When rows cannot be read back.
    pub fn take_until(&mut self, time: i64) -> Result<Vec<ChangeBatch>> {
        Ok(self.take_timed_until(time)?.into_iter().map(|(rows, _)| rows).collect())
    }

    /// The same, each row with the time that it stood under.
    ///
    /// # Errors
    /// When rows cannot be read back.
    pub fn take_timed_until(&mut self, time: i64) -> Result<Vec<(ChangeBatch, Int64Array)>> {
        let later = match time.checked_add(1) {
            Some(next) => self.times.split_off(&next),
            None => BTreeSet::new(),
        };
        let due = std::mem::replace(&mut self.times, later);
        if due.is_empty() {
            return Ok(vec![]);
        }
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(due));
        let heads = self.rows.heads(vec![keys.clone()], keys.len())?;
        let mut ids = Vec::new();
        let mut walk = Walk::new(&heads);
        loop {
            let (mut batch_rows, mut found) = (Vec::new(), Vec::new());
            let more = self.rows.walk(&mut walk, PAIRS_MAX, &mut batch_rows, &mut found);
            ids.append(&mut found);
            if !more {
                break;
            }
        }
        let columns: Vec<usize> = (0..=self.schema.fields().len()).collect();
        let mut taken = Vec::new();
        for ids in ids.chunks(PAIRS_MAX) {
            let columns = self.rows.gather(&columns, ids)?;
            let rows = RecordBatch::try_new(self.rows.schema().clone(), columns)?;
            taken.push(match self.rows.weights(ids) {
                Some(weights) => ChangeBatch::new(rows, weights)?,
                None => ChangeBatch::inserts(rows),
            });
        }
        for change in &taken {
            self.rows.apply(&change.negate())?;
        }
        taken.iter().map(|change| self.apart(change)).collect()
    }

    /// Rows and their times.
    fn apart(&self, change: &ChangeBatch) -> Result<(ChangeBatch, Int64Array)> {
        let width = self.schema.fields().len();
        let times = change.column(width).as_primitive::<Int64Type>().clone();
        let columns = change.rows().columns()[..width].to_vec();
        let options = RecordBatchOptions::new().with_row_count(Some(change.num_rows()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        Ok((change.with_rows(rows), times))
    }

    /// The columns of a row, without its time.
    pub fn width(&self) -> usize {
        self.schema.fields().len()
    }

    /// Different rows.
    pub fn len(&self) -> usize {
        self.rows.live_rows()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What changed since the last checkpoint.
    ///
    /// # Errors
    /// When rows cannot be read back.
    pub fn checkpoint_delta(&mut self) -> Result<TableDelta> {
        self.rows.checkpoint_delta()
    }

    /// Fills fresh rows from a checkpoint.
    ///
    /// # Errors
    /// When it is of something else.
    pub fn restore(&mut self, batches: Vec<RecordBatch>) -> Result<()> {
        self.rows.restore(batches)?;
        let last = self.schema.fields().len();
        for part in self.rows.live() {
            let (_, rows) = part?;
            self.times.extend(rows.column(last).as_primitive::<Int64Type>().values());
        }
        Ok(())
    }

    /// What has the rows.
    pub fn store(&mut self) -> &mut dyn Spill {
        &mut self.rows
    }

    pub fn memory_bytes(&self) -> usize {
        self.rows.memory_bytes() + self.times.len() * 2 * size_of::<i64>()
    }
}
