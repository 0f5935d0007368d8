//! Servers over directories: savepoints, two servers on one storage, storages that cannot be used.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_postgres::{Client, NoTls};

/// How long a server may take to start or to stop.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Lines of a server's log that are shown when a test fails.
const LOG_LINES: usize = 60;

/// A `millstream serve` over a directory. It ends with this; if a test fails then, the end of its
/// log is shown.
pub struct Served {
    child: Child,
    pub url: String,
    log: Arc<Mutex<VecDeque<String>>>,
}

impl Drop for Served {
    #[expect(clippy::print_stderr, reason = "cargo shows it of failed tests")]
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            eprintln!("The end of the server's log:");
            log.iter().for_each(|line| eprint!("  {line}"));
        }
    }
}

/// Where a server keeps its state.
#[derive(Clone)]
pub struct Place {
    pub directory: PathBuf,
    /// A bucket; otherwise the directory.
    pub bucket: Option<String>,
    /// Where the bucket is.
    pub variables: Vec<(&'static str, String)>,
}

impl Place {
    pub fn disk(directory: &Path) -> Place {
        Place { directory: directory.to_owned(), bucket: None, variables: Vec::new() }
    }
}

/// The program under test: another build, when `MILLSTREAM_PROGRAM` names one.
pub fn program() -> PathBuf {
    let named = std::env::var_os("MILLSTREAM_PROGRAM").map(PathBuf::from);
    named.unwrap_or_else(|| env!("CARGO_BIN_EXE_millstream").into())
}

fn serve(directory: &Path, workers: &str) -> Served {
    serve_in(&Place::disk(directory), workers, &[])
}

pub fn serve_in(place: &Place, workers: &str, more: &[&str]) -> Served {
    let mut command = Command::new(program());
    // Variables of whoever runs the tests must not count.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MILLSTREAM_") {
            command.env_remove(name);
        }
    }
    let directory = place.directory.to_str().expect("UTF-8");
    let any = "127.0.0.1:0";
    command.args(["serve", "--data-dir", directory, "--listen", any, "--http", any]);
    command.args(more).envs(place.variables.clone());
    if let Some(bucket) = &place.bucket {
        command.args(["--storage", bucket]);
    }
    command.args(["--workers", workers, "--checkpoint-interval", "100ms"]);
    let mut child = command.stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut log = String::new();
    let url = loop {
        let start = log.len();
        let bytes = stderr.read_line(&mut log).expect("the server logs");
        assert!(bytes > 0, "the server ended before it was ready:\n{log}");
        let line = &log[start..];
        if let Some(rest) = line.split("postgres=").nth(1) {
            let address = rest.split_whitespace().next().expect("an address");
            break format!("postgres://millstream@{address}/millstream");
        }
    };
    let lines: VecDeque<String> = log.split_inclusive('\n').map(str::to_owned).collect();
    let log = Arc::new(Mutex::new(lines));
    // Read on, so that the server never waits for us.
    let kept = log.clone();
    std::thread::spawn(move || {
        let mut line = Vec::new();
        while stderr.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push_back(String::from_utf8_lossy(&line).into_owned());
            while kept.len() > LOG_LINES {
                kept.pop_front();
            }
            line.clear();
        }
    });
    Served { child, url, log }
}

impl Served {
    pub async fn connect(&self) -> Client {
        let (client, connection) =
            tokio_postgres::connect(&self.url, NoTls).await.expect("the server listens");
        tokio::spawn(connection);
        client
    }

    /// Of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter().map(String::as_str).collect()
    }

    pub fn kill(mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a killed child ends");
    }

    /// The exit code of a server that ends by itself.
    pub fn ended(mut self) -> Option<i32> {
        for _ in 0..PATIENCE.as_millis() / 10 {
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child.kill().expect("a child can be killed");
        panic!("the server did not end");
    }
}

pub async fn number(client: &Client, sql: &str) -> i64 {
    let row = client.query_one(sql, &[]).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    row.get(0)
}

pub async fn rows(client: &Client, sql: &str) -> Vec<String> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let row = |message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => {
            let values = (0..row.len()).map(|c| row.get(c).unwrap_or("NULL").to_owned());
            Some(values.collect::<Vec<_>>().join("|"))
        }
        _ => None,
    };
    let mut rows: Vec<String> = messages.into_iter().filter_map(row).collect();
    rows.sort_unstable();
    rows
}

pub fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|v| v.parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_savepoint_is_the_state_that_it_was() {
    let directory = tempfile::tempdir().expect("a folder can be made");
    let place = Place::disk(directory.path());
    let server = serve_in(&place, "2", &[]);
    let client = server.connect().await;
    let script = "CREATE TABLE t (a int PRIMARY KEY);
        CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n, sum(a) AS s FROM t;
        INSERT INTO t VALUES (1), (2), (3);
        CREATE SAVEPOINT before;
        DELETE FROM t WHERE a = 1;
        INSERT INTO t SELECT g FROM generate_series(10, 50) g(g);
        CREATE TABLE later (b int);
        CHECKPOINT;
        CREATE SAVEPOINT after;
        INSERT INTO t VALUES (100);";
    for statement in script.split_inclusive(';') {
        client.batch_execute(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
    let taken = client.batch_execute("CREATE SAVEPOINT before").await.expect_err("is taken");
    assert_eq!(taken.as_db_error().map(|e| e.code().code()), Some("42710"));
    server.kill();

    let look = async |client: &Client| {
        assert_eq!(
            rows(client, "SELECT n, s FROM v").await,
            rows(client, "SELECT count(*), sum(a) FROM t").await
        );
        rows(client, "SELECT n, s FROM v").await
    };
    let server = serve_in(&place, "3", &["--from-savepoint", "before"]);
    let client = server.connect().await;
    assert_eq!(look(&client).await, ["3|6"]);
    assert!(client.batch_execute("SELECT * FROM later").await.is_err(), "made after the savepoint");
    client.batch_execute("INSERT INTO t VALUES (7)").await.expect("goes on from there");
    assert_eq!(look(&client).await, ["4|13"]);
    server.kill();
    // Without the flag, on from there.
    let server = serve_in(&place, "1", &[]);
    let client = server.connect().await;
    assert_eq!(look(&client).await, ["4|13"]);
    let names = rows(&client, "SHOW SAVEPOINTS").await;
    assert_eq!(
        names.iter().map(|n| n.split('|').next().unwrap_or("")).collect::<Vec<_>>(),
        ["after", "before"]
    );
    client.batch_execute("DROP SAVEPOINT before").await.expect("is dropped");
    assert!(client.batch_execute("DROP SAVEPOINT before").await.is_err(), "it has gone");
    client.batch_execute("DROP SAVEPOINT IF EXISTS before").await.expect("a notice");
    server.kill();
    let server = serve_in(&place, "2", &["--from-savepoint", "after"]);
    assert_eq!(look(&server.connect().await).await, ["43|1235"]);
    server.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_servers_on_one_directory_the_older_ends_with_an_error() {
    let directory = tempfile::tempdir().expect("a folder can be made");
    let older = serve(directory.path(), "1");
    older.connect().await.batch_execute("CREATE TABLE t (a int)").await.expect("runs");
    let newer = serve(directory.path(), "1");
    assert_eq!(older.ended(), Some(1));
    let client = newer.connect().await;
    client.batch_execute("INSERT INTO t VALUES (1)").await.expect("the newer one writes");
    assert_eq!(number(&client, "SELECT count(*) FROM t").await, 1);
    newer.kill();
}

#[test]
fn a_storage_that_cannot_be_used_is_said_at_once() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join("file");
    std::fs::write(&file, "in the way").expect("written");
    let url = format!("file://{}", file.display());
    for (storage, message) in [
        (url.as_str(), "storage "),
        ("s3://", "is not a storage URL"),
        ("s3://key@bucket", "is not a storage URL"),
        ("ftp://x", "is not a storage URL"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
        let any = "127.0.0.1:0";
        let data = folder.path().join("data");
        command.args(["serve", "--listen", any, "--http", any, "--storage", storage]);
        command.args(["--data-dir", data.to_str().expect("UTF-8")]);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the program starts");
        let mut stderr = String::new();
        let mut pipe = child.stderr.take().expect("piped");
        pipe.read_to_string(&mut stderr).expect("UTF-8");
        assert_eq!(child.wait().expect("ends").code(), Some(1), "{storage}: {stderr}");
        assert!(stderr.contains(message), "{storage}: {stderr}");
    }
}
