//! INSERT, UPDATE, DELETE and TRUNCATE.
//!
//! Planning has made each of them a query for whole rows of the table; here the query runs and
//! its rows become changes:
//! 1. An INSERT whose rows come from nowhere (VALUES) outside of a block goes straight to the
//!    coordinator, which takes it in line with the others and decides about keys that exist.
//! 2. Everything else locks its table, and the tables that it reads, before reading. Outside of a
//!    block it is a block of its own: changes are written and locks given back at its end.
//! 3. In a block that goes on, keys are checked here, so that the statement that breaks a key
//!    fails, and not the COMMIT.
//!
//! An INSERT asks the table's index for the rows with its keys; it reads the table only when its
//! query does.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute;
use arrow::datatypes::{Field, Schema, SchemaRef};
use futures::StreamExt;

use crate::catalog::object::{Object, ObjectKind, TableConflict, TableObject};
use crate::catalog::pg_catalog::primary_key_name;
use crate::coordinator::command::{Connection, Notice, Response};
use crate::coordinator::event_loop::{
    Coordinator, TableWrite, WriteChange, WriteConflict, WriteOutcome,
};
use crate::coordinator::execute::done;
use crate::coordinator::query::{StatementContents, split_objects};
use crate::coordinator::rows::{RowIndex, columns_at, has_keys, overlay};
use crate::coordinator::running::Running;
use crate::coordinator::stored::{Stored, of_parts};
use crate::coordinator::transaction::{Block, base_tables};
use crate::functions::scalar::cast::shown_value;
use crate::sql::bind::PlanContext;
use crate::sql::dml::{
    EXCLUDED, InsertConflict, PlannedDelete, PlannedInsert, PlannedUpdate, check_rows,
};
use crate::sql::query::PlannedQuery;
use crate::sql::returning::{PlannedReturning, RETURNED};
use crate::sql::statement::Truncate;
use crate::state::spill::StateMemory;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;

/// What a write statement did.
struct Done {
    count: u64,
    /// The rows that were written or deleted.
    rows: RecordBatch,
    /// For RETURNING: the columns that FROM or USING joined to each row.
    joined: Vec<ArrayRef>,
    /// For RETURNING: the rows as they were; NULL where there was none.
    old: Option<RecordBatch>,
}

impl Done {
    /// Rows that were not there before, or are not there any more.
    fn plain(count: u64, rows: RecordBatch) -> Done {
        Done { count, rows, joined: vec![], old: None }
    }
}

impl Connection {
    pub(super) async fn run_insert(
        &mut self,
        running: &Running,
        context: &PlanContext,
        insert: PlannedInsert,
    ) -> Result<Response> {
        let table = insert.table.clone();
        let definition = table_of(&table, "insert into")?;
        let updates = matches!(insert.conflict, InsertConflict::Update(_));
        if definition.append_only
            && matches!(insert.conflict, InsertConflict::Update(_) | InsertConflict::Replace)
        {
            return Err(append_only(&table, "update"));
        }
        let done = if self.transaction.is_none() && !updates {
            self.insert_alone(running, context, &insert, definition).await?
        } else {
            let (mut block, alone) = self.take_block();
            let result = self.insert_in(&mut block, alone, running, context, &insert).await;
            self.give_back(block, alone, running, result).await?
        };
        self.answer(running, context, "INSERT 0", done, insert.returning.as_ref()).await
    }

    /// An INSERT outside of a block without DO UPDATE: the coordinator decides about keys.
    async fn insert_alone(
        &mut self,
        running: &Running,
        context: &PlanContext,
        insert: &PlannedInsert,
        definition: &TableObject,
    ) -> Result<Done> {
        let coordinator = self.write_coordinator();
        let (stored, sources) = split_objects(&context.catalog, &insert.rows.objects);
        let (lock, stored) = if stored.is_empty() && running.limits_locks() {
            // The line has no limit of its own.
            let lock = coordinator.lock_tables(vec![insert.table.id]);
            (Some(running.wait_for_lock(lock).await?), HashMap::new())
        } else if stored.is_empty() {
            (None, HashMap::new())
        } else {
            // Rows computed from tables: nobody changes these until the rows are in.
            let mut tables = base_tables(&context.catalog, &stored);
            tables.insert(insert.table.id);
            let tables = tables.into_iter().collect();
            let lock = running.wait_for_lock(coordinator.lock_tables(tables)).await?;
            let parts = running.wait(coordinator.read_parts(stored)).await?;
            (Some(lock), of_parts(parts))
        };
        let contents = self.contents_over(running, context, &insert.rows, stored, sources).await?;
        let rows = self.rows_for(running, context, &insert.table, &insert.rows, &contents).await?;
        let change =
            WriteChange::Insert { rows, on_conflict: conflict_of(&insert.conflict, definition) };
        let write = vec![TableWrite { table: insert.table.id, change }];
        let outcome = match &lock {
            None => write_in_line(&coordinator, running, write).await?,
            Some(lock) => coordinator.write(Some(lock), write).await?,
        };
        if outcome.late > 0 {
            let rows = if outcome.late == 1 { "row" } else { "rows" };
            let message = format!(
                "{} {rows} came behind the watermark and went into \"{}_late\"",
                outcome.late, insert.table.name.name
            );
            self.session.notify(Notice::note("00000", message));
        }
        let (Some(count), Some(rows)) =
            (outcome.counts.first().copied(), outcome.inserted.into_iter().next())
        else {
            return Err(Error::internal("a write of one table has no outcome"));
        };
        Ok(Done::plain(count, rows))
    }

    /// An INSERT in a block, or with DO UPDATE.
    async fn insert_in(
        &mut self,
        block: &mut Block,
        alone: bool,
        running: &Running,
        context: &PlanContext,
        insert: &PlannedInsert,
    ) -> Result<Done> {
        let table = &insert.table;
        let definition = table_of(table, "insert into")?;
        let mut objects = insert.rows.objects.clone();
        if let InsertConflict::Update(update) = &insert.conflict {
            // The table itself, too, when a subquery reads it beside the rows that exist.
            let others = update.query.objects.iter().filter(|id| **id != EXCLUDED);
            objects.extend(others.filter(|id| **id != table.id || update.reads_table));
        }
        let mut contents =
            self.write_contents(block, running, context, table.id, &objects, &insert.rows).await?;
        let rows = self.rows_for(running, context, table, &insert.rows, &contents).await?;
        let coordinator = self.database.coordinator.clone();
        let key = &definition.primary_key;
        let existing = block.rows_with_keys(&coordinator, running, table, key, &rows).await?;
        if let InsertConflict::Update(update) = &insert.conflict {
            contents.stored.insert(EXCLUDED, Stored::Rows(vec![rows.clone()]));
            if !update.reads_table {
                contents.stored.insert(table.id, Stored::Rows(vec![existing.clone()]));
            }
            let pairs = self.collect(running, context, &update.query, &contents).await?;
            let pairs = concat(&update.query.schema, &pairs)?;
            let (old, new) = split_pairs(table, &pairs)?;
            let fresh = rows_without_keys(&existing, key, &rows)?;
            check_updated_once(key, &old, &fresh)?;
            if !alone {
                check_moved_keys(block, &coordinator, running, table, key, &old, &new).await?;
            }
            let all_new = compute::concat_batches(&table.schema, [&fresh, &new])?;
            let old_rows = after_nulls(&old, fresh.num_rows())?;
            block.add(table.id, ChangeBatch::deletes(old));
            block.add(table.id, ChangeBatch::inserts(all_new.clone()));
            let count = all_new.num_rows() as u64;
            return Ok(Done { count, rows: all_new, joined: vec![], old: Some(old_rows) });
        }
        let conflict = conflict_of(&insert.conflict, definition);
        let resolved = resolve_insert(table, key, &existing, rows, conflict)?;
        block.add(table.id, resolved.changes);
        Ok(Done::plain(resolved.count, resolved.inserted))
    }

    pub(super) async fn run_update(
        &mut self,
        running: &Running,
        context: &PlanContext,
        update: PlannedUpdate,
    ) -> Result<Response> {
        let table = update.table.clone();
        let definition = table_of(&table, "update")?;
        if definition.append_only {
            return Err(append_only(&table, "update"));
        }
        let (mut block, alone) = self.take_block();
        let result = self.update_in(&mut block, alone, running, context, &update).await;
        let done = self.give_back(block, alone, running, result).await?;
        self.answer(running, context, "UPDATE", done, update.returning.as_ref()).await
    }

    async fn update_in(
        &mut self,
        block: &mut Block,
        alone: bool,
        running: &Running,
        context: &PlanContext,
        update: &PlannedUpdate,
    ) -> Result<Done> {
        let table = &update.table;
        let objects = &update.rows.objects;
        let contents =
            self.write_contents(block, running, context, table.id, objects, &update.rows).await?;
        let pairs = self.collect(running, context, &update.rows, &contents).await?;
        let pairs = concat(&update.rows.schema, &pairs)?;
        let (old, new) = split_pairs(table, &pairs)?;
        if !alone && let ObjectKind::Table(definition) = &table.kind {
            let coordinator = self.database.coordinator.clone();
            let key = &definition.primary_key;
            check_moved_keys(block, &coordinator, running, table, key, &old, &new).await?;
        }
        block.add(table.id, ChangeBatch::deletes(old.clone()));
        block.add(table.id, ChangeBatch::inserts(new.clone()));
        let joined = pairs.columns()[2 * table.schema.fields().len()..].to_vec();
        Ok(Done { count: new.num_rows() as u64, rows: new, joined, old: Some(old) })
    }

    pub(super) async fn run_delete(
        &mut self,
        running: &Running,
        context: &PlanContext,
        delete: PlannedDelete,
    ) -> Result<Response> {
        let table = delete.table.clone();
        if table_of(&table, "delete from")?.append_only {
            return Err(append_only(&table, "delete from"));
        }
        let (mut block, alone) = self.take_block();
        let result = self.delete_in(&mut block, running, context, &delete).await;
        let done = self.give_back(block, alone, running, result).await?;
        self.answer(running, context, "DELETE", done, delete.returning.as_ref()).await
    }

    async fn delete_in(
        &mut self,
        block: &mut Block,
        running: &Running,
        context: &PlanContext,
        delete: &PlannedDelete,
    ) -> Result<Done> {
        let table = &delete.table;
        let contents = self
            .write_contents(block, running, context, table.id, &delete.rows.objects, &delete.rows)
            .await?;
        let rows = self.collect(running, context, &delete.rows, &contents).await?;
        let rows = concat(&delete.rows.schema, &rows)?;
        let width = table.schema.fields().len();
        let joined = rows.columns()[width..].to_vec();
        let rows = with_schema(&table.schema, &rows.project(&(0..width).collect::<Vec<_>>())?)?;
        block.add(table.id, ChangeBatch::deletes(rows.clone()));
        Ok(Done { count: rows.num_rows() as u64, rows, joined, old: None })
    }

    pub(super) async fn run_truncate(
        &mut self,
        running: &Running,
        context: &PlanContext,
        truncate: &Truncate,
    ) -> Result<Response> {
        let mut tables = Vec::with_capacity(truncate.tables.len());
        for name in &truncate.tables {
            let table = self.resolve(context, name)?;
            if !matches!(table.kind, ObjectKind::Table(_)) {
                return Err(Error::user(
                    SqlState::WRONG_OBJECT_TYPE,
                    format!("\"{}\" is not a table", table.name.name),
                )
                .position(name.position));
            }
            if table_of(&table, "truncate")?.append_only {
                return Err(append_only(&table, "truncate"));
            }
            tables.push(table);
        }
        if self.transaction.is_none() {
            let ids: Vec<ObjectId> = tables.iter().map(|t| t.id).collect();
            let coordinator = self.write_coordinator();
            let lock = running.wait_for_lock(coordinator.lock_tables(ids.clone())).await?;
            let writes = ids
                .into_iter()
                .map(|table| TableWrite { table, change: WriteChange::Truncate })
                .collect();
            coordinator.write(Some(&lock), writes).await?;
            return Ok(done("TRUNCATE TABLE"));
        }
        let (mut block, alone) = self.take_block();
        let result = self.truncate_in(&mut block, running, &tables).await;
        self.give_back(block, alone, running, result).await?;
        Ok(done("TRUNCATE TABLE"))
    }

    async fn truncate_in(
        &mut self,
        block: &mut Block,
        running: &Running,
        tables: &[Arc<Object>],
    ) -> Result<()> {
        let strict = self.strict();
        for table in tables {
            let coordinator = &self.database.coordinator;
            block.lock_for_write(coordinator, running, table.id, &[], strict).await?;
            let contents = block.read_for_write(coordinator, running, &[table.id]).await?;
            let Some(content) = contents.get(&table.id) else { continue };
            for batch in content.batches()? {
                block.add(table.id, ChangeBatch::deletes(batch));
            }
        }
        Ok(())
    }

    /// The open block, or one for this statement alone.
    pub(super) fn take_block(&mut self) -> (Block, bool) {
        match self.transaction.take() {
            Some(mut block) => {
                block.begun = true;
                (block, false)
            }
            None => (Block::new(true, self.database.now(), &self.session.settings()), true),
        }
    }

    /// Ends a block of one statement with what it wrote, or keeps the open one.
    async fn give_back<T>(
        &mut self,
        block: Block,
        alone: bool,
        running: &Running,
        result: Result<T>,
    ) -> Result<T> {
        if !alone {
            self.transaction = Some(block);
            return result;
        }
        let value = result?;
        // Everything it read is locked: there is nothing to check.
        let late = block.commit(&self.write_coordinator(), running, false).await?;
        self.tell_late(late);
        Ok(value)
    }

    /// What a write statement reads, under locks.
    async fn write_contents(
        &mut self,
        block: &mut Block,
        running: &Running,
        context: &PlanContext,
        target: ObjectId,
        objects: &[ObjectId],
        query: &PlannedQuery,
    ) -> Result<StatementContents> {
        let (stored, sources) = split_objects(&context.catalog, objects);
        let strict = self.strict();
        let coordinator = &self.database.coordinator;
        block.lock_for_write(coordinator, running, target, &stored, strict).await?;
        let stored = block.read_for_write(coordinator, running, &stored).await?;
        self.contents_over(running, context, query, stored, sources).await
    }

    /// Whole rows of the table, checked.
    async fn rows_for(
        &self,
        running: &Running,
        context: &PlanContext,
        table: &Object,
        query: &PlannedQuery,
        contents: &StatementContents,
    ) -> Result<RecordBatch> {
        let mut rows = self.start_rows(running, context, query, contents).await?;
        let mut collected = RowCollector::new(&self.database.coordinator);
        while let Some(batch) = running.wait(async { rows.next().await.transpose() }).await? {
            collected.add(check_rows(table, batch)?)?;
        }
        concat(&table.schema, &collected.batches)
    }

    /// The rows of RETURNING, or only their number.
    async fn answer(
        &mut self,
        running: &Running,
        context: &PlanContext,
        command: &str,
        done: Done,
        returning: Option<&PlannedReturning>,
    ) -> Result<Response> {
        let Some(returning) = returning else {
            return Ok(Response::Done { tag: format!("{command} {}", done.count) });
        };
        let query = &returning.query;
        let rows = returning.rows(&done.rows, &done.joined, done.old.as_ref())?;
        let others: Vec<ObjectId> =
            query.objects.iter().copied().filter(|id| *id != RETURNED).collect();
        let (stored, sources) = split_objects(&context.catalog, &others);
        let mut stored = if stored.is_empty() {
            HashMap::new()
        } else {
            of_parts(running.wait(self.database.coordinator.read_parts(stored)).await?)
        };
        stored.insert(RETURNED, Stored::Rows(vec![rows]));
        let contents = self.contents_over(running, context, query, stored, sources).await?;
        let rows = self.start_rows(running, context, query, &contents).await?;
        let tag = format!("{command} {{}}");
        Ok(Response::Rows { schema: query.schema.clone(), rows, tag })
    }
}

/// Writes a plain INSERT, which waits in line behind transactions of the same table. A statement
/// that is cancelled meanwhile is taken back; when it is too late for that, it has been done, and
/// so the client is told.
pub(super) async fn write_in_line(
    coordinator: &Coordinator,
    running: &Running,
    writes: Vec<TableWrite>,
) -> Result<WriteOutcome> {
    let mut write = running.wait(coordinator.write_in_line(writes)).await?;
    match running.wait(write.outcome()).await {
        Err(error) if error.sqlstate() == SqlState::QUERY_CANCELED && !write.withdraw() => {
            write.outcome().await
        }
        outcome => outcome,
    }
}

/// Bytes of rows that one write statement may hold in memory until it is committed.
const WRITE_BYTES_MAX: usize = 4 << 30;

/// Collects the rows of a write, up to a bound, and as long as there is memory for them.
pub(super) struct RowCollector {
    pub batches: Vec<RecordBatch>,
    bytes: usize,
    memory: Arc<StateMemory>,
    /// Taken from `memory`.
    taken: usize,
}

/// What a row takes beside itself: all of them become one batch.
const BYTES_PER_BYTE: usize = 2;
/// Of the limit: rows that a statement may collect whether there is room for them or not.
const ALWAYS_SHARE: u64 = 4;

impl RowCollector {
    /// One that takes memory as a query does, and gives it back when it goes.
    pub fn new(coordinator: &Coordinator) -> RowCollector {
        let memory = coordinator.config().memory.clone();
        RowCollector { batches: Vec::new(), bytes: 0, memory, taken: 0 }
    }

    pub fn add(&mut self, rows: RecordBatch) -> Result<()> {
        let bytes = rows.get_array_memory_size();
        self.bytes += bytes;
        if self.bytes > WRITE_BYTES_MAX {
            return Err(Error::user(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                format!("a statement cannot write more than {} GiB", WRITE_BYTES_MAX >> 30),
            )
            .hint("Write the rows in several statements, or read them with a source."));
        }
        let wanted = bytes * BYTES_PER_BYTE;
        if let Err(free) = self.memory.try_take_for_query(wanted) {
            // While state is on its way to the disk there is less than there will be.
            if self.bytes as u64 > self.memory.limit_bytes() / ALWAYS_SHARE {
                return Err(self.refused(wanted, free));
            }
            self.memory.take_for_query(wanted);
        }
        self.taken += wanted;
        self.batches.push(rows);
        Ok(())
    }

    fn refused(&self, wanted: usize, free: u64) -> Error {
        Error::external(SqlState::OUT_OF_MEMORY, "not enough memory for the rows to write")
            .detail(format!(
                "The statement asked for {wanted} bytes more than its {}, and {free} are free.",
                self.taken
            ))
            .hint(
                "Write the rows in several statements, or start the server with a higher \
                 --memory-limit.",
            )
    }
}

impl Drop for RowCollector {
    fn drop(&mut self) {
        self.memory.give_back_of_query(self.taken);
    }
}

/// All rows in one batch.
pub(super) fn concat(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<RecordBatch> {
    match batches {
        [one] => Ok(one.clone()),
        _ => Ok(compute::concat_batches(schema, batches)?),
    }
}

/// The table that a statement changes.
pub(super) fn table_of<'a>(object: &'a Object, verb: &str) -> Result<&'a TableObject> {
    match &object.kind {
        ObjectKind::Table(TableObject { replayed_of: Some(_), .. }) => Err(Error::user(
            SqlState::WRONG_OBJECT_TYPE,
            format!("cannot {verb} table \"{}\"", object.name.name),
        )
        .detail("It has the late rows of a source that were taken in again.")
        .hint("REPLAY LATE takes rows in.")),
        ObjectKind::Table(table) => Ok(table),
        ObjectKind::Source(_) => Err(Error::user(
            SqlState::WRONG_OBJECT_TYPE,
            format!("cannot {verb} source \"{}\"", object.name.name),
        )
        .hint("The rows of a source come from its connector.")),
        ObjectKind::Sink(_) => Err(Error::user(
            SqlState::WRONG_OBJECT_TYPE,
            format!("cannot {verb} sink \"{}\"", object.name.name),
        )
        .hint("Change the tables that it reads.")),
        ObjectKind::View(_) | ObjectKind::MaterializedView(_) => Err(Error::user(
            SqlState::WRONG_OBJECT_TYPE,
            format!("cannot {verb} {} \"{}\"", object.kind_noun(), object.name.name),
        )
        .hint("Change the tables that it reads.")),
    }
}

fn append_only(table: &Object, verb: &str) -> Error {
    Error::user(
        SqlState::WRONG_OBJECT_TYPE,
        format!("cannot {verb} append-only table \"{}\"", table.name.name),
    )
    .hint("Rows of a table that was created with APPEND ONLY never change.")
}

pub(super) fn conflict_of(conflict: &InsertConflict, table: &TableObject) -> WriteConflict {
    match conflict {
        InsertConflict::Nothing => WriteConflict::Ignore,
        InsertConflict::Replace | InsertConflict::Update(_) => WriteConflict::Replace,
        InsertConflict::Default => match table.on_conflict {
            TableConflict::Error => WriteConflict::Error,
            TableConflict::Update => WriteConflict::Replace,
            TableConflict::Ignore => WriteConflict::Ignore,
        },
    }
}

/// The same columns as rows of the table.
pub(super) fn with_schema(schema: &SchemaRef, rows: &RecordBatch) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let columns = rows.columns().to_vec();
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

/// Old rows and new ones from rows that hold both; the new ones are checked.
fn split_pairs(table: &Object, pairs: &RecordBatch) -> Result<(RecordBatch, RecordBatch)> {
    let width = table.schema.fields().len();
    let old: Vec<usize> = (0..width).collect();
    let new: Vec<usize> = (width..2 * width).collect();
    let old = with_schema(&table.schema, &pairs.project(&old)?)?;
    Ok((old, check_rows(table, pairs.project(&new)?)?))
}

/// `rows` behind so many rows of NULLs, in nullable columns.
fn after_nulls(rows: &RecordBatch, nulls: usize) -> Result<RecordBatch> {
    let fields = rows.schema_ref().fields().iter();
    let fields: Vec<Field> = fields.map(|f| f.as_ref().clone().with_nullable(true)).collect();
    let columns = rows.columns().iter().map(|column| {
        let before = new_null_array(column.data_type(), nulls);
        compute::concat(&[before.as_ref(), column.as_ref()])
    });
    let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// The rows whose key none of `existing` has.
fn rows_without_keys(
    existing: &RecordBatch,
    key: &[usize],
    rows: &RecordBatch,
) -> Result<RecordBatch> {
    let index = RowIndex::new(&columns_at(existing, key), existing.num_rows())?;
    let found = index.lookup(&columns_at(rows, key), rows.num_rows())?;
    let keep = BooleanArray::from_iter(found.iter().map(|row| Some(row.is_none())));
    Ok(compute::filter_record_batch(rows, &keep)?)
}

/// DO UPDATE must not meet a row that the same command has changed.
fn check_updated_once(key: &[usize], old: &RecordBatch, fresh: &RecordBatch) -> Result<()> {
    for rows in [old, fresh] {
        if RowIndex::new(&columns_at(rows, key), rows.num_rows())?.repeated.is_some() {
            return Err(Error::user(
                SqlState::CARDINALITY_VIOLATION,
                "ON CONFLICT DO UPDATE command cannot affect row a second time",
            )
            .hint(
                "Ensure that no rows proposed for insertion within the same command have \
                 duplicate constrained values.",
            ));
        }
    }
    Ok(())
}

/// Keys are unique after `old` has become `new` in the locked `table`.
async fn check_moved_keys(
    block: &Block,
    coordinator: &Coordinator,
    running: &Running,
    table: &Object,
    key: &[usize],
    old: &RecordBatch,
    new: &RecordBatch,
) -> Result<()> {
    let same = columns_at(old, key)
        .iter()
        .zip(columns_at(new, key))
        .all(|(old, new)| old.to_data() == new.to_data());
    if same {
        return Ok(());
    }
    let taken = block.rows_with_keys(coordinator, running, table, key, new).await?;
    check_keys_after(table, key, &[taken], old, new)
}

/// Keys are unique after `old` has become `new`; `content` has all rows with the keys of `new`.
fn check_keys_after(
    table: &Object,
    key: &[usize],
    content: &[RecordBatch],
    old: &RecordBatch,
    new: &RecordBatch,
) -> Result<()> {
    let index = RowIndex::new(&columns_at(new, key), new.num_rows())?;
    if let Some((_, row)) = index.repeated {
        return Err(unique_violation(table, key, new, row as usize));
    }
    let rest = overlay(content, &table.schema, &[ChangeBatch::deletes(old.clone())])?;
    for batch in rest {
        let taken = has_keys(&batch, key, new)?;
        if let Some(row) = taken.values().set_indices().next() {
            return Err(unique_violation(table, key, &batch, row));
        }
    }
    Ok(())
}

/// What an INSERT does to a table.
#[derive(Debug)]
pub(super) struct ResolvedInsert {
    pub changes: ChangeBatch,
    pub inserted: RecordBatch,
    pub count: u64,
}

/// Decides about new rows whose key exists; `existing` holds all rows of the table with the keys
/// of `rows`.
pub(super) fn resolve_insert(
    table: &Object,
    key: &[usize],
    existing: &RecordBatch,
    rows: RecordBatch,
    conflict: WriteConflict,
) -> Result<ResolvedInsert> {
    let plain = |rows: RecordBatch| ResolvedInsert {
        changes: ChangeBatch::inserts(rows.clone()),
        count: rows.num_rows() as u64,
        inserted: rows,
    };
    if key.is_empty() {
        return Ok(plain(rows));
    }
    let own = RowIndex::new(&columns_at(&rows, key), rows.num_rows())?;
    match conflict {
        WriteConflict::Error => {
            if existing.num_rows() > 0 {
                return Err(unique_violation(table, key, existing, 0));
            }
            if let Some((_, row)) = own.repeated {
                return Err(unique_violation(table, key, &rows, row as usize));
            }
            Ok(plain(rows))
        }
        WriteConflict::Ignore => {
            let first = own.lookup(&columns_at(&rows, key), rows.num_rows())?;
            let taken = RowIndex::new(&columns_at(existing, key), existing.num_rows())?;
            let taken = taken.lookup(&columns_at(&rows, key), rows.num_rows())?;
            let keep = BooleanArray::from_iter(
                (0..rows.num_rows())
                    .map(|row| Some(first[row] == Some(row as u32) && taken[row].is_none())),
            );
            Ok(plain(compute::filter_record_batch(&rows, &keep)?))
        }
        WriteConflict::Replace => {
            let count = rows.num_rows() as u64;
            let inserted = last_of_each_key(&rows, key)?;
            let changes = ChangeBatch::concat(
                &table.schema,
                &[ChangeBatch::deletes(existing.clone()), ChangeBatch::inserts(inserted.clone())],
            )?;
            Ok(ResolvedInsert { changes, inserted, count })
        }
    }
}

/// Of rows with the same key, the last.
fn last_of_each_key(rows: &RecordBatch, key: &[usize]) -> Result<RecordBatch> {
    let index = RowIndex::new(&columns_at(rows, key), rows.num_rows())?;
    if index.repeated.is_none() {
        return Ok(rows.clone());
    }
    let first = index.lookup(&columns_at(rows, key), rows.num_rows())?;
    let mut last: HashMap<u32, usize> = HashMap::new();
    for (row, first) in first.iter().enumerate() {
        last.insert(first.expect("a row finds its own key"), row);
    }
    let keep = BooleanArray::from_iter(
        first.iter().enumerate().map(|(row, first)| Some(first.map(|f| last[&f]) == Some(row))),
    );
    Ok(compute::filter_record_batch(rows, &keep)?)
}

/// SQLSTATE 23505 for the key of `rows[row]`.
fn unique_violation(table: &Object, key: &[usize], rows: &RecordBatch, row: usize) -> Error {
    let names: Vec<&str> = key.iter().map(|c| table.schema.field(*c).name().as_str()).collect();
    let values: Vec<String> = key
        .iter()
        .map(|column| shown_value(rows.column(*column), table.schema.field(*column), row))
        .collect();
    let constraint = primary_key_name(table);
    Error::user(
        SqlState::UNIQUE_VIOLATION,
        format!("duplicate key value violates unique constraint \"{constraint}\""),
    )
    .detail(format!("Key ({})=({}) already exists.", names.join(", "), values.join(", ")))
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::catalog::object::ObjectName;
    use crate::types::sql_type::SqlType;

    fn table() -> Object {
        let columns = vec![SqlType::Int8.to_field("id", false), SqlType::Text.to_field("v", true)];
        Object {
            id: ObjectId(1),
            name: ObjectName {
                database: "millstream".into(),
                schema: "public".into(),
                name: "t".into(),
            },
            kind: ObjectKind::Table(TableObject { primary_key: vec![0], ..TableObject::plain(2) }),
            schema: Arc::new(arrow::datatypes::Schema::new(columns)),
            create_sql: String::new(),
            depends_on: Vec::new(),
        }
    }

    fn rows(values: &[(i64, &str)]) -> RecordBatch {
        RecordBatch::try_new(
            table().schema,
            vec![
                Arc::new(Int64Array::from_iter_values(values.iter().map(|v| v.0))),
                Arc::new(StringArray::from_iter_values(values.iter().map(|v| v.1))),
            ],
        )
        .expect("two columns")
    }

    fn insert(
        existing: &[(i64, &str)],
        new: &[(i64, &str)],
        conflict: WriteConflict,
    ) -> Result<String> {
        let resolved = resolve_insert(&table(), &[0], &rows(existing), rows(new), conflict)?;
        let changes = resolved.changes;
        let keys = changes.column(0).as_primitive::<Int64Type>();
        let values = changes.column(1).as_string::<i32>();
        let shown: Vec<String> = (0..changes.num_rows())
            .map(|r| format!("{:+}:{}{}", changes.weight(r), keys.value(r), values.value(r)))
            .collect();
        Ok(format!("{} of {}", shown.join(" "), resolved.count))
    }

    #[test]
    fn keys_that_exist_are_handled_as_the_conflict_clause_says() {
        let old = [(1, "old")];
        let new = [(1, "a"), (2, "b"), (2, "c")];
        assert_eq!(insert(&old, &new, WriteConflict::Ignore).expect("ignores"), "+1:2b of 1");
        assert_eq!(
            insert(&old, &new, WriteConflict::Replace).expect("replaces"),
            "-1:1old +1:1a +1:2c of 3"
        );
        let error = insert(&old, &new, WriteConflict::Error).expect_err("1 exists");
        assert_eq!(error.sqlstate(), SqlState::UNIQUE_VIOLATION);
        assert_eq!(error.message(), "duplicate key value violates unique constraint \"t_pkey\"");
        assert_eq!(error.body().detail.as_deref(), Some("Key (id)=(1) already exists."));
        let error = insert(&[], &new, WriteConflict::Error).expect_err("2 is there twice");
        assert_eq!(error.body().detail.as_deref(), Some("Key (id)=(2) already exists."));
    }

    #[test]
    fn an_update_may_move_keys_but_not_onto_others() {
        let table = table();
        let content = [rows(&[(1, "a"), (2, "b"), (3, "c")])];
        let check = |old: &[(i64, &str)], new: &[(i64, &str)]| {
            check_keys_after(&table, &[0], &content, &rows(old), &rows(new))
        };
        // Every row moves to the next key: unique again afterwards.
        check(&[(1, "a"), (2, "b")], &[(2, "a"), (1, "b")]).expect("swapped");
        let error = check(&[(1, "a")], &[(3, "a")]).expect_err("3 exists");
        assert_eq!(error.body().detail.as_deref(), Some("Key (id)=(3) already exists."));
        let error = check(&[(1, "a"), (2, "b")], &[(9, "a"), (9, "b")]).expect_err("9 twice");
        assert_eq!(error.body().detail.as_deref(), Some("Key (id)=(9) already exists."));
    }
}
