//! The rows of a MATCH_RECOGNIZE in event time: those that wait for the watermark, and those that
//! partitions still need. They are in one table; who needs a row has its id.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{SortOptions, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};

use crate::dataflow::operators::match_recognize::by_watermark::missing_time;
use crate::dataflow::operators::match_recognize::by_watermark::partitions::Partitions;
use crate::dataflow::operators::timed_rows::TimedRows;
use crate::plan::event_time::time_values;
use crate::plan::match_recognize::MatchSpec;
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::state::row_ids::ShortId;
use crate::state::row_store::RowStore;
use crate::state::spill::StoreVisitor;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};

/// Stands for a row without a time: the end of the stream lets it in.
const NEVER: i64 = i64::MAX;
/// The tables in a checkpoint.
const ROWS: &str = "rows";
const UNSETTLED: &str = "unsettled";

/// Rows by id, and which of them wait.
pub struct Waiting {
    pub store: RowStore,
    /// The time column.
    column: usize,
    /// Rows of the store that no partition has yet, by their times, the earliest first.
    waiting: BinaryHeap<Reverse<(i64, ShortId)>>,
    /// Rows that may still go before the watermark passes them; `None` for input that never
    /// deletes.
    unsettled: Option<TimedRows>,
    /// Rows as bytes whose order is that of partitions and of rows in them.
    order: RowConverter,
    /// The columns in the order of these bytes.
    order_columns: Vec<usize>,
}

impl Waiting {
    /// # Errors
    /// For a column whose type has no order (SQLSTATE 0A000).
    pub fn new(
        spec: &MatchSpec,
        input: &SchemaRef,
        column: usize,
        append_only: bool,
    ) -> Result<Waiting> {
        let mut columns: Vec<(usize, SortOptions)> =
            spec.partition.iter().map(|column| (*column, SortOptions::default())).collect();
        columns.extend(spec.order_by.iter().map(|sort| {
            let options =
                SortOptions { descending: sort.descending, nulls_first: sort.nulls_first };
            (sort.column, options)
        }));
        for column in 0..input.fields().len() {
            if !columns.iter().any(|(other, _)| *other == column) {
                columns.push((column, SortOptions::default()));
            }
        }
        let field = |(column, options): &(usize, SortOptions)| {
            SortField::new_with_options(input.field(*column).data_type().clone(), *options)
        };
        let fields: Vec<SortField> = columns.iter().map(field).collect();
        for (field, (column, _)) in fields.iter().zip(&columns) {
            if !RowConverter::supports_fields(std::slice::from_ref(field)) {
                let field = input.field(*column);
                return Err(Error::unsupported(format!(
                    "keeping column \"{}\" of type {} in order",
                    field.name(),
                    field.data_type()
                )));
            }
        }
        let unsettled = match append_only {
            true => None,
            false => Some(TimedRows::new(input.clone())?),
        };
        Ok(Waiting {
            store: RowStore::new(input.clone()),
            column,
            waiting: BinaryHeap::new(),
            unsettled,
            order: RowConverter::new(fields)?,
            order_columns: columns.into_iter().map(|(column, _)| column).collect(),
        })
    }

    /// Rows that are held.
    pub fn rows(&self) -> usize {
        self.store.live_rows() + self.unsettled.as_ref().map_or(0, TimedRows::len)
    }

    /// Takes changes in.
    pub fn add(&mut self, batch: ChangeBatch) -> Result<()> {
        let Some(unsettled) = &mut self.unsettled else { return self.append(&batch) };
        let times = time_values(batch.column(self.column)).ok_or_else(missing_time)?;
        let times = times.iter().map(|time| time.unwrap_or(NEVER));
        unsettled.add(&batch, arrow::array::Int64Array::from_iter_values(times))
    }

    /// Lets rows wait that will not go, each as often as it is there.
    fn append(&mut self, batch: &ChangeBatch) -> Result<()> {
        let rows = if batch.all_inserts() { batch.rows().clone() } else { copies(batch)? };
        let times = time_values(rows.column(self.column)).ok_or_else(missing_time)?;
        let first = self.store.append(&ChangeBatch::inserts(rows))?;
        self.waiting.extend(times.iter().enumerate().map(|(row, time)| {
            // Short ids are the low half.
            Reverse((time.unwrap_or(NEVER), (first + row as u64) as ShortId))
        }));
        Ok(())
    }

    /// The rows whose time is before `bound`; of an ended stream, all.
    pub fn take_due(&mut self, bound: i64) -> Result<Vec<ShortId>> {
        let last = if bound == i64::MAX { i64::MAX } else { bound.saturating_sub(1) };
        if let Some(unsettled) = &mut self.unsettled
            && bound != i64::MIN
        {
            for batch in unsettled.take_until(last)? {
                self.append(&batch)?;
            }
        }
        let mut due = Vec::new();
        while let Some(Reverse((time, id))) = self.waiting.peek()
            && (*time < bound || bound == i64::MAX)
        {
            due.push(*id);
            self.waiting.pop();
        }
        Ok(due)
    }

    /// The rows of a batch in order: partition by partition.
    pub fn sorted(&self, rows: &RecordBatch) -> Result<Vec<u32>> {
        let columns: Vec<ArrayRef> =
            self.order_columns.iter().map(|column| rows.column(*column).clone()).collect();
        let bytes = self.order.convert_columns(&columns)?;
        let mut order: Vec<u32> = (0..rows.num_rows() as u32).collect();
        order.sort_unstable_by(|l, r| bytes.row(*l as usize).cmp(&bytes.row(*r as usize)));
        Ok(order)
    }

    /// The time of a row of the store in microseconds.
    pub fn time_us(&self, id: ShortId, unit_us: i64) -> i64 {
        let (rows, position) = self.store.row(id);
        let time = time_values(&rows.column(self.column).slice(position, 1));
        let time = time.filter(|time| time.is_valid(0)).map_or(NEVER, |time| time.value(0));
        time.saturating_mul(unit_us)
    }

    /// Keeps segments few and ids in reach.
    pub fn maintain(&mut self, partitions: &mut Partitions) -> Result<()> {
        self.store.compact()?;
        while self.store.front_is_due() {
            let (ids, rows) = self.store.front()?;
            let first = self.store.append(&rows)?;
            let moved: HashMap<ShortId, ShortId> = ids
                .iter()
                .enumerate()
                .map(|(row, id)| (*id, (first + row as u64) as ShortId))
                .collect();
            let waiting = std::mem::take(&mut self.waiting).into_iter();
            let id_now = |id: ShortId| moved.get(&id).copied().unwrap_or(id);
            self.waiting = waiting.map(|Reverse((time, id))| Reverse((time, id_now(id)))).collect();
            partitions.move_rows(rows.rows(), &moved)?;
            self.store.kill_all(&ids);
            self.store.compact()?;
        }
        Ok(())
    }

    pub fn checkpoint(&mut self, writer: &mut CheckpointWriter) -> Result<()> {
        writer.write(ROWS, self.store.checkpoint_delta()?);
        if let Some(unsettled) = &mut self.unsettled {
            writer.write(UNSETTLED, unsettled.checkpoint_delta()?);
        }
        Ok(())
    }

    /// The rows of partitions wait again: the first watermark lets them in.
    pub fn restore(&mut self, reader: &mut CheckpointReader, partition: &[usize]) -> Result<()> {
        for batch in reader.read(ROWS, partition)? {
            let rows = self.store.from_checkpoint(&batch)?;
            self.append(&rows)?;
        }
        if let Some(unsettled) = &mut self.unsettled {
            unsettled.restore(reader.read(UNSETTLED, partition)?)?;
        }
        Ok(())
    }

    /// Shows the stores of the rows that are held.
    pub fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        visit(&mut self.store);
        if let Some(unsettled) = &mut self.unsettled {
            visit(unsettled.store());
        }
    }

    pub fn memory_bytes(&self) -> usize {
        self.store.memory_bytes()
            + self.waiting.capacity() * size_of::<(i64, ShortId)>()
            + self.unsettled.as_ref().map_or(0, TimedRows::memory_bytes)
    }
}

/// Each row as often as its weight says.
fn copies(batch: &ChangeBatch) -> Result<RecordBatch> {
    let mut indices: Vec<u32> = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let weight = batch.weight(row);
        debug_assert!(weight >= 0, "no row behind the watermark goes");
        let copies = usize::try_from(weight).unwrap_or(0);
        indices.extend(std::iter::repeat_n(row as u32, copies));
    }
    Ok(take_record_batch(batch.rows(), &UInt32Array::from(indices))?)
}
