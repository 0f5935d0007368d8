//! The contract between `sql` and `dataflow`: plain data that says what to compute.
//!
//! | file | owns |
//! |---|---|
//! | `node.rs` | `Plan`, `Node`, `Edge`: a dataflow as a tree, the same nouns as `dataflow/operators/` |
//! | `expr.rs` | `Expr`: a compiled scalar expression; DataFusion's expressions stop here |
//! | `emission.rs` | when the rows of a view come out, and how long they stay |
//! | `dot.rs` | a plan as a graph for Graphviz |
//! | `match_recognize.rs` | `MatchSpec`: a row pattern, what its conditions read, what it gives |
//! | `match_recognize/program.rs` | a row pattern as an automaton |
//! | `match_recognize/reach.rs` | how far before a match anyone looks |
//! | `event_time.rs` | what watermarks promise of an operator's time columns |
//! | `overlap.rs` | windows that overlap, and the panes that they are made of |
//! | `reopen.rs` | up to where in the past late rows can be taken in again |
//! | `window.rs` | `WindowCall`: a compiled window function, and how far its rows look |
//! | `errors.rs` | DataFusion's errors in Postgres's words |
//! | `recursion.rs` | how many iterations recursive queries may have |
//! | `view_options.rs` | how a view is kept, beside its query: the options of its WITH clause |
//! | `null_on_error.rs` | the same plan with NULL for what fails |
//! | `index_join.rs` | joins that read an index instead of a copy of the rows |
//! | `share.rs` | sub-plans that a running view keeps already |
//! | `operators.rs` | the operators of a plan and their numbers |
//! | `growth.rs` | what keeps growing for as long as rows come |
//! | `explain.rs` | a plan as text, golden-tested |
//! | `fingerprint.rs` | a text that says whether stored state fits a plan |
//!
//! Invariants: a node knows its output schema; which rows go to which worker is a property of an
//! edge, never a node; a plan never names a connector object, only its options.

pub mod dot;
pub mod emission;
mod errors;
pub mod event_time;
pub mod explain;
pub mod expr;
pub mod fingerprint;
pub mod growth;
pub mod index_join;
pub mod match_recognize;
pub mod node;
pub mod null_on_error;
pub mod operators;
pub mod overlap;
pub mod recursion;
pub mod reopen;
pub mod share;
pub mod view_options;
pub mod window;
