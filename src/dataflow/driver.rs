//! Runs one operator: owns its capability, aligns epochs, contains its failures.
//!
//! 1. What arrives is stashed by epoch. Batches of the current epoch (the lowest that an input may
//!    still carry) are handed to the operator in the same step; later ones wait.
//! 2. When the input frontier passes epochs, each of them that has something is finished in order:
//!    stashed batches, then the watermarks that moved in it, then `on_epoch`. A run of empty epochs
//!    is finished by one `on_epoch` of its last.
//!    A watermark is of all rows up to the end of its epoch, so it is handed over after them, and
//!    what the operator announces leaves after all that it sends for the epoch.
//! 3. When an epoch at which a checkpoint was asked for is finished, and before anything later, the
//!    operator hands over what has changed ([`CheckpointPoint`]), or begins to: where that is much,
//!    it hands over the rest bit by bit, a bit at the end of each step, while epochs go on.
//! 4. The one capability is then moved up to the frontier, which lets the epochs pass downstream.
//! 5. A step that has sent `FUEL_BYTES`, or whose operator says that there is more to come, ends
//!    there and asks for another one: operators downstream take in what was sent before more is
//!    made, and the worker gets to its commands. While an operator further down is behind with what
//!    it was sent, those above it wait. So what waits between two operators of a worker is bounded,
//!    however much a batch makes.
//!
//! An operator that fails or panics is not called again: its input is thrown away and the
//! capability is kept at the failing epoch, so that nothing later can look complete.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use timely::container::NoopBuilder;
use timely::dataflow::channels::pact::{ParallelizationContract, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::InputHandleCore;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, Stream};
use timely::progress::frontier::MutableAntichain;

use crate::dataflow::exchange::{Chunk, SentWatermark, Split};
use crate::dataflow::metered::DataflowMetrics;
use crate::dataflow::operator::{FUEL_BYTES, Operator, Output, RowError};
use crate::dataflow::operators::arrange::Indexes;
use crate::memory::spill::StateMemory;
use crate::plan::node::Exchange;
use crate::plan::view_options::OnError;
use crate::state::delta::{CheckpointWriter, RestoredState};
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};
use crate::types::time::{Epoch, EventTime, Watermark};

/// A stream of chunks within one dataflow.
pub type ChunkStream<'scope> = Stream<'scope, u64, Chunk>;

/// What a driver needs to know of its surroundings. Cheap to clone.
#[derive(Clone)]
pub struct DriverContext {
    pub worker: usize,
    pub workers: usize,
    /// The epoch that the dataflow starts at: its initial content belongs to it.
    pub as_of: Epoch,
    /// Counts what operators do.
    pub metrics: Rc<DataflowMetrics>,
    /// Told once when the operator cannot go on.
    pub on_failure: Rc<dyn Fn(Error)>,
    /// What becomes of rows that fail.
    pub on_error: OnError,
    /// Told of rows that were left out, with their epoch.
    pub on_row_errors: Rc<dyn Fn(Epoch, Vec<RowError>)>,
    /// Told when an operator wants an epoch at a time.
    pub on_wake: Rc<dyn Fn(EventTime)>,
    /// One for all operators of the dataflow on this worker.
    pub backlog: Rc<Backlog>,
    /// Where the dataflow's operators meet for a checkpoint, numbered as in `backlog`.
    pub checkpoints: Rc<CheckpointPoint>,
    /// The state that the dataflow begins with; `None`: it begins empty.
    pub restore: Option<Arc<RestoredState>>,
    /// What its joins read instead of a copy of their own.
    pub indexes: Indexes,
    /// Of all state, and of what waits to be written.
    pub memory: Arc<StateMemory>,
}

/// What one operator of a dataflow hands over at a checkpoint.
#[derive(Debug)]
pub struct OperatorState {
    /// The operator's number in the dataflow, which is the same for the same plan.
    pub operator: usize,
    pub name: &'static str,
    pub writer: CheckpointWriter,
}

/// What all operators of a dataflow have handed over on one worker.
#[derive(Debug)]
pub struct HandedOver {
    /// Those that have anything.
    pub operators: Vec<OperatorState>,
    /// For how long the stream stood still.
    pub stall: Duration,
    /// How long it took, also while the stream went on in between.
    pub worked: Duration,
}

/// A checkpoint of one operator that is not complete.
struct HandingOver {
    writer: CheckpointWriter,
    /// The longest time for which the operator has worked on it, and all of it.
    stall: Duration,
    worked: Duration,
}

/// Where the operators of one dataflow meet for a checkpoint, on one worker.
#[derive(Debug, Default)]
pub struct CheckpointPoint {
    /// The epoch of the newest checkpoint that was asked for.
    at: Cell<Option<u64>>,
    operators: Cell<usize>,
    /// What has been handed over, of operators that have any.
    handed: RefCell<Vec<OperatorState>>,
    /// How many operators have handed over.
    count: Cell<usize>,
    /// How long the operators took at a time, which is what the stream had to wait, and altogether.
    stall: Cell<Duration>,
    worked: Cell<Duration>,
}

impl CheckpointPoint {
    /// Asks all operators for a checkpoint at `epoch`, which none of them has completed.
    pub fn ask(&self, epoch: Epoch) {
        assert!(self.at.get().is_none_or(|before| before < epoch.0), "checkpoints go up");
        self.at.set(Some(epoch.0));
        self.handed.borrow_mut().clear();
        self.count.set(0);
        self.stall.set(Duration::ZERO);
        self.worked.set(Duration::ZERO);
    }

    /// What all operators have handed over; `None` while some have not.
    pub fn complete(&self) -> Option<HandedOver> {
        let complete = self.count.get() == self.operators.get();
        complete.then(|| HandedOver {
            operators: std::mem::take(&mut *self.handed.borrow_mut()),
            stall: self.stall.get(),
            worked: self.worked.get(),
        })
    }

    fn enter(&self) {
        self.operators.set(self.operators.get() + 1);
    }

    fn hand_over(&self, state: OperatorState, stall: Duration, worked: Duration) {
        self.count.set(self.count.get() + 1);
        self.stall.set(self.stall.get() + stall);
        self.worked.set(self.worked.get() + worked);
        if !state.writer.is_empty() {
            self.handed.borrow_mut().push(state);
        }
    }
}

/// Which operators of a dataflow are behind with what they were sent. Operators are numbered as they
/// are added, so each one after those that it reads.
#[derive(Default)]
pub struct Backlog {
    behind: RefCell<Vec<bool>>,
}

impl Backlog {
    fn add(&self) -> usize {
        let mut behind = self.behind.borrow_mut();
        behind.push(false);
        behind.len() - 1
    }

    fn set(&self, operator: usize, is_behind: bool) {
        self.behind.borrow_mut()[operator] = is_behind;
    }

    /// Whether an operator added later is behind. The last of those that are never waits, so one
    /// always gets on.
    fn is_behind_after(&self, operator: usize) -> bool {
        self.behind.borrow()[operator + 1..].contains(&true)
    }
}

/// Adds `operator` to the dataflow, fed by `inputs` in port order; its output stream.
pub fn drive<'scope>(
    scope: Scope<'scope, u64>,
    inputs: Vec<(ChunkStream<'scope>, Exchange)>,
    operator: Box<dyn Operator>,
    context: DriverContext,
) -> ChunkStream<'scope> {
    let mut builder = OperatorBuilder::new(operator.name().to_owned(), scope);
    let activator = scope.activator_for(builder.operator_info().address);
    let ports: Vec<Box<dyn Port>> = inputs
        .into_iter()
        .map(|(stream, exchange)| -> Box<dyn Port> {
            if exchange == Exchange::Local {
                Box::new(builder.new_input(stream, Pipeline))
            } else {
                let on_failure = context.on_failure.clone();
                let split = Split::new(exchange, move |error| on_failure(error));
                let pact = timely::dataflow::channels::pact::DistributorPact(move |_| split);
                Box::new(new_exchanged(&mut builder, stream, pact))
            }
        })
        .collect();
    let (output, stream) = builder.new_output();
    let mut output: OutputBuilder<u64, NoopBuilder<Chunk>> = OutputBuilder::from(output);
    builder.build(move |mut capabilities| {
        let capability = capabilities.pop().expect("one output has one capability");
        let mut driver = Driver::new(operator, ports, capability, context);
        move |frontiers: &[MutableAntichain<u64>]| {
            let mut handle = output.activate();
            let more = driver.step(frontiers, &mut |capability, chunk| {
                handle.session_with_builder(capability).give_container(chunk);
            });
            if more {
                activator.activate();
            }
        }
    });
    stream
}

fn new_exchanged<'scope, P>(
    builder: &mut OperatorBuilder<'scope, u64>,
    stream: ChunkStream<'scope>,
    pact: P,
) -> InputHandleCore<u64, Chunk, P::Puller>
where
    P: ParallelizationContract<u64, Chunk>,
{
    builder.new_input(stream, pact)
}

/// An input handle, whatever its pact.
trait Port {
    /// Calls `take` with each chunk that has arrived and its epoch.
    fn receive(&mut self, take: &mut dyn FnMut(u64, Chunk));
}

impl<P> Port for InputHandleCore<u64, Chunk, P>
where
    P: timely::communication::Pull<timely::dataflow::channels::Message<u64, Chunk>>,
{
    fn receive(&mut self, take: &mut dyn FnMut(u64, Chunk)) {
        self.for_each(|capability, chunk| {
            let epoch = *capability.least().expect("a message is sent at one epoch");
            take(epoch, std::mem::take(chunk));
        });
    }
}

/// Where a driver sends chunks.
type Send<'a> = &'a mut dyn FnMut(&Capability<u64>, &mut Chunk);

/// What has arrived and has not been handed to the operator.
enum Arrived {
    Batch(usize, ChangeBatch),
    Watermark(usize, SentWatermark),
}

struct Driver {
    operator: Box<dyn Operator>,
    ports: Vec<Box<dyn Port>>,
    /// Held at `now`; everything is sent at it. Given up when the inputs end.
    capability: Option<Capability<u64>>,
    /// The lowest epoch that is not finished.
    now: u64,
    /// What has arrived, by epoch, none before `now`. No list is empty.
    stash: BTreeMap<u64, VecDeque<Arrived>>,
    /// Per port: the newest watermark of each sender; a port's watermark is their minimum, once
    /// all have spoken.
    watermarks: Vec<BTreeMap<usize, Watermark>>,
    /// Per port: the watermark that was found last.
    known: Vec<Option<Watermark>>,
    /// Per port: the watermark that moved in the current epoch.
    moved: Vec<Option<Watermark>>,
    /// What the operator has announced in the current epoch.
    announced: Option<Watermark>,
    /// Whether anything of epoch `now` has been handed to the operator.
    received: bool,
    /// `on_epoch(now)` has been called and is to be called again.
    unfinished: bool,
    /// Bytes sent in this step.
    sent_bytes: usize,
    failed: bool,
    /// Its number in the backlog, and in checkpoints.
    number: usize,
    /// The last checkpoint that it has handed over for, or begun to.
    checkpointed: Option<u64>,
    /// What it has handed over of a checkpoint that is not complete.
    handing_over: Option<HandingOver>,
    context: DriverContext,
}

impl Driver {
    fn new(
        operator: Box<dyn Operator>,
        ports: Vec<Box<dyn Port>>,
        mut capability: Capability<u64>,
        context: DriverContext,
    ) -> Driver {
        let now = context.as_of.0;
        capability.downgrade(&now);
        let watermarks = vec![BTreeMap::new(); ports.len()];
        let known = vec![None; ports.len()];
        let moved = vec![None; ports.len()];
        let stash = BTreeMap::new();
        context.checkpoints.enter();
        let mut driver = Driver {
            operator,
            ports,
            capability: Some(capability),
            now,
            stash,
            watermarks,
            known,
            moved,
            announced: None,
            received: false,
            unfinished: false,
            sent_bytes: 0,
            failed: false,
            number: context.backlog.add(),
            checkpointed: None,
            handing_over: None,
            context,
        };
        driver.restore();
        driver
    }

    /// Gives the operator the state that its dataflow begins with.
    fn restore(&mut self) {
        let Some(state) = &self.context.restore else { return };
        let mut reader = state.reader(self.number, self.context.worker, self.context.workers);
        self.guarded(|operator, _| operator.restore(&mut reader));
    }

    /// The epoch before `frontier` at which the operator has to hand over its state.
    fn checkpoint_due(&self, frontier: u64) -> Option<u64> {
        let at = self.context.checkpoints.at.get()?;
        (self.checkpointed != Some(at) && at < frontier).then_some(at)
    }

    /// Hands over the state at `epoch`, which is complete.
    fn checkpoint(&mut self, epoch: u64) {
        let mut writer = CheckpointWriter::within(self.context.memory.clone());
        #[expect(clippy::disallowed_methods, reason = "how long a checkpoint takes is not data")]
        let began = Instant::now();
        self.guarded(|operator, _| operator.checkpoint(Epoch(epoch), &mut writer));
        if self.failed {
            return;
        }
        assert!(self.handing_over.is_none(), "one checkpoint after the other");
        self.checkpointed = Some(epoch);
        let took = began.elapsed();
        let handing_over = HandingOver { writer, stall: took, worked: took };
        match handing_over.writer.is_open() {
            true => self.handing_over = Some(handing_over),
            false => self.complete_checkpoint(handing_over),
        }
    }

    /// Hands over more of a checkpoint that is not complete; true when that is to be done again at
    /// once.
    fn go_on_with_checkpoint(&mut self) -> bool {
        let Some(mut handing_over) = self.handing_over.take().filter(|_| !self.failed) else {
            return false;
        };
        #[expect(clippy::disallowed_methods, reason = "how long a checkpoint takes is not data")]
        let began = Instant::now();
        let mut gets_on = false;
        let writer = &mut handing_over.writer;
        self.guarded(|operator, _| {
            gets_on = operator.go_on_with_checkpoint(writer)?;
            Ok(())
        });
        let took = began.elapsed();
        handing_over.worked += took;
        handing_over.stall = handing_over.stall.max(took);
        if self.failed {
            return false;
        }
        if handing_over.writer.is_open() {
            self.handing_over = Some(handing_over);
            return gets_on;
        }
        self.complete_checkpoint(handing_over);
        false
    }

    fn complete_checkpoint(&self, done: HandingOver) {
        let HandingOver { writer, stall, worked } = done;
        let state = OperatorState { operator: self.number, name: self.operator.name(), writer };
        self.context.checkpoints.hand_over(state, stall, worked);
    }

    /// Takes in what has arrived and works; true when there is more to do at once.
    fn step(&mut self, frontiers: &[MutableAntichain<u64>], send: Send<'_>) -> bool {
        let frontier = frontiers
            .iter()
            .map(|f| f.frontier().first().copied().unwrap_or(u64::MAX))
            .min()
            .unwrap_or(u64::MAX);
        let (now, failed, stash) = (self.now, self.failed, &mut self.stash);
        for (port, handle) in self.ports.iter_mut().enumerate() {
            handle.receive(&mut |epoch, chunk| {
                assert!(failed || epoch >= now, "a batch of a finished epoch arrived");
                let chunk = if failed { Chunk::default() } else { chunk };
                let batches = chunk.batches.into_iter().map(|b| Arrived::Batch(port, b));
                let watermarks = chunk.watermarks.into_iter().map(|w| Arrived::Watermark(port, w));
                let mut arrived = batches.chain(watermarks).peekable();
                if arrived.peek().is_some() {
                    stash.entry(epoch).or_default().extend(arrived);
                }
            });
        }
        self.sent_bytes = 0;
        let more = if self.context.backlog.is_behind_after(self.number) {
            true
        } else {
            let more = self.work(frontier, send) && !self.failed;
            self.context.backlog.set(self.number, more);
            more
        };
        self.go_on_with_checkpoint() || more
    }

    /// Hands over what there is of the current epoch, and finishes epochs before `frontier`. True
    /// when it stopped because enough has been sent.
    fn work(&mut self, frontier: u64, send: Send<'_>) -> bool {
        // Inputs that have ended leave the epochs that have something, and the first one.
        let ended = frontier == u64::MAX;
        while !self.failed && self.capability.is_some() {
            if !self.hand_over(send) {
                return true;
            }
            if self.now >= frontier || self.failed {
                return false;
            }
            if !self.received && !self.unfinished {
                let last = match self.checkpoint_due(frontier) {
                    Some(at) => at.max(self.now),
                    None if ended => self.now,
                    None => frontier - 1,
                };
                let next = match self.stash.keys().next() {
                    Some(stashed) if ended => *stashed,
                    Some(stashed) => last.min(*stashed),
                    None => last,
                };
                self.move_to(next);
                if self.stash.contains_key(&next) {
                    continue;
                }
            }
            if !self.unfinished {
                self.hand_over_watermarks(send);
            }
            let epoch = Epoch(self.now);
            self.unfinished = self.call(send, |operator, out| operator.on_epoch(epoch, out));
            if self.unfinished {
                return true;
            }
            if self.failed {
                return false;
            }
            self.announce(send);
            self.received = false;
            if self.checkpoint_due(frontier).is_some_and(|at| at <= epoch.0) {
                self.checkpoint(epoch.0);
                if self.failed {
                    return false;
                }
            }
            if ended && self.stash.is_empty() {
                self.capability = None;
                self.now = u64::MAX;
                return false;
            }
            self.move_to(epoch.0 + 1);
            if self.sent_bytes >= FUEL_BYTES && self.now < frontier {
                return true;
            }
        }
        false
    }

    /// Makes `epoch` the current one.
    fn move_to(&mut self, epoch: u64) {
        self.capability.as_mut().expect("held until the inputs end").downgrade(&epoch);
        self.now = epoch;
    }

    /// Hands what there is of the current epoch to the operator; false when something is left
    /// because enough has been sent.
    fn hand_over(&mut self, send: Send<'_>) -> bool {
        let Some(mut arrived) = self.stash.remove(&self.now) else { return true };
        assert!(!self.unfinished, "all of an epoch has arrived before it is finished");
        self.received = true;
        while let Some(next) = arrived.pop_front() {
            match next {
                Arrived::Batch(port, batch) => {
                    self.call(send, |operator, out| operator.on_batch(port, batch, out));
                }
                Arrived::Watermark(port, sent) => {
                    if let Some(watermark) = self.port_watermark(port, sent) {
                        self.moved[port] = Some(watermark);
                    }
                }
            }
            if self.sent_bytes >= FUEL_BYTES && !arrived.is_empty() && !self.failed {
                self.stash.insert(self.now, arrived);
                return false;
            }
        }
        true
    }

    /// Hands over the watermarks that moved in the current epoch, all of which has arrived.
    fn hand_over_watermarks(&mut self, send: Send<'_>) {
        for port in 0..self.moved.len() {
            if let Some(watermark) = self.moved[port].take() {
                self.call(send, |operator, out| operator.on_watermark(port, watermark, out));
            }
        }
    }

    /// Sends on what the operator has announced in the epoch that ends.
    fn announce(&mut self, send: Send<'_>) {
        if let Some(watermark) = self.announced.take() {
            let DriverContext { worker, workers, .. } = self.context;
            let watermarks = vec![SentWatermark::to_all(watermark, worker, workers)];
            let capability = self.capability.as_ref().expect("held until the inputs end");
            send(capability, &mut Chunk { batches: vec![], watermarks });
        }
    }

    /// The port's watermark when `sent` moved it.
    fn port_watermark(&mut self, port: usize, sent: SentWatermark) -> Option<Watermark> {
        let senders = &mut self.watermarks[port];
        let newest = senders.entry(sent.from).or_insert(sent.watermark);
        *newest = sent.watermark.max(*newest);
        // A local edge has one sender; `copies` then is still the number of workers.
        let expected = if sent.copies > 1 { 1 } else { self.context.workers };
        if senders.len() < expected {
            return None;
        }
        let now = senders.values().min().copied();
        let moved = now > self.known[port];
        self.known[port] = now.max(self.known[port]);
        moved.then_some(now).flatten()
    }

    /// Calls the operator and sends what it emits; a failure ends its work. True when the operator
    /// says that there is more to come.
    fn call(
        &mut self,
        send: Send<'_>,
        event: impl FnOnce(&mut dyn Operator, &mut Output) -> Result<()>,
    ) -> bool {
        let Some(out) = self.guarded(event) else { return false };
        let more = out.is_unfinished();
        self.sent_bytes += out.bytes();
        self.send(out, send);
        more
    }

    /// Calls the operator; what it emits, or nothing when it cannot go on.
    fn guarded(
        &mut self,
        event: impl FnOnce(&mut dyn Operator, &mut Output) -> Result<()>,
    ) -> Option<Output> {
        if self.failed {
            return None;
        }
        let mut out = Output::default();
        let operator = &mut *self.operator;
        let result = catch_unwind(AssertUnwindSafe(|| event(operator, &mut out)));
        let error = match result {
            Ok(Ok(())) => match self.refused(&mut out) {
                None => return Some(out),
                Some(error) => error,
            },
            Ok(Err(error)) => error,
            Err(panic) => Error::internal(format!(
                "operator {} panicked: {}",
                self.operator.name(),
                panic_text(panic.as_ref())
            )),
        };
        self.failed = true;
        self.stash.clear();
        (self.context.on_failure)(error);
        None
    }

    /// The error of a row that failed, when no row may.
    fn refused(&self, out: &mut Output) -> Option<Error> {
        if self.context.on_error != OnError::Fail || out.row_errors.is_empty() {
            return None;
        }
        let RowError { error, expression, row, .. } = out.take_row_errors().into_iter().next()?;
        let detail = format!("Row {row} failed in {expression}.");
        Some(
            error.detail(detail).hint(
                "The view was made WITH (on_error = 'fail'). Mend the row and replace the view.",
            ),
        )
    }

    fn send(&mut self, mut out: Output, send: Send<'_>) {
        let row_errors = out.take_row_errors();
        if !row_errors.is_empty() {
            (self.context.on_row_errors)(Epoch(self.now), row_errors);
        }
        let batches: Vec<ChangeBatch> = out.take_batches();
        if let Some(at) = out.take_wake_at() {
            (self.context.on_wake)(at);
        }
        self.announced = self.announced.max(out.take_watermark());
        if !batches.is_empty() {
            let capability = self.capability.as_ref().expect("held until the inputs end");
            send(capability, &mut Chunk { batches, watermarks: vec![] });
        }
    }
}

/// What a panic said.
pub fn panic_text(panic: &(dyn std::any::Any + std::marker::Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use timely::dataflow::operators::probe::Probe;

    use super::*;
    use crate::dataflow::operator::Stateless;
    use crate::dataflow::script::schema;
    use crate::observe::clock::Clock;
    use crate::state::delta::{CheckpointReader, CheckpointWriter};

    const BATCHES: usize = 1000;

    fn rows() -> ChangeBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..8192));
        let rows = RecordBatch::try_new(schema("v bigint"), vec![column]);
        ChangeBatch::inserts(rows.expect("one column"))
    }

    /// Batches between two operators: how many there are, and have been at most.
    #[derive(Default)]
    struct Between {
        now: Cell<usize>,
        most: Cell<usize>,
    }

    impl Between {
        fn add(&self) {
            self.now.set(self.now.get() + 1);
            self.most.set(self.most.get().max(self.now.get()));
        }

        fn take(&self) {
            self.now.set(self.now.get() - 1);
        }
    }

    /// Emits `BATCHES` batches for its first epoch, as fuel allows.
    struct Burst {
        left: usize,
        out: Rc<Between>,
    }

    impl Operator for Burst {
        fn name(&self) -> &'static str {
            "burst"
        }

        fn on_batch(&mut self, _: usize, _: ChangeBatch, _: &mut Output) -> Result<()> {
            Ok(())
        }

        fn on_watermark(&mut self, _: usize, _: Watermark, _: &mut Output) -> Result<()> {
            Ok(())
        }

        fn on_epoch(&mut self, _: Epoch, out: &mut Output) -> Result<()> {
            while self.left > 0 && !out.is_full() {
                self.left -= 1;
                self.out.add();
                out.emit(rows());
            }
            if self.left > 0 {
                out.unfinished();
            }
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

    /// Gives each batch three times.
    struct Thrice {
        input: Rc<Between>,
        out: Rc<Between>,
    }

    impl Stateless for Thrice {
        fn name(&self) -> &'static str {
            "thrice"
        }

        fn on_batch(&mut self, batch: ChangeBatch, out: &mut Output) -> Result<()> {
            self.input.take();
            for _ in 0..3 {
                self.out.add();
                out.emit(batch.clone());
            }
            Ok(())
        }
    }

    /// Takes batches.
    struct Sink {
        input: Rc<Between>,
        taken: Rc<Cell<usize>>,
    }

    impl Stateless for Sink {
        fn name(&self) -> &'static str {
            "sink"
        }

        fn on_batch(&mut self, _: ChangeBatch, _: &mut Output) -> Result<()> {
            self.input.take();
            self.taken.set(self.taken.get() + 1);
            Ok(())
        }
    }

    #[test]
    fn what_waits_between_operators_is_bounded_however_much_they_make() {
        let (most, taken) = timely::execute_directly(|worker| {
            let (first, second): (Rc<Between>, Rc<Between>) = Default::default();
            let taken = Rc::new(Cell::new(0));
            let context = DriverContext {
                metrics: Rc::new(DataflowMetrics::new(Clock::for_test())),
                worker: 0,
                workers: 1,
                as_of: Epoch(3),
                on_failure: Rc::new(|error| panic!("{error:?}")),
                on_error: OnError::default(),
                on_row_errors: Rc::new(|_, _| {}),
                on_wake: Rc::new(|_| {}),
                backlog: Rc::default(),
                checkpoints: Rc::default(),
                restore: None,
                indexes: Indexes::default(),
                memory: Arc::new(StateMemory::new(std::env::temp_dir())),
            };
            let probe = worker.dataflow::<u64, _, _>(|scope| {
                let burst = Burst { left: BATCHES, out: first.clone() };
                let burst = drive(scope, vec![], Box::new(burst), context.clone());
                let thrice = Thrice { input: first.clone(), out: second.clone() };
                let input = vec![(burst, Exchange::Local)];
                let thrice = drive(scope, input, Box::new(thrice), context.clone());
                let sink = Sink { input: second.clone(), taken: taken.clone() };
                let sink = drive(scope, vec![(thrice, Exchange::Local)], Box::new(sink), context);
                sink.probe().0
            });
            let mut turns = 0;
            while !probe.done() {
                worker.step();
                turns += 1;
                assert!(turns < 10_000, "the dataflow comes to its end");
            }
            ([first.most.get(), second.most.get()], taken.get())
        });
        assert_eq!(taken, 3 * BATCHES);
        // What one step sends: 128 batches of 64 KiB, and two of three more.
        let step = FUEL_BYTES / rows().size_bytes() + 2;
        assert!(most.iter().all(|most| *most <= 2 * step), "{most:?} batches waited");
    }
}
