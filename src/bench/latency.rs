//! `millstream bench latency`: how long after an event is due it is visible.
//!
//! 1. In a server of its own in this process, a source of bids is declared that gives so many per
//!    second by the wall clock, and five views are created over it: a total, three groupings of
//!    few, many and very many groups, and a view over one of these.
//! 2. A client follows the newest event of each view with SUBSCRIBE.
//! 3. When a client receives a step, every event between the newest before and the newest now
//!    has become visible: its latency is the time of day then, less the time at which it was due.
//!
//! An event is due when the reading began plus its number by the rate. The reading begins before
//! the first event is made, so what is measured is never less than what happened: it has the
//! generator's own delay (it wakes once a millisecond), the view, the subscription's own
//! aggregate, and the way over the wire in it.

use std::time::Duration;

use chrono::NaiveDateTime;
use futures::StreamExt;
use serde::Serialize;
use tokio_postgres::{Config, SimpleQueryMessage};

use crate::bench::{connect, failed, print, run};
use crate::config::ServerConfig;
use crate::observe::clock::Clock;
use crate::observe::process;
use crate::slt::PrivateServer;
use crate::types::error::{Error, Result};

/// What to measure.
#[derive(Clone, Debug)]
pub struct LatencyOptions {
    /// Bids per second.
    pub events_per_s: u64,
    /// How long to measure, after [`WARM_UP`].
    pub seconds: u64,
    pub json: bool,
    pub config: ServerConfig,
}

/// What is left out at the beginning.
const WARM_UP: Duration = Duration::from_secs(3);

/// Of 50 events of the generator, so many are bids.
const BIDS_OF_50: u64 = 46;

/// The views, each with the newest event time that it shows.
const VIEWS: [(&str, &str); 5] = [
    (
        "total",
        "SELECT count(*) AS bids, sum(0.908 * price) AS euros, max(date_time) AS newest FROM bid",
    ),
    (
        "by_channel",
        "SELECT channel, count(*) AS bids, avg(price) AS average, max(date_time) AS newest \
         FROM bid GROUP BY channel",
    ),
    (
        "by_auction",
        "SELECT auction, count(*) AS bids, max(price) AS best, max(date_time) AS newest \
         FROM bid GROUP BY auction",
    ),
    (
        "by_bidder",
        "SELECT bidder, count(*) AS bids, sum(price) AS spent, max(date_time) AS newest \
         FROM bid GROUP BY bidder",
    ),
    (
        "busy_auctions",
        "SELECT auction, bids, best, newest FROM by_auction WHERE bids >= 1 AND best > 100",
    ),
];

/// The latencies of one view's events.
#[derive(Clone, Debug, Serialize)]
pub struct LatencyMeasurement {
    pub view: &'static str,
    pub events_per_s: u64,
    /// Events measured.
    pub events: usize,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
    /// Processor time of the whole process per second of the measurement, clients included.
    pub cpu_cores: f64,
}

/// Measures all views at once and prints one line for each.
///
/// # Errors
/// When the server or a client fails, and when a view shows no event in the whole time.
pub async fn latency(options: LatencyOptions) -> Result<()> {
    let server = PrivateServer::start_with(options.config.clone()).await?;
    let client = connect(&server.client_config()).await?;
    let rate = options.events_per_s * 50 / BIDS_OF_50;
    run(
        &client,
        &format!(
            "CREATE SOURCE bid WITH (connector = 'nexmark', table.type = 'bid', rate = '{rate}', \
             event.rate = '{rate}', base.time = '{}')",
            BASE_TIME.format(TIME_FORMAT)
        ),
    )
    .await?;
    for (name, query) in VIEWS {
        run(&client, &format!("CREATE MATERIALIZED VIEW {name} AS {query}")).await?;
    }
    let started_us = reading_began_us(&client).await?;
    let followers: Vec<_> = VIEWS
        .iter()
        .map(|(name, _)| follow(server.client_config(), name, options.seconds, started_us, rate))
        .collect();
    let clock = Clock::system();
    let cpu_before = process::cpu_time();
    let measured = futures::future::join_all(followers).await;
    let cpu_cores =
        (process::cpu_time() - cpu_before).as_secs_f64() / clock.elapsed().as_secs_f64();
    if !options.json {
        print(&heading(&options));
    }
    for ((view, _), latencies_us) in VIEWS.iter().zip(measured) {
        let measurement = summary(view, latencies_us?, &options, cpu_cores)?;
        print(&match options.json {
            true => serde_json::to_string(&measurement).expect("plain numbers have a JSON form"),
            false => table_line(&measurement),
        });
    }
    drop(client);
    server.stop().await;
    Ok(())
}

const BASE_TIME: NaiveDateTime = chrono::DateTime::UNIX_EPOCH.naive_utc();
const TIME_FORMAT: &str = "%Y-%m-%d %H:%M:%S%.f";

async fn reading_began_us(client: &tokio_postgres::Client) -> Result<i64> {
    let sql = "SELECT (extract(epoch FROM started_at) * 1000000)::bigint FROM millstream.sources";
    let messages = client.simple_query(sql).await.map_err(failed)?;
    messages
        .iter()
        .find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
            _ => None,
        })
        .ok_or_else(|| Error::internal("the source is read, but does not say since when"))
}

/// Follows one view for so long; the latency of each event in microseconds.
async fn follow(
    config: Config,
    view: &'static str,
    seconds: u64,
    started_us: i64,
    rate: u64,
) -> Result<Vec<u32>> {
    let client = connect(&config).await?;
    let sql = format!("SUBSCRIBE (SELECT max(newest) AS newest FROM {view})");
    let mut changes = Box::pin(client.simple_query_raw(&sql).await.map_err(failed)?);
    let clock = Clock::system();
    let end = WARM_UP + Duration::from_secs(seconds);
    let mut latencies_us = Vec::new();
    // The number of the newest event seen.
    let mut seen: Option<i64> = None;
    loop {
        let left = end.saturating_sub(clock.elapsed());
        let Ok(message) = tokio::time::timeout(left, changes.next()).await else { break };
        let Some(message) = message else { break };
        let SimpleQueryMessage::Row(row) = message.map_err(failed)? else { continue };
        let now_us = clock.now().0;
        let (Some(weight), Some(newest)) = (row.get("millstream_weight"), row.get("newest")) else {
            continue;
        };
        if weight.starts_with('-') {
            continue;
        }
        let number = event_number(newest, rate)?;
        let before = seen.replace(number).unwrap_or(number);
        if clock.elapsed() < WARM_UP {
            continue;
        }
        latencies_us.extend((before + 1..=number).map(|event| {
            let due_us = started_us + event * 1_000_000 / rate as i64;
            u32::try_from((now_us - due_us).max(0)).unwrap_or(u32::MAX)
        }));
    }
    Ok(latencies_us)
}

/// The number of the event with this event time.
fn event_number(time: &str, rate: u64) -> Result<i64> {
    let time = NaiveDateTime::parse_from_str(time, TIME_FORMAT)
        .map_err(|error| Error::internal(format!("{time:?} is no event time: {error}")))?;
    let micros = (time - BASE_TIME).num_microseconds().unwrap_or(i64::MAX);
    Ok(micros.saturating_mul(rate as i64) / 1_000_000)
}

fn summary(
    view: &'static str,
    mut latencies_us: Vec<u32>,
    options: &LatencyOptions,
    cpu_cores: f64,
) -> Result<LatencyMeasurement> {
    if latencies_us.is_empty() {
        return Err(Error::internal(format!("view {view} showed no event")));
    }
    latencies_us.sort_unstable();
    let at = |part: f64| {
        let index = ((latencies_us.len() as f64 * part) as usize).min(latencies_us.len() - 1);
        f64::from(latencies_us[index]) / 1e3
    };
    Ok(LatencyMeasurement {
        view,
        events_per_s: options.events_per_s,
        events: latencies_us.len(),
        p50_ms: at(0.5),
        p90_ms: at(0.9),
        p99_ms: at(0.99),
        p999_ms: at(0.999),
        max_ms: at(1.0),
        cpu_cores: (cpu_cores * 1e3).round() / 1e3,
    })
}

fn heading(options: &LatencyOptions) -> String {
    format!(
        "Event to visible, {} events/s, {} workers\n\n{:<14} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8}",
        options.events_per_s,
        options.config.workers,
        "view",
        "events",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms"
    )
}

fn table_line(measured: &LatencyMeasurement) -> String {
    let LatencyMeasurement { view, events, p50_ms, p90_ms, p99_ms, p999_ms, max_ms, .. } = measured;
    format!(
        "{view:<14} {events:>9} {p50_ms:>8.2} {p90_ms:>8.2} {p99_ms:>8.2} {p999_ms:>8.2} \
         {max_ms:>8.2}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_times_are_event_numbers() {
        assert_eq!(event_number("1970-01-01 00:00:00", 100_000).expect("a time"), 0);
        assert_eq!(event_number("1970-01-01 00:00:01.00002", 100_000).expect("a time"), 100_002);
        assert!(event_number("soon", 100_000).is_err());
    }

    #[test]
    fn percentiles_are_those_of_the_events() {
        let options = LatencyOptions {
            events_per_s: 1,
            seconds: 1,
            json: false,
            config: ServerConfig::default(),
        };
        let latencies: Vec<u32> = (0..1_000).rev().map(|ms| ms * 1_000).collect();
        let measured = summary("total", latencies, &options, 0.5).expect("there are events");
        assert_eq!((measured.p50_ms, measured.p99_ms, measured.max_ms), (500.0, 990.0, 999.0));
        assert!(summary("total", vec![], &options, 0.5).is_err());
    }
}
