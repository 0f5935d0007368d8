//! Values as plain words or bytes: what state keeps when it keeps single values.
//!
//! Every type is one of three shapes: a word (up to 8 bytes), a wide word (16 bytes), or bytes.
//! In each shape the unsigned (or bytewise) order is the order of the values, and equal values
//! are equal words: -0.0 and 0.0 stay two values here, callers that group fold them first.
//! Signed integers have their sign bit flipped; floats are in total order; text and binary are
//! their own bytes; nested and other types are in Arrow's row format.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BinaryViewArray, BooleanArray,
    FixedSizeBinaryArray, GenericByteArray, LargeBinaryArray, LargeStringArray, PrimitiveArray,
    StringArray, StringViewArray, StructArray, new_null_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::SortOptions;
use arrow::datatypes::{
    ByteArrayType, DataType, Date32Type, Date64Type, Decimal128Type, DurationMicrosecondType,
    DurationMillisecondType, DurationNanosecondType, DurationSecondType, FieldRef, Fields,
    Float32Type, Float64Type, GenericBinaryType, GenericStringType, Int8Type, Int16Type, Int32Type,
    Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, IntervalYearMonthType,
    Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::row::{RowConverter, Rows, SortField};

use crate::types::error::{Error, Result, SqlState};

/// How values of a type are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// In the low `bytes` of a `u64`.
    Word { bytes: usize },
    /// In a `u128`.
    Wide,
    /// As a byte string of any length.
    Bytes,
}

/// The shape of a type's values.
pub fn shape_of(data_type: &DataType) -> Shape {
    match data_type {
        DataType::Boolean | DataType::Int8 | DataType::UInt8 => Shape::Word { bytes: 1 },
        DataType::Int16 | DataType::UInt16 => Shape::Word { bytes: 2 },
        DataType::Int32
        | DataType::UInt32
        | DataType::Float32
        | DataType::Date32
        | DataType::Time32(TimeUnit::Second | TimeUnit::Millisecond)
        | DataType::Interval(IntervalUnit::YearMonth) => Shape::Word { bytes: 4 },
        DataType::Int64
        | DataType::UInt64
        | DataType::Float64
        | DataType::Date64
        | DataType::Time64(TimeUnit::Microsecond | TimeUnit::Nanosecond)
        | DataType::Timestamp(_, _)
        | DataType::Duration(_) => Shape::Word { bytes: 8 },
        DataType::Decimal128(_, _)
        | DataType::Interval(IntervalUnit::MonthDayNano)
        | DataType::FixedSizeBinary(16) => Shape::Wide,
        _ => Shape::Bytes,
    }
}

/// A native value that fits a word, in an order-preserving way.
trait Word: Copy {
    fn to_word(self) -> u64;
    /// The inverse; bits above the type's width are ignored.
    fn from_word(word: u64) -> Self;
}

impl Word for i8 {
    fn to_word(self) -> u64 {
        u64::from((self ^ i8::MIN) as u8)
    }
    fn from_word(word: u64) -> i8 {
        word as i8 ^ i8::MIN
    }
}

impl Word for i16 {
    fn to_word(self) -> u64 {
        u64::from((self ^ i16::MIN) as u16)
    }
    fn from_word(word: u64) -> i16 {
        word as i16 ^ i16::MIN
    }
}

impl Word for i32 {
    fn to_word(self) -> u64 {
        u64::from((self ^ i32::MIN) as u32)
    }
    fn from_word(word: u64) -> i32 {
        word as i32 ^ i32::MIN
    }
}

impl Word for i64 {
    fn to_word(self) -> u64 {
        (self ^ i64::MIN) as u64
    }
    fn from_word(word: u64) -> i64 {
        word as i64 ^ i64::MIN
    }
}

impl Word for u8 {
    fn to_word(self) -> u64 {
        u64::from(self)
    }
    fn from_word(word: u64) -> u8 {
        word as u8
    }
}

impl Word for u16 {
    fn to_word(self) -> u64 {
        u64::from(self)
    }
    fn from_word(word: u64) -> u16 {
        word as u16
    }
}

impl Word for u32 {
    fn to_word(self) -> u64 {
        u64::from(self)
    }
    fn from_word(word: u64) -> u32 {
        word as u32
    }
}

impl Word for u64 {
    fn to_word(self) -> u64 {
        self
    }
    fn from_word(word: u64) -> u64 {
        word
    }
}

impl Word for f32 {
    fn to_word(self) -> u64 {
        let bits = self.to_bits();
        let flip = if bits >> 31 == 1 { u32::MAX } else { 1 << 31 };
        u64::from(bits ^ flip)
    }
    fn from_word(word: u64) -> f32 {
        let bits = word as u32;
        let flip = if bits >> 31 == 1 { 1 << 31 } else { u32::MAX };
        f32::from_bits(bits ^ flip)
    }
}

impl Word for f64 {
    fn to_word(self) -> u64 {
        let bits = self.to_bits();
        let flip = if bits >> 63 == 1 { u64::MAX } else { 1 << 63 };
        bits ^ flip
    }
    fn from_word(word: u64) -> f64 {
        let flip = if word >> 63 == 1 { 1 << 63 } else { u64::MAX };
        f64::from_bits(word ^ flip)
    }
}

fn words<T: ArrowPrimitiveType>(column: &ArrayRef) -> Vec<u64>
where
    T::Native: Word,
{
    column.as_primitive::<T>().values().iter().map(|value| value.to_word()).collect()
}

/// The words of a column of shape `Word`; 0 where it is NULL.
///
/// # Panics
/// When the column's type has another shape.
pub fn to_words(column: &ArrayRef) -> Vec<u64> {
    let mut words = match column.data_type() {
        DataType::Boolean => column.as_boolean().values().iter().map(u64::from).collect(),
        DataType::Int8 => words::<Int8Type>(column),
        DataType::Int16 => words::<Int16Type>(column),
        DataType::Int32 => words::<Int32Type>(column),
        DataType::Int64 => words::<Int64Type>(column),
        DataType::UInt8 => words::<UInt8Type>(column),
        DataType::UInt16 => words::<UInt16Type>(column),
        DataType::UInt32 => words::<UInt32Type>(column),
        DataType::UInt64 => words::<UInt64Type>(column),
        DataType::Float32 => words::<Float32Type>(column),
        DataType::Float64 => words::<Float64Type>(column),
        DataType::Date32 => words::<Date32Type>(column),
        DataType::Date64 => words::<Date64Type>(column),
        DataType::Time32(TimeUnit::Second) => words::<Time32SecondType>(column),
        DataType::Time32(_) => words::<Time32MillisecondType>(column),
        DataType::Time64(TimeUnit::Microsecond) => words::<Time64MicrosecondType>(column),
        DataType::Time64(_) => words::<Time64NanosecondType>(column),
        DataType::Timestamp(TimeUnit::Second, _) => words::<TimestampSecondType>(column),
        DataType::Timestamp(TimeUnit::Millisecond, _) => words::<TimestampMillisecondType>(column),
        DataType::Timestamp(TimeUnit::Microsecond, _) => words::<TimestampMicrosecondType>(column),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => words::<TimestampNanosecondType>(column),
        DataType::Duration(TimeUnit::Second) => words::<DurationSecondType>(column),
        DataType::Duration(TimeUnit::Millisecond) => words::<DurationMillisecondType>(column),
        DataType::Duration(TimeUnit::Microsecond) => words::<DurationMicrosecondType>(column),
        DataType::Duration(TimeUnit::Nanosecond) => words::<DurationNanosecondType>(column),
        DataType::Interval(IntervalUnit::YearMonth) => words::<IntervalYearMonthType>(column),
        other => panic!("{other} does not have the shape of a word"),
    };
    zero_nulls(&mut words, column.nulls());
    words
}

/// The words of a column of shape `Wide`; 0 where it is NULL.
///
/// # Panics
/// When the column's type has another shape.
pub fn to_wide_words(column: &ArrayRef) -> Vec<u128> {
    let mut words: Vec<u128> = match column.data_type() {
        DataType::Decimal128(_, _) => column
            .as_primitive::<Decimal128Type>()
            .values()
            .iter()
            .map(|value| (value ^ i128::MIN) as u128)
            .collect(),
        DataType::Interval(IntervalUnit::MonthDayNano) => column
            .as_primitive::<IntervalMonthDayNanoType>()
            .values()
            .iter()
            .map(|v| {
                u128::from(v.months.to_word()) << 96
                    | u128::from(v.days.to_word()) << 64
                    | u128::from(v.nanoseconds.to_word())
            })
            .collect(),
        DataType::FixedSizeBinary(16) => {
            let array = column.as_fixed_size_binary();
            (0..array.len())
                .map(|row| {
                    u128::from_be_bytes(array.value(row).try_into().expect("sixteen bytes each"))
                })
                .collect()
        }
        other => panic!("{other} does not have the shape of a wide word"),
    };
    zero_nulls(&mut words, column.nulls());
    words
}

fn zero_nulls<T: Default>(words: &mut [T], nulls: Option<&NullBuffer>) {
    if let Some(nulls) = nulls.filter(|n| n.null_count() > 0) {
        for (row, word) in words.iter_mut().enumerate() {
            if nulls.is_null(row) {
                *word = T::default();
            }
        }
    }
}

fn array_of<T: ArrowPrimitiveType>(
    words: &[u64],
    nulls: Option<NullBuffer>,
    data_type: &DataType,
) -> ArrayRef
where
    T::Native: Word,
{
    let values: ScalarBuffer<T::Native> =
        words.iter().map(|word| T::Native::from_word(*word)).collect();
    Arc::new(PrimitiveArray::<T>::new(values, nulls).with_data_type(data_type.clone()))
}

/// The column that these words stand for: the inverse of [`to_words`].
///
/// # Panics
/// When the type has another shape.
pub fn from_words(words: &[u64], nulls: Option<NullBuffer>, data_type: &DataType) -> ArrayRef {
    let nulls = nulls.filter(|n| n.null_count() > 0);
    let t = data_type;
    match t {
        DataType::Boolean => {
            let values = BooleanBuffer::collect_bool(words.len(), |row| words[row] & 1 == 1);
            Arc::new(BooleanArray::new(values, nulls))
        }
        DataType::Int8 => array_of::<Int8Type>(words, nulls, t),
        DataType::Int16 => array_of::<Int16Type>(words, nulls, t),
        DataType::Int32 => array_of::<Int32Type>(words, nulls, t),
        DataType::Int64 => array_of::<Int64Type>(words, nulls, t),
        DataType::UInt8 => array_of::<UInt8Type>(words, nulls, t),
        DataType::UInt16 => array_of::<UInt16Type>(words, nulls, t),
        DataType::UInt32 => array_of::<UInt32Type>(words, nulls, t),
        DataType::UInt64 => array_of::<UInt64Type>(words, nulls, t),
        DataType::Float32 => array_of::<Float32Type>(words, nulls, t),
        DataType::Float64 => array_of::<Float64Type>(words, nulls, t),
        DataType::Date32 => array_of::<Date32Type>(words, nulls, t),
        DataType::Date64 => array_of::<Date64Type>(words, nulls, t),
        DataType::Time32(TimeUnit::Second) => array_of::<Time32SecondType>(words, nulls, t),
        DataType::Time32(_) => array_of::<Time32MillisecondType>(words, nulls, t),
        DataType::Time64(TimeUnit::Microsecond) => {
            array_of::<Time64MicrosecondType>(words, nulls, t)
        }
        DataType::Time64(_) => array_of::<Time64NanosecondType>(words, nulls, t),
        DataType::Timestamp(TimeUnit::Second, _) => {
            array_of::<TimestampSecondType>(words, nulls, t)
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            array_of::<TimestampMillisecondType>(words, nulls, t)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            array_of::<TimestampMicrosecondType>(words, nulls, t)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            array_of::<TimestampNanosecondType>(words, nulls, t)
        }
        DataType::Duration(TimeUnit::Second) => array_of::<DurationSecondType>(words, nulls, t),
        DataType::Duration(TimeUnit::Millisecond) => {
            array_of::<DurationMillisecondType>(words, nulls, t)
        }
        DataType::Duration(TimeUnit::Microsecond) => {
            array_of::<DurationMicrosecondType>(words, nulls, t)
        }
        DataType::Duration(TimeUnit::Nanosecond) => {
            array_of::<DurationNanosecondType>(words, nulls, t)
        }
        DataType::Interval(IntervalUnit::YearMonth) => {
            array_of::<IntervalYearMonthType>(words, nulls, t)
        }
        other => panic!("{other} does not have the shape of a word"),
    }
}

/// The column that these wide words stand for: the inverse of [`to_wide_words`].
///
/// # Panics
/// When the type has another shape.
pub fn from_wide_words(words: &[u128], nulls: Option<NullBuffer>, t: &DataType) -> ArrayRef {
    let nulls = nulls.filter(|n| n.null_count() > 0);
    match t {
        DataType::Decimal128(_, _) => {
            let values: ScalarBuffer<i128> =
                words.iter().map(|word| *word as i128 ^ i128::MIN).collect();
            Arc::new(PrimitiveArray::<Decimal128Type>::new(values, nulls).with_data_type(t.clone()))
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let values: ScalarBuffer<IntervalMonthDayNano> = words
                .iter()
                .map(|word| {
                    IntervalMonthDayNano::new(
                        i32::from_word((*word >> 96) as u64),
                        i32::from_word((*word >> 64) as u64),
                        i64::from_word(*word as u64),
                    )
                })
                .collect();
            Arc::new(PrimitiveArray::<IntervalMonthDayNanoType>::new(values, nulls))
        }
        DataType::FixedSizeBinary(16) => {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            Arc::new(FixedSizeBinaryArray::new(16, Buffer::from_vec(bytes), nulls))
        }
        other => panic!("{other} does not have the shape of a wide word"),
    }
}

/// A column whose values are read as byte strings.
pub enum BytesColumn {
    Utf8(StringArray),
    LargeUtf8(LargeStringArray),
    Utf8View(StringViewArray),
    Binary(BinaryArray),
    LargeBinary(LargeBinaryArray),
    BinaryView(BinaryViewArray),
    FixedSizeBinary(FixedSizeBinaryArray),
    /// In Arrow's row format.
    Rows(Rows),
}

impl BytesColumn {
    /// The bytes of the value at `row`; of a NULL they mean nothing, except in `Rows`.
    #[inline]
    pub fn value(&self, row: usize) -> &[u8] {
        match self {
            BytesColumn::Utf8(array) => array.value(row).as_bytes(),
            BytesColumn::LargeUtf8(array) => array.value(row).as_bytes(),
            BytesColumn::Utf8View(array) => array.value(row).as_bytes(),
            BytesColumn::Binary(array) => array.value(row),
            BytesColumn::LargeBinary(array) => array.value(row),
            BytesColumn::BinaryView(array) => array.value(row),
            BytesColumn::FixedSizeBinary(array) => array.value(row),
            BytesColumn::Rows(rows) => rows.row(row).data(),
        }
    }
}

/// Turns columns of one type into byte strings and back.
pub struct BytesCodec {
    data_type: DataType,
    /// For types that are not text or binary, with the row that stands for NULL.
    converter: Option<(RowConverter, Vec<u8>)>,
    /// The row format has a column for each field of the struct, not one for the struct.
    by_field: bool,
}

impl BytesCodec {
    /// # Errors
    /// For a type that Arrow's row format does not know.
    pub fn new(data_type: &DataType) -> Result<BytesCodec> {
        let plain = matches!(
            data_type,
            DataType::Utf8
                | DataType::LargeUtf8
                | DataType::Utf8View
                | DataType::Binary
                | DataType::LargeBinary
                | DataType::BinaryView
                | DataType::FixedSizeBinary(_)
        );
        let converter = if plain {
            None
        } else {
            let fields = vec![SortField::new(data_type.clone())];
            if !RowConverter::supports_fields(&fields) {
                return Err(Error::unsupported(format!("grouping or ordering by {data_type}")));
            }
            let converter = RowConverter::new(fields)?;
            let null = converter.convert_columns(&[new_null_array(data_type, 1)])?;
            let null = null.row(0).data().to_vec();
            Some((converter, null))
        };
        Ok(BytesCodec { data_type: data_type.clone(), converter, by_field: false })
    }

    /// For structs of these fields, ordered by field after field in these directions.
    ///
    /// # Errors
    /// For a type that Arrow's row format does not know.
    pub fn of_struct(fields: &Fields, options: &[SortOptions]) -> Result<BytesCodec> {
        assert_eq!(fields.len(), options.len(), "a direction for each field");
        let sort = |(field, options): (&FieldRef, &SortOptions)| {
            SortField::new_with_options(field.data_type().clone(), *options)
        };
        let sort: Vec<SortField> = fields.iter().zip(options).map(sort).collect();
        if !RowConverter::supports_fields(&sort) {
            return Err(Error::unsupported("ordering by these types"));
        }
        let converter = RowConverter::new(sort)?;
        let nulls: Vec<ArrayRef> =
            fields.iter().map(|f| new_null_array(f.data_type(), 1)).collect();
        let null = converter.convert_columns(&nulls)?.row(0).data().to_vec();
        let data_type = DataType::Struct(fields.clone());
        Ok(BytesCodec { data_type, converter: Some((converter, null)), by_field: true })
    }

    /// The column's values as bytes.
    ///
    /// # Errors
    /// When a nested value cannot be converted.
    pub fn encode(&self, column: &ArrayRef) -> Result<BytesColumn> {
        assert_eq!(column.data_type(), &self.data_type, "a codec is for one type");
        if let Some((converter, _)) = &self.converter {
            if self.by_field {
                let rows = converter.convert_columns(column.as_struct().columns())?;
                return Ok(BytesColumn::Rows(rows));
            }
            return Ok(BytesColumn::Rows(converter.convert_columns(std::slice::from_ref(column))?));
        }
        Ok(match &self.data_type {
            DataType::Utf8 => BytesColumn::Utf8(column.as_string().clone()),
            DataType::LargeUtf8 => BytesColumn::LargeUtf8(column.as_string().clone()),
            DataType::Utf8View => BytesColumn::Utf8View(column.as_string_view().clone()),
            DataType::Binary => BytesColumn::Binary(column.as_binary().clone()),
            DataType::LargeBinary => BytesColumn::LargeBinary(column.as_binary().clone()),
            DataType::BinaryView => BytesColumn::BinaryView(column.as_binary_view().clone()),
            _ => BytesColumn::FixedSizeBinary(column.as_fixed_size_binary().clone()),
        })
    }

    /// The column that these byte strings stand for; `None` is NULL.
    ///
    /// # Errors
    /// When the bytes are not an encoding of the type, or exceed what one array can hold.
    pub fn decode<'a>(
        &self,
        values: impl Iterator<Item = Option<&'a [u8]>> + Clone,
    ) -> Result<ArrayRef> {
        if let Some((converter, null)) = &self.converter {
            let parser = converter.parser();
            let rows = values.map(|value| parser.parse(value.unwrap_or(null)));
            let mut columns = converter.convert_rows(rows)?;
            if let (true, DataType::Struct(fields)) = (self.by_field, &self.data_type) {
                return Ok(Arc::new(StructArray::try_new(fields.clone(), columns, None)?));
            }
            let column = columns.remove(0);
            // Row format gives back dictionaries as plain values.
            if column.data_type() != &self.data_type {
                return Ok(arrow::compute::cast(&column, &self.data_type)?);
            }
            return Ok(column);
        }
        Ok(match &self.data_type {
            DataType::Utf8 => Arc::new(byte_array::<GenericStringType<i32>>(values)?),
            DataType::LargeUtf8 => Arc::new(byte_array::<GenericStringType<i64>>(values)?),
            DataType::Binary => Arc::new(byte_array::<GenericBinaryType<i32>>(values)?),
            DataType::LargeBinary => Arc::new(byte_array::<GenericBinaryType<i64>>(values)?),
            DataType::Utf8View => {
                let array = byte_array::<GenericStringType<i32>>(values)?;
                Arc::new(StringViewArray::from(&array))
            }
            DataType::BinaryView => {
                let array = byte_array::<GenericBinaryType<i32>>(values)?;
                Arc::new(BinaryViewArray::from(&array))
            }
            DataType::FixedSizeBinary(size) => {
                Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(values, *size)?)
            }
            other => return Err(Error::internal(format!("{other} is not kept as bytes"))),
        })
    }
}

fn byte_array<'a, T: ByteArrayType>(
    values: impl Iterator<Item = Option<&'a [u8]>> + Clone,
) -> Result<GenericByteArray<T>>
where
    T::Offset: TryFrom<usize>,
{
    let count = values.size_hint().0;
    let total: usize = values.clone().flatten().map(<[u8]>::len).sum();
    let mut offsets: Vec<T::Offset> = Vec::with_capacity(count + 1);
    let mut bytes = Vec::with_capacity(total);
    let mut valid = Vec::with_capacity(count);
    let offset = |length: usize| {
        T::Offset::try_from(length).map_err(|_| {
            Error::user(SqlState::PROGRAM_LIMIT_EXCEEDED, "a column of text exceeds 2 GiB")
        })
    };
    offsets.push(offset(0)?);
    for value in values {
        valid.push(value.is_some());
        bytes.extend_from_slice(value.unwrap_or_default());
        offsets.push(offset(bytes.len())?);
    }
    let nulls = NullBuffer::from(valid);
    let nulls = Some(nulls).filter(|n| n.null_count() > 0);
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    Ok(GenericByteArray::try_new(offsets, Buffer::from_vec(bytes), nulls)?)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int32Array, ListArray};
    use arrow::compute::cast;

    use super::*;

    /// Values in ascending order, as text, for each type that SQL has.
    const ASCENDING: &[(&str, &[&str])] = &[
        ("Int8", &["-128", "-1", "0", "127"]),
        ("Int16", &["-300", "0", "300"]),
        ("Int32", &["-70000", "-1", "0", "70000"]),
        ("Int64", &["-9223372036854775808", "-1", "0", "9223372036854775807"]),
        ("UInt64", &["0", "18446744073709551615"]),
        ("Float32", &["-inf", "-1.5", "0", "2", "inf", "NaN"]),
        ("Float64", &["-inf", "-1.5", "-0.0", "0", "1e-300", "2", "inf", "NaN"]),
        ("Boolean", &["false", "true"]),
        ("Date32", &["1969-12-31", "1970-01-01", "2026-02-03"]),
        ("Time64(µs)", &["00:00:00.000001", "12:00:00"]),
        ("Timestamp(µs)", &["1969-12-31T23:00:00", "2026-01-01T00:00:00"]),
        ("Decimal128(38, 2)", &["-99999999999999999999.99", "-0.01", "0", "12.5"]),
        ("Utf8", &["", "a", "ab", "b", "ö"]),
    ];

    #[test]
    fn order_and_values_survive() {
        for (name, values) in ASCENDING {
            let data_type: DataType = name.parse().expect("a type");
            let text: ArrayRef =
                Arc::new(values.iter().map(|v| Some(*v)).chain([None]).collect::<StringArray>());
            let column = cast(&text, &data_type).expect("casts");
            let count = values.len();
            let nulls = column.nulls().cloned();
            let back = match shape_of(&data_type) {
                Shape::Word { bytes } => {
                    let words = to_words(&column);
                    assert!(words[..count].is_sorted_by(|a, b| a < b), "{name}: {words:?}");
                    assert!(bytes == 8 || words.iter().all(|w| w >> (8 * bytes) == 0), "{name}");
                    assert_eq!(words[count], 0);
                    from_words(&words, nulls, &data_type)
                }
                Shape::Wide => {
                    let words = to_wide_words(&column);
                    assert!(words[..count].is_sorted_by(|a, b| a < b), "{name}: {words:?}");
                    from_wide_words(&words, nulls, &data_type)
                }
                Shape::Bytes => {
                    let codec = BytesCodec::new(&data_type).expect("a codec");
                    let bytes = codec.encode(&column).expect("encodes");
                    let rows: Vec<&[u8]> = (0..count).map(|row| bytes.value(row)).collect();
                    assert!(rows.is_sorted_by(|a, b| a < b), "{name}");
                    let rows = rows.iter().map(|r| Some(*r)).chain([None]);
                    codec.decode(rows).expect("decodes")
                }
            };
            assert_eq!(&back, &column, "{name}");
        }
    }

    #[test]
    fn lists_are_bytes() {
        let column: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([
            Some(vec![Some(1), None]),
            Some(vec![Some(1), Some(2)]),
            None,
        ]));
        let codec = BytesCodec::new(column.data_type()).expect("a codec");
        let bytes = codec.encode(&column).expect("encodes");
        assert!(bytes.value(0) < bytes.value(1));
        let rows = [Some(bytes.value(0)), Some(bytes.value(1)), None];
        assert_eq!(&codec.decode(rows.into_iter()).expect("decodes"), &column);
    }

    #[test]
    fn intervals_and_uuids_are_wide() {
        let intervals: ArrayRef = Arc::new(PrimitiveArray::<IntervalMonthDayNanoType>::from(vec![
            IntervalMonthDayNano::new(-1, 5, 7),
            IntervalMonthDayNano::new(1, -5, 7),
            IntervalMonthDayNano::new(1, 5, -7),
            IntervalMonthDayNano::new(1, 5, 7),
        ]));
        let words = to_wide_words(&intervals);
        assert!(words.is_sorted_by(|a, b| a < b));
        assert_eq!(&from_wide_words(&words, None, intervals.data_type()), &intervals);
        let uuids: ArrayRef = Arc::new(
            FixedSizeBinaryArray::try_from_iter([[1u8; 16], [2; 16]].iter()).expect("uuids"),
        );
        let words = to_wide_words(&uuids);
        assert_eq!(&from_wide_words(&words, None, uuids.data_type()), &uuids);
    }

    #[test]
    fn slices_keep_their_own_nulls() {
        let column: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None, Some(3), None]));
        let slice = column.slice(1, 2);
        let words = to_words(&slice);
        assert_eq!(words[0], 0);
        assert_eq!(&from_words(&words, slice.nulls().cloned(), &DataType::Int32), &slice);
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN]));
        assert_eq!(&from_words(&to_words(&floats), None, &DataType::Float64), &floats);
    }
}
