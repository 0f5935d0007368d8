//! EXCEPT ALL and INTERSECT ALL: the copies of each distinct row are counted on both sides.
//!
//! DataFusion plans both as joins, which do not count. Here they become
//!
//! 1. `SELECT c..., 1 AS l, NULL AS r FROM left UNION ALL SELECT c..., NULL, 1 FROM right`,
//! 2. grouped by all columns, with `count(l)` and `count(r)`,
//! 3. of which `l - r` (not less than 0), or the smaller, says how often the row is given.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{
    Column, JoinType, NullEquality, NullHandling, Result, ScalarValue, UnnestOptions,
};
use datafusion::logical_expr::expr::{AggregateFunction, ScalarFunction};
use datafusion::logical_expr::{Distinct, Expr, Join, LogicalPlan, LogicalPlanBuilder, lit};

use crate::functions::scalar::copies::{BagOp, copies, copy_count};
use crate::sql::functions::FUNCTIONS;
use crate::sql::resolve::external;
use crate::types::error::Error;

const LEFT: &str = "left copies";
const RIGHT: &str = "right copies";
const COPIES: &str = "copies";

/// Puts counts in place of the joins that DataFusion plans for EXCEPT ALL and INTERSECT ALL.
pub fn count_copies(plan: LogicalPlan) -> Result<LogicalPlan> {
    let counted = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) => match bag_operation(&join) {
            Some(op) => Ok(Transformed::yes(counted(&join, op)?)),
            None => Ok(Transformed::no(LogicalPlan::Join(join))),
        },
        other => Ok(Transformed::no(other)),
    })?;
    Ok(counted.data)
}

/// Before it is optimised, no plan but that of a set operation has a join in which NULLs are
/// equal. Without ALL its left side is DISTINCT, and then nothing needs counting.
fn bag_operation(join: &Join) -> Option<BagOp> {
    let distinct = matches!(&*join.left, LogicalPlan::Distinct(Distinct::All(_)));
    if join.null_equality != NullEquality::NullEqualsNull || distinct {
        return None;
    }
    match join.join_type {
        JoinType::LeftAnti => Some(BagOp::Except),
        JoinType::LeftSemi => Some(BagOp::Intersect),
        _ => None,
    }
}

fn counted(join: &Join, op: BagOp) -> Result<LogicalPlan> {
    let names: Vec<String> =
        (0..join.left.schema().fields().len()).map(|index| format!("c{index}")).collect();
    let null = || Expr::Literal(ScalarValue::Int64(None), None);
    let marked = |side: &LogicalPlan, left: Expr, right: Expr| {
        let columns = side.schema().columns().into_iter().zip(&names);
        let columns = columns.map(|(column, name)| Expr::Column(column).alias(name));
        LogicalPlanBuilder::from(side.clone())
            .project(columns.chain([left.alias(LEFT), right.alias(RIGHT)]).collect::<Vec<_>>())?
            .build()
    };
    let left = marked(&join.left, lit(1_i64), null())?;
    let right = marked(&join.right, null(), lit(1_i64))?;
    let both = LogicalPlanBuilder::from(left).union(right)?.build()?;
    let mut columns = both.schema().columns();
    let count = FUNCTIONS
        .aggregate
        .get("count")
        .ok_or_else(|| external(Error::internal("there is no function count")))?;
    let count_of = |column: Column, name: &str| {
        let args = vec![Expr::Column(column)];
        let call = AggregateFunction::new_udf(count.clone(), args, false, None, vec![], None);
        Expr::AggregateFunction(call).alias(name)
    };
    let marks = columns.split_off(names.len());
    let [left, right] = <[Column; 2]>::try_from(marks)
        .map_err(|_| external(Error::internal("a union has the columns of its inputs")))?;
    let keys: Vec<Expr> = columns.iter().cloned().map(Expr::Column).collect();
    let groups = LogicalPlanBuilder::from(both)
        .aggregate(keys, vec![count_of(left, LEFT), count_of(right, RIGHT)])?
        .build()?;
    let mut columns = groups.schema().columns();
    let counts = columns.split_off(names.len()).into_iter().map(Expr::Column).collect();
    let number = Expr::ScalarFunction(ScalarFunction::new_udf(copy_count(op), counts));
    let list = Expr::ScalarFunction(ScalarFunction::new_udf(copies(), vec![number]));
    let keys = columns.into_iter().map(Expr::Column);
    // A dataflow over no rows at all meets an unnest as any other.
    let options = UnnestOptions::new().with_null_handling(NullHandling::Drop);
    let rows = LogicalPlanBuilder::from(groups)
        .project(keys.chain([list.alias(COPIES)]).collect::<Vec<_>>())?
        .unnest_column_with_options(Column::from_name(COPIES), options)?
        .build()?;
    let result = rows.schema().columns().into_iter().zip(join.left.schema().iter()).map(
        |(column, (qualifier, field))| {
            Expr::Column(column).alias_qualified(qualifier.cloned(), field.name())
        },
    );
    LogicalPlanBuilder::from(Arc::new(rows.clone())).project(result.collect::<Vec<_>>())?.build()
}
