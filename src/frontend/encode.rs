//! Arrow columns to rows on the wire.
//!
//! 1. A batch's columns are prepared once: types are resolved, and what has no form of its own on
//!    the wire (dictionaries, unsigned integers, other units of time) is converted, whole columns
//!    at a time.
//! 2. Rows are then written one after another, each value straight into the output buffer, its
//!    length filled in behind it. No value is allocated or copied twice, except one that has to be
//!    quoted inside an array or a row.
//!
//! Nothing is kept between batches.

use std::ops::Range;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BinaryViewArray,
    FixedSizeBinaryArray, LargeBinaryArray, LargeStringArray, PrimitiveArray, RecordBatch,
    StringArray, StringViewArray,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, IntervalDayTimeType, IntervalMonthDayNanoType, IntervalUnit, IntervalYearMonthType,
    Schema, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, UInt32Type,
};
use bytes::{BufMut, BytesMut};
use pgwire::messages::data::{FieldDescription, RowDescription};

use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::{Modifier, NUMERIC_DEFAULT, SqlType, field_oid};
use crate::types::text::datetime::{
    US_PER_DAY, is_infinite_days, is_infinite_us, write_date, write_time, write_timestamp,
    write_timestamptz,
};
use crate::types::text::interval::{Interval, IntervalStyle, write_interval};
use crate::types::text::number::{
    trim_numeric, write_float_rounded, write_float4, write_float8, write_integer, write_numeric,
};
use crate::types::text::scalar::{ByteaOutput, write_boolean, write_bytea, write_uuid};
use crate::types::text::zone::Zone;

/// Days and microseconds from Arrow's epoch (1970) to Postgres's (2000).
pub(super) const EPOCH_DAYS: i32 = 10_957;
pub(super) const EPOCH_US: i64 = EPOCH_DAYS as i64 * US_PER_DAY;

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Binary,
}

/// The settings that decide how values look in text format.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    pub zone: Zone,
    pub interval: IntervalStyle,
    pub bytea: ByteaOutput,
    /// Above 0 floats print exactly; otherwise with this many digits more than they surely have,
    /// which is fewer: the setting of the same name.
    pub extra_float_digits: i32,
}

impl Default for Style {
    fn default() -> Style {
        Style {
            zone: Zone::UTC,
            interval: IntervalStyle::Postgres,
            bytea: ByteaOutput::Hex,
            extra_float_digits: 1,
        }
    }
}

/// Describes the columns of a result; `formats` has one for each.
///
/// # Errors
/// SQLSTATE 0A000 for a column whose type no SQL type stands for.
pub fn describe(schema: &Schema, formats: &[Format]) -> Result<RowDescription> {
    assert_eq!(schema.fields().len(), formats.len(), "one format for each column");
    let fields = schema.fields().iter().zip(formats).map(|(field, format)| {
        let sql_type = type_of(field)?;
        Ok(FieldDescription::new(
            field.name().clone(),
            0,
            0,
            field_oid(field).unwrap_or(sql_type.oid()),
            type_size(&sql_type),
            type_modifier(field, &sql_type),
            i16::from(*format == Format::Binary),
        ))
    });
    Ok(RowDescription::new(fields.collect::<Result<_>>()?))
}

/// The SQL type of a column.
pub(super) fn type_of(field: &Field) -> Result<SqlType> {
    SqlType::of_field(field).ok_or_else(|| {
        Error::unsupported(format!("column \"{}\" of type {}", field.name(), field.data_type()))
            .hint("Cast it to a type that SQL has.")
    })
}

/// Bytes of a type's values in Postgres's own storage; -1 when they vary.
fn type_size(sql_type: &SqlType) -> i16 {
    match sql_type {
        SqlType::Boolean => 1,
        SqlType::Int2 => 2,
        SqlType::Int4 | SqlType::Oid | SqlType::Float4 | SqlType::Date => 4,
        SqlType::Int8
        | SqlType::Float8
        | SqlType::Time
        | SqlType::Timestamp
        | SqlType::Timestamptz => 8,
        SqlType::Interval | SqlType::Uuid => 16,
        _ => -1,
    }
}

/// Precision and scale as Postgres packs them, or a column's modifier; -1 without.
fn type_modifier(field: &Field, sql_type: &SqlType) -> i32 {
    let number = Modifier::of_field(field).and_then(|m| i32::try_from(m.number()).ok());
    number.unwrap_or_else(|| numeric_modifier(sql_type))
}

fn numeric_modifier(sql_type: &SqlType) -> i32 {
    match sql_type {
        SqlType::Numeric(p, s) if (*p, *s) != NUMERIC_DEFAULT => {
            (i32::from(*p) << 16 | i32::from(*s) & 0x7ff) + 4
        }
        SqlType::Array(item) => numeric_modifier(item),
        _ => -1,
    }
}

/// Writes all rows of `batch` as DataRow messages; `formats` has one for each column.
///
/// # Errors
/// When a value has no form in its format; then nothing has been written.
pub fn encode_batch(
    batch: &RecordBatch,
    formats: &[Format],
    style: &Style,
    out: &mut BytesMut,
) -> Result<()> {
    let mark = out.len();
    let written = BatchEncoder::new(batch, formats, *style)?.encode_rows(0..batch.num_rows(), out);
    if written.is_err() {
        out.truncate(mark);
    }
    written
}

/// A batch ready to be written row by row.
pub struct BatchEncoder {
    columns: Vec<(Format, Column)>,
    /// The rows that have not been written by [`BatchEncoder::encode_some`].
    left: Range<usize>,
    style: Style,
    /// Holds a value while it is quoted; empty otherwise.
    scratch: BytesMut,
}

impl BatchEncoder {
    /// Prepares the columns of `batch`; `formats` has one for each.
    ///
    /// # Errors
    /// When a column cannot be converted to its SQL type.
    pub fn new(batch: &RecordBatch, formats: &[Format], style: Style) -> Result<BatchEncoder> {
        assert_eq!(batch.num_columns(), formats.len(), "one format for each column");
        let columns = batch
            .schema_ref()
            .fields()
            .iter()
            .zip(batch.columns())
            .zip(formats)
            .map(|((field, array), format)| Ok((*format, Column::new(field, array)?)))
            .collect::<Result<_>>()?;
        Ok(BatchEncoder { columns, left: 0..batch.num_rows(), style, scratch: BytesMut::new() })
    }

    /// Writes the next rows: up to `rows_max`, and no more once `out` holds `bytes_max` bytes.
    /// Returns how many.
    ///
    /// # Errors
    /// As [`BatchEncoder::encode_rows`].
    pub fn encode_some(
        &mut self,
        rows_max: usize,
        bytes_max: usize,
        out: &mut BytesMut,
    ) -> Result<usize> {
        let start = self.left.start;
        while self.left.start - start < rows_max
            && out.len() < bytes_max
            && let Some(row) = self.left.next()
        {
            self.encode_rows(row..row + 1, out)?;
        }
        Ok(self.left.start - start)
    }

    /// Passes over up to `rows_max` rows; returns how many.
    pub fn skip(&mut self, rows_max: usize) -> usize {
        let skipped = rows_max.min(self.left.len());
        self.left.start += skipped;
        skipped
    }

    /// The next row that has not been taken yet.
    pub(super) fn take_row(&mut self) -> Option<usize> {
        self.left.next()
    }

    /// Whether all rows have been taken.
    pub fn is_done(&self) -> bool {
        self.left.is_empty()
    }

    /// Writes `rows` as DataRow messages.
    ///
    /// # Errors
    /// When a value has no form in its format. The rows before it are in `out`, and nothing of its
    /// own.
    pub fn encode_rows(&mut self, rows: Range<usize>, out: &mut BytesMut) -> Result<()> {
        let count = i16::try_from(self.columns.len()).map_err(|_| {
            Error::user(SqlState::PROGRAM_LIMIT_EXCEEDED, "a row has at most 32767 columns")
        })?;
        for row in rows {
            let start = out.len();
            out.put_slice(&[b'D', 0, 0, 0, 0]);
            out.put_i16(count);
            if let Err(error) = self.encode_values(row, out) {
                out.truncate(start);
                return Err(error);
            }
            // The type byte is not counted, the length itself is.
            patch_length(out, start + 1, start + 1)?;
        }
        Ok(())
    }

    fn encode_values(&mut self, row: usize, out: &mut BytesMut) -> Result<()> {
        for (format, column) in &self.columns {
            column.write_sized(row, *format, &self.style, &mut self.scratch, out)?;
        }
        Ok(())
    }

    /// Writes one value as text, for COPY; false when it is NULL.
    pub(super) fn write_text(&mut self, column: usize, row: usize, out: &mut BytesMut) -> bool {
        let column = &self.columns[column].1;
        if column.is_null(row) {
            return false;
        }
        column.write_text(row, &self.style, &mut self.scratch, out);
        true
    }

    pub(super) fn column_count(&self) -> usize {
        self.columns.len()
    }
}

/// Fills in the length at `at` of what begins at `from` and ends here.
fn patch_length(out: &mut BytesMut, at: usize, from: usize) -> Result<()> {
    let length = i32::try_from(out.len() - from).map_err(|_| {
        Error::user(SqlState::PROGRAM_LIMIT_EXCEEDED, "a row does not fit in one message")
            .detail("Messages are at most 2 GiB long.")
    })?;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// Where a list's items stand in its child.
enum Offsets {
    Small(OffsetBuffer<i32>),
    Large(OffsetBuffer<i64>),
    /// Each row has this many.
    Fixed(usize),
}

impl Offsets {
    fn range(&self, row: usize) -> Range<usize> {
        match self {
            Offsets::Small(offsets) => offsets[row] as usize..offsets[row + 1] as usize,
            Offsets::Large(offsets) => offsets[row] as usize..offsets[row + 1] as usize,
            Offsets::Fixed(size) => row * size..(row + 1) * size,
        }
    }
}

/// A column's values in the form they are written from.
enum Values {
    /// Every row is NULL.
    Null,
    Boolean(BooleanBuffer),
    Int2(ScalarBuffer<i16>),
    Int4(ScalarBuffer<i32>),
    Int8(ScalarBuffer<i64>),
    Oid(ScalarBuffer<u32>),
    Float4(ScalarBuffer<f32>),
    Float8(ScalarBuffer<f64>),
    Numeric {
        values: ScalarBuffer<i128>,
        scale: i8,
        /// The column has no scale of its own: zeros at the end are not shown.
        trim: bool,
    },
    Text(StringArray),
    LargeText(LargeStringArray),
    TextView(StringViewArray),
    Bytea(BinaryArray),
    LargeBytea(LargeBinaryArray),
    ByteaView(BinaryViewArray),
    FixedBytea(FixedSizeBinaryArray),
    Uuid(FixedSizeBinaryArray),
    /// Days since 1970.
    Date(ScalarBuffer<i32>),
    /// Microseconds since midnight.
    Time(ScalarBuffer<i64>),
    /// Microseconds since 1970.
    Timestamp(ScalarBuffer<i64>),
    Timestamptz(ScalarBuffer<i64>),
    Interval(Vec<Interval>),
    List {
        offsets: Offsets,
        items: Box<Column>,
    },
    Record(Vec<Column>),
}

/// A column ready to be written.
struct Column {
    sql_type: SqlType,
    values: Values,
    nulls: Option<NullBuffer>,
    /// Characters up to which values are filled with blanks: those of `char(n)`.
    chars_min: usize,
}

impl Column {
    fn new(field: &Field, array: &ArrayRef) -> Result<Column> {
        let sql_type = type_of(field)?;
        let array = convert(array)?;
        let values = prepare(&sql_type, field.data_type(), &array)?;
        let chars_min = match Modifier::of_field(field) {
            Some(Modifier::Char(length)) => usize::try_from(length).unwrap_or(0),
            _ => 0,
        };
        Ok(Column { sql_type, values, nulls: array.nulls().cloned(), chars_min })
    }

    /// A text, filled up where the column is `char(n)`.
    fn put_text(&self, text: &str, out: &mut BytesMut) {
        out.put_slice(text.as_bytes());
        if self.chars_min > 0 {
            out.put_bytes(b' ', self.chars_min.saturating_sub(text.chars().count()));
        }
    }

    fn is_null(&self, row: usize) -> bool {
        match &self.nulls {
            Some(nulls) => nulls.is_null(row),
            None => matches!(self.values, Values::Null),
        }
    }

    /// Writes a value behind its length; NULL is the length -1.
    fn write_sized(
        &self,
        row: usize,
        format: Format,
        style: &Style,
        scratch: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<()> {
        if self.is_null(row) {
            out.put_i32(-1);
            return Ok(());
        }
        let at = out.len();
        out.put_i32(0);
        match format {
            Format::Text => self.write_text(row, style, scratch, out),
            Format::Binary => self.write_binary(row, style, scratch, out)?,
        }
        patch_length(out, at, at + 4)
    }

    /// Writes a value that is not NULL as text.
    fn write_text(&self, row: usize, style: &Style, scratch: &mut BytesMut, out: &mut BytesMut) {
        match &self.values {
            Values::Null => {}
            Values::Boolean(values) => write_boolean(values.value(row), out),
            Values::Int2(values) => write_integer(i64::from(values[row]), out),
            Values::Int4(values) => write_integer(i64::from(values[row]), out),
            Values::Int8(values) => write_integer(values[row], out),
            Values::Oid(values) => write_integer(i64::from(values[row]), out),
            Values::Float4(values) if style.extra_float_digits > 0 => {
                write_float4(values[row], out)
            }
            Values::Float4(values) => {
                let digits = 6 + style.extra_float_digits;
                write_float_rounded(f64::from(values[row]), digits, out);
            }
            Values::Float8(values) if style.extra_float_digits > 0 => {
                write_float8(values[row], out)
            }
            Values::Float8(values) => {
                write_float_rounded(values[row], 15 + style.extra_float_digits, out);
            }
            Values::Numeric { values, scale, trim } => {
                let (value, scale) = shown_numeric(values[row], *scale, *trim);
                write_numeric(value, scale, out);
            }
            Values::Text(array) => self.put_text(array.value(row), out),
            Values::LargeText(array) => self.put_text(array.value(row), out),
            Values::TextView(array) => self.put_text(array.value(row), out),
            Values::Bytea(array) => write_bytea(array.value(row), style.bytea, out),
            Values::LargeBytea(array) => write_bytea(array.value(row), style.bytea, out),
            Values::ByteaView(array) => write_bytea(array.value(row), style.bytea, out),
            Values::FixedBytea(array) => write_bytea(array.value(row), style.bytea, out),
            Values::Uuid(array) => write_uuid(array.value(row), out),
            Values::Date(values) => write_date(values[row], out),
            Values::Time(values) => write_time(values[row], out),
            Values::Timestamp(values) => write_timestamp(values[row], out),
            Values::Timestamptz(values) => write_timestamptz(values[row], style.zone, out),
            Values::Interval(values) => write_interval(values[row], style.interval, out),
            Values::List { offsets, items } => {
                write_array_text(offsets.range(row), items, style, scratch, out);
            }
            Values::Record(fields) => write_record_text(row, fields, style, scratch, out),
        }
    }

    /// Writes a value that is not NULL in binary format.
    fn write_binary(
        &self,
        row: usize,
        style: &Style,
        scratch: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<()> {
        match &self.values {
            Values::Null => {}
            Values::Boolean(values) => out.put_u8(u8::from(values.value(row))),
            Values::Int2(values) => out.put_i16(values[row]),
            Values::Int4(values) => out.put_i32(values[row]),
            Values::Int8(values) => out.put_i64(values[row]),
            Values::Oid(values) => out.put_u32(values[row]),
            Values::Float4(values) => out.put_f32(values[row]),
            Values::Float8(values) => out.put_f64(values[row]),
            Values::Numeric { values, scale, trim } => {
                let (value, scale) = shown_numeric(values[row], *scale, *trim);
                write_numeric_binary(value, scale, out);
            }
            Values::Text(_) | Values::LargeText(_) | Values::TextView(_) => {
                if self.sql_type == SqlType::Jsonb {
                    out.put_u8(1);
                }
                self.write_text(row, style, scratch, out);
            }
            Values::Bytea(array) => out.put_slice(array.value(row)),
            Values::LargeBytea(array) => out.put_slice(array.value(row)),
            Values::ByteaView(array) => out.put_slice(array.value(row)),
            Values::FixedBytea(array) | Values::Uuid(array) => out.put_slice(array.value(row)),
            Values::Date(values) => {
                let days = values[row];
                let finite = !is_infinite_days(days);
                out.put_i32(if finite { days.saturating_sub(EPOCH_DAYS) } else { days });
            }
            Values::Time(values) => out.put_i64(values[row]),
            Values::Timestamp(values) | Values::Timestamptz(values) => {
                let us = values[row];
                out.put_i64(if is_infinite_us(us) { us } else { us.saturating_sub(EPOCH_US) });
            }
            Values::Interval(values) => {
                let Interval { months, days, us } = values[row];
                out.put_i64(us);
                out.put_i32(days);
                out.put_i32(months);
            }
            Values::List { offsets, items } => {
                write_array_binary(offsets.range(row), items, style, scratch, out)?;
            }
            Values::Record(fields) => {
                out.put_i32(fields.len() as i32);
                for field in fields {
                    out.put_u32(field.sql_type.oid());
                    field.write_sized(row, Format::Binary, style, scratch, out)?;
                }
            }
        }
        Ok(())
    }

    /// Whether no text of this column needs quotes inside an array or a row.
    fn is_plain(&self) -> bool {
        matches!(
            self.values,
            Values::Boolean(_)
                | Values::Int2(_)
                | Values::Int4(_)
                | Values::Int8(_)
                | Values::Oid(_)
                | Values::Float4(_)
                | Values::Float8(_)
                | Values::Numeric { .. }
                | Values::Uuid(_)
        )
    }
}

/// Converts types that have no form of their own on the wire. Converted are whole columns.
fn convert(array: &ArrayRef) -> Result<ArrayRef> {
    let target = match array.data_type() {
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(TimeUnit::Nanosecond) => {
            DataType::Time64(TimeUnit::Microsecond)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
            // Not a cast: it would round instants before 1970 up.
            let nanos = array.as_primitive::<arrow::datatypes::TimestampNanosecondType>();
            let us: PrimitiveArray<TimestampMicrosecondType> = nanos.unary(|v| v.div_euclid(1000));
            return Ok(std::sync::Arc::new(us.with_timezone_opt(zone.clone())));
        }
        DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond, zone) => {
            DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
        }
        DataType::Dictionary(_, value) => {
            let flat = arrow::compute::cast(array, value)?;
            return convert(&flat);
        }
        _ => return Ok(array.clone()),
    };
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, &target, &strict).map_err(|_| {
        let sql_type = SqlType::of_arrow(&target).map_or(String::new(), |t| t.to_string());
        Error::user(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("{sql_type} out of range"))
    })
}

fn numbers<T: ArrowPrimitiveType>(array: &ArrayRef) -> ScalarBuffer<T::Native> {
    array.as_primitive::<T>().values().clone()
}

/// Takes a converted column apart. `declared` is its type before it was converted.
fn prepare(sql_type: &SqlType, declared: &DataType, array: &ArrayRef) -> Result<Values> {
    Ok(match array.data_type() {
        DataType::Null => Values::Null,
        DataType::Boolean => Values::Boolean(array.as_boolean().values().clone()),
        DataType::Int16 => Values::Int2(numbers::<Int16Type>(array)),
        DataType::Int32 => Values::Int4(numbers::<Int32Type>(array)),
        DataType::Int64 => Values::Int8(numbers::<Int64Type>(array)),
        DataType::UInt32 => Values::Oid(numbers::<UInt32Type>(array)),
        DataType::Float32 => Values::Float4(numbers::<Float32Type>(array)),
        DataType::Float64 => Values::Float8(numbers::<Float64Type>(array)),
        DataType::Decimal128(precision, scale) => Values::Numeric {
            values: numbers::<Decimal128Type>(array),
            scale: *scale,
            trim: (*precision, *scale) == NUMERIC_DEFAULT,
        },
        DataType::Utf8 => Values::Text(array.as_string().clone()),
        DataType::LargeUtf8 => Values::LargeText(array.as_string().clone()),
        DataType::Utf8View => Values::TextView(array.as_string_view().clone()),
        DataType::Binary => Values::Bytea(array.as_binary().clone()),
        DataType::LargeBinary => Values::LargeBytea(array.as_binary().clone()),
        DataType::BinaryView => Values::ByteaView(array.as_binary_view().clone()),
        DataType::FixedSizeBinary(_) if *sql_type == SqlType::Uuid => {
            Values::Uuid(array.as_fixed_size_binary().clone())
        }
        DataType::FixedSizeBinary(_) => Values::FixedBytea(array.as_fixed_size_binary().clone()),
        DataType::Date32 => Values::Date(numbers::<Date32Type>(array)),
        DataType::Time64(_) => Values::Time(numbers::<Time64MicrosecondType>(array)),
        DataType::Timestamp(_, None) => {
            Values::Timestamp(numbers::<TimestampMicrosecondType>(array))
        }
        DataType::Timestamp(_, Some(_)) => {
            Values::Timestamptz(numbers::<TimestampMicrosecondType>(array))
        }
        DataType::Interval(_) | DataType::Duration(_) => Values::Interval(intervals(array)?),
        DataType::List(item) => {
            let list = array.as_list::<i32>();
            let items = Box::new(Column::new(item, list.values())?);
            Values::List { offsets: Offsets::Small(list.offsets().clone()), items }
        }
        DataType::LargeList(item) => {
            let list = array.as_list::<i64>();
            let items = Box::new(Column::new(item, list.values())?);
            Values::List { offsets: Offsets::Large(list.offsets().clone()), items }
        }
        DataType::FixedSizeList(item, size) => {
            let list = array.as_fixed_size_list();
            let items = Box::new(Column::new(item, list.values())?);
            Values::List { offsets: Offsets::Fixed(*size as usize), items }
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let columns = fields.iter().zip(columns).map(|(f, c)| Column::new(f, c));
            Values::Record(columns.collect::<Result<_>>()?)
        }
        _ => return Err(Error::internal(format!("{declared} has an SQL type but no encoding"))),
    })
}

/// Intervals and durations of any unit; fractions of a microsecond are cut off.
fn intervals(array: &ArrayRef) -> Result<Vec<Interval>> {
    Ok(match array.data_type() {
        DataType::Interval(IntervalUnit::MonthDayNano) => array
            .as_primitive::<IntervalMonthDayNanoType>()
            .values()
            .iter()
            .map(|v| Interval { months: v.months, days: v.days, us: v.nanoseconds / 1000 })
            .collect(),
        DataType::Interval(IntervalUnit::YearMonth) => array
            .as_primitive::<IntervalYearMonthType>()
            .values()
            .iter()
            .map(|months| Interval { months: *months, days: 0, us: 0 })
            .collect(),
        DataType::Interval(IntervalUnit::DayTime) => array
            .as_primitive::<IntervalDayTimeType>()
            .values()
            .iter()
            .map(|v| Interval { months: 0, days: v.days, us: i64::from(v.milliseconds) * 1000 })
            .collect(),
        _ => {
            // The difference of two timestamps, which Postgres shows in days and hours.
            let unit = DataType::Duration(TimeUnit::Microsecond);
            let us = arrow::compute::cast(array, &unit)?;
            numbers::<arrow::datatypes::DurationMicrosecondType>(&us)
                .iter()
                .map(|us| Interval {
                    months: 0,
                    days: (us / US_PER_DAY) as i32,
                    us: us % US_PER_DAY,
                })
                .collect()
        }
    })
}

fn shown_numeric(value: i128, scale: i8, trim: bool) -> (i128, i8) {
    if trim { trim_numeric(value, scale) } else { (value, scale) }
}

/// Digits in groups of four around the point, without empty groups at either end.
fn write_numeric_binary(value: i128, scale: i8, out: &mut BytesMut) {
    // 39 digits of an i128, up to 127 zeros of a negative scale, and the filling of both ends.
    let mut digits = [0u8; 176];
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(value.unsigned_abs()).as_bytes();
    let display_scale = usize::try_from(scale).unwrap_or(0);
    let zeros = if scale < 0 { usize::from(scale.unsigned_abs()) } else { 0 };
    // Places before the point; what is missing in front of the text are zeros.
    let whole = (text.len() + zeros).saturating_sub(display_scale);
    let lead = (4 - whole % 4) % 4 + display_scale.saturating_sub(text.len());
    for (to, from) in digits[lead..].iter_mut().zip(text) {
        *to = from - b'0';
    }
    let whole_groups = whole.div_ceil(4);
    let groups = whole_groups + display_scale.div_ceil(4);
    let group = |at: usize| {
        digits[4 * at..4 * at + 4].iter().fold(0i16, |n, digit| n * 10 + i16::from(*digit))
    };
    let first = (0..groups).find(|at| group(*at) != 0).unwrap_or(groups);
    let last = (first..groups).rfind(|at| group(*at) != 0).map_or(first, |at| at + 1);
    out.put_i16((last - first) as i16);
    // The first group counts units of 10000^weight.
    out.put_i16(if first == last { 0 } else { whole_groups as i16 - 1 - first as i16 });
    out.put_u16(if value < 0 { 0x4000 } else { 0 });
    out.put_u16(display_scale as u16);
    for at in first..last {
        out.put_i16(group(at));
    }
}

/// `{1,NULL,"a b"}`
fn write_array_text(
    range: Range<usize>,
    items: &Column,
    style: &Style,
    scratch: &mut BytesMut,
    out: &mut BytesMut,
) {
    let nested = matches!(items.values, Values::List { .. });
    let plain = nested || items.is_plain();
    out.put_u8(b'{');
    for (place, row) in range.enumerate() {
        if place > 0 {
            out.put_u8(b',');
        }
        if items.is_null(row) {
            out.put_slice(b"NULL");
            continue;
        }
        let mark = out.len();
        items.write_text(row, style, scratch, out);
        if !plain {
            quote_array_item(mark, scratch, out);
        }
    }
    out.put_u8(b'}');
}

fn is_array_special(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\' | b'{' | b'}' | b',') || crate::types::text::is_space(byte)
}

/// Quotes what was written from `mark` on, if an array's reader would take it apart.
fn quote_array_item(mark: usize, scratch: &mut BytesMut, out: &mut BytesMut) {
    let text = &out[mark..];
    let quote = text.is_empty()
        || text.eq_ignore_ascii_case(b"null")
        || text.iter().any(|b| is_array_special(*b));
    if quote {
        rewrite_quoted(mark, scratch, out, |byte, out| {
            if matches!(byte, b'"' | b'\\') {
                out.put_u8(b'\\');
            }
            out.put_u8(byte);
        });
    }
}

/// `(1,,"a b")`
fn write_record_text(
    row: usize,
    fields: &[Column],
    style: &Style,
    scratch: &mut BytesMut,
    out: &mut BytesMut,
) {
    out.put_u8(b'(');
    for (place, field) in fields.iter().enumerate() {
        if place > 0 {
            out.put_u8(b',');
        }
        if field.is_null(row) {
            continue;
        }
        let mark = out.len();
        field.write_text(row, style, scratch, out);
        if !field.is_plain() {
            quote_record_field(mark, scratch, out);
        }
    }
    out.put_u8(b')');
}

fn is_record_special(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\' | b'(' | b')' | b',') || crate::types::text::is_space(byte)
}

/// Quotes what was written from `mark` on, if a row's reader would take it apart.
fn quote_record_field(mark: usize, scratch: &mut BytesMut, out: &mut BytesMut) {
    let text = &out[mark..];
    if text.is_empty() || text.iter().any(|b| is_record_special(*b)) {
        rewrite_quoted(mark, scratch, out, |byte, out| {
            if matches!(byte, b'"' | b'\\') {
                out.put_u8(byte);
            }
            out.put_u8(byte);
        });
    }
}

fn rewrite_quoted(
    mark: usize,
    scratch: &mut BytesMut,
    out: &mut BytesMut,
    put: impl Fn(u8, &mut BytesMut),
) {
    scratch.clear();
    scratch.extend_from_slice(&out[mark..]);
    out.truncate(mark);
    out.put_u8(b'"');
    for byte in scratch.iter() {
        put(*byte, out);
    }
    out.put_u8(b'"');
}

/// Dimensions, the item's type, then all items one after another.
fn write_array_binary(
    range: Range<usize>,
    items: &Column,
    style: &Style,
    scratch: &mut BytesMut,
    out: &mut BytesMut,
) -> Result<()> {
    if matches!(items.values, Values::List { .. }) {
        return write_nested_array_binary(range, items, style, scratch, out);
    }
    let has_null = range.clone().any(|row| items.is_null(row));
    let dimensions = [range.len()];
    let dimensions = if range.is_empty() { &[] } else { dimensions.as_slice() };
    write_array_header(items, has_null, dimensions, out)?;
    for row in range {
        items.write_sized(row, Format::Binary, style, scratch, out)?;
    }
    Ok(())
}

/// Lists of lists are one array with more dimensions, which must be a box: a list inside may not
/// be NULL or shorter than its neighbours.
fn write_nested_array_binary(
    range: Range<usize>,
    items: &Column,
    style: &Style,
    scratch: &mut BytesMut,
    out: &mut BytesMut,
) -> Result<()> {
    let mut dimensions = vec![range.len()];
    let mut leaf = items;
    let mut level = vec![range];
    while let Values::List { offsets, items } = &leaf.values {
        if level.iter().any(|list| list.clone().any(|row| leaf.is_null(row))) {
            return Err(ragged());
        }
        level = level.into_iter().flatten().map(|row| offsets.range(row)).collect();
        let length = level.first().map_or(0, Range::len);
        if level.iter().any(|list| list.len() != length) {
            return Err(ragged());
        }
        dimensions.push(length);
        leaf = items;
    }
    if dimensions.contains(&0) {
        return write_array_header(leaf, false, &[], out);
    }
    let has_null = level.iter().any(|list| list.clone().any(|row| leaf.is_null(row)));
    write_array_header(leaf, has_null, &dimensions, out)?;
    for row in level.into_iter().flatten() {
        leaf.write_sized(row, Format::Binary, style, scratch, out)?;
    }
    Ok(())
}

/// What stands in front of an array's items. An empty array has no dimensions.
fn write_array_header(
    leaf: &Column,
    has_null: bool,
    dimensions: &[usize],
    out: &mut BytesMut,
) -> Result<()> {
    out.put_i32(dimensions.len() as i32);
    out.put_i32(i32::from(has_null));
    out.put_u32(leaf.sql_type.oid());
    for length in dimensions {
        let length = i32::try_from(*length).map_err(|_| {
            Error::user(SqlState::PROGRAM_LIMIT_EXCEEDED, "an array has too many items")
        })?;
        out.put_i32(length);
        // Subscripts begin with 1.
        out.put_i32(1);
    }
    Ok(())
}

fn ragged() -> Error {
    Error::user(
        SqlState::ARRAY_SUBSCRIPT_ERROR,
        "multidimensional arrays must have array expressions with matching dimensions",
    )
}

#[cfg(test)]
mod tests;
