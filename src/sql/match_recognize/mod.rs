//! MATCH_RECOGNIZE from clauses to plans.
//!
//! | file | owns |
//! |---|---|
//! | `clauses.rs` | what stands beside expressions, through sqlparser's tree |
//! | `plan.rs` | names and meaning: from the tree to a logical plan |
//! | `reads.rs` | what conditions and measures read of rows of the match |
//! | `binder.rs` | finds it in their expressions |
//! | `stripper.rs` | expressions over one row |
//! | `subqueries.rs` | subqueries that look at the match |
//! | `node.rs` | MATCH_RECOGNIZE as a node of DataFusion's logical plans |
//! | `compile.rs` | the node as a `plan::MatchSpec` |
//! | `exec.rs` | batch execution |
//! | `explain.rs` | the automata of a SELECT, in EXPLAIN |
//!
//! A MATCH_RECOGNIZE is three plan nodes: a projection to the columns that it reads, the node
//! itself, and a projection that computes the measures from what the node read of each match. So
//! types, casts, functions and parameters are everybody's.

mod binder;
pub mod clauses;
pub mod compile;
pub mod exec;
pub mod explain;
pub mod node;
pub mod plan;
mod reads;
mod stripper;
mod subqueries;

#[cfg(test)]
mod tests;
