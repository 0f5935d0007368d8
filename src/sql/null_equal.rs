//! Joins whose keys match where both are NULL (`IS NOT DISTINCT FROM`, and what `dependent.rs`
//! makes of correlated subqueries) get no further keys by `=`, for which NULLs do not match.
//!
//! DataFusion's joins say for all their keys together whether NULLs are equal, and two of its rules
//! add keys without asking: with them `WHERE i = (SELECT ...)` would hold for NULL and NULL.
//!
//! 1. [`KeysOfJoins`]: an equality stays a condition beside the keys where both sides may be NULL.
//! 2. [`CrossJoins`]: such a join is none of those that are taken apart and put together anew.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{JoinType, NullEquality, Result};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Join, LogicalPlan, Operator};
use datafusion::optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion::optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// Whether the keys of a join match where both are NULL.
fn equates_nulls(join: &Join) -> bool {
    join.null_equality == NullEquality::NullEqualsNull && !join.on.is_empty()
}

/// Equalities in ON become keys.
#[derive(Debug, Default)]
pub struct KeysOfJoins(ExtractEquijoinPredicate);

impl OptimizerRule for KeysOfJoins {
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
        if let LogicalPlan::Join(join) = &plan
            && equates_nulls(join)
            && has_nullable_equality(join)?
        {
            return Ok(Transformed::no(plan));
        }
        self.0.rewrite(plan, config)
    }
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

/// `FROM a, b WHERE a.x = b.x` becomes a join by key.
#[derive(Debug, Default)]
pub struct CrossJoins(EliminateCrossJoin);

impl OptimizerRule for CrossJoins {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        // The rule looks at inner joins only. No left join is aware of NULLs: that marks these.
        let hidden = plan.transform_up(|node| match node {
            LogicalPlan::Join(join)
                if join.join_type == JoinType::Inner && equates_nulls(&join) =>
            {
                let join = Join { join_type: JoinType::Left, null_aware: true, ..join };
                Ok(Transformed::yes(LogicalPlan::Join(join)))
            }
            other => Ok(Transformed::no(other)),
        })?;
        if !hidden.transformed {
            return self.0.rewrite(hidden.data, config);
        }
        let rewritten = self.0.rewrite(hidden.data, config)?;
        let shown = rewritten.data.transform_up(|node| match node {
            LogicalPlan::Join(join) if join.join_type == JoinType::Left && join.null_aware => {
                let join = Join { join_type: JoinType::Inner, null_aware: false, ..join };
                Ok(Transformed::yes(LogicalPlan::Join(join).recompute_schema()?))
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(Transformed::new_transformed(shown.data, rewritten.transformed))
    }
}
