//! Every result of a query comes to its sink once: servers are torn away at every point of their
//! work, and targets fail before and after they have done theirs.

use std::sync::Arc;
use std::time::Duration;

use super::durability::{PATIENCE, Running, start_with, try_start_with};
use super::*;
use crate::connectors::sink::trial::{Trial, Written};
use crate::storage::faulty::{Fault, FaultyStore};
use crate::storage::manifest;
use crate::storage::paths::{MANIFESTS, numbered};

/// The rows of a query as the target has them.
async fn rows_of(server: &Running, query: &str) -> Vec<String> {
    let text = server.run(query).await;
    let mut lines: Vec<String> = text.lines().map(|line| line.replace(" | ", "|")).collect();
    let tag = lines.pop().expect("a tag");
    assert!(tag.starts_with("SELECT"), "{text}");
    lines.sort_unstable();
    lines
}

async fn quick(store: &Arc<FaultyStore>, workers: usize) -> Running {
    start_with(store, workers, Duration::from_millis(5)).await
}

/// Waits until a condition of the server's answer holds.
async fn until(server: &Running, query: &str, holds: impl Fn(&str) -> bool) -> String {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            let text = server.run(query).await;
            if holds(&text) {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{query} does not become true"))
}

const QUERY: &str = "SELECT k % 4 AS g, count(*) AS n, sum(v) AS s FROM t GROUP BY k % 4";

fn set_up(name: &str) -> String {
    format!(
        "CREATE TABLE t (k bigint PRIMARY KEY, v bigint)
         CREATE MATERIALIZED VIEW m AS {QUERY}
         INSERT INTO t SELECT g, g * 10 FROM generate_series(1, 10) g(g)
         CREATE SINK of_view FROM m WITH (connector = 'trial', target = '{name} view')
         CREATE SINK of_query AS SELECT k, v FROM t WHERE k > 2 WITH (connector = 'trial', target = '{name} query')"
    )
}

fn step(n: u64) -> String {
    match n % 5 {
        0 => format!("DELETE FROM t WHERE k = {}", n / 5),
        1 | 2 => format!("INSERT INTO t VALUES ({}, {n})", 100 + n),
        3 => format!("UPDATE t SET v = v + {n} WHERE k % 3 = 0"),
        _ => "CHECKPOINT".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_result_is_there_once_whenever_the_server_is_torn_away() {
    let store = FaultyStore::new();
    let trials = ["crash view", "crash query"].map(|name| Trial::named(name, vec![]));
    for trial in &trials {
        let store = store.clone();
        *trial.moment.lock().unwrap() = Some(Box::new(move || store.operations().len()));
    }
    let server = quick(&store, 2).await;
    let out = server.run(&set_up("crash")).await;
    assert!(!out.contains(": "), "{out}");
    let mut connection = connect(&server.database).await;
    for n in 0..20 {
        let step = step(n);
        let out = run(&mut connection, &step).await;
        assert!(!out.contains(": "), "{step}: {out}");
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    drop(connection);
    server.stop().await;
    let operations = store.operations();
    let batches = trials[0].written.lock().unwrap().len();
    assert!(batches >= 4, "only {batches} batches were written");
    let (mut begun, mut repeated) = (0, 0);
    for point in (0..=operations.len()).step_by(3) {
        let torn = FaultyStore::after(&operations[..point]).await;
        let survivors = ["crash view", "crash query"].iter().zip(&trials).map(|(name, before)| {
            let before = before.written.lock().unwrap();
            // What is written at the very moment may have been, or not.
            let there = |w: &&Written| w.moment < point || (w.moment == point && point % 2 == 0);
            Trial::named(name, before.iter().filter(there).cloned().collect())
        });
        let survivors: Vec<Arc<Trial>> = survivors.collect();
        let server = quick(&torn, 1 + point % 3).await;
        if server.run("SELECT count(*) FROM millstream.sinks").await != "2\nSELECT 1\n" {
            server.stop().await;
            continue;
        }
        begun += 1;
        let script = "INSERT INTO t VALUES (1000, 1)\nCHECKPOINT";
        assert_eq!(server.run(script).await, "INSERT 0 1\nCHECKPOINT\n", "point {point}");
        let view = rows_of(&server, "SELECT * FROM m").await;
        assert_eq!(view, rows_of(&server, QUERY).await, "point {point}");
        let query = rows_of(&server, "SELECT k, v FROM t WHERE k > 2").await;
        for (survivor, expected) in survivors.iter().zip([view, query]) {
            assert_eq!(survivor.content(), expected, "point {point}");
            repeated += *survivor.repeated.lock().unwrap();
        }
        server.stop().await;
    }
    assert!(begun >= 5, "sinks were there at {begun} points only");
    assert!(repeated > 0, "no crash was between a batch and its note");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_fails_at_every_step_has_each_batch_once() {
    for seed in 1..=4 {
        let name = format!("seed {seed}");
        let trials = ["view", "query"].map(|of| Trial::named(&format!("{name} {of}"), vec![]));
        let store = FaultyStore::new();
        let server = quick(&store, 2).await;
        let out = server.run(&set_up(&name)).await;
        assert!(!out.contains(": "), "{out}");
        trials.iter().for_each(|trial| trial.fail(seed, 0.4));
        server.stop().await;
        for run in 0..3 {
            let server = quick(&store, 1 + run % 3).await;
            for n in 0..10 {
                server.run(&step(run as u64 * 10 + n)).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            server.stop().await;
        }
        let failures: usize = trials.iter().map(|t| *t.failures.lock().unwrap()).sum();
        assert!(failures > 0, "seed {seed}: nothing has failed");
        trials.iter().for_each(|trial| trial.fail(seed, 0.0));
        let server = quick(&store, 2).await;
        server.run("CHECKPOINT").await;
        let pending = "SELECT sum(pending_rows) FROM millstream.sinks";
        until(&server, pending, |text| text.starts_with("0\n")).await;
        let context = format!("seed {seed}");
        assert_eq!(trials[0].content(), rows_of(&server, "SELECT * FROM m").await, "{context}");
        let query = rows_of(&server, "SELECT k, v FROM t WHERE k > 2").await;
        assert_eq!(trials[1].content(), query, "{context}");
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_away_stops_nobody_and_gets_everything_later() {
    let store = FaultyStore::new();
    let trial = Trial::named("away", vec![]);
    let server = quick(&store, 2).await;
    let script = "
        CREATE TABLE t (k bigint PRIMARY KEY, v bigint)
        CREATE MATERIALIZED VIEW n AS SELECT count(*) AS n FROM t
        CREATE SINK s FROM t WITH (connector = 'trial', target = 'away', commit_interval = '1 hour', commit_rows = 5)
        INSERT INTO t VALUES (1, 1)
        CHECKPOINT
    ";
    assert!(!server.run(script).await.contains(": "));
    trial.fail(1, 1.0);
    server.run("INSERT INTO t SELECT g, g FROM generate_series(2, 11) g(g)").await;
    let state = "SELECT state, last_error FROM millstream.sinks";
    let text = until(&server, state, |text| text.starts_with("retrying")).await;
    assert!(text.contains("the target is away"), "{text}");
    // Nobody waits for it: neither views nor checkpoints.
    assert_eq!(server.run("SELECT n FROM n").await, "11\nSELECT 1\n");
    server.run("INSERT INTO t VALUES (12, 12)").await;
    assert_eq!(server.run("CHECKPOINT").await, "CHECKPOINT\n");
    // Without the storage there is no checkpoint, and so nothing to write out.
    store.set(Fault::DiskFull);
    tokio::time::sleep(Duration::from_millis(50)).await;
    store.set(Fault::None);
    server.stop().await;
    let server = quick(&store, 1).await;
    server.run("INSERT INTO t VALUES (13, 13)").await;
    assert_eq!(server.run("CHECKPOINT").await, "CHECKPOINT\n");
    assert_eq!(trial.content(), ["1|1"], "it has been away all the time");
    trial.fail(1, 0.0);
    until(&server, state, |text| text.starts_with("running")).await;
    let pending = "SELECT pending_rows FROM millstream.sinks";
    until(&server, pending, |text| text.starts_with("0\n")).await;
    let rows = rows_of(&server, "SELECT k, v FROM t").await;
    let mut content = trial.content();
    content.sort_unstable();
    assert_eq!(content, rows);
    // A sink that has gone takes nothing with it but what it had to do.
    trial.fail(1, 1.0);
    server.run("INSERT INTO t VALUES (14, 14)\nDROP SINK s\nCHECKPOINT").await;
    trial.fail(1, 0.0);
    assert_eq!(server.run("SELECT count(*) FROM millstream.sinks").await, "0\nSELECT 1\n");
    server.stop().await;
    let server = quick(&store, 1).await;
    assert_eq!(server.run("SELECT count(*) FROM t").await, "14\nSELECT 1\n");
    assert_eq!(trial.content().len(), rows.len());
    server.stop().await;
}

/// A sink that is still being filled is in no checkpoint: CHECKPOINT waits until it is in one, and
/// its target has the content.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_waits_for_sinks_that_are_being_filled() {
    let store = FaultyStore::new();
    let trial = Trial::named("filled", vec![]);
    // Checkpoints come when they are asked for.
    let server = start_with(&store, 2, Duration::from_secs(3600)).await;
    server.run("CREATE TABLE t (k bigint PRIMARY KEY)\nINSERT INTO t VALUES (1)").await;
    let mut creator = connect(&server.database).await;
    let creating = tokio::spawn(async move {
        let steps = "SELECT k FROM t UNION SELECT k + 1 FROM r WHERE k < 4000";
        let create = format!(
            "CREATE SINK filled AS WITH RECURSIVE r(k) AS ({steps}) SELECT k FROM r \
             WITH (connector = 'trial', target = 'filled')"
        );
        run(&mut creator, &create).await
    });
    let seen = tokio::time::timeout(PATIENCE, async {
        while server.coordinator.sinks().await.expect("answers").is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    seen.await.expect("it is begun with");
    assert_eq!(server.run("CHECKPOINT").await, "CHECKPOINT\n");
    let mut rows: Vec<i64> = trial.content().iter().map(|row| row.parse().unwrap()).collect();
    rows.sort_unstable();
    assert!(rows.into_iter().eq(1..=4000), "the target has less");
    assert_eq!(creating.await.expect("it ends"), "CREATE SINK\n");
    server.stop().await;
}

async fn newest(store: &Arc<FaultyStore>) -> manifest::Manifest {
    let store = store.store();
    let mut found = manifest::find(&store).await.expect("readable");
    found.next(&store).await.expect("readable").expect("there is one")
}

/// The number of the newest manifest.
async fn newest_manifest(store: &Arc<FaultyStore>) -> u64 {
    newest(store).await.number
}

/// Lets the newest manifest say that views had other plans, as those of another version have.
async fn change_plans(store: &Arc<FaultyStore>) {
    let mut newest = newest(store).await;
    newest.views.values_mut().for_each(|view| view.fingerprint.push_str(" of before"));
    let path = numbered(MANIFESTS, newest.number);
    store.overwrite(&path, newest.encode().to_vec()).await;
}

/// A sink over a view goes on when the view is computed again, at whatever point the server is torn
/// away meanwhile; one over a query of its own stops, because nothing says what it has given.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_computed_again_gives_the_difference() {
    let names = ["again view", "again query"];
    let trials = names.map(|name| Trial::named(name, vec![]));
    let store = FaultyStore::new();
    let server = quick(&store, 2).await;
    let out = server.run(&set_up("again")).await;
    assert!(!out.contains(": "), "{out}");
    for n in 0..10 {
        server.run(&step(n)).await;
    }
    server.run("CHECKPOINT").await;
    // The log has what the old contents do not.
    server.run("INSERT INTO t VALUES (500, 5), (501, 6)\nDELETE FROM t WHERE k = 7").await;
    server.stop().await;
    change_plans(&store).await;
    let changed = newest_manifest(&store).await;
    let before = store.operations().len();
    let moment = store.clone();
    *trials[0].moment.lock().unwrap() = Some(Box::new(move || moment.operations().len()));
    let server = quick(&store, 3).await;
    let script =
        "INSERT INTO t VALUES (600, 7)\nCHECKPOINT\nDELETE FROM t WHERE k = 500\nCHECKPOINT";
    assert!(!server.run(script).await.contains(": "));
    let view = rows_of(&server, "SELECT * FROM m").await;
    assert_eq!(view, rows_of(&server, QUERY).await);
    assert_eq!(trials[0].content(), view);
    let states = server.run("SELECT state FROM millstream.sinks ORDER BY name").await;
    assert_eq!(states, "stopped\nrunning\nSELECT 2\n");
    server.stop().await;
    let operations = store.operations();
    for point in before..=operations.len() {
        let torn = FaultyStore::after(&operations[..point]).await;
        if newest_manifest(&torn).await == changed {
            change_plans(&torn).await;
        }
        let written = trials[0].written.lock().unwrap().clone();
        let there = written.into_iter().filter(|w| w.moment <= point).collect();
        let survivor = Trial::named(names[0], there);
        for (round, workers) in [1, 2].into_iter().enumerate() {
            let server = quick(&torn, workers).await;
            let script = format!("INSERT INTO t VALUES ({}, 1)\nCHECKPOINT", 1000 + round);
            let out = server.run(&script).await;
            assert_eq!(out, "INSERT 0 1\nCHECKPOINT\n", "point {point}, round {round}");
            let view = rows_of(&server, "SELECT * FROM m").await;
            assert_eq!(view, rows_of(&server, QUERY).await, "point {point}, round {round}");
            assert_eq!(survivor.content(), view, "point {point}, round {round}");
            server.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_savepoint_takes_its_sinks_along() {
    let store = FaultyStore::new();
    let trial = Trial::named("savepoint", vec![]);
    let server = quick(&store, 2).await;
    let script = "
        CREATE TABLE t (k bigint PRIMARY KEY) APPEND ONLY
        CREATE SINK s FROM t WITH (connector = 'trial', target = 'savepoint', commit_interval = '1 hour')
        INSERT INTO t VALUES (1), (2)
        CREATE SAVEPOINT early
        INSERT INTO t VALUES (3)
        CHECKPOINT
    ";
    assert!(!server.run(script).await.contains(": "));
    assert_eq!(trial.content(), ["1", "2", "3"]);
    server.stop().await;
    let config = CoordinatorConfig {
        workers: 2,
        epoch_interval_max: Duration::from_millis(10),
        lock_timeout: Duration::from_millis(300),
        history: crate::coordinator::event_loop::HistoryConfig::default(),
        memory: crate::coordinator::memory::state_memory(&std::env::temp_dir()),
    };
    let clock = Clock::system();
    let interval = Duration::from_millis(5);
    let started = std::sync::OnceLock::new();
    let opened = crate::coordinator::recovery::open_from(
        config,
        clock.clone(),
        store.store(),
        interval,
        Some("early"),
        &started,
    );
    let coordinator = opened.await.expect("opens");
    let database = Database::new(coordinator.clone(), clock).expect("has threads");
    let server = Running { database, coordinator };
    assert_eq!(server.run("SELECT count(*) FROM t").await, "2\nSELECT 1\n");
    // What the target has of the time that did not happen stays there; what is new comes once.
    server.run("INSERT INTO t VALUES (4)\nCHECKPOINT").await;
    let expected: Vec<String> = ["1", "2", "3", "4"].map(str::to_owned).into();
    let waited = tokio::time::timeout(PATIENCE, async {
        while trial.content() != expected {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{:?}", trial.content()));
    server.stop().await;
}

/// Lists of names that a start gets are as of the first moments of the first server: what the target
/// has, it does not get again.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_shown_old_lists_gives_nothing_again() {
    // Checkpoints come when they are asked for.
    let hour = Duration::from_secs(3600);
    for (old, lists) in [(1, 3), (1, 4), (1, 5), (1, 6), (2, 4), (3, 5), (4, 5), (5, 8)] {
        let context = format!("{lists} lists as of {old}");
        let store = FaultyStore::new();
        let trial = Trial::named(&context, vec![]);
        let server = start_with(&store, 1, hour).await;
        let script = format!(
            "CREATE TABLE t (k bigint PRIMARY KEY)
             INSERT INTO t VALUES (1), (2)
             CREATE SINK s FROM t WITH (connector = 'trial', target = '{context}')
             CHECKPOINT
             INSERT INTO t VALUES (3)
             CHECKPOINT"
        );
        assert!(!server.run(&script).await.contains(": "), "{context}");
        assert_eq!(trial.content(), ["1", "2", "3"], "{context}");
        server.stop().await;
        assert!(!store.store().exists(&numbered(MANIFESTS, 1)).await.unwrap(), "{context}");
        store.set_old_lists(lists, old);
        let first = try_start_with(&store, 2, hour).await;
        store.set_old_lists(0, 0);
        let server = match first {
            Ok(server) => server,
            Err(_) => start_with(&store, 2, hour).await,
        };
        let out = server.run("INSERT INTO t VALUES (4)\nCHECKPOINT").await;
        assert_eq!(out, "INSERT 0 1\nCHECKPOINT\n", "{context}");
        assert_eq!(trial.content(), ["1", "2", "3", "4"], "{context}");
        server.stop().await;
    }
}
