//! `count(*)`, `count(x)`: one word, the sum of the weights.

use std::sync::Arc;

use arrow::array::{Array, Int64Array};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::DataType;

use crate::functions::aggregate::layout::{Call, Layout, Placed};
use crate::functions::aggregate::{
    Accumulator, AggregateInfo, ChangedRows, Evaluate, Evaluated, Retraction, Rows, Slots, add_word,
};
use crate::types::error::Result;

pub const COUNT: AggregateInfo = AggregateInfo {
    name: "count",
    signature: "count(*), count(value, ...) -> bigint",
    retraction: Retraction::Retractable,
    description: "The number of rows in which no argument is NULL.",
};

/// `count` of rows that pass the filter and whose arguments are not NULL.
pub fn count(layout: &mut Layout, call: &Call) -> Result<Box<dyn Evaluate>> {
    let input = layout.input(call, &call.arguments);
    Ok(Box::new(CountValue { count: layout.count(input)? }))
}

/// `regr_count`: rows in which both arguments are not NULL.
pub fn regr_count(layout: &mut Layout, call: &Call) -> Result<Box<dyn Evaluate>> {
    if call.arguments.len() != 2 {
        return Err(call.unsupported());
    }
    let input = layout.input(call, &call.arguments);
    Ok(Box::new(RegrCountValue {
        count: CountValue { count: layout.count(input)? },
        return_type: call.return_type.clone(),
    }))
}

struct CountValue {
    count: usize,
}

struct RegrCountValue {
    count: CountValue,
    return_type: DataType,
}

impl Evaluate for RegrCountValue {
    fn evaluate(&self, rows: &ChangedRows<'_>, placed: &[Placed]) -> Result<Evaluated> {
        let counts = self.count.evaluate(rows, placed)?;
        Ok(Evaluated::all(cast(&counts.values, &self.return_type)?))
    }
}

impl Evaluate for CountValue {
    fn evaluate(&self, rows: &ChangedRows<'_>, _: &[Placed]) -> Result<Evaluated> {
        let counts = (0..rows.len()).map(|row| rows.word(row, self.count) as i64);
        Ok(Evaluated::all(Arc::new(Int64Array::from_iter_values(counts))))
    }
}

/// Sums weights of rows without a NULL argument.
pub struct CountRows;

impl Accumulator for CountRows {
    fn width_words(&self) -> usize {
        1
    }

    fn fold(&mut self, slots: &mut Slots<'_>, rows: &Rows<'_>) -> Result<()> {
        let mut nulls = None;
        for argument in rows.arguments {
            nulls = NullBuffer::union(nulls.as_ref(), argument.logical_nulls().as_ref());
        }
        rows.for_each(nulls.as_ref(), |group, _, weight| {
            let count = slots.word(group);
            *count = count.wrapping_add(weight as u64);
        });
        Ok(())
    }

    fn merge(&mut self, own: &mut [u64], other: &[u64], _: Option<&[u8]>) -> Result<()> {
        add_word(own, other);
        Ok(())
    }
}
