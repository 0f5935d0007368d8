//! Our dialect on sqlparser.

use crate::sql::statement::Statement;

/// One parsed statement with its place in the text.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The statement's text, without the semicolon.
    pub sql: String,
    /// Characters before it in the whole text.
    pub offset_chars: usize,
    pub statement: Statement,
    /// The highest n of `$n`, 0 without parameters.
    pub parameter_count: usize,
}
