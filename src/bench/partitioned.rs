//! Nexmark's q10 as it stands: the bids go to files, a folder for each day and minute.
//!
//! From CREATE SINK until every source has ended and the checkpoint behind that has its files in
//! their places.

use crate::bench::{
    Measurement, NexmarkOptions, POLL, checkpoints, connect, files, process, run, source_sql,
    sources_ended,
};
use crate::observe::clock::Clock;
use crate::slt::PrivateServer;
use crate::types::error::{Error, Result, SqlState};

/// What it is called among the queries.
pub const Q10_FILES: &str = "q10_files";

/// Measures it, and removes the files.
///
/// # Errors
/// When the server or a statement fails.
pub async fn measure(options: &NexmarkOptions) -> Result<Measurement> {
    let folder = tempfile::tempdir().map_err(|error| {
        Error::external(SqlState::IO_ERROR, format!("no folder for the files: {error}"))
    })?;
    let server = PrivateServer::start_in_storage(options.config.clone()).await?;
    let client = connect(&server.client_config()).await?;
    let source = match &options.files {
        Some(directory) => files::source_sql("bid", directory),
        None => source_sql("bid", options.events),
    };
    run(&client, &source).await?;
    process::reset_peak();
    let clock = Clock::system();
    let cpu_before = process::cpu_time();
    let sink = format!(
        "CREATE SINK q10 AS SELECT auction, bidder, price, date_time, extra, \
         to_char(date_time, 'YYYY-MM-DD') AS day, to_char(date_time, 'HH24_MI') AS minute FROM bid \
         WITH (connector = 'file', path = '{}', format = 'parquet', partition_by = 'day, minute')",
        folder.path().display()
    );
    run(&client, &sink).await?;
    while !sources_ended(&client).await? {
        tokio::time::sleep(POLL).await;
    }
    run(&client, "FLUSH").await?;
    run(&client, "CHECKPOINT").await?;
    let seconds = clock.elapsed().as_secs_f64();
    let cpu_seconds = (process::cpu_time() - cpu_before).as_secs_f64();
    let peak_bytes = process::resident_peak_bytes();
    let checkpoints = match options.durable {
        true => Some(checkpoints(&client).await?),
        false => None,
    };
    drop(client);
    server.stop().await;
    Ok(Measurement {
        query: Q10_FILES,
        events: options.events,
        seconds: (seconds * 1e3).round() / 1e3,
        events_per_s: (options.events as f64 / seconds) as u64,
        cpu_seconds: (cpu_seconds * 1e3).round() / 1e3,
        peak_rss_mib: peak_bytes >> 20,
        checkpoints,
    })
}
