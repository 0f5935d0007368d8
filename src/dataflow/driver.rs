//! Runs one operator: owns its capability, aligns epochs, contains its failures.
//!
//! 1. Batches of the current epoch (the lowest that an input may still carry) are handed to the
//!    operator at once; batches of later epochs are stashed.
//! 2. When the input frontier passes epochs, each of them that has something is finished in order:
//!    stashed batches, then `on_epoch`. A run of empty epochs is finished by one `on_epoch` of its
//!    last.
//! 3. After the `on_epoch` of an epoch at which a checkpoint was asked for, and before anything
//!    later, the operator hands over what has changed ([`CheckpointPoint`]).
//! 4. The one capability is then moved up to the frontier, which lets the epochs pass downstream.
//!
//! An operator that fails or panics is not called again: its input is thrown away and the
//! capability is kept at the failing epoch, so that nothing later can look complete.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
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
use crate::dataflow::operator::{Operator, Output, RowError};
use crate::plan::node::Exchange;
use crate::state::delta::{CheckpointWriter, RestoredState};
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};
use crate::types::time::{Epoch, Watermark};

/// A stream of chunks within one dataflow.
pub type ChunkStream<'scope> = Stream<'scope, u64, Chunk>;

/// What a driver needs to know of its surroundings. Cheap to clone.
#[derive(Clone)]
pub struct DriverContext {
    pub worker: usize,
    pub workers: usize,
    /// The epoch that the dataflow starts at: its initial content belongs to it.
    pub as_of: Epoch,
    /// Told once when the operator cannot go on.
    pub on_failure: Rc<dyn Fn(Error)>,
    /// Told of rows that were left out, with their epoch.
    pub on_row_errors: Rc<dyn Fn(Epoch, Vec<RowError>)>,
    /// Where the dataflow's operators meet for a checkpoint.
    pub checkpoints: Rc<CheckpointPoint>,
    /// The state that the dataflow begins with; `None`: it begins empty.
    pub restore: Option<Arc<RestoredState>>,
}

/// What one operator of a dataflow hands over at a checkpoint.
#[derive(Debug)]
pub struct OperatorState {
    /// The operator's place in the dataflow, which is the same for the same plan.
    pub operator: usize,
    pub name: &'static str,
    pub writer: CheckpointWriter,
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
    /// How long the operators took, which is what the stream had to wait.
    stall: Cell<Duration>,
}

impl CheckpointPoint {
    /// Asks all operators for a checkpoint at `epoch`, which none of them has completed.
    pub fn ask(&self, epoch: Epoch) {
        assert!(self.at.get().is_none_or(|before| before < epoch.0), "checkpoints go up");
        self.at.set(Some(epoch.0));
        self.handed.borrow_mut().clear();
        self.count.set(0);
        self.stall.set(Duration::ZERO);
    }

    /// What all operators have handed over, and how long they took; `None` while some have not.
    pub fn complete(&self) -> Option<(Vec<OperatorState>, Duration)> {
        let complete = self.count.get() == self.operators.get();
        complete.then(|| (std::mem::take(&mut *self.handed.borrow_mut()), self.stall.get()))
    }

    /// The next operator's index.
    fn enter(&self) -> usize {
        let index = self.operators.get();
        self.operators.set(index + 1);
        index
    }

    fn hand_over(&self, state: OperatorState, took: Duration) {
        self.count.set(self.count.get() + 1);
        self.stall.set(self.stall.get() + took);
        if !state.writer.is_empty() {
            self.handed.borrow_mut().push(state);
        }
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
            driver.step(frontiers, &mut |capability, chunk| {
                handle.session_with_builder(capability).give_container(chunk);
            });
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

struct Driver {
    operator: Box<dyn Operator>,
    ports: Vec<Box<dyn Port>>,
    /// Held at `now`; everything is sent at it. Given up when the inputs end.
    capability: Option<Capability<u64>>,
    /// The lowest epoch that is not finished.
    now: u64,
    /// Chunks of epochs after `now`, with their ports.
    stash: BTreeMap<u64, Vec<(usize, Chunk)>>,
    /// Per port: the newest watermark of each sender; a port's watermark is their minimum, once
    /// all have spoken.
    watermarks: Vec<BTreeMap<usize, Watermark>>,
    /// Whether anything of epoch `now` has been handed to the operator.
    received: bool,
    failed: bool,
    /// The operator's place in the dataflow.
    index: usize,
    /// The last checkpoint that it has handed over for.
    checkpointed: Option<u64>,
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
        let stash = BTreeMap::new();
        let index = context.checkpoints.enter();
        let mut driver = Driver {
            operator,
            ports,
            capability: Some(capability),
            now,
            stash,
            watermarks,
            received: false,
            failed: false,
            index,
            checkpointed: None,
            context,
        };
        driver.restore();
        driver
    }

    /// Gives the operator the state that its dataflow begins with.
    fn restore(&mut self) {
        let Some(state) = &self.context.restore else { return };
        let mut reader = state.reader(self.index, self.context.worker, self.context.workers);
        self.guarded(|operator, _| operator.restore(&mut reader));
    }

    /// The epoch before `frontier` at which the operator has to hand over its state.
    fn checkpoint_due(&self, frontier: u64) -> Option<u64> {
        let at = self.context.checkpoints.at.get()?;
        (self.checkpointed != Some(at) && at < frontier).then_some(at)
    }

    /// Hands over the state at `epoch`, which is complete.
    fn checkpoint(&mut self, epoch: u64) {
        assert!(!self.received, "a checkpoint follows the end of an epoch");
        let mut writer = CheckpointWriter::default();
        #[expect(clippy::disallowed_methods, reason = "how long a checkpoint takes is not data")]
        let began = Instant::now();
        self.guarded(|operator, _| operator.checkpoint(Epoch(epoch), &mut writer));
        if self.failed {
            return;
        }
        self.checkpointed = Some(epoch);
        let state = OperatorState { operator: self.index, name: self.operator.name(), writer };
        self.context.checkpoints.hand_over(state, began.elapsed());
    }

    fn step(&mut self, frontiers: &[MutableAntichain<u64>], send: Send<'_>) {
        let frontier = frontiers
            .iter()
            .map(|f| f.frontier().first().copied().unwrap_or(u64::MAX))
            .min()
            .unwrap_or(u64::MAX);
        let mut arrived = Vec::new();
        for (port, handle) in self.ports.iter_mut().enumerate() {
            handle.receive(&mut |epoch, chunk| arrived.push((epoch, port, chunk)));
        }
        if self.failed {
            return;
        }
        for (epoch, port, chunk) in arrived {
            assert!(epoch >= self.now, "a batch of a finished epoch arrived");
            if epoch == self.now {
                self.on_chunk(port, chunk, send);
            } else {
                self.stash.entry(epoch).or_default().push((port, chunk));
            }
        }
        if frontier > self.now && !self.failed {
            self.finish_epochs(frontier, send);
        }
    }

    /// Finishes all epochs before `frontier`, then takes up what is stashed for `frontier`.
    fn finish_epochs(&mut self, frontier: u64, send: Send<'_>) {
        // Inputs that have ended (constants alone) leave the epochs that have something, and the
        // first one.
        let ended = frontier == u64::MAX;
        while self.now < frontier {
            let checkpoint = self.checkpoint_due(frontier);
            let last = match checkpoint {
                Some(at) => at.max(self.now),
                None if ended => self.now,
                None => frontier - 1,
            };
            let next = match self.stash.keys().next() {
                Some(stashed) if ended => *stashed,
                Some(stashed) => last.min(*stashed),
                None => last,
            };
            let epoch = if self.received { self.now } else { next };
            self.move_to(epoch, send);
            self.call(send, |operator, out| operator.on_epoch(Epoch(epoch), out));
            if self.failed {
                return;
            }
            self.received = false;
            if checkpoint.is_some_and(|at| at <= epoch) {
                self.checkpoint(epoch);
                if self.failed {
                    return;
                }
            }
            self.now = epoch + 1;
            if ended && self.stash.is_empty() {
                self.capability = None;
                self.now = u64::MAX;
                return;
            }
        }
        self.move_to(frontier, send);
    }

    /// Makes `epoch` the current one and hands over what was stashed for it.
    fn move_to(&mut self, epoch: u64, send: Send<'_>) {
        self.capability.as_mut().expect("held until the inputs end").downgrade(&epoch);
        self.now = epoch;
        for (port, chunk) in self.stash.remove(&epoch).unwrap_or_default() {
            self.on_chunk(port, chunk, send);
        }
    }

    fn on_chunk(&mut self, port: usize, chunk: Chunk, send: Send<'_>) {
        self.received = true;
        for batch in chunk.batches {
            self.call(send, |operator, out| operator.on_batch(port, batch, out));
        }
        for sent in chunk.watermarks {
            if let Some(watermark) = self.port_watermark(port, sent) {
                self.call(send, |operator, out| operator.on_watermark(port, watermark, out));
            }
        }
    }

    /// The port's watermark when `sent` moved it.
    fn port_watermark(&mut self, port: usize, sent: SentWatermark) -> Option<Watermark> {
        let senders = &mut self.watermarks[port];
        let before = senders.values().min().copied();
        let known = senders.entry(sent.from).or_insert(sent.watermark);
        *known = sent.watermark.max(*known);
        // A local edge has one sender; `copies` then is still the number of workers.
        let expected = if sent.copies > 1 { 1 } else { self.context.workers };
        let now = senders.values().min().copied();
        (senders.len() >= expected && before != now).then_some(now).flatten()
    }

    /// Calls the operator and sends what it emits; a failure ends its work.
    fn call(
        &mut self,
        send: Send<'_>,
        event: impl FnOnce(&mut dyn Operator, &mut Output) -> Result<()>,
    ) {
        if let Some(out) = self.guarded(event) {
            self.send(out, send);
        }
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
            Ok(Ok(())) => return Some(out),
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

    fn send(&mut self, mut out: Output, send: Send<'_>) {
        let row_errors = out.take_row_errors();
        if !row_errors.is_empty() {
            (self.context.on_row_errors)(Epoch(self.now), row_errors);
        }
        let batches: Vec<ChangeBatch> = out.take_batches();
        let watermarks = out
            .take_watermark()
            .map(|watermark| SentWatermark {
                from: self.context.worker,
                copies: self.context.workers as u32,
                watermark,
            })
            .into_iter()
            .collect::<Vec<_>>();
        if !batches.is_empty() || !watermarks.is_empty() {
            let capability = self.capability.as_ref().expect("held until the inputs end");
            send(capability, &mut Chunk { batches, watermarks });
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
