//! What is done to sqlparser's trees after parsing.
//!
//! 1. Clauses of other databases that the grammar takes and the planner would ignore are refused.
//! 2. `FETCH FIRST n ROWS ONLY` becomes LIMIT.
//! 3. Long chains of AND or OR become balanced trees: what walks them recurses.
//! 4. Placeholders must be `$n`; strings are no names.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, Expr, Ident, LimitClause, ObjectName, Offset, OffsetRows, Query, Select,
    SelectItem, SetExpr, TableAlias, TableFactor, Value, ValueWithSpan, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::{Span, Token};

use crate::sql::parse::cursor::Cursor;
use crate::sql::parse::name::qualified_name;
use crate::types::error::{Error, Result, SqlState};

/// Shorter chains of AND and OR stay as they are.
const CHAIN_BALANCED_MIN: usize = 16;

/// What is wrong with a tree, and how to find the place.
#[derive(Debug)]
pub(super) struct Problem {
    error: Error,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Span(Span),
    /// Where these words stand first.
    Words(&'static str),
    /// Where this string constant stands first.
    StringConstant(String),
}

impl Problem {
    /// A clause that is not Postgres's.
    fn syntax(words: &'static str, hint: &str) -> Box<Problem> {
        let word = words.to_ascii_lowercase();
        let error =
            Error::user(SqlState::SYNTAX_ERROR, format!("syntax error at or near \"{word}\""));
        let error = if hint.is_empty() { error } else { error.hint(hint) };
        Box::new(Problem { error, place: Place::Words(words) })
    }

    fn unsupported(what: &str, words: &'static str, hint: &str) -> Box<Problem> {
        let error = Error::unsupported(what).hint(hint);
        Box::new(Problem { error, place: Place::Words(words) })
    }

    /// The error with its position.
    pub(super) fn at(self, cursor: &Cursor<'_>) -> Error {
        let start = match self.place {
            Place::Span(span) => Some(span.start),
            Place::StringConstant(text) => {
                let wanted = Token::SingleQuotedString(text);
                let mut tokens = (0..).map(|i| cursor.parser.token_at(i));
                let found = tokens.find(|t| t.token == wanted || t.token == Token::EOF);
                found.map(|t| t.span.start)
            }
            Place::Words(words) => {
                let words: Vec<&str> = words.split(' ').collect();
                cursor.find_words(&words).map(|t| t.span.start)
            }
        };
        match start.filter(|at| at.line > 0) {
            Some(at) => self.error.position(cursor.text.position(at)),
            None => self.error,
        }
    }
}

/// Checks and normalises a query.
pub(super) fn check_query(query: &mut Query) -> Result<(), Box<Problem>> {
    outcome(query.visit(&mut Checker))
}

/// Checks and normalises an expression.
pub(super) fn check_expr(expr: &mut Expr) -> Result<(), Box<Problem>> {
    outcome(expr.visit(&mut Checker))
}

/// Checks and normalises INSERT, UPDATE or DELETE.
pub(super) fn check_statement(statement: &mut ast::Statement) -> Result<(), Box<Problem>> {
    outcome(statement.visit(&mut Checker))
}

fn outcome(flow: ControlFlow<Box<Problem>>) -> Result<(), Box<Problem>> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(problem) => Err(problem),
    }
}

struct Checker;

type Flow = ControlFlow<Box<Problem>>;

fn flow(checked: Result<(), Box<Problem>>) -> Flow {
    match checked {
        Ok(()) => ControlFlow::Continue(()),
        Err(problem) => ControlFlow::Break(problem),
    }
}

impl VisitorMut for Checker {
    type Break = Box<Problem>;

    fn pre_visit_query(&mut self, query: &mut Query) -> Flow {
        flow(check_clauses(query))
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> Flow {
        flow(check_select(select))
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> Flow {
        flow(check_table_factor(factor))
    }

    fn pre_visit_relation(&mut self, name: &mut ObjectName) -> Flow {
        flow(check_name(name))
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        balance(expr);
        ControlFlow::Continue(())
    }

    fn pre_visit_value(&mut self, value: &mut ValueWithSpan) -> Flow {
        flow(check_value(value))
    }
}

fn check_clauses(query: &mut Query) -> Result<(), Box<Problem>> {
    match query.body.as_ref() {
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
            return Err(Problem::unsupported(
                "a data-modifying statement inside a query",
                "WITH",
                "Run the INSERT, UPDATE or DELETE as a statement of its own.",
            ));
        }
        SetExpr::Table(_) => {
            return Err(Problem::unsupported(
                "TABLE in this place",
                "TABLE",
                "Write SELECT * FROM it.",
            ));
        }
        SetExpr::Select(_)
        | SetExpr::Query(_)
        | SetExpr::SetOperation { .. }
        | SetExpr::Values(_) => {}
    }
    if !query.locks.is_empty() {
        return Err(Problem::unsupported(
            "row locking (FOR UPDATE, FOR SHARE)",
            "FOR",
            "Transactions are serializable without it.",
        ));
    }
    if query.for_clause.is_some() {
        return Err(Problem::syntax("FOR", ""));
    }
    if query.settings.is_some() {
        return Err(Problem::syntax("SETTINGS", ""));
    }
    if query.format_clause.is_some() {
        return Err(Problem::syntax("FORMAT", ""));
    }
    fetch_to_limit(query);
    Ok(())
}

/// `FETCH FIRST n ROWS ONLY` is LIMIT n; with TIES or PERCENT it stays FETCH.
fn fetch_to_limit(query: &mut Query) {
    let Some(fetch) = &query.fetch else { return };
    if fetch.with_ties || fetch.percent {
        return;
    }
    let one = || Expr::Value(Value::Number("1".to_owned(), false).with_empty_span());
    let count = fetch.quantity.clone().unwrap_or_else(one);
    match &mut query.limit_clause {
        None => {
            query.limit_clause = Some(LimitClause::LimitOffset {
                limit: Some(count),
                offset: None,
                limit_by: vec![],
            });
        }
        Some(LimitClause::LimitOffset { limit: limit @ None, offset, .. }) => {
            *limit = Some(count);
            if let Some(Offset { rows, .. }) = offset {
                *rows = OffsetRows::None;
            }
        }
        Some(_) => return,
    }
    query.fetch = None;
}

fn check_select(select: &mut Select) -> Result<(), Box<Problem>> {
    if select.into.is_some() {
        return Err(Problem::unsupported(
            "SELECT INTO",
            "INTO",
            "Use CREATE TABLE name AS SELECT ...",
        ));
    }
    let foreign = [
        (select.top.is_some(), "TOP", "Use LIMIT."),
        (!select.lateral_views.is_empty(), "LATERAL VIEW", "Use CROSS JOIN UNNEST(...)."),
        (select.prewhere.is_some(), "PREWHERE", "Use WHERE."),
        (!select.connect_by.is_empty(), "CONNECT BY", "Use WITH RECURSIVE."),
        (!select.cluster_by.is_empty(), "CLUSTER BY", ""),
        (!select.distribute_by.is_empty(), "DISTRIBUTE BY", ""),
        (!select.sort_by.is_empty(), "SORT BY", "Use ORDER BY."),
        (select.value_table_mode.is_some(), "AS VALUE", ""),
    ];
    if let Some((_, words, hint)) = foreign.into_iter().find(|(found, _, _)| *found) {
        return Err(Problem::syntax(words, hint));
    }
    for item in &select.projection {
        if let SelectItem::ExprWithAlias { alias, .. } = item {
            check_ident(alias)?;
        }
    }
    Ok(())
}

fn check_table_factor(factor: &TableFactor) -> Result<(), Box<Problem>> {
    let unsupported = |what: &str, words, hint| Err(Problem::unsupported(what, words, hint));
    match factor {
        TableFactor::Table {
            alias, with_hints, version, sample, index_hints, partitions, ..
        } => {
            if !with_hints.is_empty() {
                return Err(Problem::syntax(
                    "WITH",
                    "Options stand before AS: CREATE MATERIALIZED VIEW name WITH (...) AS SELECT.",
                ));
            }
            if sample.is_some() {
                return unsupported("TABLESAMPLE", "TABLESAMPLE", "Use WHERE random() < 0.1.");
            }
            if version.is_some() || !index_hints.is_empty() || !partitions.is_empty() {
                return Err(Problem::syntax("FOR", ""));
            }
            check_alias(alias)
        }
        TableFactor::Derived { alias, sample, .. } => {
            if sample.is_some() {
                return unsupported("TABLESAMPLE", "TABLESAMPLE", "Use WHERE random() < 0.1.");
            }
            check_alias(alias)
        }
        TableFactor::UNNEST { alias, with_offset, .. } => {
            if *with_offset {
                return Err(Problem::syntax("OFFSET", "Use WITH ORDINALITY."));
            }
            check_alias(alias)
        }
        TableFactor::Function { alias, .. } | TableFactor::NestedJoin { alias, .. } => {
            check_alias(alias)
        }
        TableFactor::TableFunction { .. } => {
            unsupported("TABLE(...) of this form", "TABLE", "Write the function without TABLE().")
        }
        TableFactor::Pivot { .. } | TableFactor::Unpivot { .. } => {
            unsupported("PIVOT", "PIVOT", "Use aggregates with FILTER (WHERE ...).")
        }
        TableFactor::JsonTable { .. } | TableFactor::OpenJsonTable { .. } => {
            unsupported("JSON_TABLE", "JSON_TABLE", "Use jsonb functions and UNNEST.")
        }
        TableFactor::XmlTable { .. } => unsupported("XMLTABLE", "XMLTABLE", "Use jsonb."),
        TableFactor::MatchRecognize { .. } => {
            unsupported("MATCH_RECOGNIZE", "MATCH_RECOGNIZE", "Use window functions.")
        }
        TableFactor::SemanticView { .. } => Err(Problem::syntax("SEMANTIC_VIEW", "")),
    }
}

fn check_alias(alias: &Option<TableAlias>) -> Result<(), Box<Problem>> {
    let Some(alias) = alias else { return Ok(()) };
    check_ident(&alias.name)?;
    alias.columns.iter().try_for_each(|column| check_ident(&column.name))
}

/// sqlparser takes strings for names.
fn check_ident(ident: &Ident) -> Result<(), Box<Problem>> {
    if ident.quote_style != Some('\'') {
        return Ok(());
    }
    let value = &ident.value;
    let error =
        Error::user(SqlState::SYNTAX_ERROR, format!("syntax error at or near \"'{value}'\""))
            .hint("Names stand in double quotes; single quotes are for strings.");
    Err(Box::new(Problem { error, place: Place::StringConstant(value.clone()) }))
}

fn check_name(name: &ObjectName) -> Result<(), Box<Problem>> {
    for part in &name.0 {
        if let Some(ident) = part.as_ident() {
            check_ident(ident)?;
        }
    }
    let span = name.0.first().and_then(|p| p.as_ident()).map_or(Span::empty(), |ident| ident.span);
    match qualified_name(name) {
        Ok(_) => Ok(()),
        Err(error) => Err(Box::new(Problem { error, place: Place::Span(span) })),
    }
}

fn check_value(value: &ValueWithSpan) -> Result<(), Box<Problem>> {
    match &value.value {
        Value::Placeholder(name) if parameter_number(name).is_none() => {
            let error = if name.starts_with("$") && name[1..].parse::<u64>().is_ok() {
                Error::user(SqlState::UNDEFINED_PARAMETER, format!("there is no parameter {name}"))
            } else {
                Error::user(SqlState::SYNTAX_ERROR, format!("syntax error at or near \"{name}\""))
            };
            let error = error.hint("Parameters are written $1, $2, ...");
            Err(Box::new(Problem { error, place: Place::Span(value.span) }))
        }
        _ => Ok(()),
    }
}

/// The n of `$n`.
pub(super) fn parameter_number(placeholder: &str) -> Option<u16> {
    let digits = placeholder.strip_prefix('$')?;
    digits.parse().ok().filter(|n| *n > 0)
}

/// Makes a balanced tree of a long chain of AND or OR, which sqlparser leaves leaning left. Both
/// are associative, NULLs included.
fn balance(expr: &mut Expr) {
    let Expr::BinaryOp { op, .. } = &*expr else { return };
    let op = op.clone();
    if !matches!(op, BinaryOperator::And | BinaryOperator::Or) {
        return;
    }
    if chain_length(expr, &op) < CHAIN_BALANCED_MIN {
        return;
    }
    let nothing = Expr::Identifier(Ident::new(""));
    let mut operands = Vec::new();
    let mut rest = std::mem::replace(expr, nothing);
    loop {
        match rest {
            Expr::BinaryOp { left, op: other, right } if other == op => {
                operands.push(*right);
                rest = *left;
            }
            first => {
                operands.push(first);
                break;
            }
        }
    }
    operands.reverse();
    while operands.len() > 1 {
        let mut paired = Vec::with_capacity(operands.len().div_ceil(2));
        let mut pending = operands.into_iter();
        while let Some(left) = pending.next() {
            paired.push(match pending.next() {
                Some(right) => {
                    Expr::BinaryOp { left: Box::new(left), op: op.clone(), right: Box::new(right) }
                }
                None => left,
            });
        }
        operands = paired;
    }
    *expr = operands.pop().expect("a chain has operands");
}

fn chain_length(mut expr: &Expr, chain: &BinaryOperator) -> usize {
    let mut length = 0;
    while let Expr::BinaryOp { left, op, .. } = expr
        && op == chain
    {
        length += 1;
        expr = left;
    }
    length
}
