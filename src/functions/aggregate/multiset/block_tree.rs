//! Sums and maxima over a list of blocks, so that a place in it is found in logarithmic time.
//!
//! A complete binary tree in a vector: node `i` is above nodes `2i` and `2i + 1`, the blocks are
//! the leaves, in order. A list that is short has no tree and is walked.

/// Blocks up to which a list is walked.
const WALKED_BLOCKS_MAX: usize = 8;

/// What is known of a block, or of a run of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    /// All values with their copies.
    pub(super) copies: i64,
    /// Copies of the value that has most.
    pub(super) most: i64,
}

impl Amount {
    fn and(self, other: Amount) -> Amount {
        Amount { copies: self.copies + other.copies, most: self.most.max(other.most) }
    }
}

/// The tree over a list of blocks.
#[derive(Debug, Default)]
pub(super) struct BlockTree {
    /// Node 0 is not used. Empty where the list is short.
    nodes: Vec<Amount>,
    /// The number of the first leaf.
    leaves: usize,
}

impl BlockTree {
    pub(super) fn is_planted(&self) -> bool {
        self.leaves > 0
    }

    /// Makes the tree anew over these blocks.
    pub(super) fn plant(&mut self, blocks: impl ExactSizeIterator<Item = Amount>) {
        self.nodes.clear();
        self.leaves = 0;
        if blocks.len() <= WALKED_BLOCKS_MAX {
            self.nodes = Vec::new();
            return;
        }
        self.leaves = blocks.len().next_power_of_two();
        self.nodes.resize(self.leaves, Amount::default());
        self.nodes.extend(blocks);
        self.nodes.resize(2 * self.leaves, Amount::default());
        for node in (1..self.leaves).rev() {
            self.nodes[node] = self.nodes[2 * node].and(self.nodes[2 * node + 1]);
        }
    }

    /// A block has changed.
    pub(super) fn set(&mut self, block: usize, amount: Amount) {
        if !self.is_planted() {
            return;
        }
        let mut node = self.leaves + block;
        self.nodes[node] = amount;
        while node > 1 {
            node /= 2;
            self.nodes[node] = self.nodes[2 * node].and(self.nodes[2 * node + 1]);
        }
    }

    /// The block that has the value of a rank below the number of copies, and how many copies
    /// stand before the block.
    pub(super) fn block_of_rank(&self, rank: i64) -> (usize, i64) {
        self.descend(|left, before| rank < before + left.copies)
    }

    /// The first (or last) block with a value that no other has more copies of, and how many copies
    /// stand before the block.
    pub(super) fn block_of_most(&self, last: bool) -> (usize, i64) {
        let most = self.nodes[1].most;
        let mut node = 1;
        let mut before = 0;
        while node < self.leaves {
            let (left, right) = (self.nodes[2 * node], self.nodes[2 * node + 1]);
            let goes_left = if last { right.most < most } else { left.most == most };
            node = 2 * node + usize::from(!goes_left);
            before += if goes_left { 0 } else { left.copies };
        }
        (node - self.leaves, before)
    }

    /// Goes down from the root, left where `goes_left` says so of the left half and what stands
    /// before it.
    fn descend(&self, goes_left: impl Fn(Amount, i64) -> bool) -> (usize, i64) {
        let (mut node, mut before) = (1, 0);
        while node < self.leaves {
            let left = self.nodes[2 * node];
            if goes_left(left, before) {
                node *= 2;
            } else {
                node = 2 * node + 1;
                before += left.copies;
            }
        }
        (node - self.leaves, before)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Amount>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_and_maxima_are_found() {
        let amounts: Vec<Amount> =
            (0..21).map(|n| Amount { copies: n % 4 + 1, most: n % 5 }).collect();
        let mut tree = BlockTree::default();
        tree.plant(amounts.iter().copied());
        let mut rank = 0;
        for (block, amount) in amounts.iter().enumerate() {
            for _ in 0..amount.copies {
                let before: i64 = amounts[..block].iter().map(|a| a.copies).sum();
                assert_eq!(tree.block_of_rank(rank), (block, before));
                rank += 1;
            }
        }
        assert_eq!(tree.block_of_most(false).0, 4);
        assert_eq!(tree.block_of_most(true).0, 19);
        tree.set(7, Amount { copies: 9, most: 9 });
        let before: i64 = amounts[..7].iter().map(|a| a.copies).sum();
        assert_eq!(tree.block_of_most(false), (7, before));
        assert_eq!(tree.block_of_most(true), (7, before));
        assert_eq!(tree.block_of_rank(before + 8), (7, before));
        assert_eq!(tree.block_of_rank(before + 9).0, 8);
        tree.plant(amounts[..8].iter().copied());
        assert!(!tree.is_planted());
        assert_eq!(tree.memory_bytes(), 0);
    }
}
