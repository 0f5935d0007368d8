//! Aggregation by windows that overlap, each emitted once, when it closes: its panes are put together
//! only then.
//!
//! Rows come as partial sums by key and pane, and wait. When the watermark closes a window, all of
//! its panes are complete. The windows are gone through in order; with each, panes enter at one end
//! and leave at the other. What a key has in the window is the sum of two:
//!
//! ```text
//!             turned panes         others
//!  panes     | 4 | 5 | 6 | 7 |  | 8 | 9 | 10 |
//!  back      what is left of the turned ones: 4 to 7, then 5 to 7, then 6 and 7, ...
//!  front                         8, then 8 and 9, then 8 to 10, ...
//! ```
//!
//! 1. A pane that enters is added to the front.
//! 2. When the oldest pane leaves, the back becomes the sum of the turned panes behind it, which was
//!    noted when they were turned.
//! 3. When none is left, all panes are turned: from the newest to the oldest each notes what stands
//!    behind it and is added; the front begins anew.
//!
//! So a pane of a key is merged a fixed number of times, however many windows it is in, and nothing is
//! ever subtracted: it works for `min` and `max` as for sums. A window costs its rows, and merging
//! for the keys of the panes that enter or leave it; the sums of other keys are those of the window
//! before.
//!
//! Keeps: a row of words per key and pane, until the last window of the pane has closed; and for each
//! key of the window at hand three more (front, back, both), for a turned pane one. Those are made
//! again after a restart. What has closed is stored, so that no window is emitted twice.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions,
    TimestampMicrosecondArray,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};

use super::emit::{failures, row_text};
use super::spread::panes_and_sums;
use super::{Aggregate, AggregateSpec};
use crate::dataflow::operator::{Operator, Output, RowError};
use crate::functions::aggregate::ChangedRows;
use crate::functions::aggregate::layout::Layout;
use crate::plan::event_time::{TimeBound, time_values};
use crate::plan::node::{self, Phase};
use crate::plan::overlap::ManyWindows;
use crate::state::delta::{CheckpointReader, CheckpointWriter, TableDelta};
use crate::state::group_index::GroupIndex;
use crate::state::spill::StoreVisitor;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};
use crate::types::id::WorkerId;
use crate::types::time::{Epoch, Watermark};

/// Rows of one output batch.
const BATCH_ROWS: usize = 8192;
/// The table that says which windows have closed.
const CLOSED: &str = "closed";

/// A pane of the window at hand.
struct Pane {
    start: i64,
    /// Of `SlidingAggregate::panes`, each with its slot.
    groups: Vec<u32>,
    slots: Vec<u32>,
    /// Of a turned pane: for each slot the sum of the turned panes behind it.
    behind: Vec<u64>,
}

/// The `aggregate` operator over windows that overlap and are final.
pub struct SlidingAggregate {
    windows: ManyWindows,
    /// What the watermark says of windows: no change of one before it is still to come.
    bound: TimeBound,
    schema: SchemaRef,
    /// Sums by the other keys and the pane.
    panes: Aggregate,
    /// Groups of panes that have not entered. Some may have gone meanwhile, and their number may be
    /// another group's.
    waiting: BTreeMap<i64, Vec<u32>>,
    /// In order of time.
    entered: VecDeque<Pane>,
    /// So many of `entered` are turned, the oldest.
    turned: usize,
    /// The keys of the window at hand by slot.
    keys: GroupIndex,
    has_keys: bool,
    /// By slot: how many of the panes have the key.
    pane_counts: Vec<u32>,
    /// By slot, rows of words.
    front: Vec<u64>,
    back: Vec<u64>,
    both: Vec<u64>,
    /// Windows before this time have closed.
    closed_to: i64,
    /// The same in the last checkpoint, and the id of its row.
    stored: Option<(i64, u64)>,
    watermark: Option<Watermark>,
}

impl SlidingAggregate {
    /// `bound`: what the input's watermark says of windows.
    ///
    /// # Errors
    /// For a call that Millstream does not have, as the whole aggregation.
    pub fn new(
        node: &node::Aggregate,
        bound: TimeBound,
        input: &SchemaRef,
    ) -> Result<SlidingAggregate> {
        let Phase::Windows { input_schema, windows } = &node.phase else {
            return Err(Error::internal("an aggregation over windows knows them"));
        };
        let spec = AggregateSpec {
            keys: node.keys.clone(),
            calls: node.calls.clone(),
            append_only: node.append_only,
            phase: Phase::Final { input_schema: input_schema.clone() },
            time_keys: vec![],
            on_close: false,
            schema: node.schema.clone(),
        };
        let others = node.keys.len() - 1;
        let key_types: Vec<DataType> =
            node.keys[..others].iter().map(|key| input.field(*key).data_type().clone()).collect();
        let mut panes = Aggregate::new(spec, input, WorkerId(0))?;
        panes.routed_by = Some(others);
        Ok(SlidingAggregate {
            windows: *windows,
            bound,
            schema: node.schema.clone(),
            panes,
            waiting: BTreeMap::new(),
            entered: VecDeque::new(),
            turned: 0,
            keys: GroupIndex::new(&key_types)?,
            has_keys: others > 0,
            pane_counts: Vec::new(),
            front: Vec::new(),
            back: Vec::new(),
            both: Vec::new(),
            closed_to: i64::MIN,
            stored: None,
            watermark: None,
        })
    }

    /// The pane of each of these groups.
    fn panes_of(&self, groups: &[u32]) -> Result<Int64Array> {
        let keys = self.panes.table.keys(groups)?;
        let panes = keys.last().and_then(time_values);
        panes.ok_or_else(|| Error::internal("the last key is a pane"))
    }

    /// Notes groups that are new.
    fn note_waiting(&mut self, groups: &[u32]) -> Result<()> {
        let panes = self.panes_of(groups)?;
        for (group, pane) in groups.iter().zip(panes.values()) {
            self.waiting.entry(*pane).or_default().push(*group);
        }
        Ok(())
    }

    /// The groups that the epoch made.
    fn made_in_epoch(&self) -> Result<Vec<u32>> {
        let mut made = Vec::new();
        for (place, group) in self.panes.table.dirty().iter().enumerate() {
            let (before, now) = self.panes.table.counts(place)?;
            if before == 0 && now != 0 {
                made.push(*group);
            }
        }
        Ok(made)
    }

    /// The next window before `to` that has rows; the panes before it have gone then.
    fn next_window(&mut self, to: i64, out: &mut Output) -> Result<Option<i64>> {
        let from = self.windows.not_before(self.closed_to);
        let mut touched = Vec::new();
        while self.entered.front().is_some_and(|oldest| self.windows.last_of(oldest.start) < from) {
            self.leave(&mut touched, out)?;
        }
        self.sum_up(touched)?;
        loop {
            let waiting = self.waiting.keys().next().copied();
            let oldest = self.entered.front().map(|pane| pane.start).or(waiting);
            let Some(oldest) = oldest else { return Ok(None) };
            let window = self.windows.first_of(oldest).max(from);
            if window <= self.windows.last_of(oldest) {
                return Ok((window < to).then_some(window));
            }
            // Between windows that do not touch.
            let groups = self.take_waiting(oldest)?;
            self.panes.free_groups(groups, out)?;
        }
    }

    /// Takes out the groups that wait for a pane, those that are still there.
    fn take_waiting(&mut self, pane: i64) -> Result<Vec<u32>> {
        let mut groups = self.waiting.remove(&pane).unwrap_or_default();
        groups.sort_unstable();
        groups.dedup();
        groups.retain(|group| self.panes.table.is_live(*group));
        let panes = self.panes_of(&groups)?;
        let mut panes = panes.values().iter();
        groups.retain(|_| panes.next() == Some(&pane));
        Ok(groups)
    }

    /// Lets the panes of a window enter, whose oldest pane is there or is the next.
    fn advance(&mut self, window: i64) -> Result<()> {
        let (begin, end) = self.windows.span(window);
        let mut touched = Vec::new();
        while let Some(pane) = self.waiting.keys().next().copied().filter(|pane| *pane < end) {
            assert!(pane >= begin, "a pane enters with its first window that has not closed");
            let groups = self.take_waiting(pane)?;
            self.enter(pane, groups, &mut touched)?;
        }
        self.sum_up(touched)
    }

    fn enter(&mut self, start: i64, groups: Vec<u32>, touched: &mut Vec<u32>) -> Result<()> {
        if groups.is_empty() {
            return Ok(());
        }
        let mut keys = self.panes.table.keys(&groups)?;
        keys.pop();
        let mut slots = Vec::new();
        self.keys.intern(&keys, groups.len(), &mut slots)?;
        let Aggregate { table, layout, .. } = &mut self.panes;
        let (stride, limit) = (layout.stride, self.keys.id_limit());
        for words in [&mut self.front, &mut self.back, &mut self.both] {
            words.resize(limit * stride, 0);
        }
        self.pane_counts.resize(limit, 0);
        for (group, slot) in groups.iter().zip(&slots) {
            layout.merge_row(row_of(&mut self.front, *slot, stride), table.row(*group))?;
            self.pane_counts[*slot as usize] += 1;
        }
        touched.extend_from_slice(&slots);
        self.entered.push_back(Pane { start, groups, slots, behind: Vec::new() });
        Ok(())
    }

    /// The oldest pane leaves.
    fn leave(&mut self, touched: &mut Vec<u32>, out: &mut Output) -> Result<()> {
        if self.turned == 0 {
            self.turn()?;
        }
        let Some(pane) = self.entered.pop_front() else { return Ok(()) };
        self.turned -= 1;
        let layout = &mut self.panes.layout;
        let stride = layout.stride;
        free_rows(layout, &mut self.back, &pane.slots);
        for (slot, behind) in pane.slots.iter().zip(pane.behind.chunks(stride)) {
            row_of(&mut self.back, *slot, stride).copy_from_slice(behind);
            self.pane_counts[*slot as usize] -= 1;
        }
        touched.extend_from_slice(&pane.slots);
        self.panes.free_groups(pane.groups, out)
    }

    /// Turns all panes, none of which is turned: the back is empty.
    fn turn(&mut self) -> Result<()> {
        let Aggregate { table, layout, .. } = &mut self.panes;
        let stride = layout.stride;
        for pane in self.entered.iter_mut().rev() {
            pane.behind = vec![0; pane.slots.len() * stride];
            let behind = pane.behind.chunks_mut(stride);
            for ((group, slot), behind) in pane.groups.iter().zip(&pane.slots).zip(behind) {
                let back = row_of(&mut self.back, *slot, stride);
                layout.merge_row(behind, back)?;
                layout.merge_row(back, table.row(*group))?;
            }
        }
        for pane in &self.entered {
            free_rows(layout, &mut self.front, &pane.slots);
        }
        self.turned = self.entered.len();
        Ok(())
    }

    /// Adds front and back of slots that have changed; slots without panes are given back.
    fn sum_up(&mut self, mut slots: Vec<u32>) -> Result<()> {
        slots.sort_unstable();
        slots.dedup();
        let layout = &mut self.panes.layout;
        let stride = layout.stride;
        free_rows(layout, &mut self.both, &slots);
        for slot in &slots {
            let both = row_of(&mut self.both, *slot, stride);
            layout.merge_row(both, row_of(&mut self.back, *slot, stride))?;
            layout.merge_row(both, row_of(&mut self.front, *slot, stride))?;
        }
        if self.has_keys {
            slots.retain(|slot| self.pane_counts[*slot as usize] == 0);
            free_rows(&mut self.panes.layout, &mut self.both, &slots);
            self.keys.remove(&slots)?;
        }
        Ok(())
    }

    fn live_slots(&self) -> Vec<u32> {
        let counts = self.pane_counts.iter().enumerate();
        counts.filter(|(_, panes)| **panes > 0).map(|(slot, _)| slot as u32).collect()
    }

    /// Emits the rows of a window, whose panes are there.
    fn emit(&self, window: i64, out: &mut Output) -> Result<()> {
        for slots in self.live_slots().chunks(BATCH_ROWS) {
            let rows = self.rows(window, slots, out)?;
            out.emit(ChangeBatch::inserts(rows));
        }
        Ok(())
    }

    /// The rows of some keys in a window; those that cannot be represented are reported.
    fn rows(&self, window: i64, slots: &[u32], out: &mut Output) -> Result<RecordBatch> {
        let Aggregate { layout, values, spec, .. } = &self.panes;
        let stride = layout.stride;
        let range = |from: u32, to: u32| from as usize * stride..(to as usize + 1) * stride;
        let mut copied = Vec::new();
        let words: &[u64] = match slots {
            // Mostly they stand side by side.
            [first, .., last] if (last - first) as usize + 1 == slots.len() => {
                &self.both[range(*first, *last)]
            }
            slots => {
                copied.reserve(slots.len() * stride);
                slots.iter().for_each(|s| copied.extend_from_slice(&self.both[range(*s, *s)]));
                &copied[..]
            }
        };
        let changed = ChangedRows { groups: slots, words, stride, remembered_from: 0 };
        let evaluated = values
            .iter()
            .map(|value| value.evaluate(&changed, &layout.accumulators))
            .collect::<Result<Vec<_>>>()?;
        let keys = self.keys.gather(slots)?;
        let failures = failures(&evaluated, &vec![true; slots.len()]);
        let mut columns = keys.clone();
        let field = self.schema.field(columns.len());
        let windows = TimestampMicrosecondArray::from(vec![window; slots.len()]);
        columns.push(Arc::new(windows.with_data_type(field.data_type().clone())));
        columns.extend(evaluated.into_iter().map(|evaluated| evaluated.values));
        let options = RecordBatchOptions::new().with_row_count(Some(slots.len()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        let Some(failures) = failures else { return Ok(rows) };
        let keys: Vec<ArrayRef> = rows.columns()[..=keys.len()].to_vec();
        for (row, failure) in failures.iter().enumerate() {
            let Some(failure) = failure else { continue };
            out.row_error(RowError {
                error: failure.error.clone(),
                expression: spec.calls[failure.call].display.clone(),
                row: row_text(&keys, row)?,
                weight: 1,
            });
        }
        let fine: BooleanArray = failures.iter().map(|failure| Some(failure.is_none())).collect();
        Ok(filter_record_batch(&rows, &fine)?)
    }

    /// Emits the windows that the watermark has closed; says so when there are more to come.
    fn close(&mut self, out: &mut Output) -> Result<()> {
        let Some(watermark) = self.watermark else { return Ok(()) };
        let to = self.bound.at(watermark);
        while self.closed_to < to {
            let Some(window) = self.next_window(to, out)? else {
                self.closed_to = to;
                break;
            };
            self.advance(window)?;
            self.emit(window, out)?;
            self.closed_to = window.saturating_add(self.windows.step_us).min(to);
            if out.is_full() && self.closed_to < to {
                out.unfinished();
                break;
            }
        }
        Ok(())
    }
}

/// The row of words of a slot.
fn row_of(words: &mut [u64], slot: u32, stride: usize) -> &mut [u64] {
    &mut words[slot as usize * stride..][..stride]
}

/// Makes rows of words empty, each there once, with what accumulators keep for them beside.
fn free_rows(layout: &mut Layout, words: &mut [u64], slots: &[u32]) {
    layout.free(words, slots);
    for slot in slots {
        row_of(words, *slot, layout.stride).fill(0);
    }
}

impl Operator for SlidingAggregate {
    fn name(&self) -> &'static str {
        "aggregate"
    }

    fn on_batch(&mut self, port: usize, batch: ChangeBatch, out: &mut Output) -> Result<()> {
        let (panes, _) = panes_and_sums(&batch, self.panes.spec.keys.len() - 1)?;
        // Rows without a time are in no window.
        let batch = match panes.nulls().filter(|nulls| nulls.null_count() > 0) {
            Some(nulls) => batch.filter(&BooleanArray::new(nulls.inner().clone(), None))?,
            None => batch,
        };
        self.panes.on_batch(port, batch, out)
    }

    fn on_watermark(&mut self, _: usize, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.watermark = Some(watermark);
        out.emit_watermark(watermark);
        Ok(())
    }

    fn on_epoch(&mut self, _: Epoch, out: &mut Output) -> Result<()> {
        if !self.panes.table.dirty().is_empty() {
            self.panes.settle()?;
            let made = self.made_in_epoch()?;
            self.panes.end_epoch()?;
            self.note_waiting(&made)?;
        }
        self.close(out)
    }

    fn checkpoint(&mut self, _: Epoch, writer: &mut CheckpointWriter) -> Result<()> {
        self.panes.write_checkpoint(writer)?;
        if self.stored.is_none_or(|(closed_to, _)| closed_to != self.closed_to) {
            let id = self.stored.map_or(0, |(_, id)| id + 1);
            let field = Field::new("to", DataType::Int64, false);
            let to = Int64Array::from(vec![self.closed_to]);
            let row = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![Arc::new(to)])?;
            let deleted = self.stored.iter().map(|(_, id)| *id).collect();
            writer.write(CLOSED, TableDelta { appended: vec![(vec![id].into(), row)], deleted });
            self.stored = Some((self.closed_to, id));
        }
        Ok(())
    }

    fn go_on_with_checkpoint(&mut self, writer: &mut CheckpointWriter) -> Result<bool> {
        self.panes.go_on_with_checkpoint(writer)
    }

    fn restore(&mut self, reader: &mut CheckpointReader) -> Result<()> {
        self.panes.read_checkpoint(reader)?;
        for rows in reader.read_everywhere(CLOSED) {
            let to = rows.column(0).as_primitive_opt::<Int64Type>();
            let to = to.ok_or_else(|| Error::internal("closed windows are a time"))?;
            self.closed_to = to.values().iter().copied().fold(self.closed_to, i64::max);
        }
        self.note_waiting(&self.panes.table.live())
    }

    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        self.panes.visit_stores(visit);
    }

    fn memory_bytes(&self) -> usize {
        let words = self.front.capacity() + self.back.capacity() + self.both.capacity();
        let panes = self.entered.iter().map(|pane| {
            pane.behind.capacity() * size_of::<u64>()
                + (pane.groups.capacity() + pane.slots.capacity()) * size_of::<u32>()
        });
        let waiting = self.waiting.values().map(|groups| groups.capacity() * size_of::<u32>());
        self.panes.memory_bytes()
            + self.keys.memory_bytes()
            + words * size_of::<u64>()
            + panes.sum::<usize>()
            + waiting.sum::<usize>()
            + self.pane_counts.capacity() * size_of::<u32>()
    }

    fn state_rows(&self) -> usize {
        self.panes.state_rows()
    }
}
