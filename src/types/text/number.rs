//! Integers, floats and numeric, to and from text.
//!
//! Floats print the fewest digits that read back as the same value, in the layout of
//! `extra_float_digits = 1`: plain notation while the decimal exponent is at least -4 and below 15
//! (double precision) or 6 (real), scientific with a sign and two exponent digits otherwise.
//! The `ryu` crate finds the digits. It differs from Postgres in one rule: it takes a decimal that
//! lies exactly between two floats where the reader's tie rule would bring it back; Postgres never
//! does (1e23 prints as 9.999999999999999e+22). Those few are found with exact arithmetic and
//! get their digits from the standard library.

use bytes::{BufMut, BytesMut};

use super::{invalid_syntax, trim};
use crate::types::error::{Error, Result, SqlState};

/// Decimal digits of the largest `i128`.
const I128_DIGITS: usize = 39;

pub fn write_integer(value: i64, out: &mut BytesMut) {
    out.put_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Significant digits of a decimal number and the exponent of the first one: 0.00125 is 125, -3.
struct Decimal {
    /// ASCII digits; no zeros at either end.
    digits: [u8; 20],
    len: usize,
    exponent: i32,
}

impl Decimal {
    /// Reads what `ryu` and `{:e}` write: digits, perhaps a point, perhaps `e` and an exponent.
    fn parse(text: &[u8]) -> Decimal {
        let mut decimal = Decimal { digits: [0; 20], len: 0, exponent: 0 };
        let mut exponent = 0i32;
        let mut zeros = 0; // seen after the last digit that counts
        let mut after_point = false;
        let mut at = 0;
        while at < text.len() {
            match text[at] {
                b'.' => after_point = true,
                b'e' => {
                    let (sign, from) =
                        if text[at + 1] == b'-' { (-1, at + 2) } else { (1, at + 1) };
                    exponent +=
                        sign * text[from..].iter().fold(0, |n, d| n * 10 + i32::from(d - b'0'));
                    break;
                }
                b'0' => {
                    zeros += usize::from(decimal.len > 0);
                    if decimal.len == 0 && after_point {
                        exponent -= 1;
                    } else if decimal.len > 0 && !after_point {
                        exponent += 1;
                    }
                }
                digit => {
                    for _ in 0..zeros {
                        decimal.digits[decimal.len] = b'0';
                        decimal.len += 1;
                    }
                    zeros = 0;
                    // The first digit's place: 0 before the point, -1 right behind it.
                    if decimal.len == 0 {
                        exponent -= i32::from(after_point);
                    } else {
                        exponent += i32::from(!after_point);
                    }
                    decimal.digits[decimal.len] = digit;
                    decimal.len += 1;
                }
            }
            at += 1;
        }
        decimal.exponent = exponent;
        decimal
    }

    fn digits(&self) -> &[u8] {
        &self.digits[..self.len]
    }

    /// Whether this number is `odd * 2^power`, exactly. `odd` is odd.
    fn equals(&self, odd: u128, power: i32) -> bool {
        let whole = self.digits().iter().fold(0u128, |n, d| n * 10 + u128::from(d - b'0'));
        let tens = self.exponent - (self.len as i32 - 1);
        // whole * 10^tens = odd * 2^power, with the fives where they are whole numbers.
        let fives = 5u128.checked_pow(tens.unsigned_abs());
        let (left, right) = if tens >= 0 {
            (fives.and_then(|f| whole.checked_mul(f)), Some(odd))
        } else {
            (Some(whole), fives.and_then(|f| odd.checked_mul(f)))
        };
        // A product that overflows is larger than the other side can be.
        let (Some(left), Some(right)) = (left, right) else { return false };
        left >> left.trailing_zeros() == right && left.trailing_zeros() as i32 + tens == power
    }

    /// Writes the number; `plain_below` is the exponent from which it is scientific.
    fn write(&self, plain_below: i32, out: &mut BytesMut) {
        let digits = self.digits();
        let exponent = self.exponent;
        if !(-4..plain_below).contains(&exponent) {
            out.put_u8(digits[0]);
            if digits.len() > 1 {
                out.put_u8(b'.');
                out.put_slice(&digits[1..]);
            }
            out.put_slice(if exponent < 0 { b"e-" } else { b"e+" });
            if exponent.unsigned_abs() < 10 {
                out.put_u8(b'0');
            }
            write_integer(i64::from(exponent.unsigned_abs()), out);
        } else if exponent < 0 {
            out.put_slice(b"0.");
            out.put_bytes(b'0', exponent.unsigned_abs() as usize - 1);
            out.put_slice(digits);
        } else {
            let whole = exponent as usize + 1;
            if digits.len() <= whole {
                out.put_slice(digits);
                out.put_bytes(b'0', whole - digits.len());
            } else {
                out.put_slice(&digits[..whole]);
                out.put_u8(b'.');
                out.put_slice(&digits[whole..]);
            }
        }
    }
}

/// A positive finite float as `mantissa * 2^power`, and whether its lower neighbour is half as
/// far away as its upper one.
#[derive(Clone, Copy)]
struct Binary {
    mantissa: u128,
    power: i32,
    lower_is_closer: bool,
}

impl Binary {
    /// `fraction_bits`: 52 or 23; `bias` such that the exponent field 1 stands for `2^bias`.
    fn of(bits: u64, fraction_bits: u32, bias: i32) -> Binary {
        let fraction = u128::from(bits & ((1 << fraction_bits) - 1));
        let exponent = (bits >> fraction_bits) as i32;
        if exponent == 0 {
            return Binary { mantissa: fraction, power: bias, lower_is_closer: false };
        }
        Binary {
            mantissa: fraction | 1 << fraction_bits,
            power: bias + exponent - 1,
            lower_is_closer: fraction == 0 && exponent > 1,
        }
    }

    /// Whether `decimal` lies exactly between this float and a neighbour.
    fn borders(self, decimal: &Decimal) -> bool {
        // Only even mantissas win the tie, so `ryu` reaches the border of no other.
        if !self.mantissa.is_multiple_of(2) {
            return false;
        }
        let below = if self.lower_is_closer {
            decimal.equals(self.mantissa * 4 - 1, self.power - 2)
        } else {
            decimal.equals(self.mantissa * 2 - 1, self.power - 1)
        };
        below || decimal.equals(self.mantissa * 2 + 1, self.power - 1)
    }
}

/// Digits that are correct to one more place each time, until they read back as `value` and are
/// not on its border.
fn widen(
    shortest: Decimal,
    binary: Binary,
    digits_max: usize,
    render: impl Fn(usize) -> String,
    reads_back: impl Fn(&str) -> bool,
) -> Decimal {
    for precision in shortest.len..=digits_max {
        let text = render(precision - 1);
        let decimal = Decimal::parse(text.as_bytes());
        if reads_back(&text) && !binary.borders(&decimal) {
            return decimal;
        }
    }
    shortest
}

/// Writes what is not a positive finite number, and the sign; whether digits are still missing.
fn write_float_prefix(
    nan: bool,
    infinite: bool,
    zero: bool,
    negative: bool,
    out: &mut BytesMut,
) -> bool {
    if nan {
        out.put_slice(b"NaN");
        return false;
    }
    if negative {
        out.put_u8(b'-');
    }
    if infinite {
        out.put_slice(b"Infinity");
    } else if zero {
        out.put_u8(b'0');
    }
    !infinite && !zero
}

/// double precision.
pub fn write_float8(value: f64, out: &mut BytesMut) {
    let negative = value.is_sign_negative();
    if !write_float_prefix(value.is_nan(), value.is_infinite(), value == 0.0, negative, out) {
        return;
    }
    let value = value.abs();
    let mut buffer = ryu::Buffer::new();
    let mut decimal = Decimal::parse(buffer.format_finite(value).as_bytes());
    let binary = Binary::of(value.to_bits(), 52, -1074);
    if binary.borders(&decimal) {
        decimal = widen(
            decimal,
            binary,
            17,
            |places| format!("{value:.places$e}"),
            |text| text.parse() == Ok(value),
        );
    }
    decimal.write(15, out);
}

/// real.
pub fn write_float4(value: f32, out: &mut BytesMut) {
    let negative = value.is_sign_negative();
    if !write_float_prefix(value.is_nan(), value.is_infinite(), value == 0.0, negative, out) {
        return;
    }
    let value = value.abs();
    let mut buffer = ryu::Buffer::new();
    let mut decimal = Decimal::parse(buffer.format_finite(value).as_bytes());
    let binary = Binary::of(u64::from(value.to_bits()), 23, -149);
    if binary.borders(&decimal) {
        decimal = widen(
            decimal,
            binary,
            9,
            |places| format!("{value:.places$e}"),
            |text| text.parse() == Ok(value),
        );
    }
    decimal.write(6, out);
}

/// A float of either type rounded to `digits` digits (at least one), as with an
/// `extra_float_digits` of 0 or less.
pub fn write_float_rounded(value: f64, digits: i32, out: &mut BytesMut) {
    let negative = value.is_sign_negative();
    if !write_float_prefix(value.is_nan(), value.is_infinite(), value == 0.0, negative, out) {
        return;
    }
    let digits = digits.clamp(1, 17);
    let text = format!("{:.*e}", digits as usize - 1, value.abs());
    Decimal::parse(text.as_bytes()).write(digits, out);
}

/// numeric: `value / 10^scale` with all `scale` digits behind the point.
pub fn write_numeric(value: i128, scale: i8, out: &mut BytesMut) {
    if value < 0 {
        out.put_u8(b'-');
    }
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value.unsigned_abs()).as_bytes();
    if scale <= 0 {
        out.put_slice(digits);
        if value != 0 {
            out.put_bytes(b'0', usize::from(scale.unsigned_abs()));
        }
        return;
    }
    let scale = scale as usize;
    match digits.len().checked_sub(scale) {
        None | Some(0) => {
            out.put_slice(b"0.");
            out.put_bytes(b'0', scale - digits.len());
            out.put_slice(digits);
        }
        Some(whole) => {
            out.put_slice(&digits[..whole]);
            out.put_u8(b'.');
            out.put_slice(&digits[whole..]);
        }
    }
}

/// The same number with the fewest digits behind the point: how a `numeric` without a declared
/// scale prints, whose column has a scale that nobody asked for.
pub fn trim_numeric(mut value: i128, mut scale: i8) -> (i128, i8) {
    while scale > 0 && value % 10 == 0 {
        value /= 10;
        scale -= 1;
    }
    (value, scale.max(0))
}

/// A whole number between `min` and `max`; `type_name` is for the error.
fn parse_integer(text: &str, type_name: &str, min: i64, max: i64) -> Result<i64> {
    let digits = trim(text);
    let unsigned = digits.strip_prefix(['-', '+']).unwrap_or(digits);
    if unsigned.is_empty() || !unsigned.bytes().all(|b| b.is_ascii_digit()) {
        return Err(invalid_syntax(type_name, text));
    }
    match digits.parse::<i64>() {
        Ok(value) if (min..=max).contains(&value) => Ok(value),
        _ => Err(Error::user(
            SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
            format!("value \"{text}\" is out of range for type {type_name}"),
        )),
    }
}

/// smallint.
///
/// # Errors
/// SQLSTATE 22P02 and 22003.
pub fn parse_int2(text: &str) -> Result<i16> {
    let value = parse_integer(text, "smallint", i64::from(i16::MIN), i64::from(i16::MAX))?;
    Ok(i16::try_from(value).expect("checked against the range of smallint"))
}

/// integer.
///
/// # Errors
/// SQLSTATE 22P02 and 22003.
pub fn parse_int4(text: &str) -> Result<i32> {
    let value = parse_integer(text, "integer", i64::from(i32::MIN), i64::from(i32::MAX))?;
    Ok(i32::try_from(value).expect("checked against the range of integer"))
}

/// bigint.
///
/// # Errors
/// SQLSTATE 22P02 and 22003.
pub fn parse_int8(text: &str) -> Result<i64> {
    parse_integer(text, "bigint", i64::MIN, i64::MAX)
}

/// Reads an `oid`.
///
/// # Errors
/// SQLSTATE 22P02 and 22003.
pub fn parse_oid(text: &str) -> Result<u32> {
    let number = parse_integer(text, "oid", i64::from(i32::MIN), i64::from(u32::MAX))?;
    // As in Postgres, a negative number stands for the one with the same bits.
    Ok(number as u32)
}

/// What a float's text says, before it is known whether the type can hold it.
fn check_float_text<'a>(text: &'a str, type_name: &str) -> Result<&'a str> {
    let body = trim(text);
    let unsigned = body.strip_prefix(['-', '+']).unwrap_or(body);
    let digits_or_word = match unsigned.as_bytes().first() {
        Some(b'0'..=b'9' | b'.') => true,
        Some(_) => {
            let word = unsigned.to_ascii_lowercase();
            word == "infinity" || word == "inf" || word == "nan"
        }
        None => false,
    };
    if digits_or_word { Ok(body) } else { Err(invalid_syntax(type_name, text)) }
}

/// Whether a text that was read as zero or infinity says something else.
fn float_overflows(body: &str, zero: bool, infinite: bool) -> bool {
    let mantissa = body.split(['e', 'E']).next().unwrap_or(body);
    (zero && mantissa.bytes().any(|b| matches!(b, b'1'..=b'9')))
        || (infinite && mantissa.bytes().any(|b| b.is_ascii_digit()))
}

fn float_out_of_range(text: &str, type_name: &str) -> Error {
    Error::user(
        SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
        format!("\"{}\" is out of range for type {type_name}", trim(text)),
    )
}

/// double precision.
///
/// # Errors
/// SQLSTATE 22P02 and 22003.
pub fn parse_float8(text: &str) -> Result<f64> {
    const NAME: &str = "double precision";
    let body = check_float_text(text, NAME)?;
    let value: f64 = body.parse().map_err(|_| invalid_syntax(NAME, text))?;
    if float_overflows(body, value == 0.0, value.is_infinite()) {
        return Err(float_out_of_range(text, NAME));
    }
    Ok(value)
}

/// real.
///
/// # Errors
/// SQLSTATE 22P02 and 22003.
pub fn parse_float4(text: &str) -> Result<f32> {
    const NAME: &str = "real";
    let body = check_float_text(text, NAME)?;
    let value: f32 = body.parse().map_err(|_| invalid_syntax(NAME, text))?;
    if float_overflows(body, value == 0.0, value.is_infinite()) {
        return Err(float_out_of_range(text, NAME));
    }
    Ok(value)
}

/// numeric with `precision` digits, `scale` of them behind the point; digits beyond are rounded,
/// halves away from zero.
///
/// # Errors
/// SQLSTATE 22P02, and 22003 when the number has too many digits before the point.
pub fn parse_numeric(text: &str, precision: u8, scale: i8) -> Result<i128> {
    let body = trim(text).as_bytes();
    let invalid = || invalid_syntax("numeric", text);
    let (negative, mut at) = match body.first() {
        Some(b'-') => (true, 1),
        Some(b'+') => (false, 1),
        _ => (false, 0),
    };
    if ["nan", "infinity", "inf"].iter().any(|w| body[at..].eq_ignore_ascii_case(w.as_bytes())) {
        return Err(Error::unsupported(format!("numeric {}", trim(text)))
            .hint("Use double precision for values that may be infinite or not a number."));
    }
    // The exponent stands last but decides which digits count, so it is read first.
    let end = body.iter().position(|b| matches!(b, b'e' | b'E')).unwrap_or(body.len());
    let exponent: i64 = if end == body.len() {
        0
    } else {
        let digits = std::str::from_utf8(&body[end + 1..]).map_err(|_| invalid())?;
        let unsigned = digits.strip_prefix(['-', '+']).unwrap_or(digits);
        if unsigned.is_empty() || !unsigned.bytes().all(|b| b.is_ascii_digit()) {
            return Err(invalid());
        }
        // Beyond what any number of digits could outweigh.
        digits.parse::<i64>().unwrap_or(if digits.starts_with('-') { -1 << 40 } else { 1 << 40 })
    };
    let mut mantissa = Mantissa::new();
    let mut any_digit = false;
    let mut before_point = true;
    while at < end {
        match body[at] {
            b'.' if before_point => before_point = false,
            digit @ b'0'..=b'9' => {
                any_digit = true;
                mantissa.push(digit - b'0', before_point);
            }
            _ => return Err(invalid()),
        }
        at += 1;
    }
    if !any_digit {
        return Err(invalid());
    }
    let magnitude = mantissa
        .round_to(i64::from(scale) + exponent)
        .filter(|m| *m < 10i128.pow(u32::from(precision)))
        .ok_or_else(|| numeric_overflow(precision, scale))?;
    Ok(if negative { -magnitude } else { magnitude })
}

/// Postgres's error for a number that its column cannot hold.
pub fn numeric_overflow(precision: u8, scale: i8) -> Error {
    let whole = i32::from(precision) - i32::from(scale);
    let bound = if whole == 0 { "1".to_owned() } else { format!("10^{whole}") };
    Error::user(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "numeric field overflow").detail(format!(
        "A field with precision {precision}, scale {scale} must round to an absolute value less \
         than {bound}."
    ))
}

/// The leading digits of a decimal number, as many as numeric can need.
struct Mantissa {
    digits: [u8; I128_DIGITS + 1],
    /// Digits kept; leading zeros are not.
    len: usize,
    /// Place of the first digit: 1 when it stands right before the point.
    point: i64,
}

impl Mantissa {
    fn new() -> Mantissa {
        Mantissa { digits: [0; I128_DIGITS + 1], len: 0, point: 0 }
    }

    fn push(&mut self, digit: u8, before_point: bool) {
        if self.len == 0 && digit == 0 {
            self.point -= i64::from(!before_point);
            return;
        }
        self.point += i64::from(before_point);
        if self.len < self.digits.len() {
            self.digits[self.len] = digit;
            self.len += 1;
        }
    }

    /// This number times `10^shift`, rounded to a whole one; `None` when it does not fit.
    fn round_to(&self, shift: i64) -> Option<i128> {
        let places = self.point + shift;
        if self.len == 0 || places < 0 {
            return Some(0);
        }
        if places > I128_DIGITS as i64 {
            return None;
        }
        let places = places as usize;
        let mut value: i128 = 0;
        for place in 0..places {
            let digit = if place < self.len { self.digits[place] } else { 0 };
            value = value.checked_mul(10)?.checked_add(i128::from(digit))?;
        }
        if places < self.len && self.digits[places] >= 5 {
            value = value.checked_add(1)?;
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests;
