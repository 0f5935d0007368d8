//! Files in a directory or in object storage, each written whole and never changed.
//!
//! 1. A batch is cut into files: by the values of `partition_by` (a folder for each, as in Hive),
//!    and where a file would have more than `file_rows` rows or `file_bytes` bytes.
//! 2. A file's name has the sink's identity, the batch and its number in the batch, so the same
//!    batch always makes the same files, and no other makes one of these names.
//! 3. A file appears under its name when all of it is there: in a directory its bytes go to the
//!    disk under another name first; an object is put whole. What is there already is left as it
//!    is: then the batch comes again after a crash.
//!
//! So whoever reads the folder sees whole files of durable batches only. Files of one batch appear
//! one after the other.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{self, SortColumn};
use arrow::datatypes::{DataType, Field, Schema};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};

use crate::connectors::options::{Connector, OptionSpec, Options};
use crate::connectors::sink::encode::{FileFormat, Packing, encode, packed, text_of};
use crate::connectors::sink::{
    Batch, Committed, SinkConnector, SinkInput, Target, columns_named, key_columns, rows_of,
    types_of,
};
use crate::functions::scalar::json::JsonRows;
use crate::storage::remote;
use crate::storage::sinks::BatchId;
use crate::storage::store::{Put, Store};
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::SqlType;

/// The connector's entry in the list.
pub const CONNECTOR: SinkConnector = SinkConnector {
    connector: Connector {
        name: "file",
        doc: "Files of JSON lines, csv or parquet, in a directory or in object storage.",
        options: &[
            OptionSpec::required(
                "path",
                &[],
                "text",
                "a directory of the server's machine, or s3://, gs:// or az:// with a prefix",
            ),
            OptionSpec::optional(
                "format",
                &[],
                "ndjson | csv | parquet",
                "ndjson",
                "how the files are written",
            ),
            OptionSpec::optional(
                "envelope",
                &[],
                "plain | changelog | debezium",
                "plain",
                "`plain`: rows, of input that only grows; `changelog`: every change with columns \
                 `op` and `epoch` before it; `debezium`: {\"before\", \"after\", \"op\", \"ts_ms\"}",
            ),
            OptionSpec::optional(
                "force_append_only",
                &[],
                "boolean",
                "false",
                "write the rows that come, and forget that others go",
            ),
            OptionSpec::optional(
                "primary_key",
                &["key"],
                "columns",
                "",
                "what tells an update from a deletion and an insertion, for `debezium`",
            ),
            OptionSpec::optional(
                "partition_by",
                &[],
                "columns",
                "",
                "a folder for each value: column=value/; the columns are not in the files",
            ),
            OptionSpec::optional(
                "compression",
                &[],
                "none | gz | zstd",
                "",
                "by default none, and zstd in parquet files",
            ),
            OptionSpec::optional(
                "csv.header",
                &[],
                "boolean",
                "true",
                "the first record has names",
            ),
            OptionSpec::optional(
                "file_rows",
                &[],
                "integer",
                "1000000",
                "a file has at most so many rows",
            ),
            OptionSpec::optional(
                "file_bytes",
                &[],
                "integer",
                "134217728",
                "and rows of at most so many bytes in memory",
            ),
        ],
        open_prefixes: &[],
        source: None,
    },
    open,
    forgets: false,
};

/// Files of a batch that are written at the same time.
const WRITES_MAX: usize = 4;
/// The name of a folder for rows without a value, as Hive has it.
const NO_VALUE: &str = "__HIVE_DEFAULT_PARTITION__";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Envelope {
    Plain,
    Changelog,
    Debezium,
}

/// How rows become files.
#[derive(Clone)]
struct Layout {
    identity: String,
    types: Vec<SqlType>,
    format: FileFormat,
    packing: Packing,
    envelope: Envelope,
    /// Columns that tell rows apart.
    key: Option<Vec<usize>>,
    /// Columns whose values make folders, and the others.
    partition_by: Vec<usize>,
    kept: Vec<usize>,
    file_rows: usize,
    file_bytes: usize,
}

struct Files {
    path: String,
    layout: Arc<Layout>,
    /// `None` until it is needed.
    store: Option<Store>,
}

fn open(options: &Options, input: &SinkInput) -> Result<Box<dyn Target>> {
    let types = types_of(&input.schema)?;
    let formats = ["ndjson", "json", "csv", "parquet"];
    let format = match options.one_of("format", &formats)?.unwrap_or("ndjson") {
        "csv" => FileFormat::Csv { header: options.boolean("csv.header")?.unwrap_or(true) },
        "parquet" => FileFormat::Parquet,
        _ => FileFormat::Ndjson,
    };
    let packings = ["none", "gz", "gzip", "zstd"];
    let packing = match (options.one_of("compression", &packings)?, format) {
        (Some("gz" | "gzip"), _) => Packing::Gzip,
        (Some("zstd"), _) | (None, FileFormat::Parquet) => Packing::Zstd,
        _ => Packing::None,
    };
    let envelopes = ["plain", "changelog", "debezium"];
    let envelope = match options.one_of("envelope", &envelopes)?.unwrap_or("plain") {
        "changelog" => Envelope::Changelog,
        "debezium" => Envelope::Debezium,
        _ => Envelope::Plain,
    };
    if envelope == Envelope::Debezium && format != FileFormat::Ndjson {
        return Err(Error::unsupported("envelope \"debezium\" in another format than ndjson")
            .hint("Use format = 'ndjson', or envelope = 'changelog'."));
    }
    let forced = options.boolean("force_append_only")?.unwrap_or(false);
    if envelope == Envelope::Plain && !input.append_only && !forced {
        return Err(Error::unsupported("writing changing rows to plain files")
            .detail("Rows of the query may change or go, and a file has no way to say so.")
            .hint(
                "Use envelope = 'changelog' to write every change, force_append_only = true to \
                 forget those that go, or EMIT ON WINDOW CLOSE to write final rows.",
            ));
    }
    let partition_by = match options.get("partition_by") {
        Some(text) => columns_named(text, "partition_by", input)?,
        None => Vec::new(),
    };
    let kept: Vec<usize> =
        (0..types.len()).filter(|column| !partition_by.contains(column)).collect();
    if kept.is_empty() {
        return Err(Error::user(
            SqlState::INVALID_PARAMETER_VALUE,
            "option \"partition_by\" leaves no column for the files",
        ));
    }
    let whole = |name: &str| -> Result<usize> {
        let number = options.whole(name, 1, u64::from(u32::MAX))?;
        Ok(usize::try_from(number.unwrap_or(u64::from(u32::MAX))).unwrap_or(usize::MAX))
    };
    let layout = Layout {
        identity: input.identity.chars().filter(char::is_ascii_alphanumeric).take(12).collect(),
        types,
        format,
        packing,
        envelope,
        key: key_columns(options, "primary_key", input)?,
        partition_by,
        kept,
        file_rows: whole("file_rows")?,
        file_bytes: whole("file_bytes")?,
    };
    let path = options.required("path")?.to_owned();
    if path.trim().is_empty() {
        return Err(Error::user(SqlState::INVALID_PARAMETER_VALUE, "option \"path\" is empty"));
    }
    Ok(Box::new(Files { path, layout: Arc::new(layout), store: None }))
}

/// One file: its name below the sink's path, its content and rows.
struct Made {
    name: Vec<String>,
    content: Bytes,
    rows: u64,
}

impl Files {
    fn store(&mut self) -> Result<&Store> {
        if self.store.is_none() {
            self.store = Some(match local_path(&self.path) {
                Some(directory) => Store::target_directory(Path::new(directory))?,
                None => remote::open(&self.path)?,
            });
        }
        self.store.as_ref().ok_or_else(|| Error::internal("it has been opened"))
    }
}

/// The directory that a path means; `None`: a bucket.
fn local_path(path: &str) -> Option<&str> {
    match path.split_once("://") {
        None => Some(path),
        Some(("file", directory)) => Some(directory),
        Some(_) => None,
    }
}

#[async_trait]
impl Target for Files {
    async fn prepare(&mut self) -> Result<()> {
        // Makes the directory, and finds out whether it can be written to.
        let store = self.store()?.clone();
        if local_path(&self.path).is_none() {
            return store.list("").await.map(drop);
        }
        let probe = [format!("millstream-probe-{}", uuid::Uuid::new_v4())];
        store.put_new_at(&probe, Bytes::new()).await?;
        store.delete_at(&probe).await
    }

    async fn commit(&mut self, batch: &Batch<'_>) -> Result<Committed> {
        let store = self.store()?.clone();
        let (layout, id, time_us) = (self.layout.clone(), batch.id, batch.time_us);
        let changes = batch.changes.to_vec();
        let made = tokio::task::spawn_blocking(move || layout.files(id, time_us, &changes));
        let made =
            made.await.map_err(|error| Error::internal(format!("files were not made: {error}")))?;
        let writes = made?.into_iter().map(|file| {
            let store = store.clone();
            async move {
                let bytes = file.content.len() as u64;
                match store.put_new_at(&file.name, file.content).await? {
                    // It was written before a crash, perhaps by another version of the program.
                    Put::Written | Put::Taken(_) => Ok(Committed { rows: file.rows, bytes }),
                }
            }
        });
        let written = futures::stream::iter(writes).buffer_unordered(WRITES_MAX);
        let add = |sum: Committed, one: Committed| async move {
            let (rows, bytes) = (sum.rows + one.rows, sum.bytes + one.bytes);
            Ok::<_, Error>(Committed { rows, bytes })
        };
        written.try_fold(Committed::default(), add).await
    }

    async fn abort(&mut self) -> Result<()> {
        let Some(directory) = local_path(&self.path) else { return Ok(()) };
        let (directory, prefix) = (directory.to_owned(), self.layout.prefix());
        let removed =
            tokio::task::spawn_blocking(move || remove_unfinished(Path::new(&directory), &prefix));
        match removed.await {
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Ok(result) => Ok(result?),
            Err(error) => Err(Error::internal(format!("files were not removed: {error}"))),
        }
    }
}

/// Removes what a killed server has left: `prefix...#7`.
fn remove_unfinished(directory: &Path, prefix: &str) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            // Only folders that it makes.
            if name.contains('=') {
                remove_unfinished(&entry.path(), prefix)?;
            }
        } else if name.starts_with(prefix)
            && name.rsplit_once('#').is_some_and(|(_, number)| number.parse::<u64>().is_ok())
        {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

impl Layout {
    /// What the names of its files begin with.
    fn prefix(&self) -> String {
        format!("part-{}-", self.identity)
    }

    /// The files of a batch, always the same for the same changes.
    fn files(&self, id: BatchId, time_us: i64, changes: &[ChangeBatch]) -> Result<Vec<Made>> {
        let mut files = Vec::new();
        for (folders, rows) in self.partitions(changes)? {
            for part in self.cut(rows) {
                let number = files.len();
                let mut name = folders.clone();
                name.push(format!(
                    "{}{:06}-{:012}-{number:04}.{}",
                    self.prefix(),
                    id.generation,
                    id.epoch,
                    self.format.extension(self.packing)
                ));
                let rows = part.iter().map(|change| change.num_rows() as u64).sum();
                let content = self.content(id, time_us, &part)?;
                files.push(Made { name, content, rows });
            }
        }
        Ok(files)
    }

    /// The changes as they go into files: with the weights that the envelope needs.
    fn relevant(&self, changes: &[ChangeBatch]) -> Result<Vec<ChangeBatch>> {
        let of = |came: bool| -> Result<Vec<ChangeBatch>> {
            let rows = rows_of(changes, came)?.into_iter();
            Ok(rows
                .map(|rows| match came {
                    true => ChangeBatch::inserts(rows),
                    false => ChangeBatch::deletes(rows),
                })
                .collect())
        };
        let mut all = match self.envelope {
            Envelope::Plain => Vec::new(),
            // Who applies them in order never has a key twice.
            Envelope::Changelog | Envelope::Debezium => of(false)?,
        };
        all.extend(of(true)?);
        Ok(all)
    }

    /// The changes by folder.
    fn partitions(&self, changes: &[ChangeBatch]) -> Result<Vec<(Vec<String>, Vec<ChangeBatch>)>> {
        let changes = self.relevant(changes)?;
        let Some(first) = changes.first() else { return Ok(Vec::new()) };
        if self.partition_by.is_empty() {
            return Ok(vec![(Vec::new(), changes)]);
        }
        let all = ChangeBatch::concat(&first.schema(), &changes)?;
        let texts = self.partition_by.iter().map(|column| {
            text_of(all.column(*column), &self.types[*column]).map(|t| Arc::new(t) as ArrayRef)
        });
        let texts = texts.collect::<Result<Vec<ArrayRef>>>()?;
        // By value, and in the order in which they came.
        let places: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..all.num_rows() as u32));
        let sort = texts.iter().chain([&places]);
        let sort: Vec<SortColumn> =
            sort.map(|values| SortColumn { values: values.clone(), options: None }).collect();
        let order = compute::lexsort_to_indices(&sort, None)?;
        let sorted = texts.iter().map(|text| compute::take(text, &order, None));
        let sorted = sorted.collect::<std::result::Result<Vec<ArrayRef>, _>>()?;
        let all = all.take(&order)?;
        let schema = first.schema();
        let folder = |row: usize| -> Vec<String> {
            let texts = self.partition_by.iter().zip(&sorted);
            texts
                .map(|(column, values)| {
                    let values = arrow::array::AsArray::as_string::<i32>(values);
                    let value = if values.is_null(row) { NO_VALUE } else { values.value(row) };
                    format!("{}={value}", schema.field(*column).name())
                })
                .collect()
        };
        let ranges = compute::partition(&sorted)?.ranges();
        let part = |range: std::ops::Range<usize>| {
            (folder(range.start), vec![all.slice(range.start, range.len())])
        };
        Ok(ranges.into_iter().map(part).collect())
    }

    /// Cuts rows into pieces for one file each.
    fn cut(&self, changes: Vec<ChangeBatch>) -> Vec<Vec<ChangeBatch>> {
        let mut files: Vec<Vec<ChangeBatch>> = Vec::new();
        let (mut rows, mut bytes) = (0, 0);
        for batch in changes {
            let row_bytes = (batch.size_bytes() / batch.num_rows().max(1)).max(1);
            let rows_max = self.file_rows.min((self.file_bytes / row_bytes).max(1));
            let mut offset = 0;
            while offset < batch.num_rows() {
                let room = rows_max.saturating_sub(rows);
                let full = room == 0 || bytes >= self.file_bytes;
                if files.is_empty() || full {
                    files.push(Vec::new());
                    (rows, bytes) = (0, 0);
                    if full {
                        continue;
                    }
                }
                let length = room.min(batch.num_rows() - offset);
                if let Some(file) = files.last_mut() {
                    file.push(batch.slice(offset, length));
                }
                offset += length;
                rows += length;
                bytes += length * row_bytes;
            }
        }
        files
    }

    /// The bytes of one file.
    fn content(&self, id: BatchId, time_us: i64, part: &[ChangeBatch]) -> Result<Bytes> {
        let types: Vec<SqlType> = self.kept.iter().map(|c| self.types[*c].clone()).collect();
        let kept = |change: &ChangeBatch| change.rows().project(&self.kept);
        match self.envelope {
            Envelope::Plain => {
                let rows = part.iter().map(kept).collect::<std::result::Result<Vec<_>, _>>()?;
                encode(&rows, &types, self.format, self.packing)
            }
            Envelope::Changelog => {
                let rows = part.iter().map(|change| with_op(change, &kept(change)?, id));
                let rows = rows.collect::<Result<Vec<_>>>()?;
                let types = [SqlType::Text, SqlType::Int8].into_iter().chain(types);
                encode(&rows, &types.collect::<Vec<_>>(), self.format, self.packing)
            }
            Envelope::Debezium => {
                let text = self.debezium(time_us, part, &types)?;
                packed(text.freeze(), self.packing)
            }
        }
    }

    /// Changes as Debezium writes them; an update where a row of the same key goes and comes.
    fn debezium(&self, time_us: i64, part: &[ChangeBatch], types: &[SqlType]) -> Result<BytesMut> {
        let mut out = BytesMut::new();
        let Some(first) = part.first() else { return Ok(out) };
        let all = ChangeBatch::concat(&first.schema(), part)?;
        let rows = JsonRows::new(&all.rows().project(&self.kept)?, types)?;
        let weights = all.weights_vec();
        let before = self.updated(&all, &weights)?;
        let taken: std::collections::HashSet<usize> = before.iter().flatten().copied().collect();
        for (row, weight) in weights.iter().enumerate() {
            if taken.contains(&row) {
                continue;
            }
            let (old, new) = match (*weight < 0, before[row]) {
                (true, _) => (Some(row), None),
                (false, old) => (old, Some(row)),
            };
            for (label, place) in [(&b"{\"before\":"[..], old), (&b",\"after\":"[..], new)] {
                out.extend_from_slice(label);
                match place {
                    Some(place) => rows.write(place, &mut out),
                    None => out.extend_from_slice(b"null"),
                }
            }
            let op = match (old, new) {
                (Some(_), Some(_)) => "u",
                (Some(_), None) => "d",
                _ => "c",
            };
            let tail = format!(",\"op\":\"{op}\",\"ts_ms\":{}}}\n", time_us.div_euclid(1000));
            out.extend_from_slice(tail.as_bytes());
        }
        Ok(out)
    }

    /// For each row that comes: the row of the same key that goes, if there is one.
    fn updated(&self, all: &ChangeBatch, weights: &[i64]) -> Result<Vec<Option<usize>>> {
        let mut before = vec![None; all.num_rows()];
        let Some(key) = &self.key else { return Ok(before) };
        let columns = all.columns_at(key);
        let converter = arrow::row::RowConverter::new(
            columns.iter().map(|c| arrow::row::SortField::new(c.data_type().clone())).collect(),
        )?;
        let keys = converter.convert_columns(&columns)?;
        let mut gone = std::collections::HashMap::new();
        for (row, weight) in weights.iter().enumerate() {
            if *weight < 0 {
                gone.insert(keys.row(row), row);
            }
        }
        for (row, weight) in weights.iter().enumerate() {
            if *weight > 0 {
                before[row] = gone.remove(&keys.row(row));
            }
        }
        Ok(before)
    }
}

/// The rows behind what happens to them, and in which batch.
fn with_op(change: &ChangeBatch, rows: &RecordBatch, id: BatchId) -> Result<RecordBatch> {
    let op = |weight: i64| if weight > 0 { "insert" } else { "delete" };
    let ops = StringArray::from_iter_values(change.weights_vec().into_iter().map(op));
    let epoch = i64::try_from(id.epoch).unwrap_or(i64::MAX);
    let epochs = Int64Array::from(vec![epoch; rows.num_rows()]);
    let schema = rows.schema();
    let mut fields = vec![
        Arc::new(Field::new("op", DataType::Utf8, false)),
        Arc::new(Field::new("epoch", DataType::Int64, false)),
    ];
    fields.extend(schema.fields().iter().cloned());
    let mut columns: Vec<ArrayRef> = vec![Arc::new(ops), Arc::new(epochs)];
    columns.extend(rows.columns().iter().cloned());
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

#[cfg(test)]
mod tests;
