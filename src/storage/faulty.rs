//! A store for tests that fails when it is told to.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::storage::store::Store;

/// How writes fail.
#[derive(Clone, Debug)]
pub enum Fault {
    None,
    /// Nothing is written.
    DiskFull,
    /// Nothing is written, for another reason.
    Refused(std::io::ErrorKind),
    /// Everything is written, and no answer comes back.
    LostAnswers,
    /// A random part of writes fails, before or after it was done.
    Random(Box<StdRng>, f64),
    /// Everything is written, and nothing can be deleted.
    NoDeletes,
}

/// What was done to a store.
#[derive(Clone, Debug)]
pub enum Operation {
    Put(Path, PutPayload),
    Delete(Path),
}

/// An object store in memory, which remembers what was done to it.
#[derive(Debug)]
pub struct FaultyStore {
    objects: Arc<InMemory>,
    fault: Mutex<Fault>,
    operations: Arc<Mutex<Vec<Operation>>>,
    refused_writes: AtomicUsize,
    refused_deletes: Arc<AtomicUsize>,
    /// So many lists are as of when so many operations were done.
    old_lists: Mutex<(usize, usize)>,
    /// Reading these takes too long.
    unreadable: Mutex<BTreeSet<Path>>,
}

impl FaultyStore {
    pub fn new() -> Arc<FaultyStore> {
        Arc::new(FaultyStore {
            objects: Arc::default(),
            fault: Mutex::new(Fault::None),
            operations: Arc::default(),
            refused_writes: AtomicUsize::new(0),
            refused_deletes: Arc::default(),
            old_lists: Mutex::default(),
            unreadable: Mutex::default(),
        })
    }

    /// Writes that failed before they were done.
    pub fn refused_writes(&self) -> usize {
        self.refused_writes.load(Ordering::SeqCst)
    }

    /// Objects that were not deleted.
    pub fn refused_deletes(&self) -> usize {
        self.refused_deletes.load(Ordering::SeqCst)
    }

    /// Lets the next `lists` show the names that were there when `done` operations were done.
    pub fn set_old_lists(&self, lists: usize, done: usize) {
        *self.old_lists.lock().expect("no panic under this lock") = (lists, done);
    }

    /// From now on these objects, and no others, cannot be read.
    pub fn set_unreadable(&self, paths: impl IntoIterator<Item = Path>) {
        *self.unreadable.lock().expect("no panic under this lock") = paths.into_iter().collect();
    }

    /// How many of its operations the next list shows; `None`: all there are.
    fn next_list(&self) -> Option<usize> {
        let mut old = self.old_lists.lock().expect("no panic under this lock");
        old.0 = old.0.checked_sub(1)?;
        Some(old.1)
    }

    /// What has been done until now.
    pub fn operations(&self) -> Vec<Operation> {
        self.operations.lock().expect("no panic under this lock").clone()
    }

    /// A store to which only these operations were done: what a crash leaves.
    pub async fn after(operations: &[Operation]) -> Arc<FaultyStore> {
        let store = FaultyStore::new();
        for operation in operations {
            match operation.clone() {
                Operation::Put(path, payload) => {
                    store
                        .objects
                        .put_opts(&path, payload, PutOptions::default())
                        .await
                        .expect("memory takes every object");
                }
                Operation::Delete(path) => {
                    // It may be missing.
                    let _ = object_store::ObjectStoreExt::delete(&*store.objects, &path).await;
                }
            }
        }
        store
    }

    pub fn set(&self, fault: Fault) {
        *self.fault.lock().expect("no panic under this lock") = fault;
    }

    pub fn set_random(&self, seed: u64, probability: f64) {
        self.set(Fault::Random(Box::new(StdRng::seed_from_u64(seed)), probability));
    }

    /// The store as the storage room wants it.
    pub fn store(self: &Arc<FaultyStore>) -> Store {
        Store::over(self.clone(), "test")
    }

    /// Puts bytes under a name, whatever is there.
    pub async fn overwrite(&self, path: &Path, bytes: Vec<u8>) {
        self.objects
            .put_opts(path, bytes.into(), PutOptions::default())
            .await
            .expect("memory takes every object");
    }

    /// Whether the next write fails before it is done, and whether after.
    fn next_write(&self) -> (bool, bool) {
        match &mut *self.fault.lock().expect("no panic under this lock") {
            Fault::None | Fault::NoDeletes => (false, false),
            Fault::DiskFull | Fault::Refused(_) => (true, false),
            Fault::LostAnswers => (false, true),
            Fault::Random(random, probability) => {
                (random.random_bool(*probability), random.random_bool(*probability))
            }
        }
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty store")
    }
}

fn io(kind: std::io::ErrorKind) -> Error {
    Error::Generic { store: "faulty", source: std::io::Error::from(kind).into() }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let (before, after) = self.next_write();
        if before {
            self.refused_writes.fetch_add(1, Ordering::SeqCst);
            let kind = match &*self.fault.lock().expect("no panic under this lock") {
                Fault::Refused(kind) => *kind,
                _ => std::io::ErrorKind::StorageFull,
            };
            return Err(io(kind));
        }
        let result = self.objects.put_opts(path, payload.clone(), options).await;
        if result.is_ok() {
            self.operations
                .lock()
                .expect("no panic under this lock")
                .push(Operation::Put(path.clone(), payload));
        }
        if after {
            return Err(io(std::io::ErrorKind::TimedOut));
        }
        result
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let unreadable = self.unreadable.lock().expect("no panic under this lock").contains(path);
        match unreadable {
            true => Err(io(std::io::ErrorKind::TimedOut)),
            false => self.objects.get_opts(path, options).await,
        }
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let refuses =
            matches!(*self.fault.lock().expect("no panic under this lock"), Fault::NoDeletes);
        if refuses {
            let refused = self.refused_deletes.clone();
            let refuse = move |path: Result<Path>| {
                refused.fetch_add(1, Ordering::SeqCst);
                path.and_then(|_| Err(io(std::io::ErrorKind::PermissionDenied)))
            };
            return paths.map(refuse).boxed();
        }
        let operations = self.operations.clone();
        let paths = paths.inspect(move |path| {
            if let Ok(path) = path {
                operations
                    .lock()
                    .expect("no panic under this lock")
                    .push(Operation::Delete(path.clone()));
            }
        });
        self.objects.delete_stream(paths.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let Some(done) = self.next_list() else { return self.objects.list(prefix) };
        let (operations, prefix) = (self.operations(), prefix.cloned());
        let old = async move {
            let old = FaultyStore::after(&operations[..done.min(operations.len())]).await;
            old.objects.list(prefix.as_ref())
        };
        futures::stream::once(old).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}
