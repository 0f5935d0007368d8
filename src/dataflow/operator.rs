//! The contract every operator keeps: seven methods, no timely, no tokio, no clock.
//!
//! The driver calls them on one thread and in this order, for each epoch e:
//! 1. `on_batch` for batches of e;
//! 2. `on_watermark`, at most once for each port whose watermark moved in e: all rows of e have
//!    arrived, and no later change is behind it. What the operator announces leaves after all that
//!    it emits for e;
//! 3. `on_epoch(e)` once all of e has arrived on every port; what leaves a stateful operator for
//!    e is emitted here or before, and consolidated;
//! 4. `checkpoint(e)` if one was asked for at e.
//!
//! Batches of later epochs never arrive before `on_epoch(e)`; a run of epochs in which nothing
//! arrives may be skipped. `Err` means that the operator cannot go on (our bug, or memory): the
//! dataflow stops at that epoch and no checkpoint passes it. A *row* that cannot be evaluated is
//! data, not an `Err`: it goes to [`Output::row_error`].

use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};
use crate::types::time::{Epoch, EventTime, Watermark};

/// One node of a running dataflow on one worker.
pub trait Operator {
    /// The operator's noun, as in `plan::Node`.
    fn name(&self) -> &'static str;

    /// Rows of the current epoch on input `port`.
    fn on_batch(&mut self, port: usize, batch: ChangeBatch, out: &mut Output) -> Result<()>;

    /// The watermark of input `port` moved; it is the minimum over all senders.
    fn on_watermark(&mut self, port: usize, watermark: Watermark, out: &mut Output) -> Result<()>;

    /// Everything of `epoch` has arrived.
    fn on_epoch(&mut self, epoch: Epoch, out: &mut Output) -> Result<()>;

    /// Hands over what changed since the last checkpoint; `epoch` is complete.
    fn checkpoint(&mut self, epoch: Epoch, writer: &mut CheckpointWriter) -> Result<()>;

    /// Takes the state of a checkpoint; called once, on a fresh operator.
    fn restore(&mut self, reader: &mut CheckpointReader) -> Result<()>;

    /// Memory held, in bytes.
    fn memory_bytes(&self) -> usize;
}

/// What an operator sends on in one call.
#[derive(Default)]
pub struct Output {
    pub(super) batches: Vec<ChangeBatch>,
    pub(super) watermark: Option<Watermark>,
    pub(super) row_errors: Vec<RowError>,
    pub(super) wake_at: Option<EventTime>,
}

/// A row that could not be evaluated and was left out.
#[derive(Clone, Debug)]
pub struct RowError {
    pub error: Error,
    /// The expression, as SQL.
    pub expression: String,
    /// The row, as text.
    pub row: String,
    /// Copies of the row; negative when an earlier error is taken back with its row.
    pub weight: i64,
}

impl Output {
    /// Sends rows on; empty batches are dropped.
    pub fn emit(&mut self, batch: ChangeBatch) {
        if !batch.is_empty() {
            self.batches.push(batch);
        }
    }

    /// Announces the output's watermark; it never goes back.
    pub fn emit_watermark(&mut self, watermark: Watermark) {
        if self.watermark.is_none_or(|w| w < watermark) {
            self.watermark = Some(watermark);
        }
    }

    /// Asks for an epoch when logical time has reached `at`, if none comes before. Who still waits
    /// then asks again.
    pub fn wake_at(&mut self, at: EventTime) {
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }

    /// Records a row that was left out.
    pub fn row_error(&mut self, error: RowError) {
        self.row_errors.push(error);
    }

    /// The batches emitted so far, taken out.
    pub fn take_batches(&mut self) -> Vec<ChangeBatch> {
        std::mem::take(&mut self.batches)
    }

    /// The earliest time asked for so far, taken out.
    pub fn take_wake_at(&mut self) -> Option<EventTime> {
        self.wake_at.take()
    }

    /// The watermark emitted so far, taken out.
    pub fn take_watermark(&mut self) -> Option<Watermark> {
        self.watermark.take()
    }

    /// The row errors so far, taken out.
    pub fn take_row_errors(&mut self) -> Vec<RowError> {
        std::mem::take(&mut self.row_errors)
    }
}
