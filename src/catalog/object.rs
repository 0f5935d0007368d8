//! Catalog objects, as plain data. Everything that can be computed from the SQL text is computed
//! again by `sql`; what stands here is what other rooms need without parsing.

use std::collections::BTreeMap;

use arrow::datatypes::{Field, SchemaRef};
use serde::{Deserialize, Serialize};

use crate::plan::event_time::TimeBound;
use crate::types::id::ObjectId;

/// Database, schema and name, each as stored (folded to lower case unless quoted).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    pub database: String,
    pub schema: String,
    pub name: String,
}

/// One thing in the catalog.
#[derive(Clone, Debug)]
pub struct Object {
    pub id: ObjectId,
    pub name: ObjectName,
    pub kind: ObjectKind,
    /// The visible columns.
    pub schema: SchemaRef,
    /// The statement that made it, as the user wrote it.
    pub create_sql: String,
    /// Objects that its definition names, each once.
    pub depends_on: Vec<ObjectId>,
}

/// What kind of object, with what only that kind has.
#[derive(Clone, Debug)]
pub enum ObjectKind {
    Source(SourceObject),
    Table(TableObject),
    /// A named query, expanded where it is used.
    View(ViewObject),
    MaterializedView(ViewObject),
    /// Writes the changes of a query out. Nobody reads it.
    Sink(SinkObject),
}

impl ObjectKind {
    /// What a dataflow keeps up to date for the object: of a materialized view and of a sink.
    pub fn maintained(&self) -> Option<&ViewObject> {
        match self {
            ObjectKind::MaterializedView(view) => Some(view),
            ObjectKind::Sink(sink) => Some(&sink.query),
            ObjectKind::Source(_) | ObjectKind::Table(_) | ObjectKind::View(_) => None,
        }
    }
}

#[derive(Clone, Debug)]
pub struct SinkObject {
    /// What it writes out.
    pub query: ViewObject,
    pub connector: String,
    /// `WITH (...)` without the connector.
    pub options: Vec<(String, String)>,
    /// Tells it from every other sink that there ever was, on any server: under this name targets
    /// note what they have.
    pub identity: String,
}

#[derive(Clone, Debug)]
pub struct SourceObject {
    pub connector: String,
    pub options: Vec<(String, String)>,
    /// What the connector delivers; the columns of `schema` may be computed from these.
    pub physical_schema: SchemaRef,
    /// SQL of each column over the physical ones; `None`: the physical column of that name.
    pub column_sql: Vec<Option<String>>,
    pub watermark: Option<WatermarkObject>,
    /// Whether it ends, so that SELECT can read it.
    pub bounded: bool,
}

/// `WATERMARK FOR column AS expression`.
#[derive(Clone, Debug, Default)]
pub struct WatermarkObject {
    pub column: String,
    pub expression_sql: String,
    /// WITH (allowed_lateness, idle_timeout, watermark_drift_max), in microseconds.
    pub allowed_lateness_us: i64,
    pub idle_timeout_us: Option<i64>,
    pub drift_max_us: Option<i64>,
}

#[derive(Clone, Debug)]
pub struct TableObject {
    /// Column indices; empty when there is no key.
    pub primary_key: Vec<usize>,
    /// Per column: SQL of its DEFAULT.
    pub defaults: Vec<Option<String>>,
    /// Per column: SQL of its generation expression (GENERATED ALWAYS AS ... STORED).
    pub generated: Vec<Option<String>>,
    pub on_conflict: TableConflict,
    pub append_only: bool,
    pub watermark: Option<WatermarkObject>,
    /// For how long it can be read as it was; `None`: as the server says.
    pub history_retention_us: Option<i64>,
    /// WITH (retention, retention_column): rows go by themselves.
    pub retention: Option<TableRetention>,
    /// The source or table whose late rows it has. It goes with its owner.
    pub late_of: Option<ObjectId>,
    /// The source whose late rows it has that were taken in again (REPLAY LATE): they are rows of
    /// the source. It goes with its owner.
    pub replayed_of: Option<ObjectId>,
}

impl TableObject {
    /// A table of so many columns about which nothing else is said.
    pub fn plain(columns: usize) -> TableObject {
        TableObject {
            primary_key: vec![],
            defaults: vec![None; columns],
            generated: vec![None; columns],
            on_conflict: TableConflict::Error,
            append_only: false,
            watermark: None,
            history_retention_us: None,
            retention: None,
            late_of: None,
            replayed_of: None,
        }
    }
}

/// A row of the table goes when the time in a column is so long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRetention {
    pub column: usize,
    /// In microseconds; positive.
    pub keep_us: i64,
}

/// What an INSERT without ON CONFLICT does with a key that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableConflict {
    /// As in Postgres: unique_violation (23505). The default.
    Error,
    /// The new row replaces the old: `WITH (on_conflict = 'update')`, upsert.
    Update,
    /// The new row is dropped: `WITH (on_conflict = 'nothing')`.
    Ignore,
}

#[derive(Clone, Debug, Default)]
pub struct ViewObject {
    /// The query's text.
    pub query_sql: String,
    /// `search_path` and database at creation: what unqualified names meant.
    pub search_path: Vec<String>,
    /// `WITH (...)` of a materialized view: names and values.
    pub options: Vec<(String, String)>,
    /// Rows never go. Only of a materialized view.
    pub append_only: bool,
    /// What the watermark promises of the columns. Only of a materialized view.
    pub time_bounds: Vec<TimeBound>,
}

/// CREATE INDEX: columns that rows of a table or materialized view are looked up by. It stands in
/// its relation's schema, and goes with it.
#[derive(Clone, Debug)]
pub struct IndexObject {
    pub id: ObjectId,
    pub name: String,
    pub relation: ObjectId,
    /// Column indices of the relation, in the order of the key.
    pub columns: Vec<usize>,
}

/// Who made an object, as far as planning its definition once more looks at it. Kept by the
/// catalog for what is planned again after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definer {
    /// When, in microseconds since 1970: what 'today' in a definition meant.
    pub at_us: i64,
    pub user: String,
    /// The session's `TimeZone`.
    pub time_zone: String,
    pub search_path: Vec<String>,
    /// What `current_setting()` knew, if the definition asks; names in lower case.
    pub settings: BTreeMap<String, String>,
    /// Rows that tables and materialized views had, by id: the order of joins was chosen by them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub row_counts: BTreeMap<u64, u64>,
    /// Views and indexes, by id, that the object's dataflow reads although it does not name them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<u64>,
}

impl Object {
    /// An object that the catalog does not have yet: it gives it its id.
    pub fn new(name: ObjectName, kind: ObjectKind, schema: SchemaRef) -> Object {
        let (create_sql, depends_on) = (String::new(), Vec::new());
        Object { id: ObjectId(0), name, kind, schema, create_sql, depends_on }
    }

    /// The kind's noun as error messages and SHOW print it.
    pub fn kind_noun(&self) -> &'static str {
        match self.kind {
            ObjectKind::Source(_) => "source",
            ObjectKind::Table(_) => "table",
            ObjectKind::View(_) => "view",
            ObjectKind::MaterializedView(_) => "materialized view",
            ObjectKind::Sink(_) => "sink",
        }
    }

    /// Whether queries can name it.
    pub fn is_relation(&self) -> bool {
        !matches!(self.kind, ObjectKind::Sink(_))
    }

    /// Index and field of a column.
    pub fn column(&self, name: &str) -> Option<(usize, &Field)> {
        self.schema.fields().find(name).map(|(index, field)| (index, field.as_ref()))
    }
}
