//! `generate_series()` as an array: of integers, of bigints, and of timestamps by intervals.
//!
//! In FROM and in a select list the array is unnested (`sql::rewrite`). A long series of constants
//! is a table function instead, or for a view an unnest of unnests (`sql::series`).

use std::sync::Arc;

use arrow::array::{ArrayRef, PrimitiveArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Int32Type, Int64Type, IntervalMonthDayNano,
    TimestampMicrosecondType,
};

use crate::functions::scalar::calendar::{plus, plus_in};
use crate::functions::scalar::call::{Call, Overload, R, T, function};
use crate::types::error::{Error, Result, SqlState};
use crate::types::text::datetime::is_infinite_us;

/// Elements of the arrays of one batch.
const ELEMENTS_MAX: usize = 1 << 28;

/// All of them.
pub fn all() -> Vec<Overload> {
    const NAME: &str = "generate_series";
    let mut list = vec![];
    for step in [[].as_slice(), &[T::Int4]] {
        let takes = [&[T::Int4, T::Int4], step].concat();
        list.push(function(NAME, &takes, R::Array(T::Int4), |call| {
            arrays::<Int32Type>(call, |row, items| {
                let (from, to) = (call.int4(0, row), call.int4(1, row));
                let step = if call.columns.len() > 2 { call.int4(2, row) } else { 1 };
                steps(i64::from(from), i64::from(to), i64::from(step), items, |value| value as i32)
            })
        }));
    }
    for step in [[].as_slice(), &[T::Int8]] {
        let takes = [&[T::Int8, T::Int8], step].concat();
        list.push(function(NAME, &takes, R::Array(T::Int8), |call| {
            arrays::<Int64Type>(call, |row, items| {
                let step = if call.columns.len() > 2 { call.int8(2, row) } else { 1 };
                steps(call.int8(0, row), call.int8(1, row), step, items, |value| value)
            })
        }));
    }
    list.push(function(
        NAME,
        &[T::Timestamp, T::Timestamp, T::Interval],
        R::Array(T::Timestamp),
        |call| {
            arrays::<TimestampMicrosecondType>(call, |row, items| {
                let ends = (call.timestamp(0, row), call.timestamp(1, row));
                times(ends, call.interval(2, row), items, plus)
            })
        },
    ));
    list.push(function(
        NAME,
        &[T::Timestamptz, T::Timestamptz, T::Interval],
        R::Array(T::Timestamptz),
        |call| {
            let zone = call.settings.zone;
            arrays::<TimestampMicrosecondType>(call, |row, items| {
                let ends = (call.timestamp(0, row), call.timestamp(1, row));
                times(ends, call.interval(2, row), items, |us, step| plus_in(zone, us, step))
            })
        },
    ));
    list
}

/// One array for each row that the function sees; `fill` appends its elements.
fn arrays<P: ArrowPrimitiveType>(
    call: &Call<'_>,
    mut fill: impl FnMut(usize, &mut Vec<P::Native>) -> Result<()>,
) -> Result<ArrayRef> {
    let mut items: Vec<P::Native> = Vec::new();
    let (mut lengths, mut valid) = (Vec::with_capacity(call.rows), Vec::with_capacity(call.rows));
    for row in 0..call.rows {
        let before = items.len();
        valid.push(call.sees(row));
        if call.sees(row) {
            fill(row, &mut items)?;
        }
        lengths.push(items.len() - before);
    }
    let DataType::List(field) = call.result.to_arrow() else {
        return Err(Error::internal("a series is a list"));
    };
    let items = PrimitiveArray::<P>::from_iter_values(items);
    call.list_of(Arc::new(items.with_data_type(field.data_type().clone())), lengths, valid)
}

fn steps<V>(
    from: i64,
    to: i64,
    step: i64,
    items: &mut Vec<V>,
    of: impl Fn(i64) -> V,
) -> Result<()> {
    if step == 0 {
        return Err(no_step());
    }
    let distance = (i128::from(to) - i128::from(from)) / i128::from(step);
    let outside = if step > 0 { from > to } else { from < to };
    if outside {
        return Ok(());
    }
    if items.len() as i128 + distance >= ELEMENTS_MAX as i128 {
        return Err(too_long());
    }
    let mut value = from;
    for _ in 0..distance {
        items.push(of(value));
        // Not beyond the end, so not beyond what a number holds.
        value += step;
    }
    items.push(of(value));
    Ok(())
}

fn times(
    (from, to): (i64, i64),
    step: IntervalMonthDayNano,
    items: &mut Vec<i64>,
    next: impl Fn(i64, IntervalMonthDayNano) -> Result<i64>,
) -> Result<()> {
    if step.months == 0 && step.days == 0 && step.nanoseconds == 0 {
        return Err(no_step());
    }
    if is_infinite_us(from) || is_infinite_us(to) {
        return Err(Error::user(SqlState::DATETIME_FIELD_OVERFLOW, "timestamp out of range"));
    }
    // An interval is as long as its months of 30 days.
    let sign = i128::from(step.months) * 30 * 86_400_000_000_000
        + i128::from(step.days) * 86_400_000_000_000
        + i128::from(step.nanoseconds);
    let goes_on = |us: i64| if sign > 0 { us <= to } else { us >= to };
    let mut us = from;
    while goes_on(us) {
        if items.len() >= ELEMENTS_MAX {
            return Err(too_long());
        }
        items.push(us);
        let before = us;
        us = next(us, step)?;
        if us == before {
            return Err(no_step());
        }
    }
    Ok(())
}

fn no_step() -> Error {
    Error::user(SqlState::INVALID_PARAMETER_VALUE, "step size cannot equal zero")
}

fn too_long() -> Error {
    Error::user(
        SqlState::PROGRAM_LIMIT_EXCEEDED,
        format!("a series that is computed has at most {ELEMENTS_MAX} elements"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_end_where_numbers_do() {
        let series = |from, to, step| {
            let mut items = vec![];
            steps(from, to, step, &mut items, |value| value).map(|()| items)
        };
        assert_eq!(series(1, 7, 3).expect("a series"), [1, 4, 7]);
        assert_eq!(series(3, 1, -1).expect("a series"), [3, 2, 1]);
        assert_eq!(series(3, 1, 1).expect("a series"), Vec::<i64>::new());
        assert_eq!(series(i64::MAX - 1, i64::MAX, 5).expect("a series"), [i64::MAX - 1]);
        let ends = series(i64::MIN, i64::MAX, i64::MAX).expect("a series");
        assert_eq!(ends, [i64::MIN, -1, i64::MAX - 1]);
        assert_eq!(series(1, 2, 0).expect_err("no step").sqlstate().0, "22023");
        assert_eq!(series(1, i64::MAX, 1).expect_err("too long").sqlstate().0, "54000");
    }
}
