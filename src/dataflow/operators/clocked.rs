//! What operators share whose rows come and go as logical time passes: the changes of an epoch wait
//! for its end, when its time is known; what is sent then is added up, and the operator asks to be
//! woken when the next row is due.

use arrow::datatypes::SchemaRef;

use crate::dataflow::operator::Output;
use crate::dataflow::operators::materialize::consolidate;
use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use crate::types::time::{EventTime, Watermark};

/// The port of logical time.
const CLOCK: usize = 1;

/// The changes of an epoch, and its time.
pub struct Clocked {
    schema: SchemaRef,
    changes: Vec<ChangeBatch>,
    now_us: i64,
}

impl Clocked {
    /// For rows of this schema.
    pub fn new(schema: SchemaRef) -> Clocked {
        Clocked { schema, changes: Vec::new(), now_us: i64::MIN }
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The time of the epoch, in microseconds.
    pub fn now_us(&self) -> i64 {
        self.now_us
    }

    pub fn on_batch(&mut self, batch: ChangeBatch) {
        self.changes.push(batch);
    }

    pub fn on_watermark(&mut self, port: usize, watermark: Watermark) {
        if port == CLOCK {
            self.now_us = watermark.0.0;
        }
    }

    /// The changes of the epoch, taken out.
    pub fn take(&mut self) -> Vec<ChangeBatch> {
        std::mem::take(&mut self.changes)
    }

    /// Sends on what the epoch has changed. `next`: when rows are due, of each table.
    ///
    /// # Errors
    /// When changes cannot be added up.
    pub fn send(
        &self,
        sent: Vec<ChangeBatch>,
        next: impl IntoIterator<Item = Option<i64>>,
        out: &mut Output,
    ) -> Result<()> {
        for batch in consolidate(&self.schema, sent)? {
            out.emit(batch);
        }
        if let Some(next) = next.into_iter().flatten().min() {
            out.wake_at(EventTime(next));
        }
        Ok(())
    }

    pub fn memory_bytes(&self) -> usize {
        self.changes.iter().map(ChangeBatch::size_bytes).sum()
    }
}
