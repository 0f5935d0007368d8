//! Aggregate functions as accumulators that can be added to, taken from, and evaluated.
//!
//! | file | functions |
//! |---|---|
//! | `build.rs` | which file computes a function of some name |
//! | `types.rs` | arguments and results: what Postgres gives |
//! | `layout.rs` | which accumulators a list of calls needs, and where their words lie |
//! | `count.rs` | `count`, `regr_count` |
//! | `sum.rs` | `sum` of integers, decimals, floats |
//! | `exact_float.rs` | the exact sum of floats |
//! | `avg.rs` | `avg` |
//! | `interval.rs` | `sum` and `avg` of intervals |
//! | `min_max.rs` | `min`, `max` |
//! | `moments.rs` | `var_*`, `stddev_*`, `covar_*`, `corr`, `regr_*` |
//! | `boolean.rs` | `bool_and`, `bool_or` |
//! | `bits.rs` | `bit_and`, `bit_or`, `bit_xor` |
//! | `ordered.rs` | `median`, `percentile_*`, `mode`, `first_value`, `last_value`, `any_value`, `array_agg`, `string_agg` |
//! | `multiset.rs` | the values of a group: extreme, or in order |
//!
//! A group's row is a fixed number of words, a few for each accumulator; a group that was just
//! made is all zeros, and every accumulator takes zeros for "no rows". What does not fit words
//! (many values, text) the accumulator keeps itself, by group.
//!
//! An operator works in this order, for each epoch:
//! 1. for a batch: `remember` for groups that change for the first time in the epoch, then `fold`
//!    (the order of rows within an epoch means nothing: a deletion may come before its insertion);
//! 2. when the epoch is complete: `settle`, then functions are evaluated for the rows of the
//!    changed groups as they were and as they are;
//! 3. `free` for groups that are empty, and `forget_remembered`.

use arrow::array::ArrayRef;
use arrow::buffer::{BooleanBuffer, NullBuffer};

use crate::memory::spill::StoreVisitor;
use crate::types::error::{Error, Result};

pub mod avg;
pub mod bits;
pub mod boolean;
pub mod build;
pub mod count;
pub mod exact_float;
pub mod interval;
pub mod layout;
pub mod min_max;
pub mod moments;
pub mod multiset;
pub mod ordered;
pub mod sum;
pub mod types;

/// How an aggregate function copes with deletions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retraction {
    /// The accumulator takes a row back in constant time.
    Retractable,
    /// All values of a group are kept when the input deletes; only the result when it does not.
    StoredWhenDeleting,
    /// All values of a group are kept.
    Stored,
}

/// One aggregate function, as the documentation lists it.
#[derive(Clone, Copy, Debug)]
pub struct AggregateInfo {
    pub name: &'static str,
    pub signature: &'static str,
    pub retraction: Retraction,
    pub description: &'static str,
}

/// Every aggregate function.
pub const AGGREGATES: &[AggregateInfo] = &[
    count::COUNT,
    sum::SUM,
    avg::AVG,
    min_max::MIN,
    min_max::MAX,
    boolean::BOOL_AND,
    boolean::BOOL_OR,
    bits::BIT_AND,
    bits::BIT_OR,
    bits::BIT_XOR,
    moments::VAR_SAMP,
    moments::VAR_POP,
    moments::STDDEV_SAMP,
    moments::STDDEV_POP,
    moments::COVAR_SAMP,
    moments::COVAR_POP,
    moments::CORR,
    moments::REGR_SLOPE,
    moments::REGR_INTERCEPT,
    moments::REGR_COUNT,
    moments::REGR_R2,
    moments::REGR_AVGX,
    moments::REGR_AVGY,
    moments::REGR_SXX,
    moments::REGR_SYY,
    moments::REGR_SXY,
    ordered::MEDIAN,
    ordered::PERCENTILE_CONT,
    ordered::PERCENTILE_DISC,
    ordered::MODE,
    ordered::FIRST_VALUE,
    ordered::LAST_VALUE,
    ordered::ANY_VALUE,
    ordered::ARRAY_AGG,
    ordered::STRING_AGG,
];

/// Rows to be folded in: of one batch, filtered already.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// The group of each row.
    pub groups: &'a [u32],
    /// The weight of each row; `None`: all are 1.
    pub weights: Option<&'a [i64]>,
    /// The call's arguments, then its ORDER BY columns.
    pub arguments: &'a [ArrayRef],
}

impl Rows<'_> {
    /// Calls `visit(group, row, weight)` for each row that is not NULL in `nulls`.
    #[inline]
    pub fn for_each(&self, nulls: Option<&NullBuffer>, mut visit: impl FnMut(u32, usize, i64)) {
        let nulls = nulls.filter(|n| n.null_count() > 0);
        match (nulls, self.weights) {
            (None, None) => {
                for (row, group) in self.groups.iter().enumerate() {
                    visit(*group, row, 1);
                }
            }
            (None, Some(weights)) => {
                for (row, (group, weight)) in self.groups.iter().zip(weights).enumerate() {
                    visit(*group, row, *weight);
                }
            }
            (Some(nulls), weights) => {
                for row in nulls.valid_indices() {
                    visit(self.groups[row], row, weights.map_or(1, |w| w[row]));
                }
            }
        }
    }
}

/// The words of one accumulator in the rows of all groups.
pub struct Slots<'a> {
    pub words: &'a mut [u64],
    /// Words of a group's row.
    pub stride: usize,
    /// Where in a row the accumulator's words begin.
    pub offset: usize,
}

impl Slots<'_> {
    #[inline]
    pub fn word(&mut self, group: u32) -> &mut u64 {
        &mut self.words[group as usize * self.stride + self.offset]
    }

    #[inline]
    pub fn array<const N: usize>(&mut self, group: u32) -> &mut [u64; N] {
        let at = group as usize * self.stride + self.offset;
        (&mut self.words[at..at + N]).try_into().expect("a slice of N words")
    }
}

/// Groups that changed in an epoch, each with its row as it was and as it is. Where nobody asks what
/// was, rows as they are only.
#[derive(Clone, Copy)]
pub struct ChangedRows<'a> {
    pub groups: &'a [u32],
    /// The rows of `groups` when the epoch began, if at all, then the rows of `groups` now.
    pub words: &'a [u64],
    pub stride: usize,
    /// How many groups were remembered in this epoch before the first of `groups`.
    pub remembered_from: usize,
}

impl<'a> ChangedRows<'a> {
    /// How many rows there are: two per group, or one.
    pub fn len(&self) -> usize {
        self.words.len() / self.stride
    }

    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    #[inline]
    pub fn word(&self, row: usize, offset: usize) -> u64 {
        self.words[row * self.stride + offset]
    }

    #[inline]
    pub fn array<const N: usize>(&self, row: usize, offset: usize) -> &'a [u64; N] {
        let at = row * self.stride + offset;
        (&self.words[at..at + N]).try_into().expect("a slice of N words")
    }

    /// The group of a row, and whether it is the row as it was.
    pub fn group(&self, row: usize) -> (u32, bool) {
        match row.checked_sub(self.len() - self.groups.len()) {
            None => (self.groups[row], true),
            Some(row) => (self.groups[row], false),
        }
    }

    /// Valid where the count at `offset` is not 0.
    pub fn counted(&self, offset: usize) -> NullBuffer {
        BooleanBuffer::collect_bool(self.len(), |row| self.word(row, offset) != 0).into()
    }
}

/// What a function gives for changed rows: a value each, or why there is none.
pub struct Evaluated {
    pub values: ArrayRef,
    /// Rows whose value cannot be represented, ascending; their place in `values` means nothing.
    pub failed: Vec<(usize, Error)>,
}

impl Evaluated {
    pub fn all(values: ArrayRef) -> Evaluated {
        Evaluated { values, failed: Vec::new() }
    }
}

/// Something that is kept per group and changes with every row.
pub trait Accumulator: Send + Sync {
    /// Words that it needs in a group's row.
    fn width_words(&self) -> usize;

    /// Folds rows in.
    fn fold(&mut self, slots: &mut Slots<'_>, rows: &Rows<'_>) -> Result<()>;

    /// `groups` change for the first time in this epoch, right after this call.
    fn remember(&mut self, _slots: &mut Slots<'_>, _groups: &[u32]) -> Result<()> {
        Ok(())
    }

    /// All rows of the epoch were folded; `groups` are those that changed.
    fn settle(&mut self, _slots: &mut Slots<'_>, _groups: &[u32]) -> Result<()> {
        Ok(())
    }

    /// Its value by row, where that is not in the words; NULLs are the caller's to set.
    fn values(&self, _rows: &ChangedRows<'_>, _offset: usize) -> Result<ArrayRef> {
        Err(Error::internal("an accumulator was asked for values that stand in the words"))
    }

    /// Its sum by row before rounding; only of sums of floats.
    fn exact_sums(
        &self,
        _rows: &ChangedRows<'_>,
        _offset: usize,
    ) -> Result<Vec<exact_float::ExactSum>> {
        Err(Error::internal("an accumulator was asked for a sum that it does not keep"))
    }

    /// Forgets what `remember` kept.
    fn forget_remembered(&mut self) {}

    /// Groups have become empty; their words are set to 0 after this call.
    fn free(&mut self, _slots: &mut Slots<'_>, _groups: &[u32]) {}

    /// What belongs to the group's row and does not stand in its words, for a checkpoint.
    fn save(&self, _words: &[u64]) -> Option<Vec<u8>> {
        None
    }

    /// Whether `save` ever gives something.
    fn saves(&self) -> bool {
        false
    }

    /// Takes back what `save` gave; `words` are the accumulator's own of that group.
    fn load(&mut self, _words: &mut [u64], _saved: &[u8]) -> Result<()> {
        Err(Error::internal("a checkpoint has values for an accumulator that keeps none"))
    }

    /// Adds the words of the same accumulator of another worker to a group's own; `saved` is what
    /// `save` gave there.
    fn merge(&mut self, _own: &mut [u64], _other: &[u64], _saved: Option<&[u8]>) -> Result<()> {
        Err(Error::internal("an accumulator that cannot be merged is aggregated in two phases"))
    }

    /// The values that it keeps by group, for a checkpoint.
    fn stored(&mut self) -> Option<&mut dyn multiset::StoredValues> {
        None
    }

    /// Shows what can go to the disk when memory is short.
    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        let _ = visit;
    }

    /// Memory held beside the words, in bytes.
    fn memory_bytes(&self) -> usize {
        0
    }
}

/// Turns accumulators into the values of one call.
pub trait Evaluate: Send + Sync {
    fn evaluate(
        &self,
        rows: &ChangedRows<'_>,
        accumulators: &[layout::Placed],
    ) -> Result<Evaluated>;
}

/// The signed sum in two words.
#[inline]
pub(crate) fn sum_of(words: &[u64; 2]) -> i128 {
    (u128::from(words[1]) << 64 | u128::from(words[0])) as i128
}

/// Adds sums in one word, which wrap.
pub(crate) fn add_word(own: &mut [u64], other: &[u64]) {
    own[0] = own[0].wrapping_add(other[0]);
}

/// The inverse of [`sum_of`].
#[inline]
pub(crate) fn words_of(sum: i128) -> [u64; 2] {
    [sum as u64, (sum as u128 >> 64) as u64]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_documented() {
        let mut names: Vec<&str> = AGGREGATES.iter().map(|f| f.name).collect();
        names.sort_unstable();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
        for function in AGGREGATES {
            assert!(function.signature.starts_with(function.name), "{}", function.name);
            assert!(function.description.ends_with('.'), "{}", function.name);
        }
    }
}
