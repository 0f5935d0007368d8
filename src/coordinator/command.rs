//! The only door: what a client may ask of the server, and the answers.
//!
//! A [`Database`] is the running server; a [`Connection`] is one client's place in it: its
//! database, settings, transaction and prepared statements' plans. The frontend turns bytes into
//! calls of these and [`Response`]s into bytes; it knows nothing else of the server.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use futures::stream::BoxStream;
use tokio::sync::{mpsc, oneshot};

use crate::types::error::Result;
use crate::types::sql_type::SqlType;

/// A result's rows, batch by batch. Dropping it stops the query.
pub type RowStream = BoxStream<'static, Result<RecordBatch>>;

/// One statement of a text, ready to be prepared. (Its syntax tree is `sql`'s own.)
#[derive(Clone, Debug)]
pub struct Statement {
    pub(crate) parsed: Arc<crate::sql::parse::Parsed>,
}

impl Statement {
    /// The statement's text, without the semicolon.
    pub fn sql(&self) -> &str {
        &self.parsed.sql
    }

    /// Characters before it in the text that was parsed: error positions count from there.
    pub fn offset_chars(&self) -> usize {
        self.parsed.offset_chars
    }
}

/// A statement whose names and types are known.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub statement: Statement,
    /// `$1`, `$2`, ...
    pub parameters: Vec<SqlType>,
    /// The columns of the rows that it returns; `None` when it returns none.
    pub columns: Option<SchemaRef>,
}

/// What running a statement gives.
pub enum Response {
    /// Rows, then the tag with `{}` replaced by their number (`SELECT {}`, `INSERT 0 {}`).
    Rows { schema: SchemaRef, rows: RowStream, tag: String },
    /// No rows; the command tag as Postgres prints it (`CREATE TABLE`, `INSERT 0 5`).
    Done { tag: String },
    /// The empty statement.
    Empty,
    /// `COPY ... FROM STDIN`: the client sends data until it is done.
    CopyIn(CopyIn),
    /// `COPY ... TO STDOUT`.
    CopyOut { schema: SchemaRef, rows: RowStream, format: CopyFormat },
}

/// Rows on their way into a table.
pub struct CopyIn {
    /// The columns that are sent, in order.
    pub schema: SchemaRef,
    pub format: CopyFormat,
    /// Parsed rows go here, bounded; dropping it without [`CopyIn::finish`] aborts the copy.
    pub rows: mpsc::Sender<RecordBatch>,
    /// Sent by the frontend when the client is done.
    pub finish: oneshot::Sender<()>,
    /// Resolves to the number of rows once they are committed.
    pub done: oneshot::Receiver<Result<u64>>,
}

/// How COPY data looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFormat {
    pub kind: CopyKind,
    pub delimiter: u8,
    /// The text that stands for NULL: `\N` in text, empty in csv.
    pub null: String,
    /// First line holds names.
    pub header: bool,
    /// csv only.
    pub quote: u8,
    /// csv only.
    pub escape: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyKind {
    Text,
    Csv,
}

/// A message beside the result (NOTICE, WARNING).
#[derive(Clone, Debug)]
pub struct Notice {
    pub severity: &'static str,
    pub sqlstate: &'static str,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

/// For ReadyForQuery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    Idle,
    InTransaction,
    Failed,
}

/// A parameter's value: an array of one element of the parameter's type.
pub type Value = ArrayRef;

/// The running server, as clients see it. Cheap to clone.
#[derive(Clone)]
pub struct Database {}

/// Who connects, and to what.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    pub database: String,
    pub user: String,
    /// Settings of the startup packet (`application_name`, `options`, ...).
    pub settings: Vec<(String, String)>,
}

impl Database {
    /// Opens a connection.
    ///
    /// # Errors
    /// When the database does not exist (SQLSTATE 3D000).
    pub async fn connect(&self, _options: ConnectOptions) -> Result<Connection> {
        todo!()
    }
}

/// One client's place in the server. Used by one task at a time.
pub struct Connection {}

/// Cancels what its connection is running; may be used from anywhere, any number of times.
#[derive(Clone)]
pub struct CancelHandle {}

impl CancelHandle {
    /// The running statement ends with SQLSTATE 57014; nothing happens when none runs.
    pub fn cancel(&self) {
        todo!()
    }
}

impl Connection {
    /// Splits and parses a text of statements.
    ///
    /// # Errors
    /// SQLSTATE 42601 with the position in `sql`.
    pub fn parse(&self, _sql: &str) -> Result<Vec<Statement>> {
        todo!()
    }

    /// Resolves names and types. `parameter_types` are what the client declared for `$1`, ...;
    /// missing ones are inferred.
    pub async fn prepare(
        &mut self,
        _statement: &Statement,
        _parameter_types: &[Option<SqlType>],
    ) -> Result<Prepared> {
        todo!()
    }

    /// Runs a prepared statement with a value for each parameter.
    ///
    /// An error leaves the connection usable; inside a transaction block it fails the block.
    pub async fn execute(&mut self, _prepared: &Prepared, _values: &[Value]) -> Result<Response> {
        todo!()
    }

    pub fn begin_implicit_block(&mut self) { todo!() }
    pub fn process_id(&self) -> i32 { todo!() }
    /// The end of an implicit transaction: a simple query message, or Sync.
    pub async fn sync(&mut self) -> Result<()> {
        todo!()
    }

    /// Tells the connection that its last statement failed in the frontend (bad parameter bytes,
    /// a failed row stream), so that an open transaction block fails.
    pub fn fail_transaction(&mut self) {
        todo!()
    }

    pub fn transaction_status(&self) -> TransactionStatus {
        todo!()
    }

    /// Notices since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        todo!()
    }

    /// Settings that clients are told of (ParameterStatus) and that changed since the last call;
    /// the first call gives all of them.
    pub fn take_parameter_changes(&mut self) -> Vec<(String, String)> {
        todo!()
    }

    /// The value of a setting (`TimeZone`, `IntervalStyle`, `bytea_output`, ...).
    pub fn setting(&self, _name: &str) -> Option<String> {
        todo!()
    }

    pub fn cancel_handle(&self) -> CancelHandle {
        todo!()
    }
}
