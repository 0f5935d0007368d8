//! A change of a large group costs next to nothing: it is never looked through.
//!
//! Not of `array_agg` and `string_agg`, whose value is as long as the group.

use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};

use super::*;
use crate::types::change::ChangeBatch;
use crate::types::time::Epoch;

/// Each in its own group by `k`, of values `v`; `f` is a fraction.
const CALLS: [&str; 13] = [
    "min(v)",
    "max(v)",
    "median(v)",
    "percentile_cont(v,f)",
    "percentile_disc(v,f)",
    "mode(v)",
    "first_value(v order by v)",
    "last_value(v order by v)",
    "any_value(v)",
    "count(distinct v)",
    "sum(distinct v)",
    "sum(v)",
    "var_samp(v)",
];
/// Changes of which the quickest counts.
const ROUNDS: i64 = 24;

fn rows(columns: &SchemaRef, values: &[i64]) -> RecordBatch {
    let columns_of: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1; values.len()])),
        Arc::new(Int64Array::from(values.to_vec())),
        Arc::new(Float64Array::from(vec![0.4; values.len()])),
    ];
    RecordBatch::try_new(columns.clone(), columns_of).expect("three columns")
}

/// The time of a change of a group of so many rows, in which each value stands twice: the least
/// goes, or the greatest.
fn time_of_a_change(call: &str, count: i64) -> Duration {
    let columns = schema("k bigint, v bigint, f double");
    let mut operator = aggregate(&spec(&columns, "k", &[call], false), &columns);
    let mut out = Output::default();
    let all: Vec<i64> = (0..count).map(|n| n / 2).collect();
    for values in all.chunks(8192) {
        let batch = ChangeBatch::inserts(rows(&columns, values));
        operator.on_batch(0, batch, &mut out).expect("takes rows");
    }
    operator.on_epoch(Epoch(1), &mut out).expect("completes");
    let mut least = Duration::MAX;
    for round in 0..ROUNDS {
        let gone = if round % 2 == 0 { round / 2 } else { count / 2 - 1 - round / 2 };
        let changes = [
            ChangeBatch::deletes(rows(&columns, &[gone, gone])),
            ChangeBatch::inserts(rows(&columns, &[count / 4 + round])),
        ];
        let change = ChangeBatch::concat(&columns, &changes).expect("one schema");
        out.take_batches();
        let began = Instant::now();
        operator.on_batch(0, change, &mut out).expect("takes a change");
        operator.on_epoch(Epoch(2 + round as u64), &mut out).expect("completes");
        least = least.min(began.elapsed());
    }
    least
}

#[test]
fn a_change_does_not_cost_its_group() {
    let mut slow = Vec::new();
    for call in CALLS {
        let (small, large) = (time_of_a_change(call, 4_000), time_of_a_change(call, 128_000));
        // 32 times the rows; the quickest of many changes is not disturbed by others.
        if large > 6 * small {
            slow.push(format!("{call}: {small:?} of 4000 rows, {large:?} of 128000"));
        }
    }
    assert!(slow.is_empty(), "{slow:#?}");
}
