//! `millstream bench windows`: what overlapping windows cost beside plain ones, and what an open
//! session takes.
//!
//! In a server of its own in this process:
//! 1. counts per auction and window over Nexmark's bids, in TUMBLE, in HOP of 60 windows a row and
//!    in CUMULATE of 60, each final (EMIT ON WINDOW CLOSE): from CREATE until the source has ended.
//!    The last column is the time beside TUMBLE's;
//! 2. the same counts over all auctions, as they change;
//! 3. so many sessions that are all open, one row each: bytes of each, by what the operator says it
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

/// One view over windows.
#[derive(Clone, Debug, Serialize)]
struct WindowMeasurement {
    windows: &'static str,
    events: u64,
    seconds: f64,
    events_per_s: u64,
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
            "Windows, {} events, {} workers\n\n{:<34} {:>9} {:>12} {:>10}",
            options.events, options.config.workers, "view", "seconds", "events/s", "x TUMBLE"
        ));
    }
    let final_counts = [
        "per auction, TUMBLE 60 s",
        "per auction, HOP 1 s, 60 s",
        "per auction, CUMULATE 1 s, 60 s",
    ];
    let mut tumble_s = None;
    for (name, (_, windows)) in final_counts.into_iter().zip(SHAPES) {
        let view = format!(
            "SELECT auction, window_start, window_end, count(*) AS n, max(price) AS most \
             FROM {windows} GROUP BY auction, window_start, window_end EMIT ON WINDOW CLOSE"
        );
        measure_windows(&options, name, &view, &mut tumble_s).await?;
    }
    let mut tumble_s = None;
    for (name, windows) in SHAPES {
        let view = format!(
            "SELECT window_start, window_end, count(*) AS n, max(price) AS most FROM {windows} \
             GROUP BY window_start, window_end"
        );
        measure_windows(&options, name, &view, &mut tumble_s).await?;
    }
    measure_sessions(&options).await
}

async fn measure_windows(
    options: &WindowOptions,
    name: &'static str,
    view: &str,
    tumble_s: &mut Option<f64>,
) -> Result<()> {
    let server = PrivateServer::start_with(options.config.clone()).await?;
    let client = connect(&server.client_config()).await?;
    run(&client, &source_sql("bid", options.events)).await?;
    let clock = Clock::system();
    run(&client, &format!("CREATE MATERIALIZED VIEW counts AS {view}")).await?;
    while !sources_ended(&client).await? {
        tokio::time::sleep(POLL).await;
    }
    run(&client, "FLUSH").await?;
    let seconds = clock.elapsed().as_secs_f64();
    drop(client);
    server.stop().await;
    let beside = seconds / *tumble_s.get_or_insert(seconds);
    let measured = WindowMeasurement {
        windows: name,
        events: options.events,
        seconds: (seconds * 1e3).round() / 1e3,
        events_per_s: (options.events as f64 / seconds) as u64,
        beside_tumble: (beside * 100.0).round() / 100.0,
    };
    let WindowMeasurement { windows, seconds, events_per_s, beside_tumble, .. } = &measured;
    print(&match options.json {
        true => json(&measured),
        false => format!("{windows:<34} {seconds:>9.3} {events_per_s:>12} {beside_tumble:>10.2}"),
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
