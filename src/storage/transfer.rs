//! Checkpoints in other storages: backup and restore, export and import of savepoints.
//!
//! A copy is a storage of its own: a manifest and all files that it names, which are never changed
//! after they were written. So a copy is made by copying the objects that the other side does not
//! have, files first and the manifest last: one that is there is complete. A server may be started
//! on a copy; from then on it is no place for backups any more.
//!
//! 1. Each file is compared with its checksum on the way.
//! 2. A file that a manifest over there names with the same checksum is taken as copied; one that
//!    only has the name is read and compared.
//! 3. The manifest gets the next number over there. What is neither in it nor in the one before is
//!    deleted.
//!
//! An imported savepoint's files get names of their own, because another storage may have used the
//! same.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;

use crate::storage::checksum::{crc32, damaged, seal};
use crate::storage::generation;
use crate::storage::manifest::{self, FileRef, Manifest};
use crate::storage::paths::{
    self, CATALOGS, ERRORS, GENERATIONS, IMPORTED, LOG, MANIFESTS, SINKS, STATES, TABLES,
};
use crate::storage::savepoint::{self, Savepoint, Savepoints};
use crate::storage::sinks::SinkState;
use crate::storage::store::{Put, Store};
use crate::types::error::{Error, Result, SqlState};

/// Files that are copied at the same time.
const COPIES_MAX: usize = 4;

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Files that were written, and their bytes.
    pub files: usize,
    pub bytes: u64,
    /// Files that were there.
    pub present: usize,
}

/// A checkpoint to copy, with the savepoints that go with it.
#[derive(Clone, Debug)]
pub struct Source {
    pub store: Store,
    pub manifest: Manifest,
    pub savepoints: Savepoints,
}

/// Copies a checkpoint to `to`, which is empty or has copies of the same storage.
///
/// # Errors
/// SQLSTATE 55006 when a server has run on `to`, or it has something else; others when a storage
/// fails or a file is damaged. Then `to` has its newest complete copy, as before.
pub async fn copy(source: &Source, to: &Store) -> Result<Copied> {
    if !to.list(LOG).await?.is_empty() {
        return Err(taken(to, "a server has run on it"));
    }
    let mut found = manifest::find(to).await?;
    let copies = found.all(to).await?;
    let there = savepoint::find(to).await?;
    let known: BTreeMap<&str, u32> = copies
        .iter()
        .chain(there.values().map(|savepoint| &savepoint.manifest))
        .flat_map(file_refs)
        .map(|file| (file.name.as_str(), file.crc32))
        .collect();
    let mut wanted: BTreeMap<&str, &FileRef> = BTreeMap::new();
    let manifests = source.savepoints.values().map(|s| &s.manifest).chain([&source.manifest]);
    wanted.extend(manifests.flat_map(file_refs).map(|file| (file.name.as_str(), file)));
    let mut copied = Copied::default();
    let (present, missing): (Vec<&FileRef>, Vec<&FileRef>) =
        wanted.values().partition(|file| known.get(file.name.as_str()) == Some(&file.crc32));
    copied.present += present.len();
    let writes = missing
        .into_iter()
        .map(|file| copy_file(&source.store, file, to, file.name.clone()).boxed());
    let writes = futures::stream::iter(writes.collect::<Vec<_>>()).buffer_unordered(COPIES_MAX);
    let bytes: Vec<u64> = writes.try_collect().await?;
    copied.files += bytes.len();
    copied.bytes += bytes.iter().sum::<u64>();
    for savepoint in source.savepoints.values() {
        if there.get(&savepoint.name) != Some(savepoint) {
            to.delete(&Path::from(paths::savepoint(&savepoint.name))).await?;
            savepoint::write(to, savepoint).await?;
        }
    }
    claim_for(to, source.manifest.generation).await?;
    let number = source.manifest.number.max(found.number_max() + 1);
    let manifest = Manifest { number, ..source.manifest.clone() };
    if !manifest::write(to, &manifest).await? {
        return Err(taken(to, "another backup writes to it"));
    }
    for gone in there.keys().filter(|name| !source.savepoints.contains_key(*name)) {
        to.delete(&Path::from(paths::savepoint(gone))).await?;
    }
    collect(to, &manifest, copies.first(), &source.savepoints, &found.numbers).await?;
    Ok(copied)
}

/// Copies the newest sound checkpoint of `from`, with all savepoints, to `to`, which is empty.
///
/// # Errors
/// SQLSTATE 55006 when `to` is not empty, 58P01 when `from` has nothing; others when a storage
/// fails or all checkpoints are damaged.
pub async fn restore(from: &Store, to: &Store) -> Result<Copied> {
    if !is_empty(to).await? {
        return Err(taken(to, "a database is there")
            .hint("Restore to a new directory or prefix, and start the server there."));
    }
    let mut found = manifest::find(from).await?;
    let savepoints = savepoint::find(from).await?;
    let mut last_error = None;
    while let Some(manifest) = found.next(from).await? {
        let (store, savepoints) = (from.clone(), savepoints.clone());
        let number = manifest.number;
        match copy(&Source { store, manifest, savepoints }, to).await {
            Ok(copied) => return Ok(copied),
            Err(error)
                if [SqlState::DATA_CORRUPTED, SqlState::UNDEFINED_FILE]
                    .contains(&error.sqlstate()) =>
            {
                let file = paths::numbered(MANIFESTS, number);
                tracing::warn!(%file, %error, "a backup is damaged; the one before counts");
                last_error.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(last_error.unwrap_or_else(|| {
        Error::external(SqlState::UNDEFINED_FILE, format!("there is no backup in {}", from.place()))
    }))
}

/// Whether no database is in a storage.
///
/// # Errors
/// When the storage fails.
pub async fn is_empty(store: &Store) -> Result<bool> {
    for folder in [GENERATIONS, MANIFESTS, LOG] {
        if !store.list(folder).await?.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The one savepoint of an exported directory, under `name`, its files copied to `to`.
///
/// # Errors
/// SQLSTATE 58P01 when there is none; others when a storage fails or a file is damaged.
pub async fn import(from: &Store, to: &Store, name: &str) -> Result<(Savepoint, Copied)> {
    let found = savepoint::find(from).await?;
    let mut all = found.into_values();
    let (Some(found), None) = (all.next(), all.next()) else {
        return Err(Error::external(
            SqlState::UNDEFINED_FILE,
            format!("{} is no exported savepoint", from.place()),
        )
        .hint("EXPORT SAVEPOINT name TO 'url' makes one."));
    };
    // The same export gets the same names again, so that a copy that broke off is gone on with.
    let mark = crc32(&found.manifest.encode());
    let moved = |file: &FileRef| FileRef {
        name: format!("{IMPORTED}/{mark:08x}/{}", file.name),
        ..file.clone()
    };
    let mut copied = Copied::default();
    let files: Vec<FileRef> = file_refs(&found.manifest).cloned().collect();
    for file in &files {
        copied.bytes += copy_file(from, file, to, moved(file).name).await?;
        copied.files += 1;
    }
    let mut manifest = found.manifest.clone();
    let views = manifest.views.values_mut().flat_map(|view| &mut view.files);
    let tables = manifest.tables.values_mut().flatten();
    let single = manifest.catalog.iter_mut().chain(&mut manifest.errors);
    let sinks = manifest.sinks.values_mut().flat_map(SinkState::files_mut);
    for file in views.chain(tables).chain(single).chain(sinks) {
        *file = moved(file);
    }
    Ok((Savepoint { name: name.to_owned(), manifest, ..found }, copied))
}

/// Copies one file, and gives its bytes.
async fn copy_file(from: &Store, file: &FileRef, to: &Store, name: String) -> Result<u64> {
    let content = from.get(&Path::from(file.name.as_str())).await?;
    if content.len() as u64 != file.bytes || crc32(&content) != file.crc32 {
        return Err(damaged(&file.name, "its checksum differs"));
    }
    let bytes = content.len() as u64;
    match to.put_new(&Path::from(name), content).await? {
        Put::Written => Ok(bytes),
        Put::Taken(_) => Err(taken(to, "it has files of another database")),
    }
}

/// A server that is started on the copy has a higher generation than the one that wrote it.
async fn claim_for(to: &Store, generation: u64) -> Result<()> {
    let path = paths::numbered(GENERATIONS, generation);
    let json = serde_json::json!({ "generation": generation, "server": "backup" }).to_string();
    let content = Bytes::from(seal("generation", generation::FORMAT, &json));
    // One that is there is as good.
    to.put_new(&path, content).await.map(drop)
}

/// Deletes what two manifests and the savepoints do without. `numbers` are those of the manifests
/// before `newest`, ascending.
async fn collect(
    to: &Store,
    newest: &Manifest,
    kept: Option<&Manifest>,
    savepoints: &Savepoints,
    numbers: &[u64],
) -> Result<()> {
    let mut needed = newest.files();
    needed.extend(kept.iter().flat_map(|manifest| manifest.files()));
    needed.extend(savepoint::files(savepoints, None));
    // A damaged one that is newer than the one kept goes with that: they go in order.
    for number in numbers.iter().filter(|number| kept.is_some_and(|kept| **number < kept.number)) {
        to.delete(&paths::numbered(MANIFESTS, *number)).await?;
    }
    for other in list_others(to, &needed).await? {
        to.delete(&other).await?;
    }
    Ok(())
}

/// The files that are there and not needed.
///
/// # Errors
/// When the storage fails.
pub async fn list_others(store: &Store, needed: &BTreeSet<&str>) -> Result<Vec<Path>> {
    let mut others = Vec::new();
    for folder in [CATALOGS, TABLES, STATES, ERRORS, SINKS, IMPORTED] {
        let files = store.list(folder).await?;
        others.extend(files.into_iter().filter(|path| !needed.contains(path.as_ref())));
    }
    Ok(others)
}

fn file_refs(manifest: &Manifest) -> impl Iterator<Item = &FileRef> {
    let tables = manifest.tables.values().flatten();
    let views = manifest.views.values().flat_map(|view| &view.files);
    let sinks = manifest.sinks.values().flat_map(SinkState::files);
    manifest.catalog.iter().chain(&manifest.errors).chain(tables).chain(views).chain(sinks)
}

fn taken(to: &Store, why: &str) -> Error {
    Error::external(SqlState::OBJECT_IN_USE, format!("{} cannot be written to: {why}", to.place()))
        .hint("Use an empty directory or prefix, or one that has backups of this database only.")
}
