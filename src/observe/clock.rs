//! The only reader of the wall clock. Whoever needs the time gets a [`Clock`]; tests give one
//! that stands still until it is moved.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::types::time::EventTime;

/// Tells the time. Cheap to clone; clones of a test clock move together.
#[derive(Clone, Debug)]
pub struct Clock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    System {
        /// What [`Clock::elapsed`] counts from.
        start: Instant,
        /// What somebody has set the clock ahead or back.
        #[cfg(test)]
        set_us: Arc<std::sync::atomic::AtomicI64>,
    },
    /// Microseconds since the clock was made; the wall time is that after 1970.
    Test(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's clock.
    #[expect(clippy::disallowed_methods, reason = "the one reader of the machine's clock")]
    pub fn system() -> Clock {
        Clock(Kind::System {
            start: Instant::now(),
            #[cfg(test)]
            set_us: Arc::default(),
        })
    }

    /// A clock that stands at the beginning of 1970 until [`Clock::advance`] moves it.
    pub fn for_test() -> Clock {
        Clock(Kind::Test(Arc::new(AtomicU64::new(0))))
    }

    /// The time of day. It may jump, also backwards, when someone sets the machine's clock.
    #[expect(clippy::disallowed_methods, reason = "the one reader of the machine's clock")]
    pub fn now(&self) -> EventTime {
        match &self.0 {
            Kind::System {
                #[cfg(test)]
                set_us,
                ..
            } => {
                let now = SystemTime::now();
                let us = match now.duration_since(UNIX_EPOCH) {
                    Ok(after) => micros(after),
                    Err(before) => -micros(before.duration()),
                };
                #[cfg(test)]
                let us = us + set_us.load(Ordering::SeqCst);
                EventTime(us)
            }
            Kind::Test(elapsed_us) => {
                EventTime(micros(Duration::from_micros(elapsed_us.load(Ordering::SeqCst))))
            }
        }
    }

    /// The time of day at `instant`, which is past. A test clock knows the present only.
    #[expect(clippy::disallowed_methods, reason = "the one reader of the machine's clock")]
    pub fn time_of(&self, instant: Instant) -> EventTime {
        match &self.0 {
            Kind::System { .. } => {
                EventTime(self.now().0 - micros(Instant::now().saturating_duration_since(instant)))
            }
            Kind::Test(_) => self.now(),
        }
    }

    /// Time since the clock was made: for measuring and waiting. Never goes back.
    pub fn elapsed(&self) -> Duration {
        match &self.0 {
            Kind::System { start, .. } => start.elapsed(),
            Kind::Test(elapsed_us) => Duration::from_micros(elapsed_us.load(Ordering::SeqCst)),
        }
    }

    /// Sets the machine's clock ahead, or back, for those who have this one.
    #[cfg(test)]
    pub fn set_ahead_us(&self, us: i64) {
        if let Kind::System { set_us, .. } = &self.0 {
            set_us.store(us, Ordering::SeqCst);
        }
    }

    /// Moves a test clock.
    ///
    /// # Panics
    /// On the machine's clock, which nobody moves.
    pub fn advance(&self, by: Duration) {
        match &self.0 {
            Kind::System { .. } => panic!("the machine's clock cannot be moved"),
            Kind::Test(elapsed_us) => {
                let by_us = u64::try_from(by.as_micros()).expect("tests stay below 500,000 years");
                elapsed_us.fetch_add(by_us, Ordering::SeqCst);
            }
        }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_clock_moves_only_when_told() {
        let clock = Clock::for_test();
        let other = clock.clone();
        assert_eq!(clock.now(), EventTime(0));
        other.advance(Duration::from_millis(1_500));
        assert_eq!(clock.now(), EventTime(1_500_000));
        assert_eq!(clock.elapsed(), Duration::from_millis(1_500));
    }

    #[test]
    fn the_system_clock_is_in_this_century_and_goes_on() {
        let clock = Clock::system();
        let years = clock.now().0 / 1_000_000 / 31_556_952;
        assert!((50..200).contains(&years), "{years} years after 1970");
        let before = clock.elapsed();
        assert!(clock.elapsed() >= before);
    }
}
