use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::memory::spill::EVERYTHING;
use crate::state::delta::{CheckpointFold, CheckpointReader, CheckpointWriter};

type Row = (i64, String, i64);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("a", DataType::Int64, true),
        Field::new("b", DataType::Utf8, true),
        Field::new("v", DataType::Int64, true),
    ]))
}

fn batch(rows: &[Row]) -> RecordBatch {
    RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1.as_str()))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.2))),
        ],
    )
    .expect("three columns")
}

fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let a = batch.column(0).as_primitive::<Int64Type>();
    let b = batch.column(1).as_string::<i32>();
    let v = batch.column(2).as_primitive::<Int64Type>();
    (0..batch.num_rows()).map(|r| (a.value(r), b.value(r).to_owned(), v.value(r))).collect()
}

fn row(a: i64, b: &str, v: i64) -> Row {
    (a, b.to_owned(), v)
}

fn change(rows: &[(Row, i64)]) -> ChangeBatch {
    let values: Vec<Row> = rows.iter().map(|r| r.0.clone()).collect();
    ChangeBatch::new(batch(&values), rows.iter().map(|r| r.1).collect()).expect("weights")
}

fn content(table: &KeyedTable) -> Vec<Row> {
    let batches = table.snapshot().batches().collect::<Result<Vec<_>>>().expect("batches");
    let mut all: Vec<Row> = batches.iter().flat_map(rows_of).collect();
    all.sort();
    all
}

/// A table keyed by (a, b) with rows 1 x 10 and 2 y 20.
fn table() -> KeyedTable {
    let mut table = KeyedTable::new(schema(), vec![0, 1]).expect("a table");
    let rows = batch(&[row(1, "x", 10), row(2, "y", 20)]);
    table.apply(&ChangeBatch::inserts(rows)).expect("applies");
    table
}

#[test]
fn find_gives_the_old_rows_of_those_that_have_one() {
    let asked = batch(&[row(2, "y", 0), row(2, "x", 0), row(1, "x", 0)]);
    let found = table().find(&asked).expect("finds");
    assert_eq!(found.asked.values().to_vec(), [0, 2]);
    assert_eq!(rows_of(&found.rows), [row(2, "y", 20), row(1, "x", 10)]);
}

#[test]
fn conflicts_are_resolved_by_rule() {
    let table = table();
    let new = batch(&[row(1, "x", 11), row(3, "z", 30), row(3, "z", 31)]);
    let ignored = table.resolve_insert(&new, OnConflict::Ignore).expect("resolves");
    assert!(ignored.all_inserts());
    assert_eq!(rows_of(ignored.rows()), [row(3, "z", 30)]);
    let replaced = table.resolve_insert(&new, OnConflict::Replace).expect("resolves");
    assert_eq!(rows_of(replaced.rows()), [row(1, "x", 10), row(1, "x", 11), row(3, "z", 31)]);
    assert_eq!(replaced.weights_vec(), [-1, 1, 1]);
    let error = table.resolve_insert(&new, OnConflict::Error).expect_err("1 x exists");
    assert_eq!(error.sqlstate(), SqlState::UNIQUE_VIOLATION);
    assert_eq!(error.body().detail.as_deref(), Some("Key (a, b)=(1, x) already exists."));
    let twice = batch(&[row(3, "z", 30), row(4, "q", 0), row(3, "z", 31)]);
    assert!(table.resolve_insert(&twice, OnConflict::Error).is_err());
    let fresh = batch(&[row(3, "z", 30)]);
    assert_eq!(table.resolve_insert(&fresh, OnConflict::Error).expect("resolves").num_rows(), 1);
}

#[test]
fn changes_apply_in_any_order_or_not_at_all() {
    let mut table = table();
    let update = [(row(1, "x", 11), 1), (row(1, "x", 10), -1)];
    table.apply(&change(&update)).expect("new before old");
    let chain = [
        (row(1, "x", 11), -1),
        (row(1, "x", 12), 1),
        (row(1, "x", 12), -1),
        (row(1, "x", 13), 1),
        (row(5, "n", 0), 1),
        (row(5, "n", 0), -1),
    ];
    table.apply(&change(&chain)).expect("only the sum counts");
    let swap =
        [(row(1, "x", 13), -1), (row(2, "y", 20), -1), (row(1, "x", 20), 1), (row(2, "y", 13), 1)];
    table.apply(&change(&swap)).expect("keys swap values");
    let before = content(&table);
    assert_eq!(before, [row(1, "x", 20), row(2, "y", 13)]);
    for wrong in [
        vec![(row(9, "new", 0), 1), (row(1, "x", 99), 1)],
        vec![(row(9, "new", 0), 1), (row(9, "new", 1), 1)],
        vec![(row(9, "new", 0), 2)],
        vec![(row(2, "y", 13), -1), (row(1, "x", 99), 1)],
    ] {
        let error = table.apply(&change(&wrong)).expect_err("a key twice");
        assert_eq!(error.sqlstate(), SqlState::UNIQUE_VIOLATION, "{error:?}");
        assert_eq!(content(&table), before);
    }
    assert!(table.apply(&change(&[(row(7, "no", 0), -1)])).is_err());
    assert_eq!(content(&table), before);
}

#[test]
fn truncate_removes_everything_and_can_be_undone() {
    let mut table = table();
    let removed = table.truncate().expect("truncates");
    assert_eq!((table.num_rows(), content(&table)), (0, vec![]));
    for change in removed {
        table.apply(&change.negate()).expect("undoes");
    }
    assert_eq!(content(&table), [row(1, "x", 10), row(2, "y", 20)]);
}

#[test]
fn random_upserts_and_deletes_against_a_map() {
    let seed = std::env::var("MILLSTREAM_SEED").ok().and_then(|s| s.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| rand::rng().random());
    println!("MILLSTREAM_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    for key in [vec![0], vec![0, 1], vec![1]] {
        let mut table = KeyedTable::new(schema(), key.clone()).expect("a table");
        let mut model: BTreeMap<i64, Row> = BTreeMap::new();
        let mut fold = CheckpointFold::default();
        let memory = StateMemory::always_full(std::env::temp_dir());
        for step in 0..150 {
            if random.random_bool(0.3) {
                table.spill(&memory, EVERYTHING);
            }
            let upserts: Vec<Row> = (0..random.random_range(0..300))
                .map(|_| {
                    let a = random.random_range(0..3000);
                    (a, format!("k{a}"), random.random_range(0..5))
                })
                .collect();
            let resolved = table.resolve_insert(&batch(&upserts), OnConflict::Replace);
            table.apply(&resolved.expect("resolves")).expect("applies");
            model.extend(upserts.into_iter().map(|r| (r.0, r)));
            let dying: Vec<Row> = model
                .values()
                .filter(|_| random.random_bool(if step % 40 == 39 { 0.99 } else { 0.1 }))
                .cloned()
                .collect();
            table.apply(&ChangeBatch::deletes(batch(&dying))).expect("applies");
            dying.iter().for_each(|r| assert!(model.remove(&r.0).is_some()));
            if step % 10 == 0 {
                assert_eq!(content(&table), model.values().cloned().collect::<Vec<_>>());
                let mut writer = CheckpointWriter::default();
                writer.write("rows", table.checkpoint_delta().expect("a delta"));
                fold.apply(writer).expect("folds");
            }
            if step % 50 == 30 {
                let folds = [std::mem::take(&mut fold)];
                let mut reader = CheckpointReader::new(&folds, 0, 1).expect("reads");
                table = KeyedTable::new(schema(), key.clone()).expect("a table");
                table.restore(reader.read("rows", &key).expect("rows")).expect("restores");
                assert_eq!(content(&table), model.values().cloned().collect::<Vec<_>>());
            }
        }
    }
}
