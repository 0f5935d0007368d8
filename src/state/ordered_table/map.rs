//! A sorted map from a row's bytes to its copies, of which parts may be on the disk.
//!
//! 1. Keys that follow each other stand in a *leaf*, their bytes one behind the other: who walks
//!    along rows reads memory in order, where a node of the standard library's tree would send them
//!    to another place for each key. The leaves hang in a tree by *separators*, which are as short as
//!    tells neighbours apart; the first is empty, so that every key has its leaf.
//! 2. A full leaf is split in the middle. If the new key is behind all others it begins a leaf of
//!    its own instead: keys that come in order fill their leaves. A leaf that has become small is
//!    joined with the next one.
//! 3. The bytes of a leaf may lie in a mapped file that many leaves share; its copies stay in
//!    memory. Reading goes through such leaves where they are. A key that comes or goes brings the
//!    bytes of its leaf back first. A file goes with its last leaf.
//! 4. Leaves that have changed since the last pass stay, as far as the pass spares them.

use std::collections::{BTreeMap, btree_map};
use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, LargeBinaryArray, LargeBinaryBuilder};

use super::{Copies, RowKey};
use crate::memory::spill::{Pass, StateMemory};

/// Keys of a leaf, at most. With fewer, walking along keys gets slower; with more, a key that comes or
/// goes has more others to move.
const LEAF_ROWS_MAX: usize = 64;
/// Bytes of a leaf's keys above which it is split.
const LEAF_BYTES_MAX: usize = 32 << 10;
/// Leaves of fewer keys stay in memory unless everything goes.
const SPILLED_ROWS_MIN: usize = 16;
/// Bytes of keys after which a file is written.
const FILE_BYTES: usize = 8 << 20;
/// What a leaf costs beside its keys and copies: itself, and its share of the tree's nodes.
const LEAF_ENTRY_BYTES: usize = size_of::<Leaf>() + 48;

/// Keys that follow each other.
#[derive(Debug)]
struct Leaf {
    keys: Keys,
    copies: Vec<Copies>,
    /// It has changed since rows last went to the disk.
    touched: bool,
}

#[derive(Debug)]
enum Keys {
    Memory {
        bytes: Vec<u8>,
        /// Where each key ends.
        ends: Vec<usize>,
    },
    Disk {
        /// Of all leaves of the file.
        keys: Arc<LargeBinaryArray>,
        /// Where this leaf's begin.
        start: usize,
    },
}

impl Leaf {
    fn new() -> Leaf {
        let keys = Keys::Memory { bytes: Vec::new(), ends: Vec::new() };
        Leaf { keys, copies: Vec::new(), touched: true }
    }

    fn len(&self) -> usize {
        self.copies.len()
    }

    fn key(&self, index: usize) -> &[u8] {
        match &self.keys {
            Keys::Memory { bytes, ends } => {
                let start = if index == 0 { 0 } else { ends[index - 1] };
                &bytes[start..ends[index]]
            }
            Keys::Disk { keys, start } => keys.value(start + index),
        }
    }

    /// How many keys are `before`, which is true of the first ones.
    fn count(&self, before: impl Fn(&[u8]) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if before(self.key(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// How many keys are less than `key`.
    fn below(&self, key: &[u8]) -> usize {
        self.count(|other| other < key)
    }

    /// How many keys are not greater than `key`.
    fn up_to(&self, key: &[u8]) -> usize {
        self.count(|other| other <= key)
    }

    fn key_bytes(&self) -> usize {
        match &self.keys {
            Keys::Memory { bytes, .. } => bytes.len(),
            Keys::Disk { keys, start } => {
                let offsets = keys.value_offsets();
                (offsets[start + self.len()] - offsets[*start]) as usize
            }
        }
    }

    fn is_on_disk(&self) -> bool {
        matches!(self.keys, Keys::Disk { .. })
    }

    /// Its keys in memory, to be changed.
    fn in_memory(&mut self) -> (&mut Vec<u8>, &mut Vec<usize>) {
        if self.is_on_disk() {
            let mut bytes = Vec::with_capacity(self.key_bytes());
            let mut ends = Vec::with_capacity(self.len());
            for index in 0..self.len() {
                bytes.extend_from_slice(self.key(index));
                ends.push(bytes.len());
            }
            self.keys = Keys::Memory { bytes, ends };
        }
        match &mut self.keys {
            Keys::Memory { bytes, ends } => (bytes, ends),
            Keys::Disk { .. } => unreachable!("the keys have just been read"),
        }
    }

    fn insert(&mut self, index: usize, key: &[u8], copies: Copies) {
        let (bytes, ends) = self.in_memory();
        let start = if index == 0 { 0 } else { ends[index - 1] };
        let length = bytes.len();
        bytes.resize(length + key.len(), 0);
        bytes.copy_within(start..length, start + key.len());
        bytes[start..start + key.len()].copy_from_slice(key);
        ends.insert(index, start);
        ends[index..].iter_mut().for_each(|end| *end += key.len());
        self.copies.insert(index, copies);
    }

    fn remove(&mut self, index: usize) {
        let (bytes, ends) = self.in_memory();
        let start = if index == 0 { 0 } else { ends[index - 1] };
        let end = ends.remove(index);
        bytes.drain(start..end);
        ends[index..].iter_mut().for_each(|other| *other -= end - start);
        give_room_back(bytes);
        give_room_back(ends);
        self.copies.remove(index);
        give_room_back(&mut self.copies);
    }

    /// The keys from `index` on leave for a leaf of their own.
    fn split_off(&mut self, index: usize) -> Leaf {
        let (bytes, ends) = self.in_memory();
        let start = if index == 0 { 0 } else { ends[index - 1] };
        let mut own_ends = ends.split_off(index);
        own_ends.iter_mut().for_each(|end| *end -= start);
        let keys = Keys::Memory { bytes: bytes.split_off(start), ends: own_ends };
        Leaf { keys, copies: self.copies.split_off(index), touched: true }
    }

    /// Takes in the keys of the leaf behind it.
    fn append(&mut self, next: &mut Leaf) {
        let (bytes, ends) = self.in_memory();
        let (next_bytes, next_ends) = next.in_memory();
        let start = bytes.len();
        bytes.append(next_bytes);
        ends.extend(next_ends.drain(..).map(|end| start + end));
        self.copies.append(&mut next.copies);
    }

    fn memory_bytes(&self) -> usize {
        let keys = match &self.keys {
            Keys::Memory { bytes, ends } => bytes.capacity() + ends.capacity() * size_of::<usize>(),
            Keys::Disk { .. } => 0,
        };
        keys + self.copies.capacity() * size_of::<Copies>()
    }

    fn disk_bytes(&self) -> usize {
        if self.is_on_disk() { self.key_bytes() } else { 0 }
    }
}

/// A leaf whose keys go one by one would keep the room of all of them to its end.
fn give_room_back<T>(values: &mut Vec<T>) {
    if values.capacity() > values.len() * 4 {
        values.shrink_to(values.len() * 2);
    }
}

type Entry<'a> = (&'a [u8], &'a Copies);

/// The map.
#[derive(Debug, Default)]
pub(super) struct OrderedMap {
    /// By separator: not greater than any key of the leaf, and greater than all before it. Only the
    /// first leaf may be empty.
    leaves: BTreeMap<RowKey, Leaf>,
    rows: usize,
    /// Of all leaves, as they count it.
    leaf_memory_bytes: usize,
    leaf_disk_bytes: usize,
}

impl OrderedMap {
    pub fn len(&self) -> usize {
        self.rows
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The leaf that has a key, or would.
    fn leaf(&self, key: &[u8]) -> Option<(&RowKey, &Leaf)> {
        self.leaves.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back()
    }

    pub fn get(&self, key: &[u8]) -> Option<&Copies> {
        let (_, leaf) = self.leaf(key)?;
        let place = leaf.below(key);
        (place < leaf.len() && leaf.key(place) == key).then(|| &leaf.copies[place])
    }

    /// Lets `change` say of the copies of a key what they become; `None`: there are none.
    pub fn change(&mut self, key: &[u8], change: impl FnOnce(Option<Copies>) -> Option<Copies>) {
        if self.leaves.is_empty() {
            self.leaves.insert(RowKey::default(), Leaf::new());
        }
        let upto = (Bound::Unbounded, Bound::Included(key));
        let (separator, leaf) = self
            .leaves
            .range_mut::<[u8], _>(upto)
            .next_back()
            .expect("the first separator is not greater than any key");
        let place = leaf.below(key);
        let there = place < leaf.len() && leaf.key(place) == key;
        let before = there.then(|| leaf.copies[place]);
        let after = change(before);
        leaf.touched = true;
        let (memory_bytes, disk_bytes) = (leaf.memory_bytes(), leaf.disk_bytes());
        let mut split = None;
        let mut is_small = false;
        match (before, after) {
            (None, None) => {}
            (Some(_), Some(after)) => leaf.copies[place] = after,
            (Some(_), None) => {
                leaf.remove(place);
                self.rows -= 1;
                is_small = leaf.len() < LEAF_ROWS_MAX / 8;
            }
            (None, Some(copies)) => {
                let is_full = leaf.len() >= LEAF_ROWS_MAX
                    || leaf.len() > 1 && leaf.key_bytes() + key.len() > LEAF_BYTES_MAX;
                match is_full {
                    true => split = Some(insert_split(leaf, place, key, copies)),
                    false => leaf.insert(place, key, copies),
                }
                self.rows += 1;
            }
        }
        self.leaf_memory_bytes += leaf.memory_bytes();
        self.leaf_memory_bytes -= memory_bytes;
        self.leaf_disk_bytes += leaf.disk_bytes();
        self.leaf_disk_bytes -= disk_bytes;
        if is_small {
            let separator = separator.clone();
            self.join(&separator);
        }
        if let Some((separator, leaf)) = split {
            self.leaf_memory_bytes += leaf.memory_bytes();
            self.leaves.insert(separator, leaf);
        }
    }

    /// Removes a key; gives what it meant.
    pub fn remove(&mut self, key: &[u8]) -> Option<Copies> {
        let mut removed = None;
        self.change(key, |copies| {
            removed = copies;
            None
        });
        removed
    }

    /// Joins a small leaf with the one before or behind it; lets go of an empty one.
    fn join(&mut self, separator: &RowKey) {
        if self.rows == 0 {
            *self = OrderedMap::default();
            return;
        }
        let own = self.leaves.get(separator).map_or(0, Leaf::len);
        let joins = |(separator, leaf): (&RowKey, &Leaf)| {
            let joins = !leaf.is_on_disk() && own + leaf.len() <= LEAF_ROWS_MAX / 2;
            joins.then(|| separator.clone())
        };
        let before = (Bound::Unbounded, Bound::Excluded(&**separator));
        let before = self.leaves.range::<[u8], _>(before).next_back().and_then(joins);
        let behind = (Bound::Excluded(&**separator), Bound::Unbounded);
        let behind = self.leaves.range::<[u8], _>(behind).next().and_then(joins);
        match (before, behind) {
            (Some(before), _) => self.append(&before, separator),
            (None, Some(behind)) => self.append(separator, &behind),
            (None, None) if own == 0 && !separator.is_empty() => {
                let leaf = self.leaves.remove(separator);
                self.leaf_memory_bytes -= leaf.map_or(0, |leaf| leaf.memory_bytes());
            }
            (None, None) => {}
        }
    }

    /// Makes two leaves that follow each other one.
    fn append(&mut self, first: &RowKey, next: &RowKey) {
        let mut next = self.leaves.remove(next).expect("it has just been seen");
        let first = self.leaves.get_mut(first).expect("it has just been seen");
        self.leaf_memory_bytes -= first.memory_bytes() + next.memory_bytes();
        first.append(&mut next);
        self.leaf_memory_bytes += first.memory_bytes();
    }

    /// All entries, in order.
    pub fn iter(&self) -> Forward<'_> {
        self.from(Bound::Unbounded)
    }

    /// The entries from a place on, in order.
    pub fn from(&self, from: Bound<&[u8]>) -> Forward<'_> {
        let leaf = match from {
            Bound::Unbounded => None,
            Bound::Included(key) | Bound::Excluded(key) => self.leaf(key),
        };
        let Some((separator, leaf)) = leaf else {
            let leaves = self.leaves.range::<[u8], _>(..);
            return Forward { leaves, leaf: None, next: 0 };
        };
        let next = match from {
            Bound::Excluded(key) => leaf.up_to(key),
            Bound::Included(key) => leaf.below(key),
            Bound::Unbounded => 0,
        };
        let behind = (Bound::Excluded(&**separator), Bound::Unbounded);
        Forward { leaves: self.leaves.range::<[u8], _>(behind), leaf: Some(leaf), next }
    }

    /// The entries before a place, last first.
    pub fn before(&self, to: Bound<&[u8]>) -> Backward<'_> {
        let leaf = match to {
            Bound::Unbounded => None,
            Bound::Included(key) | Bound::Excluded(key) => self.leaf(key),
        };
        let Some((separator, leaf)) = leaf else {
            let leaves = self.leaves.range::<[u8], _>(..);
            return Backward { leaves, leaf: None, left: 0 };
        };
        let left = match to {
            Bound::Included(key) => leaf.up_to(key),
            Bound::Excluded(key) => leaf.below(key),
            Bound::Unbounded => leaf.len(),
        };
        let before = (Bound::Unbounded, Bound::Excluded(&**separator));
        Backward { leaves: self.leaves.range::<[u8], _>(before), leaf: Some(leaf), left }
    }

    /// All entries, to be changed but for their keys.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&[u8], &mut Copies)> {
        self.leaves.values_mut().flat_map(|leaf| {
            let keys = &leaf.keys;
            let copies = leaf.copies.iter_mut().enumerate();
            copies.map(move |(index, copies)| {
                let key = match keys {
                    Keys::Memory { bytes, ends } => {
                        let start = if index == 0 { 0 } else { ends[index - 1] };
                        &bytes[start..ends[index]]
                    }
                    Keys::Disk { keys, start } => keys.value(start + index),
                };
                (key, copies)
            })
        })
    }

    pub fn memory_bytes(&self) -> usize {
        self.leaf_memory_bytes + self.leaves.len() * LEAF_ENTRY_BYTES
    }

    /// Bytes of keys on the disk.
    pub fn disk_bytes(&self) -> usize {
        self.leaf_disk_bytes
    }

    /// Lets keys go to the disk as long as that is wanted.
    pub fn spill(&mut self, memory: &StateMemory, pass: Pass) {
        if self.memory_bytes() < pass.bytes_min.max(1) {
            return;
        }
        let rows_min = if pass.bytes_min == 0 { 1 } else { SPILLED_ROWS_MIN };
        let mut from = RowKey::default();
        while memory.is_wanted() {
            let (cold, next) = self.cold_leaves(&from, pass, rows_min);
            if !cold.is_empty() && !self.write(memory, &cold) {
                return;
            }
            match next {
                Some(next) => from = next,
                None => return,
            }
        }
    }

    /// The separators of leaves for a file, from one on, and the one to go on from. Forgets what was
    /// touched where the pass asks for that.
    fn cold_leaves(
        &mut self,
        from: &[u8],
        pass: Pass,
        rows_min: usize,
    ) -> (Vec<RowKey>, Option<RowKey>) {
        let (mut cold, mut bytes) = (Vec::new(), 0);
        let from = (Bound::Included(from), Bound::Unbounded);
        for (separator, leaf) in self.leaves.range_mut::<[u8], _>(from) {
            if bytes >= FILE_BYTES {
                return (cold, Some(separator.clone()));
            }
            let stays = leaf.is_on_disk()
                || leaf.len() < rows_min
                || pass.spares_touched && std::mem::take(&mut leaf.touched);
            if !stays {
                bytes += leaf.key_bytes();
                cold.push(separator.clone());
            }
        }
        (cold, None)
    }

    /// Writes the keys of these leaves to a file; false when the disk does not take it.
    fn write(&mut self, memory: &StateMemory, cold: &[RowKey]) -> bool {
        let leaves = || cold.iter().map(|separator| &self.leaves[separator]);
        let rows = leaves().map(Leaf::len).sum();
        let bytes = leaves().map(Leaf::key_bytes).sum();
        let freed_bytes = bytes + rows * size_of::<usize>();
        let mut keys = LargeBinaryBuilder::with_capacity(rows, bytes);
        leaves().for_each(|leaf| (0..leaf.len()).for_each(|row| keys.append_value(leaf.key(row))));
        let keys: ArrayRef = Arc::new(keys.finish());
        let Some((keys, _)) = memory.write(&[keys], freed_bytes) else { return false };
        let keys = Arc::new(keys[0].as_binary::<i64>().clone());
        let mut start = 0;
        for separator in cold {
            let leaf = self.leaves.get_mut(separator).expect("it was found in the tree");
            self.leaf_memory_bytes -= leaf.memory_bytes();
            leaf.keys = Keys::Disk { keys: keys.clone(), start };
            leaf.copies.shrink_to_fit();
            self.leaf_memory_bytes += leaf.memory_bytes();
            self.leaf_disk_bytes += leaf.disk_bytes();
            start += leaf.len();
        }
        true
    }
}

/// Splits a full leaf and inserts a key; the new leaf with its separator.
fn insert_split(leaf: &mut Leaf, place: usize, key: &[u8], copies: Copies) -> (RowKey, Leaf) {
    let behind_all = place == leaf.len();
    let middle = if behind_all { place } else { leaf.len() / 2 };
    let mut next = leaf.split_off(middle);
    if place > middle || behind_all {
        next.insert(place - middle, key, copies);
    } else {
        leaf.insert(place, key, copies);
    }
    let separator = between(leaf.key(leaf.len() - 1), next.key(0)).into();
    (separator, next)
}

/// The shortest beginning of `right` that is greater than `left`, which is less than `right`.
fn between<'a>(left: &[u8], right: &'a [u8]) -> &'a [u8] {
    let same = left.iter().zip(right).take_while(|(l, r)| l == r).count();
    &right[..same + 1]
}

/// Entries in order.
pub(super) struct Forward<'a> {
    /// Those that have not been begun.
    leaves: btree_map::Range<'a, RowKey, Leaf>,
    /// The leaf that is walked, and the next of its entries.
    leaf: Option<&'a Leaf>,
    next: usize,
}

impl<'a> Iterator for Forward<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        loop {
            if let Some(leaf) = self.leaf
                && self.next < leaf.len()
            {
                let place = self.next;
                self.next += 1;
                return Some((leaf.key(place), &leaf.copies[place]));
            }
            let (_, leaf) = self.leaves.next()?;
            (self.leaf, self.next) = (Some(leaf), 0);
        }
    }
}

/// Entries, last first.
pub(super) struct Backward<'a> {
    /// Those that have not been begun.
    leaves: btree_map::Range<'a, RowKey, Leaf>,
    /// The leaf that is walked, and how many of its entries are left.
    leaf: Option<&'a Leaf>,
    left: usize,
}

impl<'a> Iterator for Backward<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        loop {
            if let Some(leaf) = self.leaf
                && let Some(place) = self.left.checked_sub(1)
            {
                self.left = place;
                return Some((leaf.key(place), &leaf.copies[place]));
            }
            let (_, leaf) = self.leaves.next_back()?;
            (self.leaf, self.left) = (Some(leaf), leaf.len());
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
        Copies { weight, peer_length: 0, written_as: 0 }
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
                } else {
                    map.change(&key, |there| Some(copies(there.map_or(0, |c| c.weight) + 1)));
                    *model.entry(key).or_default() += 1;
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
            map.change(name(n).as_bytes(), |_| Some(copies(1)));
        }
        let before = map.memory_bytes();
        map.spill(&memory, PASSES[0]);
        assert_eq!(map.disk_bytes(), 0, "all of it has just come");
        for n in 0..1000 {
            map.change(name(n).as_bytes(), |copies| copies);
        }
        map.spill(&memory, PASSES[0]);
        let in_memory = |map: &OrderedMap| -> usize {
            map.leaves.values().filter(|leaf| !leaf.is_on_disk()).map(Leaf::len).sum()
        };
        // Keys that came in order fill their leaves.
        let touched = 1000_usize.next_multiple_of(LEAF_ROWS_MAX);
        assert_eq!((in_memory(&map), map.len()), (touched, 200_000));
        assert!(map.memory_bytes() < before / 3, "{} of {before}", map.memory_bytes());
        assert!(map.disk_bytes() as u64 <= memory.disk().now_bytes());
        // One that goes brings its neighbours with it.
        map.remove(name(100_000).as_bytes()).expect("there");
        assert_eq!((in_memory(&map), map.len()), (touched + LEAF_ROWS_MAX - 1, 199_999));
    }

    #[test]
    fn leaves_are_split_and_joined() {
        let mut map = OrderedMap::default();
        let name = |n: u32| n.to_be_bytes();
        for n in (0..100_000).rev() {
            map.change(&name(n), |_| Some(copies(1)));
        }
        assert!(map.leaves.values().all(|leaf| (1..=LEAF_ROWS_MAX).contains(&leaf.len())));
        let leaves = map.leaves.len();
        assert!((100_000 / LEAF_ROWS_MAX..=2 * 100_000 / LEAF_ROWS_MAX + 1).contains(&leaves));
        let bytes: usize = map.leaves.values().map(Leaf::memory_bytes).sum();
        assert_eq!(map.leaf_memory_bytes, bytes);
        for n in (0..100_000).filter(|n| n % 100 != 7) {
            assert!(map.remove(&name(n)).is_some() && map.remove(&name(n)).is_none());
        }
        assert_eq!(map.len(), 1000);
        assert!(map.leaves.len() < leaves / 10, "{} leaves of {leaves}", map.leaves.len());
        let bytes: usize = map.leaves.values().map(Leaf::memory_bytes).sum();
        assert_eq!(map.leaf_memory_bytes, bytes);
        let left: Vec<_> = map.iter().map(|(key, _)| key.to_vec()).collect();
        let expected: Vec<_> = (0..1000_u32).map(|n| name(100 * n + 7).to_vec()).collect();
        assert_eq!(left, expected);
        (0..1000).for_each(|n| assert!(map.remove(&name(100 * n + 7)).is_some()));
        assert_eq!((map.len(), map.memory_bytes()), (0, 0));
    }

    #[test]
    fn separators_tell_neighbours_apart() {
        assert_eq!(between(b"abc", b"abd"), b"abd");
        assert_eq!(between(b"ab", b"abc"), b"abc");
        assert_eq!(between(b"a", b"cde"), b"c");
        assert_eq!(between(b"", b"xy"), b"x");
    }
}
