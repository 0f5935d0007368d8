//! The operators of a plan in the order in which they are assembled: inputs first, and one for all
//! equal nodes that keep state. Their places are their numbers.

use crate::plan::node::{Node, Plan};

/// Every operator of the plan, once.
pub fn operators(plan: &Plan) -> Vec<&Node> {
    let (mut found, mut built) = (Vec::new(), Vec::new());
    collect(&plan.root, &mut found, &mut built);
    found
}

fn collect<'plan>(node: &'plan Node, found: &mut Vec<&'plan Node>, built: &mut Vec<&'plan Node>) {
    if node.keeps_state() && built.contains(&node) {
        return;
    }
    for edge in node.inputs() {
        collect(&edge.input, found, built);
    }
    found.push(node);
    if node.keeps_state() {
        built.push(node);
    }
}

/// The number of a node of the plan.
pub fn number(operators: &[&Node], node: &Node) -> Option<usize> {
    operators.iter().position(|other| std::ptr::eq(*other, node))
}
