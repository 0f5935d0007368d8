//! Runs one operator: owns its capability, aligns epochs, contains its failures.
//!
//! 1. Batches of the current epoch (the lowest that an input may still carry) are handed to the
//!    operator at once; batches of later epochs are stashed.
//! 2. When the input frontier passes epochs, each of them that has something is finished in order:
//!    stashed batches, then the watermarks that moved in it, then `on_epoch`. A run of empty epochs
//!    is finished by one `on_epoch` of its last.
//!    A watermark is of all rows up to the end of its epoch, so it is handed over after them, and
//!    what the operator announces leaves after all that it sends for the epoch.
//! 3. The one capability is then moved up to the frontier, which lets the epochs pass downstream.
//!
//! An operator that fails or panics is not called again: its input is thrown away and the
//! capability is kept at the failing epoch, so that nothing later can look complete.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

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
use crate::plan::view_options::OnError;
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
    /// Told once when the operator cannot go on.
    pub on_failure: Rc<dyn Fn(Error)>,
    /// What becomes of rows that fail.
    pub on_error: OnError,
    /// Told of rows that were left out.
    pub on_row_errors: Rc<dyn Fn(Vec<RowError>)>,
    /// Told when an operator wants an epoch at a time.
    pub on_wake: Rc<dyn Fn(EventTime)>,
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
    /// Per port: the watermark that moved in the current epoch.
    moved: Vec<Option<Watermark>>,
    /// What the operator has announced in the current epoch.
    announced: Option<Watermark>,
    /// Whether anything of epoch `now` has been handed to the operator.
    received: bool,
    failed: bool,
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
        let moved = vec![None; ports.len()];
        let stash = BTreeMap::new();
        Driver {
            operator,
            ports,
            capability: Some(capability),
            now,
            stash,
            watermarks,
            moved,
            announced: None,
            received: false,
            failed: false,
            context,
        }
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
            let last = if ended { self.now } else { frontier - 1 };
            let next = match self.stash.keys().next() {
                Some(stashed) if ended => *stashed,
                Some(stashed) => last.min(*stashed),
                None => last,
            };
            let epoch = if self.received { self.now } else { next };
            self.move_to(epoch, send);
            for port in 0..self.moved.len() {
                if let Some(watermark) = self.moved[port].take() {
                    self.call(send, |operator, out| operator.on_watermark(port, watermark, out));
                }
            }
            self.call(send, |operator, out| operator.on_epoch(Epoch(epoch), out));
            if self.failed {
                return;
            }
            self.announce(send);
            self.received = false;
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
                self.moved[port] = Some(watermark);
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
        if self.failed {
            return;
        }
        let mut out = Output::default();
        let operator = &mut *self.operator;
        let result = catch_unwind(AssertUnwindSafe(|| event(operator, &mut out)));
        let error = match result {
            Ok(Ok(())) => match self.refused(&mut out) {
                None => return self.send(out, send),
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
            (self.context.on_row_errors)(row_errors);
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
