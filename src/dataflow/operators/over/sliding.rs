//! Aggregates over frames that move along with the row: `sum(x) OVER (... ROWS 10 PRECEDING)`.
//!
//! A frame differs from that of the row before by the rows that it takes in and those that it gives
//! up. So the accumulators of `functions::aggregate`, which can take rows back, fold each row of a
//! part twice, column by column: where it enters the frame, and with weight -1 where it leaves.
//! That gives what each row's frame differs by, and a scan over these, from the first row on, what
//! it has. A row costs the same however long frames are.
//!
//! All of these accumulators are exact, so it makes no difference where a part begins.

use std::ops::Range;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};

use crate::dataflow::operators::aggregate::calls;
use crate::dataflow::operators::aggregate::select::Selection;
use crate::functions::aggregate::layout::{Kind, Layout, ROW_COUNT};
use crate::functions::aggregate::{ChangedRows, Evaluate, Slots};
use crate::plan::window::{Summable, WindowCall};
use crate::types::error::{Error, Result};

/// Computes one call.
pub(super) struct Sliding {
    layout: Layout,
    evaluate: Box<dyn Evaluate>,
    /// The first and the last row of a frame, counted from the row itself.
    first: i64,
    last: i64,
    return_type: DataType,
}

impl Sliding {
    /// `None` for a call that is not computed here.
    pub(super) fn new(call: &WindowCall, input: &Schema) -> Result<Option<Sliding>> {
        let Some(Summable::Sliding { call: aggregate, first, last }) = &call.summable else {
            return Ok(None);
        };
        let mut layout = Layout::default();
        // The window expression knows more functions than there are accumulators.
        let Ok(evaluate) = calls::plan(&mut layout, aggregate, false, input) else {
            return Ok(None);
        };
        let fits = layout.accumulators.iter().all(|placed| takes_back_and_merges(&placed.kind));
        if !fits || aggregate.distinct || !aggregate.order_by.is_empty() {
            return Ok(None);
        }
        let return_type = call.return_type.clone();
        Ok(Some(Sliding { layout, evaluate, first: *first, last: *last, return_type }))
    }

    /// The values of the wanted rows of a part that has all rows of their frames. The error inside
    /// is that of some row that has no value.
    pub(super) fn values(
        &mut self,
        rows: &RecordBatch,
        wanted: &Range<usize>,
    ) -> Result<Result<ArrayRef, Error>> {
        let count = rows.num_rows() as i64;
        let place = |row: usize, by: i64| (row as i64).saturating_add(by).clamp(0, count) as usize;
        // Rows from `starts` on, up to `ends`; both never go back.
        let starts: Vec<usize> = wanted.clone().map(|row| place(row, self.first)).collect();
        let ends = wanted.clone().zip(&starts);
        let ends: Vec<usize> =
            ends.map(|(row, start)| place(row, self.last.saturating_add(1)).max(*start)).collect();
        let stride = self.layout.stride;
        let mut words = vec![0; wanted.len() * stride];
        let from = starts.first().copied().unwrap_or(0);
        self.fold(rows, from, &ends, 1, &mut words)?;
        self.fold(rows, from, &starts, -1, &mut words)?;
        for step in 1..wanted.len() {
            let (before, own) = words.split_at_mut(step * stride);
            let (before, own) = (&before[(step - 1) * stride..], &mut own[..stride]);
            own[ROW_COUNT] = own[ROW_COUNT].wrapping_add(before[ROW_COUNT]);
            for placed in &mut self.layout.accumulators {
                let range = placed.offset..placed.offset + placed.accumulator.width_words();
                let before = &before[range.clone()];
                let saved = placed.accumulator.save(before);
                placed.accumulator.merge(&mut own[range], before, saved.as_deref())?;
            }
        }
        let values = self.evaluate(&words, wanted.len())?;
        let groups: Vec<u32> = (0..wanted.len() as u32).collect();
        for placed in &mut self.layout.accumulators {
            let mut slots = Slots { words: &mut words, stride, offset: placed.offset };
            placed.accumulator.free(&mut slots, &groups);
        }
        Ok(match values {
            Ok(values) if *values.data_type() != self.return_type => {
                Ok(cast(&values, &self.return_type)?)
            }
            values => values,
        })
    }

    /// Folds the rows from `from` on with a weight: those before `edges[0]` into the words of the
    /// first wanted row, those up to each further edge into those of its row.
    fn fold(
        &mut self,
        rows: &RecordBatch,
        from: usize,
        edges: &[usize],
        weight: i64,
        words: &mut [u64],
    ) -> Result<()> {
        let stride = self.layout.stride;
        let mut groups: Vec<u32> = Vec::with_capacity(edges.last().map_or(0, |last| last - from));
        for (row, edge) in edges.iter().enumerate() {
            let passed = edge - from - groups.len();
            groups.extend(std::iter::repeat_n(row as u32, passed));
            let rows = &mut words[row * stride + ROW_COUNT];
            *rows = rows.wrapping_add_signed(weight * passed as i64);
        }
        if groups.is_empty() {
            return Ok(());
        }
        let passed = rows.slice(from, groups.len());
        let weights = vec![weight; groups.len()];
        for (index, input) in self.layout.inputs.iter().enumerate() {
            let selection = Selection::new(&passed, input.filter);
            let selected = selection.of(&passed, &groups, Some(&weights), &input.arguments)?;
            for placed in self.layout.accumulators.iter_mut().filter(|p| p.input == index) {
                placed.fold(words, stride, &selected.rows())?;
            }
        }
        Ok(())
    }

    /// The values of so many rows of words.
    fn evaluate(&self, words: &[u64], count: usize) -> Result<Result<ArrayRef, Error>> {
        // As they were: nothing was there, and so nothing that could fail.
        let mut both = vec![0; count * self.layout.stride];
        both.extend_from_slice(words);
        let groups: Vec<u32> = (0..count as u32).collect();
        let stride = self.layout.stride;
        let rows = ChangedRows { groups: &groups, words: &both, stride, remembered_from: 0 };
        let evaluated = self.evaluate.evaluate(&rows, &self.layout.accumulators)?;
        if let Some((_, error)) = evaluated.failed.into_iter().find(|(row, _)| *row >= count) {
            return Ok(Err(error));
        }
        Ok(Ok(evaluated.values.slice(count, count)))
    }
}

/// Whether an accumulator takes rows back, its words can be merged, and both in any order: what a
/// frame differs by may have more rows that leave than rows that come.
fn takes_back_and_merges(kind: &Kind) -> bool {
    match kind {
        Kind::Count
        | Kind::IntegerSum
        | Kind::WideSum
        | Kind::FloatSum(_)
        | Kind::IntervalSum
        | Kind::TrueCount
        | Kind::BitXor => true,
        Kind::BitCounts { .. }
        | Kind::BitFold { .. }
        | Kind::Ordered { .. }
        | Kind::Extreme { .. } => false,
    }
}
