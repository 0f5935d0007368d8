//! The random half of the oracle: queries of the whole grammar over random tables, while random
//! changes come in; after every commit each view must hold what its query gives as a batch.
//!
//! | file | owns |
//! |---|---|
//! | `tree.rs` | SQL text that can be made smaller |
//! | `expression.rs` | types, operators, functions, aggregates, windows |
//! | `query.rs` | queries |
//! | `changes.rs` | tables, rows, commits, whole cases |
//! | `scenario.rs` | running a case, comparing, printing it as an slt file |
//! | `shrink.rs` | making a failing case small |
//! | `postgres.rs` | the same case on a real Postgres, as a second opinion |
//!
//! A failure prints its seed and the smallest case found, as an slt file.
//! `MILLSTREAM_SEED=n cargo test --test sql_tests oracle::random` replays one case alone.
//! `MILLSTREAM_EPOCHS=n` sets how many epochs are tried in place of [`EPOCHS`], from the seed
//! `MILLSTREAM_FROM` on; `MILLSTREAM_FAILURES=n` goes on after so many failures.

#![expect(clippy::print_stdout, reason = "seeds and failing cases are for people")]

mod changes;
mod expression;
mod postgres;
mod query;
mod scenario;
mod shrink;
mod tree;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::SeedableRng;
use rand::rngs::StdRng;

use self::changes::Size;
use self::expression::{Generator, Grammar};
use self::scenario::{Kind, Scenario, Tally};

/// Epochs tried by a plain `cargo test`.
const EPOCHS: u64 = 600;
const SIZE: Size = Size { views: 8, epochs: 15, depth: 3 };

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

fn case(seed: u64, grammar: Grammar) -> Scenario {
    let mut generator = Generator {
        random: StdRng::seed_from_u64(seed),
        grammar,
        relations: Vec::new(),
        next_alias: 0,
        next_group: 0,
    };
    generator.scenario(1 + (seed % 3) as usize, SIZE)
}

#[test]
fn random_views_equal_their_queries_at_every_epoch() {
    run_cases(Grammar::Ours, EPOCHS, None);
}

#[test]
#[ignore = "needs a Postgres 15: see oracle/random/postgres.rs"]
fn postgres_agrees_with_random_views() {
    let address = std::env::var("MILLSTREAM_POSTGRES").expect("MILLSTREAM_POSTGRES says where");
    run_cases(Grammar::Postgres, EPOCHS, Some(&address));
}

/// Runs cases on as many threads as there are cores, and fails with what they found.
fn run_cases(grammar: Grammar, epochs: u64, postgres: Option<&str>) {
    let epochs = setting("MILLSTREAM_EPOCHS").unwrap_or(epochs);
    let from = setting("MILLSTREAM_FROM").unwrap_or(0);
    let failures_max = setting("MILLSTREAM_FAILURES").unwrap_or(1);
    let (first, last) = match setting("MILLSTREAM_SEED") {
        Some(seed) => (seed, seed + 1),
        None => (from, from + epochs.div_ceil(SIZE.epochs as u64)),
    };
    let next = AtomicU64::new(first);
    let total = Mutex::new(Tally::default());
    let failures = Mutex::new(Vec::new());
    let known = Mutex::new(BTreeSet::new());
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads.min((last - first) as usize) {
            scope.spawn(|| {
                let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let found = failures.lock().expect("no test panics with it").len() as u64;
                    if seed >= last || found >= failures_max {
                        return;
                    }
                    let (tally, failure) =
                        runtime.block_on(try_case(case(seed, grammar), seed, postgres, &known));
                    total.lock().expect("no test panics with it").add(tally);
                    failures.lock().expect("no test panics with it").extend(failure);
                }
            });
        }
    });
    let total = total.into_inner().expect("no test panics with it");
    println!("{total:#?}");
    let failures = failures.into_inner().expect("no test panics with it");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Runs one case; a failure as text, if it is not as one before: messages tell, where there is one.
async fn try_case(
    scenario: Scenario,
    seed: u64,
    postgres: Option<&str>,
    known: &Mutex<BTreeSet<String>>,
) -> (Tally, Option<String>) {
    let (tally, failure) = scenario::run(&scenario, postgres).await;
    let Some(failure) = failure else { return (tally, None) };
    println!("seed {seed}: {:?} in {}, step {}", failure.kind, failure.view, failure.step);
    if !matches!(failure.kind, Kind::Differs | Kind::Disagrees) {
        let message = failure.text.lines().last().unwrap_or_default();
        println!("  {message}");
        let digits = |c: char| c.is_ascii_digit();
        let message = format!("{:?} {}", failure.kind, message.replace(digits, ""));
        if !known.lock().expect("no test panics with it").insert(message) {
            return (tally, None);
        }
    }
    let (scenario, failure) = shrink::shrink(scenario, failure, postgres).await;
    (tally, Some(format!("\n######## seed {seed}\n{}", scenario.slt(&failure))))
}
