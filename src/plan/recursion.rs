//! How many iterations a view's recursive queries may have: `WITH (recursion_limit = n)`.
//!
//! What has more is an error and never a part of the answer: a view that stopped early would be
//! wrong without a word. The limit without the option is for queries that do not end.

use crate::plan::node::{Edge, Node, Plan};

/// Iterations of a query that says nothing else; a path through data is hardly longer.
pub const ITERATIONS_MAX: u64 = 10_000;

/// The same plan with another limit.
#[must_use]
pub fn limit_recursion(mut plan: Plan, iterations_max: u64) -> Plan {
    limit(&mut plan.root, iterations_max);
    plan
}

fn limit(node: &mut Node, iterations_max: u64) {
    for Edge { input, .. } in node.inputs_mut() {
        limit(input, iterations_max);
    }
    if let Node::Recursive(recursive) = node {
        recursive.iterations_max = iterations_max;
    }
}
