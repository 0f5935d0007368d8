//! Window functions over changing partitions.
//!
//! All rows stand in a sorted table, partition by partition. A change concerns the rows that look
//! at the place where it is: with `ROWS 2 PRECEDING` the two after it, with `rank()` those after
//! it, with `sum(x) OVER (PARTITION BY p)` the whole partition. Only those are computed, once as
//! they were and once as they are, and what differs is emitted. Nothing that was emitted is kept:
//! the same rows give the same values.
//!
//! `on_epoch`, for the rows that changed, sorted and summed up, partition by partition:
//! 1. For each changed row, the range of rows that look at it, as the partition was and as it is;
//!    ranges that meet are made one (`part.rs`).
//! 2. A long partition stands in blocks with sums (`blocks.rs`). Calls that look to an end of the
//!    partition (`row_number()`, running sums) are computed from the sum of what stands before a
//!    row (`summary.rs`), and only up to where the sums as they were and as they are agree again: a
//!    row at the end costs O(log n), one that does not raise the running maximum nothing behind it.
//! 3. The rows of each range, with all that they look at, are computed: for the old values from the
//!    partition as it was (the changes are taken back for a moment), for the new ones as it is.
//!    A frame that moves along follows from the frame before it (`sliding.rs`).
//! 4. -old and +new are consolidated.
//!
//! Where a call cannot be computed (a sum out of range), the whole partition is left out, and
//! reported, until it can. The partitions that fail are remembered: nothing of them was emitted.
//!
//! Keeps: all rows, sorted; of long partitions a summary for some hundred rows each. What the
//! watermark has passed, and no row still to come looks at, is forgotten (`over/forgetting.rs`).

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::dataflow::operator::{Operator, Output, RowError};
use crate::dataflow::operators::aggregate::TimeKey;
use crate::dataflow::operators::materialize::consolidate;
use crate::dataflow::operators::top_n::ordered_by;
use crate::plan::event_time::TimeBound;
use crate::plan::node::{self, SortColumn};
use crate::plan::window::WindowCall;
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::state::ordered_table::{OrderedTable, RowKey};
use crate::state::spill::StoreVisitor;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};
use crate::types::time::{Epoch, Watermark};

mod blocks;
mod forgetting;
mod part;
mod sliding;
mod summary;

use blocks::{Blocks, Sizes, Turn, affected};
use forgetting::Forgetting;
use part::{Computed, Kernels, Place, PlaceRange, Reach, Reader, union};
use sliding::Sliding;
use summary::{Kernel, Side};

/// Rows that are decoded at a time, unless a partition is longer; also the rows of an output batch.
const STEP_ROWS: usize = 8192;
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
    reach: Reach,
    /// Computes calls from sums; `None` when there is no such call.
    kernel: Option<Kernel>,
    /// For each call: computes it over frames that move along.
    sliding: Vec<Option<Sliding>>,
    /// The blocks of long partitions, where sums are of use.
    blocks: BTreeMap<RowKey, Blocks>,
    sizes: Sizes,
    /// Partitions that were read as a whole in this epoch and are long; empty right after
    /// `on_epoch`.
    long: Vec<RowKey>,
    /// Changes of the current epoch; empty right after `on_epoch`.
    changes: Vec<Change>,
    /// Partitions of which nothing was emitted, because a call failed.
    failed: BTreeMap<RowKey, Failure>,
    forgetting: Forgetting,
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

/// A partition that changes: the range of its changes, and what has to be computed.
struct Touched {
    partition: RowKey,
    /// Where its changes stand among those of the epoch.
    changes: Range<usize>,
    ranges: Vec<PlaceRange>,
    /// Its blocks that change.
    turns: Vec<Turn>,
    /// What was reported of it when it was computed last.
    failed_before: Option<Failure>,
    failed_now: Option<Failure>,
}

impl Touched {
    fn new(partition: RowKey, changes: Range<usize>, failed_before: Option<Failure>) -> Touched {
        let (ranges, turns) = (Vec::new(), Vec::new());
        Touched { partition, changes, ranges, turns, failed_before, failed_now: None }
    }
}

impl Over {
    /// # Errors
    /// For a column whose type has no order (SQLSTATE 0A000).
    pub fn new(spec: OverSpec, input: &SchemaRef) -> Result<Over> {
        let order_by = ordered_by(&spec.order_by);
        let table = OrderedTable::new(input.clone(), spec.partition.clone(), order_by)?;
        let kernel = Kernel::new(&spec.calls, input)?;
        let reach = Reach::new(&spec.calls, kernel.as_ref());
        let sliding = spec.calls.iter().map(|call| Sliding::new(call, &spec.order_by, input));
        let sliding = sliding.collect::<Result<_>>()?;
        Ok(Over {
            spec,
            table,
            reach,
            kernel,
            sliding,
            blocks: BTreeMap::new(),
            sizes: Sizes::default(),
            long: Vec::new(),
            changes: Vec::new(),
            failed: BTreeMap::new(),
            forgetting: Forgetting::default(),
        })
    }

    /// The same with what the input's watermark promises: of a column of the partition, and of the
    /// first column to sort by, if that is ascending with NULLs last.
    #[must_use]
    pub fn closing(mut self, partition: Vec<TimeKey>, in_order: Option<TimeBound>) -> Over {
        self.forgetting = Forgetting::new(partition, in_order, &self.spec.calls);
        self
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
                _ => {
                    let failed = self.failed.get(partition).cloned();
                    touched.push(Touched::new(partition.into(), index..index + 1, failed));
                }
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

    /// The blocks of the partitions that change get their other summaries.
    fn turn(&mut self, touched: &mut [Touched]) -> Result<()> {
        let Some(kernel) = &mut self.kernel else { return Ok(()) };
        for touched in touched.iter_mut().filter(|touched| !touched.turns.is_empty()) {
            if let Some(blocks) = self.blocks.get_mut(&touched.partition) {
                blocks.turn(kernel, &mut touched.turns)?;
            }
        }
        Ok(())
    }

    /// Adds the ranges of rows that look at the changed places, as the table is now.
    fn add_ranges(&self, touched: &mut [Touched], changes: &[Change]) -> Result<()> {
        let reader = reader(&self.spec, &self.table, &self.reach, self.sizes);
        for touched in touched {
            if touched.failed_before.is_some() {
                touched.ranges = vec![PlaceRange::ALL];
                continue;
            }
            let places = changes[touched.changes.clone()].iter().map(|change| &change.place);
            let blocked = self.blocks.contains_key(&touched.partition);
            reader.add_ranges(&touched.partition, blocked, places, &mut touched.ranges)?;
        }
        Ok(())
    }

    /// Sums the changed blocks up, and adds the ranges of rows that look to an end of a partition
    /// that has blocks, with the table as it is now.
    fn add_open_ranges(&mut self, touched: &mut [Touched], changes: &[Change]) -> Result<()> {
        let Some(kernel) = &mut self.kernel else { return Ok(()) };
        let reader = reader(&self.spec, &self.table, &self.reach, self.sizes);
        for touched in touched {
            let Some(blocks) = self.blocks.get_mut(&touched.partition) else { continue };
            let places: Vec<&Place> =
                changes[touched.changes.clone()].iter().map(|change| &change.place).collect();
            let mut changed: Vec<usize> = Vec::new();
            for place in &places {
                let block = blocks.block_of(&place.key);
                changed.push(block);
                // Whether its first row begins a group of peers depends on the row before.
                if kernel.counts_groups()
                    && let Some(next) = blocks.next_with_rows(block)
                {
                    changed.push(next);
                }
            }
            changed.sort_unstable();
            changed.dedup();
            touched.turns = blocks.refresh(kernel, &self.table, &changed)?;
            if touched.failed_before.is_some() {
                continue;
            }
            for side in [Side::Before, Side::After, Side::Total] {
                if !kernel.looks(side) {
                    continue;
                }
                for run in affected(kernel, blocks, &touched.turns, side)? {
                    let range = reader.run_range(blocks, &places, run, side)?;
                    touched.ranges.push(range);
                }
            }
        }
        Ok(())
    }

    /// Computes the ranges of the partitions with the table as it is now, except of those that
    /// `skip`; a failure is noted for its partition.
    fn compute(
        &mut self,
        touched: &[Touched],
        skip: impl Fn(&Touched) -> bool,
    ) -> Result<Vec<Computed>> {
        let reader = reader(&self.spec, &self.table, &self.reach, self.sizes);
        let mut computed = Vec::new();
        let (mut parts, mut rows) = (Vec::new(), 0);
        for (index, touched) in touched.iter().enumerate().filter(|(_, t)| !skip(t)) {
            let blocks = self.blocks.get(&touched.partition);
            for range in &touched.ranges {
                for range in reader.split(&touched.partition, range, blocks) {
                    let partition = &*touched.partition;
                    let kernel = self.kernel.as_mut();
                    let part = reader.part(index, partition, &range, kernel, blocks)?;
                    if part.is_long && self.long.last().is_none_or(|last| **last != *partition) {
                        self.long.push(partition.into());
                    }
                    if part.wanted.is_empty() {
                        continue;
                    }
                    rows += part.keys.len();
                    parts.push(part);
                    if rows >= STEP_ROWS {
                        let kernels = Kernels::of(&mut self.kernel, &mut self.sliding);
                        reader.compute_parts(&parts, kernels, &mut computed)?;
                        parts.clear();
                        rows = 0;
                    }
                }
            }
        }
        let kernels = Kernels::of(&mut self.kernel, &mut self.sliding);
        reader.compute_parts(&parts, kernels, &mut computed)?;
        Ok(computed)
    }

    /// Blocks are split and joined; what has become long gets some, what is short again loses its.
    fn settle_blocks(&mut self, touched: &mut [Touched]) -> Result<()> {
        let long = std::mem::take(&mut self.long);
        let Some(kernel) = &mut self.kernel else { return Ok(()) };
        for touched in touched {
            let turns = std::mem::take(&mut touched.turns);
            let Some(blocks) = self.blocks.get_mut(&touched.partition) else { continue };
            if blocks.row_count() < self.sizes.partition_rows_min / 4 {
                self.blocks.remove(&touched.partition);
            } else {
                blocks.settle(kernel, &self.table, turns)?;
            }
        }
        let least = self.sizes.partition_rows_min;
        for partition in long {
            let is_long = self.table.partition(&partition).nth(least - 1).is_some();
            if is_long && !self.blocks.contains_key(&partition) {
                let blocks = Blocks::new(kernel, &self.table, partition.clone(), self.sizes)?;
                self.blocks.insert(partition, blocks);
            }
        }
        Ok(())
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

fn reader<'a>(
    spec: &'a OverSpec,
    table: &'a OrderedTable,
    reach: &'a Reach,
    sizes: Sizes,
) -> Reader<'a> {
    Reader { spec, table, reach, sizes }
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
        self.forgetting.moved(watermark);
        out.emit_watermark(watermark);
        Ok(())
    }

    fn on_epoch(&mut self, _: Epoch, out: &mut Output) -> Result<()> {
        let changes = self.take_changes();
        if changes.is_empty() {
            return self.forget_settled();
        }
        self.forgetting.changed(changes.len());
        let mut touched = self.partitions(&changes);
        self.add_ranges(&mut touched, &changes)?;
        self.apply(&changes, 1);
        self.add_ranges(&mut touched, &changes)?;
        self.add_open_ranges(&mut touched, &changes)?;
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
        self.turn(&mut touched)?;
        for (_, computed) in self.compute(&touched, |touched| touched.failed_before.is_some())? {
            match computed {
                Ok(rows) => output.push(ChangeBatch::deletes(rows)),
                Err(failure) => return Err(failure.error),
            }
        }
        self.apply(&changes, 1);
        self.turn(&mut touched)?;
        self.settle_blocks(&mut touched)?;
        self.report(touched, out)?;
        for batch in consolidate(&self.spec.schema, output)? {
            for start in (0..batch.num_rows()).step_by(STEP_ROWS) {
                out.emit(batch.slice(start, STEP_ROWS.min(batch.num_rows() - start)));
            }
        }
        self.forget_settled()
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
            let mut all = Touched::new(partition, 0..0, None);
            all.ranges = vec![PlaceRange::ALL];
            touched.push(all);
        }
        for chunk in touched.chunks(STEP_ROWS) {
            for (index, computed) in self.compute(chunk, |_| false)? {
                if let Err(failure) = computed {
                    self.failed.insert(chunk[index].partition.clone(), failure);
                }
            }
        }
        self.settle_blocks(&mut [])
    }

    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        visit(&mut self.table);
    }

    fn memory_bytes(&self) -> usize {
        let changes = self.changes.iter().map(|change| change.place.key.len());
        let blocks = self.blocks.values().map(Blocks::memory_bytes);
        self.table.memory_bytes()
            + blocks.sum::<usize>()
            + changes.sum::<usize>()
            + self.changes.capacity() * size_of::<Change>()
    }

    fn state_rows(&self) -> usize {
        self.table.len()
    }
}

#[cfg(test)]
mod tests;
