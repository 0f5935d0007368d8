//! COPY FROM STDIN: rows from the client into a table, as one write.
//!
//! 1. The statement answers with a bounded queue and a task at its end.
//! 2. The task completes the rows (defaults, generated columns), checks and collects them.
//! 3. When the client is done, the rows are written; inside a transaction block they are left in
//!    the connection's slot, and become part of the block before its next statement.
//!
//! Dropping the queue without saying that it is finished drops the rows.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::sql::sqlparser::ast;
use tokio::sync::{mpsc, oneshot};

use crate::catalog::object::Object;
use crate::coordinator::command::{Connection, CopyIn, Response};
use crate::coordinator::event_loop::{Coordinator, TableWrite, WriteChange, WriteConflict};
use crate::coordinator::execute::copy_format;
use crate::coordinator::query::quoted;
use crate::coordinator::running::Running;
use crate::coordinator::transaction::rows_with_keys;
use crate::coordinator::write::{
    RowCollector, concat, conflict_of, resolve_insert, table_of, write_in_line,
};
use crate::sql::bind::PlanContext;
use crate::sql::dml::{InsertConflict, RowCompletion, check_rows};
use crate::sql::query::PlannedQuery;
use crate::sql::statement::{CopyData, Name};
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;

/// Batches between the frontend and the task.
const QUEUE_BATCHES: usize = 4;

/// Where a COPY of a transaction block leaves its changes.
pub(super) type CopySlot = Arc<Mutex<Option<(ObjectId, ChangeBatch)>>>;

/// What happens to the rows in the end.
enum Destination {
    /// Outside of a block.
    Commit(WriteConflict),
    /// In a block, which has locked the table.
    Block { pending: Vec<ChangeBatch>, key: Vec<usize>, conflict: WriteConflict, slot: CopySlot },
}

/// A COPY FROM STDIN while the client sends.
struct CopyTask {
    coordinator: Coordinator,
    running: Running,
    table: Arc<Object>,
    completion: RowCompletion,
    destination: Destination,
}

impl Connection {
    /// The query of COPY TO; `None` for COPY FROM.
    pub(super) fn plan_copy_out(
        &self,
        context: &PlanContext,
        copy: &CopyData,
    ) -> Result<Option<PlannedQuery>> {
        match copy {
            CopyData::In { .. } => Ok(None),
            CopyData::OutQuery { query, .. } => context.plan_query(&query.ast, &[]).map(Some),
            CopyData::OutRelation { relation, columns, .. } => {
                let columns = columns.as_ref().map_or_else(
                    || "*".to_owned(),
                    |names| {
                        let names: Vec<String> = names
                            .iter()
                            .map(|n| format!("\"{}\"", n.replace('"', "\"\"")))
                            .collect();
                        names.join(", ")
                    },
                );
                let sql = format!("SELECT {columns} FROM {}", quoted(relation));
                let query = crate::sql::parse::parse_query(&sql)?;
                // Positions in a text that the user has not written mean nothing to him.
                context
                    .plan_query(&query, &[])
                    .map_err(|error| error.without_position().position(relation.position))
                    .map(Some)
            }
        }
    }

    pub(super) async fn run_copy_in(
        &mut self,
        running: &Running,
        context: &PlanContext,
        copy: &CopyData,
    ) -> Result<Response> {
        let CopyData::In { table: name, columns, .. } = copy else {
            return Err(Error::internal("COPY TO has a query"));
        };
        let table = self.resolve(context, name)?;
        let definition = table_of(&table, "copy to").map_err(|e| e.position(name.position))?;
        let conflict = conflict_of(&InsertConflict::Default, definition);
        let columns: Vec<String> = columns.iter().flatten().cloned().collect();
        let completion = context.plan_row_completion(&table, &columns)?;
        let destination = if self.transaction.is_some() {
            self.copy_in_block(running, &table, definition.primary_key.clone(), conflict).await?
        } else {
            Destination::Commit(conflict)
        };
        let (rows, received) = mpsc::channel(QUEUE_BATCHES);
        let (finish, finished) = oneshot::channel();
        let (answer, done) = oneshot::channel();
        let schema = completion.input.clone();
        let task = CopyTask {
            coordinator: self.write_coordinator(),
            running: running.clone(),
            table,
            completion,
            destination,
        };
        tokio::spawn(async move {
            // Nobody waits for the answer when the client has gone.
            let _ = answer.send(task.run(received, finished).await);
        });
        Ok(Response::CopyIn(CopyIn { schema, format: copy_format(copy), rows, finish, done }))
    }

    async fn copy_in_block(
        &mut self,
        running: &Running,
        table: &Object,
        key: Vec<usize>,
        conflict: WriteConflict,
    ) -> Result<Destination> {
        let strict = self.strict();
        let (mut block, _) = self.take_block();
        let coordinator = &self.database.coordinator;
        let locked = block.lock_for_write(coordinator, running, table.id, &[], strict).await;
        let pending = block.pending_of(table.id).to_vec();
        self.transaction = Some(block);
        locked?;
        let slot = CopySlot::default();
        self.copy = Some(slot.clone());
        Ok(Destination::Block { pending, key, conflict, slot })
    }

    /// Takes what a finished COPY has left into the block.
    pub(super) fn settle_copy(&mut self) {
        let Some(slot) = self.copy.take() else { return };
        let changes = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(block), Some((table, changes))) = (&mut self.transaction, changes) {
            block.add(table, changes);
        }
    }

    /// The catalog object of a parsed name.
    pub(super) fn resolve(&self, context: &PlanContext, name: &Name) -> Result<Arc<Object>> {
        context
            .resolve(&object_name(name))
            .map_err(|e| e.without_position().position(name.position))
    }
}

/// The name as sqlparser has it; folded already, so quoted.
pub(super) fn object_name(name: &Name) -> ast::ObjectName {
    let parts = [&name.database, &name.schema, &Some(name.name.clone())];
    let idents: Vec<ast::Ident> = parts
        .into_iter()
        .flatten()
        .map(|part| ast::Ident::with_quote('"', part.as_str()))
        .collect();
    ast::ObjectName::from(idents)
}

impl CopyTask {
    /// The number of rows, once they are committed or part of the block.
    async fn run(
        self,
        mut received: mpsc::Receiver<RecordBatch>,
        finished: oneshot::Receiver<()>,
    ) -> Result<u64> {
        let mut collected = RowCollector::new(&self.coordinator);
        loop {
            let next = self.running.wait(async { Ok(received.recv().await) }).await?;
            let Some(rows) = next else { break };
            collected.add(check_rows(&self.table, self.complete(&rows)?)?)?;
        }
        if finished.await.is_err() {
            return Err(Error::user(SqlState::QUERY_CANCELED, "COPY from stdin failed"));
        }
        let rows = concat(&self.table.schema, &collected.batches)?;
        let table = self.table.id;
        match self.destination {
            Destination::Commit(on_conflict) => {
                let change = WriteChange::Insert { rows, on_conflict };
                let writes = vec![TableWrite { table, change }];
                let outcome = write_in_line(&self.coordinator, &self.running, writes).await?;
                Ok(outcome.counts.first().copied().unwrap_or(0))
            }
            Destination::Block { pending, key, conflict, slot } => {
                let (coordinator, running) = (&self.coordinator, &self.running);
                let existing =
                    rows_with_keys(coordinator, running, &self.table, &key, &rows, &pending)
                        .await?;
                let resolved = resolve_insert(&self.table, &key, &existing, rows, conflict)?;
                *slot.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some((table, resolved.changes));
                Ok(resolved.count)
            }
        }
    }

    /// Whole rows from the columns that the client sends.
    fn complete(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let columns =
            self.completion.columns.iter().map(|e| e.evaluate(rows)).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        // NULLs in NOT NULL columns are found afterwards, with Postgres's message.
        let fields: Vec<arrow::datatypes::Field> = self
            .table
            .schema
            .fields()
            .iter()
            .map(|f| f.as_ref().clone().with_nullable(true))
            .collect();
        let schema = Arc::new(arrow::datatypes::Schema::new(fields));
        Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
    }
}
