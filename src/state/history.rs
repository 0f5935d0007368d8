//! What a table or view was at recent epochs: its changes since then, to be taken back.
//!
//! 1. When an epoch is applied its changes are noted, which copies nothing. Of rows that only come
//!    a count is enough: they stand in the table in the order in which they came.
//! 2. The content at an epoch is the content of now without the changes that came later.
//! 3. Small changes of many epochs are put together into one batch now and then, for a batch has
//!    its price whatever is in it.
//! 4. What is older than the owner's retention is forgotten; so is the oldest when all histories
//!    together hold more than their budget. What can be read then is exact, or refused: there is
//!    no epoch for which some changes are missing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::datatypes::SchemaRef;

use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use crate::types::time::Epoch;

/// Epochs whose changes wait to be put together.
const SMALL_EPOCHS: usize = 64;
/// Rows from which an epoch's changes stay a batch of their own.
const SMALL_ROWS: usize = 512;
/// What a batch holds beside its rows, about: descriptions and reference counts of its arrays.
const BATCH_BYTES: usize = 256;
const COLUMN_BYTES: usize = 160;

/// The memory that all histories of a server may hold.
#[derive(Debug)]
pub struct HistoryBudget {
    used: AtomicUsize,
    max: usize,
}

impl HistoryBudget {
    pub fn new(max_bytes: usize) -> Arc<HistoryBudget> {
        Arc::new(HistoryBudget { used: AtomicUsize::new(0), max: max_bytes })
    }

    fn is_exceeded(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.max
    }
}

/// The recent changes of one table, or of one worker's share of a view.
#[derive(Debug)]
pub struct History {
    schema: SchemaRef,
    /// Rows never go.
    appends: bool,
    /// Nothing is noted: only the newest epoch can be read.
    off: bool,
    /// The oldest epoch whose content can be made.
    floor: Epoch,
    /// Oldest first.
    entries: VecDeque<Entry>,
    /// Entries at the end that are small.
    small: usize,
    bytes: usize,
    budget: Arc<HistoryBudget>,
}

#[derive(Debug)]
struct Entry {
    /// The epochs whose changes are here, oldest first, and where each ends in `changes`.
    epochs: Vec<(Epoch, usize)>,
    changes: Changes,
    bytes: usize,
}

#[derive(Debug)]
enum Changes {
    /// So many copies of rows came.
    Came(u64),
    Rows(ChangeBatch),
}

/// What has changed since an epoch.
#[derive(Debug)]
pub enum Since {
    /// So many copies of rows came, last of all.
    Came(u64),
    Changes(Vec<ChangeBatch>),
}

/// The epoch cannot be read; this is the oldest one that can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten(pub Epoch);

impl History {
    /// Of a table that is complete at `floor`. `appends`: rows never go.
    pub fn new(
        schema: SchemaRef,
        appends: bool,
        floor: Epoch,
        budget: Arc<HistoryBudget>,
    ) -> History {
        let entries = VecDeque::new();
        History { schema, appends, off: false, floor, entries, small: 0, bytes: 0, budget }
    }

    /// Notes nothing from now on.
    pub fn turn_off(&mut self) {
        self.off = true;
        self.clear();
    }

    pub fn memory_bytes(&self) -> usize {
        self.bytes
    }

    /// The oldest epoch that can be read.
    pub fn floor(&self) -> Epoch {
        self.floor
    }

    /// Notes all changes of an epoch.
    pub fn record(&mut self, epoch: Epoch, changes: &[ChangeBatch]) -> Result<()> {
        let rows: usize = changes.iter().map(ChangeBatch::num_rows).sum();
        if rows == 0 {
            return Ok(());
        }
        if self.off {
            self.floor = epoch;
            return Ok(());
        }
        if self.appends {
            let came = changes.iter().map(ChangeBatch::weight_sum).sum::<i64>();
            let came = u64::try_from(came).unwrap_or(0);
            self.push(Entry::new(vec![(epoch, 0)], Changes::Came(came)));
        } else {
            let rows_of = |batch: &ChangeBatch| batch.num_rows() < SMALL_ROWS;
            let all = ChangeBatch::concat(&self.schema, changes)?;
            self.small = if rows_of(&all) { self.small + 1 } else { 0 };
            self.push(Entry::new(vec![(epoch, all.num_rows())], Changes::Rows(all)));
            if self.small == SMALL_EPOCHS {
                self.put_together()?;
            }
        }
        while self.budget.is_exceeded() && self.pop() {}
        Ok(())
    }

    fn push(&mut self, entry: Entry) {
        self.bytes += entry.bytes;
        self.budget.used.fetch_add(entry.bytes, Ordering::Relaxed);
        self.entries.push_back(entry);
    }

    /// Forgets the oldest entry, if there is one.
    fn pop(&mut self) -> bool {
        let Some(entry) = self.entries.pop_front() else { return false };
        self.small = self.small.min(self.entries.len());
        self.floor = self.floor.max(entry.last());
        self.release(entry.bytes);
        true
    }

    fn release(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Makes one entry of the small ones at the end.
    fn put_together(&mut self) -> Result<()> {
        let parts: Vec<Entry> = self.entries.drain(self.entries.len() - self.small..).collect();
        self.small = 0;
        let (mut epochs, mut batches, mut end, mut bytes) = (Vec::new(), Vec::new(), 0, 0);
        for part in parts {
            bytes += part.bytes;
            let Changes::Rows(rows) = part.changes else { continue };
            epochs.extend(part.epochs.iter().map(|(epoch, at)| (*epoch, end + at)));
            end += rows.num_rows();
            batches.push(rows);
        }
        self.release(bytes);
        let all = ChangeBatch::concat(&self.schema, &batches)?;
        self.push(Entry::new(epochs, Changes::Rows(all)));
        Ok(())
    }

    /// Forgets what is not needed to read `floor` and later epochs.
    pub fn forget(&mut self, floor: Epoch) {
        while self.entries.front().is_some_and(|entry| entry.last() <= floor) {
            self.pop();
        }
        self.floor = self.floor.max(floor);
    }

    /// Begins anew: the content is another from `floor` on.
    pub fn begin_anew(&mut self, floor: Epoch) {
        self.clear();
        self.floor = floor;
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.small = 0;
        self.release(self.bytes);
    }

    /// What has changed after `epoch`.
    pub fn since(&self, epoch: Epoch) -> std::result::Result<Since, Forgotten> {
        if epoch < self.floor {
            return Err(Forgotten(self.floor));
        }
        let later = self.entries.iter().filter(|entry| entry.last() > epoch);
        let (mut came, mut changes) = (0, Vec::new());
        for entry in later {
            match &entry.changes {
                Changes::Came(rows) => came += rows,
                Changes::Rows(rows) => {
                    let from = entry.end_of(epoch);
                    changes.push(rows.slice(from, rows.num_rows() - from));
                }
            }
        }
        Ok(if self.appends { Since::Came(came) } else { Since::Changes(changes) })
    }

    /// The epochs after `epoch` in which something changed, with the copies of rows that came; of
    /// rows that never go.
    pub fn counts_since(&self, epoch: Epoch) -> Vec<(Epoch, u64)> {
        let later = self.entries.iter().filter(|entry| entry.last() > epoch);
        let counts = later.filter_map(|entry| match entry.changes {
            Changes::Came(rows) => Some((entry.last(), rows)),
            Changes::Rows(_) => None,
        });
        counts.collect()
    }

    /// What changed in each epoch after `epoch`, in order; of rows that may go.
    pub fn changes_since(&self, epoch: Epoch) -> Vec<(Epoch, ChangeBatch)> {
        let mut changes = Vec::new();
        for entry in self.entries.iter().filter(|entry| entry.last() > epoch) {
            let Changes::Rows(rows) = &entry.changes else { continue };
            let mut from = 0;
            for (of, end) in &entry.epochs {
                if *of > epoch {
                    changes.push((*of, rows.slice(from, end - from)));
                }
                from = *end;
            }
        }
        changes
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Entry {
    fn new(epochs: Vec<(Epoch, usize)>, changes: Changes) -> Entry {
        let own = size_of::<Entry>() + epochs.len() * size_of::<(Epoch, usize)>();
        let bytes = match &changes {
            Changes::Came(_) => own,
            Changes::Rows(rows) => {
                let columns = rows.rows().num_columns();
                own + BATCH_BYTES + columns * COLUMN_BYTES + rows.size_bytes()
            }
        };
        Entry { epochs, changes, bytes }
    }

    fn last(&self) -> Epoch {
        self.epochs.last().expect("an entry has an epoch").0
    }

    /// Where the changes up to `epoch` end.
    fn end_of(&self, epoch: Epoch) -> usize {
        let before = self.epochs.partition_point(|(of, _)| *of <= epoch);
        before.checked_sub(1).map_or(0, |last| self.epochs[last].1)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;
    use crate::state::multi_table::MultiTable;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, false)]))
    }

    fn change(rows: &[(i64, i64)]) -> ChangeBatch {
        let values = Int64Array::from_iter_values(rows.iter().map(|(value, _)| *value));
        let batch = RecordBatch::try_new(schema(), vec![Arc::new(values)]).expect("a column");
        ChangeBatch::new(batch, rows.iter().map(|(_, weight)| *weight).collect()).expect("weights")
    }

    /// The content of `table` at `epoch`, sorted.
    fn content(table: &MultiTable, history: &History, epoch: u64) -> Vec<i64> {
        let now = table.snapshot();
        let (now, since) = match history.since(Epoch(epoch)).expect("there") {
            Since::Came(rows) => (now.without_last(rows), vec![]),
            Since::Changes(changes) => (now, changes),
        };
        let mut counts = std::collections::BTreeMap::<i64, i64>::new();
        for batch in now.batches() {
            let batch = batch.expect("rows");
            for value in batch.column(0).as_primitive::<Int64Type>().values() {
                *counts.entry(*value).or_default() += 1;
            }
        }
        for batch in since {
            for (row, value) in
                batch.column(0).as_primitive::<Int64Type>().values().iter().enumerate()
            {
                *counts.entry(*value).or_default() -= batch.weight(row);
            }
        }
        counts.iter().flat_map(|(value, n)| std::iter::repeat_n(*value, *n as usize)).collect()
    }

    #[test]
    fn every_epoch_since_the_floor_is_as_it_was() {
        let budget = HistoryBudget::new(usize::MAX);
        let mut history = History::new(schema(), false, Epoch(0), budget.clone());
        let mut table = MultiTable::bag(schema()).expect("integers");
        let mut was = vec![vec![]];
        // More epochs than are put together at once, one of them large, some without changes.
        for epoch in 1..300u64 {
            let value = (epoch as i64 * 7) % 50;
            let mut changes = vec![(value, 1), (value, 1)];
            if was.last().expect("the first").contains(&(value / 2)) {
                changes.push((value / 2, -1));
            }
            if epoch == 70 {
                changes.extend((0..1000).map(|v| (1000 + v, 1)));
            }
            if epoch % 11 == 0 {
                changes.clear();
            }
            let changes = change(&changes);
            table.apply(&changes).expect("applies");
            history.record(Epoch(epoch), &[changes]).expect("fits");
            let now = content(&table, &history, epoch);
            was.push(now);
        }
        assert!(history.entries.len() < 100, "small ones are put together");
        for (epoch, was) in was.iter().enumerate() {
            assert_eq!(content(&table, &history, epoch as u64), *was, "epoch {epoch}");
        }
        history.forget(Epoch(100));
        assert_eq!(history.since(Epoch(99)).expect_err("forgotten"), Forgotten(Epoch(100)));
        assert_eq!(content(&table, &history, 100), was[100]);
        let epochs: Vec<u64> = history.changes_since(Epoch(250)).iter().map(|c| c.0.0).collect();
        assert_eq!(epochs.len(), 49 - 5, "each with changes, once");
        assert!(epochs.is_sorted() && epochs[0] == 251);
        drop(history);
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn of_rows_that_only_come_a_count_is_kept() {
        let mut history = History::new(schema(), true, Epoch(5), HistoryBudget::new(1 << 20));
        let mut table = MultiTable::append_only(schema());
        for epoch in 6..40u64 {
            let changes = change(&[(epoch as i64, 2), (epoch as i64 + 100, 1)]);
            table.apply(&changes).expect("applies");
            history.record(Epoch(epoch), &[changes]).expect("fits");
        }
        assert_eq!(content(&table, &history, 7), [6, 6, 7, 7, 106, 107]);
        assert_eq!(content(&table, &history, 5), [] as [i64; 0]);
        assert_eq!(history.counts_since(Epoch(38)), [(Epoch(39), 3)]);
        assert!(history.memory_bytes() < 8192);
    }

    #[test]
    fn the_budget_is_kept_and_what_is_left_is_exact() {
        let budget = HistoryBudget::new(100_000);
        let mut history = History::new(schema(), false, Epoch(0), budget.clone());
        let mut table = MultiTable::bag(schema()).expect("integers");
        for epoch in 1..200u64 {
            let rows: Vec<_> = (0..600).map(|v| (epoch as i64 * 1000 + v, 1)).collect();
            let changes = change(&rows);
            table.apply(&changes).expect("applies");
            history.record(Epoch(epoch), &[changes]).expect("fits");
            assert!(!budget.is_exceeded());
        }
        let floor = history.floor().0;
        assert!((150..199).contains(&floor), "{floor}");
        assert_eq!(content(&table, &history, floor).len() as u64, floor * 600);
        assert!(history.since(Epoch(floor - 1)).is_err());
        history.turn_off();
        history.record(Epoch(200), &[change(&[(1, 1)])]).expect("fits");
        assert_eq!((history.floor(), history.memory_bytes()), (Epoch(200), 0));
    }
}
