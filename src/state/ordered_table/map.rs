//! A sorted map from a row's bytes to its copies, of which parts may be on the disk.
//!
//! 1. What is in memory is a B-tree. What is on the disk are *blocks*: 64 keys that follow each
//!    other, whose bytes lie in a mapped file that many blocks share, beside their copies, which
//!    stay in memory. No key of the tree lies within a block, so walking is taking turns between
//!    the tree and whole blocks.
//! 2. Reading goes through blocks where they are. A change to a key within a block brings the block
//!    back into the tree first.
//! 3. Blocks are made of keys none of which has been added to since the last pass, as far as the
//!    pass spares those. A file goes with its last block.
//!
//! As long as nothing is on the disk, all of it costs a look at an empty map a call.

use std::collections::{BTreeMap, btree_map};
use std::iter::{Peekable, Rev};
use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, LargeBinaryArray, LargeBinaryBuilder};

use super::{Copies, ENTRY_BYTES, RowKey};
use crate::memory::spill::{Pass, StateMemory};

/// Keys of a block: what comes back into memory when one of them changes.
const BLOCK_ROWS: usize = 64;
/// Shorter runs of keys stay in memory unless everything goes.
const BLOCK_ROWS_MIN: usize = 16;
/// Bytes of keys after which a file is written.
const FILE_BYTES: usize = 8 << 20;

/// Keys that follow each other, on the disk.
#[derive(Debug)]
struct Block {
    /// Of all blocks of the file.
    keys: Arc<LargeBinaryArray>,
    /// Where this block's begin.
    start: usize,
    copies: Box<[Copies]>,
}

impl Block {
    fn len(&self) -> usize {
        self.copies.len()
    }

    fn key(&self, index: usize) -> &[u8] {
        self.keys.value(self.start + index)
    }

    fn last(&self) -> &[u8] {
        self.key(self.len() - 1)
    }

    /// How many keys are less than `key`.
    fn below(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.key(middle) < key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// How many keys are not greater than `key`.
    fn up_to(&self, key: &[u8]) -> usize {
        let below = self.below(key);
        below + usize::from(below < self.len() && self.key(below) == key)
    }

    fn key_bytes(&self) -> usize {
        let offsets = self.keys.value_offsets();
        (offsets[self.start + self.len()] - offsets[self.start]) as usize
    }
}

type Entry<'a> = (&'a [u8], &'a Copies);

/// The map.
#[derive(Debug, Default)]
pub(super) struct OrderedMap {
    tree: BTreeMap<RowKey, Copies>,
    /// Bytes of the tree's keys.
    tree_key_bytes: usize,
    /// By their first keys.
    blocks: BTreeMap<RowKey, Block>,
    block_rows: usize,
    block_key_bytes: usize,
}

impl OrderedMap {
    pub fn len(&self) -> usize {
        self.tree.len() + self.block_rows
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, key: &[u8]) -> Option<&Copies> {
        let found = self.tree.get(key);
        if found.is_some() || self.blocks.is_empty() {
            return found;
        }
        let (_, block) = self.block_around(key)?;
        let place = block.below(key);
        (block.key(place) == key).then(|| &block.copies[place])
    }

    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut Copies> {
        self.bring_back(key);
        self.tree.get_mut(key)
    }

    /// Adds a key that is not there.
    pub fn insert(&mut self, key: &[u8], copies: Copies) {
        self.bring_back(key);
        self.tree_key_bytes += key.len();
        let before = self.tree.insert(key.into(), copies);
        debug_assert!(before.is_none(), "the key is new");
    }

    pub fn remove(&mut self, key: &[u8]) -> Option<Copies> {
        self.bring_back(key);
        let copies = self.tree.remove(key)?;
        self.tree_key_bytes -= key.len();
        Some(copies)
    }

    /// The block between whose first and last key this one lies, with its first key.
    fn block_around(&self, key: &[u8]) -> Option<(&RowKey, &Block)> {
        let upto = (Bound::Unbounded, Bound::Included(key));
        let (first, block) = self.blocks.range::<[u8], _>(upto).next_back()?;
        (block.last() >= key).then_some((first, block))
    }

    /// Takes the block around a key back into the tree.
    fn bring_back(&mut self, key: &[u8]) {
        if self.blocks.is_empty() {
            return;
        }
        let Some((first, _)) = self.block_around(key) else { return };
        let first = first.clone();
        let block = self.blocks.remove(&first).expect("it has just been found");
        self.block_rows -= block.len();
        let key_bytes = block.key_bytes();
        self.block_key_bytes -= key_bytes;
        self.tree_key_bytes += key_bytes;
        let entries = (0..block.len()).map(|index| (block.key(index).into(), block.copies[index]));
        self.tree.extend(entries);
    }

    /// All entries, in order.
    pub fn iter(&self) -> Forward<'_> {
        self.from(Bound::Unbounded)
    }

    /// The entries from a place on, in order.
    pub fn from(&self, from: Bound<&[u8]>) -> Forward<'_> {
        let tree = self.tree.range::<[u8], _>((from, Bound::Unbounded));
        if self.blocks.is_empty() {
            return Forward::Tree(tree);
        }
        let (around, below): (_, fn(&Block, &[u8]) -> usize) = match from {
            Bound::Unbounded => (None, Block::below),
            Bound::Included(key) => (Some((key, Bound::Excluded(key))), Block::below),
            Bound::Excluded(key) => (Some((key, Bound::Included(key))), Block::up_to),
        };
        // The block that begins before the place and may go on behind it.
        let open = around.and_then(|(key, to)| {
            let (_, block) = self.blocks.range::<[u8], _>((Bound::Unbounded, to)).next_back()?;
            let next = below(block, key);
            (next < block.len()).then_some((block, next))
        });
        let blocks = self.blocks.range::<[u8], _>((from, Bound::Unbounded)).peekable();
        Forward::Mixed(Box::new(MixedForward { tree: tree.peekable(), blocks, open }))
    }

    /// The entries before a place, last first.
    pub fn before(&self, to: Bound<&[u8]>) -> Backward<'_> {
        let tree = self.tree.range::<[u8], _>((Bound::Unbounded, to)).rev();
        if self.blocks.is_empty() {
            return Backward::Tree(tree);
        }
        let mut blocks = self.blocks.range::<[u8], _>((Bound::Unbounded, to)).rev().peekable();
        let open = blocks.peek().and_then(|(_, block)| {
            let left = match to {
                Bound::Unbounded => block.len(),
                Bound::Included(key) => block.up_to(key),
                Bound::Excluded(key) => block.below(key),
            };
            (left < block.len()).then_some((*block, left))
        });
        if open.is_some() {
            blocks.next();
        }
        Backward::Mixed(Box::new(MixedBackward { tree: tree.peekable(), blocks, open }))
    }

    /// All entries, to be changed but for their keys; in no order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&[u8], &mut Copies)> {
        let tree = self.tree.iter_mut().map(|(key, copies)| (&**key, copies));
        let blocks = self.blocks.values_mut().flat_map(|block| {
            let (keys, start) = (&block.keys, block.start);
            let copies = block.copies.iter_mut().enumerate();
            copies.map(move |(index, copies)| (keys.value(start + index), copies))
        });
        tree.chain(blocks)
    }

    pub fn memory_bytes(&self) -> usize {
        let entries = self.tree.len() * ENTRY_BYTES + self.block_rows * size_of::<Copies>();
        // A block's first key is in memory, too; it is as long as the others, about.
        let first_keys = self.block_key_bytes / BLOCK_ROWS;
        let blocks = self.blocks.len() * (ENTRY_BYTES + size_of::<Block>());
        self.tree_key_bytes + entries + first_keys + blocks
    }

    /// Bytes of keys on the disk.
    pub fn disk_bytes(&self) -> usize {
        self.block_key_bytes
    }

    /// Lets keys go to the disk as long as that is wanted.
    pub fn spill(&mut self, memory: &StateMemory, pass: Pass) {
        let tree_bytes = self.tree_key_bytes + self.tree.len() * ENTRY_BYTES;
        if tree_bytes < pass.bytes_min.max(1) {
            return;
        }
        let rows_min = if pass.bytes_min == 0 { 1 } else { BLOCK_ROWS_MIN };
        let mut from: Option<RowKey> = None;
        while memory.is_wanted() {
            let (runs, next) = self.cold_runs(from.as_deref(), pass, rows_min);
            if !runs.is_empty() && !self.write(memory, runs) {
                return;
            }
            match next {
                Some(next) => from = Some(next),
                None => return,
            }
        }
    }

    /// Runs of keys for a file, from a key on, and the key to go on from. Forgets what was touched
    /// where the pass asks for that.
    fn cold_runs(
        &mut self,
        from: Option<&[u8]>,
        pass: Pass,
        rows_min: usize,
    ) -> (Vec<Vec<RowKey>>, Option<RowKey>) {
        let from = from.map_or(Bound::Unbounded, Bound::Included);
        let mut blocks = self.blocks.range::<[u8], _>((from, Bound::Unbounded)).peekable();
        let tree = self.tree.range_mut::<[u8], _>((from, Bound::Unbounded));
        let (mut runs, mut run, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut end = |run: &mut Vec<RowKey>| {
            let run = std::mem::take(run);
            if run.len() >= rows_min {
                runs.push(run);
            }
        };
        let mut next = None;
        for (key, copies) in tree {
            // A block lies between the key before and this one.
            let passed = blocks.next_if(|(first, _)| **first < *key).is_some();
            while blocks.next_if(|(first, _)| **first < *key).is_some() {}
            if passed || run.len() == BLOCK_ROWS {
                end(&mut run);
                if bytes >= FILE_BYTES {
                    next = Some(key.clone());
                    break;
                }
            }
            if pass.spares_touched && std::mem::take(&mut copies.touched) {
                end(&mut run);
                continue;
            }
            bytes += key.len();
            run.push(key.clone());
        }
        end(&mut run);
        (runs, next)
    }

    /// Writes runs of keys to a file, a block each; false when the disk does not take it.
    fn write(&mut self, memory: &StateMemory, runs: Vec<Vec<RowKey>>) -> bool {
        let rows = runs.iter().map(Vec::len).sum();
        let bytes = runs.iter().flatten().map(|key| key.len()).sum();
        let mut keys = LargeBinaryBuilder::with_capacity(rows, bytes);
        runs.iter().flatten().for_each(|key| keys.append_value(key));
        let keys = keys.finish();
        let freed_bytes = keys.value_data().len() + rows * ENTRY_BYTES;
        let keys: ArrayRef = Arc::new(keys);
        let Some((keys, _)) = memory.write(&[keys], freed_bytes) else { return false };
        let keys = Arc::new(keys[0].as_binary::<i64>().clone());
        let mut start = 0;
        for run in runs {
            let copies: Box<[Copies]> = run
                .iter()
                .map(|key| self.tree.remove(key).expect("it was taken out of the tree's keys"))
                .collect();
            let block = Block { keys: keys.clone(), start, copies };
            start += block.len();
            self.block_rows += block.len();
            self.block_key_bytes += block.key_bytes();
            self.tree_key_bytes -= block.key_bytes();
            let first = run.into_iter().next().expect("a run has keys");
            self.blocks.insert(first, block);
        }
        true
    }
}

/// Entries in order.
pub(super) enum Forward<'a> {
    /// Nothing is on the disk.
    Tree(btree_map::Range<'a, RowKey, Copies>),
    Mixed(Box<MixedForward<'a>>),
}

pub(super) struct MixedForward<'a> {
    tree: Peekable<btree_map::Range<'a, RowKey, Copies>>,
    blocks: Peekable<btree_map::Range<'a, RowKey, Block>>,
    /// The block that is walked, and the next of its entries.
    open: Option<(&'a Block, usize)>,
}

impl<'a> Iterator for Forward<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        match self {
            Forward::Tree(tree) => tree.next().map(|(key, copies)| (&**key, copies)),
            Forward::Mixed(mixed) => mixed.next(),
        }
    }
}

impl<'a> MixedForward<'a> {
    fn next(&mut self) -> Option<Entry<'a>> {
        if self.open.is_none() {
            let first = self.blocks.peek().map(|(first, _)| *first);
            let tree_first = match (self.tree.peek(), first) {
                (Some((key, _)), Some(first)) => *key < first,
                (_, first) => first.is_none(),
            };
            if tree_first {
                return self.tree.next().map(|(key, copies)| (&**key, copies));
            }
            self.open = self.blocks.next().map(|(_, block)| (block, 0));
        }
        let (block, next) = self.open.take()?;
        if next + 1 < block.len() {
            self.open = Some((block, next + 1));
        }
        Some((block.key(next), &block.copies[next]))
    }
}

/// Entries, last first.
pub(super) enum Backward<'a> {
    /// Nothing is on the disk.
    Tree(Rev<btree_map::Range<'a, RowKey, Copies>>),
    Mixed(Box<MixedBackward<'a>>),
}

pub(super) struct MixedBackward<'a> {
    tree: Peekable<Rev<btree_map::Range<'a, RowKey, Copies>>>,
    blocks: Peekable<Rev<btree_map::Range<'a, RowKey, Block>>>,
    /// The block that is walked, and how many of its entries are left.
    open: Option<(&'a Block, usize)>,
}

impl<'a> Iterator for Backward<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        match self {
            Backward::Tree(tree) => tree.next().map(|(key, copies)| (&**key, copies)),
            Backward::Mixed(mixed) => mixed.next(),
        }
    }
}

impl<'a> MixedBackward<'a> {
    fn next(&mut self) -> Option<Entry<'a>> {
        loop {
            if let Some((block, left)) = self.open.take()
                && let Some(place) = left.checked_sub(1)
            {
                self.open = Some((block, place));
                return Some((block.key(place), &block.copies[place]));
            }
            let first = self.blocks.peek().map(|(first, _)| *first);
            let tree_first = match (self.tree.peek(), first) {
                (Some((key, _)), Some(first)) => *key > first,
                (_, first) => first.is_none(),
            };
            if tree_first {
                return self.tree.next().map(|(key, copies)| (&**key, copies));
            }
            self.open = self.blocks.next().map(|(_, block)| (block, block.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::memory::spill::{EVERYTHING, PASSES};

    fn copies(weight: i64) -> Copies {
        Copies { weight, peer_length: 0, written_as: 0, touched: true }
    }

    fn key(random: &mut SmallRng) -> Vec<u8> {
        format!("{:04}", random.random_range(0..3000)).into_bytes()
    }

    #[test]
    fn random_changes_against_a_tree() {
        let seed = std::env::var("MILLSTREAM_SEED").ok().and_then(|s| s.parse().ok());
        let seed: u64 = seed.unwrap_or_else(|| rand::rng().random());
        println!("MILLSTREAM_SEED={seed}");
        let mut random = SmallRng::seed_from_u64(seed);
        let memory = StateMemory::always_full(std::env::temp_dir());
        let (mut map, mut model) = (OrderedMap::default(), BTreeMap::<Vec<u8>, i64>::new());
        for step in 0..400 {
            let add = step % 100 < 60;
            for _ in 0..random.random_range(0..60) {
                let key = key(&mut random);
                if !add {
                    let gone = map.remove(&key).map(|copies| copies.weight);
                    assert_eq!(gone, model.remove(&key));
                } else if let Some(copies) = map.get_mut(&key) {
                    copies.weight += 1;
                    copies.touched = true;
                    *model.get_mut(&key).expect("both have it") += 1;
                } else {
                    map.insert(&key, copies(1));
                    assert!(model.insert(key, 1).is_none());
                }
            }
            match random.random_range(0..4) {
                0 => map.spill(&memory, EVERYTHING),
                1 => map.spill(&memory, Pass { spares_touched: true, ..EVERYTHING }),
                _ => {}
            }
            assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
            let pair = |(key, copies): Entry<'_>| (key.to_vec(), copies.weight);
            let all: Vec<_> = map.iter().map(pair).collect();
            let expected: Vec<_> = model.clone().into_iter().collect();
            assert_eq!(all, expected, "step {step}");
            for (key, copies) in map.iter_mut() {
                assert_eq!(copies.weight, model[key]);
            }
            for _ in 0..20 {
                let key = key(&mut random);
                assert_eq!(map.get(&key).map(|c| c.weight), model.get(&key).copied());
                for bound in [Bound::Included(&*key), Bound::Excluded(&*key), Bound::Unbounded] {
                    let from: Vec<_> = map.from(bound).take(150).map(pair).collect();
                    let range = model.range::<[u8], _>((bound, Bound::Unbounded));
                    let expected: Vec<_> = range.map(|(k, w)| (k.clone(), *w)).take(150).collect();
                    assert_eq!(from, expected, "step {step} from {bound:?}");
                    let back: Vec<_> = map.before(bound).take(150).map(pair).collect();
                    let range = model.range::<[u8], _>((Bound::Unbounded, bound)).rev();
                    let expected: Vec<_> = range.map(|(k, w)| (k.clone(), *w)).take(150).collect();
                    assert_eq!(back, expected, "step {step} before {bound:?}");
                }
            }
        }
        drop(map);
        assert_eq!(memory.disk().now_bytes(), 0);
    }

    #[test]
    fn what_is_added_to_stays_and_memory_is_freed() {
        let memory = StateMemory::always_full(std::env::temp_dir());
        let mut map = OrderedMap::default();
        let name =
            |n: usize| format!("{n:07} and a text that makes the row longer than its copies");
        for n in 0..200_000 {
            map.insert(name(n).as_bytes(), copies(1));
        }
        let before = map.memory_bytes();
        map.spill(&memory, PASSES[0]);
        assert_eq!(map.disk_bytes(), 0, "all of it has just come");
        for n in 0..1000 {
            map.get_mut(name(n).as_bytes()).expect("there").touched = true;
        }
        map.spill(&memory, PASSES[0]);
        assert_eq!((map.tree.len(), map.len()), (1000, 200_000));
        assert!(map.memory_bytes() < before / 3, "{} of {before}", map.memory_bytes());
        assert!(map.disk_bytes() as u64 <= memory.disk().now_bytes());
        // One that changes brings its neighbours with it.
        map.remove(name(100_000).as_bytes()).expect("there");
        assert_eq!((map.tree.len(), map.len()), (1063, 199_999));
    }
}
