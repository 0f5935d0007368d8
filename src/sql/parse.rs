//! Our dialect on sqlparser.

/// One parsed statement with its place in the text.
#[derive(Debug)]
pub struct Parsed {
    /// The statement's text, without the semicolon.
    pub sql: String,
    /// Characters before it in the whole text.
    pub offset_chars: usize,
}
