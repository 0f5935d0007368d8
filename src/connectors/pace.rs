//! Paces a generator by the wall clock: so many events per second since it was opened.

use std::time::{Duration, Instant};

use crate::connectors::PacedSince;

/// The shortest wait worth answering: a shorter one costs more than it is exact.
const WAIT_MIN: Duration = Duration::from_millis(1);
/// The longest wait, so that whoever waits can stop in between.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// How many events are due.
#[derive(Debug)]
pub struct Pacer {
    /// `None`: everything is due at once.
    events_per_second: Option<f64>,
    /// When the first event was asked for.
    started: Option<Instant>,
}

impl Pacer {
    #[cfg(test)]
    pub fn new(events_per_second: Option<f64>) -> Pacer {
        Pacer { events_per_second, started: None }
    }

    /// Of a reading that began at `since`, or begins now.
    pub fn since(events_per_second: Option<f64>, since: Option<&PacedSince>) -> Pacer {
        Pacer { events_per_second, started: since.map(|since| since.started) }
    }

    /// Events due since the first call; `None` without a limit.
    pub fn due(&mut self) -> Option<u64> {
        let rate = self.events_per_second?;
        let elapsed = self.elapsed();
        Some((elapsed.as_secs_f64() * rate) as u64)
    }

    /// How long to wait until more than `events` are due.
    pub fn wait_for(&mut self, events: u64) -> Duration {
        let Some(rate) = self.events_per_second else { return Duration::ZERO };
        let due_seconds = (events as f64 + 1.0) / rate;
        let wait_seconds = due_seconds - self.elapsed().as_secs_f64();
        Duration::try_from_secs_f64(wait_seconds.max(0.0))
            .unwrap_or(WAIT_MAX)
            .clamp(WAIT_MIN, WAIT_MAX)
    }

    fn elapsed(&mut self) -> Duration {
        let now = now();
        now.saturating_duration_since(*self.started.get_or_insert(now))
    }
}

/// The only reading of a clock in the generators; what they generate does not depend on it.
#[expect(clippy::disallowed_methods, reason = "pacing is not data")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_rate_nothing_waits() {
        let mut pacer = Pacer::new(None);
        assert_eq!(pacer.due(), None);
        assert_eq!(pacer.wait_for(1_000_000), Duration::ZERO);
    }

    #[test]
    fn events_fall_due_with_time() {
        let mut pacer = Pacer::new(Some(1_000.0));
        assert_eq!(pacer.due(), Some(0));
        let wait = pacer.wait_for(4);
        assert!((WAIT_MIN..=Duration::from_millis(5)).contains(&wait), "{wait:?}");
        std::thread::sleep(Duration::from_millis(20));
        let due = pacer.due().expect("there is a rate");
        assert!((20..10_000).contains(&due), "{due}");
        assert_eq!(pacer.wait_for(0), WAIT_MIN);
        assert_eq!(Pacer::new(Some(0.001)).wait_for(5), WAIT_MAX);
    }

    #[test]
    fn a_reading_taken_over_keeps_its_pace() {
        let started = now() - Duration::from_secs(10);
        let since = PacedSince { started, from: None };
        let due = Pacer::since(Some(1_000.0), Some(&since)).due().expect("there is a rate");
        assert!((10_000..1_000_000).contains(&due), "{due}");
    }
}
