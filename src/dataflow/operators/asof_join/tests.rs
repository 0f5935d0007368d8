use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::dataflow::script::{self, Driven, batch as rows, schema};
use crate::types::time::EventTime;

const LEFT_COLUMNS: &str = "k bigint, at timestamp, l bigint";
const RIGHT_COLUMNS: &str = "rk bigint, rat timestamp, r bigint";

fn spec(order: AsofOrder, keeps_left: bool) -> AsofJoinSpec {
    AsofJoinSpec {
        keys: vec![(0, 0)],
        times: (1, 1),
        order,
        keeps_left,
        bounds: [Some(TimeBound::of_watermark(1)), Some(TimeBound::of_watermark(1))],
        schema: schema(&format!("{LEFT_COLUMNS}, {RIGHT_COLUMNS}")),
    }
}

fn join(order: AsofOrder, keeps_left: bool) -> Box<dyn Operator> {
    let (left, right) = (schema(LEFT_COLUMNS), schema(RIGHT_COLUMNS));
    Box::new(AsofJoin::new(spec(order, keeps_left), &left, &right).expect("sortable columns"))
}

fn check(order: AsofOrder, keeps_left: bool, script: &str, expect: Expect) {
    let schemas = [schema(LEFT_COLUMNS), schema(RIGHT_COLUMNS)];
    script::check(|| join(order, keeps_left), &schemas, script, expect);
}

#[test]
fn a_nearer_row_takes_the_place_of_the_match() {
    check(
        AsofOrder::AtOrBefore,
        true,
        "
        batch 0
          + 1 100 1
          + 1 200 2
          + 2 100 3
          + . 100 4
          + 1 . 5
        batch 1
          + 1 90 10
          + . 90 11
        epoch 1
        # Between the two left rows; and at the time of the second, which takes the later one.
        batch 1
          + 1 150 20
          + 1 200 30
        epoch 2
        recover
        batch 1
          - 1 200 30
          + 2 101 40
        batch 0
          - 1 100 1
        epoch 3
        batch 1
          - 1 90 10
          - 1 150 20
        epoch 4
        ",
        expect![[r#"
            epoch 1
            + . 1970-01-01T00:00:00.000100 4 . . .
            + 1 . 5 . . .
            + 1 1970-01-01T00:00:00.000100 1 1 1970-01-01T00:00:00.000090 10
            + 1 1970-01-01T00:00:00.000200 2 1 1970-01-01T00:00:00.000090 10
            + 2 1970-01-01T00:00:00.000100 3 . . .
            epoch 2
            - 1 1970-01-01T00:00:00.000200 2 1 1970-01-01T00:00:00.000090 10
            + 1 1970-01-01T00:00:00.000200 2 1 1970-01-01T00:00:00.000200 30
            epoch 3
            - 1 1970-01-01T00:00:00.000100 1 1 1970-01-01T00:00:00.000090 10
            + 1 1970-01-01T00:00:00.000200 2 1 1970-01-01T00:00:00.000150 20
            - 1 1970-01-01T00:00:00.000200 2 1 1970-01-01T00:00:00.000200 30
            epoch 4
            + 1 1970-01-01T00:00:00.000200 2 . . .
            - 1 1970-01-01T00:00:00.000200 2 1 1970-01-01T00:00:00.000150 20
        "#]],
    );
}

#[test]
fn what_is_settled_is_forgotten() {
    for order in [AsofOrder::AtOrBefore, AsofOrder::Before, AsofOrder::AtOrAfter, AsofOrder::After]
    {
        let mut driven = Driven::new(|| join(order, true));
        for n in 0..2_000 {
            let left = format!("+ {} {} {n}\n", n % 3 + 1, n * 10);
            driven.batch(0, rows(&schema(LEFT_COLUMNS), &left)).expect("takes a batch");
            let right = format!("+ {} {} {n}\n", n % 3 + 1, n * 10 + 1);
            driven.batch(1, rows(&schema(RIGHT_COLUMNS), &right)).expect("takes a batch");
        }
        driven.epoch(Epoch(1)).expect("completes");
        let before = driven.memory_bytes();
        for port in [0, 1] {
            driven.watermark(port, Watermark(EventTime(19_900))).expect("moves");
        }
        driven.epoch(Epoch(2)).expect("completes");
        let now = driven.memory_bytes();
        assert!(now < before / 20, "{order:?}: {now} of {before}");
        // What comes at the watermark finds its match.
        driven.sent();
        driven.batch(0, rows(&schema(LEFT_COLUMNS), "+ 1 19901 7\n")).expect("takes a batch");
        driven.epoch(Epoch(3)).expect("completes");
        let sent: Vec<String> = driven.sent().rows.into_keys().collect();
        let expected = if order.looks_back() { ".019891" } else { ".019921" };
        assert!(sent.len() == 1 && sent[0].contains(expected), "{order:?}: {sent:?}");
    }
}

type Row = (Option<i64>, Option<i64>, i64);
type Bag = BTreeMap<Row, i64>;

fn text(value: Option<i64>) -> String {
    value.map_or(".".to_owned(), |v| v.to_string())
}

/// Each left row with what a look at all right rows finds.
fn oracle(order: AsofOrder, keeps_left: bool, left: &Bag, right: &Bag) -> BTreeMap<String, i64> {
    let mut shown = BTreeMap::new();
    for ((key, at, value), copies) in left {
        let fits = |row: &&Row| {
            row.0.is_some()
                && row.0 == *key
                && row.1.zip(*at).is_some_and(|(right, left)| match order {
                    AsofOrder::AtOrBefore => left >= right,
                    AsofOrder::Before => left > right,
                    AsofOrder::AtOrAfter => left <= right,
                    AsofOrder::After => left < right,
                })
        };
        let found = if order.looks_back() {
            right.keys().filter(fits).max()
        } else {
            right.keys().filter(fits).min()
        };
        let found = match found {
            Some(row) => format!("{} {} {}", text(row.0), text(row.1), row.2),
            None if keeps_left => ". . .".to_owned(),
            None => continue,
        };
        let line = format!("+ {} {} {value} {found}\n", text(*key), text(*at));
        let batch = rows(&spec(order, keeps_left).schema, &line);
        *shown.entry(script::row_texts(batch.rows()).remove(0)).or_default() += copies;
    }
    shown
}

fn change(random: &mut SmallRng, bag: &mut Bag) -> String {
    let row = match bag.len().checked_sub(1).filter(|_| random.random_bool(0.4)) {
        Some(last) => *bag.keys().nth(random.random_range(0..=last)).expect("a row"),
        None => {
            let some = |random: &mut SmallRng, to: i64| {
                Some(random.random_range(0..to)).filter(|n| *n > 0)
            };
            (some(random, 3), some(random, 9), random.random_range(0..3))
        }
    };
    let there = bag.get(&row).copied().unwrap_or(0);
    let weight = if there > 0 && random.random_bool(0.7) {
        -random.random_range(1..=there)
    } else {
        random.random_range(1..3)
    };
    *bag.entry(row).or_default() += weight;
    bag.retain(|_, weight| *weight != 0);
    format!("{weight:+} {} {} {}\n", text(row.0), text(row.1), row.2)
}

fn random_history(random: &mut SmallRng) {
    let order = match random.random_range(0..4) {
        0 => AsofOrder::AtOrBefore,
        1 => AsofOrder::Before,
        2 => AsofOrder::AtOrAfter,
        _ => AsofOrder::After,
    };
    let keeps_left = random.random_bool(0.5);
    let mut driven = Driven::new(|| join(order, keeps_left));
    let mut bags = [Bag::new(), Bag::new()];
    let mut shown: BTreeMap<String, i64> = BTreeMap::new();
    for epoch in 1..random.random_range(3..20) {
        for _ in 0..random.random_range(0..3) {
            let port = random.random_range(0..2);
            let lines: String =
                (0..random.random_range(1..5)).map(|_| change(random, &mut bags[port])).collect();
            let schema = schema([LEFT_COLUMNS, RIGHT_COLUMNS][port]);
            driven.batch(port, rows(&schema, &lines)).expect("takes a batch");
        }
        driven.epoch(Epoch(epoch)).expect("completes");
        let sent = driven.sent();
        assert_eq!(sent.cancelled, 0, "epoch {epoch} of {order:?} {keeps_left}");
        for (row, weight) in sent.rows {
            *shown.entry(row).or_default() += weight;
        }
        shown.retain(|_, weight| *weight != 0);
        let expected = oracle(order, keeps_left, &bags[0], &bags[1]);
        assert_eq!(shown, expected, "epoch {epoch} of {order:?} {keeps_left}");
        if random.random_bool(0.15) {
            driven.checkpoint().expect("checkpoints");
            driven.restart().expect("restores");
        }
    }
}

#[test]
fn random_histories_against_a_look_at_all_rows() {
    let seed = std::env::var("MILLSTREAM_SEED").ok().and_then(|s| s.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| rand::rng().random());
    println!("MILLSTREAM_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    for _ in 0..600 {
        random_history(&mut random);
    }
}
