//! A multiset in order: sorted blocks of values with counts.
//!
//! 1. A set of few blocks takes each change at once: the block is found by its last value, the value
//!    in it by bisection.
//! 2. A set of many blocks lets changes wait until the epoch is complete. Then they are sorted, and
//!    the blocks are walked once beside them: who comes in the order of the values finds every
//!    block where it has just been, where a search for each change would miss the cache a dozen
//!    times. Few changes of a large set are still searched for one by one.
//! 3. Blocks that have become too long are split, empty ones go, and when blocks are mostly empty
//!    neighbours are joined: once for all changes.

use std::cmp::Ordering;

use super::block_tree::{Amount, BlockTree};
use super::{Value, ValueSet, lacks_value, sum_up};
use crate::types::error::Result;

/// Entries of a sorted block; a fuller one is split.
const BLOCK_MAX: usize = 512;
/// Blocks from which on changes wait.
const WAITING_BLOCKS_MIN: usize = 8;
/// Changes that wait, at most, unless the set has more values.
const WAITING_MAX: usize = 1 << 16;
/// More blocks than so many for each change: then changes are searched for one by one, because a
/// search costs about as much as walking past so many.
const BLOCKS_PER_CHANGE: usize = 64;
/// Changes of one block that are made where it stands; for more the block is written anew.
const IN_PLACE_MAX: usize = 4;

/// A multiset in order: sorted blocks of values with counts.
pub struct SortedSet<V> {
    /// Ascending; none is empty.
    blocks: Vec<Block<V>>,
    /// Over the blocks, in their order. `None`: nobody asks for ranks, and walking them is enough.
    tree: Option<BlockTree>,
    /// Different values in all blocks.
    different: usize,
    /// All values with their copies.
    copies: i64,
    /// Changes of the epoch that wait for `settle`, in the order in which they came.
    waiting: Vec<(V, i64)>,
}

struct Block<V> {
    /// Ascending, each value once, with a count of at least 1.
    entries: Vec<(V, i64)>,
    /// The sum of the counts, and the greatest.
    amount: Amount,
    /// How many values have the greatest count.
    most_frequent: usize,
}

impl<V> Default for SortedSet<V> {
    fn default() -> SortedSet<V> {
        let tree = Some(BlockTree::default());
        SortedSet { blocks: Vec::new(), tree, different: 0, copies: 0, waiting: Vec::new() }
    }
}

impl<V: Value> SortedSet<V> {
    /// Of values that ascend, each once, with counts of at least 1; for who asks for the ends only.
    pub(super) fn of_sorted(mut entries: Vec<(V, i64)>) -> SortedSet<V> {
        let different = entries.len();
        let copies = entries.iter().map(|entry| entry.1).sum();
        let mut blocks = Vec::with_capacity(different / (BLOCK_MAX / 2) + 1);
        while !entries.is_empty() {
            let rest = entries.split_off(entries.len() - entries.len().min(BLOCK_MAX / 2));
            blocks.push(Block::new(rest));
        }
        blocks.reverse();
        SortedSet { blocks, tree: None, different, copies, waiting: Vec::new() }
    }

    /// Different values.
    pub(super) fn different(&self) -> usize {
        self.different
    }

    /// The tree is made anew, for other blocks.
    fn plant(&mut self) {
        if let Some(tree) = &mut self.tree {
            tree.plant(self.blocks.iter().map(|block| block.amount));
        }
    }

    /// The tree, where there are many blocks.
    fn planted(&self) -> Option<&BlockTree> {
        self.tree.as_ref().filter(|tree| tree.is_planted())
    }

    /// A block has changed.
    fn note(&mut self, at: usize) {
        if let Some(tree) = &mut self.tree {
            tree.set(at, self.blocks[at].amount);
        }
    }

    /// Who asks has let all changes settle.
    fn assert_settled(&self) {
        assert!(self.waiting.is_empty(), "a set is asked for its values when they have settled");
    }

    pub fn first(&self) -> Option<&V> {
        self.assert_settled();
        self.blocks.first().and_then(|block| block.entries.first()).map(|entry| &entry.0)
    }

    pub fn last(&self) -> Option<&V> {
        self.assert_settled();
        self.blocks.last().and_then(|block| block.entries.last()).map(|entry| &entry.0)
    }

    /// All values with their copies.
    pub fn copies(&self) -> i64 {
        self.assert_settled();
        self.copies
    }

    /// The value of this rank, counted from 0 over all copies.
    pub fn nth(&self, rank: i64) -> Option<&V> {
        if !(0..self.copies).contains(&rank) {
            return None;
        }
        let (block, before) = match self.planted() {
            Some(tree) => tree.block_of_rank(rank),
            None => self.walked(|amount, before| rank < before + amount.copies)?,
        };
        let mut rest = rank - before;
        for (value, count) in &self.blocks[block].entries {
            if rest < *count {
                return Some(value);
            }
            rest -= count;
        }
        None
    }

    /// The rank of the first copy of the most frequent value; of several the first in order, or
    /// the last. 0 when there is none.
    pub fn rank_of_most_frequent(&self, last: bool) -> i64 {
        let most = match self.planted() {
            Some(tree) => Some(tree.block_of_most(last)),
            None => {
                let most = self.blocks.iter().map(|block| block.amount.most).max();
                let is_most = |block: &Block<V>| Some(block.amount.most) == most;
                let block = match last {
                    true => self.blocks.iter().rposition(is_most),
                    false => self.blocks.iter().position(is_most),
                };
                let before = |block: usize| -> i64 {
                    self.blocks[..block].iter().map(|block| block.amount.copies).sum()
                };
                block.map(|block| (block, before(block)))
            }
        };
        let Some((block, before)) = most else { return 0 };
        let Block { entries, amount, .. } = &self.blocks[block];
        let is_most = |entry: &(V, i64)| entry.1 == amount.most;
        let place =
            if last { entries.iter().rposition(is_most) } else { entries.iter().position(is_most) };
        let place = place.expect("a block knows its greatest count");
        before + entries[..place].iter().map(|entry| entry.1).sum::<i64>()
    }

    /// The first block of which this is true, of its amount and the copies before it.
    fn walked(&self, is_it: impl Fn(Amount, i64) -> bool) -> Option<(usize, i64)> {
        let mut before = 0;
        for (at, block) in self.blocks.iter().enumerate() {
            if is_it(block.amount, before) {
                return Some((at, before));
            }
            before += block.amount.copies;
        }
        None
    }

    /// Values and counts, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&V, i64)> {
        self.assert_settled();
        self.blocks.iter().flat_map(|block| block.entries.iter().map(|entry| (&entry.0, entry.1)))
    }

    /// The block that has the value, or should.
    fn block_of(&self, value: &V) -> usize {
        let ends_before = |block: &Block<V>| block.entries.last().is_some_and(|e| e.0 < *value);
        self.blocks.partition_point(ends_before)
    }

    fn insert_now(&mut self, value: V, count: i64) {
        let at = self.block_of(&value).min(self.blocks.len().saturating_sub(1));
        self.copies += count;
        let Some(block) = self.blocks.get_mut(at) else {
            self.different += 1;
            self.blocks.push(Block::new(vec![(value, count)]));
            return;
        };
        block.amount.copies += count;
        match block.entries.binary_search_by(|entry| entry.0.cmp(&value)) {
            Ok(found) => {
                block.entries[found].1 += count;
                let after = block.entries[found].1;
                block.grew(after);
            }
            Err(place) => {
                self.different += 1;
                block.entries.insert(place, (value, count));
                block.grew(count);
                if block.entries.len() > BLOCK_MAX {
                    let upper = block.entries.split_off(BLOCK_MAX / 2);
                    block.count();
                    self.blocks.insert(at + 1, Block::new(upper));
                    self.plant();
                    return;
                }
            }
        }
        self.note(at);
    }

    fn delete_now(&mut self, value: V, count: i64) -> Result<()> {
        let at = self.block_of(&value);
        let block = self.blocks.get_mut(at).ok_or_else(lacks_value)?;
        let before = block.entries.len();
        block.change(value, -count)?;
        self.different -= before - block.entries.len();
        self.copies -= count;
        self.tidy(at);
        Ok(())
    }

    /// Whether a change is to wait: the set is large, or others wait already.
    fn waits(&self) -> bool {
        self.blocks.len() >= WAITING_BLOCKS_MIN || !self.waiting.is_empty()
    }

    fn is_waiting_full(&self) -> bool {
        self.waiting.len() >= WAITING_MAX.max(self.different / 4)
    }

    /// Makes the changes that wait.
    fn take_in_waiting(&mut self) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let changes = sum_up(std::mem::take(&mut self.waiting));
        if changes.len() * BLOCKS_PER_CHANGE < self.blocks.len() {
            for (value, count) in changes {
                match count > 0 {
                    true => self.insert_now(value, count),
                    false => self.delete_now(value, -count)?,
                }
            }
            return Ok(());
        }
        if self.blocks.is_empty() {
            self.blocks.push(Block::new(vec![]));
        }
        let mut changes = changes.into_iter().peekable();
        let mut regular = true;
        let last = self.blocks.len() - 1;
        let mut of_block = Vec::new();
        for (at, block) in self.blocks.iter_mut().enumerate() {
            if changes.peek().is_none() {
                break;
            }
            // The last block has what is greater than all values, too.
            let belongs = |change: &(V, i64)| {
                at == last || block.entries.last().is_some_and(|entry| change.0 <= entry.0)
            };
            while let Some(change) = changes.next_if(belongs) {
                of_block.push(change);
            }
            if of_block.is_empty() {
                continue;
            }
            let (entries, copies) = (block.entries.len(), block.amount.copies);
            block.change_all(&mut of_block)?;
            self.different = self.different + block.entries.len() - entries;
            self.copies += block.amount.copies - copies;
            regular &= (1..=BLOCK_MAX).contains(&block.entries.len());
        }
        // A quarter full on average, or nearly: as many blocks as twice that wants is too many.
        let wanted = self.different / (BLOCK_MAX / 4) + WAITING_BLOCKS_MIN;
        if !regular || self.blocks.len() > 2 * wanted {
            self.reshape();
        }
        self.plant();
        Ok(())
    }

    /// Splits long blocks, joins short ones, lets go of empty ones.
    fn reshape(&mut self) {
        let old = std::mem::take(&mut self.blocks);
        self.blocks.reserve(old.len());
        for mut block in old {
            while block.entries.len() > BLOCK_MAX {
                let rest = block.entries.split_off(BLOCK_MAX / 2);
                self.blocks.push(Block::new(std::mem::replace(&mut block.entries, rest)));
            }
            if block.entries.is_empty() {
                continue;
            }
            match self.blocks.last_mut() {
                Some(last) if last.entries.len() + block.entries.len() <= BLOCK_MAX / 2 => {
                    last.entries.append(&mut block.entries);
                    last.count();
                }
                _ => {
                    block.count();
                    self.blocks.push(block);
                }
            }
        }
    }

    /// Joins a block that has become small with the next one.
    fn tidy(&mut self, at: usize) {
        if self.blocks[at].entries.is_empty() {
            self.blocks.remove(at);
            self.plant();
            return;
        }
        if let [this, next, ..] = &mut self.blocks[at..]
            && this.entries.len() + next.entries.len() <= BLOCK_MAX / 2
        {
            this.entries.append(&mut next.entries);
            this.count();
            self.blocks.remove(at + 1);
            self.plant();
            return;
        }
        self.note(at);
    }
}

impl<V> Block<V> {
    fn new(entries: Vec<(V, i64)>) -> Block<V> {
        let mut block = Block { entries, amount: Amount::default(), most_frequent: 0 };
        block.count();
        block
    }

    /// Looks at all entries.
    fn count(&mut self) {
        self.amount.copies = self.entries.iter().map(|entry| entry.1).sum();
        self.count_most();
    }

    fn count_most(&mut self) {
        let counts = || self.entries.iter().map(|entry| entry.1);
        let most = counts().max().unwrap_or(0);
        self.most_frequent = counts().filter(|count| *count == most).count();
        self.amount.most = most;
    }

    /// A value gets so many copies more, or fewer.
    fn change(&mut self, value: V, count: i64) -> Result<()>
    where
        V: Ord,
    {
        match self.entries.binary_search_by(|entry| entry.0.cmp(&value)) {
            Err(_) if count < 0 => return Err(lacks_value()),
            Err(place) => {
                self.entries.insert(place, (value, count));
                self.grew(count);
            }
            Ok(found) => {
                let before = self.entries[found].1;
                let after = before + count;
                if after < 0 {
                    return Err(lacks_value());
                }
                self.entries[found].1 = after;
                if after == 0 {
                    self.entries.remove(found);
                }
                if count > 0 {
                    self.grew(after);
                } else {
                    self.shrank(before);
                }
            }
        }
        self.amount.copies += count;
        Ok(())
    }

    /// Makes changes that ascend, each value once; leaves `changes` empty.
    fn change_all(&mut self, changes: &mut Vec<(V, i64)>) -> Result<()>
    where
        V: Ord,
    {
        if changes.len() <= IN_PLACE_MAX {
            return changes.drain(..).try_for_each(|(value, count)| self.change(value, count));
        }
        let mut merged = Vec::with_capacity(self.entries.len() + changes.len());
        let mut old = std::mem::take(&mut self.entries).into_iter();
        for (value, count) in changes.drain(..) {
            let below = old.as_slice().partition_point(|entry| entry.0 < value);
            merged.extend(old.by_ref().take(below));
            let before = match old.as_slice().first() {
                Some(entry) if entry.0 == value => old.next().map_or(0, |entry| entry.1),
                _ => 0,
            };
            match before + count {
                ..0 => return Err(lacks_value()),
                0 => {}
                after => merged.push((value, after)),
            }
        }
        merged.extend(old);
        self.entries = merged;
        self.count();
        Ok(())
    }

    /// A value has `after` copies instead of fewer.
    fn grew(&mut self, after: i64) {
        match after.cmp(&self.amount.most) {
            Ordering::Less => {}
            Ordering::Equal => self.most_frequent += 1,
            Ordering::Greater => (self.amount.most, self.most_frequent) = (after, 1),
        }
    }

    /// A value that had `before` copies has fewer.
    fn shrank(&mut self, before: i64) {
        if before == self.amount.most {
            self.most_frequent -= 1;
            if self.most_frequent == 0 {
                self.count_most();
            }
        }
    }
}

impl<V: Value> ValueSet for SortedSet<V> {
    type Value = V;

    fn insert(&mut self, value: V, count: i64) {
        if !self.waits() {
            return self.insert_now(value, count);
        }
        if self.is_waiting_full() {
            self.take_in_waiting().expect("deletions come when all insertions have");
        }
        self.waiting.push((value, count));
    }

    fn delete(&mut self, value: V, count: i64) -> Result<()> {
        if !self.waits() {
            return self.delete_now(value, count);
        }
        if self.is_waiting_full() {
            self.take_in_waiting()?;
        }
        self.waiting.push((value, -count));
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        self.take_in_waiting()?;
        if self.blocks.is_empty() {
            self.blocks = Vec::new();
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.waiting.is_empty()
    }

    fn entries_len(&self) -> usize {
        self.different + self.waiting.len()
    }

    fn entries(&self) -> Vec<(V, i64)> {
        let settled = self.blocks.iter().flat_map(|block| &block.entries);
        settled.chain(&self.waiting).cloned().collect()
    }

    fn memory_bytes(&self) -> usize {
        let blocks = self.blocks.iter().map(|block| {
            let each = block.entries.first().map_or(0, |entry| entry.0.heap_bytes());
            block.entries.capacity() * size_of::<(V, i64)>() + block.entries.len() * each
        });
        blocks.sum::<usize>()
            + self.blocks.capacity() * size_of::<Block<V>>()
            + self.waiting.capacity() * size_of::<(V, i64)>()
            + self.waiting.len() * self.waiting.first().map_or(0, |entry| entry.0.heap_bytes())
            + self.tree.as_ref().map_or(0, BlockTree::memory_bytes)
    }
}
