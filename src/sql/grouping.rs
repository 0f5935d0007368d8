//! GROUPING SETS, ROLLUP and CUBE over expressions: these become columns below.
//!
//! DataFusion names what a list of keys gives by the expressions as they were written, and loses
//! them when types are coerced within the list. So `ROLLUP (a + 1)` becomes ROLLUP over a column of
//! a projection, also where `grouping(a + 1)` asks for it, and a projection above gives the names
//! that the expressions would have had.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::{
    Aggregate, Expr, GroupingSet, LogicalPlan, LogicalPlanBuilder, Projection,
};

/// Every list of keys names columns only.
pub fn group_by_columns(plan: LogicalPlan) -> Result<LogicalPlan> {
    let grouped = plan.transform_up_with_subqueries(|node| match &node {
        LogicalPlan::Aggregate(aggregate) => Ok(match over_columns(aggregate)? {
            Some(plan) => Transformed::yes(plan),
            None => Transformed::no(node),
        }),
        _ => Ok(Transformed::no(node)),
    })?;
    Ok(grouped.data)
}

fn over_columns(aggregate: &Aggregate) -> Result<Option<LogicalPlan>> {
    let [Expr::GroupingSet(sets)] = aggregate.group_expr.as_slice() else { return Ok(None) };
    let mut computed: Vec<(Expr, Expr)> = Vec::new();
    for expr in sets.distinct_expr() {
        let outer = expr.contains_outer() || expr.contains_scalar_subquery();
        if matches!(expr, Expr::Column(_)) || outer {
            continue;
        }
        let name = format!("grouped by {}", computed.len());
        computed.push((expr.clone(), Expr::Column(Column::from_name(name))));
    }
    if computed.is_empty() {
        return Ok(None);
    }
    let of = |expr: &Expr| {
        let found = computed.iter().find(|(other, _)| other == expr);
        found.map_or_else(|| expr.clone(), |(_, column)| column.clone())
    };
    let all = |exprs: &[Expr]| exprs.iter().map(of).collect::<Vec<_>>();
    let sets = match sets {
        GroupingSet::Rollup(exprs) => GroupingSet::Rollup(all(exprs)),
        GroupingSet::Cube(exprs) => GroupingSet::Cube(all(exprs)),
        GroupingSet::GroupingSets(sets) => {
            GroupingSet::GroupingSets(sets.iter().map(|set| all(set)).collect())
        }
    };
    let mut below: Vec<Expr> =
        aggregate.input.schema().columns().into_iter().map(Expr::Column).collect();
    below.extend(computed.iter().map(|(expr, column)| {
        let Expr::Column(column) = column else { unreachable!("made as a column above") };
        expr.clone().alias(column.name.clone())
    }));
    let input =
        LogicalPlanBuilder::from(aggregate.input.as_ref().clone()).project(below)?.build()?;
    let asked = aggregate.aggr_expr.iter().map(|call| {
        let replaced = call.clone().transform_up(|expr| match expr {
            Expr::AggregateFunction(mut call) if call.func.name() == "grouping" => {
                call.params.args = all(&call.params.args);
                Ok(Transformed::yes(Expr::AggregateFunction(call)))
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(replaced.data)
    });
    let asked = asked.collect::<Result<Vec<_>>>()?;
    let grouped = Aggregate::try_new(Arc::new(input), vec![Expr::GroupingSet(sets)], asked)?;
    let (before, now) = (aggregate.schema.clone(), grouped.schema.clone());
    // Which list of keys a row is of: nobody names that, and it goes where grouping() is resolved.
    let own = |name: &str| name != Aggregate::INTERNAL_GROUPING_ID;
    let pairs = before.iter().zip(now.columns()).filter(|((_, field), _)| own(field.name()));
    let names = pairs.map(|((table, field), column)| {
        Expr::Column(column).alias_qualified(table.cloned(), field.name())
    });
    let names: Vec<Expr> = names.collect();
    let grouped = Arc::new(LogicalPlan::Aggregate(grouped));
    Ok(Some(LogicalPlan::Projection(Projection::try_new(names, grouped)?)))
}
