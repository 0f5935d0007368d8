//! `millstream bench patterns --files`: `A B+ C` over many partitions in event time, read from
//! Parquet files, for a comparison in which every system reads the same bytes.
//!
//! Two files with the rows of half of the partitions each, both in the order of time; partitions are
//! mixed, so each of them goes on a row at a time. State goes to files every second, and the clock
//! runs from CREATE MATERIALIZED VIEW until the view has all of it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use serde::Serialize;

use crate::bench::{connect, print, run, sources_ended};
use crate::config::ServerConfig;
use crate::observe::clock::Clock;
use crate::observe::process;
use crate::slt::PrivateServer;
use crate::types::error::{Error, Result, SqlState};

/// Files, which are read side by side.
const FILES: i64 = 2;
/// Rows that are written at a time.
const ROWS: i64 = 8192;
/// 2026-01-01.
const BEGIN_MS: i64 = 1_767_225_600_000;
/// The file that says for what the others are complete.
const COMPLETE: &str = "complete";
/// How often it is asked whether all has been read.
const POLL: std::time::Duration = std::time::Duration::from_millis(10);

/// What one run gives, as JSON.
#[derive(Clone, Debug, Serialize)]
struct Measured {
    rows: u64,
    partitions: u64,
    matches: u64,
    seconds: f64,
    rows_per_s: u64,
    cpu_seconds: f64,
    peak_rss_mib: u64,
}

/// Writes the files unless they are there, and measures.
///
/// # Errors
/// When a file cannot be written, or the server or a statement fails.
pub async fn measure(
    directory: &Path,
    rows: u64,
    partitions: u64,
    config: ServerConfig,
) -> Result<()> {
    write(directory, rows, partitions)?;
    let server = PrivateServer::start_in_storage(config).await?;
    let client = connect(&server.client_config()).await?;
    let path: PathBuf = directory.join("*.parquet");
    let path = path.to_string_lossy().replace('\'', "''");
    let source = format!(
        "CREATE SOURCE steps (p bigint, at timestamp, v int, \
         WATERMARK FOR at AS at - INTERVAL '1 second') \
         WITH (connector = 'file', path = '{path}', format = 'parquet')"
    );
    run(&client, &source).await?;
    process::reset_peak();
    let (clock, cpu_before) = (Clock::system(), process::cpu_time());
    let view = "CREATE MATERIALIZED VIEW matches AS \
                SELECT * FROM steps MATCH_RECOGNIZE (PARTITION BY p ORDER BY at \
                MEASURES count(b.v) AS n, LAST(c.at) AS ended \
                PATTERN (a b+ c) WITHIN INTERVAL '1' DAY \
                DEFINE a AS v = 0, b AS v = 1, c AS v = 2)";
    run(&client, view).await?;
    while !sources_ended(&client).await? {
        tokio::time::sleep(POLL).await;
    }
    run(&client, "FLUSH").await?;
    let seconds = clock.elapsed().as_secs_f64();
    let cpu_seconds = (process::cpu_time() - cpu_before).as_secs_f64();
    let found = client.query_one("SELECT count(*) FROM matches", &[]).await;
    let found: i64 = found.map_err(super::failed)?.get(0);
    let measured = Measured {
        rows,
        partitions,
        matches: found as u64,
        seconds: (seconds * 1e3).round() / 1e3,
        rows_per_s: (rows as f64 / seconds) as u64,
        cpu_seconds: (cpu_seconds * 1e3).round() / 1e3,
        peak_rss_mib: process::resident_peak_bytes() >> 20,
    };
    print(&serde_json::to_string(&measured).expect("plain numbers have a JSON form"));
    drop(client);
    server.stop().await;
    Ok(())
}

/// Rows `(p, at, v)`: of each partition a 0, then 1s, and at its end a 2.
fn write(directory: &Path, rows: u64, partitions: u64) -> Result<()> {
    let complete = directory.join(COMPLETE);
    let said = format!("{rows} {partitions}");
    if fs::read_to_string(&complete).is_ok_and(|text| text == said) {
        return Ok(());
    }
    fs::create_dir_all(directory)?;
    let (rows, partitions) = (rows as i64, partitions as i64);
    let time = DataType::Timestamp(TimeUnit::Millisecond, None);
    let schema: SchemaRef = Arc::new(Schema::new(vec![
        Field::new("p", DataType::Int64, false),
        Field::new("at", time, false),
        Field::new("v", DataType::Int32, false),
    ]));
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    for file in 0..FILES {
        let path = directory.join(format!("{file}.parquet"));
        let properties = Some(properties.clone());
        let mut writer = ArrowWriter::try_new(File::create(path)?, schema.clone(), properties)
            .map_err(unwritable)?;
        let mut from = 0;
        while from < rows {
            let own = (from..rows.min(from + ROWS)).filter(|n| n % partitions % FILES == file);
            let kind = |n: i64| match n {
                n if n < partitions => 0,
                n if n < rows - partitions => 1,
                _ => 2,
            };
            let own: Vec<i64> = own.collect();
            let columns: Vec<ArrayRef> = vec![
                Arc::new(Int64Array::from_iter_values(own.iter().map(|n| n % partitions))),
                // A thousand rows a millisecond, as many as a busy stream has.
                Arc::new(TimestampMillisecondArray::from_iter_values(
                    own.iter().map(|n| BEGIN_MS + n / 1000),
                )),
                Arc::new(Int32Array::from_iter_values(own.iter().map(|n| kind(*n)))),
            ];
            writer.write(&RecordBatch::try_new(schema.clone(), columns)?).map_err(unwritable)?;
            from += ROWS;
        }
        writer.close().map_err(unwritable)?;
    }
    Ok(fs::write(&complete, said)?)
}

fn unwritable(error: ParquetError) -> Error {
    Error::external(SqlState::IO_ERROR, error.to_string())
}
