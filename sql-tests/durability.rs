//! The program killed with SIGKILL while clients write, again and again: what was acknowledged
//! is there afterwards, and money neither comes nor goes.
//!
//! `MILLSTREAM_KILLS=1000 cargo test --test sql_tests kill` runs longer; `MILLSTREAM_SEED` replays
//! the moments of one run (the machine's own timing is not replayed).

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::{Client, NoTls};

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(120);
const ACCOUNTS: i64 = 20;
const WRITERS: i64 = 3;

/// A `millstream serve` over a directory.
struct Served {
    child: Child,
    url: String,
}

fn serve(directory: &Path, workers: &str) -> Served {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
    // Variables of whoever runs the tests must not count.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MILLSTREAM_") {
            command.env_remove(name);
        }
    }
    let directory = directory.to_str().expect("UTF-8");
    let any = "127.0.0.1:0";
    command.args(["serve", "--data-dir", directory, "--listen", any, "--http", any]);
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
    // Read on, so that the server never waits for us.
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    Served { child, url }
}

impl Served {
    async fn connect(&self) -> Client {
        let (client, connection) =
            tokio_postgres::connect(&self.url, NoTls).await.expect("the server listens");
        tokio::spawn(connection);
        client
    }

    fn kill(mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a killed child ends");
    }

    /// The exit code of a server that ends by itself.
    fn ended(mut self) -> Option<i32> {
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

/// Moves money until the server is gone; each transfer is a transaction of three tables.
async fn write(client: Client, writer: i64, acknowledged: Arc<AtomicI64>, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    loop {
        let n = acknowledged.load(Ordering::SeqCst) + 1;
        let (from, to) = (random.random_range(0..ACCOUNTS), random.random_range(0..ACCOUNTS));
        let amount = random.random_range(1..50);
        let transfer = format!(
            "BEGIN; UPDATE accounts SET balance = balance - {amount} WHERE id = {from}; \
             UPDATE accounts SET balance = balance + {amount} WHERE id = {to}; \
             INSERT INTO ledger VALUES ({writer}, {n}); COMMIT"
        );
        match client.batch_execute(&transfer).await {
            Ok(()) => acknowledged.store(n, Ordering::SeqCst),
            Err(error) if error.as_db_error().is_some_and(|e| e.code().code() == "40001") => {
                let _ = client.batch_execute("ROLLBACK").await;
            }
            Err(_) => return,
        }
    }
}

async fn number(client: &Client, sql: &str) -> i64 {
    let row = client.query_one(sql, &[]).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    row.get(0)
}

/// Everything that must hold at every moment.
async fn check(client: &Client, acknowledged: &[Arc<AtomicI64>], context: &str) {
    let total = ACCOUNTS * 1000;
    let row = client
        .query_one(
            "SELECT (SELECT sum(balance)::bigint FROM accounts), (SELECT s FROM total), \
             (SELECT n FROM transfers), (SELECT count(*) FROM ledger)",
            &[],
        )
        .await
        .unwrap_or_else(|error| panic!("{context}: {error}"));
    let values: [i64; 4] = std::array::from_fn(|index| row.get(index));
    assert_eq!(values[0], total, "{context}: money in the table");
    assert_eq!(values[1], total, "{context}: money in the view");
    assert_eq!(values[2], values[3], "{context}: view and table of transfers");
    for (writer, acknowledged) in acknowledged.iter().enumerate() {
        let promised = acknowledged.load(Ordering::SeqCst);
        let sql = format!("SELECT coalesce(max(n), 0) FROM ledger WHERE writer = {writer}");
        let found = number(client, &sql).await;
        assert!(found >= promised, "{context}: writer {writer} lost {promised}, has {found}");
        let sql = format!("SELECT count(*) FROM ledger WHERE writer = {writer}");
        assert_eq!(number(client, &sql).await, found, "{context}: writer {writer} has gaps");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_loses_nothing_it_acknowledged() {
    let variable = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let kills = variable("MILLSTREAM_KILLS").unwrap_or(6);
    let seed = variable("MILLSTREAM_SEED").unwrap_or_else(rand::random);
    let mut random = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir().expect("a folder can be made");
    let server = serve(directory.path(), "2");
    let client = server.connect().await;
    client
        .batch_execute(
            "CREATE TABLE accounts (id bigint PRIMARY KEY, balance bigint NOT NULL);
             CREATE TABLE ledger (writer bigint, n bigint, PRIMARY KEY (writer, n));
             INSERT INTO accounts SELECT g, 1000 FROM generate_series(0, 19) g(g);
             CREATE MATERIALIZED VIEW total AS SELECT sum(balance)::bigint AS s FROM accounts;
             CREATE MATERIALIZED VIEW transfers AS SELECT count(*) AS n FROM ledger;",
        )
        .await
        .expect("the set-up runs");
    drop(client);
    server.kill();
    let acknowledged: Vec<Arc<AtomicI64>> = (0..WRITERS).map(|_| Arc::default()).collect();
    for kill in 0..kills {
        let context = format!("seed {seed}, kill {kill}");
        let workers = ["1", "2", "3"][kill as usize % 3];
        let server = serve(directory.path(), workers);
        let client = server.connect().await;
        check(&client, &acknowledged, &context).await;
        // Where a write was in doubt, it is settled now.
        for (writer, acknowledged) in acknowledged.iter().enumerate() {
            let sql = format!("SELECT coalesce(max(n), 0) FROM ledger WHERE writer = {writer}");
            acknowledged.store(number(&client, &sql).await, Ordering::SeqCst);
        }
        let mut writers = Vec::new();
        for (writer, acknowledged) in acknowledged.iter().enumerate() {
            let (client, acknowledged) = (server.connect().await, acknowledged.clone());
            writers.push(tokio::spawn(write(client, writer as i64, acknowledged, random.random())));
        }
        // Killed in the midst of writing, however slow the machine is.
        let acknowledged_now =
            || acknowledged.iter().map(|a| a.load(Ordering::SeqCst)).sum::<i64>();
        let before = acknowledged_now();
        let started = tokio::time::timeout(PATIENCE, async {
            while acknowledged_now() == before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        started.await.unwrap_or_else(|_| panic!("{context}: nothing is written"));
        let pause = Duration::from_millis(random.random_range(0..400));
        let reads = tokio::time::timeout(pause, async {
            loop {
                let row = client.query_one("SELECT s FROM total", &[]).await.expect("answers");
                assert_eq!(row.get::<_, i64>(0), ACCOUNTS * 1000, "{context}: while it runs");
            }
        });
        let _ = reads.await;
        server.kill();
        for writer in writers {
            writer.await.expect("a writer does not panic");
        }
    }
    let server = serve(directory.path(), "2");
    check(&server.connect().await, &acknowledged, &format!("seed {seed}, at the end")).await;
    let written: i64 = acknowledged.iter().map(|a| a.load(Ordering::SeqCst)).sum();
    assert!(written >= kills as i64, "only {written} transfers were acknowledged");
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
