//! Servers over a store whose faults follow from a seed (`storage/seeded_store.rs`): a client that
//! waits for each answer, crashes at writes that the seed chooses, restarts with other numbers of
//! workers. What was acknowledged is there, what was refused is not, what was in doubt is there as
//! a whole or not at all, money neither comes nor goes, views are their queries, a finished source
//! counts once, the past is what it was, and targets of sinks, which fail too, have every result
//! once: at each moment as of some moment before, and all of it when the server has come to rest.
//!
//! `MILLSTREAM_SEEDS=10000 cargo test --release --lib faulty_store` runs longer;
//! `MILLSTREAM_SEED=n MILLSTREAM_SEEDS=1` runs one seed, `MILLSTREAM_PARALLEL` says how many run
//! beside each other. Nothing waits for long: pauses between attempts are milliseconds in tests.
//! The same seed gives the same statements, and to each attempt at an object the same fate, which a
//! test shows; how often a checkpoint is tried meanwhile is the machine's pace.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::durability::{PATIENCE, Running};
use super::*;
use crate::connectors::sink::trial::Trial;
use crate::coordinator::recovery::open;
use crate::storage::seeded_store::{Death, SeededStore};

/// Times that a server may be started, or a statement be refused, before something is wrong.
const STARTS_MAX: usize = 60;
const ACCOUNTS: i64 = 5;
/// Rows of the source.
const NUMBERS: i64 = 500;

/// What the tables must show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    balances: BTreeMap<i64, i64>,
    ledger: Vec<i64>,
    notes: BTreeMap<i64, String>,
    /// Tables that come and go, with the number of their rows.
    extras: BTreeMap<String, usize>,
    savepoints: Vec<String>,
}

/// A statement, and what it makes of the tables.
struct Step {
    sql: String,
    after: Model,
    /// It says only whether it worked: its effect is not in the tables.
    harmless: bool,
}

const VIEWS: [(&str, &str); 4] = [
    ("total", "SELECT sum(balance)::bigint AS s, count(*) AS n FROM accounts"),
    ("rich", "SELECT id, balance FROM accounts WHERE balance >= 100"),
    ("noted", "SELECT n.id, n.label, a.balance FROM notes n JOIN accounts a ON a.id = n.id % 5"),
    ("labels", "SELECT label, count(*) AS n, max(id) AS m FROM notes GROUP BY label"),
];

/// Sinks, and what their targets have when all is done.
const SINKS: [(&str, &str, &str); 3] = [
    ("money", "FROM accounts", "SELECT id, balance FROM accounts"),
    ("joined", "FROM noted", "SELECT id, label, balance FROM noted"),
    ("lines", "AS SELECT n FROM ledger", "SELECT n FROM ledger"),
];

/// How many scenarios there have been.
static SCENARIOS: AtomicUsize = AtomicUsize::new(0);

/// An epoch, and the balances in it.
type Past = (u64, BTreeMap<i64, i64>);

/// Everything of one seed.
struct Scenario {
    /// Tells its targets from those of others: tests that run beside each other have equal seeds.
    number: usize,
    /// What sinks write to, by their names.
    targets: BTreeMap<&'static str, Arc<Trial>>,
    /// Of the life that goes on.
    past: Vec<Past>,
    random: StdRng,
    store: SeededStore,
    cheap_bytes: bool,
    source: bool,
    per_mille: u64,
    model: Model,
    transfers: i64,
    names: i64,
    /// Statements and their answers.
    seen: Vec<String>,
    seed: u64,
}

impl Scenario {
    fn new(seed: u64, source: bool) -> Scenario {
        let mut random = StdRng::seed_from_u64(seed);
        let per_mille = [5, 30, 80][random.random_range(0..3)];
        let of_source = source.then_some("numbers");
        let names = SINKS.iter().map(|(name, ..)| *name).chain(of_source);
        let number = SCENARIOS.fetch_add(1, Ordering::Relaxed);
        let target = |name: &'static str| (name, Trial::named(&format!("{name} {number}"), vec![]));
        Scenario {
            number,
            targets: names.map(target).collect(),
            past: Vec::new(),
            store: SeededStore::new(seed),
            cheap_bytes: random.random_bool(0.5),
            source,
            per_mille,
            model: Model::default(),
            transfers: 0,
            names: 0,
            seen: Vec::new(),
            seed,
            random,
        }
    }

    /// A server, however often it takes. Only what may happen to a store that fails is a reason
    /// for another attempt.
    async fn start(&mut self) -> Running {
        let workers = self.random.random_range(1..4);
        let mut refused = BTreeMap::<String, usize>::new();
        for _ in 0..STARTS_MAX {
            let config = CoordinatorConfig {
                workers,
                epoch_interval_max: Duration::from_millis(10),
                lock_timeout: Duration::from_secs(10),
                history: HistoryConfig::default(),
                memory: crate::coordinator::memory::state_memory(&std::env::temp_dir()),
            };
            let stale_before = self.store.stale_lists();
            let store = self.store.store(self.cheap_bytes);
            // Checkpoints come when they are asked for.
            let hour = Duration::from_secs(3600);
            let clock = Clock::system();
            match open(config, clock.clone(), store, hour).await {
                Ok(coordinator) => {
                    let database = Database::new(coordinator.clone(), clock).expect("has threads");
                    return Running { database, coordinator };
                }
                Err(error) => {
                    let of_store = ["53100", "58030", "42501"].contains(&error.sqlstate().0);
                    let stale = self.store.stale_lists() > stale_before;
                    assert!(of_store || stale, "seed {}: a start fails: {error}", self.seed);
                    *refused.entry(error.to_string()).or_default() += 1;
                }
            }
        }
        panic!("seed {}: the server does not start: {refused:#?}", self.seed)
    }

    fn step(&mut self) -> Step {
        let mut after = self.model.clone();
        let mut harmless = false;
        let sql = match self.random.random_range(0..12) {
            0..4 => {
                self.transfers += 1;
                let n = self.transfers;
                let from = self.random.random_range(0..ACCOUNTS);
                let to = self.random.random_range(0..ACCOUNTS);
                let amount = self.random.random_range(1..20);
                *after.balances.get_mut(&from).expect("there") -= amount;
                *after.balances.get_mut(&to).expect("there") += amount;
                after.ledger.push(n);
                format!(
                    "BEGIN; UPDATE accounts SET balance = balance - {amount} WHERE id = {from}; \
                     UPDATE accounts SET balance = balance + {amount} WHERE id = {to}; \
                     INSERT INTO ledger VALUES ({n}); COMMIT"
                )
            }
            4..6 => {
                self.names += 1;
                let label = format!("note {}", self.names % 4);
                after.notes.insert(self.names, label.clone());
                format!("INSERT INTO notes VALUES ({}, '{label}')", self.names)
            }
            6 if !after.notes.is_empty() => {
                let at = self.random.random_range(0..after.notes.len());
                let id = *after.notes.keys().nth(at).expect("counted");
                match self.random.random_bool(0.5) {
                    true => {
                        after.notes.remove(&id);
                        format!("DELETE FROM notes WHERE id = {id}")
                    }
                    false => {
                        after.notes.insert(id, "changed".into());
                        format!("UPDATE notes SET label = 'changed' WHERE id = {id}")
                    }
                }
            }
            7 => {
                self.names += 1;
                let name = format!("extra{}", self.names);
                after.extras.insert(name.clone(), after.notes.len());
                format!("CREATE TABLE {name} AS SELECT * FROM notes")
            }
            8 if !after.extras.is_empty() => {
                let name = after.extras.pop_first().expect("one is there").0;
                format!("DROP TABLE {name}")
            }
            9 if after.savepoints.len() < 2 => {
                self.names += 1;
                let name = format!("s{}", self.names);
                after.savepoints.push(name.clone());
                after.savepoints.sort();
                format!("CREATE SAVEPOINT {name}")
            }
            _ => {
                harmless = true;
                "CHECKPOINT".to_owned()
            }
        };
        Step { sql, after, harmless }
    }

    /// What a server shows.
    async fn shown(&self, connection: &mut Connection) -> Model {
        let mut model = Model::default();
        let pairs = |out: String| -> Vec<(i64, String)> {
            let row = |line: &str| line.split_once(" | ").map(|(a, b)| (a.parse(), b.to_owned()));
            out.lines().filter_map(row).map(|(a, b)| (a.expect("a number"), b)).collect()
        };
        let numbers = |out: String| -> Vec<i64> { out.lines().flat_map(str::parse).collect() };
        for (id, balance) in pairs(run(connection, "SELECT * FROM accounts ORDER BY id").await) {
            model.balances.insert(id, balance.parse().expect("a number"));
        }
        model.ledger = numbers(run(connection, "SELECT n FROM ledger ORDER BY n").await);
        model.notes = pairs(run(connection, "SELECT * FROM notes").await).into_iter().collect();
        let tables = run(connection, "SHOW TABLES").await;
        for name in tables.lines().filter(|line| line.starts_with("extra")) {
            let count = run(connection, &format!("SELECT count(*) FROM {name}")).await;
            model.extras.insert(name.to_owned(), numbers(count)[0] as usize);
        }
        let savepoints = run(connection, "SHOW SAVEPOINTS").await;
        let name = |line: &str| line.split(" | ").next().map(str::to_owned);
        model.savepoints =
            savepoints.lines().filter(|line| line.contains(" | ")).filter_map(name).collect();
        model.savepoints.sort();
        model
    }

    /// Views are their queries, and nothing of the source counts twice.
    async fn check_views(&self, connection: &mut Connection, context: &str) {
        for (view, query) in VIEWS {
            let (shown, batch) = (
                run(connection, &format!("SELECT * FROM {view}")).await,
                run(connection, query).await,
            );
            let sorted = |out: &str| {
                let mut lines: Vec<String> = out.lines().map(str::to_owned).collect();
                lines.sort();
                lines
            };
            assert_eq!(sorted(&shown), sorted(&batch), "{context}: {view}");
        }
        if self.source {
            let out = run(connection, "SELECT n, s, hi FROM numbers_seen").await;
            let row: Vec<i64> = out
                .lines()
                .next()
                .into_iter()
                .flat_map(|l| l.split(" | "))
                .flat_map(str::parse)
                .collect();
            if let [n, sum, most] = row[..] {
                assert!(n == most && sum == n * (n + 1) / 2, "{context}: the source: {out}");
            }
        }
    }

    /// Targets have what there was at some moment: never a part of a transfer, never too much.
    fn check_targets(&self, context: &str) {
        let money = self.targets["money"].content();
        let balance = |row: &String| row.split('|').nth(1).and_then(|b| b.parse::<i64>().ok());
        let sum: i64 = money.iter().map(|row| balance(row).expect("a balance")).sum();
        let whole = money.is_empty() || (money.len() as i64, sum) == (ACCOUNTS, ACCOUNTS * 100);
        assert!(whole, "{context}: the target has {money:?}");
        let numbers = |target: &Arc<Trial>| -> Vec<i64> {
            let rows = target.content();
            let mut numbers: Vec<i64> = rows.iter().map(|n| n.parse().expect("a number")).collect();
            numbers.sort_unstable();
            numbers
        };
        let lines = numbers(&self.targets["lines"]);
        assert!(
            lines.is_sorted_by(|a, b| a < b),
            "{context}: transfers are there twice: {lines:?}"
        );
        let of_source = self.targets.get("numbers").map(numbers).unwrap_or_default();
        let once = (1..).zip(&of_source).all(|(n, found)| n == *found);
        assert!(once, "{context}: of the source the target has {of_source:?}");
    }

    /// Waits until targets have everything, and looks whether they have it once. No faults are set.
    async fn check_settled_targets(&self, connection: &mut Connection, context: &str) {
        let pending = "SELECT coalesce(sum(pending_rows), 0)::bigint FROM millstream.sinks";
        let settled = tokio::time::timeout(PATIENCE, async {
            loop {
                let out = run(connection, "CHECKPOINT").await;
                assert_eq!(out, "CHECKPOINT\n", "{context}");
                if run(connection, pending).await.starts_with("0\n") {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        let ended = settled.await.is_ok();
        assert!(ended, "{context}: {}", run(connection, "SELECT * FROM millstream.sinks").await);
        for (name, _, query) in SINKS {
            let out = run(connection, query).await;
            let mut rows: Vec<String> = out
                .lines()
                .filter(|l| !l.starts_with("SELECT"))
                .map(|l| l.replace(" | ", "|"))
                .collect();
            rows.sort_unstable();
            let content = self.targets[name].content();
            assert_eq!(content, rows, "{context}: the target of {name}: {:#?}", self.seen);
        }
        self.check_targets(context);
    }

    /// Notes what the tables have in the newest epoch.
    async fn note_past(&mut self, connection: &mut Connection) {
        // A read closes the epoch that has the last write.
        run(connection, "SELECT s FROM total").await;
        let newest = "SELECT max(epoch) FROM millstream.epochs";
        let out = run(connection, newest).await;
        if let Some(epoch) = out.lines().next().and_then(|line| line.parse().ok()) {
            self.past.push((epoch, self.model.balances.clone()));
        }
    }

    /// Every epoch that was noted is as it was.
    async fn check_past(&self, connection: &mut Connection, context: &str) {
        for (epoch, balances) in &self.past {
            let accounts =
                format!("SELECT * FROM accounts FOR SYSTEM_TIME AS OF {epoch} ORDER BY id");
            let mut expected: String =
                balances.iter().map(|(id, balance)| format!("{id} | {balance}\n")).collect();
            expected += &format!("SELECT {}\n", balances.len());
            assert_eq!(run(connection, &accounts).await, expected, "{context}: epoch {epoch}");
            let total = format!("SELECT s, n FROM total FOR SYSTEM_TIME AS OF {epoch}");
            let whole = format!("{} | {ACCOUNTS}\nSELECT 1\n", ACCOUNTS * 100);
            assert_eq!(run(connection, &total).await, whole, "{context}: epoch {epoch}");
        }
    }

    async fn set_up(&mut self, connection: &mut Connection) {
        let mut script = "
            CREATE TABLE accounts (id bigint PRIMARY KEY, balance bigint)
            CREATE TABLE ledger (n bigint PRIMARY KEY)
            CREATE TABLE notes (id bigint PRIMARY KEY, label text)
            INSERT INTO accounts SELECT g, 100 FROM generate_series(0, 4) g(g)
        "
        .to_owned();
        for (view, query) in VIEWS {
            script += &format!("CREATE MATERIALIZED VIEW {view} AS {query}\n");
        }
        if self.source {
            script += &format!(
                "CREATE SOURCE numbers (n bigint) WITH (connector = 'datagen', rate = 5000, \
                 \"fields.n.kind\" = 'sequence', \"fields.n.start\" = '1', \
                 \"fields.n.end\" = '{NUMBERS}')\n\
                 CREATE MATERIALIZED VIEW numbers_seen AS \
                 SELECT count(*) AS n, sum(n)::bigint AS s, max(n) AS hi FROM numbers\n"
            );
        }
        let of_source = self.source.then_some(("numbers", "AS SELECT n FROM numbers", ""));
        let number = self.number;
        for (name, from, _) in SINKS.into_iter().chain(of_source) {
            script += &format!(
                "CREATE SINK {name}_there {from} WITH (connector = 'trial', \
                 target = '{name} {number}')\n"
            );
        }
        let out = run(connection, &script).await;
        assert!(!out.contains(": "), "seed {}: {out}", self.seed);
        self.model.balances = (0..ACCOUNTS).map(|id| (id, 100)).collect();
    }

    /// Runs a step until it is done; false when the store has died meanwhile.
    async fn take(&mut self, connection: &mut Connection, step: &Step) -> bool {
        for _ in 0..STARTS_MAX {
            let out = tokio::select! {
                biased;
                out = run(connection, &step.sql) => out,
                () = self.store.died() => return false,
            };
            self.seen.push(format!("{}: {out}", step.sql));
            if !out.contains(": ") {
                return true;
            }
            let state = &out[..5];
            let context = format!("seed {}: {}: {out}", self.seed, step.sql);
            if self.store.is_dead() {
                return false;
            }
            assert!(["53100", "58030", "42501"].contains(&state), "{context}");
            run(connection, "ROLLBACK").await;
            // What was refused has not happened.
            let settle = tokio::time::timeout(PATIENCE, run(connection, "CHECKPOINT"));
            tokio::select! {
                biased;
                out = settle => drop(out.expect("ends")),
                () = self.store.died() => return false,
            }
        }
        panic!("seed {}: {} is refused again and again", self.seed, step.sql)
    }

    async fn life(&mut self, number: usize) {
        let server = self.start().await;
        let mut connection = connect(&server.database).await;
        let context = format!("seed {}, life {number}", self.seed);
        if number == 0 {
            self.set_up(&mut connection).await;
        }
        self.store.set_faults(self.per_mille);
        for target in self.targets.values() {
            target.fail(self.seed, self.per_mille as f64 / 1000.0);
        }
        self.past.clear();
        let death = Death {
            folder: ["log", "manifest", "state", "tables"][self.random.random_range(0..4)],
            write: self.random.random_range(1..8),
        };
        self.store.set_death(self.random.random_bool(0.8).then_some(death));
        let steps = self.random.random_range(4..12);
        let mut in_doubt = None;
        for _ in 0..steps {
            let step = self.step();
            if !self.take(&mut connection, &step).await {
                in_doubt = (!step.harmless).then_some(step.after);
                break;
            }
            self.model = step.after;
            self.check_targets(&context);
            if self.random.random_bool(0.3) {
                let store = self.store.clone();
                tokio::select! {
                    biased;
                    () = self.note_past(&mut connection) => {}
                    () = store.died() => break,
                }
            }
        }
        if !self.store.is_dead() {
            self.store.set_death(None);
            self.store.set_faults(0);
            self.check_views(&mut connection, &context).await;
            self.check_past(&mut connection, &context).await;
            let (shown, model) = (self.shown(&mut connection).await, self.model.clone());
            assert_eq!(shown, model, "{context}");
        }
        drop(connection);
        server.stop().await;
        self.check_targets(&format!("{context}, torn away"));
        self.store.revive().await;
        // The next start has faults of its own.
        self.store.set_faults(self.per_mille / 2);
        let server = self.start().await;
        self.store.set_faults(0);
        let mut connection = connect(&server.database).await;
        let shown = self.shown(&mut connection).await;
        let as_expected = shown == self.model || in_doubt.as_ref() == Some(&shown);
        assert!(
            as_expected,
            "{context}, after it:\n{shown:?}\ninstead of\n{:?}\nor {in_doubt:?}\n{:#?}",
            self.model, self.seen
        );
        self.model = shown;
        assert_eq!(self.model.balances.values().sum::<i64>(), ACCOUNTS * 100, "{context}");
        let context = format!("{context}, after it");
        self.check_views(&mut connection, &context).await;
        self.targets.values().for_each(|target| target.fail(self.seed, 0.0));
        self.check_settled_targets(&mut connection, &context).await;
        self.store.set_faults(self.per_mille / 2);
        drop(connection);
        server.stop().await;
    }

    async fn run(&mut self) {
        for number in 0..self.random.random_range(1..4) {
            self.life(number).await;
        }
        if self.source {
            self.store.set_faults(0);
            let server = self.start().await;
            let mut connection = connect(&server.database).await;
            let flushed = tokio::time::timeout(PATIENCE, run(&mut connection, "FLUSH")).await;
            assert_eq!(flushed.expect("in time"), "FLUSH\n");
            let out = run(&mut connection, "SELECT n, s FROM numbers_seen").await;
            let sum = NUMBERS * (NUMBERS + 1) / 2;
            assert_eq!(out, format!("{NUMBERS} | {sum}\nSELECT 1\n"), "seed {}", self.seed);
            let context = format!("seed {}, at the end", self.seed);
            self.check_settled_targets(&mut connection, &context).await;
            let there = self.targets["numbers"].content().len() as i64;
            assert_eq!(there, NUMBERS, "{context}: the target of the source");
            drop(connection);
            server.stop().await;
        }
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_store_loses_nothing_and_doubles_nothing() {
    let first = variable("MILLSTREAM_SEED").unwrap_or(0);
    let seeds = first..first + variable("MILLSTREAM_SEEDS").unwrap_or(16);
    let parallel = variable("MILLSTREAM_PARALLEL").unwrap_or(4).max(1) as usize;
    let runs = seeds.map(|seed| async move {
        let mut scenario = Box::new(Scenario::new(seed, seed % 4 == 3));
        let done = tokio::time::timeout(PATIENCE * 3, scenario.run()).await;
        if done.is_err() {
            // Threads that wait for ever cannot be ended: the test would not end either.
            eprintln!("seed {seed} does not come to an end: {:#?}", scenario.seen);
            std::process::abort();
        }
    });
    futures::stream::iter(runs).buffer_unordered(parallel).collect::<()>().await;
}

#[tokio::test]
async fn a_seed_decides_what_becomes_of_each_attempt() {
    let mut traces = Vec::new();
    for seed in [1, 1, 5] {
        let seeded = SeededStore::new(seed);
        seeded.set_faults(100);
        let store = seeded.store(false);
        for number in 0..60 {
            // Whether it is told that it worked is the seed's, too.
            let path = object_store::path::Path::from(format!("log/{:020}", number % 40));
            let _ = store.put_new(&path, bytes::Bytes::from("rows")).await;
        }
        traces.push(seeded.trace());
    }
    assert_eq!(traces[0], traces[1]);
    assert_ne!(traces[0], traces[2]);
    let fine = traces[0].iter().filter(|told| told.contains(" Fine@")).count();
    assert!((10..60).contains(&fine), "{:?}", traces[0]);
}

/// What becomes of each attempt at an object, in order, with the rate of faults then.
fn fates(trace: &[String]) -> BTreeMap<&str, Vec<(&str, &str)>> {
    let mut fates: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for entry in trace {
        let (operation, fate) = entry.rsplit_once(' ').expect("an operation and its fate");
        fates.entry(operation).or_default().push(fate.split_once('@').expect("with its rate"));
    }
    fates
}

/// Of two runs of a scenario, what both have tried has met the same fate. How often a checkpoint is
/// tried, and beside which statements, is the machine's pace.
#[tokio::test(flavor = "multi_thread")]
async fn a_seed_of_the_faulty_store_replays() {
    for seed in [1, 5] {
        let mut traces = Vec::new();
        for _ in 0..2 {
            let mut scenario = Scenario::new(seed, false);
            scenario.run().await;
            traces.push(scenario.store.trace());
        }
        let (first, second) = (fates(&traces[0]), fates(&traces[1]));
        let mut compared = 0;
        for (operation, fates) in &first {
            let others = second.get(operation).into_iter().flatten();
            for ((fate, rate), (other, other_rate)) in fates.iter().zip(others) {
                if rate == other_rate {
                    assert_eq!(fate, other, "seed {seed}: {operation}");
                    compared += 1;
                }
            }
        }
        assert!(compared > 10, "seed {seed}: {:?}", traces[0]);
    }
}
