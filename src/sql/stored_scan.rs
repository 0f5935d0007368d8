//! The rows of tables and materialized views for the batch engine, made as they are read.
//!
//! Much of a large table may be on the disk, and rows that have died are left out by copying the
//! others: to have all of its batches before the first is read would bring it into memory as a
//! whole. Here a scan holds one batch at a time. Small ones are read at once (`Content::Batches`),
//! which is cheaper for them.

use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::source::{DataSource, DataSourceExec};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayFormatType, ExecutionPlan};
use futures::stream;

use crate::sql::resolve::external;
use crate::state::snapshot::{Snapshot, SnapshotBatches};

/// Snapshots as a table.
#[derive(Debug)]
pub struct StoredTable {
    schema: SchemaRef,
    parts: Vec<Snapshot>,
}

impl StoredTable {
    /// `parts` have these columns, and names that may differ.
    pub fn new(schema: SchemaRef, parts: Vec<Snapshot>) -> StoredTable {
        StoredTable { schema, parts }
    }
}

#[async_trait]
impl TableProvider for StoredTable {
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
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let threads = session.config().target_partitions().max(1);
        let all = || (0..self.schema.fields().len()).collect();
        let columns: Vec<usize> = projection.cloned().unwrap_or_else(all);
        let source = StoredScan {
            schema: Arc::new(self.schema.project(&columns)?),
            columns,
            parts: self.parts.clone(),
            partitions: threads,
            rows_max: None,
        };
        Ok(DataSourceExec::from_data_source(source))
    }
}

/// A scan of snapshots.
#[derive(Clone, Debug)]
struct StoredScan {
    /// Of the columns that are read.
    schema: SchemaRef,
    columns: Vec<usize>,
    parts: Vec<Snapshot>,
    /// Each has a share of every part.
    partitions: usize,
    /// No partition gives more rows.
    rows_max: Option<usize>,
}

/// What is left to read of a partition.
struct Reading {
    schema: SchemaRef,
    columns: Vec<usize>,
    /// Parts that have not been begun, last first.
    parts: Vec<Snapshot>,
    /// Which share of each part, and of how many.
    share: (usize, usize),
    batches: Option<SnapshotBatches>,
    rows_left: usize,
}

impl Reading {
    fn next(&mut self) -> Result<Option<RecordBatch>> {
        while self.rows_left > 0 {
            let Some(batches) = &mut self.batches else {
                let Some(part) = self.parts.pop() else { return Ok(None) };
                self.batches = Some(part.share_of(self.columns.clone(), self.share));
                continue;
            };
            match batches.next() {
                None => self.batches = None,
                Some(batch) => {
                    let batch = batch.map_err(external)?;
                    let batch = batch.slice(0, batch.num_rows().min(self.rows_left));
                    self.rows_left -= batch.num_rows();
                    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                    let (schema, columns) = (self.schema.clone(), batch.columns().to_vec());
                    return Ok(Some(RecordBatch::try_new_with_options(schema, columns, &options)?));
                }
            }
        }
        Ok(None)
    }
}

impl DataSource for StoredScan {
    fn open(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let mut parts = self.parts.clone();
        parts.reverse();
        let reading = Reading {
            schema: self.schema.clone(),
            columns: self.columns.clone(),
            parts,
            share: (partition, self.partitions),
            batches: None,
            rows_left: self.rows_max.unwrap_or(usize::MAX),
        };
        let batches = stream::try_unfold(reading, |mut reading| async move {
            Ok::<_, DataFusionError>(reading.next()?.map(|batch| (batch, reading)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), batches)))
    }

    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "stored, partitions={}", self.partitions)
    }

    fn output_partitioning(&self) -> Partitioning {
        Partitioning::UnknownPartitioning(self.partitions)
    }

    fn eq_properties(&self) -> EquivalenceProperties {
        EquivalenceProperties::new(self.schema.clone())
    }

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Arc<Statistics>> {
        let rows: usize = self.parts.iter().map(Snapshot::num_rows).sum();
        let rows = match (partition, self.rows_max) {
            (None, None) => Precision::Exact(rows),
            (None, Some(max)) => Precision::Inexact(rows.min(max.saturating_mul(self.partitions))),
            (Some(_), max) => {
                let share = rows / self.partitions;
                Precision::Inexact(max.map_or(share, |max| share.min(max)))
            }
        };
        let statistics = Statistics::new_unknown(&self.schema).with_num_rows(rows);
        Ok(Arc::new(statistics))
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn DataSource>> {
        Some(Arc::new(StoredScan { rows_max: limit, ..self.clone() }))
    }

    fn fetch(&self) -> Option<usize> {
        self.rows_max
    }

    fn try_swapping_with_projection(
        &self,
        _: &ProjectionExprs,
    ) -> Result<Option<Arc<dyn DataSource>>> {
        Ok(None)
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }
}
