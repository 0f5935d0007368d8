//! Mathematical functions and operators (chapter 9.3 of Postgres's manual), where DataFusion lacks
//! them or gives other types or errors.
//!
//! A numeric has a fixed number of digits after the point here, so results say how many: a
//! quotient at least 16, a rounded number as many as it was rounded to.

use arrow::array::ArrayRef;
use arrow::datatypes::{Decimal128Type, Float64Type, Int16Type, Int32Type, Int64Type, i256};
use datafusion::common::ScalarValue;
use rand::Rng;

use crate::functions::aggregate::types::QUOTIENT_SCALE;
use crate::functions::scalar::call::{Call, Overload, R, T, function};
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::SqlType;

const DIGITS_MAX: u8 = 38;

/// All of them.
pub fn all() -> Vec<Overload> {
    let mut list = vec![
        function("/", &[T::Numeric, T::Numeric], R::By(quotient_type), divide),
        function("%", &[T::Numeric, T::Numeric], R::By(widest), remainder),
        function("mod", &[T::Numeric, T::Numeric], R::By(widest), remainder),
        function("div", &[T::Numeric, T::Numeric], R::By(whole), whole_quotient),
        function("round", &[T::Numeric], R::By(whole), |c| rescale(c, round_half_away)),
        function("round", &[T::Numeric, T::Int4], R::By(digits), |c| rescale(c, round_half_away)),
        function("trunc", &[T::Numeric], R::By(whole), |c| rescale(c, |value, unit| value / unit)),
        function("trunc", &[T::Numeric, T::Int4], R::By(digits), |c| {
            rescale(c, |value, unit| value / unit)
        }),
        function("ceil", &[T::Numeric], R::By(whole), |c| rescale(c, ceiling)),
        function("ceiling", &[T::Numeric], R::By(whole), |c| rescale(c, ceiling)),
        function("floor", &[T::Numeric], R::By(whole), |c| rescale(c, i128::div_euclid)),
        function("sign", &[T::Numeric], R::By(whole), |c| {
            c.to_values::<Decimal128Type>(|row| Ok(Some(c.decimal(0, row).signum())))
        }),
        function("scale", &[T::Numeric], R::Is(T::Int4), |c| {
            c.to_values::<Int32Type>(|_| Ok(Some(i32::from(c.scale(0)))))
        }),
        function("round", &[T::Float8], R::Is(T::Float8), |c| floats(c, f64::round_ties_even)),
        function("trunc", &[T::Float8], R::Is(T::Float8), |c| floats(c, f64::trunc)),
        function("ceil", &[T::Float8], R::Is(T::Float8), |c| floats(c, f64::ceil)),
        function("ceiling", &[T::Float8], R::Is(T::Float8), |c| floats(c, f64::ceil)),
        function("floor", &[T::Float8], R::Is(T::Float8), |c| floats(c, f64::floor)),
        function("sign", &[T::Float8], R::Is(T::Float8), |c| {
            floats(c, |x| if x == 0.0 || x.is_nan() { x } else { x.signum() })
        }),
        function("cbrt", &[T::Float8], R::Is(T::Float8), |c| floats(c, f64::cbrt)),
        function("sqrt", &[T::Float8], R::Is(T::Float8), square_root),
        function("exp", &[T::Float8], R::Is(T::Float8), |c| {
            c.to_values::<Float64Type>(|row| {
                let x = c.float8(0, row);
                in_range(x.exp(), x.is_finite()).map(Some)
            })
        }),
        function("ln", &[T::Float8], R::Is(T::Float8), |c| logarithms(c, f64::ln)),
        function("log", &[T::Float8], R::Is(T::Float8), |c| logarithms(c, f64::log10)),
        function("log10", &[T::Float8], R::Is(T::Float8), |c| logarithms(c, f64::log10)),
        function("log", &[T::Float8, T::Float8], R::Is(T::Float8), |c| {
            c.to_values::<Float64Type>(|row| {
                let base = positive(c.float8(0, row))?;
                let x = positive(c.float8(1, row))?;
                if base == 1.0 {
                    return Err(Error::user(SqlState::DIVISION_BY_ZERO, "division by zero"));
                }
                Ok(Some(if base == 10.0 { x.log10() } else { x.ln() / base.ln() }))
            })
        }),
        function("power", &[T::Float8, T::Float8], R::Is(T::Float8), power),
        function("pow", &[T::Float8, T::Float8], R::Is(T::Float8), power),
        function("^", &[T::Float8, T::Float8], R::Is(T::Float8), power),
        function("factorial", &[T::Int8], R::By(|_, _| SqlType::Numeric(DIGITS_MAX, 0)), factorial),
        function("gcd", &[T::Int4, T::Int4], R::Is(T::Int4), |c| {
            c.to_values::<Int32Type>(|row| {
                let gcd = gcd(c.int4(0, row).into(), c.int4(1, row).into());
                i32::try_from(gcd).map(Some).map_err(|_| out_of_range("integer"))
            })
        }),
        function("gcd", &[T::Int8, T::Int8], R::Is(T::Int8), |c| {
            c.to_values::<Int64Type>(|row| {
                let gcd = gcd(c.int8(0, row).into(), c.int8(1, row).into());
                i64::try_from(gcd).map(Some).map_err(|_| out_of_range("bigint"))
            })
        }),
        function("lcm", &[T::Int4, T::Int4], R::Is(T::Int4), |c| {
            c.to_values::<Int32Type>(|row| {
                let lcm = lcm(c.int4(0, row).into(), c.int4(1, row).into());
                i32::try_from(lcm).map(Some).map_err(|_| out_of_range("integer"))
            })
        }),
        function("lcm", &[T::Int8, T::Int8], R::Is(T::Int8), |c| {
            c.to_values::<Int64Type>(|row| {
                let lcm = lcm(c.int8(0, row).into(), c.int8(1, row).into());
                i64::try_from(lcm).map(Some).map_err(|_| out_of_range("bigint"))
            })
        }),
        function("random", &[], R::Is(T::Float8), |c| {
            let mut random = rand::rng();
            c.to_values::<Float64Type>(|_| Ok(Some(random.random::<f64>())))
        })
        .volatile(),
        function(
            "width_bucket",
            &[T::Float8, T::Float8, T::Float8, T::Int4],
            R::Is(T::Int4),
            |c| c.to_values::<Int32Type>(|row| width_bucket(c, row).map(Some)),
        ),
    ];
    for name in ["mod", "%"] {
        list.push(function(name, &[T::Int2, T::Int2], R::Is(T::Int2), |c| {
            use arrow::array::AsArray;
            let (a, b) = (
                c.columns[0].as_primitive::<Int16Type>(),
                c.columns[1].as_primitive::<Int16Type>(),
            );
            c.to_values::<Int16Type>(|row| {
                Ok(Some(a.value(row).wrapping_rem(not_zero(b.value(row))?)))
            })
        }));
        list.push(function(name, &[T::Int4, T::Int4], R::Is(T::Int4), |c| {
            c.to_values::<Int32Type>(|row| {
                Ok(Some(c.int4(0, row).wrapping_rem(not_zero(c.int4(1, row))?)))
            })
        }));
        list.push(function(name, &[T::Int8, T::Int8], R::Is(T::Int8), |c| {
            c.to_values::<Int64Type>(|row| {
                Ok(Some(c.int8(0, row).wrapping_rem(not_zero(c.int8(1, row))?)))
            })
        }));
    }
    list.extend(bit_operators());
    list
}

fn bit_operators() -> Vec<Overload> {
    let narrow = |name, run| function(name, &[T::Int4, T::Int4], R::Is(T::Int4), run);
    let wide = |name, run| function(name, &[T::Int8, T::Int8], R::Is(T::Int8), run);
    vec![
        narrow("&", |c| int4s(c, |a, b| a & b)),
        wide("&", |c| int8s(c, |a, b| a & b)),
        narrow("|", |c| int4s(c, |a, b| a | b)),
        wide("|", |c| int8s(c, |a, b| a | b)),
        narrow("#", |c| int4s(c, |a, b| a ^ b)),
        wide("#", |c| int8s(c, |a, b| a ^ b)),
    ]
}

fn int4s(call: &Call<'_>, op: impl Fn(i32, i32) -> i32) -> Result<ArrayRef> {
    call.to_values::<Int32Type>(|row| Ok(Some(op(call.int4(0, row), call.int4(1, row)))))
}

fn int8s(call: &Call<'_>, op: impl Fn(i64, i64) -> i64) -> Result<ArrayRef> {
    call.to_values::<Int64Type>(|row| Ok(Some(op(call.int8(0, row), call.int8(1, row)))))
}

fn numeric_scale(sql_type: &SqlType) -> i8 {
    match sql_type {
        SqlType::Numeric(_, scale) => *scale,
        _ => 0,
    }
}

fn quotient_type(types: &[SqlType], _: &[Option<ScalarValue>]) -> SqlType {
    let scale = types.iter().map(numeric_scale).max().unwrap_or(0);
    SqlType::Numeric(DIGITS_MAX, scale.max(QUOTIENT_SCALE))
}

fn widest(types: &[SqlType], _: &[Option<ScalarValue>]) -> SqlType {
    SqlType::Numeric(DIGITS_MAX, types.iter().map(numeric_scale).max().unwrap_or(0))
}

fn whole(_: &[SqlType], _: &[Option<ScalarValue>]) -> SqlType {
    SqlType::Numeric(DIGITS_MAX, 0)
}

/// As many digits as the second argument says when it is a literal; else those of the first.
fn digits(types: &[SqlType], literals: &[Option<ScalarValue>]) -> SqlType {
    let given = types.first().map_or(0, numeric_scale);
    let asked = match literals.get(1) {
        Some(Some(ScalarValue::Int32(Some(digits)))) => i64::from(*digits),
        Some(Some(ScalarValue::Int64(Some(digits)))) => *digits,
        _ => return SqlType::Numeric(DIGITS_MAX, given),
    };
    SqlType::Numeric(DIGITS_MAX, asked.clamp(0, i64::from(DIGITS_MAX)) as i8)
}

fn power_of_ten(exponent: u32) -> i256 {
    (0..exponent).fold(i256::ONE, |power, _| power.wrapping_mul(i256::from_i128(10)))
}

fn numeric_overflow() -> Error {
    Error::user(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "numeric field overflow").detail(format!(
        "A numeric has at most {DIGITS_MAX} digits, those after the point included."
    ))
}

fn to_numeric(value: i256) -> Result<i128> {
    value
        .to_i128()
        .filter(|value| value.unsigned_abs() < 10_u128.pow(u32::from(DIGITS_MAX)))
        .ok_or_else(numeric_overflow)
}

fn division_by_zero() -> Error {
    Error::user(SqlState::DIVISION_BY_ZERO, "division by zero")
}

fn not_zero<N: Default + PartialEq>(value: N) -> Result<N> {
    if value == N::default() { Err(division_by_zero()) } else { Ok(value) }
}

fn out_of_range(name: &str) -> Error {
    Error::user(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("{name} out of range"))
}

/// Rounded half away from 0 at the result's last digit.
fn divide(call: &Call<'_>) -> Result<ArrayRef> {
    let scale = i32::from(numeric_scale(call.result));
    let shift = scale + i32::from(call.scale(1)) - i32::from(call.scale(0));
    let factor = power_of_ten(shift.max(0) as u32);
    call.to_values::<Decimal128Type>(|row| {
        let divisor = i256::from_i128(not_zero(call.decimal(1, row))?);
        let dividend = i256::from_i128(call.decimal(0, row))
            .checked_mul(factor)
            .ok_or_else(numeric_overflow)?;
        let (quotient, rest) = (dividend.wrapping_div(divisor), dividend.wrapping_rem(divisor));
        let twice = rest.wrapping_abs().wrapping_mul(i256::from_i128(2));
        let away = twice >= divisor.wrapping_abs();
        let step = match (away, dividend.is_negative() != divisor.is_negative()) {
            (false, _) => i256::ZERO,
            (true, true) => i256::MINUS_ONE,
            (true, false) => i256::ONE,
        };
        to_numeric(quotient.wrapping_add(step)).map(Some)
    })
}

/// Both numbers as whole multiples of the smaller unit.
fn aligned(call: &Call<'_>, row: usize) -> Result<(i256, i256)> {
    let scale = call.scale(0).max(call.scale(1));
    let of = |index: usize| {
        i256::from_i128(call.decimal(index, row))
            .wrapping_mul(power_of_ten((scale - call.scale(index)) as u32))
    };
    Ok((of(0), not_zero(of(1))?))
}

fn remainder(call: &Call<'_>) -> Result<ArrayRef> {
    call.to_values::<Decimal128Type>(|row| {
        let (left, right) = aligned(call, row)?;
        to_numeric(left.wrapping_rem(right)).map(Some)
    })
}

fn whole_quotient(call: &Call<'_>) -> Result<ArrayRef> {
    call.to_values::<Decimal128Type>(|row| {
        let (left, right) = aligned(call, row)?;
        to_numeric(left.wrapping_div(right)).map(Some)
    })
}

fn round_half_away(value: i128, unit: i128) -> i128 {
    let (quotient, rest) = (value / unit, value % unit);
    if rest.unsigned_abs() >= unit.unsigned_abs() - rest.unsigned_abs() {
        quotient + value.signum()
    } else {
        quotient
    }
}

fn ceiling(value: i128, unit: i128) -> i128 {
    -(-value).div_euclid(unit)
}

/// A numeric at another number of digits; `divide(value, unit)` says how the rest is dropped.
fn rescale(call: &Call<'_>, divide: fn(i128, i128) -> i128) -> Result<ArrayRef> {
    let from = i64::from(call.scale(0));
    let to = i64::from(numeric_scale(call.result));
    call.to_values::<Decimal128Type>(|row| {
        let value = call.decimal(0, row);
        let asked = if call.columns.len() > 1 { i64::from(call.int4(1, row)) } else { 0 };
        // More digits than there are change nothing.
        let dropped = (from - asked).clamp(0, 39);
        let kept = match dropped {
            39 => 0,
            0 => value,
            dropped => divide(value, 10_i128.pow(dropped as u32)),
        };
        // `kept` has `from - dropped` digits after the point, which may be negative.
        let shift = to - (from - dropped);
        let wide = i256::from_i128(kept);
        let scaled = if shift >= 0 {
            wide.checked_mul(power_of_ten(shift as u32)).ok_or_else(numeric_overflow)?
        } else {
            wide.wrapping_div(power_of_ten(shift.unsigned_abs() as u32))
        };
        to_numeric(scaled).map(Some)
    })
}

fn floats(call: &Call<'_>, of: fn(f64) -> f64) -> Result<ArrayRef> {
    call.to_values::<Float64Type>(|row| Ok(Some(of(call.float8(0, row)))))
}

fn in_range(value: f64, finite_input: bool) -> Result<f64> {
    match value.is_infinite() && finite_input {
        true => {
            Err(Error::user(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range: overflow"))
        }
        false => Ok(value),
    }
}

fn square_root(call: &Call<'_>) -> Result<ArrayRef> {
    call.to_values::<Float64Type>(|row| {
        let value = call.float8(0, row);
        if value < 0.0 {
            return Err(Error::user(
                SqlState::INVALID_ARGUMENT_FOR_POWER_FUNCTION,
                "cannot take square root of a negative number",
            ));
        }
        Ok(Some(value.sqrt()))
    })
}

fn positive(value: f64) -> Result<f64> {
    let what = if value == 0.0 { "zero" } else { "a negative number" };
    match value <= 0.0 {
        true => Err(Error::user(
            SqlState::INVALID_ARGUMENT_FOR_LOGARITHM,
            format!("cannot take logarithm of {what}"),
        )),
        false => Ok(value),
    }
}

fn logarithms(call: &Call<'_>, of: fn(f64) -> f64) -> Result<ArrayRef> {
    call.to_values::<Float64Type>(|row| Ok(Some(of(positive(call.float8(0, row))?))))
}

fn power(call: &Call<'_>) -> Result<ArrayRef> {
    call.to_values::<Float64Type>(|row| {
        let (base, exponent) = (call.float8(0, row), call.float8(1, row));
        let refused = |message: &str| {
            Err(Error::user(SqlState::INVALID_ARGUMENT_FOR_POWER_FUNCTION, message.to_owned()))
        };
        if base == 0.0 && exponent < 0.0 {
            return refused("zero raised to a negative power is undefined");
        }
        if base < 0.0 && base.is_finite() && exponent.is_finite() && exponent.fract() != 0.0 {
            return refused(
                "a negative number raised to a non-integer power yields a complex result",
            );
        }
        let finite = base.is_finite() && exponent.is_finite();
        in_range(base.powf(exponent), finite).map(Some)
    })
}

fn factorial(call: &Call<'_>) -> Result<ArrayRef> {
    call.to_values::<Decimal128Type>(|row| {
        let n = call.int8(0, row);
        if n < 0 {
            return Err(Error::user(
                SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
                "factorial of a negative number is undefined",
            ));
        }
        let product = (1..=n).take(40).try_fold(1_i128, |product, k| {
            product.checked_mul(i128::from(k)).ok_or_else(numeric_overflow)
        })?;
        to_numeric(i256::from_i128(product)).map(Some)
    })
}

fn gcd(a: i128, b: i128) -> i128 {
    let (mut a, mut b) = (a.abs(), b.abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn lcm(a: i128, b: i128) -> i128 {
    if a == 0 || b == 0 { 0 } else { (a / gcd(a, b) * b).abs() }
}

fn width_bucket(call: &Call<'_>, row: usize) -> Result<i32> {
    let [operand, low, high] = [0, 1, 2].map(|index| call.float8(index, row));
    let count = call.int4(3, row);
    let refused = |message: &str| {
        Err(Error::user(SqlState::INVALID_ARGUMENT_FOR_WIDTH_BUCKET, message.to_owned()))
    };
    if count <= 0 {
        return refused("count must be greater than zero");
    }
    if operand.is_nan() || low.is_nan() || high.is_nan() {
        return refused("operand, lower bound, and upper bound cannot be NaN");
    }
    if low.is_infinite() || high.is_infinite() {
        return refused("lower and upper bounds must be finite");
    }
    if low == high {
        return refused("lower bound cannot equal upper bound");
    }
    let (below, above) = match low < high {
        true => (operand < low, operand >= high),
        false => (operand > low, operand <= high),
    };
    Ok(match (below, above) {
        (true, _) => 0,
        (_, true) => count.checked_add(1).ok_or_else(|| out_of_range("integer"))?,
        _ => {
            let share = (operand - low) / (high - low);
            ((share * f64::from(count)) as i32 + 1).min(count)
        }
    })
}
