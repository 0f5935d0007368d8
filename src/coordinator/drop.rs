//! DROP: what is named, what depends on it, and whether that may go too.
//!
//! What to drop is decided from one catalog version; the coordinator refuses the step when it is
//! not true any more.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::catalog::object::{Object, ObjectKind, TableObject};
use crate::catalog::snapshot::{Catalog, Change, no_schema};
use crate::catalog::system_views::SYSTEM_SCHEMAS;
use crate::coordinator::command::{Connection, Notice};
use crate::coordinator::ddl::{noun_of, schema_database, target_name, upper};
use crate::sql::bind::PlanContext;
use crate::sql::statement::{DropObjects, Name, Noun};
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;

impl Connection {
    pub(super) async fn run_drop(&self, context: &PlanContext, drop: &DropObjects) -> Result<()> {
        match drop.kind {
            Noun::Schema => self.drop_schemas(context, drop).await,
            Noun::Database => self.drop_databases(context, drop).await,
            Noun::Source | Noun::Table | Noun::View | Noun::MaterializedView | Noun::Sink => {
                self.drop_relations(context, drop).await
            }
            Noun::Savepoint => self.drop_savepoints(drop).await,
            Noun::Index => self.drop_indexes(context, drop).await,
        }
    }

    /// An error, or with IF EXISTS a notice.
    pub(super) fn missing(&self, may: bool, sqlstate: SqlState, message: String) -> Result<()> {
        if !may {
            return Err(Error::user(sqlstate, message));
        }
        self.session.notify(Notice::note("00000", format!("{message}, skipping")));
        Ok(())
    }

    async fn drop_relations(&self, context: &PlanContext, drop: &DropObjects) -> Result<()> {
        let mut targets: Vec<Arc<Object>> = Vec::new();
        for name in &drop.names {
            if let Some(object) = self.find_dropped(context, drop, name)?
                && !targets.iter().any(|t| t.id == object.id)
            {
                targets.push(object);
            }
        }
        let catalog = &context.catalog;
        let ids: Vec<ObjectId> = targets.iter().map(|t| t.id).collect();
        for target in &targets {
            if let ObjectKind::Table(TableObject { replayed_of: Some(source), .. }) = &target.kind
                && !ids.contains(source)
            {
                let name = shown(context, target);
                return Err(Error::user(
                    SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
                    format!("cannot drop table {name} because its rows are rows of a source"),
                )
                .hint("Drop the source."));
            }
        }
        let dependants = dependants(catalog, &ids);
        if !dependants.is_empty() {
            if !drop.cascade {
                let what = match &targets[..] {
                    [one] => format!(
                        "{} {} because other objects depend on it",
                        one.kind_noun(),
                        shown(context, one)
                    ),
                    _ => "desired object(s) because other objects depend on them".to_owned(),
                };
                return Err(still_needed(
                    &what,
                    dependants.iter().map(|(object, on)| depends(context, object, on)),
                ));
            }
            self.tell_cascade(context, dependants.iter().map(|(object, _)| object));
        }
        self.apply_drop(drop_changes(catalog, &ids)).await
    }

    async fn apply_drop(&self, changes: Vec<Change>) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        self.database.coordinator.apply(changes).await
    }

    /// The object that a name of the statement means; `None` when it may be missing and is.
    fn find_dropped(
        &self,
        context: &PlanContext,
        drop: &DropObjects,
        name: &Name,
    ) -> Result<Option<Arc<Object>>> {
        let schemas = context.catalog.schemas(&context.database).unwrap_or_default();
        let missing = |message: String| {
            self.missing(drop.if_exists, SqlState::UNDEFINED_TABLE, message).map(|()| None)
        };
        let full_name = match &name.schema {
            Some(schema) if SYSTEM_SCHEMAS.contains(&schema.as_str()) => {
                return Err(required_by_system(&format!("{} {schema}.{}", drop.kind, name.name)));
            }
            Some(schema) if !schemas.contains(schema) => {
                let message = format!("schema \"{schema}\" does not exist");
                self.missing(drop.if_exists, SqlState::INVALID_SCHEMA_NAME, message)?;
                return Ok(None);
            }
            Some(_) => target_name(context, name)?,
            None => {
                let found = context.search_path.iter().find_map(|schema| {
                    let name = Name { schema: Some(schema.clone()), ..name.clone() };
                    let name = target_name(context, &name).ok()?;
                    context.catalog.lookup(&name)
                });
                match found {
                    Some(object) => object.name.clone(),
                    None => {
                        return missing(format!("{} \"{}\" does not exist", drop.kind, name.name));
                    }
                }
            }
        };
        let Some(object) = context.catalog.lookup(&full_name) else {
            return missing(format!("{} \"{}\" does not exist", drop.kind, name.name));
        };
        if noun_of(object) != drop.kind {
            let kind = noun_of(object);
            return Err(Error::user(
                SqlState::WRONG_OBJECT_TYPE,
                format!("\"{}\" is not a {}", name.name, drop.kind),
            )
            .hint(format!("Use DROP {} to remove a {kind}.", upper(kind))));
        }
        Ok(Some(object.clone()))
    }

    /// Names what goes with what was named.
    pub(super) fn tell_cascade<'a>(
        &self,
        context: &PlanContext,
        objects: impl Iterator<Item = &'a Arc<Object>>,
    ) {
        let lines: Vec<String> = objects
            .map(|o| format!("drop cascades to {} {}", o.kind_noun(), shown(context, o)))
            .collect();
        let notice = match &lines[..] {
            [] => return,
            [one] => Notice::note("00000", one.clone()),
            _ => {
                let message = format!("drop cascades to {} other objects", lines.len());
                let mut notice = Notice::note("00000", message);
                notice.detail = Some(lines.join("\n"));
                notice
            }
        };
        self.session.notify(notice);
    }

    async fn drop_schemas(&self, context: &PlanContext, drop: &DropObjects) -> Result<()> {
        let mut changes = Vec::new();
        let mut objects: Vec<Arc<Object>> = Vec::new();
        for name in &drop.names {
            let name = DropObjects::schema_name(name);
            let database = schema_database(context, &name)?;
            let schema = name.schema;
            if SYSTEM_SCHEMAS.contains(&schema.as_str()) {
                return Err(required_by_system(&format!("schema {schema}")));
            }
            let schemas = context.catalog.schemas(&database).unwrap_or_default();
            if !schemas.contains(&schema) {
                let error = no_schema(&schema);
                self.missing(drop.if_exists, error.sqlstate(), error.message().to_owned())?;
                continue;
            }
            objects.extend(
                context
                    .catalog
                    .objects()
                    .filter(|o| o.name.database == database && o.name.schema == schema)
                    .cloned(),
            );
            changes.push(Change::DropSchema { database, schema });
        }
        let ids: Vec<ObjectId> = objects.iter().map(|o| o.id).collect();
        let further = dependants(&context.catalog, &ids);
        if !objects.is_empty() && !drop.cascade {
            let what = match &drop.names[..] {
                [one] => format!("schema {} because other objects depend on it", one.name),
                _ => "desired object(s) because other objects depend on them".to_owned(),
            };
            let inside = objects.iter().map(|o| {
                format!(
                    "{} {} depends on schema {}",
                    o.kind_noun(),
                    shown(context, o),
                    o.name.schema
                )
            });
            return Err(still_needed(&what, inside));
        }
        self.tell_cascade(context, objects.iter().chain(further.iter().map(|(o, _)| o)));
        let mut all = drop_changes(&context.catalog, &ids);
        all.extend(changes);
        self.apply_drop(all).await
    }

    async fn drop_databases(&self, context: &PlanContext, drop: &DropObjects) -> Result<()> {
        let mut changes = Vec::new();
        for name in &drop.names {
            let database = &name.name;
            if context.catalog.schemas(database).is_none() {
                let message = format!("database \"{database}\" does not exist");
                self.missing(drop.if_exists, SqlState::INVALID_CATALOG_NAME, message)?;
                continue;
            }
            if *database == self.session.database {
                return Err(Error::user(
                    SqlState::OBJECT_IN_USE,
                    "cannot drop the currently open database",
                ));
            }
            let others =
                self.database.sessions().iter().filter(|s| s.database == *database).count();
            if others > 0 {
                let detail = match others {
                    1 => "There is 1 other session using the database.".to_owned(),
                    n => format!("There are {n} other sessions using the database."),
                };
                return Err(Error::user(
                    SqlState::OBJECT_IN_USE,
                    format!("database \"{database}\" is being accessed by other users"),
                )
                .detail(detail));
            }
            let inside: Vec<ObjectId> = context
                .catalog
                .objects()
                .filter(|o| o.name.database == *database)
                .map(|o| o.id)
                .collect();
            changes.extend(drop_changes(&context.catalog, &inside));
            changes.push(Change::DropDatabase(database.clone()));
        }
        self.apply_drop(changes).await
    }
}

/// The objects and all that depends on them, dependants first.
pub(super) fn drop_changes(catalog: &Catalog, ids: &[ObjectId]) -> Vec<Change> {
    let mut order: Vec<ObjectId> = Vec::new();
    for id in ids {
        for dropped in catalog.drop_order(*id) {
            if !order.contains(&dropped) {
                order.push(dropped);
            }
        }
    }
    order.into_iter().map(Change::DropObject).collect()
}

/// What depends on `ids` and is not among them, each with the object that it depends on; nearest
/// first.
pub(super) fn dependants(catalog: &Catalog, ids: &[ObjectId]) -> Vec<(Arc<Object>, Arc<Object>)> {
    let mut seen: BTreeSet<ObjectId> = ids.iter().copied().collect();
    let mut found: Vec<(Arc<Object>, Arc<Object>)> = Vec::new();
    let mut open: Vec<Arc<Object>> =
        ids.iter().filter_map(|id| catalog.get(*id)).cloned().collect();
    while !open.is_empty() {
        let mut next = Vec::new();
        for object in open {
            for dependant in catalog.dependants(object.id) {
                if seen.insert(dependant.id) {
                    found.push((dependant.clone(), object.clone()));
                    next.push(dependant.clone());
                }
            }
        }
        open = next;
    }
    found
}

/// A line of the detail: who depends on what.
pub(super) fn depends(context: &PlanContext, object: &Object, on: &Object) -> String {
    format!(
        "{} {} depends on {} {}",
        object.kind_noun(),
        shown(context, object),
        on.kind_noun(),
        shown(context, on)
    )
}

/// A relation's name, with its schema when that is not on the search path.
pub(super) fn shown(context: &PlanContext, object: &Object) -> String {
    if context.search_path.contains(&object.name.schema) {
        object.name.name.clone()
    } else {
        format!("{}.{}", object.name.schema, object.name.name)
    }
}

pub(super) fn still_needed(what: &str, lines: impl Iterator<Item = String>) -> Error {
    Error::user(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, format!("cannot drop {what}"))
        .detail(lines.collect::<Vec<_>>().join("\n"))
        .hint("Use DROP ... CASCADE to drop the dependent objects too.")
}

fn required_by_system(what: &str) -> Error {
    Error::user(
        SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
        format!("cannot drop {what} because it is required by the database system"),
    )
}
