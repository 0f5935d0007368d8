//! Keeps the first rows of each partition in some order (Top-N, LIMIT, DISTINCT ON, keep first or
//! last).
//!
//! The rows that show are a window at the beginning of the sorted partition: those of the places
//! `offset + 1` to `offset + limit` (`row_number`, LIMIT), or those whose rank is at most `limit`
//! (`rank`, `dense_rank`: peers of the last one show too). Rows that sort alike stand in the order
//! of their other columns, so the answer does not depend on how rows came.
//!
//! 1. `on_batch`: when the first change of the epoch comes to a partition, its window is noted as
//!    it was; then changes enter the sorted table. A row behind the end of a full window changes
//!    nothing that shows.
//! 2. If the input never deletes, what has left the window never comes back: it is dropped at
//!    once, and a row behind the end of a full window is not even kept. Short windows by number of
//!    row have operators of their own then (`growing.rs`; of one row `keep_one.rs`).
//! 3. `on_epoch`: the windows of the partitions that changed are walked again, and -old and +new
//!    are emitted where they differ. With the number of the row as a last column, a row whose
//!    number changed differs.
//!
//! A change costs O(log n) for the table and the length of the window.
//!
//! Keeps: all rows, sorted; of input that never deletes only those that show, and the `offset`
//! before them. Partitions with a time that the watermark has passed (windows) are forgotten, in a
//! walk over the table now and then (`forgetting.rs`).

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt64Array};
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::SchemaRef;
use hashbrown::HashMap;

use crate::dataflow::operator::{Operator, Output};
use crate::dataflow::operators::aggregate::TimeKey;
use crate::dataflow::operators::forgetting::Walks;
use crate::plan::node::{self, RankFunction, SortColumn};
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::state::ordered_table::{OrderedBy, OrderedTable, RowKey};
use crate::state::spill::StoreVisitor;
use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use crate::types::time::{Epoch, Watermark};
use growing::GrowingTopN;
use keep_one::KeepOne;

mod closing;
mod growing;
mod keep_one;
mod order;

/// The operator for these rows. `closing` are the times of a partition of which the watermark says
/// that nothing is still to come.
///
/// # Errors
/// For a column whose type has no order (SQLSTATE 0A000).
pub fn build(
    spec: TopNSpec,
    input: &SchemaRef,
    closing: Vec<TimeKey>,
) -> Result<Box<dyn Operator>> {
    if KeepOne::serves(&spec) {
        return Ok(Box::new(KeepOne::new(spec, input, closing)?));
    }
    Ok(match GrowingTopN::serves(&spec) {
        true => Box::new(GrowingTopN::new(spec, input, closing)?),
        false => Box::new(TopN::new(spec, input)?.closing(closing)),
    })
}

/// Rows of an output batch.
const STEP_ROWS: usize = 8192;
const ROWS: &str = "rows";

/// Which rows show.
#[derive(Clone, Debug)]
pub struct TopNSpec {
    pub partition: Vec<usize>,
    pub order_by: Vec<SortColumn>,
    pub rank: RankFunction,
    /// Rows of each partition that are passed over; 0 unless rows are counted one by one.
    pub offset: u64,
    /// How many rows (or ranks) show after those; `None`: all.
    pub limit: Option<u64>,
    /// A last column has the row's number or rank.
    pub numbered: bool,
    /// The input never deletes.
    pub append_only: bool,
    pub schema: SchemaRef,
}

impl From<&node::TopN> for TopNSpec {
    fn from(node: &node::TopN) -> TopNSpec {
        TopNSpec {
            partition: node.partition.clone(),
            order_by: node.order_by.clone(),
            rank: node.rank,
            offset: node.offset,
            limit: node.limit,
            numbered: node.numbered,
            append_only: node.input.input.append_only(),
            schema: node.schema.clone(),
        }
    }
}

impl TopNSpec {
    /// Rows of the output: those of the input with their numbers, if these are wanted.
    fn output(
        &self,
        rows: &RecordBatch,
        numbers: impl Iterator<Item = u64>,
    ) -> Result<RecordBatch> {
        let mut columns = rows.columns().to_vec();
        if self.numbered {
            let field = self.schema.fields().last().expect("the number is a column");
            let numbers: ArrayRef = Arc::new(UInt64Array::from_iter_values(numbers));
            columns.push(cast(&numbers, field.data_type())?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

/// Columns to sort by, as the table wants them.
pub fn ordered_by(order_by: &[SortColumn]) -> Vec<OrderedBy> {
    let by = |sort: &SortColumn| OrderedBy {
        column: sort.column,
        options: SortOptions { descending: sort.descending, nulls_first: sort.nulls_first },
    };
    order_by.iter().map(by).collect()
}

/// The `top_n` operator.
pub struct TopN {
    spec: TopNSpec,
    table: OrderedTable,
    /// Partitions that changed in this epoch; empty right after `on_epoch`.
    touched: HashMap<RowKey, Touched>,
    /// What closes partitions, any of them; without, nothing does: a view below that is replaced
    /// changes even after the end of its stream.
    closing: Vec<TimeKey>,
    watermark: Option<Watermark>,
    walks: Walks,
}

/// A partition that changes.
struct Touched {
    /// What showed before the epoch.
    before: Shown,
    /// The last row of the window, if it was full when it was last walked.
    end: Option<End>,
    /// Something before the end has changed.
    changed: bool,
    /// It has rows that may have to be dropped; only where the input never deletes.
    grown: bool,
}

/// The last row of a full window.
struct End {
    key: RowKey,
    peer_length: usize,
}

/// Rows that show, in order; their keys stand one behind the other.
#[derive(Default)]
struct Shown {
    bytes: Vec<u8>,
    rows: Vec<ShownRow>,
}

#[derive(Clone, Copy)]
struct ShownRow {
    /// Where its key ends.
    end: usize,
    /// Its number or rank; 0 when nobody wants to know.
    number: u64,
    /// Copies with that number.
    weight: i64,
}

impl Shown {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn key(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.rows[row - 1].end };
        &self.bytes[start..self.rows[row].end]
    }

    fn push(&mut self, key: &[u8], number: u64, weight: i64) {
        self.bytes.extend_from_slice(key);
        self.rows.push(ShownRow { end: self.bytes.len(), number, weight });
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.rows.clear();
    }

    fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.rows.capacity() * size_of::<ShownRow>()
    }
}

/// Where a walk through a partition stands.
struct Ranking {
    function: RankFunction,
    /// The window: places after the first, up to the second.
    offset: u64,
    limit: u64,
    /// Rows and groups of peers that have been passed.
    rows: u64,
    groups: u64,
    /// The rank of the group at hand.
    rank: u64,
}

impl Ranking {
    fn new(spec: &TopNSpec) -> Ranking {
        let limit = spec.limit.map_or(u64::MAX, |limit| spec.offset.saturating_add(limit));
        let (function, offset) = (spec.rank, spec.offset);
        Ranking { function, offset, limit, rows: 0, groups: 0, rank: 0 }
    }

    /// The next row, of which there are `copies`: the number of the first that shows, and how many
    /// do. `None`: it and all that follow are behind the window.
    fn next(&mut self, copies: u64, new_group: bool) -> Option<(u64, u64)> {
        if new_group {
            self.groups += 1;
            self.rank = self.rows + 1;
        }
        let before = self.rows;
        self.rows = self.rows.saturating_add(copies);
        let (rank, count) = match self.function {
            RankFunction::RowNumber => {
                let from = before.max(self.offset);
                let to = self.rows.min(self.limit);
                (from + 1, to.saturating_sub(from))
            }
            RankFunction::Rank => (self.rank, copies),
            RankFunction::DenseRank => (self.groups, copies),
        };
        let place = if self.function == RankFunction::RowNumber { before + 1 } else { rank };
        (place <= self.limit).then_some((rank, count))
    }

    /// Whether a row of a further group would not show.
    fn is_full(&self) -> bool {
        match self.function {
            RankFunction::RowNumber | RankFunction::Rank => self.rows >= self.limit,
            RankFunction::DenseRank => self.groups >= self.limit,
        }
    }
}

impl TopN {
    /// # Errors
    /// For a column whose type has no order (SQLSTATE 0A000).
    pub fn new(spec: TopNSpec, input: &SchemaRef) -> Result<TopN> {
        assert!(spec.offset == 0 || spec.rank == RankFunction::RowNumber, "ranks have no offset");
        let order_by = ordered_by(&spec.order_by);
        let table = OrderedTable::new(input.clone(), spec.partition.clone(), order_by)?;
        let (touched, closing) = (HashMap::new(), Vec::new());
        Ok(TopN { spec, table, touched, closing, watermark: None, walks: Walks::default() })
    }

    /// The same, when the watermark says of a partition's time that nothing of it is still to come.
    #[must_use]
    pub fn closing(self, closing: Vec<TimeKey>) -> TopN {
        TopN { closing, ..self }
    }

    /// Forgets the partitions that no change still to come concerns, when that is worth a walk.
    fn forget_closed(&mut self) -> Result<()> {
        let Some(watermark) = self.watermark else { return Ok(()) };
        if self.closing.is_empty() {
            return Ok(());
        }
        if watermark == Watermark::END {
            self.table.clear();
        } else if self.walks.due(self.table.len()) {
            for TimeKey { place, bound } in &self.closing {
                for key in self.table.rows_of_partitions_before(*place, bound.at(watermark))? {
                    self.table.remove(&key);
                }
            }
        }
        Ok(())
    }

    /// What shows of a partition, the end of its window if that is full, and the first row behind.
    fn window(&self, partition: &[u8]) -> (Shown, Option<End>, Option<RowKey>) {
        let mut ranking = Ranking::new(&self.spec);
        let mut shown = Shown::default();
        let mut last: Option<(&[u8], usize)> = None;
        let mut behind = None;
        // A deletion whose insert has not come yet is no row.
        let rows = self.table.partition(partition).filter(|(_, copies)| copies.weight > 0);
        for (key, copies) in rows {
            let peers = copies.peers(key);
            let new_group = last.is_none_or(|(key, length)| key[..length] != *peers);
            let Some((first, count)) = ranking.next(copies.weight as u64, new_group) else {
                behind = Some(key.into());
                break;
            };
            last = Some((key, peers.len()));
            if !self.spec.numbered {
                if count > 0 {
                    shown.push(key, 0, count as i64);
                }
            } else if self.spec.rank == RankFunction::RowNumber {
                (first..first + count).for_each(|number| shown.push(key, number, 1));
            } else {
                shown.push(key, first, count as i64);
            }
        }
        let full = behind.is_some() || ranking.is_full();
        let end = last.filter(|_| full);
        let end = end.map(|(key, peer_length)| End { key: key.into(), peer_length });
        (shown, end, behind)
    }

    /// Drops what has left the windows, of partitions that have grown.
    fn prune(&mut self, grown: Vec<RowKey>) {
        for partition in grown {
            let (_, end, behind) = self.window(&partition);
            while let Some(from) = &behind
                && let Some((last, _)) = self.table.last(&partition)
                && *last >= **from
            {
                let last: RowKey = last.into();
                self.table.remove(&last);
            }
            let touched = self.touched.get_mut(&partition).expect("what grows is touched");
            (touched.end, touched.grown) = (end, false);
        }
    }

    /// Rows of the output.
    fn rows(&self, shown: &Shown) -> Result<ChangeBatch> {
        let rows = self.table.decode((0..shown.len()).map(|row| shown.key(row)))?;
        let rows = self.spec.output(&rows, shown.rows.iter().map(|row| row.number))?;
        ChangeBatch::new(rows, shown.rows.iter().map(|row| row.weight).collect())
    }
}

/// Whether a row stands behind the end of a full window.
fn is_behind(rank: RankFunction, end: Option<&End>, key: &[u8], peers: &[u8]) -> bool {
    end.is_some_and(|end| match rank {
        RankFunction::RowNumber => *key > *end.key,
        RankFunction::Rank | RankFunction::DenseRank => *peers > end.key[..end.peer_length],
    })
}

/// -old and +new, where they differ; both are sorted.
fn differences(before: &Shown, now: &Shown, changes: &mut Shown) {
    let (mut old, mut new) = (0, 0);
    loop {
        let order = match (old < before.len(), new < now.len()) {
            (true, true) => {
                let keys = before.key(old).cmp(now.key(new));
                keys.then(before.rows[old].number.cmp(&now.rows[new].number))
            }
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => return,
        };
        let weight_of = |shown: &Shown, row: usize| shown.rows[row].weight;
        let weight = if order.is_ge() { weight_of(now, new) } else { 0 }
            - if order.is_le() { weight_of(before, old) } else { 0 };
        if weight != 0 {
            let (shown, row) = if order.is_ge() { (now, new) } else { (before, old) };
            changes.push(shown.key(row), shown.rows[row].number, weight);
        }
        old += usize::from(order.is_le());
        new += usize::from(order.is_ge());
    }
}

impl Operator for TopN {
    fn name(&self) -> &'static str {
        "top_n"
    }

    fn on_batch(&mut self, port: usize, batch: ChangeBatch, _: &mut Output) -> Result<()> {
        assert_eq!(port, 0, "top_n has one input");
        assert!(!self.spec.append_only || batch.all_inserts(), "this input never deletes");
        self.walks.changed(batch.num_rows());
        let encoded = self.table.encode(batch.rows())?;
        let mut grown: Vec<RowKey> = Vec::new();
        for row in 0..batch.num_rows() {
            let (partition, key) = (encoded.partition(row), encoded.key(row));
            let peers = encoded.peers(row);
            if !self.touched.contains_key(partition) {
                let (before, end, _) = self.window(partition);
                let touched = Touched { before, end, changed: false, grown: false };
                self.touched.insert(partition.into(), touched);
            }
            let touched = self.touched.get_mut(partition).expect("it is touched");
            let behind = is_behind(self.spec.rank, touched.end.as_ref(), key, peers);
            if behind && self.spec.append_only {
                continue;
            }
            self.table.add(key, peers.len(), batch.weight(row));
            touched.changed |= !behind;
            if self.spec.append_only && !touched.grown {
                touched.grown = true;
                grown.push(partition.into());
            }
        }
        self.prune(grown);
        Ok(())
    }

    fn on_watermark(&mut self, _: usize, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.watermark = Some(watermark);
        self.walks.moved();
        out.emit_watermark(watermark);
        Ok(())
    }

    fn on_epoch(&mut self, _: Epoch, out: &mut Output) -> Result<()> {
        let mut touched: Vec<(RowKey, Touched)> = self.touched.drain().collect();
        touched.retain(|(_, touched)| touched.changed);
        // Not in the order of a hash table: output does not differ from run to run.
        touched.sort_unstable_by(|(l, _), (r, _)| l.cmp(r));
        let mut changes = Shown::default();
        for (partition, touched) in touched {
            let (now, _, _) = self.window(&partition);
            differences(&touched.before, &now, &mut changes);
            if changes.len() >= STEP_ROWS {
                out.emit(self.rows(&changes)?);
                changes.clear();
            }
        }
        out.emit(self.rows(&changes)?);
        self.forget_closed()
    }

    fn checkpoint(&mut self, _: Epoch, writer: &mut CheckpointWriter) -> Result<()> {
        assert!(self.touched.is_empty(), "an epoch's changes are taken in when it completes");
        writer.write(ROWS, self.table.checkpoint_delta()?);
        Ok(())
    }

    fn restore(&mut self, reader: &mut CheckpointReader) -> Result<()> {
        let rows = reader.read(ROWS, &self.spec.partition)?;
        self.table.restore(rows)
    }

    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        visit(&mut self.table);
    }

    fn memory_bytes(&self) -> usize {
        let shown = self.touched.values().map(|touched| touched.before.memory_bytes());
        self.table.memory_bytes() + shown.sum::<usize>()
    }

    fn state_rows(&self) -> usize {
        self.table.len()
    }
}

#[cfg(test)]
mod tests;
