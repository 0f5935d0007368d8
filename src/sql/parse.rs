//! Our dialect on sqlparser: from a text to statements.
//!
//! 1. `text.rs` makes tokens of the whole text and cuts it at semicolons.
//! 2. `sql::extensions` turns streaming extensions of queries into forms that sqlparser has.
//! 3. The first word chooses the grammar: `ddl.rs`, `data.rs` and `session.rs` hold ours, written
//!    over [`Cursor`]; expressions, queries, types, INSERT, UPDATE and DELETE are sqlparser's.
//! 4. `query.rs` refuses in sqlparser's trees what the planner would ignore.
//! 5. Errors are worded as Postgres words them, with a position in the whole text. When a query
//!    in parentheses is wrong, sqlparser backtracks and complains about the parenthesis;
//!    [`sharpen`] then looks for the innermost query that is wrong by itself.

pub(in crate::sql) mod cursor;
mod data;
mod ddl;
mod dialect;
mod hints;
pub mod name;
mod query;
mod session;
mod table;
pub(in crate::sql) mod text;
pub mod types;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan};

use crate::sql::extensions::rewrite;
use crate::sql::parse::cursor::{Cursor, is_word};
use crate::sql::parse::dialect::MillstreamDialect;
use crate::sql::parse::text::{SqlText, StatementTokens, check_depth, split};
use crate::sql::statement::{QueryText, Statement};
use crate::types::error::{Error, Result, SqlState};

/// How deep sqlparser may recurse; it grows the stack itself where it has to.
const RECURSION_MAX: usize = 400;
/// Stack for parsing a deep statement. Address space, not memory: only what is touched costs. An
/// unoptimised build takes up to 90 kB for each nesting level of a FROM clause.
const STACK_BYTES: usize = 64 << 20;
/// Queries in parentheses that are tried on their own to place an error.
const SHARPEN_TRIES_MAX: usize = 64;

/// One parsed statement with its place in the text.
#[derive(Clone)]
pub struct Parsed {
    /// The statement's text, without the semicolon.
    pub sql: String,
    /// Characters before it in the whole text.
    pub offset_chars: usize,
    pub statement: Statement,
    /// The highest n of `$n`, 0 without parameters.
    pub parameter_count: usize,
}

impl fmt::Debug for Parsed {
    /// Without the tree, which the text gives again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parsed({:?} @{}", self.sql, self.offset_chars + 1)?;
        if self.parameter_count > 0 {
            write!(f, ", {} parameters", self.parameter_count)?;
        }
        f.write_str(")")
    }
}

impl Parsed {
    /// The 1-based character in [`Parsed::sql`] where a part of the statement's tree begins;
    /// `None` for a part that has no place in the text.
    pub fn position_of(&self, span: Span) -> Option<usize> {
        (span.start.line > 0).then(|| SqlText::new(&self.sql).position(span.start))
    }
}

/// Splits a text at its semicolons and parses each statement. Empty statements are left out.
///
/// # Errors
/// SQLSTATE 42601, or 0A000 for what is known and not supported, with the position in `sql`.
pub fn parse(sql: &str) -> Result<Vec<Parsed>> {
    split(sql)?.into_iter().map(parse_one).collect()
}

/// A text of exactly one query: a view's definition from the catalog.
///
/// # Errors
/// As [`parse`]; and when it is something else.
pub fn parse_query(sql: &str) -> Result<Box<ast::Query>> {
    one_piece(sql, |cursor| cursor.plain_query())
}

/// A text of exactly one expression: a DEFAULT or a watermark from the catalog.
///
/// # Errors
/// As [`parse`]; and when it is something else.
pub fn parse_expression(sql: &str) -> Result<ast::Expr> {
    one_piece(sql, |cursor| Ok(cursor.expression()?.ast))
}

fn one_piece<T>(sql: &str, read: impl Fn(&mut Cursor<'_>) -> Result<T>) -> Result<T> {
    let mut pieces = split(sql)?;
    let piece = match (pieces.pop(), pieces.is_empty()) {
        (Some(piece), true) => piece,
        (Some(second), false) => {
            let error = Error::user(SqlState::SYNTAX_ERROR, "more than one statement");
            return Err(error.position(second.offset_chars + 1));
        }
        (None, _) => {
            let error = Error::user(SqlState::SYNTAX_ERROR, "syntax error at end of input");
            return Err(error.position(1));
        }
    };
    with_stack(piece, |StatementTokens { text, tokens, offset_chars }| {
        with_cursor(&text, rewrite(&text, tokens)?, offset_chars, read)
    })
}

fn parse_one(statement: StatementTokens) -> Result<Parsed> {
    with_stack(statement, |StatementTokens { text, tokens, offset_chars }| {
        let tokens = rewrite(&text, tokens)?;
        parse_tokens(StatementTokens { text, tokens, offset_chars })
    })
}

/// Parses where there is stack enough, and moves positions into the whole text.
fn with_stack<T>(
    statement: StatementTokens,
    parse: impl FnOnce(StatementTokens) -> Result<T>,
) -> Result<T> {
    let offset_chars = statement.offset_chars;
    let outcome = match check_depth(&statement.text, &statement.tokens) {
        Ok(false) => parse(statement),
        Ok(true) => stacker::grow(STACK_BYTES, || parse(statement)),
        Err(error) => Err(error),
    };
    outcome.map_err(|error| error.shift_position(offset_chars))
}

/// Parses one statement's rewritten tokens. Positions in errors are in the statement's text.
fn parse_tokens(statement: StatementTokens) -> Result<Parsed> {
    let StatementTokens { text, tokens, offset_chars } = statement;
    let parameter_count = parameter_count(&tokens);
    let statement = with_cursor(&text, tokens, offset_chars, read_statement)?;
    Ok(Parsed { sql: text.as_str().to_owned(), offset_chars, statement, parameter_count })
}

/// Parses what is left of a statement as one of its own: of EXPLAIN, PREPARE, DECLARE CURSOR.
fn parse_rest(cursor: &mut Cursor<'_>) -> Result<Arc<Parsed>> {
    let inner = cursor.rest()?;
    let before = inner.offset_chars;
    let mut parsed = parse_tokens(inner).map_err(|error| error.shift_position(before))?;
    parsed.offset_chars += cursor.offset_chars;
    Ok(Arc::new(parsed))
}

/// Reads all tokens with `read`.
fn with_cursor<T>(
    text: &SqlText,
    tokens: Vec<TokenWithSpan>,
    offset_chars: usize,
    read: impl Fn(&mut Cursor<'_>) -> Result<T>,
) -> Result<T> {
    let dialect = MillstreamDialect::new(&tokens);
    let mut cursor = cursor_over(&dialect, text, tokens, offset_chars);
    let outcome = read(&mut cursor).and_then(|read| cursor.expect_end().map(|()| read));
    outcome.map_err(|error| sharpen(&cursor, error))
}

fn cursor_over<'a>(
    dialect: &'a MillstreamDialect,
    text: &'a SqlText,
    tokens: Vec<TokenWithSpan>,
    offset_chars: usize,
) -> Cursor<'a> {
    let parser =
        Parser::new(dialect).with_recursion_limit(RECURSION_MAX).with_tokens_with_locations(tokens);
    Cursor { parser, text, offset_chars }
}

/// The highest `$n`. Those that are no parameters are refused where they stand in expressions.
fn parameter_count(tokens: &[TokenWithSpan]) -> usize {
    let numbers = tokens.iter().filter_map(|token| match &token.token {
        Token::Placeholder(name) => query::parameter_number(name),
        _ => None,
    });
    numbers.max().map_or(0, usize::from)
}

/// The grammar, by the first word.
fn read_statement(cursor: &mut Cursor<'_>) -> Result<Statement> {
    if cursor.peek_query() {
        return data::query(cursor);
    }
    let word = match &cursor.peek().token {
        Token::Word(word) if word.quote_style.is_none() => word.value.to_ascii_uppercase(),
        _ => return Err(cursor.syntax_error()),
    };
    match word.as_str() {
        "CREATE" => ddl::create(cursor),
        "DROP" => ddl::drop(cursor),
        "ALTER" => ddl::alter(cursor),
        "COMMENT" => ddl::comment_on(cursor),
        "INSERT" => data::insert(cursor),
        "UPDATE" => data::update(cursor),
        "DELETE" => data::delete(cursor),
        "TRUNCATE" => data::truncate(cursor),
        "REPLAY" => data::replay_late(cursor),
        "COPY" => data::copy(cursor),
        "SUBSCRIBE" => data::subscribe(cursor),
        "EXPLAIN" => session::explain(cursor),
        "SHOW" => session::show(cursor),
        "DESCRIBE" | "DESC" => session::describe(cursor),
        "VERIFY" => session::verify(cursor),
        "SET" => session::set(cursor),
        "RESET" => session::reset(cursor),
        "DISCARD" => session::discard(cursor),
        "BEGIN" | "START" => session::begin(cursor),
        "COMMIT" | "END" => session::commit(cursor),
        "ROLLBACK" | "ABORT" => session::rollback(cursor),
        "SAVEPOINT" => session::savepoint(cursor),
        "RELEASE" => session::release(cursor),
        "FLUSH" => session::single_word(cursor, Statement::Flush),
        "CHECKPOINT" => session::single_word(cursor, Statement::Checkpoint),
        "BACKUP" | "EXPORT" | "IMPORT" => ddl::transfer(cursor),
        "PREPARE" => session::prepare(cursor),
        "EXECUTE" => session::execute(cursor),
        "DEALLOCATE" => session::deallocate(cursor),
        "DECLARE" => session::declare(cursor),
        "UNLISTEN" => session::unlisten(cursor),
        "FETCH" | "MOVE" => session::fetch(cursor),
        "CLOSE" => session::close(cursor),
        _ => Err(not_a_statement(cursor, &word)),
    }
}

/// Statements of others, and misspelt ones.
fn not_a_statement(cursor: &Cursor<'_>, word: &str) -> Error {
    const KNOWN: [(&str, &str); 25] = [
        ("ANALYZE", "Statistics are kept without it."),
        ("ANALYSE", "Statistics are kept without it."),
        ("VACUUM", "Space is reclaimed without it."),
        ("REINDEX", "Indexes are kept in shape without it."),
        ("CLUSTER", "Rows have no order on disk that could be changed."),
        ("OPTIMIZE", "Storage is kept in shape without it."),
        ("REFRESH", "Materialized views are always fresh."),
        ("MERGE", "Use INSERT ... ON CONFLICT DO UPDATE, or UPDATE and DELETE in a transaction."),
        ("REPLACE", "Use INSERT ... ON CONFLICT DO UPDATE."),
        ("UPSERT", "Use INSERT ... ON CONFLICT DO UPDATE."),
        ("GRANT", "There are no roles yet: every user may do everything."),
        ("REVOKE", "There are no roles yet: every user may do everything."),
        ("REASSIGN", "There are no roles yet: every user may do everything."),
        ("SECURITY", "There are no roles yet: every user may do everything."),
        ("LOCK", "Transactions are serializable without locks."),
        ("LISTEN", "SUBSCRIBE follows the changes of a table or query."),
        ("NOTIFY", "SUBSCRIBE follows the changes of a table or query."),
        ("TAIL", "SUBSCRIBE follows the changes of a table or query."),
        ("CALL", "There are no procedures."),
        ("DO", "There is no procedural language."),
        ("LOAD", "There are no loadable libraries."),
        ("USE", "Use SET search_path TO schema, or connect to the other database."),
        ("PRAGMA", "Use SET and SHOW."),
        ("ATTACH", "Use CREATE SOURCE."),
        ("KILL", "Cancel the statement from its own client."),
    ];
    if let Some((known, hint)) = KNOWN.iter().find(|(known, _)| *known == word) {
        return cursor.unsupported(known, hint);
    }
    let error = cursor.syntax_error();
    match hints::nearest(word, &hints::STATEMENTS) {
        Some(meant) => error.hint(format!("Perhaps you meant {meant}.")),
        None => error,
    }
}

/// Finds the true place of a syntax error inside a query in parentheses.
fn sharpen(cursor: &Cursor<'_>, error: Error) -> Error {
    let Some(position) = error.body().position else { return error };
    if error.sqlstate() != SqlState::SYNTAX_ERROR {
        return error;
    }
    let tokens: Vec<TokenWithSpan> =
        (0..cursor.token_count()).map(|i| cursor.parser.token_at(i).clone()).collect();
    let groups = query_groups(&tokens);
    let reached = |open: usize| cursor.text.position(tokens[open].span.start) <= position;
    let mut failed: Vec<(usize, Error)> = Vec::new();
    let candidates = groups.into_iter().rev().filter(|(open, _)| reached(*open));
    for (open, close) in candidates.take(SHARPEN_TRIES_MAX) {
        // What fails inside makes the outer query fail too.
        if failed.iter().any(|(inner, _)| open < *inner && *inner < close) {
            continue;
        }
        let dialect = MillstreamDialect::new(&tokens);
        let rest = tokens[open + 1..].to_vec();
        let mut inner = cursor_over(&dialect, cursor.text, rest, 0);
        let outcome: Result<QueryText> = inner.query();
        let complete =
            inner.at_end() || inner.peek().span == tokens[close.min(tokens.len() - 1)].span;
        match outcome {
            Err(inner_error) if inner_error.sqlstate() == SqlState::SYNTAX_ERROR => {
                failed.push((open, inner_error));
            }
            Ok(_) if !complete || close == tokens.len() => {
                failed.push((open, inner.syntax_error()));
            }
            _ => {}
        }
    }
    let earliest = failed
        .into_iter()
        .map(|(_, error)| error)
        .min_by_key(|error| error.body().position.unwrap_or(usize::MAX));
    earliest.unwrap_or(error)
}

/// Indices of parentheses around queries, outer before inner; an open one closes at the end.
fn query_groups(tokens: &[TokenWithSpan]) -> Vec<(usize, usize)> {
    let mut groups: Vec<(usize, usize)> = Vec::new();
    let mut open = Vec::new();
    for (i, token) in tokens.iter().enumerate() {
        match token.token {
            Token::LParen => {
                let next = tokens.get(i + 1).map(|t| &t.token);
                let query = next
                    .is_some_and(|t| ["SELECT", "WITH", "VALUES"].iter().any(|w| is_word(t, w)));
                open.push(query.then_some(groups.len()));
                if query {
                    groups.push((i, tokens.len()));
                }
            }
            Token::RParen => {
                if let Some(Some(group)) = open.pop() {
                    groups[group].1 = i;
                }
            }
            _ => {}
        }
    }
    groups
}
