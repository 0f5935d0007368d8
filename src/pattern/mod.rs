//! Row pattern matching: MATCH_RECOGNIZE's kernel, the same for a batch and for a stream. The
//! automaton that it runs is `plan::match_recognize::program`.
//!
//! | file | owns |
//! |---|---|
//! | `rows.rs` | sorted rows of partitions, and which of them satisfy which condition |
//! | `kernels.rs` | patterns that are ready to run: the statement's, or each partition's own |
//! | `kernel.rs` | one of these: the automaton with what is known of it |
//! | `matcher.rs` | runs the automaton over one partition: all partial matches in step |
//! | `threads.rs` | the partial matches, and the rows behind them |
//! | `conditions.rs` | which partial matches a row satisfies |
//! | `walk.rs` | the way from one row of the automaton to the next |
//! | `scratch.rs` | memory that is used again; which partial matches stand for others |
//! | `decisions.rs` | which matches are taken |
//! | `found.rs` | what was found |
//! | `history.rs` | what a partial match remembers of the rows behind it |
//! | `ties.rs` | an order for rows that sort alike |
//! | `partial.rs` | how far a beginning came that is not, or not yet, a match |
//! | `output.rs` | matches as rows |
//!
//! Invariants: a row is looked at once by each partial match that is alive there, never again; of
//! two partial matches whose future is the same only the preferred one lives on.

mod conditions;
mod decisions;
pub mod found;
pub mod history;
pub mod kernel;
pub mod kernels;
pub mod matcher;
pub mod output;
pub mod partial;
pub mod rows;
pub mod scratch;
mod threads;
pub mod ties;
mod walk;

#[cfg(test)]
mod tests;
