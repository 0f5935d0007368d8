//! When state goes to the disk, and when nothing new is let in.
//!
//! ```text
//!            memory above 85 %                   above the limit, and nothing is left to go
//!  roomy ---------------------> state goes to ------------------------------> held
//!    ^                             the disk                                     |
//!    +--- below 80 % ------------------+ <----------- below 95 % --------------+
//! ```
//!
//! While state goes and memory is above 92 %, sources wait until it is below 88 %: they fill it
//! faster than a disk takes it. An epoch has less of them when memory is short, because what is
//! under way is a multiple of that. What indexes and groups take when they grow is in files from the
//! start if it does not fit (`blocks.rs`).
//!
//! What counts is the memory that the process cannot do without: pages of mapped files are the
//! kernel's to keep or drop. So everything is in it: state, queries, what is under way, and what
//! the allocator holds back. Memory that state has just let go of comes back a moment later; until
//! then it is taken off, or state would go twice.
//!
//! While memory is used up, queries that the process has grown a lot by are given up, one after the
//! other: what they have is not all counted (`memory/running.rs`).
//!
//! It is looked at the more often the nearer the limit is: every 10 ms to every second.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing::{info, warn};

use crate::coordinator::epoch::Moment;
use crate::coordinator::event_loop::Coordinator;
use crate::observe::clock::Clock;
use crate::observe::process;
use crate::state::spill::StateMemory;
use crate::storage::state_files::Keep;

/// State begins to go to the disk.
const SPILL_ABOVE_PERCENT: u64 = 85;
/// So much memory is aimed at then.
const SPILL_TO_PERCENT: u64 = 80;
/// Sources wait as long as there is something that can go.
const SOURCES_WAIT_ABOVE_PERCENT: u64 = 92;
const SOURCES_GO_ON_BELOW_PERCENT: u64 = 88;
/// Epochs have less of the sources.
const SHORT_EPOCHS_ABOVE_PERCENT: u64 = 70;
/// Of the limit, for what a source gives a worker in an epoch, and when memory is short. A join
/// can make tens of times as much of it.
const EPOCH_SHARE: u64 = 64;
const SHORT_EPOCH_SHARE: u64 = 256;
/// Below this, epochs cost more than their rows.
const EPOCH_BYTES_MIN: u64 = 256 << 10;
/// Something new is let in again.
const RELEASE_BELOW_PERCENT: u64 = 95;
/// Nothing new is let in even though somebody may still make room.
const HOLD_ABOVE_PERCENT: u64 = 125;
/// Of the limit, for all queries together, however much state there is.
const QUERY_SHARE_MIN: u64 = 8;
/// After which memory that was let go of has come back, or does not come.
const SETTLING: Duration = Duration::from_millis(200);
const LOOK_MIN: Duration = Duration::from_millis(10);
const LOOK_MAX: Duration = Duration::from_secs(1);
/// When nothing is left to go: others have to make room.
const LOOK_EXHAUSTED: Duration = Duration::from_millis(200);
/// Faster than memory can fill up: bytes a millisecond. Two workers have been seen to take 1.5 MiB.
const FILL_BYTES_PER_MS: u64 = 4 << 20;

/// Tests set it to `always`, so that all state goes to the disk as soon as it may; measurements to
/// `cold`, so that the kernel keeps nothing of it in memory.
const SPILL_VARIABLE: &str = "MILLSTREAM_SPILL";

/// Memory of state without a limit; its overflow goes to `directory`, which is there.
pub fn state_memory(directory: &Path) -> Arc<StateMemory> {
    limited_state_memory(directory, u64::MAX)
}

/// The same for a process that may have so much memory.
pub fn limited_state_memory(directory: &Path, limit_bytes: u64) -> Arc<StateMemory> {
    let directory = directory.to_owned();
    let memory = match std::env::var(SPILL_VARIABLE).as_deref() {
        Ok("always") => StateMemory::always_full(directory),
        Ok("cold") => StateMemory::with_cold_disk(directory),
        _ => StateMemory::new(directory),
    };
    Arc::new(memory.with_limit(limit_bytes))
}

/// Where rows of a checkpoint wait until the operators have them: in memory until half of the limit
/// is used, then on the disk.
pub fn keep_rows(memory: Arc<StateMemory>) -> Keep {
    Arc::new(move |rows| {
        let half = memory.limit_bytes() / 2;
        match memory.is_always_full() || process::anonymous_bytes() > half {
            true => memory.batch_on_disk(rows),
            false => rows,
        }
    })
}

/// What a look at memory finds.
#[derive(Clone, Copy, Debug)]
struct Look {
    now: Moment,
    /// Memory that the process cannot do without.
    memory_bytes: u64,
    /// State that went to the disk since the start.
    spilled_bytes: u64,
    /// Stores have nothing left that could go.
    exhausted: bool,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verdict {
    /// So much state should go; 0: none.
    spill_bytes: u64,
    held: bool,
    sources_wait: bool,
    /// What a source may give a worker in an epoch.
    epoch_bytes: u64,
    /// What can be taken before state goes.
    room_bytes: u64,
    /// What queries may have.
    query_bytes: u64,
    /// A query should be given up.
    ends_query: bool,
    look_again_in: Duration,
}

/// Decides; see the head of this file.
#[derive(Debug)]
struct Governor {
    limit_bytes: u64,
    held: bool,
    sources_wait: bool,
    /// When so much had been spilled, oldest first; not older than [`SETTLING`], but for one.
    spilled: VecDeque<(Moment, u64)>,
}

impl Governor {
    fn new(limit_bytes: u64) -> Governor {
        let limit_bytes = limit_bytes.max(1);
        Governor { limit_bytes, held: false, sources_wait: false, spilled: VecDeque::new() }
    }

    fn percent(&self, percent: u64) -> u64 {
        (self.limit_bytes / 100).saturating_mul(percent)
    }

    fn decide(&mut self, look: Look) -> Verdict {
        self.spilled.push_back((look.now, look.spilled_bytes));
        while self.spilled.get(1).is_some_and(|(at, _)| *at + SETTLING <= look.now) {
            self.spilled.pop_front();
        }
        let before = self.spilled.front().map_or(0, |(_, bytes)| *bytes);
        let settling = look.spilled_bytes - before;
        let used = look.memory_bytes.saturating_sub(settling);
        let spill_bytes = match used > self.percent(SPILL_ABOVE_PERCENT) {
            true => used - self.percent(SPILL_TO_PERCENT),
            false => 0,
        };
        self.held = match self.held {
            true => used >= self.percent(RELEASE_BELOW_PERCENT),
            false => {
                used > self.limit_bytes && look.exhausted || used > self.percent(HOLD_ABOVE_PERCENT)
            }
        };
        self.sources_wait = !look.exhausted
            && match self.sources_wait {
                true => used >= self.percent(SOURCES_GO_ON_BELOW_PERCENT),
                false => used > self.percent(SOURCES_WAIT_ABOVE_PERCENT),
            };
        let epoch_share = match used > self.percent(SHORT_EPOCHS_ABOVE_PERCENT) {
            true => SHORT_EPOCH_SHARE,
            false => EPOCH_SHARE,
        };
        let ends_query =
            used > self.limit_bytes && look.exhausted || used > self.percent(HOLD_ABOVE_PERCENT);
        let room = self.percent(SPILL_ABOVE_PERCENT).saturating_sub(look.memory_bytes);
        let pause = Duration::from_millis(room / FILL_BYTES_PER_MS);
        Verdict {
            spill_bytes,
            held: self.held,
            sources_wait: self.sources_wait,
            epoch_bytes: (self.limit_bytes / epoch_share).max(EPOCH_BYTES_MIN),
            room_bytes: room,
            query_bytes: room.max(self.limit_bytes / QUERY_SHARE_MIN),
            ends_query,
            look_again_in: match look.exhausted {
                true => LOOK_EXHAUSTED,
                false => pause.clamp(LOOK_MIN, LOOK_MAX),
            },
        }
    }
}

/// Keeps a server within its memory, until its coordinator stops. While that has not started yet,
/// and state is read, what has no room goes to the disk at once.
pub async fn watch(memory: Arc<StateMemory>, started: Arc<OnceLock<Coordinator>>, clock: Clock) {
    let limit_bytes = memory.limit_bytes();
    let mut governor = Governor::new(limit_bytes);
    let mut spilling = false;
    // Workers whose sources were held back sleep until they are told.
    let mut wake_workers = false;
    loop {
        let memory_bytes = process::anonymous_bytes();
        let verdict = governor.decide(Look {
            now: clock.elapsed(),
            memory_bytes,
            spilled_bytes: memory.disk().written_bytes(),
            exhausted: memory.is_exhausted(),
        });
        if verdict.spill_bytes > 0 && !spilling {
            info!(memory_bytes, limit_bytes, "memory is short: state goes to the disk");
        }
        spilling = verdict.spill_bytes > 0;
        memory.grant_queries(verdict.query_bytes);
        memory.set_room(verdict.room_bytes);
        memory.set_epoch_bytes(verdict.epoch_bytes);
        let Some(coordinator) = started.get() else {
            tokio::time::sleep(verdict.look_again_in).await;
            continue;
        };
        wake_workers |= memory.let_sources_wait(verdict.sources_wait);
        if verdict.ends_query {
            // What it has comes back before the next look, or it was another one.
            let growth_min = limit_bytes / QUERY_SHARE_MIN;
            if memory.running().give_up_one(memory_bytes, growth_min) {
                warn!(memory_bytes, limit_bytes, "memory is used up: a query is given up");
                tokio::time::sleep(SETTLING).await;
            }
        }
        let turned = memory.hold(verdict.held);
        match (turned, verdict.held) {
            (true, true) => {
                let disk_bytes = memory.disk().now_bytes();
                warn!(
                    memory_bytes,
                    limit_bytes,
                    disk_bytes,
                    disk_error = memory.failure(),
                    "memory is used up: sources and inserts are held back"
                );
            }
            (true, false) => info!(memory_bytes, limit_bytes, "there is memory again"),
            _ => {}
        }
        let asked = spilling && memory.ask(verdict.spill_bytes, coordinator.state_owners());
        if !spilling {
            memory.relax();
        }
        wake_workers |= turned;
        if asked || wake_workers && memory.is_quiet() {
            wake_workers = false;
            if coordinator.relieve().await.is_err() {
                return;
            }
        }
        tokio::time::sleep(verdict.look_again_in).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    fn look(at_ms: u64, memory_mb: u64, spilled_mb: u64, exhausted: bool) -> Look {
        Look {
            now: Duration::from_millis(at_ms),
            memory_bytes: memory_mb * MB,
            spilled_bytes: spilled_mb * MB,
            exhausted,
        }
    }

    #[test]
    fn state_goes_before_the_limit_is_reached_and_not_twice() {
        let mut governor = Governor::new(1000 * MB);
        let verdict = governor.decide(look(0, 840, 0, false));
        assert_eq!((verdict.spill_bytes, verdict.held), (0, false));
        let verdict = governor.decide(look(20, 900, 0, false));
        assert_eq!(verdict.spill_bytes / MB, 100);
        // It has gone, and the allocator has not given it back.
        let verdict = governor.decide(look(40, 900, 100, false));
        assert_eq!(verdict.spill_bytes, 0);
        // Nor does it later: there is more to do.
        let verdict = governor.decide(look(300, 900, 100, false));
        assert_eq!(verdict.spill_bytes / MB, 100);
    }

    #[test]
    fn looks_are_seldom_far_from_the_limit() {
        let mut governor = Governor::new(10_000 * MB);
        assert_eq!(governor.decide(look(0, 100, 0, false)).look_again_in, LOOK_MAX);
        let near = governor.decide(look(1000, 8400, 0, false)).look_again_in;
        assert!((20..30).contains(&near.as_millis()), "{near:?}");
        assert_eq!(governor.decide(look(2000, 8600, 0, false)).look_again_in, LOOK_MIN);
    }

    #[test]
    fn nothing_new_is_let_in_when_nothing_is_left_to_go() {
        let mut governor = Governor::new(1000 * MB);
        assert!(!governor.decide(look(0, 1010, 0, false)).held);
        assert!(governor.decide(look(20, 1010, 0, true)).held);
        assert!(governor.decide(look(40, 960, 0, false)).held);
        assert!(!governor.decide(look(60, 940, 0, false)).held);
        let spike = governor.decide(look(80, 1300, 0, false));
        assert!(spike.held && spike.ends_query);
        assert!(!governor.decide(look(100, 1010, 0, false)).ends_query);
        assert!(governor.decide(look(120, 1010, 0, true)).ends_query);
    }

    #[test]
    fn sources_wait_for_state_that_goes_but_not_for_what_cannot() {
        let mut governor = Governor::new(1000 * MB);
        let waits = |governor: &mut Governor, at_ms, memory_mb, spilled_mb, exhausted| {
            governor.decide(look(at_ms, memory_mb, spilled_mb, exhausted)).sources_wait
        };
        assert!(!waits(&mut governor, 0, 910, 0, false));
        assert!(waits(&mut governor, 20, 930, 0, false));
        assert!(waits(&mut governor, 40, 890, 0, false));
        // What has just gone comes back soon.
        assert!(!waits(&mut governor, 60, 930, 100, false));
        assert!(waits(&mut governor, 400, 930, 100, false));
        assert!(!waits(&mut governor, 420, 930, 100, true));
        // Epochs are short when memory is, and never so short that they are all that is done.
        let epoch = |memory_mb| Governor::new(1000 * MB).decide(look(0, memory_mb, 0, false));
        assert_eq!(epoch(600).epoch_bytes >> 20, 15);
        assert_eq!(epoch(800).epoch_bytes >> 20, 3);
        assert_eq!(epoch(800).room_bytes / MB, 50);
        let tiny = Governor::new(MB).decide(look(0, 10, 0, false));
        assert_eq!((tiny.epoch_bytes, tiny.room_bytes), (EPOCH_BYTES_MIN, 0));
    }

    #[test]
    fn queries_get_what_is_free_and_at_least_a_share() {
        let mut governor = Governor::new(1000 * MB);
        assert_eq!(governor.decide(look(0, 100, 0, false)).query_bytes / MB, 750);
        assert_eq!(governor.decide(look(20, 1100, 0, false)).query_bytes / MB, 125);
    }
}
