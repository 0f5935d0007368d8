//! Logical and event time. No bare integers for time anywhere else.

use std::fmt;

/// A logical commit time, global to the server.
///
/// Every input change belongs to exactly one epoch; everything computed from epochs `<= e`
/// is the state *at* `e`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch right after this one.
    #[must_use]
    pub fn next(self) -> Epoch {
        Epoch(self.0.checked_add(1).expect("an epoch a nanosecond lasts 500 years"))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A point in event time: microseconds since 1970-01-01T00:00:00, as in Arrow timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventTime(pub i64);

/// A place in the past of tables and views, as a user names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum At {
    Epoch(Epoch),
    /// The newest epoch that had ended by then.
    Time(EventTime),
}

/// A length of event time in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventDuration(pub i64);

/// How long before its end the time of a window is (`window_time`): the last instant that belongs
/// to it in Flink, whose times are milliseconds.
pub const WINDOW_TIME_US: i64 = 1_000;

/// Windows that one row may be in; more is a mistake (a slide in microseconds).
pub const WINDOWS_MAX: i64 = 100_000;

/// The promise that no later row of a stream has an event time before this one.
///
/// It travels with the data and is a deterministic function of the input up to its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Watermark(pub EventTime);

impl Watermark {
    /// The watermark of a stream that has ended: nothing can be late any more.
    pub const END: Watermark = Watermark(EventTime(i64::MAX));
}

impl fmt::Display for Watermark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.0)
    }
}
