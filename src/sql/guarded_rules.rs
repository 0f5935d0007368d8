//! Rules of DataFusion that would change an answer, kept from doing so.
//!
//! | rule | would |
//! |---|---|
//! | `PushDownFilter` | take a condition without columns below an aggregate that has a row for no input, too: the row stays, with other counts |
//! | `EliminateCrossJoin` | give all joins of a chain the null equality of the uppermost, so that `IS NOT DISTINCT FROM` becomes `=` or the other way |

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{NullEquality, Result};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, Filter, Join, JoinType, LogicalPlan, Operator, binary_expr};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

/// `PushDownFilter`, but not below an aggregate with an empty grouping set.
#[derive(Debug)]
pub struct PushDownFilterToGroups(PushDownFilter);

impl PushDownFilterToGroups {
    pub fn new() -> PushDownFilterToGroups {
        PushDownFilterToGroups(PushDownFilter::new())
    }
}

impl OptimizerRule for PushDownFilterToGroups {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let mut predicates = Vec::new();
        let mut below = &plan;
        while let LogicalPlan::Filter(filter) = below {
            predicates.push(&filter.predicate);
            below = filter.input.as_ref();
        }
        let stays = matches!(below, LogicalPlan::Aggregate(aggregate)
            if aggregate.group_expr.iter().all(|key| matches!(key, Expr::GroupingSet(_))));
        match (stays, predicates.len()) {
            (false, _) => self.0.rewrite(plan, config),
            (true, 0 | 1) => Ok(Transformed::no(plan)),
            // The rule makes one of filters that follow each other, and goes on with that itself.
            (true, _) => match conjunction(predicates.into_iter().rev().cloned()) {
                Some(all) => {
                    let filter = Filter::try_new(all, Arc::new(below.clone()))?;
                    Ok(Transformed::yes(LogicalPlan::Filter(filter)))
                }
                None => Ok(Transformed::no(plan)),
            },
        }
    }
}

/// Null-safe equalities of inner joins are conditions like others until `EliminateCrossJoin` has
/// run; `ExtractEquijoinPredicate` makes keys of them again.
#[derive(Debug)]
pub struct NullSafeKeysToConditions;

impl OptimizerRule for NullSafeKeysToConditions {
    fn name(&self) -> &str {
        "null_safe_keys_to_conditions"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        match plan {
            LogicalPlan::Join(Join {
                join_type: JoinType::Inner,
                null_equality: NullEquality::NullEqualsNull,
                left,
                right,
                on,
                filter,
                join_constraint,
                schema,
                null_aware,
            }) => {
                let keys = on
                    .into_iter()
                    .map(|(left, right)| binary_expr(left, Operator::IsNotDistinctFrom, right));
                Ok(Transformed::yes(LogicalPlan::Join(Join {
                    left,
                    right,
                    on: Vec::new(),
                    filter: conjunction(keys.chain(filter)),
                    join_type: JoinType::Inner,
                    join_constraint,
                    schema,
                    null_equality: NullEquality::NullEqualsNothing,
                    null_aware,
                })))
            }
            other => Ok(Transformed::no(other)),
        }
    }
}
