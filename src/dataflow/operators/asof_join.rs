//! Each row of the left input with the right row of equal keys whose time is nearest on one side.
//!
//! Rows of both inputs stand in sorted tables by keys, then time, so that a match is one step from
//! where the left row would stand among the right ones. Of right rows of one time the match is the
//! last one in the order of their columns (the first one where matches are later).
//!
//! `on_epoch`:
//! 1. For each changed right row, the left rows whose match it may be or have been: those up to the
//!    next right row that does not change. Their matches are looked up.
//! 2. The right changes enter their table; the same left rows look again, and where the match is
//!    another one, -old and +new are emitted.
//! 3. The left changes enter their table and are emitted with the match that they find.
//!
//! Rows with a NULL key or time match nothing and are not kept: of the left input they pass by,
//! padded, or are dropped.
//!
//! Keeps: all rows of both inputs, sorted. Left rows behind both watermarks are forgotten, and so
//! are the right rows before the one that is the match there; in a walk over the tables now and
//! then (`forgetting.rs`).

use std::collections::BTreeMap;
use std::ops::Bound;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::compute::{self, SortOptions};
use arrow::datatypes::{DataType, SchemaRef};

use crate::dataflow::operator::{Operator, Output};
use crate::dataflow::operators::forgetting::Walks;
use crate::dataflow::operators::materialize::consolidate;
use crate::plan::event_time::{TimeBound, find, time_bounds};
use crate::plan::node::{self, AsofOrder};
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::state::ordered_table::{
    Copies, OrderedBy, OrderedTable, RowChange, RowKey, added_up, successor,
};
use crate::state::spill::StoreVisitor;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};
use crate::types::time::{Epoch, Watermark};

/// Rows of an output batch.
const STEP_ROWS: usize = 8192;

const LEFT: usize = 0;
const RIGHT: usize = 1;
/// The tables in a checkpoint.
const TABLES: [&str; 2] = ["left", "right"];

/// What to join.
#[derive(Clone, Debug)]
pub struct AsofJoinSpec {
    pub keys: Vec<(usize, usize)>,
    pub times: (usize, usize),
    pub order: AsofOrder,
    pub keeps_left: bool,
    /// What the inputs' watermarks promise of their times.
    pub bounds: [Option<TimeBound>; 2],
    pub schema: SchemaRef,
}

impl From<&node::AsofJoin> for AsofJoinSpec {
    fn from(node: &node::AsofJoin) -> AsofJoinSpec {
        AsofJoinSpec {
            keys: node.keys.clone(),
            times: node.times,
            order: node.order,
            keeps_left: node.keeps_left,
            bounds: [
                find(&time_bounds(&node.left.input), node.times.0).cloned(),
                find(&time_bounds(&node.right.input), node.times.1).cloned(),
            ],
            schema: node.schema.clone(),
        }
    }
}

/// One input.
struct Side {
    /// Its key columns, in key order.
    keys: Vec<usize>,
    time: usize,
    /// Rows with keys and a time, by those.
    table: OrderedTable,
    /// Changes of the current epoch; empty right after `on_epoch`.
    changes: Vec<RowChange>,
    watermark: Option<Watermark>,
}

impl Side {
    /// The bytes of a time column: whether it is there, then its number.
    fn time_bytes(&self) -> usize {
        match self.table.schema().field(self.time).data_type() {
            DataType::Date32 => 1 + size_of::<i32>(),
            _ => 1 + size_of::<i64>(),
        }
    }

    /// The bytes of the keys, of those of keys and time; only of a time column.
    fn partition_of<'a>(&self, peers: &'a [u8]) -> &'a [u8] {
        &peers[..peers.len() - self.time_bytes()]
    }

    /// The time, of the bytes of keys and time: in Arrow's row format a number stands with its sign
    /// turned round, most significant byte first.
    fn time_of(&self, peers: &[u8]) -> i64 {
        let number = &peers[peers.len() + 1 - self.time_bytes()..];
        let unsigned = number.iter().fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
        let bits = 8 * number.len() as u32;
        (unsigned as i128 - (1_i128 << (bits - 1))) as i64
    }
}

/// A left row on its way out with its match.
struct Pair {
    left: RowKey,
    right: Option<RowKey>,
    weight: i64,
}

/// A left row that right changes may concern.
struct Touched {
    partition_length: usize,
    peer_length: usize,
    weight: i64,
}

/// The `asof_join` operator.
pub struct AsofJoin {
    spec: AsofJoinSpec,
    sides: [Side; 2],
    /// Left rows of the current epoch that match nothing.
    pending: Vec<ChangeBatch>,
    walks: Walks,
}

impl AsofJoin {
    /// # Errors
    /// When columns that are compared differ in type (ours: the planner makes them equal), or have
    /// no order (SQLSTATE 0A000).
    pub fn new(spec: AsofJoinSpec, left: &SchemaRef, right: &SchemaRef) -> Result<AsofJoin> {
        for (l, r) in spec.keys.iter().chain([&spec.times]) {
            let (l, r) = (left.field(*l), right.field(*r));
            if l.data_type() != r.data_type() {
                return Err(Error::internal(format!(
                    "columns {} and {} of an ASOF join have types {} and {}",
                    l.name(),
                    r.name(),
                    l.data_type(),
                    r.data_type()
                )));
            }
        }
        let side = |schema: &SchemaRef, keys: Vec<usize>, time: usize| -> Result<Side> {
            let by = OrderedBy { column: time, options: SortOptions::default() };
            let table = OrderedTable::new(schema.clone(), keys.clone(), vec![by])?;
            Ok(Side { keys, time, table, changes: Vec::new(), watermark: None })
        };
        let sides = [
            side(left, spec.keys.iter().map(|(l, _)| *l).collect(), spec.times.0)?,
            side(right, spec.keys.iter().map(|(_, r)| *r).collect(), spec.times.1)?,
        ];
        Ok(AsofJoin { spec, sides, pending: Vec::new(), walks: Walks::default() })
    }

    fn apply(&mut self, port: usize, changes: &[RowChange]) {
        for change in changes {
            self.sides[port].table.add(&change.key, change.peer_length, change.weight);
        }
    }

    /// The right row that matches a left row with these bytes of keys and time.
    fn find_match(&self, partition: &[u8], peers: &[u8]) -> Option<&[u8]> {
        let right = &self.sides[RIGHT].table;
        // Rows of exactly this time begin with its bytes, and stand before `after`.
        let after = successor(peers);
        let behind = after.as_deref();
        if self.spec.order.looks_back() {
            let to = match (self.spec.order.takes_equal(), behind) {
                (true, Some(after)) => Bound::Excluded(after),
                (true, None) => Bound::Unbounded,
                (false, _) => Bound::Excluded(peers),
            };
            right
                .walk_back_any(to)
                .take_while(|(key, _)| key.starts_with(partition))
                .find(|(_, copies)| copies.weight > 0)
                .map(|(key, _)| key)
        } else {
            let from = match (self.spec.order.takes_equal(), behind) {
                (true, _) => Bound::Included(peers),
                (false, Some(after)) => Bound::Included(after),
                (false, None) => return None,
            };
            right
                .walk_any(from)
                .take_while(|(key, _)| key.starts_with(partition))
                .find(|(_, copies)| copies.weight > 0)
                .map(|(key, _)| key)
        }
    }

    /// The left rows, as their table is now, whose match the right changes may be about; the right
    /// table as it was before them.
    fn touched(&self, changes: &[RowChange]) -> BTreeMap<RowKey, Touched> {
        let mut touched = BTreeMap::new();
        let changes_row = |key: &[u8]| changes.binary_search_by(|c| (*c.key).cmp(key)).is_ok();
        let (left, right) = (&self.sides[LEFT].table, &self.sides[RIGHT].table);
        for change in changes {
            let (partition, key) = (change.partition(), &*change.key);
            // The nearest row on the far side that stays hides the change from what is beyond it.
            let hiding = if self.spec.order.looks_back() {
                let mut rows = right.walk(partition, Bound::Excluded(key));
                rows.find(|(key, _)| !changes_row(key)).map(|(key, copies)| copies.peers(key))
            } else {
                let mut rows = right.walk_back(partition, Bound::Excluded(key));
                rows.find(|(key, _)| !changes_row(key)).map(|(key, copies)| copies.peers(key))
            };
            let sees = |peers: &[u8]| self.is_between(peers, change.peers(), hiding);
            let mut add = |key: &[u8], copies: &Copies| {
                let peers = copies.peers(key);
                let found = sees(peers);
                if found {
                    let row = Touched {
                        partition_length: partition.len(),
                        peer_length: peers.len(),
                        weight: copies.weight,
                    };
                    touched.insert(RowKey::from(key), row);
                }
                found
            };
            if self.spec.order.looks_back() {
                let from = match (self.spec.order.takes_equal(), successor(change.peers())) {
                    (true, _) => RowKey::from(change.peers()),
                    (false, Some(after)) => after,
                    (false, None) => continue,
                };
                let mut rows = left.walk(partition, Bound::Included(&from));
                while rows.next().is_some_and(|(key, copies)| add(key, copies)) {}
            } else {
                let to = match (self.spec.order.takes_equal(), successor(change.peers())) {
                    (true, Some(after)) => Bound::Excluded(after),
                    (true, None) => Bound::Unbounded,
                    (false, _) => Bound::Excluded(RowKey::from(change.peers())),
                };
                let mut rows = left.walk_back(partition, to.as_ref().map(|key| &**key));
                while rows.next().is_some_and(|(key, copies)| add(key, copies)) {}
            }
        }
        touched
    }

    /// Whether a left row of these keys and time looks past `hiding` to the changed right row.
    fn is_between(&self, left: &[u8], change: &[u8], hiding: Option<&[u8]>) -> bool {
        let order = self.spec.order;
        let may_match = |right: &[u8]| match order {
            AsofOrder::AtOrBefore => left >= right,
            AsofOrder::Before => left > right,
            AsofOrder::AtOrAfter => left <= right,
            AsofOrder::After => left < right,
        };
        may_match(change) && !hiding.is_some_and(may_match)
    }

    /// Sends left rows on with their matches.
    fn emit(&mut self, pairs: Vec<Pair>, consolidated: bool, out: &mut Output) -> Result<()> {
        let mut pending = std::mem::take(&mut self.pending);
        for pairs in pairs.chunks(STEP_ROWS) {
            let left = self.sides[LEFT].table.decode(pairs.iter().map(|pair| &*pair.left))?;
            let matches: Vec<&[u8]> = pairs.iter().filter_map(|p| p.right.as_deref()).collect();
            let all_match = matches.len() == pairs.len();
            let right = self.sides[RIGHT].table.decode(matches.into_iter())?;
            let mut columns = left.columns().to_vec();
            if all_match {
                columns.extend(right.columns().iter().cloned());
            } else {
                let mut next = 0;
                let places = pairs.iter().map(|pair| {
                    pair.right.as_ref().map(|_| {
                        next += 1;
                        next - 1
                    })
                });
                let places: UInt32Array = places.collect();
                for column in right.columns() {
                    columns.push(compute::take(column, &places, None)?);
                }
            }
            let rows = RecordBatch::try_new(self.spec.schema.clone(), columns)?;
            pending.push(ChangeBatch::new(rows, pairs.iter().map(|p| p.weight).collect())?);
        }
        if consolidated {
            pending = consolidate(&self.spec.schema, pending)?;
        }
        for batch in pending {
            for start in (0..batch.num_rows()).step_by(STEP_ROWS) {
                out.emit(batch.slice(start, STEP_ROWS.min(batch.num_rows() - start)));
            }
        }
        Ok(())
    }

    /// Forgets the rows that no change still to come can concern, when that is worth a walk.
    fn forget_settled(&mut self) {
        let closed = |port: usize| -> Option<i64> {
            let watermark = self.sides[port].watermark?;
            match &self.spec.bounds[port] {
                Some(bound) => Some(bound.at(watermark)),
                None => (watermark == Watermark::END).then_some(i64::MAX),
            }
        };
        let (Some(left_closed), Some(right_closed)) = (closed(LEFT), closed(RIGHT)) else {
            return;
        };
        let both = left_closed.min(right_closed);
        let rows = self.sides[LEFT].table.len() + self.sides[RIGHT].table.len();
        let ended = both == i64::MAX && rows > 0;
        if !ended && !self.walks.due(rows) {
            return;
        }
        if ended {
            for side in &mut self.sides {
                let all: Vec<RowKey> =
                    side.table.iter().map(|(key, _)| RowKey::from(key)).collect();
                all.iter().for_each(|key| side.table.remove(key));
            }
            return;
        }
        let looks_back = self.spec.order.looks_back();
        let settled = |key: &[u8], copies: &Copies| {
            let peers = copies.peers(key);
            let time = self.sides[LEFT].time_of(peers);
            if looks_back {
                return time < both;
            }
            // The match stays when it is behind the right watermark.
            let partition = self.sides[LEFT].partition_of(peers);
            time < left_closed
                && self.find_match(partition, peers).is_some_and(|found| {
                    let right = &self.sides[RIGHT];
                    let copies = right.table.get(found).expect("a match is in the table");
                    right.time_of(copies.peers(found)) < right_closed
                })
        };
        let left: Vec<RowKey> = self.sides[LEFT]
            .table
            .iter()
            .filter(|(key, copies)| settled(key, copies))
            .map(|(key, _)| RowKey::from(key))
            .collect();
        let mut right: Vec<RowKey> = Vec::new();
        // Of the rows of keys before, the last one that is behind: it may be a match yet.
        let mut last: Option<(&[u8], &[u8])> = None;
        let side = &self.sides[RIGHT];
        for (key, copies) in side.table.iter() {
            let peers = copies.peers(key);
            if side.time_of(peers) >= both {
                continue;
            }
            if !looks_back {
                right.push(RowKey::from(key));
                continue;
            }
            let partition = side.partition_of(peers);
            if let Some((before, other)) = last.replace((key, partition))
                && other == partition
            {
                right.push(RowKey::from(before));
            }
        }
        for (port, keys) in [(LEFT, left), (RIGHT, right)] {
            keys.iter().for_each(|key| self.sides[port].table.remove(key));
        }
    }

    /// Takes rows with a NULL key or time out: they match nothing.
    fn pass_nulls(&mut self, port: usize, batch: ChangeBatch) -> Result<ChangeBatch> {
        let side = &self.sides[port];
        let nulls = side.keys.iter().chain([&side.time]).fold(None, |all, column| {
            let column = batch.column(*column).logical_nulls();
            NullBuffer::union(Option::as_ref(&all), column.as_ref())
        });
        let Some(nulls) = nulls.filter(|nulls: &NullBuffer| nulls.null_count() > 0) else {
            return Ok(batch);
        };
        let valid = BooleanArray::new(nulls.into_inner(), None);
        if port == LEFT && self.spec.keeps_left {
            let passing = batch.filter(&compute::not(&valid)?)?;
            let mut columns: Vec<ArrayRef> = passing.rows().columns().to_vec();
            let padded = self.spec.schema.fields().iter().skip(columns.len());
            let nulls = padded.map(|field| new_null_array(field.data_type(), passing.num_rows()));
            columns.extend(nulls.collect::<Vec<_>>());
            let rows = RecordBatch::try_new(self.spec.schema.clone(), columns)?;
            self.pending.push(passing.with_rows(rows));
        }
        batch.filter(&valid)
    }
}

impl Operator for AsofJoin {
    fn name(&self) -> &'static str {
        "asof_join"
    }

    fn on_batch(&mut self, port: usize, batch: ChangeBatch, _: &mut Output) -> Result<()> {
        let batch = self.pass_nulls(port, batch)?;
        let side = &mut self.sides[port];
        let encoded = side.table.encode(batch.rows())?;
        side.changes.extend(encoded.changes(&batch));
        Ok(())
    }

    fn on_watermark(&mut self, port: usize, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.sides[port].watermark = Some(watermark);
        self.walks.moved();
        let [left, right] = &self.sides;
        if let (Some(left), Some(right)) = (left.watermark, right.watermark) {
            out.emit_watermark(left.min(right));
        }
        Ok(())
    }

    fn on_epoch(&mut self, _: Epoch, out: &mut Output) -> Result<()> {
        let (left, right) = (
            added_up(std::mem::take(&mut self.sides[LEFT].changes)),
            added_up(std::mem::take(&mut self.sides[RIGHT].changes)),
        );
        let touched = self.touched(&right);
        let matches: Vec<Option<RowKey>> = touched
            .iter()
            .map(|(key, row)| {
                let found = self.find_match(&key[..row.partition_length], &key[..row.peer_length]);
                found.map(RowKey::from)
            })
            .collect();
        self.apply(RIGHT, &right);
        let mut pairs = Vec::new();
        let keeps_left = self.spec.keeps_left;
        let mut push = |left: &RowKey, right: Option<RowKey>, weight: i64| {
            if right.is_some() || keeps_left {
                pairs.push(Pair { left: left.clone(), right, weight });
            }
        };
        for ((key, row), before) in touched.iter().zip(matches) {
            let now = self.find_match(&key[..row.partition_length], &key[..row.peer_length]);
            if now != before.as_deref() {
                push(key, now.map(RowKey::from), row.weight);
                push(key, before, -row.weight);
            }
        }
        for change in &left {
            let found = self.find_match(change.partition(), change.peers());
            push(&change.key, found.map(RowKey::from), change.weight);
        }
        self.apply(LEFT, &left);
        // What changes in several ways within the epoch may take itself back.
        self.walks.changed(left.len() + right.len());
        let mixed = !left.is_empty() && !touched.is_empty() || !self.pending.is_empty();
        self.emit(pairs, mixed, out)?;
        self.forget_settled();
        Ok(())
    }

    fn checkpoint(&mut self, _: Epoch, writer: &mut CheckpointWriter) -> Result<()> {
        for (side, table) in self.sides.iter_mut().zip(TABLES) {
            assert!(side.changes.is_empty(), "an epoch's changes are taken in when it completes");
            writer.write(table, side.table.checkpoint_delta()?);
        }
        Ok(())
    }

    fn restore(&mut self, reader: &mut CheckpointReader) -> Result<()> {
        for (side, table) in self.sides.iter_mut().zip(TABLES) {
            side.table.restore(reader.read(table, &side.keys)?)?;
        }
        Ok(())
    }

    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        self.sides.iter_mut().for_each(|side| visit(&mut side.table));
    }

    fn memory_bytes(&self) -> usize {
        let side = |side: &Side| {
            let changes = side.changes.iter().map(|change| change.key.len());
            side.table.memory_bytes()
                + changes.sum::<usize>()
                + side.changes.capacity() * size_of::<RowChange>()
        };
        self.sides.iter().map(side).sum()
    }

    fn state_rows(&self) -> usize {
        self.sides.iter().map(|side| side.table.len()).sum()
    }
}

#[cfg(test)]
mod tests;
