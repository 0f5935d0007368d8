//! `millstream bench windows`: what overlapping windows cost beside plain ones, and what an open
//! session takes.
//!
//! Counts over Nexmark's bids in TUMBLE, in HOP of 60 windows a row and in CUMULATE of 60: from CREATE
//! until the source has ended, each in a server of its own in this process. The last column is the
//! time beside TUMBLE's.
//! 1. Per auction, final (EMIT ON WINDOW CLOSE), into a sink that drops everything: what the windows
//!    cost by themselves. A window of HOP has a row for each auction of a minute, and there are 60
//!    times as many windows, so this puts out 60 times TUMBLE's rows.
//! 2. The same into a view, which keeps all those rows.
//! 3. Per auction, as they change, into a sink, over a tenth of the events: each bid changes 60 rows,
//!    and each of them goes and comes once for each epoch in which its auction has a bid.
//! 4. Over all auctions, as they change, into a view.
//! 5. So many sessions that are all open, one row each: bytes of each, by what the operator says it
//!    holds, and by the memory of the process.

use serde::Serialize;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::bench::{POLL, connect, failed, print, run, source_sql, sources_ended};
use crate::config::ServerConfig;
use crate::observe::clock::Clock;
use crate::observe::process;
use crate::slt::PrivateServer;
use crate::types::error::{Error, Result};

/// What to measure.
#[derive(Clone, Debug)]
pub struct WindowOptions {
    /// Nexmark's events behind the windows.
    pub events: u64,
    /// Open sessions.
    pub sessions: u64,
    pub json: bool,
    pub config: ServerConfig,
}

/// One query over windows.
#[derive(Clone, Debug, Serialize)]
struct WindowMeasurement {
    windows: String,
    events: u64,
    seconds: f64,
    cpu_seconds: f64,
    events_per_s: u64,
    /// Of the view, where there is one.
    rows: Option<u64>,
    beside_tumble: f64,
}

/// What sessions take.
#[derive(Clone, Debug, Serialize)]
struct SessionMeasurement {
    sessions: u64,
    seconds: f64,
    /// Of the operator that has them, per session.
    operator_bytes: u64,
    /// Of the view's rows, per session.
    result_bytes: u64,
    /// Of the process, per session; with all that it keeps besides.
    process_bytes: u64,
}

/// Nexmark's events are 10 000 a second: windows of a minute have 550 000 bids.
const SHAPES: [(&str, &str); 3] = [
    ("TUMBLE 60 s", "TUMBLE(bid, date_time, INTERVAL '60 seconds')"),
    ("HOP 1 s, 60 s", "HOP(bid, date_time, INTERVAL '1 second', INTERVAL '60 seconds')"),
    ("CUMULATE 1 s, 60 s", "CUMULATE(bid, date_time, INTERVAL '1 second', INTERVAL '60 seconds')"),
];

/// Measures and prints a line for each.
///
/// # Errors
/// When the server or a statement fails.
pub async fn windows(options: WindowOptions) -> Result<()> {
    if !options.json {
        print(&format!(
            "Windows, {} events, {} workers\n\n{:<50} {:>9} {:>9} {:>12} {:>10} {:>9}",
            options.events,
            options.config.workers,
            "counts",
            "seconds",
            "CPU s",
            "events/s",
            "rows",
            "x TUMBLE"
        ));
    }
    for family in FAMILIES {
        let mut tumble_s = None;
        for (name, windows) in SHAPES {
            let view = Counted {
                name: format!("{}, {name}", family.name),
                query: family.query.replace("{windows}", windows),
                dropped: family.dropped,
                events: options.events / family.events_divisor,
            };
            measure_windows(&options, &view, &mut tumble_s).await?;
        }
    }
    measure_sessions(&options).await
}

/// A query over each of [`SHAPES`].
struct Family {
    name: &'static str,
    query: &'static str,
    /// The result goes to a sink that drops it.
    dropped: bool,
    events_divisor: u64,
}

const FINAL_COUNTS: &str = "SELECT auction, window_start, window_end, count(*) AS n, \
    max(price) AS most FROM {windows} GROUP BY auction, window_start, window_end \
    EMIT ON WINDOW CLOSE";
const CHANGING_COUNTS: &str = "SELECT auction, window_start, window_end, count(*) AS n, \
    max(price) AS most FROM {windows} GROUP BY auction, window_start, window_end";
const ALL_COUNTS: &str = "SELECT window_start, window_end, count(*) AS n, max(price) AS most \
    FROM {windows} GROUP BY window_start, window_end";

const FAMILIES: [Family; 4] = [
    family("final, per auction, dropped", FINAL_COUNTS, true, 1),
    family("final, per auction, kept", FINAL_COUNTS, false, 1),
    family("changing, per auction, dropped", CHANGING_COUNTS, true, 10),
    family("changing, all auctions, kept", ALL_COUNTS, false, 1),
];

const fn family(
    name: &'static str,
    query: &'static str,
    dropped: bool,
    events_divisor: u64,
) -> Family {
    Family { name, query, dropped, events_divisor }
}

/// One query that is measured.
struct Counted {
    name: String,
    query: String,
    dropped: bool,
    events: u64,
}

async fn measure_windows(
    options: &WindowOptions,
    view: &Counted,
    tumble_s: &mut Option<f64>,
) -> Result<()> {
    let server = PrivateServer::start_with(options.config.clone()).await?;
    let client = connect(&server.client_config()).await?;
    run(&client, &source_sql("bid", view.events)).await?;
    let (clock, cpu_before) = (Clock::system(), process::cpu_time());
    let create = match view.dropped {
        true => format!("CREATE SINK counts AS {} WITH (connector = 'blackhole')", view.query),
        false => format!("CREATE MATERIALIZED VIEW counts AS {}", view.query),
    };
    run(&client, &create).await?;
    while !sources_ended(&client).await? {
        tokio::time::sleep(POLL).await;
    }
    run(&client, "FLUSH").await?;
    let seconds = clock.elapsed().as_secs_f64();
    let cpu_seconds = (process::cpu_time() - cpu_before).as_secs_f64();
    let rows = match view.dropped {
        true => None,
        false => Some(number(&client, "SELECT count(*) FROM counts").await?),
    };
    drop(client);
    server.stop().await;
    let beside = seconds / *tumble_s.get_or_insert(seconds);
    let measured = WindowMeasurement {
        windows: view.name.clone(),
        events: view.events,
        seconds: (seconds * 1e3).round() / 1e3,
        cpu_seconds: (cpu_seconds * 1e3).round() / 1e3,
        events_per_s: (view.events as f64 / seconds) as u64,
        rows,
        beside_tumble: (beside * 100.0).round() / 100.0,
    };
    let WindowMeasurement { windows, seconds, cpu_seconds, events_per_s, beside_tumble, .. } =
        &measured;
    let rows = rows.map_or_else(|| "-".to_owned(), |rows| rows.to_string());
    print(&match options.json {
        true => json(&measured),
        false => format!(
            "{windows:<50} {seconds:>9.3} {cpu_seconds:>9.3} {events_per_s:>12} {rows:>10} \
             {beside_tumble:>9.2}"
        ),
    });
    Ok(())
}

async fn measure_sessions(options: &WindowOptions) -> Result<()> {
    let server = PrivateServer::start_with(options.config.clone()).await?;
    let client = connect(&server.client_config()).await?;
    let source = format!(
        "CREATE SOURCE numbers (n bigint) WITH (connector = 'datagen', rows = {}, \
         fields.n.kind = 'sequence')",
        options.sessions
    );
    run(&client, &source).await?;
    // Without a watermark: at the end of the source all of them would close.
    run(
        &client,
        "CREATE VIEW visits AS SELECT n AS visitor, n % 100 AS page, \
         timestamp '2026-01-01' + n * INTERVAL '1 microsecond' AS at FROM numbers",
    )
    .await?;
    let before = process::resident_bytes();
    let clock = Clock::system();
    run(
        &client,
        "CREATE MATERIALIZED VIEW open_sessions AS \
         SELECT visitor, window_start, window_end, count(*) AS pages, max(page) AS last_page \
         FROM SESSION(TABLE visits PARTITION BY visitor, at, INTERVAL '30 minutes') \
         GROUP BY visitor, window_start, window_end",
    )
    .await?;
    while !sources_ended(&client).await? {
        tokio::time::sleep(POLL).await;
    }
    run(&client, "FLUSH").await?;
    let seconds = clock.elapsed().as_secs_f64();
    let process_bytes = process::resident_bytes().saturating_sub(before);
    let open = number(&client, "SELECT count(*) FROM open_sessions").await?;
    if open != options.sessions {
        return Err(Error::internal(format!("{open} sessions are open")));
    }
    let held = "SELECT CAST(sum(state_bytes) AS bigint) FROM millstream.operators \
                WHERE view = 'open_sessions' AND description";
    let operator_bytes = number(&client, &format!("{held} <> 'Result'")).await?;
    let result_bytes = number(&client, &format!("{held} = 'Result'")).await?;
    let sessions = options.sessions.max(1);
    let measured = SessionMeasurement {
        sessions: options.sessions,
        seconds: (seconds * 1e3).round() / 1e3,
        operator_bytes: operator_bytes / sessions,
        result_bytes: result_bytes / sessions,
        process_bytes: process_bytes / sessions,
    };
    drop(client);
    server.stop().await;
    let SessionMeasurement { sessions, seconds, operator_bytes, result_bytes, process_bytes } =
        &measured;
    print(&match options.json {
        true => json(&measured),
        false => format!(
            "\n{sessions} open sessions in {seconds} s; bytes of each: {operator_bytes} in the \
             operator, {result_bytes} in the view, {process_bytes} of the process"
        ),
    });
    Ok(())
}

fn json(measured: &impl Serialize) -> String {
    serde_json::to_string(measured).expect("plain numbers have a JSON form")
}

/// The number that a query gives.
async fn number(client: &Client, sql: &str) -> Result<u64> {
    let messages = client.simple_query(sql).await.map_err(failed)?;
    let found = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    });
    found.ok_or_else(|| Error::internal(format!("{sql} gives no number")))
}
