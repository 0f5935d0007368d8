//! A running statement: how it ends early.
//!
//! 1. Every statement gets a token and, by `statement_timeout`, a deadline.
//! 2. [`Running::wait`] stands around everything that may take long; it ends with SQLSTATE 57014
//!    when the token is cancelled or the deadline passes. Dropping what was waited for undoes it.
//! 3. Rows keep the token after `execute` has returned: [`guard_rows`] looks at it between
//!    batches, and makes a portal that is read on the running statement again.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::array::RecordBatch;
use futures::{FutureExt, Stream};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::coordinator::command::RowStream;
use crate::types::error::{Error, Result, SqlState};

/// Which statement of a connection a cancel request is for.
#[derive(Clone, Default)]
pub(super) struct CancelState {
    current: Arc<Mutex<Option<CancellationToken>>>,
}

impl CancelState {
    fn set(&self, token: Option<CancellationToken>) {
        // A token is whole at any time, so a panic elsewhere cannot have broken it.
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = token;
    }

    /// Starts a statement.
    pub fn start(&self, limits: Limits) -> Running {
        let running = Running {
            token: CancellationToken::new(),
            deadline: limits.statement.map(|t| Instant::now() + t),
            lock_timeout: limits.lock,
            cancel: self.clone(),
        };
        self.set(Some(running.token.clone()));
        running
    }

    /// Nothing runs: a cancel request that comes late does not hit the next statement.
    pub fn idle(&self) {
        self.set(None);
    }

    pub fn cancel(&self) {
        if let Some(token) = &*self.current.lock().unwrap_or_else(PoisonError::into_inner) {
            token.cancel();
        }
    }
}

/// How long a statement may take; `None` is for ever.
#[derive(Clone, Copy, Default)]
pub(super) struct Limits {
    /// `statement_timeout`
    pub statement: Option<Duration>,
    /// `lock_timeout`: each wait for tables that others write.
    pub lock: Option<Duration>,
}

/// One statement while it runs. Clones are the same statement.
#[derive(Clone)]
pub(super) struct Running {
    token: CancellationToken,
    deadline: Option<Instant>,
    lock_timeout: Option<Duration>,
    cancel: CancelState,
}

impl Running {
    /// Waits for `future` unless the statement is cancelled or too late.
    pub async fn wait<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.token.cancelled() => Err(cancelled()),
            () = sleep_until(self.deadline) => Err(timed_out()),
            result = future => result,
        }
    }

    /// As [`Running::wait`], for a lock: ends with SQLSTATE 55P03 after `lock_timeout`.
    pub async fn wait_for_lock<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        match self.lock_timeout {
            None => self.wait(future).await,
            Some(limit) => match tokio::time::timeout(limit, self.wait(future)).await {
                Ok(result) => result,
                Err(_) => Err(lock_timed_out()),
            },
        }
    }

    /// Whether waits for locks have a limit of the session's own.
    pub fn limits_locks(&self) -> bool {
        self.lock_timeout.is_some()
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn cancelled() -> Error {
    Error::user(SqlState::QUERY_CANCELED, "canceling statement due to user request")
}

fn timed_out() -> Error {
    Error::user(SqlState::QUERY_CANCELED, "canceling statement due to statement timeout")
}

/// SQLSTATE 55P03.
pub(super) fn lock_timed_out() -> Error {
    Error::user(SqlState::LOCK_NOT_AVAILABLE, "canceling statement due to lock timeout")
        .hint("Another transaction writes the same table; try again when it has ended.")
        .retryable()
}

/// `rows` until the statement is cancelled or too late; then one error, then the end.
pub(super) fn guard_rows(rows: RowStream, running: Running) -> RowStream {
    let cancelled = Box::pin(running.token.clone().cancelled_owned());
    let deadline = running.deadline.map(|d| Box::pin(tokio::time::sleep_until(d)));
    Box::pin(GuardedRows { rows: Some(rows), running, cancelled, deadline })
}

struct GuardedRows {
    /// `None` after the end or an error: the query's resources are free by then.
    rows: Option<RowStream>,
    running: Running,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Stream for GuardedRows {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(rows) = &mut this.rows else { return Poll::Ready(None) };
        this.running.cancel.set(Some(this.running.token.clone()));
        let stop = if this.cancelled.poll_unpin(cx).is_ready() {
            Some(cancelled())
        } else if this.deadline.as_mut().is_some_and(|d| d.poll_unpin(cx).is_ready()) {
            Some(timed_out())
        } else {
            None
        };
        if let Some(error) = stop {
            this.rows = None;
            return Poll::Ready(Some(Err(error)));
        }
        let next = rows.as_mut().poll_next(cx);
        if matches!(next, Poll::Ready(None | Some(Err(_)))) {
            this.rows = None;
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_cancelled_or_late_wait_ends_with_57014() {
        let state = CancelState::default();
        let running = state.start(Limits::default());
        state.cancel();
        let error = running.wait(std::future::pending::<Result<()>>()).await.expect_err("ends");
        assert_eq!(error.sqlstate(), SqlState::QUERY_CANCELED);
        assert_eq!(error.message(), "canceling statement due to user request");

        let brief = Some(Duration::from_millis(5));
        let running = state.start(Limits { statement: brief, lock: None });
        let error = running.wait(std::future::pending::<Result<()>>()).await.expect_err("ends");
        assert_eq!(error.message(), "canceling statement due to statement timeout");

        let running = state.start(Limits { statement: None, lock: brief });
        let wait = running.wait_for_lock(std::future::pending::<Result<()>>());
        assert_eq!(wait.await.expect_err("ends").sqlstate(), SqlState::LOCK_NOT_AVAILABLE);
    }

    #[tokio::test]
    async fn a_cancel_hits_the_rows_that_are_read_and_nothing_when_idle() {
        let state = CancelState::default();
        let first = state.start(Limits::default());
        let mut rows = guard_rows(Box::pin(futures::stream::pending()), first);
        // Another statement ran meanwhile and has ended.
        state.start(Limits::default());
        state.idle();
        state.cancel();
        assert!(rows.next().now_or_never().is_none(), "still waiting for rows");
        state.cancel();
        let error = rows.next().await.expect("an item").expect_err("cancelled");
        assert_eq!(error.sqlstate(), SqlState::QUERY_CANCELED);
        assert!(rows.next().await.is_none());
    }
}
