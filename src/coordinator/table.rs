//! The rows of one SQL table: what a write changes, and the content for readers.
//!
//! The coordinator owns tables, because a write must know at once whether its keys exist. A write
//! is applied here first and gives the exact changes, which go to the dataflows when the epoch
//! closes; taking them back undoes the write.

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute;
use arrow::datatypes::SchemaRef;

use crate::catalog::object::{Object, ObjectKind};
use crate::catalog::pg_catalog::primary_key_name;
use crate::coordinator::event_loop::{WriteChange, WriteConflict};
use crate::coordinator::rows::{RowIndex, columns_at};
use crate::state::keyed_table::{KeyedTable, OnConflict};
use crate::state::multi_table::MultiTable;
use crate::state::snapshot::Snapshot;
use crate::state::spill::{Pass, Spill, StateMemory};
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result, SqlState};

/// One table's content.
pub struct Table {
    /// The constraint that messages name.
    key_name: String,
    schema: SchemaRef,
    rows: Rows,
    /// Grows with every write that changes something.
    version: u64,
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
    /// An empty table; `key` are the columns of its primary key `key_name`, none when it has none.
    ///
    /// # Errors
    /// For a key column whose type has no equality.
    pub fn new(key_name: String, schema: SchemaRef, key: Vec<usize>) -> Result<Table> {
        let rows = if key.is_empty() {
            Rows::Bag(Box::new(MultiTable::bag(schema.clone())?))
        } else {
            Rows::Keyed(Box::new(KeyedTable::new(schema.clone(), key)?))
        };
        Ok(Table { key_name, schema, rows, version: 0 })
    }

    /// The empty table of a catalog object.
    ///
    /// # Errors
    /// As [`Table::new`].
    pub fn of(object: &Object) -> Result<Table> {
        let ObjectKind::Table(definition) = &object.kind else {
            return Err(Error::internal("only tables are installed as tables"));
        };
        let (schema, key) = (object.schema.clone(), definition.primary_key.clone());
        Table::new(primary_key_name(object), schema, key)
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub fn has_rows(&self) -> bool {
        match &self.rows {
            Rows::Keyed(_) => true,
            Rows::Bag(table) => table.live_rows() > 0,
        }
    }

    /// Equal at two times only if nothing was written between them.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The rows that have the keys of `keys`, whose rows have all columns; none without a key.
    ///
    /// # Errors
    /// When the columns are not the table's.
    pub fn lookup(&self, keys: &RecordBatch) -> Result<RecordBatch> {
        match &self.rows {
            Rows::Keyed(table) => {
                let found = table.find(keys)?.rows;
                let key = columns_at(&found, table.key());
                let firsts =
                    RowIndex::new(&key, found.num_rows())?.lookup(&key, found.num_rows())?;
                // A key that is asked for twice has one row.
                let keep = firsts.iter().zip(0u32..).map(|(first, row)| Some(*first == Some(row)));
                Ok(compute::filter_record_batch(&found, &BooleanArray::from_iter(keep))?)
            }
            Rows::Bag(_) => Ok(RecordBatch::new_empty(self.schema.clone())),
        }
    }

    /// Memory held, in bytes.
    pub fn memory_bytes(&self) -> usize {
        match &self.rows {
            Rows::Keyed(table) => table.memory_bytes(),
            Rows::Bag(table) => table.memory_bytes(),
        }
    }

    /// Bytes of rows on the disk.
    pub fn disk_bytes(&self) -> usize {
        match &self.rows {
            Rows::Keyed(table) => table.disk_bytes(),
            Rows::Bag(table) => table.disk_bytes(),
        }
    }

    /// Lets rows go to the disk, as far as that is wanted.
    pub fn spill(&mut self, memory: &StateMemory, pass: Pass) {
        match &mut self.rows {
            Rows::Keyed(table) => table.spill(memory, pass),
            Rows::Bag(table) => table.spill(memory, pass),
        }
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
                    Rows::Keyed(table) => table
                        .resolve_insert(&rows, on_conflict.into())
                        .map_err(|error| self.name_key(error))?,
                    Rows::Bag(_) => ChangeBatch::inserts(rows),
                };
                let count = positive_weight(&changes);
                (changes, count)
            }
            WriteChange::Changes(changes) => {
                let count = positive_weight(&changes).max(positive_weight(&changes.negate()));
                (changes, count)
            }
            WriteChange::Replay(_) => {
                return Err(Error::internal("a replay is taken apart before it is written"));
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
        let applied = match &mut self.rows {
            Rows::Keyed(table) => table.apply(changes),
            Rows::Bag(table) => table.apply(changes),
        };
        applied.map_err(|error| self.name_key(error))?;
        self.version += 1;
        Ok(())
    }

    /// A unique violation in Postgres's words, which name the key's constraint.
    fn name_key(&self, error: Error) -> Error {
        if error.sqlstate() != SqlState::UNIQUE_VIOLATION {
            return error;
        }
        let named = Error::user(
            SqlState::UNIQUE_VIOLATION,
            format!("duplicate key value violates unique constraint \"{}\"", self.key_name),
        );
        match &error.body().detail {
            Some(detail) => named.detail(detail.clone()),
            None => named,
        }
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
