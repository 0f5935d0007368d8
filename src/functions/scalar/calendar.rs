//! Functions of dates, times and intervals (chapter 9.9 of Postgres's manual).
//!
//! A timestamp with time zone is taken apart in the session's time zone.
//!
//! Of an infinite date or timestamp, what only grows (years, the epoch) is infinite, and what comes
//! again (months, hours) is NULL; cutting, moving and binning leave it as it is.

use arrow::array::ArrayRef;
use arrow::datatypes::{
    Date32Type, Decimal128Type, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType,
    Time64MicrosecondType, TimestampMicrosecondType,
};
use datafusion::common::ScalarValue;

use crate::functions::scalar::call::{Call, Overload, R, T, function};
use crate::functions::scalar::datetime::ROUND_TIME;
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::SqlType;
use crate::types::text::datetime::{
    US_PER_DAY, US_PER_HOUR, US_PER_MINUTE, US_PER_SECOND, civil, days_from_civil, days_in_month,
    is_infinite_days, is_infinite_us,
};
use crate::types::text::zone::Zone;

const NS_PER_US: i64 = 1_000;
const US_PER_MS: i64 = 1_000;
/// Days from the beginning of the Julian calendar to 1970-01-01.
pub(super) const JULIAN_EPOCH: i64 = 2_440_588;
/// A month, where one has to be days.
const DAYS_PER_MONTH: i64 = 30;
const HOURS_PER_DAY: i64 = 24;
/// Seconds of a year of 365.25 days, which `extract(epoch from interval)` takes.
const SECONDS_PER_YEAR: i64 = 31_557_600;

/// Microseconds from 1970 to 2000.
const US_OF_2000: i64 = 946_684_800 * US_PER_SECOND;

/// What computes a function.
type Run = fn(&Call<'_>) -> Result<ArrayRef>;

fn out_of_range() -> Error {
    Error::user(SqlState::DATETIME_FIELD_OVERFLOW, "timestamp out of range")
}

/// A time with so many digits after the second, half away from 0.
fn round_us(us: i64, digits: i32) -> i64 {
    let unit = 10_i64.pow(6 - digits.clamp(0, 6).unsigned_abs());
    let magnitude = i128::from(us.unsigned_abs());
    let rounded = (magnitude + i128::from(unit / 2)) / i128::from(unit) * i128::from(unit);
    let rounded = i64::try_from(rounded).unwrap_or(i64::MAX);
    if us < 0 { -rounded } else { rounded }
}

/// All of them.
pub fn all() -> Vec<Overload> {
    use T::{Date, Float8, Int4, Interval, Text, Time, Timestamp, Timestamptz};
    let mut list = vec![];
    let kinds: [(T, Run, Run); 5] = [
        (Date, |c| extracted(c, date_field), |c| parts(c, date_field)),
        (Timestamp, |c| extracted(c, timestamp_field), |c| parts(c, timestamp_field)),
        (Timestamptz, |c| extracted(c, timestamptz_field), |c| parts(c, timestamptz_field)),
        (Time, |c| extracted(c, time_field), |c| parts(c, time_field)),
        (Interval, |c| extracted(c, interval_field), |c| parts(c, interval_field)),
    ];
    for (kind, extract, part) in kinds {
        list.push(function("extract", &[Text, kind], R::By(field_type), extract));
        list.push(function("date_part", &[Text, kind], R::Is(Float8), part));
    }
    for kind in [Timestamp, Timestamptz] {
        list.push(function(ROUND_TIME, &[kind, Int4], R::Is(kind), |c| {
            c.to_values::<TimestampMicrosecondType>(|row| {
                if is_infinite_us(c.timestamp(0, row)) {
                    return Ok(Some(c.timestamp(0, row)));
                }
                // From 2000 on upwards, as Postgres counts.
                let us = c.timestamp(0, row).checked_sub(US_OF_2000).ok_or_else(out_of_range)?;
                let rounded = round_us(us, c.int4(1, row));
                rounded.checked_add(US_OF_2000).map(Some).ok_or_else(out_of_range)
            })
        }));
    }
    list.extend([
        function(ROUND_TIME, &[Time, Int4], R::Is(Time), |c| {
            c.to_values::<Time64MicrosecondType>(|row| {
                Ok(Some(round_us(c.time(0, row), c.int4(1, row))))
            })
        }),
        function("date_trunc", &[Text, Timestamp], R::Is(Timestamp), |c| {
            c.to_values::<TimestampMicrosecondType>(|row| {
                truncate(c.text(0).value(row), c.timestamp(1, row)).map(Some)
            })
        }),
        function("date_trunc", &[Text, Timestamptz], R::Is(Timestamptz), |c| {
            c.to_values::<TimestampMicrosecondType>(|row| {
                truncate_in(c.settings.zone, c.text(0).value(row), c.timestamp(1, row)).map(Some)
            })
        }),
        function("date_trunc", &[Text, Timestamptz, Text], R::Is(Timestamptz), |c| {
            c.to_values::<TimestampMicrosecondType>(|row| {
                let zone = zone_of(c.text(2).value(row))?;
                truncate_in(zone, c.text(0).value(row), c.timestamp(1, row)).map(Some)
            })
        }),
        function("date_trunc", &[Text, Interval], R::Is(Interval), |c| {
            c.to_values::<IntervalMonthDayNanoType>(|row| {
                truncate_interval(c.text(0).value(row), c.interval(1, row)).map(Some)
            })
        }),
        function("date_bin", &[Interval, Timestamp, Timestamp], R::Is(Timestamp), date_bin),
        function("date_bin", &[Interval, Timestamptz, Timestamptz], R::Is(Timestamptz), date_bin),
        function("age", &[Timestamp, Timestamp], R::Is(Interval), |c| {
            c.to_values::<IntervalMonthDayNanoType>(|row| {
                age(c.timestamp(0, row), c.timestamp(1, row)).map(Some)
            })
        }),
        function("age", &[Timestamptz, Timestamptz], R::Is(Interval), |c| {
            c.to_values::<IntervalMonthDayNanoType>(|row| {
                let local = |index| local_us(c.settings.zone, c.timestamp(index, row));
                age(local(0), local(1)).map(Some)
            })
        }),
        function("timezone", &[Text, Timestamp], R::Is(Timestamptz), |c| {
            c.to_values::<TimestampMicrosecondType>(|row| {
                to_utc(zone_of(c.text(0).value(row))?, c.timestamp(1, row)).map(Some)
            })
        }),
        function("timezone", &[Text, Timestamptz], R::Is(Timestamp), |c| {
            c.to_values::<TimestampMicrosecondType>(|row| {
                Ok(Some(local_us(zone_of(c.text(0).value(row))?, c.timestamp(1, row))))
            })
        }),
        function("timezone", &[Interval, Timestamp], R::Is(Timestamptz), |c| {
            c.to_values::<TimestampMicrosecondType>(|row| {
                let (us, offset) = (c.timestamp(1, row), offset_us(c.interval(0, row))?);
                Ok(if is_infinite_us(us) { Some(us) } else { us.checked_sub(offset) })
            })
        }),
        function("timezone", &[Interval, Timestamptz], R::Is(Timestamp), |c| {
            c.to_values::<TimestampMicrosecondType>(|row| {
                let (us, offset) = (c.timestamp(1, row), offset_us(c.interval(0, row))?);
                Ok(if is_infinite_us(us) { Some(us) } else { us.checked_add(offset) })
            })
        }),
        function("make_date", &[Int4, Int4, Int4], R::Is(Date), |c| {
            c.to_values::<Date32Type>(|row| {
                let days = make_date(c.int4(0, row), c.int4(1, row), c.int4(2, row))?;
                i32::try_from(days).map(Some).map_err(|_| timestamp_out_of_range())
            })
        }),
        function("make_time", &[Int4, Int4, Float8], R::Is(Time), |c| {
            c.to_values::<Time64MicrosecondType>(|row| make_time(c, row, 0).map(Some))
        }),
        function(
            "make_timestamp",
            &[Int4, Int4, Int4, Int4, Int4, Float8],
            R::Is(Timestamp),
            |c| c.to_values::<TimestampMicrosecondType>(|row| make_timestamp(c, row).map(Some)),
        ),
        function(
            "make_timestamptz",
            &[Int4, Int4, Int4, Int4, Int4, Float8],
            R::Is(Timestamptz),
            |c| {
                c.to_values::<TimestampMicrosecondType>(|row| {
                    Ok(c.settings.zone.to_utc(make_timestamp(c, row)?))
                })
            },
        ),
        function(
            "make_timestamptz",
            &[Int4, Int4, Int4, Int4, Int4, Float8, Text],
            R::Is(Timestamptz),
            |c| {
                c.to_values::<TimestampMicrosecondType>(|row| {
                    Ok(zone_of(c.text(6).value(row))?.to_utc(make_timestamp(c, row)?))
                })
            },
        ),
        function("justify_hours", &[Interval], R::Is(Interval), |c| {
            justified(c, |i| Some(justify_hours(i)))
        }),
        function("justify_days", &[Interval], R::Is(Interval), |c| {
            justified(c, |i| Some(justify_days(i)))
        }),
        function("justify_interval", &[Interval], R::Is(Interval), |c| {
            justified(c, |i| Some(justify_interval(i)))
        }),
        function("isfinite", &[Date], R::Is(T::Bool), |c| {
            c.to_booleans(|row| Ok(Some(!is_infinite_days(c.date(0, row)))))
        }),
        function("isfinite", &[Timestamp], R::Is(T::Bool), |c| {
            c.to_booleans(|row| Ok(Some(!is_infinite_us(c.timestamp(0, row)))))
        }),
        function("isfinite", &[Timestamptz], R::Is(T::Bool), |c| {
            c.to_booleans(|row| Ok(Some(!is_infinite_us(c.timestamp(0, row)))))
        }),
        function("isfinite", &[Interval], R::Is(T::Bool), |c| c.to_booleans(|_| Ok(Some(true)))),
        function("to_timestamp", &[Float8], R::Is(Timestamptz), |c| {
            c.to_values::<TimestampMicrosecondType>(|row| {
                let us = (c.float8(0, row) * US_PER_SECOND as f64).round_ties_even();
                match us.abs() < i64::MAX as f64 {
                    true => Ok(Some(us as i64)),
                    false => Err(timestamp_out_of_range()),
                }
            })
        }),
        function(
            "overlaps",
            &[Timestamptz, Timestamptz, Timestamptz, Timestamptz],
            R::Is(T::Bool),
            |c| {
                c.to_booleans(|row| {
                    let [a, b, c, d] = [0, 1, 2, 3].map(|index| c.timestamp(index, row));
                    Ok(Some(overlaps((a, b), (c, d))))
                })
            },
        ),
        function(
            "overlaps",
            &[Timestamptz, Interval, Timestamptz, Interval],
            R::Is(T::Bool),
            |c| {
                c.to_booleans(|row| {
                    let end = |index| plus(c.timestamp(index, row), c.interval(index + 1, row));
                    let (first, second) = (end(0)?, end(2)?);
                    let periods = ((c.timestamp(0, row), first), (c.timestamp(2, row), second));
                    Ok(Some(overlaps(periods.0, periods.1)))
                })
            },
        ),
        function("+", &[Timestamp, Interval], R::Is(Timestamp), |c| shifted(c, 0, 1, 1)),
        function("+", &[Interval, Timestamp], R::Is(Timestamp), |c| shifted(c, 1, 0, 1)),
        function("-", &[Timestamp, Interval], R::Is(Timestamp), |c| shifted(c, 0, 1, -1)),
        function("+", &[Timestamptz, Interval], R::Is(Timestamptz), |c| {
            shifted_in_zone(c, 0, 1, 1)
        }),
        function("+", &[Interval, Timestamptz], R::Is(Timestamptz), |c| {
            shifted_in_zone(c, 1, 0, 1)
        }),
        function("-", &[Timestamptz, Interval], R::Is(Timestamptz), |c| {
            shifted_in_zone(c, 0, 1, -1)
        }),
        function("clock_timestamp", &[], R::Is(Timestamptz), |c| {
            let now = chrono::Utc::now().timestamp_micros();
            c.to_values::<TimestampMicrosecondType>(|_| Ok(Some(now)))
        })
        .volatile(),
    ]);
    let units = [Int4, Int4, Int4, Int4, Int4, Int4, Float8];
    for count in 0..=units.len() {
        list.push(function("make_interval", &units[..count], R::Is(Interval), |c| {
            c.to_values::<IntervalMonthDayNanoType>(|row| make_interval(c, row).map(Some))
        }));
    }
    list
}

fn timestamp_out_of_range() -> Error {
    Error::user(SqlState::DATETIME_FIELD_OVERFLOW, "timestamp out of range")
}

fn interval_out_of_range() -> Error {
    Error::user(SqlState::DATETIME_FIELD_OVERFLOW, "interval out of range")
}

/// A time zone by its name or offset.
pub(super) fn zone_of(name: &str) -> Result<Zone> {
    Zone::by_name(name).or_else(|| Zone::parse(name).ok()).ok_or_else(|| {
        Error::user(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("time zone \"{name}\" not recognized"),
        )
    })
}

/// What clocks in the zone show at a moment, in microseconds.
pub(super) fn local_us(zone: Zone, utc_us: i64) -> i64 {
    if is_infinite_us(utc_us) {
        return utc_us;
    }
    utc_us.saturating_add(i64::from(zone.offset_at(utc_us)) * US_PER_SECOND)
}

/// The moment at which clocks in the zone show a local time.
fn to_utc(zone: Zone, local_us: i64) -> Result<i64> {
    if is_infinite_us(local_us) {
        return Ok(local_us);
    }
    zone.to_utc(local_us).ok_or_else(timestamp_out_of_range)
}

fn offset_us(interval: IntervalMonthDayNano) -> Result<i64> {
    if interval.months != 0 || interval.days != 0 {
        return Err(Error::user(
            SqlState::INVALID_PARAMETER_VALUE,
            "interval time zone must not include months or days",
        ));
    }
    Ok(interval.nanoseconds / NS_PER_US)
}

/// Calendar fields of a local time.
#[derive(Clone, Copy)]
pub(super) struct Fields {
    pub year: i64,
    pub month: u32,
    pub day: u32,
    /// Since midnight.
    pub us: i64,
    /// Since 1970-01-01.
    pub days: i64,
}

pub(super) fn fields_of(local_us: i64) -> Fields {
    let days = local_us.div_euclid(US_PER_DAY);
    let (year, month, day) = civil(days);
    Fields { year, month, day, us: local_us.rem_euclid(US_PER_DAY), days }
}

impl Fields {
    /// 1 is Monday, 7 Sunday.
    pub(super) fn iso_weekday(&self) -> i64 {
        (self.days + 3).rem_euclid(7) + 1
    }

    /// 1 is the 1st of January.
    pub(super) fn day_of_year(&self) -> i64 {
        self.days - days_from_civil(self.year, 1, 1) + 1
    }

    /// The year and week of ISO 8601: week 1 has the year's first Thursday.
    pub(super) fn iso_week(&self) -> (i64, i64) {
        let thursday = self.days - self.iso_weekday() + 4;
        let (year, _, _) = civil(thursday);
        (year, (thursday - days_from_civil(year, 1, 1)) / 7 + 1)
    }

    /// As people count: there is no year 0.
    pub(super) fn shown_year(&self) -> i64 {
        if self.year > 0 { self.year } else { self.year - 1 }
    }
}

/// A field's value in millionths.
type Millionths = i128;

const MILLION: i128 = 1_000_000;

fn whole(value: i64) -> Option<Millionths> {
    Some(i128::from(value) * MILLION)
}

/// The name without plural and case, as `extract` takes it.
fn unit_of(name: &str) -> String {
    let name = name.trim().to_ascii_lowercase();
    match name.as_str() {
        "years" | "y" | "yr" | "yrs" => "year",
        "months" | "mon" | "mons" => "month",
        "days" | "d" => "day",
        "hours" | "h" | "hr" | "hrs" => "hour",
        "minutes" | "min" | "mins" | "m" => "minute",
        "seconds" | "sec" | "secs" | "s" => "second",
        "weeks" | "w" => "week",
        "quarters" | "qtr" => "quarter",
        "decades" | "dec" | "decs" => "decade",
        "centuries" | "cent" | "c" => "century",
        "millennia" | "mil" | "mils" => "millennium",
        "millisecond" | "msec" | "msecs" | "ms" => "milliseconds",
        "microsecond" | "usec" | "usecs" | "us" => "microseconds",
        other => other,
    }
    .to_owned()
}

fn clock_field(unit: &str, us: i64) -> Option<Millionths> {
    let minute_us = us % US_PER_MINUTE;
    match unit {
        "hour" => whole(us / US_PER_HOUR),
        "minute" => whole(us % US_PER_HOUR / US_PER_MINUTE),
        "second" => Some(i128::from(minute_us)),
        "milliseconds" => Some(i128::from(minute_us) * i128::from(US_PER_MS)),
        "microseconds" => whole(minute_us),
        _ => None,
    }
}

fn calendar_field(unit: &str, fields: &Fields) -> Option<Millionths> {
    let year = fields.shown_year();
    match unit {
        "year" => whole(year),
        "month" => whole(i64::from(fields.month)),
        "day" => whole(i64::from(fields.day)),
        "quarter" => whole(i64::from(fields.month - 1) / 3 + 1),
        "week" => whole(fields.iso_week().1),
        "isoyear" => {
            let (year, _) = fields.iso_week();
            whole(if year > 0 { year } else { year - 1 })
        }
        "dow" => whole(fields.iso_weekday() % 7),
        "isodow" => whole(fields.iso_weekday()),
        "doy" => whole(fields.day_of_year()),
        "decade" => whole(fields.year.div_euclid(10)),
        "century" => whole(if year > 0 { (year + 99) / 100 } else { (year - 99) / 100 }),
        "millennium" => whole(if year > 0 { (year + 999) / 1000 } else { (year - 999) / 1000 }),
        _ => None,
    }
}

fn timestamp_field(call: &Call<'_>, unit: &str, row: usize) -> Option<Millionths> {
    let us = call.timestamp(1, row);
    local_field(unit, us, us)
}

fn local_field(unit: &str, local: i64, utc: i64) -> Option<Millionths> {
    let fields = fields_of(local);
    match unit {
        "epoch" => Some(i128::from(utc)),
        "julian" => {
            let day = i128::from(fields.days + JULIAN_EPOCH) * MILLION;
            Some(day + i128::from(fields.us) * MILLION / i128::from(US_PER_DAY))
        }
        unit => calendar_field(unit, &fields).or_else(|| clock_field(unit, fields.us)),
    }
}

fn timestamptz_field(call: &Call<'_>, unit: &str, row: usize) -> Option<Millionths> {
    let (zone, us) = (call.settings.zone, call.timestamp(1, row));
    let offset = i64::from(zone.offset_at(us));
    match unit {
        "timezone" => whole(offset),
        "timezone_hour" => whole(offset / 3600),
        "timezone_minute" => whole(offset % 3600 / 60),
        unit => local_field(unit, local_us(zone, us), us),
    }
}

fn date_field(call: &Call<'_>, unit: &str, row: usize) -> Option<Millionths> {
    let days = i64::from(call.date(1, row));
    match unit {
        "epoch" => whole(days * (US_PER_DAY / US_PER_SECOND)),
        "julian" => whole(days + JULIAN_EPOCH),
        unit => {
            let (year, month, day) = civil(days);
            calendar_field(unit, &Fields { year, month, day, us: 0, days })
        }
    }
}

fn time_field(call: &Call<'_>, unit: &str, row: usize) -> Option<Millionths> {
    let us = call.time(1, row);
    match unit {
        "epoch" => Some(i128::from(us)),
        unit => clock_field(unit, us),
    }
}

fn interval_field(call: &Call<'_>, unit: &str, row: usize) -> Option<Millionths> {
    let interval = call.interval(1, row);
    let (months, us) = (i64::from(interval.months), interval.nanoseconds / NS_PER_US);
    match unit {
        "year" => whole(months / 12),
        "month" => whole(months % 12),
        "quarter" => whole(months % 12 / 3 + 1),
        "day" => whole(i64::from(interval.days)),
        "week" => whole(i64::from(interval.days) / 7),
        "decade" => whole(months / 12 / 10),
        "century" => whole(months / 12 / 100),
        "millennium" => whole(months / 12 / 1000),
        "epoch" => {
            let days = i128::from(months % 12 * DAYS_PER_MONTH + i64::from(interval.days));
            let seconds = i128::from(months / 12) * i128::from(SECONDS_PER_YEAR)
                + days * i128::from(US_PER_DAY / US_PER_SECOND);
            Some(seconds * MILLION + i128::from(us))
        }
        unit => clock_field(unit, us),
    }
}

/// How many digits after the point a field has.
fn field_type(types: &[SqlType], literals: &[Option<ScalarValue>]) -> SqlType {
    if types.get(1) == Some(&SqlType::Date) {
        return SqlType::Numeric(38, 0);
    }
    let scale = match literals.first() {
        Some(Some(ScalarValue::Utf8(Some(unit)))) => match unit_of(unit).as_str() {
            "second" | "epoch" | "julian" => 6,
            "milliseconds" => 3,
            _ => 0,
        },
        _ => 6,
    };
    SqlType::Numeric(38, scale)
}

type Field = fn(&Call<'_>, &str, usize) -> Option<Millionths>;

/// The unit of the last row, and the same in plain words.
#[derive(Default)]
struct Units {
    given: String,
    plain: String,
}

impl Units {
    fn get(&mut self, given: &str) -> &str {
        if self.given != given {
            given.clone_into(&mut self.given);
            self.plain = unit_of(given);
        }
        &self.plain
    }
}

fn field(call: &Call<'_>, of: Field, units: &mut Units, row: usize) -> Result<Millionths> {
    let given = call.text(0).value(row);
    of(call, units.get(given), row).ok_or_else(|| unknown_unit(given, &call.types[1]))
}

fn unknown_unit(unit: &str, of: &SqlType) -> Error {
    Error::user(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("unit \"{unit}\" not recognized for type {of}"),
    )
}

fn extracted(call: &Call<'_>, of: Field) -> Result<ArrayRef> {
    let scale = match call.result {
        SqlType::Numeric(_, scale) => *scale,
        _ => 0,
    };
    let divisor = 10_i128.pow(6 - u32::from(scale.unsigned_abs()).min(6));
    let mut units = Units::default();
    call.to_values::<Decimal128Type>(|row| {
        let value = field(call, of, &mut units, row)?;
        match infinite_part(call, &units.plain, row) {
            None => Ok(Some(value / divisor)),
            Some(None) => Ok(None),
            Some(Some(_)) => Err(Error::unsupported("an infinite numeric")
                .hint("Use date_part(), which gives a double precision.")),
        }
    })
}

fn parts(call: &Call<'_>, of: Field) -> Result<ArrayRef> {
    let mut units = Units::default();
    call.to_values::<Float64Type>(|row| {
        let value = field(call, of, &mut units, row)? as f64 / MILLION as f64;
        Ok(infinite_part(call, &units.plain, row).unwrap_or(Some(value)))
    })
}

/// The field of an infinite date or timestamp: infinite as it is, or NULL; `None` of others.
fn infinite_part(call: &Call<'_>, unit: &str, row: usize) -> Option<Option<f64>> {
    let negative = match call.types[1] {
        SqlType::Date if is_infinite_days(call.date(1, row)) => call.date(1, row) < 0,
        SqlType::Timestamp | SqlType::Timestamptz if is_infinite_us(call.timestamp(1, row)) => {
            call.timestamp(1, row) < 0
        }
        _ => return None,
    };
    let grows =
        ["year", "decade", "century", "millennium", "julian", "isoyear", "epoch"].contains(&unit);
    let infinity = if negative { f64::NEG_INFINITY } else { f64::INFINITY };
    Some(grows.then_some(infinity))
}

/// The beginning of the unit that a local time lies in.
fn truncate(unit: &str, local: i64) -> Result<i64> {
    if is_infinite_us(local) {
        // Only the unit is looked at.
        return truncate(unit, 0).map(|_| local);
    }
    let fields = fields_of(local);
    let begin = |year: i64, month: u32| days_from_civil(year, month, 1) * US_PER_DAY;
    let clock = |step: i64| local - local.rem_euclid(step);
    Ok(match unit_of(unit).as_str() {
        "microseconds" => local,
        "milliseconds" => clock(US_PER_MS),
        "second" => clock(US_PER_SECOND),
        "minute" => clock(US_PER_MINUTE),
        "hour" => clock(US_PER_HOUR),
        "day" => fields.days * US_PER_DAY,
        "week" => (fields.days - fields.iso_weekday() + 1) * US_PER_DAY,
        "month" => begin(fields.year, fields.month),
        "quarter" => begin(fields.year, (fields.month - 1) / 3 * 3 + 1),
        "year" => begin(fields.year, 1),
        "decade" => begin(fields.year.div_euclid(10) * 10, 1),
        // The first century began with the year 1.
        "century" => begin((fields.year - 1).div_euclid(100) * 100 + 1, 1),
        "millennium" => begin((fields.year - 1).div_euclid(1000) * 1000 + 1, 1),
        _ => return Err(unknown_unit(unit, &SqlType::Timestamp)),
    })
}

fn truncate_in(zone: Zone, unit: &str, utc: i64) -> Result<i64> {
    to_utc(zone, truncate(unit, local_us(zone, utc))?)
}

fn truncate_interval(unit: &str, interval: IntervalMonthDayNano) -> Result<IntervalMonthDayNano> {
    let months = |step: i32| IntervalMonthDayNano::new(interval.months / step * step, 0, 0);
    let clock = |step_us: i64| {
        let step = step_us * NS_PER_US;
        let nanoseconds = interval.nanoseconds / step * step;
        IntervalMonthDayNano::new(interval.months, interval.days, nanoseconds)
    };
    Ok(match unit_of(unit).as_str() {
        "microseconds" => clock(1),
        "milliseconds" => clock(US_PER_MS),
        "second" => clock(US_PER_SECOND),
        "minute" => clock(US_PER_MINUTE),
        "hour" => clock(US_PER_HOUR),
        "day" => IntervalMonthDayNano::new(interval.months, interval.days, 0),
        "month" => months(1),
        "quarter" => months(3),
        "year" => months(12),
        "decade" => months(120),
        "century" => months(1200),
        "millennium" => months(12_000),
        _ => return Err(unknown_unit(unit, &SqlType::Interval)),
    })
}

/// The bin of that width, counted from an origin, that the time lies in.
fn date_bin(call: &Call<'_>) -> Result<ArrayRef> {
    let wrong = |message: &str| Error::user(SqlState::DATETIME_FIELD_OVERFLOW, message.to_owned());
    call.to_values::<TimestampMicrosecondType>(|row| {
        let stride = call.interval(0, row);
        if stride.months != 0 {
            return Err(Error::unsupported(
                "timestamps cannot be binned into intervals containing months or years: this",
            ));
        }
        let width = i64::from(stride.days)
            .checked_mul(US_PER_DAY)
            .and_then(|us| us.checked_add(stride.nanoseconds / NS_PER_US))
            .ok_or_else(interval_out_of_range)?;
        if width <= 0 {
            return Err(wrong("stride must be greater than zero"));
        }
        let (time, origin) = (call.timestamp(1, row), call.timestamp(2, row));
        if is_infinite_us(origin) {
            return Err(wrong("origin out of range"));
        }
        if is_infinite_us(time) {
            return Ok(Some(time));
        }
        let distance = time.checked_sub(origin).ok_or_else(timestamp_out_of_range)?;
        Ok(Some(time - distance.rem_euclid(width)))
    })
}

/// Years, months, days and time from `right` to `left`, as a calendar counts them.
fn age(left: i64, right: i64) -> Result<IntervalMonthDayNano> {
    if is_infinite_us(left) || is_infinite_us(right) {
        return Err(timestamp_out_of_range());
    }
    let (a, b) = (fields_of(left), fields_of(right));
    let (later, earlier, sign) = if left < right { (b, a, -1) } else { (a, b, 1) };
    let mut us = later.us - earlier.us;
    let mut days = i64::from(later.day) - i64::from(earlier.day);
    let mut months =
        (later.year - earlier.year) * 12 + i64::from(later.month) - i64::from(earlier.month);
    if us < 0 {
        us += US_PER_DAY;
        days -= 1;
    }
    if days < 0 {
        // The month that the earlier time lies in is filled up first.
        days += i64::from(days_in_month(earlier.year, earlier.month));
        months -= 1;
    }
    let months = i32::try_from(months * sign).map_err(|_| interval_out_of_range())?;
    Ok(IntervalMonthDayNano::new(months, (days * sign) as i32, us * sign * NS_PER_US))
}

/// Days of a date since 1970; a negative year is before Christ.
fn make_date(year: i32, month: i32, day: i32) -> Result<i64> {
    let wrong = || {
        Error::user(
            SqlState::DATETIME_FIELD_OVERFLOW,
            format!("date field value out of range: {year}-{month:02}-{day:02}"),
        )
    };
    let astronomical = i64::from(year) + i64::from(year < 0);
    let month = u32::try_from(month).ok().filter(|m| (1..=12).contains(m)).ok_or_else(wrong)?;
    let fits = |d: &u32| (1..=days_in_month(astronomical, month)).contains(d);
    let day = u32::try_from(day).ok().filter(fits).ok_or_else(wrong)?;
    if year == 0 {
        return Err(wrong());
    }
    Ok(days_from_civil(astronomical, month, day))
}

/// Microseconds since midnight of hours, minutes and seconds from that argument on.
fn make_time(call: &Call<'_>, row: usize, first: usize) -> Result<i64> {
    let (hour, minute) = (call.int4(first, row), call.int4(first + 1, row));
    let second = call.float8(first + 2, row);
    let fits = (0..=24).contains(&hour) && (0..60).contains(&minute);
    let us = (second * US_PER_SECOND as f64).round_ties_even();
    let us = i64::from(hour) * US_PER_HOUR + i64::from(minute) * US_PER_MINUTE + us as i64;
    if !fits || !(0.0..=60.0).contains(&second) || us > US_PER_DAY {
        return Err(Error::user(
            SqlState::DATETIME_FIELD_OVERFLOW,
            format!("time field value out of range: {hour}:{minute:02}:{second:02}"),
        ));
    }
    Ok(us)
}

fn make_timestamp(call: &Call<'_>, row: usize) -> Result<i64> {
    let days = make_date(call.int4(0, row), call.int4(1, row), call.int4(2, row))?;
    let us = make_time(call, row, 3)?;
    days.checked_mul(US_PER_DAY)
        .and_then(|date| date.checked_add(us))
        .ok_or_else(timestamp_out_of_range)
}

/// Years, months, weeks, days, hours, minutes and seconds, as many as there are.
fn make_interval(call: &Call<'_>, row: usize) -> Result<IntervalMonthDayNano> {
    let at = |index: usize| match index < call.columns.len() {
        true => i64::from(call.int4(index, row)),
        false => 0,
    };
    let seconds = if call.columns.len() > 6 { call.float8(6, row) } else { 0.0 };
    let months = i32::try_from(at(0) * 12 + at(1)).map_err(|_| interval_out_of_range())?;
    let days = i32::try_from(at(2) * 7 + at(3)).map_err(|_| interval_out_of_range())?;
    let us = (seconds * US_PER_SECOND as f64).round_ties_even();
    if us.abs() >= (i64::MAX / NS_PER_US) as f64 {
        return Err(interval_out_of_range());
    }
    let us = at(4) * US_PER_HOUR + at(5) * US_PER_MINUTE + us as i64;
    let nanoseconds = us.checked_mul(NS_PER_US).ok_or_else(interval_out_of_range)?;
    Ok(IntervalMonthDayNano::new(months, days, nanoseconds))
}

fn justified(
    call: &Call<'_>,
    of: fn(IntervalMonthDayNano) -> Option<IntervalMonthDayNano>,
) -> Result<ArrayRef> {
    call.to_values::<IntervalMonthDayNanoType>(|row| Ok(of(call.interval(0, row))))
}

/// One level's overflow to the next, both with one sign.
fn carry(high: i64, low: i64, size: i64) -> (i64, i64) {
    let (mut high, mut low) = (high + low / size, low % size);
    if high > 0 && low < 0 {
        (high, low) = (high - 1, low + size);
    } else if high < 0 && low > 0 {
        (high, low) = (high + 1, low - size);
    }
    (high, low)
}

const NS_PER_DAY: i64 = US_PER_DAY * NS_PER_US;

fn justify_hours(interval: IntervalMonthDayNano) -> IntervalMonthDayNano {
    debug_assert_eq!(NS_PER_DAY, HOURS_PER_DAY * US_PER_HOUR * NS_PER_US);
    let (days, ns) = carry(i64::from(interval.days), interval.nanoseconds, NS_PER_DAY);
    IntervalMonthDayNano::new(interval.months, days as i32, ns)
}

fn justify_days(interval: IntervalMonthDayNano) -> IntervalMonthDayNano {
    let (months, days) =
        carry(i64::from(interval.months), i64::from(interval.days), DAYS_PER_MONTH);
    IntervalMonthDayNano::new(months as i32, days as i32, interval.nanoseconds)
}

fn justify_interval(interval: IntervalMonthDayNano) -> IntervalMonthDayNano {
    let days = i64::from(interval.days) + interval.nanoseconds / NS_PER_DAY;
    let ns = interval.nanoseconds % NS_PER_DAY;
    let (mut months, mut days) =
        (i64::from(interval.months) + days / DAYS_PER_MONTH, days % DAYS_PER_MONTH);
    let mut ns = ns;
    if months > 0 && (days < 0 || days == 0 && ns < 0) {
        (months, days) = (months - 1, days + DAYS_PER_MONTH);
    } else if months < 0 && (days > 0 || days == 0 && ns > 0) {
        (months, days) = (months + 1, days - DAYS_PER_MONTH);
    }
    if days > 0 && ns < 0 {
        (days, ns) = (days - 1, ns + NS_PER_DAY);
    } else if days < 0 && ns > 0 {
        (days, ns) = (days + 1, ns - NS_PER_DAY);
    }
    IntervalMonthDayNano::new(months as i32, days as i32, ns)
}

/// The interval that is added, or taken away.
fn step(call: &Call<'_>, index: usize, row: usize, sign: i32) -> Result<IntervalMonthDayNano> {
    let interval = call.interval(index, row);
    match sign {
        1 => Ok(interval),
        _ => Ok(IntervalMonthDayNano::new(
            interval.months.checked_neg().ok_or_else(interval_out_of_range)?,
            interval.days.checked_neg().ok_or_else(interval_out_of_range)?,
            interval.nanoseconds.checked_neg().ok_or_else(interval_out_of_range)?,
        )),
    }
}

/// A timestamp without time zone, moved.
fn shifted(call: &Call<'_>, time: usize, by: usize, sign: i32) -> Result<ArrayRef> {
    call.to_values::<TimestampMicrosecondType>(|row| {
        plus(call.timestamp(time, row), step(call, by, row, sign)?).map(Some)
    })
}

/// Months and days are those of clocks in the session's zone.
fn shifted_in_zone(call: &Call<'_>, time: usize, by: usize, sign: i32) -> Result<ArrayRef> {
    let zone = call.settings.zone;
    call.to_values::<TimestampMicrosecondType>(|row| {
        plus_in(zone, call.timestamp(time, row), step(call, by, row, sign)?).map(Some)
    })
}

/// A moment plus an interval, whose months and days are those of clocks in the zone.
pub(super) fn plus_in(zone: Zone, us: i64, step: IntervalMonthDayNano) -> Result<i64> {
    if is_infinite_us(us) {
        return Ok(us);
    }
    let days = IntervalMonthDayNano::new(step.months, step.days, 0);
    let moved = match step.months == 0 && step.days == 0 {
        true => us,
        false => to_utc(zone, plus(local_us(zone, us), days)?)?,
    };
    let moved = moved.checked_add(step.nanoseconds / NS_PER_US);
    moved.filter(|us| !is_infinite_us(*us)).ok_or_else(timestamp_out_of_range)
}

/// A time plus an interval: months first (the day is cut to the month), then days, then time.
pub(super) fn plus(us: i64, interval: IntervalMonthDayNano) -> Result<i64> {
    if is_infinite_us(us) {
        return Ok(us);
    }
    if interval.months == 0 {
        return i64::from(interval.days)
            .checked_mul(US_PER_DAY)
            .and_then(|days| us.checked_add(days))
            .and_then(|time| time.checked_add(interval.nanoseconds / NS_PER_US))
            .filter(|us| !is_infinite_us(*us))
            .ok_or_else(timestamp_out_of_range);
    }
    let fields = fields_of(us);
    let months = fields.year * 12 + i64::from(fields.month) - 1 + i64::from(interval.months);
    let (year, month) = (months.div_euclid(12), months.rem_euclid(12) as u32 + 1);
    let day = fields.day.min(days_in_month(year, month));
    let days = days_from_civil(year, month, day) + i64::from(interval.days);
    days.checked_mul(US_PER_DAY)
        .and_then(|date| date.checked_add(fields.us))
        .and_then(|time| time.checked_add(interval.nanoseconds / NS_PER_US))
        .filter(|us| !is_infinite_us(*us))
        .ok_or_else(timestamp_out_of_range)
}

/// Whether two periods, each with its ends in any order, have a moment in common. A period
/// includes its beginning and not its end, unless they are the same.
fn overlaps(a: (i64, i64), b: (i64, i64)) -> bool {
    let ordered = |(from, to): (i64, i64)| (from.min(to), from.max(to));
    let ((a_from, a_to), (b_from, b_to)) = (ordered(a), ordered(b));
    if a_from == b_from {
        true
    } else if a_from > b_from {
        a_from < b_to
    } else {
        b_from < a_to
    }
}
