//! The content of a table at one moment, shared with whoever reads it.
//!
//! A snapshot is a list of shared segments and shared deletion bits: taking one costs O(segments),
//! the writer goes on, and readers on other threads see what was there. Live rows come out in
//! slices of at most 8192, because filtering a large segment as a whole is 3 to 12 times slower per
//! row; a slice without dead rows is given on without copying. A row of weight n comes n times;
//! one of negative weight (a deletion that still waits for its insert) does not come.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute;
use arrow::datatypes::SchemaRef;

use crate::state::row_ids::DeadBits;
use crate::state::segment::Segment;
use crate::types::error::Result;
use crate::types::key::{HashUse, hash_rows};

/// Rows of a batch that a snapshot gives.
pub const SLICE_ROWS: usize = 8192;

/// A segment of no more rows gets its index from the lookup that wants it; who wants that of a
/// larger one looks at all of its rows until someone has made it beside.
const INDEX_NOW_ROWS_MAX: usize = 64 * 1024;

/// What a lookup gives.
#[derive(Debug, Default)]
pub struct Found {
    pub batches: Vec<RecordBatch>,
    /// Segments whose rows are there as a whole, because they have no index by these columns.
    pub unindexed: Vec<Arc<Segment>>,
}

/// Immutable content of a table. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Snapshot {
    schema: SchemaRef,
    segments: Arc<[Arc<Segment>]>,
    dead: Arc<DeadBits>,
    row_count: i64,
    /// Only so many of the rows, in order.
    rows_max: Option<u64>,
}

impl Snapshot {
    pub(super) fn new(
        schema: SchemaRef,
        segments: Arc<[Arc<Segment>]>,
        dead: DeadBits,
        row_count: i64,
    ) -> Snapshot {
        Snapshot { schema, segments, dead: Arc::new(dead), row_count, rows_max: None }
    }

    /// A table without rows.
    pub fn empty(schema: SchemaRef) -> Snapshot {
        Snapshot::new(schema, Arc::new([]), DeadBits::default(), 0)
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The same without the `rows` that came last, each counted as often as it stands there. Of a
    /// table that never deletes, whose rows are in the order in which they came.
    #[must_use]
    pub fn without_last(&self, rows: u64) -> Snapshot {
        let kept = self.row_count - i64::try_from(rows).unwrap_or(i64::MAX);
        let kept = kept.max(0);
        let rows_max = Some(kept.unsigned_abs());
        Snapshot { row_count: kept, rows_max, ..self.clone() }
    }

    /// Rows, each counted as often as it stands there; known without reading them.
    pub fn num_rows(&self) -> usize {
        usize::try_from(self.row_count).unwrap_or(0)
    }

    /// The live rows, batch by batch, made as they are asked for.
    pub fn batches(&self) -> SnapshotBatches {
        self.scan(None)
    }

    /// The live rows with only these columns, which is cheaper than projecting afterwards.
    pub fn batches_of(&self, columns: Vec<usize>) -> SnapshotBatches {
        self.scan(Some(columns))
    }

    /// One of `share.1` shares of the live rows, number `share.0`; together they are all.
    pub fn share_of(&self, columns: Vec<usize>, share: (usize, usize)) -> SnapshotBatches {
        assert!(share.0 < share.1, "shares are numbered from 0");
        // Rows that are counted from the first are counted by one reader.
        let share = match (self.rows_max, share.0) {
            (None, _) => share,
            (Some(_), 0) => (0, 1),
            (Some(_), _) => return Snapshot::empty(self.schema.clone()).scan(Some(columns)),
        };
        SnapshotBatches { share, ..self.scan(Some(columns)) }
    }

    fn scan(&self, columns: Option<Vec<usize>>) -> SnapshotBatches {
        SnapshotBatches {
            snapshot: self.clone(),
            columns,
            segment: 0,
            cursor: None,
            left: self.rows_max,
            rest: None,
            share: (0, 1),
            turn: 0,
        }
    }
}

impl Snapshot {
    /// The live rows whose columns `columns` have the values of one of `keys` (one array per
    /// column, one key a row); rows of other keys may be among them.
    ///
    /// # Errors
    /// For a column whose type cannot be hashed.
    pub fn lookup(&self, columns: &[usize], keys: &[ArrayRef]) -> Result<Found> {
        let count = keys.first().map_or(0, |keys| keys.len());
        let mut hashes = hash_rows(keys, count, HashUse::Table)?;
        // Keys of one hash find the same rows, which must not come twice.
        hashes.sort_unstable();
        hashes.dedup();
        let mut found = Found::default();
        let mut positions = Vec::new();
        for (number, segment) in self.segments.iter().enumerate() {
            let index = match segment.ready_index(columns) {
                Some(index) => index,
                None if segment.num_rows() <= INDEX_NOW_ROWS_MAX => segment.index(columns)?,
                None => {
                    self.add_whole(number, &mut found)?;
                    continue;
                }
            };
            positions.clear();
            hashes.iter().for_each(|hash| index.find(*hash, &mut positions));
            if !positions.is_empty() {
                self.add_live(segment, &mut positions, &mut found)?;
            }
        }
        Ok(found)
    }

    /// All live rows of a segment, which wants an index.
    fn add_whole(&self, number: usize, found: &mut Found) -> Result<()> {
        let segments = self.segments[number..=number].into();
        let alone = Snapshot { segments, ..self.clone() };
        for batch in alone.batches() {
            found.batches.push(batch?);
        }
        found.unindexed.push(self.segments[number].clone());
        Ok(())
    }

    /// The live rows among those at `positions`.
    fn add_live(
        &self,
        segment: &Segment,
        positions: &mut Vec<u32>,
        found: &mut Found,
    ) -> Result<()> {
        // Two hashes may share their upper half and chain.
        positions.sort_unstable();
        positions.dedup();
        let mut rows = Vec::with_capacity(positions.len());
        for position in positions {
            let id = segment.id_at(*position as usize);
            if self.dead.word(id / 64 * 64) >> (id % 64) & 1 == 1 {
                continue;
            }
            let copies = segment.weights().map_or(1, |weights| weights[*position as usize]);
            rows.resize(rows.len() + usize::try_from(copies).unwrap_or(0), *position);
        }
        if !rows.is_empty() {
            found.batches.push(take_rows(segment.rows(), &UInt32Array::from(rows))?);
        }
        Ok(())
    }

    /// Makes the indexes that a lookup by these columns wants.
    ///
    /// # Errors
    /// For a column whose type cannot be hashed.
    pub fn build_index(&self, columns: &[usize]) -> Result<()> {
        self.segments.iter().try_for_each(|segment| segment.index(columns).map(drop))
    }

    /// Lets the indexes by these columns go.
    pub fn forget_index(&self, columns: &[usize]) {
        self.segments.iter().for_each(|segment| segment.forget_index(columns));
    }
}

/// Where a scan stands in a segment.
#[derive(Debug)]
struct Cursor {
    rows: RecordBatch,
    alive: Option<BooleanBuffer>,
    /// The next row to look at.
    row: usize,
    /// Copies of that row that were given already.
    copies: i64,
}

impl Cursor {
    fn is_at_start(&self) -> bool {
        self.row == 0 && self.copies == 0
    }
}

/// Iterator over a snapshot's live rows.
#[derive(Debug)]
pub struct SnapshotBatches {
    snapshot: Snapshot,
    columns: Option<Vec<usize>>,
    segment: usize,
    cursor: Option<Cursor>,
    /// Rows that may still be given.
    left: Option<u64>,
    /// What `take_rows` has left of a batch.
    rest: Option<RecordBatch>,
    /// Of slices, and segments with weights, in turn, only those of this share are given: its
    /// number, and of how many.
    share: (usize, usize),
    /// Whose turn is next.
    turn: usize,
}

impl Iterator for SnapshotBatches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Result<RecordBatch>> {
        if self.left == Some(0) {
            return None;
        }
        loop {
            let segment = self.snapshot.segments.get(self.segment)?;
            if self.cursor.is_none() {
                let rows = match &self.columns {
                    None => segment.rows().clone(),
                    Some(columns) => match segment.rows().project(columns) {
                        Ok(rows) => rows,
                        Err(error) => return Some(Err(error.into())),
                    },
                };
                let alive = segment.alive(&self.snapshot.dead);
                self.cursor = Some(Cursor { rows, alive, row: 0, copies: 0 });
            }
            let cursor = self.cursor.as_mut().expect("set above");
            if cursor.row == cursor.rows.num_rows() {
                self.cursor = None;
                self.segment += 1;
                continue;
            }
            let (share, shares) = self.share;
            if shares > 1 && (segment.weights().is_none() || cursor.is_at_start()) {
                let mine = self.turn == share;
                self.turn = (self.turn + 1) % shares;
                if !mine {
                    let length = cursor.rows.num_rows();
                    cursor.row = match segment.weights() {
                        None => length.min(cursor.row + SLICE_ROWS),
                        Some(_) => length,
                    };
                    continue;
                }
            }
            let batch = match segment.weights() {
                None => next_slice(cursor),
                Some(weights) => next_copies(cursor, weights),
            };
            match batch {
                Ok(batch) if batch.num_rows() == 0 => {}
                Ok(batch) => return Some(Ok(self.cut(batch))),
                error => return Some(error),
            }
        }
    }
}

impl SnapshotBatches {
    /// Goes past `rows` rows.
    ///
    /// # Errors
    /// When rows cannot be made.
    pub fn skip_rows(&mut self, rows: usize) -> Result<()> {
        self.take_rows(rows).map(drop)
    }

    /// The next `rows` rows, or those that are left.
    ///
    /// # Errors
    /// When rows cannot be made.
    pub fn take_rows(&mut self, rows: usize) -> Result<Vec<RecordBatch>> {
        let (mut taken, mut left) = (Vec::new(), rows);
        while left > 0 {
            let Some(batch) = self.rest.take().map(Ok).or_else(|| self.next()) else { break };
            let batch = batch?;
            let here = batch.num_rows().min(left);
            left -= here;
            if here < batch.num_rows() {
                self.rest = Some(batch.slice(here, batch.num_rows() - here));
            }
            taken.push(batch.slice(0, here));
        }
        Ok(taken)
    }

    /// As many of the batch's rows as may still be given.
    fn cut(&mut self, batch: RecordBatch) -> RecordBatch {
        let Some(left) = &mut self.left else { return batch };
        let rows =
            usize::try_from(*left).map_or(batch.num_rows(), |left| left.min(batch.num_rows()));
        *left -= rows as u64;
        batch.slice(0, rows)
    }
}

/// The live rows among the next rows of a segment without weights.
fn next_slice(cursor: &mut Cursor) -> Result<RecordBatch> {
    let length = SLICE_ROWS.min(cursor.rows.num_rows() - cursor.row);
    let slice = cursor.rows.slice(cursor.row, length);
    let alive = cursor.alive.as_ref().map(|alive| alive.slice(cursor.row, length));
    cursor.row += length;
    match alive {
        Some(alive) if alive.count_set_bits() < length => {
            Ok(compute::filter_record_batch(&slice, &BooleanArray::new(alive, None))?)
        }
        _ => Ok(slice),
    }
}

/// The next live rows of a segment with weights, each as often as it stands there.
fn next_copies(cursor: &mut Cursor, weights: &[i64]) -> Result<RecordBatch> {
    let mut indices = Vec::with_capacity(SLICE_ROWS);
    while indices.len() < SLICE_ROWS && cursor.row < weights.len() {
        let alive = cursor.alive.as_ref().is_none_or(|alive| alive.value(cursor.row));
        let left = if alive { weights[cursor.row] - cursor.copies } else { 0 };
        let room = SLICE_ROWS - indices.len();
        let copies = usize::try_from(left).unwrap_or(0).min(room);
        indices.resize(indices.len() + copies, cursor.row as u32);
        if left > copies as i64 {
            cursor.copies += copies as i64;
        } else {
            cursor.row += 1;
            cursor.copies = 0;
        }
    }
    take_rows(&cursor.rows, &UInt32Array::from(indices))
}

/// The rows at `indices`; knows batches without columns.
pub(super) fn take_rows(rows: &RecordBatch, indices: &UInt32Array) -> Result<RecordBatch> {
    let columns = rows
        .columns()
        .iter()
        .map(|column| compute::take(column, indices, None))
        .collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(indices.len()));
    Ok(RecordBatch::try_new_with_options(rows.schema(), columns, &options)?)
}
