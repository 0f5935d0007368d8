//! `avg`: the sum over the count, from the accumulators that `sum` and `count` use.
//!
//! Of floats it is a float; of integers and decimals a decimal with at least 16 digits after the
//! point, rounded there.

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Float64Type, i256};

use crate::functions::aggregate::layout::{Call, Kind, Layout, Placed};
use crate::functions::aggregate::sum::{SumResult, float_of, power_of_ten, sum_kind, whole_sum};
use crate::functions::aggregate::{AggregateInfo, ChangedRows, Evaluate, Evaluated, Retraction};
use crate::types::error::Result;

pub const AVG: AggregateInfo = AggregateInfo {
    name: "avg",
    signature: "avg(integer | numeric) -> numeric, avg(double precision) -> double precision",
    retraction: Retraction::Retractable,
    description: "The mean of the values that are not NULL; NULL when there are none.",
};

/// `avg` of one numeric argument.
pub fn avg(layout: &mut Layout, call: &Call) -> Result<Box<dyn Evaluate>> {
    let argument = call.argument()?;
    let input = layout.input(call, &call.arguments);
    let (kind, scale) = sum_kind(&argument.data_type).ok_or_else(|| call.unsupported())?;
    let result = SumResult::new(call)?;
    if matches!(kind, Kind::FloatSum(_)) && !result.is_float() {
        return Err(call.unsupported());
    }
    let count = layout.count(input)?;
    let index = layout.accumulator(input, kind.clone())?;
    let offset = layout.accumulators[index].offset;
    let duration = matches!(argument.data_type, DataType::Duration(_));
    if duration && result.is_float() {
        return Err(call.unsupported());
    }
    let sum = match kind {
        Kind::FloatSum(_) => Sum::Float { index },
        Kind::WideSum => Sum::Whole { wide: true },
        _ => Sum::Whole { wide: false },
    };
    Ok(Box::new(AvgValue { sum, offset, count, scale, result }))
}

enum Sum {
    Float { index: usize },
    Whole { wide: bool },
}

struct AvgValue {
    sum: Sum,
    offset: usize,
    count: usize,
    /// Decimal digits of the sum after the point.
    scale: i8,
    result: SumResult,
}

impl Evaluate for AvgValue {
    fn evaluate(&self, rows: &ChangedRows<'_>, accumulators: &[Placed]) -> Result<Evaluated> {
        // Where nothing is counted the value is NULL; divide by 1 there.
        let count = |row| (rows.word(row, self.count) as i64).max(1);
        match self.sum {
            Sum::Float { index } => {
                let sums = accumulators[index].accumulator.values(rows, self.offset)?;
                let sums = sums.as_primitive::<Float64Type>().values();
                self.result.floats(rows, self.count, |row| sums[row] / count(row) as f64)
            }
            Sum::Whole { wide } if self.result.is_float() => {
                let factor = 10f64.powi(i32::from(self.scale));
                self.result.floats(rows, self.count, |row| {
                    let sum = float_of(whole_sum(rows, row, self.offset, wide));
                    sum / count(row) as f64 / factor
                })
            }
            Sum::Whole { wide } => {
                let digits = i16::from(self.result.scale()) - i16::from(self.scale);
                let factor = power_of_ten(digits)?;
                let value = |row| {
                    // A sum of 2^63 values of 38 digits times 10^4 fits 256 bits.
                    let sum = whole_sum(rows, row, self.offset, wide).wrapping_mul(factor);
                    let count = i256::from_i128(i128::from(count(row)));
                    let (quotient, rest) = (sum.wrapping_div(count), sum.wrapping_rem(count));
                    // Half and more of the last digit rounds away from 0, as in Postgres.
                    let rest = rest.wrapping_abs();
                    if rest >= count.wrapping_sub(rest) {
                        let away = if sum.is_negative() { i256::MINUS_ONE } else { i256::ONE };
                        quotient.wrapping_add(away)
                    } else {
                        quotient
                    }
                };
                self.result.whole(rows, self.count, self.result.scale(), value)
            }
        }
    }
}
