//! Sinks: from the changes that a checkpoint takes to the writers that bring them to their targets.
//!
//! ```text
//!  dataflow --checkpoint--> handed over --manifest--> staged: open --sealed--> the writer's queue
//! ```
//!
//! 1. At a checkpoint the dataflow of a sink hands over what has come since the last one, and the
//!    cut has it with everything else (`checkpoints.rs`, `storage::sinks`).
//! 2. When the manifest is there, the changes join the sink's open group. A group is sealed by a
//!    checkpoint: by the one that its changes come with, or when it is old or large enough, or when
//!    somebody has asked for a checkpoint. A sealed batch goes to the sink's writer
//!    (`coordinator::sink_writer`), which has all the time it needs.
//! 3. What the target has is noted by the next checkpoint; that there is one is seen to.
//!
//! Without a storage everything is as good as durable at once: sinks alone hand over, in the same
//! rhythm, and nothing is written in between.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use super::durable::StorageEvent;
use super::{Reply, State};
use crate::catalog::object::{Object, ObjectKind};
use crate::connectors::sink::{self, CommitRule, SinkInput};
use crate::coordinator::epoch::Moment;
use crate::coordinator::sink_writer::{Part, SealedBatch, SinkStatus, SinkWriter, WriterStart};
use crate::dataflow::worker::DataflowResult;
use crate::plan::node::Plan;
use crate::storage::manifest::FileRef;
use crate::storage::sinks::{BatchId, Owed, SinkCut, SinkState};
use crate::storage::store::Store;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};
use crate::types::id::ObjectId;
use crate::types::time::Epoch;

/// How often sinks hand over without a storage.
const HAND_OVER_EVERY: Duration = Duration::from_secs(1);

/// A sink, for whoever looks.
pub struct SinkFact {
    pub object: ObjectId,
    pub status: SinkStatus,
    /// Rows of the group that is not sealed.
    pub open_rows: u64,
    /// Why nothing comes to it any more.
    pub stopped: Option<Error>,
    /// A checkpoint has begun with it: not so while it is being filled.
    pub begun: bool,
    /// Follows the status.
    pub watch: watch::Receiver<SinkStatus>,
}

/// All sinks.
#[derive(Default)]
pub(super) struct Sinks {
    runtime: Option<Handle>,
    /// Where batches are staged, and in whose name.
    store: Option<(Store, u64)>,
    running: BTreeMap<ObjectId, RunningSink>,
    /// Without a storage: who waits for sinks to hand over, and when they do next.
    pub(super) wanted: Vec<Reply<()>>,
    pub(super) next_hand_over: Moment,
}

struct RunningSink {
    input: SinkInput,
    rule: CommitRule,
    forgets: bool,
    writer: SinkWriter,
    /// The group that is not sealed, and since when there is something in it.
    open: Vec<Part>,
    open_since: Moment,
    /// A checkpoint has begun with it.
    begun: bool,
    /// Deletions of the rows that it has given, until it has begun again.
    owed: Option<Owing>,
    /// What the newest cut says that the target has.
    noted: Option<BatchId>,
}

/// What a sink that is computed again has given before.
struct Owing {
    deletions: Vec<ChangeBatch>,
    /// A cut has them already.
    stored: bool,
}

/// What a cut has of the sinks, to be passed on when it is durable.
pub(super) struct HandedOver {
    epoch: Epoch,
    sinks: BTreeMap<ObjectId, Handed>,
}

struct Handed {
    changes: Vec<ChangeBatch>,
    seal: bool,
}

impl RunningSink {
    /// When its open group is old enough.
    fn seal_at(&self) -> Option<Moment> {
        let interval_us = self.rule.interval_us.filter(|_| !self.open.is_empty())?;
        let interval = Duration::from_micros(u64::try_from(interval_us).unwrap_or(0));
        Some(self.open_since.saturating_add(interval))
    }

    /// Whether the group is sealed with `more` rows and bytes.
    fn seals(&self, now: Moment, more: (u64, u64), asked: bool) -> bool {
        if self.open.is_empty() && more.0 == 0 {
            return false;
        }
        let rows = self.open.iter().map(|part| part.rows).sum::<u64>() + more.0;
        let bytes = self.open.iter().map(|part| part.bytes).sum::<u64>() + more.1;
        asked
            || self.rule.interval_us.is_none()
            || self.seal_at().is_some_and(|at| at <= now)
            || self.rule.rows.is_some_and(|max| rows >= max)
            || self.rule.bytes.is_some_and(|max| bytes >= max)
    }
}

impl Sinks {
    /// `store`: none without a storage.
    pub(super) fn over(runtime: Option<Handle>, store: Option<(Store, u64)>) -> Sinks {
        Sinks { runtime, store, ..Sinks::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    pub(super) fn has(&self, sink: ObjectId) -> bool {
        self.running.contains_key(&sink)
    }

    /// What its dataflow does with its changes.
    pub(super) fn dataflow_result(&self, sink: ObjectId) -> DataflowResult {
        let sink = self.running.get(&sink);
        DataflowResult::Sink {
            snapshot: sink.is_none_or(|sink| sink.rule.snapshot || sink.owed.is_some()),
            forgets: sink.is_some_and(|sink| sink.forgets),
        }
    }

    /// Takes a sink away; what it has not written out is gone.
    pub(super) fn remove(&mut self, sink: ObjectId) {
        self.running.remove(&sink);
    }

    pub(super) fn clear(&mut self) {
        self.running.clear();
    }

    /// Whether a checkpoint has something to do for them that no change asks for.
    pub(super) fn dirty(&self, now: Moment) -> bool {
        let dirty = |sink: &RunningSink| {
            let committed = sink.writer.status().committed;
            committed > sink.noted || sink.seal_at().is_some_and(|at| at <= now)
        };
        self.running.values().any(dirty)
    }

    /// When an open group will be old enough.
    pub(super) fn seal_at(&self) -> Option<Moment> {
        self.running.values().filter_map(RunningSink::seal_at).min()
    }

    /// The sinks' part of a cut. `asked`: somebody waits for it. `kept`: those whose dataflow is in
    /// the cut.
    pub(super) fn cut(
        &mut self,
        now: Moment,
        epoch: Epoch,
        mut changes: BTreeMap<ObjectId, Vec<ChangeBatch>>,
        asked: bool,
        kept: impl Fn(ObjectId) -> bool,
    ) -> (BTreeMap<ObjectId, SinkCut>, HandedOver) {
        let mut cuts = BTreeMap::new();
        let mut handed = HandedOver { epoch, sinks: BTreeMap::new() };
        for (id, sink) in &mut self.running {
            sink.begun |= kept(*id);
            let mut changes = changes.remove(id).unwrap_or_default();
            let owed = match &mut sink.owed {
                None if !sink.begun => continue,
                Some(owing) if sink.begun => {
                    changes.append(&mut owing.deletions);
                    sink.owed = None;
                    Owed::None
                }
                None => Owed::None,
                Some(Owing { stored: true, .. }) => Owed::Unchanged,
                Some(owing) => {
                    owing.stored = true;
                    Owed::New(owing.deletions.clone())
                }
            };
            let rows = changes.iter().map(|batch| batch.num_rows() as u64).sum();
            let bytes = changes.iter().map(|batch| batch.size_bytes() as u64).sum();
            let seal = sink.seals(now, (rows, bytes), asked);
            let status = sink.writer.status();
            sink.noted = status.committed;
            let cut = SinkCut {
                schema: sink.input.schema.clone(),
                changes: changes.clone(),
                seal,
                committed: status.committed,
                rows: status.rows,
                bytes: status.bytes,
                owed,
                unstaged: sink.forgets,
            };
            cuts.insert(*id, cut);
            if seal || !changes.is_empty() {
                handed.sinks.insert(*id, Handed { changes, seal });
            }
        }
        (cuts, handed)
    }

    /// What a cut had is durable, in these files.
    pub(super) fn staged(
        &mut self,
        now: Moment,
        time: crate::types::time::EventTime,
        handed: HandedOver,
        mut files: BTreeMap<ObjectId, FileRef>,
    ) {
        let generation = self.store.as_ref().map_or(0, |(_, generation)| *generation);
        for (id, Handed { changes, seal }) in handed.sinks {
            let Some(sink) = self.running.get_mut(&id) else { continue };
            let file = files.remove(&id);
            let rows = changes.iter().map(|batch| batch.num_rows() as u64).sum();
            let bytes: usize = changes.iter().map(ChangeBatch::size_bytes).sum();
            // Without a file they have cancelled each other, or have no other place.
            let stored = self.store.is_some() && !sink.forgets;
            if !changes.is_empty() && (file.is_some() || !stored) {
                if sink.open.is_empty() {
                    sink.open_since = now;
                }
                let held: usize = sink
                    .open
                    .iter()
                    .filter_map(|p| p.changes.as_ref())
                    .flatten()
                    .map(ChangeBatch::size_bytes)
                    .sum();
                let keep = file.is_none() || sink.writer.has_room(bytes + held);
                let changes = keep.then_some(changes);
                sink.open.push(Part { rows, bytes: bytes as u64, changes, file });
            }
            if seal && !sink.open.is_empty() {
                let id = BatchId { generation, epoch: handed.epoch.0 };
                let parts = std::mem::take(&mut sink.open);
                sink.writer.send(SealedBatch { id, time, parts });
            }
        }
    }
}

impl State {
    /// Starts the writer of a sink; `stored` is what a checkpoint has of it, `owed` what it has given
    /// if it is to be computed again, as deletions.
    pub(super) fn start_sink(
        &mut self,
        object: &Object,
        plan: &Plan,
        stored: Option<SinkState>,
        owed: Option<Vec<ChangeBatch>>,
    ) -> Result<()> {
        let ObjectKind::Sink(definition) = &object.kind else {
            return Err(Error::internal("only a sink is started"));
        };
        let Some(runtime) = &self.sinks.runtime else {
            return Err(Error::internal("sinks need a runtime"));
        };
        let options = sink::check(&definition.connector, &definition.options)?;
        let input = SinkInput {
            name: object.name.name.clone(),
            identity: definition.identity.clone(),
            schema: object.schema.clone(),
            append_only: plan.root.append_only(),
            unique_key: plan.unique_key.clone(),
        };
        let target = options.open(&input)?;
        let begun = stored.is_some() && owed.is_none();
        let stored = stored.unwrap_or_default();
        let owes = stored.owed.is_some();
        let owed = owed.map(|deletions| Owing { deletions, stored: owes });
        let status = SinkStatus {
            committed: stored.committed,
            rows: stored.rows,
            bytes: stored.bytes,
            ..SinkStatus::default()
        };
        let events = self.storage_events.clone();
        let start = WriterStart {
            name: input.name.clone(),
            schema: input.schema.clone(),
            target,
            store: self.sinks.store.as_ref().map(|(store, _)| store.clone()),
            clock: self.clock.clone(),
            status,
            // The coordinator has gone only when the server stops.
            on_commit: Box::new(move || drop(events.send(StorageEvent::SinkCommitted))),
        };
        let writer = SinkWriter::start(runtime, start);
        let time = self.clock.now();
        for batch in stored.batches {
            let parts = batch.files.into_iter().map(Part::stored).collect();
            writer.send(SealedBatch { id: batch.id, time, parts });
        }
        let running = RunningSink {
            input,
            rule: options.rule,
            forgets: options.connector.forgets,
            writer,
            open: stored.open.into_iter().map(Part::stored).collect(),
            open_since: self.now(),
            begun,
            owed,
            noted: stored.committed,
        };
        self.sinks.running.insert(object.id, running);
        Ok(())
    }

    pub(super) fn sink_facts(&self, reply: oneshot::Sender<Vec<SinkFact>>) {
        let fact = |(id, sink): (&ObjectId, &RunningSink)| SinkFact {
            object: *id,
            status: sink.writer.status(),
            open_rows: sink.open.iter().map(|part| part.rows).sum(),
            stopped: self.running.get(id).and_then(|running| running.failed.clone()),
            begun: sink.begun,
            watch: sink.writer.watch(),
        };
        // The client may have gone.
        let _ = reply.send(self.sinks.running.iter().map(fact).collect());
    }

    /// Without a storage: lets sinks hand over when it is time; when to ask again.
    pub(super) fn hand_over_if_due(&mut self, now: Moment) -> Option<Moment> {
        if self.sinks.is_empty() {
            for reply in self.sinks.wanted.drain(..) {
                let _ = reply.send(Ok(()));
            }
            return None;
        }
        if self.checkpoints.under_way() || self.step_in_log() {
            return None;
        }
        let changed = self.checkpoints.views_changed;
        if self.sinks.wanted.is_empty() && !changed {
            let at = self.sinks.seal_at()?;
            if now < at {
                return Some(at);
            }
        } else if self.sinks.wanted.is_empty() && now < self.sinks.next_hand_over {
            return Some(self.sinks.next_hand_over);
        }
        self.sinks.next_hand_over = now + HAND_OVER_EVERY;
        self.begin_hand_over(now);
        None
    }
}
