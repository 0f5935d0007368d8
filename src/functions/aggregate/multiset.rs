//! The values of a group: a multiset that gives its smallest value, or any value by rank.
//!
//! [`ExtremeSet`] answers only "which is the smallest" (the largest, when values are encoded the
//! other way round), and is kept in the cheapest form for its size:
//!
//! 1. `Few`: up to 32 different values in a plain vector, which is scanned.
//! 2. `Heaps`: one heap of what came and one of what went; equal tops cancel. 30 to 90 ns a change
//!    against 400 for a tree (`state-notes` item 6). Both are rebuilt when half of it has gone.
//! 3. `Sorted`: when values repeat a lot or there are more than 64 Ki, so that no rebuild takes
//!    longer than a few milliseconds.
//!
//! [`SortedSet`] is a list of sorted blocks of (value, count) and answers by rank, and which value
//! is there most often (`multiset/sorted_set.rs`); over many blocks stands a tree
//! (`multiset/block_tree.rs`), so that a change costs the logarithm of the values.
//!
//! [`ValueSets`] has one set per group. Insertions go in at once, deletions when the epoch is
//! complete: within an epoch a deletion may come before its insertion, and then every deleted
//! value is there. What is in a set is its net content, so it never holds a negative count.
//!
//! When memory is short, sets that nobody changes go to the disk (`multiset/cold.rs`).
//!
//! For checkpoints, a small set is one row, written anew when its group changed. A large set is a
//! row with everything, then a row with the changes of each checkpoint, until those add up to more
//! than the set: then everything again. Changes are remembered only up to that size.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Fields, Int64Type};

use crate::functions::aggregate::Rows;
use crate::memory::blocks::{Flat, StateBlocks};
use crate::types::error::{Error, Result};
use crate::types::value::{
    BytesCodec, BytesColumn, Shape, from_wide_words, from_words, shape_of, to_wide_words, to_words,
};

mod block_tree;
mod cold;
mod sorted_set;

pub use sorted_set::SortedSet;

/// Different values up to which a set is scanned.
const FEW_MAX: usize = 32;
/// Values of a heap above which it becomes sorted blocks: a rebuild stays below some milliseconds.
const HEAP_MAX: usize = 1 << 16;
/// Copies of one value that are pushed on a heap one by one; more make it sorted blocks.
const HEAP_COPIES_MAX: i64 = 16;
/// Changes of a large set that are remembered for the next checkpoint, at least.
const LOG_MIN: usize = 4096;
/// Sets that are looked at to tell how much memory all of them hold.
const MEASURED_SETS_MAX: usize = 4096;
/// Values of one checkpoint row, at most: a row stays below some megabytes.
const ROW_VALUES_MAX: usize = 1 << 16;

/// A value as a set keeps it.
pub trait Value: Ord + Clone {
    /// A column of such values.
    type Column;
    /// # Errors
    /// When a nested value cannot be converted.
    fn encode(codec: &ValueCodec, column: &ArrayRef) -> Result<Self::Column>;
    fn get(column: &Self::Column, row: usize) -> Self;
    /// The inverse of `encode`; `None` is NULL.
    ///
    /// # Errors
    /// When the column would exceed what an array can hold.
    fn decode<'a>(
        codec: &ValueCodec,
        values: impl Iterator<Item = Option<&'a Self>> + Clone,
    ) -> Result<ArrayRef>
    where
        Self: 'a;
    /// Bytes on the heap.
    fn heap_bytes(&self) -> usize {
        0
    }
}

/// How values of one type are encoded.
pub struct ValueCodec {
    data_type: DataType,
    /// Words are complemented, so that the largest value comes first.
    descending: bool,
    /// For types whose shape is bytes.
    bytes: Option<BytesCodec>,
}

impl ValueCodec {
    /// # Errors
    /// For a type that has no order.
    pub fn new(data_type: &DataType, descending: bool) -> Result<ValueCodec> {
        let bytes = match shape_of(data_type) {
            Shape::Bytes => Some(BytesCodec::new(data_type)?),
            _ => None,
        };
        Ok(ValueCodec { data_type: data_type.clone(), descending, bytes })
    }

    /// For structs of these fields, ordered by field after field in these directions.
    ///
    /// # Errors
    /// For a type that has no order.
    pub fn of_struct(fields: &Fields, options: &[SortOptions]) -> Result<ValueCodec> {
        let bytes = Some(BytesCodec::of_struct(fields, options)?);
        Ok(ValueCodec { data_type: DataType::Struct(fields.clone()), descending: false, bytes })
    }

    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    fn bytes(&self) -> &BytesCodec {
        self.bytes.as_ref().expect("made for a type whose shape is bytes")
    }
}

impl Value for u64 {
    type Column = Vec<u64>;

    fn encode(codec: &ValueCodec, column: &ArrayRef) -> Result<Vec<u64>> {
        let mut words = to_words(column);
        if codec.descending {
            words.iter_mut().for_each(|word| *word = !*word);
        }
        Ok(words)
    }

    fn get(column: &Vec<u64>, row: usize) -> u64 {
        column[row]
    }

    fn decode<'a>(
        codec: &ValueCodec,
        values: impl Iterator<Item = Option<&'a u64>> + Clone,
    ) -> Result<ArrayRef> {
        let flip = if codec.descending { u64::MAX } else { 0 };
        let valid = values.clone().map(|value| value.is_some()).collect();
        let words: Vec<u64> = values.map(|value| value.map_or(0, |word| word ^ flip)).collect();
        Ok(from_words(&words, Some(valid), &codec.data_type))
    }
}

impl Value for u128 {
    type Column = Vec<u128>;

    fn encode(codec: &ValueCodec, column: &ArrayRef) -> Result<Vec<u128>> {
        let mut words = to_wide_words(column);
        if codec.descending {
            words.iter_mut().for_each(|word| *word = !*word);
        }
        Ok(words)
    }

    fn get(column: &Vec<u128>, row: usize) -> u128 {
        column[row]
    }

    fn decode<'a>(
        codec: &ValueCodec,
        values: impl Iterator<Item = Option<&'a u128>> + Clone,
    ) -> Result<ArrayRef> {
        let flip = if codec.descending { u128::MAX } else { 0 };
        let valid = values.clone().map(|value| value.is_some()).collect();
        let words: Vec<u128> = values.map(|value| value.map_or(0, |word| word ^ flip)).collect();
        Ok(from_wide_words(&words, Some(valid), &codec.data_type))
    }
}

impl Value for Box<[u8]> {
    type Column = BytesColumn;

    fn encode(codec: &ValueCodec, column: &ArrayRef) -> Result<BytesColumn> {
        codec.bytes().encode(column)
    }

    fn get(column: &BytesColumn, row: usize) -> Box<[u8]> {
        column.value(row).into()
    }

    fn decode<'a>(
        codec: &ValueCodec,
        values: impl Iterator<Item = Option<&'a Box<[u8]>>> + Clone,
    ) -> Result<ArrayRef> {
        codec.bytes().decode(values.map(|value| value.map(AsRef::as_ref)))
    }

    fn heap_bytes(&self) -> usize {
        self.len()
    }
}

impl Value for Reverse<Box<[u8]>> {
    type Column = BytesColumn;

    fn encode(codec: &ValueCodec, column: &ArrayRef) -> Result<BytesColumn> {
        codec.bytes().encode(column)
    }

    fn get(column: &BytesColumn, row: usize) -> Reverse<Box<[u8]>> {
        Reverse(column.value(row).into())
    }

    fn decode<'a>(
        codec: &ValueCodec,
        values: impl Iterator<Item = Option<&'a Reverse<Box<[u8]>>>> + Clone,
    ) -> Result<ArrayRef> {
        codec.bytes().decode(values.map(|value| value.map(|v| v.0.as_ref())))
    }

    fn heap_bytes(&self) -> usize {
        self.0.len()
    }
}

/// A multiset of values.
pub trait ValueSet: Default {
    type Value: Value;

    /// Adds `count` copies, which is at least 1.
    fn insert(&mut self, value: Self::Value, count: i64);
    /// Takes `count` copies away, which is at least 1. All insertions of the epoch came before.
    ///
    /// # Errors
    /// When the set sees that it lacks them.
    fn delete(&mut self, value: Self::Value, count: i64) -> Result<()>;
    /// All changes of an epoch were made.
    ///
    /// # Errors
    /// When the set sees that a deleted value was never there.
    fn settle(&mut self) -> Result<()>;
    fn is_empty(&self) -> bool;
    /// Entries that it holds: a measure of the cost to write it.
    fn entries_len(&self) -> usize;
    /// Changes that make this set out of an empty one.
    fn entries(&self) -> Vec<(Self::Value, i64)>;
    fn memory_bytes(&self) -> usize;
}

fn lacks_value() -> Error {
    Error::internal("an aggregation was told to delete a value that it does not have")
}

/// A multiset that knows its smallest value.
pub enum ExtremeSet<V> {
    /// Different values with their counts, in no order.
    Few(Vec<(V, i64)>),
    Heaps(Box<Heaps<V>>),
    Sorted(Box<SortedSet<V>>),
}

impl<V> Default for ExtremeSet<V> {
    fn default() -> ExtremeSet<V> {
        ExtremeSet::Few(Vec::new())
    }
}

/// What came and what went; the smallest is on top.
pub struct Heaps<V> {
    values: BinaryHeap<Reverse<V>>,
    deleted: BinaryHeap<Reverse<V>>,
    /// When there are this many values, see how many are different.
    review_at: usize,
}

impl<V: Value> ExtremeSet<V> {
    /// The smallest value; valid after `settle`.
    pub fn first(&self) -> Option<&V> {
        match self {
            ExtremeSet::Few(values) => values.iter().map(|entry| &entry.0).min(),
            ExtremeSet::Heaps(heaps) => heaps.values.peek().map(|top| &top.0),
            ExtremeSet::Sorted(set) => set.first(),
        }
    }

    /// Keeps only the smallest value: for input that never deletes.
    pub fn insert_lasting(&mut self, value: V) {
        let ExtremeSet::Few(values) = self else {
            unreachable!("a set that only ever had one value")
        };
        match values.first_mut() {
            None => values.push((value, 1)),
            Some(first) => {
                if value < first.0 {
                    first.0 = value;
                }
            }
        }
    }

    /// The best form for these values: ascending, each once, no count below 1.
    fn of_sorted(entries: Vec<(V, i64)>) -> ExtremeSet<V> {
        let copies: i64 = entries.iter().map(|entry| entry.1).sum();
        // Half of the limit, so that a set at the border does not change its form all the time.
        if entries.len() <= FEW_MAX / 2 {
            return ExtremeSet::Few(entries);
        }
        let repeat = copies > 4 * entries.len() as i64;
        if repeat || copies > HEAP_MAX as i64 / 2 {
            return ExtremeSet::Sorted(Box::new(SortedSet::of_sorted(entries)));
        }
        let values = entries.into_iter().flat_map(|(value, count)| {
            std::iter::repeat_n(Reverse(value), usize::try_from(count).expect("a copy or more"))
        });
        let values: BinaryHeap<Reverse<V>> = values.collect();
        let review_at = (4 * values.len()).min(HEAP_MAX);
        ExtremeSet::Heaps(Box::new(Heaps { values, deleted: BinaryHeap::new(), review_at }))
    }

    fn make_sorted_blocks(&mut self) -> &mut SortedSet<V> {
        let entries = match self {
            ExtremeSet::Sorted(_) => vec![],
            ExtremeSet::Few(values) => sum_up(std::mem::take(values)),
            ExtremeSet::Heaps(heaps) => heaps.take_entries(),
        };
        if !matches!(self, ExtremeSet::Sorted(_)) {
            *self = ExtremeSet::Sorted(Box::new(SortedSet::of_sorted(entries)));
        }
        match self {
            ExtremeSet::Sorted(set) => set,
            _ => unreachable!("made above"),
        }
    }
}

impl<V: Value> Heaps<V> {
    /// Everything, ascending, each value once with its net count, which may be negative when
    /// something was deleted that never came.
    fn take_entries(&mut self) -> Vec<(V, i64)> {
        let values = std::mem::take(&mut self.values).into_iter().map(|v| (v.0, 1));
        let deleted = std::mem::take(&mut self.deleted).into_iter().map(|v| (v.0, -1));
        sum_up(values.chain(deleted).collect())
    }

    /// Cancels equal tops.
    fn cancel_tops(&mut self) -> Result<()> {
        while let Some(gone) = self.deleted.peek() {
            match self.values.peek() {
                Some(top) if top == gone => {
                    self.values.pop();
                    self.deleted.pop();
                }
                // `Reverse`: greater means a smaller value.
                Some(top) if top > gone => break,
                _ => return Err(lacks_value()),
            }
        }
        Ok(())
    }
}

/// Sorts, and adds up the counts of equal values; those of 0 are left out.
fn sum_up<V: Ord>(mut entries: Vec<(V, i64)>) -> Vec<(V, i64)> {
    entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    entries.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 += next.1;
        }
        same
    });
    entries.retain(|entry| entry.1 != 0);
    entries
}

impl<V: Value> ValueSet for ExtremeSet<V> {
    type Value = V;

    fn insert(&mut self, value: V, count: i64) {
        match self {
            ExtremeSet::Few(values) => {
                if let Some(entry) = values.iter_mut().find(|entry| entry.0 == value) {
                    entry.1 += count;
                    return;
                }
                values.push((value, count));
                if values.len() > FEW_MAX {
                    *self = ExtremeSet::of_sorted(sum_up(std::mem::take(values)));
                }
            }
            ExtremeSet::Heaps(_) if count > HEAP_COPIES_MAX => {
                self.make_sorted_blocks().insert(value, count);
            }
            ExtremeSet::Heaps(heaps) => {
                for _ in 1..count {
                    heaps.values.push(Reverse(value.clone()));
                }
                heaps.values.push(Reverse(value));
            }
            ExtremeSet::Sorted(set) => set.insert(value, count),
        }
    }

    fn delete(&mut self, value: V, count: i64) -> Result<()> {
        match self {
            ExtremeSet::Few(values) => {
                let at = values.iter().position(|entry| entry.0 == value);
                let at = at.ok_or_else(lacks_value)?;
                values[at].1 -= count;
                match values[at].1 {
                    0 => drop(values.swap_remove(at)),
                    ..0 => return Err(lacks_value()),
                    _ => {}
                }
            }
            ExtremeSet::Heaps(_) if count > HEAP_COPIES_MAX => {
                return self.make_sorted_blocks().delete(value, count);
            }
            ExtremeSet::Heaps(heaps) => {
                for _ in 1..count {
                    heaps.deleted.push(Reverse(value.clone()));
                }
                heaps.deleted.push(Reverse(value));
            }
            ExtremeSet::Sorted(set) => return set.delete(value, count),
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        match self {
            ExtremeSet::Few(values) if values.is_empty() => *values = Vec::new(),
            ExtremeSet::Few(_) => {}
            ExtremeSet::Heaps(heaps) => {
                heaps.cancel_tops()?;
                let half_gone = 2 * heaps.deleted.len() > heaps.values.len();
                if half_gone || heaps.values.len() >= heaps.review_at || heaps.values.is_empty() {
                    let entries = heaps.take_entries();
                    if entries.iter().any(|entry| entry.1 < 0) {
                        return Err(lacks_value());
                    }
                    *self = ExtremeSet::of_sorted(entries);
                }
            }
            ExtremeSet::Sorted(set) => {
                set.settle()?;
                if set.different() <= FEW_MAX / 2 {
                    *self = ExtremeSet::Few(set.entries());
                }
            }
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        match self {
            ExtremeSet::Few(values) => values.is_empty(),
            ExtremeSet::Heaps(heaps) => heaps.values.len() == heaps.deleted.len(),
            ExtremeSet::Sorted(set) => set.is_empty(),
        }
    }

    fn entries_len(&self) -> usize {
        match self {
            ExtremeSet::Few(values) => values.len(),
            ExtremeSet::Heaps(heaps) => heaps.values.len() + heaps.deleted.len(),
            ExtremeSet::Sorted(set) => set.entries_len(),
        }
    }

    fn entries(&self) -> Vec<(V, i64)> {
        match self {
            ExtremeSet::Few(values) => values.clone(),
            ExtremeSet::Heaps(heaps) => {
                let values = heaps.values.iter().map(|value| (value.0.clone(), 1));
                values.chain(heaps.deleted.iter().map(|value| (value.0.clone(), -1))).collect()
            }
            ExtremeSet::Sorted(set) => set.entries(),
        }
    }

    fn memory_bytes(&self) -> usize {
        match self {
            ExtremeSet::Few(values) => {
                let heap: usize = values.iter().map(|entry| entry.0.heap_bytes()).sum();
                values.capacity() * size_of::<(V, i64)>() + heap
            }
            ExtremeSet::Heaps(heaps) => {
                let of = |heap: &BinaryHeap<Reverse<V>>| {
                    // One value stands for all: walking every value would cost too much.
                    let each = heap.peek().map_or(0, |value| value.0.heap_bytes());
                    heap.capacity() * size_of::<V>() + heap.len() * each
                };
                of(&heaps.values) + of(&heaps.deleted) + size_of::<Heaps<V>>()
            }
            ExtremeSet::Sorted(set) => set.memory_bytes(),
        }
    }
}

/// The changes of stored values since the last checkpoint, as rows.
pub struct StoredChanges {
    /// Ids of earlier rows that go.
    pub deleted: Vec<u64>,
    /// New rows: id, group, and the changes that the row makes to the group's set.
    pub ids: Vec<u64>,
    pub groups: Vec<u32>,
    pub values: ListArray,
    pub counts: ListArray,
}

/// Values by group as a checkpoint sees them.
pub trait StoredValues {
    /// The type of one value.
    fn value_type(&self) -> DataType;
    /// The rows that changed; `groups` are those that changed since the last checkpoint.
    ///
    /// # Errors
    /// When the values exceed what an array can hold.
    fn changes(&mut self, groups: &[u32]) -> Result<StoredChanges>;
    /// Takes rows of a checkpoint back; `settle` follows when all were loaded.
    ///
    /// # Errors
    /// When the columns are not those of a checkpoint.
    fn load(&mut self, groups: &[u32], values: &ListArray, counts: &ListArray) -> Result<()>;
}

/// Stands for the row id of a set that is not in the checkpoint.
const NO_ROW: u64 = u64::MAX;

/// One set of values per group.
pub struct ValueSets<S: ValueSet> {
    codec: ValueCodec,
    /// By group; empty where the values are on the disk.
    sets: Flat<S>,
    cold: cold::ColdSets,
    /// Deletions of this epoch: group, value, copies.
    deletes: Vec<(u32, S::Value, i64)>,
    /// Large sets, by group, until they are small at a checkpoint or their group is freed.
    logs: HashMap<u32, Log<S::Value>>,
    /// The id of the row in the checkpoint with all of a small set, or `NO_ROW`, by group.
    small_rows: Flat<u64>,
    /// Rows of freed groups that are still in the checkpoint.
    dead_rows: Vec<u64>,
    /// All row ids below were given to rows of checkpoints.
    row_id_next: u64,
    /// Where what is kept for each group has its memory from.
    blocks: StateBlocks,
}

/// What a large set has in the checkpoint, and what it has not.
struct Log<V> {
    /// Its rows in the checkpoint.
    rows: Vec<u64>,
    /// Entries in those rows.
    written: usize,
    /// Changes since the last checkpoint.
    pending: Vec<(V, i64)>,
    /// Too many changes to remember: everything is written anew.
    rewrite: bool,
}

impl<V> Default for Log<V> {
    fn default() -> Log<V> {
        Log { rows: Vec::new(), written: 0, pending: Vec::new(), rewrite: true }
    }
}

impl<S: ValueSet> ValueSets<S> {
    pub fn new(codec: ValueCodec) -> ValueSets<S> {
        let blocks = StateBlocks::new();
        ValueSets {
            codec,
            sets: blocks.array(),
            cold: cold::ColdSets::new(&blocks),
            deletes: Vec::new(),
            logs: HashMap::new(),
            small_rows: blocks.array(),
            dead_rows: Vec::new(),
            row_id_next: 0,
            blocks,
        }
    }

    pub fn codec(&self) -> &ValueCodec {
        &self.codec
    }

    /// The values of a group; `None` when it never had any. They are in memory.
    pub fn get(&self, group: u32) -> Option<&S> {
        debug_assert!(!self.cold.is_cold(group), "group {group} is on the disk");
        self.sets.get(group as usize)
    }

    /// The values of a group, to change them without a log. They are in memory.
    pub fn get_mut(&mut self, group: u32) -> &mut S {
        debug_assert!(!self.cold.is_cold(group), "group {group} is on the disk");
        let group = group as usize;
        if group >= self.sets.len() {
            self.sets.resize_with(group + 1, S::default);
        }
        &mut self.sets[group]
    }

    /// Folds the values of `column` in, NULLs left out.
    ///
    /// # Errors
    /// When a nested value cannot be converted.
    pub fn fold(&mut self, rows: &Rows<'_>, column: &ArrayRef) -> Result<()> {
        self.thaw(rows.groups)?;
        let values = S::Value::encode(&self.codec, column)?;
        let nulls = column.logical_nulls();
        rows.for_each(nulls.as_ref(), |group, row, weight| {
            self.change(group, S::Value::get(&values, row), weight);
        });
        Ok(())
    }

    fn change(&mut self, group: u32, value: S::Value, weight: i64) {
        if weight < 0 {
            self.deletes.push((group, value, -weight));
            return;
        }
        if self.is_logged(group) {
            self.log(group, &value, weight);
        }
        self.get_mut(group).insert(value, weight);
    }

    /// Whether changes of a group are remembered: its set is large, or was at the last checkpoint.
    fn is_logged(&self, group: u32) -> bool {
        self.sets.get(group as usize).is_some_and(|set| set.entries_len() > 2 * FEW_MAX)
            || !self.logs.is_empty() && self.logs.contains_key(&group)
    }

    fn log(&mut self, group: u32, value: &S::Value, weight: i64) {
        let set_len = self.sets[group as usize].entries_len();
        let log = self.logs.entry(group).or_default();
        if log.rewrite {
            return;
        }
        if log.pending.len() >= set_len.max(LOG_MIN) {
            log.pending = Vec::new();
            log.rewrite = true;
        } else {
            log.pending.push((value.clone(), weight));
        }
    }

    /// Makes the deletions of the epoch; `groups` are those that changed.
    ///
    /// # Errors
    /// When something is deleted that is not there.
    pub fn settle(&mut self, groups: &[u32]) -> Result<()> {
        self.thaw(groups)?;
        for (group, value, count) in std::mem::take(&mut self.deletes) {
            if self.is_logged(group) {
                self.log(group, &value, -count);
            }
            let set = self.sets.get_mut(group as usize).ok_or_else(lacks_value)?;
            set.delete(value, count)?;
        }
        for group in groups {
            if let Some(set) = self.sets.get_mut(*group as usize) {
                set.settle()?;
            }
        }
        Ok(())
    }

    /// Forgets groups whose values have all gone.
    pub fn free(&mut self, groups: &[u32]) {
        for group in groups {
            if let Some(log) = self.logs.remove(group) {
                self.dead_rows.extend(log.rows);
            }
            self.cold.forget(*group);
            if let Some(set) = self.sets.get_mut(*group as usize) {
                *set = S::default();
            }
        }
    }

    /// Memory held, in bytes; estimated from some of the sets when there are many. What is on the
    /// disk is not.
    pub fn memory_bytes(&self) -> usize {
        let logs: usize =
            self.logs.values().map(|log| log.pending.capacity() + log.rows.capacity()).sum();
        let step = self.sets.len().div_ceil(MEASURED_SETS_MAX).max(1);
        let measured = self.sets.iter().step_by(step);
        let flat = self.sets.capacity() * size_of::<S>()
            + self.small_rows.capacity() * size_of::<u64>()
            + self.cold.flat_bytes();
        step * measured.map(S::memory_bytes).sum::<usize>()
            + self.blocks.in_memory(flat)
            + self.cold.memory_bytes()
            + (self.deletes.capacity() + logs) * size_of::<(S::Value, i64)>()
            + self.logs.capacity() * size_of::<(u32, Log<S::Value>)>()
    }

    /// The rows that a changed group, which has this set, puts into the checkpoint.
    fn group_changes(&mut self, group: u32, set: Option<&S>, out: &mut PendingRows<S::Value>) {
        let index = group as usize;
        if let Some(row) = self.small_rows.get_mut(index).filter(|row| **row != NO_ROW) {
            out.deleted.push(std::mem::replace(row, NO_ROW));
        }
        let Some(set) = set else { return };
        if set.entries_len() <= 2 * FEW_MAX {
            if let Some(log) = self.logs.remove(&group) {
                out.deleted.extend(log.rows);
            }
            if !set.is_empty() {
                if index >= self.small_rows.len() {
                    self.small_rows.resize(index + 1, NO_ROW);
                }
                self.small_rows[index] = self.row_id_next;
                out.push(self.row_id_next, group, set.entries());
                self.row_id_next += 1;
            }
            return;
        }
        let log = self.logs.entry(group).or_default();
        if log.rewrite || log.written + log.pending.len() > 2 * set.entries_len() + LOG_MIN {
            out.deleted.append(&mut log.rows);
            *log = Log { pending: set.entries(), rewrite: false, ..Log::default() };
        }
        let pending = std::mem::take(&mut log.pending);
        log.written += pending.len();
        for part in pending.chunks(ROW_VALUES_MAX) {
            log.rows.push(self.row_id_next);
            out.push(self.row_id_next, group, part.to_vec());
            self.row_id_next += 1;
        }
    }
}

/// Checkpoint rows before they are columns.
struct PendingRows<V> {
    deleted: Vec<u64>,
    ids: Vec<u64>,
    groups: Vec<u32>,
    lengths: Vec<usize>,
    entries: Vec<(V, i64)>,
}

impl<V> PendingRows<V> {
    fn push(&mut self, id: u64, group: u32, mut entries: Vec<(V, i64)>) {
        self.ids.push(id);
        self.groups.push(group);
        self.lengths.push(entries.len());
        self.entries.append(&mut entries);
    }
}

impl<S: ValueSet> StoredValues for ValueSets<S> {
    fn value_type(&self) -> DataType {
        self.codec.data_type.clone()
    }

    fn changes(&mut self, groups: &[u32]) -> Result<StoredChanges> {
        let deleted = std::mem::take(&mut self.dead_rows);
        let (ids, lengths, entries) = (Vec::new(), Vec::new(), Vec::new());
        let mut rows = PendingRows { deleted, ids, groups: Vec::new(), lengths, entries };
        for group in groups {
            if self.cold.is_cold(*group) {
                continue;
            }
            // Out of the way for a moment: what is known of its rows changes meanwhile.
            let set = self.sets.get_mut(*group as usize).map(std::mem::take);
            self.group_changes(*group, set.as_ref(), &mut rows);
            if let Some(set) = set {
                self.sets[*group as usize] = set;
            }
        }
        for (group, set) in self.cold_sets(groups)? {
            self.group_changes(group, Some(&set), &mut rows);
        }
        let offsets = OffsetBuffer::from_lengths(rows.lengths);
        let values = S::Value::decode(&self.codec, rows.entries.iter().map(|e| Some(&e.0)))?;
        let field = Arc::new(Field::new("item", self.codec.data_type.clone(), true));
        let values = ListArray::try_new(field, offsets.clone(), values, None)?;
        let counts = Int64Array::from_iter_values(rows.entries.iter().map(|e| e.1));
        let field = Arc::new(Field::new("item", DataType::Int64, true));
        let counts = ListArray::try_new(field, offsets, Arc::new(counts), None)?;
        let PendingRows { deleted, ids, groups, .. } = rows;
        Ok(StoredChanges { deleted, ids, groups, values, counts })
    }

    fn load(&mut self, groups: &[u32], values: &ListArray, counts: &ListArray) -> Result<()> {
        for (row, group) in groups.iter().enumerate() {
            let values = S::Value::encode(&self.codec, &values.value(row))?;
            let counts = counts.value(row);
            let counts = counts.as_primitive_opt::<Int64Type>().ok_or_else(|| {
                Error::internal("a checkpoint holds stored values without counts")
            })?;
            for (at, count) in counts.values().iter().enumerate() {
                self.change(*group, S::Value::get(&values, at), *count);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
