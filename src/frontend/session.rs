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

use arrow::datatypes::Schema;
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use pgwire::messages::PgWireBackendMessage as Answer;
use pgwire::messages::copy::{CopyInResponse, CopyOutResponse};
use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{
    BindComplete, CloseComplete, ParseComplete, PortalSuspended,
};
use pgwire::messages::response::{
    CommandComplete, EmptyQueryResponse, ErrorResponse, NoticeResponse, ReadyForQuery,
    TransactionStatus as WireStatus,
};
use pgwire::messages::startup::ParameterStatus;
use tokio_util::sync::CancellationToken;

use super::copy::{CopyReader, CopyWriter};
use super::decode::{Context, decode_parameter};
use super::encode::{BatchEncoder, Format, Style, describe};
use super::message::{Bind, Frame, Message, Target};
use super::socket::{FLUSH_BYTES, NoMessage, Socket};
use crate::coordinator::command::{
    Connection, CopyFormat, CopyIn, Prepared, Response, RowStream, Statement, TransactionStatus,
    Value,
};
use crate::observe::clock::Clock;
use crate::types::error::{Error, ErrorKind, Result, SqlState};
use crate::types::sql_type::SqlType;
use crate::types::text::datetime::{DateContext, DateOrder};
use crate::types::text::interval::IntervalStyle;
use crate::types::text::scalar::ByteaOutput;
use crate::types::text::zone::Zone;

/// Prepared statements, and portals, that one client may keep.
const KEPT_MAX: usize = 10_000;

/// The oid of `unknown`: a parameter whose type the client leaves open.
const UNKNOWN_OID: u32 = 705;
/// The oid of `oid`, which is kept as bigint.
const OID_OID: u32 = 26;

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

/// A statement of the extended protocol.
struct NamedStatement {
    /// `None` for the empty statement.
    prepared: Option<Prepared>,
    /// As the client knows them: the types it declared, else those that were found out.
    parameter_oids: Vec<u32>,
}

impl NamedStatement {
    fn schema(&self) -> Option<&Schema> {
        self.prepared.as_ref().and_then(|p| p.columns.as_deref())
    }

    fn parameters(&self) -> &[SqlType] {
        self.prepared.as_ref().map_or(&[], |p| &p.parameters)
    }
}

/// A statement with values, ready to run or half-way through its rows.
struct Portal {
    statement: Arc<NamedStatement>,
    values: Vec<Value>,
    formats: Vec<Format>,
    state: PortalState,
}

enum PortalState {
    Ready,
    Open(Box<Cursor>),
    /// All rows were sent; the tag is for whoever asks for more.
    Exhausted(String),
    /// It had no rows, and cannot be run again.
    Done,
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
        if self.skipping && !matches!(frame.kind, b'S' | b'X') {
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
            // Left over from a COPY that failed.
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
            match self.next_batch(&mut cursor.rows, &stopping).await? {
                None => return Ok((true, sent)),
                Some(batch) => {
                    let batch = BatchEncoder::new(&batch, &cursor.formats, cursor.style)?;
                    cursor.current = Some(batch);
                }
            }
        }
    }

    /// The next batch of a result. If it is not there yet, the client gets what there is.
    async fn next_batch(
        &mut self,
        rows: &mut RowStream,
        stopping: &CancellationToken,
    ) -> Result<Option<arrow::array::RecordBatch>, Stop> {
        if let Some(ready) = rows.next().now_or_never() {
            return Ok(ready.transpose()?);
        }
        self.put_notices()?;
        self.flush().await?;
        let next = watched(&mut self.socket, stopping, rows.next()).await?;
        Ok(next.transpose()?)
    }

    async fn parse(&mut self, name: String, sql: &str, oids: &[u32]) -> Result<(), Stop> {
        if name.is_empty() {
            // It goes even if the new one has a mistake.
            self.statements.remove("");
        } else if self.statements.contains_key(&name) {
            return Err(Error::user(
                SqlState::DUPLICATE_PREPARED_STATEMENT,
                format!("prepared statement \"{name}\" already exists"),
            )
            .into());
        }
        check_kept(self.statements.len(), "prepared statements")?;
        let mut statements = self.connection.parse(sql)?;
        if statements.len() > 1 {
            return Err(Error::user(
                SqlState::SYNTAX_ERROR,
                "cannot insert multiple commands into a prepared statement",
            )
            .into());
        }
        let named = match statements.pop() {
            None => NamedStatement { prepared: None, parameter_oids: Vec::new() },
            Some(statement) => {
                let types =
                    oids.iter().map(|oid| parameter_type(*oid)).collect::<Result<Vec<_>>>()?;
                let prepare = self.connection.prepare(&statement, &types);
                let prepared = watched(&mut self.socket, &self.stopping.now, prepare).await?;
                let prepared =
                    prepared.map_err(|e| shift_position(e.into(), statement.offset_chars()))?;
                let parameter_oids = prepared.parameters.iter().enumerate().map(|(place, t)| {
                    let declared = oids.get(place).copied().unwrap_or(0);
                    if matches!(declared, 0 | UNKNOWN_OID) { t.oid() } else { declared }
                });
                let parameter_oids = parameter_oids.collect();
                NamedStatement { prepared: Some(prepared), parameter_oids }
            }
        };
        self.statements.insert(name, Arc::new(named));
        self.put_notices()?;
        self.socket.put(&Answer::ParseComplete(ParseComplete::new()))?;
        Ok(())
    }

    fn bind(&mut self, bind: Bind) -> Result<()> {
        let statement = self.statement(&bind.statement)?;
        if bind.portal.is_empty() {
            self.portals.remove("");
        } else if self.portals.contains_key(&bind.portal) {
            return Err(Error::user(
                SqlState::DUPLICATE_CURSOR,
                format!("cursor \"{}\" already exists", bind.portal),
            ));
        }
        check_kept(self.portals.len(), "portals")?;
        let types = statement.parameters();
        if bind.parameters.len() != types.len() {
            return Err(Error::user(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message supplies {} parameters, but prepared statement \"{}\" requires {}",
                    bind.parameters.len(),
                    bind.statement,
                    types.len()
                ),
            ));
        }
        let formats = spread(&bind.parameter_formats, types.len()).ok_or_else(|| {
            Error::user(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message has {} parameter formats but {} parameters",
                    bind.parameter_formats.len(),
                    types.len()
                ),
            )
        })?;
        let values = self.decode(&bind.parameters, &formats, types)?;
        let columns = statement.schema().map_or(0, |schema| schema.fields().len());
        let formats = spread(&bind.result_formats, columns).ok_or_else(|| {
            Error::user(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message has {} result formats but query has {columns} columns",
                    bind.result_formats.len()
                ),
            )
        })?;
        let portal = Portal { statement, values, formats, state: PortalState::Ready };
        self.portals.insert(bind.portal, portal);
        self.socket.put(&Answer::BindComplete(BindComplete::new()))
    }

    fn decode(
        &self,
        parameters: &[Option<Bytes>],
        formats: &[Format],
        types: &[SqlType],
    ) -> Result<Vec<Value>> {
        let context = self.context();
        let mut values = Vec::with_capacity(types.len());
        for (place, sql_type) in types.iter().enumerate() {
            let value =
                decode_parameter(parameters[place].as_deref(), formats[place], sql_type, &context);
            let number = place + 1;
            values.push(value.map_err(|error| error.at(format!("portal parameter ${number}")))?);
        }
        Ok(values)
    }

    fn describe_statement(&mut self, name: &str) -> Result<()> {
        let statement = self.statement(name)?;
        let types = ParameterDescription::new(statement.parameter_oids.clone());
        self.socket.put(&Answer::ParameterDescription(types))?;
        let columns = statement.schema().map_or(0, |schema| schema.fields().len());
        self.put_description(&statement, &vec![Format::Text; columns])
    }

    fn describe_portal(&mut self, name: &str) -> Result<()> {
        // A cursor that was declared in SQL is a portal too.
        if !self.portals.contains_key(name)
            && let Some(schema) = self.connection.cursor_columns(name)
        {
            let formats = vec![Format::Text; schema.fields().len()];
            let description = describe(&schema, &formats)?;
            return self.socket.put(&Answer::RowDescription(description));
        }
        let portal = self.portals.get(name).ok_or_else(|| no_portal(name))?;
        let (statement, formats) = (portal.statement.clone(), portal.formats.clone());
        self.put_description(&statement, &formats)
    }

    fn put_description(&mut self, statement: &NamedStatement, formats: &[Format]) -> Result<()> {
        let answer = match statement.schema() {
            Some(schema) => Answer::RowDescription(describe(schema, formats)?),
            None => Answer::NoData(NoData::new()),
        };
        self.socket.put(&answer)
    }

    fn statement(&self, name: &str) -> Result<Arc<NamedStatement>> {
        self.statements.get(name).cloned().ok_or_else(|| {
            let message = if name.is_empty() {
                "unnamed prepared statement does not exist".to_owned()
            } else {
                format!("prepared statement \"{name}\" does not exist")
            };
            Error::user(SqlState::INVALID_SQL_STATEMENT_NAME, message)
        })
    }

    async fn execute(&mut self, name: String, rows_max: usize) -> Result<(), Stop> {
        // Out of the map while it runs: after an error it is gone.
        let mut portal = self.portals.remove(&name).ok_or_else(|| no_portal(&name))?;
        let offset = portal.statement.prepared.as_ref().map_or(0, |p| p.statement.offset_chars());
        let status = self.connection.transaction_status();
        let ran = self.run_portal(&name, &mut portal, rows_max).await;
        ran.map_err(|stop| shift_position(stop, offset))?;
        let ended = status != TransactionStatus::Idle
            && self.connection.transaction_status() == TransactionStatus::Idle;
        if ended {
            self.portals.clear();
        }
        self.portals.insert(name, portal);
        Ok(())
    }

    async fn run_portal(
        &mut self,
        name: &str,
        portal: &mut Portal,
        rows_max: usize,
    ) -> Result<(), Stop> {
        if let PortalState::Ready = portal.state {
            self.start_portal(portal).await?;
            if let PortalState::Done = portal.state {
                return Ok(());
            }
        }
        match &mut portal.state {
            PortalState::Ready => {}
            PortalState::Open(cursor) => {
                let (finished, sent) = self.send_rows(cursor, rows_max).await?;
                self.put_notices()?;
                if finished {
                    let tag = std::mem::take(&mut cursor.tag);
                    self.put_ending(Ending::Tag(counted(&tag, sent)))?;
                    portal.state = PortalState::Exhausted(tag);
                } else {
                    self.socket.put(&Answer::PortalSuspended(PortalSuspended::new()))?;
                }
            }
            PortalState::Exhausted(tag) => {
                let tag = counted(tag, 0);
                self.put_ending(Ending::Tag(tag))?;
            }
            PortalState::Done => {
                return Err(Error::user(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!("portal \"{name}\" cannot be run"),
                )
                .into());
            }
        }
        Ok(())
    }

    /// Runs a portal's statement. Rows are left for the caller, with the portal `Open`; anything
    /// else is answered, and the portal is `Done`.
    async fn start_portal(&mut self, portal: &mut Portal) -> Result<(), Stop> {
        let statement = portal.statement.clone();
        let ending = match &statement.prepared {
            None => Ending::Empty,
            Some(prepared) => match self.deallocate(prepared.statement.sql())? {
                Some(ending) => ending,
                None => {
                    let execute = self.connection.execute(prepared, &portal.values);
                    let response = watched(&mut self.socket, &self.stopping.now, execute).await??;
                    if let Response::Rows { schema, rows, tag } = response {
                        check_described(statement.schema(), &schema)?;
                        let cursor = self.open(rows, tag, portal.formats.clone());
                        portal.state = PortalState::Open(Box::new(cursor));
                        return Ok(());
                    }
                    self.run_rowless(response).await?
                }
            },
        };
        self.put_notices()?;
        self.put_ending(ending)?;
        portal.state = PortalState::Done;
        Ok(())
    }

    /// DEALLOCATE of a statement that was prepared with a Parse message, which the connection does
    /// not know; any other is left to it.
    fn deallocate(&mut self, sql: &str) -> Result<Option<Ending>> {
        let Some(target) = deallocated(sql) else { return Ok(None) };
        if self.connection.transaction_status() == TransactionStatus::Failed {
            return Ok(None);
        }
        match target {
            None => {
                self.statements.clear();
                Ok(None)
            }
            Some(name) => {
                Ok(self.statements.remove(&name).map(|_| Ending::Tag("DEALLOCATE".to_owned())))
            }
        }
    }

    /// MOVE in a portal that was opened with a Bind message, which the connection does not know; any
    /// other is left to it.
    async fn move_portal(&mut self, sql: &str) -> Result<Option<Ending>, Stop> {
        let Some((rows_max, name)) = moved(sql) else { return Ok(None) };
        let Some(mut portal) = self.portals.remove(&name) else { return Ok(None) };
        if let PortalState::Ready = portal.state {
            self.start_portal(&mut portal).await?;
        }
        let mut skipped = 0;
        while let PortalState::Open(cursor) = &mut portal.state
            && skipped < rows_max
        {
            if let Some(batch) = &mut cursor.current {
                skipped += batch.skip(rows_max - skipped);
                if batch.is_done() {
                    cursor.current = None;
                }
                continue;
            }
            let stopping = self.stopping.now.clone();
            match self.next_batch(&mut cursor.rows, &stopping).await? {
                Some(batch) => {
                    let batch = BatchEncoder::new(&batch, &cursor.formats, cursor.style)?;
                    cursor.current = Some(batch);
                }
                None => portal.state = PortalState::Exhausted(std::mem::take(&mut cursor.tag)),
            }
        }
        self.portals.insert(name, portal);
        Ok(Some(Ending::Tag(format!("MOVE {skipped}"))))
    }

    /// Takes COPY data from the client into a table; returns the number of rows.
    async fn copy_in(&mut self, copy: CopyIn) -> Result<u64, Stop> {
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
    async fn copy_out(
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
        while let Some(batch) = self.next_batch(&mut rows, &stopping).await? {
            let mut encoder = BatchEncoder::new(&batch, &formats, style)?;
            while !encoder.is_done() {
                count += writer.write_some(&mut encoder, FLUSH_BYTES, &mut self.socket.out);
                if self.socket.out.len() >= FLUSH_BYTES {
                    self.flush().await?;
                }
            }
        }
        let done = pgwire::messages::copy::CopyDone::new();
        self.socket.put(&Answer::CopyDone(done))?;
        Ok(count)
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

/// Formats as Bind sends them, one for each of `count`; `None` when they do not fit.
fn spread(formats: &[Format], count: usize) -> Option<Vec<Format>> {
    match formats {
        [] => Some(vec![Format::Text; count]),
        [one] => Some(vec![*one; count]),
        many => (many.len() == count).then(|| many.to_vec()),
    }
}

/// The type that a client declares for a parameter; `None` when it leaves it open.
fn parameter_type(oid: u32) -> Result<Option<SqlType>> {
    match oid {
        0 | UNKNOWN_OID => Ok(None),
        OID_OID => Ok(Some(SqlType::Int8)),
        _ => SqlType::from_oid(oid).map(Some).ok_or_else(|| {
            Error::unsupported(format!("a parameter of the type with OID {oid}"))
                .hint("Leave the parameter's type open, or cast it to a type that SQL has here.")
        }),
    }
}

/// The client decodes rows by what it was told about them when the statement was described.
fn check_described(described: Option<&Schema>, schema: &Schema) -> Result<()> {
    let types = |schema: &Schema| -> Vec<_> {
        schema.fields().iter().map(|field| SqlType::of_field(field).map(|t| t.oid())).collect()
    };
    if described.map(types) == Some(types(schema)) {
        return Ok(());
    }
    Err(Error::user(SqlState::FEATURE_NOT_SUPPORTED, "cached plan must not change result type"))
}

fn check_kept(count: usize, what: &str) -> Result<()> {
    if count < KEPT_MAX {
        return Ok(());
    }
    Err(Error::user(SqlState::PROGRAM_LIMIT_EXCEEDED, format!("too many {what}"))
        .detail(format!("A client may keep {KEPT_MAX}."))
        .hint("Close those that are not needed any more."))
}

fn no_portal(name: &str) -> Error {
    Error::user(SqlState::INVALID_CURSOR_NAME, format!("portal \"{name}\" does not exist"))
}

/// Why a COPY ended without being finished.
fn copy_ended(outcome: Result<Result<u64>, tokio::sync::oneshot::error::RecvError>) -> Error {
    match outcome {
        Ok(Err(error)) => error,
        Ok(Ok(_)) | Err(_) => Error::internal("COPY ended before its data did"),
    }
}

/// What a DEALLOCATE names; `Some(None)` for ALL, `None` for any other statement.
fn deallocated(sql: &str) -> Option<Option<String>> {
    let mut words = sql.trim().trim_end_matches(';').split_whitespace();
    if !words.next()?.eq_ignore_ascii_case("deallocate") {
        return None;
    }
    let mut name = words.next()?;
    if name.eq_ignore_ascii_case("prepare") {
        name = words.next()?;
    }
    if words.next().is_some() {
        return None;
    }
    Some(match name.strip_prefix('"').and_then(|n| n.strip_suffix('"')) {
        Some(quoted) => Some(quoted.replace("\"\"", "\"")),
        None if name.eq_ignore_ascii_case("all") => None,
        None => Some(name.to_ascii_lowercase()),
    })
}

/// How far forward a MOVE goes, and in which portal; `None` for any other statement.
fn moved(sql: &str) -> Option<(usize, String)> {
    let mut words: Vec<&str> = sql.trim().trim_end_matches(';').split_whitespace().collect();
    let name = words.pop()?.trim_matches('"').to_owned();
    let words: Vec<String> = words.iter().map(|word| word.to_ascii_lowercase()).collect();
    let (verb, rest) = words.split_first()?;
    if verb != "move" {
        return None;
    }
    let meaning: Vec<&str> = rest
        .iter()
        .map(String::as_str)
        .filter(|word| !["forward", "from", "in"].contains(word))
        .collect();
    match meaning.as_slice() {
        [] | ["next"] => Some((1, name)),
        ["all"] => Some((usize::MAX, name)),
        [count] => Some((count.parse().ok()?, name)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deallocate_is_recognised() {
        for (sql, expected) in [
            ("DEALLOCATE s1", Some(Some("s1"))),
            ("deallocate prepare S1 ;", Some(Some("s1"))),
            ("DEALLOCATE \"a\"\"B\"", Some(Some("a\"B"))),
            ("DEALLOCATE ALL", Some(None)),
            ("DEALLOCATE", None),
            ("DEALLOCATE a b", None),
            ("SELECT 1", None),
        ] {
            let found = deallocated(sql);
            assert_eq!(found.as_ref().map(Option::as_deref), expected, "{sql}");
        }
    }

    #[test]
    fn move_is_recognised() {
        for (sql, expected) in [
            ("MOVE FORWARD 10 __asyncpg_1__", Some((10, "__asyncpg_1__"))),
            ("move all in c", Some((usize::MAX, "c"))),
            ("MOVE \"C\";", Some((1, "C"))),
            ("MOVE BACKWARD 1 c", None),
            ("FETCH 1 c", None),
            ("", None),
        ] {
            let found = moved(sql);
            assert_eq!(found.as_ref().map(|(n, name)| (*n, name.as_str())), expected, "{sql}");
        }
    }

    #[test]
    fn formats_are_spread() {
        use Format::{Binary, Text};
        assert_eq!(spread(&[], 2), Some(vec![Text, Text]));
        assert_eq!(spread(&[Binary], 2), Some(vec![Binary, Binary]));
        assert_eq!(spread(&[Binary, Text], 2), Some(vec![Binary, Text]));
        assert_eq!(spread(&[Binary, Text], 3), None);
        assert_eq!(spread(&[Binary], 0), Some(vec![]));
    }

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
