//! Statements about the session: EXPLAIN, SHOW, settings, transactions, prepared statements,
//! cursors.

use datafusion::sql::sqlparser::tokenizer::Token;

use crate::sql::parse::cursor::{Cursor, is_word};
use crate::sql::parse::data::optional_boolean;
use crate::sql::parse::ddl::noun;
use crate::sql::parse::parse_rest;
use crate::sql::statement::{
    DeclareCursor, Discard, Execute, Explain, ExplainFormat, ExplainTarget, Fetch, FetchCount,
    IsolationLevel, Prepare, Set, SetValue, Show, ShowList, ShowWithin, Statement,
    TransactionModes,
};
use crate::types::error::{Error, Result, SqlState};

/// A statement of one word.
pub(super) fn single_word(cursor: &mut Cursor<'_>, statement: Statement) -> Result<Statement> {
    cursor.advance();
    Ok(statement)
}

/// `EXPLAIN [PLAN FOR] [ANALYZE] [VERBOSE] | (option, ...)` and what.
pub(super) fn explain(cursor: &mut Cursor<'_>) -> Result<Statement> {
    cursor.expect("EXPLAIN")?;
    cursor.eat_words(&["PLAN", "FOR"]);
    let mut options = ExplainOptions::default();
    if cursor.peek_is(&Token::LParen) && !cursor.peek_query_in_parens() {
        explain_options(cursor, &mut options)?;
    } else {
        options.analyze = cursor.eat_one_of(&["ANALYZE", "ANALYSE"]).is_some();
        options.verbose = cursor.eat("VERBOSE");
        if options.analyze && starts_with(cursor, &ANALYZED) {
            return analyze_for(cursor, options);
        }
    }
    let target = if cursor.eat_words(&["MATERIALIZED", "VIEW"]) {
        ExplainTarget::MaterializedView(cursor.name()?)
    } else if cursor.peek_query() || starts_with(cursor, &EXPLAINED) {
        ExplainTarget::Statement(parse_rest(cursor)?)
    } else {
        return Err(cursor.expected("a query or MATERIALIZED VIEW"));
    };
    Ok(of_target(options, target))
}

fn of_target(options: ExplainOptions, target: ExplainTarget) -> Statement {
    let ExplainOptions { analyze, verbose, workers, format } = options;
    Statement::Explain(Box::new(Explain { analyze, verbose, workers, format, target }))
}

/// Materialize's spelling: `EXPLAIN ANALYZE MEMORY, CPU FOR MATERIALIZED VIEW v WITH SKEW`.
fn analyze_for(cursor: &mut Cursor<'_>, mut options: ExplainOptions) -> Result<Statement> {
    while cursor.eat_one_of(&["CPU", "MEMORY"]).is_some() && cursor.eat_token(&Token::Comma) {}
    cursor.expect("FOR")?;
    cursor.expect("MATERIALIZED")?;
    cursor.expect("VIEW")?;
    let target = ExplainTarget::MaterializedView(cursor.name()?);
    options.workers = cursor.eat_words(&["WITH", "SKEW"]);
    Ok(of_target(options, target))
}

/// What Materialize's EXPLAIN ANALYZE begins with.
const ANALYZED: [&str; 3] = ["CPU", "MEMORY", "FOR"];

#[derive(Default)]
struct ExplainOptions {
    analyze: bool,
    verbose: bool,
    workers: bool,
    format: ExplainFormat,
}

/// First words of what can be explained beside queries. EXPLAIN is none: it must not nest.
const EXPLAINED: [&str; 6] = ["INSERT", "UPDATE", "DELETE", "CREATE", "SUBSCRIBE", "EXECUTE"];

fn starts_with(cursor: &Cursor<'_>, words: &[&str]) -> bool {
    cursor.peek_one_of(words).is_some()
}

fn explain_options(cursor: &mut Cursor<'_>, options: &mut ExplainOptions) -> Result<()> {
    cursor.expect_token(&Token::LParen)?;
    loop {
        let position = cursor.position();
        let wrong =
            |message: String| Err(Error::user(SqlState::SYNTAX_ERROR, message).position(position));
        if cursor.eat_one_of(&["ANALYZE", "ANALYSE"]).is_some() {
            options.analyze = optional_boolean(cursor)?;
        } else if cursor.eat("VERBOSE") {
            options.verbose = optional_boolean(cursor)?;
        } else if cursor.eat("WORKERS") {
            options.workers = optional_boolean(cursor)?;
        } else if cursor.eat("FORMAT") {
            let format = match cursor.peek_string() {
                Some(_) => cursor.string()?,
                None => cursor.ident()?,
            };
            options.format = match format.to_ascii_lowercase().as_str() {
                "text" => ExplainFormat::Text,
                "json" => ExplainFormat::Json,
                "dot" => ExplainFormat::Dot,
                "xml" | "yaml" => {
                    return Err(Error::unsupported(format_args!("EXPLAIN format {format}"))
                        .hint("Use FORMAT TEXT or FORMAT DOT.")
                        .position(position));
                }
                _ => {
                    return wrong(format!(
                        "unrecognized value for EXPLAIN option \"format\": \"{format}\""
                    ));
                }
            };
        } else {
            let name = cursor.ident()?;
            let of_postgres = [
                "costs",
                "buffers",
                "timing",
                "summary",
                "settings",
                "wal",
                "memory",
                "generic_plan",
            ];
            if !of_postgres.contains(&name.as_str()) {
                return wrong(format!("unrecognized EXPLAIN option \"{name}\""))
                    .map_err(|e| e.hint("The options are ANALYZE, VERBOSE, WORKERS and FORMAT."));
            }
            // Known to tools made for Postgres; there is nothing to switch here.
            optional_boolean(cursor)?;
        }
        if !cursor.eat_token(&Token::Comma) {
            return cursor.expect_token(&Token::RParen);
        }
    }
}

/// SHOW of a list, of columns, of a definition, or of a setting.
pub(super) fn show(cursor: &mut Cursor<'_>) -> Result<Statement> {
    cursor.expect("SHOW")?;
    if cursor.eat("ALL") {
        return Ok(Statement::Show(Show::All));
    }
    if cursor.eat("CREATE") {
        let kind = noun(cursor, "SHOW CREATE")?;
        return Ok(Statement::Show(Show::Create { kind, name: cursor.name()? }));
    }
    if cursor.eat("COLUMNS") {
        if cursor.eat_one_of(&["FROM", "IN"]).is_none() {
            return Err(cursor.expected("FROM"));
        }
        let relation = cursor.name()?;
        return Ok(Statement::Show(Show::Columns { relation, like: like(cursor)? }));
    }
    if let Some(what) = show_list(cursor) {
        let everywhere = matches!(
            what,
            ShowList::Databases
                | ShowList::Connectors
                | ShowList::Savepoints
                | ShowList::Checkpoints
        );
        let within = if everywhere || cursor.eat_one_of(&["FROM", "IN"]).is_none() {
            None
        } else {
            Some(match what {
                ShowList::Schemas => ShowWithin::Database(cursor.ident()?),
                ShowList::Indexes | ShowList::Watermarks => ShowWithin::Relation(cursor.name()?),
                _ => ShowWithin::Schema(cursor.schema_name()?),
            })
        };
        return Ok(Statement::Show(Show::List { what, within, like: like(cursor)? }));
    }
    let position = cursor.position();
    let name = parameter_name(cursor)?;
    Ok(Statement::Show(Show::Parameter { name, position }))
}

fn show_list(cursor: &mut Cursor<'_>) -> Option<ShowList> {
    const LISTS: [(&[&str], ShowList); 15] = [
        (&["TABLES"], ShowList::Tables),
        (&["SOURCES"], ShowList::Sources),
        (&["VIEWS"], ShowList::Views),
        (&["MATERIALIZED", "VIEWS"], ShowList::MaterializedViews),
        (&["SINKS"], ShowList::Sinks),
        (&["INDEXES"], ShowList::Indexes),
        (&["INDEX"], ShowList::Indexes),
        (&["INDICES"], ShowList::Indexes),
        (&["SCHEMAS"], ShowList::Schemas),
        (&["DATABASES"], ShowList::Databases),
        (&["CONNECTORS"], ShowList::Connectors),
        (&["FUNCTIONS"], ShowList::Functions),
        (&["WATERMARKS"], ShowList::Watermarks),
        (&["SAVEPOINTS"], ShowList::Savepoints),
        (&["CHECKPOINTS"], ShowList::Checkpoints),
    ];
    LISTS.iter().find(|(words, _)| cursor.eat_words(words)).map(|(_, what)| *what)
}

fn like(cursor: &mut Cursor<'_>) -> Result<Option<String>> {
    Ok(if cursor.eat("LIKE") { Some(cursor.string()?) } else { None })
}

/// `DESCRIBE [kind] name`.
pub(super) fn describe(cursor: &mut Cursor<'_>) -> Result<Statement> {
    cursor.advance();
    if cursor.peek_one_of(&["TABLE", "SOURCE", "VIEW", "MATERIALIZED", "SINK"]).is_some()
        && !matches!(cursor.peek_nth(1).token, Token::EOF | Token::Period)
    {
        noun(cursor, "DESCRIBE")?;
    }
    Ok(Statement::Describe(cursor.name()?))
}

/// `VERIFY MATERIALIZED VIEW name`.
pub(super) fn verify(cursor: &mut Cursor<'_>) -> Result<Statement> {
    cursor.expect_words(&["VERIFY", "MATERIALIZED", "VIEW"])?;
    Ok(Statement::VerifyMaterializedView(cursor.name()?))
}

/// SET in all its forms.
pub(super) fn set(cursor: &mut Cursor<'_>) -> Result<Statement> {
    cursor.expect("SET")?;
    if cursor.eat_words(&["SESSION", "CHARACTERISTICS", "AS", "TRANSACTION"]) {
        return Ok(Statement::SetSessionCharacteristics(required_modes(cursor)?));
    }
    let scope = match (cursor.peek_one_of(&["SESSION", "LOCAL"]), &cursor.peek_nth(1).token) {
        (Some(scope), next) if *next != Token::Eq && !is_word(next, "TO") => {
            cursor.advance();
            Some(scope)
        }
        _ => None,
    };
    if cursor.eat("TRANSACTION") {
        if cursor.peek_words(&["SNAPSHOT"]) {
            return Err(cursor.unsupported(
                "SET TRANSACTION SNAPSHOT",
                "Read in one transaction to see one state.",
            ));
        }
        return Ok(Statement::SetTransaction(required_modes(cursor)?));
    }
    if cursor.peek_words(&["CONSTRAINTS"]) {
        return Err(cursor.unsupported("SET CONSTRAINTS", "Constraints are checked at once."));
    }
    let position = cursor.position();
    let (name, value) = assignment(cursor)?;
    Ok(Statement::Set(Set { local: scope == Some("LOCAL"), name, value, position }))
}

/// The name and value of SET; special spellings become ordinary settings.
fn assignment(cursor: &mut Cursor<'_>) -> Result<(String, SetValue)> {
    let special = [
        (["TIME", "ZONE"].as_slice(), "timezone"),
        (&["SESSION", "AUTHORIZATION"], "session_authorization"),
        (&["NAMES"], "client_encoding"),
        (&["ROLE"], "role"),
        (&["SCHEMA"], "search_path"),
        // What is left of SET SESSION AUTHORIZATION behind the scope.
        (&["AUTHORIZATION"], "session_authorization"),
    ];
    for (words, name) in special {
        let next = &cursor.peek_nth(words.len()).token;
        let ordinary = *next == Token::Eq || *next == Token::Period || is_word(next, "TO");
        if !ordinary && cursor.eat_words(words) {
            let value = match name {
                "timezone" => time_zone(cursor)?,
                _ if cursor.eat("DEFAULT") => SetValue::Default,
                _ => SetValue::Values(vec![value(cursor)?]),
            };
            return Ok((name.to_owned(), value));
        }
    }
    let name = match cursor.peek_string() {
        // Flink's SET 'name' = 'value'.
        Some(_) => cursor.string()?.to_ascii_lowercase(),
        None => parameter_name(cursor)?,
    };
    if !cursor.eat_token(&Token::Eq) && !cursor.eat("TO") {
        return Err(cursor.expected("TO or ="));
    }
    if cursor.eat("DEFAULT") {
        return Ok((name, SetValue::Default));
    }
    Ok((name, SetValue::Values(cursor.list(value)?)))
}

/// `LOCAL | DEFAULT | 'zone' | zone | hours | INTERVAL 'hours' HOUR TO MINUTE`.
fn time_zone(cursor: &mut Cursor<'_>) -> Result<SetValue> {
    if cursor.eat_one_of(&["LOCAL", "DEFAULT"]).is_some() {
        return Ok(SetValue::Default);
    }
    if cursor.peek_words(&["INTERVAL"]) {
        cursor.advance();
        let zone = cursor.string()?;
        if !cursor.eat_words(&["HOUR", "TO", "MINUTE"]) {
            cursor.eat("HOUR");
        }
        return Ok(SetValue::Values(vec![zone]));
    }
    Ok(SetValue::Values(vec![value(cursor)?]))
}

/// A setting's value: a string's content, a signed number, or a word, folded.
fn value(cursor: &mut Cursor<'_>) -> Result<String> {
    if cursor.peek_string().is_some() {
        return cursor.string();
    }
    let sign = if cursor.eat_token(&Token::Minus) {
        "-"
    } else {
        cursor.eat_token(&Token::Plus);
        ""
    };
    match &cursor.peek().token {
        Token::Number(digits, false) => {
            let number = format!("{sign}{digits}");
            cursor.advance();
            Ok(number)
        }
        Token::Word(word) if sign.is_empty() => {
            let text = match word.quote_style {
                Some(_) => word.value.clone(),
                None => word.value.to_ascii_lowercase(),
            };
            cursor.advance();
            Ok(text)
        }
        _ => Err(cursor.expected("a value")),
    }
}

/// A setting's name: lower case, with dots, or one of SQL's names of several words.
fn parameter_name(cursor: &mut Cursor<'_>) -> Result<String> {
    let special = [
        (["TIME", "ZONE"].as_slice(), "timezone"),
        (&["TRANSACTION", "ISOLATION", "LEVEL"], "transaction_isolation"),
        (&["SESSION", "AUTHORIZATION"], "session_authorization"),
    ];
    for (words, name) in special {
        if cursor.eat_words(words) {
            return Ok(name.to_owned());
        }
    }
    let mut name = cursor.ident()?;
    while cursor.eat_token(&Token::Period) {
        name.push('.');
        name.push_str(&cursor.ident()?);
    }
    Ok(name.to_ascii_lowercase())
}

/// `RESET name | ALL`.
pub(super) fn reset(cursor: &mut Cursor<'_>) -> Result<Statement> {
    cursor.expect("RESET")?;
    if cursor.eat("ALL") {
        return Ok(Statement::ResetAll);
    }
    Ok(Statement::Reset(parameter_name(cursor)?))
}

/// `DISCARD ALL | PLANS | SEQUENCES | TEMP`.
pub(super) fn discard(cursor: &mut Cursor<'_>) -> Result<Statement> {
    cursor.expect("DISCARD")?;
    let what = cursor.eat_one_of(&["ALL", "PLANS", "SEQUENCES", "TEMPORARY", "TEMP"]);
    Ok(Statement::Discard(match what {
        Some("ALL") => Discard::All,
        Some("PLANS") => Discard::Plans,
        Some("SEQUENCES") => Discard::Sequences,
        Some(_) => Discard::Temp,
        None => return Err(cursor.expected("ALL, PLANS, SEQUENCES or TEMP")),
    }))
}

/// `BEGIN [WORK | TRANSACTION] [modes]`, `START TRANSACTION [modes]`.
pub(super) fn begin(cursor: &mut Cursor<'_>) -> Result<Statement> {
    if cursor.eat("START") {
        cursor.expect("TRANSACTION")?;
    } else {
        cursor.expect("BEGIN")?;
        cursor.eat_one_of(&["WORK", "TRANSACTION"]);
    }
    Ok(Statement::Begin(modes(cursor)?))
}

fn required_modes(cursor: &mut Cursor<'_>) -> Result<TransactionModes> {
    if cursor.at_end() {
        return Err(cursor.expected("a transaction mode"));
    }
    modes(cursor)
}

/// Transaction modes; commas between them are optional.
fn modes(cursor: &mut Cursor<'_>) -> Result<TransactionModes> {
    let mut modes = TransactionModes::default();
    let mut comma = false;
    while !cursor.at_end() || comma {
        if cursor.eat_words(&["ISOLATION", "LEVEL"]) {
            modes.isolation = Some(isolation_level(cursor)?);
        } else if cursor.eat_words(&["READ", "ONLY"]) {
            modes.read_only = Some(true);
        } else if cursor.eat_words(&["READ", "WRITE"]) {
            modes.read_only = Some(false);
        } else if cursor.eat_words(&["NOT", "DEFERRABLE"]) {
            modes.deferrable = Some(false);
        } else if cursor.eat("DEFERRABLE") {
            modes.deferrable = Some(true);
        } else {
            return Err(cursor.expected("a transaction mode"));
        }
        comma = cursor.eat_token(&Token::Comma);
    }
    Ok(modes)
}

fn isolation_level(cursor: &mut Cursor<'_>) -> Result<IsolationLevel> {
    const LEVELS: [(&[&str], IsolationLevel); 4] = [
        (&["READ", "UNCOMMITTED"], IsolationLevel::ReadUncommitted),
        (&["READ", "COMMITTED"], IsolationLevel::ReadCommitted),
        (&["REPEATABLE", "READ"], IsolationLevel::RepeatableRead),
        (&["SERIALIZABLE"], IsolationLevel::Serializable),
    ];
    match LEVELS.iter().find(|(words, _)| cursor.eat_words(words)) {
        Some((_, level)) => Ok(*level),
        None => Err(cursor.expected("an isolation level")),
    }
}

/// `COMMIT | END [WORK | TRANSACTION] [AND [NO] CHAIN]`.
pub(super) fn commit(cursor: &mut Cursor<'_>) -> Result<Statement> {
    cursor.advance();
    if cursor.peek_words(&["PREPARED"]) {
        return Err(cursor.unsupported("COMMIT PREPARED", "Use COMMIT."));
    }
    cursor.eat_one_of(&["WORK", "TRANSACTION"]);
    Ok(Statement::Commit { chain: chain(cursor)? })
}

/// `ROLLBACK | ABORT [WORK | TRANSACTION] [AND [NO] CHAIN | TO [SAVEPOINT] name]`.
pub(super) fn rollback(cursor: &mut Cursor<'_>) -> Result<Statement> {
    let abort = cursor.eat("ABORT");
    if !abort {
        cursor.expect("ROLLBACK")?;
    }
    if cursor.peek_words(&["PREPARED"]) {
        return Err(cursor.unsupported("ROLLBACK PREPARED", "Use ROLLBACK."));
    }
    cursor.eat_one_of(&["WORK", "TRANSACTION"]);
    if !abort && cursor.eat("TO") {
        cursor.eat("SAVEPOINT");
        return Ok(Statement::RollbackTo(cursor.ident()?));
    }
    Ok(Statement::Rollback { chain: chain(cursor)? })
}

fn chain(cursor: &mut Cursor<'_>) -> Result<bool> {
    if !cursor.eat("AND") {
        return Ok(false);
    }
    let no = cursor.eat("NO");
    cursor.expect("CHAIN")?;
    Ok(!no)
}

/// `SAVEPOINT name`: of a transaction.
pub(super) fn savepoint(cursor: &mut Cursor<'_>) -> Result<Statement> {
    cursor.expect("SAVEPOINT")?;
    Ok(Statement::Savepoint(cursor.ident()?))
}

/// `RELEASE [SAVEPOINT] name`.
pub(super) fn release(cursor: &mut Cursor<'_>) -> Result<Statement> {
    cursor.expect("RELEASE")?;
    cursor.eat("SAVEPOINT");
    Ok(Statement::ReleaseSavepoint(cursor.ident()?))
}

/// `UNLISTEN name | *`.
pub(super) fn unlisten(cursor: &mut Cursor<'_>) -> Result<Statement> {
    cursor.expect("UNLISTEN")?;
    if !cursor.eat_token(&Token::Mul) {
        cursor.ident()?;
    }
    Ok(Statement::Unlisten)
}

/// `PREPARE name [(type, ...)] AS statement`.
pub(super) fn prepare(cursor: &mut Cursor<'_>) -> Result<Statement> {
    cursor.expect("PREPARE")?;
    if cursor.peek_words(&["TRANSACTION"]) && cursor.peek_nth(1).token != Token::EOF {
        return Err(cursor.unsupported("PREPARE TRANSACTION", "Use COMMIT."));
    }
    let name = cursor.ident()?;
    let mut parameter_types = Vec::new();
    if cursor.eat_token(&Token::LParen) {
        parameter_types = cursor.list(|cursor| Ok(cursor.sql_type()?.0))?;
        cursor.expect_token(&Token::RParen)?;
    }
    cursor.expect("AS")?;
    if !cursor.peek_query() && !starts_with(cursor, &["INSERT", "UPDATE", "DELETE", "SUBSCRIBE"]) {
        return Err(cursor.expected("SELECT, VALUES, INSERT, UPDATE, DELETE or SUBSCRIBE"));
    }
    let statement = parse_rest(cursor)?;
    Ok(Statement::Prepare(Box::new(Prepare { name, parameter_types, statement })))
}

/// `EXECUTE name [(expression, ...)]`.
pub(super) fn execute(cursor: &mut Cursor<'_>) -> Result<Statement> {
    cursor.expect("EXECUTE")?;
    let name = cursor.ident()?;
    let mut arguments = Vec::new();
    if cursor.eat_token(&Token::LParen) {
        arguments = cursor.list(Cursor::expression)?;
        cursor.expect_token(&Token::RParen)?;
    }
    Ok(Statement::Execute(Box::new(Execute { name, arguments })))
}

/// `DEALLOCATE [PREPARE] name | ALL`.
pub(super) fn deallocate(cursor: &mut Cursor<'_>) -> Result<Statement> {
    cursor.expect("DEALLOCATE")?;
    cursor.eat("PREPARE");
    let all = cursor.eat("ALL");
    Ok(Statement::Deallocate(if all { None } else { Some(cursor.ident()?) }))
}

/// `DECLARE name [INSENSITIVE | ASENSITIVE | NO SCROLL]... CURSOR [WITH | WITHOUT HOLD] FOR query`.
pub(super) fn declare(cursor: &mut Cursor<'_>) -> Result<Statement> {
    cursor.expect("DECLARE")?;
    let name = cursor.ident()?;
    loop {
        if cursor.peek_words(&["BINARY"]) {
            return Err(
                cursor.unsupported("a BINARY cursor", "Ask for binary results when binding.")
            );
        }
        if cursor.peek_words(&["SCROLL"]) {
            return Err(
                cursor.unsupported("a SCROLL cursor", "Declare it NO SCROLL and go forward.")
            );
        }
        let option = cursor.eat_words(&["NO", "SCROLL"])
            || cursor.eat_one_of(&["INSENSITIVE", "ASENSITIVE"]).is_some();
        if !option {
            break;
        }
    }
    if cursor.peek_words(&["SUBSCRIPTION"]) {
        return Err(cursor.unsupported(
            "a SUBSCRIPTION cursor",
            "Write DECLARE name CURSOR FOR SUBSCRIBE TO relation.",
        ));
    }
    cursor.expect("CURSOR")?;
    let hold = match cursor.eat_one_of(&["WITH", "WITHOUT"]) {
        None => false,
        Some(word) => {
            cursor.expect("HOLD")?;
            word == "WITH"
        }
    };
    cursor.expect("FOR")?;
    if !cursor.peek_query() && !starts_with(cursor, &["SUBSCRIBE"]) {
        return Err(cursor.expected("a query or SUBSCRIBE"));
    }
    let statement = parse_rest(cursor)?;
    Ok(Statement::DeclareCursor(Box::new(DeclareCursor { name, hold, statement })))
}

/// `FETCH | MOVE [direction] [FROM | IN] cursor [WITH (timeout = 'interval')]`.
pub(super) fn fetch(cursor: &mut Cursor<'_>) -> Result<Statement> {
    let moves = cursor.eat("MOVE");
    if !moves {
        cursor.expect("FETCH")?;
    }
    let count = fetch_count(cursor)?;
    cursor.eat_one_of(&["FROM", "IN"]);
    let name = cursor.ident()?;
    let mut timeout = None;
    if cursor.eat("WITH") {
        cursor.expect_token(&Token::LParen)?;
        cursor.expect("TIMEOUT")?;
        cursor.eat_token(&Token::Eq);
        timeout = Some(cursor.string()?);
        cursor.expect_token(&Token::RParen)?;
    }
    Ok(Statement::Fetch(Box::new(Fetch { cursor: name, count, moves, timeout })))
}

fn fetch_count(cursor: &mut Cursor<'_>) -> Result<FetchCount> {
    // A direction's word may also be the cursor's name.
    let next = &cursor.peek_nth(1).token;
    let is_name = matches!(next, Token::EOF) || is_word(next, "WITH");
    if is_name {
        return Ok(FetchCount::Rows(1));
    }
    let backward = ["PRIOR", "FIRST", "LAST", "ABSOLUTE", "RELATIVE", "BACKWARD"];
    if cursor.peek_one_of(&backward).is_some() || cursor.peek_is(&Token::Minus) {
        return Err(cursor.unsupported("fetching backward", "Cursors go forward only."));
    }
    if cursor.eat("NEXT") {
        return Ok(FetchCount::Rows(1));
    }
    let forward = cursor.eat("FORWARD");
    if cursor.eat("ALL") {
        return Ok(FetchCount::All);
    }
    if matches!(cursor.peek().token, Token::Number(_, _)) {
        return Ok(FetchCount::Rows(cursor.unsigned()?));
    }
    if forward && cursor.peek_is(&Token::Minus) {
        return Err(cursor.unsupported("fetching backward", "Cursors go forward only."));
    }
    Ok(FetchCount::Rows(1))
}

/// `CLOSE name | ALL`.
pub(super) fn close(cursor: &mut Cursor<'_>) -> Result<Statement> {
    cursor.expect("CLOSE")?;
    let all = cursor.eat("ALL");
    Ok(Statement::CloseCursor(if all { None } else { Some(cursor.ident()?) }))
}
