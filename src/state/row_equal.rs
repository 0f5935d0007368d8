//! Compares a value of one array with a value of another, type known once per column.
//!
//! Indexes compare a stored row here and there with a row of a batch; building Arrow comparators
//! for every pair of segment and batch would cost more than the comparing. NULLs are equal.
//!
//! Two notions: [`key_equal`] is SQL's (0.0 = -0.0, NaN = NaN), as `types::key` hashes;
//! [`identical`] tells apart all that can be told apart, for taking back exactly the row that was
//! put in.

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, GenericByteArray, PrimitiveArray,
    make_comparator, new_empty_array,
};
use arrow::compute::SortOptions;
use arrow::datatypes::{
    BinaryType, ByteArrayType, DataType, Date32Type, Date64Type, Decimal128Type, Float32Type,
    Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNanoType, IntervalUnit,
    LargeBinaryType, LargeUtf8Type, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type, Utf8Type,
};

use crate::types::error::{Error, Result};

/// Whether a value of the left array equals a value of the right one; both have the type for which
/// the function was chosen.
pub type EqualFn = fn(&ArrayRef, usize, &ArrayRef, usize) -> bool;

/// Equality of SQL.
///
/// # Errors
/// For a type that has no equality (SQLSTATE 0A000).
pub fn key_equal(data_type: &DataType) -> Result<EqualFn> {
    match data_type {
        DataType::Float32 => Ok(float_equal::<Float32Type>),
        DataType::Float64 => Ok(float_equal::<Float64Type>),
        other => identical(other),
    }
}

/// Sameness of the stored value.
///
/// # Errors
/// For a type that Arrow cannot compare (SQLSTATE 0A000).
pub fn identical(data_type: &DataType) -> Result<EqualFn> {
    Ok(match data_type {
        DataType::Int8 => primitive::<Int8Type>,
        DataType::Int16 => primitive::<Int16Type>,
        DataType::Int32 => primitive::<Int32Type>,
        DataType::Int64 => primitive::<Int64Type>,
        DataType::UInt8 => primitive::<UInt8Type>,
        DataType::UInt16 => primitive::<UInt16Type>,
        DataType::UInt32 => primitive::<UInt32Type>,
        DataType::UInt64 => primitive::<UInt64Type>,
        DataType::Float32 => float_bits_equal::<Float32Type>,
        DataType::Float64 => float_bits_equal::<Float64Type>,
        DataType::Date32 => primitive::<Date32Type>,
        DataType::Date64 => primitive::<Date64Type>,
        DataType::Time64(TimeUnit::Microsecond) => primitive::<Time64MicrosecondType>,
        DataType::Timestamp(TimeUnit::Second, _) => primitive::<TimestampSecondType>,
        DataType::Timestamp(TimeUnit::Millisecond, _) => primitive::<TimestampMillisecondType>,
        DataType::Timestamp(TimeUnit::Microsecond, _) => primitive::<TimestampMicrosecondType>,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => primitive::<TimestampNanosecondType>,
        DataType::Decimal128(_, _) => primitive::<Decimal128Type>,
        DataType::Interval(IntervalUnit::MonthDayNano) => primitive::<IntervalMonthDayNanoType>,
        DataType::Boolean => boolean,
        DataType::Utf8 => bytes::<Utf8Type>,
        DataType::LargeUtf8 => bytes::<LargeUtf8Type>,
        DataType::Binary => bytes::<BinaryType>,
        DataType::LargeBinary => bytes::<LargeBinaryType>,
        DataType::Utf8View => text_view,
        DataType::FixedSizeBinary(_) => fixed_bytes,
        other => {
            let empty = new_empty_array(other);
            if make_comparator(&empty, &empty, SortOptions::default()).is_err() {
                return Err(Error::unsupported(format!("comparing values of type {other}"))
                    .hint("Cast the column to a type that can be compared, for example text."));
            }
            by_comparator
        }
    })
}

/// The answer that the NULLs give: `None` when both values are there.
fn of_nulls(left_null: bool, right_null: bool) -> Option<bool> {
    (left_null || right_null).then_some(left_null == right_null)
}

fn primitive<T: ArrowPrimitiveType>(l: &ArrayRef, i: usize, r: &ArrayRef, j: usize) -> bool {
    let (l, r): (&PrimitiveArray<T>, &PrimitiveArray<T>) = (l.as_primitive(), r.as_primitive());
    of_nulls(l.is_null(i), r.is_null(j)).unwrap_or_else(|| l.value(i) == r.value(j))
}

fn float_equal<T: ArrowPrimitiveType>(l: &ArrayRef, i: usize, r: &ArrayRef, j: usize) -> bool {
    let (l, r): (&PrimitiveArray<T>, &PrimitiveArray<T>) = (l.as_primitive(), r.as_primitive());
    of_nulls(l.is_null(i), r.is_null(j)).unwrap_or_else(|| {
        let (a, b) = (l.value(i), r.value(j));
        // A NaN is the only value that is not equal to itself.
        #[expect(clippy::eq_op)]
        let both_nan = a != a && b != b;
        a == b || both_nan
    })
}

fn float_bits_equal<T: ArrowPrimitiveType>(l: &ArrayRef, i: usize, r: &ArrayRef, j: usize) -> bool
where
    T::Native: arrow::datatypes::ArrowNativeTypeOp,
{
    use arrow::datatypes::ArrowNativeTypeOp;
    let (l, r): (&PrimitiveArray<T>, &PrimitiveArray<T>) = (l.as_primitive(), r.as_primitive());
    // The total order of floats is an order of their bits.
    of_nulls(l.is_null(i), r.is_null(j)).unwrap_or_else(|| l.value(i).is_eq(r.value(j)))
}

fn boolean(l: &ArrayRef, i: usize, r: &ArrayRef, j: usize) -> bool {
    let (l, r) = (l.as_boolean(), r.as_boolean());
    of_nulls(l.is_null(i), r.is_null(j)).unwrap_or_else(|| l.value(i) == r.value(j))
}

fn bytes<T: ByteArrayType>(l: &ArrayRef, i: usize, r: &ArrayRef, j: usize) -> bool {
    let (l, r): (&GenericByteArray<T>, &GenericByteArray<T>) = (l.as_bytes(), r.as_bytes());
    of_nulls(l.is_null(i), r.is_null(j)).unwrap_or_else(|| {
        let (a, b): (&[u8], &[u8]) = (l.value(i).as_ref(), r.value(j).as_ref());
        a == b
    })
}

fn text_view(l: &ArrayRef, i: usize, r: &ArrayRef, j: usize) -> bool {
    let (l, r) = (l.as_string_view(), r.as_string_view());
    of_nulls(l.is_null(i), r.is_null(j)).unwrap_or_else(|| l.value(i) == r.value(j))
}

fn fixed_bytes(l: &ArrayRef, i: usize, r: &ArrayRef, j: usize) -> bool {
    let (l, r) = (l.as_fixed_size_binary(), r.as_fixed_size_binary());
    of_nulls(l.is_null(i), r.is_null(j)).unwrap_or_else(|| l.value(i) == r.value(j))
}

/// Nested and rare types: a comparator for this one pair.
fn by_comparator(l: &ArrayRef, i: usize, r: &ArrayRef, j: usize) -> bool {
    let compare = make_comparator(l, r, SortOptions::default())
        .expect("a comparator could be made when the function was chosen");
    compare(i, j).is_eq()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BooleanArray, Float64Array, Int64Array, ListArray, StringArray};

    use super::*;

    fn equal_pairs(
        choose: fn(&DataType) -> Result<EqualFn>,
        array: ArrayRef,
    ) -> Vec<(usize, usize)> {
        let equal = choose(array.data_type()).expect("comparable");
        let pairs = (0..array.len()).flat_map(|i| (i + 1..array.len()).map(move |j| (i, j)));
        pairs.filter(|(i, j)| equal(&array, *i, &array, *j)).collect()
    }

    #[test]
    fn values_and_nulls() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(0), None, Some(0), None]));
        assert_eq!(equal_pairs(identical, numbers), [(0, 2), (1, 3)]);
        let texts: ArrayRef =
            Arc::new(StringArray::from(vec![Some(""), None, Some("a"), Some("")]));
        assert_eq!(equal_pairs(key_equal, texts), [(0, 3)]);
        let bits: ArrayRef = Arc::new(BooleanArray::from(vec![Some(false), None, Some(true)]));
        assert_eq!(equal_pairs(key_equal, bits), []);
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![
            Some(vec![Some(1), None]),
            Some(vec![Some(1)]),
            Some(vec![Some(1), None]),
            None,
        ]);
        assert_eq!(equal_pairs(identical, Arc::new(lists)), [(0, 2)]);
    }

    #[test]
    fn floats_are_equal_as_keys_and_told_apart_as_rows() {
        let floats: ArrayRef =
            Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN, 0.0]));
        assert_eq!(equal_pairs(key_equal, floats.clone()), [(0, 1), (0, 4), (1, 4), (2, 3)]);
        assert_eq!(equal_pairs(identical, floats), [(0, 4)]);
    }
}
