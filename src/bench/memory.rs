//! `millstream bench memory`: what state costs that does not fit into memory.
//!
//! 1. A query that keeps much runs with all memory there is, in a process of its own, which tells
//!    how much state the view has in the end. q20 of Nexmark keeps rows: all bids and auctions;
//!    `groups` keeps what an aggregation has: a group for every two rows, its sums, its values and
//!    what is distinct among them.
//! 2. It runs again, in another process, with a memory limit of a fraction of that.
//! 3. Both must give the same rows, by counts and sums over them. What is printed is how fast each
//!    was, and how much of the state was where.
//!
//! The limit is on the whole process. The kernel may keep files in memory that it could drop, which
//! on a large machine hides what reading them would cost: with `--cold` each file is brought to the
//! disk and dropped from the kernel's memory when it is written.

use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::bench::{POLL, RESULT, connect, failed, find, print, run, source_sql, sources_ended};
use crate::config::ServerConfig;
use crate::observe::clock::Clock;
use crate::observe::process;
use crate::slt::PrivateServer;
use crate::types::error::{Error, Result};

/// The query over many groups.
const GROUPS: &str = "groups";
/// Its rows for each group, on average.
const ROWS_PER_GROUP: u64 = 2;

/// What to measure.
#[derive(Clone, Debug)]
pub struct MemoryOptions {
    /// One of the Nexmark queries that put out a view, or [`GROUPS`].
    pub query: String,
    pub events: u64,
    /// The state is so many times the memory limit.
    pub times: u64,
    /// Files are not left in the kernel's memory.
    pub cold: bool,
    pub json: bool,
    /// Measure once, in this process, with the limit of the settings.
    pub once: bool,
    pub config: ServerConfig,
}

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemoryMeasurement {
    pub query: String,
    pub events: u64,
    pub memory_limit_mib: u64,
    pub seconds: f64,
    pub events_per_s: u64,
    /// Of the view in the end.
    pub state_memory_mib: u64,
    pub state_disk_mib: u64,
    /// The most that the process could not do without.
    pub peak_memory_mib: u64,
    /// Counts and sums over the result.
    pub result: String,
}

/// The same with what the limit has cost.
#[derive(Clone, Debug, Serialize)]
struct Comparison {
    unlimited: MemoryMeasurement,
    limited: MemoryMeasurement,
    speed_percent: u64,
    same_result: bool,
}

/// Measures with and without the limit, and prints both.
///
/// # Errors
/// When a run fails, or the results differ.
pub async fn memory(options: MemoryOptions) -> Result<()> {
    if options.once {
        let measured = measure(&options).await?;
        print(&serde_json::to_string(&measured).expect("plain numbers have a JSON form"));
        return Ok(());
    }
    let unlimited = in_process_of_its_own(&options, None)?;
    let state_mib = unlimited.state_memory_mib + unlimited.state_disk_mib;
    let limit_mib = (state_mib / options.times.max(1)).max(1);
    let limited = in_process_of_its_own(&options, Some(limit_mib))?;
    let speed_percent = (100.0 * unlimited.seconds / limited.seconds) as u64;
    let same_result = unlimited.result == limited.result;
    let comparison = Comparison { unlimited, limited, speed_percent, same_result };
    match options.json {
        true => print(&serde_json::to_string(&comparison).expect("plain data has a JSON form")),
        false => print(&table(&comparison)),
    }
    match same_result {
        true => Ok(()),
        false => Err(Error::internal("the results differ")),
    }
}

/// A run in a process whose memory nothing else has touched.
fn in_process_of_its_own(
    options: &MemoryOptions,
    limit_mib: Option<u64>,
) -> Result<MemoryMeasurement> {
    let mut command = Command::new(std::env::current_exe()?);
    let workers = options.config.workers.to_string();
    let events = options.events.to_string();
    command.args(["bench", "memory", "--once", "--query", &options.query]);
    command.args(["--events", &events, "--workers", &workers]);
    if let Some(limit_mib) = limit_mib {
        command.args(["--memory-limit", &format!("{limit_mib}MiB")]);
        if options.cold {
            command.env("MILLSTREAM_SPILL", "cold");
        }
    }
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(Error::internal(format!("the measurement ended with {}", output.status)));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| Error::internal(format!("the measurement's answer: {error}")))
}

async fn measure(options: &MemoryOptions) -> Result<MemoryMeasurement> {
    let (setup, view) = statements(options)?;
    let server = PrivateServer::start_with(options.config.clone()).await?;
    let client = connect(&server.client_config()).await?;
    for statement in setup {
        run(&client, &statement).await?;
    }
    let clock = Clock::system();
    run(&client, &format!("CREATE MATERIALIZED VIEW {RESULT} AS {view}")).await?;
    let mut peak_bytes = 0;
    while !sources_ended(&client).await? {
        peak_bytes = peak_bytes.max(process::anonymous_bytes());
        tokio::time::sleep(POLL).await;
    }
    run(&client, "FLUSH").await?;
    let seconds = clock.elapsed().as_secs_f64();
    peak_bytes = peak_bytes.max(process::anonymous_bytes());
    let sql = format!("SELECT bytes, disk_bytes FROM millstream.memory WHERE name = '{RESULT}'");
    let state = row(&client, &sql).await?;
    let mib = |place: usize| {
        let bytes = state.get(place).and_then(|text| text.parse::<u64>().ok());
        bytes.unwrap_or(0) >> 20
    };
    let result = digest(&client).await?;
    drop(client);
    server.stop().await;
    Ok(MemoryMeasurement {
        query: options.query.clone(),
        events: options.events,
        memory_limit_mib: options.config.memory_limit_bytes >> 20,
        seconds: (seconds * 1e3).round() / 1e3,
        events_per_s: (options.events as f64 / seconds) as u64,
        state_memory_mib: mib(0),
        state_disk_mib: mib(1),
        peak_memory_mib: peak_bytes >> 20,
        result,
    })
}

/// What comes before the view, and the view's query.
fn statements(options: &MemoryOptions) -> Result<(Vec<String>, String)> {
    if options.query == GROUPS {
        let groups = (options.events / ROWS_PER_GROUP).max(1);
        let source = format!(
            "CREATE SOURCE facts (k bigint, v bigint, t text) WITH (connector = 'datagen', \
             rows = {}, splits = {}, fields.k.min = 1, fields.k.max = {groups}, \
             fields.v.min = 0, fields.v.max = 1000000, fields.t.length = 12)",
            options.events, options.config.workers
        );
        let view = "SELECT k, count(*) AS n, sum(v) AS total, min(v) AS least, \
                    count(DISTINCT v) AS different, max(t) AS last FROM facts GROUP BY k";
        return Ok((vec![source], view.to_owned()));
    }
    let query = find(&options.query)?;
    let sources = query.sources.iter().map(|source| source_sql(source, options.events));
    let setup = query.setup.iter().map(|statement| (*statement).to_owned());
    Ok((sources.chain(setup).collect(), query.view_sql()))
}

/// How many rows the result has, and a sum over each column: of numbers, or of lengths of text.
async fn digest(client: &Client) -> Result<String> {
    let columns = format!(
        "SELECT 'SELECT count(*), ' || string_agg(CASE data_type \
         WHEN 'bigint' THEN 'sum(' || column_name || ')' \
         ELSE 'sum(octet_length(' || column_name || '::text))' END, ', ' \
         ORDER BY ordinal_position) || ' FROM {RESULT}' \
         FROM information_schema.columns WHERE table_name = '{RESULT}'"
    );
    let sql = row(client, &columns).await?.concat();
    Ok(row(client, &sql).await?.join(" "))
}

/// The first row of a query, as text.
async fn row(client: &Client, sql: &str) -> Result<Vec<String>> {
    let messages = client.simple_query(sql).await.map_err(failed)?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = row.ok_or_else(|| Error::internal("the query has no row"))?;
    Ok((0..row.len()).map(|column| row.get(column).unwrap_or("NULL").to_owned()).collect())
}

fn table(comparison: &Comparison) -> String {
    let Comparison { unlimited, limited, speed_percent, same_result } = comparison;
    let mut text = format!(
        "{}, {} events\n\n{:<10} {:>10} {:>9} {:>12} {:>10} {:>10} {:>10}\n",
        unlimited.query,
        unlimited.events,
        "",
        "limit MiB",
        "seconds",
        "events/s",
        "memory MiB",
        "disk MiB",
        "peak MiB"
    );
    for (name, run) in [("unlimited", unlimited), ("limited", limited)] {
        text.push_str(&format!(
            "{name:<10} {:>10} {:>9.3} {:>12} {:>10} {:>10} {:>10}\n",
            run.memory_limit_mib,
            run.seconds,
            run.events_per_s,
            run.state_memory_mib,
            run.state_disk_mib,
            run.peak_memory_mib
        ));
    }
    let same = if *same_result { "the same result" } else { "ANOTHER RESULT" };
    text + &format!("\n{speed_percent} % of the speed, {same}: {}", limited.result)
}
