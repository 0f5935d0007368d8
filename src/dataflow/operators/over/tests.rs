use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Int64Array, RecordBatch};
use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use datafusion::functions_aggregate::bit_and_or_xor::{bit_and_udaf, bit_or_udaf, bit_xor_udaf};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::functions_window::cume_dist::cume_dist_udwf;
use datafusion::functions_window::lead_lag::lag_udwf;
use datafusion::functions_window::ntile::ntile_udwf;
use datafusion::functions_window::rank::{dense_rank_udwf, percent_rank_udwf, rank_udwf};
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::{
    Operator as Op, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
};
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::windows::create_window_expr;
use datafusion::scalar::ScalarValue;
use expect_test::{Expect, expect};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::dataflow::script::{self, Driven, batch as rows, row_texts, schema};
use crate::plan::node::{AggregateCall, AggregateFunction};
use crate::plan::window::{Distance, Edge, MovingFrame, Numbering, OpenFrame, RangeEdge, Summable};

const COLUMNS: &str = "p bigint, v bigint, t bigint";

fn column(name: &str) -> Arc<dyn PhysicalExpr> {
    Arc::new(Column::new_with_schema(name, &schema(COLUMNS)).expect("a column"))
}

/// A call over partitions by `p` in the order of `v` from above.
fn call(
    function: WindowFunctionDefinition,
    arguments: &[Arc<dyn PhysicalExpr>],
    frame: Option<WindowFrame>,
    distances: (Distance, Distance),
) -> WindowCall {
    let options = SortOptions { descending: true, nulls_first: false };
    let order_by = PhysicalSortExpr { expr: column("v"), options };
    let display =
        format!("{}({})", function.name(), frame.as_ref().map_or(String::new(), |f| f.to_string()));
    let frame = frame.unwrap_or_else(|| WindowFrame::new(Some(false)));
    let expr = create_window_expr(
        &function,
        display.clone(),
        arguments,
        &[column("p")],
        &[order_by],
        Arc::new(frame),
        schema(COLUMNS),
        false,
        false,
        None,
    );
    let types = [DataType::Int64, DataType::Float64];
    let expr = expr.expect("a window function");
    let field = expr.field().expect("it has a type");
    let return_type = types[usize::from(field.data_type().is_floating())].clone();
    WindowCall::new(expr, distances, return_type, display)
}

fn preceding(n: ScalarValue) -> WindowFrameBound {
    WindowFrameBound::Preceding(n)
}

fn following(n: ScalarValue) -> WindowFrameBound {
    WindowFrameBound::Following(n)
}

fn count_of(n: u64) -> ScalarValue {
    ScalarValue::UInt64(Some(n))
}

fn value(n: i64) -> ScalarValue {
    ScalarValue::Int64(Some(n))
}

fn offset(n: i64) -> Distance {
    Distance::Range(Arc::new(Int64Array::from(vec![n])))
}

/// A sum of `t` over a frame.
fn sum(
    units: WindowFrameUnits,
    start: WindowFrameBound,
    end: WindowFrameBound,
    distances: (Distance, Distance),
) -> WindowCall {
    let frame = WindowFrame::new_bounds(units, start, end);
    call(WindowFunctionDefinition::AggregateUDF(sum_udaf()), &[column("t")], Some(frame), distances)
}

/// What a call of `t` over some frame aggregates.
fn aggregate_of(function: AggregateFunction, call: &WindowCall) -> AggregateCall {
    AggregateCall {
        function,
        arguments: vec![2],
        distinct: false,
        filter: None,
        order_by: vec![],
        return_type: DataType::Int64,
        display: call.display.clone(),
    }
}

/// An aggregate of `t` over a frame that reaches to an end of the partition.
fn open(
    function: AggregateFunction,
    frame: OpenFrame,
    (units, start, end): (WindowFrameUnits, WindowFrameBound, WindowFrameBound),
) -> WindowCall {
    let of = |edge: Edge| match edge {
        Edge::Row(by) => {
            (Distance::Rows(by.min(0).unsigned_abs()), Distance::Rows(by.max(0) as u64))
        }
        Edge::Peers => (Distance::Groups(0), Distance::Groups(0)),
    };
    let distances = match frame {
        OpenFrame::All => (Distance::Unbounded, Distance::Unbounded),
        OpenFrame::To(edge) => (Distance::Unbounded, of(edge).1),
        OpenFrame::From(edge) => (of(edge).0, Distance::Unbounded),
    };
    let aggregate = match function {
        AggregateFunction::Sum => sum_udaf(),
        AggregateFunction::Count => count_udaf(),
        AggregateFunction::Min => min_udaf(),
        AggregateFunction::Max => max_udaf(),
        AggregateFunction::BitAnd => bit_and_udaf(),
        AggregateFunction::BitOr => bit_or_udaf(),
        AggregateFunction::BitXor => bit_xor_udaf(),
        other => panic!("{other:?} is not tested here"),
    };
    let bounds = WindowFrame::new_bounds(units, start, end);
    let aggregate = WindowFunctionDefinition::AggregateUDF(aggregate);
    let call = call(aggregate, &[column("t")], Some(bounds), distances);
    let aggregate = aggregate_of(function, &call);
    call.summed_up(Some(Summable::Aggregate { call: aggregate, frame }))
}

/// Calls that are computed from sums, all of them.
fn open_calls() -> Vec<WindowCall> {
    use AggregateFunction as F;
    use Distance::{Groups, Rows, Unbounded};
    use WindowFrameUnits as Units;
    let here = WindowFrameBound::CurrentRow;
    let from_start = preceding(ScalarValue::UInt64(None));
    let to_end = following(ScalarValue::UInt64(None));
    let (from_least, to_greatest) =
        (preceding(ScalarValue::Int64(None)), following(ScalarValue::Int64(None)));
    let number = |function, arguments: &[Arc<dyn PhysicalExpr>], distances, number| {
        let call = call(WindowFunctionDefinition::WindowUDF(function), arguments, None, distances);
        call.summed_up(Some(Summable::Number(number)))
    };
    let three: Arc<dyn PhysicalExpr> = Arc::new(Literal::new(value(3)));
    let mut calls = vec![
        number(row_number_udwf(), &[], (Unbounded, Rows(0)), Numbering::RowNumber),
        number(rank_udwf(), &[], (Unbounded, Rows(0)), Numbering::Rank),
        number(dense_rank_udwf(), &[], (Unbounded, Rows(0)), Numbering::DenseRank),
        number(percent_rank_udwf(), &[], (Unbounded, Unbounded), Numbering::PercentRank),
        number(cume_dist_udwf(), &[], (Unbounded, Unbounded), Numbering::CumeDist),
        number(ntile_udwf(), &[three], (Unbounded, Unbounded), Numbering::Ntile(3)),
    ];
    for function in [F::Sum, F::Count, F::Min, F::Max, F::BitAnd, F::BitOr, F::BitXor] {
        let to = |edge, units, start: &WindowFrameBound, end: &WindowFrameBound| {
            open(function, OpenFrame::To(edge), (units, start.clone(), end.clone()))
        };
        calls.push(to(Edge::Row(0), Units::Rows, &from_start, &here));
        calls.push(to(Edge::Peers, Units::Range, &from_least, &here));
        calls.push(to(Edge::Peers, Units::Groups, &from_start, &here));
        calls.push(to(Edge::Row(2), Units::Rows, &from_start, &following(count_of(2))));
        calls.push(to(Edge::Row(-2), Units::Rows, &from_start, &preceding(count_of(2))));
        let from = |edge, units, start: &WindowFrameBound, end: &WindowFrameBound| {
            open(function, OpenFrame::From(edge), (units, start.clone(), end.clone()))
        };
        // DataFusion, which the values are compared with, cannot move the start of these, or
        // not where all values leave.
        if !matches!(function, F::BitAnd | F::BitOr | F::BitXor) {
            calls.push(from(Edge::Row(0), Units::Rows, &here, &to_end));
            calls.push(from(Edge::Peers, Units::Range, &here, &to_greatest));
            calls.push(from(Edge::Row(2), Units::Rows, &following(count_of(2)), &to_end));
            calls.push(from(Edge::Row(-1), Units::Rows, &preceding(count_of(1)), &to_end));
        }
        calls.push(open(
            function,
            OpenFrame::All,
            (Units::Rows, from_start.clone(), to_end.clone()),
        ));
    }
    // One that is computed row by row, beside them.
    calls.push(sum(
        Units::Groups,
        preceding(count_of(1)),
        following(count_of(1)),
        (Groups(1), Groups(1)),
    ));
    calls
}

/// Calls over frames of so many rows that move along, all of them.
fn moving_calls() -> Vec<WindowCall> {
    let bound = |by: i64| match by {
        0 => WindowFrameBound::CurrentRow,
        ..0 => preceding(count_of(by.unsigned_abs())),
        _ => following(count_of(by as u64)),
    };
    let mut calls = Vec::new();
    for (first, last) in [(-2, 0), (-1, 2), (1, 2), (-3, -1), (0, 0), (0, 4), (-20, 1)] {
        for (function, udaf) in
            [(AggregateFunction::Sum, sum_udaf()), (AggregateFunction::Count, count_udaf())]
        {
            let frame = WindowFrame::new_bounds(WindowFrameUnits::Rows, bound(first), bound(last));
            let distances =
                (Distance::Rows(first.min(0).unsigned_abs()), Distance::Rows(last.max(0) as u64));
            let udaf = WindowFunctionDefinition::AggregateUDF(udaf);
            let call = call(udaf, &[column("t")], Some(frame), distances);
            let aggregate = aggregate_of(function, &call);
            let frame = MovingFrame::Rows { first, last };
            calls.push(call.summed_up(Some(Summable::Sliding { call: aggregate, frame })));
        }
    }
    for (start, end) in [(-2, 0), (-3, 4), (1, 6), (-5, -2), (0, 0), (0, 3)] {
        let bound = |by: i64| match by {
            0 => WindowFrameBound::CurrentRow,
            ..0 => preceding(value(-by)),
            _ => following(value(by)),
        };
        let edge = |by: i64| match by {
            0 => RangeEdge::Peers,
            ..0 => RangeEdge::Before(Arc::new(Int64Array::from(vec![-by]))),
            _ => RangeEdge::After(Arc::new(Int64Array::from(vec![by]))),
        };
        let distances = (offset((-start).max(0)), offset(end.max(0)));
        let call = sum(WindowFrameUnits::Range, bound(start), bound(end), distances);
        let aggregate = aggregate_of(AggregateFunction::Sum, &call);
        let frame = MovingFrame::Range { start: edge(start), end: edge(end) };
        calls.push(call.summed_up(Some(Summable::Sliding { call: aggregate, frame })));
    }
    calls
}

fn calls() -> Vec<WindowCall> {
    use Distance::{Groups, Rows, Unbounded};
    use WindowFrameUnits as Units;
    let here = WindowFrameBound::CurrentRow;
    let all = || preceding(ScalarValue::UInt64(None));
    let window = |function| WindowFunctionDefinition::WindowUDF(function);
    vec![
        call(window(row_number_udwf()), &[], None, (Unbounded, Rows(0))),
        call(window(rank_udwf()), &[], None, (Unbounded, Rows(0))),
        call(window(lag_udwf()), &[column("t")], None, (Rows(1), Rows(0))),
        sum(Units::Rows, preceding(count_of(2)), here.clone(), (Rows(2), Rows(0))),
        sum(Units::Rows, preceding(count_of(1)), following(count_of(2)), (Rows(1), Rows(2))),
        sum(Units::Rows, following(count_of(1)), following(count_of(2)), (Rows(0), Rows(2))),
        sum(Units::Groups, preceding(count_of(1)), following(count_of(1)), (Groups(1), Groups(1))),
        sum(Units::Range, preceding(value(2)), following(value(1)), (offset(2), offset(1))),
        sum(Units::Range, all(), here.clone(), (Unbounded, Groups(0))),
        sum(Units::Range, here, following(ScalarValue::Int64(None)), (Groups(0), Unbounded)),
        call(
            WindowFunctionDefinition::AggregateUDF(max_udaf()),
            &[column("t")],
            Some(WindowFrame::new(None)),
            (Unbounded, Unbounded),
        ),
        call(
            WindowFunctionDefinition::AggregateUDF(count_udaf()),
            &[column("t")],
            Some(WindowFrame::new_bounds(
                Units::Groups,
                preceding(count_of(2)),
                preceding(count_of(1)),
            )),
            (Groups(2), Groups(0)),
        ),
    ]
}

fn spec(calls: Vec<WindowCall>) -> OverSpec {
    let name = |call: &WindowCall| match call.return_type.is_floating() {
        true => "double",
        false => "bigint",
    };
    let added: Vec<String> =
        calls.iter().enumerate().map(|(i, call)| format!(", c{i} {}", name(call))).collect();
    OverSpec {
        partition: vec![0],
        order_by: vec![SortColumn { column: 1, descending: true, nulls_first: false }],
        schema: schema(&format!("{COLUMNS}{}", added.concat())),
        calls,
    }
}

fn over(spec: OverSpec) -> Box<dyn Operator> {
    Box::new(Over::new(spec, &schema(COLUMNS)).expect("sortable columns"))
}

/// Blocks of two to four rows for partitions of at least six.
const SMALL: Sizes = Sizes { partition_rows_min: 6, block_rows: (2, 4) };

fn over_in_blocks(spec: OverSpec) -> Box<dyn Operator> {
    let mut over = Over::new(spec, &schema(COLUMNS)).expect("sortable columns");
    over.sizes = SMALL;
    Box::new(over)
}

fn check(calls: Vec<WindowCall>, script: &str, expect: Expect) {
    let spec = spec(calls);
    script::check(|| over(spec.clone()), &[schema(COLUMNS)], script, expect);
}

#[test]
fn only_rows_that_look_at_a_change_change() {
    let moving = sum(
        WindowFrameUnits::Rows,
        preceding(count_of(1)),
        WindowFrameBound::CurrentRow,
        (Distance::Rows(1), Distance::Rows(0)),
    );
    check(
        vec![moving],
        "
        batch 0
          + 1 50 5
          + 1 40 4
          + 1 30 3
          + 1 20 2
          + 2 10 1
        epoch 1
        batch 0
          + 1 35 100
        epoch 2
        recover
        batch 0
          - 1 50 5
          + 2 10 1
        epoch 3
        # Another value in the same place; and what cancels out.
        batch 0
          - 1 40 4
          + 1 40 7
          + 1 25 9
          - 1 25 9
        epoch 4
        recover
        batch 0
          -2 2 10 1
        epoch 5
        ",
        expect![[r#"
            epoch 1
            + 1 20 2 5
            + 1 30 3 7
            + 1 40 4 9
            + 1 50 5 5
            + 2 10 1 1
            epoch 2
            + 1 30 3 103
            - 1 30 3 7
            + 1 35 100 104
            epoch 3
            + 1 40 4 4
            - 1 40 4 9
            - 1 50 5 5
            + 2 10 1 2
            epoch 4
            - 1 35 100 104
            + 1 35 100 107
            - 1 40 4 4
            + 1 40 7 7
            epoch 5
            - 2 10 1 1
            - 2 10 1 2
        "#]],
    );
}

/// `sum(12 / t)`: fails where `t` is 0.
fn divided() -> WindowCall {
    let twelve = Arc::new(Literal::new(value(12)));
    let divided: Arc<dyn PhysicalExpr> = Arc::new(BinaryExpr::new(twelve, Op::Divide, column("t")));
    let frame = WindowFrame::new_bounds(
        WindowFrameUnits::Rows,
        preceding(count_of(1)),
        WindowFrameBound::CurrentRow,
    );
    let function = WindowFunctionDefinition::AggregateUDF(sum_udaf());
    call(function, &[divided], Some(frame), (Distance::Rows(1), Distance::Rows(0)))
}

#[test]
fn a_partition_that_cannot_be_computed_is_left_out_until_it_can() {
    check(
        vec![divided()],
        "
        batch 0
          + 1 3 1
          + 1 2 2
          + 1 1 3
          + 2 1 0
        epoch 1
        batch 0
          + 1 5 0
          - 2 1 0
          + 2 1 1
        epoch 2
        recover
        # It still fails.
        batch 0
          + 1 0 6
        epoch 3
        batch 0
          - 1 5 0
        epoch 4
        ",
        expect![[r#"
            epoch 1
            + 1 1 3 10
            + 1 2 2 18
            + 1 3 1 12
            error 22012 division by zero in sum(ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) for +1 (2)
            epoch 2
            - 1 1 3 10
            - 1 2 2 18
            - 1 3 1 12
            + 2 1 1 12
            error 22012 division by zero in sum(ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) for +1 (1)
            error 22012 division by zero in sum(ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) for -1 (2)
            epoch 3
            epoch 4
            + 1 0 6 6
            + 1 1 3 10
            + 1 2 2 18
            + 1 3 1 12
            error 22012 division by zero in sum(ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) for -1 (1)
        "#]],
    );
}

type Row = (Option<i64>, Option<i64>, Option<i64>);

fn text(value: Option<i64>) -> String {
    value.map_or(".".to_owned(), |v| v.to_string())
}

/// What shows, with every partition computed as a whole.
fn oracle(spec: &OverSpec, bag: &BTreeMap<Row, i64>) -> BTreeMap<String, i64> {
    let mut partitions: BTreeMap<Option<i64>, Vec<&Row>> = BTreeMap::new();
    for (row, weight) in bag {
        let rows = partitions.entry(row.0).or_default();
        rows.extend(std::iter::repeat_n(row, *weight as usize));
    }
    let mut shown = BTreeMap::new();
    for partition in partitions.values_mut() {
        partition.sort_by_key(|row| (row.1.is_none(), row.1.map(|v| -v), row.2));
        let lines: Vec<String> = partition
            .iter()
            .map(|row| format!("+ {} {} {}\n", text(row.0), text(row.1), text(row.2)))
            .collect();
        let rows = rows(&schema(COLUMNS), &lines.concat()).into_rows();
        let mut columns = rows.columns().to_vec();
        columns.extend(spec.calls.iter().map(|call| call.evaluate(&rows).expect("computes")));
        let rows = RecordBatch::try_new(spec.schema.clone(), columns).expect("fits");
        for row in row_texts(&rows) {
            *shown.entry(row).or_default() += 1;
        }
    }
    shown
}

/// Values of one history: of the partitions, of what is sorted by, of what is summed up.
struct Values {
    partitions: i64,
    sorted: i64,
    summed: i64,
    epochs: u64,
    rows_max: usize,
}

fn random_history(
    random: &mut SmallRng,
    mut calls: Vec<WindowCall>,
    values: &Values,
    make: fn(OverSpec) -> Box<dyn Operator>,
) {
    while calls.len() > 1 && random.random_bool(0.8) {
        calls.swap_remove(random.random_range(0..calls.len()));
    }
    calls.truncate(6);
    let spec = spec(calls);
    let mut driven = Driven::new(|| make(spec.clone())).on_disk_if(random.random_bool(0.5));
    let mut bag: BTreeMap<Row, i64> = BTreeMap::new();
    let mut shown: BTreeMap<String, i64> = BTreeMap::new();
    for epoch in 1..random.random_range(3..values.epochs) {
        for _ in 0..random.random_range(0..3) {
            let mut lines = String::new();
            for _ in 0..random.random_range(1..values.rows_max) {
                let small = |random: &mut SmallRng, to: i64| match random.random_range(0..to) {
                    0 => None,
                    n => Some(n),
                };
                let row = (
                    small(random, values.partitions),
                    small(random, values.sorted),
                    small(random, values.summed),
                );
                let there = bag.get(&row).copied().unwrap_or(0);
                let weight = if there > 0 && random.random_bool(0.6) {
                    -random.random_range(1..=there)
                } else {
                    random.random_range(1..3)
                };
                let line = format!("{weight:+} {} {} {}\n", text(row.0), text(row.1), text(row.2));
                lines.push_str(&line);
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
fn random_histories_against_whole_partitions() {
    let seed = std::env::var("MILLSTREAM_SEED").ok().and_then(|s| s.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| rand::rng().random());
    println!("MILLSTREAM_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let values = Values { partitions: 3, sorted: 9, summed: 4, epochs: 20, rows_max: 5 };
    for _ in 0..300 {
        random_history(&mut random, calls(), &values, over);
    }
}

#[test]
fn random_histories_of_moving_frames() {
    let seed = std::env::var("MILLSTREAM_SEED").ok().and_then(|s| s.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| rand::rng().random());
    println!("MILLSTREAM_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    for call in moving_calls() {
        let by = spec(vec![call.clone()]).order_by;
        assert!(Sliding::new(&call, &by, &schema(COLUMNS)).expect("plans").is_some());
    }
    for round in 0..300 {
        let (sorted, rows_max) = [(4, 6), (60, 30)][round % 2];
        let values = Values { partitions: 3, sorted, summed: 9, epochs: 20, rows_max };
        random_history(&mut random, moving_calls(), &values, over);
    }
}

#[test]
fn random_histories_of_partitions_in_blocks() {
    let seed = std::env::var("MILLSTREAM_SEED").ok().and_then(|s| s.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| rand::rng().random());
    println!("MILLSTREAM_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    for round in 0..600 {
        // Many peers; few; partitions that grow to some hundred rows.
        let (sorted, rows_max) = [(4, 6), (40, 6), (200, 40)][round % 3];
        let values = Values { partitions: 2, sorted, summed: 9, epochs: 25, rows_max };
        random_history(&mut random, open_calls(), &values, over_in_blocks);
    }
}

/// A row gets one more and the next one less: sums agree behind both, but not at the rows that look
/// at sums some rows before them, or behind them.
#[test]
fn frames_that_end_before_their_row_see_what_cancels_out() {
    let is_far = |call: &WindowCall| match &call.summable {
        Some(Summable::Aggregate { call, frame }) => {
            let far = [OpenFrame::To(Edge::Row(-2)), OpenFrame::From(Edge::Row(2))];
            call.function == AggregateFunction::Sum && far.contains(frame)
        }
        _ => false,
    };
    let calls: Vec<WindowCall> = open_calls().into_iter().filter(is_far).collect();
    assert_eq!(calls.len(), 2);
    for call in calls {
        cancels_out(&spec(vec![call]));
    }
}

fn cancels_out(spec: &OverSpec) {
    let line = |weight: i64, v: i64, t: i64| format!("{weight:+} 1 {v} {t}\n");
    let mut driven = Driven::new(|| over_in_blocks(spec.clone()));
    let mut bag: BTreeMap<Row, i64> = (1..100).map(|v| ((Some(1), Some(v), Some(5)), 1)).collect();
    let all: String = (1..100).map(|v| line(1, v, 5)).collect();
    driven.batch(0, rows(&schema(COLUMNS), &all)).expect("takes a batch");
    let mut shown: BTreeMap<String, i64> = BTreeMap::new();
    for place in 1..=99 {
        driven.epoch(Epoch(place as u64)).expect("completes");
        for (row, weight) in driven.sent().rows {
            *shown.entry(row).or_default() += weight;
        }
        shown.retain(|_, weight| *weight != 0);
        assert_eq!(shown, oracle(spec, &bag), "after {place}");
        let mut lines = String::new();
        for (v, by) in [(place, 1), (place + 1, -1)] {
            let before = (1..10).find(|t| bag.contains_key(&(Some(1), Some(v), Some(*t))));
            let Some(before) = before else { continue };
            lines += &line(-1, v, before);
            lines += &line(1, v, before + by);
            bag.remove(&(Some(1), Some(v), Some(before)));
            bag.insert((Some(1), Some(v), Some(before + by)), 1);
        }
        driven.batch(0, rows(&schema(COLUMNS), &lines)).expect("takes a batch");
    }
}

#[test]
fn all_open_calls_are_computed_from_sums() {
    let calls = open_calls();
    let kernel = Kernel::new(&calls, &schema(COLUMNS)).expect("plans").expect("has calls");
    let others = (0..calls.len()).filter(|call| !kernel.computes(*call)).count();
    assert_eq!(others, 1);
}

/// Run with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn one_change_of_a_long_partition() {
    let rows: i64 = std::env::var("MILLSTREAM_ROWS").map_or(1_000_000, |n| n.parse().expect("n"));
    let mut all = open_calls();
    let running = all.remove(6);
    let moving = sum(
        WindowFrameUnits::Rows,
        preceding(count_of(5)),
        WindowFrameBound::CurrentRow,
        (Distance::Rows(5), Distance::Rows(0)),
    );
    let (row_number, maximum) = (
        all.remove(0),
        open(
            AggregateFunction::Max,
            OpenFrame::To(Edge::Row(0)),
            (
                WindowFrameUnits::Rows,
                preceding(ScalarValue::UInt64(None)),
                WindowFrameBound::CurrentRow,
            ),
        ),
    );
    for (name, call) in [
        ("row_number", row_number),
        ("running sum", running),
        ("running max", maximum),
        ("moving sum", moving),
    ] {
        let spec = spec(vec![call]);
        let mut operator = Over::new(spec, &schema(COLUMNS)).expect("sortable columns");
        let input = |from: i64, to: i64| {
            let columns: Vec<arrow::array::ArrayRef> = vec![
                Arc::new(Int64Array::from_iter_values((from..to).map(|_| 1))),
                Arc::new(Int64Array::from_iter_values((from..to).map(|row| -2 * row))),
                Arc::new(Int64Array::from_iter_values((from..to).map(|row| 7 - row % 5))),
            ];
            let batch = RecordBatch::try_new(schema(COLUMNS), columns).expect("three columns");
            ChangeBatch::inserts(batch)
        };
        let mut epoch = 0;
        let mut step = |batch: ChangeBatch| {
            epoch += 1;
            let start = Instant::now();
            let mut out = Output::default();
            operator.on_batch(0, batch, &mut out).expect("takes rows");
            operator.on_epoch(Epoch(epoch), &mut out).expect("completes");
            start.elapsed()
        };
        let load = step(input(0, rows));
        let at_end: Vec<_> = (rows..rows + 20).map(|row| step(input(row, row + 1))).collect();
        println!(
            "{name}: {rows} rows in {load:?}, a row at the end {:?} (of 20: {:?} to {:?})",
            at_end.iter().sum::<std::time::Duration>() / 20,
            at_end.iter().min().expect("20"),
            at_end.iter().max().expect("20"),
        );
        if name == "running max" || name == "moving sum" {
            let rows = rows as f64 / 2.0;
            let middle = schema(COLUMNS);
            let line = format!("+ 1 {} 1\n", -rows as i64 - 1);
            println!("{name}: a row in the middle {:?}", step(script::batch(&middle, &line)));
        }
    }
}
