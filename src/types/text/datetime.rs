//! date, time, timestamp and timestamptz, to and from text.
//!
//! Printing is the ISO DateStyle: `2024-01-02 03:04:05.6+00`, years before 1 as `0044-03-15 BC`,
//! years beyond 9999 with all their digits, fractions without trailing zeros.
//!
//! Reading takes what people and drivers write, in any order Postgres takes:
//! 1. The text is cut into words, signs and runs of digits; each fills one field (a date in ISO,
//!    `1/2/2024`, `20240102` or `2 Jan 2024` form, a time, a zone, AM/PM, BC, `today` and the like).
//! 2. A field that is filled twice, or a word that means nothing, is a syntax error (22007).
//! 3. The fields are checked against the calendar (22008) and put together.
//!
//! `infinity` is later than every other date or timestamp, `-infinity` earlier: the ends of the
//! numbers that they are kept in, so that they sort and compare by themselves.

use bytes::{BufMut, BytesMut};

use super::is_space;
use super::zone::{Zone, parse_offset, write_offset};
use crate::types::error::{Error, Result, SqlState};

pub const US_PER_SECOND: i64 = 1_000_000;
pub const US_PER_MINUTE: i64 = 60 * US_PER_SECOND;
pub const US_PER_HOUR: i64 = 60 * US_PER_MINUTE;
pub const US_PER_DAY: i64 = 24 * US_PER_HOUR;

/// `infinity` as a timestamp.
pub const INFINITY_US: i64 = i64::MAX;
/// `infinity` as a date.
pub const INFINITY_DAYS: i32 = i32::MAX;

/// Whether a timestamp is `infinity` or `-infinity`.
pub fn is_infinite_us(us: i64) -> bool {
    us == INFINITY_US || us == i64::MIN
}

/// Whether a date is `infinity` or `-infinity`.
pub fn is_infinite_days(days: i32) -> bool {
    days == INFINITY_DAYS || days == i32::MIN
}

/// `Some(true)` for the text of `-infinity`, `Some(false)` for that of `infinity`.
pub(crate) fn infinity_of(text: &[u8]) -> Option<bool> {
    let text = text.trim_ascii();
    let (negative, word) = match text.first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    word.eq_ignore_ascii_case(b"infinity").then_some(negative)
}

fn write_infinity(negative: bool, out: &mut BytesMut) {
    out.put_slice(if negative { b"-infinity" } else { b"infinity" });
}

/// Digits of the longest year that is read; no timestamp or date reaches further.
const YEAR_DIGITS_MAX: usize = 7;
/// Bytes of the longest word that can mean something (a zone's name).
const WORD_BYTES_MAX: usize = 40;

/// What `1/2/2024` means: the second part of the DateStyle setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DateOrder {
    Ymd,
    Mdy,
    Dmy,
}

/// What reading a date and time depends on besides its text.
#[derive(Clone, Copy, Debug)]
pub struct DateContext {
    pub zone: Zone,
    pub order: DateOrder,
    /// What `now` and `today` mean: microseconds since 1970 in UTC.
    pub now_us: i64,
}

/// Year, month and day of a day counted from 1970-01-01. Year 0 is 1 BC.
pub fn civil(days: i64) -> (i64, u32, u32) {
    // Eras of 400 years that begin on the 1st of March, so that leap days stand last.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month as u32, day as u32)
}

/// The day of a date, counted from 1970-01-01; the inverse of [`civil`].
pub fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// How many days a month of that year has.
pub fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// `value` with at least `width` digits.
pub(crate) fn write_padded(value: u32, width: usize, out: &mut BytesMut) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value).as_bytes();
    out.put_bytes(b'0', width.saturating_sub(digits.len()));
    out.put_slice(digits);
}

/// The date without its era; whether it is before the year 1.
fn write_calendar(days: i64, out: &mut BytesMut) -> bool {
    let (year, month, day) = civil(days);
    let (month, day) = (two_digits(month), two_digits(day));
    let tail = [b'-', month[0], month[1], b'-', day[0], day[1]];
    let shown = if year > 0 { year } else { 1 - year };
    write_padded(u32::try_from(shown).expect("a year of 64-bit microseconds"), 4, out);
    out.put_slice(&tail);
    year <= 0
}

fn two_digits(value: u32) -> [u8; 2] {
    [b'0' + (value / 10) as u8, b'0' + (value % 10) as u8]
}

/// `04:05:06.789`; `us` is between 0 and one day.
fn write_clock(us: i64, out: &mut BytesMut) {
    let seconds = (us / US_PER_SECOND) as u32;
    let (h, m, s) =
        (two_digits(seconds / 3600), two_digits(seconds / 60 % 60), two_digits(seconds % 60));
    out.put_slice(&[h[0], h[1], b':', m[0], m[1], b':', s[0], s[1]]);
    write_fraction((us % US_PER_SECOND) as u32, out);
}

/// `.789` of 789000 microseconds, nothing of 0.
pub(crate) fn write_fraction(us: u32, out: &mut BytesMut) {
    if us == 0 {
        return;
    }
    let mut digits = [b'.', 0, 0, 0, 0, 0, 0];
    let mut rest = us;
    for digit in digits[1..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let len = digits.iter().rposition(|d| *d != b'0').expect("the point is no zero") + 1;
    out.put_slice(&digits[..len]);
}

/// date: days since 1970-01-01.
pub fn write_date(days: i32, out: &mut BytesMut) {
    if is_infinite_days(days) {
        return write_infinity(days < 0, out);
    }
    if write_calendar(i64::from(days), out) {
        out.put_slice(b" BC");
    }
}

/// time: microseconds since midnight; what lies outside of a day wraps around.
pub fn write_time(us: i64, out: &mut BytesMut) {
    write_clock(if us == US_PER_DAY { us } else { us.rem_euclid(US_PER_DAY) }, out);
}

/// timestamp: microseconds since 1970-01-01 00:00.
pub fn write_timestamp(us: i64, out: &mut BytesMut) {
    if is_infinite_us(us) {
        return write_infinity(us < 0, out);
    }
    let before_christ = write_calendar(us.div_euclid(US_PER_DAY), out);
    out.put_u8(b' ');
    write_clock(us.rem_euclid(US_PER_DAY), out);
    if before_christ {
        out.put_slice(b" BC");
    }
}

/// timestamptz: microseconds since 1970-01-01 00:00 UTC, shown in `zone`.
pub fn write_timestamptz(us: i64, zone: Zone, out: &mut BytesMut) {
    if is_infinite_us(us) {
        return write_infinity(us < 0, out);
    }
    let offset_seconds = zone.offset_at(us);
    let local_us = us.saturating_add(i64::from(offset_seconds) * US_PER_SECOND);
    let before_christ = write_calendar(local_us.div_euclid(US_PER_DAY), out);
    out.put_u8(b' ');
    write_clock(local_us.rem_euclid(US_PER_DAY), out);
    write_offset(offset_seconds, out);
    if before_christ {
        out.put_slice(b" BC");
    }
}

/// date: days since 1970-01-01.
///
/// # Errors
/// SQLSTATE 22007 and 22008.
pub fn parse_date(text: &str, context: &DateContext) -> Result<i32> {
    if let Some(negative) = infinity_of(text.as_bytes()) {
        return Ok(if negative { i32::MIN } else { INFINITY_DAYS });
    }
    let days = || {
        let fields = read(text, false)?;
        if let Some(word) = fields.word {
            let now =
                context.now_us + i64::from(context.zone.offset_at(context.now_us)) * US_PER_SECOND;
            return Ok(word.local_us(now).div_euclid(US_PER_DAY));
        }
        fields.days(context.order)
    };
    let days = days().map_err(|m: Mistake| m.error("date", text))?;
    i32::try_from(days).map_err(|_| Mistake::Range.error("date", text))
}

/// time: microseconds since midnight.
///
/// # Errors
/// SQLSTATE 22007 and 22008.
pub fn parse_time(text: &str, context: &DateContext) -> Result<i64> {
    let us = || {
        let fields = read(text, true)?;
        if fields.word == Some(Word::Now) {
            let now =
                context.now_us + i64::from(context.zone.offset_at(context.now_us)) * US_PER_SECOND;
            return Ok(now.rem_euclid(US_PER_DAY));
        }
        if fields.date != DateField::None {
            fields.days(context.order)?;
        }
        fields.clock.ok_or(Mistake::Syntax)?.us(fields.afternoon)
    };
    us().map_err(|m: Mistake| m.error("time", text))
}

/// timestamp: microseconds since 1970-01-01 00:00. A zone in the text is read and ignored.
///
/// # Errors
/// SQLSTATE 22007 and 22008.
pub fn parse_timestamp(text: &str, context: &DateContext) -> Result<i64> {
    if let Some(negative) = infinity_of(text.as_bytes()) {
        return Ok(if negative { i64::MIN } else { INFINITY_US });
    }
    let us = || {
        let fields = read(text, false)?;
        if let Some(word) = fields.word {
            let now =
                context.now_us + i64::from(context.zone.offset_at(context.now_us)) * US_PER_SECOND;
            return Ok(word.local_us(now));
        }
        fields.local_us(context.order)
    };
    us().map_err(|m: Mistake| m.error("timestamp", text))
}

/// timestamptz: microseconds since 1970-01-01 00:00 UTC. Without a zone in the text it is
/// `context.zone`.
///
/// # Errors
/// SQLSTATE 22007, 22008 and 22023 (an unknown zone).
pub fn parse_timestamptz(text: &str, context: &DateContext) -> Result<i64> {
    if let Some(negative) = infinity_of(text.as_bytes()) {
        return Ok(if negative { i64::MIN } else { INFINITY_US });
    }
    let us = || {
        let fields = read(text, false)?;
        let zone = fields.zone.unwrap_or(context.zone);
        let local_us = match fields.word {
            Some(Word::Now) => return Ok(context.now_us),
            Some(Word::Epoch) => return Ok(0),
            Some(word) => word.local_us(
                context.now_us + i64::from(context.zone.offset_at(context.now_us)) * US_PER_SECOND,
            ),
            None => fields.local_us(context.order)?,
        };
        zone.to_utc(local_us).ok_or(Mistake::Range)
    };
    us().map_err(|m: Mistake| m.error("timestamp with time zone", text))
}

/// Why a text is no date and time.
#[derive(Debug, PartialEq, Eq)]
enum Mistake {
    Syntax,
    /// The fields are there, but no calendar or clock has them.
    Range,
    /// A month beyond 12 or a day beyond 31: perhaps the order is another.
    Order,
    Zone(String),
}

impl Mistake {
    fn error(self, type_name: &str, text: &str) -> Error {
        let out_of_range = || {
            Error::user(
                SqlState::DATETIME_FIELD_OVERFLOW,
                format!("date/time field value out of range: \"{text}\""),
            )
        };
        match self {
            Mistake::Syntax => Error::user(
                SqlState::INVALID_DATETIME_FORMAT,
                format!("invalid input syntax for type {type_name}: \"{text}\""),
            ),
            Mistake::Range => out_of_range(),
            Mistake::Order => {
                out_of_range().hint("Perhaps you need a different \"datestyle\" setting.")
            }
            Mistake::Zone(name) => Error::user(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("time zone \"{name}\" not recognized"),
            ),
        }
    }
}

/// Words that stand for a date and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Now,
    Today,
    Tomorrow,
    Yesterday,
    Epoch,
}

impl Word {
    fn local_us(self, now_us: i64) -> i64 {
        let midnight = now_us - now_us.rem_euclid(US_PER_DAY);
        match self {
            Word::Now => now_us,
            Word::Today => midnight,
            Word::Tomorrow => midnight + US_PER_DAY,
            Word::Yesterday => midnight - US_PER_DAY,
            Word::Epoch => 0,
        }
    }
}

/// A number of the text and how many digits it was written with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Number {
    value: i64,
    digits: usize,
}

/// The date as far as the text says which number is what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum DateField {
    #[default]
    None,
    /// `2024-01-02`, `20240102`.
    Ymd(Number, Number, Number),
    /// `1/2/03`: the DateStyle says.
    Ordered(Number, Number, Number),
    /// A month's name with one or two numbers so far.
    Named { month: u32, first: Option<Number>, second: Option<Number> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Clock {
    hour: i64,
    minute: i64,
    second: i64,
    us: i64,
}

impl Clock {
    fn us(self, afternoon: Option<bool>) -> Result<i64, Mistake> {
        let Clock { mut hour, minute, second, us } = self;
        if let Some(afternoon) = afternoon {
            if hour > 12 {
                return Err(Mistake::Range);
            }
            hour = hour % 12 + if afternoon { 12 } else { 0 };
        }
        // A leap second is read as the next minute's first, and midnight may be 24:00.
        let midnight = hour == 24 && minute == 0 && second == 0 && us == 0;
        if (hour > 23 && !midnight) || minute > 59 || second > 60 {
            return Err(Mistake::Range);
        }
        Ok(((hour * 60 + minute) * 60 + second) * US_PER_SECOND + us)
    }
}

/// What a text holds.
#[derive(Debug, Default)]
struct Fields {
    date: DateField,
    clock: Option<Clock>,
    /// PM or AM.
    afternoon: Option<bool>,
    before_christ: Option<bool>,
    zone: Option<Zone>,
    word: Option<Word>,
    /// Numbers before a month's name.
    loose: Option<Number>,
}

impl Fields {
    fn days(&self, order: DateOrder) -> Result<i64, Mistake> {
        let (year, month, day) = match self.date {
            DateField::None => return Err(Mistake::Syntax),
            DateField::Ymd(year, month, day) => (year, month, day),
            DateField::Ordered(a, b, c) => match order {
                DateOrder::Ymd => (a, b, c),
                DateOrder::Mdy => (c, a, b),
                DateOrder::Dmy => (c, b, a),
            },
            DateField::Named { month, first, second } => {
                let (Some(first), Some(second)) = (first, second) else {
                    return Err(Mistake::Syntax);
                };
                let month = Number { value: i64::from(month), digits: 2 };
                if first.digits > 2 || first.value > 31 {
                    (first, month, second)
                } else {
                    (second, month, first)
                }
            }
        };
        let mut full_year = year.value;
        if self.before_christ == Some(true) {
            full_year = 1 - full_year;
        } else if year.digits <= 2 {
            full_year += if full_year < 70 { 2000 } else { 1900 };
        }
        if year.value == 0 && year.digits > 2 {
            return Err(Mistake::Range);
        }
        if !(1..=12).contains(&month.value) || !(1..=31).contains(&day.value) {
            return Err(Mistake::Order);
        }
        let (month, day) = (month.value as u32, day.value as u32);
        if day > days_in_month(full_year, month) {
            return Err(Mistake::Range);
        }
        Ok(days_from_civil(full_year, month, day))
    }

    fn local_us(&self, order: DateOrder) -> Result<i64, Mistake> {
        let days = self.days(order)?;
        let clock_us = self.clock.map_or(Ok(0), |c| c.us(self.afternoon))?;
        days.checked_mul(US_PER_DAY).and_then(|us| us.checked_add(clock_us)).ok_or(Mistake::Range)
    }

    fn has_date(&self) -> bool {
        match self.date {
            DateField::None => false,
            DateField::Named { second, .. } => second.is_some(),
            _ => true,
        }
    }

    fn set_month(&mut self, month: u32) -> Result<(), Mistake> {
        if self.date != DateField::None {
            return Err(Mistake::Syntax);
        }
        self.date = DateField::Named { month, first: self.loose.take(), second: None };
        Ok(())
    }

    /// A number that stands alone: a day or a year beside a month's name.
    fn add_number(&mut self, number: Number) -> Result<(), Mistake> {
        match &mut self.date {
            DateField::Named { first: slot @ None, .. }
            | DateField::Named { second: slot @ None, .. } => *slot = Some(number),
            DateField::None if self.loose.is_none() => self.loose = Some(number),
            _ => return Err(Mistake::Syntax),
        }
        Ok(())
    }

    fn set_zone(&mut self, zone: Zone) -> Result<(), Mistake> {
        fill(&mut self.zone, zone)
    }
}

/// Fills a field that must be empty.
fn fill<T>(slot: &mut Option<T>, value: T) -> Result<(), Mistake> {
    if slot.is_some() {
        return Err(Mistake::Syntax);
    }
    *slot = Some(value);
    Ok(())
}

/// Cuts `text` into fields. `for_time`: digits without a colon are a time, not a date.
fn read(text: &str, for_time: bool) -> Result<Fields, Mistake> {
    let mut scan = Scan { text, bytes: text.as_bytes(), at: 0 };
    let mut fields = Fields::default();
    while let Some(byte) = scan.peek() {
        match byte {
            b',' => scan.at += 1,
            _ if is_space(byte) => scan.at += 1,
            b'0'..=b'9' => scan.digits(&mut fields, for_time)?,
            b'+' | b'-' => scan.sign(&mut fields)?,
            _ if byte.is_ascii_alphabetic() => scan.word(&mut fields)?,
            _ => return Err(Mistake::Syntax),
        }
    }
    let empty = fields.date == DateField::None && fields.clock.is_none() && fields.word.is_none();
    if empty || fields.loose.is_some() || (fields.word.is_some() && fields.has_date()) {
        return Err(Mistake::Syntax);
    }
    Ok(fields)
}

/// A place in the text.
struct Scan<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Takes `byte` if it stands here.
    fn take(&mut self, byte: u8) -> bool {
        let here = self.peek() == Some(byte);
        self.at += usize::from(here);
        here
    }

    /// Takes a run of digits; an empty one is a mistake.
    fn number(&mut self) -> Result<Number, Mistake> {
        let start = self.at;
        let mut value = 0i64;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            value = value.saturating_mul(10).saturating_add(i64::from(digit - b'0'));
            self.at += 1;
        }
        if start == self.at {
            Err(Mistake::Syntax)
        } else {
            Ok(Number { value, digits: self.at - start })
        }
    }

    /// Something that begins with a digit.
    fn digits(&mut self, fields: &mut Fields, for_time: bool) -> Result<(), Mistake> {
        let first = self.number()?;
        let alnum_follows = self.bytes.get(self.at + 1).is_some_and(u8::is_ascii_alphanumeric);
        let compact_time = fields.has_date() || (for_time && fields.date == DateField::None);
        match self.peek() {
            Some(b':') => self.clock(first, fields),
            Some(b'.') if compact_time && first.digits == 6 => self.compact_clock(first, fields),
            Some(separator @ (b'-' | b'/' | b'.'))
                if fields.date == DateField::None && fields.loose.is_none() && alnum_follows =>
            {
                self.separated_date(first, separator, fields)
            }
            _ if compact_time && matches!(first.digits, 4 | 6) => self.compact_clock(first, fields),
            _ if matches!(first.digits, 6 | 8) && fields.date == DateField::None => {
                let year_digits = first.digits - 4;
                fields.date = DateField::Ymd(
                    Number { value: first.value / 10_000, digits: year_digits },
                    Number { value: first.value / 100 % 100, digits: 2 },
                    Number { value: first.value % 100, digits: 2 },
                );
                Ok(())
            }
            _ if first.digits <= YEAR_DIGITS_MAX => fields.add_number(first),
            _ => Err(Mistake::Syntax),
        }
    }

    /// `:[04[:05[.678]]]` behind the hour.
    fn clock(&mut self, hour: Number, fields: &mut Fields) -> Result<(), Mistake> {
        let mut clock = Clock { hour: hour.value, minute: 0, second: 0, us: 0 };
        self.at += 1;
        if self.peek().is_some_and(|b| b.is_ascii_digit()) {
            clock.minute = self.number()?.value;
        }
        if self.take(b':') {
            clock.second = self.number()?.value;
            clock.us = self.fraction()?;
        }
        if [clock.hour, clock.minute, clock.second].iter().any(|part| *part > 99) {
            return Err(Mistake::Range);
        }
        fill(&mut fields.clock, clock)
    }

    /// `040506[.789]` and `0405`.
    fn compact_clock(&mut self, digits: Number, fields: &mut Fields) -> Result<(), Mistake> {
        let hhmmss = if digits.digits == 4 { digits.value * 100 } else { digits.value };
        let us = self.fraction()?;
        let clock =
            Clock { hour: hhmmss / 10_000, minute: hhmmss / 100 % 100, second: hhmmss % 100, us };
        fill(&mut fields.clock, clock)
    }

    /// `.678` in microseconds, rounded; 0 when there is none.
    fn fraction(&mut self) -> Result<i64, Mistake> {
        if !self.take(b'.') {
            return Ok(0);
        }
        let mut us = 0;
        let mut place = 0;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            let digit = i64::from(digit - b'0');
            match place {
                0..=5 => us = us * 10 + digit,
                6 if digit >= 5 => us += 1,
                _ => {}
            }
            place += 1;
            self.at += 1;
        }
        for _ in place..6 {
            us *= 10;
        }
        Ok(us)
    }

    /// `-01-02` behind the first number of a date; the month may be a name.
    fn separated_date(
        &mut self,
        first: Number,
        separator: u8,
        fields: &mut Fields,
    ) -> Result<(), Mistake> {
        self.at += 1;
        let month_by_name = self.peek().is_some_and(|b| b.is_ascii_alphabetic());
        let second = if month_by_name {
            let start = self.at;
            while self.peek().is_some_and(|b| b.is_ascii_alphabetic()) {
                self.at += 1;
            }
            let month = month_of(&self.text[start..self.at]).ok_or(Mistake::Syntax)?;
            Number { value: i64::from(month), digits: 2 }
        } else {
            self.number()?
        };
        if !self.take(separator) {
            return Err(Mistake::Syntax);
        }
        let third = self.number()?;
        if [first, second, third].iter().any(|n| n.digits > YEAR_DIGITS_MAX) {
            return Err(Mistake::Range);
        }
        fields.date = if month_by_name {
            DateField::Named { month: second.value as u32, first: Some(first), second: Some(third) }
        } else if first.digits > 2 {
            DateField::Ymd(first, second, third)
        } else {
            DateField::Ordered(first, second, third)
        };
        Ok(())
    }

    /// A zone's offset, or a hyphen between parts of a date with a month's name.
    fn sign(&mut self, fields: &mut Fields) -> Result<(), Mistake> {
        let negative = self.peek() == Some(b'-');
        self.at += 1;
        if self.peek().is_some_and(|b| b.is_ascii_alphabetic()) {
            return Err(Mistake::Syntax);
        }
        let in_named_date = matches!(fields.date, DateField::Named { second: None, .. });
        if negative && in_named_date && fields.clock.is_none() {
            return Ok(());
        }
        if !fields.has_date() && fields.clock.is_none() {
            return Err(Mistake::Syntax);
        }
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit() || b == b':') {
            self.at += 1;
        }
        let seconds = parse_offset(&self.text[start..self.at]).ok_or(Mistake::Syntax)?;
        fields.set_zone(Zone::Fixed(if negative { -seconds } else { seconds }))
    }

    /// Letters, or the name of a zone.
    fn word(&mut self, fields: &mut Fields) -> Result<(), Mistake> {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_alphabetic()) {
            self.at += 1;
        }
        if matches!(self.peek(), Some(b'/' | b'_')) {
            let in_name = |b: u8| b.is_ascii_alphanumeric() || b"/_+-".contains(&b);
            while self.peek().is_some_and(in_name) {
                self.at += 1;
            }
        }
        let original = &self.text[start..self.at];
        if original.len() > WORD_BYTES_MAX {
            return Err(Mistake::Syntax);
        }
        let mut lower = [0; WORD_BYTES_MAX];
        lower[..original.len()].copy_from_slice(original.as_bytes());
        lower.make_ascii_lowercase();
        let word = std::str::from_utf8(&lower[..original.len()]).map_err(|_| Mistake::Syntax)?;
        match word {
            // Between date and time.
            "t" if fields.has_date() => Ok(()),
            "at" | "on" => Ok(()),
            "am" => fill(&mut fields.afternoon, false),
            "pm" => fill(&mut fields.afternoon, true),
            "ad" => fill(&mut fields.before_christ, false),
            "bc" => fill(&mut fields.before_christ, true),
            "now" => fill(&mut fields.word, Word::Now),
            "today" => fill(&mut fields.word, Word::Today),
            "tomorrow" => fill(&mut fields.word, Word::Tomorrow),
            "yesterday" => fill(&mut fields.word, Word::Yesterday),
            "epoch" => fill(&mut fields.word, Word::Epoch),
            "allballs" => fill(&mut fields.clock, Clock { hour: 0, minute: 0, second: 0, us: 0 }),
            _ => {
                if let Some(month) = month_of(word) {
                    fields.set_month(month)
                } else if is_weekday(word) {
                    Ok(())
                } else if let Some(hours) = abbreviated_zone(word) {
                    fields.set_zone(Zone::Fixed(hours * 3600))
                } else if let Some(zone) = Zone::by_name(original) {
                    fields.set_zone(zone)
                } else if word.contains('/') {
                    Err(Mistake::Zone(word.to_owned()))
                } else {
                    Err(Mistake::Syntax)
                }
            }
        }
    }
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// A month by its name or its first three letters.
fn month_of(word: &str) -> Option<u32> {
    let is = |name: &str| {
        word.eq_ignore_ascii_case(name)
            || word.eq_ignore_ascii_case(&name[..3])
            || (name == "september" && word.eq_ignore_ascii_case("sept"))
    };
    MONTHS.iter().position(|name| is(name)).map(|at| at as u32 + 1)
}

/// Weekdays are read and not checked.
fn is_weekday(word: &str) -> bool {
    [
        "sun",
        "sunday",
        "mon",
        "monday",
        "tue",
        "tues",
        "tuesday",
        "wed",
        "weds",
        "wednesday",
        "thu",
        "thur",
        "thurs",
        "thursday",
        "fri",
        "friday",
        "sat",
        "saturday",
    ]
    .contains(&word)
}

/// Hours east of the abbreviations that mean one thing in Postgres's default set and are common.
fn abbreviated_zone(word: &str) -> Option<i32> {
    Some(match word {
        "z" | "zulu" | "utc" | "gmt" | "ut" | "uct" | "wet" => 0,
        "cet" | "bst" | "met" => 1,
        "cest" | "eet" | "mest" => 2,
        "eest" | "msk" => 3,
        "jst" | "kst" => 9,
        "ast" | "edt" => -4,
        "est" | "cdt" => -5,
        "cst" | "mdt" => -6,
        "mst" | "pdt" => -7,
        "pst" | "akdt" => -8,
        "akst" => -9,
        "hst" => -10,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
