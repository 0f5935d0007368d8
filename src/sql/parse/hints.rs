//! What probably was meant: hints for syntax errors.

use datafusion::sql::sqlparser::tokenizer::Token;

use crate::sql::parse::cursor::{BARRIER, Cursor, is_word};

/// Words that begin a statement.
pub(super) const STATEMENTS: [&str; 45] = [
    "SELECT",
    "WITH",
    "VALUES",
    "TABLE",
    "CREATE",
    "DROP",
    "ALTER",
    "COMMENT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "TRUNCATE",
    "REPLAY",
    "COPY",
    "SUBSCRIBE",
    "EXPLAIN",
    "SHOW",
    "DESCRIBE",
    "DESC",
    "VERIFY",
    "SET",
    "RESET",
    "DISCARD",
    "BEGIN",
    "START",
    "COMMIT",
    "END",
    "ROLLBACK",
    "ABORT",
    "SAVEPOINT",
    "RELEASE",
    "FLUSH",
    "CHECKPOINT",
    "PREPARE",
    "EXECUTE",
    "DEALLOCATE",
    "DECLARE",
    "FETCH",
    "MOVE",
    "CLOSE",
    "ANALYZE",
    "VACUUM",
    "GRANT",
    "MERGE",
    "CALL",
];

/// Words inside statements that are worth recognising when misspelt.
const CLAUSES: [&str; 21] = [
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP",
    "ORDER",
    "HAVING",
    "LIMIT",
    "OFFSET",
    "JOIN",
    "UNION",
    "VALUES",
    "TABLE",
    "SOURCE",
    "VIEW",
    "MATERIALIZED",
    "SINK",
    "SCHEMA",
    "DATABASE",
    "WITH",
    "WATERMARK",
    "RETURNING",
];

/// A hint for a syntax error at the token with this index.
pub(super) fn for_token(cursor: &Cursor<'_>, index: usize) -> Option<String> {
    let token = &cursor.parser.token_at(index).token;
    let before = index.checked_sub(1).map(|i| &cursor.parser.token_at(i).token);
    if *token == BARRIER {
        return Some(
            "EMIT belongs to CREATE MATERIALIZED VIEW and CREATE SINK; SUBSCRIBE follows the \
             changes of a query."
                .to_owned(),
        );
    }
    let fixed = match token {
        Token::Question => Some("Parameters are written $1, $2, ..."),
        Token::Comma if after_limit(cursor, index) => Some("Write LIMIT count OFFSET start."),
        _ if before == Some(&Token::Comma) && ends_list(token) => {
            Some("Remove the comma before it.")
        }
        _ => None,
    };
    if let Some(hint) = fixed {
        return Some(hint.to_owned());
    }
    let candidates = [before, Some(token)];
    candidates.into_iter().flatten().find_map(|token| match token {
        Token::Word(word) if word.quote_style.is_none() => {
            let meant = nearest(&word.value, &CLAUSES)?;
            Some(format!("Perhaps you meant {meant} instead of \"{}\".", word.value))
        }
        _ => None,
    })
}

/// The listed word that differs from this one by one slip of the fingers.
pub(super) fn nearest(word: &str, list: &[&'static str]) -> Option<&'static str> {
    let word = word.to_ascii_uppercase();
    if word.len() < 3 || list.contains(&word.as_str()) {
        return None;
    }
    let plural = |known: &str| word.strip_suffix('S') == Some(known);
    list.iter().copied().find(|known| !plural(known) && one_slip_apart(&word, known))
}

/// One letter more, less or other, or two neighbours exchanged.
fn one_slip_apart(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len().abs_diff(b.len()) > 1 {
        return false;
    }
    let same_front = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let (rest_a, rest_b) = (&a[same_front..], &b[same_front..]);
    match (rest_a, rest_b) {
        ([], []) => false,
        ([x1, x2, x @ ..], [y1, y2, y @ ..]) if x1 == y2 && x2 == y1 && x == y => true,
        ([_, x @ ..], [_, y @ ..]) if a.len() == b.len() => x == y,
        ([_, x @ ..], y) if a.len() > b.len() => x == y,
        (x, [_, y @ ..]) => x == y,
        _ => false,
    }
}

fn after_limit(cursor: &Cursor<'_>, index: usize) -> bool {
    index >= 2 && is_word(&cursor.parser.token_at(index - 2).token, "LIMIT")
}

fn ends_list(token: &Token) -> bool {
    matches!(token, Token::RParen | Token::EOF)
        || ["FROM", "WHERE", "GROUP", "ORDER", "LIMIT", "ON", "AS", "SET"]
            .iter()
            .any(|word| is_word(token, word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_one_letter() {
        for (word, meant) in [
            ("selct", Some("SELECT")),
            ("SELECTT", Some("SELECT")),
            ("selekt", Some("SELECT")),
            ("form", Some("FROM")),
            ("from", None),
            ("t", None),
            ("farm", None),
            ("order", None),
            ("odrer", Some("ORDER")),
        ] {
            assert_eq!(nearest(word, &CLAUSES), meant, "{word}");
        }
    }
}
