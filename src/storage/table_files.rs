//! Contents of tables as files: a base with all rows of a moment, and deltas with what changed
//! since, in order.
//!
//! 1. A base is the table's rows; a delta has a last column `millstream_weight`, -1 for a row
//!    that went and +1 for one that came.
//! 2. Where bytes are cheap, on a disk, files are Arrow IPC streams that are written and read
//!    without a copy (`raw_rows.rs`), with the lengths of their pieces behind their end.
//!    Elsewhere they are Parquet, zstd level 1, without dictionaries and statistics: nobody
//!    searches in them. There a table with an interval column, which Parquet's writer does not
//!    have, and one without columns are Arrow IPC files.
//! 3. When the deltas together have half as many rows as the base, or are many, a new base takes
//!    their place ([`decide`]): rows are so written about three times in their life.

use std::io::{self, Cursor, Write};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{PutPayload, PutPayloadMut};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use crate::storage::checksum::{crc32_of, damaged};
use crate::storage::manifest::FileRef;
use crate::storage::paths;
use crate::storage::pieces;
use crate::storage::raw_rows;
use crate::storage::rows::{split_weights, with_weights};
use crate::storage::store::{Put, Store};
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};
use crate::types::id::ObjectId;

/// Deltas of a table, at most.
const DELTAS_MAX: usize = 16;
/// Tables below this many rows get a new base each time: one small file instead of two.
const SMALL_ROWS: u64 = 1024;

/// Rows of a batch that is read: each becomes a segment of a table.
const READ_ROWS: usize = 64 * 1024;

/// Files of a table that are read at the same time.
const READS_MAX: usize = 4;
/// The last bytes of a file with a stream; the last two are the format's version.
const STREAM_MARK: &[u8; 8] = b"MSROWS01";

/// A part of a file that is being made.
const PART_BYTES: usize = 256 * 1024;

/// What to write of a table that has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Delta,
    Base,
}

/// Decides from the rows of the files there are, of the table and of its changes since.
pub fn decide(files: &[FileRef], table_rows: u64, changed_rows: u64) -> Next {
    let [base, deltas @ ..] = files else { return Next::Base };
    let delta_rows = deltas.iter().map(|file| file.rows).sum::<u64>() + changed_rows;
    let many = deltas.len() >= DELTAS_MAX;
    if many || table_rows <= SMALL_ROWS || delta_rows * 2 > base.rows {
        Next::Base
    } else {
        Next::Delta
    }
}

/// How rows are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Parquet,
    Arrow,
    /// A stream of [`raw_rows`], with the lengths of its pieces behind it.
    Stream,
}

impl Format {
    pub(super) fn of(schema: &Schema) -> Format {
        let plain = |field: &arrow::datatypes::FieldRef| in_parquet(field.data_type());
        match !schema.fields().is_empty() && schema.fields().iter().all(plain) {
            true => Format::Parquet,
            false => Format::Arrow,
        }
    }

    pub(super) fn named(name: &str) -> Option<Format> {
        let all = [Format::Parquet, Format::Arrow, Format::Stream];
        all.into_iter().find(|format| format.extension() == name)
    }

    pub(super) fn extension(self) -> &'static str {
        match self {
            Format::Parquet => "parquet",
            Format::Arrow => "arrow",
            Format::Stream => "arrows",
        }
    }
}

/// Whether Parquet's writer has the type.
fn in_parquet(data_type: &DataType) -> bool {
    match data_type {
        DataType::Interval(_) | DataType::Duration(_) | DataType::Union(_, _) => false,
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            in_parquet(field.data_type())
        }
        DataType::Struct(fields) => {
            !fields.is_empty() && fields.iter().all(|field| in_parquet(field.data_type()))
        }
        _ => true,
    }
}

/// Rows of a base, made as they are written.
pub type Rows = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

/// Gives the rows of a base, the same ones each time.
pub type RowsAgain = Arc<dyn Fn() -> Rows + Send + Sync>;

/// Writes all rows of a table.
///
/// # Errors
/// When the rows cannot be had or encoded, or the storage fails.
pub async fn write_base(
    store: &Store,
    table: ObjectId,
    generation: u64,
    number: u64,
    schema: SchemaRef,
    rows: Rows,
) -> Result<FileRef> {
    write(store, table, generation, number, schema, rows).await
}

/// Writes changes of a table; `None` when they cancel each other.
///
/// # Errors
/// When the changes cannot be encoded, or the storage fails.
pub async fn write_delta(
    store: &Store,
    table: ObjectId,
    generation: u64,
    number: u64,
    schema: &SchemaRef,
    changes: Vec<ChangeBatch>,
) -> Result<Option<FileRef>> {
    let all = ChangeBatch::concat(schema, &changes)?.consolidate()?;
    if all.is_empty() {
        return Ok(None);
    }
    let rows = with_weights(&all)?;
    let schema = rows.schema();
    let rows = Box::new(std::iter::once(Ok(rows)));
    write(store, table, generation, number, schema, rows).await.map(Some)
}

async fn write(
    store: &Store,
    table: ObjectId,
    generation: u64,
    number: u64,
    schema: SchemaRef,
    rows: Rows,
) -> Result<FileRef> {
    let format = match store.has_cheap_bytes() && raw_rows::fits(&schema) {
        true => Format::Stream,
        false => Format::of(&schema),
    };
    let level = ZstdLevel::try_new(1).expect("zstd has a level 1");
    let encoded = tokio::task::spawn_blocking(move || {
        let (content, rows) = encode_rows(format, Compression::ZSTD(level), &schema, rows)?;
        Ok::<_, Error>((crc32_of(&content), content, rows))
    });
    let (crc32, content, rows) = encoded
        .await
        .map_err(|error| Error::internal(format!("a file was not encoded: {error}")))??;
    let name = paths::table_file(table, generation, number, format.extension());
    let bytes = content.content_length() as u64;
    let file = FileRef { name, bytes, crc32, rows, deleted: 0 };
    put_own(store, &file.name, content).await?;
    Ok(file)
}

/// Writes an object whose name is this server's alone. What an attempt that failed has left under
/// it is replaced.
///
/// # Errors
/// When the storage fails.
pub(super) async fn put_own(store: &Store, name: &str, content: PutPayload) -> Result<()> {
    let path = Path::from(name);
    if let Put::Written = store.put_new(&path, content.clone()).await? {
        return Ok(());
    }
    store.delete(&path).await?;
    match store.put_new(&path, content).await? {
        Put::Written => Ok(()),
        Put::Taken(_) => Err(Error::internal(format!("object \"{name}\" is there already"))),
    }
}

/// Rows in a format, in the parts in which it was written, and how many.
pub(super) fn encode_rows(
    format: Format,
    compression: Compression,
    schema: &SchemaRef,
    rows: Box<dyn Iterator<Item = Result<RecordBatch>> + '_>,
) -> Result<(PutPayload, u64)> {
    if format == Format::Stream {
        let raw = raw_rows::encode(schema, rows)?;
        let foot = stream_foot(&raw.pieces);
        return Ok((raw.parts.into_iter().chain([foot]).collect(), raw.rows));
    }
    let mut count = 0;
    let parts = Parts(PutPayloadMut::new().with_block_size(PART_BYTES));
    let Parts(content) = match format {
        Format::Parquet => {
            let properties = WriterProperties::builder()
                .set_compression(compression)
                .set_dictionary_enabled(false)
                .set_statistics_enabled(EnabledStatistics::None)
                .build();
            let mut writer = ArrowWriter::try_new(parts, schema.clone(), Some(properties))
                .map_err(parquet_error)?;
            for batch in rows {
                let batch = batch?;
                count += batch.num_rows() as u64;
                writer.write(&batch).map_err(parquet_error)?;
            }
            writer.into_inner().map_err(parquet_error)?
        }
        Format::Arrow => {
            let mut writer = FileWriter::try_new(parts, schema)?;
            for batch in rows {
                let batch = batch?;
                count += batch.num_rows() as u64;
                writer.write(&batch)?;
            }
            writer.into_inner()?
        }
        Format::Stream => unreachable!("written above"),
    };
    Ok((content.freeze(), count))
}

/// What stands behind a stream's end: the lengths of its pieces, their number, a mark.
fn stream_foot(pieces: &[u64]) -> Bytes {
    let mut foot: Vec<u8> = pieces.iter().flat_map(|length| length.to_le_bytes()).collect();
    foot.extend_from_slice(&(pieces.len() as u64).to_le_bytes());
    foot.extend_from_slice(STREAM_MARK);
    Bytes::from(foot)
}

/// Bytes of the foot of a stream, from those at the end of its file.
fn foot_bytes(end: &[u8]) -> Option<u64> {
    let count = end.strip_suffix(STREAM_MARK)?.last_chunk::<8>()?;
    u64::from_le_bytes(*count).checked_mul(8)?.checked_add(16)
}

/// The lengths of a stream's pieces, from its foot.
fn foot_pieces(foot: &[u8]) -> Vec<u64> {
    let (lengths, _) = foot[..foot.len() - 16].as_chunks::<8>();
    lengths.iter().map(|length| u64::from_le_bytes(*length)).collect()
}

/// Content that grows part by part and is never moved.
struct Parts(PutPayloadMut);

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn parquet_error(error: parquet::errors::ParquetError) -> Error {
    Error::internal(format!("Parquet: {error}"))
}

/// Reads a file back.
///
/// # Errors
/// SQLSTATE XX001 when it is not what was written; others when the storage fails.
pub async fn read(store: &Store, file: &FileRef) -> Result<Vec<RecordBatch>> {
    let format = file.name.rsplit_once('.').and_then(|(_, extension)| Format::named(extension));
    let format = format.unwrap_or(Format::Arrow);
    let pieces = match format == Format::Stream && file.bytes > pieces::WHOLE_BYTES_MAX {
        true => read_pieces(store, file).await?,
        false => vec![pieces::whole(store, file).await?],
    };
    let name = file.name.clone();
    let decoded = tokio::task::spawn_blocking(move || {
        let batches = match <[Bytes; 1]>::try_from(pieces) {
            Ok([whole]) => decode_rows(format, whole),
            Err(pieces) => raw_rows::decode(pieces),
        };
        batches.map_err(|error| damaged(&name, error))
    });
    let decoded = decoded.await;
    let batches =
        decoded.map_err(|error| Error::internal(format!("a file was not decoded: {error}")))??;
    let rows: u64 = batches.iter().map(|batch| batch.num_rows() as u64).sum();
    if rows != file.rows {
        return Err(damaged(&file.name, format!("{rows} rows instead of {}", file.rows)));
    }
    Ok(batches)
}

/// A stream in its pieces, each in memory of its own.
async fn read_pieces(store: &Store, file: &FileRef) -> Result<Vec<Bytes>> {
    let torn = || damaged(&file.name, "it has no end");
    // What these bytes say is checked with all others.
    let mark = pieces::tail(store, file, 16).await?;
    let foot = foot_bytes(&mark).filter(|bytes| *bytes <= file.bytes).ok_or_else(torn)?;
    let foot = pieces::tail(store, file, foot).await?;
    let mut at = 0u64;
    let ends = foot_pieces(&foot).into_iter().map(|length| {
        at = at.saturating_add(length);
        at
    });
    let mut pieces = pieces::cut(store, file, &ends.collect::<Vec<_>>()).await?;
    match pieces.pop() {
        Some(last) if last == foot && !pieces.is_empty() => Ok(pieces),
        _ => Err(torn()),
    }
}

pub(super) fn decode_rows(format: Format, content: Bytes) -> Result<Vec<RecordBatch>> {
    match format {
        Format::Parquet => {
            let reader = ParquetRecordBatchReaderBuilder::try_new(content)
                .and_then(|builder| builder.with_batch_size(READ_ROWS).build())
                .map_err(parquet_error)?;
            Ok(reader.collect::<std::result::Result<_, _>>()?)
        }
        Format::Arrow => {
            let reader = FileReader::try_new(Cursor::new(content), None)?;
            Ok(reader.collect::<std::result::Result<_, _>>()?)
        }
        Format::Stream => {
            let torn = || Error::internal("a stream of rows has no end");
            let foot = foot_bytes(&content).and_then(|bytes| usize::try_from(bytes).ok());
            let start = content.len().checked_sub(foot.ok_or_else(torn)?).ok_or_else(torn)?;
            let (mut rest, mut pieces) = (content.slice(..start), Vec::new());
            for length in foot_pieces(&content[start..]) {
                let length = usize::try_from(length).ok().filter(|length| *length <= rest.len());
                pieces.push(rest.split_to(length.ok_or_else(torn)?));
            }
            raw_rows::decode(pieces)
        }
    }
}

/// All of a table as changes: its base, then its deltas.
///
/// # Errors
/// As [`read`].
pub async fn read_table(store: &Store, files: &[FileRef]) -> Result<Vec<ChangeBatch>> {
    let reads: Vec<_> = files.iter().map(|file| read(store, file).boxed()).collect();
    let reads = futures::stream::iter(reads).buffered(READS_MAX);
    let contents: Vec<Vec<RecordBatch>> = reads.try_collect().await?;
    let mut changes = Vec::new();
    for (index, (file, batches)) in files.iter().zip(contents).enumerate() {
        for batch in batches {
            changes.push(if index == 0 {
                ChangeBatch::inserts(batch)
            } else {
                split_weights(&batch).map_err(|error| damaged(&file.name, error))?
            });
        }
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_table_is_read_as_it_was_written() {
        let field = arrow::datatypes::Field::new("n", DataType::Int64, false);
        let schema = Arc::new(Schema::new(vec![field]));
        let batch = |from: i64, to: i64| {
            let numbers = arrow::array::Int64Array::from_iter_values(from..to);
            RecordBatch::try_new(schema.clone(), vec![Arc::new(numbers)]).unwrap()
        };
        let folder = tempfile::tempdir().unwrap();
        let store = Store::directory(folder.path()).unwrap();
        // Nothing, one piece, and more than is read at once.
        for (number, rows) in [0, 10, 400_000].into_iter().enumerate() {
            let all = [batch(0, rows / 2), batch(rows / 2, rows)];
            let rows_again = Box::new(all.clone().into_iter().map(Ok));
            let (table, schema) = (ObjectId(7), schema.clone());
            let base = write_base(&store, table, 1, number as u64, schema.clone(), rows_again);
            let file = base.await.unwrap();
            assert!(file.name.ends_with(".arrows"), "{}", file.name);
            let back = read(&store, &file).await.unwrap();
            let concat = |all: &[RecordBatch]| arrow::compute::concat_batches(&schema, all);
            assert_eq!(concat(&back).unwrap(), concat(&all).unwrap());
            let fewer = FileRef { rows: file.rows + 1, ..file };
            assert_eq!(read(&store, &fewer).await.unwrap_err().sqlstate().0, "XX001");
        }
    }

    #[test]
    fn deltas_end_when_they_are_many_or_large() {
        let file = |rows| FileRef { name: String::new(), bytes: 0, crc32: 0, rows, deleted: 0 };
        assert_eq!(decide(&[], 10, 10), Next::Base);
        assert_eq!(decide(&[file(1000)], 1000, 1), Next::Base);
        assert_eq!(decide(&[file(100_000)], 100_000, 1000), Next::Delta);
        assert_eq!(decide(&[file(100_000), file(30_000)], 130_000, 19_000), Next::Delta);
        assert_eq!(decide(&[file(100_000), file(30_000)], 130_000, 21_000), Next::Base);
        assert_eq!(decide(&vec![file(100_000); 1 + DELTAS_MAX], 100_000, 1), Next::Base);
        let mut small: Vec<_> = vec![file(10); DELTAS_MAX];
        small.insert(0, file(100_000));
        assert_eq!(decide(&small, 100_000, 1), Next::Base);
        assert_eq!(decide(&small[..DELTAS_MAX], 100_000, 1), Next::Delta);
    }
}
