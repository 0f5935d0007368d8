//! The operators, one file each, named as their `plan::Node`.
//!
//! | file | owns |
//! |---|---|
//! | `source.rs` | takes rows from a source's reader; gives new views its past |
//! | `materialize.rs` | keeps the rows of a view |
//! | `subscribe.rs` | hands changes to one subscriber |
//!
//! `scan` and `constant` have no state and live in `assemble.rs`; the rest follows the contract of
//! `operator.rs`.

pub mod aggregate;

use crate::dataflow::operator::Operator;
use crate::plan::node::{Node, Plan};
use crate::types::error::Result;

pub mod materialize;
pub mod source;
pub mod subscribe;
pub mod union;

/// The operator of a node on one worker.
///
/// # Errors
/// What [`check`] would have found.
pub fn build(node: &Node, worker: usize) -> Result<Box<dyn Operator>> {
    let _ = worker;
    Ok(match node {
        Node::Union(_) => Box::new(union::Union),
        _ => return Err(crate::types::error::Error::internal("not wired")),
    })
}

/// Whether every operator of a plan can be built; asked once, before any worker builds it.
///
/// # Errors
/// When a node asks for something that its operator does not do.
pub fn check(plan: &Plan) -> Result<()> {
    let mut result = Ok(());
    plan.root.visit(&mut |node| {
        if result.is_ok() && !matches!(node, Node::Scan(_) | Node::Constant(_)) {
            result = build(node, 0).map(drop);
        }
    });
    result
}
pub mod evaluate;
pub mod join;
pub mod map;
