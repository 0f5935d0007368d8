//! What Millstream asks of an object store: write once, read, list, delete.
//!
//! Every object is written once, under a name that must not exist. An answer may be lost on its
//! way: when a name is taken, the object is read back, and if it is what was to be written, it
//! was we.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::storage::checksum::damaged;
use crate::storage::local::LocalStore;
use crate::storage::paths;
use crate::types::error::{Error, Result, SqlState};

/// SQLSTATE of Postgres for a full disk.
pub const DISK_FULL: SqlState = SqlState("53100");

/// An object store and how to name it in messages. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    place: Arc<str>,
    /// Whether bytes are cheap, as on a disk, or to be saved, as on the way to a bucket.
    cheap_bytes: bool,
}

/// What became of an object that was to be written.
#[derive(Debug)]
pub enum Put {
    Written,
    /// Another has that name; its content.
    Taken(Bytes),
}

impl Store {
    /// A directory of this machine, made when it is missing.
    ///
    /// # Errors
    /// When it cannot be made or opened.
    pub fn directory(directory: &std::path::Path) -> Result<Store> {
        let place = directory.display().to_string();
        let local =
            LocalStore::open(directory).map_err(|e| e.context(format!("storage {place}")))?;
        Ok(Store::over(Arc::new(local), &place).with_cheap_bytes())
    }

    /// A directory that others read, and may write to: nothing in it is taken for ours.
    ///
    /// # Errors
    /// When it cannot be made or opened.
    pub fn target_directory(directory: &std::path::Path) -> Result<Store> {
        let place = directory.display().to_string();
        let local = LocalStore::open_shared(directory)
            .map_err(|e| e.context(format!("directory {place}")))?;
        Ok(Store::over(Arc::new(local), &place))
    }

    /// Any store.
    pub fn over(objects: Arc<dyn ObjectStore>, place: &str) -> Store {
        Store { objects, place: place.into(), cheap_bytes: false }
    }

    /// The same store, on which bytes cost less than packing them.
    #[must_use]
    pub fn with_cheap_bytes(self) -> Store {
        Store { cheap_bytes: true, ..self }
    }

    /// Whether writing bytes costs less than packing them.
    pub fn has_cheap_bytes(&self) -> bool {
        self.cheap_bytes
    }

    /// Where it is, for messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Writes an object that must not exist. When this returns [`Put::Written`], it is durable.
    ///
    /// # Errors
    /// When the store fails; the object may or may not be there.
    pub async fn put_new(&self, path: &Path, content: impl Into<PutPayload>) -> Result<Put> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let content = content.into();
        match self.objects.put_opts(path, content.clone(), options).await {
            Ok(_) => Ok(Put::Written),
            Err(object_store::Error::AlreadyExists { .. }) => {
                let found = self.get(path).await?;
                Ok(if is_content(&found, &content) { Put::Written } else { Put::Taken(found) })
            }
            Err(error) => Err(self.failed("write", path, error)),
        }
    }

    /// Writes an object whose name has these parts, whatever characters they have.
    ///
    /// # Errors
    /// As [`Store::put_new`].
    pub async fn put_new_at(&self, parts: &[String], content: Bytes) -> Result<Put> {
        self.put_new(&path_of(parts), content).await
    }

    /// Deletes the object whose name has these parts.
    ///
    /// # Errors
    /// As [`Store::delete`].
    pub async fn delete_at(&self, parts: &[String]) -> Result<()> {
        self.delete(&path_of(parts)).await
    }

    /// The content of an object.
    ///
    /// # Errors
    /// SQLSTATE 58P01 when it is missing; others when the store fails.
    pub async fn get(&self, path: &Path) -> Result<Bytes> {
        let read = async { self.objects.get(path).await?.bytes().await };
        read.await.map_err(|error| self.failed("read", path, error))
    }

    /// A part of the content of an object, in memory of its own.
    ///
    /// # Errors
    /// As [`Store::get`]; also when the object is shorter.
    pub async fn get_range(&self, path: &Path, range: Range<u64>) -> Result<Bytes> {
        let length = range.end - range.start;
        let read = self.objects.get_range(path, range).await;
        let bytes = read.map_err(|error| self.failed("read", path, error))?;
        match bytes.len() as u64 == length {
            true => Ok(bytes),
            false => Err(damaged(path.as_ref(), "it is too short")),
        }
    }

    /// Whether there is an object.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn exists(&self, path: &Path) -> Result<bool> {
        match self.objects.head(path).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.failed("read", path, error)),
        }
    }

    /// The names below a folder, sorted.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(&self, folder: &str) -> Result<Vec<Path>> {
        let prefix = Path::from(folder);
        let objects = self.objects.list(Some(&prefix)).map_ok(|meta| meta.location);
        let mut names: Vec<Path> =
            objects.try_collect().await.map_err(|error| self.failed("list", &prefix, error))?;
        names.sort_unstable();
        Ok(names)
    }

    /// The numbers of a folder of numbered objects, ascending.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list_numbers(&self, folder: &str) -> Result<Vec<u64>> {
        Ok(self.list(folder).await?.iter().filter_map(paths::number_of).collect())
    }

    /// Deletes an object; one that is missing is as good as deleted.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn delete(&self, path: &Path) -> Result<()> {
        match self.objects.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("delete", path, error)),
        }
    }

    fn failed(&self, action: &str, path: &Path, error: object_store::Error) -> Error {
        let state = sqlstate(&error);
        let failure = Error::external(
            state,
            format!("cannot {action} object \"{path}\" of storage {}", self.place),
        )
        .detail(error.to_string());
        match state {
            DISK_FULL => failure.hint("Free some space; the server goes on by itself then."),
            _ => failure,
        }
    }
}

fn path_of(parts: &[String]) -> Path {
    parts.iter().map(String::as_str).collect()
}

/// Whether `found` is the parts of `content`, one after the other.
fn is_content(found: &[u8], content: &PutPayload) -> bool {
    let mut rest = Some(found);
    for part in content {
        rest = rest.and_then(|rest| rest.strip_prefix(part.as_ref()));
    }
    rest.is_some_and(<[u8]>::is_empty)
}

/// The SQLSTATE of a store's failure, from the operating system's error if there is one.
fn sqlstate(error: &object_store::Error) -> SqlState {
    match error {
        object_store::Error::NotFound { .. } => return SqlState::UNDEFINED_FILE,
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => return SqlState::INSUFFICIENT_PRIVILEGE,
        _ => {}
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return match io.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => DISK_FULL,
                std::io::ErrorKind::PermissionDenied => SqlState::INSUFFICIENT_PRIVILEGE,
                _ => SqlState::IO_ERROR,
            };
        }
        cause = error.source();
    }
    SqlState::IO_ERROR
}
