//! Conditions of joins that are given up together with their query.
//!
//! The batch engine gives way to others, and notices that it is not wanted any more, when a batch of
//! rows goes from one operator to the next. A join whose condition no pair meets makes no batch: it
//! may compute for minutes after its client has gone, on a thread that others wait for. So its
//! condition looks at a flag each time that it is evaluated, which is for some thousand pairs.
//!
//! The same flag ends a query that has used up memory ([`GiveUp`]).

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::Waker;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{
    HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder,
};
use futures::task::AtomicWaker;

use crate::memory::running::GiveUp;

/// Tells one run of a query that it is given up. Clones stand for the same run.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<Stop>);

#[derive(Debug, Default)]
struct Stop {
    stopped: AtomicBool,
    /// Because nothing else would have made room.
    for_memory: AtomicBool,
    /// Who reads the rows.
    reader: AtomicWaker,
}

impl GiveUp for Stop {
    fn give_up(&self) {
        self.for_memory.store(true, Ordering::Release);
        self.stopped.store(true, Ordering::Release);
        self.reader.wake();
    }
}

impl StopFlag {
    /// Nobody waits for the run any more.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::Release);
    }

    fn is_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::Acquire)
    }

    /// Whether the run was given up because it has used up memory; if it is, `reader` is woken.
    pub fn is_out_of_memory(&self, reader: &Waker) -> bool {
        self.0.reader.register(reader);
        self.0.for_memory.load(Ordering::Acquire)
    }

    /// Who can be asked to give the run up.
    pub fn handle(&self) -> Weak<dyn GiveUp> {
        let stop: Arc<dyn GiveUp> = self.0.clone();
        Arc::downgrade(&stop)
    }
}

/// The plan with joins that look at `stop`.
///
/// # Errors
/// When a join cannot be made again of its parts.
pub fn interruptible(
    plan: Arc<dyn ExecutionPlan>,
    stop: &StopFlag,
) -> Result<Arc<dyn ExecutionPlan>> {
    let watched = |filter: &JoinFilter| {
        let condition = filter.expression().clone();
        let expression = Arc::new(Watched { condition, stop: stop.clone() });
        let columns = filter.column_indices().to_vec();
        JoinFilter::new(expression, columns, filter.schema().clone())
    };
    let watch = |node: Arc<dyn ExecutionPlan>| {
        if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>()
            && let Some(filter) = join.filter()
        {
            let (left, right) = (join.left().clone(), join.right().clone());
            let join = NestedLoopJoinExecBuilder::new(left, right, *join.join_type())
                .with_projection_ref(join.projection().clone())
                .with_filter(Some(watched(filter)));
            return Ok(Transformed::yes(Arc::new(join.build()?) as Arc<dyn ExecutionPlan>));
        }
        if let Some(join) = node.downcast_ref::<HashJoinExec>()
            && let Some(filter) = join.filter()
        {
            let join = join.builder().with_filter(Some(watched(filter)));
            return Ok(Transformed::yes(join.build_exec()?));
        }
        Ok(Transformed::no(node))
    };
    Ok(plan.transform_up(watch)?.data)
}

/// A condition that fails once its query is given up.
#[derive(Debug)]
struct Watched {
    condition: Arc<dyn PhysicalExpr>,
    stop: StopFlag,
}

impl PartialEq for Watched {
    fn eq(&self, other: &Watched) -> bool {
        self.condition.eq(&other.condition)
    }
}

impl Eq for Watched {}

impl Hash for Watched {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.condition.hash(state);
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.condition.fmt(f)
    }
}

impl PhysicalExpr for Watched {
    fn data_type(&self, input: &Schema) -> Result<DataType> {
        self.condition.data_type(input)
    }

    fn nullable(&self, input: &Schema) -> Result<bool> {
        self.condition.nullable(input)
    }

    fn return_field(&self, input: &Schema) -> Result<FieldRef> {
        self.condition.return_field(input)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        if self.stop.is_stopped() {
            return Err(DataFusionError::Execution("the query was given up".to_owned()));
        }
        self.condition.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.condition]
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let [condition] = <[_; 1]>::try_from(children)
            .map_err(|_| DataFusionError::Internal("a condition is one expression".to_owned()))?;
        Ok(Arc::new(Watched { condition, stop: self.stop.clone() }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.condition.fmt_sql(f)
    }
}
