//! Groups rows and keeps one output row per group, incrementally.
//!
//! 1. `on_batch`: the key columns give each row its group; groups that change for the first time
//!    in the epoch are noted, with their row of accumulator words as it was; then one loop per
//!    accumulator folds the batch in. What FILTER excludes is left out; DISTINCT arguments are
//!    counted per group and value, and folded when a value appears or disappears.
//! 2. `on_epoch`: accumulators settle; for the groups that changed, the output rows as they were
//!    and as they are are evaluated in one go, and -old and +new are emitted where they differ.
//!    Nothing is remembered between epochs but the accumulators: the old row is evaluated again
//!    from the old words. A row that cannot be evaluated (a sum out of range) is reported as a row
//!    error and is absent until it can.
//! 3. Groups that have no rows left are forgotten, and so are those whose time has passed
//!    (`closing.rs`).
//!
//! Keeps: one row of words per group, and what accumulators keep beside them: all values of a
//! group for functions that cannot take a value back otherwise (`min` over deleting input), a
//! count per group and value for DISTINCT. It is as large as the number of groups, and goes to the
//! disk when memory is short.
//!
//! Over sessions (`sessions.rs`) a group is a session. In two phases (`partial.rs`) rows are summed up
//! before they are exchanged, and this operator merges the sums instead of folding rows. Sums of
//! panes count for all windows that overlap there (`spread.rs`), or are put together to a window
//! when it closes (`sliding.rs`).
//!
//! Without keys there is exactly one row, from the first epoch on, kept by worker 0.
//! Without calls it is DISTINCT.

use std::ops::Range;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;

use crate::dataflow::operator::{Operator, Output};
use crate::functions::aggregate::layout::Layout;
use crate::functions::aggregate::{Evaluate, Slots};
use crate::plan::event_time::aggregate_bounds;
use crate::plan::node;
use crate::state::delta::{CheckpointReader, CheckpointWriter, TableDelta};
use crate::state::group_table::GroupTable;
use crate::state::spill::StoreVisitor;
use crate::types::change::{ChangeBatch, Weights};
use crate::types::error::Result;
use crate::types::id::WorkerId;
use crate::types::time::{Epoch, Watermark};

pub(super) mod calls;
mod checkpoint;
mod closing;
mod distinct;
mod emit;
mod partial;
pub(super) mod select;
mod sessions;
mod sliding;
mod spread;
#[cfg(test)]
mod tests;

use closing::OpenGroups;
pub use closing::TimeKey;
use distinct::DistinctRows;
pub use partial::PartialAggregate;
use select::Selection;
pub use sessions::SessionAggregate;
use sliding::SlidingAggregate;
use spread::SpreadAggregate;

/// What to aggregate.
#[derive(Clone, Debug)]
pub struct AggregateSpec {
    /// Input columns that make a group.
    pub keys: Vec<usize>,
    pub calls: Vec<node::AggregateCall>,
    /// The input never deletes.
    pub append_only: bool,
    pub phase: node::Phase,
    /// What closes groups: the first of them whose time has passed.
    pub time_keys: Vec<TimeKey>,
    /// Rows are emitted when their group closes, and only then.
    pub on_close: bool,
    /// The output: keys, then calls.
    pub schema: SchemaRef,
}

impl From<&node::Aggregate> for AggregateSpec {
    fn from(node: &node::Aggregate) -> AggregateSpec {
        let time_keys = aggregate_bounds(node).into_iter();
        AggregateSpec {
            time_keys: time_keys.map(|bound| TimeKey { place: bound.column, bound }).collect(),
            on_close: node.on_close,
            keys: node.keys.clone(),
            calls: node.calls.clone(),
            append_only: node.append_only,
            phase: node.phase.clone(),
            schema: node.schema.clone(),
        }
    }
}

/// The operator that merges sums of panes to those of windows that overlap.
///
/// # Errors
/// For a call that Millstream does not have, as the whole aggregation.
pub fn over_windows(node: &node::Aggregate, input: &SchemaRef) -> Result<Box<dyn Operator>> {
    let window = node.keys.len() - 1;
    let bound = aggregate_bounds(node).into_iter().find(|bound| bound.column == window);
    Ok(match bound.filter(|_| node.on_close) {
        Some(bound) => Box::new(SlidingAggregate::new(node, bound, input)?),
        None => Box::new(SpreadAggregate::new(node, input)?),
    })
}

/// The `aggregate` operator.
pub struct Aggregate {
    spec: AggregateSpec,
    /// Groups with their words.
    table: GroupTable,
    layout: Layout,
    /// What each call evaluates to.
    values: Vec<Box<dyn Evaluate>>,
    /// For each input of the layout that is DISTINCT: its values.
    distinct: Vec<Option<DistinctRows>>,
    /// The row of an aggregation without keys was emitted.
    global_emitted: bool,
    worker: WorkerId,
    /// The groups of the batch at hand.
    groups: Vec<u32>,
    /// Groups that time will close.
    open: OpenGroups,
    /// So many of the keys, the first ones, say on which worker a group is; `None`: all of them.
    routed_by: Option<usize>,
    /// The keys of groups that have closed, where someone wants to know.
    closed: Option<Vec<Vec<ArrayRef>>>,
    /// What the checkpoint that has begun must have of groups that have changed since.
    rescued: TableDelta,
}

impl Aggregate {
    /// An aggregation of input with this schema.
    ///
    /// # Errors
    /// For a call that Millstream does not have (SQLSTATE 0A000), or a key type without equality.
    pub fn new(
        spec: AggregateSpec,
        input_schema: &SchemaRef,
        worker: WorkerId,
    ) -> Result<Aggregate> {
        let key_types: Vec<_> =
            spec.keys.iter().map(|key| input_schema.field(*key).data_type().clone()).collect();
        let mut layout = Layout::default();
        // The calls of a final phase name columns of what the partial one read.
        let call_schema = match &spec.phase {
            node::Phase::Final { input_schema } | node::Phase::Windows { input_schema, .. } => {
                input_schema
            }
            node::Phase::Whole | node::Phase::Partial | node::Phase::Sessions { .. } => {
                input_schema
            }
        };
        let values = spec
            .calls
            .iter()
            .map(|call| calls::plan(&mut layout, call, spec.append_only, call_schema))
            .collect::<Result<Vec<_>>>()?;
        let distinct = layout
            .inputs
            .iter()
            .map(|input| input.distinct.then(|| DistinctRows::new(input)).transpose())
            .collect::<Result<Vec<_>>>()?;
        let table = GroupTable::new(&key_types, layout.stride)?;
        Ok(Aggregate {
            spec,
            table,
            layout,
            values,
            distinct,
            global_emitted: false,
            worker,
            groups: Vec::new(),
            open: OpenGroups::default(),
            routed_by: None,
            closed: None,
            rescued: TableDelta::default(),
        })
    }

    /// Whether this worker keeps the only row of an aggregation without keys.
    fn is_global_here(&self) -> bool {
        self.spec.keys.is_empty() && self.worker == WorkerId(0)
    }

    /// Notes that the groups of the batch change.
    fn touch(&mut self) -> Result<()> {
        let fresh: Range<usize> = self.table.touch(&self.groups);
        if fresh.is_empty() {
            return Ok(());
        }
        let stride = self.table.stride();
        let (words, dirty) = self.table.words_and_dirty();
        for placed in &mut self.layout.accumulators {
            let mut slots = Slots { words: &mut *words, stride, offset: placed.offset };
            placed.accumulator.remember(&mut slots, &dirty[fresh.clone()])?;
        }
        Ok(())
    }

    /// Folds a batch, whose groups are known, into the accumulators.
    fn fold(&mut self, rows: &RecordBatch, weights: Option<&[i64]>) -> Result<()> {
        self.table.count_rows(&self.groups, weights);
        let mut selections: Vec<(Option<usize>, Selection)> = Vec::new();
        for (index, input) in self.layout.inputs.iter().enumerate() {
            let known = selections.iter().position(|s| s.0 == input.filter);
            let at = match known {
                Some(at) => at,
                None => {
                    let selection = Selection::new(rows, input.filter);
                    selections.push((input.filter, selection));
                    selections.len() - 1
                }
            };
            let selected = selections[at].1.of(rows, &self.groups, weights, &input.arguments)?;
            if let Some(distinct) = &mut self.distinct[index] {
                distinct.fold(&selected.rows())?;
                continue;
            }
            let stride = self.table.stride();
            let (words, _) = self.table.words_and_dirty();
            for placed in self.layout.accumulators.iter_mut().filter(|p| p.input == index) {
                placed.fold(words, stride, &selected.rows())?;
            }
        }
        Ok(())
    }

    /// Folds DISTINCT values that appeared or disappeared, then lets accumulators settle.
    fn settle(&mut self) -> Result<()> {
        let stride = self.table.stride();
        let (words, dirty) = self.table.words_and_dirty();
        for (index, distinct) in self.distinct.iter_mut().enumerate() {
            let Some(distinct) = distinct else { continue };
            let changes = distinct.end_epoch()?;
            for placed in self.layout.accumulators.iter_mut().filter(|p| p.input == index) {
                placed.fold(words, stride, &changes.rows())?;
            }
        }
        for placed in &mut self.layout.accumulators {
            let mut slots = Slots { words: &mut *words, stride, offset: placed.offset };
            placed.accumulator.settle(&mut slots, dirty)?;
        }
        Ok(())
    }

    /// Forgets empty groups, and what was only of this epoch.
    fn end_epoch(&mut self) -> Result<()> {
        let dead = self.table.dead();
        let stride = self.table.stride();
        let (words, _) = self.table.words_and_dirty();
        for placed in &mut self.layout.accumulators {
            if !dead.is_empty() {
                let mut slots = Slots { words: &mut *words, stride, offset: placed.offset };
                placed.accumulator.free(&mut slots, &dead);
            }
            placed.accumulator.forget_remembered();
        }
        self.rescue()?;
        self.table.end_epoch(&dead)
    }
}

impl Operator for Aggregate {
    fn name(&self) -> &'static str {
        "aggregate"
    }

    fn on_batch(&mut self, port: usize, batch: ChangeBatch, _: &mut Output) -> Result<()> {
        assert_eq!(port, 0, "aggregate has one input");
        assert!(
            !self.spec.keys.is_empty() || self.is_global_here(),
            "rows of an aggregation without keys meet on worker 0"
        );
        assert!(!self.spec.append_only || batch.all_inserts(), "this input never deletes");
        let keys = batch.columns_at(&self.spec.keys);
        self.table.intern(&keys, batch.num_rows(), &mut self.groups)?;
        self.touch()?;
        if matches!(self.spec.phase, node::Phase::Final { .. }) {
            return self.merge(&batch);
        }
        let weights = match batch.weights() {
            Weights::AllInserts => None,
            Weights::Each(weights) => Some(weights.as_ref()),
        };
        self.fold(batch.rows(), weights)
    }

    fn on_watermark(&mut self, _: usize, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.open.on_watermark(watermark);
        out.emit_watermark(watermark);
        Ok(())
    }

    fn on_epoch(&mut self, _: Epoch, out: &mut Output) -> Result<()> {
        if self.is_global_here() && !self.global_emitted {
            self.table.intern(&[], 1, &mut self.groups)?;
            self.touch()?;
        }
        if !self.table.dirty().is_empty() {
            self.settle()?;
            if !self.spec.on_close {
                self.emit_changes(out)?;
            }
            self.global_emitted = true;
            let made = self.made_in_epoch()?;
            self.end_epoch()?;
            self.note_open(&made)?;
        }
        self.close_groups(out)
    }

    fn checkpoint(&mut self, _: Epoch, writer: &mut CheckpointWriter) -> Result<()> {
        self.write_checkpoint(writer)
    }

    fn go_on_with_checkpoint(&mut self, writer: &mut CheckpointWriter) -> Result<bool> {
        self.hand_over_slice(writer)
    }

    fn restore(&mut self, reader: &mut CheckpointReader) -> Result<()> {
        self.read_checkpoint(reader)?;
        self.note_open(&self.table.live())
    }

    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        visit(&mut self.table);
        for distinct in self.distinct.iter_mut().flatten() {
            visit(&mut distinct.pairs);
        }
        for placed in &mut self.layout.accumulators {
            placed.accumulator.visit_stores(visit);
        }
    }

    fn memory_bytes(&self) -> usize {
        let beside = self.layout.accumulators.iter().map(|p| p.accumulator.memory_bytes());
        let distinct = self.distinct.iter().flatten().map(DistinctRows::memory_bytes);
        self.table.memory_bytes()
            + beside.sum::<usize>()
            + distinct.sum::<usize>()
            + self.groups.capacity() * size_of::<u32>()
            + self.open.memory_bytes()
    }

    fn state_rows(&self) -> usize {
        self.table.len()
    }
}
