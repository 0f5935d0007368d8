//! Backup and restore, export and import of savepoints, and savepoints as relations.

use std::path::Path;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::checkpoints::{VIEWS, change, check, set_up, sorted};
use super::durability::{Running, start, start_with};
use super::*;
use crate::coordinator::recovery::{open, open_from};
use crate::storage::faulty::FaultyStore;
use crate::storage::store::Store;
use crate::storage::transfer;
use crate::types::id::ObjectId;

fn url(directory: &Path) -> String {
    format!("file://{}", directory.display())
}

fn config(workers: usize) -> CoordinatorConfig {
    CoordinatorConfig {
        workers,
        epoch_interval_max: Duration::from_millis(10),
        lock_timeout: Duration::from_millis(300),
        history: HistoryConfig::default(),
        memory: crate::coordinator::memory::state_memory(&std::env::temp_dir()),
    }
}

async fn start_over(store: Store, workers: usize, savepoint: Option<&str>) -> Running {
    let (clock, interval) = (Clock::system(), Duration::from_millis(50));
    let coordinator = match savepoint {
        None => open(config(workers), clock.clone(), store, interval).await,
        Some(_) => {
            let started = std::sync::OnceLock::new();
            let config = config(workers);
            open_from(config, clock.clone(), store, interval, savepoint, &started).await
        }
    };
    let coordinator = coordinator.expect("opens");
    let database = Database::new(coordinator.clone(), clock).expect("has threads");
    Running { database, coordinator }
}

async fn items(server: &Running) -> String {
    server.run("SELECT * FROM items ORDER BY id").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_running_server_is_restored_elsewhere() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (backup, place) = (folder.path().join("backup"), folder.path().join("restored"));
    let store = FaultyStore::new();
    let server = start_with(&store, 2, Duration::from_millis(10)).await;
    set_up(&server).await;
    let mut random = StdRng::seed_from_u64(5);
    for _ in 0..20 {
        server.run(&change(&mut random)).await;
    }
    server.run("CREATE SAVEPOINT early").await;
    let early = items(&server).await;
    let script = format!("BACKUP TO '{}'", url(&backup));
    // Somebody writes meanwhile.
    let (done, mut stop) = tokio::sync::watch::channel(false);
    let mut others = StdRng::seed_from_u64(6);
    let mut connection = connect(&server.database).await;
    let writer = tokio::spawn(async move {
        let mut written = 0;
        while !*stop.borrow_and_update() {
            run(&mut connection, &change(&mut others)).await;
            written += 1;
        }
        written
    });
    for turn in 0..4 {
        let out = server.run(&script).await;
        assert!(out.starts_with("BACKUP\n") && out.contains("copied to"), "{turn}: {out}");
        // What the backup has is whole, whatever is written on.
        let restored = place.join(turn.to_string());
        let from = Store::directory(&backup).expect("is there");
        let to = Store::directory(&restored).expect("can be made");
        transfer::restore(&from, &to).await.expect("is complete");
        let refused = transfer::restore(&from, &to).await.expect_err("is not empty");
        assert_eq!(refused.sqlstate().0, "55006");
        let copy = start_over(to, turn % 3 + 1, None).await;
        check(&copy, &format!("restored, turn {turn}")).await;
        copy.stop().await;
    }
    done.send(true).expect("it waits");
    assert!(writer.await.expect("it writes") > 0);
    let now = items(&server).await;
    let out = server.run(&script).await;
    assert!(!out.contains(" 0 there"), "files are copied once: {out}");
    let out = server.run(&script).await;
    assert!(out.contains("0 files of 0 bytes"), "{out}");
    check(&server, "after it").await;
    let to = Store::directory(&place.join("last")).expect("can be made");
    let from = Store::directory(&backup).expect("is there");
    transfer::restore(&from, &to).await.expect("is complete");
    let copy = start_over(to.clone(), 2, None).await;
    assert_eq!(items(&copy).await, now);
    check(&copy, "restored at the end").await;
    let refused = server.run(&format!("BACKUP TO '{}'", url(&place.join("last")))).await;
    assert!(refused.starts_with("55006"), "{refused}");
    copy.stop().await;
    // With the savepoints.
    let copy = start_over(to, 1, Some("early")).await;
    assert_eq!(items(&copy).await, early);
    check(&copy, "gone back").await;
    copy.stop().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_savepoint_goes_from_one_storage_to_another() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let exported = url(&folder.path().join("exported"));
    let first = FaultyStore::new();
    let server = start(&first, 2).await;
    set_up(&server).await;
    let mut random = StdRng::seed_from_u64(8);
    for _ in 0..25 {
        server.run(&change(&mut random)).await;
    }
    server.run("CREATE SAVEPOINT here").await;
    let was = items(&server).await;
    server.run("DELETE FROM items").await;
    let out = server.run(&format!("EXPORT SAVEPOINT here TO '{exported}'")).await;
    assert!(out.starts_with("EXPORT SAVEPOINT\n"), "{out}");
    let out = server.run(&format!("EXPORT SAVEPOINT here TO '{exported}'")).await;
    assert!(out.starts_with("55006"), "{out}");
    let out = server.run(&format!("EXPORT SAVEPOINT nowhere TO '{exported}2'")).await;
    assert!(out.starts_with("42704"), "{out}");
    server.stop().await;
    // Another database, whose files have the same names.
    let second = FaultyStore::new();
    let server = start(&second, 1).await;
    server.run("CREATE TABLE items (other text)").await;
    server.run("INSERT INTO items VALUES ('x')").await;
    server.run("CHECKPOINT").await;
    for _ in 0..2 {
        let out = server.run(&format!("IMPORT SAVEPOINT there FROM '{exported}'")).await;
        assert!(out.starts_with("IMPORT SAVEPOINT\n"), "{out}");
        let out = server.run(&format!("IMPORT SAVEPOINT there FROM '{exported}'")).await;
        assert!(out.starts_with("42710"), "{out}");
        let read = server.run("SELECT * FROM savepoint('there', 'items') ORDER BY id").await;
        assert_eq!(read, was);
        assert_eq!(server.run("DROP SAVEPOINT there").await, "DROP SAVEPOINT\n");
        let left = second.store().list("imported").await.expect("readable");
        assert!(left.is_empty(), "{left:?}");
    }
    server.run(&format!("IMPORT SAVEPOINT there FROM '{exported}'")).await;
    assert_eq!(server.run("SELECT * FROM items").await, "x\nSELECT 1\n");
    server.stop().await;
    let server = start_over(second.store(), 3, Some("there")).await;
    assert_eq!(items(&server).await, was);
    check(&server, "imported").await;
    for _ in 0..10 {
        server.run(&change(&mut random)).await;
    }
    check(&server, "gone on").await;
    server.stop().await;
    let server = start(&second, 2).await;
    check(&server, "started again").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn savepoints_are_read_by_select() {
    let server = start(&FaultyStore::new(), 3).await;
    set_up(&server).await;
    let mut random = StdRng::seed_from_u64(9);
    for _ in 0..25 {
        server.run(&change(&mut random)).await;
    }
    let names = || VIEWS.iter().map(|(name, _)| *name).chain(["items", "kinds"]);
    server.run("CREATE SAVEPOINT one").await;
    let mut was = Vec::new();
    for name in names() {
        was.push(server.run(&format!("SELECT * FROM {name}")).await);
    }
    for _ in 0..10 {
        server.run(&change(&mut random)).await;
    }
    server.run("DROP MATERIALIZED VIEW inverse").await;
    for (name, was) in names().zip(&was) {
        let read = server.run(&format!("SELECT * FROM savepoint('one', 'public.{name}')")).await;
        assert_eq!(sorted(&read), sorted(was), "{name}");
    }
    let script = "
        SELECT count(*) = 0 FROM savepoint('one', 'items') s LEFT JOIN savepoint('one', 'kinds') k ON false WHERE k.kind = 1
        CREATE TABLE back AS SELECT * FROM savepoint('one', 'items')
        SELECT count(*) FROM (SELECT * FROM back EXCEPT SELECT * FROM savepoint('one', 'items')) x
        PREPARE p AS SELECT count(*) > 0 FROM savepoint('one', 'items')
        EXECUTE p
        SELECT * FROM savepoint('two', 'items')
        SELECT * FROM savepoint('one', 'nosuch')
        SELECT * FROM savepoint('one', 'it' || 'ems')
        SELECT * FROM savepoint('one')
    ";
    let out = server.run(script).await;
    let lines: Vec<&str> = out.lines().filter(|line| !line.starts_with("  ")).collect();
    assert_eq!(&lines[..2], ["true", "SELECT 1"], "{out}");
    assert_eq!(&lines[3..8], ["0", "SELECT 1", "PREPARE", "true", "SELECT 1"], "{out}");
    let errors: Vec<&str> = lines[8..].iter().map(|line| &line[..5]).collect();
    assert_eq!(errors, ["42704", "42P01", "0A000", "0A000"], "{out}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_copied_is_not_deleted() {
    let store = FaultyStore::new();
    let server = start_with(&store, 1, Duration::from_secs(3600)).await;
    set_up(&server).await;
    let mut random = StdRng::seed_from_u64(10);
    let held = server.coordinator.hold(None).await.expect("there is a checkpoint");
    let files: Vec<String> =
        held.source.manifest.files().iter().map(|file| (*file).to_owned()).collect();
    let missing = || {
        let (store, files) = (store.store(), files.clone());
        async move {
            let mut missing = 0;
            for file in files {
                missing += usize::from(!store.exists(&file.into()).await.expect("readable"));
            }
            missing
        }
    };
    for turn in 0..40 {
        server.run(&change(&mut random)).await;
        server.run("CHECKPOINT").await;
        assert_eq!(missing().await, 0, "turn {turn}");
    }
    drop(held);
    for _ in 0..2 {
        server.run(&change(&mut random)).await;
        server.run("CHECKPOINT").await;
    }
    assert!(missing().await > 0, "what nobody needs any more goes");
    server.stop().await;
}

/// A query changes across a savepoint: the views that are as they were keep their state.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_query_leaves_the_state_of_the_others() {
    let store = FaultyStore::new();
    let hour = Duration::from_secs(3600);
    let server = start_with(&store, 2, hour).await;
    set_up(&server).await;
    let mut random = StdRng::seed_from_u64(11);
    for _ in 0..25 {
        server.run(&change(&mut random)).await;
    }
    server.run("CREATE SAVEPOINT before").await;
    let changed = "CREATE OR REPLACE MATERIALIZED VIEW top AS SELECT max(s) AS s, count(*) AS n \
                   FROM above WHERE true";
    let out = server.run(changed).await;
    assert!(!out.contains(": "), "{out}");
    server.run("CHECKPOINT").await;
    let facts = server.coordinator.checkpoints().await.expect("works");
    assert_eq!(facts[0].views, 1, "only the view that changed has anything to write");
    check(&server, "changed").await;
    server.stop().await;
    let server = start_over(store.store(), 3, Some("before")).await;
    server.run("CHECKPOINT").await;
    let facts = server.coordinator.checkpoints().await.expect("works");
    assert!(facts.iter().all(|fact| fact.views == 0), "no view was computed again");
    check(&server, "gone back").await;
    server.stop().await;
}

/// A clone has what was there then, goes its own way, and shares files that nobody takes from it.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_cloned_from_a_savepoint() {
    let store = FaultyStore::new();
    let hour = Duration::from_secs(3600);
    let server = start_with(&store, 2, hour).await;
    set_up(&server).await;
    let mut random = StdRng::seed_from_u64(12);
    for _ in 0..25 {
        server.run(&change(&mut random)).await;
    }
    server.run("INSERT INTO items VALUES (100, 1, 7, 'fails')").await;
    server.run("COMMENT ON TABLE items IS 'things'").await;
    server.run("CREATE SAVEPOINT moment").await;
    let was = items(&server).await;
    for _ in 0..10 {
        server.run(&change(&mut random)).await;
    }
    let now = items(&server).await;
    let written = files(&store).await;
    let out = server.run("CREATE DATABASE copy FROM SAVEPOINT moment").await;
    assert_eq!(out, "CREATE DATABASE\n");
    let new: Vec<String> =
        files(&store).await.into_iter().filter(|f| !written.contains(f)).collect();
    assert!(!new.iter().any(|file| is_of_clone(&server, file)), "nothing is copied: {new:?}");
    let out = server.run("CREATE DATABASE copy FROM SAVEPOINT moment").await;
    assert!(out.starts_with("42P04"), "{out}");
    let out = server.run("CREATE DATABASE other FROM SAVEPOINT nosuch").await;
    assert!(out.starts_with("42704"), "{out}");
    check_clone(&server, &was, "made").await;
    assert_eq!(items(&server).await, now);
    // Nobody else's files go with the savepoint.
    assert_eq!(server.run("DROP SAVEPOINT moment").await, "DROP SAVEPOINT\n");
    for _ in 0..3 {
        server.run(&change(&mut random)).await;
        server.run("CHECKPOINT").await;
    }
    server.stop().await;
    for workers in [1, 3] {
        let server = start_with(&store, workers, hour).await;
        server.run("CHECKPOINT").await;
        let facts = server.coordinator.checkpoints().await.expect("works");
        assert_eq!(facts[0].views, 0, "{workers} workers: all views have taken up their state");
        check_clone(&server, &was, "started again").await;
        check(&server, "beside it").await;
        server.stop().await;
    }
    let server = start_with(&store, 2, hour).await;
    let before = items(&server).await;
    for _ in 0..10 {
        in_copy(&server, &change(&mut random)).await;
    }
    check_in(&server, "changed").await;
    assert_eq!(items(&server).await, before);
    check(&server, "beside it").await;
    server.stop().await;
    let server = start_with(&store, 3, hour).await;
    check_in(&server, "changed and started").await;
    server.run("DROP DATABASE copy").await;
    check(&server, "alone again").await;
    server.stop().await;
}

/// A crash at any moment leaves the clone or nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_clone_is_there_or_not_at_any_crash_point() {
    let store = FaultyStore::new();
    let server = start_with(&store, 2, Duration::from_millis(10)).await;
    set_up(&server).await;
    let mut random = StdRng::seed_from_u64(13);
    for _ in 0..15 {
        server.run(&change(&mut random)).await;
    }
    server.run("CREATE SAVEPOINT moment").await;
    let was = items(&server).await;
    let before = store.operations().len();
    let out = server.run("CREATE DATABASE copy FROM SAVEPOINT moment").await;
    assert_eq!(out, "CREATE DATABASE\n");
    let acknowledged = store.operations().len();
    server.stop().await;
    let operations = store.operations();
    let step = ((operations.len() - before) / 8).max(1);
    for point in (before..=operations.len()).step_by(step) {
        let survivor = FaultyStore::after(&operations[..point]).await;
        let server = start_with(&survivor, 2, Duration::from_millis(10)).await;
        let context = format!("point {point} of {before} to {}", operations.len());
        let databases = server.run("SELECT datname FROM pg_database").await;
        if databases.lines().any(|name| name == "copy") {
            check_clone(&server, &was, &context).await;
        } else {
            assert!(point < acknowledged, "{context}: it was acknowledged");
        }
        check(&server, &context).await;
        server.stop().await;
    }
}

async fn files(store: &std::sync::Arc<FaultyStore>) -> Vec<String> {
    let mut files = Vec::new();
    for folder in ["tables", "state"] {
        let listed = store.store().list(folder).await.expect("readable");
        files.extend(listed.iter().map(|path| path.as_ref().to_owned()));
    }
    files
}

/// Whether a file is in the folder of an object of the clone.
fn is_of_clone(server: &Running, file: &str) -> bool {
    let id = file.split('/').nth(1).and_then(|id| id.parse().ok()).map(ObjectId);
    let catalog = server.coordinator.catalog();
    let object = id.and_then(|id| catalog.get(id).cloned());
    object.is_some_and(|object| object.name.database == "copy")
}

/// Runs a script in the clone.
async fn in_copy(server: &Running, script: &str) -> String {
    let options = ConnectOptions { database: "copy".into(), user: "ann".into(), settings: vec![] };
    let mut connection = server.database.connect(options).await.expect("it is there");
    run(&mut connection, script).await
}

async fn check_clone(server: &Running, was: &str, context: &str) {
    assert_eq!(in_copy(server, "SELECT * FROM items ORDER BY id").await, was, "{context}");
    check_in(server, context).await;
}

/// No view of the clone differs from its query, and its row errors are its own.
async fn check_in(server: &Running, context: &str) {
    for (name, query) in VIEWS.iter().filter(|(name, _)| *name != "inverse") {
        let view = in_copy(server, &format!("SELECT * FROM {name}")).await;
        let batch = in_copy(server, query).await;
        assert_eq!(sorted(&view), sorted(&batch), "{context}: {name}");
    }
    let errors = "SELECT coalesce(sum(weight), 0)::int FROM millstream.errors";
    let failing = "SELECT count(*)::int FROM items WHERE v = 7";
    assert_eq!(in_copy(server, errors).await, in_copy(server, failing).await, "{context}");
}
