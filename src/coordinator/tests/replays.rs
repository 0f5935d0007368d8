//! Late rows of a source that were taken in again, through restarts: every view over the source has
//! them, whatever was in the checkpoint when they came.

use std::time::{Duration, Instant};

use super::durability::{PATIENCE, Running, start_with};
use crate::storage::faulty::FaultyStore;

/// Made before the checkpoint: these take up their state after a restart.
const VIEWS: [&str; 4] = [
    "plain AS SELECT id FROM b",
    "total AS SELECT count(*) AS n, sum(id) AS s FROM b",
    "joined AS SELECT x.id AS i, y.id AS j FROM a x RIGHT JOIN b y ON x.id = y.id \
     AND x.ts BETWEEN y.ts - INTERVAL '20 seconds' AND y.ts",
    "paired AS SELECT y.id FROM b y WHERE EXISTS (SELECT 1 FROM a x WHERE x.id = y.id)",
];

const LOOK: &str = "
    SELECT id FROM plain ORDER BY id
    SELECT * FROM total
    SELECT * FROM joined ORDER BY j
    SELECT * FROM paired ORDER BY id
    SELECT id FROM b_late ORDER BY id
";

async fn start(store: &std::sync::Arc<FaultyStore>, workers: usize) -> Running {
    start_with(store, workers, Duration::from_secs(3600)).await
}

/// Waits until so many rows of `b` have been read, and gives what is to be seen then.
async fn look(server: &Running, rows: usize) -> String {
    let began = Instant::now();
    let found = "SELECT rows FROM millstream.sources WHERE name = 'b'";
    while server.run(found).await != format!("{rows}\nSELECT 1\n") {
        assert!(began.elapsed() < PATIENCE, "{rows} rows of b have not been read");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let seen = server.run(&format!("FLUSH\n{LOOK}")).await;
    let lines = seen.lines().filter(|line| *line != "FLUSH" && !line.starts_with("SELECT "));
    lines.map(|line| format!("{line}\n")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_taken_in_again_are_in_restored_views() {
    let folder = tempfile::TempDir::new().expect("a folder can be made");
    let file = |name: &str, rows: &[&str]| {
        let text = format!("id,ts\n{}\n", rows.join("\n"));
        std::fs::write(folder.path().join(name), text).expect("a file can be written");
    };
    // The first split holds the watermark at 00:01; in the other 2, 3 and 4 are late.
    file("0.csv", &["1,2024-01-10 00:01:00"]);
    let second = [
        "9,2024-01-10 00:10:00",
        "2,2024-01-10 00:05:00",
        "3,2024-01-10 00:04:00",
        "4,2024-01-10 00:04:30",
    ];
    file("1.csv", &second);
    let store = FaultyStore::new();
    let server = start(&store, 2).await;
    let path = folder.path().join("*.csv");
    let mut script = format!(
        "CREATE TABLE a (id int, ts timestamp, WATERMARK FOR ts AS ts) APPEND ONLY
         CREATE SOURCE b (id int, ts timestamp, WATERMARK FOR ts AS ts) WITH (connector = 'file', path = '{}', follow = true)
         INSERT INTO a VALUES (3, '2024-01-10 00:03:50')\n",
        path.display()
    );
    VIEWS.iter().for_each(|view| script += &format!("CREATE MATERIALIZED VIEW {view}\n"));
    let out = server.run(&script).await;
    assert!(!out.contains(": "), "{out}");
    let before = look(&server, 5).await;
    assert_eq!(before, "1\n9\n2 | 10\nNULL | 1\nNULL | 9\n2\n3\n4\n");

    // The table of rows that are taken in again is made with the first of them: it is not in the
    // checkpoint, and neither are the rows.
    server.run("CHECKPOINT").await;
    server.run("REPLAY LATE b WHERE id < 4").await;
    server.run("CREATE MATERIALIZED VIEW later AS SELECT sum(id) AS s FROM b").await;
    let replayed = "1\n2\n3\n9\n4 | 15\nNULL | 1\nNULL | 2\n3 | 3\nNULL | 9\n3\n4\n";
    assert_eq!(look(&server, 5).await, replayed);
    server.stop().await;
    for workers in [3, 1] {
        let server = start(&store, workers).await;
        assert_eq!(look(&server, 5).await, replayed, "after a restart with {workers} worker(s)");
        assert_eq!(server.run("SELECT s FROM later").await, "15\nSELECT 1\n");
        server.stop().await;
    }

    // Of a table that a checkpoint has, with rows that none has; and with all in one.
    let server = start(&store, 2).await;
    server.run("CHECKPOINT").await;
    server.run("REPLAY LATE b").await;
    let replayed = "1\n2\n3\n4\n9\n5 | 19\nNULL | 1\nNULL | 2\n3 | 3\nNULL | 4\nNULL | 9\n3\n";
    assert_eq!(look(&server, 5).await, replayed);
    server.stop().await;
    let server = start(&store, 3).await;
    assert_eq!(look(&server, 5).await, replayed, "after a restart with rows in the log");
    server.run("CHECKPOINT").await;
    server.stop().await;
    let server = start(&store, 2).await;
    assert_eq!(look(&server, 5).await, replayed, "after a restart with all in the checkpoint");
    assert_eq!(server.run("SELECT s FROM later").await, "19\nSELECT 1\n");
    server.stop().await;
}
