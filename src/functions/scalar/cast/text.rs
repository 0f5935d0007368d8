//! Casts from and to text, value by value with `types::text`.
//!
//! An array is `{1,NULL,"a b"}`, a row is `(1,"a b",)`; both nest.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryBuilder, BooleanArray,
    FixedSizeBinaryBuilder, PrimitiveArray, StringArray, StringBuilder, StructArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType,
    TimestampMicrosecondType, UInt32Type,
};
use bytes::{BufMut, BytesMut};

use crate::functions::scalar::cast::CastSettings;
use crate::functions::scalar::cast::number::cast_number;
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::{NUMERIC_DEFAULT, SqlType};
use crate::types::text::datetime::{self, DateContext, DateOrder};
use crate::types::text::interval::{Interval, IntervalStyle, parse_interval, write_interval};
use crate::types::text::scalar::{
    ByteaOutput, parse_boolean, parse_bytea, parse_uuid, write_boolean, write_bytea, write_uuid,
};
use crate::types::text::{json, number};

const NS_PER_US: i64 = 1_000;

/// Numbers and booleans that stand alone in documents; null is NULL.
pub fn from_jsonb(array: &ArrayRef, to: &SqlType, settings: &CastSettings) -> Result<ArrayRef> {
    let mut texts = StringBuilder::new();
    for document in array.as_string::<i32>() {
        let Some(document) = document else {
            texts.append_null();
            continue;
        };
        let kind = match json::read_jsonb(document)? {
            json::Node::Word("null") => {
                texts.append_null();
                continue;
            }
            json::Node::Word(word) if *to == SqlType::Boolean => {
                texts.append_value(word);
                continue;
            }
            json::Node::Number(number) if *to != SqlType::Boolean => {
                texts.append_value(number);
                continue;
            }
            json::Node::Word(_) => "boolean",
            json::Node::Number(_) => "numeric",
            json::Node::String(_) => "string",
            json::Node::Array(_) => "array",
            json::Node::Object(_) => "object",
        };
        return Err(Error::user(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("cannot cast jsonb {kind} to type {to}"),
        ));
    }
    let texts: ArrayRef = Arc::new(texts.finish());
    match to {
        SqlType::Int2 | SqlType::Int4 | SqlType::Int8 => {
            let numeric = SqlType::Numeric(NUMERIC_DEFAULT.0, NUMERIC_DEFAULT.1);
            let numbers = from_text(&texts, &numeric, settings)?;
            cast_number(&numbers, &numeric, to)
        }
        to => from_text(&texts, to, settings),
    }
}

/// Reads a column of text.
pub fn from_text(array: &ArrayRef, to: &SqlType, settings: &CastSettings) -> Result<ArrayRef> {
    let text = array.as_string::<i32>();
    let context =
        DateContext { zone: settings.zone, order: DateOrder::Mdy, now_us: settings.now_us };
    Ok(match to {
        SqlType::Boolean => {
            let values = text.iter().map(|t| t.map(parse_boolean).transpose());
            Arc::new(values.collect::<Result<BooleanArray>>()?)
        }
        SqlType::Int2 => Arc::new(parse::<Int16Type>(text, number::parse_int2)?),
        SqlType::Int4 => Arc::new(parse::<Int32Type>(text, number::parse_int4)?),
        SqlType::Int8 => Arc::new(parse::<Int64Type>(text, number::parse_int8)?),
        SqlType::Oid => Arc::new(parse::<UInt32Type>(text, number::parse_oid)?),
        SqlType::Float4 => Arc::new(parse::<Float32Type>(text, number::parse_float4)?),
        SqlType::Float8 => Arc::new(parse::<Float64Type>(text, number::parse_float8)?),
        SqlType::Numeric(precision, scale) => {
            let (precision, scale) = (*precision, *scale);
            let values =
                parse::<Decimal128Type>(text, |t| number::parse_numeric(t, precision, scale))?;
            Arc::new(values.with_precision_and_scale(precision, scale)?)
        }
        SqlType::Text => array.clone(),
        SqlType::Bytea => {
            let mut values = BinaryBuilder::new();
            let mut bytes = vec![];
            for value in text {
                match value {
                    None => values.append_null(),
                    Some(value) => {
                        bytes.clear();
                        parse_bytea(value, &mut bytes)?;
                        values.append_value(&bytes);
                    }
                }
            }
            Arc::new(values.finish())
        }
        SqlType::Date => {
            Arc::new(parse::<Date32Type>(text, |t| datetime::parse_date(t, &context))?)
        }
        SqlType::Time => {
            Arc::new(parse::<Time64MicrosecondType>(text, |t| datetime::parse_time(t, &context))?)
        }
        SqlType::Timestamp => Arc::new(parse::<TimestampMicrosecondType>(text, |t| {
            datetime::parse_timestamp(t, &context)
        })?),
        SqlType::Timestamptz => {
            let values = parse::<TimestampMicrosecondType>(text, |t| {
                datetime::parse_timestamptz(t, &context)
            })?;
            Arc::new(values.with_timezone("UTC"))
        }
        SqlType::Interval => Arc::new(parse::<IntervalMonthDayNanoType>(text, read_interval)?),
        SqlType::Uuid => {
            let mut values = FixedSizeBinaryBuilder::with_capacity(text.len(), 16);
            for value in text {
                match value {
                    None => values.append_null(),
                    Some(value) => values.append_value(parse_uuid(value)?)?,
                }
            }
            Arc::new(values.finish())
        }
        SqlType::Json => {
            text.iter().flatten().try_for_each(json::check_json)?;
            array.clone()
        }
        SqlType::Jsonb => {
            let mut buffer = BytesMut::new();
            strings(text.len(), text.nulls(), |row, out| {
                buffer.clear();
                json::write_jsonb(text.value(row), &mut buffer)?;
                out.extend_from_slice(&buffer);
                Ok(())
            })?
        }
        SqlType::Array(item) => read_arrays(text, item, settings)?,
        SqlType::Record(fields) => read_records(text, fields, settings)?,
    })
}

fn parse<T: ArrowPrimitiveType>(
    text: &StringArray,
    read: impl Fn(&str) -> Result<T::Native>,
) -> Result<PrimitiveArray<T>> {
    let mut values = Vec::with_capacity(text.len());
    for value in text {
        values.push(value.map_or_else(|| Ok(T::Native::default()), &read)?);
    }
    Ok(PrimitiveArray::new(values.into(), text.nulls().cloned()))
}

fn read_interval(text: &str) -> Result<IntervalMonthDayNano> {
    let interval = parse_interval(text, IntervalStyle::Postgres)?;
    let nanoseconds = interval
        .us
        .checked_mul(NS_PER_US)
        .ok_or_else(|| Error::user(SqlState::DATETIME_FIELD_OVERFLOW, "interval out of range"))?;
    Ok(IntervalMonthDayNano::new(interval.months, interval.days, nanoseconds))
}

/// Prints a column.
pub fn to_text(array: &ArrayRef, from: &SqlType, settings: &CastSettings) -> Result<ArrayRef> {
    let writer = ValueWriter::new(array, from, settings)?;
    strings(array.len(), array.nulls(), |row, out| writer.write(row, out))
}

/// A text column, each value written by `write`; NULL where `nulls` says so.
fn strings(
    rows: usize,
    nulls: Option<&NullBuffer>,
    mut write: impl FnMut(usize, &mut BytesMut) -> Result<()>,
) -> Result<ArrayRef> {
    let mut values = StringBuilder::with_capacity(rows, rows * 8);
    let mut buffer = BytesMut::new();
    for row in 0..rows {
        if nulls.is_some_and(|nulls| nulls.is_null(row)) {
            values.append_null();
            continue;
        }
        buffer.clear();
        write(row, &mut buffer)?;
        let text = std::str::from_utf8(&buffer)
            .map_err(|_| Error::internal("a value was printed as something that is no text"))?;
        values.append_value(text);
    }
    Ok(Arc::new(values.finish()))
}

/// Prints values of one column; what is inside arrays and rows has writers of its own.
struct ValueWriter<'a> {
    array: &'a ArrayRef,
    sql_type: &'a SqlType,
    settings: &'a CastSettings,
    /// Of an array's items, or a row's fields.
    inner: Vec<ValueWriter<'a>>,
}

impl<'a> ValueWriter<'a> {
    fn new(
        array: &'a ArrayRef,
        sql_type: &'a SqlType,
        settings: &'a CastSettings,
    ) -> Result<ValueWriter<'a>> {
        let inner = match sql_type {
            SqlType::Array(item) => {
                vec![ValueWriter::new(array.as_list::<i32>().values(), item, settings)?]
            }
            SqlType::Record(fields) => {
                let columns = array.as_struct().columns().iter();
                let inner = columns.zip(fields).map(|(c, (_, t))| ValueWriter::new(c, t, settings));
                inner.collect::<Result<_>>()?
            }
            _ => vec![],
        };
        Ok(ValueWriter { array, sql_type, settings, inner })
    }

    fn write(&self, row: usize, out: &mut BytesMut) -> Result<()> {
        let array = self.array;
        match self.sql_type {
            // As a cast prints it; on the wire it is t or f.
            SqlType::Boolean => {
                out.put_slice(if array.as_boolean().value(row) { b"true" } else { b"false" });
            }
            SqlType::Int2 => {
                number::write_integer(i64::from(array.as_primitive::<Int16Type>().value(row)), out);
            }
            SqlType::Int4 => {
                number::write_integer(i64::from(array.as_primitive::<Int32Type>().value(row)), out);
            }
            SqlType::Int8 => {
                number::write_integer(array.as_primitive::<Int64Type>().value(row), out)
            }
            SqlType::Oid => {
                let oid = array.as_primitive::<UInt32Type>().value(row);
                number::write_integer(i64::from(oid), out);
            }
            SqlType::Float4 => {
                number::write_float4(array.as_primitive::<Float32Type>().value(row), out);
            }
            SqlType::Float8 => {
                number::write_float8(array.as_primitive::<Float64Type>().value(row), out);
            }
            SqlType::Numeric(precision, scale) => {
                let value = array.as_primitive::<Decimal128Type>().value(row);
                // Without a declared scale, only the digits that there are.
                let (value, scale) = if (*precision, *scale) == NUMERIC_DEFAULT {
                    number::trim_numeric(value, *scale)
                } else {
                    (value, *scale)
                };
                number::write_numeric(value, scale, out);
            }
            SqlType::Text | SqlType::Json | SqlType::Jsonb => {
                out.put_slice(array.as_string::<i32>().value(row).as_bytes());
            }
            SqlType::Bytea => {
                write_bytea(array.as_binary::<i32>().value(row), ByteaOutput::Hex, out);
            }
            SqlType::Date => {
                datetime::write_date(array.as_primitive::<Date32Type>().value(row), out)
            }
            SqlType::Time => {
                datetime::write_time(array.as_primitive::<Time64MicrosecondType>().value(row), out);
            }
            SqlType::Timestamp => {
                let us = array.as_primitive::<TimestampMicrosecondType>().value(row);
                datetime::write_timestamp(us, out);
            }
            SqlType::Timestamptz => {
                let us = array.as_primitive::<TimestampMicrosecondType>().value(row);
                datetime::write_timestamptz(us, self.settings.zone, out);
            }
            SqlType::Interval => {
                let value = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
                let us = value.nanoseconds / NS_PER_US;
                let interval = Interval { months: value.months, days: value.days, us };
                write_interval(interval, IntervalStyle::Postgres, out);
            }
            SqlType::Uuid => write_uuid(array.as_fixed_size_binary().value(row), out),
            SqlType::Array(_) => self.write_array(row, out)?,
            SqlType::Record(_) => self.write_record(row, out)?,
        }
        Ok(())
    }

    /// Booleans are `t` and `f` inside arrays and rows.
    fn write_inner(&self, row: usize, out: &mut BytesMut) -> Result<()> {
        match self.sql_type {
            SqlType::Boolean => {
                write_boolean(self.array.as_boolean().value(row), out);
                Ok(())
            }
            _ => self.write(row, out),
        }
    }

    fn write_array(&self, row: usize, out: &mut BytesMut) -> Result<()> {
        let list = self.array.as_list::<i32>();
        let [items] = self.inner.as_slice() else {
            return Err(Error::internal("an array has items"));
        };
        let (from, to) =
            (list.value_offsets()[row] as usize, list.value_offsets()[row + 1] as usize);
        let mut buffer = BytesMut::new();
        out.put_u8(b'{');
        for item in from..to {
            if item > from {
                out.put_u8(b',');
            }
            if items.array.is_null(item) {
                out.put_slice(b"NULL");
                continue;
            }
            buffer.clear();
            items.write_inner(item, &mut buffer)?;
            let nested = matches!(items.sql_type, SqlType::Array(_));
            put_quoted(&buffer, !nested && needs_quotes_in_array(&buffer), b'\\', out);
        }
        out.put_u8(b'}');
        Ok(())
    }

    fn write_record(&self, row: usize, out: &mut BytesMut) -> Result<()> {
        let mut buffer = BytesMut::new();
        out.put_u8(b'(');
        for (index, field) in self.inner.iter().enumerate() {
            if index > 0 {
                out.put_u8(b',');
            }
            if field.array.is_null(row) {
                continue;
            }
            buffer.clear();
            field.write_inner(row, &mut buffer)?;
            put_quoted(&buffer, needs_quotes_in_record(&buffer), b'"', out);
        }
        out.put_u8(b')');
        Ok(())
    }
}

fn needs_quotes_in_array(text: &[u8]) -> bool {
    text.is_empty()
        || text.eq_ignore_ascii_case(b"null")
        || text
            .iter()
            .any(|b| matches!(b, b'{' | b'}' | b',' | b'"' | b'\\') || b.is_ascii_whitespace())
}

fn needs_quotes_in_record(text: &[u8]) -> bool {
    text.is_empty()
        || text
            .iter()
            .any(|b| matches!(b, b'(' | b')' | b',' | b'"' | b'\\') || b.is_ascii_whitespace())
}

/// The text, in quotes with `escape` before quotes (a backslash is always doubled).
fn put_quoted(text: &[u8], quotes: bool, escape: u8, out: &mut BytesMut) {
    if !quotes {
        out.put_slice(text);
        return;
    }
    out.put_u8(b'"');
    for byte in text {
        match byte {
            b'"' => out.put_u8(escape),
            b'\\' => out.put_u8(b'\\'),
            _ => {}
        }
        out.put_u8(*byte);
    }
    out.put_u8(b'"');
}

/// Items of `{...}`, each a text or NULL.
fn read_arrays(text: &StringArray, item: &SqlType, settings: &CastSettings) -> Result<ArrayRef> {
    let mut items: Vec<Option<String>> = vec![];
    let mut lengths = Vec::with_capacity(text.len());
    for value in text {
        let before = items.len();
        if let Some(value) = value {
            split_array(value, &mut items)?;
        }
        lengths.push(items.len() - before);
    }
    let items: ArrayRef = Arc::new(StringArray::from(items));
    let items = from_text(&items, item, settings)?;
    let field = Arc::new(item.to_field("item", true));
    let offsets = arrow::buffer::OffsetBuffer::from_lengths(lengths);
    let list = arrow::array::ListArray::try_new(field, offsets, items, text.nulls().cloned())?;
    Ok(Arc::new(list))
}

fn malformed(what: &str, text: &str) -> Error {
    Error::user(
        SqlState::INVALID_TEXT_REPRESENTATION,
        format!("malformed {what} literal: \"{text}\""),
    )
}

/// Adds the items of an array's text. An item that is an array is left as its text.
fn split_array(text: &str, items: &mut Vec<Option<String>>) -> Result<()> {
    let error = || malformed("array", text);
    let inner =
        text.trim().strip_prefix('{').and_then(|t| t.strip_suffix('}')).ok_or_else(error)?;
    if inner.trim().is_empty() {
        return Ok(());
    }
    let mut chars = inner.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let mut item = String::new();
        let mut quoted = false;
        match chars.peek() {
            Some('"') => {
                quoted = true;
                chars.next();
                loop {
                    match chars.next().ok_or_else(error)? {
                        '"' => break,
                        '\\' => item.push(chars.next().ok_or_else(error)?),
                        c => item.push(c),
                    }
                }
                while chars.next_if(|c| c.is_whitespace()).is_some() {}
            }
            Some('{') => {
                let (mut depth, mut in_quotes) = (0, false);
                for c in chars.by_ref() {
                    item.push(c);
                    match c {
                        '"' => in_quotes = !in_quotes,
                        '{' if !in_quotes => depth += 1,
                        '}' if !in_quotes => depth -= 1,
                        _ => {}
                    }
                    if depth == 0 {
                        break;
                    }
                }
                if depth != 0 {
                    return Err(error());
                }
                quoted = true;
            }
            _ => {
                while let Some(c) = chars.next_if(|c| *c != ',') {
                    match c {
                        '{' | '}' | '"' => return Err(error()),
                        '\\' => item.push(chars.next().ok_or_else(error)?),
                        c => item.push(c),
                    }
                }
                item.truncate(item.trim_end().len());
                if item.is_empty() {
                    return Err(error());
                }
            }
        }
        let null = !quoted && item.eq_ignore_ascii_case("null");
        items.push((!null).then_some(item));
        match chars.next() {
            None => return Ok(()),
            Some(',') => {}
            Some(_) => return Err(error()),
        }
    }
}

fn read_records(
    text: &StringArray,
    fields: &[(String, SqlType)],
    settings: &CastSettings,
) -> Result<ArrayRef> {
    let mut columns: Vec<Vec<Option<String>>> = vec![Vec::with_capacity(text.len()); fields.len()];
    for value in text {
        let parts = match value {
            Some(value) => split_record(value)?,
            None => vec![None; fields.len()],
        };
        if parts.len() != fields.len() {
            let error = malformed("record", value.unwrap_or_default());
            let many =
                if parts.len() > fields.len() { "Too many columns." } else { "Too few columns." };
            return Err(error.detail(many));
        }
        for (column, part) in columns.iter_mut().zip(parts) {
            column.push(part);
        }
    }
    let columns = columns
        .into_iter()
        .zip(fields)
        .map(|(column, (_, sql_type))| {
            let column: ArrayRef = Arc::new(StringArray::from(column));
            from_text(&column, sql_type, settings)
        })
        .collect::<Result<Vec<_>>>()?;
    let fields = fields.iter().map(|(name, sql_type)| sql_type.to_field(name, true)).collect();
    Ok(Arc::new(StructArray::try_new(fields, columns, text.nulls().cloned())?))
}

/// The fields of a row's text; nothing between commas is NULL.
fn split_record(text: &str) -> Result<Vec<Option<String>>> {
    let error = || malformed("record", text);
    let inner =
        text.trim().strip_prefix('(').and_then(|t| t.strip_suffix(')')).ok_or_else(error)?;
    let mut parts = vec![];
    let mut chars = inner.chars().peekable();
    loop {
        let mut part = String::new();
        let mut empty = true;
        while let Some(c) = chars.next_if(|c| *c != ',') {
            empty = false;
            match c {
                '\\' => part.push(chars.next().ok_or_else(error)?),
                '"' => loop {
                    match chars.next().ok_or_else(error)? {
                        '"' if chars.next_if_eq(&'"').is_some() => part.push('"'),
                        '"' => break,
                        '\\' => part.push(chars.next().ok_or_else(error)?),
                        c => part.push(c),
                    }
                },
                '(' | ')' => return Err(error()),
                c => part.push(c),
            }
        }
        parts.push((!empty).then_some(part));
        if chars.next().is_none() {
            return Ok(parts);
        }
    }
}
