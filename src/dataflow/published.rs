//! The contents of one materialized view on one worker: the only thing SELECT may read.
//!
//! `operators/materialize.rs` applies each epoch as a whole, so between two applications the
//! content is that of an epoch. Readers ask for a snapshot *at* an epoch: it is taken before the
//! first later epoch is applied, or as soon as the worker knows that none before it is left. For
//! an epoch that has been applied over, what has changed since comes with the content of now.

use crate::state::history::{Forgotten, History, Since};
use crate::state::multi_table::MultiTable;
use crate::state::snapshot::Snapshot;
use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use crate::types::time::Epoch;

/// The content at an epoch.
#[derive(Clone, Debug)]
pub struct ContentAt {
    pub content: Snapshot,
    /// Changes that are in `content` and came later, to be taken out of it.
    pub later: Vec<ChangeBatch>,
}

impl ContentAt {
    /// The content at an epoch, from the content of now and its history.
    ///
    /// # Errors
    /// When the epoch has been forgotten.
    pub fn of(
        now: Snapshot,
        history: &History,
        epoch: Epoch,
    ) -> std::result::Result<ContentAt, Forgotten> {
        Ok(match history.since(epoch)? {
            Since::Came(0) => ContentAt { content: now, later: Vec::new() },
            Since::Came(rows) => ContentAt { content: now.without_last(rows), later: Vec::new() },
            Since::Changes(later) => ContentAt { content: now, later },
        })
    }
}

/// A wish for the content at an epoch.
pub struct SnapshotRequest {
    pub epoch: Epoch,
    /// Told the content, once.
    pub reply: Box<dyn FnOnce(std::result::Result<ContentAt, Forgotten>)>,
}

/// One view's rows on this worker.
pub struct Published {
    table: MultiTable,
    history: History,
    /// The newest epoch that has been applied.
    applied: Epoch,
    /// Wishes not yet answered, oldest first.
    requests: Vec<SnapshotRequest>,
}

impl Published {
    pub fn new(table: MultiTable, history: History) -> Published {
        let applied = history.floor();
        Published { table, history, applied, requests: Vec::new() }
    }

    /// Applies all changes of `epoch`.
    pub fn apply(&mut self, epoch: Epoch, changes: &[ChangeBatch]) -> Result<()> {
        self.serve(|request| request.epoch < epoch);
        for batch in changes {
            self.table.apply(batch)?;
        }
        self.applied = epoch;
        // The content that it begins with is no change.
        if epoch > self.history.floor() {
            self.history.record(epoch, changes)?;
        }
        Ok(())
    }

    pub fn request(&mut self, request: SnapshotRequest) {
        self.requests.push(request);
    }

    pub fn has_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    /// Answers the requests for which `complete` holds with the content as it is now.
    pub fn serve(&mut self, complete: impl Fn(&SnapshotRequest) -> bool) {
        if self.requests.iter().any(&complete) {
            let snapshot = self.table.snapshot();
            for request in self.requests.extract_if(.., |r| complete(r)) {
                // Whatever has been forgotten, the newest content is there.
                let newest = ContentAt { content: snapshot.clone(), later: Vec::new() };
                (request.reply)(match request.epoch >= self.applied {
                    true => Ok(newest),
                    false => ContentAt::of(snapshot.clone(), &self.history, request.epoch),
                });
            }
        }
    }

    /// The content now; between epochs only.
    pub fn snapshot(&mut self) -> Snapshot {
        self.table.snapshot()
    }

    /// It shows something else from `epoch` on; what it was before does not count.
    pub fn begin_anew(&mut self, epoch: Epoch) {
        self.applied = epoch;
        self.history.begin_anew(epoch);
    }

    pub fn history(&self) -> &History {
        &self.history
    }

    pub fn history_mut(&mut self) -> &mut History {
        &mut self.history
    }

    pub fn table(&self) -> &MultiTable {
        &self.table
    }

    pub fn table_mut(&mut self) -> &mut MultiTable {
        &mut self.table
    }
}
