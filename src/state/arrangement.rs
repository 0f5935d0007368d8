//! Rows by key that several readers look up, each at the epoch that it has reached: an index that
//! joins share.
//!
//! 1. Each epoch is applied as a whole ([`Arrangement::apply`]). Rows that come are appended; where
//!    the ids of an epoch end is noted. Rows that go stay as they are, with the epoch that they died
//!    in, as long as a reader may look at an earlier one.
//! 2. A reader sees a row at an epoch if its id is before that epoch's end and it did not die by
//!    then. It holds back the epochs that it has yet to finish ([`Hold`]).
//! 3. When all readers have finished an epoch, the rows that died in it are killed. When they have
//!    finished all that there is, old rows may get new ids, which only the newest content is
//!    independent of.
//!
//! What is kept for slow readers is what changed since the slowest of them: nothing when all keep
//! up. One that has failed holds nothing back.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::datatypes::SchemaRef;
use hashbrown::HashMap;

use crate::state::multi_table::{MultiTable, Walk};
use crate::state::row_ids::ShortId;
use crate::state::spill::{Pass, Spill, StateMemory};
use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use crate::types::time::Epoch;

/// The rows of a table or view by the columns of an index, on one worker.
#[derive(Debug)]
pub struct Arrangement {
    /// All rows that some reader may see.
    table: MultiTable,
    /// Where the ids of recent epochs end, oldest first. The first is of the newest epoch that every
    /// reader has finished, or older.
    ends: VecDeque<(Epoch, u64)>,
    /// Rows that have gone, with their epoch: for readers of earlier ones they are there.
    dying: HashMap<ShortId, Epoch>,
    /// The same rows in the order of their epochs.
    deaths: VecDeque<(Epoch, Vec<ShortId>)>,
    /// The newest epoch that has been applied.
    applied: Epoch,
    readers: Vec<Weak<Hold>>,
}

/// How far a reader is.
#[derive(Debug)]
pub struct Hold {
    /// It looks at no epoch before this one.
    since: Cell<Epoch>,
    /// It is in the middle of an epoch: ids that it holds must go on meaning the same rows.
    looking: Cell<bool>,
    /// Set when it will never look again.
    failed: Rc<Cell<bool>>,
}

impl Arrangement {
    /// An empty one as of an epoch.
    ///
    /// # Errors
    /// For a column whose type cannot be compared (SQLSTATE 0A000).
    pub fn new(schema: SchemaRef, key: Vec<usize>, as_of: Epoch) -> Result<Arrangement> {
        let mut table = MultiTable::keyed(schema, key)?.deleting();
        table.keep_ids(true);
        Ok(Arrangement {
            table,
            ends: VecDeque::from([(Epoch(as_of.0.saturating_sub(1)), 0)]),
            dying: HashMap::new(),
            deaths: VecDeque::new(),
            applied: Epoch(as_of.0.saturating_sub(1)),
            readers: Vec::new(),
        })
    }

    pub fn schema(&self) -> &SchemaRef {
        self.table.schema()
    }

    /// A new reader, which looks at `since` and later; `failed` is set when it ends early.
    pub fn read(
        arrangement: &Rc<RefCell<Arrangement>>,
        since: Epoch,
        failed: Rc<Cell<bool>>,
    ) -> Reader {
        let hold = Rc::new(Hold { since: Cell::new(since), looking: Cell::new(false), failed });
        arrangement.borrow_mut().readers.push(Rc::downgrade(&hold));
        Reader { arrangement: arrangement.clone(), hold, at: since }
    }

    /// The epoch that every reader has finished, and whether none is in the middle of another one.
    fn finished(&mut self) -> (Epoch, bool) {
        self.readers.retain(|reader| reader.strong_count() > 0);
        let (mut finished, mut still) = (self.applied, true);
        let holds = self.readers.iter().filter_map(Weak::upgrade);
        for hold in holds.filter(|hold| !hold.failed.get()) {
            finished = finished.min(hold.since.get());
            still &= !hold.looking.get();
        }
        (finished, still)
    }

    /// Applies all changes of an epoch; equal rows among them have been added up.
    ///
    /// # Errors
    /// When a row is deleted that is not there (ours), or the table is full (SQLSTATE 54000).
    pub fn apply(&mut self, epoch: Epoch, changes: &[ChangeBatch]) -> Result<()> {
        assert!(epoch > self.applied, "epochs are applied in order");
        self.settle()?;
        let mut died = Vec::new();
        for change in changes {
            if change.all_inserts() {
                self.table.apply(change)?;
                continue;
            }
            let left = self.table.find_deleted(change, |id| {
                let goes = !self.dying.contains_key(&id);
                if goes {
                    self.dying.insert(id, epoch);
                    died.push(id);
                }
                goes
            })?;
            let (mut rows, mut weights) = (left.rows, left.weights);
            let inserts = (0..change.num_rows()).filter(|row| change.weight(*row) > 0);
            for row in inserts {
                rows.push(row as u32);
                weights.push(change.weight(row));
            }
            if !rows.is_empty() {
                let rows = change.take(&UInt32Array::from(rows))?.into_rows();
                self.table.apply(&ChangeBatch::new(rows, weights)?)?;
            }
        }
        if !died.is_empty() {
            self.deaths.push_back((epoch, died));
        }
        self.applied = epoch;
        self.ends.push_back((epoch, self.table.end()));
        Ok(())
    }

    /// Lets go of what no reader sees any more.
    ///
    /// # Errors
    /// When rows cannot be read back from the disk.
    pub fn settle(&mut self) -> Result<()> {
        let (finished, still) = self.finished();
        while self.ends.len() > 1 && self.ends[1].0 <= finished {
            self.ends.pop_front();
        }
        let mut gone: Vec<ShortId> = Vec::new();
        while let Some((_, rows)) = self.deaths.pop_front_if(|(epoch, _)| *epoch <= finished) {
            gone.extend(rows);
        }
        if gone.is_empty() {
            return Ok(());
        }
        for id in &gone {
            self.dying.remove(id);
        }
        let all: Vec<usize> = (0..self.schema().fields().len()).collect();
        let rows = RecordBatch::try_new(self.schema().clone(), self.table.gather(&all, &gone)?)?;
        // With nobody behind, ids mean nothing: every row that is there is seen.
        let caught_up = still && finished >= self.applied;
        self.table.keep_ids(!caught_up);
        self.table.forget_rows(vec![(gone, rows)])?;
        self.table.keep_ids(true);
        if caught_up {
            self.ends = VecDeque::from([(self.applied, self.table.end())]);
        }
        Ok(())
    }

    /// Where the ids end that are seen at an epoch.
    fn end_at(&self, epoch: Epoch) -> u64 {
        let later = self.ends.partition_point(|(other, _)| *other <= epoch);
        self.ends[later.saturating_sub(1)].1
    }

    fn is_dying(&self) -> bool {
        !self.dying.is_empty()
    }

    /// Physical rows, of all versions.
    pub fn rows(&self) -> usize {
        self.table.live_rows()
    }

    /// Rows that are kept for readers of the past only.
    pub fn dying_rows(&self) -> usize {
        self.dying.len()
    }

    pub fn memory_bytes(&self) -> usize {
        let dying = self.dying.capacity() * size_of::<(ShortId, Epoch)>()
            + self.dying.len() * size_of::<ShortId>();
        self.table.memory_bytes() + dying
    }
}

impl Spill for Arrangement {
    fn spill(&mut self, memory: &StateMemory, pass: Pass) {
        self.table.spill(memory, pass);
    }

    fn disk_bytes(&self) -> usize {
        self.table.disk_bytes()
    }
}

/// Looks rows of an arrangement up, as they are at one epoch.
#[derive(Debug)]
pub struct Reader {
    arrangement: Rc<RefCell<Arrangement>>,
    hold: Rc<Hold>,
    at: Epoch,
}

impl Reader {
    /// Looks at an epoch from now on, until it has finished.
    pub fn look_at(&mut self, epoch: Epoch) {
        self.at = epoch;
        self.hold.looking.set(true);
    }

    /// Has finished an epoch, and will look at no earlier one.
    pub fn finish(&mut self, epoch: Epoch) {
        assert!(self.hold.since.get() <= epoch, "a reader does not go back");
        self.hold.since.set(epoch);
        self.hold.looking.set(false);
    }

    /// Rows of a key, on average; of all versions.
    pub fn chain_rows(&self) -> usize {
        self.arrangement.borrow().table.chain_rows()
    }

    /// The newest row of each key, or NIL. The arrays are the key's columns, in key order.
    ///
    /// # Errors
    /// When a key cannot be hashed.
    pub fn heads(&self, key_columns: Vec<ArrayRef>, rows: usize) -> Result<Vec<ShortId>> {
        let arrangement = self.arrangement.borrow();
        if self.sees_all(&arrangement) {
            return arrangement.table.heads(key_columns, rows);
        }
        let end = arrangement.end_at(self.at);
        let visible = |id| is_visible(&arrangement.table, &arrangement.dying, self.at, end, id);
        arrangement.table.visible_heads(key_columns, rows, visible)
    }

    /// As [`MultiTable::walk`].
    pub fn walk(
        &mut self,
        walk: &mut Walk,
        pairs_max: usize,
        batch_rows: &mut Vec<u32>,
        ids: &mut Vec<ShortId>,
    ) -> bool {
        let first = ids.len();
        let mut arrangement = self.arrangement.borrow_mut();
        let all = self.sees_all(&arrangement);
        let end = arrangement.end_at(self.at);
        let Arrangement { table, dying, .. } = &mut *arrangement;
        loop {
            let more = table.walk_on_changed(walk, pairs_max, batch_rows, ids);
            if !all {
                let mut kept = first;
                for index in first..ids.len() {
                    if is_visible(table, dying, self.at, end, ids[index]) {
                        (ids[kept], batch_rows[kept]) = (ids[index], batch_rows[index]);
                        kept += 1;
                    }
                }
                ids.truncate(kept);
                batch_rows.truncate(kept);
            }
            if !more || ids.len() > first {
                return more;
            }
        }
    }

    /// These columns of rows that it sees, in this order.
    ///
    /// # Errors
    /// When rows cannot be read back from the disk.
    pub fn gather(&self, columns: &[usize], ids: &[ShortId]) -> Result<Vec<ArrayRef>> {
        self.arrangement.borrow().table.gather(columns, ids)
    }

    /// The weights of rows that it sees; `None` when all are 1.
    pub fn weights(&self, ids: &[ShortId]) -> Option<Vec<i64>> {
        self.arrangement.borrow().table.weights(ids)
    }

    /// Whether every row that is there is one that it sees.
    fn sees_all(&self, arrangement: &Arrangement) -> bool {
        self.at >= arrangement.applied && !arrangement.is_dying()
    }
}

fn is_visible(
    table: &MultiTable,
    dying: &HashMap<ShortId, Epoch>,
    at: Epoch,
    end: u64,
    id: ShortId,
) -> bool {
    table.is_before(id, end) && dying.get(&id).is_none_or(|died| *died > at)
}

#[cfg(test)]
mod tests;
