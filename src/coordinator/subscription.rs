//! From the workers' shares of a query's changes to one feed in epoch order.
//!
//! Workers hand over the changes of an epoch and tell when they have finished it; when all have,
//! the epoch goes to the subscriber as one consolidated step. What waits for a slow subscriber is
//! bounded in bytes: beyond that the subscription ends with an error, and nothing else is harmed.
//! Epochs whose writes are not durable yet wait at a [`Gate`], and the workers do not.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arrow::datatypes::SchemaRef;
use tokio::sync::mpsc;

use crate::dataflow::operators::subscribe::{SubscriptionEvent, SubscriptionSender};
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result, SqlState};
use crate::types::time::Epoch;

/// Bytes that may wait for one subscriber.
const WAITING_BYTES_MAX: usize = 256 << 20;

/// The first epoch that nobody may be shown yet, because a write in it is not durable.
#[derive(Clone, Debug)]
pub struct Gate(Arc<AtomicU64>);

impl Gate {
    /// Nothing is held back.
    pub fn open() -> Gate {
        Gate(Arc::new(AtomicU64::new(u64::MAX)))
    }

    /// Holds `epoch` and all later ones back; `None`: nothing. Whoever may have been held back
    /// before is told with [`FeedSender::release`].
    pub fn hold_from(&self, epoch: Option<Epoch>) {
        self.0.store(epoch.map_or(u64::MAX, |epoch| epoch.0), Ordering::Release);
    }

    fn limit(&self) -> Epoch {
        Epoch(self.0.load(Ordering::Acquire))
    }
}

/// Changes of a query from one epoch on. Dropping it ends the dataflow behind it.
pub struct Subscription {
    /// The epoch of the content that it begins with.
    pub as_of: Epoch,
    /// In epoch order; each step is complete.
    pub changes: Steps,
}

/// One step of a subscription.
#[derive(Debug)]
pub struct SubscriptionStep {
    /// Everything up to and including this epoch has been sent with this step.
    pub epoch: Epoch,
    pub changes: Vec<ChangeBatch>,
}

/// The receiving end.
pub struct Steps {
    receiver: mpsc::UnboundedReceiver<Result<SubscriptionStep>>,
    waiting_bytes: Arc<AtomicUsize>,
    on_drop: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Steps {
    /// The next step; `None` after an error.
    pub async fn recv(&mut self) -> Option<Result<SubscriptionStep>> {
        let step = self.receiver.recv().await;
        if let Some(Ok(step)) = &step {
            self.waiting_bytes.fetch_sub(step_bytes(step), Ordering::Relaxed);
        }
        step
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        if let Some(on_drop) = self.on_drop.take() {
            on_drop();
        }
    }
}

/// The coordinator's and the workers' end.
#[derive(Clone)]
pub struct FeedSender(Arc<Mutex<Feed>>);

struct Feed {
    schema: SchemaRef,
    gate: Gate,
    /// Per worker: the lowest epoch that it may still change.
    frontiers: Vec<Epoch>,
    /// All epochs before this one have been sent.
    sent: Epoch,
    /// This epoch and later ones are not sent.
    end: Epoch,
    pending: BTreeMap<Epoch, Vec<ChangeBatch>>,
    pending_bytes: usize,
    /// `None` once the subscription has ended.
    sender: Option<mpsc::UnboundedSender<Result<SubscriptionStep>>>,
    waiting_bytes: Arc<AtomicUsize>,
}

/// A feed that starts at `as_of` with `workers` shares, behind `gate`. `on_drop` runs when the subscriber goes.
pub fn channel(
    schema: SchemaRef,
    workers: usize,
    as_of: Epoch,
    gate: Gate,
    on_drop: impl FnOnce() + Send + Sync + 'static,
) -> (FeedSender, Subscription) {
    let waiting_bytes = Arc::new(AtomicUsize::new(0));
    // Bounded by bytes, see `WAITING_BYTES_MAX`.
    let (sender, receiver) = mpsc::unbounded_channel();
    let feed = Feed {
        schema,
        gate,
        frontiers: vec![as_of; workers],
        sent: as_of,
        end: Epoch(u64::MAX),
        pending: BTreeMap::new(),
        pending_bytes: 0,
        sender: Some(sender),
        waiting_bytes: waiting_bytes.clone(),
    };
    let steps = Steps { receiver, waiting_bytes, on_drop: Some(Box::new(on_drop)) };
    (FeedSender(Arc::new(Mutex::new(feed))), Subscription { as_of, changes: steps })
}

impl FeedSender {
    /// For the operators.
    pub fn for_workers(&self) -> SubscriptionSender {
        let feed = self.0.clone();
        SubscriptionSender::new(move |event| {
            feed.lock().expect("the feed does not panic").receive(event);
        })
    }

    /// Sends what the gate held back.
    pub fn release(&self) {
        self.0.lock().expect("the feed does not panic").send_complete();
    }

    /// Ends the subscription in front of `epoch`, once it has come so far.
    pub fn end_before(&self, epoch: Epoch) {
        let mut feed = self.0.lock().expect("the feed does not panic");
        feed.end = feed.end.min(epoch);
        feed.send_complete();
    }

    /// Ends the subscription with an error.
    pub fn fail(&self, error: Error) {
        self.0.lock().expect("the feed does not panic").fail(error);
    }
}

impl Feed {
    fn receive(&mut self, event: SubscriptionEvent) {
        if self.sender.is_none() {
            return;
        }
        match event {
            SubscriptionEvent::Changes { epoch, changes } => {
                self.pending_bytes += changes.iter().map(ChangeBatch::size_bytes).sum::<usize>();
                self.pending.entry(epoch).or_default().extend(changes);
                if self.pending_bytes + self.waiting_bytes.load(Ordering::Relaxed)
                    > WAITING_BYTES_MAX
                {
                    self.fail(
                        Error::user(
                            SqlState::PROGRAM_LIMIT_EXCEEDED,
                            "the subscriber is too slow: too many changes wait for it",
                        )
                        .hint("Read faster, or subscribe to a query that changes less."),
                    );
                }
            }
            SubscriptionEvent::Frontier { worker, frontier } => {
                if frontier > self.frontiers[worker] {
                    self.frontiers[worker] = frontier;
                    self.send_complete();
                }
            }
        }
    }

    fn send_complete(&mut self) {
        if self.sender.is_none() {
            return;
        }
        let computed = *self.frontiers.iter().min().expect("there is at least one worker");
        let complete = computed.min(self.gate.limit()).min(self.end);
        if complete <= self.sent {
            if self.end <= self.sent {
                self.finish();
            }
            return;
        }
        let rest = self.pending.split_off(&complete);
        let done = std::mem::replace(&mut self.pending, rest);
        let mut last_sent = None;
        for (epoch, changes) in done {
            self.pending_bytes -= changes.iter().map(ChangeBatch::size_bytes).sum::<usize>();
            last_sent = Some(epoch);
            match self.consolidate(changes) {
                Ok(changes) => self.send(SubscriptionStep { epoch, changes }),
                Err(error) => return self.fail(error),
            }
        }
        // A dataflow over constants alone finishes every epoch there will ever be.
        let last = Epoch(complete.0 - 1);
        if last_sent != Some(last) && complete.0 != u64::MAX {
            self.send(SubscriptionStep { epoch: last, changes: vec![] });
        } else if last_sent.is_none() {
            self.send(SubscriptionStep { epoch: self.sent, changes: vec![] });
        }
        self.sent = complete;
        if complete == self.end {
            self.finish();
        }
    }

    /// Nothing more comes.
    fn finish(&mut self) {
        self.sender = None;
        self.pending = BTreeMap::new();
        self.pending_bytes = 0;
    }

    /// Changes of several workers may cancel.
    fn consolidate(&self, changes: Vec<ChangeBatch>) -> Result<Vec<ChangeBatch>> {
        if changes.len() == 1 || changes.iter().all(ChangeBatch::all_inserts) {
            return Ok(changes);
        }
        let all = ChangeBatch::concat(&self.schema, &changes)?.consolidate()?;
        Ok(if all.is_empty() { vec![] } else { vec![all] })
    }

    fn send(&mut self, step: SubscriptionStep) {
        let bytes = step_bytes(&step);
        if let Some(sender) = &self.sender {
            self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
            // The subscriber has gone: its `Steps` told the coordinator.
            let _ = sender.send(Ok(step));
        }
    }

    fn fail(&mut self, error: Error) {
        if let Some(sender) = self.sender.take() {
            let _ = sender.send(Err(error));
        }
        self.finish();
    }
}

fn step_bytes(step: &SubscriptionStep) -> usize {
    step.changes.iter().map(ChangeBatch::size_bytes).sum()
}
