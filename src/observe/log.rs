//! Where log lines go, and which: error is data loss or a broken invariant, warn is for today,
//! info tells life-cycle events; debug and trace are off.
//!
//! `MILLSTREAM_LOG` takes a level or a filter (`millstream::coordinator=debug`).

use std::fs::OpenOptions;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;

use crate::types::error::{Error, Result, SqlState};

/// Where log lines go.
#[derive(Clone, Copy, Debug)]
pub enum LogTarget<'a> {
    /// For a server of its own.
    Stderr,
    /// For a server that shares its terminal with the shell.
    File(&'a Path),
}

/// Sets the process's log up; the first call wins, so that tests may call it too.
///
/// # Errors
/// When the filter cannot be read, or the file cannot be opened.
pub fn start(filter: &str, target: LogTarget<'_>) -> Result<()> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Error::user(SqlState::INVALID_PARAMETER_VALUE, format!("log filter {filter:?}: {error}"))
            .hint("Write a level (error, warn, info, debug, trace) or module=level.")
    })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter);
    // `try_init` fails only when there is a log already.
    let _ = match target {
        LogTarget::Stderr => {
            let ansi = std::io::stderr().is_terminal();
            lines.with_ansi(ansi).with_writer(std::io::stderr).try_init()
        }
        LogTarget::File(path) => {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            lines.with_ansi(false).with_writer(Mutex::new(file)).try_init()
        }
    };
    Ok(())
}
