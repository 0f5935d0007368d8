use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use expect_test::{Expect, expect};

use super::*;
use crate::dataflow::script::{check, run, schema};
use crate::plan::node::{AggregateCall, AggregateFunction, SortColumn};

mod closing;
mod oracle;
mod scaling;
mod slices;
mod windows;

/// A call from text: `sum(v)`, `count(*)`, `count(distinct v) filter (f)`,
/// `array_agg(v order by w desc)`. The type of the result stands after a colon when it is not
/// that of the batch engine for this argument.
fn call(text: &str, input: &Schema) -> AggregateCall {
    let (text, given_type) = match text.split_once(':') {
        Some((text, given)) => (text.trim(), Some(given.trim().parse().expect("an Arrow type"))),
        None => (text.trim(), None),
    };
    let (name, rest) = text.split_once('(').expect("a call has parentheses");
    let (inside, after) = rest.split_once(')').expect("a closing parenthesis");
    let column = |name: &str| input.index_of(name.trim()).expect("a column of the input");
    let (inside, distinct) = match inside.strip_prefix("distinct ") {
        Some(inside) => (inside, true),
        None => (inside, false),
    };
    let (arguments, order_by) = inside.split_once(" order by ").unwrap_or((inside, ""));
    let arguments: Vec<usize> = match arguments {
        "*" | "" => vec![],
        arguments => arguments.split(',').map(column).collect(),
    };
    let order_by = order_by.split(',').filter(|c| !c.trim().is_empty()).map(|c| {
        let (name, descending) = match c.trim().strip_suffix(" desc") {
            Some(name) => (name, true),
            None => (c, false),
        };
        // As in Postgres: NULLs are larger than everything.
        SortColumn { column: column(name), descending, nulls_first: descending }
    });
    let filter = after.trim().strip_prefix("filter (").map(|f| column(f.trim_end_matches(')')));
    let function = AggregateFunction::from_name(name).expect("a function");
    let first = arguments.first().map(|c| input.field(*c).data_type().clone());
    let return_type = given_type.unwrap_or_else(|| return_type(function, first));
    AggregateCall {
        function,
        arguments,
        distinct,
        filter,
        order_by: order_by.collect(),
        return_type,
        display: text.to_owned(),
    }
}

/// The type that the batch engine gives a call over this argument.
fn return_type(function: AggregateFunction, argument: Option<DataType>) -> DataType {
    use AggregateFunction as F;
    use DataType as T;
    match (function, argument) {
        (F::Count, _) => T::Int64,
        (F::Sum, Some(T::Decimal128(p, s))) => T::Decimal128(38.min(p + 10), s),
        (F::Sum, Some(T::Float32 | T::Float64)) => T::Float64,
        (F::Sum, Some(_)) => T::Int64,
        (F::Avg, Some(T::Decimal128(p, s))) => T::Decimal128(38.min(p + 4), 38.min(s + 4)),
        (F::Avg, Some(_)) => T::Float64,
        (F::BoolAnd | F::BoolOr, _) => T::Boolean,
        (F::Min | F::Max | F::BitAnd | F::BitOr | F::BitXor, Some(argument)) => argument,
        (F::RegrCount, _) => T::UInt64,
        (F::ArrayAgg, Some(argument)) => T::new_list(argument, true),
        (F::StringAgg, _) => T::LargeUtf8,
        (
            F::Median
            | F::PercentileCont
            | F::PercentileDisc
            | F::Mode
            | F::FirstValue
            | F::LastValue
            | F::AnyValue,
            Some(argument),
        ) => argument,
        (_, Some(argument)) if argument.is_numeric() => T::Float64,
        (function, argument) => panic!("{function:?} over {argument:?}"),
    }
}

/// `keys` and `calls` in text; the calls' arguments are columns of the input.
fn spec(input: &SchemaRef, keys: &str, calls: &[&str], append_only: bool) -> AggregateSpec {
    let keys: Vec<usize> = keys
        .split(',')
        .filter(|key| !key.is_empty())
        .map(|key| input.index_of(key.trim()).expect("a key column"))
        .collect();
    let calls: Vec<AggregateCall> = calls.iter().map(|text| call(text, input)).collect();
    let mut fields: Vec<Field> = keys.iter().map(|key| input.field(*key).clone()).collect();
    fields.extend(calls.iter().map(|c| Field::new(&c.display, c.return_type.clone(), true)));
    let schema = Arc::new(Schema::new(fields));
    AggregateSpec {
        keys,
        calls,
        append_only,
        phase: node::Phase::Whole,
        time_keys: vec![],
        on_close: false,
        schema,
    }
}

fn aggregate(spec: &AggregateSpec, input: &SchemaRef) -> Box<dyn Operator> {
    Box::new(Aggregate::new(spec.clone(), input, WorkerId(0)).expect("an aggregation"))
}

/// Two partial aggregations, which get the rows by turns, before a final one.
struct TwoPhases {
    partial: [PartialAggregate; 2],
    last: Aggregate,
}

impl TwoPhases {
    fn new(spec: &AggregateSpec, input: &SchemaRef) -> TwoPhases {
        let scan = node::Scan {
            object: Default::default(),
            name: "t".to_owned(),
            columns: (0..input.fields().len()).collect(),
            schema: input.clone(),
            append_only: spec.append_only,
            time_bounds: vec![],
            shared: false,
            index: None,
        };
        let whole = node::Aggregate {
            input: node::Edge::hash(node::Node::Scan(scan), spec.keys.clone()),
            keys: spec.keys.clone(),
            calls: spec.calls.clone(),
            append_only: spec.append_only,
            phase: node::Phase::Whole,
            on_close: false,
            schema: spec.schema.clone(),
        };
        let last = whole.in_two_phases();
        let node::Node::Aggregate(partial) = last.input.input.as_ref() else {
            panic!("these calls can be merged")
        };
        let new_partial = || PartialAggregate::new(partial.into(), input).expect("an aggregation");
        TwoPhases {
            partial: [new_partial(), new_partial()],
            last: Aggregate::new((&last).into(), &partial.schema, WorkerId(0)).expect("its end"),
        }
    }

    fn send_on(&mut self, between: &mut Output, out: &mut Output) -> Result<()> {
        for batch in between.take_batches() {
            self.last.on_batch(0, batch, out)?;
        }
        Ok(())
    }
}

impl Operator for TwoPhases {
    fn name(&self) -> &'static str {
        "two phases"
    }

    fn on_batch(&mut self, port: usize, batch: ChangeBatch, out: &mut Output) -> Result<()> {
        let mut between = Output::default();
        for row in 0..batch.num_rows() {
            self.partial[row % 2].on_batch(port, batch.slice(row, 1), &mut between)?;
        }
        self.send_on(&mut between, out)
    }

    fn on_watermark(&mut self, _: usize, _: Watermark, _: &mut Output) -> Result<()> {
        Ok(())
    }

    fn on_epoch(&mut self, epoch: Epoch, out: &mut Output) -> Result<()> {
        let mut between = Output::default();
        for partial in &mut self.partial {
            partial.on_epoch(epoch, &mut between)?;
        }
        self.send_on(&mut between, out)?;
        self.last.on_epoch(epoch, out)
    }

    fn checkpoint(&mut self, epoch: Epoch, writer: &mut CheckpointWriter) -> Result<()> {
        self.last.checkpoint(epoch, writer)
    }

    fn restore(&mut self, reader: &mut CheckpointReader) -> Result<()> {
        self.last.restore(reader)
    }

    fn memory_bytes(&self) -> usize {
        self.last.memory_bytes()
    }
}

#[test]
fn two_phases_give_what_one_gives() {
    let input = schema("k bigint, v bigint, d double, n numeric, f boolean");
    let calls =
        ["count(*)", "count(v)", "sum(v)", "avg(v)", "sum(d)", "sum(n)", "sum(v) filter (f)"];
    let script = "
        batch 0
          + 1 5 1e300 0.5 true
          + 1 6 1.5 0.25 false
          + 1 . NaN . .
          + 2 9223372036854775807 -inf 1 true
          + 2 1 inf 2 true
          - 3 1 0.1 1 true
        batch 0
          +2 3 1 0.1 1 true
        epoch 1
        recover
        batch 0
          - 1 5 1e300 0.5 true
          - 1 . NaN . .
          - 2 1 inf 2 true
          - 3 1 0.1 1 true
        epoch 2
    ";
    for keys in ["k", "", "k,f"] {
        let spec = spec(&input, keys, &calls, false);
        let whole = run(|| aggregate(&spec, &input), std::slice::from_ref(&input), script);
        let phases = || -> Box<dyn Operator> { Box::new(TwoPhases::new(&spec, &input)) };
        assert_eq!(run(phases, std::slice::from_ref(&input), script), whole);
        assert!(whole.contains("epoch 2"), "{whole}");
    }
    let spec = spec(&input, "k", &["count(*)", "min(v)", "max(n)", "min(d)"], true);
    let script = "
        batch 0
          + 1 5 1.5 0.5 .
          + 1 4 . 0.75 .
          + 2 . NaN -2 .
        epoch 1
        batch 0
          + 1 -4 0 . .
          + 2 7 -1 -1 .
        epoch 2
    ";
    let phases = || -> Box<dyn Operator> { Box::new(TwoPhases::new(&spec, &input)) };
    assert_eq!(
        run(phases, std::slice::from_ref(&input), script),
        run(|| aggregate(&spec, &input), std::slice::from_ref(&input), script),
    );
}

fn check_aggregate(columns: &str, keys: &str, calls: &[&str], script: &str, expect: Expect) {
    let input = schema(columns);
    let retractable = spec(&input, keys, calls, false);
    check(|| aggregate(&retractable, &input), std::slice::from_ref(&input), script, expect);
    // The same with cheap accumulators, where nothing is deleted.
    if !script.lines().any(|line| line.trim().starts_with(['-'])) {
        let append_only = spec(&input, keys, calls, true);
        assert_eq!(
            run(|| aggregate(&append_only, &input), std::slice::from_ref(&input), script),
            run(|| aggregate(&retractable, &input), std::slice::from_ref(&input), script),
        );
    }
}

#[test]
fn groups_appear_change_and_go() {
    check_aggregate(
        "k bigint, v bigint",
        "k",
        &["count(*)", "count(v)", "sum(v)", "avg(v)", "min(v)", "max(v)"],
        "
        batch 0
          + 1 10
          + 1 20
          + 2 .
          + . 5
        epoch 1
        recover
        batch 0
          - 1 10
          + 1 30
        batch 0
          + 2 7
          - . 5
          + 3 1
          - 3 1
        epoch 2
        recover
        batch 0           # back again, and an update that changes nothing
          + . 6
          - 2 .
          + 2 .
        epoch 3
        epoch 4
        ",
        expect![[r#"
            epoch 1
            + . 1 1 5 5.0 5 5
            + 1 2 2 30 15.0 10 20
            + 2 1 0 . . . .
            epoch 2
            - . 1 1 5 5.0 5 5
            - 1 2 2 30 15.0 10 20
            + 1 2 2 50 25.0 20 30
            - 2 1 0 . . . .
            + 2 2 1 7 7.0 7 7
            epoch 3
            + . 1 1 6 6.0 6 6
            epoch 4
        "#]],
    );
}

#[test]
fn deletion_may_come_before_its_insertion_within_an_epoch() {
    check_aggregate(
        "k bigint, v text, w double",
        "k",
        &["count(*)", "min(v)", "max(v)", "sum(w)", "count(distinct v)"],
        "
        batch 0
          - 1 b 1.5
          -2 2 x 1
        batch 0
          + 1 b 1.5
          + 1 a 2.5
          +3 2 x 1
        epoch 1
        recover
        batch 0
          - 2 x 1
          - 1 c 1
        batch 0
          + 1 c 1
        epoch 2
        ",
        expect![[r#"
            epoch 1
            + 1 1 a a 2.5 1
            + 2 1 x x 1.0 1
            epoch 2
            - 2 1 x x 1.0 1
        "#]],
    );
}

#[test]
fn without_keys_there_is_always_one_row() {
    check_aggregate(
        "v bigint",
        "",
        &["count(*)", "sum(v)", "min(v)"],
        "
        epoch 1
        recover
        epoch 2
        batch 0
          + 4
          + .
        epoch 3
        recover
        batch 0
          - 4
          - .
        epoch 4
        ",
        expect![[r#"
            epoch 1
            + 0 . .
            epoch 2
            epoch 3
            - 0 . .
            + 2 4 4
            epoch 4
            + 0 . .
            - 2 4 4
        "#]],
    );
}

#[test]
fn other_workers_have_no_row_without_keys() {
    let input = schema("v bigint");
    let spec = spec(&input, "", &["count(*)"], false);
    let mut other = Aggregate::new(spec, &input, WorkerId(1)).expect("an aggregation");
    let mut out = Output::default();
    other.on_epoch(Epoch(1), &mut out).expect("completes");
    assert!(out.take_batches().is_empty());
}

#[test]
fn without_calls_it_is_distinct() {
    check_aggregate(
        "a text, b bigint",
        "a,b",
        &[],
        "
        batch 0
          + x 1
          + x 1
          + . .
        epoch 1
        recover
        batch 0
          + x 1
          + y 2
        epoch 2
        ",
        expect![[r#"
            epoch 1
            + . .
            + x 1
            epoch 2
            + y 2
        "#]],
    );
}

#[test]
fn distinct_and_filter() {
    check_aggregate(
        "k bigint, v bigint, f boolean",
        "k",
        &[
            "count(distinct v)",
            "sum(distinct v)",
            "avg(distinct v) filter (f)",
            "count(*) filter (f)",
            "min(v) filter (f)",
        ],
        "
        batch 0
          + 1 5 true
          + 1 5 false
          + 1 6 .
          + 1 . true
          + 2 5 false
        epoch 1
        recover
        batch 0
          - 1 5 true
        epoch 2
        batch 0
          - 1 5 false
          + 2 8 true
        epoch 3
        recover
        batch 0
          - 1 6 .
          - 1 . true
        epoch 4
        ",
        expect![[r#"
            epoch 1
            + 1 2 11 5.0 2 5
            + 2 1 5 . 0 .
            epoch 2
            + 1 2 11 . 1 .
            - 1 2 11 5.0 2 5
            epoch 3
            + 1 1 6 . 1 .
            - 1 2 11 . 1 .
            - 2 1 5 . 0 .
            + 2 2 13 8.0 1 8
            epoch 4
            - 1 1 6 . 1 .
        "#]],
    );
}

#[test]
fn a_sum_out_of_range_is_a_row_error_until_it_fits() {
    check_aggregate(
        "k text, v bigint",
        "k",
        &["count(*)", "sum(v)"],
        "
        batch 0           # passes the limit on the way, and fits at the end
          + a 9223372036854775807
          + a 1
          + a -1
          + b 1
        epoch 1
        batch 0
          + a 1
        epoch 2
        recover
        batch 0           # another error of the same kind is no news
          + a 2
        epoch 3
        batch 0
          - a 9223372036854775807
        epoch 4
        batch 0
          + a 9223372036854775807
        epoch 5
        batch 0
          - a 9223372036854775807
          - a 1
          - a 1
          - a -1
          - a 2
        epoch 6
        ",
        expect![[r#"
            epoch 1
            + a 3 9223372036854775807
            + b 1 1
            epoch 2
            - a 3 9223372036854775807
            error 22003 bigint out of range in sum(v) for +1 (a)
            epoch 3
            epoch 4
            + a 4 3
            error 22003 bigint out of range in sum(v) for -1 (a)
            epoch 5
            - a 4 3
            error 22003 bigint out of range in sum(v) for +1 (a)
            epoch 6
            error 22003 bigint out of range in sum(v) for -1 (a)
        "#]],
    );
}

#[test]
fn floats_come_back_exactly() {
    check_aggregate(
        "k bigint, v double, w real",
        "k",
        &["sum(v)", "avg(v)", "min(v)", "max(v)", "sum(w)"],
        "
        batch 0
          + 1 0.1 1.5
          + 1 0.2 .
        epoch 1
        batch 0
          + 1 1e300 2.5
          + 1 NaN 3.5
          + 1 -inf 4.5
        epoch 2
        recover
        batch 0
          - 1 NaN 3.5
        epoch 3
        recover
        batch 0
          - 1 1e300 2.5
          - 1 -inf 4.5
        epoch 4
        ",
        expect![[r#"
            epoch 1
            + 1 0.30000000000000004 0.15000000000000002 0.1 0.2 1.5
            epoch 2
            - 1 0.30000000000000004 0.15000000000000002 0.1 0.2 1.5
            + 1 NaN NaN -inf NaN 12.0
            epoch 3
            + 1 -inf -inf -inf 1e300 8.5
            - 1 NaN NaN -inf NaN 12.0
            epoch 4
            - 1 -inf -inf -inf 1e300 8.5
            + 1 0.30000000000000004 0.15000000000000002 0.1 0.2 1.5
        "#]],
    );
}

#[test]
fn moments_lose_no_digits_to_what_was_there_before() {
    check_aggregate(
        "k bigint, y double, x double",
        "k",
        &[
            "var_pop(y)",
            "var_samp(y)",
            "stddev(y)",
            "corr(y,x)",
            "regr_slope(y,x)",
            "regr_count(y,x)",
        ],
        "
        batch 0
          + 1 0.1 1
          + 1 0.1 2
          + 1 0.1 .
        epoch 1
        batch 0
          + 1 1e200 5
          + 1 NaN 6
        epoch 2
        recover
        batch 0
          - 1 1e200 5
          - 1 NaN 6
          + 1 . 3
        epoch 3
        batch 0
          - 1 0.1 1
          - 1 0.1 2
          - 1 0.1 .
          + 1 1000000001 10
          + 1 1000000003 20
        epoch 4
        ",
        expect![[r#"
            epoch 1
            + 1 0.0 0.0 0.0 . 0.0 2
            epoch 2
            - 1 0.0 0.0 0.0 . 0.0 2
            + 1 NaN NaN NaN NaN NaN 4
            epoch 3
            + 1 0.0 0.0 0.0 . 0.0 2
            - 1 NaN NaN NaN NaN NaN 4
            epoch 4
            - 1 0.0 0.0 0.0 . 0.0 2
            + 1 1.0 2.0 1.4142135623730951 1.0 0.2 2
        "#]],
    );
}

#[test]
fn ordered_functions_follow_their_rows() {
    check_aggregate(
        "k bigint, v bigint, s text, p double, z text",
        "k",
        &[
            "median(v)",
            "percentile_cont(v,p): Float64",
            "percentile_disc(v,p)",
            "mode(s)",
            "first_value(s order by v desc)",
            "last_value(s order by v desc)",
            "array_agg(v order by s)",
            "array_agg(distinct v)",
            "string_agg(s,z order by v)",
        ],
        "
        batch 0
          + 1 1 c 0.25 -
          + 1 2 a 0.25 -
          + 1 4 b 0.25 -
          + 1 10 a 0.25 -
          + 2 . . 0.25 -
        epoch 1
        recover
        batch 0
          - 1 10 a 0.25 -
          + 1 . z 0.25 -
          +2 1 4 . 0.25 -
        epoch 2
        batch 0
          - 1 1 c 0.25 -
          - 1 2 a 0.25 -
          - 1 4 b 0.25 -
          - 1 . z 0.25 -
          -2 1 4 . 0.25 -
          - 2 . . 0.25 -
        epoch 3
        ",
        expect![[r#"
            epoch 1
            + 1 3 1.75 1 a a c "[2, 10, 4, 1]" "[1, 2, 4, 10]" c-a-b-a
            + 2 . . . . . . [] [] .
            epoch 2
            - 1 3 1.75 1 a a c "[2, 10, 4, 1]" "[1, 2, 4, 10]" c-a-b-a
            + 1 4 2.0 2 a z c "[2, 4, 1, , 4, 4]" "[1, 2, 4, ]" c-a-b-z
            epoch 3
            - 1 4 2.0 2 a z c "[2, 4, 1, , 4, 4]" "[1, 2, 4, ]" c-a-b-z
            - 2 . . . . . . [] [] .
        "#]],
    );
}

#[test]
fn a_fraction_out_of_range_is_a_row_error() {
    check_aggregate(
        "k bigint, v bigint, p double",
        "k",
        &["percentile_disc(v,p)"],
        "
        batch 0
          + 1 1 1.5
        epoch 1
        recover
        batch 0
          - 1 1 1.5
        epoch 2
        ",
        expect![[r#"
            epoch 1
            error 22003 percentile value 1.5 is not between 0 and 1 in percentile_disc(v,p) for +1 (1)
            epoch 2
            error 22003 percentile value 1.5 is not between 0 and 1 in percentile_disc(v,p) for -1 (1)
        "#]],
    );
}

#[test]
fn decimals_dates_text_and_others() {
    check_aggregate(
        "k bigint, m money, n numeric, d date, t timestamp, s text, b boolean, i interval",
        "k",
        &["sum(m)", "avg(m)", "sum(n)", "max(n)", "min(d)", "max(t)", "min(s)", "max(b)", "min(i)"],
        r#"
        batch 0
          + 1 1.10 0.5 2026-01-02 2026-01-02T03:04:05 "pear tree" false "1 month"
          + 1 2.20 0.7 2026-01-01 . apple true "2 days"
          + 1 -0.10 . . . . . .
        epoch 1
        recover
        batch 0
          - 1 2.20 0.7 2026-01-01 . apple true "2 days"
        epoch 2
        "#,
        expect![[r#"
            epoch 1
            + 1 3.20 1.066667 1.2000000000 0.7000000000 2026-01-01 2026-01-02T03:04:05 apple true "2 days"
            epoch 2
            + 1 1.00 0.500000 0.5000000000 0.5000000000 2026-01-02 2026-01-02T03:04:05 "pear tree" false "1 mons"
            - 1 3.20 1.066667 1.2000000000 0.7000000000 2026-01-01 2026-01-02T03:04:05 apple true "2 days"
        "#]],
    );
}

#[test]
fn what_is_not_there_is_named() {
    let input = schema("k text, v date");
    let spec = spec(&input, "k", &["sum(v): Int64"], false);
    let Err(error) = Aggregate::new(spec, &input, WorkerId(0)) else {
        panic!("there is no sum of dates")
    };
    assert_eq!(error.sqlstate().0, "0A000");
    assert_eq!(error.message(), "aggregate sum(v) over (Date32) is not supported");
    assert!(error.body().hint.is_some());
}

#[test]
fn deleting_what_is_not_there_stops_the_dataflow() {
    check_aggregate(
        "k bigint, v bigint",
        "k",
        &["min(v)"],
        "
        batch 0
          + 1 5
        epoch 1
        batch 0
          - 1 6
        epoch 2
        ",
        expect![[r#"
            epoch 1
            + 1 5
            epoch 2
            failed: Internal XX000: an aggregation was told to delete a value that it does not have; hint: This is a bug in Millstream; please report the statement.
        "#]],
    );
}
