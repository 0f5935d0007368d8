//! Windows of event time as functions of one row: in which window a time stands.
//!
//! Windows of a size stand side by side, one of them beginning at 1970-01-01T00:00:00 plus the
//! offset; times before that are counted on in the same way. They are half open: a row at a
//! window's end belongs to the next one.
//!
//! | function | gives |
//! |---|---|
//! | `tumble_start(ts, size [, offset])` | where the window begins that `ts` is in |
//! | `tumble_end(ts, size [, offset])` | where it ends |
//! | `hop_starts(ts, slide, size [, offset])` | where each window begins that `ts` is in, ascending |
//! | `cumulate_ends(ts, step, size [, offset])` | where each window ends, ascending |
//! | `window_end(start, size)`, `window_start(end, size)` | the other end |
//! | `window_time(end)` | the last millisecond of a window: its rows' time for what follows |
//!
//! `sql::windows` writes TUMBLE, HOP and CUMULATE with these, so that a view and a batch compute
//! windows by the same kernel. A day is 24 hours; windows of months are not of one size.

use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMicrosecondArray};
use arrow::datatypes::{IntervalMonthDayNano, TimestampMicrosecondType};

use crate::functions::scalar::call::{Call, Overload, R, T, function};
use crate::types::error::{Error, Result, SqlState};
use crate::types::text::datetime::{US_PER_DAY, is_infinite_us};
use crate::types::time::{WINDOW_TIME_US, WINDOWS_MAX};

const NS_PER_US: i64 = 1_000;

/// Marks the condition of an ASOF join until `sql::asof` has found it.
pub const ASOF_CONDITION: &str = "asof_condition";
/// Marks the condition of a join with `FOR SYSTEM_TIME AS OF` its argument, likewise.
pub const SYSTEM_TIME_CONDITION: &str = "system_time_condition";

/// Marks the condition of a join with `FOR SYSTEM_TIME AS OF PROCTIME()`, likewise.
pub const PROCESSING_TIME_CONDITION: &str = "processing_time_condition";

/// All of them.
pub fn all() -> Vec<Overload> {
    let mut list = vec![];
    for (argument, result) in [
        (T::Timestamp, T::Timestamp),
        (T::Timestamptz, T::Timestamptz),
        // A date is its midnight.
        (T::Date, T::Timestamp),
    ] {
        for optional in [[].as_slice(), &[T::Interval]] {
            let takes = |arguments: &[T]| [&[argument], arguments, optional].concat();
            list.push(function(
                "tumble_start",
                &takes(&[T::Interval]),
                R::Is(result),
                tumble_start,
            ));
            list.push(function("tumble_end", &takes(&[T::Interval]), R::Is(result), tumble_end));
            let two = takes(&[T::Interval, T::Interval]);
            list.push(function("hop_starts", &two, R::Array(result), hop_starts));
            list.push(function("cumulate_ends", &two, R::Array(result), cumulate_ends));
        }
    }
    for kind in [T::Timestamp, T::Timestamptz] {
        list.push(function("window_end", &[kind, T::Interval], R::Is(kind), |call| {
            call.to_values::<TimestampMicrosecondType>(|row| {
                let size = duration_us(call.interval(1, row))?;
                let end = call.timestamp(0, row).checked_add(size);
                end.map(Some).ok_or_else(out_of_range)
            })
        }));
        for optional in [[].as_slice(), &[T::Interval]] {
            let takes = [&[kind, T::Interval], optional].concat();
            list.push(function("window_start", &takes, R::Is(kind), window_start));
        }
        list.push(function("window_time", &[kind], R::Is(kind), |call| {
            call.to_values::<TimestampMicrosecondType>(|row| {
                let time = call.timestamp(0, row).checked_sub(WINDOW_TIME_US);
                time.map(Some).ok_or_else(out_of_range)
            })
        }));
    }
    list
}

/// What marks conditions; not for calls.
pub fn markers() -> Vec<Overload> {
    let misplaced: fn(&Call<'_>) -> Result<ArrayRef> =
        |_| Err(Error::internal("the condition of a join was taken for a value"));
    vec![
        function(ASOF_CONDITION, &[], R::Is(T::Bool), misplaced),
        function(PROCESSING_TIME_CONDITION, &[], R::Is(T::Bool), misplaced),
        function(SYSTEM_TIME_CONDITION, &[T::Any], R::Is(T::Bool), misplaced),
    ]
}

/// A size in microseconds.
///
/// # Errors
/// SQLSTATE 0A000 for months, 22008 for what is out of range.
pub fn duration_us(interval: IntervalMonthDayNano) -> Result<i64> {
    if interval.months != 0 {
        return Err(Error::unsupported("windows of months or years").hint(
            "They differ in length. Group by date_trunc('month', ...) instead, or give days.",
        ));
    }
    i64::from(interval.days)
        .checked_mul(US_PER_DAY)
        .and_then(|days| days.checked_add(interval.nanoseconds / NS_PER_US))
        .ok_or_else(|| Error::user(SqlState::DATETIME_FIELD_OVERFLOW, "window size out of range"))
}

/// A size, slide, step or gap: more than nothing.
///
/// # Errors
/// SQLSTATE 22023 when it is not, or as [`duration_us`].
pub fn positive_us(interval: IntervalMonthDayNano, what: &str) -> Result<i64> {
    match duration_us(interval)? {
        us if us > 0 => Ok(us),
        _ => Err(Error::user(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("the {what} of a window must be greater than zero"),
        )),
    }
}

fn out_of_range() -> Error {
    Error::user(SqlState::DATETIME_FIELD_OVERFLOW, "timestamp out of range")
}

/// The greatest `offset + n * size` that is not after `us`.
fn floor_us(us: i64, size: i64, offset: i64) -> Option<i64> {
    let into = match us.checked_sub(offset) {
        Some(distance) => distance.rem_euclid(size),
        // Further apart than 2^63.
        None => {
            let distance = i128::from(us) - i128::from(offset);
            i64::try_from(distance.rem_euclid(i128::from(size))).ok()?
        }
    };
    us.checked_sub(into)
}

/// The time of a row: microseconds, of a date its midnight.
fn times<'a>(call: &'a Call<'_>) -> Box<dyn Fn(usize) -> Option<i64> + 'a> {
    match call.types[0] {
        crate::types::sql_type::SqlType::Date => {
            Box::new(|row| i64::from(call.date(0, row)).checked_mul(US_PER_DAY))
        }
        // An infinite time is in no window.
        _ => Box::new(|row| Some(call.timestamp(0, row)).filter(|us| !is_infinite_us(*us))),
    }
}

/// The argument of a place as a positive size.
fn size_at(call: &Call<'_>, index: usize, row: usize, what: &str) -> Result<i64> {
    positive_us(call.interval(index, row), what)
}

/// The optional offset behind the other arguments.
fn offset_at(call: &Call<'_>, index: usize, row: usize) -> Result<i64> {
    if call.columns.len() > index { duration_us(call.interval(index, row)) } else { Ok(0) }
}

/// Where the window of each row begins, or ends.
fn tumble(call: &Call<'_>, end: bool) -> Result<ArrayRef> {
    let time = times(call);
    call.to_values::<TimestampMicrosecondType>(|row| {
        let size = size_at(call, 1, row, "size")?;
        let offset = offset_at(call, 2, row)?;
        let start = time(row).and_then(|us| floor_us(us, size, offset));
        let shifted = start.and_then(|us| us.checked_add(if end { size } else { 0 }));
        shifted.map(Some).ok_or_else(out_of_range)
    })
}

fn tumble_start(call: &Call<'_>) -> Result<ArrayRef> {
    tumble(call, false)
}

fn tumble_end(call: &Call<'_>) -> Result<ArrayRef> {
    tumble(call, true)
}

/// Where the window of this size begins that ends, or reaches, here.
fn window_start(call: &Call<'_>) -> Result<ArrayRef> {
    call.to_values::<TimestampMicrosecondType>(|row| {
        let size = size_at(call, 1, row, "size")?;
        let offset = offset_at(call, 2, row)?;
        let last = call.timestamp(0, row).checked_sub(1);
        last.and_then(|us| floor_us(us, size, offset)).map(Some).ok_or_else(out_of_range)
    })
}

/// A list of timestamps for each row: all `first + n * step` before `end`.
fn spread(call: &Call<'_>, range: impl Fn(usize) -> Result<(i64, i64, i64)>) -> Result<ArrayRef> {
    let mut items: Vec<i64> = Vec::with_capacity(call.rows);
    let (mut lengths, mut valid) = (Vec::with_capacity(call.rows), Vec::with_capacity(call.rows));
    for row in 0..call.rows {
        let before = items.len();
        valid.push(call.sees(row));
        if call.sees(row) {
            let (mut next, end, step) = range(row)?;
            if (i128::from(end) - i128::from(next)) / i128::from(step) > i128::from(WINDOWS_MAX) {
                return Err(Error::user(
                    SqlState::PROGRAM_LIMIT_EXCEEDED,
                    format!("a row would be in more than {WINDOWS_MAX} windows"),
                ));
            }
            while next < end {
                items.push(next);
                next = next.checked_add(step).ok_or_else(out_of_range)?;
            }
        }
        lengths.push(items.len() - before);
    }
    let arrow::datatypes::DataType::List(field) = call.result.to_arrow() else {
        return Err(Error::internal("windows are a list"));
    };
    let items = TimestampMicrosecondArray::from(items).with_data_type(field.data_type().clone());
    call.list_of(Arc::new(items), lengths, valid)
}

fn hop_starts(call: &Call<'_>) -> Result<ArrayRef> {
    let time = times(call);
    spread(call, |row| {
        let slide = size_at(call, 1, row, "slide")?;
        let size = size_at(call, 2, row, "size")?;
        let offset = offset_at(call, 3, row)?;
        let us = time(row).ok_or_else(out_of_range)?;
        // The first window that has not ended is the first that begins after `us - size`.
        let first = us
            .checked_sub(size)
            .and_then(|us| floor_us(us, slide, offset))
            .and_then(|us| us.checked_add(slide))
            .ok_or_else(out_of_range)?;
        Ok((first, us.checked_add(1).ok_or_else(out_of_range)?, slide))
    })
}

fn cumulate_ends(call: &Call<'_>) -> Result<ArrayRef> {
    let time = times(call);
    spread(call, |row| {
        let step = size_at(call, 1, row, "step")?;
        let size = size_at(call, 2, row, "size")?;
        if size % step != 0 {
            return Err(Error::user(
                SqlState::INVALID_PARAMETER_VALUE,
                "the size of CUMULATE must be a multiple of its step",
            ));
        }
        let offset = offset_at(call, 3, row)?;
        let us = time(row).ok_or_else(out_of_range)?;
        let start = floor_us(us, size, offset).ok_or_else(out_of_range)?;
        let last = start.checked_add(size).ok_or_else(out_of_range)?;
        // The step that the row is in ends the first window that it is part of.
        let first = start + ((us - start) / step + 1) * step;
        Ok((first, last.checked_add(1).ok_or_else(out_of_range)?, step))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_aligned_on_both_sides_of_1970() {
        assert_eq!(floor_us(0, 10, 0), Some(0));
        assert_eq!(floor_us(9, 10, 0), Some(0));
        assert_eq!(floor_us(-1, 10, 0), Some(-10));
        assert_eq!(floor_us(-10, 10, 0), Some(-10));
        assert_eq!(floor_us(4, 10, 5), Some(-5));
        assert_eq!(floor_us(4, 10, -6), Some(4));
        assert_eq!(floor_us(3, 10, -6), Some(-6));
        assert_eq!(floor_us(i64::MIN + 3, 10, 0), None);
        // An offset and a time that are further apart than numbers reach.
        assert_eq!(floor_us(i64::MAX, 2, i64::MIN), Some(i64::MAX - 1));
    }

    #[test]
    fn sizes_are_days_and_times() {
        let day = IntervalMonthDayNano::new(0, 1, 1_000);
        assert_eq!(duration_us(day).expect("a day"), US_PER_DAY + 1);
        assert!(duration_us(IntervalMonthDayNano::new(1, 0, 0)).is_err());
        assert!(positive_us(IntervalMonthDayNano::new(0, 0, 0), "size").is_err());
        assert!(positive_us(IntervalMonthDayNano::new(0, -1, 0), "size").is_err());
    }
}
