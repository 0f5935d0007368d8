//! Bytes to rows: no files, no sockets.
//!
//! | file | owns |
//! |---|---|
//! | `cells.rs` | one column's values as text, and which rows turned out bad |
//! | `text.rs` | text to typed columns, one loop per column |
//! | `time_text.rs` | ISO 8601 dates, times and timestamps |
//! | `json.rs` | a validating scanner of JSON, and JSON values to typed columns |
//! | `csv.rs` | csv records to batches |
//! | `ndjson.rs` | JSON lines to batches |
//!
//! A decoder gets bytes and gives a batch, how many bytes that took, and each record that does
//! not fit ([`Malformed`]). It works in two steps: find where the values of the asked columns
//! stand in the bytes, then turn them into arrays column by column.

use arrow::array::RecordBatch;

use crate::types::error::Result;

pub mod cells;
pub mod csv;
pub mod json;
pub mod ndjson;
pub mod text;
pub mod time_text;

/// A longer record is malformed: without a limit one missing quote would swallow the memory.
pub const RECORD_BYTES_MAX: usize = 16 << 20;

/// How much of a malformed record is kept.
const RECORD_SHOWN_BYTES_MAX: usize = 1_000;

/// A record that does not fit its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Lines from the beginning of the decoded bytes to the record's first line.
    pub line: u64,
    /// The record, cut to 1,000 bytes.
    pub record: String,
    pub message: String,
}

/// What a decoder made of some bytes.
#[derive(Debug)]
pub struct Decoded {
    pub rows: RecordBatch,
    /// In the order of the records.
    pub malformed: Vec<Malformed>,
    /// Bytes used, up to the end of a record; 0 when a whole record has not come yet.
    pub bytes: usize,
    /// Lines in these bytes.
    pub lines: u64,
}

/// Turns bytes into rows.
pub trait Decoder: Send {
    /// Decodes at most `records_max` records from the front of `bytes`. A last record that may
    /// not be complete is left, unless the bytes are the last (`at_end`).
    fn decode(&mut self, bytes: &[u8], at_end: bool, records_max: usize) -> Result<Decoded>;
}

/// A record as it is told to people.
fn shown(record: &[u8]) -> String {
    let cut = &record[..record.len().min(RECORD_SHOWN_BYTES_MAX)];
    let mut text = String::from_utf8_lossy(cut.trim_ascii_end()).into_owned();
    // Lossy conversion can lengthen the text; a cut must not split a character.
    let mut end = text.len().min(RECORD_SHOWN_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
