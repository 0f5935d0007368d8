//! Hot kernels, one at a time: `cargo bench --bench kernels [FILTER]`.
//!
//! Batches have 8192 rows; throughput is in rows (or pairs). Tables hold a million rows before the
//! clock starts, with keys scattered over them, so what is measured is mostly memory.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use millstream::dataflow::exchange::split_by_hash;
use millstream::dataflow::operator::{Operator, Output};
use millstream::dataflow::operators::aggregate::{Aggregate, AggregateSpec};
use millstream::dataflow::operators::join::{Join, JoinSpec};
use millstream::frontend::encode::{Format, Style, encode_batch};
use millstream::plan::node::{AggregateCall, AggregateFunction, JoinKind, Phase};
use millstream::state::keyed_table::{KeyedTable, OnConflict};
use millstream::state::multi_table::{MultiTable, Walk};
use millstream::types::change::ChangeBatch;
use millstream::types::id::WorkerId;
use millstream::types::time::Epoch;

#[path = "kernels/changes.rs"]
mod changes;

const BATCH_ROWS: i64 = 8192;
const TABLE_ROWS: i64 = 1 << 20;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A number that looks random but is the same in every run.
fn scatter(n: i64) -> i64 {
    let n = (n as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 1) as i64
}

/// Four integers, a time, 20 and 100 bytes of text: 160 bytes a row.
fn wide_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Int64, false),
        Field::new("id", DataType::Int64, false),
        Field::new("value", DataType::Int64, false),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), false),
        Field::new("name", DataType::Utf8, false),
        Field::new("note", DataType::Utf8, false),
    ]))
}

/// Rows numbered `rows`, with these keys.
fn wide(rows: std::ops::Range<i64>, key: impl Fn(i64) -> i64) -> RecordBatch {
    let texts = |width: usize| {
        StringArray::from_iter_values(rows.clone().map(|n| format!("{:0width$x}", scatter(n))))
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.clone().map(key))),
        Arc::new(Int64Array::from_iter_values(rows.clone())),
        Arc::new(Int64Array::from_iter_values(rows.clone().map(scatter))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.clone())),
        Arc::new(texts(20)),
        Arc::new(texts(100)),
    ];
    RecordBatch::try_new(wide_schema(), columns).expect("six columns")
}

/// Key, text of the key and a value: what a small table has.
fn narrow(rows: std::ops::Range<i64>, key: impl Fn(i64) -> i64 + Clone, value: i64) -> RecordBatch {
    let schema = Arc::new(Schema::new(vec![
        Field::new("key", DataType::Int64, false),
        Field::new("text", DataType::Utf8, false),
        Field::new("value", DataType::Int64, false),
    ]));
    let keys = rows.clone().map(key);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(keys.clone())),
        Arc::new(StringArray::from_iter_values(keys.map(|k| format!("key {k:08}")))),
        Arc::new(Int64Array::from_iter_values(rows.map(|n| n + value))),
    ];
    RecordBatch::try_new(schema, columns).expect("three columns")
}

fn batches_of(rows: i64) -> impl Iterator<Item = std::ops::Range<i64>> {
    (0..rows / BATCH_ROWS).map(|batch| batch * BATCH_ROWS..(batch + 1) * BATCH_ROWS)
}

fn exchange_split(criterion: &mut Criterion) {
    if !changes::is_wanted("exchange_split") {
        return;
    }
    let mut group = criterion.benchmark_group("exchange_split");
    group.throughput(Throughput::Elements(BATCH_ROWS as u64));
    let batch = ChangeBatch::inserts(wide(0..BATCH_ROWS, scatter));
    for workers in [2, 8] {
        group.bench_with_input(
            BenchmarkId::from_parameter(workers),
            &workers,
            |bencher, workers| {
                bencher.iter(|| split_by_hash(black_box(&batch), &[0], *workers).expect("splits"));
            },
        );
    }
    group.finish();
}

fn keyed_upsert(criterion: &mut Criterion) {
    if !changes::is_wanted("keyed_upsert") {
        return;
    }
    let mut group = criterion.benchmark_group("keyed_upsert");
    group.throughput(Throughput::Elements(BATCH_ROWS as u64));
    for (name, key) in [("bigint", vec![0]), ("text", vec![1])] {
        let schema = narrow(0..0, |n| n, 0).schema();
        let mut table = KeyedTable::new(schema, key).expect("comparable keys");
        for rows in batches_of(TABLE_ROWS) {
            table.apply(&ChangeBatch::inserts(narrow(rows, |n| n, 0))).expect("fits");
        }
        let mut round = 0;
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || {
                    round += 1;
                    // An odd stride visits every key before any twice.
                    let key = |n: i64| (round * BATCH_ROWS + n) * 620_929 % TABLE_ROWS;
                    narrow(0..BATCH_ROWS, key, round)
                },
                |rows| {
                    let change = table.resolve_insert(&rows, OnConflict::Replace);
                    table.apply(&change.expect("resolves")).expect("applies");
                },
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// Looks up the keys of a batch, walks their chains and gathers three columns.
fn join_probe(criterion: &mut Criterion) {
    if !changes::is_wanted("join_probe") {
        return;
    }
    let mut group = criterion.benchmark_group("join_probe");
    for matches in [1, 5, 50] {
        let keys = TABLE_ROWS / matches;
        let mut table = MultiTable::keyed(wide_schema(), vec![0]).expect("comparable keys");
        for rows in batches_of(TABLE_ROWS) {
            let rows = wide(rows, |n| scatter(n % keys));
            table.apply(&ChangeBatch::inserts(rows)).expect("fits");
        }
        let probe: ArrayRef = Arc::new(Int64Array::from_iter_values(
            (0..BATCH_ROWS).map(|n| scatter(n * 620_929 % keys)),
        ));
        group.throughput(Throughput::Elements((BATCH_ROWS * matches) as u64));
        group.bench_function(BenchmarkId::new("matches", matches), |bencher| {
            bencher.iter(|| {
                let heads =
                    table.heads(vec![probe.clone()], BATCH_ROWS as usize).expect("looks up");
                let mut walk = Walk::new(&heads);
                let mut more = true;
                while more {
                    let (mut rows, mut ids) = (Vec::new(), Vec::new());
                    more = table.walk(&mut walk, BATCH_ROWS as usize, &mut rows, &mut ids);
                    black_box(table.gather(&[1, 2, 4], &ids).expect("gathers"));
                }
            });
        });
    }
    group.finish();
}

/// A stream that meets a table of a million rows, one match each: the operator as a whole.
fn join_operator(criterion: &mut Criterion) {
    if !changes::is_wanted("join_operator") {
        return;
    }
    let mut group = criterion.benchmark_group("join_operator");
    group.throughput(Throughput::Elements(BATCH_ROWS as u64));
    let (left, right) = (wide_schema(), narrow(0..0, |n| n, 0).schema());
    let fields = left.fields().iter().chain(right.fields()).cloned();
    let spec = JoinSpec {
        aging: Default::default(),
        kind: JoinKind::Inner,
        keys: vec![(0, 0)],
        null_equals_null: false,
        residual: None,
        append_only: true,
        schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
    };
    let mut join = Join::new(spec, &left, &right).expect("keys of one type");
    let mut out = Output::default();
    for rows in batches_of(TABLE_ROWS) {
        let rows = ChangeBatch::inserts(narrow(rows, |n| n, 0));
        join.on_batch(1, rows, &mut out).expect("takes rows");
    }
    let rows = ChangeBatch::inserts(wide(0..BATCH_ROWS, |n| scatter(n) % TABLE_ROWS));
    group.bench_function("stream_to_table", |bencher| {
        bencher.iter(|| {
            join.on_batch(0, rows.clone(), &mut out).expect("joins");
            black_box(out.take_batches())
        });
    });
    group.finish();
}

fn segments(criterion: &mut Criterion) {
    if !changes::is_wanted("segments") {
        return;
    }
    let mut group = criterion.benchmark_group("segments");
    for (name, rows) in [("append_1k", 1024), ("append_8k", BATCH_ROWS)] {
        group.throughput(Throughput::Elements(16 * rows as u64));
        let batch = ChangeBatch::inserts(wide(0..rows, scatter));
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || MultiTable::append_only(wide_schema()),
                |table| (0..16).for_each(|_| table.apply(&batch).expect("fits")),
                criterion::BatchSize::LargeInput,
            );
        });
    }
    // Every row of the view is replaced in turn.
    group.throughput(Throughput::Elements(2 * BATCH_ROWS as u64));
    let schema = narrow(0..0, |n| n, 0).schema();
    let mut bag = MultiTable::bag(schema.clone()).expect("comparable rows");
    for rows in batches_of(TABLE_ROWS) {
        bag.apply(&ChangeBatch::inserts(narrow(rows, |n| n, 0))).expect("fits");
    }
    let mut at = 0;
    let mut value = 0;
    group.bench_function("bag_delete_and_insert", |bencher| {
        bencher.iter_batched(
            || {
                let rows = at..at + BATCH_ROWS;
                let old = ChangeBatch::deletes(narrow(rows.clone(), |n| n, value));
                let new = ChangeBatch::inserts(narrow(rows, |n| n, value + 1));
                at += BATCH_ROWS;
                if at == TABLE_ROWS {
                    (at, value) = (0, value + 1);
                }
                ChangeBatch::concat(&schema, &[old, new]).expect("one schema")
            },
            |change| bag.apply(&change).expect("applies"),
            // One at a time: each input continues what the last one changed.
            criterion::BatchSize::PerIteration,
        );
    });
    group.throughput(Throughput::Elements(TABLE_ROWS as u64));
    group.bench_function("snapshot_scan", |bencher| {
        bencher.iter(|| {
            let rows = bag.snapshot().batches().map(|b| b.expect("a batch").num_rows());
            assert_eq!(rows.sum::<usize>(), TABLE_ROWS as usize);
        });
    });
    group.finish();
}

fn aggregate_call(function: AggregateFunction, arguments: &[usize]) -> AggregateCall {
    let return_type = match function {
        AggregateFunction::Avg => DataType::Float64,
        _ => DataType::Int64,
    };
    AggregateCall {
        function,
        arguments: arguments.to_vec(),
        distinct: false,
        filter: None,
        order_by: vec![],
        return_type,
        display: format!("{function:?}"),
    }
}

/// Rows into a million groups: the batches alone, and with an epoch every 64 Ki rows, whose changes
/// are emitted.
fn aggregate(criterion: &mut Criterion) {
    if !changes::is_wanted("aggregate") {
        return;
    }
    use AggregateFunction as F;
    let calls: [(&str, usize, Vec<AggregateCall>, bool); 5] = [
        ("count", 0, vec![aggregate_call(F::Count, &[])], true),
        ("count by text", 1, vec![aggregate_call(F::Count, &[])], true),
        (
            "count, sum, avg, max",
            0,
            [F::Sum, F::Avg, F::Max]
                .map(|function| aggregate_call(function, &[2]))
                .into_iter()
                .chain([aggregate_call(F::Count, &[])])
                .collect(),
            true,
        ),
        ("sum, retractable", 0, vec![aggregate_call(F::Sum, &[2])], false),
        ("max, retractable", 0, vec![aggregate_call(F::Max, &[2])], false),
    ];
    let mut group = criterion.benchmark_group("aggregate");
    group.throughput(Throughput::Elements(BATCH_ROWS as u64));
    let batches: Vec<ChangeBatch> = batches_of(4 * TABLE_ROWS)
        .map(|rows| ChangeBatch::inserts(narrow(rows, |n| scatter(n) % TABLE_ROWS, 0)))
        .collect();
    let input = batches[0].schema();
    for (name, key, calls, append_only) in &calls {
        let mut fields = vec![input.field(*key).clone()];
        fields.extend(calls.iter().map(|c| Field::new(&c.display, c.return_type.clone(), true)));
        let spec = AggregateSpec {
            on_close: false,
            time_keys: vec![],
            keys: vec![*key],
            calls: calls.clone(),
            append_only: *append_only,
            phase: Phase::Whole,
            schema: Arc::new(Schema::new(fields)),
        };
        for batches_per_epoch in [usize::MAX, 8] {
            let mut operator =
                Aggregate::new(spec.clone(), &input, WorkerId(0)).expect("an aggregation");
            let mut out = Output::default();
            for batch in &batches {
                operator.on_batch(0, batch.clone(), &mut out).expect("takes a batch");
            }
            let mut epoch = Epoch(1);
            operator.on_epoch(epoch, &mut out).expect("completes");
            out.take_batches();
            let mut next = 0;
            let what = if batches_per_epoch == 8 { "with epochs" } else { "batches" };
            group.bench_function(BenchmarkId::new(*name, what), |bencher| {
                bencher.iter(|| {
                    let batch = batches[next % batches.len()].clone();
                    operator.on_batch(0, batch, &mut out).expect("takes a batch");
                    next += 1;
                    if next.is_multiple_of(batches_per_epoch) {
                        epoch = epoch.next();
                        operator.on_epoch(epoch, &mut out).expect("completes");
                        black_box(out.take_batches());
                    }
                });
            });
        }
    }
    group.finish();
}

fn settings() -> Criterion {
    Criterion::default().sample_size(20).measurement_time(Duration::from_secs(3))
}

/// Rows of a result as DataRow messages: what a SELECT costs once its rows are there.
fn row_encoding(criterion: &mut Criterion) {
    if !changes::is_wanted("row encoding on the wire") {
        return;
    }
    let mut group = criterion.benchmark_group("row encoding on the wire");
    group.throughput(Throughput::Elements(BATCH_ROWS as u64));
    let rows = 0..BATCH_ROWS;
    let numbers = || rows.clone().map(scatter);
    let columns: [(&str, ArrayRef); 5] = [
        ("bigint", Arc::new(Int64Array::from_iter_values(numbers()))),
        ("double", Arc::new(Float64Array::from_iter_values(numbers().map(|n| n as f64 / 1e9)))),
        (
            "timestamp",
            Arc::new(TimestampMicrosecondArray::from_iter_values(numbers().map(|n| n >> 12))),
        ),
        (
            "numeric",
            Arc::new(
                Decimal128Array::from_iter_values(numbers().map(i128::from))
                    .with_precision_and_scale(30, 4)
                    .expect("19 digits fit"),
            ),
        ),
        ("text", Arc::new(StringArray::from_iter_values(numbers().map(|n| format!("{n:020x}"))))),
    ];
    let one = |name: &str, column: &ArrayRef| {
        let field = Field::new(name, column.data_type().clone(), false);
        RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![column.clone()])
            .expect("one column")
    };
    let mut batches: Vec<(&str, RecordBatch)> =
        columns.iter().map(|(name, column)| (*name, one(name, column))).collect();
    batches.push(("six columns, 160 bytes", wide(rows.clone(), scatter)));
    for (name, batch) in &batches {
        for format in [Format::Text, Format::Binary] {
            let formats = vec![format; batch.num_columns()];
            let id = BenchmarkId::new(format!("{format:?}"), name);
            let mut out = BytesMut::new();
            group.bench_with_input(id, batch, |bencher, batch| {
                bencher.iter(|| {
                    out.clear();
                    encode_batch(black_box(batch), &formats, &Style::default(), &mut out)
                        .expect("every type has both formats");
                    black_box(out.len())
                });
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = kernels;
    config = settings();
    targets = exchange_split, keyed_upsert, join_probe, join_operator, segments, aggregate,
        row_encoding, changes::join_changes, changes::top_n_per_key, changes::retractable_min_max,
        changes::over_one_change, changes::join_memory
}
criterion_main!(kernels);
