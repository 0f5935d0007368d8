//! Time zones: what the `TimeZone` setting names, and their offsets from UTC.
//!
//! A local time that does not exist (clocks jump over it) is read with the offset before the jump,
//! one that exists twice with the offset after it, as Postgres does.

use bytes::{BufMut, BytesMut};
use chrono::{NaiveDateTime, Offset, TimeZone};
use chrono_tz::Tz;

use super::datetime::{civil, days_from_civil};
use crate::types::error::{Error, Result, SqlState};

const SECONDS_PER_DAY: i64 = 86_400;
const US_PER_SECOND: i64 = 1_000_000;

/// The last year whose changes of clocks are all listed in the database.
const YEAR_LISTED_MAX: i64 = 2098;
/// 2099-01-01 00:00.
const FIRST_UNLISTED_US: i64 = 4_070_908_800 * US_PER_SECOND;

/// Offsets that Postgres accepts, in seconds: less than a week would be nonsense, it takes 7 days.
const OFFSET_SECONDS_MAX: i32 = 7 * 86_400;

/// A time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Zone {
    /// Seconds east of UTC.
    Fixed(i32),
    /// By the rules of the IANA database.
    Named(Tz),
}

impl Zone {
    pub const UTC: Zone = Zone::Fixed(0);

    /// Reads a value of the `TimeZone` setting: a name of the IANA database in any case, `UTC`,
    /// hours east (`2`, `-3.5`, `+05:30`), or POSIX form with west positive (`<+02>-02`, `EST5`).
    ///
    /// # Errors
    /// SQLSTATE 22023.
    pub fn parse(text: &str) -> Result<Zone> {
        let name = text.trim();
        Zone::by_name(name).or_else(|| hours_east(name)).or_else(|| posix(name)).ok_or_else(|| {
            Error::user(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("invalid value for parameter \"TimeZone\": \"{text}\""),
            )
        })
    }

    /// A zone by its name in the IANA database, in any case.
    pub fn by_name(name: &str) -> Option<Zone> {
        if ["utc", "gmt", "z", "zulu", "etc/utc"].iter().any(|utc| name.eq_ignore_ascii_case(utc)) {
            return Some(Zone::UTC);
        }
        name.parse::<Tz>()
            .ok()
            .or_else(|| {
                chrono_tz::TZ_VARIANTS
                    .iter()
                    .copied()
                    .find(|tz| tz.name().eq_ignore_ascii_case(name))
            })
            .map(Zone::Named)
    }

    /// Seconds east of UTC at an instant (microseconds since 1970 in UTC).
    pub fn offset_at(self, utc_us: i64) -> i32 {
        match self {
            Zone::Fixed(seconds) => seconds,
            Zone::Named(tz) => tz.offset_from_utc_datetime(&naive(utc_us)).fix().local_minus_utc(),
        }
    }

    /// What the zone is called at an instant (microseconds since 1970 in UTC): `CET`, `+05`.
    pub fn abbreviation(self, utc_us: i64) -> String {
        match self {
            Zone::Fixed(0) => "UTC".to_owned(),
            Zone::Fixed(seconds) => {
                let sign = if seconds < 0 { '-' } else { '+' };
                let (hours, minutes) = (seconds.abs() / 3600, seconds.abs() % 3600 / 60);
                match minutes {
                    0 => format!("{sign}{hours:02}"),
                    _ => format!("{sign}{hours:02}:{minutes:02}"),
                }
            }
            Zone::Named(tz) => {
                let offset = tz.offset_from_utc_datetime(&naive(utc_us));
                chrono_tz::OffsetName::abbreviation(&offset).unwrap_or(tz.name()).to_owned()
            }
        }
    }

    /// The instant of a local time, both in microseconds since 1970; `None` beyond 64 bits.
    pub fn to_utc(self, local_us: i64) -> Option<i64> {
        let offset_seconds = match self {
            Zone::Fixed(seconds) => seconds,
            Zone::Named(tz) => {
                let offset = match tz.offset_from_local_datetime(&naive(local_us)) {
                    chrono::LocalResult::Single(offset)
                    | chrono::LocalResult::Ambiguous(_, offset) => offset,
                    // No zone jumps by more than a day, nor twice within two.
                    chrono::LocalResult::None => tz.offset_from_utc_datetime(&naive(
                        local_us.saturating_sub(SECONDS_PER_DAY * US_PER_SECOND),
                    )),
                };
                offset.fix().local_minus_utc()
            }
        };
        local_us.checked_sub(i64::from(offset_seconds) * US_PER_SECOND)
    }
}

/// The date and time whose offset the database knows: it lists every change of clocks up to the
/// year 2099, while the rules that make them go on for ever. A later year is looked up as one of
/// the last 28 that begins on the same day of the week and is as long, for clocks change on days
/// of the week. Before the years that chrono has, every zone is at its first offset.
fn naive(us: i64) -> NaiveDateTime {
    let seconds = us.div_euclid(US_PER_SECOND);
    let seconds = if us < FIRST_UNLISTED_US { seconds } else { listed_year(seconds) };
    chrono::DateTime::from_timestamp(seconds, 0).map_or(NaiveDateTime::MIN, |d| d.naive_utc())
}

fn listed_year(seconds: i64) -> i64 {
    let first_day = |year| days_from_civil(year, 1, 1);
    let days = seconds.div_euclid(SECONDS_PER_DAY);
    let (year, _, _) = civil(days);
    let length = first_day(year + 1) - first_day(year);
    let alike = (YEAR_LISTED_MAX - 27..=YEAR_LISTED_MAX)
        .find(|candidate| {
            first_day(candidate + 1) - first_day(*candidate) == length
                && (first_day(year) - first_day(*candidate)) % 7 == 0
        })
        .expect("28 years in a row without a skipped leap day have every kind of year");
    seconds - (first_day(year) - first_day(alike)) * SECONDS_PER_DAY
}

/// `2`, `-3.5`, `+05:30`: hours east of Greenwich.
fn hours_east(text: &str) -> Option<Zone> {
    if text.contains(':') {
        let seconds = parse_offset(text.strip_prefix(['+', '-'])?)?;
        return Some(Zone::Fixed(if text.starts_with('-') { -seconds } else { seconds }));
    }
    let hours: f64 = text.parse().ok()?;
    let seconds = hours * 3600.0;
    (seconds.abs() <= f64::from(OFFSET_SECONDS_MAX)).then_some(Zone::Fixed(seconds as i32))
}

/// `<+02>-02`, `EST5`, `X+01:30`: an abbreviation, then hours *west*. Rules for daylight saving
/// are not read.
fn posix(text: &str) -> Option<Zone> {
    let rest = match text.strip_prefix('<') {
        Some(quoted) => quoted.split_once('>')?.1,
        None => {
            let letters = text.bytes().take_while(u8::is_ascii_alphabetic).count();
            if letters < 1 {
                return None;
            }
            &text[letters..]
        }
    };
    let (west, digits) = match rest.as_bytes().first()? {
        b'-' => (false, &rest[1..]),
        b'+' => (true, &rest[1..]),
        _ => (true, rest),
    };
    let seconds = parse_offset(digits)?;
    Some(Zone::Fixed(if west { -seconds } else { seconds }))
}

/// `hh`, `hhmm`, `hhmmss`, `hh:mm`, `hh:mm:ss` in seconds.
pub(crate) fn parse_offset(digits: &str) -> Option<i32> {
    let mut parts = [0i32; 3];
    if digits.contains(':') {
        for (place, part) in digits.split(':').enumerate() {
            *parts.get_mut(place)? = small_number(part)?;
        }
    } else {
        // Two digits each, the first may be one.
        let first = if digits.len().is_multiple_of(2) { 2 } else { 1 };
        let mut rest = digits;
        let mut width = first;
        for slot in &mut parts {
            if rest.is_empty() {
                break;
            }
            *slot = small_number(rest.get(..width)?)?;
            rest = &rest[width..];
            width = 2;
        }
        if !rest.is_empty() || digits.is_empty() {
            return None;
        }
    }
    let [hours, minutes, seconds] = parts;
    (hours <= 15 && minutes < 60 && seconds < 60).then_some(hours * 3600 + minutes * 60 + seconds)
}

/// One or two digits.
fn small_number(digits: &str) -> Option<i32> {
    let ok = (1..=2).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    if ok { digits.parse().ok() } else { None }
}

/// Writes an offset as Postgres shows it behind a time: `+00`, `-03:30`, `+00:19:32`.
pub(crate) fn write_offset(seconds: i32, out: &mut BytesMut) {
    out.put_u8(if seconds < 0 { b'-' } else { b'+' });
    let seconds = seconds.unsigned_abs();
    super::datetime::write_padded(seconds / 3600, 2, out);
    if !seconds.is_multiple_of(3600) {
        out.put_u8(b':');
        super::datetime::write_padded(seconds / 60 % 60, 2, out);
    }
    if !seconds.is_multiple_of(60) {
        out.put_u8(b':');
        super::datetime::write_padded(seconds % 60, 2, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2024-03-31 00:00 UTC, the day when Berlin springs forward at 01:00 UTC.
    const SPRING_US: i64 = 1_711_843_200 * US_PER_SECOND;
    const HOUR_US: i64 = 3600 * US_PER_SECOND;

    #[test]
    fn names_and_offsets() {
        let berlin = Zone::parse("europe/berlin").expect("a zone");
        assert_eq!(berlin, Zone::Named(Tz::Europe__Berlin));
        assert_eq!(berlin.offset_at(SPRING_US), 3600);
        assert_eq!(berlin.offset_at(SPRING_US + HOUR_US), 7200);
        for (text, seconds) in [
            ("UTC", 0),
            ("2", 7200),
            ("-3.5", -12600),
            ("+05:30", 19800),
            ("-07:00", -25200),
            ("<+02>-02", 7200),
            ("EST5", -18000),
            ("<-03:30>+03:30", -12600),
        ] {
            assert_eq!(Zone::parse(text).expect(text), Zone::Fixed(seconds), "{text}");
        }
        for text in ["", "Mars/Base", "1000", "<+02>", "EST5EDT6"] {
            assert!(Zone::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn local_times_that_are_missing_or_double() {
        let berlin = Zone::parse("Europe/Berlin").expect("a zone");
        // 02:30 does not exist: read as +01, so it is 01:30 UTC.
        assert_eq!(berlin.to_utc(SPRING_US + 5 * HOUR_US / 2), Some(SPRING_US + 3 * HOUR_US / 2));
        // 2024-10-27 02:30 exists twice; the later one is +01.
        let autumn_us = 1_729_987_200 * US_PER_SECOND;
        assert_eq!(berlin.to_utc(autumn_us + 5 * HOUR_US / 2), Some(autumn_us + 3 * HOUR_US / 2));
        // Far beyond chrono's years nothing breaks.
        assert_eq!(berlin.offset_at(i64::MAX), 3600);
        assert_eq!(berlin.to_utc(i64::MIN), None);
    }
}
