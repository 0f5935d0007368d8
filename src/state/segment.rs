//! A segment: immutable rows that cover a range of row ids.
//!
//! A fresh segment is a batch as it arrived, row `id` at position `id - start`. A rewritten one
//! (merged, or rid of its dead rows) has lost some ids of its range; then a rank bitmap tells the
//! position: one bit per id that is still held, and per 64 ids the number held before them. That
//! costs 0.19 bytes per id of the range and 2 ns a lookup, and the index need not know.
//!
//! A row may stand for several: `weights` holds the copies where any row has other than one. They
//! never change; a row whose weight changes dies and is appended anew.
//!
//! Rows and weights may go to the local disk ([`Segment::on_disk`]): then they are the same arrays
//! over a mapped file, and nobody who reads them can tell.
//!
//! Which rows are dead is not the segment's business (`row_ids::DeadBits`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, BooleanBufferBuilder, Int64Array, RecordBatch,
    RecordBatchOptions, UInt64Array,
};
use arrow::buffer::{BooleanBuffer, ScalarBuffer};
use arrow::compute;
use arrow::datatypes::{DataType, Int64Type};

use crate::memory::spill::StateMemory;
use crate::state::row_ids::DeadBits;
use crate::state::segment_index::SegmentIndex;
use crate::types::error::Result;

/// A slice is copied into its segment when it pins more than this beyond twice its own bytes.
const PINNED_BYTES_MAX: usize = 64 * 1024;

/// Which ids of a range are held, and where.
#[derive(Debug)]
struct RankBitmap {
    /// One bit per id, from the segment's first id on.
    words: Vec<u64>,
    /// Ids held before each word.
    ranks: Vec<u32>,
}

impl RankBitmap {
    /// `offsets` are the held ids relative to the segment's first, ascending.
    fn new(offsets: impl Iterator<Item = u64>, length: u64) -> RankBitmap {
        let mut words = vec![0u64; length.div_ceil(64) as usize];
        for offset in offsets {
            words[(offset / 64) as usize] |= 1 << (offset % 64);
        }
        let mut ranks = Vec::with_capacity(words.len());
        let mut rank = 0;
        for word in &words {
            ranks.push(rank);
            rank += word.count_ones();
        }
        RankBitmap { words, ranks }
    }

    fn position(&self, offset: u64) -> usize {
        let word = (offset / 64) as usize;
        let below = self.words[word] & ((1 << (offset % 64)) - 1);
        (self.ranks[word] + below.count_ones()) as usize
    }

    /// The offset of the id at a position.
    fn offset(&self, position: usize) -> u64 {
        let word = self.ranks.partition_point(|rank| *rank as usize <= position) - 1;
        let mut rest = self.words[word];
        for _ in self.ranks[word] as usize..position {
            rest &= rest - 1;
        }
        word as u64 * 64 + u64::from(rest.trailing_zeros())
    }

    fn holds(&self, offset: u64) -> bool {
        self.words[(offset / 64) as usize] >> (offset % 64) & 1 == 1
    }

    fn offsets(&self) -> impl Iterator<Item = u64> {
        self.words.iter().enumerate().flat_map(|(index, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros();
                rest &= rest.checked_sub(1)?;
                Some(index as u64 * 64 + u64::from(bit))
            })
        })
    }
}

/// Rows of the ids `start..end`, or of some of them.
#[derive(Debug)]
pub struct Segment {
    start: u64,
    end: u64,
    rows: RecordBatch,
    /// Copies of each row, none of them 0; `None`: one each.
    weights: Option<ScalarBuffer<i64>>,
    /// `None`: every id of the range is held.
    kept: Option<RankBitmap>,
    /// Bytes of rows and weights, wherever they are.
    row_bytes: usize,
    /// Bytes of the file that has rows and weights; 0 when they are in memory.
    disk_bytes: usize,
    /// Somebody has looked rows up here since it was asked.
    touched: AtomicBool,
    /// Made when rows are looked up by their columns first.
    indexes: Mutex<Vec<KeptIndex>>,
}

/// An index by some columns; `None` while someone makes it.
type KeptIndex = (Vec<usize>, Option<Arc<SegmentIndex>>);

impl Segment {
    /// A batch as it arrived. Views are compacted, and a slice that pins much more than itself is
    /// copied.
    pub fn fresh(
        start: u64,
        rows: RecordBatch,
        weights: Option<ScalarBuffer<i64>>,
    ) -> Result<Segment> {
        let end = start + rows.num_rows() as u64;
        Ok(Segment::build(start, end, own(rows)?, weights, None))
    }

    /// Rows of these ids, ascending, out of earlier segments.
    pub fn rewritten(
        ids: &[u64],
        rows: RecordBatch,
        weights: Option<ScalarBuffer<i64>>,
    ) -> Segment {
        assert_eq!(ids.len(), rows.num_rows(), "one id per row");
        let (Some(first), Some(last)) = (ids.first(), ids.last()) else {
            panic!("a rewritten segment has rows");
        };
        let (start, end) = (*first, *last + 1);
        let full = end - start == ids.len() as u64;
        let kept = (!full).then(|| RankBitmap::new(ids.iter().map(|id| *id - start), end - start));
        Segment::build(start, end, rows, weights, kept)
    }

    fn build(
        start: u64,
        end: u64,
        rows: RecordBatch,
        weights: Option<ScalarBuffer<i64>>,
        kept: Option<RankBitmap>,
    ) -> Segment {
        assert!(start < end, "a segment has rows");
        if let Some(weights) = &weights {
            assert_eq!(weights.len(), rows.num_rows(), "one weight per row");
        }
        let row_bytes = rows.columns().iter().map(slice_bytes).sum::<usize>()
            + weights.as_ref().map_or(0, |w| w.len() * size_of::<i64>());
        let (touched, indexes) = (AtomicBool::new(true), Mutex::default());
        Segment { start, end, rows, weights, kept, row_bytes, disk_bytes: 0, touched, indexes }
    }

    /// The same segment with its rows on the disk; `None` when the disk does not take them, or they
    /// are there.
    pub fn on_disk(&self, memory: &StateMemory) -> Option<Segment> {
        if self.disk_bytes > 0 {
            return None;
        }
        let mut arrays = self.rows.columns().to_vec();
        if let Some(weights) = &self.weights {
            arrays.push(Arc::new(Int64Array::new(weights.clone(), None)));
        }
        let (mut arrays, disk_bytes) = memory.write(&arrays, self.row_bytes)?;
        let weights = self.weights.as_ref().map(|_| {
            let weights = arrays.pop().expect("they were written last");
            weights.as_primitive::<Int64Type>().values().clone()
        });
        let rows = batch_of(&self.rows, arrays).expect("they are the same arrays");
        let kept = self
            .kept
            .as_ref()
            .map(|kept| RankBitmap { words: kept.words.clone(), ranks: kept.ranks.clone() });
        Some(Segment {
            start: self.start,
            end: self.end,
            rows,
            weights,
            kept,
            row_bytes: self.row_bytes,
            disk_bytes,
            touched: AtomicBool::new(false),
            indexes: Mutex::new(self.lock_indexes().clone()),
        })
    }

    /// Bytes of the file that has the rows; 0 when they are in memory.
    pub fn disk_bytes(&self) -> usize {
        self.disk_bytes
    }

    /// Bytes of rows and weights, wherever they are.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Rows are looked up here.
    pub fn touch(&self) {
        self.touched.store(true, Ordering::Relaxed);
    }

    /// Whether rows were looked up here since this was asked last.
    pub fn take_touched(&self) -> bool {
        self.touched.swap(false, Ordering::Relaxed)
    }

    /// The first id of the range.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// One past the last id of the range.
    pub fn end(&self) -> u64 {
        self.end
    }

    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    pub fn num_rows(&self) -> usize {
        self.rows.num_rows()
    }

    pub fn weights(&self) -> Option<&ScalarBuffer<i64>> {
        self.weights.as_ref()
    }

    /// Where the row of a held id stands.
    pub fn position(&self, id: u64) -> usize {
        debug_assert!(self.start <= id && id < self.end, "row {id} is elsewhere");
        match &self.kept {
            None => (id - self.start) as usize,
            Some(kept) => {
                debug_assert!(kept.holds(id - self.start), "row {id} was dropped");
                kept.position(id - self.start)
            }
        }
    }

    /// The ids held, in order of position.
    pub fn ids(&self) -> Vec<u64> {
        match &self.kept {
            None => (self.start..self.end).collect(),
            Some(kept) => kept.offsets().map(|offset| self.start + offset).collect(),
        }
    }

    /// The ids held from `first` on, which are those of the last positions.
    pub fn ids_from(&self, first: u64) -> UInt64Array {
        match &self.kept {
            None => UInt64Array::from_iter_values(first.max(self.start)..self.end),
            Some(kept) => {
                let ids = kept.offsets().map(|offset| self.start + offset);
                UInt64Array::from_iter_values(ids.skip_while(|id| *id < first))
            }
        }
    }

    /// Which rows are alive, by position; `None` when all are.
    pub fn alive(&self, dead: &DeadBits) -> Option<BooleanBuffer> {
        if !dead.any() {
            return None;
        }
        let mut alive = BooleanBufferBuilder::new(self.num_rows());
        match &self.kept {
            None => dead.push_alive(self.start, self.end, &mut alive).then(|| alive.finish()),
            Some(kept) => {
                let mut any_dead = false;
                for (index, kept_ids) in kept.words.iter().enumerate() {
                    let dead_ids = dead.word_at(self.start + index as u64 * 64) & kept_ids;
                    if dead_ids == 0 {
                        alive.append_n(kept_ids.count_ones() as usize, true);
                        continue;
                    }
                    any_dead = true;
                    let mut rest = *kept_ids;
                    while rest != 0 {
                        alive.append(dead_ids >> rest.trailing_zeros() & 1 == 0);
                        rest &= rest - 1;
                    }
                }
                any_dead.then(|| alive.finish())
            }
        }
    }

    /// The id of the row at a position.
    pub fn id_at(&self, position: usize) -> u64 {
        match &self.kept {
            None => self.start + position as u64,
            Some(kept) => self.start + kept.offset(position),
        }
    }

    /// Where the rows stand by these columns; made if nobody has made it yet.
    ///
    /// # Errors
    /// For a column whose type cannot be hashed.
    pub fn index(&self, columns: &[usize]) -> Result<Arc<SegmentIndex>> {
        if let Some(index) = self.ready_index(columns) {
            return Ok(index);
        }
        // Not under the lock: lookups by other columns go on meanwhile.
        let made = SegmentIndex::new(&self.rows, columns).map(Arc::new);
        let mut indexes = self.lock_indexes();
        indexes.retain(|(of, _)| of != columns);
        let made = made?;
        indexes.push((columns.to_vec(), Some(made.clone())));
        Ok(made)
    }

    /// The same, if it is there.
    pub fn ready_index(&self, columns: &[usize]) -> Option<Arc<SegmentIndex>> {
        let indexes = self.lock_indexes();
        indexes.iter().find(|(of, _)| of == columns).and_then(|(_, index)| index.clone())
    }

    /// Whether an index is not there, and nobody makes it; then the caller has to.
    pub fn claim_index(&self, columns: &[usize]) -> bool {
        let mut indexes = self.lock_indexes();
        let free = indexes.iter().all(|(of, _)| of != columns);
        if free {
            indexes.push((columns.to_vec(), None));
        }
        free
    }

    /// Lets an index go that nobody wants any more.
    pub fn forget_index(&self, columns: &[usize]) {
        self.lock_indexes().retain(|(of, _)| of != columns);
    }

    fn lock_indexes(&self) -> MutexGuard<'_, Vec<KeptIndex>> {
        self.indexes.lock().expect("nobody panics while holding it")
    }

    /// Bytes in memory but for indexes: they never change.
    pub fn memory_bytes(&self) -> usize {
        let rows = if self.disk_bytes > 0 { 0 } else { self.row_bytes };
        rows + self.kept.as_ref().map_or(0, |k| k.words.len() * 12)
            + size_of::<Segment>()
            // An array, its data type and the Arcs of its buffers.
            + self.rows.num_columns() * 160
    }

    /// Bytes of the indexes that have been made so far.
    pub fn index_bytes(&self) -> usize {
        let indexes = self.lock_indexes();
        indexes.iter().filter_map(|(_, index)| index.as_ref()).map(|i| i.memory_bytes()).sum()
    }
}

/// Bytes of the array's rows alone.
fn slice_bytes(column: &ArrayRef) -> usize {
    // A type whose slices cannot be measured is counted with everything it holds.
    column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
}

/// The same rows without buffers that are mostly somebody else's.
fn own(rows: RecordBatch) -> Result<RecordBatch> {
    let mut columns = Vec::with_capacity(rows.num_columns());
    let mut changed = false;
    // Columns that stand on one piece of memory pin it once.
    let mut together: Option<bool> = None;
    for column in rows.columns() {
        let owned = match column.data_type() {
            DataType::Utf8View => {
                let views: &arrow::array::StringViewArray =
                    arrow::array::AsArray::as_string_view(column);
                Some(std::sync::Arc::new(views.gc()) as ArrayRef)
            }
            DataType::BinaryView => {
                let views: &arrow::array::BinaryViewArray =
                    arrow::array::AsArray::as_binary_view(column);
                Some(std::sync::Arc::new(views.gc()) as ArrayRef)
            }
            _ => {
                let pinned = column.get_buffer_memory_size();
                if pins_too_much(pinned, slice_bytes(column))
                    && *together.get_or_insert_with(|| pins_too_much_together(&rows))
                {
                    // `concat` of a single array gives that array back; of two it copies.
                    Some(compute::concat(&[column, &column.slice(0, 0)])?)
                } else {
                    None
                }
            }
        };
        changed |= owned.is_some();
        columns.push(owned.unwrap_or_else(|| column.clone()));
    }
    if !changed {
        return Ok(rows);
    }
    batch_of(&rows, columns)
}

fn pins_too_much(pinned: usize, own: usize) -> bool {
    pinned > PINNED_BYTES_MAX && pinned - PINNED_BYTES_MAX > 2 * own
}

/// The same of a whole batch.
fn pins_too_much_together(rows: &RecordBatch) -> bool {
    fn note(data: &ArrayData, pieces: &mut HashMap<usize, usize>) {
        let nulls = data.nulls().map(|nulls| nulls.buffer());
        for buffer in data.buffers().iter().chain(nulls) {
            pieces.insert(buffer.data_ptr().as_ptr() as usize, buffer.capacity());
        }
        data.child_data().iter().for_each(|child| note(child, pieces));
    }
    let mut pieces = HashMap::new();
    rows.columns().iter().for_each(|column| note(&column.to_data(), &mut pieces));
    let own = rows.columns().iter().map(slice_bytes).sum();
    pins_too_much(pieces.values().sum(), own)
}

/// A batch with the schema and length of `like`.
fn batch_of(like: &RecordBatch, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(like.num_rows()));
    Ok(RecordBatch::try_new_with_options(like.schema(), columns, &options)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array, StringArray};
    use arrow::datatypes::{Field, Int64Type, Schema};

    use super::*;

    fn numbers(values: impl IntoIterator<Item = i64>) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
        RecordBatch::try_new(schema, vec![column]).expect("one column")
    }

    #[test]
    fn positions_of_a_rewritten_segment_come_from_ranks() {
        let ids: Vec<u64> = (1000..3000).filter(|id| id % 3 != 1).collect();
        let rows = numbers(ids.iter().map(|id| *id as i64));
        let segment = Segment::rewritten(&ids, rows, None);
        for id in &ids {
            let position = segment.position(*id);
            let values = segment.rows().column(0).as_primitive::<Int64Type>();
            assert_eq!(values.value(position), *id as i64);
            assert_eq!(segment.id_at(position), *id);
        }
        assert_eq!(segment.ids(), ids);
        assert_eq!((segment.start(), segment.end()), (1001, 3000));
    }

    #[test]
    fn alive_rows_by_position() {
        let mut dead = DeadBits::default();
        let fresh = Segment::fresh(10, numbers(0..5), None).expect("fresh");
        assert!(fresh.alive(&dead).is_none());
        dead.set_all(0, &[12, 100]);
        let alive: Vec<bool> = fresh.alive(&dead).expect("one is dead").iter().collect();
        assert_eq!(alive, [true, true, false, true, true]);
        let rewritten = Segment::rewritten(&[90, 100, 110], numbers(0..3), None);
        let alive: Vec<bool> = rewritten.alive(&dead).expect("one is dead").iter().collect();
        assert_eq!(alive, [true, false, true]);
        let spared = Segment::rewritten(&[90, 101, 110], numbers(0..3), None);
        assert!(spared.alive(&dead).is_none());
    }

    #[test]
    fn a_small_slice_of_a_large_batch_is_copied() {
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(
            (0..100_000).map(|n| format!("some text of row {n}")),
        ));
        let schema = Arc::new(Schema::new(vec![Field::new("t", DataType::Utf8, true)]));
        let all = RecordBatch::try_new(schema, vec![texts]).expect("one column");
        let segment = Segment::fresh(0, all.slice(500, 2), None).expect("fresh");
        assert!(segment.rows().column(0).get_buffer_memory_size() < 1000);
        assert_eq!(segment.rows().column(0).as_string::<i32>().value(1), "some text of row 501");
    }
}
