//! `CREATE DATABASE copy FROM SAVEPOINT name`: the connection's database as it was then, under
//! another name, beside the one that goes on.
//!
//! 1. The savepoint's catalog says what there was; every object gets a new id, and whatever names
//!    an object the new one.
//! 2. Views are planned over the old ids, which tells whether the stored state is theirs; then
//!    their plans read the new ones. Sinks are left out: two would write to one target.
//! 3. The coordinator takes all of it in one step. The log says which files the tables begin with,
//!    and not their rows; the next checkpoint names the same files. Nothing is copied in the
//!    storage: files go when no manifest and no savepoint names them, whoever they were written
//!    for.
//! 4. The statement ends when a checkpoint has the clone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};

use crate::catalog::object::{Definer, IndexObject, Object, ObjectKind, ObjectName};
use crate::catalog::snapshot::{Catalog, Change, DEFAULT_SCHEMA, no_database};
use crate::catalog::stored::catalog_from_text;
use crate::coordinator::ddl::open_connector;
use crate::coordinator::event_loop::{
    CloneJob, ClonedTable, ClonedView, Coordinator, RestoredAnswer,
};
use crate::coordinator::recovery::{in_order, plan_views, source_spec, table_rules};
use crate::coordinator::table::Table;
use crate::plan::fingerprint::fingerprint;
use crate::plan::node::{Node, Plan};
use crate::state::delta::RestoredState;
use crate::storage::checkpoint::{CATALOG_FORMAT, ERRORS_FORMAT, Held};
use crate::storage::manifest::ViewState;
use crate::storage::recovery::load_text;
use crate::storage::{state_files, table_files};
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;

/// Makes the database `to` of what `from` was in a savepoint.
///
/// # Errors
/// When there was no such database, or something of it cannot be made; then nothing is left.
pub(super) async fn clone_database(
    coordinator: &Coordinator,
    held: &Held,
    from: &str,
    to: &str,
) -> Result<()> {
    let (store, manifest) = (&held.source.store, &held.source.manifest);
    let missing = || no_database(from);
    let text = load_text(store, manifest.catalog.as_ref(), "catalog", CATALOG_FORMAT).await?;
    let then = catalog_from_text(&text.ok_or_else(missing)?)?;
    let schemas = then.schemas(from).ok_or_else(missing)?.to_vec();
    let old: Vec<Arc<Object>> =
        in_order(&then).into_iter().filter(|object| is_cloned(object, from)).collect();
    let indexes: usize = old.iter().map(|object| then.indexes_of(object.id).count()).sum();
    let first = coordinator.reserve_ids((old.len() + indexes) as u64).await?;
    let of_old = || old.iter().flat_map(|object| then.indexes_of(object.id));
    let all = old.iter().map(|object| object.id).chain(of_old().map(|index| index.id));
    let ids: BTreeMap<ObjectId, ObjectId> =
        all.zip(first.0..).map(|(old, new)| (old, ObjectId(new))).collect();
    let mut changes = changes(&then, &old, &ids, &schemas, to)?;
    changes.extend(of_old().map(|index| {
        let (id, relation) = (ids[&index.id], ids[&index.relation]);
        Change::CreateIndex(Arc::new(IndexObject { id, relation, ..index.as_ref().clone() }))
    }));
    let next = coordinator.catalog().apply(&changes)?;

    let mut tables = Vec::new();
    for object in old.iter().filter(|object| matches!(object.kind, ObjectKind::Table(_))) {
        let files = manifest.tables.get(&object.id.0).cloned().unwrap_or_default();
        let mut rows = Table::of(object)?;
        for changes in table_files::read_table(store, &files).await? {
            let (batch, schema) = (changes.rows(), object.schema.clone());
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            let columns = batch.columns().to_vec();
            let batch = RecordBatch::try_new_with_options(schema, columns, &options)?;
            rows.replay(&changes.with_rows(batch))?;
        }
        tables.push(ClonedTable { id: ids[&object.id], rows, files });
    }
    let mut sources = Vec::new();
    for object in &old {
        let ObjectKind::Source(_) = &object.kind else { continue };
        let new = next.get(ids[&object.id]).ok_or_else(|| Error::internal("a lost clone"))?;
        let ObjectKind::Source(source) = &new.kind else { continue };
        let place = manifest.places.get(&object.id.0).cloned().map(Arc::new);
        sources.push((source_spec(&next, new, source)?, open_connector(source)?, place));
    }
    let mut stored = BTreeMap::new();
    for object in old.iter().filter(|o| matches!(o.kind, ObjectKind::MaterializedView(_))) {
        if let Some(state) = manifest.views.get(&object.id.0) {
            stored.insert(
                object.id,
                state_files::read_rows(store, state, state_files::in_memory()).await?,
            );
        }
    }
    let planned = plan_views(&then, manifest, stored, &BTreeSet::new());
    if let Some((object, error)) = planned.failed.into_iter().find(|(o, _)| ids.contains_key(&o.id))
    {
        return Err(error.context(format!("view \"{}\"", object.name.name)));
    }
    let restored = planned.restored.into_iter().map(|v| (v.object.id, (v.plan, Some(v.state))));
    let computed = planned.computed.into_iter().map(|(object, plan)| (object.id, (plan, None)));
    let mut planned: HashMap<ObjectId, (Plan, Option<RestoredState>)> =
        restored.chain(computed).collect();
    let (mut views, mut answers) = (Vec::new(), Vec::<RestoredAnswer>::new());
    for object in &old {
        let Some((mut plan, state)) = planned.remove(&object.id) else { continue };
        let id = ids[&object.id];
        let new = next.get(id).ok_or_else(|| Error::internal("a lost clone"))?.clone();
        move_scans(&mut plan.root, &ids);
        let files = state.zip(manifest.views.get(&object.id.0));
        let state = files.map(|(rows, state)| {
            (rows, ViewState { fingerprint: fingerprint(&plan), ..state.clone() })
        });
        let (reply, answer) = tokio::sync::oneshot::channel();
        answers.push((id, answer));
        views.push(ClonedView { object: new, plan, state, reply });
    }
    let errors = load_text(store, manifest.errors.as_ref(), "errors", ERRORS_FORMAT).await?;
    let errors = errors.map(|text| cloned_errors(&text, &ids, to)).transpose()?;
    let mut rules = table_rules(&next);
    rules.retain(|id, _| ids.values().any(|new| new == id));
    coordinator.clone_objects(CloneJob { changes, tables, sources, rules, views, errors }).await?;
    for (_, answer) in answers {
        let stopping = || Error::external(SqlState::ADMIN_SHUTDOWN, "the server is shutting down");
        answer.await.unwrap_or_else(|_| Err(stopping()))?;
    }
    coordinator.checkpoint().await
}

/// Whether an object goes into a clone of a database. Sinks do not: two would write to one target.
fn is_cloned(object: &Object, database: &str) -> bool {
    object.name.database == database && !matches!(object.kind, ObjectKind::Sink(_))
}

/// Lets a plan read the new objects.
fn move_scans(node: &mut Node, ids: &BTreeMap<ObjectId, ObjectId>) {
    if let Node::Scan(scan) = node {
        let index = scan.index.as_mut().map(|index| &mut index.relation);
        for object in std::iter::once(&mut scan.object).chain(index) {
            *object = ids.get(object).copied().unwrap_or(*object);
        }
    }
    for edge in node.inputs_mut() {
        move_scans(&mut edge.input, ids);
    }
}

/// The new objects, those that others name before these.
fn changes(
    then: &Catalog,
    old: &[Arc<Object>],
    ids: &BTreeMap<ObjectId, ObjectId>,
    schemas: &[String],
    to: &str,
) -> Result<Vec<Change>> {
    let mut changes = vec![Change::CreateDatabase(to.to_owned())];
    let others = schemas.iter().filter(|schema| *schema != DEFAULT_SCHEMA);
    changes.extend(others.map(|schema| {
        let (database, schema) = (to.to_owned(), schema.clone());
        Change::CreateSchema { database, schema }
    }));
    for object in old {
        let mut new = object.as_ref().clone();
        new.id = ids[&object.id];
        new.name = ObjectName { database: to.to_owned(), ..new.name };
        for dependency in &mut new.depends_on {
            *dependency = *ids.get(dependency).ok_or_else(|| {
                let name = &object.name.name;
                Error::internal(format!("\"{name}\" depends on another database"))
            })?;
        }
        if let ObjectKind::Table(table) = &mut new.kind {
            table.late_of = table.late_of.and_then(|owner| ids.get(&owner).copied());
            table.replayed_of = table.replayed_of.and_then(|owner| ids.get(&owner).copied());
        }
        let id = new.id;
        changes.push(Change::CreateObject(Arc::new(new)));
        if let Some(definer) = then.definer(object.id) {
            let shares = definer.shares.iter().filter_map(|id| ids.get(&ObjectId(*id)));
            let shares = shares.map(|id| id.0).collect();
            let definer = Arc::new(Definer { shares, ..definer.as_ref().clone() });
            changes.push(Change::Define { object: id, definer });
        }
        changes.extend(then.comments(object.id).map(|(column, text)| Change::Comment {
            object: id,
            column,
            text: Some(text.to_owned()),
        }));
    }
    Ok(changes)
}

/// The stored row errors of the cloned objects, as theirs.
fn cloned_errors(text: &str, ids: &BTreeMap<ObjectId, ObjectId>, to: &str) -> Result<String> {
    let stored: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(text)
        .map_err(|error| Error::internal(format!("stored row errors: {error}")))?;
    let cloned = stored.into_iter().filter_map(|mut record| {
        let old = ObjectId(record.get("object")?.as_u64()?);
        record.insert("object".to_owned(), ids.get(&old)?.0.into());
        record.insert("database".to_owned(), to.into());
        Some(record)
    });
    let cloned: Vec<_> = cloned.collect();
    Ok(serde_json::to_string(&cloned).expect("plain data has a JSON form"))
}
