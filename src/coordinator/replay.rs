//! REPLAY LATE: takes late rows of a source or table in again, as far as time allows.
//!
//! 1. A source gets a table for what is taken in again, `<name>_replayed`, with the first such
//!    statement; the rows of a table go into the table itself.
//! 2. The table of late rows is locked, and the rows that the condition chooses are read.
//! 3. The coordinator decides which of them may come, and writes (`event_loop/replay.rs`).
//!
//! The answer is the rows that are beyond repair, each with the view that has closed its time; they
//! stay where they are. A notice says how many rows were taken in.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::StreamExt;

use crate::catalog::object::{Object, ObjectKind, ObjectName, TableConflict, TableObject};
use crate::coordinator::command::{Connection, Notice, Response};
use crate::coordinator::event_loop::{
    Install, Replay, Replayed, TableWrite, WriteChange, WriteConflict,
};
use crate::coordinator::query::split_objects;
use crate::coordinator::running::Running;
use crate::coordinator::stored::of_parts;
use crate::coordinator::write::with_schema;
use crate::sql::bind::PlanContext;
use crate::sql::query::PlannedQuery;
use crate::sql::statement::{Name, ReplayLate};
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;
use crate::types::sql_type::SqlType;

/// Columns of the table of late rows behind those of its owner: event time, watermark, arrival.
const COLUMNS_BEHIND: usize = 3;

/// The columns of the answer, for late rows with these.
pub(super) fn replay_schema(late: &Schema) -> SchemaRef {
    let mut fields = late.fields().to_vec();
    let mut name = "closed_by".to_owned();
    while fields.iter().any(|field| *field.name() == name) {
        name.push('_');
    }
    fields.push(Arc::new(Field::new(name, DataType::Utf8, true)));
    Arc::new(Schema::new(fields))
}

impl Connection {
    /// The query for the late rows of the statement.
    pub(super) fn plan_replay(
        &self,
        context: &PlanContext,
        replay: &ReplayLate,
        declared: &[Option<SqlType>],
    ) -> Result<PlannedQuery> {
        let (_, late) = self.late_table_of(context, &replay.name)?;
        context.plan_rows_of(&late, replay.condition.as_ref(), declared)
    }

    /// The source or table of that name, and the table of its late rows.
    fn late_table_of(
        &self,
        context: &PlanContext,
        name: &Name,
    ) -> Result<(Arc<Object>, Arc<Object>)> {
        let owner = self.resolve(context, name)?;
        match context.catalog.late_of(owner.id) {
            Some(late) => Ok((owner, late.clone())),
            None => Err(Error::user(
                SqlState::WRONG_OBJECT_TYPE,
                format!("\"{}\" has no late rows", owner.name.name),
            )
            .detail("Only a source or table with a watermark has.")
            .position(name.position)),
        }
    }

    pub(super) async fn run_replay(
        &mut self,
        running: &Running,
        context: &PlanContext,
        replay: &ReplayLate,
        rows: &PlannedQuery,
    ) -> Result<Response> {
        let (owner, late) = self.late_table_of(context, &replay.name)?;
        let (target, on_conflict) = match &owner.kind {
            ObjectKind::Table(table) => (owner.id, on_conflict(table)),
            _ => (self.replayed_table(&owner).await?, WriteConflict::Error),
        };
        let coordinator = self.write_coordinator();
        let (mut stored, sources) = split_objects(&context.catalog, &rows.objects);
        let mut tables = stored.clone();
        tables.extend([late.id, target]);
        // Views cannot be locked, and need not be: what they have is of one epoch.
        tables.retain(|id| {
            let object = coordinator.catalog().get(*id).cloned();
            object.is_some_and(|object| matches!(object.kind, ObjectKind::Table(_)))
        });
        tables.sort_unstable();
        tables.dedup();
        let lock = running.wait_for_lock(coordinator.lock_tables(tables)).await?;
        stored.sort_unstable();
        let parts = running.wait(coordinator.read_parts(stored)).await?;
        let contents = self.contents_over(running, context, rows, of_parts(parts), sources).await?;
        let batches = self.collect(running, context, rows, &contents).await?;
        let batches: Result<Vec<RecordBatch>> =
            batches.iter().map(|batch| with_schema(&late.schema, batch)).collect();
        let rows = arrow::compute::concat_batches(&late.schema, &batches?)?;
        let event_time = late.schema.fields().len() - COLUMNS_BEHIND;
        let change = Replay { owner: owner.id, target, on_conflict, rows, event_time };
        let write = TableWrite { table: late.id, change: WriteChange::Replay(Box::new(change)) };
        let outcome = coordinator.write(Some(&lock), vec![write]).await?;
        let replayed = outcome
            .replayed
            .ok_or_else(|| Error::internal("a replay says what became of its rows"))?;
        self.tell_replayed(&owner, &replayed);
        answer(&late, replayed)
    }

    fn tell_replayed(&self, owner: &Object, replayed: &Replayed) {
        let count = |n: usize| format!("{n} late {}", if n == 1 { "row" } else { "rows" });
        let taken = count(usize::try_from(replayed.taken).unwrap_or(usize::MAX));
        let mut message = format!("{taken} of \"{}\" taken in", owner.name.name);
        let beyond = replayed.beyond.num_rows();
        if beyond > 0 {
            message.push_str(&format!(", {beyond} beyond repair"));
        }
        self.session.notify(Notice::note("00000", message));
    }

    /// The table of a source's replayed rows; made when there is none.
    async fn replayed_table(&self, source: &Object) -> Result<ObjectId> {
        let coordinator = &self.database.coordinator;
        if let Some(table) = coordinator.catalog().replayed_of(source.id) {
            return Ok(table.id);
        }
        let columns = source.schema.fields().len();
        let name = format!("{}_replayed", source.name.name);
        let name = ObjectName { name, ..source.name.clone() };
        let kind = ObjectKind::Table(TableObject {
            append_only: true,
            replayed_of: Some(source.id),
            ..TableObject::plain(columns)
        });
        let table = Object::new(name, kind, source.schema.clone());
        let table = Object { depends_on: vec![source.id], ..table };
        let made = coordinator.create_object(table, Install::Table(None)).await;
        match (made, coordinator.catalog().replayed_of(source.id)) {
            (Ok(id), _) => Ok(id),
            // Somebody else was faster.
            (Err(_), Some(table)) => Ok(table.id),
            (Err(error), None) => Err(error),
        }
    }
}

/// What happens to a row whose key is there: what an INSERT would do.
fn on_conflict(table: &TableObject) -> WriteConflict {
    match table.on_conflict {
        TableConflict::Error => WriteConflict::Error,
        TableConflict::Update => WriteConflict::Replace,
        TableConflict::Ignore => WriteConflict::Ignore,
    }
}

fn answer(late: &Object, replayed: Replayed) -> Result<Response> {
    let schema = replay_schema(&late.schema);
    let mut columns: Vec<ArrayRef> = replayed.beyond.columns().to_vec();
    columns.push(Arc::new(StringArray::from(replayed.closed_by)));
    let batch = RecordBatch::try_new(schema.clone(), columns)?;
    let rows = futures::stream::iter([Ok(batch)]).boxed();
    Ok(Response::Rows { schema, rows, tag: format!("REPLAY LATE {}", replayed.taken) })
}
