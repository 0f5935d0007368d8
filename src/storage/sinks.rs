//! What sinks have to write out, staged with the checkpoint: phase one of their commit.
//!
//! 1. A checkpoint takes the changes that have come to a sink since the one before, adds equal
//!    rows up, and stores them as a file that its manifest names. From then on they are as durable
//!    as the state that they came from, and that state never gives them again.
//! 2. Files gather in the sink's open group until the group is sealed: at once, or when it is old
//!    or large enough (`commit_interval`, `commit_rows`). The manifest that seals it gives it its
//!    [`BatchId`]: from then on the batch is the same rows under the same name, whatever happens.
//! 3. A sealed batch goes to the target (`connectors::sink`), as often as it takes. The next
//!    manifest after that leaves it out.
//!
//! After a crash the manifest says which batches may not have been written out; the target knows
//! by their names which of them it has. What was not staged comes again from the state.
//!
//! Where the state cannot be taken up, and what the sink reads is computed again, the rows that it
//! had given so far are *owed*: they are stored as deletions until the first checkpoint that the
//! sink is part of again. There they join the rows that have been computed, and what is left of
//! both, the difference, is what the target gets next.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use object_store::PutPayload;
use parquet::basic::{Compression, ZstdLevel};
use serde::{Deserialize, Serialize};

use crate::storage::checksum::crc32_of;
use crate::storage::manifest::FileRef;
use crate::storage::paths;
use crate::storage::rows::{split_weights, with_weights};
use crate::storage::store::Store;
use crate::storage::table_files::{Format, encode_rows, put_own, read};
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};
use crate::types::id::ObjectId;
use crate::types::time::Epoch;

/// The name of a batch: later batches of a sink have higher ones, and none is ever given twice,
/// also when a server goes back to an older state.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct BatchId {
    /// Of the server that sealed it.
    pub generation: u64,
    /// Of the checkpoint that sealed it.
    pub epoch: u64,
}

/// A sealed batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedBatch {
    pub id: BatchId,
    /// Changes, in order.
    pub files: Vec<FileRef>,
}

/// What is durable of one sink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkState {
    /// The newest batch that the target is known to have.
    pub committed: Option<BatchId>,
    /// Sealed batches that it may not have, oldest first.
    pub batches: Vec<StagedBatch>,
    /// Files of the group that is not sealed.
    pub open: Vec<FileRef>,
    /// Deletions of the rows that it has given, of a sink that is being computed again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owed: Option<Vec<FileRef>>,
    /// Rows and bytes that the target had got with `committed`.
    pub rows: u64,
    pub bytes: u64,
}

impl SinkState {
    /// All its files.
    pub fn files(&self) -> impl Iterator<Item = &FileRef> {
        let staged = self.batches.iter().flat_map(|batch| &batch.files);
        staged.chain(&self.open).chain(self.owed.iter().flatten())
    }

    /// The same, to give them other names.
    pub fn files_mut(&mut self) -> impl Iterator<Item = &mut FileRef> {
        let staged = self.batches.iter_mut().flat_map(|batch| &mut batch.files);
        staged.chain(&mut self.open).chain(self.owed.iter_mut().flatten())
    }
}

/// What a cut says of the rows that a sink owes.
#[derive(Clone)]
pub enum Owed {
    /// There are none any more.
    None,
    /// As in the last cut.
    Unchanged,
    /// These deletions.
    New(Vec<ChangeBatch>),
}

/// One sink in a cut.
#[derive(Clone)]
pub struct SinkCut {
    pub schema: SchemaRef,
    /// What has come since the last cut.
    pub changes: Vec<ChangeBatch>,
    /// Whether the group is sealed with it.
    pub seal: bool,
    /// What the target has by now, and rows and bytes of it.
    pub committed: Option<BatchId>,
    pub rows: u64,
    pub bytes: u64,
    pub owed: Owed,
    /// Nothing is kept of the changes themselves: who writes them out has no memory of them.
    pub unstaged: bool,
}

/// Changes of one group with equal rows added up. Inserts alone stay as they came. The same
/// changes always give the same rows in the same order.
///
/// # Errors
/// When they do not have the schema.
pub fn added_up(schema: &SchemaRef, changes: &[ChangeBatch]) -> Result<Vec<ChangeBatch>> {
    if changes.iter().all(ChangeBatch::all_inserts) {
        return Ok(changes.iter().filter(|batch| !batch.is_empty()).cloned().collect());
    }
    let all = ChangeBatch::concat(schema, changes)?.consolidate()?;
    Ok(if all.is_empty() { vec![] } else { vec![all] })
}

/// Writes what a cut has of a sink; its state then, and the file that is new.
///
/// # Errors
/// When the changes cannot be encoded, or the storage fails.
pub(super) async fn write(
    store: &Store,
    sink: ObjectId,
    generation: u64,
    number: u64,
    epoch: Epoch,
    known: Option<&SinkState>,
    cut: &SinkCut,
) -> Result<(SinkState, Option<FileRef>)> {
    let mut state = known.cloned().unwrap_or_default();
    state.committed = state.committed.max(cut.committed);
    state.batches.retain(|batch| Some(batch.id) > state.committed);
    (state.rows, state.bytes) = (cut.rows, cut.bytes);
    let mut new = None;
    let name = |extension: &str| paths::sink_file(sink, generation, number, extension);
    match &cut.owed {
        Owed::None => state.owed = None,
        Owed::Unchanged => {}
        // Nothing else comes from it until they are settled: there is one file of that name.
        Owed::New(changes) => {
            assert!(cut.changes.is_empty(), "what owes has nothing to give yet");
            let file = write_changes(store, &cut.schema, changes, name).await?;
            state.owed = Some(file.into_iter().collect());
        }
    }
    if !cut.changes.is_empty() && !cut.unstaged {
        new = write_changes(store, &cut.schema, &cut.changes, name).await?;
        state.open.extend(new.clone());
    }
    if cut.seal && !state.open.is_empty() {
        let id = BatchId { generation, epoch: epoch.0 };
        state.batches.push(StagedBatch { id, files: std::mem::take(&mut state.open) });
    }
    Ok((state, new))
}

/// The content of a file.
struct Encoded {
    format: Format,
    crc32: u32,
    content: PutPayload,
    rows: u64,
}

/// Writes changes, added up, as a file, if anything is left of them.
async fn write_changes(
    store: &Store,
    schema: &SchemaRef,
    changes: &[ChangeBatch],
    name: impl Fn(&str) -> String,
) -> Result<Option<FileRef>> {
    let (schema, changes) = (schema.clone(), changes.to_vec());
    let encoded = tokio::task::spawn_blocking(move || encode(&schema, &changes)).await;
    let encoded =
        encoded.map_err(|error| Error::internal(format!("a file was not encoded: {error}")))?;
    let Some(Encoded { format, crc32, content, rows }) = encoded? else { return Ok(None) };
    let name = name(format.extension());
    let file = FileRef { name, bytes: content.content_length() as u64, crc32, rows, deleted: 0 };
    put_own(store, &file.name, content).await?;
    Ok(Some(file))
}

fn encode(schema: &SchemaRef, changes: &[ChangeBatch]) -> Result<Option<Encoded>> {
    let changes = added_up(schema, changes)?;
    let Some(first) = changes.first() else { return Ok(None) };
    let schema = with_weights(&first.slice(0, 0))?.schema();
    let format = Format::of(&schema);
    let rows = Box::new(changes.iter().map(with_weights));
    let level = ZstdLevel::try_new(1).expect("zstd has a level 1");
    let (content, rows) = encode_rows(format, Compression::ZSTD(level), &schema, rows)?;
    Ok(Some(Encoded { format, crc32: crc32_of(&content), content, rows }))
}

/// Reads the changes of a staged file back, under the sink's own schema.
///
/// # Errors
/// SQLSTATE XX001 when it is not what was written; others when the storage fails.
pub async fn read_changes(
    store: &Store,
    schema: &SchemaRef,
    file: &FileRef,
) -> Result<Vec<ChangeBatch>> {
    let batches = read(store, file).await?;
    let of_schema = |batch| {
        let changes = split_weights(&batch)?;
        let columns = changes.rows().columns().to_vec();
        let options =
            arrow::array::RecordBatchOptions::new().with_row_count(Some(changes.num_rows()));
        let rows =
            arrow::array::RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?;
        Ok(changes.with_rows(rows))
    };
    batches.into_iter().map(of_schema).collect()
}
