//! `millstream bench patterns`: how fast row patterns are matched, in views and in batch.
//!
//! In a server of its own in this process, over tables that are filled before the clock starts:
//! 1. a view of `A B+ C` over a million partitions, matched in event time: from CREATE to its
//!    content. Rows of all partitions are mixed, so each partition goes on a row at a time;
//! 2. a SELECT of V shapes over one long partition: the rows are sorted and matched;
//! 3. a SELECT in which so many partial matches are alive at each row: what a row costs by their
//!    number.

use std::path::PathBuf;

use serde::Serialize;

use crate::bench::{connect, pattern_files, print, run};
use crate::config::ServerConfig;
use crate::observe::clock::Clock;
use crate::slt::PrivateServer;
use crate::types::error::Result;

/// What to measure.
#[derive(Clone, Debug)]
pub struct PatternOptions {
    /// Rows of the first two; the third is smaller.
    pub rows: u64,
    pub json: bool,
    /// Only the first, of rows from Parquet files in this directory, which are written first if
    /// need be.
    pub files: Option<PathBuf>,
    /// Of the first.
    pub partitions: Option<u64>,
    pub config: ServerConfig,
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct PatternMeasurement {
    pub name: String,
    pub rows: u64,
    pub seconds: f64,
    pub rows_per_s: u64,
}

/// Partitions of the view.
const PARTITIONS: u64 = 1_000_000;
/// Rows behind those that begin partial matches.
const ROWS_BEHIND: u64 = 2_000;

/// Measures and prints a line for each.
///
/// # Errors
/// When the server or a statement fails.
pub async fn patterns(options: PatternOptions) -> Result<()> {
    let few = options.rows.div_ceil(4);
    let partitions = options.partitions.unwrap_or(PARTITIONS).min(few).max(1);
    if let Some(directory) = &options.files {
        let config = options.config.clone();
        return pattern_files::measure(directory, options.rows, partitions, config).await;
    }
    let server = PrivateServer::start_with(options.config.clone()).await?;
    let client = connect(&server.client_config()).await?;
    let rows = options.rows;
    if !options.json {
        let workers = options.config.workers;
        print(&format!(
            "Row patterns, {rows} rows, {workers} workers\n\n{:<40} {:>9} {:>9} {:>12}",
            "pattern", "rows", "seconds", "rows/s"
        ));
    }
    run(
        &client,
        "CREATE TABLE steps (p bigint, at timestamp, v int, WATERMARK FOR at AS at) APPEND ONLY",
    )
    .await?;
    run(
        &client,
        &format!(
            "INSERT INTO steps SELECT n % {partitions}, \
             timestamp '2026-01-01' + n * INTERVAL '1 millisecond', \
             CASE WHEN n < {partitions} THEN 0 WHEN n < {rows} - {partitions} THEN 1 ELSE 2 END \
             FROM generate_series(0, {rows} - 1) AS numbers(n)"
        ),
    )
    .await?;
    let view = "CREATE MATERIALIZED VIEW matches AS SELECT count(*) AS n, sum(rows) AS rows \
                FROM steps MATCH_RECOGNIZE (PARTITION BY p ORDER BY at MEASURES count(*) AS rows \
                PATTERN (a b+ c) WITHIN INTERVAL '1' DAY \
                DEFINE a AS v = 0, b AS v = 1, c AS v = 2)";
    measure(&client, &options, &format!("A B+ C over {partitions} partitions"), rows, view).await?;
    run(&client, "DROP TABLE steps CASCADE").await?;

    run(&client, "CREATE TABLE prices (id bigint, price bigint)").await?;
    run(
        &client,
        &format!(
            "INSERT INTO prices SELECT n, abs(n % 20 - 10) + n % 3 \
             FROM generate_series(1, {rows}) AS numbers(n)"
        ),
    )
    .await?;
    let select = "SELECT count(*) FROM prices MATCH_RECOGNIZE (ORDER BY id \
                  MEASURES LAST(down.price) AS bottom PATTERN (strt down+ up+) \
                  DEFINE down AS price < PREV(price), up AS price > PREV(price))";
    measure(&client, &options, "V shapes, one partition, batch", rows, select).await?;
    run(&client, "DROP TABLE prices").await?;

    for alive in [100, 1_000, 10_000] {
        run(&client, "CREATE TABLE waits (id bigint, kind int)").await?;
        let all = alive + ROWS_BEHIND;
        run(
            &client,
            &format!(
                "INSERT INTO waits SELECT n, CASE WHEN n <= {alive} THEN 0 ELSE 1 END \
                 FROM generate_series(1, {all}) AS numbers(n)"
            ),
        )
        .await?;
        let select = "SELECT count(*) FROM waits MATCH_RECOGNIZE (ORDER BY id \
                      MEASURES a.id AS first AFTER MATCH SKIP TO NEXT ROW \
                      PATTERN RELAXED (a b) DEFINE a AS kind = 0, b AS kind = 2)";
        let name = format!("{alive} partial matches alive, batch");
        measure(&client, &options, &name, all, select).await?;
        run(&client, "DROP TABLE waits").await?;
    }
    Ok(())
}

async fn measure(
    client: &tokio_postgres::Client,
    options: &PatternOptions,
    name: &str,
    rows: u64,
    sql: &str,
) -> Result<()> {
    let clock = Clock::system();
    run(client, sql).await?;
    let seconds = clock.elapsed().as_secs_f64();
    let measured = PatternMeasurement {
        name: name.to_owned(),
        rows,
        seconds: (seconds * 1e4).round() / 1e4,
        rows_per_s: (rows as f64 / seconds) as u64,
    };
    let PatternMeasurement { name, rows, seconds, rows_per_s } = &measured;
    print(&match options.json {
        true => serde_json::to_string(&measured).expect("plain numbers have a JSON form"),
        false => format!("{name:<40} {rows:>9} {seconds:>9.3} {rows_per_s:>12}"),
    });
    Ok(())
}
