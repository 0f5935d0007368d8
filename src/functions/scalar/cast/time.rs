//! Casts between dates and times. A timestamp with time zone is an instant; what it looks like on
//! a clock, and which instant a clock's time is, depends on the session's zone. Infinite dates and
//! timestamps stay so; there is no time of day in them.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{
    Date32Type, IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType,
    TimestampMicrosecondType,
};

use crate::functions::scalar::cast::{CastSettings, cannot_cast};
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::SqlType;
use crate::types::text::datetime::{
    INFINITY_DAYS, INFINITY_US, US_PER_DAY, US_PER_SECOND, is_infinite_days, is_infinite_us,
};
use crate::types::text::zone::Zone;

const NS_PER_US: i64 = 1_000;

/// Casts a column of dates or times to another.
pub fn cast_time(
    array: &ArrayRef,
    from: &SqlType,
    to: &SqlType,
    settings: &CastSettings,
) -> Result<ArrayRef> {
    use SqlType as T;
    let zone = settings.zone;
    Ok(match (from, to) {
        (T::Date, T::Timestamp) => timestamps(dates(array).try_unary(midnight)?, None),
        (T::Date, T::Timestamptz) => {
            timestamps(dates(array).try_unary(|d| to_utc(zone, midnight(d)?))?, Some("UTC"))
        }
        (T::Timestamp, T::Date) => Arc::new(times(array).try_unary::<_, Date32Type, Error>(day)?),
        (T::Timestamp, T::Time) => {
            Arc::new(times(array).unary_opt::<_, Time64MicrosecondType>(time_of_day))
        }
        (T::Timestamp, T::Timestamptz) => {
            timestamps(times(array).try_unary(|us| to_utc(zone, us))?, Some("UTC"))
        }
        (T::Timestamptz, T::Timestamp) => {
            timestamps(times(array).unary(|us| to_local(zone, us)), None)
        }
        (T::Timestamptz, T::Date) => {
            Arc::new(times(array).try_unary::<_, Date32Type, Error>(|us| day(to_local(zone, us)))?)
        }
        (T::Timestamptz, T::Time) => Arc::new(
            times(array)
                .unary_opt::<_, Time64MicrosecondType>(|us| time_of_day(to_local(zone, us))),
        ),
        (T::Time, T::Interval) => {
            let times = array.as_primitive::<Time64MicrosecondType>();
            Arc::new(times.unary::<_, IntervalMonthDayNanoType>(|us| {
                IntervalMonthDayNano::new(0, 0, us * NS_PER_US)
            }))
        }
        (T::Interval, T::Time) => {
            let intervals = array.as_primitive::<IntervalMonthDayNanoType>();
            Arc::new(intervals.unary::<_, Time64MicrosecondType>(|interval| {
                (interval.nanoseconds / NS_PER_US).rem_euclid(US_PER_DAY)
            }))
        }
        (from, to) => return Err(cannot_cast(from, to)),
    })
}

fn dates(array: &ArrayRef) -> &PrimitiveArray<Date32Type> {
    array.as_primitive()
}

fn times(array: &ArrayRef) -> &PrimitiveArray<TimestampMicrosecondType> {
    array.as_primitive()
}

fn timestamps(values: PrimitiveArray<TimestampMicrosecondType>, zone: Option<&str>) -> ArrayRef {
    Arc::new(values.with_timezone_opt(zone))
}

fn midnight(days: i32) -> Result<i64> {
    if is_infinite_days(days) {
        return Ok(if days > 0 { INFINITY_US } else { i64::MIN });
    }
    i64::from(days).checked_mul(US_PER_DAY).ok_or_else(out_of_range)
}

fn day(us: i64) -> Result<i32> {
    if is_infinite_us(us) {
        return Ok(if us > 0 { INFINITY_DAYS } else { i32::MIN });
    }
    i32::try_from(us.div_euclid(US_PER_DAY)).map_err(|_| out_of_range())
}

fn time_of_day(us: i64) -> Option<i64> {
    (!is_infinite_us(us)).then(|| us.rem_euclid(US_PER_DAY))
}

/// The instant at which a clock of the zone shows a local time.
pub fn to_utc(zone: Zone, local_us: i64) -> Result<i64> {
    if is_infinite_us(local_us) {
        return Ok(local_us);
    }
    zone.to_utc(local_us).ok_or_else(out_of_range)
}

/// What a clock of the zone shows at an instant.
pub fn to_local(zone: Zone, us: i64) -> i64 {
    if is_infinite_us(us) {
        return us;
    }
    us.saturating_add(i64::from(zone.offset_at(us)) * US_PER_SECOND)
}

fn out_of_range() -> Error {
    Error::user(SqlState::DATETIME_FIELD_OVERFLOW, "timestamp out of range")
}
