//! json and jsonb.
//!
//! json keeps its text and is only checked. jsonb is brought into the one spelling that Postgres
//! prints, so that equal values are equal texts wherever rows are compared or grouped: keys sorted
//! by length and then by bytes, the last of equal keys wins, `{"a": 1, "b": [1, 2]}`, strings with
//! the fewest escapes, numbers without exponents.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};

use crate::types::error::{Error, Result, SqlState};

/// How deeply arrays and objects may nest. The reader calls itself once a level; this many levels
/// fit in the smallest stack that we run on.
pub const JSON_DEPTH_MAX: usize = 500;

/// Zeros that an exponent may add to a jsonb number. `1e131071` is a number to Postgres; written
/// out, a small document of such would fill the memory.
const EXPONENT_ZEROS_MAX: i64 = 400;

/// Checks a json text.
///
/// # Errors
/// SQLSTATE 22P02 with the reason as detail, 54001 when it nests too deeply.
pub fn check_json(text: &str) -> Result<()> {
    Reader { text, at: 0, jsonb: false }.document().map(|_| ())
}

/// Reads a json text and writes it as jsonb.
///
/// # Errors
/// As [`check_json`]; 22P05 for `\u0000`, 22003 for a number that is too large.
pub fn write_jsonb(text: &str, out: &mut BytesMut) -> Result<()> {
    let mark = out.len();
    let written = Reader { text, at: 0, jsonb: true }.document().and_then(|node| node.write(out));
    if written.is_err() {
        out.truncate(mark);
    }
    written
}

/// Reads a json text as a tree; the members of an object are those of jsonb.
///
/// # Errors
/// As [`check_json`].
pub fn read_jsonb(text: &str) -> Result<Node<'_>> {
    Reader { text, at: 0, jsonb: true }.document()
}

/// Writes a string as JSON, in quotes.
pub fn write_json_string(string: &str, out: &mut BytesMut) {
    write_string(string, out);
}

/// A value of a document.
#[derive(Clone, Debug)]
pub enum Node<'a> {
    /// `null`, `true`, `false`.
    Word(&'static str),
    Number(Cow<'a, str>),
    String(Cow<'a, str>),
    Array(Vec<Node<'a>>),
    /// Sorted as jsonb sorts them, when the document was read as jsonb.
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
}

impl<'a> Node<'a> {
    /// An object of these members; the last of equal keys wins.
    pub fn object(members: Vec<(Cow<'a, str>, Node<'a>)>) -> Node<'a> {
        Node::Object(sort_members(members))
    }

    /// Writes it in jsonb's spelling.
    ///
    /// # Errors
    /// SQLSTATE 22003 for a number that is too large.
    pub fn write(&self, out: &mut BytesMut) -> Result<()> {
        match self {
            Node::Word(word) => out.put_slice(word.as_bytes()),
            Node::Number(number) => write_number(number, out)?,
            Node::String(string) => write_string(string, out),
            Node::Array(items) => {
                out.put_u8(b'[');
                for (place, item) in items.iter().enumerate() {
                    if place > 0 {
                        out.put_slice(b", ");
                    }
                    item.write(out)?;
                }
                out.put_u8(b']');
            }
            Node::Object(members) => {
                out.put_u8(b'{');
                for (place, (key, value)) in members.iter().enumerate() {
                    if place > 0 {
                        out.put_slice(b", ");
                    }
                    write_string(key, out);
                    out.put_slice(b": ");
                    value.write(out)?;
                }
                out.put_u8(b'}');
            }
        }
        Ok(())
    }
}

/// Sorts members as jsonb does and keeps the last of equal keys.
fn sort_members<'a>(mut members: Vec<(Cow<'a, str>, Node<'a>)>) -> Vec<(Cow<'a, str>, Node<'a>)> {
    // Reversed and stable: the last of equal keys comes first and is the one that stays.
    members.reverse();
    members.sort_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    members.dedup_by(|later, kept| later.0 == kept.0);
    members
}

fn write_string(string: &str, out: &mut BytesMut) {
    out.put_u8(b'"');
    let bytes = string.as_bytes();
    let mut plain_from = 0;
    for (place, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.put_slice(&bytes[plain_from..place]);
        plain_from = place + 1;
        match byte {
            b'"' => out.put_slice(b"\\\""),
            b'\\' => out.put_slice(b"\\\\"),
            b'\n' => out.put_slice(b"\\n"),
            b'\r' => out.put_slice(b"\\r"),
            b'\t' => out.put_slice(b"\\t"),
            0x08 => out.put_slice(b"\\b"),
            0x0c => out.put_slice(b"\\f"),
            _ => {
                let digit = |d: u8| b"0123456789abcdef"[usize::from(d)];
                out.put_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }
    out.put_slice(&bytes[plain_from..]);
    out.put_u8(b'"');
}

/// Writes a number (whose syntax has been checked) without an exponent.
fn write_number(number: &str, out: &mut BytesMut) -> Result<()> {
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().unwrap_or(i64::MAX)),
        None => (number, 0),
    };
    let unsigned = mantissa.strip_prefix('-').unwrap_or(mantissa);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let zero = !unsigned.bytes().any(|b| matches!(b, b'1'..=b'9'));
    if mantissa.len() < number.len() && (exponent.saturating_abs() > EXPONENT_ZEROS_MAX) {
        return Err(Error::user(
            SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
            "value overflows numeric format",
        )
        .detail(format!("Exponents in jsonb numbers go up to {EXPONENT_ZEROS_MAX}.")));
    }
    // The number is 0.digits * 10^point, with `scale` digits behind the point.
    let point = whole.len() as i64 + exponent;
    let scale = (fraction.len() as i64 - exponent).max(0);
    if zero {
        out.put_u8(b'0');
    } else {
        if mantissa.len() > unsigned.len() {
            out.put_u8(b'-');
        }
        let digits = whole.bytes().chain(fraction.bytes());
        let whole_len = usize::try_from(point).unwrap_or(0);
        let mut shown = digits.take(whole_len).skip_while(|d| *d == b'0').peekable();
        let mut any = false;
        let given = (whole.len() + fraction.len()).min(whole_len);
        for digit in shown.by_ref() {
            any = true;
            out.put_u8(digit);
        }
        if any {
            out.put_bytes(b'0', whole_len - given);
        } else {
            out.put_u8(b'0');
        }
    }
    if scale > 0 {
        out.put_u8(b'.');
        let digits = whole.bytes().chain(fraction.bytes());
        let leading = usize::try_from(-point).unwrap_or(0);
        out.put_bytes(b'0', leading.min(scale as usize));
        for digit in digits.skip(usize::try_from(point).unwrap_or(0)) {
            out.put_u8(digit);
        }
    }
    Ok(())
}

/// A place in a json text.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Checks also what only jsonb refuses.
    jsonb: bool,
}

/// A syntax error and its reason.
fn invalid(detail: impl Into<String>) -> Error {
    Error::user(SqlState::INVALID_TEXT_REPRESENTATION, "invalid input syntax for type json")
        .detail(detail)
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Takes `byte` behind space if it stands there.
    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let here = self.peek() == Some(byte);
        self.at += usize::from(here);
        here
    }

    fn document(&mut self) -> Result<Node<'a>> {
        let node = self.value(0)?;
        self.skip_space();
        match self.peek() {
            None => Ok(node),
            Some(_) => Err(self.unexpected("end of input")),
        }
    }

    fn value(&mut self, depth: usize) -> Result<Node<'a>> {
        if depth > JSON_DEPTH_MAX {
            return Err(Error::user(SqlState::STATEMENT_TOO_COMPLEX, "stack depth limit exceeded")
                .detail(format!("JSON may nest {JSON_DEPTH_MAX} levels deep.")));
        }
        self.skip_space();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => Ok(Node::String(self.string()?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b) if b.is_ascii_alphabetic() || !b.is_ascii() => {
                let token = self.token();
                let word = ["null", "true", "false"].into_iter().find(|w| *w == token);
                self.at += token.len();
                word.map(Node::Word)
                    .ok_or_else(|| invalid(format!("Token \"{token}\" is invalid.")))
            }
            _ => Err(self.unexpected("JSON value")),
        }
    }

    fn array(&mut self, depth: usize) -> Result<Node<'a>> {
        self.at += 1;
        let mut items = Vec::new();
        if self.take(b']') {
            return Ok(Node::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.take(b']') {
                return Ok(Node::Array(items));
            }
            if !self.take(b',') {
                return Err(self.unexpected("\",\" or \"]\""));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Node<'a>> {
        self.at += 1;
        let mut members = Vec::new();
        if self.take(b'}') {
            return Ok(Node::Object(members));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                let expected = if members.is_empty() { "string or \"}\"" } else { "string" };
                return Err(self.unexpected(expected));
            }
            let key = self.string()?;
            if !self.take(b':') {
                return Err(self.unexpected("\":\""));
            }
            members.push((key, self.value(depth + 1)?));
            if self.take(b'}') {
                return Ok(Node::Object(if self.jsonb { sort_members(members) } else { members }));
            }
            if !self.take(b',') {
                return Err(self.unexpected("\",\" or \"}\""));
            }
        }
    }

    fn number(&mut self) -> Result<Node<'a>> {
        let token = self.token();
        let mut rest = token.strip_prefix('-').unwrap_or(token).as_bytes();
        let digits = |rest: &mut &[u8]| {
            let count = rest.iter().take_while(|b| b.is_ascii_digit()).count();
            *rest = &rest[count..];
            count
        };
        let leading_zero = rest.first() == Some(&b'0');
        let whole = digits(&mut rest);
        let mut valid = whole == 1 || (whole > 1 && !leading_zero);
        if let Some(after) = rest.strip_prefix(b".") {
            rest = after;
            valid &= digits(&mut rest) > 0;
        }
        if let [b'e' | b'E', after @ ..] = rest {
            rest = after.strip_prefix(b"-").or_else(|| after.strip_prefix(b"+")).unwrap_or(after);
            valid &= digits(&mut rest) > 0;
        }
        if !valid || !rest.is_empty() {
            return Err(invalid(format!("Token \"{token}\" is invalid.")));
        }
        self.at += token.len();
        Ok(Node::Number(Cow::Borrowed(token)))
    }

    /// A string, whose opening quote stands here.
    fn string(&mut self) -> Result<Cow<'a, str>> {
        let start = self.at;
        self.at += 1;
        let mut plain_from = self.at;
        let mut unescaped: Option<String> = None;
        loop {
            match self.peek() {
                None => {
                    return Err(invalid(format!("Token \"{}\" is invalid.", &self.text[start..])));
                }
                Some(b'"') => {
                    let tail = &self.text[plain_from..self.at];
                    self.at += 1;
                    return Ok(match unescaped {
                        None => Cow::Borrowed(tail),
                        Some(mut string) => {
                            string.push_str(tail);
                            Cow::Owned(string)
                        }
                    });
                }
                Some(b'\\') => {
                    let string = unescaped.get_or_insert_default();
                    string.push_str(&self.text[plain_from..self.at]);
                    let c = self.escape()?;
                    unescaped.get_or_insert_default().extend(c);
                    plain_from = self.at;
                }
                Some(byte) if byte < 0x20 => {
                    return Err(invalid(format!(
                        "Character with value 0x{byte:02x} must be escaped."
                    )));
                }
                Some(_) => self.at += 1,
            }
        }
    }

    /// The character of an escape, whose backslash stands here; `None` for `\u0000` in json, which
    /// nobody looks at.
    fn escape(&mut self) -> Result<Option<char>> {
        let rest = &self.text[self.at + 1..];
        let Some(kind) = rest.chars().next() else {
            return Err(invalid(format!("Token \"{}\" is invalid.", &self.text[self.at..])));
        };
        self.at += 1 + kind.len_utf8();
        let c = match kind {
            '"' | '\\' | '/' => kind,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => return self.unicode(),
            _ => return Err(invalid(format!("Escape sequence \"\\{kind}\" is invalid."))),
        };
        Ok(Some(c))
    }

    fn unicode(&mut self) -> Result<Option<char>> {
        let first = self.four_hex_digits()?;
        let code = match first {
            0xd800..=0xdbff => {
                let pair_follows = self.text[self.at..].starts_with("\\u");
                let low = if pair_follows {
                    self.at += 2;
                    self.four_hex_digits()?
                } else {
                    0
                };
                if !(0xdc00..=0xdfff).contains(&low) {
                    return Err(invalid("Unicode low surrogate must follow a high surrogate."));
                }
                0x10000 + ((first - 0xd800) << 10) + (low - 0xdc00)
            }
            0xdc00..=0xdfff => {
                return Err(invalid("Unicode low surrogate must follow a high surrogate."));
            }
            0 if self.jsonb => {
                return Err(Error::user(
                    SqlState::UNTRANSLATABLE_CHARACTER,
                    "unsupported Unicode escape sequence",
                )
                .detail("\\u0000 cannot be converted to text."));
            }
            0 => return Ok(None),
            code => code,
        };
        Ok(char::from_u32(code))
    }

    fn four_hex_digits(&mut self) -> Result<u32> {
        let digits = self.text.get(self.at..self.at + 4);
        match digits.filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit())) {
            Some(digits) => {
                self.at += 4;
                Ok(u32::from_str_radix(digits, 16).expect("four hexadecimal digits"))
            }
            None => Err(invalid("\"\\u\" must be followed by four hexadecimal digits.")),
        }
    }

    /// What stands here, as far as an error should quote it.
    fn token(&self) -> &'a str {
        let rest = &self.text[self.at..];
        let is_part = |c: char| c.is_alphanumeric() || "+-._".contains(c);
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        if end > 0 {
            return &rest[..end];
        }
        let first = rest.chars().next().map_or(0, char::len_utf8);
        &rest[..first]
    }

    fn unexpected(&mut self, expected: &str) -> Error {
        self.skip_space();
        if self.at == self.text.len() {
            return invalid("The input string ended unexpectedly.");
        }
        invalid(format!("Expected {expected}, but found \"{}\".", self.token()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jsonb(text: &str) -> Result<String> {
        let mut out = BytesMut::new();
        write_jsonb(text, &mut out)?;
        Ok(String::from_utf8(out.to_vec()).expect("text"))
    }

    /// Right column: what Postgres 15 prints.
    #[test]
    fn jsonb_has_one_spelling() {
        for (text, expected) in [
            (
                r#" {"bb":1,"a":2,"c":[1,2 , 3],"a":{"x":null}} "#,
                r#"{"a": {"x": null}, "c": [1, 2, 3], "bb": 1}"#,
            ),
            (r#""\u00e9\t\u0001\/\ud83d\ude00""#, r#""é\t\u0001/😀""#),
            ("[]", "[]"),
            ("{}", "{}"),
            ("[true,false]", "[true, false]"),
            ("-0", "0"),
            ("-0.0", "0.0"),
            ("1.50", "1.50"),
            ("1.50e1", "15.0"),
            ("1e-3", "0.001"),
            ("-1.10E+2", "-110"),
            ("0e5", "0"),
            ("0.00e1", "0.0"),
            ("12.345e1", "123.45"),
            ("12.345e-4", "0.0012345"),
            ("0.001e5", "100"),
            ("1e20", "100000000000000000000"),
        ] {
            assert_eq!(jsonb(text).expect(text), expected, "{text}");
            assert_eq!(jsonb(expected).expect(text), expected, "spelling is stable");
            check_json(text).expect(text);
        }
    }

    /// Right column: the detail that Postgres 15 gives.
    #[test]
    fn what_is_no_json() {
        for (text, detail) in [
            ("", "The input string ended unexpectedly."),
            (r#"{"a":}"#, r#"Expected JSON value, but found "}"."#),
            (r#"{"a""#, "The input string ended unexpectedly."),
            ("nul", r#"Token "nul" is invalid."#),
            ("[1,]", r#"Expected JSON value, but found "]"."#),
            (r#""\x""#, r#"Escape sequence "\x" is invalid."#),
            (r#""\ud83d""#, "Unicode low surrogate must follow a high surrogate."),
            ("\"\t\"", "Character with value 0x09 must be escaped."),
            ("01", r#"Token "01" is invalid."#),
            ("1 2", r#"Expected end of input, but found "2"."#),
            ("1.", r#"Token "1." is invalid."#),
            (r#""abc"#, r#"Token ""abc" is invalid."#),
            (r#""\u12""#, r#""\u" must be followed by four hexadecimal digits."#),
            ("{1:2}", r#"Expected string or "}", but found "1"."#),
        ] {
            let error = jsonb(text).expect_err(text);
            assert_eq!(error.sqlstate().0, "22P02");
            assert_eq!(error.body().detail.as_deref(), Some(detail), "{text}");
            assert!(check_json(text).is_err());
        }
    }

    #[test]
    fn limits_are_errors() {
        let deep = "[".repeat(100_000);
        assert_eq!(check_json(&deep).expect_err("too deep").sqlstate().0, "54001");
        let fits = "[".repeat(JSON_DEPTH_MAX) + &"]".repeat(JSON_DEPTH_MAX);
        check_json(&fits).expect("deep enough");
        assert_eq!(jsonb("1e9999999999999999999").expect_err("too large").sqlstate().0, "22003");
        assert_eq!(jsonb(r#""\u0000""#).expect_err("no zero bytes").sqlstate().0, "22P05");
        check_json(r#""\u0000""#).expect("json keeps its text");
    }
}
