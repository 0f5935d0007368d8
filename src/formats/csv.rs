//! Csv (RFC 4180) to batches.
//!
//! 1. Walk the bytes once and cut them into records and fields, without copying: a field is a
//!    place in the bytes, or, if it has doubled quotes, in a side buffer. Fields that no column
//!    wants are stepped over. A record with another number of fields is malformed.
//! 2. Turn the places of each column into an array (`text.rs`); rows with bad values are taken
//!    out and told.
//!
//! Records end with `\n` or `\r\n`; quoted fields may hold delimiters and line ends; empty lines
//! are skipped. A quote that is never closed would take the rest of the file as one field: then
//! only the line it stands in is malformed, and reading goes on with the next line.

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;

use crate::formats::cells::{BadRows, Cells};
use crate::formats::{Decoded, Decoder, Malformed, RECORD_BYTES_MAX, shown, text};
use crate::types::error::Result;
use crate::types::sql_type::SqlType;

/// How the text is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvFormat {
    pub delimiter: u8,
    /// `None`: quotes are ordinary characters.
    pub quote: Option<u8>,
    /// A field of this text is NULL, unless it is in quotes and the column is text.
    pub null: String,
}

/// A field's place: start and end in the bytes, or, from the bytes' length on, in the side
/// buffer of unescaped fields.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: usize,
    end: usize,
    quoted: bool,
}

/// One record's place.
#[derive(Clone, Copy, Debug)]
struct Record {
    start: usize,
    end: usize,
    line: u64,
}

/// What was found at a position.
enum Found {
    /// A record; its fields were handed out.
    Record { end: usize, lines: u64 },
    /// A quote opens and nothing closes it; the first line ends here.
    Unclosed { line_end: usize },
    /// The record is longer than records may be; this is where the limit stands.
    TooLong { end: usize },
    /// The bytes end before the record does.
    Incomplete,
}

/// Cuts the record at `start` (not an empty line) into fields. It looks at most
/// [`RECORD_BYTES_MAX`] bytes ahead, so what it finds does not depend on how many have come.
fn split_record(
    format: &CsvFormat,
    all_bytes: &[u8],
    start: usize,
    at_end: bool,
    unescaped: &mut Vec<u8>,
    mut field: impl FnMut(Place),
) -> Found {
    let base = all_bytes.len();
    let bytes = &all_bytes[..base.min(start + RECORD_BYTES_MAX)];
    let at_end = at_end && bytes.len() == base;
    let too_long = bytes.len() - start == RECORD_BYTES_MAX;
    let mut at = start;
    let mut lines = 1;
    loop {
        let mut place;
        if format.quote.is_some() && bytes.get(at).copied() == format.quote {
            match quoted_field(format, bytes, base, at, unescaped) {
                Some((quoted, end, inner_lines)) => {
                    (place, at) = (quoted, end);
                    lines += inner_lines;
                }
                None if at_end || too_long => {
                    let line = memchr::memchr(b'\n', &bytes[start..]);
                    return Found::Unclosed {
                        line_end: line.map_or(bytes.len(), |n| start + n + 1),
                    };
                }
                None => return Found::Incomplete,
            };
        } else {
            let length = bytes[at..].iter().position(|b| *b == format.delimiter || *b == b'\n');
            let end = length.map_or(bytes.len(), |length| at + length);
            place = Place { start: at, end, quoted: false };
            at = end;
        }
        let last = match bytes.get(at) {
            Some(b'\n') => true,
            Some(_) => false,
            None if at_end => true,
            None if too_long => return Found::TooLong { end: bytes.len() },
            None => return Found::Incomplete,
        };
        if last && !place.quoted && bytes[place.start..place.end].last() == Some(&b'\r') {
            place.end -= 1;
        }
        field(place);
        if last {
            return Found::Record { end: (at + 1).min(bytes.len()), lines };
        }
        at += 1;
    }
}

/// The field that begins with the quote at `start`: its place, where it ends, and the line ends
/// in it. `None` when no quote closes it. Places in `unescaped` are counted from `base`. What
/// stands between the closing quote and the next delimiter is kept, as most readers do.
fn quoted_field(
    format: &CsvFormat,
    bytes: &[u8],
    base: usize,
    start: usize,
    unescaped: &mut Vec<u8>,
) -> Option<(Place, usize, u64)> {
    let quote = format.quote?;
    let mut at = start + 1;
    let mut piece = at;
    let copy_start = unescaped.len();
    let close = loop {
        at += memchr::memchr(quote, &bytes[at..])?;
        if bytes.get(at + 1) != Some(&quote) {
            break at;
        }
        unescaped.extend_from_slice(&bytes[piece..=at]);
        at += 2;
        piece = at;
    };
    let rest = close + 1;
    let tail = bytes[rest..].iter().position(|b| *b == format.delimiter || *b == b'\n');
    let end = tail.map_or(bytes.len(), |length| rest + length);
    let tail = match &bytes[rest..end] {
        [kept @ .., b'\r'] if bytes.get(end) != Some(&format.delimiter) => kept,
        tail => tail,
    };
    let place = if unescaped.len() == copy_start && tail.is_empty() {
        Place { start: start + 1, end: close, quoted: true }
    } else {
        unescaped.extend_from_slice(&bytes[piece..close]);
        unescaped.extend_from_slice(tail);
        Place { start: base + copy_start, end: base + unescaped.len(), quoted: true }
    };
    let lines = memchr::memchr_iter(b'\n', &bytes[start..close]).count() as u64;
    Some((place, end, lines))
}

/// The bytes of empty lines from `start` on, and how many lines.
fn empty_lines(bytes: &[u8], start: usize) -> (usize, u64) {
    let (mut at, mut lines) = (start, 0);
    loop {
        match &bytes[at..] {
            [b'\n', ..] => at += 1,
            [b'\r', b'\n', ..] => at += 2,
            _ => return (at - start, lines),
        }
        lines += 1;
    }
}

/// A file's first record: the names of its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub names: Vec<String>,
    /// Bytes and lines that it takes.
    pub bytes: usize,
    pub lines: u64,
}

/// Reads the header; `None` when it is not complete yet.
pub fn read_header(format: &CsvFormat, bytes: &[u8], at_end: bool) -> Option<Header> {
    let (start, empty) = empty_lines(bytes, 0);
    let mut unescaped = Vec::new();
    let mut places = Vec::new();
    if start == bytes.len() && !at_end {
        return None;
    }
    match split_record(format, bytes, start, at_end, &mut unescaped, |place| places.push(place)) {
        Found::Record { end, lines } => {
            let names = places
                .iter()
                .map(|place| {
                    let name = field_bytes(bytes, &unescaped, *place).trim_ascii();
                    String::from_utf8_lossy(name).into_owned()
                })
                .collect();
            Some(Header { names, bytes: end, lines: lines + empty })
        }
        Found::Unclosed { line_end } | Found::TooLong { end: line_end } => {
            let line = String::from_utf8_lossy(bytes[start..line_end].trim_ascii()).into_owned();
            Some(Header { names: vec![line], bytes: line_end, lines: 1 + empty })
        }
        Found::Incomplete => None,
    }
}

fn field_bytes<'a>(bytes: &'a [u8], unescaped: &'a [u8], place: Place) -> &'a [u8] {
    match place.start.checked_sub(bytes.len()) {
        Some(start) if place.quoted => &unescaped[start..place.end - bytes.len()],
        _ => &bytes[place.start..place.end],
    }
}

/// Decodes the records of one file.
pub struct CsvDecoder {
    format: CsvFormat,
    /// The columns to make.
    schema: SchemaRef,
    /// For each column, the field of the record that it comes from; `None`: all NULL.
    sources: Vec<Option<usize>>,
    /// For each field of a record, the column it is wanted for; a field for two columns is kept
    /// for the first, and copied.
    wanted: Vec<Option<usize>>,
}

impl CsvDecoder {
    /// `sources` tells for each field of `schema` which of a record's `fields` fields it is.
    pub fn new(
        format: CsvFormat,
        schema: SchemaRef,
        sources: Vec<Option<usize>>,
        fields: usize,
    ) -> CsvDecoder {
        assert_eq!(schema.fields().len(), sources.len(), "one source per column");
        let mut wanted = vec![None; fields];
        for (column, source) in sources.iter().enumerate().rev() {
            if let Some(source) = source {
                wanted[*source] = Some(column);
            }
        }
        CsvDecoder { format, schema, sources, wanted }
    }

    fn wrong_count(&self, found: usize) -> String {
        let expected = self.wanted.len();
        let plural = if found == 1 { "field" } else { "fields" };
        format!("record has {found} {plural}, expected {expected}")
    }

    /// The columns as arrays, and the rows that are bad.
    fn columns(&self, cut: &Cut, bytes: &[u8], bad: &mut BadRows) -> Result<Vec<ArrayRef>> {
        let null = self.format.null.as_bytes();
        let rows = cut.records.len();
        let mut arrays = Vec::with_capacity(self.sources.len());
        for (field, source) in self.schema.fields().iter().zip(&self.sources) {
            let Some(column) = source.and_then(|source| self.wanted[source]) else {
                arrays.push(text::nulls(field, rows, bad));
                continue;
            };
            let is_text = SqlType::of_field(field) == Some(SqlType::Text);
            let values: Vec<Option<&[u8]>> = cut.places[column]
                .iter()
                .map(|place| {
                    let value = field_bytes(bytes, &cut.unescaped, *place);
                    let is_null = value == null && !(is_text && place.quoted);
                    (!is_null).then_some(value)
                })
                .collect();
            let cells = Cells { values: &values, rows: None, column: field.name() };
            arrays.push(text::column(field, cells, bad)?);
        }
        Ok(arrays)
    }
}

/// The first step's result.
#[derive(Default)]
struct Cut {
    records: Vec<Record>,
    /// Per column of the decoder, one place per record (none when it has no source).
    places: Vec<Vec<Place>>,
    unescaped: Vec<u8>,
    malformed: Vec<Malformed>,
    bytes: usize,
    lines: u64,
}

impl CsvDecoder {
    fn cut(&self, bytes: &[u8], at_end: bool, records_max: usize) -> Cut {
        let mut cut = Cut { places: vec![Vec::new(); self.sources.len()], ..Cut::default() };
        let mut taken = 0;
        while taken < records_max {
            let (empty_bytes, empty_count) = empty_lines(bytes, cut.bytes);
            let start = cut.bytes + empty_bytes;
            let line = cut.lines + empty_count;
            (cut.bytes, cut.lines) = (start, line);
            if start == bytes.len() {
                break;
            }
            let mut fields = 0;
            let mark = cut.unescaped.len();
            let found =
                split_record(&self.format, bytes, start, at_end, &mut cut.unescaped, |place| {
                    if let Some(Some(column)) = self.wanted.get(fields) {
                        cut.places[*column].push(place);
                    }
                    fields += 1;
                });
            let (end, lines, problem) = match found {
                Found::Record { end, lines } if fields == self.wanted.len() => (end, lines, None),
                Found::Record { end, lines } => (end, lines, Some(self.wrong_count(fields))),
                Found::Unclosed { line_end } => {
                    (line_end, 1, Some("unterminated quoted field".to_owned()))
                }
                Found::TooLong { end } => {
                    (end, 0, Some(format!("record is longer than {RECORD_BYTES_MAX} bytes")))
                }
                Found::Incomplete => {
                    self.roll_back(&mut cut, mark);
                    break;
                }
            };
            match problem {
                None => cut.records.push(Record { start, end, line }),
                Some(message) => {
                    self.roll_back(&mut cut, mark);
                    let record = shown(&bytes[start..end]);
                    cut.malformed.push(Malformed { line, record, message });
                }
            }
            cut.bytes = end;
            cut.lines = line + lines;
            taken += 1;
        }
        cut
    }

    /// Takes back what was kept of a record that does not count.
    fn roll_back(&self, cut: &mut Cut, unescaped_mark: usize) {
        let records = cut.records.len();
        for places in &mut cut.places {
            places.truncate(records);
        }
        cut.unescaped.truncate(unescaped_mark);
    }
}

impl Decoder for CsvDecoder {
    fn decode(&mut self, bytes: &[u8], at_end: bool, records_max: usize) -> Result<Decoded> {
        let mut cut = self.cut(bytes, at_end, records_max);
        let mut bad = BadRows::default();
        let arrays = self.columns(&cut, bytes, &mut bad)?;
        let rows = bad.keep_good(&self.schema, arrays, cut.records.len())?;
        for (row, message) in bad.into_messages() {
            let record = cut.records[row as usize];
            let text = shown(&bytes[record.start..record.end]);
            cut.malformed.push(Malformed { line: record.line, record: text, message });
        }
        cut.malformed.sort_by_key(|malformed| malformed.line);
        Ok(Decoded { rows, malformed: cut.malformed, bytes: cut.bytes, lines: cut.lines })
    }
}

#[cfg(test)]
mod tests;
