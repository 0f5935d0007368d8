//! Values as Postgres prints and reads them, one value at a time, without allocating.
//!
//! | file | owns |
//! |---|---|
//! | `number.rs` | integers, floats (shortest digits that read back), numeric |
//! | `datetime.rs` | date, time, timestamp, timestamptz |
//! | `interval.rs` | interval in all four styles |
//! | `zone.rs` | time zones and their offsets |
//! | `scalar.rs` | boolean, bytea, uuid |
//! | `quote.rs` | names and texts as SQL that means them |
//! | `secret.rs` | options as they are shown, without passwords |
//! | `json.rs` | json is checked, jsonb is brought into its one spelling |
//!
//! Printing appends to a buffer and cannot fail; reading returns the error of Postgres with its
//! SQLSTATE. Columns, arrays and rows are put together from these elsewhere.

pub mod datetime;
pub mod interval;
pub mod json;
pub mod number;
pub mod quote;
pub mod scalar;
pub mod secret;
pub mod zone;

use crate::types::error::{Error, SqlState};

/// `invalid input syntax for type integer: "x"`.
pub(crate) fn invalid_syntax(type_name: &str, text: &str) -> Error {
    Error::user(
        SqlState::INVALID_TEXT_REPRESENTATION,
        format!("invalid input syntax for type {type_name}: \"{text}\""),
    )
}

/// What Postgres's input functions skip: C's `isspace`, which has one more than Rust's.
pub(crate) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// `text` without the space around it.
pub(crate) fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_ascii() && is_space(c as u8))
}
