//! Where the changes of one object meet the dataflows that read it, on one worker.
//!
//! A table's changes come with the command that closes their epoch, a source's rows as they are
//! read, a view's from its `materialize`. Each reader has an inbox that its scan operator drains.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use arrow::array::{RecordBatch, RecordBatchOptions};

use crate::plan::null_on_error::nullable;
use crate::state::snapshot::Snapshot;
use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use crate::types::id::ObjectId;
use crate::types::time::{Epoch, Watermark};

/// What a scan gives on.
pub enum Change {
    Rows(ChangeBatch),
    /// Of all rows up to the end of its epoch.
    Watermark(Watermark),
}

/// What waits for one scan operator.
pub struct Inbox {
    pub object: ObjectId,
    /// The object's columns that the scan wants, in order.
    pub columns: Vec<usize>,
    /// Batches of exactly these columns and watermarks, each with its epoch.
    queue: VecDeque<(Epoch, Change)>,
    /// No batch of an earlier epoch will come.
    frontier: Epoch,
    /// Rows of epochs up to this one are none of the scan's: whoever reads it has them in an index.
    mute_until: Option<Epoch>,
    /// Schedules the scan.
    wake: Option<Box<dyn Fn()>>,
}

impl Inbox {
    pub fn new(object: ObjectId, columns: Vec<usize>, as_of: Epoch) -> Inbox {
        Inbox {
            object,
            columns,
            queue: VecDeque::new(),
            frontier: as_of,
            mute_until: None,
            wake: None,
        }
    }

    pub fn on_change(&mut self, wake: impl Fn() + 'static) {
        self.wake = Some(Box::new(wake));
    }

    fn wake(&self) {
        if let Some(wake) = &self.wake {
            wake();
        }
    }

    /// Takes no rows of epochs up to this one.
    pub fn mute_until(&mut self, epoch: Epoch) {
        self.mute_until = Some(epoch);
    }

    /// Adds a batch that has the scan's columns.
    pub fn push(&mut self, epoch: Epoch, batch: ChangeBatch) {
        if self.mute_until.is_some_and(|until| epoch <= until) {
            return;
        }
        assert!(epoch >= self.frontier, "a batch before the frontier of its scan");
        if !batch.is_empty() {
            self.queue.push_back((epoch, Change::Rows(batch)));
            self.wake();
        }
    }

    /// Adds the object's watermark at the end of `epoch`.
    pub fn push_watermark(&mut self, epoch: Epoch, watermark: Watermark) {
        assert!(epoch >= self.frontier, "a watermark before the frontier of its scan");
        self.queue.push_back((epoch, Change::Watermark(watermark)));
        self.wake();
    }

    /// Promises that nothing before `frontier` will come.
    pub fn advance(&mut self, frontier: Epoch) {
        if frontier > self.frontier {
            self.frontier = frontier;
            self.wake();
        }
    }

    pub fn frontier(&self) -> Epoch {
        self.frontier
    }

    pub fn take(&mut self) -> VecDeque<(Epoch, Change)> {
        std::mem::take(&mut self.queue)
    }
}

/// The readers of one object.
#[derive(Default)]
pub struct Hub {
    readers: Vec<Weak<RefCell<Inbox>>>,
    /// The object's watermark at the end of the newest epoch that moved it.
    watermark: Option<Watermark>,
}

impl Hub {
    pub fn subscribe(&mut self, inbox: &Rc<RefCell<Inbox>>) {
        self.readers.push(Rc::downgrade(inbox));
    }

    /// Takes out the readers that know the object by this id.
    pub fn readers_as(&mut self, id: ObjectId) -> Vec<Rc<RefCell<Inbox>>> {
        let readers: Vec<_> = self.readers.iter().filter_map(Weak::upgrade).collect();
        let (those, others): (Vec<_>, Vec<_>) =
            readers.into_iter().partition(|inbox| inbox.borrow().object == id);
        self.readers = others.iter().map(Rc::downgrade).collect();
        those
    }

    /// What was announced last; a new reader is told of it after the content that it begins with.
    pub fn watermark(&self) -> Option<Watermark> {
        self.watermark
    }

    /// Tells every reader the object's watermark at the end of `epoch`. It never goes back.
    pub fn announce(&mut self, epoch: Epoch, watermark: Watermark) {
        if self.watermark.is_some_and(|known| known >= watermark) {
            return;
        }
        self.watermark = Some(watermark);
        for inbox in self.readers.iter().filter_map(Weak::upgrade) {
            inbox.borrow_mut().push_watermark(epoch, watermark);
        }
    }

    /// What had been announced before the start.
    pub fn resume_at(&mut self, watermark: Watermark) {
        assert!(self.watermark.is_none(), "a fresh object is resumed");
        self.watermark = Some(watermark);
    }

    /// The object begins anew: nobody reads it any more.
    pub fn forget_watermark(&mut self) {
        self.watermark = None;
    }

    /// Takes the readers of `old`, whose content was `before` and is `now` from `epoch` on; they
    /// get the difference. `columns` says where each of the old columns is now.
    ///
    /// # Errors
    /// When columns that are read have other types than before (ours).
    pub fn take_over(
        &mut self,
        old: &mut Hub,
        epoch: Epoch,
        columns: &[Option<usize>],
        before: &Snapshot,
        now: &Snapshot,
    ) -> Result<()> {
        for reader in std::mem::take(&mut old.readers) {
            let Some(inbox) = reader.upgrade() else { continue };
            let mut inbox = inbox.borrow_mut();
            let moved: Option<Vec<usize>> = inbox.columns.iter().map(|c| columns[*c]).collect();
            // Who reads what has gone is about to go, too.
            let Some(moved) = moved else { continue };
            let mut changes = Vec::new();
            for rows in before.batches_of(inbox.columns.clone()) {
                changes.push(ChangeBatch::deletes(rows?));
            }
            for rows in now.batches_of(moved.clone()) {
                changes.push(ChangeBatch::inserts(rows?));
            }
            if let Some(schema) = changes.last().map(|batch| nullable(&batch.schema())) {
                let changes = changes
                    .into_iter()
                    .map(|batch| {
                        let rows = batch.rows();
                        let options =
                            RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
                        let columns = rows.columns().to_vec();
                        let rows =
                            RecordBatch::try_new_with_options(schema.clone(), columns, &options)?;
                        Ok(batch.with_rows(rows))
                    })
                    .collect::<Result<Vec<_>>>()?;
                inbox.push(epoch, ChangeBatch::concat(&schema, &changes)?.consolidate()?);
            }
            inbox.columns = moved;
            drop(inbox);
            self.readers.push(reader);
        }
        // Readers have been told of it, and a watermark never goes back.
        self.watermark = self.watermark.max(old.watermark);
        Ok(())
    }

    /// Whether anybody reads.
    pub fn has_readers(&self) -> bool {
        self.readers.iter().any(|reader| reader.strong_count() > 0)
    }

    /// The columns that the readers want, ascending.
    pub fn wanted_columns(&self) -> Vec<usize> {
        let mut wanted: Vec<usize> = self
            .readers
            .iter()
            .filter_map(Weak::upgrade)
            .flat_map(|inbox| inbox.borrow().columns.clone())
            .collect();
        wanted.sort_unstable();
        wanted.dedup();
        wanted
    }

    /// Gives every reader its columns of `batch`, whose columns are the object's columns
    /// `present` (ascending); `None`: all of them.
    pub fn push(
        &mut self,
        epoch: Epoch,
        batch: &ChangeBatch,
        present: Option<&[usize]>,
    ) -> Result<()> {
        self.readers.retain(|reader| reader.strong_count() > 0);
        for inbox in self.readers.iter().filter_map(Weak::upgrade) {
            let mut inbox = inbox.borrow_mut();
            let part = match present {
                None => batch.project(&inbox.columns)?,
                Some(present) => {
                    let positions: Vec<usize> = inbox
                        .columns
                        .iter()
                        .map(|c| present.binary_search(c).expect("wanted columns are read"))
                        .collect();
                    batch.project(&positions)?
                }
            };
            inbox.push(epoch, part);
        }
        Ok(())
    }
}
