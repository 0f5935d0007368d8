//! Transaction blocks: many statements, one epoch.
//!
//! Reads. The first read of a block pins the newest epoch of every table and materialized view of
//! the database, which copies nothing and waits for nothing; rows are made, and views waited for,
//! when a statement reads them. All reads see that epoch.
//!
//! Writes are collected and committed together, as one epoch:
//! 1. A write statement locks its table and the tables that its rows are computed from, before it
//!    reads them; the locks are held until the block ends.
//! 2. What it changes is added to the block's pending changes of the table.
//! 3. Reads of a table with pending changes see them, laid over the content under the lock. A
//!    write that needs to know only which keys exist asks for these, and reads no more.
//!    A materialized view over such a table is computed as a plain view over it.
//! 4. COMMIT locks what the block has only read, checks that it is still as it was read, and
//!    writes the pending changes. (At `read committed` nothing is checked.)
//!
//! A statement that fails fails the block: all that is left is ROLLBACK, or going back to a
//! savepoint, which is a length of each pending list.
//!
//! A single write outside a block is a block of its own that ends with the statement.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use chrono::{DateTime, Utc};

use crate::catalog::object::{Object, ObjectKind};
use crate::catalog::snapshot::Catalog;
use crate::coordinator::event_loop::{Coordinator, Pinned, TableWrite, WriteChange, WriteLock};
use crate::coordinator::rows::{has_keys, overlay, same_content};
use crate::coordinator::running::Running;
use crate::coordinator::settings::Settings;
use crate::coordinator::stored::{Contents, Stored, of_parts};
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;

/// An open transaction block.
pub(super) struct Block {
    /// Made for several statements of one message, or for one write: ends without COMMIT.
    pub implicit: bool,
    /// What `now()` says in all its statements.
    pub started_at: DateTime<Utc>,
    /// A query or write has run: the isolation level stands.
    pub begun: bool,
    failed: bool,
    /// The version that all its statements see.
    catalog: Option<Arc<Catalog>>,
    /// What its reads see of objects that it has not locked, at the epoch of its first read.
    view: Option<HashMap<ObjectId, Pinned>>,
    /// Tables that its reads outside of locks depend on.
    seen: BTreeSet<ObjectId>,
    lock: Option<WriteLock>,
    /// Content of the locked tables when they were locked: nobody else changes it.
    locked: HashMap<ObjectId, LockedTable>,
    /// Changes by this block, of locked tables, oldest first.
    pending: BTreeMap<ObjectId, Vec<ChangeBatch>>,
    savepoints: Vec<Savepoint>,
    /// What ROLLBACK goes back to.
    settings_before: Settings,
}

/// A table that only this block writes.
struct LockedTable {
    content: Pinned,
    /// The table's number of writes.
    version: u64,
}

/// A place in a block to go back to.
struct Savepoint {
    name: String,
    /// Lengths of the pending lists.
    lengths: BTreeMap<ObjectId, usize>,
    settings: Settings,
}

impl Block {
    pub fn new(implicit: bool, started_at: DateTime<Utc>, settings: &Settings) -> Block {
        Block {
            implicit,
            started_at,
            begun: false,
            failed: false,
            catalog: None,
            view: None,
            seen: BTreeSet::new(),
            lock: None,
            locked: HashMap::new(),
            pending: BTreeMap::new(),
            savepoints: Vec::new(),
            settings_before: settings.clone(),
        }
    }

    pub fn fail(&mut self) {
        self.failed = true;
    }

    pub fn failed(&self) -> bool {
        self.failed
    }

    /// The settings to go back to when it rolls back.
    pub fn settings_before(&self) -> &Settings {
        &self.settings_before
    }

    /// The catalog version of the block: the newest at its first statement.
    pub fn catalog(&mut self, coordinator: &Coordinator) -> Arc<Catalog> {
        self.catalog.get_or_insert_with(|| coordinator.catalog()).clone()
    }

    /// Whether it has written nothing.
    pub fn is_read_only(&self) -> bool {
        self.pending.is_empty()
    }

    /// Materialized views that do not show the block's own changes: to be computed in the query.
    pub fn stale_views(&self, catalog: &Catalog) -> Vec<ObjectId> {
        if self.pending.is_empty() {
            return Vec::new();
        }
        catalog
            .objects()
            .filter(|o| matches!(o.kind, ObjectKind::MaterializedView(_)))
            .map(|o| o.id)
            .filter(|id| {
                base_tables(catalog, &[*id]).iter().any(|table| self.pending.contains_key(table))
            })
            .collect()
    }

    /// What a query sees of `objects` (tables and materialized views).
    pub async fn read(
        &mut self,
        coordinator: &Coordinator,
        running: &Running,
        objects: &[ObjectId],
    ) -> Result<Contents> {
        let catalog = self.catalog(coordinator);
        let unlocked: Vec<ObjectId> =
            objects.iter().copied().filter(|id| !self.locked.contains_key(id)).collect();
        let mut contents = self.locked_contents(running, &catalog, objects).await?;
        if unlocked.is_empty() {
            return Ok(contents);
        }
        if self.view.is_none() {
            self.view = Some(pin_database(coordinator, running, &catalog, &unlocked).await?);
        }
        for id in &unlocked {
            let pinned = self.view.as_mut().and_then(|view| view.get_mut(id));
            let pinned = pinned.ok_or_else(|| not_in_view(&catalog, *id))?;
            let parts = running.wait(pinned.parts()).await?;
            contents.insert(*id, Stored::of_parts(parts));
        }
        self.seen.extend(base_tables(&catalog, &unlocked));
        Ok(contents)
    }

    /// Locks `target` and the tables behind `objects`, now and until the block ends.
    pub async fn lock_for_write(
        &mut self,
        coordinator: &Coordinator,
        running: &Running,
        target: ObjectId,
        objects: &[ObjectId],
        strict: bool,
    ) -> Result<()> {
        let catalog = self.catalog(coordinator);
        let mut tables = base_tables(&catalog, objects);
        tables.insert(target);
        self.lock(coordinator, running, &catalog, tables, strict).await
    }

    /// What a write sees of `objects`, the tables behind which are locked.
    pub async fn read_for_write(
        &mut self,
        coordinator: &Coordinator,
        running: &Running,
        objects: &[ObjectId],
    ) -> Result<Contents> {
        let catalog = self.catalog(coordinator);
        let views: Vec<ObjectId> =
            objects.iter().copied().filter(|id| !self.locked.contains_key(id)).collect();
        let mut contents = self.locked_contents(running, &catalog, objects).await?;
        if !views.is_empty() {
            contents.extend(of_parts(running.wait(coordinator.read_parts(views)).await?));
        }
        Ok(contents)
    }

    /// The rows of the locked table `table` that have the keys of `wanted`, with the block's
    /// changes. The table is not read for it: its index is asked.
    pub async fn rows_with_keys(
        &self,
        coordinator: &Coordinator,
        running: &Running,
        table: &Object,
        key: &[usize],
        wanted: &RecordBatch,
    ) -> Result<RecordBatch> {
        assert!(self.locked.contains_key(&table.id), "keys stay as they are under the lock");
        rows_with_keys(coordinator, running, table, key, wanted, self.pending_of(table.id)).await
    }

    /// What the block has changed in a table, oldest first.
    pub fn pending_of(&self, table: ObjectId) -> &[ChangeBatch] {
        self.pending.get(&table).map_or(&[], Vec::as_slice)
    }

    /// Content of those of `objects` that are locked, with the block's changes.
    async fn locked_contents(
        &mut self,
        running: &Running,
        catalog: &Catalog,
        objects: &[ObjectId],
    ) -> Result<Contents> {
        let mut contents = Contents::new();
        for id in objects {
            let (Some(locked), Some(object)) = (self.locked.get_mut(id), catalog.get(*id)) else {
                continue;
            };
            let pending = self.pending.get(id).filter(|changes| !changes.is_empty());
            let pending = pending.map(|changes| (object.schema.clone(), changes.clone()));
            let parts = running.wait(locked.content.parts()).await?;
            contents.insert(*id, Stored::Parts { parts, pending });
        }
        Ok(contents)
    }

    /// Locks those of `tables` that are not locked yet, and pins their content.
    async fn lock(
        &mut self,
        coordinator: &Coordinator,
        running: &Running,
        catalog: &Catalog,
        tables: BTreeSet<ObjectId>,
        strict: bool,
    ) -> Result<()> {
        let new: Vec<ObjectId> =
            tables.into_iter().filter(|id| !self.locked.contains_key(id)).collect();
        if new.is_empty() {
            return Ok(());
        }
        // A lock covers the tables it was made for, so more tables take a new one. Between the
        // two others may write: what was locked before is compared with what it was then.
        self.lock = None;
        let mut all: Vec<ObjectId> = self.locked.keys().copied().chain(new.clone()).collect();
        all.sort_unstable();
        self.lock = Some(running.wait_for_lock(coordinator.lock_tables(all.clone())).await?);
        let mut now: HashMap<ObjectId, LockedTable> = HashMap::with_capacity(all.len());
        for (id, content) in running.wait(coordinator.pin(all)).await? {
            now.insert(id, LockedTable::of(content)?);
        }
        for (id, before) in &mut self.locked {
            let after = now.get_mut(id).ok_or_else(|| not_in_view(catalog, *id))?;
            if before.version != after.version {
                check_unchanged(catalog, *id, &mut before.content, &mut after.content).await?;
            }
        }
        if strict && let Some(seen) = &mut self.view {
            for id in new.iter().filter(|id| self.seen.contains(id)) {
                let (Some(before), Some(after)) = (seen.get_mut(id), now.get_mut(id)) else {
                    continue;
                };
                let unread = matches!(before, Pinned::Taken { version: Some(version), .. }
                    if *version == after.version);
                if !unread {
                    check_unchanged(catalog, *id, before, &mut after.content).await?;
                }
            }
        }
        for id in new {
            let table = now.remove(&id).ok_or_else(|| not_in_view(catalog, id))?;
            self.locked.insert(id, table);
        }
        Ok(())
    }

    /// Adds changes of a locked table.
    pub fn add(&mut self, table: ObjectId, changes: ChangeBatch) {
        assert!(self.locked.contains_key(&table), "a table is locked before it is changed");
        if !changes.is_empty() {
            self.pending.entry(table).or_default().push(changes);
        }
    }

    /// Makes the changes, as one epoch; tells how many rows came behind the watermark of their table.
    ///
    /// # Errors
    /// When something that the block has read has changed (40001), or on a unique violation.
    pub async fn commit(
        mut self,
        coordinator: &Coordinator,
        running: &Running,
        strict: bool,
    ) -> Result<u64> {
        assert!(!self.failed, "a failed block is rolled back");
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return Ok(0);
        }
        let catalog = self.catalog(coordinator);
        if strict {
            let seen = self.seen.clone();
            self.lock(coordinator, running, &catalog, seen, true).await?;
        }
        let mut writes = Vec::with_capacity(pending.len());
        for (table, changes) in pending {
            let Some(object) = catalog.get(table) else { continue };
            let changes = ChangeBatch::concat(&object.schema, &changes)?.consolidate()?;
            if !changes.is_empty() {
                writes.push(TableWrite { table, change: WriteChange::Changes(changes) });
            }
        }
        if writes.is_empty() {
            return Ok(0);
        }
        // Not cancelled any more: nobody could say afterwards whether it was done.
        Ok(coordinator.write(self.lock.as_ref(), writes).await?.late)
    }

    pub fn savepoint(&mut self, name: &str, settings: &Settings) {
        let lengths = self.pending.iter().map(|(id, changes)| (*id, changes.len())).collect();
        self.savepoints.push(Savepoint {
            name: name.to_owned(),
            lengths,
            settings: settings.clone(),
        });
    }

    /// Forgets the savepoint and those after it.
    pub fn release(&mut self, name: &str) -> Result<()> {
        let index = self.find_savepoint(name)?;
        self.savepoints.truncate(index);
        Ok(())
    }

    /// Takes back everything since the savepoint, which stays. Returns the settings of then.
    pub fn rollback_to(&mut self, name: &str) -> Result<Settings> {
        let index = self.find_savepoint(name)?;
        self.savepoints.truncate(index + 1);
        let savepoint = &self.savepoints[index];
        for (id, changes) in &mut self.pending {
            changes.truncate(savepoint.lengths.get(id).copied().unwrap_or(0));
        }
        self.pending.retain(|_, changes| !changes.is_empty());
        self.failed = false;
        Ok(savepoint.settings.clone())
    }

    fn find_savepoint(&self, name: &str) -> Result<usize> {
        self.savepoints.iter().rposition(|s| s.name == name).ok_or_else(|| {
            Error::user(SqlState("3B001"), format!("savepoint \"{name}\" does not exist"))
        })
    }
}

/// Whether the data plane keeps the object's rows.
fn is_stored(kind: &ObjectKind) -> bool {
    matches!(kind, ObjectKind::Table(_) | ObjectKind::MaterializedView(_))
}

/// The tables among `objects` and behind them.
pub(super) fn base_tables(catalog: &Catalog, objects: &[ObjectId]) -> BTreeSet<ObjectId> {
    let mut tables = BTreeSet::new();
    let mut visited = BTreeSet::new();
    let mut open = objects.to_vec();
    while let Some(id) = open.pop() {
        let Some(object) = catalog.get(id) else { continue };
        if !visited.insert(id) {
            continue;
        }
        if matches!(object.kind, ObjectKind::Table(_)) {
            tables.insert(id);
        }
        open.extend(&object.depends_on);
    }
    tables
}

impl LockedTable {
    fn of(content: Pinned) -> Result<LockedTable> {
        match content {
            Pinned::Taken { version: Some(version), .. } => Ok(LockedTable { content, version }),
            Pinned::Failed(error) => Err(error),
            _ => Err(Error::internal("only tables are locked")),
        }
    }
}

/// The newest epoch of everything that is stored in the database of `wanted`.
async fn pin_database(
    coordinator: &Coordinator,
    running: &Running,
    catalog: &Catalog,
    wanted: &[ObjectId],
) -> Result<HashMap<ObjectId, Pinned>> {
    let database = wanted.first().and_then(|id| catalog.get(*id)).map(|o| &o.name.database);
    let all: Vec<ObjectId> = catalog
        .objects()
        .filter(|o| Some(&o.name.database) == database && is_stored(&o.kind))
        .map(|o| o.id)
        .collect();
    running.wait(coordinator.pin(all)).await
}

/// The rows of a locked table that have the keys of `wanted`, after `pending` changes.
pub(super) async fn rows_with_keys(
    coordinator: &Coordinator,
    running: &Running,
    table: &Object,
    key: &[usize],
    wanted: &RecordBatch,
    pending: &[ChangeBatch],
) -> Result<RecordBatch> {
    if key.is_empty() {
        return Ok(RecordBatch::new_empty(table.schema.clone()));
    }
    let base = running.wait(coordinator.lookup(table.id, wanted.clone())).await?;
    let mut changes = Vec::new();
    for change in pending {
        let hits = has_keys(change.rows(), key, wanted)?;
        if hits.true_count() > 0 {
            changes.push(change.filter(&hits)?);
        }
    }
    let rows = overlay(&[base], &table.schema, &changes)?;
    Ok(arrow::compute::concat_batches(&table.schema, &rows)?)
}

async fn check_unchanged(
    catalog: &Catalog,
    id: ObjectId,
    before: &mut Pinned,
    now: &mut Pinned,
) -> Result<()> {
    let Some(object) = catalog.get(id) else { return Ok(()) };
    if same_content(&before.rows().await?, &now.rows().await?, &object.schema)? {
        return Ok(());
    }
    Err(Error::user(
        SqlState::SERIALIZATION_FAILURE,
        "could not serialize access due to concurrent update",
    )
    .detail(format!(
        "Table \"{}\" was changed after this transaction had read it.",
        object.name.name
    ))
    .hint("Run the transaction again, or use BEGIN ISOLATION LEVEL READ COMMITTED.")
    .retryable())
}

fn not_in_view(catalog: &Catalog, id: ObjectId) -> Error {
    let name = catalog.get(id).map_or_else(|| id.to_string(), |o| o.name.name.clone());
    Error::user(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("\"{name}\" cannot be read at the epoch of this transaction"),
    )
    .hint("End the transaction block and read it in a new one.")
}
