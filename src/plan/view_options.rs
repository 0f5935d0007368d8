//! How a materialized view is kept, beside its query: `CREATE MATERIALIZED VIEW v WITH (...)`.
//!
//! [`VIEW_OPTIONS`] is the one list. An option is an entry there and a field of [`ViewOptions`];
//! parsing, storing, planning again after a restart and the messages for wrong values come from
//! the list. Who acts on an option reads it from `Plan::options`.

use crate::types::error::{Error, Result, SqlState};
use crate::types::text::datetime::US_PER_DAY;
use crate::types::text::interval::{IntervalStyle, parse_interval};

/// The options of one view. The default is what a view without a WITH clause has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewOptions {
    pub on_error: OnError,
    pub emit: Emission,
    /// Changes leave at most once in each interval of this length.
    pub emit_every_us: Option<i64>,
    /// More iterations of a recursive query are an error.
    pub recursion_limit: Option<u64>,
    /// A row goes when it has been there for so long.
    pub retention_us: Option<i64>,
    /// For how long it can be read as it was, in microseconds; `None`: as the server says.
    pub history_retention: HistoryRetention,
}

/// An option that is not in the fingerprint of a plan: no operator looks at it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct HistoryRetention(pub Option<i64>);

impl std::fmt::Debug for HistoryRetention {
    /// One line, see `plan/fingerprint.rs`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.unwrap_or(-1))
    }
}

/// When rows come out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Emission {
    /// The view does not say: at every epoch, matches of a row pattern when they are final.
    #[default]
    Unsaid,
    /// As they are, at every epoch.
    OnUpdate,
    /// Once, when the watermark has passed their time.
    OnWindowClose,
}

/// What becomes of a row for which an expression fails (division by zero).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// It is left out and recorded in `millstream.errors` for as long as it is there.
    #[default]
    Quarantine,
    /// The view stops with the row's error.
    Fail,
    /// The expression gives NULL; a condition that fails is not true.
    Null,
}

/// One option that a WITH clause may have.
pub struct ViewOption {
    pub name: &'static str,
    pub doc: &'static str,
    /// What it may be, for messages.
    pub values: &'static str,
    /// Takes a value over; false when it is none of `values`.
    set: fn(&mut ViewOptions, &str) -> bool,
}

/// The option that EMIT ON WINDOW CLOSE is kept as, with its value.
pub const EMIT: (&str, &str) = ("emit", "on_window_close");
/// The value of the same option that EMIT ON UPDATE is kept as.
pub const EMIT_ON_UPDATE: &str = "on_update";
/// The option that EMIT ON UPDATE EVERY is kept as.
pub const EMIT_EVERY: &str = "emit_every";

/// Every option, by name.
pub const VIEW_OPTIONS: &[ViewOption] = &[
    ViewOption {
        name: EMIT.0,
        doc: "When rows come out, as the EMIT clause says.",
        values: "on_update, on_window_close",
        set: |options, value| {
            options.emit = match value {
                EMIT_ON_UPDATE => Emission::OnUpdate,
                value if value == EMIT.1 => Emission::OnWindowClose,
                _ => return false,
            };
            true
        },
    },
    ViewOption {
        name: EMIT_EVERY,
        doc: "A row changes at most once in each interval of this length.",
        values: "an interval of days and time, such as 1 second",
        set: |options, value| {
            options.emit_every_us = fixed_interval_us(value);
            options.emit_every_us.is_some()
        },
    },
    ViewOption {
        name: HISTORY_RETENTION,
        doc: "For how long it can be read as it was; 0 keeps nothing.",
        values: "0, or an interval of days and time, such as 1 hour",
        set: |options, value| {
            options.history_retention = HistoryRetention(retention_us(value));
            options.history_retention.0.is_some()
        },
    },
    ViewOption {
        name: "on_error",
        doc: "What becomes of a row for which an expression fails.",
        values: "fail, null, quarantine",
        set: |options, value| {
            options.on_error = match value {
                "fail" => OnError::Fail,
                "null" => OnError::Null,
                "quarantine" => OnError::Quarantine,
                _ => return false,
            };
            true
        },
    },
    ViewOption {
        name: RECURSION_LIMIT,
        doc: "So many iterations a recursive query may have at most; more are an error.",
        values: "a number from 1 on; 10000 without the option",
        set: |options, value| {
            options.recursion_limit = value.parse().ok().filter(|limit| *limit > 0);
            options.recursion_limit.is_some()
        },
    },
    ViewOption {
        name: RETENTION,
        doc: "A row goes by itself when it has been there for so long.",
        values: "an interval of days and time, such as 1 day",
        set: |options, value| {
            options.retention_us = fixed_interval_us(value);
            options.retention_us.is_some()
        },
    },
];

/// The option that says how long a view or a table can be read as it was.
pub const HISTORY_RETENTION: &str = "history_retention";

/// What [`HISTORY_RETENTION`] may be, in microseconds.
pub fn retention_us(text: &str) -> Option<i64> {
    if text.trim() == "0" { Some(0) } else { fixed_interval_us(text) }
}

/// What a view's stored options say of [`HISTORY_RETENTION`].
pub fn history_retention_us(options: &[(String, String)]) -> Option<i64> {
    let option = options.iter().find(|(name, _)| name == HISTORY_RETENTION)?;
    retention_us(&option.1.to_lowercase())
}

/// The option that bounds the iterations of recursive queries.
pub const RECURSION_LIMIT: &str = "recursion_limit";
/// The option that bounds what a view or a table keeps.
pub const RETENTION: &str = "retention";
/// The same in seconds, as RisingWave says it of tables.
pub const RETENTION_SECONDS: &str = "retention_seconds";
/// The option that says from which column the retention of a table counts.
pub const RETENTION_COLUMN: &str = "retention_column";

/// A number of seconds, from 1 on, in microseconds.
pub fn seconds_us(text: &str) -> Option<i64> {
    let seconds: i64 = text.trim().parse().ok().filter(|seconds| *seconds > 0)?;
    seconds.checked_mul(1_000_000)
}

/// The length of an interval in microseconds; `None` when it is not one, not positive, or counts
/// months, which have no length.
pub fn fixed_interval_us(text: &str) -> Option<i64> {
    let interval = parse_interval(text, IntervalStyle::Postgres).ok()?;
    let days_us = i64::from(interval.days).checked_mul(US_PER_DAY)?;
    let us = days_us.checked_add(interval.us)?;
    (interval.months == 0 && us > 0).then_some(us)
}

impl ViewOptions {
    /// The options that a WITH clause's names and values mean.
    ///
    /// # Errors
    /// SQLSTATE 22023 with the index of the first pair that is wrong.
    pub fn parse(pairs: &[(String, String)]) -> std::result::Result<ViewOptions, (usize, Error)> {
        let mut options = ViewOptions::default();
        for (index, (name, value)) in pairs.iter().enumerate() {
            let Some(option) = VIEW_OPTIONS.iter().find(|option| option.name == name) else {
                let known: Vec<&str> = VIEW_OPTIONS.iter().map(|option| option.name).collect();
                let error = invalid(format!("unrecognized parameter \"{name}\""))
                    .hint(format!("The options of a materialized view are: {}.", known.join(", ")));
                return Err((index, error));
            };
            if pairs[..index].iter().any(|(before, _)| before == name) {
                let error = Error::user(
                    SqlState::SYNTAX_ERROR,
                    format!("parameter \"{name}\" specified more than once"),
                );
                return Err((index, error));
            }
            if !(option.set)(&mut options, &value.to_lowercase()) {
                let error = invalid(format!("invalid value for parameter \"{name}\": \"{value}\""))
                    .hint(format!("Available values: {}.", option.values));
                return Err((index, error));
            }
        }
        Ok(options)
    }

    /// The same of a definition that has been accepted before.
    ///
    /// # Errors
    /// As [`ViewOptions::parse`]: a later version of the program made it.
    pub fn of_stored(pairs: &[(String, String)]) -> Result<ViewOptions> {
        ViewOptions::parse(pairs).map_err(|(_, error)| error)
    }
}

fn invalid(message: String) -> Error {
    Error::user(SqlState::INVALID_PARAMETER_VALUE, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> std::result::Result<ViewOptions, (usize, Error)> {
        let pairs: Vec<_> =
            pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        ViewOptions::parse(&pairs)
    }

    #[test]
    fn options_are_known_by_name_and_value() {
        assert_eq!(parse(&[]).expect("no options").on_error, OnError::Quarantine);
        assert_eq!(parse(&[("on_error", "NULL")]).expect("a value").on_error, OnError::Null);
        let (index, error) = parse(&[("on_error", "fail"), ("colour", "red")]).unwrap_err();
        assert_eq!((index, error.sqlstate().0), (1, "22023"));
        assert_eq!(error.message(), "unrecognized parameter \"colour\"");
        let (_, error) = parse(&[("on_error", "ignore")]).unwrap_err();
        assert_eq!(error.message(), "invalid value for parameter \"on_error\": \"ignore\"");
        let (index, error) = parse(&[("on_error", "fail"), ("on_error", "null")]).unwrap_err();
        assert_eq!((index, error.sqlstate().0), (1, "42601"));
    }

    #[test]
    fn names_are_unique_and_in_order() {
        assert!(VIEW_OPTIONS.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert!(VIEW_OPTIONS.iter().all(|o| !o.doc.is_empty() && !o.values.is_empty()));
    }
}
