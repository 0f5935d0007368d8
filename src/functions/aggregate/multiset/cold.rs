//! Values of groups that nobody changes, on the disk until somebody does.
//!
//! 1. When memory is short the sets of many groups go together, as a *piece*: their groups, values
//!    and counts as columns, in a file that is mapped (as a checkpoint has them). What stands in
//!    memory for such a group is an empty set and the place of its row, both in blocks that can go,
//!    too.
//! 2. Whoever changes a set, or looks at it, says so before, for all groups of a batch at once
//!    ([`ValueSets::thaw`]): sets that have gone are made anew of their rows.
//! 3. A hand goes round over the groups. Sets that were looked at since it last came are spared as
//!    long as others are enough; a large set goes only if it was not.
//! 4. A piece goes when all of its groups are back, or have ended. When few are left, they are taken
//!    back, to go with others.
//!
//! A set is made anew of the values that it has; what form it has then is its own matter.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, ListArray, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Int64Type, UInt32Type};

use super::{Value, ValueCodec, ValueSet, ValueSets, sum_up};
use crate::memory::blocks::{Flat, StateBlocks};
use crate::memory::spill::{Pass, Spill, StateMemory};
use crate::types::error::{Error, Result};

/// Stands for the place of a set that is in memory.
const IN_MEMORY: u64 = u64::MAX;
/// Groups of a piece, at most.
const PIECE_GROUPS_MAX: usize = 16 * 1024;
/// Bytes that a piece lets go of, about.
const PIECE_BYTES: usize = 4 << 20;
/// A set of more values stays while it is looked at: to make it anew costs all of it.
const LARGE_SET: usize = 4096;
/// A piece of which less than one group in so many is left is given up.
const SPARSE_PART: usize = 4;
/// What the allocator needs for each piece of memory, about.
const ALLOCATION_BYTES: usize = 16;

/// Sets that have gone.
pub(super) struct ColdSets {
    /// By group: the number of the piece and the row in it, or [`IN_MEMORY`].
    places: Flat<u64>,
    /// Groups that are on the disk.
    groups: usize,
    pieces: Vec<Option<Piece>>,
    /// Numbers that no piece has.
    free: Vec<u32>,
    /// A bit for each group that was looked at since the hand came by; nobody notes it before
    /// memory is short.
    touched: Vec<u64>,
    notes_touched: bool,
    /// The group where the hand is.
    hand: usize,
    disk_bytes: usize,
}

struct Piece {
    groups: UInt32Array,
    values: ListArray,
    counts: ListArray,
    /// Groups whose place is here.
    live: usize,
    bytes: usize,
}

impl ColdSets {
    pub(super) fn new(blocks: &StateBlocks) -> ColdSets {
        ColdSets {
            places: blocks.array(),
            groups: 0,
            pieces: Vec::new(),
            free: Vec::new(),
            touched: Vec::new(),
            notes_touched: false,
            hand: 0,
            disk_bytes: 0,
        }
    }

    /// Bytes of what is kept for each group, wherever it is.
    pub(super) fn flat_bytes(&self) -> usize {
        self.places.capacity() * size_of::<u64>()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.touched.capacity() * size_of::<u64>()
            + self.pieces.capacity() * size_of::<Option<Piece>>()
    }

    pub(super) fn is_cold(&self, group: u32) -> bool {
        self.place(group).is_some()
    }

    /// The piece and the row in it of a group that is on the disk.
    fn place(&self, group: u32) -> Option<(u32, u32)> {
        let place = self.places.get(group as usize).filter(|place| **place != IN_MEMORY)?;
        Some(((place >> 32) as u32, *place as u32))
    }

    /// Takes the place of a group, which is not there any more.
    fn take_place(&mut self, group: u32) -> Option<(u32, u32)> {
        let place = self.place(group)?;
        self.places[group as usize] = IN_MEMORY;
        Some(place)
    }

    /// Sets made anew of rows of one piece: its number, row and group of each.
    fn read<S: ValueSet>(
        &self,
        codec: &ValueCodec,
        found: &[(u32, u32, u32)],
    ) -> Result<Vec<(u32, S)>> {
        let piece = self.pieces[found[0].0 as usize].as_ref();
        let piece = piece.expect("a place names a piece that is there");
        let rows = UInt32Array::from_iter_values(found.iter().map(|(_, row, _)| *row));
        let values = take(&piece.values, &rows, None)?;
        let counts = take(&piece.counts, &rows, None)?;
        let (values, counts) = (values.as_list::<i32>(), counts.as_list::<i32>());
        let ends = values.offsets().clone();
        let values = S::Value::encode(codec, values.values())?;
        let counts = counts.values().as_primitive::<Int64Type>();
        let mut sets = Vec::with_capacity(found.len());
        for ((_, _, group), range) in found.iter().zip(ends.windows(2)) {
            let mut set = S::default();
            for at in range[0] as usize..range[1] as usize {
                set.insert(S::Value::get(&values, at), counts.value(at));
            }
            // Whoever looks at it next need not have changed it.
            set.settle()?;
            sets.push((*group, set));
        }
        Ok(sets)
    }

    /// So many groups of a piece are not there any more.
    fn leave(&mut self, number: u32, groups: usize) {
        let slot = &mut self.pieces[number as usize];
        let piece = slot.as_mut().expect("a place names a piece that is there");
        piece.live -= groups;
        self.groups -= groups;
        if piece.live == 0 {
            self.disk_bytes -= piece.bytes;
            *slot = None;
            self.free.push(number);
        }
    }

    /// Forgets what a group has on the disk.
    pub(super) fn forget(&mut self, group: u32) {
        if let Some((number, _)) = self.take_place(group) {
            self.leave(number, 1);
        }
    }

    fn keep(&mut self, piece: Piece) {
        let number = self.free.pop().unwrap_or_else(|| {
            self.pieces.push(None);
            u32::try_from(self.pieces.len() - 1).expect("a piece has a group at least")
        });
        for (row, group) in piece.groups.values().iter().enumerate() {
            let at = *group as usize;
            if at >= self.places.len() {
                self.places.resize(at + 1, IN_MEMORY);
            }
            self.places[at] = u64::from(number) << 32 | row as u64;
        }
        self.groups += piece.live;
        self.disk_bytes += piece.bytes;
        self.pieces[number as usize] = Some(piece);
    }

    fn touch(&mut self, groups: &[u32]) {
        for group in groups {
            let word = (group >> 6) as usize;
            if word >= self.touched.len() {
                self.touched.resize(word + 1, 0);
            }
            self.touched[word] |= 1 << (group & 63);
        }
    }

    /// Whether a group was looked at since this was asked last.
    fn take_touched(&mut self, group: usize) -> bool {
        let Some(word) = self.touched.get_mut(group >> 6) else { return false };
        let bit = 1 << (group & 63);
        let touched = *word & bit != 0;
        *word &= !bit;
        touched
    }

    /// The groups of pieces that have few left.
    fn sparse(&self) -> Vec<u32> {
        let numbered = self.pieces.iter().enumerate();
        let pieces = numbered.filter_map(|(number, piece)| Some((number, piece.as_ref()?)));
        let sparse = pieces.filter(|(_, piece)| piece.live * SPARSE_PART < piece.groups.len());
        let groups = sparse.flat_map(|(number, piece)| {
            let here = move |group: &&u32| self.places[**group as usize] >> 32 == number as u64;
            piece.groups.values().iter().filter(here).copied()
        });
        groups.collect()
    }
}

/// Sets on their way to the disk.
struct Leaving<V> {
    groups: Vec<u32>,
    lengths: Vec<usize>,
    entries: Vec<(V, i64)>,
    /// What they hold in memory.
    bytes: usize,
}

impl<V: Value> Leaving<V> {
    fn new() -> Leaving<V> {
        Leaving { groups: Vec::new(), lengths: Vec::new(), entries: Vec::new(), bytes: 0 }
    }

    fn columns(&self, codec: &ValueCodec) -> Result<[ArrayRef; 3]> {
        let offsets = OffsetBuffer::from_lengths(self.lengths.iter().copied());
        let values = V::decode(codec, self.entries.iter().map(|entry| Some(&entry.0)))?;
        let field = Arc::new(Field::new("item", codec.data_type.clone(), true));
        let values = ListArray::try_new(field, offsets.clone(), values, None)?;
        let counts = Int64Array::from_iter_values(self.entries.iter().map(|entry| entry.1));
        let field = Arc::new(Field::new("item", DataType::Int64, true));
        let counts = ListArray::try_new(field, offsets, Arc::new(counts), None)?;
        let groups = UInt32Array::from(self.groups.clone());
        Ok([Arc::new(groups), Arc::new(values), Arc::new(counts)])
    }
}

impl<S: ValueSet> ValueSets<S> {
    /// Brings the sets of these groups back; to be called before they are changed or looked at.
    ///
    /// # Errors
    /// When values cannot be read back (never for values that went).
    pub fn thaw(&mut self, groups: &[u32]) -> Result<()> {
        if self.cold.notes_touched {
            self.cold.touch(groups);
        }
        if self.cold.groups == 0 {
            return Ok(());
        }
        let mut found = Vec::new();
        for group in groups {
            if let Some((piece, row)) = self.cold.take_place(*group) {
                found.push((piece, row, *group));
            }
        }
        found.sort_unstable();
        for found in found.chunk_by(|a, b| a.0 == b.0) {
            for (group, set) in self.cold.read::<S>(&self.codec, found)? {
                let place = &mut self.sets[group as usize];
                if !place.is_empty() {
                    return Err(Error::internal("values of a group are on the disk and in memory"));
                }
                *place = set;
            }
            self.cold.leave(found[0].0, found.len());
        }
        Ok(())
    }

    /// The sets of those of these groups that are on the disk, where they stay.
    pub(super) fn cold_sets(&self, groups: &[u32]) -> Result<Vec<(u32, S)>> {
        if self.cold.groups == 0 {
            return Ok(vec![]);
        }
        let places = groups.iter().filter_map(|group| {
            let (piece, row) = self.cold.place(*group)?;
            Some((piece, row, *group))
        });
        let mut found: Vec<_> = places.collect();
        found.sort_unstable();
        let mut sets = Vec::with_capacity(found.len());
        for found in found.chunk_by(|a, b| a.0 == b.0) {
            sets.extend(self.cold.read::<S>(&self.codec, found)?);
        }
        Ok(sets)
    }

    /// Lets sets go to the disk as long as that is wanted.
    fn freeze(&mut self, memory: &StateMemory, pass: Pass) -> Result<()> {
        let sparse = self.cold.sparse();
        self.thaw(&sparse)?;
        self.cold.notes_touched = true;
        let mut leaving = Leaving::new();
        for _ in 0..self.sets.len() {
            let group = self.cold.hand % self.sets.len();
            self.cold.hand = group + 1;
            let set = &self.sets[group];
            let is_large = pass.bytes_min > 0 && set.entries_len() > LARGE_SET;
            if set.is_empty() || (pass.spares_touched || is_large) && self.cold.take_touched(group)
            {
                continue;
            }
            let mut entries = set.entries();
            if entries.iter().any(|entry| entry.1 <= 0) {
                // What came and what went stand apart in it.
                entries = sum_up(entries);
            }
            if entries.iter().any(|entry| entry.1 < 0) {
                // It has not settled.
                continue;
            }
            leaving.bytes += set.memory_bytes() + ALLOCATION_BYTES;
            leaving.groups.push(group as u32);
            leaving.lengths.push(entries.len());
            leaving.entries.append(&mut entries);
            if leaving.bytes >= PIECE_BYTES || leaving.groups.len() >= PIECE_GROUPS_MAX {
                if !self.write(std::mem::replace(&mut leaving, Leaving::new()), memory)? {
                    return Ok(());
                }
                if !memory.is_wanted() {
                    break;
                }
            }
        }
        if leaving.bytes > 0 && leaving.bytes >= pass.bytes_min {
            self.write(leaving, memory)?;
        }
        Ok(())
    }

    /// Writes sets as a piece, and empties them; false when the disk does not take it.
    fn write(&mut self, leaving: Leaving<S::Value>, memory: &StateMemory) -> Result<bool> {
        let columns = leaving.columns(&self.codec)?;
        let Some((columns, bytes)) = memory.write(&columns, leaving.bytes) else {
            return Ok(false);
        };
        for group in &leaving.groups {
            self.sets[*group as usize] = S::default();
        }
        let live = leaving.groups.len();
        let groups = columns[0].as_primitive::<UInt32Type>().clone();
        let (values, counts) = (columns[1].as_list().clone(), columns[2].as_list().clone());
        self.cold.keep(Piece { groups, values, counts, live, bytes });
        Ok(true)
    }
}

impl<S: ValueSet> Spill for ValueSets<S> {
    fn spill(&mut self, memory: &StateMemory, pass: Pass) {
        if !memory.is_wanted() {
            return;
        }
        if (pass.spares_touched || pass.takes_blocks)
            && let Err(error) = self.freeze(memory, pass)
        {
            tracing::warn!(%error, "values of an aggregation stay in memory");
        }
        // SAFETY: only fields of this take from it, and nobody else has them.
        unsafe { self.blocks.spill(memory, pass) }
    }

    fn disk_bytes(&self) -> usize {
        self.blocks.disk_bytes() + self.cold.disk_bytes
    }
}
