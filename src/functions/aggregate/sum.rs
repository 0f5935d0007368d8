//! `sum`.
//!
//! The running sum may leave the range of the result and come back: it is exact in 128 bits for
//! integers and for decimals of up to 19 digits, in 256 bits for longer decimals (both wrap, and a
//! ring forgets that it did), and exact without bound for floats. Only the value at the end of an
//! epoch has to fit the result's type; where it does not, the row is an error 22003.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::datatypes::{
    DataType, Decimal128Type, DurationMicrosecondType, DurationMillisecondType,
    DurationNanosecondType, DurationSecondType, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, TimeUnit, UInt8Type, UInt16Type, UInt32Type, UInt64Type, i256,
};

use crate::functions::aggregate::exact_float::Term;
use crate::functions::aggregate::layout::{Call, Kind, Layout, Placed};
use crate::functions::aggregate::{
    Accumulator, AggregateInfo, ChangedRows, Evaluate, Evaluated, Retraction, Rows, Slots, sum_of,
    words_of,
};
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::SqlType;

pub const SUM: AggregateInfo = AggregateInfo {
    name: "sum",
    signature: "sum(integer | numeric | double precision | interval) -> the same, widened",
    retraction: Retraction::Retractable,
    description: "The sum of the values that are not NULL; NULL when there are none.",
};

/// Digits of a decimal up to which a sum of 2^63 values fits 128 bits.
const NARROW_DECIMAL_DIGITS_MAX: u8 = 19;

/// `sum` of one numeric argument.
pub fn sum(layout: &mut Layout, call: &Call) -> Result<Box<dyn Evaluate>> {
    let argument = call.argument()?;
    let input = layout.input(call, &call.arguments);
    let (kind, scale) = sum_kind(&argument.data_type).ok_or_else(|| call.unsupported())?;
    let result = SumResult::new(call)?;
    let count = layout.count(input)?;
    let index = layout.accumulator(input, kind.clone())?;
    let offset = layout.accumulators[index].offset;
    Ok(match kind {
        Kind::FloatSum(_) => Box::new(FloatSumValue { index, offset, count, result }),
        Kind::WideSum => Box::new(WholeSumValue { wide: true, offset, count, scale, result }),
        _ => Box::new(WholeSumValue { wide: false, offset, count, scale, result }),
    })
}

/// The accumulator that sums a type exactly, and the decimal scale of its sum.
pub(super) fn sum_kind(data_type: &DataType) -> Option<(Kind, i8)> {
    Some(match data_type {
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64
        | DataType::Duration(_) => (Kind::IntegerSum, 0),
        DataType::Decimal128(precision, scale) if *precision <= NARROW_DECIMAL_DIGITS_MAX => {
            (Kind::IntegerSum, *scale)
        }
        DataType::Decimal128(_, scale) => (Kind::WideSum, *scale),
        DataType::Float32 | DataType::Float64 => (Kind::FloatSum(Term::First), 0),
        _ => return None,
    })
}

/// Puts numbers into the type that a call returns.
pub(super) struct SumResult {
    data_type: DataType,
}

impl SumResult {
    pub(super) fn new(call: &Call) -> Result<SumResult> {
        let data_type = call.return_type.clone();
        let known = matches!(
            data_type,
            DataType::Int16
                | DataType::Int32
                | DataType::Int64
                | DataType::UInt64
                | DataType::Float32
                | DataType::Float64
                | DataType::Decimal128(_, _)
                | DataType::Duration(_)
        );
        if !known {
            return Err(call.unsupported());
        }
        Ok(SumResult { data_type })
    }

    fn out_of_range(&self) -> Error {
        let name = SqlType::of_arrow(&self.data_type)
            .map_or_else(|| self.data_type.to_string(), |t| t.to_string());
        Error::user(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("{name} out of range"))
    }

    /// A column of whole numbers, each `value(row) / 10^scale`; NULL where `count` is 0.
    pub(super) fn whole(
        &self,
        rows: &ChangedRows<'_>,
        count: usize,
        scale: i8,
        value: impl Fn(usize) -> i256,
    ) -> Result<Evaluated> {
        match &self.data_type {
            DataType::Int16 => self.integers::<Int16Type>(rows, count, value),
            DataType::Int32 => self.integers::<Int32Type>(rows, count, value),
            DataType::UInt64 => self.integers::<UInt64Type>(rows, count, value),
            DataType::Int64 => self.integers::<Int64Type>(rows, count, value),
            DataType::Duration(_) => {
                let mut evaluated = self.integers::<Int64Type>(rows, count, value)?;
                evaluated.values = arrow::compute::cast(&evaluated.values, &self.data_type)?;
                Ok(evaluated)
            }
            DataType::Decimal128(precision, target) => {
                let limit = power_of_ten(i16::from(*precision))?;
                let factor = power_of_ten(i16::from(*target) - i16::from(scale))?;
                let fit = |value: i256| {
                    let value = value.checked_mul(factor)?;
                    (value < limit && value > limit.wrapping_neg()).then(|| value.as_i128())
                };
                let evaluated = self.checked::<Decimal128Type>(rows, count, |row| fit(value(row)));
                let values = evaluated.values.as_primitive::<Decimal128Type>().clone();
                let values = Arc::new(values.with_data_type(self.data_type.clone()));
                Ok(Evaluated { values, failed: evaluated.failed })
            }
            other => Err(Error::internal(format!("a whole sum is returned as {other}"))),
        }
    }

    fn integers<T: ArrowPrimitiveType>(
        &self,
        rows: &ChangedRows<'_>,
        count: usize,
        value: impl Fn(usize) -> i256,
    ) -> Result<Evaluated>
    where
        T::Native: TryFrom<i128>,
    {
        let fit = |row| value(row).to_i128().and_then(|value| T::Native::try_from(value).ok());
        Ok(self.checked::<T>(rows, count, fit))
    }

    /// A column of `value(row)`; where that is `None`, the row failed.
    fn checked<T: ArrowPrimitiveType>(
        &self,
        rows: &ChangedRows<'_>,
        count: usize,
        value: impl Fn(usize) -> Option<T::Native>,
    ) -> Evaluated {
        let mut failed = Vec::new();
        let values: Vec<T::Native> = (0..rows.len())
            .map(|row| {
                value(row).unwrap_or_else(|| {
                    failed.push((row, self.out_of_range()));
                    T::Native::default()
                })
            })
            .collect();
        let valid = rows.counted(count);
        let values = PrimitiveArray::<T>::new(values.into(), Some(valid));
        Evaluated { values: Arc::new(values), failed }
    }

    /// A column of floats; NULL where `count` is 0.
    pub(super) fn floats(
        &self,
        rows: &ChangedRows<'_>,
        count: usize,
        value: impl Fn(usize) -> f64,
    ) -> Result<Evaluated> {
        let valid = Some(rows.counted(count));
        let values = (0..rows.len()).map(value);
        let values: ArrayRef = match &self.data_type {
            DataType::Float64 => {
                Arc::new(PrimitiveArray::<Float64Type>::new(values.collect(), valid))
            }
            DataType::Float32 => {
                let values = values.map(|v| v as f32).collect();
                Arc::new(PrimitiveArray::<Float32Type>::new(values, valid))
            }
            other => {
                return Err(Error::internal(format!("a sum of floats is returned as {other}")));
            }
        };
        Ok(Evaluated::all(values))
    }

    pub(super) fn is_float(&self) -> bool {
        matches!(self.data_type, DataType::Float32 | DataType::Float64)
    }

    /// The scale of a decimal result; 0 for others.
    pub(super) fn scale(&self) -> i8 {
        if let DataType::Decimal128(_, scale) = self.data_type { scale } else { 0 }
    }
}

/// 10 to the `digits`, which are at least 0 and at most 76.
pub(super) fn power_of_ten(digits: i16) -> Result<i256> {
    u32::try_from(digits)
        .ok()
        .and_then(|digits| i256::from_i128(10).checked_pow(digits))
        .ok_or_else(|| Error::internal(format!("a decimal result loses {} digits", -digits)))
}

struct WholeSumValue {
    wide: bool,
    offset: usize,
    count: usize,
    /// Decimal digits of the sum after the point.
    scale: i8,
    result: SumResult,
}

impl Evaluate for WholeSumValue {
    fn evaluate(&self, rows: &ChangedRows<'_>, _: &[Placed]) -> Result<Evaluated> {
        let (wide, offset) = (self.wide, self.offset);
        if self.result.is_float() {
            let factor = 10f64.powi(i32::from(self.scale));
            let to_float = |row| float_of(whole_sum(rows, row, offset, wide)) / factor;
            return self.result.floats(rows, self.count, to_float);
        }
        let value = |row| whole_sum(rows, row, offset, wide);
        self.result.whole(rows, self.count, self.scale, value)
    }
}

/// The nearest float.
pub(super) fn float_of(value: i256) -> f64 {
    match value.to_i128() {
        Some(value) => value as f64,
        None => {
            let (low, high) = value.to_parts();
            high as f64 * 2f64.powi(128) + low as f64
        }
    }
}

/// The sum of an `IntegerSum` or (`wide`) a `WideSum` at `offset`.
pub(super) fn whole_sum(rows: &ChangedRows<'_>, row: usize, offset: usize, wide: bool) -> i256 {
    if wide {
        wide_sum_of(rows.array::<4>(row, offset))
    } else {
        i256::from_i128(sum_of(rows.array::<2>(row, offset)))
    }
}

struct FloatSumValue {
    index: usize,
    offset: usize,
    count: usize,
    result: SumResult,
}

impl Evaluate for FloatSumValue {
    fn evaluate(&self, rows: &ChangedRows<'_>, accumulators: &[Placed]) -> Result<Evaluated> {
        let sums = accumulators[self.index].accumulator.values(rows, self.offset)?;
        let sums = sums.as_primitive::<Float64Type>().values();
        self.result.floats(rows, self.count, |row| sums[row])
    }
}

/// Sums integers (and decimals, as integers) in two words.
pub struct IntegerSum;

impl Accumulator for IntegerSum {
    fn width_words(&self) -> usize {
        2
    }

    fn fold(&mut self, slots: &mut Slots<'_>, rows: &Rows<'_>) -> Result<()> {
        let column = &rows.arguments[0];
        let add = |group, value: i128, weight: i64| {
            let words = slots.array::<2>(group);
            let change = value.wrapping_mul(i128::from(weight));
            *words = words_of(sum_of(words).wrapping_add(change));
        };
        match column.data_type() {
            DataType::Int8 => add_all::<Int8Type>(rows, add),
            DataType::Int16 => add_all::<Int16Type>(rows, add),
            DataType::Int32 => add_all::<Int32Type>(rows, add),
            DataType::Int64 => add_all::<Int64Type>(rows, add),
            DataType::UInt8 => add_all::<UInt8Type>(rows, add),
            DataType::UInt16 => add_all::<UInt16Type>(rows, add),
            DataType::UInt32 => add_all::<UInt32Type>(rows, add),
            DataType::UInt64 => add_all::<UInt64Type>(rows, add),
            DataType::Decimal128(_, _) => add_all::<Decimal128Type>(rows, add),
            DataType::Duration(TimeUnit::Second) => add_all::<DurationSecondType>(rows, add),
            DataType::Duration(TimeUnit::Millisecond) => {
                add_all::<DurationMillisecondType>(rows, add);
            }
            DataType::Duration(TimeUnit::Microsecond) => {
                add_all::<DurationMicrosecondType>(rows, add);
            }
            DataType::Duration(TimeUnit::Nanosecond) => {
                add_all::<DurationNanosecondType>(rows, add);
            }
            other => return Err(Error::internal(format!("an integer sum over {other}"))),
        }
        Ok(())
    }

    fn merge(&mut self, own: &mut [u64], other: &[u64], _: Option<&[u8]>) -> Result<()> {
        let [own_sum, other_sum] = [&*own, other].map(|w| sum_of(&[w[0], w[1]]));
        own.copy_from_slice(&words_of(own_sum.wrapping_add(other_sum)));
        Ok(())
    }
}

/// Calls `add(group, value, weight)` for each row whose first argument is not NULL.
fn add_all<T: ArrowPrimitiveType>(rows: &Rows<'_>, mut add: impl FnMut(u32, i128, i64))
where
    T::Native: Into<i128>,
{
    let column = rows.arguments[0].as_primitive::<T>();
    let values = column.values();
    rows.for_each(column.nulls(), |group, row, weight| add(group, values[row].into(), weight));
}

/// Sums decimals of many digits in four words.
pub struct WideSum;

impl Accumulator for WideSum {
    fn width_words(&self) -> usize {
        4
    }

    fn fold(&mut self, slots: &mut Slots<'_>, rows: &Rows<'_>) -> Result<()> {
        add_all::<Decimal128Type>(rows, |group, value, weight| {
            let words = slots.array::<4>(group);
            let change = match weight {
                1 => i256::from_i128(value),
                weight => i256::from_i128(value).wrapping_mul(i256::from_i128(i128::from(weight))),
            };
            *words = wide_words_of(wide_sum_of(words).wrapping_add(change));
        });
        Ok(())
    }

    fn merge(&mut self, own: &mut [u64], other: &[u64], _: Option<&[u8]>) -> Result<()> {
        let [own_sum, other_sum] = [&*own, other].map(|w| wide_sum_of(&[w[0], w[1], w[2], w[3]]));
        own.copy_from_slice(&wide_words_of(own_sum.wrapping_add(other_sum)));
        Ok(())
    }
}

fn wide_sum_of(words: &[u64; 4]) -> i256 {
    let low = u128::from(words[1]) << 64 | u128::from(words[0]);
    let high = u128::from(words[3]) << 64 | u128::from(words[2]);
    i256::from_parts(low, high as i128)
}

fn wide_words_of(sum: i256) -> [u64; 4] {
    let (low, high) = sum.to_parts();
    let [a, b] = words_of(low as i128);
    let [c, d] = words_of(high);
    [a, b, c, d]
}
