//! A database made of a savepoint comes into the data plane, all of it in one step.

use std::collections::HashMap;
use std::sync::Arc;

use super::durable::Changed;
use super::{Creation, Made, NewDataflow, OpenedSource, Purpose, Reply, State};
use crate::catalog::object::Object;
use crate::catalog::snapshot::Change;
use crate::coordinator::table::Table;
use crate::plan::node::{Plan, WatermarkSpec};
use crate::state::delta::RestoredState;
use crate::storage::manifest::{FileRef, ViewState};
use crate::types::id::ObjectId;

/// What a clone consists of. Ids are new.
pub struct CloneJob {
    pub changes: Vec<Change>,
    pub tables: Vec<ClonedTable>,
    pub sources: Vec<OpenedSource>,
    /// The rules of tables with watermarks.
    pub rules: HashMap<ObjectId, WatermarkSpec>,
    /// Those that others read before these.
    pub views: Vec<ClonedView>,
    /// The row errors, as they are stored.
    pub errors: Option<String>,
}

/// A table with the files that its rows are in.
pub struct ClonedTable {
    pub id: ObjectId,
    pub rows: Table,
    pub files: Vec<FileRef>,
}

/// A materialized view with its state; without one it is computed again.
pub struct ClonedView {
    pub object: Arc<Object>,
    pub plan: Plan,
    pub state: Option<(RestoredState, ViewState)>,
    /// Told when it has its content.
    pub reply: Reply<ObjectId>,
}

impl State {
    /// The catalog has it already.
    pub(super) fn install_clone(&mut self, job: CloneJob) {
        let CloneJob { changes: _, tables, sources, mut rules, views, errors } = job;
        for ClonedTable { id, rows, files } in tables {
            if let Some(rule) = rules.remove(&id) {
                self.start_table_time(id, rule, &rows);
            }
            self.install_table(id, rows);
            if let Some(durable) = &mut self.durable {
                durable.changed.insert(id, Changed::Files(files));
            }
        }
        for (spec, source, place) in sources {
            self.install_source(spec, source, place);
        }
        if let Some(text) = errors {
            self.checkpoints.errors_changed = true;
            if let Err(error) = self.errors.load(&text, |_| true) {
                tracing::error!(%error, "the row errors of a clone are lost");
            }
        }
        // All of them begin in the same epoch, so that they may read each other.
        for ClonedView { object, plan, state, reply } in views {
            let id = object.id;
            let creation = Box::new(Creation::again(object.as_ref().clone()));
            let purpose = Purpose::View { creation, made: Made::Before, reply };
            let restore = state.map(|(rows, state)| {
                self.checkpoints.cloned.insert(id, state);
                Arc::new(rows)
            });
            self.new_dataflows.push_back(NewDataflow { id, plan, purpose, restore });
        }
    }
}
