use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::DataType;
use expect_test::{Expect, expect};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::dataflow::script::{self, Driven, batch as rows, schema};
use crate::plan::expr::Expr;
use crate::plan::node::{Edge, Exchange, Input, Join, JoinKind, Map};

const EDGE: &str = "a bigint, b bigint";

fn input(port: usize, columns: &str) -> Node {
    Node::Input(Input { port, name: String::new(), schema: schema(columns) })
}

fn edge(node: Node) -> Edge {
    Edge { input: Box::new(node), exchange: Exchange::Single }
}

/// r(a, b): edges, and `SELECT r.a, e.b FROM r JOIN e ON r.b = e.a`.
fn closure(distinct: bool) -> node::Recursive {
    let joined = schema("a bigint, b bigint, i bigint not null, a2 bigint, b2 bigint");
    let join = Node::Join(Join {
        left: edge(input(RECURSIVE_REFERENCE, "a bigint, b bigint, i bigint not null")),
        right: edge(input(1, EDGE)),
        kind: JoinKind::Inner,
        keys: vec![(1, 0)],
        null_equals_null: false,
        residual: None,
        schema: joined,
    });
    let column = |name: &str, index| Expr::column(name, index, DataType::Int64, index != 2);
    let step = Node::Map(Map {
        input: edge(join),
        filter: None,
        projection: Some(vec![column("a", 0), column("b2", 4), column("i", 2)]),
        schema: schema("a bigint, b bigint, i bigint not null"),
    });
    node::Recursive {
        // What the inputs are is nothing to the operator but their schema.
        inputs: vec![edge(input(0, EDGE)), edge(input(1, EDGE))],
        step: Box::new(step),
        distinct,
        name: "r".to_owned(),
        iterations_max: crate::plan::recursion::ITERATIONS_MAX,
        schema: schema(EDGE),
    }
}

fn recursive(distinct: bool) -> Box<dyn Operator> {
    Box::new(Recursive::new(&closure(distinct), 0).expect("a chain"))
}

fn check(distinct: bool, script: &str, expect: Expect) {
    script::check(|| recursive(distinct), &[schema(EDGE), schema(EDGE)], script, expect);
}

#[test]
fn a_circle_that_is_cut_does_not_hold_itself() {
    check(
        true,
        "
        batch 0
          + 1 2
        batch 1
          + 2 3
          + 3 2
        epoch 1
        recover
        batch 0
          + 1 3
        epoch 2
        batch 0
          - 1 2
        epoch 3
        recover
        batch 0
          - 1 3
        epoch 4
        # An edge goes and comes within the epoch.
        batch 0
          + 7 2
        batch 1
          - 2 3
          + 2 3
          - 3 2
        epoch 5
        ",
        expect![[r#"
            epoch 1
            + 1 2
            + 1 3
            epoch 2
            epoch 3
            epoch 4
            - 1 2
            - 1 3
            epoch 5
            + 7 2
            + 7 3
        "#]],
    );
}

#[test]
fn union_all_counts_ways() {
    check(
        false,
        "
        batch 0
          + 1 2
        batch 1
          +2 2 3
          + 3 4
          + 2 4
        epoch 1
        recover
        batch 1
          - 2 3
        epoch 2
        ",
        expect![[r#"
            epoch 1
            + 1 2
            +2 1 3
            +3 1 4
            epoch 2
            - 1 3
            - 1 4
        "#]],
    );
}

#[test]
fn what_does_not_end_is_an_error() {
    check(
        false,
        "
        batch 0
          + 1 1
        batch 1
          + 1 1
        epoch 1
        ",
        expect![[r#"
            epoch 1
            failed: User 54000: recursive query "r" has more than 10000 iterations; hint: Let UNION in place of UNION ALL leave out rows that are there already, bound the depth, or create the view WITH (recursion_limit = n).
        "#]],
    );
}

/// All pairs that paths from the start pairs give.
fn oracle(start: &[(i64, i64)], edges: &[(i64, i64)]) -> BTreeMap<String, i64> {
    let mut found: BTreeSet<(i64, i64)> = start.iter().copied().collect();
    let mut fresh: Vec<(i64, i64)> = found.iter().copied().collect();
    while let Some((a, b)) = fresh.pop() {
        for (_, to) in edges.iter().filter(|(from, _)| *from == b) {
            if found.insert((a, *to)) {
                fresh.push((a, *to));
            }
        }
    }
    found.into_iter().map(|(a, b)| (format!("{a} {b}"), 1)).collect()
}

fn random_history(random: &mut SmallRng) {
    let mut driven = Driven::new(|| recursive(true));
    let mut bags: [Vec<(i64, i64)>; 2] = [vec![], vec![]];
    let mut shown: BTreeMap<String, i64> = BTreeMap::new();
    let nodes = random.random_range(2..7);
    for epoch in 1..random.random_range(3..25) {
        for (port, bag) in bags.iter_mut().enumerate() {
            let mut lines = String::new();
            for _ in 0..random.random_range(0..4) {
                if !bag.is_empty() && random.random_bool(0.5) {
                    let (a, b) = bag.swap_remove(random.random_range(0..bag.len()));
                    lines.push_str(&format!("- {a} {b}\n"));
                } else {
                    let pair = (random.random_range(0..nodes), random.random_range(0..nodes));
                    bag.push(pair);
                    lines.push_str(&format!("+ {} {}\n", pair.0, pair.1));
                }
            }
            if !lines.is_empty() {
                driven.batch(port, rows(&schema(EDGE), &lines)).expect("takes a batch");
            }
        }
        driven.epoch(Epoch(epoch)).expect("completes");
        let sent = driven.sent();
        assert_eq!(sent.cancelled, 0, "epoch {epoch}");
        for (row, weight) in sent.rows {
            *shown.entry(row).or_default() += weight;
        }
        shown.retain(|_, weight| *weight != 0);
        assert_eq!(shown, oracle(&bags[0], &bags[1]), "epoch {epoch}");
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
fn random_histories_against_walking() {
    let seed = std::env::var("MILLSTREAM_SEED").ok().and_then(|s| s.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| rand::rng().random());
    println!("MILLSTREAM_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    for _ in 0..400 {
        random_history(&mut random);
    }
}
