//! The relations that the server itself provides: `pg_catalog`, `information_schema` and
//! `millstream`.
//!
//! 1. `system_columns.txt` lists every relation with its columns.
//! 2. [`find`] and [`relations`] give planning their schemas.
//! 3. [`SystemRelation::rows`] makes the rows from [`SystemFacts`]: one catalog version and the
//!    asking session. Rows name the columns that they fill; the others get their type's empty
//!    value (false, 0, NULL for text and lists). A relation without a rows function is empty.
//!
//! A database sees its own objects only, as in Postgres; `millstream` sees the whole server.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use arrow::array::{
    ArrayRef, BooleanArray, Float32Array, Float64Array, Int16Array, Int16Builder, Int32Array,
    Int64Array, IntervalMonthDayNanoArray, ListBuilder, RecordBatch, RecordBatchOptions,
    StringArray, StringBuilder, TimestampMicrosecondArray, UInt32Array, UInt32Builder,
};
use arrow::datatypes::{Field, Schema, SchemaRef};

use crate::catalog::object::{Object, ObjectKind, ViewObject};
use crate::catalog::snapshot::Catalog;
use crate::catalog::{information_schema, pg_catalog};
use crate::types::error::{Error, Result};
use crate::types::id::ObjectId;
use crate::types::partial_match::PartialMatch;
use crate::types::sql_type::SqlType;
use crate::types::text::secret::shown_options;

/// The schemas of the system relations; users cannot create or drop in them.
pub const SYSTEM_SCHEMAS: [&str; 3] = ["information_schema", "millstream", "pg_catalog"];

/// One relation of a system schema.
#[derive(Debug)]
pub struct SystemRelation {
    pub schema_name: &'static str,
    pub name: &'static str,
    /// Its columns, all nullable but those that never are.
    pub schema: SchemaRef,
    /// Place in the list: part of its object id in `pg_class`.
    pub index: usize,
}

/// How far a source is, from the data plane.
#[derive(Clone, Copy, Debug)]
pub struct SourceFact {
    pub object: ObjectId,
    /// Rows given to dataflows since the reading began.
    pub rows: u64,
    pub malformed: u64,
    /// Rows behind the watermark.
    pub late: u64,
    /// Microseconds since 1970; `None` when nobody reads it.
    pub started_at_us: Option<i64>,
    pub finished: bool,
}

/// A row or record that was left out, from the data plane.
#[derive(Clone, Debug)]
pub struct ErrorFact {
    /// Microseconds since 1970.
    pub time_us: i64,
    /// The view or source.
    pub object: String,
    /// The expression, or the place in the source.
    pub place: String,
    pub sqlstate: &'static str,
    pub message: String,
    pub row: String,
    pub weight: i64,
}

/// What an operator of a view has done on one worker, from the data plane.
#[derive(Clone, Debug)]
pub struct OperatorFact {
    /// The view.
    pub object: ObjectId,
    pub operator: usize,
    pub worker: usize,
    /// As EXPLAIN says it.
    pub description: String,
    pub rows_in: u64,
    pub rows_out: u64,
    pub state_rows: u64,
    /// In memory.
    pub state_bytes: u64,
    /// In files of the local disk.
    pub disk_bytes: u64,
    pub busy_us: u64,
    /// Since the view was built.
    pub age_us: u64,
    pub lag_epochs: u64,
    /// Of its output.
    pub watermark_us: Option<i64>,
}

/// How far a source, table, view or one of its operators is in event time, from the data plane.
#[derive(Clone, Debug)]
pub struct WatermarkFact {
    pub object: ObjectId,
    /// An operator of the view, with what EXPLAIN says of it; `None`: the object itself.
    pub operator: Option<(usize, String)>,
    /// Microseconds since 1970; `None`: there is none yet.
    pub watermark_us: Option<i64>,
    /// How long ago that is; `None` also at the end of time.
    pub lag_us: Option<i64>,
}

/// A match of a row pattern that is under way, from the data plane.
#[derive(Clone, Debug)]
pub struct PartialMatchFact {
    /// The view.
    pub object: ObjectId,
    pub operator: usize,
    pub worker: usize,
    pub partial: PartialMatch,
}

/// What a table or view holds, from the data plane.
#[derive(Clone, Copy, Debug)]
pub struct MemoryFact {
    pub object: ObjectId,
    /// Rows of its content.
    pub rows: u64,
    /// Operators of its dataflow.
    pub operators: u64,
    /// Rows that these hold, its content among them.
    pub state_rows: u64,
    /// In memory.
    pub bytes: u64,
    /// In files of the local disk.
    pub disk_bytes: u64,
}

/// Where a sink stands, from the data plane.
#[derive(Clone, Debug)]
pub struct SinkFact {
    pub object: ObjectId,
    /// `running`, `retrying` or `stopped`.
    pub state: &'static str,
    pub committed_epoch: Option<u64>,
    /// What its target has got.
    pub rows: u64,
    pub bytes: u64,
    /// What it has not, sealed or not.
    pub pending_batches: u64,
    pub pending_rows: u64,
    pub pending_bytes: u64,
    /// Microseconds since 1970.
    pub last_commit_us: Option<i64>,
    pub last_error: Option<String>,
    pub last_error_us: Option<i64>,
}

/// What rows are made from.
#[derive(Clone, Copy)]
pub struct SystemFacts<'a> {
    pub catalog: &'a Catalog,
    /// The session's database.
    pub database: &'a str,
    pub user: &'a str,
    pub settings: &'a [SettingFact],
    pub sessions: &'a [SessionFact],
    pub sources: &'a [SourceFact],
    pub errors: &'a [ErrorFact],
    pub operators: &'a [OperatorFact],
    pub watermarks: &'a [WatermarkFact],
    pub memory: &'a [MemoryFact],
    pub partial_matches: &'a [PartialMatchFact],
    pub sinks: &'a [SinkFact],
    /// Epochs of which history is kept, with the times when they ended, in microseconds.
    pub epochs: &'a [(u64, i64)],
}

/// A setting as `pg_settings` shows it.
#[derive(Clone, Debug)]
pub struct SettingFact {
    pub name: String,
    pub value: String,
    pub default: String,
    /// `bool`, `integer`, `enum` or `string`.
    pub kind: &'static str,
    pub doc: &'static str,
    /// Whether SET changes it.
    pub settable: bool,
}

/// A connection as `pg_stat_activity` shows it.
#[derive(Clone, Debug)]
pub struct SessionFact {
    pub process_id: i32,
    pub database: String,
    pub user: String,
    pub application_name: String,
    /// Microseconds since 1970.
    pub connected_at_us: i64,
    pub query_started_at_us: Option<i64>,
    /// `active`, `idle`, `idle in transaction`, ...
    pub state: &'static str,
    /// The running or last statement.
    pub query: String,
}

/// All of them, by schema and name.
pub fn relations() -> &'static [SystemRelation] {
    static RELATIONS: OnceLock<Vec<SystemRelation>> = OnceLock::new();
    RELATIONS.get_or_init(|| {
        include_str!("system_columns.txt")
            .lines()
            .filter(|line| !line.starts_with('#'))
            .enumerate()
            .map(|(index, line)| parse_relation(index, line))
            .collect()
    })
}

/// The system relation of that name.
pub fn find(schema: &str, name: &str) -> Option<&'static SystemRelation> {
    static BY_NAME: OnceLock<HashMap<(&'static str, &'static str), usize>> = OnceLock::new();
    let by_name = BY_NAME
        .get_or_init(|| relations().iter().map(|r| ((r.schema_name, r.name), r.index)).collect());
    by_name.get(&(schema, name)).map(|index| &relations()[*index])
}

/// `schema.name type, name type, ...`
fn parse_relation(index: usize, line: &'static str) -> SystemRelation {
    let (full_name, columns) = line.split_once(' ').expect("a relation has columns");
    let (schema_name, name) = full_name.split_once('.').expect("a relation has a schema");
    let fields: Vec<Field> = columns
        .split(", ")
        .map(|column| {
            let (name, type_name) = column.split_once(' ').expect("a column has a type");
            column_type(type_name).to_field(name, true)
        })
        .collect();
    SystemRelation { schema_name, name, schema: Arc::new(Schema::new(fields)), index }
}

/// The types that `system_columns.txt` uses.
fn column_type(name: &str) -> SqlType {
    if let Some(item) = name.strip_suffix("[]") {
        return SqlType::Array(Box::new(column_type(item)));
    }
    match name {
        "bool" => SqlType::Boolean,
        "int2" => SqlType::Int2,
        "int4" => SqlType::Int4,
        "int8" => SqlType::Int8,
        "oid" => SqlType::Oid,
        "float4" => SqlType::Float4,
        "float8" | "numeric" => SqlType::Float8,
        "text" => SqlType::Text,
        "bytea" => SqlType::Bytea,
        "timestamptz" => SqlType::Timestamptz,
        "interval" => SqlType::Interval,
        other => panic!("system_columns.txt has the unknown type {other}"),
    }
}

impl SystemRelation {
    /// Whether nothing ever fills it: what it would list does not exist here.
    pub fn always_empty(&self) -> bool {
        let filled: &[&str] = match self.schema_name {
            "pg_catalog" => pg_catalog::FILLED,
            "information_schema" => information_schema::FILLED,
            _ => return false,
        };
        !filled.contains(&self.name)
    }

    /// The rows as of these facts.
    pub fn rows(&self, facts: &SystemFacts) -> Result<Vec<RecordBatch>> {
        let rows = match self.schema_name {
            "pg_catalog" => pg_catalog::rows(self.name, facts),
            "information_schema" => information_schema::rows(self.name, facts),
            "millstream" => millstream_rows(self.name, facts),
            other => return Err(Error::internal(format!("{other} is not a system schema"))),
        };
        Ok(vec![self.constant_rows()?, build(&self.schema, &rows)?])
    }

    /// The rows about the system relations themselves: thousands of columns, made once.
    fn constant_rows(&self) -> Result<RecordBatch> {
        static CONSTANT: OnceLock<[RecordBatch; 3]> = OnceLock::new();
        let index = match (self.schema_name, self.name) {
            ("pg_catalog", "pg_class") => 0,
            ("pg_catalog", "pg_attribute") => 1,
            ("pg_catalog", "pg_proc") => 2,
            _ => return Ok(RecordBatch::new_empty(self.schema.clone())),
        };
        let batches = CONSTANT.get_or_init(|| {
            ["pg_class", "pg_attribute", "pg_proc"].map(|name| {
                let relation = find("pg_catalog", name).expect("the list has them");
                build(&relation.schema, &pg_catalog::constant_rows(name))
                    .expect("constant rows have their columns' types")
            })
        });
        Ok(batches[index].clone())
    }
}

/// One value of a row.
#[derive(Clone, Debug)]
pub(super) enum Cell {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Cow<'static, str>),
    /// Microseconds since 1970.
    Time(i64),
    Ints(Vec<i64>),
    Texts(Vec<String>),
}

impl From<bool> for Cell {
    fn from(value: bool) -> Cell {
        Cell::Bool(value)
    }
}

impl From<i64> for Cell {
    fn from(value: i64) -> Cell {
        Cell::Int(value)
    }
}

impl From<&'static str> for Cell {
    fn from(value: &'static str) -> Cell {
        Cell::Text(Cow::Borrowed(value))
    }
}

impl From<String> for Cell {
    fn from(value: String) -> Cell {
        Cell::Text(Cow::Owned(value))
    }
}

impl From<Vec<String>> for Cell {
    fn from(value: Vec<String>) -> Cell {
        Cell::Texts(value)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Cell {
        value.map_or(Cell::Null, Into::into)
    }
}

/// The columns that a row fills, by name.
pub(super) type Row = Vec<(&'static str, Cell)>;

/// Columns of the relation from its rows.
fn build(schema: &SchemaRef, rows: &[Row]) -> Result<RecordBatch> {
    for row in rows {
        for (name, _) in row {
            debug_assert!(schema.column_with_name(name).is_some(), "no column {name}");
        }
    }
    let columns = schema
        .fields()
        .iter()
        .map(|field| {
            let cells: Vec<Option<&Cell>> = rows
                .iter()
                .map(|row| row.iter().find(|(name, _)| name == field.name()).map(|(_, c)| c))
                .collect();
            build_column(field, &cells)
        })
        .collect::<Result<Vec<ArrayRef>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

fn build_column(field: &Field, cells: &[Option<&Cell>]) -> Result<ArrayRef> {
    let sql_type = SqlType::of_field(field)
        .ok_or_else(|| Error::internal(format!("system column {} has no type", field.name())))?;
    let ints = || {
        cells.iter().map(|cell| match cell {
            None => Some(0),
            Some(Cell::Int(value)) => Some(*value),
            Some(_) => None,
        })
    };
    let floats = || {
        cells.iter().map(|cell| match cell {
            None => Some(0.0),
            Some(Cell::Float(value)) => Some(*value),
            Some(Cell::Int(value)) => Some(*value as f64),
            Some(_) => None,
        })
    };
    let texts = || {
        cells.iter().map(|cell| match cell {
            Some(Cell::Text(value)) => Some(value.as_ref()),
            _ => None,
        })
    };
    Ok(match sql_type {
        SqlType::Boolean => Arc::new(BooleanArray::from_iter(cells.iter().map(|c| match c {
            None => Some(false),
            Some(Cell::Bool(value)) => Some(*value),
            Some(_) => None,
        }))),
        SqlType::Int2 => Arc::new(Int16Array::from_iter(ints().map(|v| v.map(|v| v as i16)))),
        SqlType::Int4 => Arc::new(Int32Array::from_iter(ints().map(|v| v.map(|v| v as i32)))),
        SqlType::Int8 => Arc::new(Int64Array::from_iter(ints())),
        SqlType::Oid => Arc::new(UInt32Array::from_iter(ints().map(|v| v.map(|v| v as u32)))),
        SqlType::Float4 => Arc::new(Float32Array::from_iter(floats().map(|v| v.map(|v| v as f32)))),
        SqlType::Float8 => Arc::new(Float64Array::from_iter(floats())),
        SqlType::Text => Arc::new(StringArray::from_iter(texts())),
        SqlType::Timestamptz => Arc::new(
            TimestampMicrosecondArray::from_iter(cells.iter().map(|cell| match cell {
                Some(Cell::Time(value)) => Some(*value),
                _ => None,
            }))
            .with_timezone("UTC"),
        ),
        SqlType::Interval => Arc::new(IntervalMonthDayNanoArray::new_null(cells.len())),
        SqlType::Array(item) => build_lists(field, &item, cells)?,
        other => arrow::array::new_null_array(&other.to_arrow(), cells.len()),
    })
}

fn build_lists(field: &Field, item: &SqlType, cells: &[Option<&Cell>]) -> Result<ArrayRef> {
    let item_field = Arc::new(item.to_field("item", true));
    let ints = |cell: &Option<&Cell>| match cell {
        Some(Cell::Ints(values)) => Some(values.clone()),
        _ => None,
    };
    Ok(match item {
        SqlType::Int2 => {
            let mut lists = ListBuilder::new(Int16Builder::new()).with_field(item_field);
            for cell in cells {
                lists.append_option(ints(cell).map(|v| v.into_iter().map(|v| Some(v as i16))));
            }
            Arc::new(lists.finish())
        }
        SqlType::Oid => {
            let mut lists = ListBuilder::new(UInt32Builder::new()).with_field(item_field);
            for cell in cells {
                lists.append_option(ints(cell).map(|v| v.into_iter().map(|v| Some(v as u32))));
            }
            Arc::new(lists.finish())
        }
        SqlType::Text => {
            let mut lists = ListBuilder::new(StringBuilder::new()).with_field(item_field);
            for cell in cells {
                match cell {
                    Some(Cell::Texts(values)) => {
                        lists.append_value(values.iter().map(|v| Some(v.as_str())));
                    }
                    _ => lists.append_null(),
                }
            }
            Arc::new(lists.finish())
        }
        _ => arrow::array::new_null_array(field.data_type(), cells.len()),
    })
}

/// Relations of the schema `millstream`.
fn millstream_rows(name: &str, facts: &SystemFacts) -> Vec<Row> {
    match name {
        "settings" => facts
            .settings
            .iter()
            .map(|s| {
                vec![
                    ("name", s.name.clone().into()),
                    ("value", s.value.clone().into()),
                    ("default_value", s.default.clone().into()),
                    ("kind", s.kind.into()),
                    ("doc", s.doc.into()),
                ]
            })
            .collect(),
        "sources" => facts.catalog.objects().filter_map(|o| source_row(facts, o)).collect(),
        "sinks" => facts.catalog.objects().filter_map(|o| sink_row(facts, o)).collect(),
        "epochs" => facts.epochs.iter().map(epoch_row).collect(),
        "errors" => facts.errors.iter().map(error_row).collect(),
        "operators" => facts.operators.iter().filter_map(|f| operator_row(facts, f)).collect(),
        "watermarks" => facts.watermarks.iter().filter_map(|f| watermark_row(facts, f)).collect(),
        "partial_matches" => {
            let all = facts.partial_matches.iter();
            all.filter_map(|f| partial_match_row(facts, f)).collect()
        }
        "memory" => facts.memory.iter().filter_map(|f| memory_row(facts, f)).collect(),
        _ => Vec::new(),
    }
}

/// What has a dataflow: an object, or an index with the relation that it is of; name and kind.
fn running<'a>(
    facts: &'a SystemFacts<'_>,
    id: ObjectId,
) -> Option<(&'a Object, String, &'static str)> {
    if let Some(index) = facts.catalog.index(id) {
        let relation = facts.catalog.get(index.relation)?;
        return Some((relation, index.name.clone(), "index"));
    }
    let object = facts.catalog.get(id)?;
    Some((object, object.name.name.clone(), object.kind_noun()))
}

fn operator_row(facts: &SystemFacts, fact: &OperatorFact) -> Option<Row> {
    let (object, name, _) = running(facts, fact.object)?;
    Some(vec![
        ("database", object.name.database.clone().into()),
        ("schema", object.name.schema.clone().into()),
        ("view", name.into()),
        ("operator", (fact.operator as i64).into()),
        ("worker", (fact.worker as i64).into()),
        ("description", fact.description.clone().into()),
        ("rows_in", (fact.rows_in as i64).into()),
        ("rows_out", (fact.rows_out as i64).into()),
        ("state_rows", (fact.state_rows as i64).into()),
        ("state_bytes", (fact.state_bytes as i64).into()),
        ("disk_bytes", (fact.disk_bytes as i64).into()),
        ("busy_us", (fact.busy_us as i64).into()),
        ("age_us", (fact.age_us as i64).into()),
        ("lag_epochs", (fact.lag_epochs as i64).into()),
        ("watermark", fact.watermark_us.map_or(Cell::Null, Cell::Time)),
    ])
}

fn watermark_row(facts: &SystemFacts, fact: &WatermarkFact) -> Option<Row> {
    let object = facts.catalog.get(fact.object)?;
    let declared = match &object.kind {
        ObjectKind::Source(source) => source.watermark.as_ref(),
        ObjectKind::Table(table) => table.watermark.as_ref(),
        _ => None,
    };
    let bounded = |view: &ViewObject| -> Vec<String> {
        let name = |column: usize| object.schema.field(column).name().clone();
        view.time_bounds.iter().map(|bound| name(bound.column)).collect()
    };
    let columns = match (&object.kind, &fact.operator) {
        (_, Some(_)) => None,
        (ObjectKind::MaterializedView(view), None) => Some(bounded(view)),
        _ => Some(declared.iter().map(|watermark| watermark.column.clone()).collect()),
    };
    let kind = if fact.operator.is_some() { "operator" } else { object.kind_noun() };
    let (operator, description) = match &fact.operator {
        Some((number, description)) => (Some(*number as i64), Some(description.clone())),
        None => (None, None),
    };
    Some(vec![
        ("database", object.name.database.clone().into()),
        ("schema", object.name.schema.clone().into()),
        ("name", object.name.name.clone().into()),
        ("kind", kind.into()),
        ("operator", operator.into()),
        ("description", description.into()),
        ("columns", columns.map_or(Cell::Null, Cell::Texts)),
        ("expression", declared.map(|watermark| watermark.expression_sql.clone()).into()),
        ("watermark", fact.watermark_us.map_or(Cell::Null, Cell::Time)),
        ("lag_us", fact.lag_us.into()),
    ])
}

fn partial_match_row(facts: &SystemFacts, fact: &PartialMatchFact) -> Option<Row> {
    let object = facts.catalog.get(fact.object)?;
    let time = |us: Option<i64>| us.map_or(Cell::Null, Cell::Time);
    let partial = &fact.partial;
    Some(vec![
        ("database", object.name.database.clone().into()),
        ("schema", object.name.schema.clone().into()),
        ("view", object.name.name.clone().into()),
        ("operator", (fact.operator as i64).into()),
        ("worker", (fact.worker as i64).into()),
        ("partition", partial.partition.clone().into()),
        ("began", time(partial.began_us)),
        ("latest", time(partial.latest_us)),
        ("rows", (partial.rows as i64).into()),
        ("variables", partial.variables.clone().into()),
        ("waits_for", partial.waits_for.clone().into()),
        ("condition", partial.condition.clone().into()),
        ("deadline", time(partial.deadline_us)),
        ("complete", partial.is_complete.into()),
    ])
}

fn memory_row(facts: &SystemFacts, fact: &MemoryFact) -> Option<Row> {
    let (object, name, kind) = running(facts, fact.object)?;
    Some(vec![
        ("database", object.name.database.clone().into()),
        ("schema", object.name.schema.clone().into()),
        ("name", name.into()),
        ("kind", kind.into()),
        ("rows", (fact.rows as i64).into()),
        ("operators", (fact.operators as i64).into()),
        ("state_rows", (fact.state_rows as i64).into()),
        ("bytes", (fact.bytes as i64).into()),
        ("disk_bytes", (fact.disk_bytes as i64).into()),
    ])
}

fn epoch_row((epoch, time_us): &(u64, i64)) -> Row {
    vec![("epoch", (*epoch as i64).into()), ("time", Cell::Time(*time_us))]
}

fn error_row(error: &ErrorFact) -> Row {
    vec![
        ("time", Cell::Time(error.time_us)),
        ("object", error.object.clone().into()),
        ("place", error.place.clone().into()),
        ("sqlstate", error.sqlstate.into()),
        ("message", error.message.clone().into()),
        ("row", error.row.clone().into()),
        ("weight", error.weight.into()),
    ]
}

fn source_row(facts: &SystemFacts, object: &Object) -> Option<Row> {
    let ObjectKind::Source(source) = &object.kind else { return None };
    let watermark = source.watermark.as_ref();
    let status = facts.sources.iter().find(|s| s.object == object.id);
    Some(vec![
        ("database", object.name.database.clone().into()),
        ("schema", object.name.schema.clone().into()),
        ("name", object.name.name.clone().into()),
        ("connector", source.connector.clone().into()),
        ("bounded", source.bounded.into()),
        ("watermark_column", watermark.map(|w| w.column.clone()).into()),
        ("watermark", watermark.map(|w| w.expression_sql.clone()).into()),
        ("options", option_texts(&source.options).into()),
        ("rows", status.map_or(0, |s| s.rows as i64).into()),
        ("malformed", status.map_or(0, |s| s.malformed as i64).into()),
        ("late", status.map_or(0, |s| s.late as i64).into()),
        ("started_at", status.and_then(|s| s.started_at_us).map_or(Cell::Null, Cell::Time)),
        ("finished", status.map(|s| s.finished).into()),
    ])
}

fn sink_row(facts: &SystemFacts, object: &Object) -> Option<Row> {
    let ObjectKind::Sink(sink) = &object.kind else { return None };
    let fact = facts.sinks.iter().find(|s| s.object == object.id);
    let number = |of: fn(&SinkFact) -> u64| Cell::Int(fact.map_or(0, |fact| of(fact) as i64));
    let time = |of: fn(&SinkFact) -> Option<i64>| fact.and_then(of).map_or(Cell::Null, Cell::Time);
    let options = shown_options(&sink.options);
    Some(vec![
        ("database", object.name.database.clone().into()),
        ("schema", object.name.schema.clone().into()),
        ("name", object.name.name.clone().into()),
        ("connector", sink.connector.clone().into()),
        ("options", option_texts(&options).into()),
        ("state", fact.map_or("stopped", |fact| fact.state).into()),
        ("committed_epoch", fact.and_then(|f| f.committed_epoch).map(|e| e as i64).into()),
        ("rows", number(|fact| fact.rows)),
        ("bytes", number(|fact| fact.bytes)),
        ("pending_batches", number(|fact| fact.pending_batches)),
        ("pending_rows", number(|fact| fact.pending_rows)),
        ("pending_bytes", number(|fact| fact.pending_bytes)),
        ("last_commit", time(|fact| fact.last_commit_us)),
        ("last_error", fact.and_then(|fact| fact.last_error.clone()).into()),
        ("last_error_at", time(|fact| fact.last_error_us)),
    ])
}

/// `name=value` of each option.
pub(super) fn option_texts(options: &[(String, String)]) -> Vec<String> {
    options.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

#[cfg(test)]
mod tests {
    use arrow::util::display::{ArrayFormatter, FormatOptions};

    use super::*;
    use crate::catalog::object::{ObjectName, TableObject, ViewObject};
    use crate::catalog::snapshot::Change;

    fn object(catalog: &Catalog, name: &str, kind: ObjectKind, columns: Vec<Field>) -> Change {
        Change::CreateObject(Arc::new(Object {
            id: catalog.next_id(),
            name: ObjectName {
                database: "millstream".into(),
                schema: "public".into(),
                name: name.into(),
            },
            kind,
            schema: Arc::new(Schema::new(columns)),
            create_sql: String::new(),
            depends_on: Vec::new(),
        }))
    }

    fn catalog() -> Catalog {
        let empty = Catalog::default();
        let table = TableObject {
            primary_key: vec![0],
            defaults: vec![None, Some("0".into()), None],
            generated: vec![None, None, Some("price * 2".into())],
            ..TableObject::plain(3)
        };
        let columns = vec![
            SqlType::Int8.to_field("id", false),
            SqlType::Numeric(10, 2).to_field("price", true),
            SqlType::Array(Box::new(SqlType::Uuid)).to_field("tags", true),
        ];
        let with_table = empty
            .apply(&[object(&empty, "goods", ObjectKind::Table(table), columns)])
            .expect("a free name");
        let query_sql = "SELECT id FROM goods".into();
        let view = ViewObject { query_sql, ..ViewObject::default() };
        let view = object(
            &with_table,
            "cheap",
            ObjectKind::MaterializedView(view),
            vec![SqlType::Int8.to_field("id", true)],
        );
        let comment = Change::Comment {
            object: with_table.next_id(),
            column: Some(0),
            text: Some("key".into()),
        };
        with_table.apply(&[view, comment]).expect("a free name")
    }

    /// The columns named, of the user's rows, one row a line.
    fn show(relation: &str, columns: &[&str]) -> String {
        let catalog = catalog();
        let facts = SystemFacts {
            catalog: &catalog,
            database: "millstream",
            user: "ann",
            settings: &[],
            sessions: &[],
            sources: &[],
            errors: &[],
            operators: &[],
            watermarks: &[],
            memory: &[],
            partial_matches: &[],
            sinks: &[],
            epochs: &[],
        };
        let (schema, name) = relation.split_once('.').expect("a schema");
        let relation = find(schema, name).expect("a relation");
        let rows = relation.rows(&facts).expect("rows").pop().expect("the user's rows");
        let options = FormatOptions::default().with_null("NULL");
        let formatters: Vec<ArrayFormatter> = columns
            .iter()
            .map(|c| {
                let column = rows.column_by_name(c).expect("a column");
                ArrayFormatter::try_new(column, &options).expect("printable")
            })
            .collect();
        (0..rows.num_rows())
            .map(|row| {
                let cells: Vec<String> =
                    formatters.iter().map(|f| f.value(row).to_string()).collect();
                cells.join(" | ") + "\n"
            })
            .collect()
    }

    #[test]
    fn relations_of_objects_agree_on_their_ids() {
        assert_eq!(
            show("pg_catalog.pg_class", &["oid", "relname", "relnamespace", "relkind"]),
            "16392 | goods | 2200 | r\n16393 | goods_pkey | 2200 | i\n16400 | cheap | 2200 | m\n"
        );
        assert_eq!(
            show("pg_catalog.pg_index", &["indexrelid", "indrelid", "indkey"]),
            "16393 | 16392 | [1]\n"
        );
        assert_eq!(
            show("pg_catalog.pg_attrdef", &["adrelid", "adnum", "adbin"]),
            "16392 | 2 | 0\n16392 | 3 | price * 2\n"
        );
        assert_eq!(
            show("pg_catalog.pg_description", &["objoid", "objsubid", "description"]),
            "16400 | 1 | key\n"
        );
        assert_eq!(pg_catalog::object_of_oid(16400).map(|id| id.0), Some(2));
        assert_eq!(pg_catalog::object_of_index_oid(16393).map(|id| id.0), Some(1));
        assert_eq!(pg_catalog::object_of_oid(16393), None);
    }

    /// Expected type ids and modifiers are those of PostgreSQL 15 for the same columns.
    #[test]
    fn columns_have_the_types_of_postgres() {
        assert_eq!(
            show(
                "pg_catalog.pg_attribute",
                &["attname", "atttypid", "atttypmod", "attlen", "attnotnull", "attgenerated"]
            ),
            "id | 20 | -1 | 8 | true | \nprice | 1700 | 655366 | -1 | false | \n\
             tags | 2951 | -1 | -1 | false | s\nid | 20 | -1 | 8 | true | \n\
             id | 20 | -1 | 8 | false | \n"
        );
    }

    #[test]
    fn every_relation_has_rows_of_its_columns() {
        let catalog = catalog();
        let settings = [SettingFact {
            name: "jit".into(),
            value: "off".into(),
            default: "off".into(),
            kind: "bool",
            doc: "",
            settable: true,
        }];
        let sessions = [SessionFact {
            process_id: 1,
            database: "millstream".into(),
            user: "ann".into(),
            application_name: String::new(),
            connected_at_us: 0,
            query_started_at_us: None,
            state: "idle",
            query: String::new(),
        }];
        let facts = SystemFacts {
            catalog: &catalog,
            database: "millstream",
            user: "ann",
            settings: &settings,
            sessions: &sessions,
            sources: &[],
            errors: &[],
            operators: &[],
            watermarks: &[],
            memory: &[],
            partial_matches: &[],
            sinks: &[],
            epochs: &[],
        };
        let mut filled = 0;
        for relation in relations() {
            for batch in relation.rows(&facts).expect("rows") {
                assert_eq!(batch.schema(), relation.schema, "{}", relation.name);
                assert!(batch.num_rows() == 0 || !relation.always_empty(), "{}", relation.name);
                filled += usize::from(batch.num_rows() > 0);
            }
            assert!(find(relation.schema_name, relation.name).is_some());
        }
        assert!(filled > 25, "only {filled} relations have rows");
    }
}
