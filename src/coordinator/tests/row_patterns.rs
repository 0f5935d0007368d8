//! Row patterns over a stream: with one to three workers, restarted in the middle of matches, a view
//! ends with what a batch makes of the rows that were not late.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::durability::start_with;
use crate::storage::faulty::FaultyStore;

/// Clauses over `events(p int, at timestamp, v int)`. WITHIN ends what is under way at the end.
const PATTERNS: [&str; 4] = [
    "MEASURES FIRST(at) AS f, MATCH_ROWTIME() AS l, sum(v) AS s
     PATTERN (a b+ c?) WITHIN INTERVAL '20' SECOND
     DEFINE a AS v = 0, b AS v > PREV(v) OR v = 1, c AS v = 4 AND sum(b.v) > FIRST(a.v)",
    "MEASURES FIRST(at) AS f, LAST(at) AS l, MATCH_TIMED_OUT() AS o
     PATTERN (a b c) WITHIN INTERVAL '9' SECOND EMIT TIMEOUT ROWS
     DEFINE a AS v < 2, b AS v < 3, c AS v > 2",
    "MEASURES a.at AS f, MATCH_NUMBER() AS n PATTERN RELAXED (a NOT b) WITHIN INTERVAL '6' SECOND
     DEFINE a AS v = 0, b AS v = 1",
    "MEASURES CLASSIFIER() AS c, MATCH_NUMBER() AS n
     ALL ROWS PER MATCH WITH UNMATCHED ROWS AFTER MATCH SKIP TO NEXT ROW
     PATTERN (low+ high) WITHIN INTERVAL '8' SECOND DEFINE low AS v < 2, high AS v > LAST(low.v, 1)",
];

fn query(table: &str, clauses: &str) -> String {
    let clauses = clauses.replace('\n', " ");
    format!("SELECT * FROM {table} MATCH_RECOGNIZE (PARTITION BY p ORDER BY at, v {clauses})")
}

fn sorted(out: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_have_the_matches_of_batches_through_restarts() {
    let store = FaultyStore::new();
    let hour = Duration::from_secs(3600);
    let mut random = StdRng::seed_from_u64(7);
    let mut clock_s = 0;
    for (turn, workers) in [2, 1, 3, 3, 2].into_iter().enumerate() {
        let server = start_with(&store, workers, hour).await;
        if turn == 0 {
            let mut script =
                "CREATE TABLE events (p int, at timestamp, v int, WATERMARK FOR at AS \
                              at - INTERVAL '4 seconds') APPEND ONLY\n"
                    .to_owned();
            for (number, clauses) in PATTERNS.iter().enumerate() {
                let query = query("events", clauses);
                script += &format!("CREATE MATERIALIZED VIEW m{number} AS {query}\n");
            }
            let out = server.run(&script).await;
            assert!(!out.contains(": "), "{out}");
        }
        for step in 0..24 {
            if step == 12 {
                assert_eq!(server.run("CHECKPOINT").await, "CHECKPOINT\n");
            }
            let rows: Vec<String> = (0..random.random_range(1..6))
                .map(|_| {
                    // Some are late.
                    let at_s = clock_s + random.random_range(-6..3);
                    let (p, v) = (random.random_range(0..4), random.random_range(0..5));
                    format!("({p}, timestamp '2026-01-01' + {at_s} * INTERVAL '1 second', {v})")
                })
                .collect();
            server.run(&format!("INSERT INTO events VALUES {}", rows.join(", "))).await;
            clock_s += random.random_range(0..3);
        }
        server.stop().await;
    }
    let server = start_with(&store, 2, hour).await;
    server.run("INSERT INTO events VALUES (99, '2027-01-01', 9)").await;
    let late = server.run("SELECT count(*) FROM events_late").await;
    assert!(!late.starts_with("0\n"), "some rows were late");
    for (number, clauses) in PATTERNS.iter().enumerate() {
        let view = server.run(&format!("SELECT * FROM m{number}")).await;
        let batch = query("(SELECT * FROM events WHERE p < 99)", clauses);
        let batch = server.run(&batch).await;
        assert!(view.lines().count() > 4, "{number}: {view}");
        assert_eq!(sorted(&view), sorted(&batch), "{clauses}");
    }
    server.stop().await;
}
