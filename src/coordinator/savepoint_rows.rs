//! `SELECT * FROM savepoint('name', 'relation')`: what a table or materialized view was then.
//!
//! 1. Before a statement is planned, its text is searched for calls of `savepoint`, whose
//!    arguments are literals.
//! 2. The savepoint's catalog says what the relation was; its files are read and give the rows.
//! 3. Planning finds them in its context. They are kept by the connection until another statement
//!    asks for others.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};

use crate::catalog::object::{Object, ObjectKind, ObjectName};
use crate::catalog::snapshot::DEFAULT_SCHEMA;
use crate::catalog::stored::catalog_from_text;
use crate::coordinator::command::Connection;
use crate::coordinator::rows::expand;
use crate::sql::savepoint_tables::{SavepointTable, SavepointTables, calls_in, table_of};
use crate::storage::checkpoint::{CATALOG_FORMAT, Held};
use crate::storage::recovery::load_text;
use crate::storage::rows::split_weights;
use crate::storage::{state_files, table_files};
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result, SqlState};

impl Connection {
    /// Reads what a statement wants of savepoints.
    pub(super) async fn load_savepoints(&mut self, sql: &str) -> Result<()> {
        let calls = calls_in(sql);
        if calls.is_empty() {
            return Ok(());
        }
        let mut held = BTreeMap::new();
        for (name, _) in &calls {
            if !held.contains_key(name) {
                held.insert(name.clone(), self.database.coordinator.hold(Some(name)).await?);
            }
        }
        // Another one may have got the name since.
        let made_at = |held: &Held| held.source.savepoints.values().map(|s| s.created_at_us).min();
        let made_at: BTreeMap<String, Option<i64>> =
            held.iter().map(|(name, held)| (name.clone(), made_at(held))).collect();
        let (tables, known) = &*self.savepoints;
        if *known == made_at && calls.iter().all(|call| tables.contains_key(call)) {
            return Ok(());
        }
        let mut tables = SavepointTables::new();
        for (name, relation) in calls {
            let read = read_relation(&held[&name], &self.session.database, &relation).await;
            let table = read.map_err(|error| error.context(format!("savepoint \"{name}\"")))?;
            tables.insert((name, relation), table);
        }
        self.savepoints = Arc::new((tables, made_at));
        Ok(())
    }
}

/// What a connection has read of savepoints, which it tells apart by when they were made.
pub(super) type ReadSavepoints = (SavepointTables, BTreeMap<String, Option<i64>>);

async fn read_relation(held: &Held, database: &str, relation: &str) -> Result<SavepointTable> {
    let (store, manifest) = (&held.source.store, &held.source.manifest);
    let missing =
        || Error::user(SqlState::UNDEFINED_TABLE, format!("relation \"{relation}\" did not exist"));
    let text = load_text(store, manifest.catalog.as_ref(), "catalog", CATALOG_FORMAT).await?;
    let catalog = catalog_from_text(&text.ok_or_else(missing)?)?;
    let (schema, name) = relation.split_once('.').unwrap_or((DEFAULT_SCHEMA, relation));
    let name = ObjectName {
        database: database.to_owned(),
        schema: schema.to_owned(),
        name: name.to_owned(),
    };
    let object = catalog.lookup(&name).ok_or_else(missing)?.clone();
    let changes = match &object.kind {
        ObjectKind::Table(_) => {
            let files = manifest.tables.get(&object.id.0).ok_or_else(missing)?;
            table_files::read_table(store, files).await?
        }
        ObjectKind::MaterializedView(_) => {
            let state = manifest.views.get(&object.id.0).ok_or_else(|| {
                Error::user(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!("materialized view \"{relation}\" had no state yet"),
                )
            })?;
            let shown = state_files::read(store, &state.files).await?.into_iter();
            let shown = shown.filter(|c| c.operator_name == "materialize" && c.table == "rows");
            let shown = state_files::fold(shown.collect(), true)?;
            let rows = shown.into_iter().flat_map(|change| change.appended);
            rows.map(|(_, rows)| split_weights(&rows)).collect::<Result<_>>()?
        }
        _ => {
            return Err(Error::unsupported(format!("reading a {}", object.kind_noun()))
                .hint("A savepoint has the rows of tables and materialized views."));
        }
    };
    let rows = tokio::task::spawn_blocking(move || rows_of(&object, &changes)).await;
    let rows = rows.map_err(|error| Error::internal(format!("rows were not read: {error}")))??;
    table_of(rows)
}

/// The rows that changes leave.
fn rows_of(object: &Object, changes: &[ChangeBatch]) -> Result<RecordBatch> {
    let changes = changes.iter().map(|changes| {
        let rows = changes.rows();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let (schema, columns) = (object.schema.clone(), rows.columns().to_vec());
        let rows = RecordBatch::try_new_with_options(schema, columns, &options)?;
        Ok(changes.with_rows(rows))
    });
    let changes = changes.collect::<Result<Vec<ChangeBatch>>>()?;
    expand(&ChangeBatch::concat(&object.schema, &changes)?.consolidate()?)
}
