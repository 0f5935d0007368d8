//! Keeps the rows of a materialized view and passes their changes on.
//!
//! 1. `on_batch`: collect the epoch's changes.
//! 2. `on_epoch`: consolidate them, apply them as a whole, hand them to whoever reads the view's
//!    changes.
//!
//! Keeps every row of the view. Its input is exchanged by the view's key or by the whole row,
//! unless rows are only ever added, so that a row and its deletion meet.

use std::cell::RefCell;
use std::rc::Rc;

use arrow::datatypes::SchemaRef;

use crate::dataflow::operator::{Operator, Output};
use crate::dataflow::operators::waiting::WaitingChanges;
use crate::dataflow::published::Published;
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::state::spill::StoreVisitor;
use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use crate::types::time::{Epoch, Watermark};

/// The operator at the end of a materialized view's dataflow.
pub struct Materialize {
    schema: SchemaRef,
    /// Columns that the input is exchanged by; for restoring.
    key_columns: Vec<usize>,
    published: Rc<RefCell<Published>>,
    /// Changes of the current epoch.
    changes: WaitingChanges,
}

impl Materialize {
    pub fn new(
        schema: SchemaRef,
        key_columns: Vec<usize>,
        published: Rc<RefCell<Published>>,
    ) -> Materialize {
        Materialize { schema, key_columns, published, changes: WaitingChanges::default() }
    }
}

impl Operator for Materialize {
    fn name(&self) -> &'static str {
        "materialize"
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
        if self.changes.is_empty() {
            return Ok(());
        }
        let changes = consolidate(&self.schema, self.changes.take())?;
        self.published.borrow_mut().apply(epoch, &changes)?;
        for batch in changes {
            out.emit(batch);
        }
        Ok(())
    }

    fn checkpoint(&mut self, _epoch: Epoch, writer: &mut CheckpointWriter) -> Result<()> {
        writer.write("rows", self.published.borrow_mut().table_mut().checkpoint_delta()?);
        Ok(())
    }

    fn restore(&mut self, reader: &mut CheckpointReader) -> Result<()> {
        let rows = reader.read("rows", &self.key_columns)?;
        self.published.borrow_mut().table_mut().restore(rows)
    }

    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        visit(self.published.borrow_mut().table_mut());
        visit(&mut self.changes);
    }

    fn memory_bytes(&self) -> usize {
        let published = self.published.borrow();
        let kept = published.table().memory_bytes() + published.history().memory_bytes();
        kept + self.changes.memory_bytes()
    }

    fn state_rows(&self) -> usize {
        self.published.borrow().table().live_rows()
    }
}

/// All changes of an epoch with equal rows added up. Inserts alone stay as they came.
pub fn consolidate(schema: &SchemaRef, changes: Vec<ChangeBatch>) -> Result<Vec<ChangeBatch>> {
    if changes.iter().all(ChangeBatch::all_inserts) {
        return Ok(changes);
    }
    let all = ChangeBatch::concat(schema, &changes)?.consolidate()?;
    Ok(if all.is_empty() { vec![] } else { vec![all] })
}
