//! Text in, text out: statements as our structs print them, errors with their place marked.

mod errors;
mod garbage;
mod postgres_errors;
mod statements;

use expect_test::Expect;
use regex::Regex;

use super::*;

/// Parses each text (they are separated by blank lines) and compares what comes out.
fn check(texts: &str, expect: Expect) {
    let shown: Vec<String> = texts.trim().split("\n\n").map(|sql| shown(sql.trim())).collect();
    expect.assert_eq(&format!("{}\n", shown.join("\n")));
}

/// The statements of a text, one a line; fields that are empty are left out.
fn shown(sql: &str) -> String {
    let statements = match parse(sql) {
        Ok(statements) => statements,
        Err(error) => panic!("{sql}\n{error:?} at {:?}", error.body().position),
    };
    let empty = Regex::new(r"\b\w+: (None|false|\[\]), |(, )?\b\w+: (None|false|\[\])").unwrap();
    let lines = statements.iter().map(|parsed| match &parsed.statement {
        Statement::Query(query) => format!("Query({query})"),
        Statement::Insert(insert) => format!("Insert({insert})"),
        Statement::Update(update) => format!("Update({update})"),
        Statement::Delete(delete) => format!("Delete({delete})"),
        other => empty.replace_all(&format!("{other:?}"), "").into_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Parses texts that are wrong where `¦` stands in them.
fn check_errors(sqlstate: &str, rows: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (marked, message) in rows {
        let sql = marked.replacen('¦', "", 1);
        let Some(mark) = marked.chars().position(|c| c == '¦') else {
            panic!("{marked}: no mark")
        };
        let expected = format!("{sqlstate} {message} at {}", mark + 1);
        let found = match parse(&sql) {
            Ok(_) => "no error".to_owned(),
            Err(error) => {
                let body = error.body();
                let position = body.position.unwrap_or(0);
                format!("{} {} at {position}", body.sqlstate.0, body.message)
            }
        };
        if found != expected {
            wrong.push(format!("{marked}\n  expected {expected}\n  found    {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn texts_are_cut_at_semicolons() {
    let text = "-- first\nSELECT ';' /* ; */, $$;$$;\n\n ; SELECT 2 -- two;\n;SELECT \"é;\" ; ";
    let statements = parse(text).expect("three statements");
    let cut: Vec<_> = statements.iter().map(|s| (s.sql.as_str(), s.offset_chars)).collect();
    assert_eq!(cut, [("SELECT ';' /* ; */, $$;$$", 9), ("SELECT 2", 40), ("SELECT \"é;\"", 58)]);
    for empty in ["", "  ", ";;\n;", "-- nothing", "/* ; */"] {
        assert!(parse(empty).expect("no statement").is_empty(), "{empty:?}");
    }
}

#[test]
fn positions_count_characters_of_the_whole_text() {
    check_errors(
        "42601",
        &[
            ("SELECT 'é';\n\nSELECT 'ü' +¦; SELECT 3", "syntax error at or near \";\""),
            ("SELECT 1;\n  SELECT 2 FROM\n  -- é\n  ¦WHERE", "syntax error at or near \"WHERE\""),
            ("SELECT 1; SELECT ¦'é", "unterminated quoted string at or near \"'é\""),
            ("SELECT 1; EXPLAIN ANALYZE SELECT 2 +\n ¦", "syntax error at end of input"),
            ("SELECT 1; PREPARE p AS\n SELECT $1 +¦; SELECT 2", "syntax error at or near \";\""),
            ("SELECT 1 +\r\n\r\n ¦)", "syntax error at or near \")\""),
        ],
    );
}

#[test]
fn statements_inside_statements_have_texts_of_their_own() {
    let text = "SELECT 1;\n PREPARE é (int) AS\n  SELECT $1 + $2 -- sum";
    let outer = parse(text).expect("two statements").pop().expect("the second");
    assert_eq!(
        (outer.sql.as_str(), outer.offset_chars),
        ("PREPARE é (int) AS\n  SELECT $1 + $2", 11)
    );
    let Statement::Prepare(prepare) = &outer.statement else { panic!("{outer:?}") };
    let inner = &prepare.statement;
    assert_eq!((inner.sql.as_str(), inner.offset_chars), ("SELECT $1 + $2", 32));
    assert_eq!(inner.parameter_count, 2);
    let Statement::Query(query) = &inner.statement else { panic!("{inner:?}") };
    let span = ast::Spanned::span(query.as_ref());
    assert_eq!(inner.position_of(span), Some(1));
}

/// What the catalog stores is the user's text, whatever the parser read instead.
#[test]
fn texts_are_cut_from_the_users() {
    let sql = "CREATE MATERIALIZED VIEW v AS\n  SELECT 'é', * -- all\n  \
               FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), 1)) /* é */ EMIT CHANGES";
    let parsed = parse(sql).expect("a view").pop().expect("one");
    let Statement::CreateMaterializedView(view) = parsed.statement else { panic!("{parsed:?}") };
    let query = "SELECT 'é', * -- all\n  FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), 1))";
    assert_eq!((view.query.sql.as_str(), view.query.position), (query, 33));
    assert_eq!(parse_query(&view.query.sql).expect("a query"), moved(&view.query.ast));

    let sql = "CREATE TABLE é (a int DEFAULT  1 /* b */ + 2 NOT NULL, b AS a  * 2,\n\
               WATERMARK FOR a AS a - INTERVAL '1' DAY)";
    let parsed = parse(sql).expect("a table").pop().expect("one");
    let Statement::CreateTable(table) = parsed.statement else { panic!("{parsed:?}") };
    let default = table.columns[0].default.as_ref().expect("a default");
    assert_eq!((default.sql.as_str(), default.position), ("1 /* b */ + 2", 32));
    let generated = table.columns[1].generated.as_ref().expect("an expression");
    assert_eq!((generated.sql.as_str(), generated.position), ("a  * 2", 61));
    let watermark = table.watermark.expect("a watermark").expression;
    assert_eq!((watermark.sql.as_str(), watermark.position), ("a - INTERVAL '1' DAY", 88));
}

/// The query as parsing its printed form gives it: spans do not count when trees are compared.
fn moved(query: &ast::Query) -> Box<ast::Query> {
    parse_query(&query.to_string()).expect("a query")
}

#[test]
fn spans_lead_to_positions() {
    let parsed = parse("SELECT 'é',\n  a.b\nFROM t").expect("a query").pop().expect("one");
    let Statement::Query(query) = &parsed.statement else { panic!("{parsed:?}") };
    let ast::SetExpr::Select(select) = query.body.as_ref() else { panic!("{query}") };
    let span = ast::Spanned::span(&select.projection[1]);
    assert_eq!(parsed.position_of(span), Some(15));
    assert_eq!(parsed.position_of(Span::empty()), None);
}

#[test]
fn single_pieces() {
    assert_eq!(parse_expression(" a + 1 -- c").expect("an expression").to_string(), "a + 1");
    assert_eq!(parse_query("TABLE t").expect("a query").to_string(), "SELECT * FROM t");
    let errors = [
        (parse_expression("").err(), "syntax error at end of input", 1),
        (parse_expression("a b").err(), "syntax error at or near \"b\"", 3),
        (parse_expression("a; b").err(), "more than one statement", 4),
        (parse_expression(" ;SELECT").err(), "syntax error at or near \"SELECT\"", 3),
        (parse_query("SHOW x").err(), "syntax error at or near \"SHOW\"", 1),
    ];
    for (error, message, position) in errors {
        let error = error.expect(message);
        assert_eq!((error.message(), error.body().position), (message, Some(position)));
    }
}

#[test]
fn hints_say_what_was_probably_meant() {
    let rows = [
        ("SELEC 1", "Perhaps you meant SELECT."),
        ("SELECT * FORM t", "Perhaps you meant FROM instead of \"FORM\"."),
        ("CREATE MATERIALISED VIEW v AS SELECT 1", "Perhaps you meant MATERIALIZED."),
        ("SELECT a, FROM t", "Remove the comma before it."),
        ("CREATE TABLE t (a int,)", "Remove the comma before it."),
        ("SELECT * FROM t LIMIT 1, 2", "Write LIMIT count OFFSET start."),
        ("SELECT * FROM t WHERE a = ?", "Parameters are written $1, $2, ..."),
        (
            "SELECT * FROM order",
            "\"order\" is a reserved word: put it in double quotes to use it as a name.",
        ),
        ("SELECT 1 AS 'x'", "Names stand in double quotes; single quotes are for strings."),
        ("SELECT * FROM a JOIN b", "Add ON or USING, or write CROSS JOIN."),
        ("SUBSCRIBE TO SELECT 1", "Put the query in parentheses."),
        (
            "SELECT * FROM t EMIT CHANGES",
            "EMIT belongs to CREATE MATERIALIZED VIEW and CREATE SINK; SUBSCRIBE follows the \
             changes of a query.",
        ),
        (
            "CREATE MATERIALIZED VIEW v AS SELECT * FROM t WITH (a = 1)",
            "Options stand before AS: CREATE MATERIALIZED VIEW name WITH (...) AS SELECT.",
        ),
    ];
    for (sql, hint) in rows {
        let error = parse(sql).expect_err(sql);
        assert_eq!(error.body().hint.as_deref(), Some(hint), "{sql}");
    }
}

#[test]
fn long_chains_become_balanced_trees() {
    let chain = |count: usize| format!("a = 0{}", " OR a = 1 AND b".repeat(count));
    let depth = |sql: &str| {
        let mut depth = 0;
        let mut expr = parse_expression(sql).expect("an expression");
        while let ast::Expr::BinaryOp { left, .. } = expr {
            depth += 1;
            expr = *left;
        }
        depth
    };
    assert_eq!(depth(&chain(3)), 4);
    assert!(depth(&chain(4_000)) < 16);
    let sql = chain(500);
    assert_eq!(parse_expression(&sql).expect("an expression").to_string(), sql);
}

#[test]
fn every_documented_example_parses() {
    let page = include_str!("../../../docs/sql/statements.md");
    let mut examples = 0;
    for block in page.split("```sql\n").skip(1) {
        let sql = block.split("```").next().unwrap_or(block);
        if let Err(error) = parse(sql) {
            panic!("{sql}\n{error:?} at {:?}", error.body().position);
        }
        examples += 1;
    }
    assert!(examples >= 40, "the page has {examples} examples");
}
