//! Groups with a row of words each: what an aggregation keeps.
//!
//! 1. `intern` gives each row of a batch its group; `touch` says which groups change for the
//!    first time in the epoch and keeps a copy of their rows as they were (they are about to be
//!    written, so they are in the cache, and the copy is written one after the other).
//! 2. Accumulators fold the batch into the words; word 0 counts the group's rows.
//! 3. When the epoch is complete, `changed_words` gives the rows of changed groups as they were
//!    and as they are, next to each other, for one evaluation of both.
//! 4. `end_epoch` forgets groups whose count is 0; their ids are given out again.
//! 5. `take_changes` says which groups have changed since the last checkpoint; a group's row in the
//!    checkpoint keeps its row id until the group changes, and then gets a new one.
//!    Where these are many, `begin_changes` only notes which they are, and they are taken some at a
//!    time (`take_pending`) while others change: a group that changes in an epoch is taken at its
//!    end, as it was when the epoch began (`take_pending_dirty`).
//!
//! Words and keys can go to the disk as they stand (`blocks.rs`).
//!
//! A table without key columns has one group, which is never forgotten.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::DataType;

use crate::memory::blocks::{Flat, StateBlocks};
use crate::memory::spill::{Pass, Spill, StateMemory};
use crate::state::group_index::GroupIndex;
use crate::types::error::{Error, Result};

/// The word of a group's row that counts the rows in the group.
const ROW_COUNT: usize = 0;

/// Stands for the row id of a group that is not in the checkpoint.
const NO_ROW: u64 = u64::MAX;

/// Groups by key, each with a fixed number of words.
pub struct GroupTable {
    index: GroupIndex,
    has_keys: bool,
    /// Words of a group's row.
    stride: usize,
    /// The rows of all groups, one after the other; all zeros for an id that is not given out.
    words: Flat<u64>,
    /// Groups that changed in this epoch, in the order in which they were touched first.
    dirty: Vec<u32>,
    /// A bit for each group in `dirty`.
    dirty_bits: Vec<u64>,
    /// The rows of `dirty` when the epoch began.
    before: Vec<u64>,
    /// A bit for each group that changed since the last checkpoint.
    changed_bits: Vec<u64>,
    /// A bit for each group that is still to be taken for the checkpoint that has begun, and how
    /// many these are; empty when there are none.
    pending_bits: Vec<u64>,
    pending: usize,
    /// Before this word of `pending_bits` only groups are left that change in this epoch.
    pending_at: usize,
    /// The id of a group's row in the last checkpoint, or `NO_ROW`; empty before there is one.
    row_ids: Flat<u64>,
    /// All row ids below were given to rows of checkpoints.
    row_id_next: u64,
    /// Where words and row ids have their memory from.
    blocks: StateBlocks,
}

impl Spill for GroupTable {
    fn spill(&mut self, memory: &StateMemory, pass: Pass) {
        self.index.spill(memory, pass);
        // SAFETY: only fields of this table take from it, and nobody else has the table.
        unsafe { self.blocks.spill(memory, pass) }
    }

    fn disk_bytes(&self) -> usize {
        self.index.disk_bytes() + self.blocks.disk_bytes()
    }
}

/// What a checkpoint has to say about groups.
#[derive(Default)]
pub struct GroupChanges {
    /// All groups that changed since the last checkpoint, also those that have gone.
    pub changed: Vec<u32>,
    /// Row ids of groups that are in the checkpoint and have changed or gone.
    pub deleted: Vec<u64>,
    /// Groups that have changed and are there.
    pub live: Vec<u32>,
    /// The new row id of each of `live`.
    pub row_ids: Vec<u64>,
}

impl GroupTable {
    /// A table over key columns of these types, with `stride` words for each group.
    ///
    /// # Errors
    /// For a type that cannot be a key.
    pub fn new(key_types: &[DataType], stride: usize) -> Result<GroupTable> {
        assert!(stride > ROW_COUNT, "every row has its count");
        let blocks = StateBlocks::new();
        Ok(GroupTable {
            index: GroupIndex::new(key_types)?,
            has_keys: !key_types.is_empty(),
            stride,
            words: blocks.array(),
            dirty: Vec::new(),
            dirty_bits: Vec::new(),
            before: Vec::new(),
            changed_bits: Vec::new(),
            pending_bits: Vec::new(),
            pending: 0,
            pending_at: 0,
            row_ids: blocks.array(),
            row_id_next: 0,
            blocks,
        })
    }

    /// The group of each row; new keys make new groups. `groups` is overwritten.
    ///
    /// # Errors
    /// When there are no ids left.
    pub fn intern(
        &mut self,
        columns: &[ArrayRef],
        rows: usize,
        groups: &mut Vec<u32>,
    ) -> Result<()> {
        self.index.intern(columns, rows, groups)?;
        let limit = self.index.id_limit();
        self.words.resize(limit * self.stride, 0);
        let bit_words = limit.div_ceil(64);
        self.dirty_bits.resize(bit_words, 0);
        self.changed_bits.resize(bit_words, 0);
        Ok(())
    }

    /// Notes that these groups are about to change; gives the places in [`GroupTable::dirty`] of
    /// those that change for the first time in this epoch.
    pub fn touch(&mut self, groups: &[u32]) -> Range<usize> {
        let start = self.dirty.len();
        self.dirty.resize(start + groups.len(), 0);
        let mut end = start;
        for group in groups {
            let word = &mut self.dirty_bits[(group >> 6) as usize];
            let bit = 1 << (group & 63);
            // Written always, kept only when the bit was not set: no branch to mispredict.
            self.dirty[end] = *group;
            end += usize::from(*word & bit == 0);
            *word |= bit;
        }
        self.dirty.truncate(end);
        if self.stride == 1 {
            self.before.extend(self.dirty[start..].iter().map(|g| self.words[*g as usize]));
        } else {
            for group in &self.dirty[start..] {
                let at = *group as usize * self.stride;
                self.before.extend_from_slice(&self.words[at..at + self.stride]);
            }
        }
        start..end
    }

    /// Adds the weights of rows (`None`: 1 each) to the row counts of their groups.
    pub fn count_rows(&mut self, groups: &[u32], weights: Option<&[i64]>) {
        let (words, stride) = (&mut self.words, self.stride);
        match weights {
            None => {
                for group in groups {
                    // Wraps: below 0 as long as deletions came before their insertions.
                    let count = &mut words[*group as usize * stride + ROW_COUNT];
                    *count = count.wrapping_add(1);
                }
            }
            Some(weights) => {
                for (group, weight) in groups.iter().zip(weights) {
                    let count = &mut words[*group as usize * stride + ROW_COUNT];
                    *count = count.wrapping_add(*weight as u64);
                }
            }
        }
    }

    /// A group that changes has no rows any more.
    pub fn set_empty(&mut self, group: u32) {
        self.words[group as usize * self.stride + ROW_COUNT] = 0;
    }

    /// Groups that changed in this epoch.
    pub fn dirty(&self) -> &[u32] {
        &self.dirty
    }

    /// The words of all groups, and the groups that changed in this epoch.
    pub fn words_and_dirty(&mut self) -> (&mut [u64], &[u32]) {
        (&mut self.words, &self.dirty)
    }

    pub fn words(&self) -> &[u64] {
        &self.words
    }

    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The row of a group.
    pub fn row(&self, group: u32) -> &[u64] {
        &self.words[group as usize * self.stride..][..self.stride]
    }

    /// How many rows a group has, or had when the epoch began: `place` is one of `dirty`.
    ///
    /// # Errors
    /// When more rows were deleted than were there.
    pub fn counts(&self, place: usize) -> Result<(u64, u64)> {
        let before = self.before[place * self.stride + ROW_COUNT];
        let now = self.words[self.dirty[place] as usize * self.stride + ROW_COUNT];
        if (now as i64) < 0 {
            return Err(Error::internal("an aggregation was told to delete rows that it lacks"));
        }
        Ok((before, now))
    }

    /// The rows of the groups at these places of `dirty`: as they were, then as they are.
    pub fn changed_words(&self, places: Range<usize>) -> Vec<u64> {
        let stride = self.stride;
        let mut words = Vec::with_capacity(2 * places.len() * stride);
        words.extend_from_slice(&self.before[places.start * stride..places.end * stride]);
        for group in &self.dirty[places] {
            words.extend_from_slice(self.row(*group));
        }
        words
    }

    /// The key columns of these groups.
    ///
    /// # Errors
    /// When a text column would exceed what an array can hold.
    pub fn keys(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        self.index.gather(groups)
    }

    /// Changed groups that are empty now and go with `end_epoch`.
    pub fn dead(&self) -> Vec<u32> {
        if !self.has_keys {
            return vec![];
        }
        let empty = |group: &&u32| self.words[**group as usize * self.stride + ROW_COUNT] == 0;
        self.dirty.iter().filter(empty).copied().collect()
    }

    /// Forgets the groups `dead`, and which groups changed.
    ///
    /// # Errors
    /// When keys cannot be read back.
    pub fn end_epoch(&mut self, dead: &[u32]) -> Result<()> {
        for group in dead {
            self.words[*group as usize * self.stride..][..self.stride].fill(0);
        }
        if !dead.is_empty() {
            self.index.remove(dead)?;
        }
        for group in self.dirty.drain(..) {
            let word = (group >> 6) as usize;
            self.dirty_bits[word] = 0;
            self.changed_bits[word] |= 1 << (group & 63);
        }
        self.before.clear();
        Ok(())
    }

    /// Groups that changed since the last call; the caller writes them to a checkpoint.
    pub fn take_changes(&mut self) -> GroupChanges {
        assert!(self.dirty.is_empty(), "a checkpoint follows the end of an epoch");
        assert_eq!(self.pending, 0, "one checkpoint after the other");
        let mut changes = GroupChanges::default();
        self.row_ids.resize(self.index.id_limit(), NO_ROW);
        for index in 0..self.changed_bits.len() {
            let bits = std::mem::take(&mut self.changed_bits[index]);
            self.take_all(index, bits, &mut changes);
        }
        changes
    }

    /// How many groups have changed since the last checkpoint.
    pub fn changed(&self) -> usize {
        self.changed_bits.iter().map(|bits| bits.count_ones() as usize).sum()
    }

    /// Begins a checkpoint whose groups are taken by and by: those that have changed since the last.
    pub fn begin_changes(&mut self) {
        assert!(self.dirty.is_empty(), "a checkpoint follows the end of an epoch");
        assert_eq!(self.pending, 0, "one checkpoint after the other");
        self.pending = self.changed();
        let unchanged = vec![0; self.changed_bits.len()];
        self.pending_bits = std::mem::replace(&mut self.changed_bits, unchanged);
        self.pending_at = 0;
        self.row_ids.resize(self.index.id_limit(), NO_ROW);
    }

    /// How many groups are still to be taken for the checkpoint that has begun.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Takes at least so many groups, or all that there are but for those that change in this epoch.
    pub fn take_pending(&mut self, groups_min: usize) -> GroupChanges {
        let mut changes = GroupChanges::default();
        while self.pending_at < self.pending_bits.len() && changes.changed.len() < groups_min {
            let index = self.pending_at;
            let dirty = self.dirty_bits.get(index).copied().unwrap_or(0);
            let bits = self.pending_bits[index] & !dirty;
            self.pending_bits[index] &= dirty;
            self.take_all(index, bits, &mut changes);
            self.pending_at += 1;
        }
        self.took(changes)
    }

    /// Takes the groups that have changed in this epoch, and their rows as they were before it; the
    /// rows are those of `live`, one behind the other.
    pub fn take_pending_dirty(&mut self) -> (GroupChanges, Vec<u64>) {
        let (mut changes, mut rows) = (GroupChanges::default(), Vec::new());
        for place in 0..self.dirty.len() {
            let group = self.dirty[place];
            let bit = 1 << (group & 63);
            let Some(bits) = self.pending_bits.get_mut((group >> 6) as usize) else { continue };
            if *bits & bit == 0 {
                continue;
            }
            *bits &= !bit;
            let before = place * self.stride..(place + 1) * self.stride;
            let live = changes.live.len();
            self.take(group, self.before[before.start + ROW_COUNT], &mut changes);
            if changes.live.len() > live {
                rows.extend_from_slice(&self.before[before]);
            }
        }
        (self.took(changes), rows)
    }

    fn took(&mut self, changes: GroupChanges) -> GroupChanges {
        self.pending -= changes.changed.len();
        if self.pending == 0 {
            self.pending_bits = Vec::new();
        }
        changes
    }

    /// Notes the groups of these bits of a word, as they are, for a checkpoint.
    fn take_all(&mut self, word: usize, mut bits: u64, changes: &mut GroupChanges) {
        while bits != 0 {
            let group = word as u32 * 64 + bits.trailing_zeros();
            bits &= bits - 1;
            let count = self.words[group as usize * self.stride + ROW_COUNT];
            self.take(group, count, changes);
        }
    }

    /// Notes a group with so many rows for a checkpoint.
    fn take(&mut self, group: u32, count: u64, changes: &mut GroupChanges) {
        changes.changed.push(group);
        let row_id = &mut self.row_ids[group as usize];
        if *row_id != NO_ROW {
            changes.deleted.push(*row_id);
            *row_id = NO_ROW;
        }
        if count != 0 || !self.has_keys {
            *row_id = self.row_id_next;
            self.row_id_next += 1;
            changes.live.push(group);
            changes.row_ids.push(*row_id);
        }
    }

    /// Rows one behind the other as columns, one for each word of a row.
    pub fn columns_of_rows(&self, rows: &[u64]) -> Vec<ArrayRef> {
        let column = |word: usize| {
            let words = rows.iter().skip(word).step_by(self.stride).map(|word| *word as i64);
            Arc::new(Int64Array::from_iter_values(words)) as ArrayRef
        };
        (0..self.stride).map(column).collect()
    }

    /// The words of these groups as columns, one for each word of a row.
    pub fn word_columns(&self, groups: &[u32]) -> Vec<ArrayRef> {
        (0..self.stride)
            .map(|word| {
                let at = |group: &u32| self.words[*group as usize * self.stride + word] as i64;
                Arc::new(Int64Array::from_iter_values(groups.iter().map(at))) as ArrayRef
            })
            .collect()
    }

    /// Takes groups back from a checkpoint: their keys and word columns. Gives their ids.
    ///
    /// # Errors
    /// When a group comes twice or the columns are not those of this table.
    pub fn load(&mut self, keys: &[ArrayRef], words: &[Int64Array]) -> Result<Vec<u32>> {
        let rows = words.first().map_or(0, Int64Array::len);
        if words.len() != self.stride {
            return Err(Error::internal("a checkpoint's groups have another number of words"));
        }
        let known = self.index.len();
        let mut groups = Vec::new();
        self.intern(keys, rows, &mut groups)?;
        if self.index.len() != known + rows {
            return Err(Error::internal("a checkpoint has a group twice"));
        }
        for (row, group) in groups.iter().enumerate() {
            let at = *group as usize * self.stride;
            for (word, column) in words.iter().enumerate() {
                self.words[at + word] = column.value(row) as u64;
            }
            self.changed_bits[(group >> 6) as usize] |= 1 << (group & 63);
        }
        Ok(groups)
    }

    /// The groups of these keys, all of which are there.
    ///
    /// # Errors
    /// When one is not.
    pub fn known(&mut self, keys: &[ArrayRef], rows: usize) -> Result<Vec<u32>> {
        let known = self.index.len();
        let mut groups = Vec::new();
        self.intern(keys, rows, &mut groups)?;
        if self.index.len() != known {
            return Err(Error::internal("a checkpoint has values of a group that it lacks"));
        }
        Ok(groups)
    }

    /// Whether a group of this number is there.
    pub fn is_live(&self, group: u32) -> bool {
        let at = group as usize * self.stride + ROW_COUNT;
        self.words.get(at).is_some_and(|count| *count != 0)
    }

    /// All groups that are there.
    pub fn live(&self) -> Vec<u32> {
        (0..self.index.id_limit() as u32).filter(|group| self.is_live(*group)).collect()
    }

    /// How many groups there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Memory held, in bytes; what is on the disk is not.
    pub fn memory_bytes(&self) -> usize {
        let bits = self.dirty_bits.capacity() + self.changed_bits.capacity();
        let flat = (self.words.capacity() + self.row_ids.capacity()) * size_of::<u64>();
        let bits = bits + self.pending_bits.capacity();
        self.index.memory_bytes()
            + self.blocks.in_memory(flat)
            + (self.before.capacity() + bits) * size_of::<u64>()
            + self.dirty.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(values: &[i64]) -> Vec<ArrayRef> {
        vec![Arc::new(Int64Array::from(values.to_vec()))]
    }

    /// One epoch with these rows; gives (rows before, rows now) of the changed groups by key.
    fn epoch(table: &mut GroupTable, rows: &[(i64, i64)]) -> Vec<(i64, u64, u64)> {
        let (key, weight): (Vec<i64>, Vec<i64>) = rows.iter().copied().unzip();
        let mut groups = Vec::new();
        for (key, weight) in key.chunks(2).zip(weight.chunks(2)) {
            table.intern(&keys(key), key.len(), &mut groups).expect("interns");
            table.touch(&groups);
            table.count_rows(&groups, Some(weight));
        }
        let dirty = table.dirty().to_vec();
        let of_key = table.keys(&dirty).expect("keys");
        let of_key = arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(&of_key[0]);
        let words = table.changed_words(0..dirty.len());
        let mut changed = Vec::new();
        for place in 0..dirty.len() {
            let (before, now) = table.counts(place).expect("counts");
            assert_eq!([before, now], [words[place * 2], words[(dirty.len() + place) * 2]]);
            changed.push((of_key.value(place), before, now));
        }
        let dead = table.dead();
        table.end_epoch(&dead).expect("ends");
        changed.sort_unstable();
        changed
    }

    #[test]
    fn groups_come_go_and_come_back() {
        let mut table = GroupTable::new(&[DataType::Int64], 2).expect("a table");
        assert_eq!(epoch(&mut table, &[(1, 1), (2, 1), (1, 1)]), [(1, 0, 2), (2, 0, 1)]);
        assert_eq!(epoch(&mut table, &[(1, -2), (3, 1), (3, -1)]), [(1, 2, 0), (3, 0, 0)]);
        assert_eq!(table.len(), 1);
        assert_eq!(epoch(&mut table, &[(1, -1), (1, 5)]), [(1, 0, 4)]);
        assert_eq!(table.len(), 2);
        assert!(table.index.id_limit() <= 3);
        let mut groups = Vec::new();
        table.intern(&keys(&[2]), 1, &mut groups).expect("interns");
        table.touch(&groups);
        table.count_rows(&groups, Some(&[-2]));
        assert!(table.counts(0).is_err());
    }

    #[test]
    fn checkpoints_name_what_changed() {
        let mut table = GroupTable::new(&[DataType::Int64], 2).expect("a table");
        epoch(&mut table, &[(1, 1), (2, 1), (9, 1), (9, -1)]);
        let first = table.take_changes();
        assert_eq!((first.deleted.len(), first.live.len()), (0, 2));
        assert!(table.take_changes().changed.is_empty());
        // Key 3 gets the group of key 1: its row goes, one with a new id comes.
        epoch(&mut table, &[(1, -1)]);
        epoch(&mut table, &[(3, 1)]);
        let second = table.take_changes();
        assert_eq!(second.deleted.len(), 1);
        assert!(first.row_ids.contains(&second.deleted[0]));
        assert!(!first.row_ids.contains(&second.row_ids[0]));
        let columns = table.word_columns(&second.live);
        assert_eq!(columns.len(), 2);
        let words: Vec<Int64Array> =
            columns.iter().map(|c| arrow::array::AsArray::as_primitive(c).clone()).collect();
        let mut restored = GroupTable::new(&[DataType::Int64], 2).expect("a table");
        restored.load(&table.keys(&second.live).expect("keys"), &words).expect("loads");
        assert_eq!(restored.take_changes().live.len(), 1);
        assert!(restored.known(&keys(&[3]), 1).is_ok());
        assert!(restored.known(&keys(&[4]), 1).is_err());
    }
}
