//! Groups of the past: a group whose key has a time that no later row can have is closed.
//!
//! 1. New groups are noted, when the epoch that made them completes, under the first watermark that
//!    passes a time of their key.
//! 2. When the watermark has come, these groups are taken out, their words, stored and
//!    DISTINCT values with them. Their rows stay with whoever reads the output: a view keeps the
//!    results of closed windows.
//! 3. With EMIT ON WINDOW CLOSE nothing is emitted before that, and then once.
//!
//! A group whose time is NULL is closed by the end of the stream only.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::UInt32Type;

use super::Aggregate;
use crate::dataflow::operator::Output;
use crate::functions::aggregate::Slots;
use crate::plan::event_time::{TimeBound, time_values};
use crate::types::error::{Error, Result};
use crate::types::time::Watermark;

/// What closes groups.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeKey {
    /// Which of the keys.
    pub place: usize,
    pub bound: TimeBound,
}

/// Groups by the time of their key.
#[derive(Default)]
pub(super) struct OpenGroups {
    /// Groups by the watermark that closes them; `None`: the end only. Some may have gone meanwhile,
    /// and their number may be another group's.
    by_time: BTreeMap<Option<i64>, Vec<u32>>,
    /// The watermark when groups were closed last.
    closed_at: Option<Watermark>,
    /// The watermark of the epoch at hand.
    watermark: Option<Watermark>,
}

impl OpenGroups {
    pub(super) fn on_watermark(&mut self, watermark: Watermark) {
        self.watermark = Some(watermark);
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let groups = self.by_time.values().map(|groups| groups.capacity() * size_of::<u32>());
        groups.sum::<usize>() + self.by_time.len() * size_of::<(Option<i64>, Vec<u32>)>()
    }
}

impl Aggregate {
    /// The watermarks that close these groups.
    fn closing_times(&self, groups: &[u32]) -> Result<Vec<Option<i64>>> {
        let keys = self.table.keys(groups)?;
        let mut closes_at: Vec<Option<i64>> = vec![None; groups.len()];
        for TimeKey { place, bound } in &self.spec.time_keys {
            let times = time_values(&keys[*place])
                .ok_or_else(|| Error::internal("a group's time is a timestamp or a date"))?;
            for (row, at) in
                closes_at.iter_mut().enumerate().filter(|(row, _)| times.is_valid(*row))
            {
                let closes = bound.closes_at(times.value(row));
                *at = Some(at.map_or(closes, |before| before.min(closes)));
            }
        }
        Ok(closes_at)
    }

    /// Notes groups that are new.
    pub(super) fn note_open(&mut self, groups: &[u32]) -> Result<()> {
        if groups.is_empty() || self.spec.time_keys.is_empty() {
            return Ok(());
        }
        let times = self.closing_times(groups)?;
        for (group, time) in groups.iter().zip(times) {
            self.open.by_time.entry(time).or_default().push(*group);
        }
        Ok(())
    }

    /// The groups that the epoch made.
    pub(super) fn made_in_epoch(&self) -> Result<Vec<u32>> {
        let mut made = Vec::new();
        if !self.spec.time_keys.is_empty() {
            for (place, group) in self.table.dirty().iter().enumerate() {
                let (before, now) = self.table.counts(place)?;
                if before == 0 && now != 0 {
                    made.push(*group);
                }
            }
        }
        Ok(made)
    }

    /// Closes what the watermark has passed; the epoch's changes have been emitted.
    pub(super) fn close_groups(&mut self, out: &mut Output) -> Result<()> {
        if self.spec.time_keys.is_empty() {
            return Ok(());
        }
        let Some(watermark) = self.open.watermark.filter(|w| Some(*w) > self.open.closed_at) else {
            return Ok(());
        };
        self.open.closed_at = Some(watermark);
        let mut candidates: Vec<(Option<i64>, Vec<u32>)> = Vec::new();
        if watermark == Watermark::END {
            candidates.extend(std::mem::take(&mut self.open.by_time));
        } else {
            let next = watermark.0.0.saturating_add(1);
            let later = self.open.by_time.split_off(&Some(next));
            let mut closed = std::mem::replace(&mut self.open.by_time, later);
            if let Some(timeless) = closed.remove(&None) {
                self.open.by_time.insert(None, timeless);
            }
            candidates.extend(closed);
        }
        let mut closed = Vec::new();
        for (time, mut groups) in candidates {
            groups.sort_unstable();
            groups.dedup();
            groups.retain(|group| self.table.is_live(*group));
            let times = self.closing_times(&groups)?;
            let same = groups.iter().zip(times).filter(|(_, of_group)| *of_group == time);
            closed.extend(same.map(|(group, _)| *group));
        }
        if closed.is_empty() { Ok(()) } else { self.free_groups(closed, out) }
    }

    /// Emits the rows of these groups if they are to be emitted when they close, and forgets them.
    pub(super) fn free_groups(&mut self, closed: Vec<u32>, out: &mut Output) -> Result<()> {
        for distinct in self.distinct.iter_mut().flatten() {
            distinct.forget_groups(&closed)?;
        }
        if self.closed.is_some() {
            let keys = self.table.keys(&closed)?;
            self.closed.iter_mut().for_each(|told| told.push(keys.clone()));
        }
        self.groups = closed;
        self.touch()?;
        if self.spec.on_close {
            self.emit_final(out)?;
        }
        let stride = self.table.stride();
        let closed = std::mem::take(&mut self.groups);
        let (words, _) = self.table.words_and_dirty();
        for placed in &mut self.layout.accumulators {
            let mut slots = Slots { words: &mut *words, stride, offset: placed.offset };
            placed.accumulator.free(&mut slots, &closed);
            placed.accumulator.forget_remembered();
        }
        self.rescue()?;
        self.table.end_epoch(&closed)
    }
}

impl super::distinct::DistinctRows {
    /// Forgets the values of groups that have gone.
    pub(super) fn forget_groups(&mut self, groups: &[u32]) -> Result<()> {
        let closed: std::collections::HashSet<u32> = groups.iter().copied().collect();
        let pairs = self.pairs.live();
        let keys = self.pairs.keys(&pairs)?;
        let owners = keys[0].as_primitive::<UInt32Type>();
        let gone: Vec<u32> = pairs
            .iter()
            .enumerate()
            .filter(|(row, _)| closed.contains(&owners.value(*row)))
            .map(|(_, pair)| *pair)
            .collect();
        assert_eq!(owners.null_count(), 0, "every pair has its group");
        self.pairs.touch(&gone);
        self.pairs.end_epoch(&gone)
    }
}
