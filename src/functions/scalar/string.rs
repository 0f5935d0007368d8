//! Functions and operators on text and bytes (chapters 9.4, 9.5 and 9.7 of Postgres's manual),
//! where DataFusion lacks them or means them otherwise.
//!
//! Regular expressions are those of the `regex` crate, which have no back references; Postgres's
//! escapes for the ends of words are translated, and as in Postgres a point matches the end of a
//! line unless the flag `n` is given.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StringBuilder};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use regex::Regex;

use crate::functions::scalar::call::{Call, Overload, R, T, function};
use crate::functions::scalar::cast::cast_array;
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::SqlType;
use crate::types::text::quote::{push_ident, push_literal};

/// Characters of a base64 line in Postgres's `encode`.
const BASE64_LINE: usize = 76;
/// Bytes of a text that a function makes, at most.
const TEXT_BYTES_MAX: usize = 1 << 28;

/// `fit_length(text, n)`: what a column `varchar(n)` takes. Spaces beyond n characters are cut,
/// anything else there is SQLSTATE 22001.
pub const FIT_LENGTH: &str = "fit_length";

/// `fit_char(text, n)`: the same for a column `char(n)`, which keeps no blanks at its end.
pub const FIT_CHAR: &str = "fit_char";

/// All of them.
pub fn all() -> Vec<Overload> {
    use T::{Any, Bytea, Int4, Int8, Text};
    let text = R::Is(T::Text);
    vec![
        function("concat", &[Any], text, |c| joined(c, 0)).variadic().sees_nulls(),
        function("concat_ws", &[Text, Any], text, |c| joined(c, 1)).variadic().sees_nulls(),
        function("format", &[Text, Any], text, format_text).variadic().sees_nulls(),
        function("||", &[Text, Any], text, |c| joined(c, 0)),
        function("||", &[Any, Text], text, |c| joined(c, 0)),
        function("||", &[Bytea, Bytea], R::Is(T::Bytea), |c| {
            c.to_bytes(|row, out| {
                out.extend_from_slice(c.bytes(0, row));
                out.extend_from_slice(c.bytes(1, row));
                Ok(true)
            })
        }),
        function("quote_ident", &[Text], text, |c| {
            c.to_text(|row, out| {
                push_ident(c.text(0).value(row), out);
                Ok(true)
            })
        }),
        function("quote_literal", &[Any], text, |c| quoted(c, false)),
        function("quote_nullable", &[Any], text, |c| quoted(c, true)).sees_nulls(),
        function("regexp_match", &[Text, Text], R::Array(Text), regexp_match),
        function("regexp_match", &[Text, Text, Text], R::Array(Text), regexp_match),
        function("regexp_matches", &[Text, Text], R::By(|_, _| texts_of_texts()), regexp_matches),
        function("regexp_matches", &[Text, Text, Text], R::By(|_, _| texts_of_texts()), |c| {
            regexp_matches(c)
        }),
        function("regexp_replace", &[Text, Text, Text], text, regexp_replace),
        function("regexp_replace", &[Text, Text, Text, Text], text, regexp_replace),
        function("regexp_substr", &[Text, Text], text, |c| first_match(c, false)),
        function("regexp_count", &[Text, Text], R::Is(Int4), regexp_count),
        function("regexp_like", &[Text, Text], R::Is(T::Bool), |c| regexp_like(c, "")),
        function("regexp_like", &[Text, Text, Text], R::Is(T::Bool), |c| regexp_like(c, "")),
        function("regexp_split_to_array", &[Text, Text], R::Array(Text), regexp_split),
        function("regexp_split_to_array", &[Text, Text, Text], R::Array(Text), regexp_split),
        function("~", &[Text, Text], R::Is(T::Bool), |c| regexp_like(c, "")),
        function("~*", &[Text, Text], R::Is(T::Bool), |c| regexp_like(c, "i")),
        function("!~", &[Text, Text], R::Is(T::Bool), |c| negated(&regexp_like(c, "")?)),
        function("!~*", &[Text, Text], R::Is(T::Bool), |c| negated(&regexp_like(c, "i")?)),
        function("similar_to", &[Text, Text], R::Is(T::Bool), similar_to),
        function("similar_to", &[Text, Text, Text], R::Is(T::Bool), similar_to),
        function("substring", &[Text, Text], text, |c| first_match(c, true)),
        function("substring", &[Text, Int4], text, substring),
        function("substring", &[Text, Int4, Int4], text, substring),
        function("substr", &[Text, Int4], text, substring),
        function("substr", &[Text, Int4, Int4], text, substring),
        function("substring", &[Bytea, Int4], R::Is(T::Bytea), subbytes),
        function("substring", &[Bytea, Int4, Int4], R::Is(T::Bytea), subbytes),
        function("substr", &[Bytea, Int4], R::Is(T::Bytea), subbytes),
        function("substr", &[Bytea, Int4, Int4], R::Is(T::Bytea), subbytes),
        function("length", &[Text], R::Is(Int4), |c| {
            c.to_values::<Int32Type>(|row| Ok(Some(c.text(0).value(row).chars().count() as i32)))
        }),
        function("length", &[Bytea], R::Is(Int4), |c| {
            c.to_values::<Int32Type>(|row| Ok(Some(c.bytes(0, row).len() as i32)))
        }),
        function("string_to_array", &[Text, Text], R::Array(Text), string_to_array).sees_nulls(),
        function("string_to_array", &[Text, Text, Text], R::Array(Text), string_to_array)
            .sees_nulls(),
        function("split_part", &[Text, Text, Int4], text, split_part),
        function("to_hex", &[Int4], text, |c| {
            c.to_text(|row, out| Ok(write!(out, "{:x}", c.int4(0, row)).is_ok()))
        }),
        function("to_hex", &[Int8], text, |c| {
            c.to_text(|row, out| Ok(write!(out, "{:x}", c.int8(0, row)).is_ok()))
        }),
        function("to_bin", &[Int8], text, |c| {
            c.to_text(|row, out| Ok(write!(out, "{:b}", c.int8(0, row)).is_ok()))
        }),
        function("to_oct", &[Int8], text, |c| {
            c.to_text(|row, out| Ok(write!(out, "{:o}", c.int8(0, row)).is_ok()))
        }),
        function("starts_with", &[Text, Text], R::Is(T::Bool), starts_with),
        function("^@", &[Text, Text], R::Is(T::Bool), starts_with),
        function("encode", &[Bytea, Text], text, encode),
        function("decode", &[Text, Text], R::Is(T::Bytea), decode),
        function(FIT_LENGTH, &[Text, Int8], text, |c| {
            c.to_text(|row, out| {
                out.push_str(fitting(c, row, "character varying")?);
                Ok(true)
            })
        }),
        function(FIT_CHAR, &[Text, Int8], text, |c| {
            c.to_text(|row, out| {
                out.push_str(fitting(c, row, "character")?.trim_end_matches(' '));
                Ok(true)
            })
        }),
        function("get_byte", &[Bytea, Int4], R::Is(Int4), |c| {
            c.to_values::<Int32Type>(|row| {
                let (bytes, index) = (c.bytes(0, row), c.int4(1, row));
                let byte = usize::try_from(index).ok().and_then(|index| bytes.get(index));
                byte.map(|byte| Some(i32::from(*byte))).ok_or_else(|| {
                    Error::user(
                        SqlState::ARRAY_SUBSCRIPT_ERROR,
                        format!("index {index} out of valid range, 0..{}", bytes.len() as i64 - 1),
                    )
                })
            })
        }),
        function("bit_count", &[Bytea], R::Is(Int8), |c| {
            c.to_values::<Int64Type>(|row| {
                Ok(Some(c.bytes(0, row).iter().map(|byte| i64::from(byte.count_ones())).sum()))
            })
        }),
    ]
}

/// The characters of a text that a column of so many takes: blanks beyond are cut.
fn fitting<'a>(call: &'a Call<'_>, row: usize, type_name: &str) -> Result<&'a str> {
    let (value, length) = (call.text(0).value(row), call.int8(1, row).max(0));
    let kept = value.char_indices().nth(length as usize);
    let (kept, rest) = value.split_at(kept.map_or(value.len(), |(at, _)| at));
    if rest.contains(|c| c != ' ') {
        return Err(Error::user(
            SqlState::STRING_DATA_RIGHT_TRUNCATION,
            format!("value too long for type {type_name}({length})"),
        ));
    }
    Ok(kept)
}

/// Every argument from `first` on as text, in Postgres's spelling.
fn texts(call: &Call<'_>, first: usize) -> Result<Vec<ArrayRef>> {
    call.columns[first..]
        .iter()
        .zip(&call.types[first..])
        .map(|(column, from)| cast_array(column, from, &SqlType::Text, call.settings))
        .collect()
}

/// All texts that are not NULL, between them the first argument (`concat_ws`).
fn joined(call: &Call<'_>, first: usize) -> Result<ArrayRef> {
    let texts = texts(call, first)?;
    call.to_text(|row, out| {
        let separator = match first {
            0 => "",
            _ if call.columns[0].is_null(row) => return Ok(false),
            _ => call.text(0).value(row),
        };
        let mut several = false;
        for text in &texts {
            if text.is_valid(row) {
                if several {
                    out.push_str(separator);
                }
                out.push_str(text.as_string::<i32>().value(row));
                several = true;
            }
        }
        Ok(true)
    })
}

fn quoted(call: &Call<'_>, null_is_text: bool) -> Result<ArrayRef> {
    let texts = texts(call, 0)?;
    call.to_text(|row, out| {
        if texts[0].is_null(row) {
            out.push_str("NULL");
            return Ok(null_is_text);
        }
        push_literal(texts[0].as_string::<i32>().value(row), out);
        Ok(true)
    })
}

/// `format`: `%s`, `%I`, `%L`, `%%`, each with `n$`, `-` and a width.
fn format_text(call: &Call<'_>) -> Result<ArrayRef> {
    let texts = texts(call, 1)?;
    let wrong = |message: String| Error::user(SqlState::INVALID_PARAMETER_VALUE, message);
    let mut value = String::new();
    call.to_text(|row, out| {
        if call.columns[0].is_null(row) {
            return Ok(false);
        }
        let mut characters = call.text(0).value(row).chars().peekable();
        let mut next = 0;
        while let Some(character) = characters.next() {
            if character != '%' {
                out.push(character);
                continue;
            }
            let mut number = String::new();
            let mut left = false;
            let mut width = 0;
            let mut star = false;
            loop {
                match characters.peek().copied() {
                    Some(digit) if digit.is_ascii_digit() => {
                        number.push(digit);
                        characters.next();
                    }
                    Some('$') => {
                        characters.next();
                        let index: usize = number.parse().unwrap_or(0);
                        if index == 0 {
                            return Err(wrong(
                                "format specifies argument 0, but arguments are numbered from 1"
                                    .to_owned(),
                            ));
                        }
                        next = index - 1;
                        number.clear();
                    }
                    Some('-') => {
                        left = true;
                        characters.next();
                    }
                    Some('*') => {
                        star = true;
                        characters.next();
                    }
                    _ => break,
                }
            }
            if star {
                let text = texts.get(next).filter(|t| t.is_valid(row));
                let given = text.map_or("0", |t| t.as_string::<i32>().value(row));
                let given: i64 = given
                    .parse()
                    .map_err(|_| wrong(format!("invalid width in format: \"{given}\"")))?;
                left |= given < 0;
                width = given.unsigned_abs() as usize;
                next += 1;
            } else if !number.is_empty() {
                width = number.parse().unwrap_or(usize::MAX);
            }
            if width > TEXT_BYTES_MAX {
                return Err(wrong("number is out of range".to_owned()));
            }
            let kind = characters.next();
            if kind == Some('%') {
                out.push('%');
                continue;
            }
            let text = texts
                .get(next)
                .ok_or_else(|| wrong("too few arguments for format()".to_owned()))?;
            next += 1;
            let given = text.is_valid(row).then(|| text.as_string::<i32>().value(row));
            value.clear();
            match (kind, given) {
                (Some('s'), given) => value.push_str(given.unwrap_or("")),
                (Some('L'), Some(given)) => push_literal(given, &mut value),
                (Some('L'), None) => value.push_str("NULL"),
                (Some('I'), Some(given)) => push_ident(given, &mut value),
                (Some('I'), None) => {
                    return Err(Error::user(
                        SqlState::INVALID_PARAMETER_VALUE,
                        "null values cannot be formatted as an SQL identifier",
                    ));
                }
                (Some(other), _) => {
                    return Err(wrong(format!("unrecognized format() type specifier \"{other}\""))
                        .hint("For a single \"%\" use \"%%\"."));
                }
                (None, _) => {
                    return Err(wrong("unterminated format() type specifier".to_owned())
                        .hint("For a single \"%\" use \"%%\"."));
                }
            }
            let padding = width.saturating_sub(value.chars().count());
            if !left {
                out.extend(std::iter::repeat_n(' ', padding));
            }
            out.push_str(&value);
            if left {
                out.extend(std::iter::repeat_n(' ', padding));
            }
        }
        Ok(true)
    })
}

/// The last pattern that was compiled; patterns are mostly constants.
#[derive(Default)]
struct Patterns {
    last: Option<(String, String, Regex)>,
}

impl Patterns {
    fn get(&mut self, pattern: &str, flags: &str) -> Result<&Regex> {
        let known = self.last.as_ref().is_some_and(|(p, f, _)| p == pattern && f == flags);
        if !known {
            let regex = compile(pattern, flags)?;
            self.last = Some((pattern.to_owned(), flags.to_owned(), regex));
        }
        let (_, _, regex) = self.last.as_ref().expect("was just made");
        Ok(regex)
    }
}

fn compile(pattern: &str, flags: &str) -> Result<Regex> {
    let mut source = String::with_capacity(pattern.len() + 8);
    let (mut insensitive, mut lines, mut spaced) = (false, false, false);
    for flag in flags.chars() {
        match flag {
            'i' => insensitive = true,
            'c' => insensitive = false,
            'n' | 'm' => lines = true,
            's' => lines = false,
            'x' => spaced = true,
            't' | 'g' | 'e' => {}
            other => {
                return Err(Error::user(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("invalid regular expression option: \"{other}\""),
                ));
            }
        }
    }
    source.push_str(if lines { "(?m" } else { "(?s" });
    if insensitive {
        source.push('i');
    }
    if spaced {
        source.push('x');
    }
    source.push(')');
    let mut escaped = false;
    for character in pattern.chars() {
        match (escaped, character) {
            (true, 'm') => source.push_str("\\b{start}"),
            (true, 'M') => source.push_str("\\b{end}"),
            (true, 'y') => source.push_str("\\b"),
            (true, 'Y') => source.push_str("\\B"),
            (true, 'Z') => source.push_str("\\z"),
            (true, other) => source.extend(['\\', other]),
            (false, '\\') => {}
            (false, other) => source.push(other),
        }
        escaped = !escaped && character == '\\';
    }
    if escaped {
        source.push('\\');
    }
    Regex::new(&source).map_err(|error| {
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
        Error::user(
            SqlState::INVALID_REGULAR_EXPRESSION,
            format!("invalid regular expression: {reason}"),
        )
    })
}

fn regexp_like(call: &Call<'_>, flags: &str) -> Result<ArrayRef> {
    let mut patterns = Patterns::default();
    call.to_booleans(|row| {
        let flags = call.text_at(2, row).unwrap_or(flags);
        let regex = patterns.get(call.text(1).value(row), flags)?;
        Ok(Some(regex.is_match(call.text(0).value(row))))
    })
}

fn negated(array: &ArrayRef) -> Result<ArrayRef> {
    Ok(std::sync::Arc::new(arrow::compute::not(array.as_boolean())?))
}

/// The groups of the first match, or all of it when there are none.
fn regexp_match(call: &Call<'_>) -> Result<ArrayRef> {
    let mut patterns = Patterns::default();
    call.to_texts(|row, items| {
        let flags = call.text_at(2, row).unwrap_or("");
        let regex = patterns.get(call.text(1).value(row), flags)?;
        let Some(found) = regex.captures(call.text(0).value(row)) else { return Ok(false) };
        let first = usize::from(found.len() > 1);
        for group in found.iter().skip(first) {
            items.append_option(group.map(|group| group.as_str()));
        }
        Ok(true)
    })
}

fn texts_of_texts() -> SqlType {
    SqlType::Array(Box::new(SqlType::Array(Box::new(SqlType::Text))))
}

/// The groups of the first match, of every match with the flag `g`; as an array of arrays.
fn regexp_matches(call: &Call<'_>) -> Result<ArrayRef> {
    let mut patterns = Patterns::default();
    let mut groups = StringBuilder::new();
    let (mut group_counts, mut match_counts, mut valid) = (vec![], vec![], vec![]);
    for row in 0..call.rows {
        valid.push(call.sees(row));
        let before = group_counts.len();
        if call.sees(row) {
            let flags = call.text_at(2, row).unwrap_or("");
            let regex = patterns.get(call.text(1).value(row), flags)?;
            let wanted = if flags.contains('g') { usize::MAX } else { 1 };
            for found in regex.captures_iter(call.text(0).value(row)).take(wanted) {
                let first = usize::from(found.len() > 1);
                for group in found.iter().skip(first) {
                    groups.append_option(group.map(|group| group.as_str()));
                }
                group_counts.push(found.len() - first);
            }
        }
        match_counts.push(group_counts.len() - before);
    }
    let DataType::List(field) = call.result.to_arrow() else {
        return Err(Error::internal("matches are an array"));
    };
    let DataType::List(group) = field.data_type() else {
        return Err(Error::internal("a match is an array"));
    };
    let offsets = OffsetBuffer::from_lengths(group_counts);
    let matches = ListArray::try_new(group.clone(), offsets, Arc::new(groups.finish()), None)?;
    call.list_of(Arc::new(matches), match_counts, valid)
}

/// The first match; or its first group, when there is one.
fn first_match(call: &Call<'_>, grouped: bool) -> Result<ArrayRef> {
    let mut patterns = Patterns::default();
    call.to_text(|row, out| {
        let regex = patterns.get(call.text(1).value(row), "")?;
        let found = regex.captures(call.text(0).value(row));
        let group = found.and_then(|found| found.get(usize::from(grouped && found.len() > 1)));
        out.push_str(group.map_or("", |group| group.as_str()));
        Ok(group.is_some())
    })
}

fn regexp_count(call: &Call<'_>) -> Result<ArrayRef> {
    let mut patterns = Patterns::default();
    call.to_values::<Int32Type>(|row| {
        let regex = patterns.get(call.text(1).value(row), "")?;
        Ok(Some(regex.find_iter(call.text(0).value(row)).count() as i32))
    })
}

fn regexp_replace(call: &Call<'_>) -> Result<ArrayRef> {
    let mut patterns = Patterns::default();
    call.to_text(|row, out| {
        let flags = call.text_at(3, row).unwrap_or("");
        let regex = patterns.get(call.text(1).value(row), flags)?;
        let (source, replacement) = (call.text(0).value(row), call.text(2).value(row));
        let mut from = 0;
        for found in regex.captures_iter(source) {
            let Some(whole) = found.get(0) else { continue };
            out.push_str(&source[from..whole.start()]);
            from = whole.end();
            let mut escaped = false;
            for character in replacement.chars() {
                match (escaped, character) {
                    (true, '&') => out.push_str(whole.as_str()),
                    (true, digit) if digit.is_ascii_digit() => {
                        let group = found.get(digit as usize - '0' as usize);
                        out.push_str(group.map_or("", |group| group.as_str()));
                    }
                    (true, '\\') => out.push('\\'),
                    (true, other) => out.extend(['\\', other]),
                    (false, '\\') => {}
                    (false, other) => out.push(other),
                }
                escaped = !escaped && character == '\\';
            }
            if !flags.contains('g') {
                break;
            }
        }
        out.push_str(&source[from..]);
        Ok(true)
    })
}

fn regexp_split(call: &Call<'_>) -> Result<ArrayRef> {
    let mut patterns = Patterns::default();
    call.to_texts(|row, items| {
        let flags = call.text_at(2, row).unwrap_or("");
        let regex = patterns.get(call.text(1).value(row), flags)?;
        let source = call.text(0).value(row);
        let mut from = 0;
        for found in regex.find_iter(source) {
            // An empty match at either end of the text splits nothing, as in Postgres.
            if found.is_empty() && (found.start() == 0 || found.end() == source.len()) {
                continue;
            }
            items.append_value(&source[from..found.start()]);
            from = found.end();
        }
        items.append_value(&source[from..]);
        Ok(true)
    })
}

/// SIMILAR TO: SQL's regular expressions, in which `%` and `_` are as in LIKE.
fn similar_to(call: &Call<'_>) -> Result<ArrayRef> {
    let mut last: Option<(String, Regex)> = None;
    call.to_booleans(|row| {
        let pattern = call.text(1).value(row);
        if last.as_ref().is_none_or(|(known, _)| known != pattern) {
            let escape = call.text_at(2, row).unwrap_or("\\").chars().next();
            last = Some((pattern.to_owned(), compile(&similar_pattern(pattern, escape), "")?));
        }
        let regex = last.as_ref().map(|(_, regex)| regex);
        Ok(regex.map(|regex| regex.is_match(call.text(0).value(row))))
    })
}

fn similar_pattern(pattern: &str, escape: Option<char>) -> String {
    let mut out = String::from("^(?:");
    let (mut escaped, mut bracket) = (false, false);
    for character in pattern.chars() {
        if escaped {
            out.push_str(&regex::escape(character.encode_utf8(&mut [0; 4])));
            escaped = false;
        } else if Some(character) == escape {
            escaped = true;
        } else {
            match character {
                '[' => bracket = true,
                ']' => bracket = false,
                _ => {}
            }
            match character {
                '%' if !bracket => out.push_str(".*"),
                '_' if !bracket => out.push('.'),
                '.' | '^' | '$' | '\\' if !bracket => out.extend(['\\', character]),
                other => out.push(other),
            }
        }
    }
    out.push_str(")$");
    out
}

/// The characters from a place (1 is the first) on, at most so many; a place below 1 takes from
/// their number.
fn substring(call: &Call<'_>) -> Result<ArrayRef> {
    call.to_text(|row, out| {
        let (skip, take) = window(call, row)?;
        out.extend(call.text(0).value(row).chars().skip(skip).take(take));
        Ok(true)
    })
}

fn subbytes(call: &Call<'_>) -> Result<ArrayRef> {
    call.to_bytes(|row, out| {
        let (skip, take) = window(call, row)?;
        out.extend(call.bytes(0, row).iter().skip(skip).take(take));
        Ok(true)
    })
}

/// How many to skip and how many to take.
fn window(call: &Call<'_>, row: usize) -> Result<(usize, usize)> {
    let start = i64::from(call.int4(1, row));
    let end = match call.columns.len() {
        2 => i64::MAX,
        _ => {
            let length = i64::from(call.int4(2, row));
            if length < 0 {
                return Err(Error::user(
                    SqlState::DATA_EXCEPTION,
                    "negative substring length not allowed",
                ));
            }
            start + length
        }
    };
    let first = start.max(1);
    Ok(((first - 1) as usize, end.saturating_sub(first).max(0) as usize))
}

fn starts_with(call: &Call<'_>) -> Result<ArrayRef> {
    call.to_booleans(|row| Ok(Some(call.text(0).value(row).starts_with(call.text(1).value(row)))))
}

/// NULL as the delimiter takes the text apart into characters; the third argument stands for
/// NULL items.
fn string_to_array(call: &Call<'_>) -> Result<ArrayRef> {
    call.to_texts(|row, items| {
        let at = |index: usize| {
            let column = call.columns.get(index)?;
            column.is_valid(row).then(|| column.as_string::<i32>().value(row))
        };
        let Some(text) = at(0) else { return Ok(false) };
        let null = at(2);
        let push = |item: &str, items: &mut StringBuilder| {
            items.append_option((Some(item) != null).then_some(item));
        };
        match at(1) {
            _ if text.is_empty() => {}
            None => {
                let mut buffer = [0; 4];
                text.chars().for_each(|c| push(c.encode_utf8(&mut buffer), items));
            }
            Some("") => push(text, items),
            Some(delimiter) => text.split(delimiter).for_each(|item| push(item, items)),
        }
        Ok(true)
    })
}

fn split_part(call: &Call<'_>) -> Result<ArrayRef> {
    call.to_text(|row, out| {
        let (text, delimiter) = (call.text(0).value(row), call.text(1).value(row));
        let field = call.int4(2, row);
        let place = field.unsigned_abs() as usize;
        let part = match (field, delimiter) {
            (0, _) => {
                return Err(Error::user(
                    SqlState::INVALID_PARAMETER_VALUE,
                    "field position must not be zero",
                ));
            }
            (_, "") => (place == 1).then_some(text),
            (1.., delimiter) => text.split(delimiter).nth(place - 1),
            (_, delimiter) => text.rsplit(delimiter).nth(place - 1),
        };
        out.push_str(part.unwrap_or(""));
        Ok(true)
    })
}

fn unknown_encoding(name: &str) -> Error {
    Error::user(SqlState::INVALID_PARAMETER_VALUE, format!("unrecognized encoding: \"{name}\""))
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn encode(call: &Call<'_>) -> Result<ArrayRef> {
    call.to_text(|row, out| {
        let bytes = call.bytes(0, row);
        let format = call.text(1).value(row);
        if format.eq_ignore_ascii_case("hex") {
            for byte in bytes {
                let _ = write!(out, "{byte:02x}");
            }
        } else if format.eq_ignore_ascii_case("base64") {
            write_base64(bytes, out);
        } else if format.eq_ignore_ascii_case("escape") {
            for byte in bytes {
                match byte {
                    b'\\' => out.push_str("\\\\"),
                    0 | 0x80.. => {
                        let _ = write!(out, "\\{byte:03o}");
                    }
                    byte => out.push(char::from(*byte)),
                }
            }
        } else {
            return Err(unknown_encoding(format));
        }
        Ok(true)
    })
}

fn write_base64(bytes: &[u8], out: &mut String) {
    let mut column = 0;
    for chunk in bytes.chunks(3) {
        if column == BASE64_LINE {
            out.push('\n');
            column = 0;
        }
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            match place <= chunk.len() {
                true => {
                    let digit = bits >> (18 - 6 * place) & 63;
                    out.push(char::from(BASE64[digit as usize]));
                }
                false => out.push('='),
            }
        }
        column += 4;
    }
}

fn decode(call: &Call<'_>) -> Result<ArrayRef> {
    let wrong = |message: String| Error::user(SqlState::INVALID_PARAMETER_VALUE, message);
    call.to_bytes(|row, out| {
        let (text, format) = (call.text(0).value(row), call.text(1).value(row));
        let digits = || text.chars().filter(|c| !c.is_ascii_whitespace());
        if format.eq_ignore_ascii_case("hex") {
            let mut high = None;
            for character in digits() {
                let digit = character
                    .to_digit(16)
                    .ok_or_else(|| wrong(format!("invalid hexadecimal digit: \"{character}\"")))?
                    as u8;
                match high.take() {
                    None => high = Some(digit),
                    Some(high) => out.push(high << 4 | digit),
                }
            }
            if high.is_some() {
                return Err(wrong("invalid hexadecimal data: odd number of digits".to_owned()));
            }
        } else if format.eq_ignore_ascii_case("base64") {
            let (mut bits, mut count, mut ends) = (0_u32, 0, 0);
            for character in digits() {
                if character == '=' {
                    ends += 1;
                    continue;
                }
                let digit = BASE64.iter().position(|b| char::from(*b) == character);
                let digit = digit.filter(|_| ends == 0).ok_or_else(|| {
                    wrong(format!(
                        "invalid symbol \"{character}\" found while decoding base64 sequence"
                    ))
                })?;
                bits = bits << 6 | digit as u32;
                count += 1;
                if count % 4 == 0 {
                    out.extend_from_slice(&bits.to_be_bytes()[1..]);
                    bits = 0;
                }
            }
            match (count % 4, ends) {
                (0, 0) => {}
                (2, 2) => out.push((bits >> 4) as u8),
                (3, 1) => out.extend_from_slice(&((bits >> 2) as u16).to_be_bytes()),
                _ => {
                    return Err(wrong("invalid base64 end sequence".to_owned()).hint(
                        "Input data is missing padding, is truncated, or is otherwise corrupted.",
                    ));
                }
            }
        } else if format.eq_ignore_ascii_case("escape") {
            unescape(text, out)?;
        } else {
            return Err(unknown_encoding(format));
        }
        Ok(true)
    })
}

fn unescape(text: &str, out: &mut Vec<u8>) -> Result<()> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'\\' {
            out.push(bytes[at]);
            at += 1;
            continue;
        }
        let octal = bytes.get(at + 1..at + 4).and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match (bytes.get(at + 1), octal) {
            (Some(b'\\'), _) => {
                out.push(b'\\');
                at += 2;
            }
            (_, Some(byte)) => {
                out.push(byte);
                at += 4;
            }
            _ => {
                return Err(Error::user(
                    SqlState::INVALID_TEXT_REPRESENTATION,
                    "invalid input syntax for type bytea",
                ));
            }
        }
    }
    Ok(())
}
