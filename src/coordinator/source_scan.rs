//! A bounded source as a table of the batch engine.
//!
//! 1. The splits are dealt out to a few readers, each on a blocking thread of its own.
//! 2. A reader asks the connector for the columns only that the query wants, or that the wanted
//!    columns are computed from, and hands batches over through a bounded queue: it never works
//!    far ahead of the query.
//! 3. When the query ends early the queue closes, and so does the thread.
//!
//! Records that could not be read are counted, and told as one warning per reader at its end.
//!
//! Rows that come behind their split's watermark are left out, as in the views over the source, but
//! for those that were taken in again.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr as LogicalExpr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use tokio::sync::mpsc;

use crate::catalog::object::{Object, ObjectKind};
use crate::connectors::{MalformedRecord, Read, ReadRange, Source, SplitId};
use crate::coordinator::command::{Notice, SessionShared};
use crate::coordinator::query::unbounded;
use crate::coordinator::recovery::stored_rule;
use crate::dataflow::operators::source_time::{ColumnRule, SplitTime, with_needed};
use crate::plan::expr::Expr;
use crate::plan::node::WatermarkSpec;
use crate::sql::bind::PlanContext;
use crate::types::error::{Error, Result};

/// Threads that read one source for one query.
const READERS_MAX: usize = 4;
/// Rows asked of a split at a time.
const BATCH_ROWS: usize = 8192;
/// Batches between a reader and the query.
const QUEUE_BATCHES: usize = 4;

/// One bounded source for one query.
pub(super) struct SourceTable {
    name: String,
    source: Arc<dyn Source>,
    schema: SchemaRef,
    /// The columns over the connector's; `None`: column for column.
    columns: Option<Arc<Vec<Expr>>>,
    watermark: Option<WatermarkSpec>,
    /// Rows that were late and have been taken in again.
    replayed: Vec<RecordBatch>,
    session: Arc<SessionShared>,
}

impl fmt::Debug for SourceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceTable").field("name", &self.name).finish_non_exhaustive()
    }
}

impl SourceTable {
    /// Opens a source for reading.
    ///
    /// # Errors
    /// SQLSTATE 55000 when it has no end.
    pub fn open(
        context: &PlanContext,
        object: &Object,
        replayed: Vec<RecordBatch>,
        session: Arc<SessionShared>,
    ) -> Result<SourceTable> {
        let ObjectKind::Source(definition) = &object.kind else {
            return Err(Error::internal(format!("{} is not a source", object.name.name)));
        };
        if !definition.bounded {
            return Err(unbounded(object, definition));
        }
        let source = crate::coordinator::ddl::open_connector(definition)?;
        let watermark = definition.watermark.as_ref();
        let watermark = watermark.map(|w| stored_rule(context, object, w)).transpose()?;
        Ok(SourceTable {
            watermark,
            name: object.name.name.clone(),
            source,
            schema: object.schema.clone(),
            columns: crate::coordinator::ddl::source_columns(context, object, definition)?,
            replayed,
            session,
        })
    }
}

#[async_trait]
impl TableProvider for SourceTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[LogicalExpr],
        limit: Option<usize>,
    ) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        let wanted: Vec<usize> = match projection {
            Some(columns) => columns.clone(),
            None => (0..self.schema.fields().len()).collect(),
        };
        let schema = Arc::new(self.schema.project(&wanted)?);
        let replayed: Vec<RecordBatch> =
            self.replayed.iter().map(|rows| rows.project(&wanted)).collect::<Result<_, _>>()?;
        // What a watermark looks at is read, too, and taken out again.
        let read = match &self.watermark {
            Some(_) => with_needed(self.watermark.as_ref(), &wanted),
            None => wanted.clone(),
        };
        let rule = self.watermark.as_ref().map(|watermark| ColumnRule::new(watermark, &read));
        let rule = rule.transpose().map_err(external)?.map(Arc::new);
        let place = |column: &usize| read.iter().position(|read| read == column);
        let places: Option<Vec<usize>> = wanted.iter().map(place).collect();
        let places = places.ok_or_else(|| external(Error::internal("a column is not read")))?;
        let read_schema = Arc::new(self.schema.project(&read)?);
        let wanted = read;
        let splits = self.source.splits().map_err(external)?;
        let readers = splits.len().clamp(1, READERS_MAX);
        let (physical, outputs) = match &self.columns {
            // Computed columns may use any of the connector's.
            Some(columns) => (
                (0..self.source.schema().fields().len()).collect(),
                Some(wanted.iter().map(|column| columns[*column].clone()).collect::<Vec<_>>()),
            ),
            None => (wanted, None),
        };
        let outputs = outputs.map(Arc::new);
        let mut partitions: Vec<Arc<dyn PartitionStream>> = (0..readers)
            .map(|reader| {
                let share = splits.iter().skip(reader).step_by(readers).cloned().collect();
                Arc::new(Share {
                    name: self.name.clone(),
                    source: self.source.clone(),
                    splits: share,
                    physical: physical.clone(),
                    outputs: outputs.clone(),
                    read_schema: read_schema.clone(),
                    rule: rule.clone(),
                    places: places.clone(),
                    schema: schema.clone(),
                    session: self.session.clone(),
                }) as Arc<dyn PartitionStream>
            })
            .collect();
        if !replayed.is_empty() {
            partitions.push(Arc::new(Again { schema: schema.clone(), rows: replayed }));
        }
        let scan = StreamingTableExec::try_new(schema, partitions, None, [], false, limit)?;
        Ok(Arc::new(scan))
    }
}

/// Rows that stand beside what is read.
#[derive(Debug)]
struct Again {
    schema: SchemaRef,
    rows: Vec<RecordBatch>,
}

impl PartitionStream for Again {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = futures::stream::iter(self.rows.clone().into_iter().map(Ok));
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows))
    }
}

/// What one reader reads.
#[derive(Clone)]
struct Share {
    name: String,
    source: Arc<dyn Source>,
    splits: Vec<SplitId>,
    /// Columns of the connector.
    physical: Vec<usize>,
    /// Columns to compute from these; `None`: they are the result.
    outputs: Option<Arc<Vec<Expr>>>,
    read_schema: SchemaRef,
    /// Which rows are late.
    rule: Option<Arc<ColumnRule>>,
    /// Where the columns of the result stand among those that are read.
    places: Vec<usize>,
    schema: SchemaRef,
    session: Arc<SessionShared>,
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} splits)", self.name, self.splits.len())
    }
}

impl PartitionStream for Share {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (sender, receiver) = mpsc::channel(QUEUE_BATCHES);
        let share = self.clone();
        tokio::task::spawn_blocking(move || {
            let mut malformed = Malformed::default();
            if let Err(error) = share.read_splits(&sender, &mut malformed) {
                // Nobody listens any more when the query has ended first.
                let _ = sender.blocking_send(Err(external(error)));
            }
            malformed.tell(&share);
        });
        let rows = futures::stream::unfold(receiver, |mut receiver| async move {
            let batch = receiver.recv().await?;
            Some((batch, receiver))
        });
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows))
    }
}

type BatchSender = mpsc::Sender<datafusion::common::Result<RecordBatch>>;

impl Share {
    /// Reads until the end, or until nobody wants more.
    fn read_splits(&self, sender: &BatchSender, malformed: &mut Malformed) -> Result<()> {
        for split in &self.splits {
            let range = ReadRange { columns: self.physical.clone(), ..ReadRange::default() };
            let mut reader = self.source.open(split, range)?;
            let mut time = SplitTime::default();
            loop {
                match reader.read(BATCH_ROWS)? {
                    Read::Rows(read) => {
                        malformed.add(read.malformed);
                        let batch = self.output(&read.rows, &mut time)?;
                        if batch.num_rows() > 0 && sender.blocking_send(Ok(batch)).is_err() {
                            return Ok(());
                        }
                    }
                    Read::Idle(pause) => {
                        if sender.is_closed() {
                            return Ok(());
                        }
                        pause_reading(pause);
                    }
                    Read::End => break,
                }
            }
        }
        Ok(())
    }

    /// The result's columns of the rows that are not late.
    fn output(&self, rows: &RecordBatch, time: &mut SplitTime) -> Result<RecordBatch> {
        let columns: Vec<ArrayRef> = match &self.outputs {
            None => rows.columns().to_vec(),
            Some(outputs) => outputs.iter().map(|e| e.evaluate(rows)).collect::<Result<_>>()?,
        };
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let schema = self.read_schema.clone();
        let read = RecordBatch::try_new_with_options(schema, columns, &options)?;
        let Some(rule) = &self.rule else { return Ok(read) };
        let read = match time.judge(rule, &read)?.late {
            None => read,
            Some(late) => compute::filter_record_batch(&read, &compute::not(&late)?)?,
        };
        let columns = self.places.iter().map(|place| read.column(*place).clone()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(read.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

/// Records that one reader could not read.
#[derive(Default)]
struct Malformed {
    count: u64,
    first: Option<MalformedRecord>,
}

impl Malformed {
    fn add(&mut self, records: Vec<MalformedRecord>) {
        self.count += records.len() as u64;
        if self.first.is_none() {
            self.first = records.into_iter().next();
        }
    }

    /// Tells the client, if there is something to tell.
    fn tell(self, share: &Share) {
        let Some(first) = self.first else { return };
        let (noun, verb) = if self.count == 1 { ("record", "was") } else { ("records", "were") };
        let mut notice = Notice::warning(
            "01000",
            format!(
                "{} {noun} of source \"{}\" could not be read and {verb} left out",
                self.count, share.name
            ),
        );
        notice.detail = Some(format!("The first: {}: {}.", first.place, first.message));
        share.session.notify(notice);
    }
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Waits on the reading's own thread, which nobody else waits for.
#[expect(clippy::disallowed_methods, reason = "a pause is short, and the end is seen after it")]
fn pause_reading(pause: std::time::Duration) {
    std::thread::sleep(pause);
}
