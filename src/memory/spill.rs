//! State that does not fit into memory: who asks for room, and who makes it.
//!
//! 1. All state of a server shares one [`StateMemory`]. Somebody who knows how much memory there is
//!    asks for so many bytes ([`StateMemory::ask`]); the owners of state, each on its own thread, go
//!    through their stores and let rows go to the disk until nobody wants more.
//! 2. A store gives its coldest rows first: in five passes, large pieces that nobody has looked at
//!    since the last time, smaller ones, then those that were looked at, then all but crumbs, and
//!    at last what stands beside rows: indexes, groups, values of groups (`blocks.rs`).
//! 3. When all owners have been through all of it and more is wanted still, memory is used up
//!    ([`StateMemory::is_exhausted`]): what is left is small, or under way.
//!    While it is, nothing new should be let in ([`StateMemory::is_held`]).
//! 4. A disk that is full or broken is tried again after a while; until then rows stay in memory.
//!
//! A piece that went to the wrong side costs little: its pages stay in the kernel's cache while
//! there is room (`mapped.rs`).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};

use crate::memory::mapped::write_arrays;
use crate::memory::running::RunningQueries;
use crate::observe::metrics;

/// Asks to skip before a disk that failed is tried again: they come every 10 ms or less often.
const SKIPPED_ASKS: u32 = 200;

/// What a source may give a worker in an epoch, however much memory there is. Two epochs are in
/// flight at most, so this bounds the memory of rows under way; large enough that under load an
/// epoch's fixed cost vanishes.
const EPOCH_BYTES_MAX: usize = 16 << 20;

/// Bytes in files of the local disk.
#[derive(Debug, Default)]
pub struct DiskUse {
    now: AtomicU64,
    written: AtomicU64,
}

impl DiskUse {
    pub(super) fn add(&self, bytes: usize) {
        self.now.fetch_add(bytes as u64, Ordering::Relaxed);
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
        metrics::STATE_DISK_BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
        metrics::STATE_SPILLED_BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn remove(&self, bytes: usize) {
        self.now.fetch_sub(bytes as u64, Ordering::Relaxed);
        metrics::STATE_DISK_BYTES.fetch_sub(bytes as u64, Ordering::Relaxed);
    }

    /// In files now.
    pub fn now_bytes(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// Written since the start.
    pub fn written_bytes(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
}

/// What a pass through the stores takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Smaller pieces stay: they are about to be merged.
    pub bytes_min: usize,
    /// Pieces that were looked at since the last pass stay.
    pub spares_touched: bool,
    /// Indexes and groups go, too (`blocks.rs`): every batch looks at some of them.
    pub takes_blocks: bool,
}

impl Pass {
    const fn rows(bytes_min: usize, spares_touched: bool) -> Pass {
        Pass { bytes_min, spares_touched, takes_blocks: false }
    }
}

/// Coldest first.
pub const PASSES: [Pass; 5] = [
    Pass::rows(4 << 20, true),
    Pass::rows(512 << 10, true),
    Pass::rows(512 << 10, false),
    Pass::rows(16 << 10, false),
    Pass { bytes_min: 16 << 10, spares_touched: false, takes_blocks: true },
];

/// All that can go.
pub const EVERYTHING: Pass = Pass { bytes_min: 0, spares_touched: false, takes_blocks: true };

/// State that can go to the disk.
pub trait Spill {
    /// Lets state go to the disk as long as that is wanted.
    fn spill(&mut self, memory: &StateMemory, pass: Pass);

    /// Bytes of it on the disk.
    fn disk_bytes(&self) -> usize;
}

/// What the owner of state shows of it, one store after the other.
pub type StoreVisitor<'a> = &'a mut dyn FnMut(&mut dyn Spill);

/// Where state goes, and how much room there is for what has not gone.
#[derive(Debug)]
pub struct SpillPlace {
    /// Where files go; they have no names in it.
    directory: PathBuf,
    disk: Arc<DiskUse>,
    /// Files do not stay in the kernel's memory: for measurements.
    cold: bool,
    /// What can be taken before state has to go.
    room_bytes: AtomicU64,
}

impl SpillPlace {
    fn new(directory: PathBuf, cold: bool) -> SpillPlace {
        SpillPlace { directory, disk: Arc::default(), cold, room_bytes: AtomicU64::new(u64::MAX) }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn disk(&self) -> &DiskUse {
        &self.disk
    }

    pub(super) fn is_cold(&self) -> bool {
        self.cold
    }

    pub(super) fn room_bytes(&self) -> u64 {
        self.room_bytes.load(Ordering::Relaxed)
    }

    /// Takes so many bytes of the room until it is looked at again; false: they do not fit.
    fn try_take(&self, bytes: u64) -> bool {
        let order = Ordering::Relaxed;
        let left = |room: u64| room.checked_sub(bytes);
        self.room_bytes.fetch_update(order, order, left).is_ok()
    }
}

/// The memory of all state of one server.
#[derive(Debug)]
pub struct StateMemory {
    place: Arc<SpillPlace>,
    /// Of the whole process, for who watches it.
    limit_bytes: u64,
    /// Everything goes to the disk as soon as it may: for tests.
    always: bool,
    /// Bytes that are still wanted in the round under way.
    wanted: AtomicI64,
    /// Owners that have not been through their stores in the round under way.
    at_work: AtomicUsize,
    /// The last round ended, and more was wanted.
    exhausted: AtomicBool,
    /// Nothing new is let in.
    held: AtomicBool,
    /// Sources wait until state that is on its way to the disk is there.
    sources_wait: AtomicBool,
    /// What a source may give a worker in an epoch.
    epoch_bytes: AtomicUsize,
    /// Bytes that all queries together have.
    query_bytes: AtomicU64,
    /// Bytes that they may have.
    query_max: AtomicU64,
    running: RunningQueries,
    failure: Mutex<Failure>,
}

/// What the disk has said.
#[derive(Debug, Default)]
struct Failure {
    /// `None` while it works.
    message: Option<String>,
    skip_asks: u32,
}

impl StateMemory {
    /// Memory whose overflow goes to files in `directory`.
    pub fn new(directory: PathBuf) -> StateMemory {
        StateMemory {
            place: Arc::new(SpillPlace::new(directory, false)),
            limit_bytes: u64::MAX,
            always: false,
            wanted: AtomicI64::new(0),
            at_work: AtomicUsize::new(0),
            exhausted: AtomicBool::new(false),
            held: AtomicBool::new(false),
            sources_wait: AtomicBool::new(false),
            epoch_bytes: AtomicUsize::new(EPOCH_BYTES_MAX),
            query_bytes: AtomicU64::new(0),
            query_max: AtomicU64::new(u64::MAX),
            running: RunningQueries::default(),
            failure: Mutex::default(),
        }
    }

    /// The same where everything goes to the disk as soon as it may: what a test of spilling wants.
    pub fn always_full(directory: PathBuf) -> StateMemory {
        let wanted = AtomicI64::new(i64::MAX);
        StateMemory { always: true, wanted, ..StateMemory::new(directory) }
    }

    /// The same where what goes to the disk leaves the kernel's memory, too: what a measurement
    /// wants on a machine with more memory than is measured.
    pub fn with_cold_disk(directory: PathBuf) -> StateMemory {
        let place = Arc::new(SpillPlace::new(directory.clone(), true));
        StateMemory { place, ..StateMemory::new(directory) }
    }

    /// The same in a process that may have so much memory.
    #[must_use]
    pub fn with_limit(self, limit_bytes: u64) -> StateMemory {
        StateMemory { limit_bytes, ..self }
    }

    /// What the whole process may have.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// Whether everything goes to the disk as soon as it may.
    pub fn is_always_full(&self) -> bool {
        self.always
    }

    pub fn disk(&self) -> &DiskUse {
        &self.place.disk
    }

    /// Where state goes.
    pub fn place(&self) -> &Arc<SpillPlace> {
        &self.place
    }

    /// Says how much can be taken before state has to go.
    pub fn set_room(&self, bytes: u64) {
        self.place.room_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Whether state is about to go: memory that waits to be given back should not.
    pub fn is_short(&self) -> bool {
        self.place.room_bytes() < self.limit_bytes / 4
    }

    /// Asks `owners` for so many bytes; each of them calls [`StateMemory::done`] when it has been
    /// through its stores. False when they are still at it from the last time, or the disk rests.
    pub fn ask(&self, bytes: u64, owners: usize) -> bool {
        let mut failure = self.lock_failure();
        if failure.skip_asks > 0 {
            failure.skip_asks -= 1;
            return false;
        }
        if self.at_work.load(Ordering::Acquire) > 0 {
            return false;
        }
        self.at_work.store(owners, Ordering::Release);
        self.wanted.store(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::Release);
        true
    }

    /// Whether more bytes are wanted.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) > 0
    }

    /// An owner has been through its stores.
    pub fn done(&self) {
        let before = self
            .at_work
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |owners| owners.checked_sub(1));
        if before == Ok(1) {
            let exhausted = self.is_wanted() || self.lock_failure().message.is_some();
            self.exhausted.store(exhausted, Ordering::Release);
        }
    }

    /// Whether the stores have nothing left that could go.
    pub fn is_exhausted(&self) -> bool {
        self.exhausted.load(Ordering::Acquire)
    }

    /// Memory is no longer short.
    pub fn relax(&self) {
        self.exhausted.store(false, Ordering::Release);
    }

    /// Lets nothing new in, or does again; tells whether that is a change.
    pub fn hold(&self, held: bool) -> bool {
        self.held.swap(held, Ordering::AcqRel) != held
    }

    /// Whether nothing new is let in: memory is used up, and nothing more can go to the disk.
    pub fn is_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    /// Lets sources wait, or go on; tells whether that is a change.
    pub fn let_sources_wait(&self, wait: bool) -> bool {
        self.sources_wait.swap(wait, Ordering::AcqRel) != wait
    }

    /// Whether nothing is taken from sources.
    pub fn sources_wait(&self) -> bool {
        self.sources_wait.load(Ordering::Relaxed) || self.is_held()
    }

    /// Says what a source may give a worker in an epoch: what is under way is a multiple of it.
    pub fn set_epoch_bytes(&self, bytes: u64) {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.epoch_bytes.store(bytes.min(EPOCH_BYTES_MAX), Ordering::Relaxed);
    }

    /// What a source may give a worker in an epoch.
    pub fn epoch_bytes(&self) -> usize {
        self.epoch_bytes.load(Ordering::Relaxed)
    }

    /// Whether no round is under way.
    pub fn is_quiet(&self) -> bool {
        self.at_work.load(Ordering::Acquire) == 0
    }

    /// Says how much memory all queries together may have beside what they have now.
    pub fn grant_queries(&self, bytes: u64) {
        self.query_max.store(self.query_bytes().saturating_add(bytes), Ordering::Relaxed);
    }

    /// What all queries together have.
    pub fn query_bytes(&self) -> u64 {
        self.query_bytes.load(Ordering::Relaxed)
    }

    /// A query has taken memory, whether there is any or not.
    pub fn take_for_query(&self, bytes: usize) {
        self.query_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Gives a query memory, or tells how much there would be.
    pub fn try_take_for_query(&self, bytes: usize) -> Result<(), u64> {
        let max = self.query_max.load(Ordering::Relaxed);
        let taken = |before: u64| {
            let after = before.saturating_add(bytes as u64);
            (after <= max).then_some(after)
        };
        let order = Ordering::Relaxed;
        match self.query_bytes.fetch_update(order, order, taken) {
            Ok(_) => Ok(()),
            Err(before) => Err(max.saturating_sub(before)),
        }
    }

    /// A query has given memory back.
    pub fn give_back_of_query(&self, bytes: usize) {
        self.query_bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
    }

    /// Queries that run now.
    pub fn running(&self) -> &RunningQueries {
        &self.running
    }

    /// Where files without names may be made.
    pub fn directory(&self) -> &Path {
        self.place.directory()
    }

    /// Why the disk takes nothing; `None` while it does.
    pub fn failure(&self) -> Option<String> {
        self.lock_failure().message.clone()
    }

    fn lock_failure(&self) -> MutexGuard<'_, Failure> {
        self.failure.lock().expect("nobody panics while holding it")
    }

    /// The same rows on the disk; as they are when it does not take them.
    pub fn batch_on_disk(&self, rows: RecordBatch) -> RecordBatch {
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let Some((columns, _)) = self.write(rows.columns(), 0) else { return rows };
        let made = RecordBatch::try_new_with_options(rows.schema(), columns, &options);
        made.expect("they are the same arrays")
    }

    /// Rows that were made and wait to be read: in memory while there is room for them.
    pub fn keep_batch(&self, rows: RecordBatch) -> RecordBatch {
        let bytes = rows.get_array_memory_size() as u64;
        // Others are about to take room, too: nobody looks at memory in between.
        let stays = !self.always && self.place.try_take(bytes);
        if stays { rows } else { self.batch_on_disk(rows) }
    }

    /// Arrays on the disk in the place of `arrays`, which hold `memory_bytes`, and the bytes that
    /// they take there. `None` when the disk does not take them, or they have no bytes.
    pub fn write(
        &self,
        arrays: &[ArrayRef],
        memory_bytes: usize,
    ) -> Option<(Vec<ArrayRef>, usize)> {
        let SpillPlace { directory, disk, cold, .. } = &*self.place;
        match write_arrays(directory, disk, arrays, *cold) {
            Ok(written) => {
                if written.is_some() {
                    self.note_gone(memory_bytes);
                }
                written
            }
            Err(error) => {
                self.note_failure(&error);
                None
            }
        }
    }

    /// So many bytes of state have gone to the disk.
    pub(super) fn note_gone(&self, memory_bytes: usize) {
        self.lock_failure().message = None;
        if !self.always {
            let bytes = i64::try_from(memory_bytes).unwrap_or(i64::MAX);
            self.wanted.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// The disk did not take what should have gone.
    pub(super) fn note_failure(&self, error: &std::io::Error) {
        let mut failure = self.lock_failure();
        let message = format!("{}: {error}", self.directory().display());
        if failure.message.is_none() {
            tracing::warn!(error = message, "state cannot go to the disk");
        }
        *failure = Failure { message: Some(message), skip_asks: SKIPPED_ASKS };
        // Nobody else needs to try.
        self.wanted.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    #[test]
    fn batches_share_the_room_that_there_is() {
        let memory = StateMemory::new(std::env::temp_dir());
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..8192));
        let rows = RecordBatch::try_new(schema, vec![numbers]).expect("of the schema");
        let bytes = rows.get_array_memory_size() as u64;
        memory.set_room(bytes * 3 / 2);
        assert_eq!(memory.keep_batch(rows.clone()), rows);
        assert_eq!(memory.disk().now_bytes(), 0);
        let second = memory.keep_batch(rows.clone());
        assert_eq!(second, rows);
        assert!(memory.disk().now_bytes() >= 8192 * 8);
        drop(second);
        // Somebody has looked: there is room again.
        memory.set_room(bytes);
        assert_eq!(memory.keep_batch(rows.clone()), rows);
        assert_eq!(memory.disk().now_bytes(), 0);
    }
}
