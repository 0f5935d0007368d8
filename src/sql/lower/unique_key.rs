//! Columns that tell the rows of a plan apart, when the query guarantees that there are such.
//!
//! Primary keys of tables and the keys of GROUP BY, as far as they come through projections,
//! filters and joins. A wrong answer here would lose rows, so what is not surely unique has none.

use datafusion::common::JoinType;
use datafusion::logical_expr::{Aggregate, Distinct, Expr, Join, LogicalPlan};

use crate::catalog::object::ObjectKind;
use crate::sql::lower::pipe::column_index;
use crate::sql::resolve::CatalogSource;

/// Output columns of which no two rows have the same values (NULL being a value).
///
/// `None` also for results of one row at most, which need no key.
pub fn unique_key(plan: &LogicalPlan) -> Option<Vec<usize>> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let source = scan.source.downcast_ref::<CatalogSource>()?;
            let ObjectKind::Table(table) = &source.object.kind else { return None };
            if table.primary_key.is_empty() {
                return None;
            }
            let place = |column: &usize| match &scan.projection {
                Some(columns) => columns.iter().position(|c| c == column),
                None => Some(*column),
            };
            table.primary_key.iter().map(place).collect()
        }
        LogicalPlan::Projection(projection) => {
            let key = unique_key(&projection.input)?;
            key.iter()
                .map(|wanted| {
                    projection.expr.iter().position(|expr| {
                        column_index(expr, projection.input.schema()) == Some(*wanted)
                    })
                })
                .collect()
        }
        LogicalPlan::Filter(filter) => unique_key(&filter.input),
        LogicalPlan::Sort(sort) => unique_key(&sort.input),
        LogicalPlan::Limit(limit) => unique_key(&limit.input),
        // The input's columns come first.
        LogicalPlan::Window(window) => unique_key(&window.input),
        LogicalPlan::SubqueryAlias(alias) => unique_key(&alias.input),
        LogicalPlan::Aggregate(aggregate) => group_key(aggregate),
        LogicalPlan::Distinct(Distinct::All(input)) => {
            Some((0..input.schema().fields().len()).collect())
        }
        LogicalPlan::Join(join) => join_key(join),
        _ => None,
    }
}

fn group_key(aggregate: &Aggregate) -> Option<Vec<usize>> {
    let grouping_sets = aggregate.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_)));
    if grouping_sets || aggregate.group_expr.is_empty() {
        return None;
    }
    Some((0..aggregate.group_expr.len()).collect())
}

fn join_key(join: &Join) -> Option<Vec<usize>> {
    let left = || unique_key(&join.left);
    let right = || unique_key(&join.right);
    // Whether a row of the other side meets one row of this side at most.
    let meets_one = |plan: &LogicalPlan, keys: Vec<&Expr>| {
        plan.max_rows() == Some(1)
            || unique_key(plan).is_some_and(|key| {
                key.iter().all(|wanted| {
                    keys.iter().any(|expr| column_index(expr, plan.schema()) == Some(*wanted))
                })
            })
    };
    let right_once = || meets_one(&join.right, join.on.iter().map(|(_, r)| r).collect());
    let left_once = || meets_one(&join.left, join.on.iter().map(|(l, _)| l).collect());
    let left_width = join.left.schema().fields().len();
    let shifted = |key: Vec<usize>| -> Vec<usize> {
        key.into_iter().map(|column| column + left_width).collect()
    };
    match join.join_type {
        JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => left(),
        JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => right(),
        // Every row has a left row, and each left row comes once.
        JoinType::Inner | JoinType::Left if right_once() => left(),
        JoinType::Inner | JoinType::Right if left_once() => right().map(shifted),
        JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
            let (mut key, right_key) = (left()?, right()?);
            // A left row without a partner must not look like a right one without.
            let tells = |plan: &LogicalPlan, key: &[usize]| {
                key.iter().any(|column| !plan.schema().field(*column).is_nullable())
            };
            if join.join_type == JoinType::Full
                && !tells(&join.left, &key)
                && !tells(&join.right, &right_key)
            {
                return None;
            }
            key.extend(shifted(right_key));
            Some(key)
        }
    }
}
