//! The workers' threads: commands in, reports out, timely and the sources in between.
//!
//! All workers apply one totally ordered list of commands, so they build the same dataflows in
//! the same order. A turn of a worker: apply commands, take rows from the source readers, step
//! timely, tell what has been finished. With nothing to do it parks until a command, a reader or
//! another worker wakes it.
//!
//! What is idle is complete: a dataflow whose inputs a closed epoch did not touch is not moved;
//! its readers take the newest closed epoch as its frontier (see `Plane::frontier_of`).

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::Thread;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, unbounded};
use timely::dataflow::operators::probe::Handle;
use timely::worker::Worker;

use crate::connectors::{Offset, Source, SplitId};
use crate::dataflow::assemble::{CLOCK, assemble, result_exchange, result_key};
use crate::dataflow::contract;
use crate::dataflow::driver::{CheckpointPoint, DriverContext, HandedOver};
use crate::dataflow::hub::{Hub, Inbox};
use crate::dataflow::metered::{DataflowFigures, DataflowMetrics};
use crate::dataflow::operator::{Operator, RowError};
use crate::dataflow::operators::arrange::{Arrange, Indexes};
use crate::dataflow::operators::materialize::Materialize;
use crate::dataflow::operators::sink::Sink;
use crate::dataflow::operators::source::{Backfill, WorkerSource};
use crate::dataflow::operators::subscribe::{Subscribe, SubscriptionSender};
use crate::dataflow::published::{ContentAt, Published, SnapshotRequest};
use crate::observe::clock::Clock;
use crate::observe::process;
use crate::plan::node::{Exchange, Plan, SourceSpec};
use crate::state::arrangement::Arrangement;
use crate::state::blocks::spill_from_this_thread_to;
use crate::state::delta::RestoredState;
use crate::state::history::{Forgotten, History, HistoryBudget};
use crate::state::multi_table::MultiTable;
use crate::state::spill::{EVERYTHING, PASSES, Pass, StateMemory};
use crate::storage::manifest::SourcePlace;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;
use crate::types::time::{Epoch, EventTime, Watermark};

#[cfg(test)]
mod tests;

/// SQLSTATE of Postgres for a snapshot that has gone.
pub const SNAPSHOT_TOO_OLD: SqlState = SqlState("72000");

/// Partial matches that one operator tells of on one worker when somebody looks.
const PARTIAL_MATCHES_SHOWN: usize = 10_000;

/// What the coordinator tells every worker, in one order.
#[derive(Clone)]
pub enum Command {
    CreateTable(ObjectId),
    /// With the place that it was read to, when it was read before the start.
    CreateSource(Arc<SourceSpec>, Arc<dyn Source>, Arc<SourceMetrics>, Option<Arc<SourcePlace>>),
    CreateDataflow(Arc<DataflowSpec>),
    Drop(ObjectId),
    /// Two views change places; nothing is under way.
    Swap(Arc<SwapDataflows>),
    /// A dataflow has failed on some worker, or one that it reads has: nobody waits for it any more.
    Stopped(ObjectId),
    Close(Arc<CloseEpoch>),
    /// Report the watermarks of all objects here.
    Watermarks {
        request: u64,
    },
    /// Report the content of these views at a closed epoch; without one, at the newest.
    Snapshot {
        request: u64,
        objects: Arc<Vec<ObjectId>>,
        epoch: Option<Epoch>,
    },
    /// Views need not be read any more as they were before these epochs.
    Forget(Arc<Vec<(ObjectId, Epoch)>>),
    /// Report what the operators of these dataflows have done; of all when there are none.
    Figures {
        request: u64,
        objects: Arc<Vec<ObjectId>>,
        /// Tell the partial matches of row patterns, too.
        partial_matches: bool,
    },
    /// Make the room in memory that is wanted, and look whether sources may go on.
    Relieve,
    /// Makes the content of a view wrong on the first worker, for tests of those who look.
    #[cfg(test)]
    Tamper(ObjectId, ChangeBatch),
    Shutdown,
}

/// The end of an epoch.
pub struct CloseEpoch {
    pub epoch: Epoch,
    /// Changes of tables in this epoch, one share per worker.
    pub changes: Vec<(ObjectId, Vec<ChangeBatch>)>,
    /// Dataflows that the epoch may have touched.
    pub affected: Arc<Vec<ObjectId>>,
    /// Sources that may give rows in the next epoch.
    pub admitted: Vec<ObjectId>,
    /// The views that hand over their state as of this epoch, which are all in `affected`; with
    /// them the sources tell how far they are. `None`: there is no checkpoint.
    pub checkpoint: Option<Vec<ObjectId>>,
    /// Sources and tables whose watermark moved: what it is at the end of the epoch.
    pub watermarks: Vec<(ObjectId, Watermark)>,
    /// Logical time; it never goes back.
    pub time: EventTime,
    /// The earliest event time of rows that were late and are taken in again.
    pub reopened: Option<EventTime>,
}

/// A view that gets another dataflow.
pub struct SwapDataflows {
    pub view: ObjectId,
    /// The new dataflow, which has its content; it gets the old one's.
    pub by: ObjectId,
    /// Where each of the old columns is among the new ones, as far as somebody reads it.
    pub columns: Vec<Option<usize>>,
    /// The open epoch, in which readers get the difference.
    pub epoch: Epoch,
    /// Readers that stay with the old dataflow, which has the id `by` from then on.
    pub stay: Vec<ObjectId>,
}

/// A dataflow to build.
pub struct DataflowSpec {
    pub object: ObjectId,
    pub name: String,
    pub plan: Arc<Plan>,
    pub result: DataflowResult,
    /// The newest closed epoch; every object that is scanned has finished it.
    pub as_of: Epoch,
    /// Logical time for the initial content.
    pub time: EventTime,
    /// The tables that are scanned, as of then: one share of their rows per worker.
    pub table_contents: HashMap<ObjectId, Vec<Vec<RecordBatch>>>,
    /// The state that it begins with instead of the content of what it reads.
    pub restore: Option<Arc<RestoredState>>,
    /// It begins in the past.
    pub past: Option<Past>,
    /// Whether what the view was at epochs before the newest is kept.
    pub keeps_history: bool,
    /// Changes of the open epoch that are in `table_contents`: one share per worker.
    pub not_yet: HashMap<ObjectId, Vec<ChangeBatch>>,
}

/// How a dataflow comes from an epoch in the past, its `as_of`, to now.
pub struct Past {
    /// The newest closed epoch.
    pub until: Epoch,
    /// Logical times of the epochs behind `as_of`.
    pub times: Vec<(Epoch, EventTime)>,
    /// What has changed in the tables that are scanned, epoch by epoch: one share per worker.
    pub table_changes: HashMap<ObjectId, Vec<(Epoch, Vec<ChangeBatch>)>>,
}

/// Where a dataflow's changes end.
pub enum DataflowResult {
    Materialize,
    /// In an index by these columns, for joins.
    Arrange {
        key: Vec<usize>,
    },
    Subscribe(SubscriptionSender),
    /// Handed over with each checkpoint; with the first content or without.
    /// One that `forgets` counts them only.
    Sink {
        snapshot: bool,
        forgets: bool,
    },
}

/// What a source has done, over all workers.
#[derive(Debug, Default)]
pub struct SourceMetrics {
    pub rows: AtomicU64,
    pub malformed: AtomicU64,
    /// Rows that came behind the watermark.
    pub late: AtomicU64,
    /// Workers whose share has ended for good.
    pub workers_finished: AtomicU64,
    /// When the first worker began to read; `None` when nobody reads.
    pub began: Mutex<Option<Instant>>,
}

impl SourceMetrics {
    /// A worker has begun to read.
    pub fn began_at(&self, at: Instant) {
        let mut began = self.began.lock().expect("nobody panics while holding it");
        *began = Some(began.map_or(at, |before| before.min(at)));
    }

    /// A worker has stopped reading, and every other one is about to.
    pub fn ended(&self) {
        *self.began.lock().expect("nobody panics while holding it") = None;
    }
}

/// What a worker tells the coordinator.
pub enum Report {
    /// Everything of this epoch is computed here, in all dataflows that have their content.
    Computed { worker: usize, epoch: Epoch },
    /// A source that is not admitted has rows.
    SourceReady(ObjectId),
    /// An admitted source has given rows in the open epoch.
    SourceTouched { object: ObjectId, epoch: Epoch },
    /// It has no more for now, or its share of the epoch is used up.
    SourceDrained { object: ObjectId, epoch: Epoch },
    /// News of a source's event time. `drops`: how many `Command::Drop` the worker had seen, which
    /// tells a reading from the one before it.
    SourceTime { object: ObjectId, worker: usize, drops: u64, news: TimeNews },
    /// Rows that came behind the source's watermark: all its columns, event time, watermark.
    LateRows { object: ObjectId, rows: RecordBatch },
    /// The answer to `Command::Watermarks`.
    Watermarks { request: u64, marks: Vec<(ObjectId, Watermark)> },
    /// A dataflow wants an epoch at this time.
    Wake { object: ObjectId, at: EventTime },
    /// A new dataflow has its initial content here, and all that was told as computed without it.
    Hydrated { worker: usize, object: ObjectId },
    /// The answer to `Command::Snapshot` for one object; `None`: it has gone.
    Snapshot {
        request: u64,
        object: ObjectId,
        content: Option<std::result::Result<ContentAt, Forgotten>>,
    },
    /// The answer to `Command::Figures`.
    Figures { request: u64, worker: usize, figures: Vec<(ObjectId, DataflowFigures)> },
    /// A dataflow cannot go on.
    Failed { object: ObjectId, error: Error },
    /// Rows or records that were left out in an epoch.
    RowErrors { object: ObjectId, epoch: Epoch, errors: Vec<RowError> },
    /// How far the sources have been read here at the end of the epoch of a checkpoint.
    Places { worker: usize, epoch: Epoch, sources: Vec<(ObjectId, SourcePlace)> },
    /// What a sink has to write out of the epochs up to that of a checkpoint; comes before the
    /// state of its dataflow.
    SinkChanges { object: ObjectId, epoch: Epoch, changes: Vec<ChangeBatch> },
    /// What a view's operators have handed over here for the checkpoint of an epoch.
    State { worker: usize, epoch: Epoch, object: ObjectId, handed: HandedOver },
}

/// What a worker knows of a source's event time.
pub enum TimeNews {
    /// The splits of its share, all that are known now, with the watermarks that those have which
    /// were read before: after a restart they may have given all their rows.
    Splits(Vec<(SplitId, Option<Watermark>)>),
    /// A split has given rows; its own watermark after them.
    Rows { split: SplitId, watermark: Option<Watermark> },
    /// A split has ended.
    Ended(SplitId),
    /// The whole share has ended.
    Finished,
}

/// Told of every report; called on the worker's thread, must not block.
pub type Reporter = Arc<dyn Fn(Report) + Send + Sync>;

/// The running workers.
pub struct Workers {
    commands: Vec<Sender<Command>>,
    threads: Vec<Thread>,
    /// Joins the threads when dropped, after `Command::Shutdown`.
    guards: Option<timely::communication::WorkerGuards<()>>,
}

impl Workers {
    /// Starts `count` workers; `closed` is the epoch before the first.
    ///
    /// # Errors
    /// When the threads cannot be started.
    pub fn start(
        count: usize,
        closed: Epoch,
        clock: Clock,
        history: Arc<HistoryBudget>,
        memory: Arc<StateMemory>,
        reporter: Reporter,
    ) -> Result<Workers> {
        assert!(count > 0);
        // Commands in flight are bounded by the protocol: a few per open epoch, statement and
        // reader; the coordinator never runs ahead of an epoch that is not computed.
        let (commands, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| unbounded()).unzip();
        let receivers = Mutex::new(receivers.into_iter().map(Some).collect::<Vec<_>>());
        let (thread_sender, thread_receiver) = bounded(count);
        let guards = timely::execute(timely::Config::process(count), move |worker| {
            let index = worker.index();
            let commands: Receiver<Command> =
                receivers.lock().expect("no worker panics while it holds the lock")[index]
                    .take()
                    .expect("each worker starts once");
            thread_sender
                .send((index, std::thread::current()))
                .expect("the starter waits for every worker");
            let (history, memory) = (history.clone(), memory.clone());
            spill_from_this_thread_to(&memory);
            let plane =
                Plane::new(worker, closed, clock.clone(), history, memory, reporter.clone());
            run(worker, commands, plane);
        })
        .map_err(|text| Error::internal(format!("workers did not start: {text}")))?;
        let mut threads: Vec<(usize, Thread)> = (0..count)
            .map(|_| thread_receiver.recv())
            .collect::<std::result::Result<_, _>>()
            .map_err(|_| Error::internal("a worker ended while it started"))?;
        threads.sort_by_key(|(index, _)| *index);
        let threads = threads.into_iter().map(|(_, thread)| thread).collect();
        Ok(Workers { commands, threads, guards: Some(guards) })
    }

    pub fn count(&self) -> usize {
        self.commands.len()
    }

    /// Sends a command to every worker.
    pub fn send(&self, command: Command) {
        for (sender, thread) in self.commands.iter().zip(&self.threads) {
            // A worker that has gone is noticed at shutdown; its commands have no effect.
            let _ = sender.send(command.clone());
            thread.unpark();
        }
    }

    /// Ends the threads and waits for them.
    pub fn stop(&mut self) {
        self.send(Command::Shutdown);
        if let Some(guards) = self.guards.take() {
            drop(guards.join());
        }
    }
}

fn run(worker: &mut Worker, commands: Receiver<Command>, mut plane: Plane) {
    loop {
        // After a command the turn is finished without sleeping: it may have to be answered.
        let mut busy = false;
        loop {
            match commands.try_recv() {
                Ok(Command::Shutdown) | Err(TryRecvError::Disconnected) => {
                    for index in worker.installed_dataflows() {
                        worker.drop_dataflow(index);
                    }
                    return;
                }
                Ok(command) => {
                    plane.apply(worker, command);
                    busy = true;
                }
                Err(TryRecvError::Empty) => break,
            }
        }
        busy |= plane.poll_sources();
        // Everything that makes work unparks the thread, so an idle worker sleeps without limit.
        worker.step_or_park(if busy { Some(Duration::ZERO) } else { None });
        plane.after_step();
    }
}

/// One object on one worker.
#[expect(clippy::large_enum_variant, reason = "there is one an object")]
enum Entry {
    Table(Rc<RefCell<Hub>>),
    Source(WorkerSource),
    Dataflow(Box<Dataflow>),
}

struct Dataflow {
    /// What its reports name.
    id: Rc<Cell<ObjectId>>,
    /// For `Worker::drop_dataflow`.
    index: usize,
    probe: Handle<u64>,
    hub: Rc<RefCell<Hub>>,
    scans: Vec<Rc<RefCell<Inbox>>>,
    constants: Vec<Rc<RefCell<Inbox>>>,
    checkpoints: Rc<CheckpointPoint>,
    /// Readings of the past of sources; empty when the initial content is there.
    backfills: Vec<Backfill>,
    as_of: Epoch,
    /// The newest closed epoch that touched it.
    last_affected: Epoch,
    content: Content,
    failed: Rc<Cell<bool>>,
    published: Option<Rc<RefCell<Published>>>,
    /// The rows of an index.
    arrangement: Option<Rc<RefCell<Arrangement>>>,
    subscription: Option<SubscriptionSender>,
    metrics: Rc<DataflowMetrics>,
}

/// How far a dataflow has come with what it began with.
#[derive(Clone, Copy, PartialEq)]
enum Content {
    /// It takes up the content of what it reads. Epochs that close meanwhile do not wait for it.
    Coming,
    /// It has that, but not all of the epochs up to this one, which were told as computed without
    /// it. Those behind it wait.
    CatchingUp(Epoch),
    There,
}

/// One worker's share of the data plane.
struct Plane {
    worker: usize,
    workers: usize,
    reporter: Reporter,
    clock: Clock,
    history: Arc<HistoryBudget>,
    memory: Arc<StateMemory>,
    /// The newest closed epoch; the next one is open.
    closed: Epoch,
    entries: BTreeMap<ObjectId, Entry>,
    /// Closed epochs that are not computed here, with the dataflows they touched; oldest first.
    outstanding: VecDeque<(Epoch, Arc<Vec<ObjectId>>)>,
    /// Dataflows without their initial content, or without epochs that did not wait for them.
    hydrating: Vec<ObjectId>,
    /// Dataflows that have not handed over their state for the checkpoint of that epoch.
    checkpointing: Vec<(ObjectId, Epoch)>,
    /// `Command::Drop`s so far.
    drops: u64,
}

impl Plane {
    fn new(
        worker: &Worker,
        closed: Epoch,
        clock: Clock,
        history: Arc<HistoryBudget>,
        memory: Arc<StateMemory>,
        reporter: Reporter,
    ) -> Plane {
        Plane {
            worker: worker.index(),
            workers: worker.peers(),
            reporter,
            clock,
            history,
            memory,
            closed,
            entries: BTreeMap::new(),
            outstanding: VecDeque::new(),
            hydrating: Vec::new(),
            checkpointing: Vec::new(),
            drops: 0,
        }
    }

    fn report(&self, report: Report) {
        (self.reporter)(report);
    }

    fn apply(&mut self, worker: &mut Worker, command: Command) {
        match command {
            Command::CreateTable(object) => {
                self.entries.insert(object, Entry::Table(Rc::default()));
            }
            Command::CreateSource(spec, source, metrics, place) => {
                let mut entry = WorkerSource::new(spec, source, metrics, self.worker, self.workers);
                if let Some(place) = place {
                    entry.resume(&place);
                }
                self.entries.insert(entry.object(), Entry::Source(entry));
            }
            Command::CreateDataflow(spec) => {
                if let Err(error) = self.create_dataflow(worker, &spec) {
                    self.report(Report::Failed { object: spec.object, error });
                }
            }
            Command::Drop(object) => self.drop_object(worker, object),
            Command::Stopped(object) => {
                if let Some(Entry::Dataflow(dataflow)) = self.entries.get(&object) {
                    dataflow.failed.set(true);
                }
            }
            Command::Swap(swap) => {
                if let Err(error) = self.swap(&swap) {
                    self.report(Report::Failed { object: swap.view, error });
                }
            }
            Command::Close(close) => self.close(&close),
            Command::Snapshot { request, objects, epoch } => {
                self.snapshot(request, &objects, epoch.unwrap_or(self.closed));
            }
            Command::Forget(floors) => self.forget(&floors),
            Command::Figures { request, objects, partial_matches } => {
                self.figures(request, &objects, partial_matches);
            }
            Command::Watermarks { request } => {
                let marks = self.entries.iter().filter_map(|(object, entry)| {
                    Some((*object, hub(entry).borrow().watermark()?))
                });
                let marks = marks.collect();
                self.report(Report::Watermarks { request, marks });
            }
            Command::Relieve => {
                PASSES.into_iter().for_each(|pass| self.spill(pass));
                process::give_back_memory();
                self.memory.done();
            }
            #[cfg(test)]
            Command::Tamper(object, changes) => {
                if let (0, Some(Entry::Dataflow(dataflow))) =
                    (self.worker, self.entries.get(&object))
                    && let Some(published) = &dataflow.published
                {
                    let applied = published.borrow_mut().table_mut().apply(&changes);
                    applied.expect("a view takes any change");
                }
            }
            Command::Shutdown => unreachable!("handled by the loop"),
        }
    }

    /// The rows of an index that runs here.
    fn arrangement_of(&self, object: ObjectId) -> Option<&Rc<RefCell<Arrangement>>> {
        match self.entries.get(&object)? {
            Entry::Dataflow(dataflow) => dataflow.arrangement.as_ref(),
            Entry::Table(_) | Entry::Source(_) => None,
        }
    }

    /// The indexes that a plan reads.
    fn arrangements(&self, plan: &Plan) -> BTreeMap<ObjectId, Rc<RefCell<Arrangement>>> {
        let read = plan.root.scanned_objects().into_iter();
        read.filter_map(|object| Some((object, self.arrangement_of(object)?.clone()))).collect()
    }

    fn hub_of(&self, object: ObjectId) -> Result<Rc<RefCell<Hub>>> {
        match self.entries.get(&object) {
            Some(entry) => Ok(hub(entry).clone()),
            None => Err(Error::internal(format!("object {object} is not in the data plane"))),
        }
    }

    fn create_dataflow(&mut self, worker: &mut Worker, spec: &Arc<DataflowSpec>) -> Result<()> {
        let began = spec.past.as_ref().map_or(spec.as_of, |past| past.until);
        assert_eq!(began, self.closed, "dataflows start at the newest closed epoch");
        let failed = Rc::new(Cell::new(false));
        let id = Rc::new(Cell::new(spec.object));
        let object = spec.object;
        let (failed_id, errors_id) = (id.clone(), id.clone());
        let (reporter, failed_flag) = (self.reporter.clone(), failed.clone());
        let wakes_to = self.reporter.clone();
        let errors_to = self.reporter.clone();
        let metrics = Rc::new(DataflowMetrics::new(self.clock.clone()));
        let context = DriverContext {
            worker: self.worker,
            workers: self.workers,
            as_of: spec.as_of,
            metrics: metrics.clone(),
            on_failure: Rc::new(move |error| {
                failed_flag.set(true);
                reporter(Report::Failed { object: failed_id.get(), error });
            }),
            on_error: spec.plan.options.on_error,
            on_row_errors: Rc::new(move |epoch, errors| {
                errors_to(Report::RowErrors { object: errors_id.get(), epoch, errors });
            }),
            on_wake: Rc::new(move |at| wakes_to(Report::Wake { object, at })),
            backlog: Rc::default(),
            checkpoints: Rc::default(),
            restore: spec.restore.clone(),
            indexes: Indexes {
                arrangements: Rc::new(self.arrangements(&spec.plan)),
                failed: failed.clone(),
                as_of: Some(spec.as_of),
            },
            memory: self.memory.clone(),
        };
        let mut arrangement = None;
        let (result, published): (Box<dyn Operator>, _) = match &spec.result {
            DataflowResult::Arrange { key } => {
                let rows = Arrangement::new(spec.plan.root.schema(), key.clone(), spec.as_of)?;
                let rows = Rc::new(RefCell::new(rows));
                arrangement = Some(rows.clone());
                (Box::new(Arrange::new(rows)), None)
            }
            DataflowResult::Materialize => {
                let published = new_published(spec, self.history.clone())?;
                let published = Rc::new(RefCell::new(published));
                let key = result_key(&spec.plan);
                let schema = spec.plan.root.schema();
                (Box::new(Materialize::new(schema, key, published.clone())), Some(published))
            }
            DataflowResult::Subscribe(sender) => {
                let schema = spec.plan.root.schema();
                (Box::new(Subscribe::new(schema, sender.clone())), None)
            }
            DataflowResult::Sink { snapshot, forgets } => {
                let reporter = self.reporter.clone();
                let hand_over = Box::new(move |epoch, changes| {
                    reporter(Report::SinkChanges { object, epoch, changes });
                });
                // One that takes up its state has written its first content out.
                let skip_until = (!snapshot).then_some(spec.as_of);
                let schema = spec.plan.root.schema();
                let sink = Sink::new(schema, skip_until, hand_over);
                (Box::new(if *forgets { sink.that_forgets() } else { sink }), None)
            }
        };
        let exchange = match &spec.result {
            // What is only counted may be anywhere.
            DataflowResult::Sink { forgets: true, .. } => Exchange::Local,
            DataflowResult::Arrange { key } => Exchange::Hash(key.clone()),
            _ => result_exchange(&spec.plan),
        };
        let index = worker.next_dataflow_index();
        let hub: Rc<RefCell<Hub>> = Rc::default();
        let assembled = worker.dataflow_named::<u64, _, _>(&spec.name, |scope| {
            assemble(scope, &spec.plan, result, exchange, hub.clone(), &context)
        })?;
        let mut backfills = Vec::new();
        for inbox in &assembled.scans {
            self.fill(inbox, spec, &mut backfills)?;
        }
        let subscription = match &spec.result {
            DataflowResult::Subscribe(sender) => Some(sender.clone()),
            DataflowResult::Materialize
            | DataflowResult::Arrange { .. }
            | DataflowResult::Sink { .. } => None,
        };
        let dataflow = Dataflow {
            id,
            index,
            probe: assembled.probe,
            hub,
            scans: assembled.scans,
            constants: assembled.constants,
            checkpoints: context.checkpoints,
            backfills,
            as_of: spec.as_of,
            last_affected: began,
            content: Content::Coming,
            failed,
            published,
            arrangement,
            subscription,
            metrics,
        };
        self.entries.insert(object, Entry::Dataflow(Box::new(dataflow)));
        self.hydrating.push(object);
        Ok(())
    }

    /// Gives a new scan its object's content as of the newest closed epoch, and subscribes it to
    /// what follows.
    fn fill(
        &mut self,
        inbox: &Rc<RefCell<Inbox>>,
        spec: &DataflowSpec,
        backfills: &mut Vec<Backfill>,
    ) -> Result<()> {
        let object = inbox.borrow().object;
        if object == CLOCK {
            let mut inbox = inbox.borrow_mut();
            inbox.push_watermark(spec.as_of, Watermark(spec.time));
            for (epoch, time) in spec.past.iter().flat_map(|past| &past.times) {
                inbox.push_watermark(*epoch, Watermark(*time));
            }
            return Ok(());
        }
        let columns = inbox.borrow().columns.clone();
        self.hub_of(object)?.borrow_mut().subscribe(inbox);
        if self.arrangement_of(object).is_some() {
            // The join looks what is there up in the index, and wants what changes from now on.
            inbox.borrow_mut().mute_until(spec.as_of);
            return self.tell_watermark(inbox, spec.as_of);
        }
        if spec.restore.is_some() {
            if let Some(Entry::Source(source)) = self.entries.get_mut(&object) {
                source.read_wanted_columns()?;
            }
            return self.tell_watermark(inbox, spec.as_of);
        }
        match self.entries.get_mut(&object) {
            Some(Entry::Table(_)) => {
                let shares = spec.table_contents.get(&object);
                for rows in shares.and_then(|s| s.get(self.worker)).into_iter().flatten() {
                    let rows = ChangeBatch::inserts(rows.project(&columns)?);
                    inbox.borrow_mut().push(spec.as_of, rows);
                }
                if let Some(shares) = spec.not_yet.get(&object) {
                    let changes = shares[self.worker].project(&columns)?.negate();
                    inbox.borrow_mut().push(spec.as_of, changes);
                }
                let changes = spec.past.iter().filter_map(|p| p.table_changes.get(&object));
                for (epoch, shares) in changes.flatten() {
                    let changes = shares[self.worker].project(&columns)?;
                    inbox.borrow_mut().push(*epoch, changes);
                }
            }
            Some(Entry::Dataflow(upstream)) if spec.past.is_some() => {
                if let Some(published) = &upstream.published {
                    fill_from_past(inbox, &mut published.borrow_mut(), spec.as_of)?;
                }
            }
            Some(Entry::Dataflow(upstream)) => {
                if let Some(published) = &upstream.published {
                    for rows in published.borrow_mut().snapshot().batches() {
                        let rows = self.memory.keep_batch(rows?.project(&columns)?);
                        let rows = ChangeBatch::inserts(rows);
                        inbox.borrow_mut().push(spec.as_of, rows);
                    }
                }
            }
            Some(Entry::Source(source)) => {
                // What was late and has been taken in again.
                let shares = spec.table_contents.get(&object);
                for rows in shares.and_then(|s| s.get(self.worker)).into_iter().flatten() {
                    let rows = ChangeBatch::inserts(rows.project(&columns)?);
                    inbox.borrow_mut().push(spec.as_of, rows);
                }
                backfills.extend(source.backfill(inbox.clone())?);
                source.read_wanted_columns()?;
            }
            None => return Err(Error::internal(format!("scanned object {object} has gone"))),
        }
        let until = spec.past.as_ref().map_or(spec.as_of, |past| past.until);
        self.tell_watermark(inbox, until)
    }

    /// The watermark of everything up to `as_of`; a driver hands it over after the content.
    fn tell_watermark(&self, inbox: &Rc<RefCell<Inbox>>, as_of: Epoch) -> Result<()> {
        let mut inbox = inbox.borrow_mut();
        if let Some(watermark) = self.hub_of(inbox.object)?.borrow().watermark() {
            inbox.push_watermark(as_of, watermark);
        }
        Ok(())
    }

    /// Lets two views change places, and gives those who read the first what the second has more
    /// and less.
    fn swap(&mut self, swap: &SwapDataflows) -> Result<()> {
        let SwapDataflows { view, by, columns, epoch, stay } = swap;
        for reader in stay {
            let Some(Entry::Dataflow(reader)) = self.entries.get(reader) else { continue };
            for inbox in reader.scans.iter().filter(|inbox| inbox.borrow().object == *view) {
                inbox.borrow_mut().object = *by;
            }
        }
        let (Some(Entry::Dataflow(old)), Some(Entry::Dataflow(new))) =
            (self.entries.remove(view), self.entries.remove(by))
        else {
            return Err(Error::internal("only views are swapped"));
        };
        if let (Some(before), Some(now)) = (&old.published, &new.published) {
            // Every closed epoch is computed, so it has what is asked for.
            before.borrow_mut().serve(|_| true);
            now.borrow_mut().begin_anew(*epoch);
            let (before, now) = (before.borrow_mut().snapshot(), now.borrow_mut().snapshot());
            let mut old = old.hub.borrow_mut();
            let staying = old.readers_as(*by);
            new.hub.borrow_mut().take_over(&mut old, *epoch, columns, &before, &now)?;
            staying.iter().for_each(|inbox| old.subscribe(inbox));
        }
        old.id.set(*by);
        new.id.set(*view);
        self.entries.insert(*view, Entry::Dataflow(new));
        self.entries.insert(*by, Entry::Dataflow(old));
        Ok(())
    }

    fn drop_object(&mut self, worker: &mut Worker, object: ObjectId) {
        if let Some(Entry::Dataflow(dataflow)) = self.entries.remove(&object) {
            worker.drop_dataflow(dataflow.index);
        }
        self.hydrating.retain(|other| *other != object);
        self.checkpointing.retain(|(other, _)| *other != object);
        self.drops += 1;
        for entry in self.entries.values_mut() {
            if let Entry::Source(source) = entry {
                source.stop_if_unread();
            }
        }
    }

    fn close(&mut self, close: &CloseEpoch) {
        assert_eq!(close.epoch, self.closed.next(), "epochs close in order");
        if let Some(time) = close.reopened {
            contract::reopen(time);
        }
        for (object, shares) in &close.changes {
            // Of a source: rows that were late and are taken in again.
            let hub = match self.entries.get(object) {
                Some(Entry::Table(hub)) => hub,
                Some(Entry::Source(source)) => &source.hub,
                _ => continue,
            };
            let pushed = hub.borrow_mut().push(close.epoch, &shares[self.worker], None);
            pushed.expect("readers want columns that the object has");
        }
        for (object, watermark) in &close.watermarks {
            if let Some(entry) = self.entries.get(object) {
                hub(entry).borrow_mut().announce(close.epoch, *watermark);
            }
        }
        self.closed = close.epoch;
        for object in close.affected.iter() {
            if let Some(Entry::Dataflow(dataflow)) = self.entries.get_mut(object) {
                dataflow.last_affected = close.epoch;
                for inbox in dataflow.scans.iter().filter(|inbox| inbox.borrow().object == CLOCK) {
                    inbox.borrow_mut().push_watermark(close.epoch, Watermark(close.time));
                }
            }
        }
        if let Some(views) = &close.checkpoint {
            self.begin_checkpoint(close.epoch, views);
        }
        for (object, entry) in &mut self.entries {
            if let Entry::Source(source) = entry {
                source.open_epoch(close.admitted.contains(object));
            }
        }
        self.outstanding.push_back((close.epoch, close.affected.clone()));
        self.advance_scans();
    }

    /// Tells where the sources are at the end of `epoch`, and asks the views for their state then.
    fn begin_checkpoint(&mut self, epoch: Epoch, views: &[ObjectId]) {
        let sources = self.entries.iter().filter_map(|(object, entry)| match entry {
            Entry::Source(source) => Some((*object, source.place()?)),
            _ => None,
        });
        let sources = sources.collect();
        self.report(Report::Places { worker: self.worker, epoch, sources });
        for object in views {
            if let Some(Entry::Dataflow(dataflow)) = self.entries.get(object) {
                dataflow.checkpoints.ask(epoch);
                self.checkpointing.push((*object, epoch));
            }
        }
    }

    /// Passes on the state of the views all of whose operators have handed it over.
    fn tell_states(&mut self) {
        for (object, epoch) in std::mem::take(&mut self.checkpointing) {
            let Some(Entry::Dataflow(dataflow)) = self.entries.get(&object) else { continue };
            match dataflow.checkpoints.complete() {
                Some(handed) => {
                    let worker = self.worker;
                    self.report(Report::State { worker, epoch, object, handed });
                }
                // One that has failed never does; the coordinator knows.
                None if dataflow.failed.get() => {}
                None => self.checkpointing.push((object, epoch)),
            }
        }
    }

    /// Forgets what views were before these epochs.
    fn forget(&mut self, floors: &[(ObjectId, Epoch)]) {
        for (object, floor) in floors {
            if let Some(Entry::Dataflow(dataflow)) = self.entries.get(object)
                && let Some(published) = &dataflow.published
            {
                published.borrow_mut().history_mut().forget(*floor);
            }
        }
    }

    fn snapshot(&mut self, request: u64, objects: &[ObjectId], epoch: Epoch) {
        for object in objects {
            let Some(Entry::Dataflow(dataflow)) = self.entries.get(object) else {
                self.report(Report::Snapshot { request, object: *object, content: None });
                continue;
            };
            let Some(published) = &dataflow.published else { continue };
            let (reporter, object) = (self.reporter.clone(), *object);
            let reply = Box::new(move |content| {
                reporter(Report::Snapshot { request, object, content: Some(content) });
            });
            published.borrow_mut().request(SnapshotRequest { epoch, reply });
        }
    }

    fn figures(&self, request: u64, objects: &[ObjectId], partial_matches: bool) {
        let mut figures = Vec::new();
        for (object, entry) in &self.entries {
            let Entry::Dataflow(dataflow) = entry else { continue };
            if objects.is_empty() || objects.contains(object) {
                // What is idle is complete.
                let idle = probe_frontier(&dataflow.probe) > dataflow.last_affected;
                let closed = if idle { Epoch(0) } else { dataflow.last_affected };
                let mut own = dataflow.metrics.figures(closed);
                if partial_matches {
                    own.partial_matches = dataflow.metrics.partial_matches(PARTIAL_MATCHES_SHOWN);
                }
                figures.push((*object, own));
            }
        }
        self.report(Report::Figures { request, worker: self.worker, figures });
    }

    /// The epochs that have not passed `object`, given what is idle is complete.
    fn frontier_of(&self, object: ObjectId) -> Epoch {
        match self.entries.get(&object) {
            _ if object == CLOCK => self.closed.next(),
            Some(Entry::Table(_) | Entry::Source(_)) => self.closed.next(),
            Some(Entry::Dataflow(dataflow)) => {
                let probed = probe_frontier(&dataflow.probe);
                let idle = probed > dataflow.last_affected;
                if idle && dataflow.content == Content::There && !dataflow.failed.get() {
                    self.closed.next()
                } else {
                    probed
                }
            }
            // An input that was dropped with its readers, which are about to go too.
            None => Epoch(0),
        }
    }

    /// Lets epochs into the dataflows that have something to finish.
    fn advance_scans(&mut self) {
        let mut active: Vec<ObjectId> = self.hydrating.clone();
        for (_, affected) in &self.outstanding {
            active.extend(affected.iter().copied());
        }
        active.sort_unstable();
        active.dedup();
        for object in active {
            let Some(Entry::Dataflow(dataflow)) = self.entries.get(&object) else { continue };
            for inbox in &dataflow.constants {
                inbox.borrow_mut().advance(self.closed.next());
            }
            for inbox in &dataflow.scans {
                let filling = dataflow.backfills.iter().any(|b| b.fills(inbox));
                if !filling {
                    let frontier = self.frontier_of(inbox.borrow().object);
                    inbox.borrow_mut().advance(frontier);
                }
            }
        }
    }

    /// Lets rows of all operators go to the disk, as far as that is wanted.
    fn spill(&self, pass: Pass) {
        for entry in self.entries.values().filter(|_| self.memory.is_wanted()) {
            if let Entry::Dataflow(dataflow) = entry {
                dataflow.metrics.spill(&self.memory, pass);
            }
        }
    }

    /// Takes rows from readers; whether there were any. While memory is used up, or state is on its
    /// way to the disk, there are none: who makes room wakes this worker.
    fn poll_sources(&mut self) -> bool {
        if self.memory.sources_wait() {
            return false;
        }
        let epoch_bytes_max = self.memory.epoch_bytes();
        let open = self.closed.next();
        let mut busy = false;
        let mut reports = Vec::new();
        for (object, entry) in &mut self.entries {
            match entry {
                Entry::Source(source) => busy |= source.poll(open, epoch_bytes_max, &mut reports),
                Entry::Dataflow(dataflow) if !dataflow.backfills.is_empty() => {
                    let epoch = dataflow.as_of;
                    for backfill in &mut dataflow.backfills {
                        busy |= backfill.poll(epoch, *object, &mut reports);
                    }
                    dataflow.backfills.retain(|backfill| !backfill.done());
                }
                _ => {}
            }
        }
        for mut report in reports {
            if let Report::SourceTime { drops, .. } = &mut report {
                *drops = self.drops;
            }
            self.report(report);
        }
        busy
    }

    /// Tells which dataflows have their content, and all that was computed without them.
    fn look_at_contents(&mut self) {
        let told = self.outstanding.front().map_or(self.closed, |(epoch, _)| Epoch(epoch.0 - 1));
        let mut hydrating = std::mem::take(&mut self.hydrating);
        hydrating.retain(|object| {
            let Some(Entry::Dataflow(dataflow)) = self.entries.get_mut(object) else {
                return false;
            };
            let frontier = probe_frontier(&dataflow.probe);
            if dataflow.content == Content::Coming && frontier > dataflow.as_of {
                dataflow.content = Content::CatchingUp(told);
            }
            let Content::CatchingUp(until) = dataflow.content else { return true };
            if frontier <= until.min(dataflow.last_affected) {
                return true;
            }
            dataflow.content = Content::There;
            (self.reporter)(Report::Hydrated { worker: self.worker, object: *object });
            false
        });
        self.hydrating = hydrating;
    }

    /// Tells what has been finished since the last turn.
    fn after_step(&mut self) {
        // First: those that have become complete let others go on.
        self.look_at_contents();
        self.advance_scans();
        if self.memory.is_always_full() {
            self.spill(EVERYTHING);
        }
        if !self.checkpointing.is_empty() {
            self.tell_states();
        }
        for entry in self.entries.values() {
            let Entry::Dataflow(dataflow) = entry else { continue };
            let frontier = probe_frontier(&dataflow.probe);
            if let Some(published) = &dataflow.published
                && published.borrow().has_requests()
                && dataflow.content == Content::There
            {
                // Idle is complete: nothing at or before the request's epoch is left when all
                // that touched the view has been applied.
                let last_affected = dataflow.last_affected;
                published.borrow_mut().serve(|r| frontier > r.epoch.min(last_affected));
            }
            if let Some(subscription) = &dataflow.subscription {
                subscription.advance(self.worker, frontier);
            }
        }
        while let Some((epoch, affected)) = self.outstanding.front() {
            let computed = affected.iter().all(|object| match self.entries.get(object) {
                Some(Entry::Dataflow(dataflow)) => {
                    dataflow.content == Content::Coming
                        || dataflow.failed.get()
                        || probe_frontier(&dataflow.probe) > *epoch
                }
                _ => true,
            });
            if !computed {
                break;
            }
            self.report(Report::Computed { worker: self.worker, epoch: *epoch });
            self.outstanding.pop_front();
        }
    }
}

/// Where an object's changes are handed out.
fn hub(entry: &Entry) -> &Rc<RefCell<Hub>> {
    match entry {
        Entry::Table(hub) => hub,
        Entry::Source(source) => &source.hub,
        Entry::Dataflow(dataflow) => &dataflow.hub,
    }
}

fn probe_frontier(probe: &Handle<u64>) -> Epoch {
    probe.with_frontier(|frontier| Epoch(frontier.first().copied().unwrap_or(u64::MAX)))
}

fn new_published(spec: &DataflowSpec, budget: Arc<HistoryBudget>) -> Result<Published> {
    let schema = spec.plan.root.schema();
    let appends = spec.plan.root.append_only();
    let mut history = History::new(schema.clone(), appends, spec.as_of, budget);
    if !spec.keeps_history {
        history.turn_off();
    }
    let table = match appends {
        true => MultiTable::append_only(schema),
        false => MultiTable::bag(schema)?,
    };
    Ok(Published::new(table, history))
}

/// Gives a scan what a view was at `as_of`, and then its changes up to now. Everything has been
/// applied.
fn fill_from_past(
    inbox: &Rc<RefCell<Inbox>>,
    published: &mut Published,
    as_of: Epoch,
) -> Result<()> {
    let now = published.snapshot();
    let past = ContentAt::of(now.clone(), published.history(), as_of);
    let past = past.map_err(|Forgotten(oldest)| forgotten(oldest))?;
    let mut inbox = inbox.borrow_mut();
    let columns = inbox.columns.clone();
    for rows in past.content.batches_of(columns.clone()) {
        inbox.push(as_of, ChangeBatch::inserts(rows?));
    }
    for later in &past.later {
        inbox.push(as_of, later.project(&columns)?.negate());
    }
    for (epoch, changes) in published.history().changes_since(as_of) {
        inbox.push(epoch, changes.project(&columns)?);
    }
    let counts = published.history().counts_since(as_of);
    let mut rows = now.batches_of(columns);
    let before = past.content.num_rows();
    rows.skip_rows(before)?;
    for (epoch, count) in counts {
        for rows in rows.take_rows(usize::try_from(count).unwrap_or(usize::MAX))? {
            inbox.push(epoch, ChangeBatch::inserts(rows));
        }
    }
    Ok(())
}

/// What is said of an epoch that cannot be read any more.
pub fn forgotten(oldest: Epoch) -> Error {
    Error::user(SNAPSHOT_TOO_OLD, "what is asked for is before the history that is kept")
        .hint(format!("The oldest epoch that can be read is {oldest}."))
}

/// Rows a source has given, for the metrics.
pub fn count_rows(metrics: &SourceMetrics, rows: usize, malformed: usize) {
    metrics.rows.fetch_add(rows as u64, Ordering::Relaxed);
    metrics.malformed.fetch_add(malformed as u64, Ordering::Relaxed);
}

/// Splits and offsets that a source has been read to.
pub type Offsets = BTreeMap<SplitId, Offset>;
