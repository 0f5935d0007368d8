//! Rules of DataFusion that would change an answer, each kept from the plans where it would:
//!
//! 1. `PushDownFilter` takes a condition without columns below an aggregate that has a row for no
//!    input, too. The row stays then, and counts nothing.
//! 2. Joins say for all their keys together whether NULLs are equal: those of `IS NOT DISTINCT
//!    FROM`, and what `dependent.rs` makes of correlated subqueries, match where both are NULL.
//!    `ExtractEquijoinPredicate` adds keys by `=` without asking: with them `WHERE i = (SELECT ...)`
//!    would hold for NULL and NULL. Where both sides may be NULL, `=` stays a condition beside the
//!    keys.
//! 3. `EliminateCrossJoin` takes joins apart and puts them together anew, with keys by `=`. Joins
//!    whose NULLs are equal are none of those.
//! 4. `CommonSubexprEliminate` takes constants for equal whose instants are, be they `timestamp` or
//!    `timestamptz`, and would compute one for both. A plan that has both computes each.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, JoinType, NullEquality, Result};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, Filter, Join, LogicalPlan, Operator,
};
use datafusion::optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion::optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion::optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

/// Rules as an optimizer runs them.
pub type Rules = Vec<Arc<dyn OptimizerRule + Send + Sync>>;

/// These rules, those that are listed above with their guards.
pub fn guarded(mut rules: Rules) -> Rules {
    let guards: [Arc<dyn OptimizerRule + Send + Sync>; 4] = [
        Arc::new(Guarded { rule: PushDownFilter::new(), rewrite: push_down_filter }),
        Arc::new(Guarded { rule: ExtractEquijoinPredicate::new(), rewrite: keys_of_joins }),
        Arc::new(Guarded { rule: EliminateCrossJoin::new(), rewrite: cross_joins }),
        Arc::new(Guarded { rule: CommonSubexprEliminate::new(), rewrite: common_expressions }),
    ];
    for rule in &mut rules {
        if let Some(guard) = guards.iter().find(|guard| guard.name() == rule.name()) {
            *rule = guard.clone();
        }
    }
    rules
}

type Rewrite<R> = fn(&R, LogicalPlan, &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>>;

/// A rule that is asked with care.
#[derive(Debug)]
struct Guarded<R> {
    rule: R,
    rewrite: Rewrite<R>,
}

impl<R: OptimizerRule> OptimizerRule for Guarded<R> {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.rule.apply_order()
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        (self.rewrite)(&self.rule, plan, config)
    }
}

fn push_down_filter(
    rule: &PushDownFilter,
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
        (false, _) => rule.rewrite(plan, config),
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

fn keys_of_joins(
    rule: &ExtractEquijoinPredicate,
    plan: LogicalPlan,
    config: &dyn OptimizerConfig,
) -> Result<Transformed<LogicalPlan>> {
    if let LogicalPlan::Join(join) = &plan
        && equates_nulls(join)
        && has_nullable_equality(join)?
    {
        return Ok(Transformed::no(plan));
    }
    rule.rewrite(plan, config)
}

/// Whether the keys of a join match where both are NULL.
fn equates_nulls(join: &Join) -> bool {
    join.null_equality == NullEquality::NullEqualsNull && !join.on.is_empty()
}

fn has_nullable_equality(join: &Join) -> Result<bool> {
    for condition in join.filter.iter().flat_map(split_conjunction) {
        if let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition
            && left.nullable(&join.schema)?
            && right.nullable(&join.schema)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn cross_joins(
    rule: &EliminateCrossJoin,
    plan: LogicalPlan,
    config: &dyn OptimizerConfig,
) -> Result<Transformed<LogicalPlan>> {
    // The rule looks at inner joins only. No left join is aware of NULLs: that marks these.
    let hidden = plan.transform_up(|node| match node {
        LogicalPlan::Join(join) if join.join_type == JoinType::Inner && equates_nulls(&join) => {
            let join = Join { join_type: JoinType::Left, null_aware: true, ..join };
            Ok(Transformed::yes(LogicalPlan::Join(join)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    if !hidden.transformed {
        return rule.rewrite(hidden.data, config);
    }
    let rewritten = rule.rewrite(hidden.data, config)?;
    let shown = rewritten.data.transform_up(|node| match node {
        LogicalPlan::Join(join) if join.join_type == JoinType::Left && join.null_aware => {
            let join = Join { join_type: JoinType::Inner, null_aware: false, ..join };
            Ok(Transformed::yes(LogicalPlan::Join(join).recompute_schema()?))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(Transformed::new_transformed(shown.data, rewritten.transformed))
}

fn common_expressions(
    rule: &CommonSubexprEliminate,
    plan: LogicalPlan,
    config: &dyn OptimizerConfig,
) -> Result<Transformed<LogicalPlan>> {
    match mixes_moments(&plan)? {
        true => Ok(Transformed::no(plan)),
        false => rule.rewrite(plan, config),
    }
}

/// Whether constants of both types of timestamps are in the plan.
fn mixes_moments(plan: &LogicalPlan) -> Result<bool> {
    let (mut zoned, mut plain) = (false, false);
    let none = DFSchema::empty();
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                if let Expr::Literal(..) | Expr::Cast(_) | Expr::ScalarFunction(_) = e
                    && let Ok(DataType::Timestamp(_, zone)) = e.get_type(&none)
                {
                    *if zone.is_some() { &mut zoned } else { &mut plain } = true;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(zoned && plain)
}
