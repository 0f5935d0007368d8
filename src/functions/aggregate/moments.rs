//! Variance, standard deviation, covariance, correlation and linear regression.
//!
//! They all come from the count and the sums of x, y, x*x, y*y and x*y, which are exact (see
//! `exact_float.rs`), so that rows can be taken back and constant values have variance 0. The one
//! subtraction that would lose digits, `n * sum(x*y) - sum(x) * sum(y)`, is done on integers of
//! 256 bits; only where the magnitudes of a group are too far apart for that, on pairs of floats.
//!
//! With NaN or an infinity among the values the result is NaN. Results agree with batch execution
//! except that those are more precise.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array};
use arrow::datatypes::{DataType, i256};

use crate::functions::aggregate::exact_float::{ExactSum, Term};
use crate::functions::aggregate::layout::{Call, Kind, Layout, Placed};
use crate::functions::aggregate::{AggregateInfo, ChangedRows, Evaluate, Evaluated, Retraction};
use crate::types::error::Result;

pub const VAR_SAMP: AggregateInfo = AggregateInfo {
    name: "var_samp",
    signature: "var_samp(value) -> double precision",
    retraction: Retraction::Retractable,
    description: "The sample variance; NULL for less than two values.",
};

pub const VAR_POP: AggregateInfo = AggregateInfo {
    name: "var_pop",
    signature: "var_pop(value) -> double precision",
    retraction: Retraction::Retractable,
    description: "The variance of the values; NULL when there are none.",
};

pub const STDDEV_SAMP: AggregateInfo = AggregateInfo {
    name: "stddev_samp",
    signature: "stddev_samp(value) -> double precision",
    retraction: Retraction::Retractable,
    description: "The sample standard deviation; NULL for less than two values.",
};

pub const STDDEV_POP: AggregateInfo = AggregateInfo {
    name: "stddev_pop",
    signature: "stddev_pop(value) -> double precision",
    retraction: Retraction::Retractable,
    description: "The standard deviation of the values; NULL when there are none.",
};

pub const COVAR_SAMP: AggregateInfo = AggregateInfo {
    name: "covar_samp",
    signature: "covar_samp(y, x) -> double precision",
    retraction: Retraction::Retractable,
    description: "The sample covariance; NULL for less than two pairs.",
};

pub const COVAR_POP: AggregateInfo = AggregateInfo {
    name: "covar_pop",
    signature: "covar_pop(y, x) -> double precision",
    retraction: Retraction::Retractable,
    description: "The covariance of the pairs; NULL when there are none.",
};

pub const CORR: AggregateInfo = AggregateInfo {
    name: "corr",
    signature: "corr(y, x) -> double precision",
    retraction: Retraction::Retractable,
    description: "The correlation coefficient; NULL when either side does not vary.",
};

pub const REGR_SLOPE: AggregateInfo = AggregateInfo {
    name: "regr_slope",
    signature: "regr_slope(y, x) -> double precision",
    retraction: Retraction::Retractable,
    description: "The slope of the fitted line; NULL when x does not vary.",
};

pub const REGR_INTERCEPT: AggregateInfo = AggregateInfo {
    name: "regr_intercept",
    signature: "regr_intercept(y, x) -> double precision",
    retraction: Retraction::Retractable,
    description: "Where the fitted line crosses x = 0; NULL when x does not vary.",
};

pub const REGR_COUNT: AggregateInfo = AggregateInfo {
    name: "regr_count",
    signature: "regr_count(y, x) -> bigint",
    retraction: Retraction::Retractable,
    description: "The number of pairs of which neither is NULL.",
};

pub const REGR_R2: AggregateInfo = AggregateInfo {
    name: "regr_r2",
    signature: "regr_r2(y, x) -> double precision",
    retraction: Retraction::Retractable,
    description: "The square of the correlation coefficient; NULL when either side does not vary.",
};

pub const REGR_AVGX: AggregateInfo = AggregateInfo {
    name: "regr_avgx",
    signature: "regr_avgx(y, x) -> double precision",
    retraction: Retraction::Retractable,
    description: "The mean of x over the pairs.",
};

pub const REGR_AVGY: AggregateInfo = AggregateInfo {
    name: "regr_avgy",
    signature: "regr_avgy(y, x) -> double precision",
    retraction: Retraction::Retractable,
    description: "The mean of y over the pairs.",
};

pub const REGR_SXX: AggregateInfo = AggregateInfo {
    name: "regr_sxx",
    signature: "regr_sxx(y, x) -> double precision",
    retraction: Retraction::Retractable,
    description: "The sum of the squared distances of x from its mean.",
};

pub const REGR_SYY: AggregateInfo = AggregateInfo {
    name: "regr_syy",
    signature: "regr_syy(y, x) -> double precision",
    retraction: Retraction::Retractable,
    description: "The sum of the squared distances of y from its mean.",
};

pub const REGR_SXY: AggregateInfo = AggregateInfo {
    name: "regr_sxy",
    signature: "regr_sxy(y, x) -> double precision",
    retraction: Retraction::Retractable,
    description: "The sum of the products of the distances of x and y from their means.",
};

/// What is computed from the sums. The first argument is y, the second x; functions of one
/// argument take it for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistic {
    VarSamp,
    VarPop,
    StddevSamp,
    StddevPop,
    CovarSamp,
    CovarPop,
    Corr,
    RegrSlope,
    RegrIntercept,
    RegrR2,
    RegrAvgx,
    RegrAvgy,
    RegrSxx,
    RegrSyy,
    RegrSxy,
}

impl Statistic {
    fn argument_count(self) -> usize {
        match self {
            Statistic::VarSamp
            | Statistic::VarPop
            | Statistic::StddevSamp
            | Statistic::StddevPop => 1,
            _ => 2,
        }
    }
}

/// One of the statistics, of numeric arguments.
pub fn moments(
    layout: &mut Layout,
    call: &Call,
    statistic: Statistic,
) -> Result<Box<dyn Evaluate>> {
    let numeric = call.arguments.iter().all(|a| a.data_type.is_numeric());
    if call.arguments.len() != statistic.argument_count()
        || !numeric
        || call.return_type != DataType::Float64
    {
        return Err(call.unsupported());
    }
    let input = layout.input(call, &call.arguments);
    let count = layout.count(input)?;
    let one = statistic.argument_count() == 1;
    let mut sum = |term| layout.accumulator(input, Kind::FloatSum(term));
    let y = sum(Term::First)?;
    let yy = sum(Term::FirstSquared)?;
    let (x, xx, xy) = match one {
        true => (y, yy, yy),
        false => (sum(Term::Second)?, sum(Term::SecondSquared)?, sum(Term::Product)?),
    };
    Ok(Box::new(MomentsValue { statistic, count, sums: [y, x, yy, xx, xy] }))
}

struct MomentsValue {
    statistic: Statistic,
    count: usize,
    /// Indices of the sums of y, x, y*y, x*x, x*y.
    sums: [usize; 5],
}

impl Evaluate for MomentsValue {
    fn evaluate(&self, rows: &ChangedRows<'_>, accumulators: &[Placed]) -> Result<Evaluated> {
        let sums = self
            .sums
            .iter()
            .map(|index| {
                let Placed { accumulator, offset, .. } = &accumulators[*index];
                accumulator.exact_sums(rows, *offset)
            })
            .collect::<Result<Vec<_>>>()?;
        let values = (0..rows.len()).map(|row| {
            let count = rows.word(row, self.count) as i64;
            let [y, x, yy, xx, xy] = [0, 1, 2, 3, 4].map(|sum: usize| sums[sum][row]);
            (count > 0).then(|| value(self.statistic, &Sums { count, y, x, yy, xx, xy })).flatten()
        });
        let values: ArrayRef = Arc::new(values.collect::<Float64Array>());
        Ok(Evaluated::all(values))
    }
}

/// The sums of one group with at least one row.
struct Sums {
    count: i64,
    y: ExactSum,
    x: ExactSum,
    yy: ExactSum,
    xx: ExactSum,
    xy: ExactSum,
}

fn value(statistic: Statistic, sums: &Sums) -> Option<f64> {
    let count = sums.count as f64;
    // Each is count times a sum over products of distances from the means.
    let syy = || spread(sums.count, sums.yy, sums.y, sums.y).max(0.0) / count;
    let sxx = || spread(sums.count, sums.xx, sums.x, sums.x).max(0.0) / count;
    let sxy = || spread(sums.count, sums.xy, sums.x, sums.y) / count;
    let several = sums.count > 1;
    Some(match statistic {
        Statistic::VarPop => nan_kept(syy(), sums.y) / count,
        Statistic::StddevPop => (nan_kept(syy(), sums.y) / count).sqrt(),
        Statistic::VarSamp if several => nan_kept(syy(), sums.y) / (count - 1.0),
        Statistic::StddevSamp if several => (nan_kept(syy(), sums.y) / (count - 1.0)).sqrt(),
        Statistic::CovarPop => sxy() / count,
        Statistic::CovarSamp if several => sxy() / (count - 1.0),
        Statistic::RegrAvgx => to_float(sums.x) / count,
        Statistic::RegrAvgy => to_float(sums.y) / count,
        Statistic::RegrSxx => nan_kept(sxx(), sums.x),
        Statistic::RegrSyy => nan_kept(syy(), sums.y),
        Statistic::RegrSxy => sxy(),
        Statistic::Corr => {
            let (sxx, syy) = (nan_kept(sxx(), sums.x), nan_kept(syy(), sums.y));
            if !several || sxx == 0.0 || syy == 0.0 {
                return None;
            }
            let product = sxx * syy;
            let root = match product.is_normal() {
                true => product.sqrt(),
                false => sxx.sqrt() * syy.sqrt(),
            };
            // Rounding may take a perfect correlation a hair past 1.
            (sxy() / root).clamp(-1.0, 1.0)
        }
        Statistic::RegrSlope | Statistic::RegrIntercept | Statistic::RegrR2 => {
            let sxx = nan_kept(sxx(), sums.x);
            if !several || sxx == 0.0 {
                return None;
            }
            let slope = sxy() / sxx;
            match statistic {
                Statistic::RegrSlope => slope,
                Statistic::RegrIntercept => (to_float(sums.y) - slope * to_float(sums.x)) / count,
                _ => {
                    let syy = nan_kept(syy(), sums.y);
                    if syy == 0.0 {
                        return None;
                    }
                    slope * (sxy() / syy)
                }
            }
        }
        Statistic::VarSamp | Statistic::StddevSamp | Statistic::CovarSamp => return None,
    })
}

/// NaN when the values have a NaN or an infinity; `max` above does not keep it.
fn nan_kept(value: f64, sum: ExactSum) -> f64 {
    if to_float(sum).is_finite() || value > 0.0 { value } else { f64::NAN }
}

fn to_float(sum: ExactSum) -> f64 {
    match sum {
        ExactSum::Window { sum, exponent } => times_power(sum as f64, exponent),
        ExactSum::Pair(value, rest) => value + rest,
    }
}

/// `value * 2^exponent`, in steps that do not leave the range on the way.
fn times_power(mut value: f64, mut exponent: i32) -> f64 {
    while exponent != 0 && value != 0.0 && value.is_finite() {
        let step = exponent.clamp(-1000, 1000);
        value *= 2f64.powi(step);
        exponent -= step;
    }
    value
}

/// `count * xy - x * y`.
fn spread(count: i64, xy: ExactSum, x: ExactSum, y: ExactSum) -> f64 {
    exact_spread(count, xy, x, y).unwrap_or_else(|| pair_spread(count, xy, x, y))
}

/// The same on integers of 256 bits, when all of it fits.
fn exact_spread(count: i64, xy: ExactSum, x: ExactSum, y: ExactSum) -> Option<f64> {
    let (
        ExactSum::Window { sum: xy, exponent: xy_exponent },
        ExactSum::Window { sum: x, exponent: x_exponent },
        ExactSum::Window { sum: y, exponent: y_exponent },
    ) = (xy, x, y)
    else {
        return None;
    };
    let wide = |value: i128| i256::from_i128(value);
    let left = wide(xy).checked_mul(wide(i128::from(count)))?;
    let right = wide(x).checked_mul(wide(y))?;
    let (left_exponent, right_exponent) = (xy_exponent, x_exponent + y_exponent);
    let exponent = match (xy, right == i256::ZERO) {
        (0, _) => right_exponent,
        (_, true) => left_exponent,
        _ => left_exponent.min(right_exponent),
    };
    let left = shifted(left, left_exponent - exponent)?;
    let right = shifted(right, right_exponent - exponent)?;
    let difference = left.checked_sub(right)?;
    Some(times_power(super::sum::float_of(difference), exponent))
}

/// `value << bits`, unless that overflows.
fn shifted(value: i256, bits: i32) -> Option<i256> {
    if value == i256::ZERO {
        return Some(value);
    }
    let bits = u8::try_from(bits).ok()?;
    let moved = value << bits;
    (moved >> bits == value).then_some(moved)
}

/// The same on pairs of floats.
fn pair_spread(count: i64, xy: ExactSum, x: ExactSum, y: ExactSum) -> f64 {
    let (xy, x, y) = (to_pair(xy), to_pair(x), to_pair(y));
    let left = multiply(xy, (count as f64, 0.0));
    let right = multiply(x, y);
    let (high, error) = add(left.0, -right.0);
    high + (error + (left.1 - right.1))
}

fn to_pair(sum: ExactSum) -> (f64, f64) {
    match sum {
        ExactSum::Pair(value, rest) => (value, rest),
        ExactSum::Window { sum, exponent } => {
            let high = sum as f64;
            let rest = (sum - high as i128) as f64;
            (times_power(high, exponent), times_power(rest, exponent))
        }
    }
}

/// The sum and what rounding took from it.
fn add(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let part = sum - a;
    (sum, (a - (sum - part)) + (b - part))
}

fn multiply(a: (f64, f64), b: (f64, f64)) -> (f64, f64) {
    let product = a.0 * b.0;
    (product, a.0.mul_add(b.0, -product) + (a.0 * b.1 + a.1 * b.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(sum: i128, exponent: i32) -> ExactSum {
        ExactSum::Window { sum, exponent }
    }

    #[test]
    fn a_large_offset_costs_no_digits() {
        // Values 2^60 and 2^60 + 2: exact as integers, far beyond a float's 53 bits when squared.
        let (a, b) = (1i128 << 60, (1i128 << 60) + 2);
        let squares = window((a * a + b * b) / 4, 2);
        assert_eq!((a * a + b * b) % 4, 0);
        assert_eq!(spread(2, squares, window(a + b, 0), window(a + b, 0)), 4.0);
    }

    #[test]
    fn constants_do_not_vary() {
        let value = 0x1f_ffff_ffff_ffffi128;
        for count in [1i64, 3, 1000, 1 << 19] {
            let sum = window(value * i128::from(count), -30);
            let squares = window(value * value * i128::from(count), -60);
            assert_eq!(spread(count, squares, sum, sum), 0.0);
        }
    }

    #[test]
    fn pairs_take_over_when_integers_do_not_fit() {
        let (x, xx) = (window(1, 300), window(1, 600));
        assert_eq!(exact_spread(1, xx, x, window(3, -300)), None);
        let spread = spread(2, window(3, 0), window(1, 500), window(1, -499));
        assert_eq!(spread, 4.0);
        assert_eq!(pair_spread(2, window(3, 0), window(1, 500), window(1, -499)), 4.0);
    }
}
