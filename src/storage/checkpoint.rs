//! A checkpoint: what changed since the last one goes into files, a manifest names them, and what
//! nobody needs any more is collected.
//!
//! 1. Files of changed tables and views are written, and catalog and row errors when they have
//!    changed.
//! 2. The log must have reached the moment that the files show; a manifest never says more than
//!    the log, because records after it are told apart by their sequence.
//! 3. The manifest is written under the next number. If that is taken, another server has
//!    replaced this one.
//! 4. Files and manifests that neither this manifest nor the one before it names are deleted, and
//!    objects of the log that both have in files. What cannot be deleted is found at the next
//!    start.
//!
//! When a step fails, nothing has changed. The same cut can be written again, and must be before
//! any other: what operators have handed over for it, they do not hand over again. Files that are
//! there are not written again ([`Parts`]): a cut of many files comes through a storage where some
//! of the writes fail.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use tokio::sync::watch;

use crate::storage::checksum::{crc32, seal};
use crate::storage::generation::{fenced, superseded};
use crate::storage::manifest::{self, FileRef, Manifest, Older, SourcePlace, ViewState};
use crate::storage::paths::{self, LOG, MANIFESTS};
use crate::storage::savepoint::{self, Savepoint, Savepoints};
use crate::storage::sinks::{self, SinkCut, SinkState};
use crate::storage::state_files::{self, StateChange};
use crate::storage::store::Store;
use crate::storage::table_files::{self, Next, RowsAgain, put_own};
use crate::storage::transfer::Source;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;
use crate::types::time::Epoch;

/// Version of the stored catalog.
pub const CATALOG_FORMAT: u32 = 1;
/// Version of the stored row errors.
pub const ERRORS_FORMAT: u32 = 1;
/// Files that are written at the same time.
const WRITES_MAX: usize = 4;

/// A moment of the server's ground state, and what has changed since the last checkpoint.
pub struct Cut {
    /// The newest record that it contains.
    pub sequence: u64,
    /// Records up to this one must be in the log before the checkpoint counts: they have what
    /// sources were found to have late up to `places`.
    pub log_until: u64,
    pub epoch: Epoch,
    pub next_id: u64,
    /// Records after `sequence` are in this object of the log or later ones.
    pub log_start: u64,
    /// `None`: as in the last checkpoint.
    pub catalog: Option<String>,
    /// Every table there is.
    pub tables: BTreeMap<ObjectId, TableCut>,
    /// Rows that each source has given.
    pub sources: BTreeMap<u64, u64>,
    /// Every view whose state is known as of `epoch`.
    pub views: BTreeMap<ObjectId, ViewCut>,
    /// Where each source was read to in `epoch`.
    pub places: BTreeMap<u64, SourcePlace>,
    /// Rows that were left out; `None`: as in the last checkpoint.
    pub errors: Option<String>,
    /// Every sink there is.
    pub sinks: BTreeMap<ObjectId, SinkCut>,
}

/// One view in a cut.
pub enum ViewCut {
    Unchanged,
    /// It has the state that files of another view have.
    Files(ViewState),
    Changed {
        fingerprint: String,
        workers: usize,
        /// The changes are all there is, and nothing of the files so far counts.
        first: bool,
        changes: Arc<Vec<StateChange>>,
    },
}

/// One table in a cut.
#[derive(Clone)]
pub enum TableCut {
    Unchanged,
    /// It has the rows that files of another table have.
    Files(Vec<FileRef>),
    Delta {
        schema: SchemaRef,
        changes: Vec<ChangeBatch>,
    },
    Base {
        schema: SchemaRef,
        rows: RowsAgain,
    },
    /// One of the two, whichever is less to write and read in the long run.
    Either {
        schema: SchemaRef,
        changes: Vec<ChangeBatch>,
        rows: RowsAgain,
        row_count: u64,
    },
}

/// What a checkpoint wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub sequence: u64,
    pub manifest: u64,
    pub files: usize,
    pub bytes: u64,
    /// Processor time of making and writing the files.
    pub cpu: Duration,
    /// What was staged for sinks.
    pub sinks: BTreeMap<ObjectId, FileRef>,
}

/// Writes checkpoints, one after the other.
#[derive(Debug)]
pub struct Checkpointer {
    store: Store,
    generation: u64,
    /// Those before the newest that have not been collected, oldest first.
    old: Vec<Older>,
    newest: Manifest,
    /// Objects of the log before this one have been deleted.
    log_collected: u64,
    savepoints: Savepoints,
    /// Savepoints that may be there or not: to write them has failed, perhaps after it was done.
    /// Their files stay.
    doubtful: Savepoints,
    /// Manifests that somebody copies: their files stay for as long as it is there.
    held: Vec<(Manifest, Weak<()>)>,
    /// What there is of the cut behind the newest manifest.
    parts: Parts,
}

/// The parts of a cut that are in files, each with the file that is new.
#[derive(Debug, Default)]
struct Parts {
    catalog: Option<FileRef>,
    errors: Option<FileRef>,
    tables: BTreeMap<ObjectId, (Vec<FileRef>, Option<FileRef>)>,
    sinks: BTreeMap<ObjectId, (SinkState, Option<FileRef>)>,
    views: BTreeMap<ObjectId, (Option<ViewState>, Option<FileRef>)>,
}

impl Parts {
    /// The files that are new.
    fn new_files(&self) -> impl Iterator<Item = &FileRef> {
        let tables = self.tables.values().filter_map(|(_, new)| new.as_ref());
        let sinks = self.sinks.values().filter_map(|(_, new)| new.as_ref());
        let views = self.views.values().filter_map(|(_, new)| new.as_ref());
        self.catalog.iter().chain(&self.errors).chain(tables).chain(sinks).chain(views)
    }
}

/// Keeps the files of a checkpoint and of all savepoints for as long as it is there.
#[derive(Debug)]
pub struct Held {
    pub source: Source,
    _hold: Arc<()>,
}

impl Checkpointer {
    /// After recovery. `old` are the manifests before `newest` that are still there, oldest
    /// first; `log_collected` is the oldest object of the log.
    pub fn new(
        store: Store,
        generation: u64,
        old: Vec<Older>,
        newest: Manifest,
        log_collected: u64,
        savepoints: Savepoints,
    ) -> Checkpointer {
        let (held, doubtful) = (Vec::new(), Savepoints::new());
        let (store, parts) = (store.counted_apart(), Parts::default());
        Checkpointer {
            store,
            generation,
            old,
            newest,
            log_collected,
            savepoints,
            doubtful,
            held,
            parts,
        }
    }

    /// The newest checkpoint with all savepoints, or the one of a savepoint with that alone, to be
    /// copied while others are written.
    ///
    /// # Errors
    /// SQLSTATE 42704 when there is no such savepoint.
    pub fn hold(&mut self, savepoint: Option<&str>) -> Result<Held> {
        let (manifest, savepoints) = match savepoint {
            None => (self.newest.clone(), self.savepoints.clone()),
            Some(name) => {
                let Some(savepoint) = self.savepoints.get(name) else {
                    return Err(savepoint::missing(name, &self.savepoints));
                };
                let one = [(name.to_owned(), savepoint.clone())];
                (savepoint.manifest.clone(), one.into())
            }
        };
        let hold = Arc::new(());
        let manifests = savepoints.values().map(|s| s.manifest.clone()).chain([manifest.clone()]);
        self.held.extend(manifests.map(|manifest| (manifest, Arc::downgrade(&hold))));
        let source = Source { store: self.store.clone(), manifest, savepoints };
        Ok(Held { source, _hold: hold })
    }

    /// The files that are being copied.
    fn held_files(&mut self) -> BTreeSet<String> {
        self.held.retain(|(_, hold)| hold.strong_count() > 0);
        let files = self.held.iter().flat_map(|(manifest, _)| manifest.files());
        files.map(str::to_owned).collect()
    }

    /// Takes up a savepoint whose files have been copied here.
    ///
    /// # Errors
    /// SQLSTATE 42710 when the name is taken; others when the storage fails.
    pub async fn add_savepoint(&mut self, savepoint: Savepoint) -> Result<()> {
        if self.savepoints.contains_key(&savepoint.name) {
            return Err(savepoint::exists(&savepoint.name));
        }
        if let Some(error) = self.check_claim().await? {
            return Err(error);
        }
        self.write_savepoint(savepoint).await
    }

    async fn write_savepoint(&mut self, savepoint: Savepoint) -> Result<()> {
        let name = savepoint.name.clone();
        if self.doubtful.contains_key(&name) {
            // Of this server, which has told nobody that it is there.
            self.store.delete(&Path::from(paths::savepoint(&name))).await?;
            self.doubtful.remove(&name);
        }
        match savepoint::write(&self.store, &savepoint).await {
            Ok(()) => drop(self.savepoints.insert(name, savepoint)),
            Err(error) => {
                if error.sqlstate() != SqlState::DUPLICATE_OBJECT {
                    self.doubtful.insert(name, savepoint);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Where it writes, and in the name of which claim.
    pub fn store(&self) -> (&Store, u64) {
        (&self.store, self.generation)
    }

    /// All savepoints.
    pub fn savepoints(&self) -> &Savepoints {
        &self.savepoints
    }

    /// Gives the newest checkpoint a name.
    ///
    /// # Errors
    /// SQLSTATE 42710 when the name is taken; others when the storage fails.
    pub async fn create_savepoint(&mut self, name: &str, created_at_us: i64) -> Result<()> {
        if self.savepoints.contains_key(name) {
            return Err(savepoint::exists(name));
        }
        if let Some(error) = self.check_claim().await? {
            return Err(error);
        }
        let savepoint =
            Savepoint { name: name.to_owned(), created_at_us, manifest: self.newest.clone() };
        self.write_savepoint(savepoint).await
    }

    /// Drops a savepoint, with the files that nobody else needs.
    ///
    /// # Errors
    /// SQLSTATE 42704 when there is none of that name; others when the storage fails.
    pub async fn drop_savepoint(&mut self, name: &str) -> Result<()> {
        if !self.savepoints.contains_key(name) {
            return Err(savepoint::missing(name, &self.savepoints));
        }
        if let Some(error) = self.check_claim().await? {
            return Err(error);
        }
        self.store.delete(&Path::from(paths::savepoint(name))).await?;
        let held = self.held_files();
        let Some(savepoint) = self.savepoints.get(name) else {
            return Err(savepoint::missing(name, &self.savepoints));
        };
        let mut needed = savepoint::files(&self.savepoints, Some(name));
        needed.extend(held.iter().map(String::as_str));
        needed.extend(savepoint::files(&self.doubtful, None));
        let old = self.old.iter().filter_map(|old| old.manifest.as_ref());
        needed.extend(old.chain([&self.newest]).flat_map(Manifest::files));
        // What stays is found at the next start.
        let all_known = self.old.iter().all(|old| old.manifest.is_some());
        let files = savepoint.manifest.files();
        for file in files.difference(&needed).filter(|_| all_known) {
            if let Err(error) = self.store.delete(&Path::from(*file)).await {
                tracing::warn!(%error, "a file of a savepoint cannot be deleted");
            }
        }
        self.savepoints.remove(name);
        Ok(())
    }

    /// The newest manifest.
    pub fn newest(&self) -> &Manifest {
        &self.newest
    }

    /// Whether a newer server has claimed the storage; then the error to stop with.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn check_claim(&self) -> Result<Option<Error>> {
        let superseded = superseded(&self.store, self.generation).await?;
        Ok(superseded.then(|| fenced(&self.store, self.generation)))
    }

    /// Writes a checkpoint. `durable` follows the log.
    ///
    /// # Errors
    /// SQLSTATE 57P01 when another server has taken over; others when the storage fails.
    pub async fn write(&mut self, cut: &Cut, mut durable: watch::Receiver<u64>) -> Result<Written> {
        let newest = &self.newest;
        assert!(cut.sequence >= newest.sequence && cut.log_start >= newest.log_start);
        let cpu_before = self.store.meter().total();
        let mut parts = std::mem::take(&mut self.parts);
        let result = self.write_parts(cut, &mut parts).await;
        self.parts = parts;
        result?;
        let next = self.manifest_of(cut);
        let until = next.sequence.max(cut.log_until);
        let reached = durable.wait_for(|sequence| *sequence >= until).await.is_ok();
        if !reached {
            return Err(Error::external(SqlState::IO_ERROR, "the log has stopped"));
        }
        if !manifest::write(&self.store, &next).await? {
            return Err(fenced(&self.store, self.generation));
        }
        let parts = std::mem::take(&mut self.parts);
        let mut written = Written {
            sequence: next.sequence,
            manifest: next.number,
            files: parts.new_files().count(),
            bytes: parts.new_files().map(|file| file.bytes).sum(),
            cpu: Duration::ZERO,
            sinks: BTreeMap::new(),
        };
        let staged = parts.sinks.into_iter();
        written.sinks.extend(staged.filter_map(|(sink, (_, file))| Some((sink, file?))));
        let kept = std::mem::replace(&mut self.newest, next);
        self.collect(&kept).await;
        self.old.push(Older { number: kept.number, manifest: Some(kept) });
        written.cpu = self.store.meter().total().saturating_sub(cpu_before);
        Ok(written)
    }

    /// The manifest of a cut all of whose parts are there.
    fn manifest_of(&self, cut: &Cut) -> Manifest {
        let (parts, newest) = (&self.parts, &self.newest);
        let state = |(view, (state, _)): (&ObjectId, &(Option<ViewState>, _))| {
            Some((view.0, state.clone()?))
        };
        Manifest {
            number: newest.number + 1,
            generation: self.generation,
            sequence: cut.sequence,
            epoch: cut.epoch.0,
            next_id: cut.next_id,
            log_start: cut.log_start,
            catalog: parts.catalog.clone().or_else(|| newest.catalog.clone()),
            tables: parts.tables.iter().map(|(id, (files, _))| (id.0, files.clone())).collect(),
            sources: cut.sources.clone(),
            views: parts.views.iter().filter_map(state).collect(),
            places: cut.places.clone(),
            errors: parts.errors.clone().or_else(|| newest.errors.clone()),
            sinks: parts.sinks.iter().map(|(id, (state, _))| (id.0, state.clone())).collect(),
        }
    }

    /// Writes the files of a cut that are not among `parts`, and adds them.
    async fn write_parts(&self, cut: &Cut, parts: &mut Parts) -> Result<()> {
        let (generation, number) = (self.generation, self.newest.number + 1);
        if let (Some(json), None) = (&cut.catalog, &parts.catalog) {
            let name = paths::catalog(generation, number);
            parts.catalog = Some(self.write_text(name, "catalog", CATALOG_FORMAT, json).await?);
        }
        if let (Some(json), None) = (&cut.errors, &parts.errors) {
            let name = paths::errors(generation, number);
            parts.errors = Some(self.write_text(name, "errors", ERRORS_FORMAT, json).await?);
        }
        for (table, cut) in &cut.tables {
            if let Entry::Vacant(part) = parts.tables.entry(*table) {
                part.insert(self.write_table(*table, number, cut).await?);
            }
        }
        for (sink, cut_of_sink) in &cut.sinks {
            if let Entry::Vacant(part) = parts.sinks.entry(*sink) {
                let (store, known) = (&self.store, self.newest.sinks.get(&sink.0));
                let staged =
                    sinks::write(store, *sink, generation, number, cut.epoch, known, cut_of_sink);
                part.insert(staged.await?);
            }
        }
        let mut writes = Vec::with_capacity(cut.views.len());
        for (view, cut) in &cut.views {
            if !parts.views.contains_key(view) {
                let write = self.write_view(*view, number, cut);
                writes.push(async move { (*view, write.await) }.boxed());
            }
        }
        let mut writes = futures::stream::iter(writes).buffer_unordered(WRITES_MAX);
        let mut result = Ok(());
        while let Some((view, written)) = writes.next().await {
            match written {
                Ok(part) => drop(parts.views.insert(view, part)),
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }

    async fn write_text(
        &self,
        name: String,
        kind: &str,
        version: u32,
        json: &str,
    ) -> Result<FileRef> {
        let content = Bytes::from(seal(kind, version, json));
        let (bytes, crc32) = (content.len() as u64, crc32(&content));
        put_own(&self.store, &name, content.into()).await?;
        Ok(FileRef { name, bytes, crc32, rows: 0, deleted: 0 })
    }

    /// Writes what has changed of a view; its state then, and the file that is new.
    async fn write_view(
        &self,
        view: ObjectId,
        number: u64,
        cut: &ViewCut,
    ) -> Result<(Option<ViewState>, Option<FileRef>)> {
        let known = self.newest.views.get(&view.0);
        if let ViewCut::Files(state) = cut {
            return Ok((Some(state.clone()), None));
        }
        let ViewCut::Changed { fingerprint, workers, first, changes } = cut else {
            return Ok((known.cloned(), None));
        };
        let files = match known {
            Some(known) if !first => {
                assert!(
                    known.fingerprint == *fingerprint && known.workers == *workers,
                    "changes stand on a base of the same run"
                );
                known.files.as_slice()
            }
            _ => &[],
        };
        assert!(*first || !files.is_empty(), "changes stand on a base");
        let mut state = ViewState {
            fingerprint: fingerprint.clone(),
            workers: *workers,
            files: files.to_vec(),
        };
        let (rows, deleted) = state_files::changed_rows(changes);
        if rows == 0 && !first {
            return Ok((Some(state), None));
        }
        // The files from here on become one with the changes.
        let kept = state_files::merge_from(files, rows, deleted);
        let earlier = state_files::read(&self.store, &files[kept..]).await?;
        let (changes, as_in_memory) = (changes.clone(), self.store.has_cheap_bytes());
        let encode = move || match earlier.is_empty() {
            true => state_files::encode(&changes, as_in_memory),
            false => {
                let all = earlier.into_iter().chain(changes.iter().cloned()).collect();
                let whole = kept == 0;
                state_files::encode(&state_files::fold(all, whole)?, as_in_memory)
            }
        };
        let meter = self.store.meter().clone();
        let encoded = tokio::task::spawn_blocking(move || meter.count(encode));
        let encoded = encoded
            .await
            .map_err(|error| Error::internal(format!("a file was not encoded: {error}")))??;
        let file = FileRef {
            name: paths::state_file(view, self.generation, number),
            bytes: encoded.content.content_length() as u64,
            crc32: encoded.crc32,
            rows: encoded.rows,
            deleted: encoded.deleted,
        };
        put_own(&self.store, &file.name, encoded.content).await?;
        state.files.truncate(kept);
        state.files.push(file.clone());
        Ok((Some(state), Some(file)))
    }

    /// Writes what has changed of a table; its files then, and the one that is new.
    async fn write_table(
        &self,
        table: ObjectId,
        number: u64,
        cut: &TableCut,
    ) -> Result<(Vec<FileRef>, Option<FileRef>)> {
        let mut files = self.newest.tables.get(&table.0).cloned().unwrap_or_default();
        match cut {
            TableCut::Unchanged => return Ok((files, None)),
            TableCut::Files(files) if !files.is_empty() => return Ok((files.clone(), None)),
            _ => {}
        }
        let new = match choose(cut.clone(), &files) {
            TableCut::Unchanged | TableCut::Files(_) | TableCut::Either { .. } => {
                unreachable!("chosen before")
            }
            TableCut::Delta { schema, changes } => {
                assert!(!files.is_empty(), "a delta stands on a base");
                let (store, generation) = (&self.store, self.generation);
                let delta =
                    table_files::write_delta(store, table, generation, number, &schema, changes);
                delta.await?.inspect(|file| files.push(file.clone()))
            }
            TableCut::Base { schema, rows } => {
                let (store, generation) = (&self.store, self.generation);
                let base =
                    table_files::write_base(store, table, generation, number, schema, rows());
                let file = base.await?;
                files = vec![file.clone()];
                Some(file)
            }
        };
        Ok((files, new))
    }

    /// Deletes what is not needed beside `kept` and the newest manifest.
    async fn collect(&mut self, kept: &Manifest) {
        let garbage = manifest::garbage(&self.old, kept, &self.newest);
        let held = self.held_files();
        let result = async {
            // Manifests first: one that is there has all its files.
            for number in &garbage.manifests {
                self.store.delete(&paths::numbered(MANIFESTS, *number)).await?;
            }
            let mut named = savepoint::files(&self.savepoints, None);
            named.extend(held.iter().map(String::as_str));
            named.extend(savepoint::files(&self.doubtful, None));
            for file in garbage.files.iter().filter(|file| !named.contains(file.as_str())) {
                self.store.delete(&Path::from(file.as_str())).await?;
            }
            while self.log_collected < garbage.log_below {
                self.store.delete(&paths::numbered(LOG, self.log_collected)).await?;
                self.log_collected += 1;
            }
            Ok::<(), Error>(())
        };
        match result.await {
            // The files of those that were copied meanwhile go with a later checkpoint.
            Ok(()) => self.old.retain(|old| {
                let mut files = old.manifest.iter().flat_map(Manifest::files);
                files.any(|file| held.contains(file))
            }),
            Err(error) => tracing::warn!(%error, "old files cannot be deleted"),
        }
    }
}

/// Decides between delta and base.
fn choose(cut: TableCut, files: &[FileRef]) -> TableCut {
    let TableCut::Either { schema, changes, rows, row_count } = cut else { return cut };
    let changed = changes.iter().map(|changes| changes.num_rows() as u64).sum();
    match table_files::decide(files, row_count, changed) {
        Next::Delta => TableCut::Delta { schema, changes },
        Next::Base => TableCut::Base { schema, rows },
    }
}
