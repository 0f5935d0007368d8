//! Literals of numbers: integers get the type that Postgres gives them, numerics no exponent.

use datafusion::sql::sqlparser::ast::{DataType, Expr, UnaryOperator, Value, ValueWithSpan};

use crate::sql::rewrite::{cast, null};

/// Digits that a numeric can have.
const NUMERIC_DIGITS_MAX: i32 = 38;

/// The literal's digits, when the expression is an integer literal or its negation.
pub(super) fn as_integer(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::Number(text, _), .. }) => {
            text.bytes().all(|b| b.is_ascii_digit() || b == b'_').then_some(text)
        }
        Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, expr } => as_integer(expr),
        _ => None,
    }
}

pub(super) fn wrap_integers<'a>(exprs: impl IntoIterator<Item = &'a mut Expr>) {
    exprs.into_iter().for_each(wrap_integer);
}

/// Gives an integer literal the type that Postgres gives it: the first of `integer`, `bigint` and
/// `numeric` that it fits.
pub(super) fn wrap_integer(expr: &mut Expr) {
    let Some(text) = as_integer(expr) else { return };
    let digits = text.replace('_', "");
    if digits.parse::<i32>().is_ok() {
        let literal = std::mem::replace(expr, null());
        *expr = cast(literal, DataType::Int(None));
    } else if digits.parse::<i64>().is_err() {
        make_decimal(expr);
    }
}

/// Adds the point that makes a number `numeric`.
fn make_decimal(expr: &mut Expr) {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::Number(text, _), .. }) => text.push('.'),
        Expr::UnaryOp { expr, .. } => make_decimal(expr),
        _ => {}
    }
}

/// `1.5e3` as `1500.`: a numeric has no exponent. What is too long for a numeric stays, and is a
/// float.
pub(super) fn without_exponent(text: &str) -> Option<String> {
    let (mantissa, exponent) = text.split_once(['e', 'E'])?;
    let exponent: i32 = exponent.parse().ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    // Where the point stands among the digits.
    let point = i32::try_from(whole.len()).ok()?.checked_add(exponent)?;
    let length = i32::try_from(digits.len()).ok()?;
    if !(-NUMERIC_DIGITS_MAX..=NUMERIC_DIGITS_MAX).contains(&point) || length > NUMERIC_DIGITS_MAX {
        return None;
    }
    Some(if point <= 0 {
        format!("0.{}{digits}", "0".repeat(point.unsigned_abs() as usize))
    } else if point >= length {
        format!("{digits}{}.", "0".repeat((point - length) as usize))
    } else {
        let (whole, fraction) = digits.split_at(point as usize);
        format!("{whole}.{fraction}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_become_digits() {
        for (text, expected) in [
            ("1e3", Some("1000.")),
            ("1.5e3", Some("1500.")),
            ("12.345e1", Some("123.45")),
            ("1.5E-3", Some("0.0015")),
            ("1e100", None),
            ("15", None),
        ] {
            assert_eq!(without_exponent(text).as_deref(), expected, "{text}");
        }
    }
}
