//! `repeat`, `lpad` and `rpad`: functions that make much out of little.
//!
//! How long a text becomes is known before it is made, so what is too long is refused while nothing
//! of it is in memory: a value of more than 256 MiB, and a column of more than 1 GiB.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringBuilder};

use crate::functions::scalar::call::{Call, Overload, R, T, function};
use crate::types::error::{Error, Result, SqlState};

/// Bytes of a value, at most.
const VALUE_BYTES_MAX: usize = 1 << 28;
/// Bytes of a column of some thousand rows, at most: text of one batch has to stay below 2 GiB.
const COLUMN_BYTES_MAX: usize = 1 << 30;

/// All of them.
pub fn all() -> Vec<Overload> {
    use T::{Int4, Text};
    let text = R::Is(T::Text);
    vec![
        function("repeat", &[Text, Int4], text, repeat),
        function("lpad", &[Text, Int4], text, |c| padded(c, Side::Left)),
        function("lpad", &[Text, Int4, Text], text, |c| padded(c, Side::Left)),
        function("rpad", &[Text, Int4], text, |c| padded(c, Side::Right)),
        function("rpad", &[Text, Int4, Text], text, |c| padded(c, Side::Right)),
    ]
}

/// Where the filling goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// What is refused with the message of Postgres.
fn too_long() -> Error {
    Error::user(SqlState::PROGRAM_LIMIT_EXCEEDED, "requested length too large")
        .detail("A value is 256 MiB at most, and those of some thousand rows together 1 GiB.")
}

/// A column of texts whose lengths in bytes are known before they are written.
fn of_known_length(
    call: &Call<'_>,
    bytes: impl Fn(usize) -> Option<usize>,
    mut write: impl FnMut(usize, &mut String),
) -> Result<ArrayRef> {
    let mut sum = 0;
    for row in (0..call.rows).filter(|row| call.sees(*row)) {
        let bytes = bytes(row).filter(|bytes| *bytes <= VALUE_BYTES_MAX).ok_or_else(too_long)?;
        sum += bytes;
        if sum > COLUMN_BYTES_MAX {
            return Err(too_long());
        }
    }
    let mut builder = StringBuilder::with_capacity(call.rows, sum);
    let mut buffer = String::new();
    for row in 0..call.rows {
        buffer.clear();
        if call.sees(row) {
            write(row, &mut buffer);
            builder.append_value(&buffer);
        } else {
            builder.append_null();
        }
    }
    Ok(Arc::new(builder.finish()))
}

fn repeat(call: &Call<'_>) -> Result<ArrayRef> {
    let texts = call.text(0);
    let times = |row| match texts.value(row).is_empty() {
        true => 0,
        false => call.int4(1, row).max(0) as usize,
    };
    of_known_length(
        call,
        |row| texts.value(row).len().checked_mul(times(row)),
        |row, out| (0..times(row)).for_each(|_| out.push_str(texts.value(row))),
    )
}

/// A text as so many characters: cut at its end, or filled up at one side. An empty filling fills
/// nothing.
fn padded(call: &Call<'_>, side: Side) -> Result<ArrayRef> {
    let texts = call.text(0);
    let fillings = (call.columns.len() > 2).then(|| call.text(2));
    let filling = |row| fillings.as_ref().map_or(" ", |fillings| fillings.value(row));
    // The bytes that stay of the text, and the characters that are missing.
    let parts = |row| {
        let (text, length) = (texts.value(row), call.int4(1, row).max(0) as usize);
        match text.char_indices().nth(length) {
            Some((end, _)) => (end, 0),
            None => (text.len(), length - text.chars().count()),
        }
    };
    let fill = |row, out: &mut String| {
        let filling = filling(row);
        out.extend(filling.chars().cycle().take(parts(row).1));
    };
    let bytes = |row| {
        let (kept, missing): (usize, usize) = parts(row);
        let filling = filling(row);
        let whole = filling.chars().count().max(1);
        let rest: usize = filling.chars().take(missing % whole).map(char::len_utf8).sum();
        (missing / whole).checked_mul(filling.len())?.checked_add(kept + rest)
    };
    of_known_length(call, bytes, |row, out| {
        if side == Side::Left {
            fill(row, out);
        }
        out.push_str(&texts.value(row)[..parts(row).0]);
        if side == Side::Right {
            fill(row, out);
        }
    })
}
