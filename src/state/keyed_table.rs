//! A table whose rows are known by a unique key: SQL tables with a primary key.
//!
//! | call | for |
//! |---|---|
//! | [`KeyedTable::find`] | the existing row, if any, for each row of a batch |
//! | [`KeyedTable::resolve_insert`] | what an INSERT changes, under a rule for conflicts; changes nothing |
//! | [`KeyedTable::apply`] | exact changes in (+1) and out (-1), all or nothing |
//! | [`KeyedTable::snapshot`] | the content now, for readers on other threads |
//! | [`KeyedTable::checkpoint_delta`], [`KeyedTable::restore`] | durability |
//!
//! So an INSERT is `let change = table.resolve_insert(&rows, rule)?; table.apply(&change)?`, and
//! undoing it is `table.apply(&change.negate())`. `apply` takes changes in any order: -old +new,
//! +new -old, or a row that comes and goes within the batch.
//!
//! Rows live in a `RowStore`, found through a `RowIndex` over the key columns. NULL is a key value
//! like any other here (a primary key has none).

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::datatypes::SchemaRef;
use hashbrown::{HashMap, HashSet, HashTable};

use crate::functions::scalar::cast::shown_value;
use crate::memory::spill::{Pass, Spill, StateMemory};
use crate::state::delta::TableDelta;
use crate::state::row_equal::key_equal;
use crate::state::row_ids::{NIL, ShortId};
use crate::state::row_index::{Keys, Match, RowIndex};
use crate::state::row_store::{RowStore, SEGMENT_ROWS_MAX};
use crate::state::snapshot::{Snapshot, take_rows};
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result, SqlState};
use crate::types::key::{HashUse, hash_rows};

/// What happens to a new row whose key exists, in the table or earlier among the new rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// SQLSTATE 23505.
    Error,
    /// The new row is left out.
    Ignore,
    /// The new row takes the place of the old.
    Replace,
}

/// Existing rows with the keys of a batch's rows.
#[derive(Debug)]
pub struct Found {
    /// Rows of the batch whose key exists, ascending.
    pub asked: UInt32Array,
    /// The existing row of each of them, in that order.
    pub rows: RecordBatch,
}

/// Rows by unique key.
#[derive(Debug)]
pub struct KeyedTable {
    store: RowStore,
    index: RowIndex,
}

impl Spill for KeyedTable {
    fn spill(&mut self, memory: &StateMemory, pass: Pass) {
        self.store.spill(memory, pass);
        self.index.spill(memory, pass);
    }

    fn disk_bytes(&self) -> usize {
        self.store.disk_bytes() + self.index.disk_bytes()
    }
}

impl KeyedTable {
    /// An empty table; `key` are the columns of the key.
    ///
    /// # Errors
    /// For a key column whose type has no equality (SQLSTATE 0A000).
    pub fn new(schema: SchemaRef, key: Vec<usize>) -> Result<KeyedTable> {
        let index = RowIndex::new(&schema, key, Match::Keys)?;
        Ok(KeyedTable { store: RowStore::new(schema), index })
    }

    pub fn schema(&self) -> &SchemaRef {
        self.store.schema()
    }

    /// The columns of the key.
    pub fn key(&self) -> &[usize] {
        self.index.columns()
    }

    pub fn num_rows(&self) -> usize {
        self.store.live_rows()
    }

    /// The existing rows with the keys of `rows`, which have all columns of the table.
    pub fn find(&self, rows: &RecordBatch) -> Result<Found> {
        let found = self.index.find_all(&self.keys(rows)?, &self.store);
        let hits = || found.iter().enumerate().filter(|(_, id)| **id != NIL);
        let ids: Vec<ShortId> = hits().map(|(_, id)| *id).collect();
        let asked = UInt32Array::from_iter_values(hits().map(|(row, _)| row as u32));
        Ok(Found { asked, rows: self.store.gather(&ids)? })
    }

    /// What inserting `rows` changes: replaced rows out, new rows in.
    ///
    /// # Errors
    /// With [`OnConflict::Error`], for a key that exists or comes twice (SQLSTATE 23505).
    pub fn resolve_insert(
        &self,
        rows: &RecordBatch,
        on_conflict: OnConflict,
    ) -> Result<ChangeBatch> {
        let keys = self.keys(rows)?;
        let found = self.index.find_all(&keys, &self.store);
        let all: Vec<u32> = (0..rows.num_rows() as u32).collect();
        let first_of = first_rows(&self.key_columns(rows), &all)?;
        let mut new_rows: Vec<u32> = Vec::with_capacity(rows.num_rows());
        // For Replace: the last row of each key, by the key's first row.
        let mut last_of = all;
        for (row, first) in first_of.iter().enumerate() {
            let conflict = found[row] != NIL || *first as usize != row;
            match on_conflict {
                OnConflict::Error if conflict => return Err(self.violation(rows, row)),
                OnConflict::Ignore if conflict => {}
                OnConflict::Replace => last_of[*first as usize] = row as u32,
                OnConflict::Error | OnConflict::Ignore => new_rows.push(row as u32),
            }
        }
        let mut old = Vec::new();
        if on_conflict == OnConflict::Replace {
            let firsts = (0..first_of.len()).filter(|row| first_of[*row] as usize == *row);
            for row in firsts {
                new_rows.push(last_of[row]);
                old.extend((found[row] != NIL).then_some(found[row]));
            }
        }
        let new_rows = ChangeBatch::inserts(take_rows(rows, &UInt32Array::from(new_rows))?);
        if old.is_empty() {
            return Ok(new_rows);
        }
        let old_rows = ChangeBatch::deletes(self.store.gather(&old)?);
        ChangeBatch::concat(self.schema(), &[old_rows, new_rows])
    }

    /// Applies exact changes; with an error nothing has changed.
    ///
    /// # Errors
    /// When a key would be there twice (SQLSTATE 23505); when a deleted row is not there (ours).
    pub fn apply(&mut self, change: &ChangeBatch) -> Result<()> {
        if change.is_empty() {
            return Ok(());
        }
        let plan = match self.plan(change)? {
            Some(plan) => plan,
            None => {
                // A row comes and goes within the batch: only the sum can be applied.
                let sum = change.clone().consolidate()?;
                match self.plan(&sum)? {
                    Some(plan) => plan,
                    None => return Err(self.contradiction(&sum)),
                }
            }
        };
        self.carry_out(plan)?;
        self.maintain()
    }

    /// Looks up everything that a change touches. `None`: the batch takes back what it brings, or
    /// contradicts the table.
    fn plan(&self, change: &ChangeBatch) -> Result<Option<Plan>> {
        let (deletes, inserts) = split(change)?;
        let delete_keys = self.keys(&deletes)?;
        let deleted = self.index.find_all(&delete_keys, &self.store);
        // Deleted row to the insert that takes over its key.
        let mut heirs: HashMap<ShortId, Option<u32>> = HashMap::with_capacity(deleted.len());
        for id in &deleted {
            if *id == NIL || heirs.insert(*id, None).is_some() {
                return Ok(None);
            }
        }
        let insert_keys = self.keys(&inserts)?;
        let found = self.index.find_all(&insert_keys, &self.store);
        let mut fresh = Vec::with_capacity(found.len());
        for (row, id) in found.iter().enumerate() {
            if *id == NIL {
                fresh.push(row as u32);
                continue;
            }
            match heirs.get_mut(id) {
                Some(heir @ None) => *heir = Some(row as u32),
                // Without deletions there is nothing that a sum could cancel.
                _ if deletes.num_rows() == 0 => return Err(self.violation(&inserts, row)),
                _ => return Ok(None),
            }
        }
        let firsts = first_rows(&self.key_columns(&inserts), &fresh)?;
        if let Some((row, _)) = fresh.iter().zip(&firsts).find(|(row, first)| row != first) {
            if deletes.num_rows() == 0 {
                return Err(self.violation(&inserts, *row as usize));
            }
            return Ok(None);
        }
        Ok(Some(Plan { inserts, insert_keys, delete_keys, deleted, found, heirs }))
    }

    fn carry_out(&mut self, plan: Plan) -> Result<()> {
        let Plan { inserts, insert_keys, delete_keys, deleted, found, heirs } = plan;
        let start = self.store.append(&ChangeBatch::inserts(inserts))?;
        for (row, before) in found.iter().enumerate() {
            let id = (start + row as u64) as ShortId;
            if *before == NIL {
                self.index.insert(&insert_keys, row, id);
            } else {
                let replaced = self.index.replace(&insert_keys, row, *before, id);
                assert!(replaced, "the row was found under this key");
            }
        }
        for (row, id) in deleted.iter().enumerate() {
            if heirs[id].is_none() {
                let removed = self.index.remove(&delete_keys, row, *id);
                assert!(removed, "the row was found under this key");
            }
        }
        self.store.kill_all(&deleted);
        Ok(())
    }

    /// Removes all rows; gives them as changes that have been applied.
    pub fn truncate(&mut self) -> Result<Vec<ChangeBatch>> {
        let mut changes = Vec::new();
        for rows in self.snapshot().batches() {
            let change = ChangeBatch::deletes(rows?);
            self.apply(&change)?;
            changes.push(change);
        }
        Ok(changes)
    }

    /// Keeps segments few and the window of ids short.
    fn maintain(&mut self) -> Result<()> {
        self.store.compact()?;
        let mut moved = 0;
        while self.store.front_is_due() && moved < SEGMENT_ROWS_MAX {
            let (ids, rows) = self.store.front()?;
            moved += ids.len();
            let keys = self.keys(rows.rows())?;
            let start = self.store.append(&rows)?;
            for (row, id) in ids.iter().enumerate() {
                let replaced = self.index.replace(&keys, row, *id, (start + row as u64) as ShortId);
                assert!(replaced, "a living row is in the index");
            }
            self.store.kill_all(&ids);
            self.store.compact()?;
        }
        Ok(())
    }

    fn key_columns(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        self.key().iter().map(|c| rows.column(*c).clone()).collect()
    }

    fn keys(&self, rows: &RecordBatch) -> Result<Keys> {
        self.index.keys(self.key_columns(rows), rows.num_rows())
    }

    /// The content now. Costs O(segments); the table goes on.
    pub fn snapshot(&self) -> Snapshot {
        self.store.snapshot()
    }

    /// What changed since the last call.
    pub fn checkpoint_delta(&mut self) -> Result<TableDelta> {
        self.store.checkpoint_delta()
    }

    /// Fills a fresh table with the rows of its checkpoints.
    ///
    /// # Errors
    /// When a key comes twice: the checkpoint is damaged.
    pub fn restore(&mut self, batches: Vec<RecordBatch>) -> Result<()> {
        assert_eq!(self.num_rows(), 0, "a fresh table is restored");
        for batch in batches {
            let rows = self.store.from_checkpoint(&batch)?;
            self.apply(&rows).map_err(|e| e.context("restoring a table"))?;
        }
        Ok(())
    }

    pub fn memory_bytes(&self) -> usize {
        self.store.memory_bytes() + self.index.memory_bytes()
    }

    /// A row whose key exists, in the words of Postgres.
    fn violation(&self, rows: &RecordBatch, row: usize) -> Error {
        let names: Vec<&str> =
            self.key().iter().map(|c| self.schema().field(*c).name().as_str()).collect();
        let values: Vec<String> = self
            .key()
            .iter()
            .map(|c| shown_value(rows.column(*c), self.schema().field(*c), row))
            .collect();
        Error::user(SqlState::UNIQUE_VIOLATION, "duplicate key value violates unique constraint")
            .detail(format!("Key ({})=({}) already exists.", names.join(", "), values.join(", ")))
    }

    /// Why a consolidated change cannot be applied.
    fn contradiction(&self, change: &ChangeBatch) -> Error {
        let violated = || -> Result<Option<Error>> {
            let (deletes, inserts) = split(change)?;
            let deleted = self.index.find_all(&self.keys(&deletes)?, &self.store);
            let deleted: HashSet<ShortId> = deleted.into_iter().collect();
            if deleted.contains(&NIL) {
                return Ok(None);
            }
            let found = self.index.find_all(&self.keys(&inserts)?, &self.store);
            let all: Vec<u32> = (0..inserts.num_rows() as u32).collect();
            let firsts = first_rows(&self.key_columns(&inserts), &all)?;
            let twice = (0..found.len()).find(|row| {
                firsts[*row] as usize != *row
                    || (found[*row] != NIL && !deleted.contains(&found[*row]))
            });
            Ok(twice.map(|row| self.violation(&inserts, row)))
        };
        match violated() {
            Ok(Some(error)) | Err(error) => error,
            Ok(None) => Error::internal("a row is deleted that its table does not have"),
        }
    }
}

/// A change with everything that it touches looked up.
struct Plan {
    inserts: RecordBatch,
    insert_keys: Keys,
    delete_keys: Keys,
    /// The row of each deletion.
    deleted: Vec<ShortId>,
    /// The deleted row that each insert replaces, or NIL.
    found: Vec<ShortId>,
    /// Deleted row to the insert that takes over its key.
    heirs: HashMap<ShortId, Option<u32>>,
}

/// Deleted and inserted rows, a row of weight n n times.
fn split(change: &ChangeBatch) -> Result<(RecordBatch, RecordBatch)> {
    if change.all_inserts() {
        return Ok((RecordBatch::new_empty(change.schema()), change.rows().clone()));
    }
    let (mut deletes, mut inserts) = (Vec::new(), Vec::new());
    for row in 0..change.num_rows() {
        let weight = change.weight(row);
        let side = if weight < 0 { &mut deletes } else { &mut inserts };
        // Twice is as wrong as a million times in a table with a key.
        side.resize(side.len() + weight.unsigned_abs().min(2) as usize, row as u32);
    }
    let take = |rows: Vec<u32>| take_rows(change.rows(), &UInt32Array::from(rows));
    Ok((take(deletes)?, take(inserts)?))
}

/// For each of `rows`, ascending rows of a batch with these key columns: the first with its key.
fn first_rows(key_columns: &[ArrayRef], rows: &[u32]) -> Result<Vec<u32>> {
    let types = key_columns.iter().map(|c| c.data_type());
    let equal = types.map(key_equal).collect::<Result<Vec<_>>>()?;
    let length = key_columns.first().map_or(0, |c| c.len());
    let hashes = hash_rows(key_columns, length, HashUse::Table)?;
    // Without key columns all rows are equal.
    let hash_of = |row: &u32| hashes.get(*row as usize).copied().unwrap_or_default();
    let mut seen: HashTable<u32> = HashTable::with_capacity(rows.len());
    let first_of = |row: &u32| {
        let same = |other: &u32| {
            hash_of(other) == hash_of(row)
                && key_columns
                    .iter()
                    .zip(&equal)
                    .all(|(column, equal)| equal(column, *other as usize, column, *row as usize))
        };
        *seen.entry(hash_of(row), same, hash_of).or_insert(*row).get()
    };
    Ok(rows.iter().map(first_of).collect())
}

#[cfg(test)]
mod tests;
