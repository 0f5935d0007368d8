//! The statements of Millstream, one variant each. `sql::parse` makes them.
//!
//! Names are folded (lower case unless quoted) and types are resolved to [`SqlType`]; queries and
//! DML keep sqlparser's tree, because DataFusion plans from it. Every text that the catalog
//! stores (a view's query, a DEFAULT, a watermark) stands beside its tree as the user wrote it.
//!
//! Positions are 1-based characters in the text of the statement ([`Parsed::sql`]); so are, as
//! line and column, the spans in sqlparser's trees ([`Parsed::position_of`]).
//!
//! [`Parsed::sql`]: crate::sql::parse::Parsed::sql
//! [`Parsed::position_of`]: crate::sql::parse::Parsed::position_of

use std::fmt;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast;

use crate::sql::parse::Parsed;
use crate::sql::parse::name::{normalize, quote_ident};
use crate::types::sql_type::{Modifier, SqlType};

/// One statement.
#[derive(Clone, Debug)]
pub enum Statement {
    /// SELECT, VALUES, TABLE, WITH ... SELECT. The text is the statement's.
    Query(Box<ast::Query>),

    // Data definition.
    CreateSource(Box<CreateSource>),
    CreateTable(Box<CreateTable>),
    CreateView(Box<CreateView>),
    CreateMaterializedView(Box<CreateMaterializedView>),
    CreateSink(Box<CreateSink>),
    CreateSchema(CreateSchema),
    CreateDatabase(CreateDatabase),
    CreateIndex(Box<CreateIndex>),
    /// `CREATE SAVEPOINT name`: a checkpoint with a name (not SAVEPOINT of a transaction).
    CreateSavepoint(CreateSavepoint),
    Transfer(Transfer),
    Drop(DropObjects),
    Alter(Alter),
    CommentOn(CommentOn),

    // Data change.
    /// With ON CONFLICT and RETURNING.
    Insert(Box<ast::Insert>),
    /// With FROM and RETURNING.
    Update(Box<ast::Update>),
    /// With USING and RETURNING.
    Delete(Box<ast::Delete>),
    Truncate(Truncate),
    ReplayLate(Box<ReplayLate>),
    Copy(Box<CopyData>),

    // Reading.
    Subscribe(Box<Subscribe>),
    Explain(Box<Explain>),
    Show(Show),
    /// `DESCRIBE name`, `DESC name`.
    Describe(Name),
    /// `VERIFY MATERIALIZED VIEW name`: recompute and compare.
    VerifyMaterializedView(Name),

    // Settings.
    Set(Set),
    /// `SET TRANSACTION modes`: for the current transaction.
    SetTransaction(TransactionModes),
    /// `SET SESSION CHARACTERISTICS AS TRANSACTION modes`: for the ones to come.
    SetSessionCharacteristics(TransactionModes),
    /// `RESET name`.
    Reset(String),
    ResetAll,
    Discard(Discard),

    // Transactions.
    /// BEGIN, START TRANSACTION.
    Begin(TransactionModes),
    /// COMMIT, END.
    Commit {
        chain: bool,
    },
    /// ROLLBACK, ABORT.
    Rollback {
        chain: bool,
    },
    Savepoint(String),
    ReleaseSavepoint(String),
    RollbackTo(String),
    /// Waits until everything acknowledged before is visible everywhere.
    Flush,
    /// Makes the present epoch durable, and waits for it.
    Checkpoint,

    /// `UNLISTEN name | *`: connection pools say it when a connection comes back. Nobody listens.
    Unlisten,

    // Prepared statements and cursors.
    Prepare(Box<Prepare>),
    Execute(Box<Execute>),
    /// `DEALLOCATE name`; `None`: ALL.
    Deallocate(Option<String>),
    DeclareCursor(Box<DeclareCursor>),
    /// FETCH and MOVE.
    Fetch(Box<Fetch>),
    /// `CLOSE name`; `None`: ALL.
    CloseCursor(Option<String>),
}

/// `[[database.]schema.]name`, folded.
#[derive(Clone, PartialEq, Eq)]
pub struct Name {
    pub database: Option<String>,
    pub schema: Option<String>,
    pub name: String,
    /// Where it begins.
    pub position: usize,
}

/// An expression with its text.
#[derive(Clone, PartialEq)]
pub struct Expression {
    pub ast: ast::Expr,
    /// As the user wrote it.
    pub sql: String,
    /// Where it begins.
    pub position: usize,
}

impl Expression {
    /// The name that it is, if it is nothing else, folded as names are.
    pub fn as_name(&self) -> Option<String> {
        match &self.ast {
            ast::Expr::Identifier(name) => Some(normalize(name)),
            _ => None,
        }
    }
}

/// A query with its text.
#[derive(Clone, PartialEq)]
pub struct QueryText {
    pub ast: Box<ast::Query>,
    /// As the user wrote it, without EMIT.
    pub sql: String,
    /// Where it begins.
    pub position: usize,
}

/// One `name = value` of a WITH clause.
#[derive(Clone, PartialEq, Eq)]
pub struct WithOption {
    /// Lower case; parts joined by dots.
    pub name: String,
    /// A string's content; a number, word or interval as its text. `true` for a bare name.
    pub value: String,
    /// Where the name begins.
    pub position: usize,
}

/// A column of CREATE TABLE or CREATE SOURCE.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnDef {
    pub name: String,
    /// `None`: that of the generation expression (`c AS expr`).
    pub sql_type: Option<SqlType>,
    /// Such as the n of `varchar(n)`.
    pub modifier: Option<Modifier>,
    /// NOT NULL, or a column of the primary key.
    pub not_null: bool,
    pub default: Option<Expression>,
    /// `GENERATED ALWAYS AS (expr) [STORED | VIRTUAL]`, `c AS expr`, `c type AS expr`.
    pub generated: Option<Expression>,
    /// `COMMENT 'text'`, as in Flink.
    pub comment: Option<String>,
    /// Where its definition begins.
    pub position: usize,
}

/// PRIMARY KEY of a column or a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrimaryKey {
    /// Columns of the definition, each once.
    pub columns: Vec<String>,
    /// Flink's `NOT ENFORCED`.
    pub not_enforced: bool,
    pub position: usize,
}

/// `WATERMARK FOR column AS expression`.
#[derive(Clone, Debug, PartialEq)]
pub struct Watermark {
    /// A column of the definition.
    pub column: String,
    pub expression: Expression,
    pub position: usize,
}

/// RisingWave's `FORMAT PLAIN ENCODE JSON (...)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatClause {
    /// Lower case: `plain`, `upsert`, `debezium`, ...
    pub format: String,
    /// Lower case: `json`, `csv`, `avro`, ...
    pub encode: String,
    pub options: Vec<WithOption>,
    pub position: usize,
}

/// `CREATE SOURCE`, or `CREATE TABLE` with a `connector` option as in Flink.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateSource {
    pub name: Name,
    pub or_replace: bool,
    pub if_not_exists: bool,
    /// Empty: the connector's own columns.
    pub columns: Vec<ColumnDef>,
    pub primary_key: Option<PrimaryKey>,
    pub watermark: Option<Watermark>,
    /// As given; see [`CreateSource::option_pairs`].
    pub options: Vec<WithOption>,
    pub format: Option<FormatClause>,
    /// `COMMENT 'text'`.
    pub comment: Option<String>,
    /// It was spelled CREATE TABLE: the command tag is that.
    pub spelled_table: bool,
}

/// `CREATE TABLE` without a connector.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateTable {
    pub name: Name,
    pub or_replace: bool,
    pub if_not_exists: bool,
    /// Empty or, with `query`, names only when `query` gives the columns.
    pub columns: Vec<ColumnDef>,
    pub primary_key: Option<PrimaryKey>,
    pub watermark: Option<Watermark>,
    pub append_only: bool,
    /// `ON CONFLICT ...` at the end; `WITH (on_conflict = ...)` stands in `options`.
    pub on_conflict: Option<OnConflict>,
    pub options: Vec<WithOption>,
    /// `COMMENT 'text'`.
    pub comment: Option<String>,
    /// CREATE TABLE AS.
    pub query: Option<QueryText>,
    /// False for CREATE TABLE AS ... WITH NO DATA.
    pub with_data: bool,
}

/// What an INSERT without ON CONFLICT does with a key that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// `ON CONFLICT OVERWRITE`, `ON CONFLICT DO UPDATE FULL`.
    Update,
    /// `ON CONFLICT DO NOTHING`, `ON CONFLICT IGNORE`.
    Ignore,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CreateView {
    pub name: Name,
    pub or_replace: bool,
    pub if_not_exists: bool,
    /// Names for the query's first columns; may be fewer.
    pub columns: Vec<String>,
    pub options: Vec<WithOption>,
    pub query: QueryText,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CreateMaterializedView {
    pub name: Name,
    pub or_replace: bool,
    pub if_not_exists: bool,
    /// Names for the query's first columns; may be fewer.
    pub columns: Vec<String>,
    pub options: Vec<WithOption>,
    pub query: QueryText,
    pub emit: Emit,
}

/// When a materialized view's rows come out.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Emit {
    /// No EMIT clause: as `OnUpdate`.
    #[default]
    Unspecified,
    /// `EMIT ON UPDATE [EVERY interval]`, ksqlDB's `EMIT CHANGES`: right at every epoch.
    OnUpdate {
        /// The interval's text, `1 second`.
        every: Option<String>,
    },
    /// `EMIT ON WINDOW CLOSE`, ksqlDB's `EMIT FINAL`: final rows only.
    OnWindowClose,
}

/// `CREATE SINK name FROM relation | AS query WITH (...)`.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateSink {
    pub name: Name,
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub input: SinkInput,
    pub emit: Emit,
    pub options: Vec<WithOption>,
    pub format: Option<FormatClause>,
}

/// What a sink writes.
#[derive(Clone, Debug, PartialEq)]
pub enum SinkInput {
    Relation(Name),
    Query(QueryText),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateSchema {
    pub name: SchemaName,
    pub if_not_exists: bool,
}

/// `[database.]schema`, folded.
#[derive(Clone, PartialEq, Eq)]
pub struct SchemaName {
    pub database: Option<String>,
    pub schema: String,
    pub position: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateDatabase {
    pub name: String,
    /// `FROM SAVEPOINT name`.
    pub from_savepoint: Option<String>,
    pub if_not_exists: bool,
    pub position: usize,
}

/// `CREATE INDEX [name] ON relation (column or expression, ...) [INCLUDE (column, ...)]`.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateIndex {
    /// `None`: to be chosen, as Postgres does.
    pub name: Option<String>,
    pub if_not_exists: bool,
    pub relation: Name,
    pub keys: Vec<IndexKey>,
    pub include: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct IndexKey {
    pub expression: Expression,
    pub descending: bool,
    pub nulls_first: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateSavepoint {
    pub name: String,
    pub if_not_exists: bool,
    pub position: usize,
}

/// `BACKUP TO 'url'`, `EXPORT SAVEPOINT name TO 'url'`, `IMPORT SAVEPOINT name FROM 'url'`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    pub what: TransferWhat,
    /// The other storage.
    pub url: String,
    /// Of the name, or of the URL.
    pub position: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferWhat {
    Backup,
    Export(String),
    Import(String),
}

/// A kind of thing that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noun {
    Source,
    Table,
    View,
    MaterializedView,
    Sink,
    Index,
    Schema,
    Database,
    /// A named checkpoint.
    Savepoint,
}

/// `DROP kind [IF EXISTS] name, ... [CASCADE | RESTRICT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropObjects {
    pub kind: Noun,
    pub if_exists: bool,
    /// At least one. Of a schema, `name` and its `schema` field is the database's place:
    /// see [`DropObjects::schema_name`]; a database or savepoint has only `name`.
    pub names: Vec<Name>,
    pub cascade: bool,
}

/// `ALTER kind [IF EXISTS] name ...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alter {
    pub kind: Noun,
    pub if_exists: bool,
    pub name: Name,
    pub action: AlterAction,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlterAction {
    /// `RENAME TO name`.
    Rename(String),
    /// `RENAME [COLUMN] a TO b`.
    RenameColumn { from: String, to: String },
    /// `SET SCHEMA name`.
    SetSchema(String),
}

/// `COMMENT ON ... IS 'text' | NULL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommentOn {
    pub kind: Noun,
    pub name: Name,
    /// `COMMENT ON COLUMN relation.column`: then `name` is the relation's and `kind` is Table,
    /// whatever kind of relation it is.
    pub column: Option<String>,
    /// `None`: take the comment away.
    pub text: Option<String>,
}

/// `REPLAY LATE name [WHERE condition]`: late rows are taken in again.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayLate {
    pub name: Name,
    /// Over the table of late rows.
    pub condition: Option<ast::Expr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncate {
    /// At least one.
    pub tables: Vec<Name>,
    pub cascade: bool,
}

/// `COPY ... FROM STDIN`, `COPY ... TO STDOUT`.
#[derive(Clone, Debug, PartialEq)]
pub enum CopyData {
    /// FROM STDIN.
    In {
        table: Name,
        /// `None`: all columns, in order.
        columns: Option<Vec<String>>,
        format: CopyFormat,
    },
    /// TO STDOUT of a relation.
    OutRelation { relation: Name, columns: Option<Vec<String>>, format: CopyFormat },
    /// TO STDOUT of a query.
    OutQuery { query: QueryText, format: CopyFormat },
}

/// How COPY data looks, with the format's defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFormat {
    pub kind: CopyKind,
    pub delimiter: u8,
    /// The text that stands for NULL: `\N` in text, empty in csv.
    pub null: String,
    /// The first line holds names.
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

/// `SUBSCRIBE [TO] name | (query) [AS OF expr] [UP TO expr] [WITH (...)]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscribe {
    pub target: SubscribeTarget,
    /// `WITH (PROGRESS)`: also tell of epochs without changes. Default false.
    pub progress: bool,
    /// `WITH (SNAPSHOT = false)`: only what changes from now on. Default true.
    pub snapshot: bool,
    /// Start at this epoch or time.
    pub as_of: Option<Expression>,
    /// Stop before this epoch or time.
    pub up_to: Option<Expression>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum SubscribeTarget {
    Relation(Name),
    Query(QueryText),
}

/// `EXPLAIN [ANALYZE] [VERBOSE] | (option, ...) what`.
#[derive(Clone, Debug)]
pub struct Explain {
    pub analyze: bool,
    pub verbose: bool,
    /// With ANALYZE of a view: each worker by itself, too.
    pub workers: bool,
    pub format: ExplainFormat,
    pub target: ExplainTarget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ExplainFormat {
    #[default]
    Text,
    Json,
    /// A graph for Graphviz.
    Dot,
}

#[derive(Clone, Debug)]
pub enum ExplainTarget {
    /// A query, CREATE MATERIALIZED VIEW, INSERT, ...: a statement of its own, with own text.
    Statement(Arc<Parsed>),
    /// `EXPLAIN MATERIALIZED VIEW name`: its running dataflow.
    MaterializedView(Name),
}

/// SHOW.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Show {
    /// `SHOW TABLES [FROM | IN schema] [LIKE 'pattern']` and the like.
    List {
        what: ShowList,
        /// `None`: the current schema (objects) or database (schemas).
        within: Option<ShowWithin>,
        like: Option<String>,
    },
    /// `SHOW COLUMNS FROM relation [LIKE 'pattern']`.
    Columns { relation: Name, like: Option<String> },
    /// `SHOW CREATE kind name`.
    Create { kind: Noun, name: Name },
    /// `SHOW name`; lower case, `timezone` for TIME ZONE, ...
    Parameter { name: String, position: usize },
    /// `SHOW ALL`.
    All,
}

/// Lists that SHOW knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShowList {
    Tables,
    Sources,
    Views,
    MaterializedViews,
    Sinks,
    Indexes,
    Schemas,
    Databases,
    Connectors,
    Functions,
    Watermarks,
    Savepoints,
    Checkpoints,
}

/// `FROM` or `IN` of SHOW.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShowWithin {
    /// Of objects.
    Schema(SchemaName),
    /// Of SHOW SCHEMAS.
    Database(String),
    /// Of SHOW INDEXES and SHOW WATERMARKS.
    Relation(Name),
}

/// `SET [SESSION | LOCAL] name = | TO value, ...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// SET LOCAL: until the transaction's end.
    pub local: bool,
    /// Lower case; `timezone` for TIME ZONE, `client_encoding` for NAMES, ...
    pub name: String,
    pub value: SetValue,
    /// Where the name begins.
    pub position: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetValue {
    /// DEFAULT (and TIME ZONE LOCAL).
    Default,
    /// At least one: content of strings, text of numbers and words (folded).
    Values(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    All,
    Plans,
    Sequences,
    Temp,
}

/// Modes of a transaction; `None`: as the session has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TransactionModes {
    pub isolation: Option<IsolationLevel>,
    pub read_only: Option<bool>,
    pub deferrable: Option<bool>,
}

/// As asked for; Millstream always gives the strictest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsolationLevel {
    ReadUncommitted,
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

/// `PREPARE name [(type, ...)] AS statement`.
#[derive(Clone, Debug)]
pub struct Prepare {
    pub name: String,
    /// Types of the first parameters; the others are inferred.
    pub parameter_types: Vec<SqlType>,
    /// With its own text.
    pub statement: Arc<Parsed>,
}

/// `EXECUTE name [(expr, ...)]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Execute {
    pub name: String,
    pub arguments: Vec<Expression>,
}

/// `DECLARE name [NO SCROLL] CURSOR [WITH | WITHOUT HOLD] FOR query`.
#[derive(Clone, Debug)]
pub struct DeclareCursor {
    pub name: String,
    pub hold: bool,
    /// A query or SUBSCRIBE, with its own text.
    pub statement: Arc<Parsed>,
}

/// `FETCH | MOVE [direction] [FROM | IN] cursor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    pub cursor: String,
    pub count: FetchCount,
    /// MOVE: pass over the rows.
    pub moves: bool,
    /// `WITH (timeout = '1s')`: how long FETCH of a SUBSCRIBE waits for rows.
    pub timeout: Option<String>,
}

/// Cursors only go forward; other directions are not supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchCount {
    Rows(u64),
    All,
}

impl fmt::Display for Name {
    /// As SQL text that means it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.database, &self.schema].into_iter().flatten() {
            write!(f, "{}.", quote_ident(part))?;
        }
        f.write_str(&quote_ident(&self.name))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self} @{})", self.position)
    }
}

impl fmt::Display for SchemaName {
    /// As SQL text that means it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(database) = &self.database {
            write!(f, "{}.", quote_ident(database))?;
        }
        f.write_str(&quote_ident(&self.schema))
    }
}

impl fmt::Debug for SchemaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SchemaName({self} @{})", self.position)
    }
}

impl fmt::Debug for WithOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={:?} @{}", self.name, self.value, self.position)
    }
}

impl fmt::Debug for Expression {
    /// The tree as SQL; sqlparser's own Debug takes a page for `a + 1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({} @{})", self.ast, self.position)
    }
}

impl fmt::Debug for QueryText {
    /// The tree as SQL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Query({} @{})", self.ast, self.position)
    }
}

impl CreateSource {
    /// The options for the connector, FORMAT ... ENCODE ... folded in as `format` and the
    /// encoding's options.
    pub fn option_pairs(&self) -> Vec<(String, String)> {
        let mut pairs = option_pairs(&self.options);
        if let Some(clause) = &self.format {
            pairs.push(("format".to_owned(), clause.format_name()));
            pairs.extend(option_pairs(&clause.options));
        }
        pairs
    }
}

impl FormatClause {
    /// `json` for `FORMAT PLAIN ENCODE JSON`; otherwise both, as Flink names it:
    /// `debezium-json`.
    pub fn format_name(&self) -> String {
        match self.format.as_str() {
            "plain" => self.encode.clone(),
            format => format!("{format}-{}", self.encode),
        }
    }
}

/// Names and values.
pub fn option_pairs(options: &[WithOption]) -> Vec<(String, String)> {
    options.iter().map(|o| (o.name.clone(), o.value.clone())).collect()
}

impl DropObjects {
    /// A dropped schema's database and name: of a `Name` that was written `[database.]schema`.
    pub fn schema_name(name: &Name) -> SchemaName {
        SchemaName {
            database: name.schema.clone(),
            schema: name.name.clone(),
            position: name.position,
        }
    }
}

impl Noun {
    /// As messages print it: `materialized view`.
    pub fn as_str(self) -> &'static str {
        match self {
            Noun::Source => "source",
            Noun::Table => "table",
            Noun::View => "view",
            Noun::MaterializedView => "materialized view",
            Noun::Sink => "sink",
            Noun::Index => "index",
            Noun::Schema => "schema",
            Noun::Database => "database",
            Noun::Savepoint => "savepoint",
        }
    }
}

impl fmt::Display for Noun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Statement {
    /// The command's name, as EXPLAIN, transaction checks and logs need it (`CREATE TABLE`).
    /// Tags with a row count add it; SHOW and DESCRIBE answer with `SHOW`.
    pub fn tag(&self) -> &'static str {
        match self {
            Statement::Query(_) => "SELECT",
            Statement::CreateSource(s) if s.spelled_table => "CREATE TABLE",
            Statement::CreateSource(_) => "CREATE SOURCE",
            Statement::CreateTable(t) if t.query.is_some() => "CREATE TABLE AS",
            Statement::CreateTable(_) => "CREATE TABLE",
            Statement::CreateView(_) => "CREATE VIEW",
            Statement::CreateMaterializedView(_) => "CREATE MATERIALIZED VIEW",
            Statement::CreateSink(_) => "CREATE SINK",
            Statement::CreateSchema(_) => "CREATE SCHEMA",
            Statement::CreateDatabase(_) => "CREATE DATABASE",
            Statement::CreateIndex(_) => "CREATE INDEX",
            Statement::CreateSavepoint(_) => "CREATE SAVEPOINT",
            Statement::Transfer(transfer) => match transfer.what {
                TransferWhat::Backup => "BACKUP",
                TransferWhat::Export(_) => "EXPORT SAVEPOINT",
                TransferWhat::Import(_) => "IMPORT SAVEPOINT",
            },
            Statement::Drop(drop) => match drop.kind {
                Noun::Source => "DROP SOURCE",
                Noun::Table => "DROP TABLE",
                Noun::View => "DROP VIEW",
                Noun::MaterializedView => "DROP MATERIALIZED VIEW",
                Noun::Sink => "DROP SINK",
                Noun::Index => "DROP INDEX",
                Noun::Schema => "DROP SCHEMA",
                Noun::Database => "DROP DATABASE",
                Noun::Savepoint => "DROP SAVEPOINT",
            },
            Statement::Alter(alter) => match alter.kind {
                Noun::Source => "ALTER SOURCE",
                Noun::Table => "ALTER TABLE",
                Noun::View => "ALTER VIEW",
                Noun::MaterializedView => "ALTER MATERIALIZED VIEW",
                Noun::Sink => "ALTER SINK",
                Noun::Index => "ALTER INDEX",
                Noun::Schema => "ALTER SCHEMA",
                Noun::Database => "ALTER DATABASE",
                Noun::Savepoint => "ALTER SAVEPOINT",
            },
            Statement::CommentOn(_) => "COMMENT",
            Statement::Insert(_) => "INSERT",
            Statement::Update(_) => "UPDATE",
            Statement::Delete(_) => "DELETE",
            Statement::Truncate(_) => "TRUNCATE TABLE",
            Statement::ReplayLate(_) => "REPLAY LATE",
            Statement::Copy(_) => "COPY",
            Statement::Subscribe(_) => "SUBSCRIBE",
            Statement::Explain(_) => "EXPLAIN",
            Statement::Show(_) | Statement::Describe(_) => "SHOW",
            Statement::VerifyMaterializedView(_) => "VERIFY",
            Statement::Set(_)
            | Statement::SetTransaction(_)
            | Statement::SetSessionCharacteristics(_) => "SET",
            Statement::Reset(_) | Statement::ResetAll => "RESET",
            Statement::Discard(Discard::All) => "DISCARD ALL",
            Statement::Discard(Discard::Plans) => "DISCARD PLANS",
            Statement::Discard(Discard::Sequences) => "DISCARD SEQUENCES",
            Statement::Discard(Discard::Temp) => "DISCARD TEMP",
            Statement::Begin(_) => "BEGIN",
            Statement::Commit { .. } => "COMMIT",
            Statement::Rollback { .. } | Statement::RollbackTo(_) => "ROLLBACK",
            Statement::Savepoint(_) => "SAVEPOINT",
            Statement::ReleaseSavepoint(_) => "RELEASE",
            Statement::Flush => "FLUSH",
            Statement::Checkpoint => "CHECKPOINT",
            Statement::Unlisten => "UNLISTEN",
            Statement::Prepare(_) => "PREPARE",
            Statement::Execute(_) => "EXECUTE",
            Statement::Deallocate(None) => "DEALLOCATE ALL",
            Statement::Deallocate(Some(_)) => "DEALLOCATE",
            Statement::DeclareCursor(_) => "DECLARE CURSOR",
            Statement::Fetch(fetch) if fetch.moves => "MOVE",
            Statement::Fetch(_) => "FETCH",
            Statement::CloseCursor(None) => "CLOSE CURSOR ALL",
            Statement::CloseCursor(Some(_)) => "CLOSE CURSOR",
        }
    }
}
