//! Row patterns in event time: whatever the order of arrival, the watermarks on the way and the
//! restarts, what comes out is what a batch makes of the rows that were not late. The contract's
//! checks watch that nothing goes and that the output keeps what its watermark promises.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::dataflow::operator::Operator;
use crate::dataflow::operators;
use crate::dataflow::script::{Driven, batch};
use crate::plan::event_time::{TimeBound, time_bounds};
use crate::plan::node::{self, Node};
use crate::sql::tests::Fixture;
use crate::types::time::{Epoch, EventTime, Watermark};

const SECOND_US: i64 = 1_000_000;

/// Clauses over `t(p bigint, k timestamp, v bigint)`; `k` is in whole seconds.
const QUERIES: [&str; 14] = [
    "MEASURES sum(v) AS s, MATCH_ROWTIME() AS at PATTERN (a up+) DEFINE up AS v > PREV(v)",
    "MEASURES FIRST(k) AS f, MATCH_ROWTIME() AS l, MATCH_TIMED_OUT() AS o
     PATTERN (a b+ c) WITHIN INTERVAL '6' SECOND EMIT TIMEOUT ROWS
     DEFINE a AS v < 2, b AS v < 4, c AS v = 4",
    "MEASURES a.k AS f, count(*) AS n PATTERN RELAXED (a NOT b) WITHIN INTERVAL '4' SECOND
     DEFINE a AS v = 0, b AS v = 1",
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
    "MEASURES FIRST(k) AS f, LAST(k) AS l PATTERN RELAXED ANY (a b c) WITHIN INTERVAL '5' SECOND
     DEFINE a AS v = 0, b AS v = 1, c AS v = 2",
    "MEASURES string_agg(CLASSIFIER(), '') AS c PATTERN (PERMUTE(a, b, c))
     DEFINE a AS v < 2, b AS v < 3, c AS v <> PREV(v)",
    "MEASURES sum(b.v) AS s, FIRST(a.v) AS f PATTERN (a (b | x)+ c) SUBSET u = (a, b)
     DEFINE a AS v = 0, b AS sum(b.v) + FIRST(a.v) < 8, x AS v = 3, c AS avg(u.v) < v",
    "MEASURES MATCH_NUMBER() AS n, FIRST(k) AS f, LAST(k) AS l
     PATTERN (a+ b) DEFINE a AS v < MATCH_NUMBER() + 1, b AS v >= 2",
    "MEASURES FIRST(k) AS f, LAST(k) AS l, MATCH_ROWTIME() AS at AFTER MATCH SKIP TO NEXT ROW
     PATTERN (a b* c*) WITHIN INTERVAL '9' SECOND
     DEFINE b AS v > PREV(v) AND NEXT(v, 2) > 0, c AS MATCH_NUMBER() > 2 AND v < FIRST(v)",
    "MEASURES a.v AS v, 6 / (LAST(b.v) - 1) AS d PATTERN (a b+ x?)
     DEFINE b AS 12 / v > 2, x AS 6 / (v - FIRST(a.v)) < 0",
];

/// The MATCH_RECOGNIZE of a query, in event time; its input never deletes, or it does.
fn operator_of(clauses: &str, append_only: bool) -> node::MatchRecognize {
    let sql = format!("SELECT * FROM t MATCH_RECOGNIZE (PARTITION BY p ORDER BY k {clauses})");
    let mut fixture = Fixture::new();
    fixture.table("t", "p bigint, k timestamp, v bigint", 0, "");
    let planned = fixture.plan(&sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let plan = planned.lower().unwrap_or_else(|error| panic!("{sql}: {error}"));
    let mut found = None;
    plan.root.visit(&mut |node| {
        if let Node::MatchRecognize(node) = node {
            found = Some(node.clone());
        }
    });
    let mut found = found.expect("the plan has the operator");
    let time = found.spec.order_by[0].column;
    found.closes = Some(TimeBound::of_watermark(time));
    set_append_only(&mut found.input.input, append_only);
    found
}

fn set_append_only(node: &mut Node, append_only: bool) {
    match node {
        Node::Scan(scan) => scan.append_only = append_only,
        other => {
            let inputs = other.inputs_mut();
            inputs.into_iter().for_each(|edge| set_append_only(&mut edge.input, append_only));
        }
    }
}

fn build(node: &node::MatchRecognize) -> Box<dyn Operator> {
    operators::build(&Node::MatchRecognize(node.clone()), 0).expect("a small pattern")
}

fn lines(rows: &BTreeMap<String, i64>) -> String {
    rows.iter().map(|(row, weight)| format!("{weight:+} {row}\n")).collect()
}

fn add(content: &mut BTreeMap<String, i64>, changes: &BTreeMap<String, i64>) {
    for (row, weight) in changes {
        *content.entry(row.clone()).or_default() += weight;
    }
    content.retain(|_, weight| *weight != 0);
}

fn compare(index: usize, seed: u64) {
    let mut draw = SmallRng::seed_from_u64(seed * 1000 + index as u64);
    let append_only = draw.random_bool(0.6);
    let node = operator_of(QUERIES[index], append_only);
    let input = node.input.input.schema();
    let names: Vec<String> = input
        .fields()
        .iter()
        .map(|field| field.name().rsplit('.').next().unwrap_or_default().to_owned())
        .collect();
    let mut driven = Driven::new(|| build(&node));
    let mut rows: BTreeMap<String, i64> = BTreeMap::new();
    let mut content: BTreeMap<String, i64> = BTreeMap::new();
    let mut errors: BTreeMap<String, i64> = BTreeMap::new();
    let (mut watermark, mut told) = (0_i64, None);
    let label = format!("query {index}, seed {seed}");
    for epoch in 1..=60 {
        let mut changes: BTreeMap<String, i64> = BTreeMap::new();
        let time_of = |row: &str| {
            let place = names.iter().position(|name| name == "k").expect("a time");
            row.split(' ').nth(place).and_then(|time| time.parse::<i64>().ok()).expect("a time")
        };
        for _ in 0..draw.random_range(0..8) {
            if !append_only && draw.random_bool(0.2) {
                let open: Vec<&String> =
                    rows.keys().filter(|row| time_of(row) >= watermark).collect();
                if !open.is_empty() {
                    let row = open[draw.random_range(0..open.len())].clone();
                    if rows[&row] + changes.get(&row).copied().unwrap_or(0) > 0 {
                        *changes.entry(row).or_default() -= 1;
                    }
                    continue;
                }
            }
            // Within eight seconds of the watermark, in any order.
            let k = watermark + draw.random_range(0..8) * SECOND_US;
            let (p, v) = (draw.random_range(0..3), draw.random_range(0..5));
            let values = names.iter().map(|name| match name.as_str() {
                "p" => p.to_string(),
                "k" => k.to_string(),
                "v" => v.to_string(),
                other => panic!("an unexpected column {other}"),
            });
            let row = values.collect::<Vec<_>>().join(" ");
            *changes.entry(row).or_default() += 1;
        }
        changes.retain(|_, weight| *weight != 0);
        add(&mut rows, &changes);
        if !changes.is_empty() {
            driven.batch(0, batch(&input, &lines(&changes))).expect("takes rows");
        }
        if draw.random_bool(0.6) {
            watermark += draw.random_range(0..4) * SECOND_US;
        }
        let last = epoch == 60;
        let told_now = if last { Watermark::END } else { Watermark(EventTime(watermark)) };
        if last || told != Some(told_now) && draw.random_bool(0.8) {
            driven.watermark(0, told_now).expect("takes a watermark");
            told = Some(told_now);
        }
        driven.epoch(Epoch(epoch)).expect("an epoch");
        let sent = driven.sent();
        assert!(sent.rows.values().all(|weight| *weight > 0), "{label}: {:?}", sent.rows);
        add(&mut content, &sent.rows);
        for error in sent.errors {
            *errors.entry(format!("{} {}", error.expression, error.row)).or_default() += 1;
        }
        if !last && draw.random_bool(0.15) {
            driven.checkpoint().expect("checkpoints");
            driven.restart().expect("restores");
            // Watermarks come again, at the next epoch or later.
            told = None;
        }
    }
    assert_eq!(driven.state_rows(), 0, "{label}: an ended stream needs nothing");
    let mut at_once = node.clone();
    at_once.closes = None;
    let mut fresh = Driven::new(|| build(&at_once));
    if !rows.is_empty() {
        fresh.batch(0, batch(&input, &lines(&rows))).expect("takes rows");
    }
    fresh.epoch(Epoch(1)).expect("an epoch");
    let sent = fresh.sent();
    assert_eq!(content, sent.rows, "{label}: {}\nrows\n{}", QUERIES[index], lines(&rows));
    let mut expected: BTreeMap<String, i64> = BTreeMap::new();
    for error in sent.errors {
        *expected.entry(format!("{} {}", error.expression, error.row)).or_default() += 1;
    }
    let keys = |errors: &BTreeMap<String, i64>| errors.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&errors), keys(&expected), "{label}: rows that failed");
}

/// As many seeds for each query as `MILLSTREAM_PATTERN_SEEDS` says.
#[test]
fn a_stream_has_the_matches_of_a_batch() {
    let seeds = std::env::var("MILLSTREAM_PATTERN_SEEDS").ok().and_then(|n| n.parse().ok());
    for seed in 0..seeds.unwrap_or(12) {
        for index in 0..QUERIES.len() {
            compare(index, seed);
        }
    }
}

/// Rows in order, one an epoch, each with the watermark right behind it.
struct Feed {
    driven: Driven<'static>,
    input: arrow::datatypes::SchemaRef,
    epoch: u64,
    rows_out: i64,
}

impl Feed {
    fn new(clauses: &str) -> Feed {
        let node = operator_of(clauses, true);
        let input = node.input.input.schema();
        let driven = Driven::new(move || build(&node));
        Feed { driven, input, epoch: 0, rows_out: 0 }
    }

    /// Rows of `(p, k in seconds, v)`, then the watermark in seconds.
    fn step(&mut self, rows: &[(i64, i64, i64)], watermark_s: i64) {
        let mut text = String::new();
        for (p, k, v) in rows {
            let values = self.input.fields().iter().map(|field| {
                match field.name().rsplit('.').next().unwrap_or_default() {
                    "p" => *p,
                    "k" => *k * SECOND_US,
                    _ => *v,
                }
                .to_string()
            });
            text.push_str(&format!("+ {}\n", values.collect::<Vec<_>>().join(" ")));
        }
        if !rows.is_empty() {
            self.driven.batch(0, batch(&self.input, &text)).expect("takes rows");
        }
        let watermark = Watermark(EventTime(watermark_s * SECOND_US));
        self.driven.watermark(0, watermark).expect("takes a watermark");
        self.epoch += 1;
        self.driven.epoch(Epoch(self.epoch)).expect("an epoch");
        self.rows_out += self.driven.sent().rows.values().sum::<i64>();
    }
}

#[test]
fn only_rows_that_a_partial_match_may_need_are_kept() {
    let mut feed = Feed::new(
        "MEASURES count(*) AS n, MATCH_TIMED_OUT() AS o
         PATTERN (a up+ x) WITHIN INTERVAL '10' SECOND EMIT TIMEOUT ROWS
         DEFINE a AS v = 0, up AS v > PREV(v), x AS v < PREV(v)",
    );
    // Nothing begins with 5: what the watermark has passed is gone.
    feed.step(&[(1, 1, 5), (1, 2, 5), (2, 1, 5)], 3);
    assert_eq!(feed.driven.state_rows(), 0);
    // A partial match of three rows, a row that still waits, and another partition.
    feed.step(&[(1, 3, 0), (1, 4, 1), (1, 5, 2), (1, 6, 9), (2, 4, 0)], 6);
    assert_eq!(feed.driven.state_rows(), 5);
    // It completes, and its rows are skipped.
    feed.step(&[(1, 7, 1)], 8);
    assert_eq!((feed.rows_out, feed.driven.state_rows()), (1, 1));
    // The other partition falls silent; its time ends 10 s after its row, not before.
    feed.step(&[], 14);
    assert_eq!((feed.rows_out, feed.driven.state_rows()), (1, 1));
    feed.step(&[], 15);
    assert_eq!((feed.rows_out, feed.driven.state_rows()), (2, 0));
    let empty = Feed::new("MEASURES count(*) AS n PATTERN (a) DEFINE a AS v = 0");
    let bytes = feed.driven.memory_bytes();
    assert!(bytes < empty.driven.memory_bytes() + 20_000, "{bytes} bytes are kept for nothing");
}

/// The cost of a row does not depend on how many rows the match has, nor the partition.
#[test]
fn a_row_costs_the_same_at_the_end_of_a_long_match() {
    let mut feed = Feed::new(
        "MEASURES FIRST(k) AS f, sum(v) AS s PATTERN (a b+ c)
         DEFINE a AS v = 0, b AS v = 1 AND sum(b.v) < 1000000 AND k > FIRST(a.k), c AS v = 2",
    );
    feed.step(&[(1, 0, 0)], 1);
    let mut tenths: Vec<std::time::Duration> = Vec::new();
    const PART: i64 = 300;
    for part in 0..10 {
        let began = std::time::Instant::now();
        for row in 0..PART {
            let k = 1 + part * PART + row;
            feed.step(&[(1, k, 1)], k + 1);
        }
        tenths.push(began.elapsed());
    }
    let end = 1 + 10 * PART;
    feed.step(&[(1, end, 2)], end + 1);
    assert_eq!((feed.rows_out, feed.driven.state_rows()), (1, 0));
    // Of three parts each, the fastest: others compute here, too.
    let least = |parts: &[std::time::Duration]| *parts.iter().min().expect("some parts");
    let (early, late) = (least(&tenths[1..4]), least(&tenths[7..]));
    assert!(late < 3 * early, "{early:?} for {PART} rows grew to {late:?}: {tenths:?}");
}

#[test]
fn the_time_of_a_match_is_bounded_downstream() {
    let node = operator_of(
        "MEASURES FIRST(k) AS f, MATCH_ROWTIME() AS at, PREV(FIRST(k)) AS before
         PATTERN (a b+) WITHIN INTERVAL '10' SECOND DEFINE b AS v = 1",
        true,
    );
    let bounds = time_bounds(&Node::MatchRecognize(node.clone()));
    let named: Vec<(String, i64)> = bounds
        .iter()
        .map(|bound| {
            let name = node.spec.schema.field(bound.column).name().clone();
            (name, bound.at(Watermark(EventTime(60 * SECOND_US))) / SECOND_US)
        })
        .collect();
    let mut seconds: Vec<i64> = named.iter().map(|(_, seconds)| *seconds).collect();
    seconds.sort_unstable();
    assert_eq!(seconds, [50, 60], "{named:?}");
}
