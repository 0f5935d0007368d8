//! Row ids, and what is kept per row id: a value ([`IdVec`]), a deletion bit ([`DeadBits`]).
//!
//! A table numbers its rows in order of arrival with a `u64` that is never used twice. What is
//! kept in bulk (index buckets, chain links) holds the low 32 bits only, a *short id*. That is
//! unambiguous because all rows of a table lie in a window of at most [`WINDOW_IDS_MAX`] ids: when
//! the window grows too long for its living rows, the oldest of them are appended anew and the
//! front is dropped (`RowStore::front`).
//!
//! A short id that was stored earlier may have fallen out of the window. It is recognised by
//! distance from the window's end; ids that far apart cannot be confused, because a row points only
//! at rows that were in the window with it: end - row < 2^31 and row - pointee < 2^31.
//!
//! Both structures are cut into chunks of 64 Ki ids which appear at the back and go at the front.
//! Deletion bits are 8 KiB a chunk behind an `Arc`, so that a snapshot shares them and a writer
//! copies only the chunks it touches. Chunks of values can go to the disk (`blocks.rs`).

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::BooleanBufferBuilder;

use crate::memory::blocks::{Flat, StateBlocks};
use crate::memory::spill::{Pass, Spill, StateMemory};

/// The low half of a row id.
pub type ShortId = u32;

/// No row. No row id ends in these 32 bits.
pub const NIL: ShortId = u32::MAX;

/// The longest window of ids that short ids can tell apart, with room for one more batch.
pub const WINDOW_IDS_MAX: u64 = (1 << 31) - (1 << 26);

const CHUNK_BITS: u32 = 16;
const CHUNK_IDS: usize = 1 << CHUNK_BITS;
const CHUNK_WORDS: usize = CHUNK_IDS / 64;

/// A value per row id of the window.
#[derive(Debug)]
pub struct IdVec<T> {
    /// Number (`id >> 16`) of the first chunk.
    first_chunk: u64,
    /// Full but for the last one, which grows like any vector.
    chunks: VecDeque<Flat<T>>,
    /// What a new id has until it is set.
    fill: T,
    /// Where the chunks have their memory from.
    blocks: StateBlocks,
}

impl<T> Spill for IdVec<T> {
    fn spill(&mut self, memory: &StateMemory, pass: Pass) {
        // SAFETY: only the chunks take from it, and nobody else has them.
        unsafe { self.blocks.spill(memory, pass) }
    }

    fn disk_bytes(&self) -> usize {
        self.blocks.disk_bytes()
    }
}

impl<T: Copy> IdVec<T> {
    pub fn new(fill: T) -> IdVec<T> {
        IdVec { first_chunk: 0, chunks: VecDeque::new(), fill, blocks: StateBlocks::new() }
    }

    /// Makes room for all ids below `end`; the window starts at `base`.
    pub fn extend_to(&mut self, base: u64, end: u64) {
        if self.chunks.is_empty() {
            self.first_chunk = base >> CHUNK_BITS;
        }
        while (self.first_chunk + self.chunks.len() as u64) << CHUNK_BITS < end {
            if let Some(full) = self.chunks.back_mut() {
                full.resize(CHUNK_IDS, self.fill);
            }
            self.chunks.push_back(self.blocks.array());
        }
        let last_chunk = self.first_chunk + (self.chunks.len() as u64).saturating_sub(1);
        if let Some(last) = self.chunks.back_mut() {
            let length = (end - (last_chunk << CHUNK_BITS)) as usize;
            if last.len() < length {
                last.resize(length, self.fill);
            }
        }
    }

    /// Forgets the chunks that lie before `base` as a whole.
    pub fn drop_before(&mut self, base: u64) {
        while self.first_chunk < base >> CHUNK_BITS && self.chunks.pop_front().is_some() {
            self.first_chunk += 1;
        }
    }

    fn place(&self, id: ShortId) -> (usize, usize) {
        let offset = id.wrapping_sub((self.first_chunk << CHUNK_BITS) as u32);
        ((offset >> CHUNK_BITS) as usize, offset as usize % CHUNK_IDS)
    }

    /// The value of an id of the window.
    pub fn get(&self, id: ShortId) -> T {
        let (chunk, offset) = self.place(id);
        self.chunks[chunk][offset]
    }

    /// Sets the value of an id of the window.
    pub fn set(&mut self, id: ShortId, value: T) {
        let (chunk, offset) = self.place(id);
        self.chunks[chunk][offset] = value;
    }

    /// Memory held, in bytes; what is on the disk is not.
    pub fn memory_bytes(&self) -> usize {
        self.blocks.in_memory(self.chunks.iter().map(|c| c.capacity() * size_of::<T>()).sum())
    }
}

type Chunk = [u64; CHUNK_WORDS];

/// Which ids are dead. Cloning shares all chunks.
#[derive(Clone, Debug, Default)]
pub struct DeadBits {
    /// Number (`id >> 16`) of the first chunk.
    first_chunk: u64,
    /// `None`: nobody is dead there, and so it is beyond the last chunk.
    chunks: VecDeque<Option<Arc<Chunk>>>,
}

impl DeadBits {
    /// Whether any id has died and not been forgotten since.
    pub fn any(&self) -> bool {
        !self.chunks.is_empty()
    }

    /// Whether an id of the window is dead.
    pub fn get(&self, id: ShortId) -> bool {
        let offset = id.wrapping_sub((self.first_chunk << CHUNK_BITS) as u32);
        match self.chunks.get((offset >> CHUNK_BITS) as usize) {
            Some(Some(chunk)) => {
                let bit = offset as usize % CHUNK_IDS;
                chunk[bit / 64] >> (bit % 64) & 1 == 1
            }
            _ => false,
        }
    }

    fn chunk_mut(&mut self, base: u64, chunk: u64) -> &mut Chunk {
        if self.chunks.is_empty() {
            self.first_chunk = base >> CHUNK_BITS;
        }
        let index = usize::try_from(chunk - self.first_chunk).expect("a window fits in memory");
        if index >= self.chunks.len() {
            self.chunks.resize(index + 1, None);
        }
        let slot = self.chunks[index].get_or_insert_with(|| Arc::new([0; CHUNK_WORDS]));
        Arc::make_mut(slot)
    }

    /// Marks one id of the window that starts at `base`; false if it was dead before.
    pub fn set(&mut self, base: u64, id: u64) -> bool {
        let chunk = self.chunk_mut(base, id >> CHUNK_BITS);
        let bit = id as usize % CHUNK_IDS;
        let before = chunk[bit / 64] >> (bit % 64) & 1;
        chunk[bit / 64] |= 1 << (bit % 64);
        before == 0
    }

    /// Marks many ids of the window that starts at `base`; each touched chunk is unshared once.
    /// Gives how many were alive.
    pub fn set_all(&mut self, base: u64, ids: &[u64]) -> usize {
        let mut set = 0;
        for (chunk_number, ids) in group_by_chunk(base, ids) {
            let chunk = self.chunk_mut(base, chunk_number);
            for id in ids {
                let bit = id as usize % CHUNK_IDS;
                set += (!chunk[bit / 64] >> (bit % 64) & 1) as usize;
                chunk[bit / 64] |= 1 << (bit % 64);
            }
        }
        set
    }

    /// The 64 bits from `id` on, which is a multiple of 64.
    pub fn word(&self, id: u64) -> u64 {
        debug_assert!(id.is_multiple_of(64));
        let Some(index) = (id >> CHUNK_BITS).checked_sub(self.first_chunk) else { return 0 };
        match self.chunks.get(index as usize) {
            Some(Some(chunk)) => chunk[id as usize % CHUNK_IDS / 64],
            _ => 0,
        }
    }

    /// The 64 bits from any `id` on.
    pub fn word_at(&self, id: u64) -> u64 {
        let (aligned, shift) = (id / 64 * 64, id % 64);
        match shift {
            0 => self.word(aligned),
            _ => self.word(aligned) >> shift | self.word(aligned + 64) << (64 - shift),
        }
    }

    /// Appends whether each id of `start..end` is alive; false when all are, then nothing is
    /// appended.
    pub fn push_alive(&self, start: u64, end: u64, alive: &mut BooleanBufferBuilder) -> bool {
        let words = (start / 64..end.div_ceil(64)).map(|w| self.word(w * 64));
        let first_bit = start % 64;
        let last_bits = end % 64;
        let count = (end.div_ceil(64) - start / 64) as usize;
        let inside = |index: usize, word: u64| {
            let mut word = word;
            if index == 0 {
                word = word >> first_bit << first_bit;
            }
            if index + 1 == count && last_bits != 0 {
                word &= (1 << last_bits) - 1;
            }
            word
        };
        if words.clone().enumerate().all(|(index, word)| inside(index, word) == 0) {
            return false;
        }
        let alive_words: Vec<u64> = words.map(|word| !word).collect();
        let bytes: Vec<u8> = alive_words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let from = first_bit as usize;
        alive.append_packed_range(from..from + (end - start) as usize, &bytes);
        true
    }

    /// Forgets the chunks that lie before `base` as a whole.
    pub fn drop_before(&mut self, base: u64) {
        while self.first_chunk < base >> CHUNK_BITS && self.chunks.pop_front().is_some() {
            self.first_chunk += 1;
        }
    }

    /// Bytes of the chunks; those shared with a snapshot count too.
    pub fn memory_bytes(&self) -> usize {
        self.chunks.iter().flatten().count() * size_of::<Chunk>()
    }
}

/// The ids, chunk by chunk.
fn group_by_chunk(base: u64, ids: &[u64]) -> Vec<(u64, Vec<u64>)> {
    let first = base >> CHUNK_BITS;
    let mut groups: Vec<(u64, Vec<u64>)> = Vec::new();
    // Position of a chunk's group in `groups`, plus one.
    let mut group_of: Vec<u32> = Vec::new();
    for id in ids {
        let chunk = (id >> CHUNK_BITS) - first;
        let index = chunk as usize;
        if index >= group_of.len() {
            group_of.resize(index + 1, 0);
        }
        if group_of[index] == 0 {
            groups.push((first + chunk, Vec::new()));
            group_of[index] = groups.len() as u32;
        }
        groups[group_of[index] as usize - 1].1.push(*id);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_across_chunks_and_after_the_window_moved() {
        let mut values = IdVec::new(0u32);
        let base = (1 << 32) - 70_000;
        values.extend_to(base, base + 3);
        values.extend_to(base, base + 200_000);
        for id in base..base + 200_000 {
            values.set(id as u32, (id - base) as u32);
        }
        values.drop_before(base + 140_000);
        assert_eq!(values.get((base + 140_000) as u32), 140_000);
        assert_eq!(values.get((base + 199_999) as u32), 199_999);
        assert!(values.memory_bytes() < 100_000 * 4 + 65_536 * 4);
        values.drop_before(base + 400_000);
        values.extend_to(base + 400_000, base + 400_001);
        assert_eq!(values.get((base + 400_000) as u32), 0);
    }

    #[test]
    fn a_chunk_border_is_no_gap() {
        let mut values = IdVec::new(7u32);
        values.extend_to(0, 65_536);
        values.extend_to(0, 65_537);
        assert_eq!(values.get(65_535), 7);
        assert_eq!(values.get(65_536), 7);
    }

    #[test]
    fn clones_keep_their_bits() {
        let mut dead = DeadBits::default();
        assert!(dead.set(100, 130));
        assert!(!dead.set(100, 130));
        let snapshot = dead.clone();
        assert_eq!(dead.set_all(100, &[130, 131, 200_000]), 2);
        assert!(snapshot.get(130) && !snapshot.get(131) && !snapshot.get(200_000));
        assert!(dead.get(131) && dead.get(200_000) && !dead.get(132));
        dead.drop_before(200_000);
        assert!(dead.get(200_000));
        assert_eq!(dead.memory_bytes(), 8192);
    }

    #[test]
    fn alive_ranges_cut_words_at_both_ends() {
        let mut dead = DeadBits::default();
        dead.set_all(0, &[3, 70, 140, 199]);
        let alive = |start, end| {
            let mut bits = BooleanBufferBuilder::new(0);
            dead.push_alive(start, end, &mut bits).then(|| {
                let bits = bits.finish();
                (0..bits.len()).filter(|b| !bits.value(*b)).collect::<Vec<_>>()
            })
        };
        assert_eq!(alive(0, 200), Some(vec![3, 70, 140, 199]));
        assert_eq!(alive(70, 140), Some(vec![0]));
        assert_eq!(alive(71, 140), None);
        assert_eq!(alive(71, 141), Some(vec![69]));
    }
}
