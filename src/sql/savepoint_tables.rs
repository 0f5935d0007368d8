//! `savepoint('name', 'relation')` in a statement: which calls there are, and rows for them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::types::error::{Error, Result};

/// The rows of a relation in a savepoint.
pub type SavepointTable = Arc<dyn TableProvider>;

/// Such rows, by the arguments of `savepoint()`.
pub type SavepointTables = HashMap<(String, String), SavepointTable>;

/// A relation of these rows.
///
/// # Errors
/// When they cannot be one (ours).
pub fn table_of(rows: RecordBatch) -> Result<SavepointTable> {
    let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).map_err(Error::from)?;
    Ok(Arc::new(table))
}

/// Arguments of the calls of `savepoint` in a text. What is no such call is found when the
/// statement is planned.
pub fn calls_in(sql: &str) -> Vec<(String, String)> {
    let is_named = |text: &str| text.eq_ignore_ascii_case("savepoint");
    if !sql.as_bytes().windows(9).any(|part| part.eq_ignore_ascii_case(b"savepoint")) {
        return Vec::new();
    }
    // What cannot be read is refused when it is parsed.
    let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize() else {
        return Vec::new();
    };
    let tokens: Vec<Token> =
        tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect();
    let call = |part: &[Token]| match part {
        [
            Token::Word(word),
            Token::LParen,
            Token::SingleQuotedString(name),
            Token::Comma,
            Token::SingleQuotedString(relation),
            Token::RParen,
        ] if is_named(&word.value) => Some((name.clone(), relation.clone())),
        _ => None,
    };
    tokens.windows(6).filter_map(call).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_found_in_the_text() {
        let call = |name: &str, relation: &str| (name.to_owned(), relation.to_owned());
        assert_eq!(calls_in("SELECT 1"), []);
        assert_eq!(calls_in("SAVEPOINT a"), []);
        assert_eq!(
            calls_in("select * from SavePoint( 'a' , 's.v' ) x, savepoint('b','it''s')"),
            [call("a", "s.v"), call("b", "it's")]
        );
        assert_eq!(calls_in("SELECT 'savepoint(''a'', ''b'')', savepoint('a', b)"), []);
    }
}
