//! LIMIT in correlated subqueries: the first rows for each row outside.
//!
//! DataFusion makes a correlated subquery a join by moving the conditions that look outside up to
//! the top, past which a LIMIT must not go. Where these conditions say that something inside equals
//! something outside (`WHERE o.customer = c.id ORDER BY o.at DESC LIMIT 3`), the rows for one row
//! outside are those of one partition:
//!
//! 1. The conditions are taken out of the filters below the LIMIT; what they compare stands in
//!    further columns, up to the LIMIT.
//! 2. `row_number() OVER (PARTITION BY these columns ORDER BY ...)` counts; a filter keeps the
//!    numbers that LIMIT and OFFSET ask for, and compares the columns with what is outside.
//!
//! Other subqueries are left as they are, for `dependent.rs`.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    BinaryExpr, Distinct, Expr, ExprFunctionExt, FetchType, JoinType, Limit, LogicalPlan,
    LogicalPlanBuilder, Operator, SkipType, SortExpr, lit,
};

const PLACE: &str = "place in the subquery";

/// A plan without its conditions that look outside.
pub struct Freed {
    pub plan: LogicalPlan,
    /// Columns of the plan, and what they equal outside.
    pub keys: Vec<(Column, Expr)>,
}

/// Names of columns that a plan gets; what is made for one purpose has names of its own.
pub struct Names {
    pub prefix: &'static str,
    pub count: usize,
}

impl Names {
    fn next(&mut self) -> String {
        self.count += 1;
        format!("{} {}", self.prefix, self.count)
    }
}

/// LIMITs over conditions that look outside become conditions on a number.
pub fn number_limited_subqueries(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut names = Names { prefix: "correlation", count: 0 };
    let numbered = plan.transform_up_with_subqueries(|node| {
        if let LogicalPlan::Limit(limit) = &node
            && looks_outside(&limit.input)?
            && let Some(numbered) = number(limit, &mut names)?
        {
            return Ok(Transformed::yes(numbered));
        }
        Ok(Transformed::no(node))
    })?;
    Ok(numbered.data)
}

/// Whether some expression of a plan refers to a column outside.
pub fn looks_outside(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply(|node| {
        found |= node.expressions().iter().any(Expr::contains_outer);
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

fn number(limit: &Limit, names: &mut Names) -> Result<Option<LogicalPlan>> {
    let (SkipType::Literal(skip), FetchType::Literal(fetch)) =
        (limit.get_skip_type()?, limit.get_fetch_type()?)
    else {
        return Ok(None);
    };
    // Projections above the sort drop what is only sorted by.
    let mut above: Vec<&LogicalPlan> = vec![];
    let mut below = &*limit.input;
    let order_by: &[SortExpr] = loop {
        match below {
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => {
                below = &sort.input;
                break &sort.expr;
            }
            LogicalPlan::Projection(projection) if sorts(&projection.input) => {
                above.push(below);
                below = &projection.input;
            }
            LogicalPlan::SubqueryAlias(alias) if sorts(&alias.input) => {
                above.push(below);
                below = &alias.input;
            }
            _ => break &[],
        }
    };
    let looks = |expr: &Expr| expr.contains_outer();
    if order_by.iter().any(|sort| looks(&sort.expr))
        || above.iter().any(|node| node.expressions().iter().any(looks))
    {
        return Ok(None);
    }
    let Some(freed) = free(below, names)? else { return Ok(None) };
    if freed.keys.is_empty() {
        return Ok(None);
    }
    let own: Vec<Expr> = below.schema().columns().into_iter().map(Expr::Column).collect();
    let keys: Vec<Expr> = freed.keys.iter().map(|(key, _)| Expr::Column(key.clone())).collect();
    let place = row_number().partition_by(keys);
    let place = match order_by.is_empty() {
        // Which rows come first is nobody's business.
        true => place.build()?.alias(PLACE),
        false => place.order_by(order_by.to_vec()).build()?.alias(PLACE),
    };
    let number = || Expr::Column(Column::from_name(PLACE));
    let skip = skip as u64;
    let mut conditions: Vec<Expr> = vec![];
    if let Some(fetch) = fetch {
        conditions.push(number().lt_eq(lit(skip.saturating_add(fetch as u64))));
    }
    if skip > 0 {
        conditions.push(number().gt(lit(skip)));
    }
    conditions.extend(freed.keys.into_iter().map(|(key, outside)| Expr::Column(key).eq(outside)));
    let mut plan = LogicalPlanBuilder::from(freed.plan).window([place])?;
    if let Some(condition) = conjunction(conditions) {
        plan = plan.filter(condition)?;
    }
    let mut plan = plan.project(own)?.build()?;
    for node in above.into_iter().rev() {
        plan = node.with_new_exprs(node.expressions(), vec![plan])?;
    }
    Ok(Some(plan))
}

/// Whether a plan is a sort, or only computes columns above one.
fn sorts(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Projection(projection) => sorts(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => sorts(&alias.input),
        _ => false,
    }
}

/// Takes the conditions that look outside out of a plan; `None` when one of them is no equality, or
/// stands where it cannot be taken out.
pub fn free(plan: &LogicalPlan, names: &mut Names) -> Result<Option<Freed>> {
    if !looks_outside(plan)? {
        return Ok(Some(Freed { plan: plan.clone(), keys: vec![] }));
    }
    let outside_here = plan.expressions().iter().any(Expr::contains_outer);
    match plan {
        LogicalPlan::Filter(filter) => {
            let Some(mut freed) = free(&filter.input, names)? else { return Ok(None) };
            let (mut rest, mut columns) = (vec![], vec![]);
            for condition in split_conjunction(&filter.predicate) {
                if !condition.contains_outer() {
                    rest.push(condition.clone());
                    continue;
                }
                let Some((inside, outside)) = equality(condition) else { return Ok(None) };
                let name = names.next();
                columns.push(inside.clone().alias(name.clone()));
                freed.keys.push((Column::from_name(name), outside.clone()));
            }
            let mut builder = LogicalPlanBuilder::from(freed.plan);
            if let Some(condition) = conjunction(rest) {
                builder = builder.filter(condition)?;
            }
            if !columns.is_empty() {
                let own = builder.schema().columns().into_iter().map(Expr::Column);
                let all: Vec<Expr> = own.chain(columns).collect();
                builder = builder.project(all)?;
            }
            Ok(Some(Freed { plan: builder.build()?, keys: freed.keys }))
        }
        _ if outside_here => Ok(None),
        LogicalPlan::Projection(projection) => {
            let Some(freed) = free(&projection.input, names)? else { return Ok(None) };
            let mut exprs = projection.expr.clone();
            exprs.extend(freed.keys.iter().map(|(key, _)| Expr::Column(key.clone())));
            let plan = LogicalPlanBuilder::from(freed.plan).project(exprs)?.build()?;
            Ok(Some(Freed { plan, keys: freed.keys }))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let Some(freed) = free(&alias.input, names)? else { return Ok(None) };
            let keys = freed
                .keys
                .into_iter()
                .map(|(key, outside)| (Column::new(Some(alias.alias.clone()), key.name), outside));
            let keys = keys.collect();
            let plan = LogicalPlanBuilder::from(freed.plan).alias(alias.alias.clone())?.build()?;
            Ok(Some(Freed { plan, keys }))
        }
        LogicalPlan::Aggregate(aggregate) => {
            let sets = aggregate.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_)));
            // Without keys there is a row also where nothing is equal.
            if sets || aggregate.group_expr.is_empty() {
                return Ok(None);
            }
            let Some(freed) = free(&aggregate.input, names)? else { return Ok(None) };
            let mut groups = aggregate.group_expr.clone();
            groups.extend(freed.keys.iter().map(|(key, _)| Expr::Column(key.clone())));
            let plan = LogicalPlanBuilder::from(freed.plan)
                .aggregate(groups, aggregate.aggr_expr.clone())?
                .build()?;
            Ok(Some(Freed { plan, keys: freed.keys }))
        }
        LogicalPlan::Distinct(Distinct::All(input)) => {
            let Some(freed) = free(input, names)? else { return Ok(None) };
            let plan = LogicalPlan::Distinct(Distinct::All(Arc::new(freed.plan)));
            Ok(Some(Freed { plan, keys: freed.keys }))
        }
        LogicalPlan::Join(join) if join.join_type == JoinType::Inner => {
            let (Some(left), Some(right)) = (free(&join.left, names)?, free(&join.right, names)?)
            else {
                return Ok(None);
            };
            let plan = plan.with_new_exprs(plan.expressions(), vec![left.plan, right.plan])?;
            let keys = left.keys.into_iter().chain(right.keys).collect();
            Ok(Some(Freed { plan, keys }))
        }
        _ => Ok(None),
    }
}

/// The sides of an equality between something inside and something outside.
pub fn equality(condition: &Expr) -> Option<(&Expr, &Expr)> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else {
        return None;
    };
    let inside = |expr: &Expr| !expr.contains_outer();
    let outside = |expr: &Expr| expr.contains_outer() && expr.column_refs().is_empty();
    match (&**left, &**right) {
        (l, r) if inside(l) && outside(r) => Some((l, r)),
        (l, r) if outside(l) && inside(r) => Some((r, l)),
        _ => None,
    }
}
