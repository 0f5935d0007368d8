use std::collections::BTreeMap;

use arrow::array::Int64Array;
use datafusion::logical_expr::Operator as Op;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use datafusion::scalar::ScalarValue;
use expect_test::{Expect, expect};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::dataflow::operator::FUEL_BYTES;
use crate::dataflow::script::{self, Driven, batch as rows, schema};

const LEFT_COLUMNS: &str = "k bigint, a bigint";
const RIGHT_COLUMNS: &str = "k bigint, b bigint";

fn output(kind: JoinKind) -> SchemaRef {
    match kind {
        JoinKind::LeftSemi | JoinKind::LeftAnti => schema(LEFT_COLUMNS),
        _ => schema("k bigint, a bigint, rk bigint, b bigint"),
    }
}

fn column(name: &str, index: usize) -> Arc<Column> {
    Arc::new(Column::new(name, index))
}

/// `a < b`
fn less() -> Expr {
    let less = BinaryExpr::new(column("a", 1), Op::Lt, column("b", 3));
    Expr::new(Arc::new(less), DataType::Boolean, true)
}

/// `12 / b > a`: fails where b = 0.
fn divided() -> Expr {
    let twelve = Arc::new(Literal::new(ScalarValue::Int64(Some(12))));
    let divided = Arc::new(BinaryExpr::new(twelve, Op::Divide, column("b", 3)));
    let greater = BinaryExpr::new(divided, Op::Gt, column("a", 1));
    Expr::new(Arc::new(greater), DataType::Boolean, true)
}

fn spec(kind: JoinKind, keys: &[(usize, usize)]) -> JoinSpec {
    JoinSpec {
        kind,
        keys: keys.to_vec(),
        null_equals_null: false,
        residual: None,
        append_only: false,
        aging: Default::default(),
        schema: output(kind),
    }
}

fn join(spec: JoinSpec) -> Box<dyn Operator> {
    let join = Join::new(spec, &schema(LEFT_COLUMNS), &schema(RIGHT_COLUMNS));
    Box::new(join.expect("key types agree"))
}

fn check(spec: JoinSpec, script: &str, expect: Expect) {
    script::check(
        || join(spec.clone()),
        &[schema(LEFT_COLUMNS), schema(RIGHT_COLUMNS)],
        script,
        expect,
    );
}

/// A match in the same epoch, one later, a NULL key, a second match, matches going one by one, a
/// match replaced within an epoch.
const STORY: &str = "
    batch 0
      + 1 10
      + 2 20
      + . 30
    batch 1
      + 1 100
    epoch 1
    checkpoint
    batch 1
      + 2 200
      + . 300
      + 3 400
    epoch 2
    recover
    batch 1
      + 2 201
    batch 0
      + 3 40
    epoch 3
    checkpoint
    batch 1
      - 2 200
    epoch 4
    recover
    batch 1
      - 2 201
    batch 0
      - . 30
    epoch 5
    recover
    batch 1
      - 1 100
    batch 1
      + 1 101
    epoch 6
    batch 0
      - 1 10
      +2 1 10
    batch 1
      - . 300
    epoch 7
";

#[test]
fn inner() {
    check(
        spec(JoinKind::Inner, &[(0, 0)]),
        STORY,
        expect![[r#"
            epoch 1
            + 1 10 1 100
            epoch 2
            + 2 20 2 200
            epoch 3
            + 2 20 2 201
            + 3 40 3 400
            epoch 4
            - 2 20 2 200
            epoch 5
            - 2 20 2 201
            epoch 6
            - 1 10 1 100
            + 1 10 1 101
            epoch 7
            + 1 10 1 101
        "#]],
    );
}

#[test]
fn left() {
    check(
        spec(JoinKind::Left, &[(0, 0)]),
        STORY,
        expect![[r#"
            epoch 1
            + . 30 . .
            + 1 10 1 100
            + 2 20 . .
            epoch 2
            - 2 20 . .
            + 2 20 2 200
            epoch 3
            + 2 20 2 201
            + 3 40 3 400
            epoch 4
            - 2 20 2 200
            epoch 5
            - . 30 . .
            + 2 20 . .
            - 2 20 2 201
            epoch 6
            - 1 10 1 100
            + 1 10 1 101
            epoch 7
            + 1 10 1 101
        "#]],
    );
}

#[test]
fn right() {
    check(
        spec(JoinKind::Right, &[(0, 0)]),
        STORY,
        expect![[r#"
            epoch 1
            + 1 10 1 100
            epoch 2
            + . . . 300
            + . . 3 400
            + 2 20 2 200
            epoch 3
            - . . 3 400
            + 2 20 2 201
            + 3 40 3 400
            epoch 4
            - 2 20 2 200
            epoch 5
            - 2 20 2 201
            epoch 6
            - 1 10 1 100
            + 1 10 1 101
            epoch 7
            - . . . 300
            + 1 10 1 101
        "#]],
    );
}

#[test]
fn full() {
    check(
        spec(JoinKind::Full, &[(0, 0)]),
        STORY,
        expect![[r#"
            epoch 1
            + . 30 . .
            + 1 10 1 100
            + 2 20 . .
            epoch 2
            + . . . 300
            + . . 3 400
            - 2 20 . .
            + 2 20 2 200
            epoch 3
            - . . 3 400
            + 2 20 2 201
            + 3 40 3 400
            epoch 4
            - 2 20 2 200
            epoch 5
            - . 30 . .
            + 2 20 . .
            - 2 20 2 201
            epoch 6
            - 1 10 1 100
            + 1 10 1 101
            epoch 7
            - . . . 300
            + 1 10 1 101
        "#]],
    );
}

#[test]
fn semi_and_anti() {
    check(
        spec(JoinKind::LeftSemi, &[(0, 0)]),
        STORY,
        expect![[r#"
            epoch 1
            + 1 10
            epoch 2
            + 2 20
            epoch 3
            + 3 40
            epoch 4
            epoch 5
            - 2 20
            epoch 6
            epoch 7
            + 1 10
        "#]],
    );
    check(
        spec(JoinKind::LeftAnti, &[(0, 0)]),
        STORY,
        expect![[r#"
            epoch 1
            + . 30
            + 2 20
            epoch 2
            - 2 20
            epoch 3
            epoch 4
            epoch 5
            - . 30
            + 2 20
            epoch 6
            epoch 7
        "#]],
    );
}

#[test]
fn nulls_that_are_equal_match() {
    check(
        JoinSpec { null_equals_null: true, ..spec(JoinKind::LeftAnti, &[(0, 0), (1, 1)]) },
        "
        batch 0
          + . 1
          + . .
          + 1 .
        batch 1
          + . 1
          + 2 .
        epoch 1
        recover
        batch 1
          + . .
        epoch 2
        batch 1
          - . 1
        epoch 3
        ",
        expect![[r#"
            epoch 1
            + . .
            + 1 .
            epoch 2
            - . .
            epoch 3
            + . 1
        "#]],
    );
}

#[test]
fn residual_conditions_count_matches_row_by_row() {
    check(
        JoinSpec { residual: Some(less()), ..spec(JoinKind::Left, &[(0, 0)]) },
        "
        batch 0
          + 1 10
          +2 1 50
        batch 1
          + 1 20
          + 1 30
        epoch 1
        recover
        batch 1
          - 1 20
        epoch 2
        recover
        batch 1
          + 1 60
        epoch 3
        checkpoint
        batch 1
          - 1 30
          - 1 60
        epoch 4
        batch 0
          - 1 50
        epoch 5
        ",
        expect![[r#"
            epoch 1
            + 1 10 1 20
            + 1 10 1 30
            +2 1 50 . .
            epoch 2
            - 1 10 1 20
            epoch 3
            + 1 10 1 60
            -2 1 50 . .
            +2 1 50 1 60
            epoch 4
            + 1 10 . .
            - 1 10 1 30
            - 1 10 1 60
            +2 1 50 . .
            -2 1 50 1 60
            epoch 5
            - 1 50 . .
        "#]],
    );
}

#[test]
fn pairs_that_fail_do_not_match_and_are_reported() {
    check(
        JoinSpec { residual: Some(divided()), ..spec(JoinKind::Left, &[]) },
        "
        batch 0
          + 1 2
        batch 1
          +2 8 0
        epoch 1
        recover
        batch 1
          + 9 3
          - 8 0
        epoch 2
        ",
        expect![[r#"
            epoch 1
            + 1 2 . .
            error 22012 division by zero in 12 / b@3 > a@1 for +2 (1, 2, 8, 0)
            epoch 2
            - 1 2 . .
            + 1 2 9 3
            error 22012 division by zero in 12 / b@3 > a@1 for -1 (1, 2, 8, 0)
        "#]],
    );
}

#[test]
fn inner_joins_of_appends_answer_at_once_others_at_the_epoch() {
    let script = "
        batch 0
          + 1 10
        batch 1
          +2 1 100
        show
        epoch 1
    ";
    check(
        JoinSpec { append_only: true, ..spec(JoinKind::Inner, &[(0, 0)]) },
        script,
        expect![[r#"
            show
            +2 1 10 1 100
            epoch 1
        "#]],
    );
    check(
        spec(JoinKind::Inner, &[(0, 0)]),
        script,
        expect![[r#"
            show
            epoch 1
            +2 1 10 1 100
        "#]],
    );
}

#[test]
fn the_lesser_watermark_is_passed_on() {
    let end = i64::MAX;
    check(
        spec(JoinKind::Inner, &[(0, 0)]),
        &format!(
            "watermark 0 5\nwatermark 1 6\nwatermark 0 {end}\nepoch 1\nwatermark 1 {end}\nepoch 2"
        ),
        expect![[r#"
            epoch 1
            watermark 6
            epoch 2
            watermark 9223372036854775807
        "#]],
    );
}

#[test]
fn many_pairs_come_in_steps() {
    let left: String = (0..300).map(|n| format!("+ 1 {n}\n")).collect();
    let right: String = (0..300).map(|n| format!("+ 1 {n}\n")).collect();
    let mut join = join(JoinSpec { append_only: true, ..spec(JoinKind::Inner, &[(0, 0)]) });
    let mut out = Output::default();
    join.on_batch(0, rows(&schema(LEFT_COLUMNS), &left), &mut out).expect("joins");
    join.on_batch(1, rows(&schema(RIGHT_COLUMNS), &right), &mut out).expect("joins");
    let sizes: Vec<usize> = out.take_batches().iter().map(ChangeBatch::num_rows).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 90_000);
    assert!(sizes.iter().all(|rows| *rows <= STEP_ROWS));
}

/// Rows of key 1 with other columns from 0 on.
fn hot(column: &str, rows: i64, weight: i64) -> ChangeBatch {
    let keys: ArrayRef = Arc::new(Int64Array::from(vec![1; rows as usize]));
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    let schema = schema(&format!("k bigint, {column} bigint"));
    let batch = RecordBatch::try_new(schema, vec![keys, values]).expect("two columns");
    ChangeBatch::new(batch, vec![weight; rows as usize]).expect("one weight each")
}

/// Rows that one call gives: never much more than the fuel.
fn held(out: &mut Output) -> usize {
    let batches = out.take_batches();
    let bytes: usize = batches.iter().map(ChangeBatch::size_bytes).sum();
    let one = batches.first().map_or(0, ChangeBatch::size_bytes);
    assert!(bytes < FUEL_BYTES + 2 * one, "{} batches, {bytes} bytes at once", batches.len());
    batches.iter().map(ChangeBatch::num_rows).sum()
}

/// 8192 rows meet 100,000: 800 million pairs, 26 GB. They come 262,144 at a time.
#[test]
fn a_hot_key_never_gives_all_of_its_pairs_at_once() {
    for append_only in [true, false] {
        let mut join = join(JoinSpec { append_only, ..spec(JoinKind::Inner, &[(0, 0)]) });
        let mut out = Output::default();
        join.on_batch(1, hot("b", 100_000, 1), &mut out).expect("joins");
        join.on_epoch(Epoch(1), &mut out).expect("completes");
        assert!(!out.is_unfinished() && out.take_batches().is_empty());
        let mut pairs = 0;
        join.on_batch(0, hot("a", 8192, 1), &mut out).expect("joins");
        let at_once = held(&mut out);
        assert_eq!(at_once > 0, append_only);
        pairs += at_once;
        for _ in 0..6 {
            let mut out = Output::default();
            join.on_epoch(Epoch(2), &mut out).expect("goes on");
            assert!(out.is_unfinished());
            let now = held(&mut out);
            assert!(now > 0, "every call gets on");
            pairs += now;
        }
        assert!(pairs < 2_000_000, "{pairs} of 819,200,000");
        assert!(join.memory_bytes() < 32 << 20, "{} bytes", join.memory_bytes());
    }
}

/// All of a hot key's pairs come in the end, also when both sides change with deletions, and when
/// rows without matches appear and disappear.
#[test]
fn the_pieces_of_a_hot_key_are_the_whole() {
    for kind in [JoinKind::Inner, JoinKind::Full] {
        let mut join = join(spec(kind, &[(0, 0)]));
        let mut run = |epoch: u64, batches: Vec<(usize, ChangeBatch)>| -> (usize, i64, usize) {
            for (port, batch) in batches {
                join.on_batch(port, batch, &mut Output::default()).expect("joins");
            }
            let (mut rows, mut weight, mut calls) = (0, 0, 0);
            loop {
                let mut out = Output::default();
                join.on_epoch(Epoch(epoch), &mut out).expect("goes on");
                let more = out.is_unfinished();
                let batches = out.take_batches();
                rows += batches.iter().map(ChangeBatch::num_rows).sum::<usize>();
                weight += batches.iter().map(ChangeBatch::weight_sum).sum::<i64>();
                calls += 1;
                if !more {
                    return (rows, weight, calls);
                }
            }
        };
        let padded = usize::from(kind == JoinKind::Full);
        let first = run(1, vec![(0, hot("a", 1000, 1)), (1, hot("b", 2000, 1))]);
        assert_eq!((first.0, first.1), (2_000_000, 2_000_000));
        assert!(first.2 > 5, "{} calls", first.2);
        // All of the left side goes, a second copy of each row of the right side comes.
        let second = run(2, vec![(0, hot("a", 1000, -1)), (1, hot("b", 2000, 1))]);
        // Padded rows appear: the rows that were there, and those that came.
        assert_eq!(second.0, 2_000_000 + padded * 4000);
        assert_eq!(second.1, -2_000_000 + padded as i64 * 4000);
        // One copy of each row of the right side goes again while the left side comes back twice:
        // 2000 rows of weight 2 meet.
        let third = run(3, vec![(0, hot("a", 1000, 2)), (1, hot("b", 2000, -1))]);
        assert_eq!(third.1, 4_000_000 - padded as i64 * 4000);
    }
}

type Row = (Option<i64>, i64);
/// Rows with their weights, all positive.
type Bag = BTreeMap<Row, i64>;

/// The whole output, from the whole input, by nested loops.
fn oracle(spec: &JoinSpec, left: &Bag, right: &Bag) -> BTreeMap<String, i64> {
    let matches = |l: &Row, r: &Row| {
        spec.keys.iter().all(|(lk, rk)| {
            let l = if *lk == 0 { l.0 } else { Some(l.1) };
            let r = if *rk == 0 { r.0 } else { Some(r.1) };
            l == r && (l.is_some() || spec.null_equals_null)
        }) && (spec.residual.is_none() || l.1 < r.1)
    };
    let text = |row: &Row| format!("{} {}", row.0.map_or(".".to_owned(), |k| k.to_string()), row.1);
    let (pairs, left_alone, left_matched, right_alone) = match spec.kind {
        JoinKind::Inner => (true, false, false, false),
        JoinKind::Left => (true, true, false, false),
        JoinKind::Right => (true, false, false, true),
        JoinKind::Full => (true, true, false, true),
        JoinKind::LeftSemi => (false, false, true, false),
        JoinKind::LeftAnti => (false, true, false, false),
    };
    let mut all: BTreeMap<String, i64> = BTreeMap::new();
    for (l, weight) in left {
        let mut matched = false;
        for (r, other) in right.iter().filter(|(r, _)| matches(l, r)) {
            matched = true;
            if pairs {
                *all.entry(format!("{} {}", text(l), text(r))).or_default() += weight * other;
            }
        }
        if (matched && left_matched) || (!matched && left_alone) {
            let padding = if pairs { " . ." } else { "" };
            *all.entry(format!("{}{padding}", text(l))).or_default() += weight;
        }
    }
    if right_alone {
        for (r, weight) in right.iter().filter(|(r, _)| !left.keys().any(|l| matches(l, r))) {
            *all.entry(format!(". . {}", text(r))).or_default() += weight;
        }
    }
    all
}

/// Random changes of a bag, as batches of lines; applies them.
fn change(random: &mut SmallRng, bag: &mut Bag, append_only: bool) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut push = |bag: &mut Bag, row: Row, weight: i64| {
        *bag.entry(row).or_default() += weight;
        let key = row.0.map_or(".".to_owned(), |k| k.to_string());
        lines.push(format!("{weight} {key} {}\n", row.1));
    };
    let rows: Vec<(Row, i64)> = bag.iter().map(|(row, weight)| (*row, *weight)).collect();
    for (row, weight) in rows.into_iter().filter(|_| !append_only) {
        if random.random_bool(0.25) {
            push(bag, row, -random.random_range(1..=weight));
        }
    }
    for _ in 0..random.random_range(0..6) {
        let key = random.random_range(-1..4);
        let row = ((key >= 0).then_some(key), random.random_range(0..4));
        push(bag, row, random.random_range(1..3));
        if random.random_bool(0.1) && !append_only {
            // There and gone within the epoch.
            push(bag, row, -1);
            push(bag, row, 1);
        }
    }
    bag.retain(|_, weight| *weight != 0);
    for index in 1..lines.len() {
        lines.swap(index, random.random_range(0..=index));
    }
    lines.chunks(random.random_range(1..8)).map(|part| part.concat()).collect()
}

fn random_history(random: &mut SmallRng) {
    let kinds = [
        JoinKind::Inner,
        JoinKind::Left,
        JoinKind::Right,
        JoinKind::Full,
        JoinKind::LeftSemi,
        JoinKind::LeftAnti,
    ];
    let keys: [&[(usize, usize)]; 4] = [&[(0, 0)], &[(0, 0), (1, 1)], &[(0, 1)], &[]];
    let kind = kinds[random.random_range(0..kinds.len())];
    let append_only = random.random_bool(0.3);
    let spec = JoinSpec {
        null_equals_null: random.random_bool(0.3),
        residual: random.random_bool(0.5).then(less),
        append_only,
        ..spec(kind, keys[random.random_range(0..keys.len())])
    };
    let schemas = [schema(LEFT_COLUMNS), schema(RIGHT_COLUMNS)];
    let mut driven = Driven::new(|| join(spec.clone())).on_disk_if(random.random_bool(0.5));
    let mut bags = [Bag::new(), Bag::new()];
    let mut shown: BTreeMap<String, i64> = BTreeMap::new();
    for epoch in 1..random.random_range(3..25) {
        let mut batches = Vec::new();
        for (port, bag) in bags.iter_mut().enumerate() {
            if random.random_bool(0.7) {
                batches.extend(change(random, bag, append_only).into_iter().map(|b| (port, b)));
            }
        }
        while !batches.is_empty() {
            let (port, lines) = batches.swap_remove(random.random_range(0..batches.len()));
            driven.batch(port, rows(&schemas[port], &lines)).expect("takes a batch");
        }
        driven.epoch(Epoch(epoch)).expect("completes");
        let sent = driven.sent();
        assert_eq!(sent.cancelled, 0, "epoch {epoch} of {spec:?}");
        for (row, weight) in sent.rows {
            *shown.entry(row).or_default() += weight;
        }
        shown.retain(|_, weight| *weight != 0);
        assert_eq!(shown, oracle(&spec, &bags[0], &bags[1]), "epoch {epoch} of {spec:?}");
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
fn random_histories_against_nested_loops() {
    let seed = std::env::var("MILLSTREAM_SEED").ok().and_then(|s| s.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| rand::rng().random());
    println!("MILLSTREAM_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    for _ in 0..400 {
        random_history(&mut random);
    }
}

#[test]
fn rows_that_are_too_old_to_meet_others_are_forgotten() {
    use crate::plan::event_time::{Expiry, TimeBound};
    use crate::types::time::EventTime;
    let columns = schema("k bigint, at timestamp");
    let at = |index: usize| {
        let data_type = columns.field(index).data_type().clone();
        Expr::column("at", index, data_type, true)
    };
    // The left row's time is at least the right row's, and nothing else: left rows grow old.
    let expiry = Expiry { value: at(1), bound: TimeBound::of_watermark(1) };
    let aging = Aging { expiries: vec![expiry], append_only: true, ..Aging::default() };
    let (left, right) = (columns.clone(), columns.clone());
    let fields = left.fields().iter().chain(right.fields()).cloned();
    let spec = JoinSpec {
        kind: JoinKind::Inner,
        keys: vec![(0, 0)],
        null_equals_null: false,
        residual: None,
        append_only: true,
        aging: [aging, Aging::default()],
        schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
    };
    let join = || -> Box<dyn Operator> {
        Box::new(Join::new(spec.clone(), &left, &right).expect("key types agree"))
    };
    let mut driven = Driven::new(join);
    for n in 0..30_000 {
        let line = format!("+ {} {n}\n", n % 7);
        driven.batch(0, rows(&columns, &line)).expect("takes a batch");
    }
    driven.epoch(Epoch(1)).expect("completes");
    let before = driven.memory_bytes();
    for port in [0, 1] {
        driven.watermark(port, Watermark(EventTime(29_900))).expect("moves");
    }
    driven.epoch(Epoch(2)).expect("completes");
    assert!(driven.memory_bytes() < before / 2, "{} of {before}", driven.memory_bytes());
    // What is young enough meets what comes, and nothing else does.
    driven.batch(1, rows(&columns, "+ 1 29950\n")).expect("takes a batch");
    driven.epoch(Epoch(3)).expect("completes");
    let young = (29_900..30_000).filter(|n| n % 7 == 1).count();
    assert_eq!(driven.sent().rows.len(), young);
}
