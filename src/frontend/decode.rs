//! Values of clients, in text and binary format, to Arrow columns.
//!
//! A [`ColumnBuilder`] takes the values of one column one after another: a parameter is a column
//! of one value, COPY fills columns of thousands. What is no value of the type is an error with
//! Postgres's SQLSTATE and text; the builder is of no use after an error.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder,
    FixedSizeBinaryBuilder, Float32Builder, Float64Builder, Int16Builder, Int32Builder,
    Int64Builder, IntervalMonthDayNanoBuilder, ListArray, NullBufferBuilder, StringBuilder,
    StructArray, Time64MicrosecondBuilder, TimestampMicrosecondBuilder, UInt32Builder,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{Fields, IntervalMonthDayNano};
use bytes::BytesMut;

use super::encode::{EPOCH_DAYS, EPOCH_US, Format};
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::SqlType;
use crate::types::text::datetime::{
    DateContext, is_infinite_days, is_infinite_us, parse_date, parse_time, parse_timestamp,
    parse_timestamptz,
};
use crate::types::text::interval::{Interval, IntervalStyle, parse_interval};
use crate::types::text::json::{check_json, write_jsonb};
use crate::types::text::number::{
    numeric_overflow, parse_float4, parse_float8, parse_int2, parse_int4, parse_int8,
    parse_numeric, parse_oid,
};
use crate::types::text::scalar::{parse_boolean, parse_bytea, parse_uuid};

mod literal;

/// What reading a value depends on besides its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    pub dates: DateContext,
    pub interval: IntervalStyle,
}

/// Decodes a parameter (`None` is NULL) to an array of one value.
///
/// # Errors
/// SQLSTATE 22P02, 22P03 and those of the type's own reader.
pub fn decode_parameter(
    bytes: Option<&[u8]>,
    format: Format,
    sql_type: &SqlType,
    context: &Context,
) -> Result<ArrayRef> {
    let mut column = ColumnBuilder::new(sql_type, 1);
    match (bytes, format) {
        (None, _) => column.append_null(),
        (Some(bytes), Format::Text) => column.append_text(utf8(bytes)?, context)?,
        (Some(bytes), Format::Binary) => column.append_binary(bytes)?,
    }
    Ok(column.finish())
}

/// Bytes as text, in the only encoding there is.
///
/// # Errors
/// SQLSTATE 22021, naming the first byte that is wrong.
pub fn utf8(bytes: &[u8]) -> Result<&str> {
    let wrong_at = match std::str::from_utf8(bytes) {
        // Text may hold every character except this one.
        Ok(text) => match memchr::memchr(0, bytes) {
            None => return Ok(text),
            Some(at) => at,
        },
        Err(error) => error.valid_up_to(),
    };
    Err(Error::user(
        SqlState::CHARACTER_NOT_IN_REPERTOIRE,
        format!("invalid byte sequence for encoding \"UTF8\": 0x{:02x}", bytes[wrong_at]),
    ))
}

/// A column that grows value by value.
pub struct ColumnBuilder {
    sql_type: SqlType,
    values: Values,
}

enum Values {
    Boolean(BooleanBuilder),
    Int2(Int16Builder),
    Int4(Int32Builder),
    Int8(Int64Builder),
    Oid(UInt32Builder),
    Float4(Float32Builder),
    Float8(Float64Builder),
    Numeric {
        values: Decimal128Builder,
        precision: u8,
        scale: i8,
    },
    Text(StringBuilder),
    Json(StringBuilder),
    /// The second holds a value while it is rewritten.
    Jsonb(StringBuilder, BytesMut),
    /// The second holds a value while it is read.
    Bytea(BinaryBuilder, Vec<u8>),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Timestamptz(TimestampMicrosecondBuilder),
    Interval(IntervalMonthDayNanoBuilder),
    Uuid(FixedSizeBinaryBuilder),
    Array {
        items: Box<ColumnBuilder>,
        ends: Vec<i32>,
        nulls: NullBufferBuilder,
    },
    Record {
        names: Vec<String>,
        fields: Vec<ColumnBuilder>,
        nulls: NullBufferBuilder,
    },
}

impl ColumnBuilder {
    /// An empty column; `rows` is how many values are expected.
    pub fn new(sql_type: &SqlType, rows: usize) -> ColumnBuilder {
        let text = || StringBuilder::with_capacity(rows, 0);
        let timestamps = || TimestampMicrosecondBuilder::with_capacity(rows);
        let values = match sql_type {
            SqlType::Boolean => Values::Boolean(BooleanBuilder::with_capacity(rows)),
            SqlType::Int2 => Values::Int2(Int16Builder::with_capacity(rows)),
            SqlType::Int4 => Values::Int4(Int32Builder::with_capacity(rows)),
            SqlType::Int8 => Values::Int8(Int64Builder::with_capacity(rows)),
            SqlType::Oid => Values::Oid(UInt32Builder::with_capacity(rows)),
            SqlType::Float4 => Values::Float4(Float32Builder::with_capacity(rows)),
            SqlType::Float8 => Values::Float8(Float64Builder::with_capacity(rows)),
            SqlType::Numeric(precision, scale) => Values::Numeric {
                values: Decimal128Builder::with_capacity(rows).with_data_type(sql_type.to_arrow()),
                precision: *precision,
                scale: *scale,
            },
            SqlType::Text => Values::Text(text()),
            SqlType::Json => Values::Json(text()),
            SqlType::Jsonb => Values::Jsonb(text(), BytesMut::new()),
            SqlType::Bytea => Values::Bytea(BinaryBuilder::with_capacity(rows, 0), Vec::new()),
            SqlType::Date => Values::Date(Date32Builder::with_capacity(rows)),
            SqlType::Time => Values::Time(Time64MicrosecondBuilder::with_capacity(rows)),
            SqlType::Timestamp => Values::Timestamp(timestamps()),
            SqlType::Timestamptz => {
                Values::Timestamptz(timestamps().with_data_type(sql_type.to_arrow()))
            }
            SqlType::Interval => Values::Interval(IntervalMonthDayNanoBuilder::with_capacity(rows)),
            SqlType::Uuid => Values::Uuid(FixedSizeBinaryBuilder::with_capacity(rows, 16)),
            SqlType::Array(item) => Values::Array {
                items: Box::new(ColumnBuilder::new(item, rows)),
                ends: vec![0],
                nulls: NullBufferBuilder::new(rows),
            },
            SqlType::Record(fields) => Values::Record {
                names: fields.iter().map(|(name, _)| name.clone()).collect(),
                fields: fields.iter().map(|(_, t)| ColumnBuilder::new(t, rows)).collect(),
                nulls: NullBufferBuilder::new(rows),
            },
        };
        ColumnBuilder { sql_type: sql_type.clone(), values }
    }

    pub fn append_null(&mut self) {
        match &mut self.values {
            Values::Boolean(values) => values.append_null(),
            Values::Int2(values) => values.append_null(),
            Values::Int4(values) => values.append_null(),
            Values::Int8(values) => values.append_null(),
            Values::Oid(values) => values.append_null(),
            Values::Float4(values) => values.append_null(),
            Values::Float8(values) => values.append_null(),
            Values::Numeric { values, .. } => values.append_null(),
            Values::Text(values) | Values::Json(values) | Values::Jsonb(values, _) => {
                values.append_null();
            }
            Values::Bytea(values, _) => values.append_null(),
            Values::Date(values) => values.append_null(),
            Values::Time(values) => values.append_null(),
            Values::Timestamp(values) | Values::Timestamptz(values) => values.append_null(),
            Values::Interval(values) => values.append_null(),
            Values::Uuid(values) => values.append_null(),
            Values::Array { ends, nulls, .. } => {
                ends.push(*ends.last().expect("begins with one"));
                nulls.append_null();
            }
            Values::Record { fields, nulls, .. } => {
                fields.iter_mut().for_each(ColumnBuilder::append_null);
                nulls.append_null();
            }
        }
    }

    /// Appends a value from its text.
    ///
    /// # Errors
    /// When `text` is no value of this type.
    pub fn append_text(&mut self, text: &str, context: &Context) -> Result<()> {
        match &mut self.values {
            Values::Boolean(values) => values.append_value(parse_boolean(text)?),
            Values::Int2(values) => values.append_value(parse_int2(text)?),
            Values::Int4(values) => values.append_value(parse_int4(text)?),
            Values::Int8(values) => values.append_value(parse_int8(text)?),
            Values::Oid(values) => values.append_value(parse_oid(text)?),
            Values::Float4(values) => values.append_value(parse_float4(text)?),
            Values::Float8(values) => values.append_value(parse_float8(text)?),
            Values::Numeric { values, precision, scale } => {
                values.append_value(parse_numeric(text, *precision, *scale)?);
            }
            Values::Text(values) => append_str(values, text)?,
            Values::Json(values) => {
                check_json(text)?;
                append_str(values, text)?;
            }
            Values::Jsonb(values, scratch) => append_jsonb(values, scratch, text)?,
            Values::Bytea(values, scratch) => {
                scratch.clear();
                parse_bytea(text, scratch)?;
                append_bytes(values, scratch)?;
            }
            Values::Date(values) => values.append_value(parse_date(text, &context.dates)?),
            Values::Time(values) => values.append_value(parse_time(text, &context.dates)?),
            Values::Timestamp(values) => {
                values.append_value(parse_timestamp(text, &context.dates)?);
            }
            Values::Timestamptz(values) => {
                values.append_value(parse_timestamptz(text, &context.dates)?);
            }
            Values::Interval(values) => {
                values.append_value(to_arrow_interval(parse_interval(text, context.interval)?)?);
            }
            Values::Uuid(values) => append_uuid(values, &parse_uuid(text)?),
            Values::Array { items, ends, nulls } => {
                literal::append_array(text, items, context)?;
                ends.push(end_of(items)?);
                nulls.append_non_null();
            }
            Values::Record { fields, nulls, .. } => {
                literal::append_record(text, fields, context)?;
                nulls.append_non_null();
            }
        }
        Ok(())
    }

    /// Appends a column's texts; `None` is NULL.
    ///
    /// # Errors
    /// The place of the first text that is no value of this type, and why.
    pub fn append_texts<'a>(
        &mut self,
        texts: impl Iterator<Item = Option<&'a str>>,
        context: &Context,
    ) -> Result<(), (usize, Error)> {
        for (place, text) in texts.enumerate() {
            match text {
                None => self.append_null(),
                Some(text) => self.append_text(text, context).map_err(|error| (place, error))?,
            }
        }
        Ok(())
    }

    /// Appends a value from its binary format.
    ///
    /// # Errors
    /// When `bytes` are no value of this type.
    pub fn append_binary(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.values {
            Values::Boolean(values) => values.append_value(fixed::<1>(bytes)? != [0]),
            Values::Int2(values) => values.append_value(i16::from_be_bytes(fixed(bytes)?)),
            Values::Int4(values) => values.append_value(i32::from_be_bytes(fixed(bytes)?)),
            Values::Int8(values) => values.append_value(i64::from_be_bytes(fixed(bytes)?)),
            Values::Oid(values) => values.append_value(u32::from_be_bytes(fixed(bytes)?)),
            Values::Float4(values) => values.append_value(f32::from_be_bytes(fixed(bytes)?)),
            Values::Float8(values) => values.append_value(f64::from_be_bytes(fixed(bytes)?)),
            Values::Numeric { values, precision, scale } => {
                values.append_value(numeric_from_binary(bytes, *precision, *scale)?);
            }
            Values::Text(values) => append_str(values, utf8(bytes)?)?,
            Values::Json(values) => {
                let text = utf8(bytes)?;
                check_json(text)?;
                append_str(values, text)?;
            }
            Values::Jsonb(values, scratch) => match bytes {
                [1, text @ ..] => append_jsonb(values, scratch, utf8(text)?)?,
                [version, ..] => {
                    let message = format!("unsupported jsonb version number {version}");
                    return Err(Error::user(SqlState::INVALID_BINARY_REPRESENTATION, message));
                }
                [] => return Err(incorrect_format()),
            },
            Values::Bytea(values, _) => append_bytes(values, bytes)?,
            Values::Date(values) => {
                let days = i32::from_be_bytes(fixed(bytes)?);
                values.append_value(if is_infinite_days(days) {
                    days
                } else {
                    days.checked_add(EPOCH_DAYS).ok_or_else(|| beyond("date"))?
                });
            }
            Values::Time(values) => values.append_value(i64::from_be_bytes(fixed(bytes)?)),
            Values::Timestamp(values) | Values::Timestamptz(values) => {
                let us = i64::from_be_bytes(fixed(bytes)?);
                values.append_value(if is_infinite_us(us) {
                    us
                } else {
                    us.checked_add(EPOCH_US).ok_or_else(|| beyond("timestamp"))?
                });
            }
            Values::Interval(values) => {
                let mut reader = Reader { rest: bytes };
                let interval = Interval {
                    us: i64::from_be_bytes(reader.take()?),
                    days: i32::from_be_bytes(reader.take()?),
                    months: i32::from_be_bytes(reader.take()?),
                };
                reader.finish()?;
                values.append_value(to_arrow_interval(interval)?);
            }
            Values::Uuid(values) => append_uuid(values, &fixed(bytes)?),
            Values::Array { .. } => self.append_binary_array(bytes)?,
            Values::Record { fields, nulls, .. } => {
                append_binary_record(bytes, fields)?;
                nulls.append_non_null();
            }
        }
        Ok(())
    }

    fn append_binary_array(&mut self, bytes: &[u8]) -> Result<()> {
        let mut reader = Reader { rest: bytes };
        let dimension_count = reader.count()?;
        let _has_nulls: [u8; 4] = reader.take()?;
        let item_oid = u32::from_be_bytes(reader.take()?);
        let mut item_type = &self.sql_type;
        let mut depth = 0;
        while let SqlType::Array(item) = item_type {
            item_type = item;
            depth += 1;
        }
        if !is_oid_of(item_oid, item_type) {
            return Err(Error::user(SqlState::DATATYPE_MISMATCH, "wrong element type")
                .detail(format!("The items of {} have another type.", self.sql_type)));
        }
        let mut lengths = Vec::with_capacity(depth);
        for _ in 0..dimension_count {
            // Never more dimensions than the type has, so never much memory.
            if lengths.len() == depth {
                return Err(too_many_dimensions(&self.sql_type));
            }
            lengths.push(reader.count()?);
            let _lower_bound: [u8; 4] = reader.take()?;
        }
        // Any empty dimension makes the whole array empty.
        if lengths.contains(&0) {
            lengths.clear();
        }
        if !lengths.is_empty() && lengths.len() != depth {
            return Err(Error::user(
                SqlState::DATATYPE_MISMATCH,
                format!("an array of {} dimensions is no {}", lengths.len(), self.sql_type),
            ));
        }
        self.append_dimensions(&lengths, &mut reader)?;
        reader.finish()
    }

    /// Appends the items of one array of the dimensions `lengths`; none means empty.
    fn append_dimensions(&mut self, lengths: &[usize], reader: &mut Reader<'_>) -> Result<()> {
        let Values::Array { items, ends, nulls } = &mut self.values else {
            return Err(incorrect_format());
        };
        if let Some((length, inner)) = lengths.split_first() {
            for _ in 0..*length {
                if inner.is_empty() {
                    items.append_sized(reader)?;
                } else {
                    items.append_dimensions(inner, reader)?;
                }
            }
        }
        ends.push(end_of(items)?);
        nulls.append_non_null();
        Ok(())
    }

    /// Appends a value that stands behind its length; -1 is NULL.
    fn append_sized(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        match reader.sized()? {
            None => self.append_null(),
            Some(bytes) => self.append_binary(bytes)?,
        }
        Ok(())
    }

    pub fn len(&self) -> usize {
        match &self.values {
            Values::Boolean(values) => len(values),
            Values::Int2(values) => len(values),
            Values::Int4(values) => len(values),
            Values::Int8(values) => len(values),
            Values::Oid(values) => len(values),
            Values::Float4(values) => len(values),
            Values::Float8(values) => len(values),
            Values::Numeric { values, .. } => len(values),
            Values::Text(values) | Values::Json(values) | Values::Jsonb(values, _) => len(values),
            Values::Bytea(values, _) => len(values),
            Values::Date(values) => len(values),
            Values::Time(values) => len(values),
            Values::Timestamp(values) | Values::Timestamptz(values) => len(values),
            Values::Interval(values) => len(values),
            Values::Uuid(values) => len(values),
            Values::Array { nulls, .. } | Values::Record { nulls, .. } => nulls.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The column; the builder is empty afterwards.
    pub fn finish(&mut self) -> ArrayRef {
        match &mut self.values {
            Values::Boolean(values) => Arc::new(values.finish()),
            Values::Int2(values) => Arc::new(values.finish()),
            Values::Int4(values) => Arc::new(values.finish()),
            Values::Int8(values) => Arc::new(values.finish()),
            Values::Oid(values) => Arc::new(values.finish()),
            Values::Float4(values) => Arc::new(values.finish()),
            Values::Float8(values) => Arc::new(values.finish()),
            Values::Numeric { values, .. } => Arc::new(values.finish()),
            Values::Text(values) | Values::Json(values) | Values::Jsonb(values, _) => {
                Arc::new(values.finish())
            }
            Values::Bytea(values, _) => Arc::new(values.finish()),
            Values::Date(values) => Arc::new(values.finish()),
            Values::Time(values) => Arc::new(values.finish()),
            Values::Timestamp(values) | Values::Timestamptz(values) => Arc::new(values.finish()),
            Values::Interval(values) => Arc::new(values.finish()),
            Values::Uuid(values) => Arc::new(values.finish()),
            Values::Array { items, ends, nulls } => {
                let field = Arc::new(items.sql_type.to_field("item", true));
                let offsets =
                    OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(ends, vec![0])));
                Arc::new(ListArray::new(field, offsets, items.finish(), nulls.finish()))
            }
            Values::Record { names, fields, nulls } => {
                let types: Fields =
                    names.iter().zip(&*fields).map(|(n, f)| f.sql_type.to_field(n, true)).collect();
                let length = nulls.len();
                let columns: Vec<ArrayRef> = fields.iter_mut().map(ColumnBuilder::finish).collect();
                let nulls = nulls.finish();
                Arc::new(
                    StructArray::try_new_with_length(types, columns, nulls, length)
                        .expect("columns of the fields' types and of one length"),
                )
            }
        }
    }
}

fn len(builder: &impl arrow::array::ArrayBuilder) -> usize {
    arrow::array::ArrayBuilder::len(builder)
}

/// Where the last list of items ends.
fn end_of(items: &ColumnBuilder) -> Result<i32> {
    i32::try_from(items.len()).map_err(|_| column_too_large())
}

fn column_too_large() -> Error {
    Error::user(SqlState::PROGRAM_LIMIT_EXCEEDED, "a column of one batch exceeds 2 GiB")
        .hint("Send fewer or smaller values at once.")
}

/// Arrow counts the bytes of a text column in 31 bits; its builder would panic beyond.
fn check_room(used: usize, added: usize) -> Result<()> {
    if used + added > i32::MAX as usize { Err(column_too_large()) } else { Ok(()) }
}

fn append_str(values: &mut StringBuilder, text: &str) -> Result<()> {
    check_room(values.values_slice().len(), text.len())?;
    values.append_value(text);
    Ok(())
}

fn append_bytes(values: &mut BinaryBuilder, bytes: &[u8]) -> Result<()> {
    check_room(values.values_slice().len(), bytes.len())?;
    values.append_value(bytes);
    Ok(())
}

fn append_jsonb(values: &mut StringBuilder, scratch: &mut BytesMut, text: &str) -> Result<()> {
    scratch.clear();
    write_jsonb(text, scratch)?;
    append_str(values, utf8(scratch)?)
}

fn append_uuid(values: &mut FixedSizeBinaryBuilder, bytes: &[u8; 16]) {
    values.append_value(bytes).expect("16 bytes, as the builder was made for");
}

fn to_arrow_interval(interval: Interval) -> Result<IntervalMonthDayNano> {
    let nanos = interval.us.checked_mul(1000).ok_or_else(|| beyond("interval"))?;
    Ok(IntervalMonthDayNano::new(interval.months, interval.days, nanos))
}

fn beyond(type_name: &str) -> Error {
    Error::user(SqlState::DATETIME_FIELD_OVERFLOW, format!("{type_name} out of range"))
}

fn too_many_dimensions(sql_type: &SqlType) -> Error {
    Error::unsupported(format!("a multidimensional value of type {sql_type}"))
        .hint("Declare the column with as many pairs of brackets as the value has dimensions.")
}

fn incorrect_format() -> Error {
    Error::user(SqlState::INVALID_BINARY_REPRESENTATION, "incorrect binary data format")
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| incorrect_format())
}

/// The rest of a binary value.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk().ok_or_else(incorrect_format)?;
        self.rest = rest;
        Ok(*head)
    }

    /// A number of things, which cannot be negative.
    fn count(&mut self) -> Result<usize> {
        usize::try_from(i32::from_be_bytes(self.take()?)).map_err(|_| incorrect_format())
    }

    fn sized(&mut self) -> Result<Option<&'a [u8]>> {
        let length = i32::from_be_bytes(self.take()?);
        if length == -1 {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_| incorrect_format())?;
        let (head, rest) = self.rest.split_at_checked(length).ok_or_else(incorrect_format)?;
        self.rest = rest;
        Ok(Some(head))
    }

    /// Nothing may be left.
    fn finish(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(incorrect_format()) }
    }
}

/// Groups of four digits with the weight of the first; rounded to `scale` as text is.
fn numeric_from_binary(bytes: &[u8], precision: u8, scale: i8) -> Result<i128> {
    let mut reader = Reader { rest: bytes };
    let groups = usize::from(u16::from_be_bytes(reader.take()?));
    let weight = i64::from(i16::from_be_bytes(reader.take()?));
    let sign = u16::from_be_bytes(reader.take()?);
    let _display_scale: [u8; 2] = reader.take()?;
    match sign {
        0 | 0x4000 => {}
        0xc000 | 0xd000 | 0xf000 => return parse_numeric("NaN", precision, scale),
        _ => return Err(incorrect_format()),
    }
    // As text with an exponent: a mantissa of all groups, the last of which counts units of
    // 10000^(weight - groups + 1).
    let mut text = String::with_capacity(4 * groups + 8);
    text.push_str(if sign == 0 { "0" } else { "-0" });
    for _ in 0..groups {
        let group = u16::from_be_bytes(reader.take()?);
        if group > 9999 {
            return Err(incorrect_format());
        }
        text.push_str(&format!("{group:04}"));
    }
    reader.finish()?;
    let exponent = 4 * (weight + 1 - groups as i64);
    parse_numeric(&format!("{text}e{exponent}"), precision, scale)
        .map_err(|_| numeric_overflow(precision, scale))
}

/// Whether `oid` names `sql_type` or a type that is read as it (varchar is text).
fn is_oid_of(oid: u32, sql_type: &SqlType) -> bool {
    oid == sql_type.oid() || SqlType::from_oid(oid).is_some_and(|t| t.oid() == sql_type.oid())
}

fn append_binary_record(bytes: &[u8], fields: &mut [ColumnBuilder]) -> Result<()> {
    let mut reader = Reader { rest: bytes };
    if reader.count()? != fields.len() {
        return Err(Error::user(SqlState::DATATYPE_MISMATCH, "wrong number of columns"));
    }
    for field in fields {
        let oid = u32::from_be_bytes(reader.take()?);
        if !is_oid_of(oid, &field.sql_type) {
            return Err(Error::user(SqlState::DATATYPE_MISMATCH, "wrong data type")
                .detail(format!("A field of type {} was expected.", field.sql_type)));
        }
        field.append_sized(&mut reader)?;
    }
    reader.finish()
}

#[cfg(test)]
mod tests;
