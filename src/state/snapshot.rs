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

/// Immutable content of a table. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Snapshot {
    schema: SchemaRef,
    segments: Arc<[Arc<Segment>]>,
    dead: Arc<DeadBits>,
    row_count: i64,
}

impl Snapshot {
    pub(super) fn new(
        schema: SchemaRef,
        segments: Arc<[Arc<Segment>]>,
        dead: DeadBits,
        row_count: i64,
    ) -> Snapshot {
        Snapshot { schema, segments, dead: Arc::new(dead), row_count }
    }

    /// A table without rows.
    pub fn empty(schema: SchemaRef) -> Snapshot {
        Snapshot::new(schema, Arc::new([]), DeadBits::default(), 0)
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows, each counted as often as it stands there; known without reading them.
    pub fn num_rows(&self) -> usize {
        usize::try_from(self.row_count).unwrap_or(0)
    }

    /// The live rows, batch by batch, made as they are asked for.
    pub fn batches(&self) -> SnapshotBatches {
        SnapshotBatches { snapshot: self.clone(), columns: None, segment: 0, cursor: None }
    }

    /// The live rows with only these columns, which is cheaper than projecting afterwards.
    pub fn batches_of(&self, columns: Vec<usize>) -> SnapshotBatches {
        let columns = Some(columns);
        SnapshotBatches { snapshot: self.clone(), columns, segment: 0, cursor: None }
    }
}

impl Snapshot {
    /// The live rows whose columns `columns` have the values of one of `keys` (one array per
    /// column, one key a row); rows of other keys may be among them.
    ///
    /// # Errors
    /// For a column whose type cannot be hashed.
    pub fn lookup(&self, columns: &[usize], keys: &[ArrayRef]) -> Result<Vec<RecordBatch>> {
        let count = keys.first().map_or(0, |keys| keys.len());
        let mut hashes = hash_rows(keys, count, HashUse::Table)?;
        // Keys of one hash find the same rows, which must not come twice.
        hashes.sort_unstable();
        hashes.dedup();
        let mut batches = Vec::new();
        let mut found = Vec::new();
        for segment in self.segments.iter() {
            let index = segment.index(columns)?;
            found.clear();
            hashes.iter().for_each(|hash| index.find(*hash, &mut found));
            if found.is_empty() {
                continue;
            }
            // Two hashes may share their upper half and chain.
            found.sort_unstable();
            found.dedup();
            if let Some(alive) = segment.alive(&self.dead) {
                found.retain(|row| alive.value(*row as usize));
            }
            let mut rows = Vec::with_capacity(found.len());
            for row in &found {
                let copies = segment.weights().map_or(1, |weights| weights[*row as usize]);
                rows.resize(rows.len() + usize::try_from(copies).unwrap_or(0), *row);
            }
            if !rows.is_empty() {
                batches.push(take_rows(segment.rows(), &UInt32Array::from(rows))?);
            }
        }
        Ok(batches)
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

/// Iterator over a snapshot's live rows.
#[derive(Debug)]
pub struct SnapshotBatches {
    snapshot: Snapshot,
    columns: Option<Vec<usize>>,
    segment: usize,
    cursor: Option<Cursor>,
}

impl Iterator for SnapshotBatches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Result<RecordBatch>> {
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
            let batch = match segment.weights() {
                None => next_slice(cursor),
                Some(weights) => next_copies(cursor, weights),
            };
            match batch {
                Ok(batch) if batch.num_rows() == 0 => {}
                batch => return Some(batch),
            }
        }
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
