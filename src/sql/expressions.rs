//! Logical expressions to compiled ones.

use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr as LogicalExpr, ExprSchemable};
use datafusion::physical_expr::create_physical_expr;

use crate::plan::expr::Expr;
use crate::types::error::{Error, Result, SqlState};

/// Compiles a typed expression over the columns of `schema`.
pub fn compile(expr: &LogicalExpr, schema: &DFSchema) -> Result<Expr> {
    let (_, field) = expr.to_field(schema).map_err(Error::from)?;
    let physical = create_physical_expr(
        expr,
        schema,
        &ExecutionProps::new(),
        &PhysicalPlanningContext::default(),
    )
    .map_err(Error::from)?;
    Ok(Expr::new(physical, field.data_type().clone(), field.is_nullable()))
}

/// Refuses what only a query can have.
///
/// # Errors
/// SQLSTATE 0A000 for a subquery, 42803 for an aggregate, 42P20 for a window function.
pub fn reject_relational(expr: &LogicalExpr) -> Result<()> {
    let mut found = Ok(());
    expr.apply(|e| {
        found = match e {
            LogicalExpr::ScalarSubquery(_)
            | LogicalExpr::InSubquery(_)
            | LogicalExpr::Exists(_)
            | LogicalExpr::SetComparison(_) => Err(Error::user(
                SqlState::FEATURE_NOT_SUPPORTED,
                "cannot use subquery in this expression",
            )),
            LogicalExpr::AggregateFunction(_) => Err(Error::user(
                SqlState::GROUPING_ERROR,
                "aggregate functions are not allowed in this expression",
            )),
            LogicalExpr::WindowFunction(_) => Err(Error::user(
                SqlState::WINDOWING_ERROR,
                "window functions are not allowed in this expression",
            )),
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        Ok(TreeNodeRecursion::Stop)
    })
    .map_err(Error::from)?;
    found
}
