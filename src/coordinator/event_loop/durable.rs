//! The coordinator's side of the storage: what is in the log, and who waits for it.
//!
//! 1. A write is applied in memory, appended to the log and told to the dataflows; its answer
//!    waits until its record is durable ([`State::hold`]). `synchronous_commit = off` does not
//!    wait, unless too much is on its way already.
//! 2. The answer of a read waits for the newest record of the tables behind it, a subscription at
//!    a gate for the first epoch with a record that is not durable. The stream goes on meanwhile.
//! 3. While the log cannot be written, new writes are refused; what waits goes on waiting, and
//!    after `PATIENCE` is told that its outcome is unknown. The log's thread goes on trying, so
//!    memory is the log plus what waits, always.
//! 4. When another server has taken over, everything is refused, and the server ends.
//!
//! Without a storage (`memory://`) everything is as good as durable at once.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::{Pinned, Reply, Request, RunningKind, State};
use crate::catalog::snapshot::Change;
use crate::catalog::stored::change_to_text;
use crate::coordinator::epoch::Moment;
use crate::coordinator::subscription::Gate;
use crate::storage::checkpoint::{Checkpointer, Cut, Held as HeldCheckpoint, Written};
use crate::storage::log::{Entry, Log, LogEvent, Record};
use crate::storage::manifest::FileRef;
use crate::storage::savepoint::{self, Savepoint, Savepoints};
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;
use crate::types::time::Epoch;

/// How long an answer waits for a log that cannot be written.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes on their way to the log up to which `synchronous_commit = off` has an effect.
const EARLY_BYTES_MAX: usize = 64 << 20;
/// Changes of a table kept for its next delta file; beyond that it gets a new base.
const DELTA_BYTES_MAX: usize = 256 << 20;
/// The first and the longest pause before a checkpoint is written again.
const RETRY_MIN: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 100 });
const RETRY_MAX: Duration = Duration::from_millis(if cfg!(test) { 4 } else { 10_000 });
/// SQLSTATE statement_completion_unknown of the standard.
const COMPLETION_UNKNOWN: SqlState = SqlState("40003");

/// What the storage tells the coordinator.
pub(super) enum StorageEvent {
    Log(LogEvent),
    /// A cut is durable, or another server has the storage.
    Checkpoint(Result<Written>),
    /// A cut could not be written, and is tried again.
    CheckpointFailing(Error),
    /// Another server has claimed the storage.
    Superseded(Error),
    /// The target of a sink has a batch: a reason to look.
    SinkCommitted,
}

/// A storage that is open.
pub(super) struct Durable {
    pub(super) log: Log,
    /// To the task that writes checkpoints.
    pub(super) jobs: mpsc::UnboundedSender<Job>,
    pub(super) interval: Duration,
    /// The last record that was appended, and the last that is durable.
    pub(super) appended: u64,
    durable: u64,
    /// Records on their way, with their epochs.
    on_the_way: VecDeque<(u64, Epoch)>,
    gate: Gate,
    /// The newest record of each table.
    newest: HashMap<ObjectId, u64>,
    /// Answers, by the record that they wait for.
    held: BTreeMap<u64, Vec<Held>>,
    /// The log's last failure; `None` while it works.
    failing: Option<Error>,
    /// What the next checkpoint has to write.
    pub(super) changed: BTreeMap<ObjectId, Changed>,
    pub(super) catalog_changed: bool,
    /// Rows of sources as in the last cut.
    pub(super) sources: BTreeMap<u64, u64>,
    pub(super) next_checkpoint: Moment,
    /// Who waits for a checkpoint that begins after now.
    pub(super) wanted: Vec<Reply<()>>,
}

/// What the task of checkpoints does.
pub(super) enum Job {
    Cut(Box<Cut>),
    Savepoint(SavepointJob),
}

/// What is asked of savepoints.
pub(super) enum SavepointJob {
    /// Names the newest checkpoint.
    Create {
        name: String,
        created_at_us: i64,
        reply: Reply<()>,
    },
    Drop {
        name: String,
        reply: Reply<()>,
    },
    List {
        reply: Reply<Vec<Savepoint>>,
    },
    /// Keeps the newest checkpoint, or a savepoint, for someone who copies it.
    Hold {
        savepoint: Option<String>,
        reply: Reply<HeldCheckpoint>,
    },
    /// Takes up one whose files are here.
    Add {
        savepoint: Box<Savepoint>,
        reply: Reply<()>,
    },
}

impl SavepointJob {
    pub(super) fn refuse(self, error: Error) {
        // The client may have gone.
        match self {
            SavepointJob::Create { reply, .. } | SavepointJob::Drop { reply, .. } => {
                drop(reply.send(Err(error)));
            }
            SavepointJob::Add { reply, .. } => drop(reply.send(Err(error))),
            SavepointJob::List { reply } => drop(reply.send(Err(error))),
            SavepointJob::Hold { reply, .. } => drop(reply.send(Err(error))),
        }
    }

    async fn run(self, checkpointer: &mut Checkpointer) {
        // The client may have gone.
        match self {
            SavepointJob::Create { name, created_at_us, reply } => {
                drop(reply.send(checkpointer.create_savepoint(&name, created_at_us).await));
            }
            SavepointJob::Drop { name, reply } => {
                drop(reply.send(checkpointer.drop_savepoint(&name).await));
            }
            SavepointJob::List { reply } => {
                drop(reply.send(Ok(checkpointer.savepoints().values().cloned().collect())));
            }
            SavepointJob::Hold { savepoint, reply } => {
                drop(reply.send(checkpointer.hold(savepoint.as_deref())));
            }
            SavepointJob::Add { savepoint, reply } => {
                drop(reply.send(checkpointer.add_savepoint(*savepoint).await));
            }
        }
    }
}

/// How a table's next file comes about.
pub(super) enum Changed {
    /// It has the rows that files of another table have.
    Files(Vec<FileRef>),
    Delta {
        bytes: usize,
        changes: Vec<ChangeBatch>,
    },
    Base,
}

/// An answer that waits for the log.
struct Held {
    since: Moment,
    /// Whether it is a write's, whose outcome is unknown when it is given up.
    write: bool,
    deliver: Box<dyn FnOnce(Result<()>) + Send>,
}

/// How to open the coordinator's side of a storage.
pub struct DurableStart {
    pub log: LogStart,
    pub checkpointer: Checkpointer,
    pub checkpoint_interval: Duration,
    pub sequence: u64,
    pub runtime: tokio::runtime::Handle,
}

/// Makes the log when there is somebody to tell.
pub type LogStart = Box<dyn FnOnce(crate::storage::log::LogListener) -> Result<Log> + Send>;

impl Durable {
    /// Opens the log and starts the task of checkpoints.
    pub(super) fn start(
        start: DurableStart,
        events: crossbeam_channel::Sender<StorageEvent>,
    ) -> Result<Durable> {
        let log_events = events.clone();
        let log = (start.log)(std::sync::Arc::new(move |event| {
            // The coordinator has gone only when the server stops.
            let _ = log_events.send(StorageEvent::Log(event));
        }))?;
        // One cut at a time, see `checkpoints.rs`.
        let (jobs, queue) = mpsc::unbounded_channel();
        let durable = log.durable();
        let checkpoints =
            run_checkpoints(start.checkpointer, queue, durable, start.checkpoint_interval, events);
        start.runtime.spawn(checkpoints);
        Ok(Durable {
            log,
            jobs,
            interval: start.checkpoint_interval,
            appended: start.sequence,
            durable: start.sequence,
            on_the_way: VecDeque::new(),
            gate: Gate::open(),
            newest: HashMap::new(),
            held: BTreeMap::new(),
            failing: None,
            changed: BTreeMap::new(),
            catalog_changed: false,
            sources: BTreeMap::new(),
            next_checkpoint: Moment::ZERO + start.checkpoint_interval,
            wanted: Vec::new(),
        })
    }

    /// What the log brought after the files, to go into the first checkpoint.
    pub(super) fn replayed(
        &mut self,
        changed: BTreeMap<ObjectId, Option<Vec<ChangeBatch>>>,
        catalog_changed: bool,
    ) {
        self.catalog_changed |= catalog_changed;
        for (table, changes) in changed {
            match changes {
                None => drop(self.changed.insert(table, Changed::Base)),
                Some(changes) => changes.into_iter().for_each(|c| self.note(table, c)),
            }
        }
    }

    /// Remembers changes for the next checkpoint.
    fn note(&mut self, table: ObjectId, changes: ChangeBatch) {
        let entry = self
            .changed
            .entry(table)
            .or_insert_with(|| Changed::Delta { bytes: 0, changes: Vec::new() });
        match entry {
            Changed::Delta { bytes, changes: all } => {
                *bytes += changes.size_bytes();
                all.push(changes);
                if *bytes > DELTA_BYTES_MAX {
                    *entry = Changed::Base;
                }
            }
            Changed::Files(_) => *entry = Changed::Base,
            Changed::Base => {}
        }
    }

    fn append(&mut self, epoch: Epoch, entries: Vec<Entry>) -> u64 {
        self.appended += 1;
        let sequence = self.appended;
        for entry in &entries {
            if let Entry::Rows { table, changes } = entry {
                self.newest.insert(*table, sequence);
                self.note(*table, changes.clone());
            }
        }
        if self.on_the_way.is_empty() {
            self.gate.hold_from(Some(epoch));
        }
        self.on_the_way.push_back((sequence, epoch));
        self.log.append(Record { sequence, epoch, entries });
        sequence
    }

    /// Takes the answers up to `sequence` that nothing holds any more.
    fn reached(&mut self, sequence: u64) -> Vec<Held> {
        assert!(sequence >= self.durable && sequence <= self.appended);
        self.durable = sequence;
        self.failing = None;
        while self.on_the_way.front().is_some_and(|(first, _)| *first <= sequence) {
            self.on_the_way.pop_front();
        }
        self.gate.hold_from(self.on_the_way.front().map(|(_, epoch)| *epoch));
        self.newest.retain(|_, newest| *newest > sequence);
        let later = self.held.split_off(&(sequence + 1));
        let ready = std::mem::replace(&mut self.held, later);
        ready.into_values().flatten().collect()
    }

    /// Takes the answers that have waited too long for a log that cannot be written.
    fn out_of_patience(&mut self, now: Moment) -> Vec<Held> {
        let mut given_up = Vec::new();
        for waiting in self.held.values_mut() {
            let (late, rest) =
                std::mem::take(waiting).into_iter().partition(|h| h.since + PATIENCE <= now);
            *waiting = rest;
            given_up.extend::<Vec<Held>>(late);
        }
        self.held.retain(|_, waiting| !waiting.is_empty());
        given_up
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        self.log.stop();
    }
}

/// Writes cuts as they come, and looks after the claim in between.
async fn run_checkpoints(
    mut checkpointer: Checkpointer,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    durable: tokio::sync::watch::Receiver<u64>,
    interval: Duration,
    events: crossbeam_channel::Sender<StorageEvent>,
) {
    // Often enough that two servers on one storage do not go on beside each other for long.
    let look = interval.clamp(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        let event = match tokio::time::timeout(look, jobs.recv()).await {
            Ok(None) => return,
            Ok(Some(Job::Savepoint(job))) => {
                job.run(&mut checkpointer).await;
                continue;
            }
            Ok(Some(Job::Cut(cut))) => {
                let mut pause = RETRY_MIN;
                loop {
                    match checkpointer.write(&cut, durable.clone()).await {
                        Err(error) if error.sqlstate() != SqlState::ADMIN_SHUTDOWN => {
                            if events.send(StorageEvent::CheckpointFailing(error)).is_err() {
                                return;
                            }
                        }
                        result => break StorageEvent::Checkpoint(result),
                    }
                    // No other cut comes while this one is not written.
                    match tokio::time::timeout(pause, jobs.recv()).await {
                        Ok(Some(Job::Savepoint(job))) => job.run(&mut checkpointer).await,
                        Ok(_) => return,
                        Err(_) => {}
                    }
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
            Err(_) => match checkpointer.check_claim().await {
                Ok(Some(error)) => StorageEvent::Superseded(error),
                // A storage that cannot be read now is noticed by whoever needs it.
                Ok(None) | Err(_) => continue,
            },
        };
        if events.send(event).is_err() {
            return;
        }
    }
}

impl State {
    /// Why nothing can be written now.
    pub(super) fn writes_refused(&self) -> Option<Error> {
        if let Some(error) = &self.halted {
            return Some(error.clone());
        }
        let failing = self.durable.as_ref()?.failing.as_ref()?;
        let refused = Error::external(failing.sqlstate(), "the log cannot be written");
        let refused = refused.detail(failing.to_string());
        Some(match &failing.body().hint {
            Some(hint) => refused.hint(hint.clone()),
            None => refused.hint("Try again later; reading goes on."),
        })
    }

    /// Whether a write may be acknowledged before it is durable.
    pub(super) fn may_be_early(&self) -> bool {
        let on_the_way = self.durable.as_ref().map_or(0, |durable| durable.log.waiting_bytes());
        on_the_way < EARLY_BYTES_MAX
    }

    /// Appends changes of tables; the record to wait for.
    pub(super) fn log_rows(&mut self, changes: &[(ObjectId, ChangeBatch)]) -> u64 {
        let epoch = self.epochs.open();
        let Some(durable) = &mut self.durable else { return 0 };
        let entries: Vec<Entry> = changes
            .iter()
            .filter(|(_, changes)| !changes.is_empty())
            .map(|(table, changes)| Entry::Rows { table: *table, changes: changes.clone() })
            .collect();
        if entries.is_empty() {
            // What it found is in the log up to here.
            let tables = changes.iter().map(|(table, _)| durable.newest.get(table));
            return tables.flatten().copied().max().unwrap_or(0);
        }
        durable.append(epoch, entries)
    }

    /// Appends changes of the catalog, and the first rows of a table; the record to wait for.
    /// `None` when there is no storage.
    pub(super) fn log_definition(
        &mut self,
        changes: &[Change],
        rows: Option<(ObjectId, ChangeBatch)>,
    ) -> Result<Option<u64>> {
        let epoch = self.epochs.open();
        let Some(durable) = &mut self.durable else { return Ok(None) };
        let mut entries = Vec::with_capacity(changes.len() + 1);
        for change in changes {
            entries.push(Entry::Catalog(change_to_text(change)?));
        }
        entries.extend(rows.map(|(table, changes)| Entry::Rows { table, changes }));
        Ok(Some(durable.append(epoch, entries)))
    }

    /// Notes for the next checkpoint what a change of the catalog did that is real now.
    pub(super) fn definition_is_real(&mut self, created_table: Option<ObjectId>) {
        let Some(durable) = &mut self.durable else { return };
        durable.catalog_changed = true;
        if let Some(table) = created_table {
            durable.changed.insert(table, Changed::Base);
        }
        let tables = &self.tables;
        durable.changed.retain(|table, _| tables.contains_key(table));
    }

    /// The record that a read of `objects` must wait for.
    pub(super) fn read_horizon(&self, objects: &[ObjectId]) -> u64 {
        let Some(durable) = &self.durable else { return 0 };
        if durable.newest.is_empty() {
            return 0;
        }
        let mut horizon = 0;
        let mut seen: HashSet<ObjectId> = HashSet::new();
        let mut open = objects.to_vec();
        while let Some(id) = open.pop() {
            if seen.insert(id) {
                horizon = horizon.max(durable.newest.get(&id).copied().unwrap_or(0));
                open.extend(self.running.get(&id).into_iter().flat_map(|r| r.reads.iter()));
            }
        }
        horizon
    }

    /// Delivers an answer when the record `sequence` is durable.
    pub(super) fn hold(
        &mut self,
        sequence: u64,
        write: bool,
        deliver: impl FnOnce(Result<()>) + Send + 'static,
    ) {
        let since = self.now();
        if let Some(error) = &self.halted {
            return deliver(Err(given_up(write, error)));
        }
        match &mut self.durable {
            Some(durable) if sequence > durable.durable => {
                let held = Held { since, write, deliver: Box::new(deliver) };
                durable.held.entry(sequence).or_default().push(held);
            }
            _ => deliver(Ok(())),
        }
    }

    /// Told when the record `sequence` is durable; `None` when it is.
    pub(super) fn wait_for_log(&mut self, sequence: u64) -> Option<oneshot::Receiver<Result<()>>> {
        if self.durable.as_ref().is_none_or(|durable| sequence <= durable.durable) {
            return None;
        }
        let (reply, answer) = oneshot::channel();
        // The client may have gone.
        self.hold(sequence, false, move |durable| drop(reply.send(durable)));
        Some(answer)
    }

    /// The gate for a new subscription.
    pub(super) fn gate(&self) -> Gate {
        self.durable.as_ref().map_or_else(Gate::open, |durable| durable.gate.clone())
    }

    pub(super) fn storage_event(&mut self, event: StorageEvent) {
        let now = self.now();
        let Some(durable) = &mut self.durable else { return };
        match event {
            StorageEvent::Log(LogEvent::Durable(sequence)) => {
                if durable.failing.is_some() {
                    tracing::info!("the log can be written again");
                }
                for held in durable.reached(sequence) {
                    (held.deliver)(Ok(()));
                }
                for running in self.running.values() {
                    if let RunningKind::Subscription { sender, .. } = &running.kind {
                        sender.release();
                    }
                }
                self.step_is_durable(sequence);
            }
            StorageEvent::Log(LogEvent::Failing(error)) => {
                durable.failing = Some(error.clone());
                for held in durable.out_of_patience(now) {
                    (held.deliver)(Err(given_up(held.write, &error)));
                }
                self.step_waits(now.saturating_sub(PATIENCE), &error);
            }
            StorageEvent::Log(LogEvent::Stopped(error)) | StorageEvent::Superseded(error) => {
                self.halt(error);
            }
            StorageEvent::Checkpoint(result) => self.checkpoint_done(result),
            StorageEvent::CheckpointFailing(error) => self.checkpoint_failing(&error),
            StorageEvent::SinkCommitted => {}
        }
    }

    /// Another server owns the storage: this one has nothing more to say.
    pub(super) fn halt(&mut self, error: Error) {
        if self.halted.is_some() {
            return;
        }
        tracing::error!(%error, "the server stops");
        self.halted = Some(error.clone());
        self.failure.send_replace(Some(error.clone()));
        self.step_waits(Moment::MAX, &error);
        self.refuse_steps(&error);
        self.checkpoints.refuse(&error);
        // Whoever has the storage now writes out what is staged.
        self.sinks.clear();
        let Some(durable) = &mut self.durable else { return };
        for held in std::mem::take(&mut durable.held).into_values().flatten() {
            (held.deliver)(Err(given_up(held.write, &error)));
        }
        for reply in durable.wanted.drain(..) {
            let _ = reply.send(Err(error.clone()));
        }
        for running in self.running.values() {
            if let RunningKind::Subscription { sender, .. } = &running.kind {
                sender.fail(error.clone());
            }
        }
    }

    /// Refuses a request because the server has been replaced.
    pub(super) fn refuse(request: Request, error: &Error) {
        let error = error.clone();
        match request {
            Request::Create { reply, .. } | Request::ReserveIds { reply, .. } => {
                drop(reply.send(Err(error)));
            }
            Request::Clone { reply, .. } => drop(reply.send(Err(error))),
            Request::Restore { views } => {
                for (_, _, reply) in views {
                    let _ = reply.send(Err(error.clone()));
                }
            }
            Request::Checkpoints { .. } | Request::Sinks { .. } => {}
            Request::Savepoint(job) => job.refuse(error),
            Request::Apply { reply, .. } | Request::Checkpoint { reply } => {
                drop(reply.send(Err(error)));
            }
            Request::Read { reply, .. } | Request::ReadAt { reply, .. } => {
                drop(reply.send(Err(error)));
            }
            Request::Write { write, .. } => {
                // A client that gives up finds its write refused, not done.
                write.claim.take();
                drop(write.reply.send(Err(error)));
            }
            Request::Lookup { reply, .. } => drop(reply.send(Err(error))),
            Request::Pin { objects, reply } => {
                let failed = |id| (id, Pinned::Failed(error.clone()));
                drop(reply.send(objects.into_iter().map(failed).collect()));
            }
            Request::Subscribe { reply, .. } => drop(reply.send(Err(error))),
            Request::Flush { reply } => drop(reply.send(Err(error))),
            Request::Watermarks { reply } => drop(reply.send(Err(error))),
            Request::Lock { .. }
            | Request::Unlock(_)
            | Request::Unsubscribe(_)
            | Request::RestoreFailed { .. }
            | Request::Sources { .. }
            | Request::Figures { .. }
            | Request::Errors { .. }
            | Request::Epochs { .. }
            | Request::Relieve { .. }
            | Request::Stop => {}
            #[cfg(test)]
            Request::Tamper(..) => {}
        }
    }

    // ---- checkpoints

    /// Asks for a checkpoint of everything up to now.
    pub(super) fn want_checkpoint(&mut self, reply: Reply<()>) {
        match &mut self.durable {
            Some(durable) => durable.wanted.push(reply),
            None => self.sinks.wanted.push(reply),
        }
    }

    /// Passes on what is asked of savepoints.
    pub(super) fn savepoint_job(&mut self, job: SavepointJob) {
        let Some(durable) = &self.durable else {
            // There are none, and can be none.
            return match job {
                SavepointJob::List { reply } => drop(reply.send(Ok(Vec::new()))),
                SavepointJob::Drop { name, reply } => {
                    drop(reply.send(Err(savepoint::missing(&name, &Savepoints::new()))));
                }
                job @ (SavepointJob::Create { .. }
                | SavepointJob::Hold { .. }
                | SavepointJob::Add { .. }) => {
                    let what = match &job {
                        SavepointJob::Create { .. } => "CREATE SAVEPOINT without a storage",
                        _ => "a backup or a savepoint without a storage",
                    };
                    let error = Error::unsupported(what);
                    job.refuse(error.hint("Start the server with another --storage."));
                }
            };
        };
        if let Err(mpsc::error::SendError(Job::Savepoint(job))) =
            durable.jobs.send(Job::Savepoint(job))
        {
            job.refuse(super::stopping());
        }
    }

    /// Rows that each source has given.
    pub(super) fn source_rows(&self) -> BTreeMap<u64, u64> {
        let rows = |kind: &RunningKind| match kind {
            RunningKind::Source { metrics, .. } => Some(metrics.rows.load(Ordering::Relaxed)),
            _ => None,
        };
        self.running
            .iter()
            .filter_map(|(id, running)| Some((id.0, rows(&running.kind)?)))
            .filter(|(_, rows)| *rows > 0)
            .collect()
    }
}

/// What is said to whom the log keeps waiting too long.
pub(super) fn given_up(write: bool, error: &Error) -> Error {
    let unknown = if write {
        Error::external(COMPLETION_UNKNOWN, "it is not known whether the statement has succeeded")
            .hint("Look for its changes when the storage works again.")
    } else {
        Error::external(
            error.sqlstate(),
            "what the query reads has changes that cannot be made durable",
        )
        .hint("Try again when the storage works again.")
    };
    unknown.detail(error.to_string())
}
