//! Rows by key: hashing, and comparing.
//!
//! Hashes are the same in every process and every run (fixed seeds): the routing hash decides
//! which worker owns a key, also after a restart. Tables use another seed, because the keys of
//! one worker all share the routing hash's remainder.
//!
//! Two rows have the same key when every column is equal or both are NULL (`IS NOT DISTINCT
//! FROM`); floats compare by total order after -0.0 is made 0.0 for hashing, so values that
//! compare equal never hash apart.

use std::hash::BuildHasher;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, FixedSizeBinaryArray, LargeStringArray,
    StringArray, StringViewArray,
};
use arrow::compute::SortOptions;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Date64Type, Decimal128Type, Float32Type, Float64Type,
    Int8Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNanoType, Time64MicrosecondType,
    TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::row::{RowConverter, SortField};
use foldhash::fast::FixedState;

use crate::types::error::Result;

/// Which family of hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashUse {
    /// Chooses the worker that owns a key.
    Route,
    /// Places a key in a hash table.
    Table,
}

impl HashUse {
    fn state(self) -> FixedState {
        match self {
            HashUse::Route => FixedState::with_seed(0x5175_6c6c_0a11_ce01),
            HashUse::Table => FixedState::with_seed(0x9e37_79b9_7f4a_7c15),
        }
    }
}

/// The hash of a NULL, before it is combined with the other columns.
const NULL_HASH: u64 = 0x6a09_e667_f3bc_c909;

/// One hash per row over all of `columns`, which have the same length.
///
/// # Errors
/// Only for a nested type that Arrow's row format does not know.
pub fn hash_rows(columns: &[ArrayRef], rows: usize, hash_use: HashUse) -> Result<Vec<u64>> {
    let state = hash_use.state();
    let mut hashes = vec![0u64; rows];
    for (index, column) in columns.iter().enumerate() {
        assert_eq!(column.len(), rows, "all key columns have the batch's length");
        hash_column(column, &state, index == 0, &mut hashes)?;
    }
    Ok(hashes)
}

/// Which worker of `workers` owns each row.
pub fn route_rows(columns: &[ArrayRef], rows: usize, workers: usize) -> Result<Vec<u32>> {
    assert!(workers > 0);
    let hashes = hash_rows(columns, rows, HashUse::Route)?;
    let workers = workers as u64;
    // Multiply-shift on the high half: no division, and no bias that matters for few workers.
    Ok(hashes.iter().map(|h| (((h >> 32) * workers) >> 32) as u32).collect())
}

fn combine(state: &FixedState, first: bool, slot: &mut u64, hash: u64) {
    *slot = if first { hash } else { state.hash_one((*slot, hash)) };
}

fn hash_primitive<T: ArrowPrimitiveType>(
    column: &ArrayRef,
    state: &FixedState,
    first: bool,
    hashes: &mut [u64],
    to_bits: impl Fn(T::Native) -> u64,
) {
    let array = column.as_primitive::<T>();
    if array.null_count() == 0 {
        for (slot, value) in hashes.iter_mut().zip(array.values().iter()) {
            combine(state, first, slot, state.hash_one(to_bits(*value)));
        }
    } else {
        for (row, slot) in hashes.iter_mut().enumerate() {
            let hash = if array.is_null(row) {
                NULL_HASH
            } else {
                state.hash_one(to_bits(array.value(row)))
            };
            combine(state, first, slot, hash);
        }
    }
}

fn hash_bytes<'a>(
    nulls: Option<&arrow::buffer::NullBuffer>,
    value: impl Fn(usize) -> &'a [u8],
    state: &FixedState,
    first: bool,
    hashes: &mut [u64],
) {
    for (row, slot) in hashes.iter_mut().enumerate() {
        let null = nulls.is_some_and(|n| n.is_null(row));
        let hash = if null { NULL_HASH } else { state.hash_one(value(row)) };
        combine(state, first, slot, hash);
    }
}

/// The bits that are hashed for a float: equal values have equal bits.
fn float_bits(value: f64) -> u64 {
    if value == 0.0 {
        0
    } else if value.is_nan() {
        f64::NAN.to_bits()
    } else {
        value.to_bits()
    }
}

fn hash_column(
    column: &ArrayRef,
    state: &FixedState,
    first: bool,
    hashes: &mut [u64],
) -> Result<()> {
    let nulls = column.logical_nulls();
    let nulls = nulls.as_ref();
    match column.data_type() {
        DataType::Int8 => hash_primitive::<Int8Type>(column, state, first, hashes, |v| v as u64),
        DataType::Int16 => hash_primitive::<Int16Type>(column, state, first, hashes, |v| v as u64),
        DataType::Int32 => hash_primitive::<Int32Type>(column, state, first, hashes, |v| v as u64),
        DataType::Int64 => hash_primitive::<Int64Type>(column, state, first, hashes, |v| v as u64),
        DataType::UInt8 => hash_primitive::<UInt8Type>(column, state, first, hashes, u64::from),
        DataType::UInt16 => hash_primitive::<UInt16Type>(column, state, first, hashes, u64::from),
        DataType::UInt32 => hash_primitive::<UInt32Type>(column, state, first, hashes, u64::from),
        DataType::UInt64 => hash_primitive::<UInt64Type>(column, state, first, hashes, |v| v),
        DataType::Float32 => hash_primitive::<Float32Type>(column, state, first, hashes, |v| {
            float_bits(f64::from(v))
        }),
        DataType::Float64 => {
            hash_primitive::<Float64Type>(column, state, first, hashes, float_bits)
        }
        DataType::Date32 => {
            hash_primitive::<Date32Type>(column, state, first, hashes, |v| v as u64)
        }
        DataType::Date64 => {
            hash_primitive::<Date64Type>(column, state, first, hashes, |v| v as u64)
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            hash_primitive::<Time64MicrosecondType>(column, state, first, hashes, |v| v as u64)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            hash_primitive::<TimestampMicrosecondType>(column, state, first, hashes, |v| v as u64)
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            hash_primitive::<TimestampMillisecondType>(column, state, first, hashes, |v| v as u64)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            hash_primitive::<TimestampNanosecondType>(column, state, first, hashes, |v| v as u64)
        }
        DataType::Timestamp(TimeUnit::Second, _) => {
            hash_primitive::<TimestampSecondType>(column, state, first, hashes, |v| v as u64)
        }
        DataType::Decimal128(_, _) => {
            hash_primitive::<Decimal128Type>(column, state, first, hashes, |v| {
                (v as u64) ^ ((v >> 64) as u64).rotate_left(32)
            })
        }
        DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano) => {
            hash_primitive::<IntervalMonthDayNanoType>(column, state, first, hashes, |v| {
                ((v.months as u64) << 32 | u64::from(v.days as u32))
                    ^ (v.nanoseconds as u64).rotate_left(17)
            })
        }
        DataType::Boolean => {
            let array: &BooleanArray = column.as_boolean();
            for (row, slot) in hashes.iter_mut().enumerate() {
                let null = array.is_null(row);
                let hash =
                    if null { NULL_HASH } else { state.hash_one(u64::from(array.value(row))) };
                combine(state, first, slot, hash);
            }
        }
        DataType::Utf8 => {
            let array: &StringArray = column.as_string();
            hash_bytes(nulls, |r| array.value(r).as_bytes(), state, first, hashes);
        }
        DataType::LargeUtf8 => {
            let array: &LargeStringArray = column.as_string();
            hash_bytes(nulls, |r| array.value(r).as_bytes(), state, first, hashes);
        }
        DataType::Utf8View => {
            let array: &StringViewArray = column.as_string_view();
            hash_bytes(nulls, |r| array.value(r).as_bytes(), state, first, hashes);
        }
        DataType::Binary => {
            let array: &BinaryArray = column.as_binary();
            hash_bytes(nulls, |r| array.value(r), state, first, hashes);
        }
        DataType::FixedSizeBinary(_) => {
            let array: &FixedSizeBinaryArray = column.as_fixed_size_binary();
            hash_bytes(nulls, |r| array.value(r), state, first, hashes);
        }
        other => {
            let converter = RowConverter::new(vec![SortField::new(other.clone())])?;
            let rows = converter.convert_columns(std::slice::from_ref(column))?;
            for (row, slot) in hashes.iter_mut().enumerate() {
                combine(state, first, slot, state.hash_one(rows.row(row).as_ref()));
            }
        }
    }
    Ok(())
}

/// Compares rows of one set of columns with rows of another, column by column; NULLs are equal.
pub struct RowComparator {
    columns: Vec<arrow::array::DynComparator>,
}

impl RowComparator {
    /// `left` and `right` have the same types in the same order.
    ///
    /// # Errors
    /// For a type that Arrow cannot compare.
    pub fn new(left: &[ArrayRef], right: &[ArrayRef]) -> Result<RowComparator> {
        assert_eq!(left.len(), right.len(), "both sides have the same columns");
        let columns = left
            .iter()
            .zip(right)
            .map(|(l, r)| arrow::array::make_comparator(l, r, SortOptions::default()))
            .collect::<Result<_, _>>()?;
        Ok(RowComparator { columns })
    }

    /// Whether row `left` of the left columns equals row `right` of the right ones.
    pub fn equal(&self, left: usize, right: usize) -> bool {
        self.columns.iter().all(|compare| compare(left, right).is_eq())
    }

    /// Lexicographic order over the columns, ascending, NULLs first.
    pub fn compare(&self, left: usize, right: usize) -> std::cmp::Ordering {
        self.columns
            .iter()
            .map(|compare| compare(left, right))
            .find(|order| order.is_ne())
            .unwrap_or(std::cmp::Ordering::Equal)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array};

    use super::*;

    #[test]
    fn equal_rows_hash_alike_and_nulls_are_a_value() {
        let a: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(1), None]));
        let b: ArrayRef = Arc::new(StringArray::from(vec![Some("x"), Some("y"), Some("x"), None]));
        let hashes = hash_rows(&[a.clone(), b.clone()], 4, HashUse::Table).expect("hashable");
        assert_eq!(hashes[0], hashes[2]);
        assert_ne!(hashes[1], hashes[3]);
        let same = RowComparator::new(&[a.clone(), b.clone()], &[a, b]).expect("comparable");
        assert!(same.equal(0, 2) && !same.equal(1, 3) && same.equal(3, 3));
    }

    #[test]
    fn zero_and_minus_zero_hash_alike() {
        let a: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, 1.5]));
        let hashes = hash_rows(&[a], 3, HashUse::Route).expect("hashable");
        assert_eq!(hashes[0], hashes[1]);
        assert_ne!(hashes[0], hashes[2]);
    }

    #[test]
    fn routing_covers_every_worker_and_ignores_batch_borders() {
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        let route = route_rows(std::slice::from_ref(&keys), 1000, 3).expect("hashable");
        for worker in 0..3 {
            assert!(route.iter().filter(|w| **w == worker).count() > 250);
        }
        let tail = route_rows(&[keys.slice(900, 100)], 100, 3).expect("hashable");
        assert_eq!(tail, route[900..]);
    }
}
