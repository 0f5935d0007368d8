//! interval, to and from text.
//!
//! An interval is months, days and microseconds that do not mix: a month has no fixed length. It is
//! printed in the style that the `IntervalStyle` setting names and read in all of them, whatever
//! the setting is. Fractions of a unit go to the next smaller one: half a month is 15 days, half a
//! day is 12 hours; smaller ones are microseconds.

use bytes::{BufMut, BytesMut};

use super::datetime::{US_PER_DAY, US_PER_HOUR, US_PER_MINUTE, US_PER_SECOND};
use super::datetime::{write_fraction, write_padded};
use super::number::write_integer;
use super::{invalid_syntax, is_space, trim};
use crate::types::error::{Error, Result, SqlState};

/// Months, days and microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interval {
    pub months: i32,
    pub days: i32,
    pub us: i64,
}

/// The `IntervalStyle` setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntervalStyle {
    Postgres,
    PostgresVerbose,
    SqlStandard,
    Iso8601,
}

impl IntervalStyle {
    /// Reads a value of the setting.
    pub fn parse(text: &str) -> Option<IntervalStyle> {
        [
            ("postgres", IntervalStyle::Postgres),
            ("postgres_verbose", IntervalStyle::PostgresVerbose),
            ("sql_standard", IntervalStyle::SqlStandard),
            ("iso_8601", IntervalStyle::Iso8601),
        ]
        .into_iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(text))
        .map(|(_, style)| style)
    }
}

/// An interval as it is shown: each part with the sign of what it was taken from.
struct Parts {
    years: i64,
    months: i64,
    days: i64,
    hours: i64,
    minutes: i64,
    seconds: i64,
    us: i64,
}

impl Parts {
    fn of(interval: Interval) -> Parts {
        Parts {
            years: i64::from(interval.months / 12),
            months: i64::from(interval.months % 12),
            days: i64::from(interval.days),
            hours: interval.us / US_PER_HOUR,
            minutes: interval.us / US_PER_MINUTE % 60,
            seconds: interval.us / US_PER_SECOND % 60,
            us: interval.us % US_PER_SECOND,
        }
    }
}

/// Writes an interval in `style`.
pub fn write_interval(interval: Interval, style: IntervalStyle, out: &mut BytesMut) {
    match style {
        IntervalStyle::Postgres => write_postgres(interval, out),
        IntervalStyle::PostgresVerbose => write_verbose(interval, out),
        IntervalStyle::SqlStandard => write_sql_standard(interval, out),
        IntervalStyle::Iso8601 => write_iso_8601(interval, out),
    }
}

/// Seconds without their sign: `06.7`.
fn write_seconds(parts: &Parts, width: usize, out: &mut BytesMut) {
    write_padded(parts.seconds.unsigned_abs() as u32, width, out);
    write_fraction(parts.us.unsigned_abs() as u32, out);
}

/// Hours, minutes and seconds without their sign: `04:05:06.7`.
fn write_clock(parts: &Parts, hour_width: usize, out: &mut BytesMut) {
    // 64 bits of microseconds are less than 2^32 hours.
    write_padded(parts.hours.unsigned_abs() as u32, hour_width, out);
    out.put_u8(b':');
    write_padded(parts.minutes.unsigned_abs() as u32, 2, out);
    out.put_u8(b':');
    write_seconds(parts, 2, out);
}

/// `1 year 2 mons -3 days +04:05:06.7`: a part behind a negative one shows its sign.
fn write_postgres(interval: Interval, out: &mut BytesMut) {
    let parts = Parts::of(interval);
    let mut empty = true;
    let mut after_negative = false;
    for (value, unit) in [(parts.years, " year"), (parts.months, " mon"), (parts.days, " day")] {
        if value == 0 {
            continue;
        }
        if !empty {
            out.put_u8(b' ');
        }
        if after_negative && value > 0 {
            out.put_u8(b'+');
        }
        write_integer(value, out);
        out.put_slice(unit.as_bytes());
        if value != 1 {
            out.put_u8(b's');
        }
        empty = false;
        after_negative = value < 0;
    }
    if empty || interval.us != 0 {
        if !empty {
            out.put_u8(b' ');
        }
        if interval.us < 0 {
            out.put_u8(b'-');
        } else if after_negative {
            out.put_u8(b'+');
        }
        write_clock(&parts, 2, out);
    }
}

/// `@ 1 year 2 mons -3 days 4 hours 5 mins 6.7 secs ago`: the first part's sign is said last.
fn write_verbose(interval: Interval, out: &mut BytesMut) {
    let parts = Parts::of(interval);
    let mut first_sign = 0;
    out.put_u8(b'@');
    for (value, unit) in [
        (parts.years, " year"),
        (parts.months, " mon"),
        (parts.days, " day"),
        (parts.hours, " hour"),
        (parts.minutes, " min"),
    ] {
        if value == 0 {
            continue;
        }
        if first_sign == 0 {
            first_sign = value.signum();
        }
        let shown = value * first_sign;
        out.put_u8(b' ');
        write_integer(shown, out);
        out.put_slice(unit.as_bytes());
        if shown != 1 {
            out.put_u8(b's');
        }
    }
    let seconds_sign = (parts.seconds + parts.us).signum();
    if seconds_sign != 0 {
        if first_sign == 0 {
            first_sign = seconds_sign;
        }
        out.put_u8(b' ');
        if seconds_sign != first_sign {
            out.put_u8(b'-');
        }
        write_seconds(&parts, 1, out);
        let one = parts.seconds.abs() == 1 && parts.us == 0;
        out.put_slice(if one { b" sec" } else { b" secs" });
    }
    match first_sign {
        0 => out.put_slice(b" 0"),
        -1 => out.put_slice(b" ago"),
        _ => {}
    }
}

/// `1-2`, `3 4:05:06.7`, or both with signs where the standard has no form.
fn write_sql_standard(interval: Interval, out: &mut BytesMut) {
    let parts = Parts::of(interval);
    let signs = [i64::from(interval.months), i64::from(interval.days), interval.us];
    let negative = signs.iter().any(|part| *part < 0);
    let positive = signs.iter().any(|part| *part > 0);
    let has_months = interval.months != 0;
    let has_time = interval.days != 0 || interval.us != 0;
    if !negative && !positive {
        out.put_u8(b'0');
    } else if (negative && positive) || (has_months && has_time) {
        let sign = |value: i64| if value < 0 { b'-' } else { b'+' };
        out.put_u8(sign(i64::from(interval.months)));
        write_integer(parts.years.abs(), out);
        out.put_u8(b'-');
        write_integer(parts.months.abs(), out);
        out.put_slice(&[b' ', sign(parts.days)]);
        write_integer(parts.days.abs(), out);
        out.put_slice(&[b' ', sign(interval.us)]);
        write_clock(&parts, 1, out);
    } else {
        if negative {
            out.put_u8(b'-');
        }
        if has_months {
            write_integer(parts.years.abs(), out);
            out.put_u8(b'-');
            write_integer(parts.months.abs(), out);
        } else {
            if parts.days != 0 {
                write_integer(parts.days.abs(), out);
                out.put_u8(b' ');
            }
            write_clock(&parts, 1, out);
        }
    }
}

/// `P1Y2M-3DT4H5M6.7S`.
fn write_iso_8601(interval: Interval, out: &mut BytesMut) {
    if interval == Interval::default() {
        out.put_slice(b"PT0S");
        return;
    }
    let parts = Parts::of(interval);
    let write_part = |value: i64, unit: u8, out: &mut BytesMut| {
        if value != 0 {
            write_integer(value, out);
            out.put_u8(unit);
        }
    };
    out.put_u8(b'P');
    write_part(parts.years, b'Y', out);
    write_part(parts.months, b'M', out);
    write_part(parts.days, b'D', out);
    if interval.us != 0 {
        out.put_u8(b'T');
    }
    write_part(parts.hours, b'H', out);
    write_part(parts.minutes, b'M', out);
    if parts.seconds != 0 || parts.us != 0 {
        if parts.seconds < 0 || parts.us < 0 {
            out.put_u8(b'-');
        }
        write_seconds(&parts, 1, out);
        out.put_u8(b'S');
    }
}

/// Reads an interval, whatever style it is in. The setting decides only what one leading minus is
/// for: all of `-1 2:03` in SQL's own style, the day in the others.
///
/// # Errors
/// SQLSTATE 22007, and 22015 when a field does not fit.
pub fn parse_interval(text: &str, style: IntervalStyle) -> Result<Interval> {
    let body = trim(text);
    let mut reader = Reader { bytes: body.as_bytes(), at: 0, sum: Sum::default() };
    let read = if body.starts_with(['P', 'p']) { reader.iso_8601() } else { reader.words() };
    if style == IntervalStyle::SqlStandard && one_sign_for_all(body.as_bytes()) {
        reader.sum.make_negative();
    }
    match read.and_then(|()| reader.sum.finish()) {
        Ok(interval) => Ok(interval),
        Err(Mistake::Syntax) => {
            let body = invalid_syntax("interval", text);
            Err(Error::user(SqlState::INVALID_DATETIME_FORMAT, body.message()))
        }
        Err(Mistake::Range) => Err(Error::user(
            SqlState::INTERVAL_FIELD_OVERFLOW,
            format!("interval field value out of range: \"{text}\""),
        )),
    }
}

/// Whether the only sign is a minus in front of everything.
fn one_sign_for_all(body: &[u8]) -> bool {
    let sign_begins_word = |pair: &[u8]| is_space(pair[0]) && matches!(pair[1], b'+' | b'-');
    body.first() == Some(&b'-') && !body.windows(2).any(sign_begins_word)
}

/// Why a text is no interval.
#[derive(Clone, Copy)]
enum Mistake {
    Syntax,
    Range,
}

/// What a number of an interval counts.
#[derive(Clone, Copy)]
enum Unit {
    Years(i64),
    Months,
    Days(i64),
    Us(i64),
}

/// A number of the text, split so that whole parts stay exact.
#[derive(Clone, Copy)]
struct Number {
    negative: bool,
    whole: i64,
    fraction: f64,
}

/// The parts read so far.
#[derive(Default)]
struct Sum {
    months: i64,
    days: i64,
    us: i64,
    any: bool,
    /// One bit for each unit that was named: none may be twice.
    seen: u16,
}

impl Sum {
    fn add(&mut self, number: Number, unit: Unit) -> Result<(), Mistake> {
        let sign = if number.negative { -1 } else { 1 };
        let whole = number.whole * sign;
        let fraction = number.fraction * sign as f64;
        let add = |slot: &mut i64, count: i64, size: i64| {
            *slot =
                count.checked_mul(size).and_then(|v| slot.checked_add(v)).ok_or(Mistake::Range)?;
            Ok(())
        };
        match unit {
            Unit::Years(size) => {
                add(&mut self.months, whole, 12 * size)?;
                add(&mut self.months, (fraction * (12 * size) as f64).round_ties_even() as i64, 1)?;
            }
            Unit::Months => {
                add(&mut self.months, whole, 1)?;
                self.add_days(fraction * 30.0)?;
            }
            Unit::Days(size) => {
                add(&mut self.days, whole, size)?;
                self.add_days(fraction * size as f64)?;
            }
            Unit::Us(size) => {
                add(&mut self.us, whole, size)?;
                add(&mut self.us, (fraction * size as f64).round_ties_even() as i64, 1)?;
            }
        }
        self.any = true;
        Ok(())
    }

    /// A number of days that need not be whole.
    fn add_days(&mut self, days: f64) -> Result<(), Mistake> {
        self.days = self.days.checked_add(days.trunc() as i64).ok_or(Mistake::Range)?;
        // Rounded first: 0.1 of a day must not lose a microsecond to the binary fraction.
        let us = (days.fract() * US_PER_DAY as f64).round_ties_even() as i64;
        self.us = self.us.checked_add(us).ok_or(Mistake::Range)?;
        Ok(())
    }

    /// Notes that units were named.
    fn see(&mut self, bits: u16) -> Result<(), Mistake> {
        let twice = self.seen & bits != 0;
        self.seen |= bits;
        if twice { Err(Mistake::Syntax) } else { Ok(()) }
    }

    fn negate(&mut self) {
        self.months = self.months.saturating_neg();
        self.days = self.days.saturating_neg();
        self.us = self.us.saturating_neg();
    }

    fn make_negative(&mut self) {
        self.months = -self.months.saturating_abs();
        self.days = -self.days.saturating_abs();
        self.us = -self.us.saturating_abs();
    }

    fn finish(&self) -> Result<Interval, Mistake> {
        if !self.any {
            return Err(Mistake::Syntax);
        }
        Ok(Interval {
            months: i32::try_from(self.months).map_err(|_| Mistake::Range)?,
            days: i32::try_from(self.days).map_err(|_| Mistake::Range)?,
            us: self.us,
        })
    }
}

/// A place in the text and what stood before it.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    sum: Sum,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let here = self.peek() == Some(byte);
        self.at += usize::from(here);
        here
    }

    /// Skips space, and commas, which mean nothing.
    fn skip_space(&mut self) {
        while self.peek().is_some_and(|b| is_space(b) || b == b',') {
            self.at += 1;
        }
    }

    /// `[+-]digits[.digits]`.
    fn number(&mut self) -> Result<Number, Mistake> {
        let negative = self.take(b'-');
        if negative || self.take(b'+') {
            self.skip_space();
        }
        let mut number = Number { negative, whole: 0, fraction: 0.0 };
        let start = self.at;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            let next = number.whole.checked_mul(10);
            number.whole =
                next.and_then(|n| n.checked_add(i64::from(digit - b'0'))).ok_or(Mistake::Range)?;
            self.at += 1;
        }
        let mut any = self.at > start;
        if self.take(b'.') {
            let start = self.at;
            while self.peek().is_some_and(|b| b.is_ascii_digit()) {
                self.at += 1;
            }
            any |= self.at > start;
            let digits = std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or("");
            if !digits.is_empty() {
                number.fraction = format!("0.{digits}").parse().map_err(|_| Mistake::Syntax)?;
            }
        }
        if any { Ok(number) } else { Err(Mistake::Syntax) }
    }

    /// A run of letters, in lower case.
    fn word(&mut self) -> String {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_alphabetic()) {
            self.at += 1;
        }
        String::from_utf8_lossy(&self.bytes[start..self.at]).to_ascii_lowercase()
    }

    /// Numbers with units, clocks and `years-months`, in any order; `ago` at the end.
    fn words(&mut self) -> Result<(), Mistake> {
        self.take(b'@');
        loop {
            self.skip_space();
            let Some(byte) = self.peek() else { return Ok(()) };
            if byte.is_ascii_alphabetic() {
                let ago = self.word() == "ago" && self.sum.any;
                self.skip_space();
                if !ago || self.peek().is_some() {
                    return Err(Mistake::Syntax);
                }
                self.sum.negate();
                return Ok(());
            }
            let number = self.number()?;
            match self.peek() {
                Some(b':') => self.clock(number)?,
                Some(b'-') => {
                    self.at += 1;
                    let months = self.number()?;
                    if number.fraction != 0.0 || months.fraction != 0.0 || months.whole > 11 {
                        return Err(Mistake::Syntax);
                    }
                    self.sum.see(1 << YEARS | 1 << MONTHS)?;
                    self.sum.add(number, Unit::Years(1))?;
                    self.sum.add(Number { negative: number.negative, ..months }, Unit::Months)?;
                }
                _ => {
                    self.skip_space();
                    let (bit, unit) = match self.peek() {
                        Some(b) if b.is_ascii_alphabetic() => {
                            unit_of(&self.word()).ok_or(Mistake::Syntax)?
                        }
                        // Alone at the end it counts seconds, in front of a clock days.
                        None => (SECONDS, Unit::Us(US_PER_SECOND)),
                        Some(_) if self.clock_follows() => (DAYS, Unit::Days(1)),
                        Some(_) => return Err(Mistake::Syntax),
                    };
                    self.sum.see(1 << bit)?;
                    self.sum.add(number, unit)?;
                }
            }
        }
    }

    fn clock_follows(&self) -> bool {
        let rest = &self.bytes[self.at..];
        let signs = rest.iter().take_while(|b| matches!(b, b'+' | b'-')).count();
        let digits = rest[signs..].iter().take_while(|b| b.is_ascii_digit()).count();
        digits > 0 && rest.get(signs + digits) == Some(&b':')
    }

    /// `:05[:06.7]` behind the hours, whose sign is that of all; with two parts and a fraction they
    /// are minutes and seconds.
    fn clock(&mut self, first: Number) -> Result<(), Mistake> {
        let negative = first.negative;
        let zero = Number { negative, whole: 0, fraction: 0.0 };
        self.at += 1;
        let second = Number { negative, ..self.number()? };
        let (hours, minutes, seconds) = if self.take(b':') {
            (first, second, Number { negative, ..self.number()? })
        } else if second.fraction != 0.0 {
            (zero, first, second)
        } else {
            (first, second, zero)
        };
        if hours.fraction != 0.0 || minutes.fraction != 0.0 {
            return Err(Mistake::Syntax);
        }
        self.sum.see(1 << HOURS | 1 << MINUTES | 1 << SECONDS)?;
        if minutes.whole > 59 || seconds.whole > 60 {
            return Err(Mistake::Range);
        }
        self.sum.add(hours, Unit::Us(US_PER_HOUR))?;
        self.sum.add(minutes, Unit::Us(US_PER_MINUTE))?;
        self.sum.add(seconds, Unit::Us(US_PER_SECOND))
    }

    /// `P1Y2M3W4DT5H6M7.8S`, or `P0001-02-03T04:05:06`.
    fn iso_8601(&mut self) -> Result<(), Mistake> {
        self.at += 1;
        let mut in_time = false;
        while let Some(byte) = self.peek() {
            if matches!(byte, b'T' | b't') && !in_time {
                in_time = true;
                self.at += 1;
                continue;
            }
            let number = self.number()?;
            let Some(designator) = self.peek() else { return Err(Mistake::Syntax) };
            let unit = match (designator.to_ascii_uppercase(), in_time) {
                (b'Y', false) => Unit::Years(1),
                (b'M', false) => Unit::Months,
                (b'W', false) => Unit::Days(7),
                (b'D', false) => Unit::Days(1),
                (b'H', true) => Unit::Us(US_PER_HOUR),
                (b'M', true) => Unit::Us(US_PER_MINUTE),
                (b'S', true) => Unit::Us(US_PER_SECOND),
                (b'-', false) => {
                    self.at += 1;
                    self.sum.add(number, Unit::Years(1))?;
                    let months = self.number()?;
                    self.sum.add(months, Unit::Months)?;
                    if !self.take(b'-') {
                        return Err(Mistake::Syntax);
                    }
                    let days = self.number()?;
                    self.sum.add(days, Unit::Days(1))?;
                    continue;
                }
                (b':', true) => {
                    self.clock(number)?;
                    continue;
                }
                _ => return Err(Mistake::Syntax),
            };
            self.at += 1;
            self.sum.add(number, unit)?;
        }
        Ok(())
    }
}

/// Bits of [`Sum::seen`].
const SECONDS: u16 = 2;
const MINUTES: u16 = 3;
const HOURS: u16 = 4;
const DAYS: u16 = 5;
const MONTHS: u16 = 7;
const YEARS: u16 = 8;

/// A unit by its name, and its bit.
fn unit_of(word: &str) -> Option<(u16, Unit)> {
    Some(match word {
        "us" | "usec" | "usecs" | "usecond" | "useconds" | "microsecond" | "microseconds" => {
            (0, Unit::Us(1))
        }
        "ms" | "msec" | "msecs" | "msecond" | "mseconds" | "millisecond" | "milliseconds" => {
            (1, Unit::Us(1000))
        }
        "s" | "sec" | "secs" | "second" | "seconds" => (SECONDS, Unit::Us(US_PER_SECOND)),
        "m" | "min" | "mins" | "minute" | "minutes" => (MINUTES, Unit::Us(US_PER_MINUTE)),
        "h" | "hr" | "hrs" | "hour" | "hours" => (HOURS, Unit::Us(US_PER_HOUR)),
        "d" | "day" | "days" => (DAYS, Unit::Days(1)),
        "w" | "week" | "weeks" => (6, Unit::Days(7)),
        "mon" | "mons" | "month" | "months" => (MONTHS, Unit::Months),
        "y" | "yr" | "yrs" | "year" | "years" => (YEARS, Unit::Years(1)),
        "dec" | "decs" | "decade" | "decades" => (9, Unit::Years(10)),
        "c" | "cent" | "century" | "centuries" => (10, Unit::Years(100)),
        "mil" | "mils" | "millennium" | "millennia" => (11, Unit::Years(1000)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
