//! Rows of a join that are too old to meet anything: joins within a distance in time.
//!
//! A row of one side meets no change of the other side any more when a condition asks that a value
//! of the row is at least a time of the other side, and the other side's watermark has passed that
//! value. It can be forgotten when it does not change itself any more: because its side only grows,
//! or because its own time is behind its own side's watermark.

use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::buffer::BooleanBuffer;

use super::{Join, LEFT, RIGHT, STEP_ROWS};
use crate::plan::event_time::{Expiry, TimeBound, expiries, time_bounds, time_values};
use crate::plan::node;
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
}

impl Aging {
    /// Of the left side and of the right side.
    pub fn of(join: &node::Join) -> [Aging; 2] {
        let [left, right] = expiries(join);
        let aging = |expiries: Vec<Expiry>, input: &node::Node| Aging {
            expiries,
            append_only: input.append_only(),
            own: time_bounds(input),
        };
        [aging(left, &join.left.input), aging(right, &join.right.input)]
    }
}

impl Join {
    /// Forgets rows that are too old, when that is worth a walk over the tables.
    pub(super) fn forget_old(&mut self) -> Result<()> {
        let ages = self.spec.aging.iter().any(|aging| !aging.expiries.is_empty());
        let [Some(left), Some(right)] = [LEFT, RIGHT].map(|port| self.sides[port].watermark) else {
            return Ok(());
        };
        let rows: usize = self.sides.iter().map(|side| side.table.live_rows()).sum();
        let ended = left == Watermark::END && right == Watermark::END && rows > 0;
        if !ages || !ended && self.entered_since < STEP_ROWS.max(rows) {
            return Ok(());
        }
        self.entered_since = 0;
        for (port, own, other) in [(LEFT, left, right), (RIGHT, right, left)] {
            let side = &mut self.sides[port];
            let aging = &self.spec.aging[port];
            if !side.keeps_all || aging.expiries.is_empty() {
                continue;
            }
            side.table.forget(|rows| too_old(rows, aging, own, other))?;
        }
        Ok(())
    }
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
fn below(values: &arrow::array::ArrayRef, bound: i64) -> Option<BooleanBuffer> {
    let times = time_values(values)?;
    let below = |row: usize| times.is_valid(row) && times.value(row) < bound;
    Some(BooleanBuffer::collect_bool(times.len(), below))
}
