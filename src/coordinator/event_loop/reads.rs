//! Reads of the newest epoch: what tables and workers have of it is put together, and told when it
//! is durable.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use tokio::sync::oneshot;

use super::creation::dependency_gone;
use super::handle::stopping;
use super::requests::Reply;
use super::{Running, RunningKind, State};
use crate::coordinator::rows::overlay;
use crate::coordinator::table::Table;
use crate::dataflow::published::ContentAt;
use crate::dataflow::worker::Command;
use crate::state::history::Forgotten;
use crate::state::snapshot::Snapshot;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};
use crate::types::id::ObjectId;
use crate::types::time::{At, Epoch};

/// The content of objects at one epoch. Holding it costs memory only, and stops nobody.
#[derive(Clone, Debug)]
pub struct ReadView {
    pub epoch: Epoch,
    /// Live rows of each object; a row of weight n stands n times.
    pub contents: HashMap<ObjectId, Vec<RecordBatch>>,
}

/// The content of one object at the epoch of a [`Coordinator::pin`]: a list of segments that others
/// hold, too.
pub enum Pinned {
    /// Its parts: one of a table, one from each worker of a view.
    Taken {
        parts: Vec<Snapshot>,
        /// How often the table had been written to; `None` for a view.
        version: Option<u64>,
        /// Told when what the table has is durable; `None` when it was.
        durable: Option<oneshot::Receiver<Result<()>>>,
    },
    /// The workers have not computed the epoch yet.
    Waiting(oneshot::Receiver<Result<RawView>>),
    Failed(Error),
}

impl Pinned {
    /// Its parts. May be dropped while it waits, and be asked again.
    ///
    /// # Errors
    /// When the object cannot be read.
    pub async fn parts(&mut self) -> Result<Vec<Snapshot>> {
        if let Pinned::Waiting(answer) = self {
            *self = match answer.await.unwrap_or_else(|_| Err(stopping())) {
                Ok(view) => {
                    let parts = view.parts.into_iter().map(|(_, part)| part).collect();
                    Pinned::Taken { parts, version: None, durable: None }
                }
                Err(error) => Pinned::Failed(error),
            };
        }
        if let Pinned::Taken { durable: waiting @ Some(_), .. } = self {
            let durable = match waiting {
                Some(waiting) => waiting.await.unwrap_or_else(|_| Err(stopping())),
                None => Ok(()),
            };
            *waiting = None;
            if let Err(error) = durable {
                *self = Pinned::Failed(error);
            }
        }
        match self {
            Pinned::Taken { parts, .. } => Ok(parts.clone()),
            Pinned::Failed(error) => Err(error.clone()),
            Pinned::Waiting(_) => Err(Error::internal("what is pinned has been waited for above")),
        }
    }

    /// Live rows; a row of weight n stands n times. As [`Self::parts`].
    ///
    /// # Errors
    /// When the object cannot be read.
    pub async fn rows(&mut self) -> Result<Vec<RecordBatch>> {
        self.parts().await?.iter().flat_map(Snapshot::batches).collect()
    }
}

/// A read's parts as they were taken, before rows are picked out.
pub struct RawView {
    pub(super) epoch: Epoch,
    /// Per table one part, per view one from each worker.
    pub(super) parts: Vec<(ObjectId, Snapshot)>,
    /// What is in the parts and came after the epoch.
    pub(super) later: HashMap<ObjectId, Vec<ChangeBatch>>,
}

impl RawView {
    /// The rows of each object at the epoch.
    pub(super) fn into_read_view(self) -> Result<ReadView> {
        let mut contents: HashMap<ObjectId, Vec<RecordBatch>> = HashMap::new();
        for (object, part) in self.parts {
            let batches = part.batches().collect::<Result<Vec<_>>>()?;
            contents.entry(object).or_default().extend(batches);
        }
        for (object, later) in self.later {
            let (Some(change), Some(rows)) = (later.first(), contents.get_mut(&object)) else {
                continue;
            };
            let back: Vec<ChangeBatch> = later.iter().map(ChangeBatch::negate).collect();
            *rows = overlay(rows, &change.schema(), &back)?;
        }
        Ok(ReadView { epoch: self.epoch, contents })
    }
}

/// Which epochs a subscription shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    /// It begins with the content then; `None`: now.
    pub as_of: Option<At>,
    /// It ends before this; `None`: never.
    pub up_to: Option<At>,
}

pub(super) struct PendingRead {
    pub(super) view: RawView,
    /// Answers still to come, per view.
    pub(super) missing: BTreeMap<ObjectId, usize>,
    /// The record of the log that must be durable before the answer.
    pub(super) horizon: u64,
    pub(super) reply: Reply<RawView>,
}

pub(super) struct BeganRead {
    pub(super) view: RawView,
    pub(super) missing: BTreeMap<ObjectId, usize>,
}

impl State {
    pub(super) fn read(&mut self, objects: Vec<ObjectId>, reply: Reply<RawView>) {
        self.close_written();
        let horizon = self.read_horizon(&objects);
        match self.begin_read(&objects) {
            Ok(began) => self.go_on_reading(began, horizon, reply),
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }

    /// Acknowledged writes must be in what is read, so they must be in a closed epoch.
    pub(super) fn close_written(&mut self) {
        if !self.changes.is_empty() {
            self.close_epoch(!self.wants_quiet());
        }
    }

    /// Answers when nothing is missing, else asks the workers.
    pub(super) fn go_on_reading(&mut self, began: BeganRead, horizon: u64, reply: Reply<RawView>) {
        let BeganRead { view, missing } = began;
        if missing.is_empty() {
            return self.answer_read(horizon, view, reply);
        }
        let request = self.next_read;
        self.next_read += 1;
        let objects = Arc::new(missing.keys().copied().collect());
        self.reads.insert(request, PendingRead { view, missing, horizon, reply });
        self.workers.send(Command::Snapshot { request, objects, epoch: None });
    }

    /// One read for each object, all of the same epoch: nothing is closed in between.
    pub(super) fn pin(&mut self, objects: &[ObjectId]) -> HashMap<ObjectId, Pinned> {
        self.close_written();
        let mut pinned = HashMap::with_capacity(objects.len());
        for object in objects {
            let horizon = self.read_horizon(&[*object]);
            let content = match self.begin_read(&[*object]) {
                Ok(BeganRead { view, missing }) if missing.is_empty() => Pinned::Taken {
                    parts: view.parts.into_iter().map(|(_, part)| part).collect(),
                    version: self.tables.get(object).map(Table::version),
                    durable: self.wait_for_log(horizon),
                },
                Ok(began) => {
                    let (reply, answer) = oneshot::channel();
                    self.go_on_reading(began, horizon, reply);
                    Pinned::Waiting(answer)
                }
                Err(error) => Pinned::Failed(error),
            };
            pinned.insert(*object, content);
        }
        pinned
    }

    /// Takes what is at hand and lists the views whose workers must be asked.
    pub(super) fn begin_read(&mut self, objects: &[ObjectId]) -> Result<BeganRead> {
        let epoch = self.epochs.closed();
        let mut view = RawView { epoch, parts: Vec::new(), later: HashMap::new() };
        let mut missing = BTreeMap::new();
        for object in objects {
            let running = self.running.get(object).ok_or_else(|| dependency_gone("the query"))?;
            if let Some(error) = &running.failed {
                return Err(error.clone().context("a materialized view has stopped"));
            }
            match &running.kind {
                RunningKind::Table => {
                    let table = self.tables.get_mut(object).expect("a running table has rows");
                    view.parts.push((*object, table.snapshot()));
                }
                RunningKind::View { last_affected, snapshot } => match snapshot {
                    Some((taken, parts)) if taken >= last_affected => {
                        view.parts.extend(parts.iter().map(|part| (*object, part.clone())));
                    }
                    _ => {
                        missing.insert(*object, self.workers.count());
                    }
                },
                RunningKind::Source { .. } | RunningKind::Subscription { .. } => {
                    return Err(Error::internal("sources are not read through the coordinator"));
                }
            }
        }
        Ok(BeganRead { view, missing })
    }

    pub(super) fn snapshot_arrived(
        &mut self,
        request: u64,
        object: ObjectId,
        content: Option<std::result::Result<ContentAt, Forgotten>>,
    ) {
        let Some(content) = content else {
            if let Some(read) = self.reads.remove(&request) {
                let _ = read.reply.send(Err(dependency_gone("the query")));
            }
            return;
        };
        let Some(content) = self.snapshot_or_too_old(request, content, object) else { return };
        let read = self.reads.get_mut(&request).expect("just found");
        read.view.parts.push((object, content));
        let left = read.missing.get_mut(&object).expect("only asked objects answer");
        *left -= 1;
        if *left == 0 {
            read.missing.remove(&object);
            let parts: Vec<Snapshot> = read
                .view
                .parts
                .iter()
                .filter(|(other, _)| *other == object)
                .map(|(_, part)| part.clone())
                .collect();
            let taken = read.view.epoch;
            if let Some(Running { kind: RunningKind::View { last_affected, snapshot }, .. }) =
                self.running.get_mut(&object)
                && taken >= *last_affected
            {
                // Nothing came later, so the parts are the content.
                *snapshot = Some((taken, parts));
            }
        }
        if read.missing.is_empty() {
            let read = self.reads.remove(&request).expect("just found");
            self.answer_read(read.horizon, read.view, read.reply);
        }
    }

    /// Answers a read when what it saw is durable.
    pub(super) fn answer_read(&mut self, horizon: u64, view: RawView, reply: Reply<RawView>) {
        self.hold(horizon, false, move |durable| {
            // The client may have gone.
            let _ = reply.send(durable.map(|()| view));
        });
    }

    /// The errors of an epoch are told before it is computed.
    pub(super) fn answer_error_reads(&mut self) {
        let computed = self.epochs.computed();
        for (epoch, reply) in std::mem::take(&mut self.error_reads) {
            if computed >= epoch {
                // The client may have gone.
                let _ = reply.send(self.errors.records());
            } else {
                self.error_reads.push((epoch, reply));
            }
        }
    }
}
