//! A directory as an object store that survives power loss.
//!
//! `object_store::local` gives names to files before their bytes are on the disk, and never asks
//! for them to be. Here an object appears in three steps: its bytes go into a file of another
//! name and to the disk (`fsync`), the file gets its name (a hard link fails when the name
//! exists), and the directory goes to the disk. So a name that exists has its whole content, and
//! what was reported as written stays.
//!
//! Large objects go to the disk and come from it past the kernel's cache (`direct.rs`). Listing and
//! deleting are the library's own, and so is the reading of small objects. A file `name#7` is one that was never
//! finished: it is not listed, and removed at the next start.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result as StoreResult,
};

use crate::observe::process::CpuMeter;
use crate::storage::direct::{self, READ_BYTES_MIN};
use crate::types::error::{Error, Result};

/// A directory.
#[derive(Debug)]
pub struct LocalStore {
    files: LocalFileSystem,
    root: Arc<FilePath>,
    /// Makes the names of unfinished files differ.
    unfinished: AtomicU64,
}

impl LocalStore {
    /// Opens a directory, made when it is missing.
    ///
    /// # Errors
    /// When it cannot be made or read.
    pub fn open(root: &FilePath) -> Result<LocalStore> {
        let store = LocalStore::open_shared(root)?;
        remove_unfinished(&store.root)?;
        Ok(store)
    }

    /// The same of a directory that is not ours alone: unfinished files stay.
    ///
    /// # Errors
    /// As [`LocalStore::open`].
    pub fn open_shared(root: &FilePath) -> Result<LocalStore> {
        fs::create_dir_all(root)?;
        let root = root.canonicalize()?;
        if let Some(parent) = root.parent() {
            sync_directory(parent)?;
        }
        let files = LocalFileSystem::new_with_prefix(&root)
            .map_err(|error| Error::from(io::Error::other(error.to_string())))?;
        Ok(LocalStore { files, root: root.into(), unfinished: AtomicU64::new(1) })
    }
}

impl fmt::Display for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "directory {}", self.root.display())
    }
}

#[async_trait]
impl ObjectStore for LocalStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        let path = self.files.path_to_filesystem(location)?;
        let root = self.root.clone();
        let number = self.unfinished.fetch_add(1, Ordering::Relaxed);
        let meter = options.extensions.get::<CpuMeter>().cloned().unwrap_or_default();
        let written = tokio::task::spawn_blocking(move || match options.mode {
            PutMode::Create => meter.count(|| write_new(&root, &path, number, &payload)),
            PutMode::Overwrite | PutMode::Update(_) => Err(io::Error::new(
                ErrorKind::Unsupported,
                "objects are written once, and never changed",
            )),
        });
        match written.await? {
            Ok(()) => Ok(PutResult { e_tag: None, version: None }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let path = location.to_string();
                Err(object_store::Error::AlreadyExists { path, source: error.into() })
            }
            Err(error) => {
                Err(object_store::Error::Generic { store: "directory", source: error.into() })
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        Err(refused("put_multipart_opts"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        let found = self.files.get_opts(location, options).await?;
        let range = found.range.clone();
        if range.end - range.start < READ_BYTES_MIN {
            return Ok(found);
        }
        let GetResultPayload::File(_, path) = found.payload else { return Ok(found) };
        let name = location.to_string();
        let read = async move {
            let read = tokio::task::spawn_blocking(move || direct::read(&path, range));
            read.await?.map_err(|error| match error.kind() {
                ErrorKind::NotFound => {
                    object_store::Error::NotFound { path: name, source: error.into() }
                }
                _ => object_store::Error::Generic { store: "directory", source: error.into() },
            })
        };
        let payload = GetResultPayload::Stream(futures::stream::once(read).boxed());
        Ok(GetResult { payload, ..found })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        // A deletion that power loss undoes leaves garbage, which the next start collects.
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.files.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> StoreResult<()> {
        Err(refused("copy_opts"))
    }
}

/// What nobody here uses and what would not survive power loss.
fn refused(operation: &str) -> object_store::Error {
    object_store::Error::NotImplemented {
        operation: operation.to_owned(),
        implementer: "LocalStore".to_owned(),
    }
}

/// The three steps.
fn write_new(
    root: &FilePath,
    path: &FilePath,
    number: u64,
    payload: &PutPayload,
) -> io::Result<()> {
    let directory = path.parent().unwrap_or(root);
    make_directory(root, directory)?;
    let unfinished = unfinished_name(path, number);
    let written = direct::create(&unfinished, payload).and_then(|file| file.sync_all());
    let named = written.and_then(|()| fs::hard_link(&unfinished, path));
    // Garbage at worst.
    let _ = fs::remove_file(&unfinished);
    match named {
        Ok(()) => sync_directory(directory),
        Err(error) => {
            if error.kind() == ErrorKind::AlreadyExists {
                // Perhaps we wrote it and the directory did not get to the disk.
                sync_directory(directory)?;
            }
            Err(error)
        }
    }
}

fn unfinished_name(path: &FilePath, number: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!("#{number}"));
    PathBuf::from(name)
}

/// Makes a directory below `root` whose own name is on the disk.
fn make_directory(root: &FilePath, directory: &FilePath) -> io::Result<()> {
    if directory.is_dir() || directory == root {
        return Ok(());
    }
    let parent = directory.parent().unwrap_or(root);
    make_directory(root, parent)?;
    match fs::create_dir(directory) {
        Ok(()) => {}
        // Another thread was faster.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    sync_directory(parent)
}

fn sync_directory(directory: &FilePath) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Removes what a killed server left unfinished.
fn remove_unfinished(directory: &FilePath) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            remove_unfinished(&entry.path())?;
        } else if name.rsplit_once('#').is_some_and(|(_, number)| number.parse::<u64>().is_ok()) {
            // Of a server that still runs, which then fails to write and tries again.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::storage::store::{Put, Store};

    #[tokio::test]
    async fn an_object_is_written_once_and_unfinished_files_go() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::directory(folder.path()).unwrap();
        let path = Path::from("a/b/1");
        let put = |text: &'static str| store.put_new(&path, Bytes::from(text));
        assert!(matches!(put("one").await.unwrap(), Put::Written));
        // The same again: the first answer may have been lost.
        assert!(matches!(put("one").await.unwrap(), Put::Written));
        match put("two").await.unwrap() {
            Put::Taken(found) => assert_eq!(found, "one"),
            Put::Written => panic!("overwritten"),
        }
        std::fs::write(folder.path().join("a/b/2#3"), "torn").unwrap();
        assert_eq!(store.list("a").await.unwrap(), std::slice::from_ref(&path));
        let store = Store::directory(folder.path()).unwrap();
        assert!(!folder.path().join("a/b/2#3").exists());
        let names: Vec<_> = std::fs::read_dir(folder.path().join("a/b")).unwrap().collect();
        assert_eq!(names.len(), 1);
        assert_eq!(store.get(&path).await.unwrap(), "one");
        store.delete(&path).await.unwrap();
        store.delete(&path).await.unwrap();
        assert!(!store.exists(&path).await.unwrap());
        assert_eq!(store.get(&path).await.unwrap_err().sqlstate().0, "58P01");
    }
}
