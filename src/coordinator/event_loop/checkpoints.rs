//! Checkpoints: from the end of an epoch on all workers to a cut that can be written.
//!
//! ```text
//!  idle --due--> gathering --all parts are here--> writing --manifest is there--> idle
//!                    |                                |
//!                    +-- a view fails or goes:        +-- the storage fails: the same cut again
//!                        without it
//! ```
//!
//! 1. The open epoch is closed, whatever is in it. Tables, catalog and the log's position are taken
//!    at this moment; views that have changed since the last checkpoint are told to hand over
//!    their state as of this epoch, and workers say how far the sources are.
//! 2. The stream goes on. When an operator has completed the epoch, it hands over what has changed
//!    in it, mostly as shared segments. Row errors of later epochs are told apart meanwhile.
//! 3. When all parts are here, the cut goes to the task that writes files and manifest. Until the
//!    manifest is there nothing else is begun: what operators have handed over they do not hand
//!    over again, so the cut is written again and again until it works.
//!
//! A view that is being filled, or has failed, is in no checkpoint, and is computed anew after a
//! restart.
//!
//! `checkpoint_interval` is a target: a checkpoint that took more than a tenth of the workers'
//! processor time since it began lets the next come later, up to ten intervals ([`pause_after`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::durable::{Changed, Job};
use super::sinks::HandedOver;
use super::{Reply, Report, RunningKind, State};
use crate::catalog::object::{ObjectKind, ObjectName};
use crate::catalog::stored::catalog_to_text;
use crate::coordinator::epoch::Moment;
use crate::coordinator::errors::LateErrors;
use crate::dataflow::driver::OperatorState;
use crate::dataflow::operator::RowError;
use crate::dataflow::operators::source::ANNOUNCED;
use crate::observe::metrics;
use crate::storage::checkpoint::{Cut, TableCut, ViewCut, Written};
use crate::storage::manifest::{EPOCHS_RESERVED, SourcePlace, ViewState};
use crate::storage::state_files::StateChange;
use crate::storage::table_files::{Rows, RowsAgain};
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;
use crate::types::time::{Epoch, EventTime, Watermark};

/// Checkpoints that `SHOW CHECKPOINTS` remembers.
const HISTORY_MAX: usize = 100;

/// Checkpoints may take one in so many of the workers' processor time, ...
const CPU_PART: u32 = 10;
/// ... but come at least once in so many intervals.
const STRETCH_MAX: u32 = 10;

/// One checkpoint that is durable.
#[derive(Clone, Debug)]
pub struct CheckpointFact {
    /// The number of its manifest.
    pub manifest: u64,
    pub epoch: Epoch,
    /// When it was durable.
    pub time: EventTime,
    /// From the end of its epoch until it was durable.
    pub duration: Duration,
    /// The longest time for which a worker's stream stood still for it.
    pub stall: Duration,
    /// Processor time that it took, of workers and of whoever wrote it.
    pub cpu: Duration,
    pub files: usize,
    pub bytes: u64,
    /// Views whose state has changed.
    pub views: usize,
}

/// What is known of a view's state in the storage.
pub(super) struct ViewMark {
    pub fingerprint: String,
    /// The epoch that the newest checkpoint with its state has; `None`: there is none.
    pub checkpointed: Option<Epoch>,
    /// The files have a base whose row ids are those of this run.
    pub based: bool,
}

/// Everything about checkpoints that is not in the storage.
#[derive(Default)]
pub(super) struct Checkpoints {
    pub views: BTreeMap<ObjectId, ViewMark>,
    /// Views with the state that files of other views have, which no checkpoint says yet.
    pub cloned: BTreeMap<ObjectId, ViewState>,
    /// Some view has changed since the last cut.
    pub views_changed: bool,
    /// Row errors have come or gone since the last cut.
    pub errors_changed: bool,
    /// The epoch that the storage knows.
    pub stored_epoch: Epoch,
    gathering: Option<Box<Gathering>>,
    writing: Option<Writing>,
    history: VecDeque<CheckpointFact>,
}

/// A checkpoint whose parts are on their way.
struct Gathering {
    cut: Cut,
    began: Moment,
    waiting: Vec<Reply<()>>,
    /// The watermarks of sources at the end of the epoch.
    announced: BTreeMap<ObjectId, Watermark>,
    /// Workers that have not said where their sources are.
    places_missing: BTreeSet<usize>,
    places: BTreeMap<ObjectId, SourcePlace>,
    /// Views and workers whose state is missing.
    states_missing: BTreeSet<(ObjectId, usize)>,
    states: BTreeMap<ObjectId, Vec<StateChange>>,
    /// What sinks have to write out.
    sinks: BTreeMap<ObjectId, Vec<ChangeBatch>>,
    /// By worker: how long the stream stood still.
    stalls: Vec<Duration>,
    /// Of all workers together: how long they took to hand over.
    worked: Duration,
    /// Row errors of later epochs.
    late_errors: Vec<LateErrors>,
    errors_changed: bool,
}

/// A checkpoint that is being written.
struct Writing {
    epoch: Epoch,
    began: Moment,
    stall: Duration,
    /// Of all workers together.
    worked: Duration,
    views: usize,
    waiting: Vec<Reply<()>>,
    sinks: HandedOver,
}

impl Gathering {
    /// Of a cut for which these views hand over their state.
    fn of(
        cut: Cut,
        began: Moment,
        waiting: Vec<Reply<()>>,
        changed: &[ObjectId],
        workers: usize,
    ) -> Gathering {
        let all_workers =
            |view: &ObjectId| (0..workers).map(|worker| (*view, worker)).collect::<Vec<_>>();
        Gathering {
            cut,
            began,
            waiting,
            announced: BTreeMap::new(),
            places_missing: (0..workers).collect(),
            places: BTreeMap::new(),
            states_missing: changed.iter().flat_map(all_workers).collect(),
            states: changed.iter().map(|view| (*view, Vec::new())).collect(),
            sinks: BTreeMap::new(),
            stalls: vec![Duration::ZERO; workers],
            worked: Duration::ZERO,
            late_errors: Vec::new(),
            errors_changed: false,
        }
    }
}

impl Checkpoints {
    /// Whether one is on its way.
    pub(super) fn under_way(&self) -> bool {
        self.gathering.is_some() || self.writing.is_some()
    }

    /// Newest first.
    pub(super) fn history(&self) -> Vec<CheckpointFact> {
        self.history.iter().rev().cloned().collect()
    }

    /// Tells apart row errors that the checkpoint must not have.
    pub(super) fn row_errors(
        &mut self,
        object: ObjectId,
        name: &ObjectName,
        epoch: Epoch,
        errors: &[RowError],
    ) {
        self.errors_changed = true;
        if let Some(gathering) = &mut self.gathering
            && epoch > gathering.cut.epoch
        {
            let (name, errors) = (name.clone(), errors.to_vec());
            gathering.late_errors.push(LateErrors { object, name, errors });
        }
    }

    /// Ends whoever waits for the checkpoint that is under way.
    pub(super) fn refuse(&mut self, error: &Error) {
        let gathering = self.gathering.take().map(|gathering| gathering.waiting);
        let writing = self.writing.as_mut().map(|writing| std::mem::take(&mut writing.waiting));
        for reply in gathering.into_iter().chain(writing).flatten() {
            let _ = reply.send(Err(error.clone()));
        }
    }
}

impl State {
    /// Begins a checkpoint when one is due; when to ask again.
    pub(super) fn checkpoint_if_due(&mut self) -> Option<Moment> {
        let now = self.now();
        if self.halted.is_some() {
            return None;
        }
        if self.durable.is_none() {
            return self.hand_over_if_due(now);
        }
        let sinks_dirty = self.sinks.dirty(now);
        let seal_at = self.sinks.seal_at();
        let durable = self.durable.as_ref()?;
        // A definition that is in the log and not yet real must not be in the middle, and a view
        // that takes up its state must have done so, or it would be left out.
        let restoring = self.hydrating.values().any(|hydrating| hydrating.restored);
        let busy = self.checkpoints.under_way() || self.step_in_log() || restoring;
        if busy {
            return None;
        }
        let dirty = !durable.changed.is_empty()
            || durable.catalog_changed
            || self.checkpoints.views_changed
            || self.checkpoints.errors_changed
            || sinks_dirty
            || self.epochs.closed().0 > self.checkpoints.stored_epoch.0 + EPOCHS_RESERVED / 2;
        if durable.wanted.is_empty() && now < durable.next_checkpoint {
            return match dirty {
                true => Some(durable.next_checkpoint),
                false => seal_at,
            };
        }
        let sources = self.source_rows();
        if durable.wanted.is_empty() && !dirty && durable.sources == sources {
            return seal_at;
        }
        if let Err(error) = self.begin_checkpoint(now, sources) {
            tracing::error!(%error, "a checkpoint cannot be made");
        }
        None
    }

    /// The views that belong into a checkpoint, and whether each has changed since the last one.
    pub(super) fn views_to_keep(&self) -> BTreeMap<ObjectId, bool> {
        let catalog = self.catalog();
        let is_view = |id: &ObjectId| {
            catalog.get(*id).is_some_and(|o| match &o.kind {
                // Without a storage there is nothing to keep, but much to write out.
                ObjectKind::MaterializedView(_) => self.durable.is_some(),
                ObjectKind::Sink(_) => true,
                _ => false,
            })
        };
        let kept = self.running.iter().filter_map(|(id, running)| {
            let RunningKind::View { last_affected, .. } = &running.kind else { return None };
            let mark = self.checkpoints.views.get(id)?;
            let whole = running.failed.is_none() && !self.hydrating.contains_key(id);
            let changed = mark.checkpointed.is_none_or(|epoch| epoch < *last_affected);
            (whole && is_view(id)).then_some((*id, changed))
        });
        kept.collect()
    }

    fn begin_checkpoint(&mut self, now: Moment, sources: BTreeMap<u64, u64>) -> Result<()> {
        let catalog = self.catalog();
        let Some(durable) = &mut self.durable else { return Ok(()) };
        durable.next_checkpoint = now + durable.interval;
        let catalog_text = match durable.catalog_changed {
            true => Some(catalog_to_text(&catalog)?),
            false => None,
        };
        // Before anything is taken, so that what is durable by then has a sequence up to
        // `appended`.
        let log_start = durable.log.durable_number() + 1;
        let admit = self.new_dataflows.is_empty();
        let views = self.close_epoch_for(admit, true);
        let changed: Vec<ObjectId> =
            views.iter().filter(|(_, changed)| **changed).map(|(id, _)| *id).collect();
        let epoch = self.epochs.closed();
        let workers = self.workers.count();
        // As they hold at the end of the epoch.
        let announced: BTreeMap<ObjectId, Watermark> = self
            .running
            .keys()
            .filter_map(|id| Some((*id, self.watermarks.announced(*id)?)))
            .collect();
        let tables = self.cut_tables();
        let Some(durable) = &mut self.durable else { return Ok(()) };
        durable.catalog_changed = false;
        durable.sources.clone_from(&sources);
        let waiting = std::mem::take(&mut durable.wanted);
        let checkpoints = &mut self.checkpoints;
        checkpoints.views_changed = false;
        let cloned = &mut checkpoints.cloned;
        cloned.retain(|view, _| views.get(view) != Some(&true));
        let errors_changed = std::mem::take(&mut checkpoints.errors_changed);
        let cut = Cut {
            sequence: durable.appended,
            log_until: durable.appended,
            epoch,
            next_id: self.next_id,
            log_start,
            catalog: catalog_text,
            tables,
            sources,
            views: views
                .iter()
                .filter(|(_, changed)| !**changed)
                .map(|(view, _)| match cloned.remove(view) {
                    Some(state) => (*view, ViewCut::Files(state)),
                    None => (*view, ViewCut::Unchanged),
                })
                .collect(),
            places: BTreeMap::new(),
            errors: None,
            sinks: BTreeMap::new(),
        };
        let mut gathering = Gathering::of(cut, now, waiting, &changed, workers);
        gathering.announced = announced;
        gathering.errors_changed = errors_changed;
        checkpoints.gathering = Some(Box::new(gathering));
        Ok(())
    }

    /// The same without a storage, for sinks alone.
    pub(super) fn begin_hand_over(&mut self, now: Moment) {
        let admit = !self.wants_quiet();
        let sinks = self.close_epoch_for(admit, true);
        let changed: Vec<ObjectId> =
            sinks.iter().filter(|(_, changed)| **changed).map(|(id, _)| *id).collect();
        self.checkpoints.views_changed = false;
        let cut = Cut {
            sequence: 0,
            log_until: 0,
            epoch: self.epochs.closed(),
            next_id: self.next_id,
            log_start: 0,
            catalog: None,
            tables: BTreeMap::new(),
            sources: BTreeMap::new(),
            views: sinks.keys().map(|sink| (*sink, ViewCut::Unchanged)).collect(),
            places: BTreeMap::new(),
            errors: None,
            sinks: BTreeMap::new(),
        };
        let waiting = std::mem::take(&mut self.sinks.wanted);
        let gathering = Gathering::of(cut, now, waiting, &changed, self.workers.count());
        self.checkpoints.gathering = Some(Box::new(gathering));
    }

    /// All tables as they are now, and what has changed of them since the last cut.
    fn cut_tables(&mut self) -> BTreeMap<ObjectId, TableCut> {
        let Some(durable) = &mut self.durable else { return BTreeMap::new() };
        let mut changed = std::mem::take(&mut durable.changed);
        let cut = |(id, table): (&ObjectId, &crate::coordinator::table::Table)| {
            let Some(changed) = changed.remove(id) else { return (*id, TableCut::Unchanged) };
            let snapshot = table.snapshot();
            let (schema, row_count) = (snapshot.schema().clone(), snapshot.num_rows() as u64);
            let rows: RowsAgain = Arc::new(move || Box::new(snapshot.batches()) as Rows);
            let cut = match changed {
                Changed::Base => TableCut::Base { schema, rows },
                Changed::Files(files) if files.is_empty() => TableCut::Base { schema, rows },
                Changed::Files(files) => TableCut::Files(files),
                Changed::Delta { changes, .. } => {
                    TableCut::Either { schema, changes, rows, row_count }
                }
            };
            (*id, cut)
        };
        self.tables.iter().map(cut).collect()
    }

    /// A part of a checkpoint has come from a worker.
    pub(super) fn checkpoint_part(&mut self, report: Report) {
        let Some(gathering) = &mut self.checkpoints.gathering else { return };
        match report {
            Report::SinkChanges { object, epoch, changes } if epoch == gathering.cut.epoch => {
                gathering.sinks.entry(object).or_default().extend(changes);
                return;
            }
            Report::Places { worker, epoch, sources } if epoch == gathering.cut.epoch => {
                gathering.places_missing.remove(&worker);
                for (object, place) in sources {
                    gathering.places.entry(object).or_default().add(place);
                }
            }
            Report::State { worker, epoch, object, handed } if epoch == gathering.cut.epoch => {
                gathering.stalls[worker] += handed.stall;
                gathering.worked += handed.worked;
                if gathering.states_missing.remove(&(object, worker)) {
                    let state = gathering.states.entry(object).or_default();
                    state.extend(
                        handed.operators.into_iter().flat_map(|o| state_changes(worker, o)),
                    );
                }
            }
            _ => {}
        }
        self.write_when_gathered();
    }

    /// A view goes, or has failed: the checkpoint does without its state.
    pub(super) fn checkpoint_without(&mut self, object: ObjectId) {
        self.checkpoints.views.remove(&object);
        let Some(gathering) = &mut self.checkpoints.gathering else { return };
        gathering.states_missing.retain(|(view, _)| *view != object);
        gathering.states.remove(&object);
        gathering.cut.views.remove(&object);
        self.write_when_gathered();
    }

    pub(super) fn write_when_gathered(&mut self) {
        // Late rows of the epoch that wait for their table must be in the log before it counts that
        // their source has gone on.
        let late_wait = !self.late_waiting.is_empty();
        let complete = |g: &mut Box<Gathering>| {
            g.places_missing.is_empty() && g.states_missing.is_empty() && !late_wait
        };
        let Some(gathering) = self.checkpoints.gathering.take_if(complete) else { return };
        let Gathering {
            mut cut,
            began,
            waiting,
            announced,
            mut places,
            states,
            stalls,
            worked,
            late_errors,
            errors_changed,
            places_missing: _,
            states_missing: _,
            sinks,
        } = *gathering;
        for (object, Watermark(EventTime(us))) in announced {
            // A table's rows may go that have moved its watermark.
            let place = match self.table_rules.contains_key(&object) {
                true => Some(places.entry(object).or_default()),
                false => places.get_mut(&object),
            };
            if let Some(place) = place {
                place.values.insert(ANNOUNCED.to_owned(), us.to_string());
            }
        }
        cut.places = places.into_iter().map(|(object, place)| (object.0, place)).collect();
        let views = states.len();
        // A view that is in a checkpoint for the first time brings its errors, whenever they came.
        let mut first_of_some = false;
        for (view, changes) in states {
            let Some(mark) = self.checkpoints.views.get_mut(&view) else { continue };
            mark.checkpointed = Some(cut.epoch);
            let first = !std::mem::replace(&mut mark.based, true);
            first_of_some |= first;
            let cut_of_view = ViewCut::Changed {
                fingerprint: mark.fingerprint.clone(),
                workers: self.workers.count(),
                first,
                changes: Arc::new(changes),
            };
            cut.views.insert(view, cut_of_view);
        }
        // Those of its own epoch, and of epochs that were under way when it was closed,
        // have come since it began; later ones are for the next checkpoint.
        let changed_since =
            std::mem::replace(&mut self.checkpoints.errors_changed, !late_errors.is_empty());
        if errors_changed || changed_since || first_of_some {
            let kept = |object: ObjectId| {
                cut.views.contains_key(&object) || cut.places.contains_key(&object.0)
            };
            cut.errors = Some(self.errors.to_text(&late_errors, self.clock.now(), kept));
        }
        let now = self.now();
        let in_cut = |sink: ObjectId| cut.views.contains_key(&sink);
        let (sinks, handed) = self.sinks.cut(now, cut.epoch, sinks, !waiting.is_empty(), in_cut);
        cut.sinks = sinks;
        if self.durable.is_none() {
            self.sinks.staged(now, self.clock.now(), handed, BTreeMap::new());
            for reply in waiting {
                let _ = reply.send(Ok(()));
            }
            return;
        }
        let epoch = cut.epoch;
        let stall = stalls.iter().max().copied().unwrap_or_default();
        let Some(durable) = &mut self.durable else { return };
        cut.log_until = durable.appended;
        if durable.jobs.send(Job::Cut(Box::new(cut))).is_err() {
            // The task ends with the runtime only.
            let stopping = super::stopping();
            for reply in waiting {
                let _ = reply.send(Err(stopping.clone()));
            }
            return;
        }
        self.checkpoints.writing =
            Some(Writing { epoch, began, stall, worked, views, waiting, sinks: handed });
    }

    /// A checkpoint cannot be written now; it is tried again.
    pub(super) fn checkpoint_failing(&mut self, error: &Error) {
        metrics::CHECKPOINT_FAILURES.fetch_add(1, Ordering::Relaxed);
        tracing::error!(%error, "a checkpoint cannot be written; trying again, the log goes on");
        let writing = self.checkpoints.writing.iter_mut().map(|writing| &mut writing.waiting);
        let wanted = self.durable.iter_mut().map(|durable| &mut durable.wanted);
        for reply in writing.chain(wanted).flat_map(|waiting| waiting.drain(..)) {
            let _ = reply.send(Err(error.clone()));
        }
    }

    /// The checkpoint that was being written is durable, or can never be.
    pub(super) fn checkpoint_done(&mut self, result: Result<Written>) {
        let Some(writing) = self.checkpoints.writing.take() else { return };
        let now = self.now();
        let answer = match result {
            Ok(written) => {
                let fact = CheckpointFact {
                    manifest: written.manifest,
                    epoch: writing.epoch,
                    time: self.clock.now(),
                    duration: now.saturating_sub(writing.began),
                    stall: writing.stall,
                    cpu: writing.worked + written.cpu,
                    files: written.files,
                    bytes: written.bytes,
                    views: writing.views,
                };
                metrics::CHECKPOINTS.fetch_add(1, Ordering::Relaxed);
                metrics::CHECKPOINT_BYTES.fetch_add(fact.bytes, Ordering::Relaxed);
                let duration_us = u64::try_from(fact.duration.as_micros()).unwrap_or(u64::MAX);
                metrics::CHECKPOINT_DURATION_US.store(duration_us, Ordering::Relaxed);
                let stall_us = u64::try_from(fact.stall.as_micros()).unwrap_or(u64::MAX);
                metrics::CHECKPOINT_STALL_US.store(stall_us, Ordering::Relaxed);
                tracing::debug!(
                    manifest = fact.manifest,
                    epoch = fact.epoch.0,
                    files = fact.files,
                    bytes = fact.bytes,
                    duration_ms = fact.duration.as_millis(),
                    stall_us = fact.stall.as_micros(),
                    cpu_ms = fact.cpu.as_millis(),
                    "checkpoint"
                );
                if let Some(durable) = &mut self.durable {
                    let pause = pause_after(fact.cpu, self.workers.count(), durable.interval);
                    let next = durable.next_checkpoint.max(writing.began + pause);
                    durable.next_checkpoint = next;
                }
                self.sinks.staged(now, fact.time, writing.sinks, written.sinks);
                self.checkpoints.stored_epoch = fact.epoch;
                self.checkpoints.history.push_back(fact);
                if self.checkpoints.history.len() > HISTORY_MAX {
                    self.checkpoints.history.pop_front();
                }
                Ok(())
            }
            Err(error) => {
                if error.sqlstate() == SqlState::ADMIN_SHUTDOWN {
                    self.halt(error.clone());
                }
                Err(error)
            }
        };
        for reply in writing.waiting {
            let _ = reply.send(answer.clone());
        }
    }
}

/// How long after the beginning of a checkpoint that took so much processor time the next may
/// begin, so that checkpoints take a tenth of the workers' time at most; within bounds, because
/// what has not been written is done again after a crash.
fn pause_after(cpu: Duration, workers: usize, interval: Duration) -> Duration {
    let workers = u32::try_from(workers.max(1)).unwrap_or(u32::MAX);
    (cpu * CPU_PART / workers).clamp(interval, interval * STRETCH_MAX)
}

/// What one operator has handed over, table by table.
fn state_changes(worker: usize, state: OperatorState) -> impl Iterator<Item = StateChange> {
    let OperatorState { operator, name, writer } = state;
    writer.into_tables().into_iter().map(move |(table, delta)| StateChange {
        operator,
        operator_name: name.to_owned(),
        worker,
        table,
        appended: delta.appended,
        deleted: delta.deleted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dear_checkpoints_come_less_often_but_come() {
        let ms = Duration::from_millis;
        assert_eq!(pause_after(ms(3), 2, ms(1000)), ms(1000));
        assert_eq!(pause_after(ms(200), 2, ms(1000)), ms(1000));
        assert_eq!(pause_after(ms(400), 2, ms(1000)), ms(2000));
        assert_eq!(pause_after(ms(400), 1, ms(1000)), ms(4000));
        assert_eq!(pause_after(ms(60_000), 1, ms(1000)), ms(10_000));
        assert_eq!(pause_after(ms(400), 1, Duration::ZERO), Duration::ZERO);
    }
}
