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
//! any other: what operators have handed over for it, they do not hand over again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use tokio::sync::watch;

use crate::storage::checksum::{crc32, seal};
use crate::storage::generation::{fenced, superseded};
use crate::storage::manifest::{self, FileRef, Manifest, SourcePlace, ViewState};
use crate::storage::paths::{self, LOG, MANIFESTS};
use crate::storage::savepoint::{self, Savepoint, Savepoints};
use crate::storage::sinks::{self, SinkCut};
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
    /// What was staged for sinks.
    pub sinks: BTreeMap<ObjectId, FileRef>,
}

/// Writes checkpoints, one after the other.
#[derive(Debug)]
pub struct Checkpointer {
    store: Store,
    generation: u64,
    /// Those before the newest that have not been collected, oldest first.
    old: Vec<Manifest>,
    newest: Manifest,
    /// Objects of the log before this one have been deleted.
    log_collected: u64,
    savepoints: Savepoints,
    /// Manifests that somebody copies: their files stay for as long as it is there.
    held: Vec<(Manifest, Weak<()>)>,
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
        old: Vec<Manifest>,
        newest: Manifest,
        log_collected: u64,
        savepoints: Savepoints,
    ) -> Checkpointer {
        let held = Vec::new();
        Checkpointer { store, generation, old, newest, log_collected, savepoints, held }
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
        savepoint::write(&self.store, &savepoint).await?;
        self.savepoints.insert(savepoint.name.clone(), savepoint);
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
        savepoint::write(&self.store, &savepoint).await?;
        self.savepoints.insert(name.to_owned(), savepoint);
        Ok(())
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
        needed.extend(self.old.iter().chain([&self.newest]).flat_map(Manifest::files));
        for file in savepoint.manifest.files().difference(&needed) {
            // What stays is found at the next start.
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
        let number = self.newest.number + 1;
        let mut next = Manifest {
            number,
            generation: self.generation,
            sequence: cut.sequence,
            epoch: cut.epoch.0,
            next_id: cut.next_id,
            log_start: cut.log_start,
            catalog: self.newest.catalog.clone(),
            sources: cut.sources.clone(),
            places: cut.places.clone(),
            errors: self.newest.errors.clone(),
            ..Manifest::default()
        };
        assert!(next.sequence >= self.newest.sequence && next.log_start >= self.newest.log_start);
        let mut written = Written {
            sequence: cut.sequence,
            manifest: number,
            files: 0,
            bytes: 0,
            sinks: BTreeMap::new(),
        };
        if let Some(json) = &cut.catalog {
            let name = paths::catalog(self.generation, number);
            let file = self.write_text(name, "catalog", CATALOG_FORMAT, json).await?;
            written.count(&file);
            next.catalog = Some(file);
        }
        if let Some(json) = &cut.errors {
            let name = paths::errors(self.generation, number);
            let file = self.write_text(name, "errors", ERRORS_FORMAT, json).await?;
            written.count(&file);
            next.errors = Some(file);
        }
        for (table, cut) in &cut.tables {
            let files = self.write_table(*table, number, cut, &mut written).await?;
            next.tables.insert(table.0, files);
        }
        for (sink, cut_of_sink) in &cut.sinks {
            let known = self.newest.sinks.get(&sink.0);
            let (store, generation) = (&self.store, self.generation);
            let staged =
                sinks::write(store, *sink, generation, number, cut.epoch, known, cut_of_sink);
            let (state, file) = staged.await?;
            if let Some(file) = file {
                written.count(&file);
                written.sinks.insert(*sink, file);
            }
            next.sinks.insert(sink.0, state);
        }
        let mut writes = Vec::with_capacity(cut.views.len());
        for (view, cut) in &cut.views {
            let write = self.write_view(*view, number, cut);
            writes.push(async move { (*view, write.await) }.boxed());
        }
        let writes = futures::stream::iter(writes).buffer_unordered(WRITES_MAX);
        let views: Vec<_> = writes.collect().await;
        for (view, state) in views {
            let (state, new) = state?;
            new.iter().for_each(|file| written.count(file));
            next.views.extend(state.map(|state| (view.0, state)));
        }
        let until = next.sequence.max(cut.log_until);
        let reached = durable.wait_for(|sequence| *sequence >= until).await.is_ok();
        if !reached {
            return Err(Error::external(SqlState::IO_ERROR, "the log has stopped"));
        }
        if !manifest::write(&self.store, &next).await? {
            return Err(fenced(&self.store, self.generation));
        }
        let kept = std::mem::replace(&mut self.newest, next);
        self.collect(&kept).await;
        self.old.push(kept);
        Ok(written)
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
        let encoded = tokio::task::spawn_blocking(move || match earlier.is_empty() {
            true => state_files::encode(&changes, as_in_memory),
            false => {
                let all = earlier.into_iter().chain(changes.iter().cloned()).collect();
                let whole = kept == 0;
                state_files::encode(&state_files::fold(all, whole)?, as_in_memory)
            }
        });
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

    async fn write_table(
        &self,
        table: ObjectId,
        number: u64,
        cut: &TableCut,
        written: &mut Written,
    ) -> Result<Vec<FileRef>> {
        let mut files = self.newest.tables.get(&table.0).cloned().unwrap_or_default();
        match cut {
            TableCut::Unchanged => return Ok(files),
            TableCut::Files(files) if !files.is_empty() => return Ok(files.clone()),
            _ => {}
        }
        match choose(cut.clone(), &files) {
            TableCut::Unchanged | TableCut::Files(_) | TableCut::Either { .. } => {
                unreachable!("chosen before")
            }
            TableCut::Delta { schema, changes } => {
                assert!(!files.is_empty(), "a delta stands on a base");
                let (store, generation) = (&self.store, self.generation);
                let delta =
                    table_files::write_delta(store, table, generation, number, &schema, changes);
                if let Some(file) = delta.await? {
                    written.count(&file);
                    files.push(file);
                }
            }
            TableCut::Base { schema, rows } => {
                let (store, generation) = (&self.store, self.generation);
                let base =
                    table_files::write_base(store, table, generation, number, schema, rows());
                let file = base.await?;
                written.count(&file);
                files = vec![file];
            }
        }
        Ok(files)
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
            Ok(()) => self.old.retain(|old| old.files().iter().any(|file| held.contains(*file))),
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

impl Written {
    fn count(&mut self, file: &FileRef) {
        self.files += 1;
        self.bytes += file.bytes;
    }
}
