//! The automata of a SELECT's patterns, as EXPLAIN shows them: below the line of each.

use std::fmt::Write as _;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;

use crate::plan::explain::Automaton;
use crate::sql::match_recognize::compile::{compile_match, match_node};
use crate::types::error::{Error, Result};

/// What the line of a MATCH_RECOGNIZE begins with.
pub const HEAD: &str = "MatchRecognize: ";

/// Adds the steps of its patterns to a plan's text, which has a line for each node. A pattern whose
/// conditions cannot be computed says so when it runs; here it has no steps.
///
/// # Errors
/// When the plan cannot be walked.
pub fn with_automata(plan: &LogicalPlan, text: &str) -> Result<String> {
    let mut specs = Vec::new();
    plan.apply_with_subqueries(|node| {
        specs.extend(match_node(node).map(compile_match));
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(Error::from)?;
    let mut specs = specs.into_iter();
    let mut lines = String::new();
    for line in text.lines() {
        lines.push_str(line);
        lines.push('\n');
        let inner = line.trim_start();
        if inner.starts_with(HEAD)
            && let Some(Ok(spec)) = specs.next()
        {
            let indent = " ".repeat(line.len() - inner.len() + 2);
            let _ = write!(lines, "{}", Automaton { spec: &spec, indent: &indent });
        }
    }
    Ok(lines.trim_end().to_owned())
}
