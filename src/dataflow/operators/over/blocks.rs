//! A long partition in blocks: what each amounts to, and any run of them.
//!
//! 1. Each block is the rows from its start to the next block's; the summaries stand at the leaves
//!    of a binary tree whose inner nodes have the summaries of what is below them. So the summary
//!    of all rows before a block costs O(log n), and so does a change.
//! 2. During an epoch the starts stay. The blocks in which rows change get a new summary, and the
//!    old one is kept until the epoch is over ([`Turn`]): what is computed of the partition as it
//!    was sees the old ones.
//! 3. Between the changed blocks the sums before and after the change differ by nothing but what
//!    came before; where they agree again, rows keep their values until the next changed block.
//!    [`affected`] looks for that place in steps that double.
//! 4. Then blocks that have become long are split, and short ones joined ([`Blocks::settle`]).
//!
//! A block has about a quarter of the square root of the partition's rows: to sum a block up again,
//! and to build the tree again when blocks are split, cost about as much.

use std::ops::{Bound, Range};

use super::summary::{Kernel, Side, Summary};
use crate::state::ordered_table::{OrderedTable, RowKey};
use crate::types::error::Result;

/// How large blocks are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Different rows from which on a partition has blocks.
    pub(super) partition_rows_min: usize,
    /// Different rows of a block that is made: at least, and at most.
    pub(super) block_rows: (usize, usize),
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes { partition_rows_min: 2048, block_rows: (128, 4096) }
    }
}

impl Sizes {
    /// Different rows of a block in a partition of so many.
    fn target(self, rows: usize) -> usize {
        let (least, most) = self.block_rows;
        (rows.isqrt() / 4).clamp(least, most)
    }
}

/// The blocks of one partition.
pub(super) struct Blocks {
    block_sizes: Sizes,
    partition: RowKey,
    /// Where each block starts: a place, at which there need not be a row. The first start is
    /// before all rows.
    starts: Vec<RowKey>,
    /// Different rows of each block.
    sizes: Vec<usize>,
    /// The tree: node `i` is above nodes `2i` and `2i + 1`, the leaves begin at `leaves`. Node 0 is
    /// not used.
    tree: Vec<Summary>,
    leaves: usize,
}

/// A block in which rows change.
pub(super) struct Turn {
    pub(super) block: usize,
    /// The summary that the block does not have at present: the old one, or the new one.
    other: Summary,
}

/// Rows of a table, each as often as it is there.
pub(super) fn expanded<'a>(
    rows: impl Iterator<Item = (&'a [u8], &'a [u8], u64)>,
    before: Option<&[u8]>,
) -> (Vec<&'a [u8]>, Vec<bool>) {
    let (mut keys, mut begins) = (Vec::new(), Vec::new());
    let mut last: Option<&[u8]> = None;
    for (key, peers, copies) in rows {
        if copies == 0 {
            continue;
        }
        let same = match last {
            Some(last) => last == peers,
            None => before == Some(peers),
        };
        keys.extend(std::iter::repeat_n(key, copies as usize));
        begins.push(!same);
        begins.extend(std::iter::repeat_n(false, copies as usize - 1));
        last = Some(peers);
    }
    (keys, begins)
}

impl Blocks {
    /// Blocks for a partition as it is.
    pub(super) fn new(
        kernel: &mut Kernel,
        table: &OrderedTable,
        partition: RowKey,
        block_sizes: Sizes,
    ) -> Result<Blocks> {
        let mut blocks = Blocks {
            block_sizes,
            starts: vec![partition.clone()],
            sizes: vec![0],
            tree: vec![kernel.empty(); 2],
            leaves: 1,
            partition,
        };
        let count = table.partition(&blocks.partition).count();
        let (starts, sizes, summaries) = blocks.cut(kernel, table, 0, block_sizes.target(count))?;
        (blocks.starts, blocks.sizes) = (starts, sizes);
        blocks.plant(kernel, summaries)?;
        Ok(blocks)
    }

    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// Different rows.
    pub(super) fn row_count(&self) -> usize {
        self.sizes.iter().sum()
    }

    /// The block in which a row stands, or would.
    pub(super) fn block_of(&self, key: &[u8]) -> usize {
        self.starts.partition_point(|start| **start <= *key).saturating_sub(1)
    }

    /// Where a block starts; behind the last one: `None`.
    pub(super) fn start(&self, block: usize) -> Option<&[u8]> {
        self.starts.get(block).map(|start| &**start)
    }

    pub(super) fn partition(&self) -> &[u8] {
        &self.partition
    }

    /// The first block after this one that had rows when the epoch began.
    pub(super) fn next_with_rows(&self, block: usize) -> Option<usize> {
        (block + 1..self.len()).find(|next| self.sizes[*next] > 0)
    }

    pub(super) fn summary(&self, block: usize) -> &Summary {
        &self.tree[self.leaves + block]
    }

    /// The summary of a run of blocks.
    pub(super) fn sum(&self, kernel: &mut Kernel, blocks: Range<usize>) -> Result<Summary> {
        let (mut left, mut right) = (blocks.start + self.leaves, blocks.end + self.leaves);
        let mut sum = kernel.empty();
        let mut behind = Vec::new();
        while left < right {
            if left & 1 == 1 {
                kernel.merge(&mut sum, &self.tree[left])?;
                left += 1;
            }
            if right & 1 == 1 {
                right -= 1;
                behind.push(right);
            }
            (left, right) = (left / 2, right / 2);
        }
        for node in behind.into_iter().rev() {
            kernel.merge(&mut sum, &self.tree[node])?;
        }
        Ok(sum)
    }

    /// The summary of all rows.
    pub(super) fn total(&self) -> &Summary {
        &self.tree[1]
    }

    /// Sums blocks up again whose rows have changed; they are ascending.
    pub(super) fn refresh(
        &mut self,
        kernel: &mut Kernel,
        table: &OrderedTable,
        changed: &[usize],
    ) -> Result<Vec<Turn>> {
        let mut turns = Vec::with_capacity(changed.len());
        for block in changed {
            let (_, mut sizes, mut summaries) = self.cut(kernel, table, *block, usize::MAX)?;
            let other = summaries.pop().unwrap_or_else(|| kernel.empty());
            self.sizes[*block] = sizes.pop().unwrap_or(0);
            turns.push(Turn { block: *block, other });
        }
        self.turn(kernel, &mut turns)?;
        Ok(turns)
    }

    /// Exchanges the summaries of changed blocks for their other ones.
    pub(super) fn turn(&mut self, kernel: &mut Kernel, turns: &mut [Turn]) -> Result<()> {
        let mut above = Vec::with_capacity(turns.len());
        for turn in turns {
            let leaf = self.leaves + turn.block;
            std::mem::swap(&mut self.tree[leaf], &mut turn.other);
            above.push(leaf / 2);
        }
        // Level by level, each node once.
        while above.first().is_some_and(|node| *node > 0) {
            above.dedup();
            for node in &mut above {
                self.sum_up(kernel, *node)?;
                *node /= 2;
            }
        }
        Ok(())
    }

    fn sum_up(&mut self, kernel: &mut Kernel, node: usize) -> Result<()> {
        let mut sum = self.tree[2 * node].clone();
        kernel.merge(&mut sum, &self.tree[2 * node + 1])?;
        self.tree[node] = sum;
        Ok(())
    }

    /// Splits and joins blocks that have changed; they are ascending.
    pub(super) fn settle(
        &mut self,
        kernel: &mut Kernel,
        table: &OrderedTable,
        turns: Vec<Turn>,
    ) -> Result<()> {
        let target = self.block_sizes.target(self.row_count());
        let (short, long) = (target / 4, target * 2);
        if turns.iter().all(|turn| (short..=long).contains(&self.sizes[turn.block])) {
            return Ok(());
        }
        let mut leaves: Vec<Summary> =
            (0..self.len()).map(|block| self.summary(block).clone()).collect();
        // From behind, so that the numbers of those before stay.
        for block in turns.iter().rev().map(|turn| turn.block) {
            if self.sizes[block] > long {
                let (starts, sizes, summaries) = self.cut(kernel, table, block, target)?;
                self.starts.splice(block..=block, starts);
                self.sizes.splice(block..=block, sizes);
                leaves.splice(block..=block, summaries);
                continue;
            }
            // Not the first alone: its start stays. It takes the next one in.
            let first = block.saturating_sub(1);
            if self.sizes[block] < short && self.len() > 1 {
                let size = self.sizes[first] + self.sizes[first + 1];
                if size <= long {
                    let last = leaves.remove(first + 1);
                    kernel.merge(&mut leaves[first], &last)?;
                    self.starts.remove(first + 1);
                    self.sizes.remove(first + 1);
                    self.sizes[first] = size;
                }
            }
        }
        self.plant(kernel, leaves)
    }

    /// The rows of a block cut into pieces of so many different rows: their starts, sizes and
    /// summaries. There is at least one piece.
    fn cut(
        &self,
        kernel: &mut Kernel,
        table: &OrderedTable,
        block: usize,
        piece_rows: usize,
    ) -> Result<(Vec<RowKey>, Vec<usize>, Vec<Summary>)> {
        let start = &*self.starts[block];
        let before = table.walk_back(&self.partition, Bound::Excluded(start)).next();
        let mut before: Option<Vec<u8>> = before.map(|(key, copies)| copies.peers(key).to_vec());
        let end = self.start(block + 1);
        let mut walk = table
            .walk(&self.partition, Bound::Included(start))
            .take_while(|(key, _)| end.is_none_or(|end| *key < end))
            .peekable();
        let (mut starts, mut sizes, mut summaries) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let own =
                if starts.is_empty() { Some(start) } else { walk.peek().map(|(key, _)| *key) };
            let Some(own) = own else { break };
            let rows: Vec<_> = walk.by_ref().take(piece_rows).collect();
            let (keys, begins) = expanded(
                rows.iter().map(|(key, c)| (*key, c.peers(key), c.weight.max(0) as u64)),
                before.as_deref(),
            );
            let batch = table.decode(keys.into_iter())?;
            starts.push(own.into());
            sizes.push(rows.len());
            summaries.push(kernel.summarize(&batch, &begins)?);
            before = rows.last().map(|(key, copies)| copies.peers(key).to_vec());
        }
        Ok((starts, sizes, summaries))
    }

    /// Makes the tree above these leaves.
    fn plant(&mut self, kernel: &mut Kernel, summaries: Vec<Summary>) -> Result<()> {
        self.leaves = summaries.len().next_power_of_two();
        self.tree = vec![kernel.empty(); self.leaves];
        self.tree.extend(summaries);
        self.tree.resize(2 * self.leaves, kernel.empty());
        for node in (1..self.leaves).rev() {
            self.sum_up(kernel, node)?;
        }
        Ok(())
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let starts: usize = self.starts.iter().map(|start| start.len() + size_of::<RowKey>()).sum();
        starts + self.tree.len() * self.tree[1].memory_bytes() + self.sizes.len() * 8
    }
}

/// The runs of blocks whose rows may have other values than before, because of what changed before
/// them (or behind them, for [`Side::After`]): each begins (or ends) with a changed block, and goes
/// on to where both sums agree.
pub(super) fn affected(
    kernel: &mut Kernel,
    blocks: &Blocks,
    turns: &[Turn],
    side: Side,
) -> Result<Vec<Range<usize>>> {
    match side {
        Side::Before => forward(kernel, blocks, turns),
        Side::After => backward(kernel, blocks, turns),
        Side::Total => {
            let mut old = kernel.empty();
            let mut from = 0;
            for turn in turns {
                let between = blocks.sum(kernel, from..turn.block)?;
                kernel.merge(&mut old, &between)?;
                kernel.merge(&mut old, &turn.other)?;
                from = turn.block + 1;
            }
            let rest = blocks.sum(kernel, from..blocks.len())?;
            kernel.merge(&mut old, &rest)?;
            let same = kernel.same(Side::Total, &old, blocks.total())?;
            let all = (!same).then(|| 0..blocks.len());
            Ok(all.into_iter().collect())
        }
    }
}

fn forward(kernel: &mut Kernel, blocks: &Blocks, turns: &[Turn]) -> Result<Vec<Range<usize>>> {
    let mut runs = Vec::new();
    let mut next = 0;
    while let Some(turn) = turns.get(next) {
        let first = turn.block;
        let mut new = blocks.sum(kernel, 0..first)?;
        let mut old = new.clone();
        let mut at = first;
        let mut same = false;
        while !same && at < blocks.len() {
            if let Some(turn) = turns.get(next).filter(|turn| turn.block == at) {
                kernel.merge(&mut old, &turn.other)?;
                kernel.merge(&mut new, blocks.summary(at))?;
                next += 1;
                at += 1;
            }
            let end = turns.get(next).map_or(blocks.len(), |turn| turn.block);
            let mut step = 1;
            same = kernel.same(Side::Before, &old, &new)?;
            while !same && at < end {
                let to = end.min(at + step);
                let between = blocks.sum(kernel, at..to)?;
                kernel.merge(&mut old, &between)?;
                kernel.merge(&mut new, &between)?;
                (at, step) = (to, step * 2);
                same = kernel.same(Side::Before, &old, &new)?;
            }
        }
        runs.push(first..at);
    }
    Ok(runs)
}

fn backward(kernel: &mut Kernel, blocks: &Blocks, turns: &[Turn]) -> Result<Vec<Range<usize>>> {
    let mut runs = Vec::new();
    // Turns before this one are still to be looked at.
    let mut left = turns.len();
    while left > 0 {
        let end = turns[left - 1].block + 1;
        let mut new = blocks.sum(kernel, end..blocks.len())?;
        let mut old = new.clone();
        let mut at = end;
        let mut same = false;
        // Sums of aggregates do not depend on the order; groups of peers are not asked for here.
        while !same && at > 0 {
            if left > 0 && turns[left - 1].block + 1 == at {
                kernel.merge(&mut old, &turns[left - 1].other)?;
                kernel.merge(&mut new, blocks.summary(at - 1))?;
                left -= 1;
                at -= 1;
            }
            let begin = if left > 0 { turns[left - 1].block + 1 } else { 0 };
            let mut step = 1;
            same = kernel.same(Side::After, &old, &new)?;
            while !same && at > begin {
                let from = begin.max(at.saturating_sub(step));
                let between = blocks.sum(kernel, from..at)?;
                kernel.merge(&mut old, &between)?;
                kernel.merge(&mut new, &between)?;
                (at, step) = (from, step * 2);
                same = kernel.same(Side::After, &old, &new)?;
            }
        }
        runs.push(at..end);
    }
    runs.reverse();
    Ok(runs)
}
