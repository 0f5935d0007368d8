//! Rows of window functions that time has passed.
//!
//! 1. A partition with a time that the watermark has passed (a window) changes no more: all of it is
//!    forgotten.
//! 2. Where rows stand in the order of a time, no row comes or goes before the watermark. Of the rows
//!    before it, some may still change their values: those that look ahead to it. What lies before
//!    these and before the watermark, and none of them or of later rows looks at, is forgotten.
//!    Calls that look to the beginning of the partition keep all.
//! 3. When the input has ended, everything is.
//!
//! All in a walk over the table now and then (`dataflow::operators::forgetting`).

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, IntervalMonthDayNanoType, IntervalUnit};

use super::{Over, STEP_ROWS};
use crate::dataflow::operators::aggregate::TimeKey;
use crate::dataflow::operators::forgetting::Walks;
use crate::plan::event_time::{TimeBound, time_values};
use crate::plan::window::{Distance, WindowCall};
use crate::state::ordered_table::RowKey;
use crate::types::error::{Error, Result};
use crate::types::text::datetime::US_PER_DAY;
use crate::types::time::Watermark;

/// The longest month: a row that looks a month back looks at most so far.
const MONTH_DAYS_MAX: i64 = 31;
const NS_PER_US: i64 = 1_000;

/// How far back rows must be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Back {
    Rows(usize),
    /// Groups of peers before the row's own.
    Groups(usize),
    Us(i64),
}

/// What is forgotten, and when.
#[derive(Default)]
pub(super) struct Forgetting {
    /// Of columns of the partition, any of which closes it.
    partition: Vec<TimeKey>,
    in_order: Option<InOrder>,
    watermark: Option<Watermark>,
    walks: Walks,
}

/// Rows in the order of a time.
struct InOrder {
    bound: TimeBound,
    /// How far calls look back, and ahead.
    preceding: Vec<Back>,
    following: Vec<Back>,
}

impl Forgetting {
    pub(super) fn new(
        partition: Vec<TimeKey>,
        in_order: Option<TimeBound>,
        calls: &[WindowCall],
    ) -> Forgetting {
        let all = |distance: fn(&WindowCall) -> &Distance| -> Option<Vec<Back>> {
            calls.iter().map(|call| back(distance(call))).collect()
        };
        let in_order = in_order.and_then(|bound| {
            let (preceding, following) =
                (all(|call| &call.preceding)?, all(|call| &call.following)?);
            Some(InOrder { bound, preceding, following })
        });
        Forgetting { partition, in_order, watermark: None, walks: Walks::default() }
    }

    pub(super) fn moved(&mut self, watermark: Watermark) {
        self.watermark = Some(watermark);
        self.walks.moved();
    }

    pub(super) fn changed(&mut self, rows: usize) {
        self.walks.changed(rows);
    }
}

/// `None`: to the end of the partition, or by something that is no length of time.
fn back(distance: &Distance) -> Option<Back> {
    match distance {
        Distance::Unbounded => None,
        Distance::Rows(rows) => Some(Back::Rows(usize::try_from(*rows).ok()?)),
        Distance::Groups(groups) => Some(Back::Groups(usize::try_from(*groups).ok()?)),
        Distance::Range(offset) => match offset.data_type() {
            DataType::Interval(IntervalUnit::MonthDayNano) if offset.is_valid(0) => {
                let interval = offset.as_primitive::<IntervalMonthDayNanoType>().value(0);
                let days = i64::from(interval.months) * MONTH_DAYS_MAX + i64::from(interval.days);
                let us = days.checked_mul(US_PER_DAY)?;
                Some(Back::Us(us.checked_add(interval.nanoseconds / NS_PER_US + 1)?))
            }
            _ => None,
        },
    }
}

/// The rows of a partition that no change comes before.
#[derive(Default)]
struct Settled<'a> {
    keys: Vec<&'a [u8]>,
    times: Vec<i64>,
    /// Whether each row begins a group of peers.
    begins: Vec<bool>,
}

impl Settled<'_> {
    /// The first row that is so far before the row at `index` (perhaps behind the last one), which
    /// has this time.
    fn before(&self, index: usize, time: i64, back: Back) -> usize {
        match back {
            Back::Rows(rows) => index.saturating_sub(rows),
            Back::Us(us) => {
                let from = time.saturating_sub(us);
                self.times.partition_point(|time| *time < from).min(index)
            }
            Back::Groups(groups) => {
                let start = |mut at: usize| {
                    while at > 0 && at < self.begins.len() && !self.begins[at] {
                        at -= 1;
                    }
                    at
                };
                let mut at = start(index);
                for _ in 0..groups {
                    if at == 0 {
                        break;
                    }
                    at = start(at - 1);
                }
                at
            }
        }
    }

    /// How many of the first rows can be forgotten when no change comes before `bound`.
    fn forgettable(&self, bound: i64, in_order: &InOrder) -> usize {
        let behind = self.keys.len();
        let first = in_order.following.iter().map(|back| self.before(behind, bound, *back)).min();
        // The first row whose value may change.
        let first = first.unwrap_or(behind);
        let time = self.times.get(first).copied().unwrap_or(bound);
        let needed = in_order.preceding.iter().map(|back| self.before(first, time, *back)).min();
        needed.unwrap_or(first).min(first)
    }
}

impl Over {
    /// Forgets what no row still to come looks at, when that is worth a walk.
    pub(super) fn forget_settled(&mut self) -> Result<()> {
        let Some(watermark) = self.forgetting.watermark else { return Ok(()) };
        if watermark == Watermark::END {
            self.table.clear();
            self.blocks.clear();
            return Ok(());
        }
        let closes = !self.forgetting.partition.is_empty() || self.forgetting.in_order.is_some();
        if !closes || !self.forgetting.walks.due(self.table.len()) {
            return Ok(());
        }
        for TimeKey { place, bound } in &self.forgetting.partition {
            let bound = bound.at(watermark);
            for key in self.table.rows_of_partitions_before(*place, bound)? {
                self.table.remove(&key);
            }
            let mut closed: Vec<RowKey> = Vec::new();
            for partition in self.blocks.keys().chain(self.failed.keys()) {
                let columns = self.table.decode_partition(partition)?;
                let times = columns.get(*place).and_then(time_values);
                if times.is_some_and(|times| times.is_valid(0) && times.value(0) < bound) {
                    closed.push(partition.clone());
                }
            }
            for partition in closed {
                self.blocks.remove(&partition);
                self.failed.remove(&partition);
            }
        }
        if let Some(in_order) = &self.forgetting.in_order {
            for key in self.settled(in_order, in_order.bound.at(watermark))? {
                self.table.remove(&key);
            }
        }
        Ok(())
    }

    /// The rows in the order of a time that can be forgotten.
    fn settled(&self, in_order: &InOrder, bound: i64) -> Result<Vec<RowKey>> {
        let place = self.spec.partition.len();
        let mut gone: Vec<RowKey> = Vec::new();
        let mut partition: Option<RowKey> = None;
        let mut settled = Settled::default();
        let mut peers_before: &[u8] = &[];
        let mut rows = self.table.iter();
        loop {
            let chunk: Vec<_> = rows.by_ref().take(STEP_ROWS).collect();
            if chunk.is_empty() {
                break;
            }
            let columns =
                self.table.decode_peers(chunk.iter().map(|(key, copies)| copies.peers(key)))?;
            let times = columns.get(place).and_then(time_values);
            let times = times.ok_or_else(|| Error::internal("rows are in the order of a time"))?;
            let partitions = self.table.encode_partitions(&columns)?;
            for (row, (key, copies)) in chunk.iter().enumerate() {
                let own = partitions.as_ref().map_or(&[][..], |rows| rows.row(row).data());
                if partition.as_deref() != Some(own) {
                    self.take_forgettable(
                        &mut settled,
                        in_order,
                        bound,
                        partition.as_deref(),
                        &mut gone,
                    );
                    partition = Some(own.into());
                    peers_before = &[];
                }
                if times.is_null(row) || times.value(row) >= bound {
                    continue;
                }
                let peers = copies.peers(key);
                settled.begins.push(settled.keys.is_empty() || peers != peers_before);
                settled.keys.push(key);
                settled.times.push(times.value(row));
                peers_before = peers;
            }
        }
        self.take_forgettable(&mut settled, in_order, bound, partition.as_deref(), &mut gone);
        Ok(gone)
    }

    /// Moves what can be forgotten of a partition to `gone`.
    fn take_forgettable(
        &self,
        settled: &mut Settled<'_>,
        in_order: &InOrder,
        bound: i64,
        partition: Option<&[u8]>,
        gone: &mut Vec<RowKey>,
    ) {
        let settled = std::mem::take(settled);
        // Nothing was emitted of a partition that fails: it is still to come as a whole.
        if partition.is_none_or(|partition| self.failed.contains_key(partition)) {
            return;
        }
        let count = settled.forgettable(bound, in_order);
        gone.extend(settled.keys[..count].iter().map(|key| RowKey::from(*key)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(times: &[i64]) -> Settled<'static> {
        let begins = (0..times.len()).map(|row| row == 0 || times[row] != times[row - 1]);
        Settled { keys: vec![&[]; times.len()], times: times.to_vec(), begins: begins.collect() }
    }

    fn forgettable(times: &[i64], bound: i64, preceding: Back, following: Back) -> usize {
        let (preceding, following) = (vec![preceding], vec![following]);
        let in_order = InOrder { bound: TimeBound::of_watermark(0), preceding, following };
        rows(times).forgettable(bound, &in_order)
    }

    #[test]
    fn what_later_rows_look_at_stays() {
        let times = [1, 2, 2, 5, 8, 8, 9];
        // lag(x, 2), and lead(x, 1) beside one row before.
        assert_eq!(forgettable(&times, 10, Back::Rows(2), Back::Rows(0)), 5);
        assert_eq!(forgettable(&times, 10, Back::Rows(0), Back::Rows(1)), 6);
        assert_eq!(forgettable(&times, 10, Back::Rows(1), Back::Rows(1)), 5);
        assert_eq!(forgettable(&times, 10, Back::Rows(9), Back::Rows(0)), 0);
        // RANGE of 2: rows from 8 on are seen from 10.
        assert_eq!(forgettable(&times, 10, Back::Us(2), Back::Groups(0)), 4);
        assert_eq!(forgettable(&times, 20, Back::Us(2), Back::Groups(0)), 7);
        // 8 looks ahead to 10, and back to 6.
        assert_eq!(forgettable(&times, 10, Back::Us(2), Back::Us(2)), 4);
        assert_eq!(forgettable(&times, 10, Back::Us(3), Back::Us(2)), 3);
        assert_eq!(forgettable(&times, 10, Back::Groups(1), Back::Groups(0)), 6);
        assert_eq!(forgettable(&times, 10, Back::Groups(2), Back::Groups(0)), 4);
        assert_eq!(forgettable(&times, 10, Back::Groups(3), Back::Groups(0)), 3);
        assert_eq!(forgettable(&[], 10, Back::Rows(1), Back::Rows(1)), 0);
    }
}
