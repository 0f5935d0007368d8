//! What the coordinator's thread reads: requests of clients, reports of workers, news of the
//! storage.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use crossbeam_channel::{Receiver, after, never, select};
use tokio::sync::oneshot;

use super::checkpoints::CheckpointFact;
use super::cloning::CloneJob;
use super::creation::{Creation, Install};
use super::durable::{SavepointJob, StorageEvent};
use super::figures::Figures;
use super::flushes::SourceStatus;
use super::reads::{Pinned, RawView, Span};
use super::sinks::SinkFact;
use super::writes::WaitingWrite;
use crate::catalog::object::Object;
use crate::catalog::snapshot::Change;
use crate::coordinator::errors::ErrorRecord;
use crate::coordinator::locks::LockId;
use crate::coordinator::subscription::Subscription;
use crate::dataflow::worker::Report;
use crate::plan::node::Plan;
use crate::types::error::{Error, Result};
use crate::types::id::ObjectId;
use crate::types::time::{At, Epoch, EventTime, Watermark};

pub(super) type Reply<T> = oneshot::Sender<Result<T>>;

/// What the coordinator's thread reads.
pub(super) struct Queues {
    pub(super) from_clients: Receiver<Request>,
    pub(super) from_workers: Receiver<Report>,
    /// A few for each object of the log and each checkpoint.
    pub(super) from_storage: Receiver<StorageEvent>,
}

pub(super) enum Event {
    Client(Request),
    Worker(Report),
    Storage(StorageEvent),
}

impl Queues {
    /// The next event, waiting for it until `wake` has passed; `None` when it has.
    pub(super) fn wait(&self, wake: Option<Duration>) -> Option<Event> {
        let timeout = wake.map_or_else(never, after);
        select! {
            recv(self.from_workers) -> report => Some(match report {
                Ok(report) => Event::Worker(report),
                // The workers go after this thread.
                Err(_) => Event::Client(Request::Stop),
            }),
            recv(self.from_storage) -> event => Some(match event {
                Ok(event) => Event::Storage(event),
                // Kept open by this thread.
                Err(_) => Event::Client(Request::Stop),
            }),
            recv(self.from_clients) -> request => {
                Some(Event::Client(request.unwrap_or(Request::Stop)))
            }
            recv(timeout) -> _ => None,
        }
    }

    /// The next event that is there already: clients last, for the others end what they wait for.
    pub(super) fn next(&self) -> Option<Event> {
        let stored = self.from_storage.try_recv().ok().map(Event::Storage);
        let report = stored.or_else(|| self.from_workers.try_recv().ok().map(Event::Worker));
        report.or_else(|| self.from_clients.try_recv().ok().map(Event::Client))
    }
}

pub(super) enum Request {
    Create {
        creation: Box<Creation>,
        install: Install,
        reply: Reply<ObjectId>,
    },
    /// Builds the dataflows of views that are in the catalog already.
    Restore {
        views: Vec<(Arc<Object>, Plan, Reply<ObjectId>)>,
    },
    /// The object is in the catalog, and cannot be built.
    RestoreFailed {
        object: Arc<Object>,
        error: Error,
    },
    Checkpoint {
        reply: Reply<()>,
    },
    Checkpoints {
        reply: oneshot::Sender<Vec<CheckpointFact>>,
    },
    Savepoint(SavepointJob),
    Sinks {
        reply: oneshot::Sender<Vec<SinkFact>>,
    },
    /// So many ids that no object has.
    ReserveIds {
        count: u64,
        reply: Reply<ObjectId>,
    },
    Clone {
        job: Box<CloneJob>,
        reply: Reply<()>,
    },
    Apply {
        changes: Vec<Change>,
        reply: Reply<()>,
    },
    Read {
        objects: Vec<ObjectId>,
        reply: Reply<RawView>,
    },
    ReadAt {
        objects: Vec<ObjectId>,
        at: At,
        reply: Reply<RawView>,
    },
    Epochs {
        reply: oneshot::Sender<Vec<(Epoch, EventTime)>>,
    },
    Pin {
        objects: Vec<ObjectId>,
        reply: oneshot::Sender<HashMap<ObjectId, Pinned>>,
    },
    Lookup {
        table: ObjectId,
        keys: RecordBatch,
        reply: Reply<RecordBatch>,
    },
    Lock {
        id: LockId,
        tables: Vec<ObjectId>,
        reply: oneshot::Sender<()>,
    },
    Unlock(LockId),
    Write {
        lock: Option<LockId>,
        write: WaitingWrite,
    },
    Subscribe {
        plan: Box<Plan>,
        span: Span,
        reply: Reply<Subscription>,
    },
    Unsubscribe(ObjectId),
    Flush {
        reply: Reply<Epoch>,
    },
    Sources {
        reply: oneshot::Sender<Vec<SourceStatus>>,
    },
    Figures {
        objects: Vec<ObjectId>,
        partial_matches: bool,
        reply: oneshot::Sender<Figures>,
    },
    /// Memory is short, or no longer so.
    Relieve {
        reply: oneshot::Sender<()>,
    },
    #[cfg(test)]
    Tamper(ObjectId, crate::types::change::ChangeBatch),
    Errors {
        reply: oneshot::Sender<Vec<ErrorRecord>>,
    },
    Watermarks {
        reply: Reply<BTreeMap<ObjectId, Watermark>>,
    },
    Stop,
}
