//! The order of rows in a partition, as numbers and value by value.

use std::cmp::Ordering;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::SortOptions;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float64Type, Int16Type, Int32Type,
    Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use arrow::row::{RowConverter, SortField};

use super::{TopNSpec, ordered_by};
use crate::state::ordered_table::sort_fields;
use crate::types::error::Result;

/// The first bytes of a row's order in Arrow's row format, as numbers that compare as they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix(pub [u64; 2]);

impl Prefix {
    pub const LEAST: Prefix = Prefix([0; 2]);
    /// No row is behind it.
    pub const GREATEST: Prefix = Prefix([u64::MAX; 2]);

    fn of_bytes(bytes: &[u8]) -> Prefix {
        let mut padded = [0; 16];
        let length = bytes.len().min(16);
        padded[..length].copy_from_slice(&bytes[..length]);
        let value = u128::from_be_bytes(padded);
        Prefix([(value >> 64) as u64, value as u64])
    }

    /// One number, which is compared without a branch.
    fn number(self) -> u128 {
        u128::from(self.0[0]) << 64 | u128::from(self.0[1])
    }
}

impl Ord for Prefix {
    fn cmp(&self, other: &Prefix) -> Ordering {
        self.number().cmp(&other.number())
    }
}

impl PartialOrd for Prefix {
    fn partial_cmp(&self, other: &Prefix) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The order of the rows of a partition.
pub struct Order {
    /// What rows are sorted by, then their other columns, but for those of the partition.
    columns: Vec<usize>,
    /// Of all of `columns`.
    options: Vec<SortOptions>,
    fields: Vec<SortField>,
    /// How many of `columns` rows are sorted by.
    sorted: usize,
    /// Of these; `None` when there are none.
    converter: Option<RowConverter>,
}

impl Order {
    /// # Errors
    /// For a column whose type has no order (SQLSTATE 0A000).
    pub fn new(spec: &TopNSpec, input: &SchemaRef) -> Result<Order> {
        let order_by = ordered_by(&spec.order_by);
        let mut columns: Vec<usize> = order_by.iter().map(|by| by.column).collect();
        for column in 0..input.fields().len() {
            if !columns.contains(&column) && !spec.partition.contains(&column) {
                columns.push(column);
            }
        }
        let fields = sort_fields(input, &columns, &order_by)?;
        let sorted = order_by.len();
        let mut options: Vec<SortOptions> = order_by.iter().map(|by| by.options).collect();
        options.resize(columns.len(), SortOptions::default());
        let converter = converter(&fields[..sorted])?;
        Ok(Order { columns, options, fields, sorted, converter })
    }

    /// The columns by which rows with equal prefixes are compared.
    pub fn compared(&self) -> Vec<(usize, SortOptions)> {
        self.columns.iter().copied().zip(self.options.iter().copied()).collect()
    }

    /// What makes bytes of these columns; `None` when there are none.
    ///
    /// # Errors
    /// When there is no such converter.
    pub fn whole(&self) -> Result<Option<RowConverter>> {
        converter(&self.fields)
    }

    /// The prefix of each row's order.
    ///
    /// # Errors
    /// When a column cannot be converted.
    pub fn prefixes(&self, rows: &RecordBatch) -> Result<Vec<Prefix>> {
        let Some(converter) = &self.converter else {
            return Ok(vec![Prefix::LEAST; rows.num_rows()]);
        };
        let columns = &self.columns[..self.sorted];
        if let [column] = columns
            && let Some(words) = words_of(rows.column(*column))
            && words.null_count() == 0
        {
            let flip = if self.options[0].descending { u64::MAX } else { 0 };
            let prefix = |value: &i64| {
                // A byte that says that it is no NULL, then the value, highest byte first.
                let bits = (*value as u64 ^ (1 << 63)) ^ flip;
                Prefix([1 << 56 | bits >> 8, bits << 56])
            };
            return Ok(words.values().iter().map(prefix).collect());
        }
        let columns: Vec<ArrayRef> =
            columns.iter().map(|column| rows.column(*column).clone()).collect();
        let encoded = converter.convert_columns(&columns)?;
        Ok(encoded.iter().map(|row| Prefix::of_bytes(row.data())).collect())
    }
}

fn converter(fields: &[SortField]) -> Result<Option<RowConverter>> {
    let some = (!fields.is_empty()).then(|| RowConverter::new(fields.to_vec()));
    Ok(some.transpose()?)
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
            order_by: vec![sort],
            rank: RankFunction::RowNumber,
            offset: 0,
            limit: Some(1),
            numbered: false,
            append_only: true,
            schema: schema.clone(),
        };
        let rows = RecordBatch::try_new(schema.clone(), vec![column.clone()]).expect("one column");
        let order = Order::new(&spec, &schema).expect("sorts");
        let converter = order.whole().expect("sorts").expect("one column");
        let encoded = converter.convert_columns(&[column]).expect("converts");
        let slow = encoded.iter().map(|row| Prefix::of_bytes(row.data())).collect();
        [order.prefixes(&rows).expect("converts"), slow]
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
