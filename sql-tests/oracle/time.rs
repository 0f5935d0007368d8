//! The oracle with time: what views over streams of events hold, and what they forget.
//!
//! A case has two streams of events, `a` and `b`, whose rows come out of order: append-only tables,
//! or sources of growing files with several splits, some of which fall silent. The test itself says
//! which rows are late (or, where that depends on the clock, reads it from the tables of late rows),
//! and puts the others into ordinary tables. After each step, for each query:
//!
//! 1. the view holds what the query gives as a batch over the rows that were not late;
//! 2. the view that EMITs ON WINDOW CLOSE holds those of these rows whose time has passed, and all
//!    that it held before;
//! 3. a view whose changes come at intervals, or whose rows go after a hundred days, holds the same
//!    soon;
//! 4. the tables of late rows hold each late row once, and the watermark is what it should be.
//!
//! Now and then late rows are taken in again (REPLAY LATE): from then on those that were not beyond
//! repair are rows of the stream like others.
//!
//! At the end an event of the far future comes, or the sources end: what operators keep then is no
//! more than that event. Meanwhile the server is started again at random, with or without a checkpoint, on
//! 1, 2 or 3 workers.
//!
//! | file | owns |
//! |---|---|
//! | `feed.rs` | events, splits, what is late |
//! | `queries.rs` | queries, and when their rows are final |
//! | `queries/windows.rs`, `queries/joins.rs` | listed ones: each operator in several forms |
//! | `queries/random.rs` | queries by chance |
//!
//! A failure prints its seed. `MILLSTREAM_SEED=n cargo test --test sql_tests oracle::time` replays one
//! case alone; `MILLSTREAM_EPOCHS=n` tries n epochs in place of [`EPOCHS`], from the seed
//! `MILLSTREAM_FROM` on; `MILLSTREAM_FAILURES=n` goes on after so many failures. 100,000 epochs take some hours:
//! `MILLSTREAM_EPOCHS=100000 cargo test --test sql_tests oracle::time`.

mod feed;
mod queries;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::StreamExt;
use millstream::coordinator::command::{ConnectOptions, Connection, Database, Response};
use millstream::coordinator::event_loop::{Coordinator, CoordinatorConfig, HistoryConfig};
use millstream::coordinator::memory::state_memory;
use millstream::coordinator::recovery::open;
use millstream::observe::clock::Clock;
use millstream::storage::store::Store;
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use self::feed::{Feed, Kind, STREAMS, at_text};
use self::queries::{Query, VERSIONED, generated, listed};

/// Epochs tried by a plain `cargo test`.
const EPOCHS: u64 = 240;
/// Steps of one case.
const STEPS: u64 = 12;
/// Listed and random queries of one case.
const QUERIES: (usize, usize) = (3, 3);
/// Cases at a time, for each core: most of one is waiting.
const CASES_PER_CORE: usize = 2;
/// How long something may take that must happen.
const PATIENCE: Duration = Duration::from_secs(30);
/// Checkpoints are made when the case says so.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(3600);

/// A number from the environment.
pub(super) fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

#[test]
fn views_in_time_equal_their_queries_over_what_was_not_late() {
    let epochs = setting("MILLSTREAM_EPOCHS").unwrap_or(EPOCHS);
    let from = setting("MILLSTREAM_FROM").unwrap_or(0);
    let (first, last) = match setting("MILLSTREAM_SEED") {
        Some(seed) => (seed, seed + 1),
        None => (from, from + epochs.div_ceil(STEPS)),
    };
    let failures_max = setting("MILLSTREAM_FAILURES").unwrap_or(1);
    let next = AtomicU64::new(first);
    let failures: Mutex<Vec<String>> = Mutex::default();
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..(cores * CASES_PER_CORE).min((last - first) as usize) {
            scope.spawn(|| {
                let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let failed = failures.lock().expect("no test panics with it").len() as u64;
                    if seed >= last || failed >= failures_max {
                        return;
                    }
                    if let Err(failure) = runtime.block_on(run_case(seed)) {
                        println!("seed {seed} fails");
                        let mut failures = failures.lock().expect("no test panics with it");
                        failures.push(format!("######## seed {seed}\n{failure}"));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no test panics with it");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A query with its views, and what the one of final rows held last.
struct View {
    name: String,
    query: Query,
    /// There is a view `{name}_other`, which holds the same when its time has come.
    has_other: bool,
    last_final: Vec<String>,
}

struct Case {
    random: StdRng,
    coordinator: Coordinator,
    connection: Connection,
    store: Store,
    feed: Feed,
    views: Vec<View>,
    /// Queries whose views are still to be made.
    later: Vec<Query>,
    /// Everything that was run, for a failure.
    log: Vec<String>,
}

async fn run_case(seed: u64) -> Result<(), String> {
    let mut random = StdRng::seed_from_u64(seed);
    let workers = 1 + (seed % 3) as usize;
    let feed = Feed::new(&mut random, seed);
    let store = Store::over(Arc::new(InMemory::new()), "memory");
    let (coordinator, connection) = open_server(workers, &store).await;
    let mut queries = Vec::new();
    for turn in 0..QUERIES.0 as u64 {
        let list = listed();
        let number = (seed * QUERIES.0 as u64 + turn) as usize % list.len();
        queries.extend(list.into_iter().nth(number));
    }
    queries.extend((0..QUERIES.1).map(|_| generated(&mut random)));
    let (views, log) = (Vec::new(), vec![format!("-- {workers} worker(s)")]);
    let mut case =
        Case { random, coordinator, connection, store, feed, views, later: queries, log };
    let done = case.run_steps().await;
    let log = case.log.join(";\n");
    let coordinator = case.coordinator.clone();
    drop(case);
    tokio::task::spawn_blocking(move || coordinator.stop()).await.expect("it stops");
    done.map_err(|failure| format!("{failure}\nlog:\n{log};"))
}

pub(super) async fn open_server(workers: usize, store: &Store) -> (Coordinator, Connection) {
    let config = CoordinatorConfig {
        workers,
        epoch_interval_max: Duration::from_millis(2),
        lock_timeout: Duration::from_secs(5),
        history: HistoryConfig::default(),
        memory: state_memory(&std::env::temp_dir()),
    };
    let clock = Clock::system();
    let opened = open(config, clock.clone(), store.clone(), CHECKPOINT_INTERVAL).await;
    let coordinator = opened.expect("the storage can be read");
    let database = Database::new(coordinator.clone(), clock).expect("threads can be started");
    let options =
        ConnectOptions { database: "millstream".into(), user: "oracle".into(), settings: vec![] };
    let connection = database.connect(options).await.expect("the default database exists");
    (coordinator, connection)
}

/// Runs a statement; its rows as sorted text.
pub(super) async fn rows_of(connection: &mut Connection, sql: &str) -> Result<Vec<String>, String> {
    let told = |e: millstream::types::error::Error| {
        format!("{}: {}\nin {sql}", e.sqlstate().0, e.message())
    };
    let statement = connection.parse(sql).map_err(told)?.remove(0);
    let prepared = connection.prepare(&statement, &[]).await.map_err(told)?;
    let response = connection.execute(&prepared, &[]).await.map_err(told)?;
    let mut texts = Vec::new();
    if let Response::Rows { mut rows, .. } = response {
        while let Some(batch) = rows.next().await {
            let batch = batch.map_err(told)?;
            let options = FormatOptions::new().with_null("NULL");
            let columns: Vec<ArrayFormatter<'_>> = batch
                .columns()
                .iter()
                .map(|column| ArrayFormatter::try_new(column, &options).expect("printable"))
                .collect();
            for row in 0..batch.num_rows() {
                let cells: Vec<String> =
                    columns.iter().map(|column| column.value(row).to_string()).collect();
                texts.push(cells.join(" | "));
            }
        }
    }
    connection.sync().await.map_err(told)?;
    texts.sort_unstable();
    Ok(texts)
}

impl Case {
    /// Runs a statement; its rows as sorted text.
    async fn run(&mut self, sql: &str) -> Result<Vec<String>, String> {
        // What is never answered is a failure with its seed, not a test without an end.
        let answered = tokio::time::timeout(2 * PATIENCE, rows_of(&mut self.connection, sql)).await;
        answered.unwrap_or_else(|_| Err(format!("not answered: {sql}")))
    }

    /// Runs a statement that changes something.
    async fn change(&mut self, sql: &str) -> Result<(), String> {
        self.log.push(sql.to_owned());
        self.run(sql).await.map(drop)
    }

    async fn number(&mut self, sql: &str) -> Result<i64, String> {
        let rows = self.run(sql).await?;
        rows.first().and_then(|n| n.parse().ok()).ok_or_else(|| format!("{sql} gives {rows:?}"))
    }

    async fn run_steps(&mut self) -> Result<(), String> {
        for statement in self.feed.definitions() {
            self.change(&statement).await?;
        }
        for stream in STREAMS {
            // A source that nobody reads is not read.
            let sql =
                format!("CREATE MATERIALIZED VIEW all_{stream} AS SELECT id, ts FROM {stream}");
            self.change(&sql).await?;
        }
        for statement in VERSIONED {
            self.change(statement).await?;
        }
        let begun = self.later.len() / 2;
        for query in self.later.split_off(begun) {
            self.make_view(query).await?;
        }
        for step in 0..STEPS {
            self.step(step).await.map_err(|failure| format!("step {step}: {failure}"))?;
        }
        self.end().await
    }

    async fn make_view(&mut self, query: Query) -> Result<(), String> {
        let name = format!("v{}", self.views.len());
        let sql = self.feed.over_streams(&query.sql);
        self.change(&format!("CREATE MATERIALIZED VIEW {name} AS {sql}")).await?;
        if query.is_final.is_some() {
            let sql =
                format!("CREATE MATERIALIZED VIEW {name}_final AS {sql} EMIT ON WINDOW CLOSE");
            self.change(&sql).await?;
        }
        // Other ways for the same rows to come out, which are there soon.
        let other = match self.views.len() % 3 {
            0 => format!("{name}_other AS {sql} EMIT ON UPDATE EVERY INTERVAL '5 milliseconds'"),
            1 => format!("{name}_other WITH (retention = INTERVAL '100 days') AS {sql}"),
            _ => String::new(),
        };
        let has_other = !other.is_empty();
        if has_other {
            self.change(&format!("CREATE MATERIALIZED VIEW {other}")).await?;
        }
        self.views.push(View { name, query, has_other, last_final: Vec::new() });
        Ok(())
    }

    async fn step(&mut self, step: u64) -> Result<(), String> {
        if step == STEPS / 2 {
            for query in std::mem::take(&mut self.later) {
                self.make_view(query).await?;
            }
        }
        if self.random.random_bool(0.08) {
            self.restart().await?;
        }
        if self.random.random_bool(0.15) {
            self.replay_late().await?;
        }
        let kind = self.feed.kind;
        let fed = self.feed.step(&mut self.random);
        for statement in &fed {
            self.change(statement).await?;
        }
        if kind != Kind::Table {
            self.wait_until_read().await?;
        }
        if kind == Kind::IdleFiles {
            self.learn_what_is_late().await?;
        }
        for statement in self.feed.take_mirrored() {
            self.run(&statement).await?;
        }
        self.compare().await
    }

    /// Takes late rows in again, all or some; the server says which of them are beyond repair.
    async fn replay_late(&mut self) -> Result<(), String> {
        for stream in STREAMS {
            let some = self.random.random_bool(0.3);
            let condition = if some { " WHERE id % 2 = 0" } else { "" };
            let sql = format!("REPLAY LATE {stream}{condition}");
            self.log.push(sql.clone());
            let beyond = self.run(&sql).await?;
            let ids = beyond.iter().filter_map(|row| row.split(" | ").next()?.parse().ok());
            self.feed.replayed(stream, &ids.collect::<Vec<i64>>(), some);
        }
        Ok(())
    }

    /// Ends the server and starts another over what it left.
    async fn restart(&mut self) -> Result<(), String> {
        let workers = self.random.random_range(1..=3);
        if self.random.random_bool(0.6) {
            self.change("CHECKPOINT").await?;
            // Rows that come after it are read twice.
            if self.random.random_bool(0.5) {
                for statement in self.feed.step(&mut self.random) {
                    self.change(&statement).await?;
                }
                if self.feed.kind != Kind::Table {
                    self.wait_until_read().await?;
                }
            }
        }
        self.log.push(format!("-- a restart on {workers} worker(s)"));
        let coordinator = self.coordinator.clone();
        tokio::task::spawn_blocking(move || coordinator.stop()).await.expect("it stops");
        (self.coordinator, self.connection) = open_server(workers, &self.store).await;
        if self.feed.kind == Kind::IdleFiles {
            // What was not in a checkpoint is read again, at another pace.
            self.feed.forget_late();
            self.views.iter_mut().for_each(|view| view.last_final.clear());
        }
        Ok(())
    }

    /// Waits until the sources have given all that is in their files.
    async fn wait_until_read(&mut self) -> Result<(), String> {
        let began = Instant::now();
        for stream in STREAMS {
            let wanted = self.feed.rows_of(stream);
            loop {
                let sql = format!("SELECT rows FROM millstream.sources WHERE name = '{stream}'");
                let found = self.number(&sql).await?;
                if found == wanted as i64 {
                    break;
                }
                if began.elapsed() > PATIENCE {
                    return Err(format!("{stream} has given {found} of {wanted} rows"));
                }
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
        // What has been read may still be in the open epoch.
        self.run("FLUSH").await.map(drop)
    }

    /// Where the clock decides, the tables of late rows say what was late.
    async fn learn_what_is_late(&mut self) -> Result<(), String> {
        for stream in STREAMS {
            let wrong =
                format!("SELECT count(*) FROM {stream}_late WHERE NOT event_time < watermark");
            if self.number(&wrong).await? != 0 {
                return Err(format!("rows of {stream}_late are not behind their watermark"));
            }
            let late = self.run(&format!("SELECT id FROM {stream}_late")).await?;
            let late = late.iter().map(|id| id.parse().expect("an id"));
            self.feed.set_late(stream, late.collect());
        }
        Ok(())
    }

    /// Waits until each stream's watermark is what its rows have moved it to.
    async fn wait_for_watermarks(&mut self) -> Result<(), String> {
        for stream in STREAMS {
            let Some(wanted) = self.feed.watermark(stream) else { continue };
            let began = Instant::now();
            loop {
                let found = self.run(&format!("SHOW WATERMARKS LIKE '{stream}'")).await?;
                if found.first().is_some_and(|row| row.contains(&format!("| {wanted} |"))) {
                    break;
                }
                if began.elapsed() > PATIENCE {
                    return Err(format!("the watermark of {stream} is not {wanted}: {found:?}"));
                }
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
        Ok(())
    }

    async fn compare(&mut self) -> Result<(), String> {
        if self.feed.kind != Kind::IdleFiles {
            self.wait_for_watermarks().await?;
        }
        for stream in STREAMS {
            let found = self.run(&format!("SELECT id FROM {stream}_late")).await?;
            let mut expected: Vec<String> =
                self.feed.late_of(stream).iter().map(i64::to_string).collect();
            expected.sort_unstable();
            if found != expected {
                return Err(format!("late rows of {stream}\n{}", difference(&found, &expected)));
            }
        }
        let mut views = std::mem::take(&mut self.views);
        let mut outcome = Ok(());
        for view in &mut views {
            outcome = self.compare_view(view).await;
            if outcome.is_err() {
                break;
            }
        }
        self.views = views;
        outcome
    }

    async fn compare_view(&mut self, view: &mut View) -> Result<(), String> {
        let View { name, query, has_other, last_final } = view;
        let batch = query.batch.as_ref().unwrap_or(&query.sql);
        let batch = self.feed.over_mirrors(batch);
        let found = self.run(&format!("SELECT * FROM {name}")).await?;
        let expected = self.run(&batch).await?;
        if found != expected {
            return Err(format!("{name}: {batch}\n{}", difference(&found, &expected)));
        }
        if *has_other {
            let began = Instant::now();
            loop {
                let found = self.run(&format!("SELECT * FROM {name}_other")).await?;
                if found == expected {
                    break;
                }
                if began.elapsed() > PATIENCE {
                    let differing = difference(&found, &expected);
                    return Err(format!("{name}_other: {batch}\n{differing}"));
                }
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
        let Some(is_final) = &query.is_final else { return Ok(()) };
        let found = self.run(&format!("SELECT * FROM {name}_final")).await?;
        if !contains(&found, last_final) {
            return Err(format!("{name}_final: rows went\n{}", difference(&found, last_final)));
        }
        // Where the clock decides what the watermark is, only that holds.
        if self.feed.kind != Kind::IdleFiles {
            let closed = match self.feed.closing_time(query.streams) {
                None => "false".to_owned(),
                Some(watermark) => is_final.replace("{w}", &format!("TIMESTAMP '{watermark}'")),
            };
            let sql = format!("SELECT * FROM ({batch}) AS q WHERE {closed}");
            let expected = self.run(&sql).await?;
            if found != expected {
                return Err(format!("{name}_final: {sql}\n{}", difference(&found, &expected)));
            }
        } else if !contains(&expected, &found) {
            return Err(format!("{name}_final: {batch}\n{}", difference(&found, &expected)));
        }
        *last_final = found;
        Ok(())
    }

    /// Lets time pass all that has come, and looks at what operators still keep.
    async fn end(&mut self) -> Result<(), String> {
        let fed = self.feed.far_future();
        for statement in &fed {
            self.change(statement).await?;
        }
        if self.feed.kind != Kind::Table {
            self.wait_until_read().await?;
        }
        if self.feed.kind == Kind::IdleFiles {
            self.learn_what_is_late().await?;
        }
        for statement in self.feed.take_mirrored() {
            self.run(&statement).await?;
        }
        // Every split must have moved for time to pass.
        self.wait_for_watermarks().await?;
        self.compare().await.map_err(|failure| format!("at the end: {failure}"))?;
        let kept: Vec<(String, bool, Query)> = self
            .views
            .iter()
            .map(|view| (view.name.clone(), view.query.is_final.is_some(), view.query.clone()))
            .collect();
        for (name, has_final, query) in kept {
            let Some(rows_max) = query.rows_max else { continue };
            let suffixes: &[&str] = if has_final { &["", "_final"] } else { &[""] };
            for suffix in suffixes {
                let sql = format!(
                    "SELECT description, sum(state_rows) AS n FROM millstream.operators \
                     WHERE view = '{name}{suffix}' AND description <> 'Result' \
                     GROUP BY operator, description HAVING sum(state_rows) > {rows_max}"
                );
                let found = self.run(&sql).await?;
                if !found.is_empty() {
                    let (found, sql) = (found.join("\n  "), query.sql);
                    return Err(format!(
                        "{name}{suffix} keeps what time has passed:\n  {found}\n{sql}"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Whether a sorted bag has all that another one has.
pub(super) fn contains(all: &[String], part: &[String]) -> bool {
    let mut all = all.iter().peekable();
    part.iter().all(|row| {
        while all.next_if(|other| *other < row).is_some() {}
        all.next_if(|other| *other == row).is_some()
    })
}

/// Two sorted bags, as far as they differ.
pub(super) fn difference(found: &[String], expected: &[String]) -> String {
    let mut counts: std::collections::BTreeMap<&str, i64> = std::collections::BTreeMap::new();
    for row in found {
        *counts.entry(row).or_default() += 1;
    }
    for row in expected {
        *counts.entry(row).or_default() -= 1;
    }
    let differing = counts.into_iter().filter(|(_, count)| *count != 0);
    let line = |(row, count): (&str, i64)| {
        let what = if count > 0 { "only in the view" } else { "missing in the view" };
        format!("  {what}, {}x: {row}\n", count.abs())
    };
    differing.map(line).collect()
}

#[test]
fn bags_are_compared() {
    let bag = |rows: &[&str]| rows.iter().map(|row| (*row).to_owned()).collect::<Vec<_>>();
    assert!(contains(&bag(&["a", "b", "b"]), &bag(&["b"])));
    assert!(!contains(&bag(&["a", "b"]), &bag(&["b", "b"])));
    assert_eq!(difference(&bag(&["a", "b"]), &bag(&["b", "b"])).lines().count(), 2);
    assert_eq!(at_text(3_661_000_000), "2024-01-10 01:01:01");
}
