//! The oracle of row patterns: a stream has the matches of a batch.
//!
//! A case draws patterns over the whole grammar and makes three views of each:
//! 1. in event time, over an append-only table whose rows come shuffled, behind a watermark that
//!    moves by leaps, some rows too late for it;
//! 2. at once (EMIT ON UPDATE), over the same table;
//! 3. at once over a table whose rows also change and go; for some patterns in event time over a
//!    view that retracts (a sum by time), too.
//!
//! After each step views at once must hold what a SELECT finds in the rows that are there, and views
//! in event time all that they held before. When the watermark has passed all rows, they hold
//! exactly what a SELECT finds. The server has 1, 2 or 3 workers, and is started again with another
//! number of them in the middle of matches, with a checkpoint or without.
//!
//! A failure prints its seed: `MILLSTREAM_SEED=n cargo test --test sql_tests oracle::patterns`
//! replays it; `MILLSTREAM_CASES=n` sets how many are tried.
//!
//! What a SELECT finds is compared with a reference of its own (`patterns/reference.rs`):
//! `MILLSTREAM_PATTERN_SEED=n` and `MILLSTREAM_PATTERN_CASES=n`.

mod reference;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use millstream::coordinator::command::{Connection, Response};
use millstream::coordinator::event_loop::Coordinator;
use millstream::storage::store::Store;
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use self::reference::Expected;
use super::time::{contains, difference, open_server, rows_of, setting};

/// Cases of a plain `cargo test`.
const CASES: u64 = 24;
/// Steps of one case.
const STEPS: u64 = 10;
/// Patterns of one case.
const PATTERNS: usize = 3;
/// Rows that patterns may keep when the watermark has passed all.
const ROWS_MAX: u64 = 7;
/// How far behind the newest row the watermark is.
const BEHIND_S: i64 = 6;

#[test]
fn a_stream_has_the_matches_of_a_batch() {
    let cases = setting("MILLSTREAM_CASES").unwrap_or(CASES);
    let (first, last) = match setting("MILLSTREAM_SEED") {
        Some(seed) => (seed, seed + 1),
        None => (0, cases),
    };
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= last {
                        return;
                    }
                    if let Err(failure) = runtime.block_on(run_case(seed)) {
                        panic!("######## seed {seed}\n{failure}");
                    }
                }
            });
        }
    });
}

/// Cases of a plain `cargo test` that are compared with the reference.
const REFERENCE_CASES: u64 = 400;

/// `MILLSTREAM_PATTERN_SEED=n` replays one case, `MILLSTREAM_PATTERN_CASES=n` sets how many.
#[test]
fn a_select_finds_what_the_definitions_say() {
    let cases = setting("MILLSTREAM_PATTERN_CASES").unwrap_or(REFERENCE_CASES);
    let failures_max = setting("MILLSTREAM_FAILURES").unwrap_or(1) as usize;
    let (first, last) = match setting("MILLSTREAM_PATTERN_SEED") {
        Some(seed) => (seed, seed + 1),
        None => (0, cases),
    };
    let next = AtomicU64::new(first);
    let failures = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
                let store = Store::over(Arc::new(InMemory::new()), "memory");
                let (coordinator, mut connection) = runtime.block_on(open_server(1, &store));
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= last || failures.lock().expect("no panic").len() >= failures_max {
                        break;
                    }
                    if let Err(failure) = runtime.block_on(compare_select(&mut connection, seed)) {
                        failures.lock().expect("no panic").push(failure);
                    }
                }
                drop(connection);
                coordinator.stop();
            });
        }
    });
    let failures = failures.into_inner().expect("no panic");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

async fn compare_select(connection: &mut Connection, seed: u64) -> Result<(), String> {
    let case = reference::draw(seed);
    let expected = case.expected();
    let sql = case.sql();
    let found = rows_of(connection, &sql).await;
    let wrong = match (expected, found) {
        (Expected::Unknown, _) => return Ok(()),
        (Expected::Rows(expected), Ok(found)) if found == expected => return Ok(()),
        (Expected::Rows(expected), Ok(found)) => difference(&found, &expected),
        (Expected::Error(states), Err(error)) if states.iter().any(|s| error.starts_with(s)) => {
            return Ok(());
        }
        (Expected::Error(states), found) => format!("not {states:?}: {found:?}"),
        (Expected::Rows(_), Err(error)) => error,
    };
    Err(format!("######## pattern seed {seed}\n{sql}\n{wrong}"))
}

/// What is wrong with a match itself is told with the place of the clause, if that is in the
/// statement.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_skip_has_a_place() {
    let store = Store::over(Arc::new(InMemory::new()), "memory");
    let (coordinator, mut connection) = open_server(1, &store).await;
    let clauses = |skip: &str| {
        format!(
            "MATCH_RECOGNIZE (ORDER BY i MEASURES a.i AS i AFTER MATCH SKIP TO {skip} \
             PATTERN (a b c?) DEFINE c AS false)"
        )
    };
    let rows = "generate_series(1, 3) AS g(i)";
    for (skip, sqlstate) in [("FIRST @a", "2202L"), ("@c", "2202K"), ("LAST @c", "2202K")] {
        let marked = format!("SELECT * FROM {rows} {}", clauses(skip));
        let place = marked.find('@').map(|place| place + 1);
        assert_eq!(failure_of(&mut connection, &marked.replace('@', "")).await, (sqlstate, place));
    }
    let view = format!("CREATE VIEW v AS SELECT * FROM {rows} {}", clauses("c"));
    rows_of(&mut connection, &view).await.expect("a view");
    assert_eq!(failure_of(&mut connection, "SELECT * FROM v").await, ("2202K", None));
    let prepare = format!("PREPARE p AS SELECT * FROM {rows} {}", clauses("c"));
    rows_of(&mut connection, &prepare).await.expect("a prepared statement");
    assert_eq!(failure_of(&mut connection, "EXECUTE p").await, ("2202K", None));
    let declare = format!("DECLARE d CURSOR WITH HOLD FOR SELECT * FROM {rows} {}", clauses("c"));
    rows_of(&mut connection, &declare).await.expect("a cursor");
    assert_eq!(failure_of(&mut connection, "FETCH ALL FROM d").await, ("2202K", None));
    drop(connection);
    tokio::task::spawn_blocking(move || coordinator.stop()).await.expect("it stops");
}

/// SQLSTATE and place of what is wrong with a SELECT while it runs.
async fn failure_of(connection: &mut Connection, sql: &str) -> (&'static str, Option<usize>) {
    let statement = connection.parse(sql).expect("it parses").remove(0);
    let prepared = connection.prepare(&statement, &[]).await.expect("it is planned");
    let response = match connection.execute(&prepared, &[]).await {
        Ok(response) => response,
        Err(error) => return (error.sqlstate().0, error.body().position),
    };
    let Response::Rows { mut rows, .. } = response else { panic!("{sql} gives rows") };
    while let Some(batch) = rows.next().await {
        if let Err(error) = batch {
            return (error.sqlstate().0, error.body().position);
        }
    }
    panic!("{sql} does not fail");
}

/// A view with the query that says what it should hold.
struct View {
    name: String,
    query: String,
    /// What it held last, if it never loses a row.
    held: Option<Vec<String>>,
}

struct Case {
    random: StdRng,
    coordinator: Coordinator,
    connection: Connection,
    store: Store,
    views: Vec<View>,
    next_id: i64,
    /// The newest time of the append-only table, in seconds.
    newest_s: i64,
    log: Vec<String>,
}

async fn run_case(seed: u64) -> Result<(), String> {
    let store = Store::over(Arc::new(InMemory::new()), "memory");
    let workers = 1 + (seed % 3) as usize;
    let (coordinator, connection) = open_server(workers, &store).await;
    let mut case = Case {
        random: StdRng::seed_from_u64(seed),
        coordinator,
        connection,
        store,
        views: Vec::new(),
        next_id: 0,
        newest_s: 0,
        log: vec![format!("-- {workers} worker(s)")],
    };
    let done = case.run_steps().await;
    let log = case.log.join(";\n");
    let coordinator = case.coordinator.clone();
    drop(case);
    tokio::task::spawn_blocking(move || coordinator.stop()).await.expect("it stops");
    done.map_err(|failure| format!("{failure}\nlog:\n{log};"))
}

impl Case {
    /// Runs a statement; its rows as sorted text.
    async fn run(&mut self, sql: &str) -> Result<Vec<String>, String> {
        rows_of(&mut self.connection, sql).await
    }

    async fn change(&mut self, sql: &str) -> Result<(), String> {
        self.log.push(sql.to_owned());
        self.run(sql).await.map(drop)
    }

    async fn run_steps(&mut self) -> Result<(), String> {
        self.change(&format!(
            "CREATE TABLE s (id int, p int, at timestamp, v int, \
             WATERMARK FOR at AS at - INTERVAL '{BEHIND_S} seconds') APPEND ONLY"
        ))
        .await?;
        self.change("CREATE TABLE t (id int PRIMARY KEY, p int, at timestamp, v int)").await?;
        self.change("CREATE TABLE w (x int, y int)").await?;
        // Some views begin over what is there, others over nothing.
        for _ in 0..PATTERNS {
            if self.random.random_bool(0.4) {
                self.feed().await?;
            }
            self.make_views().await?;
        }
        for step in 0..STEPS {
            self.feed().await?;
            if self.random.random_bool(0.25) {
                self.restart().await?;
            }
            self.compare(false).await.map_err(|failure| format!("step {step}: {failure}"))?;
        }
        // The watermark passes everything; its own row stands alone.
        self.change("INSERT INTO s VALUES (-1, 99, '2030-01-01', 0)").await?;
        self.compare(true).await.map_err(|failure| format!("at the end: {failure}"))
    }

    async fn make_views(&mut self) -> Result<(), String> {
        let number = self.views.len();
        let clauses = clauses(&mut self.random, true);
        let over_s = format!("SELECT * FROM s MATCH_RECOGNIZE ({clauses})");
        let mut made = vec![
            (format!("final{number}"), over_s.clone(), "", true),
            (format!("at_once{number}"), over_s, " EMIT ON UPDATE", false),
        ];
        // Each time of a partition has one row here, which changes until the watermark passes it.
        let sums = "(SELECT min(id) AS id, p, at, sum(v)::int % 5 AS v FROM s GROUP BY p, at) AS x";
        let over_sums = format!("SELECT * FROM {sums} MATCH_RECOGNIZE ({clauses})");
        if self.random.random_bool(0.5) {
            made.push((format!("sums_final{number}"), over_sums, "", true));
        } else {
            made.push((format!("sums_at_once{number}"), over_sums, " EMIT ON UPDATE", false));
        }
        let clauses = self::clauses(&mut self.random, false);
        let over_t = format!("SELECT * FROM t MATCH_RECOGNIZE ({clauses})");
        made.push((format!("changing{number}"), over_t, "", false));
        for (name, query, emit, is_final) in made {
            self.change(&format!("CREATE MATERIALIZED VIEW {name} AS {query}{emit}")).await?;
            self.views.push(View { name, query, held: is_final.then(Vec::new) });
        }
        Ok(())
    }

    /// Rows in any order around the watermark; changes of the other table.
    async fn feed(&mut self) -> Result<(), String> {
        for _ in 0..self.random.random_range(1..3) {
            let count = self.random.random_range(1..9);
            // The watermark goes on by small steps and by leaps.
            let reach = if self.random.random_bool(0.2) { 25 } else { 8 };
            let mut rows = Vec::new();
            for _ in 0..count {
                self.next_id += 1;
                let at_s = self.newest_s + self.random.random_range(-BEHIND_S - 3..reach);
                rows.push((self.next_id, at_s.max(0)));
            }
            // Of one statement the watermark moves behind all its rows.
            self.newest_s =
                rows.iter().map(|(_, at_s)| *at_s).max().unwrap_or(0).max(self.newest_s);
            let rows: Vec<String> = rows.iter().map(|(id, at_s)| self.row(*id, *at_s)).collect();
            self.change(&format!("INSERT INTO s VALUES {}", rows.join(", "))).await?;
        }
        if self.random.random_bool(0.3) {
            let (x, y) = (self.random.random_range(0..5), self.random.random_range(0..5));
            let statement = match self.random.random_bool(0.3) {
                true => format!("DELETE FROM w WHERE x = {x}"),
                false => format!("INSERT INTO w VALUES ({x}, {y})"),
            };
            self.change(&statement).await?;
        }
        let statement = match self.random.random_range(0..6) {
            0 => format!("DELETE FROM t WHERE id % 7 = {}", self.random.random_range(0..7)),
            1 => format!(
                "UPDATE t SET v = (v + 1) % 5 WHERE id % 5 = {}",
                self.random.random_range(0..5)
            ),
            2 => format!(
                "UPDATE t SET p = (p + 1) % 3 WHERE id % 11 = {}",
                self.random.random_range(0..11)
            ),
            _ => {
                let rows: Vec<String> = (0..self.random.random_range(1..10))
                    .map(|_| {
                        self.next_id += 1;
                        let at_s = self.random.random_range(0..60);
                        self.row(self.next_id, at_s)
                    })
                    .collect();
                format!("INSERT INTO t VALUES {}", rows.join(", "))
            }
        };
        self.change(&statement).await
    }

    fn row(&mut self, id: i64, at_s: i64) -> String {
        let (p, v) = (self.random.random_range(0..3), self.random.random_range(0..5));
        let (minute, second) = (at_s / 60, at_s % 60);
        let (hour, minute) = (10 + minute / 60, minute % 60);
        format!("({id}, {p}, '2026-01-01 {hour:02}:{minute:02}:{second:02}', {v})")
    }

    /// Ends the server and starts another over what it left.
    async fn restart(&mut self) -> Result<(), String> {
        if self.random.random_bool(0.7) {
            self.change("CHECKPOINT").await?;
            if self.random.random_bool(0.5) {
                self.feed().await?;
            }
        }
        let workers = self.random.random_range(1..=3);
        self.log.push(format!("-- a restart on {workers} worker(s)"));
        let coordinator = self.coordinator.clone();
        tokio::task::spawn_blocking(move || coordinator.stop()).await.expect("it stops");
        (self.coordinator, self.connection) = open_server(workers, &self.store).await;
        Ok(())
    }

    async fn compare(&mut self, at_end: bool) -> Result<(), String> {
        let mut views = std::mem::take(&mut self.views);
        for view in &mut views {
            let View { name, query, held } = view;
            // The last row's partition has no time behind it.
            let over = if at_end { " AS q WHERE p < 90" } else { "" };
            let found = self.run(&format!("SELECT * FROM {name}{over}")).await?;
            if let Some(held) = held {
                if !contains(&found, held) {
                    return Err(format!("{name} lost rows: {query}\n{}", difference(&found, held)));
                }
                held.clone_from(&found);
            }
            if held.is_none() || at_end {
                let batch =
                    if at_end { format!("SELECT * FROM ({query}){over}") } else { query.clone() };
                let expected = self.run(&batch).await?;
                if found != expected {
                    let differing = difference(&found, &expected);
                    return Err(format!("{name}: {query}\n{differing}"));
                }
            }
            if at_end && (held.is_some() || name.contains("at_once")) {
                let sql = format!(
                    "SELECT coalesce(sum(state_rows), 0) FROM millstream.operators \
                     WHERE view = '{name}' AND description LIKE 'MatchRecognize%'"
                );
                let kept = self.run(&sql).await?;
                // The last row, and of three partitions two that PREV may look at.
                let few = kept.first().and_then(|n| n.parse::<u64>().ok());
                if few.is_none_or(|rows| rows > ROWS_MAX) {
                    return Err(format!("{name} keeps {kept:?} rows: {query}"));
                }
            }
        }
        self.views = views;
        Ok(())
    }
}

/// What stands in the parentheses of MATCH_RECOGNIZE. `in_time`: all is decided when the watermark
/// has passed everything, so nothing asks for the partition's end or the row behind the last.
fn clauses(random: &mut StdRng, in_time: bool) -> String {
    let pick =
        |random: &mut StdRng, list: &[&'static str]| *list.choose(random).expect("not empty");
    let mut conditions = vec![
        "v = 0",
        "v < 3",
        "v > PREV(v)",
        "v <= PREV(v, 2)",
        "v >= FIRST(v)",
        "v <> LAST(a.v, 1) OR LAST(a.v, 1) IS NULL",
        "sum(b.v) < 7 OR sum(b.v) IS NULL",
        "count(*) < 5",
        "count(DISTINCT u.v) < 4",
        "v + LAST(b.v) > 3 OR LAST(b.v) IS NULL",
        "coalesce(LAST(CLASSIFIER(), 1), 'a') <> 'c'",
        "at < FIRST(at) + INTERVAL '5 seconds'",
    ];
    if !in_time {
        conditions.extend([
            "v > NEXT(v)",
            "v IN (SELECT x FROM w)",
            "EXISTS (SELECT 1 FROM w WHERE x = b.v)",
            "(SELECT max(y) FROM w WHERE x = v) > 2",
        ]);
    }
    let mut measures = vec![
        "FIRST(id) AS f",
        "LAST(id) AS l",
        "count(*) AS n",
        "string_agg(CLASSIFIER(), '') AS c",
        "MATCH_NUMBER() AS m",
        "sum(b.v) AS s",
        "PREV(FIRST(v)) AS before",
        "array_agg(u.v)::text AS us",
        "array_agg(DISTINCT u.v ORDER BY u.v DESC)::text AS ud",
        "count(u.*) FILTER (WHERE CLASSIFIER(u) = 'a' AND u.v > 1) AS uc",
        "FIRST(CLASSIFIER(u)) AS fu",
        "MATCH_WAITED_FOR() AS w",
        "MATCH_ROWTIME() AS rt",
    ];
    if !in_time {
        // Of what the partition's end leaves, event time says that its time is over.
        measures.extend([
            "NEXT(LAST(v)) AS behind",
            "MATCH_STATE() AS state",
            "MATCH_TIMED_OUT() AS late",
        ]);
    }
    let mut chosen: Vec<&str> = Vec::new();
    while chosen.len() < 4 {
        let one = pick(random, &measures);
        if !chosen.contains(&one) {
            chosen.push(one);
        }
    }
    let mut pattern = loop {
        let pattern = pattern(random, 3, in_time);
        // DEFINE and SUBSET name them all.
        if ["a", "b", "c"].iter().all(|name| pattern.contains(name)) {
            break pattern;
        }
    };
    if random.random_bool(0.15) {
        pattern.push_str(pick(random, &[" NOT a", " NOT b NOT c"]));
    }
    let mut rows = pick(
        random,
        &[
            "ONE ROW PER MATCH",
            "ONE ROW PER MATCH",
            "ALL ROWS PER MATCH",
            "ALL ROWS PER MATCH OMIT EMPTY MATCHES",
            "ALL ROWS PER MATCH WITH UNMATCHED ROWS",
        ],
    );
    if pattern.contains("{-") && rows.ends_with("UNMATCHED ROWS") {
        rows = "ALL ROWS PER MATCH";
    }
    let skip = pick(random, &["PAST LAST ROW", "PAST LAST ROW", "TO NEXT ROW"]);
    let contiguity = pick(random, &["", "", "", "RELAXED ", "RELAXED ANY "]);
    let within = match in_time || random.random_bool(0.5) {
        true => pick(random, &[" WITHIN INTERVAL '4' SECOND", " WITHIN INTERVAL '15' SECOND"]),
        false => "",
    };
    let emit = match within {
        "" => pick(random, &["", "", " EMIT PARTIAL MATCHES"]),
        _ => pick(
            random,
            &[
                "",
                "",
                " EMIT TIMEOUT ROWS",
                " EMIT PARTIAL MATCHES",
                " EMIT PARTIAL MATCHES EMIT TIMEOUT ROWS",
            ],
        ),
    };
    // Rows that sort alike have an order, too.
    let order = pick(random, &["at, id", "at, id", "at"]);
    let mut defines: Vec<String> = Vec::new();
    for name in ["a", "b", "c"] {
        if random.random_bool(0.8) {
            defines.push(format!("{name} AS {}", pick(random, &conditions)));
        }
    }
    let define = match defines.is_empty() {
        true => String::new(),
        false => format!(" DEFINE {}", defines.join(", ")),
    };
    format!(
        "PARTITION BY p ORDER BY {order} MEASURES {} {rows} AFTER MATCH SKIP {skip} \
         PATTERN {contiguity}({pattern}){within}{emit} SUBSET u = (a, b){define}",
        chosen.join(", ")
    )
}

fn pattern(random: &mut StdRng, depth: u32, in_time: bool) -> String {
    let items = |random: &mut StdRng, between: &str| {
        let count = random.random_range(2..4);
        let items: Vec<String> = (0..count).map(|_| pattern(random, depth - 1, in_time)).collect();
        items.join(between)
    };
    if depth == 0 {
        return match random.random_range(0..22) {
            20 => "{- b -}".to_owned(),
            21 => ["NOT a b", "NOT c a", "NOT b c"].choose(random).expect("not empty").to_string(),
            0 if !in_time => "$".to_owned(),
            1 => "^".to_owned(),
            n => ["a", "b", "c"][n % 3].to_owned(),
        };
    }
    match random.random_range(0..10) {
        0..=3 => format!("({})", items(random, " ")),
        4 | 5 => format!("({})", items(random, " | ")),
        6 => format!("PERMUTE({})", items(random, ", ")),
        7 => pattern(random, 0, in_time),
        _ => {
            let quantifiers = ["*", "+", "?", "{2}", "{1,3}", "{2,}", "*?", "+?", "??"];
            let quantifier = quantifiers.choose(random).expect("not empty");
            // An anchor is not repeated.
            let inner = loop {
                let inner = pattern(random, depth - 1, in_time);
                if inner.contains(['a', 'b', 'c']) {
                    break inner;
                }
            };
            format!("({inner}){quantifier}")
        }
    }
}
