//! Groups that time closes: scripts, and random streams beside a recomputation.

use std::collections::BTreeMap;

use super::*;
use crate::dataflow::script::{Driven, batch};
use crate::plan::event_time::{Step, TimeBound};
use crate::types::time::EventTime;

const INPUT: &str = "w timestamp, v bigint";

/// Grouped by `w`, a window of 10 us, whose rows the watermark closes.
fn windows(calls: &[&str], append_only: bool, on_close: bool) -> AggregateSpec {
    let bound =
        TimeBound { column: 0, functions: vec![vec![Step::Bin { stride_us: 10, origin_us: 0 }]] };
    AggregateSpec {
        time_keys: vec![TimeKey { place: 0, bound }],
        on_close,
        ..spec(&schema(INPUT), "w", calls, append_only)
    }
}

fn make(spec: &AggregateSpec) -> Aggregate {
    Aggregate::new(spec.clone(), &schema(INPUT), WorkerId(0)).expect("an aggregate")
}

#[test]
fn closed_groups_are_emitted_once_and_forgotten() {
    let spec = windows(&["count(*)", "sum(v)", "count(distinct v)", "max(v)"], false, true);
    check(
        || Box::new(make(&spec)),
        &[schema(INPUT)],
        "
        batch 0
          + 0 1
          + 0 1
          + 10 5
          + . 9
        watermark 0 9
        epoch 1
        batch 0
          - 0 1
          + 0 4
          + 20 7
        watermark 0 10
        epoch 2
        recover
        watermark 0 35
        epoch 3
        watermark 0 9223372036854775807
        epoch 4
        ",
        expect![[r#"
            epoch 1
            watermark 9
            epoch 2
            + 1970-01-01T00:00:00 2 5 2 4
            watermark 10
            epoch 3
            + 1970-01-01T00:00:00.000010 1 5 1 5
            + 1970-01-01T00:00:00.000020 1 7 1 7
            watermark 35
            epoch 4
            + . 1 9 1 9
            watermark 9223372036854775807
        "#]],
    );
}

#[test]
fn on_update_a_closed_group_leaves_its_row_and_not_its_state() {
    let spec = windows(&["sum(v)", "count(distinct v)"], true, false);
    let mut aggregate = make(&spec);
    let mut out = Output::default();
    let rows = "+ 0 1\n+ 10 2\n+ 10 3\n+ 20 4";
    aggregate.on_batch(0, batch(&schema(INPUT), rows), &mut out).expect("folded");
    aggregate.on_watermark(0, Watermark(EventTime(21)), &mut out).expect("told");
    aggregate.on_epoch(Epoch(1), &mut out).expect("done");
    assert_eq!(aggregate.table.len(), 1, "one window is open");
    let distinct = aggregate.distinct.iter().flatten().map(|d| d.pairs.len());
    assert_eq!(distinct.sum::<usize>(), 1, "values of closed windows have gone");
    assert_eq!(out.take_batches().iter().map(ChangeBatch::num_rows).sum::<usize>(), 3);
}

/// The next number of a sequence that looks random.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

#[test]
fn random_streams_close_to_what_a_batch_gives() {
    for seed in 0..40 {
        for on_close in [false, true] {
            random_stream(seed, on_close);
        }
    }
}

/// Rows come in disorder, late ones are left out, and windows close on the way.
fn random_stream(seed: u64, on_close: bool) {
    let spec = windows(&["count(*)", "sum(v)"], true, on_close);
    let mut driven = Driven::new(|| -> Box<dyn Operator> { Box::new(make(&spec)) });
    let mut random = seed;
    let (mut newest, mut watermark) = (0_i64, i64::MIN);
    let mut expected: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    let mut folded: BTreeMap<String, i64> = BTreeMap::new();
    let delay = (next(&mut random) % 30) as i64;
    for epoch in 1..=60 {
        let mut rows = String::new();
        for _ in 0..next(&mut random) % 20 {
            let time = newest + (next(&mut random) % 25) as i64 - 15;
            if time < watermark || time < 0 {
                continue;
            }
            let value = (next(&mut random) % 100) as i64;
            let window = time - time % 10;
            rows.push_str(&format!("+ {window} {value}\n"));
            let group = expected.entry(window).or_default();
            *group = (group.0 + 1, group.1 + value);
            newest = newest.max(time);
        }
        driven.batch(0, batch(&schema(INPUT), &rows)).expect("folded");
        watermark = watermark.max(newest - delay);
        driven.watermark(0, Watermark(EventTime(watermark))).expect("told");
        driven.epoch(Epoch(epoch)).expect("done");
        let sent = driven.sent();
        assert_eq!(sent.cancelled, 0);
        for (row, weight) in sent.rows {
            assert!(!on_close || weight == 1, "seed {seed}: {row} was taken back");
            let total = folded.entry(row).or_default();
            *total += weight;
            assert!(!on_close || *total == 1, "seed {seed}: a window came twice");
        }
        if next(&mut random).is_multiple_of(5) {
            driven.checkpoint().expect("written");
            driven.restart().expect("restored");
        }
        let text = |(window, (count, sum)): (&i64, &(i64, i64))| {
            let seconds = format!("1970-01-01T00:00:00.{window:06}");
            let time = if *window == 0 { "1970-01-01T00:00:00".to_owned() } else { seconds };
            format!("{time} {count} {sum}")
        };
        let closed = |(window, _): &(&i64, &(i64, i64))| !on_close || **window + 10 <= watermark;
        let right: Vec<String> = expected.iter().filter(closed).map(text).collect();
        folded.retain(|_, weight| *weight != 0);
        let got: Vec<String> = folded.keys().map(|row| shortened(row)).collect();
        assert_eq!(got, right.iter().map(|row| shortened(row)).collect::<Vec<_>>(), "seed {seed}");
    }
}

/// Arrow prints three or six digits of a second: all six, whatever it was.
fn shortened(row: &str) -> String {
    let (time, rest) = row.split_once(' ').expect("a time comes first");
    let (second, digits) = time.split_once('.').unwrap_or((time, ""));
    format!("{second}.{digits:0<6} {rest}")
}
