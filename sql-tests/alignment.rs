//! Watermark alignment: a split that is far ahead of the others waits for them.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use millstream::slt::PrivateServer;
use tokio_postgres::{Client, NoTls};

/// Many more than are read ahead (8 batches of 8192), each a second after the one before.
const FAST_ROWS: i64 = 300_000;

async fn number(client: &Client, sql: &str) -> i64 {
    let row = client.query_one(sql, &[]).await;
    row.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
}

async fn rows_of(client: &Client, source: &str) -> i64 {
    number(client, &format!("SELECT rows FROM millstream.sources WHERE name = '{source}'")).await
}

/// Waits until the source has given so many rows, or the time is over; how many it has given.
async fn wait_for_rows(client: &Client, source: &str, wanted: i64, patience: Duration) -> i64 {
    let began = std::time::Instant::now();
    loop {
        let found = rows_of(client, source).await;
        if found == wanted || began.elapsed() > patience {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn write_splits(folder: &Path) {
    let mut fast = String::from("id,at\n");
    for id in 0..FAST_ROWS {
        let (hours, minutes, seconds) = (id / 3600 % 24, id / 60 % 60, id % 60);
        let day = 1 + id / 86_400;
        fast.push_str(&format!("{id},2024-01-{day:02} {hours:02}:{minutes:02}:{seconds:02}\n"));
    }
    std::fs::write(folder.join("fast.csv"), fast).expect("a file can be written");
    std::fs::write(folder.join("slow.csv"), "id,at\n-1,2024-01-01 00:00:00\n").expect("a file");
}

#[test]
fn a_split_that_is_far_ahead_waits_for_the_others() {
    let folder = tempfile::TempDir::new().expect("a folder can be made");
    write_splits(folder.path());
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    runtime.block_on(async {
        let server = PrivateServer::start(1).await.expect("the server starts");
        let (client, connection) = server.client_config().connect(NoTls).await.expect("connects");
        tokio::spawn(connection);
        let path = folder.path().to_string_lossy().into_owned();
        for (name, option) in
            [("aligned", ", watermark_drift_max = INTERVAL '10 minutes'"), ("free", "")]
        {
            let sql = format!(
                "CREATE SOURCE {name} (id int, at timestamp, WATERMARK FOR at AS at) WITH \
                 (connector = 'file', path = '{path}', format = 'csv', follow = true{option}); \
                 CREATE MATERIALIZED VIEW {name}_count AS SELECT count(*) AS n FROM {name}"
            );
            client.batch_execute(&sql).await.expect("a source and a view");
        }
        let all = FAST_ROWS + 1;
        let patience = Duration::from_secs(60);
        assert_eq!(wait_for_rows(&client, "free", all, patience).await, all);
        // The other has had as much time, and some more.
        let held = wait_for_rows(&client, "aligned", all, Duration::from_secs(1)).await;
        assert!(held > 1 && held < all, "{held} of {all} rows");
        // The slow split catches up: the fast one goes on to its end.
        let slow = std::fs::OpenOptions::new().append(true).open(folder.path().join("slow.csv"));
        writeln!(slow.expect("a file"), "-2,2024-01-31 00:00:00").expect("a line");
        assert_eq!(wait_for_rows(&client, "aligned", all + 1, patience).await, all + 1);
        let late = "SELECT late FROM millstream.sources WHERE name = 'aligned'";
        assert_eq!(number(&client, late).await, 0);
        drop(client);
        server.stop().await;
    });
}
