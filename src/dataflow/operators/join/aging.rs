//! Rows of a join that are too old to meet anything.
//!
//! 1. Where the keys make two times equal that both inputs bound (joins of windows), rows with a
//!    time behind both bounds are forgotten, on both sides at once: no change of either side comes
//!    with these keys.
//! 2. Where the residual condition bounds a row's age (`a.ts BETWEEN b.ts - x AND b.ts + y`), a row
//!    meets no change of the other side any more when the condition asks that a value of the row is
//!    at least a time of the other side, and the other side's watermark has passed that value. It is
//!    forgotten when it does not change itself any more: because its side only grows, or because
//!    its own time is behind its own side's watermark. If rows of the other side show by whether
//!    they match, one that it matches must go with it: its number of matches, which is counted anew
//!    after a start, must not fall to 0.
//! 3. When both inputs have ended, everything is.

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use hashbrown::HashSet;

use super::{Join, LEFT, Pairs, RIGHT, STEP_ROWS, Shows};
use crate::dataflow::operator::Output;
use crate::plan::event_time::{
    Expiry, TimeBound, TimedKey, expiries, time_bounds, time_values, timed_keys,
};
use crate::plan::node;
use crate::state::row_ids::ShortId;
use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use crate::types::time::Watermark;

/// When rows of one side are too old.
#[derive(Clone, Debug, Default)]
pub struct Aging {
    pub expiries: Vec<Expiry>,
    /// The side never deletes.
    pub append_only: bool,
    /// What the side's own watermark promises of its columns.
    pub own: Vec<TimeBound>,
    /// Keys that are times which both sides bound.
    pub timed_keys: Vec<TimedKey>,
}

impl Aging {
    /// Of the left side and of the right side.
    pub fn of(join: &node::Join) -> [Aging; 2] {
        let [left, right] = expiries(join);
        let aging = |expiries: Vec<Expiry>, input: &node::Node| Aging {
            expiries,
            append_only: input.append_only(),
            own: time_bounds(input),
            timed_keys: timed_keys(join),
        };
        [aging(left, &join.left.input), aging(right, &join.right.input)]
    }

    fn any(&self) -> bool {
        !self.expiries.is_empty() || !self.timed_keys.is_empty()
    }
}

/// Rows of a table with their ids, segment by segment.
type Found = Vec<(Vec<ShortId>, RecordBatch)>;

impl Join {
    /// Forgets rows that are too old, when that is worth a walk over the tables.
    pub(super) fn forget_old(&mut self) -> Result<()> {
        let [Some(left), Some(right)] = [LEFT, RIGHT].map(|port| self.sides[port].watermark) else {
            return Ok(());
        };
        let rows: usize = self.sides.iter().map(|side| side.table.live_rows()).sum();
        if left == Watermark::END && right == Watermark::END {
            for side in &mut self.sides {
                let all = |rows: &RecordBatch| Ok(BooleanBuffer::new_set(rows.num_rows()).into());
                side.table.forget(all)?;
            }
            return Ok(());
        }
        if !self.spec.aging.iter().any(Aging::any) || !self.walks.due(rows) {
            return Ok(());
        }
        for port in [LEFT, RIGHT] {
            let side = &mut self.sides[port];
            let keys = &self.spec.aging[port].timed_keys;
            if !keys.is_empty() {
                let places = &side.table_keys;
                side.table.forget(|rows| closed(rows, places, keys, [left, right]))?;
            }
        }
        if self.spec.aging.iter().all(|aging| aging.expiries.is_empty()) {
            return Ok(());
        }
        let marks = [(left, right), (right, left)];
        let going = [self.aged(LEFT, marks[LEFT])?, self.aged(RIGHT, marks[RIGHT])?];
        let ids = |found: &Found| -> HashSet<ShortId> {
            found.iter().flat_map(|(ids, _)| ids.iter().copied()).collect()
        };
        let sets = [ids(&going[LEFT]), ids(&going[RIGHT])];
        let mut gone = [vec![], vec![]];
        for (port, found) in going.into_iter().enumerate() {
            let counted = self.sides[1 - port].shows != Shows::Never && self.residual.is_some();
            gone[port] = match counted {
                false => found,
                true => self.without_companions(port, found, &sets[1 - port])?,
            };
        }
        for (side, found) in self.sides.iter_mut().zip(gone) {
            side.table.forget_rows(found)?;
        }
        Ok(())
    }

    /// Rows of a side whose condition on time no change of the other side meets any more.
    fn aged(&self, port: usize, (own, other): (Watermark, Watermark)) -> Result<Found> {
        let (side, aging) = (&self.sides[port], &self.spec.aging[port]);
        let mut found = Found::new();
        if !side.keeps_all || aging.expiries.is_empty() {
            return Ok(found);
        }
        for segment in side.table.live() {
            let (ids, rows) = segment?;
            let old = too_old(&rows, aging, own, other)?;
            if old.true_count() > 0 {
                let ids = old.values().set_indices().map(|row| ids[row]).collect();
                found.push((ids, arrow::compute::filter_record_batch(&rows, &old)?));
            }
        }
        Ok(found)
    }

    /// Those that match no row of the other side that stays.
    fn without_companions(
        &mut self,
        port: usize,
        found: Found,
        going: &HashSet<ShortId>,
    ) -> Result<Found> {
        let mut alone = Found::new();
        for (ids, rows) in found {
            let mut free = vec![true; ids.len()];
            for start in (0..ids.len()).step_by(STEP_ROWS) {
                let length = STEP_ROWS.min(ids.len() - start);
                let step = ChangeBatch::inserts(rows.slice(start, length));
                self.find_companions(port, &step, going, &mut free[start..start + length])?;
            }
            let kept = ids.iter().zip(&free).filter(|(_, free)| **free).map(|(id, _)| *id);
            let kept: Vec<ShortId> = kept.collect();
            if !kept.is_empty() {
                let free = BooleanArray::from(free);
                alone.push((kept, arrow::compute::filter_record_batch(&rows, &free)?));
            }
        }
        Ok(alone)
    }

    /// Marks the rows that match one which is not `going`.
    fn find_companions(
        &mut self,
        port: usize,
        rows: &ChangeBatch,
        going: &HashSet<ShortId>,
        free: &mut [bool],
    ) -> Result<()> {
        let keys = self.sides[port].key_columns(rows);
        let heads = self.sides[1 - port].table.heads(keys, rows.num_rows())?;
        let mut walk = super::Walk::new(&heads);
        // What fails was reported when it first did.
        let mut reported = Output::default();
        loop {
            let (mut pair_rows, mut ids) = (Vec::new(), Vec::new());
            let table = &mut self.sides[1 - port].table;
            let more = table.walk(&mut walk, STEP_ROWS, &mut pair_rows, &mut ids);
            let pairs = Pairs { rows: pair_rows.into(), ids };
            if let Some(pairs) = self.meet_residual(port, rows, pairs, &mut reported)? {
                for (row, id) in pairs.rows.values().iter().zip(&pairs.ids) {
                    free[*row as usize] &= going.contains(id);
                }
            }
            if !more {
                return Ok(());
            }
        }
    }
}

/// Which rows have a key that is behind what both sides promise.
fn closed(
    rows: &RecordBatch,
    places: &[usize],
    keys: &[TimedKey],
    marks: [Watermark; 2],
) -> Result<BooleanArray> {
    let mut closed = BooleanBuffer::new_unset(rows.num_rows());
    for key in keys {
        let bound = key.bounds[LEFT].at(marks[LEFT]).min(key.bounds[RIGHT].at(marks[RIGHT]));
        if let Some(below) = below(rows.column(places[key.key]), bound) {
            closed = &closed | &below;
        }
    }
    Ok(BooleanArray::new(closed, None))
}

fn too_old(
    rows: &RecordBatch,
    aging: &Aging,
    own: Watermark,
    other: Watermark,
) -> Result<BooleanArray> {
    let mut old = BooleanBuffer::new_unset(rows.num_rows());
    for expiry in &aging.expiries {
        // A value that cannot be computed fails in every pair, and says nothing of age.
        let Ok(value) = expiry.value.evaluate(rows) else { continue };
        if let Some(below) = below(&value, expiry.bound.at(other)) {
            old = &old | &below;
        }
        // Without a value the condition is never true: the row meets nothing at all.
        if let Some(nulls) = value.logical_nulls() {
            old = &old | &!nulls.inner();
        }
    }
    if !aging.append_only {
        let mut settled = BooleanBuffer::new_unset(rows.num_rows());
        for bound in &aging.own {
            if let Some(below) = below(rows.column(bound.column), bound.at(own)) {
                settled = &settled | &below;
            }
        }
        old = &old & &settled;
    }
    Ok(BooleanArray::new(old, None))
}

/// Which times are before a bound; NULL is not.
fn below(values: &ArrayRef, bound: i64) -> Option<BooleanBuffer> {
    let times = time_values(values)?;
    let below = |row: usize| times.is_valid(row) && times.value(row) < bound;
    Some(BooleanBuffer::collect_bool(times.len(), below))
}
