//! The way to the coordinator's thread: what sessions and other tasks call. Each call is a request
//! with a place for its answer.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use arrow::array::RecordBatch;
use crossbeam_channel::{Sender, bounded, unbounded};
use tokio::sync::{Semaphore, oneshot, watch};

use super::State;
use super::checkpoints::CheckpointFact;
use super::cloning::CloneJob;
use super::creation::{Creation, Install, Timed};
use super::durable::{Durable, DurableStart, SavepointJob};
use super::figures::Figures;
use super::flushes::SourceStatus;
use super::history::{Histories, HistoryConfig};
use super::reads::{Pinned, ReadView, Span};
use super::requests::{Queues, Request};
use super::sinks::{SinkFact, Sinks};
use super::start::{RestoredAnswer, StartState};
use super::writes::{Claim, PendingWrite, TableWrite, WaitingWrite, WriteLock, WriteOutcome};
use crate::catalog::object::{Definer, Object};
use crate::catalog::snapshot::{Catalog, Change};
use crate::coordinator::epoch::Epochs;
use crate::coordinator::errors::ErrorRecord;
use crate::coordinator::ground::GroundState;
use crate::coordinator::locks::LockId;
use crate::coordinator::running::lock_timed_out;
use crate::coordinator::sink_writer::SinkStatus;
use crate::coordinator::subscription::Subscription;
use crate::dataflow::worker::Workers;
use crate::observe::clock::Clock;
use crate::plan::node::Plan;
use crate::state::snapshot::Snapshot;
use crate::state::spill::StateMemory;
use crate::storage::checkpoint::Held as HeldCheckpoint;
use crate::storage::savepoint;
use crate::storage::savepoint::Savepoint;
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;
use crate::types::time::{At, Epoch, EventTime, Watermark};

/// Requests of clients that wait for the coordinator or for what it waits for (a lock, an epoch);
/// more of them wait outside, in the order in which they came. Far more than there may be clients:
/// the bound is for what one client can have under way by cancelling.
const REQUESTS_MAX: usize = 10_000;
/// Reports of workers that wait for the coordinator, which never waits for a worker; a worker that
/// is ahead by more waits. Some epochs' worth for some hundreds of views.
const REPORTS_MAX: usize = 16_384;

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
    pub(super) requests: Sender<Request>,
    pub(super) places: Arc<Semaphore>,
    pub(super) catalog: Arc<RwLock<Arc<Catalog>>>,
    pub(super) thread: Arc<Mutex<Option<JoinHandle<()>>>>,
    pub(super) config: CoordinatorConfig,
    /// Why the coordinator refuses everything; `None` while it works.
    pub(super) failure: watch::Receiver<Option<Error>>,
    /// Writes through this handle are acknowledged before they are durable.
    pub(super) early: bool,
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
    pub fn tamper(&self, view: ObjectId, changes: crate::types::change::ChangeBatch) {
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

pub(super) fn stopping() -> Error {
    Error::external(SqlState::ADMIN_SHUTDOWN, "the server is shutting down")
}
