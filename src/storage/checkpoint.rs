//! A checkpoint: what changed since the last one goes into files, a manifest names them, and what
//! nobody needs any more is collected.
//!
//! 1. Files of changed tables are written, and the catalog when it has changed.
//! 2. The log must have reached the moment that the files show; a manifest never says more than
//!    the log, because records after it are told apart by their sequence.
//! 3. The manifest is written under the next number. If that is taken, another server has
//!    replaced this one.
//! 4. Files and manifests that neither this manifest nor the one before it names are deleted, and
//!    objects of the log that both have in files. What cannot be deleted is found at the next
//!    start.
//!
//! When a step fails, nothing has changed: the next checkpoint begins anew from what the last
//! manifest says.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use object_store::path::Path;
use tokio::sync::watch;

use crate::storage::checksum::{crc32, seal};
use crate::storage::generation::{fenced, superseded};
use crate::storage::manifest::{self, FileRef, Manifest};
use crate::storage::paths::{self, LOG, MANIFESTS};
use crate::storage::store::{Put, Store};
use crate::storage::table_files::{self, Next, Rows};
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;
use crate::types::time::Epoch;

/// Version of the stored catalog.
pub const CATALOG_FORMAT: u32 = 1;

/// A moment of the server's ground state, and what has changed since the last checkpoint.
pub struct Cut {
    /// The newest record that it contains.
    pub sequence: u64,
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
}

/// One table in a cut.
pub enum TableCut {
    Unchanged,
    Delta {
        schema: SchemaRef,
        changes: Vec<ChangeBatch>,
    },
    Base {
        schema: SchemaRef,
        rows: Rows,
    },
    /// One of the two, whichever is less to write and read in the long run.
    Either {
        schema: SchemaRef,
        changes: Vec<ChangeBatch>,
        rows: Rows,
        row_count: u64,
    },
}

/// What a checkpoint wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    pub sequence: u64,
    pub manifest: u64,
    pub files: usize,
    pub bytes: u64,
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
    ) -> Checkpointer {
        Checkpointer { store, generation, old, newest, log_collected }
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
    pub async fn write(&mut self, cut: Cut, mut durable: watch::Receiver<u64>) -> Result<Written> {
        let number = self.newest.number + 1;
        let mut next = Manifest {
            number,
            generation: self.generation,
            sequence: cut.sequence,
            epoch: cut.epoch.0,
            next_id: cut.next_id,
            log_start: cut.log_start,
            catalog: self.newest.catalog.clone(),
            tables: BTreeMap::new(),
            sources: cut.sources,
        };
        assert!(next.sequence >= self.newest.sequence && next.log_start >= self.newest.log_start);
        let mut written = Written { sequence: cut.sequence, manifest: number, files: 0, bytes: 0 };
        if let Some(json) = cut.catalog {
            let file = self.write_catalog(number, &json).await?;
            written.count(&file);
            next.catalog = Some(file);
        }
        for (table, cut) in cut.tables {
            let files = self.write_table(table, number, cut, &mut written).await?;
            next.tables.insert(table.0, files);
        }
        let reached = durable.wait_for(|sequence| *sequence >= next.sequence).await.is_ok();
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

    async fn write_catalog(&self, number: u64, json: &str) -> Result<FileRef> {
        let content = Bytes::from(seal("catalog", CATALOG_FORMAT, json));
        let name = paths::catalog(self.generation, number);
        let (bytes, crc32) = (content.len() as u64, crc32(&content));
        match self.store.put_new(&Path::from(name.as_str()), content).await? {
            Put::Written => Ok(FileRef { name, bytes, crc32, rows: 0 }),
            // Left by an attempt that failed afterwards; the number is taken with other content.
            Put::Taken(_) => self.replace(name, json).await,
        }
    }

    /// Writes the catalog under a number that an attempt before has used.
    async fn replace(&self, name: String, json: &str) -> Result<FileRef> {
        let path = Path::from(name.as_str());
        self.store.delete(&path).await?;
        let content = Bytes::from(seal("catalog", CATALOG_FORMAT, json));
        let (bytes, crc32) = (content.len() as u64, crc32(&content));
        match self.store.put_new(&path, content).await? {
            Put::Written => Ok(FileRef { name, bytes, crc32, rows: 0 }),
            Put::Taken(_) => Err(Error::internal(format!("object \"{name}\" is there already"))),
        }
    }

    async fn write_table(
        &self,
        table: ObjectId,
        number: u64,
        cut: TableCut,
        written: &mut Written,
    ) -> Result<Vec<FileRef>> {
        let mut files = self.newest.tables.get(&table.0).cloned().unwrap_or_default();
        if let TableCut::Unchanged = cut {
            return Ok(files);
        }
        self.clear_attempt(table, number).await?;
        match choose(cut, &files) {
            TableCut::Unchanged | TableCut::Either { .. } => unreachable!("chosen before"),
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
                let base = table_files::write_base(store, table, generation, number, schema, rows);
                let file = base.await?;
                written.count(&file);
                files = vec![file];
            }
        }
        Ok(files)
    }

    /// Removes what an attempt at the same manifest left that failed afterwards.
    async fn clear_attempt(&self, table: ObjectId, number: u64) -> Result<()> {
        for extension in ["parquet", "arrow"] {
            let name = paths::table_file(table, self.generation, number, extension);
            let path = Path::from(name);
            if self.store.exists(&path).await? {
                self.store.delete(&path).await?;
            }
        }
        Ok(())
    }

    /// Deletes what is not needed beside `kept` and the newest manifest.
    async fn collect(&mut self, kept: &Manifest) {
        let garbage = manifest::garbage(&self.old, kept, &self.newest);
        let result = async {
            // Manifests first: one that is there has all its files.
            for number in &garbage.manifests {
                self.store.delete(&paths::numbered(MANIFESTS, *number)).await?;
            }
            for file in &garbage.files {
                self.store.delete(&Path::from(file.as_str())).await?;
            }
            while self.log_collected < garbage.log_below {
                self.store.delete(&paths::numbered(LOG, self.log_collected)).await?;
                self.log_collected += 1;
            }
            Ok::<(), Error>(())
        };
        match result.await {
            Ok(()) => self.old.clear(),
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
