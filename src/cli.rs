//! The command line: what there is to say, and what each command does.
//!
//! A server's flags are made from `config::SETTINGS`, each also as a variable `MILLSTREAM_...`,
//! so that a new setting is one entry there.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::bench::{
    self, DurabilityOptions, LatencyOptions, MemoryOptions, NexmarkOptions, PatternOptions,
    StartupOptions, TpchOptions, WindowOptions,
};
use crate::config::{SETTINGS, ServerConfig, parse_storage};
use crate::frontend::repl::client::{Client, Event};
use crate::frontend::repl::{self, ShellOptions, Target};
use crate::observe::log::{self, LogTarget};
use crate::server::{Server, open_store};
use crate::slt::{self, FileReport, Totals};
use crate::storage::transfer;
use crate::types::error::{Error, Result, SqlState};

/// A streaming SQL database. Without a command: a server and a shell in one process.
#[derive(Debug, Parser)]
#[command(name = "millstream", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Action>,
    #[command(flatten)]
    server: ServerArguments,
    /// Which log lines: a level, or module=level
    #[arg(
        long,
        global = true,
        env = "MILLSTREAM_LOG",
        hide_env_values = true,
        default_value = DEFAULT_LOG,
        value_name = "LEVEL"
    )]
    log: String,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Run a server
    Serve(ServerArguments),
    /// Run a shell against a running server
    Repl {
        /// postgres://user@host:port/database
        #[arg(default_value = "postgres://127.0.0.1:7432/millstream", env = "MILLSTREAM_URL")]
        url: String,
    },
    /// Run a file of SQL against a server of its own; stops at the first error
    Run {
        file: PathBuf,
        #[command(flatten)]
        server: ServerArguments,
    },
    /// Run sqllogictest files, each in a fresh database, with one worker and with two
    Test {
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Use this running server instead of servers of their own
        #[arg(long, value_name = "URL", env = "MILLSTREAM_CONNECT")]
        connect: Option<String>,
    },
    /// Copy the database of a running server to another storage; only what is not there yet
    Backup {
        /// file:///path, s3://bucket/prefix, gs://... or az://..., as the server sees it
        url: String,
        #[command(flatten)]
        server: RunningServer,
    },
    /// Copy a backup into the storage of a server that is not there yet
    Restore {
        /// Where the backup is
        url: String,
        #[command(flatten)]
        server: ServerArguments,
    },
    /// Take savepoints out of a running server, and into it
    #[command(subcommand)]
    Savepoint(SavepointAction),
    /// Measure
    #[command(subcommand)]
    Bench(Benchmark),
}

#[derive(Debug, Subcommand)]
enum SavepointAction {
    /// Copy a savepoint to a directory or bucket of its own
    Export {
        name: String,
        url: String,
        #[command(flatten)]
        server: RunningServer,
    },
    /// Copy an exported savepoint into the server's storage, under this name
    Import {
        name: String,
        url: String,
        #[command(flatten)]
        server: RunningServer,
    },
}

/// The server that is asked.
#[derive(Debug, Args)]
struct RunningServer {
    /// postgres://user@host:port/database
    #[arg(
        long,
        default_value = "postgres://127.0.0.1:7432/millstream",
        env = "MILLSTREAM_URL",
        value_name = "URL"
    )]
    connect: String,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// The queries of the Nexmark benchmark over its generator, in this process
    Nexmark {
        /// Which queries, separated by commas
        #[arg(long, value_delimiter = ',', env = "MILLSTREAM_QUERIES", default_values = bench::DEFAULT_QUERIES)]
        queries: Vec<String>,
        /// Events of all three kinds; q0 reads the bids, 46 of 50
        #[arg(long, env = "MILLSTREAM_EVENTS", default_value_t = 10_000_000)]
        events: u64,
        /// Threads that maintain the view
        #[arg(long, env = "MILLSTREAM_WORKERS", value_name = "COUNT")]
        workers: Option<String>,
        /// Keep the state in files, checkpointed so often; without it nothing is durable
        #[arg(long, env = "MILLSTREAM_CHECKPOINT_INTERVAL", value_name = "DURATION")]
        checkpoint_interval: Option<String>,
        /// Read the events from Parquet files in this directory; they are written first
        #[arg(long, value_name = "DIRECTORY")]
        files: Option<PathBuf>,
        /// Where the results go: into a view that can be read, or to a sink that drops them
        #[arg(long, default_value = "view", value_name = "WHERE")]
        output: bench::OutputTo,
        /// A line of JSON for each query
        #[arg(long)]
        json: bool,
    },
    /// From an event to its being visible in five views, in this process
    Latency {
        /// Bids per second
        #[arg(long, default_value_t = 100_000)]
        events_per_second: u64,
        /// How long to measure
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// Threads that maintain the views
        #[arg(long, env = "MILLSTREAM_WORKERS", value_name = "COUNT")]
        workers: Option<String>,
        /// A line of JSON for each view
        #[arg(long)]
        json: bool,
    },
    /// From nothing to the first answer, and what an idle server costs
    Startup {
        /// Starts to measure; the median counts
        #[arg(long, default_value_t = 5)]
        runs: usize,
        /// Views that the idle server keeps
        #[arg(long, default_value_t = 100)]
        views: usize,
        /// How long it idles
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// A line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Bytes of a checkpoint, time of a restart, durable commits and COPY, of a server on a disk
    Durability {
        /// Rows of 100 bytes in a table and in a view over it
        #[arg(long, default_value_t = 10_000_000)]
        keys: u64,
        /// Clients that commit rows
        #[arg(long, default_value_t = 32)]
        clients: usize,
        /// How long they do
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Rows that COPY brings
        #[arg(long, default_value_t = 5_000_000)]
        copy_rows: u64,
        /// Where the server keeps its data; the system's directory of temporary files otherwise
        #[arg(long, value_name = "DIRECTORY")]
        directory: Option<PathBuf>,
        /// Threads that maintain views
        #[arg(long, env = "MILLSTREAM_WORKERS", value_name = "COUNT")]
        workers: Option<String>,
        /// A line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Row patterns in a view and in batch, in this process
    Patterns {
        /// Rows of each table
        #[arg(long, default_value_t = 4_000_000)]
        rows: u64,
        /// Partitions of the view; at most a quarter of the rows
        #[arg(long)]
        partitions: Option<u64>,
        /// Only the view, over Parquet files in this folder, which are written if they are not
        /// there; one line of JSON
        #[arg(long, value_name = "FOLDER")]
        files: Option<PathBuf>,
        /// Threads that maintain the view
        #[arg(long, env = "MILLSTREAM_WORKERS", value_name = "COUNT")]
        workers: Option<String>,
        /// A line of JSON for each pattern
        #[arg(long)]
        json: bool,
    },
    /// State that does not fit into memory: a Nexmark join with all memory there is, and with a
    /// fraction of what its state takes
    Memory {
        /// Which query: one of Nexmark's, or groups
        #[arg(long, default_value = "q20")]
        query: String,
        /// Events of all three kinds, or rows
        #[arg(long, env = "MILLSTREAM_EVENTS", default_value_t = 10_000_000)]
        events: u64,
        /// The state is so many times the memory limit
        #[arg(long, default_value_t = 4)]
        times: u64,
        /// Do not leave files in the kernel's memory
        #[arg(long)]
        cold: bool,
        /// Threads that maintain the view
        #[arg(long, env = "MILLSTREAM_WORKERS", value_name = "COUNT")]
        workers: Option<String>,
        /// Measure once, with the memory limit that is given
        #[arg(long)]
        once: bool,
        /// For --once
        #[arg(long, value_name = "SIZE")]
        memory_limit: Option<String>,
        /// A line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Overlapping windows beside plain ones, and what open sessions take, in this process
    Windows {
        /// Nexmark's events behind the windows
        #[arg(long, default_value_t = 5_000_000)]
        events: u64,
        /// Sessions that are open at the same time
        #[arg(long, default_value_t = 1_000_000)]
        sessions: u64,
        /// Threads that maintain the views
        #[arg(long, env = "MILLSTREAM_WORKERS", value_name = "COUNT")]
        workers: Option<String>,
        /// A line of JSON for each view
        #[arg(long)]
        json: bool,
    },
    /// The queries of TPC-H as live views, beside computing them anew, in this process
    Tpch {
        /// How much data: 1 is a gigabyte
        #[arg(long, default_value_t = 1.0)]
        scale: f64,
        /// Which queries, separated by commas; all when none is named
        #[arg(long, value_delimiter = ',')]
        queries: Vec<String>,
        /// Threads that maintain the views
        #[arg(long, env = "MILLSTREAM_WORKERS", value_name = "COUNT")]
        workers: Option<String>,
        /// A line of JSON for each query
        #[arg(long)]
        json: bool,
    },
}

/// The settings that were given, as text.
#[derive(Clone, Debug, Default)]
struct ServerArguments {
    given: BTreeMap<&'static str, String>,
}

impl Args for ServerArguments {
    fn augment_args(command: Command) -> Command {
        SETTINGS.iter().fold(command, |command, setting| {
            let default = match setting.default {
                "" => String::new(),
                default => format!(" [default: {default}]"),
            };
            let argument = Arg::new(setting.name)
                .long(setting.name.replace('_', "-"))
                .env(format!("MILLSTREAM_{}", setting.name.to_uppercase()))
                .hide_env_values(true)
                .value_name(setting.unit.to_uppercase())
                .help(format!("{}{default}", setting.doc));
            command.arg(argument)
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        ServerArguments::augment_args(command)
    }
}

impl FromArgMatches for ServerArguments {
    fn from_arg_matches(matches: &ArgMatches) -> Result<ServerArguments, clap::Error> {
        let mut arguments = ServerArguments::default();
        arguments.update_from_arg_matches(matches)?;
        Ok(arguments)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for setting in SETTINGS {
            if let Some(value) = matches.get_one::<String>(setting.name) {
                self.given.insert(setting.name, value.clone());
            }
        }
        Ok(())
    }
}

impl ServerArguments {
    fn config(&self) -> Result<ServerConfig> {
        let mut config = ServerConfig::default();
        for (name, value) in &self.given {
            config.set(name, value)?;
        }
        Ok(config)
    }

    /// For a server that only this process uses: free ports unless they were given.
    fn private_config(&self) -> Result<ServerConfig> {
        let mut config = self.config()?;
        for name in ["listen", "http"] {
            if !self.given.contains_key(name) {
                config.set(name, ANY_LOOPBACK_PORT)?;
            }
        }
        Ok(config)
    }
}

/// The log filter when none is given.
const DEFAULT_LOG: &str = "info";

const ANY_LOOPBACK_PORT: &str = "127.0.0.1:0";

/// Runs the program; what `main` returns.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Error::from(error).context("cannot start threads")),
    };
    let outcome = runtime.block_on(run(arguments));
    // What still runs are reads that block on a terminal; nothing waits for them.
    runtime.shutdown_timeout(Duration::from_millis(100));
    match outcome {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

async fn run(arguments: Arguments) -> Result<ExitCode> {
    let filter = arguments.log.as_str();
    match arguments.command {
        None => serve_and_interact(&arguments.server.config()?, filter).await,
        Some(Action::Serve(server)) => {
            log::start(filter, LogTarget::Stderr)?;
            serve(server.config()?).await
        }
        Some(Action::Repl { url }) => {
            let target = Target::parse(&url)?;
            let banner = repl::banner(&target, None);
            let demo_dir = std::env::temp_dir().join("millstream-demo");
            let history_file = history_file(&std::env::temp_dir());
            let options = ShellOptions { target, banner, demo_dir, history_file };
            repl::interact(options).await.map(exit_code)
        }
        Some(Action::Run { file, server }) => {
            // What the file prints is the point; that a server of its own comes and goes is not.
            let filter = if filter == DEFAULT_LOG { "warn" } else { filter };
            log::start(filter, LogTarget::Stderr)?;
            run_file(&file, server.private_config()?).await
        }
        Some(Action::Test { paths, connect }) => {
            log::start("warn", LogTarget::Stderr)?;
            test(&paths, connect.as_deref()).await
        }
        Some(Action::Backup { url, server }) => {
            ask(&server, &format!("BACKUP TO {}", literal(&url))).await
        }
        Some(Action::Restore { url, server }) => {
            log::start("warn", LogTarget::Stderr)?;
            restore(&url, &server.config()?).await
        }
        Some(Action::Savepoint(SavepointAction::Export { name, url, server })) => {
            let sql = format!("EXPORT SAVEPOINT {} TO {}", identifier(&name), literal(&url));
            ask(&server, &sql).await
        }
        Some(Action::Savepoint(SavepointAction::Import { name, url, server })) => {
            let sql = format!("IMPORT SAVEPOINT {} FROM {}", identifier(&name), literal(&url));
            ask(&server, &sql).await
        }
        Some(Action::Bench(benchmark)) => {
            log::start("warn", LogTarget::Stderr)?;
            run_benchmark(benchmark).await
        }
    }
}

fn exit_code(passed: bool) -> ExitCode {
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn fail(error: &Error) -> ExitCode {
    print_error(error);
    ExitCode::FAILURE
}

#[expect(clippy::print_stderr, reason = "the command line's own words")]
fn print_error(error: &Error) {
    let body = error.body();
    eprintln!("error: {}", body.message);
    if let Some(detail) = &body.detail {
        eprintln!("{detail}");
    }
    if let Some(hint) = &body.hint {
        eprintln!("{hint}");
    }
}

/// Where lines typed are remembered: in the home directory, or else in `fallback`.
fn history_file(fallback: &Path) -> PathBuf {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    home.map_or_else(|| fallback.to_owned(), PathBuf::from).join(".millstream_history")
}

async fn serve(config: ServerConfig) -> Result<ExitCode> {
    // Before anything starts: a signal that comes as soon as the server is ready must stop it
    // cleanly, not kill it.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut server = Server::start(config).await?;
    let failure = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        failure = server.failed() => Some(failure),
    };
    match failure {
        None => {
            server.stop().await;
            Ok(ExitCode::SUCCESS)
        }
        Some(failure) => Err(failure),
    }
}

async fn serve_and_interact(config: &ServerConfig, filter: &str) -> Result<ExitCode> {
    // The terminal belongs to the shell.
    let log_file = config.data_dir.join("millstream.log");
    log::start(filter, LogTarget::File(&log_file))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let server = Server::start(config.clone()).await?;
    let target = Target::at(server.postgres_address());
    let options = ShellOptions {
        banner: repl::banner(&target, Some(server.http_address())),
        target,
        demo_dir: config.data_dir.join("demo"),
        history_file: history_file(&config.data_dir),
    };
    // On a thread of its own, which may wait for a key for ever.
    let (done, outcome) = tokio::sync::oneshot::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let runtime = tokio::runtime::Handle::current();
    std::thread::Builder::new().name("shell".to_owned()).spawn(move || {
        let shell = runtime.block_on(async {
            tokio::select! {
                outcome = repl::interact(options) => Some(outcome),
                _ = stopped => None,
            }
        });
        if let Some(outcome) = shell {
            // Nobody waits for the outcome when the server was told to stop.
            let _ = done.send(outcome);
        }
    })?;
    let outcome = tokio::select! {
        outcome = outcome => Some(outcome),
        _ = terminate.recv() => None,
    };
    // A shell that waits for time to pass must not outlive the runtime's clock.
    drop(stop);
    server.stop().await;
    match outcome {
        Some(Ok(outcome)) => outcome.map(exit_code),
        Some(Err(_)) => Err(Error::internal("the shell broke down")),
        None => {
            repl::restore_terminal();
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn run_file(file: &Path, config: ServerConfig) -> Result<ExitCode> {
    if let Err(error) = std::fs::metadata(file) {
        return Err(Error::from(error).context(file.display()));
    }
    let server = Server::start(config).await?;
    let passed = repl::run_file(Target::at(server.postgres_address()), file).await;
    server.stop().await;
    passed.map(exit_code)
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Runs one statement on a running server, and prints what it says.
async fn ask(server: &RunningServer, sql: &str) -> Result<ExitCode> {
    let mut client = Client::connect(&Target::parse(&server.connect)?).await?;
    client.send(sql).await?;
    let mut passed = true;
    loop {
        match client.next().await? {
            Event::Notice(notice) => print_line(&notice.message),
            Event::Complete(tag) => print_line(&tag),
            Event::Error(message) => {
                passed = false;
                let mut error = Error::external(SqlState::IO_ERROR, message.message);
                if let Some(detail) = message.detail {
                    error = error.detail(detail);
                }
                if let Some(hint) = message.hint {
                    error = error.hint(hint);
                }
                print_error(&error);
            }
            Event::Ready => return Ok(exit_code(passed)),
            _ => {}
        }
    }
}

async fn restore(url: &str, config: &ServerConfig) -> Result<ExitCode> {
    let backup = ServerConfig { storage: parse_storage(url)?, ..config.clone() };
    let nowhere = || {
        Error::user(SqlState::INVALID_PARAMETER_VALUE, "memory:// keeps nothing")
            .hint("Use file:///path or s3://bucket/prefix.")
    };
    let from = open_store(&backup).await?.ok_or_else(nowhere)?;
    let to = open_store(config).await?.ok_or_else(nowhere)?;
    let copied = transfer::restore(&from, &to).await?;
    print_line(&format!(
        "{} files of {} bytes restored to {}",
        copied.files,
        copied.bytes,
        to.place()
    ));
    Ok(ExitCode::SUCCESS)
}

async fn test(paths: &[PathBuf], connect: Option<&str>) -> Result<ExitCode> {
    let files = slt::find_files(paths)?;
    let mut totals = Totals::default();
    if let Some(url) = connect {
        let server = slt::parse_url(url)?;
        totals = slt::run_files(&server, &files, None, |report| tell(report, "")).await;
    } else {
        for mode in slt::MODES {
            let server = slt::PrivateServer::start(mode.workers).await?;
            let name = format!(" ({})", mode.name);
            let config = server.client_config();
            let workers = Some(mode.workers);
            let of_mode =
                slt::run_files(&config, &files, workers, |report| tell(report, &name)).await;
            totals.passed += of_mode.passed;
            totals.failed += of_mode.failed;
            server.stop().await;
        }
    }
    print_line(&format!("{} passed, {} failed", totals.passed, totals.failed));
    Ok(exit_code(totals.failed == 0))
}

fn tell(report: &FileReport, mode: &str) -> ControlFlow<()> {
    print_line(&report.line(mode));
    ControlFlow::Continue(())
}

#[expect(clippy::print_stdout, reason = "the command line's own words")]
fn print_line(text: &str) {
    println!("{text}");
}

async fn run_benchmark(benchmark: Benchmark) -> Result<ExitCode> {
    let config = |workers: Option<String>| {
        let mut config = ServerConfig::default();
        if let Some(workers) = workers {
            config.set("workers", &workers)?;
        }
        Ok::<_, Error>(config)
    };
    match benchmark {
        Benchmark::Nexmark {
            queries,
            events,
            workers,
            checkpoint_interval,
            files,
            output,
            json,
        } => {
            let mut config = config(workers)?;
            // Without the flag nothing is durable, and nothing pays for it.
            let durable = checkpoint_interval.is_some();
            if let Some(interval) = checkpoint_interval {
                config.set("checkpoint_interval", &interval)?;
            }
            let options = NexmarkOptions { queries, events, json, durable, files, output, config };
            bench::nexmark(options).await?;
        }
        Benchmark::Latency { events_per_second: events_per_s, seconds, workers, json } => {
            let config = config(workers)?;
            bench::latency(LatencyOptions { events_per_s, seconds, json, config }).await?;
        }
        Benchmark::Startup { runs, views, seconds, json } => {
            bench::startup(StartupOptions { runs, views, seconds, json }).await?;
        }
        Benchmark::Durability { keys, clients, seconds, copy_rows, directory, workers, json } => {
            let workers = config(workers)?.workers.get();
            let options =
                DurabilityOptions { keys, clients, seconds, copy_rows, directory, workers, json };
            bench::durability(options).await?;
        }
        Benchmark::Patterns { rows, partitions, files, workers, json } => {
            let mut config = config(workers)?;
            if files.is_some() {
                config.set("checkpoint_interval", "1s")?;
            }
            let options = PatternOptions { rows, json, files, partitions, config };
            bench::patterns(options).await?;
        }
        Benchmark::Memory { query, events, times, cold, workers, once, memory_limit, json } => {
            let mut config = config(workers)?;
            if let Some(limit) = memory_limit {
                config.set("memory_limit", &limit)?;
            }
            let options = MemoryOptions { query, events, times, cold, json, once, config };
            bench::memory(options).await?;
        }
        Benchmark::Windows { events, sessions, workers, json } => {
            let config = config(workers)?;
            bench::windows(WindowOptions { events, sessions, json, config }).await?;
        }
        Benchmark::Tpch { scale, queries, workers, json } => {
            let config = config(workers)?;
            bench::tpch(TpchOptions { scale, queries, json, config }).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
