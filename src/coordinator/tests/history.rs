//! Reads of the past: every epoch of a random run is read again as it was, by number and by time.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::durability::{PATIENCE, Running, start};
use crate::storage::faulty::FaultyStore;

const SETUP: &str = "
    CREATE TABLE items (id int PRIMARY KEY, kind int, v int)
    CREATE TABLE bag (k int, label text)
    CREATE TABLE growing (id int, v int) APPEND ONLY
    CREATE MATERIALIZED VIEW sums AS SELECT kind, count(*) AS n, sum(v) AS s FROM items GROUP BY kind
    CREATE MATERIALIZED VIEW joined AS SELECT i.id, b.label FROM items i JOIN bag b ON b.k = i.kind
    CREATE MATERIALIZED VIEW large AS SELECT id, v FROM growing WHERE v > 10
    CREATE VIEW plain AS SELECT s.kind, s.n, l.id FROM sums s LEFT JOIN large l ON l.id % 5 = s.kind
";

const RELATIONS: [&str; 7] = ["items", "bag", "growing", "sums", "joined", "large", "plain"];

fn change(random: &mut StdRng, step: usize) -> String {
    let (id, kind, v) =
        (random.random_range(0..30), random.random_range(0..5), random.random_range(0..30));
    match random.random_range(0..8) {
        0..3 => format!("INSERT INTO items VALUES ({id}, {kind}, {v}) ON CONFLICT DO NOTHING"),
        3 => format!("UPDATE items SET v = {v} WHERE kind = {kind}"),
        4 => format!("DELETE FROM items WHERE id % 3 = {}", id % 3),
        5 => format!("INSERT INTO bag VALUES ({kind}, 'l{v}'), ({kind}, 'l{v}'), (7, 'other')"),
        6 => format!("DELETE FROM bag WHERE k = {kind}"),
        _ => format!("INSERT INTO growing VALUES ({step}, {v}), ({step}, {})", v / 2),
    }
}

fn sorted(out: &str) -> Vec<String> {
    let mut lines: Vec<String> = out.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

async fn contents(server: &Running, clause: &str) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for relation in RELATIONS {
        all.push(sorted(&server.run(&format!("SELECT * FROM {relation} {clause}")).await));
    }
    all
}

async fn newest(server: &Running) -> (u64, String) {
    let newest = "SELECT epoch, time FROM millstream.epochs ORDER BY epoch DESC LIMIT 1";
    let out = server.run(newest).await;
    let (epoch, time) = out.lines().next().and_then(|l| l.split_once(" | ")).expect("two columns");
    (epoch.parse().expect("a number"), time.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_epoch_is_read_as_it_was() {
    for workers in 1..=3 {
        let server = start(&FaultyStore::new(), workers).await;
        let out = server.run(SETUP).await;
        assert!(!out.contains(": "), "{out}");
        let mut random = StdRng::seed_from_u64(workers as u64);
        let mut was = Vec::new();
        for step in 0..40 {
            server.run(&change(&mut random, step)).await;
            let now = contents(&server, "").await;
            let (epoch, time) = newest(&server).await;
            was.push((epoch, time, now));
            // The next write is in an epoch of a later time.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for (epoch, time, was) in &was {
            let context = format!("{workers} workers, epoch {epoch}, {time}");
            let by_number = format!("FOR SYSTEM_TIME AS OF {epoch}");
            assert_eq!(contents(&server, &by_number).await, *was, "{context}");
            let by_time = format!("FOR SYSTEM_TIME AS OF '{time}'::timestamptz");
            assert_eq!(contents(&server, &by_time).await, *was, "{context}");
        }
        // Two times in one query, and a join at one.
        let (first, last) = (&was[10], &was[30]);
        let went = server
            .run(&format!(
                "SELECT count(*) FROM (SELECT * FROM items FOR SYSTEM_TIME AS OF {} EXCEPT ALL \
                 SELECT * FROM items FOR SYSTEM_TIME AS OF {}) x",
                first.0, last.0
            ))
            .await;
        let rows = |at: &(u64, String, Vec<Vec<String>>)| {
            at.2[0].iter().filter(|l| !l.starts_with("SELECT")).cloned().collect::<Vec<_>>()
        };
        let expected = rows(first).iter().filter(|row| !rows(last).contains(row)).count();
        assert_eq!(went, format!("{expected}\nSELECT 1\n"));
        let joined = format!(
            "SELECT i.id, b.label FROM items FOR SYSTEM_TIME AS OF {0} AS i \
             JOIN bag FOR SYSTEM_TIME AS OF {0} AS b ON b.k = i.kind",
            first.0
        );
        assert_eq!(sorted(&server.run(&joined).await), first.2[4]);
        subscriptions(&server, &was).await;
        server.stop().await;
    }
}

/// A subscription from one epoch to another adds up to what was there before the second.
async fn subscriptions(server: &Running, was: &[(u64, String, Vec<Vec<String>>)]) {
    let spans = [(0, 39, 0), (5, 20, 3), (12, 13, 4), (17, 39, 5), (3, 30, 6), (20, 35, 1)];
    for (from, to, relation) in spans {
        let name = RELATIONS[relation];
        let (first, last) = (was[from].0, was[to].0);
        for (as_of, up_to) in [
            (first.to_string(), (last + 1).to_string()),
            (format!("'{}'::timestamptz", was[from].1), (last + 1).to_string()),
        ] {
            let sql = format!("SUBSCRIBE TO (SELECT * FROM {name}) AS OF {as_of} UP TO {up_to}");
            let out = tokio::time::timeout(PATIENCE, server.run(&sql)).await.expect("it ends");
            let mut counts = BTreeMap::<String, i64>::new();
            let mut epoch = first;
            for line in out.lines().filter(|line| !line.starts_with("SUBSCRIBE")) {
                let fields: Vec<&str> = line.splitn(4, " | ").collect();
                let [at, _, weight, row] = fields[..] else { panic!("{sql}: {out}") };
                let at: u64 = at.parse().expect("an epoch");
                assert!((epoch..=last).contains(&at), "{sql}: {at} in {out}");
                epoch = at;
                *counts.entry(row.to_owned()).or_default() +=
                    weight.parse::<i64>().expect("a weight");
            }
            let mut rows: Vec<String> = counts
                .iter()
                .flat_map(|(row, n)| std::iter::repeat_n(row.clone(), *n as usize))
                .collect();
            rows.push(format!("SELECT {}", rows.len()));
            rows.sort_unstable();
            assert_eq!(rows, was[to].2[relation], "{sql}");
        }
        // Only what came later.
        let sql = format!(
            "SUBSCRIBE TO {name} AS OF {first} UP TO {} WITH (SNAPSHOT = false)",
            first + 1
        );
        assert_eq!(server.run(&sql).await, "SUBSCRIBE 0\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_kept_is_refused_with_the_oldest_time() {
    let store = FaultyStore::new();
    let server = start(&store, 2).await;
    let script = "
        CREATE TABLE t (a int)
        CREATE TABLE bare (a int) WITH (history_retention = '0')
        CREATE TABLE brief (a int) WITH (history_retention = '100 milliseconds')
        CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM t
        CREATE MATERIALIZED VIEW none WITH (history_retention = '0') AS SELECT count(*) AS n FROM t
        INSERT INTO t VALUES (1)
    ";
    let out = server.run(script).await;
    assert!(!out.contains(": "), "{out}");
    let (epoch, time) = newest(&server).await;
    server.run("INSERT INTO t VALUES (2)").await;
    server.run("INSERT INTO bare VALUES (2)").await;
    server.run("INSERT INTO brief VALUES (2)").await;
    let at = |relation: &str, at: &str| {
        format!("SELECT count(*) FROM {relation} FOR SYSTEM_TIME AS OF {at}")
    };
    assert_eq!(server.run(&at("t", &epoch.to_string())).await, "1\nSELECT 1\n");
    for relation in ["bare", "none"] {
        let refused = server.run(&at(relation, &epoch.to_string())).await;
        assert!(refused.starts_with("72000"), "{relation}: {refused}");
    }
    let newest_one = server.run(&at("bare", &newest(&server).await.0.to_string())).await;
    assert_eq!(newest_one, "1\nSELECT 1\n");
    // Forgotten by itself.
    let deadline = std::time::Instant::now() + PATIENCE;
    while !server.run(&at("brief", &epoch.to_string())).await.starts_with("72000") {
        assert!(std::time::Instant::now() < deadline, "it is never forgotten");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(server.run(&at("t", &epoch.to_string())).await, "1\nSELECT 1\n");
    // A view that was replaced, and a relation that was not there.
    server.run("CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT count(*) + 1 AS n FROM t").await;
    let refused = server.run(&at("v", &epoch.to_string())).await;
    assert!(refused.starts_with("72000"), "{refused}");
    server.run("CREATE TABLE later (a int)").await;
    let refused = server.run(&at("later", &epoch.to_string())).await;
    assert!(refused.starts_with("72000"), "{refused}");
    server.stop().await;
    // Nothing of it is stored.
    let server = start(&store, 1).await;
    let refused = server.run(&at("t", &format!("'{time}'::timestamptz"))).await;
    assert!(refused.starts_with("72000"), "{refused}");
    assert!(newest(&server).await.0 > epoch + 1000, "no number is used twice");
    server.run("INSERT INTO t VALUES (3)").await;
    let oldest = server.run("SELECT min(epoch) FROM millstream.epochs").await;
    let oldest = oldest.lines().next().expect("a row");
    assert_eq!(server.run(&at("t", oldest)).await, "2\nSELECT 1\n");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_ends_at_a_time_also_when_nothing_happens() {
    let server = start(&FaultyStore::new(), 2).await;
    server.run("CREATE TABLE t (a int)").await;
    server.run("INSERT INTO t VALUES (1)").await;
    let sql = "SUBSCRIBE TO t UP TO now() + INTERVAL '300 milliseconds'";
    let out = tokio::time::timeout(PATIENCE, server.run(sql)).await.expect("it ends");
    assert!(out.ends_with("false | 1 | 1\nSUBSCRIBE 1\n"), "{out}");
    let past = "SUBSCRIBE TO t UP TO now() - INTERVAL '1 hour'";
    let out = tokio::time::timeout(PATIENCE, server.run(past)).await.expect("it ends");
    assert_eq!(out, "SUBSCRIBE 0\n");
    server.stop().await;
}
