//! What the coordinator starts over: tables, sources and sinks, and views with their stored state.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::creation::{Creation, Made};
use super::installation::{NewDataflow, Purpose};
use super::{RunningKind, State};
use crate::catalog::object::{Object, ObjectKind};
use crate::connectors::Source;
use crate::coordinator::ground::GroundState;
use crate::dataflow::worker::Command;
use crate::plan::node::{Plan, SourceSpec};
use crate::state::delta::RestoredState;
use crate::storage::manifest::SourcePlace;
use crate::storage::sinks::SinkState;
use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use crate::types::id::ObjectId;
use crate::types::time::EventTime;

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
    pub sinks: Vec<StoredSink>,
}

/// A sink as a checkpoint has it.
pub struct StoredSink {
    pub object: Arc<Object>,
    pub plan: Plan,
    pub state: SinkState,
    /// It is computed again: deletions of the rows that it has given.
    pub owed: Option<Vec<ChangeBatch>>,
}

/// A view with its stored state, which is of before the log's records.
pub struct RestoredView {
    pub object: Arc<Object>,
    pub plan: Plan,
    pub state: RestoredState,
}

/// Tells when a view has taken up its state.
pub type RestoredAnswer = (ObjectId, oneshot::Receiver<Result<ObjectId>>);

impl State {
    /// Sets up what was there before the server started.
    pub(super) fn lay_ground(&mut self, start: StartState) -> Vec<RestoredAnswer> {
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
            let changed = ground.changed.iter();
            let changed = changed.filter_map(|(table, came)| Some((table, came.as_ref()?)));
            for (table, changes) in changed.chain(&ground.replayed) {
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
        for StoredSink { object, plan, state, owed } in sinks {
            if let Err(error) = self.start_sink(&object, &plan, Some(state), owed) {
                tracing::error!(sink = %object.name.name, %error, "cannot be started");
            }
        }
        views.into_iter().map(|view| self.install_restored(view)).collect()
    }

    pub(super) fn install_restored(&mut self, view: RestoredView) -> RestoredAnswer {
        let RestoredView { object, plan, state } = view;
        let (reply, answer) = oneshot::channel();
        let id = object.id;
        let object = object.as_ref().clone();
        let creation = Box::new(Creation::again(object));
        let purpose = Purpose::View { creation, made: Made::Before, reply };
        self.install(NewDataflow { id, plan, purpose, restore: Some(Arc::new(state)) });
        (id, answer)
    }
}
