use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::dataflow::script::{self, Driven, batch as rows, schema};

const COLUMNS: &str = "k bigint, v bigint, at timestamp";
const GAP_US: i64 = 10;

fn spec() -> SessionSpec {
    SessionSpec {
        partition: vec![0],
        time: 2,
        gap: EventDuration(GAP_US),
        bound: Some(TimeBound::of_watermark(2)),
        schema: schema(&format!("{COLUMNS}, first timestamp, end timestamp")),
    }
}

fn session() -> Box<dyn Operator> {
    Box::new(Session::new(spec(), &schema(COLUMNS)).expect("sortable columns"))
}

fn check(script: &str, expect: Expect) {
    script::check(session, &[schema(COLUMNS)], script, expect);
}

#[test]
fn a_row_between_joins_sessions_and_parts_them_when_it_goes() {
    check(
        "
        batch 0
          + 1 1 100
          + 1 2 110
          + 1 3 125
          + 2 9 112
          + 2 9 .
        epoch 1
        batch 0
          + 1 4 118
        epoch 2
        recover
        batch 0
          - 1 4 118
        epoch 3
        # A copy more moves nothing; what cancels out is nothing.
        batch 0
          + 1 3 125
          + 1 4 118
          - 1 4 118
        epoch 4
        ",
        expect![[r#"
            epoch 1
            + 1 1 1970-01-01T00:00:00.000100 1970-01-01T00:00:00.000100 1970-01-01T00:00:00.000120
            + 1 2 1970-01-01T00:00:00.000110 1970-01-01T00:00:00.000100 1970-01-01T00:00:00.000120
            + 1 3 1970-01-01T00:00:00.000125 1970-01-01T00:00:00.000125 1970-01-01T00:00:00.000135
            + 2 9 1970-01-01T00:00:00.000112 1970-01-01T00:00:00.000112 1970-01-01T00:00:00.000122
            epoch 2
            - 1 1 1970-01-01T00:00:00.000100 1970-01-01T00:00:00.000100 1970-01-01T00:00:00.000120
            + 1 1 1970-01-01T00:00:00.000100 1970-01-01T00:00:00.000100 1970-01-01T00:00:00.000135
            - 1 2 1970-01-01T00:00:00.000110 1970-01-01T00:00:00.000100 1970-01-01T00:00:00.000120
            + 1 2 1970-01-01T00:00:00.000110 1970-01-01T00:00:00.000100 1970-01-01T00:00:00.000135
            + 1 3 1970-01-01T00:00:00.000125 1970-01-01T00:00:00.000100 1970-01-01T00:00:00.000135
            - 1 3 1970-01-01T00:00:00.000125 1970-01-01T00:00:00.000125 1970-01-01T00:00:00.000135
            + 1 4 1970-01-01T00:00:00.000118 1970-01-01T00:00:00.000100 1970-01-01T00:00:00.000135
            epoch 3
            + 1 1 1970-01-01T00:00:00.000100 1970-01-01T00:00:00.000100 1970-01-01T00:00:00.000120
            - 1 1 1970-01-01T00:00:00.000100 1970-01-01T00:00:00.000100 1970-01-01T00:00:00.000135
            + 1 2 1970-01-01T00:00:00.000110 1970-01-01T00:00:00.000100 1970-01-01T00:00:00.000120
            - 1 2 1970-01-01T00:00:00.000110 1970-01-01T00:00:00.000100 1970-01-01T00:00:00.000135
            - 1 3 1970-01-01T00:00:00.000125 1970-01-01T00:00:00.000100 1970-01-01T00:00:00.000135
            + 1 3 1970-01-01T00:00:00.000125 1970-01-01T00:00:00.000125 1970-01-01T00:00:00.000135
            - 1 4 1970-01-01T00:00:00.000118 1970-01-01T00:00:00.000100 1970-01-01T00:00:00.000135
            epoch 4
            + 1 3 1970-01-01T00:00:00.000125 1970-01-01T00:00:00.000125 1970-01-01T00:00:00.000135
        "#]],
    );
}

#[test]
fn sessions_that_have_ended_are_forgotten() {
    let mut driven = Driven::new(session);
    for n in 0..3_000 {
        // A session a millisecond, each of another key.
        let line = format!("+ {n} 1 {}\n", n * 1_000);
        driven.batch(0, rows(&schema(COLUMNS), &line)).expect("takes a batch");
    }
    driven.epoch(Epoch(1)).expect("completes");
    let before = driven.memory_bytes();
    driven.watermark(0, Watermark(EventTime(2_990_000))).expect("moves");
    driven.epoch(Epoch(2)).expect("completes");
    assert!(driven.memory_bytes() < before / 50, "{} of {before}", driven.memory_bytes());
    // What is left joins on.
    driven.sent();
    driven.batch(0, rows(&schema(COLUMNS), "+ 2999 1 2999005\n")).expect("takes a batch");
    driven.epoch(Epoch(3)).expect("completes");
    assert_eq!(driven.sent().rows.len(), 3);
}

/// What shows of a bag of rows, session by session.
fn oracle(bag: &BTreeMap<(i64, i64, i64), i64>) -> BTreeMap<String, i64> {
    let mut by_key: BTreeMap<i64, Vec<(i64, i64, i64)>> = BTreeMap::new();
    for ((k, v, at), copies) in bag {
        by_key.entry(*k).or_default().push((*at, *v, *copies));
    }
    let mut shown = BTreeMap::new();
    for (k, mut rows) in by_key {
        rows.sort_unstable();
        let mut sessions: Vec<Vec<(i64, i64, i64)>> = vec![];
        for row in rows {
            match sessions.last_mut() {
                Some(session) if row.0 - session[session.len() - 1].0 <= GAP_US => {
                    session.push(row);
                }
                _ => sessions.push(vec![row]),
            }
        }
        for session in sessions {
            let (start, end) = (session[0].0, session[session.len() - 1].0 + GAP_US);
            for (at, v, copies) in session {
                let line = format!("+ {k} {v} {at} {start} {end}\n");
                let batch = rows_of(&line);
                *shown.entry(batch).or_default() += copies;
            }
        }
    }
    shown
}

fn rows_of(line: &str) -> String {
    let batch = rows(&spec().schema, line);
    script::row_texts(batch.rows()).remove(0)
}

fn random_history(random: &mut SmallRng) {
    let mut driven = Driven::new(session);
    let mut bag: BTreeMap<(i64, i64, i64), i64> = BTreeMap::new();
    let mut shown: BTreeMap<String, i64> = BTreeMap::new();
    for epoch in 1..random.random_range(3..20) {
        for _ in 0..random.random_range(0..3) {
            let mut lines = String::new();
            for _ in 0..random.random_range(1..5) {
                let old = bag.len().checked_sub(1).filter(|_| random.random_bool(0.4));
                let row = match old {
                    Some(last) => {
                        let nth = random.random_range(0..=last);
                        *bag.keys().nth(nth).expect("a row")
                    }
                    None => {
                        let (k, v) = (random.random_range(0..2), random.random_range(0..2));
                        (k, v, random.random_range(-60..60))
                    }
                };
                let there = bag.get(&row).copied().unwrap_or(0);
                let weight = if there > 0 && random.random_bool(0.7) {
                    -random.random_range(1..=there)
                } else {
                    random.random_range(1..3)
                };
                lines.push_str(&format!("{weight:+} {} {} {}\n", row.0, row.1, row.2));
                *bag.entry(row).or_default() += weight;
                bag.retain(|_, weight| *weight != 0);
            }
            driven.batch(0, rows(&schema(COLUMNS), &lines)).expect("takes a batch");
        }
        driven.epoch(Epoch(epoch)).expect("completes");
        let sent = driven.sent();
        assert_eq!(sent.cancelled, 0, "epoch {epoch}");
        for (row, weight) in sent.rows {
            *shown.entry(row).or_default() += weight;
        }
        shown.retain(|_, weight| *weight != 0);
        assert_eq!(shown, oracle(&bag), "epoch {epoch}");
        if random.random_bool(0.15) {
            driven.checkpoint().expect("checkpoints");
            driven.restart().expect("restores");
        }
    }
}

#[test]
fn random_histories_against_sessions_from_the_beginning() {
    let seed = std::env::var("MILLSTREAM_SEED").ok().and_then(|s| s.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| rand::rng().random());
    println!("MILLSTREAM_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    for _ in 0..400 {
        random_history(&mut random);
    }
}

#[test]
fn the_bytes_of_a_time_are_its_order() {
    let table = Session::new(spec(), &schema(COLUMNS)).expect("sortable columns").table;
    let batch = rows(&schema(COLUMNS), "+ 1 1 -7\n+ 1 1 0\n+ 1 1 1700000000000000\n");
    let encoded = table.encode(batch.rows()).expect("encodes");
    let times: Vec<i64> = (0..3).map(|row| time_of(encoded.peers(row))).collect();
    assert_eq!(times, [-7, 0, 1_700_000_000_000_000]);
}
