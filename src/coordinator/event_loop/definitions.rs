//! Changes of the catalog, one after the other.
//!
//! ```text
//!  waiting --next in line--> checked --appended to the log--> in the log --durable--> real
//!                               |                                 (at once without a storage)
//!                               +-- refused: nothing has happened
//! ```
//!
//! While a step is in the log, the next one waits: it is checked against a catalog that has the
//! step before. A step that is real is in the published catalog and in the data plane, and is
//! answered. A crash before that leaves all of it or nothing, because it is one record.

use std::sync::Arc;

use super::cloning::CloneJob;
use super::durable::given_up;
use super::swap::Swap;
use super::{
    Command, Creation, Install, Reply, RunningKind, SourceMetrics, State, dependency_gone,
};
use crate::catalog::object::{IndexObject, ObjectKind};
use crate::catalog::snapshot::{Catalog, Change};
use crate::connectors;
use crate::connectors::Source;
use crate::coordinator::epoch::Moment;
use crate::coordinator::event_loop::{WriteChange, WriteConflict};
use crate::coordinator::table::Table;
use crate::dataflow::operators::source::ANNOUNCED;
use crate::plan::node::{SourceSpec, WatermarkSpec};
use crate::storage::manifest::SourcePlace;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;
use crate::types::time::{EventTime, Watermark};

/// A change of the catalog that waits for its turn.
#[expect(clippy::large_enum_variant, reason = "few of them wait")]
pub(super) enum Step {
    /// Anything but a materialized view.
    Create {
        creation: Box<Creation>,
        install: Install,
        reply: Reply<ObjectId>,
    },
    /// A materialized view whose dataflow runs and has its content.
    Publish {
        creation: Box<Creation>,
        reply: Reply<ObjectId>,
    },
    Apply {
        changes: Vec<Change>,
        reply: Reply<()>,
    },
    /// A database made of a savepoint.
    Clone {
        job: Box<CloneJob>,
        reply: Reply<()>,
    },
}

/// A step that is in the log.
pub(super) struct StepInLog {
    sequence: u64,
    since: Moment,
    checked: Checked,
    /// Taken when its outcome was called unknown.
    reply: Option<StepReply>,
}

/// A step that can be made real.
pub(super) struct Checked {
    pub next: Catalog,
    effect: Effect,
    /// The table of late rows that comes with it.
    late: Option<(ObjectId, Box<Table>)>,
    /// What goes.
    dropped: Vec<ObjectId>,
}

/// A step that may go into the log, with its changes of the catalog and a table's first rows.
type Plan = (Checked, Vec<Change>, Option<(ObjectId, ChangeBatch)>);

/// What a step brings beside the catalog.
enum Effect {
    Nothing,
    Table(ObjectId, Box<Table>, Option<Box<WatermarkSpec>>),
    Source(Box<SourceSpec>, Arc<dyn Source>),
    /// The second's dataflow takes the first's place.
    Swap(ObjectId, ObjectId),
    Clone(Box<CloneJob>),
}

pub(super) enum StepReply {
    Created(ObjectId, Reply<ObjectId>),
    Applied(Reply<()>),
}

impl StepReply {
    pub fn send(self, result: Result<()>) {
        match self {
            StepReply::Created(id, reply) => {
                if reply.send(result.map(|()| id)).is_err() {
                    // The client has gone; what it asked for stays, as in any database.
                    tracing::debug!(object = %id, "created for a client that has gone");
                }
            }
            StepReply::Applied(reply) => drop(reply.send(result)),
        }
    }
}

impl State {
    /// Takes steps as far as they go now.
    pub(super) fn run_steps(&mut self) {
        while self.step_in_log.is_none() && self.swap.is_none() {
            let Some(step) = self.steps.pop_front() else { return };
            self.run_step(step);
        }
    }

    fn run_step(&mut self, step: Step) {
        let now = self.now();
        if let Some(error) = self.writes_refused() {
            return self.refuse_step(step, error);
        }
        let (result, reply) = match step {
            Step::Create { creation, install, reply } => {
                let result = self.check_create(&creation, install);
                (result, StepReply::Created(creation.object.id, reply))
            }
            Step::Publish { creation, reply } => {
                let id = creation.object.id;
                let result = self.check_publish(&creation);
                if result.is_err() {
                    self.drop_running(id);
                }
                (result, StepReply::Created(id, reply))
            }
            Step::Apply { changes, reply } => {
                (self.check_apply(changes), StepReply::Applied(reply))
            }
            Step::Clone { job, reply } => (self.check_clone(job), StepReply::Applied(reply)),
        };
        let (checked, changes, rows) = match result {
            Ok(checked) => checked,
            Err(error) => return reply.send(Err(error)),
        };
        match self.log_definition(&changes, rows) {
            Ok(None) => {
                self.make_real(checked, Some(reply));
            }
            Ok(Some(sequence)) => {
                let step = StepInLog { sequence, since: now, checked, reply: Some(reply) };
                self.step_in_log = Some(step);
            }
            Err(error) => reply.send(Err(error)),
        }
    }

    fn refuse_step(&mut self, step: Step, error: Error) {
        match step {
            Step::Create { reply, .. } => drop(reply.send(Err(error))),
            Step::Publish { creation, reply } => {
                self.drop_running(creation.object.id);
                let _ = reply.send(Err(error));
            }
            Step::Apply { reply, .. } | Step::Clone { reply, .. } => {
                drop(reply.send(Err(error)));
            }
        }
    }

    /// Refuses all that wait for their turn.
    pub(super) fn refuse_steps(&mut self, error: &Error) {
        while let Some(step) = self.steps.pop_front() {
            self.refuse_step(step, error.clone());
        }
    }

    pub(super) fn step_in_log(&self) -> bool {
        self.step_in_log.is_some() || self.swap.is_some()
    }

    /// The log is durable up to `sequence`.
    pub(super) fn step_is_durable(&mut self, sequence: u64) {
        if let Some(step) = self.step_in_log.take_if(|step| step.sequence <= sequence) {
            self.make_real(step.checked, step.reply);
        }
    }

    /// The log cannot be written: who has waited since before `since_max` is told.
    pub(super) fn step_waits(&mut self, since_max: Moment, error: &Error) {
        if let Some(step) = &mut self.step_in_log
            && step.since <= since_max
            && let Some(reply) = step.reply.take()
        {
            reply.send(Err(given_up(true, error)));
        }
    }

    fn make_real(&mut self, checked: Checked, reply: Option<StepReply>) {
        if let Effect::Swap(view, by) = checked.effect {
            // The catalog and the data change together, at a quiet moment.
            self.swap = Some(Swap { view, by, checked, reply });
            return;
        }
        let Checked { next, effect, late, dropped } = checked;
        let mut created_table = None;
        self.forget_figures(&dropped);
        self.set_catalog(next);
        match effect {
            Effect::Nothing | Effect::Swap(..) => {}
            Effect::Table(id, rows, rule) => {
                if let Some(rule) = rule {
                    self.start_table_time(id, *rule, &rows);
                }
                self.install_table(id, *rows);
                created_table = Some(id);
            }
            Effect::Source(spec, source) => self.install_source(*spec, source, None),
            Effect::Clone(job) => self.install_clone(*job),
        }
        dropped.into_iter().for_each(|id| self.drop_running(id));
        if let Some((id, table)) = late {
            self.install_table(id, *table);
            self.definition_is_real(Some(id));
        }
        self.definition_is_real(created_table);
        if let Some(reply) = reply {
            reply.send(Ok(()));
        }
    }

    pub(super) fn install_table(&mut self, id: ObjectId, rows: Table) {
        let catalog = self.catalog();
        let own = match catalog.get(id).map(|object| &object.kind) {
            Some(ObjectKind::Table(table)) => table.history_retention_us,
            _ => None,
        };
        // It is there from the open epoch on, with its first rows.
        let floor = self.epochs.closed();
        self.histories.add_table(id, &rows, floor, self.keeps_history(own));
        self.tables.insert(id, rows);
        self.note_replays(&catalog, id);
        self.note_retention(&catalog, id);
        self.add_running(id, vec![], RunningKind::Table);
        self.workers.send(Command::CreateTable(id));
    }

    /// `place`: where it was read to before the start.
    pub(super) fn install_source(
        &mut self,
        spec: SourceSpec,
        source: Arc<dyn Source>,
        place: Option<Arc<SourcePlace>>,
    ) {
        let metrics = Arc::new(SourceMetrics::default());
        let kind = RunningKind::Source { metrics: metrics.clone(), bounded: source.bounded() };
        self.add_running(spec.object, vec![], kind);
        if let Some(watermark) = &spec.watermark {
            self.watermarks.add(spec.object, watermark.idle_timeout);
            let announced = place.as_ref().and_then(|place| place.values.get(ANNOUNCED));
            if let Some(us) = announced.and_then(|text| text.parse().ok()) {
                self.watermarks.resume_at(spec.object, Watermark(EventTime(us)));
            }
        }
        if place.is_some() {
            self.resumed.insert(spec.object);
        }
        self.workers.send(Command::CreateSource(Arc::new(spec), source, metrics, place));
    }

    fn check_create(&mut self, creation: &Creation, install: Install) -> Result<Plan> {
        let next = self.check_new(creation)?;
        let object = &creation.object;
        let mut first_rows = None;
        let effect = match install {
            Install::Nothing => Effect::Nothing,
            Install::Table(rows) => {
                let mut table = Table::of(object)?;
                if let Some(rows) = rows {
                    // No dataflow reads the table yet: who does later begins with its content.
                    let change = WriteChange::Insert { rows, on_conflict: WriteConflict::Error };
                    let changes = table.write(change)?.changes;
                    first_rows = (!changes.is_empty()).then_some((object.id, changes));
                }
                let rule = creation.timed.rule.clone().map(Box::new);
                Effect::Table(object.id, Box::new(table), rule)
            }
            Install::Source(mut spec) => {
                spec.object = object.id;
                let source = connectors::open_source(
                    &spec.connector,
                    &spec.options,
                    Some(spec.physical_schema.clone()),
                )?;
                Effect::Source(Box::new(spec), source)
            }
            Install::Dataflow(_) => {
                return Err(Error::internal("a dataflow is published, not created"));
            }
        };
        let dropped = creation.dropped(&self.catalog());
        let late = match &creation.timed.late {
            Some(late) => Some((late.id, Box::new(Table::of(late)?))),
            None => None,
        };
        let changes = creation.changes(&self.catalog());
        Ok((Checked { next, effect, late, dropped }, changes, first_rows))
    }

    fn check_publish(&self, creation: &Creation) -> Result<Plan> {
        let next = self.check_new(creation)?;
        let object = &creation.object;
        match self.running.get(&object.id) {
            None => return Err(dependency_gone(&object.name.name)),
            Some(running) => {
                if let Some(error) = &running.failed {
                    return Err(error.clone());
                }
            }
        }
        let changes = creation.changes(&self.catalog());
        if let (true, Some(view)) = (creation.in_place, creation.replaces) {
            let effect = Effect::Swap(view, object.id);
            return Ok((Checked { next, effect, late: None, dropped: vec![] }, changes, None));
        }
        let dropped = creation.dropped(&self.catalog());
        Ok((Checked { next, effect: Effect::Nothing, late: None, dropped }, changes, None))
    }

    fn check_clone(&self, job: Box<CloneJob>) -> Result<Plan> {
        let next = self.catalog().apply(&job.changes)?;
        let fills = job.tables.iter().map(|table| {
            let (object, files) = (table.id, table.files.clone());
            Change::FillTable { object, files }
        });
        let changes = job.changes.iter().cloned().chain(fills).collect();
        let effect = Effect::Clone(job);
        Ok((Checked { next, effect, late: None, dropped: vec![] }, changes, None))
    }

    fn check_apply(&mut self, mut changes: Vec<Change>) -> Result<Plan> {
        for change in &mut changes {
            if let Change::CreateIndex(index) = change
                && index.id == ObjectId(0)
            {
                *index = Arc::new(IndexObject { id: self.new_id(), ..index.as_ref().clone() });
            }
        }
        let mut dropped = Vec::new();
        for change in &changes {
            let Change::DropObject(id) = change else { continue };
            dropped.push(*id);
            let published = self.steps.iter().filter_map(|step| match step {
                Step::Publish { creation, .. } => Some(&creation.object),
                _ => None,
            });
            let filled = self.hydrating.values().map(|h| &h.creation.object);
            let user = filled.chain(published).find(|o| o.depends_on.contains(id));
            if let Some(user) = user {
                return Err(Error::user(
                    SqlState::OBJECT_IN_USE,
                    format!("\"{}\" is being created over it", user.name.name),
                )
                .retryable());
            }
        }
        let next = self.catalog().apply(&changes)?;
        Ok((Checked { next, effect: Effect::Nothing, late: None, dropped }, changes, None))
    }
}
