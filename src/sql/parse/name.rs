//! Names: folding, splitting at dots, quoting, and the words that must be quoted.

use datafusion::sql::sqlparser::ast;

use crate::types::error::{Error, Result, SqlState};

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

/// The name as SQL text that means it: quoted where it would otherwise fold or be a keyword.
pub fn quote_ident(name: &str) -> String {
    let mut chars = name.chars();
    let plain = chars.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_')
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !is_reserved(name);
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// Text as an SQL string literal.
pub fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// Whether Postgres takes the word as a name only in quotes (its reserved words, and those that
/// may name functions and types only).
pub fn is_reserved(word: &str) -> bool {
    let folded = || word.bytes().map(|byte| byte.to_ascii_lowercase());
    RESERVED_WORDS.binary_search_by(|reserved| reserved.bytes().cmp(folded())).is_ok()
}

/// The words that are names only in quotes, sorted. Postgres, appendix C of its manual.
pub const RESERVED_WORDS: [&str; 101] = [
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "binary",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "group",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "natural",
    "not",
    "notnull",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "overlaps",
    "placing",
    "primary",
    "references",
    "returning",
    "right",
    "select",
    "session_user",
    "similar",
    "some",
    "symmetric",
    "system_user",
    "table",
    "tablesample",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_words_are_sorted_and_found() {
        assert!(RESERVED_WORDS.is_sorted());
        assert!(is_reserved("SELECT") && is_reserved("all") && is_reserved("with"));
        assert!(!is_reserved("name") && !is_reserved("watermark") && !is_reserved("offsets"));
    }

    #[test]
    fn names_are_quoted_only_where_they_must_be() {
        let quoted = [
            ("a", "a"),
            ("_a1", "_a1"),
            ("A", "\"A\""),
            ("a b", "\"a b\""),
            ("1a", "\"1a\""),
            ("", "\"\""),
            ("a\"b", "\"a\"\"b\""),
            ("select", "\"select\""),
            ("straße", "\"straße\""),
        ];
        for (name, sql) in quoted {
            assert_eq!(quote_ident(name), sql);
        }
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal("a\\b"), "E'a\\\\b'");
    }
}
