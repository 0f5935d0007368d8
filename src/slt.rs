//! Runs sqllogictest files against a server: `millstream test`, and `cargo test`.
//!
//! 1. Each file gets a database of its own, which is dropped when the file has passed.
//! 2. Statements go as simple queries, so values are what a person sees: NULL is `NULL`, the
//!    empty string `(empty)`, booleans `t` and `f`.
//! 3. An error reads `ERROR: 42P01: message`, then lines `DETAIL: ...` and `HINT: ...`; so
//!    `statement error 42P01` and `query error (42P01)` both work.
//! 4. After `control substitution on`, `${DATA}` is the folder `data` beside the files.
//!
//! A file may begin with `# features: C14 C15`, the rows of `docs/features.md` that it shows.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use crate::config::ServerConfig;
use crate::observe::clock::Clock;
use crate::server::Server;
use crate::types::error::{Error, Result, SqlState};

/// A file that takes longer has failed: something waits for ever.
const FILE_TIMEOUT: Duration = Duration::from_secs(300);
/// Files that run at the same time.
const FILES_AT_ONCE: usize = 4;
/// How often a database in use is tried to be dropped, and how long is waited in between.
const DROP_ATTEMPTS: u32 = 250;
const DROP_INTERVAL: Duration = Duration::from_millis(20);

/// One way to run all files; every way must give the same rows.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    pub name: &'static str,
    /// Rows are spread over so many workers.
    pub workers: usize,
}

/// All ways.
pub const MODES: [Mode; 2] =
    [Mode { name: "1 worker", workers: 1 }, Mode { name: "2 workers", workers: 2 }];

/// A server in this process that keeps nothing.
pub struct PrivateServer {
    server: Server,
    /// Removed with it.
    _data_dir: tempfile::TempDir,
}

impl PrivateServer {
    /// Starts it on free ports.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn start(workers: usize) -> Result<PrivateServer> {
        let mut config = ServerConfig::default();
        config.set("workers", &workers.to_string())?;
        PrivateServer::start_with(config).await
    }

    /// The same with other settings; where it listens and keeps its files is changed.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn start_with(mut config: ServerConfig) -> Result<PrivateServer> {
        config.set("storage", "memory://")?;
        PrivateServer::start_in_storage(config).await
    }

    /// The same with a storage: that of `config`, or one in files that go with the server.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn start_in_storage(mut config: ServerConfig) -> Result<PrivateServer> {
        let data_dir = tempfile::tempdir()?;
        config.data_dir = data_dir.path().into();
        for (name, value) in [("listen", "127.0.0.1:0"), ("http", "127.0.0.1:0")] {
            config.set(name, value)?;
        }
        let server = Server::start(config).await?;
        Ok(PrivateServer { server, _data_dir: data_dir })
    }

    /// How clients reach it.
    pub fn client_config(&self) -> Config {
        let address = self.server.postgres_address();
        let mut config = Config::new();
        config.host(address.ip().to_string()).port(address.port());
        config.user("millstream").dbname("millstream");
        config
    }

    pub fn server(&self) -> &Server {
        &self.server
    }

    pub async fn stop(self) {
        self.server.stop().await;
    }
}

/// A server that is running already.
///
/// # Errors
/// SQLSTATE 22023 when it is not a postgres URL.
pub fn parse_url(url: &str) -> Result<Config> {
    url.parse().map_err(|error| {
        Error::user(SqlState::INVALID_PARAMETER_VALUE, format!("{url:?}: {error}"))
            .hint("Write postgres://user@host:port/database.")
    })
}

/// What became of one file.
#[derive(Clone, Debug)]
pub struct FileReport {
    pub path: PathBuf,
    pub elapsed: Duration,
    /// Why it failed, with the line.
    pub failure: Option<String>,
}

impl FileReport {
    /// One line, and the reason below it when the file failed.
    pub fn line(&self, mode: &str) -> String {
        let (path, millis) = (self.path.display(), self.elapsed.as_millis());
        match &self.failure {
            None => format!("ok      {path}{mode}, {millis} ms"),
            Some(failure) => {
                let failure = failure.trim_end().replace('\n', "\n        ");
                format!("FAILED  {path}{mode}, {millis} ms\n        {failure}")
            }
        }
    }
}

/// What became of all files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub passed: usize,
    pub failed: usize,
}

impl Totals {
    pub fn add(&mut self, report: &FileReport) {
        match report.failure {
            None => self.passed += 1,
            Some(_) => self.failed += 1,
        }
    }
}

/// All `.slt` files at and below the paths, sorted, each once.
///
/// # Errors
/// When a path cannot be read, or is a file of another kind, or nothing is found.
pub fn find_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        let named = |error: std::io::Error| Error::from(error).context(path.display());
        if std::fs::metadata(path).map_err(named)?.is_dir() {
            find_below(path, &mut found).map_err(named)?;
        } else {
            found.push(path.clone());
        }
    }
    found.sort();
    found.dedup();
    if found.is_empty() {
        return Err(Error::user(SqlState::UNDEFINED_FILE, "there are no .slt files"));
    }
    Ok(found)
}

fn find_below(folder: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            find_below(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "slt") {
            found.push(path);
        }
    }
    Ok(())
}

/// Runs all files, some at a time, and tells each outcome as it comes. `workers` is offered to
/// files as the label `workers_N` for `onlyif` and `skipif`; `None` when it is not known.
pub async fn run_files(
    server: &Config,
    files: &[PathBuf],
    workers: Option<usize>,
    mut tell: impl FnMut(&FileReport) -> ControlFlow<()>,
) -> Totals {
    let mut totals = Totals::default();
    let mut reports = futures::stream::iter(files)
        .map(|path| run_file(server, path, workers))
        .buffer_unordered(FILES_AT_ONCE);
    while let Some(report) = reports.next().await {
        totals.add(&report);
        if tell(&report).is_break() {
            break;
        }
    }
    totals
}

/// Runs one file in a database of its own.
pub async fn run_file(server: &Config, path: &Path, workers: Option<usize>) -> FileReport {
    let clock = Clock::system();
    let run = run_in_new_database(server, path, workers);
    let failure = match tokio::time::timeout(FILE_TIMEOUT, run).await {
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some(failure),
        Err(_) => Some(format!("not done after {} s", FILE_TIMEOUT.as_secs())),
    };
    FileReport { path: path.to_owned(), elapsed: clock.elapsed(), failure }
}

async fn run_in_new_database(
    server: &Config,
    path: &Path,
    workers: Option<usize>,
) -> Result<(), String> {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let database = format!("slt_{}_{number}", std::process::id());
    let admin = Session::connect(server).await.map_err(|error| error.to_string())?;
    let create = admin.must(&format!("CREATE DATABASE {database}")).await;
    create.map_err(|error| format!("CREATE DATABASE {database}: {error}"))?;

    let mut config = server.clone();
    config.dbname(&database);
    let mut runner = Runner::new(|| Session::connect(&config));
    runner.add_label("millstream");
    if let Some(workers) = workers {
        runner.add_label(&format!("workers_{workers}"));
    }
    if let Some(data) = data_folder(path) {
        runner.set_var("DATA".to_owned(), data.display().to_string());
    }
    let outcome = runner.run_file_async(path).await;
    runner.shutdown_async().await;
    drop(runner);
    outcome.map_err(|error| error.display(false).to_string())?;
    // A database of a failed file stays, for whoever looks into it.
    admin.drop_database(&database).await
}

/// The nearest folder `data` beside a file or above it.
fn data_folder(path: &Path) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    path.ancestors().skip(1).map(|folder| folder.join("data")).find(|data| data.is_dir())
}

/// The rows of `docs/features.md` that a file names in its head.
pub fn features(text: &str) -> Vec<&str> {
    let head = text.lines().take_while(|line| line.starts_with('#'));
    head.filter_map(|line| line.strip_prefix("# features:"))
        .flat_map(str::split_whitespace)
        .collect()
}

/// One connection of a file.
struct Session {
    /// `None` once it is closed.
    client: Option<Client>,
    connection: JoinHandle<Result<(), tokio_postgres::Error>>,
}

/// An error as the files check it.
#[derive(Debug)]
struct TestError {
    text: String,
    sqlstate: Option<String>,
}

impl std::fmt::Display for TestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for TestError {}

impl TestError {
    fn is_in_use(&self) -> bool {
        self.sqlstate.as_deref() == Some(SqlState::OBJECT_IN_USE.0)
    }
}

impl From<tokio_postgres::Error> for TestError {
    fn from(error: tokio_postgres::Error) -> TestError {
        let Some(server) = error.as_db_error() else {
            return TestError { text: format!("connection: {error}"), sqlstate: None };
        };
        let sqlstate = server.code().code().to_owned();
        let mut text = format!("{}: {sqlstate}: {}", server.severity(), server.message());
        for (label, extra) in [("DETAIL", server.detail()), ("HINT", server.hint())] {
            if let Some(extra) = extra {
                text += &format!("\n{label}: {extra}");
            }
        }
        TestError { text, sqlstate: Some(sqlstate) }
    }
}

impl Session {
    async fn connect(config: &Config) -> Result<Session, TestError> {
        let (client, connection) = config.connect(NoTls).await?;
        // It ends when the client is dropped; its error is the client's error too.
        let connection = tokio::spawn(connection);
        Ok(Session { client: Some(client), connection })
    }

    fn client(&self) -> Result<&Client, TestError> {
        let closed = || TestError { text: "the connection is closed".to_owned(), sqlstate: None };
        self.client.as_ref().ok_or_else(closed)
    }

    async fn must(&self, sql: &str) -> Result<(), TestError> {
        Ok(self.client()?.batch_execute(sql).await?)
    }

    /// Waits for the sessions that were just closed: the server may not have noticed yet.
    async fn drop_database(&self, database: &str) -> Result<(), String> {
        let sql = format!("DROP DATABASE {database}");
        let mut attempts_left = DROP_ATTEMPTS;
        loop {
            match self.must(&sql).await {
                Err(error) if error.is_in_use() && attempts_left > 0 => attempts_left -= 1,
                outcome => return outcome.map_err(|error| format!("{sql}: {error}")),
            }
            tokio::time::sleep(DROP_INTERVAL).await;
        }
    }
}

#[async_trait::async_trait]
impl AsyncDB for Session {
    type Error = TestError;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, TestError> {
        let mut column_count = None;
        let mut rows = Vec::new();
        let mut affected_count = 0;
        for message in self.client()?.simple_query(sql).await? {
            match message {
                SimpleQueryMessage::RowDescription(columns) => column_count = Some(columns.len()),
                SimpleQueryMessage::Row(row) => {
                    rows.push((0..row.len()).map(|column| value_text(row.get(column))).collect());
                }
                SimpleQueryMessage::CommandComplete(count) => affected_count = count,
                _ => {}
            }
        }
        Ok(match column_count {
            Some(count) => DBOutput::Rows { types: vec![DefaultColumnType::Any; count], rows },
            None => DBOutput::StatementComplete(affected_count),
        })
    }

    async fn shutdown(&mut self) {
        self.client = None;
        // How it ended is nobody's concern any more.
        let _ = (&mut self.connection).await;
    }

    fn engine_name(&self) -> &str {
        "millstream"
    }

    async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn error_sql_state(error: &TestError) -> Option<String> {
        error.sqlstate.clone()
    }
}

fn value_text(value: Option<&str>) -> String {
    match value {
        None => "NULL".to_owned(),
        Some("") => "(empty)".to_owned(),
        Some(text) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_name_features() {
        assert_eq!(
            features("# Joins.\n# features: C14 C15\n# features: X1\n\n"),
            ["C14", "C15", "X1"]
        );
        assert_eq!(features("statement ok\n# features: C14"), Vec::<&str>::new());
    }

    #[test]
    fn files_are_found_below_folders_once() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("b/data")).unwrap();
        for name in ["b/2.slt", "b/1.slt", "a.slt", "b/notes.md"] {
            std::fs::write(root.join(name), "").unwrap();
        }
        let found = find_files(&[root.to_owned(), root.join("a.slt")]).unwrap();
        let names: Vec<_> = found.iter().map(|path| path.strip_prefix(root).unwrap()).collect();
        assert_eq!(names, ["a.slt", "b/1.slt", "b/2.slt"].map(Path::new));
        assert!(data_folder(&root.join("b/1.slt")).unwrap().ends_with("b/data"));
        assert!(find_files(&[root.join("b/data")]).is_err());
        assert!(find_files(&[root.join("missing")]).is_err());
    }

    #[test]
    fn values_show_what_is_not_there() {
        assert_eq!([None, Some(""), Some("x")].map(value_text), ["NULL", "(empty)", "x"]);
    }
}
