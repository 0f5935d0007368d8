//! Up to where in the past rows may still come: what late rows can be taken in again.
//!
//! Operators forget by bounds: what is below `f(watermark)` in some column. Let V be an earlier
//! watermark with `f(V) = f(watermark)` for every bound that an operator of the plan forgets by. Then
//! at V the operators would have forgotten exactly what they have forgotten now: their state is
//! that of V, at which a row of V or later is not late. A tumbling window of an hour is an example:
//! at 12:50 rows of 12:00 may come, for the state of their window is there; before 12:00 it is not.
//! Where something is forgotten by the time itself (a join within a distance, rows of window
//! functions, sessions) nothing before the watermark may come.
//!
//! Each operator is judged by the watermarks of its own inputs: behind a join or union with a slower
//! stream they are that stream's, and what is late for one stream may be in time there.
//!
//! What is asked here of each node is what `dataflow::operators::build` gives to its operator.

use crate::plan::event_time::{
    TimeBound, aggregate_bounds, bounded_keys, expiries, find, settling_order, time_bounds,
    timed_keys,
};
use crate::plan::node::{Join, Node, Phase};
use crate::types::id::ObjectId;
use crate::types::time::Watermark;

/// The watermark of an object that is read; `None`: it has none yet, or never.
pub type WatermarkOf<'a> = &'a dyn Fn(ObjectId) -> Option<Watermark>;

/// The earliest event time, in microseconds, of rows that a dataflow can still take in, of any of the
/// objects that it reads.
pub fn open_from(root: &Node, watermark_of: WatermarkOf<'_>) -> i64 {
    let mut from = i64::MIN;
    output_watermark(root, watermark_of, &mut |node, inputs| {
        let least = inputs.iter().copied().min().flatten();
        if least == Some(Watermark::END) && forgets_at_the_end(node) {
            from = i64::MAX;
        }
        for (bound, watermark) in forgets_by(node, inputs) {
            if let Some(watermark) = watermark {
                from = from.max(begins_to_close(&bound, watermark));
            }
        }
    });
    from
}

/// The watermark of what a node gives: the least of its inputs', and no less than its operator may
/// have announced. `visit` is told of each node with the watermarks of its inputs.
pub fn output_watermark(
    node: &Node,
    watermark_of: WatermarkOf<'_>,
    visit: &mut dyn FnMut(&Node, &[Option<Watermark>]),
) -> Option<Watermark> {
    let inputs: Vec<Option<Watermark>> = match node {
        Node::Scan(scan) => vec![watermark_of(scan.object)],
        _ => node
            .inputs()
            .into_iter()
            .filter(|edge| !matches!(*edge.input, Node::Clock(_)))
            .map(|edge| output_watermark(&edge.input, watermark_of, visit))
            .collect(),
    };
    visit(node, &inputs);
    match node {
        // Its rows are there from the beginning, and none follow.
        Node::Constant(_) | Node::Clock(_) | Node::Input(_) => Some(Watermark::END),
        // Left rows pass whatever comes on the right.
        Node::LookupJoin(_) => inputs.first().copied().flatten(),
        _ => inputs.iter().copied().min().flatten(),
    }
}

/// The earliest watermark at which the bound is what it is at this one.
fn begins_to_close(bound: &TimeBound, watermark: Watermark) -> i64 {
    let value = bound.at(watermark);
    match watermark == Watermark::END {
        true if bound.functions.is_empty() => i64::MIN,
        true => i64::MAX,
        false => bound.closes_at(value.saturating_sub(1)),
    }
}

/// The bounds by which the node's operator forgets, each with the watermark that moves it.
fn forgets_by(node: &Node, inputs: &[Option<Watermark>]) -> Vec<(TimeBound, Option<Watermark>)> {
    let least = inputs.iter().copied().min().flatten();
    let keys = |input: &Node, keys: &[usize]| -> Vec<TimeBound> {
        bounded_keys(&time_bounds(input), keys).map(|(_, bound)| bound).collect()
    };
    let bounds: Vec<TimeBound> = match node {
        // Rows of an epoch are not kept longer.
        Node::Aggregate(n) if matches!(n.phase, Phase::Partial) => vec![],
        Node::Aggregate(n) => aggregate_bounds(n),
        Node::Join(n) => return joined(n, inputs),
        Node::TopN(n) => keys(&n.input.input, &n.partition),
        Node::Over(n) => {
            let bounds = time_bounds(&n.input.input);
            let in_order = settling_order(n).and_then(|column| find(&bounds, column).cloned());
            keys(&n.input.input, &n.partition).into_iter().chain(in_order).collect()
        }
        Node::MatchRecognize(n) => n.closes.iter().cloned().collect(),
        Node::Session(n) => {
            find(&time_bounds(&n.input.input), n.time).into_iter().cloned().collect()
        }
        Node::AsofJoin(n) => {
            let (left, right) = (time_bounds(&n.left.input), time_bounds(&n.right.input));
            find(&left, n.times.0).into_iter().chain(find(&right, n.times.1)).cloned().collect()
        }
        // It gives a row when any of its times has passed.
        Node::WindowClose(n) => time_bounds(&n.input.input),
        Node::Scan(_)
        | Node::Constant(_)
        | Node::Map(_)
        | Node::Expand(_)
        | Node::Copies(_)
        | Node::Union(_)
        | Node::LookupJoin(_)
        | Node::Recursive(_)
        | Node::Input(_)
        | Node::Unnest(_)
        | Node::Throttle(_)
        | Node::TemporalFilter(_)
        | Node::Retain(_)
        | Node::Clock(_) => vec![],
    };
    bounds.into_iter().map(|bound| (bound, least)).collect()
}

/// Rows with equal times are forgotten when both sides are past them; rows within a distance when
/// the other side is past all that they could meet.
fn joined(join: &Join, watermarks: &[Option<Watermark>]) -> Vec<(TimeBound, Option<Watermark>)> {
    let least = watermarks.iter().copied().min().flatten();
    let keys = timed_keys(join).into_iter().flat_map(|key| key.bounds);
    let mut bounds: Vec<_> = keys.map(|bound| (bound, least)).collect();
    let inputs = [&join.left.input, &join.right.input];
    for (side, (expiries, input)) in expiries(join).into_iter().zip(inputs).enumerate() {
        if expiries.is_empty() {
            continue;
        }
        let (own, other) = (watermarks[side], watermarks[1 - side]);
        bounds.extend(expiries.into_iter().map(|expiry| (expiry.bound, other)));
        if !input.append_only() {
            // Rows are kept until their own time has passed, too.
            bounds.extend(time_bounds(input).into_iter().map(|bound| (bound, own)));
        }
    }
    bounds
}

/// Whether the node's operator gives up its rows when its inputs have ended, with bounds or
/// without.
fn forgets_at_the_end(node: &Node) -> bool {
    matches!(
        node,
        Node::TopN(_)
            | Node::Over(_)
            | Node::Session(_)
            | Node::AsofJoin(_)
            | Node::MatchRecognize(_)
            | Node::WindowClose(_)
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

    use super::*;
    use crate::plan::event_time::Step;
    use crate::plan::expr::Expr;
    use crate::plan::node::{Edge, Map, Scan, Union, WindowClose};
    use crate::types::time::EventTime;

    const MINUTE: i64 = 60_000_000;

    fn schema() -> SchemaRef {
        let data_type = DataType::Timestamp(TimeUnit::Microsecond, None);
        Arc::new(Schema::new(vec![Field::new("ts", data_type, true)]))
    }

    fn scan() -> Node {
        Node::Scan(Scan {
            object: ObjectId(1),
            name: "t".to_owned(),
            columns: vec![0],
            schema: schema(),
            append_only: true,
            time_bounds: vec![TimeBound::of_watermark(0)],
            shared: false,
            index: None,
        })
    }

    fn at(us: i64) -> Watermark {
        Watermark(EventTime(us))
    }

    #[test]
    fn what_forgets_nothing_takes_all() {
        let data_type = DataType::Timestamp(TimeUnit::Microsecond, None);
        let map = Node::Map(Map {
            input: Edge::local(scan()),
            filter: None,
            projection: Some(vec![Expr::column("ts", 0, data_type, true)]),
            schema: schema(),
        });
        assert_eq!(open_from(&map, &|_| Some(at(7 * MINUTE))), i64::MIN);
        assert_eq!(open_from(&map, &|_| Some(Watermark::END)), i64::MIN);
    }

    #[test]
    fn what_goes_by_the_time_itself_takes_nothing_behind_the_watermark() {
        let bound = TimeBound::of_watermark(0);
        let closes = Node::WindowClose(WindowClose { input: Edge::local(scan()), bound });
        assert_eq!(open_from(&closes, &|_| Some(at(7 * MINUTE))), 7 * MINUTE);
        assert_eq!(open_from(&closes, &|_| Some(Watermark::END)), i64::MAX);
    }

    #[test]
    fn behind_a_slower_stream_its_watermark_counts() {
        let other = |object: u64| match scan() {
            Node::Scan(scan) => Node::Scan(Scan { object: ObjectId(object), ..scan }),
            other => other,
        };
        let inputs = vec![Edge::local(other(1)), Edge::local(other(2))];
        let union = Node::Union(Union { inputs, schema: schema() });
        let bound = TimeBound::of_watermark(0);
        let closes = Node::WindowClose(WindowClose { input: Edge::local(union), bound });
        let of = |object: ObjectId| Some(at(if object == ObjectId(1) { 9 } else { 4 } * MINUTE));
        assert_eq!(open_from(&closes, &of), 4 * MINUTE);
        // One that has no watermark yet holds all others back.
        let none = |object: ObjectId| of(object).filter(|_| object == ObjectId(1));
        assert_eq!(open_from(&closes, &none), i64::MIN);
    }

    #[test]
    fn a_bound_is_the_same_since_its_window_began() {
        let hour = Step::Bin { stride_us: 60 * MINUTE, origin_us: 0 };
        let later = Step::Shift { months: 0, us: 60 * MINUTE };
        let of = |functions: Vec<Vec<Step>>, us: i64| {
            begins_to_close(&TimeBound { column: 0, functions }, at(us))
        };
        assert_eq!(of(vec![vec![hour]], 125 * MINUTE), 120 * MINUTE);
        assert_eq!(of(vec![vec![hour, later]], 125 * MINUTE), 120 * MINUTE);
        assert_eq!(of(vec![vec![hour]], 120 * MINUTE), 120 * MINUTE);
        assert_eq!(of(vec![vec![]], 125 * MINUTE), 125 * MINUTE);
        // Calendar months: since the first.
        let day = 24 * 60 * MINUTE;
        assert_eq!(of(vec![vec![Step::Months { every: 1 }]], 40 * day), 31 * day);
        // The looser of two bounds counts.
        let earlier = vec![Step::Shift { months: 0, us: -MINUTE }];
        assert_eq!(of(vec![vec![], earlier], 125 * MINUTE), 125 * MINUTE);
        assert_eq!(of(vec![], 125 * MINUTE), i64::MIN);
    }
}
