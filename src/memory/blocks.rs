//! Memory of arrays and hash tables that can go to the disk where it stands.
//!
//! 1. What state keeps in large pieces beside rows (buckets of indexes, links of chains, words of
//!    groups) takes its memory from [`StateBlocks`]. A small piece is the allocator's, as any other;
//!    one of [`BLOCK_BYTES_MIN`] or more is a mapping of its own, a *block*.
//! 2. When memory is short, the bytes of a block are written into a file without a name, piece by
//!    piece, and the file is mapped where the piece stood, at the same address. Who has the array
//!    or the table cannot tell; nothing that works on it knows of this. From then on its pages are
//!    the kernel's to write back and to drop.
//! 3. While memory is short a block that would not fit is in a file from its first byte on: a hash
//!    table that doubles takes no memory that it would have to give back at once.
//! 4. A block that has gone stays where it is until it is freed: when the structure grows next, it
//!    takes new memory, wherever there is room then.
//!
//! Blocks are written to in the file, too. Its space is taken when it is made, so that a full disk
//! is an error there and not later, when a page is written back; a file system that takes new space
//! for each write (btrfs, zfs) can end the process when it is full.

use std::alloc::Layout;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use allocator_api2::alloc::{AllocError, Allocator, Global};

use crate::memory::mapped::drop_from_cache;
use crate::memory::spill::{Pass, Spill, SpillPlace, StateMemory};

/// Smaller pieces are not worth a mapping. In debug builds small tests have blocks, too.
pub const BLOCK_BYTES_MIN: usize = if cfg!(debug_assertions) { 4 << 10 } else { 256 << 10 };
/// Blocks from this size on ask for huge pages: lookups in them go all over the place.
const HUGE_BYTES_MIN: usize = 4 << 20;
/// So much is written and mapped at once: memory that is wanted comes back before all has gone.
const PIECE_BYTES: usize = 16 << 20;

/// An array whose memory can go to the disk.
pub type Flat<T> = allocator_api2::vec::Vec<T, StateBlocks>;
/// A hash table whose memory can go to the disk.
pub type FlatTable<T> = hashbrown::HashTable<T, StateBlocks>;

thread_local! {
    static PLACE: RefCell<Option<Arc<SpillPlace>>> = const { RefCell::new(None) };
}

/// Says where blocks of state go that this thread makes from now on, when memory is short.
pub fn spill_from_this_thread_to(memory: &StateMemory) {
    PLACE.set(Some(memory.place().clone()));
}

/// Where one structure takes its memory from. Clones stand for the same structure: its fields have
/// one each, and nobody else.
#[derive(Clone, Debug)]
pub struct StateBlocks {
    blocks: Arc<Mutex<Blocks>>,
}

#[derive(Debug, Default)]
struct Blocks {
    /// Where they can go; `None`: this is not known yet.
    place: Option<Arc<SpillPlace>>,
    /// By address.
    blocks: BTreeMap<usize, Block>,
    /// Of all blocks, wherever they are.
    bytes: usize,
    disk_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    /// A multiple of the page size.
    bytes: usize,
    /// How many of them, the first ones, are in files.
    disk_bytes: usize,
}

impl Default for StateBlocks {
    fn default() -> StateBlocks {
        StateBlocks::new()
    }
}

impl StateBlocks {
    /// Memory for a new structure.
    pub fn new() -> StateBlocks {
        let place = PLACE.with_borrow(Clone::clone);
        StateBlocks { blocks: Arc::new(Mutex::new(Blocks { place, ..Blocks::default() })) }
    }

    /// An empty array of this structure.
    pub fn array<T>(&self) -> Flat<T> {
        Flat::new_in(self.clone())
    }

    /// An empty hash table of this structure.
    pub fn table<T>(&self) -> FlatTable<T> {
        FlatTable::new_in(self.clone())
    }

    /// Bytes in files.
    pub fn disk_bytes(&self) -> usize {
        self.lock().disk_bytes
    }

    /// Of bytes that the structure counts as its own, those that are in memory.
    pub fn in_memory(&self, bytes: usize) -> usize {
        bytes.saturating_sub(self.disk_bytes())
    }

    /// Lets blocks go to the disk as long as that is wanted; they are the last that go.
    ///
    /// # Safety
    /// Nobody writes to memory that was taken through this or a clone of it before this returns.
    pub unsafe fn spill(&self, memory: &StateMemory, pass: Pass) {
        if !pass.takes_blocks || !memory.is_wanted() {
            return;
        }
        let mut blocks = self.lock();
        let place = blocks.place.get_or_insert_with(|| memory.place().clone()).clone();
        let Blocks { blocks, disk_bytes, .. } = &mut *blocks;
        for (address, block) in blocks {
            if block.disk_bytes == block.bytes {
                continue;
            }
            let mut file = None;
            while block.disk_bytes < block.bytes && memory.is_wanted() {
                let start = address + block.disk_bytes;
                let bytes = (block.bytes - block.disk_bytes).min(PIECE_BYTES);
                // SAFETY: the piece is in memory, and the caller says that nobody writes to it.
                match unsafe { move_piece(&mut file, &place, start, bytes) } {
                    Ok(()) => {
                        block.disk_bytes += bytes;
                        *disk_bytes += bytes;
                        memory.note_gone(bytes);
                    }
                    Err(error) => {
                        memory.note_failure(&error);
                        return;
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Blocks> {
        self.blocks.lock().expect("nobody panics while holding it")
    }

    fn take(&self, bytes: usize) -> Result<NonNull<[u8]>, AllocError> {
        let whole = bytes.checked_next_multiple_of(page_bytes()).ok_or(AllocError)?;
        let mut blocks = self.lock();
        let tight = blocks.place.as_ref().filter(|place| whole as u64 > place.room_bytes());
        let on_disk = tight.and_then(|place| map_new_file(place, whole).ok());
        let disk_bytes = if on_disk.is_some() { whole } else { 0 };
        let start = match on_disk {
            Some(start) => start,
            None => map_memory(whole)?,
        };
        let block = Block { bytes: whole, disk_bytes };
        blocks.blocks.insert(start.as_ptr() as usize, block);
        blocks.bytes += whole;
        blocks.disk_bytes += disk_bytes;
        Ok(NonNull::slice_from_raw_parts(start, bytes))
    }

    /// # Safety
    /// `start` is of `take`, and nobody uses what is there any more.
    unsafe fn give_back(&self, start: NonNull<u8>) {
        let mut blocks = self.lock();
        let address = start.as_ptr() as usize;
        let block = blocks.blocks.remove(&address).expect("a block is freed where it was taken");
        blocks.bytes -= block.bytes;
        blocks.disk_bytes -= block.disk_bytes;
        if let Some(place) = blocks.place.as_ref().filter(|_| block.disk_bytes > 0) {
            place.disk().remove(block.disk_bytes);
        }
        drop(blocks);
        // SAFETY: it was mapped with this length, and nobody uses it.
        let outcome = unsafe { libc::munmap(start.as_ptr().cast(), block.bytes) };
        debug_assert_eq!(outcome, 0, "what was mapped can be unmapped");
    }
}

/// An array that is a store of its own.
#[derive(Debug)]
pub struct FlatStore<T> {
    array: Flat<T>,
    blocks: StateBlocks,
}

impl<T> Default for FlatStore<T> {
    fn default() -> FlatStore<T> {
        let blocks = StateBlocks::new();
        FlatStore { array: blocks.array(), blocks }
    }
}

impl<T> FlatStore<T> {
    /// Memory held, in bytes, but for what values hold elsewhere; what is on the disk is not.
    pub fn memory_bytes(&self) -> usize {
        self.blocks.in_memory(self.array.capacity() * size_of::<T>())
    }
}

impl<T> Deref for FlatStore<T> {
    type Target = Flat<T>;

    fn deref(&self) -> &Flat<T> {
        &self.array
    }
}

impl<T> DerefMut for FlatStore<T> {
    fn deref_mut(&mut self) -> &mut Flat<T> {
        &mut self.array
    }
}

impl<T> Spill for FlatStore<T> {
    fn spill(&mut self, memory: &StateMemory, pass: Pass) {
        // SAFETY: only the array takes from it, and nobody else has the array.
        unsafe { self.blocks.spill(memory, pass) }
    }

    fn disk_bytes(&self) -> usize {
        self.blocks.disk_bytes()
    }
}

fn is_block(layout: Layout) -> bool {
    layout.size() >= BLOCK_BYTES_MIN && layout.align() <= page_bytes()
}

// SAFETY: memory stays at its address until it is given back, whatever it is backed by, and clones
// share what they know of it.
unsafe impl Allocator for StateBlocks {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        match is_block(layout) {
            true => self.take(layout.size()),
            false => Global.allocate(layout),
        }
    }

    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        match is_block(layout) {
            // Fresh pages are.
            true => self.take(layout.size()),
            false => Global.allocate_zeroed(layout),
        }
    }

    unsafe fn deallocate(&self, start: NonNull<u8>, layout: Layout) {
        match is_block(layout) {
            // SAFETY: the size tells that it is of `take`; the rest is the caller's promise.
            true => unsafe { self.give_back(start) },
            // SAFETY: as above, of `Global`.
            false => unsafe { Global.deallocate(start, layout) },
        }
    }
}

fn page_bytes() -> usize {
    static PAGE_BYTES: OnceLock<usize> = OnceLock::new();
    *PAGE_BYTES.get_or_init(|| {
        // SAFETY: it asks for a number.
        let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(bytes).expect("the kernel knows the size of its pages")
    })
}

/// A mapping at an address that the kernel chooses; `file`: shared with the file, from its start.
fn map(bytes: usize, file: Option<&File>) -> std::io::Result<NonNull<u8>> {
    let flags = match file {
        Some(_) => libc::MAP_SHARED,
        None => libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    };
    let fd = file.map_or(-1, AsRawFd::as_raw_fd);
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address that the kernel chooses touches no memory of ours.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, flags, fd, 0) };
    if start == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error());
    }
    Ok(NonNull::new(start.cast()).expect("the kernel maps nothing at address 0"))
}

fn map_memory(bytes: usize) -> Result<NonNull<u8>, AllocError> {
    let start = map(bytes, None).map_err(|_| AllocError)?;
    #[cfg(target_os = "linux")]
    if bytes >= HUGE_BYTES_MIN {
        // SAFETY: it is advice about a mapping of ours; it may fail, and nothing is lost.
        unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
    }
    Ok(start)
}

/// A mapping of a new file, all of whose space is taken.
fn map_new_file(place: &SpillPlace, bytes: usize) -> std::io::Result<NonNull<u8>> {
    let file = tempfile::tempfile_in(place.directory())?;
    take_space(&file, bytes)?;
    let start = map(bytes, Some(&file))?;
    place.disk().add(bytes);
    Ok(start)
}

#[cfg(target_os = "linux")]
fn take_space(file: &File, bytes: usize) -> std::io::Result<()> {
    let length = libc::off_t::try_from(bytes).map_err(std::io::Error::other)?;
    // SAFETY: it concerns a file that is open, and no memory of ours.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, length) } {
        0 => Ok(()),
        code => Err(std::io::Error::from_raw_os_error(code)),
    }
}

#[cfg(not(target_os = "linux"))]
fn take_space(file: &File, bytes: usize) -> std::io::Result<()> {
    use std::io::Write;
    let mut file = file;
    let zeros = vec![0; bytes.min(PIECE_BYTES)];
    let mut left = bytes;
    while left > 0 {
        let some = left.min(zeros.len());
        file.write_all(&zeros[..some])?;
        left -= some;
    }
    Ok(())
}

/// The file that the pieces of one block go to, and how far it has been written.
struct Pieces {
    file: File,
    written: usize,
}

/// Writes a piece of a block behind those before it, and maps the file in its place.
///
/// # Safety
/// The piece is a part of a mapping of ours, whole pages, and nobody writes to it meanwhile.
unsafe fn move_piece(
    pieces: &mut Option<Pieces>,
    place: &SpillPlace,
    start: usize,
    bytes: usize,
) -> std::io::Result<()> {
    let pieces = match pieces {
        Some(pieces) => pieces,
        None => {
            pieces.insert(Pieces { file: tempfile::tempfile_in(place.directory())?, written: 0 })
        }
    };
    let fd = pieces.file.as_raw_fd();
    let at = |done: usize| libc::off_t::try_from(pieces.written + done);
    let start = start as *mut libc::c_void;
    let mut done = 0;
    while done < bytes {
        let offset = at(done).map_err(std::io::Error::other)?;
        // SAFETY: the bytes are in the piece. They are given by address because what a structure
        // has not set yet is no value to Rust.
        let written = unsafe { libc::pwrite(fd, start.add(done), bytes - done, offset) };
        match usize::try_from(written) {
            Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
            Ok(written) => done += written,
            Err(_) => {
                let error = std::io::Error::last_os_error();
                if error.kind() != std::io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    if place.is_cold() {
        drop_from_cache(&pieces.file)?;
    }
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_FIXED;
    let offset = at(0).map_err(std::io::Error::other)?;
    // SAFETY: it takes the place of pages of ours and has the same bytes.
    let mapped = unsafe { libc::mmap(start, bytes, access, flags, fd, offset) };
    if mapped == libc::MAP_FAILED {
        let error = std::io::Error::last_os_error();
        // SAFETY: it tells whether the pages are still mapped, and does nothing to them.
        let is_there = unsafe { libc::msync(start, bytes, libc::MS_ASYNC) } == 0;
        if !is_there {
            // Memory that is in use has gone: as when memory fails.
            tracing::error!(%error, "a block of state is lost on its way to the disk");
            std::process::abort();
        }
        return Err(error);
    }
    pieces.written += bytes;
    place.disk().add(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::spill::EVERYTHING;

    fn spilled(blocks: &StateBlocks, memory: &StateMemory) {
        // SAFETY: nobody else has what was taken through it.
        unsafe { blocks.spill(memory, EVERYTHING) }
    }

    #[test]
    fn arrays_and_tables_go_on_as_before_where_they_are() {
        let memory = StateMemory::always_full(std::env::temp_dir());
        let blocks = StateBlocks::new();
        let mut words: Flat<u64> = blocks.array();
        let mut table: FlatTable<(u64, u32)> = blocks.table();
        let hash = |key: u64| key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for round in 0..8_u64 {
            for n in round * 5000..(round + 1) * 5000 {
                words.push(n * 3);
                table.insert_unique(hash(n), (n, n as u32), |(key, _)| hash(*key));
            }
            words[0] = round;
            let address = words.as_ptr();
            spilled(&blocks, &memory);
            assert_eq!(words.as_ptr(), address);
            assert!(blocks.disk_bytes() >= words.len() * 8, "round {round}");
            words[1] = round;
            assert_eq!(words[..2], [round, round]);
            for n in 2..(round + 1) * 5000 {
                assert_eq!(words[n as usize], n * 3);
                assert_eq!(table.find(hash(n), |e| e.0 == n), Some(&(n, n as u32)));
            }
        }
        let (all, own) = (memory.disk().now_bytes(), blocks.disk_bytes() as u64);
        assert_eq!(all, own);
        words.truncate(10);
        words.shrink_to_fit();
        table.clear();
        table.shrink_to_fit(|(key, _)| hash(*key));
        assert_eq!(words[2..4], [6, 9]);
        assert_eq!((memory.disk().now_bytes(), blocks.disk_bytes()), (0, 0));
    }

    #[test]
    fn a_block_that_does_not_fit_is_in_a_file_from_the_start() {
        let memory = StateMemory::new(std::env::temp_dir());
        spill_from_this_thread_to(&memory);
        let blocks = StateBlocks::new();
        memory.set_room(1 << 20);
        let mut words: Flat<u64> = blocks.array();
        words.resize(1 << 10, 7);
        assert_eq!(memory.disk().now_bytes(), 0);
        words.resize(1 << 20, 8);
        assert!(memory.disk().now_bytes() >= 8 << 20);
        assert_eq!((words[1023], words[1024], words[(1 << 20) - 1]), (7, 8, 8));
        memory.set_room(u64::MAX);
        words.resize(1 << 21, 9);
        assert_eq!(memory.disk().now_bytes(), 0);
        assert_eq!((words[1023], words[1024], words[(1 << 21) - 1]), (7, 8, 9));
    }

    #[test]
    fn only_what_is_wanted_goes_and_a_disk_that_refuses_takes_nothing() {
        let memory = StateMemory::new(std::env::temp_dir());
        let blocks = StateBlocks::new();
        let mut words: Flat<u64> = blocks.array();
        words.resize(8 * PIECE_BYTES / 8, 5);
        spilled(&blocks, &memory);
        assert_eq!(blocks.disk_bytes(), 0);
        assert!(memory.ask(PIECE_BYTES as u64 + 1, 1));
        spilled(&blocks, &memory);
        memory.done();
        assert_eq!(blocks.disk_bytes(), 2 * PIECE_BYTES);
        assert!(memory.ask(PIECE_BYTES as u64, 1));
        spilled(&blocks, &memory);
        memory.done();
        assert_eq!(blocks.disk_bytes(), 3 * PIECE_BYTES);
        assert!(words.iter().all(|word| *word == 5));
        drop(words);
        assert_eq!(memory.disk().now_bytes(), 0);

        let nowhere = StateMemory::always_full(std::env::temp_dir().join("is not there"));
        let blocks = StateBlocks::new();
        let mut words: Flat<u64> = blocks.array();
        words.resize(100_000, 6);
        spilled(&blocks, &nowhere);
        assert_eq!(blocks.disk_bytes(), 0);
        assert!(nowhere.failure().is_some());
        assert!(words.iter().all(|word| *word == 6));
    }
}
