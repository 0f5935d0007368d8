//! Derived tables within correlated subqueries: `FROM (SELECT x FROM b WHERE b.k = a.k) AS d`.
//!
//! DataFusion moves conditions that look outside up to a join, and on the way past the name of a
//! derived table it loses the columns that they compare. So the conditions of a derived table that
//! look outside, where all of them are equalities, are taken out of it (`limited::free`) and stand
//! above its name; what they compare are columns of it that nobody else sees. What else looks
//! outside from below such a name is for `dependent.rs`.

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};

use crate::sql::limited::{Names, free, looks_outside};

/// Conditions of derived tables that look outside stand above them.
pub fn lift_conditions(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut names = Names { prefix: "derived key", count: 0 };
    let lifted = plan.transform_up_with_subqueries(|node| match &node {
        LogicalPlan::SubqueryAlias(alias) if looks_outside(&alias.input)? => {
            let Some(freed) = free(&node, &mut names)? else { return Ok(Transformed::no(node)) };
            let keys = freed.keys.into_iter();
            let Some(condition) = conjunction(keys.map(|(key, out)| Expr::Column(key).eq(out)))
            else {
                return Ok(Transformed::no(node));
            };
            let own = node.schema().columns().into_iter().map(Expr::Column);
            let plan = LogicalPlanBuilder::from(freed.plan).filter(condition)?.project(own)?;
            Ok(Transformed::yes(plan.build()?))
        }
        _ => Ok(Transformed::no(node)),
    })?;
    Ok(lifted.data)
}
