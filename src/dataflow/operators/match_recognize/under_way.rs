//! The partial matches that are alive, for those who ask why nothing has matched yet
//! (`millstream.partial_matches`).
//!
//! In event time the matchers themselves know. Where matches are corrected, no matcher stands at a
//! partition's end: from its last anchor the end is matched again, as if more rows came.

use arrow::array::RecordBatch;

use crate::dataflow::operators::match_recognize::by_watermark::ByWatermark;
use crate::dataflow::operators::match_recognize::{MatchRecognize, Touched};
use crate::functions::scalar::cast::shown_value;
use crate::pattern::found::{Found, HIDDEN};
use crate::pattern::kernel::Kernel;
use crate::pattern::partial::UnderWay;
use crate::pattern::rows::{PartitionRows, Rows};
use crate::pattern::scratch::Scratch;
use crate::types::error::Result;
use crate::types::partial_match::PartialMatch;

/// Rows that are matched again to find partial matches; partitions behind them are left out.
const LOOKED_AT_MAX: usize = 1 << 20;

impl ByWatermark {
    pub(super) fn under_way(&self, limit: usize) -> Result<Vec<PartialMatch>> {
        let mut shown = Vec::new();
        for slot in self.partitions.slots() {
            let left = limit - shown.len();
            if left == 0 {
                break;
            }
            let partition = self.partitions.get(slot);
            let Some(kernel) = &partition.kernel else { continue };
            for one in partition.matcher.under_way(kernel, left) {
                let ids = partition.ids_of(&[one.first_row, one.last_row])?;
                let ends = self.waiting.store.gather(&ids)?;
                shown.push(text_of(kernel, &ends, (0, 1), &one)?);
            }
        }
        Ok(shown)
    }
}

impl MatchRecognize {
    pub(super) fn under_way(&self, limit: usize) -> Result<Vec<PartialMatch>> {
        let (mut shown, mut looked_at) = (Vec::new(), 0);
        for partition in self.table.partitions()? {
            let left = limit - shown.len();
            if left == 0 || looked_at >= LOOKED_AT_MAX {
                break;
            }
            let anchor = self.anchors.get(&partition).and_then(|anchors| anchors.last()).cloned();
            let floor = self.settled.as_ref().and_then(|settled| settled.floor(&partition));
            let end = Touched { partition, changes: 0..0, anchor, floor, later: Vec::new() };
            let part = self.part(&end)?;
            looked_at += part.keys.len();
            let batch = self.table.decode(part.keys.iter().copied())?;
            let first_row = end.first_number() - part.begin as u64;
            let place = PartitionRows::new(0, part.keys.len(), first_row, false);
            let rows = Rows::new(self.kernels.spec(), batch, vec![place])?;
            let kernel = self.kernels.of_partition(&rows.batch, &rows.partitions[0])?;
            let mut matcher = end.matcher();
            let (mut scratch, mut found) = (Scratch::default(), Found::default());
            matcher.advance(&kernel, &mut scratch, &rows, 0, u64::MAX, &mut found)?;
            for one in matcher.under_way(&kernel, left) {
                let at = |row: u64| (row - first_row) as usize;
                let ends = (at(one.first_row), at(one.last_row));
                shown.push(text_of(&kernel, &rows.batch, ends, &one)?);
            }
        }
        Ok(shown)
    }
}

/// `ends` is where its first and its last row stand among the rows.
fn text_of(
    kernel: &Kernel,
    rows: &RecordBatch,
    (first, last): (usize, usize),
    one: &UnderWay,
) -> Result<PartialMatch> {
    let spec = &kernel.spec;
    let times = Rows::times_of(spec, rows)?;
    let time_us = |row: usize| times.as_ref().and_then(|times| times.iter().nth(row).flatten());
    let schema = rows.schema_ref();
    let keys = spec.partition.iter().map(|column| {
        let field = schema.field(*column);
        format!("{} = {}", field.name(), shown_value(rows.column(*column), field, first))
    });
    let names = one.labels.iter().map(|label| {
        let variable = usize::from(*label) & !HIDDEN;
        spec.variables.get(variable).map_or("", String::as_str)
    });
    let waited = (0..spec.variables.len()).filter(|v| one.waits.variables().contains(*v));
    let conditions: Vec<String> = waited.map(|variable| spec.condition_text(variable)).collect();
    Ok(PartialMatch {
        partition: keys.collect::<Vec<_>>().join(", "),
        began_us: time_us(first),
        latest_us: time_us(last),
        rows: one.labels.len() as u64,
        variables: names.collect::<Vec<_>>().join(" "),
        waits_for: one.waits.text(&spec.variables),
        condition: conditions.join(" or "),
        deadline_us: one.deadline_us,
        is_complete: one.is_complete,
    })
}
