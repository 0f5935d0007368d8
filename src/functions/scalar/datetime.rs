//! Operators on dates, timestamps and intervals that DataFusion lacks or means differently.
//!
//! | operator | result |
//! |---|---|
//! | date + integer, integer + date, date - integer | date |
//! | date - date | integer: days |
//! | timestamp - timestamp (with or without time zone) | interval of days and time |
//! | date + time, time + date | timestamp |
//! | time + interval, interval + time, time - interval | time, around midnight |
//! | time - time | interval |
//! | interval * number, number * interval, interval / number | interval |
//! | - interval | interval |
//!
//! A date that is infinite stays so; the difference of infinite ones is an error.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{
    DataType, Date32Type, Field, FieldRef, Float64Type, Int32Type, IntervalMonthDayNano,
    IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType,
};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use crate::types::error::{Error, Result, SqlState};
use crate::types::text::datetime::{
    INFINITY_US, US_PER_DAY, US_PER_SECOND, is_infinite_days, is_infinite_us,
};

/// `round_time(time, p)`: with p digits after the second, as `timestamp(p)` and `time(p)` have.
pub const ROUND_TIME: &str = "round_time";

const NS_PER_US: i64 = 1_000;
const TIME: DataType = DataType::Time64(TimeUnit::Microsecond);
const SECONDS_PER_DAY: f64 = (US_PER_DAY / US_PER_SECOND) as f64;
/// A month, when a part of one has to be days.
const DAYS_PER_MONTH: f64 = 30.0;

/// Which operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimeOp {
    /// date, integer.
    DatePlus,
    /// date, integer.
    DateMinus,
    /// date, date.
    DateDifference,
    /// timestamp, timestamp.
    TimestampDifference,
    /// date, time.
    DatePlusTime,
    /// time, interval.
    TimePlus,
    /// time, interval.
    TimeMinus,
    /// time, time.
    TimeDifference,
    /// interval, double precision.
    IntervalMultiply,
    /// interval, double precision.
    IntervalDivide,
}

impl TimeOp {
    pub fn symbol(self) -> &'static str {
        match self {
            TimeOp::DatePlus | TimeOp::DatePlusTime | TimeOp::TimePlus => "+",
            TimeOp::DateMinus
            | TimeOp::DateDifference
            | TimeOp::TimestampDifference
            | TimeOp::TimeMinus
            | TimeOp::TimeDifference => "-",
            TimeOp::IntervalMultiply => "*",
            TimeOp::IntervalDivide => "/",
        }
    }

    fn operands(self) -> [DataType; 2] {
        let interval = DataType::Interval(IntervalUnit::MonthDayNano);
        match self {
            TimeOp::DatePlus | TimeOp::DateMinus => [DataType::Date32, DataType::Int32],
            TimeOp::DateDifference => [DataType::Date32, DataType::Date32],
            TimeOp::DatePlusTime => [DataType::Date32, TIME],
            TimeOp::TimePlus | TimeOp::TimeMinus => [TIME, interval],
            TimeOp::TimeDifference => [TIME, TIME],
            TimeOp::TimestampDifference => {
                let timestamp = DataType::Timestamp(TimeUnit::Microsecond, None);
                [timestamp.clone(), timestamp]
            }
            TimeOp::IntervalMultiply | TimeOp::IntervalDivide => [interval, DataType::Float64],
        }
    }

    fn result(self) -> DataType {
        match self {
            TimeOp::DatePlus | TimeOp::DateMinus => DataType::Date32,
            TimeOp::DateDifference => DataType::Int32,
            TimeOp::DatePlusTime => DataType::Timestamp(TimeUnit::Microsecond, None),
            TimeOp::TimePlus | TimeOp::TimeMinus => TIME,
            TimeOp::TimestampDifference
            | TimeOp::TimeDifference
            | TimeOp::IntervalMultiply
            | TimeOp::IntervalDivide => DataType::Interval(IntervalUnit::MonthDayNano),
        }
    }
}

/// One operator as a function of two arguments.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct TimeArithmetic {
    op: TimeOp,
    signature: Signature,
}

impl TimeArithmetic {
    pub fn op(&self) -> TimeOp {
        self.op
    }
}

/// The operator's function.
pub fn time_arithmetic(op: TimeOp) -> Arc<ScalarUDF> {
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(TimeArithmetic { op, signature }))
}

impl ScalarUDFImpl for TimeArithmetic {
    fn name(&self) -> &str {
        self.op.symbol()
    }

    fn display_name(&self, args: &[Expr]) -> datafusion::common::Result<String> {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        Ok(args.join(&format!(" {} ", self.op.symbol())))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> datafusion::common::Result<Vec<DataType>> {
        let operands = self.op.operands();
        if types.len() != operands.len() {
            return Err(DataFusionError::Internal("an operator takes two operands".to_owned()));
        }
        // Both kinds of timestamp are microseconds: the zone tells nothing of their difference.
        Ok(types
            .iter()
            .zip(operands)
            .map(|(given, wanted)| match given {
                DataType::Timestamp(TimeUnit::Microsecond, _) => given.clone(),
                _ => wanted,
            })
            .collect())
    }

    fn return_type(&self, _types: &[DataType]) -> datafusion::common::Result<DataType> {
        Ok(self.op.result())
    }

    fn return_field_from_args(
        &self,
        args: ReturnFieldArgs,
    ) -> datafusion::common::Result<FieldRef> {
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.op.result(), nullable)))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(
        &self,
        args: ScalarFunctionArgs,
    ) -> datafusion::common::Result<ColumnarValue> {
        let scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { args.number_rows };
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [left, right] = arrays.as_slice() else {
            return Err(DataFusionError::Internal("an operator takes two operands".to_owned()));
        };
        let result = compute(self.op, left, right)
            .map_err(|error| DataFusionError::External(Box::new(error)))?;
        debug_assert_eq!(result.len(), rows);
        if scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

fn compute(op: TimeOp, left: &ArrayRef, right: &ArrayRef) -> Result<ArrayRef> {
    Ok(match op {
        TimeOp::DatePlus => {
            pairs::<Date32Type, Int32Type, Date32Type>(left, right, |date, days| {
                shifted_date(date, date.checked_add(days))
            })?
        }
        TimeOp::DateMinus => {
            pairs::<Date32Type, Int32Type, Date32Type>(left, right, |date, days| {
                shifted_date(date, date.checked_sub(days))
            })?
        }
        TimeOp::DateDifference => {
            pairs::<Date32Type, Date32Type, Int32Type>(left, right, |left, right| {
                if is_infinite_days(left) || is_infinite_days(right) {
                    return Err(infinite_difference("dates"));
                }
                left.checked_sub(right).ok_or_else(date_out_of_range)
            })?
        }
        TimeOp::TimestampDifference => {
            pairs::<TimestampMicrosecondType, TimestampMicrosecondType, IntervalMonthDayNanoType>(
                left, right, difference,
            )?
        }
        TimeOp::DatePlusTime => {
            pairs::<Date32Type, Time64MicrosecondType, TimestampMicrosecondType>(
                left,
                right,
                |date, time| {
                    if is_infinite_days(date) {
                        return Ok(if date > 0 { INFINITY_US } else { i64::MIN });
                    }
                    let midnight = i64::from(date).checked_mul(US_PER_DAY);
                    midnight.and_then(|us| us.checked_add(time)).ok_or_else(date_out_of_range)
                },
            )?
        }
        TimeOp::TimePlus => {
            pairs::<Time64MicrosecondType, IntervalMonthDayNanoType, Time64MicrosecondType>(
                left,
                right,
                |time, interval| Ok(around_midnight(time, interval.nanoseconds / NS_PER_US)),
            )?
        }
        TimeOp::TimeMinus => {
            pairs::<Time64MicrosecondType, IntervalMonthDayNanoType, Time64MicrosecondType>(
                left,
                right,
                |time, interval| Ok(around_midnight(time, -(interval.nanoseconds / NS_PER_US))),
            )?
        }
        TimeOp::TimeDifference => {
            pairs::<Time64MicrosecondType, Time64MicrosecondType, IntervalMonthDayNanoType>(
                left,
                right,
                |left, right| Ok(IntervalMonthDayNano::new(0, 0, (left - right) * NS_PER_US)),
            )?
        }
        TimeOp::IntervalMultiply => {
            pairs::<IntervalMonthDayNanoType, Float64Type, IntervalMonthDayNanoType>(
                left, right, scale,
            )?
        }
        TimeOp::IntervalDivide => pairs::<
            IntervalMonthDayNanoType,
            Float64Type,
            IntervalMonthDayNanoType,
        >(left, right, |interval, divisor| {
            if divisor == 0.0 {
                return Err(Error::user(SqlState::DIVISION_BY_ZERO, "division by zero"));
            }
            scale(interval, 1.0 / divisor)
        })?,
    })
}

fn pairs<L, R, O>(
    left: &ArrayRef,
    right: &ArrayRef,
    op: impl Fn(L::Native, R::Native) -> Result<O::Native>,
) -> Result<ArrayRef>
where
    L: arrow::array::ArrowPrimitiveType,
    R: arrow::array::ArrowPrimitiveType,
    O: arrow::array::ArrowPrimitiveType,
{
    let (left, right) = (left.as_primitive::<L>(), right.as_primitive::<R>());
    let nulls = arrow::buffer::NullBuffer::union(left.nulls(), right.nulls());
    let mut values = Vec::with_capacity(left.len());
    for row in 0..left.len() {
        let valid = nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
        values.push(if valid {
            op(left.value(row), right.value(row))?
        } else {
            O::Native::default()
        });
    }
    Ok(Arc::new(PrimitiveArray::<O>::new(values.into(), nulls)))
}

/// A time of day so much later; months and days of an interval do not move it.
fn around_midnight(time: i64, us: i64) -> i64 {
    (time + us % US_PER_DAY).rem_euclid(US_PER_DAY)
}

/// Whole days, then time: as Postgres, whose result prints `1 day 02:00:00`.
fn difference(left: i64, right: i64) -> Result<IntervalMonthDayNano> {
    if is_infinite_us(left) || is_infinite_us(right) {
        return Err(infinite_difference("timestamps"));
    }
    let us = left.checked_sub(right).ok_or_else(interval_out_of_range)?;
    let days = i32::try_from(us / US_PER_DAY).map_err(|_| interval_out_of_range())?;
    Ok(IntervalMonthDayNano::new(0, days, us % US_PER_DAY * NS_PER_US))
}

/// Parts of months become days of 30 to the month, parts of days become time, rounded as Postgres
/// rounds them.
pub fn scale(interval: IntervalMonthDayNano, factor: f64) -> Result<IntervalMonthDayNano> {
    let (all_months, all_days) =
        (f64::from(interval.months) * factor, f64::from(interval.days) * factor);
    let month_days = round_millionths((all_months - all_months.trunc()) * DAYS_PER_MONTH);
    let part_of_day = all_days - all_days.trunc() + month_days - month_days.trunc();
    let mut seconds = round_millionths(part_of_day * SECONDS_PER_DAY);
    let mut days = all_days.trunc() + month_days.trunc();
    if seconds.abs() >= SECONDS_PER_DAY {
        days += (seconds / SECONDS_PER_DAY).trunc();
        seconds %= SECONDS_PER_DAY;
    }
    let us = (interval.nanoseconds / NS_PER_US) as f64 * factor + seconds * US_PER_SECOND as f64;
    let fits = |value: f64, max: f64| (value.abs() < max).then_some(value);
    let months = fits(all_months, f64::from(i32::MAX)).ok_or_else(interval_out_of_range)?;
    let days = fits(days, f64::from(i32::MAX)).ok_or_else(interval_out_of_range)?;
    let us = fits(us.round(), (i64::MAX / NS_PER_US) as f64).ok_or_else(interval_out_of_range)?;
    Ok(IntervalMonthDayNano::new(months as i32, days as i32, us as i64 * NS_PER_US))
}

fn round_millionths(value: f64) -> f64 {
    (value * 1e6).round_ties_even() / 1e6
}

/// A date so many days on, if it was finite and still is.
fn shifted_date(date: i32, shifted: Option<i32>) -> Result<i32> {
    if is_infinite_days(date) {
        return Ok(date);
    }
    shifted.filter(|date| !is_infinite_days(*date)).ok_or_else(date_out_of_range)
}

fn infinite_difference(what: &str) -> Error {
    Error::user(SqlState::DATETIME_FIELD_OVERFLOW, format!("cannot subtract infinite {what}"))
}

fn date_out_of_range() -> Error {
    Error::user(SqlState::DATETIME_FIELD_OVERFLOW, "date out of range")
}

fn interval_out_of_range() -> Error {
    Error::user(SqlState::DATETIME_FIELD_OVERFLOW, "interval out of range")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NS_PER_HOUR: i64 = 3_600_000_000_000;

    #[test]
    fn differences_are_days_and_time() {
        let hours = |h: i64| h * 3_600_000_000;
        let interval = difference(hours(50), hours(0)).expect("in range");
        assert_eq!((interval.days, interval.nanoseconds), (2, 2 * NS_PER_HOUR));
        let interval = difference(0, hours(50)).expect("in range");
        assert_eq!((interval.days, interval.nanoseconds), (-2, -2 * NS_PER_HOUR));
    }

    #[test]
    fn parts_of_an_interval_become_smaller_ones() {
        // SELECT interval '1 month 1 day 1 hour' * 1.5 is 1 mon 16 days 13:30:00.
        let whole = IntervalMonthDayNano::new(1, 1, NS_PER_HOUR);
        let scaled = scale(whole, 1.5).expect("in range");
        assert_eq!(scaled, IntervalMonthDayNano::new(1, 16, 27 * NS_PER_HOUR / 2));
        // SELECT interval '1 day' / 3 is 08:00:00.
        let third = scale(IntervalMonthDayNano::new(0, 1, 0), 1.0 / 3.0).expect("in range");
        assert_eq!(third, IntervalMonthDayNano::new(0, 0, 8 * NS_PER_HOUR));
    }
}
