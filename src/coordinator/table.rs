//! The rows of one SQL table: what a write changes, and the content for readers.
//!
//! The coordinator owns tables, because a write must know at once whether its keys exist. A write
//! is applied here first and gives the exact changes, which go to the dataflows when the epoch
//! closes; taking them back undoes the write.

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute;
use arrow::datatypes::SchemaRef;

use crate::coordinator::event_loop::{WriteChange, WriteConflict};
use crate::state::keyed_table::{KeyedTable, OnConflict};
use crate::state::multi_table::MultiTable;
use crate::state::snapshot::Snapshot;
use crate::types::change::ChangeBatch;
use crate::types::error::{Result, SqlState};

/// One table's content.
pub struct Table {
    schema: SchemaRef,
    rows: Rows,
}

enum Rows {
    Keyed(Box<KeyedTable>),
    Bag(Box<MultiTable>),
}

/// What a write did to the table.
pub struct Written {
    pub changes: ChangeBatch,
    /// Rows that went in.
    pub inserted: RecordBatch,
    pub count: u64,
}

impl Table {
    /// An empty table; `key` are the columns of its primary key, none when it has none.
    ///
    /// # Errors
    /// For a key column whose type has no equality.
    pub fn new(schema: SchemaRef, key: Vec<usize>) -> Result<Table> {
        let rows = if key.is_empty() {
            Rows::Bag(Box::new(MultiTable::bag(schema.clone())?))
        } else {
            Rows::Keyed(Box::new(KeyedTable::new(schema.clone(), key)?))
        };
        Ok(Table { schema, rows })
    }

    /// The content now.
    pub fn snapshot(&self) -> Snapshot {
        match &self.rows {
            Rows::Keyed(table) => table.snapshot(),
            Rows::Bag(table) => table.snapshot(),
        }
    }

    /// Applies a write, all or nothing.
    ///
    /// # Errors
    /// On a unique violation (SQLSTATE 23505); then nothing is changed.
    pub fn write(&mut self, change: WriteChange) -> Result<Written> {
        let (changes, count) = match change {
            WriteChange::Insert { rows, on_conflict } => {
                let changes = match &self.rows {
                    Rows::Keyed(table) => table.resolve_insert(&rows, on_conflict.into())?,
                    Rows::Bag(_) => ChangeBatch::inserts(rows),
                };
                let count = positive_weight(&changes);
                (changes, count)
            }
            WriteChange::Changes(changes) => {
                let count = positive_weight(&changes).max(positive_weight(&changes.negate()));
                (changes, count)
            }
            WriteChange::Truncate => {
                let batches = self.snapshot().batches().collect::<Result<Vec<_>>>()?;
                let rows = compute::concat_batches(&self.schema, &batches)?;
                let count = rows.num_rows() as u64;
                (ChangeBatch::deletes(rows), count)
            }
        };
        let inserted = if changes.all_inserts() {
            changes.rows().clone()
        } else {
            let weights = changes.weights_vec();
            let going_in = BooleanArray::from_iter(weights.iter().map(|w| Some(*w > 0)));
            compute::filter_record_batch(changes.rows(), &going_in)?
        };
        let changes = changes.consolidate()?;
        self.apply(&changes)?;
        Ok(Written { changes, inserted, count })
    }

    /// Takes back what a write did; nothing has been written since.
    pub fn undo(&mut self, changes: &ChangeBatch) {
        self.apply(&changes.negate()).expect("what was applied can be taken back");
    }

    /// Applies what a write did before the server started.
    ///
    /// # Errors
    /// When it contradicts the table.
    pub fn replay(&mut self, changes: &ChangeBatch) -> Result<()> {
        self.apply(changes)
    }

    fn apply(&mut self, changes: &ChangeBatch) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        match &mut self.rows {
            Rows::Keyed(table) => table.apply(changes),
            Rows::Bag(table) => table.apply(changes),
        }
        .map_err(|error| {
            if error.sqlstate() == SqlState::UNIQUE_VIOLATION {
                error.hint("Use INSERT ... ON CONFLICT, or WITH (on_conflict = 'update').")
            } else {
                error
            }
        })
    }
}

impl From<WriteConflict> for OnConflict {
    fn from(conflict: WriteConflict) -> OnConflict {
        match conflict {
            WriteConflict::Error => OnConflict::Error,
            WriteConflict::Ignore => OnConflict::Ignore,
            WriteConflict::Replace => OnConflict::Replace,
        }
    }
}

/// Rows going in.
fn positive_weight(changes: &ChangeBatch) -> u64 {
    if changes.all_inserts() {
        return changes.num_rows() as u64;
    }
    let into: i64 = changes.weights_vec().iter().filter(|weight| **weight > 0).sum();
    into.unsigned_abs()
}
