//! A tag for each row of a table: 32 bits of the hash of its columns beside the key.
//!
//! Whoever looks in a key's chain for a row passes rows with other tags by. What that reads lies
//! close together for rows that came together, where a row's own columns lie in as many places as
//! there are columns: a step costs one access to memory in the place of four or more, and 4 bytes a
//! row, a quarter of an index by whole row.

use arrow::array::{RecordBatch, new_empty_array};
use arrow::datatypes::SchemaRef;

use crate::memory::spill::{Pass, Spill, StateMemory};
use crate::state::row_ids::{IdVec, ShortId};
use crate::state::row_store::RowStore;
use crate::types::key::{HashUse, hash_rows};

/// The tags of a table's rows.
#[derive(Debug)]
pub(super) struct Tags {
    /// The columns that are hashed.
    columns: Vec<usize>,
    of_ids: IdVec<u32>,
}

impl Spill for Tags {
    fn spill(&mut self, memory: &StateMemory, pass: Pass) {
        self.of_ids.spill(memory, pass);
    }

    fn disk_bytes(&self) -> usize {
        self.of_ids.disk_bytes()
    }
}

impl Tags {
    /// Tags of these columns; `None` when one has a type that cannot be hashed.
    pub(super) fn new(schema: &SchemaRef, columns: Vec<usize>) -> Option<Tags> {
        let empty = columns.iter().map(|column| new_empty_array(schema.field(*column).data_type()));
        hash_rows(&empty.collect::<Vec<_>>(), 0, HashUse::Table).ok()?;
        Some(Tags { columns, of_ids: IdVec::new(0) })
    }

    /// The tags of the rows of a batch with the table's columns. Rows that are identical have one.
    pub(super) fn of(&self, rows: &RecordBatch) -> Vec<u32> {
        let columns: Vec<_> =
            self.columns.iter().map(|column| rows.column(*column).clone()).collect();
        let hashes = hash_rows(&columns, rows.num_rows(), HashUse::Table)
            .expect("the types could be hashed when the tags were made");
        hashes.into_iter().map(|hash| (hash >> 32) as u32).collect()
    }

    /// Rows of the store get their tags.
    pub(super) fn push(
        &mut self,
        rows: &RecordBatch,
        ids: impl Iterator<Item = ShortId>,
        store: &RowStore,
    ) {
        let tags = self.of(rows);
        self.of_ids.extend_to(store.base(), store.end());
        for (id, tag) in ids.zip(tags) {
            self.of_ids.set(id, tag);
        }
    }

    /// The tag of a living row.
    pub(super) fn get(&self, id: ShortId) -> u32 {
        self.of_ids.get(id)
    }

    /// Forgets what is kept of rows before `base`.
    pub(super) fn drop_before(&mut self, base: u64) {
        self.of_ids.drop_before(base);
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.of_ids.memory_bytes()
    }
}
