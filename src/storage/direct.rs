//! Large files past the kernel's cache of pages.
//!
//! State is written once and read at the next start, if ever. Through the cache it would be copied
//! into pages that somebody else needs: the stream beside it then takes memory that the kernel has
//! to fetch and to clear first, which costs it more than the copy does. Here bytes go through one
//! buffer, which stays in the processor's cache, between their place in memory and the disk.
//!
//! 1. Writing: parts are gathered in the buffer; when it is full it is written. The last piece is
//!    filled up to whole blocks, and the file cut to its length.
//! 2. Reading: whole blocks around what is wanted come into the buffer, and what is wanted of them
//!    to its place.
//! 3. Where the file system cannot do so it says that the request is invalid, at the first request
//!    or later; then the whole file is written, or the whole range read, in the usual way.
//!
//! Nothing of this makes anything durable: the caller syncs the file.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use object_store::PutPayload;

/// What is smaller than this is not worth requests to the disk of its own: a file to be written, ...
const WRITE_BYTES_MIN: u64 = 1 << 20;
/// ... and a range to be read. Ranges of one file are read beside each other.
pub const READ_BYTES_MIN: u64 = 256 << 10;
/// Requests begin and end at multiples of this, in the file and in memory: the largest block of a
/// disk.
const BLOCK: usize = 4096;
/// Blocks of the buffer: what a request costs is little beside it, and it fits the second cache.
const BUFFER_BLOCKS: usize = 128;
const BUFFER_BYTES: usize = BUFFER_BLOCKS * BLOCK;

/// A block where requests want one.
#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Block([u8; BLOCK]);

/// Blocks one behind the other.
struct Buffer(Box<[Block]>);

/// Buffers that nobody uses now: a new one would have to be cleared first.
static FREE: Mutex<Vec<Buffer>> = Mutex::new(Vec::new());
/// So many are kept.
const FREE_MAX: usize = 8;

/// Does something with a buffer, whatever is in it.
fn with_buffer<T>(work: impl FnOnce(&mut Buffer) -> T) -> T {
    let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut buffer = free.unwrap_or_else(Buffer::new);
    let done = work(&mut buffer);
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    if free.len() < FREE_MAX {
        free.push(buffer);
    }
    done
}

impl Buffer {
    fn new() -> Buffer {
        Buffer(vec![Block([0; BLOCK]); BUFFER_BLOCKS].into_boxed_slice())
    }

    fn bytes(&self) -> &[u8] {
        let first: *const Block = self.0.as_ptr();
        // SAFETY: a `Block` is its bytes and nothing else (`repr(C)`, its size is its alignment), so
        // this many of them are that many initialised bytes; they are borrowed for as long as self.
        unsafe { std::slice::from_raw_parts(first.cast::<u8>(), self.0.len() * BLOCK) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let first: *mut Block = self.0.as_mut_ptr();
        // SAFETY: as above; every value of the bytes is a valid `Block`, and self is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(first.cast::<u8>(), self.0.len() * BLOCK) }
    }
}

/// Makes a file that must not exist, with these bytes.
///
/// # Errors
/// When it exists, or cannot be written; something of it may be there then.
pub fn create(path: &Path, payload: &PutPayload) -> io::Result<File> {
    let mut usual = OpenOptions::new();
    usual.write(true).create_new(true);
    if payload.content_length() as u64 >= WRITE_BYTES_MIN {
        match open_direct(&mut usual.clone(), path) {
            Ok(file) => match with_buffer(|buffer| write_direct(&file, payload, buffer)) {
                Ok(()) => return Ok(file),
                Err(error) if error.kind() == ErrorKind::InvalidInput => {
                    drop(file);
                    std::fs::remove_file(path)?;
                }
                Err(error) => return Err(error),
            },
            // Some file systems refuse when the file is there already.
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                let _ = std::fs::remove_file(path);
            }
            Err(error) => return Err(error),
        }
    }
    let mut file = usual.open(path)?;
    for part in payload {
        file.write_all(part)?;
    }
    Ok(file)
}

fn write_direct(mut file: &File, payload: &PutPayload, buffer: &mut Buffer) -> io::Result<()> {
    let mut filled = 0;
    for part in payload {
        let mut rest: &[u8] = part;
        while !rest.is_empty() {
            let taken = rest.len().min(BUFFER_BYTES - filled);
            let (now, later) = rest.split_at(taken);
            buffer.bytes_mut()[filled..filled + taken].copy_from_slice(now);
            (filled, rest) = (filled + taken, later);
            if filled == BUFFER_BYTES {
                file.write_all(buffer.bytes())?;
                filled = 0;
            }
        }
    }
    let blocks = filled.div_ceil(BLOCK) * BLOCK;
    buffer.bytes_mut()[filled..blocks].fill(0);
    file.write_all(&buffer.bytes()[..blocks])?;
    file.set_len(payload.content_length() as u64)
}

/// These bytes of a file, which has them.
///
/// # Errors
/// When they cannot be read, also when the file is shorter.
pub fn read(path: &Path, range: Range<u64>) -> io::Result<Bytes> {
    let length = range.end.saturating_sub(range.start);
    let length = usize::try_from(length).map_err(|_| ErrorKind::OutOfMemory)?;
    match open_direct(OpenOptions::new().read(true), path) {
        Ok(file) => match with_buffer(|buffer| read_direct(file, range.start, length, buffer)) {
            Err(error) if error.kind() == ErrorKind::InvalidInput => {}
            outcome => return outcome,
        },
        Err(error) if error.kind() == ErrorKind::InvalidInput => {}
        Err(error) => return Err(error),
    }
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(range.start))?;
    let mut bytes = Vec::with_capacity(length);
    file.take(length as u64).read_to_end(&mut bytes)?;
    whole(bytes, length)
}

fn read_direct(
    mut file: File,
    start: u64,
    length: usize,
    buffer: &mut Buffer,
) -> io::Result<Bytes> {
    let mut bytes = Vec::with_capacity(length);
    // Bytes of the first block before what is wanted.
    let mut before = usize::try_from(start % BLOCK as u64).expect("less than a block");
    file.seek(SeekFrom::Start(start - before as u64))?;
    while bytes.len() < length {
        let wanted = (before + length - bytes.len()).div_ceil(BLOCK) * BLOCK;
        let wanted = wanted.min(BUFFER_BYTES);
        let count = match file.read(&mut buffer.bytes_mut()[..wanted]) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let to = count.min(before + length - bytes.len());
        if to <= before {
            break;
        }
        bytes.extend_from_slice(&buffer.bytes()[before..to]);
        before = 0;
        if count % BLOCK != 0 {
            // The end of the file; the next request could not begin here.
            break;
        }
    }
    whole(bytes, length)
}

fn whole(bytes: Vec<u8>, length: usize) -> io::Result<Bytes> {
    match bytes.len() == length {
        true => Ok(bytes.into()),
        false => Err(ErrorKind::UnexpectedEof.into()),
    }
}

/// Opens a file whose requests go to the disk as they are.
fn open_direct(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(libc::O_DIRECT).open(path)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (options, path);
        Err(ErrorKind::InvalidInput.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| (at / 7 + at) as u8).collect()
    }

    /// Cut into parts of unequal length.
    fn parts(all: &[u8]) -> PutPayload {
        let mut rest = Bytes::copy_from_slice(all);
        let mut parts = Vec::new();
        for length in [1, 4095, 4097, 700_000, 3, 1 << 20].into_iter().cycle() {
            if rest.is_empty() {
                break;
            }
            parts.push(rest.split_to(rest.len().min(length)));
        }
        parts.into_iter().collect()
    }

    #[test]
    fn files_of_every_length_are_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let large = WRITE_BYTES_MIN as usize;
        let lengths = [0, 1, 4096, large - 1, large, large + 1, 2 * large - 4096, 3 * large + 513];
        for length in lengths {
            let path = folder.path().join(length.to_string());
            let content = pattern(length);
            create(&path, &parts(&content)).unwrap().sync_all().unwrap();
            assert!(std::fs::read(&path).unwrap() == content, "{length}");
            let again = create(&path, &parts(&content)).unwrap_err();
            assert_eq!(again.kind(), ErrorKind::AlreadyExists, "{length}");
            for range in [0..length, length / 3..length, 1..length / 2, length / 2..length / 2] {
                let (start, end) = (range.start.min(range.end), range.end);
                let found = read(&path, start as u64..end as u64).unwrap();
                assert!(found == content[start..end], "{length}: {start}..{end}");
            }
            let beyond = read(&path, 0..length as u64 + 1).unwrap_err();
            assert_eq!(beyond.kind(), ErrorKind::UnexpectedEof, "{length}");
        }
    }

    #[test]
    fn where_requests_must_not_go_past_the_cache_files_are_the_same() {
        // A file system in memory, where there is one.
        let Ok(folder) = tempfile::tempdir_in("/dev/shm") else { return };
        let path = folder.path().join("f");
        let content = pattern(3 * WRITE_BYTES_MIN as usize + 17);
        create(&path, &parts(&content)).unwrap();
        assert!(read(&path, 5..content.len() as u64).unwrap() == content[5..]);
    }
}
