//! COPY data in text and csv, both directions.
//!
//! In, [`CopyReader`]:
//! 1. Data arrives in pieces that end anywhere. A line is complete at a newline that is neither
//!    escaped (text) nor quoted (csv); the rest waits for the next piece.
//! 2. A line is cut into fields, which go to the texts of their columns without their escapes and
//!    quotes.
//! 3. When there are enough, every column is read at once into its type, and the batch goes to the
//!    table.
//!
//! Out, [`CopyWriter`]: each row is one CopyData message that holds one line.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use bytes::{BufMut, BytesMut};

use super::decode::{ColumnBuilder, Context, utf8};
use super::encode::{BatchEncoder, type_of};
use crate::coordinator::command::{CopyFormat, CopyKind};
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::SqlType;

/// Rows of a batch at most: enough to make the work per batch small.
const BATCH_ROWS_MAX: usize = 8192;
/// Bytes of a batch's text after which it goes, however few its rows are.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Characters of a value that an error shows.
const SHOWN_CHARS_MAX: usize = 100;
/// Bytes of the longest line; what is longer is more likely an open quote.
const LINE_BYTES_MAX: usize = 256 << 20;

fn bad_data(message: impl Into<String>) -> Error {
    Error::user(SqlState::BAD_COPY_FILE_FORMAT, message)
}

/// Lines are cut between characters only if what cuts them is a character of one byte.
fn check_format(format: &CopyFormat) -> Result<()> {
    if [format.delimiter, format.quote, format.escape].iter().all(u8::is_ascii) {
        return Ok(());
    }
    Err(Error::user(
        SqlState::FEATURE_NOT_SUPPORTED,
        "COPY delimiter, quote and escape must be single one-byte characters",
    ))
}

/// The texts of one column's values, one behind another.
#[derive(Default)]
struct Texts {
    text: String,
    /// Where each value ends in `text`; `None` for NULL.
    ends: Vec<Option<usize>>,
}

impl Texts {
    fn iter(&self) -> impl Iterator<Item = Option<&str>> {
        let mut from = 0;
        self.ends.iter().map(move |end| {
            end.map(|end| {
                let value = &self.text[from..end];
                from = end;
                value
            })
        })
    }

    fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }
}

/// How lines end, as the first one did.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LineEnd {
    Unknown,
    Newline,
    CarriageReturnNewline,
}

/// COPY FROM STDIN: bytes to batches.
pub struct CopyReader {
    format: CopyFormat,
    context: Context,
    schema: SchemaRef,
    /// The rows since the last batch.
    columns: Vec<Texts>,
    /// The line that each of them began on.
    row_lines: Vec<u64>,
    /// Bytes of all texts in `columns`.
    text_bytes: usize,
    /// A line that has not ended yet.
    pending: Vec<u8>,
    /// How far `pending` has been searched for its end, and whether that is inside quotes.
    searched: usize,
    in_quotes: bool,
    line_end: LineEnd,
    /// Lines that have ended.
    lines: u64,
    header_pending: bool,
    /// `\.` was seen: nothing counts any more.
    ended: bool,
    builders: Vec<ColumnBuilder>,
}

impl CopyReader {
    /// A reader of rows with the columns of `schema`.
    ///
    /// # Errors
    /// SQLSTATE 0A000 for a column whose type no SQL type stands for.
    pub fn new(schema: SchemaRef, format: CopyFormat, context: Context) -> Result<CopyReader> {
        check_format(&format)?;
        let types: Vec<SqlType> =
            schema.fields().iter().map(|field| type_of(field)).collect::<Result<_>>()?;
        Ok(CopyReader {
            columns: types.iter().map(|_| Texts::default()).collect(),
            builders: types.iter().map(|t| ColumnBuilder::new(t, 0)).collect(),
            header_pending: format.header,
            format,
            context,
            schema,
            row_lines: Vec::new(),
            text_bytes: 0,
            pending: Vec::new(),
            searched: 0,
            in_quotes: false,
            line_end: LineEnd::Unknown,
            lines: 0,
            ended: false,
        })
    }

    /// Takes the next piece of data; batches that are full go to `batches`.
    ///
    /// # Errors
    /// SQLSTATE 22P04 for lines that are no rows, and those of the columns' types, with their
    /// place.
    pub fn push(&mut self, data: &[u8], batches: &mut Vec<RecordBatch>) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        self.pending.extend_from_slice(data);
        // Lines are read where they stand; what is left moves to the front once, at the end.
        let pending = std::mem::take(&mut self.pending);
        let mut start = 0;
        let mut searched = self.searched;
        while !self.ended
            && let Some(end) = self.find_line_end(&pending, start + searched)
        {
            self.line(&pending[start..end])?;
            start = end + 1;
            searched = 0;
            self.in_quotes = false;
            if self.row_lines.len() >= BATCH_ROWS_MAX || self.text_bytes >= BATCH_BYTES_MAX {
                batches.extend(self.take_batch()?);
            }
        }
        let rest = &pending[start..];
        if rest.len() > LINE_BYTES_MAX {
            return Err(self.at_line(
                Error::user(SqlState::PROGRAM_LIMIT_EXCEEDED, "a line of COPY data is too long")
                    .hint(format!("Lines are at most {} MiB long.", LINE_BYTES_MAX >> 20)),
                self.lines + 1,
                None,
            ));
        }
        self.pending = if start == 0 { pending } else { rest.to_vec() };
        Ok(())
    }

    /// The end of the data: a last line without a newline counts too.
    ///
    /// # Errors
    /// As [`CopyReader::push`].
    pub fn finish(&mut self) -> Result<Option<RecordBatch>> {
        if !self.ended && !self.pending.is_empty() {
            if self.in_quotes {
                let error = bad_data("unterminated CSV quoted field");
                return Err(self.at_line(error, self.lines + 1, None));
            }
            let last = std::mem::take(&mut self.pending);
            self.line(&last)?;
        }
        self.take_batch()
    }

    /// The newline that ends the line, searched from `from` on. Remembers how far it looked and
    /// whether that was inside quotes.
    fn find_line_end(&mut self, data: &[u8], from: usize) -> Option<usize> {
        let mut at = from;
        let end = match self.format.kind {
            CopyKind::Text => loop {
                match memchr::memchr2(b'\n', b'\\', &data[at..]) {
                    None => {
                        at = data.len();
                        break None;
                    }
                    Some(found) if data[at + found] == b'\n' => break Some(at + found),
                    // What a backslash stands in front of is data, if it is here yet.
                    Some(found) if at + found + 1 < data.len() => at += found + 2,
                    Some(found) => {
                        at += found;
                        break None;
                    }
                }
            },
            CopyKind::Csv => self.find_csv_line_end(data, &mut at),
        };
        // Relative to the line's beginning, which is where the rest will stand.
        let line_start = from - self.searched.min(from);
        self.searched = if end.is_some() { 0 } else { at - line_start };
        end
    }

    fn find_csv_line_end(&mut self, data: &[u8], at: &mut usize) -> Option<usize> {
        let (quote, escape) = (self.format.quote, self.format.escape);
        loop {
            if self.in_quotes {
                match memchr::memchr2(quote, escape, &data[*at..]) {
                    None => {
                        *at = data.len();
                        return None;
                    }
                    Some(found) => {
                        *at += found;
                        // A doubled quote closes and opens again, which comes to the same.
                        if data[*at] == escape && escape != quote {
                            if *at + 1 == data.len() {
                                return None;
                            }
                            *at += 2;
                        } else {
                            self.in_quotes = false;
                            *at += 1;
                        }
                    }
                }
            } else {
                match memchr::memchr2(b'\n', quote, &data[*at..]) {
                    None => {
                        *at = data.len();
                        return None;
                    }
                    Some(found) => {
                        *at += found;
                        if data[*at] == b'\n' {
                            return Some(*at);
                        }
                        self.in_quotes = true;
                        *at += 1;
                    }
                }
            }
        }
    }

    /// A whole line, without its newline.
    fn line(&mut self, line: &[u8]) -> Result<()> {
        let first_line = self.lines + 1;
        // A csv field may hold newlines.
        self.lines += 1 + memchr::memchr_iter(b'\n', line).count() as u64;
        let line =
            self.strip_carriage_return(line).map_err(|e| self.at_line(e, first_line, None))?;
        if line == b"\\." {
            self.ended = true;
            return Ok(());
        }
        if std::mem::take(&mut self.header_pending) {
            return Ok(());
        }
        let line = utf8(line).map_err(|error| self.at_line(error, first_line, None))?;
        let cut = match self.format.kind {
            CopyKind::Text => self.cut_text(line),
            CopyKind::Csv => self.cut_csv(line),
        };
        cut.map_err(|error| self.at_line(error, first_line, None))?;
        self.row_lines.push(first_line);
        self.text_bytes += line.len();
        Ok(())
    }

    fn strip_carriage_return<'a>(&mut self, line: &'a [u8]) -> Result<&'a [u8]> {
        let stripped = line.strip_suffix(b"\r");
        if self.line_end == LineEnd::Unknown {
            let windows = stripped.is_some();
            self.line_end = if windows { LineEnd::CarriageReturnNewline } else { LineEnd::Newline };
        }
        let line = match (self.line_end, stripped) {
            (LineEnd::CarriageReturnNewline, Some(stripped)) => stripped,
            _ => line,
        };
        if self.format.kind == CopyKind::Text && memchr::memchr(b'\r', line).is_some() {
            return Err(bad_data("literal carriage return found in data")
                .hint("Use \"\\r\" to represent carriage return."));
        }
        Ok(line)
    }

    /// Fields with backslash escapes.
    fn cut_text(&mut self, line: &str) -> Result<()> {
        let bytes = line.as_bytes();
        let delimiter = self.format.delimiter;
        let mut at = 0;
        for place in 0.. {
            let Some(texts) = self.columns.get_mut(place) else {
                return self.check_nothing_left(line);
            };
            let field_start = at;
            let value_start = texts.text.len();
            let mut plain_from = at;
            // Octal and hexadecimal escapes make bytes, which only together are text.
            let mut escaped: Option<Vec<u8>> = None;
            loop {
                match memchr::memchr2(delimiter, b'\\', &bytes[at..]) {
                    Some(found) if bytes[at + found] == b'\\' && at + found + 1 < bytes.len() => {
                        let value = escaped.get_or_insert_default();
                        value.extend_from_slice(&bytes[plain_from..at + found]);
                        at += found + 1;
                        at += unescape(&bytes[at..], value);
                        plain_from = at;
                    }
                    Some(found) if bytes[at + found] == b'\\' => at += found + 1,
                    Some(found) => {
                        at += found;
                        break;
                    }
                    None => {
                        at = bytes.len();
                        break;
                    }
                }
            }
            let raw = &bytes[field_start..at];
            if raw == self.format.null.as_bytes() {
                texts.ends.push(None);
            } else {
                match escaped {
                    None => texts.text.push_str(&line[field_start..at]),
                    Some(mut value) => {
                        value.extend_from_slice(&bytes[plain_from..at]);
                        texts.text.push_str(utf8(&value)?);
                    }
                }
                debug_assert!(texts.text.len() >= value_start);
                texts.ends.push(Some(texts.text.len()));
            }
            if at == bytes.len() {
                return self.check_complete(place + 1);
            }
            at += 1;
        }
        Ok(())
    }

    /// Fields that may be quoted.
    fn cut_csv(&mut self, line: &str) -> Result<()> {
        let bytes = line.as_bytes();
        let CopyFormat { delimiter, quote, escape, .. } = self.format;
        let mut at = 0;
        for place in 0.. {
            let Some(texts) = self.columns.get_mut(place) else {
                return self.check_nothing_left(line);
            };
            let field_start = at;
            let value_start = texts.text.len();
            let mut was_quoted = false;
            loop {
                let plain = memchr::memchr2(delimiter, quote, &bytes[at..]);
                let plain = plain.unwrap_or(bytes.len() - at);
                texts.text.push_str(&line[at..at + plain]);
                at += plain;
                if at == bytes.len() || bytes[at] == delimiter {
                    break;
                }
                was_quoted = true;
                at = push_quoted(line, at + 1, quote, escape, &mut texts.text)?;
            }
            let is_null = !was_quoted && bytes[field_start..at] == *self.format.null.as_bytes();
            if is_null {
                texts.text.truncate(value_start);
                texts.ends.push(None);
            } else {
                texts.ends.push(Some(texts.text.len()));
            }
            if at == bytes.len() {
                return self.check_complete(place + 1);
            }
            at += 1;
        }
        Ok(())
    }

    fn check_nothing_left(&self, line: &str) -> Result<()> {
        // A table without columns has empty lines.
        if self.columns.is_empty() && line.is_empty() {
            return Ok(());
        }
        Err(bad_data("extra data after last expected column"))
    }

    fn check_complete(&self, fields: usize) -> Result<()> {
        match self.schema.fields().get(fields) {
            None => Ok(()),
            Some(missing) => {
                Err(bad_data(format!("missing data for column \"{}\"", missing.name())))
            }
        }
    }

    /// The rows since the last batch, read into their types.
    fn take_batch(&mut self) -> Result<Option<RecordBatch>> {
        let rows = self.row_lines.len();
        if rows == 0 {
            return Ok(None);
        }
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for (place, texts) in self.columns.iter().enumerate() {
            let builder = &mut self.builders[place];
            if let Err((row, error)) = builder.append_texts(texts.iter(), &self.context) {
                let value = texts.iter().nth(row).flatten();
                return Err(self.at_line(error, self.row_lines[row], Some((place, value))));
            }
            let array = builder.finish();
            let field = self.schema.field(place);
            if !field.is_nullable()
                && let Some(row) = (0..rows).find(|row| array.is_null(*row))
            {
                let error = Error::user(
                    SqlState::NOT_NULL_VIOLATION,
                    format!(
                        "null value in column \"{}\" violates not-null constraint",
                        field.name()
                    ),
                );
                return Err(self.at_line(error, self.row_lines[row], Some((place, None))));
            }
            // The table may keep text in another layout than the one it is read into.
            arrays.push(if array.data_type() == field.data_type() {
                array
            } else {
                arrow::compute::cast(&array, field.data_type())?
            });
        }
        self.columns.iter_mut().for_each(Texts::clear);
        self.row_lines.clear();
        self.text_bytes = 0;
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(Some(RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?))
    }

    /// Says where in the data the error is.
    fn at_line(&self, error: Error, line: u64, field: Option<(usize, Option<&str>)>) -> Error {
        let mut place = format!("COPY data, line {line}");
        if let Some((column, value)) = field {
            place.push_str(&format!(", column {}: ", self.schema.field(column).name()));
            match value {
                None => place.push_str("null input"),
                Some(value) => {
                    let shown: String = value.chars().take(SHOWN_CHARS_MAX).collect();
                    let more = if shown.len() < value.len() { "..." } else { "" };
                    place.push_str(&format!("\"{shown}{more}\""));
                }
            }
        }
        error.at(place)
    }

    /// How many columns a line has.
    pub fn column_count(&self) -> usize {
        self.columns.len()
    }
}

/// What stands behind a backslash, as bytes; returns how much of it that was.
fn unescape(rest: &[u8], value: &mut Vec<u8>) -> usize {
    let digits = |from: usize, max: usize, base: u32| {
        let is_digit = |b: &&u8| (**b as char).is_digit(base);
        rest.get(from..).unwrap_or_default().iter().take(max).take_while(is_digit).count()
    };
    let number = |from: usize, len: usize, base: u32| {
        let all = rest[from..from + len].iter();
        all.fold(0u32, |n, d| n * base + (*d as char).to_digit(base).unwrap_or(0)) as u8
    };
    match rest[0] {
        b'b' => value.push(0x08),
        b'f' => value.push(0x0c),
        b'n' => value.push(b'\n'),
        b'r' => value.push(b'\r'),
        b't' => value.push(b'\t'),
        b'v' => value.push(0x0b),
        b'0'..=b'7' => {
            let len = digits(0, 3, 8);
            value.push(number(0, len, 8));
            return len;
        }
        b'x' if digits(1, 2, 16) > 0 => {
            let len = digits(1, 2, 16);
            value.push(number(1, len, 16));
            return 1 + len;
        }
        // Any other stands for itself. The rest of a longer character follows as plain text.
        other => value.push(other),
    }
    1
}

/// Appends what is between quotes; `at` is behind the opening one. Returns the place behind the
/// closing one.
fn push_quoted(
    line: &str,
    mut at: usize,
    quote: u8,
    escape: u8,
    text: &mut String,
) -> Result<usize> {
    let bytes = line.as_bytes();
    loop {
        let Some(found) = memchr::memchr2(quote, escape, &bytes[at..]) else {
            return Err(bad_data("unterminated CSV quoted field"));
        };
        text.push_str(&line[at..at + found]);
        at += found;
        let next = bytes.get(at + 1).copied();
        if bytes[at] == escape
            && let Some(next) = next
            && (next == quote || next == escape)
        {
            text.push(char::from(next));
            at += 2;
        } else if bytes[at] == quote {
            return Ok(at + 1);
        } else {
            // An escape character that escapes nothing stands for itself.
            text.push(char::from(escape));
            at += 1;
        }
    }
}

/// COPY TO STDOUT: rows to CopyData messages, one line each.
pub struct CopyWriter {
    format: CopyFormat,
    /// Holds a value while it is escaped; empty otherwise.
    scratch: BytesMut,
}

impl CopyWriter {
    /// A writer of lines in `format`.
    ///
    /// # Errors
    /// SQLSTATE 0A000 for delimiters beyond ASCII.
    pub fn new(format: CopyFormat) -> Result<CopyWriter> {
        check_format(&format)?;
        Ok(CopyWriter { format, scratch: BytesMut::new() })
    }

    /// Writes the line of column names, when the format asks for one.
    pub fn write_header(&mut self, schema: &Schema, out: &mut BytesMut) {
        if !self.format.header {
            return;
        }
        let start = begin_line(out);
        for (place, field) in schema.fields().iter().enumerate() {
            if place > 0 {
                out.put_u8(self.format.delimiter);
            }
            let mark = out.len();
            out.put_slice(field.name().as_bytes());
            self.escape(mark, schema.fields().len() == 1, out);
        }
        end_line(start, out);
    }

    /// Writes the next rows of a batch, until `out` holds `bytes_max` bytes. Returns how many.
    pub fn write_some(
        &mut self,
        batch: &mut BatchEncoder,
        bytes_max: usize,
        out: &mut BytesMut,
    ) -> usize {
        let columns = batch.column_count();
        let mut count = 0;
        while out.len() < bytes_max
            && let Some(row) = batch.take_row()
        {
            count += 1;
            let start = begin_line(out);
            for column in 0..columns {
                if column > 0 {
                    out.put_u8(self.format.delimiter);
                }
                let mark = out.len();
                if batch.write_text(column, row, out) {
                    self.escape(mark, columns == 1, out);
                } else {
                    out.put_slice(self.format.null.as_bytes());
                }
            }
            end_line(start, out);
        }
        count
    }

    /// Escapes or quotes the value written from `mark` on, if it needs it.
    fn escape(&mut self, mark: usize, alone: bool, out: &mut BytesMut) {
        match self.format.kind {
            CopyKind::Text => self.escape_text(mark, out),
            CopyKind::Csv => self.quote_csv(mark, alone, out),
        }
    }

    fn escape_text(&mut self, mark: usize, out: &mut BytesMut) {
        let delimiter = self.format.delimiter;
        let special = |b: u8| matches!(b, 0x08..=0x0d | b'\\') || b == delimiter;
        if !out[mark..].iter().any(|b| special(*b)) {
            return;
        }
        self.scratch.clear();
        self.scratch.extend_from_slice(&out[mark..]);
        out.truncate(mark);
        for &byte in self.scratch.iter() {
            let shown = match byte {
                0x08 => b'b',
                b'\t' => b't',
                b'\n' => b'n',
                0x0b => b'v',
                0x0c => b'f',
                b'\r' => b'r',
                _ => byte,
            };
            if special(byte) {
                out.put_u8(b'\\');
            }
            out.put_u8(shown);
        }
    }

    fn quote_csv(&mut self, mark: usize, alone: bool, out: &mut BytesMut) {
        let CopyFormat { delimiter, quote, escape, .. } = self.format;
        let value = &out[mark..];
        let needs_quotes = value == self.format.null.as_bytes()
            || (alone && value == b"\\.")
            || value.iter().any(|b| matches!(*b, b'\n' | b'\r') || *b == delimiter || *b == quote);
        if !needs_quotes {
            return;
        }
        self.scratch.clear();
        self.scratch.extend_from_slice(value);
        out.truncate(mark);
        out.put_u8(quote);
        for &byte in self.scratch.iter() {
            if byte == quote || byte == escape {
                out.put_u8(escape);
            }
            out.put_u8(byte);
        }
        out.put_u8(quote);
    }
}

/// Begins a CopyData message; returns where.
fn begin_line(out: &mut BytesMut) -> usize {
    let start = out.len();
    out.put_slice(&[b'd', 0, 0, 0, 0]);
    start
}

fn end_line(start: usize, out: &mut BytesMut) {
    out.put_u8(b'\n');
    // A value is at most 2 GiB long where it comes from, which is checked there.
    let length = (out.len() - start - 1) as u32;
    out[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests;
