//! Names: folding, splitting at dots, quoting, and the words that must be quoted.

use datafusion::sql::sqlparser::ast;

use crate::types::error::{Error, Result, SqlState};
pub use crate::types::text::quote::{RESERVED_WORDS, is_reserved, quote_ident, quote_literal};

/// An identifier as the catalog stores it: lower case unless it was quoted.
pub fn normalize(ident: &ast::Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => fold(&ident.value),
    }
}

/// Lower case as Postgres folds: ASCII letters only.
pub fn fold(word: &str) -> String {
    word.to_ascii_lowercase()
}

/// `[[database.]schema.]name` of sqlparser's tree, folded.
///
/// # Errors
/// SQLSTATE 42601 when there are more parts, or a part is no identifier.
pub fn qualified_name(name: &ast::ObjectName) -> Result<(Option<String>, Option<String>, String)> {
    let mut parts = Vec::with_capacity(name.0.len());
    for part in &name.0 {
        match part.as_ident() {
            Some(ident) => parts.push(normalize(ident)),
            None => return Err(improper(&name.to_string())),
        }
    }
    split_parts(parts)
}

/// The parts of a name, innermost last, as database, schema and name.
pub(super) fn split_parts(
    mut parts: Vec<String>,
) -> Result<(Option<String>, Option<String>, String)> {
    if parts.len() > 3 {
        return Err(improper(&parts.join(".")));
    }
    let Some(name) = parts.pop() else { return Err(improper("")) };
    let schema = parts.pop();
    Ok((parts.pop(), schema, name))
}

fn improper(name: &str) -> Error {
    Error::user(
        SqlState::SYNTAX_ERROR,
        format!("improper qualified name (too many dotted names): {name}"),
    )
    .hint("A name is at most database.schema.name.")
}
