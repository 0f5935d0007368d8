//! New objects: what can be said against one before anything of it is made.

use std::sync::Arc;

use arrow::array::RecordBatch;

use super::State;
use super::definitions::Step;
use super::installation::{NewDataflow, Purpose};
use super::requests::Reply;
use crate::catalog::object::{Definer, Object, ObjectKind};
use crate::catalog::snapshot::{Catalog, Change};
use crate::dataflow::operators;
use crate::plan::node::{Plan, SourceSpec, WatermarkSpec};
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;

/// What the data plane must set up for a new object.
pub enum Install {
    /// A view: nothing.
    Nothing,
    /// A table, with its first rows.
    Table(Option<RecordBatch>),
    Source(SourceSpec),
    /// A materialized view: the dataflow that maintains it.
    Dataflow(Box<Plan>),
}

/// What an object with a watermark has beside it.
#[derive(Default)]
pub struct Timed {
    /// The table of its late rows, made in the same step.
    pub late: Option<Object>,
    /// The rule of a table; a source's is in its spec.
    pub rule: Option<WatermarkSpec>,
}

/// An object that is to be in the catalog.
pub(super) struct Creation {
    pub(super) object: Object,
    /// Who made it, for what is planned again after a restart.
    pub(super) definer: Option<Arc<Definer>>,
    /// What it takes the place of, which goes in the same step.
    pub(super) replaces: Option<ObjectId>,
    /// It gets the id of what it replaces, and with it all who depend on that.
    pub(super) in_place: bool,
    pub(super) timed: Timed,
}

impl Creation {
    pub(super) fn changes(&self, catalog: &Catalog) -> Vec<Change> {
        if let (true, Some(object)) = (self.in_place, self.replaces) {
            let replaced = Object { id: object, ..self.object.clone() };
            let mut changes = vec![Change::ReplaceView(Arc::new(replaced))];
            changes.extend(self.definer.clone().map(|definer| Change::Define { object, definer }));
            return changes;
        }
        let mut changes: Vec<Change> =
            self.dropped(catalog).into_iter().map(Change::DropObject).collect();
        changes.push(Change::CreateObject(Arc::new(self.object.clone())));
        let late = self.timed.late.iter();
        changes.extend(late.map(|late| Change::CreateObject(Arc::new(late.clone()))));
        let object = self.object.id;
        changes.extend(self.definer.clone().map(|definer| Change::Define { object, definer }));
        changes
    }

    /// Of a view that is in the catalog already.
    pub(super) fn again(object: Object) -> Creation {
        let timed = Timed::default();
        Creation { object, definer: None, replaces: None, in_place: false, timed }
    }

    /// What goes, in order: what is replaced, with the tables of its late rows.
    pub(super) fn dropped(&self, catalog: &Catalog) -> Vec<ObjectId> {
        let parts = self.replaces.map_or_else(Vec::new, |old| catalog.parts_of(old));
        parts.into_iter().chain(self.replaces).collect()
    }
}

/// How a view came to be.
pub(super) enum Made {
    /// By a statement: it goes into the catalog when it has its content.
    Now,
    /// It was there before the server started, and stays when it cannot be built.
    Before,
}

pub(super) fn dependency_gone(what: &str) -> Error {
    Error::user(
        SqlState::UNDEFINED_TABLE,
        format!("a relation that {what} reads has been dropped meanwhile"),
    )
}

impl State {
    pub(super) fn create(
        &mut self,
        mut creation: Box<Creation>,
        install: Install,
        reply: Reply<ObjectId>,
    ) {
        creation.object.id = self.new_id();
        let owner = creation.object.id;
        if let Some(late) = &mut creation.timed.late {
            late.id = self.new_id();
            late.depends_on = vec![owner];
            if let ObjectKind::Table(table) = &mut late.kind {
                table.late_of = Some(owner);
            }
        }
        match install {
            Install::Dataflow(plan) => match self.check_new_view(&creation, &plan) {
                Ok(()) => {
                    let id = creation.object.id;
                    let purpose = Purpose::View { creation, made: Made::Now, reply };
                    let (plan, restore) = (*plan, None);
                    self.new_dataflows.push_back(NewDataflow { id, plan, purpose, restore });
                }
                Err(error) => drop(reply.send(Err(error))),
            },
            install => {
                self.steps.push_back(Step::Create { creation, install, reply });
                self.run_steps();
            }
        }
    }

    /// The objects that are being created: their dataflows wait or are filled, or they wait to be
    /// published.
    pub(super) fn being_made(&self) -> impl Iterator<Item = &Creation> {
        let filled = self.hydrating.values().map(|h| h.creation.as_ref());
        let published = self.steps.iter().filter_map(|step| match step {
            Step::Publish { creation, .. } => Some(creation.as_ref()),
            _ => None,
        });
        let waiting = self.new_dataflows.iter().filter_map(|new| match &new.purpose {
            Purpose::View { creation, .. } => Some(creation.as_ref()),
            Purpose::Subscription { .. } => None,
        });
        filled.chain(published).chain(waiting)
    }

    /// What can be said against an object before anything of it is made.
    pub(super) fn check_new(&self, creation: &Creation) -> Result<Catalog> {
        let object = &creation.object;
        let catalog = self.catalog();
        if object.depends_on.iter().any(|dependency| catalog.get(*dependency).is_none()) {
            return Err(dependency_gone(&object.name.name));
        }
        if self.being_made().any(|other| other.object.name == object.name) {
            return Err(Error::user(
                SqlState::DUPLICATE_TABLE,
                format!("relation \"{}\" is being created already", object.name.name),
            ));
        }
        self.check_replaced(creation)?;
        catalog.apply(&creation.changes(&catalog))
    }

    pub(super) fn check_new_view(&self, creation: &Creation, plan: &Plan) -> Result<()> {
        self.check_new(creation)?;
        operators::check(plan)
    }

    /// What is replaced must be there, and nothing may depend on it.
    pub(super) fn check_replaced(&self, creation: &Creation) -> Result<()> {
        let Some(replaced) = creation.replaces else { return Ok(()) };
        let catalog = self.catalog();
        let Some(old) = catalog.get(replaced) else {
            return Err(dependency_gone("the statement"));
        };
        if creation.in_place {
            return self.check_swap(creation, replaced);
        }
        let others = self.being_made().map(|other| &other.object);
        let user = catalog.dependants(replaced).map(AsRef::as_ref).chain(others).find(|other| {
            other.name != creation.object.name && other.depends_on.contains(&replaced)
        });
        match user {
            None => Ok(()),
            Some(user) => Err(Error::user(
                SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
                format!(
                    "cannot replace {} {} because other objects depend on it",
                    old.kind_noun(),
                    old.name.name
                ),
            )
            .detail(format!(
                "{} {} depends on {} {}",
                user.kind_noun(),
                user.name.name,
                old.kind_noun(),
                old.name.name
            ))
            .retryable()),
        }
    }
}
