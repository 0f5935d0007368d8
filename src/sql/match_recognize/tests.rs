//! The dataflow's operator follows random changes, and always has what a fresh one makes of the
//! rows that are there.

mod errors;
mod stream;

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::dataflow::operator::Operator;
use crate::dataflow::operators::match_recognize::MatchRecognize;
use crate::dataflow::script::{Driven, batch};
use crate::plan::node::{self, Node};
use crate::sql::tests::Fixture;
use crate::types::time::Epoch;

/// Clauses over a table `t(p, k, v)`; most conditions look ahead, back or at the match so far.
const QUERIES: [&str; 8] = [
    "MEASURES MATCH_NUMBER() AS n, sum(v) AS s PATTERN (a up+) DEFINE up AS v > PREV(v)",
    "MEASURES CLASSIFIER() AS c, FINAL count(*) AS n, NEXT(v) AS after
     ALL ROWS PER MATCH WITH UNMATCHED ROWS
     PATTERN (a b*? c) DEFINE a AS v = 0, c AS v > 2 AND NEXT(v) < v",
    "MEASURES MATCH_NUMBER() AS n, FIRST(k) AS f, LAST(k) AS l AFTER MATCH SKIP TO NEXT ROW
     PATTERN (a b{2,3} | c) DEFINE b AS v <> FIRST(a.v), c AS v = 4",
    "MEASURES count(*) AS n, min(b.v) AS least ALL ROWS PER MATCH
     PATTERN (a {- b+ -} c $ | d) DEFINE b AS sum(b.v) < 9, d AS v = PREV(v, 2)",
    "MEASURES array_agg(v) AS vs, CLASSIFIER(u) AS cu AFTER MATCH SKIP TO LAST b
     PATTERN (^ a+ | a b+) SUBSET u = (a, b) DEFINE b AS v > LAST(b.v, 1) OR LAST(b.v, 1) IS NULL",
    "MEASURES PREV(FIRST(k), 2) AS before, MATCH_NUMBER() AS n ALL ROWS PER MATCH
     PATTERN (a*) DEFINE a AS v < 2",
    "MEASURES FIRST(k) AS f, LAST(k) AS l PATTERN RELAXED (a NOT b c)
     DEFINE a AS v = 0, b AS v = 1, c AS v = 2",
    "MEASURES string_agg(CLASSIFIER(), '') AS c PATTERN (PERMUTE(a, b, c))
     DEFINE a AS v < 2, b AS v < 3, c AS v <> PREV(v)",
];

/// The MATCH_RECOGNIZE of a query's dataflow, whose input has the columns of its order of use.
fn operator_of(sql: &str) -> node::MatchRecognize {
    let mut fixture = Fixture::new();
    fixture.table("t", "p bigint, k bigint, v bigint", 0, "");
    let planned = fixture.plan(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let plan = planned.lower().unwrap_or_else(|error| panic!("{sql}: {error}"));
    let mut found = None;
    plan.root.visit(&mut |node| {
        if let Node::MatchRecognize(node) = node {
            found = Some(node.clone());
        }
    });
    found.expect("the plan has the operator")
}

fn apply(content: &mut BTreeMap<String, i64>, changes: &BTreeMap<String, i64>) {
    for (row, weight) in changes {
        *content.entry(row.clone()).or_default() += weight;
    }
    content.retain(|_, weight| *weight != 0);
}

fn lines(rows: &BTreeMap<String, i64>) -> String {
    rows.iter().map(|(row, weight)| format!("{weight:+} {row}\n")).collect()
}

fn compare(clauses: &str, seed: u64, epochs: u64) {
    let sql = format!("SELECT * FROM t MATCH_RECOGNIZE (PARTITION BY p ORDER BY k {clauses})");
    let node = operator_of(&sql);
    let input = node.input.input.schema();
    let make = || -> Box<dyn Operator> {
        Box::new(MatchRecognize::new(&node, &input).expect("a small pattern"))
    };
    let columns: Vec<&str> = input.fields().iter().map(|field| field.name().as_str()).collect();
    let mut draw = SmallRng::seed_from_u64(seed);
    let mut driven = Driven::new(make);
    let mut rows: BTreeMap<String, i64> = BTreeMap::new();
    let mut content: BTreeMap<String, i64> = BTreeMap::new();
    for epoch in 1..=epochs {
        let mut changes: BTreeMap<String, i64> = BTreeMap::new();
        for _ in 0..draw.random_range(1..12) {
            let keys: Vec<&String> = rows.keys().collect();
            let deletes = !keys.is_empty() && draw.random_bool(0.35);
            if deletes {
                let row = keys[draw.random_range(0..keys.len())].clone();
                // Not more copies than there are.
                if rows[&row] + changes.get(&row).copied().unwrap_or(0) > 0 {
                    *changes.entry(row).or_default() -= 1;
                }
                continue;
            }
            // Most rows come at the end.
            let late = draw.random_bool(0.3);
            let k = if late { draw.random_range(0..epoch * 4) } else { epoch * 4 };
            let (p, v) = (draw.random_range(0..2), draw.random_range(0..5));
            let unqualified =
                |column: &&str| column.rsplit('.').next().unwrap_or_default().to_owned();
            let values = columns.iter().map(|column| match unqualified(column).as_str() {
                "p" => p.to_string(),
                "k" => k.to_string(),
                "v" => v.to_string(),
                other => panic!("an unexpected column {other}"),
            });
            let row = values.collect::<Vec<_>>().join(" ");
            *changes.entry(row).or_default() += 1;
        }
        changes.retain(|_, weight| *weight != 0);
        driven.batch(0, batch(&input, &lines(&changes))).expect("takes rows");
        driven.epoch(Epoch(epoch)).expect("an epoch");
        apply(&mut rows, &changes);
        let sent = driven.sent();
        assert_eq!(sent.cancelled, 0, "seed {seed}, epoch {epoch}: {sql}");
        apply(&mut content, &sent.rows);
        let mut fresh = Driven::new(make);
        fresh.batch(0, batch(&input, &lines(&rows))).expect("takes rows");
        fresh.epoch(Epoch(1)).expect("an epoch");
        assert_eq!(content, fresh.sent().rows, "seed {seed}, epoch {epoch}: {sql}");
        if draw.random_bool(0.1) {
            driven.checkpoint().expect("checkpoints");
            driven.restart().expect("restores");
        }
    }
}

#[test]
fn matches_follow_every_change() {
    for (index, clauses) in QUERIES.iter().enumerate() {
        for seed in 0..6 {
            compare(clauses, seed * 100 + index as u64, 60);
        }
    }
}

/// What a change costs does not grow with the partition: at its end, nor in its middle.
#[test]
fn a_change_is_matched_to_where_all_is_as_it_was() {
    let node = operator_of(
        "SELECT * FROM t MATCH_RECOGNIZE (PARTITION BY p ORDER BY k
         MEASURES LAST(down.v) AS bottom PATTERN (a down+ up+)
         DEFINE down AS v < PREV(v), up AS v > PREV(v))",
    );
    let input = node.input.input.schema();
    let row = |k: i64, v: i64| {
        let values = input.fields().iter().map(|field| {
            let name = field.name().rsplit('.').next().unwrap_or_default();
            match name {
                "p" => 1,
                "k" => k,
                _ => v,
            }
            .to_string()
        });
        values.collect::<Vec<_>>().join(" ")
    };
    let tries_of_a_change = |rows: i64| {
        let mut driven = Driven::new(|| -> Box<dyn Operator> {
            Box::new(MatchRecognize::new(&node, &input).expect("a small pattern"))
        });
        let all: String = (0..rows).map(|k| format!("+ {}\n", row(k, (k * 7) % 10))).collect();
        driven.batch(0, batch(&input, &all)).expect("takes rows");
        driven.epoch(Epoch(1)).expect("an epoch");
        let tried = |driven: &Driven<'_>| driven.counted("down tried") + driven.counted("up tried");
        let mut spent = Vec::new();
        let middle = rows / 2;
        let changes = [
            format!("- {}\n+ {}", row(middle, (middle * 7) % 10), row(middle, 99)),
            format!("- {}", row(middle + 100, ((middle + 100) * 7) % 10)),
            format!("+ {}", row(rows, 3)),
        ];
        for (epoch, change) in (2..).zip(&changes) {
            let before = tried(&driven);
            driven.batch(0, batch(&input, change)).expect("takes rows");
            driven.epoch(Epoch(epoch)).expect("an epoch");
            spent.push(tried(&driven) - before);
        }
        spent
    };
    let (short, long) = (tries_of_a_change(1_000), tries_of_a_change(10_000));
    for (short, long) in short.iter().zip(&long) {
        assert!(*long <= 2 * short + 200, "{short} tries in 1,000 rows, {long} in 10,000");
    }
    assert!(long.iter().all(|tries| *tries < 1_000), "{long:?}");
}
