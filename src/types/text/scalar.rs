//! boolean, bytea and uuid, to and from text.

use bytes::{BufMut, BytesMut};

use super::{invalid_syntax, is_space, trim};
use crate::types::error::{Error, Result, SqlState};

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The `bytea_output` setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteaOutput {
    /// `\x00ff41`
    Hex,
    /// `\000\377A`
    Escape,
}

pub fn write_boolean(value: bool, out: &mut BytesMut) {
    out.put_u8(if value { b't' } else { b'f' });
}

fn write_hex(bytes: &[u8], out: &mut BytesMut) {
    // In pieces, so that the buffer's bounds are checked once for many digits.
    let mut digits = [0; 64];
    for piece in bytes.chunks(32) {
        for (byte, pair) in piece.iter().zip(digits.chunks_exact_mut(2)) {
            pair[0] = HEX[usize::from(byte >> 4)];
            pair[1] = HEX[usize::from(byte & 15)];
        }
        out.put_slice(&digits[..2 * piece.len()]);
    }
}

pub fn write_bytea(bytes: &[u8], style: ByteaOutput, out: &mut BytesMut) {
    match style {
        ByteaOutput::Hex => {
            out.reserve(2 + 2 * bytes.len());
            out.put_slice(b"\\x");
            write_hex(bytes, out);
        }
        ByteaOutput::Escape => {
            for &byte in bytes {
                match byte {
                    b'\\' => out.put_slice(b"\\\\"),
                    0x20..=0x7e => out.put_u8(byte),
                    _ => out.put_slice(&[
                        b'\\',
                        b'0' + (byte >> 6),
                        b'0' + (byte >> 3 & 7),
                        b'0' + (byte & 7),
                    ]),
                }
            }
        }
    }
}

/// uuid; `bytes` are 16.
pub fn write_uuid(bytes: &[u8], out: &mut BytesMut) {
    debug_assert_eq!(bytes.len(), 16, "a uuid has 16 bytes");
    for (place, part) in [0..4, 4..6, 6..8, 8..10, 10..16].into_iter().enumerate() {
        if place > 0 {
            out.put_u8(b'-');
        }
        write_hex(&bytes[part], out);
    }
}

/// `t`, `TRUE`, `yes`, `on`, `1`, any unambiguous beginning of them, and their opposites.
///
/// # Errors
/// SQLSTATE 22P02.
pub fn parse_boolean(text: &str) -> Result<bool> {
    let word = trim(text).as_bytes();
    let begins = |full: &[u8], least: usize| {
        word.len() >= least
            && word.len() <= full.len()
            && word.eq_ignore_ascii_case(&full[..word.len()])
    };
    if begins(b"true", 1) || begins(b"yes", 1) || begins(b"on", 2) || word == b"1" {
        Ok(true)
    } else if begins(b"false", 1) || begins(b"no", 1) || begins(b"off", 2) || word == b"0" {
        Ok(false)
    } else {
        Err(invalid_syntax("boolean", text))
    }
}

fn hex_digit(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|d| d as u8)
}

/// bytea in hex (`\x00ff`) or escape form (`\000a\\`); appends the bytes.
///
/// # Errors
/// SQLSTATE 22P02 and 22023.
pub fn parse_bytea(text: &str, bytes: &mut Vec<u8>) -> Result<()> {
    match text.strip_prefix("\\x").or_else(|| text.strip_prefix("\\X")) {
        Some(hex) => parse_hex(hex, bytes),
        None => parse_escaped(text.as_bytes(), bytes),
    }
}

fn parse_hex(hex: &str, bytes: &mut Vec<u8>) -> Result<()> {
    let wrong = |message: String| Err(Error::user(SqlState::INVALID_PARAMETER_VALUE, message));
    let mut chars = hex.chars().filter(|c| !(c.is_ascii() && is_space(*c as u8)));
    bytes.reserve(hex.len() / 2);
    while let Some(high) = chars.next() {
        let mut pair = [high, high];
        match chars.next() {
            Some(low) => pair[1] = low,
            None if high.is_ascii_hexdigit() => {
                return wrong("invalid hexadecimal data: odd number of digits".to_owned());
            }
            None => {}
        }
        let mut byte = 0;
        for c in pair {
            let Some(digit) = u8::try_from(c).ok().and_then(hex_digit) else {
                return wrong(format!("invalid hexadecimal digit: \"{c}\""));
            };
            byte = byte << 4 | digit;
        }
        bytes.push(byte);
    }
    Ok(())
}

fn parse_escaped(text: &[u8], bytes: &mut Vec<u8>) -> Result<()> {
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match after {
            [b'\\', ..] => {
                bytes.push(b'\\');
                rest = &after[1..];
            }
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = &after[3..];
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

/// uuid: 32 hexadecimal digits, with hyphens behind any group of four and perhaps braces.
///
/// # Errors
/// SQLSTATE 22P02.
pub fn parse_uuid(text: &str) -> Result<[u8; 16]> {
    read_uuid(text).ok_or_else(|| invalid_syntax("uuid", text))
}

fn read_uuid(text: &str) -> Option<[u8; 16]> {
    let inner = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}')?,
        None => text,
    };
    let mut uuid = [0; 16];
    let mut rest = inner.as_bytes();
    for (place, byte) in uuid.iter_mut().enumerate() {
        let [high, low, after @ ..] = rest else { return None };
        *byte = hex_digit(*high)? << 4 | hex_digit(*low)?;
        rest = after;
        if place % 2 == 1 && place < 15 {
            rest = rest.strip_prefix(b"-").unwrap_or(rest);
        }
    }
    rest.is_empty().then_some(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl Fn(&mut BytesMut)) -> String {
        let mut out = BytesMut::new();
        write(&mut out);
        String::from_utf8(out.to_vec()).expect("text")
    }

    #[test]
    fn booleans() {
        for text in ["t", "TRUE", "tr", " y ", "yes", "on", "1"] {
            assert!(parse_boolean(text).expect(text), "{text}");
        }
        for text in ["f", "False", "n", "no", "of", "OFF", "0"] {
            assert!(!parse_boolean(text).expect(text), "{text}");
        }
        for text in ["", "o", "truer", "2", "nope"] {
            let error = parse_boolean(text).expect_err(text);
            assert_eq!(
                error.message(),
                format!("invalid input syntax for type boolean: \"{text}\"")
            );
        }
    }

    #[test]
    fn byteas() {
        let bytes = [0, 0xff, b'A', b'\\', b'\''];
        assert_eq!(written(|out| write_bytea(&bytes, ByteaOutput::Hex, out)), r"\x00ff415c27");
        assert_eq!(written(|out| write_bytea(&bytes, ByteaOutput::Escape, out)), r"\000\377A\\'");
        for text in [r"\x00ff415c27", r"\X00 FF 41 5c27", r"\000\377A\\'"] {
            let mut read = Vec::new();
            parse_bytea(text, &mut read).expect(text);
            assert_eq!(read, bytes, "{text}");
        }
        for (text, sqlstate, message) in [
            (r"\x1", "22023", "invalid hexadecimal data: odd number of digits"),
            (r"\x1g", "22023", "invalid hexadecimal digit: \"g\""),
            (r"\9", "22P02", "invalid input syntax for type bytea"),
            (r"\400", "22P02", "invalid input syntax for type bytea"),
        ] {
            let error = parse_bytea(text, &mut Vec::new()).expect_err(text);
            assert_eq!((error.sqlstate().0, error.message()), (sqlstate, message));
        }
    }

    #[test]
    fn uuids() {
        let canonical = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        for text in [
            canonical,
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
        ] {
            let uuid = parse_uuid(text).expect(text);
            assert_eq!(written(|out| write_uuid(&uuid, out)), canonical);
        }
        for text in [
            "",
            "{a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0eebc999c0b4ef8bb6d6bb9bd380a1",
            "a0e-ebc999c0b4ef8bb6d6bb9bd380a11",
        ] {
            let error = parse_uuid(text).expect_err(text);
            assert_eq!(error.message(), format!("invalid input syntax for type uuid: \"{text}\""));
        }
    }
}
