//! A planned query: bind parameters, run it as a batch, or lower it to a dataflow.
//!
//! The plan is optimised for batches once, with its parameters in place, when it first runs;
//! every run puts values in, relations' rows behind the scans, and makes a physical plan.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::metadata::ScalarAndMetadata;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, ParamValues, ScalarValue};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::{TableType, provider_as_source};
use datafusion::execution::session_state::SessionState;
use datafusion::execution::{SessionStateBuilder, TaskContext};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::StreamExt;
use futures::stream::BoxStream;

use crate::functions::scalar::session::NOW;
use crate::plan::node::Plan;
use crate::sql::coerce::now_value;
use crate::sql::functions::SESSION;
use crate::sql::interrupt::{StopFlag, interruptible};
use crate::sql::lookup::{Lookup, lookup_of};
use crate::sql::lower::lower;
use crate::sql::optimize::{optimize_batch, optimize_dataflow};
use crate::sql::query_memory::QueryEnvironment;
use crate::sql::resolve::{CatalogSource, SystemSource, external};
use crate::sql::schema::check_storable;
use crate::sql::series::{SeriesSource, unnest_long_series};
use crate::sql::stored_scan::StoredTable;
use crate::state::snapshot::Snapshot as StoredPart;
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;
use crate::types::sql_type::SqlType;

/// A query whose names and types are known. Cheap to clone; may be bound and run many times.
#[derive(Clone)]
pub struct PlannedQuery {
    /// Typed, not yet optimised.
    pub logical: Arc<LogicalPlan>,
    /// The result's columns, marked with their extension types; names may repeat.
    pub schema: SchemaRef,
    /// Types of `$1`, `$2`, ...
    pub parameters: Vec<SqlType>,
    /// Sources, tables and materialized views that are read as they are, each once; system
    /// relations apart.
    pub objects: Vec<ObjectId>,
    /// Tables and materialized views that are read as of a time, which is SQL text.
    pub past: Vec<(ObjectId, Arc<str>)>,
    /// Objects that the query names itself: views stand here, not what they read.
    pub depends_on: Vec<ObjectId>,
    /// The plan optimised for batches, made by the first run.
    batch: Arc<OnceLock<LogicalPlan>>,
    /// Values for the parameters, by their number.
    values: Arc<HashMap<String, ScalarAndMetadata>>,
}

/// The rows of one relation during one batch execution.
pub enum Content {
    Batches(Vec<RecordBatch>),
    /// Rows that are made as they are read.
    Stored(Vec<StoredPart>),
    Provider(Arc<dyn TableProvider>),
}

/// Where a batch execution finds the rows.
pub trait Contents: Send + Sync {
    /// The rows of a source, table or materialized view, with all its columns.
    fn object(&self, id: ObjectId) -> Result<Content>;

    /// The rows that a lookup wants, and perhaps others; `None`: all have to be looked at.
    fn lookup(&self, lookup: &Lookup) -> Result<Option<Vec<RecordBatch>>> {
        let _ = lookup;
        Ok(None)
    }

    /// The rows of a table or materialized view as of a time, one of `PlannedQuery::past`.
    fn past(&self, id: ObjectId, version: &str) -> Result<Content> {
        Err(Error::internal(format!("{id} as of {version} was not prepared for reading")))
    }

    /// The rows of a relation of `pg_catalog`, `information_schema` or `millstream`.
    fn system(&self, schema: &str, name: &str) -> Result<Vec<RecordBatch>>;
}

impl PlannedQuery {
    pub(super) fn new(
        logical: LogicalPlan,
        schema: SchemaRef,
        parameters: Vec<SqlType>,
        objects: Vec<ObjectId>,
        depends_on: Vec<ObjectId>,
    ) -> PlannedQuery {
        PlannedQuery {
            logical: Arc::new(logical),
            schema,
            parameters,
            objects,
            past: Vec::new(),
            depends_on,
            batch: Arc::default(),
            values: Arc::default(),
        }
    }

    pub(super) fn with_past(self, past: Vec<(ObjectId, Arc<str>)>) -> PlannedQuery {
        PlannedQuery { past, ..self }
    }

    /// The same query with values (arrays of one element) in place of its parameters.
    ///
    /// # Errors
    /// SQLSTATE 08P01 when their number is not that of the parameters.
    pub fn bind_parameters(&self, values: &[ArrayRef]) -> Result<PlannedQuery> {
        if values.len() != self.parameters.len() {
            return Err(Error::user(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message supplies {} parameters, but the statement requires {}",
                    values.len(),
                    self.parameters.len()
                ),
            ));
        }
        let mut bound = HashMap::with_capacity(values.len());
        for (index, (value, sql_type)) in values.iter().zip(&self.parameters).enumerate() {
            let field = sql_type.to_field("", true);
            let value = arrow::compute::cast(value, field.data_type())?;
            let value = ScalarValue::try_from_array(&value, 0).map_err(Error::from)?;
            let metadata = (!field.metadata().is_empty()).then(|| field.metadata().clone().into());
            bound.insert((index + 1).to_string(), ScalarAndMetadata::new(value, metadata));
        }
        Ok(PlannedQuery { values: Arc::new(bound), ..self.clone() })
    }

    /// The dataflow that maintains the query's result.
    ///
    /// # Errors
    /// SQLSTATE 0A000 for what cannot be maintained yet.
    pub fn lower(&self) -> Result<Plan> {
        let mut plan = self.logical.as_ref().clone();
        if !self.values.is_empty() {
            let values = ParamValues::Map(self.values.as_ref().clone());
            plan = plan.replace_params_with_values(&values).map_err(Error::from)?;
        }
        check_storable(&self.schema)?;
        let plan = unnest_long_series(plan).map_err(Error::from)?;
        let plan = optimize_dataflow(plan).map_err(Error::from)?;
        lower(&plan, &self.schema)
    }

    /// Runs the query over `contents`; `now()` is `now`. Batches have exactly the planned schema.
    ///
    /// # Errors
    /// When a parameter has no value, or the plan cannot be made.
    pub async fn execute(
        &self,
        contents: &dyn Contents,
        now: DateTime<Utc>,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        self.prepare_run(contents, now).await?.start()
    }

    /// Makes everything ready for one run over `contents`; `now()` is `now`.
    ///
    /// # Errors
    /// When a parameter has no value, or the plan cannot be made.
    pub async fn prepare_run(
        &self,
        contents: &dyn Contents,
        now: DateTime<Utc>,
    ) -> Result<BatchRun> {
        let plan = self.with_values(self.optimized()?.clone(), now)?;
        let (plan, rows) = with_contents(plan, contents)?;
        let session = session_for(rows);
        let physical = session.query_planner().create_physical_plan(&plan, session).await?;
        let few = rows.is_some_and(|rows| rows <= ROWS_SINGLE_THREAD_MAX);
        let brief = few && is_linear(physical.as_ref());
        let stop = StopFlag::default();
        let physical = interruptible(give_way(physical)?, &stop).map_err(Error::from)?;
        Ok(BatchRun { physical, schema: self.schema.clone(), brief, stop })
    }

    /// The lookups that a run would make, as EXPLAIN says them.
    ///
    /// # Errors
    /// When a parameter has no value.
    pub fn lookups(&self, now: DateTime<Utc>) -> Result<Vec<String>> {
        let plan = self.with_values(self.optimized()?.clone(), now)?;
        let mut found = Vec::new();
        plan.apply_with_subqueries(|node| {
            found.extend(lookup_of(node).map_err(external)?.map(|lookup| lookup.describe()));
            Ok(TreeNodeRecursion::Continue)
        })
        .map_err(Error::from)?;
        Ok(found)
    }

    fn optimized(&self) -> Result<&LogicalPlan> {
        if let Some(plan) = self.batch.get() {
            return Ok(plan);
        }
        let plan = optimize_batch(self.logical.as_ref().clone()).map_err(Error::from)?;
        Ok(self.batch.get_or_init(|| plan))
    }

    /// Values for all parameters and for `now()`.
    fn with_values(&self, plan: LogicalPlan, now: DateTime<Utc>) -> Result<LogicalPlan> {
        if let Some(index) =
            (1..=self.parameters.len()).find(|n| !self.values.contains_key(&n.to_string()))
        {
            return Err(Error::user(
                SqlState::UNDEFINED_PARAMETER,
                format!("no value found for parameter {index}"),
            ));
        }
        let mut values = self.values.as_ref().clone();
        values.insert(NOW[1..].to_owned(), ScalarAndMetadata::new(now_value(now), None));
        let plan = plan.replace_params_with_values(&ParamValues::Map(values))?;
        Ok(plan.transform_up_with_subqueries(fold_limit)?.data)
    }
}

/// LIMIT and OFFSET as numbers: what is computed from parameters is known now.
fn fold_limit(node: LogicalPlan) -> Result<Transformed<LogicalPlan>, DataFusionError> {
    let LogicalPlan::Limit(mut limit) = node else { return Ok(Transformed::no(node)) };
    let simplifier = ExprSimplifier::new(SimplifyContext::builder().build());
    let clauses = [
        (&mut limit.fetch, "LIMIT", SqlState("2201W")),
        (&mut limit.skip, "OFFSET", SqlState("2201X")),
    ];
    for (count, clause, sqlstate) in clauses {
        let Some(count) = count else { continue };
        if let Expr::Literal(value, _) = simplifier.simplify(count.as_ref().clone())? {
            let value = value.cast_to(&DataType::Int64)?;
            if matches!(value, ScalarValue::Int64(Some(number)) if number < 0) {
                let message = format!("{clause} must not be negative");
                return Err(external(Error::user(sqlstate, message)));
            }
            **count = Expr::Literal(value, None);
        }
    }
    Ok(Transformed::yes(LogicalPlan::Limit(limit)))
}

/// One run of a query, ready to be started on any thread of any runtime.
pub struct BatchRun {
    physical: Arc<dyn ExecutionPlan>,
    schema: SchemaRef,
    brief: bool,
    stop: StopFlag,
}

impl BatchRun {
    /// What ends it soon, wherever it computes.
    pub fn stop_flag(&self) -> StopFlag {
        self.stop.clone()
    }

    /// Whether the run is over within milliseconds for sure: few rows, looked at a few times.
    pub fn is_brief(&self) -> bool {
        self.brief
    }

    /// Starts it, on the runtime that this is called in.
    ///
    /// # Errors
    /// When the plan cannot be executed.
    pub fn start(self) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        self.start_with(SESSION.task_ctx())
    }

    /// Starts it with no more memory than there is.
    ///
    /// # Errors
    /// When the plan cannot be executed.
    pub fn start_in(
        self,
        environment: &QueryEnvironment,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        self.start_with(environment.session.task_ctx())
    }

    fn start_with(
        self,
        context: Arc<TaskContext>,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let BatchRun { physical, schema, .. } = self;
        let stream = execute_stream(physical, context).map_err(Error::from)?;
        Ok(stream.map(move |batch| conform(batch.map_err(Error::from)?, &schema)).boxed())
    }
}

/// Whether the work grows no faster than rows times their logarithm: no joins, windows, recursion
/// or functions that give rows.
fn is_linear(plan: &dyn ExecutionPlan) -> bool {
    const LINEAR: [&str; 15] = [
        "AggregateExec",
        "AsyncFuncExec",
        "CoalesceBatchesExec",
        "CoalescePartitionsExec",
        "CooperativeExec",
        "DataSourceExec",
        "EmptyExec",
        "FilterExec",
        "GlobalLimitExec",
        "LocalLimitExec",
        "PlaceholderRowExec",
        "ProjectionExec",
        "SortExec",
        "SortPreservingMergeExec",
        "UnionExec",
    ];
    LINEAR.contains(&plan.name()) && plan.children().iter().all(|child| is_linear(child.as_ref()))
}

/// The rows behind the scans, and how many there are at most when all are in memory.
fn with_contents(
    plan: LogicalPlan,
    contents: &dyn Contents,
) -> Result<(LogicalPlan, Option<usize>)> {
    let mut rows = Some(0);
    let looked_up = plan.transform_down_with_subqueries(|node| {
        let Some(lookup) = lookup_of(&node).map_err(external)? else {
            return Ok(Transformed::no(node));
        };
        let Some(batches) = contents.lookup(&lookup).map_err(external)? else {
            return Ok(Transformed::no(node));
        };
        let LogicalPlan::Filter(mut filter) = node else { return Ok(Transformed::no(node)) };
        if let LogicalPlan::TableScan(scan) = filter.input.as_ref() {
            let count: usize = batches.iter().map(RecordBatch::num_rows).sum();
            rows = rows.map(|rows: usize| rows + count);
            let schema = scan.source.schema();
            let mut scan = scan.clone();
            scan.source = provider_as_source(Arc::new(Snapshot { schema, batches }));
            filter.input = Arc::new(LogicalPlan::TableScan(scan));
        }
        Ok(Transformed::yes(LogicalPlan::Filter(filter)))
    });
    let plan = looked_up.map_err(Error::from)?.data;
    let plan = plan
        .transform_up_with_subqueries(|node| {
            let LogicalPlan::TableScan(mut scan) = node else { return Ok(Transformed::no(node)) };
            let content = if let Some(source) = scan.source.downcast_ref::<CatalogSource>() {
                match &source.version {
                    None => contents.object(source.object.id),
                    Some(version) => contents.past(source.object.id, version),
                }
            } else if let Some(source) = scan.source.downcast_ref::<SystemSource>() {
                contents
                    .system(source.relation.schema_name, source.relation.name)
                    .map(Content::Batches)
            } else if let Some(series) = scan.source.downcast_ref::<SeriesSource>() {
                scan.source = series.table.clone();
                return Ok(Transformed::yes(LogicalPlan::TableScan(scan)));
            } else {
                // A table function brings its own rows.
                return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
            };
            let provider = match content.map_err(crate::sql::resolve::external)? {
                Content::Provider(provider) => {
                    rows = None;
                    provider
                }
                Content::Stored(parts) => {
                    let count: usize = parts.iter().map(StoredPart::num_rows).sum();
                    rows = rows.map(|rows: usize| rows + count);
                    Arc::new(StoredTable::new(scan.source.schema(), parts))
                }
                Content::Batches(batches) => {
                    let count: usize = batches.iter().map(RecordBatch::num_rows).sum();
                    rows = rows.map(|rows: usize| rows + count);
                    Arc::new(Snapshot { schema: scan.source.schema(), batches })
                }
            };
            scan.source = provider_as_source(provider);
            Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
        })
        .map_err(Error::from)?;
    Ok((plan.data, rows))
}

/// A join may make many batches of one row without asking its inputs in between, where
/// DataFusion gives way. It gives way by itself then, so that sockets, other statements and the
/// cancelling of this one get their turn.
fn give_way(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let given = plan.transform_up(|node| {
        Ok(if node.children().len() > 1 {
            Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>)
        } else {
            Transformed::no(node)
        })
    });
    Ok(given.map_err(Error::from)?.data)
}

/// Below this many rows a second thread costs more than it brings.
pub const ROWS_SINGLE_THREAD_MAX: usize = 50_000;

/// The session to plan with: few rows are not worth spreading over threads.
fn session_for(rows: Option<usize>) -> &'static SessionState {
    if rows.is_some_and(|rows| rows <= ROWS_SINGLE_THREAD_MAX) {
        static SINGLE: std::sync::LazyLock<SessionState> = std::sync::LazyLock::new(|| {
            let config = SESSION.config().clone().with_target_partitions(1);
            SessionStateBuilder::new_from_existing(SESSION.clone()).with_config(config).build()
        });
        return &SINGLE;
    }
    &SESSION
}

/// A batch with the planned schema: DataFusion may call columns otherwise and mark them less.
fn conform(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| {
            if column.data_type() == field.data_type() {
                Ok(column.clone())
            } else {
                arrow::compute::cast(column, field.data_type()).map_err(Error::from)
            }
        })
        .collect::<Result<Vec<_>>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

/// Batches in memory as a table; nothing is copied.
#[derive(Debug)]
struct Snapshot {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

#[async_trait]
impl TableProvider for Snapshot {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let threads = session.config().target_partitions().max(1);
        let mut partitions = vec![vec![]; threads];
        for (index, batch) in self.batches.iter().enumerate() {
            partitions[index % threads].push(batch.clone());
        }
        let plan = MemorySourceConfig::try_new_exec(
            &partitions,
            self.schema.clone(),
            projection.cloned(),
        )?;
        Ok(plan)
    }
}
