//! A small client of the Postgres protocol, for people: it hands out what the server says as it
//! comes (column types, rows, command tags, notices, COPY data), which drivers hide.
//!
//! 1. `connect` sends the start-up message and answers for a password (clear, MD5, SCRAM).
//! 2. `send` starts a simple query; `next` gives its events until `Event::Ready`.
//! 3. `canceller` makes the out-of-band request that stops what runs.
//!
//! `next` may be dropped while it waits, and called again: it loses nothing.

use std::fmt;
use std::io;

use bytes::{Bytes, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::backend::{DataRowBody, ErrorFields, Message};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::frontend::repl::output::OutputError;
use crate::types::error::{Error, SqlState};

/// Where to connect, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: Option<Vec<u8>>,
    pub database: String,
}

/// What a statement, or the connection, failed with.
#[derive(Debug)]
pub enum ClientError {
    /// The server's answer; the connection is usable.
    Server(Box<ServerMessage>),
    /// The connection is gone, or never was.
    Connection(io::Error),
    /// Nobody reads what the shell prints any more.
    Output(io::Error),
}

/// An error or notice of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerMessage {
    pub severity: String,
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// 1-based character position in the text that was sent.
    pub position: Option<usize>,
}

/// A column of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub type_oid: u32,
}

/// What the server says while a query runs.
#[derive(Debug)]
pub enum Event {
    /// A result with these columns begins.
    Columns(Vec<Column>),
    Row(Vec<Option<String>>),
    /// A statement is done; its tag.
    Complete(String),
    /// The statement was empty.
    Empty,
    Notice(ServerMessage),
    Error(ServerMessage),
    /// The server waits for COPY data.
    CopyIn,
    CopyOut(Bytes),
    /// The query is over; the next one may be sent.
    Ready,
}

/// One connection.
pub struct Client {
    stream: TcpStream,
    /// Bytes received that are not a whole message yet.
    received: BytesMut,
    canceller: Canceller,
    server_version: String,
    /// As ReadyForQuery says: I idle, T in a transaction block, E in a failed one.
    transaction: u8,
}

/// Stops what its connection runs.
#[derive(Clone, Debug)]
pub struct Canceller {
    host: String,
    port: u16,
    process_id: i32,
    secret_key: i32,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Server(message) => {
                write!(f, "{}: {}: {}", message.severity, message.sqlstate, message.message)
            }
            ClientError::Connection(error) => write!(f, "connection failed: {error}"),
            ClientError::Output(error) => write!(f, "cannot print: {error}"),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> ClientError {
        ClientError::Connection(error)
    }
}

impl From<OutputError> for ClientError {
    fn from(OutputError(error): OutputError) -> ClientError {
        ClientError::Output(error)
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Error {
        Error::external(SqlState::CONNECTION_EXCEPTION, error.to_string())
    }
}

impl Target {
    /// Reads `postgres://user@host:port/database` or `host=... port=...`.
    ///
    /// # Errors
    /// SQLSTATE 22023 when it is neither, or names something that the shell cannot reach.
    pub fn parse(text: &str) -> Result<Target, Error> {
        use tokio_postgres::config::{Config, Host};
        let invalid = |message: String| {
            Error::user(SqlState::INVALID_PARAMETER_VALUE, message)
                .hint("Write postgres://user@host:port/database.")
        };
        let config: Config = text.parse().map_err(|error| invalid(format!("{text:?}: {error}")))?;
        let host = match config.get_hosts().first() {
            Some(Host::Tcp(host)) => host.clone(),
            None => "127.0.0.1".to_owned(),
            #[cfg(unix)]
            Some(Host::Unix(path)) => {
                return Err(invalid(format!("{} is not a host", path.display())));
            }
        };
        Ok(Target {
            host,
            port: match config.get_ports().first() {
                // What the parser fills in where a URL names none.
                Some(5432) if !text.contains("5432") => DEFAULT_PORT,
                Some(&port) => port,
                None => DEFAULT_PORT,
            },
            user: config.get_user().unwrap_or(DEFAULT_NAME).to_owned(),
            password: config.get_password().map(<[u8]>::to_vec),
            database: config.get_dbname().unwrap_or(DEFAULT_NAME).to_owned(),
        })
    }

    /// The default user and database of a server at this address.
    pub fn at(address: std::net::SocketAddr) -> Target {
        Target {
            host: address.ip().to_string(),
            port: address.port(),
            user: DEFAULT_NAME.to_owned(),
            password: None,
            database: DEFAULT_NAME.to_owned(),
        }
    }

    /// Whether the server shares this machine's files.
    pub fn is_local(&self) -> bool {
        self.host == "localhost"
            || self.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

const DEFAULT_PORT: u16 = 7432;
/// The database that every server has, and the user when none is named.
const DEFAULT_NAME: &str = "millstream";

impl Client {
    /// Opens a connection.
    ///
    /// # Errors
    /// When nobody answers, or the server refuses.
    pub async fn connect(target: &Target) -> Result<Client, ClientError> {
        let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
        stream.set_nodelay(true)?;
        let mut client = Client {
            stream,
            received: BytesMut::with_capacity(16 << 10),
            canceller: Canceller {
                host: target.host.clone(),
                port: target.port,
                process_id: 0,
                secret_key: 0,
            },
            transaction: b'I',
            server_version: String::new(),
        };
        let mut startup = BytesMut::new();
        let parameters = [
            ("user", target.user.as_str()),
            ("database", &target.database),
            ("application_name", "millstream"),
            ("client_encoding", "UTF8"),
        ];
        frontend::startup_message(parameters, &mut startup)?;
        client.stream.write_all(&startup).await?;
        client.authenticate(target).await?;
        client.finish_startup().await?;
        Ok(client)
    }

    /// What the server calls its version.
    pub fn server_version(&self) -> &str {
        &self.server_version
    }

    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// Starts a simple query. Call [`Client::next`] until [`Event::Ready`] afterwards.
    ///
    /// # Errors
    /// When the connection is gone, or `sql` holds a NUL character.
    pub async fn send(&mut self, sql: &str) -> Result<(), ClientError> {
        let mut message = BytesMut::with_capacity(sql.len() + 8);
        frontend::query(sql, &mut message)?;
        Ok(self.stream.write_all(&message).await?)
    }

    /// COPY data, after [`Event::CopyIn`].
    pub async fn send_copy_data(&mut self, data: &[u8]) -> Result<(), ClientError> {
        let mut message = BytesMut::with_capacity(data.len() + 8);
        frontend::CopyData::new(data)?.write(&mut message);
        Ok(self.stream.write_all(&message).await?)
    }

    /// The end of COPY data; with a reason, the COPY fails.
    pub async fn end_copy(&mut self, failure: Option<&str>) -> Result<(), ClientError> {
        let mut message = BytesMut::new();
        match failure {
            None => frontend::copy_done(&mut message),
            Some(reason) => frontend::copy_fail(reason, &mut message)?,
        }
        Ok(self.stream.write_all(&message).await?)
    }

    /// What a prompt shows of the transaction block, as psql's does: `*` in one, `!` in a failed
    /// one.
    pub fn transaction_mark(&self) -> &'static str {
        match self.transaction {
            b'T' => "*",
            b'E' => "!",
            _ => "",
        }
    }

    /// The next thing the server says. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the connection is gone; what the server refuses comes as [`Event::Error`].
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        loop {
            match self.next_message().await? {
                Message::RowDescription(body) => {
                    let columns = body.fields().map(|field| {
                        Ok(Column { name: field.name().to_owned(), type_oid: field.type_oid() })
                    });
                    return Ok(Event::Columns(columns.collect()?));
                }
                Message::DataRow(body) => return Ok(Event::Row(row(&body)?)),
                Message::CommandComplete(body) => {
                    return Ok(Event::Complete(body.tag()?.to_owned()));
                }
                Message::EmptyQueryResponse => return Ok(Event::Empty),
                Message::ErrorResponse(body) => {
                    return Ok(Event::Error(server_message(body.fields())?));
                }
                Message::NoticeResponse(body) => {
                    return Ok(Event::Notice(server_message(body.fields())?));
                }
                Message::CopyInResponse(_) => return Ok(Event::CopyIn),
                Message::CopyData(body) => return Ok(Event::CopyOut(body.into_bytes())),
                Message::ReadyForQuery(body) => {
                    self.transaction = body.status();
                    return Ok(Event::Ready);
                }
                // What needs no answer and tells a person nothing.
                _ => {}
            }
        }
    }

    /// Runs a query and gives its rows; for the shell's own questions to the catalog.
    ///
    /// # Errors
    /// The first error of the server, or of the connection.
    pub async fn query(&mut self, sql: &str) -> Result<QueryResult, ClientError> {
        self.send(sql).await?;
        let mut result = QueryResult::default();
        let mut failure = None;
        loop {
            match self.next().await? {
                Event::Columns(columns) => result.columns = columns,
                Event::Row(row) => result.rows.push(row),
                Event::Error(message) => failure = failure.or(Some(message)),
                Event::CopyIn => self.end_copy(Some("no data")).await?,
                Event::Ready => break,
                _ => {}
            }
        }
        match failure {
            None => Ok(result),
            Some(message) => Err(ClientError::Server(Box::new(message))),
        }
    }

    async fn authenticate(&mut self, target: &Target) -> Result<(), ClientError> {
        loop {
            match self.next_message().await? {
                Message::AuthenticationOk => return Ok(()),
                Message::AuthenticationCleartextPassword => {
                    self.send_password(password(target)?).await?;
                }
                Message::AuthenticationMd5Password(body) => {
                    let hash = md5_hash(target.user.as_bytes(), password(target)?, body.salt());
                    self.send_password(hash.as_bytes()).await?;
                }
                Message::AuthenticationSasl(body) => {
                    if !body.mechanisms().any(|name| Ok(name == sasl::SCRAM_SHA_256))? {
                        return Err(unsupported("an authentication method").into());
                    }
                    self.authenticate_scram(password(target)?).await?;
                }
                Message::ErrorResponse(body) => {
                    return Err(ClientError::Server(Box::new(server_message(body.fields())?)));
                }
                Message::NoticeResponse(_) => {}
                _ => return Err(unsupported("an authentication method").into()),
            }
        }
    }

    async fn authenticate_scram(&mut self, password: &[u8]) -> Result<(), ClientError> {
        let mut scram = sasl::ScramSha256::new(password, sasl::ChannelBinding::unsupported());
        let mut message = BytesMut::new();
        frontend::sasl_initial_response(sasl::SCRAM_SHA_256, scram.message(), &mut message)?;
        self.stream.write_all(&message).await?;
        loop {
            match self.next_message().await? {
                Message::AuthenticationSaslContinue(body) => {
                    scram.update(body.data())?;
                    let mut message = BytesMut::new();
                    frontend::sasl_response(scram.message(), &mut message)?;
                    self.stream.write_all(&message).await?;
                }
                Message::AuthenticationSaslFinal(body) => return Ok(scram.finish(body.data())?),
                Message::ErrorResponse(body) => {
                    return Err(ClientError::Server(Box::new(server_message(body.fields())?)));
                }
                _ => return Err(unsupported("an answer during authentication").into()),
            }
        }
    }

    async fn send_password(&mut self, password: &[u8]) -> Result<(), ClientError> {
        let mut message = BytesMut::new();
        frontend::password_message(password, &mut message)?;
        Ok(self.stream.write_all(&message).await?)
    }

    /// Reads what the server tells of itself, up to the first ReadyForQuery.
    async fn finish_startup(&mut self) -> Result<(), ClientError> {
        loop {
            match self.next_message().await? {
                Message::BackendKeyData(body) => {
                    self.canceller.process_id = body.process_id();
                    self.canceller.secret_key = body.secret_key();
                }
                Message::ParameterStatus(body) if body.name()? == "server_version" => {
                    self.server_version = body.value()?.to_owned();
                }
                Message::ErrorResponse(body) => {
                    return Err(ClientError::Server(Box::new(server_message(body.fields())?)));
                }
                Message::ReadyForQuery(body) => {
                    self.transaction = body.status();
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    async fn next_message(&mut self) -> Result<Message, ClientError> {
        loop {
            if let Some(message) = Message::parse(&mut self.received)? {
                return Ok(message);
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                let error = io::Error::new(io::ErrorKind::UnexpectedEof, "the server hung up");
                return Err(ClientError::Connection(error));
            }
        }
    }
}

/// All of a query's rows, as text.
#[derive(Debug, Default)]
pub struct QueryResult {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Option<String>>>,
}

impl Canceller {
    /// Asks the server, over a connection of its own, to stop what runs. Whether it did is seen
    /// in the statement's end only.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn cancel(&self) -> io::Result<()> {
        let mut stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let mut message = BytesMut::new();
        frontend::cancel_request(self.process_id, self.secret_key, &mut message);
        stream.write_all(&message).await?;
        stream.shutdown().await
    }
}

fn password(target: &Target) -> io::Result<&[u8]> {
    target.password.as_deref().ok_or_else(|| {
        io::Error::new(io::ErrorKind::PermissionDenied, "the server wants a password")
    })
}

fn unsupported(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("the server wants {what} that the shell does not have"),
    )
}

fn row(body: &DataRowBody) -> io::Result<Vec<Option<String>>> {
    let bytes = body.buffer();
    let value = |range: Option<std::ops::Range<usize>>| {
        Ok(range.map(|range| String::from_utf8_lossy(&bytes[range]).into_owned()))
    };
    body.ranges().map(value).collect()
}

fn server_message(mut fields: ErrorFields<'_>) -> io::Result<ServerMessage> {
    let mut message = ServerMessage::default();
    while let Some(field) = fields.next()? {
        let text = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            // The localised severity; `V` is the same in English, where the server sends it.
            b'S' if message.severity.is_empty() => message.severity = text,
            b'V' => message.severity = text,
            b'C' => message.sqlstate = text,
            b'M' => message.message = text,
            b'D' => message.detail = Some(text),
            b'H' => message.hint = Some(text),
            b'P' => message.position = text.parse().ok(),
            _ => {}
        }
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let target = Target::parse("postgres://ann:secret@db.example:5000/shop").unwrap();
        assert_eq!((target.host.as_str(), target.port), ("db.example", 5000));
        assert_eq!((target.user.as_str(), target.database.as_str()), ("ann", "shop"));
        assert_eq!(target.password.as_deref(), Some(b"secret".as_slice()));
        assert!(!target.is_local());

        let target = Target::parse("postgres://localhost").unwrap();
        assert_eq!((target.port, target.database.as_str()), (7432, "millstream"));
        assert!(target.is_local());
        assert!(Target::parse("host=127.0.0.1 port=1").unwrap().is_local());
        assert_eq!(Target::parse("postgres://h:port/").unwrap_err().sqlstate().0, "22023");
    }

    /// What a server that says `bytes` after the start-up message looks like to the client.
    async fn connect_to_script(bytes: &'static [u8]) -> Result<(Client, Vec<Event>), ClientError> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::at(listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            // In pieces, as a network may: messages are cut anywhere.
            for piece in bytes.chunks(3) {
                stream.write_all(piece).await.unwrap();
                stream.flush().await.unwrap();
                tokio::task::yield_now().await;
            }
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        });
        let mut client = Client::connect(&target).await?;
        let mut events = Vec::new();
        loop {
            match client.next().await? {
                Event::Ready => return Ok((client, events)),
                event => events.push(event),
            }
        }
    }

    #[tokio::test]
    async fn messages_become_events() {
        let (client, events) = connect_to_script(
            b"R\0\0\0\x08\0\0\0\0\
              S\0\0\0\x16server_version\x0018\0\
              K\0\0\0\x0c\0\0\0\x07\0\0\0\x09\
              Z\0\0\0\x05I\
              T\0\0\0\x1a\0\x01n\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0\
              D\0\0\0\x0c\0\x01\0\0\0\x0242\
              D\0\0\0\x0a\0\x01\xff\xff\xff\xff\
              C\0\0\0\x0dSELECT 2\0\
              E\0\0\0\x1dSERROR\0C42P01\0Mno t\0P15\0\0\
              Z\0\0\0\x05I",
        )
        .await
        .unwrap();
        assert_eq!(client.canceller.process_id, 7);
        assert_eq!(client.canceller.secret_key, 9);
        let [
            Event::Columns(columns),
            Event::Row(first),
            Event::Row(second),
            Event::Complete(tag),
            Event::Error(error),
        ] = events.as_slice()
        else {
            panic!("{events:?}")
        };
        assert_eq!(columns, &[Column { name: "n".into(), type_oid: 23 }]);
        assert_eq!(first, &[Some("42".to_owned())]);
        assert_eq!(second, &[None]);
        assert_eq!(tag, "SELECT 2");
        assert_eq!((error.sqlstate.as_str(), error.position), ("42P01", Some(15)));
    }

    #[tokio::test]
    async fn a_refused_or_dropped_connection_is_an_error() {
        let refused = connect_to_script(b"E\0\0\0\x1aSFATAL\0C3D000\0Mno db\0\0").await;
        let Err(ClientError::Server(message)) = refused else { panic!("must be refused") };
        assert_eq!((message.severity.as_str(), message.sqlstate.as_str()), ("FATAL", "3D000"));
        let password = connect_to_script(b"R\0\0\0\x08\0\0\0\x03").await;
        assert!(matches!(password, Err(ClientError::Connection(_))));
    }
}
