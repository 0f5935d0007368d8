//! Which arguments an aggregate function takes and what it gives, as Postgres has it.
//!
//! | function | argument | result |
//! |---|---|---|
//! | `sum` | smallint, integer | bigint |
//! | | bigint | numeric(38,0) |
//! | | numeric(p,s) | numeric(38,s) |
//! | | real, double precision, interval | the same |
//! | `bit_and`, `bit_or`, `bit_xor` | integers | the same |
//! | `avg` | integers, numeric(p,s) | numeric with at least 16 digits after the point |
//! | | real, double precision | double precision |
//! | `var_*`, `stddev_*`, `covar_*`, `corr`, `regr_*`, `median`, `percentile_cont` | numbers | double precision |
//!
//! The spread of integers and numerics is double precision here where Postgres has numeric.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};

use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::SqlType;

/// Digits after the point of a mean or quotient of numbers that have fewer.
pub const QUOTIENT_SCALE: i8 = 16;
const DECIMAL_DIGITS_MAX: u8 = 38;

/// The types that the arguments of the function `name` become.
///
/// # Errors
/// SQLSTATE 42883 when it takes no such arguments.
pub fn arguments(name: &str, given: &[DataType]) -> Result<Vec<DataType>> {
    let missing = || no_function(name, given);
    let count = match name {
        "sum" | "avg" | "var_samp" | "var_pop" | "stddev_samp" | "stddev_pop" | "median"
        | "mode" | "first_value" | "last_value" | "any_value" | "array_agg" | "bit_and"
        | "bit_or" | "bit_xor" | "bool_and" | "bool_or" => 1,
        _ => 2,
    };
    if given.len() != count {
        return Err(missing());
    }
    let number = |data_type: &DataType| match data_type {
        DataType::Null => Some(DataType::Float64),
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
            Some(DataType::Int64)
        }
        DataType::Int8 => Some(DataType::Int16),
        number if number.is_numeric() => Some(number.clone()),
        _ => None,
    };
    let text = |data_type: &DataType| match data_type {
        DataType::Null => Some(DataType::Utf8),
        text if text.is_string() => Some(DataType::Utf8),
        _ => None,
    };
    let float = |data_type: &DataType| number(data_type).map(|_| DataType::Float64);
    let integer = |data_type: &DataType| match data_type {
        DataType::Null => Some(DataType::Int32),
        other => number(other).filter(DataType::is_integer),
    };
    let any = |data_type: &DataType| match data_type {
        DataType::Null => DataType::Utf8,
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        other => other.clone(),
    };
    let first = match name {
        "sum" | "avg" if matches!(given[0], DataType::Interval(_)) => given[0].clone(),
        "sum" | "avg" => number(&given[0]).ok_or_else(missing)?,
        "bit_and" | "bit_or" | "bit_xor" => integer(&given[0]).ok_or_else(missing)?,
        "median" | "percentile_cont" => float(&given[0]).ok_or_else(missing)?,
        "string_agg" => text(&given[0]).ok_or_else(missing)?,
        "bool_and" | "bool_or" => match given[0] {
            DataType::Null | DataType::Boolean => DataType::Boolean,
            _ => return Err(missing()),
        },
        "percentile_disc" | "mode" | "first_value" | "last_value" | "any_value" | "array_agg" => {
            any(&given[0])
        }
        // Sums of squares are exact for floats of any type; integers and decimals become floats.
        _ => float(&given[0]).ok_or_else(missing)?,
    };
    let mut types = vec![first];
    if let Some(second) = given.get(1) {
        types.push(match name {
            "string_agg" => text(second).ok_or_else(missing)?,
            _ => float(second).ok_or_else(missing)?,
        });
    }
    Ok(types)
}

/// What the function gives for arguments of the types that [`arguments`] gave.
pub fn result(name: &str, arguments: &[FieldRef]) -> FieldRef {
    let Some(first) = arguments.first() else {
        return Arc::new(Field::new(name, DataType::Int64, true));
    };
    let data_type = match name {
        "sum" => sum(first.data_type()),
        "avg" => avg(first.data_type()),
        "regr_count" => DataType::Int64,
        "bit_and" | "bit_or" | "bit_xor" => first.data_type().clone(),
        "string_agg" => DataType::Utf8,
        "array_agg" => {
            let item = first.as_ref().clone().with_name("item").with_nullable(true);
            DataType::List(Arc::new(item))
        }
        "bool_and" | "bool_or" => DataType::Boolean,
        "percentile_disc" | "mode" | "first_value" | "last_value" | "any_value" => {
            return Arc::new(first.as_ref().clone().with_name(name).with_nullable(true));
        }
        _ => DataType::Float64,
    };
    Arc::new(Field::new(name, data_type, true))
}

fn sum(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Int16 | DataType::Int32 => DataType::Int64,
        DataType::Int64 => DataType::Decimal128(DECIMAL_DIGITS_MAX, 0),
        DataType::Decimal128(_, scale) => DataType::Decimal128(DECIMAL_DIGITS_MAX, *scale),
        other => other.clone(),
    }
}

fn avg(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            DataType::Decimal128(DECIMAL_DIGITS_MAX, QUOTIENT_SCALE)
        }
        DataType::Decimal128(_, scale) => {
            DataType::Decimal128(DECIMAL_DIGITS_MAX, QUOTIENT_SCALE.max(*scale))
        }
        interval @ DataType::Interval(_) => interval.clone(),
        _ => DataType::Float64,
    }
}

/// `function sum(text) does not exist`.
fn no_function(name: &str, given: &[DataType]) -> Error {
    let types: Vec<String> = given
        .iter()
        .map(|t| SqlType::of_arrow(t).map_or_else(|| t.to_string(), |t| t.to_string()))
        .collect();
    Error::user(
        SqlState::UNDEFINED_FUNCTION,
        format!("function {name}({}) does not exist", types.join(", ")),
    )
    .hint(
        "No function matches the given name and argument types. You might need to add explicit \
         type casts.",
    )
}
