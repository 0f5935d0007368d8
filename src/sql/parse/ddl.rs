//! CREATE (but for tables and sources, see `table.rs`), DROP, ALTER, COMMENT.

use datafusion::sql::sqlparser::tokenizer::Token;

use crate::sql::parse::cursor::{BARRIER, Cursor, OPTIONS};
use crate::sql::parse::{data, hints, table};
use crate::sql::statement::{
    Alter, AlterAction, CommentOn, CreateDatabase, CreateIndex, CreateMaterializedView,
    CreateSavepoint, CreateSchema, CreateSink, CreateView, DropObjects, Emit, IndexKey, Name, Noun,
    SinkInput, Statement, Transfer, TransferWhat,
};
use crate::types::error::{Error, Result, SqlState};

/// What stands between CREATE and the kind.
#[derive(Clone, Copy)]
pub(super) struct Create {
    pub(super) or_replace: bool,
}

/// CREATE, by kind.
pub(super) fn create(cursor: &mut Cursor<'_>) -> Result<Statement> {
    cursor.expect("CREATE")?;
    let create = Create { or_replace: cursor.eat_words(&["OR", "REPLACE"]) };
    let temporary = ["TEMPORARY", "TEMP", "UNLOGGED", "GLOBAL", "LOCAL", "TRANSIENT"];
    if let Some(word) = cursor.peek_one_of(&temporary) {
        return Err(cursor.unsupported(
            &format!("CREATE {word}"),
            "Create an ordinary object, in a schema of its own, and drop it when it has served.",
        ));
    }
    if cursor.eat("MATERIALIZED") {
        cursor.expect("VIEW")?;
        return materialized_view(cursor, create);
    }
    let plain = |cursor: &Cursor<'_>| match create.or_replace {
        true => Err(cursor.unsupported("OR REPLACE here", "Drop the object first.")),
        false => Ok(()),
    };
    let kinds =
        ["TABLE", "SOURCE", "VIEW", "SINK", "SCHEMA", "DATABASE", "INDEX", "SAVEPOINT", "UNIQUE"];
    match cursor.peek_one_of(&kinds) {
        Some(kind @ ("SCHEMA" | "DATABASE" | "INDEX" | "SAVEPOINT")) => {
            plain(cursor)?;
            cursor.advance();
            match kind {
                "SCHEMA" => schema(cursor),
                "DATABASE" => database(cursor),
                "INDEX" => index(cursor),
                _ => savepoint(cursor),
            }
        }
        Some("UNIQUE") => {
            Err(cursor.unsupported("a unique index", "Declare a PRIMARY KEY on the table."))
        }
        Some(kind) => {
            cursor.advance();
            match kind {
                "VIEW" => view(cursor, create),
                "SINK" => sink(cursor, create),
                _ => table::create(cursor, create, kind == "TABLE"),
            }
        }
        None => Err(unknown_kind(cursor)),
    }
}

/// Kinds that others have, and misspelt ones.
fn unknown_kind(cursor: &Cursor<'_>) -> Error {
    const KNOWN: [(&str, &str); 30] = [
        ("STREAM", "Use CREATE SOURCE."),
        ("EXTERNAL", "Use CREATE SOURCE with the file connector."),
        ("FOREIGN", "Use CREATE SOURCE."),
        ("SERVER", "Use CREATE SOURCE."),
        ("CONNECTION", "Give the options to each CREATE SOURCE."),
        ("SECRET", "Give the options to each CREATE SOURCE."),
        ("SUBSCRIPTION", "SUBSCRIBE follows the changes of a table or query."),
        ("PUBLICATION", "SUBSCRIBE follows the changes of a table or query."),
        ("CATALOG", "Use CREATE DATABASE or CREATE SCHEMA."),
        ("CLUSTER", "All views share the server's workers."),
        ("FUNCTION", "There are no user-defined functions yet."),
        ("AGGREGATE", "There are no user-defined functions yet."),
        ("PROCEDURE", "There are no procedures."),
        ("TRIGGER", "Use CREATE MATERIALIZED VIEW, or SUBSCRIBE."),
        ("RULE", "Use CREATE VIEW."),
        ("EVENT", "Use SUBSCRIBE."),
        ("TYPE", "Use STRUCT<name type, ...> or jsonb."),
        ("DOMAIN", "Use the base type."),
        ("SEQUENCE", "Supply the values, or use a uuid DEFAULT gen_random_uuid()."),
        ("EXTENSION", "There are no extensions."),
        ("LANGUAGE", "There are no procedural languages."),
        ("ROLE", "There are no roles yet: every user may do everything."),
        ("USER", "There are no roles yet: every user may do everything."),
        ("GROUP", "There are no roles yet: every user may do everything."),
        ("POLICY", "There are no roles yet: every user may do everything."),
        ("TABLESPACE", "Storage is one place, chosen when the server starts."),
        ("STATISTICS", "Statistics are kept without it."),
        ("COLLATION", "Texts compare by their bytes."),
        ("OPERATOR", "There are no user-defined operators."),
        ("CAST", "There are no user-defined casts."),
    ];
    if let Some((kind, hint)) = KNOWN.iter().find(|(kind, _)| cursor.peek_words(&[kind])) {
        return cursor.unsupported(&format!("CREATE {kind}"), hint);
    }
    const KINDS: [&str; 8] =
        ["TABLE", "SOURCE", "VIEW", "MATERIALIZED", "SINK", "SCHEMA", "DATABASE", "INDEX"];
    let error = cursor.syntax_error();
    match &cursor.peek().token {
        Token::Word(word) => match hints::nearest(&word.value, &KINDS) {
            Some(meant) => error.hint(format!("Perhaps you meant {meant}.")),
            None => error,
        },
        _ => error,
    }
}

/// `[IF NOT EXISTS]`.
pub(super) fn if_not_exists(cursor: &mut Cursor<'_>) -> bool {
    cursor.eat_words(&["IF", "NOT", "EXISTS"])
}

/// `[(name, ...)]`, each once.
fn column_names(cursor: &mut Cursor<'_>) -> Result<Vec<String>> {
    if !cursor.peek_is(&Token::LParen) {
        return Ok(vec![]);
    }
    let position = cursor.position();
    let columns = cursor.ident_list()?;
    for (i, name) in columns.iter().enumerate() {
        if columns[..i].contains(name) {
            return Err(table::column_twice(name).position(position));
        }
    }
    Ok(columns)
}

fn view(cursor: &mut Cursor<'_>, create: Create) -> Result<Statement> {
    let if_not_exists = if_not_exists(cursor);
    let name = cursor.name()?;
    let columns = column_names(cursor)?;
    let options = table::with_options(cursor)?;
    cursor.expect("AS")?;
    let query = cursor.query()?;
    if cursor.peek_words(&["WITH"]) {
        return Err(cursor
            .unsupported("WITH CHECK OPTION", "Views are for reading. Options stand before AS."));
    }
    let or_replace = create.or_replace;
    let view = CreateView { name, or_replace, if_not_exists, columns, options, query };
    Ok(Statement::CreateView(Box::new(view)))
}

fn materialized_view(cursor: &mut Cursor<'_>, create: Create) -> Result<Statement> {
    let if_not_exists = if_not_exists(cursor);
    let name = cursor.name()?;
    let columns = column_names(cursor)?;
    let options = table::with_options(cursor)?;
    cursor.expect("AS")?;
    let query = cursor.query()?;
    let emit = emit(cursor)?;
    if cursor.eat("WITH") {
        if cursor.peek_words(&["NO", "DATA"]) {
            return Err(cursor.unsupported(
                "WITH NO DATA",
                "A materialized view always has its rows; use CREATE VIEW.",
            ));
        }
        if !cursor.eat("DATA") {
            return Err(cursor.syntax_error().hint("Options stand before AS."));
        }
    }
    let or_replace = create.or_replace;
    let view =
        CreateMaterializedView { name, or_replace, if_not_exists, columns, options, query, emit };
    Ok(Statement::CreateMaterializedView(Box::new(view)))
}

/// `[EMIT ON WINDOW CLOSE | EMIT ON UPDATE [EVERY interval] | EMIT CHANGES | EMIT FINAL]`; the
/// word EMIT is the barrier that `sql::extensions` put there.
fn emit(cursor: &mut Cursor<'_>) -> Result<Emit> {
    if !cursor.eat_token(&BARRIER) {
        return Ok(Emit::Unspecified);
    }
    if cursor.eat("CHANGES") {
        return Ok(Emit::OnUpdate { every: None });
    }
    if cursor.eat("FINAL") || cursor.eat_words(&["ON", "WINDOW", "CLOSE"]) {
        return Ok(Emit::OnWindowClose);
    }
    cursor.expect_words(&["ON", "UPDATE"])?;
    if !cursor.eat("EVERY") {
        return Ok(Emit::OnUpdate { every: None });
    }
    let every = match cursor.eat("INTERVAL") {
        true => table::interval_text(cursor)?,
        false => cursor.string()?,
    };
    Ok(Emit::OnUpdate { every: Some(every) })
}

/// `CREATE SINK name FROM relation | AS query [EMIT ...] WITH (...) [FORMAT ... ENCODE ...]`.
fn sink(cursor: &mut Cursor<'_>, create: Create) -> Result<Statement> {
    let if_not_exists = if_not_exists(cursor);
    let name = cursor.name()?;
    if cursor.peek_words(&["INTO"]) {
        return Err(cursor.unsupported(
            "CREATE SINK INTO a table",
            "Use CREATE MATERIALIZED VIEW; other views can read it.",
        ));
    }
    let input = if cursor.eat("FROM") {
        SinkInput::Relation(cursor.name()?)
    } else if cursor.eat("AS") {
        SinkInput::Query(cursor.query()?)
    } else {
        return Err(cursor.expected("FROM or AS"));
    };
    let emit = emit(cursor)?;
    let options = match cursor.eat_token(&OPTIONS) {
        true => table::options_in_parens(cursor)?,
        false => vec![],
    };
    if options.is_empty() {
        return Err(cursor.expected("WITH").hint("A sink needs WITH (connector = '...')."));
    }
    let format = table::format_clause(cursor)?;
    let or_replace = create.or_replace;
    let sink = CreateSink { name, or_replace, if_not_exists, input, emit, options, format };
    Ok(Statement::CreateSink(Box::new(sink)))
}

fn schema(cursor: &mut Cursor<'_>) -> Result<Statement> {
    let if_not_exists = if_not_exists(cursor);
    if cursor.peek_words(&["AUTHORIZATION"]) {
        return Err(cursor.unsupported("AUTHORIZATION", "Name the schema; there are no roles."));
    }
    let name = cursor.schema_name()?;
    Ok(Statement::CreateSchema(CreateSchema { name, if_not_exists }))
}

fn database(cursor: &mut Cursor<'_>) -> Result<Statement> {
    let if_not_exists = if_not_exists(cursor);
    let position = cursor.position();
    let name = cursor.ident()?;
    if !cursor.at_end() && cursor.peek_one_of(&["WITH", "OWNER", "ENCODING", "TEMPLATE"]).is_some()
    {
        return Err(cursor.unsupported("an option of CREATE DATABASE", "Leave it out."));
    }
    let from_savepoint = match cursor.eat_words(&["FROM", "SAVEPOINT"]) {
        true => Some(cursor.ident()?),
        false => None,
    };
    let create = CreateDatabase { name, from_savepoint, if_not_exists, position };
    Ok(Statement::CreateDatabase(create))
}

/// `CREATE INDEX [IF NOT EXISTS] [name] ON relation [USING method] (key, ...) [INCLUDE (...)]`.
fn index(cursor: &mut Cursor<'_>) -> Result<Statement> {
    cursor.eat("CONCURRENTLY");
    let if_not_exists = if_not_exists(cursor);
    let name = match cursor.peek_words(&["ON"]) {
        true => None,
        false => Some(cursor.ident()?),
    };
    cursor.expect("ON")?;
    let relation = cursor.name()?;
    if cursor.eat("USING") && cursor.eat_one_of(&["BTREE", "HASH"]).is_none() {
        return Err(cursor.unsupported("this index method", "Leave USING out."));
    }
    cursor.expect_token(&Token::LParen)?;
    let keys = cursor.list(index_key)?;
    cursor.expect_token(&Token::RParen)?;
    let include = match cursor.eat("INCLUDE") {
        true => cursor.ident_list()?,
        false => vec![],
    };
    if cursor.peek_words(&["WHERE"]) {
        return Err(cursor.unsupported(
            "a partial index",
            "Index a materialized view that has only these rows.",
        ));
    }
    let index = CreateIndex { name, if_not_exists, relation, keys, include };
    Ok(Statement::CreateIndex(Box::new(index)))
}

fn index_key(cursor: &mut Cursor<'_>) -> Result<IndexKey> {
    let expression = cursor.expression()?;
    let descending = cursor.eat_one_of(&["ASC", "DESC"]) == Some("DESC");
    let mut nulls_first = None;
    if cursor.eat("NULLS") {
        match cursor.eat_one_of(&["FIRST", "LAST"]) {
            Some(place) => nulls_first = Some(place == "FIRST"),
            None => return Err(cursor.expected("FIRST or LAST")),
        }
    }
    Ok(IndexKey { expression, descending, nulls_first })
}

/// `CREATE SAVEPOINT [IF NOT EXISTS] name`.
fn savepoint(cursor: &mut Cursor<'_>) -> Result<Statement> {
    let if_not_exists = if_not_exists(cursor);
    let position = cursor.position();
    let name = cursor.ident()?;
    Ok(Statement::CreateSavepoint(CreateSavepoint { name, if_not_exists, position }))
}

/// `BACKUP TO 'url'`, `EXPORT SAVEPOINT name TO 'url'`, `IMPORT SAVEPOINT name FROM 'url'`.
pub(super) fn transfer(cursor: &mut Cursor<'_>) -> Result<Statement> {
    let first = cursor.eat_one_of(&["BACKUP", "EXPORT", "IMPORT"]);
    let position = cursor.position();
    if first == Some("BACKUP") {
        cursor.expect("TO")?;
        let (position, url) = (cursor.position(), cursor.string()?);
        return Ok(Statement::Transfer(Transfer { what: TransferWhat::Backup, url, position }));
    }
    if !cursor.eat("SAVEPOINT") {
        let hint = "There are EXPORT SAVEPOINT and IMPORT SAVEPOINT; use CREATE SOURCE for data.";
        return Err(cursor.syntax_error().hint(hint).position(position));
    }
    let position = cursor.position();
    let name = cursor.ident()?;
    let what = match first {
        Some("EXPORT") => {
            cursor.expect("TO")?;
            TransferWhat::Export(name)
        }
        _ => {
            cursor.expect("FROM")?;
            TransferWhat::Import(name)
        }
    };
    let url = cursor.string()?;
    Ok(Statement::Transfer(Transfer { what, url, position }))
}

/// A kind of object, where one must stand. `statement` is for messages.
pub(super) fn noun(cursor: &mut Cursor<'_>, statement: &str) -> Result<Noun> {
    const NOUNS: [(&[&str], Noun); 9] = [
        (&["SOURCE"], Noun::Source),
        (&["TABLE"], Noun::Table),
        (&["VIEW"], Noun::View),
        (&["MATERIALIZED", "VIEW"], Noun::MaterializedView),
        (&["SINK"], Noun::Sink),
        (&["INDEX"], Noun::Index),
        (&["SCHEMA"], Noun::Schema),
        (&["DATABASE"], Noun::Database),
        (&["SAVEPOINT"], Noun::Savepoint),
    ];
    if let Some((_, noun)) = NOUNS.iter().find(|(words, _)| cursor.eat_words(words)) {
        return Ok(*noun);
    }
    if cursor.eat("MATERIALIZED") {
        return Err(cursor.expected("VIEW"));
    }
    const FOREIGN: [&str; 18] = [
        "FUNCTION",
        "AGGREGATE",
        "PROCEDURE",
        "TRIGGER",
        "TYPE",
        "DOMAIN",
        "SEQUENCE",
        "EXTENSION",
        "ROLE",
        "USER",
        "SECRET",
        "CONNECTION",
        "SUBSCRIPTION",
        "PUBLICATION",
        "CATALOG",
        "CONSTRAINT",
        "POLICY",
        "SYSTEM",
    ];
    match cursor.peek_one_of(&FOREIGN) {
        Some(kind) => {
            Err(cursor.unsupported(&format!("{statement} {kind}"), "Millstream has no such thing."))
        }
        None => Err(cursor.expected("TABLE, SOURCE, VIEW or another kind of object")),
    }
}

/// `DROP kind [IF EXISTS] name, ... [CASCADE | RESTRICT]`.
pub(super) fn drop(cursor: &mut Cursor<'_>) -> Result<Statement> {
    cursor.expect("DROP")?;
    let kind = noun(cursor, "DROP")?;
    if kind == Noun::Index {
        cursor.eat("CONCURRENTLY");
    }
    let if_exists = cursor.eat_words(&["IF", "EXISTS"]);
    let names = match kind {
        Noun::Database | Noun::Savepoint => vec![single_name(cursor)?],
        Noun::Schema => cursor.list(two_part_name)?,
        _ => cursor.names()?,
    };
    let cascade = data::cascade(cursor);
    Ok(Statement::Drop(DropObjects { kind, if_exists, names, cascade }))
}

/// A name of one part.
fn single_name(cursor: &mut Cursor<'_>) -> Result<Name> {
    let position = cursor.position();
    Ok(Name { database: None, schema: None, name: cursor.ident()?, position })
}

/// `[database.]schema`, as a [`Name`].
fn two_part_name(cursor: &mut Cursor<'_>) -> Result<Name> {
    let schema = cursor.schema_name()?;
    let position = schema.position;
    Ok(Name { database: None, schema: schema.database, name: schema.schema, position })
}

/// `ALTER kind [IF EXISTS] name RENAME TO name | RENAME [COLUMN] a TO b | SET SCHEMA name`.
pub(super) fn alter(cursor: &mut Cursor<'_>) -> Result<Statement> {
    cursor.expect("ALTER")?;
    let kind = noun(cursor, "ALTER")?;
    if kind == Noun::Savepoint {
        return Err(cursor.unsupported("ALTER SAVEPOINT", "Create another savepoint."));
    }
    let if_exists = cursor.eat_words(&["IF", "EXISTS"]);
    let name = match kind {
        Noun::Database => single_name(cursor)?,
        Noun::Schema => two_part_name(cursor)?,
        _ => cursor.name()?,
    };
    let relation = !matches!(kind, Noun::Schema | Noun::Database | Noun::Index);
    let action = if cursor.eat_words(&["RENAME", "TO"]) {
        AlterAction::Rename(cursor.ident()?)
    } else if relation && cursor.eat("RENAME") {
        cursor.eat("COLUMN");
        let from = cursor.ident()?;
        cursor.expect("TO")?;
        AlterAction::RenameColumn { from, to: cursor.ident()? }
    } else if relation && cursor.eat_words(&["SET", "SCHEMA"]) {
        AlterAction::SetSchema(cursor.ident()?)
    } else if matches!(cursor.peek().token, Token::Word(_)) {
        let hint = match kind {
            Noun::MaterializedView => "Use CREATE OR REPLACE MATERIALIZED VIEW.",
            Noun::View => "Use CREATE OR REPLACE VIEW.",
            _ => "Only RENAME and SET SCHEMA are. Create the object anew.",
        };
        return Err(cursor
            .unsupported(&format!("this form of ALTER {}", kind.as_str().to_uppercase()), hint));
    } else {
        return Err(cursor.expected("RENAME or SET SCHEMA"));
    };
    Ok(Statement::Alter(Alter { kind, if_exists, name, action }))
}

/// `COMMENT ON kind name IS 'text' | NULL`, also `ON COLUMN relation.column`.
pub(super) fn comment_on(cursor: &mut Cursor<'_>) -> Result<Statement> {
    cursor.expect_words(&["COMMENT", "ON"])?;
    let (kind, name, column) = if cursor.eat("COLUMN") {
        let (relation, column) = column_name(cursor)?;
        (Noun::Table, relation, Some(column))
    } else {
        let kind = noun(cursor, "COMMENT ON")?;
        let name = match kind {
            Noun::Database | Noun::Savepoint => single_name(cursor)?,
            Noun::Schema => two_part_name(cursor)?,
            _ => cursor.name()?,
        };
        (kind, name, None)
    };
    cursor.expect("IS")?;
    let text = match cursor.eat("NULL") {
        true => None,
        false => Some(cursor.string()?),
    };
    Ok(Statement::CommentOn(CommentOn { kind, name, column, text }))
}

/// `[[database.]schema.]relation.column`.
fn column_name(cursor: &mut Cursor<'_>) -> Result<(Name, String)> {
    let position = cursor.position();
    let mut parts = cursor.parts()?;
    let wrong = |what: &str| Err(Error::user(SqlState::SYNTAX_ERROR, what).position(position));
    let (Some(column), Some(name)) = (parts.pop(), parts.pop()) else {
        return wrong("column name must be qualified")
            .map_err(|e| e.hint("Write relation.column."));
    };
    let schema = parts.pop();
    let database = parts.pop();
    if !parts.is_empty() {
        return wrong("improper qualified name (too many dotted names)");
    }
    Ok((Name { database, schema, name, position }, column))
}
