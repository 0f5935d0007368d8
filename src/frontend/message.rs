//! The client's messages, read from bytes that nobody has checked.
//!
//! pgwire writes our messages but does not read the client's: its readers take counts and lengths
//! at their word and panic when the bytes run out. Here a message is first cut out at its full
//! length and then read field by field; what does not add up is an error of this message, and the
//! next one begins where it should.

use bytes::{Buf, Bytes, BytesMut};

use super::decode::utf8;
use super::encode::Format;
use crate::types::error::{Error, Result, SqlState};

/// Bytes of the longest message, which holds one statement, one row of parameters or one piece of
/// COPY data.
const MESSAGE_BYTES_MAX: usize = 256 << 20;
/// Bytes of the longest startup packet, as in Postgres.
const STARTUP_BYTES_MAX: usize = 10_000;

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

/// The first packet of a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Startup {
    /// The client would like TLS or GSS encryption and will ask again after the answer.
    Encryption,
    Cancel {
        process_id: i32,
        secret: Vec<u8>,
    },
    Start {
        /// Of protocol 3.
        minor_version: u16,
        parameters: Vec<(String, String)>,
    },
}

/// What Describe and Close are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Statement,
    Portal,
}

/// A message of a client that has been let in.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    Query(String),
    Parse {
        statement: String,
        sql: String,
        /// Types of the first parameters; 0 is for the server to find out.
        parameter_oids: Vec<u32>,
    },
    Bind(Bind),
    Describe(Target, String),
    Execute {
        portal: String,
        /// 0: all.
        rows_max: usize,
    },
    Close(Target, String),
    Flush,
    Sync,
    Terminate,
    CopyData(Bytes),
    CopyDone,
    CopyFail(String),
    /// The function call of protocol 2.
    FunctionCall,
}

/// Values for a statement's parameters.
#[derive(Debug, PartialEq, Eq)]
pub struct Bind {
    pub portal: String,
    pub statement: String,
    /// None: all text; one: for all; else one for each.
    pub parameter_formats: Vec<Format>,
    /// `None` is NULL.
    pub parameters: Vec<Option<Bytes>>,
    /// As `parameter_formats`, for the result's columns.
    pub result_formats: Vec<Format>,
}

impl Message {
    /// Whether an error in answer to it is followed by skipping everything up to Sync.
    pub fn is_extended(&self) -> bool {
        matches!(
            self,
            Message::Parse { .. }
                | Message::Bind(_)
                | Message::Describe(..)
                | Message::Execute { .. }
                | Message::Close(..)
                | Message::Flush
                | Message::Sync
        )
    }
}

fn violation(message: impl Into<String>) -> Error {
    Error::user(SqlState::PROTOCOL_VIOLATION, message)
}

/// Cuts the startup packet off the front of `input`; `None` when it is not all there.
///
/// # Errors
/// SQLSTATE 08P01 and 0A000; the connection is of no use then.
pub fn take_startup(input: &mut BytesMut) -> Result<Option<Startup>> {
    let Some(length) = input.first_chunk().map(|bytes| u32::from_be_bytes(*bytes) as usize) else {
        return Ok(None);
    };
    if !(8..=STARTUP_BYTES_MAX).contains(&length) {
        return Err(violation("invalid length of startup packet"));
    }
    if input.len() < length {
        return Ok(None);
    }
    let packet = input.split_to(length).freeze();
    let mut fields = Fields { rest: packet.slice(4..) };
    let code = fields.u32()?;
    if matches!(code, SSL_REQUEST | GSS_REQUEST) {
        return Ok(Some(Startup::Encryption));
    }
    if code == CANCEL_REQUEST {
        let process_id = fields.u32()? as i32;
        return Ok(Some(Startup::Cancel { process_id, secret: fields.rest.to_vec() }));
    }
    let (major, minor) = (code >> 16, code as u16);
    if major != 3 {
        return Err(Error::user(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("unsupported frontend protocol {major}.{minor}: server supports 3.0"),
        ));
    }
    let mut parameters = Vec::new();
    loop {
        let name = fields.string()?;
        if name.is_empty() {
            break;
        }
        parameters.push((name, fields.string()?));
    }
    Ok(Some(Startup::Start { minor_version: minor, parameters }))
}

/// A message cut out of the input: its type and its content.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    content: Bytes,
}

/// Cuts the next message off the front of `input`; `None` when it is not all there.
///
/// # Errors
/// SQLSTATE 08P01; where the next message begins cannot be told any more.
pub fn take_frame(input: &mut BytesMut) -> Result<Option<Frame>> {
    let Some([kind, length @ ..]) = input.first_chunk::<5>() else { return Ok(None) };
    let (kind, length) = (*kind, u32::from_be_bytes(*length) as usize);
    if !b"QPBDECHSXdcfFp".contains(&kind) {
        return Err(violation(format!("invalid frontend message type {kind}")));
    }
    if !(4..=MESSAGE_BYTES_MAX).contains(&length) {
        return Err(violation("invalid message length"));
    }
    if input.len() <= length {
        return Ok(None);
    }
    let mut content = input.split_to(1 + length).freeze();
    content.advance(5);
    Ok(Some(Frame { kind, content }))
}

impl Frame {
    /// Reads the message.
    ///
    /// # Errors
    /// SQLSTATE 08P01, and 22021 for text that is none.
    pub fn read(self) -> Result<Message> {
        let mut fields = Fields { rest: self.content };
        let message = match self.kind {
            b'Q' => Message::Query(fields.string()?),
            b'P' => Message::Parse {
                statement: fields.string()?,
                sql: fields.string()?,
                parameter_oids: fields.list(Fields::u32)?,
            },
            b'B' => Message::Bind(Bind {
                portal: fields.string()?,
                statement: fields.string()?,
                parameter_formats: fields.list(Fields::format)?,
                parameters: fields.list(Fields::value)?,
                result_formats: fields.list(Fields::format)?,
            }),
            b'D' => Message::Describe(fields.target()?, fields.string()?),
            b'E' => Message::Execute {
                portal: fields.string()?,
                // Negative counts mean all, as in Postgres.
                rows_max: usize::try_from(fields.u32()? as i32).unwrap_or(0),
            },
            b'C' => Message::Close(fields.target()?, fields.string()?),
            b'H' => Message::Flush,
            b'S' => Message::Sync,
            b'X' => Message::Terminate,
            b'd' => return Ok(Message::CopyData(fields.rest)),
            b'c' => Message::CopyDone,
            b'f' => Message::CopyFail(fields.string()?),
            b'F' => return Ok(Message::FunctionCall),
            _ => return Err(violation("unexpected password message")),
        };
        if fields.rest.is_empty() { Ok(message) } else { Err(invalid_format()) }
    }
}

fn invalid_format() -> Error {
    violation("invalid message format")
}

/// What of a message has not been read.
struct Fields {
    rest: Bytes,
}

impl Fields {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let head = *self.rest.first_chunk().ok_or_else(invalid_format)?;
        self.rest.advance(N);
        Ok(head)
    }

    fn u32(&mut self) -> Result<u32> {
        self.take().map(u32::from_be_bytes)
    }

    /// Text that ends with a zero byte.
    fn string(&mut self) -> Result<String> {
        let end = memchr::memchr(0, &self.rest).ok_or_else(invalid_format)?;
        let bytes = self.rest.split_to(end);
        self.rest.advance(1);
        Ok(utf8(&bytes)?.to_owned())
    }

    /// A count of 16 bits and as many items. Memory grows with what is there, not with the count.
    fn list<T>(&mut self, item: impl Fn(&mut Fields) -> Result<T>) -> Result<Vec<T>> {
        let count = u16::from_be_bytes(self.take()?);
        (0..count).map(|_| item(self)).collect()
    }

    fn format(&mut self) -> Result<Format> {
        match u16::from_be_bytes(self.take()?) {
            0 => Ok(Format::Text),
            1 => Ok(Format::Binary),
            code => Err(Error::user(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("unsupported format code: {code}"),
            )),
        }
    }

    fn value(&mut self) -> Result<Option<Bytes>> {
        let length = self.u32()? as i32;
        if length == -1 {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_| invalid_format())?;
        if length > self.rest.len() {
            return Err(invalid_format());
        }
        Ok(Some(self.rest.split_to(length)))
    }

    fn target(&mut self) -> Result<Target> {
        match self.take::<1>()? {
            [b'S'] => Ok(Target::Statement),
            [b'P'] => Ok(Target::Portal),
            [other] => Err(violation(format!("invalid message subtype {other}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, content: &[u8]) -> BytesMut {
        let mut bytes = BytesMut::from(&[kind][..]);
        bytes.extend_from_slice(&(content.len() as u32 + 4).to_be_bytes());
        bytes.extend_from_slice(content);
        bytes
    }

    fn read(kind: u8, content: &[u8]) -> Result<Message> {
        take_frame(&mut frame(kind, content))?.expect("a whole message").read()
    }

    #[test]
    fn messages() {
        assert_eq!(read(b'Q', b"SELECT 1\0").expect("Query"), Message::Query("SELECT 1".into()));
        let parse = read(b'P', b"s\0SELECT $1\0\0\x01\0\0\0\x17").expect("Parse");
        let expected = Message::Parse {
            statement: "s".into(),
            sql: "SELECT $1".into(),
            parameter_oids: vec![23],
        };
        assert_eq!(parse, expected);
        let bind =
            read(b'B', b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\0").expect("Bind");
        let expected = Message::Bind(Bind {
            portal: "p".into(),
            statement: "s".into(),
            parameter_formats: vec![Format::Binary],
            parameters: vec![Some(Bytes::from_static(b"x")), None],
            result_formats: vec![],
        });
        assert_eq!(bind, expected);
        let execute = read(b'E', b"\0\0\0\0\x05").expect("Execute");
        assert_eq!(execute, Message::Execute { portal: String::new(), rows_max: 5 });
        let describe = read(b'D', b"Ss\0").expect("Describe");
        assert_eq!(describe, Message::Describe(Target::Statement, "s".into()));
        assert_eq!(read(b'S', b"").expect("Sync"), Message::Sync);
    }

    #[test]
    fn messages_are_cut_whole() {
        let whole = frame(b'Q', b"SELECT 1\0");
        for length in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..length]);
            assert_eq!(take_frame(&mut part).expect("so far good"), None);
            assert_eq!(part.len(), length, "nothing is taken");
        }
        let mut two = whole.clone();
        two.extend_from_slice(&frame(b'S', b""));
        assert!(take_frame(&mut two).expect("a message").is_some());
        assert_eq!(take_frame(&mut two).expect("a message").map(|f| f.kind), Some(b'S'));
    }

    /// No prefix and no change of a message may panic.
    #[test]
    fn broken_messages_are_errors() {
        let good: [(u8, &[u8]); 5] = [
            (b'P', b"s\0SELECT $1\0\0\x01\0\0\0\x17"),
            (b'B', b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\x01\0\0"),
            (b'D', b"Ss\0"),
            (b'E', b"\0\0\0\0\x05"),
            (b'f', b"why\0"),
        ];
        for (kind, content) in good {
            read(kind, content).expect("a good message");
            for length in 0..content.len() {
                let error = read(kind, &content[..length]).expect_err("cut off");
                assert_eq!(error.sqlstate(), SqlState::PROTOCOL_VIOLATION);
            }
            for place in 0..content.len() {
                for byte in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut changed = content.to_vec();
                    changed[place] = byte;
                    let _ = read(kind, &changed);
                }
            }
        }
        assert_eq!(read(b'Q', b"a\xff\0").expect_err("no text").sqlstate().0, "22021");
        assert_eq!(read(b'S', b"x").expect_err("too long").sqlstate().0, "08P01");
        for broken in [b"Q\0\0\0\x03".as_slice(), b"Q\xff\xff\xff\xff", b"\x16\x03\x01\x02\x03"] {
            assert!(take_frame(&mut BytesMut::from(broken)).is_err());
        }
    }

    #[test]
    fn startup_packets() {
        let packet = |content: &[u8]| {
            let mut bytes = BytesMut::from(&(content.len() as u32 + 4).to_be_bytes()[..]);
            bytes.extend_from_slice(content);
            take_startup(&mut bytes)
        };
        let start = packet(b"\0\x03\0\x02user\0ann\0database\0d\0\0").expect("a packet");
        let parameters = [("user", "ann"), ("database", "d")];
        let parameters = parameters.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec();
        assert_eq!(start, Some(Startup::Start { minor_version: 2, parameters }));
        assert_eq!(packet(&SSL_REQUEST.to_be_bytes()).expect("SSL"), Some(Startup::Encryption));
        let cancel = packet(b"\x04\xd2\x16\x2e\0\0\0\x07abcd").expect("a cancel request");
        assert_eq!(cancel, Some(Startup::Cancel { process_id: 7, secret: b"abcd".to_vec() }));
        for broken in [
            b"\0\x02\0\0".as_slice(),
            b"\0\x03\0\0user",
            b"\0\x03\0\0user\0",
            b"\x04\xd2\x16\x2e\0",
        ] {
            assert!(packet(broken).is_err(), "{broken:?}");
        }
        assert!(take_startup(&mut BytesMut::from(&b"GET / HTTP/1.1"[..])).is_err());
    }
}
