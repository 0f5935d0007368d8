//! CREATE TABLE and CREATE SOURCE: columns, keys, watermarks, options, formats.
//!
//! Both take the same definition. A table with a `connector` option is a source, as in Flink.
//! Postgres's, RisingWave's and Flink's spellings may be mixed.

use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, ColumnOption, DataType, Ident, StructBracketKind, StructField,
};
use datafusion::sql::sqlparser::tokenizer::{Span, Token};

use crate::sql::parse::cursor::{Cursor, is_word};
use crate::sql::parse::ddl::{Create, if_not_exists};
use crate::sql::parse::name::is_reserved;
use crate::sql::parse::query;
use crate::sql::parse::types::{modifier, sql_type_of};
use crate::sql::statement::{
    ColumnDef, CreateSource, CreateTable, Expression, FormatClause, Name, OnConflict, PrimaryKey,
    QueryText, Statement, Watermark, WithOption,
};
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::{Modifier, SqlType};

/// What a definition says, whatever it is of.
#[derive(Default)]
struct Definition {
    /// The relation, for messages.
    relation: String,
    columns: Vec<ColumnDef>,
    primary_key: Option<PrimaryKey>,
    watermark: Option<Watermark>,
    append_only: Option<usize>,
    on_conflict: Option<(OnConflict, usize)>,
    comment: Option<String>,
    options: Vec<WithOption>,
    format: Option<FormatClause>,
    query: Option<QueryText>,
    with_data: bool,
}

/// What stands behind `CREATE [OR REPLACE] TABLE | SOURCE`.
pub(super) fn create(
    cursor: &mut Cursor<'_>,
    create: Create,
    spelled_table: bool,
) -> Result<Statement> {
    let if_not_exists = if_not_exists(cursor);
    let name = cursor.name()?;
    let relation = name.name.clone();
    let mut definition = Definition { relation, with_data: true, ..Definition::default() };
    let listed = cursor.eat_token(&Token::LParen);
    if listed {
        elements(cursor, &mut definition)?;
    }
    clauses(cursor, &mut definition)?;
    let connector = definition.options.iter().any(|option| option.name == "connector");
    if !spelled_table || connector {
        return source(cursor, name, create, if_not_exists, spelled_table, definition);
    }
    if let Some(format) = &definition.format {
        return Err(Error::user(
            SqlState::SYNTAX_ERROR,
            "FORMAT is for sources, and this table has no connector",
        )
        .hint("Add WITH (connector = '...').")
        .position(format.position));
    }
    if definition.query.is_none() {
        if !listed {
            return Err(cursor.expected("("));
        }
        typed_columns(&definition.columns)?;
    } else if let Some(column) = definition.columns.iter().find(|c| c.sql_type.is_some()) {
        return Err(Error::user(
            SqlState::SYNTAX_ERROR,
            format!("column \"{}\" of CREATE TABLE AS has a type", column.name),
        )
        .hint("List names only, and cast in the query.")
        .position(column.position));
    }
    let Definition { columns, primary_key, watermark, options, query, with_data, comment, .. } =
        definition;
    Ok(Statement::CreateTable(Box::new(CreateTable {
        name,
        or_replace: create.or_replace,
        if_not_exists,
        columns,
        primary_key,
        watermark,
        append_only: definition.append_only.is_some(),
        on_conflict: definition.on_conflict.map(|(action, _)| action),
        options,
        comment,
        query,
        with_data,
    })))
}

fn source(
    cursor: &Cursor<'_>,
    name: Name,
    create: Create,
    if_not_exists: bool,
    spelled_table: bool,
    definition: Definition,
) -> Result<Statement> {
    let misplaced = |what: &str, position, hint: &str| {
        Err(Error::unsupported(what).hint(hint).position(position))
    };
    if let Some((_, position)) = definition.on_conflict {
        return misplaced(
            "ON CONFLICT of a source",
            position,
            "With a PRIMARY KEY, a later row replaces the earlier one.",
        );
    }
    if let Some(position) = definition.append_only {
        return misplaced(
            "APPEND ONLY of a source",
            position,
            "Leave it out: a source without PRIMARY KEY only appends.",
        );
    }
    if let Some(query) = &definition.query {
        return misplaced(
            "a source AS a query",
            query.position,
            "Use CREATE MATERIALIZED VIEW over a source.",
        );
    }
    if !definition.options.iter().any(|option| option.name == "connector") {
        let names: Vec<&str> = definition.options.iter().map(|o| o.name.as_str()).collect();
        let error =
            Error::user(SqlState::INVALID_PARAMETER_VALUE, "option \"connector\" is missing")
                .hint("Add WITH (connector = '...'); SHOW CONNECTORS lists them.")
                .position(definition.options.first().map_or(cursor.position(), |o| o.position));
        return Err(match names.is_empty() {
            true => cursor.expected("WITH").hint("A source needs WITH (connector = '...')."),
            false => error,
        });
    }
    typed_columns(&definition.columns)?;
    let Definition { columns, primary_key, watermark, options, format, comment, .. } = definition;
    Ok(Statement::CreateSource(Box::new(CreateSource {
        name,
        or_replace: create.or_replace,
        if_not_exists,
        columns,
        primary_key,
        watermark,
        options,
        format,
        comment,
        spelled_table,
    })))
}

/// Without a query every column has a type or an expression.
fn typed_columns(columns: &[ColumnDef]) -> Result<()> {
    let untyped = columns.iter().find(|c| c.sql_type.is_none() && c.generated.is_none());
    match untyped {
        None => Ok(()),
        Some(column) => Err(Error::user(
            SqlState::SYNTAX_ERROR,
            format!("column \"{}\" has no type", column.name),
        )
        .hint("Write the type behind the name.")
        .position(column.position)),
    }
}

/// Columns and constraints, up to and with the closing parenthesis.
fn elements(cursor: &mut Cursor<'_>, definition: &mut Definition) -> Result<()> {
    if cursor.eat_token(&Token::RParen) {
        return Ok(());
    }
    loop {
        element(cursor, definition)?;
        if cursor.eat_token(&Token::RParen) {
            break;
        }
        if !cursor.eat_token(&Token::Comma) {
            return Err(cursor.expected(", or )"));
        }
        if cursor.peek_is(&Token::RParen) {
            return Err(cursor.syntax_error().hint("Remove the comma before it."));
        }
    }
    check_names(definition)
}

fn element(cursor: &mut Cursor<'_>, definition: &mut Definition) -> Result<()> {
    if cursor.eat("CONSTRAINT") {
        cursor.ident()?;
        return match constraint(cursor, definition)? {
            true => Ok(()),
            false => Err(cursor.expected("PRIMARY KEY")),
        };
    }
    if constraint(cursor, definition)? {
        return Ok(());
    }
    if cursor.peek_words(&["WATERMARK", "FOR"]) {
        let watermark = watermark(cursor)?;
        let position = watermark.position;
        return match definition.watermark.replace(watermark) {
            None => Ok(()),
            Some(_) => {
                Err(Error::unsupported("a second WATERMARK").hint("Keep one.").position(position))
            }
        };
    }
    if cursor.peek_words(&["LIKE"]) {
        return Err(cursor.unsupported("LIKE", "Write the columns, or use CREATE TABLE AS."));
    }
    column(cursor, definition)
}

/// A table constraint, if one stands here.
fn constraint(cursor: &mut Cursor<'_>, definition: &mut Definition) -> Result<bool> {
    let position = cursor.position();
    let opens = |n: usize, cursor: &Cursor<'_>| cursor.peek_nth(n).token == Token::LParen;
    if cursor.peek_words(&["PRIMARY", "KEY"]) {
        cursor.eat_words(&["PRIMARY", "KEY"]);
        let columns = cursor.ident_list()?;
        let not_enforced = enforcement(cursor)?;
        set_primary_key(definition, PrimaryKey { columns, not_enforced, position })?;
        return Ok(true);
    }
    let refused = if cursor.peek_words(&["UNIQUE"]) {
        Some(("UNIQUE", "Use PRIMARY KEY."))
    } else if cursor.peek_words(&["CHECK"]) && opens(1, cursor) {
        Some(("CHECK", "Check the rows in a view: CREATE VIEW bad AS SELECT ... WHERE NOT (...)."))
    } else if cursor.peek_words(&["FOREIGN", "KEY"]) {
        Some(("FOREIGN KEY", "Find orphans with a view that uses NOT EXISTS."))
    } else if cursor.peek_words(&["EXCLUDE"]) && (opens(1, cursor) || opens(2, cursor)) {
        Some(("EXCLUDE", "Use PRIMARY KEY."))
    } else {
        None
    };
    match refused {
        Some((what, hint)) => Err(cursor.unsupported(&format!("constraint {what}"), hint)),
        None => Ok(false),
    }
}

/// `[NOT ENFORCED | ENFORCED]`; true for NOT ENFORCED.
fn enforcement(cursor: &mut Cursor<'_>) -> Result<bool> {
    if cursor.eat_words(&["NOT", "ENFORCED"]) {
        return Ok(true);
    }
    cursor.eat("ENFORCED");
    if cursor.peek_one_of(&["DEFERRABLE", "INITIALLY"]).is_some()
        || cursor.peek_words(&["NOT", "DEFERRABLE"])
    {
        return Err(cursor.unsupported("a deferrable constraint", "Constraints hold at once."));
    }
    Ok(false)
}

fn set_primary_key(definition: &mut Definition, key: PrimaryKey) -> Result<()> {
    let position = key.position;
    match definition.primary_key.replace(key) {
        None => Ok(()),
        Some(_) => Err(Error::user(
            SqlState::INVALID_TABLE_DEFINITION,
            format!("multiple primary keys for table \"{}\" are not allowed", definition.relation),
        )
        .hint("List all key columns in one PRIMARY KEY (a, b).")
        .position(position)),
    }
}

/// `WATERMARK FOR column AS expression`.
fn watermark(cursor: &mut Cursor<'_>) -> Result<Watermark> {
    let position = cursor.position();
    cursor.expect_words(&["WATERMARK", "FOR"])?;
    let column = cursor.ident()?;
    cursor.expect("AS")?;
    Ok(Watermark { column, expression: cursor.expression()?, position })
}

/// Names are unique, and the key's and watermark's columns exist.
fn check_names(definition: &mut Definition) -> Result<()> {
    for (i, column) in definition.columns.iter().enumerate() {
        if definition.columns[..i].iter().any(|other| other.name == column.name) {
            return Err(column_twice(&column.name).position(column.position));
        }
    }
    let missing = |column: &str, of: &str, position| {
        Err(Error::user(
            SqlState::UNDEFINED_COLUMN,
            format!("column \"{column}\" named in {of} does not exist"),
        )
        .position(position))
    };
    let exists = |name: &str| definition.columns.iter().any(|c| c.name == *name);
    // Without columns the connector or the query has them.
    let known = !definition.columns.is_empty();
    if let Some(key) = &definition.primary_key {
        for (i, name) in key.columns.iter().enumerate() {
            if key.columns[..i].contains(name) {
                return Err(Error::user(
                    SqlState::DUPLICATE_COLUMN,
                    format!("column \"{name}\" appears twice in primary key constraint"),
                )
                .position(key.position));
            }
            if known && !exists(name) {
                return missing(name, "key", key.position);
            }
        }
    }
    if let Some(watermark) = &definition.watermark
        && known
        && !exists(&watermark.column)
    {
        return missing(&watermark.column, "WATERMARK", watermark.position);
    }
    if let Some(key) = &definition.primary_key {
        for column in &mut definition.columns {
            column.not_null |= key.columns.contains(&column.name);
        }
    }
    Ok(())
}

/// SQLSTATE 42701.
pub(super) fn column_twice(name: &str) -> Error {
    Error::user(SqlState::DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once"))
}

fn column(cursor: &mut Cursor<'_>, definition: &mut Definition) -> Result<()> {
    let position = cursor.position();
    let name = cursor.ident()?;
    let mut column = ColumnDef {
        name,
        sql_type: None,
        modifier: None,
        not_null: false,
        default: None,
        generated: None,
        comment: None,
        position,
    };
    let ends = cursor.peek_is(&Token::Comma) || cursor.peek_is(&Token::RParen);
    if !ends && !cursor.peek_words(&["AS"]) {
        let (sql_type, modifier) = cursor.sql_type()?;
        column.sql_type = Some(sql_type);
        column.modifier = modifier;
    }
    while column_option(cursor, definition, &mut column)? {}
    if let (Some(_), Some(generated)) = (&column.default, &column.generated) {
        return Err(Error::user(
            SqlState::SYNTAX_ERROR,
            format!(
                "both default and generation expression specified for column \"{}\"",
                column.name
            ),
        )
        .position(generated.position));
    }
    definition.columns.push(column);
    Ok(())
}

/// One option of a column, if one stands here.
fn column_option(
    cursor: &mut Cursor<'_>,
    definition: &mut Definition,
    column: &mut ColumnDef,
) -> Result<bool> {
    if cursor.eat("CONSTRAINT") {
        cursor.ident()?;
    }
    let position = cursor.position();
    if cursor.eat("NOT") {
        cursor.expect("NULL")?;
        column.not_null = true;
    } else if cursor.eat("NULL") {
        // The default, said aloud.
        if column.not_null {
            return Err(Error::user(
                SqlState::SYNTAX_ERROR,
                format!("conflicting NULL/NOT NULL declarations for column \"{}\"", column.name),
            )
            .position(position));
        }
    } else if cursor.eat("PRIMARY") {
        cursor.expect("KEY")?;
        let not_enforced = enforcement(cursor)?;
        let columns = vec![column.name.clone()];
        set_primary_key(definition, PrimaryKey { columns, not_enforced, position })?;
    } else if cursor.peek_words(&["DEFAULT"]) {
        let default = default_expression(cursor)?;
        once(&mut column.default, default, "default values", &column.name)?;
    } else if cursor.eat_words(&["GENERATED", "ALWAYS", "AS"]) {
        if cursor.peek_words(&["IDENTITY"]) {
            return Err(identity(cursor));
        }
        cursor.expect_token(&Token::LParen)?;
        let generated = cursor.expression()?;
        cursor.expect_token(&Token::RParen)?;
        // Columns of materialized rows are stored whatever is said.
        cursor.eat_one_of(&["STORED", "VIRTUAL"]);
        once(&mut column.generated, generated, "generation clauses", &column.name)?;
    } else if cursor.eat("AS") {
        let generated = cursor.expression()?;
        once(&mut column.generated, generated, "generation clauses", &column.name)?;
    } else if cursor.eat("COMMENT") {
        column.comment = Some(cursor.string()?);
    } else if cursor.peek_words(&["COLLATE"]) {
        collation(cursor)?;
    } else {
        return refused_option(cursor);
    }
    Ok(true)
}

fn once<T>(slot: &mut Option<Expression>, value: Expression, what: T, column: &str) -> Result<()>
where
    T: std::fmt::Display,
{
    let position = value.position;
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Error::user(
            SqlState::SYNTAX_ERROR,
            format!("multiple {what} specified for column \"{column}\""),
        )
        .position(position)),
    }
}

fn identity(cursor: &Cursor<'_>) -> Error {
    cursor.unsupported(
        "an identity column",
        "Supply the values, or use a uuid DEFAULT gen_random_uuid().",
    )
}

/// `COLLATE "C"` and its like say what is the case anyway.
fn collation(cursor: &mut Cursor<'_>) -> Result<()> {
    let error =
        cursor.unsupported("this collation", "Texts compare by their bytes, as in COLLATE \"C\".");
    cursor.advance();
    let Some(name) = cursor.parts()?.pop() else { return Err(error) };
    match name.as_str() {
        "C" | "POSIX" | "default" | "ucs_basic" => Ok(()),
        _ => Err(error),
    }
}

/// Options of a column that are known and not supported; false where there is none.
fn refused_option(cursor: &Cursor<'_>) -> Result<bool> {
    if cursor.peek_words(&["GENERATED", "BY", "DEFAULT"]) {
        return Err(identity(cursor));
    }
    const REFUSED: [(&str, &str); 5] = [
        ("UNIQUE", "Use PRIMARY KEY."),
        ("CHECK", "Check the rows in a view: CREATE VIEW bad AS SELECT ... WHERE NOT (...)."),
        ("REFERENCES", "Find orphans with a view that uses NOT EXISTS."),
        ("METADATA", "Leave the column out; connectors name their own columns."),
        ("AUTO_INCREMENT", "Supply the values, or use a uuid DEFAULT gen_random_uuid()."),
    ];
    match REFUSED.iter().find(|(word, _)| cursor.peek_words(&[word])) {
        Some((word, hint)) => Err(cursor.unsupported(&format!("column option {word}"), hint)),
        None => Ok(false),
    }
}

/// `DEFAULT expression`. sqlparser's own reading of the option, because in it NOT NULL and
/// COLLATE end the expression.
fn default_expression(cursor: &mut Cursor<'_>) -> Result<Expression> {
    let start = cursor.peek_nth(1).span.start;
    let option = cursor.parser.parse_optional_column_option().map_err(|e| cursor.raise(e))?;
    let Some(ColumnOption::Default(mut ast)) = option else {
        return Err(Error::internal("DEFAULT was parsed as another option"));
    };
    query::check_expr(&mut ast).map_err(|e| e.at(cursor))?;
    let sql = cursor.text.slice(Span::new(start, cursor.last_end())).to_owned();
    Ok(Expression { ast, sql, position: cursor.text.position(start) })
}

/// What may follow the columns, in any order.
fn clauses(cursor: &mut Cursor<'_>, definition: &mut Definition) -> Result<()> {
    loop {
        let position = cursor.position();
        if cursor.eat("APPEND") {
            cursor.expect("ONLY")?;
            definition.append_only = Some(position);
        } else if cursor.eat_words(&["ON", "CONFLICT"]) {
            definition.on_conflict = Some((conflict_action(cursor)?, position));
        } else if cursor.peek_words(&["WITH"]) {
            let options = with_options(cursor)?;
            definition.options.extend(options);
            repeated_option(&definition.options)?;
        } else if cursor.peek_words(&["FORMAT"]) {
            definition.format = format_clause(cursor)?;
        } else if cursor.eat("COMMENT") {
            cursor.eat_token(&Token::Eq);
            definition.comment = Some(cursor.string()?);
        } else {
            break;
        }
    }
    refused_clause(cursor)?;
    if cursor.eat("AS") {
        definition.query = Some(cursor.query()?);
        if cursor.eat("WITH") {
            definition.with_data = !cursor.eat("NO");
            cursor.expect("DATA")?;
        }
    }
    Ok(())
}

/// `OVERWRITE | IGNORE | DO NOTHING | DO UPDATE FULL`, RisingWave's spellings.
fn conflict_action(cursor: &mut Cursor<'_>) -> Result<OnConflict> {
    if cursor.eat("OVERWRITE") || cursor.eat_words(&["DO", "UPDATE", "FULL"]) {
        return Ok(OnConflict::Update);
    }
    if cursor.eat("IGNORE") {
        return Ok(OnConflict::Ignore);
    }
    if cursor.eat("DO") {
        if cursor.eat("NOTHING") {
            return Ok(OnConflict::Ignore);
        }
        if !cursor.peek_words(&["UPDATE"]) {
            return Err(cursor.expected("NOTHING"));
        }
        return Err(cursor.unsupported(
            "this conflict action",
            "Use ON CONFLICT OVERWRITE or ON CONFLICT DO NOTHING.",
        ));
    }
    Err(cursor.expected("OVERWRITE or DO NOTHING"))
}

fn refused_clause(cursor: &Cursor<'_>) -> Result<()> {
    const REFUSED: [(&[&str], &str); 9] = [
        (&["PARTITION", "BY"], "Rows are spread over the workers by themselves."),
        (&["PARTITIONED", "BY"], "Rows are spread over the workers by themselves."),
        (&["DISTRIBUTED"], "Rows are spread over the workers by themselves."),
        (&["INHERITS"], "Use UNION ALL in a view."),
        (&["TABLESPACE"], "Storage is one place, chosen when the server starts."),
        (&["INCLUDE"], "Connectors name their own columns."),
        (&["LIKE"], "Write the columns, or use CREATE TABLE AS."),
        (&["FROM"], "Write the columns and WITH (connector = '...')."),
        (&["USING"], "Storage is one place, chosen when the server starts."),
    ];
    match REFUSED.iter().find(|(words, _)| cursor.peek_words(words)) {
        Some((words, hint)) => Err(cursor.unsupported(&format!("{} here", words.join(" ")), hint)),
        None => Ok(()),
    }
}

/// `[WITH (name [= value], ...)]`.
pub(super) fn with_options(cursor: &mut Cursor<'_>) -> Result<Vec<WithOption>> {
    if !cursor.eat("WITH") {
        return Ok(vec![]);
    }
    options_in_parens(cursor)
}

/// `(name = value, ...)`.
pub(super) fn options_in_parens(cursor: &mut Cursor<'_>) -> Result<Vec<WithOption>> {
    cursor.expect_token(&Token::LParen)?;
    let options = option_list(cursor)?;
    repeated_option(&options)?;
    Ok(options)
}

/// Options up to and with the closing parenthesis.
fn option_list(cursor: &mut Cursor<'_>) -> Result<Vec<WithOption>> {
    let mut options = Vec::new();
    if cursor.eat_token(&Token::RParen) {
        return Ok(options);
    }
    loop {
        options.push(option(cursor)?);
        if cursor.eat_token(&Token::RParen) {
            return Ok(options);
        }
        if !cursor.eat_token(&Token::Comma) {
            let error = cursor.expected(", or )");
            return Err(error.hint("Put the value in single quotes if it is more than a word."));
        }
    }
}

fn option(cursor: &mut Cursor<'_>) -> Result<WithOption> {
    let position = cursor.position();
    let name = match cursor.peek_string() {
        Some(_) => cursor.string()?.to_ascii_lowercase(),
        None => {
            let mut name = option_word(cursor)?;
            while cursor.eat_token(&Token::Period) {
                name.push('.');
                name.push_str(&option_word(cursor)?);
            }
            name
        }
    };
    if !cursor.eat_token(&Token::Eq) {
        return Ok(WithOption { name, value: "true".to_owned(), position });
    }
    Ok(WithOption { name, value: option_value(cursor)?, position })
}

/// A part of an option's name: any word, folded.
pub(super) fn option_word(cursor: &mut Cursor<'_>) -> Result<String> {
    let word = match &cursor.peek().token {
        Token::Word(word) if word.quote_style.is_some() => word.value.clone(),
        Token::Word(word) => word.value.to_ascii_lowercase(),
        _ => return Err(cursor.expected("an option's name")),
    };
    cursor.advance();
    Ok(word)
}

fn option_value(cursor: &mut Cursor<'_>) -> Result<String> {
    if cursor.peek_string().is_some() {
        return cursor.string();
    }
    if is_word(&cursor.peek().token, "INTERVAL") && cursor.peek_nth_string(1) {
        cursor.advance();
        return interval_text(cursor);
    }
    let sign = if cursor.eat_token(&Token::Minus) { "-" } else { "" };
    match &cursor.peek().token {
        Token::Number(digits, false) => {
            let value = format!("{sign}{digits}");
            cursor.advance();
            Ok(value)
        }
        Token::Word(_) if sign.is_empty() => option_word(cursor),
        _ => Err(cursor.expected("a value")),
    }
}

/// Behind INTERVAL: `'5' MINUTE` as `5 minute`, `'5 minutes'` as it stands.
pub(super) fn interval_text(cursor: &mut Cursor<'_>) -> Result<String> {
    let amount = cursor.string()?;
    const UNITS: [&str; 16] = [
        "YEAR",
        "YEARS",
        "MONTH",
        "MONTHS",
        "WEEK",
        "WEEKS",
        "DAY",
        "DAYS",
        "HOUR",
        "HOURS",
        "MINUTE",
        "MINUTES",
        "SECOND",
        "SECONDS",
        "MILLISECOND",
        "MILLISECONDS",
    ];
    Ok(match cursor.eat_one_of(&UNITS) {
        Some(unit) => format!("{amount} {}", unit.to_ascii_lowercase()),
        None => amount,
    })
}

fn repeated_option(options: &[WithOption]) -> Result<()> {
    for (i, option) in options.iter().enumerate() {
        if options[..i].iter().any(|other| other.name == option.name) {
            return Err(Error::user(
                SqlState::SYNTAX_ERROR,
                format!("option \"{}\" provided more than once", option.name),
            )
            .position(option.position));
        }
    }
    Ok(())
}

/// `[FORMAT word ENCODE word [(name = value, ...)]]`.
pub(super) fn format_clause(cursor: &mut Cursor<'_>) -> Result<Option<FormatClause>> {
    let position = cursor.position();
    if !cursor.eat("FORMAT") {
        return Ok(None);
    }
    let format = cursor.ident()?;
    cursor.expect("ENCODE")?;
    let encode = cursor.ident()?;
    let options = match cursor.eat_token(&Token::LParen) {
        true => option_list(cursor)?,
        false => vec![],
    };
    repeated_option(&options)?;
    Ok(Some(FormatClause { format, encode, options, position }))
}

impl Cursor<'_> {
    /// A type, and what its name says in parentheses, such as the n of `varchar(n)`.
    pub(super) fn sql_type(&mut self) -> Result<(SqlType, Option<Modifier>)> {
        let position = self.position();
        let data_type = self.data_type()?;
        let sql_type = sql_type_of(&data_type).map_err(|e| e.position(position))?;
        Ok((sql_type, modifier(&data_type)))
    }

    /// sqlparser's types, and `ROW(name type, ...)`, `type ARRAY`.
    fn data_type(&mut self) -> Result<DataType> {
        let next = &self.peek().token;
        let is_type = match next {
            Token::Word(word) => {
                word.quote_style.is_some() || is_word(next, "ARRAY") || !is_reserved(&word.value)
            }
            _ => false,
        };
        if !is_type {
            return Err(self.expected("a type"));
        }
        let angle = self.peek_nth(1).token == Token::Lt;
        if angle && self.peek_one_of(&["MAP", "MULTISET"]).is_some() {
            return Err(
                self.unsupported("type map", "Use jsonb, or an array of STRUCT<key, value>.")
            );
        }
        let row = is_word(next, "ROW") && self.peek_nth(1).token == Token::LParen;
        let mut data_type = match row {
            true => self.row_type()?,
            false => self.parser.parse_data_type().map_err(|e| self.raise(e))?,
        };
        while self.eat("ARRAY") {
            if self.eat_token(&Token::LBracket) {
                self.unsigned()?;
                self.expect_token(&Token::RBracket)?;
            }
            data_type = array_of(data_type);
        }
        while row && self.eat_token(&Token::LBracket) {
            self.expect_token(&Token::RBracket)?;
            data_type = array_of(data_type);
        }
        Ok(data_type)
    }

    fn row_type(&mut self) -> Result<DataType> {
        self.advance();
        self.expect_token(&Token::LParen)?;
        let fields = self.list(|cursor| {
            let name = cursor.ident()?;
            let field_type = cursor.data_type()?;
            Ok(StructField {
                field_name: Some(Ident::with_quote('"', name)),
                field_type,
                options: None,
            })
        })?;
        self.expect_token(&Token::RParen)?;
        Ok(DataType::Struct(fields, StructBracketKind::Parentheses))
    }

    fn peek_nth_string(&self, n: usize) -> bool {
        matches!(self.peek_nth(n).token, Token::SingleQuotedString(_))
    }
}

fn array_of(item: DataType) -> DataType {
    DataType::Array(ArrayElemTypeDef::SquareBracket(Box::new(item), None))
}
