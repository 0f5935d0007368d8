//! `bit_and`, `bit_or`, `bit_xor` of integers.
//!
//! `bit_and` and `bit_or` count, for each bit, the values that have it: one word a bit, so that a
//! value can be taken back. Over input that never deletes one word with the result is enough.
//! `bit_xor` takes a value back by adding it again.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};

use crate::functions::aggregate::layout::{Argument, Call, Kind, Layout, Placed};
use crate::functions::aggregate::{
    Accumulator, AggregateInfo, ChangedRows, Evaluate, Evaluated, Retraction, Rows, Slots,
};
use crate::types::error::Result;

pub const BIT_AND: AggregateInfo = AggregateInfo {
    name: "bit_and",
    signature: "bit_and(integer) -> the same type",
    retraction: Retraction::Retractable,
    description: "The bits that all values have; NULL when there are none.",
};

pub const BIT_OR: AggregateInfo = AggregateInfo {
    name: "bit_or",
    signature: "bit_or(integer) -> the same type",
    retraction: Retraction::Retractable,
    description: "The bits that any value has; NULL when there are none.",
};

pub const BIT_XOR: AggregateInfo = AggregateInfo {
    name: "bit_xor",
    signature: "bit_xor(integer) -> the same type",
    retraction: Retraction::Retractable,
    description: "The bits that an odd number of values have; NULL when there are none.",
};

/// Which of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BitFunction {
    And,
    Or,
    Xor,
}

/// A bit function of one integer argument.
pub fn bits(layout: &mut Layout, call: &Call, function: BitFunction) -> Result<Box<dyn Evaluate>> {
    let Argument { data_type, .. } = call.argument()?;
    let width = match data_type {
        DataType::Int8 => 8,
        DataType::Int16 => 16,
        DataType::Int32 => 32,
        DataType::Int64 => 64,
        _ => return Err(call.unsupported()),
    };
    if call.return_type != *data_type {
        return Err(call.unsupported());
    }
    let input = match function {
        BitFunction::Xor => layout.input(call, &call.arguments),
        _ => layout.input_with_duplicates(call, &call.arguments),
    };
    let kind = match function {
        BitFunction::Xor => Kind::BitXor,
        _ if !call.append_only => Kind::BitCounts { width },
        BitFunction::And => Kind::BitFold { complement: true },
        BitFunction::Or => Kind::BitFold { complement: false },
    };
    let counted = matches!(kind, Kind::BitCounts { .. });
    let offset = layout.words(input, kind)?;
    let count = layout.count(input)?;
    let data_type = data_type.clone();
    Ok(Box::new(BitValue { function, counted, width, offset, count, data_type }))
}

struct BitValue {
    function: BitFunction,
    /// There is a word for each bit.
    counted: bool,
    width: usize,
    offset: usize,
    count: usize,
    data_type: DataType,
}

impl BitValue {
    fn value(&self, rows: &ChangedRows<'_>, row: usize) -> u64 {
        let first = rows.word(row, self.offset);
        if !self.counted {
            return if self.function == BitFunction::And { !first } else { first };
        }
        let all = rows.word(row, self.count);
        (0..self.width).fold(0, |bits, bit| {
            let having = rows.word(row, self.offset + bit);
            let set = match self.function {
                BitFunction::And => having == all,
                _ => having != 0,
            };
            bits | u64::from(set) << bit
        })
    }
}

impl Evaluate for BitValue {
    fn evaluate(&self, rows: &ChangedRows<'_>, _: &[Placed]) -> Result<Evaluated> {
        let unused = 64 - self.width;
        // Sign-extended from the type's width, so that the cast below keeps the value.
        let value = |row| ((self.value(rows, row) << unused) as i64) >> unused;
        let values = (0..rows.len()).map(value).collect::<Vec<i64>>();
        let values: ArrayRef =
            std::sync::Arc::new(Int64Array::new(values.into(), Some(rows.counted(self.count))));
        Ok(Evaluated::all(cast(&values, &self.data_type)?))
    }
}

/// Calls `visit(group, bits, weight)` for each row that is not NULL; bits are sign-extended.
fn for_each_value(rows: &Rows<'_>, mut visit: impl FnMut(u32, u64, i64)) -> Result<()> {
    let column = cast(&rows.arguments[0], &DataType::Int64)?;
    let column = column.as_primitive::<Int64Type>();
    let values = column.values();
    rows.for_each(column.nulls(), |group, row, weight| visit(group, values[row] as u64, weight));
    Ok(())
}

/// For each bit, the weights of the values that have it.
pub struct BitCounts {
    pub width: usize,
}

impl Accumulator for BitCounts {
    fn width_words(&self) -> usize {
        self.width
    }

    fn fold(&mut self, slots: &mut Slots<'_>, rows: &Rows<'_>) -> Result<()> {
        let width = self.width;
        for_each_value(rows, |group, bits, weight| {
            let at = group as usize * slots.stride + slots.offset;
            for (bit, count) in slots.words[at..at + width].iter_mut().enumerate() {
                *count = count.wrapping_add((bits >> bit & 1).wrapping_mul(weight as u64));
            }
        })
    }
}

/// The bits that any value (or complement of a value) has.
pub struct BitFold {
    pub complement: bool,
}

impl Accumulator for BitFold {
    fn width_words(&self) -> usize {
        1
    }

    fn fold(&mut self, slots: &mut Slots<'_>, rows: &Rows<'_>) -> Result<()> {
        let flip = if self.complement { u64::MAX } else { 0 };
        for_each_value(rows, |group, bits, _| *slots.word(group) |= bits ^ flip)
    }

    fn merge(&mut self, own: &mut [u64], other: &[u64], _: Option<&[u8]>) -> Result<()> {
        own[0] |= other[0];
        Ok(())
    }
}

/// The bits that an odd number of values have.
pub struct BitXor;

impl Accumulator for BitXor {
    fn width_words(&self) -> usize {
        1
    }

    fn fold(&mut self, slots: &mut Slots<'_>, rows: &Rows<'_>) -> Result<()> {
        for_each_value(rows, |group, bits, weight| {
            if weight & 1 == 1 {
                *slots.word(group) ^= bits;
            }
        })
    }

    fn merge(&mut self, own: &mut [u64], other: &[u64], _: Option<&[u8]>) -> Result<()> {
        own[0] ^= other[0];
        Ok(())
    }
}
