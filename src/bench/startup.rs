//! `millstream bench startup`: from nothing to the first answer, and what doing nothing costs.
//!
//! This program is started as a server of its own, on an empty data directory; a client connects
//! again and again until `SELECT 1` is answered. Then tables and views are created, nothing is
//! done for a while, and the processor time that the server takes meanwhile is read from the
//! kernel.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::Serialize;
use tokio_postgres::Config;

use crate::bench::{connect, print, run};
use crate::observe::clock::Clock;
use crate::observe::process;
use crate::types::error::{Error, Result};

/// What to measure.
#[derive(Clone, Debug)]
pub struct StartupOptions {
    /// Starts to measure; the median counts.
    pub runs: usize,
    /// Views that the idle server keeps.
    pub views: usize,
    /// How long it idles.
    pub seconds: u64,
    pub json: bool,
}

/// What starting and idling took.
#[derive(Clone, Debug, Serialize)]
pub struct StartupMeasurement {
    /// Median over the runs, from starting the process to the answer of `SELECT 1`.
    pub first_answer_ms: f64,
    pub runs: usize,
    pub idle_views: usize,
    /// Percent of one core.
    pub idle_cpu_percent: f64,
}

/// How long a server may take to start before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a client tries to connect.
const RETRY: Duration = Duration::from_millis(1);

/// Measures and prints one line.
///
/// # Errors
/// When the server does not start or a statement fails.
pub async fn startup(options: StartupOptions) -> Result<()> {
    let mut starts_ms = Vec::new();
    for _ in 0..options.runs.max(1) {
        let (server, took) = OwnServer::start().await?;
        starts_ms.push(took.as_secs_f64() * 1e3);
        drop(server);
    }
    starts_ms.sort_unstable_by(f64::total_cmp);
    let measured = StartupMeasurement {
        first_answer_ms: (starts_ms[starts_ms.len() / 2] * 10.0).round() / 10.0,
        runs: starts_ms.len(),
        idle_views: options.views,
        idle_cpu_percent: idle_percent(&options).await?,
    };
    print(&match options.json {
        true => serde_json::to_string(&measured).expect("plain numbers have a JSON form"),
        false => format!(
            "first answer after {} ms (median of {}); idle with {} views: {} % of a core",
            measured.first_answer_ms, measured.runs, measured.idle_views, measured.idle_cpu_percent
        ),
    });
    Ok(())
}

async fn idle_percent(options: &StartupOptions) -> Result<f64> {
    let (server, _) = OwnServer::start().await?;
    let client = connect(&server.client).await?;
    run(&client, "CREATE TABLE readings (sensor bigint, value double precision)").await?;
    run(
        &client,
        "INSERT INTO readings SELECT n % 100, n FROM generate_series(1, 10000) AS numbers(n)",
    )
    .await?;
    for view in 0..options.views {
        let sql = format!(
            "CREATE MATERIALIZED VIEW view_{view} AS SELECT sensor % {} AS part, avg(value) \
             FROM readings GROUP BY sensor % {}",
            view + 1,
            view + 1
        );
        run(&client, &sql).await?;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let clock = Clock::system();
    let before = process::cpu_time_of(server.child.id())?;
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let spent = process::cpu_time_of(server.child.id())?.saturating_sub(before);
    let percent = spent.as_secs_f64() / clock.elapsed().as_secs_f64() * 100.0;
    Ok((percent * 1e3).round() / 1e3)
}

/// This program as a server; gone when dropped.
pub(super) struct OwnServer {
    child: Child,
    pub(super) client: Config,
    _directory: Option<tempfile::TempDir>,
}

impl OwnServer {
    /// A server in an empty directory of its own that has answered, and how long that took.
    async fn start() -> Result<(OwnServer, Duration)> {
        let directory = tempfile::tempdir()?;
        let (mut server, took) = OwnServer::start_in(directory.path(), &[], PATIENCE).await?;
        server._directory = Some(directory);
        Ok((server, took))
    }

    /// The same in a directory that may have something.
    pub(super) async fn start_in(
        directory: &Path,
        more: &[&str],
        patience: Duration,
    ) -> Result<(OwnServer, Duration)> {
        let port = free_port()?;
        let clock = Clock::system();
        let child = Command::new(std::env::current_exe()?)
            .arg("serve")
            .arg("--data-dir")
            .arg(directory)
            .args(["--listen", &format!("127.0.0.1:{port}"), "--http", "127.0.0.1:0"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut client = Config::new();
        client.host("127.0.0.1").port(port).user("millstream").dbname("millstream");
        let mut server = OwnServer { child, client, _directory: None };
        loop {
            if let Ok(client) = connect(&server.client).await {
                run(&client, "SELECT 1").await?;
                return Ok((server, clock.elapsed()));
            }
            if let Some(status) = server.child.try_wait()? {
                return Err(Error::internal(format!("the server ended with {status}")));
            }
            if clock.elapsed() > patience {
                return Err(Error::internal("the server does not answer"));
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        // It may have ended by itself; what it kept is thrown away in any case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody listens on now.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
