//! State of views in checkpoints: taken up after a restart, exactly, with any number of workers,
//! whatever the store does.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::durability::{PATIENCE, Running, start, start_with};
use crate::storage::faulty::{Fault, FaultyStore};
use crate::storage::manifest;

/// Views of every operator that keeps something, over tables and each other, with queries that
/// say in a batch what they must show.
pub(super) const VIEWS: &[(&str, &str)] = &[
    (
        "per_kind",
        "SELECT kind, count(*) AS n, sum(v) AS s, min(v) AS lo, max(v) AS hi, count(DISTINCT v) AS d FROM items GROUP BY kind",
    ),
    ("everything", "SELECT count(*) AS n, sum(v) AS s, avg(v) AS a FROM items"),
    (
        "listed",
        "SELECT kind, array_agg(v ORDER BY v, id) AS vs, string_agg(label, ',' ORDER BY id) AS ls FROM items GROUP BY kind",
    ),
    ("joined", "SELECT i.id, i.v, k.name FROM items i JOIN kinds k ON i.kind = k.kind"),
    (
        "outer_joined",
        "SELECT i.id, k.name FROM items i LEFT JOIN kinds k ON i.kind = k.kind AND i.v > 10",
    ),
    (
        "missing",
        "SELECT id FROM items WHERE NOT EXISTS (SELECT 1 FROM kinds k WHERE k.kind = items.kind)",
    ),
    (
        "best",
        "SELECT id, v, kind FROM (SELECT id, v, kind, row_number() OVER (PARTITION BY kind ORDER BY v DESC, id) AS r FROM items) x WHERE r <= 2",
    ),
    ("running", "SELECT id, sum(v) OVER (PARTITION BY kind ORDER BY id) AS s FROM items"),
    (
        "rises",
        "SELECT * FROM items MATCH_RECOGNIZE (PARTITION BY kind ORDER BY id MEASURES FIRST(id) AS f, count(*) AS n PATTERN (a up+) DEFINE up AS v > PREV(v))",
    ),
    ("distinct_kinds", "SELECT DISTINCT kind, v % 3 AS m FROM items"),
    ("together", "SELECT kind FROM items UNION ALL SELECT kind FROM kinds"),
    (
        "reach",
        "WITH RECURSIVE r AS (SELECT kind, 0 AS d FROM kinds WHERE kind = 0 UNION SELECT k.kind, r.d + 1 FROM r JOIN kinds k ON k.kind = r.kind + 1 WHERE r.d < 20) SELECT kind, d FROM r",
    ),
    (
        "with_constants",
        "SELECT i.kind, c.x, count(*) AS n FROM items i JOIN (VALUES (0, 'a'), (1, 'b')) c(kind, x) ON i.kind = c.kind GROUP BY i.kind, c.x",
    ),
    ("above", "SELECT p.kind, p.s, k.name FROM per_kind p LEFT JOIN kinds k ON p.kind = k.kind"),
    ("top", "SELECT max(s) AS s, count(*) AS n FROM above"),
    ("beside", "SELECT i.id, p.s FROM items i JOIN per_kind p ON i.kind = p.kind"),
    ("intervals", "SELECT kind, max(v * INTERVAL '1 day') AS i FROM items GROUP BY kind"),
    ("inverse", "SELECT id, 100 / (v - 7) AS q FROM items"),
];

pub(super) async fn set_up(server: &Running) {
    set_up_with(server, false).await;
}

/// The same; joins may read indexes.
async fn set_up_with(server: &Running, indexed: bool) {
    let mut script = "
        CREATE TABLE items (id int PRIMARY KEY, kind int, v int, label text)
        CREATE TABLE kinds (kind int, name text)
        INSERT INTO kinds SELECT g, 'kind ' || g FROM generate_series(0, 5) g(g)
    "
    .to_owned();
    if indexed {
        script += "CREATE INDEX kinds_by_kind ON kinds (kind)\n";
    }
    for (name, query) in VIEWS {
        if indexed && *name == "beside" {
            script += "CREATE INDEX sums_by_kind ON per_kind (kind)\n";
        }
        script += &format!("CREATE MATERIALIZED VIEW {name} AS {query}\n");
    }
    let out = server.run(&script).await;
    assert!(!out.contains(": "), "{out}");
}

/// A random change of the tables.
pub(super) fn change(random: &mut StdRng) -> String {
    let (id, kind, v) =
        (random.random_range(0..60), random.random_range(0..8), random.random_range(0..40));
    match random.random_range(0..10) {
        0..5 => {
            format!("INSERT INTO items VALUES ({id}, {kind}, {v}, 'l{v}') ON CONFLICT DO NOTHING")
        }
        5..7 => format!("UPDATE items SET v = {v}, kind = {kind} WHERE id % 7 = {}", id % 7),
        7 => format!("DELETE FROM items WHERE id % 5 = {}", id % 5),
        8 => format!("INSERT INTO kinds VALUES ({kind}, 'more {v}')"),
        _ => format!("DELETE FROM kinds WHERE kind = {kind} AND name LIKE 'more%'"),
    }
}

pub(super) fn sorted(out: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    lines
}

/// No view differs from its query, and the row errors are those of the rows that are there.
pub(super) async fn check(server: &Running, context: &str) {
    check_views(server, context).await;
    let errors = server.run("SELECT coalesce(sum(weight), 0)::int FROM millstream.errors").await;
    let failing = server.run("SELECT count(*)::int FROM items WHERE v = 7").await;
    if errors != failing {
        let listed = server.run("SELECT place, \"row\", weight FROM millstream.errors").await;
        let failing = server.run("SELECT * FROM items WHERE v = 7").await;
        panic!("{context}: the errors are\n{listed}and the rows\n{failing}");
    }
}

/// No view differs from its query.
async fn check_views(server: &Running, context: &str) {
    for (name, query) in VIEWS.iter().filter(|(name, _)| *name != "inverse") {
        let view = server.run(&format!("SELECT * FROM {name}")).await;
        let batch = server.run(query).await;
        assert_eq!(sorted(&view), sorted(&batch), "{context}: {name}");
    }
    let inverse = server.run("SELECT * FROM inverse").await;
    let batch = server.run("SELECT id, 100 / (v - 7) AS q FROM items WHERE v <> 7").await;
    assert_eq!(sorted(&inverse), sorted(&batch), "{context}: inverse");
}

#[tokio::test(flavor = "multi_thread")]
async fn views_take_up_their_state_with_any_number_of_workers() {
    take_up_their_state(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn views_whose_joins_read_indexes_take_up_their_state() {
    take_up_their_state(true).await;
}

async fn take_up_their_state(indexed: bool) {
    let store = FaultyStore::new();
    let mut random = StdRng::seed_from_u64(3);
    let hour = Duration::from_secs(3600);
    let server = start_with(&store, 2, hour).await;
    set_up_with(&server, indexed).await;
    let read =
        server.run("SELECT count(DISTINCT name)::int FROM millstream.memory WHERE kind = 'index'");
    assert_eq!(read.await, format!("{}\nSELECT 1\n", if indexed { 2 } else { 0 }));
    server.run("INSERT INTO items VALUES (100, 1, 7, 'seven')").await;
    for _ in 0..30 {
        server.run(&change(&mut random)).await;
    }
    check(&server, "at first").await;
    assert_eq!(server.run("CHECKPOINT").await, "CHECKPOINT\n");
    let fact = &server.coordinator.checkpoints().await.expect("works")[0];
    assert_eq!(fact.views, VIEWS.len());
    server.stop().await;
    for (turn, workers) in [2, 1, 3, 3, 2].into_iter().enumerate() {
        let context = format!("turn {turn}, {workers} workers");
        let server = start_with(&store, workers, hour).await;
        // Nothing has changed, so nothing was computed again: no view has anything to write.
        if turn == 0 {
            assert_eq!(server.run("CHECKPOINT").await, "CHECKPOINT\n");
            let fact = &server.coordinator.checkpoints().await.expect("works")[0];
            assert_eq!(fact.views, 0, "{context}");
        }
        check(&server, &context).await;
        for _ in 0..12 {
            server.run(&change(&mut random)).await;
        }
        check(&server, &context).await;
        assert_eq!(server.run("CHECKPOINT").await, "CHECKPOINT\n");
        // Some of it is only in the log when the server goes.
        for _ in 0..5 {
            server.run(&change(&mut random)).await;
        }
        server.stop().await;
    }
    let server = start(&store, 1).await;
    check(&server, "at the end").await;
    server.stop().await;
}

/// The numbers of a finished source, read in pieces: every row once.
#[tokio::test(flavor = "multi_thread")]
async fn sources_go_on_where_they_were_read_to() {
    let store = FaultyStore::new();
    let server = start_with(&store, 2, Duration::from_millis(20)).await;
    let script = "
        CREATE SOURCE bid WITH (connector = 'nexmark', table.type = 'bid', events.limit = 40000, rate = 40000)
        CREATE SOURCE numbers (n bigint) WITH (connector = 'datagen', rate = 20000, \"fields.n.kind\" = 'sequence', \"fields.n.start\" = '1', \"fields.n.end\" = '20000')
        CREATE MATERIALIZED VIEW bids AS SELECT count(*) AS n, sum(price) AS s, count(DISTINCT auction) AS a FROM bid
        CREATE MATERIALIZED VIEW sums AS SELECT count(*) AS n, sum(n) AS s FROM numbers
        CREATE MATERIALIZED VIEW per_auction AS SELECT auction, max(price) AS p FROM bid GROUP BY auction
        CREATE MATERIALIZED VIEW best AS SELECT max(p) AS p, count(*) AS n FROM per_auction
    ";
    let out = server.run(script).await;
    assert!(!out.contains(": "), "{out}");
    let mut server = Some(server);
    let mut before = 0i64;
    for workers in [1, 3, 2, 1] {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let old = server.take().expect("runs");
        old.run("CHECKPOINT").await;
        let shown = number(&old, "SELECT n FROM sums").await;
        old.stop().await;
        let new = start_with(&store, workers, Duration::from_millis(20)).await;
        let now = number(&new, "SELECT n FROM sums").await;
        assert!(now >= before.max(1) && shown >= before, "{now} after {before}");
        before = now.min(shown);
        server = Some(new);
    }
    let server = server.expect("runs");
    let finished = tokio::time::timeout(PATIENCE, server.run("FLUSH")).await.expect("in time");
    assert_eq!(finished, "FLUSH\n");
    assert_eq!(server.run("SELECT n, s FROM sums").await, "20000 | 200010000\nSELECT 1\n");
    for (view, query) in [
        ("bids", "SELECT count(*) AS n, sum(price) AS s, count(DISTINCT auction) AS a FROM bid"),
        ("per_auction", "SELECT auction, max(price) AS p FROM bid GROUP BY auction"),
        (
            "best",
            "SELECT max(p) AS p, count(*) AS n FROM (SELECT auction, max(price) AS p FROM bid GROUP BY auction) x",
        ),
    ] {
        let shown = server.run(&format!("SELECT * FROM {view}")).await;
        assert_eq!(sorted(&shown), sorted(&server.run(query).await), "{view}");
    }
    let rows = server.run("SELECT rows FROM millstream.sources WHERE name = 'numbers'").await;
    assert_eq!(rows, "20000\nSELECT 1\n", "every row was given once");
    server.stop().await;
}

async fn number(server: &Running, sql: &str) -> i64 {
    let out = server.run(sql).await;
    out.lines().next().and_then(|line| line.parse().ok()).unwrap_or_else(|| panic!("{sql}: {out}"))
}

/// What a crash at any operation on the store leaves is taken up, or computed again.
#[tokio::test(flavor = "multi_thread")]
async fn any_crash_point_gives_views_that_are_their_queries() {
    let store = FaultyStore::new();
    let mut random = StdRng::seed_from_u64(11);
    let server = start_with(&store, 2, Duration::from_millis(10)).await;
    set_up(&server).await;
    for turn in 0..30 {
        server.run(&change(&mut random)).await;
        if turn % 10 == 9 {
            server.run("CHECKPOINT").await;
        }
    }
    server.stop().await;
    let operations = store.operations();
    let first = operations.len() / 3;
    for turn in 0..12 {
        let point = first + (operations.len() - first) * turn / 11;
        let survivor = FaultyStore::after(&operations[..point]).await;
        let server = start_with(&survivor, turn % 3 + 1, Duration::from_millis(10)).await;
        let context = format!("point {point} of {}", operations.len());
        check_some(&server, &context).await;
        server.run(&change(&mut random)).await;
        check_some(&server, &context).await;
        server.stop().await;
    }
}

/// As [`check`], where not all views need be there.
async fn check_some(server: &Running, context: &str) {
    let views = server.run("SHOW MATERIALIZED VIEWS").await;
    let there = |name: &str| views.lines().any(|line| line == name);
    for (name, query) in VIEWS.iter().filter(|(name, _)| *name != "inverse" && there(name)) {
        let view = server.run(&format!("SELECT * FROM {name}")).await;
        let batch = server.run(query).await;
        assert_eq!(sorted(&view), sorted(&batch), "{context}: {name}");
    }
}

/// Errors before and after writes, lost answers, damaged files: what is restored is exact, seed by
/// seed.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_at_random_loses_no_state() {
    let variable = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let seeds = variable("MILLSTREAM_SEEDS").unwrap_or(3);
    let first = variable("MILLSTREAM_SEED").unwrap_or(0);
    for seed in first..first + seeds {
        let mut random = StdRng::seed_from_u64(seed);
        let store = FaultyStore::new();
        let mut server = start_with(&store, 2, Duration::from_millis(5)).await;
        set_up_with(&server, seed % 2 == 1).await;
        for round in 0..3 {
            store.set_random(seed * 100 + round, 0.15);
            for _ in 0..10 {
                server.run(&change(&mut random)).await;
            }
            check(&server, &format!("seed {seed}, round {round}, while it fails")).await;
            server.stop().await;
            store.set(Fault::None);
            if random.random_bool(0.5) {
                damage_newest(&store, &mut random).await;
            }
            let workers = random.random_range(1..4);
            server = start_with(&store, workers, Duration::from_millis(5)).await;
            check(&server, &format!("seed {seed}, round {round}, restarted")).await;
        }
        server.stop().await;
    }
}

/// Tears a file that the newest manifest alone names, if there is one.
async fn damage_newest(store: &Arc<FaultyStore>, random: &mut StdRng) {
    let mut found = manifest::find(&store.store()).await.expect("readable");
    let found = found.all(&store.store()).await.expect("readable");
    let [newest, before, ..] = &found[..] else { return };
    let own: Vec<&str> = newest.files().difference(&before.files()).copied().collect();
    if own.is_empty() {
        return;
    }
    let path = object_store::path::Path::from(own[random.random_range(0..own.len())]);
    let bytes = store.store().get(&path).await.expect("readable");
    store.overwrite(&path, bytes[..bytes.len() * 2 / 3].to_vec()).await;
}

/// Many groups are handed over by and by while epochs change them: what is restored is exact.
#[tokio::test(flavor = "multi_thread")]
async fn groups_are_handed_over_while_they_change() {
    let store = FaultyStore::new();
    let query = "SELECT k, count(*) AS n, sum(v)::bigint AS s FROM t GROUP BY k";
    let mut server = start_with(&store, 2, Duration::from_millis(5)).await;
    let set_up = format!(
        "CREATE TABLE t (k bigint, v bigint)
         CREATE MATERIALIZED VIEW m AS {query}
         INSERT INTO t SELECT g % 3000, g FROM generate_series(1, 6000) g(g)"
    );
    assert!(!server.run(&set_up).await.contains(": "));
    for round in 0..4 {
        for n in 0..12 {
            let (from, part) = (n * 250, n % 5);
            let script = format!(
                "INSERT INTO t SELECT g, {n} FROM generate_series({from}, {from} + 600) g(g)
                 DELETE FROM t WHERE k % 7 = {part} AND v % 3 = {round} % 3"
            );
            let out = server.run(&script).await;
            assert!(!out.contains(": "), "{out}");
        }
        server.stop().await;
        server = start_with(&store, 1 + round % 3, Duration::from_millis(5)).await;
        let view = server.run("SELECT * FROM m").await;
        assert_eq!(sorted(&view), sorted(&server.run(query).await), "round {round}");
    }
    server.stop().await;
}
