//! Who waits until everything is visible, and how far sources are.

use std::sync::atomic::Ordering;

use super::requests::Reply;
use super::{RunningKind, State};
use crate::types::id::ObjectId;
use crate::types::time::{Epoch, EventTime};

/// How far a source is.
#[derive(Clone, Debug)]
pub struct SourceStatus {
    pub object: ObjectId,
    /// Rows given to dataflows since the reading began.
    pub rows: u64,
    pub malformed: u64,
    /// Rows that came behind the watermark.
    pub late: u64,
    /// Since when it is read; `None` when nobody reads it.
    pub started_at: Option<EventTime>,
    /// Everything there is has been read and is visible.
    pub finished: bool,
}

/// Someone who waits for everything to be visible.
pub(super) struct PendingFlush {
    /// Known once the bounded sources have ended.
    pub(super) target: Option<Epoch>,
    pub(super) reply: Reply<Epoch>,
}

impl State {
    pub(super) fn complete_flushes(&mut self) {
        if self.flushes.is_empty() {
            return;
        }
        let sources_ended =
            self.source_statuses().iter().all(|s| s.finished) && self.hydrating.is_empty();
        let now = self.now();
        if self.watermarks.moved(now) {
            self.epochs.touch(now);
        }
        let (touched, computed) = (self.epochs.touched(), self.epochs.computed());
        let (open, closed) = (self.epochs.open(), self.epochs.closed());
        let mut waiting = Vec::new();
        for mut flush in std::mem::take(&mut self.flushes) {
            if flush.target.is_none() && sources_ended {
                flush.target = Some(if touched { open } else { closed });
            }
            match flush.target {
                Some(target) if computed >= target => {
                    let _ = flush.reply.send(Ok(target));
                }
                Some(target) => {
                    if target == open {
                        self.epochs.hurry();
                    }
                    waiting.push(flush);
                }
                None => waiting.push(flush),
            }
        }
        self.flushes = waiting;
    }

    /// The sources that are being read; an unbounded one never counts as unfinished.
    pub(super) fn source_statuses(&self) -> Vec<SourceStatus> {
        let workers = self.workers.count() as u64;
        self.running
            .iter()
            .filter_map(|(id, running)| {
                let RunningKind::Source { metrics, bounded } = &running.kind else { return None };
                let read = self.running.values().any(|r| r.reads.contains(id));
                let finished = metrics.workers_finished.load(Ordering::Relaxed) == workers;
                let began = *metrics.began.lock().expect("nobody panics while holding it");
                Some(SourceStatus {
                    object: *id,
                    rows: metrics.rows.load(Ordering::Relaxed),
                    malformed: metrics.malformed.load(Ordering::Relaxed),
                    late: metrics.late.load(Ordering::Relaxed),
                    started_at: began.map(|at| self.clock.time_of(at)),
                    finished: (finished && self.watermarks.finished(*id)) || !bounded || !read,
                })
            })
            .collect()
    }
}
