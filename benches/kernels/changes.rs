//! What one change costs the operators that keep much: Top-N, `min` and `max` that can lose their
//! best, joins that take back, window functions over one long partition; and what a join row weighs.
//!
//! Every kernel has state of a million rows before the clock starts.

use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Decimal128Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::functions_window::lead_lag::{lag_udwf, lead_udwf};
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::{
    WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::windows::create_window_expr;
use datafusion::scalar::ScalarValue;
use millstream::dataflow::operator::{Operator, Output};
use millstream::dataflow::operators::aggregate::{Aggregate, AggregateSpec};
use millstream::dataflow::operators::join::{Join, JoinSpec};
use millstream::dataflow::operators::over::{Over, OverSpec};
use millstream::dataflow::operators::top_n::{self, TopNSpec};
use millstream::plan::node::{
    AggregateCall, AggregateFunction, JoinKind, Phase, RankFunction, SortColumn,
};
use millstream::plan::window::{
    Distance, Edge, MovingFrame, Numbering, OpenFrame, RangeEdge, Summable, WindowCall,
};
use millstream::types::change::ChangeBatch;
use millstream::types::id::WorkerId;
use millstream::types::time::Epoch;

use super::{BATCH_ROWS, TABLE_ROWS, aggregate_call, batches_of, scatter};

/// Rows that show of each key.
const SHOWN_ROWS: u64 = 10;
/// Keys of Top-N: ten rows each.
const TOP_N_KEYS: i64 = TABLE_ROWS / 10;

/// Whether the command line asks for kernels of this name; making their state takes seconds.
pub(super) fn is_wanted(name: &str) -> bool {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_option = |argument: &str| argument.starts_with('-');
    // What follows an option is its value, but for those that have none.
    let is_value =
        |at: usize| at > 0 && is_option(&arguments[at - 1]) && arguments[at - 1] != "--bench";
    let filter = (0..arguments.len()).find(|at| !is_option(&arguments[*at]) && !is_value(*at));
    filter.is_none_or(|at| name.contains(&arguments[at]) || arguments[at].contains(name))
}

/// Key, value and two more integers: 32 bytes a row.
fn numbers(columns: [Vec<i64>; 4]) -> RecordBatch {
    let names = ["key", "value", "id", "more"];
    let fields = names.map(|name| Field::new(name, DataType::Int64, false));
    let columns: Vec<ArrayRef> =
        columns.into_iter().map(|values| Arc::new(Int64Array::from(values)) as ArrayRef).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields.to_vec())), columns).expect("four columns")
}

fn numbers_schema() -> SchemaRef {
    numbers([const { vec![] }; 4]).schema()
}

/// Rows numbered so, with keys and values that follow from their numbers.
fn rows_of(
    rows: std::ops::Range<i64>,
    key: impl Fn(i64) -> i64,
    value: impl Fn(i64) -> i64,
) -> RecordBatch {
    let of = |f: &dyn Fn(i64) -> i64| rows.clone().map(f).collect();
    numbers([of(&key), of(&value), of(&|n| n), of(&scatter)])
}

/// The rows `TABLE_ROWS` places behind go, these come: a table of one size.
fn replaced(
    rows: std::ops::Range<i64>,
    made: impl Fn(std::ops::Range<i64>) -> RecordBatch,
) -> ChangeBatch {
    let old = ChangeBatch::deletes(made(rows.start - TABLE_ROWS..rows.end - TABLE_ROWS));
    let new = ChangeBatch::inserts(made(rows));
    ChangeBatch::concat(&old.schema(), &[old.clone(), new]).expect("one schema")
}

/// Fills an operator with a million rows, epoch by epoch.
fn filled(
    mut operator: Box<dyn Operator>,
    made: impl Fn(std::ops::Range<i64>) -> RecordBatch,
) -> Box<dyn Operator> {
    let mut out = Output::default();
    for rows in batches_of(TABLE_ROWS) {
        operator.on_batch(0, ChangeBatch::inserts(made(rows)), &mut out).expect("takes rows");
    }
    operator.on_epoch(Epoch(1), &mut out).expect("completes");
    drop(out.take_batches());
    operator
}

/// Half a batch of rows goes and half a batch comes, an epoch each time.
fn replace_rows(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    id: BenchmarkId,
    operator: Box<dyn Operator>,
    made: impl Fn(std::ops::Range<i64>) -> RecordBatch,
) {
    let mut operator = filled(operator, &made);
    let (mut next, mut epoch) = (TABLE_ROWS, Epoch(1));
    let mut out = Output::default();
    group.throughput(Throughput::Elements(BATCH_ROWS as u64));
    group.bench_function(id, |bencher| {
        bencher.iter_batched(
            || {
                let rows = next..next + BATCH_ROWS / 2;
                next = rows.end;
                replaced(rows, &made)
            },
            |change| {
                operator.on_batch(0, change, &mut out).expect("takes rows");
                epoch = epoch.next();
                operator.on_epoch(epoch, &mut out).expect("completes");
                black_box(out.take_batches());
            },
            // One at a time: each input continues what the last one changed.
            BatchSize::PerIteration,
        );
    });
}

fn by_value_descending() -> Vec<SortColumn> {
    vec![SortColumn { column: 1, descending: true, nulls_first: false }]
}

fn top_n_operator(limit: u64, append_only: bool, partition: Vec<usize>) -> Box<dyn Operator> {
    top_n_of(top_n_spec(limit, append_only, partition))
}

/// The same with the number of each row.
fn numbered_top_n(limit: u64, append_only: bool, partition: Vec<usize>) -> Box<dyn Operator> {
    let mut fields: Vec<_> = numbers_schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("number", DataType::UInt64, false)));
    let schema = Arc::new(Schema::new(fields));
    top_n_of(TopNSpec { numbered: true, schema, ..top_n_spec(limit, append_only, partition) })
}

fn top_n_spec(limit: u64, append_only: bool, partition: Vec<usize>) -> TopNSpec {
    TopNSpec {
        partition,
        order_by: by_value_descending(),
        rank: RankFunction::RowNumber,
        offset: 0,
        limit: Some(limit),
        numbered: false,
        append_only,
        schema: numbers_schema(),
    }
}

fn top_n_of(spec: TopNSpec) -> Box<dyn Operator> {
    top_n::build(spec, &numbers_schema(), vec![]).expect("columns that have an order")
}

/// The first ten rows of each of a hundred thousand keys: of a stream that grows, in random order
/// and each row better than all before, with their numbers too, and of rows that are replaced. Changes in, an epoch for
/// each batch.
pub(super) fn top_n_per_key(criterion: &mut Criterion) {
    if !is_wanted("top_n_per_key") {
        return;
    }
    let mut group = criterion.benchmark_group("top_n_per_key");
    group.throughput(Throughput::Elements(BATCH_ROWS as u64));
    let key = |n: i64| scatter(n) % TOP_N_KEYS;
    type ValueOf = fn(i64) -> i64;
    let values: [(&str, ValueOf); 2] =
        [("growing, random", |n| scatter(n ^ 0x5555)), ("growing, newest first", |n| n)];
    for (name, value) in values {
        for (limit, numbered) in [(1, false), (SHOWN_ROWS, false), (SHOWN_ROWS, true)] {
            let made = |rows| rows_of(rows, key, value);
            let (operator, id) = match numbered {
                false => (top_n_operator(limit, true, vec![0]), BenchmarkId::new(name, limit)),
                true => {
                    let id = BenchmarkId::new(format!("{name}, numbered"), limit);
                    (numbered_top_n(limit, true, vec![0]), id)
                }
            };
            let mut operator = filled(operator, made);
            let (mut next, mut epoch) = (TABLE_ROWS, Epoch(1));
            let mut out = Output::default();
            group.bench_function(id, |bencher| {
                bencher.iter_batched(
                    || {
                        let rows = next..next + BATCH_ROWS;
                        next = rows.end;
                        ChangeBatch::inserts(made(rows))
                    },
                    |rows| {
                        operator.on_batch(0, rows, &mut out).expect("takes rows");
                        epoch = epoch.next();
                        operator.on_epoch(epoch, &mut out).expect("completes");
                        black_box(out.take_batches());
                    },
                    BatchSize::PerIteration,
                );
            });
        }
    }
    let made = |rows| rows_of(rows, key, |n| scatter(n ^ 0x5555));
    let operator = top_n_operator(SHOWN_ROWS, false, vec![0]);
    replace_rows(&mut group, BenchmarkId::new("replaced", SHOWN_ROWS), operator, made);
    group.finish();
}

/// `min` and `max` over groups of ten, a thousand and a million values, half of the changes
/// deletions of the oldest rows.
pub(super) fn retractable_min_max(criterion: &mut Criterion) {
    if !is_wanted("retractable_min_max") {
        return;
    }
    let mut group = criterion.benchmark_group("retractable_min_max");
    for function in [AggregateFunction::Min, AggregateFunction::Max] {
        for group_rows in [10, 1000, TABLE_ROWS] {
            let call = aggregate_call(function, &[1]);
            let fields = [
                Field::new("key", DataType::Int64, false),
                Field::new(&call.display, DataType::Int64, true),
            ];
            let id = BenchmarkId::new(call.display.clone(), group_rows);
            let spec = AggregateSpec {
                on_close: false,
                time_keys: vec![],
                keys: vec![0],
                calls: vec![call],
                append_only: false,
                phase: Phase::Whole,
                schema: Arc::new(Schema::new(fields.to_vec())),
            };
            let operator = Aggregate::new(spec, &numbers_schema(), WorkerId(0));
            let operator = Box::new(operator.expect("an aggregation"));
            let groups = TABLE_ROWS / group_rows;
            let made = |rows| rows_of(rows, |n| scatter(n) % groups, |n| scatter(n ^ 0x5555));
            replace_rows(&mut group, id, operator, made);
        }
    }
    group.finish();
}

fn join(append_only: bool, left: &SchemaRef, right: &SchemaRef) -> Join {
    let fields = left.fields().iter().chain(right.fields()).cloned();
    let spec = JoinSpec {
        aging: Default::default(),
        kind: JoinKind::Inner,
        keys: vec![(0, 0)],
        null_equals_null: false,
        residual: None,
        append_only,
        schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
    };
    Join::new(spec, left, right).expect("keys of one type")
}

/// Narrow rows against a million keys: a stream that grows, and one whose rows go again, with one
/// match each and with a hundred rows of the stream for each key.
pub(super) fn join_changes(criterion: &mut Criterion) {
    if !is_wanted("join_changes") {
        return;
    }
    let mut group = criterion.benchmark_group("join_changes");
    group.throughput(Throughput::Elements(BATCH_ROWS as u64));
    let schema = numbers_schema();
    for (name, keys) in [("1M keys", TABLE_ROWS), ("10k keys", TABLE_ROWS / 100)] {
        let build = |rows| rows_of(rows, |n| n, scatter);
        let probe = |rows| rows_of(rows, |n| scatter(n) % keys, scatter);
        for append_only in [true, false] {
            let mut join = join(append_only, &schema, &schema);
            let mut out = Output::default();
            let mut epoch = Epoch(1);
            for rows in batches_of(TABLE_ROWS) {
                join.on_batch(1, ChangeBatch::inserts(build(rows)), &mut out).expect("takes rows");
            }
            join.on_epoch(epoch, &mut out).expect("completes");
            let mut next = 0;
            if !append_only {
                for rows in batches_of(TABLE_ROWS) {
                    join.on_batch(0, ChangeBatch::inserts(probe(rows)), &mut out)
                        .expect("takes rows");
                    epoch = epoch.next();
                    join.on_epoch(epoch, &mut out).expect("completes");
                    drop(out.take_batches());
                }
                next = TABLE_ROWS;
            }
            let what = if append_only { "growing" } else { "replaced" };
            group.bench_function(BenchmarkId::new(what, name), |bencher| {
                bencher.iter_batched(
                    || {
                        let rows = if append_only { BATCH_ROWS } else { BATCH_ROWS / 2 };
                        let rows = next..next + rows;
                        next = rows.end;
                        match append_only {
                            true => ChangeBatch::inserts(probe(rows)),
                            false => replaced(rows, probe),
                        }
                    },
                    |change| {
                        join.on_batch(0, change, &mut out).expect("joins");
                        epoch = epoch.next();
                        join.on_epoch(epoch, &mut out).expect("completes");
                        black_box(out.take_batches());
                    },
                    BatchSize::PerIteration,
                );
            });
        }
    }
    group.finish();
}

/// A window function in the order of `value` from above, over all rows.
fn window(
    function: WindowFunctionDefinition,
    argument: Option<&str>,
    frame: Option<WindowFrame>,
    distances: (Distance, Distance),
) -> WindowCall {
    let schema = numbers_schema();
    let column = |name: &str| -> Arc<dyn PhysicalExpr> {
        Arc::new(Column::new_with_schema(name, &schema).expect("a column"))
    };
    let options = arrow::compute::SortOptions { descending: true, nulls_first: false };
    let order_by = PhysicalSortExpr { expr: column("value"), options };
    let display = function.name().to_owned();
    let arguments: Vec<Arc<dyn PhysicalExpr>> = argument.into_iter().map(column).collect();
    let frame = frame.unwrap_or_else(|| WindowFrame::new(Some(false)));
    let expr = create_window_expr(
        &function,
        display.clone(),
        &arguments,
        &[],
        &[order_by],
        Arc::new(frame),
        schema.clone(),
        false,
        false,
        None,
    );
    WindowCall::new(expr.expect("a window function"), distances, DataType::Int64, display)
}

fn sum_over(
    units: WindowFrameUnits,
    start: ScalarValue,
    distances: (Distance, Distance),
) -> WindowCall {
    let frame = WindowFrame::new_bounds(
        units,
        WindowFrameBound::Preceding(start),
        WindowFrameBound::CurrentRow,
    );
    let sum = WindowFunctionDefinition::AggregateUDF(sum_udaf());
    window(sum, Some("id"), Some(frame), distances)
}

/// The sum over so many rows before a row, and the row.
fn sum_over_rows(before: u64) -> WindowCall {
    let distances = (Distance::Rows(before), Distance::Rows(0));
    let sum = AggregateCall {
        display: format!("sum over {before} rows"),
        ..aggregate_call(AggregateFunction::Sum, &[2])
    };
    sum_over(WindowFrameUnits::Rows, ScalarValue::UInt64(Some(before)), distances).summed_up(Some(
        Summable::Sliding {
            call: sum,
            frame: MovingFrame::Rows { first: -(before as i64), last: 0 },
        },
    ))
}

fn over_operator(call: WindowCall) -> Box<dyn Operator> {
    let input = numbers_schema();
    let mut fields: Vec<_> = input.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("w", DataType::Int64, true)));
    let spec = OverSpec {
        partition: vec![],
        order_by: by_value_descending(),
        calls: vec![call],
        schema: Arc::new(Schema::new(fields)),
    };
    Box::new(Over::new(spec, &input).expect("columns that have an order"))
}

/// One partition of a million rows of which one row is replaced, an epoch each time: the time is
/// that of one change.
pub(super) fn over_one_change(criterion: &mut Criterion) {
    if !is_wanted("over_one_change") {
        return;
    }
    let mut group = criterion.benchmark_group("over_one_change");
    let rows = |preceding, following| (Distance::Rows(preceding), Distance::Rows(following));
    let range = |by: i64| Distance::Range(Arc::new(Int64Array::from(vec![by])));
    let udwf = WindowFunctionDefinition::WindowUDF;
    let running = AggregateCall {
        display: "running sum".to_owned(),
        ..aggregate_call(AggregateFunction::Sum, &[2])
    };
    let unbounded = ScalarValue::UInt64(None);
    let kernels: Vec<(&str, Box<dyn Operator>)> = vec![
        ("row_number <= 10", top_n_operator(SHOWN_ROWS, false, vec![])),
        ("row_number <= 1000", top_n_operator(1000, false, vec![])),
        ("row_number <= 1000, numbered", numbered_top_n(1000, false, vec![])),
        ("lag", over_operator(window(udwf(lag_udwf()), Some("id"), None, rows(1, 0)))),
        ("lead", over_operator(window(udwf(lead_udwf()), Some("id"), None, rows(0, 1)))),
        ("sum over 10 rows", over_operator(sum_over_rows(10))),
        ("sum over 100 rows", over_operator(sum_over_rows(100))),
        (
            "sum over a range of 10 rows",
            over_operator(
                sum_over(
                    WindowFrameUnits::Range,
                    ScalarValue::Int64(Some(10)),
                    (range(10), Distance::Groups(0)),
                )
                .summed_up(Some(Summable::Sliding {
                    call: aggregate_call(AggregateFunction::Sum, &[2]),
                    frame: MovingFrame::Range {
                        start: RangeEdge::Before(Arc::new(Int64Array::from(vec![10]))),
                        end: RangeEdge::Peers,
                    },
                })),
            ),
        ),
        (
            "row_number, at the end",
            over_operator(
                window(
                    udwf(row_number_udwf()),
                    None,
                    None,
                    (Distance::Unbounded, Distance::Rows(0)),
                )
                .summed_up(Some(Summable::Number(Numbering::RowNumber))),
            ),
        ),
        (
            "running sum, at the end",
            over_operator(
                sum_over(
                    WindowFrameUnits::Rows,
                    unbounded,
                    (Distance::Unbounded, Distance::Rows(0)),
                )
                .summed_up(Some(Summable::Aggregate {
                    call: running,
                    frame: OpenFrame::To(Edge::Row(0)),
                })),
            ),
        ),
    ];
    // An odd stride visits every place before any twice.
    let place = |n: i64| n * 620_929 % TABLE_ROWS;
    for (name, operator) in kernels {
        if !is_wanted(&format!("over_one_change/{name}")) {
            continue;
        }
        let at_the_end = name.ends_with("at the end");
        let mut operator = filled(operator, |rows| rows_of(rows, |_| 0, place));
        let (mut round, mut epoch) = (0, Epoch(1));
        let mut out = Output::default();
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || {
                    round += 1;
                    let id = match at_the_end {
                        // The least value is the last row; it comes and goes.
                        true => 0,
                        false => round / 2 * 7919 % TABLE_ROWS,
                    };
                    let row =
                        |value: i64| numbers([vec![0], vec![value], vec![id], vec![scatter(id)]]);
                    let (here, there) = (row(place(id)), row(-1 - place(id)));
                    let (old, new) = if round % 2 == 0 { (here, there) } else { (there, here) };
                    // The first round has nothing to take back.
                    let changes = match round {
                        1 => vec![],
                        _ => vec![ChangeBatch::deletes(old), ChangeBatch::inserts(new)],
                    };
                    ChangeBatch::concat(&numbers_schema(), &changes).expect("one schema")
                },
                |change| {
                    operator.on_batch(0, change, &mut out).expect("takes a change");
                    epoch = epoch.next();
                    operator.on_epoch(epoch, &mut out).expect("completes");
                    black_box(out.take_batches());
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// Key, 12 bytes of text, a numeric and a date: what a row of an order has.
fn order_rows(rows: std::ops::Range<i64>, key: impl Fn(i64) -> i64) -> RecordBatch {
    let texts = rows.clone().map(|n| format!("{:012x}", scatter(n) >> 16));
    let numerics = rows.clone().map(|n| i128::from(scatter(n) % 1_000_000));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.clone().map(key))),
        Arc::new(StringArray::from_iter_values(texts)),
        Arc::new(
            Decimal128Array::from_iter_values(numerics)
                .with_precision_and_scale(15, 2)
                .expect("six digits fit"),
        ),
        Arc::new(Date32Array::from_iter_values(rows.map(|n| n as i32 % 10_000))),
    ];
    let names = ["key", "text", "numeric", "date"];
    let fields = names.iter().zip(&columns);
    let fields = fields.map(|(name, c)| Field::new(*name, c.data_type().clone(), false));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    RecordBatch::try_new(schema, columns).expect("four columns")
}

/// What a join holds for each row, beside the row's size in Arrow; nothing is timed.
pub(super) fn join_memory(_: &mut Criterion) {
    if !is_wanted("join_memory") {
        return;
    }
    type Made = fn(std::ops::Range<i64>, i64) -> RecordBatch;
    let shapes: [(&str, Made); 2] = [
        ("four integers", |rows, keys| rows_of(rows, |n| scatter(n) % keys, scatter)),
        ("integer, text, numeric, date", |rows, keys| order_rows(rows, |n| scatter(n) % keys)),
    ];
    for (name, made) in shapes {
        for (per_key, keys) in [(1, i64::MAX), (5, TABLE_ROWS / 5), (100, TABLE_ROWS / 100)] {
            let schema = made(0..0, keys).schema();
            let mut join = join(false, &schema, &schema);
            let mut out = Output::default();
            let (mut arrow_bytes, mut epoch) = (0, Epoch(1));
            for rows in batches_of(TABLE_ROWS) {
                let rows = ChangeBatch::inserts(made(rows, keys));
                arrow_bytes += rows.size_bytes();
                join.on_batch(0, rows, &mut out).expect("takes rows");
                join.on_epoch(epoch, &mut out).expect("completes");
                epoch = epoch.next();
            }
            let held = join.memory_bytes();
            let per_row = |bytes: usize| bytes as f64 / TABLE_ROWS as f64;
            // Who reads no further is not an error.
            let _ = writeln!(
                std::io::stderr(),
                "join_memory/{name}, {per_key} per key: {:.1} bytes of Arrow a row, {:.1} held ({:.2} times)",
                per_row(arrow_bytes),
                per_row(held),
                held as f64 / arrow_bytes as f64,
            );
        }
    }
}
