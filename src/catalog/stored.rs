//! The catalog and its changes as JSON, for the storage (`docs/FORMAT.md`).
//!
//! Everything that a statement made is written: its SQL text, and what came of it, so that an
//! object is the same after a restart even where a later version of the program would read its
//! text differently. The structures here are the format; they change with its version only.
//! Columns stand as an Arrow IPC schema, which keeps the types' marks, in hexadecimal digits.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use serde::{Deserialize, Serialize};

use crate::catalog::object::{
    Definer, IndexObject, Object, ObjectKind, ObjectName, SinkObject, SourceObject, TableConflict,
    TableObject, TableRetention, ViewObject, WatermarkObject,
};
use crate::catalog::snapshot::{Catalog, Change};
use crate::plan::event_time::TimeBound;
use crate::storage::manifest::FileRef;
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredChange {
    CreateDatabase(String),
    DropDatabase(String),
    CreateSchema { database: String, schema: String },
    DropSchema { database: String, schema: String },
    CreateObject(StoredObject),
    DropObject(u64),
    ReplaceView(StoredObject),
    Comment { object: u64, column: Option<usize>, text: Option<String> },
    Define { object: u64, definer: Definer },
    CreateIndex(StoredIndex),
    DropIndex(u64),
    FillTable { object: u64, files: Vec<FileRef> },
}

#[derive(Serialize, Deserialize)]
struct StoredIndex {
    id: u64,
    name: String,
    relation: u64,
    columns: Vec<usize>,
}

#[derive(Serialize, Deserialize)]
struct StoredCatalog {
    version: u64,
    next_id: u64,
    databases: BTreeMap<String, Vec<String>>,
    objects: Vec<StoredObject>,
    comments: Vec<(u64, Option<usize>, String)>,
    definers: BTreeMap<u64, Definer>,
    #[serde(default)]
    indexes: Vec<StoredIndex>,
}

#[derive(Serialize, Deserialize)]
struct StoredObject {
    id: u64,
    database: String,
    schema: String,
    name: String,
    create_sql: String,
    depends_on: Vec<u64>,
    columns: String,
    kind: StoredKind,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredKind {
    Source {
        connector: String,
        options: Vec<(String, String)>,
        physical_columns: String,
        column_sql: Vec<Option<String>>,
        watermark: Option<StoredWatermark>,
        bounded: bool,
    },
    Table {
        primary_key: Vec<usize>,
        defaults: Vec<Option<String>>,
        generated: Vec<Option<String>>,
        on_conflict: StoredConflict,
        append_only: bool,
        watermark: Option<StoredWatermark>,
        #[serde(default)]
        late_of: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replayed_of: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retention: Option<TableRetention>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        history_retention_us: Option<i64>,
    },
    View {
        query_sql: String,
        search_path: Vec<String>,
    },
    MaterializedView {
        query_sql: String,
        search_path: Vec<String>,
        #[serde(default)]
        options: Vec<(String, String)>,
        #[serde(default)]
        append_only: bool,
        #[serde(default)]
        time_bounds: Vec<TimeBound>,
    },
    Sink {
        query_sql: String,
        search_path: Vec<String>,
        /// How the query is kept, as of a materialized view.
        query_options: Vec<(String, String)>,
        connector: String,
        options: Vec<(String, String)>,
        identity: String,
    },
}

#[derive(Serialize, Deserialize)]
struct StoredWatermark {
    column: String,
    expression_sql: String,
    #[serde(default)]
    allowed_lateness_us: i64,
    #[serde(default)]
    idle_timeout_us: Option<i64>,
    #[serde(default)]
    drift_max_us: Option<i64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredConflict {
    Error,
    Update,
    Ignore,
}

/// A change as text.
pub fn change_to_text(change: &Change) -> Result<String> {
    let stored = match change {
        Change::CreateDatabase(name) => StoredChange::CreateDatabase(name.clone()),
        Change::DropDatabase(name) => StoredChange::DropDatabase(name.clone()),
        Change::CreateSchema { database, schema } => {
            StoredChange::CreateSchema { database: database.clone(), schema: schema.clone() }
        }
        Change::DropSchema { database, schema } => {
            StoredChange::DropSchema { database: database.clone(), schema: schema.clone() }
        }
        Change::CreateObject(object) => StoredChange::CreateObject(store_object(object)?),
        Change::DropObject(id) => StoredChange::DropObject(id.0),
        Change::CreateIndex(index) => StoredChange::CreateIndex(store_index(index)),
        Change::DropIndex(id) => StoredChange::DropIndex(id.0),
        Change::ReplaceView(object) => StoredChange::ReplaceView(store_object(object)?),
        Change::Comment { object, column, text } => {
            StoredChange::Comment { object: object.0, column: *column, text: text.clone() }
        }
        Change::Define { object, definer } => {
            StoredChange::Define { object: object.0, definer: definer.as_ref().clone() }
        }
        Change::FillTable { object, files } => {
            StoredChange::FillTable { object: object.0, files: files.clone() }
        }
    };
    Ok(serde_json::to_string(&stored).expect("plain data has a JSON form"))
}

/// The change that a text means.
///
/// # Errors
/// SQLSTATE XX001 when it is not one.
pub fn change_from_text(text: &str) -> Result<Change> {
    Ok(match serde_json::from_str(text).map_err(unreadable)? {
        StoredChange::CreateDatabase(name) => Change::CreateDatabase(name),
        StoredChange::DropDatabase(name) => Change::DropDatabase(name),
        StoredChange::CreateSchema { database, schema } => {
            Change::CreateSchema { database, schema }
        }
        StoredChange::DropSchema { database, schema } => Change::DropSchema { database, schema },
        StoredChange::CreateObject(object) => Change::CreateObject(Arc::new(load_object(object)?)),
        StoredChange::DropObject(id) => Change::DropObject(ObjectId(id)),
        StoredChange::CreateIndex(index) => Change::CreateIndex(Arc::new(load_index(index))),
        StoredChange::DropIndex(id) => Change::DropIndex(ObjectId(id)),
        StoredChange::ReplaceView(object) => Change::ReplaceView(Arc::new(load_object(object)?)),
        StoredChange::Comment { object, column, text } => {
            Change::Comment { object: ObjectId(object), column, text }
        }
        StoredChange::Define { object, definer } => {
            Change::Define { object: ObjectId(object), definer: Arc::new(definer) }
        }
        StoredChange::FillTable { object, files } => {
            Change::FillTable { object: ObjectId(object), files }
        }
    })
}

/// A whole catalog as text.
pub fn catalog_to_text(catalog: &Catalog) -> Result<String> {
    let comments = catalog.comments.iter();
    let stored = StoredCatalog {
        version: catalog.version,
        next_id: catalog.next_id,
        databases: catalog.databases.clone(),
        objects: catalog.objects().map(|o| store_object(o)).collect::<Result<_>>()?,
        comments: comments.map(|((id, column), text)| (id.0, *column, text.clone())).collect(),
        definers: catalog.definers.iter().map(|(id, d)| (id.0, d.as_ref().clone())).collect(),
        indexes: catalog.indexes.values().map(|index| store_index(index)).collect(),
    };
    Ok(serde_json::to_string_pretty(&stored).expect("plain data has a JSON form"))
}

/// The catalog that a text means.
///
/// # Errors
/// SQLSTATE XX001 when it is not one.
pub fn catalog_from_text(text: &str) -> Result<Catalog> {
    let stored: StoredCatalog = serde_json::from_str(text).map_err(unreadable)?;
    let mut catalog = Catalog {
        version: stored.version,
        next_id: stored.next_id,
        databases: stored.databases,
        ..Catalog::default()
    };
    for object in stored.objects {
        let object = Arc::new(load_object(object)?);
        catalog.by_name.insert(object.name.clone(), object.id);
        catalog.objects.insert(object.id, object);
    }
    for (id, column, text) in stored.comments {
        catalog.comments.insert((ObjectId(id), column), text);
    }
    for index in stored.indexes {
        let index = Arc::new(load_index(index));
        catalog.indexes.insert(index.id, index);
    }
    for (id, definer) in stored.definers {
        catalog.definers.insert(ObjectId(id), Arc::new(definer));
    }
    Ok(catalog)
}

fn unreadable(error: serde_json::Error) -> Error {
    Error::external(SqlState::DATA_CORRUPTED, "a stored catalog entry cannot be read")
        .detail(error.to_string())
}

fn store_object(object: &Object) -> Result<StoredObject> {
    let view = |view: &ViewObject| (view.query_sql.clone(), view.search_path.clone());
    let kind = match &object.kind {
        ObjectKind::Source(source) => StoredKind::Source {
            connector: source.connector.clone(),
            options: source.options.clone(),
            physical_columns: schema_to_hex(&source.physical_schema)?,
            column_sql: source.column_sql.clone(),
            watermark: source.watermark.as_ref().map(store_watermark),
            bounded: source.bounded,
        },
        ObjectKind::Table(table) => StoredKind::Table {
            primary_key: table.primary_key.clone(),
            defaults: table.defaults.clone(),
            generated: table.generated.clone(),
            on_conflict: match table.on_conflict {
                TableConflict::Error => StoredConflict::Error,
                TableConflict::Update => StoredConflict::Update,
                TableConflict::Ignore => StoredConflict::Ignore,
            },
            append_only: table.append_only,
            watermark: table.watermark.as_ref().map(store_watermark),
            late_of: table.late_of.map(|owner| owner.0),
            replayed_of: table.replayed_of.map(|owner| owner.0),
            retention: table.retention,
            history_retention_us: table.history_retention_us,
        },
        ObjectKind::View(definition) => {
            let (query_sql, search_path) = view(definition);
            StoredKind::View { query_sql, search_path }
        }
        ObjectKind::Sink(sink) => {
            let (query_sql, search_path) = view(&sink.query);
            StoredKind::Sink {
                query_sql,
                search_path,
                query_options: sink.query.options.clone(),
                connector: sink.connector.clone(),
                options: sink.options.clone(),
                identity: sink.identity.clone(),
            }
        }
        ObjectKind::MaterializedView(definition) => {
            let (query_sql, search_path) = view(definition);
            let (options, append_only) = (definition.options.clone(), definition.append_only);
            let time_bounds = definition.time_bounds.clone();
            StoredKind::MaterializedView {
                query_sql,
                search_path,
                options,
                append_only,
                time_bounds,
            }
        }
    };
    Ok(StoredObject {
        id: object.id.0,
        database: object.name.database.clone(),
        schema: object.name.schema.clone(),
        name: object.name.name.clone(),
        create_sql: object.create_sql.clone(),
        depends_on: object.depends_on.iter().map(|id| id.0).collect(),
        columns: schema_to_hex(&object.schema)?,
        kind,
    })
}

fn load_object(stored: StoredObject) -> Result<Object> {
    let kind = match stored.kind {
        StoredKind::Source {
            connector,
            options,
            physical_columns,
            column_sql,
            watermark,
            bounded,
        } => ObjectKind::Source(SourceObject {
            connector,
            options,
            physical_schema: schema_from_hex(&physical_columns)?,
            column_sql,
            watermark: watermark.map(load_watermark),
            bounded,
        }),
        StoredKind::Table {
            primary_key,
            defaults,
            generated,
            on_conflict,
            append_only,
            watermark,
            late_of,
            replayed_of,
            retention,
            history_retention_us,
        } => ObjectKind::Table(TableObject {
            primary_key,
            defaults,
            generated,
            on_conflict: match on_conflict {
                StoredConflict::Error => TableConflict::Error,
                StoredConflict::Update => TableConflict::Update,
                StoredConflict::Ignore => TableConflict::Ignore,
            },
            append_only,
            watermark: watermark.map(load_watermark),
            history_retention_us,
            late_of: late_of.map(ObjectId),
            replayed_of: replayed_of.map(ObjectId),
            retention,
        }),
        StoredKind::View { query_sql, search_path } => {
            ObjectKind::View(ViewObject { query_sql, search_path, ..ViewObject::default() })
        }
        StoredKind::Sink {
            query_sql,
            search_path,
            query_options,
            connector,
            options,
            identity,
        } => {
            let query = ViewObject {
                query_sql,
                search_path,
                options: query_options,
                ..ViewObject::default()
            };
            ObjectKind::Sink(SinkObject { query, connector, options, identity })
        }
        StoredKind::MaterializedView {
            query_sql,
            search_path,
            options,
            append_only,
            time_bounds,
        } => ObjectKind::MaterializedView(ViewObject {
            query_sql,
            search_path,
            options,
            append_only,
            time_bounds,
        }),
    };
    Ok(Object {
        id: ObjectId(stored.id),
        name: ObjectName { database: stored.database, schema: stored.schema, name: stored.name },
        kind,
        schema: schema_from_hex(&stored.columns)?,
        create_sql: stored.create_sql,
        depends_on: stored.depends_on.into_iter().map(ObjectId).collect(),
    })
}

fn store_index(index: &IndexObject) -> StoredIndex {
    StoredIndex {
        id: index.id.0,
        name: index.name.clone(),
        relation: index.relation.0,
        columns: index.columns.clone(),
    }
}

fn load_index(stored: StoredIndex) -> IndexObject {
    IndexObject {
        id: ObjectId(stored.id),
        name: stored.name,
        relation: ObjectId(stored.relation),
        columns: stored.columns,
    }
}

fn store_watermark(watermark: &WatermarkObject) -> StoredWatermark {
    StoredWatermark {
        column: watermark.column.clone(),
        expression_sql: watermark.expression_sql.clone(),
        allowed_lateness_us: watermark.allowed_lateness_us,
        idle_timeout_us: watermark.idle_timeout_us,
        drift_max_us: watermark.drift_max_us,
    }
}

fn load_watermark(stored: StoredWatermark) -> WatermarkObject {
    WatermarkObject {
        column: stored.column,
        expression_sql: stored.expression_sql,
        allowed_lateness_us: stored.allowed_lateness_us,
        idle_timeout_us: stored.idle_timeout_us,
        drift_max_us: stored.drift_max_us,
    }
}

/// An Arrow IPC stream without rows, in hexadecimal digits.
fn schema_to_hex(schema: &SchemaRef) -> Result<String> {
    let mut writer = StreamWriter::try_new(Vec::new(), schema)?;
    writer.finish()?;
    let bytes = writer.into_inner()?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn schema_from_hex(text: &str) -> Result<SchemaRef> {
    let damaged = || Error::external(SqlState::DATA_CORRUPTED, "stored columns cannot be read");
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return Err(damaged());
    }
    let bytes = (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| damaged()))
        .collect::<Result<Vec<u8>>>()?;
    let reader = StreamReader::try_new(Cursor::new(bytes), None)
        .map_err(|error| damaged().detail(error.to_string()))?;
    Ok(reader.schema())
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;

    use super::*;
    use crate::types::sql_type::SqlType;

    fn object(id: u64, name: &str, kind: ObjectKind) -> Object {
        let columns = vec![
            SqlType::Int8.to_field("id", false),
            SqlType::Numeric(10, 2).to_field("price", true),
            SqlType::Array(Box::new(SqlType::Uuid)).to_field("tags", true),
            SqlType::Json.to_field("j", true),
            SqlType::Interval.to_field("i", true),
        ];
        Object {
            id: ObjectId(id),
            name: ObjectName {
                database: "millstream".into(),
                schema: "public".into(),
                name: name.into(),
            },
            kind,
            schema: Arc::new(Schema::new(columns)),
            create_sql: format!("CREATE {name} \"ä\""),
            depends_on: vec![ObjectId(1)],
        }
    }

    fn watermark() -> Option<WatermarkObject> {
        Some(WatermarkObject {
            column: "t".into(),
            expression_sql: "t - 1".into(),
            allowed_lateness_us: 5,
            idle_timeout_us: Some(6),
            drift_max_us: None,
        })
    }

    fn index(id: u64) -> IndexObject {
        let name = format!("index{id}");
        IndexObject { id: ObjectId(id), name, relation: ObjectId(5), columns: vec![1, 0] }
    }

    /// One change of each kind.
    fn changes() -> Vec<Change> {
        let table = ObjectKind::Table(TableObject {
            primary_key: vec![0, 2],
            defaults: vec![None, Some("0".into())],
            generated: vec![None, Some("price * 2".into())],
            on_conflict: TableConflict::Update,
            append_only: true,
            watermark: watermark(),
            history_retention_us: None,
            retention: None,
            late_of: None,
            replayed_of: None,
        });
        let source = ObjectKind::Source(SourceObject {
            connector: "file".into(),
            options: vec![("path".into(), "/a".into())],
            physical_schema: Arc::new(Schema::new(vec![SqlType::Text.to_field("x", true)])),
            column_sql: vec![None, Some("x || 'y'".into())],
            watermark: watermark(),
            bounded: true,
        });
        let view = ViewObject {
            query_sql: "SELECT 1".into(),
            search_path: vec!["a".into()],
            options: vec![],
            append_only: false,
            time_bounds: vec![],
        };
        let kept = ViewObject {
            options: vec![("on_error".into(), "null".into())],
            append_only: true,
            time_bounds: vec![TimeBound::of_watermark(0)],
            ..view.clone()
        };
        let sink = SinkObject {
            query: ViewObject { options: vec![("on_error".into(), "fail".into())], ..view.clone() },
            connector: "file".into(),
            options: vec![("path".into(), "/out".into())],
            identity: "3f".into(),
        };
        let definer = Definer {
            at_us: 1_577_836_800_000_000,
            user: "ann".into(),
            time_zone: "Europe/Berlin".into(),
            search_path: vec!["public".into()],
            settings: BTreeMap::from([("a".into(), "b".into())]),
            row_counts: BTreeMap::from([(7, 1000)]),
            shares: vec![3],
        };
        let create = |o| Change::CreateObject(Arc::new(o));
        vec![
            Change::CreateDatabase("d".into()),
            Change::CreateDatabase("gone".into()),
            Change::CreateSchema { database: "d".into(), schema: "s".into() },
            Change::CreateSchema { database: "d".into(), schema: "t".into() },
            create(object(5, "table", table)),
            create(object(6, "source", source)),
            create(object(7, "view", ObjectKind::View(view.clone()))),
            create(object(9, "mv", ObjectKind::MaterializedView(kept))),
            create(object(10, "sink", ObjectKind::Sink(sink))),
            create(object(8, "dropped", ObjectKind::View(view.clone()))),
            Change::ReplaceView(Arc::new(object(7, "view", ObjectKind::View(view)))),
            Change::Comment { object: ObjectId(5), column: Some(1), text: Some("c".into()) },
            Change::Comment { object: ObjectId(6), column: None, text: None },
            Change::Define { object: ObjectId(9), definer: Arc::new(definer) },
            Change::DropObject(ObjectId(8)),
            Change::CreateIndex(Arc::new(index(11))),
            Change::CreateIndex(Arc::new(index(12))),
            Change::DropIndex(ObjectId(11)),
            Change::DropSchema { database: "d".into(), schema: "t".into() },
            Change::DropDatabase("gone".into()),
        ]
    }

    #[test]
    fn changes_and_catalogs_come_back() {
        let changes = changes();
        let direct = Catalog::default().apply(&changes).expect("they fit");
        let read: Vec<Change> = changes
            .iter()
            .map(|c| change_from_text(&change_to_text(c).expect("written")).expect("read"))
            .collect();
        let replayed = Catalog::default().apply(&read).expect("they fit");
        // Everything in a catalog can be printed.
        assert_eq!(format!("{replayed:?}"), format!("{direct:?}"));
        let text = catalog_to_text(&direct).expect("written");
        let restored = catalog_from_text(&text).expect("read");
        assert_eq!(format!("{restored:?}"), format!("{direct:?}"));
        assert_eq!(restored.next_id(), ObjectId(13));
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        for text in ["", "{}", "{\"fly\":1}", "{\"drop_object\":\"x\"}"] {
            assert_eq!(change_from_text(text).unwrap_err().sqlstate().0, "XX001", "{text}");
        }
        assert_eq!(catalog_from_text("[]").unwrap_err().sqlstate().0, "XX001");
        for hex in ["0", "zz", "ffff", "ää"] {
            assert!(schema_from_hex(hex).is_err(), "{hex}");
        }
    }
}
