//! Parts of partitions: which rows look at a place, and their values.
//!
//! 1. [`Reader::add_ranges`] and [`Reader::run_range`] find the rows whose values a change may
//!    concern; [`union`] makes ranges that meet one.
//! 2. [`Reader::part`] collects the rows of a range with all that they look at. Where a partition
//!    has blocks, a part begins where a block does, and what stands before it is a summary.
//! 3. [`Reader::compute_parts`] decodes the rows of several parts at once and computes the calls:
//!    from summaries where that goes, from the frame before where that goes (`sliding.rs`), by
//!    DataFusion's window expressions else.

use std::ops::{Bound, Range};

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, Scalar};
use arrow::compute::kernels::numeric;
use arrow::compute::{CastOptions, cast_with_options};

use super::blocks::{Blocks, Sizes, expanded};
use super::sliding::Sliding;
use super::summary::{Around, Kernel, Side};
use super::{Failure, OverSpec, STEP_ROWS};
use crate::plan::window::{Distance, Edge, WindowCall};
use crate::state::ordered_table::{Copies, OrderedTable, RowKey};
use crate::types::error::{Error, ErrorKind, Result, SqlState};

/// Rows of one range: more do not fit Arrow's indices, nor any memory.
const RANGE_ROWS_MAX: u64 = 1 << 30;

/// The rows of a touched partition's range with the values of the calls, or why there are none.
pub(super) type Computed = (usize, Result<RecordBatch, Failure>);

/// What computes calls in the place of their window expressions.
pub(super) struct Kernels<'a> {
    summed: Option<&'a mut Kernel>,
    /// By call.
    sliding: &'a mut [Option<Sliding>],
}

impl<'a> Kernels<'a> {
    pub(super) fn of(
        summed: &'a mut Option<Kernel>,
        sliding: &'a mut [Option<Sliding>],
    ) -> Kernels<'a> {
        Kernels { summed: summed.as_mut(), sliding }
    }
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
pub(super) struct Place {
    pub(super) key: RowKey,
    pub(super) peer_length: usize,
}

/// Rows of a partition between two places, both included; `None`: to the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlaceRange {
    pub(super) from: Option<Place>,
    pub(super) to: Option<Place>,
}

impl PlaceRange {
    pub(super) const ALL: PlaceRange = PlaceRange { from: None, to: None };
}

/// How far calls look. Each distance once; the end of the partition alone, if some look so far.
pub(super) struct Reach {
    /// Of all calls.
    preceding: Vec<Distance>,
    following: Vec<Distance>,
    /// Of the calls that are computed row by row.
    own_preceding: Vec<Distance>,
    own_following: Vec<Distance>,
    /// What must be read around rows to compute them, where the partition has blocks.
    near_preceding: Vec<Distance>,
    near_following: Vec<Distance>,
    /// The other ends of frames that begin with the partition, and of those that end with it.
    ahead: Vec<Distance>,
    behind: Vec<Distance>,
    /// By how much frames that begin with the partition end before their row, and those that end
    /// with it begin behind: so far away rows still look at sums that do not agree.
    lag: Vec<Distance>,
    lead: Vec<Distance>,
    /// All calls are computed from summaries, some from what stands before.
    is_forward: bool,
}

impl Reach {
    pub(super) fn new(calls: &[WindowCall], kernel: Option<&Kernel>) -> Reach {
        let is_own = |call: &usize| kernel.is_none_or(|kernel| !kernel.computes(*call));
        let own: Vec<&WindowCall> =
            (0..calls.len()).filter(is_own).map(|call| &calls[call]).collect();
        let edges = |side: Side| kernel.into_iter().flat_map(move |kernel| kernel.edges(side));
        let all = || edges(Side::Before).chain(edges(Side::After));
        let after = |edge: Edge| match edge {
            Edge::Row(by) => Distance::Rows(by.max(0) as u64),
            Edge::Peers => Distance::Groups(0),
        };
        let before = |edge: Edge| match edge {
            Edge::Row(by) => Distance::Rows(by.min(0).unsigned_abs()),
            Edge::Peers => Distance::Groups(0),
        };
        let own_preceding = || own.iter().map(|call| call.preceding.clone());
        let own_following = || own.iter().map(|call| call.following.clone());
        Reach {
            preceding: each_once(calls.iter().map(|call| call.preceding.clone())),
            following: each_once(calls.iter().map(|call| call.following.clone())),
            own_preceding: each_once(own_preceding()),
            own_following: each_once(own_following()),
            near_preceding: each_once(own_preceding().chain(all().map(before))),
            near_following: each_once(own_following().chain(all().map(after))),
            ahead: each_once(edges(Side::Before).map(after)),
            behind: each_once(edges(Side::After).map(before)),
            lag: each_once(edges(Side::Before).filter(|edge| *edge != Edge::Peers).map(before)),
            lead: each_once(edges(Side::After).filter(|edge| *edge != Edge::Peers).map(after)),
            is_forward: own.is_empty() && kernel.is_some_and(|kernel| kernel.looks(Side::Before)),
        }
    }
}

/// Rows to compute: a part of a partition with all that its rows look at.
pub(super) struct Part<'a> {
    /// Which of the touched partitions.
    touched: usize,
    /// A row of many copies many times.
    pub(super) keys: Vec<&'a [u8]>,
    /// Which of them begin a group of peers.
    begins: Vec<bool>,
    /// Of which these are asked for.
    pub(super) wanted: Range<usize>,
    /// What stands around the part, where calls are computed from it.
    around: Option<Around>,
    /// Whether the partition has blocks. Without, where a call looks to an end of the partition the
    /// part goes to that end.
    has_blocks: bool,
    /// The partition has no blocks, and many rows were read.
    pub(super) is_long: bool,
}

/// Reads a table for its calls.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) spec: &'a OverSpec,
    pub(super) table: &'a OrderedTable,
    pub(super) reach: &'a Reach,
    pub(super) sizes: Sizes,
}

impl<'a> Reader<'a> {
    /// Adds the ranges of rows that look at some places; of a partition with blocks only those of
    /// the calls that are computed row by row.
    pub(super) fn add_ranges<'p>(
        self,
        partition: &[u8],
        blocked: bool,
        places: impl DoubleEndedIterator<Item = &'p Place> + Clone,
        ranges: &mut Vec<PlaceRange>,
    ) -> Result<()> {
        let reach = self.reach;
        let (preceding, following) = match blocked {
            // All changes are within what is added for the calls that look to the beginning.
            true if reach.is_forward => return Ok(()),
            true => (&reach.own_preceding, &reach.own_following),
            false => (&reach.preceding, &reach.following),
        };
        // Where all rows before (or after) look at a change, one change tells the range of all.
        let (to_start, to_end) =
            (*following == [Distance::Unbounded], *preceding == [Distance::Unbounded]);
        let mut add = |place: &Place| -> Result<()> {
            let from = self.furthest(partition, place, following, false)?;
            let to = self.furthest(partition, place, preceding, true)?;
            ranges.push(PlaceRange { from, to });
            Ok(())
        };
        match (to_start, to_end) {
            (true, true) => ranges.push(PlaceRange::ALL),
            (true, false) => places.clone().next_back().map_or(Ok(()), add)?,
            (false, true) => places.clone().next().map_or(Ok(()), add)?,
            (false, false) => places.clone().try_for_each(&mut add)?,
        }
        Ok(())
    }

    /// The range of a run of blocks with changed sums. `places` are those that change, in order.
    pub(super) fn run_range(
        self,
        blocks: &Blocks,
        places: &[&Place],
        run: Range<usize>,
        side: Side,
    ) -> Result<PlaceRange> {
        let partition = blocks.partition();
        let from = blocks.start(run.start).filter(|_| run.start > 0);
        let to = blocks.start(run.end);
        let (first_change, end_change) = (
            from.map_or(0, |from| places.partition_point(|place| *place.key < *from)),
            to.map_or(places.len(), |to| places.partition_point(|place| *place.key < *to)),
        );
        let changes = &places[first_change..end_change];
        let last_of_run = || -> Result<Option<Place>> {
            let last = to.and_then(|to| self.last_before(partition, to, changes.last().copied()));
            last.map_or(Ok(None), |last| self.furthest(partition, &last, &self.reach.lag, true))
        };
        let first_of_run = || -> Result<Option<Place>> {
            let first =
                from.and_then(|from| self.first_from(partition, from, changes.first().copied()));
            first
                .map_or(Ok(None), |first| self.furthest(partition, &first, &self.reach.lead, false))
        };
        match (side, changes) {
            (Side::Before, [first, ..]) => Ok(PlaceRange {
                from: self.furthest(partition, first, &self.reach.ahead, false)?,
                to: last_of_run()?,
            }),
            (Side::After, [.., last]) => Ok(PlaceRange {
                from: first_of_run()?,
                to: self.furthest(partition, last, &self.reach.behind, true)?,
            }),
            (Side::Total, _) => Ok(PlaceRange::ALL),
            // Only the row before the run has changed.
            (Side::Before, []) => Ok(PlaceRange {
                from: from.and_then(|from| self.first_from(partition, from, None)),
                to: last_of_run()?,
            }),
            (Side::After, []) => Ok(PlaceRange {
                from: first_of_run()?,
                to: to.and_then(|to| self.last_before(partition, to, None)),
            }),
        }
    }

    /// The last row before some bytes; `or` if that is later.
    fn last_before(self, partition: &[u8], to: &[u8], or: Option<&Place>) -> Option<Place> {
        let row = self.table.walk_back(partition, Bound::Excluded(to)).next();
        let row = row.map(|(key, copies)| place_of(key, copies));
        match (row, or) {
            (Some(row), Some(or)) if row.key < or.key => Some(or.clone()),
            (None, or) => or.cloned(),
            (row, _) => row,
        }
    }

    /// The first row from some bytes on; `or` if that is earlier.
    fn first_from(self, partition: &[u8], from: &[u8], or: Option<&Place>) -> Option<Place> {
        let row = self.table.walk(partition, Bound::Included(from)).next();
        let row = row.map(|(key, copies)| place_of(key, copies));
        match (row, or) {
            (Some(row), Some(or)) if or.key < row.key => Some(or.clone()),
            (None, or) => or.cloned(),
            (row, _) => row,
        }
    }

    /// The furthest row before or after a place that is within one of the distances; `None`: the
    /// end of the partition.
    fn furthest(
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
        let offset = Scalar::new(offset.clone());
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

    /// A range of a partition with blocks in pieces, so that few rows are decoded at a time.
    pub(super) fn split(
        self,
        partition: &[u8],
        range: &PlaceRange,
        blocks: Option<&Blocks>,
    ) -> Vec<PlaceRange> {
        let whole = [&self.reach.near_preceding, &self.reach.near_following]
            .contains(&&vec![Distance::Unbounded]);
        let Some(blocks) = blocks.filter(|_| !whole) else { return vec![range.clone()] };
        let step = (STEP_ROWS * blocks.len() / blocks.row_count().max(1)).max(1);
        let block = |place: &Option<Place>, none: usize| {
            place.as_ref().map_or(none, |place| blocks.block_of(&place.key))
        };
        let (first, last) = (block(&range.from, 0), block(&range.to, blocks.len() - 1));
        let mut from = range.from.clone();
        let mut pieces = Vec::new();
        for cut in (first + step..=last).step_by(step) {
            let Some(start) = blocks.start(cut) else { break };
            let Some(to) = self.last_before(partition, start, None) else { continue };
            pieces.push(PlaceRange { from, to: Some(to) });
            from = self.first_from(partition, start, None);
            if from.is_none() {
                return pieces;
            }
        }
        pieces.push(PlaceRange { from, to: range.to.clone() });
        pieces
    }

    /// The rows of a range with all that they look at.
    pub(super) fn part(
        self,
        touched: usize,
        partition: &'a [u8],
        range: &PlaceRange,
        kernel: Option<&mut Kernel>,
        blocks: Option<&Blocks>,
    ) -> Result<Part<'a>> {
        let (preceding, following) = match blocks {
            Some(_) => (&self.reach.near_preceding, &self.reach.near_following),
            None => (&self.reach.preceding, &self.reach.following),
        };
        let from = match &range.from {
            Some(from) => self.furthest(partition, from, preceding, false)?,
            None => None,
        };
        let to = match &range.to {
            Some(to) => self.furthest(partition, to, following, true)?,
            None => None,
        };
        let mut start: &[u8] = from.as_ref().map_or(partition, |from| &*from.key);
        let mut end: Option<&[u8]> = None;
        let mut to = to;
        let mut around = None;
        if let Some(kernel) = kernel {
            let mut sums =
                Around { before: kernel.empty(), after: kernel.empty(), total: kernel.empty() };
            if let Some(blocks) = blocks {
                if kernel.looks(Side::Before) {
                    let block = blocks.block_of(start);
                    start = blocks.start(block).unwrap_or(partition);
                    sums.before = blocks.sum(kernel, 0..block)?;
                }
                if kernel.looks(Side::After) {
                    let last = blocks.len() - 1;
                    let block = to.as_ref().map_or(last, |to| blocks.block_of(&to.key));
                    (end, to) = (blocks.start(block + 1), None);
                    sums.after = blocks.sum(kernel, block + 1..blocks.len())?;
                }
                sums.total = blocks.total().clone();
            }
            around = Some(sums);
        }
        let before = self.table.walk_back(partition, Bound::Excluded(start)).next();
        let before = before.map(|(key, copies)| copies.peers(key));
        let (mut wanted, mut read, mut different) = (0..0, 0u64, 0);
        let mut rows = Vec::new();
        let mut begun = false;
        for (key, copies) in self.table.walk(partition, Bound::Included(start)) {
            let beyond =
                end.is_some_and(|end| *key >= *end) || to.as_ref().is_some_and(|to| *key > *to.key);
            if beyond {
                break;
            }
            let count = copies.weight.max(0) as u64;
            if read.saturating_add(count) > RANGE_ROWS_MAX {
                return Err(Error::user(
                    SqlState::PROGRAM_LIMIT_EXCEEDED,
                    "a partition of a window function has more than 2^30 rows",
                ));
            }
            // Keys ascend: once one is behind the range's start, all are.
            begun = begun || range.from.as_ref().is_none_or(|from| *from.key <= *key);
            if begun && range.to.as_ref().is_none_or(|to| *key <= *to.key) {
                if wanted.is_empty() {
                    wanted.start = read as usize;
                }
                wanted.end = (read + count) as usize;
            }
            read += count;
            different += 1;
            rows.push((key, copies.peers(key), count));
        }
        let (keys, begins) = expanded(rows.into_iter(), before);
        let has_blocks = blocks.is_some();
        let is_long = !has_blocks && around.is_some() && different >= self.sizes.partition_rows_min;
        Ok(Part { touched, keys, begins, wanted, around, has_blocks, is_long })
    }

    pub(super) fn compute_parts(
        self,
        parts: &[Part<'_>],
        mut kernels: Kernels<'_>,
        computed: &mut Vec<Computed>,
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
            computed.push((part.touched, self.compute_part(&rows, part, &mut kernels)?));
        }
        Ok(())
    }

    fn compute_part(
        self,
        rows: &RecordBatch,
        part: &Part<'_>,
        kernels: &mut Kernels<'_>,
    ) -> Result<Result<RecordBatch, Failure>> {
        let wanted = &part.wanted;
        let shown = rows.slice(wanted.start, wanted.len());
        let mut columns = shown.columns().to_vec();
        let mut summed: Vec<Option<ArrayRef>> = vec![None; self.spec.calls.len()];
        if let (Some(kernel), Some(around)) = (kernels.summed.as_deref_mut(), &part.around) {
            let total = match !part.has_blocks && kernel.looks(Side::Total) {
                true => kernel.summarize(rows, &part.begins)?,
                false => around.total.clone(),
            };
            summed = match kernel.values(rows, &part.begins, around, &total, wanted)? {
                Ok(values) => values,
                Err((call, error)) => return Ok(Err(Failure { call, error })),
            };
        }
        for (call, values) in summed.into_iter().enumerate() {
            if let Some(values) = values {
                columns.push(values);
                continue;
            }
            let sliding = match &mut kernels.sliding[call] {
                Some(sliding) => sliding.values(rows, wanted)?,
                None => None,
            };
            match sliding {
                Some(Ok(values)) => {
                    columns.push(values);
                    continue;
                }
                Some(Err(error)) => return Ok(Err(Failure { call, error })),
                None => {}
            }
            match self.spec.calls[call].evaluate(rows) {
                Ok(values) => columns.push(values.slice(wanted.start, wanted.len())),
                Err(error) if error.kind() == ErrorKind::External => return Err(error),
                Err(error) => return Ok(Err(Failure { call, error })),
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(wanted.len()));
        let batch = RecordBatch::try_new_with_options(self.spec.schema.clone(), columns, &options)?;
        Ok(Ok(batch))
    }
}

fn place_of(key: &[u8], copies: &Copies) -> Place {
    Place { key: key.into(), peer_length: copies.peer_length as usize }
}

/// Each distance once; the end of the partition alone, if it is one of them: nothing is further.
fn each_once(distances: impl Iterator<Item = Distance>) -> Vec<Distance> {
    let mut kept: Vec<Distance> = Vec::new();
    for distance in distances {
        if distance == Distance::Unbounded {
            return vec![Distance::Unbounded];
        }
        if !kept.contains(&distance) {
            kept.push(distance);
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
        let within = match limit {
            Limit::Rows(count) => passed < *count,
            Limit::Groups(count) => {
                groups += u64::from(here != peers.unwrap_or(start));
                peers = Some(here);
                groups <= *count
            }
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

/// The ranges in order, those that meet made one.
pub(super) fn union(mut ranges: Vec<PlaceRange>) -> Vec<PlaceRange> {
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
