//! Aggregation by windows that overlap, as they change: a sum of a pane counts for all its windows.
//!
//! 1. `on_batch`: the panes' partial sums of the epoch, of which a key has one for each pane and
//!    worker. Each is merged into the groups of the pane's windows; so however many rows came, a
//!    group changes once for each pane.
//! 2. The rest is the aggregation of any groups: -old and +new at the epoch's end, groups closed by
//!    time.
//!
//! Keeps: one row of words per key and window. A change of a pane changes the rows of all its windows,
//! and costs as much; final rows only need less (`sliding.rs`).

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Int64Array, TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;

use super::{Aggregate, AggregateSpec, TimeKey};
use crate::dataflow::operator::{Operator, Output};
use crate::plan::event_time::{aggregate_bounds, time_values};
use crate::plan::node::{self, Phase};
use crate::plan::overlap::ManyWindows;
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::state::spill::StoreVisitor;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};
use crate::types::id::WorkerId;
use crate::types::time::{Epoch, Watermark};

/// Groups that are looked up at a time, unless one pane is in more windows.
const GROUPS_MAX: usize = 1 << 16;

/// The `aggregate` operator over windows that overlap.
pub struct SpreadAggregate {
    windows: ManyWindows,
    /// By the other keys and the window.
    groups: Aggregate,
}

impl SpreadAggregate {
    /// # Errors
    /// For a call that Millstream does not have, as the whole aggregation.
    pub fn new(node: &node::Aggregate, input: &SchemaRef) -> Result<SpreadAggregate> {
        let Phase::Windows { input_schema, windows } = &node.phase else {
            return Err(Error::internal("an aggregation over windows knows them"));
        };
        let time_keys = aggregate_bounds(node).into_iter();
        let spec = AggregateSpec {
            keys: node.keys.clone(),
            calls: node.calls.clone(),
            append_only: node.append_only,
            phase: Phase::Final { input_schema: input_schema.clone() },
            time_keys: time_keys.map(|bound| TimeKey { place: bound.column, bound }).collect(),
            on_close: node.on_close,
            schema: node.schema.clone(),
        };
        let mut groups = Aggregate::new(spec, input, WorkerId(0))?;
        groups.routed_by = Some(node.keys.len() - 1);
        Ok(SpreadAggregate { windows: *windows, groups })
    }

    /// Merges the sums of these rows into the groups of their windows.
    fn merge(
        &mut self,
        batch: &ChangeBatch,
        panes: &Int64Array,
        sums: &BinaryArray,
        rows: Range<usize>,
    ) -> Result<()> {
        let (mut row_of, mut windows) = (Vec::new(), Vec::new());
        let mut counts = Vec::with_capacity(rows.len());
        for row in rows.clone() {
            let count =
                if panes.is_null(row) { 0 } else { self.windows.count_of(panes.value(row)) };
            counts.push(count);
            if count > 0 {
                let first = self.windows.first_of(panes.value(row));
                let step = self.windows.step_us;
                windows.extend((0..count as i64).map(|n| first + n * step));
                row_of.resize(windows.len(), row as u32);
            }
        }
        let row_of = UInt32Array::from(row_of);
        let place = self.groups.spec.keys.len() - 1;
        let mut keys = (0..place)
            .map(|column| Ok(take(batch.column(column), &row_of, None)?))
            .collect::<Result<Vec<ArrayRef>>>()?;
        let data_type = batch.column(place).data_type().clone();
        let windows = TimestampMicrosecondArray::from(windows).with_data_type(data_type);
        keys.push(Arc::new(windows));
        self.groups.table.intern(&keys, row_of.len(), &mut self.groups.groups)?;
        self.groups.touch()?;
        let groups = std::mem::take(&mut self.groups.groups);
        let (mut rest, mut words) = (&groups[..], vec![0; self.groups.table.stride()]);
        for (row, count) in rows.zip(counts) {
            let (of_row, others) = rest.split_at(count);
            rest = others;
            let beside = super::partial::read_state(sums.value(row), &mut words)?;
            for group in of_row {
                self.groups.merge_row(*group, &words, beside)?;
            }
        }
        self.groups.groups = groups;
        Ok(())
    }
}

impl Operator for SpreadAggregate {
    fn name(&self) -> &'static str {
        "aggregate"
    }

    fn on_batch(&mut self, port: usize, batch: ChangeBatch, _: &mut Output) -> Result<()> {
        assert_eq!(port, 0, "aggregate has one input");
        assert!(batch.all_inserts(), "partial states are never taken back");
        let place = self.groups.spec.keys.len() - 1;
        let (panes, sums) = panes_and_sums(&batch, place)?;
        let mut from = 0;
        while from < batch.num_rows() {
            let (mut to, mut groups) = (from, 0);
            while to < batch.num_rows() && (groups < GROUPS_MAX || to == from) {
                groups +=
                    if panes.is_null(to) { 0 } else { self.windows.count_of(panes.value(to)) };
                to += 1;
            }
            self.merge(&batch, &panes, &sums, from..to)?;
            from = to;
        }
        Ok(())
    }

    fn on_watermark(&mut self, port: usize, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.groups.on_watermark(port, watermark, out)
    }

    fn on_epoch(&mut self, epoch: Epoch, out: &mut Output) -> Result<()> {
        self.groups.on_epoch(epoch, out)
    }

    fn checkpoint(&mut self, epoch: Epoch, writer: &mut CheckpointWriter) -> Result<()> {
        self.groups.checkpoint(epoch, writer)
    }

    fn go_on_with_checkpoint(&mut self, writer: &mut CheckpointWriter) -> Result<bool> {
        self.groups.go_on_with_checkpoint(writer)
    }

    fn restore(&mut self, reader: &mut CheckpointReader) -> Result<()> {
        self.groups.restore(reader)
    }

    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        self.groups.visit_stores(visit);
    }

    fn memory_bytes(&self) -> usize {
        self.groups.memory_bytes()
    }

    fn state_rows(&self) -> usize {
        self.groups.state_rows()
    }
}

/// The panes of partial sums, and the sums behind them.
pub(super) fn panes_and_sums(
    batch: &ChangeBatch,
    pane: usize,
) -> Result<(Int64Array, BinaryArray)> {
    let damaged = || Error::internal("a partial aggregation sent no panes");
    let panes = time_values(batch.column(pane)).ok_or_else(damaged)?;
    let sums = batch.column(pane + 1).as_binary_opt::<i32>().ok_or_else(damaged)?;
    Ok((panes, sums.clone()))
}
