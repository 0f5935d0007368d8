//! Opens and closes epochs: a pure state machine, told what happens and asked what to do.
//!
//! ```text
//!            touch                    close (previous computed, or someone waits)
//!  empty ----------> touched ------------------------------------------------> closed
//!    |                                                                            |
//!    +--- close at once when a source waits to be admitted ---> closed            | all workers
//!                                                                                 v computed
//!                                                                             complete
//! ```
//!
//! Closing is self-clocking: an epoch closes as soon as there is something in it and the one
//! before has been computed. Under load it stays open until its sources pause for breath, at most
//! `interval_max`; and never so short that closing costs more than a twentieth of a core.

use std::time::Duration;

use crate::types::time::Epoch;

/// CPU time of moving one dataflow on one worker over an epoch (measured: 5 us to 15 us).
const CLOSE_COST_PER_DATAFLOW: Duration = Duration::from_micros(10);
/// One twentieth of a core may go into closing epochs.
const COST_FACTOR: u32 = 20;

/// A point in time, since the server started.
pub type Moment = Duration;

/// The life of the open epoch, and what is under way behind it.
#[derive(Debug)]
pub struct Epochs {
    open: Epoch,
    interval_max: Duration,
    /// When the previous epoch was closed.
    closed_at: Moment,
    /// When the first change came into the open epoch; `None`: it is empty.
    touched_at: Option<Moment>,
    /// Shares of sources that have given rows and may have more at hand.
    busy_shares: usize,
    /// Someone waits for the open epoch to close, not for efficiency.
    urgent: bool,
    /// A source waits to be admitted.
    admission_wanted: bool,
    /// Dataflow moves that closing the previous epoch cost, over all workers.
    moves: usize,
    /// Per worker: the newest epoch it has computed.
    computed: Vec<Epoch>,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Close,
    /// Ask again then, or when something happens.
    WaitUntil(Moment),
    /// Ask again when something happens.
    Wait,
}

impl Epochs {
    /// `closed` is the epoch before the first.
    pub fn new(workers: usize, closed: Epoch, interval_max: Duration) -> Epochs {
        Epochs {
            open: closed.next(),
            interval_max,
            closed_at: Moment::ZERO,
            touched_at: None,
            busy_shares: 0,
            urgent: false,
            admission_wanted: false,
            moves: 0,
            computed: vec![closed; workers],
        }
    }

    /// The epoch that changes go to.
    pub fn open(&self) -> Epoch {
        self.open
    }

    /// The newest closed epoch.
    pub fn closed(&self) -> Epoch {
        Epoch(self.open.0 - 1)
    }

    /// The newest epoch that all workers have computed.
    pub fn computed(&self) -> Epoch {
        self.computed.iter().min().copied().expect("there is at least one worker")
    }

    /// Whether nothing is under way behind the open epoch.
    pub fn all_computed(&self) -> bool {
        self.computed() == self.closed()
    }

    /// Whether the open epoch has changes.
    pub fn touched(&self) -> bool {
        self.touched_at.is_some()
    }

    /// A change came into the open epoch.
    pub fn touch(&mut self, now: Moment) {
        self.touched_at.get_or_insert(now);
    }

    /// A share of a source gave its first rows of `epoch`.
    pub fn source_touched(&mut self, epoch: Epoch, now: Moment) {
        if epoch == self.open {
            self.touch(now);
            self.busy_shares += 1;
        }
    }

    /// That share has no more at hand.
    pub fn source_drained(&mut self, epoch: Epoch) {
        if epoch == self.open {
            assert!(self.busy_shares > 0, "a share drains after it was touched, once");
            self.busy_shares -= 1;
        }
    }

    /// Someone waits for the changes of the open epoch.
    pub fn hurry(&mut self) {
        self.urgent = true;
    }

    /// A source that is not admitted has rows.
    pub fn want_admission(&mut self) {
        self.admission_wanted = true;
    }

    /// `worker` has computed `epoch`.
    pub fn computed_by(&mut self, worker: usize, epoch: Epoch) {
        assert!(epoch > self.computed[worker] && epoch < self.open, "computed in order");
        self.computed[worker] = epoch;
    }

    pub fn decide(&self, now: Moment) -> Decision {
        let Some(touched_at) = self.touched_at else {
            return if self.admission_wanted && self.all_computed() {
                Decision::Close
            } else {
                Decision::Wait
            };
        };
        if self.urgent {
            return Decision::Close;
        }
        if !self.all_computed() {
            return Decision::Wait;
        }
        let pause =
            (CLOSE_COST_PER_DATAFLOW * self.moves as u32 * COST_FACTOR).min(self.interval_max);
        let mut due = self.closed_at + pause;
        if self.busy_shares > 0 {
            due = due.max(touched_at + self.interval_max);
        }
        if now >= due { Decision::Close } else { Decision::WaitUntil(due) }
    }

    /// Closes the open epoch, which moved `moves` dataflows over all workers, and opens the next.
    pub fn close(&mut self, now: Moment, moves: usize) -> Epoch {
        let closed = self.open;
        self.open = closed.next();
        self.closed_at = now;
        self.touched_at = None;
        self.busy_shares = 0;
        self.urgent = false;
        self.admission_wanted = false;
        self.moves = moves;
        closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn an_idle_server_closes_nothing() {
        let epochs = Epochs::new(2, Epoch(0), 10 * MS);
        assert_eq!(epochs.decide(MS * 100_000), Decision::Wait);
    }

    #[test]
    fn a_write_closes_its_epoch_at_once_and_the_next_waits_until_it_is_computed() {
        let mut epochs = Epochs::new(2, Epoch(0), 10 * MS);
        epochs.touch(5 * MS);
        assert_eq!(epochs.decide(5 * MS), Decision::Close);
        assert_eq!(epochs.close(5 * MS, 0), Epoch(1));
        epochs.touch(6 * MS);
        assert_eq!(epochs.decide(6 * MS), Decision::Wait);
        epochs.computed_by(0, Epoch(1));
        assert_eq!(epochs.decide(6 * MS), Decision::Wait);
        epochs.computed_by(1, Epoch(1));
        assert_eq!(epochs.decide(6 * MS), Decision::Close);
    }

    #[test]
    fn a_busy_source_is_given_time_and_a_drained_one_is_not_waited_for() {
        let mut epochs = Epochs::new(1, Epoch(0), 10 * MS);
        epochs.source_touched(Epoch(1), 20 * MS);
        assert_eq!(epochs.decide(21 * MS), Decision::WaitUntil(30 * MS));
        assert_eq!(epochs.decide(30 * MS), Decision::Close);
        epochs.source_drained(Epoch(1));
        assert_eq!(epochs.decide(21 * MS), Decision::Close);
    }

    #[test]
    fn many_dataflows_lengthen_epochs_and_a_reader_does_not_wait_for_that() {
        let mut epochs = Epochs::new(1, Epoch(0), 10 * MS);
        epochs.touch(MS);
        epochs.close(MS, 40);
        epochs.computed_by(0, Epoch(1));
        epochs.touch(2 * MS);
        assert_eq!(epochs.decide(2 * MS), Decision::WaitUntil(9 * MS));
        epochs.hurry();
        assert_eq!(epochs.decide(2 * MS), Decision::Close);
    }

    #[test]
    fn a_source_that_wants_in_closes_an_empty_epoch() {
        let mut epochs = Epochs::new(1, Epoch(0), 10 * MS);
        epochs.want_admission();
        assert_eq!(epochs.decide(MS), Decision::Close);
        epochs.close(MS, 0);
        assert_eq!(epochs.decide(MS), Decision::Wait);
    }
}
