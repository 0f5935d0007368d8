//! Where queries compute: on threads of their own, so that a long one takes neither the threads of
//! the sockets nor the way of a cancel request.
//!
//! 1. A query that is brief for sure runs where it was asked: a hop to another thread would cost
//!    more than it.
//! 2. Any other one is a task of the batch threads, which hands its batches over through a short
//!    queue: it never works far ahead of its client.
//! 3. Dropping the rows aborts the task: at once for whoever asked, and for the threads as soon as
//!    the query gives way (`sql::query::BatchRun::start`), or a join of it that makes no rows looks
//!    at its flag (`sql::interrupt`).

use std::pin::Pin;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use futures::{FutureExt, Stream, StreamExt};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::coordinator::command::RowStream;
use crate::observe::process;
use crate::sql::interrupt::StopFlag;
use crate::sql::query::BatchRun;
use crate::sql::query_memory::QueryEnvironment;
use crate::types::error::{Error, Result, SqlState};

/// Batches between a query and its client.
const QUEUE_BATCHES: usize = 2;

/// The batch threads of one server.
pub(super) struct BatchThreads {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    environment: QueryEnvironment,
}

impl BatchThreads {
    /// As many threads as there are cores, for queries that run in this environment.
    ///
    /// # Errors
    /// When threads cannot be started.
    pub fn start(environment: QueryEnvironment) -> Result<BatchThreads> {
        let runtime =
            Builder::new_multi_thread().thread_name("batch").enable_time().build().map_err(
                |error| Error::from(error).context("threads for queries cannot be started"),
            )?;
        Ok(BatchThreads { runtime: Some(runtime), environment })
    }

    /// The rows of a query, computed while they are read.
    pub fn rows(&self, run: BatchRun) -> Result<RowStream> {
        let Some(runtime) = self.runtime.as_ref().filter(|_| !run.is_brief()) else {
            return run.start_in(&self.environment);
        };
        let (batches, queue) = mpsc::channel(QUEUE_BATCHES);
        let stop = run.stop_flag();
        self.environment.note_running(&stop);
        let environment = self.environment.clone();
        let task = runtime.spawn(async move {
            let mut rows = match run.start_in(&environment) {
                Ok(rows) => rows,
                Err(error) => futures::stream::iter([Err(error)]).boxed(),
            };
            while let Some(batch) = rows.next().await {
                if batches.send(batch).await.is_err() {
                    break;
                }
            }
            drop(rows);
            if environment.is_memory_short() {
                process::give_back_memory();
            }
        });
        Ok(Box::pin(QueuedRows { queue, task: Some(task), stop }))
    }
}

impl Drop for BatchThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Whoever drops it may be a task itself, which must not wait.
            runtime.shutdown_background();
        }
    }
}

/// The reading end of a query on the batch threads.
struct QueuedRows {
    queue: mpsc::Receiver<Result<RecordBatch>>,
    /// `None` once it has ended.
    task: Option<JoinHandle<()>>,
    stop: StopFlag,
}

impl Stream for QueuedRows {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.task.is_some() && self.stop.is_out_of_memory(cx.waker()) {
            self.task.take().inspect(JoinHandle::abort);
            return Poll::Ready(Some(Err(out_of_memory())));
        }
        match self.queue.poll_recv(cx) {
            Poll::Ready(None) => {}
            other => return other,
        }
        // The queue also ends when the task does not come to its own end.
        let Some(task) = &mut self.task else { return Poll::Ready(None) };
        let ended = std::task::ready!(task.poll_unpin(cx));
        self.task = None;
        Poll::Ready(ended.err().map(|error| {
            let why = if error.is_panic() { "panicked" } else { "was dropped" };
            Err(Error::internal(format!("the query {why}")))
        }))
    }
}

fn out_of_memory() -> Error {
    Error::external(SqlState::OUT_OF_MEMORY, "memory was used up while the query ran")
        .detail("It was given up, so that others could go on.")
        .hint("Let it do less at once, or start the server with a higher --memory-limit.")
}

impl Drop for QueuedRows {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            self.stop.stop();
            task.abort();
        }
    }
}
