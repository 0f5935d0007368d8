//! `to_char`, `to_date`, `to_timestamp` and `to_number` (chapter 9.8 of Postgres's manual).
//!
//! A template is read once into parts: fields, and text that stands for itself. Text in double
//! quotes is never a field. Template patterns that Postgres has and we do not are refused.

use std::fmt::Write;

use arrow::array::ArrayRef;
use arrow::datatypes::{Date32Type, Decimal128Type, TimestampMicrosecondType};

use crate::functions::scalar::calendar::{Fields, JULIAN_EPOCH, fields_of, local_us};
use crate::functions::scalar::call::{Call, Overload, R, T, function};
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::{NUMERIC_DEFAULT, SqlType};
use crate::types::text::datetime::{
    US_PER_DAY, US_PER_HOUR, US_PER_MINUTE, US_PER_SECOND, days_from_civil, days_in_month,
};
use crate::types::text::zone::Zone;

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
    call.to_text(|row, out| {
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

/// What a text said in the places of a template.
#[derive(Default)]
struct Parsed {
    year: Option<i64>,
    before_christ: bool,
    century: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    iso_year: Option<i64>,
    iso_week: Option<i64>,
    iso_weekday: Option<i64>,
    julian: Option<i64>,
    hour: Option<i64>,
    afternoon: Option<bool>,
    minute: i64,
    second: i64,
    us: i64,
    second_of_day: Option<i64>,
    offset_s: Option<i64>,
}

impl Parsed {
    fn days(&self) -> Result<i64> {
        if let Some(julian) = self.julian {
            return Ok(julian - JULIAN_EPOCH);
        }
        if let (Some(year), Some(week)) = (self.iso_year, self.iso_week) {
            let fourth = days_from_civil(year, 1, 4);
            let monday = fourth - (fourth + 3).rem_euclid(7);
            return Ok(monday + (week - 1) * 7 + self.iso_weekday.unwrap_or(1) - 1);
        }
        let year = self.year.or(self.century.map(|century| (century - 1) * 100 + 1));
        // Without a year it is the first one; Postgres prints it as 0001-..., BC for no year.
        let year = match (year, self.before_christ) {
            (Some(year), true) => 1 - year,
            (Some(year), false) => year,
            (None, _) => 0,
        };
        if let Some(day) = self.day_of_year {
            return Ok(days_from_civil(year, 1, 1) + day - 1);
        }
        let (month, day) = (self.month.unwrap_or(1), self.day.unwrap_or(1));
        let fits = (1..=12).contains(&month)
            && (1..=i64::from(days_in_month(year, month as u32))).contains(&day);
        match fits {
            true => Ok(days_from_civil(year, month as u32, day as u32)),
            false => Err(Error::user(
                SqlState::DATETIME_FIELD_OVERFLOW,
                "date/time field value out of range",
            )),
        }
    }

    fn local_us(&self) -> Result<i64> {
        let wrong =
            || Error::user(SqlState::DATETIME_FIELD_OVERFLOW, "date/time field value out of range");
        let mut hour = self.hour.unwrap_or(0);
        if let Some(afternoon) = self.afternoon {
            if !(1..=12).contains(&hour) {
                return Err(Error::user(
                    SqlState::INVALID_DATETIME_FORMAT,
                    format!("hour \"{hour}\" is invalid for the 12-hour clock"),
                )
                .hint("Use the 24-hour clock, or give an hour between 1 and 12."));
            }
            hour = hour % 12 + if afternoon { 12 } else { 0 };
        }
        if hour > 24 || self.minute > 59 || self.second > 59 {
            return Err(wrong());
        }
        let clock = match self.second_of_day {
            Some(second) => second * US_PER_SECOND,
            None => hour * US_PER_HOUR + self.minute * US_PER_MINUTE + self.second * US_PER_SECOND,
        };
        self.days()?
            .checked_mul(US_PER_DAY)
            .and_then(|date| date.checked_add(clock + self.us))
            .ok_or_else(out_of_range)
    }
}

/// Reads a text by a template.
fn parse(text: &str, parts: &[Part]) -> Result<Parsed> {
    let mut parsed = Parsed::default();
    let mut rest = text.trim_start();
    for (index, part) in parts.iter().enumerate() {
        match part {
            Part::Text(literal) => {
                for character in literal.chars() {
                    // Signs and spaces stand for each other.
                    let next = rest.chars().next();
                    let skip = match next {
                        None => false,
                        Some(next) if character.is_alphanumeric() => next == character,
                        Some(next) => {
                            !next.is_alphanumeric() && !matches!(next, '+' | '-')
                                || Some(character) == Some(next)
                        }
                    };
                    if skip {
                        rest = &rest[next.map_or(0, char::len_utf8)..];
                    }
                }
            }
            Part::Field { key, fill, ordinal, .. } => {
                rest = rest.trim_start();
                // Digits that run together are cut by the template.
                let alone = !matches!(parts.get(index + 1), Some(Part::Field { .. })) || !fill;
                rest = read_field(*key, alone, rest, &mut parsed, text)?;
                if ordinal.is_some() {
                    let suffix = ["st", "nd", "rd", "th"].iter().find(|s| starts(rest, s));
                    rest = &rest[suffix.map_or(0, |s| s.len())..];
                }
            }
        }
    }
    Ok(parsed)
}

fn invalid(what: &str, text: &str) -> Error {
    Error::user(
        SqlState::INVALID_DATETIME_FORMAT,
        format!("invalid value \"{text}\" for \"{what}\""),
    )
}

/// A number of at most so many digits, and what follows it.
fn digits<'a>(rest: &'a str, max: usize, what: &str) -> Result<(i64, &'a str, usize)> {
    let (sign, unsigned) = match rest.strip_prefix('-') {
        Some(unsigned) => (-1, unsigned),
        None => (1, rest),
    };
    let count = unsigned.bytes().take(max).take_while(u8::is_ascii_digit).count();
    let value: i64 = unsigned[..count].parse().map_err(|_| {
        let shown: String = rest.chars().take(max.min(8)).collect();
        invalid(what, &shown).detail("Value must be an integer.")
    })?;
    Ok((value * sign, &unsigned[count..], count))
}

fn read_name<'a>(rest: &'a str, names: &[&str], short: bool) -> Option<(i64, &'a str)> {
    let word = |name: &str| if short { name[..3].to_owned() } else { name.to_owned() };
    let place = names.iter().position(|name| starts(rest, &word(name)))?;
    Some((place as i64 + 1, &rest[word(names[place]).len()..]))
}

fn read_field<'a>(
    key: Key,
    alone: bool,
    rest: &'a str,
    parsed: &mut Parsed,
    text: &str,
) -> Result<&'a str> {
    let number = |max: usize, what: &str| digits(rest, if alone { 18 } else { max }, what);
    let two = |slot: &mut Option<i64>, what: &str| -> Result<&'a str> {
        let (value, rest, _) = number(2, what)?;
        *slot = Some(value);
        Ok(rest)
    };
    Ok(match key {
        Key::Hour12 | Key::Hour24 => two(&mut parsed.hour, "HH24")?,
        Key::Minute => {
            let (value, rest, _) = number(2, "MI")?;
            parsed.minute = value;
            rest
        }
        Key::Second => {
            let (value, rest, _) = number(2, "SS")?;
            parsed.second = value;
            rest
        }
        Key::Millisecond | Key::Microsecond | Key::Fraction(_) => {
            let width = match key {
                Key::Millisecond => 3,
                Key::Fraction(digits) => usize::from(digits),
                _ => 6,
            };
            let (value, rest, count) = digits(rest, width, "US")?;
            // `12` milliseconds after a point are 0.12 seconds.
            parsed.us = value * 10_i64.pow(6 - count.min(6) as u32);
            rest
        }
        Key::SecondOfDay => {
            let (value, rest, _) = number(5, "SSSS")?;
            parsed.second_of_day = Some(value);
            rest
        }
        Key::Meridian(points) => {
            let length = if points { 4 } else { 2 };
            let afternoon = match rest.chars().next() {
                Some('p' | 'P') => true,
                Some('a' | 'A') => false,
                _ => return Err(invalid("AM", text)),
            };
            parsed.afternoon = Some(afternoon);
            rest.get(length..).unwrap_or("")
        }
        Key::Era(points) => {
            parsed.before_christ = matches!(rest.chars().next(), Some('b' | 'B'));
            rest.get(if points { 4 } else { 2 }..).unwrap_or("")
        }
        Key::YearComma => {
            let (thousands, after, _) = digits(rest, 2, "Y,YYY")?;
            let (year, after, _) = digits(after.strip_prefix(',').unwrap_or(after), 3, "Y,YYY")?;
            parsed.year = Some(thousands * 1000 + year);
            after
        }
        Key::Year(width) | Key::IsoYear(width) => {
            let (value, rest, count) = number(usize::from(width), "YYYY")?;
            let year = match (width, count) {
                (1..=3, 0..=3) if value < 100 && count <= 2 => {
                    value + if value < 70 { 2000 } else { 1900 }
                }
                (3, 3) => value + if value < 520 { 2000 } else { 1000 },
                _ => value,
            };
            match key {
                Key::IsoYear(_) => parsed.iso_year = Some(year),
                _ => parsed.year = Some(year),
            }
            rest
        }
        Key::MonthName | Key::MonthShort => {
            let (month, rest) = read_name(rest, &MONTHS, key == Key::MonthShort)
                .ok_or_else(|| invalid("Month", text))?;
            parsed.month = Some(month);
            rest
        }
        Key::Month => two(&mut parsed.month, "MM")?,
        Key::RomanMonth => {
            let place = (0..12).rev().find(|i| starts(rest, ROMAN_MONTHS[*i]));
            let place = place.ok_or_else(|| invalid("RM", text))?;
            parsed.month = Some(place as i64 + 1);
            &rest[ROMAN_MONTHS[place].len()..]
        }
        Key::DayName | Key::DayShort => {
            let (_, rest) =
                read_name(rest, &DAYS, key == Key::DayShort).ok_or_else(|| invalid("Day", text))?;
            rest
        }
        Key::DayOfYear | Key::IsoDayOfYear => {
            let (value, rest, _) = number(3, "DDD")?;
            parsed.day_of_year = Some(value);
            rest
        }
        Key::Day => two(&mut parsed.day, "DD")?,
        Key::Weekday | Key::WeekOfMonth | Key::Quarter => digits(rest, 1, "D")?.1,
        Key::IsoWeekday => {
            let (value, rest, _) = digits(rest, 1, "ID")?;
            parsed.iso_weekday = Some(value);
            rest
        }
        Key::Week => digits(rest, 2, "WW")?.1,
        Key::IsoWeek => two(&mut parsed.iso_week, "IW")?,
        Key::Century => two(&mut parsed.century, "CC")?,
        Key::Julian => {
            let (value, rest, _) = number(7, "J")?;
            parsed.julian = Some(value);
            rest
        }
        Key::ZoneHours => {
            let sign = if rest.starts_with('-') { -1 } else { 1 };
            let (hours, rest, _) = digits(rest.trim_start_matches(['+', '-']), 2, "TZH")?;
            parsed.offset_s = Some(sign * hours * 3600);
            rest
        }
        Key::ZoneMinutes => {
            let (minutes, rest, _) = digits(rest, 2, "TZM")?;
            let offset = parsed.offset_s.unwrap_or(0);
            parsed.offset_s = Some(offset + if offset < 0 { -minutes } else { minutes } * 60);
            rest
        }
        Key::ZoneName | Key::Offset => {
            return Err(
                Error::unsupported("reading a time zone with TZ or OF").hint("Use TZH and TZM.")
            );
        }
    })
}

/// What a template of numbers asks for.
#[derive(Default)]
struct NumberTemplate {
    /// The places before the point, as they are written: `9`, `0`, `,`, and other characters.
    whole: Vec<char>,
    fraction: Vec<char>,
    has_point: bool,
    /// `S` or `MI` or `PL` in front or behind, or `PR`.
    sign: Option<(Sign, bool)>,
    fill_mode: bool,
    ordinal: Option<Case>,
    /// Zeros that `V` adds.
    shift: u32,
    roman: Option<Case>,
}

#[derive(Clone, Copy, PartialEq)]
enum Sign {
    Locale,
    Minus,
    Plus,
    Angle,
}

fn number_template(template: &str) -> Result<NumberTemplate> {
    let mut parsed = NumberTemplate::default();
    let mut rest = template;
    let mut digits_seen = false;
    let mut shifts = false;
    while let Some(first) = rest.chars().next() {
        let mut take = first.len_utf8();
        if starts(rest, "fm") {
            parsed.fill_mode = true;
            take = 2;
        } else if starts(rest, "th") {
            let upper = rest.starts_with("TH");
            parsed.ordinal = Some(if upper { Case::Upper } else { Case::Lower });
            take = 2;
        } else if starts(rest, "rn") {
            let upper = rest.starts_with('R');
            parsed.roman = Some(if upper { Case::Upper } else { Case::Lower });
            take = 2;
        } else if starts(rest, "eeee") {
            return Err(Error::unsupported("EEEE in a number's template"));
        } else if starts(rest, "mi") || starts(rest, "pl") || starts(rest, "sg") {
            let sign = match first {
                'm' | 'M' => Sign::Minus,
                'p' | 'P' => Sign::Plus,
                _ => Sign::Locale,
            };
            parsed.sign = Some((sign, digits_seen));
            take = 2;
        } else if starts(rest, "pr") {
            parsed.sign = Some((Sign::Angle, true));
            take = 2;
        } else if first == '"' {
            let inner = &rest[1..];
            let end = inner.find('"').unwrap_or(inner.len());
            let target = if parsed.has_point { &mut parsed.fraction } else { &mut parsed.whole };
            target.extend(inner[..end].chars());
            take = (end + 2).min(rest.len());
        } else {
            match first {
                's' | 'S' => parsed.sign = Some((Sign::Locale, digits_seen)),
                'v' | 'V' => shifts = true,
                '.' | 'd' | 'D' => parsed.has_point = true,
                'g' | 'G' => parsed.whole.push(','),
                'l' | 'L' => parsed.whole.push(' '),
                other => {
                    if matches!(other, '0' | '9') {
                        digits_seen = true;
                        parsed.shift += u32::from(shifts);
                    }
                    let target =
                        if parsed.has_point { &mut parsed.fraction } else { &mut parsed.whole };
                    target.push(other);
                }
            }
        }
        rest = &rest[take..];
    }
    Ok(parsed)
}

/// A float as digits and how many of them stand after the point.
fn float_digits(value: f64) -> (i128, u32) {
    const DIGITS: u32 = 15;
    let magnitude = value.abs();
    let whole_digits = if magnitude < 1.0 { 0 } else { magnitude.log10().floor() as u32 + 1 };
    let scale = DIGITS.saturating_sub(whole_digits);
    ((value * 10_f64.powi(scale as i32)).round() as i128, scale)
}

fn numbers(call: &Call<'_>, value: fn(&Call<'_>, usize) -> (i128, u32)) -> Result<ArrayRef> {
    let mut last: Option<(String, NumberTemplate)> = None;
    call.to_text(|row, out| {
        let template = call.text(1).value(row);
        if last.as_ref().is_none_or(|(known, _)| known != template) {
            last = Some((template.to_owned(), number_template(template)?));
        }
        if let Some((_, template)) = &last {
            let (digits, scale) = value(call, row);
            write_number(template, digits, scale, out);
        }
        Ok(true)
    })
}

fn write_number(template: &NumberTemplate, value: i128, scale: u32, out: &mut String) {
    if let Some(case) = template.roman {
        return write_roman(value / 10_i128.pow(scale), case, template.fill_mode, out);
    }
    let places = |list: &[char]| list.iter().filter(|c| matches!(c, '0' | '9')).count();
    let wanted = places(&template.fraction) as u32;
    // Shifted by V, then rounded half away from 0 to the digits that are asked for.
    let value = value.saturating_mul(10_i128.pow(template.shift));
    let magnitude = value.unsigned_abs();
    let rounded = match scale.checked_sub(wanted) {
        Some(dropped) => {
            let unit = 10_u128.pow(dropped.min(38));
            (magnitude + unit / 2) / unit
        }
        None => magnitude.saturating_mul(10_u128.pow(wanted - scale)),
    };
    let unit = 10_u128.pow(wanted.min(38));
    let (whole, fraction) = (rounded / unit, rounded % unit);
    let negative = value < 0 && rounded > 0;
    let width = places(&template.whole);
    let digits = if whole == 0 { String::new() } else { whole.to_string() };
    let overflow = digits.len() > width;

    let mut body = String::new();
    let mut place = 0;
    // Zeros are written from the first 0 of the template on.
    let first_zero = {
        let mut seen = 0;
        let mut found = width;
        for character in &template.whole {
            match character {
                '0' => {
                    found = found.min(seen);
                    seen += 1;
                }
                '9' => seen += 1,
                _ => {}
            }
        }
        found
    };
    let blank = width.saturating_sub(digits.len());
    for character in &template.whole {
        match character {
            '0' | '9' => {
                if overflow {
                    body.push('#');
                } else if place >= blank {
                    body.push(char::from(digits.as_bytes()[place - blank]));
                } else if place >= first_zero
                    || whole == 0 && place + 1 == width && (!template.has_point || wanted == 0)
                {
                    body.push('0');
                } else {
                    body.push(' ');
                }
                place += 1;
            }
            ',' => {
                let written = place > blank || place > first_zero;
                body.push(if written { ',' } else { ' ' });
            }
            other => body.push(*other),
        }
    }
    if template.has_point {
        body.push('.');
        let text = format!("{fraction:0width$}", width = wanted as usize);
        let mut digits = text.chars();
        let mut kept = String::new();
        for character in &template.fraction {
            match character {
                '0' | '9' if overflow => kept.push('#'),
                '0' | '9' if wanted > 0 => kept.extend(digits.next()),
                other => kept.push(*other),
            }
        }
        if template.fill_mode {
            // Zeros that only a 9 asks for go.
            let last_zero = template.fraction.iter().rposition(|c| *c == '0').map_or(0, |p| p + 1);
            while kept.len() > last_zero && kept.ends_with('0') {
                kept.pop();
            }
        }
        body.push_str(&kept);
    }
    let trimmed = body.trim_start();
    let padding = body.len() - trimmed.len();
    let (front, back) = match template.sign {
        None => (if negative { "-" } else { " " }, ""),
        Some((Sign::Angle, _)) => {
            if negative {
                ("<", ">")
            } else {
                (" ", " ")
            }
        }
        Some((sign, behind)) => {
            let text = match (sign, negative) {
                (Sign::Locale, true) | (Sign::Minus, true) => "-",
                (Sign::Locale | Sign::Plus, false) => "+",
                (Sign::Minus, false) | (Sign::Plus, true) => " ",
                (Sign::Angle, _) => "",
            };
            if behind { ("", text) } else { (text, "") }
        }
    };
    if template.fill_mode {
        out.push_str(front.trim());
        out.push_str(trimmed);
        out.push_str(back.trim());
    } else {
        // The sign stands right before the digits.
        out.extend(std::iter::repeat_n(' ', padding));
        out.push_str(front);
        out.push_str(trimmed);
        out.push_str(back);
    }
    if let Some(case) = template.ordinal
        && value >= 0
    {
        let suffix = ordinal_suffix(&whole.to_string());
        match case {
            Case::Upper => out.push_str(&suffix.to_uppercase()),
            _ => out.push_str(suffix),
        }
    }
}

/// Characters that Postgres gives a Roman number.
const ROMAN_WIDTH: usize = 15;

fn write_roman(value: i128, case: Case, fill_mode: bool, out: &mut String) {
    const STEPS: [(i128, &str); 13] = [
        (1000, "M"),
        (900, "CM"),
        (500, "D"),
        (400, "CD"),
        (100, "C"),
        (90, "XC"),
        (50, "L"),
        (40, "XL"),
        (10, "X"),
        (9, "IX"),
        (5, "V"),
        (4, "IV"),
        (1, "I"),
    ];
    let mut text = String::new();
    if (1..4000).contains(&value) {
        let mut rest = value;
        for (size, letters) in STEPS {
            while rest >= size {
                text.push_str(letters);
                rest -= size;
            }
        }
    } else {
        text = "#".repeat(ROMAN_WIDTH);
    }
    if !fill_mode {
        out.extend(std::iter::repeat_n(' ', ROMAN_WIDTH.saturating_sub(text.len())));
    }
    match case {
        Case::Lower => out.push_str(&text.to_lowercase()),
        _ => out.push_str(&text),
    }
}

/// The number in a text, by a template that says which characters are not its own.
fn to_number(text: &str, template: &str) -> Result<i128> {
    let parsed = number_template(template)?;
    let places = |list: &[char]| list.iter().filter(|c| matches!(c, '0' | '9')).count();
    let (whole_max, fraction_max) = (places(&parsed.whole), places(&parsed.fraction));
    let mut negative = false;
    let (mut whole, mut fraction) = (String::new(), String::new());
    let mut after_point = false;
    for character in text.chars() {
        match character {
            '-' | '<' => negative = true,
            '.' if parsed.has_point => after_point = true,
            digit if digit.is_ascii_digit() => match after_point {
                true if fraction.len() < fraction_max => fraction.push(digit),
                false if whole.len() < whole_max => whole.push(digit),
                _ => {}
            },
            _ => {}
        }
    }
    if whole.is_empty() && fraction.is_empty() {
        return Err(Error::user(
            SqlState::INVALID_TEXT_REPRESENTATION,
            format!("invalid input syntax for type numeric: \"{text}\""),
        ));
    }
    let sign = if negative { "-" } else { "" };
    let number = format!("{sign}{whole}{}.{fraction}", if whole.is_empty() { "0" } else { "" });
    let (precision, scale) = NUMERIC_DEFAULT;
    let value = crate::types::text::number::parse_numeric(&number, precision, scale)?;
    let divisor = 10_i128.pow(parsed.shift);
    Ok(value / divisor)
}
