//! One client's socket: messages in, a buffer out, and the news that the client has gone.
//!
//! While a statement runs, the socket is still read, so that a client who hangs up stops it; what
//! else arrives (messages sent ahead) waits in a buffer of a bounded size.

use std::io;

use bytes::BytesMut;
use pgwire::messages::PgWireBackendMessage;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::message::{Frame, Startup, take_frame, take_startup};
use crate::types::error::{Error, Result};

/// Bytes of messages that a client may send ahead while a statement runs.
const READ_AHEAD_BYTES_MAX: usize = 1 << 20;
/// Bytes asked of the socket at once.
const READ_BYTES: usize = 16 << 10;
/// Bytes of answers that are collected before they are sent.
pub const FLUSH_BYTES: usize = 64 << 10;

/// What came instead of a message.
pub enum NoMessage {
    /// The client closed the connection, or it broke.
    Gone,
    /// Its bytes are no messages.
    Broken(Error),
}

impl From<io::Error> for NoMessage {
    fn from(_: io::Error) -> NoMessage {
        NoMessage::Gone
    }
}

/// A client's socket.
pub struct Socket {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    /// What was read and not yet understood.
    input: BytesMut,
    /// What has not been sent yet.
    pub out: BytesMut,
}

impl Socket {
    pub fn new(stream: TcpStream) -> Socket {
        let (reader, writer) = stream.into_split();
        Socket { reader, writer, input: BytesMut::new(), out: BytesMut::new() }
    }

    /// Waits for the startup packet. May be dropped and called again.
    ///
    /// # Errors
    /// When none comes.
    pub async fn next_startup(&mut self) -> Result<Startup, NoMessage> {
        loop {
            match take_startup(&mut self.input) {
                Ok(Some(startup)) => return Ok(startup),
                Ok(None) => self.read().await?,
                Err(error) => return Err(NoMessage::Broken(error)),
            }
        }
    }

    /// Waits for the next message. May be dropped and called again.
    ///
    /// # Errors
    /// When none comes.
    pub async fn next(&mut self) -> Result<Frame, NoMessage> {
        loop {
            match take_frame(&mut self.input) {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => self.read().await?,
                Err(error) => return Err(NoMessage::Broken(error)),
            }
        }
    }

    /// Whether bytes of the next message are here already.
    pub fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    async fn read(&mut self) -> Result<(), NoMessage> {
        self.input.reserve(READ_BYTES);
        match self.reader.read_buf(&mut self.input).await? {
            0 => Err(NoMessage::Gone),
            _ => Ok(()),
        }
    }

    /// Comes to an end when the client hangs up. May be dropped and called again.
    pub async fn gone(&mut self) {
        while self.input.len() < READ_AHEAD_BYTES_MAX {
            if self.read().await.is_err() {
                return;
            }
        }
        // The client is far ahead. Whether it still lives shows when the answers are sent.
        std::future::pending().await
    }

    /// Adds a message to what will be sent.
    pub fn put(&mut self, message: &PgWireBackendMessage) -> Result<()> {
        message.encode(&mut self.out).map_err(|error| Error::internal(error.to_string()))
    }

    /// Sends everything; waits as long as the client does not take it.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            self.writer.write_all_buf(&mut self.out).await?;
            // One huge row should not be remembered by an idle connection.
            if self.out.capacity() > 4 * FLUSH_BYTES {
                self.out = BytesMut::new();
            }
        }
        Ok(())
    }

    /// Sends everything and says that nothing follows.
    pub async fn close(&mut self) {
        // The client may be gone already; then nobody misses it.
        if self.flush().await.is_ok() {
            let _ = self.writer.shutdown().await;
        }
    }
}
