//! The contents of one materialized view on one worker: the only thing SELECT may read.
//!
//! `operators/materialize.rs` applies each epoch as a whole, so between two applications the
//! content is that of an epoch. Readers ask for a snapshot *at* an epoch: it is taken before the
//! first later epoch is applied, or as soon as the worker knows that none before it is left.

use crate::state::multi_table::MultiTable;
use crate::state::snapshot::Snapshot;
use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use crate::types::time::Epoch;

/// A wish for the content at an epoch.
pub struct SnapshotRequest {
    pub epoch: Epoch,
    /// Told the snapshot, once.
    pub reply: Box<dyn FnOnce(Snapshot)>,
}

/// One view's rows on this worker.
pub struct Published {
    table: MultiTable,
    /// Wishes not yet answered, oldest first.
    requests: Vec<SnapshotRequest>,
}

impl Published {
    pub fn new(table: MultiTable) -> Published {
        Published { table, requests: Vec::new() }
    }

    /// Applies all changes of `epoch`.
    pub fn apply(&mut self, epoch: Epoch, changes: &[ChangeBatch]) -> Result<()> {
        self.serve(|request| request.epoch < epoch);
        for batch in changes {
            self.table.apply(batch)?;
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
                (request.reply)(snapshot.clone());
            }
        }
    }

    /// The content now; between epochs only.
    pub fn snapshot(&mut self) -> Snapshot {
        self.table.snapshot()
    }

    pub fn table(&self) -> &MultiTable {
        &self.table
    }

    pub fn table_mut(&mut self) -> &mut MultiTable {
        &mut self.table
    }
}
