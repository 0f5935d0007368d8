//! The coordinator's thread: one closed `Event` enum, one match.
//!
//! Clients ask through [`Coordinator`]; workers tell through reports; both are handled one by one,
//! so every decision has one place and one order. After each event
//! [`State::pump`] does what has become possible: installs waiting dataflows at a quiet moment,
//! closes the epoch, completes flushes, begins a checkpoint.
//!
//! | file | owns |
//! |---|---|
//! | `handle.rs` | what sessions and other tasks call |
//! | `requests.rs` | what this thread reads |
//! | `start.rs` | what it starts over |
//! | `creation.rs` | new objects, and what can be said against them |
//! | `installation.rs` | new dataflows |
//! | `reads.rs` | reads of the newest epoch |
//! | `writes.rs` | writes of tables |
//! | `flushes.rs` | who waits until everything is visible |
//! | `definitions.rs` | changes of the catalog, one after the other |
//! | `cloning.rs` | a database made of a savepoint |
//! | `figures.rs` | what operators have done and hold |
//! | `memory.rs` | room in memory |
//! | `event_time.rs` | watermarks and late rows |
//! | `replay.rs` | late rows that are taken in again |
//! | `retention.rs` | rows of tables that go by themselves |
//! | `indexes.rs` | indexes that joins read |
//! | `sharing.rs` | views that read what others keep although they do not name them |
//! | `history.rs` | reads of the past |
//! | `swap.rs` | a materialized view gets its new definition |
//! | `durable.rs` | the log, and who waits for it |
//! | `checkpoints.rs` | from the end of an epoch to a checkpoint |
//! | `sinks.rs` | what goes to targets outside |

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use arrow::array::RecordBatch;
use crossbeam_channel::{Sender, unbounded};
use tokio::sync::{oneshot, watch};

pub use self::checkpoints::CheckpointFact;
use self::checkpoints::Checkpoints;
pub use self::cloning::{CloneJob, ClonedTable, ClonedView};
use self::creation::{Creation, Made, dependency_gone};
pub use self::creation::{Install, Timed};
use self::definitions::{Step, StepInLog};
use self::durable::{Durable, StorageEvent};
pub use self::durable::{DurableStart, LogStart};
use self::event_time::PendingWatermarks;
use self::figures::PendingFigures;
pub use self::figures::{Figures, RunningFigures};
use self::flushes::PendingFlush;
pub use self::flushes::SourceStatus;
use self::handle::stopping;
pub use self::handle::{Coordinator, CoordinatorConfig};
pub use self::history::HistoryConfig;
use self::history::{Histories, is_reached};
use self::installation::{Hydrating, NewDataflow, Purpose};
use self::reads::PendingRead;
pub use self::reads::{Pinned, RawView, ReadView, Span};
pub use self::replay::{Replay, Replayed};
use self::requests::Reply;
use self::requests::{Event, Queues, Request};
use self::retention::Retentions;
pub use self::sinks::SinkFact;
use self::sinks::Sinks;
pub use self::start::{OpenedSource, RestoredAnswer, RestoredView, StartState, StoredSink};
use self::swap::Swap;
use self::writes::WaitingWrite;
pub use self::writes::{
    PendingWrite, TableWrite, WriteChange, WriteConflict, WriteLock, WriteOutcome,
};
use crate::catalog::object::{Object, ObjectKind, ObjectName};
use crate::catalog::snapshot::Catalog;
use crate::coordinator::epoch::{Decision, Epochs, Moment};
use crate::coordinator::errors::{ErrorLog, ErrorRecord};
use crate::coordinator::locks::{LockId, Locks};
use crate::coordinator::subscription;
use crate::coordinator::table::Table;
use crate::coordinator::watermarks::Watermarks;
use crate::dataflow::worker::{CloseEpoch, Command, Report, SourceMetrics, Workers};
use crate::observe::clock::Clock;
use crate::plan::node::{Plan, WatermarkSpec};
use crate::state::blocks::spill_from_this_thread_to;
use crate::state::snapshot::Snapshot;
use crate::state::spill::StateMemory;
use crate::types::change::ChangeBatch;
use crate::types::error::Error;
use crate::types::id::ObjectId;
use crate::types::time::{At, Epoch, EventTime};

mod checkpoints;
mod cloning;
mod creation;
mod definitions;
mod durable;
mod event_time;
mod figures;
mod flushes;
mod handle;
mod history;
pub(super) mod indexes;
mod installation;
mod memory;
mod reads;
mod replay;
mod requests;
mod retention;
pub(super) mod sharing;
mod sinks;
mod start;
mod swap;
mod writes;

/// Events handled before it is decided again what has become possible.
const EVENTS_AT_ONCE: usize = 1024;

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

    fn now(&self) -> Moment {
        self.clock.elapsed()
    }

    fn run(mut self, queues: Queues) {
        spill_from_this_thread_to(&self.memory);
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

impl State {
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

#[cfg(test)]
mod tests;
