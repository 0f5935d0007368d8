//! CREATE INDEX and DROP INDEX.
//!
//! An index is an entry of the catalog that says by which columns rows of a table or materialized
//! view are looked up. What finds them is made per segment by the first lookup
//! (`state/segment_index.rs`), so writers never wait for it; CREATE INDEX makes it for what is
//! there.

use std::sync::Arc;

use crate::catalog::object::{IndexObject, Object, ObjectKind, ObjectName};
use crate::catalog::pg_catalog::primary_key_name;
use crate::catalog::snapshot::Change;
use crate::coordinator::command::{Connection, Notice};
use crate::coordinator::ddl::{target_name, wrong_kind};
use crate::coordinator::drop::{dependants, drop_changes, shown, still_needed};
use crate::coordinator::running::Running;
use crate::sql::bind::PlanContext;
use crate::sql::statement::{CreateIndex, DropObjects, IndexKey, Name, Noun};
use crate::state::segment_index::SegmentIndex;
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;
use arrow::array::RecordBatch;

impl Connection {
    pub(super) async fn create_index(
        &self,
        running: &Running,
        context: &PlanContext,
        create: &CreateIndex,
    ) -> Result<()> {
        let object = self.resolve(context, &create.relation)?;
        if !matches!(object.kind, ObjectKind::Table(_) | ObjectKind::MaterializedView(_)) {
            return Err(Error::user(
                SqlState::WRONG_OBJECT_TYPE,
                format!("cannot create index on relation \"{}\"", object.name.name),
            )
            .detail(format!("It is a {}.", object.kind_noun()))
            .hint("Tables and materialized views can have indexes.")
            .position(create.relation.position));
        }
        let columns =
            create.keys.iter().map(|key| key_column(&object, key)).collect::<Result<Vec<_>>>()?;
        for name in &create.include {
            object.column(name).ok_or_else(|| no_column(name))?;
        }
        // Whether rows can be told apart by these types.
        SegmentIndex::new(&RecordBatch::new_empty(object.schema.clone()), &columns)?;
        let name = match &create.name {
            Some(name) => name.clone(),
            None => chosen_name(context, &object, &columns),
        };
        if taken(context, &object, &name) {
            if !create.if_not_exists {
                return Err(Error::user(
                    SqlState::DUPLICATE_TABLE,
                    format!("relation \"{name}\" already exists"),
                ));
            }
            self.session.notify(Notice::note(
                SqlState::DUPLICATE_TABLE.0,
                format!("relation \"{name}\" already exists, skipping"),
            ));
            return Ok(());
        }
        let index =
            IndexObject { id: ObjectId(0), name, relation: object.id, columns: columns.clone() };
        let coordinator = &self.database.coordinator;
        coordinator.apply(vec![Change::CreateIndex(Arc::new(index))]).await?;
        let parts = running.wait(coordinator.read_parts(vec![object.id])).await?;
        let build = tokio::task::spawn_blocking(move || {
            parts.values().flatten().try_for_each(|part| part.build_index(&columns))
        });
        let built = async {
            build
                .await
                .map_err(|error| Error::internal(format!("an index was not built: {error}")))?
        };
        running.wait(built).await
    }

    pub(super) async fn drop_indexes(
        &self,
        context: &PlanContext,
        drop: &DropObjects,
    ) -> Result<()> {
        let mut found: Vec<Arc<IndexObject>> = Vec::new();
        for name in &drop.names {
            match find(context, name)? {
                Some(index) if found.iter().any(|other| other.id == index.id) => {}
                Some(index) => found.push(index),
                None => {
                    let message = format!("index \"{}\" does not exist", name.name);
                    self.missing(drop.if_exists, SqlState::UNDEFINED_OBJECT, message)?;
                }
            }
        }
        if found.is_empty() {
            return Ok(());
        }
        let mut changes = self.drop_readers(context, drop, &found)?;
        changes.extend(found.iter().map(|index| Change::DropIndex(index.id)));
        let coordinator = &self.database.coordinator;
        coordinator.apply(changes).await?;
        for index in found {
            // One that cannot be read has nothing to let go.
            let Ok(parts) = coordinator.read_parts(vec![index.relation]).await else { continue };
            let still = coordinator.catalog();
            if still.indexes_of(index.relation).all(|other| other.columns != index.columns) {
                parts.values().flatten().for_each(|part| part.forget_index(&index.columns));
            }
        }
        Ok(())
    }
}

impl Connection {
    /// What goes with indexes: the views whose joins read them.
    fn drop_readers(
        &self,
        context: &PlanContext,
        drop: &DropObjects,
        found: &[Arc<IndexObject>],
    ) -> Result<Vec<Change>> {
        let catalog = &context.catalog;
        let mut lines = Vec::new();
        let mut readers: Vec<Arc<Object>> = Vec::new();
        for index in found {
            for reader in catalog.readers_of_index(index.id) {
                let (noun, name) = (reader.kind_noun(), shown(context, reader));
                lines.push(format!("{noun} {name} depends on index {}", index.name));
                if readers.iter().all(|other| other.id != reader.id) {
                    readers.push(reader.clone());
                }
            }
        }
        if readers.is_empty() {
            return Ok(Vec::new());
        }
        if !drop.cascade {
            let what = match found {
                [one] => format!("index {} because other objects depend on it", one.name),
                _ => "desired object(s) because other objects depend on them".to_owned(),
            };
            return Err(still_needed(&what, lines.into_iter()));
        }
        let ids: Vec<ObjectId> = readers.iter().map(|reader| reader.id).collect();
        let further = dependants(catalog, &ids);
        self.tell_cascade(context, readers.iter().chain(further.iter().map(|(object, _)| object)));
        Ok(drop_changes(catalog, &ids))
    }
}

/// The column of a key. Its order says nothing to a lookup.
fn key_column(object: &Object, key: &IndexKey) -> Result<usize> {
    let Some(name) = key.expression.as_name() else {
        return Err(Error::unsupported("an index over an expression")
            .hint("Index a column, or a materialized view that has the expression as a column.")
            .position(key.expression.position));
    };
    let (column, _) =
        object.column(&name).ok_or_else(|| no_column(&name).position(key.expression.position))?;
    Ok(column)
}

fn no_column(name: &str) -> Error {
    Error::user(SqlState::UNDEFINED_COLUMN, format!("column \"{name}\" does not exist"))
}

/// Whether a relation or index of the object's schema has this name.
fn taken(context: &PlanContext, object: &Object, name: &str) -> bool {
    let name = ObjectName { name: name.to_owned(), ..object.name.clone() };
    let of_key = context.catalog.objects().any(|other| {
        let key = matches!(&other.kind, ObjectKind::Table(table) if !table.primary_key.is_empty());
        key && other.name.schema == name.schema
            && other.name.database == name.database
            && primary_key_name(other) == name.name
    });
    of_key
        || context.catalog.lookup(&name).is_some()
        || context.catalog.lookup_index(&name).is_some()
}

/// `relation_column_idx`, as Postgres has it, with a number when that is taken.
fn chosen_name(context: &PlanContext, object: &Object, columns: &[usize]) -> String {
    let names: Vec<&str> =
        columns.iter().map(|column| object.schema.field(*column).name().as_str()).collect();
    let stem = format!("{}_{}_idx", object.name.name, names.join("_"));
    let numbered = (1..).map(|number| format!("{stem}{number}"));
    std::iter::once(stem.clone())
        .chain(numbered)
        .find(|name| !taken(context, object, name))
        .expect("there are more numbers than indexes")
}

/// The index that a name of DROP INDEX means.
fn find(context: &PlanContext, name: &Name) -> Result<Option<Arc<IndexObject>>> {
    let schemas = match &name.schema {
        Some(schema) => vec![schema.clone()],
        None => context.search_path.clone(),
    };
    for schema in schemas {
        let in_schema = Name { schema: Some(schema), ..name.clone() };
        let Ok(full_name) = target_name(context, &in_schema) else { continue };
        if let Some(index) = context.catalog.lookup_index(&full_name) {
            return Ok(Some(index.clone()));
        }
        if let Some(object) = context.catalog.lookup(&full_name) {
            return Err(wrong_kind(object, Noun::Index).position(name.position));
        }
        let of_key = context.catalog.objects().find(|object| {
            let key =
                matches!(&object.kind, ObjectKind::Table(table) if !table.primary_key.is_empty());
            key && object.name.schema == full_name.schema
                && object.name.database == full_name.database
                && primary_key_name(object) == name.name
        });
        if let Some(object) = of_key {
            return Err(Error::user(
                SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
                format!(
                    "cannot drop index {0} because constraint {0} on table {1} requires it",
                    name.name, object.name.name
                ),
            ));
        }
    }
    Ok(None)
}
