//! The rows of one side of a join: its own, or those of an index that other joins read, too.
//!
//! A shared side shows by itself never, and is not counted, forgotten or checkpointed here. It is
//! read as of the epoch before until the join lets its changes in, and as of the epoch from then on.

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};

use crate::state::arrangement::Reader;
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::state::multi_table::{MultiTable, Walk};
use crate::state::row_ids::ShortId;
use crate::state::spill::StoreVisitor;
use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use crate::types::time::Epoch;

/// Where the rows of a side are kept.
#[expect(clippy::large_enum_variant, reason = "there are two a join")]
pub(super) enum SideTable {
    Own(MultiTable),
    Shared(SharedTable),
}

/// The side's rows in an index.
pub(super) struct SharedTable {
    reader: Reader,
    /// Where each of the side's columns is in the index.
    columns: Vec<usize>,
    /// The epoch under way; `None` between epochs.
    epoch: Option<Epoch>,
}

impl SideTable {
    pub fn shared(reader: Reader, columns: Vec<usize>) -> SideTable {
        SideTable::Shared(SharedTable { reader, columns, epoch: None })
    }

    pub fn is_shared(&self) -> bool {
        matches!(self, SideTable::Shared(_))
    }

    /// An epoch is under way, in which the side has changes or none.
    pub fn begin(&mut self, epoch: Epoch, changes: bool) {
        if let SideTable::Shared(shared) = self
            && shared.epoch != Some(epoch)
        {
            shared.epoch = Some(epoch);
            let before = Epoch(epoch.0.saturating_sub(1));
            shared.reader.look_at(if changes { before } else { epoch });
        }
    }

    /// The epoch is over.
    pub fn finish(&mut self, epoch: Epoch) {
        if let SideTable::Shared(shared) = self {
            shared.epoch = None;
            shared.reader.finish(epoch);
        }
    }

    fn own(&self) -> &MultiTable {
        match self {
            SideTable::Own(table) => table,
            SideTable::Shared(_) => unreachable!("a side that shows by itself is not shared"),
        }
    }

    fn own_mut(&mut self) -> &mut MultiTable {
        match self {
            SideTable::Own(table) => table,
            SideTable::Shared(_) => unreachable!("a side that shows by itself is not shared"),
        }
    }

    /// Lets changes in.
    pub fn apply_with_counts(
        &mut self,
        change: &ChangeBatch,
        counts: Option<&[i64]>,
    ) -> Result<()> {
        match self {
            SideTable::Own(table) => table.apply_with_counts(change, counts),
            SideTable::Shared(shared) => {
                // They are in the index, all of the epoch.
                let epoch = shared.epoch.expect("changes enter in an epoch");
                shared.reader.look_at(epoch);
                Ok(())
            }
        }
    }

    pub fn heads(&self, key_columns: Vec<ArrayRef>, rows: usize) -> Result<Vec<ShortId>> {
        match self {
            SideTable::Own(table) => table.heads(key_columns, rows),
            SideTable::Shared(shared) => shared.reader.heads(key_columns, rows),
        }
    }

    pub fn walk(
        &mut self,
        walk: &mut Walk,
        pairs_max: usize,
        batch_rows: &mut Vec<u32>,
        ids: &mut Vec<ShortId>,
    ) -> bool {
        match self {
            SideTable::Own(table) => table.walk(walk, pairs_max, batch_rows, ids),
            SideTable::Shared(shared) => shared.reader.walk(walk, pairs_max, batch_rows, ids),
        }
    }

    pub fn gather(&self, columns: &[usize], ids: &[ShortId]) -> Result<Vec<ArrayRef>> {
        match self {
            SideTable::Own(table) => table.gather(columns, ids),
            SideTable::Shared(shared) => {
                let columns: Vec<usize> =
                    columns.iter().map(|column| shared.columns[*column]).collect();
                shared.reader.gather(&columns, ids)
            }
        }
    }

    pub fn weights(&self, ids: &[ShortId]) -> Option<Vec<i64>> {
        match self {
            SideTable::Own(table) => table.weights(ids),
            SideTable::Shared(shared) => shared.reader.weights(ids),
        }
    }

    /// How often each of these rows is there; of a shared side at least once, for all that is
    /// known.
    pub fn weights_of(&mut self, rows: &RecordBatch) -> Result<Vec<i64>> {
        match self {
            SideTable::Own(table) => table.weights_of(rows),
            SideTable::Shared(_) => Ok(vec![i64::MAX; rows.num_rows()]),
        }
    }

    pub fn chain_rows(&self) -> usize {
        match self {
            SideTable::Own(table) => table.chain_rows(),
            SideTable::Shared(shared) => shared.reader.chain_rows(),
        }
    }

    /// Rows that the side keeps itself.
    pub fn live_rows(&self) -> usize {
        match self {
            SideTable::Own(table) => table.live_rows(),
            SideTable::Shared(_) => 0,
        }
    }

    pub fn count(&self, id: ShortId) -> i64 {
        self.own().count(id)
    }

    pub fn set_count(&mut self, id: ShortId, count: i64) {
        self.own_mut().set_count(id, count);
    }

    pub fn live(&self) -> impl Iterator<Item = Result<(Vec<ShortId>, RecordBatch)>> {
        self.own().live()
    }

    pub fn forget(&mut self, dead: impl Fn(&RecordBatch) -> Result<BooleanArray>) -> Result<usize> {
        self.own_mut().forget(dead)
    }

    pub fn forget_rows(&mut self, found: Vec<(Vec<ShortId>, RecordBatch)>) -> Result<usize> {
        self.own_mut().forget_rows(found)
    }

    pub fn checkpoint(&mut self, name: &str, writer: &mut CheckpointWriter) -> Result<()> {
        if let SideTable::Own(table) = self {
            writer.write(name, table.checkpoint_delta()?);
        }
        Ok(())
    }

    pub fn restore(
        &mut self,
        name: &str,
        key: &[usize],
        reader: &mut CheckpointReader,
    ) -> Result<()> {
        match self {
            SideTable::Own(table) => table.restore(reader.read(name, key)?),
            SideTable::Shared(_) => Ok(()),
        }
    }

    pub fn visit(&mut self, visit: StoreVisitor<'_>) {
        if let SideTable::Own(table) = self {
            visit(table);
        }
    }

    pub fn memory_bytes(&self) -> usize {
        match self {
            SideTable::Own(table) => table.memory_bytes(),
            SideTable::Shared(_) => 0,
        }
    }
}
