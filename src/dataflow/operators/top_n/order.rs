//! The order of rows in a partition, as numbers and value by value.

use std::cmp::Ordering;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::SortOptions;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float64Type, Int16Type, Int32Type,
    Int64Type, TimeUnit, TimestampMicrosecondType,
};
use arrow::row::RowConverter;

use super::TopNSpec;
use crate::types::error::Result;

/// The first bytes of a row's order in Arrow's row format, as numbers that compare as they do.
pub type Prefix = [u64; 2];

/// The prefix of each row's order.
///
/// # Errors
/// When a column cannot be converted.
pub fn prefixes(
    order: Option<&RowConverter>,
    rows: &RecordBatch,
    order_columns: &[usize],
    spec: &TopNSpec,
) -> Result<Vec<Prefix>> {
    let Some(order) = order else { return Ok(vec![[0; 2]; rows.num_rows()]) };
    if let ([column], [by]) = (order_columns, &spec.order_by[..])
        && let Some(words) = words_of(rows.column(*column))
        && words.null_count() == 0
    {
        let flip = if by.descending { u64::MAX } else { 0 };
        let prefix = |value: &i64| {
            // A byte that says that it is no NULL, then the value, highest byte first.
            let bits = (*value as u64 ^ (1 << 63)) ^ flip;
            [1 << 56 | bits >> 8, bits << 56]
        };
        return Ok(words.values().iter().map(prefix).collect());
    }
    let columns: Vec<ArrayRef> =
        order_columns.iter().map(|column| rows.column(*column).clone()).collect();
    let encoded = order.convert_columns(&columns)?;
    let prefix = |row: arrow::row::Row<'_>| {
        let bytes = row.data();
        let mut padded = [0; 16];
        let length = bytes.len().min(16);
        padded[..length].copy_from_slice(&bytes[..length]);
        let value = u128::from_be_bytes(padded);
        [(value >> 64) as u64, value as u64]
    };
    Ok(encoded.iter().map(prefix).collect())
}

/// The values of a column of signed words.
fn words_of(column: &ArrayRef) -> Option<arrow::array::Int64Array> {
    match column.data_type() {
        DataType::Int64 => Some(column.as_primitive::<Int64Type>().clone()),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Some(column.as_primitive::<TimestampMicrosecondType>().reinterpret_cast())
        }
        _ => None,
    }
}

/// Compares a value of one column with one of another of the same type; `None`: of a type whose
/// values are rarely compared.
pub fn compare_values(
    left: &ArrayRef,
    at: usize,
    right: &ArrayRef,
    other: usize,
    options: SortOptions,
) -> Option<Ordering> {
    let nulls = if options.nulls_first { Ordering::Less } else { Ordering::Greater };
    match (left.is_null(at), right.is_null(other)) {
        (true, true) => return Some(Ordering::Equal),
        (true, false) => return Some(nulls),
        (false, true) => return Some(nulls.reverse()),
        (false, false) => {}
    }
    let order = match left.data_type() {
        DataType::Int64 => number::<Int64Type>(left, at, right, other),
        DataType::Int32 => number::<Int32Type>(left, at, right, other),
        DataType::Int16 => number::<Int16Type>(left, at, right, other),
        DataType::Date32 => number::<Date32Type>(left, at, right, other),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            number::<TimestampMicrosecondType>(left, at, right, other)
        }
        DataType::Decimal128(_, _) => number::<Decimal128Type>(left, at, right, other),
        DataType::Float64 => {
            let value = |column: &ArrayRef, row| column.as_primitive::<Float64Type>().value(row);
            value(left, at).total_cmp(&value(right, other))
        }
        DataType::Boolean => left.as_boolean().value(at).cmp(&right.as_boolean().value(other)),
        DataType::Utf8 => {
            left.as_string::<i32>().value(at).cmp(right.as_string::<i32>().value(other))
        }
        DataType::Utf8View => {
            left.as_string_view().value(at).cmp(right.as_string_view().value(other))
        }
        DataType::Binary => {
            left.as_binary::<i32>().value(at).cmp(right.as_binary::<i32>().value(other))
        }
        _ => return None,
    };
    Some(if options.descending { order.reverse() } else { order })
}

fn number<T: ArrowPrimitiveType>(
    left: &ArrayRef,
    at: usize,
    right: &ArrayRef,
    other: usize,
) -> Ordering
where
    T::Native: Ord,
{
    left.as_primitive::<T>().value(at).cmp(&right.as_primitive::<T>().value(other))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
    use arrow::datatypes::{Field, Schema};
    use arrow::row::SortField;

    use super::*;
    use crate::plan::node::{RankFunction, SortColumn};

    /// The prefixes of a column by the quick way and by Arrow's row format.
    fn both_ways(column: ArrayRef, options: SortOptions) -> [Vec<Prefix>; 2] {
        let field = Field::new("a", column.data_type().clone(), true);
        let schema = Arc::new(Schema::new(vec![field]));
        let sort = SortColumn {
            column: 0,
            descending: options.descending,
            nulls_first: options.nulls_first,
        };
        let spec = TopNSpec {
            partition: vec![],
            order_by: vec![sort.clone()],
            rank: RankFunction::RowNumber,
            offset: 0,
            limit: Some(1),
            numbered: false,
            append_only: true,
            schema: schema.clone(),
        };
        // With the column twice there is no quick way, and its bytes come first.
        let slow = TopNSpec { order_by: vec![sort.clone(), sort], ..spec.clone() };
        let rows = RecordBatch::try_new(schema, vec![column.clone()]).expect("one column");
        let field = SortField::new_with_options(column.data_type().clone(), options);
        let one = RowConverter::new(vec![field.clone()]).expect("sorts");
        let two = RowConverter::new(vec![field.clone(), field]).expect("sorts");
        let quick = prefixes(Some(&one), &rows, &[0], &spec).expect("converts");
        let slow = prefixes(Some(&two), &rows, &[0, 0], &slow).expect("converts");
        let nine_bytes = |p: &Prefix| [p[0], p[1] & (0xff << 56)];
        [quick, slow].map(|all| all.iter().map(nine_bytes).collect())
    }

    #[test]
    fn prefixes_are_those_of_the_row_format() {
        let values = vec![0, 1, -1, i64::MAX, i64::MIN, 1_700_000_000_000_000, -5];
        for descending in [false, true] {
            for nulls_first in [false, true] {
                let options = SortOptions { descending, nulls_first };
                let numbers: ArrayRef = Arc::new(Int64Array::from(values.clone()));
                let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(values.clone()));
                for column in [numbers, times] {
                    let [quick, slow] = both_ways(column, options);
                    assert_eq!(quick, slow, "{options:?}");
                }
            }
        }
    }

    #[test]
    fn values_compare_as_rows_do() {
        let floats = [f64::NAN, f64::NEG_INFINITY, -0.0, 0.0, 1.5, f64::INFINITY];
        let columns: [ArrayRef; 3] = [
            Arc::new(Int64Array::from(vec![Some(3), None, Some(-7), Some(3)])),
            Arc::new(StringArray::from(vec![Some("b"), Some(""), None, Some("ab")])),
            Arc::new(Float64Array::from(floats.to_vec())),
        ];
        for column in columns {
            for (descending, nulls_first) in
                [(false, false), (false, true), (true, false), (true, true)]
            {
                let options = SortOptions { descending, nulls_first };
                let field = SortField::new_with_options(column.data_type().clone(), options);
                let converter = RowConverter::new(vec![field]).expect("sorts");
                let rows =
                    converter.convert_columns(std::slice::from_ref(&column)).expect("converts");
                for left in 0..column.len() {
                    for right in 0..column.len() {
                        let order = compare_values(&column, left, &column, right, options);
                        assert_eq!(order, Some(rows.row(left).cmp(&rows.row(right))));
                    }
                }
            }
        }
    }
}
