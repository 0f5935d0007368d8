//! The contract every operator keeps: seven methods, no timely, no tokio, no clock.
//!
//! The driver calls them on one thread and in this order, for each epoch e:
//! 1. `on_batch` for batches of e;
//! 2. `on_watermark`, at most once for each port whose watermark moved in e: all rows of e have
//!    arrived, and no later change is behind it. What the operator announces leaves after all that
//!    it emits for e;
//! 3. `on_epoch(e)` once all of e has arrived on every port; what leaves a stateful operator for
//!    e is emitted here or before, and consolidated;
//! 4. `on_epoch(e)` again, as long as the call before said [`Output::unfinished`];
//! 5. `checkpoint(e)` if one was asked for at e.
//!
//! An operator of which a few rows may make very many (a join) works with fuel: it stops when
//! [`Output::is_full`], keeps what is left to do, and goes on in the next call, at the latest in
//! `on_epoch`. Between two calls the driver sends what there is and lets others take it in.
//!
//! Batches of later epochs never arrive before `on_epoch(e)`; a run of epochs in which nothing
//! arrives may be skipped. `Err` means that the operator cannot go on (our bug, or memory): the
//! dataflow stops at that epoch and no checkpoint passes it. A *row* that cannot be evaluated is
//! data, not an `Err`: it goes to [`Output::row_error`].

use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::state::spill::StoreVisitor;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};
use crate::types::partial_match::PartialMatch;
use crate::types::time::{Epoch, EventTime, Watermark};

/// One node of a running dataflow on one worker.
pub trait Operator {
    /// The operator's noun, as in `plan::Node`.
    fn name(&self) -> &'static str;

    /// Rows of the current epoch on input `port`.
    fn on_batch(&mut self, port: usize, batch: ChangeBatch, out: &mut Output) -> Result<()>;

    /// The watermark of input `port` moved; it is the minimum over all senders.
    fn on_watermark(&mut self, port: usize, watermark: Watermark, out: &mut Output) -> Result<()>;

    /// Everything of `epoch` has arrived. Called until it leaves nothing unfinished.
    fn on_epoch(&mut self, epoch: Epoch, out: &mut Output) -> Result<()>;

    /// Hands over what changed since the last checkpoint; `epoch` is complete.
    fn checkpoint(&mut self, epoch: Epoch, writer: &mut CheckpointWriter) -> Result<()>;

    /// Goes on with a checkpoint that `checkpoint` has left open, as of the same epoch: called
    /// between other calls until it is closed. False when there is nothing to do before an epoch ends.
    ///
    /// # Errors
    /// As `checkpoint`.
    fn go_on_with_checkpoint(&mut self, writer: &mut CheckpointWriter) -> Result<bool> {
        writer.set_open(false);
        Ok(false)
    }

    /// Takes the state of a checkpoint; called once, on a fresh operator.
    fn restore(&mut self, reader: &mut CheckpointReader) -> Result<()>;

    /// Memory held, in bytes.
    fn memory_bytes(&self) -> usize;

    /// Shows the stores whose rows can go to the disk when memory is short. Called between epochs
    /// and within them, but never within another call.
    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        let _ = visit;
    }

    /// Rows held from one epoch to the next, for those who look: groups, rows of both sides.
    fn state_rows(&self) -> usize {
        0
    }

    /// What it counts beside rows, each with its name, for those who look.
    fn counted(&self) -> Vec<(String, u64)> {
        Vec::new()
    }

    /// Matches of a row pattern that are under way, for those who look; so many at most.
    ///
    /// # Errors
    /// When rows that it needs for that cannot be had.
    fn partial_matches(&self, _limit: usize) -> Result<Vec<PartialMatch>> {
        Ok(Vec::new())
    }
}

/// An operator without state: what it emits for a batch depends on nothing else.
pub trait Stateless {
    /// The operator's noun, as in `plan::Node`.
    fn name(&self) -> &'static str;

    /// Rows of its one input.
    fn on_batch(&mut self, batch: ChangeBatch, out: &mut Output) -> Result<()>;
}

impl<T: Stateless> Operator for T {
    fn name(&self) -> &'static str {
        Stateless::name(self)
    }

    fn on_batch(&mut self, port: usize, batch: ChangeBatch, out: &mut Output) -> Result<()> {
        assert_eq!(port, 0, "an operator without state has one input");
        Stateless::on_batch(self, batch, out)
    }

    fn on_watermark(&mut self, _: usize, watermark: Watermark, out: &mut Output) -> Result<()> {
        out.emit_watermark(watermark);
        Ok(())
    }

    fn on_epoch(&mut self, _: Epoch, _: &mut Output) -> Result<()> {
        Ok(())
    }

    fn checkpoint(&mut self, _: Epoch, _: &mut CheckpointWriter) -> Result<()> {
        Ok(())
    }

    fn restore(&mut self, _: &mut CheckpointReader) -> Result<()> {
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        0
    }
}

/// Bytes that an operator emits before it lets others work: much more than a batch, so that a turn
/// costs little beside it, and little beside the state of anything that is worth a view.
pub const FUEL_BYTES: usize = 8 << 20;

/// What an operator sends on in one call.
pub struct Output {
    /// Bytes after which it is full.
    fuel_bytes: usize,
    pub(super) batches: Vec<ChangeBatch>,
    /// Of `batches`.
    bytes: usize,
    pub(super) watermark: Option<Watermark>,
    pub(super) row_errors: Vec<RowError>,
    pub(super) wake_at: Option<EventTime>,
    unfinished: bool,
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

impl Default for Output {
    fn default() -> Output {
        Output::with_fuel(FUEL_BYTES)
    }
}

impl Output {
    /// One that is full after so many bytes.
    pub fn with_fuel(fuel_bytes: usize) -> Output {
        Output {
            fuel_bytes,
            batches: Vec::new(),
            bytes: 0,
            watermark: None,
            row_errors: Vec::new(),
            wake_at: None,
            unfinished: false,
        }
    }

    /// Sends rows on; empty batches are dropped.
    pub fn emit(&mut self, batch: ChangeBatch) {
        if !batch.is_empty() {
            self.bytes += batch.size_bytes();
            self.batches.push(batch);
        }
    }

    /// Whether so much has been emitted that what can wait should.
    pub fn is_full(&self) -> bool {
        self.bytes >= self.fuel_bytes
    }

    /// Says in `on_epoch` that there is more to emit for the epoch.
    pub fn unfinished(&mut self) {
        self.unfinished = true;
    }

    /// Whether `on_epoch` is to be called again.
    pub fn is_unfinished(&self) -> bool {
        self.unfinished
    }

    /// Bytes of the batches emitted so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds what another call has emitted.
    fn append(&mut self, mut other: Output) {
        self.bytes += other.bytes;
        self.batches.append(&mut other.batches);
        self.row_errors.append(&mut other.row_errors);
        if let Some(watermark) = other.watermark {
            self.emit_watermark(watermark);
        }
        if let Some(at) = other.wake_at {
            self.wake_at(at);
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
        self.bytes = 0;
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

/// Hands over the whole state in one go, for callers that let nothing happen in between.
///
/// # Errors
/// The operator's.
pub fn complete_checkpoint(
    operator: &mut dyn Operator,
    epoch: Epoch,
    writer: &mut CheckpointWriter,
) -> Result<()> {
    operator.checkpoint(epoch, writer)?;
    while writer.is_open() {
        let gets_on = operator.go_on_with_checkpoint(writer)?;
        assert!(gets_on || !writer.is_open(), "between epochs a checkpoint gets on");
    }
    Ok(())
}

/// Completes an epoch in one go, for callers that hold all of its output anyway; in as many calls
/// as the fuel of `out` makes of it.
///
/// # Errors
/// The operator's.
pub fn complete_epoch(operator: &mut dyn Operator, epoch: Epoch, out: &mut Output) -> Result<()> {
    loop {
        let mut part = Output::with_fuel(out.fuel_bytes);
        operator.on_epoch(epoch, &mut part)?;
        let more = part.is_unfinished();
        out.append(part);
        if !more {
            return Ok(());
        }
    }
}
