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

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use object_store::PutPayload;
use parquet::basic::Compression;
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
    /// Rows and bytes that the target had got with `committed`.
    pub rows: u64,
    pub bytes: u64,
}

impl SinkState {
    /// All its files.
    pub fn files(&self) -> impl Iterator<Item = &FileRef> {
        self.batches.iter().flat_map(|batch| &batch.files).chain(&self.open)
    }
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
    if !cut.changes.is_empty() && !cut.unstaged {
        let cut = cut.clone();
        let encoded = tokio::task::spawn_blocking(move || encode(&cut)).await;
        let encoded =
            encoded.map_err(|error| Error::internal(format!("a file was not encoded: {error}")))?;
        if let Some((format, content, rows)) = encoded? {
            let name = paths::sink_file(sink, generation, number, format.extension());
            let (bytes, crc32) = (content.content_length() as u64, crc32_of(&content));
            let file = FileRef { name, bytes, crc32, rows, deleted: 0 };
            put_own(store, &file.name, content).await?;
            state.open.push(file.clone());
            new = Some(file);
        }
    }
    if cut.seal && !state.open.is_empty() {
        let id = BatchId { generation, epoch: epoch.0 };
        state.batches.push(StagedBatch { id, files: std::mem::take(&mut state.open) });
    }
    Ok((state, new))
}

fn encode(cut: &SinkCut) -> Result<Option<(Format, PutPayload, u64)>> {
    let changes = added_up(&cut.schema, &cut.changes)?;
    let Some(first) = changes.first() else { return Ok(None) };
    let schema = with_weights(&first.slice(0, 0))?.schema();
    let format = Format::of(&schema);
    let rows = Box::new(changes.iter().map(with_weights));
    let (content, rows) = encode_rows(format, Compression::LZ4_RAW, &schema, rows)?;
    Ok(Some((format, content, rows)))
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
