//! Claims a storage and finds out what is in it.
//!
//! 1. The next generation is claimed.
//! 2. The newest manifest whose files are sound is found, and written once more under the next
//!    number: an older server that is still running cannot write that number any more. It gets an
//!    epoch behind all that the run before may have closed.
//! 3. The log is read from where the manifest says, up to its end; then an empty object takes the
//!    next number, which fences the log in the same way. If the other server was faster, its
//!    object is read too, and the number after it is tried.
//! 4. The manifests before are read, and what no manifest names and an older server left behind is
//!    deleted. When one cannot be read just now, the start goes on, and leaves that to the next: a
//!    start that fails leaves one manifest more, and must not make the next one likelier to fail.
//!
//! With a savepoint its state takes the place of the newest one: it becomes the newest manifest,
//! and the log up to now does not count any more.
//!
//! Damage at the end of the log, behind which there is nothing, is taken as a write that was not
//! finished: the records before it count, and a warning names the object. Damage before other
//! records, or a missing object, means that something acknowledged is lost: the start is refused.

use std::collections::{BTreeMap, BTreeSet};

use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;

use crate::storage::checkpoint::{CATALOG_FORMAT, Checkpointer, ERRORS_FORMAT};
use crate::storage::checksum::{crc32, damaged, unseal};
use crate::storage::generation::{claim, fenced, mark_begun, superseded};
use crate::storage::log::{Entry, ReadObject, Record, decode_object, encode_object};
use crate::storage::manifest::{self, EPOCHS_RESERVED, FileRef, Found, Manifest, Older};
use crate::storage::paths::{self, LOG};
use crate::storage::savepoint::{self, Savepoint, Savepoints};
use crate::storage::state_files::{self, Keep, StateRows};
use crate::storage::store::{Put, Store};
use crate::storage::table_files;
use crate::storage::transfer::list_others;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;

/// Numbers that the servers may fight over before one gives up.
const ATTEMPTS_MAX: u32 = 1000;
/// Tables, and views, that are read at the same time.
const READS_MAX: usize = 4;
/// Objects of the log that are read at the same time.
const LOG_READS_MAX: usize = 16;

/// A claimed storage and what is in it.
#[derive(Debug)]
pub struct Recovered {
    pub store: Store,
    pub generation: u64,
    /// What the files show.
    pub manifest: Manifest,
    /// The catalog's JSON; `None` when nothing was ever created.
    pub catalog: Option<String>,
    /// The rows of each table as changes in order.
    pub tables: BTreeMap<ObjectId, Vec<ChangeBatch>>,
    /// The state of each view as of the manifest's epoch.
    pub views: BTreeMap<ObjectId, StateRows>,
    /// The row errors' JSON.
    pub errors: Option<String>,
    /// What has happened since, oldest first, without gaps.
    pub records: Vec<Record>,
    /// The first rows of tables that a record fills from files; whoever knows what records mean
    /// reads them.
    pub fills: BTreeMap<ObjectId, Vec<ChangeBatch>>,
    /// The last record there is; that of the manifest when there are none after it.
    pub sequence: u64,
    /// The newest object of the log, which is ours.
    pub log_number: u64,
    /// Something at the log's end was left out.
    pub torn: bool,
    pub checkpointer: Checkpointer,
}

/// Claims a storage for a server called `identity`, a text that no other uses.
///
/// # Errors
/// When the storage fails; when it is damaged so that something acknowledged would be lost; when
/// another server claims it meanwhile.
pub async fn recover(store: Store, identity: &str) -> Result<Recovered> {
    recover_from(store, identity, None, state_files::in_memory()).await
}

/// The same from a savepoint. The rows of views' state go through `keep` as they are read.
///
/// # Errors
/// Also SQLSTATE 42704 when there is no such savepoint; then nothing has been changed.
pub async fn recover_from(
    store: Store,
    identity: &str,
    from_savepoint: Option<&str>,
    keep: Keep,
) -> Result<Recovered> {
    let savepoints = savepoint::find(&store).await?;
    if let Some(name) = from_savepoint
        && !savepoints.contains_key(name)
    {
        return Err(savepoint::missing(name, &savepoints));
    }
    let generation = claim(&store, identity).await?;
    let mut base = fence_manifests(&store, generation, &keep).await?;
    let log = fence_log(&store, generation, base.manifest.log_start).await?;
    if base.older.is_empty() && !log.objects.is_empty() {
        return Err(manifest::all_missing());
    }
    // Another server may have made one meanwhile.
    let savepoints = savepoint::find(&store).await?;
    let (records, torn, sequence) = match from_savepoint {
        Some(name) => {
            let savepoint =
                savepoints.get(name).ok_or_else(|| savepoint::missing(name, &savepoints))?;
            base = go_back(&store, base, &log, savepoint, &keep).await?;
            (Vec::new(), false, base.manifest.sequence)
        }
        None => {
            let Replay { records, torn } = plan_replay(&base.manifest, log.objects)?;
            let sequence = records.last().map_or(base.manifest.sequence, |record| record.sequence);
            (records, torn, sequence)
        }
    };
    let (older, all_known) = manifest::read_older(&store, &base.numbers, base.older).await?;
    if all_known
        && let Err(error) =
            remove_orphans(&store, generation, &older, &base.manifest, &savepoints).await
    {
        // They do no harm: names are not used twice.
        tracing::warn!(%error, "files that nobody needs cannot be deleted; the next start tries");
    }
    let checkpointer = Checkpointer::new(
        store.clone(),
        generation,
        older,
        base.manifest.clone(),
        log.first,
        savepoints,
    );
    Ok(Recovered {
        store,
        generation,
        manifest: base.manifest,
        catalog: base.content.catalog,
        tables: base.content.tables,
        views: base.content.views,
        errors: base.content.errors,
        records,
        fills: BTreeMap::new(),
        sequence,
        log_number: log.last,
        torn,
        checkpointer,
    })
}

/// Makes the state of a savepoint the newest. What numbers it gives are higher than all that were
/// given before.
async fn go_back(
    store: &Store,
    base: Base,
    log: &FencedLog,
    savepoint: &Savepoint,
    keep: &Keep,
) -> Result<Base> {
    let Base { manifest: newest, mut older, mut numbers, content } = base;
    drop(content);
    let name = &savepoint.name;
    let content = load(store, &savepoint.manifest, keep)
        .await
        .map_err(|error| error.context(format!("savepoint \"{name}\" cannot be read")))?;
    let records = || log.objects.iter().flat_map(|(_, object)| &object.records);
    let definitions = records()
        .flat_map(|record| &record.entries)
        .filter(|entry| matches!(entry, Entry::Catalog(_)))
        .count();
    let manifest = Manifest {
        number: newest.number + 1,
        generation: newest.generation,
        sequence: records().map(|r| r.sequence).fold(newest.sequence, u64::max),
        epoch: records()
            .map(|record| record.epoch.0)
            .fold(newest.epoch.max(savepoint.manifest.epoch), u64::max),
        next_id: newest.next_id.max(savepoint.manifest.next_id) + definitions as u64,
        log_start: log.last,
        ..savepoint.manifest.clone()
    };
    if !manifest::write(store, &manifest).await? {
        return Err(fenced(store, newest.generation));
    }
    tracing::info!(savepoint = %name, manifest = manifest.number, "went back to a savepoint");
    numbers.push(newest.number);
    older.push(newest);
    Ok(Base { manifest, older, numbers, content })
}

/// What files show.
struct Base {
    /// Written in the name of this generation.
    manifest: Manifest,
    /// Others that have been read: those that it was made from, or would have been.
    older: Vec<Manifest>,
    /// All others that are there, ascending.
    numbers: Vec<u64>,
    content: Content,
}

/// What is in the files of a manifest.
#[derive(Default)]
struct Content {
    catalog: Option<String>,
    tables: BTreeMap<ObjectId, Vec<ChangeBatch>>,
    views: BTreeMap<ObjectId, StateRows>,
    errors: Option<String>,
}

async fn fence_manifests(store: &Store, generation: u64, keep: &Keep) -> Result<Base> {
    for _ in 0..ATTEMPTS_MAX {
        let mut found = manifest::find(store).await?;
        let (older, content) = load_newest(store, generation, &mut found, keep).await?;
        // The last is the one that was loaded.
        let loaded = older.last().cloned();
        let manifest =
            loaded.unwrap_or(Manifest { next_id: 1, log_start: 1, ..Manifest::default() });
        let newest = older.iter().map(|manifest| manifest.epoch).max();
        let epoch = newest.map_or(0, |newest| newest + EPOCHS_RESERVED);
        let manifest = Manifest { number: found.number_max() + 1, generation, epoch, ..manifest };
        if manifest::write(store, &manifest).await? {
            mark_begun(store).await?;
            return Ok(Base { manifest, older, numbers: found.numbers, content });
        }
    }
    Err(busy())
}

/// The newest manifest whose files are all sound, behind newer ones whose files are not, and what
/// is in it. No manifests, and nothing, when the storage is new.
async fn load_newest(
    store: &Store,
    generation: u64,
    found: &mut Found,
    keep: &Keep,
) -> Result<(Vec<Manifest>, Content)> {
    let (mut read, mut last_error) = (Vec::new(), None);
    while let Some(manifest) = found.next(store).await? {
        if manifest.generation > generation {
            return Err(fenced(store, generation));
        }
        let loaded = load(store, &manifest, keep).await;
        let file = paths::numbered(paths::MANIFESTS, manifest.number);
        read.push(manifest);
        match loaded {
            Ok(content) => return Ok((read, content)),
            Err(error) => {
                let lost = [SqlState::DATA_CORRUPTED, SqlState::UNDEFINED_FILE];
                if !lost.contains(&error.sqlstate()) {
                    return Err(error);
                }
                tracing::warn!(%file, %error, "a checkpoint is damaged; the one before counts");
                last_error.get_or_insert(error);
            }
        }
    }
    match last_error {
        None => Ok((read, Content::default())),
        Some(error) => Err(error
            .context("no checkpoint can be read")
            .hint("Restore the storage from a backup; nothing has been changed.")),
    }
}

async fn load(store: &Store, manifest: &Manifest, keep: &Keep) -> Result<Content> {
    let mut content = Content {
        catalog: load_text(store, manifest.catalog.as_ref(), "catalog", CATALOG_FORMAT).await?,
        errors: load_text(store, manifest.errors.as_ref(), "errors", ERRORS_FORMAT).await?,
        ..Content::default()
    };
    let mut tables = Vec::with_capacity(manifest.tables.len());
    for (table, files) in &manifest.tables {
        let read = table_files::read_table(store, files);
        tables.push(async move { Ok::<_, Error>((ObjectId(*table), read.await?)) }.boxed());
    }
    let mut reads = Vec::with_capacity(manifest.views.len());
    for (view, state) in &manifest.views {
        let read = state_files::read_rows(store, state, keep.clone());
        reads.push(async move { Ok::<_, Error>((ObjectId(*view), read.await?)) }.boxed());
    }
    // Their content is checked when it is needed: there may be much of it, and no time for it now.
    for file in manifest.sinks.values().flat_map(|sink| sink.files()) {
        if !store.exists(&Path::from(file.name.as_str())).await? {
            return Err(damaged(&file.name, "it is missing"));
        }
    }
    let tables = futures::stream::iter(tables).buffer_unordered(READS_MAX).try_collect();
    let views = futures::stream::iter(reads).buffer_unordered(READS_MAX).try_collect();
    (content.tables, content.views) = futures::try_join!(tables, views)?;
    Ok(content)
}

/// Reads a text object that a manifest names, if it names one.
///
/// # Errors
/// When it is missing, damaged or of a newer version; when the storage fails.
pub async fn load_text(
    store: &Store,
    file: Option<&FileRef>,
    kind: &str,
    version_max: u32,
) -> Result<Option<String>> {
    let Some(file) = file else { return Ok(None) };
    let bytes = store.get(&Path::from(file.name.as_str())).await?;
    if bytes.len() as u64 != file.bytes || crc32(&bytes) != file.crc32 {
        return Err(damaged(&file.name, "its checksum differs"));
    }
    Ok(Some(unseal(&file.name, kind, version_max, &bytes)?.to_owned()))
}

fn busy() -> Error {
    Error::external(SqlState::OBJECT_IN_USE, "another server writes to the same storage")
        .hint("Stop it, or give each server a storage of its own.")
}

/// The log as it is.
struct FencedLog {
    /// In order, from where the manifest says.
    objects: Vec<(u64, ReadObject)>,
    /// The oldest object there is.
    first: u64,
    /// Ours, which ends what the others wrote.
    last: u64,
}

async fn fence_log(store: &Store, generation: u64, start: u64) -> Result<FencedLog> {
    let numbers = store.list_numbers(LOG).await?;
    let first = numbers.first().copied().unwrap_or(start);
    let mut next = start;
    let numbers: Vec<u64> = numbers.into_iter().filter(|number| *number >= start).collect();
    for number in &numbers {
        if *number != next {
            return Err(damaged(
                paths::numbered(LOG, next).as_ref(),
                "it is missing, and later ones are there",
            )
            .hint("Restore the storage from a backup; nothing has been changed."));
        }
        next += 1;
    }
    let mut reads = Vec::with_capacity(numbers.len());
    for number in numbers {
        let read = async move {
            let bytes = store.get(&paths::numbered(LOG, number)).await?;
            Ok::<_, Error>((number, decode_object(number, &bytes)))
        };
        reads.push(read.boxed());
    }
    let mut objects: Vec<(u64, ReadObject)> =
        futures::stream::iter(reads).buffered(LOG_READS_MAX).try_collect().await?;
    for _ in 0..ATTEMPTS_MAX {
        let content = encode_object(generation, next, &[])?;
        match store.put_new(&paths::numbered(LOG, next), content).await? {
            Put::Written => return Ok(FencedLog { objects, first, last: next }),
            Put::Taken(bytes) => {
                let read = decode_object(next, &bytes);
                if read.generation > generation {
                    return Err(fenced(store, generation));
                }
                objects.push((next, read));
                next += 1;
            }
        }
    }
    Err(busy())
}

/// What to replay.
#[derive(Debug)]
struct Replay {
    records: Vec<Record>,
    torn: bool,
}

/// Decides which records count.
fn plan_replay(manifest: &Manifest, objects: Vec<(u64, ReadObject)>) -> Result<Replay> {
    let mut records: Vec<Record> = Vec::new();
    let mut sequence = manifest.sequence;
    let mut damage: Option<(u64, Error)> = None;
    for (number, object) in objects {
        for record in object.records {
            if let Some((_, error)) = damage {
                return Err(error
                    .context("the log is damaged before its end")
                    .hint("Restore the storage from a backup; nothing has been changed."));
            }
            if record.sequence <= manifest.sequence {
                continue;
            }
            if record.sequence != sequence + 1 {
                let name = paths::numbered(LOG, number);
                let what = format!("record {} follows {sequence}", record.sequence);
                return Err(damaged(name.as_ref(), what)
                    .hint("Restore the storage from a backup; nothing has been changed."));
            }
            sequence = record.sequence;
            records.push(record);
        }
        match object.damage {
            // Not damage, but what a newer program wrote.
            Some(error) if error.sqlstate() == SqlState::FEATURE_NOT_SUPPORTED => {
                return Err(error);
            }
            Some(error) if damage.is_none() => damage = Some((number, error)),
            _ => {}
        }
    }
    if let Some((number, error)) = &damage {
        let file = paths::numbered(LOG, *number);
        tracing::warn!(%file, %error, "the end of the log cannot be read, and is left out");
    }
    Ok(Replay { records, torn: damage.is_some() })
}

/// Deletes files that no manifest and no savepoint names, unless a newer server has claimed the
/// storage meanwhile: it may be they are files of that one, whose manifests are not known here. If
/// there is no claim after they were listed, there was none when they were written.
pub(super) async fn remove_orphans(
    store: &Store,
    generation: u64,
    older: &[Older],
    newest: &Manifest,
    savepoints: &Savepoints,
) -> Result<()> {
    let manifests = older.iter().filter_map(|older| older.manifest.as_ref()).chain([newest]);
    let mut needed: BTreeSet<&str> = manifests.flat_map(Manifest::files).collect();
    needed.extend(savepoint::files(savepoints, None));
    let orphans = list_others(store, &needed).await?;
    if orphans.is_empty() || superseded(store, generation).await? {
        return Ok(());
    }
    for orphan in orphans {
        store.delete(&orphan).await?;
    }
    Ok(())
}
