//! Bytes of a file, decompressed, from any place on.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use crate::connectors::file::{Compression, Settings, file_error};
use crate::types::error::{Error, Result, SqlState};

/// Compressed bytes are read in blocks of this size.
const COMPRESSED_BLOCK_BYTES: usize = 256 << 10;
/// Bytes to skip are decompressed into a buffer of this size.
const SKIP_BLOCK_BYTES: usize = 64 << 10;

/// An open file.
pub struct Input {
    path: String,
    stream: Stream,
    /// Bytes (decompressed) before the next one read.
    position: u64,
}

enum Stream {
    Plain(File),
    Gzip(Box<flate2::bufread::MultiGzDecoder<BufReader<File>>>),
    Zstd(Box<zstd::Decoder<'static, BufReader<File>>>),
}

impl Input {
    pub fn open(settings: &Settings, path: &str) -> Result<Input> {
        let file = File::open(path).map_err(|error| file_error("open", path, &error))?;
        let stream = match settings.compression_of(path) {
            Compression::Gzip => {
                let file = BufReader::with_capacity(COMPRESSED_BLOCK_BYTES, file);
                Stream::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(file)))
            }
            Compression::Zstd => {
                let file = BufReader::with_capacity(COMPRESSED_BLOCK_BYTES, file);
                let decoder = zstd::Decoder::with_buffer(file)
                    .map_err(|error| file_error("read", path, &error))?;
                Stream::Zstd(Box::new(decoder))
            }
            Compression::None | Compression::Auto => Stream::Plain(file),
        };
        Ok(Input { path: path.to_owned(), stream, position: 0 })
    }

    /// Whether bytes can be appended where reading has come to the end.
    pub fn can_grow(&self) -> bool {
        matches!(self.stream, Stream::Plain(_))
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = match &mut self.stream {
            Stream::Plain(file) => file.read(buffer)?,
            Stream::Gzip(decoder) => decoder.read(buffer)?,
            Stream::Zstd(decoder) => decoder.read(buffer)?,
        };
        self.position += count as u64;
        Ok(count)
    }

    /// Appends up to `bytes_max` bytes; how many.
    pub fn read(&mut self, buffer: &mut Vec<u8>, bytes_max: usize) -> Result<Fill> {
        let start = buffer.len();
        buffer.resize(start + bytes_max, 0);
        let mut filled = start;
        let mut problem = None;
        while filled < buffer.len() {
            match self.read_some(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    problem = Some(error);
                    break;
                }
            }
        }
        buffer.truncate(filled);
        match problem {
            // What came before the failure is given out first; the next call fails again.
            _ if filled > start => Ok(Fill::Bytes),
            Some(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(Fill::CutOff),
            Some(error) => Err(file_error("read", &self.path, &error)),
            None => Ok(Fill::End),
        }
    }

    /// Goes to byte `target`, which is not before the position.
    pub fn skip_to(&mut self, target: u64) -> Result<()> {
        if let Stream::Plain(file) = &mut self.stream {
            let length = file.metadata().map(|found| found.len());
            match length.and_then(|length| Ok((length, file.seek(SeekFrom::Start(target))?))) {
                Ok((length, _)) if length < target => return Err(truncated(&self.path)),
                Ok(_) => self.position = target,
                Err(error) => return Err(file_error("read", &self.path, &error)),
            }
            return Ok(());
        }
        let mut skipped = vec![0; SKIP_BLOCK_BYTES];
        while self.position < target {
            let wanted = (target - self.position).min(SKIP_BLOCK_BYTES as u64) as usize;
            match self.read_some(&mut skipped[..wanted]) {
                Ok(0) => return Err(truncated(&self.path)),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(file_error("read", &self.path, &error)),
            }
        }
        Ok(())
    }

    /// # Errors
    /// When the file has become shorter than what was read of it.
    pub fn check_not_truncated(&self) -> Result<()> {
        let Stream::Plain(file) = &self.stream else { return Ok(()) };
        let found = file.metadata().map_err(|error| file_error("read", &self.path, &error))?;
        if found.len() < self.position { Err(truncated(&self.path)) } else { Ok(()) }
    }
}

/// What a call of [`Input::read`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// At least one byte.
    Bytes,
    /// The end of the file.
    End,
    /// Compressed data ends in the middle.
    CutOff,
}

fn truncated(path: &str) -> Error {
    Error::external(SqlState::DATA_CORRUPTED, format!("file \"{path}\" has become shorter"))
        .detail("It ends before the place that was read last.")
        .hint("Files of a source may grow, but what was read must stay.")
}

/// Compressed data that ends in the middle.
pub fn cut_off(path: &str) -> Error {
    Error::external(SqlState::DATA_CORRUPTED, format!("file \"{path}\" is cut off"))
        .detail("Its compressed data ends in the middle.")
}
