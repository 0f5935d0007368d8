//! Reads of the past: which epoch a time means, and what tables and views were then.
//!
//! 1. Each closed epoch is noted with its logical time. The content at a time is that of the newest
//!    epoch that had ended by then.
//! 2. Tables note their changes here when an epoch is closed, views on their workers when they
//!    apply it (`state/history.rs`).
//! 3. What is older than its retention is forgotten, some times within each retention.
//!
//! Nothing of it is stored: after a start the oldest epoch that can be read is the one it began
//! with.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use tokio::sync::oneshot;

use super::{
    Command, PendingRead, RawView, Reply, RunningKind, State, dependency_gone, share_changes,
};
use crate::catalog::object::ObjectKind;
use crate::coordinator::epoch::Moment;
use crate::coordinator::rows::overlay;
use crate::coordinator::table::Table;
use crate::dataflow::published::ContentAt;
use crate::dataflow::worker::{Past, SNAPSHOT_TOO_OLD};
use crate::plan::view_options::history_retention_us;
use crate::state::history::{Forgotten, History, HistoryBudget};
use crate::state::snapshot::Snapshot;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;
use crate::types::time::{At, Epoch, EventTime};

/// How often what is too old is forgotten: so many times within the shortest retention.
const FORGETS_PER_RETENTION: u32 = 16;
const FORGET_PAUSE_MIN: Duration = Duration::from_millis(50);
const FORGET_PAUSE_MAX: Duration = Duration::from_secs(30);

/// How much of the past is kept.
#[derive(Clone, Copy, Debug)]
pub struct HistoryConfig {
    /// Of tables and views that do not say.
    pub retention: Duration,
    /// For all of them together.
    pub bytes_max: usize,
}

impl Default for HistoryConfig {
    fn default() -> HistoryConfig {
        HistoryConfig { retention: Duration::from_secs(600), bytes_max: 256 << 20 }
    }
}

/// The past of everything, as far as the coordinator has it.
pub(super) struct Histories {
    pub budget: Arc<HistoryBudget>,
    retention: Duration,
    tables: HashMap<ObjectId, History>,
    /// Closed epochs with their logical times, oldest first; never empty once the server runs.
    times: VecDeque<(Epoch, EventTime)>,
    next_forget: Moment,
}

impl Histories {
    pub(super) fn new(config: HistoryConfig) -> Histories {
        Histories {
            budget: HistoryBudget::new(config.bytes_max),
            retention: config.retention,
            tables: HashMap::new(),
            times: VecDeque::new(),
            next_forget: Moment::ZERO,
        }
    }

    /// An epoch has been closed, or the server begins behind it.
    pub(super) fn closed(&mut self, epoch: Epoch, time: EventTime) {
        self.times.push_back((epoch, time));
    }

    /// What a table has changed in an epoch that is closed.
    pub(super) fn record(&mut self, table: ObjectId, epoch: Epoch, changes: &[ChangeBatch]) {
        if let Some(history) = self.tables.get_mut(&table)
            && let Err(error) = history.record(epoch, changes)
        {
            // Changes of one table have one schema; whatever it is, no reader gets wrong rows.
            tracing::error!(%table, %error, "the history of a table begins anew");
            history.begin_anew(epoch);
        }
    }

    pub(super) fn add_table(&mut self, id: ObjectId, table: &Table, floor: Epoch, kept: bool) {
        let schema = table.schema().clone();
        let mut history = History::new(schema, false, floor, self.budget.clone());
        if !kept {
            history.turn_off();
        }
        self.tables.insert(id, history);
    }

    pub(super) fn remove(&mut self, id: ObjectId) {
        self.tables.remove(&id);
    }

    /// Bytes that the history of a table holds.
    pub(super) fn table_bytes(&self, id: ObjectId) -> usize {
        self.tables.get(&id).map_or(0, History::memory_bytes)
    }

    /// The newest epoch that had ended at `time`.
    fn epoch_at(&self, time: EventTime) -> Option<Epoch> {
        let after = self.times.partition_point(|(_, ended)| *ended <= time);
        Some(self.times[after.checked_sub(1)?].0)
    }

    /// The time of an epoch whose number is known.
    fn time_of(&self, epoch: Epoch) -> Option<EventTime> {
        let after = self.times.partition_point(|(other, _)| *other <= epoch);
        Some(self.times[after.checked_sub(1)?].1)
    }

    /// The first known epoch that does not come before `limit`.
    fn first_not_before(&self, limit: At) -> Option<Epoch> {
        let reached = |(epoch, time): &(Epoch, EventTime)| is_reached(limit, *epoch, *time);
        let before = self.times.partition_point(|entry| !reached(entry));
        self.times.get(before).map(|(epoch, _)| *epoch)
    }

    /// What is said of a time before the history that is kept.
    fn too_old(&self, oldest: Option<Epoch>) -> Error {
        let oldest = oldest.or_else(|| self.times.front().map(|(epoch, _)| *epoch));
        let error =
            Error::user(SNAPSHOT_TOO_OLD, "what is asked for is before the history that is kept");
        let Some(oldest) = oldest else { return error };
        match self.time_of(oldest).and_then(|time| DateTime::from_timestamp_micros(time.0)) {
            Some(time) => error.hint(format!(
                "The oldest time that can be read is {}+00, epoch {oldest}.",
                time.format("%Y-%m-%d %H:%M:%S%.6f")
            )),
            None => error.hint(format!("The oldest epoch that can be read is {oldest}.")),
        }
    }
}

/// Whether an epoch of this number and time is at or behind `limit`.
pub(super) fn is_reached(limit: At, epoch: Epoch, time: EventTime) -> bool {
    match limit {
        At::Epoch(limit) => epoch >= limit,
        At::Time(limit) => time >= limit,
    }
}

impl State {
    /// How long what an object was is kept.
    fn retention_of(&self, object: ObjectId) -> Duration {
        let catalog = self.catalog();
        let own = catalog.get(object).and_then(|object| match &object.kind {
            ObjectKind::Table(table) => table.history_retention_us,
            ObjectKind::MaterializedView(view) => history_retention_us(&view.options),
            _ => None,
        });
        let own = own.map(|us| Duration::from_micros(us.unsigned_abs()));
        own.unwrap_or(self.histories.retention)
    }

    /// Whether a retention keeps anything, given what the object itself says.
    pub(super) fn keeps_history(&self, own_us: Option<i64>) -> bool {
        own_us.map_or(!self.histories.retention.is_zero(), |us| us > 0)
    }

    /// Forgets what is too old when it is time to; when to look again.
    pub(super) fn forget_history(&mut self, now: Moment) -> Option<Moment> {
        if self.histories.times.len() <= 1 {
            return None;
        }
        if now < self.histories.next_forget {
            return Some(self.histories.next_forget);
        }
        let time = self.clock.now();
        let mut floors = Vec::new();
        let mut shortest = self.histories.retention;
        let mut oldest = self.epochs.closed();
        for (id, running) in &self.running {
            if !matches!(running.kind, RunningKind::Table | RunningKind::View { .. }) {
                continue;
            }
            let retention = self.retention_of(*id);
            shortest = if retention.is_zero() { shortest } else { shortest.min(retention) };
            let retention_us = i64::try_from(retention.as_micros()).unwrap_or(i64::MAX);
            let until = EventTime(time.0.saturating_sub(retention_us));
            // Before the first epoch there is nothing to forget.
            let floor = self.histories.epoch_at(until);
            oldest = oldest.min(floor.unwrap_or(Epoch(0)));
            floors.extend(floor.map(|floor| (*id, floor)));
        }
        for (id, floor) in &floors {
            if let Some(history) = self.histories.tables.get_mut(id) {
                history.forget(*floor);
            }
        }
        floors.retain(|(id, _)| !self.histories.tables.contains_key(id));
        if !floors.is_empty() {
            self.workers.send(Command::Forget(Arc::new(floors)));
        }
        let times = &mut self.histories.times;
        while times.get(1).is_some_and(|(epoch, _)| *epoch <= oldest) {
            times.pop_front();
        }
        let pause = (shortest / FORGETS_PER_RETENTION).clamp(FORGET_PAUSE_MIN, FORGET_PAUSE_MAX);
        self.histories.next_forget = now + pause;
        (self.histories.times.len() > 1).then_some(self.histories.next_forget)
    }

    /// The epochs that can be named, with their times.
    pub(super) fn tell_epochs(&mut self, reply: oneshot::Sender<Vec<(Epoch, EventTime)>>) {
        self.close_written();
        // The client may have gone.
        let _ = reply.send(self.histories.times.iter().copied().collect());
    }

    /// The closed epoch that `at` means.
    fn resolve(&self, at: At) -> Result<Epoch> {
        let closed = self.epochs.closed();
        let ahead = |what: String| Err(Error::user(SqlState::INVALID_PARAMETER_VALUE, what));
        match at {
            At::Epoch(epoch) if epoch > closed => {
                let error = ahead(format!("epoch {epoch} has not ended yet"));
                error.map_err(|error: Error| error.hint(format!("The newest one is {closed}.")))
            }
            At::Epoch(epoch) => match self.histories.times.front() {
                Some((oldest, _)) if epoch < *oldest => Err(self.histories.too_old(None)),
                _ => Ok(epoch),
            },
            At::Time(time) if time > self.clock.now() => {
                ahead("a time that has not come yet cannot be read".to_owned())
            }
            At::Time(time) => {
                self.histories.epoch_at(time).ok_or_else(|| self.histories.too_old(None))
            }
        }
    }

    /// Reads `objects` as they were.
    pub(super) fn read_at(&mut self, objects: &[ObjectId], at: At, reply: Reply<RawView>) {
        self.close_written();
        let began = self.resolve(at).and_then(|epoch| {
            let horizon = self.read_horizon(objects);
            self.begin_read_at(objects, epoch).map(|began| (epoch, horizon, began))
        });
        let (epoch, horizon, (view, missing)) = match began {
            Ok(began) => began,
            Err(error) => return drop(reply.send(Err(error))),
        };
        if missing.is_empty() {
            return self.answer_read(horizon, view, reply);
        }
        let request = self.next_read;
        self.next_read += 1;
        let objects = Arc::new(missing.keys().copied().collect());
        self.reads.insert(request, PendingRead { view, missing, horizon, reply });
        self.workers.send(Command::Snapshot { request, objects, epoch: Some(epoch) });
    }

    /// Takes what is at hand and lists the views whose workers must be asked.
    fn begin_read_at(
        &mut self,
        objects: &[ObjectId],
        epoch: Epoch,
    ) -> Result<(RawView, BTreeMap<ObjectId, usize>)> {
        let mut view = RawView { epoch, parts: Vec::new(), later: HashMap::new() };
        let mut missing = BTreeMap::new();
        for object in objects {
            let running = self.running.get(object).ok_or_else(|| dependency_gone("the query"))?;
            if let Some(error) = &running.failed {
                return Err(error.clone().context("a materialized view has stopped"));
            }
            match &running.kind {
                RunningKind::Table => {
                    let ContentAt { content, later } = self.table_at(*object, epoch)?;
                    view.parts.push((*object, content));
                    view.later.insert(*object, later);
                }
                RunningKind::View { last_affected, snapshot: Some((taken, parts)) }
                    if taken >= last_affected && *last_affected <= epoch =>
                {
                    view.parts.extend(parts.iter().map(|part| (*object, part.clone())));
                }
                RunningKind::View { .. } => {
                    missing.insert(*object, self.workers.count());
                }
                RunningKind::Source { .. } | RunningKind::Subscription { .. } => {
                    return Err(Error::internal("sources have no history"));
                }
            }
        }
        Ok((view, missing))
    }

    /// A table at a closed epoch; the open epoch has no changes.
    fn table_at(&self, id: ObjectId, epoch: Epoch) -> Result<ContentAt> {
        let (Some(table), Some(history)) = (self.tables.get(&id), self.histories.tables.get(&id))
        else {
            return Err(dependency_gone("the query"));
        };
        let content = ContentAt::of(table.snapshot(), history, epoch);
        content.map_err(|Forgotten(oldest)| self.histories.too_old(Some(oldest)))
    }

    /// A part of a read has come from a worker.
    pub(super) fn snapshot_or_too_old(
        &mut self,
        request: u64,
        content: std::result::Result<ContentAt, Forgotten>,
        object: ObjectId,
    ) -> Option<Snapshot> {
        let read = self.reads.get_mut(&request)?;
        match content {
            Ok(ContentAt { content, later }) => {
                read.view.later.entry(object).or_default().extend(later);
                Some(content)
            }
            Err(Forgotten(oldest)) => {
                let read = self.reads.remove(&request)?;
                let _ = read.reply.send(Err(self.histories.too_old(Some(oldest))));
                None
            }
        }
    }

    /// How a subscription to `reads` comes from `at` to now: its first epoch, its way from there,
    /// and the tables as they were then.
    pub(super) fn past_of(&self, at: At, reads: &[ObjectId]) -> Result<PastStart> {
        let (as_of, until) = (self.resolve(at)?, self.epochs.closed());
        let workers = self.workers.count();
        let mut table_changes = HashMap::new();
        let mut contents = HashMap::new();
        for id in reads {
            match self.running.get(id).map(|running| &running.kind) {
                Some(RunningKind::Source { .. }) => {
                    return Err(Error::unsupported("SUBSCRIBE AS OF over a source").hint(
                        "Sources have no history: subscribe to a materialized view over it.",
                    ));
                }
                Some(RunningKind::Table) => {}
                _ => continue,
            }
            let ContentAt { content, later } = self.table_at(*id, as_of)?;
            let rows = content.batches().collect::<Result<Vec<_>>>()?;
            let back: Vec<ChangeBatch> = later.iter().map(ChangeBatch::negate).collect();
            contents.insert(*id, overlay(&rows, content.schema(), &back)?);
            let changes = self.histories.tables.get(id).map(|h| h.changes_since(as_of));
            let shared = changes.unwrap_or_default().into_iter().map(|(epoch, changes)| {
                (epoch, share_changes(std::slice::from_ref(&changes), workers, epoch))
            });
            table_changes.insert(*id, shared.collect());
        }
        let later = self.histories.times.iter().filter(|(epoch, _)| *epoch > as_of);
        let times = later.copied().collect();
        let time = self.histories.time_of(as_of).unwrap_or(self.time);
        Ok(PastStart { as_of, time, past: Past { until, times, table_changes }, contents })
    }

    /// The first epoch that a subscription with this end does not show, if it has come.
    pub(super) fn first_hidden(&self, up_to: At) -> Option<Epoch> {
        match up_to {
            At::Epoch(epoch) => Some(epoch),
            At::Time(_) => self.histories.first_not_before(up_to),
        }
    }
}

/// See [`State::past_of`].
pub(super) struct PastStart {
    pub as_of: Epoch,
    pub time: EventTime,
    pub past: Past,
    pub contents: HashMap<ObjectId, Vec<arrow::array::RecordBatch>>,
}
