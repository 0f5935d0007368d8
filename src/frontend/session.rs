//! One connection: the messages of one client, in order, until it leaves.
//!
//! ```text
//!            Query                  error: ReadyForQuery at once
//!   idle ------------> statement(s) ------------------------------> idle
//!    |  Parse, Bind, Describe, Execute, Close            error
//!    +----------------------------------------> ... ----------> skipping
//!    ^                                           |                  |
//!    +------------ Sync: ReadyForQuery ----------+------ Sync ------+
//! ```
//!
//! - An error ends the statement, never the session: it is reported, an open transaction block
//!   fails, and in the extended protocol what follows is skipped up to Sync.
//! - Answers are collected and sent when the client waits for them (ReadyForQuery, Flush), when
//!   they are many, and while a result has no next batch yet: the rows of a SUBSCRIBE are seen at
//!   once. No next batch is asked for before the client has taken the one before.
//! - While a statement runs, a client that hangs up or a server that stops ends it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::{FutureExt, StreamExt};
use pgwire::messages::PgWireBackendMessage as Answer;
use pgwire::messages::extendedquery::CloseComplete;
use pgwire::messages::response::{
    CommandComplete, EmptyQueryResponse, ErrorResponse, NoticeResponse, ReadyForQuery,
    TransactionStatus as WireStatus,
};
use pgwire::messages::startup::ParameterStatus;
use tokio_util::sync::CancellationToken;

use super::decode::Context;
use super::encode::{BatchEncoder, Format, Style, describe};
use super::message::{Frame, Message, Target};
use super::socket::{FLUSH_BYTES, NoMessage, Socket};
use crate::coordinator::command::{Connection, Response, RowStream, Statement, TransactionStatus};
use crate::observe::clock::Clock;
use crate::types::error::{Error, ErrorKind, Result, SqlState};
use crate::types::text::datetime::{DateContext, DateOrder};
use crate::types::text::interval::IntervalStyle;
use crate::types::text::scalar::ByteaOutput;
use crate::types::text::zone::Zone;

mod copy;
mod portal;

use portal::{NamedStatement, Portal};

/// How a server stops: first what is idle or endless ends, then everything.
#[derive(Clone, Default)]
pub struct Stopping {
    pub soon: CancellationToken,
    pub now: CancellationToken,
}

/// Why a session is over.
#[derive(Debug)]
pub enum End {
    /// The client said so, or hung up.
    Gone,
    Stopping,
    /// The client's bytes make no sense any more.
    Broken(Error),
}

impl From<NoMessage> for End {
    fn from(none: NoMessage) -> End {
        match none {
            NoMessage::Gone => End::Gone,
            NoMessage::Broken(error) => End::Broken(error),
        }
    }
}

/// What ends a statement early.
enum Stop {
    Failed(Error),
    Ended(End),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error)
    }
}

impl From<End> for Stop {
    fn from(end: End) -> Stop {
        Stop::Ended(end)
    }
}

/// Runs `work` while the client is there and the server runs.
async fn watched<T>(
    socket: &mut Socket,
    stopping: &CancellationToken,
    work: impl Future<Output = T>,
) -> Result<T, End> {
    tokio::select! {
        biased;
        output = work => Ok(output),
        () = stopping.cancelled() => Err(End::Stopping),
        () = socket.gone() => Err(End::Gone),
    }
}

/// What a statement answers when it is done.
enum Ending {
    Tag(String),
    Empty,
}
/// A result on its way to the client.
struct Cursor {
    rows: RowStream,
    /// `SELECT {}`
    tag: String,
    formats: Vec<Format>,
    style: Style,
    /// What is left of the last batch.
    current: Option<BatchEncoder>,
}

impl Cursor {
    /// Whether it goes on until someone stops it.
    fn is_endless(&self) -> bool {
        self.tag.starts_with("SUBSCRIBE")
    }
}

/// A client's session.
pub struct Session {
    socket: Socket,
    connection: Connection,
    stopping: Stopping,
    clock: Clock,
    /// By name; the unnamed one is "".
    statements: HashMap<String, Arc<NamedStatement>>,
    portals: HashMap<String, Portal>,
    /// After an error of the extended protocol, until Sync.
    skipping: bool,
}

impl Session {
    pub fn new(
        socket: Socket,
        connection: Connection,
        stopping: Stopping,
        clock: Clock,
    ) -> Session {
        Session {
            socket,
            connection,
            stopping,
            clock,
            statements: HashMap::new(),
            portals: HashMap::new(),
            skipping: false,
        }
    }

    /// Serves the client until it leaves. It has been let in, and waits for the first
    /// ReadyForQuery.
    pub async fn run(mut self) {
        let mut outcome = self.put_ready().await;
        while outcome.is_ok() {
            outcome = self.step().await;
        }
        // Whatever still runs has no one to answer to.
        self.connection.cancel_handle().cancel();
        match outcome {
            Ok(()) | Err(End::Gone) => {}
            Err(End::Stopping) => {
                let error = Error::user(
                    SqlState::ADMIN_SHUTDOWN,
                    "terminating connection due to administrator command",
                );
                refuse(&mut self.socket, &error).await;
            }
            Err(End::Broken(error)) => refuse(&mut self.socket, &error).await,
        }
    }

    /// One message.
    async fn step(&mut self) -> Result<(), End> {
        let frame = tokio::select! {
            biased;
            frame = self.socket.next() => frame?,
            () = self.stopping.soon.cancelled() => return Err(End::Stopping),
        };
        // COPY data that comes here is left over from a COPY that failed.
        let ignored = matches!(frame.kind, b'd' | b'c' | b'f');
        if ignored || (self.skipping && !matches!(frame.kind, b'S' | b'X')) {
            return Ok(());
        }
        let simple = matches!(frame.kind, b'Q' | b'F');
        match self.handle(frame).await {
            Ok(()) => {}
            Err(Stop::Ended(end)) => return Err(end),
            Err(Stop::Failed(error)) => {
                self.report(&error)?;
                if simple {
                    return self.finish_transaction(None).await;
                }
                self.skipping = true;
                self.flush().await?;
            }
        }
        if self.socket.out.len() >= FLUSH_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    async fn handle(&mut self, frame: Frame) -> Result<(), Stop> {
        match frame.read()? {
            Message::Query(sql) => {
                self.statements.remove("");
                self.portals.remove("");
                let ending = self.run_text(&sql).await?;
                self.finish_transaction(ending).await?;
            }
            Message::Parse { statement, sql, parameter_oids } => {
                self.parse(statement, &sql, &parameter_oids).await?;
            }
            Message::Bind(bind) => self.bind(bind)?,
            Message::Describe(Target::Statement, name) => self.describe_statement(&name)?,
            Message::Describe(Target::Portal, name) => self.describe_portal(&name)?,
            Message::Execute { portal, rows_max } => self.execute(portal, rows_max).await?,
            Message::Close(target, name) => {
                match target {
                    Target::Statement => drop(self.statements.remove(&name)),
                    Target::Portal => drop(self.portals.remove(&name)),
                }
                self.socket.put(&Answer::CloseComplete(CloseComplete::new()))?;
            }
            Message::Flush => self.flush().await?,
            Message::Sync => {
                self.skipping = false;
                self.finish_transaction(None).await?;
            }
            Message::Terminate => return Err(Stop::Ended(End::Gone)),
            Message::CopyData(_) | Message::CopyDone | Message::CopyFail(_) => {}
            Message::FunctionCall => {
                return Err(Error::unsupported("a function call message").into());
            }
        }
        Ok(())
    }

    /// The statements of one simple query message. The last one's ending is held back until its
    /// transaction is committed.
    async fn run_text(&mut self, sql: &str) -> Result<Option<Ending>, Stop> {
        let statements = self.connection.parse(sql)?;
        if statements.len() > 1 {
            self.connection.begin_implicit_block();
        }
        let mut last = if statements.is_empty() { Some(Ending::Empty) } else { None };
        for statement in &statements {
            if let Some(ending) = last.take() {
                self.put_ending(ending)?;
            }
            let ran = self.run_simple(statement).await;
            last = Some(ran.map_err(|stop| shift_position(stop, statement.offset_chars()))?);
        }
        Ok(last)
    }

    async fn run_simple(&mut self, statement: &Statement) -> Result<Ending, Stop> {
        if let Some(ending) = self.deallocate(statement.sql())? {
            return Ok(ending);
        }
        if let Some(ending) = self.move_portal(statement.sql()).await? {
            return Ok(ending);
        }
        let prepare = self.connection.prepare(statement, &[]);
        let prepared = watched(&mut self.socket, &self.stopping.now, prepare).await??;
        if !prepared.parameters.is_empty() {
            let message = "there is no parameter $1";
            return Err(Error::user(SqlState::UNDEFINED_PARAMETER, message).into());
        }
        let execute = self.connection.execute(&prepared, &[]);
        let ending = match watched(&mut self.socket, &self.stopping.now, execute).await?? {
            Response::Rows { schema, rows, tag } => {
                let formats = vec![Format::Text; schema.fields().len()];
                let description = describe(&schema, &formats)?;
                self.socket.put(&Answer::RowDescription(description))?;
                let mut cursor = self.open(rows, tag, formats);
                let (_, sent) = self.send_rows(&mut cursor, 0).await?;
                Ending::Tag(counted(&cursor.tag, sent))
            }
            other => self.run_rowless(other).await?,
        };
        self.put_notices()?;
        Ok(ending)
    }

    /// Every response but rows.
    async fn run_rowless(&mut self, response: Response) -> Result<Ending, Stop> {
        Ok(match response {
            Response::Rows { .. } => {
                return Err(Error::internal("rows where none were announced").into());
            }
            Response::Done { tag } => {
                if tag == "DISCARD ALL" {
                    self.statements.clear();
                    self.portals.clear();
                }
                Ending::Tag(tag)
            }
            Response::Empty => Ending::Empty,
            Response::CopyIn(copy) => Ending::Tag(format!("COPY {}", self.copy_in(copy).await?)),
            Response::CopyOut { schema, rows, format } => {
                Ending::Tag(format!("COPY {}", self.copy_out(&schema, rows, format).await?))
            }
        })
    }

    fn open(&self, rows: RowStream, tag: String, formats: Vec<Format>) -> Cursor {
        Cursor { rows, tag, formats, style: self.style(), current: None }
    }

    /// Sends up to `rows_max` rows (0: all). Whether that was all, and how many.
    async fn send_rows(
        &mut self,
        cursor: &mut Cursor,
        rows_max: usize,
    ) -> Result<(bool, usize), Stop> {
        let mut sent = 0;
        loop {
            while let Some(batch) = &mut cursor.current {
                let left = if rows_max == 0 { usize::MAX } else { rows_max - sent };
                sent += batch.encode_some(left, FLUSH_BYTES, &mut self.socket.out)?;
                if batch.is_done() {
                    cursor.current = None;
                }
                if self.socket.out.len() >= FLUSH_BYTES {
                    self.flush().await?;
                }
                if rows_max > 0 && sent == rows_max {
                    return Ok((false, sent));
                }
            }
            let stopping =
                if cursor.is_endless() { &self.stopping.soon } else { &self.stopping.now };
            let stopping = stopping.clone();
            // A client may wait for the word that a SUBSCRIBE runs; the beginning of any other answer
            // can wait for its rows.
            let flush = cursor.is_endless() || sent > 0;
            match self.next_batch(&mut cursor.rows, flush, &stopping).await? {
                None => return Ok((true, sent)),
                Some(batch) => {
                    let batch = BatchEncoder::new(&batch, &cursor.formats, cursor.style)?;
                    cursor.current = Some(batch);
                }
            }
        }
    }

    /// The next batch of a result. If it is not there yet and `flush` is set, the client gets what
    /// there is.
    async fn next_batch(
        &mut self,
        rows: &mut RowStream,
        flush: bool,
        stopping: &CancellationToken,
    ) -> Result<Option<RecordBatch>, Stop> {
        if let Some(ready) = rows.next().now_or_never() {
            return Ok(ready.transpose()?);
        }
        if flush {
            self.put_notices()?;
            self.flush().await?;
        }
        let next = watched(&mut self.socket, stopping, rows.next()).await?;
        Ok(next.transpose()?)
    }

    /// Ends the implicit transaction and tells the client that it is its turn.
    async fn finish_transaction(&mut self, ending: Option<Ending>) -> Result<(), End> {
        let sync = self.connection.sync();
        match watched(&mut self.socket, &self.stopping.now, sync).await? {
            Ok(()) => {
                if let Some(ending) = ending {
                    self.put_ending(ending).map_err(End::Broken)?;
                }
            }
            Err(error) => self.report(&error)?,
        }
        if self.connection.transaction_status() == TransactionStatus::Idle {
            self.portals.clear();
        }
        self.put_ready().await
    }

    async fn put_ready(&mut self) -> Result<(), End> {
        self.put_state().map_err(End::Broken)?;
        self.flush().await
    }

    fn put_state(&mut self) -> Result<()> {
        self.put_notices()?;
        for (name, value) in self.connection.take_parameter_changes() {
            self.socket.put(&Answer::ParameterStatus(ParameterStatus::new(name, value)))?;
        }
        let status = match self.connection.transaction_status() {
            TransactionStatus::Idle => WireStatus::Idle,
            TransactionStatus::InTransaction => WireStatus::Transaction,
            TransactionStatus::Failed => WireStatus::Error,
        };
        self.socket.put(&Answer::ReadyForQuery(ReadyForQuery::new(status)))
    }

    fn put_ending(&mut self, ending: Ending) -> Result<()> {
        self.socket.put(&match ending {
            Ending::Tag(tag) => Answer::CommandComplete(CommandComplete::new(tag)),
            Ending::Empty => Answer::EmptyQueryResponse(EmptyQueryResponse::new()),
        })
    }

    fn put_notices(&mut self) -> Result<()> {
        for notice in self.connection.take_notices() {
            let mut fields = vec![
                (b'S', notice.severity.to_owned()),
                (b'V', notice.severity.to_owned()),
                (b'C', notice.sqlstate.to_owned()),
                (b'M', notice.message),
            ];
            fields.extend(notice.detail.map(|detail| (b'D', detail)));
            fields.extend(notice.hint.map(|hint| (b'H', hint)));
            self.socket.put(&Answer::NoticeResponse(NoticeResponse::new(fields)))?;
        }
        Ok(())
    }

    /// Tells the client of an error; an open transaction block fails with it.
    fn report(&mut self, error: &Error) -> Result<(), End> {
        if error.kind() == ErrorKind::Internal {
            tracing::error!(?error, "a statement met a bug");
        }
        self.connection.fail_transaction();
        let put =
            self.put_notices().and_then(|()| self.socket.put(&error_response("ERROR", error)));
        put.map_err(End::Broken)
    }

    async fn flush(&mut self) -> Result<(), End> {
        tokio::select! {
            biased;
            flushed = self.socket.flush() => flushed.map_err(|_| End::Gone),
            () = self.stopping.now.cancelled() => Err(End::Stopping),
        }
    }

    /// How values look now.
    fn style(&self) -> Style {
        let setting = |name| self.connection.setting(name);
        let bytea = match setting("bytea_output").as_deref() {
            Some("escape") => ByteaOutput::Escape,
            _ => ByteaOutput::Hex,
        };
        let digits = setting("extra_float_digits").and_then(|digits| digits.parse().ok());
        Style {
            zone: self.zone(),
            interval: self.interval_style(),
            bytea,
            extra_float_digits: digits.unwrap_or(1),
        }
    }

    /// What reading values depends on now.
    fn context(&self) -> Context {
        let order = self.connection.setting("DateStyle").unwrap_or_default();
        let order = match order.rsplit([',', ' ']).next() {
            Some("DMY") => DateOrder::Dmy,
            Some("YMD") => DateOrder::Ymd,
            _ => DateOrder::Mdy,
        };
        let dates = DateContext { zone: self.zone(), order, now_us: self.clock.now().0 };
        Context { dates, interval: self.interval_style() }
    }

    fn zone(&self) -> Zone {
        let name = self.connection.setting("TimeZone").unwrap_or_default();
        Zone::parse(&name).unwrap_or(Zone::UTC)
    }

    fn interval_style(&self) -> IntervalStyle {
        let name = self.connection.setting("IntervalStyle").unwrap_or_default();
        IntervalStyle::parse(&name).unwrap_or(IntervalStyle::Postgres)
    }
}

/// Tells a client why it cannot go on, and hangs up. Waits a moment at most for a client that
/// does not listen.
pub async fn refuse(socket: &mut Socket, error: &Error) {
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);
    if socket.put(&error_response("FATAL", error)).is_ok() {
        let _ = tokio::time::timeout(PATIENCE, socket.close()).await;
    }
}

/// An error as a message.
fn error_response(severity: &str, error: &Error) -> Answer {
    let body = error.body();
    let mut fields = vec![
        (b'S', severity.to_owned()),
        (b'V', severity.to_owned()),
        (b'C', body.sqlstate.0.to_owned()),
        (b'M', body.message.clone()),
    ];
    fields.extend(body.detail.clone().map(|detail| (b'D', detail)));
    fields.extend(body.hint.clone().map(|hint| (b'H', hint)));
    fields.extend(body.place.clone().map(|place| (b'W', place)));
    fields.extend(body.position.map(|position| (b'P', position.to_string())));
    // A zero byte would end a field early and make the rest unreadable.
    for (_, field) in &mut fields {
        field.retain(|c| c != '\0');
    }
    Answer::ErrorResponse(ErrorResponse::new(fields))
}

/// Positions count from the statement's beginning; clients count from the text's.
fn shift_position(stop: Stop, offset_chars: usize) -> Stop {
    match stop {
        Stop::Failed(error) => Stop::Failed(error.shift_position(offset_chars)),
        ended => ended,
    }
}

fn counted(tag: &str, rows: usize) -> String {
    tag.replace("{}", &rows.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_become_messages() {
        let error = Error::user(SqlState::SYNTAX_ERROR, "bad\0 word")
            .detail("Why.")
            .hint("How.")
            .position(3)
            .shift_position(10);
        let Answer::ErrorResponse(response) = error_response("ERROR", &error) else {
            panic!("an error response");
        };
        let fields: Vec<_> =
            response.fields.iter().map(|(k, v)| (*k as char, v.as_str())).collect();
        let expected = [
            ('S', "ERROR"),
            ('V', "ERROR"),
            ('C', "42601"),
            ('M', "bad word"),
            ('D', "Why."),
            ('H', "How."),
            ('P', "13"),
        ];
        assert_eq!(fields, expected);
    }
}
