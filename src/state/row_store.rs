//! The rows of a table: segments in order of row id, deletion bits, snapshots, and what changed
//! since the last checkpoint.
//!
//! 1. An appended batch becomes a segment as it is. Sixteen segments of one size class at the end
//!    are merged into one (each row is written about twice in its life), up to
//!    [`SEGMENT_ROWS_MAX`] rows; those of [`LARGE_BYTES`] stay as they are.
//! 2. A deletion sets a bit. A segment more than half dead is rewritten without its dead rows,
//!    together with small neighbours; one that is wholly dead goes.
//! 3. Row ids never change, so neither merging nor rewriting touches an index. Only [`RowStore::front`]
//!    asks the owner to move rows: when the window of ids is several times longer than the number
//!    of living rows, the oldest are appended anew and die where they were.
//! 4. A checkpoint delta needs no log of inserts: it is what lives with an id past the mark of the
//!    last checkpoint. Ids from before the mark are noted when they die.
//!
//! When memory is short, segments go to the disk as they are ([`Spill`]), the coldest first; what is
//! merged or rewritten later is in memory again.
//!
//! Rewriting drops the data of dead rows. An index must therefore be rid of a row before
//! [`RowStore::compact`] runs, which is the only place where data goes.

use std::sync::{Arc, OnceLock};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions,
    UInt32Array, new_empty_array,
};
use arrow::buffer::ScalarBuffer;
use arrow::compute;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};

use crate::memory::spill::{Pass, Spill, StateMemory};
use crate::state::delta::TableDelta;
use crate::state::row_ids::{DeadBits, NIL, ShortId, WINDOW_IDS_MAX};
use crate::state::segment::Segment;
use crate::state::snapshot::Snapshot;
use crate::types::change::{ChangeBatch, Weights};
use crate::types::error::{Error, Result, SqlState};

/// Rows of the largest segment that merging makes: above, scans gain nothing and rewriting hurts.
pub const SEGMENT_ROWS_MAX: usize = 256 * 1024;
/// Bytes of the largest segment that merging makes; far from the 2 GiB that text offsets reach.
const SEGMENT_BYTES_MAX: usize = 256 * 1024 * 1024;
/// A segment of so many bytes is large enough: copying it into a larger one would cost more than
/// looking through some more segments does. Rows of a few numbers reach [`SEGMENT_ROWS_MAX`] first.
const LARGE_BYTES: usize = 4 * 1024 * 1024;
/// Segments of one size class that are merged into one.
const MERGE_SEGMENTS: usize = 16;
/// Below this, the dead rows of a segment wait for a merge: rewriting would cost more than they.
const REWRITE_ROWS_MIN: usize = 1024;
/// The window of ids may be this many times longer than the number of living rows ...
const WINDOW_PER_LIVE: u64 = 4;
/// ... plus this many ids (a chunk of links, 256 KiB, is not worth moving rows for).
const WINDOW_IDS_FREE: u64 = 64 * 1024;

/// More than one dead row in so many is left out of a checkpoint, which copies the others.
const DEAD_PART_MAX: usize = 3;

/// The column that checkpoint deltas carry after the table's own: copies of the row.
const WEIGHT_COLUMN: &str = "millstream_weight";

/// A segment in its table.
#[derive(Debug)]
struct Slot {
    segment: Arc<Segment>,
    /// Rows of the segment that are dead.
    dead_rows: usize,
}

impl Slot {
    fn live_rows(&self) -> usize {
        self.segment.num_rows() - self.dead_rows
    }
}

/// Rows by row id.
#[derive(Debug)]
pub struct RowStore {
    schema: SchemaRef,
    /// In order of ids; every one has a living row, except between a deletion and `compact`.
    slots: Vec<Slot>,
    /// The first id of each slot, for finding.
    starts: Vec<u64>,
    dead: DeadBits,
    /// The id that the next row gets.
    end: u64,
    live_rows: usize,
    /// Sum of the weights of living rows.
    weight_sum: i64,
    /// Slots whose segment has weights.
    weighted_slots: usize,
    /// Rows before this id are part of the last checkpoint; 0 before the first.
    checkpoint_end: u64,
    /// Ids before `checkpoint_end` that died since the last checkpoint.
    died: Vec<u64>,
    /// Slots that lost rows since `compact`.
    touched: bool,
    /// Of all segments, in memory and on the disk.
    segment_bytes: usize,
    disk_bytes: usize,
}

impl Spill for RowStore {
    fn spill(&mut self, memory: &StateMemory, pass: Pass) {
        // Oldest first: the newest are about to be merged, and looked up more often.
        for index in 0..self.slots.len() {
            if !memory.is_wanted() {
                return;
            }
            let segment = &self.slots[index].segment;
            let stays = segment.disk_bytes() > 0
                || segment.row_bytes() < pass.bytes_min
                || pass.spares_touched && segment.take_touched();
            if stays {
                continue;
            }
            if let Some(segment) = segment.on_disk(memory) {
                let before = std::mem::replace(&mut self.slots[index].segment, Arc::new(segment));
                self.segment_bytes -= before.memory_bytes();
                let segment = &self.slots[index].segment;
                self.segment_bytes += segment.memory_bytes();
                self.disk_bytes += segment.disk_bytes();
            }
        }
    }

    fn disk_bytes(&self) -> usize {
        self.disk_bytes
    }
}

impl RowStore {
    pub fn new(schema: SchemaRef) -> RowStore {
        RowStore {
            schema,
            slots: Vec::new(),
            starts: Vec::new(),
            dead: DeadBits::default(),
            end: 0,
            live_rows: 0,
            weight_sum: 0,
            weighted_slots: 0,
            checkpoint_end: 0,
            died: Vec::new(),
            touched: false,
            segment_bytes: 0,
            disk_bytes: 0,
        }
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Living rows, whatever their weight.
    pub fn live_rows(&self) -> usize {
        self.live_rows
    }

    /// Sum of the weights of living rows.
    pub fn weight_sum(&self) -> i64 {
        self.weight_sum
    }

    /// The first id of the window.
    pub fn base(&self) -> u64 {
        self.starts.first().copied().unwrap_or(self.end)
    }

    /// The id that the next row gets.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The window does not reach so far back: the row is long dead.
    pub fn outside(&self, id: ShortId) -> bool {
        let age = (self.end as u32).wrapping_sub(id);
        id == NIL || age == 0 || u64::from(age) > self.end - self.base()
    }

    /// Whether a row of the window is dead.
    pub fn is_dead(&self, id: ShortId) -> bool {
        self.dead.get(id)
    }

    /// Whether there may be dead rows in the window.
    pub fn any_dead(&self) -> bool {
        self.dead.any()
    }

    /// The whole of a row id of the window.
    pub fn full_id(&self, id: ShortId) -> u64 {
        self.end - u64::from((self.end as u32).wrapping_sub(id))
    }

    /// Appends rows; gives the id of the first, the others follow.
    ///
    /// # Errors
    /// When the table has two thousand million rows.
    pub fn append(&mut self, batch: &ChangeBatch) -> Result<u64> {
        let rows = batch.num_rows() as u64;
        // No id may end in the bits of NIL: a batch that would reach them starts behind.
        if (self.end & u64::from(u32::MAX)) + rows >= u64::from(u32::MAX) {
            self.end = (self.end | u64::from(u32::MAX)) + 1;
        }
        if self.end + rows - self.base() > WINDOW_IDS_MAX {
            return Err(Error::user(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                "a table cannot hold more than 2000000000 rows per worker",
            )
            .hint("Run the server with more workers."));
        }
        let start = self.end;
        if rows == 0 {
            return Ok(start);
        }
        for offset in (0..batch.num_rows()).step_by(SEGMENT_ROWS_MAX) {
            let length = SEGMENT_ROWS_MAX.min(batch.num_rows() - offset);
            let part = batch.slice(offset, length);
            let weights = match part.weights() {
                Weights::AllInserts => None,
                Weights::Each(weights) => Some(weights.clone()),
            };
            self.weight_sum =
                part.weight_sum().checked_add(self.weight_sum).ok_or_else(weight_overflow)?;
            let segment = Segment::fresh(start + offset as u64, part.into_rows(), weights)?;
            self.end = segment.end();
            self.live_rows += length;
            self.insert_slot(self.slots.len(), segment);
        }
        Ok(start)
    }

    fn insert_slot(&mut self, index: usize, segment: Segment) {
        self.segment_bytes += segment.memory_bytes();
        self.weighted_slots += usize::from(segment.weights().is_some());
        self.starts.insert(index, segment.start());
        self.slots.insert(index, Slot { segment: Arc::new(segment), dead_rows: 0 });
    }

    fn slot_of(&self, id: u64) -> usize {
        self.starts.partition_point(|start| *start <= id) - 1
    }

    /// Kills one row of the window, which is alive. Its data stay until `compact`.
    pub fn kill(&mut self, id: ShortId) {
        let id = self.full_id(id);
        let alive = self.dead.set(self.base(), id);
        assert!(alive, "row {id} dies once");
        self.note_deaths(&[id]);
    }

    /// Kills rows of the window, which are alive and each there once. Their data stay until
    /// `compact`.
    pub fn kill_all(&mut self, ids: &[ShortId]) {
        let ids: Vec<u64> = ids.iter().map(|id| self.full_id(*id)).collect();
        let killed = self.dead.set_all(self.base(), &ids);
        assert_eq!(killed, ids.len(), "a row dies once");
        self.note_deaths(&ids);
    }

    fn note_deaths(&mut self, ids: &[u64]) {
        let mut at = 0;
        for id in ids {
            // Deaths come in runs that lie in one segment.
            let hit = self
                .slots
                .get(at)
                .is_some_and(|slot| slot.segment.start() <= *id && *id < slot.segment.end());
            if !hit {
                at = self.slot_of(*id);
            }
            let slot = &mut self.slots[at];
            slot.dead_rows += 1;
            let weight = match slot.segment.weights() {
                None => 1,
                Some(weights) => weights[slot.segment.position(*id)],
            };
            self.weight_sum -= weight;
        }
        let checkpoint_end = self.checkpoint_end;
        self.died.extend(ids.iter().filter(|id| **id < checkpoint_end));
        self.live_rows -= ids.len();
        self.touched = true;
    }

    /// Merges small segments, rewrites what is mostly dead and lets go of what is wholly dead.
    pub fn compact(&mut self) -> Result<()> {
        if std::mem::take(&mut self.touched) {
            self.drop_dead()?;
        }
        self.merge_tail()
    }

    fn drop_dead(&mut self) -> Result<()> {
        if self.live_rows == 0 {
            self.remove_slots(0..self.slots.len());
            self.dead = DeadBits::default();
            return Ok(());
        }
        let mut index = self.slots.len();
        while index > 0 {
            index -= 1;
            let slot = &self.slots[index];
            let rows = slot.segment.num_rows();
            if slot.dead_rows == rows {
                self.remove_slots(index..index + 1);
            } else if rows >= REWRITE_ROWS_MIN && slot.dead_rows * 2 > rows {
                let range = self.with_small_neighbours(index);
                index = range.start;
                self.rewrite(range)?;
            }
        }
        let base = self.base();
        self.dead.drop_before(base);
        Ok(())
    }

    /// The slot and those beside it that are no larger than it, up to a quarter of a full segment.
    fn with_small_neighbours(&self, index: usize) -> std::ops::Range<usize> {
        let own = self.slots[index].live_rows();
        let mut sum = own;
        let mut fits = |slot: &Slot| {
            sum += slot.live_rows();
            slot.live_rows() <= own && sum <= SEGMENT_ROWS_MAX / 4
        };
        let before = self.slots[..index].iter().rev().take_while(|slot| fits(slot)).count();
        let after = self.slots[index + 1..].iter().take_while(|slot| fits(slot)).count();
        index - before..index + 1 + after
    }

    fn remove_slots(&mut self, range: std::ops::Range<usize>) {
        for slot in self.slots.drain(range.clone()) {
            self.segment_bytes -= slot.segment.memory_bytes();
            self.disk_bytes -= slot.segment.disk_bytes();
            self.weighted_slots -= usize::from(slot.segment.weights().is_some());
        }
        self.starts.drain(range);
    }

    /// Puts the living rows of these slots into one segment.
    fn rewrite(&mut self, range: std::ops::Range<usize>) -> Result<()> {
        let slots = &self.slots[range.clone()];
        let live: usize = slots.iter().map(Slot::live_rows).sum();
        let weighted = slots.iter().any(|slot| slot.segment.weights().is_some());
        let mut ids = Vec::with_capacity(live);
        let mut batches = Vec::with_capacity(slots.len());
        let mut weights: Vec<i64> = Vec::with_capacity(if weighted { live } else { 0 });
        for Slot { segment, .. } in slots {
            let alive = segment.alive(&self.dead);
            let keep = |position: usize| alive.as_ref().is_none_or(|a| a.value(position));
            ids.extend(
                segment.ids().into_iter().enumerate().filter(|(p, _)| keep(*p)).map(|(_, id)| id),
            );
            if weighted {
                weights.extend(
                    (0..segment.num_rows())
                        .filter(|p| keep(*p))
                        .map(|position| segment.weights().map_or(1, |weights| weights[position])),
                );
            }
            batches.push(match alive {
                None => segment.rows().clone(),
                Some(alive) => {
                    compute::filter_record_batch(segment.rows(), &BooleanArray::new(alive, None))?
                }
            });
        }
        let rows = compute::concat_batches(&self.schema, &batches)?;
        let weights = weighted.then(|| ScalarBuffer::from(weights));
        let index = range.start;
        self.remove_slots(range);
        if !ids.is_empty() {
            self.insert_slot(index, Segment::rewritten(&ids, rows, weights));
        }
        Ok(())
    }

    /// Merges the segments at the end that are as small as the last, when they are many.
    fn merge_tail(&mut self) -> Result<()> {
        while let Some(last) = self.slots.last() {
            let class = size_class(last.live_rows());
            let (mut rows, mut bytes, mut full) = (0, 0, false);
            let run = self
                .slots
                .iter()
                .rev()
                .take_while(|slot| slot.segment.row_bytes() < LARGE_BYTES)
                .take_while(|slot| {
                    rows += slot.live_rows();
                    bytes += slot.segment.row_bytes();
                    full = rows > SEGMENT_ROWS_MAX || bytes > SEGMENT_BYTES_MAX;
                    size_class(slot.live_rows()) <= class && !full
                })
                .count();
            let range = self.slots.len() - run..self.slots.len();
            let run_rows: usize = self.slots[range.clone()].iter().map(Slot::live_rows).sum();
            let fills = full && run_rows >= SEGMENT_ROWS_MAX / 2;
            if run < 2 || !(run >= MERGE_SEGMENTS || fills) {
                return Ok(());
            }
            self.rewrite(range)?;
        }
        Ok(())
    }

    /// Whether the window is so much longer than the living rows that the oldest should move.
    pub fn front_is_due(&self) -> bool {
        let window = self.end - self.base();
        let allowed = WINDOW_PER_LIVE * self.live_rows as u64 + WINDOW_IDS_FREE;
        window > allowed.min(WINDOW_IDS_MAX / 2)
    }

    /// The living rows of the oldest segment. Whoever asks appends them, moves them in the indexes
    /// and kills these ids.
    pub fn front(&self) -> Result<(Vec<ShortId>, ChangeBatch)> {
        let Some(Slot { segment, .. }) = self.slots.first() else {
            return Ok((vec![], ChangeBatch::empty(self.schema.clone())));
        };
        let rows = match segment.weights() {
            None => ChangeBatch::inserts(segment.rows().clone()),
            Some(weights) => ChangeBatch::new(segment.rows().clone(), weights.to_vec())?,
        };
        let ids = segment.ids();
        Ok(match segment.alive(&self.dead) {
            None => (ids.iter().map(|id| *id as u32).collect(), rows),
            Some(alive) => {
                let live = alive.set_indices().map(|position| ids[position] as u32).collect();
                (live, rows.filter(&BooleanArray::new(alive, None))?)
            }
        })
    }

    /// All living rows with their ids, ascending.
    pub fn live(&self) -> impl Iterator<Item = Result<(Vec<ShortId>, RecordBatch)>> {
        self.slots.iter().map(|Slot { segment, .. }| {
            let ids = segment.ids();
            let rows = segment.rows();
            Ok(match segment.alive(&self.dead) {
                None => (ids.iter().map(|id| *id as u32).collect(), rows.clone()),
                Some(alive) => {
                    let live = alive.set_indices().map(|position| ids[position] as u32).collect();
                    (live, compute::filter_record_batch(rows, &BooleanArray::new(alive, None))?)
                }
            })
        })
    }

    /// The batch and position of a living row.
    pub fn row(&self, id: ShortId) -> (&RecordBatch, usize) {
        let id = self.full_id(id);
        let segment = &self.slots[self.slot_of(id)].segment;
        (segment.rows(), segment.position(id))
    }

    /// Copies of a living row.
    pub fn weight(&self, id: ShortId) -> i64 {
        if self.weighted_slots == 0 {
            return 1;
        }
        let id = self.full_id(id);
        let segment = &self.slots[self.slot_of(id)].segment;
        segment.weights().map_or(1, |weights| weights[segment.position(id)])
    }

    /// Whether some living row may have another weight than 1.
    pub fn has_weights(&self) -> bool {
        self.weighted_slots > 0
    }

    /// These columns of these living rows, in this order.
    pub fn gather_columns(&self, columns: &[usize], ids: &[ShortId]) -> Result<Vec<ArrayRef>> {
        if columns.is_empty() {
            return Ok(vec![]);
        }
        let (hit, positions) = self.locate(ids);
        let gather = |column: &usize| -> Result<ArrayRef> {
            Ok(match hit.as_slice() {
                [] => new_empty_array(self.schema.field(*column).data_type()),
                [one] => {
                    let rows: UInt32Array = positions.iter().map(|(_, p)| *p as u32).collect();
                    compute::take(self.slots[*one].segment.rows().column(*column), &rows, None)?
                }
                many => {
                    let arrays: Vec<&dyn Array> = many
                        .iter()
                        .map(|slot| self.slots[*slot].segment.rows().column(*column).as_ref())
                        .collect();
                    compute::interleave(&arrays, &positions)?
                }
            })
        };
        columns.iter().map(gather).collect()
    }

    /// These living rows, in this order.
    pub fn gather(&self, ids: &[ShortId]) -> Result<RecordBatch> {
        let columns: Vec<usize> = (0..self.schema.fields().len()).collect();
        let arrays = self.gather_columns(&columns, ids)?;
        let options = RecordBatchOptions::new().with_row_count(Some(ids.len()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?)
    }

    /// The slots that are hit, and for each row (index among these slots, position).
    fn locate(&self, ids: &[ShortId]) -> (Vec<usize>, Vec<(usize, usize)>) {
        let mut hit = Vec::new();
        // Where each slot stands in `hit`.
        let mut places: Vec<u32> = vec![NIL; self.slots.len()];
        let positions = ids
            .iter()
            .map(|id| {
                let id = self.full_id(*id);
                let slot = self.slot_of(id);
                if places[slot] == NIL {
                    places[slot] = hit.len() as u32;
                    hit.push(slot);
                    self.slots[slot].segment.touch();
                }
                (places[slot] as usize, self.slots[slot].segment.position(id))
            })
            .collect();
        (hit, positions)
    }

    /// The content now. Costs O(segments).
    pub fn snapshot(&self) -> Snapshot {
        let segments = self.slots.iter().map(|slot| slot.segment.clone()).collect();
        Snapshot::new(self.schema.clone(), segments, self.dead.clone(), self.weight_sum)
    }

    /// What changed since the last call: rows with their weight as a last column. Rows of a
    /// segment of which little has died come as they are, without a copy, and the ids of the dead
    /// beside them.
    pub fn checkpoint_delta(&mut self) -> Result<TableDelta> {
        let mut delta =
            TableDelta { deleted: std::mem::take(&mut self.died), ..Default::default() };
        let schema = schema_with_weight(&self.schema);
        let first = self.starts.partition_point(|start| *start < self.checkpoint_end);
        for Slot { segment, .. } in &self.slots[first.saturating_sub(1)..] {
            if segment.end() <= self.checkpoint_end {
                continue;
            }
            let ids = segment.ids_from(self.checkpoint_end);
            let count = ids.len();
            let from = segment.num_rows() - count;
            let mut columns = segment.rows().slice(from, count).columns().to_vec();
            columns.push(Arc::new(match segment.weights() {
                None => ones(count),
                Some(weights) => Int64Array::new(weights.slice(from, count), None),
            }));
            let rows = RecordBatch::try_new(schema.clone(), columns)?;
            let alive = segment.alive(&self.dead).map(|alive| alive.slice(from, count));
            let dead = alive.as_ref().map_or(0, |alive| count - alive.count_set_bits());
            match alive {
                Some(alive) if dead * DEAD_PART_MAX > count => {
                    let keep = BooleanArray::new(alive, None);
                    if dead < count {
                        let ids = compute::filter(&ids, &keep)?;
                        let rows = compute::filter_record_batch(&rows, &keep)?;
                        delta.appended.push((ids.as_primitive::<UInt64Type>().clone(), rows));
                    }
                }
                Some(alive) => {
                    let dead =
                        (!&alive).set_indices().map(|row| ids.value(row)).collect::<Vec<_>>();
                    delta.deleted.extend(dead);
                    delta.appended.push((ids, rows));
                }
                None => delta.appended.push((ids, rows)),
            }
        }
        self.checkpoint_end = self.end;
        Ok(delta)
    }

    /// Splits a batch of a checkpoint into rows and weights.
    pub fn from_checkpoint(&self, batch: &RecordBatch) -> Result<ChangeBatch> {
        let columns = self.schema.fields().len();
        if batch.num_columns() != columns + 1 {
            return Err(Error::internal(format!(
                "a checkpoint row has {} columns instead of {columns} and its weight",
                batch.num_columns()
            )));
        }
        let weights = batch.column(columns);
        let weights = weights.as_any().downcast_ref::<Int64Array>().ok_or_else(|| {
            Error::internal(format!("a checkpoint has weights of type {}", weights.data_type()))
        })?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let arrays = batch.columns()[..columns].to_vec();
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?;
        ChangeBatch::new(rows, weights.values().to_vec())
    }

    /// Bytes in memory of the rows, deletion bits and indexes.
    pub fn memory_bytes(&self) -> usize {
        self.segment_bytes
            + self.slots.iter().map(|slot| slot.segment.index_bytes()).sum::<usize>()
            + self.slots.capacity() * (size_of::<Slot>() + size_of::<u64>())
            + self.dead.memory_bytes()
            + self.died.capacity() * size_of::<u64>()
    }
}

/// A sum of weights left the 64-bit range.
pub(super) fn weight_overflow() -> Error {
    Error::user(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "number of rows out of range")
        .detail("A table would hold more than 2^63 rows.")
}

/// Segments of a class differ less than sixteenfold in size.
fn size_class(rows: usize) -> u32 {
    rows.max(1).ilog2() / 4
}

/// So many weights of 1; those of all segments share their memory.
fn ones(count: usize) -> Int64Array {
    static ONES: OnceLock<ScalarBuffer<i64>> = OnceLock::new();
    match count <= SEGMENT_ROWS_MAX {
        true => {
            let all = ONES.get_or_init(|| vec![1; SEGMENT_ROWS_MAX].into());
            Int64Array::new(all.slice(0, count), None)
        }
        false => Int64Array::from(vec![1; count]),
    }
}

fn schema_with_weight(schema: &SchemaRef) -> SchemaRef {
    let mut fields = schema.fields().to_vec();
    fields.push(Arc::new(Field::new(WEIGHT_COLUMN, DataType::Int64, false)));
    Arc::new(Schema::new(fields))
}

#[cfg(test)]
mod tests;
