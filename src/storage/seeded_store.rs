//! A store for tests whose faults are decided by a seed.
//!
//! What happens to an operation follows from the seed, the kind of the operation, the object's
//! name and how often that was tried: not from the moment, so that threads may run as they like
//! and a seed gives the same faults again. The faults:
//!
//! | fault | what is done, what is answered |
//! |---|---|
//! | refused | nothing is done; the disk is full, or access is denied, or it takes too long |
//! | lost answer | it is done; the answer is an error |
//! | duplicated | it is done twice; the answer is the second one's, "it exists" |
//! | late copy | it is done, and once more a few writes of its folder later, when it may have been deleted |
//! | latency | it is done after a while |
//! | stale list | the names of a few operations ago (not of savepoints: a list is all that says which there are) |
//! | death | at one operation: half of what is written is there, and nothing is answered any more |

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use foldhash::fast::FixedState;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result,
};
use tokio::sync::watch;

use crate::storage::store::Store;

/// A list may be as old as so many operations on what it lists.
const STALE_MAX: usize = 4;
/// A late copy comes after at most so many writes of its folder.
const LATE_MAX: usize = 6;

/// When a store dies: at the so manieth write of an object below a folder.
#[derive(Clone, Debug)]
pub struct Death {
    pub folder: &'static str,
    pub write: usize,
}

/// A handle; cheap to clone.
#[derive(Clone, Debug)]
pub struct SeededStore(Arc<Inner>);

impl std::ops::Deref for SeededStore {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

#[derive(Debug)]
pub struct Inner {
    objects: InMemory,
    state: Mutex<State>,
    dead: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    seed: u64,
    /// How many of a thousand operations have a fault, of each kind.
    per_mille: u64,
    /// How often each object was asked for each thing.
    attempts: HashMap<(&'static str, String), u64>,
    /// What was written and deleted, in order: `true` for written.
    history: Vec<(bool, Path)>,
    /// Copies that are still on their way: with which write of their folder they arrive.
    late: Vec<(usize, Path, PutPayload)>,
    /// Its `write` counts from the first write there ever was.
    death: Option<Death>,
    /// Writes below each folder.
    writes: BTreeMap<String, usize>,
    stale_lists: usize,
    /// What was done to objects whose order is that of the server: see [`Inner::trace`].
    trace: Vec<String>,
}

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Fine,
    Refused,
    LostAnswer,
    Duplicated,
    LateCopy,
}

impl State {
    /// A number below a thousand that belongs to this operation; `salt` tells questions apart.
    fn draw(&self, what: &str, path: &str, attempt: u64, salt: u64) -> u64 {
        FixedState::with_seed(self.seed).hash_one((what, path, attempt, salt)) % 1000
    }

    fn attempt(&mut self, what: &'static str, path: &str) -> u64 {
        let attempt = self.attempts.entry((what, path.to_owned())).or_default();
        *attempt += 1;
        *attempt
    }

    fn fate(&self, what: &str, path: &str, attempt: u64) -> Fate {
        let p = self.per_mille;
        match self.draw(what, path, attempt, 0) {
            n if n < p => Fate::Refused,
            n if n < 2 * p => Fate::LostAnswer,
            n if n < 3 * p => Fate::Duplicated,
            n if n < 4 * p => Fate::LateCopy,
            _ => Fate::Fine,
        }
    }

    fn latency(&self, what: &str, path: &str, attempt: u64) -> Option<Duration> {
        let slow = self.draw(what, path, attempt, 1) < self.per_mille;
        slow.then(|| Duration::from_micros(100 + self.draw(what, path, attempt, 2) * 3))
    }

    fn note(&mut self, what: &str, path: &str, fate: impl fmt::Debug) {
        if path.starts_with("log/") || path.starts_with("manifest/") {
            self.trace.push(format!("{what} {path} {fate:?}@{}", self.per_mille));
        }
    }
}

impl SeededStore {
    pub fn new(seed: u64) -> SeededStore {
        let state = Mutex::new(State { seed, ..State::default() });
        let (objects, dead) = (InMemory::new(), watch::channel(false).0);
        SeededStore(Arc::new(Inner { objects, state, dead }))
    }

    /// The store as the storage room wants it.
    pub fn store(&self, cheap_bytes: bool) -> Store {
        let store = Store::over(Arc::new(self.clone()), "test");
        if cheap_bytes { store.with_cheap_bytes() } else { store }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under this lock")
    }

    /// From now on so many of a thousand operations have each fault.
    pub fn set_faults(&self, per_mille: u64) {
        self.state().per_mille = per_mille;
    }

    /// It will die then.
    pub fn set_death(&self, death: Option<Death>) {
        let mut state = self.state();
        let writes = |folder: &str| state.writes.get(folder).copied().unwrap_or_default();
        let death = death.map(|d| Death { write: d.write + writes(d.folder), ..d });
        state.death = death;
    }

    pub fn is_dead(&self) -> bool {
        *self.dead.borrow()
    }

    /// Ends when the store has died.
    pub async fn died(&self) {
        let mut dead = self.dead.subscribe();
        // The sender is ours.
        let _ = dead.wait_for(|dead| *dead).await;
    }

    /// Lives again; what was on its way arrives.
    pub async fn revive(&self) {
        let late = std::mem::take(&mut self.state().late);
        for (_, path, payload) in late {
            self.copy_late(path, payload).await;
        }
        self.set_death(None);
        self.dead.send_replace(false);
    }

    /// Lists that were not of their moment.
    pub fn stale_lists(&self) -> usize {
        self.state().stale_lists
    }

    /// What was done to the log and to manifests, in order. That is the same each time for clients
    /// that wait for their answers; of files, some of which are written beside each other, it is
    /// not.
    pub fn trace(&self) -> Vec<String> {
        self.state().trace.clone()
    }

    async fn copy_late(&self, path: Path, payload: PutPayload) {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        if self.objects.put_opts(&path, payload, options).await.is_ok() {
            self.state().history.push((true, path));
        }
    }

    /// Counts an operation: its attempt.
    async fn begin(&self, what: &'static str, path: &str) -> Result<u64> {
        let (attempt, latency) = {
            let mut state = self.state();
            let attempt = state.attempt(what, path);
            (attempt, state.latency(what, path, attempt))
        };
        if let Some(latency) = latency {
            tokio::time::sleep(latency).await;
        }
        match *self.dead.borrow() {
            true => Err(failure(0)),
            false => Ok(attempt),
        }
    }

    /// Counts a write; whether it is the store's last. What is late arrives first.
    async fn count_write(&self, path: &Path) -> bool {
        let folder = folder_of(path);
        let (arrived, last) = {
            let mut state = self.state();
            let writes = state.writes.entry(folder.clone()).or_default();
            *writes += 1;
            let now = *writes;
            let (arrived, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut state.late)
                .into_iter()
                .partition(|(due, path, _)| *due <= now && folder_of(path) == folder);
            state.late = waiting;
            let last = state.death.as_ref().is_some_and(|d| d.folder == folder && d.write == now);
            (arrived, last)
        };
        for (_, path, payload) in arrived {
            self.copy_late(path, payload).await;
        }
        last
    }

    /// Half of it is written.
    async fn die(&self, path: &Path, payload: &PutPayload) -> Error {
        let all: Vec<u8> = payload.iter().flatten().copied().collect();
        let torn = PutPayload::from(Bytes::copy_from_slice(&all[..all.len() / 2]));
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        if self.objects.put_opts(path, torn, options).await.is_ok() {
            self.state().history.push((true, path.clone()));
        }
        self.state().note("die", path.as_ref(), "");
        self.dead.send_replace(true);
        failure(0)
    }

    async fn list_now(&self, prefix: Option<&Path>) -> Result<Vec<ObjectMeta>> {
        let name = prefix.map_or("", |prefix| prefix.as_ref()).to_owned();
        let attempt = self.begin("list", &name).await?;
        let (refused, later) = {
            let mut state = self.state();
            let p = state.per_mille;
            let draw = state.draw("list", &name, attempt, 0);
            let listed_only = name.starts_with("savepoint");
            let stale = match (p..3 * p).contains(&draw) && !listed_only {
                true => 1 + state.draw("list", &name, attempt, 3) as usize % STALE_MAX,
                false => 0,
            };
            let below = |path: &Path| prefix.is_none_or(|prefix| path.prefix_matches(prefix));
            let newest = state.history.iter().rev().filter(|(_, path)| below(path)).take(stale);
            // Of what happened to an object since then the first counts.
            let later: BTreeMap<Path, bool> =
                newest.map(|(put, path)| (path.clone(), *put)).collect();
            state.stale_lists += usize::from(!later.is_empty());
            (draw < p, later)
        };
        if refused {
            return Err(failure(attempt));
        }
        let mut all: Vec<ObjectMeta> = Vec::new();
        let mut listed = self.objects.list(prefix);
        while let Some(meta) = listed.next().await {
            let meta = meta?;
            // Written since then.
            if later.get(&meta.location) != Some(&true) {
                all.push(meta);
            }
        }
        for (path, _) in later.into_iter().filter(|(_, put)| !*put) {
            // Deleted since then.
            if all.iter().all(|meta| meta.location != path) {
                let last_modified = Default::default();
                let (e_tag, version) = (None, None);
                all.push(ObjectMeta { location: path, last_modified, size: 0, e_tag, version });
            }
        }
        Ok(all)
    }

    async fn write(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let attempt = self.begin("put", path.as_ref()).await?;
        if self.count_write(path).await {
            return Err(self.die(path, &payload).await);
        }
        let fate = {
            let mut state = self.state();
            let fate = state.fate("put", path.as_ref(), attempt);
            state.note("put", path.as_ref(), fate);
            fate
        };
        if fate == Fate::Refused {
            return Err(failure(attempt));
        }
        let done = self.objects.put_opts(path, payload.clone(), options.clone()).await;
        if done.is_ok() {
            self.state().history.push((true, path.clone()));
        }
        match fate {
            Fate::LostAnswer => Err(failure(attempt)),
            Fate::Duplicated if done.is_ok() => self.objects.put_opts(path, payload, options).await,
            // A savepoint's name may be used again: what is late of it would be taken for new.
            Fate::LateCopy if done.is_ok() && !path.as_ref().starts_with("savepoint") => {
                let mut state = self.state();
                let writes = state.writes.get(&folder_of(path)).copied().unwrap_or_default();
                let due = writes + 1 + attempt as usize % LATE_MAX;
                state.late.push((due, path.clone(), payload));
                done
            }
            _ => done,
        }
    }

    async fn delete_one(&self, path: &Path) -> Result<()> {
        let attempt = self.begin("delete", path.as_ref()).await?;
        let fate = self.state().fate("delete", path.as_ref(), attempt);
        if fate == Fate::Refused {
            return Err(failure(attempt));
        }
        let done = self.objects.delete(path).await;
        self.state().history.push((false, path.clone()));
        if fate == Fate::LostAnswer { Err(failure(attempt)) } else { done }
    }
}

/// The first part of a name.
fn folder_of(path: &Path) -> String {
    path.parts().next().map_or_else(String::new, |part| part.as_ref().to_owned())
}

/// Errors of all kinds, in turn.
fn failure(attempt: u64) -> Error {
    use std::io::ErrorKind;
    let kinds = [ErrorKind::TimedOut, ErrorKind::StorageFull, ErrorKind::PermissionDenied];
    let kind = kinds[(attempt % 3) as usize];
    Error::Generic { store: "seeded", source: std::io::Error::from(kind).into() }
}

impl fmt::Display for SeededStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seeded store")
    }
}

#[async_trait]
impl ObjectStore for SeededStore {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.write(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let attempt = self.begin("get", path.as_ref()).await?;
        let refused = self.state().fate("get", path.as_ref(), attempt) == Fate::Refused;
        if refused { Err(failure(attempt)) } else { self.objects.get_opts(path, options).await }
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |path: Result<Path>| {
            let store = store.clone();
            async move {
                let path = path?;
                store.delete_one(&path).await.map(|()| path)
            }
        };
        paths.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        let listed = async move {
            match store.list_now(prefix.as_ref()).await {
                Ok(all) => all.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            }
        };
        futures::stream::once(listed).flat_map(futures::stream::iter).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}
