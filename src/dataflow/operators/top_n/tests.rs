use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::dataflow::script::{self, Driven, batch as rows, schema};
use crate::plan::event_time::TimeBound;
use crate::types::time::EventTime;

const COLUMNS: &str = "p bigint, v bigint, t text";

/// The first `limit` of each `p`, by `v` from above.
fn spec(rank: RankFunction, offset: u64, limit: Option<u64>) -> TopNSpec {
    TopNSpec {
        partition: vec![0],
        order_by: vec![SortColumn { column: 1, descending: true, nulls_first: false }],
        rank,
        offset,
        limit,
        numbered: false,
        append_only: false,
        schema: schema(COLUMNS),
    }
}

fn numbered(spec: TopNSpec) -> TopNSpec {
    TopNSpec { numbered: true, schema: schema("p bigint, v bigint, t text, n bigint"), ..spec }
}

fn top_n(spec: TopNSpec) -> Box<dyn Operator> {
    build(spec, &schema(COLUMNS), vec![]).expect("sortable columns")
}

fn check(spec: TopNSpec, script: &str, expect: Expect) {
    script::check(|| top_n(spec.clone()), &[schema(COLUMNS)], script, expect);
}

#[test]
fn a_deletion_lets_the_next_row_in() {
    check(
        spec(RankFunction::RowNumber, 0, Some(2)),
        "
        batch 0
          + 1 5 a
          + 1 7 b
          + 1 6 c
          + 2 1 d
          + . 3 e
        epoch 1
        batch 0
          - 1 7 b
        epoch 2
        recover
        batch 0
          - 1 5 a
          + 1 1 f
          + 2 0 g
          + 2 2 h
        epoch 3
        # Behind the window: nobody sees it.
        batch 0
          + 2 0 x
        epoch 4
        recover
        batch 0
          - 2 2 h
          - 2 1 d
        epoch 5
        ",
        expect![[r#"
            epoch 1
            + . 3 e
            + 1 6 c
            + 1 7 b
            + 2 1 d
            epoch 2
            + 1 5 a
            - 1 7 b
            epoch 3
            + 1 1 f
            - 1 5 a
            + 2 2 h
            epoch 4
            epoch 5
            + 2 0 g
            + 2 0 x
            - 2 1 d
            - 2 2 h
        "#]],
    );
}

#[test]
fn equal_rows_count_and_those_that_sort_alike_stand_by_their_other_columns() {
    check(
        numbered(spec(RankFunction::RowNumber, 1, Some(2))),
        "
        batch 0
          +3 1 5 a
          + 1 5 b
        epoch 1
        batch 0
          -2 1 5 a
        epoch 2
        recover
        # Cancels out within the epoch.
        batch 0
          + 1 9 c
          - 1 5 b
        batch 0
          - 1 9 c
          + 1 5 b
        epoch 3
        # The group empties, and comes back.
        batch 0
          - 1 5 a
          - 1 5 b
        epoch 4
        batch 0
          + 1 . z
          + 1 -1 y
        epoch 5
        ",
        expect![[r#"
            epoch 1
            + 1 5 a 2
            + 1 5 a 3
            epoch 2
            - 1 5 a 2
            - 1 5 a 3
            + 1 5 b 2
            epoch 3
            epoch 4
            - 1 5 b 2
            epoch 5
            + 1 . z 2
        "#]],
    );
}

#[test]
fn ranks_show_all_that_share_the_last_place() {
    let script = "
        batch 0
          + 1 9 a
          + 1 8 b
          + 1 8 c
          + 1 7 d
        epoch 1
        recover
        batch 0
          + 1 8 e
          - 1 9 a
        epoch 2
        ";
    check(
        numbered(spec(RankFunction::Rank, 0, Some(2))),
        script,
        expect![[r#"
            epoch 1
            + 1 8 b 2
            + 1 8 c 2
            + 1 9 a 1
            epoch 2
            + 1 8 b 1
            - 1 8 b 2
            + 1 8 c 1
            - 1 8 c 2
            + 1 8 e 1
            - 1 9 a 1
        "#]],
    );
    check(
        numbered(spec(RankFunction::DenseRank, 0, Some(2))),
        script,
        expect![[r#"
            epoch 1
            + 1 8 b 2
            + 1 8 c 2
            + 1 9 a 1
            epoch 2
            + 1 7 d 2
            + 1 8 b 1
            - 1 8 b 2
            + 1 8 c 1
            - 1 8 c 2
            + 1 8 e 1
            - 1 9 a 1
        "#]],
    );
}

#[test]
fn input_that_only_grows_keeps_what_shows() {
    let spec = TopNSpec { append_only: true, ..spec(RankFunction::RowNumber, 0, Some(2)) };
    let mut driven = Driven::new(|| top_n(spec.clone()));
    let mut bytes = 0;
    driven.batch(0, rows(&schema(COLUMNS), "+ 2 5 old")).expect("takes a batch");
    // So many that rows which have come early move behind those that have gone.
    for epoch in 1..=1000 {
        let line = |n| format!("+ 1 {} a\n", epoch * 100 + n);
        let lines: String = (0..100).map(line).collect();
        driven.batch(0, rows(&schema(COLUMNS), &lines)).expect("takes a batch");
        driven.epoch(Epoch(epoch)).expect("completes");
        if epoch == 500 {
            bytes = driven.memory_bytes();
        }
    }
    // Rows that have died wait until there are enough of them for a segment to be written anew.
    assert!(driven.memory_bytes() <= bytes + (64 << 10), "three rows, however many came");
    driven.checkpoint().expect("writes three rows");
    driven.restart().expect("restores");
    driven.sent();
    let lines = "+ 1 999999 z\n+ 2 6 new\n+ 2 7 newer";
    driven.batch(0, rows(&schema(COLUMNS), lines)).expect("takes a batch");
    driven.epoch(Epoch(1001)).expect("completes");
    let sent = driven.sent();
    let expected =
        [("1 100098 a", -1), ("1 999999 z", 1), ("2 5 old", -1), ("2 6 new", 1), ("2 7 newer", 1)];
    let sent: Vec<_> = sent.rows.iter().map(|(row, weight)| (row.as_str(), *weight)).collect();
    assert_eq!(sent, expected);
}

#[test]
fn a_partition_goes_when_the_watermark_has_passed_its_time() {
    let columns = "w timestamp, v bigint";
    for rank in [RankFunction::RowNumber, RankFunction::Rank] {
        let spec =
            TopNSpec { append_only: true, schema: schema(columns), ..spec(rank, 0, Some(2)) };
        let closing = vec![TimeKey { place: 0, bound: TimeBound::of_watermark(0) }];
        let operator = || build(spec.clone(), &schema(columns), closing.clone()).expect("sorts");
        let mut driven = Driven::new(operator);
        let lines = "+ 100 1\n+ 100 2\n+ 100 3\n+ 200 5\n+ . 7\n+ . 8";
        driven.batch(0, rows(&schema(columns), lines)).expect("takes a batch");
        driven.epoch(Epoch(1)).expect("completes");
        assert_eq!(driven.state_rows(), 5);
        let mark = |us| Watermark(EventTime(us));
        driven.watermark(0, mark(100)).expect("takes a watermark");
        driven.epoch(Epoch(2)).expect("completes");
        assert_eq!(driven.state_rows(), 5, "rows of time 100 may still come");
        driven.watermark(0, mark(101)).expect("takes a watermark");
        driven.epoch(Epoch(3)).expect("completes");
        assert_eq!(driven.state_rows(), 3, "NULL is no time");
        // What is left goes on, over a restart too, and its group's number is free for another.
        driven.checkpoint().expect("checkpoints");
        driven.restart().expect("restores");
        driven.sent();
        driven.batch(0, rows(&schema(columns), "+ 200 6\n+ 300 1")).expect("takes a batch");
        driven.epoch(Epoch(4)).expect("completes");
        let sent = driven.sent();
        assert!(sent.rows.values().all(|weight| *weight == 1) && sent.rows.len() == 2);
        driven.watermark(0, Watermark::END).expect("takes a watermark");
        driven.epoch(Epoch(5)).expect("completes");
        assert!(driven.sent().rows.is_empty(), "what has gone from the state still shows");
    }
}

type Row = (Option<i64>, Option<i64>, String);

/// What shows, by sorting everything.
fn oracle(spec: &TopNSpec, bag: &BTreeMap<Row, i64>) -> BTreeMap<String, i64> {
    let mut partitions: BTreeMap<Option<Option<i64>>, Vec<&Row>> = BTreeMap::new();
    for (row, weight) in bag {
        let partition = (!spec.partition.is_empty()).then_some(row.0);
        let rows = partitions.entry(partition).or_default();
        rows.extend(std::iter::repeat_n(row, *weight as usize));
    }
    let mut shown = BTreeMap::new();
    let limit = spec.limit.map_or(u64::MAX, |limit| limit + spec.offset);
    for rows in partitions.values_mut() {
        // Descending, NULLs last; then by the other columns, NULLs first.
        rows.sort_by_key(|row| (row.1.is_none(), row.1.map(|v| -v), row.0, row.2.clone()));
        let (mut rank, mut dense) = (0, 0);
        for (index, row) in rows.iter().enumerate() {
            if index == 0 || rows[index - 1].1 != row.1 {
                (rank, dense) = (index as u64 + 1, dense + 1);
            }
            let number = match spec.rank {
                RankFunction::RowNumber => index as u64 + 1,
                RankFunction::Rank => rank,
                RankFunction::DenseRank => dense,
            };
            if number > spec.offset && number <= limit {
                let text = |value: Option<i64>| value.map_or(".".to_owned(), |v| v.to_string());
                let mut line = format!("{} {} {}", text(row.0), text(row.1), row.2);
                if spec.numbered {
                    line.push_str(&format!(" {number}"));
                }
                *shown.entry(line).or_default() += 1;
            }
        }
    }
    shown
}

fn random_history(random: &mut SmallRng) {
    let ranks = [RankFunction::RowNumber, RankFunction::Rank, RankFunction::DenseRank];
    let rank = ranks[random.random_range(0..3)];
    let offset = match rank {
        RankFunction::RowNumber => random.random_range(0..3),
        RankFunction::Rank | RankFunction::DenseRank => 0,
    };
    let limit = random.random_bool(0.9).then(|| random.random_range(0..5));
    let append_only = random.random_bool(0.4);
    let mut spec = TopNSpec { append_only, ..spec(rank, offset, limit) };
    if random.random_bool(0.5) {
        spec = numbered(spec);
    }
    if random.random_bool(0.2) {
        spec.partition = vec![];
    }
    let mut driven = Driven::new(|| top_n(spec.clone()));
    let mut bag: BTreeMap<Row, i64> = BTreeMap::new();
    let mut shown: BTreeMap<String, i64> = BTreeMap::new();
    for epoch in 1..random.random_range(3..25) {
        for _ in 0..random.random_range(0..4) {
            let mut lines = String::new();
            for _ in 0..random.random_range(1..6) {
                let small = |random: &mut SmallRng| match random.random_range(0..6) {
                    0 => None,
                    n => Some(n),
                };
                let text = ["a", "b"][random.random_range(0..2)].to_owned();
                let row = (small(random).filter(|p| *p < 3), small(random), text);
                let there = bag.get(&row).copied().unwrap_or(0);
                let weight = if append_only {
                    1
                } else if there > 0 && random.random_bool(0.6) {
                    -random.random_range(1..=there)
                } else {
                    random.random_range(1..3)
                };
                let text = |value: Option<i64>| value.map_or(".".to_owned(), |v| v.to_string());
                lines.push_str(&format!("{weight:+} {} {} {}\n", text(row.0), text(row.1), row.2));
                *bag.entry(row).or_default() += weight;
            }
            driven.batch(0, rows(&schema(COLUMNS), &lines)).expect("takes a batch");
        }
        driven.epoch(Epoch(epoch)).expect("completes");
        let sent = driven.sent();
        assert_eq!(sent.cancelled, 0, "epoch {epoch} of {spec:?}");
        for (row, weight) in sent.rows {
            *shown.entry(row).or_default() += weight;
        }
        shown.retain(|_, weight| *weight != 0);
        bag.retain(|_, weight| *weight != 0);
        assert_eq!(shown, oracle(&spec, &bag), "epoch {epoch} of {spec:?}");
        if random.random_bool(0.2) {
            driven.checkpoint().expect("checkpoints");
        }
        if random.random_bool(0.15) {
            driven.checkpoint().expect("checkpoints");
            driven.restart().expect("restores");
        }
    }
}

#[test]
fn random_histories_against_sorting() {
    let seed = std::env::var("MILLSTREAM_SEED").ok().and_then(|s| s.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| rand::rng().random());
    println!("MILLSTREAM_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    for _ in 0..400 {
        random_history(&mut random);
    }
}
