//! Aggregation before an exchange: fewer rows are sent, and without keys the work is shared.
//!
//! 1. `on_batch` folds rows into accumulators as the whole aggregation does.
//! 2. `on_epoch`, or earlier when there are many groups, each group becomes one row: its keys and
//!    the words of its accumulators as bytes; then everything is forgotten. Nothing is kept
//!    between epochs, so there is nothing to checkpoint.
//!
//! The final aggregation adds the words to its own. A row of state is a change, not a value: its
//! sums are below 0 where more was deleted than inserted.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, BinaryBuilder, RecordBatch};
use arrow::datatypes::SchemaRef;

use super::{Aggregate, AggregateSpec};
use crate::dataflow::operator::{Operator, Output};
use crate::plan::node::Phase;
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::state::spill::StoreVisitor;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};
use crate::types::id::WorkerId;
use crate::types::time::{Epoch, Watermark};

/// Groups that are kept before they are sent: a few megabytes of words.
const GROUPS_MAX: usize = 1 << 16;
/// Rows of one output batch.
const BATCH_ROWS: usize = 8192;

/// The `aggregate` operator before an exchange.
pub struct PartialAggregate {
    /// Folds rows; made anew whenever its groups were sent.
    aggregate: Aggregate,
    spec: AggregateSpec,
    input_schema: SchemaRef,
}

impl PartialAggregate {
    /// # Errors
    /// For a call that Millstream does not have, as the whole aggregation.
    pub fn new(spec: AggregateSpec, input_schema: &SchemaRef) -> Result<PartialAggregate> {
        assert!(matches!(spec.phase, Phase::Partial), "made for the partial phase");
        Ok(PartialAggregate {
            aggregate: fresh(&spec, input_schema)?,
            spec,
            input_schema: input_schema.clone(),
        })
    }

    /// Sends the groups that there are, and forgets them.
    fn send(&mut self, out: &mut Output) -> Result<()> {
        let groups: Vec<u32> = self.aggregate.table.dirty().to_vec();
        if groups.is_empty() {
            return Ok(());
        }
        self.aggregate.settle()?;
        for groups in groups.chunks(BATCH_ROWS) {
            let keys = self.aggregate.table.keys(groups)?;
            self.send_rows(groups, keys, out)?;
        }
        self.aggregate = fresh(&self.spec, &self.input_schema)?;
        Ok(())
    }

    fn send_rows(
        &self,
        groups: &[u32],
        mut columns: Vec<ArrayRef>,
        out: &mut Output,
    ) -> Result<()> {
        let mut states = BinaryBuilder::new();
        let mut state = Vec::new();
        for group in groups {
            state.clear();
            let row = self.aggregate.table.row(*group);
            state.extend(row.iter().flat_map(|word| word.to_le_bytes()));
            if let Some(saved) = self.aggregate.saved(row)? {
                state.extend(saved);
            }
            states.append_value(&state);
        }
        columns.push(Arc::new(states.finish()));
        out.emit(ChangeBatch::inserts(RecordBatch::try_new(self.spec.schema.clone(), columns)?));
        Ok(())
    }
}

/// The words of a state that travels, and what accumulators have beside them.
pub(super) fn read_state<'state>(state: &'state [u8], words: &mut [u64]) -> Result<&'state [u8]> {
    let (bytes, beside) = state.split_at_checked(words.len() * 8).ok_or_else(damaged)?;
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    Ok(beside)
}

fn damaged() -> Error {
    Error::internal("a partial aggregation sent a damaged state")
}

fn fresh(spec: &AggregateSpec, input_schema: &SchemaRef) -> Result<Aggregate> {
    Aggregate::new(spec.clone(), input_schema, WorkerId(0))
}

impl Operator for PartialAggregate {
    fn name(&self) -> &'static str {
        "aggregate"
    }

    fn on_batch(&mut self, port: usize, batch: ChangeBatch, out: &mut Output) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        self.aggregate.on_batch(port, batch, out)?;
        if self.aggregate.table.dirty().len() >= GROUPS_MAX {
            self.send(out)?;
        }
        Ok(())
    }

    fn on_watermark(&mut self, _: usize, watermark: Watermark, out: &mut Output) -> Result<()> {
        out.emit_watermark(watermark);
        Ok(())
    }

    fn on_epoch(&mut self, _: Epoch, out: &mut Output) -> Result<()> {
        self.send(out)
    }

    fn checkpoint(&mut self, _: Epoch, _: &mut CheckpointWriter) -> Result<()> {
        assert!(self.aggregate.table.dirty().is_empty(), "a checkpoint follows an epoch");
        Ok(())
    }

    fn restore(&mut self, _: &mut CheckpointReader) -> Result<()> {
        Ok(())
    }

    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        self.aggregate.visit_stores(visit);
    }

    fn memory_bytes(&self) -> usize {
        self.aggregate.memory_bytes()
    }

    fn state_rows(&self) -> usize {
        self.aggregate.state_rows()
    }
}

impl Aggregate {
    /// Adds the states of partial aggregations to the groups of the batch.
    pub(super) fn merge(&mut self, batch: &ChangeBatch) -> Result<()> {
        assert!(batch.all_inserts(), "partial states are never taken back");
        let states: &BinaryArray =
            batch.column(self.spec.keys.len()).as_binary_opt().ok_or_else(damaged)?;
        let stride = self.table.stride();
        let mut other = vec![0; stride];
        let groups = std::mem::take(&mut self.groups);
        for (row, group) in groups.iter().enumerate() {
            let beside = read_state(states.value(row), &mut other)?;
            self.merge_row(*group, &other, beside)?;
        }
        self.groups = groups;
        Ok(())
    }

    /// Adds words, and what accumulators have beside them, to those of a group.
    pub(super) fn merge_row(&mut self, group: u32, other: &[u64], beside: &[u8]) -> Result<()> {
        let stride = self.table.stride();
        let (words, _) = self.table.words_and_dirty();
        let own = &mut words[group as usize * stride..][..stride];
        own[0] = own[0].wrapping_add(other[0]);
        for (slot, placed) in self.layout.accumulators.iter_mut().enumerate() {
            let range = placed.offset..placed.offset + placed.accumulator.width_words();
            let saved = super::checkpoint::saved_of(beside, slot)?;
            placed.accumulator.merge(&mut own[range.clone()], &other[range], saved)?;
        }
        Ok(())
    }
}
