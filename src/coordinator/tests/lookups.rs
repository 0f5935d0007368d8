//! Lookups by key give what a scan gives, and cost the same however large the table is.

use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::durability::start;
use super::*;
use crate::storage::faulty::FaultyStore;

/// A random change of `TABLE`, which has a key `id`.
fn change(random: &mut StdRng) -> String {
    let (id, other) = (random.random_range(0..400), random.random_range(0..400));
    let a = random.random_range(0..12);
    let text = ["NULL", "''", "'x'", "'yy'"][random.random_range(0..4)];
    match random.random_range(0..8) {
        0 | 1 => format!("INSERT INTO TABLE VALUES ({id}, {a}, {text}) ON CONFLICT DO NOTHING"),
        2 => format!(
            "INSERT INTO TABLE VALUES ({id}, {a}, {text}), ({}, NULL, {text}) \
             ON CONFLICT (id) DO UPDATE SET a = coalesce(excluded.a, 0) + 1",
            id + 400
        ),
        3 => format!("UPDATE TABLE SET a = a + 1, t = {text} WHERE id IN ({id}, {other})"),
        4 => format!("UPDATE TABLE SET a = {a} WHERE a = {} AND id < {other}", (a + 5) % 12),
        5 => format!("DELETE FROM TABLE WHERE id = {id} OR id = {other}"),
        6 => format!("DELETE FROM TABLE WHERE a = {a} AND t = {text} AND id > {other}"),
        _ => format!(
            "INSERT INTO TABLE SELECT n, n % 12, 'g' FROM generate_series({id}, {id} + 40) AS g(n) \
             ON CONFLICT DO NOTHING"
        ),
    }
}

fn question(random: &mut StdRng) -> String {
    let (id, other) = (random.random_range(0..820), random.random_range(0..820));
    let a = random.random_range(0..14);
    let text = ["NULL", "''", "'x'", "'g'"][random.random_range(0..4)];
    let condition = match random.random_range(0..7) {
        0 => format!("id = {id}"),
        1 => format!("id IN ({id}, {other}, NULL, {id} + 1)"),
        2 => format!("a = {a}"),
        3 => format!("a = {a} AND t = {text}"),
        4 => format!("t IN ({text}, 'yy') AND a IN ({a}, 3) AND id <> {id}"),
        5 => format!("a = {a} OR a = 3"),
        _ => format!("a = {a} OR id = {id}"),
    };
    match random.random_range(0..3) {
        0 => format!("SELECT id, a, t FROM TABLE WHERE {condition} ORDER BY id"),
        1 => format!(
            "SELECT count(*), sum(n) FROM TABLE_view WHERE {}",
            condition.replace("id", "n")
        ),
        _ => format!("SELECT count(*), max(id) FROM TABLE WHERE {condition}"),
    }
}

/// Two tables have the same history; one has indexes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_changes_no_answer() {
    let database = database();
    let mut connection = connect(&database).await;
    // Blocks of their own: an error ends one, and not the other before it has its say.
    let mut other = connect(&database).await;
    let setup = "
        CREATE TABLE one (id int PRIMARY KEY, a int, t text)
        CREATE TABLE two (id int, a int, t text, PRIMARY KEY (id))
        CREATE MATERIALIZED VIEW one_view AS SELECT a, t, count(*) AS n FROM one GROUP BY a, t
        CREATE MATERIALIZED VIEW two_view AS SELECT a, t, count(*) AS n FROM two GROUP BY a, t
        CREATE INDEX ON one (a)
        CREATE INDEX ON one (a, t)
        CREATE INDEX ON one_view (t, a)
        CREATE INDEX ON one_view (a)
        CREATE INDEX ON one_view (n)";
    let made = run(&mut connection, setup).await;
    assert!(made.lines().all(|line| line.starts_with("CREATE ")), "{made}");
    let mut random = StdRng::seed_from_u64(20);
    let mut in_block = false;
    for step in 0..400 {
        let statement = match random.random_range(0..20) {
            0 => {
                in_block = !in_block;
                if in_block { "BEGIN" } else { ["COMMIT", "ROLLBACK"][step % 2] }.to_owned()
            }
            1..9 => change(&mut random),
            _ => question(&mut random),
        };
        if !statement.contains("TABLE") {
            let out = run(&mut connection, &statement).await;
            assert_eq!(run(&mut other, &statement).await, out, "step {step}");
            continue;
        }
        let indexed = run(&mut connection, &statement.replace("TABLE", "one")).await;
        // A condition over an expression is looked up by no index.
        let scanned = statement.replace("TABLE", "two");
        let scanned = match statement.starts_with("SELECT") {
            true => scanned
                .replace("id =", "id + 0 =")
                .replace("id IN", "id + 0 IN")
                .replace("a =", "a + 0 =")
                .replace("a IN", "a + 0 IN"),
            false => scanned,
        };
        let plain = run(&mut other, &scanned).await;
        assert_eq!(indexed, plain.replace("two", "one"), "step {step}: {statement}");
        assert!(!indexed.contains("57P01"), "step {step}: {statement}");
    }
}

/// `cargo test --release --lib lookups -- --ignored --nocapture`: microseconds for a statement by
/// key in tables of two sizes, and for the same without an index.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn a_lookup_costs_the_same_in_a_large_table() {
    let mut costs = Vec::new();
    for rows in [10_000, 1_000_000] {
        let database = database();
        let mut connection = connect(&database).await;
        let setup = format!(
            "CREATE TABLE t (id int PRIMARY KEY, a int, v text)
             INSERT INTO t SELECT n, n / 2, 'value ' || n FROM generate_series(1, {rows}) AS g(n)
             CREATE MATERIALIZED VIEW m AS SELECT a, count(*) AS n FROM t GROUP BY a
             CREATE INDEX ON m (a)
             CREATE INDEX ON t (a)
             SELECT v FROM t WHERE id = 1"
        );
        run(&mut connection, &setup).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        for (what, statement) in [
            ("primary key", "SELECT v FROM t WHERE id = KEY"),
            ("index", "SELECT v FROM t WHERE a = KEY"),
            ("index of a view", "SELECT n FROM m WHERE a = KEY"),
            ("without an index", "SELECT v FROM t WHERE id + 0 = KEY"),
            ("UPDATE by primary key", "UPDATE t SET v = 'new' WHERE id = KEY"),
            (
                "ON CONFLICT",
                "INSERT INTO t VALUES (KEY, 1, 'x') ON CONFLICT (id) DO UPDATE SET v = t.v",
            ),
        ] {
            let mut times: Vec<u128> = Vec::new();
            for turn in 0..41 {
                let key = (turn * 7919) % 5000 + 1;
                let statement = statement.replace("KEY", &key.to_string());
                let began = Instant::now();
                let out = run(&mut connection, &statement).await;
                times.push(began.elapsed().as_micros());
                let done = ["SELECT", "UPDATE 1", "INSERT 0 1"];
                assert!(done.iter().any(|tag| out.contains(tag)), "{statement}: {out}");
            }
            times.sort_unstable();
            println!("{rows} rows, {what}: median {} us", times[20]);
            costs.push((what, times[20]));
        }
    }
    let (small, large) = costs.split_at(costs.len() / 2);
    for ((what, small), (_, large)) in small.iter().zip(large) {
        let scans = *what == "without an index";
        assert!(scans || *large < small * 4 + 1000, "{what}: {small} us, then {large} us");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_are_there_after_a_restart() {
    let store = FaultyStore::new();
    let server = start(&store, 2).await;
    let setup = "
        CREATE TABLE t (id int PRIMARY KEY, a int)
        INSERT INTO t SELECT n, n % 10 FROM generate_series(1, 100) AS g(n)
        CREATE MATERIALIZED VIEW v AS SELECT a, count(*) AS n FROM t GROUP BY a
        CREATE INDEX t_by_a ON t (a)
        CREATE INDEX gone ON t (a, id)
        CREATE INDEX v_by_a ON v (a)
        DROP INDEX gone";
    server.run(setup).await;
    let look = "
        SELECT tablename, indexname, indexdef FROM pg_indexes ORDER BY 1, 2
        EXPLAIN SELECT * FROM v WHERE a = 3
        SELECT count(*) FROM t WHERE a = 3
        SELECT n FROM v WHERE a = 3";
    let before = server.run(look).await;
    let expected = "\
        t | t_by_a | CREATE INDEX t_by_a ON public.t USING hash (a)\n\
        t | t_pkey | CREATE UNIQUE INDEX t_pkey ON public.t USING hash (id)\n\
        v | v_by_a | CREATE INDEX v_by_a ON public.v USING hash (a)\n\
        SELECT 3\n";
    assert!(before.starts_with(expected), "{before}");
    assert!(before.contains("IndexLookup: v using v_by_a (a), 1 key"), "{before}");
    assert!(before.ends_with("10\nSELECT 1\n10\nSELECT 1\n"), "{before}");
    server.stop().await;
    // From the log, and then from a checkpoint.
    for checkpoint in [true, false] {
        let server = start(&store, 1).await;
        assert_eq!(server.run(look).await, before);
        if checkpoint {
            server.coordinator.checkpoint().await.expect("writes");
        }
        // A new object does not get the id of an index.
        let made = server.run("CREATE TABLE more (a int)\nDROP TABLE more").await;
        assert_eq!(made, "CREATE TABLE\nDROP TABLE\n");
        server.stop().await;
    }
}
