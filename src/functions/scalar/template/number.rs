//! Numbers by a template: `to_char` of a number, and `to_number`.

use arrow::array::ArrayRef;

use crate::functions::scalar::call::Call;
use crate::functions::scalar::template::{Case, ordinal_suffix, starts};
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::NUMERIC_DEFAULT;

/// What a template of numbers asks for.
#[derive(Default)]
struct NumberTemplate {
    /// The places before the point, as they are written: `9`, `0`, `,`, and other characters.
    whole: Vec<char>,
    fraction: Vec<char>,
    has_point: bool,
    /// `S` or `MI` or `PL` in front or behind, or `PR`.
    sign: Option<(Sign, bool)>,
    fill_mode: bool,
    ordinal: Option<Case>,
    /// Zeros that `V` adds.
    shift: u32,
    roman: Option<Case>,
}

#[derive(Clone, Copy, PartialEq)]
enum Sign {
    Locale,
    Minus,
    Plus,
    Angle,
}

fn number_template(template: &str) -> Result<NumberTemplate> {
    let mut parsed = NumberTemplate::default();
    let mut rest = template;
    let mut digits_seen = false;
    let mut shifts = false;
    while let Some(first) = rest.chars().next() {
        let mut take = first.len_utf8();
        if starts(rest, "fm") {
            parsed.fill_mode = true;
            take = 2;
        } else if starts(rest, "th") {
            let upper = rest.starts_with("TH");
            parsed.ordinal = Some(if upper { Case::Upper } else { Case::Lower });
            take = 2;
        } else if starts(rest, "rn") {
            let upper = rest.starts_with('R');
            parsed.roman = Some(if upper { Case::Upper } else { Case::Lower });
            take = 2;
        } else if starts(rest, "eeee") {
            return Err(Error::unsupported("EEEE in a number's template"));
        } else if starts(rest, "mi") || starts(rest, "pl") || starts(rest, "sg") {
            let sign = match first {
                'm' | 'M' => Sign::Minus,
                'p' | 'P' => Sign::Plus,
                _ => Sign::Locale,
            };
            parsed.sign = Some((sign, digits_seen));
            take = 2;
        } else if starts(rest, "pr") {
            parsed.sign = Some((Sign::Angle, true));
            take = 2;
        } else if first == '"' {
            let inner = &rest[1..];
            let end = inner.find('"').unwrap_or(inner.len());
            let target = if parsed.has_point { &mut parsed.fraction } else { &mut parsed.whole };
            target.extend(inner[..end].chars());
            take = (end + 2).min(rest.len());
        } else {
            match first {
                's' | 'S' => parsed.sign = Some((Sign::Locale, digits_seen)),
                'v' | 'V' => shifts = true,
                '.' | 'd' | 'D' => parsed.has_point = true,
                'g' | 'G' => parsed.whole.push(','),
                'l' | 'L' => parsed.whole.push(' '),
                other => {
                    if matches!(other, '0' | '9') {
                        digits_seen = true;
                        parsed.shift += u32::from(shifts);
                    }
                    let target =
                        if parsed.has_point { &mut parsed.fraction } else { &mut parsed.whole };
                    target.push(other);
                }
            }
        }
        rest = &rest[take..];
    }
    Ok(parsed)
}

/// A float as digits and how many of them stand after the point.
pub(super) fn float_digits(value: f64) -> (i128, u32) {
    const DIGITS: u32 = 15;
    let magnitude = value.abs();
    let whole_digits = if magnitude < 1.0 { 0 } else { magnitude.log10().floor() as u32 + 1 };
    let scale = DIGITS.saturating_sub(whole_digits);
    ((value * 10_f64.powi(scale as i32)).round() as i128, scale)
}

pub(super) fn numbers(
    call: &Call<'_>,
    value: fn(&Call<'_>, usize) -> (i128, u32),
) -> Result<ArrayRef> {
    let mut last: Option<(String, NumberTemplate)> = None;
    call.to_text(|row, out| {
        let template = call.text(1).value(row);
        if last.as_ref().is_none_or(|(known, _)| known != template) {
            last = Some((template.to_owned(), number_template(template)?));
        }
        if let Some((_, template)) = &last {
            let (digits, scale) = value(call, row);
            write_number(template, digits, scale, out);
        }
        Ok(true)
    })
}

fn write_number(template: &NumberTemplate, value: i128, scale: u32, out: &mut String) {
    if let Some(case) = template.roman {
        return write_roman(value / 10_i128.pow(scale), case, template.fill_mode, out);
    }
    let places = |list: &[char]| list.iter().filter(|c| matches!(c, '0' | '9')).count();
    let wanted = places(&template.fraction) as u32;
    // Shifted by V, then rounded half away from 0 to the digits that are asked for.
    let value = value.saturating_mul(10_i128.pow(template.shift));
    let magnitude = value.unsigned_abs();
    let rounded = match scale.checked_sub(wanted) {
        Some(dropped) => {
            let unit = 10_u128.pow(dropped.min(38));
            (magnitude + unit / 2) / unit
        }
        None => magnitude.saturating_mul(10_u128.pow(wanted - scale)),
    };
    let unit = 10_u128.pow(wanted.min(38));
    let (whole, fraction) = (rounded / unit, rounded % unit);
    let negative = value < 0 && rounded > 0;
    let width = places(&template.whole);
    let digits = if whole == 0 { String::new() } else { whole.to_string() };
    let overflow = digits.len() > width;

    let mut body = String::new();
    let mut place = 0;
    // Zeros are written from the first 0 of the template on.
    let first_zero = {
        let mut seen = 0;
        let mut found = width;
        for character in &template.whole {
            match character {
                '0' => {
                    found = found.min(seen);
                    seen += 1;
                }
                '9' => seen += 1,
                _ => {}
            }
        }
        found
    };
    let blank = width.saturating_sub(digits.len());
    for character in &template.whole {
        match character {
            '0' | '9' => {
                if overflow {
                    body.push('#');
                } else if place >= blank {
                    body.push(char::from(digits.as_bytes()[place - blank]));
                } else if place >= first_zero
                    || whole == 0 && place + 1 == width && (!template.has_point || wanted == 0)
                {
                    body.push('0');
                } else {
                    body.push(' ');
                }
                place += 1;
            }
            ',' => {
                let written = place > blank || place > first_zero;
                body.push(if written { ',' } else { ' ' });
            }
            other => body.push(*other),
        }
    }
    if template.has_point {
        body.push('.');
        let text = format!("{fraction:0width$}", width = wanted as usize);
        let mut digits = text.chars();
        let mut kept = String::new();
        for character in &template.fraction {
            match character {
                '0' | '9' if overflow => kept.push('#'),
                '0' | '9' if wanted > 0 => kept.extend(digits.next()),
                other => kept.push(*other),
            }
        }
        if template.fill_mode {
            // Zeros that only a 9 asks for go.
            let last_zero = template.fraction.iter().rposition(|c| *c == '0').map_or(0, |p| p + 1);
            while kept.len() > last_zero && kept.ends_with('0') {
                kept.pop();
            }
        }
        body.push_str(&kept);
    }
    let trimmed = body.trim_start();
    let padding = body.len() - trimmed.len();
    let (front, back) = match template.sign {
        None => (if negative { "-" } else { " " }, ""),
        Some((Sign::Angle, _)) => {
            if negative {
                ("<", ">")
            } else {
                (" ", " ")
            }
        }
        Some((sign, behind)) => {
            let text = match (sign, negative) {
                (Sign::Locale, true) | (Sign::Minus, true) => "-",
                (Sign::Locale | Sign::Plus, false) => "+",
                (Sign::Minus, false) | (Sign::Plus, true) => " ",
                (Sign::Angle, _) => "",
            };
            if behind { ("", text) } else { (text, "") }
        }
    };
    if template.fill_mode {
        out.push_str(front.trim());
        out.push_str(trimmed);
        out.push_str(back.trim());
    } else {
        // The sign stands right before the digits.
        out.extend(std::iter::repeat_n(' ', padding));
        out.push_str(front);
        out.push_str(trimmed);
        out.push_str(back);
    }
    if let Some(case) = template.ordinal
        && value >= 0
    {
        let suffix = ordinal_suffix(&whole.to_string());
        match case {
            Case::Upper => out.push_str(&suffix.to_uppercase()),
            _ => out.push_str(suffix),
        }
    }
}

/// Characters that Postgres gives a Roman number.
const ROMAN_WIDTH: usize = 15;

fn write_roman(value: i128, case: Case, fill_mode: bool, out: &mut String) {
    const STEPS: [(i128, &str); 13] = [
        (1000, "M"),
        (900, "CM"),
        (500, "D"),
        (400, "CD"),
        (100, "C"),
        (90, "XC"),
        (50, "L"),
        (40, "XL"),
        (10, "X"),
        (9, "IX"),
        (5, "V"),
        (4, "IV"),
        (1, "I"),
    ];
    let mut text = String::new();
    if (1..4000).contains(&value) {
        let mut rest = value;
        for (size, letters) in STEPS {
            while rest >= size {
                text.push_str(letters);
                rest -= size;
            }
        }
    } else {
        text = "#".repeat(ROMAN_WIDTH);
    }
    if !fill_mode {
        out.extend(std::iter::repeat_n(' ', ROMAN_WIDTH.saturating_sub(text.len())));
    }
    match case {
        Case::Lower => out.push_str(&text.to_lowercase()),
        _ => out.push_str(&text),
    }
}

/// The number in a text, by a template that says which characters are not its own.
pub(super) fn to_number(text: &str, template: &str) -> Result<i128> {
    let parsed = number_template(template)?;
    let places = |list: &[char]| list.iter().filter(|c| matches!(c, '0' | '9')).count();
    let (whole_max, fraction_max) = (places(&parsed.whole), places(&parsed.fraction));
    let mut negative = false;
    let (mut whole, mut fraction) = (String::new(), String::new());
    let mut after_point = false;
    for character in text.chars() {
        match character {
            '-' | '<' => negative = true,
            '.' if parsed.has_point => after_point = true,
            digit if digit.is_ascii_digit() => match after_point {
                true if fraction.len() < fraction_max => fraction.push(digit),
                false if whole.len() < whole_max => whole.push(digit),
                _ => {}
            },
            _ => {}
        }
    }
    if whole.is_empty() && fraction.is_empty() {
        return Err(Error::user(
            SqlState::INVALID_TEXT_REPRESENTATION,
            format!("invalid input syntax for type numeric: \"{text}\""),
        ));
    }
    let sign = if negative { "-" } else { "" };
    let number = format!("{sign}{whole}{}.{fraction}", if whole.is_empty() { "0" } else { "" });
    let (precision, scale) = NUMERIC_DEFAULT;
    let value = crate::types::text::number::parse_numeric(&number, precision, scale)?;
    let divisor = 10_i128.pow(parsed.shift);
    Ok(value / divisor)
}
