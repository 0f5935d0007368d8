//! Reads a date or time by a template: what the text says in each field's place, then the moment
//! that all of it means.

use crate::functions::scalar::calendar::JULIAN_EPOCH;
use crate::functions::scalar::template::{
    DAYS, Key, MONTHS, Part, ROMAN_MONTHS, out_of_range, starts,
};
use crate::types::error::{Error, Result, SqlState};
use crate::types::text::datetime::{
    US_PER_DAY, US_PER_HOUR, US_PER_MINUTE, US_PER_SECOND, days_from_civil, days_in_month,
};

/// What a text said in the places of a template.
#[derive(Default)]
pub(super) struct Parsed {
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
    pub(super) offset_s: Option<i64>,
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

    pub(super) fn local_us(&self) -> Result<i64> {
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
pub(super) fn parse(text: &str, parts: &[Part]) -> Result<Parsed> {
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
