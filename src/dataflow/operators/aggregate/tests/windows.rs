//! Windows that overlap: random streams beside sums over the rows of each window.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};

use super::*;
use crate::dataflow::script::{Driven, batch, row_texts};
use crate::plan::event_time::{Step, TimeBound};
use crate::plan::node::{Edge, Node, Phase, Scan};
use crate::plan::overlap::{ManyWindows, WindowKind};
use crate::types::id::ObjectId;
use crate::types::time::EventTime;

const ROWS: &str = "k bigint, pane timestamp, v bigint, f double";
const OUTPUT: &str =
    "k bigint, w timestamp, n bigint, total bigint, most bigint, exact double, mean double";
/// So large that small numbers beside it need more than the words of a sum.
const LARGE: f64 = 1e200;

/// A row, of which the float is so many times [`LARGE`], or so many halves.
#[derive(Clone, Copy)]
struct Event {
    key: i64,
    time: i64,
    value: i64,
    large: i64,
    halves: i64,
}

fn windows(kind: WindowKind, step_us: i64, size_us: i64, offset_us: i64) -> ManyWindows {
    ManyWindows::new(kind, step_us, size_us, offset_us).expect("windows")
}

/// The aggregation of panes, and the one before the exchange.
fn nodes(windows: ManyWindows, on_close: bool) -> (node::Aggregate, node::Aggregate) {
    let pane = Step::Bin { stride_us: windows.pane_us, origin_us: windows.offset_us };
    let scan = Scan {
        object: ObjectId(1),
        name: "t".into(),
        columns: (0..4).collect(),
        schema: schema(ROWS),
        append_only: true,
        time_bounds: vec![TimeBound { column: 1, functions: vec![vec![pane]] }],
        shared: false,
        index: None,
    };
    let names = ["count(*)", "sum(v)", "max(v)", "sum(f)", "avg(f)"];
    let calls: Vec<AggregateCall> = names.iter().map(|text| call(text, &schema(ROWS))).collect();
    let partial = node::Aggregate {
        input: Edge::local(Node::Scan(scan)),
        keys: vec![0, 1],
        calls: calls.clone(),
        append_only: true,
        phase: Phase::Partial,
        on_close: false,
        schema: schema("k bigint, pane timestamp, partial_state bytea"),
    };
    let merged = node::Aggregate {
        input: Edge::hash(Node::Aggregate(partial.clone()), vec![0]),
        keys: vec![0, 1],
        calls,
        append_only: true,
        phase: Phase::Windows { input_schema: schema(ROWS), windows },
        on_close,
        schema: schema(OUTPUT),
    };
    (partial, merged)
}

/// What an epoch's rows are before the exchange.
fn summed(partial: &node::Aggregate, events: &[Event], windows: ManyWindows) -> Vec<ChangeBatch> {
    let pane = Step::Bin { stride_us: windows.pane_us, origin_us: windows.offset_us };
    let rows: String = events
        .iter()
        .map(|event| {
            let (pane, value) = (pane.apply(event.time), event.value);
            let float = event.large as f64 * LARGE + event.halves as f64 / 2.0;
            format!("+ {} {pane} {value} {float:e}\n", event.key)
        })
        .collect();
    let mut operator = PartialAggregate::new(partial.into(), &schema(ROWS)).expect("partial");
    let mut out = Output::default();
    operator.on_batch(0, batch(&schema(ROWS), &rows), &mut out).expect("takes rows");
    operator.on_epoch(Epoch(1), &mut out).expect("sends");
    out.take_batches()
}

/// The rows of all windows that are wanted, as text.
fn recomputed(
    events: &[Event],
    windows: ManyWindows,
    wanted: impl Fn(i64) -> bool,
) -> BTreeSet<String> {
    let mut groups: BTreeMap<(i64, i64), Vec<Event>> = BTreeMap::new();
    for event in events {
        // Every window of the size, and of its growth, around the row.
        let from = windows.not_before(event.time - windows.size_us - windows.step_us);
        for window in (0..).map(|n| from + n * windows.step_us) {
            if window > event.time + windows.size_us {
                break;
            }
            let (begin, end) = match windows.kind {
                WindowKind::Hop => (window, window + windows.size_us),
                WindowKind::Cumulate => {
                    let last = window - 1 - windows.offset_us;
                    (last.div_euclid(windows.size_us) * windows.size_us + windows.offset_us, window)
                }
            };
            if begin <= event.time && event.time < end {
                groups.entry((event.key, window)).or_default().push(*event);
            }
        }
    }
    let groups: Vec<_> = groups.into_iter().filter(|((_, window), _)| wanted(*window)).collect();
    type OfGroup = dyn Fn(&(i64, i64), &Vec<Event>) -> i64;
    let integers = |value: &OfGroup| -> ArrayRef {
        Arc::new(groups.iter().map(|(key, rows)| Some(value(key, rows))).collect::<Int64Array>())
    };
    let floats = |share: bool| -> ArrayRef {
        let value = |rows: &Vec<Event>| {
            let large: i64 = rows.iter().map(|row| row.large).sum();
            let halves: i64 = rows.iter().map(|row| row.halves).sum();
            let sum = if large == 0 { halves as f64 / 2.0 } else { large as f64 * LARGE };
            if share { sum / rows.len() as f64 } else { sum }
        };
        Arc::new(groups.iter().map(|(_, rows)| Some(value(rows))).collect::<Float64Array>())
    };
    let times = groups.iter().map(|((_, window), _)| Some(*window));
    let columns: Vec<ArrayRef> = vec![
        integers(&|(key, _), _| *key),
        Arc::new(times.collect::<TimestampMicrosecondArray>()),
        integers(&|_, rows| rows.len() as i64),
        integers(&|_, rows| rows.iter().map(|row| row.value).sum()),
        integers(&|_, rows| rows.iter().map(|row| row.value).max().expect("rows")),
        floats(false),
        floats(true),
    ];
    let rows = RecordBatch::try_new(schema(OUTPUT), columns).expect("rows");
    row_texts(&rows).into_iter().collect()
}

fn next(state: &mut u64, below: u64) -> i64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    ((*state >> 33) % below) as i64
}

#[test]
fn random_streams_give_the_sums_of_each_window() {
    let kinds = [
        windows(WindowKind::Hop, 10, 60, 0),
        windows(WindowKind::Hop, 6, 15, 2),
        windows(WindowKind::Hop, 20, 20, 5),
        windows(WindowKind::Hop, 30, 10, 0),
        windows(WindowKind::Cumulate, 10, 50, 0),
        windows(WindowKind::Cumulate, 7, 21, 40),
    ];
    for seed in 0..24 {
        for windows in kinds {
            random_stream(seed, windows, false);
            random_stream(seed, windows, true);
        }
    }
}

/// Rows come in disorder, with gaps of time between them, and the operator restarts on the way.
fn random_stream(seed: u64, windows: ManyWindows, on_close: bool) {
    let (partial, merged) = nodes(windows, on_close);
    let input = partial.schema.clone();
    let mut driven =
        Driven::new(|| -> Box<dyn Operator> { over_windows(&merged, &input).expect("new") });
    let mut random = seed;
    let (mut newest, mut watermark) = (0, i64::MIN);
    let mut events: Vec<Event> = Vec::new();
    let mut folded: BTreeMap<String, i64> = BTreeMap::new();
    let delay = next(&mut random, 40);
    for epoch in 1..=40 {
        let before = events.len();
        for _ in 0..next(&mut random, 12) {
            let time = newest + next(&mut random, 30) - 18;
            if time < watermark {
                continue;
            }
            let large = if next(&mut random, 6) == 0 { next(&mut random, 3) - 1 } else { 0 };
            events.push(Event {
                key: next(&mut random, 4),
                time,
                value: next(&mut random, 100),
                large,
                halves: if large == 0 { next(&mut random, 20) - 10 } else { 0 },
            });
            newest = newest.max(time);
        }
        if next(&mut random, 12) == 0 {
            newest += 400;
        }
        for batch in summed(&partial, &events[before..], windows) {
            driven.batch(0, batch).expect("merged");
        }
        let end = epoch == 40;
        watermark = if end { i64::MAX } else { watermark.max(newest - delay) };
        driven.watermark(0, Watermark(EventTime(watermark))).expect("told");
        driven.epoch(Epoch(epoch)).expect("done");
        let sent = driven.sent();
        assert_eq!(sent.cancelled, 0);
        for (row, weight) in sent.rows {
            assert!(!on_close || weight == 1, "seed {seed}: {row} was taken back");
            let total = folded.entry(row).or_default();
            *total += weight;
            assert!((0..=1).contains(total), "seed {seed}: a row came twice");
        }
        folded.retain(|_, weight| *weight != 0);
        if next(&mut random, 5) == 0 {
            driven.checkpoint().expect("written");
            driven.restart().expect("restored");
        }
        let closed = |window: i64| !on_close || windows.span(window).1 <= watermark;
        let right = recomputed(&events, windows, closed);
        let got: BTreeSet<String> = folded.keys().cloned().collect();
        assert_eq!(got, right, "seed {seed}, epoch {epoch}, {windows:?}, on close: {on_close}");
    }
    assert_eq!(driven.state_rows(), 0, "seed {seed}, {windows:?}: all windows have closed");
}

/// A row is there until the last of its windows has closed, however many those are: state and work
/// do not grow with size/slide.
#[test]
fn a_key_has_one_row_for_each_pane() {
    let windows = windows(WindowKind::Hop, 1, 60, 0);
    let (partial, merged) = nodes(windows, true);
    let input = partial.schema.clone();
    let mut driven =
        Driven::new(|| -> Box<dyn Operator> { over_windows(&merged, &input).expect("new") });
    let event = |time| Event { key: 1, time, value: 1, large: 0, halves: 0 };
    let events: Vec<Event> = (0..100).map(event).collect();
    for batch in summed(&partial, &events, windows) {
        driven.batch(0, batch).expect("merged");
    }
    driven.epoch(Epoch(1)).expect("done");
    assert_eq!(driven.state_rows(), 100);
    driven.watermark(0, Watermark(EventTime(100))).expect("told");
    driven.epoch(Epoch(2)).expect("done");
    // The newest window that has closed began at 40: its panes are in later ones, too.
    assert!((59..=60).contains(&driven.state_rows()), "{} panes", driven.state_rows());
    assert_eq!(driven.sent().rows.len(), 100);
}
