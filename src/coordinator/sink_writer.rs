//! Writes the sealed batches of one sink out, one after the other: phase two of their commit.
//!
//! ```text
//!            batch                       target says no
//!  waiting ---------> committing <----------------------------> pausing: 0.1 s, 0.2 s ... 30 s
//!     ^                   |
//!     +--- target has it -+
//! ```
//!
//! A batch that cannot be written is tried again for ever; later ones wait behind it, and nobody
//! else does. What waits is held in memory up to a bound, and beyond that read from the storage
//! when its turn comes, so a target that is away costs storage and nothing else.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use tokio::sync::{mpsc, watch};

use crate::connectors::sink::{Batch, Committed, Target};
use crate::observe::clock::Clock;
use crate::storage::manifest::FileRef;
use crate::storage::sinks::{BatchId, added_up, read_changes};
use crate::storage::store::Store;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};
use crate::types::time::EventTime;

/// The first and the longest pause before a batch is tried again.
const RETRY_MIN: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 100 });
const RETRY_MAX: Duration = Duration::from_millis(if cfg!(test) { 8 } else { 30_000 });
/// Bytes of changes that wait for one sink in memory.
const MEMORY_BYTES_MAX: usize = 64 << 20;

/// Changes of one checkpoint.
pub(super) struct Part {
    pub rows: u64,
    pub bytes: u64,
    /// `None`: they have to be read.
    pub changes: Option<Vec<ChangeBatch>>,
    /// `None`: they are nowhere else.
    pub file: Option<FileRef>,
}

impl Part {
    /// What has been staged before a start.
    pub fn stored(file: FileRef) -> Part {
        Part { rows: file.rows, bytes: file.bytes, changes: None, file: Some(file) }
    }
}

/// A sealed batch.
pub(super) struct SealedBatch {
    pub id: BatchId,
    pub time: EventTime,
    pub parts: Vec<Part>,
}

/// Where a sink stands, for whoever looks.
#[derive(Clone, Debug, Default)]
pub struct SinkStatus {
    /// The newest batch that the target has.
    pub committed: Option<BatchId>,
    /// Rows and bytes that it has got.
    pub rows: u64,
    pub bytes: u64,
    pub last_commit: Option<EventTime>,
    /// Sealed batches that it does not have, with their rows and bytes.
    pub pending_batches: u64,
    pub pending_rows: u64,
    pub pending_bytes: u64,
    /// The last failure, and when it was.
    pub last_error: Option<(EventTime, Error)>,
    /// The target has taken nothing since that failure.
    pub failing: bool,
    /// Of what waits in memory.
    pub(super) memory_bytes: usize,
}

/// The coordinator's end: the queue to the task, which ends with it.
pub(super) struct SinkWriter {
    queue: mpsc::UnboundedSender<SealedBatch>,
    status: Arc<watch::Sender<SinkStatus>>,
    task: tokio::task::JoinHandle<()>,
}

/// What the task works with.
pub(super) struct WriterStart {
    pub name: String,
    pub schema: SchemaRef,
    pub target: Box<dyn Target>,
    /// Where batches are that are not in memory.
    pub store: Option<Store>,
    pub clock: Clock,
    pub status: SinkStatus,
    /// Told when the target has a batch.
    pub on_commit: Box<dyn Fn() + Send>,
}

impl SinkWriter {
    pub fn start(runtime: &tokio::runtime::Handle, start: WriterStart) -> SinkWriter {
        // Few bytes each: see `MEMORY_BYTES_MAX`.
        let (queue, batches) = mpsc::unbounded_channel();
        let status = Arc::new(watch::Sender::new(start.status.clone()));
        let task = runtime.spawn(run(start, batches, status.clone()));
        SinkWriter { queue, status, task }
    }

    pub fn status(&self) -> SinkStatus {
        self.status.borrow().clone()
    }

    /// Follows the status.
    pub fn watch(&self) -> watch::Receiver<SinkStatus> {
        self.status.subscribe()
    }

    /// Whether changes of so many bytes may be held in memory until they are written.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.status.borrow().memory_bytes + bytes <= MEMORY_BYTES_MAX
    }

    pub fn send(&self, batch: SealedBatch) {
        self.status.send_modify(|status| {
            status.pending_batches += 1;
            for part in &batch.parts {
                status.pending_rows += part.rows;
                status.pending_bytes += part.bytes;
                status.memory_bytes += memory_bytes(part);
            }
        });
        // The task ends with the server only.
        let _ = self.queue.send(batch);
    }
}

impl Drop for SinkWriter {
    fn drop(&mut self) {
        // A commit that is under way is taken back or done by whoever has begun it.
        self.task.abort();
    }
}

fn memory_bytes(part: &Part) -> usize {
    part.changes.iter().flatten().map(ChangeBatch::size_bytes).sum()
}

async fn run(
    start: WriterStart,
    mut batches: mpsc::UnboundedReceiver<SealedBatch>,
    status: Arc<watch::Sender<SinkStatus>>,
) {
    let WriterStart { name, schema, mut target, store, clock, on_commit, .. } = start;
    let mut prepared = false;
    while let Some(batch) = batches.recv().await {
        let mut pause = RETRY_MIN;
        let mut complained = false;
        let committed = loop {
            let result = async {
                if !prepared {
                    target.abort().await?;
                    target.prepare().await?;
                    prepared = true;
                }
                commit(target.as_mut(), &schema, store.as_ref(), &batch).await
            };
            match result.await {
                Ok(committed) => break committed,
                Err(error) => {
                    if !complained {
                        tracing::warn!(sink = %name, %error, "cannot write out; trying again");
                        complained = true;
                    }
                    let now = clock.now();
                    status.send_modify(|status| {
                        status.failing = true;
                        status.last_error = Some((now, error));
                    });
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        };
        if complained {
            tracing::info!(sink = %name, "writes out again");
        }
        let now = clock.now();
        status.send_modify(|status| {
            status.failing = false;
            status.committed = Some(batch.id);
            status.rows += committed.rows;
            status.bytes += committed.bytes;
            status.last_commit = Some(now);
            status.pending_batches -= 1;
            for part in &batch.parts {
                status.pending_rows -= part.rows;
                status.pending_bytes -= part.bytes;
                status.memory_bytes -= memory_bytes(part);
            }
        });
        on_commit();
    }
}

async fn commit(
    target: &mut dyn Target,
    schema: &SchemaRef,
    store: Option<&Store>,
    batch: &SealedBatch,
) -> Result<Committed> {
    let mut changes = Vec::new();
    for part in &batch.parts {
        let added = match (&part.changes, &part.file, store) {
            (Some(changes), _, _) => {
                // As they are stored, so that a batch is the same after a crash.
                let (schema, changes) = (schema.clone(), changes.clone());
                let added = tokio::task::spawn_blocking(move || added_up(&schema, &changes));
                added.await.map_err(|error| {
                    Error::internal(format!("changes were not added up: {error}"))
                })??
            }
            (None, Some(file), Some(store)) => read_changes(store, schema, file).await?,
            (None, ..) => return Err(Error::internal("staged changes are nowhere")),
        };
        changes.extend(added);
    }
    if batch.parts.len() > 1 {
        changes = added_up(schema, &changes)?;
    }
    target.commit(&Batch { id: batch.id, time_us: batch.time.0, changes: &changes }).await
}
