//! Statements that read and change rows: queries, INSERT, UPDATE, DELETE, TRUNCATE, COPY,
//! SUBSCRIBE. The first four are sqlparser's; here they are checked for what is not Postgres's.

use datafusion::sql::sqlparser::ast::{
    self, FromTable, OnInsert, Query, SetExpr, TableObject, UpdateTableFromKind,
};
use datafusion::sql::sqlparser::tokenizer::Token;

use crate::sql::parse::cursor::{Cursor, is_word};
use crate::sql::parse::query;
use crate::sql::parse::table::option_word;
use crate::sql::statement::{
    CopyData, CopyFormat, CopyKind, ReplayLate, Statement, Subscribe, SubscribeTarget, Truncate,
};
use crate::types::error::{Error, Result, SqlState};

/// SELECT, VALUES, TABLE, `(query)`, and WITH before any of them or before INSERT.
pub(super) fn query(cursor: &mut Cursor<'_>) -> Result<Statement> {
    let mut query = cursor.parser.parse_query().map_err(|e| cursor.raise(e))?;
    if let SetExpr::Insert(_) = *query.body {
        return insert_with(cursor, *query);
    }
    query::check_query(&mut query).map_err(|e| e.at(cursor))?;
    Ok(Statement::Query(query))
}

/// `WITH ... INSERT INTO t SELECT ...` is `INSERT INTO t WITH ... SELECT ...`.
fn insert_with(cursor: &Cursor<'_>, query: Query) -> Result<Statement> {
    let refused = || {
        cursor.unsupported_at_words(
            &["WITH"],
            "WITH before this INSERT",
            "Write WITH behind INSERT INTO, before SELECT.",
        )
    };
    let (with, body) = (query.with, *query.body);
    let SetExpr::Insert(ast::Statement::Insert(mut insert)) = body else { return Err(refused()) };
    match &mut insert.source {
        Some(source) if source.with.is_none() => source.with = with,
        _ => return Err(refused()),
    }
    let mut statement = ast::Statement::Insert(insert);
    query::check_statement(&mut statement).map_err(|e| e.at(cursor))?;
    checked_insert(cursor, statement)
}

pub(super) fn insert(cursor: &mut Cursor<'_>) -> Result<Statement> {
    if is_word(&cursor.peek_nth(1).token, "OVERWRITE") {
        cursor.advance();
        return Err(cursor
            .unsupported("INSERT OVERWRITE", "TRUNCATE the table and INSERT in one transaction."));
    }
    if !is_word(&cursor.peek_nth(1).token, "INTO") {
        cursor.advance();
        return Err(cursor.expected("INTO"));
    }
    let statement = cursor.foreign_statement()?;
    checked_insert(cursor, statement)
}

fn checked_insert(cursor: &Cursor<'_>, statement: ast::Statement) -> Result<Statement> {
    let ast::Statement::Insert(insert) = statement else {
        return Err(cursor.unsupported_at_words(
            &["DIRECTORY"],
            "INSERT INTO DIRECTORY",
            "Use COPY ... TO STDOUT.",
        ));
    };
    if !matches!(insert.table, TableObject::TableName(_)) {
        return Err(cursor.unsupported_at_words(
            &["INTO"],
            "INSERT into anything but a table",
            "Name the table.",
        ));
    }
    if let Some(alias) = &insert.table_alias
        && !alias.explicit
    {
        let start = alias.alias.span.start;
        let token = cursor.find(|token| token.span.start == start);
        return Err(cursor.syntax_error_at(token.unwrap_or_else(|| cursor.end_token())));
    }
    if let Some(OnInsert::DuplicateKeyUpdate(_)) = &insert.on {
        return Err(cursor.unsupported_at_words(
            &["ON", "DUPLICATE"],
            "ON DUPLICATE KEY UPDATE",
            "Use ON CONFLICT (key) DO UPDATE SET ...",
        ));
    }
    let foreign = insert.or.is_some()
        || insert.output.is_some()
        || insert.partitioned.is_some()
        || insert.settings.is_some()
        || insert.format_clause.is_some()
        || insert.insert_alias.is_some()
        || (insert.source.is_none() && !insert.assignments.is_empty());
    if foreign {
        return Err(cursor.syntax_error_at_words(
            &[&["OR"], &["OUTPUT"], &["PARTITION"], &["SETTINGS"], &["FORMAT"], &["SET"]],
            "Use INSERT INTO table [(column, ...)] VALUES or a query.",
        ));
    }
    Ok(Statement::Insert(Box::new(insert)))
}

pub(super) fn update(cursor: &mut Cursor<'_>) -> Result<Statement> {
    let ast::Statement::Update(update) = cursor.foreign_statement()? else {
        return Err(Error::internal("UPDATE was parsed as another statement"));
    };
    let foreign = update.or.is_some()
        || update.output.is_some()
        || update.limit.is_some()
        || !update.order_by.is_empty()
        || matches!(update.from, Some(UpdateTableFromKind::BeforeSet(_)));
    if foreign {
        return Err(cursor.syntax_error_at_words(
            &[&["OR"], &["OUTPUT"], &["LIMIT"], &["ORDER", "BY"], &["FROM"]],
            "UPDATE table SET column = value [FROM ...] [WHERE ...] [RETURNING ...].",
        ));
    }
    let from = match &update.from {
        Some(UpdateTableFromKind::AfterSet(from)) => from.as_slice(),
        _ => &[],
    };
    for table in from {
        query::check_joins(&table.joins).map_err(|e| e.at(cursor))?;
    }
    if !update.table.joins.is_empty() {
        return Err(cursor.syntax_error_at_words(
            &[&["JOIN"]],
            "Name the other tables in FROM, and join them in WHERE.",
        ));
    }
    Ok(Statement::Update(Box::new(update)))
}

pub(super) fn delete(cursor: &mut Cursor<'_>) -> Result<Statement> {
    if !is_word(&cursor.peek_nth(1).token, "FROM") {
        cursor.advance();
        return Err(cursor.expected("FROM"));
    }
    let ast::Statement::Delete(delete) = cursor.foreign_statement()? else {
        return Err(Error::internal("DELETE was parsed as another statement"));
    };
    let one_table = match &delete.from {
        FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from) => {
            from.len() == 1 && from.iter().all(|table| table.joins.is_empty())
        }
    };
    if !one_table {
        return Err(cursor.syntax_error_at_words(
            &[&["JOIN"], &["FROM"]],
            "Name the other tables in USING, and join them in WHERE.",
        ));
    }
    for table in delete.using.iter().flatten() {
        query::check_joins(&table.joins).map_err(|e| e.at(cursor))?;
    }
    if delete.output.is_some() || delete.limit.is_some() || !delete.order_by.is_empty() {
        return Err(cursor.syntax_error_at_words(
            &[&["OUTPUT"], &["LIMIT"], &["ORDER", "BY"]],
            "DELETE FROM table [USING ...] [WHERE ...] [RETURNING ...].",
        ));
    }
    Ok(Statement::Delete(Box::new(delete)))
}

/// `TRUNCATE [TABLE] name, ... [CONTINUE IDENTITY | RESTART IDENTITY] [CASCADE | RESTRICT]`.
pub(super) fn truncate(cursor: &mut Cursor<'_>) -> Result<Statement> {
    cursor.expect("TRUNCATE")?;
    cursor.eat("TABLE");
    cursor.eat("ONLY");
    let tables = cursor.names()?;
    // There are no sequences to restart.
    if cursor.eat_one_of(&["RESTART", "CONTINUE"]).is_some() {
        cursor.expect("IDENTITY")?;
    }
    let cascade = cascade(cursor);
    Ok(Statement::Truncate(Truncate { tables, cascade }))
}

/// `REPLAY LATE name [WHERE condition]`.
pub(super) fn replay_late(cursor: &mut Cursor<'_>) -> Result<Statement> {
    cursor.expect_words(&["REPLAY", "LATE"])?;
    let name = cursor.name()?;
    let condition = if cursor.eat("WHERE") { Some(cursor.expression()?.ast) } else { None };
    Ok(Statement::ReplayLate(Box::new(ReplayLate { name, condition })))
}

/// `[CASCADE | RESTRICT]`.
pub(super) fn cascade(cursor: &mut Cursor<'_>) -> bool {
    cursor.eat_one_of(&["CASCADE", "RESTRICT"]) == Some("CASCADE")
}

/// `SUBSCRIBE [TO] name | (query)`, then AS OF, UP TO and WITH in any order.
pub(super) fn subscribe(cursor: &mut Cursor<'_>) -> Result<Statement> {
    cursor.expect("SUBSCRIBE")?;
    cursor.eat("TO");
    let target = if cursor.eat_token(&Token::LParen) {
        let query = cursor.query()?;
        cursor.expect_token(&Token::RParen)?;
        SubscribeTarget::Query(query)
    } else if cursor.peek_query() {
        return Err(cursor.syntax_error().hint("Put the query in parentheses."));
    } else {
        SubscribeTarget::Relation(cursor.name()?)
    };
    let mut subscribe =
        Subscribe { target, progress: false, snapshot: true, as_of: None, up_to: None };
    loop {
        if subscribe.as_of.is_none() && cursor.eat_words(&["AS", "OF"]) {
            subscribe.as_of = Some(cursor.expression()?);
        } else if subscribe.up_to.is_none() && cursor.eat_words(&["UP", "TO"]) {
            subscribe.up_to = Some(cursor.expression()?);
        } else if cursor.eat("WITH") {
            subscribe_options(cursor, &mut subscribe)?;
        } else {
            return Ok(Statement::Subscribe(Box::new(subscribe)));
        }
    }
}

/// `(PROGRESS [[=] boolean], SNAPSHOT [[=] boolean])`.
fn subscribe_options(cursor: &mut Cursor<'_>, subscribe: &mut Subscribe) -> Result<()> {
    cursor.expect_token(&Token::LParen)?;
    loop {
        let position = cursor.position();
        let name = cursor.ident()?;
        let option = match name.as_str() {
            "progress" => &mut subscribe.progress,
            "snapshot" => &mut subscribe.snapshot,
            _ => {
                return Err(Error::user(
                    SqlState::SYNTAX_ERROR,
                    format!("unrecognized SUBSCRIBE option \"{name}\""),
                )
                .hint("The options are PROGRESS and SNAPSHOT.")
                .position(position));
            }
        };
        *option = optional_boolean(cursor)?;
        if !cursor.eat_token(&Token::Comma) {
            return cursor.expect_token(&Token::RParen);
        }
    }
}

/// `[=] TRUE | FALSE | ON | OFF | 1 | 0`, or nothing for true.
pub(super) fn optional_boolean(cursor: &mut Cursor<'_>) -> Result<bool> {
    let equals = cursor.eat_token(&Token::Eq);
    let word = match &cursor.peek().token {
        Token::Word(word) if word.quote_style.is_none() => word.value.to_ascii_lowercase(),
        Token::SingleQuotedString(text) => text.to_ascii_lowercase(),
        Token::Number(digits, _) => digits.clone(),
        _ if equals => return Err(cursor.expected("true or false")),
        _ => return Ok(true),
    };
    let value = match word.as_str() {
        "true" | "on" | "1" | "yes" => true,
        "false" | "off" | "0" | "no" => false,
        _ => return Err(cursor.expected("true or false")),
    };
    cursor.advance();
    Ok(value)
}

/// `COPY table [(column, ...)] | (query) FROM STDIN | TO STDOUT [options]`.
pub(super) fn copy(cursor: &mut Cursor<'_>) -> Result<Statement> {
    cursor.expect("COPY")?;
    if cursor.peek_words(&["BINARY"]) {
        return Err(cursor.unsupported("COPY in binary format", "Use format text or csv."));
    }
    if cursor.eat_token(&Token::LParen) {
        let query = cursor.query()?;
        cursor.expect_token(&Token::RParen)?;
        cursor.expect("TO")?;
        stream(cursor, "STDOUT")?;
        let format = copy_options(cursor)?;
        return Ok(Statement::Copy(Box::new(CopyData::OutQuery { query, format })));
    }
    let relation = cursor.name()?;
    let columns = match cursor.peek_is(&Token::LParen) {
        true => Some(cursor.ident_list()?),
        false => None,
    };
    let copy = match cursor.eat_one_of(&["FROM", "TO"]) {
        Some("FROM") => {
            stream(cursor, "STDIN")?;
            let format = copy_options(cursor)?;
            if cursor.peek_words(&["WHERE"]) {
                return Err(cursor.unsupported(
                    "WHERE of COPY",
                    "Copy into another table and INSERT ... SELECT ... WHERE from it.",
                ));
            }
            CopyData::In { table: relation, columns, format }
        }
        Some(_) => {
            stream(cursor, "STDOUT")?;
            CopyData::OutRelation { relation, columns, format: copy_options(cursor)? }
        }
        None => return Err(cursor.expected("FROM or TO")),
    };
    Ok(Statement::Copy(Box::new(copy)))
}

/// STDIN or STDOUT, not a file of the server's.
fn stream(cursor: &mut Cursor<'_>, name: &str) -> Result<()> {
    if cursor.peek_string().is_some() || cursor.peek_words(&["PROGRAM"]) {
        return Err(cursor.unsupported(
            "COPY with a file of the server",
            "Use psql's \\copy, or CREATE SOURCE with the file connector.",
        ));
    }
    cursor.expect(name)
}

/// Options as they are given; the defaults depend on the format.
#[derive(Default)]
struct CopyOptions {
    kind: Option<CopyKind>,
    delimiter: Option<(String, usize)>,
    null: Option<(String, usize)>,
    header: Option<bool>,
    quote: Option<(String, usize)>,
    escape: Option<(String, usize)>,
    /// Of those that change nothing here, to find repetitions.
    ignored: Vec<String>,
}

/// Options without parentheses.
const LEGACY_COPY_OPTIONS: [&str; 12] = [
    "BINARY",
    "CSV",
    "DELIMITER",
    "DELIMITERS",
    "NULL",
    "HEADER",
    "QUOTE",
    "ESCAPE",
    "ENCODING",
    "FREEZE",
    "FORCE",
    "OIDS",
];

fn copy_options(cursor: &mut Cursor<'_>) -> Result<CopyFormat> {
    let mut options = CopyOptions::default();
    cursor.eat("WITH");
    if cursor.eat_token(&Token::LParen) {
        loop {
            let position = cursor.position();
            let name = option_word(cursor)?;
            copy_option(cursor, &mut options, &name, position)?;
            if !cursor.eat_token(&Token::Comma) {
                break;
            }
        }
        cursor.expect_token(&Token::RParen)?;
    } else {
        loop {
            let position = cursor.position();
            let Some(word) = cursor.eat_one_of(&LEGACY_COPY_OPTIONS) else { break };
            match word {
                "CSV" => set_once(&mut options.kind, CopyKind::Csv, position)?,
                "HEADER" => set_once(&mut options.header, true, position)?,
                "FREEZE" => {}
                _ => {
                    cursor.eat("AS");
                    let name = word.to_ascii_lowercase();
                    copy_option(cursor, &mut options, &name, position)?;
                }
            }
        }
    }
    options.finish()
}

/// One option of the parenthesised form, behind its name.
fn copy_option(
    cursor: &mut Cursor<'_>,
    options: &mut CopyOptions,
    name: &str,
    position: usize,
) -> Result<()> {
    let refuse =
        |what: &str, hint: &str| Err(Error::unsupported(what).hint(hint).position(position));
    match name {
        "format" => {
            let format = match cursor.peek_string() {
                Some(_) => cursor.string()?,
                None => option_word(cursor)?,
            };
            let kind = match format.as_str() {
                "text" => CopyKind::Text,
                "csv" => CopyKind::Csv,
                "binary" => return refuse("COPY in binary format", "Use format text or csv."),
                _ => {
                    return Err(Error::user(
                        SqlState::INVALID_PARAMETER_VALUE,
                        format!("COPY format \"{format}\" not recognized"),
                    )
                    .hint("Use format text or csv.")
                    .position(position));
                }
            };
            set_once(&mut options.kind, kind, position)
        }
        "delimiter" | "delimiters" => {
            let value = (cursor.string()?, position);
            set_once(&mut options.delimiter, value, position)
        }
        "null" => {
            let value = (cursor.string()?, position);
            set_once(&mut options.null, value, position)
        }
        "quote" => {
            let value = (cursor.string()?, position);
            set_once(&mut options.quote, value, position)
        }
        "escape" => {
            let value = (cursor.string()?, position);
            set_once(&mut options.escape, value, position)
        }
        "header" if cursor.peek_words(&["MATCH"]) => {
            refuse("HEADER MATCH", "Use HEADER: the first line is passed over.")
        }
        "header" => {
            let value = optional_boolean(cursor)?;
            set_once(&mut options.header, value, position)
        }
        "encoding" => {
            let encoding = cursor.string()?;
            match encoding.to_ascii_uppercase().as_str() {
                "UTF8" | "UTF-8" | "UNICODE" => ignored(options, name, position),
                _ => refuse(&format!("encoding \"{encoding}\""), "Convert the data to UTF8."),
            }
        }
        "freeze" => {
            optional_boolean(cursor)?;
            ignored(options, name, position)
        }
        "on_error" if cursor.eat("STOP") => ignored(options, name, position),
        "binary" => refuse("COPY in binary format", "Use format text or csv."),
        "on_error" | "log_verbosity" | "reject_limit" | "default" | "force" | "force_quote"
        | "force_not_null" | "force_null" | "oids" => refuse(
            &format!("COPY option {}", name.to_ascii_uppercase()),
            "The options are FORMAT, DELIMITER, NULL, HEADER, QUOTE, ESCAPE and ENCODING.",
        ),
        _ => Err(Error::user(SqlState::SYNTAX_ERROR, format!("option \"{name}\" not recognized"))
            .hint("The options are FORMAT, DELIMITER, NULL, HEADER, QUOTE, ESCAPE and ENCODING.")
            .position(position)),
    }
}

fn ignored(options: &mut CopyOptions, name: &str, position: usize) -> Result<()> {
    let mut given = options.ignored.iter().any(|other| other == name).then_some(());
    options.ignored.push(name.to_owned());
    set_once(&mut given, (), position)
}

fn set_once<T>(slot: &mut Option<T>, value: T, at: usize) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => {
            Err(Error::user(SqlState::SYNTAX_ERROR, "conflicting or redundant options")
                .position(at))
        }
    }
}

impl CopyOptions {
    /// Fills in defaults and checks what must not meet.
    fn finish(self) -> Result<CopyFormat> {
        let kind = self.kind.unwrap_or(CopyKind::Text);
        let csv = kind == CopyKind::Csv;
        for (option, name) in [(&self.quote, "QUOTE"), (&self.escape, "ESCAPE")] {
            if let (Some((_, position)), false) = (option, csv) {
                return Err(Error::user(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    format!("COPY {name} requires CSV mode"),
                )
                .hint("Add FORMAT csv.")
                .position(*position));
            }
        }
        let delimiter = byte(&self.delimiter, "delimiter", if csv { b',' } else { b'\t' })?;
        let quote = byte(&self.quote, "quote", b'"')?;
        let escape = byte(&self.escape, "escape", quote)?;
        let default_null = if csv { "" } else { "\\N" };
        let (null, null_position) = match &self.null {
            Some((null, position)) => (null.clone(), Some(*position)),
            None => (default_null.to_owned(), None),
        };
        let position = null_position
            .or(self.delimiter.as_ref().map(|(_, position)| *position))
            .or(self.quote.as_ref().map(|(_, position)| *position));
        let wrong = |message: String| {
            let error = Error::user(SqlState::INVALID_PARAMETER_VALUE, message);
            Err(match position {
                Some(position) => error.position(position),
                None => error,
            })
        };
        // In text, such a delimiter could not be told from data or from an escape.
        let taken = b"\\.abcdefghijklmnopqrstuvwxyz0123456789";
        if !csv && taken.contains(&delimiter) {
            return wrong(format!("COPY delimiter cannot be \"{}\"", char::from(delimiter)));
        }
        if csv && delimiter == quote {
            return wrong("COPY delimiter and quote must be different".to_owned());
        }
        if null.contains(['\n', '\r']) {
            return wrong(
                "COPY null representation cannot use newline or carriage return".to_owned(),
            );
        }
        if null.as_bytes().contains(&delimiter) {
            return wrong(
                "COPY delimiter character must not appear in the NULL specification".to_owned(),
            );
        }
        if csv && null.as_bytes().contains(&quote) {
            return wrong(
                "CSV quote character must not appear in the NULL specification".to_owned(),
            );
        }
        let header = self.header.unwrap_or(false);
        Ok(CopyFormat { kind, delimiter, null, header, quote, escape })
    }
}

/// An option of one byte.
fn byte(option: &Option<(String, usize)>, name: &str, default: u8) -> Result<u8> {
    let Some((text, position)) = option else { return Ok(default) };
    let wrong = |state, what: &str| {
        Err(Error::user(state, format!("COPY {name} {what}")).position(*position))
    };
    match text.as_bytes() {
        [b'\n' | b'\r'] => {
            wrong(SqlState::INVALID_PARAMETER_VALUE, "cannot be newline or carriage return")
        }
        [one] if one.is_ascii() => Ok(*one),
        _ => wrong(SqlState::FEATURE_NOT_SUPPORTED, "must be a single one-byte character"),
    }
}
