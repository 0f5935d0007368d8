//! Changes that wait for the end of their epoch.
//!
//! The first content of a view is one epoch, however much it is. So what waits can go to the disk
//! as rows of a table can: neighbouring batches together, in the order in which they came.

use std::ops::Deref;

use arrow::array::RecordBatch;

use crate::state::spill::{Pass, Spill, StateMemory};
use crate::types::change::ChangeBatch;
use crate::types::error::Result;

/// Rows that go together, at most: few enough to be joined on the way.
const PIECE_ROWS_MAX: usize = 64 * 1024;

/// Changes of the current epoch. Reads as a slice of them.
#[derive(Debug, Default)]
pub struct WaitingChanges {
    /// In the order in which they came; the first ones are on the disk.
    changes: Vec<ChangeBatch>,
    /// How many of them.
    on_disk: usize,
    disk_bytes: usize,
}

impl Deref for WaitingChanges {
    type Target = [ChangeBatch];

    fn deref(&self) -> &[ChangeBatch] {
        &self.changes
    }
}

impl WaitingChanges {
    pub fn push(&mut self, change: ChangeBatch) {
        self.changes.push(change);
    }

    /// All of them, taken out.
    pub fn take(&mut self) -> Vec<ChangeBatch> {
        std::mem::take(self).changes
    }

    /// Of those in memory.
    pub fn memory_bytes(&self) -> usize {
        self.changes[self.on_disk..].iter().map(ChangeBatch::size_bytes).sum()
    }

    /// Batches from the first in memory on that go together.
    fn piece(&self) -> usize {
        let mut rows = 0;
        let in_memory = &self.changes[self.on_disk..];
        let fits = |batch: &&ChangeBatch| {
            rows += batch.num_rows();
            rows <= PIECE_ROWS_MAX
        };
        in_memory.iter().take_while(fits).count().max(1)
    }

    /// Lets the next batches go; false when the disk does not take them.
    fn spill_piece(&mut self, memory: &StateMemory) -> Result<bool> {
        let range = self.on_disk..self.on_disk + self.piece();
        let bytes = self.changes[range.clone()].iter().map(ChangeBatch::size_bytes).sum();
        let schema = self.changes[range.start].rows().schema();
        let piece = ChangeBatch::concat(&schema, &self.changes[range.clone()])?;
        let Some((columns, written)) = memory.write(piece.rows().columns(), bytes) else {
            return Ok(false);
        };
        let rows = RecordBatch::try_new(schema, columns)?;
        let piece = match piece.all_inserts() {
            true => ChangeBatch::inserts(rows),
            false => ChangeBatch::new(rows, piece.weights_vec())?,
        };
        self.changes.splice(range, [piece]);
        self.on_disk += 1;
        self.disk_bytes += written;
        Ok(true)
    }
}

impl Spill for WaitingChanges {
    fn spill(&mut self, memory: &StateMemory, pass: Pass) {
        if self.on_disk == self.changes.len() || self.memory_bytes() < pass.bytes_min {
            return;
        }
        while self.on_disk < self.changes.len() && memory.is_wanted() {
            match self.spill_piece(memory) {
                Ok(true) => {}
                // As when there are no columns.
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(%error, "changes that wait stay in memory");
                    return;
                }
            }
        }
    }

    fn disk_bytes(&self) -> usize {
        self.disk_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataflow::script::{batch, schema};
    use crate::state::spill::EVERYTHING;

    #[test]
    fn what_waits_on_the_disk_is_what_came_in_its_order() {
        let memory = StateMemory::always_full(std::env::temp_dir());
        let columns = schema("a bigint, t text");
        let mut waiting = WaitingChanges::default();
        let mut expected = Vec::new();
        for n in 0..30 {
            let sign = if n % 10 == 9 { "-" } else { "+" };
            let change = batch(&columns, &format!("{sign} {n} text\n+2 {n} more"));
            expected.push(change.clone());
            waiting.push(change);
            if n % 7 == 3 {
                waiting.spill(&memory, EVERYTHING);
                assert_eq!((waiting.memory_bytes(), waiting.len()), (0, n / 7 + 1));
            }
        }
        assert!(waiting.disk_bytes() > 0);
        let expected = ChangeBatch::concat(&columns, &expected).expect("one schema");
        let came = ChangeBatch::concat(&columns, &waiting.take()).expect("one schema");
        assert_eq!(came.rows(), expected.rows());
        assert_eq!(came.weights_vec(), expected.weights_vec());
        assert_eq!((waiting.len(), waiting.disk_bytes()), (0, 0));
        drop(came);
        assert_eq!(memory.disk().now_bytes(), 0);
    }
}
