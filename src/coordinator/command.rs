//! The only door: what a client may ask of the server, and the answers.
//!
//! A [`Database`] is the running server; a [`Connection`] is one client's place in it: its
//! database, settings, transaction and prepared statements' plans. The frontend turns bytes into
//! calls of these and [`Response`]s into bytes; it knows nothing else of the server.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use tokio::sync::{mpsc, oneshot};

use crate::catalog::snapshot::no_database;
use crate::coordinator::batch::BatchThreads;
use crate::coordinator::copy::CopySlot;
use crate::coordinator::cursor::Cursor;
use crate::coordinator::event_loop::Coordinator;
use crate::coordinator::execute::PreparedPlan;
use crate::coordinator::running::CancelState;
use crate::coordinator::savepoint_rows::ReadSavepoints;
use crate::coordinator::settings::{SETTINGS, Settings};
use crate::coordinator::transaction::Block;
use crate::observe::clock::Clock;
use crate::sql::query_memory::QueryEnvironment;
use crate::types::error::Result;
use crate::types::sql_type::SqlType;

/// Notices kept for a client that has not been answered yet; the rest are dropped.
const NOTICES_MAX: usize = 100;

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
#[derive(Clone)]
pub struct Prepared {
    pub statement: Statement,
    /// `$1`, `$2`, ...
    pub parameters: Vec<SqlType>,
    /// The columns of the rows that it returns; `None` when it returns none.
    pub columns: Option<SchemaRef>,
    pub(super) plan: Arc<PreparedPlan>,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared")
            .field("sql", &self.statement.sql())
            .field("parameters", &self.parameters)
            .field("columns", &self.columns)
            .finish_non_exhaustive()
    }
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

impl Notice {
    /// Something the user may want to know: `severity` NOTICE.
    pub(super) fn note(sqlstate: &'static str, message: impl Into<String>) -> Notice {
        Notice { severity: "NOTICE", sqlstate, message: message.into(), detail: None, hint: None }
    }

    /// Something the user did not expect: `severity` WARNING.
    pub(super) fn warning(sqlstate: &'static str, message: impl Into<String>) -> Notice {
        Notice { severity: "WARNING", sqlstate, message: message.into(), detail: None, hint: None }
    }
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
pub struct Database {
    pub(super) inner: Arc<DatabaseInner>,
}

pub(super) struct DatabaseInner {
    pub coordinator: Coordinator,
    pub batch: BatchThreads,
    clock: Clock,
    /// The connections there are, by process id.
    sessions: Mutex<BTreeMap<i32, Arc<SessionShared>>>,
    next_process_id: AtomicI32,
    next_transaction_id: AtomicI64,
}

/// Who connects, and to what.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    pub database: String,
    pub user: String,
    /// Settings of the startup packet (`application_name`, `options`, ...).
    pub settings: Vec<(String, String)>,
}

/// The part of a connection that others look at: functions in its queries, `pg_stat_activity`.
pub(super) struct SessionShared {
    pub process_id: i32,
    pub database: String,
    pub user: String,
    pub connected_at: DateTime<Utc>,
    settings: Mutex<Settings>,
    activity: Mutex<Activity>,
    notices: Mutex<Vec<Notice>>,
    pub cancel: CancelState,
    /// Of the transaction that is under way, or was the last: what `txid_current()` says.
    pub transaction_id: AtomicI64,
}

/// What a connection is doing.
#[derive(Clone, Default)]
pub(super) struct Activity {
    pub started_at: Option<DateTime<Utc>>,
    /// As `pg_stat_activity` names it.
    pub state: &'static str,
    /// The running or last statement.
    pub query: String,
}

impl SessionShared {
    pub fn settings(&self) -> MutexGuard<'_, Settings> {
        // Every change is one map operation, so a panic elsewhere cannot have left half of one.
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn activity(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_notices(&self) -> MutexGuard<'_, Vec<Notice>> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the client something, with the next answer.
    pub fn notify(&self, notice: Notice) {
        let mut notices = self.lock_notices();
        if notices.len() < NOTICES_MAX {
            notices.push(notice);
        }
    }
}

impl Database {
    /// A door to the server whose coordinator runs already.
    ///
    /// # Errors
    /// When the threads for queries cannot be started.
    pub fn new(coordinator: Coordinator, clock: Clock) -> Result<Database> {
        let environment = QueryEnvironment::new(coordinator.config().memory.clone())?;
        Ok(Database {
            inner: Arc::new(DatabaseInner {
                coordinator,
                batch: BatchThreads::start(environment)?,
                clock,
                sessions: Mutex::default(),
                next_process_id: AtomicI32::new(1),
                next_transaction_id: AtomicI64::new(1),
            }),
        })
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// When the database does not exist (SQLSTATE 3D000) or a setting is wrong.
    pub async fn connect(&self, options: ConnectOptions) -> Result<Connection> {
        if self.inner.coordinator.catalog().schemas(&options.database).is_none() {
            return Err(no_database(&options.database));
        }
        let settings = Settings::at_startup(&options.user, &options.settings)?;
        let session = Arc::new(SessionShared {
            process_id: self.inner.next_process_id.fetch_add(1, Ordering::Relaxed),
            database: options.database,
            user: options.user,
            connected_at: self.inner.now(),
            settings: Mutex::new(settings),
            activity: Mutex::new(Activity { state: "idle", ..Activity::default() }),
            notices: Mutex::default(),
            cancel: CancelState::default(),
            transaction_id: AtomicI64::new(0),
        });
        self.inner.register(session.clone());
        Ok(Connection {
            database: self.inner.clone(),
            session,
            transaction: None,
            prepared: BTreeMap::new(),
            cursors: BTreeMap::new(),
            copy: None,
            savepoints: Arc::default(),
            reported: BTreeMap::new(),
        })
    }
}

impl DatabaseInner {
    fn register(&self, session: Arc<SessionShared>) {
        self.lock_sessions().insert(session.process_id, session);
    }

    fn lock_sessions(&self) -> MutexGuard<'_, BTreeMap<i32, Arc<SessionShared>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time of day.
    pub fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.clock.now().0).unwrap_or_default()
    }

    /// For measuring.
    pub fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    /// The connections there are.
    pub fn sessions(&self) -> Vec<Arc<SessionShared>> {
        self.lock_sessions().values().cloned().collect()
    }
}

/// One client's place in the server. Used by one task at a time.
pub struct Connection {
    pub(super) database: Arc<DatabaseInner>,
    pub(super) session: Arc<SessionShared>,
    pub(super) transaction: Option<Block>,
    /// Statements of PREPARE.
    pub(super) prepared: BTreeMap<String, Prepared>,
    pub(super) cursors: BTreeMap<String, Cursor>,
    /// A COPY FROM STDIN of the open transaction block that the frontend may be feeding.
    pub(super) copy: Option<CopySlot>,
    /// What its newest statement of that kind reads of savepoints.
    pub(super) savepoints: Arc<ReadSavepoints>,
    /// Settings as the client knows them.
    reported: BTreeMap<&'static str, String>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.database.lock_sessions().remove(&self.session.process_id);
    }
}

/// Cancels what its connection is running; may be used from anywhere, any number of times.
#[derive(Clone)]
pub struct CancelHandle {
    cancel: CancelState,
}

impl CancelHandle {
    /// The running statement ends with SQLSTATE 57014; nothing happens when none runs.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }
}

impl Connection {
    /// Splits and parses a text of statements.
    ///
    /// # Errors
    /// SQLSTATE 42601 with the position in `sql`.
    pub fn parse(&self, sql: &str) -> Result<Vec<Statement>> {
        let parsed = crate::sql::parse::parse(sql)?;
        Ok(parsed.into_iter().map(|parsed| Statement { parsed: Arc::new(parsed) }).collect())
    }

    /// Resolves names and types. `parameter_types` are what the client declared for `$1`, ...;
    /// missing ones are inferred.
    ///
    /// # Errors
    /// Whatever is wrong with the statement; inside a transaction block it fails the block.
    pub async fn prepare(
        &mut self,
        statement: &Statement,
        parameter_types: &[Option<SqlType>],
    ) -> Result<Prepared> {
        let prepared = match self.load_savepoints(&statement.parsed.sql).await {
            Ok(()) => self.prepare_statement(statement, parameter_types),
            Err(error) => Err(error),
        };
        if prepared.is_err() {
            self.fail_transaction();
        }
        prepared
    }

    /// Runs a prepared statement with a value for each parameter.
    ///
    /// # Errors
    /// An error leaves the connection usable; inside a transaction block it fails the block.
    pub async fn execute(&mut self, prepared: &Prepared, values: &[Value]) -> Result<Response> {
        let response = self.execute_prepared(prepared, values).await;
        if response.is_err() {
            self.fail_transaction();
        }
        response
    }

    /// Before the statements of one simple query message, when there are several: they are one
    /// transaction until [`Connection::sync`], as in Postgres. What cannot run in a transaction
    /// (CREATE, DROP, SUBSCRIBE, ...) commits what came before it.
    pub fn begin_implicit_block(&mut self) {
        if self.transaction.is_none() {
            self.number_transaction();
            let block = Block::new(true, self.database.now(), &self.session.settings());
            self.transaction = Some(block);
        }
    }

    /// A number for the transaction that begins.
    pub(super) fn number_transaction(&self) {
        let id = self.database.next_transaction_id.fetch_add(1, Ordering::Relaxed);
        self.session.transaction_id.store(id, Ordering::Relaxed);
    }

    /// The end of an implicit transaction: a simple query message, or Sync.
    ///
    /// # Errors
    /// When the implicit transaction cannot be committed.
    pub async fn sync(&mut self) -> Result<()> {
        let implicit = self.transaction.as_ref().is_some_and(|block| block.implicit);
        let result = if implicit { self.commit().await.map(|_| ()) } else { Ok(()) };
        self.session.cancel.idle();
        let mut activity = self.session.activity();
        activity.state = match self.transaction_status() {
            TransactionStatus::Idle => "idle",
            TransactionStatus::InTransaction => "idle in transaction",
            TransactionStatus::Failed => "idle in transaction (aborted)",
        };
        result
    }

    /// Tells the connection that its last statement failed in the frontend (bad parameter bytes,
    /// a failed row stream), so that an open transaction block fails.
    pub fn fail_transaction(&mut self) {
        self.copy = None;
        if let Some(block) = &mut self.transaction {
            block.fail();
        }
    }

    pub fn transaction_status(&self) -> TransactionStatus {
        match &self.transaction {
            Some(block) if block.implicit => TransactionStatus::Idle,
            Some(block) if block.failed() => TransactionStatus::Failed,
            Some(_) => TransactionStatus::InTransaction,
            None => TransactionStatus::Idle,
        }
    }

    /// Notices since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut *self.session.lock_notices())
    }

    /// Settings that clients are told of (ParameterStatus) and that changed since the last call;
    /// the first call gives all of them.
    pub fn take_parameter_changes(&mut self) -> Vec<(String, String)> {
        let mut changes = Vec::new();
        let settings = self.session.settings();
        for spec in SETTINGS.iter().filter(|spec| spec.reported) {
            let value = settings.get(spec.name).unwrap_or(spec.default);
            if self.reported.get(spec.name).is_none_or(|known| known != value) {
                self.reported.insert(spec.name, value.to_owned());
                changes.push((spec.name.to_owned(), value.to_owned()));
            }
        }
        changes
    }

    /// The value of a setting (`TimeZone`, `IntervalStyle`, `bytea_output`, ...).
    pub fn setting(&self, name: &str) -> Option<String> {
        self.session.settings().get(name).ok().map(str::to_owned)
    }

    /// The columns of an open cursor (DECLARE), which is a portal to the protocol.
    pub fn cursor_columns(&self, name: &str) -> Option<SchemaRef> {
        self.cursors.get(name).map(|cursor| cursor.schema.clone())
    }

    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle { cancel: self.session.cancel.clone() }
    }

    /// What `pg_backend_pid()` says, and what BackendKeyData should.
    pub fn process_id(&self) -> i32 {
        self.session.process_id
    }
}
