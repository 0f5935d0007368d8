//! Views that share operators, over restarts.

use super::durability::start;
use crate::storage::faulty::FaultyStore;

const LOOK: &str = "
    SELECT * FROM twice ORDER BY g
    SELECT * FROM most";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shared_is_shared_after_a_restart() {
    let store = FaultyStore::new();
    let server = start(&store, 2).await;
    let setup = "
        CREATE TABLE t (id int PRIMARY KEY, g text NOT NULL, n int)
        INSERT INTO t SELECT n, 'g' || n % 3, n FROM generate_series(1, 30) AS g(n)
        CREATE MATERIALIZED VIEW counts AS SELECT g, count(*) AS c, sum(n) AS s FROM t GROUP BY g
        CREATE MATERIALIZED VIEW twice AS SELECT g, c * 2 AS d FROM (SELECT g, count(*) AS c, sum(n) AS s FROM t GROUP BY g) x WHERE s > 0
        CREATE MATERIALIZED VIEW most AS SELECT max(s) AS m FROM (SELECT g, count(*) AS c, sum(n) AS s FROM t GROUP BY g) x";
    let made = server.run(setup).await;
    assert_eq!(made.matches("CREATE MATERIALIZED VIEW").count(), 3, "{made}");
    let plans = "EXPLAIN MATERIALIZED VIEW twice\nEXPLAIN MATERIALIZED VIEW most";
    let shared = |text: &str| text.matches("Scan counts, shared").count();
    let before = server.run(plans).await;
    assert!(shared(&before) >= 1, "{before}");
    let expected = "g0 | 20\ng1 | 20\ng2 | 20\nSELECT 3\n165\nSELECT 1\n";
    assert_eq!(server.run(LOOK).await, expected);
    server.coordinator.checkpoint().await.expect("writes");
    server.run("DELETE FROM t WHERE id = 30").await;
    server.stop().await;

    let server = start(&store, 1).await;
    assert_eq!(server.run(plans).await, before);
    let expected = "g0 | 18\ng1 | 20\ng2 | 20\nSELECT 3\n155\nSELECT 1\n";
    assert_eq!(server.run(LOOK).await, expected);
    // What is shared goes, and others have what they had: now, and computed again.
    assert_eq!(server.run("DROP MATERIALIZED VIEW counts").await, "DROP MATERIALIZED VIEW\n");
    server.run("INSERT INTO t VALUES (31, 'g0', 1000)").await;
    let expected = "g0 | 20\ng1 | 20\ng2 | 20\nSELECT 3\n1135\nSELECT 1\n";
    assert_eq!(server.run(LOOK).await, expected);
    server.coordinator.checkpoint().await.expect("writes");
    server.run("UPDATE t SET n = 2000 WHERE id = 31").await;
    server.stop().await;

    let server = start(&store, 2).await;
    let expected = "g0 | 20\ng1 | 20\ng2 | 20\nSELECT 3\n2135\nSELECT 1\n";
    assert_eq!(server.run(LOOK).await, expected);
    assert_eq!(shared(&server.run(plans).await), 0);
    let dropped = server.run("DROP TABLE t CASCADE").await;
    assert!(dropped.starts_with("DROP TABLE\n"), "{dropped}");
    server.stop().await;
}
