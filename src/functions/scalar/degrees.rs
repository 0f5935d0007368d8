//! Trigonometry in degrees (table 9.7 of Postgres's manual), and counting of NULLs (9.2).
//!
//! Angles whose value is a round number give it exactly, as in Postgres: `sind(30)` is 0.5.

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{Float64Type, Int32Type};

use crate::functions::scalar::call::{Call, Overload, R, T, function};
use crate::types::error::{Error, Result, SqlState};

/// All of them.
pub fn all() -> Vec<Overload> {
    use T::{Any, Float8, Int4};
    vec![
        function("sind", &[Float8], R::Is(Float8), |c| of_angle(c, sine)),
        function("cosd", &[Float8], R::Is(Float8), |c| of_angle(c, cosine)),
        function("tand", &[Float8], R::Is(Float8), |c| of_angle(c, |x| sine(x) / cosine(x) + 0.0)),
        function("cotd", &[Float8], R::Is(Float8), |c| of_angle(c, |x| cosine(x) / sine(x) + 0.0)),
        function("asind", &[Float8], R::Is(Float8), |c| of_ratio(c, |x| 90.0 - arc_cosine(x))),
        function("acosd", &[Float8], R::Is(Float8), |c| of_ratio(c, arc_cosine)),
        function("atand", &[Float8], R::Is(Float8), |c| {
            c.to_values::<Float64Type>(|row| Ok(Some(quarter(c.float8(0, row).atan()))))
        }),
        function("atan2d", &[Float8, Float8], R::Is(Float8), |c| {
            c.to_values::<Float64Type>(|row| {
                Ok(Some(quarter(c.float8(0, row).atan2(c.float8(1, row)))))
            })
        }),
        function("num_nulls", &[Any], R::Is(Int4), |c| nulls(c, true)).variadic().sees_nulls(),
        function("num_nonnulls", &[Any], R::Is(Int4), |c| nulls(c, false)).variadic().sees_nulls(),
    ]
}

fn nulls(call: &Call<'_>, counted: bool) -> Result<ArrayRef> {
    call.to_values::<Int32Type>(|row| {
        let count = call.columns.iter().filter(|column| column.is_null(row) == counted).count();
        Ok(Some(count as i32))
    })
}

fn of_angle(call: &Call<'_>, value: fn(f64) -> f64) -> Result<ArrayRef> {
    call.to_values::<Float64Type>(|row| {
        let angle = call.float8(0, row);
        match angle.is_infinite() {
            true => Err(out_of_range()),
            false => Ok(Some(value(angle % 360.0))),
        }
    })
}

fn of_ratio(call: &Call<'_>, value: fn(f64) -> f64) -> Result<ArrayRef> {
    call.to_values::<Float64Type>(|row| {
        let ratio = call.float8(0, row);
        match ratio.abs() > 1.0 {
            true => Err(out_of_range()),
            false => Ok(Some(value(ratio))),
        }
    })
}

fn out_of_range() -> Error {
    Error::user(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "input is out of range")
}

/// Of an angle between -360 and 360.
fn sine(angle: f64) -> f64 {
    let (sign, angle) = if angle < 0.0 { (-1.0, -angle) } else { (1.0, angle) };
    let (sign, angle) = if angle > 180.0 { (-sign, 360.0 - angle) } else { (sign, angle) };
    let angle = if angle > 90.0 { 180.0 - angle } else { angle };
    // Up to 30 degrees by the sine, beyond by the cosine: both ends come out exact.
    let value = match angle <= 30.0 {
        true => small_sine(angle),
        false => small_cosine(90.0 - angle),
    };
    sign * value + 0.0
}

fn cosine(angle: f64) -> f64 {
    let angle = angle.abs();
    let angle = if angle > 180.0 { 360.0 - angle } else { angle };
    let (sign, angle) = if angle > 90.0 { (-1.0, 180.0 - angle) } else { (1.0, angle) };
    let value = match angle <= 60.0 {
        true => small_cosine(angle),
        false => small_sine(90.0 - angle),
    };
    sign * value + 0.0
}

/// From 0 to 30 degrees; 0.5 at the end.
fn small_sine(angle: f64) -> f64 {
    angle.to_radians().sin() / 30_f64.to_radians().sin() / 2.0
}

/// From 0 to 60 degrees; 0.5 at the end.
fn small_cosine(angle: f64) -> f64 {
    1.0 - (1.0 - angle.to_radians().cos()) / (1.0 - 60_f64.to_radians().cos()) / 2.0
}

fn arc_cosine(ratio: f64) -> f64 {
    match ratio {
        0.5 => 60.0,
        -0.5 => 120.0,
        ratio => ratio.acos() / 0_f64.acos() * 90.0,
    }
}

/// An angle in degrees, of one in radians that is exact at 45 degrees.
fn quarter(angle: f64) -> f64 {
    angle / 1_f64.atan() * 45.0
}
