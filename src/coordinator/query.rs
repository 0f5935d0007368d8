//! SELECT and SUBSCRIBE.
//!
//! SELECT: hold the newest epoch of all tables and materialized views that the query reads, and
//! run it on the batch engine over their snapshots. Bounded sources are read while the query
//! runs, by threads of their own and with the columns only that the query wants.
//!
//! SUBSCRIBE: the query as a dataflow of its own; its changes become rows with the epoch and the
//! weight in front.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, new_null_array,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::{StreamExt, TryStreamExt};

use crate::catalog::object::{Object, ObjectKind, SourceObject};
use crate::catalog::snapshot::Catalog;
use crate::coordinator::command::{Connection, Response, RowStream, Value};
use crate::coordinator::event_loop::Span;
use crate::coordinator::running::Running;
use crate::coordinator::source_scan::SourceTable;
use crate::coordinator::stored;
use crate::coordinator::subscription::SubscriptionStep;
use crate::coordinator::system_relations::SystemContents;
use crate::sql::bind::PlanContext;
use crate::sql::lookup::Lookup;
use crate::sql::query::{Content, Contents, PlannedQuery, ROWS_SINGLE_THREAD_MAX};
use crate::sql::statement::{Expression, Subscribe, SubscribeTarget};
use crate::sql::system_time;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;
use crate::types::time::{At, Epoch};

/// The columns that SUBSCRIBE puts in front of the query's.
const SUBSCRIBE_COLUMNS: [(&str, DataType); 3] = [
    ("millstream_epoch", DataType::Int64),
    ("millstream_progress", DataType::Boolean),
    ("millstream_weight", DataType::Int64),
];

/// What one statement reads: snapshots of stored objects, readers of sources, system relations.
pub(super) struct StatementContents {
    pub stored: stored::Contents,
    /// Snapshots as of a time.
    pub past: HashMap<(ObjectId, Arc<str>), Vec<RecordBatch>>,
    pub sources: HashMap<ObjectId, Arc<SourceTable>>,
    pub system: SystemContents,
}

impl Contents for StatementContents {
    fn object(&self, id: ObjectId) -> Result<Content> {
        if let Some(stored) = self.stored.get(&id) {
            return match stored.large_parts(ROWS_SINGLE_THREAD_MAX) {
                Some(parts) => Ok(Content::Stored(parts)),
                None => stored.batches().map(Content::Batches),
            };
        }
        match self.sources.get(&id) {
            Some(source) => Ok(Content::Provider(source.clone())),
            None => Err(Error::internal(format!("{id} was not prepared for reading"))),
        }
    }

    fn lookup(&self, lookup: &Lookup) -> Result<Option<Vec<RecordBatch>>> {
        self.stored.get(&lookup.object).map_or(Ok(None), |stored| stored.lookup(lookup))
    }

    fn past(&self, id: ObjectId, version: &str) -> Result<Content> {
        match self.past.get(&(id, version.into())) {
            Some(batches) => Ok(Content::Batches(batches.clone())),
            None => Err(Error::internal(format!("{id} was not prepared for reading"))),
        }
    }

    fn system(&self, schema: &str, name: &str) -> Result<Vec<RecordBatch>> {
        self.system.rows(schema, name)
    }
}

impl Connection {
    /// Runs a query whose parameters are bound.
    pub(super) async fn run_query(
        &mut self,
        running: &Running,
        context: &PlanContext,
        planned: &PlannedQuery,
    ) -> Result<RowStream> {
        if let Some(block) = &mut self.transaction {
            block.begun = true;
        }
        let contents = self.contents(running, context, planned).await?;
        self.start_rows(running, context, planned, &contents).await
    }

    /// Starts a query over its contents.
    pub(super) async fn start_rows(
        &self,
        running: &Running,
        context: &PlanContext,
        planned: &PlannedQuery,
        contents: &StatementContents,
    ) -> Result<RowStream> {
        let run = running.wait(planned.prepare_run(contents, context.now)).await?;
        self.database.batch.rows(run)
    }

    /// Everything that the query reads, at one epoch.
    async fn contents(
        &mut self,
        running: &Running,
        context: &PlanContext,
        planned: &PlannedQuery,
    ) -> Result<StatementContents> {
        let (stored, sources) = split_objects(&context.catalog, &planned.objects);
        let coordinator = &self.database.coordinator;
        let stored = match &mut self.transaction {
            _ if stored.is_empty() => stored::Contents::new(),
            Some(block) => block.read(coordinator, running, &stored).await?,
            None => {
                let parts = running.wait(coordinator.read_parts(stored.clone())).await?;
                check_columns(&context.catalog, &coordinator.catalog(), &stored)?;
                stored::of_parts(parts)
            }
        };
        self.contents_over(running, context, planned, stored, sources).await
    }

    /// Puts the other parts beside the snapshots.
    pub(super) async fn contents_over(
        &self,
        running: &Running,
        context: &PlanContext,
        planned: &PlannedQuery,
        stored: stored::Contents,
        sources: Vec<Arc<Object>>,
    ) -> Result<StatementContents> {
        let mut readers = HashMap::new();
        for object in sources {
            // What was late and has been taken in again.
            let mut replayed = Vec::new();
            if let Some(table) = context.catalog.replayed_of(object.id) {
                let id = table.id;
                let coordinator = &self.database.coordinator;
                let mut read = running.wait(coordinator.read(vec![id])).await?;
                replayed = read.contents.remove(&id).unwrap_or_default();
            }
            let table = SourceTable::open(context, &object, replayed, self.session.clone())?;
            readers.insert(object.id, Arc::new(table));
        }
        let system = self.system_contents(running, &context.catalog, planned).await?;
        let past = self.past_contents(running, context, planned).await?;
        Ok(StatementContents { stored, past, sources: readers, system })
    }

    /// What the query reads as of a time: all that it reads as of the same time, at one epoch.
    async fn past_contents(
        &self,
        running: &Running,
        context: &PlanContext,
        planned: &PlannedQuery,
    ) -> Result<HashMap<(ObjectId, Arc<str>), Vec<RecordBatch>>> {
        type Scanned = (ObjectId, Arc<str>);
        let mut by_time: Vec<(At, Vec<Scanned>)> = Vec::new();
        for (id, version) in &planned.past {
            let at = system_time::evaluate(context, version)?;
            let scanned = (*id, version.clone());
            match by_time.iter_mut().find(|(other, _)| *other == at) {
                Some((_, scans)) => scans.push(scanned),
                None => by_time.push((at, vec![scanned])),
            }
        }
        let coordinator = &self.database.coordinator;
        let mut past = HashMap::new();
        for (at, scans) in by_time {
            let mut objects: Vec<ObjectId> = scans.iter().map(|(id, _)| *id).collect();
            objects.sort_unstable();
            objects.dedup();
            let read = running.wait(coordinator.read_at(objects.clone(), at)).await?;
            check_columns(&context.catalog, &coordinator.catalog(), &objects)?;
            for (id, version) in scans {
                let rows = read.contents.get(&id).cloned().unwrap_or_default();
                past.insert((id, version), rows);
            }
        }
        Ok(past)
    }

    /// Runs a query to its end.
    pub(super) async fn collect(
        &self,
        running: &Running,
        context: &PlanContext,
        planned: &PlannedQuery,
        contents: &StatementContents,
    ) -> Result<Vec<RecordBatch>> {
        let rows = self.start_rows(running, context, planned, contents).await?;
        running.wait(rows.try_collect::<Vec<RecordBatch>>()).await
    }

    /// The value of a query of one row and one column, as EXECUTE's arguments are.
    pub(super) async fn evaluate_one(
        &mut self,
        running: &Running,
        context: &PlanContext,
        planned: &PlannedQuery,
    ) -> Result<Value> {
        let rows = self.run_query(running, context, planned).await?;
        let batches: Vec<RecordBatch> = running.wait(rows.try_collect()).await?;
        let batch = arrow::compute::concat_batches(&planned.schema, &batches)?;
        if batch.num_rows() != 1 || batch.num_columns() != 1 {
            return Err(Error::internal("a scalar expression gave no single value"));
        }
        Ok(batch.column(0).clone())
    }

    /// The query that SUBSCRIBE follows.
    pub(super) fn plan_subscribe(
        &self,
        context: &PlanContext,
        subscribe: &Subscribe,
    ) -> Result<PlannedQuery> {
        match &subscribe.target {
            SubscribeTarget::Query(query) => context.plan_query(&query.ast, &[]),
            SubscribeTarget::Relation(name) => {
                let query = crate::sql::parse::parse_query(&format!("TABLE {}", quoted(name)))?;
                context
                    .plan_query(&query, &[])
                    .map_err(|error| error.without_position().position(name.position))
            }
        }
    }

    /// Starts a subscription.
    pub(super) async fn run_subscribe(
        &mut self,
        running: &Running,
        context: &PlanContext,
        planned: &PlannedQuery,
        subscribe: &Subscribe,
    ) -> Result<Response> {
        let plan = planned.lower()?;
        let at = |clause: &Option<Expression>| {
            let evaluated = clause.as_ref().map(|e| {
                let at = system_time::evaluate(context, &e.sql);
                at.map_err(|error| error.without_position().position(e.position))
            });
            evaluated.transpose()
        };
        let span = Span { as_of: at(&subscribe.as_of)?, up_to: at(&subscribe.up_to)? };
        let coordinator = &self.database.coordinator;
        let subscription = running.wait(coordinator.subscribe_span(plan, span)).await?;
        let schema = subscribe_schema(&planned.schema);
        let shape = SubscribeShape { schema: schema.clone(), progress: subscribe.progress };
        let skipped = (!subscribe.snapshot).then_some(subscription.as_of);
        let steps = futures::stream::unfold(subscription, |mut subscription| async move {
            let step = subscription.changes.recv().await?;
            Some((step, subscription))
        });
        let rows = steps
            .filter(move |step| {
                let first = matches!(step, Ok(step) if Some(step.epoch) <= skipped);
                std::future::ready(!first)
            })
            .flat_map(move |step| {
                let batches = step.and_then(|step| shape.batches(&step));
                futures::stream::iter(match batches {
                    Ok(batches) => batches.into_iter().map(Ok).collect::<Vec<_>>(),
                    Err(error) => vec![Err(error)],
                })
            })
            .boxed();
        Ok(Response::Rows { schema, rows, tag: "SUBSCRIBE {}".to_owned() })
    }
}

/// Refuses to go on when a relation has other columns than the statement was planned with.
fn check_columns(planned: &Catalog, now: &Catalog, objects: &[ObjectId]) -> Result<()> {
    if planned.version() == now.version() {
        return Ok(());
    }
    for id in objects {
        let (Some(planned), Some(now)) = (planned.get(*id), now.get(*id)) else { continue };
        if planned.schema != now.schema {
            return Err(Error::user(
                SqlState::OBJECT_IN_USE,
                format!("\"{}\" has been replaced meanwhile", now.name.name),
            )
            .hint("Run the statement again.")
            .retryable());
        }
    }
    Ok(())
}

/// Stored objects and sources apart; views are no part of a plan.
pub(super) fn split_objects(
    catalog: &Catalog,
    objects: &[ObjectId],
) -> (Vec<ObjectId>, Vec<Arc<Object>>) {
    let mut stored = Vec::new();
    let mut sources = Vec::new();
    for id in objects {
        match catalog.get(*id) {
            Some(object) if matches!(object.kind, ObjectKind::Source(_)) => {
                sources.push(object.clone());
            }
            _ => stored.push(*id),
        }
    }
    (stored, sources)
}

/// A name as it must be written to be read back.
pub(super) fn quoted(name: &crate::sql::statement::Name) -> String {
    let parts = [name.database.as_deref(), name.schema.as_deref(), Some(name.name.as_str())];
    let parts: Vec<String> = parts
        .into_iter()
        .flatten()
        .map(|part| format!("\"{}\"", part.replace('"', "\"\"")))
        .collect();
    parts.join(".")
}

/// SQLSTATE 55000: SELECT of a source that never ends.
pub(super) fn unbounded(object: &Object, source: &SourceObject) -> Error {
    Error::user(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("source \"{}\" has no end and cannot be read by SELECT", object.name.name),
    )
    .detail(format!("Its connector {} delivers rows for ever.", source.connector))
    .hint("Create a materialized view over it, and read that; or SUBSCRIBE to a query over it.")
}

/// The columns of a subscription: all nullable, since progress rows have none of the query's.
pub(super) fn subscribe_schema(query: &SchemaRef) -> SchemaRef {
    let own = SUBSCRIBE_COLUMNS
        .iter()
        .map(|(name, data_type)| Arc::new(Field::new(*name, data_type.clone(), true)));
    let others = query.fields().iter().map(|f| Arc::new(f.as_ref().clone().with_nullable(true)));
    Arc::new(Schema::new(own.chain(others).collect::<Vec<_>>()))
}

/// How the steps of a subscription become rows.
struct SubscribeShape {
    schema: SchemaRef,
    progress: bool,
}

impl SubscribeShape {
    fn batches(&self, step: &SubscriptionStep) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::with_capacity(step.changes.len() + 1);
        for changes in &step.changes {
            if !changes.is_empty() {
                batches.push(self.change_rows(step.epoch, changes)?);
            }
        }
        if self.progress {
            batches.push(self.progress_row(step.epoch)?);
        }
        Ok(batches)
    }

    fn change_rows(&self, epoch: Epoch, changes: &ChangeBatch) -> Result<RecordBatch> {
        let rows = changes.num_rows();
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![epoch.0 as i64; rows])),
            Arc::new(BooleanArray::from(vec![false; rows])),
            Arc::new(Int64Array::from(changes.weights_vec())),
        ];
        columns.extend(changes.rows().columns().iter().cloned());
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }

    fn progress_row(&self, epoch: Epoch) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![epoch.0 as i64])),
            Arc::new(BooleanArray::from(vec![true])),
        ];
        columns
            .extend(self.schema.fields().iter().skip(2).map(|f| new_null_array(f.data_type(), 1)));
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn changes_and_progress_become_rows() {
        let query = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, false)]));
        let rows =
            RecordBatch::try_new(query.clone(), vec![Arc::new(Int64Array::from(vec![7, 8]))])
                .expect("a column");
        let changes = ChangeBatch::new(rows, vec![2, -1]).expect("weights");
        let step = SubscriptionStep { epoch: Epoch(5), changes: vec![changes] };
        let shape = SubscribeShape { schema: subscribe_schema(&query), progress: true };
        let batches = shape.batches(&step).expect("rows");
        assert_eq!(batches.len(), 2);
        let ints = |batch: usize, column: usize| {
            batches[batch].column(column).as_primitive::<Int64Type>().iter().collect::<Vec<_>>()
        };
        assert_eq!(ints(0, 0), [Some(5), Some(5)]);
        assert_eq!(ints(0, 2), [Some(2), Some(-1)]);
        assert_eq!(ints(0, 3), [Some(7), Some(8)]);
        assert_eq!(ints(1, 0), [Some(5)]);
        assert!(batches[1].column(1).as_boolean().value(0));
        assert_eq!(ints(1, 3), [None]);
    }
}
