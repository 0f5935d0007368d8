//! DISTINCT arguments: a count for each group and value.
//!
//! 1. `fold` adds a batch's weights to the counts of its (group, arguments) pairs.
//! 2. `end_epoch` gives each pair that appeared (+1) or disappeared (-1) as a row for the
//!    accumulators, and forgets pairs whose count is 0.
//!
//! Rows with a NULL argument are left out, except for functions that take NULL as a value.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, UInt32Type};

use super::select::Selected;
use crate::functions::aggregate::Rows;
use crate::functions::aggregate::layout::Input;
use crate::state::group_table::GroupTable;
use crate::types::error::Result;

/// The different arguments of each group.
pub(super) struct DistinctRows {
    /// Keys: group id, then the arguments. The row count is all that is kept of a pair.
    pub(super) pairs: GroupTable,
    pub(super) argument_types: Vec<DataType>,
    skips_nulls: bool,
    /// The pairs of the batch at hand.
    ids: Vec<u32>,
}

impl DistinctRows {
    pub(super) fn new(input: &Input) -> Result<DistinctRows> {
        let argument_types: Vec<DataType> =
            input.arguments.iter().map(|a| a.data_type.clone()).collect();
        let key_types: Vec<DataType> =
            [DataType::UInt32].into_iter().chain(argument_types.iter().cloned()).collect();
        let pairs = GroupTable::new(&key_types, 1)?;
        Ok(DistinctRows { pairs, argument_types, skips_nulls: input.skips_nulls, ids: Vec::new() })
    }

    /// Counts rows.
    pub(super) fn fold(&mut self, rows: &Rows<'_>) -> Result<()> {
        let mut nulls = None;
        for argument in rows.arguments.iter().filter(|_| self.skips_nulls) {
            nulls = NullBuffer::union(nulls.as_ref(), argument.logical_nulls().as_ref());
        }
        let groups: ArrayRef = Arc::new(UInt32Array::from(rows.groups.to_vec()));
        let mut columns: Vec<ArrayRef> =
            [groups].into_iter().chain(rows.arguments.iter().cloned()).collect();
        let mut weights = rows.weights.map(Cow::Borrowed);
        if let Some(nulls) = nulls.filter(|n| n.null_count() > 0) {
            let valid = UInt32Array::from_iter_values(nulls.valid_indices().map(|row| row as u32));
            for column in &mut columns {
                *column = take(column, &valid, None)?;
            }
            let kept = |w: Cow<'_, [i64]>| nulls.valid_indices().map(|row| w[row]).collect();
            weights = weights.map(kept);
        }
        self.pairs.intern(&columns, columns[0].len(), &mut self.ids)?;
        self.pairs.touch(&self.ids);
        self.pairs.count_rows(&self.ids, weights.as_deref());
        Ok(())
    }

    /// The pairs that appeared or disappeared in this epoch.
    pub(super) fn end_epoch(&mut self) -> Result<Selected<'static>> {
        let mut changed = Vec::new();
        let mut weights = Vec::new();
        for (place, pair) in self.pairs.dirty().iter().enumerate() {
            let (before, now) = self.pairs.counts(place)?;
            if (before == 0) != (now == 0) {
                changed.push(*pair);
                weights.push(if now == 0 { -1 } else { 1 });
            }
        }
        let mut columns = self.pairs.keys(&changed)?;
        let groups = columns.remove(0).as_primitive::<UInt32Type>().values().to_vec();
        let dead = self.pairs.dead();
        self.pairs.end_epoch(&dead)?;
        let all_inserts = weights.iter().all(|weight| *weight == 1);
        Ok(Selected {
            groups: Cow::Owned(groups),
            weights: (!all_inserts).then_some(Cow::Owned(weights)),
            arguments: columns,
        })
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.pairs.memory_bytes() + self.ids.capacity() * size_of::<u32>()
    }
}
