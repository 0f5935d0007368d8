//! SHOW, DESCRIBE and EXPLAIN: what there is, and how it would run.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, Scalar, StringArray};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::{StreamExt, TryStreamExt};

use crate::catalog::object::{Object, ObjectKind};
use crate::catalog::pg_catalog::indexes;
use crate::catalog::snapshot::no_schema;
use crate::catalog::system_views::SYSTEM_SCHEMAS;
use crate::coordinator::command::{Connection, Response, Value};
use crate::coordinator::ddl::{noun_of, schema_database, wrong_kind};
use crate::coordinator::execute::{StatementPlan, text_schema};
use crate::coordinator::explain::{analyze_of_definition, explained};
use crate::coordinator::running::Running;
use crate::coordinator::savepoints;
use crate::coordinator::settings::{SettingKind, find};
use crate::plan::event_time::TimeBound;
use crate::sql::bind::PlanContext;
use crate::sql::functions::FUNCTIONS;
use crate::sql::match_recognize::explain::with_automata;
use crate::sql::query::PlannedQuery;
use crate::sql::statement::{
    Explain, ExplainFormat, ExplainTarget, Name, Noun, Show, ShowList, ShowWithin, Statement,
};
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::type_text;
use crate::types::text::datetime::{US_PER_DAY, write_timestamp};
use crate::types::text::interval::{Interval, IntervalStyle, write_interval};
use crate::types::text::quote::quote_ident;
use crate::types::time::Watermark;
use bytes::BytesMut;

/// The column of EXPLAIN.
pub(super) fn explain_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("QUERY PLAN", DataType::Utf8, false)]))
}

/// The columns of DESCRIBE and SHOW COLUMNS.
pub(super) fn columns_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("type", DataType::Utf8, false),
        Field::new("nullable", DataType::Boolean, false),
        Field::new("key", DataType::Boolean, false),
        Field::new("default", DataType::Utf8, true),
        Field::new("comment", DataType::Utf8, true),
    ]))
}

/// The columns of a SHOW.
pub(super) fn show_schema(show: &Show) -> SchemaRef {
    match show {
        Show::List { what, .. } if savepoints::lists(*what) => savepoints::schema(*what),
        Show::List { what, .. } => text_schema(match what {
            ShowList::Sources | ShowList::Sinks => &["name", "connector"],
            ShowList::Indexes => &["name", "on", "definition"],
            ShowList::Connectors => &["name", "description"],
            ShowList::Functions => &["name", "kind"],
            ShowList::Watermarks => &["name", "column", "expression", "watermark", "lag"],
            _ => &["name"],
        }),
        Show::Columns { .. } => columns_schema(),
        Show::Create { .. } => text_schema(&["name", "create_sql"]),
        Show::Parameter { name, .. } => {
            // The title is the setting's own spelling.
            text_schema(&[find(name).map_or(name.as_str(), |s| s.name)])
        }
        Show::All => text_schema(&["name", "setting", "description"]),
    }
}

/// The one text that SET gives a setting.
pub(super) fn set_value(name: &str, values: &[String]) -> Result<String> {
    match find(name).map(|spec| spec.kind) {
        Some(SettingKind::NameList) => {
            let names: Vec<String> = values.iter().map(|v| quote_ident(v)).collect();
            Ok(names.join(", "))
        }
        Some(SettingKind::DateStyle) => Ok(values.join(", ")),
        _ => match values {
            [one] => Ok(one.clone()),
            _ => Err(Error::user(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("SET {name} takes only one argument"),
            )),
        },
    }
}

/// Rows of text, in the columns of `schema`.
fn text_rows(schema: SchemaRef, rows: &[Vec<Option<String>>], tag: &str) -> Result<Response> {
    let columns: Vec<ArrayRef> = (0..schema.fields().len())
        .map(|column| {
            let values = rows.iter().map(|row| row[column].as_deref());
            Arc::new(StringArray::from_iter(values)) as ArrayRef
        })
        .collect();
    batch_response(RecordBatch::try_new(schema, columns)?, tag)
}

fn batch_response(batch: RecordBatch, tag: &str) -> Result<Response> {
    let schema = batch.schema();
    let rows = futures::stream::iter([Ok(batch)]).boxed();
    Ok(Response::Rows { schema, rows, tag: tag.to_owned() })
}

impl Connection {
    pub(super) fn run_show(&self, context: &PlanContext, show: &Show) -> Result<Response> {
        let rows = match show {
            Show::Columns { relation, like } => {
                let object = self.resolve(context, relation)?;
                return describe(context, &object, like.as_deref());
            }
            Show::Parameter { name, position } => {
                let settings = self.session.settings();
                let value = settings.get(name).map_err(|e| e.position(*position))?;
                vec![vec![Some(value.to_owned())]]
            }
            Show::All => self
                .session
                .settings()
                .all()
                .into_iter()
                .map(|(name, value)| {
                    let doc = find(&name).map(|s| s.doc.to_owned());
                    vec![Some(name), Some(value), doc]
                })
                .collect(),
            Show::Create { kind, name } => {
                let object = self.resolve(context, name)?;
                if noun_of(&object) != *kind {
                    return Err(wrong_kind(&object, *kind).position(name.position));
                }
                vec![vec![Some(object.name.name.clone()), Some(object.create_sql.clone())]]
            }
            Show::List { what, within, like } => {
                let mut rows = self.list(context, *what, within.as_ref())?;
                if let Some(pattern) = like {
                    retain_like(&mut rows, pattern)?;
                }
                rows
            }
        };
        text_rows(show_schema(show), &rows, "SHOW")
    }

    pub(super) fn run_describe(&self, context: &PlanContext, name: &Name) -> Result<Response> {
        let object = self.resolve(context, name)?;
        describe(context, &object, None)
    }

    fn list(
        &self,
        context: &PlanContext,
        what: ShowList,
        within: Option<&ShowWithin>,
    ) -> Result<Vec<Vec<Option<String>>>> {
        let own = |kind: Noun| self.objects_of(context, kind, within);
        let names = |objects: Vec<Arc<Object>>| {
            objects.iter().map(|o| vec![Some(o.name.name.clone())]).collect()
        };
        Ok(match what {
            ShowList::Tables => names(own(Noun::Table)?),
            ShowList::Views => names(own(Noun::View)?),
            ShowList::MaterializedViews => names(own(Noun::MaterializedView)?),
            ShowList::Sources => own(Noun::Source)?
                .iter()
                .filter_map(|o| match &o.kind {
                    ObjectKind::Source(source) => {
                        Some(vec![Some(o.name.name.clone()), Some(source.connector.clone())])
                    }
                    _ => None,
                })
                .collect(),
            ShowList::Sinks => own(Noun::Sink)?
                .iter()
                .filter_map(|o| match &o.kind {
                    ObjectKind::Sink(sink) => {
                        Some(vec![Some(o.name.name.clone()), Some(sink.connector.clone())])
                    }
                    _ => None,
                })
                .collect(),
            // Those that ask the coordinator stand in `savepoints.rs`.
            ShowList::Savepoints | ShowList::Checkpoints => Vec::new(),
            ShowList::Indexes => self
                .relations_within(context, within)?
                .iter()
                .flat_map(|o| {
                    let row = |(name, definition)| {
                        vec![Some(name), Some(o.name.name.clone()), Some(definition)]
                    };
                    indexes(&context.catalog, o).into_iter().map(row).collect::<Vec<_>>()
                })
                .collect(),
            // They are asked for: `list_watermarks`.
            ShowList::Watermarks => Vec::new(),
            ShowList::Schemas => {
                let database = match within {
                    Some(ShowWithin::Database(name)) => name,
                    _ => &context.database,
                };
                let Some(schemas) = context.catalog.schemas(database) else {
                    return Err(crate::catalog::snapshot::no_database(database));
                };
                let mut all: Vec<String> = schemas.to_vec();
                all.extend(SYSTEM_SCHEMAS.iter().map(|s| (*s).to_owned()));
                all.sort();
                all.into_iter().map(|name| vec![Some(name)]).collect()
            }
            ShowList::Databases => {
                context.catalog.databases().map(|d| vec![Some(d.to_owned())]).collect()
            }
            ShowList::Connectors => crate::connectors::CONNECTORS
                .iter()
                .map(|c| vec![Some(c.name.to_owned()), Some(c.doc.to_owned())])
                .collect(),
            ShowList::Functions => functions(),
        })
    }

    /// Objects of one kind in the schema asked for, or in the current one; by name.
    fn objects_of(
        &self,
        context: &PlanContext,
        kind: Noun,
        within: Option<&ShowWithin>,
    ) -> Result<Vec<Arc<Object>>> {
        let mut objects = self.relations_within(context, within)?;
        objects.retain(|o| noun_of(o) == kind);
        Ok(objects)
    }

    fn relations_within(
        &self,
        context: &PlanContext,
        within: Option<&ShowWithin>,
    ) -> Result<Vec<Arc<Object>>> {
        let schemas = context.catalog.schemas(&context.database).unwrap_or_default();
        let schema = match within {
            Some(ShowWithin::Relation(name)) => return Ok(vec![self.resolve(context, name)?]),
            Some(ShowWithin::Schema(name)) => {
                schema_database(context, name)?;
                if !schemas.contains(&name.schema) && !SYSTEM_SCHEMAS.contains(&&*name.schema) {
                    return Err(no_schema(&name.schema).position(name.position));
                }
                Some(name.schema.clone())
            }
            Some(ShowWithin::Database(_)) | None => {
                context.search_path.iter().find(|schema| schemas.contains(schema)).cloned()
            }
        };
        let mut objects: Vec<Arc<Object>> = context
            .catalog
            .objects()
            .filter(|o| {
                o.name.database == context.database && Some(&o.name.schema) == schema.as_ref()
            })
            .cloned()
            .collect();
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(objects)
    }

    pub(super) async fn run_explain(
        &mut self,
        running: &Running,
        context: &PlanContext,
        explain: &Explain,
        plan: &StatementPlan,
        values: &[Value],
    ) -> Result<Response> {
        if explain.format == ExplainFormat::Json {
            return Err(Error::unsupported("EXPLAIN (FORMAT JSON)")
                .hint("EXPLAIN prints the plan as text, or as a graph with FORMAT DOT."));
        }
        let of_query = |statement: &Statement| {
            !matches!(statement, Statement::CreateMaterializedView(_) | Statement::Subscribe(_))
        };
        if explain.format == ExplainFormat::Dot
            && let ExplainTarget::Statement(inner) = &explain.target
            && of_query(&inner.statement)
        {
            return Err(Error::unsupported("EXPLAIN (FORMAT DOT) of what is no dataflow")
                .hint("It draws materialized views: EXPLAIN (FORMAT DOT) MATERIALIZED VIEW v."));
        }
        let text = match &explain.target {
            ExplainTarget::MaterializedView(name) => {
                self.explain_view(running, context, explain, name).await?
            }
            ExplainTarget::Statement(inner) => {
                let context = PlanContext { sql: inner.sql.as_str().into(), ..context.clone() };
                match (&inner.statement, plan) {
                    (Statement::CreateMaterializedView(create), _) => {
                        if explain.analyze {
                            return Err(analyze_of_definition());
                        }
                        self.explain_create_view(running, &context, create, explain).await?
                    }
                    (Statement::CreateSink(create), _) => {
                        if explain.analyze {
                            return Err(analyze_of_definition());
                        }
                        self.explain_create_sink(&context, create, explain)?
                    }
                    (Statement::Subscribe(_), StatementPlan::Query(query)) => {
                        explained(&context.catalog, &query.lower()?, explain)
                    }
                    (_, StatementPlan::Query(query)) => {
                        let query = query.bind_parameters(values)?;
                        self.explain_query(running, &context, &query, explain).await?
                    }
                    (_, StatementPlan::Insert(insert)) => {
                        write_text("Insert on", &insert.table, &insert.rows)
                    }
                    (_, StatementPlan::Update(update)) => {
                        let rows = update.rows.bind_parameters(values)?;
                        with_lookups(
                            &context,
                            &rows,
                            write_text("Update on", &update.table, &rows),
                        )?
                    }
                    (_, StatementPlan::Delete(delete)) => {
                        let rows = delete.rows.bind_parameters(values)?;
                        with_lookups(
                            &context,
                            &rows,
                            write_text("Delete on", &delete.table, &rows),
                        )?
                    }
                    (statement, StatementPlan::None) => {
                        return Err(Error::user(
                            SqlState::SYNTAX_ERROR,
                            format!("cannot explain {}", statement.tag()),
                        )
                        .hint("EXPLAIN takes a query, CREATE MATERIALIZED VIEW, CREATE SINK or a change."));
                    }
                }
            }
        };
        let lines: Vec<Vec<Option<String>>> =
            text.trim_end().lines().map(|line| vec![Some(line.to_owned())]).collect();
        text_rows(explain_schema(), &lines, "EXPLAIN")
    }

    /// The plan of a SELECT; with ANALYZE it is run, and what it took is added.
    async fn explain_query(
        &mut self,
        running: &Running,
        context: &PlanContext,
        query: &PlannedQuery,
        explain: &Explain,
    ) -> Result<String> {
        let mut text = query.logical.display_indent().to_string();
        if explain.verbose {
            text = query.logical.display_indent_schema().to_string();
        }
        text = with_automata(&query.logical, &text)?;
        text = with_lookups(context, query, text)?;
        if explain.analyze {
            let started = self.database.elapsed();
            let rows = self.run_query(running, context, query).await?;
            let rows = running
                .wait(rows.try_fold(0, |sum, batch| async move { Ok(sum + batch.num_rows()) }))
                .await?;
            let elapsed = (self.database.elapsed() - started).as_secs_f64() * 1000.0;
            text.push_str(&format!("\nRows: {rows}\nExecution time: {elapsed:.3} ms"));
        }
        Ok(text)
    }
}

/// Every function with its kind, by name.
fn functions() -> Vec<Vec<Option<String>>> {
    let scalar = FUNCTIONS.scalar.keys().chain(FUNCTIONS.higher_order.keys());
    let scalar = scalar.map(|name| (name, "scalar"));
    let aggregate = FUNCTIONS.aggregate.keys().map(|name| (name, "aggregate"));
    let window = FUNCTIONS.window.keys().map(|name| (name, "window"));
    let table = FUNCTIONS.table.keys().map(|name| (name, "table"));
    let mut all: Vec<(&String, &str)> =
        scalar.chain(aggregate).chain(window).chain(table).collect();
    all.sort();
    all.dedup();
    all.into_iter().map(|(name, kind)| vec![Some(name.clone()), Some(kind.to_owned())]).collect()
}

/// Adds a line for each relation of which only some keys are looked at.
fn with_lookups(context: &PlanContext, query: &PlannedQuery, mut text: String) -> Result<String> {
    for line in query.lookups(context.now)? {
        text.push('\n');
        text.push_str(&line);
    }
    Ok(text)
}

fn write_text(what: &str, table: &Object, rows: &PlannedQuery) -> String {
    let plan = rows.logical.display_indent().to_string();
    let indented: Vec<String> = plan.lines().map(|line| format!("  {line}")).collect();
    format!("{what} {}\n{}", table.name.name, indented.join("\n"))
}

/// Whether the statement lists watermarks, which the workers know.
pub(super) fn lists_watermarks(show: &Show) -> bool {
    matches!(show, Show::List { what: ShowList::Watermarks, .. })
}

impl Connection {
    /// SHOW WATERMARKS: of sources and tables that declare one, and of views whose columns are
    /// bounded by one.
    pub(super) async fn list_watermarks(
        &self,
        running: &Running,
        context: &PlanContext,
        show: &Show,
    ) -> Result<Response> {
        let Show::List { within, like, .. } = show else {
            return Err(Error::internal("a list of watermarks is a list"));
        };
        let marks = running.wait(self.database.coordinator.watermarks()).await?;
        let now_us = self.database.now().timestamp_micros();
        let mut rows: Vec<Vec<Option<String>>> = self
            .relations_within(context, within.as_ref())?
            .iter()
            .filter_map(|object| {
                let (column, expression) = watermark(object)?;
                let (value, lag) = match marks.get(&object.id) {
                    Some(mark) => shown_watermark(*mark, now_us),
                    None => (None, None),
                };
                Some(vec![Some(object.name.name.clone()), Some(column), expression, value, lag])
            })
            .collect();
        if let Some(pattern) = like {
            retain_like(&mut rows, pattern)?;
        }
        text_rows(show_schema(show), &rows, "SHOW")
    }
}

/// A watermark as text, and how long it is ago. One at the end of time is infinity.
fn shown_watermark(mark: Watermark, now_us: i64) -> (Option<String>, Option<String>) {
    if mark == Watermark::END {
        return (Some("infinity".to_owned()), None);
    }
    let mut value = BytesMut::new();
    write_timestamp(mark.0.0, &mut value);
    let mut lag = BytesMut::new();
    let us = now_us.saturating_sub(mark.0.0);
    let days = i32::try_from(us / US_PER_DAY).unwrap_or(i32::MAX);
    let interval = Interval { months: 0, days, us: us % US_PER_DAY };
    write_interval(interval, IntervalStyle::Postgres, &mut lag);
    let text = |bytes: BytesMut| Some(String::from_utf8_lossy(&bytes).into_owned());
    (text(value), text(lag))
}

/// The columns that a watermark is of, and its expression where it is declared.
fn watermark(object: &Object) -> Option<(String, Option<String>)> {
    let declared = match &object.kind {
        ObjectKind::Source(source) => source.watermark.as_ref()?,
        ObjectKind::Table(table) => table.watermark.as_ref()?,
        ObjectKind::View(_) | ObjectKind::Sink(_) => return None,
        ObjectKind::MaterializedView(view) => {
            let name = |bound: &TimeBound| object.schema.field(bound.column).name().clone();
            let columns: Vec<String> = view.time_bounds.iter().map(name).collect();
            return (!columns.is_empty()).then(|| (columns.join(", "), None));
        }
    };
    Some((declared.column.clone(), Some(declared.expression_sql.clone())))
}

/// Keeps the rows whose first column is LIKE the pattern.
pub(super) fn retain_like(rows: &mut Vec<Vec<Option<String>>>, pattern: &str) -> Result<()> {
    let names = StringArray::from_iter(rows.iter().map(|row| row[0].as_deref()));
    let pattern = Scalar::new(StringArray::from(vec![pattern]));
    let keep: BooleanArray = compute::like(&names, &pattern)?;
    let mut keep = keep.iter();
    rows.retain(|_| keep.next().flatten() == Some(true));
    Ok(())
}

/// One row a column of the object.
fn describe(context: &PlanContext, object: &Object, like: Option<&str>) -> Result<Response> {
    let mut names: Vec<Vec<Option<String>>> =
        object.schema.fields().iter().map(|f| vec![Some(f.name().clone())]).collect();
    if let Some(pattern) = like {
        retain_like(&mut names, pattern)?;
    }
    let kept: Vec<usize> = names
        .iter()
        .filter_map(|name| object.column(name[0].as_deref()?).map(|(index, _)| index))
        .collect();
    let fields: Vec<&Field> = kept.iter().map(|index| object.schema.field(*index)).collect();
    let types = fields.iter().map(|field| type_text(field));
    let key: &[usize] = match &object.kind {
        ObjectKind::Table(table) => &table.primary_key,
        _ => &[],
    };
    let comment = |index: usize| {
        context.catalog.comments(object.id).find(|(c, _)| *c == Some(index)).map(|(_, text)| text)
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(fields.iter().map(|f| f.name()))),
        Arc::new(StringArray::from_iter_values(types.map(|t| t.unwrap_or_default()))),
        Arc::new(BooleanArray::from_iter(fields.iter().map(|f| Some(f.is_nullable())))),
        Arc::new(BooleanArray::from_iter(kept.iter().map(|i| Some(key.contains(i))))),
        Arc::new(StringArray::from_iter(kept.iter().map(|i| default_text(object, *i)))),
        Arc::new(StringArray::from_iter(kept.iter().map(|i| comment(*i)))),
    ];
    batch_response(RecordBatch::try_new(columns_schema(), columns)?, "SHOW")
}

fn default_text(object: &Object, index: usize) -> Option<String> {
    let (sql, generated) = crate::catalog::pg_catalog::column_default(object, index)?;
    Some(if generated { format!("generated always as ({sql})") } else { sql.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::settings::SETTINGS;

    #[test]
    fn lists_of_names_are_quoted_where_they_must_be() {
        let value = |values: &[&str]| {
            let values: Vec<String> = values.iter().map(|v| (*v).to_owned()).collect();
            set_value("search_path", &values).expect("a list")
        };
        // As PostgreSQL 15 shows them after SET search_path = ...
        assert_eq!(value(&["a", "B c", "public"]), "a, \"B c\", public");
        assert_eq!(value(&["a,b"]), "\"a,b\"");
        assert_eq!(value(&[""]), "\"\"");
        assert!(set_value("extra_float_digits", &["1".into(), "2".into()]).is_err());
    }

    #[test]
    fn every_setting_can_be_shown() {
        for spec in SETTINGS {
            let show = Show::Parameter { name: spec.name.to_lowercase(), position: 1 };
            assert_eq!(show_schema(&show).field(0).name(), spec.name);
        }
    }

    #[test]
    fn like_keeps_what_matches() {
        let mut rows: Vec<Vec<Option<String>>> =
            ["orders", "order_items", "users"].iter().map(|n| vec![Some((*n).into())]).collect();
        retain_like(&mut rows, "order\\_%").expect("a pattern");
        assert_eq!(rows, [vec![Some("order_items".to_owned())]]);
    }
}
