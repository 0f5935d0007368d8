//! Bits and bytes (chapter 9.5 of Postgres's manual), text in other encodings, and what is in a
//! uuid (9.14).

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, FixedSizeBinaryArray};
use arrow::datatypes::{DataType, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType};

use crate::functions::scalar::call::{Call, Overload, R, T, function};
use crate::observe::clock::Clock;
use crate::types::error::{Error, Result, SqlState};

/// All of them.
pub fn all() -> Vec<Overload> {
    use T::{Bytea, Int2, Int4, Int8, Text, Timestamptz, Uuid};
    vec![
        function("get_bit", &[Bytea, Int8], R::Is(Int4), |c| {
            c.to_values::<Int32Type>(|row| {
                let bytes = c.bytes(0, row);
                let index = index(c.int8(1, row), bytes.len() * 8)?;
                Ok(Some(i32::from(bytes[index / 8] >> (index % 8) & 1)))
            })
        }),
        function("set_bit", &[Bytea, Int8, Int4], R::Is(Bytea), |c| {
            c.to_bytes(|row, out| {
                out.extend_from_slice(c.bytes(0, row));
                let index = index(c.int8(1, row), out.len() * 8)?;
                let bit = 1 << (index % 8);
                match c.int4(2, row) {
                    0 => out[index / 8] &= !bit,
                    1 => out[index / 8] |= bit,
                    _ => return Err(wrong("new bit must be 0 or 1")),
                }
                Ok(true)
            })
        }),
        function("set_byte", &[Bytea, Int4, Int4], R::Is(Bytea), |c| {
            c.to_bytes(|row, out| {
                out.extend_from_slice(c.bytes(0, row));
                let index = index(c.int4(1, row).into(), out.len())?;
                // As in Postgres, the lowest eight bits count.
                out[index] = c.int4(2, row) as u8;
                Ok(true)
            })
        }),
        function("crc32", &[Bytea], R::Is(Int8), |c| checksums(c, 0xEDB8_8320)),
        function("crc32c", &[Bytea], R::Is(Int8), |c| checksums(c, 0x82F6_3B78)),
        function("convert_from", &[Bytea, Text], R::Is(Text), |c| {
            c.to_text(|row, out| {
                let bytes = c.bytes(0, row);
                match encoding(c.text(1).value(row))? {
                    Encoding::Utf8 => {
                        let text = std::str::from_utf8(bytes).ok().filter(|t| !t.contains('\0'));
                        out.push_str(text.ok_or_else(not_utf8)?);
                    }
                    Encoding::Latin1 => out.extend(bytes.iter().map(|byte| char::from(*byte))),
                }
                Ok(true)
            })
        }),
        function("convert_to", &[Text, Text], R::Is(Bytea), |c| {
            c.to_bytes(|row, out| {
                let text = c.text(0).value(row);
                match encoding(c.text(1).value(row))? {
                    Encoding::Utf8 => out.extend_from_slice(text.as_bytes()),
                    Encoding::Latin1 => {
                        for character in text.chars() {
                            let byte = u8::try_from(u32::from(character));
                            out.push(byte.map_err(|_| not_latin1(character))?);
                        }
                    }
                }
                Ok(true)
            })
        }),
        function("uuidv4", &[], R::Is(Uuid), |c| {
            uuids((0..c.rows).map(|_| *uuid::Uuid::new_v4().as_bytes()))
        })
        .volatile(),
        function("uuidv7", &[], R::Is(Uuid), |c| {
            let now_us = Clock::system().now().0.max(0) as u64;
            // Milliseconds, then 12 bits of a fraction; rows of one call follow each other.
            let first = ((now_us / 1000) << 12) | ((now_us % 1000) * 4096 / 1000);
            uuids((0..c.rows as u64).map(|row| version_7(first + row)))
        })
        .volatile(),
        function("uuid_extract_version", &[Uuid], R::Is(Int2), |c| {
            c.to_values::<Int16Type>(|row| {
                let bytes = uuid(c, row);
                Ok(is_standard(bytes).then(|| i16::from(bytes[6] >> 4)))
            })
        }),
        function("uuid_extract_timestamp", &[Uuid], R::Is(Timestamptz), |c| {
            c.to_values::<TimestampMicrosecondType>(|row| Ok(moment(uuid(c, row))))
        }),
    ]
}

fn wrong(message: impl Into<String>) -> Error {
    Error::user(SqlState::INVALID_PARAMETER_VALUE, message.into())
}

/// The place of a bit or byte.
fn index(index: i64, length: usize) -> Result<usize> {
    usize::try_from(index).ok().filter(|index| *index < length).ok_or_else(|| {
        let last = length as i64 - 1;
        let message = format!("index {index} out of valid range, 0..{last}");
        Error::user(SqlState::ARRAY_SUBSCRIPT_ERROR, message)
    })
}

/// The checksum of a polynomial, whose bits stand in reverse.
fn checksums(call: &Call<'_>, polynomial: u32) -> Result<ArrayRef> {
    let mut table = [0_u32; 256];
    for (byte, entry) in table.iter_mut().enumerate() {
        let shift = |value: u32, _| value >> 1 ^ if value & 1 == 1 { polynomial } else { 0 };
        *entry = (0..8).fold(byte as u32, shift);
    }
    call.to_values::<Int64Type>(|row| {
        let step = |sum: u32, byte: &u8| sum >> 8 ^ table[usize::from(sum as u8 ^ *byte)];
        Ok(Some(i64::from(!call.bytes(0, row).iter().fold(u32::MAX, step))))
    })
}

enum Encoding {
    Utf8,
    Latin1,
}

fn encoding(name: &str) -> Result<Encoding> {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    match plain.to_ascii_lowercase().as_str() {
        "utf8" | "unicode" => Ok(Encoding::Utf8),
        "latin1" | "iso88591" => Ok(Encoding::Latin1),
        _ => {
            Err(wrong(format!("invalid encoding name \"{name}\""))
                .hint("There are UTF8 and LATIN1."))
        }
    }
}

fn not_utf8() -> Error {
    let state = SqlState::CHARACTER_NOT_IN_REPERTOIRE;
    Error::user(state, "invalid byte sequence for encoding \"UTF8\"")
}

fn not_latin1(character: char) -> Error {
    Error::user(
        SqlState("22P05"),
        format!("character \"{character}\" has no equivalent in encoding \"LATIN1\""),
    )
}

fn uuids(ids: impl Iterator<Item = [u8; 16]>) -> Result<ArrayRef> {
    let ids: Vec<[u8; 16]> = ids.collect();
    match ids.is_empty() {
        true => Ok(arrow::array::new_empty_array(&DataType::FixedSizeBinary(16))),
        false => Ok(Arc::new(FixedSizeBinaryArray::try_from_iter(ids.iter())?)),
    }
}

/// A uuid of version 7: milliseconds and 12 bits of a fraction, then chance.
fn version_7(time: u64) -> [u8; 16] {
    let mut bytes = *uuid::Uuid::new_v4().as_bytes();
    bytes[..6].copy_from_slice(&(time >> 12).to_be_bytes()[2..]);
    bytes[6] = 0x70 | (time >> 8 & 0x0F) as u8;
    bytes[7] = time as u8;
    bytes
}

fn uuid<'a>(call: &'a Call<'_>, row: usize) -> &'a [u8] {
    call.columns[0].as_fixed_size_binary().value(row)
}

/// Whether it is of the variant that has versions.
fn is_standard(bytes: &[u8]) -> bool {
    bytes[8] >> 6 == 0b10
}

/// When a uuid of version 1 or 7 was made, in microseconds since 1970.
fn moment(bytes: &[u8]) -> Option<i64> {
    /// 100 ns between 1582-10-15 and 1970-01-01.
    const GREGORIAN: i64 = 0x01B2_1DD2_1381_4000;
    let number = |range: std::ops::Range<usize>| {
        bytes[range].iter().fold(0_i64, |number, byte| number << 8 | i64::from(*byte))
    };
    match bytes[6] >> 4 {
        _ if !is_standard(bytes) => None,
        1 => {
            let (low, middle, high) = (number(0..4), number(4..6), number(6..8) & 0x0FFF);
            Some((high << 48 | middle << 32 | low).checked_sub(GREGORIAN)?.div_euclid(10))
        }
        7 => number(0..6).checked_mul(1000),
        _ => None,
    }
}
