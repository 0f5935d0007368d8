//! COPY's part of a session: the client's data into a table, rows out as data.

use arrow::datatypes::Schema;
use pgwire::messages::PgWireBackendMessage as Answer;
use pgwire::messages::copy::{CopyDone, CopyInResponse, CopyOutResponse};
use tokio::sync::oneshot::error::RecvError;

use super::{End, Session, Stop, watched};
use crate::coordinator::command::{CopyFormat, CopyIn, RowStream};
use crate::frontend::copy::{CopyReader, CopyWriter};
use crate::frontend::encode::{BatchEncoder, Format};
use crate::frontend::message::Message;
use crate::frontend::socket::FLUSH_BYTES;
use crate::types::error::{Error, Result, SqlState};

impl Session {
    /// Takes COPY data from the client into a table; returns the number of rows.
    pub(super) async fn copy_in(&mut self, copy: CopyIn) -> Result<u64, Stop> {
        let CopyIn { schema, format, rows, finish, mut done } = copy;
        let columns = schema.fields().len();
        let mut reader = CopyReader::new(schema, format, self.context())?;
        let answer = CopyInResponse::new(0, columns as i16, vec![0; columns]);
        self.socket.put(&Answer::CopyInResponse(answer))?;
        self.put_notices()?;
        self.flush().await?;
        let mut batches = Vec::new();
        let mut complete = false;
        while !complete {
            let frame = tokio::select! {
                biased;
                // The table may refuse, or someone cancel, before the client is done.
                outcome = &mut done => return Err(copy_ended(outcome).into()),
                frame = self.socket.next() => frame.map_err(End::from)?,
                () = self.stopping.now.cancelled() => return Err(End::Stopping.into()),
            };
            match frame.read()? {
                Message::CopyData(data) => reader.push(&data, &mut batches)?,
                Message::CopyDone => {
                    batches.extend(reader.finish()?);
                    complete = true;
                }
                Message::CopyFail(why) => {
                    let message = format!("COPY from stdin failed: {why}");
                    return Err(Error::user(SqlState::QUERY_CANCELED, message).into());
                }
                // Sent ahead by clients of the extended protocol.
                Message::Flush | Message::Sync => {}
                Message::Terminate => return Err(Stop::Ended(End::Gone)),
                _ => {
                    let message = "unexpected message type during COPY from stdin";
                    return Err(Error::user(SqlState::PROTOCOL_VIOLATION, message).into());
                }
            }
            for batch in batches.drain(..) {
                let send = watched(&mut self.socket, &self.stopping.now, rows.send(batch)).await?;
                if send.is_err() {
                    let outcome = watched(&mut self.socket, &self.stopping.now, &mut done).await?;
                    return Err(copy_ended(outcome).into());
                }
            }
        }
        drop(rows);
        // When nobody listens, `done` says why.
        let _ = finish.send(());
        match watched(&mut self.socket, &self.stopping.now, done).await? {
            Ok(Ok(count)) => Ok(count),
            outcome => Err(copy_ended(outcome).into()),
        }
    }

    /// Sends rows as COPY data; returns their number.
    pub(super) async fn copy_out(
        &mut self,
        schema: &Schema,
        mut rows: RowStream,
        format: CopyFormat,
    ) -> Result<usize, Stop> {
        let columns = schema.fields().len();
        let formats = vec![Format::Text; columns];
        let style = self.style();
        let mut writer = CopyWriter::new(format)?;
        let answer = CopyOutResponse::new(0, columns as i16, vec![0; columns]);
        self.socket.put(&Answer::CopyOutResponse(answer))?;
        writer.write_header(schema, &mut self.socket.out);
        let mut count = 0;
        let stopping = self.stopping.now.clone();
        while let Some(batch) = self.next_batch(&mut rows, true, &stopping).await? {
            let mut encoder = BatchEncoder::new(&batch, &formats, style)?;
            while !encoder.is_done() {
                count += writer.write_some(&mut encoder, FLUSH_BYTES, &mut self.socket.out);
                if self.socket.out.len() >= FLUSH_BYTES {
                    self.flush().await?;
                }
            }
        }
        let done = CopyDone::new();
        self.socket.put(&Answer::CopyDone(done))?;
        Ok(count)
    }
}

/// Why a COPY ended without being finished.
fn copy_ended(outcome: Result<Result<u64>, RecvError>) -> Error {
    match outcome {
        Ok(Err(error)) => error,
        Ok(Ok(_)) | Err(_) => Error::internal("COPY ended before its data did"),
    }
}
