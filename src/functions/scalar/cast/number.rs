//! Casts between numbers: what does not fit is an error, halves round as in Postgres (floats to
//! even, numeric away from zero).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{
    DataType, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
};

use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::SqlType;
use crate::types::text::number::numeric_overflow;

/// Casts a column of numbers to another number type.
pub fn cast_number(array: &ArrayRef, from: &SqlType, to: &SqlType) -> Result<ArrayRef> {
    match (from, to) {
        (SqlType::Float4 | SqlType::Float8, SqlType::Int2 | SqlType::Int4 | SqlType::Int8) => {
            round_floats(array, to)
        }
        (SqlType::Numeric(_, _), SqlType::Int2 | SqlType::Int4 | SqlType::Int8) => {
            // Away from zero, as Arrow rounds when it drops digits.
            let whole = cast_checked(array, &DataType::Decimal128(38, 0), to)?;
            cast_checked(&whole, &to.to_arrow(), to)
        }
        (SqlType::Float8, SqlType::Float4) => narrow_floats(array),
        (SqlType::Float4 | SqlType::Float8, SqlType::Numeric(precision, scale)) => {
            floats_to_numeric(array, *precision, *scale)
        }
        _ => cast_checked(array, &to.to_arrow(), to),
    }
}

/// Arrow's cast, with Postgres's error for a value that does not fit.
fn cast_checked(array: &ArrayRef, target: &DataType, to: &SqlType) -> Result<ArrayRef> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, target, &options).map_err(|_| out_of_range(to))
}

fn out_of_range(to: &SqlType) -> Error {
    match to {
        SqlType::Numeric(precision, scale) => numeric_overflow(*precision, *scale),
        to => Error::user(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("{to} out of range")),
    }
}

fn round_floats(array: &ArrayRef, to: &SqlType) -> Result<ArrayRef> {
    let floats = cast(array, &DataType::Float64)?;
    let floats = floats.as_primitive::<Float64Type>();
    match to {
        SqlType::Int2 => round_to::<Int16Type>(floats, f64::from(i16::MIN), to, |v| v as i16),
        SqlType::Int4 => round_to::<Int32Type>(floats, f64::from(i32::MIN), to, |v| v as i32),
        _ => round_to::<Int64Type>(floats, i64::MIN as f64, to, |v| v as i64),
    }
}

/// `least` is the type's least value, a power of two and so exact; its negation is the first value
/// too large.
fn round_to<T: ArrowPrimitiveType>(
    floats: &PrimitiveArray<Float64Type>,
    least: f64,
    to: &SqlType,
    narrow: impl Fn(f64) -> T::Native,
) -> Result<ArrayRef> {
    let rounded = floats.try_unary::<_, T, Error>(|value| {
        let rounded = value.round_ties_even();
        // False for NaN.
        if rounded >= least && rounded < -least {
            Ok(narrow(rounded))
        } else {
            Err(out_of_range(to))
        }
    })?;
    Ok(Arc::new(rounded))
}

fn narrow_floats(array: &ArrayRef) -> Result<ArrayRef> {
    let narrowed = array.as_primitive::<Float64Type>().try_unary::<_, Float32Type, Error>(|v| {
        let narrow = v as f32;
        if v.is_finite() && narrow.is_infinite() {
            return Err(Error::user(
                SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
                "value out of range: overflow",
            ));
        }
        if v != 0.0 && narrow == 0.0 {
            return Err(Error::user(
                SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
                "value out of range: underflow",
            ));
        }
        Ok(narrow)
    })?;
    Ok(Arc::new(narrowed))
}

/// The decimal digits that a float prints with are those that it has, as in Postgres: 0.1 is 0.1.
fn floats_to_numeric(array: &ArrayRef, precision: u8, scale: i8) -> Result<ArrayRef> {
    let overflow = || numeric_overflow(precision, scale);
    let convert = |value: f64, text: String| -> Result<i128> {
        if !value.is_finite() {
            let name = if value.is_nan() { "NaN" } else { "infinity" };
            return Err(Error::user(
                SqlState::FEATURE_NOT_SUPPORTED,
                format!("cannot convert {name} to numeric"),
            ));
        }
        crate::types::text::number::parse_numeric(&text, precision, scale).map_err(|_| overflow())
    };
    let nulls = array.nulls().cloned();
    let mut values = Vec::with_capacity(array.len());
    for row in 0..array.len() {
        if array.is_null(row) {
            values.push(0);
            continue;
        }
        values.push(match array.data_type() {
            DataType::Float32 => {
                let value = array.as_primitive::<Float32Type>().value(row);
                convert(f64::from(value), format!("{value:e}"))?
            }
            _ => {
                let value = array.as_primitive::<Float64Type>().value(row);
                convert(value, format!("{value:e}"))?
            }
        });
    }
    let numeric = PrimitiveArray::<Decimal128Type>::new(values.into(), nulls);
    Ok(Arc::new(numeric.with_precision_and_scale(precision, scale)?))
}
