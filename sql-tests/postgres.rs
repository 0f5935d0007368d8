//! A real PostgreSQL of the tests' own, and sinks that write to it.
//!
//! Debian's package `postgresql-15` has all that is needed; `.ci/run` installs it. Where there is
//! none, the tests that want one say so and are skipped; where the variable CI is set it must be
//! there.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use millstream::slt::PrivateServer;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// How long a server may take to start, and a sink to write.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running PostgreSQL with a database `postgres` and a user `ann`, who may do everything.
pub struct Postgres {
    child: Option<Child>,
    /// Of all that it keeps.
    folder: tempfile::TempDir,
    programs: PathBuf,
    port: u16,
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The folder with its programs.
fn programs() -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let known = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = known.map(|entry| entry.path().join("bin")).collect();
    folders.sort();
    folders.reverse();
    folders.extend(std::env::split_paths(&path));
    let has_it =
        |folder: &PathBuf| folder.join("initdb").exists() && folder.join("postgres").exists();
    folders.into_iter().find(has_it).ok_or_else(|| "PostgreSQL is not installed".to_owned())
}

/// A program as a user that PostgreSQL runs as: not as root.
fn as_other(program: PathBuf) -> Command {
    let own_id = Command::new("id").arg("-u").output().expect("id runs");
    if own_id.stdout.trim_ascii() != b"0" {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    command
}

impl Postgres {
    /// Starts one with an empty database; `None` where there is none, which has been said.
    pub async fn start() -> Option<Postgres> {
        let programs = crate::clients::needed("PostgreSQL", programs())?;
        let folder = tempfile::tempdir().expect("a folder can be made");
        let place = folder.path().to_str().expect("UTF-8").to_owned();
        let data = folder.path().join("data");
        // Root gives the folder to whoever it runs as.
        let _ = Command::new("chown").args(["postgres", &place]).stderr(Stdio::null()).status();
        let mut initdb = as_other(programs.join("initdb"));
        initdb.current_dir("/").arg("-D").arg(&data);
        initdb.args([
            "--username=ann",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]);
        let made = initdb.output().expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // Free now; who takes it meanwhile makes the start fail.
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("free").port();
        let mut postgres = Postgres { child: None, folder, programs, port };
        postgres.resume().await;
        Some(postgres)
    }

    /// Starts it again with what it has.
    pub async fn resume(&mut self) {
        let mut command = as_other(self.programs.join("postgres"));
        command.current_dir("/").arg("-D").arg(self.folder.path().join("data"));
        command.args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
        command.args(["-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "timezone=UTC"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("PostgreSQL starts"));
        let connected = tokio::time::timeout(PATIENCE, async {
            while tokio_postgres::connect(&self.url(), NoTls).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        connected.await.expect("PostgreSQL listens in time");
    }

    /// Kills it; what was committed is on its disk.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            // Its own processes end when they notice.
            std::thread::sleep(Duration::from_millis(200));
            let pid_file = self.folder.path().join("data/postmaster.pid");
            let _ = std::fs::remove_file(pid_file);
        }
    }

    pub fn url(&self) -> String {
        format!("postgres://ann@127.0.0.1:{}/postgres", self.port)
    }

    pub async fn connect(&self) -> Client {
        let (client, connection) =
            tokio_postgres::connect(&self.url(), NoTls).await.expect("it listens");
        tokio::spawn(connection);
        client
    }
}

/// The rows of a query, each as one text, in the order of these texts.
pub async fn rows(client: &Client, sql: &str) -> Vec<String> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => {
            let values = (0..row.len()).map(|c| row.get(c).unwrap_or("NULL").to_owned());
            Some(values.collect::<Vec<_>>().join("|"))
        }
        _ => None,
    };
    let mut rows: Vec<String> = messages.into_iter().filter_map(row).collect();
    rows.sort_unstable();
    rows
}

async fn run(client: &Client, script: &str) {
    for statement in script.split_inclusive(";\n").filter(|s| !s.trim().is_empty()) {
        client.batch_execute(statement).await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
    }
}

/// SQLSTATE and message of a statement that fails.
async fn error(client: &Client, sql: &str) -> String {
    let error = client.batch_execute(sql).await.expect_err(sql);
    let error = error.as_db_error().expect("the server's");
    format!("{} {}", error.code().code(), error.message())
}

/// Waits until a query gives these rows.
async fn until(client: &Client, sql: &str, expected: &[&str]) {
    let mut found = Vec::new();
    let waited = tokio::time::timeout(PATIENCE, async {
        while found != expected {
            tokio::time::sleep(Duration::from_millis(50)).await;
            found = rows(client, sql).await;
        }
    });
    if waited.await.is_err() {
        panic!("{sql} gives {found:?}");
    }
}

/// Both sides show the same.
async fn same(ours: &Client, theirs: &Client, own: &str, there: &str) {
    run(ours, "CHECKPOINT;\n").await;
    let (own, there) = (rows(ours, own).await, rows(theirs, there).await);
    assert_eq!(there, own);
    assert!(!own.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_postgres_follows_a_query() {
    let Some(mut postgres) = Postgres::start().await else { return };
    let server = PrivateServer::start(2).await.expect("the server starts");
    let (ours, connection) = server.client_config().connect(NoTls).await.expect("connects");
    tokio::spawn(connection);
    let theirs = postgres.connect().await;
    let url = postgres.url();

    // Every type comes as what it is.
    let types = "b boolean, s smallint, i int, l bigint, r real, d double precision, \
        n numeric(12,3), m numeric, t text, vc varchar(9), x bytea, da date, ti time, \
        ts timestamp, tz timestamptz, iv interval, u uuid, j json, jb jsonb, a int[], ta text[]";
    let all = "k, b, s, i, l, r, d, n, m, t, vc, x, da, ti, ts, tz, iv, u, j::text, jb, a, ta";
    run(&ours, &format!("CREATE TABLE kinds (k int PRIMARY KEY, {types});\n")).await;
    run(
        &ours,
        "INSERT INTO kinds VALUES (1, true, 1, -2, 9000000000, 1.5, -0.25, 123.456, -7.5, E'a\\tb\\n\\\\c''ä', 'vc', '\\x00ff5c', '2020-02-29', '23:59:59.999999', '2020-01-01 00:00:00.5', '2020-01-01 00:00:00+02', '1 mon 2 days 00:00:00.000003', '00000000-0000-0000-0000-000000000001', '{\"a\": 1}', '{\"b\": [1, null]}', '{1,NULL,3}', '{\"x,y\",NULL,\"\"}');\n\
         INSERT INTO kinds (k, t, d, r) VALUES (2, '', 'NaN', 'Infinity');\n\
         INSERT INTO kinds (k, da, ts) VALUES (3, '0044-03-15 BC', '1900-01-01');\n",
    )
    .await;
    let sink = |name: &str, from: &str, options: &str| {
        format!(
            "CREATE SINK {name} {from} WITH (connector = 'postgres', url = '{url}', {options});\n"
        )
    };
    run(&ours, &sink("kinds_there", "FROM kinds", "table = 'kinds', create_table = true")).await;
    same(&ours, &theirs, &format!("SELECT {all} FROM kinds"), &format!("SELECT {all} FROM kinds"))
        .await;
    let declared = "SELECT string_agg(format_type(atttypid, atttypmod), ', ' ORDER BY attnum) \
        FROM pg_attribute WHERE attrelid = 'kinds'::regclass AND attnum > 0";
    assert_eq!(
        rows(&theirs, declared).await,
        ["integer, boolean, smallint, integer, bigint, real, double precision, numeric(12,3), \
          numeric, text, text, bytea, date, time without time zone, \
          timestamp without time zone, timestamp with time zone, interval, uuid, json, jsonb, \
          integer[], text[]"]
    );

    // A view by its key, found behind the view: rows come, change and go. NULL is a group, too.
    run(
        &ours,
        "CREATE TABLE t (k int PRIMARY KEY, g text, v int);\n\
         CREATE MATERIALIZED VIEW m AS SELECT g, count(*) AS n, sum(v) AS s FROM t GROUP BY g;\n\
         INSERT INTO t SELECT n, CASE WHEN n % 4 > 0 THEN 'g' || n % 4 END, n FROM generate_series(1, 40) x(n);\n",
    )
    .await;
    run(&theirs, "CREATE SCHEMA reports;\n").await;
    run(&ours, &sink("m_there", "FROM m", "table = 'reports.m', create_table = true")).await;
    let (here, there) = ("SELECT g, n, s FROM m", "SELECT g, n, s FROM reports.m");
    same(&ours, &theirs, here, there).await;
    run(&ours, "DELETE FROM t WHERE g = 'g1';\nUPDATE t SET g = 'new' WHERE k = 3;\n").await;
    same(&ours, &theirs, here, there).await;
    run(&ours, "DELETE FROM t WHERE g IS NULL;\nINSERT INTO t VALUES (1, 'g1', 5);\n").await;
    same(&ours, &theirs, here, there).await;

    // Rows that only come are appended, each once, copies too.
    run(
        &ours,
        "CREATE TABLE log (id int, note text) APPEND ONLY;\n\
         INSERT INTO log VALUES (1, 'a'), (1, 'a'), (2, NULL);\n",
    )
    .await;
    run(&theirs, "CREATE TABLE log (id int, note text, at timestamptz DEFAULT now());\n").await;
    run(&ours, &sink("log_there", "FROM log", "table = 'log'")).await;
    same(&ours, &theirs, "SELECT * FROM log", "SELECT id, note FROM log").await;
    run(&ours, "INSERT INTO log SELECT n, 'many' FROM generate_series(1, 20000) x(n);\n").await;
    same(&ours, &theirs, "SELECT * FROM log", "SELECT id, note FROM log").await;

    // What cannot work is said when the sink is made.
    let refused = sink("no_table", "FROM t", "table = 'nothing'");
    assert_eq!(
        error(&ours, &refused).await,
        "HV000 the target says: relation \"nothing\" does not exist (42P01)"
    );
    let refused = sink("no_key", "FROM t", "table = 'log', primary_key = 'k'");
    assert_eq!(
        error(&ours, &refused).await,
        "HV000 the target says: column \"k\" of relation \"log\" does not exist (42703)"
    );
    run(&theirs, "CREATE TABLE keyless (k int, g text, v int);\n").await;
    let refused = sink("no_key", "FROM t", "table = 'keyless'");
    assert!(error(&ours, &refused).await.contains("42P10"), "it needs a constraint");

    // A target that is away stops nobody, and gets everything later.
    postgres.stop();
    run(&ours, "UPDATE t SET v = v + 1;\nINSERT INTO log VALUES (7, 'away');\nCHECKPOINT;\n").await;
    let state =
        "SELECT DISTINCT state FROM millstream.sinks WHERE name IN ('m_there', 'log_there')";
    until(&ours, state, &["retrying"]).await;
    assert_eq!(rows(&ours, "SELECT count(*) FROM m").await.len(), 1, "views answer");
    run(&ours, "DELETE FROM t WHERE k > 20;\n").await;
    postgres.resume().await;
    let theirs = postgres.connect().await;
    until(&ours, state, &["running"]).await;
    until(&ours, "SELECT sum(pending_rows) FROM millstream.sinks", &["0"]).await;
    same(&ours, &theirs, here, there).await;
    same(&ours, &theirs, "SELECT * FROM log", "SELECT id, note FROM log").await;

    // Two rows of one key are an error that is told.
    run(
        &ours,
        &sink(
            "twice",
            "AS SELECT g, v FROM t",
            "table = 'twice', create_table = true, primary_key = 'g'",
        ),
    )
    .await;
    run(&ours, "CHECKPOINT;\n").await;
    let told = "SELECT last_error FROM millstream.sinks WHERE name = 'twice'";
    assert!(rows(&ours, told).await[0].contains("two rows have the same g"));
    run(&ours, "DROP SINK twice, m_there, log_there, kinds_there;\n").await;
    let noted = rows(&theirs, "SELECT sink FROM millstream_progress WHERE epoch >= 0").await;
    assert_eq!(noted, ["kinds_there", "log_there", "m_there"]);
    drop(ours);
    server.stop().await;
}

/// The lines of all files of a sink.
pub fn lines_of(folder: &Path, lines: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            lines_of(&path, lines);
        } else if !path.to_string_lossy().contains('#') {
            let text = std::fs::read_to_string(&path).expect("readable");
            assert!(text.is_empty() || text.ends_with('\n'), "{} is whole", path.display());
            lines.extend(text.lines().map(str::to_owned));
        }
    }
}
