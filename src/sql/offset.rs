//! OFFSET without LIMIT, in a batch: rows by their number.
//!
//! DataFusion takes the sort below such an OFFSET for needless when another sort stands above:
//! `SELECT * FROM (SELECT * FROM t ORDER BY a OFFSET 1) x ORDER BY b` would leave out any row. So
//! the rows are numbered, and a filter keeps those behind the offset.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, Result};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, FetchType, LogicalPlan, LogicalPlanBuilder, Projection, SkipType,
    SubqueryAlias, lit,
};

const PLACE: &str = "place before the offset";

/// Every OFFSET without LIMIT over sorted rows becomes a condition on their number.
pub fn number_offsets(plan: LogicalPlan) -> Result<LogicalPlan> {
    let numbered = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Limit(limit) = &node else { return Ok(Transformed::no(node)) };
        let (SkipType::Literal(skip), FetchType::Literal(None)) =
            (limit.get_skip_type()?, limit.get_fetch_type()?)
        else {
            return Ok(Transformed::no(node));
        };
        match behind(&limit.input, skip as u64)? {
            Some(plan) if skip > 0 => Ok(Transformed::yes(plan)),
            _ => Ok(Transformed::no(node)),
        }
    })?;
    Ok(numbered.data)
}

/// The rows of a sorted plan behind the first `skip`; `None` when it is not sorted at its top.
fn behind(plan: &LogicalPlan, skip: u64) -> Result<Option<LogicalPlan>> {
    Ok(match plan {
        LogicalPlan::Projection(projection) => behind(&projection.input, skip)?
            .map(|input| Projection::try_new(projection.expr.clone(), Arc::new(input)))
            .transpose()?
            .map(LogicalPlan::Projection),
        LogicalPlan::SubqueryAlias(alias) => behind(&alias.input, skip)?
            .map(|input| SubqueryAlias::try_new(Arc::new(input), alias.alias.clone()))
            .transpose()?
            .map(LogicalPlan::SubqueryAlias),
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => {
            let columns: Vec<Expr> =
                sort.input.schema().columns().into_iter().map(Expr::Column).collect();
            let place = row_number().order_by(sort.expr.clone()).build()?.alias(PLACE);
            let plan = LogicalPlanBuilder::from(sort.input.as_ref().clone())
                .window([place])?
                .filter(Expr::Column(Column::from_name(PLACE)).gt(lit(skip)))?
                .project(columns)?
                .sort(sort.expr.clone())?
                .build()?;
            Some(plan)
        }
        _ => None,
    })
}
