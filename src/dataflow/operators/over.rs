//! Window functions over changing partitions.
//!
//! All rows stand in a sorted table, partition by partition. A change concerns the rows that look
//! at the place where it is: with `ROWS 2 PRECEDING` the two after it, with `rank()` all after it,
//! with `sum(x) OVER (PARTITION BY p)` the whole partition. Only those are computed, once as they
//! were and once as they are, and what differs is emitted. Nothing that was emitted is kept: the
//! same rows give the same values.
//!
//! `on_epoch`, for the rows that changed, sorted and summed up, partition by partition:
//! 1. For each changed row, the range of rows that look at it, as the partition was and as it is;
//!    ranges that meet are made one.
//! 2. The rows of each range, with all that they look at, are computed: for the old values from the
//!    partition as it was (the changes are taken back for a moment), for the new ones as it is.
//! 3. -old and +new are consolidated.
//!
//! Where a call cannot be computed (a sum out of range), the whole partition is left out, and
//! reported, until it can. The partitions that fail are remembered: nothing of them was emitted.
//!
//! Keeps: all rows, sorted.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, IntervalMonthDayNanoArray, RecordBatch, RecordBatchOptions, Scalar,
};
use arrow::compute::kernels::numeric;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, SchemaRef,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::dataflow::operator::{Operator, Output, RowError};
use crate::dataflow::operators::materialize::consolidate;
use crate::dataflow::operators::top_n::ordered_by;
use crate::plan::node::{self, SortColumn};
use crate::plan::window::{Distance, WindowCall};
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::state::ordered_table::{Copies, OrderedTable, RowKey};
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, ErrorKind, Result, SqlState};
use crate::types::time::{Epoch, Watermark};

/// Rows that are decoded at a time, unless a partition is longer; also the rows of an output batch.
const STEP_ROWS: usize = 8192;
/// Rows of one range: more do not fit Arrow's indices, nor any memory.
const RANGE_ROWS_MAX: usize = 1 << 30;
/// Months have 28 to 31 days: a row that looks a month back may be up to three days further away
/// than a month after what it looks at.
const MONTH_SLACK_DAYS: i32 = 3;
/// The table in a checkpoint.
const ROWS: &str = "rows";

/// Which functions over which windows.
#[derive(Clone, Debug)]
pub struct OverSpec {
    pub partition: Vec<usize>,
    pub order_by: Vec<SortColumn>,
    pub calls: Vec<WindowCall>,
    pub schema: SchemaRef,
}

impl From<&node::Over> for OverSpec {
    fn from(node: &node::Over) -> OverSpec {
        OverSpec {
            partition: node.partition.clone(),
            order_by: node.order_by.clone(),
            calls: node.calls.clone(),
            schema: node.schema.clone(),
        }
    }
}

/// The `over` operator.
pub struct Over {
    spec: OverSpec,
    table: OrderedTable,
    /// How far rows look, each distance once; the end of the partition alone, if some do so far.
    preceding: Vec<Distance>,
    following: Vec<Distance>,
    /// Changes of the current epoch; empty right after `on_epoch`.
    changes: Vec<Change>,
    /// Partitions of which nothing was emitted, because a call failed.
    failed: BTreeMap<RowKey, Failure>,
}

/// A row that changes.
struct Change {
    place: Place,
    partition_length: usize,
    weight: i64,
}

impl Change {
    fn partition(&self) -> &[u8] {
        &self.place.key[..self.partition_length]
    }
}

/// Why a partition is left out.
#[derive(Clone)]
struct Failure {
    call: usize,
    error: Error,
}

/// How far to walk from a place.
enum Limit {
    Rows(u64),
    Groups(u64),
    /// To the last peers that are not beyond these bytes.
    Threshold(RowKey),
}

/// A row of the table, or where one was or may come.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    key: RowKey,
    peer_length: usize,
}

/// Rows of a partition between two places, both included; `None`: to the end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PlaceRange {
    from: Option<Place>,
    to: Option<Place>,
}

impl PlaceRange {
    const ALL: PlaceRange = PlaceRange { from: None, to: None };

    fn contains(&self, key: &[u8]) -> bool {
        self.from.as_ref().is_none_or(|from| *from.key <= *key)
            && self.to.as_ref().is_none_or(|to| *key <= *to.key)
    }
}

/// A partition that changes: the range of its changes, and what has to be computed.
struct Touched {
    partition: RowKey,
    /// Where its changes stand among those of the epoch.
    changes: Range<usize>,
    ranges: Vec<PlaceRange>,
    /// What was reported of it when it was computed last.
    failed_before: Option<Failure>,
    failed_now: Option<Failure>,
}

/// Rows to compute: a part of a partition with all that its rows look at.
struct Part<'a> {
    /// Which of the touched partitions.
    touched: usize,
    /// A row of many copies many times.
    keys: Vec<&'a [u8]>,
    /// Of which these are asked for.
    wanted: Range<usize>,
}

impl Over {
    /// # Errors
    /// For a column whose type has no order (SQLSTATE 0A000).
    pub fn new(spec: OverSpec, input: &SchemaRef) -> Result<Over> {
        let order_by = ordered_by(&spec.order_by);
        let table = OrderedTable::new(input.clone(), spec.partition.clone(), order_by)?;
        let preceding = each_once(spec.calls.iter().map(|call| &call.preceding));
        let following = each_once(spec.calls.iter().map(|call| &call.following));
        let (changes, failed) = (Vec::new(), BTreeMap::new());
        Ok(Over { spec, table, preceding, following, changes, failed })
    }

    /// The epoch's changes, each row once, in order.
    fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = std::mem::take(&mut self.changes);
        changes.sort_unstable_by(|l, r| l.place.key.cmp(&r.place.key));
        changes.dedup_by(|next, kept| {
            let same = next.place.key == kept.place.key;
            if same {
                kept.weight = kept.weight.saturating_add(next.weight);
            }
            same
        });
        changes.retain(|change| change.weight != 0);
        changes
    }

    /// The partitions of changes, which are in order.
    fn partitions(&self, changes: &[Change]) -> Vec<Touched> {
        let mut touched: Vec<Touched> = Vec::new();
        for (index, change) in changes.iter().enumerate() {
            let partition = change.partition();
            match touched.last_mut() {
                Some(last) if *last.partition == *partition => last.changes.end = index + 1,
                _ => touched.push(Touched {
                    partition: partition.into(),
                    changes: index..index + 1,
                    ranges: Vec::new(),
                    failed_before: self.failed.get(partition).cloned(),
                    failed_now: None,
                }),
            }
        }
        touched
    }

    /// Changes enter the table, or are taken back (`sign` -1).
    fn apply(&mut self, changes: &[Change], sign: i64) {
        for change in changes {
            self.table.add(&change.place.key, change.place.peer_length, sign * change.weight);
        }
    }

    /// Adds the ranges of rows that look at the changed places, as the table is now.
    fn add_ranges(&self, touched: &mut [Touched], changes: &[Change]) -> Result<()> {
        for touched in touched {
            if touched.failed_before.is_some() {
                touched.ranges = vec![PlaceRange::ALL];
                continue;
            }
            let changes = &changes[touched.changes.clone()];
            // Where all rows before (or after) look at a change, one change tells the range of all.
            let (to_start, to_end) =
                (self.following == [Distance::Unbounded], self.preceding == [Distance::Unbounded]);
            let changes = match (to_start, to_end, changes) {
                (true, true, _) => {
                    touched.ranges = vec![PlaceRange::ALL];
                    continue;
                }
                (true, false, [.., last]) => std::slice::from_ref(last),
                (false, true, [first, ..]) => std::slice::from_ref(first),
                (_, _, all) => all,
            };
            for change in changes {
                let partition = change.partition();
                let from = self.reach(partition, &change.place, &self.following, false)?;
                let to = self.reach(partition, &change.place, &self.preceding, true)?;
                touched.ranges.push(PlaceRange { from, to });
            }
        }
        Ok(())
    }

    /// The furthest row before or after a place that is within one of the distances; `None`: the
    /// end of the partition.
    fn reach(
        &self,
        partition: &[u8],
        place: &Place,
        distances: &[Distance],
        forward: bool,
    ) -> Result<Option<Place>> {
        let mut furthest = place.clone();
        for distance in distances {
            let limit = match distance {
                Distance::Unbounded => return Ok(None),
                Distance::Rows(rows) => Limit::Rows(*rows),
                Distance::Groups(groups) => Limit::Groups(*groups),
                Distance::Range(offset) => match self.threshold(place, offset, forward)? {
                    Some(threshold) => Limit::Threshold(threshold),
                    None => return Ok(None),
                },
            };
            let after = Bound::Excluded(&*place.key);
            let found = if forward {
                furthest_within(place, self.table.walk(partition, after), &limit, forward)
            } else {
                furthest_within(place, self.table.walk_back(partition, after), &limit, forward)
            };
            if let Some(found) = found
                && (found.key > furthest.key) == forward
            {
                furthest = found;
            }
        }
        Ok(Some(furthest))
    }

    /// What peers at this distance from a place would have for bytes; `None`: the value cannot be
    /// computed.
    fn threshold(&self, place: &Place, offset: &ArrayRef, forward: bool) -> Result<Option<RowKey>> {
        let peers = &place.key[..place.peer_length];
        let mut columns = self.table.decode_peers(std::iter::once(peers))?;
        let [sort] = self.spec.order_by.as_slice() else {
            return Err(Error::internal("a RANGE with an offset has one sort column"));
        };
        let last = columns.last_mut().expect("the sort column is one of them");
        let offset = Scalar::new(with_slack(offset));
        let value: &dyn Array = &*last;
        let moved = if forward != sort.descending {
            numeric::add(&value, &offset)
        } else {
            numeric::sub(&value, &offset)
        };
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let moved = moved.and_then(|moved| cast_with_options(&moved, last.data_type(), &options));
        let Ok(moved) = moved else { return Ok(None) };
        *last = moved;
        let encoded = self.table.encode_peers(&columns)?;
        Ok(encoded.map(|rows| rows.row(0).data().into()))
    }

    /// Computes the ranges of the partitions with the table as it is now, except of those that
    /// `skip`; a failure is noted for its partition.
    fn compute(
        &self,
        touched: &[Touched],
        skip: impl Fn(&Touched) -> bool,
    ) -> Result<Vec<(usize, Result<RecordBatch, Failure>)>> {
        let mut computed = Vec::new();
        let (mut parts, mut rows) = (Vec::new(), 0);
        for (index, touched) in touched.iter().enumerate().filter(|(_, t)| !skip(t)) {
            for range in &touched.ranges {
                let part = self.part(index, &touched.partition, range)?;
                if part.wanted.is_empty() {
                    continue;
                }
                rows += part.keys.len();
                parts.push(part);
                if rows >= STEP_ROWS {
                    self.compute_parts(&parts, &mut computed)?;
                    parts.clear();
                    rows = 0;
                }
            }
        }
        self.compute_parts(&parts, &mut computed)?;
        Ok(computed)
    }

    /// The rows of a range with all that they look at.
    fn part<'a>(
        &'a self,
        touched: usize,
        partition: &'a [u8],
        range: &PlaceRange,
    ) -> Result<Part<'a>> {
        let from = match &range.from {
            Some(from) => self.reach(partition, from, &self.preceding, false)?,
            None => None,
        };
        let to = match &range.to {
            Some(to) => self.reach(partition, to, &self.following, true)?,
            None => None,
        };
        let mut part = Part { touched, keys: Vec::new(), wanted: 0..0 };
        let start = from.as_ref().map_or(partition, |from| &*from.key);
        for (key, copies) in self.table.walk(partition, Bound::Included(start)) {
            if to.as_ref().is_some_and(|to| *key > *to.key) {
                break;
            }
            let copies = copies.weight.max(0) as usize;
            if part.keys.len().saturating_add(copies) > RANGE_ROWS_MAX {
                return Err(Error::user(
                    SqlState::PROGRAM_LIMIT_EXCEEDED,
                    "a partition of a window function has more than 2^30 rows",
                ));
            }
            if range.contains(key) {
                if part.wanted.is_empty() {
                    part.wanted.start = part.keys.len();
                }
                part.wanted.end = part.keys.len() + copies;
            }
            part.keys.extend(std::iter::repeat_n(key, copies));
        }
        Ok(part)
    }

    fn compute_parts(
        &self,
        parts: &[Part<'_>],
        computed: &mut Vec<(usize, Result<RecordBatch, Failure>)>,
    ) -> Result<()> {
        let keys: Vec<&[u8]> = parts.iter().flat_map(|part| part.keys.iter().copied()).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let rows = self.table.decode(keys.into_iter())?;
        let mut start = 0;
        for part in parts {
            let rows = rows.slice(start, part.keys.len());
            start += part.keys.len();
            computed.push((part.touched, self.compute_part(&rows, &part.wanted)?));
        }
        Ok(())
    }

    fn compute_part(
        &self,
        rows: &RecordBatch,
        wanted: &Range<usize>,
    ) -> Result<Result<RecordBatch, Failure>> {
        let shown = rows.slice(wanted.start, wanted.len());
        let mut columns = shown.columns().to_vec();
        for (call, function) in self.spec.calls.iter().enumerate() {
            match function.evaluate(rows) {
                Ok(values) => columns.push(values.slice(wanted.start, wanted.len())),
                Err(error) if error.kind() == ErrorKind::External => return Err(error),
                Err(error) => return Ok(Err(Failure { call, error })),
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(wanted.len()));
        let batch = RecordBatch::try_new_with_options(self.spec.schema.clone(), columns, &options)?;
        Ok(Ok(batch))
    }

    /// Reports the failures that came and takes back those that went; remembers them.
    fn report(&mut self, touched: Vec<Touched>, out: &mut Output) -> Result<()> {
        for touched in touched {
            let (before, now) = (touched.failed_before, touched.failed_now);
            let told = |failure: &Failure| (failure.call, failure.error.message().to_owned());
            if before.as_ref().map(told) == now.as_ref().map(told) {
                continue;
            }
            for (failure, weight) in [(&before, -1), (&now, 1)] {
                let Some(Failure { call, error }) = failure else { continue };
                out.row_error(RowError {
                    error: error.clone(),
                    expression: self.spec.calls[*call].display.clone(),
                    row: self.partition_text(&touched.partition)?,
                    weight,
                });
            }
            match now {
                Some(failure) => self.failed.insert(touched.partition, failure),
                None => self.failed.remove(&touched.partition),
            };
        }
        Ok(())
    }

    /// The values of a partition's columns.
    fn partition_text(&self, partition: &[u8]) -> Result<String> {
        let options = FormatOptions::new().with_null("NULL");
        let columns = self.table.decode_partition(partition)?;
        let texts = columns
            .iter()
            .map(|column| Ok(ArrayFormatter::try_new(column, &options)?.value(0).to_string()))
            .collect::<Result<Vec<_>>>()?;
        Ok(format!("({})", texts.join(", ")))
    }
}

impl Operator for Over {
    fn name(&self) -> &'static str {
        "over"
    }

    fn on_batch(&mut self, port: usize, batch: ChangeBatch, _: &mut Output) -> Result<()> {
        assert_eq!(port, 0, "over has one input");
        let encoded = self.table.encode(batch.rows())?;
        self.changes.extend((0..batch.num_rows()).map(|row| Change {
            place: Place { key: encoded.key(row).into(), peer_length: encoded.peers(row).len() },
            partition_length: encoded.partition(row).len(),
            weight: batch.weight(row),
        }));
        Ok(())
    }

    fn on_watermark(&mut self, _: usize, watermark: Watermark, out: &mut Output) -> Result<()> {
        out.emit_watermark(watermark);
        Ok(())
    }

    fn on_epoch(&mut self, _: Epoch, out: &mut Output) -> Result<()> {
        let changes = self.take_changes();
        if changes.is_empty() {
            return Ok(());
        }
        let mut touched = self.partitions(&changes);
        self.add_ranges(&mut touched, &changes)?;
        self.apply(&changes, 1);
        self.add_ranges(&mut touched, &changes)?;
        for touched in &mut touched {
            touched.ranges = union(std::mem::take(&mut touched.ranges));
        }
        let mut output = Vec::new();
        let mut now = Vec::new();
        for (index, computed) in self.compute(&touched, |_| false)? {
            match computed {
                Ok(rows) => now.push((index, rows)),
                Err(failure) => touched[index].failed_now = Some(failure),
            }
        }
        let now = now.into_iter().filter(|(index, _)| touched[*index].failed_now.is_none());
        output.extend(now.map(|(_, rows)| ChangeBatch::inserts(rows)));
        // What fails from now on goes as a whole.
        for touched in touched.iter_mut().filter(|touched| touched.failed_now.is_some()) {
            touched.ranges = vec![PlaceRange::ALL];
        }
        self.apply(&changes, -1);
        for (_, computed) in self.compute(&touched, |touched| touched.failed_before.is_some())? {
            match computed {
                Ok(rows) => output.push(ChangeBatch::deletes(rows)),
                Err(failure) => return Err(failure.error),
            }
        }
        self.apply(&changes, 1);
        self.report(touched, out)?;
        for batch in consolidate(&self.spec.schema, output)? {
            for start in (0..batch.num_rows()).step_by(STEP_ROWS) {
                out.emit(batch.slice(start, STEP_ROWS.min(batch.num_rows() - start)));
            }
        }
        Ok(())
    }

    fn checkpoint(&mut self, _: Epoch, writer: &mut CheckpointWriter) -> Result<()> {
        assert!(self.changes.is_empty(), "an epoch's changes are taken in when it completes");
        writer.write(ROWS, self.table.checkpoint_delta()?);
        Ok(())
    }

    fn restore(&mut self, reader: &mut CheckpointReader) -> Result<()> {
        let rows = reader.read(ROWS, &self.spec.partition)?;
        self.table.restore(rows)?;
        // Which partitions fail is not written down: it is computed again.
        let mut touched: Vec<Touched> = Vec::new();
        for partition in self.table.partitions()? {
            touched.push(Touched {
                partition,
                changes: 0..0,
                ranges: vec![PlaceRange::ALL],
                failed_before: None,
                failed_now: None,
            });
        }
        for chunk in touched.chunks(STEP_ROWS) {
            for (index, computed) in self.compute(chunk, |_| false)? {
                if let Err(failure) = computed {
                    self.failed.insert(chunk[index].partition.clone(), failure);
                }
            }
        }
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        let changes = self.changes.iter().map(|change| change.place.key.len());
        self.table.memory_bytes()
            + changes.sum::<usize>()
            + self.changes.capacity() * size_of::<Change>()
    }
}

/// Each distance once; the end of the partition alone, if it is one of them: nothing is further.
fn each_once<'a>(distances: impl Iterator<Item = &'a Distance>) -> Vec<Distance> {
    let mut kept: Vec<Distance> = Vec::new();
    for distance in distances {
        if *distance == Distance::Unbounded {
            return vec![Distance::Unbounded];
        }
        if !kept.contains(distance) {
            kept.push(distance.clone());
        }
    }
    kept
}

/// The furthest row of a walk that is within the limit.
fn furthest_within<'a>(
    place: &Place,
    rows: impl Iterator<Item = (&'a [u8], &'a Copies)>,
    limit: &Limit,
    forward: bool,
) -> Option<Place> {
    let mut furthest = None;
    let (mut passed, mut groups) = (0u64, 0u64);
    let start = &place.key[..place.peer_length];
    let mut peers: Option<&'a [u8]> = None;
    for (key, copies) in rows {
        let here = copies.peers(key);
        groups += u64::from(here != peers.unwrap_or(start));
        peers = Some(here);
        let within = match limit {
            Limit::Rows(count) => passed < *count,
            Limit::Groups(count) => groups <= *count,
            Limit::Threshold(threshold) if forward => *here <= **threshold,
            Limit::Threshold(threshold) => *here >= **threshold,
        };
        if !within {
            break;
        }
        passed = passed.saturating_add(copies.weight.max(0) as u64);
        furthest = Some((key, here.len()));
    }
    furthest.map(|(key, peer_length)| Place { key: key.into(), peer_length })
}

/// An offset of months with what months differ by.
fn with_slack(offset: &ArrayRef) -> ArrayRef {
    if *offset.data_type() != DataType::Interval(IntervalUnit::MonthDayNano) {
        return offset.clone();
    }
    let by = offset.as_primitive::<IntervalMonthDayNanoType>().value(0);
    if by.months == 0 {
        return offset.clone();
    }
    let days = by.days.saturating_add(MONTH_SLACK_DAYS);
    let by = IntervalMonthDayNano::new(by.months, days, by.nanoseconds);
    Arc::new(IntervalMonthDayNanoArray::from(vec![by]))
}

/// The ranges in order, those that meet made one.
fn union(mut ranges: Vec<PlaceRange>) -> Vec<PlaceRange> {
    let from = |range: &PlaceRange| range.from.as_ref().map(|place| place.key.clone());
    // No lower end sorts first.
    ranges.sort_by_cached_key(from);
    let mut united: Vec<PlaceRange> = Vec::new();
    for range in ranges {
        let Some(last) = united.last_mut() else {
            united.push(range);
            continue;
        };
        let apart = match (&last.to, &range.from) {
            (Some(to), Some(from)) => to.key < from.key,
            _ => false,
        };
        if apart {
            united.push(range);
            continue;
        }
        let longer = match (&last.to, &range.to) {
            (Some(to), Some(other)) => to.key < other.key,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if longer {
            last.to = range.to;
        }
    }
    united
}

#[cfg(test)]
mod tests;
