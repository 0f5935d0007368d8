//! A case: tables, views and commits in some order; and what happens when it is run.
//!
//! After every step each view must hold exactly what its query gives as a batch. Rows for which
//! an expression fails are left out of a view, but stop a batch: such a batch is not compared. A
//! query that cannot be planned must be refused as a view too, with the same SQLSTATE; one that
//! only views refuse must be refused as not supported, and say so in one of the ways that
//! `docs/sql/limits.md` lists ([`REFUSALS`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::Int32Array;
use bytes::BytesMut;
use futures::StreamExt;
use millstream::coordinator::command::{
    ConnectOptions, Connection, Database, Prepared, Response, Value,
};
use millstream::coordinator::event_loop::{Coordinator, CoordinatorConfig, HistoryConfig};
use millstream::coordinator::memory::state_memory;
use millstream::coordinator::recovery::open;
use millstream::frontend::encode::{Format, Style, encode_batch};
use millstream::observe::clock::Clock;
use millstream::storage::store::Store;
use millstream::types::error::{Error, SqlState};
use object_store::memory::InMemory;

use super::postgres::{Reference, normalized};
use super::tree::Tree;

/// How long one statement may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Checkpoints are made when the case says so.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(3600);

/// What views refuse and a SELECT does not: SQLSTATE and words of the message.
const REFUSALS: &[(&str, &str)] = &[];

#[derive(Clone, Debug)]
pub enum Step {
    Table(Tree),
    View {
        name: String,
        query: Tree,
    },
    /// An index, which joins of later views may read; of nothing, if its relation was refused.
    Index {
        relation: String,
        columns: String,
    },
    /// A view of calls that may fail, over a table whose key is the integer `c0`: it must hold
    /// what its query gives for each row alone, without the rows for which that fails.
    Careless {
        name: String,
        items: Tree,
        filter: Tree,
        table: String,
    },
    /// Several statements are a transaction; the last may be ROLLBACK.
    Commit(Vec<Tree>),
    /// The server ends and starts again over its storage, perhaps right after a checkpoint.
    Restart {
        checkpoint: bool,
        workers: usize,
    },
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub workers: usize,
    pub steps: Vec<Step>,
}

/// One row: its values as Postgres writes them.
pub type Row = Vec<Option<String>>;

/// What is wrong. Two failures of one kind are taken for the same while a case is made smaller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The view's rows are not the batch's.
    Differs,
    /// The view's rows are not Postgres's.
    Disagrees,
    /// Of the two only one is refused, or for another reason: SQLSTATEs of view and batch.
    Refused(String, String),
    /// A view cannot be read, or a batch fails in a way that is not a row's: the SQLSTATE.
    Broken(String),
    /// A statement that changes rows fails as none should.
    Change(String),
    /// A statement takes longer than [`PATIENCE`].
    Stuck,
}

#[derive(Clone, Debug)]
pub struct Failure {
    pub kind: Kind,
    pub view: String,
    /// The step after which it was seen.
    pub step: usize,
    pub text: String,
    /// Of the batch, when the view differs.
    pub expected: Vec<Row>,
}

/// What was done, for whoever wonders how much that was.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub epochs: u64,
    pub restarts: u64,
    pub views: u64,
    pub indexes: u64,
    /// Joins that read one of them.
    pub indexed_joins: u64,
    pub compared: u64,
    /// Rows in what was compared.
    pub rows: u64,
    /// Batches that failed for a row.
    pub row_errors: u64,
    /// Queries that neither takes, by SQLSTATE and message: how many, and the shortest.
    pub invalid: BTreeMap<String, (u64, String)>,
    /// Queries that only views refuse.
    pub refused: BTreeMap<String, (u64, String)>,
    /// Views that were compared with Postgres's.
    pub agreed: u64,
    /// Queries that only Postgres refuses, or only we.
    pub taken_by_one: BTreeMap<String, (u64, String)>,
}

impl Tally {
    pub fn add(&mut self, other: Tally) {
        self.epochs += other.epochs;
        self.restarts += other.restarts;
        self.views += other.views;
        self.indexes += other.indexes;
        self.indexed_joins += other.indexed_joins;
        self.compared += other.compared;
        self.rows += other.rows;
        self.row_errors += other.row_errors;
        self.agreed += other.agreed;
        for (text, (count, query)) in other.taken_by_one {
            note(&mut self.taken_by_one, text, count, query);
        }
        for (text, (count, query)) in other.invalid {
            note(&mut self.invalid, text, count, query);
        }
        for (text, (count, query)) in other.refused {
            note(&mut self.refused, text, count, query);
        }
    }
}

/// Counts a kind of query and keeps the shortest.
fn note(kinds: &mut BTreeMap<String, (u64, String)>, kind: String, count: u64, query: String) {
    let (known, shortest) = kinds.entry(kind).or_insert_with(|| (0, query.clone()));
    *known += count;
    if query.len() < shortest.len() {
        *shortest = query;
    }
}

struct View {
    name: String,
    query: String,
    read: Prepared,
    batch: Prepared,
    /// For views of calls that may fail: the query of one row, and the keys.
    by_row: Option<ByRow>,
}

/// The query of a row and that of the keys, with their texts.
struct ByRow {
    row: Prepared,
    keys: Prepared,
    row_sql: String,
    keys_sql: String,
}

/// A server of our own and a connection to it.
struct Runner {
    coordinator: Coordinator,
    connection: Connection,
    /// What survives a restart; only for cases that have one.
    store: Option<Store>,
    views: Vec<View>,
    tally: Tally,
    /// A second opinion.
    reference: Option<Reference>,
}

/// Runs a case to its end or its first failure; with the address of a Postgres, on that too.
pub async fn run(scenario: &Scenario, postgres: Option<&str>) -> (Tally, Option<Failure>) {
    let restarts = scenario.steps.iter().any(|step| matches!(step, Step::Restart { .. }));
    let mut runner = Runner::start(scenario.workers, restarts).await;
    if let Some(address) = postgres {
        runner.reference = Some(Reference::connect(address).await);
    }
    let mut failure = None;
    for (number, step) in scenario.steps.iter().enumerate() {
        let done = match tokio::time::timeout(2 * PATIENCE, runner.step(step, number)).await {
            Ok(done) => done,
            Err(_) => Err(Failure {
                kind: Kind::Stuck,
                view: String::new(),
                step: number,
                text: format!("step {number} takes longer than {} s", 2 * PATIENCE.as_secs()),
                expected: Vec::new(),
            }),
        };
        if let Err(found) = done {
            failure = Some(found);
            break;
        }
    }
    let tally = std::mem::take(&mut runner.tally);
    let coordinator = runner.coordinator.clone();
    drop(runner);
    coordinator.stop();
    (tally, failure)
}

/// Class 22 and 21: a value, or a subquery of several rows; and numbers that leave their type.
fn is_of_a_row(sqlstate: &str) -> bool {
    sqlstate.starts_with("22") || sqlstate == "21000" || sqlstate == "23502"
}

/// A server over a storage, or one that keeps nothing, and a connection to it.
async fn open_server(workers: usize, store: Option<&Store>) -> (Coordinator, Connection) {
    let config = CoordinatorConfig {
        workers,
        epoch_interval_max: Duration::from_millis(2),
        lock_timeout: Duration::from_secs(5),
        history: HistoryConfig::default(),
        memory: state_memory(&std::env::temp_dir()),
    };
    let clock = Clock::system();
    let coordinator = match store {
        None => Coordinator::start(config, clock.clone()).expect("the workers start"),
        Some(store) => {
            let opened = open(config, clock.clone(), store.clone(), CHECKPOINT_INTERVAL).await;
            opened.expect("the storage can be read")
        }
    };
    let database = Database::new(coordinator.clone(), clock).expect("threads can be started");
    let options =
        ConnectOptions { database: "millstream".into(), user: "oracle".into(), settings: vec![] };
    let connection = database.connect(options).await.expect("the default database exists");
    (coordinator, connection)
}

impl Runner {
    async fn start(workers: usize, stored: bool) -> Runner {
        let store = stored.then(|| Store::over(Arc::new(InMemory::new()), "memory"));
        let (coordinator, connection) = open_server(workers, store.as_ref()).await;
        let (views, tally) = (Vec::new(), Tally::default());
        Runner { coordinator, connection, store, views, tally, reference: None }
    }

    /// Ends the server and starts another over what it left.
    async fn restart(&mut self, workers: usize, number: usize) -> Result<(), Failure> {
        let coordinator = self.coordinator.clone();
        tokio::task::spawn_blocking(move || coordinator.stop()).await.expect("it stops");
        (self.coordinator, self.connection) = open_server(workers, self.store.as_ref()).await;
        for index in 0..self.views.len() {
            let view = &self.views[index];
            let (name, query) = (view.name.clone(), view.query.clone());
            let texts = view.by_row.as_ref().map(|b| (b.row_sql.clone(), b.keys_sql.clone()));
            let prepared = async {
                let read = self.prepare(&format!("SELECT * FROM {name}")).await?;
                let batch = self.prepare(&query).await?;
                let by_row = match texts {
                    None => None,
                    Some((row_sql, keys_sql)) => {
                        let row = self.prepare(&row_sql).await?;
                        let keys = self.prepare(&keys_sql).await?;
                        Some(ByRow { row, keys, row_sql, keys_sql })
                    }
                };
                Ok::<_, Error>((read, batch, by_row))
            };
            let (read, batch, by_row) = prepared.await.map_err(|error| Failure {
                kind: Kind::Broken(error.sqlstate().0.to_owned()),
                view: name.clone(),
                step: number,
                text: format!("after a restart: {}", text_of(&error)),
                expected: Vec::new(),
            })?;
            self.views[index] = View { name, query, read, batch, by_row };
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step, number: usize) -> Result<(), Failure> {
        let fail = |kind, sql: &str, error: &Error| Failure {
            kind,
            view: String::new(),
            step: number,
            text: format!("{sql}\n{}", text_of(error)),
            expected: Vec::new(),
        };
        match step {
            Step::Table(tree) => {
                let sql = tree.sql();
                self.run(&sql)
                    .await
                    .map_err(|e| fail(Kind::Change(e.sqlstate().0.to_owned()), &sql, &e))?;
                if let Some(reference) = &mut self.reference {
                    reference.run(&sql).await.expect("Postgres takes the table");
                }
            }
            Step::View { name, query } => self.view(name, &query.sql(), number).await?,
            Step::Careless { name, items, filter, table } => {
                let (items, filter) = (items.sql(), filter.sql());
                let query = format!("SELECT {items} FROM {table} AS a{filter}");
                let before = self.views.len();
                self.our_view(name, &query, number).await?;
                if self.views.len() > before {
                    let one = format!(
                        "SELECT {items} FROM (SELECT * FROM {table} WHERE c0 = $1::int) AS a{filter}"
                    );
                    let failed = |e: Error| fail(Kind::Broken(e.sqlstate().0.into()), &one, &e);
                    let row = self.prepare(&one).await.map_err(failed)?;
                    let keys_sql = format!("SELECT c0 FROM {table}");
                    let keys = self.prepare(&keys_sql).await.map_err(failed)?;
                    let by_row = ByRow { row, keys, row_sql: one, keys_sql };
                    self.views.last_mut().expect("just made").by_row = Some(by_row);
                }
            }
            Step::Index { relation, columns } => {
                let sql = format!("CREATE INDEX ON {relation} ({columns})");
                match self.run(&sql).await {
                    Err(e) if e.sqlstate() != SqlState::UNDEFINED_TABLE => {
                        return Err(fail(Kind::Change(e.sqlstate().0.to_owned()), &sql, &e));
                    }
                    made => self.tally.indexes += u64::from(made.is_ok()),
                }
            }
            Step::Restart { checkpoint, workers } => {
                self.tally.restarts += 1;
                if *checkpoint {
                    let done = self.run("CHECKPOINT").await;
                    let state = |e: &Error| Kind::Change(e.sqlstate().0.to_owned());
                    done.map_err(|e| fail(state(&e), "CHECKPOINT", &e))?;
                }
                self.restart(*workers, number).await?;
            }
            Step::Commit(statements) => {
                self.tally.epochs += 1;
                let block = statements.len() > 1;
                if block {
                    self.run("BEGIN").await.expect("a block can begin");
                }
                for statement in statements {
                    let sql = statement.sql();
                    match self.run(&sql).await {
                        Ok(_) => {}
                        // In a block all that follows fails, and COMMIT is ROLLBACK.
                        Err(e) if is_of_a_row(e.sqlstate().0) => {}
                        Err(e) if ["23505", "25P02"].contains(&e.sqlstate().0) => {}
                        Err(e) => {
                            return Err(fail(Kind::Change(e.sqlstate().0.to_owned()), &sql, &e));
                        }
                    }
                }
                let rolled_back = statements.last().is_some_and(|s| s.sql() == "ROLLBACK");
                if block && !rolled_back {
                    self.run("COMMIT")
                        .await
                        .map_err(|e| fail(Kind::Change(e.sqlstate().0.to_owned()), "COMMIT", &e))?;
                }
                if let Some(reference) = &mut self.reference {
                    let mut sql: Vec<String> = statements.iter().map(Tree::sql).collect();
                    if block {
                        sql.insert(0, "BEGIN".to_owned());
                        sql.push("COMMIT".to_owned());
                    }
                    for sql in sql {
                        // An error is an error on both sides; else tables differ, and views.
                        let _ = reference.run(&sql).await;
                    }
                }
            }
        }
        self.compare(number).await
    }

    /// Runs one statement to its end.
    async fn run(&mut self, sql: &str) -> Result<Vec<Row>, Error> {
        let prepared = self.prepare(sql).await?;
        self.execute(&prepared).await
    }

    async fn prepare(&mut self, sql: &str) -> Result<Prepared, Error> {
        let statement = self.connection.parse(sql)?.remove(0);
        self.connection.prepare(&statement, &[]).await
    }

    async fn execute(&mut self, prepared: &Prepared) -> Result<Vec<Row>, Error> {
        self.execute_with(prepared, &[]).await
    }

    async fn execute_with(
        &mut self,
        prepared: &Prepared,
        values: &[Value],
    ) -> Result<Vec<Row>, Error> {
        let response = self.connection.execute(prepared, values).await?;
        let mut found = Vec::new();
        if let Response::Rows { mut rows, .. } = response {
            while let Some(batch) = rows.next().await {
                let batch = batch?;
                let formats = vec![Format::Text; batch.num_columns()];
                let mut bytes = BytesMut::new();
                encode_batch(&batch, &formats, &Style::default(), &mut bytes)?;
                read_rows(&bytes, &mut found);
            }
        }
        self.connection.sync().await?;
        Ok(found)
    }

    /// Makes a view, or finds that it must not be made.
    async fn view(&mut self, name: &str, query: &str, number: usize) -> Result<(), Failure> {
        let before = self.views.len();
        self.our_view(name, query, number).await?;
        let ours = self.views.len() > before;
        if let Some(reference) = &mut self.reference {
            let theirs = reference.create_view(name, query).await;
            let entry = match theirs {
                Err((state, message)) if ours => Some(format!("ours only: {state} {message}")),
                Ok(()) if !ours => Some("Postgres only".to_owned()),
                _ => None,
            };
            if let Some(entry) = entry {
                note(&mut self.tally.taken_by_one, entry, 1, query.to_owned());
            }
        }
        Ok(())
    }

    async fn our_view(&mut self, name: &str, query: &str, number: usize) -> Result<(), Failure> {
        let created = self.run(&format!("CREATE MATERIALIZED VIEW {name} AS {query}")).await;
        let prepared = self.prepare(query).await;
        let failure = |kind, text| Failure {
            kind,
            view: name.to_owned(),
            step: number,
            text,
            expected: Vec::new(),
        };
        match (created, prepared) {
            (Ok(_), Ok(batch)) => {
                let read = self
                    .prepare(&format!("SELECT * FROM {name}"))
                    .await
                    .map_err(|e| failure(Kind::Broken(e.sqlstate().0.to_owned()), text_of(&e)))?;
                let query = query.to_owned();
                let name = name.to_owned();
                self.views.push(View { name, query, read, batch, by_row: None });
                self.tally.views += 1;
                if self.tally.indexes > 0 {
                    let plan = self
                        .run(&format!(
                            "EXPLAIN MATERIALIZED VIEW {}",
                            self.views.last().expect("just made").name
                        ))
                        .await;
                    let plan = plan.map_err(|e| {
                        failure(Kind::Broken(e.sqlstate().0.to_owned()), text_of(&e))
                    })?;
                    let lines = plan.iter().flatten().flatten();
                    let joins = lines.filter(|line| line.contains(" by index "));
                    self.tally.indexed_joins += joins.count() as u64;
                }
                Ok(())
            }
            (Err(view), batch) => {
                let batch = match batch {
                    Ok(batch) => self.execute(&batch).await.err(),
                    Err(error) => Some(error),
                };
                let state = view.sqlstate().0;
                let entry = format!("{state} {}", view.message());
                match batch {
                    // One of a row may be the batch's own, while the view is not supported.
                    Some(batch) if batch.sqlstate() == view.sqlstate() && state != "XX000" => {
                        note(&mut self.tally.invalid, entry, 1, query.to_owned());
                        Ok(())
                    }
                    // Neither plans it; why is told otherwise.
                    Some(batch)
                        if state == "0A000" && batch.sqlstate() != SqlState::INTERNAL_ERROR =>
                    {
                        note(&mut self.tally.invalid, entry, 1, query.to_owned());
                        Ok(())
                    }
                    // A call of constants fails when it is planned, or when a row meets it.
                    None if is_of_a_row(state) => {
                        note(&mut self.tally.invalid, entry, 1, query.to_owned());
                        Ok(())
                    }
                    None if is_allowed(&view) => {
                        note(&mut self.tally.refused, entry, 1, query.to_owned());
                        Ok(())
                    }
                    batch => {
                        let other = batch.as_ref().map_or("", |e| e.sqlstate().0);
                        let kind = Kind::Refused(state.to_owned(), other.to_owned());
                        let batch = batch.as_ref().map_or("fine".to_owned(), text_of);
                        let view = text_of(&view);
                        Err(failure(kind, format!("{query}\nview: {view}\nbatch: {batch}")))
                    }
                }
            }
            (Ok(_), Err(batch)) => {
                let kind = Kind::Refused(String::new(), batch.sqlstate().0.to_owned());
                Err(failure(kind, format!("{query}\nview: fine\nbatch: {}", text_of(&batch))))
            }
        }
    }

    async fn compare(&mut self, number: usize) -> Result<(), Failure> {
        if let Some(reference) = &mut self.reference {
            reference.refresh().await;
        }
        let views = std::mem::take(&mut self.views);
        let mut outcome = Ok(());
        for view in &views {
            outcome = self.compare_view(view, number).await;
            if outcome.is_err() {
                break;
            }
        }
        self.views = views;
        outcome
    }

    /// The rows of a query for each key alone, without those that fail.
    async fn rows_that_work(&mut self, row: &Prepared, keys: &Prepared) -> Result<Vec<Row>, Error> {
        let mut found = Vec::new();
        for key in self.execute(keys).await? {
            let key: i32 = key[0].as_ref().and_then(|k| k.parse().ok()).expect("an integer key");
            let value: Value = Arc::new(Int32Array::from(vec![key]));
            match self.execute_with(row, &[value]).await {
                Ok(rows) => found.extend(rows),
                Err(error) if is_of_a_row(error.sqlstate().0) => self.tally.row_errors += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    async fn compare_view(&mut self, view: &View, number: usize) -> Result<(), Failure> {
        let failure = |kind, text: String, expected| Failure {
            kind,
            view: view.name.clone(),
            step: number,
            text: format!("{}\n{text}", view.query),
            expected,
        };
        let found = match self.execute(&view.read).await {
            Ok(rows) => rows,
            Err(error) => {
                let kind = Kind::Broken(error.sqlstate().0.to_owned());
                let text = format!("the view cannot be read: {}", text_of(&error));
                return Err(failure(kind, text, Vec::new()));
            }
        };
        let batch = match &view.by_row {
            None => self.execute(&view.batch).await,
            Some(by_row) => self.rows_that_work(&by_row.row, &by_row.keys).await,
        };
        let mut expected = match batch {
            Ok(rows) => rows,
            Err(error) if is_of_a_row(error.sqlstate().0) => {
                self.tally.row_errors += 1;
                return Ok(());
            }
            // What only the batch engine cannot do is no fault of the view.
            Err(error) if ["0A000", "42601"].contains(&error.sqlstate().0) => {
                let entry = format!("batch: {}", text_of(&error));
                note(&mut self.tally.invalid, entry, 1, view.query.clone());
                return Ok(());
            }
            Err(error) => {
                let kind = Kind::Broken(error.sqlstate().0.to_owned());
                let text = format!("the batch fails: {}", text_of(&error));
                return Err(failure(kind, text, Vec::new()));
            }
        };
        self.tally.compared += 1;
        self.tally.rows += expected.len() as u64;
        let mut found = found;
        found.sort_unstable();
        expected.sort_unstable();
        if found == expected {
            if let Some(reference) = &mut self.reference
                && let Some(theirs) = reference.rows(&view.name).await
            {
                self.tally.agreed += 1;
                let (found, theirs) = (normalized(&found), normalized(&theirs));
                if found != theirs {
                    let text = difference(&found, &theirs);
                    return Err(failure(Kind::Disagrees, text, theirs));
                }
            }
            return Ok(());
        }
        Err(failure(Kind::Differs, difference(&found, &expected), expected))
    }
}

/// Whether `docs/sql/limits.md` says that views refuse this.
fn is_allowed(error: &Error) -> bool {
    let (state, message) = (error.sqlstate().0, error.message());
    REFUSALS.iter().any(|(known, words)| *known == state && message.contains(words))
}

pub fn text_of(error: &Error) -> String {
    let body = error.body();
    let detail = body.detail.as_deref().map_or(String::new(), |d| format!(" ({d})"));
    format!("{}: {}{detail}", error.sqlstate().0, error.message())
}

/// Two sorted bags side by side, as far as they differ.
pub fn difference(found: &[Row], expected: &[Row]) -> String {
    let mut counts: BTreeMap<&Row, i64> = BTreeMap::new();
    for row in found {
        *counts.entry(row).or_default() += 1;
    }
    for row in expected {
        *counts.entry(row).or_default() -= 1;
    }
    let mut text = String::new();
    for (row, count) in counts {
        if count != 0 {
            let what = if count > 0 { "only in the view" } else { "missing in the view" };
            text.push_str(&format!("  {what}, {}x: {}\n", count.abs(), row_text(row)));
        }
    }
    text
}

pub fn row_text(row: &Row) -> String {
    let cell = |value: &Option<String>| match value {
        None => "NULL".to_owned(),
        Some(text) if text.is_empty() => "(empty)".to_owned(),
        Some(text) => text.clone(),
    };
    row.iter().map(cell).collect::<Vec<_>>().join(" | ")
}

/// The values of DataRow messages.
fn read_rows(mut bytes: &[u8], rows: &mut Vec<Row>) {
    let number = |bytes: &[u8]| i32::from_be_bytes(bytes[..4].try_into().expect("four bytes"));
    while !bytes.is_empty() {
        let length = number(&bytes[1..]) as usize;
        let mut message = &bytes[7..=length];
        bytes = &bytes[1 + length..];
        let mut row = Vec::new();
        while !message.is_empty() {
            let size = number(message);
            message = &message[4..];
            row.push(usize::try_from(size).ok().map(|size| {
                let value = String::from_utf8_lossy(&message[..size]).into_owned();
                message = &message[size..];
                value
            }));
        }
        rows.push(row);
    }
}

impl Scenario {
    /// The case as an slt file, up to the failure; what a reader must fill in stands behind `#`.
    pub fn slt(&self, failure: &Failure) -> String {
        let mut text = format!("# {:?}, on {} worker(s).\n\n", failure.kind, self.workers);
        let mut say = |sql: String| text.push_str(&format!("statement ok\n{sql}\n\n"));
        for step in self.steps.iter().take(failure.step + 1) {
            match step {
                Step::Table(tree) => say(tree.sql()),
                Step::View { name, query } => {
                    say(format!("CREATE MATERIALIZED VIEW {name} AS {}", query.sql()));
                }
                Step::Index { relation, columns } => {
                    say(format!("CREATE INDEX ON {relation} ({columns})"));
                }
                Step::Careless { name, items, filter, table } => {
                    let (items, filter) = (items.sql(), filter.sql());
                    say(format!(
                        "CREATE MATERIALIZED VIEW {name} AS SELECT {items} FROM {table} AS a{filter}"
                    ));
                }
                Step::Restart { checkpoint, workers } => {
                    say(format!(
                        "-- a restart on {workers} worker(s), right after a checkpoint: {checkpoint}"
                    ));
                }
                Step::Commit(statements) => {
                    let block = statements.len() > 1;
                    if block {
                        say("BEGIN".to_owned());
                    }
                    statements.iter().for_each(|s| say(s.sql()));
                    if block {
                        say("COMMIT".to_owned());
                    }
                }
            }
        }
        if matches!(failure.kind, Kind::Differs | Kind::Disagrees) {
            text.push_str(&format!("query rowsort\nSELECT * FROM {}\n----\n", failure.view));
            for row in &failure.expected {
                text.push_str(&format!("{}\n", row_text(row).replace(" | ", " ")));
            }
            text.push('\n');
        }
        for line in failure.text.lines() {
            text.push_str(&format!("# {line}\n"));
        }
        text
    }
}
