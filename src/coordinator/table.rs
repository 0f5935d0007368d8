//! The rows of one SQL table: its key, its conflicts, its snapshots.
//!
//! The coordinator owns tables, because a write must know at once whether its keys exist. A write
//! is applied here first and gives the exact changes, which go to the dataflows when the epoch
//! closes; taking them back undoes the write.

use arrow::array::{BooleanArray, RecordBatch, UInt32Array};
use arrow::compute;
use arrow::datatypes::SchemaRef;
use hashbrown::HashMap;

use crate::coordinator::event_loop::{WriteChange, WriteConflict};
use crate::state::keyed_table::KeyedTable;
use crate::state::multi_table::{BagTable, Snapshot};
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result, SqlState};
use crate::types::key::{HashUse, RowComparator, hash_rows};

/// One table's content.
pub struct Table {
    schema: SchemaRef,
    /// Column indices; empty when there is no key.
    key: Vec<usize>,
    rows: Rows,
}

enum Rows {
    Keyed(KeyedTable),
    Bag(BagTable),
}

/// The content at one moment.
pub type TableSnapshot = Snapshot;

/// What a write did to the table.
pub struct Written {
    pub changes: ChangeBatch,
    /// Rows that went in.
    pub inserted: RecordBatch,
    pub count: u64,
}

impl Table {
    pub fn new(schema: SchemaRef, key: Vec<usize>) -> Table {
        let rows = if key.is_empty() {
            Rows::Bag(BagTable::new(schema.clone(), false))
        } else {
            Rows::Keyed(KeyedTable::new(schema.clone(), key.clone()))
        };
        Table { schema, key, rows }
    }

    /// The content now.
    ///
    /// # Errors
    /// Never for a table that holds what was written to it.
    pub fn snapshot(&mut self) -> Result<TableSnapshot> {
        Ok(match &mut self.rows {
            Rows::Keyed(table) => table.snapshot(),
            Rows::Bag(table) => table.snapshot(),
        })
    }

    /// Applies a write, all or nothing.
    ///
    /// # Errors
    /// On a unique violation; then nothing is changed.
    pub fn write(&mut self, change: WriteChange) -> Result<Written> {
        let written = match change {
            WriteChange::Insert { rows, on_conflict } => self.insert(rows, on_conflict)?,
            WriteChange::Changes(changes) => self.check_changes(changes)?,
            WriteChange::Truncate => {
                let batches = self.snapshot()?.batches()?;
                let rows = compute::concat_batches(&self.schema, &batches)?;
                let count = rows.num_rows() as u64;
                let inserted = RecordBatch::new_empty(self.schema.clone());
                Written { changes: ChangeBatch::deletes(rows), inserted, count }
            }
        };
        self.apply(&written.changes)?;
        Ok(written)
    }

    /// Takes back what a write did; nothing has been written since.
    pub fn undo(&mut self, changes: &ChangeBatch) {
        self.apply(&changes.negate()).expect("what was applied can be taken back");
    }

    fn apply(&mut self, changes: &ChangeBatch) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        match &mut self.rows {
            Rows::Keyed(table) => table.apply(changes),
            Rows::Bag(table) => table.apply(changes),
        }
    }

    fn insert(&self, rows: RecordBatch, on_conflict: WriteConflict) -> Result<Written> {
        let Rows::Keyed(table) = &self.rows else {
            let count = rows.num_rows() as u64;
            return Ok(Written {
                changes: ChangeBatch::inserts(rows.clone()),
                inserted: rows,
                count,
            });
        };
        let chosen = self.choose_one_per_key(&rows, on_conflict)?;
        let rows = match chosen {
            Some(chosen) => compute::take_record_batch(&rows, &chosen)?,
            None => rows,
        };
        let (old_of, old) = table.existing(&rows)?;
        let exists = BooleanArray::from_iter(old_of.iter().map(|old| Some(old.is_some())));
        if exists.true_count() == 0 {
            let count = rows.num_rows() as u64;
            return Ok(Written {
                changes: ChangeBatch::inserts(rows.clone()),
                inserted: rows,
                count,
            });
        }
        match on_conflict {
            WriteConflict::Error => {
                let row = exists.iter().position(|e| e == Some(true)).expect("counted above");
                Err(self.unique_violation(&rows, row))
            }
            WriteConflict::Ignore => {
                let rows = compute::filter_record_batch(&rows, &compute::not(&exists)?)?;
                let count = rows.num_rows() as u64;
                let changes = ChangeBatch::inserts(rows.clone());
                Ok(Written { changes, inserted: rows, count })
            }
            WriteConflict::Replace => {
                let count = rows.num_rows() as u64;
                let parts = [ChangeBatch::deletes(old), ChangeBatch::inserts(rows.clone())];
                let changes = ChangeBatch::concat(&self.schema, &parts)?.consolidate()?;
                Ok(Written { changes, inserted: rows, count })
            }
        }
    }

    /// Which rows to insert when a key stands in `rows` more than once; `None`: all of them.
    fn choose_one_per_key(
        &self,
        rows: &RecordBatch,
        on_conflict: WriteConflict,
    ) -> Result<Option<UInt32Array>> {
        let keys: Vec<_> = self.key.iter().map(|c| rows.column(*c).clone()).collect();
        let hashes = hash_rows(&keys, rows.num_rows(), HashUse::Table)?;
        let same = RowComparator::new(&keys, &keys)?;
        let mut by_hash: HashMap<u64, Vec<u32>> = HashMap::with_capacity(rows.num_rows());
        let mut duplicates = false;
        for (row, hash) in hashes.iter().enumerate() {
            let chosen = by_hash.entry(*hash).or_default();
            match chosen.iter_mut().find(|other| same.equal(**other as usize, row)) {
                None => chosen.push(row as u32),
                Some(_) if on_conflict == WriteConflict::Error => {
                    return Err(self.unique_violation(rows, row));
                }
                Some(earlier) => {
                    duplicates = true;
                    if on_conflict == WriteConflict::Replace {
                        *earlier = row as u32;
                    }
                }
            }
        }
        if !duplicates {
            return Ok(None);
        }
        let mut chosen: Vec<u32> = by_hash.into_values().flatten().collect();
        chosen.sort_unstable();
        Ok(Some(UInt32Array::from(chosen)))
    }

    /// Exact changes must leave every key at most once.
    fn check_changes(&self, changes: ChangeBatch) -> Result<Written> {
        let weights = changes.weights_vec();
        let going_in = BooleanArray::from_iter(weights.iter().map(|w| Some(*w > 0)));
        let inserted = compute::filter_record_batch(changes.rows(), &going_in)?;
        let rows_in: i64 = weights.iter().filter(|w| **w > 0).sum();
        let rows_out: i64 = -weights.iter().filter(|w| **w < 0).sum::<i64>();
        let count = rows_in.max(rows_out) as u64;
        let changes = changes.consolidate()?;
        if let Rows::Keyed(table) = &self.rows {
            let added = changes.filter(&BooleanArray::from_iter(
                changes.weights_vec().iter().map(|w| Some(*w > 0)),
            ))?;
            self.choose_one_per_key(added.rows(), WriteConflict::Error)?;
            let (old_of, old) = table.existing(added.rows())?;
            let removed = changes.filter(&BooleanArray::from_iter(
                changes.weights_vec().iter().map(|w| Some(*w < 0)),
            ))?;
            let leaving = KeySet::new(removed.rows(), &self.key)?;
            for (row, existing) in old_of.iter().enumerate() {
                if let Some(existing) = existing
                    && !leaving.contains(&old, *existing as usize)?
                {
                    return Err(self.unique_violation(added.rows(), row));
                }
            }
        }
        Ok(Written { changes, inserted, count })
    }

    /// SQLSTATE 23505, as Postgres words it.
    fn unique_violation(&self, rows: &RecordBatch, row: usize) -> Error {
        let names: Vec<&str> =
            self.key.iter().map(|c| self.schema.field(*c).name().as_str()).collect();
        let options = arrow::util::display::FormatOptions::default().with_null("null");
        let values: Vec<String> = self
            .key
            .iter()
            .map(|c| {
                arrow::util::display::ArrayFormatter::try_new(rows.column(*c), &options)
                    .map_or_else(|_| "?".to_owned(), |f| f.value(row).to_string())
            })
            .collect();
        Error::user(SqlState::UNIQUE_VIOLATION, "duplicate key value violates the primary key")
            .detail(format!("Key ({})=({}) already exists.", names.join(", "), values.join(", ")))
            .hint("Use INSERT ... ON CONFLICT, or create the table WITH (on_conflict = 'update').")
    }
}

/// The keys of some rows.
struct KeySet<'a> {
    rows: &'a RecordBatch,
    key: &'a [usize],
    by_hash: HashMap<u64, Vec<u32>>,
}

impl<'a> KeySet<'a> {
    fn new(rows: &'a RecordBatch, key: &'a [usize]) -> Result<KeySet<'a>> {
        let keys: Vec<_> = key.iter().map(|c| rows.column(*c).clone()).collect();
        let mut by_hash: HashMap<u64, Vec<u32>> = HashMap::new();
        for (row, hash) in hash_rows(&keys, rows.num_rows(), HashUse::Table)?.iter().enumerate() {
            by_hash.entry(*hash).or_default().push(row as u32);
        }
        Ok(KeySet { rows, key, by_hash })
    }

    fn contains(&self, rows: &RecordBatch, row: usize) -> Result<bool> {
        let one = rows.slice(row, 1);
        let keys: Vec<_> = self.key.iter().map(|c| one.column(*c).clone()).collect();
        let hash = hash_rows(&keys, 1, HashUse::Table)?[0];
        let Some(candidates) = self.by_hash.get(&hash) else { return Ok(false) };
        let mine: Vec<_> = self.key.iter().map(|c| self.rows.column(*c).clone()).collect();
        let same = RowComparator::new(&mine, &keys)?;
        Ok(candidates.iter().any(|other| same.equal(*other as usize, 0)))
    }
}
