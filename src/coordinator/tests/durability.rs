//! What survives: servers over a store in memory that is torn from under them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use expect_test::expect;

use super::*;
use crate::catalog::object::{Object, ObjectKind, ObjectName, ViewObject};
use crate::catalog::snapshot::Change;
use crate::catalog::stored::change_to_text;
use crate::coordinator::ground::GroundState;
use crate::coordinator::recovery::open;
use crate::storage::faulty::{Fault, FaultyStore};
use crate::storage::log::{Entry, Log, Record};
use crate::storage::recovery::recover;
use crate::types::id::ObjectId;

/// In time for anything that a test waits for.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Running {
    pub database: Database,
    pub coordinator: Coordinator,
}

pub(super) async fn start_with(
    store: &Arc<FaultyStore>,
    workers: usize,
    checkpoint_interval: Duration,
) -> Running {
    try_start_with(store, workers, checkpoint_interval).await.expect("opens")
}

pub(super) async fn try_start_with(
    store: &Arc<FaultyStore>,
    workers: usize,
    checkpoint_interval: Duration,
) -> Result<Running> {
    let config = CoordinatorConfig {
        workers,
        epoch_interval_max: Duration::from_millis(10),
        lock_timeout: Duration::from_millis(300),
        history: HistoryConfig::default(),
        memory: crate::coordinator::memory::state_memory(&std::env::temp_dir()),
    };
    let clock = Clock::system();
    let coordinator = open(config, clock.clone(), store.store(), checkpoint_interval).await?;
    let database = Database::new(coordinator.clone(), clock).expect("has threads");
    Ok(Running { database, coordinator })
}

pub(super) async fn start(store: &Arc<FaultyStore>, workers: usize) -> Running {
    start_with(store, workers, Duration::from_millis(50)).await
}

impl Running {
    pub async fn run(&self, script: &str) -> String {
        run(&mut connect(&self.database).await, script).await
    }

    pub async fn stop(self) {
        let coordinator = self.coordinator;
        tokio::task::spawn_blocking(move || coordinator.stop()).await.expect("stops");
    }
}

const SETUP: &str = "
    CREATE SCHEMA shop
    CREATE DATABASE other
    CREATE TABLE shop.goods (id bigint PRIMARY KEY, price numeric(10,2) DEFAULT 9.99, label text, twice numeric GENERATED ALWAYS AS (price * 2) STORED)
    CREATE TABLE kinds (b boolean, s smallint, i int, r real, d double precision, t text, x bytea, da date, ti time, ts timestamp, tz timestamptz, iv interval, u uuid, j jsonb, a int[])
    CREATE TABLE gone (a int)
    CREATE SOURCE counts (n bigint) WITH (connector = 'datagen', \"fields.n.kind\" = 'sequence', \"fields.n.start\" = '1', \"fields.n.end\" = '1000')
    CREATE VIEW cheap AS SELECT id, label FROM shop.goods WHERE price < 10
    CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n, sum(price) AS s FROM shop.goods
    CREATE MATERIALIZED VIEW labels AS SELECT label, count(*) AS n FROM cheap GROUP BY label
    CREATE MATERIALIZED VIEW above AS SELECT l.n AS a, t.n AS b FROM labels l CROSS JOIN total t
    COMMENT ON TABLE shop.goods IS 'what we sell'
    INSERT INTO shop.goods (id, label) VALUES (1, 'a'), (2, NULL), (3, 'a')
    INSERT INTO shop.goods (id, price, label) VALUES (4, 100, 'd'), (5, 5, 'e')
    UPDATE shop.goods SET price = 1.5 WHERE id = 2
    DELETE FROM shop.goods WHERE id = 5
    INSERT INTO kinds VALUES (true, 1, 2, 1.5, -0.0, 'ä', '\\x00ff', '2020-02-29', '23:59:59.999999', '2020-01-01 00:00:00', '2020-01-01 00:00:00+02', '1 mon 2 days 00:00:00.000003', '00000000-0000-0000-0000-000000000001', '{\"a\": 1}', '{1,NULL,3}'), (NULL, NULL, NULL, 'NaN'::real, 'Infinity'::float8, '', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)
    INSERT INTO gone VALUES (1)
    DROP TABLE gone
    CREATE TABLE copied AS SELECT id, label FROM shop.goods WHERE id > 1
    BEGIN
    INSERT INTO copied VALUES (7, 'block')
    DELETE FROM shop.goods WHERE id = 3
    COMMIT
    BEGIN
    INSERT INTO copied VALUES (8, 'rolled back')
    ROLLBACK
";

const LOOK: &str = "
    SELECT * FROM shop.goods ORDER BY id
    SELECT * FROM kinds ORDER BY b
    SELECT * FROM cheap ORDER BY id
    SELECT * FROM total
    SELECT * FROM labels ORDER BY label
    SELECT * FROM above ORDER BY a, b
    SELECT * FROM copied ORDER BY id
    SELECT obj_description('shop.goods'::regclass) IS NULL AS no_function
    SELECT * FROM gone
    SHOW TABLES
    SHOW CREATE TABLE shop.goods
    SELECT datname FROM pg_database ORDER BY 1
";

/// The look without what is not about stored state.
async fn look(server: &Running) -> String {
    let script: Vec<&str> = LOOK.lines().filter(|l| !l.contains("obj_description")).collect();
    server.run(&script.join("\n")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_after_a_restart_with_any_number_of_workers() {
    let store = FaultyStore::new();
    let server = start(&store, 2).await;
    let made = server.run(SETUP).await;
    // DELETE and INSERT in the block are COMMITted; nothing failed.
    assert!(!made.contains("ERROR") && !made.contains("0A000") && !made.contains("42"), "{made}");
    let before = look(&server).await;
    expect![[r#"
        2 | 1.50 | NULL | 3.0000000000
    "#]]
    .assert_eq(before.lines().nth(1).map(|l| format!("{l}\n")).as_deref().unwrap_or_default());
    server.stop().await;
    for workers in [1, 3, 2] {
        let server = start(&store, workers).await;
        assert_eq!(look(&server).await, before, "{workers} workers");
        // Views go on where they were; ids of objects are not used twice.
        let script = "
            INSERT INTO shop.goods VALUES (50, 1, 'new')
            SELECT n FROM total
            DELETE FROM shop.goods WHERE id = 50
            CREATE TABLE later (a int)
            DROP TABLE later
            INSERT INTO shop.goods (id) VALUES (1)
        ";
        expect![[r#"
            INSERT 0 1
            4
            SELECT 1
            DELETE 1
            CREATE TABLE
            DROP TABLE
            23505: duplicate key value violates unique constraint "goods_pkey"
              detail: Key (id)=(1) already exists.
        "#]]
        .assert_eq(&server.run(script).await);
        if workers == 3 {
            assert_eq!(server.run("CHECKPOINT").await, "CHECKPOINT\n");
        }
        server.stop().await;
    }
    // The files alone: after a checkpoint nothing is left to replay.
    let server = start(&store, 1).await;
    assert_eq!(server.run("CHECKPOINT").await, "CHECKPOINT\n");
    server.stop().await;
    let recovered = recover(store.store(), "looker").await.expect("readable");
    assert!(recovered.records.is_empty());
    let server = start(&store, 1).await;
    assert_eq!(look(&server).await, before);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn views_over_sources_show_no_less_than_before() {
    let store = FaultyStore::new();
    let server = start(&store, 2).await;
    let script = "
        SET TimeZone TO 'Asia/Tokyo'
        CREATE SOURCE counts (n bigint, t AS ('2020-01-01 00:00:00'::timestamptz)) WITH (connector = 'datagen', \"fields.n.kind\" = 'sequence', \"fields.n.start\" = '1', \"fields.n.end\" = '1000')
        CREATE MATERIALIZED VIEW sums AS SELECT count(*) AS n, sum(n) AS s, min(t) AS t FROM counts
        CREATE MATERIALIZED VIEW local AS SELECT s::text || ' ' || t::text AS line FROM sums
        FLUSH
        CHECKPOINT
        SELECT line FROM local
    ";
    let out = server.run(script).await;
    let line = "500500 2020-01-01 00:00:00+09\nSELECT 1\n";
    // Midnight of the zone of whoever made the source, as seen by whoever made the view.
    assert!(out.ends_with(line), "{out}");
    server.stop().await;
    let server = start(&store, 1).await;
    assert_eq!(server.run("SELECT line FROM local").await, line);
    server.stop().await;
}

/// Rows of `accounts` and of `ledger` in what a crash after some operations leaves.
async fn after_crash(store: &Arc<FaultyStore>) -> GroundState {
    let mut recovered = recover(store.store(), "survivor").await.expect("recovers");
    GroundState::build(&mut recovered).expect("builds")
}

fn int_rows(ground: &GroundState, table: &str) -> Option<Vec<Vec<i64>>> {
    let object = ground.catalog.objects().find(|o| o.name.name == table)?;
    let mut rows = Vec::new();
    for batch in ground.tables[&object.id].snapshot().batches() {
        let batch = batch.expect("readable");
        for row in 0..batch.num_rows() {
            let value = |c: &arrow::array::ArrayRef| {
                let text = arrow::util::display::array_value_to_string(c, row).expect("a value");
                text.parse().expect("a number")
            };
            rows.push(batch.columns().iter().map(value).collect());
        }
    }
    rows.sort();
    Some(rows)
}

/// Every crash point: after each operation on the store, with what was acknowledged by then.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_and_nothing_is_half_done_at_any_crash_point() {
    let store = FaultyStore::new();
    let server = start_with(&store, 2, Duration::from_millis(5)).await;
    let mut connection = connect(&server.database).await;
    let mut steps: Vec<String> = vec![
        "CREATE TABLE accounts (id int PRIMARY KEY, balance int)".into(),
        "CREATE TABLE ledger (n int PRIMARY KEY)".into(),
        "INSERT INTO accounts SELECT g, 100 FROM generate_series(1, 10) g(g)".into(),
        "CREATE MATERIALIZED VIEW total AS SELECT sum(balance) AS s FROM accounts".into(),
    ];
    for n in 1..=25 {
        let (from, to) = (n % 10 + 1, n * 7 % 10 + 1);
        steps.push(format!(
            "BEGIN; UPDATE accounts SET balance = balance - {n} WHERE id = {from}; \
             UPDATE accounts SET balance = balance + {n} WHERE id = {to}; \
             INSERT INTO ledger VALUES ({n}); COMMIT"
        ));
        if n % 5 == 0 {
            steps.push(format!("CREATE TABLE extra{n} AS SELECT * FROM accounts"));
        }
        if n % 10 == 0 {
            steps.push("CHECKPOINT".into());
            steps.push(format!("DROP TABLE extra{}", n - 5));
        }
    }
    // What was on the store when each step was acknowledged.
    let mut acknowledged: Vec<usize> = Vec::new();
    for step in &steps {
        let out = run(&mut connection, step).await;
        assert!(!out.contains(": "), "{step}: {out}");
        acknowledged.push(store.operations().len());
    }
    drop(connection);
    server.stop().await;
    let operations = store.operations();
    let mut seen = BTreeMap::new();
    for point in 0..=operations.len() {
        let done = acknowledged.iter().filter(|at| **at <= point).count();
        let ground = after_crash(&FaultyStore::after(&operations[..point]).await).await;
        let ledger = int_rows(&ground, "ledger").unwrap_or_default();
        let in_ledger = ledger.len();
        let promised = steps[..done].iter().filter(|s| s.contains("ledger VALUES")).count();
        assert!(in_ledger >= promised, "point {point}: {in_ledger} of {promised} transactions");
        assert!(in_ledger <= promised + 1, "point {point}: more than was ever sent");
        assert_eq!(ledger, (1..=in_ledger as i64).map(|n| vec![n]).collect::<Vec<_>>());
        if let Some(accounts) = int_rows(&ground, "accounts") {
            let sum: i64 = accounts.iter().map(|row| row[1]).sum();
            assert!(accounts.is_empty() && done <= 3 || sum == 1000, "point {point}: {sum}");
        }
        for step in &steps[..done] {
            let dropped = |name: &str| {
                steps[..=done.min(steps.len() - 1)].contains(&format!("DROP TABLE {name}"))
            };
            for kind in ["CREATE TABLE ", "CREATE MATERIALIZED VIEW "] {
                if let Some(name) = step.strip_prefix(kind).and_then(|r| r.split(' ').next()) {
                    let there = ground.catalog.objects().any(|o| o.name.name == name);
                    assert!(there || dropped(name), "point {point}: {name} is missing");
                    if name.starts_with("extra") && there {
                        let rows = int_rows(&ground, name).expect("it is a table");
                        assert_eq!(rows.len(), 10, "point {point}: {name} without its rows");
                    }
                }
            }
        }
        *seen.entry(in_ledger).or_insert(0) += 1;
    }
    // The test sees what it should: every number of transactions, and checkpoints in between.
    assert_eq!(seen.len(), 26);
    assert!(operations.len() > 60, "{} operations", operations.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_writes_and_goes_on_by_itself() {
    refuses_and_goes_on(Fault::DiskFull, "53100").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_is_away_refuses_writes_and_goes_on_by_itself() {
    refuses_and_goes_on(Fault::Refused(std::io::ErrorKind::TimedOut), "58030").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_denies_access_refuses_writes_and_goes_on_by_itself() {
    refuses_and_goes_on(Fault::Refused(std::io::ErrorKind::PermissionDenied), "42501").await;
}

/// While the store has the fault, writes are refused with this SQLSTATE.
async fn refuses_and_goes_on(fault: Fault, sqlstate: &str) {
    let store = FaultyStore::new();
    let server = start(&store, 1).await;
    let setup = "
        CREATE TABLE t (a int PRIMARY KEY)
        CREATE TABLE other (a int)
        INSERT INTO t VALUES (1)
        CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM t
    ";
    server.run(setup).await;
    store.set(fault);
    // On its way when the disk is full: waits, and so does who would see it.
    let mut writer = connect(&server.database).await;
    let write = tokio::spawn(async move { run(&mut writer, "INSERT INTO t VALUES (2)").await });
    // When the log tries again, the first failure has been told.
    while store.refused_writes() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let refused = server.run("INSERT INTO other VALUES (1)").await;
    assert!(refused.starts_with(&format!("{sqlstate}: the log cannot be written")), "{refused}");
    let created = server.run("CREATE TABLE new (a int)").await;
    assert!(created.starts_with(sqlstate), "{created}");
    let mut reader = connect(&server.database).await;
    let read = tokio::spawn(async move { run(&mut reader, "SELECT n FROM v").await });
    // Who has nothing to do with it reads on.
    let others = tokio::time::timeout(PATIENCE / 12, server.run("SELECT count(*) FROM other"));
    assert_eq!(others.await.expect("does not wait"), "0\nSELECT 1\n");
    assert!(!write.is_finished() && !read.is_finished());
    store.set(Fault::None);
    assert_eq!(write.await.expect("ends"), "INSERT 0 1\n");
    assert_eq!(read.await.expect("ends"), "2\nSELECT 1\n");
    assert_eq!(server.run("INSERT INTO other VALUES (5)").await, "INSERT 0 1\n");
    server.stop().await;
    let server = start(&store, 1).await;
    assert_eq!(
        server.run("SELECT n FROM v\nSELECT count(*) FROM t").await,
        "2\nSELECT 1\n2\nSELECT 1\n"
    );
    server.stop().await;
}

/// What is durable does not follow the time of day.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_stops_nothing_and_loses_nothing() {
    let store = FaultyStore::new();
    let clock = Clock::system();
    let config = CoordinatorConfig {
        workers: 2,
        epoch_interval_max: Duration::from_millis(10),
        lock_timeout: Duration::from_secs(10),
        history: HistoryConfig::default(),
        memory: crate::coordinator::memory::state_memory(&std::env::temp_dir()),
    };
    let opened = open(config, clock.clone(), store.store(), Duration::from_millis(5)).await;
    let coordinator = opened.expect("opens");
    let database = Database::new(coordinator.clone(), clock.clone()).expect("has threads");
    let server = Running { database, coordinator };
    let setup = "
        CREATE TABLE t (a int PRIMARY KEY, at timestamptz DEFAULT now())
        CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM t
        CREATE MATERIALIZED VIEW recent AS SELECT a FROM t WHERE at > now() - INTERVAL '1 hour'
    ";
    let made = server.run(setup).await;
    assert!(!made.contains(": "), "{made}");
    let hour_us = 3_600_000_000;
    for (n, hours) in [0, 2, -3, 24, -48, 0].into_iter().enumerate() {
        clock.set_ahead_us(hours * hour_us);
        let script = format!("INSERT INTO t (a) VALUES ({n})\nCHECKPOINT\nSELECT n FROM v");
        let out = tokio::time::timeout(PATIENCE, server.run(&script)).await.expect("goes on");
        assert_eq!(out, format!("INSERT 0 1\nCHECKPOINT\n{}\nSELECT 1\n", n + 1), "{hours} hours");
    }
    server.stop().await;
    let server = start(&store, 1).await;
    assert_eq!(server.run("SELECT n FROM v").await, "6\nSELECT 1\n");
    // A row of the day ahead is as recent as can be.
    assert!(server.run("SELECT a FROM recent ORDER BY a").await.contains("3\n"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn synchronous_commit_off_does_not_wait_and_others_do_not_see_it_yet() {
    let store = FaultyStore::new();
    let server = start(&store, 1).await;
    server.run("CREATE TABLE t (a int PRIMARY KEY)").await;
    store.set(Fault::DiskFull);
    let early = "SET synchronous_commit TO off\nINSERT INTO t VALUES (1)";
    let out = tokio::time::timeout(PATIENCE, server.run(early)).await.expect("does not wait");
    assert_eq!(out, "SET\nINSERT 0 1\n");
    let mut reader = connect(&server.database).await;
    let read = tokio::spawn(async move { run(&mut reader, "SELECT a FROM t").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!read.is_finished(), "a read shows what is not durable");
    store.set(Fault::None);
    assert_eq!(read.await.expect("ends"), "1\nSELECT 1\n");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_does_not_show_what_is_not_durable() {
    let store = FaultyStore::new();
    let server = start(&store, 2).await;
    server.run("CREATE TABLE t (a int PRIMARY KEY)\nINSERT INTO t VALUES (1)").await;
    let mut connection = connect(&server.database).await;
    let statement = connection.parse("SUBSCRIBE (SELECT a FROM t)").expect("parses").remove(0);
    let prepared = connection.prepare(&statement, &[]).await.expect("plans");
    let Response::Rows { mut rows, .. } = connection.execute(&prepared, &[]).await.expect("runs")
    else {
        panic!("rows")
    };
    let mut next = async || {
        let batch = rows.next().await.expect("goes on").expect("works");
        let mut text = String::new();
        write_rows(&mut text, &batch);
        // Without the epoch; the rest of a line is progress, weight, value.
        text.lines()
            .filter_map(|l| l.split_once(" | "))
            .map(|(_, r)| format!("{r}\n"))
            .collect::<String>()
    };
    assert_eq!(next().await, "false | 1 | 1\n");
    store.set(Fault::DiskFull);
    server.run("SET synchronous_commit TO off\nINSERT INTO t VALUES (2)").await;
    let early = tokio::time::timeout(Duration::from_millis(200), next()).await;
    assert!(early.is_err(), "shown before it is durable: {early:?}");
    store.set(Fault::None);
    let late = tokio::time::timeout(PATIENCE, next()).await.expect("in time");
    assert_eq!(late, "false | 1 | 2\n");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_of_two_servers_refuses_everything() {
    let store = FaultyStore::new();
    let older = start(&store, 1).await;
    older.run("CREATE TABLE t (a int PRIMARY KEY)\nINSERT INTO t VALUES (1)").await;
    let newer = start(&store, 1).await;
    let failed = tokio::time::timeout(PATIENCE, older.coordinator.failed()).await.expect("stops");
    assert_eq!(failed.message(), "another server has taken over storage test");
    for statement in ["INSERT INTO t VALUES (2)", "SELECT a FROM t", "CREATE TABLE u (a int)"] {
        let out = older.run(statement).await;
        assert!(out.starts_with("57P01: another server has taken over"), "{statement}: {out}");
    }
    assert_eq!(
        newer.run("INSERT INTO t VALUES (3)\nSELECT a FROM t ORDER BY a").await,
        "INSERT 0 1\n1\n3\nSELECT 2\n"
    );
    older.stop().await;
    newer.stop().await;
}

/// A view of another version of the program, say, whose functions this one does not have.
async fn add_strange_view(store: &Arc<FaultyStore>) {
    let mut recovered = recover(store.store(), "stranger").await.expect("recovers");
    let (generation, number) = (recovered.generation, recovered.log_number);
    let sequence = recovered.sequence;
    let ground = GroundState::build(&mut recovered).expect("builds");
    let table = ground.catalog.objects().find(|o| o.name.name == "t").expect("it is there");
    let view = ViewObject {
        query_sql: "SELECT nonsense(a) AS a FROM t".into(),
        search_path: vec!["public".into()],
        ..ViewObject::default()
    };
    let object = Object {
        id: ObjectId(ground.next_id),
        name: ObjectName { name: "strange".into(), ..table.name.clone() },
        kind: ObjectKind::MaterializedView(view),
        depends_on: vec![table.id],
        ..table.as_ref().clone()
    };
    let change = change_to_text(&Change::CreateObject(Arc::new(object))).expect("written");
    let runtime = tokio::runtime::Handle::current();
    let listener = Arc::new(|_| ());
    let log = Log::start(store.store(), runtime, generation, number, sequence, listener);
    let mut log = log.expect("starts");
    let (sequence, epoch) = (sequence + 1, ground.epoch.next());
    log.append(Record { sequence, epoch, entries: vec![Entry::Catalog(change)] });
    tokio::task::spawn_blocking(move || log.stop()).await.expect("writes what waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_built_says_why_and_keeps_nothing_else_from_working() {
    let store = FaultyStore::new();
    let server = start(&store, 1).await;
    server.run("CREATE TABLE t (a int)\nINSERT INTO t VALUES (1)").await;
    server.stop().await;
    add_strange_view(&store).await;
    let server = start(&store, 1).await;
    let script = "
        SELECT a FROM t
        SELECT a FROM strange
        CREATE MATERIALIZED VIEW over AS SELECT a FROM strange
        CREATE MATERIALIZED VIEW fine AS SELECT a FROM t
        DROP MATERIALIZED VIEW strange
        SELECT a FROM fine
    ";
    let out = server.run(script).await;
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..2], ["1", "SELECT 1"], "{out}");
    assert!(lines[2].contains("materialized view \"strange\" was not restored"), "{out}");
    assert!(lines[2].contains("nonsense"), "{out}");
    assert_eq!(lines.iter().filter(|l| l.contains("was not restored")).count(), 2, "{out}");
    assert!(out.ends_with("DROP MATERIALIZED VIEW\n1\nSELECT 1\n"), "{out}");
    server.stop().await;
}

/// Ids are never used twice, or a file of a dropped table could be taken for one of a new table.
#[tokio::test(flavor = "multi_thread")]
async fn ids_are_not_used_twice() {
    let store = FaultyStore::new();
    let server = start(&store, 1).await;
    server.run("CREATE TABLE a (a int)\nCREATE TABLE b (a int)\nDROP TABLE b\nCHECKPOINT").await;
    server.stop().await;
    let ground = after_crash(&store).await;
    let a = ground.catalog.objects().next().expect("a is there").id;
    assert!(ground.next_id > a.0 + 1, "{} after {a}", ground.next_id);
    assert_eq!(ground.tables.keys().copied().collect::<Vec<ObjectId>>(), [a]);
}
