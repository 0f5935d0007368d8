//! Values to columns: what INSERT, UPDATE and COPY put into a table's row.
//!
//! A given value is cast to its column where Postgres assigns without asking; a column without a
//! value gets its default, or NULL; a generated column is computed from the other new values.

use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, ScalarValue, TableReference};
use datafusion::logical_expr::{Expr as LogicalExpr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::planner::{PlannerContext, SqlToRel};
use datafusion::sql::sqlparser::ast;

use crate::catalog::object::{Object, ObjectKind, TableObject};
use crate::sql::bind::PlanContext;
use crate::sql::coerce;
use crate::sql::dml::RowCompletion;
use crate::sql::errors::locate;
use crate::sql::expressions::{compile, reject_relational};
use crate::sql::parse::parse_expression;
use crate::sql::query::PlannedQuery;
use crate::sql::resolve::{Resolver, external};
use crate::sql::returning::add_joined;
use crate::sql::rewrite::{rewrite_expr, rewrite_query};
use crate::sql::schema::repeated_name;
use crate::types::error::{Error, Result};
use crate::types::sql_type::SqlType;

/// Where a column's value comes from.
#[derive(Clone, Copy, Debug)]
pub enum ColumnValue {
    /// The column of the query at this place.
    Input(usize),
}

/// One row of a table in the result of a statement's query.
pub struct AssignedRow {
    object: Arc<Object>,
    /// Columns that values are given for.
    given: Vec<(usize, ColumnValue)>,
    /// The row as it is in the table: nothing is computed.
    as_is: bool,
}

impl AssignedRow {
    /// A new row.
    pub fn new(object: Arc<Object>, given: Vec<(usize, ColumnValue)>) -> AssignedRow {
        AssignedRow { object, given, as_is: false }
    }

    /// A row that exists; every column is given.
    pub fn as_is(object: Arc<Object>, given: Vec<(usize, ColumnValue)>) -> AssignedRow {
        AssignedRow { object, given, as_is: true }
    }
}

impl PlanContext {
    /// Plans a query and puts its columns into rows of tables; `rows` says which, from the
    /// query's own columns. `extra` are relations beside the catalog's. What FROM has behind its
    /// first `joined` columns comes behind the rows.
    pub(super) fn plan_assigned(
        &self,
        query: &ast::Query,
        parameter_types: &[Option<SqlType>],
        extra: &[Arc<Object>],
        joined: Option<usize>,
        rows: impl FnOnce(&[FieldRef]) -> Result<Vec<AssignedRow>>,
    ) -> Result<PlannedQuery> {
        let rewritten = rewrite_query(query, parameter_types)?;
        let planned = self
            .plan_with_parameters(&rewritten.tree, rewritten.parameters, extra)
            .and_then(|mut planned| {
                let own = planned.plan.schema().fields().len();
                let rows = rows(planned.plan.schema().fields()).map_err(external)?;
                if let Some(joined) = joined {
                    planned.plan = add_joined(planned.plan, joined)?;
                }
                planned.plan = self.project_rows(planned.plan, &rows, own)?;
                self.finish(planned)
            });
        planned.map_err(|error| locate(error, &self.sql, query))
    }

    /// The rows, and what `plan` has behind its first `own` columns.
    fn project_rows(
        &self,
        plan: LogicalPlan,
        rows: &[AssignedRow],
        own: usize,
    ) -> Result<LogicalPlan, DataFusionError> {
        let schema = plan.schema().clone();
        let inputs: Vec<LogicalExpr> =
            schema.columns().into_iter().map(LogicalExpr::Column).collect();
        let mut projection = vec![];
        for (index, row) in rows.iter().enumerate() {
            let fields = row.object.schema.fields();
            let values = if row.as_is {
                row.given.iter().map(|(_, ColumnValue::Input(i))| inputs[*i].clone()).collect()
            } else {
                let given =
                    row.given.iter().map(|(c, ColumnValue::Input(i))| (*c, inputs[*i].clone()));
                self.row_values(&row.object, &schema, given.collect()).map_err(external)?
            };
            for (value, field) in values.into_iter().zip(fields) {
                let name = field.name().as_str();
                let name =
                    if index == 0 { name.to_owned() } else { repeated_name(name, index + 1) };
                projection.push(value.alias(name));
            }
        }
        projection.extend(inputs.into_iter().skip(own));
        LogicalPlanBuilder::from(plan).project(projection)?.build()
    }

    /// One expression per column of the table, over `schema`, which has the given values.
    fn row_values(
        &self,
        object: &Object,
        schema: &DFSchema,
        given: Vec<(usize, LogicalExpr)>,
    ) -> Result<Vec<LogicalExpr>> {
        let table = table_of(object)?;
        let mut values = Vec::with_capacity(object.schema.fields().len());
        for (index, field) in object.schema.fields().iter().enumerate() {
            let value = match given.iter().find(|(column, _)| *column == index) {
                Some((_, value)) => coerce::assign(value.clone(), schema, field)?,
                None => self.default_value(table, index, field)?,
            };
            values.push(value);
        }
        let name = TableReference::bare(object.name.name.as_str());
        let own = DFSchema::try_from_qualified_schema(name, &object.schema).map_err(Error::from)?;
        for (index, field) in object.schema.fields().iter().enumerate() {
            if let Some(sql) = &table.generated[index] {
                let expr = self.plan_raw_expr(&parse_expression(sql)?, &own)?;
                let expr = coerce::assign(expr, &own, field)?;
                values[index] = over_values(expr, &own, &values)?;
            }
        }
        Ok(values)
    }

    fn default_value(
        &self,
        table: &TableObject,
        index: usize,
        field: &Field,
    ) -> Result<LogicalExpr> {
        let nothing = DFSchema::empty();
        let default = match &table.defaults[index] {
            Some(sql) if table.generated[index].is_none() => {
                self.plan_raw_expr(&parse_expression(sql)?, &nothing)?
            }
            _ => LogicalExpr::Literal(ScalarValue::Null, None),
        };
        coerce::assign(default, &nothing, field)
    }

    /// A scalar expression with its names resolved, and no more.
    pub(super) fn plan_raw_expr(&self, expr: &ast::Expr, schema: &DFSchema) -> Result<LogicalExpr> {
        let rewritten = rewrite_expr(expr, &[])?;
        let resolver = Resolver::new(self, 0, &[]);
        let planned = SqlToRel::new(&resolver).sql_to_expr(
            rewritten.tree,
            schema,
            &mut PlannerContext::new(),
        );
        let logical = planned.map_err(|error| locate(error, &self.sql, expr))?;
        reject_relational(&logical)?;
        Ok(logical)
    }

    /// Whole rows of a table from some of its columns.
    pub(super) fn complete_row(
        &self,
        object: &Arc<Object>,
        columns: &[usize],
    ) -> Result<RowCompletion> {
        let fields: Vec<Field> = columns
            .iter()
            .map(|column| object.schema.field(*column).clone().with_nullable(true))
            .collect();
        let input = Arc::new(Schema::new(fields));
        let schema = DFSchema::try_from(input.clone()).map_err(Error::from)?;
        let given = columns
            .iter()
            .zip(schema.columns())
            .map(|(column, input)| (*column, LogicalExpr::Column(input)))
            .collect();
        let settings = self.cast_settings()?;
        let columns = self
            .row_values(object, &schema, given)?
            .into_iter()
            .map(|value| {
                let value = coerce::coerce_expr(value, &schema, &settings);
                let value = value.and_then(|v| coerce::bind_now(v, self.now));
                compile(&value.map_err(Error::from)?, &schema)
            })
            .collect::<Result<_>>()?;
        Ok(RowCompletion { input, columns })
    }
}

fn table_of(object: &Object) -> Result<&TableObject> {
    match &object.kind {
        ObjectKind::Table(table) => Ok(table),
        _ => Err(Error::internal(format!("{} is not a table", object.name.name))),
    }
}

/// An expression over a table's columns with these values in their places.
fn over_values(expr: LogicalExpr, table: &DFSchema, values: &[LogicalExpr]) -> Result<LogicalExpr> {
    let replaced = expr.transform_up(|e| match &e {
        LogicalExpr::Column(column) => {
            Ok(Transformed::yes(values[table.index_of_column(column)?].clone()))
        }
        _ => Ok(Transformed::no(e)),
    });
    Ok(replaced.map_err(Error::from)?.data)
}
