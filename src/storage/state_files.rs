//! The state of a view's operators as files: a base, and deltas with what changed since, in order.
//!
//! 1. A file is made of sections: for each table of an operator, on each worker, the rows that
//!    came, with their ids in a last column `millstream_row_id`, and the ids of rows of earlier
//!    files that went. Ids are unique within a table of a worker and never used again, so the
//!    live rows are those of all files but for those whose ids went.
//! 2. Rows are a Parquet file of their own within the file (LZ4, which costs the stream little),
//!    or an Arrow IPC file where Parquet cannot hold them; ids that went are 64-bit integers. A directory at the end says where.
//! 3. What a checkpoint writes is as much as has changed. From time to time it reads earlier files
//!    and makes one of them and the changes ([`merge_from`]): all files when most of their rows
//!    have gone, else the newest, when there are many of about one size, so that a row is written
//!    once more each time that the state has grown by that many. No operator takes part in it.

use std::collections::{BTreeMap, HashSet};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt64Array,
};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Schema, UInt64Type};
use bytes::Bytes;
use foldhash::fast::FixedState;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::PutPayload;
use object_store::path::Path;
use parquet::basic::Compression;
use serde::{Deserialize, Serialize};

use crate::storage::checksum::{crc32, crc32_of, damaged};
use crate::storage::manifest::{FileRef, ViewState};
use crate::storage::store::Store;
use crate::storage::table_files::{Format, decode_rows, encode_rows};
use crate::types::error::{Error, Result};

/// The first and the last bytes of a file; the last of them is the format's version.
const MAGIC: &[u8; 8] = b"MSSTATE1";
/// The column of ids, behind the rows' own columns.
const ROW_ID_COLUMN: &str = "millstream_row_id";
/// So many files of one size, by orders of this magnitude, become one.
const FAN_IN: u64 = 16;
/// Files of fewer rows are of one size, and rows that have gone are not worth writing the others
/// anew.
const SMALL_ROWS: u64 = 8192;
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
    /// `parquet` or `arrow`.
    format: String,
    rows: u64,
    /// Where the rows stand in the file; nowhere when there are none.
    offset: u64,
    bytes: u64,
    /// How many ids stand behind the rows.
    deleted: u64,
}

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
        let alike = files[..from].iter().rev().take_while(|file| tier(file.rows) <= tier(rows));
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

/// The file that says these changes.
///
/// # Errors
/// When rows cannot be encoded.
pub fn encode(changes: &[StateChange]) -> Result<Encoded> {
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
        };
        if let Some((_, first)) = change.appended.first() {
            let schema = with_ids(&change.appended[0].0, first)?.schema();
            let format = Format::of(&schema);
            let batches = change.appended.iter().map(|(ids, rows)| with_ids(ids, rows));
            let compression = Compression::LZ4_RAW;
            let (rows, count) = encode_rows(format, compression, &schema, Box::new(batches))?;
            format.extension().clone_into(&mut section.format);
            section.rows = count;
            section.bytes = rows.content_length() as u64;
            parts.extend(rows);
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
    let content: PutPayload = parts.into_iter().collect();
    Ok(Encoded { crc32: crc32_of(&content), content, rows, deleted })
}

fn with_ids(ids: &UInt64Array, rows: &RecordBatch) -> Result<RecordBatch> {
    let schema = rows.schema();
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields.push(std::sync::Arc::new(Field::new(ROW_ID_COLUMN, DataType::UInt64, false)));
    let schema = Schema::new_with_metadata(fields, schema.metadata().clone());
    let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
    columns.push(std::sync::Arc::new(ids.clone()));
    Ok(RecordBatch::try_new(std::sync::Arc::new(schema), columns)?)
}

/// The changes that a file says.
fn decode(name: &str, content: &Bytes) -> Result<Vec<StateChange>> {
    let torn = || damaged(name, "it is not a file of state");
    let end = content.len().checked_sub(16).ok_or_else(torn)?;
    let foot = &content[end..];
    if content[..8] != MAGIC[..] || foot[8..] != MAGIC[..] {
        return Err(match content[..7] == MAGIC[..7] {
            false => torn(),
            true => Error::unsupported(format!("the format of object \"{name}\""))
                .hint("Start the version that wrote it, or a newer one."),
        });
    }
    let length = u64::from_le_bytes(foot[..8].try_into().expect("eight bytes"));
    let start = end.checked_sub(usize::try_from(length).map_err(|_| torn())?).ok_or_else(torn)?;
    let directory: Vec<Section> =
        serde_json::from_slice(&content[start..end]).map_err(|error| damaged(name, error))?;
    directory.into_iter().map(|section| decode_section(name, content, section)).collect()
}

fn decode_section(name: &str, content: &Bytes, section: Section) -> Result<StateChange> {
    let torn = || damaged(name, "a part of it is missing");
    let range = |offset: u64, bytes: u64| {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(bytes).ok()?)?;
        (end <= content.len()).then_some(start..end)
    };
    let mut appended = Vec::new();
    if section.rows > 0 {
        let bytes = content.slice(range(section.offset, section.bytes).ok_or_else(torn)?);
        let format = Format::named(&section.format).ok_or_else(torn)?;
        for batch in decode_rows(format, bytes)? {
            appended.push(split_ids(&batch).ok_or_else(torn)?);
        }
    }
    let bytes = section.deleted.checked_mul(8).ok_or_else(torn)?;
    let ids = &content[range(section.offset + section.bytes, bytes).ok_or_else(torn)?];
    let (ids, _) = ids.as_chunks::<8>();
    Ok(StateChange {
        operator: section.operator,
        operator_name: section.operator_name,
        worker: section.worker,
        table: section.table,
        appended,
        deleted: ids.iter().map(|id| u64::from_le_bytes(*id)).collect(),
    })
}

/// Rows and ids; `None` when the last column is something else.
fn split_ids(batch: &RecordBatch) -> Option<(UInt64Array, RecordBatch)> {
    let columns = batch.num_columns().checked_sub(1)?;
    let ids = batch.column(columns).as_primitive_opt::<UInt64Type>()?.clone();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let own: Vec<usize> = (0..columns).collect();
    let schema = std::sync::Arc::new(batch.schema().project(&own).ok()?);
    let columns = batch.columns()[..columns].to_vec();
    let rows = RecordBatch::try_new_with_options(schema, columns, &options).ok()?;
    (ids.null_count() == 0).then_some((ids, rows))
}

type Ids = HashSet<u64, FixedState>;

/// All changes in order as those of one file: what came and has not gone. `whole` when they are
/// all that a view has, a base; otherwise rows of earlier files may go in them.
///
/// # Errors
/// SQLSTATE XX001 when a row goes that never came.
pub fn fold(changes: Vec<StateChange>, whole: bool) -> Result<Vec<StateChange>> {
    let mut tables: BTreeMap<(usize, String, usize), (StateChange, Ids)> = BTreeMap::new();
    for mut change in changes {
        let key = (change.operator, change.table.clone(), change.worker);
        let deleted = std::mem::take(&mut change.deleted);
        let appended = std::mem::take(&mut change.appended);
        let (folded, gone) = tables.entry(key).or_insert_with(|| (change, Ids::default()));
        for id in deleted {
            if !gone.insert(id) {
                return Err(lost(folded, format!("row {id} goes twice")));
            }
        }
        folded.appended.extend(appended);
    }
    tables.into_values().map(|(folded, gone)| without(folded, gone, whole)).collect()
}

fn lost(change: &StateChange, what: impl std::fmt::Display) -> Error {
    let StateChange { operator_name, operator, table, .. } = change;
    damaged(&format!("table {table} of {operator_name} {operator}"), what)
}

/// The rows whose ids are not among `gone`. An id without a row is an error when the rows are
/// `whole`, and else stays to be said.
fn without(mut change: StateChange, mut gone: Ids, whole: bool) -> Result<StateChange> {
    if gone.is_empty() {
        return Ok(change);
    }
    let mut live = Vec::with_capacity(change.appended.len());
    for (ids, rows) in std::mem::take(&mut change.appended) {
        let keep: BooleanArray = ids.values().iter().map(|id| Some(!gone.remove(id))).collect();
        let alive = keep.true_count();
        if alive == rows.num_rows() {
            live.push((ids, rows));
        } else if alive > 0 {
            let ids = compute::filter(&ids, &keep)?.as_primitive::<UInt64Type>().clone();
            live.push((ids, compute::filter_record_batch(&rows, &keep)?));
        }
    }
    if whole && !gone.is_empty() {
        return Err(lost(&change, format!("{} rows go that never came", gone.len())));
    }
    change.appended = live;
    change.deleted = gone.into_iter().collect();
    change.deleted.sort_unstable();
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
    let content = store.get(&Path::from(file.name.as_str())).await?;
    let file = file.clone();
    let decoded = tokio::task::spawn_blocking(move || {
        if content.len() as u64 != file.bytes || crc32(&content) != file.crc32 {
            return Err(damaged(&file.name, "its checksum differs"));
        }
        decode(&file.name, &content).map_err(|error| match error.sqlstate() {
            crate::types::error::SqlState::FEATURE_NOT_SUPPORTED => error,
            _ => damaged(&file.name, error),
        })
    });
    decoded.await.map_err(|error| Error::internal(format!("a file was not decoded: {error}")))?
}

/// The live rows of a view's state.
///
/// # Errors
/// As [`read`] and [`fold`].
pub async fn read_rows(store: &Store, state: &ViewState) -> Result<StateRows> {
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
            let batches = change.appended.into_iter().map(|(_, rows)| rows).collect();
            tables.insert(change.table, batches);
        }
        Ok(rows)
    });
    folded.await.map_err(|error| Error::internal(format!("state was not folded: {error}")))?
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, IntervalMonthDayNanoArray};
    use arrow::datatypes::{Int64Type, IntervalMonthDayNano, IntervalUnit};

    use super::*;

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

    #[test]
    fn files_in_order_give_what_came_and_has_not_gone() {
        let files = [
            vec![change(0, &[(0, 10), (1, 11), (2, 12)], &[]), change(1, &[(0, 20)], &[])],
            vec![change(0, &[(3, 13)], &[1])],
            vec![change(0, &[], &[3]), change(1, &[(1, 21)], &[0])],
        ];
        let mut changes = Vec::new();
        for file in &files {
            let encoded = encode(file).unwrap();
            assert_eq!((encoded.rows, encoded.deleted), changed_rows(file));
            changes.extend(decode("f", &bytes(encoded)).unwrap());
        }
        let folded = fold(changes.clone(), true).unwrap();
        assert_eq!(values(&folded), [(0, vec![0, 2], vec![10, 12]), (1, vec![1], vec![21])],);
        // A base of them is the same, and so is a base with a file of all that came later.
        let again = decode("f", &bytes(encode(&folded).unwrap())).unwrap();
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

    #[test]
    fn every_cut_is_seen_and_types_without_parquet_are_kept() {
        let mut other = change(0, &[(7, 1)], &[2, 5]);
        let interval = DataType::Interval(IntervalUnit::MonthDayNano);
        let schema = Arc::new(Schema::new(vec![Field::new("i", interval, true)]));
        let values = IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(1, 2, 3)]);
        other.appended[0].1 = RecordBatch::try_new(schema, vec![Arc::new(values)]).unwrap();
        let content = bytes(encode(&[other.clone(), change(1, &[(0, 20)], &[])]).unwrap());
        let back = decode("f", &content).unwrap();
        assert_eq!(back[0].appended[0].1, other.appended[0].1);
        assert_eq!(back[0].deleted, [2, 5]);
        for length in 0..content.len() {
            assert!(decode("f", &content.slice(..length)).is_err(), "{length}");
        }
        let mut newer = content.to_vec();
        let end = newer.len() - 1;
        (newer[7], newer[end]) = (b'2', b'2');
        assert_eq!(decode("f", &newer.into()).unwrap_err().sqlstate().0, "0A000");
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
