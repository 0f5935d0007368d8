//! Reads a worker's share of a source on a thread of its own, beside the worker.
//!
//! The thread opens the splits that belong to the worker, reads them in turn and hands batches
//! over through a bounded queue: when the worker does not take them, reading stops. A source that
//! grows is asked for new splits from time to time. Dropping the reader ends the thread.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::connectors::{
    Offset, PacedSince, Read, ReadRange, Source, SourceRows, SplitId, SplitReader,
};
use crate::types::error::{Error, Result};

/// Rows asked of a split at a time: a batch is big enough for the kernels and small enough to be
/// worked on while it is in the cache.
const BATCH_ROWS: usize = 8192;
/// Batches in the queue. The reader works ahead while the worker computes, and no further.
const QUEUE_BATCHES: usize = 8;
/// How often a source that grows is asked for new splits.
const DISCOVERY_INTERVAL: Duration = Duration::from_millis(500);
/// Longest sleep while nothing arrives: the delay with which a dropped reader's thread ends.
const SLEEP_MAX: Duration = Duration::from_millis(50);
/// How often a split that waits for others is looked at.
const PAUSE: Duration = Duration::from_millis(2);
/// Wait after an error of the outside world before the split is opened again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// What the reader hands over.
#[derive(Debug)]
pub enum ReaderItem {
    /// The splits of this share that are known now: before any of their rows, and again when
    /// there are more.
    Splits(Vec<SplitId>),
    Rows {
        split: SplitId,
        rows: SourceRows,
    },
    /// A split has ended (or reached `until`).
    End {
        split: SplitId,
    },
    /// All splits of this share have ended, and there will be no others.
    Finished,
    /// A split could not be read; it is tried again.
    Failed {
        place: String,
        error: Error,
    },
}

/// Which share of which source to read.
pub struct ReadJob {
    pub source: Arc<dyn Source>,
    /// For the thread's name.
    pub name: String,
    pub worker: usize,
    pub workers: usize,
    /// Where to go on, per split.
    pub from: BTreeMap<SplitId, Offset>,
    /// When the reading began, and where, per split; an earlier reader may have come further.
    pub began: Began,
    /// Where to stop, per split; splits that are not named are not read. `None`: read on.
    pub until: Option<BTreeMap<SplitId, Offset>>,
    /// Columns of the connector's schema.
    pub columns: Vec<usize>,
    /// Splits that are to wait.
    pub paused: Paused,
    /// Called after each item.
    pub notify: Arc<dyn Fn() + Send + Sync>,
}

/// Splits that are so far ahead of the others that they are not read further for now. Clones are
/// the same list.
#[derive(Clone, Default)]
pub struct Paused(Arc<Mutex<BTreeSet<SplitId>>>);

impl Paused {
    /// Lets exactly these wait.
    pub fn set(&self, splits: BTreeSet<SplitId>) {
        *self.0.lock().expect("nobody panics while holding it") = splits;
    }

    fn contains(&self, split: &SplitId) -> bool {
        self.0.lock().expect("nobody panics while holding it").contains(split)
    }
}

/// The beginning of a reading. A reader that takes over from another keeps it, so that a source
/// of so many rows per second keeps its pace.
#[derive(Clone, Debug)]
pub struct Began {
    pub at: Instant,
    pub places: BTreeMap<SplitId, Offset>,
}

impl Began {
    /// A reading that begins now.
    #[expect(clippy::disallowed_methods, reason = "pacing of reads is not data")]
    pub fn now(places: BTreeMap<SplitId, Offset>) -> Began {
        Began { at: Instant::now(), places }
    }
}

/// The worker's end of the queue.
pub struct SourceReader {
    items: Receiver<ReaderItem>,
    /// Dropping it wakes and ends the thread.
    _stop: Sender<()>,
}

impl SourceReader {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(job: ReadJob) -> Result<SourceReader> {
        let (sender, items) = bounded(QUEUE_BATCHES);
        let (stop_sender, stop) = bounded(1);
        thread::Builder::new()
            .name(format!("read {}", job.name))
            .spawn(move || Reading { job, sender, stop, open: BTreeMap::new() }.run())?;
        Ok(SourceReader { items, _stop: stop_sender })
    }

    /// The next item, if there is one now.
    pub fn try_next(&self) -> Option<ReaderItem> {
        self.items.try_recv().ok()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

/// One split that is being read.
enum Open {
    Reading { reader: Box<dyn SplitReader>, idle_until: Option<Instant>, offset: Option<Offset> },
    Broken { retry_at: Instant, offset: Option<Offset> },
    Ended,
}

struct Reading {
    job: ReadJob,
    sender: Sender<ReaderItem>,
    stop: Receiver<()>,
    open: BTreeMap<SplitId, Open>,
}

/// The worker has dropped its end.
struct Stopped;

impl Reading {
    fn run(mut self) {
        // Stopped is the ordinary end of an unbounded reading.
        let _ = self.read_all();
    }

    fn read_all(&mut self) -> Result<(), Stopped> {
        let mut discovered_at: Option<Instant> = None;
        loop {
            #[expect(clippy::disallowed_methods, reason = "pacing of reads is not data")]
            let now = Instant::now();
            let growing = self.job.until.is_none() && !self.job.source.bounded();
            let discovery_due = match discovered_at {
                None => true,
                Some(at) => growing && now.duration_since(at) >= DISCOVERY_INTERVAL,
            };
            if discovery_due {
                let first = discovered_at.replace(now).is_none();
                if !self.discover(first, now)? {
                    discovered_at = None;
                    self.sleep(RETRY_INTERVAL)?;
                    continue;
                }
            }
            let mut wait = SLEEP_MAX;
            let mut progressed = false;
            let splits: Vec<SplitId> = self.open.keys().cloned().collect();
            for split in splits {
                match self.read_one(&split, now)? {
                    Step::Progress => progressed = true,
                    Step::Wait(time) => wait = wait.min(time),
                    Step::Ended => {}
                }
            }
            if !growing && self.open.values().all(|o| matches!(o, Open::Ended)) {
                return self.send(ReaderItem::Finished);
            }
            if !progressed {
                self.sleep(wait)?;
            }
        }
    }

    /// Opens splits of this share that are new; false when the source cannot tell.
    fn discover(&mut self, first: bool, now: Instant) -> Result<bool, Stopped> {
        let splits = match self.job.source.splits() {
            Ok(splits) => splits,
            Err(error) => {
                self.send(ReaderItem::Failed { place: self.job.name.clone(), error })?;
                return Ok(false);
            }
        };
        let known = self.open.len();
        for split in splits {
            let wanted = self.job.until.as_ref().is_none_or(|until| until.contains_key(&split));
            if owner_of(&split, self.job.workers) == self.job.worker && wanted {
                let offset = self.job.from.get(&split).cloned();
                if let Entry::Vacant(new) = self.open.entry(split) {
                    new.insert(Open::Broken { retry_at: now, offset });
                }
            }
        }
        if first || self.open.len() > known {
            self.send(ReaderItem::Splits(self.open.keys().cloned().collect()))?;
        }
        Ok(true)
    }

    fn read_one(&mut self, split: &SplitId, now: Instant) -> Result<Step, Stopped> {
        let state = self.open.get_mut(split).expect("only known splits are read");
        let offset = match state {
            Open::Ended => return Ok(Step::Ended),
            Open::Broken { retry_at, offset } => {
                if *retry_at > now {
                    return Ok(Step::Wait(*retry_at - now));
                }
                let range = ReadRange {
                    from: offset.clone(),
                    until: self.job.until.as_ref().and_then(|u| u.get(split).cloned()),
                    columns: self.job.columns.clone(),
                    paced_since: Some(PacedSince {
                        started: self.job.began.at,
                        from: self.job.began.places.get(split).cloned(),
                    }),
                };
                match self.job.source.open(split, range) {
                    Ok(reader) => {
                        let offset = offset.clone();
                        *state = Open::Reading { reader, idle_until: None, offset };
                        return Ok(Step::Progress);
                    }
                    Err(error) => return self.broken(split, error, now),
                }
            }
            Open::Reading { .. } if self.job.paused.contains(split) => {
                return Ok(Step::Wait(PAUSE));
            }
            Open::Reading { idle_until: Some(until), .. } if *until > now => {
                return Ok(Step::Wait(*until - now));
            }
            Open::Reading { reader, idle_until, offset } => {
                *idle_until = None;
                match reader.read(BATCH_ROWS) {
                    Ok(Read::Rows(rows)) => {
                        *offset = Some(rows.offset.clone());
                        self.send(ReaderItem::Rows { split: split.clone(), rows })?;
                        return Ok(Step::Progress);
                    }
                    Ok(Read::Idle(time)) => {
                        *idle_until = Some(now + time);
                        return Ok(Step::Wait(time));
                    }
                    Ok(Read::End) => None,
                    Err(error) => Some(error),
                }
            }
        };
        match offset {
            Some(error) => self.broken(split, error, now),
            None => {
                self.open.insert(split.clone(), Open::Ended);
                self.send(ReaderItem::End { split: split.clone() })?;
                Ok(Step::Ended)
            }
        }
    }

    fn broken(&mut self, split: &SplitId, error: Error, now: Instant) -> Result<Step, Stopped> {
        let offset = match self.open.remove(split) {
            Some(Open::Reading { offset, .. } | Open::Broken { offset, .. }) => offset,
            Some(Open::Ended) | None => None,
        };
        let retry_at = now + RETRY_INTERVAL;
        self.open.insert(split.clone(), Open::Broken { retry_at, offset });
        self.send(ReaderItem::Failed { place: split.0.clone(), error })?;
        Ok(Step::Wait(RETRY_INTERVAL))
    }

    fn send(&self, item: ReaderItem) -> Result<(), Stopped> {
        self.sender.send(item).map_err(|_| Stopped)?;
        (self.job.notify)();
        Ok(())
    }

    fn sleep(&self, time: Duration) -> Result<(), Stopped> {
        match self.stop.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Err(Stopped),
        }
    }
}

enum Step {
    Progress,
    Wait(Duration),
    Ended,
}

/// Which worker reads a split: the splits of one source in turn when they are numbered, so that
/// few splits spread evenly; by the hash of their name otherwise.
pub fn owner_of(split: &SplitId, workers: usize) -> usize {
    let number = split.0.parse::<u64>().unwrap_or_else(|_| {
        split.0.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    });
    (number % workers as u64) as usize
}
