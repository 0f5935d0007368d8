//! Real clients against a real server: each connects over TCP and does what applications do.
//!
//! The scripts beside this file also run against Postgres 15 (`CLIENT_TEST_SERVER=postgres`, with
//! PGHOST, PGPORT, PGUSER and PGDATABASE), which is how their expectations were found.
//!
//! A client whose runtime is missing is skipped with the reason; where the variable CI is set, it
//! must be there. Drivers are installed once, below the target folder.

mod tokio_postgres_client;
mod wire;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use millstream::slt::PrivateServer;
use tokio::runtime::Runtime;

/// How long a client may take for all of its tests. They take seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long installing a driver may take.
const INSTALL_PATIENCE: Duration = Duration::from_secs(600);

/// What is installed. The versions are part of the folder's name: a new one is installed afresh.
const PSYCOPG: &str = "psycopg[binary]==3.3.9";
const ASYNCPG: &str = "asyncpg==0.32.0";
const SQLALCHEMY: &str = "sqlalchemy==2.1.9";
const JDBC_VERSION: &str = "42.7.7";
const NODE_POSTGRES_VERSION: &str = "8.23.1";

/// A server of its own for one test.
pub struct TestServer {
    runtime: Runtime,
    server: PrivateServer,
}

impl TestServer {
    pub fn start() -> TestServer {
        let runtime = Runtime::new().expect("threads can be started");
        let server = runtime.block_on(PrivateServer::start(2)).expect("the server starts");
        TestServer { runtime, server }
    }

    pub fn address(&self) -> SocketAddr {
        self.server.server().postgres_address()
    }

    /// Runs a client of this process to its end, then stops the server.
    pub fn run<T>(self, client: impl AsyncFnOnce(SocketAddr) -> T) -> T {
        let address = self.address();
        let output = self.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, client(address)).await.expect("the client ends")
        });
        self.runtime.block_on(self.server.stop());
        output
    }

    /// Runs a program that finds the server in the environment, then stops the server.
    fn run_program(self, mut command: Command, input: &[u8]) -> Output {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command
            .env("PGHOST", self.address().ip().to_string())
            .env("PGPORT", self.address().port().to_string())
            .env("PGUSER", "ann")
            .env("PGDATABASE", "millstream")
            .env("PGTZ", "UTC")
            .env("CLIENT_TEST_SERVER", "millstream");
        let output = run(command, input, PATIENCE).expect("the client can be run");
        self.runtime.block_on(self.server.stop());
        output
    }
}

/// Runs a program to its end; one that takes longer than `patience` is killed.
fn run(mut command: Command, input: &[u8], patience: Duration) -> Result<Output, String> {
    let name = format!("{:?}", command.get_program());
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| format!("{name}: {error}"))?;
    let id = child.id().to_string();
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    let (send, receive) = mpsc::sync_channel(1);
    let wait = move || {
        // A program that ended early does not read; what it printed says why.
        let _ = stdin.write_all(&input);
        drop(stdin);
        let _ = send.send(child.wait_with_output());
    };
    std::thread::Builder::new().spawn(wait).expect("a thread can be started");
    match receive.recv_timeout(patience) {
        Ok(output) => output.map_err(|error| format!("{name}: {error}")),
        Err(_) => {
            let _ = Command::new("kill").args(["-9", &id]).status();
            Err(format!("{name} takes longer than {} s", patience.as_secs()))
        }
    }
}

/// Runs a program that must succeed.
fn succeed(command: Command) -> Result<String, String> {
    let name = format!("{:?}", command.get_program());
    let output = run(command, b"", INSTALL_PATIENCE)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("{name}: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr)))
    }
}

fn command(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// What a test needs from outside, or `None` after saying why it is skipped.
#[expect(clippy::print_stdout, reason = "whoever runs the tests should see what was left out")]
pub fn needed<T>(client: &str, found: Result<T, String>) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(reason) if std::env::var_os("CI").is_some() => panic!("{client}: {reason}"),
        Err(reason) => {
            println!("skipped {client}: {reason}");
            None
        }
    }
}

fn script(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql-tests/clients").join(name);
    path.to_str().expect("the checkout's path is UTF-8").to_owned()
}

/// A folder below the target folder that `fill` filled completely, now or earlier.
fn installed(
    name: &str,
    fill: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients").join(name);
    let complete = folder.join("complete");
    if complete.exists() {
        return Ok(folder);
    }
    let text = |error: std::io::Error| format!("{}: {error}", folder.display());
    // What an interrupted run left behind.
    if folder.exists() {
        std::fs::remove_dir_all(&folder).map_err(text)?;
    }
    std::fs::create_dir_all(&folder).map_err(text)?;
    fill(&folder)?;
    std::fs::write(complete, "").map_err(text)?;
    Ok(folder)
}

/// A Python with these packages in it.
pub fn python(packages: &[&str]) -> Result<PathBuf, String> {
    let name = packages.join("-").replace(['[', ']', '='], "-");
    let folder = installed(&name, |folder| {
        let path = folder.to_str().ok_or("the target folder's path is not UTF-8")?;
        succeed(command("python3", &["-m", "venv", path]))?;
        let python = folder.join("bin/python");
        let mut install =
            command(python, &["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        install.args(packages);
        succeed(install).map(|_| ())
    })?;
    Ok(folder.join("bin/python"))
}

/// A folder with a package of the npm registry, `name@version`.
pub fn node(package: &str) -> Result<PathBuf, String> {
    installed(&package.replace('@', "-"), |folder| {
        succeed(command("node", &["--version"]))?;
        let path = folder.to_str().ok_or("the target folder's path is not UTF-8")?;
        let flags = ["install", "--silent", "--no-fund", "--no-audit", "--prefix", path, package];
        succeed(command("npm", &flags)).map(|_| ())
    })
}

/// The output of a client must say that all of its tests passed.
fn check_passed(client: &str, output: &Output) {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let passed = output.status.success() && stdout.contains("ok subscribe");
    assert!(passed, "{client}: {}\n{stdout}{stderr}", output.status);
}

#[test]
fn psycopg() {
    let Some(python) = needed("psycopg", python(&[PSYCOPG])) else { return };
    let client = command(python, &[&script("psycopg_client.py")]);
    check_passed("psycopg", &TestServer::start().run_program(client, b""));
}

#[test]
fn asyncpg() {
    let Some(python) = needed("asyncpg", python(&[ASYNCPG])) else { return };
    let client = command(python, &[&script("asyncpg_client.py")]);
    check_passed("asyncpg", &TestServer::start().run_program(client, b""));
}

#[test]
fn sqlalchemy() {
    let Some(python) = needed("SQLAlchemy", python(&[PSYCOPG, SQLALCHEMY])) else { return };
    let client = command(python, &[&script("sqlalchemy_client.py")]);
    check_passed("SQLAlchemy", &TestServer::start().run_program(client, b""));
}

#[test]
fn jdbc() {
    let jar = format!("postgresql-{JDBC_VERSION}.jar");
    let found = installed(&format!("jdbc-{JDBC_VERSION}"), |folder| {
        succeed(command("java", &["-version"]))?;
        let artifact = format!("-Dartifact=org.postgresql:postgresql:{JDBC_VERSION}");
        let output = format!("-DoutputDirectory={}", folder.display());
        let mut copy = command("mvn", &["-q", "-B", "dependency:copy", &artifact, &output]);
        // Away from any project.
        copy.current_dir(folder);
        succeed(copy).map(|_| ())
    });
    let Some(folder) = needed("JDBC", found) else { return };
    let jar = folder.join(jar);
    let jar = jar.to_str().expect("checked when it was installed");
    let client = command("java", &["-cp", jar, &script("JdbcClient.java")]);
    check_passed("JDBC", &TestServer::start().run_program(client, b""));
}

#[test]
fn node_postgres() {
    let package = format!("pg@{NODE_POSTGRES_VERSION}");
    let Some(folder) = needed("node-postgres", node(&package)) else { return };
    let mut client = command("node", &["--no-deprecation", &script("node_postgres_client.js")]);
    client.env("NODE_PATH", folder.join("node_modules"));
    check_passed("node-postgres", &TestServer::start().run_program(client, b""));
}

/// What psql prints for a file of `sql-tests/clients`, errors between the results they follow.
fn check_psql(input: &str, expected: &expect_test::ExpectFile) {
    let input = std::fs::read(script(input)).expect("it is there");
    let psql = command("sh", &["-c", "psql -X --echo-queries 2>&1"]);
    let output = TestServer::start().run_program(psql, &input);
    expected.assert_eq(&String::from_utf8_lossy(&output.stdout));
}

#[test]
fn psql() {
    let version = succeed(command("psql", &["--version"]));
    let Some(_) = needed("psql", version) else { return };
    check_psql("psql.sql", &expect_test::expect_file!["./psql.out"]);
    check_psql("psql_describe.sql", &expect_test::expect_file!["./psql_describe.out"]);
    // Rows of a SUBSCRIBE, a screen at a time.
    let live = "CREATE TABLE t (a integer PRIMARY KEY);\nINSERT INTO t VALUES (1);\nBEGIN;\n\
                DECLARE live CURSOR FOR SUBSCRIBE (SELECT a FROM t);\nFETCH 1 FROM live;\nCOMMIT;\n\
                \\d t\n";
    let psql = command("psql", &["-X", "--quiet", "--tuples-only", "--no-align"]);
    let output = TestServer::start().run_program(psql, live.as_bytes());
    let found = String::from_utf8_lossy(&output.stdout);
    assert!(found.contains("|1\n"), "{found}{}", String::from_utf8_lossy(&output.stderr));
    assert!(found.contains("a|integer|"), "{found}{}", String::from_utf8_lossy(&output.stderr));
}
