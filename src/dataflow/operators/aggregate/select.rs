//! The rows of a batch that pass a FILTER, with the columns that an input needs.

use std::borrow::Cow;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take;

use crate::functions::aggregate::Rows;
use crate::functions::aggregate::layout::Argument;
use crate::types::error::Result;

/// Which rows of a batch pass; made once per batch and filter.
pub(in crate::dataflow::operators) enum Selection {
    All,
    Some(UInt32Array),
}

impl Selection {
    /// The rows where the filter column is true; all without a filter.
    pub(in crate::dataflow::operators) fn new(
        rows: &RecordBatch,
        filter: Option<usize>,
    ) -> Selection {
        let Some(filter) = filter else { return Selection::All };
        let filter = rows.column(filter).as_boolean();
        let passes = |row: &u32| filter.is_valid(*row as usize) && filter.value(*row as usize);
        Selection::Some((0..filter.len() as u32).filter(passes).collect())
    }

    /// The selected rows with these columns.
    pub(in crate::dataflow::operators) fn of<'a>(
        &self,
        rows: &RecordBatch,
        groups: &'a [u32],
        weights: Option<&'a [i64]>,
        arguments: &[Argument],
    ) -> Result<Selected<'a>> {
        let columns = arguments.iter().map(|argument| rows.column(argument.column));
        Ok(match self {
            Selection::All => Selected {
                groups: Cow::Borrowed(groups),
                weights: weights.map(Cow::Borrowed),
                arguments: columns.cloned().collect(),
            },
            Selection::Some(chosen) => {
                let places = chosen.values();
                let of = |place: &u32| *place as usize;
                Selected {
                    groups: places.iter().map(|p| groups[of(p)]).collect(),
                    weights: weights.map(|w| places.iter().map(|p| w[of(p)]).collect()),
                    arguments: columns
                        .map(|column| Ok(take(column, chosen, None)?))
                        .collect::<Result<_>>()?,
                }
            }
        })
    }
}

/// Rows on their way to an accumulator.
pub(in crate::dataflow::operators) struct Selected<'a> {
    pub(in crate::dataflow::operators) groups: Cow<'a, [u32]>,
    pub(in crate::dataflow::operators) weights: Option<Cow<'a, [i64]>>,
    pub(in crate::dataflow::operators) arguments: Vec<ArrayRef>,
}

impl Selected<'_> {
    pub(in crate::dataflow::operators) fn rows(&self) -> Rows<'_> {
        Rows { groups: &self.groups, weights: self.weights.as_deref(), arguments: &self.arguments }
    }
}
