//! Arrays whose bytes lie in a file of the local disk and are mapped into memory.
//!
//! 1. The buffers of the arrays are written one behind the other, each at a multiple of 64 bytes,
//!    into a file that has no name: it goes with the last array over it, whatever becomes of the
//!    process.
//! 2. The file is mapped for reading, and the same arrays are made over it. Whoever has an array
//!    cannot tell: nothing that reads rows knows of this.
//! 3. Which of its pages are in memory is the kernel's decision, which takes the least used first
//!    and may drop them at any time, because the file has them.
//!
//! It is plain writing without a sync: what is written here is a copy of state that a checkpoint or
//! the log has, too. A full disk is an error of the write. A disk that does not read back what it
//! took ends the process, as memory does that fails; the next start takes the checkpoint.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayDataBuilder, ArrayRef, make_array};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow::compute;

use crate::memory::spill::DiskUse;

/// Where a buffer begins: a cache line, and more than any value's alignment.
const ALIGNMENT: usize = 64;
/// Small buffers are gathered to writes of this size.
const WRITE_BYTES: usize = 256 * 1024;
/// An array is copied before it is written if that spares more than this and a quarter of it.
const SLACK_BYTES: usize = 4096;

/// A file that is mapped for reading.
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
    disk: Arc<DiskUse>,
}

// SAFETY: the mapping is read only, nobody else has the file, and its address does not change.
unsafe impl Send for Mapping {}
// SAFETY: as above; all that is done through a shared reference is reading.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `bytes` of a file, which has them and which nobody writes any more.
    fn new(file: &File, bytes: usize, disk: Arc<DiskUse>) -> std::io::Result<Mapping> {
        assert!(bytes > 0, "there is nothing to map");
        // SAFETY: a new mapping at an address that the kernel chooses touches no memory of ours.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("the kernel maps nothing at address 0");
        disk.add(bytes);
        Ok(Mapping { start, bytes, disk })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this address and length, and every buffer over it holds a
        // reference to it, so there is none.
        let outcome = unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
        debug_assert_eq!(outcome, 0, "what was mapped can be unmapped");
        self.disk.remove(self.bytes);
    }
}

/// The same arrays over a new file in `directory`, and the bytes of the file; `None` when they have
/// no bytes. `cold`: the kernel keeps nothing of it in memory.
///
/// # Errors
/// When the file cannot be made, written or mapped. Nothing is left behind.
pub(super) fn write_arrays(
    directory: &Path,
    disk: &Arc<DiskUse>,
    arrays: &[ArrayRef],
    cold: bool,
) -> std::io::Result<Option<(Vec<ArrayRef>, usize)>> {
    let compact = |array: &ArrayRef| compact(array).map_err(std::io::Error::other);
    let data = arrays.iter().map(|array| Ok(compact(array)?.to_data()));
    let data = data.collect::<std::io::Result<Vec<ArrayData>>>()?;
    let mut file = Writer {
        file: BufWriter::with_capacity(WRITE_BYTES, tempfile::tempfile_in(directory)?),
        bytes: 0,
    };
    for array in &data {
        file.write_data(array)?;
    }
    if file.bytes == 0 {
        return Ok(None);
    }
    let bytes = file.bytes;
    let file = file.file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    if cold {
        drop_from_cache(&file)?;
    }
    let mapping = Arc::new(Mapping::new(&file, bytes, disk.clone())?);
    let mut reader = Reader { mapping, at: 0 };
    let arrays = data.iter().map(|array| make_array(reader.read_data(array))).collect();
    assert_eq!(reader.at, bytes, "what was written is read");
    Ok(Some((arrays, bytes)))
}

/// Brings a file to the disk and drops it from the kernel's memory.
pub(super) fn drop_from_cache(file: &File) -> std::io::Result<()> {
    file.sync_data()?;
    // SAFETY: it is advice about a file that is open; no memory of ours is concerned.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        code => Err(std::io::Error::from_raw_os_error(code)),
    }
}

/// The array without bytes that belong to others' rows, where that spares much.
fn compact(array: &ArrayRef) -> Result<ArrayRef, arrow::error::ArrowError> {
    let data = array.to_data();
    let own = data.get_slice_memory_size().unwrap_or(usize::MAX);
    let all = buffer_bytes(&data);
    if all > own.saturating_add(own / 4).saturating_add(SLACK_BYTES) {
        // `concat` of a single array gives that array back; of two it copies.
        return compute::concat(&[array, &array.slice(0, 0)]);
    }
    Ok(array.clone())
}

/// Bytes of all buffers, whoever else uses them.
fn buffer_bytes(data: &ArrayData) -> usize {
    data.buffers().iter().map(Buffer::len).sum::<usize>()
        + data.nulls().map_or(0, |nulls| nulls.buffer().len())
        + data.child_data().iter().map(buffer_bytes).sum::<usize>()
}

/// Where a buffer of so many bytes ends, with what is left free behind it.
fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT)
}

struct Writer {
    file: BufWriter<File>,
    bytes: usize,
}

impl Writer {
    fn write_data(&mut self, data: &ArrayData) -> std::io::Result<()> {
        if let Some(nulls) = data.nulls() {
            self.write(nulls.buffer())?;
        }
        data.buffers().iter().try_for_each(|buffer| self.write(buffer))?;
        data.child_data().iter().try_for_each(|child| self.write_data(child))
    }

    fn write(&mut self, buffer: &Buffer) -> std::io::Result<()> {
        let padding = padded(buffer.len()) - buffer.len();
        self.file.write_all(buffer)?;
        self.file.write_all(&[0; ALIGNMENT][..padding])?;
        self.bytes += buffer.len() + padding;
        Ok(())
    }
}

/// Goes through the buffers of a file in the order in which they were written.
struct Reader {
    mapping: Arc<Mapping>,
    at: usize,
}

impl Reader {
    fn read_data(&mut self, like: &ArrayData) -> ArrayData {
        let nulls = like.nulls().map(|nulls| {
            let bits = self.read(nulls.buffer().len());
            let bits = BooleanBuffer::new(bits, nulls.offset(), nulls.len());
            // SAFETY: the bits are those of `nulls`.
            unsafe { NullBuffer::new_unchecked(bits, nulls.null_count()) }
        });
        let buffers = like.buffers().iter().map(|buffer| self.read(buffer.len())).collect();
        let children = like.child_data().iter().map(|child| self.read_data(child)).collect();
        let data = ArrayDataBuilder::new(like.data_type().clone())
            .len(like.len())
            .offset(like.offset())
            .nulls(nulls)
            .buffers(buffers)
            .child_data(children);
        // SAFETY: every buffer has the bytes of that of a valid array, and its alignment.
        unsafe { data.build_unchecked() }
    }

    fn read(&mut self, bytes: usize) -> Buffer {
        let start = self.at;
        self.at += padded(bytes);
        assert!(self.at <= self.mapping.bytes, "a buffer lies within its file");
        // SAFETY: the mapping is valid for its bytes, and lives as long as the buffer.
        unsafe {
            Buffer::from_custom_allocation(self.mapping.start.add(start), bytes, {
                self.mapping.clone()
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        BooleanArray, Int64Array, ListArray, NullArray, StringArray, StringViewArray, StructArray,
    };
    use arrow::datatypes::{DataType, Field, Int32Type};

    use super::*;

    fn there_and_back(arrays: &[ArrayRef]) -> (Vec<ArrayRef>, usize, Arc<DiskUse>) {
        let directory = tempfile::tempdir().unwrap();
        let disk = Arc::new(DiskUse::default());
        let (mapped, bytes) = write_arrays(directory.path(), &disk, arrays, true).unwrap().unwrap();
        assert_eq!(disk.now_bytes(), bytes as u64);
        // The file is there as long as an array over it, not as long as its directory.
        drop(directory);
        (mapped, bytes, disk)
    }

    #[test]
    fn arrays_of_every_shape_come_back_as_they_were() {
        let numbers = Int64Array::from_iter((0..1000).map(|n| (n % 7 != 0).then_some(n)));
        let texts = StringArray::from_iter((0..1000).map(|n| Some(format!("text {n}"))));
        let views = StringViewArray::from_iter((0..1000).map(|n| {
            (n % 5 != 1).then(|| format!("a text that is longer than a view holds: {n}"))
        }));
        let bits = BooleanArray::from_iter((0..1000).map(|n| (n % 11 != 3).then_some(n % 3 == 0)));
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(
            (0..1000).map(|n| (n % 4 != 0).then(|| (0..n % 3).map(Some).collect::<Vec<_>>())),
        );
        let field = Arc::new(Field::new("n", DataType::Int64, true));
        let rows = StructArray::from(vec![(field, Arc::new(numbers.clone()) as ArrayRef)]);
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(numbers),
            Arc::new(texts),
            Arc::new(views),
            Arc::new(bits),
            Arc::new(lists),
            Arc::new(rows),
            Arc::new(NullArray::new(1000)),
        ];
        // Whole, and from somewhere in the middle.
        for arrays in [arrays.clone(), arrays.iter().map(|a| a.slice(123, 456)).collect()] {
            let (mapped, _, disk) = there_and_back(&arrays);
            for (mapped, array) in mapped.iter().zip(&arrays) {
                assert_eq!(mapped, array);
                mapped.to_data().validate_full().expect("valid");
            }
            let kept = mapped[1].slice(5, 5);
            drop(mapped);
            assert!(disk.now_bytes() > 0);
            assert_eq!(&kept, &arrays[1].slice(5, 5));
            drop(kept);
            assert_eq!(disk.now_bytes(), 0);
        }
    }

    #[test]
    fn a_small_slice_makes_a_small_file() {
        let texts: ArrayRef =
            Arc::new(StringArray::from_iter_values((0..100_000).map(|n| format!("row {n}"))));
        let (mapped, bytes, _) = there_and_back(&[texts.slice(70_000, 10)]);
        assert!(bytes < 1024, "{bytes}");
        assert_eq!(mapped[0].as_ref(), texts.slice(70_000, 10).as_ref());
    }

    #[test]
    fn nothing_is_not_written_and_a_missing_directory_is_an_error() {
        let disk = Arc::new(DiskUse::default());
        let nothing: ArrayRef = Arc::new(NullArray::new(5));
        let directory = tempfile::tempdir().unwrap();
        assert!(
            write_arrays(directory.path(), &disk, std::slice::from_ref(&nothing), false)
                .unwrap()
                .is_none()
        );
        let gone = directory.path().join("gone");
        assert!(write_arrays(&gone, &disk, &[nothing], false).is_err());
    }
}
