//! MATCH_RECOGNIZE in batch execution: an operator over input that is sorted by partition and
//! order, and split by partition over threads.
//!
//! Batches gather until some partitions are complete; these are matched together. A partition that
//! does not end gathers twice as much each time, so every row is copied a few times at most.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow::array::RecordBatch;
use arrow::compute::{SortOptions, concat_batches, partition};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{
    Distribution, EquivalenceProperties, LexRequirement, OrderingRequirements,
    PhysicalSortRequirement,
};
use datafusion::physical_plan::execution_plan::EmissionType;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties, RecordBatchStream,
};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use futures::{Stream, StreamExt};

use crate::pattern::found::{FailedPart, Found};
use crate::pattern::kernels::Kernels;
use crate::pattern::matcher::Matcher;
use crate::pattern::output::output;
use crate::pattern::rows::{PartitionRows, Rows};
use crate::pattern::scratch::Scratch;
use crate::pattern::ties::settle_ties;
use crate::plan::match_recognize::PatternText;
use crate::sql::match_recognize::compile::compile_match;
use crate::sql::match_recognize::node::MatchNode;
use crate::sql::resolve::external;

/// Rows that gather before anything is matched.
const GATHER_ROWS: usize = 32_768;

/// Plans [`MatchNode`] for batches.
pub struct MatchExecPlanner;

#[async_trait]
impl ExtensionPlanner for MatchExecPlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        _session: &dyn Session,
        _planning: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<MatchNode>() else { return Ok(None) };
        let Some(input) = physical_inputs.first() else {
            return Err(DataFusionError::Internal("MATCH_RECOGNIZE has an input".to_owned()));
        };
        let spec = compile_match(node).map_err(external)?;
        let kernels = Arc::new(Kernels::new(spec).map_err(external)?);
        let skip_position = node.facts.skip_position;
        Ok(Some(Arc::new(MatchExec::new(kernels, skip_position, input.clone()))))
    }
}

/// The operator.
#[derive(Debug)]
pub struct MatchExec {
    kernels: Arc<Kernels>,
    /// See `MatchFacts`.
    skip_position: Option<usize>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl MatchExec {
    fn new(
        kernels: Arc<Kernels>,
        skip_position: Option<usize>,
        input: Arc<dyn ExecutionPlan>,
    ) -> MatchExec {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(kernels.spec().schema.clone()),
            datafusion::physical_plan::Partitioning::UnknownPartitioning(
                input.properties().output_partitioning().partition_count(),
            ),
            EmissionType::Incremental,
            input.properties().boundedness,
        );
        MatchExec { kernels, skip_position, input, properties: Arc::new(properties) }
    }

    fn column(&self, index: usize) -> Arc<dyn PhysicalExpr> {
        Arc::new(Column::new(self.input.schema().field(index).name(), index))
    }
}

impl DisplayAs for MatchExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spec = self.kernels.spec();
        let pattern = PatternText { pattern: &spec.pattern, variables: &spec.variables };
        match &spec.pattern_from {
            Some(from) => {
                write!(f, "MatchExec: from {}", self.input.schema().field(from.column).name())
            }
            None => write!(f, "MatchExec: {pattern}"),
        }
    }
}

impl ExecutionPlan for MatchExec {
    fn name(&self) -> &'static str {
        "MatchExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        // Its expressions are over reads, not over columns of the input.
        Ok(TreeNodeRecursion::Continue)
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        let spec = self.kernels.spec();
        if spec.partition.is_empty() {
            return vec![Distribution::SinglePartition];
        }
        let keys = spec.partition.iter().map(|column| self.column(*column)).collect();
        vec![Distribution::KeyPartitioned(keys)]
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        let spec = self.kernels.spec();
        let partition = spec.partition.iter().map(|column| {
            PhysicalSortRequirement::new(self.column(*column), Some(SortOptions::default()))
        });
        let order = spec.order_by.iter().map(|sort| {
            let options =
                SortOptions { descending: sort.descending, nulls_first: sort.nulls_first };
            PhysicalSortRequirement::new(self.column(sort.column), Some(options))
        });
        vec![LexRequirement::new(partition.chain(order)).map(OrderingRequirements::from)]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![!self.kernels.spec().partition.is_empty()]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => {
                Ok(Arc::new(MatchExec::new(self.kernels.clone(), self.skip_position, input)))
            }
            _ => Err(DataFusionError::Internal("MatchExec has one input".to_owned())),
        }
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        Ok(Box::pin(MatchStream {
            input: self.input.execute(partition, context)?,
            input_schema: self.input.schema(),
            gathered: Vec::new(),
            gathered_rows: 0,
            gather_rows: GATHER_ROWS,
            scratch: Scratch::default(),
            kernels: self.kernels.clone(),
            skip_position: self.skip_position,
            ended: false,
        }))
    }
}

struct MatchStream {
    kernels: Arc<Kernels>,
    skip_position: Option<usize>,
    input: SendableRecordBatchStream,
    input_schema: SchemaRef,
    /// Rows of partitions that may not be complete.
    gathered: Vec<RecordBatch>,
    gathered_rows: usize,
    /// So many rows are gathered before they are looked at.
    gather_rows: usize,
    scratch: Scratch,
    ended: bool,
}

impl MatchStream {
    /// Matches the partitions that are complete; with `all`, all that there are.
    fn match_gathered(&mut self, all: bool) -> crate::types::error::Result<Option<RecordBatch>> {
        let rows = concat_batches(&self.input_schema, &self.gathered)?;
        self.gathered.clear();
        let ranges = match self.kernels.spec().partition.as_slice() {
            [] if rows.num_rows() == 0 => vec![],
            [] => std::iter::once(0..rows.num_rows()).collect(),
            columns => {
                let columns: Vec<_> =
                    columns.iter().map(|column| rows.column(*column).clone()).collect();
                partition(&columns)?.ranges()
            }
        };
        let complete = match all {
            true => ranges.len(),
            false => ranges.len().saturating_sub(1),
        };
        let end = ranges[..complete].last().map_or(0, |range| range.end);
        let rest = rows.slice(end, rows.num_rows() - end);
        self.gathered_rows = rest.num_rows();
        self.gather_rows = GATHER_ROWS.max(2 * self.gathered_rows);
        self.gathered.push(rest);
        if complete == 0 {
            return Ok(None);
        }
        let partitions =
            ranges[..complete].iter().map(|r| PartitionRows::new(r.start, r.end, 0, true));
        let sorted = settle_ties(self.kernels.spec(), rows.slice(0, end))?;
        let rows = Rows::new(self.kernels.spec(), sorted, partitions.collect())?;
        let mut found = Found::default();
        for number in 0..rows.partitions.len() {
            let mut matcher = Matcher::default();
            let scratch = &mut self.scratch;
            let kernel = self.kernels.of_partition(&rows.batch, &rows.partitions[number])?;
            if let Some(problem) = &kernel.problem {
                return Err(problem.clone());
            }
            matcher.advance(&kernel, scratch, &rows, number, u64::MAX, &mut found)?;
            if let Some(failure) = std::mem::take(&mut found.failures).into_iter().next() {
                return Err(match (failure.part, self.skip_position) {
                    (FailedPart::Skip, Some(position)) => failure.error.position(position),
                    _ => failure.error,
                });
            }
        }
        output(self.kernels.base(), &rows, &found).map(Some)
    }
}

impl Stream for MatchStream {
    type Item = Result<RecordBatch>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if this.ended {
                return Poll::Ready(None);
            }
            match ready!(this.input.poll_next_unpin(cx)) {
                Some(Ok(batch)) => {
                    this.gathered_rows += batch.num_rows();
                    this.gathered.push(batch);
                    if this.gathered_rows < this.gather_rows {
                        continue;
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => this.ended = true,
            }
            match this.match_gathered(this.ended).map_err(external) {
                Ok(Some(batch)) if batch.num_rows() > 0 => return Poll::Ready(Some(Ok(batch))),
                Ok(_) => {}
                Err(error) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

impl RecordBatchStream for MatchStream {
    fn schema(&self) -> SchemaRef {
        self.kernels.spec().schema.clone()
    }
}
