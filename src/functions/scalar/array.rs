//! Functions and operators on arrays (chapter 9.19 of Postgres's manual), and uuids (9.14), where
//! DataFusion lacks them or gives other types.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, ListArray, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Int32Type};
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};

use crate::functions::scalar::call::{Call, Overload, R, T, function};
use crate::functions::scalar::cast::cast_array;
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::SqlType;

/// All of them.
pub fn all() -> Vec<Overload> {
    use T::{AnyArray, AnyElement, Bool, Int4, Text};
    let any = &[AnyArray, AnyArray];
    let mut list = vec![
        function("||", any, R::Like(0), concatenated).sees_nulls(),
        function("||", &[AnyArray, AnyElement], R::Like(0), |c| put(c, 0, 1)).sees_nulls(),
        function("||", &[AnyElement, AnyArray], R::Like(1), |c| put(c, 1, 0)).sees_nulls(),
        function("array_cat", any, R::Like(0), concatenated).sees_nulls(),
        function("array_append", &[AnyArray, AnyElement], R::Like(0), |c| put(c, 0, 1))
            .sees_nulls(),
        function("array_prepend", &[AnyElement, AnyArray], R::Like(1), |c| put(c, 1, 0))
            .sees_nulls(),
        function("@>", any, R::Is(Bool), |c| {
            tested(c, |left, right| {
                right.iter().all(|item| item.as_ref().is_some_and(|_| left.contains(item)))
            })
        }),
        function("<@", any, R::Is(Bool), |c| {
            tested(c, |left, right| {
                left.iter().all(|item| item.as_ref().is_some_and(|_| right.contains(item)))
            })
        }),
        function("&&", any, R::Is(Bool), |c| {
            tested(c, |left, right| left.iter().any(|item| item.is_some() && right.contains(item)))
        }),
        function("array_position", &[AnyArray, AnyElement], R::Is(Int4), position).sees_nulls(),
        function("array_positions", &[AnyArray, AnyElement], R::Array(Int4), positions)
            .sees_nulls(),
        function("array_remove", &[AnyArray, AnyElement], R::Like(0), |c| replaced(c, true))
            .sees_nulls(),
        function("array_replace", &[AnyArray, AnyElement, AnyElement], R::Like(0), |c| {
            replaced(c, false)
        })
        .sees_nulls(),
        function("array_to_string", &[AnyArray, Text], R::Is(Text), to_text).sees_nulls(),
        function("array_to_string", &[AnyArray, Text, Text], R::Is(Text), to_text).sees_nulls(),
        function("cardinality", &[AnyArray], R::Is(Int4), |c| {
            c.to_values::<Int32Type>(|row| Ok(Some(lengths(c.list(0), row).iter().product())))
        }),
        function("array_length", &[AnyArray, Int4], R::Is(Int4), |c| bound(c, |length| length)),
        function("array_upper", &[AnyArray, Int4], R::Is(Int4), |c| bound(c, |length| length)),
        function("array_lower", &[AnyArray, Int4], R::Is(Int4), |c| bound(c, |_| 1)),
        function("array_ndims", &[AnyArray], R::Is(Int4), |c| {
            c.to_values::<Int32Type>(|row| {
                let lengths = lengths(c.list(0), row);
                Ok((lengths[0] > 0).then_some(lengths.len() as i32))
            })
        }),
        function("array_dims", &[AnyArray], R::Is(Text), |c| {
            c.to_text(|row, out| {
                let lengths = lengths(c.list(0), row);
                lengths.iter().for_each(|length| out.push_str(&format!("[1:{length}]")));
                Ok(lengths[0] > 0)
            })
        }),
        function("trim_array", &[AnyArray, Int4], R::Like(0), trim_array),
        function("array_fill", &[T::Any, AnyArray], R::ArrayOf(0), fill).sees_nulls(),
    ];
    for name in ["gen_random_uuid", "uuid"] {
        list.push(
            function(name, &[], R::Is(T::Uuid), |c| {
                let ids = (0..c.rows).map(|_| *uuid::Uuid::new_v4().as_bytes());
                let ids: Vec<[u8; 16]> = ids.collect();
                let values = FixedSizeBinaryArray::try_from_iter(ids.iter());
                match ids.is_empty() {
                    true => Ok(arrow::array::new_empty_array(&DataType::FixedSizeBinary(16))),
                    false => Ok(Arc::new(values?)),
                }
            })
            .volatile(),
        );
    }
    list
}

/// The items of a row's array as rows that can be compared; NULL is `None`.
struct Items {
    rows: Rows,
    values: ArrayRef,
    converter: RowConverter,
}

impl Items {
    fn new(values: &ArrayRef) -> Result<Items> {
        let converter = RowConverter::new(vec![SortField::new(values.data_type().clone())])?;
        let rows = converter.convert_columns(std::slice::from_ref(values))?;
        Ok(Items { rows, values: values.clone(), converter })
    }

    fn get(&self, place: usize) -> Option<OwnedRow> {
        self.values.is_valid(place).then(|| self.rows.row(place).owned())
    }

    /// Rows of another column of the same type.
    fn others(&self, values: &ArrayRef) -> Result<Rows> {
        Ok(self.converter.convert_columns(std::slice::from_ref(values))?)
    }
}

/// Where the items of a row's array stand among all items.
fn places(call: &Call<'_>, index: usize, row: usize) -> std::ops::Range<usize> {
    let offsets = call.list(index).value_offsets();
    offsets[row] as usize..offsets[row + 1] as usize
}

/// The lists of `parts` put together: each row is a list of places in the column of all values.
fn gathered(
    call: &Call<'_>,
    values: &[&dyn Array],
    mut items: impl FnMut(usize, &mut Vec<u32>) -> Result<bool>,
) -> Result<ArrayRef> {
    let all = concat(values)?;
    let (mut chosen, mut lengths, mut valid) = (vec![], vec![], vec![]);
    for row in 0..call.rows {
        let before = chosen.len();
        valid.push(items(row, &mut chosen)?);
        lengths.push(chosen.len() - before);
    }
    let items = take(&all, &UInt32Array::from(chosen), None)?;
    call.list_of(items, lengths, valid)
}

/// An array of NULL is the other one.
fn concatenated(call: &Call<'_>) -> Result<ArrayRef> {
    let (left, right) = (call.list(0), call.list(1));
    let shift = left.values().len();
    gathered(call, &[left.values(), right.values()], |row, chosen| {
        if left.is_valid(row) {
            chosen.extend(places(call, 0, row).map(|place| place as u32));
        }
        if right.is_valid(row) {
            chosen.extend(places(call, 1, row).map(|place| (place + shift) as u32));
        }
        Ok(left.is_valid(row) || right.is_valid(row))
    })
}

/// An item at the end (or the beginning, when it is the first argument) of an array.
fn put(call: &Call<'_>, list: usize, item: usize) -> Result<ArrayRef> {
    let array = call.list(list);
    let shift = array.values().len();
    gathered(call, &[array.values(), &call.columns[item]], |row, chosen| {
        let mut items = vec![];
        if array.is_valid(row) {
            items.extend(places(call, list, row).map(|place| place as u32));
        }
        let place = (shift + row) as u32;
        if item < list {
            chosen.push(place);
            chosen.extend(items);
        } else {
            chosen.extend(items);
            chosen.push(place);
        }
        Ok(true)
    })
}

/// What is asked of the items of two arrays.
type Test = fn(&[Option<OwnedRow>], &[Option<OwnedRow>]) -> bool;

fn tested(call: &Call<'_>, test: Test) -> Result<ArrayRef> {
    let left = Items::new(call.list(0).values())?;
    let right_rows = left.others(call.list(1).values())?;
    let right_values = call.list(1).values();
    call.to_booleans(|row| {
        let lefts: Vec<_> = places(call, 0, row).map(|place| left.get(place)).collect();
        let rights: Vec<_> = places(call, 1, row)
            .map(|place| right_values.is_valid(place).then(|| right_rows.row(place).owned()))
            .collect();
        Ok(Some(test(&lefts, &rights)))
    })
}

/// The places (1 is the first) at which an item stands; NULL is found too.
fn found(call: &Call<'_>, mut visit: impl FnMut(usize, Vec<i32>)) -> Result<()> {
    let items = Items::new(call.list(0).values())?;
    let wanted = items.others(&call.columns[1])?;
    for row in 0..call.rows {
        let mut at = vec![];
        if call.columns[0].is_valid(row) {
            for (index, place) in places(call, 0, row).enumerate() {
                let null = call.columns[1].is_null(row);
                let same = match items.values.is_valid(place) {
                    true => !null && items.rows.row(place) == wanted.row(row),
                    false => null,
                };
                if same {
                    at.push(index as i32 + 1);
                }
            }
        }
        visit(row, at);
    }
    Ok(())
}

fn position(call: &Call<'_>) -> Result<ArrayRef> {
    let mut first = vec![None; call.rows];
    found(call, |row, at| first[row] = at.first().copied())?;
    call.to_values::<Int32Type>(|row| Ok(first[row]))
}

fn positions(call: &Call<'_>) -> Result<ArrayRef> {
    let (mut all, mut lengths) = (vec![], vec![]);
    found(call, |_, at| {
        lengths.push(at.len());
        all.extend(at);
    })?;
    let valid = (0..call.rows).map(|row| call.columns[0].is_valid(row)).collect();
    call.list_of(Arc::new(arrow::array::Int32Array::from(all)), lengths, valid)
}

/// Items that are equal to the second argument are left out, or are the third instead.
fn replaced(call: &Call<'_>, remove: bool) -> Result<ArrayRef> {
    let mut hits: Vec<Vec<i32>> = vec![];
    found(call, |_, at| hits.push(at))?;
    let list = call.list(0);
    let shift = list.values().len();
    let values: Vec<&dyn Array> = match remove {
        true => vec![list.values()],
        false => vec![list.values(), &call.columns[2]],
    };
    gathered(call, &values, |row, chosen| {
        for (index, place) in places(call, 0, row).enumerate() {
            match (hits[row].contains(&(index as i32 + 1)), remove) {
                (false, _) => chosen.push(place as u32),
                (true, false) => chosen.push((shift + row) as u32),
                (true, true) => {}
            }
        }
        Ok(list.is_valid(row))
    })
}

/// NULL items are left out, or are the third argument.
fn to_text(call: &Call<'_>) -> Result<ArrayRef> {
    let SqlType::Array(item) = &call.types[0] else {
        return Err(Error::internal("array_to_string of no array"));
    };
    let texts = cast_array(call.list(0).values(), item, &SqlType::Text, call.settings)?;
    let texts = texts.as_string::<i32>();
    call.to_text(|row, out| {
        if call.columns[0].is_null(row) || call.columns[1].is_null(row) {
            return Ok(false);
        }
        let null = call.columns.get(2).filter(|column| column.is_valid(row));
        let null = null.map(|column| column.as_string::<i32>().value(row));
        let mut several = false;
        for place in places(call, 0, row) {
            let Some(text) = texts.is_valid(place).then(|| texts.value(place)).or(null) else {
                continue;
            };
            if several {
                out.push_str(call.text(1).value(row));
            }
            out.push_str(text);
            several = true;
        }
        Ok(true)
    })
}

/// How many items a row's array has in each dimension; arrays in an array are of one length.
fn lengths(list: &ListArray, row: usize) -> Vec<i32> {
    let mut lengths = vec![list.value_length(row)];
    let mut items = list.value(row);
    while let Some(inner) = items.as_list_opt::<i32>().cloned() {
        lengths.push(if inner.is_empty() { 0 } else { inner.value_length(0) });
        items = if inner.is_empty() { inner.values().slice(0, 0) } else { inner.value(0) };
    }
    lengths
}

/// A bound of a dimension; NULL of one that the array does not have, and of empty arrays.
fn bound(call: &Call<'_>, of: fn(i32) -> i32) -> Result<ArrayRef> {
    call.to_values::<Int32Type>(|row| {
        let lengths = lengths(call.list(0), row);
        let dimension = usize::try_from(call.int4(1, row)).unwrap_or(0);
        let length = dimension.checked_sub(1).and_then(|index| lengths.get(index).copied());
        Ok(length.filter(|length| *length > 0).map(of))
    })
}

fn trim_array(call: &Call<'_>) -> Result<ArrayRef> {
    let list = call.list(0);
    gathered(call, &[list.values()], |row, chosen| {
        if !call.sees(row) {
            return Ok(false);
        }
        let places = places(call, 0, row);
        let dropped = usize::try_from(call.int4(1, row)).ok().filter(|n| *n <= places.len());
        let dropped = dropped.ok_or_else(|| {
            Error::user(
                SqlState::ARRAY_SUBSCRIPT_ERROR,
                format!("number of elements to trim must be between 0 and {}", places.len()),
            )
        })?;
        chosen.extend((places.start..places.end - dropped).map(|place| place as u32));
        Ok(true)
    })
}

/// `array_fill(value, ARRAY[length])`.
fn fill(call: &Call<'_>) -> Result<ArrayRef> {
    let lengths = call.list(1);
    let counts = arrow::compute::cast(lengths.values(), &DataType::Int32)?;
    let counts = counts.as_primitive::<Int32Type>();
    gathered(call, &[&call.columns[0]], |row, chosen| {
        let places = places(call, 1, row);
        if lengths.is_null(row) || places.len() != 1 {
            return Err(Error::unsupported("array_fill of several dimensions"));
        }
        let count = counts.value(places.start).max(0) as usize;
        chosen.extend(std::iter::repeat_n(row as u32, count));
        Ok(true)
    })
}
