//! Dates, times and timestamps from ISO 8601 text, as Postgres writes and reads them.
//!
//! One pass over the bytes, no allocation. Fractions are rounded to microseconds. What has a zone
//! becomes UTC, also where the column has none: one instant has one place in event time.

use crate::types::text::datetime::{INFINITY_DAYS, INFINITY_US, infinity_of};

/// Why a text is not a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// It does not look like one.
    Syntax,
    /// It looks like one, and is beyond what the type holds.
    Range,
}

const SECOND_US: i64 = 1_000_000;
const MINUTE_US: i64 = 60 * SECOND_US;
const HOUR_US: i64 = 60 * MINUTE_US;
const DAY_US: i64 = 24 * HOUR_US;

/// Reads a text from left to right.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes: bytes.trim_ascii(), at: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    fn take(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    /// A run of digits and how many; at most 18, so that it fits.
    fn digits(&mut self) -> Result<(i64, usize), Bad> {
        let start = self.at;
        let mut value = 0i64;
        while let Some(digit) = self.peek().filter(u8::is_ascii_digit) {
            if self.at - start == 18 {
                return Err(Bad::Range);
            }
            value = value * 10 + i64::from(digit - b'0');
            self.at += 1;
        }
        if self.at == start { Err(Bad::Syntax) } else { Ok((value, self.at - start)) }
    }

    /// One or two digits, at most `max`.
    fn part(&mut self, max: i64) -> Result<i64, Bad> {
        let (value, digits) = self.digits()?;
        if digits > 2 {
            return Err(Bad::Syntax);
        }
        if value > max { Err(Bad::Range) } else { Ok(value) }
    }

    /// `2013-01-31`, `2013/01/31` or `20130131`, as days since 1970-01-01.
    fn date(&mut self) -> Result<i64, Bad> {
        let (number, digits) = self.digits()?;
        let (year, month, day) = match self.peek() {
            Some(separator @ (b'-' | b'/')) if (4..=6).contains(&digits) => {
                self.at += 1;
                let month = self.part(12)?;
                if !self.take(separator) {
                    return Err(Bad::Syntax);
                }
                (number, month, self.part(31)?)
            }
            _ if digits == 8 => (number / 10_000, number / 100 % 100, number % 100),
            _ => return Err(Bad::Syntax),
        };
        days_since_1970(year, month, day).ok_or(Bad::Range)
    }

    /// `10:15`, `10:15:30`, `10:15:30.123456`, as microseconds since midnight; up to 24:00:00.
    fn time(&mut self) -> Result<i64, Bad> {
        let hour = self.part(24)?;
        if !self.take(b':') {
            return Err(Bad::Syntax);
        }
        let mut micros = hour * HOUR_US + self.part(59)? * MINUTE_US;
        if self.take(b':') {
            // 60 is a leap second, and counts as the next minute's first.
            micros += self.part(60)? * SECOND_US;
            if self.take(b'.') || self.take(b',') {
                micros += self.fraction()?;
            }
        }
        if micros > DAY_US { Err(Bad::Range) } else { Ok(micros) }
    }

    /// The digits after a decimal point, in microseconds.
    fn fraction(&mut self) -> Result<i64, Bad> {
        let start = self.at;
        let (mut micros, mut unit) = (0, SECOND_US / 10);
        let mut round_up = false;
        while let Some(digit) = self.peek().filter(u8::is_ascii_digit) {
            if unit > 0 {
                micros += i64::from(digit - b'0') * unit;
                unit /= 10;
            } else if self.at - start == 6 {
                round_up = digit >= b'5';
            }
            self.at += 1;
        }
        if self.at == start { Err(Bad::Syntax) } else { Ok(micros + i64::from(round_up)) }
    }

    /// `Z`, `UTC`, `+02`, `-0530`, `+05:30`: microseconds east of UTC; `None` when nothing is left.
    fn zone(&mut self) -> Result<Option<i64>, Bad> {
        while self.take(b' ') {}
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return Ok(None);
        }
        if ["z", "utc", "gmt"].iter().any(|name| rest.eq_ignore_ascii_case(name.as_bytes())) {
            self.at = self.bytes.len();
            return Ok(Some(0));
        }
        let west = match self.peek() {
            Some(b'+') => false,
            Some(b'-') => true,
            _ => return Err(Bad::Syntax),
        };
        self.at += 1;
        let (number, digits) = self.digits()?;
        let (hours, minutes) = match digits {
            1 | 2 if self.take(b':') => (number, self.part(59)?),
            1 | 2 => (number, 0),
            3 | 4 => (number / 100, number % 100),
            _ => return Err(Bad::Syntax),
        };
        if !self.at_end() {
            return Err(Bad::Syntax);
        }
        if hours > 15 || minutes > 59 {
            return Err(Bad::Range);
        }
        let offset = hours * HOUR_US + minutes * MINUTE_US;
        Ok(Some(if west { -offset } else { offset }))
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar; `None` when there is no such date.
fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let month_days = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if year < 1 || !(1..=month_days).contains(&day) {
        return None;
    }
    // Years counted from March, so that the leap day is a year's last; 153 days are five months.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    Some(year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468)
}

/// A timestamp in microseconds since 1970-01-01 00:00:00 UTC. Without a zone it is taken as UTC.
pub fn parse_timestamp_us(text: &[u8]) -> Result<i64, Bad> {
    if let Some(negative) = infinity_of(text) {
        return Ok(if negative { i64::MIN } else { INFINITY_US });
    }
    let mut cursor = Cursor::new(text);
    let days = cursor.date()?;
    let mut micros = days.checked_mul(DAY_US).ok_or(Bad::Range)?;
    if cursor.at_end() {
        return Ok(micros);
    }
    if !(cursor.take(b'T') || cursor.take(b't') || cursor.take(b' ')) {
        return Err(Bad::Syntax);
    }
    while cursor.take(b' ') {}
    let time = cursor.time()?;
    let east = cursor.zone()?.unwrap_or(0);
    micros = micros.checked_add(time - east).ok_or(Bad::Range)?;
    Ok(micros)
}

/// Whether a text is a timestamp that says its zone.
pub fn has_zone(text: &[u8]) -> bool {
    let mut cursor = Cursor::new(text);
    let mut zone = || {
        cursor.date()?;
        cursor.at = (cursor.at + 1).min(cursor.bytes.len());
        cursor.time()?;
        cursor.zone()
    };
    matches!(zone(), Ok(Some(_)))
}

/// A date in days since 1970-01-01. Of a timestamp it is the date as written.
pub fn parse_date_days(text: &[u8]) -> Result<i32, Bad> {
    if let Some(negative) = infinity_of(text) {
        return Ok(if negative { i32::MIN } else { INFINITY_DAYS });
    }
    let mut cursor = Cursor::new(text);
    let days = cursor.date()?;
    if !cursor.at_end() {
        parse_timestamp_us(text)?;
    }
    i32::try_from(days).map_err(|_| Bad::Range)
}

/// A time of day in microseconds since midnight.
pub fn parse_time_us(text: &[u8]) -> Result<i64, Bad> {
    let mut cursor = Cursor::new(text);
    let micros = cursor.time()?;
    // Arrow's time of day ends before 24:00:00.
    match (cursor.at_end(), micros < DAY_US) {
        (true, true) => Ok(micros),
        (true, false) => Err(Bad::Range),
        (false, _) => Err(Bad::Syntax),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_in_every_spelling() {
        // 2013-01-01T10:00:00Z is 1,357,034,400 s after 1970 (date -u -d ... +%s).
        let ten = 1_357_034_400 * SECOND_US;
        for text in [
            "2013-01-01T10:00:00Z",
            "2013-01-01 10:00:00",
            "2013-01-01 10:00",
            "2013/01/01 10:00:00",
            "20130101T10:00:00z",
            " 2013-01-01 10:00:00.000 ",
            "2013-01-01 12:00:00+02",
            "2013-01-01 15:30:00+05:30",
            "2013-01-01T04:30:00-0530",
            "2013-01-01 10:00:00 UTC",
            "2013-1-1 10:00:00",
        ] {
            assert_eq!(parse_timestamp_us(text.as_bytes()), Ok(ten), "{text}");
        }
        let at = |text: &str| parse_timestamp_us(text.as_bytes());
        assert_eq!(at("2013-01-01T10:00:00.123456"), Ok(ten + 123_456));
        assert_eq!(at("2013-01-01T10:00:00.1"), Ok(ten + 100_000));
        assert_eq!(at("2013-01-01T10:00:00.1234565"), Ok(ten + 123_457));
        assert_eq!(at("2013-01-01T10:00:00.123456499"), Ok(ten + 123_456));
        assert_eq!(at("2013-01-01"), Ok(ten - 10 * HOUR_US));
        assert_eq!(at("1969-12-31 23:59:59"), Ok(-SECOND_US));
        assert_eq!(at("2000-02-29"), Ok(951_782_400 * SECOND_US));
        assert_eq!(at("2012-12-31 24:00:00"), Ok(ten - 10 * HOUR_US));
    }

    #[test]
    fn what_is_not_a_timestamp() {
        for text in [
            "",
            "x",
            "2013",
            "2013-01",
            "2013-01-01X10:00",
            "2013-01-01 10",
            "2013-01-01 10:00:00Y",
            "2013-01-01 10:00:00.",
            "2013-01/01",
            "2013-01-01 10:00:00+",
            "10:00:00",
            "NA",
            "2013-01-01 10:00:00+02:00:00",
            "2013-01-01 100:00",
        ] {
            assert_eq!(parse_timestamp_us(text.as_bytes()), Err(Bad::Syntax), "{text}");
        }
        for text in [
            "2013-02-29",
            "1900-02-29",
            "2013-13-01",
            "2013-04-31",
            "2013-00-10",
            "2013-01-00",
            "2013-01-01 25:00:00",
            "2013-01-01 10:60:00",
            "2013-01-01 24:00:01",
            "0000-01-01",
            "2013-01-01 10:00:00+99",
            "999999-01-01 00:00:00",
            "12345678901234567890-01-01",
        ] {
            assert_eq!(parse_timestamp_us(text.as_bytes()), Err(Bad::Range), "{text}");
        }
    }

    #[test]
    fn dates_and_times() {
        assert_eq!(parse_date_days(b"1970-01-01"), Ok(0));
        assert_eq!(parse_date_days(b"2013-01-01"), Ok(15_706));
        assert_eq!(parse_date_days(b"2013-01-01T23:00:00-05"), Ok(15_706));
        assert_eq!(parse_date_days(b"2013-01-01 junk"), Err(Bad::Syntax));
        assert_eq!(parse_time_us(b"23:59:59.5"), Ok(DAY_US - SECOND_US / 2));
        assert_eq!(parse_time_us(b"24:00:00"), Err(Bad::Range));
        assert_eq!(parse_time_us(b"9:05"), Ok(9 * HOUR_US + 5 * MINUTE_US));
        assert_eq!(parse_time_us(b"9"), Err(Bad::Syntax));
        assert_eq!(parse_time_us(b"09:05 pm"), Err(Bad::Syntax));
    }

    #[test]
    fn the_calendar_agrees_with_chrono() {
        let start = chrono::NaiveDate::from_ymd_opt(1, 1, 1).expect("a date");
        let epoch = chrono::NaiveDate::from_ymd_opt(1970, 1, 1).expect("a date");
        for (index, date) in start.iter_days().take(900_000).enumerate() {
            if index % 7 != 0 && index > 1500 {
                continue;
            }
            let text = date.format("%Y-%m-%d").to_string();
            let expected = (date - epoch).num_days() as i32;
            assert_eq!(parse_date_days(text.as_bytes()), Ok(expected), "{text}");
        }
    }
}
