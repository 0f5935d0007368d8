//! Queries and expressions to typed plans.
//!
//! 1. `rewrite` puts the syntax tree into DataFusion's words.
//! 2. DataFusion's SQL planner builds a logical plan; `resolve` finds the names for it.
//! 3. Parameters that nothing declares take the type that the plan wants of them; then the query
//!    is planned once more, now with all types.
//! 4. `coerce` gives every expression its type and Postgres's meaning.
//! 5. A last projection casts the result to types that columns can have.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use chrono::{DateTime, Utc};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Expr as LogicalExpr, ExprSchemable, LogicalPlan, LogicalPlanBuilder,
};
use datafusion::sql::planner::{PlannerContext, SqlToRel};
use datafusion::sql::sqlparser::ast;

use crate::catalog::object::{Object, ViewObject};
use crate::catalog::snapshot::{Catalog, DEFAULT_SCHEMA};
use crate::functions::scalar::call::{Family, given_type};
use crate::functions::scalar::cast::CastSettings;
use crate::plan::expr::Expr;
use crate::sql::coerce;
use crate::sql::errors::locate;
use crate::sql::expressions;
use crate::sql::operators::is_quoted_literal;
use crate::sql::parse::parse_query;
use crate::sql::query::PlannedQuery;
use crate::sql::resolve::{CatalogSource, Resolver, external, resolve};
use crate::sql::rewrite::names::{name_parts, with_marked_aliases};
use crate::sql::rewrite::tables::with_function_rows;
use crate::sql::rewrite::{array_parameters, rewrite_query};
use crate::sql::savepoint_tables::SavepointTables;
use crate::sql::schema::{canonical_field, visible_schema};
use crate::sql::system_functions::Session;
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;
use crate::types::sql_type::SqlType;
use crate::types::text::zone::Zone;

/// Everything planning may look at: one catalog version and the session's settings.
#[derive(Clone)]
pub struct PlanContext {
    pub catalog: Arc<Catalog>,
    pub database: String,
    /// Schemas in which an unqualified name is looked for, in order. `pg_catalog` comes first
    /// by itself.
    pub search_path: Vec<String>,
    pub user: String,
    /// The `TimeZone` setting: an IANA name or an offset.
    pub time_zone: String,
    /// What `now()` is in expressions that are compiled at once ([`PlanContext::plan_expr`]). A
    /// query gets its own when it runs.
    pub now: DateTime<Utc>,
    /// The text that the spans of the syntax tree count in, for error positions.
    pub sql: Arc<str>,
    /// What `current_setting()` knows, names in lower case.
    pub settings: Arc<BTreeMap<String, String>>,
    /// Rows that tables and materialized views have, as far as the order of joins is to be chosen
    /// by it.
    pub row_counts: Arc<BTreeMap<ObjectId, u64>>,
    /// What functions ask of the connection; `None` outside of one.
    pub session: Option<Arc<dyn Session>>,
    /// What the statement reads of savepoints.
    pub savepoints: Arc<SavepointTables>,
}

impl PlanContext {
    /// A context with default settings.
    pub fn new(catalog: Arc<Catalog>, database: &str) -> PlanContext {
        PlanContext {
            catalog,
            database: database.to_owned(),
            search_path: vec![DEFAULT_SCHEMA.to_owned()],
            user: String::new(),
            time_zone: "UTC".to_owned(),
            now: DateTime::UNIX_EPOCH,
            sql: "".into(),
            settings: Arc::default(),
            row_counts: Arc::default(),
            session: None,
            savepoints: Arc::default(),
        }
    }

    /// Plans a query: names resolved, views expanded, types checked, parameters inferred where
    /// `parameter_types` does not say.
    ///
    /// # Errors
    /// Whatever is wrong with the query, with its position where it is known.
    pub fn plan_query(
        &self,
        query: &ast::Query,
        parameter_types: &[Option<SqlType>],
    ) -> Result<PlannedQuery> {
        let planned = self.plan_as_written(query, parameter_types);
        match planned {
            // `SELECT *, n + 1 AS n`: two columns of one name, which DataFusion's plans have only
            // under different ones.
            Err(error) if error.sqlstate() == SqlState::AMBIGUOUS_COLUMN => {
                let Some(other) = with_marked_aliases(query) else { return Err(error) };
                self.plan_as_written(&other, parameter_types).map_err(|_| error)
            }
            Err(error) if error.sqlstate() == SqlState::UNDEFINED_COLUMN => {
                let Some(other) = with_function_rows(query) else { return Err(error) };
                self.plan_as_written(&other, parameter_types).map_err(|_| error)
            }
            planned => planned,
        }
    }

    fn plan_as_written(
        &self,
        query: &ast::Query,
        parameter_types: &[Option<SqlType>],
    ) -> Result<PlannedQuery> {
        let rewritten = rewrite_query(query, parameter_types)?;
        self.plan_rewritten(&rewritten.tree, rewritten.parameters)
            .map_err(|error| locate(error, &self.sql, query))
    }

    /// Steps 2 to 5.
    fn plan_rewritten(
        &self,
        query: &ast::Query,
        declared: Vec<Option<SqlType>>,
    ) -> Result<PlannedQuery, DataFusionError> {
        let planned = self.plan_with_parameters(query, declared, &[])?;
        self.finish(planned)
    }

    pub(super) fn cast_settings(&self) -> Result<CastSettings> {
        let zone = Zone::parse(&self.time_zone)?;
        Ok(CastSettings { zone, now_us: self.now.timestamp_micros() })
    }

    /// Steps 4 and 5.
    pub(super) fn finish(&self, resolved: ResolvedQuery) -> Result<PlannedQuery, DataFusionError> {
        let plan = coerce::coerce_plan(resolved.plan, &self.cast_settings().map_err(external)?)?;
        let plan = with_canonical_output(plan)?;
        let schema = visible_schema(plan.schema()).map_err(external)?;
        let objects = scanned_objects(&plan)?;
        let past = scanned_versions(&plan)?;
        let planned =
            PlannedQuery::new(plan, schema, resolved.parameters, objects, resolved.depends_on);
        Ok(planned.with_past(past))
    }

    /// Steps 2 and 3. `extra` are relations beside the catalog's.
    pub(super) fn plan_with_parameters(
        &self,
        query: &ast::Query,
        declared: Vec<Option<SqlType>>,
        extra: &[Arc<Object>],
    ) -> Result<ResolvedQuery, DataFusionError> {
        let mut known = declared;
        let mut first_error = None;
        if !known.iter().all(Option::is_some) {
            self.infer_arrays(query, &mut known, extra);
            match self.plan_typed(query, &known, extra) {
                Ok((plan, _)) => infer_parameters(&plan, &mut known)?,
                // An expression that is nothing without the type of a parameter.
                Err(error) => first_error = Some(error),
            }
        }
        // As Postgres: what nothing decides is text. When that does not fit either, a number may.
        for guess in [SqlType::Text, SqlType::Int8, SqlType::Float8] {
            let parameters: Vec<SqlType> =
                known.iter().map(|t| t.clone().unwrap_or_else(|| guess.clone())).collect();
            let types: Vec<_> = parameters.iter().cloned().map(Some).collect();
            match self.plan_typed(query, &types, extra) {
                Ok((plan, depends_on)) => {
                    return Ok(ResolvedQuery { plan, depends_on, parameters });
                }
                Err(error) => {
                    let error = first_error.take().unwrap_or(error);
                    if known.iter().all(Option::is_some) {
                        return Err(error);
                    }
                    first_error = Some(error);
                }
            }
        }
        Err(first_error
            .unwrap_or_else(|| DataFusionError::Internal("a query was planned and not".to_owned())))
    }

    /// Types of parameters that are arrays after ANY or ALL. What is wrong with the query is found
    /// when it is planned as it is.
    fn infer_arrays(
        &self,
        query: &ast::Query,
        known: &mut [Option<SqlType>],
        extra: &[Arc<Object>],
    ) {
        let Some((probe, arrays)) = array_parameters(query) else { return };
        let mut items = known.to_vec();
        for index in &arrays {
            items[*index] = None;
        }
        let Ok((plan, _)) = self.plan_typed(&probe, &items, extra) else { return };
        if infer_parameters(&plan, &mut items).is_err() {
            return;
        }
        for index in arrays {
            if let (slot @ None, Some(item)) = (&mut known[index], &items[index]) {
                *slot = Some(SqlType::Array(Box::new(item.clone())));
            }
        }
    }

    /// One run of DataFusion's SQL planner.
    fn plan_typed(
        &self,
        query: &ast::Query,
        parameters: &[Option<SqlType>],
        extra: &[Arc<Object>],
    ) -> Result<(LogicalPlan, Vec<ObjectId>), DataFusionError> {
        let resolver = Resolver::new(self, 0, extra);
        let mut planner_context = planner_context(parameters);
        let plan = SqlToRel::new(&resolver).sql_statement_to_plan_with_context(
            ast::Statement::Query(Box::new(query.clone())),
            &mut planner_context,
        )?;
        Ok((plan, resolver.named_objects()))
    }

    /// The query of a view as a plan with the view's columns; `depth` counts the views around it,
    /// `version` is the time as of which it is read.
    pub(super) fn plan_view(
        &self,
        object: &Object,
        view: &ViewObject,
        depth: usize,
        version: Option<Arc<str>>,
    ) -> Result<LogicalPlan, DataFusionError> {
        let context = PlanContext {
            database: object.name.database.clone(),
            search_path: view.search_path.clone(),
            sql: view.query_sql.as_str().into(),
            ..self.clone()
        };
        let query = parse_query(&view.query_sql).map_err(external)?;
        let planned = |query: &ast::Query| -> Result<LogicalPlan, DataFusionError> {
            let rewritten = rewrite_query(query, &[]).map_err(external)?;
            let resolver = Resolver::new(&context, depth, &[]).as_of(version.clone());
            SqlToRel::new(&resolver)
                .sql_statement_to_plan(ast::Statement::Query(Box::new(rewritten.tree)))
        };
        // As `plan_query` did when the view was made.
        let plan = planned(&query).or_else(|error| match with_function_rows(&query) {
            Some(other) => planned(&other).map_err(|_| error),
            None => Err(error),
        })?;
        let columns = plan.schema().columns();
        if columns.len() != object.schema.fields().len() {
            return Err(DataFusionError::Internal(format!(
                "view {} has {} columns, its query {}",
                object.name.name,
                object.schema.fields().len(),
                columns.len()
            )));
        }
        let projection = columns
            .into_iter()
            .zip(object.schema.fields())
            .map(|(column, field)| LogicalExpr::Column(column).alias(field.name()));
        LogicalPlanBuilder::from(plan).project(projection)?.build()
    }

    /// A scalar expression over the columns of `schema`, which may be qualified with `qualifier`:
    /// defaults, generated columns, watermarks. `now()` is the context's.
    ///
    /// # Errors
    /// Whatever is wrong with it; SQLSTATE 0A000 for a subquery, 42803 for an aggregate.
    pub fn plan_expr(
        &self,
        expr: &ast::Expr,
        schema: &Schema,
        qualifier: Option<&str>,
    ) -> Result<Expr> {
        let schema = qualified(schema, qualifier)?;
        let logical = self.plan_raw_expr(expr, &schema)?;
        self.compile_expr(logical, &schema, expr)
    }

    /// As [`PlanContext::plan_expr`], then assigned to a column: cast as INSERT does.
    ///
    /// # Errors
    /// SQLSTATE 42804 when the types do not fit.
    pub fn plan_assigned_expr(
        &self,
        expr: &ast::Expr,
        schema: &Schema,
        qualifier: Option<&str>,
        column: &Field,
    ) -> Result<Expr> {
        let schema = qualified(schema, qualifier)?;
        let logical = self.plan_raw_expr(expr, &schema)?;
        self.compile_expr(coerce::assign(logical, &schema, column)?, &schema, expr)
    }

    fn compile_expr(
        &self,
        logical: LogicalExpr,
        schema: &DFSchema,
        expr: &ast::Expr,
    ) -> Result<Expr> {
        let settings = self.cast_settings()?;
        let typed = coerce::coerce_expr(logical, schema, &settings)
            .and_then(|typed| coerce::bind_now(typed, self.now))
            .map_err(|error| locate(error, &self.sql, expr))?;
        expressions::compile(&typed, schema)
    }

    /// The catalog object of that name.
    ///
    /// # Errors
    /// SQLSTATE 42P01 with the position, and a hint when a similar name exists.
    pub fn resolve(&self, name: &ast::ObjectName) -> Result<Arc<Object>> {
        let parts = name_parts(name)?;
        resolve(self, &parts).map_err(|error| {
            let span = ast::Spanned::span(name);
            match crate::sql::errors::position_of(&self.sql, span.start) {
                Some(position) => error.position(position),
                None => error,
            }
        })
    }
}

/// A query whose names are resolved and whose parameters have types.
pub(super) struct ResolvedQuery {
    pub plan: LogicalPlan,
    /// Objects that the query names itself.
    pub depends_on: Vec<ObjectId>,
    pub parameters: Vec<SqlType>,
}

fn qualified(schema: &Schema, qualifier: Option<&str>) -> Result<DFSchema> {
    let schema = match qualifier {
        Some(name) => DFSchema::try_from_qualified_schema(name, schema),
        None => DFSchema::try_from(schema.clone()),
    };
    schema.map_err(Error::from)
}

fn planner_context(parameters: &[Option<SqlType>]) -> PlannerContext {
    let fields = parameters
        .iter()
        .map(|t| t.as_ref().map(|t| -> FieldRef { Arc::new(t.to_field("", true)) }))
        .collect();
    PlannerContext::new().with_prepare_param_data_types(fields)
}

/// Fills in the types that the plan wants of its parameters. The first place decides, as in
/// Postgres; the others cast.
fn infer_parameters(
    plan: &LogicalPlan,
    known: &mut Vec<Option<SqlType>>,
) -> Result<(), DataFusionError> {
    plan.apply_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                infer_from_siblings(expr, &schema, known);
                infer_from_function(expr, &schema, known);
                if let LogicalExpr::Placeholder(Placeholder { id, field: Some(field) }) = expr {
                    learn(id, field, known);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(())
}

/// A parameter among expressions that share a type has the type of the others.
fn infer_from_siblings(expr: &LogicalExpr, schema: &DFSchema, known: &mut Vec<Option<SqlType>>) {
    let siblings: Vec<&LogicalExpr> = match expr {
        LogicalExpr::ScalarFunction(call) if coerce::UNIFYING.contains(&call.func.name()) => {
            call.args.iter().collect()
        }
        LogicalExpr::Case(case) => {
            let results = case.when_then_expr.iter().map(|(_, then)| &**then);
            results.chain(case.else_expr.as_deref()).collect()
        }
        _ => return,
    };
    let typed = siblings.iter().find_map(|sibling| {
        let (_, field) = sibling.to_field(schema).ok()?;
        let untyped = field.data_type().is_null() || is_quoted_literal(sibling);
        (!untyped && parameter_of(sibling).is_none()).then_some(field)
    });
    let Some(field) = typed else { return };
    for id in siblings.into_iter().filter_map(parameter_of) {
        learn(id, &field, known);
    }
}

/// A parameter that is an argument of one of our functions has the type that the function takes.
fn infer_from_function(expr: &LogicalExpr, schema: &DFSchema, known: &mut Vec<Option<SqlType>>) {
    let LogicalExpr::ScalarFunction(call) = expr else { return };
    let Some(family) = call.func.inner().downcast_ref::<Family>() else { return };
    if !call.args.iter().any(|arg| parameter_of(arg).is_some()) {
        return;
    }
    let (mut given, mut literals) = (vec![], vec![]);
    for arg in &call.args {
        let literal = match arg {
            LogicalExpr::Literal(value, _) => Some(value),
            _ => None,
        };
        let field = arg.to_field(schema).ok().map(|(_, field)| field);
        given.push(field.and_then(|field| given_type(&field, literal)));
        literals.push(literal.cloned());
    }
    let Ok(chosen) = family.resolve(&given, &literals) else { return };
    for (arg, wanted) in call.args.iter().zip(&chosen.types) {
        if let Some(id) = parameter_of(arg) {
            learn(id, &wanted.to_field("", true), known);
        }
    }
}

/// The name of a parameter, when the expression is one.
fn parameter_of(expr: &LogicalExpr) -> Option<&str> {
    match expr {
        LogicalExpr::Placeholder(Placeholder { id, .. }) => Some(id),
        _ => None,
    }
}

fn learn(id: &str, field: &Field, known: &mut Vec<Option<SqlType>>) {
    let Some(index) = parameter_index(id) else { return };
    if field.data_type().is_null() {
        return;
    }
    if known.len() <= index {
        known.resize(index + 1, None);
    }
    let wanted = canonical_field(field).and_then(|f| SqlType::of_field(&f));
    if let (slot @ None, Some(wanted)) = (&mut known[index], wanted) {
        *slot = Some(wanted);
    }
}

fn parameter_index(id: &str) -> Option<usize> {
    id.strip_prefix('$')?.parse::<usize>().ok()?.checked_sub(1)
}

/// Step 5: a projection over the plan, when some column has a type that no result can have.
fn with_canonical_output(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let target = |field: &FieldRef| -> Option<DataType> {
        let target = canonical_field(field)?;
        (target.data_type() != field.data_type()).then(|| target.data_type().clone())
    };
    let schema = plan.schema().clone();
    if schema.fields().iter().all(|field| target(field).is_none()) {
        return Ok(plan);
    }
    let projection: Vec<LogicalExpr> = schema
        .iter()
        .map(|(qualifier, field)| {
            let column = LogicalExpr::Column(Column::new(qualifier.cloned(), field.name()));
            match target(field) {
                Some(data_type) => coerce::plain_cast(column, data_type)
                    .alias_qualified(qualifier.cloned(), field.name()),
                None => column,
            }
        })
        .collect();
    // ORDER BY and LIMIT stay below: a projection keeps the order.
    LogicalPlanBuilder::from(plan).project(projection)?.build()
}

/// Objects that the plan reads as of a time, each once for each time.
fn scanned_versions(plan: &LogicalPlan) -> Result<Vec<(ObjectId, Arc<str>)>, DataFusionError> {
    let mut versions = vec![];
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(source) = scan.source.downcast_ref::<CatalogSource>()
            && let Some(version) = &source.version
        {
            let scanned = (source.object.id, version.clone());
            if !versions.contains(&scanned) {
                versions.push(scanned);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(versions)
}

/// Objects that the plan reads as they are now, each once.
pub(super) fn scanned_objects(plan: &LogicalPlan) -> Result<Vec<ObjectId>, DataFusionError> {
    let mut objects = vec![];
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(source) = scan.source.downcast_ref::<CatalogSource>()
            && source.version.is_none()
            && !objects.contains(&source.object.id)
        {
            objects.push(source.object.id);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(objects)
}
