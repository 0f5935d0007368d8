//! Planning as text in, text out: queries over a small hand-made catalog.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::DateTime;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use futures::TryStreamExt;

use crate::catalog::object::{
    Object, ObjectKind, ObjectName, SourceObject, TableObject, ViewObject,
};
use crate::catalog::snapshot::{Catalog, Change};
use crate::functions::scalar::cast::{CastSettings, cast_array};
use crate::sql::bind::PlanContext;
use crate::sql::parse::name::normalize as fold;
use crate::sql::parse::{parse, parse_query};
use crate::sql::query::{Content, Contents, PlannedQuery};
use crate::sql::statement::Statement;
use crate::sql::types::sql_type_of;
use crate::types::error::{Error, Result};
use crate::types::id::ObjectId;
use crate::types::sql_type::SqlType;
use crate::types::text::zone::Zone;

mod batch;
mod dml;
mod join_order;
mod lowering;

/// A catalog with rows.
pub struct Fixture {
    pub catalog: Catalog,
    rows: HashMap<ObjectId, Vec<RecordBatch>>,
}

impl Contents for Fixture {
    fn object(&self, id: ObjectId) -> Result<Content> {
        Ok(Content::Batches(self.rows.get(&id).cloned().unwrap_or_default()))
    }

    fn system(&self, _schema: &str, name: &str) -> Result<Vec<RecordBatch>> {
        Err(Error::internal(format!("no rows for {name}")))
    }
}

/// Columns from `a int not null, b text`.
fn schema_of(columns: &str) -> Schema {
    let dialect = PostgreSqlDialect {};
    let mut parser = Parser::new(&dialect).try_with_sql(columns).expect("tokens");
    let columns = parser.parse_comma_separated(|p| p.parse_column_def()).expect("columns");
    Schema::new(
        columns
            .iter()
            .map(|column| {
                let not_null = column.options.iter().any(|o| {
                    matches!(o.option, datafusion::sql::sqlparser::ast::ColumnOption::NotNull)
                });
                sql_type_of(&column.data_type)
                    .expect("a type")
                    .to_field(&fold(&column.name), !not_null)
            })
            .collect::<Vec<Field>>(),
    )
}

impl Fixture {
    pub fn new() -> Fixture {
        Fixture { catalog: Catalog::default(), rows: HashMap::new() }
    }

    fn add(&mut self, name: &str, kind: ObjectKind, schema: Schema) -> ObjectId {
        let id = self.catalog.next_id();
        let (schema_name, name) = name.split_once('.').unwrap_or(("public", name));
        let object = Object {
            id,
            name: ObjectName {
                database: "millstream".to_owned(),
                schema: schema_name.to_owned(),
                name: name.to_owned(),
            },
            kind,
            schema: Arc::new(schema),
            create_sql: String::new(),
            depends_on: vec![],
        };
        self.catalog =
            self.catalog.apply(&[Change::CreateObject(Arc::new(object))]).expect("a new object");
        id
    }

    /// A table whose first `key` columns are its primary key; rows as lines of values.
    pub fn table(&mut self, name: &str, columns: &str, key: usize, rows: &str) -> ObjectId {
        let schema = schema_of(columns);
        let plain = TableObject::plain(schema.fields().len());
        let table = TableObject { primary_key: (0..key).collect(), ..plain };
        let batch = rows_of(&schema, rows);
        let id = self.add(name, ObjectKind::Table(table), schema);
        self.rows.insert(id, vec![batch]);
        id
    }

    /// A table with defaults and generated columns: `(column, SQL)`.
    pub fn table_with(
        &mut self,
        name: &str,
        columns: &str,
        key: usize,
        defaults: &[(&str, &str)],
        generated: &[(&str, &str)],
        rows: &str,
    ) -> ObjectId {
        let schema = schema_of(columns);
        let place = |list: &[(&str, &str)]| {
            let find = |f: &Arc<Field>| list.iter().find(|(c, _)| c == f.name());
            schema.fields().iter().map(|f| find(f).map(|(_, sql)| (*sql).to_owned())).collect()
        };
        let table = TableObject {
            primary_key: (0..key).collect(),
            defaults: place(defaults),
            generated: place(generated),
            ..TableObject::plain(0)
        };
        let batch = rows_of(&schema, rows);
        let id = self.add(name, ObjectKind::Table(table), schema);
        self.rows.insert(id, vec![batch]);
        id
    }

    /// Runs a planned query with these rows in place of an object's.
    pub fn run_planned(
        &self,
        planned: &PlannedQuery,
        other: &[(ObjectId, RecordBatch)],
    ) -> Result<Vec<RecordBatch>> {
        let mut rows = self.rows.clone();
        for (id, batch) in other {
            rows.insert(*id, vec![batch.clone()]);
        }
        let contents = Fixture { catalog: self.catalog.clone(), rows };
        let now = DateTime::from_timestamp(1_700_000_000, 0).expect("a time");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            planned.execute(&contents, now).await?.try_collect::<Vec<_>>().await
        })
    }

    pub fn source(&mut self, name: &str, columns: &str) -> ObjectId {
        let schema = schema_of(columns);
        let source = SourceObject {
            connector: "datagen".to_owned(),
            options: vec![],
            physical_schema: Arc::new(schema.clone()),
            column_sql: vec![None; schema.fields().len()],
            watermark: None,
            bounded: false,
        };
        self.add(name, ObjectKind::Source(source), schema)
    }

    /// A view with its query's own columns.
    pub fn view(&mut self, name: &str, sql: &str) -> ObjectId {
        let schema = self.plan(sql).expect("a valid view").schema.as_ref().clone();
        let view = ViewObject {
            query_sql: sql.to_owned(),
            search_path: vec!["public".to_owned()],
            ..ViewObject::default()
        };
        self.add(name, ObjectKind::View(view), schema)
    }

    pub fn context(&self, sql: &str) -> PlanContext {
        PlanContext {
            sql: sql.into(),
            user: "tester".to_owned(),
            ..PlanContext::new(Arc::new(self.catalog.clone()), "millstream")
        }
    }

    pub fn plan(&self, sql: &str) -> Result<PlannedQuery> {
        let query = parse_query(sql)?;
        self.context(sql).plan_query(&query, &[])
    }

    /// Plans, binds `parameters` (as text) and runs.
    pub fn run(&self, sql: &str, parameters: &[&str]) -> Result<(PlannedQuery, Vec<RecordBatch>)> {
        let planned = self.plan(sql)?;
        let bound = planned.bind_parameters(&values_of(&planned.parameters, parameters))?;
        let batches = self.run_planned(&bound, &[])?;
        Ok((planned, batches))
    }
}

/// Parameters' values from text.
pub fn values_of(types: &[SqlType], texts: &[&str]) -> Vec<ArrayRef> {
    texts
        .iter()
        .zip(types)
        .map(|(text, sql_type)| {
            let text: ArrayRef =
                Arc::new(StringArray::from(vec![(*text != "NULL").then_some(*text)]));
            let settings = CastSettings { zone: Zone::UTC, now_us: 0 };
            cast_array(&text, &SqlType::Text, sql_type, &settings).expect("a parameter's text")
        })
        .collect()
}

/// Rows from lines of values separated by `|`; empty lines are skipped, `NULL` is null.
fn rows_of(schema: &Schema, text: &str) -> RecordBatch {
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    let columns = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(index, field)| {
            let values = lines.iter().map(|line| Some(line[index]).filter(|v| *v != "NULL"));
            let text = StringArray::from_iter(values);
            let text: ArrayRef = Arc::new(text);
            let settings = CastSettings { zone: Zone::UTC, now_us: 0 };
            let sql_type = SqlType::of_field(field).expect("a SQL type");
            cast_array(&text, &SqlType::Text, &sql_type, &settings).expect("a value's text")
        })
        .collect();
    RecordBatch::try_new(Arc::new(schema.clone()), columns).expect("rows that fit")
}

/// A header of names and types, then rows, `|` between values, sorted unless `ordered`.
pub fn show(planned: &PlannedQuery, batches: &[RecordBatch], ordered: bool) -> String {
    let header: Vec<String> = planned
        .schema
        .fields()
        .iter()
        .map(|f| format!("{} {}", f.name(), SqlType::of_field(f).expect("a SQL type")))
        .collect();
    let mut lines = vec![];
    let options = FormatOptions::new().with_null("NULL");
    for batch in batches {
        assert_eq!(batch.schema(), planned.schema, "batches have the planned schema");
        let formatters: Vec<_> = batch
            .columns()
            .iter()
            .map(|c| ArrayFormatter::try_new(c, &options).expect("a printable type"))
            .collect();
        for row in 0..batch.num_rows() {
            let values: Vec<String> = formatters.iter().map(|f| f.value(row).to_string()).collect();
            lines.push(values.join("|"));
        }
    }
    if !ordered {
        lines.sort();
    }
    lines.insert(0, header.join(", "));
    lines.join("\n")
}

/// Runs every query of a golden file and writes the file that would be right.
pub fn run_golden(text: &str, report: impl Fn(&str) -> String) -> String {
    let mut out = String::new();
    for block in text.split("\n\n").map(str::trim).filter(|block| !block.is_empty()) {
        let query = block.split_once("\n----").map_or(block, |(query, _)| query);
        if !out.is_empty() {
            out.push('\n');
        }
        out += &format!("{query}\n----\n{}\n", report(query));
    }
    out
}

/// `SQLSTATE position: message (detail) hint`, with a caret under the place.
pub fn show_error(sql: &str, error: &Error) -> String {
    let body = error.body();
    let mut text = format!("{}: {}", body.sqlstate.0, body.message);
    if let Some(detail) = &body.detail {
        text += &format!("\nDETAIL: {detail}");
    }
    if let Some(hint) = &body.hint {
        text += &format!("\nHINT: {hint}");
    }
    if let Some(position) = body.position {
        let rest: String = sql.chars().skip(position - 1).take(12).collect();
        text += &format!("\nAT: {}", rest.trim_end());
    }
    text
}
