//! Faults of a real machine: a disk that is full, a storage that is away, a directory that may not
//! be written to. Writes are refused with an SQLSTATE, the log says why, views answer, and when the
//! fault ends everything goes on by itself, with nothing lost.
//!
//! How a fault is made depends on what the test may do; where it may not, it is skipped and says so.
//! `MILLSTREAM_AWAY_SECONDS=60` lets the storage stay away for a minute.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::Client;

use crate::buckets;
use crate::durability::{PATIENCE, Place, Served, number, rows, serve_in, variable};

/// Runs a program; why it has not worked.
fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// What a test needs of the machine; `None`, with the reason, where it may not be had.
#[expect(clippy::print_stdout, reason = "cargo shows it when it is asked to")]
fn possible<T>(what: &str, found: Result<T, String>) -> Option<T> {
    found.map_err(|reason| println!("skipped, there is no {what}: {reason}")).ok()
}

/// A file system of its own that is soon full; it goes with this.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, with the reason, where nothing may be mounted.
    fn new(mebibytes: u32) -> Option<SmallDisk> {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let place = folder.path().to_str().expect("UTF-8").to_owned();
        let size = format!("size={mebibytes}m");
        let mounted = run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &place]);
        possible("small disk", mounted)?;
        Some(SmallDisk(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Fills it but for a few blocks.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut bytes = 16 << 20;
        let mut content = Vec::new();
        while bytes >= 4096 {
            content.resize(content.len() + bytes, 1);
            if std::fs::write(&path, &content).is_err() {
                content.truncate(content.len() - bytes);
                bytes /= 2;
            }
        }
        std::fs::write(&path, &content).expect("it had room for that");
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", self.path().to_str().expect("UTF-8")]);
    }
}

/// A directory that may not be written to while this is there, not even by root.
struct Sealed(Vec<PathBuf>);

impl Sealed {
    fn new(directory: &Path) -> Result<Sealed, String> {
        let mut all = vec![directory.to_owned()];
        let mut next = 0;
        while next < all.len() {
            let entries = std::fs::read_dir(&all[next]).expect("readable");
            let paths = entries.map(|entry| entry.expect("readable").path());
            all.extend(paths.filter(|path| path.is_dir()));
            next += 1;
        }
        let mut sealed = Sealed(Vec::new());
        for directory in all {
            run("chattr", &["+i", directory.to_str().expect("UTF-8")])?;
            sealed.0.push(directory);
        }
        Ok(sealed)
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        for directory in &self.0 {
            let _ = run("chattr", &["-i", directory.to_str().expect("UTF-8")]);
        }
    }
}

/// The SQLSTATE of a statement that is refused.
async fn refused(client: &Client, sql: &str) -> String {
    let error = client.batch_execute(sql).await.expect_err("is refused");
    let error = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error:?}"));
    error.code().code().to_owned()
}

/// Set up before the fault: a table of transfers, and views over it.
async fn set_up(server: &Served) {
    let script = "CREATE TABLE t (a bigint PRIMARY KEY, b text);
        CREATE TABLE other (a bigint);
        CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM t;
        INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 1000) g(g);
        CHECKPOINT;";
    for statement in script.split_inclusive(';') {
        let done = server.connect().await.batch_execute(statement).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
}

/// During the fault: a write waits, or is refused with one of these SQLSTATEs; the views that have
/// nothing to do with it answer; the log has said why.
async fn check_fault(server: &Served, states: &[&str], said: &str) {
    let client = server.connect().await;
    // The first write finds out; its outcome is in doubt until the fault ends.
    let first = server.connect().await;
    let first =
        tokio::spawn(async move { first.batch_execute("INSERT INTO t VALUES (1001)").await });
    let began = Instant::now();
    let state = loop {
        let client = server.connect().await;
        let write = client.batch_execute("INSERT INTO other VALUES (1)");
        // Otherwise it waits for the log, as the first one does, or went there with it.
        if let Ok(Err(error)) = tokio::time::timeout(Duration::from_secs(1), write).await {
            break error.code().expect("an SQLSTATE").code().to_owned();
        }
        assert!(began.elapsed() < PATIENCE, "no write is refused");
    };
    assert!(states.contains(&state.as_str()), "{state} instead of {states:?}");
    assert!(states.contains(&refused(&client, "CREATE TABLE new (a int)").await.as_str()));
    let read = client.query_one("SELECT count(*) FROM pg_class", &[]);
    let read = tokio::time::timeout(PATIENCE / 4, read).await.expect("reads go on");
    assert!(read.expect("answers").get::<_, i64>(0) > 0);
    let log = server.log();
    assert!(log.contains(said), "the log does not say {said:?}:\n{log}");
    // Whatever is said to it in the end.
    drop(first);
}

/// After the fault: everything goes on by itself and nothing is lost, also after a restart.
async fn check_resumed(server: Served, place: &Place) {
    let began = Instant::now();
    loop {
        let write = server.connect().await;
        let done = write.batch_execute("INSERT INTO t VALUES (2000) ON CONFLICT DO NOTHING").await;
        match done {
            Ok(()) => break,
            Err(error) => assert!(began.elapsed() < PATIENCE, "writing does not resume: {error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let client = server.connect().await;
    client.batch_execute("CHECKPOINT").await.expect("checkpoints go on");
    let look = async |client: &Client| {
        let shown = number(client, "SELECT n FROM v").await;
        assert_eq!(shown, number(client, "SELECT count(*) FROM t").await);
        let written = "SELECT count(*) FROM t WHERE a <= 1000 OR a = 2000";
        assert_eq!(number(client, written).await, 1001, "what was acknowledged is there");
        rows(client, "SELECT a FROM t").await
    };
    let before = look(&client).await;
    server.kill();
    let server = serve_in(place, "1", &[]);
    assert_eq!(look(&server.connect().await).await, before);
    server.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_refuses_writes_and_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::new(48) else { return };
    let place = Place::disk(&disk.path().join("data"));
    let server = serve_in(&place, "1", &[]);
    set_up(&server).await;
    let filler = disk.fill();
    check_fault(&server, &["53100"], "No space left on device").await;
    std::fs::remove_file(filler).expect("can be removed");
    check_resumed(server, &place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_without_permission_refuses_writes_and_goes_on_when_it_is_given() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let place = Place::disk(folder.path());
    let server = serve_in(&place, "1", &[]);
    set_up(&server).await;
    let sealed = Sealed::new(&folder.path().join("storage"));
    let Some(sealed) = possible("way to seal a directory", sealed) else { return };
    check_fault(&server, &["42501"], "Operation not permitted").await;
    drop(sealed);
    check_resumed(server, &place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_away_refuses_writes_and_goes_on_when_it_is_back() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let place = Place::disk(folder.path());
    let server = serve_in(&place, "1", &[]);
    set_up(&server).await;
    let (here, away) = (folder.path().join("storage"), folder.path().join("away"));
    std::fs::rename(&here, &away).expect("can be moved");
    let seconds = variable("MILLSTREAM_AWAY_SECONDS").unwrap_or(3);
    check_fault(&server, &["58030", "58P01"], "No such file or directory").await;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    assert!(!here.exists(), "nothing makes it anew");
    std::fs::rename(&away, &here).expect("can be moved");
    check_resumed(server, &place).await;
}

/// What a connection between the server and its bucket does.
#[derive(Default)]
struct Line {
    /// Connections up to this number are broken off.
    broken_until: AtomicU64,
    connections: AtomicU64,
    is_down: std::sync::atomic::AtomicBool,
}

/// A way to a bucket that can be cut; its address.
async fn line_to(target: String) -> (String, Arc<Line>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("free");
    let address = listener.local_addr().expect("bound");
    let line = Arc::new(Line::default());
    let state = line.clone();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (line, target) = (state.clone(), target.clone());
            let number = line.connections.fetch_add(1, Ordering::SeqCst) + 1;
            tokio::spawn(async move {
                if line.is_down.load(Ordering::SeqCst) {
                    let _ = near.shutdown().await;
                    return;
                }
                let Ok(mut far) = TcpStream::connect(&target).await else { return };
                let cut = async {
                    while line.broken_until.load(Ordering::SeqCst) < number {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = cut => {}
                }
            });
        }
    });
    (format!("http://{address}"), line)
}

impl Line {
    fn set_down(&self, down: bool) {
        self.is_down.store(down, Ordering::SeqCst);
        if down {
            self.broken_until.store(self.connections.load(Ordering::SeqCst), Ordering::SeqCst);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_away_refuses_writes_and_goes_on_when_it_is_back() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let Some(mut bucket) = buckets::google(folder.path()) else { return };
    let endpoint = &mut bucket.place.variables[0].1;
    let (address, line) = line_to(endpoint.trim_start_matches("http://").to_owned()).await;
    *endpoint = address;
    let server = serve_in(&bucket.place, "1", &[]);
    set_up(&server).await;
    line.set_down(true);
    let seconds = variable("MILLSTREAM_AWAY_SECONDS").unwrap_or(3);
    let away = Instant::now();
    check_fault(&server, &["58030", "40003"], "cannot write object").await;
    tokio::time::sleep(Duration::from_secs(seconds).saturating_sub(away.elapsed())).await;
    line.set_down(false);
    check_resumed(server, &bucket.place).await;
}
