//! Csv and JSON lines: a file's bytes, block by block, through a decoder.
//!
//! 1. Open; read the header of a csv file; go to the place to read from.
//! 2. Fill the buffer, decode complete records from its front, give them out with the place
//!    behind them. What is left is the beginning of a record, and stays for the next time.
//! 3. At the end of a file that is followed, answer that there is nothing now: a last line
//!    without its line end waits for it. Otherwise what is left is the last record.
//!
//! A place is `byte:line`: bytes (decompressed) and lines before it.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;

use crate::connectors::file::input::{Fill, Input, cut_off};
use crate::connectors::file::{Format, Settings, check_columns, match_columns, may_be_growing};
use crate::connectors::{MalformedRecord, Offset, Read, ReadRange, SourceRows, SplitReader};
use crate::formats::csv::{CsvDecoder, read_header};
use crate::formats::ndjson::NdjsonDecoder;
use crate::formats::{Decoded, Decoder};
use crate::types::error::{Error, Result};

/// Bytes read at a time; also about how many are buffered, but for longer records.
const BLOCK_BYTES: usize = 1 << 20;
/// With fewer bytes buffered, more are read first: small batches cost more per row.
const REFILL_BELOW_BYTES: usize = 256 << 10;
/// How long to wait for a file that grows; doubled while it does not.
const WAIT_MIN: Duration = Duration::from_millis(5);
const WAIT_MAX: Duration = Duration::from_millis(100);
/// How long to wait for a compressed file that is still being written.
const WAIT_FOR_WRITER: Duration = Duration::from_secs(1);

pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// A place in a text file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    byte: u64,
    /// Lines before it.
    line: u64,
}

impl Place {
    fn parse(offset: &Offset) -> Result<Place> {
        let parse = || {
            let (byte, line) = offset.0.split_once(':')?;
            Some(Place { byte: byte.parse().ok()?, line: line.parse().ok()? })
        };
        parse().ok_or_else(|| {
            Error::internal(format!("{:?} is not an offset of a text file", offset.0))
        })
    }

    fn to_offset(self) -> Offset {
        Offset(format!("{}:{}", self.byte, self.line))
    }
}

/// Reads one csv or JSON lines file.
pub struct TextReader {
    settings: Arc<Settings>,
    path: String,
    declared: SchemaRef,
    columns: Vec<usize>,
    /// Where the next record begins; `None`: at the first one, wherever that is.
    place: Option<Place>,
    until_byte: Option<u64>,
    /// `None`: not opened yet.
    open: Option<OpenFile>,
    wait: Duration,
}

/// A file that is being read.
struct OpenFile {
    input: Input,
    decoder: Box<dyn Decoder>,
    /// Bytes read; those before `used` are decoded.
    buffer: Vec<u8>,
    used: usize,
    /// Nothing more will be read.
    at_end: bool,
}

impl TextReader {
    pub fn new(
        settings: Arc<Settings>,
        path: String,
        declared: SchemaRef,
        range: ReadRange,
    ) -> Result<TextReader> {
        Ok(TextReader {
            settings,
            path,
            declared,
            columns: range.columns,
            place: range.from.as_ref().map(Place::parse).transpose()?,
            until_byte: range.until.as_ref().map(Place::parse).transpose()?.map(|p| p.byte),
            open: None,
            wait: WAIT_MIN,
        })
    }

    fn until_reached(&self) -> bool {
        match (self.place, self.until_byte) {
            (Some(place), Some(until)) => place.byte >= until,
            _ => false,
        }
    }

    /// Opens the file at the place to read from. `None`: its header has not come yet.
    fn open_file(&self) -> Result<Option<(OpenFile, Place)>> {
        let mut input = Input::open(&self.settings, &self.path)?;
        let mut buffer = Vec::new();
        let mut begin = Place { byte: 0, line: 0 };
        let mut at_end = false;
        let decoder: Box<dyn Decoder> = match self.settings.format {
            Format::Csv => {
                let names = if self.settings.csv_header {
                    let header = loop {
                        let skipped = byte_order_mark(&buffer);
                        if !buffer.is_empty()
                            && let Some(mut header) =
                                read_header(&self.settings.csv, &buffer[skipped..], at_end)
                        {
                            header.bytes += skipped;
                            break header;
                        }
                        if at_end {
                            return Ok(None);
                        }
                        let fill = input.read(&mut buffer, BLOCK_BYTES)?;
                        at_end = self.is_end(fill, &input)?;
                        if fill != Fill::Bytes && !at_end {
                            return Ok(None);
                        }
                    };
                    begin = Place { byte: header.bytes as u64, line: header.lines };
                    Some(header.names)
                } else {
                    None
                };
                Box::new(self.csv_decoder(names)?)
            }
            Format::Ndjson | Format::Parquet => {
                Box::new(NdjsonDecoder::new(self.declared.clone(), &self.columns)?)
            }
        };
        let place = self.place.unwrap_or(begin);
        let used = match usize::try_from(place.byte) {
            Ok(byte) if byte <= buffer.len() => byte,
            _ => {
                buffer.clear();
                input.skip_to(place.byte)?;
                at_end = false;
                0
            }
        };
        Ok(Some((OpenFile { input, decoder, buffer, used, at_end }, place)))
    }

    fn csv_decoder(&self, names: Option<Vec<String>>) -> Result<CsvDecoder> {
        let (matched, fields) = match names {
            Some(names) => {
                let matched = match_columns(&self.declared, &names);
                check_columns(&self.path, &self.declared, &names, &matched)?;
                (matched, names.len())
            }
            None => {
                let fields = self.declared.fields().len();
                ((0..fields).map(Some).collect(), fields)
            }
        };
        let schema = Arc::new(self.declared.project(&self.columns)?);
        let sources = self.columns.iter().map(|column| matched[*column]).collect();
        Ok(CsvDecoder::new(self.settings.csv.clone(), schema, sources, fields))
    }

    /// Whether a call of [`Input::read`] told that nothing more will come.
    fn is_end(&self, fill: Fill, input: &Input) -> Result<bool> {
        match fill {
            Fill::Bytes => Ok(false),
            Fill::End => Ok(!(self.settings.follow && input.can_grow())),
            Fill::CutOff if self.settings.follow && may_be_growing(&self.path) => Ok(false),
            Fill::CutOff => Err(cut_off(&self.path)),
        }
    }

    /// Decodes the next records; `None` when there are no complete ones in the file (any more).
    fn next_block(&mut self, file: &mut OpenFile, rows_max: usize) -> Result<Option<Decoded>> {
        let place = self.place.expect("an open file has a place");
        loop {
            let buffered = file.buffer.len() - file.used;
            if buffered < REFILL_BELOW_BYTES && !file.at_end {
                self.fill(file)?;
            }
            let mut end = file.buffer.len();
            let mut is_last = file.at_end;
            if let Some(until) = self.until_byte {
                let ahead = (until - place.byte).min((end - file.used) as u64) as usize;
                is_last |= place.byte + ahead as u64 == until;
                end = file.used + ahead;
            }
            let mut skipped = 0;
            if place.byte == 0 {
                skipped = byte_order_mark(&file.buffer[..end]);
            }
            let bytes = &file.buffer[file.used + skipped..end];
            let mut decoded = file.decoder.decode(bytes, is_last, rows_max)?;
            if decoded.bytes > 0 || is_last {
                decoded.bytes += skipped;
                return Ok(Some(decoded).filter(|decoded| decoded.bytes > 0));
            }
            // The buffer holds a part of one record.
            if file.at_end || self.fill(file)? != Fill::Bytes {
                return Ok(None);
            }
        }
    }

    /// Reads more bytes: twice what there is of a record, so that a long one is not scanned again
    /// and again.
    fn fill(&self, file: &mut OpenFile) -> Result<Fill> {
        if file.used > 0 {
            file.buffer.drain(..file.used);
            file.used = 0;
        }
        let bytes_max = file.buffer.len().max(BLOCK_BYTES);
        let fill = file.input.read(&mut file.buffer, bytes_max)?;
        file.at_end = self.is_end(fill, &file.input)?;
        Ok(fill)
    }

    /// What was decoded from `place` on, and the place behind it.
    fn told(&self, place: Place, decoded: Decoded) -> (SourceRows, Place) {
        let malformed = decoded
            .malformed
            .into_iter()
            .map(|malformed| MalformedRecord {
                place: format!("{} line {}", self.path, place.line + malformed.line + 1),
                record: malformed.record,
                message: malformed.message,
            })
            .collect();
        let byte = place.byte + decoded.bytes as u64;
        let behind = Place { byte, line: place.line + decoded.lines };
        (SourceRows { rows: decoded.rows, offset: behind.to_offset(), malformed }, behind)
    }

    /// The answer when the file has nothing more now.
    fn wait_for_more(&mut self, file: OpenFile) -> Result<Read> {
        if file.input.can_grow() {
            file.input.check_not_truncated()?;
            self.open = Some(file);
            let wait = self.wait;
            self.wait = (wait * 2).min(WAIT_MAX);
            return Ok(Read::Idle(wait));
        }
        // A decompressor cannot go on where data ended: it begins again, and skips.
        Ok(Read::Idle(WAIT_FOR_WRITER))
    }
}

/// The length of a byte order mark at the front.
fn byte_order_mark(bytes: &[u8]) -> usize {
    if bytes.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 }
}

impl SplitReader for TextReader {
    fn read(&mut self, rows_max: usize) -> Result<Read> {
        if self.until_reached() {
            return Ok(Read::End);
        }
        let mut file = match self.open.take() {
            Some(file) => file,
            None => match self.open_file()? {
                Some((file, place)) => {
                    self.place = Some(place);
                    file
                }
                None if self.settings.follow => return Ok(Read::Idle(WAIT_MAX)),
                None => return Ok(Read::End),
            },
        };
        while !self.until_reached() {
            let Some(decoded) = self.next_block(&mut file, rows_max.max(1))? else {
                if file.at_end || self.until_reached() {
                    break;
                }
                return self.wait_for_more(file);
            };
            let place = self.place.expect("an open file has a place");
            file.used += decoded.bytes;
            let (told, behind) = self.told(place, decoded);
            self.place = Some(behind);
            self.wait = WAIT_MIN;
            if told.rows.num_rows() > 0 || !told.malformed.is_empty() {
                self.open = Some(file);
                return Ok(Read::Rows(told));
            }
        }
        self.open = Some(file);
        Ok(Read::End)
    }
}
