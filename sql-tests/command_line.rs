//! The program as a person runs it: its commands, exit codes, what it prints and where.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long a command may take before the test gives it up.
const PATIENCE: Duration = Duration::from_secs(120);

fn millstream(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
    // Variables of whoever runs the tests must not count.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MILLSTREAM_") {
            command.env_remove(name);
        }
    }
    command.args(arguments);
    command
}

/// Runs a command to its end, with `input` as its standard input.
fn run(mut command: Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("the program reads");
    drop(stdin);
    child.wait_with_output().expect("the program ends")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("output is UTF-8")
}

/// A `millstream serve` of its own, stopped with SIGTERM.
struct Served {
    child: Child,
    url: String,
    http: String,
    _data_dir: tempfile::TempDir,
}

impl Served {
    fn start() -> Served {
        let data_dir = tempfile::tempdir().expect("a folder can be made");
        let folder = data_dir.path().to_str().expect("UTF-8");
        let any = "127.0.0.1:0";
        let mut child =
            millstream(&["serve", "--data-dir", folder, "--listen", any, "--http", any])
                .stderr(Stdio::piped())
                .spawn()
                .expect("the program starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        stderr.read_line(&mut line).expect("the server logs that it is ready");
        let field = |name: &str| {
            let rest = line.split(&format!("{name}=")).nth(1);
            let value = rest.and_then(|rest| rest.split_whitespace().next());
            value.unwrap_or_else(|| panic!("no {name} in {line}")).to_owned()
        };
        let (url, http) = (format!("postgres://{}/millstream", field("postgres")), field("http"));
        // Read on, so that the server never waits for us.
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        Served { child, url, http, _data_dir: data_dir }
    }

    /// Sends a signal and gives the exit code.
    fn stop(mut self, signal: &str) -> Option<i32> {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.expect("there is kill").success());
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                return status.code();
            }
            if started.elapsed() > PATIENCE {
                self.child.kill().expect("a child can be killed");
                panic!("the server did not stop after {signal}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn write(folder: &Path, name: &str, content: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).expect("a file can be written");
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn run_prints_results_and_stops_at_the_first_error() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = write(
        folder.path(),
        "a.sql",
        "CREATE TABLE t (a int PRIMARY KEY, b text);\n\
         INSERT INTO t VALUES (1, 'one'), (2, NULL);\n\
         \\dt\n\
         COPY t FROM STDIN;\n\
         3\tthree\n\
         \\.\n\
         SELECT * FROM t ORDER BY a;\n\
         SELECT 1\n  FROM nope;\n\
         SELECT 'not reached';\n",
    );
    let data_dir = folder.path().join("data");
    let data_dir = data_dir.to_str().expect("UTF-8");
    let output = run(millstream(&["run", &file, "--data-dir", data_dir, "--log", "warn"]), "");
    assert_eq!(
        text(&output.stdout),
        "CREATE TABLE\nINSERT 0 2\n schema | name | kind  \n--------+------+-------\n \
         public | t    | table\n(1 row)\n\nCOPY 1\n a |   b   \n---+-------\n 1 | one\n 2 | NULL\n \
         3 | three\n(3 rows)\n\n"
    );
    let stderr = text(&output.stderr);
    let expected = format!("{file}:9:8: ERROR:  42P01: relation \"nope\" does not exist\n");
    assert!(stderr.starts_with(&expected), "{stderr}");
    assert!(stderr.contains("LINE 2:   FROM nope\n               ^\n"), "{stderr}");
    assert_eq!(output.status.code(), Some(1));

    let good = write(folder.path(), "b.sql", "SELECT 1 AS x");
    let output = run(millstream(&["run", &good, "--data-dir", data_dir, "--log", "warn"]), "");
    assert_eq!(text(&output.stdout), " x \n---\n 1\n(1 row)\n\n");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn a_server_answers_the_shell_and_http_and_stops_on_signals() {
    let served = Served::start();
    let script =
        "CREATE TABLE t (n int);\nINSERT INTO t VALUES (7);\n\\x\nSELECT n FROM t;\n\\dt\n";
    let output = run(millstream(&["repl", &served.url]), script);
    assert_eq!(
        text(&output.stdout),
        "CREATE TABLE\nINSERT 0 1\nExpanded display is on.\n-[ RECORD 1 ]\nn | 7\n\n\
         -[ RECORD 1 ]--\nschema | public\nname   | t\nkind   | table\n\n",
        "{}",
        text(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(0));

    let output = run(millstream(&["repl", &served.url]), "SELECT 1;\n;;\nSELECT * FROM no");
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("<stdin>:3:15: ERROR:  42P01: "), "{stderr}");

    let mut stream = std::net::TcpStream::connect(&served.http).expect("HTTP is served");
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").expect("the server reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the server answers");
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("\r\n\r\nok\n"));

    assert_eq!(served.stop("-TERM"), Some(0));
    assert_eq!(Served::start().stop("-INT"), Some(0));
}

#[test]
fn the_server_with_a_shell_stops_cleanly_on_a_signal() {
    let data_dir = tempfile::tempdir().expect("a folder can be made");
    let folder = data_dir.path().to_str().expect("UTF-8");
    let any = "127.0.0.1:0";
    let mut child = millstream(&["--data-dir", folder, "--listen", any, "--http", any])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // The shell waits for the end of its input, which does not come.
    let log = data_dir.path().join("millstream.log");
    let said = |words: &str| std::fs::read_to_string(&log).is_ok_and(|log| log.contains(words));
    let started = Instant::now();
    while !said("server is ready") {
        assert!(started.elapsed() < PATIENCE, "the server is not ready");
        std::thread::sleep(Duration::from_millis(20));
    }
    let kill = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(kill.expect("there is kill").success());
    let code = loop {
        if let Some(status) = child.try_wait().expect("a child can be asked") {
            break status.code();
        }
        if started.elapsed() > 2 * PATIENCE {
            child.kill().expect("a child can be killed");
            panic!("the server did not stop");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(code, Some(0));
    assert!(said("server has stopped"));
}

#[test]
fn test_tells_each_file_in_both_modes_and_the_totals() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let good = write(folder.path(), "good.slt", "query T\nSELECT ''\n----\n(empty)\n");
    let output = run(millstream(&["test", &good]), "");
    let stdout = text(&output.stdout);
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{stdout}{}", text(&output.stderr));
    assert!(lines[0].starts_with(&format!("ok      {good} (1 worker), ")), "{stdout}");
    assert!(lines[1].starts_with(&format!("ok      {good} (2 workers), ")), "{stdout}");
    assert_eq!(lines[2], "2 passed, 0 failed");
    assert_eq!(output.status.code(), Some(0));

    let bad = write(folder.path(), "bad.slt", "query I\nSELECT 1\n----\n2\n");
    let output = run(millstream(&["test", &bad]), "");
    let stdout = text(&output.stdout);
    assert!(stdout.contains(&format!("at {bad}:1")), "{stdout}");
    assert!(stdout.ends_with("\n0 passed, 2 failed\n"), "{stdout}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn bench_measures_each_query() {
    let output = run(millstream(&["bench", "nexmark", "--events", "5000", "--json"]), "");
    let stdout = text(&output.stdout);
    let queries: Vec<String> = stdout
        .lines()
        .map(|line| {
            let measured: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
            assert_eq!(measured["events"], 5_000);
            assert!(measured["seconds"].as_f64().is_some_and(|s| s > 0.0), "{line}");
            assert!(measured["events_per_s"].as_u64().is_some_and(|r| r > 0), "{line}");
            assert!(measured["cpu_seconds"].as_f64().is_some_and(|s| s > 0.0), "{line}");
            assert!(measured["peak_rss_mib"].as_u64().is_some_and(|m| m > 0), "{line}");
            measured["query"].as_str().expect("a name").to_owned()
        })
        .collect();
    assert_eq!(queries, millstream::bench::DEFAULT_QUERIES, "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn mistakes_on_the_command_line_are_told_and_cost_an_exit_code() {
    let told = |arguments: &[&str], expected: &str, code: i32| {
        let output = run(millstream(arguments), "");
        let stderr = text(&output.stderr);
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
    };
    told(&["serve", "--workers", "none"], "error: setting \"workers\": \"none\" is not", 1);
    told(&["serve", "--colour"], "unexpected argument '--colour'", 2);
    told(&["run", "/nowhere/a.sql"], "error: /nowhere/a.sql: ", 1);
    told(&["test", "/nowhere"], "error: /nowhere: ", 1);
    told(&["repl", "postgres://127.0.0.1:1/x"], "error: connection failed: ", 1);
    told(&["bench", "nexmark", "--queries", "q99"], "there is no query \"q99\"", 1);
}
