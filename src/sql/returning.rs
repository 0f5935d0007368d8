//! RETURNING: a select list over the rows that a statement has changed.
//!
//! 1. It is planned as `SELECT items FROM table, others`, so that names, wildcards and types are
//!    found as in any query. `old.x` and `new.x` are parameters meanwhile.
//! 2. What FROM stands for is replaced by one relation, [`RETURNED`]: for each changed row the row
//!    itself, the columns that FROM or USING have joined to it and, where the list asks for it,
//!    the row as it was before.
//! 3. The statement's own query gives the joined columns beside the rows to change
//!    ([`add_joined`]); both plans have the same FROM, so the columns come in the same order.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DataFusionError, ScalarValue};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{
    Distinct, DistinctOn, Expr as LogicalExpr, LogicalPlan, LogicalPlanBuilder, Projection,
};
use datafusion::sql::sqlparser::ast::{
    self, Expr, Ident, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, TableFactor,
    TableWithJoins, Value, ValueWithSpan, Visit, VisitMut, Visitor, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::catalog::object::{Object, ObjectName};
use crate::sql::bind::{PlanContext, ResolvedQuery};
use crate::sql::coerce::plain_cast;
use crate::sql::dml::build::{has_subquery, query_of, quoted};
use crate::sql::errors::locate;
use crate::sql::parse::name::normalize;
use crate::sql::query::PlannedQuery;
use crate::sql::resolve::{CatalogSource, external};
use crate::sql::rewrite::rewrite_query;
use crate::sql::schema::repeated_name;
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;
use crate::types::sql_type::SqlType;

/// Stands for the changed rows in the query of [`PlannedReturning`].
pub const RETURNED: ObjectId = ObjectId(u64::MAX - 1);
const RETURNED_NAME: &str = "returned";

/// RETURNING as a query over [`RETURNED`].
#[derive(Clone)]
pub struct PlannedReturning {
    pub query: PlannedQuery,
    /// Columns of [`RETURNED`].
    schema: SchemaRef,
    /// The rows as they were stand behind the others.
    pub wants_old: bool,
}

impl PlannedReturning {
    /// The rows of [`RETURNED`]: the changed ones with the columns that were joined to them, and
    /// the rows as they were, NULL where nothing was, when they are wanted.
    ///
    /// # Errors
    /// When the columns are not those that were planned.
    pub fn rows(
        &self,
        changed: &RecordBatch,
        joined: &[ArrayRef],
        old: Option<&RecordBatch>,
    ) -> Result<RecordBatch> {
        let mut columns = changed.columns().to_vec();
        columns.extend_from_slice(joined);
        if self.wants_old {
            match old {
                Some(old) => columns.extend_from_slice(old.columns()),
                None => columns.extend(
                    (self.schema.fields().iter().skip(columns.len()))
                        .map(|field| new_null_array(field.data_type(), changed.num_rows()))
                        .collect::<Vec<_>>(),
                ),
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(changed.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }

    pub(super) fn bind_parameters(self, values: &[ArrayRef]) -> Result<PlannedReturning> {
        Ok(PlannedReturning { query: self.query.bind_parameters(values)?, ..self })
    }
}

/// What `old` or `new` stands for in a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// The row that the statement wrote or deleted.
    Changed,
    /// The row as it was before.
    Old,
    /// There is none: the columns are NULL.
    Missing,
    /// The statement does not know it.
    Unknown,
}

/// The statement around a RETURNING.
pub(super) struct Changes<'a> {
    pub object: &'a Arc<Object>,
    /// The changed table, then the tables behind FROM or USING.
    pub from: Vec<TableWithJoins>,
    /// The columns that these have beside the changed table's, as the statement's query gives
    /// them.
    pub joined: &'a [arrow::datatypes::FieldRef],
    pub old: Version,
    pub new: Version,
}

impl PlanContext {
    /// Plans RETURNING.
    pub(super) fn plan_returning(
        &self,
        items: Option<&[SelectItem]>,
        changes: Changes,
        parameters: &[SqlType],
    ) -> Result<Option<PlannedReturning>> {
        let Some(items) = items else { return Ok(None) };
        if items.iter().any(has_subquery) {
            return Err(Error::unsupported("a subquery in RETURNING")
                .hint("Read what it gives with a SELECT in the same transaction."));
        }
        let mut items = items.to_vec();
        let first = parameters.len().max(highest_parameter(&items));
        let versions = Versions::replace(&mut items, &changes, first)?;
        let wants_old = versions.columns.iter().any(|(version, _)| *version == Version::Old);
        let returned = returned_object(&changes, wants_old);
        let mut query = query_of(vec![], changes.from.clone(), None);
        if let SetExpr::Select(select) = query.body.as_mut() {
            select.projection = items;
        }
        let mut declared: Vec<_> = parameters.iter().cloned().map(Some).collect();
        declared.resize(first, None);
        let fields = changes.object.schema.fields();
        declared.extend(versions.columns.iter().map(|(_, c)| SqlType::of_field(&fields[*c])));
        let rewritten = rewrite_query(&query, &declared)?;
        let planned = self.plan_with_parameters(&rewritten.tree, rewritten.parameters, &[]);
        let planned = planned.and_then(|resolved| {
            let own = fields.len();
            let plan = over_returned(resolved.plan, &returned, own + changes.joined.len())?;
            let plan = versions.resolve(plan, own + changes.joined.len())?;
            let parameters = resolved.parameters.into_iter().take(first).collect();
            self.finish(ResolvedQuery { plan, parameters, depends_on: resolved.depends_on })
        });
        let query = planned.map_err(|error| locate(error, &self.sql, &query))?;
        Ok(Some(PlannedReturning { query, schema: returned.schema.clone(), wants_old }))
    }
}

/// Whether a select list may read the rows as they were.
pub(super) fn mentions_old(items: &Vec<SelectItem>) -> bool {
    struct Finder;
    impl Visitor for Finder {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::CompoundIdentifier(parts) if normalize(&parts[0]) == "old" => {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    let wildcard = items.iter().any(|item| match item {
        SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
            name.0.first().and_then(|part| part.as_ident()).is_some_and(|i| normalize(i) == "old")
        }
        _ => false,
    });
    wildcard || Visit::visit(items, &mut Finder).is_break()
}

/// The highest number of a parameter among the items.
fn highest_parameter(items: &Vec<SelectItem>) -> usize {
    struct Finder(usize);
    impl Visitor for Finder {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if let Expr::Value(ValueWithSpan { value: Value::Placeholder(text), .. }) = expr {
                let number = text.strip_prefix('$').and_then(|n| n.parse().ok());
                // What is beyond any number of parameters is refused when it is rewritten.
                self.0 = self.0.max(number.unwrap_or(0)).min(usize::from(u16::MAX));
            }
            ControlFlow::Continue(())
        }
    }
    let mut finder = Finder(0);
    let _ = Visit::visit(items, &mut finder);
    finder.0
}

/// The relation of the changed rows; its columns are called by their places.
fn returned_object(changes: &Changes, wants_old: bool) -> Arc<Object> {
    let own = changes.object.schema.fields();
    let old: &[_] = if wants_old { own } else { &[] };
    let fields = own.iter().chain(changes.joined).chain(old).enumerate();
    let fields = fields.map(|(place, field)| {
        field.as_ref().clone().with_name(returned_column(place)).with_nullable(true)
    });
    let mut object = Object {
        id: RETURNED,
        name: ObjectName { name: RETURNED_NAME.to_owned(), ..changes.object.name.clone() },
        schema: Arc::new(Schema::new(fields.collect::<Vec<Field>>())),
        ..changes.object.as_ref().clone()
    };
    if let crate::catalog::object::ObjectKind::Table(table) = &mut object.kind {
        table.primary_key.clear();
    }
    Arc::new(object)
}

fn returned_column(place: usize) -> String {
    format!("c{place}")
}

/// Step 2: the select list over the first `width` columns of [`RETURNED`] in the place of FROM;
/// its other columns can be reached under their own names.
fn over_returned(
    plan: LogicalPlan,
    returned: &Arc<Object>,
    width: usize,
) -> Result<LogicalPlan, DataFusionError> {
    let LogicalPlan::Projection(list) = plan else {
        return Err(DataFusionError::Internal("a select list without a projection".to_owned()));
    };
    match list.input.as_ref() {
        LogicalPlan::Aggregate(_) => {
            return Err(not_allowed(SqlState::GROUPING_ERROR, "aggregate functions"));
        }
        LogicalPlan::Window(_) => {
            return Err(not_allowed(SqlState::WINDOWING_ERROR, "window functions"));
        }
        LogicalPlan::Unnest(_) => {
            return Err(not_allowed(SqlState::FEATURE_NOT_SUPPORTED, "set-returning functions"));
        }
        _ => {}
    }
    let names = list.input.schema().clone();
    if names.fields().len() != width {
        return Err(DataFusionError::Internal(format!(
            "RETURNING over {} columns instead of {width}",
            names.fields().len()
        )));
    }
    let source = Arc::new(CatalogSource::of_rows(returned.clone()));
    let scan = LogicalPlanBuilder::scan(RETURNED_NAME, source, None)?.build()?;
    let mut columns = vec![];
    for (place, column) in scan.schema().columns().into_iter().enumerate() {
        let held = returned.schema.field(place).data_type();
        let column = LogicalExpr::Column(column);
        columns.push(match names.iter().nth(place) {
            Some((qualifier, field)) => {
                let typed = if field.data_type() == held {
                    column
                } else {
                    plain_cast(column, field.data_type().clone())
                };
                typed.alias_qualified(qualifier.cloned(), field.name())
            }
            None => column,
        });
    }
    let input = LogicalPlanBuilder::from(scan).project(columns)?.build()?;
    Ok(LogicalPlan::Projection(Projection::try_new(list.expr, Arc::new(input))?))
}

fn not_allowed(sqlstate: SqlState, what: &str) -> DataFusionError {
    external(Error::user(sqlstate, format!("{what} are not allowed in RETURNING")))
}

/// Step 3: the columns of everything in FROM but its first `own` ones, behind the query's own.
/// Their types are told by the finished query.
pub(super) fn add_joined(plan: LogicalPlan, own: usize) -> Result<LogicalPlan, DataFusionError> {
    let joined = |input: &LogicalPlan| -> Vec<LogicalExpr> {
        let columns = input.schema().columns().into_iter().skip(own).enumerate();
        columns
            .map(|(place, column)| LogicalExpr::Column(column).alias(format!("__joined_{place}")))
            .collect()
    };
    match plan {
        LogicalPlan::Projection(mut list) => {
            list.expr.extend(joined(&list.input));
            Ok(LogicalPlan::Projection(Projection::try_new(list.expr, list.input)?))
        }
        LogicalPlan::Distinct(Distinct::On(mut list)) => {
            list.select_expr.extend(joined(&list.input));
            let DistinctOn { on_expr, select_expr, sort_expr, input, .. } = list;
            let list = DistinctOn::try_new(on_expr, select_expr, sort_expr, input)?;
            Ok(LogicalPlan::Distinct(Distinct::On(list)))
        }
        _ => Err(DataFusionError::Internal("changes without a select list".to_owned())),
    }
}

/// `old.x` and `new.x`, each of which is a parameter while the list is planned.
struct Versions {
    /// What each is of, and its column; the first one's parameter is `first`, counted from 0.
    columns: Vec<(Version, usize)>,
    first: usize,
}

impl Versions {
    fn replace(items: &mut Vec<SelectItem>, changes: &Changes, first: usize) -> Result<Versions> {
        let mut taken = vec![];
        changes.from.iter().for_each(|table| relation_names(table, &mut taken));
        // A table of that name is meant before the row's version.
        let known = [("old", changes.old), ("new", changes.new)];
        let known = known.into_iter().filter(|(name, _)| !taken.iter().any(|t| t == name));
        let mut replacer = Replacer {
            object: changes.object,
            known: known.collect(),
            versions: Versions { columns: vec![], first },
        };
        let mut replaced = Vec::with_capacity(items.len());
        for item in items.drain(..) {
            replacer.item(item, &mut replaced)?;
        }
        *items = replaced;
        Ok(replacer.versions)
    }

    /// Columns of [`RETURNED`] in the place of the parameters; the old row begins at `old`.
    fn resolve(&self, plan: LogicalPlan, old: usize) -> Result<LogicalPlan, DataFusionError> {
        if self.columns.is_empty() {
            return Ok(plan);
        }
        let LogicalPlan::Projection(list) = plan else { return Ok(plan) };
        let columns = list.input.schema().columns();
        let column_of = |id: &str| -> Option<LogicalExpr> {
            let number: usize = id.strip_prefix('$')?.parse().ok()?;
            let (version, column) = self.columns.get(number.checked_sub(1 + self.first)?)?;
            let column: Column = match version {
                Version::Changed => columns.get(*column)?.clone(),
                Version::Old => columns.get(old + *column)?.clone(),
                Version::Missing | Version::Unknown => return None,
            };
            Some(LogicalExpr::Column(column))
        };
        let expr = list.expr.into_iter().map(|expr| {
            let replaced = expr.transform_up(|expr| match &expr {
                LogicalExpr::Placeholder(Placeholder { id, field }) => match column_of(id) {
                    Some(column) => Ok(Transformed::yes(column)),
                    None if self.is_missing(id) => {
                        let data_type = field.as_ref().map(|field| field.data_type());
                        let null = match data_type {
                            Some(data_type) => ScalarValue::try_from(data_type)?,
                            None => ScalarValue::Null,
                        };
                        let metadata = field.as_ref().map(|field| field.metadata().clone().into());
                        Ok(Transformed::yes(LogicalExpr::Literal(null, metadata)))
                    }
                    None => Ok(Transformed::no(expr)),
                },
                _ => Ok(Transformed::no(expr)),
            });
            replaced.map(|replaced| replaced.data)
        });
        let expr = expr.collect::<Result<Vec<_>, _>>()?;
        Ok(LogicalPlan::Projection(Projection::try_new(expr, list.input)?))
    }

    fn is_missing(&self, id: &str) -> bool {
        let number = id.strip_prefix('$').and_then(|n| n.parse::<usize>().ok());
        let version = number.and_then(|n| self.columns.get(n.checked_sub(1 + self.first)?));
        version.is_some_and(|(version, _)| *version == Version::Missing)
    }
}

/// Puts parameters in the place of `old.x` and `new.x`.
struct Replacer<'a> {
    object: &'a Object,
    known: Vec<(&'static str, Version)>,
    versions: Versions,
}

impl Replacer<'_> {
    fn item(&mut self, mut item: SelectItem, items: &mut Vec<SelectItem>) -> Result<()> {
        if let SelectItem::QualifiedWildcard(kind, _) = &item
            && let SelectItemQualifiedWildcardKind::ObjectName(name) = kind
            && let [part] = name.0.as_slice()
            && let Some(version) = part.as_ident().and_then(|ident| self.version(ident))
        {
            for column in 0..self.object.schema.fields().len() {
                let expr = self.parameter(version, column)?;
                let alias = self.alias(self.object.schema.field(column).name());
                items.push(SelectItem::ExprWithAlias { expr, alias });
            }
            return Ok(());
        }
        let name = match &item {
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last().cloned(),
            _ => None,
        };
        let before = self.versions.columns.len();
        if let ControlFlow::Break(error) = VisitMut::visit(&mut item, self) {
            return Err(error);
        }
        // It is called as its column.
        match (item, name) {
            (SelectItem::UnnamedExpr(expr), Some(column))
                if self.versions.columns.len() > before =>
            {
                let alias = self.alias(&normalize(&column));
                items.push(SelectItem::ExprWithAlias { expr, alias });
            }
            (item, _) => items.push(item),
        }
        Ok(())
    }

    fn version(&self, ident: &Ident) -> Option<Version> {
        let name = normalize(ident);
        self.known.iter().find(|(known, _)| *known == name).map(|(_, version)| *version)
    }

    /// The name of the column that was put in last, which others may have, too.
    fn alias(&self, name: &str) -> Ident {
        const FIRST: usize = 1000;
        quoted(&repeated_name(name, FIRST + self.versions.columns.len()))
    }

    fn parameter(&mut self, version: Version, column: usize) -> Result<Expr> {
        if version == Version::Unknown {
            return Err(Error::unsupported("RETURNING old of rows that the table overwrites")
                .hint("Say ON CONFLICT ... DO UPDATE in the statement."));
        }
        self.versions.columns.push((version, column));
        let number = self.versions.first + self.versions.columns.len();
        let value = Value::Placeholder(format!("${number}"));
        Ok(Expr::Value(ValueWithSpan { value, span: Span::empty() }))
    }
}

impl VisitorMut for Replacer<'_> {
    type Break = Error;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        let Expr::CompoundIdentifier(parts) = &*expr else { return ControlFlow::Continue(()) };
        let [relation, column] = parts.as_slice() else { return ControlFlow::Continue(()) };
        let Some(version) = self.version(relation) else { return ControlFlow::Continue(()) };
        let (relation, column) = (normalize(relation), normalize(column));
        let Some((place, _)) = self.object.column(&column) else {
            return ControlFlow::Break(Error::user(
                SqlState::UNDEFINED_COLUMN,
                format!("column {relation}.{column} does not exist"),
            ));
        };
        match self.parameter(version, place) {
            Ok(parameter) => *expr = parameter,
            Err(error) => return ControlFlow::Break(error),
        }
        ControlFlow::Continue(())
    }
}

/// The names that columns can be qualified with.
fn relation_names(table: &TableWithJoins, names: &mut Vec<String>) {
    let joined = table.joins.iter().map(|join| &join.relation);
    for factor in std::iter::once(&table.relation).chain(joined) {
        let (name, alias) = match factor {
            TableFactor::Table { name, alias, .. } => {
                (name.0.last().and_then(|part| part.as_ident()), alias)
            }
            TableFactor::NestedJoin { table_with_joins, alias } => {
                relation_names(table_with_joins, names);
                (None, alias)
            }
            TableFactor::Derived { alias, .. }
            | TableFactor::Function { alias, .. }
            | TableFactor::UNNEST { alias, .. } => (None, alias),
            _ => (None, &None),
        };
        names.extend(alias.as_ref().map(|alias| &alias.name).or(name).map(normalize));
    }
}

/// `SELECT *, row_number() OVER () AS "__row" FROM table` as `alias`: rows that can be told apart
/// within one statement, also where the table has no key.
pub(super) fn numbered_rows(table: TableWithJoins, alias: Ident) -> TableWithJoins {
    let mut number = crate::sql::rewrite::call("row_number", vec![]);
    if let Expr::Function(function) = &mut number {
        function.over = Some(ast::WindowType::WindowSpec(ast::WindowSpec {
            window_name: None,
            partition_by: vec![],
            order_by: vec![],
            window_frame: None,
        }));
    }
    let mut query = query_of(vec![], vec![table], None);
    if let SetExpr::Select(select) = query.body.as_mut() {
        select.projection = vec![
            SelectItem::Wildcard(ast::WildcardAdditionalOptions::default()),
            SelectItem::ExprWithAlias { expr: number, alias: quoted(ROW_NUMBER) },
        ];
    }
    let alias = Some(ast::TableAlias { explicit: true, name: alias, columns: vec![], at: None });
    let subquery = Box::new(query);
    let relation = TableFactor::Derived { lateral: false, subquery, alias, sample: None };
    TableWithJoins { relation, joins: vec![] }
}

/// What [`numbered_rows`] adds.
pub(super) const ROW_NUMBER: &str = "__row";
