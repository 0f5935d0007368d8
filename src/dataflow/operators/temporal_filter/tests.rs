use arrow::datatypes::{DataType, TimeUnit};
use expect_test::{Expect, expect};

use super::*;
use crate::dataflow::script::{check as check_script, schema};
use crate::plan::expr::Expr;
use crate::plan::node::{Clock, Constant, Edge, Node};

fn condition(op: NowOp, steps: Vec<Step>) -> NowCondition {
    let data_type = DataType::Timestamp(TimeUnit::Microsecond, None);
    let value = Expr::column("ts", 0, data_type, true);
    NowCondition { value, op, steps, display: "ts op now()".to_owned() }
}

fn check(conditions: Vec<NowCondition>, script: &str, expect: Expect) {
    let formula = Formula::All((0..conditions.len()).map(Formula::Now).collect());
    check_formula(conditions, vec![], formula, script, expect);
}

fn check_formula(
    conditions: Vec<NowCondition>,
    of_rows: Vec<Expr>,
    formula: Formula,
    script: &str,
    expect: Expect,
) {
    let input = schema("ts timestamp, v text");
    let rows = arrow::array::RecordBatch::new_empty(input.clone());
    let node = node::TemporalFilter {
        input: Edge::local(Node::Constant(Constant { rows })),
        clock: Clock::edge(),
        conditions,
        of_rows,
        formula,
        display: "a formula".to_owned(),
    };
    let make = || -> Box<dyn Operator> {
        Box::new(TemporalFilter::new(&node, &schema("ts timestamp, v text")).expect("new"))
    };
    check_script(make, &[input, schema("")], script, expect);
}

/// `ts > now() - 10 us`.
fn recent() -> NowCondition {
    condition(NowOp::Greater, vec![Step::Shift { months: 0, us: -10 }])
}

#[test]
fn rows_leave_when_they_are_old() {
    check(
        vec![recent()],
        "
        batch 0
          + 100 a
          + 105 b
          + 90 old
          + . none
        watermark 1 100
        epoch 1
        watermark 1 109
        epoch 2
        recover
        watermark 1 110
        epoch 3
        batch 0
          - 100 a         # has gone by itself
          - 105 b
        watermark 1 111
        epoch 4
        ",
        expect![[r#"
            epoch 1
            + 1970-01-01T00:00:00.000100 a
            + 1970-01-01T00:00:00.000105 b
            wake 110
            epoch 2
            wake 110
            epoch 3
            - 1970-01-01T00:00:00.000100 a
            wake 115
            epoch 4
            - 1970-01-01T00:00:00.000105 b
            wake 115
        "#]],
    );
}

#[test]
fn rows_of_the_future_wait() {
    // ts <= now() and ts > now() - 10 us.
    check(
        vec![condition(NowOp::LessOrEqual, vec![]), recent()],
        "
        batch 0
          + 100 a
          + 103 b
          +2 105 c
        watermark 1 99
        epoch 1
        batch 0
          - 103 b         # never shows
          - 105 c
        watermark 1 100
        epoch 2
        recover
        watermark 1 107
        epoch 3
        watermark 1 200
        epoch 4
        ",
        expect![[r#"
            epoch 1
            wake 100
            epoch 2
            + 1970-01-01T00:00:00.000100 a
            wake 103
            epoch 3
            + 1970-01-01T00:00:00.000105 c
            wake 110
            epoch 4
            - 1970-01-01T00:00:00.000100 a
            - 1970-01-01T00:00:00.000105 c
        "#]],
    );
}

#[test]
fn calendar_functions_of_now_are_found_backwards() {
    let day = 86_400_000_000;
    // The first time at which a month earlier is 28 February 1970: 28 March, and 1 March: 1 April.
    let month = [Step::Shift { months: -1, us: 0 }];
    assert_eq!(first_reaching(&month, (31 + 27) * day), (31 + 28 + 27) * day);
    assert_eq!(first_reaching(&month, (31 + 28) * day), (31 + 28 + 31) * day);
    // date_trunc('day', now()) reaches a time within a day with the next day.
    let trunc = [Step::Bin { stride_us: day, origin_us: 0 }];
    assert_eq!(first_reaching(&trunc, 5 * day), 5 * day);
    assert_eq!(first_reaching(&trunc, 5 * day + 1), 6 * day);
    // now()::date reaches a day at its midnight.
    assert_eq!(first_reaching(&[Step::Date], 7), 7 * day);
    for value in [i64::MIN, i64::MIN + 1, -1, i64::MAX - 1, i64::MAX] {
        for steps in [&month[..], &trunc, &[Step::Date]] {
            first_reaching(steps, value);
        }
    }
}

#[test]
fn a_row_that_shows_twice_comes_back() {
    // ts > now() - 10 us OR ts <= now() - 20 us: from 10 us after its time on it is gone for 10 us.
    let old = condition(NowOp::LessOrEqual, vec![Step::Shift { months: 0, us: -20 }]);
    let either = Formula::Any(vec![Formula::Now(0), Formula::Now(1)]);
    check_formula(
        vec![recent(), old],
        vec![],
        either,
        "
        batch 0
          + 100 a
          + 50 old
          + . none
        watermark 1 105
        epoch 1
        watermark 1 112
        epoch 2
        recover
        batch 0
          + 101 b
          - 50 old        # for ever there, and kept no more
        watermark 1 113
        epoch 3
        watermark 1 120
        epoch 4
        batch 0
          - 101 b         # while it waits
        watermark 1 120
        epoch 5
        batch 0
          - 100 a
        watermark 1 140
        epoch 6
        ",
        expect![[r#"
            epoch 1
            + 1970-01-01T00:00:00.000050 old
            + 1970-01-01T00:00:00.000100 a
            wake 110
            epoch 2
            - 1970-01-01T00:00:00.000100 a
            wake 120
            epoch 3
            - 1970-01-01T00:00:00.000050 old
            wake 120
            epoch 4
            + 1970-01-01T00:00:00.000100 a
            wake 121
            epoch 5
            wake 121
            epoch 6
            - 1970-01-01T00:00:00.000100 a
        "#]],
    );
}

#[test]
fn conditions_of_the_row_and_what_is_not_true() {
    // v OR NOT (ts > now() - 10 us is true): NULL times show.
    let input = schema("ts timestamp, v boolean");
    let of_row = Expr::column("v", 1, DataType::Boolean, true);
    let node = node::TemporalFilter {
        input: Edge::local(Node::Constant(Constant {
            rows: arrow::array::RecordBatch::new_empty(input.clone()),
        })),
        clock: Clock::edge(),
        conditions: vec![recent()],
        of_rows: vec![of_row],
        formula: Formula::Any(vec![Formula::Row(0), Formula::Not(Box::new(Formula::Now(0)))]),
        display: "a formula".to_owned(),
    };
    assert!(!node.ends(), "rows only enter");
    let make = || -> Box<dyn Operator> {
        Box::new(TemporalFilter::new(&node, &schema("ts timestamp, v boolean")).expect("new"))
    };
    check_script(
        make,
        &[input.clone(), schema("")],
        "
        batch 0
          + 100 true
          + 100 false
          + 101 .
          + . .
        watermark 1 105
        epoch 1
        watermark 1 110
        epoch 2
        recover
        batch 0
          - 101 .
        watermark 1 110
        epoch 3
        ",
        expect![[r#"
            epoch 1
            + . .
            + 1970-01-01T00:00:00.000100 true
            wake 110
            epoch 2
            + 1970-01-01T00:00:00.000100 false
            wake 111
            epoch 3
            wake 111
        "#]],
    );
}
