//! When the rows of a view come out, and how long they stay: operators above its query.
//!
//! EMIT ON WINDOW CLOSE needs a time column of the result that a watermark bounds
//! (`event_time.rs`). Where the result is an aggregation by such a column, with or without filters
//! and projections above it, the aggregation itself emits final rows; otherwise rows are held back
//! above the query. Sums of windows that overlap come out when their windows close in both cases.
//!
//! Row patterns over rows with a watermark are matched when it has passed them, and their matches
//! never change. A view that says EMIT ON UPDATE has them at once, provisional ones too.

use crate::plan::event_time::{TimeBound, aggregate_bounds, closing_time, time_bounds};
use crate::plan::node::{Clock, Edge, Exchange, Node, Phase, Plan, Retain, Throttle, WindowClose};
use crate::plan::view_options::Emission;
use crate::types::error::{Error, Result};

/// The plan of a view with what its options say about emission and retention.
///
/// # Errors
/// SQLSTATE 0A000 for EMIT ON WINDOW CLOSE of a result without a time that closes.
pub fn with_emission(plan: Plan) -> Result<Plan> {
    let Plan { mut root, unique_key, options } = plan;
    if options.emit != Emission::OnUpdate && options.emit_every_us.is_none() {
        match_in_event_time(&mut root);
    } else {
        match_at_once(&mut root);
    }
    if options.emit == Emission::OnWindowClose {
        root = on_window_close(root)?;
    }
    if let Some(keep_us) = options.retention_us {
        let input = gathered(root);
        root = Node::Retain(Retain { input, clock: Clock::edge(), keep_us });
    }
    if let Some(every_us) = options.emit_every_us {
        let input = gathered(root);
        root = Node::Throttle(Throttle { input, clock: Clock::edge(), every_us });
    }
    Ok(Plan { root, unique_key, options })
}

/// The plan of a subscription to a query: its row patterns wait for the watermark as a view's do.
#[must_use]
pub fn in_event_time(mut plan: Plan) -> Plan {
    match_in_event_time(&mut plan.root);
    plan
}

/// Lets row patterns over rows with a watermark wait for it, unless the view asks for more.
fn match_in_event_time(node: &mut Node) {
    // Below first: what is matched there has bounds then.
    node.inputs_mut().into_iter().for_each(|edge| match_in_event_time(&mut edge.input));
    if let Node::MatchRecognize(matched) = node {
        matched.closes = closing_time(matched);
    }
}

/// Lets row patterns that are matched at once forget what the watermark has passed.
fn match_at_once(node: &mut Node) {
    node.inputs_mut().into_iter().for_each(|edge| match_at_once(&mut edge.input));
    if let Node::MatchRecognize(matched) = node {
        // A window's rows each have a row, whatever becomes of matches.
        matched.settles = closing_time(matched).filter(|_| matched.spec.frame.is_none());
    }
}

fn on_window_close(mut root: Node) -> Result<Node> {
    let Some(bound) = closing_bound(&root) else {
        return Err(Error::unsupported("EMIT ON WINDOW CLOSE of a result without a closing time")
            .detail("No column of the result is a time that the watermark of its sources passes.")
            .hint(
                "Declare WATERMARK FOR a column of every source (a table must be APPEND ONLY), and \
                 keep a window or a time of it among the result's columns.",
            ));
    };
    final_windows(&mut root);
    if closes_itself(&root) {
        aggregate_below(&mut root);
        return Ok(root);
    }
    Ok(Node::WindowClose(WindowClose { input: gathered(root), bound }))
}

/// Lets sums of windows that overlap, wherever they stand below, come out when their windows close.
/// Nothing shows before: what a bound calls final no row of an open window can change, so it is
/// the same without these rows.
fn final_windows(node: &mut Node) {
    node.inputs_mut().into_iter().for_each(|edge| final_windows(&mut edge.input));
    if let Node::Aggregate(aggregate) = node
        && matches!(aggregate.phase, Phase::Windows { .. })
    {
        let bounds = aggregate_bounds(aggregate);
        let window = aggregate.keys.len() - 1;
        // Other times of their keys would close some of their rows earlier.
        aggregate.on_close = bounds.len() == 1 && bounds[0].column == window;
    }
}

/// The bound that says when a row is final. A row whose every bounded time has passed is; one of
/// them suffices, since no change comes behind any.
fn closing_bound(root: &Node) -> Option<TimeBound> {
    time_bounds(root).into_iter().next()
}

/// Whether the node is an aggregation whose groups close, below nothing but filters and
/// projections.
fn closes_itself(node: &Node) -> bool {
    match node {
        Node::Map(map) if map.input.exchange == Exchange::Local => closes_itself(&map.input.input),
        Node::Aggregate(aggregate) => {
            !matches!(aggregate.phase, Phase::Partial) && !aggregate_bounds(aggregate).is_empty()
        }
        _ => false,
    }
}

fn aggregate_below(node: &mut Node) {
    match node {
        Node::Map(map) => aggregate_below(&mut map.input.input),
        Node::Aggregate(aggregate) => aggregate.on_close = true,
        _ => unreachable!("closes_itself has looked"),
    }
}

/// An input on which a row and its deletion meet.
fn gathered(root: Node) -> Edge {
    if root.append_only() {
        return Edge::local(root);
    }
    let columns = (0..root.schema().fields().len()).collect();
    Edge::hash(root, columns)
}
