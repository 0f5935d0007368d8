//! CREATE, COMMENT and what is refused: from a parsed definition to a catalog object.
//!
//! A definition is checked completely before anything happens; then one step makes it real:
//! `create_object`, in which the coordinator sets up the data plane and publishes the catalog
//! version, or `apply` for what has no data (databases, schemas, comments, replaced views).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast;

use crate::catalog::object::{
    Definer, Object, ObjectKind, ObjectName, SourceObject, TableConflict, TableObject,
    TableRetention, ViewObject, WatermarkObject,
};
use crate::catalog::snapshot::{Change, no_schema};
use crate::catalog::system_views::SYSTEM_SCHEMAS;
use crate::connectors::Source;
use crate::coordinator::clone::clone_database;
use crate::coordinator::command::{Connection, Notice, Response};
use crate::coordinator::drop::{dependants, depends, shown};
use crate::coordinator::event_loop::{Install, Timed};
use crate::coordinator::execute::done;
use crate::coordinator::running::Running;
use crate::coordinator::write::{RowCollector, concat};
use crate::plan::emission::with_emission;
use crate::plan::event_time::{is_time, time_bounds};
use crate::plan::expr::Expr;
use crate::plan::node::{Node, Plan, SourceSpec, WatermarkSpec};
use crate::plan::null_on_error::{null_on_error, nullable};
use crate::plan::recursion::limit_recursion;
use crate::plan::view_options::{
    EMIT, EMIT_EVERY, EMIT_ON_UPDATE, Emission, HISTORY_RETENTION, OnError, RETENTION,
    RETENTION_COLUMN, ViewOptions, fixed_interval_us, retention_us,
};
use crate::sql::bind::PlanContext;
use crate::sql::dml::check_rows;
use crate::sql::parse::Parsed;
use crate::sql::query::PlannedQuery;
use crate::sql::resolve::cross_database;
use crate::sql::schema::check_storable;
use crate::sql::statement::{
    ColumnDef, CommentOn, CreateDatabase, CreateMaterializedView, CreateSchema, CreateSource,
    CreateTable, CreateView, Emit, Expression, Name, Noun, OnConflict, PrimaryKey, Statement,
    Watermark, WithOption, option_pairs,
};
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;
use crate::types::sql_type::SqlType;

impl Connection {
    pub(super) async fn run_ddl(
        &mut self,
        running: &Running,
        context: &PlanContext,
        parsed: &Parsed,
    ) -> Result<Response> {
        let tag = parsed.statement.tag();
        match &parsed.statement {
            Statement::CreateTable(create) if create.query.is_some() => {
                return self.create_table_as(running, context, parsed, create).await;
            }
            Statement::CreateTable(create) => self.create_table(context, parsed, create).await?,
            Statement::CreateSource(create) => self.create_source(context, parsed, create).await?,
            Statement::CreateView(create) => self.create_view(context, parsed, create).await?,
            Statement::CreateMaterializedView(create) => {
                self.create_materialized_view(running, context, parsed, create).await?;
            }
            Statement::CreateSchema(create) => self.create_schema(context, create).await?,
            Statement::CreateDatabase(create) => self.create_database(running, create).await?,
            Statement::Drop(drop) => self.run_drop(context, drop).await?,
            Statement::CommentOn(comment) => self.comment_on(context, comment).await?,
            Statement::CreateSink(create) => {
                self.create_sink(running, context, parsed, create).await?;
            }
            Statement::CreateIndex(create) => self.create_index(running, context, create).await?,
            Statement::Alter(_) => {
                return Err(Error::unsupported(tag)
                    .hint("Drop the object and create it again with the new definition."));
            }
            _ => return Err(Error::internal(format!("{tag} has no place to run"))),
        }
        Ok(done(tag))
    }

    /// Where an object of that name is to be made; `None` when it exists and may.
    pub(super) fn place(
        &self,
        context: &PlanContext,
        name: &Name,
        if_not_exists: bool,
        or_replace: bool,
        kind: Noun,
    ) -> Result<Option<Place>> {
        let name_of = target_name(context, name)?;
        let Some(existing) = context.catalog.lookup(&name_of) else {
            return Ok(Some(Place { name: name_of, replaces: None }));
        };
        if if_not_exists {
            self.session.notify(Notice::note(
                SqlState::DUPLICATE_TABLE.0,
                format!("relation \"{}\" already exists, skipping", name_of.name),
            ));
            return Ok(None);
        }
        if !or_replace {
            return Err(Error::user(
                SqlState::DUPLICATE_TABLE,
                format!("relation \"{}\" already exists", name_of.name),
            ));
        }
        if noun_of(existing) != kind {
            return Err(wrong_kind(existing, kind).position(name.position));
        }
        check_replaced(context, existing)?;
        Ok(Some(Place { name: name_of, replaces: Some(existing.id) }))
    }

    async fn create_table(
        &self,
        context: &PlanContext,
        parsed: &Parsed,
        create: &CreateTable,
    ) -> Result<()> {
        let Some(place) = self.place(
            context,
            &create.name,
            create.if_not_exists,
            create.or_replace,
            Noun::Table,
        )?
        else {
            return Ok(());
        };
        let schema = table_schema(context, &create.name.name, &create.columns)?;
        let object = table_object(context, parsed, create, place.name, schema)?;
        let coordinator = &self.database.coordinator;
        let timed = table_time(context, &object, create)?;
        let definer = timed.rule.is_some().then(|| definer(context, parsed));
        let install = Install::Table(None);
        coordinator.create_timed(object, definer, install, place.replaces, timed).await?;
        Ok(())
    }

    async fn create_table_as(
        &mut self,
        running: &Running,
        context: &PlanContext,
        parsed: &Parsed,
        create: &CreateTable,
    ) -> Result<Response> {
        let Some(query) = &create.query else {
            return Err(Error::internal("CREATE TABLE AS has a query"));
        };
        let Some(place) = self.place(
            context,
            &create.name,
            create.if_not_exists,
            create.or_replace,
            Noun::Table,
        )?
        else {
            return Ok(done("CREATE TABLE AS"));
        };
        let planned = plan_definition(context, &query.ast)?;
        let names: Vec<&str> = create.columns.iter().map(|c| c.name.as_str()).collect();
        let schema = renamed(&planned.schema, &names, "CREATE TABLE AS")?;
        check_storable(&schema)?;
        let object = table_object(context, parsed, create, place.name, schema)?;
        let mut rows = RecordBatch::new_empty(object.schema.clone());
        if create.with_data {
            let found = self.run_query(running, context, &planned).await?;
            let mut collected = RowCollector::default();
            let mut found = std::pin::pin!(found);
            while let Some(batch) =
                running.wait(futures::TryStreamExt::try_next(&mut found)).await?
            {
                collected.add(check_rows(&object, batch)?)?;
            }
            rows = concat(&object.schema, &collected.batches)?;
        }
        let count = rows.num_rows();
        // Table and rows are one step: after a crash there are both or neither.
        let install = Install::Table(Some(rows));
        let timed = table_time(context, &object, create)?;
        let definer = timed.rule.is_some().then(|| definer(context, parsed));
        let coordinator = &self.database.coordinator;
        coordinator.create_timed(object, definer, install, place.replaces, timed).await?;
        Ok(Response::Done { tag: format!("SELECT {count}") })
    }

    async fn create_source(
        &self,
        context: &PlanContext,
        parsed: &Parsed,
        create: &CreateSource,
    ) -> Result<()> {
        let Some(place) = self.place(
            context,
            &create.name,
            create.if_not_exists,
            create.or_replace,
            Noun::Source,
        )?
        else {
            return Ok(());
        };
        let object = source_object(context, parsed, create, place.name)?;
        let ObjectKind::Source(definition) = &object.kind else {
            return Err(Error::internal("a source's object is a source"));
        };
        let watermark = match &create.watermark {
            Some(watermark) => {
                let (column, field) = watermark_column(&object.schema, watermark)?;
                let expr = watermark_expr(context, &object, watermark, field)?;
                let stored = definition.watermark.as_ref();
                let stored = stored.ok_or_else(|| Error::internal("a watermark was lost"))?;
                Some(watermark_spec(stored, column, expr))
            }
            None => None,
        };
        let spec = SourceSpec {
            object: object.id,
            name: object.name.name.clone(),
            connector: definition.connector.clone(),
            options: definition.options.clone(),
            physical_schema: definition.physical_schema.clone(),
            columns: source_columns(context, &object, definition)?,
            schema: object.schema.clone(),
            watermark,
        };
        let late =
            spec.watermark.as_ref().map(|w| late_table(&object.name, &object.schema, w.column));
        let (definer, install) = (Some(definer(context, parsed)), Install::Source(spec));
        let coordinator = &self.database.coordinator;
        let timed = Timed { late, rule: None };
        coordinator.create_timed(object, definer, install, place.replaces, timed).await?;
        Ok(())
    }

    async fn create_view(
        &self,
        context: &PlanContext,
        parsed: &Parsed,
        create: &CreateView,
    ) -> Result<()> {
        refuse_options(&create.options)?;
        let planned = plan_definition(context, &create.query.ast)?;
        let names: Vec<&str> = create.columns.iter().map(String::as_str).collect();
        let schema = renamed(&planned.schema, &names, "CREATE VIEW")?;
        let replaced = if create.or_replace {
            let name = target_name(context, &create.name)?;
            context.catalog.lookup(&name).cloned()
        } else {
            None
        };
        let name = match &replaced {
            Some(old) => old.name.clone(),
            None => {
                let place =
                    self.place(context, &create.name, create.if_not_exists, false, Noun::View)?;
                let Some(place) = place else { return Ok(()) };
                place.name
            }
        };
        let object = Object {
            id: replaced.as_ref().map_or(ObjectId(0), |old| old.id),
            name,
            kind: ObjectKind::View(ViewObject {
                query_sql: create.query.sql.clone(),
                search_path: context.search_path.clone(),
                ..ViewObject::default()
            }),
            schema,
            create_sql: parsed.sql.clone(),
            depends_on: planned.depends_on.clone(),
        };
        let Some(old) = replaced else {
            self.database.coordinator.create_object(object, Install::Nothing).await?;
            return Ok(());
        };
        if reads(context, &object.depends_on, old.id) {
            return Err(reads_itself(&old.name.name));
        }
        check_replacement(context, &old, &object)?;
        let change = Change::ReplaceView(Arc::new(object));
        self.database.coordinator.apply(vec![change]).await
    }

    async fn create_materialized_view(
        &self,
        running: &Running,
        context: &PlanContext,
        parsed: &Parsed,
        create: &CreateMaterializedView,
    ) -> Result<()> {
        let context = &self.with_row_counts(running, context).await?;
        if create.or_replace
            && let Some(old) = context.catalog.lookup(&target_name(context, &create.name)?)
        {
            return self.replace_materialized_view(running, context, parsed, create, old).await;
        }
        let noun = Noun::MaterializedView;
        let Some(place) = self.place(context, &create.name, create.if_not_exists, false, noun)?
        else {
            return Ok(());
        };
        let (mut object, planned) = materialized_view_object(context, parsed, create, place.name)?;
        let plan = view_plan(&planned, &object)?;
        keep_promises(&mut object, &plan);
        let install = Install::Dataflow(Box::new(plan));
        // Dropping the wait when the statement is cancelled takes the half-made view away.
        let definer = Some(view_definer(context, parsed, &planned));
        let create = self.database.coordinator.replace_object(object, definer, install, None);
        running.wait(create).await?;
        Ok(())
    }

    async fn create_schema(&self, context: &PlanContext, create: &CreateSchema) -> Result<()> {
        let database = schema_database(context, &create.name)?;
        let schema = create.name.schema.clone();
        if schema.starts_with("pg_") {
            return Err(Error::user(
                SqlState("42939"),
                format!("unacceptable schema name \"{schema}\""),
            )
            .detail("The prefix \"pg_\" is reserved for system schemas."));
        }
        let exists = context.catalog.schemas(&database).is_some_and(|s| s.contains(&schema))
            || SYSTEM_SCHEMAS.contains(&schema.as_str());
        if exists {
            return self.exists_already(
                create.if_not_exists,
                SqlState::DUPLICATE_SCHEMA,
                &format!("schema \"{schema}\" already exists"),
            );
        }
        self.database.coordinator.apply(vec![Change::CreateSchema { database, schema }]).await
    }

    async fn create_database(&self, running: &Running, create: &CreateDatabase) -> Result<()> {
        let name = create.name.clone();
        if self.database.coordinator.catalog().schemas(&name).is_some() {
            return self.exists_already(
                create.if_not_exists,
                SqlState::DUPLICATE_DATABASE,
                &format!("database \"{name}\" already exists"),
            );
        }
        let coordinator = &self.database.coordinator;
        let Some(savepoint) = &create.from_savepoint else {
            return coordinator.apply(vec![Change::CreateDatabase(name)]).await;
        };
        let held = running.wait(coordinator.hold(Some(savepoint))).await?;
        let from = &self.session.database;
        running.wait(clone_database(coordinator, &held, from, &name)).await
    }

    fn exists_already(&self, may: bool, sqlstate: SqlState, message: &str) -> Result<()> {
        if !may {
            return Err(Error::user(sqlstate, message));
        }
        self.session.notify(Notice::note(sqlstate.0, format!("{message}, skipping")));
        Ok(())
    }

    async fn comment_on(&self, context: &PlanContext, comment: &CommentOn) -> Result<()> {
        if matches!(comment.kind, Noun::Schema | Noun::Database | Noun::Savepoint | Noun::Index) {
            return Err(Error::unsupported(format!("COMMENT ON {}", upper(comment.kind)))
                .hint("Relations and their columns can have comments."));
        }
        let object = self.resolve(context, &comment.name)?;
        let column = match &comment.column {
            None if noun_of(&object) != comment.kind => {
                return Err(wrong_kind(&object, comment.kind));
            }
            None => None,
            Some(column) => match object.column(column) {
                Some((index, _)) => Some(index),
                None => {
                    return Err(Error::user(
                        SqlState::UNDEFINED_COLUMN,
                        format!(
                            "column \"{column}\" of relation \"{}\" does not exist",
                            object.name.name
                        ),
                    ));
                }
            },
        };
        let change = Change::Comment { object: object.id, column, text: comment.text.clone() };
        self.database.coordinator.apply(vec![change]).await
    }
}

/// Where a new object goes.
pub(super) struct Place {
    pub name: ObjectName,
    /// What has the name now, and gives way.
    pub replaces: Option<ObjectId>,
}

/// CREATE OR REPLACE of what others depend on would break them.
fn check_replaced(context: &PlanContext, old: &Object) -> Result<()> {
    let dependants = dependants(&context.catalog, &[old.id]);
    if dependants.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = dependants.iter().map(|(o, on)| depends(context, o, on)).collect();
    Err(Error::user(
        SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
        format!(
            "cannot replace {} {} because other objects depend on it",
            old.kind_noun(),
            shown(context, old)
        ),
    )
    .detail(lines.join("\n"))
    .hint(format!("Use DROP {} ... CASCADE, and create it again.", upper(noun_of(old)))))
}

/// Whether `object` is among `objects` or behind them.
pub(super) fn reads(context: &PlanContext, objects: &[ObjectId], object: ObjectId) -> bool {
    let mut visited = BTreeSet::new();
    let mut open = objects.to_vec();
    while let Some(id) = open.pop() {
        if id == object {
            return true;
        }
        if visited.insert(id)
            && let Some(found) = context.catalog.get(id)
        {
            open.extend(&found.depends_on);
        }
    }
    false
}

pub(super) fn reads_itself(name: &str) -> Error {
    Error::user(
        SqlState::INVALID_OBJECT_DEFINITION,
        format!("infinite recursion detected in rules for relation \"{name}\""),
    )
    .detail("The new definition reads what it replaces.")
}

/// Where an object of that name is or would be: its schema, or the first of the search path that
/// exists.
pub(super) fn target_name(context: &PlanContext, name: &Name) -> Result<ObjectName> {
    if let Some(database) = &name.database
        && *database != context.database
    {
        let schema = name.schema.as_deref().unwrap_or_default();
        let name_text = format!("{database}.{schema}.{}", name.name);
        return Err(cross_database(&name_text).position(name.position));
    }
    let schemas = context.catalog.schemas(&context.database).unwrap_or_default();
    let schema = match &name.schema {
        Some(schema) if SYSTEM_SCHEMAS.contains(&schema.as_str()) => {
            return Err(Error::user(
                SqlState("42501"),
                format!("permission denied to create \"{schema}.{}\"", name.name),
            )
            .detail("System catalog modifications are currently disallowed."));
        }
        Some(schema) if schemas.contains(schema) => schema.clone(),
        Some(schema) => return Err(no_schema(schema).position(name.position)),
        None => match context.search_path.iter().find(|schema| schemas.contains(schema)) {
            Some(schema) => schema.clone(),
            None => {
                return Err(Error::user(
                    SqlState::INVALID_SCHEMA_NAME,
                    "no schema has been selected to create in",
                )
                .position(name.position));
            }
        },
    };
    Ok(ObjectName { database: context.database.clone(), schema, name: name.name.clone() })
}

/// The database that a schema's name means.
pub(super) fn schema_database(
    context: &PlanContext,
    name: &crate::sql::statement::SchemaName,
) -> Result<String> {
    match &name.database {
        Some(database) if *database != context.database => Err(Error::user(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!(
                "cross-database references are not implemented: \"{database}.{}\"",
                name.schema
            ),
        )
        .hint("Connect to that database.")
        .position(name.position)),
        _ => Ok(context.database.clone()),
    }
}

/// The kind of a catalog object as statements name it.
pub(super) fn noun_of(object: &Object) -> Noun {
    match object.kind {
        ObjectKind::Source(_) => Noun::Source,
        ObjectKind::Table(_) => Noun::Table,
        ObjectKind::View(_) => Noun::View,
        ObjectKind::MaterializedView(_) => Noun::MaterializedView,
        ObjectKind::Sink(_) => Noun::Sink,
    }
}

/// SQLSTATE 42809: the object is of another kind than the statement says.
pub(super) fn wrong_kind(object: &Object, wanted: Noun) -> Error {
    let article = if wanted == Noun::Index { "an" } else { "a" };
    Error::user(
        SqlState::WRONG_OBJECT_TYPE,
        format!("\"{}\" is not {article} {wanted}", object.name.name),
    )
    .hint(format!("It is a {}.", object.kind_noun()))
}

/// `MATERIALIZED VIEW`.
pub(super) fn upper(kind: Noun) -> String {
    kind.as_str().to_uppercase()
}

/// What planning `parsed` once more must look at.
pub(super) fn definer(context: &PlanContext, parsed: &Parsed) -> Definer {
    // All settings are many, and hardly any definition asks for one.
    let asks = parsed.sql.to_lowercase().contains("current_setting");
    Definer {
        at_us: context.now.timestamp_micros(),
        user: context.user.clone(),
        time_zone: context.time_zone.clone(),
        search_path: context.search_path.clone(),
        settings: if asks { context.settings.as_ref().clone() } else { BTreeMap::new() },
        row_counts: context.row_counts.iter().map(|(id, rows)| (id.0, *rows)).collect(),
        shares: Vec::new(),
    }
}

/// The same of a materialized view.
pub(super) fn view_definer(
    context: &PlanContext,
    parsed: &Parsed,
    planned: &PlannedQuery,
) -> Definer {
    let mut definer = definer(context, parsed);
    definer.row_counts.retain(|id, _| planned.objects.contains(&ObjectId(*id)));
    definer
}

/// A query that a definition keeps: without parameters.
pub(super) fn plan_definition(context: &PlanContext, query: &ast::Query) -> Result<PlannedQuery> {
    let planned = context.plan_query(query, &[])?;
    if !planned.parameters.is_empty() {
        return Err(Error::user(SqlState::UNDEFINED_PARAMETER, "there is no parameter $1"));
    }
    Ok(planned)
}

/// Notes what the view's plan promises of its changes, for whoever reads the view.
pub(super) fn keep_promises(object: &mut Object, plan: &Plan) {
    if let ObjectKind::MaterializedView(view) = &mut object.kind {
        view.time_bounds = time_bounds(&plan.root);
        // Others stay as they are planned: what only grows today may be replaced by what does not.
        let mut final_matches = false;
        plan.root.visit(&mut |node| {
            final_matches |= matches!(node, Node::MatchRecognize(n) if n.closes.is_some());
        });
        let is_final = plan.options.emit == Emission::OnWindowClose || final_matches;
        view.append_only = is_final && plan.root.append_only();
    }
}

/// A materialized view's object and the query that it keeps.
pub(super) fn materialized_view_object(
    context: &PlanContext,
    parsed: &Parsed,
    create: &CreateMaterializedView,
    name: ObjectName,
) -> Result<(Object, PlannedQuery)> {
    let (object, planned) = explained_view(context, create)?;
    Ok((Object { name, create_sql: parsed.sql.clone(), ..object }, planned))
}

/// The same without a name and text of its own, for EXPLAIN.
pub(super) fn explained_view(
    context: &PlanContext,
    create: &CreateMaterializedView,
) -> Result<(Object, PlannedQuery)> {
    let planned = plan_definition(context, &create.query.ast)?;
    let names: Vec<&str> = create.columns.iter().map(String::as_str).collect();
    let mut schema = renamed(&planned.schema, &names, "CREATE MATERIALIZED VIEW")?;
    let mut pairs = option_pairs(&create.options);
    let written = pairs.len();
    pairs.extend(emission(&create.emit));
    let options =
        ViewOptions::parse(&pairs).map_err(|(index, error)| match create.options.get(index) {
            Some(option) if index < written => error.position(option.position),
            _ => error,
        })?;
    if options.on_error == OnError::Null {
        schema = nullable(&schema);
    }
    let name = ObjectName {
        database: context.database.clone(),
        schema: create.name.schema.clone().unwrap_or_default(),
        name: create.name.name.clone(),
    };
    let object = Object {
        id: ObjectId(0),
        name,
        kind: ObjectKind::MaterializedView(ViewObject {
            query_sql: create.query.sql.clone(),
            search_path: context.search_path.clone(),
            options: pairs,
            ..ViewObject::default()
        }),
        schema,
        create_sql: String::new(),
        depends_on: planned.depends_on.clone(),
    };
    Ok((object, planned))
}

/// The EMIT clause, as the options that keep it.
pub(super) fn emission(emit: &Emit) -> Option<(String, String)> {
    match emit {
        Emit::Unspecified => None,
        Emit::OnUpdate { every: None } => Some((EMIT.0.to_owned(), EMIT_ON_UPDATE.to_owned())),
        Emit::OnUpdate { every: Some(every) } => Some((EMIT_EVERY.to_owned(), every.clone())),
        Emit::OnWindowClose => Some((EMIT.0.to_owned(), EMIT.1.to_owned())),
    }
}

/// The dataflow of a materialized view, kept as its options say.
pub(super) fn view_plan(planned: &PlannedQuery, object: &Object) -> Result<Plan> {
    let plan = planned.lower()?;
    let Some(view) = object.kind.maintained() else { return Ok(plan) };
    let options = ViewOptions::of_stored(&view.options)?;
    let plan = match options.on_error {
        OnError::Null => null_on_error(plan),
        OnError::Quarantine | OnError::Fail => plan,
    };
    let plan = match options.recursion_limit {
        Some(limit) => limit_recursion(plan, limit),
        None => plan,
    };
    with_emission(Plan { options, ..plan })
}

/// A query's columns with `names` for the first of them; every name once.
pub(super) fn renamed(schema: &SchemaRef, names: &[&str], command: &str) -> Result<SchemaRef> {
    if names.len() > schema.fields().len() {
        return Err(Error::user(
            SqlState::SYNTAX_ERROR,
            format!("{command} specifies more column names than columns"),
        ));
    }
    let fields: Vec<FieldRef> = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(index, field)| match names.get(index) {
            Some(name) => Arc::new(field.as_ref().clone().with_name(*name)),
            None => field.clone(),
        })
        .collect();
    for (index, field) in fields.iter().enumerate() {
        if fields[..index].iter().any(|f| f.name() == field.name()) {
            return Err(column_twice(field.name()));
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn column_twice(name: &str) -> Error {
    Error::user(SqlState::DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once"))
        .hint("Give columns different names with AS.")
}

/// A new definition of a view keeps the columns that it has, and may add others.
fn check_replacement(context: &PlanContext, old: &Object, new: &Object) -> Result<()> {
    if !matches!(old.kind, ObjectKind::View(_)) {
        return Err(wrong_kind(old, Noun::View));
    }
    let invalid = |message: String| Error::user(SqlState::INVALID_TABLE_DEFINITION, message);
    if new.schema.fields().len() < old.schema.fields().len() {
        return Err(invalid("cannot drop columns from view".to_owned()));
    }
    for (old, new) in old.schema.fields().iter().zip(new.schema.fields()) {
        if old.name() != new.name() {
            return Err(invalid(format!(
                "cannot change name of view column \"{}\" to \"{}\"",
                old.name(),
                new.name()
            )));
        }
        let (old_type, new_type) = (SqlType::of_field(old), SqlType::of_field(new));
        if old_type != new_type {
            let text = |t: Option<SqlType>| t.map_or_else(String::new, |t| t.to_string());
            return Err(invalid(format!(
                "cannot change data type of view column \"{}\" from {} to {}",
                old.name(),
                text(old_type),
                text(new_type)
            )));
        }
    }
    // A dataflow was built from the old definition, and would go on with it.
    let user = context.catalog.drop_order(old.id).into_iter().find_map(|id| {
        let object = context.catalog.get(id)?;
        object.kind.maintained().is_some().then_some(object)
    });
    match user {
        None => Ok(()),
        Some(user) => Err(Error::unsupported(format!(
            "replacing view \"{}\" while a materialized view depends on it",
            old.name.name
        ))
        .detail(format!("materialized view {} depends on it", user.name.name))
        .hint("Drop the materialized view first, and create it again afterwards.")),
    }
}

/// The columns of CREATE TABLE.
fn table_schema(context: &PlanContext, table: &str, columns: &[ColumnDef]) -> Result<SchemaRef> {
    check_distinct(columns)?;
    let plain: Vec<Field> = columns.iter().filter_map(declared_field).collect();
    let plain = Schema::new(plain);
    let mut fields = Vec::with_capacity(columns.len());
    for column in columns {
        if column.default.is_some() && column.generated.is_some() {
            return Err(Error::user(
                SqlState::SYNTAX_ERROR,
                format!(
                    "both default and generation expression specified for column \"{}\" of table \
                     \"{table}\"",
                    column.name
                ),
            )
            .position(column.position));
        }
        fields.push(field_of(context, table, column, &plain)?);
    }
    for (column, field) in columns.iter().zip(&fields) {
        let assigned = |expression: &Expression, inputs: &Schema| {
            context.plan_assigned_expr(&expression.ast, inputs, Some(table), field)
        };
        if let Some(default) = &column.default {
            let planned = assigned(default, &Schema::empty()).map_err(|error| {
                if error.sqlstate() == SqlState::UNDEFINED_COLUMN {
                    Error::user(
                        SqlState::FEATURE_NOT_SUPPORTED,
                        "cannot use column reference in DEFAULT expression",
                    )
                    .hint("Use GENERATED ALWAYS AS (...) for values computed from other columns.")
                    .position(default.position)
                } else {
                    error
                }
            })?;
            if matches!(default.ast, ast::Expr::Value(_)) {
                // A literal that is none of the column's type is wrong now, and not at the first
                // INSERT.
                let one = RecordBatchOptions::new().with_row_count(Some(1));
                let row =
                    RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &one)?;
                planned.evaluate(&row).map_err(|error| error.position(default.position))?;
            }
        }
        if let Some(generated) = &column.generated {
            assigned(generated, &plain).map_err(|error| reads_generated(columns, error))?;
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// A generation expression sees the plain columns only; one that names a generated column gets
/// Postgres's words for it.
fn reads_generated(columns: &[ColumnDef], error: Error) -> Error {
    let is_named = |name: &str| error.message() == format!("column \"{name}\" does not exist");
    let other = columns.iter().find(|c| c.generated.is_some() && is_named(&c.name));
    let Some(other) = other else { return error };
    let named = Error::user(
        SqlState::INVALID_OBJECT_DEFINITION,
        format!("cannot use generated column \"{}\" in column generation expression", other.name),
    )
    .detail("A generated column cannot reference another generated column.");
    match error.body().position {
        Some(position) => named.position(position),
        None => named,
    }
}

fn check_distinct(columns: &[ColumnDef]) -> Result<()> {
    for (index, column) in columns.iter().enumerate() {
        if columns[..index].iter().any(|c| c.name == column.name) {
            return Err(Error::user(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{}\" specified more than once", column.name),
            )
            .position(column.position));
        }
    }
    Ok(())
}

/// The field of a column that is not generated.
fn declared_field(column: &ColumnDef) -> Option<Field> {
    match (&column.sql_type, &column.generated) {
        (Some(sql_type), None) => Some(typed_field(column, sql_type)),
        _ => None,
    }
}

/// The field of a column with a type, marked with its modifier.
fn typed_field(column: &ColumnDef, sql_type: &SqlType) -> Field {
    let field = sql_type.to_field(&column.name, !column.not_null);
    match column.modifier {
        Some(modifier) => modifier.mark(field),
        None => field,
    }
}

/// A column's field; a generated one without a type has that of its expression.
fn field_of(
    context: &PlanContext,
    relation: &str,
    column: &ColumnDef,
    inputs: &Schema,
) -> Result<Field> {
    if let Some(sql_type) = &column.sql_type {
        return Ok(typed_field(column, sql_type));
    }
    let Some(generated) = &column.generated else {
        return Err(Error::user(
            SqlState::SYNTAX_ERROR,
            format!("column \"{}\" has no type", column.name),
        )
        .position(column.position));
    };
    let expr = context.plan_expr(&generated.ast, inputs, Some(relation))?;
    Ok(Field::new(&column.name, expr.data_type().clone(), !column.not_null))
}

fn table_object(
    context: &PlanContext,
    parsed: &Parsed,
    create: &CreateTable,
    name: ObjectName,
    schema: SchemaRef,
) -> Result<Object> {
    let (schema, primary_key) = with_primary_key(&schema, create.primary_key.as_ref())?;
    let width = schema.fields().len();
    let sql = |expression: &Option<Expression>| expression.as_ref().map(|e| e.sql.clone());
    let of_columns = |of: fn(&ColumnDef) -> &Option<Expression>| {
        if create.query.is_some() {
            vec![None; width]
        } else {
            create.columns.iter().map(|c| sql(of(c))).collect()
        }
    };
    let on_conflict = table_conflict(create)?;
    if on_conflict != TableConflict::Error && primary_key.is_empty() {
        return Err(Error::user(
            SqlState::INVALID_TABLE_DEFINITION,
            "ON CONFLICT needs a PRIMARY KEY",
        ));
    }
    if create.append_only && on_conflict == TableConflict::Update {
        return Err(Error::user(
            SqlState::INVALID_TABLE_DEFINITION,
            "an APPEND ONLY table cannot replace rows",
        )
        .hint("Leave out APPEND ONLY, or use ON CONFLICT DO NOTHING."));
    }
    let table = TableObject {
        primary_key,
        defaults: of_columns(|c| &c.default),
        generated: of_columns(|c| &c.generated),
        on_conflict,
        append_only: create.append_only,
        watermark: create.watermark.as_ref().map(watermark_object),
        history_retention_us: table_history(create)?,
        retention: table_retention(create, &schema)?,
        late_of: None,
        replayed_of: None,
    };
    let object = Object {
        id: ObjectId(0),
        name,
        kind: ObjectKind::Table(table),
        schema,
        create_sql: parsed.sql.clone(),
        depends_on: Vec::new(),
    };
    if let Some(watermark) = &create.watermark {
        let (_, field) = watermark_column(&object.schema, watermark)?;
        watermark_expr(context, &object, watermark, field)?;
    }
    Ok(object)
}

/// What a table with a watermark has beside its rows.
fn table_time(context: &PlanContext, object: &Object, create: &CreateTable) -> Result<Timed> {
    let (Some(watermark), ObjectKind::Table(TableObject { watermark: Some(stored), .. })) =
        (&create.watermark, &object.kind)
    else {
        return Ok(Timed::default());
    };
    let (column, field) = watermark_column(&object.schema, watermark)?;
    let rule = watermark_spec(stored, column, watermark_expr(context, object, watermark, field)?);
    let late = late_table(&object.name, &object.schema, column);
    Ok(Timed { late: Some(late), rule: Some(rule) })
}

/// Key columns are NOT NULL and can be compared.
fn with_primary_key(
    schema: &SchemaRef,
    key: Option<&PrimaryKey>,
) -> Result<(SchemaRef, Vec<usize>)> {
    let Some(key) = key else { return Ok((schema.clone(), Vec::new())) };
    let mut fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone()).collect();
    let mut indices = Vec::with_capacity(key.columns.len());
    for name in &key.columns {
        let index = fields.iter().position(|f| f.name() == name).ok_or_else(|| {
            Error::user(
                SqlState::UNDEFINED_COLUMN,
                format!("column \"{name}\" named in key does not exist"),
            )
            .position(key.position)
        })?;
        if let Some(json @ SqlType::Json) = SqlType::of_field(&fields[index]) {
            return Err(Error::user(
                SqlState::UNDEFINED_OBJECT,
                format!("data type {json} cannot be compared, so it cannot be a key"),
            )
            .position(key.position));
        }
        fields[index] = fields[index].clone().with_nullable(false);
        indices.push(index);
    }
    Ok((Arc::new(Schema::new(fields)), indices))
}

fn table_conflict(create: &CreateTable) -> Result<TableConflict> {
    let mut conflict = match create.on_conflict {
        None => TableConflict::Error,
        Some(OnConflict::Update) => TableConflict::Update,
        Some(OnConflict::Ignore) => TableConflict::Ignore,
    };
    for option in &create.options {
        match option.name.as_str() {
            HISTORY_RETENTION | RETENTION | RETENTION_COLUMN => continue,
            "on_conflict" => {}
            _ => return Err(unknown_option(option)),
        }
        conflict = match option.value.to_lowercase().as_str() {
            "error" => TableConflict::Error,
            "update" | "overwrite" => TableConflict::Update,
            "nothing" | "ignore" => TableConflict::Ignore,
            _ => {
                return Err(Error::user(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("invalid value for parameter \"on_conflict\": \"{}\"", option.value),
                )
                .hint("Available values: error, update, nothing.")
                .position(option.position));
            }
        };
    }
    Ok(conflict)
}

/// What the options of a table say of its history.
fn table_history(create: &CreateTable) -> Result<Option<i64>> {
    let Some(option) = create.options.iter().find(|o| o.name == HISTORY_RETENTION) else {
        return Ok(None);
    };
    let us = retention_us(&option.value.to_lowercase()).ok_or_else(|| {
        let (name, value) = (&option.name, &option.value);
        Error::user(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("invalid value for parameter \"{name}\": \"{value}\""),
        )
        .hint("Available values: 0, or an interval of days and time, such as 1 hour.")
        .position(option.position)
    })?;
    Ok(Some(us))
}

/// What the options of a table say of rows that go by themselves.
fn table_retention(create: &CreateTable, schema: &Schema) -> Result<Option<TableRetention>> {
    let find = |name: &str| create.options.iter().find(|option| option.name == name);
    let wrong = |option: &WithOption, message: String| {
        Error::user(SqlState::INVALID_PARAMETER_VALUE, message).position(option.position)
    };
    let named = find(RETENTION_COLUMN);
    let Some(option) = find(RETENTION) else {
        return match named {
            Some(option) => {
                Err(wrong(option, format!("option \"{RETENTION_COLUMN}\" needs \"{RETENTION}\"")))
            }
            None => Ok(None),
        };
    };
    let keep_us = fixed_interval_us(&option.value.to_lowercase()).ok_or_else(|| {
        let message = format!("invalid value for parameter \"{RETENTION}\": \"{}\"", option.value);
        wrong(option, message).hint("Give an interval of days and time, such as '1 day'.")
    })?;
    if create.append_only {
        return Err(Error::user(
            SqlState::INVALID_TABLE_DEFINITION,
            "rows of an APPEND ONLY table never go",
        )
        .hint("Leave out APPEND ONLY, or create a materialized view with a retention over it.")
        .position(option.position));
    }
    let watermark = create.watermark.as_ref().map(|watermark| watermark.column.as_str());
    let Some(name) = named.map(|option| option.value.as_str()).or(watermark) else {
        return Err(wrong(option, "the retention of a table counts from a column".to_owned())
            .hint(
                "Name it: retention_column = 'at'. For the time of arrival, declare arrived_at \
             timestamptz DEFAULT now().",
            ));
    };
    let at = named.unwrap_or(option);
    let Some((column, field)) = schema.column_with_name(name) else {
        let message = format!("option \"{RETENTION_COLUMN}\": column \"{name}\" does not exist");
        return Err(Error::user(SqlState::UNDEFINED_COLUMN, message).position(at.position));
    };
    if !is_time(field.data_type()) {
        let message =
            format!("option \"{RETENTION_COLUMN}\": column \"{name}\" is not a time or date");
        return Err(Error::user(SqlState::DATATYPE_MISMATCH, message).position(at.position));
    }
    Ok(Some(TableRetention { column, keep_us }))
}

fn unknown_option(option: &WithOption) -> Error {
    Error::user(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("unrecognized parameter \"{}\"", option.name),
    )
    .position(option.position)
}

fn refuse_options(options: &[WithOption]) -> Result<()> {
    options.first().map_or(Ok(()), |option| Err(unknown_option(option)))
}

fn watermark_object(watermark: &Watermark) -> WatermarkObject {
    WatermarkObject {
        column: watermark.column.clone(),
        expression_sql: watermark.expression.sql.clone(),
        ..WatermarkObject::default()
    }
}

/// The watermark of a source with its options, which are taken out of `options`.
fn source_watermark(
    create: &CreateSource,
    options: &mut Vec<(String, String)>,
) -> Result<Option<WatermarkObject>> {
    let mut object = create.watermark.as_ref().map(watermark_object);
    for name in ["allowed_lateness", "idle_timeout", "watermark_drift_max"] {
        let Some(index) = options.iter().position(|(option, _)| option == name) else { continue };
        let (_, value) = options.remove(index);
        let position = create.options.iter().find(|o| o.name == name).map_or(0, |o| o.position);
        let Some(object) = &mut object else {
            return Err(Error::user(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("option \"{name}\" needs a watermark"),
            )
            .hint("Declare WATERMARK FOR column AS expression among the columns.")
            .position(position));
        };
        let length_us = fixed_interval_us(&value).ok_or_else(|| {
            Error::user(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("invalid value for option \"{name}\": \"{value}\""),
            )
            .hint("Give an interval of days and time, such as '30 seconds'.")
            .position(position)
        })?;
        match name {
            "allowed_lateness" => object.allowed_lateness_us = length_us,
            "idle_timeout" => object.idle_timeout_us = Some(length_us),
            _ => object.drift_max_us = Some(length_us),
        }
    }
    Ok(object)
}

/// The table of what comes late for a source or table of this name and schema.
fn late_table(name: &ObjectName, schema: &SchemaRef, time_column: usize) -> Object {
    let mut fields: Vec<Field> =
        schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let time = schema.field(time_column).data_type().clone();
    let arrived = SqlType::Timestamptz.to_arrow();
    for (name, data_type) in
        [("event_time", time.clone()), ("watermark", time), ("arrived_at", arrived)]
    {
        let mut name = name.to_owned();
        while fields.iter().any(|field| *field.name() == name) {
            name.push('_');
        }
        fields.push(Field::new(name, data_type, true));
    }
    let columns = fields.len();
    Object {
        id: ObjectId(0),
        name: ObjectName { name: format!("{}_late", name.name), ..name.clone() },
        kind: ObjectKind::Table(TableObject {
            primary_key: vec![],
            defaults: vec![None; columns],
            generated: vec![None; columns],
            on_conflict: TableConflict::Error,
            append_only: false,
            watermark: None,
            // Known when the owner has an id.
            history_retention_us: None,
            retention: None,
            late_of: None,
            replayed_of: None,
        }),
        schema: Arc::new(Schema::new(fields)),
        create_sql: String::new(),
        depends_on: Vec::new(),
    }
}

/// The time column of a watermark.
fn watermark_column<'a>(schema: &'a Schema, watermark: &Watermark) -> Result<(usize, &'a Field)> {
    let (index, field) = schema.column_with_name(&watermark.column).ok_or_else(|| {
        Error::user(
            SqlState::UNDEFINED_COLUMN,
            format!("column \"{}\" named in WATERMARK does not exist", watermark.column),
        )
        .position(watermark.position)
    })?;
    if !matches!(field.data_type(), DataType::Timestamp(_, _)) {
        let sql_type = SqlType::of_field(field).map_or_else(String::new, |t| t.to_string());
        return Err(Error::user(
            SqlState::DATATYPE_MISMATCH,
            format!("watermark column \"{}\" has type {sql_type}", watermark.column),
        )
        .hint("A watermark is for a column of type timestamp or timestamptz.")
        .position(watermark.position));
    }
    Ok((index, field))
}

fn watermark_expr(
    context: &PlanContext,
    object: &Object,
    watermark: &Watermark,
    field: &Field,
) -> Result<Expr> {
    let nullable = field.clone().with_nullable(true);
    let expression = &watermark.expression.ast;
    context.plan_assigned_expr(expression, &object.schema, Some(&object.name.name), &nullable)
}

pub(super) fn watermark_spec(
    watermark: &WatermarkObject,
    column: usize,
    expr: Expr,
) -> WatermarkSpec {
    let length = |us: i64| Duration::from_micros(u64::try_from(us).unwrap_or(0));
    WatermarkSpec {
        column,
        expr,
        allowed_lateness: length(watermark.allowed_lateness_us),
        idle_timeout: watermark.idle_timeout_us.map(length),
        drift_max: watermark.drift_max_us.map(length),
    }
}

fn source_object(
    context: &PlanContext,
    parsed: &Parsed,
    create: &CreateSource,
    name: ObjectName,
) -> Result<Object> {
    if let Some(key) = &create.primary_key {
        return Err(Error::unsupported("a PRIMARY KEY of a source")
            .hint("Keep the newest row of each key with a materialized view.")
            .position(key.position));
    }
    check_distinct(&create.columns)?;
    for column in &create.columns {
        if let Some(default) = &column.default {
            return Err(Error::unsupported("DEFAULT in a source")
                .hint("Use a generated column: c type AS (coalesce(d, ...)).")
                .position(default.position));
        }
    }
    let mut options = create.option_pairs();
    let connector = match options.iter().position(|(name, _)| name == "connector") {
        Some(index) => options.remove(index).1,
        None => {
            return Err(Error::user(
                SqlState::INVALID_PARAMETER_VALUE,
                "option \"connector\" is missing",
            )
            .hint("Add connector = '...' to the WITH clause; SHOW CONNECTORS lists them."));
        }
    };
    let watermark = source_watermark(create, &mut options)?;
    let declared: Vec<Field> = create.columns.iter().filter_map(declared_field).collect();
    let declared = (!declared.is_empty()).then(|| Arc::new(Schema::new(declared)));
    let own_columns = declared.is_none();
    let source = crate::connectors::open_source(&connector, &options, declared)?;
    let physical_schema = source.schema();
    let (fields, column_sql) =
        source_fields(context, create, &physical_schema, own_columns, &name.name)?;
    let definition = SourceObject {
        connector,
        options,
        physical_schema,
        column_sql,
        watermark,
        bounded: source.bounded(),
    };
    let object = Object {
        id: ObjectId(0),
        name,
        kind: ObjectKind::Source(definition),
        schema: Arc::new(Schema::new(fields)),
        create_sql: parsed.sql.clone(),
        depends_on: Vec::new(),
    };
    Ok(object)
}

/// The visible columns of a source, and the SQL of those that are computed.
fn source_fields(
    context: &PlanContext,
    create: &CreateSource,
    physical: &SchemaRef,
    own_columns: bool,
    name: &str,
) -> Result<(Vec<Field>, Vec<Option<String>>)> {
    let mut fields = Vec::new();
    let mut column_sql = Vec::new();
    if own_columns {
        fields.extend(physical.fields().iter().map(|f| f.as_ref().clone()));
        column_sql.resize(fields.len(), None);
    }
    for column in &create.columns {
        match &column.generated {
            None => {
                let (_, field) = physical.column_with_name(&column.name).ok_or_else(|| {
                    Error::internal(format!("the connector lost column {}", column.name))
                })?;
                fields.push(field.clone());
                column_sql.push(None);
            }
            Some(generated) => {
                if own_columns && physical.column_with_name(&column.name).is_some() {
                    return Err(column_twice(&column.name).position(column.position));
                }
                let field = field_of(context, name, column, physical)?;
                context.plan_assigned_expr(&generated.ast, physical, Some(name), &field)?;
                fields.push(field);
                column_sql.push(Some(generated.sql.clone()));
            }
        }
    }
    Ok((fields, column_sql))
}

/// A source's columns over the connector's; `None` when they are the same.
pub(super) fn source_columns(
    context: &PlanContext,
    object: &Object,
    source: &SourceObject,
) -> Result<Option<Arc<Vec<Expr>>>> {
    let physical = &source.physical_schema;
    let same = source.column_sql.iter().all(Option::is_none)
        && object.schema.fields().len() == physical.fields().len()
        && object.schema.fields().iter().zip(physical.fields()).all(|(a, b)| a.name() == b.name());
    if same {
        return Ok(None);
    }
    let mut columns = Vec::with_capacity(source.column_sql.len());
    for (field, sql) in object.schema.fields().iter().zip(&source.column_sql) {
        columns.push(match sql {
            Some(sql) => {
                let expression = crate::sql::parse::parse_expression(sql)?;
                let table = Some(object.name.name.as_str());
                context.plan_assigned_expr(&expression, physical, table, field)?
            }
            None => {
                let (index, physical) =
                    physical.column_with_name(field.name()).ok_or_else(|| {
                        Error::internal(format!("the connector lost column {}", field.name()))
                    })?;
                let data_type = physical.data_type().clone();
                Expr::column(field.name(), index, data_type, physical.is_nullable())
            }
        });
    }
    Ok(Some(Arc::new(columns)))
}

/// A source's connector, with the options and columns of its definition.
pub(super) fn open_connector(source: &SourceObject) -> Result<Arc<dyn Source>> {
    crate::connectors::open_source(
        &source.connector,
        &source.options,
        Some(source.physical_schema.clone()),
    )
}
