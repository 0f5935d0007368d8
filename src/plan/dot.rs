//! A plan as a graph for Graphviz (`EXPLAIN (FORMAT DOT)`): a box for each operator, an arrow for
//! each edge, and the automaton of each row pattern beside its operator.

use std::fmt::Write;

use crate::plan::explain::describe;
use crate::plan::match_recognize::program::Program;
use crate::plan::node::{Exchange, Node, Plan};
use crate::plan::operators::{number, operators};

/// The plan in the DOT language.
pub fn dot(plan: &Plan) -> String {
    let mut out = String::from("digraph plan {\n  rankdir=BT;\n  node [shape=box];\n");
    let numbered = operators(plan);
    for (index, node) in numbered.iter().enumerate() {
        line(&mut out, format_args!("op{index} [label={}]", quoted(&describe(node))));
    }
    line(&mut out, format_args!("result [label=\"Result\"]"));
    let of = |node: &Node| {
        let same = |other: &&Node| node.keeps_state() && **other == *node;
        number(&numbered, node).or_else(|| numbered.iter().position(same))
    };
    for (index, node) in numbered.iter().enumerate() {
        for edge in node.inputs() {
            let Some(from) = of(&edge.input) else { continue };
            let label = match &edge.exchange {
                Exchange::Local => String::new(),
                Exchange::Single => " [label=\"to one worker\"]".to_owned(),
                Exchange::Hash(columns) => {
                    let schema = edge.input.schema();
                    let names: Vec<&str> =
                        columns.iter().map(|c| schema.field(*c).name().as_str()).collect();
                    format!(" [label={}]", quoted(&format!("by {}", names.join(", "))))
                }
            };
            line(&mut out, format_args!("op{from} -> op{index}{label}"));
        }
    }
    if let Some(root) = of(&plan.root) {
        line(&mut out, format_args!("op{root} -> result"));
    }
    for (index, node) in numbered.iter().enumerate() {
        let Node::MatchRecognize(matched) = node else { continue };
        if matched.spec.pattern_from.is_some() {
            // Each partition has its own.
            continue;
        }
        let Ok(program) = Program::of(&matched.spec) else { continue };
        line(&mut out, format_args!("subgraph cluster_{index} {{"));
        line(&mut out, format_args!("  label={}", quoted(&describe(node))));
        for (place, step) in program.describe(&matched.spec).iter().enumerate() {
            let label = quoted(&format!("{place}: {step}"));
            line(&mut out, format_args!("  s{index}_{place} [shape=ellipse label={label}]"));
            for (nth, target) in program.targets(place).into_iter().enumerate() {
                let style = if nth == 0 { "" } else { " [style=dashed]" };
                line(&mut out, format_args!("  s{index}_{place} -> s{index}_{target}{style}"));
            }
        }
        line(&mut out, format_args!("}}"));
    }
    out.push_str("}\n");
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "  {text}");
}

/// A string of the DOT language.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
