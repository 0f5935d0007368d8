//! Checks, in debug builds, that an operator and its driver keep the contract of `operator.rs`.
//!
//! Wrapped around every operator. What comes in: batches of the input's column types, watermarks
//! and epochs that go up, a checkpoint right after its epoch. What goes out: rows, of the output's
//! column types, without NULLs where it has none, no row of weight 0, no deletions from a node that
//! never deletes, a watermark that goes up. A breach is our mistake and panics; the driver turns
//! that into a failed dataflow.

use std::cell::Cell;

use arrow::array::Array;
use arrow::datatypes::SchemaRef;

use crate::dataflow::operator::{Operator, Output};
use crate::plan::event_time::{TimeBound, time_values};
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::state::spill::StoreVisitor;
use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use crate::types::partial_match::PartialMatch;
use crate::types::time::{Epoch, EventTime, Watermark};

/// What an operator was planned to take and give.
#[derive(Clone, Debug)]
pub struct Contract {
    pub inputs: Vec<SchemaRef>,
    pub output: SchemaRef,
    /// The output never deletes.
    pub append_only: bool,
    /// What the output's watermark promises.
    pub time_bounds: Vec<TimeBound>,
}

thread_local! {
    /// The earliest event time of late rows that were taken in again on this worker. They are behind
    /// the watermark, but not behind anything that an operator has forgotten by it.
    static REOPENED: Cell<i64> = const { Cell::new(i64::MAX) };
}

/// Rows of this event time come once more: nothing behind it is promised any more.
pub fn reopen(time: EventTime) {
    REOPENED.set(REOPENED.get().min(time.0));
}

/// What is promised of a watermark, given what has been taken in again.
fn still_promised(watermark: Watermark) -> Watermark {
    watermark.min(Watermark(EventTime(REOPENED.get())))
}

/// The operator, watched in debug builds.
pub fn checked(operator: Box<dyn Operator>, contract: Contract) -> Box<dyn Operator> {
    if cfg!(debug_assertions) { Box::new(Checked::new(operator, contract)) } else { operator }
}

/// An operator under watch.
struct Checked {
    operator: Box<dyn Operator>,
    contract: Contract,
    /// The watermark of each input.
    watermarks: Vec<Option<Watermark>>,
    output_watermark: Option<Watermark>,
    /// The output's watermark at the end of the last epoch: nothing behind it may be emitted.
    promised: Option<Watermark>,
    /// The last epoch that completed.
    epoch: Option<Epoch>,
    /// Something of the next epoch has arrived.
    open: bool,
    /// `on_epoch` is to be called again for `epoch`.
    unfinished: bool,
}

impl Checked {
    fn new(operator: Box<dyn Operator>, contract: Contract) -> Checked {
        let watermarks = vec![None; contract.inputs.len()];
        Checked {
            operator,
            contract,
            watermarks,
            output_watermark: None,
            promised: None,
            epoch: None,
            open: false,
            unfinished: false,
        }
    }

    /// Runs a call and looks at what it added to the output.
    fn watch(
        &mut self,
        out: &mut Output,
        call: impl FnOnce(&mut dyn Operator, &mut Output) -> Result<()>,
    ) -> Result<()> {
        let batches_before = out.batches.len();
        call(self.operator.as_mut(), out)?;
        let name = self.operator.name();
        for batch in &out.batches[batches_before..] {
            assert!(!batch.is_empty(), "{name} emits an empty batch");
            check_columns(name, "emits", &self.contract.output, batch);
            for bound in self.promised.iter().flat_map(|_| &self.contract.time_bounds) {
                let least = bound.at(still_promised(self.promised.expect("there is one")));
                let times = time_values(batch.column(bound.column)).expect("bounded by time");
                assert!(
                    arrow::compute::min(&times).is_none_or(|first| first >= least),
                    "{name} emits a row behind its watermark, with {:?} before {least}",
                    arrow::compute::min(&times)
                );
            }
            if !batch.all_inserts() {
                let weights = (0..batch.num_rows()).map(|row| batch.weight(row));
                for weight in weights {
                    assert_ne!(weight, 0, "{name} emits a row of weight 0");
                    let deletes = self.contract.append_only && weight < 0;
                    assert!(!deletes, "{name} deletes, but was planned not to");
                }
            }
        }
        if let Some(watermark) = out.watermark {
            assert!(
                self.output_watermark.is_none_or(|before| before <= watermark),
                "{name} lets its watermark go back to {watermark}"
            );
            self.output_watermark = Some(watermark);
        }
        Ok(())
    }
}

/// Types and NULLs are as the schema says; names are nobody's business.
fn check_columns(name: &str, does: &str, schema: &SchemaRef, batch: &ChangeBatch) {
    let columns = batch.rows().columns();
    let fields = schema.fields();
    assert_eq!(columns.len(), fields.len(), "{name} {does} another number of columns");
    for (field, column) in fields.iter().zip(columns) {
        assert!(
            field.data_type() == column.data_type(),
            "{name} {does} column {} as {}, planned as {}",
            field.name(),
            column.data_type(),
            field.data_type()
        );
        assert!(
            field.is_nullable() || column.logical_null_count() == 0,
            "{name} {does} NULL in column {}",
            field.name()
        );
    }
}

impl Operator for Checked {
    fn name(&self) -> &'static str {
        self.operator.name()
    }

    fn on_batch(&mut self, port: usize, batch: ChangeBatch, out: &mut Output) -> Result<()> {
        check_columns(self.name(), "takes", &self.contract.inputs[port], &batch);
        assert!(!self.unfinished, "{} is given rows while it completes an epoch", self.name());
        self.open = true;
        self.watch(out, |operator, out| operator.on_batch(port, batch, out))
    }

    fn on_watermark(&mut self, port: usize, watermark: Watermark, out: &mut Output) -> Result<()> {
        let before = self.watermarks[port].replace(watermark);
        let name = self.name();
        assert!(
            before.is_none_or(|before| before <= watermark),
            "{name} is told that the watermark of input {port} goes back to {watermark}"
        );
        self.open = true;
        self.watch(out, |operator, out| operator.on_watermark(port, watermark, out))
    }

    fn on_epoch(&mut self, epoch: Epoch, out: &mut Output) -> Result<()> {
        let name = self.name();
        let again = self.unfinished && self.epoch == Some(epoch);
        assert!(
            again || self.epoch.is_none_or(|before| before < epoch),
            "{name} is told that epoch {epoch} completes again"
        );
        assert!(again || !self.unfinished, "{name} is not asked for the rest of an epoch");
        self.epoch = Some(epoch);
        self.open = false;
        self.watch(out, |operator, out| operator.on_epoch(epoch, out))?;
        self.unfinished = out.is_unfinished();
        if !self.unfinished {
            self.promised = self.output_watermark;
        }
        Ok(())
    }

    fn checkpoint(&mut self, epoch: Epoch, writer: &mut CheckpointWriter) -> Result<()> {
        let name = self.name();
        let inside = self.open || self.unfinished;
        assert!(!inside, "{name} is asked for a checkpoint inside an epoch");
        assert!(
            self.epoch.is_none_or(|before| before <= epoch),
            "{name} is asked for a checkpoint at {epoch}, which has passed"
        );
        self.operator.checkpoint(epoch, writer)
    }

    fn go_on_with_checkpoint(&mut self, writer: &mut CheckpointWriter) -> Result<bool> {
        assert!(writer.is_open(), "{} is asked for more than it has", self.name());
        self.operator.go_on_with_checkpoint(writer)
    }

    fn restore(&mut self, reader: &mut CheckpointReader) -> Result<()> {
        let name = self.name();
        assert!(self.epoch.is_none() && !self.open, "{name} is restored while it runs");
        self.operator.restore(reader)
    }

    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        self.operator.visit_stores(visit);
    }

    fn memory_bytes(&self) -> usize {
        self.operator.memory_bytes()
    }

    fn state_rows(&self) -> usize {
        self.operator.state_rows()
    }

    fn counted(&self) -> Vec<(String, u64)> {
        self.operator.counted()
    }

    fn partial_matches(&self, limit: usize) -> Result<Vec<PartialMatch>> {
        self.operator.partial_matches(limit)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::dataflow::operators::union::{Union, UnionSpec};
    use crate::dataflow::script::{batch, schema};

    /// A union that is watched with this contract for its output.
    fn watched(output: &str, append_only: bool) -> Checked {
        let spec = UnionSpec { inputs: 1, schema: schema("k bigint") };
        let contract = Contract {
            inputs: vec![schema("k bigint")],
            output: schema(output),
            append_only,
            time_bounds: vec![],
        };
        Checked::new(Box::new(Union::new(spec)), contract)
    }

    /// What the panic says, or nothing.
    fn breach(run: impl FnOnce() -> Result<()>) -> String {
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(result) => {
                result.expect("the operator works");
                String::new()
            }
            Err(panic) => panic.downcast_ref::<String>().expect("a message").clone(),
        }
    }

    #[test]
    fn breaches_are_found() {
        let rows = |rows: &str| batch(&schema("k bigint"), rows);
        let mut out = Output::default();
        let said = breach(|| watched("k bigint", true).on_batch(0, rows("+ 1\n+2 ."), &mut out));
        assert_eq!(said, "");
        let said = breach(|| watched("k bigint", true).on_batch(0, rows("+ 1\n- 2"), &mut out));
        assert_eq!(said, "union deletes, but was planned not to");
        let said = breach(|| watched("k text", true).on_batch(0, rows("+ 1"), &mut out));
        assert_eq!(said, "union emits column k as Int64, planned as Utf8");
        let said = breach(|| watched("k bigint not null", true).on_batch(0, rows("+ ."), &mut out));
        assert_eq!(said, "union emits NULL in column k");
        let wrong = batch(&schema("k text"), "+ a");
        let said = breach(|| watched("k bigint", true).on_batch(0, wrong, &mut out));
        assert_eq!(said, "union takes column k as Utf8, planned as Int64");
        let mut union = watched("k bigint", false);
        union.on_epoch(Epoch(2), &mut out).expect("completes");
        let said = breach(|| union.on_epoch(Epoch(2), &mut out));
        assert_eq!(said, "union is told that epoch 2 completes again");
        union.on_batch(0, rows("- 1"), &mut out).expect("takes rows");
        let said = breach(|| union.checkpoint(Epoch(2), &mut CheckpointWriter::default()));
        assert_eq!(said, "union is asked for a checkpoint inside an epoch");
    }
}
