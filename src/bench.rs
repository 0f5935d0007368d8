//! `millstream bench nexmark`: how fast views over the Nexmark stream are computed.
//!
//! For each query, in a server of its own in this process:
//! 1. the sources that it reads are declared, bounded to so many events;
//! 2. the clock and the processor counters are read, and the view is created, which starts
//!    reading: the generator's work is part of the measurement;
//! 3. the end is when every source has ended and the view shows everything.
//!
//! With `--output blackhole` the result goes to a sink that drops it, as is usual for this
//! benchmark; otherwise into a view that can be read. Some queries (q0, q1, q10, q13, q14, q21,
//! q22) put out as much as they read: their views keep one row, the greatest value of each output
//! column, so that every value is computed and read, but not kept. `q10_files` is q10 with its sink: files
//! in a folder for each day and minute.

mod files;
mod latency;
mod memory;
pub mod partitioned;
mod patterns;
mod startup;
pub mod tpch;
mod windows;

use std::io::{self, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use crate::config::ServerConfig;
use crate::observe::clock::Clock;
use crate::observe::process;
use crate::slt::PrivateServer;
use crate::types::error::{Error, Result, SqlState};

pub use latency::{LatencyOptions, latency};
pub use memory::{MemoryOptions, memory};
pub use patterns::{PatternOptions, patterns};
pub use startup::{StartupOptions, startup};
pub use tpch::{TpchOptions, tpch};
pub use windows::{WindowOptions, windows};

/// What to measure, and how.
#[derive(Clone, Debug)]
pub struct NexmarkOptions {
    /// Names of [`QUERIES`], or `all`.
    pub queries: Vec<String>,
    /// Events of all three kinds.
    pub events: u64,
    /// Lines of JSON instead of a table.
    pub json: bool,
    /// State is written to files, every `checkpoint_interval` of `config`.
    pub durable: bool,
    /// The events come from Parquet files in this directory, which are written first if need be.
    pub files: Option<PathBuf>,
    pub output: OutputTo,
    pub config: ServerConfig,
}

/// One query of the benchmark.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    pub name: &'static str,
    /// Which of person, auction and bid it reads.
    pub sources: &'static [&'static str],
    /// Statements that come before it: tables beside the stream.
    pub setup: &'static [&'static str],
    pub sql: &'static str,
    /// Of a query that puts out as much as it reads: an expression over each output column.
    greatest: &'static [&'static str],
}

impl Query {
    /// What is measured as a view.
    fn view_sql(&self) -> String {
        if self.greatest.is_empty() {
            return self.sql.to_owned();
        }
        let columns = self.greatest.iter().enumerate();
        let columns: String =
            columns.map(|(at, column)| format!(", max({column}) AS greatest_{at}")).collect();
        format!("SELECT count(*) AS rows{columns} FROM ({}) AS output", self.sql)
    }
}

/// Where the rows of a query go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputTo {
    /// A materialized view that can be read.
    View,
    /// A sink that drops them.
    Blackhole,
}

impl FromStr for OutputTo {
    type Err = Error;

    fn from_str(name: &str) -> Result<OutputTo> {
        match name {
            "view" => Ok(OutputTo::View),
            "blackhole" => Ok(OutputTo::Blackhole),
            other => Err(Error::user(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("there is no output \"{other}\""),
            )
            .hint("There are view and blackhole.")),
        }
    }
}

/// The queries of the benchmark, in its order, and a count per auction of all bids, which is the
/// plainest stateful query.
pub const QUERIES: &[Query] = &[
    wide("q0", &["bid"], &[], include_str!("bench/q0.sql"), BID),
    wide("q1", &["bid"], &[], include_str!("bench/q1.sql"), BID),
    query("q2", &["bid"], &[], include_str!("bench/q2.sql")),
    query("q3", &["auction", "person"], &[], include_str!("bench/q3.sql")),
    query("q4", &["auction", "bid"], &[], include_str!("bench/q4.sql")),
    query("q5", &["bid"], &[], include_str!("bench/q5.sql")),
    query("q6", &["auction", "bid"], &[], include_str!("bench/q6.sql")),
    query("q7", &["bid"], &[], include_str!("bench/q7.sql")),
    query("q8", &["person", "auction"], &[], include_str!("bench/q8.sql")),
    query("q9", &["auction", "bid"], &[], include_str!("bench/q9.sql")),
    wide("q10", &["bid"], &[], include_str!("bench/q10.sql"), BID_BY_MINUTE),
    query("q11", &["bid"], &[], include_str!("bench/q11.sql")),
    query("q12", &["bid"], &[], include_str!("bench/q12.sql")),
    wide("q13", &["bid"], SIDE_INPUT, include_str!("bench/q13.sql"), BID_WITH_VALUE),
    wide("q14", &["bid"], &[], include_str!("bench/q14.sql"), BID_CALCULATED),
    query("q15", &["bid"], &[], include_str!("bench/q15.sql")),
    query("q16", &["bid"], &[], include_str!("bench/q16.sql")),
    query("q17", &["bid"], &[], include_str!("bench/q17.sql")),
    query("q18", &["bid"], &[], include_str!("bench/q18.sql")),
    query("q19", &["bid"], &[], include_str!("bench/q19.sql")),
    query("q20", &["auction", "bid"], &[], include_str!("bench/q20.sql")),
    wide("q21", &["bid"], &[], include_str!("bench/q21.sql"), BID_WITH_CHANNEL),
    wide("q22", &["bid"], &[], include_str!("bench/q22.sql"), BID_WITH_FOLDERS),
    query("count_by_auction", &["bid"], &[], include_str!("bench/count_by_auction.sql")),
];

const fn query(
    name: &'static str,
    sources: &'static [&'static str],
    setup: &'static [&'static str],
    sql: &'static str,
) -> Query {
    Query { name, sources, setup, sql, greatest: &[] }
}

/// A query that puts out as much as it reads.
const fn wide(
    name: &'static str,
    sources: &'static [&'static str],
    setup: &'static [&'static str],
    sql: &'static str,
    greatest: &'static [&'static str],
) -> Query {
    Query { name, sources, setup, sql, greatest }
}

const BID: &[&str] = &["auction", "bidder", "price", "date_time", "octet_length(extra)"];
const BID_BY_MINUTE: &[&str] =
    &["auction", "bidder", "price", "date_time", "octet_length(extra)", "day", "minute"];
const BID_WITH_VALUE: &[&str] = &["auction", "bidder", "price", "date_time", "value"];
const BID_CALCULATED: &[&str] = &[
    "auction",
    "bidder",
    "price",
    "bid_time_type",
    "date_time",
    "octet_length(extra)",
    "c_counts",
];
const BID_WITH_CHANNEL: &[&str] = &["auction", "bidder", "price", "channel", "channel_id"];
const BID_WITH_FOLDERS: &[&str] =
    &["auction", "bidder", "price", "channel", "dir1", "dir2", "dir3"];

/// The bounded side input of q13: a value for each of the last four digits of an auction's number.
const SIDE_INPUT: &[&str] = &[
    "CREATE TABLE side_input (key bigint PRIMARY KEY, value text)",
    "INSERT INTO side_input SELECT n, 'value ' || n FROM generate_series(0, 9999) AS numbers(n)",
];

/// The name that stands for all queries.
const ALL: &str = "all";

/// What is measured when no query is named.
pub const DEFAULT_QUERIES: [&str; 6] = ["q0", "q1", "q2", "q3", "q4", "count_by_auction"];

/// What one query took.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    pub query: &'static str,
    pub events: u64,
    pub seconds: f64,
    pub events_per_s: u64,
    /// User and system time of the whole process while the query ran, the generator included.
    pub cpu_seconds: f64,
    /// The most memory of the process while the query ran.
    pub peak_rss_mib: u64,
}

/// How often it is asked whether a query is done.
const POLL: Duration = Duration::from_millis(10);

/// Measures the queries, one after the other, and prints each as it is done.
///
/// # Errors
/// For an unknown query, and for the first that fails.
pub async fn nexmark(options: NexmarkOptions) -> Result<()> {
    let mut queries = Vec::new();
    for name in &options.queries {
        match name.as_str() {
            ALL => {
                queries.extend(QUERIES.iter().map(Some));
                queries.push(None);
            }
            partitioned::Q10_FILES => queries.push(None),
            name => queries.push(Some(find(name)?)),
        }
    }
    if !options.json {
        print(&heading(&options));
    }
    if let Some(directory) = &options.files {
        files::write(directory, options.events)?;
    }
    for query in queries {
        let measured = match query {
            Some(query) => measure(query, &options).await.map_err(|e| e.context(query.name))?,
            None => {
                let measured = partitioned::measure(&options).await;
                measured.map_err(|e| e.context(partitioned::Q10_FILES))?
            }
        };
        print(&match options.json {
            true => serde_json::to_string(&measured).expect("plain numbers have a JSON form"),
            false => table_line(&measured),
        });
    }
    Ok(())
}

fn find(name: &str) -> Result<&'static Query> {
    QUERIES.iter().find(|query| query.name == name).ok_or_else(|| {
        let names: Vec<_> = QUERIES.iter().map(|query| query.name).collect();
        Error::user(SqlState::INVALID_PARAMETER_VALUE, format!("there is no query \"{name}\""))
            .hint(format!(
                "There are {}, {}, and {ALL} for all of them.",
                names.join(", "),
                partitioned::Q10_FILES
            ))
    })
}

async fn measure(query: &'static Query, options: &NexmarkOptions) -> Result<Measurement> {
    let config = options.config.clone();
    let server = match options.durable {
        true => PrivateServer::start_in_storage(config).await?,
        false => PrivateServer::start_with(config).await?,
    };
    let client = connect(&server.client_config()).await?;
    for source in query.sources {
        let sql = match &options.files {
            Some(directory) => files::source_sql(source, directory),
            None => source_sql(source, options.events),
        };
        run(&client, &sql).await?;
    }
    for statement in query.setup {
        run(&client, statement).await?;
    }
    let progress = progress_bar(query, options);
    process::reset_peak();
    let clock = Clock::system();
    let cpu_before = process::cpu_time();

    let create = match options.output {
        OutputTo::View => format!("CREATE MATERIALIZED VIEW {RESULT} AS {}", query.view_sql()),
        OutputTo::Blackhole => {
            format!("CREATE SINK {RESULT} AS {} WITH (connector = 'blackhole')", query.sql)
        }
    };
    run(&client, &create).await?;
    wait_until_done(&client, &progress).await?;

    let seconds = clock.elapsed().as_secs_f64();
    let cpu_seconds = (process::cpu_time() - cpu_before).as_secs_f64();
    let peak_bytes = process::resident_peak_bytes();
    progress.finish_and_clear();
    drop(client);
    server.stop().await;
    Ok(Measurement {
        query: query.name,
        events: options.events,
        seconds: (seconds * 1e3).round() / 1e3,
        events_per_s: (options.events as f64 / seconds) as u64,
        cpu_seconds: (cpu_seconds * 1e3).round() / 1e3,
        peak_rss_mib: peak_bytes >> 20,
    })
}

const RESULT: &str = "result";

/// Declares a source of one kind of event. Every query reads the same events, whatever it reads
/// of them. The watermark is that of the benchmark's own definitions, by which state is freed.
fn source_sql(kind: &str, events: u64) -> String {
    format!(
        "CREATE SOURCE {kind} (WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds') \
         WITH (connector = 'nexmark', table.type = '{kind}', \
         events.limit = '{events}')"
    )
}

/// Waits until all sources have ended and the view shows, or the sink has had, all of it.
async fn wait_until_done(client: &Client, progress: &ProgressBar) -> Result<()> {
    loop {
        progress.tick();
        if sources_ended(client).await? {
            // A read sees at least what was complete before it.
            return run(client, "FLUSH").await;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Whether every source has been read to its end.
async fn sources_ended(client: &Client) -> Result<bool> {
    let sql = "SELECT count(*) FROM millstream.sources WHERE NOT finished";
    let messages = client.simple_query(sql).await.map_err(failed)?;
    Ok(messages
        .iter()
        .any(|message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("0"))))
}

async fn connect(config: &Config) -> Result<Client> {
    let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
    tokio::spawn(connection);
    Ok(client)
}

async fn run(client: &Client, sql: &str) -> Result<()> {
    client.batch_execute(sql).await.map_err(failed)
}

fn failed(error: tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(server) => Error::external(SqlState::INTERNAL_ERROR, server.message().to_owned())
            .detail(format!("SQLSTATE {}", server.code().code())),
        None => Error::external(SqlState::CONNECTION_EXCEPTION, error.to_string()),
    }
}

fn progress_bar(query: &Query, options: &NexmarkOptions) -> ProgressBar {
    if options.json {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner().with_message(query.name);
    let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}");
    bar.set_style(style.expect("the template is a constant"));
    bar
}

fn heading(options: &NexmarkOptions) -> String {
    let workers = options.config.workers;
    format!(
        "Nexmark, {} events, {workers} workers\n\n{:<18} {:>9} {:>12} {:>9} {:>9}",
        options.events, "query", "seconds", "events/s", "CPU s", "peak MiB"
    )
}

fn table_line(measured: &Measurement) -> String {
    let Measurement { query, seconds, events_per_s, cpu_seconds, peak_rss_mib, .. } = measured;
    format!("{query:<18} {seconds:>9.3} {events_per_s:>12} {cpu_seconds:>9.3} {peak_rss_mib:>9}")
}

/// A line of the result. Who reads no further, as `head` does, is not an error.
fn print(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_listed_once_and_read_what_they_say() {
        let names: Vec<_> = QUERIES.iter().map(|query| query.name).collect();
        let listed = |name: &&str| names.iter().filter(|other| *other == name).count() == 1;
        assert!(names.iter().all(&listed) && DEFAULT_QUERIES.iter().all(&listed));
        for query in QUERIES {
            for source in ["person", "auction", "bid"] {
                let read = ["FROM ", "JOIN ", "TUMBLE(", "HOP(", "SESSION(TABLE ", "AS a, "]
                    .iter()
                    .any(|word| {
                        query.sql.split(&format!("{word}{source}")).skip(1).any(|rest| {
                            !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_')
                        })
                    });
                assert_eq!(read, query.sources.contains(&source), "{} {source}", query.name);
            }
        }
        assert!(find("q99").is_err());
    }

    #[test]
    fn a_measurement_is_one_line_of_json() {
        let measured = Measurement {
            query: "q0",
            events: 1_000,
            seconds: 0.5,
            events_per_s: 2_000,
            cpu_seconds: 0.75,
            peak_rss_mib: 64,
        };
        assert_eq!(
            serde_json::to_string(&measured).unwrap(),
            "{\"query\":\"q0\",\"events\":1000,\"seconds\":0.5,\"events_per_s\":2000,\
             \"cpu_seconds\":0.75,\"peak_rss_mib\":64}"
        );
    }
}
