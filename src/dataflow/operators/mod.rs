//! The operators, one file each, named as their `plan::Node`.
//!
//! | file | owns |
//! |---|---|
//! | `source.rs` | takes rows from a source's reader; gives new views its past |
//! | `source_time.rs` | how far in event time each split of a source is, and which rows are late |
//! | `map.rs` | filter and projection, fused |
//! | `expand.rs` | each row once for each grouping set |
//! | `copies.rs` | each row as often as a column says |
//! | `union.rs` | all rows of all inputs |
//! | `aggregate.rs` | one row per group |
//! | `arrange.rs` | the rows of an index, which joins read |
//! | `join.rs` | pairs of rows, and rows without a partner |
//! | `top_n.rs` | the first rows of each partition |
//! | `over.rs` | window functions |
//! | `session.rs` | the session that each row is in |
//! | `asof_join.rs` | each row with the nearest one in time of the other input |
//! | `lookup_join.rs` | each row with the rows of the other input that are there when it comes |
//! | `match_recognize.rs` | row pattern matches |
//! | `recursive.rs` | WITH RECURSIVE: a step that runs until nothing new comes |
//! | `unnest.rs` | lists to rows |
//! | `window_close.rs` | EMIT ON WINDOW CLOSE |
//! | `throttle.rs` | EMIT ON UPDATE EVERY |
//! | `temporal_filter.rs` | conditions that compare with now() |
//! | `retain.rs` | rows that go when they have been there for long |
//! | `timed_rows.rs` | rows that wait for a time |
//! | `materialize.rs` | keeps the rows of a view |
//! | `waiting.rs` | changes that wait for the end of their epoch, on the disk if need be |
//! | `sink.rs` | collects what a sink has to write out |
//! | `subscribe.rs` | hands changes to one subscriber |
//! | `forgetting.rs` | when it is worth to look for rows that time has passed |
//! | `clocked.rs` | the changes of an epoch, for operators whose rows come and go with logical time |
//! | `evaluate.rs` | expressions over batches in which some rows may fail |
//!
//! `scan`, `clock` and `constant` have no state and live in `assemble.rs`; the rest follows the contract of
//! `operator.rs`.

use crate::dataflow::contract::{Contract, checked};
use crate::dataflow::operator::Operator;
use crate::dataflow::operators::aggregate::TimeKey;
use crate::dataflow::operators::arrange::Indexes;
use crate::plan::event_time::{bounded_keys, find, settling_order, time_bounds};
use crate::plan::index_join::indexed_side;
use crate::plan::node::{Node, Phase, Plan};
use crate::types::error::{Error, Result};
use crate::types::id::WorkerId;

pub mod aggregate;
pub mod arrange;
pub mod asof_join;
pub mod clocked;
pub mod copies;
pub mod evaluate;
pub mod expand;
pub mod forgetting;
pub mod join;
pub mod lookup_join;
pub mod map;
pub mod match_recognize;
pub mod materialize;
pub mod over;
pub mod recursive;
pub mod retain;
pub mod session;
pub mod sink;
pub mod source;
pub mod source_time;
pub mod subscribe;
pub mod temporal_filter;
pub mod throttle;
pub mod timed_rows;
pub mod top_n;
pub mod union;
pub mod unnest;
pub mod waiting;
pub mod window_close;

/// The operator of a node on one worker.
///
/// # Errors
/// What [`check`] would have found.
pub fn build(node: &Node, worker: usize) -> Result<Box<dyn Operator>> {
    build_over(node, worker, &Indexes::default())
}

/// The same, of a dataflow that reads these indexes. A join whose index is not among them keeps its
/// rows itself; only `check` builds one.
///
/// # Errors
/// What [`check`] would have found.
pub fn build_over(node: &Node, worker: usize, indexes: &Indexes) -> Result<Box<dyn Operator>> {
    let inputs: Vec<_> = node.inputs().iter().map(|edge| edge.input.schema()).collect();
    let operator: Box<dyn Operator> = match node {
        Node::Map(node) => Box::new(map::Map::new(node.into(), &inputs[0])),
        Node::Expand(node) => Box::new(expand::Expand::new(node, &inputs[0])),
        Node::Copies(node) => Box::new(copies::Copies::new(node)),
        Node::Union(node) => Box::new(union::Union::new(node.into())),
        Node::Aggregate(node) if matches!(node.phase, Phase::Partial) => {
            Box::new(aggregate::PartialAggregate::new(node.into(), &inputs[0])?)
        }
        Node::Aggregate(node) if matches!(node.phase, Phase::Sessions { .. }) => {
            Box::new(aggregate::SessionAggregate::new(node, &inputs[0])?)
        }
        Node::Aggregate(node) if matches!(node.phase, Phase::Windows { .. }) => {
            aggregate::over_windows(node, &inputs[0])?
        }
        Node::Aggregate(node) => {
            Box::new(aggregate::Aggregate::new(node.into(), &inputs[0], WorkerId(worker))?)
        }
        Node::Join(node) => {
            let join = join::Join::new(node.into(), &inputs[0], &inputs[1])?;
            let shared = indexed_side(node)
                .and_then(|(port, scan)| Some((port, scan, indexes.read(scan.object)?)));
            Box::new(match shared {
                Some((port, scan, reader)) => join.sharing(port, reader, scan.columns.clone()),
                None => join,
            })
        }
        Node::TopN(node) => {
            let closing = closing_keys(&node.input.input, &node.partition);
            top_n::build(node.into(), &inputs[0], closing)?
        }
        Node::Over(node) => {
            let over = over::Over::new(node.into(), &inputs[0])?;
            let bounds = time_bounds(&node.input.input);
            let in_order = settling_order(node).and_then(|column| find(&bounds, column).cloned());
            Box::new(over.closing(closing_keys(&node.input.input, &node.partition), in_order))
        }
        Node::MatchRecognize(node) => match &node.closes {
            None => Box::new(match_recognize::MatchRecognize::new(node, &inputs[0])?),
            Some(bound) => Box::new(match_recognize::by_watermark::ByWatermark::new(
                node,
                bound.clone(),
                &inputs[0],
            )?),
        },
        Node::Session(node) => Box::new(session::Session::new(node.into(), &inputs[0])?),
        Node::AsofJoin(node) => {
            Box::new(asof_join::AsofJoin::new(node.into(), &inputs[0], &inputs[1])?)
        }
        Node::LookupJoin(node) => {
            Box::new(lookup_join::LookupJoin::new(node.into(), &inputs[0], &inputs[1])?)
        }
        Node::Recursive(node) => Box::new(recursive::Recursive::new(node, worker)?),
        Node::Unnest(node) => Box::new(unnest::Unnest::new(node.into(), &inputs[0])?),
        Node::WindowClose(node) => {
            Box::new(window_close::WindowClose::new(time_bounds(&node.input.input), &inputs[0])?)
        }
        Node::Throttle(node) => Box::new(throttle::Throttle::new(node.every_us, &inputs[0])?),
        Node::TemporalFilter(node) => {
            Box::new(temporal_filter::TemporalFilter::new(node, &inputs[0])?)
        }
        Node::Retain(node) => Box::new(retain::Retain::new(node.keep_us, &inputs[0])?),
        Node::Input(_) => return Err(Error::internal("an input stands inside of an operator")),
        Node::Scan(_) | Node::Constant(_) | Node::Clock(_) => {
            return Err(Error::internal("scans, clocks and constants are wired by assemble.rs"));
        }
    };
    let contract = Contract {
        inputs,
        output: node.schema(),
        append_only: node.append_only(),
        time_bounds: if cfg!(debug_assertions) { time_bounds(node) } else { vec![] },
    };
    Ok(checked(operator, contract))
}

/// The columns of a partition that close partitions when the watermark passes them.
fn closing_keys(input: &Node, partition: &[usize]) -> Vec<TimeKey> {
    bounded_keys(&time_bounds(input), partition)
        .map(|(place, bound)| TimeKey { place, bound })
        .collect()
}

/// Whether every operator of a plan can be built; asked once, before any worker builds it.
///
/// # Errors
/// When a node asks for something that its operator does not do.
pub fn check(plan: &Plan) -> Result<()> {
    let mut result = Ok(());
    plan.root.visit(&mut |node| {
        if result.is_ok() && !matches!(node, Node::Scan(_) | Node::Constant(_) | Node::Clock(_)) {
            result = build(node, 0).map(drop);
        }
    });
    result
}
