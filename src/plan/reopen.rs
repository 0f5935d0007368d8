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
//! What is asked here of each node is what `dataflow::operators::build` gives to its operator.

use crate::plan::event_time::{
    TimeBound, aggregate_bounds, bounded_keys, expiries, find, settling_order, time_bounds,
    timed_keys,
};
use crate::plan::node::{Join, Node, Phase};
use crate::types::time::Watermark;

/// The earliest event time, in microseconds, of rows that a dataflow can still take in at the
/// watermark of what they are rows of.
pub fn open_from(root: &Node, watermark: Watermark) -> i64 {
    let mut from = i64::MIN;
    root.visit(&mut |node| {
        if watermark == Watermark::END && forgets_at_the_end(node) {
            from = i64::MAX;
        }
        for bound in forgets_by(node) {
            from = from.max(begins_to_close(&bound, watermark));
        }
    });
    from
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

/// The bounds by which the node's operator forgets.
fn forgets_by(node: &Node) -> Vec<TimeBound> {
    let keys = |input: &Node, keys: &[usize]| -> Vec<TimeBound> {
        bounded_keys(&time_bounds(input), keys).map(|(_, bound)| bound).collect()
    };
    match node {
        // Rows of an epoch are not kept longer.
        Node::Aggregate(n) if matches!(n.phase, Phase::Partial) => vec![],
        Node::Aggregate(n) => aggregate_bounds(n),
        Node::Join(n) => joined(n),
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
    }
}

fn joined(join: &Join) -> Vec<TimeBound> {
    let keys = timed_keys(join).into_iter().flat_map(|key| key.bounds);
    let mut bounds: Vec<TimeBound> = keys.collect();
    let inputs = [&join.left.input, &join.right.input];
    for (expiries, input) in expiries(join).into_iter().zip(inputs) {
        if expiries.is_empty() {
            continue;
        }
        bounds.extend(expiries.into_iter().map(|expiry| expiry.bound));
        if !input.append_only() {
            // Rows are kept until their own time has passed, too.
            bounds.extend(time_bounds(input));
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
    use crate::plan::node::{Edge, Map, Scan, WindowClose};
    use crate::types::id::ObjectId;
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
        assert_eq!(open_from(&map, at(7 * MINUTE)), i64::MIN);
        assert_eq!(open_from(&map, Watermark::END), i64::MIN);
    }

    #[test]
    fn what_goes_by_the_time_itself_takes_nothing_behind_the_watermark() {
        let bound = TimeBound::of_watermark(0);
        let closes = Node::WindowClose(WindowClose { input: Edge::local(scan()), bound });
        assert_eq!(open_from(&closes, at(7 * MINUTE)), 7 * MINUTE);
        assert_eq!(open_from(&closes, Watermark::END), i64::MAX);
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
