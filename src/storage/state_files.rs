//! The state of a view's operators as files: a base, and deltas with what changed since, in order.
//!
//! 1. A file is made of sections: for each table of an operator, on each worker, the rows that
//!    came, with their ids in a last column `millstream_row_id`, and the ids of rows that went,
//!    of earlier files or of this one. Ids are unique within a table of a worker and never used
//!    again, so the live rows are those of all files but for those whose ids went.
//! 2. Where bytes are cheap, on a disk, rows are written as they are in memory (`raw_rows.rs`):
//!    nothing is copied or packed beside the stream. Elsewhere they are a Parquet file of their
//!    own within the file (LZ4). What neither can hold is an Arrow IPC file. Ids that went are
//!    64-bit integers. A directory at the end says where.
//! 3. What a checkpoint writes is as much as has changed. From time to time it reads earlier files
//!    and makes one of them and the changes ([`merge_from`]): all files when most of their rows
//!    have gone, else the newest, when there are many of about one size, so that a row is written
//!    once more each time that the state has grown by that many. Large files stay as they are:
//!    they are few, and one of twice the size is read no faster. No operator takes part in it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt64Array,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute;
use arrow::datatypes::{DataType, Field, Schema, UInt64Type};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::PutPayload;
use parquet::basic::Compression;
use serde::{Deserialize, Serialize};

use crate::storage::checksum::{crc32_of, damaged};
use crate::storage::manifest::{FileRef, ViewState};
use crate::storage::pieces;
use crate::storage::raw_rows;
use crate::storage::store::Store;
use crate::storage::table_files::{Format, decode_rows, encode_rows};
use crate::types::error::{Error, Result};

/// The first and the last bytes of a file; the last of them is the format's version.
const MAGIC: &[u8; 8] = b"MSSTATE2";
/// Files without pieces begin and end so.
const MAGIC_1: &[u8; 8] = b"MSSTATE1";
/// The column of ids, behind the rows' own columns.
const ROW_ID_COLUMN: &str = "millstream_row_id";
/// So many files of one size, by orders of this magnitude, become one.
const FAN_IN: u64 = 16;
/// Files of fewer rows are of one size, and rows that have gone are not worth writing the others
/// anew.
const SMALL_ROWS: u64 = 8192;
/// Files of so many bytes are not read and written again, unless most of their rows have gone.
const LARGE_BYTES: u64 = 256 << 20;
/// Enough of a file's end for nearly every directory.
const TAIL_BYTES: u64 = 64 << 10;
/// Files of a view that are read at the same time.
const READS_MAX: usize = 4;

/// A change of one table of one operator on one worker.
#[derive(Clone, Debug)]
pub struct StateChange {
    pub operator: usize,
    /// The operator's noun, for people.
    pub operator_name: String,
    pub worker: usize,
    pub table: String,
    /// Rows that came, with their ids.
    pub appended: Vec<(UInt64Array, RecordBatch)>,
    /// Ids of earlier rows that went.
    pub deleted: Vec<u64>,
}

impl StateChange {
    fn rows(&self) -> u64 {
        let appended: usize = self.appended.iter().map(|(ids, _)| ids.len()).sum();
        (appended + self.deleted.len()) as u64
    }
}

/// The live rows of a view's state: by operator, for each worker of the run that wrote it, by
/// table.
pub type StateRows = BTreeMap<usize, Vec<BTreeMap<String, Vec<RecordBatch>>>>;

/// An entry of a file's directory.
#[derive(Debug, Serialize, Deserialize)]
struct Section {
    operator: usize,
    operator_name: String,
    worker: usize,
    table: String,
    /// `stream`, `parquet` or `arrow`.
    format: String,
    rows: u64,
    /// Where the rows stand in the file; nowhere when there are none.
    offset: u64,
    bytes: u64,
    /// How many ids stand behind the rows.
    deleted: u64,
    /// Of a stream: the lengths of the pieces to read it in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pieces: Vec<u64>,
}

/// The format of [`raw_rows`].
const STREAM: &str = "stream";

/// The first of a view's files that should become one with changes of so many rows, those that
/// have gone included; the number of files when the changes should be a file of their own.
pub fn merge_from(files: &[FileRef], changed_rows: u64, deleted_rows: u64) -> usize {
    let sum = |count: fn(&FileRef) -> u64| files.iter().map(count).sum::<u64>();
    let deleted = sum(|file| file.deleted) + deleted_rows;
    let appended = sum(|file| file.rows) + changed_rows - deleted;
    // A row that has gone is there with its id, and again in the list of those that went.
    if deleted > SMALL_ROWS && deleted > appended.saturating_sub(deleted) {
        return 0;
    }
    let (mut from, mut rows) = (files.len(), changed_rows);
    loop {
        let alike = files[..from]
            .iter()
            .rev()
            .take_while(|file| tier(file.rows) <= tier(rows) && file.bytes < LARGE_BYTES);
        let alike = alike.count();
        if alike as u64 + 1 < FAN_IN {
            return from;
        }
        // Which may be one too many of the next size.
        from -= alike;
        rows += files[from..from + alike].iter().map(|file| file.rows).sum::<u64>();
    }
}

/// The order of magnitude of a file.
fn tier(rows: u64) -> u32 {
    (rows / SMALL_ROWS).checked_ilog(FAN_IN).map_or(0, |order| order + 1)
}

/// Rows of changes, that came and that went, and of these the latter.
pub fn changed_rows(changes: &[StateChange]) -> (u64, u64) {
    let deleted = changes.iter().map(|change| change.deleted.len() as u64).sum();
    (changes.iter().map(StateChange::rows).sum(), deleted)
}

/// A file that is to be written.
#[derive(Debug)]
pub struct Encoded {
    /// In the parts in which it was made: state is large, and copied no more than need be.
    pub content: PutPayload,
    pub crc32: u32,
    pub rows: u64,
    pub deleted: u64,
}

/// The file that says these changes; `as_in_memory`: without packing the rows.
///
/// # Errors
/// When rows cannot be encoded.
pub fn encode(changes: &[StateChange], as_in_memory: bool) -> Result<Encoded> {
    let mut parts = vec![Bytes::from_static(MAGIC)];
    let mut offset = MAGIC.len() as u64;
    let mut directory = Vec::with_capacity(changes.len());
    for change in changes {
        let mut section = Section {
            operator: change.operator,
            operator_name: change.operator_name.clone(),
            worker: change.worker,
            table: change.table.clone(),
            format: String::new(),
            rows: 0,
            offset,
            bytes: 0,
            deleted: change.deleted.len() as u64,
            pieces: Vec::new(),
        };
        if let Some((ids, first)) = change.appended.first() {
            let schema = with_ids(ids, first)?.schema();
            let batches = change.appended.iter().map(|(ids, rows)| with_ids(ids, rows));
            if as_in_memory && raw_rows::fits(&schema) {
                let raw = raw_rows::encode(&schema, batches)?;
                STREAM.clone_into(&mut section.format);
                (section.rows, section.bytes) = (raw.rows, raw.bytes());
                section.pieces = raw.pieces;
                parts.extend(raw.parts);
            } else {
                let format = Format::of(&schema);
                let compression = Compression::LZ4_RAW;
                let (rows, count) = encode_rows(format, compression, &schema, Box::new(batches))?;
                format.extension().clone_into(&mut section.format);
                (section.rows, section.bytes) = (count, rows.content_length() as u64);
                parts.extend(rows);
            }
        }
        let deleted: Vec<u8> = change.deleted.iter().flat_map(|id| id.to_le_bytes()).collect();
        offset += section.bytes + deleted.len() as u64;
        parts.push(Bytes::from(deleted));
        directory.push(section);
    }
    let mut foot = serde_json::to_vec(&directory).expect("plain data has a JSON form");
    foot.extend_from_slice(&(foot.len() as u64).to_le_bytes());
    foot.extend_from_slice(MAGIC);
    parts.push(Bytes::from(foot));
    let (rows, deleted) = changed_rows(changes);
    let content: PutPayload = parts.into_iter().filter(|part| !part.is_empty()).collect();
    Ok(Encoded { crc32: crc32_of(&content), content, rows, deleted })
}

fn with_ids(ids: &UInt64Array, rows: &RecordBatch) -> Result<RecordBatch> {
    let schema = rows.schema();
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(ROW_ID_COLUMN, DataType::UInt64, false)));
    let schema = Schema::new_with_metadata(fields, schema.metadata().clone());
    let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
    columns.push(Arc::new(ids.clone()));
    Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
}

/// Where the directory of a file of `bytes` begins, and the directory, or the bytes of the file's
/// end that are needed to know; `end` are some of them.
fn directory(
    name: &str,
    bytes: u64,
    end: &[u8],
) -> Result<std::result::Result<(u64, Vec<Section>), u64>> {
    let torn = || damaged(name, "it is not a file of state");
    let foot = end.len().checked_sub(16).ok_or_else(torn)?;
    let magic = &end[foot + 8..];
    if magic != MAGIC && magic != MAGIC_1 {
        return Err(match magic[..7] == MAGIC[..7] {
            false => torn(),
            true => Error::unsupported(format!("the format of object \"{name}\""))
                .hint("Start the version that wrote it, or a newer one."),
        });
    }
    let length = u64::from_le_bytes(end[foot..foot + 8].try_into().expect("eight bytes"));
    let needed = length.checked_add(16).filter(|needed| *needed <= bytes).ok_or_else(torn)?;
    if needed > end.len() as u64 {
        return Ok(Err(needed));
    }
    let start = end.len() - needed as usize;
    let sections = serde_json::from_slice(&end[start..foot]).map_err(|e| damaged(name, e))?;
    Ok(Ok((bytes - needed, sections)))
}

/// A file that has been read, in pieces that cover it.
struct Content {
    name: String,
    /// Where each piece begins, ascending.
    pieces: BTreeMap<u64, Bytes>,
}

impl Content {
    /// These bytes, which lie in one piece.
    fn range(&self, offset: u64, bytes: u64) -> Result<Bytes> {
        let torn = || damaged(&self.name, "a part of it is missing");
        let (start, piece) = self.pieces.range(..=offset).next_back().ok_or_else(torn)?;
        let from = usize::try_from(offset - start).map_err(|_| torn())?;
        let length = usize::try_from(bytes).map_err(|_| torn())?;
        let to = from.checked_add(length).filter(|to| *to <= piece.len()).ok_or_else(torn)?;
        Ok(piece.slice(from..to))
    }

    fn decode(&self, sections: Vec<Section>) -> Result<Vec<StateChange>> {
        sections.into_iter().map(|section| self.decode_section(section)).collect()
    }

    fn decode_section(&self, section: Section) -> Result<StateChange> {
        let torn = || damaged(&self.name, "a part of it is missing");
        let mut appended = Vec::new();
        if section.rows > 0 {
            let batches = if section.format == STREAM {
                let mut at = section.offset;
                let pieces = section.pieces.iter().map(|length| {
                    let piece = self.range(at, *length);
                    at = at.saturating_add(*length);
                    piece
                });
                raw_rows::decode(pieces.collect::<Result<Vec<_>>>()?)?
            } else {
                let format = Format::named(&section.format).ok_or_else(torn)?;
                decode_rows(format, self.range(section.offset, section.bytes)?)?
            };
            for batch in batches {
                appended.push(split_ids(&batch).ok_or_else(torn)?);
            }
        }
        let rows: u64 = appended.iter().map(|(ids, _)| ids.len() as u64).sum();
        if rows != section.rows {
            return Err(torn());
        }
        let mut deleted = Vec::new();
        if section.deleted > 0 {
            let bytes = section.deleted.checked_mul(8).ok_or_else(torn)?;
            let offset = section.offset.checked_add(section.bytes).ok_or_else(torn)?;
            let ids = self.range(offset, bytes)?;
            let (ids, _) = ids.as_chunks::<8>();
            deleted.extend(ids.iter().map(|id| u64::from_le_bytes(*id)));
        }
        Ok(StateChange {
            operator: section.operator,
            operator_name: section.operator_name,
            worker: section.worker,
            table: section.table,
            appended,
            deleted,
        })
    }
}

/// Where to cut a file whose directory begins at `end`, so that every part which is kept apart in
/// memory, and every list of ids, is a piece.
fn cuts(sections: &[Section], end: u64) -> Vec<u64> {
    let mut cuts = Vec::new();
    for section in sections {
        let mut at = section.offset;
        cuts.push(at);
        for length in &section.pieces {
            at = at.saturating_add(*length);
            cuts.push(at);
        }
        cuts.push(section.offset.saturating_add(section.bytes));
    }
    cuts.push(end);
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

/// Rows and ids; `None` when the last column is something else.
fn split_ids(batch: &RecordBatch) -> Option<(UInt64Array, RecordBatch)> {
    let columns = batch.num_columns().checked_sub(1)?;
    let ids = batch.column(columns).as_primitive_opt::<UInt64Type>()?.clone();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let own: Vec<usize> = (0..columns).collect();
    let schema = Arc::new(batch.schema().project(&own).ok()?);
    let columns = batch.columns()[..columns].to_vec();
    let rows = RecordBatch::try_new_with_options(schema, columns, &options).ok()?;
    (ids.null_count() == 0).then_some((ids, rows))
}

/// Ids of rows that went, ascending, and which of them have been found.
#[derive(Default)]
struct Gone {
    ids: Vec<u64>,
    found: Vec<bool>,
}

impl Gone {
    /// # Errors
    /// With an id that is there twice.
    fn of(mut ids: Vec<u64>) -> std::result::Result<Gone, u64> {
        ids.sort_unstable();
        match ids.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(pair[0]),
            None => Ok(Gone { found: vec![false; ids.len()], ids }),
        }
    }

    /// Which of the rows with these ids are left; `None`: all.
    fn left(&mut self, ids: &[u64]) -> Option<BooleanBuffer> {
        let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return None };
        let ascending = ids.is_sorted();
        let mut at = self.ids.partition_point(|gone| gone < first);
        if ascending && self.ids.get(at).is_none_or(|gone| gone > last) {
            return None;
        }
        let left = BooleanBuffer::collect_bool(ids.len(), |row| {
            if ascending {
                while self.ids.get(at).is_some_and(|gone| *gone < ids[row]) {
                    at += 1;
                }
            } else {
                at = self.ids.partition_point(|gone| *gone < ids[row]);
            }
            let went = self.ids.get(at) == Some(&ids[row]);
            if went {
                self.found[at] = true;
            }
            !went
        });
        (left.count_set_bits() < ids.len()).then_some(left)
    }

    fn not_found(self) -> Vec<u64> {
        let Gone { ids, found } = self;
        ids.into_iter().zip(found).filter(|(_, found)| !found).map(|(id, _)| id).collect()
    }
}

/// All changes in order as those of one file: what came and has not gone. `whole` when they are
/// all that a view has, a base; otherwise rows of earlier files may go in them.
///
/// # Errors
/// SQLSTATE XX001 when a row goes that never came.
pub fn fold(changes: Vec<StateChange>, whole: bool) -> Result<Vec<StateChange>> {
    let mut tables: BTreeMap<(usize, String, usize), StateChange> = BTreeMap::new();
    for change in changes {
        let key = (change.operator, change.table.clone(), change.worker);
        match tables.entry(key) {
            Entry::Vacant(free) => drop(free.insert(change)),
            Entry::Occupied(mut taken) => {
                taken.get_mut().appended.extend(change.appended);
                taken.get_mut().deleted.extend(change.deleted);
            }
        }
    }
    tables.into_values().map(|folded| without_gone(folded, whole)).collect()
}

fn lost(change: &StateChange, what: impl std::fmt::Display) -> Error {
    let StateChange { operator_name, operator, table, .. } = change;
    damaged(&format!("table {table} of {operator_name} {operator}"), what)
}

/// The rows whose ids have not gone. An id without a row is an error when the rows are `whole`,
/// and else stays to be said.
fn without_gone(mut change: StateChange, whole: bool) -> Result<StateChange> {
    if change.deleted.is_empty() {
        return Ok(change);
    }
    let gone = Gone::of(std::mem::take(&mut change.deleted));
    let mut gone = gone.map_err(|id| lost(&change, format!("row {id} goes twice")))?;
    let mut live = Vec::with_capacity(change.appended.len());
    for (ids, rows) in std::mem::take(&mut change.appended) {
        let Some(left) = gone.left(ids.values()) else {
            live.push((ids, rows));
            continue;
        };
        if left.count_set_bits() > 0 {
            let keep = BooleanArray::new(left, None);
            let ids = compute::filter(&ids, &keep)?.as_primitive::<UInt64Type>().clone();
            live.push((ids, compute::filter_record_batch(&rows, &keep)?));
        }
    }
    change.appended = live;
    change.deleted = gone.not_found();
    if whole && !change.deleted.is_empty() {
        return Err(lost(&change, format!("{} rows go that never came", change.deleted.len())));
    }
    Ok(change)
}

/// All changes in a view's files, in order.
///
/// # Errors
/// SQLSTATE XX001 when a file is not what was written; others when the storage fails.
pub async fn read(store: &Store, files: &[FileRef]) -> Result<Vec<StateChange>> {
    let reads: Vec<_> = files.iter().map(|file| read_file(store, file).boxed()).collect();
    let reads = futures::stream::iter(reads).buffered(READS_MAX);
    let parts: Vec<Vec<StateChange>> = reads.try_collect().await?;
    Ok(parts.into_iter().flatten().collect())
}

async fn read_file(store: &Store, file: &FileRef) -> Result<Vec<StateChange>> {
    let (end, sections, pieces) = if file.bytes <= pieces::WHOLE_BYTES_MAX {
        let content = pieces::whole(store, file).await?;
        match directory(&file.name, file.bytes, &content)? {
            Ok((end, sections)) => (end, sections, vec![content]),
            Err(_) => return Err(damaged(&file.name, "it is not a file of state")),
        }
    } else {
        // What these bytes say is checked with all others below.
        let mut tail = pieces::tail(store, file, TAIL_BYTES).await?;
        if let Err(needed) = directory(&file.name, file.bytes, &tail)? {
            tail = pieces::tail(store, file, needed).await?;
        }
        match directory(&file.name, file.bytes, &tail)? {
            Ok((end, sections)) => {
                let pieces = pieces::cut(store, file, &cuts(&sections, end)).await?;
                (end, sections, pieces)
            }
            Err(_) => return Err(damaged(&file.name, "it is not a file of state")),
        }
    };
    if !pieces.first().is_some_and(|p| p.starts_with(MAGIC) || p.starts_with(MAGIC_1)) {
        return Err(damaged(&file.name, "it is not a file of state"));
    }
    debug_assert!(end <= file.bytes);
    let mut content = Content { name: file.name.clone(), pieces: BTreeMap::new() };
    let mut at = 0;
    for piece in pieces {
        let length = piece.len() as u64;
        content.pieces.insert(at, piece);
        at += length;
    }
    let decoded = tokio::task::spawn_blocking(move || {
        content.decode(sections).map_err(|error| damaged(&content.name, error))
    });
    decoded.await.map_err(|error| Error::internal(format!("a file was not decoded: {error}")))?
}

/// What becomes of rows that were read and wait until somebody takes them up: the same rows,
/// perhaps elsewhere than in memory.
pub type Keep = Arc<dyn Fn(RecordBatch) -> RecordBatch + Send + Sync>;

/// Rows stay in memory.
pub fn in_memory() -> Keep {
    Arc::new(|rows| rows)
}

/// The live rows of a view's state.
///
/// # Errors
/// As [`read`] and [`fold`].
pub async fn read_rows(store: &Store, state: &ViewState, keep: Keep) -> Result<StateRows> {
    let changes = read(store, &state.files).await?;
    let workers = state.workers;
    let folded = tokio::task::spawn_blocking(move || {
        let mut rows = StateRows::new();
        for change in fold(changes, true)? {
            let written =
                rows.entry(change.operator).or_insert_with(|| vec![BTreeMap::new(); workers]);
            let Some(tables) = written.get_mut(change.worker) else {
                return Err(lost(&change, format!("worker {} of {workers}", change.worker)));
            };
            let batches = change.appended.into_iter().map(|(_, rows)| keep(rows)).collect();
            tables.insert(change.table, batches);
        }
        Ok(rows)
    });
    folded.await.map_err(|error| Error::internal(format!("state was not folded: {error}")))?
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, IntervalMonthDayNanoArray};
    use arrow::datatypes::{Int64Type, IntervalMonthDayNano, IntervalUnit};

    use super::*;
    use crate::storage::checksum::crc32;

    fn change(worker: usize, rows: &[(u64, i64)], deleted: &[u64]) -> StateChange {
        let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, true)]));
        let values = Int64Array::from_iter_values(rows.iter().map(|(_, value)| *value));
        let batch = RecordBatch::try_new(schema, vec![Arc::new(values)]).unwrap();
        let ids = UInt64Array::from_iter_values(rows.iter().map(|(id, _)| *id));
        StateChange {
            operator: 3,
            operator_name: "join".into(),
            worker,
            table: "left".into(),
            appended: if rows.is_empty() { vec![] } else { vec![(ids, batch)] },
            deleted: deleted.to_vec(),
        }
    }

    fn bytes(encoded: Encoded) -> Bytes {
        let parts: Vec<u8> = encoded.content.iter().flatten().copied().collect();
        assert_eq!(encoded.crc32, crc32(&parts));
        Bytes::from(parts)
    }

    /// As it is read from a directory, where its name is `f`.
    async fn decode(content: &[u8]) -> Result<Vec<StateChange>> {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::directory(folder.path()).unwrap();
        let path = object_store::path::Path::from("f");
        store.put_new(&path, Bytes::copy_from_slice(content)).await.unwrap();
        let (bytes, crc32) = (content.len() as u64, crc32(content));
        read_file(&store, &FileRef { name: "f".into(), bytes, crc32, ..FileRef::default() }).await
    }

    fn values(changes: &[StateChange]) -> Vec<(usize, Vec<u64>, Vec<i64>)> {
        let texts = changes.iter().map(|change| {
            let ids = change.appended.iter().flat_map(|(ids, _)| ids.values().to_vec()).collect();
            let values =
                |rows: &RecordBatch| rows.column(0).as_primitive::<Int64Type>().values().to_vec();
            let rows = change.appended.iter().flat_map(|(_, rows)| values(rows)).collect();
            (change.worker, ids, rows)
        });
        texts.collect()
    }

    #[tokio::test]
    async fn files_in_order_give_what_came_and_has_not_gone() {
        let files = [
            vec![change(0, &[(0, 10), (1, 11), (2, 12)], &[]), change(1, &[(0, 20)], &[])],
            vec![change(0, &[(3, 13)], &[1])],
            vec![change(0, &[], &[3]), change(1, &[(1, 21)], &[0])],
        ];
        let mut changes = Vec::new();
        for (number, file) in files.iter().enumerate() {
            let encoded = encode(file, number != 1).unwrap();
            assert_eq!((encoded.rows, encoded.deleted), changed_rows(file));
            changes.extend(decode(&bytes(encoded)).await.unwrap());
        }
        let folded = fold(changes.clone(), true).unwrap();
        assert_eq!(values(&folded), [(0, vec![0, 2], vec![10, 12]), (1, vec![1], vec![21])],);
        // A base of them is the same, and so is a base with a file of all that came later.
        let again = decode(&bytes(encode(&folded, true).unwrap())).await.unwrap();
        assert_eq!(values(&fold(again, true).unwrap()), values(&folded));
        let later = fold(changes[2..].to_vec(), false).unwrap();
        assert_eq!(values(&later), [(0, vec![], vec![]), (1, vec![1], vec![21])]);
        assert_eq!(later.iter().map(|c| c.deleted.clone()).collect::<Vec<_>>(), [vec![1], vec![0]]);
        let again = [changes[..2].to_vec(), later].concat();
        assert_eq!(values(&fold(again, true).unwrap()), values(&folded));
        // A row that never came, and one that goes twice.
        changes.push(change(0, &[], &[9]));
        assert_eq!(fold(changes.clone(), true).unwrap_err().sqlstate().0, "XX001");
        changes.pop();
        changes.push(change(0, &[], &[1]));
        assert_eq!(fold(changes, true).unwrap_err().sqlstate().0, "XX001");
    }

    #[tokio::test]
    async fn every_cut_is_seen_and_types_without_parquet_are_kept() {
        let mut other = change(0, &[(7, 1)], &[2, 5]);
        let interval = DataType::Interval(IntervalUnit::MonthDayNano);
        let schema = Arc::new(Schema::new(vec![Field::new("i", interval, true)]));
        let values = IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(1, 2, 3)]);
        other.appended[0].1 = RecordBatch::try_new(schema, vec![Arc::new(values)]).unwrap();
        for as_in_memory in [false, true] {
            let changes = [other.clone(), change(1, &[(0, 20)], &[])];
            let content = bytes(encode(&changes, as_in_memory).unwrap());
            let back = decode(&content).await.unwrap();
            assert_eq!(back[0].appended[0].1, other.appended[0].1);
            assert_eq!(back[0].deleted, [2, 5]);
            for length in 0..content.len() {
                assert!(decode(&content[..length]).await.is_err(), "{length}");
            }
            let mut newer = content.to_vec();
            let end = newer.len() - 1;
            (newer[7], newer[end]) = (b'9', b'9');
            assert_eq!(decode(&newer).await.unwrap_err().sqlstate().0, "0A000");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_large_file_is_read_in_pieces() {
        let rows: Vec<(u64, i64)> = (0..300_000).map(|n| (n, n as i64 * 7)).collect();
        let changes = [change(0, &rows, &[5, 7]), change(1, &[(1, 1)], &[]), change(2, &rows, &[])];
        let content = bytes(encode(&changes, true).unwrap());
        assert!(content.len() as u64 > pieces::WHOLE_BYTES_MAX);
        let back = decode(&content).await.unwrap();
        assert_eq!(values(&back), values(&changes));
        assert_eq!(back[0].deleted, [5, 7]);
        // Rows may go in the file in which they came.
        let left = fold(back, true).unwrap();
        assert_eq!(left[0].appended[0].0.len(), 299_998);
        let mut changed = content.to_vec();
        changed[3_000_000] ^= 1;
        let file =
            FileRef { name: "f".into(), bytes: 1, crc32: crc32(&content), ..FileRef::default() };
        let folder = tempfile::tempdir().unwrap();
        let store = Store::directory(folder.path()).unwrap();
        let path = object_store::path::Path::from("f");
        store.put_new(&path, Bytes::from(changed)).await.unwrap();
        let file = FileRef { bytes: content.len() as u64, ..file };
        assert_eq!(read_file(&store, &file).await.unwrap_err().sqlstate().0, "XX001");
    }

    #[test]
    fn files_become_one_when_they_are_many_or_mostly_gone() {
        let file = |rows, deleted| FileRef { rows, deleted, ..FileRef::default() };
        assert_eq!(merge_from(&[], 1, 0), 0);
        // What has gone is not worth writing the rest anew, until it is more than what is left.
        assert_eq!(merge_from(&[file(100_000, 0), file(80_000, 40_000)], 20_000, 9_000), 2);
        assert_eq!(merge_from(&[file(100_000, 0), file(80_000, 40_000)], 40_000, 40_000), 0);
        assert_eq!(merge_from(&[file(10, 0), file(8_000, 8_000)], 100, 100), 2);
        // Files of one size become one of the next.
        let mut files = vec![file(100_000_000, 0)];
        files.extend(vec![file(100_000, 0); 14]);
        assert_eq!(merge_from(&files, 100_000, 0), 15);
        assert_eq!(merge_from(&files, 1, 0), 15);
        files.push(file(10, 0));
        assert_eq!(merge_from(&files, 100_000, 0), 1);
        // Large ones stay, until most of their rows have gone.
        files[1].bytes = LARGE_BYTES;
        assert_eq!(merge_from(&files, 100_000, 0), 16);
        assert_eq!(merge_from(&[file(100_000, 0), file(90_000, 90_000)], 10, 10), 0);
        files[1].bytes = 0;
        assert_eq!(merge_from(&files, 10, 0), 16);
    }

    #[test]
    fn a_row_is_written_a_few_times_and_files_stay_few() {
        let (mut files, mut written): (Vec<FileRef>, u64) = (Vec::new(), 0);
        for _ in 0..4_000 {
            let kept = merge_from(&files, 10_000, 0);
            let rows = files.drain(kept..).map(|file| file.rows).sum::<u64>() + 10_000;
            files.push(FileRef { rows, ..FileRef::default() });
            written += rows;
            assert!(files.len() < 64, "{}", files.len());
        }
        assert!(written < 4 * 4_000 * 10_000, "{written}");
    }
}
