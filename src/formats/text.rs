//! Text to typed columns: one type dispatch and one loop per column, not per value.
//!
//! A value that is not one of the column's type leaves a NULL and marks its row as bad; whoever
//! called takes the row out afterwards. Values are written as Postgres writes them; spaces around
//! them are ignored except in text. Arrays and row types are JSON, or `{...}` for arrays.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryBuilder, BooleanBuilder, FixedSizeBinaryBuilder,
    NullBufferBuilder, PrimitiveArray, StringArray, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, IntervalMonthDayNanoType, IntervalUnit, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType,
};

use crate::formats::cells::{BadRows, Cells};
use crate::formats::json;
use crate::formats::time_text::{parse_date_days, parse_time_us};
use crate::types::error::{Error, Result};
use crate::types::sql_type::SqlType;

pub use crate::formats::time_text::{Bad, parse_timestamp_us};

/// The values as an array of the field's type. NULL in a NOT NULL field makes its row bad.
///
/// # Errors
/// SQLSTATE 0A000 when text cannot be read as this type.
pub fn column(field: &Field, cells: Cells, bad: &mut BadRows) -> Result<ArrayRef> {
    let array = match field.data_type() {
        DataType::Boolean => booleans(field, cells, bad),
        DataType::Int16 => integers::<Int16Type>(field, cells, bad),
        DataType::Int32 => integers::<Int32Type>(field, cells, bad),
        DataType::Int64 => integers::<Int64Type>(field, cells, bad),
        DataType::Float32 => primitives::<Float32Type>(field, cells, bad, |text| {
            // A finite number that only f64 can hold is out of range, not infinite.
            let wide = float(text)?;
            let narrow = wide as f32;
            if wide.is_finite() && narrow.is_infinite() { Err(Bad::Range) } else { Ok(narrow) }
        }),
        DataType::Float64 => primitives::<Float64Type>(field, cells, bad, float),
        DataType::Decimal128(precision, scale) => {
            let (precision, scale) = (*precision, *scale);
            primitives::<Decimal128Type>(field, cells, bad, |text| decimal(text, precision, scale))
        }
        DataType::Date32 => primitives::<Date32Type>(field, cells, bad, parse_date_days),
        DataType::Time64(TimeUnit::Microsecond) => {
            primitives::<Time64MicrosecondType>(field, cells, bad, parse_time_us)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            primitives::<TimestampMicrosecondType>(field, cells, bad, parse_timestamp_us)
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            primitives::<IntervalMonthDayNanoType>(field, cells, bad, |text| {
                let text = std::str::from_utf8(text).map_err(|_| Bad::Syntax)?;
                parse_interval_month_day_nano(text).map_err(|_| Bad::Syntax)
            })
        }
        DataType::Utf8 => strings(field, cells, bad)?,
        DataType::Binary => binaries(field, cells, bad),
        DataType::FixedSizeBinary(16) => uuids(field, cells, bad)?,
        DataType::List(_) | DataType::Struct(_) => json::column_of_text(field, cells, bad)?,
        other => return Err(Error::unsupported(format!("reading {other} from text"))),
    };
    if !field.is_nullable() && array.null_count() > 0 {
        for index in (0..array.len()).filter(|index| array.is_null(*index)) {
            bad.add(cells.row(index), || not_null_message(cells.column));
        }
    }
    Ok(array)
}

/// What is wrong with a row that lacks a value which must be there.
pub fn not_null_message(column: &str) -> String {
    format!("null value in column \"{column}\" violates not-null constraint")
}

/// One value, as an array of length 1, or why it is none.
pub fn single(field: &Field, text: &str) -> Result<Result<ArrayRef, String>> {
    let values = [Some(text.as_bytes())];
    let cells = Cells { values: &values, rows: None, column: field.name() };
    let mut bad = BadRows::default();
    let array = column(field, cells, &mut bad)?;
    Ok(match bad.into_messages().next() {
        Some((_, message)) => Err(message),
        None => Ok(array),
    })
}

fn primitives<T: ArrowPrimitiveType>(
    field: &Field,
    cells: Cells,
    bad: &mut BadRows,
    parse: impl Fn(&[u8]) -> Result<T::Native, Bad>,
) -> ArrayRef {
    let mut values = Vec::with_capacity(cells.len());
    let mut nulls = NullBufferBuilder::new(cells.len());
    for (index, cell) in cells.values.iter().enumerate() {
        match cell.map(&parse) {
            Some(Ok(value)) => {
                values.push(value);
                nulls.append_non_null();
            }
            other => {
                values.push(T::default_value());
                nulls.append_null();
                if let Some(Err(why)) = other {
                    cells.bad_value(bad, index, field, why);
                }
            }
        }
    }
    let array = PrimitiveArray::<T>::new(values.into(), nulls.finish());
    Arc::new(array.with_data_type(field.data_type().clone()))
}

fn integers<T: ArrowPrimitiveType>(field: &Field, cells: Cells, bad: &mut BadRows) -> ArrayRef
where
    T::Native: TryFrom<i64>,
{
    primitives::<T>(field, cells, bad, |text| {
        integer(text).and_then(|value| T::Native::try_from(value).map_err(|_| Bad::Range))
    })
}

/// A whole number. A fraction of zeros is allowed: some writers turn whole numbers with missing
/// values among them into `5.0`.
fn integer(text: &[u8]) -> Result<i64, Bad> {
    let text = text.trim_ascii();
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    // Summed up below zero, where there is one number more.
    let mut value = 0i64;
    for (index, byte) in digits.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return match &digits[index..] {
                [b'.', zeros @ ..] if index > 0 && zeros.iter().all(|b| *b == b'0') => {
                    finish_integer(value, negative)
                }
                _ => Err(Bad::Syntax),
            };
        }
        value = match value.checked_mul(10).and_then(|v| v.checked_sub(i64::from(digit))) {
            Some(value) => value,
            None if digits.iter().all(u8::is_ascii_digit) => return Err(Bad::Range),
            None => return Err(Bad::Syntax),
        };
    }
    if digits.is_empty() { Err(Bad::Syntax) } else { finish_integer(value, negative) }
}

fn finish_integer(below_zero: i64, negative: bool) -> Result<i64, Bad> {
    if negative { Ok(below_zero) } else { below_zero.checked_neg().ok_or(Bad::Range) }
}

/// A floating point number, also `NaN`, `Infinity` and `inf` in any case.
fn float(text: &[u8]) -> Result<f64, Bad> {
    let text = std::str::from_utf8(text.trim_ascii()).map_err(|_| Bad::Syntax)?;
    let value: f64 = text.parse().map_err(|_| Bad::Syntax)?;
    let written_as_number = text.bytes().any(|b| b.is_ascii_digit());
    if value.is_infinite() && written_as_number { Err(Bad::Range) } else { Ok(value) }
}

/// A number of `precision` digits, `scale` of them after the point; further digits are rounded,
/// half away from zero as Postgres does. `1.5e3` is allowed.
fn decimal(text: &[u8], precision: u8, scale: i8) -> Result<i128, Bad> {
    let text = text.trim_ascii();
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let (mantissa, exponent) = match text.iter().position(|b| matches!(b, b'e' | b'E')) {
        Some(at) => (&text[..at], integer(&text[at + 1..])?),
        None => (text, 0),
    };
    let point = mantissa.iter().position(|b| *b == b'.').unwrap_or(mantissa.len());
    let fraction = mantissa.get(point + 1..).unwrap_or_default();
    let digits = || mantissa[..point].iter().chain(fraction);
    if digits().next().is_none() || !digits().all(u8::is_ascii_digit) {
        return Err(Bad::Syntax);
    }
    // Digits that count: all those down to 10^-scale.
    let kept = (point as i64).saturating_add(exponent).saturating_add(i64::from(scale));
    let mut value = 0i128;
    let mut next = digits();
    let mut index = 0;
    while index < kept {
        let digit = match next.next() {
            Some(byte) => i128::from(byte - b'0'),
            // Nothing but zeros follow; a value of 0 stays 0 however many.
            None if value == 0 => break,
            None => 0,
        };
        value = value.checked_mul(10).and_then(|v| v.checked_add(digit)).ok_or(Bad::Range)?;
        index += 1;
    }
    // The first digit that is cut off rounds, if it is right behind the last kept one.
    if kept >= 0 && next.next().is_some_and(|byte| *byte >= b'5') {
        value += 1;
    }
    if value >= 10i128.checked_pow(u32::from(precision)).ok_or(Bad::Range)? {
        return Err(Bad::Range);
    }
    Ok(if negative { -value } else { value })
}

fn booleans(field: &Field, cells: Cells, bad: &mut BadRows) -> ArrayRef {
    let mut builder = BooleanBuilder::with_capacity(cells.len());
    for (index, cell) in cells.values.iter().enumerate() {
        let value = match cell {
            None => None,
            Some(text) => match boolean(text) {
                Some(value) => Some(value),
                None => {
                    cells.bad_value(bad, index, field, Bad::Syntax);
                    None
                }
            },
        };
        builder.append_option(value);
    }
    Arc::new(builder.finish())
}

/// A boolean in one of Postgres's spellings.
fn boolean(text: &[u8]) -> Option<bool> {
    const TRUE: [&[u8]; 6] = [b"t", b"true", b"1", b"y", b"yes", b"on"];
    const FALSE: [&[u8]; 6] = [b"f", b"false", b"0", b"n", b"no", b"off"];
    let text = text.trim_ascii();
    if TRUE.iter().any(|word| text.eq_ignore_ascii_case(word)) {
        Some(true)
    } else if FALSE.iter().any(|word| text.eq_ignore_ascii_case(word)) {
        Some(false)
    } else {
        None
    }
}

/// Text, json and jsonb.
fn strings(field: &Field, cells: Cells, bad: &mut BadRows) -> Result<ArrayRef> {
    let is_json = matches!(SqlType::of_field(field), Some(SqlType::Json | SqlType::Jsonb));
    let bytes: usize = cells.values.iter().flatten().map(|text| text.len()).sum();
    if i32::try_from(bytes).is_err() {
        return Err(Error::internal("a block of text is bounded far below 2 GiB"));
    }
    let mut values = Vec::with_capacity(bytes);
    let mut ends: Vec<i32> = Vec::with_capacity(cells.len() + 1);
    let mut nulls = NullBufferBuilder::new(cells.len());
    ends.push(0);
    for (index, cell) in cells.values.iter().enumerate() {
        let good = cell.filter(|text| !is_json || json::is_valid(text));
        values.extend_from_slice(good.unwrap_or_default());
        ends.push(values.len() as i32);
        nulls.append(good.is_some());
        if good.is_none() && cell.is_some() {
            cells.bad_value(bad, index, field, Bad::Syntax);
        }
    }
    let nulls = nulls.finish();
    // Checked all at once; what is wrong is looked for only when something is.
    if memchr::memchr(0, &values).is_none()
        && let Ok(array) =
            StringArray::try_new(OffsetBuffer::new(ends.into()), values.into(), nulls.clone())
    {
        return Ok(Arc::new(array));
    }
    Ok(Arc::new(checked_strings(cells, nulls, bad)))
}

/// As [`strings`], value by value: Postgres's text holds UTF-8 and no zero byte.
fn checked_strings(cells: Cells, nulls: Option<NullBuffer>, bad: &mut BadRows) -> StringArray {
    let checked = cells.values.iter().enumerate().map(|(index, cell)| {
        let text = cell.filter(|_| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(index)))?;
        match std::str::from_utf8(text) {
            Ok(text) if !text.contains('\0') => Some(text),
            _ => {
                bad.add(cells.row(index), || {
                    format!("column \"{}\": invalid byte sequence for encoding UTF8", cells.column)
                });
                None
            }
        }
    });
    checked.collect()
}

fn binaries(field: &Field, cells: Cells, bad: &mut BadRows) -> ArrayRef {
    let bytes: usize = cells.values.iter().flatten().map(|text| text.len()).sum();
    let mut builder = BinaryBuilder::with_capacity(cells.len(), bytes);
    let mut buffer = Vec::new();
    for (index, cell) in cells.values.iter().enumerate() {
        buffer.clear();
        match cell.map(|text| unescape_bytea(text, &mut buffer)) {
            Some(Some(())) => builder.append_value(&buffer),
            Some(None) => {
                builder.append_null();
                cells.bad_value(bad, index, field, Bad::Syntax);
            }
            None => builder.append_null(),
        }
    }
    Arc::new(builder.finish())
}

/// `\x48656c6c6f`, or plain bytes with `\\` for a backslash and `\ooo` for any byte in octal.
fn unescape_bytea(text: &[u8], bytes: &mut Vec<u8>) -> Option<()> {
    let hex = |digit: u8| char::from(digit).to_digit(16).map(|d| d as u8);
    if let [b'\\', b'x' | b'X', digits @ ..] = text {
        let digits = digits.trim_ascii_end();
        if !digits.len().is_multiple_of(2) {
            return None;
        }
        for pair in digits.chunks_exact(2) {
            bytes.push(hex(pair[0])? << 4 | hex(pair[1])?);
        }
        return Some(());
    }
    let octal = |digit: u8| char::from(digit).to_digit(8);
    let mut rest = text;
    loop {
        rest = match rest {
            [] => return Some(()),
            [b'\\', b'\\', rest @ ..] => {
                bytes.push(b'\\');
                rest
            }
            [b'\\', a, b, c, rest @ ..] => {
                let value = octal(*a)? * 64 + octal(*b)? * 8 + octal(*c)?;
                bytes.push(u8::try_from(value).ok()?);
                rest
            }
            [b'\\', ..] => return None,
            [byte, rest @ ..] => {
                bytes.push(*byte);
                rest
            }
        };
    }
}

fn uuids(field: &Field, cells: Cells, bad: &mut BadRows) -> Result<ArrayRef> {
    let mut builder = FixedSizeBinaryBuilder::with_capacity(cells.len(), 16);
    for (index, cell) in cells.values.iter().enumerate() {
        match cell.map(|text| uuid::Uuid::try_parse_ascii(text.trim_ascii())) {
            Some(Ok(value)) => builder.append_value(value.as_bytes())?,
            Some(Err(_)) => {
                builder.append_null();
                cells.bad_value(bad, index, field, Bad::Syntax);
            }
            None => builder.append_null(),
        }
    }
    Ok(Arc::new(builder.finish()))
}

/// A column of NULLs. Every row is bad when the field is NOT NULL.
pub fn nulls(field: &Field, rows: usize, bad: &mut BadRows) -> ArrayRef {
    if !field.is_nullable() {
        for row in 0..rows as u32 {
            bad.add(row, || not_null_message(field.name()));
        }
    }
    new_null_array(field.data_type(), rows)
}

#[cfg(test)]
mod tests;
