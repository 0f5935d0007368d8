//! The program with far less memory than its state takes: answers stay right, through a kill too,
//! and the process keeps to its limit. Then with so little that even what cannot go to the disk does
//! not fit: it refuses what would grow, answers, and goes on when there is room again.

use std::path::Path;

use tokio_postgres::Client;

use crate::durability::{Place, Served, rows, serve_in};

const MIB: u64 = 1 << 20;

/// What the process cannot do without.
fn memory_mib(served: &Served) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", served.id()));
    let status = status.expect("the process is there");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.expect("the kernel tells").trim().trim_end_matches(" kB").trim();
    kib.parse::<u64>().expect("a number") * 1024 / MIB
}

fn serve(directory: &Path, limit: &str) -> Served {
    serve_in(&Place::disk(directory), "2", &["--memory-limit", limit])
}

async fn execute(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

const DIGEST: &str = "SELECT count(*), sum(k), sum(octet_length(v)), max(v), count(w) FROM joined";

async fn check(client: &Client, table_rows: u64, context: &str) {
    // Each of the rows of r meets as many of t.
    let sum = table_rows * (table_rows + 1) / 2;
    let last = format!("{}{}", "x".repeat(1000), 999_999_999);
    let expected = format!("{table_rows}|{sum}|{}|{last}|{table_rows}", table_rows * 1009);
    assert_eq!(rows(client, DIGEST).await, [expected], "{context}");
    let by_key = "SELECT k, octet_length(v), w FROM joined WHERE k IN (7, 70000) ORDER BY k";
    // In the order of their text.
    let expected = ["70000|1009|w0", "7|1009|w7"];
    let found = rows(client, by_key).await;
    assert_eq!(found, expected.map(str::to_owned), "{context}");
}

#[tokio::test(flavor = "multi_thread")]
async fn state_of_several_times_the_memory_limit_is_right_and_survives() {
    const PARTS: u64 = 8;
    const PART_ROWS: u64 = 25_000;
    const LIMIT_MIB: u64 = 320;
    let directory = tempfile::tempdir().expect("a directory");
    let served = serve(directory.path(), &format!("{LIMIT_MIB}MiB"));
    let client = served.connect().await;
    execute(&client, "CREATE TABLE t (k bigint, v text)").await;
    execute(&client, "CREATE TABLE r (k bigint PRIMARY KEY, w text)").await;
    let view = "CREATE MATERIALIZED VIEW joined AS \
                SELECT t.k, t.v, r.w FROM t JOIN r ON r.k = t.k % 10";
    execute(&client, view).await;
    execute(&client, "INSERT INTO r SELECT n, 'w' || n FROM generate_series(0, 9) AS s(n)").await;
    let mut peak_mib = 0;
    for part in 0..PARTS {
        let (from, to) = (part * PART_ROWS + 1, (part + 1) * PART_ROWS);
        // Text that is as long for every row.
        let insert = format!(
            "INSERT INTO t SELECT n, repeat('x', 1000) || (1000000000 - n) \
             FROM generate_series({from}, {to}) AS s(n)"
        );
        execute(&client, &insert).await;
        execute(&client, "FLUSH").await;
        peak_mib = memory_mib(&served).max(peak_mib);
    }
    check(&client, PARTS * PART_ROWS, "before the kill").await;
    // The table, the join's side and the view have the long text, 200 MB each.
    let memory = "SELECT sum(bytes + disk_bytes) > 500 * 1048576, sum(disk_bytes) > 200 * 1048576 \
                  FROM millstream.memory";
    assert_eq!(rows(&client, memory).await, ["t|t"]);
    assert!(peak_mib < 2 * LIMIT_MIB, "{peak_mib} MiB");
    execute(&client, "CHECKPOINT").await;
    drop(client);
    served.kill();

    let served = serve(directory.path(), &format!("{LIMIT_MIB}MiB"));
    let client = served.connect().await;
    check(&client, PARTS * PART_ROWS, "after the kill").await;
    execute(&client, "DELETE FROM t WHERE k > 100000").await;
    execute(&client, "FLUSH").await;
    check(&client, 100_000, "after deletions").await;
    served.kill();
}

/// Of all groups: how many, their rows, sums, least values, different texts and last texts.
const GROUPS: &str = "SELECT count(*), sum(n), sum(total), sum(least), sum(different), \
                      sum(octet_length(last)), max(last) FROM groups";

#[tokio::test(flavor = "multi_thread")]
async fn groups_of_several_times_the_memory_limit_are_right_and_survive() {
    const ROWS: u64 = 200_000;
    const LIMIT_MIB: u64 = 128;
    let directory = tempfile::tempdir().expect("a directory");
    let served = serve(directory.path(), &format!("{LIMIT_MIB}MiB"));
    let client = served.connect().await;
    let source = format!(
        "CREATE SOURCE numbers (n bigint) WITH (connector = 'datagen', rows = {ROWS}, \
         fields.n.kind = 'sequence')"
    );
    execute(&client, &source).await;
    // Two rows for each group, far from each other.
    let view = format!(
        "CREATE MATERIALIZED VIEW groups AS \
         SELECT n % {} AS k, count(*) AS n, sum(n) AS total, min(n) AS least, \
         count(DISTINCT lpad(n::text, 1000, 'x')) AS different, \
         max(lpad(n::text, 1000, 'x')) AS last FROM numbers GROUP BY n % {}",
        ROWS / 2,
        ROWS / 2
    );
    execute(&client, &view).await;
    let finished = "SELECT count(*) FROM millstream.sources WHERE NOT finished";
    while rows(&client, finished).await != ["0"] {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    execute(&client, "FLUSH").await;
    let half = ROWS / 2;
    // The least of a group is in the first half of the rows; digits are before letters.
    let expected = format!(
        "{half}|{ROWS}|{}|{}|{ROWS}|{}|{}9",
        ROWS * (ROWS + 1) / 2,
        half * (half + 1) / 2,
        half * 1000,
        "x".repeat(999)
    );
    assert_eq!(rows(&client, GROUPS).await, [expected.as_str()], "before the kill");
    // Each text is there once for DISTINCT, the last ones twice: as values and in the view.
    let memory = "SELECT sum(bytes + disk_bytes) > 350 * 1048576, sum(disk_bytes) > 250 * 1048576 \
                  FROM millstream.memory WHERE name = 'groups'";
    assert_eq!(rows(&client, memory).await, ["t|t"]);
    execute(&client, "CHECKPOINT").await;
    drop(client);
    served.kill();

    let served = serve(directory.path(), &format!("{LIMIT_MIB}MiB"));
    let client = served.connect().await;
    assert_eq!(rows(&client, GROUPS).await, [expected.as_str()], "after the kill");
    served.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_nothing_fits_into_refuses_growth_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let served = serve(directory.path(), "8MiB");
    let client = served.connect().await;
    execute(&client, "CREATE TABLE t (k bigint PRIMARY KEY)").await;
    let mut refused = None;
    for n in 0..500 {
        match client.batch_execute(&format!("INSERT INTO t VALUES ({n})")).await {
            Ok(()) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let refused = refused.expect("a server takes more than 8 MiB");
    let refused = refused.as_db_error().expect("an error of the server");
    assert_eq!((refused.code().code(), refused.message()), ("53200", "memory is used up"));
    assert!(refused.hint().is_some_and(|hint| hint.contains("--memory-limit")));
    assert_eq!(rows(&client, "SELECT count(*) >= 0 FROM t").await, ["t"]);
    execute(&client, "DELETE FROM t").await;
    served.kill();
}
