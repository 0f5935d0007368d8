use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatchOptions, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::memory::spill::EVERYTHING;
use crate::state::delta::{CheckpointFold, CheckpointReader, CheckpointWriter};

type Row = (Option<i64>, i64);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("t", DataType::Utf8, true),
    ]))
}

fn change(rows: &[(Row, i64)]) -> ChangeBatch {
    let keys = Int64Array::from_iter(rows.iter().map(|r| r.0.0));
    let texts = StringArray::from_iter_values(rows.iter().map(|r| r.0.1.to_string()));
    let batch = RecordBatch::try_new(schema(), vec![Arc::new(keys), Arc::new(texts)]);
    ChangeBatch::new(batch.expect("two columns"), rows.iter().map(|r| r.1).collect())
        .expect("weights")
}

fn rows_of(columns: &[ArrayRef]) -> Vec<Row> {
    let keys = columns[0].as_primitive::<Int64Type>().iter();
    let texts = columns[1].as_string::<i32>().iter();
    keys.zip(texts).map(|(k, t)| (k, t.expect("text").parse().expect("a number"))).collect()
}

/// What the snapshot shows: row to copies.
fn content(table: &MultiTable) -> BTreeMap<Row, i64> {
    let mut all = BTreeMap::new();
    for batch in table.snapshot().batches() {
        for row in rows_of(batch.expect("a batch").columns()) {
            *all.entry(row).or_default() += 1;
        }
    }
    all
}

/// All rows of these keys with their weights, by walking their chains.
fn looked_up(table: &mut MultiTable, keys: &[Option<i64>]) -> Vec<BTreeMap<Row, i64>> {
    let column: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
    let heads = table.heads(vec![column], keys.len()).expect("heads");
    let mut walk = Walk::new(&heads);
    let mut found = vec![BTreeMap::new(); keys.len()];
    let mut more = true;
    while more {
        let (mut batch_rows, mut ids) = (vec![], vec![]);
        more = table.walk(&mut walk, 7, &mut batch_rows, &mut ids);
        assert!(ids.len() <= 7);
        let rows = rows_of(&table.gather(&[0, 1], &ids).expect("gathers"));
        let weights = table.weights(&ids).unwrap_or_else(|| vec![1; ids.len()]);
        for ((batch_row, row), weight) in batch_rows.iter().zip(rows).zip(weights) {
            *found[*batch_row as usize].entry(row).or_default() += weight;
        }
    }
    found
}

#[test]
fn weights_settle_in_any_order() {
    let row = (Some(1), 10);
    for mut table in [
        MultiTable::bag(schema()).expect("a bag"),
        MultiTable::keyed(schema(), vec![0]).expect("a table"),
    ] {
        table.apply(&change(&[(row, 5)])).expect("applies");
        table.apply(&change(&[(row, -2), (row, 1)])).expect("applies");
        assert_eq!(content(&table), BTreeMap::from([(row, 4)]));
        table.apply(&change(&[(row, -6)])).expect("applies");
        assert!(table.has_negative_rows());
        assert_eq!(content(&table), BTreeMap::new());
        table.apply(&change(&[(row, 3), ((None, 10), 1)])).expect("applies");
        assert!(!table.has_negative_rows());
        assert_eq!(content(&table), BTreeMap::from([(row, 1), ((None, 10), 1)]));
        table.apply(&change(&[((None, 10), -1), (row, -1)])).expect("applies");
        assert_eq!(table.live_rows(), 0);
        table.apply(&change(&[(row, 1_000_000_000), (row, -999_999_999)])).expect("applies");
        assert_eq!((table.live_rows(), content(&table)), (1, BTreeMap::from([(row, 1)])));
    }
}

#[test]
fn append_only_tables_take_no_deletions() {
    let mut table = MultiTable::append_only(schema());
    table.apply(&change(&[((Some(1), 1), 1), ((Some(1), 1), 2)])).expect("applies");
    assert_eq!(content(&table), BTreeMap::from([((Some(1), 1), 3)]));
    assert!(table.apply(&change(&[((Some(1), 1), -1)])).is_err());
}

#[test]
fn rows_without_columns_are_counted() {
    let schema = Arc::new(Schema::empty());
    let mut table = MultiTable::bag(schema.clone()).expect("a bag");
    let options = RecordBatchOptions::new().with_row_count(Some(3));
    let rows = RecordBatch::try_new_with_options(schema, vec![], &options).expect("no columns");
    table.apply(&ChangeBatch::inserts(rows.clone())).expect("applies");
    table.apply(&ChangeBatch::new(rows, vec![-2, 7, -1]).expect("weights")).expect("applies");
    assert_eq!(table.snapshot().num_rows(), 7);
    let shown = table.snapshot().batches().map(|b| b.expect("a batch").num_rows());
    assert_eq!(shown.sum::<usize>(), 7);
}

#[test]
fn a_long_chain_gets_an_index_by_row() {
    let mut table = MultiTable::keyed(schema(), vec![0]).expect("a table");
    let rows: Vec<(Row, i64)> = (0..5000).map(|n| ((Some(7), n), 1)).collect();
    table.apply(&change(&rows)).expect("applies");
    table.apply(&change(&[((Some(7), 0), -1)])).expect("applies");
    assert!(table.by_row.is_some());
    let odd: Vec<(Row, i64)> =
        (1..5000).filter(|n| n % 2 == 1).map(|n| ((Some(7), n), -1)).collect();
    table.apply(&change(&odd)).expect("applies");
    let expected: BTreeMap<Row, i64> =
        (1..5000).filter(|n| n % 2 == 0).map(|n| ((Some(7), n), 1)).collect();
    assert_eq!(looked_up(&mut table, &[Some(7)])[0], expected);
    assert_eq!(content(&table), expected);
}

/// Random changes; content, lookups and counts against a map, with checkpoints and restores.
#[test]
fn random_changes_against_a_map() {
    let seed = std::env::var("MILLSTREAM_SEED").ok().and_then(|s| s.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| rand::rng().random());
    println!("MILLSTREAM_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    // Long chains; chains of some ten rows, with tags when a flood comes.
    for (deleting, keys) in [(false, 40), (true, 40), (true, 3000)] {
        random_changes(&mut random, deleting, keys);
    }
}

fn random_changes(random: &mut SmallRng, deleting: bool, keys: i64) {
    let keyed = || {
        let table = MultiTable::keyed(schema(), vec![0]).expect("a table").with_counts();
        if deleting { table.deleting() } else { table }
    };
    let mut table = keyed();
    let mut bag = MultiTable::bag(schema()).expect("a bag");
    let mut model: BTreeMap<Row, i64> = BTreeMap::new();
    let mut fold = CheckpointFold::default();
    let memory = StateMemory::always_full(std::env::temp_dir());
    let mut tagged = 0;
    for step in 0..if keys == 40 { 300 } else { 150 } {
        tagged += usize::from(table.by_key.as_ref().is_some_and(|chains| chains.tags.is_some()));
        if random.random_bool(0.3) {
            table.spill(&memory, EVERYTHING);
            bag.spill(&memory, EVERYTHING);
            // Checkpoints share what they were given.
            assert!((table.disk_bytes() + bag.disk_bytes()) as u64 <= memory.disk().now_bytes());
        }
        let mut rows: Vec<(Row, i64)> = Vec::new();
        let flood = step % 60 == 20;
        let fresh = if flood { 15_000..30_000 } else { 0..100 };
        for _ in 0..random.random_range(fresh) {
            let key = random.random_range(-1..keys);
            let text = random.random_range(0..if flood { 100_000 } else { 5 });
            rows.push((((key >= 0).then_some(key), text), random.random_range(1..3)));
        }
        if step % 60 == 22 {
            // Almost everything goes, so that the window has to move.
            rows.extend(model.iter().filter(|(r, _)| r.1 > 3).map(|(r, w)| (*r, -w)));
        }
        for (row, weight) in &model {
            if random.random_bool(0.2) {
                rows.push((*row, -random.random_range(1..=*weight)));
            }
        }
        let mut sums: BTreeMap<Row, i64> = model.clone();
        rows.iter().for_each(|(row, weight)| *sums.entry(*row).or_default() += weight);
        sums.retain(|_, weight| *weight != 0);
        // Deletions of rows that are not there are taken back by the next changes.
        rows.extend(sums.iter().filter(|(_, w)| **w < 0).map(|(row, w)| (*row, -w)));
        sums.retain(|_, weight| *weight > 0);
        model = sums;
        for _ in 0..rows.len() {
            let (a, b) = (random.random_range(0..rows.len()), random.random_range(0..rows.len()));
            rows.swap(a, b);
        }
        for part in rows.chunks(random.random_range(1..20_000)) {
            let counts: Vec<i64> = part.iter().map(|(row, _)| row.1 * 3).collect();
            table.apply_with_counts(&change(part), Some(&counts)).expect("applies");
            bag.apply(&change(part)).expect("applies");
        }
        assert!(!table.has_negative_rows() && !bag.has_negative_rows());
        let window = table.store.end() - table.store.base();
        assert!(window <= 4 * table.live_rows() as u64 + 64 * 1024, "window of {window} ids");
        if step % 5 == 0 {
            assert_eq!(content(&table), model, "step {step}");
            assert_eq!(content(&bag), model, "step {step}");
            let asked = [Some(3), Some(99), None, Some(3), Some(0)];
            let expected: Vec<BTreeMap<Row, i64>> = asked
                .iter()
                .map(|key| {
                    model.iter().filter(|(r, _)| r.0 == *key).map(|(r, w)| (*r, *w)).collect()
                })
                .collect();
            assert_eq!(looked_up(&mut table, &asked), expected, "step {step}");
        }
        if step % 10 == 0 {
            for segment in table.live() {
                let (ids, rows) = segment.expect("a segment");
                for (id, row) in ids.iter().zip(rows_of(rows.columns())) {
                    assert_eq!(table.count(*id), row.1 * 3);
                }
            }
            let mut writer = CheckpointWriter::default();
            writer.write("rows", table.checkpoint_delta().expect("a delta"));
            fold.apply(writer).expect("folds");
        }
        if step % 100 == 70 {
            let folds = [std::mem::take(&mut fold)];
            let mut reader = CheckpointReader::new(&folds, 0, 1).expect("reads");
            table = keyed();
            table.restore(reader.read("rows", &[0]).expect("rows")).expect("restores");
            assert_eq!(content(&table), model);
            let live: Vec<_> = table.live().map(|s| s.expect("a segment")).collect();
            for (ids, rows) in live {
                for (id, row) in ids.iter().zip(rows_of(rows.columns())) {
                    table.set_count(*id, row.1 * 3);
                }
            }
        }
    }
    assert!(keys == 40 || tagged > 10, "{tagged} steps with tags");
}

#[test]
fn equal_rows_leave_together_in_linear_time() {
    let rows = vec![((Some(1), 1), 1); 200_000];
    for mut table in [
        MultiTable::bag(schema()).expect("a bag"),
        MultiTable::keyed(schema(), vec![0]).expect("a table"),
    ] {
        table.apply(&change(&rows)).expect("applies");
        let gone: Vec<(Row, i64)> = rows.iter().map(|(row, _)| (*row, -1)).collect();
        table.apply(&change(&gone[1..])).expect("applies");
        assert_eq!(content(&table), BTreeMap::from([((Some(1), 1), 1)]));
    }
}

#[test]
fn a_hot_key_is_emptied_in_linear_time() {
    let mut table = MultiTable::keyed(schema(), vec![0]).expect("a table");
    let rows: Vec<(Row, i64)> = (0..100_000).map(|n| ((Some(1), n), 1)).collect();
    table.apply(&change(&rows)).expect("applies");
    let gone: Vec<(Row, i64)> = rows.iter().map(|(row, _)| (*row, -1)).collect();
    table.apply(&change(&gone)).expect("applies");
    assert_eq!(table.live_rows(), 0);
    assert!(looked_up(&mut table, &[Some(1)])[0].is_empty());
}

/// Rows `(n % keys, n / twins)`: so many of each key, each `twins` times.
fn numbered(rows: i64, keys: i64, twins: i64) -> Vec<(Row, i64)> {
    (0..rows).map(|n| ((Some(n / twins % keys), n / twins), 1)).collect()
}

#[test]
fn deletions_of_a_batch_find_their_rows_in_chains_with_twins() {
    // Chains of 40 rows, walked in step; then, where the table says that it will delete, by row;
    // and chains of 12 rows with tags.
    for (deleting, keys) in [(false, 300), (true, 300), (true, 1000)] {
        let table = MultiTable::keyed(schema(), vec![0]).expect("a table");
        let mut table = if deleting { table.deleting() } else { table };
        let rows = numbered(12_000, keys, 2);
        for part in rows.chunks(1000) {
            table.apply(&change(part)).expect("applies");
        }
        assert_eq!(table.by_row.is_some(), deleting && keys == 300, "chains of 40 rows are long");
        let tags = |table: &MultiTable| table.by_key.as_ref().is_some_and(|c| c.tags.is_some());
        assert_eq!(tags(&table), keys == 1000);
        // Of every third pair both, of the next one row; and rows that are not there.
        let mut deletions = Vec::new();
        for (n, (row, _)) in rows.iter().enumerate() {
            match (n / 2 % 3, n % 2) {
                (0, _) | (1, 0) => deletions.push((*row, -1)),
                _ => {}
            }
        }
        deletions.push(((Some(3), 1_000_000), -1));
        table.apply(&change(&deletions)).expect("applies");
        assert!(table.has_negative_rows());
        table.apply(&change(&[((Some(3), 1_000_000), 1)])).expect("applies");
        assert!(!table.has_negative_rows());
        let mut left = BTreeMap::new();
        for n in 0..6000 {
            match n % 3 {
                0 => {}
                other => assert!(left.insert((Some(n % keys), n), other).is_none()),
            }
        }
        assert_eq!(content(&table), left);
        let found = looked_up(&mut table, &[Some(7)]);
        let of_7: BTreeMap<Row, i64> =
            left.into_iter().filter(|((k, _), _)| *k == Some(7)).collect();
        assert_eq!(found, [of_7]);
    }
}

#[test]
fn a_table_that_will_delete_is_indexed_before_it_does() {
    let mut table = MultiTable::keyed(schema(), vec![0]).expect("a table").deleting();
    table.apply(&change(&numbered(4000, 10, 1))).expect("applies");
    assert!(table.by_row.is_none(), "it is small");
    table.apply(&change(&numbered(8000, 10, 1))).expect("applies");
    assert!(table.by_row.is_some());
    let mut short = MultiTable::keyed(schema(), vec![0]).expect("a table").deleting();
    short.apply(&change(&numbered(12_000, 1000, 1))).expect("applies");
    assert!(short.by_row.is_none(), "chains of 12 rows are walked");
}
