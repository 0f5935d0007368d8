//! The program killed with SIGKILL while clients write and sources are read, again and again: what
//! was acknowledged is there afterwards, money neither comes nor goes, every row of a source counts
//! once, and no view differs from its query. On a disk, and in a bucket of a server that the test
//! starts. Sinks over the same views write files, and to a PostgreSQL that the test starts, which is
//! killed now and then, too: afterwards these have every result once.
//!
//! `MILLSTREAM_KILLS=1000 cargo test --test sql_tests kill` runs longer; `MILLSTREAM_SEED` replays
//! the moments of one run (the machine's own timing is not replayed).

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::{Client, NoTls};

use crate::postgres::{Postgres, lines_of};

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(120);
const ACCOUNTS: i64 = 20;
const WRITERS: i64 = 3;

/// A `millstream serve` over a directory.
pub struct Served {
    child: Child,
    pub url: String,
}

/// Where a server keeps its state.
#[derive(Clone)]
pub struct Place {
    pub directory: PathBuf,
    /// A bucket; otherwise the directory.
    bucket: Option<String>,
    /// Where the bucket is.
    variables: Vec<(&'static str, String)>,
}

impl Place {
    pub fn disk(directory: &Path) -> Place {
        Place { directory: directory.to_owned(), bucket: None, variables: Vec::new() }
    }
}

fn serve(directory: &Path, workers: &str) -> Served {
    serve_in(&Place::disk(directory), workers, &[])
}

pub fn serve_in(place: &Place, workers: &str, more: &[&str]) -> Served {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
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
    // Read on, so that the server never waits for us.
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    Served { child, url }
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

    pub fn kill(mut self) {
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

/// Views over a source, each other and a table, with the queries that they must equal once the
/// source has ended.
const VIEWS: [(&str, &str); 5] = [
    ("bids", "SELECT count(*) AS n, sum(price) AS s, count(DISTINCT auction) AS a FROM bid"),
    ("per_auction", "SELECT auction, count(*) AS n, max(price) AS p FROM bid GROUP BY auction"),
    ("all_auctions", "SELECT count(*) AS auctions, sum(n)::bigint AS n FROM per_auction"),
    (
        "best",
        "SELECT auction, price, r FROM (SELECT auction, price, row_number() OVER \
         (PARTITION BY auction % 50 ORDER BY price DESC, auction, bidder, date_time) AS r FROM bid) x \
         WHERE r <= 3",
    ),
    (
        "named",
        "SELECT n.label, count(*) AS n, min(b.price) AS p FROM bid b JOIN names n \
         ON n.id = b.auction % 10 GROUP BY n.label",
    ),
];

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

/// What must hold of the views over the source at every moment; how many rows it has given.
async fn check_source(client: &Client, at_least: i64, context: &str) -> i64 {
    let row = client
        .query_one("SELECT b.n, a.n, a.auctions, b.a FROM bids b CROSS JOIN all_auctions a", &[])
        .await
        .unwrap_or_else(|error| panic!("{context}: {error}"));
    let values: [i64; 4] =
        std::array::from_fn(|index| row.get::<_, Option<i64>>(index).unwrap_or(0));
    assert_eq!(values[0], values[1], "{context}: rows and rows per auction");
    assert_eq!(values[2], values[3], "{context}: auctions");
    assert!(values[0] >= at_least, "{context}: {} rows, {at_least} were durable", values[0]);
    values[0]
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|v| v.parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_loses_nothing_it_acknowledged() {
    let directory = tempfile::tempdir().expect("a folder can be made");
    let kills = variable("MILLSTREAM_KILLS").unwrap_or(6);
    let out = tempfile::tempdir().expect("a folder can be made");
    let mut outside = Outside { folder: out.path().to_owned(), postgres: Postgres::start().await };
    kill_again_and_again(&Place::disk(directory.path()), kills, Some(&mut outside)).await;
}

/// Where sinks write.
struct Outside {
    folder: PathBuf,
    /// None where there is none.
    postgres: Option<Postgres>,
}

impl Outside {
    /// Sinks over what the set-up has made.
    fn sinks(&self) -> String {
        let folder = self.folder.display();
        let mut sinks = format!(
            "CREATE SINK bid_lines AS SELECT auction, price FROM bid
                WITH (connector = 'file', path = '{folder}/bids', file_rows = 1000);
             CREATE SINK auction_changes FROM per_auction WITH (connector = 'file',
                path = '{folder}/auctions', envelope = 'changelog', commit_interval = '1 second');
             CREATE SINK ledger_changes FROM ledger WITH (connector = 'file',
                path = '{folder}/ledger', envelope = 'changelog', partition_by = 'writer');"
        );
        let Some(postgres) = &self.postgres else { return sinks };
        for (name, from) in [
            ("named_there", "FROM named"),
            ("ledger_there", "FROM ledger"),
            ("accounts_there", "FROM accounts"),
        ] {
            let (url, table) = (postgres.url(), name.trim_end_matches("_there"));
            sinks += &format!(
                "CREATE SINK {name} {from} WITH (connector = 'postgres', url = '{url}',
                    table = '{table}', create_table = true);"
            );
        }
        let url = postgres.url();
        sinks += &format!(
            "CREATE SINK bids_there AS SELECT auction, price FROM bid WITH (connector = 'postgres',
                url = '{url}', table = 'bids', create_table = true, mode = 'append');"
        );
        sinks
    }

    /// Everything is there once. No writer is at work.
    async fn check(&self, client: &Client, context: &str) {
        let settled = tokio::time::timeout(PATIENCE, async {
            loop {
                client.batch_execute("CHECKPOINT").await.expect("is written");
                let pending = "SELECT coalesce(sum(pending_rows), 0)::bigint FROM millstream.sinks";
                let stopped = "SELECT count(*) FROM millstream.sinks WHERE state = 'stopped'";
                assert_eq!(number(client, stopped).await, 0, "{context}: a sink has stopped");
                if number(client, pending).await == 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        settled.await.unwrap_or_else(|_| panic!("{context}: sinks do not come to an end"));
        let mut bids = Vec::new();
        lines_of(&self.folder.join("bids"), &mut bids);
        bids.sort_unstable();
        let bid = |row: String| {
            let (auction, price) = row.split_once('|').expect("two columns");
            format!("{{\"auction\":{auction},\"price\":{price}}}")
        };
        let shown = rows(client, "SELECT auction, price FROM bid").await;
        let mut shown: Vec<String> = shown.into_iter().map(bid).collect();
        shown.sort_unstable();
        assert!(bids == shown, "{context}: {} bids instead of {}", bids.len(), shown.len());
        for (folder, query) in [
            ("auctions", "SELECT count(*) FROM per_auction"),
            ("ledger", "SELECT count(*) FROM ledger"),
        ] {
            let mut lines = Vec::new();
            lines_of(&self.folder.join(folder), &mut lines);
            let count = |op: &str| lines.iter().filter(|line| line.contains(op)).count() as i64;
            let left = count("\"op\":\"insert\"") - count("\"op\":\"delete\"");
            assert_eq!(left, number(client, query).await, "{context}: {folder}");
        }
        let Some(postgres) = &self.postgres else { return };
        let theirs = postgres.connect().await;
        for (own, there) in [
            ("SELECT label, n, p FROM named", "SELECT label, n, p FROM named"),
            ("SELECT writer, n FROM ledger", "SELECT writer, n FROM ledger"),
            ("SELECT id, balance FROM accounts", "SELECT id, balance FROM accounts"),
            ("SELECT auction, price FROM bid", "SELECT auction, price FROM bids"),
        ] {
            let (own, there) = (rows(client, own).await, rows(&theirs, there).await);
            assert!(own == there, "{context}: {} rows instead of {}", there.len(), own.len());
        }
    }
}

async fn kill_again_and_again(place: &Place, kills: u64, mut outside: Option<&mut Outside>) {
    let seed = variable("MILLSTREAM_SEED").unwrap_or_else(rand::random);
    let mut random = StdRng::seed_from_u64(seed);
    let server = serve_in(place, "2", &[]);
    let client = server.connect().await;
    let mut set_up = "
        CREATE TABLE names (id bigint PRIMARY KEY, label text);
        INSERT INTO names SELECT g, 'name ' || g % 4 FROM generate_series(0, 9) g(g);
        CREATE SOURCE bid WITH (connector = 'nexmark', table.type = 'bid',
            events.limit = 60000, rate = 12000);"
        .to_owned();
    for (name, query) in VIEWS {
        set_up += &format!("CREATE MATERIALIZED VIEW {name} AS {query};");
    }
    client.batch_execute(&set_up).await.expect("the set-up runs");
    // Rows of the source that a checkpoint has.
    let mut durable_rows = 0;
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
    if let Some(outside) = &outside {
        client.batch_execute(&outside.sinks()).await.expect("the sinks are made");
    }
    drop(client);
    server.kill();
    let acknowledged: Vec<Arc<AtomicI64>> = (0..WRITERS).map(|_| Arc::default()).collect();
    for kill in 0..kills {
        let context = format!("seed {seed}, kill {kill}");
        let workers = ["1", "2", "3"][kill as usize % 3];
        let server = serve_in(place, workers, &[]);
        let client = server.connect().await;
        check(&client, &acknowledged, &context).await;
        check_source(&client, durable_rows, &context).await;
        if random.random_bool(0.5) {
            let shown = check_source(&client, durable_rows, &context).await;
            client.batch_execute("CHECKPOINT").await.expect("is written");
            durable_rows = shown;
        }
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
        if random.random_bool(0.3)
            && let Some(Outside { postgres: Some(postgres), .. }) = outside.as_deref_mut()
        {
            postgres.stop();
            postgres.resume().await;
        }
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
    let server = serve_in(place, "2", &[]);
    let client = server.connect().await;
    let context = format!("seed {seed}, at the end");
    check(&client, &acknowledged, &context).await;
    check_source(&client, durable_rows, &context).await;
    client.batch_execute("FLUSH").await.expect("the source ends");
    for (view, query) in VIEWS {
        let shown = rows(&client, &format!("SELECT * FROM {view}")).await;
        assert_eq!(shown, rows(&client, query).await, "{context}: {view}");
    }
    assert_eq!(rows(&client, "SELECT n FROM bids").await, ["55200"], "{context}: every bid once");
    let written: i64 = acknowledged.iter().map(|a| a.load(Ordering::SeqCst)).sum();
    assert!(written >= kills as i64, "only {written} transfers were acknowledged");
    if let Some(outside) = &outside {
        outside.check(&client, &context).await;
    }
    server.kill();
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

/// An S3-compatible server of this test's own; `None`, with the reason, where there is none.
struct Bucket {
    child: Child,
    place: Place,
}

impl Drop for Bucket {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bucket(directory: &Path) -> Option<Bucket> {
    let python = crate::clients::needed("S3", crate::clients::python(&[MOTO]))?;
    let folder = python.parent().expect("it is in a folder");
    let mut command = Command::new(folder.join("moto_server"));
    command.args(["-H", "127.0.0.1", "-p", "0"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the server starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut log = String::new();
    let endpoint = loop {
        let start = log.len();
        assert!(stderr.read_line(&mut log).expect("it logs") > 0, "S3 ended:\n{log}");
        if let Some(at) = log[start..].find("http://127.0.0.1:") {
            let rest = &log[start + at..];
            break rest.split_whitespace().next().expect("an address").to_owned();
        }
    };
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    let variables = vec![
        ("AWS_ENDPOINT_URL", endpoint.clone()),
        ("AWS_ACCESS_KEY_ID", "key".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
    ];
    let made = "import sys, urllib.request as u; \
                u.urlopen(u.Request(sys.argv[1] + '/bucket', method='PUT'))";
    let status = Command::new(&python).args(["-c", made, &endpoint]).status();
    assert!(status.expect("python runs").success(), "a bucket can be made");
    let bucket = Some("s3://bucket/some/prefix".to_owned());
    let place = Place { directory: directory.to_owned(), bucket, variables };
    Some(Bucket { child, place })
}

/// An S3-compatible server from PyPI.
const MOTO: &str = "moto[server]==5.2.5";

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_as_good_as_a_disk() {
    let directory = tempfile::tempdir().expect("a folder can be made");
    let Some(bucket) = bucket(directory.path()) else { return };
    let kills = variable("MILLSTREAM_KILLS").unwrap_or(3).min(20);
    kill_again_and_again(&bucket.place, kills, None).await;
    // Two servers on one bucket: the older ends.
    let older = serve_in(&bucket.place, "1", &[]);
    let newer = serve_in(&bucket.place, "1", &[]);
    assert_eq!(older.ended(), Some(1));
    newer.kill();
    assert!(!directory.path().join("storage").exists(), "nothing is on the disk");
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
