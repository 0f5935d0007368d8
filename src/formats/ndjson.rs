//! JSON lines (one object per line) to batches.
//!
//! 1. Scan each line once: its grammar is checked, and where a wanted value stands is noted.
//!    Writers put keys in the same order in every line, so a key is compared with the one at this
//!    place in the line before; only another key is looked up.
//! 2. Turn the places of each column into an array (`json.rs`); rows with bad values are taken
//!    out and told.
//!
//! Keys match column names as they are, else whatever their case. Other keys are ignored; a key
//! that is missing is NULL; of a key that stands twice the last counts. Empty lines are skipped.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;

use crate::formats::cells::{BadRows, Cells};
use crate::formats::json::{JsonError, JsonString, Scanner, column, find_name};
use crate::formats::{Decoded, Decoder, Malformed, RECORD_BYTES_MAX, shown};
use crate::types::error::Result;

/// Keys at so many places in a line are remembered.
const KEYS_REMEMBERED_MAX: usize = 1_000;

/// Decodes the lines of one file.
pub struct NdjsonDecoder {
    /// All columns that keys may match.
    declared: SchemaRef,
    /// For each of those, its place in `schema`, if it is wanted.
    wanted: Vec<Option<usize>>,
    /// The columns to make.
    schema: SchemaRef,
    /// The key that stood at each place of a line, and its column.
    remembered: Vec<(Vec<u8>, Option<usize>)>,
}

impl NdjsonDecoder {
    /// Makes `columns` of the `declared` ones, each named once.
    pub fn new(declared: SchemaRef, columns: &[usize]) -> Result<NdjsonDecoder> {
        let mut wanted = vec![None; declared.fields().len()];
        for (place, column) in columns.iter().enumerate() {
            wanted[*column] = Some(place);
        }
        let schema = Arc::new(declared.project(columns)?);
        Ok(NdjsonDecoder { declared, wanted, schema, remembered: Vec::new() })
    }

    /// The wanted column of the key at this place in the line.
    fn column_of(&mut self, place: usize, key: JsonString) -> Option<usize> {
        if let Some((known, column)) = self.remembered.get(place)
            && *known == key.inner
        {
            return *column;
        }
        let declared = find_name(self.declared.fields(), &key.text());
        let column = declared.and_then(|declared| self.wanted[declared]);
        if let Some(entry) = self.remembered.get_mut(place) {
            *entry = (key.inner.to_vec(), column);
        } else if place == self.remembered.len() && place < KEYS_REMEMBERED_MAX {
            self.remembered.push((key.inner.to_vec(), column));
        }
        column
    }
}

/// The first step's result.
struct Cut<'a> {
    /// Per column, each record's value; `None`: the key is missing.
    tokens: Vec<Vec<Option<&'a [u8]>>>,
    /// Each record's text and line.
    records: Vec<(&'a [u8], u64)>,
    malformed: Vec<Malformed>,
    bytes: usize,
    lines: u64,
}

impl NdjsonDecoder {
    fn cut<'a>(&mut self, bytes: &'a [u8], at_end: bool, records_max: usize) -> Cut<'a> {
        let mut cut = Cut {
            tokens: vec![Vec::new(); self.schema.fields().len()],
            records: Vec::new(),
            malformed: Vec::new(),
            bytes: 0,
            lines: 0,
        };
        let mut taken = 0;
        while taken < records_max {
            let rest = &bytes[cut.bytes..];
            let window = &rest[..rest.len().min(RECORD_BYTES_MAX)];
            let (line, used, line_ends) = match memchr::memchr(b'\n', window) {
                Some(end) => (&window[..end], end + 1, 1),
                None if window.len() == RECORD_BYTES_MAX => {
                    let message = format!("record is longer than {RECORD_BYTES_MAX} bytes");
                    let record = shown(window);
                    cut.malformed.push(Malformed { line: cut.lines, record, message });
                    cut.bytes += window.len();
                    taken += 1;
                    continue;
                }
                None if at_end && !window.is_empty() => (window, window.len(), 1),
                None => break,
            };
            if !line.trim_ascii().is_empty() {
                self.cut_line(line, &mut cut);
                taken += 1;
            }
            cut.bytes += used;
            cut.lines += line_ends;
        }
        cut
    }

    fn cut_line<'a>(&mut self, line: &'a [u8], cut: &mut Cut<'a>) {
        let row = cut.records.len();
        for tokens in &mut cut.tokens {
            tokens.push(None);
        }
        let mut scanner = Scanner::new(line);
        let mut place = 0;
        let scanned = scanner.object(|key, value| {
            if let Some(column) = self.column_of(place, key) {
                cut.tokens[column][row] = Some(value);
            }
            place += 1;
            Ok(())
        });
        match scanned.and_then(|()| scanner.end()) {
            Ok(()) => cut.records.push((line, cut.lines)),
            Err(JsonError { what, at }) => {
                for tokens in &mut cut.tokens {
                    tokens.truncate(row);
                }
                let message = format!("invalid JSON: {what} at byte {}", at + 1);
                cut.malformed.push(Malformed { line: cut.lines, record: shown(line), message });
            }
        }
    }
}

impl Decoder for NdjsonDecoder {
    fn decode(&mut self, bytes: &[u8], at_end: bool, records_max: usize) -> Result<Decoded> {
        let mut cut = self.cut(bytes, at_end, records_max);
        let mut bad = BadRows::default();
        let arrays = self
            .schema
            .fields()
            .iter()
            .zip(&cut.tokens)
            .map(|(field, tokens)| {
                let cells = Cells { values: tokens, rows: None, column: field.name() };
                column(field, cells, &mut bad)
            })
            .collect::<Result<Vec<ArrayRef>>>()?;
        let rows = bad.keep_good(&self.schema, arrays, cut.records.len())?;
        for (row, message) in bad.into_messages() {
            let (record, line) = cut.records[row as usize];
            cut.malformed.push(Malformed { line, record: shown(record), message });
        }
        cut.malformed.sort_by_key(|malformed| malformed.line);
        Ok(Decoded { rows, malformed: cut.malformed, bytes: cut.bytes, lines: cut.lines })
    }
}

#[cfg(test)]
mod tests;
