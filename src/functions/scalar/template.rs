//! `to_char`, `to_date`, `to_timestamp` and `to_number` (chapter 9.8 of Postgres's manual).
//!
//! A template is read once into parts: fields, and text that stands for itself. Text in double
//! quotes is never a field. Template patterns that Postgres has and we do not are refused.

use std::fmt::Write;

use arrow::array::ArrayRef;
use arrow::datatypes::{Date32Type, Decimal128Type, TimestampMicrosecondType};

use crate::functions::scalar::calendar::{Fields, JULIAN_EPOCH, fields_of, local_us};
use crate::functions::scalar::call::{Call, Overload, R, T, function};
use crate::functions::scalar::template::number::{float_digits, numbers, to_number};
use crate::functions::scalar::template::read::{Parsed, parse};
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::{NUMERIC_DEFAULT, SqlType};
use crate::types::text::datetime::{
    US_PER_DAY, US_PER_HOUR, US_PER_MINUTE, US_PER_SECOND, is_infinite_us,
};
use crate::types::text::zone::Zone;

mod number;
mod read;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const ROMAN_MONTHS: [&str; 12] =
    ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"];
/// Characters of the longest name of a month or a day.
const NAME_WIDTH: usize = 9;

/// All of them.
pub fn all() -> Vec<Overload> {
    use T::{Date, Float8, Int4, Int8, Interval, Numeric, Text, Timestamp, Timestamptz};
    let numeric = R::By(|_, _| SqlType::Numeric(NUMERIC_DEFAULT.0, NUMERIC_DEFAULT.1));
    vec![
        function("to_char", &[Timestamp, Text], R::Is(Text), |c| {
            times(c, |c, row| Moment::of(c.timestamp(0, row), Zone::UTC, false))
        }),
        function("to_char", &[Timestamptz, Text], R::Is(Text), |c| {
            times(c, |c, row| Moment::of(c.timestamp(0, row), c.settings.zone, true))
        }),
        function("to_char", &[Interval, Text], R::Is(Text), |c| times(c, Moment::of_interval)),
        function("to_char", &[Int4, Text], R::Is(Text), |c| {
            numbers(c, |c, row| (i128::from(c.int4(0, row)), 0))
        }),
        function("to_char", &[Int8, Text], R::Is(Text), |c| {
            numbers(c, |c, row| (i128::from(c.int8(0, row)), 0))
        }),
        function("to_char", &[Numeric, Text], R::Is(Text), |c| {
            numbers(c, |c, row| (c.decimal(0, row), c.scale(0).max(0) as u32))
        }),
        function("to_char", &[Float8, Text], R::Is(Text), |c| {
            numbers(c, |c, row| float_digits(c.float8(0, row)))
        }),
        function("to_date", &[Text, Text], R::Is(Date), |c| {
            let mut templates = Templates::default();
            c.to_values::<Date32Type>(|row| {
                let local = templates.read(c, row)?.local_us()?;
                i32::try_from(local.div_euclid(US_PER_DAY)).map(Some).map_err(|_| out_of_range())
            })
        }),
        function("to_timestamp", &[Text, Text], R::Is(Timestamptz), |c| {
            let mut templates = Templates::default();
            c.to_values::<TimestampMicrosecondType>(|row| {
                let parsed = templates.read(c, row)?;
                let local = parsed.local_us()?;
                match parsed.offset_s {
                    Some(offset) => Ok(Some(local - offset * US_PER_SECOND)),
                    None => Ok(c.settings.zone.to_utc(local)),
                }
            })
        }),
        function("to_number", &[Text, Text], numeric, |c| {
            c.to_values::<Decimal128Type>(|row| {
                to_number(c.text(0).value(row), c.text(1).value(row)).map(Some)
            })
        }),
    ]
}

fn out_of_range() -> Error {
    Error::user(SqlState::DATETIME_FIELD_OVERFLOW, "date out of range")
}

/// A field of a date or time template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Hour12,
    Hour24,
    Minute,
    Second,
    Millisecond,
    Microsecond,
    /// Digits of the fraction of a second.
    Fraction(u8),
    SecondOfDay,
    /// With points.
    Meridian(bool),
    Era(bool),
    YearComma,
    /// Digits.
    Year(u8),
    IsoYear(u8),
    MonthName,
    MonthShort,
    Month,
    RomanMonth,
    DayName,
    DayShort,
    DayOfYear,
    IsoDayOfYear,
    Day,
    Weekday,
    IsoWeekday,
    WeekOfMonth,
    Week,
    IsoWeek,
    Century,
    Julian,
    Quarter,
    ZoneName,
    ZoneHours,
    ZoneMinutes,
    Offset,
}

/// How letters are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    Upper,
    Capital,
    Lower,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Field { key: Key, case: Case, fill: bool, ordinal: Option<Case> },
}

/// Names of fields, longer ones before those that they begin with.
const KEYS: [(&str, Key); 50] = [
    ("y,yyy", Key::YearComma),
    ("a.d.", Key::Era(true)),
    ("b.c.", Key::Era(true)),
    ("a.m.", Key::Meridian(true)),
    ("p.m.", Key::Meridian(true)),
    ("month", Key::MonthName),
    ("sssss", Key::SecondOfDay),
    ("ssss", Key::SecondOfDay),
    ("iyyy", Key::IsoYear(4)),
    ("iddd", Key::IsoDayOfYear),
    ("yyyy", Key::Year(4)),
    ("hh12", Key::Hour12),
    ("hh24", Key::Hour24),
    ("ff1", Key::Fraction(1)),
    ("ff2", Key::Fraction(2)),
    ("ff3", Key::Fraction(3)),
    ("ff4", Key::Fraction(4)),
    ("ff5", Key::Fraction(5)),
    ("ff6", Key::Fraction(6)),
    ("iyy", Key::IsoYear(3)),
    ("yyy", Key::Year(3)),
    ("mon", Key::MonthShort),
    ("day", Key::DayName),
    ("ddd", Key::DayOfYear),
    ("tzh", Key::ZoneHours),
    ("tzm", Key::ZoneMinutes),
    ("hh", Key::Hour12),
    ("mi", Key::Minute),
    ("ss", Key::Second),
    ("ms", Key::Millisecond),
    ("us", Key::Microsecond),
    ("am", Key::Meridian(false)),
    ("pm", Key::Meridian(false)),
    ("bc", Key::Era(false)),
    ("ad", Key::Era(false)),
    ("iy", Key::IsoYear(2)),
    ("yy", Key::Year(2)),
    ("mm", Key::Month),
    ("rm", Key::RomanMonth),
    ("dy", Key::DayShort),
    ("dd", Key::Day),
    ("id", Key::IsoWeekday),
    ("iw", Key::IsoWeek),
    ("ww", Key::Week),
    ("cc", Key::Century),
    ("tz", Key::ZoneName),
    ("of", Key::Offset),
    ("i", Key::IsoYear(1)),
    ("y", Key::Year(1)),
    ("d", Key::Weekday),
];
const SHORT_KEYS: [(&str, Key); 3] =
    [("w", Key::WeekOfMonth), ("q", Key::Quarter), ("j", Key::Julian)];

fn starts(text: &str, word: &str) -> bool {
    text.len() >= word.len()
        && text.is_char_boundary(word.len())
        && text[..word.len()].eq_ignore_ascii_case(word)
}

/// Reads a template of dates and times.
fn parts_of(template: &str) -> Vec<Part> {
    let mut parts: Vec<Part> = vec![];
    let mut rest = template;
    let mut fill = true;
    let literal = |text: &str, parts: &mut Vec<Part>| match parts.last_mut() {
        Some(Part::Text(last)) => last.push_str(text),
        _ => parts.push(Part::Text(text.to_owned())),
    };
    while let Some(first) = rest.chars().next() {
        if starts(rest, "fm") {
            fill = false;
            rest = &rest[2..];
            continue;
        }
        if starts(rest, "fx") || starts(rest, "tm") && !starts(rest, "tmi") {
            rest = &rest[2..];
            continue;
        }
        if first == '"' {
            let inner = &rest[1..];
            let end = inner.find('"').unwrap_or(inner.len());
            literal(&inner[..end], &mut parts);
            rest = inner.get(end + 1..).unwrap_or("");
            continue;
        }
        let known = KEYS.iter().chain(&SHORT_KEYS).find(|(name, _)| starts(rest, name));
        let Some((name, key)) = known else {
            let skipped = if first == '\\' { 1 } else { 0 };
            let text = &rest[skipped..];
            let length = text.chars().next().map_or(0, char::len_utf8);
            literal(&text[..length], &mut parts);
            rest = &text[length..];
            continue;
        };
        let written = &rest[..name.len()];
        let mut letters = written.chars().filter(|c| c.is_ascii_alphabetic());
        let upper = |c: Option<char>| c.is_some_and(|c| c.is_ascii_uppercase());
        let case = match (upper(letters.next()), upper(letters.next())) {
            (true, true) => Case::Upper,
            (true, false) if name.len() > 1 => Case::Capital,
            (true, false) => Case::Upper,
            (false, _) => Case::Lower,
        };
        rest = &rest[name.len()..];
        let ordinal = starts(rest, "th").then(|| {
            let upper = rest.starts_with("TH");
            rest = &rest[2..];
            if upper { Case::Upper } else { Case::Lower }
        });
        parts.push(Part::Field { key: *key, case, fill, ordinal });
        fill = true;
    }
    parts
}

/// What a template prints: a point in time, or the parts of an interval.
struct Moment {
    fields: Fields,
    /// Seconds east of UTC, and the name of the zone, where there is one.
    zone: Option<(i64, Zone, i64)>,
    interval: bool,
    /// Since midnight, or of the whole interval; may be negative.
    us: i64,
}

impl Moment {
    fn of(us: i64, zone: Zone, zoned: bool) -> Moment {
        let local = if zoned { local_us(zone, us) } else { us };
        let fields = fields_of(local);
        let zone = zoned.then(|| (i64::from(zone.offset_at(us)), zone, us));
        Moment { fields, zone, interval: false, us: fields.us }
    }

    fn of_interval(call: &Call<'_>, row: usize) -> Moment {
        let interval = call.interval(0, row);
        let fields = Fields {
            year: i64::from(interval.months / 12),
            month: (interval.months % 12).unsigned_abs(),
            day: interval.days.unsigned_abs(),
            us: 0,
            days: i64::from(interval.days),
        };
        Moment { fields, zone: None, interval: true, us: interval.nanoseconds / 1_000 }
    }
}

/// The last template that was read; templates are mostly constants.
#[derive(Default)]
struct Templates {
    last: Option<(String, Vec<Part>)>,
}

impl Templates {
    fn get(&mut self, template: &str) -> &[Part] {
        if self.last.as_ref().is_none_or(|(known, _)| known != template) {
            self.last = Some((template.to_owned(), parts_of(template)));
        }
        self.last.as_ref().map_or(&[], |(_, parts)| parts)
    }

    fn read(&mut self, call: &Call<'_>, row: usize) -> Result<Parsed> {
        parse(call.text(0).value(row), self.get(call.text(1).value(row)))
    }
}

fn times(call: &Call<'_>, moment: fn(&Call<'_>, usize) -> Moment) -> Result<ArrayRef> {
    let mut templates = Templates::default();
    let timestamps = matches!(call.types[0], SqlType::Timestamp | SqlType::Timestamptz);
    call.to_text(|row, out| {
        if timestamps && is_infinite_us(call.timestamp(0, row)) {
            return Ok(false);
        }
        let moment = moment(call, row);
        for part in templates.get(call.text(1).value(row)) {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Field { key, case, fill, ordinal } => {
                    let from = out.len();
                    write_field(*key, *case, *fill, &moment, out)?;
                    if let Some(case) = ordinal {
                        let suffix = ordinal_suffix(&out[from..]);
                        match case {
                            Case::Upper => out.push_str(&suffix.to_uppercase()),
                            _ => out.push_str(suffix),
                        }
                    }
                }
            }
        }
        Ok(true)
    })
}

/// `st`, `nd`, `rd` or `th` for the number at the end of a text.
fn ordinal_suffix(number: &str) -> &'static str {
    let digits: Vec<u8> = number.bytes().filter(u8::is_ascii_digit).collect();
    match digits.as_slice() {
        [.., b'1', _] => "th",
        [.., b'1'] => "st",
        [.., b'2'] => "nd",
        [.., b'3'] => "rd",
        _ => "th",
    }
}

fn write_word(word: &str, case: Case, width: usize, out: &mut String) {
    match case {
        Case::Upper => out.push_str(&word.to_uppercase()),
        Case::Lower => out.push_str(&word.to_lowercase()),
        Case::Capital => out.push_str(word),
    }
    out.extend(std::iter::repeat_n(' ', width.saturating_sub(word.len())));
}

fn write_field(key: Key, case: Case, fill: bool, moment: &Moment, out: &mut String) -> Result<()> {
    let Moment { fields, us, .. } = moment;
    let number = |value: i64, width: usize, out: &mut String| {
        let width = if fill { width } else { 0 };
        let sign = if value < 0 { "-" } else { "" };
        let _ = write!(out, "{sign}{:0width$}", value.unsigned_abs());
    };
    let hour = us / US_PER_HOUR;
    let fraction = (us % US_PER_SECOND).abs();
    let name_width = if fill { NAME_WIDTH } else { 0 };
    let year = if moment.interval { fields.year } else { fields.shown_year().abs() };
    let month = (fields.month as usize).saturating_sub(1) % 12;
    let weekday = if moment.interval { 0 } else { fields.iso_weekday() as usize - 1 };
    let cut = |year: i64, digits: u8| year % 10_i64.pow(u32::from(digits.min(18)));
    match key {
        Key::Hour12 => {
            let hour = hour % 12;
            number(if hour == 0 { 12 } else { hour }, 2, out);
        }
        Key::Hour24 => number(hour, 2, out),
        Key::Minute => number(us % US_PER_HOUR / US_PER_MINUTE, 2, out),
        Key::Second => number(us % US_PER_MINUTE / US_PER_SECOND, 2, out),
        Key::Millisecond => number(fraction / 1_000, 3, out),
        Key::Microsecond => number(fraction, 6, out),
        Key::Fraction(digits) => {
            let value = fraction / 10_i64.pow(6 - u32::from(digits));
            let _ = write!(out, "{value:0width$}", width = usize::from(digits));
        }
        Key::SecondOfDay => number(us / US_PER_SECOND, 0, out),
        Key::Meridian(points) => {
            let word = match (hour % 24 >= 12, points) {
                (false, false) => "AM",
                (true, false) => "PM",
                (false, true) => "A.M.",
                (true, true) => "P.M.",
            };
            write_word(word, if case == Case::Lower { case } else { Case::Upper }, 0, out);
        }
        Key::Era(points) => {
            let word = match (fields.year > 0, points) {
                (true, false) => "AD",
                (false, false) => "BC",
                (true, true) => "A.D.",
                (false, true) => "B.C.",
            };
            write_word(word, if case == Case::Lower { case } else { Case::Upper }, 0, out);
        }
        Key::YearComma => {
            let _ = write!(out, "{},{:03}", year / 1000, year % 1000);
        }
        Key::Year(4) => number(year, 4, out),
        Key::Year(digits) => number(cut(year, digits), usize::from(digits), out),
        Key::IsoYear(4) => number(fields.iso_week().0, 4, out),
        Key::IsoYear(digits) => number(cut(fields.iso_week().0, digits), usize::from(digits), out),
        Key::MonthName => write_word(MONTHS[month], case, name_width, out),
        Key::MonthShort => write_word(&MONTHS[month][..3], case, 0, out),
        Key::Month => number(i64::from(fields.month), 2, out),
        Key::RomanMonth => {
            write_word(ROMAN_MONTHS[month], case, if fill { 4 } else { 0 }, out);
        }
        Key::DayName => write_word(DAYS[weekday], case, name_width, out),
        Key::DayShort => write_word(&DAYS[weekday][..3], case, 0, out),
        Key::DayOfYear => number(fields.day_of_year(), 3, out),
        Key::IsoDayOfYear => {
            let (_, week) = fields.iso_week();
            number((week - 1) * 7 + fields.iso_weekday(), 3, out);
        }
        Key::Day => number(i64::from(fields.day), 2, out),
        Key::Weekday => number(fields.iso_weekday() % 7 + 1, 0, out),
        Key::IsoWeekday => number(fields.iso_weekday(), 0, out),
        Key::WeekOfMonth => number((i64::from(fields.day) - 1) / 7 + 1, 0, out),
        Key::Week => number((fields.day_of_year() - 1) / 7 + 1, 2, out),
        Key::IsoWeek => number(fields.iso_week().1, 2, out),
        Key::Century => number((year + 99) / 100, 2, out),
        Key::Julian => number(fields.days + JULIAN_EPOCH, 0, out),
        Key::Quarter => number(month as i64 / 3 + 1, 0, out),
        Key::ZoneName | Key::ZoneHours | Key::ZoneMinutes | Key::Offset => {
            write_zone(key, case, moment, out);
        }
    }
    Ok(())
}

fn write_zone(key: Key, case: Case, moment: &Moment, out: &mut String) {
    let (seconds, zone, us) = moment.zone.unwrap_or((0, Zone::UTC, 0));
    let sign = if seconds < 0 { '-' } else { '+' };
    let (hours, minutes) = (seconds.abs() / 3600, seconds.abs() % 3600 / 60);
    let _ = match key {
        Key::ZoneHours => write!(out, "{sign}{hours:02}"),
        Key::ZoneMinutes => write!(out, "{minutes:02}"),
        Key::Offset if minutes == 0 => write!(out, "{sign}{hours:02}"),
        Key::Offset => write!(out, "{sign}{hours:02}:{minutes:02}"),
        _ if moment.zone.is_none() => Ok(()),
        _ => {
            let name = zone.abbreviation(us);
            match case {
                Case::Lower => write!(out, "{}", name.to_lowercase()),
                _ => write!(out, "{name}"),
            }
        }
    };
}
