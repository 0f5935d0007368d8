//! Views: a query becomes an object with its plan, its promises and who defined it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast;

use super::tables::refuse_options;
use super::{noun_of, target_name, upper, wrong_kind};
use crate::catalog::object::{Definer, Object, ObjectKind, ObjectName, ViewObject};
use crate::catalog::snapshot::Change;
use crate::coordinator::command::Connection;
use crate::coordinator::drop::{dependants, depends, shown};
use crate::coordinator::event_loop::Install;
use crate::coordinator::running::Running;
use crate::plan::emission::with_emission;
use crate::plan::event_time::time_bounds;
use crate::plan::node::{Node, Plan};
use crate::plan::null_on_error::{null_on_error, nullable};
use crate::plan::recursion::limit_recursion;
use crate::plan::view_options::{EMIT, EMIT_EVERY, EMIT_ON_UPDATE, Emission, OnError, ViewOptions};
use crate::sql::bind::PlanContext;
use crate::sql::parse::Parsed;
use crate::sql::query::PlannedQuery;
use crate::sql::statement::{CreateMaterializedView, CreateView, Emit, Noun, option_pairs};
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;
use crate::types::sql_type::SqlType;

impl Connection {
    pub(super) async fn create_view(
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

    pub(super) async fn create_materialized_view(
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
}

/// CREATE OR REPLACE of what others depend on would break them.
pub(super) fn check_replaced(context: &PlanContext, old: &Object) -> Result<()> {
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
pub(in crate::coordinator) fn reads(
    context: &PlanContext,
    objects: &[ObjectId],
    object: ObjectId,
) -> bool {
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

pub(in crate::coordinator) fn reads_itself(name: &str) -> Error {
    Error::user(
        SqlState::INVALID_OBJECT_DEFINITION,
        format!("infinite recursion detected in rules for relation \"{name}\""),
    )
    .detail("The new definition reads what it replaces.")
}

/// What planning `parsed` once more must look at.
pub(in crate::coordinator) fn definer(context: &PlanContext, parsed: &Parsed) -> Definer {
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
pub(in crate::coordinator) fn view_definer(
    context: &PlanContext,
    parsed: &Parsed,
    planned: &PlannedQuery,
) -> Definer {
    let mut definer = definer(context, parsed);
    definer.row_counts.retain(|id, _| planned.objects.contains(&ObjectId(*id)));
    definer
}

/// A query that a definition keeps: without parameters.
pub(in crate::coordinator) fn plan_definition(
    context: &PlanContext,
    query: &ast::Query,
) -> Result<PlannedQuery> {
    let planned = context.plan_query(query, &[])?;
    if !planned.parameters.is_empty() {
        return Err(Error::user(SqlState::UNDEFINED_PARAMETER, "there is no parameter $1"));
    }
    Ok(planned)
}

/// Notes what the view's plan promises of its changes, for whoever reads the view.
pub(in crate::coordinator) fn keep_promises(object: &mut Object, plan: &Plan) {
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
pub(in crate::coordinator) fn materialized_view_object(
    context: &PlanContext,
    parsed: &Parsed,
    create: &CreateMaterializedView,
    name: ObjectName,
) -> Result<(Object, PlannedQuery)> {
    let (object, planned) = explained_view(context, create)?;
    Ok((Object { name, create_sql: parsed.sql.clone(), ..object }, planned))
}

/// The same without a name and text of its own, for EXPLAIN.
pub(in crate::coordinator) fn explained_view(
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
    let kind = ObjectKind::MaterializedView(ViewObject {
        query_sql: create.query.sql.clone(),
        search_path: context.search_path.clone(),
        options: pairs,
        ..ViewObject::default()
    });
    let object = Object::new(name, kind, schema);
    Ok((Object { depends_on: planned.depends_on.clone(), ..object }, planned))
}

/// The EMIT clause, as the options that keep it.
pub(in crate::coordinator) fn emission(emit: &Emit) -> Option<(String, String)> {
    match emit {
        Emit::Unspecified => None,
        Emit::OnUpdate { every: None } => Some((EMIT.0.to_owned(), EMIT_ON_UPDATE.to_owned())),
        Emit::OnUpdate { every: Some(every) } => Some((EMIT_EVERY.to_owned(), every.clone())),
        Emit::OnWindowClose => Some((EMIT.0.to_owned(), EMIT.1.to_owned())),
    }
}

/// The dataflow of a materialized view, kept as its options say.
pub(in crate::coordinator) fn view_plan(planned: &PlannedQuery, object: &Object) -> Result<Plan> {
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
pub(in crate::coordinator) fn renamed(
    schema: &SchemaRef,
    names: &[&str],
    command: &str,
) -> Result<SchemaRef> {
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

pub(super) fn column_twice(name: &str) -> Error {
    Error::user(SqlState::DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once"))
        .hint("Give columns different names with AS.")
}

/// A new definition of a view keeps the columns that it has, and may add others.
pub(super) fn check_replacement(context: &PlanContext, old: &Object, new: &Object) -> Result<()> {
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
