//! Manifests: what is durable, as a numbered list of files.
//!
//! A manifest is complete or not there, and never changed. The newest one that can be read
//! counts; when it cannot, the one before does, which is why two are kept with all that they
//! name. The log after `sequence` is what has happened since.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use serde::{Deserialize, Serialize};

use crate::storage::checksum::{damaged, seal, unseal};
use crate::storage::generation::has_begun;
use crate::storage::paths::{self, MANIFESTS};
use crate::storage::sinks::SinkState;
use crate::storage::store::{Put, Store};
use crate::types::error::{Error, Result, SqlState};

/// Version of the format, see `docs/FORMAT.md`.
pub const FORMAT: u32 = 4;

/// What is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub number: u64,
    /// The server that wrote it.
    pub generation: u64,
    /// Records of the log up to this one are in the files.
    pub sequence: u64,
    /// The newest epoch that a record in the files belongs to.
    pub epoch: u64,
    /// No catalog object has this id or a higher one.
    pub next_id: u64,
    /// The first object of the log that may hold later records.
    pub log_start: u64,
    /// `None` before the first object is created.
    pub catalog: Option<FileRef>,
    /// By object id: base file first, then deltas in order.
    pub tables: BTreeMap<u64, Vec<FileRef>>,
    /// By object id: rows that each source had given.
    pub sources: BTreeMap<u64, u64>,
    /// By object id: the state of each view as of `epoch`. A view that is not named has none, and
    /// is computed anew. Absent in version 1.
    #[serde(default)]
    pub views: BTreeMap<u64, ViewState>,
    /// By object id: where each source was read to in `epoch`. Absent in version 1.
    #[serde(default)]
    pub places: BTreeMap<u64, SourcePlace>,
    /// Rows that views and sources have left out; `None` when there are none.
    #[serde(default)]
    pub errors: Option<FileRef>,
    /// By object id: what each sink has staged and, as far as is known, not written out. A sink
    /// that is not named has staged nothing yet. Absent before version 3.
    #[serde(default)]
    pub sinks: BTreeMap<u64, SinkState>,
}

/// What is stored of a view.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewState {
    /// Of the plan whose operators have the state.
    pub fingerprint: String,
    /// Workers of the run that wrote it.
    pub workers: usize,
    /// The base, then deltas in order.
    pub files: Vec<FileRef>,
}

/// How far a source was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePlace {
    /// Rows that it had given to views.
    pub rows: u64,
    /// Records that could not be read.
    pub malformed: u64,
    /// The connector's text of a place, by split.
    pub offsets: BTreeMap<String, String>,
    /// What else belongs to the source as of the epoch, by name: its watermark, say. A name is
    /// that of a split or used by one worker only.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
}

impl SourcePlace {
    /// Adds the share of another worker.
    pub fn add(&mut self, other: SourcePlace) {
        self.rows += other.rows;
        self.malformed += other.malformed;
        self.offsets.extend(other.offsets);
        self.values.extend(other.values);
    }
}

/// Epochs that a run may close after its last manifest: a start goes on behind them, so that no
/// number is used twice. A checkpoint is made before they are used up, whatever has changed.
pub const EPOCHS_RESERVED: u64 = 1_000_000;

/// A file that a manifest names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRef {
    pub name: String,
    pub bytes: u64,
    /// Of the whole file.
    pub crc32: u32,
    /// 0 for files that do not hold rows.
    pub rows: u64,
    /// How many of the rows say that a row of an earlier file has gone; known for files of state
    /// only. Those written before this was told count as none.
    #[serde(default)]
    pub deleted: u64,
}

impl Manifest {
    /// Names of all its files.
    pub fn files(&self) -> BTreeSet<&str> {
        let tables = self.tables.values().flatten();
        let views = self.views.values().flat_map(|view| &view.files);
        let sinks = self.sinks.values().flat_map(SinkState::files);
        let single = self.catalog.iter().chain(&self.errors);
        single.chain(tables).chain(views).chain(sinks).map(|file| file.name.as_str()).collect()
    }

    /// As it is stored.
    pub fn encode(&self) -> Bytes {
        let json = serde_json::to_string_pretty(self).expect("plain data has a JSON form");
        Bytes::from(seal("manifest", FORMAT, &json))
    }

    /// Reads a stored manifest.
    ///
    /// # Errors
    /// When it is damaged, or of a newer version.
    pub fn decode(object: &str, bytes: &[u8]) -> Result<Manifest> {
        let json = unseal(object, "manifest", FORMAT, bytes)?;
        serde_json::from_str(json).map_err(|error| damaged(object, error))
    }
}

/// The manifests of a storage, newest first, each read when it is asked for: those that a start
/// does without cannot keep it from coming about.
#[derive(Debug)]
pub struct Found {
    /// All that are listed, ascending.
    pub numbers: Vec<u64>,
    /// The newest that can be read, until it is asked for; `None` when there are no manifests.
    newest: Option<Manifest>,
    /// So many of the numbers have not been read.
    unread: usize,
}

/// A manifest below the newest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Older {
    pub number: u64,
    /// `None` when it is damaged, or could not be read just now: what it names is not known.
    pub manifest: Option<Manifest>,
}

/// What is found under the number of a manifest.
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once")]
enum Read {
    Sound(Manifest),
    Damaged(Error),
    Gone,
}

/// Lists of manifests that are seen to be old, before one gives up.
const LISTS_MAX: u32 = 100;
/// Older manifests that are read at the same time.
const READS_MAX: usize = 16;

/// Finds the manifests, down to the newest that can be read, and warns of those that cannot.
///
/// A list may be older than the moment, or a server that is being replaced goes on meanwhile.
/// Numbers are written in ascending order, and go in that order, sound or not, only when two higher
/// ones are there: if the newest that is listed is there, the number behind it has never been given
/// up, and is free or taken. If none is listed, the storage must not have begun.
///
/// # Errors
/// When the storage fails; when there are manifests and none can be read; when one was written by
/// a newer version.
pub async fn find(store: &Store) -> Result<Found> {
    let mut gone = None;
    for _ in 0..LISTS_MAX {
        let numbers = store.list_numbers(MANIFESTS).await?;
        let Some(highest) = numbers.last().copied() else {
            if !has_begun(store).await? {
                return Ok(Found { numbers, newest: None, unread: 0 });
            }
            gone = None;
            continue;
        };
        let (mut unread, mut last_error) = (numbers.len(), None);
        while let Some(number) = numbers[..unread].last().copied() {
            unread -= 1;
            match read(store, number).await? {
                Read::Sound(manifest) => {
                    return Ok(Found { numbers, newest: Some(manifest), unread });
                }
                Read::Gone if number == highest => break,
                // Newer ones are there.
                Read::Gone => {}
                Read::Damaged(error) => last_error = Some(error),
            }
        }
        if let Some(error) = last_error {
            return Err(error
                .context("no manifest can be read")
                .hint("Restore the storage from a backup; nothing has been changed."));
        }
        gone = Some(highest);
    }
    let Some(gone) = gone else { return Err(all_missing()) };
    let path = paths::numbered(MANIFESTS, gone);
    Err(damaged(path.as_ref(), "it is listed again and again, and is missing"))
}

impl Found {
    /// The highest number there is, readable or not; 0 when there is none.
    pub fn number_max(&self) -> u64 {
        self.numbers.last().copied().unwrap_or(0)
    }

    /// The newest that can be read and was not asked for before.
    ///
    /// # Errors
    /// When the storage fails; when it was written by a newer version.
    pub async fn next(&mut self, store: &Store) -> Result<Option<Manifest>> {
        if let Some(newest) = self.newest.take() {
            return Ok(Some(newest));
        }
        while let Some(number) = self.numbers[..self.unread].last().copied() {
            self.unread -= 1;
            if let Read::Sound(manifest) = read(store, number).await? {
                return Ok(Some(manifest));
            }
        }
        Ok(None)
    }

    /// All that can be read and were not asked for before.
    ///
    /// # Errors
    /// As [`Found::next`].
    pub async fn all(&mut self, store: &Store) -> Result<Vec<Manifest>> {
        let mut all = Vec::new();
        while let Some(manifest) = self.next(store).await? {
            all.push(manifest);
        }
        Ok(all)
    }
}

/// Reads what there is under these numbers, oldest first; `known` are those that have been read.
/// That the storage fails is told of, and no error: then it is not known what some of them name,
/// and the second value is false.
///
/// # Errors
/// When one was written by a newer version.
pub async fn read_older(
    store: &Store,
    numbers: &[u64],
    known: Vec<Manifest>,
) -> Result<(Vec<Older>, bool)> {
    let mut known: BTreeMap<u64, Manifest> =
        known.into_iter().map(|manifest| (manifest.number, manifest)).collect();
    let mut reads = Vec::with_capacity(numbers.len());
    for number in numbers.iter().copied() {
        let known = known.remove(&number);
        let read = async move {
            match known {
                Some(manifest) => (number, Ok(Read::Sound(manifest))),
                None => (number, read(store, number).await),
            }
        };
        reads.push(read.boxed());
    }
    let (mut older, mut complete) = (Vec::with_capacity(numbers.len()), true);
    let mut reads = futures::stream::iter(reads).buffered(READS_MAX);
    while let Some((number, read)) = reads.next().await {
        let manifest = match read {
            Ok(Read::Sound(manifest)) => Some(manifest),
            Ok(Read::Damaged(_)) => None,
            Ok(Read::Gone) => continue,
            Err(error) if error.sqlstate() == SqlState::FEATURE_NOT_SUPPORTED => return Err(error),
            Err(error) => {
                tracing::warn!(number, %error, "an older manifest cannot be read just now");
                complete = false;
                None
            }
        };
        older.push(Older { number, manifest });
    }
    Ok((older, complete))
}

/// There must be one, and there is none.
pub fn all_missing() -> Error {
    damaged(MANIFESTS, "there is none, and the database has begun")
        .hint("Restore the storage from a backup; nothing has been changed.")
}

/// Reads the manifest of a number, and warns when it is damaged.
async fn read(store: &Store, number: u64) -> Result<Read> {
    let path = paths::numbered(MANIFESTS, number);
    let bytes = match store.get(&path).await {
        Ok(bytes) => bytes,
        Err(error) if error.sqlstate() == SqlState::UNDEFINED_FILE => return Ok(Read::Gone),
        Err(error) => return Err(error),
    };
    let error = match Manifest::decode(path.as_ref(), &bytes) {
        Ok(manifest) if manifest.number == number => return Ok(Read::Sound(manifest)),
        Ok(manifest) => damaged(path.as_ref(), format!("it says number {}", manifest.number)),
        Err(error) if error.sqlstate() == SqlState::FEATURE_NOT_SUPPORTED => return Err(error),
        Err(error) => error,
    };
    tracing::warn!(file = %path, %error, "a manifest cannot be read; the one before counts");
    Ok(Read::Damaged(error))
}

/// Writes a manifest; `false` when its number is taken.
///
/// # Errors
/// When the storage fails.
pub async fn write(store: &Store, manifest: &Manifest) -> Result<bool> {
    assert!(manifest.number > 0, "manifests count from 1");
    let path = paths::numbered(MANIFESTS, manifest.number);
    match store.put_new(&path, manifest.encode()).await? {
        Put::Written => Ok(true),
        Put::Taken(_) => Ok(false),
    }
}

/// What nobody needs any more.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Garbage {
    pub manifests: Vec<u64>,
    pub files: Vec<String>,
    /// Objects of the log before this one.
    pub log_below: u64,
}

/// What may go once `newest` is there beside `kept`, the one before it; `old` are those before.
/// Files of one that cannot be read are left to the next start.
pub fn garbage(old: &[Older], kept: &Manifest, newest: &Manifest) -> Garbage {
    assert!(kept.number < newest.number);
    let needed: BTreeSet<&str> = kept.files().union(&newest.files()).copied().collect();
    let mut garbage =
        Garbage { log_below: kept.log_start.min(newest.log_start), ..Garbage::default() };
    for Older { number, manifest } in old {
        assert!(*number < kept.number);
        garbage.manifests.push(*number);
        for file in manifest.iter().flat_map(Manifest::files) {
            if !needed.contains(file) && !garbage.files.iter().any(|f| f == file) {
                garbage.files.push(file.to_owned());
            }
        }
    }
    garbage
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(number: u64, log_start: u64, files: &[&str]) -> Manifest {
        let file = |name: &&str| FileRef {
            name: (*name).to_owned(),
            bytes: 1,
            crc32: 2,
            rows: 3,
            deleted: 0,
        };
        Manifest {
            number,
            log_start,
            tables: BTreeMap::from([(1, files.iter().map(file).collect())]),
            ..Manifest::default()
        }
    }

    #[test]
    fn a_manifest_comes_back() {
        let manifest = manifest(7, 3, &["a", "b"]);
        assert_eq!(Manifest::decode("m", &manifest.encode()).unwrap(), manifest);
    }

    #[test]
    fn two_manifests_keep_all_that_they_name() {
        let old = manifest(1, 2, &["a", "b", "c"]);
        let kept = manifest(2, 5, &["b", "d"]);
        let newest = manifest(3, 9, &["c", "e"]);
        let expected = Garbage { manifests: vec![1], files: vec!["a".to_owned()], log_below: 5 };
        let old = Older { number: 1, manifest: Some(old) };
        assert_eq!(garbage(&[old], &kept, &newest), expected);
    }
}
