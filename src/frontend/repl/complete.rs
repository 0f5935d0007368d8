//! The line editor's helper: Enter goes on to a new line until a statement is finished, Tab
//! completes keywords, names of the catalog, commands and file names.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper};

use crate::frontend::repl::command::COMMANDS;
use crate::frontend::repl::report::Color;
use crate::frontend::repl::script::Script;

/// Words that Tab completes anywhere in a statement.
const KEYWORDS: &[&str] = &[
    "ALL",
    "AND",
    "APPEND ONLY",
    "AS",
    "ASC",
    "BEGIN",
    "BETWEEN",
    "BIGINT",
    "BOOLEAN",
    "BY",
    "BYTEA",
    "CASCADE",
    "CASE",
    "CAST",
    "COMMIT",
    "CONFLICT",
    "COPY",
    "COUNT",
    "CREATE",
    "CROSS",
    "DATABASE",
    "DATE",
    "DEFAULT",
    "DELETE",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "DOUBLE PRECISION",
    "DROP",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "EXTRACT",
    "FALSE",
    "FILTER",
    "FLUSH",
    "FROM",
    "FULL",
    "GENERATED ALWAYS AS",
    "GROUP BY",
    "HAVING",
    "IN",
    "INNER",
    "INSERT INTO",
    "INTEGER",
    "INTERSECT",
    "INTERVAL",
    "INTO",
    "IS",
    "JOIN",
    "JSONB",
    "KEY",
    "LEFT",
    "LIKE",
    "LIMIT",
    "MATERIALIZED VIEW",
    "NOT",
    "NULL",
    "NUMERIC",
    "OFFSET",
    "ON",
    "OR",
    "ORDER BY",
    "OVER",
    "PARTITION BY",
    "PRIMARY KEY",
    "REPLACE",
    "RETURNING",
    "RIGHT",
    "ROLLBACK",
    "SCHEMA",
    "SELECT",
    "SET",
    "SHOW",
    "SMALLINT",
    "SOURCE",
    "SOURCES",
    "STDIN",
    "STDOUT",
    "SUBSCRIBE",
    "TABLE",
    "TABLES",
    "TEXT",
    "THEN",
    "TIME",
    "TIMESTAMP",
    "TIMESTAMPTZ",
    "TRUE",
    "TRUNCATE",
    "UNION",
    "UPDATE",
    "USING",
    "UUID",
    "VALUES",
    "VARCHAR",
    "VIEW",
    "VIEWS",
    "WATERMARK FOR",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
];

/// Names of the catalog: objects and their columns.
pub type Names = Rc<RefCell<Vec<String>>>;

/// What the editor asks while a person types.
pub struct EditorHelper {
    pub names: Names,
    pub color: Color,
    files: FilenameCompleter,
}

impl EditorHelper {
    pub fn new(names: Names, color: Color) -> EditorHelper {
        EditorHelper { names, color, files: FilenameCompleter::new() }
    }
}

impl Helper for EditorHelper {}

impl Hinter for EditorHelper {
    type Hint = String;
}

impl Highlighter for EditorHelper {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(
        &'s self,
        prompt: &'p str,
        _default: bool,
    ) -> Cow<'b, str> {
        Cow::Owned(self.color.accent(prompt))
    }
}

impl Validator for EditorHelper {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match is_finished(context.input()) {
            true => ValidationResult::Valid(None),
            false => ValidationResult::Incomplete,
        })
    }
}

/// Whether Enter runs the input: its last statement has an end, or it is a command.
fn is_finished(input: &str) -> bool {
    let mut script = Script::new(input);
    while script.next_piece().is_some() {}
    script.unfinished().is_none()
}

impl Completer for EditorHelper {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        position: usize,
        context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let before = &line[..position];
        if before.starts_with("\\i ") || before.starts_with("\\include ") {
            return self.files.complete(line, position, context);
        }
        if let Some(name) = before.strip_prefix('\\')
            && !name.contains(char::is_whitespace)
        {
            let commands = COMMANDS.iter().filter(|c| c.name.starts_with(name));
            return Ok((1, commands.map(|c| pair(c.name)).collect()));
        }
        let start = before
            .rfind(|c: char| !(c.is_alphanumeric() || c == '_'))
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        let qualified = before[..start].ends_with('.');
        Ok((start, candidates(&before[start..], &self.names.borrow(), qualified)))
    }
}

fn pair(text: &str) -> Pair {
    Pair { display: text.to_owned(), replacement: text.to_owned() }
}

/// What a word may become, names first. Keywords follow the case in which the word was begun;
/// behind a dot there are none.
fn candidates(word: &str, names: &[String], qualified: bool) -> Vec<Pair> {
    if word.is_empty() {
        return Vec::new();
    }
    let begins =
        |text: &str| text.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word));
    let lower = word.starts_with(|c: char| c.is_lowercase());
    let keywords = KEYWORDS
        .iter()
        .filter(|keyword| !qualified && begins(keyword))
        .map(|keyword| if lower { pair(&keyword.to_lowercase()) } else { pair(keyword) });
    names.iter().filter(|name| begins(name)).map(|name| pair(name)).chain(keywords).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enter_waits_for_the_end_of_a_statement() {
        for finished in ["", "  ", "SELECT 1;", "\\d", "SELECT 1; -- more", "SELECT 1 \\watch"] {
            assert!(is_finished(finished), "{finished}");
        }
        for open in ["SELECT 1", "SELECT ';", "SELECT 1; SELECT", "/* ;"] {
            assert!(!is_finished(open), "{open}");
        }
    }

    #[test]
    fn words_are_completed_in_their_case_and_names_first() {
        let names = ["delays".to_owned(), "Dest".to_owned(), "n".to_owned()];
        let found = |word: &str| -> Vec<String> {
            candidates(word, &names, false).into_iter().map(|pair| pair.replacement).collect()
        };
        assert_eq!(found("de"), ["delays", "Dest", "default", "delete", "desc", "describe"]);
        assert_eq!(found("SEL"), ["SELECT"]);
        assert_eq!(candidates("de", &names, true).len(), 2);
        assert_eq!(found("é"), Vec::<String>::new());
        assert_eq!(found(""), Vec::<String>::new());
    }

    #[test]
    fn keywords_are_sorted_and_unique() {
        assert!(KEYWORDS.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
