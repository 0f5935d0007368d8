//! Arrays (`{1,NULL,"a b"}`) and rows (`(1,,"a b")`) from text.
//!
//! Both are cut into the texts of their parts, which the parts' own readers take; parts that are
//! arrays or rows themselves are cut again there.

use super::{ColumnBuilder, Context, SqlType, too_many_dimensions};
use crate::types::error::{Error, Result, SqlState};
use crate::types::text::{is_space, trim};

fn malformed_array(text: &str, detail: impl Into<String>) -> Error {
    Error::user(
        SqlState::INVALID_TEXT_REPRESENTATION,
        format!("malformed array literal: \"{text}\""),
    )
    .detail(detail)
}

/// Appends the items of an array to `items`.
pub(super) fn append_array(text: &str, items: &mut ColumnBuilder, context: &Context) -> Result<()> {
    let nested = matches!(items.sql_type, SqlType::Array(_));
    let mut scan = Scan { text, at: 0 };
    scan.skip_bounds();
    if !scan.take(b'{') {
        let detail = "Array value must start with \"{\" or dimension information.";
        return Err(malformed_array(text, detail));
    }
    let mut buffer = String::new();
    let mut first = true;
    loop {
        scan.skip_space();
        match scan.peek() {
            Some(b'}') if first => {}
            Some(b'{') if nested => {
                let inner = scan.braces().ok_or_else(|| end_of_input(text))?;
                items.append_text(inner, context)?;
            }
            Some(b'{') => {
                return Err(too_many_dimensions(&SqlType::Array(Box::new(items.sql_type.clone()))));
            }
            _ => {
                let quoted = scan.item(&mut buffer, text)?;
                if !quoted && buffer.eq_ignore_ascii_case("null") {
                    items.append_null();
                } else {
                    items.append_text(&buffer, context)?;
                }
            }
        }
        first = false;
        scan.skip_space();
        if scan.take(b'}') {
            break;
        }
        if !scan.take(b',') {
            return Err(match scan.peek() {
                None => end_of_input(text),
                Some(_) => malformed_array(text, "Unexpected array element."),
            });
        }
    }
    scan.skip_space();
    match scan.peek() {
        None => Ok(()),
        Some(_) => Err(malformed_array(text, "Junk after closing right brace.")),
    }
}

fn end_of_input(text: &str) -> Error {
    malformed_array(text, "Unexpected end of input.")
}

/// A place in the text.
struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let here = self.peek() == Some(byte);
        self.at += usize::from(here);
        here
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.at += 1;
        }
    }

    /// Takes one character and puts it into `buffer`.
    fn character(&mut self, buffer: &mut String) {
        let c = self.text[self.at..].chars().next().expect("called in front of a character");
        buffer.push(c);
        self.at += c.len_utf8();
    }

    /// `[1:3]=` in front of an array. Subscripts begin with 1 here, whatever it says.
    fn skip_bounds(&mut self) {
        self.skip_space();
        if self.peek() == Some(b'[')
            && let Some(equals) = self.text[self.at..].find('=')
            && self.text[self.at..self.at + equals]
                .bytes()
                .all(|b| matches!(b, b'[' | b']' | b':' | b'-' | b'+' | b'0'..=b'9'))
        {
            self.at += equals + 1;
        }
        self.skip_space();
    }

    /// A whole array inside of this one, with its braces.
    fn braces(&mut self) -> Option<&'a str> {
        let start = self.at;
        let mut depth = 0usize;
        let mut quoted = false;
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'\\' => self.at += 1,
                b'"' => quoted = !quoted,
                b'{' if !quoted => depth += 1,
                b'}' if !quoted => {
                    depth -= 1;
                    if depth == 0 {
                        return self.text.get(start..self.at);
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// Takes one item into `buffer`; whether it was quoted, and so is not NULL.
    fn item(&mut self, buffer: &mut String, text: &str) -> Result<bool> {
        buffer.clear();
        if self.take(b'"') {
            loop {
                match self.peek() {
                    None => return Err(end_of_input(text)),
                    Some(b'"') => {
                        self.at += 1;
                        return Ok(true);
                    }
                    Some(b'\\') => {
                        self.at += 1;
                        if self.peek().is_none() {
                            return Err(end_of_input(text));
                        }
                        self.character(buffer);
                    }
                    Some(_) => self.character(buffer),
                }
            }
        }
        // Length up to the last character that is not space, or that was escaped.
        let mut kept = 0;
        let mut escaped = false;
        loop {
            match self.peek() {
                None => return Err(end_of_input(text)),
                Some(b',' | b'}') => break,
                Some(byte @ (b'{' | b'"')) => {
                    let detail = format!("Unexpected \"{}\" character.", byte as char);
                    return Err(malformed_array(text, detail));
                }
                Some(b'\\') => {
                    self.at += 1;
                    if self.peek().is_none() {
                        return Err(end_of_input(text));
                    }
                    self.character(buffer);
                    kept = buffer.len();
                    escaped = true;
                }
                Some(byte) => {
                    self.character(buffer);
                    if !is_space(byte) {
                        kept = buffer.len();
                    }
                }
            }
        }
        buffer.truncate(kept);
        if buffer.is_empty() {
            let found = self.peek().map_or(' ', char::from);
            return Err(malformed_array(text, format!("Unexpected \"{found}\" character.")));
        }
        Ok(escaped)
    }
}

fn malformed_record(text: &str, detail: &str) -> Error {
    Error::user(
        SqlState::INVALID_TEXT_REPRESENTATION,
        format!("malformed record literal: \"{text}\""),
    )
    .detail(detail)
}

/// Appends one value to each of `fields`.
pub(super) fn append_record(
    text: &str,
    fields: &mut [ColumnBuilder],
    context: &Context,
) -> Result<()> {
    let inner = trim(text);
    let mut scan = Scan { text: inner, at: 0 };
    if !scan.take(b'(') {
        return Err(malformed_record(text, "Missing left parenthesis."));
    }
    let mut buffer = String::new();
    let count = fields.len();
    for (place, field) in fields.iter_mut().enumerate() {
        if place > 0 && !scan.take(b',') {
            return Err(malformed_record(text, "Too few columns."));
        }
        if scan.field(&mut buffer, text)? {
            field.append_text(&buffer, context)?;
        } else {
            field.append_null();
        }
    }
    if !scan.take(b')') {
        let empty_row = count == 0 || scan.peek().is_none();
        let detail = if empty_row { "Unexpected end of input." } else { "Too many columns." };
        return Err(malformed_record(text, detail));
    }
    if scan.at < inner.len() {
        return Err(malformed_record(text, "Junk after right parenthesis."));
    }
    Ok(())
}

impl Scan<'_> {
    /// Takes a row's field into `buffer`; false when nothing stands there, which is NULL.
    fn field(&mut self, buffer: &mut String, text: &str) -> Result<bool> {
        let end_of_input = || malformed_record(text, "Unexpected end of input.");
        buffer.clear();
        if matches!(self.peek(), Some(b',' | b')')) {
            return Ok(false);
        }
        let mut quoted = false;
        loop {
            match self.peek() {
                None => return Err(end_of_input()),
                Some(b',' | b')') if !quoted => return Ok(true),
                Some(b'\\') => {
                    self.at += 1;
                    if self.peek().is_none() {
                        return Err(end_of_input());
                    }
                    self.character(buffer);
                }
                Some(b'"') => {
                    self.at += 1;
                    // Doubled inside quotes it stands for itself.
                    if quoted && self.peek() == Some(b'"') {
                        self.character(buffer);
                    } else {
                        quoted = !quoted;
                    }
                }
                Some(_) => self.character(buffer),
            }
        }
    }
}
