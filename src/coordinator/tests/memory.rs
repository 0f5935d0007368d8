//! State on the disk, memory that is used up, and queries that ask for more than there is.

use std::sync::Arc;
use std::time::Duration;

use super::{connect, run};
use crate::coordinator::command::Database;
use crate::coordinator::event_loop::{Coordinator, CoordinatorConfig, HistoryConfig};
use crate::observe::clock::Clock;
use crate::state::spill::StateMemory;

fn database_with(memory: Arc<StateMemory>) -> (Database, Coordinator) {
    let config = CoordinatorConfig {
        workers: 2,
        epoch_interval_max: Duration::from_millis(10),
        lock_timeout: Duration::from_millis(300),
        history: HistoryConfig::default(),
        memory,
    };
    let clock = Clock::system();
    let coordinator = Coordinator::start(config, clock.clone()).expect("the workers start");
    let database = Database::new(coordinator.clone(), clock).expect("threads can be started");
    (database, coordinator)
}

/// Two tables, and views that keep rows in every kind of store.
const SCHEMA: &str = "
    CREATE TABLE l (k bigint, v text)
    CREATE TABLE r (k bigint PRIMARY KEY, w text)
    CREATE MATERIALIZED VIEW joined AS SELECT l.k, v, w FROM l LEFT JOIN r ON l.k = r.k
    CREATE MATERIALIZED VIEW counted AS SELECT k, count(*) AS n, min(v) AS least FROM joined GROUP BY k
    CREATE MATERIALIZED VIEW groups AS SELECT v, sum(k) AS total, count(DISTINCT k) AS different, max(k || v) AS last, string_agg(v, ',' ORDER BY k) AS texts FROM joined GROUP BY v
    CREATE MATERIALIZED VIEW firsts AS SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY v) AS place FROM l) AS ranked WHERE place <= 2
    INSERT INTO l SELECT n % 50, 'text ' || n FROM generate_series(1, 2000) AS numbers(n)
    INSERT INTO r SELECT n, 'more ' || n FROM generate_series(0, 39) AS numbers(n)
    DELETE FROM l WHERE k % 7 = 3
    UPDATE r SET w = w || '!' WHERE k < 10
";

const LOOK: &str = "
    SELECT count(*), count(w), min(w), max(v) FROM joined
    SELECT count(*), sum(n), min(least) FROM counted
    SELECT count(*), sum(total), sum(different), min(last), max(last), max(texts) FROM groups
    SELECT count(*), max(v) FROM firsts
    SELECT * FROM joined WHERE k = 4 ORDER BY v LIMIT 2
";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_the_disk_is_read_and_changed_as_if_it_were_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let in_memory = Arc::new(StateMemory::new(directory.path().to_owned()));
    let on_disk = Arc::new(StateMemory::always_full(directory.path().to_owned()));
    let mut shown = Vec::new();
    for memory in [in_memory, on_disk.clone()] {
        let (database, coordinator) = database_with(memory);
        let mut connection = connect(&database).await;
        run(&mut connection, SCHEMA).await;
        shown.push(run(&mut connection, LOOK).await);
        let places = run(
            &mut connection,
            "SELECT name FROM millstream.memory WHERE disk_bytes > 0 ORDER BY name",
        );
        shown.push(places.await);
        drop(connection);
        tokio::task::spawn_blocking(move || coordinator.stop()).await.expect("it stops");
    }
    assert_eq!(shown[0], shown[2]);
    // 50 keys of 40 rows each, seven of them gone; 8 of those left have no partner.
    assert!(shown[0].contains("1720"), "{}", shown[0]);
    assert!(!shown[1].contains("joined") && shown[3].contains("joined"), "{}", shown[3]);
    assert!(shown[3].contains('l') && shown[3].contains('r'), "{}", shown[3]);
    let own = |name: &str| shown[3].lines().any(|line| line.trim() == name);
    assert!(own("groups") && own("counted"), "{}", shown[3]);
    drop(shown);
    assert_eq!(on_disk.disk().now_bytes(), 0, "files go with what they hold");
    assert!(on_disk.disk().written_bytes() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_is_used_up_lets_in_nothing_but_deletions() {
    let memory = Arc::new(StateMemory::new(std::env::temp_dir()));
    let (database, coordinator) = database_with(memory.clone());
    let mut connection = connect(&database).await;
    let set_up = "
        CREATE TABLE t (k bigint PRIMARY KEY, v bigint)
        CREATE MATERIALIZED VIEW total AS SELECT sum(v) AS v FROM t
        CREATE SOURCE s WITH (connector = 'nexmark', table.type = 'person', events.limit = '5000')
        INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)
    ";
    run(&mut connection, set_up).await;
    assert!(memory.hold(true));
    let refused = run(&mut connection, "INSERT INTO t VALUES (4, 4)").await;
    assert!(refused.contains("53200") && refused.contains("memory is used up"), "{refused}");
    let changed = "
        DELETE FROM t WHERE k = 1
        UPDATE t SET v = 20 WHERE k = 2
        SELECT v FROM total
        CREATE MATERIALIZED VIEW people AS SELECT count(*) AS n FROM s
        SELECT n FROM people
    ";
    let changed = run(&mut connection, changed).await;
    assert!(changed.contains("23") && !changed.contains("53200"), "{changed}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let none = run(&mut connection, "SELECT n FROM people").await;
    assert!(!none.contains("100"), "the source waits: {none}");
    assert!(memory.hold(false));
    coordinator.relieve().await.expect("it runs");
    let after = "
        INSERT INTO t VALUES (4, 4)
        FLUSH
        SELECT v FROM total
        SELECT n FROM people
    ";
    let after = run(&mut connection, after).await;
    // A person is one of fifty events.
    assert!(after.contains("27") && after.contains("100"), "{after}");
    drop(connection);
    tokio::task::spawn_blocking(move || coordinator.stop()).await.expect("it stops");
}

/// A table of so many texts, each another.
fn texts(rows: u64) -> String {
    format!(
        "CREATE TABLE t (k bigint, v text)
         INSERT INTO t SELECT n, 'some text ' || n FROM generate_series(1, {rows}) AS numbers(n)"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_asks_for_more_than_there_is_fails_alone() {
    let memory = Arc::new(StateMemory::new(std::env::temp_dir()));
    let (database, coordinator) = database_with(memory.clone());
    let mut connection = connect(&database).await;
    run(&mut connection, &texts(200_000)).await;
    memory.grant_queries(1 << 20);
    let greedy = "SELECT count(*) FROM (SELECT v, count(*) AS n FROM t GROUP BY v) AS groups \
                  JOIN t ON t.v = groups.v";
    let refused = run(&mut connection, greedy).await;
    assert!(refused.contains("53200"), "{refused}");
    let modest = run(&mut connection, "SELECT count(*), sum(k) FROM t").await;
    assert!(modest.contains("200000") && modest.contains("20000100000"), "{modest}");
    // Its tasks end a moment after it.
    for _ in 0..500 {
        if memory.query_bytes() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    assert_eq!(memory.query_bytes(), 0, "a query gives back what it took");
    memory.grant_queries(1 << 30);
    let granted = run(&mut connection, greedy).await;
    assert!(granted.contains("200000"), "{granted}");
    drop(connection);
    tokio::task::spawn_blocking(move || coordinator.stop()).await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_query_asks_for_others_go_on() {
    let memory = Arc::new(StateMemory::new(std::env::temp_dir()));
    let (database, coordinator) = database_with(memory.clone());
    let mut connection = connect(&database).await;
    run(&mut connection, &texts(30_000)).await;
    memory.grant_queries(2 << 20);
    let greedy = [
        "SELECT cardinality(array_agg(v || v || v || v)) FROM t",
        "SELECT cardinality(array_agg(v || v || v || v ORDER BY v)) FROM t",
        "SELECT length(string_agg(v || v || v || v, ',')) FROM t",
        "SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY v || v || v || v) FROM t",
        "SELECT count(DISTINCT v || v || v || v) FROM t",
        "SELECT sum(n) FROM (SELECT count(*) OVER (ORDER BY v || v || v || v) AS n FROM t) AS w",
        // Of one key: one thread has all rows of a side, however many there are. What it looks for
        // it must hold; the disk takes only what waits for that.
        "SELECT count(a.v || b.v || c.v) FROM (SELECT k / 100000 AS one, repeat(v, 20) AS v FROM t) AS a JOIN (SELECT k / 100000 AS one, repeat(v, 20) AS v FROM t) AS b ON a.one = b.one JOIN (SELECT k / 100000 AS one, repeat(v, 20) AS v FROM t) AS c ON c.one = b.one",
        "WITH RECURSIVE r AS (SELECT k, v FROM t UNION ALL SELECT k + 1, v FROM r) SELECT count(*) FROM r",
    ];
    // Without a limit there is room for a write, whatever queries have.
    let copied = run(&mut connection, "CREATE TABLE copy AS SELECT k, v || v AS v FROM t").await;
    assert!(copied.contains("30000"), "{copied}");
    for sql in greedy {
        let refused = run(&mut connection, sql).await;
        assert!(refused.contains("53200"), "{sql}: {refused}");
        let modest = run(&mut connection, "SELECT count(*), sum(k) FROM t").await;
        assert!(modest.contains("30000") && modest.contains("450015000"), "{sql}: {modest}");
    }
    drop(connection);
    tokio::task::spawn_blocking(move || coordinator.stop()).await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_collects_no_more_rows_than_there_is_memory_for() {
    let limited = StateMemory::new(std::env::temp_dir()).with_limit(4 << 20);
    let memory = Arc::new(limited);
    let (database, coordinator) = database_with(memory.clone());
    let mut connection = connect(&database).await;
    run(&mut connection, "CREATE TABLE t (k bigint)").await;
    memory.grant_queries(1 << 20);
    // A quarter of the limit is theirs in any case.
    let some = "INSERT INTO t SELECT n FROM generate_series(1, 50000) AS s(n)";
    assert!(run(&mut connection, some).await.contains("50000"));
    for sql in [
        "INSERT INTO t SELECT n FROM generate_series(1, 10000000000) AS s(n)",
        "CREATE TABLE u AS SELECT n FROM generate_series(1, 10000000000) AS s(n)",
    ] {
        let refused = run(&mut connection, sql).await;
        assert!(refused.contains("53200") && refused.contains("rows to write"), "{refused}");
    }
    let counted = run(&mut connection, "SELECT count(*) FROM t").await;
    assert!(counted.contains("50000"), "{counted}");
    for _ in 0..500 {
        if memory.query_bytes() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    assert_eq!(memory.query_bytes(), 0, "a write gives back what it took");
    drop(connection);
    tokio::task::spawn_blocking(move || coordinator.stop()).await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_finds_nothing_ends_when_nobody_waits_for_it() {
    let memory = Arc::new(StateMemory::new(std::env::temp_dir()));
    let (database, coordinator) = database_with(memory);
    let mut connection = connect(&database).await;
    let set_up = "
        CREATE TABLE t (k bigint, v bigint)
        INSERT INTO t SELECT n, 1 FROM generate_series(1, 100000) AS numbers(n)
        SET statement_timeout = '300ms'
    ";
    run(&mut connection, set_up).await;
    let began = std::time::Instant::now();
    // Each would look at 10^10 pairs, in either kind of join; more of them than there are threads.
    for condition in ["a.k + b.k < 0", "a.v = b.v AND a.k + b.k < 0"] {
        for _ in 0..4 {
            let sql = format!("SELECT count(*) FROM t AS a JOIN t AS b ON {condition}");
            let ended = run(&mut connection, &sql).await;
            assert!(ended.contains("57014"), "{sql}: {ended}");
        }
    }
    run(&mut connection, "SET statement_timeout = '60s'").await;
    let counted =
        run(&mut connection, "SELECT count(*) FROM t AS a JOIN t AS b ON a.k = b.k").await;
    assert!(counted.contains("100000"), "{counted}");
    assert!(began.elapsed() < Duration::from_secs(60), "took {:?}", began.elapsed());
    drop(connection);
    tokio::task::spawn_blocking(move || coordinator.stop()).await.expect("it stops");
}
