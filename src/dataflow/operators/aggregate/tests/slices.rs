//! Checkpoints that are handed over by and by, while groups come, change and go.

use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::dataflow::script::batch;
use crate::state::delta::{CheckpointFold, CheckpointReader, CheckpointWriter};

const INPUT: &str = "k bigint, v bigint";

fn make() -> Aggregate {
    let input = schema(INPUT);
    let spec = spec(&input, "k", &["count(*)", "sum(v)"], false);
    Aggregate::new(spec, &input, WorkerId(0)).expect("an aggregate")
}

/// The words of all groups, by key.
fn state(aggregate: &Aggregate) -> BTreeMap<i64, Vec<u64>> {
    let groups = aggregate.table.live();
    let keys = aggregate.table.keys(&groups).expect("keys").remove(0);
    let keys = keys.as_primitive::<Int64Type>().values();
    keys.iter().zip(groups).map(|(key, g)| (*key, aggregate.table.row(g).to_vec())).collect()
}

/// One line that brings or takes a row; the rows that are there are kept in `rows`.
fn change(random: &mut SmallRng, rows: &mut Vec<(i64, i64)>) -> String {
    if !rows.is_empty() && random.random_bool(0.45) {
        let (k, v) = rows.swap_remove(random.random_range(0..rows.len()));
        return format!("- {k} {v}\n");
    }
    let row = (random.random_range(0..700), random.random_range(-9..9));
    rows.push(row);
    format!("+ {} {}\n", row.0, row.1)
}

#[test]
fn a_checkpoint_in_slices_is_the_state_of_its_epoch() {
    let (mut in_slices, mut while_changing) = (0, 0);
    for seed in 0..30 {
        let mut random = SmallRng::seed_from_u64(seed);
        let (mut aggregate, mut out) = (make(), Output::default());
        let mut rows = Vec::new();
        let mut fold = CheckpointFold::default();
        let mut open: Option<(CheckpointWriter, BTreeMap<i64, Vec<u64>>)> = None;
        for epoch in 1..60 {
            for _ in 0..random.random_range(0..4) {
                let changes = random.random_range(1..80);
                let lines: String = (0..changes).map(|_| change(&mut random, &mut rows)).collect();
                let changes = batch(&schema(INPUT), &lines);
                aggregate.on_batch(0, changes, &mut out).expect("folded");
                if let Some((writer, _)) = open.as_mut().filter(|(w, _)| w.is_open()) {
                    // In the midst of an epoch.
                    aggregate.go_on_with_checkpoint(writer).expect("goes on");
                    while_changing += 1;
                }
            }
            aggregate.on_epoch(Epoch(epoch), &mut out).expect("done");
            if let Some((writer, _)) = open.as_mut().filter(|(w, _)| w.is_open())
                && random.random_bool(0.5)
            {
                aggregate.go_on_with_checkpoint(writer).expect("goes on");
            }
            if let Some((writer, then)) = open.take_if(|(writer, _)| !writer.is_open()) {
                fold.apply(writer).unwrap_or_else(|e| panic!("seed {seed}, epoch {epoch}: {e}"));
                let mut restored = make();
                let mut reader = CheckpointReader::new(&[fold.clone()], 0, 1).expect("read");
                restored.restore(&mut reader).expect("restored");
                assert_eq!(state(&restored), then, "seed {seed}, epoch {epoch}");
            } else if open.is_none() && random.random_bool(0.5) {
                let mut writer = CheckpointWriter::default();
                aggregate.checkpoint(Epoch(epoch), &mut writer).expect("begins");
                in_slices += usize::from(writer.is_open());
                open = Some((writer, state(&aggregate)));
            }
        }
    }
    assert!(in_slices > 50 && while_changing > 50, "{in_slices} and {while_changing}");
}
