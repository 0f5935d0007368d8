//! Deduplication over input that never deletes: one row of each partition, the first in some order
//! (keep first, keep last, `DISTINCT ON`).
//!
//! 1. `on_batch`: the partition of each row gets a dense number (`GroupIndex`), and its order a fixed
//!    prefix of 16 bytes, which decides nearly every comparison. A row that is better than that of
//!    its partition takes its place; the batch is kept as it is, and nothing of it is copied.
//! 2. `on_epoch`: the rows that are still in their place are copied once, into one batch, which
//!    is both stored and sent on. What was there before the epoch is sent on as gone. Rows that came
//!    and were beaten within the epoch leave no trace.
//! 3. Rows with equal prefixes are compared column by column: order first, then the others, as in
//!    the sorted table, so the answer does not depend on how rows came.
//!
//! Keeps: the rows that show. Partitions with a time that the watermark has passed (windows) are
//! forgotten, in a walk over them now and then (`forgetting.rs`).

use std::cmp::Ordering;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, make_comparator};
use arrow::compute::{SortOptions, interleave};
use arrow::datatypes::{DataType, SchemaRef};

use super::{ROWS, STEP_ROWS, TopNSpec};
use crate::dataflow::operator::{Operator, Output};
use crate::dataflow::operators::aggregate::TimeKey;
use crate::dataflow::operators::forgetting::Walks;
use crate::dataflow::operators::top_n::closing::passed;
use crate::dataflow::operators::top_n::order::{Order, Prefix, compare_values};
use crate::plan::node::RankFunction;
use crate::state::blocks::FlatStore;
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::state::group_index::GroupIndex;
use crate::state::row_ids::ShortId;
use crate::state::row_store::RowStore;
use crate::state::spill::StoreVisitor;
use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use crate::types::time::{Epoch, Watermark};

/// Bytes of batches that are kept within an epoch before their rows are stored.
const PENDING_BYTES_MAX: usize = 64 << 20;
/// Rows that are copied and stored at a time.
const STORED_ROWS: usize = 1 << 16;

/// Where the row of a partition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// There is none.
    None,
    /// In a batch of the epoch at hand: which, and which row.
    Pending(u32, u32),
    Stored(ShortId),
}

/// The row of a partition.
#[derive(Clone, Copy, Debug)]
struct Best {
    prefix: Prefix,
    place: Place,
}

const NO_ROW: Best = Best { prefix: Prefix::LEAST, place: Place::None };

/// The `top_n` operator of one row, where rows never go.
pub struct KeepOne {
    spec: TopNSpec,
    groups: GroupIndex,
    /// By the partition's number.
    best: FlatStore<Best>,
    rows: RowStore,
    order: Order,
    /// The columns by which rows with equal prefixes are compared.
    compared: Vec<(usize, SortOptions)>,
    /// Batches of the epoch with rows that are, or were, in their place.
    pending: Vec<RecordBatch>,
    pending_bytes: usize,
    /// Beyond so many they are stored before the epoch's end.
    pending_bytes_max: usize,
    /// Partitions that have another row than before the epoch, with the one before.
    touched: Vec<(u32, Option<ShortId>)>,
    /// Rows from this id on were stored in this epoch.
    epoch_from: u64,
    /// What closes partitions, any of them; without, only the end of the stream does.
    closing: Vec<TimeKey>,
    watermark: Option<Watermark>,
    walks: Walks,
}

impl KeepOne {
    /// Whether this is the operator for it.
    pub fn serves(spec: &TopNSpec) -> bool {
        let one = spec.offset == 0 && spec.limit == Some(1);
        one && spec.append_only && spec.rank == RankFunction::RowNumber
    }

    /// # Errors
    /// For a column whose type has no order, or cannot be a key (SQLSTATE 0A000).
    pub fn new(spec: TopNSpec, input: &SchemaRef, closing: Vec<TimeKey>) -> Result<KeepOne> {
        assert!(KeepOne::serves(&spec), "the plan chooses another operator");
        let order = Order::new(&spec, input)?;
        let key_types: Vec<DataType> =
            spec.partition.iter().map(|c| input.field(*c).data_type().clone()).collect();
        Ok(KeepOne {
            groups: GroupIndex::new(&key_types)?,
            best: FlatStore::default(),
            rows: RowStore::new(input.clone()),
            compared: order.compared(),
            order,
            pending: Vec::new(),
            pending_bytes: 0,
            pending_bytes_max: PENDING_BYTES_MAX,
            touched: Vec::new(),
            epoch_from: 0,
            closing,
            watermark: None,
            walks: Walks::default(),
            spec,
        })
    }

    /// Puts the rows of a batch into their places.
    fn take_in(&mut self, rows: &RecordBatch) -> Result<()> {
        let columns: Vec<ArrayRef> =
            self.spec.partition.iter().map(|column| rows.column(*column).clone()).collect();
        let mut groups = Vec::new();
        self.groups.intern(&columns, rows.num_rows(), &mut groups)?;
        self.best.resize(self.groups.id_limit(), NO_ROW);
        let prefixes = self.order.prefixes(rows)?;
        let number = self.pending.len() as u32;
        self.pending.push(rows.clone());
        let mut used = false;
        for (row, (group, prefix)) in groups.iter().zip(&prefixes).enumerate() {
            let best = self.best[*group as usize];
            let order = match best.place {
                Place::None => Ordering::Less,
                _ => prefix.cmp(&best.prefix),
            };
            let place = Place::Pending(number, row as u32);
            let better = match order {
                Ordering::Less => true,
                Ordering::Greater => false,
                Ordering::Equal => self.compare(place, best.place)?.is_lt(),
            };
            if !better {
                continue;
            }
            used = true;
            match best.place {
                Place::None => self.touched.push((*group, None)),
                Place::Pending(..) => {}
                // Stored in this epoch already: what was before is noted.
                Place::Stored(id) if self.rows.full_id(id) >= self.epoch_from => {
                    self.rows.kill(id);
                }
                Place::Stored(id) => self.touched.push((*group, Some(id))),
            }
            self.best[*group as usize] = Best { prefix: *prefix, place };
        }
        if !used {
            self.pending.pop();
            return Ok(());
        }
        self.pending_bytes += ChangeBatch::inserts(rows.clone()).size_bytes();
        if self.pending_bytes > self.pending_bytes_max {
            self.store_pending()?;
        }
        Ok(())
    }

    /// Compares two rows of one partition by all their columns.
    fn compare(&self, left: Place, right: Place) -> Result<Ordering> {
        let ((left, at), (right, other)) = (self.row(left), self.row(right));
        for (column, options) in &self.compared {
            let (left, right) = (left.column(*column), right.column(*column));
            let order = match compare_values(left, at, right, other, *options) {
                Some(order) => order,
                None => {
                    let (left, right) = (left.slice(at, 1), right.slice(other, 1));
                    make_comparator(&left, &right, *options)?(0, 0)
                }
            };
            if order.is_ne() {
                return Ok(order);
            }
        }
        Ok(Ordering::Equal)
    }

    fn row(&self, place: Place) -> (&RecordBatch, usize) {
        match place {
            Place::None => unreachable!("only rows are compared"),
            Place::Pending(batch, row) => (&self.pending[batch as usize], row as usize),
            Place::Stored(id) => self.rows.row(id),
        }
    }

    /// Stores the rows of pending batches that are in their places; gives them.
    fn store_pending(&mut self) -> Result<Vec<RecordBatch>> {
        let pending = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        let mut chosen: Vec<(u32, u32, u32)> = Vec::with_capacity(self.touched.len());
        for (group, _) in &self.touched {
            if let Place::Pending(batch, row) = self.best[*group as usize].place {
                chosen.push((batch, row, *group));
            }
        }
        // In the order in which they came: neighbours are copied together.
        chosen.sort_unstable();
        let mut stored = Vec::new();
        for chosen in chosen.chunks(STORED_ROWS) {
            let rows = gather(&pending, chosen, self.rows.schema())?;
            let first = self.rows.append(&ChangeBatch::inserts(rows.clone()))?;
            for (position, (_, _, group)) in chosen.iter().enumerate() {
                let id = (first + position as u64) as ShortId;
                self.best[*group as usize].place = Place::Stored(id);
            }
            stored.push(rows);
        }
        Ok(stored)
    }

    /// Rows of the output.
    fn output(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        self.spec.output(rows, std::iter::repeat_n(1, rows.num_rows()))
    }

    /// Sends on what the epoch has changed.
    fn emit(&mut self, out: &mut Output) -> Result<()> {
        let mut gone: Vec<ShortId> = self.touched.iter().filter_map(|(_, id)| *id).collect();
        // In the order of ids they are found faster.
        gone.sort_unstable_by_key(|id| self.rows.full_id(*id));
        for ids in gone.chunks(STEP_ROWS) {
            let rows = self.output(&self.rows.gather(ids)?)?;
            out.emit(ChangeBatch::deletes(rows));
        }
        self.rows.kill_all(&gone);
        // What was stored within the epoch is sent on with the rest.
        let groups: Vec<u32> = match self.rows.end() > self.epoch_from {
            true => self.touched.iter().map(|(group, _)| *group).collect(),
            false => vec![],
        };
        let mut stored: Vec<ShortId> = Vec::new();
        for group in groups {
            if let Place::Stored(id) = self.best[group as usize].place {
                stored.push(id);
            }
        }
        stored.sort_unstable_by_key(|id| self.rows.full_id(*id));
        for ids in stored.chunks(STEP_ROWS) {
            let rows = self.output(&self.rows.gather(ids)?)?;
            out.emit(ChangeBatch::inserts(rows));
        }
        for rows in self.store_pending()? {
            let rows = self.output(&rows)?;
            for from in (0..rows.num_rows()).step_by(STEP_ROWS) {
                let count = STEP_ROWS.min(rows.num_rows() - from);
                out.emit(ChangeBatch::inserts(rows.slice(from, count)));
            }
        }
        self.touched.clear();
        Ok(())
    }

    /// Forgets the partitions that no change still to come concerns, when that is worth a walk.
    fn forget_closed(&mut self) -> Result<()> {
        let Some(watermark) = self.watermark else { return Ok(()) };
        // Without times in its plan it relies on no watermark, and not on the last one either: a view
        // below that is replaced changes after its end.
        if self.closing.is_empty() {
            return Ok(());
        }
        let worth = self.walks.due(self.best.len());
        if watermark != Watermark::END && !worth {
            return Ok(());
        }
        let live: Vec<u32> = (0..self.best.len() as u32)
            .filter(|group| self.best[*group as usize].place != Place::None)
            .collect();
        let closed = passed(&self.groups, live, &self.closing, watermark)?;
        let mut dead: Vec<ShortId> = Vec::with_capacity(closed.len());
        for group in &closed {
            let best = std::mem::replace(&mut self.best[*group as usize], NO_ROW);
            if let Place::Stored(id) = best.place {
                dead.push(id);
            }
        }
        dead.sort_unstable();
        self.rows.kill_all(&dead);
        if !self.spec.partition.is_empty() {
            self.groups.remove(&closed)?;
        }
        Ok(())
    }

    /// Moves the oldest rows of a window of ids that has become much longer than they are.
    fn move_front(&mut self) -> Result<()> {
        while self.rows.front_is_due() {
            let (ids, rows) = self.rows.front()?;
            let mut groups = Vec::new();
            let columns = rows.columns_at(&self.spec.partition);
            self.groups.intern(&columns, rows.num_rows(), &mut groups)?;
            let first = self.rows.append(&ChangeBatch::inserts(rows.into_rows()))?;
            for (position, group) in groups.iter().enumerate() {
                let id = (first + position as u64) as ShortId;
                self.best[*group as usize].place = Place::Stored(id);
            }
            self.rows.kill_all(&ids);
            self.rows.compact()?;
        }
        Ok(())
    }
}

/// Rows of some batches, in this order.
fn gather(
    batches: &[RecordBatch],
    chosen: &[(u32, u32, u32)],
    schema: &SchemaRef,
) -> Result<RecordBatch> {
    let (first, last) = match chosen {
        [] => return Ok(RecordBatch::new_empty(schema.clone())),
        [first, ..] => (first.0 as usize, chosen[chosen.len() - 1].0 as usize),
    };
    // A batch that is there as a whole needs no copy.
    if first == last && chosen.len() == batches[first].num_rows() {
        return Ok(batches[first].clone());
    }
    let places: Vec<(usize, usize)> =
        chosen.iter().map(|(batch, row, _)| (*batch as usize - first, *row as usize)).collect();
    let columns = (0..schema.fields().len()).map(|column| {
        let arrays: Vec<&dyn Array> =
            batches[first..=last].iter().map(|rows| rows.column(column).as_ref()).collect();
        Ok(interleave(&arrays, &places)?)
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(chosen.len()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

impl Operator for KeepOne {
    fn name(&self) -> &'static str {
        "top_n"
    }

    fn on_batch(&mut self, port: usize, batch: ChangeBatch, _: &mut Output) -> Result<()> {
        assert_eq!(port, 0, "top_n has one input");
        assert!(batch.all_inserts(), "this input never deletes");
        self.walks.changed(batch.num_rows());
        self.take_in(batch.rows())
    }

    fn on_watermark(&mut self, _: usize, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.watermark = Some(watermark);
        self.walks.moved();
        out.emit_watermark(watermark);
        Ok(())
    }

    fn on_epoch(&mut self, _: Epoch, out: &mut Output) -> Result<()> {
        if !self.touched.is_empty() {
            self.emit(out)?;
        }
        self.forget_closed()?;
        self.rows.compact()?;
        self.move_front()?;
        self.epoch_from = self.rows.end();
        Ok(())
    }

    fn checkpoint(&mut self, _: Epoch, writer: &mut CheckpointWriter) -> Result<()> {
        assert!(self.touched.is_empty(), "an epoch's changes are taken in when it completes");
        writer.write(ROWS, self.rows.checkpoint_delta()?);
        Ok(())
    }

    fn restore(&mut self, reader: &mut CheckpointReader) -> Result<()> {
        for batch in reader.read(ROWS, &self.spec.partition)? {
            let rows = self.rows.from_checkpoint(&batch)?;
            self.take_in(rows.rows())?;
        }
        self.store_pending()?;
        self.touched.clear();
        self.rows.compact()?;
        self.epoch_from = self.rows.end();
        Ok(())
    }

    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        visit(&mut self.rows);
        visit(&mut self.groups);
        visit(&mut self.best);
    }

    fn memory_bytes(&self) -> usize {
        self.rows.memory_bytes()
            + self.groups.memory_bytes()
            + self.pending_bytes
            + self.best.memory_bytes()
            + self.touched.capacity() * size_of::<(u32, Option<ShortId>)>()
    }

    fn state_rows(&self) -> usize {
        self.rows.live_rows()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::dataflow::script::{Driven, batch, schema};
    use crate::plan::node::SortColumn;

    const COLUMNS: &str = "p bigint, v bigint, t text, u bigint";

    fn spec(descending: bool) -> TopNSpec {
        TopNSpec {
            partition: vec![0],
            order_by: vec![SortColumn { column: 1, descending, nulls_first: false }],
            rank: RankFunction::RowNumber,
            offset: 0,
            limit: Some(1),
            numbered: false,
            append_only: true,
            schema: schema(COLUMNS),
        }
    }

    /// One row of each partition is there after each epoch, the least (or the greatest, then the
    /// least) of all that came, however often rows are stored within an epoch.
    #[test]
    fn random_rows_leave_the_first_of_each_partition() {
        for seed in 0..60 {
            let mut random = SmallRng::seed_from_u64(seed);
            let descending = seed % 2 == 0;
            let pending_bytes_max = [0, 2_000, PENDING_BYTES_MAX][seed as usize % 3];
            let make = || -> Box<dyn Operator> {
                let mut operator =
                    KeepOne::new(spec(descending), &schema(COLUMNS), vec![]).expect("sorts");
                operator.pending_bytes_max = pending_bytes_max;
                Box::new(operator)
            };
            let mut driven = Driven::new(make).on_disk_if(seed % 5 == 0);
            let mut best: BTreeMap<i64, (i64, String, i64)> = BTreeMap::new();
            let mut shown: BTreeMap<String, i64> = BTreeMap::new();
            for epoch in 1..=20 {
                for _ in 0..random.random_range(0..4) {
                    let mut lines = String::new();
                    for _ in 0..random.random_range(0..30) {
                        let p = random.random_range(0..8);
                        let v = random.random_range(0..6);
                        let t = ["a", "b", "\u{e9}t\u{e9}"][random.random_range(0..3)];
                        let u = random.random_range(0..3);
                        lines.push_str(&format!("+ {p} {v} {t} {u}\n"));
                        let order = if descending { -v } else { v };
                        let row = (order, t.to_owned(), u);
                        let first = best.entry(p).or_insert_with(|| row.clone());
                        if row < *first {
                            *first = row;
                        }
                    }
                    driven.batch(0, batch(&schema(COLUMNS), &lines)).expect("takes rows");
                }
                driven.epoch(Epoch(epoch)).expect("completes");
                let sent = driven.sent();
                assert_eq!(sent.cancelled, 0, "seed {seed}");
                for (row, weight) in sent.rows {
                    *shown.entry(row).or_default() += weight;
                }
                shown.retain(|_, weight| *weight != 0);
                let right = best.iter().map(|(p, (order, t, u))| {
                    (format!("{p} {} {t} {u}", if descending { -order } else { *order }), 1)
                });
                assert_eq!(shown, right.collect::<BTreeMap<_, _>>(), "seed {seed}, epoch {epoch}");
                assert_eq!(driven.state_rows(), best.len(), "seed {seed}");
                if random.random_bool(0.2) {
                    driven.checkpoint().expect("written");
                    driven.restart().expect("restored");
                }
            }
        }
    }
}
