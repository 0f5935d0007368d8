//! Collects what a sink has to write out, and hands it over with each checkpoint.
//!
//! 1. `on_batch`: collect the epoch's changes. The first content is left out when the sink is to
//!    begin without (`snapshot = false`).
//! 2. `on_epoch`: when what is kept has doubled since it was last added up, add equal rows up: what
//!    came and went between two checkpoints never leaves.
//! 3. `checkpoint`: hand over all there is. From then on it is the coordinator's, which stores it
//!    with the checkpoint (`storage::sinks`).
//!
//! A sink that forgets what it gets (`blackhole`) keeps no rows: it counts them, and hands over that
//! many rows without columns.
//!
//! Keeps nothing that survives: what has been handed over is durable with the checkpoint, and what
//! has not comes again after a restart. Its input is exchanged by its key or the whole row, unless
//! rows are only ever added or only counted, so that a row and its deletion meet.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};

use crate::dataflow::operator::{Operator, Output};
use crate::dataflow::operators::materialize::consolidate;
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use crate::types::time::{Epoch, Watermark};

/// Bytes of changes that are not worth adding up.
const ADD_UP_BYTES_MIN: usize = 4 << 20;

/// Takes what a worker hands over for a checkpoint; must not block.
pub type HandOver = Box<dyn Fn(Epoch, Vec<ChangeBatch>)>;

/// The operator at the end of a sink's dataflow.
pub struct Sink {
    schema: SchemaRef,
    /// Changes up to this epoch are left out.
    skip_until: Option<Epoch>,
    /// Changes are counted and not kept.
    forgets: bool,
    hand_over: HandOver,
    /// Changes of the current epoch.
    arrived: Vec<ChangeBatch>,
    /// Of the epochs since the last checkpoint.
    changes: Vec<ChangeBatch>,
    bytes: usize,
    /// Of `changes` when equal rows were added up.
    added_up_bytes: usize,
    /// Changes that were counted since the last checkpoint, and in the current epoch.
    counted: usize,
    counting: usize,
}

impl Sink {
    /// A sink of rows of `schema` that leaves out the changes up to `skip_until`.
    pub fn new(schema: SchemaRef, skip_until: Option<Epoch>, hand_over: HandOver) -> Sink {
        Sink {
            schema,
            skip_until,
            forgets: false,
            hand_over,
            arrived: Vec::new(),
            changes: Vec::new(),
            bytes: 0,
            added_up_bytes: 0,
            counted: 0,
            counting: 0,
        }
    }

    /// The same, for a target that forgets what it gets: changes are counted as they come.
    pub fn that_forgets(self) -> Sink {
        Sink { forgets: true, ..self }
    }
}

/// So many rows of no columns.
fn rows_without_columns(rows: usize) -> Result<ChangeBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let rows = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)?;
    Ok(ChangeBatch::inserts(rows))
}

impl Operator for Sink {
    fn name(&self) -> &'static str {
        "sink"
    }

    fn on_batch(&mut self, _port: usize, batch: ChangeBatch, _out: &mut Output) -> Result<()> {
        match self.forgets {
            true => self.counting += batch.num_rows(),
            false => self.arrived.push(batch),
        }
        Ok(())
    }

    fn on_watermark(&mut self, _port: usize, _mark: Watermark, _out: &mut Output) -> Result<()> {
        Ok(())
    }

    fn on_epoch(&mut self, epoch: Epoch, _out: &mut Output) -> Result<()> {
        let counted = std::mem::take(&mut self.counting);
        if self.skip_until.is_some_and(|until| epoch <= until) {
            self.arrived.clear();
            return Ok(());
        }
        self.counted += counted;
        self.bytes += self.arrived.iter().map(ChangeBatch::size_bytes).sum::<usize>();
        self.changes.append(&mut self.arrived);
        let limit = (2 * self.added_up_bytes).max(ADD_UP_BYTES_MIN);
        if self.bytes > limit && !self.changes.iter().all(ChangeBatch::all_inserts) {
            self.changes = consolidate(&self.schema, std::mem::take(&mut self.changes))?;
            self.bytes = self.changes.iter().map(ChangeBatch::size_bytes).sum();
            self.added_up_bytes = self.bytes;
        }
        Ok(())
    }

    fn checkpoint(&mut self, epoch: Epoch, _writer: &mut CheckpointWriter) -> Result<()> {
        let changes = consolidate(&self.schema, std::mem::take(&mut self.changes))?;
        (self.bytes, self.added_up_bytes) = (0, 0);
        if self.counted > 0 {
            let counted = std::mem::take(&mut self.counted);
            (self.hand_over)(epoch, vec![rows_without_columns(counted)?]);
        } else if !changes.is_empty() {
            (self.hand_over)(epoch, changes);
        }
        Ok(())
    }

    fn restore(&mut self, _reader: &mut CheckpointReader) -> Result<()> {
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.bytes
    }

    fn state_rows(&self) -> usize {
        self.changes.iter().map(ChangeBatch::num_rows).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn batch(rows: &[(i64, i64)]) -> ChangeBatch {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        let keys = Int64Array::from_iter_values(rows.iter().map(|(key, _)| *key));
        let rows_of = RecordBatch::try_new(schema, vec![Arc::new(keys)]).expect("one column");
        ChangeBatch::new(rows_of, rows.iter().map(|(_, weight)| *weight).collect()).expect("fits")
    }

    #[test]
    fn a_checkpoint_gets_what_came_since_the_last_one_added_up() {
        let handed: Rc<RefCell<Vec<(u64, i64, usize)>>> = Rc::default();
        let to = handed.clone();
        let hand_over = Box::new(move |epoch: Epoch, changes: Vec<ChangeBatch>| {
            let weight = changes.iter().map(ChangeBatch::weight_sum).sum();
            to.borrow_mut().push((epoch.0, weight, changes.iter().map(|c| c.num_rows()).sum()));
        });
        let mut sink = Sink::new(batch(&[]).schema(), Some(Epoch(5)), hand_over);
        let mut out = Output::default();
        let mut writer = CheckpointWriter::default();
        let mut feed = |sink: &mut Sink, epoch: u64, rows: &[(i64, i64)]| {
            sink.on_batch(0, batch(rows), &mut out).expect("takes");
            sink.on_epoch(Epoch(epoch), &mut out).expect("takes");
        };
        // The first content, which it leaves out.
        feed(&mut sink, 5, &[(1, 1), (2, 1)]);
        feed(&mut sink, 6, &[(3, 1), (4, 1)]);
        feed(&mut sink, 8, &[(3, -1), (1, -1)]);
        sink.checkpoint(Epoch(9), &mut writer).expect("hands over");
        // Nothing new, nothing handed over.
        sink.checkpoint(Epoch(10), &mut writer).expect("hands over");
        feed(&mut sink, 11, &[(5, 2)]);
        sink.checkpoint(Epoch(11), &mut writer).expect("hands over");
        assert_eq!(*handed.borrow(), [(9, 0, 2), (11, 2, 1)]);
        assert!(writer.is_empty(), "it has no state of its own");
    }

    #[test]
    fn a_sink_that_forgets_counts_changes_as_they_come() {
        let handed: Rc<RefCell<Vec<(u64, usize)>>> = Rc::default();
        let to = handed.clone();
        let hand_over = Box::new(move |epoch: Epoch, changes: Vec<ChangeBatch>| {
            to.borrow_mut().push((epoch.0, changes.iter().map(ChangeBatch::num_rows).sum()));
        });
        let mut sink = Sink::new(batch(&[]).schema(), Some(Epoch(5)), hand_over).that_forgets();
        let mut out = Output::default();
        let mut writer = CheckpointWriter::default();
        for (epoch, rows) in [(5, &[(1, 1)][..]), (6, &[(2, 1), (3, 1)]), (7, &[(2, -1)])] {
            sink.on_batch(0, batch(rows), &mut out).expect("takes");
            sink.on_epoch(Epoch(epoch), &mut out).expect("takes");
        }
        assert_eq!((sink.memory_bytes(), sink.state_rows()), (0, 0));
        sink.checkpoint(Epoch(8), &mut writer).expect("hands over");
        sink.checkpoint(Epoch(9), &mut writer).expect("hands over");
        assert_eq!(*handed.borrow(), [(8, 3)]);
    }
}
