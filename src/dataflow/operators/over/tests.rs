use std::collections::BTreeMap;

use arrow::array::Int64Array;
use arrow::compute::SortOptions;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::min_max::max_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::functions_window::lead_lag::lag_udwf;
use datafusion::functions_window::rank::rank_udwf;
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
    WindowCall::new(expr.expect("a window function"), distances, DataType::Int64, display)
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
    let added: Vec<String> = (0..calls.len()).map(|index| format!(", c{index} bigint")).collect();
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

fn random_history(random: &mut SmallRng) {
    let mut calls = calls();
    while calls.len() > 1 && random.random_bool(0.8) {
        calls.swap_remove(random.random_range(0..calls.len()));
    }
    let spec = spec(calls);
    let mut driven = Driven::new(|| over(spec.clone()));
    let mut bag: BTreeMap<Row, i64> = BTreeMap::new();
    let mut shown: BTreeMap<String, i64> = BTreeMap::new();
    for epoch in 1..random.random_range(3..20) {
        for _ in 0..random.random_range(0..3) {
            let mut lines = String::new();
            for _ in 0..random.random_range(1..5) {
                let small = |random: &mut SmallRng, to: i64| match random.random_range(0..to) {
                    0 => None,
                    n => Some(n),
                };
                let row = (small(random, 3), small(random, 9), small(random, 4));
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
    for _ in 0..400 {
        random_history(&mut random);
    }
}
