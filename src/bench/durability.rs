//! `millstream bench durability`: what durability costs, of a server on a disk.
//!
//! This program is started as a server of its own; it checkpoints when it is asked to.
//! 1. A table of so many rows of 100 bytes and a view that keeps them, too, are checkpointed; then
//!    1 % of the rows change, and the bytes of the next checkpoint count.
//! 2. The server is killed and started again: until the view answers.
//! 3. Clients insert row after row, each its own transaction, each acknowledged when it is on the
//!    disk.
//! 4. One client brings rows with COPY, acknowledged when all of them are on the disk.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::SinkExt;
use serde::Serialize;
use tokio_postgres::{Client, Config, SimpleQueryMessage};

use crate::bench::startup::OwnServer;
use crate::bench::{connect, failed, print, run};
use crate::observe::clock::Clock;
use crate::types::error::{Error, Result};

/// What to measure.
#[derive(Clone, Debug)]
pub struct DurabilityOptions {
    /// Rows of 100 bytes.
    pub keys: u64,
    pub clients: usize,
    /// How long the clients commit.
    pub seconds: u64,
    pub copy_rows: u64,
    pub directory: Option<PathBuf>,
    pub workers: usize,
    pub json: bool,
}

/// What durability costs.
#[derive(Clone, Debug, Serialize)]
pub struct DurabilityMeasurement {
    pub keys: u64,
    pub state_bytes: u64,
    /// Of the checkpoint after 1 % of the keys changed.
    pub changed_bytes: u64,
    pub changed_percent: f64,
    /// How long that checkpoint took, and how long the stream stood still for it.
    pub checkpoint_ms: f64,
    pub stall_ms: f64,
    /// From starting the process until it answers, and until the view does.
    pub restart_s: f64,
    pub restart_view_s: f64,
    pub clients: usize,
    pub commits_per_s: u64,
    pub commit_p50_ms: f64,
    pub commit_p99_ms: f64,
    pub copy_rows_per_s: u64,
}

/// How long a server may take to start before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(600);
/// Rows of one INSERT.
const INSERT_ROWS: u64 = 1_000_000;
/// Bytes of a piece of COPY data.
const COPY_BYTES: usize = 64 << 10;
/// How often it is asked whether the view answers.
const RETRY: Duration = Duration::from_millis(5);

/// Measures and prints.
///
/// # Errors
/// When the server does not start or a statement fails.
pub async fn durability(options: DurabilityOptions) -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let directory = options.directory.clone().unwrap_or_else(|| temporary.path().to_owned());
    let workers = options.workers.to_string();
    let more = ["--checkpoint-interval", "1h", "--workers", &workers];
    let (server, _) = OwnServer::start_in(&directory, &more, PATIENCE).await?;
    let client = connect(&server.client).await?;
    let [first, second] = checkpoints(&client, options.keys).await?;
    drop(client);
    drop(server);
    let (server, restarted) = OwnServer::start_in(&directory, &more, PATIENCE).await?;
    let clock = Clock::system();
    let client = connect(&server.client).await?;
    let expected = options.keys.to_string();
    while value(&client, "SELECT count(*) FROM kept").await? != expected {
        tokio::time::sleep(RETRY).await;
    }
    let view_s = (restarted + clock.elapsed()).as_secs_f64();
    let latencies_ms = commits(&server.client, &options).await?;
    let at = |part: f64| {
        let index = (latencies_ms.len() as f64 * part) as usize;
        latencies_ms.get(index).copied().unwrap_or_default()
    };
    let measured = DurabilityMeasurement {
        keys: options.keys,
        state_bytes: first.bytes,
        changed_bytes: second.bytes,
        changed_percent: rounded(second.bytes as f64 / first.bytes as f64 * 100.0),
        checkpoint_ms: rounded(second.duration_ms),
        stall_ms: rounded(second.stall_ms),
        restart_s: rounded(restarted.as_secs_f64()),
        restart_view_s: rounded(view_s),
        clients: options.clients,
        commits_per_s: latencies_ms.len() as u64 / options.seconds.max(1),
        commit_p50_ms: rounded(at(0.5)),
        commit_p99_ms: rounded(at(0.99)),
        copy_rows_per_s: copy(&client, options.copy_rows).await?,
    };
    print(&match options.json {
        true => serde_json::to_string(&measured).expect("plain numbers have a JSON form"),
        false => text(&measured),
    });
    Ok(())
}

fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

fn text(m: &DurabilityMeasurement) -> String {
    format!(
        "{} keys: state {} bytes; 1 % changed: {} bytes ({} %), {} ms, stall {} ms\n\
         restart: first answer after {} s, the view's after {} s\n\
         {} clients: {} commits/s, p50 {} ms, p99 {} ms\n\
         COPY: {} rows/s",
        m.keys,
        m.state_bytes,
        m.changed_bytes,
        m.changed_percent,
        m.checkpoint_ms,
        m.stall_ms,
        m.restart_s,
        m.restart_view_s,
        m.clients,
        m.commits_per_s,
        m.commit_p50_ms,
        m.commit_p99_ms,
        m.copy_rows_per_s
    )
}

/// What SHOW CHECKPOINTS says of the newest.
#[derive(Clone, Copy, Debug)]
struct Fact {
    bytes: u64,
    duration_ms: f64,
    stall_ms: f64,
}

/// The checkpoint of everything, and the one of a percent.
async fn checkpoints(client: &Client, keys: u64) -> Result<[Fact; 2]> {
    // 8 bytes of key and 92 of text.
    run(client, "CREATE TABLE given (k bigint PRIMARY KEY, v text)").await?;
    run(client, "CREATE MATERIALIZED VIEW kept AS SELECT k, v FROM given WHERE k >= 0").await?;
    for from in (1..=keys).step_by(INSERT_ROWS as usize) {
        let to = keys.min(from + INSERT_ROWS - 1);
        let sql = format!(
            "INSERT INTO given SELECT n, lpad(n::text, 92, 'abcdefghijklmnopqrstuvwxyz') \
             FROM generate_series({from}, {to}) AS numbers(n)"
        );
        run(client, &sql).await?;
    }
    run(client, "FLUSH").await?;
    run(client, "CHECKPOINT").await?;
    let first = newest(client).await?;
    run(client, "UPDATE given SET v = reverse(v) WHERE k % 100 = 0").await?;
    run(client, "CHECKPOINT").await?;
    Ok([first, newest(client).await?])
}

async fn newest(client: &Client) -> Result<Fact> {
    let messages = client.simple_query("SHOW CHECKPOINTS").await.map_err(failed)?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = row.ok_or_else(|| Error::internal("there is no checkpoint"))?;
    let number = |name: &str| {
        let value = row.try_get(name).ok().flatten().and_then(|value| value.parse::<f64>().ok());
        value.ok_or_else(|| Error::internal(format!("SHOW CHECKPOINTS has no {name}")))
    };
    Ok(Fact {
        bytes: number("bytes")? as u64,
        duration_ms: number("duration_ms")?,
        stall_ms: number("stall_ms")?,
    })
}

async fn value(client: &Client, sql: &str) -> Result<String> {
    let messages = client.simple_query(sql).await.map_err(failed)?;
    let value = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    value.ok_or_else(|| Error::internal(format!("{sql} has no value")))
}

/// The latencies of all commits, ascending, in milliseconds.
async fn commits(server: &Config, options: &DurabilityOptions) -> Result<Vec<f64>> {
    let client = connect(server).await?;
    run(&client, "CREATE TABLE committed (client bigint, n bigint, PRIMARY KEY (client, n))")
        .await?;
    let mut tasks = Vec::new();
    for number in 0..options.clients as i64 {
        let client = connect(server).await?;
        let end = Duration::from_secs(options.seconds);
        tasks.push(tokio::spawn(async move {
            let insert = client.prepare("INSERT INTO committed VALUES ($1, $2)").await;
            let insert = insert.map_err(failed)?;
            let clock = Clock::system();
            let mut latencies_ms = Vec::new();
            for n in 0i64.. {
                let begun = clock.elapsed();
                if begun >= end {
                    break;
                }
                client.execute(&insert, &[&number, &n]).await.map_err(failed)?;
                latencies_ms.push((clock.elapsed() - begun).as_secs_f64() * 1e3);
            }
            Ok::<_, Error>(latencies_ms)
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        let latencies = task.await.map_err(|error| Error::internal(error.to_string()))?;
        all.extend(latencies?);
    }
    let there = value(&client, "SELECT count(*) FROM committed").await?;
    if there != all.len().to_string() {
        return Err(Error::internal(format!("{there} rows of {} that were committed", all.len())));
    }
    all.sort_unstable_by(f64::total_cmp);
    Ok(all)
}

/// Rows per second, from the first byte until they are durable.
async fn copy(client: &Client, rows: u64) -> Result<u64> {
    run(client, "CREATE TABLE copied (id bigint, price double precision, label text)").await?;
    let mut pieces = Vec::new();
    let mut piece = String::with_capacity(COPY_BYTES + 128);
    for row in 0..rows {
        piece += &format!("{row}\t{}.25\tsome text of row {row}\n", row % 1000);
        if piece.len() >= COPY_BYTES || row + 1 == rows {
            pieces.push(Bytes::from(std::mem::take(&mut piece)));
        }
    }
    let clock = Clock::system();
    let sink = client.copy_in("COPY copied FROM STDIN").await.map_err(failed)?;
    let mut sink = std::pin::pin!(sink);
    for piece in pieces {
        sink.feed(piece).await.map_err(failed)?;
    }
    let copied = sink.finish().await.map_err(failed)?;
    if copied != rows {
        return Err(Error::internal(format!("{copied} rows were copied, {rows} were sent")));
    }
    Ok((rows as f64 / clock.elapsed().as_secs_f64()) as u64)
}
