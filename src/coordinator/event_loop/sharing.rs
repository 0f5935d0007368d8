//! Views that read what others keep although they do not name them (`plan::share`).
//!
//! So are indexes that joins read (`event_loop/indexes.rs`).
//!
//! The catalog knows nothing of it but a note in the definer, so that the same is shared after a
//! restart. A view that is dropped or replaced while others read it goes on without a name until
//! the last of these has gone; a restart computes these for themselves.

use std::sync::Arc;

use super::indexes::join_indexes;
use super::{Creation, RunningKind, State};
use crate::catalog::object::{Definer, IndexObject, ObjectKind};
use crate::plan::index_join::{JoinIndex, use_indexes};
use crate::plan::node::Plan;
use crate::plan::share::{Shareable, share};
use crate::types::id::ObjectId;

/// Lets a plan read what these views keep, and its joins these indexes; gives those that it reads
/// now.
pub(in crate::coordinator) fn share_all(
    plan: &mut Plan,
    views: &[Shareable<'_>],
    indexes: &[JoinIndex<'_>],
) -> Vec<ObjectId> {
    let mut shared = share(plan, views);
    shared.extend(use_indexes(plan, indexes));
    // A view that reads these indexes itself is found only now.
    shared.extend(share(plan, views));
    let read = plan.root.scanned_objects();
    shared.retain(|object| read.contains(object));
    shared.sort_unstable();
    shared.dedup();
    shared
}

impl State {
    /// Lets the plan of a new view read what running ones keep, and notes it.
    pub(super) fn share(&self, plan: &mut Plan, creation: &mut Creation) -> Vec<ObjectId> {
        // What is replaced goes, and what takes its place may be read by anything above.
        let view = matches!(creation.object.kind, ObjectKind::MaterializedView(_));
        let definer = creation.definer.as_mut();
        let Some(definer) = definer.filter(|_| view) else {
            return Vec::new();
        };
        let catalog = self.catalog();
        let (database, replaces) = (&creation.object.name.database, creation.replaces.is_some());
        let may = |index: &IndexObject| self.may_read(&catalog, index, replaces);
        let indexes = join_indexes(&catalog, database, may);
        let views: Vec<Shareable<'_>> = self
            .running
            .iter()
            .filter(|(id, running)| {
                if replaces {
                    return false;
                }
                let view = matches!(running.kind, RunningKind::View { .. });
                view && running.failed.is_none() && !self.hydrating.contains_key(id)
            })
            .filter_map(|(id, running)| {
                let object = catalog.get(*id)?;
                // One of another database cannot be named there, and is not read there.
                let near = object.name.database == creation.object.name.database
                    && matches!(object.kind, ObjectKind::MaterializedView(_));
                let (name, plan) = (object.name.name.as_str(), running.plan.as_deref()?);
                near.then_some(Shareable { object: *id, name, plan })
            })
            .collect();
        let shared = share_all(plan, &views, &indexes);
        if !shared.is_empty() {
            let shares = shared.iter().map(|id| id.0).collect();
            *definer = Arc::new(Definer { shares, ..definer.as_ref().clone() });
        }
        shared
    }

    /// What a view shared when it was made, as far as its plan does so still.
    pub(super) fn shared_before(&self, view: ObjectId, reads: &[ObjectId]) -> Vec<ObjectId> {
        let catalog = self.catalog();
        let noted = catalog.definer(view).map(|definer| definer.shares.clone()).unwrap_or_default();
        noted.into_iter().map(ObjectId).filter(|id| reads.contains(id)).collect()
    }

    /// Dataflows that read an object without naming it.
    pub(super) fn sharers(&self, object: ObjectId) -> Vec<ObjectId> {
        let shares = self.running.iter().filter(|(_, running)| running.shares.contains(&object));
        shares.map(|(id, _)| *id).collect()
    }

    /// Whether an object that is dropped has to go on for others, without a name.
    pub(super) fn goes_on(&mut self, object: ObjectId) -> bool {
        if self.sharers(object).is_empty() {
            return false;
        }
        if let Some(running) = self.running.get_mut(&object) {
            running.nameless = true;
        }
        self.errors.forget(object);
        self.checkpoint_without(object);
        true
    }

    /// Lets go of what only a dataflow that has gone read.
    pub(super) fn release(&mut self, shares: &[ObjectId]) {
        for object in shares {
            let nameless = self.running.get(object).is_some_and(|running| running.nameless);
            if nameless && self.sharers(*object).is_empty() {
                self.drop_running(*object);
            }
        }
    }
}
