//! What the rows of a stretch of a partition amount to, and values of calls out of it.
//!
//! A running sum at a row is the sum of all rows before it, and the row. So a stretch of rows is
//! summed up once (the words of the accumulators of `functions::aggregate`, and how many rows and
//! groups of peers there are), sums of stretches are merged, and values are computed from the sum
//! of what stands before a row on: the rows before are not read again.
//!
//! 1. [`Kernel::summarize`] folds rows into one [`Summary`]; [`Kernel::merge`] appends another.
//! 2. [`Kernel::values`] computes the values of a stretch: every row is folded alone, then a scan
//!    merges each row with the one before it, beginning with the summary of what stands before.
//!
//! Accumulators only ever fold rows in here, so that `min` and `max` need but a word.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Schema};

use crate::dataflow::operators::aggregate::calls;
use crate::dataflow::operators::aggregate::select::Selection;
use crate::functions::aggregate::layout::{Kind, Layout, ROW_COUNT};
use crate::functions::aggregate::{ChangedRows, Evaluate, Slots};
use crate::plan::node::{AggregateCall, AggregateFunction};
use crate::plan::window::{Edge, Numbering, OpenFrame, Summable, WindowCall};
use crate::types::error::{Error, Result};
use crate::types::value::{Shape, shape_of};

/// The values of each call that is summed up, or the number of a call and why it has none.
type CallValues = std::result::Result<Vec<Option<ArrayRef>>, (usize, Error)>;

/// What consecutive rows of a partition amount to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Summary {
    /// The accumulators' words; word 0 is the number of rows.
    words: Box<[u64]>,
    /// What accumulators have beside their words, with their numbers; mostly nothing.
    beside: Vec<(usize, Vec<u8>)>,
    /// Groups of peers that begin here.
    groups: u64,
    /// Rows before the last of these groups; 0 when there is none.
    last_group: u64,
}

impl Summary {
    pub(super) fn rows(&self) -> u64 {
        self.words[ROW_COUNT]
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Summary>() + self.words.len() * 8
    }

    fn beside(&self, slot: usize) -> Option<&[u8]> {
        self.beside.iter().find(|(of, _)| *of == slot).map(|(_, bytes)| bytes.as_slice())
    }
}

/// What stands around a stretch of rows.
pub(super) struct Around {
    pub(super) before: Summary,
    pub(super) after: Summary,
    /// The whole partition.
    pub(super) total: Summary,
}

/// How a call is computed.
enum Computed {
    Number(Numbering),
    Value(Value),
}

struct Value {
    evaluate: Box<dyn Evaluate>,
    frame: OpenFrame,
    /// Two sums with the same value stay so, whatever rows are added to both.
    by_value: bool,
}

/// Which summaries decide whether rows keep their values.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Of the rows before.
    Before,
    /// Of the rows after.
    After,
    /// Of the whole partition.
    Total,
}

/// Computes summaries, and the calls that can be computed from them.
pub(super) struct Kernel {
    layout: Layout,
    /// For each call of the operator; `None`: it is not computed here.
    calls: Vec<Option<Computed>>,
    return_types: Vec<DataType>,
}

impl Kernel {
    /// `None` when no call can be computed from summaries.
    pub(super) fn new(calls: &[WindowCall], input: &Schema) -> Result<Option<Kernel>> {
        let mut layout = Layout::default();
        let computed = calls
            .iter()
            .map(|call| match &call.summable {
                None | Some(Summable::Sliding { .. }) => Ok(None),
                Some(Summable::Number(number)) => Ok(Some(Computed::Number(*number))),
                Some(Summable::Aggregate { call, frame }) => {
                    let mut alone = Layout::default();
                    // What has no accumulators, or none that can be merged, is computed row by row.
                    let merges = calls::plan(&mut alone, call, true, input).is_ok()
                        && !call.distinct
                        && alone.accumulators.iter().all(|placed| {
                            let arguments = &alone.inputs[placed.input].arguments;
                            merges(&placed.kind, arguments.first().map(|a| &a.data_type))
                        });
                    if !merges {
                        return Ok(None);
                    }
                    let evaluate = calls::plan(&mut layout, call, true, input)?;
                    let by_value = stays_by_value(call);
                    Ok(Some(Computed::Value(Value { evaluate, frame: *frame, by_value })))
                }
            })
            .collect::<Result<Vec<_>>>()?;
        if computed.iter().all(Option::is_none) {
            return Ok(None);
        }
        let return_types = calls.iter().map(|call| call.return_type.clone()).collect();
        Ok(Some(Kernel { layout, calls: computed, return_types }))
    }

    /// Whether a call is computed here.
    pub(super) fn computes(&self, call: usize) -> bool {
        self.calls[call].is_some()
    }

    /// Whether some call looks to this side.
    pub(super) fn looks(&self, side: Side) -> bool {
        self.calls.iter().flatten().any(|call| call.looks(side))
    }

    /// Whether some call counts groups of peers.
    pub(super) fn counts_groups(&self) -> bool {
        let counts = |call: &Computed| {
            matches!(
                call,
                Computed::Number(Numbering::Rank | Numbering::DenseRank | Numbering::PercentRank)
            )
        };
        self.calls.iter().flatten().any(counts)
    }

    /// The other ends of open frames.
    pub(super) fn edges(&self, side: Side) -> impl Iterator<Item = Edge> {
        self.calls.iter().flatten().filter_map(move |call| match (call, side) {
            (Computed::Number(Numbering::CumeDist), Side::Before) => Some(Edge::Peers),
            (Computed::Value(Value { frame: OpenFrame::To(edge), .. }), Side::Before)
            | (Computed::Value(Value { frame: OpenFrame::From(edge), .. }), Side::After) => {
                Some(*edge)
            }
            _ => None,
        })
    }

    /// The summary of no rows.
    pub(super) fn empty(&self) -> Summary {
        let words = vec![0; self.layout.stride].into();
        Summary { words, beside: Vec::new(), groups: 0, last_group: 0 }
    }

    /// Folds rows into their groups' words.
    fn fold(&mut self, rows: &RecordBatch, groups: &[u32], words: &mut [u64]) -> Result<()> {
        let stride = self.layout.stride;
        for group in groups {
            words[*group as usize * stride + ROW_COUNT] += 1;
        }
        for (index, input) in self.layout.inputs.iter().enumerate() {
            let selection = Selection::new(rows, input.filter);
            let selected = selection.of(rows, groups, None, &input.arguments)?;
            for placed in self.layout.accumulators.iter_mut().filter(|p| p.input == index) {
                placed.fold(words, stride, &selected.rows())?;
            }
        }
        Ok(())
    }

    /// The summary of rows; `begins` says of which a group of peers begins.
    pub(super) fn summarize(&mut self, rows: &RecordBatch, begins: &[bool]) -> Result<Summary> {
        let mut summary = self.empty();
        self.fold(rows, &vec![0; rows.num_rows()], &mut summary.words)?;
        for (row, _) in begins.iter().enumerate().filter(|(_, begins)| **begins) {
            summary.groups += 1;
            summary.last_group = row as u64;
        }
        self.put_beside(&mut summary);
        Ok(summary)
    }

    /// Takes what accumulators keep of a summary out of them.
    fn put_beside(&mut self, summary: &mut Summary) {
        let stride = self.layout.stride;
        for (slot, placed) in self.layout.accumulators.iter_mut().enumerate() {
            let mut slots = Slots { words: &mut summary.words, stride, offset: placed.offset };
            let width = placed.accumulator.width_words();
            let own = &slots.words[placed.offset..][..width];
            if let Some(saved) = placed.accumulator.save(own) {
                placed.accumulator.free(&mut slots, &[0]);
                summary.beside.push((slot, saved));
            }
        }
    }

    /// The words of a summary, with what stands beside them in the accumulators again; they are
    /// freed with [`Kernel::release`].
    fn load(&mut self, summary: &Summary, words: &mut [u64]) -> Result<()> {
        words.copy_from_slice(&summary.words);
        for (slot, placed) in self.layout.accumulators.iter_mut().enumerate() {
            if let Some(saved) = summary.beside(slot) {
                let width = placed.accumulator.width_words();
                placed.accumulator.load(&mut words[placed.offset..][..width], saved)?;
            }
        }
        Ok(())
    }

    /// Frees what accumulators keep of these rows of words.
    fn release(&mut self, words: &mut [u64]) {
        let groups: Vec<u32> = (0..(words.len() / self.layout.stride) as u32).collect();
        self.layout.free(words, &groups);
    }

    /// Makes `own` the summary of its rows and those of `other`, which stand behind.
    pub(super) fn merge(&mut self, own: &mut Summary, other: &Summary) -> Result<()> {
        if other.groups > 0 {
            own.last_group = own.rows() + other.last_group;
        }
        own.groups += other.groups;
        own.words[ROW_COUNT] += other.words[ROW_COUNT];
        let beside = std::mem::take(&mut own.beside);
        let stride = self.layout.stride;
        for (slot, placed) in self.layout.accumulators.iter_mut().enumerate() {
            let width = placed.accumulator.width_words();
            let range = placed.offset..placed.offset + width;
            let words = &mut own.words[range.clone()];
            if let Some((_, saved)) = beside.iter().find(|(of, _)| *of == slot) {
                placed.accumulator.load(words, saved)?;
            }
            placed.accumulator.merge(words, &other.words[range], other.beside(slot))?;
            if let Some(saved) = placed.accumulator.save(words) {
                let mut slots = Slots { words: &mut own.words, stride, offset: placed.offset };
                placed.accumulator.free(&mut slots, &[0]);
                own.beside.push((slot, saved));
            }
        }
        Ok(())
    }

    /// Whether rows that look to this side, where one summary or another stands, have the same
    /// values, whatever rows stand between. `false` when that is not known.
    pub(super) fn same(&mut self, side: Side, l: &Summary, r: &Summary) -> Result<bool> {
        for call in 0..self.calls.len() {
            let same = match &self.calls[call] {
                Some(computed) if computed.looks(side) => match computed {
                    Computed::Number(number) => match (side, number) {
                        (Side::Before, Numbering::DenseRank) => l.groups == r.groups,
                        (Side::Before, Numbering::Rank | Numbering::PercentRank) => {
                            l.rows() == r.rows() && l.last_group == r.last_group
                        }
                        _ => l.rows() == r.rows(),
                    },
                    Computed::Value(value) if value.by_value || side == Side::Total => {
                        match (self.value(call, l)?, self.value(call, r)?) {
                            (Some(l), Some(r)) => l.to_data() == r.to_data(),
                            _ => false,
                        }
                    }
                    Computed::Value(_) => l.words == r.words && l.beside == r.beside,
                },
                _ => continue,
            };
            if !same {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The value of a call over all rows of a summary; `None` when it cannot be computed.
    fn value(&mut self, call: usize, summary: &Summary) -> Result<Option<ArrayRef>> {
        let mut words = vec![0; self.layout.stride];
        self.load(summary, &mut words)?;
        let value = self.evaluate(call, &words, &[0]);
        self.release(&mut words);
        Ok(value?.ok())
    }

    /// The values of an aggregate for some rows of words.
    fn evaluate(
        &self,
        call: usize,
        words: &[u64],
        chosen: &[usize],
    ) -> Result<Result<ArrayRef, Error>> {
        let Some(Computed::Value(value)) = &self.calls[call] else {
            return Err(Error::internal("only aggregates have words"));
        };
        let (stride, count) = (self.layout.stride, chosen.len());
        // As they were: nothing was there, and so nothing that could fail.
        let mut both = vec![0; count * stride];
        for row in chosen {
            both.extend_from_slice(&words[row * stride..][..stride]);
        }
        let groups: Vec<u32> = (0..count as u32).collect();
        let rows = ChangedRows { groups: &groups, words: &both, stride, remembered_from: 0 };
        let evaluated = value.evaluate.evaluate(&rows, &self.layout.accumulators)?;
        if let Some((_, error)) = evaluated.failed.into_iter().find(|(row, _)| *row >= count) {
            return Ok(Err(error));
        }
        Ok(Ok(evaluated.values.slice(count, count)))
    }

    /// The values of all calls that are computed here, for the wanted rows of a stretch; for each
    /// the number of the call. The error is that of a call that has no value for some row.
    pub(super) fn values(
        &mut self,
        rows: &RecordBatch,
        begins: &[bool],
        around: &Around,
        total: &Summary,
        wanted: &Range<usize>,
    ) -> Result<CallValues> {
        let stretch = Stretch { begins, before: &around.before, total: total.rows(), wanted };
        let forward = self.scan(rows, &around.before, Side::Before)?;
        let backward = self.scan(rows, &around.after, Side::After)?;
        let mut total_words = vec![0; self.layout.stride];
        self.load(total, &mut total_words)?;
        let mut columns = Vec::with_capacity(self.calls.len());
        let mut failed = None;
        for call in 0..self.calls.len() {
            let values = match &self.calls[call] {
                None => {
                    columns.push(None);
                    continue;
                }
                Some(Computed::Number(number)) => Ok(stretch.numbers(*number)),
                Some(Computed::Value(value)) => match value.frame {
                    OpenFrame::All => match self.evaluate(call, &total_words, &[0])? {
                        Ok(value) => {
                            let all = UInt32Array::from(vec![0; wanted.len()]);
                            Ok(take(&value, &all, None)?)
                        }
                        Err(error) => Err(error),
                    },
                    OpenFrame::To(edge) => {
                        let ends = stretch.ends(edge);
                        self.evaluate(call, forward.as_deref().unwrap_or(&[]), &ends)?
                    }
                    OpenFrame::From(edge) => {
                        let starts = stretch.starts(edge);
                        self.evaluate(call, backward.as_deref().unwrap_or(&[]), &starts)?
                    }
                },
            };
            match values {
                Ok(values) if *values.data_type() == self.return_types[call] => {
                    columns.push(Some(values));
                }
                Ok(values) => columns.push(Some(cast(&values, &self.return_types[call])?)),
                Err(error) => {
                    failed = Some((call, error));
                    break;
                }
            }
        }
        self.release(&mut total_words);
        for mut words in [forward, backward].into_iter().flatten() {
            self.release(&mut words);
        }
        Ok(match failed {
            Some(failed) => Err(failed),
            None => Ok(columns),
        })
    }

    /// A row of words for each number of rows that a summary is extended by: forward from what
    /// stands before, backward from what stands after, from the last row on. `None` where no
    /// aggregate looks there.
    fn scan(&mut self, rows: &RecordBatch, from: &Summary, side: Side) -> Result<Option<Vec<u64>>> {
        let is_asked = |call: &Computed| matches!(call, Computed::Value(_)) && call.looks(side);
        if !self.calls.iter().flatten().any(is_asked) {
            return Ok(None);
        }
        let (stride, count) = (self.layout.stride, rows.num_rows());
        let mut words = vec![0; (count + 1) * stride];
        let groups: Vec<u32> = match side {
            Side::After => (0..count as u32).collect(),
            Side::Before | Side::Total => (1..=count as u32).collect(),
        };
        self.fold(rows, &groups, &mut words)?;
        let first = if side == Side::After { count } else { 0 };
        self.load(from, &mut words[first * stride..][..stride])?;
        for step in 1..=count {
            let (own, other) = match side {
                Side::After => {
                    let (own, other) = words.split_at_mut((count - step + 1) * stride);
                    (&mut own[(count - step) * stride..], &other[..stride])
                }
                Side::Before | Side::Total => {
                    let (other, own) = words.split_at_mut(step * stride);
                    (&mut own[..stride], &other[(step - 1) * stride..])
                }
            };
            self.layout.merge_row(own, other)?;
        }
        Ok(Some(words))
    }
}

impl Computed {
    fn looks(&self, side: Side) -> bool {
        match (self, side) {
            (Computed::Number(_), Side::Before) => true,
            (Computed::Number(number), Side::Total) => {
                matches!(number, Numbering::PercentRank | Numbering::CumeDist | Numbering::Ntile(_))
            }
            (Computed::Number(_), Side::After) => false,
            (Computed::Value(value), side) => matches!(
                (value.frame, side),
                (OpenFrame::All, Side::Total)
                    | (OpenFrame::To(_), Side::Before)
                    | (OpenFrame::From(_), Side::After)
            ),
        }
    }
}

/// Whether an accumulator's words can be merged, and nothing of it stands elsewhere for good.
fn merges(kind: &Kind, argument: Option<&DataType>) -> bool {
    match kind {
        Kind::Count
        | Kind::IntegerSum
        | Kind::WideSum
        | Kind::FloatSum(_)
        | Kind::IntervalSum
        | Kind::TrueCount
        | Kind::BitFold { .. }
        | Kind::BitXor => true,
        Kind::Extreme { append_only, .. } => {
            *append_only && argument.is_some_and(|t| shape_of(t) != Shape::Bytes)
        }
        Kind::BitCounts { .. } | Kind::Ordered { .. } => false,
    }
}

/// Whether equal values of a function stay equal when the same rows are added to both.
fn stays_by_value(call: &AggregateCall) -> bool {
    match call.function {
        AggregateFunction::Count
        | AggregateFunction::Min
        | AggregateFunction::Max
        | AggregateFunction::BoolAnd
        | AggregateFunction::BoolOr
        | AggregateFunction::BitAnd
        | AggregateFunction::BitOr
        | AggregateFunction::BitXor => true,
        // What a float leaves out of its exact sum may count later.
        AggregateFunction::Sum => !call.return_type.is_floating(),
        _ => false,
    }
}

/// Rows of which values are wanted, with what stands around them.
struct Stretch<'a> {
    begins: &'a [bool],
    before: &'a Summary,
    /// Rows of the partition.
    total: u64,
    wanted: &'a Range<usize>,
}

impl Stretch<'_> {
    /// For each wanted row, how many rows of the stretch its frame has.
    fn ends(&self, edge: Edge) -> Vec<usize> {
        let count = self.begins.len();
        match edge {
            Edge::Row(by) => self.shifted(by, 1),
            Edge::Peers => {
                let mut ends = vec![count; self.wanted.len()];
                let mut end = count;
                for row in (self.wanted.start..count).rev() {
                    if row < self.wanted.end {
                        ends[row - self.wanted.start] = end;
                    }
                    if self.begins[row] {
                        end = row;
                    }
                }
                ends
            }
        }
    }

    /// For each wanted row, where in the stretch its frame starts.
    fn starts(&self, edge: Edge) -> Vec<usize> {
        match edge {
            Edge::Row(by) => self.shifted(by, 0),
            Edge::Peers => {
                let mut start = 0;
                let mut starts = Vec::with_capacity(self.wanted.len());
                for row in 0..self.wanted.end {
                    if self.begins[row] {
                        start = row;
                    }
                    if row >= self.wanted.start {
                        starts.push(start);
                    }
                }
                starts
            }
        }
    }

    fn shifted(&self, by: i64, more: i64) -> Vec<usize> {
        let count = self.begins.len() as i64;
        let place = |row: usize| {
            (row as i64).saturating_add(by).saturating_add(more).clamp(0, count) as usize
        };
        self.wanted.clone().map(place).collect()
    }

    fn numbers(&self, function: Numbering) -> ArrayRef {
        let (before, total) = (self.before, self.total);
        let first = before.rows();
        match function {
            Numbering::RowNumber => {
                let numbers = self.wanted.clone().map(|row| first + row as u64 + 1);
                Arc::new(UInt64Array::from_iter_values(numbers))
            }
            Numbering::Rank => Arc::new(UInt64Array::from(self.ranks())),
            Numbering::PercentRank => {
                let rest = total.saturating_sub(1).max(1) as f64;
                let ranks = self.ranks();
                let shares = ranks.iter().map(|rank| rank.saturating_sub(1) as f64 / rest);
                Arc::new(Float64Array::from_iter_values(shares))
            }
            Numbering::DenseRank => {
                let mut groups = before.groups;
                let mut ranks = Vec::with_capacity(self.wanted.len());
                for row in 0..self.wanted.end {
                    groups += u64::from(self.begins[row]);
                    if row >= self.wanted.start {
                        ranks.push(groups);
                    }
                }
                Arc::new(UInt64Array::from(ranks))
            }
            Numbering::CumeDist => {
                let ends = self.ends(Edge::Peers);
                let shares = ends.iter().map(|end| (first + *end as u64) as f64 / total as f64);
                Arc::new(Float64Array::from_iter_values(shares))
            }
            Numbering::Ntile(buckets) => {
                let numbers =
                    self.wanted.clone().map(|row| bucket(first + row as u64, total, buckets));
                Arc::new(UInt64Array::from_iter_values(numbers))
            }
        }
    }

    fn ranks(&self) -> Vec<u64> {
        let first = self.before.rows();
        let mut group = self.before.last_group;
        let mut ranks = Vec::with_capacity(self.wanted.len());
        for row in 0..self.wanted.end {
            if self.begins[row] {
                group = first + row as u64;
            }
            if row >= self.wanted.start {
                ranks.push(group + 1);
            }
        }
        ranks
    }
}

/// The bucket, from 1 on, of a row: the first `total % buckets` buckets have a row more.
fn bucket(row: u64, total: u64, buckets: u64) -> u64 {
    let (small, large_buckets) = (total / buckets, total % buckets);
    let in_large = large_buckets * (small + 1);
    if row < in_large {
        row / (small + 1) + 1
    } else {
        // Not in a larger bucket: the others have at least one row.
        large_buckets + (row - in_large) / small.max(1) + 1
    }
}
