//! All tests outside of the library, as one binary: every sqllogictest file of this folder in
//! both modes, and modules for what SQL cannot reach.
//!
//! `SLT=join cargo test --test sql_tests` runs the files with `join` in their path only.

#![allow(clippy::disallowed_methods, reason = "tests may wait and time")]

mod alignment;
mod backup;
mod buckets;
mod clients;
mod command_line;
mod crash;
mod documents;
mod durability;
mod fairness;
mod faults;
mod functions;
mod memory;
mod nexmark;
mod oracle;
mod postgres;
mod terminal;
mod tpch;

use std::ops::ControlFlow;
use std::path::PathBuf;

use millstream::slt::{self, FileReport, MODES, Mode, PrivateServer};

/// Runs all files against one server, each in a database of its own.
#[expect(clippy::print_stdout, reason = "a line per file, which cargo shows of failed tests")]
fn run_all(mode: Mode) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("sql-tests");
    let wanted = std::env::var("SLT").unwrap_or_default();
    let mut files = slt::find_files(&[folder]).expect("there are slt files beside this one");
    files.retain(|path| path.to_string_lossy().contains(&wanted));
    assert!(!files.is_empty(), "SLT={wanted} matches no file");

    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    runtime.block_on(async {
        let server = PrivateServer::start(mode.workers).await.expect("the server starts");
        let mut failures = Vec::new();
        let tell = |report: &FileReport| {
            println!("{}", report.line(""));
            if report.failure.is_some() {
                failures.push(report.line(""));
            }
            ControlFlow::Continue(())
        };
        let config = server.client_config();
        let totals = slt::run_files(&config, &files, Some(mode.workers), tell).await;
        server.stop().await;
        assert!(failures.is_empty(), "{totals:?} ({})\n{}", mode.name, failures.join("\n"));
        assert_eq!(totals.passed, files.len());
    });
}

#[test]
fn files_pass_on_one_worker() {
    run_all(MODES[0]);
}

#[test]
fn files_pass_on_two_workers() {
    run_all(MODES[1]);
}
