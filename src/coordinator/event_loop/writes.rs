//! Writes of tables, in the line of their locks: late rows are diverted, keys checked, the log asked
//! to keep what was done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use crossbeam_channel::Sender;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::State;
use super::creation::dependency_gone;
use super::event_time::Diverted;
use super::handle::stopping;
use super::replay::{Replay, Replayed};
use super::requests::{Reply, Request};
use crate::coordinator::locks::LockId;
use crate::state::spill::EVERYTHING;
use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use crate::types::id::ObjectId;
use crate::types::time::Epoch;

/// One table's part of a write.
#[derive(Debug)]
pub struct TableWrite {
    pub table: ObjectId,
    pub change: WriteChange,
}

/// What a write does to its table. Rows have all columns of the table, in order.
#[derive(Debug)]
pub enum WriteChange {
    /// New rows. A key that exists is handled as `on_conflict` says; a key twice in `rows` too.
    Insert {
        rows: RecordBatch,
        on_conflict: WriteConflict,
    },
    /// Exact rows out (weight -1) and in (+1), as UPDATE and DELETE compute them under the table's
    /// lock. A key that this leaves twice is a unique violation.
    Changes(ChangeBatch),
    Truncate,
    /// Late rows leave their table and are taken in again, as far as time allows.
    Replay(Box<Replay>),
}

impl WriteChange {
    /// Whether the table may have more rows than before.
    pub(super) fn grows(&self) -> bool {
        match self {
            WriteChange::Insert { .. } | WriteChange::Replay(_) => true,
            WriteChange::Changes(changes) => changes.weight_sum() > 0,
            WriteChange::Truncate => false,
        }
    }
}

/// What happens to a new row whose key exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteConflict {
    Error,
    Ignore,
    /// The new row replaces the old.
    Replace,
}

/// What a write did.
#[derive(Debug)]
pub struct WriteOutcome {
    pub epoch: Epoch,
    /// Rows inserted (or changed, for `Changes`: the larger of rows in and rows out), per write.
    pub counts: Vec<u64>,
    /// Rows that went in, per write: what RETURNING of an INSERT shows.
    pub inserted: Vec<RecordBatch>,
    /// Rows that came behind their tables' watermarks, and went into the tables of late rows.
    pub late: u64,
    /// What became of late rows that were to be taken in again.
    pub replayed: Option<Replayed>,
}

/// The right to write some tables, held until dropped. Others who want them wait in line.
pub struct WriteLock {
    pub(super) id: LockId,
    pub(super) requests: Sender<Request>,
}

impl Drop for WriteLock {
    fn drop(&mut self) {
        // The coordinator has gone only when the server stops.
        let _ = self.requests.send(Request::Unlock(self.id));
    }
}

/// A write that waits in line for its tables, and may be taken back until the coordinator begins
/// it.
pub struct PendingWrite {
    pub(super) answer: oneshot::Receiver<Result<WriteOutcome>>,
    pub(super) claim: Claim,
    pub(super) _place: OwnedSemaphorePermit,
}

impl PendingWrite {
    /// What the write did. May be dropped while it waits, and be asked again.
    ///
    /// # Errors
    /// As [`Coordinator::write`].
    pub async fn outcome(&mut self) -> Result<WriteOutcome> {
        (&mut self.answer).await.map_err(|_| stopping())?
    }

    /// Takes the write back; false when it is too late: then it has an outcome, at once.
    pub fn withdraw(&self) -> bool {
        self.claim.take()
    }
}

/// Who decides about a write: the first to take it, its client (who gives it up) or the
/// coordinator (who does it).
#[derive(Clone, Default)]
pub(super) struct Claim(Arc<AtomicBool>);

impl Claim {
    /// Whether nobody has taken it before.
    pub(super) fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

/// A write on its way to its tables.
pub(super) struct WaitingWrite {
    pub(super) writes: Vec<TableWrite>,
    pub(super) claim: Claim,
    /// Need not be durable when it is answered.
    pub(super) early: bool,
    pub(super) reply: Reply<WriteOutcome>,
}

impl State {
    pub(super) fn write(&mut self, lock: Option<LockId>, write: WaitingWrite) {
        if self.wants_quiet() {
            self.waiting_writes.push_back((lock, write));
            return;
        }
        let tables: Vec<ObjectId> = write.writes.iter().map(|write| write.table).collect();
        match lock {
            Some(lock) => {
                assert!(self.locks.covers(lock, &tables), "a locked write stays in its tables");
                self.write_now(write);
            }
            None if self.locks.free(&tables) => self.write_now(write),
            None => self.locks.wait(tables, write),
        }
    }

    pub(super) fn grant_locks(&mut self) {
        while let Some(write) = self.locks.grant() {
            // Its turn has come, whoever waits behind it.
            if !self.wants_quiet() {
                self.write_now(write);
            } else {
                self.waiting_writes.push_back((None, write));
            }
        }
    }

    pub(super) fn write_now(&mut self, write: WaitingWrite) {
        if write.reply.is_closed() || !write.claim.take() {
            // The statement was cancelled while it waited.
            return;
        }
        self.write_unasked(write);
    }

    /// The same; nobody need wait for it.
    pub(super) fn write_unasked(&mut self, write: WaitingWrite) {
        let WaitingWrite { writes, early, reply, .. } = write;
        let grows = || writes.iter().any(|write| write.change.grows());
        let refused = self.writes_refused();
        if let Some(error) = refused.or_else(|| self.growth_refused().filter(|_| grows())) {
            let _ = reply.send(Err(error));
            return;
        }
        let mut done: Vec<(ObjectId, ChangeBatch)> = Vec::new();
        let mut outcome = WriteOutcome {
            epoch: self.epochs.open(),
            counts: vec![],
            inserted: vec![],
            late: 0,
            replayed: None,
        };
        let asked = writes.len();
        let Diverted { writes, late, advances } = self.divert_late(writes);
        outcome.late = late.iter().map(|(_, rows)| rows).sum();
        let (writes, replayed) = match self.expand_replays(writes) {
            Ok(expanded) => expanded,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        outcome.replayed = replayed;
        for (number, TableWrite { table, change }) in writes.into_iter().enumerate() {
            let result = match self.tables.get_mut(&table) {
                Some(rows) => rows.write(change),
                None => Err(dependency_gone("the statement")),
            };
            match result {
                Ok(written) => {
                    if number < asked {
                        outcome.counts.push(written.count);
                        outcome.inserted.push(written.inserted);
                    }
                    done.push((table, written.changes));
                }
                Err(error) => {
                    for (table, changes) in done.iter().rev() {
                        let rows = self.tables.get_mut(table).expect("written just now");
                        rows.undo(changes);
                    }
                    let _ = reply.send(Err(error));
                    return;
                }
            }
        }
        self.count_diverted(&late);
        if let Some(replayed) = &outcome.replayed {
            self.note_reopened(replayed);
        }
        for (table, watermark) in advances {
            self.watermarks.advance(table, watermark);
        }
        let record = self.log_rows(&done);
        let mut touched = false;
        for (table, changes) in done {
            if self.memory.is_always_full()
                && let Some(table) = self.tables.get_mut(&table)
            {
                table.spill(&self.memory, EVERYTHING);
            }
            if !changes.is_empty() {
                touched = true;
                self.changes.entry(table).or_default().push(changes);
            }
        }
        if touched {
            let now = self.now();
            self.epochs.touch(now);
        }
        if early && self.may_be_early() {
            let _ = reply.send(Ok(outcome));
            return;
        }
        self.hold(record, true, move |durable| {
            // The client may have gone.
            let _ = reply.send(durable.map(|()| outcome));
        });
    }
}
