//! Scalar subqueries that may give several rows: they count them.
//!
//! A subquery that is joined (every one in a dataflow, every correlated one) may give one row only,
//! and DataFusion asks for an aggregate where it cannot see that. So `(SELECT x FROM ...)` becomes
//! `single_row((SELECT struct(count(*), any_value(x)) FROM ...))`, which fails where Postgres does.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DataFusionError, Result};
use datafusion::functions::core::expr_fn::r#struct;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Subquery, lit};

use crate::functions::scalar::single_row::single_row;
use crate::sql::functions::FUNCTIONS;

/// Lets scalar subqueries count their rows where they may have several.
pub fn count_rows_of_subqueries(plan: LogicalPlan) -> Result<LogicalPlan> {
    let counted = plan.transform_up_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        let mapped = node.map_expressions(|expr| {
            let name = names.save(&expr);
            let counted = expr.transform_up(|e| match e {
                Expr::ScalarSubquery(subquery) if subquery.subquery.max_rows() != Some(1) => {
                    Ok(Transformed::yes(counted(subquery)?))
                }
                other => Ok(Transformed::no(other)),
            })?;
            Ok(counted.update_data(|e| name.restore(e)))
        })?;
        mapped.map_data(LogicalPlan::recompute_schema)
    })?;
    Ok(counted.data)
}

fn counted(subquery: Subquery) -> Result<Expr> {
    const ROWS: &str = "rows of the subquery";
    const VALUE: &str = "value of the subquery";
    let function = |name: &str| {
        let function = FUNCTIONS.aggregate.get(name);
        function.ok_or_else(|| DataFusionError::Internal(format!("there is no {name}()")))
    };
    let schema = subquery.subquery.schema().clone();
    let [field] = schema.fields().iter().as_slice() else {
        return Err(DataFusionError::Internal("a scalar subquery has one column".to_owned()));
    };
    let value = Expr::Column(Column::from(schema.qualified_field(0)));
    let plan = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone())
        .aggregate(
            Vec::<Expr>::new(),
            [
                function("count")?.call(vec![lit(1_i64)]).alias(ROWS),
                function("any_value")?.call(vec![value]).alias(VALUE),
            ],
        )?
        .project([r#struct(vec![
            Expr::Column(Column::from_name(ROWS)),
            Expr::Column(Column::from_name(VALUE)),
        ])])?
        .build()?;
    let subquery = subquery.with_plan(Arc::new(plan));
    Ok(single_row(field).call(vec![Expr::ScalarSubquery(subquery)]))
}
