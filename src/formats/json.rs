//! A validating scanner of JSON, and JSON values to typed columns.
//!
//! The scanner builds nothing: it checks the grammar of RFC 8259 and tells where values begin and
//! end, so a value that no column wants costs one pass over its bytes. A column is made from its
//! values' places ([`column`]):
//! 1. `null` is NULL; strings lose quotes and escapes; everything else is its own text;
//! 2. scalar types go the way of all text (`text.rs`), so `"5"` and `5` are both a bigint;
//! 3. arrays and row types are split into the values of their elements and fields, as one column
//!    each, and made from those;
//! 4. json and jsonb, and text columns that get an object or array, keep the text as it stands.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};

use crate::formats::cells::{BadRows, Cells};
use crate::formats::text;
use crate::formats::time_text::Bad;
use crate::types::error::{Error, Result};
use crate::types::sql_type::SqlType;

/// Values nested deeper are refused, so that nesting cannot exhaust the stack.
const DEPTH_MAX: usize = 128;

/// Why a text is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonError {
    pub what: &'static str,
    /// Bytes before it.
    pub at: usize,
}

/// Reads one text of JSON from left to right.
#[derive(Clone, Debug)]
pub struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
}

/// A string's bytes between its quotes.
#[derive(Clone, Copy, Debug)]
pub struct JsonString<'a> {
    pub inner: &'a [u8],
    pub has_escapes: bool,
}

impl<'a> JsonString<'a> {
    /// The text that it stands for.
    pub fn text(self) -> Cow<'a, [u8]> {
        if !self.has_escapes {
            return Cow::Borrowed(self.inner);
        }
        let mut text = Vec::with_capacity(self.inner.len());
        unescape(self.inner, &mut text);
        Cow::Owned(text)
    }
}

impl<'a> Scanner<'a> {
    pub fn new(bytes: &'a [u8]) -> Scanner<'a> {
        Scanner { bytes, at: 0, depth: 0 }
    }

    fn error<T>(&self, what: &'static str) -> Result<T, JsonError> {
        Err(JsonError { what, at: self.at })
    }

    /// The next byte that is not white space, or 0 at the end.
    fn peek(&mut self) -> u8 {
        while let Some(byte) = self.bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return *byte;
            }
            self.at += 1;
        }
        0
    }

    /// Checks that nothing follows.
    pub fn end(&mut self) -> Result<(), JsonError> {
        self.peek();
        if self.at == self.bytes.len() { Ok(()) } else { self.error("trailing characters") }
    }

    /// One value of any kind: its text.
    pub fn value(&mut self) -> Result<&'a [u8], JsonError> {
        let first = self.peek();
        let start = self.at;
        match first {
            b'"' => {
                self.string()?;
            }
            b'{' => self.object(|_, _| Ok(()))?,
            b'[' => self.array(|_| Ok(()))?,
            b't' => self.word(b"true")?,
            b'f' => self.word(b"false")?,
            b'n' => self.word(b"null")?,
            b'-' | b'0'..=b'9' => self.number()?,
            0 if self.at == self.bytes.len() => return self.error("unexpected end"),
            _ => return self.error("unexpected character"),
        }
        Ok(&self.bytes[start..self.at])
    }

    fn word(&mut self, word: &[u8]) -> Result<(), JsonError> {
        if !self.bytes[self.at..].starts_with(word) {
            return self.error("unexpected character");
        }
        self.at += word.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), JsonError> {
        self.at += usize::from(self.bytes[self.at] == b'-');
        let whole = self.at;
        self.digits()?;
        if self.bytes[whole] == b'0' && self.at > whole + 1 {
            self.at = whole;
            return self.error("number with a leading zero");
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at == start { self.error("expected a digit") } else { Ok(()) }
    }

    /// A string; the next byte is its opening quote.
    fn string(&mut self) -> Result<JsonString<'a>, JsonError> {
        self.at += 1;
        let start = self.at;
        let mut has_escapes = false;
        loop {
            match self.bytes.get(self.at) {
                None => return self.error("unterminated string"),
                Some(b'"') => {
                    let inner = &self.bytes[start..self.at];
                    self.at += 1;
                    return Ok(JsonString { inner, has_escapes });
                }
                Some(b'\\') => {
                    has_escapes = true;
                    self.escape()?;
                }
                Some(0..0x20) => return self.error("control character in a string"),
                Some(_) => self.at += 1,
            }
        }
    }

    /// An escape; the next byte is its backslash.
    fn escape(&mut self) -> Result<(), JsonError> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => {
                let unit = self.hex_unit(self.at)?;
                self.at += 6;
                match unit {
                    0xD800..0xDC00 => {
                        let low = match self.bytes.get(self.at..self.at + 2) {
                            Some(b"\\u") => self.hex_unit(self.at)?,
                            _ => return self.error("lone surrogate in a string"),
                        };
                        if !(0xDC00..0xE000).contains(&low) {
                            return self.error("lone surrogate in a string");
                        }
                        self.at += 6;
                        Ok(())
                    }
                    0xDC00..0xE000 => self.error("lone surrogate in a string"),
                    _ => Ok(()),
                }
            }
            _ => self.error("invalid escape in a string"),
        }
    }

    /// The four hexadecimal digits of a `\u....` at `at`.
    fn hex_unit(&self, at: usize) -> Result<u32, JsonError> {
        match self.bytes.get(at + 2..at + 6).and_then(hex_unit) {
            Some(unit) => Ok(unit),
            None => self.error("invalid escape in a string"),
        }
    }

    /// An object; calls `member` with each key and value.
    pub fn object(
        &mut self,
        mut member: impl FnMut(JsonString<'a>, &'a [u8]) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        if self.peek() != b'{' {
            return self.error("expected an object");
        }
        self.enter()?;
        if self.peek() == b'}' {
            return self.leave();
        }
        loop {
            if self.peek() != b'"' {
                return self.error("expected a key in quotes");
            }
            let key = self.string()?;
            if self.peek() != b':' {
                return self.error("expected a colon");
            }
            self.at += 1;
            member(key, self.value()?)?;
            match self.peek() {
                b',' => self.at += 1,
                b'}' => return self.leave(),
                _ => return self.error("expected a comma or a closing brace"),
            }
        }
    }

    /// An array; calls `element` with each value.
    pub fn array(
        &mut self,
        mut element: impl FnMut(&'a [u8]) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        if self.peek() != b'[' {
            return self.error("expected an array");
        }
        self.enter()?;
        if self.peek() == b']' {
            return self.leave();
        }
        loop {
            element(self.value()?)?;
            match self.peek() {
                b',' => self.at += 1,
                b']' => return self.leave(),
                _ => return self.error("expected a comma or a closing bracket"),
            }
        }
    }

    fn enter(&mut self) -> Result<(), JsonError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.error("nested too deeply");
        }
        self.at += 1;
        Ok(())
    }

    fn leave(&mut self) -> Result<(), JsonError> {
        self.depth -= 1;
        self.at += 1;
        Ok(())
    }
}

fn hex_unit(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))
}

/// Whether the bytes are one JSON value.
pub fn is_valid(bytes: &[u8]) -> bool {
    let mut scanner = Scanner::new(bytes);
    scanner.value().is_ok() && scanner.end().is_ok()
}

/// Appends the text of a string's inner bytes, which a [`Scanner`] has checked.
fn unescape(inner: &[u8], text: &mut Vec<u8>) {
    let mut rest = inner;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        text.extend_from_slice(&rest[..at]);
        let (character, used) = escaped(&rest[at..]);
        text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        rest = &rest[at + used..];
    }
    text.extend_from_slice(rest);
}

/// The character of an escape, and its length in bytes.
fn escaped(escape: &[u8]) -> (char, usize) {
    let unit = |at: usize| escape.get(at + 2..at + 6).and_then(hex_unit).unwrap_or(0xFFFD);
    match escape.get(1) {
        Some(b'b') => ('\u{8}', 2),
        Some(b'f') => ('\u{c}', 2),
        Some(b'n') => ('\n', 2),
        Some(b'r') => ('\r', 2),
        Some(b't') => ('\t', 2),
        Some(b'u') => match unit(0) {
            high @ 0xD800..0xDC00 => {
                let code = 0x1_0000 + ((high - 0xD800) << 10) + (unit(6) & 0x3FF);
                (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 12)
            }
            code => (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 6),
        },
        Some(other) => (char::from(*other), 2),
        None => (char::REPLACEMENT_CHARACTER, 1),
    }
}

/// Values of one column as JSON text that a [`Scanner`] has checked, as an array of the field's
/// type. `None` is NULL, as `null` is.
pub fn column(field: &Field, tokens: Cells, bad: &mut BadRows) -> Result<ArrayRef> {
    match field.data_type() {
        DataType::List(item) => list(field, item, tokens, bad),
        DataType::Struct(fields) => structs(field, fields, tokens, bad),
        _ => scalars(field, tokens, bad),
    }
}

fn is_null(token: &[u8]) -> bool {
    token == b"null"
}

/// NULL or the value's text.
fn value_of<'a>(token: &Option<&'a [u8]>) -> Option<&'a [u8]> {
    token.filter(|token| !is_null(token))
}

fn scalars(field: &Field, tokens: Cells, bad: &mut BadRows) -> Result<ArrayRef> {
    let keeps_json = matches!(SqlType::of_field(field), Some(SqlType::Json | SqlType::Jsonb));
    if keeps_json {
        return text::column(field, tokens, bad);
    }
    // Strings with escapes are written out first; then all values stand still and are referred to.
    let mut unescaped = Vec::new();
    let mut unescaped_ends = Vec::new();
    for token in tokens.values {
        if let Some(string) = token.and_then(string_inner)
            && memchr::memchr(b'\\', string).is_some()
        {
            unescape(string, &mut unescaped);
            unescaped_ends.push(unescaped.len());
        }
    }
    let mut ends = unescaped_ends.iter();
    let mut start = 0;
    let values: Vec<Option<&[u8]>> = tokens
        .values
        .iter()
        .map(|token| match value_of(token) {
            Some(token) => match string_inner(token) {
                Some(string) if memchr::memchr(b'\\', string).is_some() => {
                    let end = *ends.next().expect("one end for each string with escapes");
                    let text = &unescaped[start..end];
                    start = end;
                    Some(text)
                }
                Some(string) => Some(string),
                None => Some(token),
            },
            None => None,
        })
        .collect();
    text::column(field, Cells { values: &values, ..tokens }, bad)
}

/// What stands between a string's quotes; `None` for other values.
fn string_inner(token: &[u8]) -> Option<&[u8]> {
    match token {
        [b'"', inner @ .., b'"'] => Some(inner),
        _ => None,
    }
}

fn list(field: &Field, item: &FieldRef, tokens: Cells, bad: &mut BadRows) -> Result<ArrayRef> {
    let mut elements: Vec<Option<&[u8]>> = Vec::new();
    let mut rows = Vec::new();
    let mut lengths = Vec::with_capacity(tokens.len());
    let mut valid = Vec::with_capacity(tokens.len());
    for (index, token) in tokens.values.iter().enumerate() {
        let before = elements.len();
        let is_array = match value_of(token) {
            Some(token) if token.first() == Some(&b'[') => {
                Scanner::new(token)
                    .array(|element| {
                        elements.push(Some(element));
                        Ok(())
                    })
                    .map_err(|error| Error::internal(format!("JSON was checked: {error:?}")))?;
                true
            }
            Some(_) => {
                tokens.bad_value(bad, index, field, Bad::Syntax);
                false
            }
            None => false,
        };
        rows.resize(elements.len(), tokens.row(index));
        lengths.push(elements.len() - before);
        valid.push(is_array);
    }
    let cells = Cells { values: &elements, rows: Some(&rows), column: tokens.column };
    let values = column(item, cells, bad)?;
    build_list(item, lengths, valid, values)
}

fn build_list(
    item: &FieldRef,
    lengths: Vec<usize>,
    valid: Vec<bool>,
    values: ArrayRef,
) -> Result<ArrayRef> {
    let offsets = OffsetBuffer::from_lengths(lengths);
    let nulls = Some(NullBuffer::from(valid)).filter(|nulls| nulls.null_count() > 0);
    Ok(Arc::new(ListArray::try_new(item.clone(), offsets, values, nulls)?))
}

fn structs(field: &Field, fields: &Fields, tokens: Cells, bad: &mut BadRows) -> Result<ArrayRef> {
    let mut values = vec![vec![None; tokens.len()]; fields.len()];
    let mut valid = Vec::with_capacity(tokens.len());
    for (index, token) in tokens.values.iter().enumerate() {
        let is_object = match value_of(token) {
            Some(token) if token.first() == Some(&b'{') => {
                Scanner::new(token)
                    .object(|key, value| {
                        if let Some(field) = find_name(fields, &key.text()) {
                            values[field][index] = Some(value);
                        }
                        Ok(())
                    })
                    .map_err(|error| Error::internal(format!("JSON was checked: {error:?}")))?;
                true
            }
            Some(_) => {
                tokens.bad_value(bad, index, field, Bad::Syntax);
                false
            }
            None => false,
        };
        valid.push(is_object);
    }
    let columns = fields
        .iter()
        .zip(&values)
        .map(|(field, values)| {
            let cells = Cells { values, rows: tokens.rows, column: tokens.column };
            column(field, cells, bad)
        })
        .collect::<Result<Vec<_>>>()?;
    let nulls = Some(NullBuffer::from(valid)).filter(|nulls| nulls.null_count() > 0);
    let array = StructArray::try_new_with_length(fields.clone(), columns, nulls, tokens.len())?;
    Ok(Arc::new(array))
}

/// The field of this name; without one, the first whose name differs in case only.
pub fn find_name(fields: &Fields, name: &[u8]) -> Option<usize> {
    let exact = fields.iter().position(|field| field.name().as_bytes() == name);
    exact.or_else(|| {
        let name = std::str::from_utf8(name).ok()?.to_lowercase();
        fields.iter().position(|field| field.name().to_lowercase() == name)
    })
}

/// Arrays and row types from cells of text: JSON, or for arrays `{a,b}` as Postgres writes them.
pub fn column_of_text(field: &Field, cells: Cells, bad: &mut BadRows) -> Result<ArrayRef> {
    if let DataType::List(item) = field.data_type() {
        return list_of_text(field, item, cells, bad);
    }
    let values: Vec<Option<&[u8]>> = cells
        .values
        .iter()
        .enumerate()
        .map(|(index, cell)| {
            let text = cell.map(<[u8]>::trim_ascii)?;
            if is_valid(text) {
                return Some(text);
            }
            cells.bad_value(bad, index, field, Bad::Syntax);
            None
        })
        .collect();
    column(field, Cells { values: &values, ..cells }, bad)
}

/// Arrays from text, each written as it likes; the elements are text again.
fn list_of_text(
    field: &Field,
    item: &FieldRef,
    cells: Cells,
    bad: &mut BadRows,
) -> Result<ArrayRef> {
    let keeps_json = matches!(SqlType::of_field(item), Some(SqlType::Json | SqlType::Jsonb));
    let mut elements: Vec<Option<Cow<[u8]>>> = Vec::new();
    let mut rows = Vec::new();
    let mut lengths = Vec::with_capacity(cells.len());
    let mut valid = Vec::with_capacity(cells.len());
    for (index, cell) in cells.values.iter().enumerate() {
        let before = elements.len();
        let good = match cell.map(<[u8]>::trim_ascii) {
            Some(text @ [b'{', ..]) => braced_elements(text, &mut elements),
            Some(text) => bracketed_elements(text, keeps_json, &mut elements),
            None => false,
        };
        if !good {
            elements.truncate(before);
            if cell.is_some() {
                cells.bad_value(bad, index, field, Bad::Syntax);
            }
        }
        rows.resize(elements.len(), cells.row(index));
        lengths.push(elements.len() - before);
        valid.push(good);
    }
    let values: Vec<Option<&[u8]>> = elements.iter().map(Option::as_deref).collect();
    let inner = Cells { values: &values, rows: Some(&rows), column: cells.column };
    let values = text::column(item, inner, bad)?;
    build_list(item, lengths, valid, values)
}

/// Appends the elements of a JSON array as text; false when it is not one.
fn bracketed_elements<'a>(
    text: &'a [u8],
    keeps_json: bool,
    elements: &mut Vec<Option<Cow<'a, [u8]>>>,
) -> bool {
    let mut scanner = Scanner::new(text);
    let scanned = scanner.array(|token| {
        elements.push(match string_inner(token) {
            Some(inner) if !keeps_json => {
                let has_escapes = memchr::memchr(b'\\', inner).is_some();
                Some(JsonString { inner, has_escapes }.text())
            }
            _ if is_null(token) => None,
            _ => Some(Cow::Borrowed(token)),
        });
        Ok(())
    });
    scanned.is_ok() && scanner.end().is_ok()
}

/// Appends the elements of `{...}`; false when it is not an array.
fn braced_elements<'a>(text: &'a [u8], elements: &mut Vec<Option<Cow<'a, [u8]>>>) -> bool {
    let [b'{', inner @ .., b'}'] = text else { return false };
    let mut rest = inner.trim_ascii();
    if rest.is_empty() {
        return true;
    }
    loop {
        let Some((element, used)) = braced_element(rest) else { return false };
        elements.push(element);
        rest = rest[used..].trim_ascii_start();
        rest = match rest {
            [] => return true,
            [b',', rest @ ..] => rest.trim_ascii_start(),
            _ => return false,
        };
    }
}

/// The first element of a list and how many bytes it takes; the outer `None` when it is broken.
fn braced_element(text: &[u8]) -> Option<(Option<Cow<'_, [u8]>>, usize)> {
    match text.first()? {
        b'"' => {
            let mut value = Vec::new();
            let mut at = 1;
            loop {
                match text.get(at)? {
                    b'"' => return Some((Some(Cow::Owned(value)), at + 1)),
                    b'\\' => {
                        value.push(*text.get(at + 1)?);
                        at += 2;
                    }
                    byte => {
                        value.push(*byte);
                        at += 1;
                    }
                }
            }
        }
        b'{' => {
            let (mut depth, mut in_quotes, mut at) = (0usize, false, 0);
            loop {
                match text.get(at)? {
                    b'\\' => at += 1,
                    b'"' => in_quotes = !in_quotes,
                    b'{' if !in_quotes => depth += 1,
                    b'}' if !in_quotes => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    return Some((Some(Cow::Borrowed(text.get(..at)?)), at));
                }
                if depth > DEPTH_MAX {
                    return None;
                }
            }
        }
        _ => {
            let end = text.iter().position(|b| *b == b',').unwrap_or(text.len());
            let value = text[..end].trim_ascii_end();
            if value.is_empty() || value.iter().any(|b| matches!(b, b'{' | b'}' | b'"')) {
                return None;
            }
            let value = (!value.eq_ignore_ascii_case(b"null")).then_some(Cow::Borrowed(value));
            Some((value, end))
        }
    }
}

#[cfg(test)]
mod tests;
