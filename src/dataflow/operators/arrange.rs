//! Keeps the rows of a table or view by the columns of an index, for the joins that read it.
//!
//! 1. `on_batch`: collect the epoch's changes.
//! 2. `on_epoch`: add up equal rows, apply the epoch as a whole, hand the changes to the joins. They
//!    get them where the rows are: on this worker.
//!
//! Keeps every row, and those that have gone since the slowest reader's epoch
//! (`state/arrangement.rs`). Nothing of it is in a checkpoint: after a start it is filled anew.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use arrow::datatypes::SchemaRef;

use crate::dataflow::operator::{Operator, Output};
use crate::dataflow::operators::materialize::consolidate;
use crate::dataflow::operators::waiting::WaitingChanges;
use crate::state::arrangement::{Arrangement, Reader};
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::state::spill::StoreVisitor;
use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use crate::types::id::ObjectId;
use crate::types::time::{Epoch, Watermark};

/// The operator at the end of an index's dataflow.
pub struct Arrange {
    schema: SchemaRef,
    arrangement: Rc<RefCell<Arrangement>>,
    /// Changes of the current epoch.
    changes: WaitingChanges,
}

/// The indexes that the joins of one dataflow read, on one worker.
#[derive(Clone, Default)]
pub struct Indexes {
    pub arrangements: Rc<BTreeMap<ObjectId, Rc<RefCell<Arrangement>>>>,
    /// Set when the dataflow will never look again.
    pub failed: Rc<Cell<bool>>,
    /// The epoch that the dataflow begins at.
    pub as_of: Option<Epoch>,
}

impl Indexes {
    /// A new reader of an index; `None` when it is not here.
    pub fn read(&self, index: ObjectId) -> Option<Reader> {
        let arrangement = self.arrangements.get(&index)?;
        Some(Arrangement::read(arrangement, self.as_of?, self.failed.clone()))
    }
}

impl Arrange {
    pub fn new(arrangement: Rc<RefCell<Arrangement>>) -> Arrange {
        let schema = arrangement.borrow().schema().clone();
        Arrange { schema, arrangement, changes: WaitingChanges::default() }
    }
}

impl Operator for Arrange {
    fn name(&self) -> &'static str {
        "arrange"
    }

    fn on_batch(&mut self, _port: usize, batch: ChangeBatch, _out: &mut Output) -> Result<()> {
        self.changes.push(batch);
        Ok(())
    }

    fn on_watermark(&mut self, _port: usize, watermark: Watermark, out: &mut Output) -> Result<()> {
        out.emit_watermark(watermark);
        Ok(())
    }

    fn on_epoch(&mut self, epoch: Epoch, out: &mut Output) -> Result<()> {
        let changes = consolidate(&self.schema, self.changes.take())?;
        let mut arrangement = self.arrangement.borrow_mut();
        if changes.is_empty() {
            return arrangement.settle();
        }
        arrangement.apply(epoch, &changes)?;
        for batch in changes {
            out.emit(batch);
        }
        Ok(())
    }

    fn checkpoint(&mut self, _epoch: Epoch, _writer: &mut CheckpointWriter) -> Result<()> {
        Ok(())
    }

    fn restore(&mut self, _reader: &mut CheckpointReader) -> Result<()> {
        Ok(())
    }

    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        visit(&mut *self.arrangement.borrow_mut());
        visit(&mut self.changes);
    }

    fn memory_bytes(&self) -> usize {
        self.arrangement.borrow().memory_bytes() + self.changes.memory_bytes()
    }

    fn state_rows(&self) -> usize {
        self.arrangement.borrow().rows()
    }

    fn counted(&self) -> Vec<(String, u64)> {
        match self.arrangement.borrow().dying_rows() {
            0 => vec![],
            rows => vec![("rows for slower readers".to_owned(), rows as u64)],
        }
    }
}
