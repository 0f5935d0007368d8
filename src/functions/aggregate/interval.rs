//! `sum` and `avg` of intervals: months, days and time are summed apart, in 64, 64 and 128 bits,
//! which wrap; only the result has to fit an interval.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{IntervalMonthDayNano, IntervalMonthDayNanoType};

use crate::functions::aggregate::layout::{Call, Kind, Layout, Placed};
use crate::functions::aggregate::{
    Accumulator, ChangedRows, Evaluate, Evaluated, Rows, Slots, sum_of, words_of,
};
use crate::functions::scalar::datetime::scale;
use crate::types::error::{Error, Result, SqlState};

/// `sum` (or `avg`) of one interval argument.
pub fn interval(layout: &mut Layout, call: &Call, mean: bool) -> Result<Box<dyn Evaluate>> {
    let input = layout.input(call, &call.arguments);
    let count = layout.count(input)?;
    let offset = layout.words(input, Kind::IntervalSum)?;
    Ok(Box::new(IntervalValue { offset, count, mean }))
}

struct IntervalValue {
    offset: usize,
    count: usize,
    mean: bool,
}

fn out_of_range() -> Error {
    Error::user(SqlState::DATETIME_FIELD_OVERFLOW, "interval out of range")
}

impl IntervalValue {
    fn value(&self, rows: &ChangedRows<'_>, row: usize) -> Result<IntervalMonthDayNano> {
        let [months, days, low, high] = *rows.array::<4>(row, self.offset);
        let months = i32::try_from(months as i64).map_err(|_| out_of_range())?;
        let days = i32::try_from(days as i64).map_err(|_| out_of_range())?;
        let ns = i64::try_from(sum_of(&[low, high])).map_err(|_| out_of_range())?;
        let sum = IntervalMonthDayNano::new(months, days, ns);
        match self.mean {
            false => Ok(sum),
            true => scale(sum, 1.0 / rows.word(row, self.count) as i64 as f64),
        }
    }
}

impl Evaluate for IntervalValue {
    fn evaluate(&self, rows: &ChangedRows<'_>, _: &[Placed]) -> Result<Evaluated> {
        let mut failed = Vec::new();
        let mut values = Vec::with_capacity(rows.len());
        for row in 0..rows.len() {
            let there = rows.word(row, self.count) != 0;
            match there.then(|| self.value(rows, row)) {
                None => values.push(None),
                Some(Ok(value)) => values.push(Some(value)),
                Some(Err(error)) => {
                    failed.push((row, error));
                    values.push(None);
                }
            }
        }
        let values: ArrayRef =
            Arc::new(PrimitiveArray::<IntervalMonthDayNanoType>::from_iter(values));
        Ok(Evaluated { values, failed })
    }
}

/// Sums the parts of intervals.
pub struct IntervalSum;

impl Accumulator for IntervalSum {
    fn width_words(&self) -> usize {
        4
    }

    fn fold(&mut self, slots: &mut Slots<'_>, rows: &Rows<'_>) -> Result<()> {
        let column = rows.arguments[0]
            .as_primitive_opt::<IntervalMonthDayNanoType>()
            .ok_or_else(|| Error::internal("a sum of intervals over another type"))?;
        rows.for_each(column.nulls(), |group, row, weight| {
            let value = column.value(row);
            let words = slots.array::<4>(group);
            let months = i64::from(value.months).wrapping_mul(weight);
            let days = i64::from(value.days).wrapping_mul(weight);
            words[0] = words[0].wrapping_add(months as u64);
            words[1] = words[1].wrapping_add(days as u64);
            let ns = i128::from(value.nanoseconds).wrapping_mul(i128::from(weight));
            [words[2], words[3]] = words_of(sum_of(&[words[2], words[3]]).wrapping_add(ns));
        });
        Ok(())
    }

    fn merge(&mut self, own: &mut [u64], other: &[u64], _: Option<&[u8]>) -> Result<()> {
        own[0] = own[0].wrapping_add(other[0]);
        own[1] = own[1].wrapping_add(other[1]);
        let [sum, more] = [&*own, other].map(|w| sum_of(&[w[2], w[3]]));
        own[2..].copy_from_slice(&words_of(sum.wrapping_add(more)));
        Ok(())
    }
}
