//! Which partitions the watermark has passed.

use arrow::array::{Array, BooleanBufferBuilder};

use crate::dataflow::operators::aggregate::TimeKey;
use crate::plan::event_time::time_values;
use crate::state::group_index::GroupIndex;
use crate::types::error::{Error, Result};
use crate::types::time::Watermark;

/// Those of the partitions `live` of which no change is still to come: one of their times has
/// passed, or all have.
///
/// # Errors
/// When the keys cannot be read back.
pub fn passed(
    groups: &GroupIndex,
    live: Vec<u32>,
    closing: &[TimeKey],
    watermark: Watermark,
) -> Result<Vec<u32>> {
    if watermark == Watermark::END {
        return Ok(live);
    }
    let mut closed = BooleanBufferBuilder::new(live.len());
    closed.append_n(live.len(), false);
    let keys = groups.gather(&live)?;
    for TimeKey { place, bound } in closing {
        let times = keys.get(*place).and_then(time_values);
        let times = times.ok_or_else(|| Error::internal("a partition's time is a time"))?;
        let bound = bound.at(watermark);
        for group in 0..live.len() {
            if times.is_valid(group) && times.value(group) < bound {
                closed.set_bit(group, true);
            }
        }
    }
    Ok(closed.finish().set_indices().map(|position| live[position]).collect())
}
