//! `bool_and`, `bool_or`: the count of the true values beside the count of all of them.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::DataType;

use crate::functions::aggregate::layout::{Call, Kind, Layout, Placed};
use crate::functions::aggregate::{
    Accumulator, AggregateInfo, ChangedRows, Evaluate, Evaluated, Retraction, Rows, Slots, add_word,
};
use crate::types::error::{Error, Result};

pub const BOOL_AND: AggregateInfo = AggregateInfo {
    name: "bool_and",
    signature: "bool_and(boolean) -> boolean",
    retraction: Retraction::Retractable,
    description: "Whether all values that are not NULL are true; NULL when there are none.",
};

pub const BOOL_OR: AggregateInfo = AggregateInfo {
    name: "bool_or",
    signature: "bool_or(boolean) -> boolean",
    retraction: Retraction::Retractable,
    description: "Whether any value is true; NULL when all are NULL.",
};

/// `bool_and` (or `bool_or`) of one argument.
pub fn boolean(layout: &mut Layout, call: &Call, all: bool) -> Result<Box<dyn Evaluate>> {
    if call.argument()?.data_type != DataType::Boolean || call.return_type != DataType::Boolean {
        return Err(call.unsupported());
    }
    let input = layout.input_with_duplicates(call, &call.arguments);
    let trues = layout.words(input, Kind::TrueCount)?;
    Ok(Box::new(BooleanValue { trues, count: layout.count(input)?, all }))
}

struct BooleanValue {
    trues: usize,
    count: usize,
    all: bool,
}

impl Evaluate for BooleanValue {
    fn evaluate(&self, rows: &ChangedRows<'_>, _: &[Placed]) -> Result<Evaluated> {
        let values = BooleanBuffer::collect_bool(rows.len(), |row| {
            let trues = rows.word(row, self.trues);
            if self.all { trues == rows.word(row, self.count) } else { trues != 0 }
        });
        let valid = Some(rows.counted(self.count));
        Ok(Evaluated::all(Arc::new(BooleanArray::new(values, valid))))
    }
}

/// Sums the weights of rows whose argument is true.
pub struct CountTrue;

impl Accumulator for CountTrue {
    fn width_words(&self) -> usize {
        1
    }

    fn fold(&mut self, slots: &mut Slots<'_>, rows: &Rows<'_>) -> Result<()> {
        let column = rows.arguments[0]
            .as_boolean_opt()
            .ok_or_else(|| Error::internal("bool_and over a column that is not boolean"))?;
        rows.for_each(column.nulls(), |group, row, weight| {
            let count = slots.word(group);
            *count = count.wrapping_add(if column.value(row) { weight as u64 } else { 0 });
        });
        Ok(())
    }

    fn merge(&mut self, own: &mut [u64], other: &[u64], _: Option<&[u8]>) -> Result<()> {
        add_word(own, other);
        Ok(())
    }
}
