//! Aggregates over frames that move along with the row: `sum(x) OVER (... ROWS 10 PRECEDING)`.
//!
//! A frame differs from that of the row before by the rows that it takes in and those that it gives
//! up. So the accumulators of `functions::aggregate`, which can take rows back, fold each row of a
//! part twice, column by column: where it enters the frame, and with weight -1 where it leaves.
//! That gives what each row's frame differs by, and a scan over these, from the first row on, what
//! it has. A row costs the same however long frames are.
//!
//! All of these accumulators are exact, so it makes no difference where a part begins.
//!
//! Where a frame is said by sort values (`RANGE INTERVAL '1 hour' PRECEDING`), the values at its ends
//! are computed for all rows at once; two places that only go forward find the rows that they mean.

use std::ops::Range;

use arrow::array::{ArrayRef, AsArray, RecordBatch, Scalar, make_comparator};
use arrow::compute::kernels::numeric;
use arrow::compute::{CastOptions, SortOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, IntervalMonthDayNanoType, Schema};

use crate::dataflow::operators::aggregate::calls;
use crate::dataflow::operators::aggregate::select::Selection;
use crate::functions::aggregate::layout::{Kind, Layout, ROW_COUNT};
use crate::functions::aggregate::{ChangedRows, Evaluate};
use crate::plan::node::SortColumn;
use crate::plan::window::{MovingFrame, RangeEdge, Summable, WindowCall};
use crate::types::error::{Error, Result};

/// Computes one call.
pub(super) struct Sliding {
    layout: Layout,
    evaluate: Box<dyn Evaluate>,
    frame: MovingFrame,
    /// What rows are sorted by, where frames are by sort values.
    sort: Option<SortColumn>,
    return_type: DataType,
}

/// Where the frames of wanted rows begin, and behind which rows they end. Neither ever goes back, and
/// no end is before its start.
struct Edges {
    starts: Vec<usize>,
    ends: Vec<usize>,
}

impl Sliding {
    /// `None` for a call that is not computed here.
    pub(super) fn new(
        call: &WindowCall,
        order_by: &[SortColumn],
        input: &Schema,
    ) -> Result<Option<Sliding>> {
        let Some(Summable::Sliding { call: aggregate, frame }) = &call.summable else {
            return Ok(None);
        };
        let sort = match (frame, order_by) {
            (MovingFrame::Rows { .. }, _) => None,
            (MovingFrame::Range { .. }, [sort]) => Some(sort.clone()),
            (MovingFrame::Range { .. }, _) => return Ok(None),
        };
        if let (Some(sort), MovingFrame::Range { start, end }) = (&sort, frame) {
            let sorted = input.field(sort.column).data_type();
            if !moves_evenly(sorted, start) || !moves_evenly(sorted, end) {
                return Ok(None);
            }
        }
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
        Ok(Some(Sliding { layout, evaluate, frame: frame.clone(), sort, return_type }))
    }

    /// The edges of the frames of wanted rows; `None` where some cannot be computed.
    fn edges(&self, rows: &RecordBatch, wanted: &Range<usize>) -> Result<Option<Edges>> {
        let count = rows.num_rows();
        let place =
            |row: usize, by: i64| (row as i64).saturating_add(by).clamp(0, count as i64) as usize;
        let (starts, ends): (Vec<usize>, Vec<usize>) = match (&self.frame, &self.sort) {
            (MovingFrame::Rows { first, last }, _) => (
                wanted.clone().map(|row| place(row, *first)).collect(),
                wanted.clone().map(|row| place(row, last.saturating_add(1))).collect(),
            ),
            (MovingFrame::Range { start, end }, Some(sort)) => {
                let values = rows.column(sort.column);
                let options =
                    SortOptions { descending: sort.descending, nulls_first: sort.nulls_first };
                let wanted_values = values.slice(wanted.start, wanted.len());
                let (Some(start), Some(end)) = (
                    moved(&wanted_values, start, sort.descending),
                    moved(&wanted_values, end, sort.descending),
                ) else {
                    return Ok(None);
                };
                let before_start = make_comparator(values, &start, options)?;
                let before_end = make_comparator(values, &end, options)?;
                let (mut from, mut to) = (0, 0);
                let edges = (0..wanted.len()).map(|row| {
                    while from < count && before_start(from, row).is_lt() {
                        from += 1;
                    }
                    while to < count && before_end(to, row).is_le() {
                        to += 1;
                    }
                    (from, to)
                });
                edges.unzip()
            }
            (MovingFrame::Range { .. }, None) => return Ok(None),
        };
        let ends = starts.iter().zip(ends).map(|(start, end)| end.max(*start)).collect();
        Ok(Some(Edges { starts, ends }))
    }

    /// The values of the wanted rows of a part that has all rows of their frames; `None` where the
    /// window expression is to be asked. The error inside is that of some row that has no value.
    pub(super) fn values(
        &mut self,
        rows: &RecordBatch,
        wanted: &Range<usize>,
    ) -> Result<Option<Result<ArrayRef, Error>>> {
        let Some(Edges { starts, ends }) = self.edges(rows, wanted)? else { return Ok(None) };
        let stride = self.layout.stride;
        let mut words = vec![0; wanted.len() * stride];
        let from = starts.first().copied().unwrap_or(0);
        self.fold(rows, from, &ends, 1, &mut words)?;
        self.fold(rows, from, &starts, -1, &mut words)?;
        for step in 1..wanted.len() {
            let (before, own) = words.split_at_mut(step * stride);
            self.layout.merge_row(&mut own[..stride], &before[(step - 1) * stride..])?;
        }
        let values = self.evaluate(&words, wanted.len())?;
        let groups: Vec<u32> = (0..wanted.len() as u32).collect();
        self.layout.free(&mut words, &groups);
        Ok(Some(match values {
            Ok(values) if *values.data_type() != self.return_type => {
                Ok(cast(&values, &self.return_type)?)
            }
            values => values,
        }))
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

/// Whether a greater sort value never has a lesser edge: where a month or a day is not of one length,
/// some have.
fn moves_evenly(sorted: &DataType, edge: &RangeEdge) -> bool {
    // Two zeros of floats are peers, and no arithmetic makes one of the other.
    if sorted.is_floating() {
        return false;
    }
    let offset = match edge {
        RangeEdge::Peers => return true,
        RangeEdge::Before(offset) | RangeEdge::After(offset) => offset,
    };
    let Some(by) = offset.as_primitive_opt::<IntervalMonthDayNanoType>() else { return true };
    let by = by.value(0);
    by.months == 0 && (by.days == 0 || !matches!(sorted, DataType::Timestamp(_, Some(_))))
}

/// Sort values at the edge of a frame; `None` when some of them cannot be computed.
fn moved(values: &ArrayRef, edge: &RangeEdge, descending: bool) -> Option<ArrayRef> {
    let (offset, back) = match edge {
        RangeEdge::Peers => return Some(values.clone()),
        RangeEdge::Before(offset) => (offset, !descending),
        RangeEdge::After(offset) => (offset, descending),
    };
    let offset = Scalar::new(offset.clone());
    let moved = if back { numeric::sub(values, &offset) } else { numeric::add(values, &offset) };
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(&moved.ok()?, values.data_type(), &options).ok()
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
