//! The session that each row is in: rows of a partition that follow each other at most a gap apart.
//!
//! All rows stand in a sorted table, partition by partition, in the order of their times. A change
//! concerns its own session and those that it joins or parts, and no other row.
//!
//! `on_epoch`, for the rows that changed, sorted and summed up:
//! 1. New rows enter the table, so that it has the rows of before and of now together.
//! 2. From each changed row to both sides, as long as rows are at most a gap apart: that range holds
//!    every row whose session may differ. Changes that fall into one range share it.
//! 3. The range is walked once: sessions as they were, of the rows of before, and as they are.
//!    A row whose session moved is emitted as -old and +new; others by the change of their copies.
//! 4. Rows that went leave the table.
//!
//! Keeps: all rows, sorted. A session that ended before the watermark can grow no more: its rows
//! are forgotten, in a walk over the table now and then (`forgetting.rs`).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::buffer::NullBuffer;
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;

use crate::dataflow::operator::{Operator, Output};
use crate::dataflow::operators::forgetting::Walks;
use crate::functions::window::session::{is_apart, session_end};
use crate::plan::event_time::{TimeBound, find, time_bounds};
use crate::plan::node;
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::state::ordered_table::{OrderedBy, OrderedTable, RowChange, RowKey, added_up};
use crate::state::spill::StoreVisitor;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};
use crate::types::time::{Epoch, EventDuration, EventTime, Watermark};

/// Rows of an output batch.
const STEP_ROWS: usize = 8192;
/// What a time is in the bytes of a row: whether it is there, then the number with its sign turned
/// round, most significant byte first (Arrow's row format).
const TIME_BYTES: usize = 9;
/// The table in a checkpoint.
const ROWS: &str = "rows";

/// Which sessions.
#[derive(Clone, Debug)]
pub struct SessionSpec {
    pub partition: Vec<usize>,
    pub time: usize,
    pub gap: EventDuration,
    /// What the input's watermark promises of its time.
    pub bound: Option<TimeBound>,
    pub schema: SchemaRef,
}

impl From<&node::Session> for SessionSpec {
    fn from(node: &node::Session) -> SessionSpec {
        SessionSpec {
            partition: node.partition.clone(),
            time: node.time,
            gap: node.gap,
            bound: find(&time_bounds(&node.input.input), node.time).cloned(),
            schema: node.schema.clone(),
        }
    }
}

/// The `session` operator.
pub struct Session {
    spec: SessionSpec,
    /// By partition, then time.
    table: OrderedTable,
    /// Changes of the current epoch; empty right after `on_epoch`.
    changes: Vec<RowChange>,
    /// No change still to come has an earlier time.
    closed_before: EventTime,
    walks: Walks,
}

/// A row of a range that changes. Sessions are their first and last times; of rows without copies
/// they mean nothing.
struct Row<'a> {
    key: &'a [u8],
    time: i64,
    before: i64,
    now: i64,
    old: (i64, i64),
    new: (i64, i64),
}

/// Rows on their way out.
#[derive(Default)]
struct Emitted<'a> {
    keys: Vec<&'a [u8]>,
    starts: Vec<i64>,
    ends: Vec<i64>,
    weights: Vec<i64>,
}

impl Session {
    /// # Errors
    /// For a column whose type has no order (SQLSTATE 0A000).
    pub fn new(spec: SessionSpec, input: &SchemaRef) -> Result<Session> {
        let by = OrderedBy { column: spec.time, options: SortOptions::default() };
        let table = OrderedTable::new(input.clone(), spec.partition.clone(), vec![by])?;
        Ok(Session {
            spec,
            table,
            changes: Vec::new(),
            closed_before: EventTime(i64::MIN),
            walks: Walks::default(),
        })
    }

    fn apply(&mut self, changes: &[RowChange], which: impl Fn(i64) -> bool) {
        for change in changes.iter().filter(|change| which(change.weight)) {
            self.table.add(&change.key, change.peer_length, change.weight);
        }
    }

    /// The furthest row that is linked to this one by rows at most a gap apart.
    fn linked_end<'a>(&'a self, change: &'a RowChange, forward: bool) -> &'a [u8] {
        let peers = &change.key[..change.peer_length];
        let partition = &peers[..peers.len() - TIME_BYTES];
        let (mut end, mut time): (&[u8], i64) = (&change.key, time_of(peers));
        let beyond = std::ops::Bound::Excluded(&*change.key);
        let mut follow = |key: &'a [u8], next: i64| {
            let (before, after) = if forward { (time, next) } else { (next, time) };
            let linked = !is_apart(before, after, self.spec.gap.0);
            if linked {
                (end, time) = (key, next);
            }
            linked
        };
        if forward {
            let mut rows = self.table.walk(partition, beyond);
            while rows.next().is_some_and(|(key, c)| follow(key, time_of(c.peers(key)))) {}
        } else {
            let mut rows = self.table.walk_back(partition, beyond);
            while rows.next().is_some_and(|(key, c)| follow(key, time_of(c.peers(key)))) {}
        }
        end
    }

    /// The changes of all rows, the table having those of before and of now.
    fn emit_changes(&self, changes: &[RowChange], out: &mut Output) -> Result<()> {
        let mut emitted = Emitted::default();
        let mut next = 0;
        while next < changes.len() {
            let first = &changes[next];
            let partition = &first.key[..first.peer_length - TIME_BYTES];
            let from = self.linked_end(first, false);
            let to = self.linked_end(first, true);
            // A change beyond the range begins another one; ranges do not meet.
            let begun = next;
            while changes.get(next).is_some_and(|change| &*change.key <= to) {
                next += 1;
            }
            let rows = self.range(partition, from, to, &changes[begun..next]);
            for row in &rows {
                self.emit_row(row, &mut emitted);
            }
            if emitted.keys.len() >= STEP_ROWS {
                self.send(&mut emitted, out)?;
            }
        }
        self.send(&mut emitted, out)
    }

    /// The rows between two places with their sessions before and now.
    fn range<'a>(
        &'a self,
        partition: &'a [u8],
        from: &[u8],
        to: &[u8],
        changes: &[RowChange],
    ) -> Vec<Row<'a>> {
        let mut changes = changes.iter().peekable();
        let mut rows = Vec::new();
        for (key, copies) in self.table.walk(partition, std::ops::Bound::Included(from)) {
            if key > to {
                break;
            }
            let change = changes.next_if(|change| *change.key == *key).map_or(0, |c| c.weight);
            // New copies are in the table already, and those that go are still.
            let weight = copies.weight;
            let (before, now) =
                if change > 0 { (weight - change, weight) } else { (weight, weight + change) };
            let time = time_of(copies.peers(key));
            rows.push(Row { key, time, before, now, old: (0, 0), new: (0, 0) });
        }
        assert!(changes.next().is_none(), "every change is in its range");
        let gap = self.spec.gap.0;
        find_sessions(&mut rows, gap, |row| row.before > 0, |row, bounds| row.old = bounds);
        find_sessions(&mut rows, gap, |row| row.now > 0, |row, bounds| row.new = bounds);
        rows
    }

    fn emit_row<'a>(&self, row: &Row<'a>, emitted: &mut Emitted<'a>) {
        let mut push = |(start, last): (i64, i64), weight: i64| {
            if weight != 0 {
                emitted.keys.push(row.key);
                emitted.starts.push(start);
                emitted.ends.push(session_end(last, self.spec.gap.0));
                emitted.weights.push(weight);
            }
        };
        if row.before > 0 && row.now > 0 && row.old == row.new {
            push(row.new, row.now - row.before);
        } else {
            push(row.old, -row.before);
            push(row.new, row.now);
        }
    }

    fn send(&self, emitted: &mut Emitted<'_>, out: &mut Output) -> Result<()> {
        let Emitted { keys, starts, ends, weights } = std::mem::take(emitted);
        if keys.is_empty() {
            return Ok(());
        }
        let mut columns = self.table.decode(keys.into_iter())?.columns().to_vec();
        let time_type = columns[self.spec.time].data_type().clone();
        for bounds in [starts, ends] {
            let bounds = TimestampMicrosecondArray::from(bounds).with_data_type(time_type.clone());
            columns.push(Arc::new(bounds) as ArrayRef);
        }
        let rows = RecordBatch::try_new(self.spec.schema.clone(), columns)?;
        let batch = ChangeBatch::new(rows, weights)?;
        for start in (0..batch.num_rows()).step_by(STEP_ROWS) {
            out.emit(batch.slice(start, STEP_ROWS.min(batch.num_rows() - start)));
        }
        Ok(())
    }

    /// Forgets the sessions that no change still to come can touch.
    fn forget_closed(&mut self) {
        let mut closed: Vec<RowKey> = Vec::new();
        let mut session: Vec<&[u8]> = Vec::new();
        let mut last: Option<(&[u8], i64)> = None;
        let gap = self.spec.gap.0;
        let bound = self.closed_before.0;
        let mut end = |session: &mut Vec<&[u8]>, last: Option<(&[u8], i64)>| {
            if last.is_some_and(|(_, time)| session_end(time, gap) < bound) {
                closed.extend(session.iter().map(|key| RowKey::from(*key)));
            }
            session.clear();
        };
        for (key, copies) in self.table.iter() {
            let peers = copies.peers(key);
            let (partition, time) = (&peers[..peers.len() - TIME_BYTES], time_of(peers));
            let linked =
                last.is_some_and(|(p, before)| p == partition && !is_apart(before, time, gap));
            if !linked {
                end(&mut session, last);
            }
            session.push(key);
            last = Some((partition, time));
        }
        end(&mut session, last);
        for key in &closed {
            self.table.remove(key);
        }
    }
}

/// The time at the end of the bytes that peers share.
fn time_of(peers: &[u8]) -> i64 {
    let number = &peers[peers.len() - size_of::<i64>()..];
    let number: [u8; size_of::<i64>()] = number.try_into().expect("a time has eight bytes");
    (u64::from_be_bytes(number) ^ (1 << 63)) as i64
}

/// Gives each row that is `there` the first and last time of its session.
fn find_sessions(
    rows: &mut [Row<'_>],
    gap_us: i64,
    there: impl Fn(&Row<'_>) -> bool,
    mut give: impl FnMut(&mut Row<'_>, (i64, i64)),
) {
    let mut first = 0;
    let mut bounds: Option<(i64, i64)> = None;
    for index in 0..rows.len() {
        if !there(&rows[index]) {
            continue;
        }
        let time = rows[index].time;
        bounds = Some(match bounds {
            Some((start, last)) if !is_apart(last, time, gap_us) => (start, time),
            Some(ended) => {
                rows[first..index].iter_mut().for_each(|row| give(row, ended));
                first = index;
                (time, time)
            }
            None => (time, time),
        });
    }
    if let Some(bounds) = bounds {
        rows[first..].iter_mut().for_each(|row| give(row, bounds));
    }
}

impl Operator for Session {
    fn name(&self) -> &'static str {
        "session"
    }

    fn on_batch(&mut self, port: usize, batch: ChangeBatch, _: &mut Output) -> Result<()> {
        assert_eq!(port, 0, "session has one input");
        // Rows without a time are in no session.
        let times = batch.column(self.spec.time).nulls().cloned();
        let batch = match times.filter(|nulls: &NullBuffer| nulls.null_count() > 0) {
            Some(nulls) => {
                batch.filter(&arrow::array::BooleanArray::new(nulls.into_inner(), None))?
            }
            None => batch,
        };
        let encoded = self.table.encode(batch.rows())?;
        self.changes.extend(encoded.changes(&batch));
        Ok(())
    }

    fn on_watermark(&mut self, _: usize, watermark: Watermark, out: &mut Output) -> Result<()> {
        if let Some(bound) = &self.spec.bound {
            self.closed_before = EventTime(bound.at(watermark));
            self.walks.moved();
        } else if watermark == Watermark::END {
            self.closed_before = EventTime(i64::MAX);
        }
        out.emit_watermark(watermark);
        Ok(())
    }

    fn on_epoch(&mut self, _: Epoch, out: &mut Output) -> Result<()> {
        let changes = added_up(std::mem::take(&mut self.changes));
        if !changes.is_empty() {
            self.apply(&changes, |weight| weight > 0);
            if changes.iter().any(|change| self.table.get(&change.key).is_none()) {
                return Err(Error::internal("a row is deleted that was never inserted"));
            }
            self.emit_changes(&changes, out)?;
            self.apply(&changes, |weight| weight < 0);
            self.walks.changed(changes.len());
        }
        let ended = self.closed_before == EventTime(i64::MAX) && !self.table.is_empty();
        if ended || self.walks.due(self.table.len()) {
            self.forget_closed();
        }
        Ok(())
    }

    fn checkpoint(&mut self, _: Epoch, writer: &mut CheckpointWriter) -> Result<()> {
        assert!(self.changes.is_empty(), "an epoch's changes are taken in when it completes");
        writer.write(ROWS, self.table.checkpoint_delta()?);
        Ok(())
    }

    fn restore(&mut self, reader: &mut CheckpointReader) -> Result<()> {
        self.table.restore(reader.read(ROWS, &self.spec.partition)?)
    }

    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        visit(&mut self.table);
    }

    fn memory_bytes(&self) -> usize {
        let changes = self.changes.iter().map(|change| change.key.len());
        self.table.memory_bytes()
            + changes.sum::<usize>()
            + self.changes.capacity() * size_of::<RowChange>()
    }

    fn state_rows(&self) -> usize {
        self.table.len()
    }
}

#[cfg(test)]
mod tests;
