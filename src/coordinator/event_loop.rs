//! The coordinator's thread: one closed `Event` enum, one match.
//!
//! Clients ask through [`Coordinator`]; workers tell through reports; both are handled one by one,
//! so every decision has one place and one order. After each event
//! [`State::pump`] does what has become possible: installs waiting dataflows at a quiet moment,
//! closes the epoch, completes flushes, begins a checkpoint.
//!
//! | file | owns |
//! |---|---|
//! | `definitions.rs` | changes of the catalog, one after the other |
//! | `cloning.rs` | a database made of a savepoint |
//! | `figures.rs` | what operators have done and hold |
//! | `memory.rs` | room in memory |
//! | `event_time.rs` | watermarks and late rows |
//! | `replay.rs` | late rows that are taken in again |
//! | `retention.rs` | rows of tables that go by themselves |
//! | `sharing.rs` | views that read what others keep although they do not name them |
//! | `history.rs` | reads of the past |
//! | `swap.rs` | a materialized view gets its new definition |
//! | `durable.rs` | the log, and who waits for it |
//! | `checkpoints.rs` | from the end of an epoch to a checkpoint |
//! | `sinks.rs` | what goes to targets outside |

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::Field;
use crossbeam_channel::{Receiver, Sender, after, bounded, never, select, unbounded};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

pub use self::checkpoints::CheckpointFact;
use self::checkpoints::{Checkpoints, ViewMark};
pub use self::cloning::{CloneJob, ClonedTable, ClonedView};
use self::definitions::{Step, StepInLog};
use self::durable::{Durable, SavepointJob, StorageEvent};
pub use self::durable::{DurableStart, LogStart};
use self::event_time::{Diverted, PendingWatermarks};
use self::figures::PendingFigures;
pub use self::figures::{Figures, RunningFigures};
pub use self::history::HistoryConfig;
use self::history::{Histories, PastStart, is_reached};
pub use self::replay::{Replay, Replayed};
use self::retention::Retentions;
pub use self::sinks::SinkFact;
use self::sinks::Sinks;
use self::swap::Swap;
use crate::catalog::object::{Definer, Object, ObjectKind, ObjectName};
use crate::catalog::snapshot::{Catalog, Change};
use crate::connectors::{self, Source};
use crate::coordinator::epoch::{Decision, Epochs, Moment};
use crate::coordinator::errors::{ErrorLog, ErrorRecord};
use crate::coordinator::ground::GroundState;
use crate::coordinator::locks::{LockId, Locks};
use crate::coordinator::rows::overlay;
use crate::coordinator::running::lock_timed_out;
use crate::coordinator::sink_writer::SinkStatus;
use crate::coordinator::subscription::{self, Subscription};
use crate::coordinator::table::Table;
use crate::coordinator::watermarks::Watermarks;
use crate::dataflow::operators;
use crate::dataflow::published::ContentAt;
use crate::dataflow::worker::{
    CloseEpoch, Command, DataflowResult, DataflowSpec, Report, SourceMetrics, Workers,
};
use crate::observe::clock::Clock;
use crate::plan::fingerprint::fingerprint;
use crate::plan::node::{Node, Plan, SourceSpec, WatermarkSpec};
use crate::state::delta::RestoredState;
use crate::state::history::Forgotten;
use crate::state::snapshot::Snapshot;
use crate::state::spill::{EVERYTHING, StateMemory};
use crate::storage::checkpoint::Held as HeldCheckpoint;
use crate::storage::manifest::SourcePlace;
use crate::storage::savepoint::{self, Savepoint};
use crate::storage::sinks::SinkState;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;
use crate::types::time::{At, Epoch, EventTime, Watermark};

mod checkpoints;
mod cloning;
mod definitions;
mod durable;
mod event_time;
mod figures;
mod history;
mod memory;
mod replay;
mod retention;
mod sharing;
mod sinks;
mod swap;

/// Requests of clients that wait for the coordinator or for what it waits for (a lock, an epoch);
/// more of them wait outside, in the order in which they came. Far more than there may be clients:
/// the bound is for what one client can have under way by cancelling.
const REQUESTS_MAX: usize = 10_000;
/// Reports of workers that wait for the coordinator, which never waits for a worker; a worker that
/// is ahead by more waits. Some epochs' worth for some hundreds of views.
const REPORTS_MAX: usize = 16_384;

/// Events handled before it is decided again what has become possible.
const EVENTS_AT_ONCE: usize = 1024;

/// What the coordinator needs to know to start.
#[derive(Clone, Debug)]
pub struct CoordinatorConfig {
    pub workers: usize,
    /// The aim for the longest epoch under load.
    pub epoch_interval_max: Duration,
    /// How long a statement waits for a table that another transaction writes.
    pub lock_timeout: Duration,
    pub history: HistoryConfig,
    /// The memory of tables and views.
    pub memory: Arc<StateMemory>,
}

/// The way to the coordinator's thread. Cheap to clone; every method may be called from any task.
#[derive(Clone)]
pub struct Coordinator {
    /// What clients ask. Everything but giving back (locks, subscriptions) takes one of
    /// `places` until it is answered, which bounds the queue.
    requests: Sender<Request>,
    places: Arc<Semaphore>,
    catalog: Arc<RwLock<Arc<Catalog>>>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
    config: CoordinatorConfig,
    /// Why the coordinator refuses everything; `None` while it works.
    failure: watch::Receiver<Option<Error>>,
    /// Writes through this handle are acknowledged before they are durable.
    early: bool,
}

/// What the data plane must set up for a new object.
pub enum Install {
    /// A view: nothing.
    Nothing,
    /// A table, with its first rows.
    Table(Option<RecordBatch>),
    Source(SourceSpec),
    /// A materialized view: the dataflow that maintains it.
    Dataflow(Box<Plan>),
}

/// What an object with a watermark has beside it.
#[derive(Default)]
pub struct Timed {
    /// The table of its late rows, made in the same step.
    pub late: Option<Object>,
    /// The rule of a table; a source's is in its spec.
    pub rule: Option<WatermarkSpec>,
}

/// The content of objects at one epoch. Holding it costs memory only, and stops nobody.
#[derive(Clone, Debug)]
pub struct ReadView {
    pub epoch: Epoch,
    /// Live rows of each object; a row of weight n stands n times.
    pub contents: HashMap<ObjectId, Vec<RecordBatch>>,
}

/// The content of one object at the epoch of a [`Coordinator::pin`]: a list of segments that others
/// hold, too.
pub enum Pinned {
    /// Its parts: one of a table, one from each worker of a view.
    Taken {
        parts: Vec<Snapshot>,
        /// How often the table had been written to; `None` for a view.
        version: Option<u64>,
        /// Told when what the table has is durable; `None` when it was.
        durable: Option<oneshot::Receiver<Result<()>>>,
    },
    /// The workers have not computed the epoch yet.
    Waiting(oneshot::Receiver<Result<RawView>>),
    Failed(Error),
}

impl Pinned {
    /// Its parts. May be dropped while it waits, and be asked again.
    ///
    /// # Errors
    /// When the object cannot be read.
    pub async fn parts(&mut self) -> Result<Vec<Snapshot>> {
        if let Pinned::Waiting(answer) = self {
            *self = match answer.await.unwrap_or_else(|_| Err(stopping())) {
                Ok(view) => {
                    let parts = view.parts.into_iter().map(|(_, part)| part).collect();
                    Pinned::Taken { parts, version: None, durable: None }
                }
                Err(error) => Pinned::Failed(error),
            };
        }
        if let Pinned::Taken { durable: waiting @ Some(_), .. } = self {
            let durable = match waiting {
                Some(waiting) => waiting.await.unwrap_or_else(|_| Err(stopping())),
                None => Ok(()),
            };
            *waiting = None;
            if let Err(error) = durable {
                *self = Pinned::Failed(error);
            }
        }
        match self {
            Pinned::Taken { parts, .. } => Ok(parts.clone()),
            Pinned::Failed(error) => Err(error.clone()),
            Pinned::Waiting(_) => Err(Error::internal("what is pinned has been waited for above")),
        }
    }

    /// Live rows; a row of weight n stands n times. As [`Self::parts`].
    ///
    /// # Errors
    /// When the object cannot be read.
    pub async fn rows(&mut self) -> Result<Vec<RecordBatch>> {
        self.parts().await?.iter().flat_map(Snapshot::batches).collect()
    }
}

/// One table's part of a write.
#[derive(Debug)]
pub struct TableWrite {
    pub table: ObjectId,
    pub change: WriteChange,
}

/// What a write does to its table. Rows have all columns of the table, in order.
#[derive(Debug)]
pub enum WriteChange {
    /// New rows. A key that exists is handled as `on_conflict` says; a key twice in `rows` too.
    Insert {
        rows: RecordBatch,
        on_conflict: WriteConflict,
    },
    /// Exact rows out (weight -1) and in (+1), as UPDATE and DELETE compute them under the table's
    /// lock. A key that this leaves twice is a unique violation.
    Changes(ChangeBatch),
    Truncate,
    /// Late rows leave their table and are taken in again, as far as time allows.
    Replay(Box<Replay>),
}

impl WriteChange {
    /// Whether the table may have more rows than before.
    fn grows(&self) -> bool {
        match self {
            WriteChange::Insert { .. } | WriteChange::Replay(_) => true,
            WriteChange::Changes(changes) => changes.weight_sum() > 0,
            WriteChange::Truncate => false,
        }
    }
}

/// What happens to a new row whose key exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteConflict {
    Error,
    Ignore,
    /// The new row replaces the old.
    Replace,
}

/// What a write did.
#[derive(Debug)]
pub struct WriteOutcome {
    pub epoch: Epoch,
    /// Rows inserted (or changed, for `Changes`: the larger of rows in and rows out), per write.
    pub counts: Vec<u64>,
    /// Rows that went in, per write: what RETURNING of an INSERT shows.
    pub inserted: Vec<RecordBatch>,
    /// Rows that came behind their tables' watermarks, and went into the tables of late rows.
    pub late: u64,
    /// What became of late rows that were to be taken in again.
    pub replayed: Option<Replayed>,
}

/// The right to write some tables, held until dropped. Others who want them wait in line.
pub struct WriteLock {
    id: LockId,
    requests: Sender<Request>,
}

impl Drop for WriteLock {
    fn drop(&mut self) {
        // The coordinator has gone only when the server stops.
        let _ = self.requests.send(Request::Unlock(self.id));
    }
}

/// How far a source is.
#[derive(Clone, Debug)]
pub struct SourceStatus {
    pub object: ObjectId,
    /// Rows given to dataflows since the reading began.
    pub rows: u64,
    pub malformed: u64,
    /// Rows that came behind the watermark.
    pub late: u64,
    /// Since when it is read; `None` when nobody reads it.
    pub started_at: Option<EventTime>,
    /// Everything there is has been read and is visible.
    pub finished: bool,
}

type Reply<T> = oneshot::Sender<Result<T>>;

/// What the coordinator's thread reads.
struct Queues {
    from_clients: Receiver<Request>,
    from_workers: Receiver<Report>,
    /// A few for each object of the log and each checkpoint.
    from_storage: Receiver<StorageEvent>,
}

enum Event {
    Client(Request),
    Worker(Report),
    Storage(StorageEvent),
}

impl Queues {
    /// The next event, waiting for it until `wake` has passed; `None` when it has.
    fn wait(&self, wake: Option<Duration>) -> Option<Event> {
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
    fn next(&self) -> Option<Event> {
        let stored = self.from_storage.try_recv().ok().map(Event::Storage);
        let report = stored.or_else(|| self.from_workers.try_recv().ok().map(Event::Worker));
        report.or_else(|| self.from_clients.try_recv().ok().map(Event::Client))
    }
}

enum Request {
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
    Tamper(ObjectId, ChangeBatch),
    Errors {
        reply: oneshot::Sender<Vec<ErrorRecord>>,
    },
    Watermarks {
        reply: Reply<BTreeMap<ObjectId, Watermark>>,
    },
    Stop,
}

/// A read's parts as they were taken, before rows are picked out.
pub struct RawView {
    epoch: Epoch,
    /// Per table one part, per view one from each worker.
    parts: Vec<(ObjectId, Snapshot)>,
    /// What is in the parts and came after the epoch.
    later: HashMap<ObjectId, Vec<ChangeBatch>>,
}

impl RawView {
    /// The rows of each object at the epoch.
    fn into_read_view(self) -> Result<ReadView> {
        let mut contents: HashMap<ObjectId, Vec<RecordBatch>> = HashMap::new();
        for (object, part) in self.parts {
            let batches = part.batches().collect::<Result<Vec<_>>>()?;
            contents.entry(object).or_default().extend(batches);
        }
        for (object, later) in self.later {
            let (Some(change), Some(rows)) = (later.first(), contents.get_mut(&object)) else {
                continue;
            };
            let back: Vec<ChangeBatch> = later.iter().map(ChangeBatch::negate).collect();
            *rows = overlay(rows, &change.schema(), &back)?;
        }
        Ok(ReadView { epoch: self.epoch, contents })
    }
}

/// Which epochs a subscription shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    /// It begins with the content then; `None`: now.
    pub as_of: Option<At>,
    /// It ends before this; `None`: never.
    pub up_to: Option<At>,
}

/// A write that waits in line for its tables, and may be taken back until the coordinator begins
/// it.
pub struct PendingWrite {
    answer: oneshot::Receiver<Result<WriteOutcome>>,
    claim: Claim,
    _place: OwnedSemaphorePermit,
}

impl PendingWrite {
    /// What the write did. May be dropped while it waits, and be asked again.
    ///
    /// # Errors
    /// As [`Coordinator::write`].
    pub async fn outcome(&mut self) -> Result<WriteOutcome> {
        (&mut self.answer).await.map_err(|_| stopping())?
    }

    /// Takes the write back; false when it is too late: then it has an outcome, at once.
    pub fn withdraw(&self) -> bool {
        self.claim.take()
    }
}

/// Who decides about a write: the first to take it, its client (who gives it up) or the
/// coordinator (who does it).
#[derive(Clone, Default)]
struct Claim(Arc<AtomicBool>);

impl Claim {
    /// Whether nobody has taken it before.
    fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

impl Coordinator {
    /// Starts the workers and the coordinator's thread, with nothing in the catalog and without
    /// a storage: everything is gone when it stops.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(config: CoordinatorConfig, clock: Clock) -> Result<Coordinator> {
        let ground = GroundState { next_id: 1, ..GroundState::default() };
        let start = StartState { ground, ..StartState::default() };
        Coordinator::start_from(config, clock, start, None).map(|(coordinator, _)| coordinator)
    }

    /// Starts over what a storage has: tables and sources are there when this returns. Views that
    /// begin with their stored state tell when they have it, the others are restored one by one.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start_from(
        config: CoordinatorConfig,
        clock: Clock,
        start: StartState,
        durable: Option<DurableStart>,
    ) -> Result<(Coordinator, Vec<RestoredAnswer>)> {
        let (requests, from_clients) = unbounded();
        let (reports, from_workers) = bounded(REPORTS_MAX);
        let (storage_events, from_storage) = unbounded();
        let histories = Histories::new(config.history);
        let workers = Workers::start(
            config.workers,
            start.ground.epoch,
            clock.clone(),
            histories.budget.clone(),
            config.memory.clone(),
            Arc::new(move |report| {
                // The coordinator has gone only when the server stops.
                let _ = reports.send(report);
            }),
        )?;
        let staging = durable.as_ref().map(|durable| {
            let (store, generation) = durable.checkpointer.store();
            (store.clone(), generation)
        });
        let sinks = Sinks::over(tokio::runtime::Handle::try_current().ok(), staging);
        let open = |durable| Durable::start(durable, storage_events.clone());
        let durable = durable.map(open).transpose()?;
        let catalog = Arc::new(RwLock::new(Arc::new(start.ground.catalog.clone())));
        let (failure_sender, failure) = watch::channel(None);
        let mut state = State {
            epochs: Epochs::new(workers.count(), start.ground.epoch, config.epoch_interval_max),
            durable,
            failure: failure_sender,
            storage_events,
            sinks,
            histories,
            memory: config.memory.clone(),
            ..State::new(workers, catalog.clone(), requests.clone(), clock)
        };
        let restored = state.lay_ground(start);
        let queues = Queues { from_clients, from_workers, from_storage };
        let thread = std::thread::Builder::new()
            .name("coordinator".into())
            .spawn(move || state.run(queues))?;
        let thread = Arc::new(Mutex::new(Some(thread)));
        let places = Arc::new(Semaphore::new(REQUESTS_MAX));
        let coordinator =
            Coordinator { requests, places, catalog, thread, config, failure, early: false };
        Ok((coordinator, restored))
    }

    /// Ends the workers and the thread, and waits for them. Every later call fails.
    pub fn stop(&self) {
        let _ = self.requests.send(Request::Stop);
        let thread = self.thread.lock().expect("nobody panics while holding it").take();
        if let Some(thread) = thread {
            // A panic of the coordinator has been reported by its own message.
            let _ = thread.join();
        }
    }

    pub fn config(&self) -> &CoordinatorConfig {
        &self.config
    }

    /// A handle whose writes are acknowledged before they are durable, or not.
    #[must_use]
    pub fn acknowledging_early(&self, early: bool) -> Coordinator {
        Coordinator { early, ..self.clone() }
    }

    /// Waits until the coordinator refuses everything, which it does when another server has
    /// taken over its storage; gives the reason.
    pub async fn failed(&self) -> Error {
        let mut failure = self.failure.clone();
        match failure.wait_for(Option::is_some).await {
            Ok(failure) => failure.clone().unwrap_or_else(stopping),
            // It was stopped.
            Err(_) => std::future::pending().await,
        }
    }

    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T> {
        let _place = self.places.acquire().await.map_err(|_| stopping())?;
        let (reply, answer) = oneshot::channel();
        self.requests.send(make(reply)).map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())
    }

    /// The newest catalog version.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.read().expect("nobody panics while holding it").clone()
    }

    /// Adds an object and what it needs in the data plane; when this returns, the object can be
    /// read. `object.id` is chosen by the coordinator and returned.
    ///
    /// # Errors
    /// When the name is taken, or a dependency has gone meanwhile; then nothing is left behind.
    pub async fn create_object(&self, object: Object, install: Install) -> Result<ObjectId> {
        self.replace_object(object, None, install, None).await
    }

    /// The same in the place of `replaces`, which has the same name and goes in the same step: it
    /// can be read until the new object can. `definer` is for what is planned again after a
    /// restart.
    ///
    /// # Errors
    /// Also when something depends on `replaces`; then it stays.
    pub async fn replace_object(
        &self,
        object: Object,
        definer: Option<Definer>,
        install: Install,
        replaces: Option<ObjectId>,
    ) -> Result<ObjectId> {
        self.create_timed(object, definer, install, replaces, Timed::default()).await
    }

    /// The same of a source or table with a watermark.
    ///
    /// # Errors
    /// As [`Coordinator::replace_object`].
    pub async fn create_timed(
        &self,
        object: Object,
        definer: Option<Definer>,
        install: Install,
        replaces: Option<ObjectId>,
        timed: Timed,
    ) -> Result<ObjectId> {
        let definer = definer.map(Arc::new);
        let creation = Box::new(Creation { object, definer, replaces, in_place: false, timed });
        self.ask(|reply| Request::Create { creation, install, reply }).await?
    }

    /// Gives the materialized view `view` another definition, in place: whoever depends on it goes
    /// on with what the new content has more and less.
    ///
    /// # Errors
    /// When a dependant uses columns that go; then nothing is changed.
    pub async fn replace_view(
        &self,
        object: Object,
        definer: Option<Definer>,
        plan: Plan,
        view: ObjectId,
    ) -> Result<ObjectId> {
        let definer = definer.map(Arc::new);
        let (replaces, timed) = (Some(view), Timed::default());
        let creation = Box::new(Creation { object, definer, replaces, in_place: true, timed });
        let install = Install::Dataflow(Box::new(plan));
        self.ask(|reply| Request::Create { creation, install, reply }).await?
    }

    /// Builds the dataflows of materialized views that are in the catalog already, those that are
    /// read by others first; each tells when it has its content. One that cannot be built gives
    /// the error when it is read.
    pub fn restore_views(&self, views: Vec<(Arc<Object>, Plan)>) -> Vec<RestoredAnswer> {
        let (mut answers, mut asked) = (Vec::new(), Vec::new());
        for (object, plan) in views {
            let (reply, answer) = oneshot::channel();
            answers.push((object.id, answer));
            asked.push((object, plan, reply));
        }
        // The coordinator has gone only when the server stops; then the answers say so.
        let _ = self.requests.send(Request::Restore { views: asked });
        answers
    }

    /// Says why an object of the catalog cannot be read.
    pub fn restore_failed(&self, object: Arc<Object>, error: Error) {
        // The coordinator has gone only when the server stops.
        let _ = self.requests.send(Request::RestoreFailed { object, error });
    }

    /// Waits until everything up to now is in a checkpoint.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn checkpoint(&self) -> Result<()> {
        self.ask(|reply| Request::Checkpoint { reply }).await?
    }

    /// Gives a name to a checkpoint of everything up to now.
    ///
    /// # Errors
    /// SQLSTATE 42710 when the name is taken; others when the storage fails.
    pub async fn create_savepoint(&self, name: &str, created_at_us: i64) -> Result<()> {
        let name = name.to_owned();
        if self.savepoints().await?.iter().any(|savepoint| savepoint.name == name) {
            return Err(savepoint::exists(&name));
        }
        self.checkpoint().await?;
        self.ask(|reply| Request::Savepoint(SavepointJob::Create { name, created_at_us, reply }))
            .await?
    }

    /// Drops a savepoint.
    ///
    /// # Errors
    /// SQLSTATE 42704 when there is none of that name; others when the storage fails.
    pub async fn drop_savepoint(&self, name: &str) -> Result<()> {
        // The log may say that a clone begins with its files; now a manifest does.
        self.checkpoint().await?;
        let name = name.to_owned();
        self.ask(|reply| Request::Savepoint(SavepointJob::Drop { name, reply })).await?
    }

    /// The first of so many ids that no object has.
    ///
    /// # Errors
    /// When the server stops.
    pub async fn reserve_ids(&self, count: u64) -> Result<ObjectId> {
        self.ask(|reply| Request::ReserveIds { count, reply }).await?
    }

    /// Takes in a database that was made of a savepoint. Its views tell when they have their
    /// content.
    ///
    /// # Errors
    /// When the catalog refuses; then nothing is changed.
    pub async fn clone_objects(&self, job: CloneJob) -> Result<()> {
        let job = Box::new(job);
        self.ask(|reply| Request::Clone { job, reply }).await?
    }

    /// A checkpoint of everything up to now with all savepoints, or one savepoint, to be copied:
    /// its files stay while it is held.
    ///
    /// # Errors
    /// SQLSTATE 0A000 without a storage, 42704 when there is no such savepoint; others when the
    /// storage fails.
    pub async fn hold(&self, savepoint: Option<&str>) -> Result<HeldCheckpoint> {
        if savepoint.is_none() {
            self.checkpoint().await?;
        }
        let savepoint = savepoint.map(str::to_owned);
        self.ask(|reply| Request::Savepoint(SavepointJob::Hold { savepoint, reply })).await?
    }

    /// Takes up a savepoint whose files have been copied into the storage.
    ///
    /// # Errors
    /// SQLSTATE 42710 when the name is taken; others when the storage fails.
    pub async fn add_savepoint(&self, savepoint: Savepoint) -> Result<()> {
        let savepoint = Box::new(savepoint);
        self.ask(|reply| Request::Savepoint(SavepointJob::Add { savepoint, reply })).await?
    }

    /// All savepoints, by name.
    ///
    /// # Errors
    /// SQLSTATE 0A000 without a storage.
    pub async fn savepoints(&self) -> Result<Vec<Savepoint>> {
        self.ask(|reply| Request::Savepoint(SavepointJob::List { reply })).await?
    }

    /// The newest checkpoints of this run, newest first.
    ///
    /// # Errors
    /// When the server stops.
    pub async fn checkpoints(&self) -> Result<Vec<CheckpointFact>> {
        self.ask(|reply| Request::Checkpoints { reply }).await
    }

    /// Where the sinks stand.
    ///
    /// # Errors
    /// When the server stops.
    pub async fn sinks(&self) -> Result<Vec<SinkFact>> {
        self.ask(|reply| Request::Sinks { reply }).await
    }

    /// Waits until the targets of all sinks have what is sealed now; not for those that fail.
    ///
    /// # Errors
    /// When the server stops.
    pub async fn sinks_written(&self) -> Result<()> {
        for mut sink in self.sinks().await? {
            let written = |status: &SinkStatus| status.pending_batches == 0 || status.failing;
            // One that is dropped meanwhile has nothing more to write.
            let _ = sink.watch.wait_for(written).await;
        }
        Ok(())
    }

    /// Changes the catalog without the data plane (databases, schemas), or drops objects, which
    /// stand in `changes` dependants first.
    ///
    /// # Errors
    /// When the catalog refuses; then nothing is changed.
    pub async fn apply(&self, changes: Vec<Change>) -> Result<()> {
        self.ask(|reply| Request::Apply { changes, reply }).await?
    }

    /// The content of `objects` (tables and materialized views) at one epoch: the newest, and not
    /// older than any commit that a client was told of.
    ///
    /// # Errors
    /// When an object has gone, or its dataflow has failed.
    pub async fn read(&self, objects: Vec<ObjectId>) -> Result<ReadView> {
        self.ask(|reply| Request::Read { objects, reply }).await??.into_read_view()
    }

    /// The content of `objects` (tables and materialized views) as it was at `at`.
    ///
    /// # Errors
    /// SQLSTATE 72000 when that is before the history that is kept; 22023 when it has not come
    /// yet; when an object has gone, or its dataflow has failed.
    pub async fn read_at(&self, objects: Vec<ObjectId>, at: At) -> Result<ReadView> {
        self.ask(|reply| Request::ReadAt { objects, at, reply }).await??.into_read_view()
    }

    /// The epochs of which history is kept, with the times when they ended, oldest first.
    ///
    /// # Errors
    /// When the server stops.
    pub async fn epochs(&self) -> Result<Vec<(Epoch, EventTime)>> {
        self.ask(|reply| Request::Epochs { reply }).await
    }

    /// The same as parts that share their rows with others: one of a table, one from each worker of
    /// a view.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn read_parts(
        &self,
        objects: Vec<ObjectId>,
    ) -> Result<HashMap<ObjectId, Vec<Snapshot>>> {
        let raw = self.ask(|reply| Request::Read { objects, reply }).await??;
        let mut parts: HashMap<ObjectId, Vec<Snapshot>> = HashMap::new();
        for (object, part) in raw.parts {
            parts.entry(object).or_default().push(part);
        }
        Ok(parts)
    }

    /// The content of `objects` (tables and materialized views) at one epoch, as [`Self::read`]
    /// takes it, without waiting for views and without making rows of anything. An object that
    /// cannot be read says so when it is.
    ///
    /// # Errors
    /// When the server stops.
    pub async fn pin(&self, objects: Vec<ObjectId>) -> Result<HashMap<ObjectId, Pinned>> {
        self.ask(|reply| Request::Pin { objects, reply }).await
    }

    /// The rows of a table, as it is now, that have the keys of `keys`, whose rows have all of
    /// the table's columns.
    ///
    /// # Errors
    /// When the table has gone.
    pub async fn lookup(&self, table: ObjectId, keys: RecordBatch) -> Result<RecordBatch> {
        self.ask(|reply| Request::Lookup { table, keys, reply }).await?
    }

    /// Waits for the exclusive right to write `tables`, in line.
    ///
    /// # Errors
    /// After `lock_timeout` (SQLSTATE 55P03).
    pub async fn lock_tables(&self, tables: Vec<ObjectId>) -> Result<WriteLock> {
        let id = LockId::new();
        // Made before waiting: when this task is dropped, so is its place in line.
        let lock = WriteLock { id, requests: self.requests.clone() };
        let granted = self.ask(|reply| Request::Lock { id, tables, reply });
        match tokio::time::timeout(self.config.lock_timeout, granted).await {
            Ok(Ok(())) => Ok(lock),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(lock_timed_out()),
        }
    }

    /// Applies writes as one epoch, all or nothing. `lock` covers the tables, or is `None` for a
    /// plain INSERT, which waits in line by itself.
    ///
    /// # Errors
    /// On a unique violation, or when a table has gone; then nothing is changed.
    pub async fn write(
        &self,
        lock: Option<&WriteLock>,
        writes: Vec<TableWrite>,
    ) -> Result<WriteOutcome> {
        let lock = lock.map(|lock| lock.id);
        let (claim, early) = (Claim::default(), self.early);
        self.ask(|reply| {
            let write = WaitingWrite { writes, claim, early, reply };
            Request::Write { lock, write }
        })
        .await?
    }

    /// The same without a lock, for a statement that may be cancelled while it waits in line: who
    /// is told that it was cancelled must know that nothing was written.
    ///
    /// # Errors
    /// When the server stops.
    pub async fn write_in_line(&self, writes: Vec<TableWrite>) -> Result<PendingWrite> {
        let place = self.places.clone().acquire_owned().await.map_err(|_| stopping())?;
        let (reply, answer) = oneshot::channel();
        let claim = Claim::default();
        let write = WaitingWrite { writes, claim: claim.clone(), early: self.early, reply };
        let request = Request::Write { lock: None, write };
        self.requests.send(request).map_err(|_| stopping())?;
        Ok(PendingWrite { answer, claim, _place: place })
    }

    /// Runs `plan` as a dataflow of its own and hands out its changes: first its content as of
    /// now, then what follows. Dropping the subscription drops the dataflow.
    ///
    /// # Errors
    /// When an object that it reads has gone.
    pub async fn subscribe(&self, plan: Plan) -> Result<Subscription> {
        self.subscribe_span(plan, Span::default()).await
    }

    /// The same for the epochs of `span`.
    ///
    /// # Errors
    /// Also as [`Coordinator::read_at`]; of a view, the first step may be the error.
    pub async fn subscribe_span(&self, plan: Plan, span: Span) -> Result<Subscription> {
        let plan = Box::new(plan);
        self.ask(|reply| Request::Subscribe { plan, span, reply }).await?
    }

    /// Waits until everything acknowledged before is visible in every dependent view, and until
    /// the bounded sources that are being read have been read to their end.
    ///
    /// # Errors
    /// When the server stops.
    pub async fn flush(&self) -> Result<Epoch> {
        self.ask(|reply| Request::Flush { reply }).await?
    }

    /// How far the sources are that are being read.
    ///
    /// # Errors
    /// When the server stops.
    pub async fn sources(&self) -> Result<Vec<SourceStatus>> {
        self.ask(|reply| Request::Sources { reply }).await
    }

    /// Makes the content of a view wrong.
    #[cfg(test)]
    pub fn tamper(&self, view: ObjectId, changes: ChangeBatch) {
        self.requests.send(Request::Tamper(view, changes)).expect("it runs");
    }

    /// What the operators of these dataflows have done and hold, now; of all when none is named.
    /// What each table holds is there, too.
    ///
    /// # Errors
    /// When the server stops.
    pub async fn figures(&self, objects: Vec<ObjectId>) -> Result<Figures> {
        let partial_matches = false;
        self.ask(|reply| Request::Figures { objects, partial_matches, reply }).await
    }

    /// The same of all dataflows, with the partial matches of their row patterns.
    ///
    /// # Errors
    /// When the server stops.
    pub async fn figures_with_partial_matches(&self) -> Result<Figures> {
        let (objects, partial_matches) = (Vec::new(), true);
        self.ask(|reply| Request::Figures { objects, partial_matches, reply }).await
    }

    /// Lets tables and workers make the room that has been asked of their [`StateMemory`], and
    /// look whether they may go on.
    ///
    /// # Errors
    /// When the server stops.
    pub async fn relieve(&self) -> Result<()> {
        self.ask(|reply| Request::Relieve { reply }).await
    }

    /// Those who take part in making room.
    pub fn state_owners(&self) -> usize {
        self.config.workers + 1
    }

    /// The watermarks of sources, tables and materialized views that have one.
    ///
    /// # Errors
    /// When the server stops.
    pub async fn watermarks(&self) -> Result<BTreeMap<ObjectId, Watermark>> {
        self.ask(|reply| Request::Watermarks { reply }).await?
    }

    /// Rows and records that were left out, of every acknowledged write.
    ///
    /// # Errors
    /// When the server stops.
    pub async fn errors(&self) -> Result<Vec<ErrorRecord>> {
        self.ask(|reply| Request::Errors { reply }).await
    }
}

fn stopping() -> Error {
    Error::external(SqlState::ADMIN_SHUTDOWN, "the server is shutting down")
}

/// A source, with the place that it was read to before the start.
pub type OpenedSource = (SourceSpec, Arc<dyn Source>, Option<Arc<SourcePlace>>);

/// What a coordinator starts over.
#[derive(Default)]
pub struct StartState {
    pub ground: GroundState,
    /// Sources, with the places that they were read to.
    pub sources: Vec<OpenedSource>,
    /// Views that begin with their stored state, those that are read by others first.
    pub views: Vec<RestoredView>,
    /// The row errors as of then, as text.
    pub errors: Option<String>,
    /// Sinks of which a checkpoint has something.
    pub sinks: Vec<(Arc<Object>, Plan, SinkState)>,
}

/// A view with its stored state, which is of before the log's records.
pub struct RestoredView {
    pub object: Arc<Object>,
    pub plan: Plan,
    pub state: RestoredState,
}

/// Tells when a view has taken up its state.
pub type RestoredAnswer = (ObjectId, oneshot::Receiver<Result<ObjectId>>);

/// What runs in the data plane for one object.
struct Running {
    /// Objects it reads.
    reads: Vec<ObjectId>,
    kind: RunningKind,
    /// Its own failure, or that of something it reads.
    failed: Option<Error>,
    /// What its dataflow computes; `None` for what has none.
    plan: Option<Arc<Plan>>,
    /// Those of `reads` that it does not name: it shares what they keep.
    shares: Vec<ObjectId>,
    /// It is in no catalog any more, and goes on for those who share it.
    nameless: bool,
}

enum RunningKind {
    Table,
    Source {
        metrics: Arc<SourceMetrics>,
        bounded: bool,
    },
    View {
        last_affected: Epoch,
        /// The newest snapshot, good while the view is not affected.
        snapshot: Option<(Epoch, Vec<Snapshot>)>,
    },
    Subscription {
        sender: subscription::FeedSender,
        /// Where it ends; `None`: nowhere, or that is known to the sender.
        up_to: Option<At>,
    },
}

/// A dataflow that waits for a quiet moment, then for its content.
struct NewDataflow {
    id: ObjectId,
    plan: Plan,
    purpose: Purpose,
    /// The state that it begins with.
    restore: Option<Arc<RestoredState>>,
}

enum Purpose {
    View { creation: Box<Creation>, made: Made, reply: Reply<ObjectId> },
    Subscription { span: Span, reply: Reply<Subscription> },
}

/// An object that is to be in the catalog.
struct Creation {
    object: Object,
    /// Who made it, for what is planned again after a restart.
    definer: Option<Arc<Definer>>,
    /// What it takes the place of, which goes in the same step.
    replaces: Option<ObjectId>,
    /// It gets the id of what it replaces, and with it all who depend on that.
    in_place: bool,
    timed: Timed,
}

impl Creation {
    fn changes(&self, catalog: &Catalog) -> Vec<Change> {
        if let (true, Some(object)) = (self.in_place, self.replaces) {
            let replaced = Object { id: object, ..self.object.clone() };
            let mut changes = vec![Change::ReplaceView(Arc::new(replaced))];
            changes.extend(self.definer.clone().map(|definer| Change::Define { object, definer }));
            return changes;
        }
        let mut changes: Vec<Change> =
            self.dropped(catalog).into_iter().map(Change::DropObject).collect();
        changes.push(Change::CreateObject(Arc::new(self.object.clone())));
        let late = self.timed.late.iter();
        changes.extend(late.map(|late| Change::CreateObject(Arc::new(late.clone()))));
        let object = self.object.id;
        changes.extend(self.definer.clone().map(|definer| Change::Define { object, definer }));
        changes
    }

    /// Of a view that is in the catalog already.
    fn again(object: Object) -> Creation {
        let timed = Timed::default();
        Creation { object, definer: None, replaces: None, in_place: false, timed }
    }

    /// What goes, in order: what is replaced, with the tables of its late rows.
    fn dropped(&self, catalog: &Catalog) -> Vec<ObjectId> {
        let parts = self.replaces.map_or_else(Vec::new, |old| catalog.parts_of(old));
        parts.into_iter().chain(self.replaces).collect()
    }
}

/// How a view came to be.
enum Made {
    /// By a statement: it goes into the catalog when it has its content.
    Now,
    /// It was there before the server started, and stays when it cannot be built.
    Before,
}

/// A view whose initial content is being computed.
struct Hydrating {
    creation: Box<Creation>,
    made: Made,
    /// It takes up its stored state.
    restored: bool,
    reply: Reply<ObjectId>,
    workers_left: HashSet<usize>,
}

struct PendingRead {
    view: RawView,
    /// Answers still to come, per view.
    missing: BTreeMap<ObjectId, usize>,
    /// The record of the log that must be durable before the answer.
    horizon: u64,
    reply: Reply<RawView>,
}

/// Someone who waits for everything to be visible.
struct PendingFlush {
    /// Known once the bounded sources have ended.
    target: Option<Epoch>,
    reply: Reply<Epoch>,
}

struct State {
    workers: Workers,
    catalog: Arc<RwLock<Arc<Catalog>>>,
    requests: Sender<Request>,
    clock: Clock,
    epochs: Epochs,
    next_id: u64,
    running: BTreeMap<ObjectId, Running>,
    tables: HashMap<ObjectId, Table>,
    /// Changes of the open epoch, per table.
    changes: BTreeMap<ObjectId, Vec<ChangeBatch>>,
    /// Sources that may give rows in the open epoch.
    admitted: BTreeSet<ObjectId>,
    /// Sources that asked to be admitted or gave rows in the open epoch.
    ready: BTreeSet<ObjectId>,
    /// Dataflows that wait for a quiet moment. While there are any, writes wait too.
    new_dataflows: VecDeque<NewDataflow>,
    waiting_writes: VecDeque<(Option<LockId>, WaitingWrite)>,
    hydrating: BTreeMap<ObjectId, Hydrating>,
    reads: HashMap<u64, PendingRead>,
    next_read: u64,
    flushes: Vec<PendingFlush>,
    /// Who asks what operators have done.
    figures: PendingFigures,
    /// Who asks for the row errors as of an epoch, which has to be computed first.
    error_reads: Vec<(Epoch, oneshot::Sender<Vec<ErrorRecord>>)>,
    locks: Locks<WaitingWrite>,
    errors: ErrorLog,
    watermarks: Watermarks,
    watermark_reads: HashMap<u64, PendingWatermarks>,
    /// Sources whose reading goes on where it was before the start.
    resumed: BTreeSet<ObjectId>,
    /// The rules of tables with watermarks.
    table_rules: HashMap<ObjectId, WatermarkSpec>,
    /// Late rows that wait until a new dataflow is installed.
    late_waiting: Vec<(ObjectId, RecordBatch)>,
    /// Tables of late rows that were taken in again, with their sources.
    replays: HashMap<ObjectId, ObjectId>,
    retentions: Retentions,
    /// The earliest event time of rows that the open epoch takes in again.
    reopened: Option<EventTime>,
    /// Logical time of the newest closed epoch.
    time: EventTime,
    /// Dataflows that want an epoch at a time.
    wakes: BTreeSet<(EventTime, ObjectId)>,
    /// `Command::Drop`s that have been sent.
    drops: u64,
    /// Changes of the catalog that wait, and the one that is in the log.
    steps: VecDeque<Step>,
    step_in_log: Option<StepInLog>,
    /// A view's new definition that waits for a quiet moment. While there is one, writes wait too.
    swap: Option<Swap>,
    /// The view that changes with the end of the open epoch because its definition did.
    swapped: Option<ObjectId>,
    /// Some view reads one that was made after it.
    reads_newer: bool,
    /// `None`: nothing outlives the process.
    durable: Option<Durable>,
    checkpoints: Checkpoints,
    histories: Histories,
    memory: Arc<StateMemory>,
    /// Why everything is refused.
    halted: Option<Error>,
    failure: watch::Sender<Option<Error>>,
    /// Keeps the queue open without a storage, too.
    storage_events: Sender<StorageEvent>,
    sinks: Sinks,
    stop: bool,
}

/// A write on its way to its tables.
struct WaitingWrite {
    writes: Vec<TableWrite>,
    claim: Claim,
    /// Need not be durable when it is answered.
    early: bool,
    reply: Reply<WriteOutcome>,
}

impl State {
    fn new(
        workers: Workers,
        catalog: Arc<RwLock<Arc<Catalog>>>,
        requests: Sender<Request>,
        clock: Clock,
    ) -> State {
        let workers_count = workers.count();
        State {
            epochs: Epochs::new(workers_count, Epoch(0), Duration::ZERO),
            workers,
            catalog,
            requests,
            clock,
            next_id: 1,
            running: BTreeMap::new(),
            tables: HashMap::new(),
            changes: BTreeMap::new(),
            admitted: BTreeSet::new(),
            ready: BTreeSet::new(),
            new_dataflows: VecDeque::new(),
            waiting_writes: VecDeque::new(),
            hydrating: BTreeMap::new(),
            reads: HashMap::new(),
            next_read: 1,
            flushes: Vec::new(),
            error_reads: Vec::new(),
            figures: PendingFigures::default(),
            locks: Locks::default(),
            errors: ErrorLog::default(),
            watermarks: Watermarks::new(workers_count),
            watermark_reads: HashMap::new(),
            resumed: BTreeSet::new(),
            table_rules: HashMap::new(),
            late_waiting: Vec::new(),
            replays: HashMap::new(),
            retentions: Retentions::default(),
            reopened: None,
            time: EventTime(i64::MIN),
            wakes: BTreeSet::new(),
            drops: 0,
            steps: VecDeque::new(),
            step_in_log: None,
            swap: None,
            swapped: None,
            reads_newer: false,
            durable: None,
            checkpoints: Checkpoints::default(),
            histories: Histories::new(HistoryConfig::default()),
            memory: Arc::new(StateMemory::new(std::env::temp_dir())),
            halted: None,
            failure: watch::Sender::new(None),
            storage_events: unbounded().0,
            sinks: Sinks::default(),
            stop: false,
        }
    }

    /// Sets up what was there before the server started.
    fn lay_ground(&mut self, start: StartState) -> Vec<RestoredAnswer> {
        let StartState { ground, sources, views, errors, sinks } = start;
        let began = self.logical_time();
        self.histories.closed(ground.epoch, began);
        self.next_id = ground.next_id.max(1);
        self.checkpoints.stored_epoch = ground.epoch;
        for (id, table) in ground.tables {
            if let Some(rule) = ground.table_rules.get(&id) {
                self.start_table_time(id, rule.clone(), &table);
                let came = ground.changed.get(&id).and_then(Option::as_ref);
                self.resume_table_time(id, ground.table_times.get(&id), came);
            }
            let own = match ground.catalog.get(id).map(|object| &object.kind) {
                Some(ObjectKind::Table(table)) => table.history_retention_us,
                _ => None,
            };
            self.histories.add_table(id, &table, ground.epoch, self.keeps_history(own));
            self.tables.insert(id, table);
            self.note_replays(&ground.catalog, id);
            self.note_retention(&ground.catalog, id);
            self.add_running(id, vec![], RunningKind::Table);
            self.workers.send(Command::CreateTable(id));
        }
        for (spec, source, place) in sources {
            self.install_source(spec, source, place);
        }
        if let Some(text) = errors {
            let kept = |object: ObjectId| {
                self.running.contains_key(&object) || views.iter().any(|v| v.object.id == object)
            };
            match self.errors.load(&text, kept) {
                // What was left out must not come back with the next start.
                Ok(all) => self.checkpoints.errors_changed |= !all,
                Err(error) => {
                    tracing::error!(%error, "the row errors of before the start are lost");
                }
            }
        }
        // What the log brought comes to the views as the first epoch, all of them together.
        if !views.is_empty() {
            for (table, changes) in &ground.changed {
                let Some(changes) = changes else { continue };
                if !changes.is_empty() {
                    self.changes.insert(*table, changes.clone());
                    // Which of them were late at their time is not known any more.
                    self.reopened = Some(EventTime(i64::MIN));
                    self.epochs.touch(self.clock.elapsed());
                }
            }
        }
        if let Some(durable) = &mut self.durable {
            durable.replayed(ground.changed, ground.catalog_changed);
        }
        for (object, plan, stored) in sinks {
            if let Err(error) = self.start_sink(&object, &plan, Some(stored)) {
                tracing::error!(sink = %object.name.name, %error, "cannot be started");
            }
        }
        views.into_iter().map(|view| self.install_restored(view)).collect()
    }

    fn install_restored(&mut self, view: RestoredView) -> RestoredAnswer {
        let RestoredView { object, plan, state } = view;
        let (reply, answer) = oneshot::channel();
        let id = object.id;
        let object = object.as_ref().clone();
        let creation = Box::new(Creation::again(object));
        let purpose = Purpose::View { creation, made: Made::Before, reply };
        self.install(NewDataflow { id, plan, purpose, restore: Some(Arc::new(state)) });
        (id, answer)
    }

    fn now(&self) -> Moment {
        self.clock.elapsed()
    }

    fn run(mut self, queues: Queues) {
        let mut wake: Option<Moment> = None;
        while !self.stop {
            if let Some(event) = queues.wait(wake.map(|at| at.saturating_sub(self.now()))) {
                self.handle(event);
                // What has arrived meanwhile is handled before deciding again; not for ever.
                for _ in 0..EVENTS_AT_ONCE {
                    let Some(event) = queues.next() else { break };
                    self.handle(event);
                }
            }
            wake = self.pump();
        }
        // A worker that waits to report must not wait for ever.
        drop(queues);
        self.workers.stop();
        // Writes what waits for the log.
        self.durable = None;
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Client(request) => match &self.halted {
                None => self.handle_request(request),
                Some(_) if matches!(request, Request::Stop) => self.stop = true,
                Some(error) => State::refuse(request, error),
            },
            Event::Worker(report) => self.handle_report(report),
            Event::Storage(event) => self.storage_event(event),
        }
    }

    fn handle_request(&mut self, request: Request) {
        match request {
            Request::Create { creation, install, reply } => self.create(creation, install, reply),
            Request::Restore { views } => {
                // All of them begin in the same epoch, so that they may read each other.
                for (object, plan, reply) in views {
                    let id = object.id;
                    let object = object.as_ref().clone();
                    let creation = Box::new(Creation::again(object));
                    let purpose = Purpose::View { creation, made: Made::Before, reply };
                    let restore = None;
                    self.new_dataflows.push_back(NewDataflow { id, plan, purpose, restore });
                }
            }
            Request::RestoreFailed { object, error } => self.add_failed(&object, error),
            Request::ReserveIds { count, reply } => {
                let first = ObjectId(self.next_id);
                self.next_id += count;
                // The client may have gone.
                let _ = reply.send(Ok(first));
            }
            Request::Clone { job, reply } => {
                self.steps.push_back(Step::Clone { job, reply });
                self.run_steps();
            }
            Request::Apply { changes, reply } => {
                self.steps.push_back(Step::Apply { changes, reply });
                self.run_steps();
            }
            Request::Checkpoint { reply } => self.want_checkpoint(reply),
            Request::Savepoint(job) => self.savepoint_job(job),
            Request::Sinks { reply } => self.sink_facts(reply),
            Request::Checkpoints { reply } => drop(reply.send(self.checkpoints.history())),
            Request::Read { objects, reply } => self.read(objects, reply),
            Request::ReadAt { objects, at, reply } => self.read_at(&objects, at, reply),
            Request::Epochs { reply } => self.tell_epochs(reply),
            Request::Pin { objects, reply } => {
                let _ = reply.send(self.pin(&objects));
            }
            Request::Lookup { table, keys, reply } => {
                let found = match self.tables.get(&table) {
                    Some(rows) => rows.lookup(&keys),
                    None => Err(dependency_gone("the statement")),
                };
                let horizon = self.read_horizon(&[table]);
                self.hold(horizon, false, move |durable| {
                    // The client may have gone.
                    let _ = reply.send(durable.and(found));
                });
            }
            Request::Lock { id, tables, reply } => {
                self.locks.lock(id, tables, reply);
                self.grant_locks();
            }
            Request::Unlock(id) => {
                self.locks.unlock(id);
                self.grant_locks();
            }
            Request::Write { lock, write } => self.write(lock, write),
            Request::Subscribe { plan, span, reply } => {
                let id = self.new_id();
                let purpose = Purpose::Subscription { span, reply };
                let (plan, restore) = (*plan, None);
                self.new_dataflows.push_back(NewDataflow { id, plan, purpose, restore });
            }
            Request::Unsubscribe(id) => self.drop_running(id),
            Request::Flush { reply } => self.flushes.push(PendingFlush { target: None, reply }),
            Request::Sources { reply } => {
                let _ = reply.send(self.source_statuses());
            }
            Request::Figures { objects, partial_matches, reply } => {
                self.ask_figures(objects, partial_matches, reply);
            }
            Request::Relieve { reply } => {
                self.relieve();
                // Who asked may have gone.
                let _ = reply.send(());
            }
            #[cfg(test)]
            Request::Tamper(view, changes) => {
                if let Some(Running { kind: RunningKind::View { snapshot, .. }, .. }) =
                    self.running.get_mut(&view)
                {
                    *snapshot = None;
                }
                self.workers.send(Command::Tamper(view, changes));
            }
            Request::Watermarks { reply } => self.ask_watermarks(reply),
            Request::Errors { reply } => {
                self.close_written();
                self.error_reads.push((self.epochs.closed(), reply));
            }
            Request::Stop => self.stop = true,
        }
    }

    fn handle_report(&mut self, report: Report) {
        let now = self.now();
        match report {
            Report::Computed { worker, epoch } => self.epochs.computed_by(worker, epoch),
            Report::SourceReady(object) => {
                if self.running.contains_key(&object) {
                    self.ready.insert(object);
                }
            }
            Report::SourceTouched { object, epoch } => {
                self.ready.insert(object);
                self.epochs.source_touched(epoch, now);
            }
            Report::SourceDrained { epoch, .. } => self.epochs.source_drained(epoch),
            Report::SourceTime { object, worker, drops, news } => {
                self.watermarks.news(object, worker, drops, news, now);
            }
            Report::Wake { object, at } => {
                if self.running.contains_key(&object) {
                    self.wakes.insert((at, object));
                }
            }
            Report::LateRows { object, rows } => self.late_rows(object, rows),
            Report::Watermarks { request, marks } => self.watermarks_arrived(request, &marks),
            Report::Hydrated { worker, object } => self.hydrated(worker, object),
            Report::Snapshot { request, object, content } => {
                self.snapshot_arrived(request, object, content);
            }
            Report::Figures { request, worker, figures } => {
                self.figures_arrived(request, worker, figures);
            }
            Report::Failed { object, error } => self.failed(object, error),
            Report::RowErrors { object, epoch, errors } => {
                // What has gone leaves no record.
                if self.running.get(&object).is_some_and(|running| !running.nameless) {
                    let name = self.object_name(object);
                    self.checkpoints.row_errors(object, &name, epoch, &errors);
                    self.errors.record(object, &name, errors, self.clock.now());
                }
            }
            part @ (Report::Places { .. } | Report::State { .. } | Report::SinkChanges { .. }) => {
                self.checkpoint_part(part);
            }
        }
    }

    /// The name of an object that runs, also of one that is being created.
    fn object_name(&self, id: ObjectId) -> ObjectName {
        let catalog = self.catalog();
        let object = catalog.get(id).map(AsRef::as_ref);
        let object = object.or_else(|| self.hydrating.get(&id).map(|h| &h.creation.object));
        object.map_or_else(
            || ObjectName {
                database: String::new(),
                schema: String::new(),
                name: "subscription".to_owned(),
            },
            |object| object.name.clone(),
        )
    }

    /// Does what has become possible; when to look again without an event.
    fn pump(&mut self) -> Option<Moment> {
        let checkpoint = self.checkpoint_if_due();
        self.run_steps();
        let now = self.now();
        self.let_rows_go(now);
        let forget = self.forget_history(now);
        let wake = self.wake_due(now);
        if self.watermarks.moved(now) || wake.is_some_and(|at| at <= now) {
            self.epochs.touch(now);
        }
        let epoch = self.pump_epochs();
        let idle = self.watermarks.wake(now);
        let wake = self.wake_due(now).filter(|at| *at > now);
        epoch
            .into_iter()
            .chain(checkpoint)
            .chain(idle)
            .chain(wake)
            .chain(forget)
            .chain(self.retentions.wake())
            .min()
    }

    fn pump_epochs(&mut self) -> Option<Moment> {
        self.install_new_dataflows();
        self.complete_flushes();
        self.answer_error_reads();
        match self.epochs.decide(self.now()) {
            // New dataflows wait for the epochs that are under way, and close the next themselves.
            _ if self.wants_quiet() => None,
            Decision::Close => {
                self.close_epoch(true);
                None
            }
            Decision::WaitUntil(at) => Some(at),
            Decision::Wait => {
                let waiting = self.ready.iter().any(|source| {
                    !self.admitted.contains(source)
                        && !is_paused(&self.hydrating, &self.running, *source)
                });
                if waiting {
                    self.epochs.want_admission();
                    if self.epochs.decide(self.now()) == Decision::Close {
                        self.close_epoch(true);
                    }
                }
                None
            }
        }
    }

    fn catalog(&self) -> Arc<Catalog> {
        self.catalog.read().expect("nobody panics while holding it").clone()
    }

    fn set_catalog(&self, catalog: Catalog) {
        *self.catalog.write().expect("nobody panics while holding it") = Arc::new(catalog);
    }

    fn new_id(&mut self) -> ObjectId {
        let id = ObjectId(self.next_id);
        self.next_id += 1;
        id
    }

    // ---- epochs

    /// Closes the open epoch. `admit`: let sources into the next one.
    fn close_epoch(&mut self, admit: bool) {
        self.close_epoch_for(admit, false);
    }

    /// The same; with `checkpoint`, the sources tell where they are at its end, and views that have
    /// changed hand over their state. Gives the views that belong into the checkpoint, and whether
    /// each has changed.
    fn close_epoch_for(&mut self, admit: bool, checkpoint: bool) -> BTreeMap<ObjectId, bool> {
        let changes = std::mem::take(&mut self.changes);
        let now = self.now();
        let watermarks = self.watermarks.announce(now);
        self.note_watermarks(&watermarks);
        let mut touched: Vec<ObjectId> = changes.keys().copied().collect();
        touched.extend(self.admitted.iter().copied());
        touched.extend(changes.keys().filter_map(|table| self.replays.get(table)));
        touched.extend(watermarks.iter().map(|(object, _)| *object));
        let time = self.logical_time();
        let woken = self.take_woken(time);
        touched.extend(&woken);
        touched.extend(self.swapped);
        let mut affected = self.dependants(&touched);
        let asleep = woken.iter().filter(|id| !affected.contains(id)).copied();
        affected.extend(asleep.collect::<Vec<_>>());
        // It has the epoch in which it came to be the view.
        affected.extend(self.swapped.take().filter(|view| !affected.contains(view)));
        let epoch = self.epochs.open();
        affected.extend(self.end_subscriptions(epoch, time));
        self.histories.closed(epoch, time);
        for (table, changes) in &changes {
            self.histories.record(*table, epoch, changes);
        }
        for object in affected.iter() {
            if let Some(Running { kind: RunningKind::View { last_affected, snapshot }, .. }) =
                self.running.get_mut(object)
            {
                *last_affected = epoch;
                *snapshot = None;
                self.checkpoints.views_changed = true;
            }
        }
        // Asked only now: this epoch, too, may have changed them.
        let views = if checkpoint { self.views_to_keep() } else { BTreeMap::new() };
        let changed = views.iter().filter(|(_, changed)| **changed).map(|(view, _)| *view);
        let changed: Vec<ObjectId> = changed.collect();
        affected.extend(&changed);
        affected.sort_unstable();
        affected.dedup();
        let checkpoint = checkpoint.then_some(changed);
        let affected = Arc::new(affected);
        self.admitted = if admit { self.ready.iter().copied().collect() } else { BTreeSet::new() };
        self.admitted.retain(|source| !is_paused(&self.hydrating, &self.running, *source));
        if admit {
            self.ready.clear();
        }
        let count = self.workers.count();
        let replayed = self.rows_of_sources(&changes);
        let changes = changes
            .into_iter()
            .chain(replayed)
            .map(|(object, batches)| (object, share_changes(&batches, count, epoch)))
            .collect();
        let reopened = self.reopened.take();
        let moves = affected.len() * count;
        let admitted = self.admitted.iter().copied().collect();
        self.workers.send(Command::Close(Arc::new(CloseEpoch {
            epoch,
            changes,
            affected,
            admitted,
            checkpoint,
            watermarks,
            time,
            reopened,
        })));
        self.epochs.close(now, moves);
        views
    }

    /// Tells the subscriptions that end before `epoch` that they do; they have to come this far.
    fn end_subscriptions(&mut self, epoch: Epoch, time: EventTime) -> Vec<ObjectId> {
        let mut ending = Vec::new();
        for (id, running) in &mut self.running {
            if let RunningKind::Subscription { sender, up_to: up_to @ Some(_) } = &mut running.kind
                && up_to.is_some_and(|limit| is_reached(limit, epoch, time))
            {
                *up_to = None;
                sender.end_before(epoch);
                ending.push(*id);
            }
        }
        ending
    }

    /// The dataflows that read any of `roots`, directly or through others.
    fn dependants(&self, roots: &[ObjectId]) -> Vec<ObjectId> {
        let mut touched: HashSet<ObjectId> = roots.iter().copied().collect();
        let mut affected = Vec::new();
        loop {
            let before = affected.len();
            for (id, running) in &self.running {
                if !touched.contains(id) && running.reads.iter().any(|r| touched.contains(r)) {
                    touched.insert(*id);
                    affected.push(*id);
                }
            }
            // Ids grow, and a dataflow reads what was there before it: one pass is enough, unless
            // a view was replaced by one that reads something newer.
            if !self.reads_newer || affected.len() == before {
                return affected;
            }
        }
    }
}

/// Whether a view that is being filled reads the source's past: the source waits meanwhile, so
/// that the view can join at exactly the place that the others have reached.
fn is_paused(
    hydrating: &BTreeMap<ObjectId, Hydrating>,
    running: &BTreeMap<ObjectId, Running>,
    source: ObjectId,
) -> bool {
    hydrating.keys().any(|view| running.get(view).is_some_and(|v| v.reads.contains(&source)))
}

/// One share of a table's changes per worker: slices when there are many rows, workers in turn
/// when there are few.
fn share_changes(batches: &[ChangeBatch], workers: usize, epoch: Epoch) -> Vec<ChangeBatch> {
    let schema = batches.first().expect("a table is listed with its changes").schema();
    let all = ChangeBatch::concat(&schema, batches).expect("changes of one table have its schema");
    share_rows(all.num_rows(), workers, epoch.0 as usize)
        .into_iter()
        .map(|(offset, length)| all.slice(offset, length))
        .collect()
}

/// Offset and length of each worker's share of `rows` rows; the larger ones begin at worker
/// `turn`.
fn share_rows(rows: usize, workers: usize, turn: usize) -> Vec<(usize, usize)> {
    let mut shares = vec![(0, 0); workers];
    let mut offset = 0;
    for step in 0..workers {
        let length = rows / workers + usize::from(step < rows % workers);
        shares[(turn + step) % workers] = (offset, length);
        offset += length;
    }
    shares
}

// ---- objects

impl State {
    fn create(&mut self, mut creation: Box<Creation>, install: Install, reply: Reply<ObjectId>) {
        creation.object.id = self.new_id();
        let owner = creation.object.id;
        if let Some(late) = &mut creation.timed.late {
            late.id = self.new_id();
            late.depends_on = vec![owner];
            if let ObjectKind::Table(table) = &mut late.kind {
                table.late_of = Some(owner);
            }
        }
        match install {
            Install::Dataflow(plan) => match self.check_new_view(&creation, &plan) {
                Ok(()) => {
                    let id = creation.object.id;
                    let purpose = Purpose::View { creation, made: Made::Now, reply };
                    let (plan, restore) = (*plan, None);
                    self.new_dataflows.push_back(NewDataflow { id, plan, purpose, restore });
                }
                Err(error) => drop(reply.send(Err(error))),
            },
            install => {
                self.steps.push_back(Step::Create { creation, install, reply });
                self.run_steps();
            }
        }
    }

    /// The objects that are being created: their dataflows wait or are filled, or they wait to be
    /// published.
    fn being_made(&self) -> impl Iterator<Item = &Creation> {
        let filled = self.hydrating.values().map(|h| h.creation.as_ref());
        let published = self.steps.iter().filter_map(|step| match step {
            Step::Publish { creation, .. } => Some(creation.as_ref()),
            _ => None,
        });
        let waiting = self.new_dataflows.iter().filter_map(|new| match &new.purpose {
            Purpose::View { creation, .. } => Some(creation.as_ref()),
            Purpose::Subscription { .. } => None,
        });
        filled.chain(published).chain(waiting)
    }

    /// What can be said against an object before anything of it is made.
    fn check_new(&self, creation: &Creation) -> Result<Catalog> {
        let object = &creation.object;
        let catalog = self.catalog();
        if object.depends_on.iter().any(|dependency| catalog.get(*dependency).is_none()) {
            return Err(dependency_gone(&object.name.name));
        }
        if self.being_made().any(|other| other.object.name == object.name) {
            return Err(Error::user(
                SqlState::DUPLICATE_TABLE,
                format!("relation \"{}\" is being created already", object.name.name),
            ));
        }
        self.check_replaced(creation)?;
        catalog.apply(&creation.changes(&catalog))
    }

    fn check_new_view(&self, creation: &Creation, plan: &Plan) -> Result<()> {
        self.check_new(creation)?;
        operators::check(plan)
    }

    /// What is replaced must be there, and nothing may depend on it.
    fn check_replaced(&self, creation: &Creation) -> Result<()> {
        let Some(replaced) = creation.replaces else { return Ok(()) };
        let catalog = self.catalog();
        let Some(old) = catalog.get(replaced) else {
            return Err(dependency_gone("the statement"));
        };
        if creation.in_place {
            return self.check_swap(creation, replaced);
        }
        let others = self.being_made().map(|other| &other.object);
        let user = catalog.dependants(replaced).map(AsRef::as_ref).chain(others).find(|other| {
            other.name != creation.object.name && other.depends_on.contains(&replaced)
        });
        match user {
            None => Ok(()),
            Some(user) => Err(Error::user(
                SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
                format!(
                    "cannot replace {} {} because other objects depend on it",
                    old.kind_noun(),
                    old.name.name
                ),
            )
            .detail(format!(
                "{} {} depends on {} {}",
                user.kind_noun(),
                user.name.name,
                old.kind_noun(),
                old.name.name
            ))
            .retryable()),
        }
    }

    fn add_running(&mut self, id: ObjectId, reads: Vec<ObjectId>, kind: RunningKind) {
        let running =
            Running { reads, kind, failed: None, plan: None, shares: vec![], nameless: false };
        self.running.insert(id, running);
    }

    /// An object of the catalog that cannot be built: reading it gives the error.
    fn add_failed(&mut self, object: &Object, error: Error) {
        let kind = match &object.kind {
            ObjectKind::Source(source) => {
                RunningKind::Source { metrics: Arc::default(), bounded: source.bounded }
            }
            _ => RunningKind::View { last_affected: self.epochs.closed(), snapshot: None },
        };
        let reads = object.depends_on.clone();
        let failed = Some(error);
        let running = Running { reads, kind, failed, plan: None, shares: vec![], nameless: false };
        self.running.insert(object.id, running);
    }

    /// Takes an object out of the data plane, with the subscriptions that read it.
    fn drop_running(&mut self, id: ObjectId) {
        let subscriptions: Vec<ObjectId> = self
            .running
            .iter()
            .filter(|(_, r)| {
                r.reads.contains(&id) && matches!(r.kind, RunningKind::Subscription { .. })
            })
            .map(|(subscription, _)| *subscription)
            .collect();
        for subscription in subscriptions {
            if let Some(Running { kind: RunningKind::Subscription { sender, .. }, .. }) =
                self.running.get(&subscription)
            {
                sender.fail(dependency_gone("subscription"));
            }
            self.drop_running(subscription);
        }
        if self.goes_on(id) {
            return;
        }
        let Some(gone) = self.running.remove(&id) else { return };
        self.errors.forget(id);
        self.sinks.remove(id);
        self.checkpoint_without(id);
        self.tables.remove(&id);
        self.replays.remove(&id);
        self.retentions.remove(id);
        self.histories.remove(id);
        self.changes.remove(&id);
        self.admitted.remove(&id);
        self.ready.remove(&id);
        let lost: Vec<u64> = self
            .reads
            .iter()
            .filter(|(_, read)| read.missing.contains_key(&id))
            .map(|(request, _)| *request)
            .collect();
        for request in lost {
            let read = self.reads.remove(&request).expect("just found");
            let _ = read.reply.send(Err(dependency_gone("query")));
        }
        self.workers.send(Command::Drop(id));
        self.drops += 1;
        self.watermarks.remove(id);
        self.wakes.retain(|(_, object)| *object != id);
        self.table_rules.remove(&id);
        let is_source = |running: &Running| matches!(running.kind, RunningKind::Source { .. });
        let sources = self.running.iter().filter(|(_, running)| is_source(running));
        for (source, _) in sources {
            if !self.running.values().any(|running| running.reads.contains(source)) {
                self.watermarks.begin_anew(*source, self.drops);
                self.resumed.remove(source);
            }
        }
        self.release(&gone.shares);
    }

    /// Whether something waits until nothing is under way.
    fn wants_quiet(&self) -> bool {
        !self.new_dataflows.is_empty() || self.swap.is_some()
    }

    /// Installs what waits, once nothing is under way and the open epoch is empty and stays so.
    fn install_new_dataflows(&mut self) {
        if !self.wants_quiet() {
            return;
        }
        if !self.epochs.all_computed() {
            return;
        }
        if self.epochs.touched() || !self.admitted.is_empty() {
            // Close without letting sources into the next epoch, and come back when it is computed.
            self.close_epoch(false);
            return;
        }
        if let Some(swap) = self.swap.take() {
            self.swap_now(swap);
            if self.wants_quiet() {
                return;
            }
        }
        while let Some(new) = self.new_dataflows.pop_front() {
            self.install(new);
        }
        while let Some((lock, write)) = self.waiting_writes.pop_front() {
            self.write(lock, write);
        }
        for (object, rows) in std::mem::take(&mut self.late_waiting) {
            self.late_rows(object, rows);
        }
        self.write_when_gathered();
        // Those that found others in line.
        self.grant_locks();
        self.let_rows_go(self.now());
    }

    fn install(&mut self, new: NewDataflow) {
        let NewDataflow { id, mut plan, mut purpose, restore } = new;
        let named = self.has_columns(&plan.root);
        let mut shares = match &mut purpose {
            Purpose::View { creation, made: Made::Now, .. } => self.share(&mut plan, creation),
            _ => Vec::new(),
        };
        let reads = plan.root.scanned_objects();
        self.begin_sources(&reads);
        if let Purpose::View { made: Made::Before, .. } = &purpose {
            shares = self.shared_before(id, &reads);
        }
        self.reads_newer |= reads.iter().any(|read| *read > id);
        let gone = reads.iter().any(|read| !self.running.contains_key(read)) || !named;
        let failed = reads.iter().find_map(|read| self.running.get(read)?.failed.clone());
        let as_of = self.epochs.closed();
        let span = match &purpose {
            Purpose::Subscription { span, .. } => *span,
            Purpose::View { .. } => Span::default(),
        };
        let mut past = None;
        let table_contents = match (&restore, span.as_of) {
            (None, None) => self.table_shares(&reads),
            (None, Some(_)) if gone || failed.is_some() => Ok(HashMap::new()),
            (None, Some(at)) => self.past_of(at, &reads).map(|mut start| {
                let contents = self.share_contents(std::mem::take(&mut start.contents));
                past = Some(start);
                contents
            }),
            // It has seen them.
            (Some(_), _) => Ok(HashMap::new()),
        };
        let started = match &purpose {
            Purpose::View { creation, .. }
                if matches!(creation.object.kind, ObjectKind::Sink(_)) && !self.sinks.has(id) =>
            {
                self.start_sink(&creation.object, &plan, None).err()
            }
            _ => None,
        };
        let failed = failed.or(started);
        let error = match (gone, failed, &table_contents) {
            (true, _, _) => Some(dependency_gone("view")),
            (_, Some(error), _) => Some(error),
            (_, _, Err(error)) => Some(error.clone()),
            _ => None,
        };
        let table_contents = match (error, table_contents) {
            (None, Ok(contents)) => contents,
            (error, _) => {
                let error = error.unwrap_or_else(|| Error::internal("no content for a new view"));
                match purpose {
                    Purpose::View { creation, made, reply } => {
                        match made {
                            Made::Before => self.add_failed(&creation.object, error.clone()),
                            Made::Now => self.sinks.remove(id),
                        }
                        drop(reply.send(Err(error)));
                    }
                    Purpose::Subscription { reply, .. } => drop(reply.send(Err(error))),
                }
                return;
            }
        };
        let (as_of, time, past) = match past {
            Some(PastStart { as_of, time, past, .. }) => (as_of, time, Some(past)),
            None => (as_of, self.logical_time(), None),
        };
        let keeps_history = self.keeps_history(plan.options.history_retention.0);
        let (name, kind, result) = match purpose {
            Purpose::View { creation, made, reply } => {
                let name = creation.object.name.name.clone();
                let workers_left = (0..self.workers.count()).collect();
                let restored = restore.is_some();
                let hydrating = Hydrating { creation, made, restored, reply, workers_left };
                self.hydrating.insert(id, hydrating);
                let mark = ViewMark {
                    fingerprint: fingerprint(&plan),
                    checkpointed: restored.then_some(as_of),
                    based: false,
                };
                self.checkpoints.views.insert(id, mark);
                self.checkpoints.views_changed |= !restored;
                let kind = RunningKind::View { last_affected: as_of, snapshot: None };
                let result = match self.sinks.has(id) {
                    true => self.sinks.dataflow_result(id),
                    false => DataflowResult::Materialize,
                };
                (name, kind, result)
            }
            Purpose::Subscription { reply, .. } => {
                let requests = self.requests.clone();
                let schema = plan.root.schema();
                let (sender, subscription) = subscription::channel(
                    schema,
                    self.workers.count(),
                    as_of,
                    self.gate(),
                    move || {
                        // The coordinator has gone only when the server stops.
                        let _ = requests.send(Request::Unsubscribe(id));
                    },
                );
                let result = DataflowResult::Subscribe(sender.for_workers());
                let mut up_to = span.up_to;
                if let Some(first) = up_to.and_then(|up_to| self.first_hidden(up_to)) {
                    sender.end_before(first);
                    // It has to come this far, also when nothing of it changes.
                    up_to.take_if(|_| first <= self.epochs.closed());
                }
                if let Some(At::Time(time)) = up_to {
                    self.wakes.insert((time, id));
                }
                let _ = reply.send(Ok(subscription));
                ("subscription".to_owned(), RunningKind::Subscription { sender, up_to }, result)
            }
        };
        let plan = Arc::new(plan);
        let running = Running {
            reads,
            kind,
            failed: None,
            plan: Some(plan.clone()),
            shares,
            nameless: false,
        };
        self.running.insert(id, running);
        let spec = DataflowSpec {
            object: id,
            name,
            plan,
            result,
            as_of,
            time,
            table_contents,
            restore,
            past,
            keeps_history,
        };
        self.workers.send(Command::CreateDataflow(Arc::new(spec)));
    }

    /// Whether what the plan reads has the columns that it was planned with: a view may have got
    /// another definition meanwhile.
    fn has_columns(&self, root: &Node) -> bool {
        let catalog = self.catalog();
        let mut has = true;
        root.visit(&mut |node| {
            if let Node::Scan(scan) = node
                // What is shared has columns of other names, and cannot change.
                && !scan.shared
                && let Some(object) = catalog.get(scan.object)
            {
                let same = |column: &usize, planned: &Field| {
                    object.schema.fields().get(*column).is_some_and(|field| {
                        field.name() == planned.name() && field.data_type() == planned.data_type()
                    })
                };
                let mut columns = scan.columns.iter().zip(scan.schema.fields());
                has &= columns.all(|(column, planned)| same(column, planned));
            }
        });
        has
    }

    /// The rows of the tables among `objects`, one share per worker.
    fn table_shares(&self, objects: &[ObjectId]) -> Result<TableShares> {
        let mut contents = HashMap::new();
        for object in objects {
            // Of a source, what was late and has been taken in again.
            let rows = self.catalog().replayed_of(*object).map_or(*object, |replayed| replayed.id);
            let Some(table) = self.tables.get(&rows) else { continue };
            contents.insert(*object, table.snapshot().batches().collect::<Result<Vec<_>>>()?);
        }
        Ok(self.share_contents(contents))
    }

    /// The rows of tables, one share per worker.
    fn share_contents(&self, contents: HashMap<ObjectId, Vec<RecordBatch>>) -> TableShares {
        let workers = self.workers.count();
        let mut shared = HashMap::new();
        for (object, batches) in contents {
            let mut shares = vec![Vec::new(); workers];
            for (turn, batch) in batches.into_iter().enumerate() {
                for (worker, (offset, length)) in
                    share_rows(batch.num_rows(), workers, turn).into_iter().enumerate()
                {
                    if length > 0 {
                        shares[worker].push(batch.slice(offset, length));
                    }
                }
            }
            shared.insert(object, shares);
        }
        shared
    }

    fn hydrated(&mut self, worker: usize, object: ObjectId) {
        let Some(hydrating) = self.hydrating.get_mut(&object) else { return };
        hydrating.workers_left.remove(&worker);
        if !hydrating.workers_left.is_empty() {
            return;
        }
        let Hydrating { creation, made, reply, .. } =
            self.hydrating.remove(&object).expect("just found");
        match made {
            Made::Now => {
                self.steps.push_back(Step::Publish { creation, reply });
                self.run_steps();
            }
            Made::Before => {
                self.checkpoints.views_changed = true;
                drop(reply.send(Ok(object)));
            }
        }
    }

    /// A dataflow has stopped: it and everything above it can no longer be read.
    fn failed(&mut self, object: ObjectId, error: Error) {
        let mut stopped = self.dependants(&[object]);
        stopped.push(object);
        tracing::error!(%object, %error, "a dataflow has stopped");
        for id in stopped {
            if let Some(hydrating) = self.hydrating.remove(&id) {
                self.drop_running(id);
                if let Made::Before = hydrating.made {
                    self.add_failed(&hydrating.creation.object, error.clone());
                }
                let _ = hydrating.reply.send(Err(error.clone()));
                continue;
            }
            let Some(running) = self.running.get_mut(&id) else { continue };
            running.failed.get_or_insert(error.clone());
            self.workers.send(Command::Stopped(id));
            if let RunningKind::Subscription { sender, .. } = &running.kind {
                sender.fail(error.clone());
                self.drop_running(id);
            }
            self.checkpoint_without(id);
            let waiting: Vec<u64> = self
                .reads
                .iter()
                .filter(|(_, read)| read.missing.contains_key(&id))
                .map(|(request, _)| *request)
                .collect();
            for request in waiting {
                let read = self.reads.remove(&request).expect("just found");
                let _ = read.reply.send(Err(error.clone()));
            }
        }
    }
}

fn dependency_gone(what: &str) -> Error {
    Error::user(
        SqlState::UNDEFINED_TABLE,
        format!("a relation that {what} reads has been dropped meanwhile"),
    )
}

// ---- reads and writes

impl State {
    fn read(&mut self, objects: Vec<ObjectId>, reply: Reply<RawView>) {
        self.close_written();
        let horizon = self.read_horizon(&objects);
        match self.begin_read(&objects) {
            Ok(began) => self.go_on_reading(began, horizon, reply),
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }

    /// Acknowledged writes must be in what is read, so they must be in a closed epoch.
    fn close_written(&mut self) {
        if !self.changes.is_empty() {
            self.close_epoch(!self.wants_quiet());
        }
    }

    /// Answers when nothing is missing, else asks the workers.
    fn go_on_reading(&mut self, began: BeganRead, horizon: u64, reply: Reply<RawView>) {
        let BeganRead { view, missing } = began;
        if missing.is_empty() {
            return self.answer_read(horizon, view, reply);
        }
        let request = self.next_read;
        self.next_read += 1;
        let objects = Arc::new(missing.keys().copied().collect());
        self.reads.insert(request, PendingRead { view, missing, horizon, reply });
        self.workers.send(Command::Snapshot { request, objects, epoch: None });
    }

    /// One read for each object, all of the same epoch: nothing is closed in between.
    fn pin(&mut self, objects: &[ObjectId]) -> HashMap<ObjectId, Pinned> {
        self.close_written();
        let mut pinned = HashMap::with_capacity(objects.len());
        for object in objects {
            let horizon = self.read_horizon(&[*object]);
            let content = match self.begin_read(&[*object]) {
                Ok(BeganRead { view, missing }) if missing.is_empty() => Pinned::Taken {
                    parts: view.parts.into_iter().map(|(_, part)| part).collect(),
                    version: self.tables.get(object).map(Table::version),
                    durable: self.wait_for_log(horizon),
                },
                Ok(began) => {
                    let (reply, answer) = oneshot::channel();
                    self.go_on_reading(began, horizon, reply);
                    Pinned::Waiting(answer)
                }
                Err(error) => Pinned::Failed(error),
            };
            pinned.insert(*object, content);
        }
        pinned
    }

    /// Takes what is at hand and lists the views whose workers must be asked.
    fn begin_read(&mut self, objects: &[ObjectId]) -> Result<BeganRead> {
        let epoch = self.epochs.closed();
        let mut view = RawView { epoch, parts: Vec::new(), later: HashMap::new() };
        let mut missing = BTreeMap::new();
        for object in objects {
            let running = self.running.get(object).ok_or_else(|| dependency_gone("the query"))?;
            if let Some(error) = &running.failed {
                return Err(error.clone().context("a materialized view has stopped"));
            }
            match &running.kind {
                RunningKind::Table => {
                    let table = self.tables.get_mut(object).expect("a running table has rows");
                    view.parts.push((*object, table.snapshot()));
                }
                RunningKind::View { last_affected, snapshot } => match snapshot {
                    Some((taken, parts)) if taken >= last_affected => {
                        view.parts.extend(parts.iter().map(|part| (*object, part.clone())));
                    }
                    _ => {
                        missing.insert(*object, self.workers.count());
                    }
                },
                RunningKind::Source { .. } | RunningKind::Subscription { .. } => {
                    return Err(Error::internal("sources are not read through the coordinator"));
                }
            }
        }
        Ok(BeganRead { view, missing })
    }

    fn snapshot_arrived(
        &mut self,
        request: u64,
        object: ObjectId,
        content: Option<std::result::Result<ContentAt, Forgotten>>,
    ) {
        let Some(content) = content else {
            if let Some(read) = self.reads.remove(&request) {
                let _ = read.reply.send(Err(dependency_gone("the query")));
            }
            return;
        };
        let Some(content) = self.snapshot_or_too_old(request, content, object) else { return };
        let read = self.reads.get_mut(&request).expect("just found");
        read.view.parts.push((object, content));
        let left = read.missing.get_mut(&object).expect("only asked objects answer");
        *left -= 1;
        if *left == 0 {
            read.missing.remove(&object);
            let parts: Vec<Snapshot> = read
                .view
                .parts
                .iter()
                .filter(|(other, _)| *other == object)
                .map(|(_, part)| part.clone())
                .collect();
            let taken = read.view.epoch;
            if let Some(Running { kind: RunningKind::View { last_affected, snapshot }, .. }) =
                self.running.get_mut(&object)
                && taken >= *last_affected
            {
                // Nothing came later, so the parts are the content.
                *snapshot = Some((taken, parts));
            }
        }
        if read.missing.is_empty() {
            let read = self.reads.remove(&request).expect("just found");
            self.answer_read(read.horizon, read.view, read.reply);
        }
    }

    /// Answers a read when what it saw is durable.
    fn answer_read(&mut self, horizon: u64, view: RawView, reply: Reply<RawView>) {
        self.hold(horizon, false, move |durable| {
            // The client may have gone.
            let _ = reply.send(durable.map(|()| view));
        });
    }

    fn write(&mut self, lock: Option<LockId>, write: WaitingWrite) {
        if self.wants_quiet() {
            self.waiting_writes.push_back((lock, write));
            return;
        }
        let tables: Vec<ObjectId> = write.writes.iter().map(|write| write.table).collect();
        match lock {
            Some(lock) => {
                assert!(self.locks.covers(lock, &tables), "a locked write stays in its tables");
                self.write_now(write);
            }
            None if self.locks.free(&tables) => self.write_now(write),
            None => self.locks.wait(tables, write),
        }
    }

    fn grant_locks(&mut self) {
        while let Some(write) = self.locks.grant() {
            // Its turn has come, whoever waits behind it.
            if !self.wants_quiet() {
                self.write_now(write);
            } else {
                self.waiting_writes.push_back((None, write));
            }
        }
    }

    fn write_now(&mut self, write: WaitingWrite) {
        if write.reply.is_closed() || !write.claim.take() {
            // The statement was cancelled while it waited.
            return;
        }
        self.write_unasked(write);
    }

    /// The same; nobody need wait for it.
    fn write_unasked(&mut self, write: WaitingWrite) {
        let WaitingWrite { writes, early, reply, .. } = write;
        let grows = || writes.iter().any(|write| write.change.grows());
        let refused = self.writes_refused();
        if let Some(error) = refused.or_else(|| self.growth_refused().filter(|_| grows())) {
            let _ = reply.send(Err(error));
            return;
        }
        let mut done: Vec<(ObjectId, ChangeBatch)> = Vec::new();
        let mut outcome = WriteOutcome {
            epoch: self.epochs.open(),
            counts: vec![],
            inserted: vec![],
            late: 0,
            replayed: None,
        };
        let asked = writes.len();
        let Diverted { writes, late, advances } = self.divert_late(writes);
        outcome.late = late.iter().map(|(_, rows)| rows).sum();
        let (writes, replayed) = match self.expand_replays(writes) {
            Ok(expanded) => expanded,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        outcome.replayed = replayed;
        for (number, TableWrite { table, change }) in writes.into_iter().enumerate() {
            let result = match self.tables.get_mut(&table) {
                Some(rows) => rows.write(change),
                None => Err(dependency_gone("the statement")),
            };
            match result {
                Ok(written) => {
                    if number < asked {
                        outcome.counts.push(written.count);
                        outcome.inserted.push(written.inserted);
                    }
                    done.push((table, written.changes));
                }
                Err(error) => {
                    for (table, changes) in done.iter().rev() {
                        let rows = self.tables.get_mut(table).expect("written just now");
                        rows.undo(changes);
                    }
                    let _ = reply.send(Err(error));
                    return;
                }
            }
        }
        self.count_diverted(&late);
        if let Some(replayed) = &outcome.replayed {
            self.note_reopened(replayed);
        }
        for (table, watermark) in advances {
            self.watermarks.advance(table, watermark);
        }
        let record = self.log_rows(&done);
        let mut touched = false;
        for (table, changes) in done {
            if self.memory.is_always_full()
                && let Some(table) = self.tables.get_mut(&table)
            {
                table.spill(&self.memory, EVERYTHING);
            }
            if !changes.is_empty() {
                touched = true;
                self.changes.entry(table).or_default().push(changes);
            }
        }
        if touched {
            let now = self.now();
            self.epochs.touch(now);
        }
        if early && self.may_be_early() {
            let _ = reply.send(Ok(outcome));
            return;
        }
        self.hold(record, true, move |durable| {
            // The client may have gone.
            let _ = reply.send(durable.map(|()| outcome));
        });
    }

    // ---- waiting for everything

    /// The errors of an epoch are told before it is computed.
    fn answer_error_reads(&mut self) {
        let computed = self.epochs.computed();
        for (epoch, reply) in std::mem::take(&mut self.error_reads) {
            if computed >= epoch {
                // The client may have gone.
                let _ = reply.send(self.errors.records());
            } else {
                self.error_reads.push((epoch, reply));
            }
        }
    }

    fn complete_flushes(&mut self) {
        if self.flushes.is_empty() {
            return;
        }
        let sources_ended =
            self.source_statuses().iter().all(|s| s.finished) && self.hydrating.is_empty();
        let now = self.now();
        if self.watermarks.moved(now) {
            self.epochs.touch(now);
        }
        let (touched, computed) = (self.epochs.touched(), self.epochs.computed());
        let (open, closed) = (self.epochs.open(), self.epochs.closed());
        let mut waiting = Vec::new();
        for mut flush in std::mem::take(&mut self.flushes) {
            if flush.target.is_none() && sources_ended {
                flush.target = Some(if touched { open } else { closed });
            }
            match flush.target {
                Some(target) if computed >= target => {
                    let _ = flush.reply.send(Ok(target));
                }
                Some(target) => {
                    if target == open {
                        self.epochs.hurry();
                    }
                    waiting.push(flush);
                }
                None => waiting.push(flush),
            }
        }
        self.flushes = waiting;
    }

    /// The sources that are being read; an unbounded one never counts as unfinished.
    fn source_statuses(&self) -> Vec<SourceStatus> {
        let workers = self.workers.count() as u64;
        self.running
            .iter()
            .filter_map(|(id, running)| {
                let RunningKind::Source { metrics, bounded } = &running.kind else { return None };
                let read = self.running.values().any(|r| r.reads.contains(id));
                let finished = metrics.workers_finished.load(Ordering::Relaxed) == workers;
                let began = *metrics.began.lock().expect("nobody panics while holding it");
                Some(SourceStatus {
                    object: *id,
                    rows: metrics.rows.load(Ordering::Relaxed),
                    malformed: metrics.malformed.load(Ordering::Relaxed),
                    late: metrics.late.load(Ordering::Relaxed),
                    started_at: began.map(|at| self.clock.time_of(at)),
                    finished: (finished && self.watermarks.finished(*id)) || !bounded || !read,
                })
            })
            .collect()
    }
}

/// Rows of tables, one share per worker.
type TableShares = HashMap<ObjectId, Vec<Vec<RecordBatch>>>;

struct BeganRead {
    view: RawView,
    missing: BTreeMap<ObjectId, usize>,
}

#[cfg(test)]
mod tests;
