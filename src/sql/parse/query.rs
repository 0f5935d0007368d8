//! What is done to sqlparser's trees after parsing.
//!
//! 1. Clauses of other databases that the grammar takes and the planner would ignore are refused.
//! 2. `FETCH FIRST n ROWS ONLY` becomes LIMIT.
//! 3. Long chains of AND or OR become balanced trees: what walks them recurses.
//! 4. Placeholders must be `$n`; strings are no names.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, Expr, Ident, Join, JoinConstraint, JoinOperator, LimitClause, ObjectName,
    Offset, OffsetRows, Query, Select, SelectItem, SetExpr, TableAlias, TableFactor, TableVersion,
    Value, ValueWithSpan, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::{Span, Token};

use crate::sql::parse::cursor::{Cursor, reserved_hint};
use crate::sql::parse::name::{is_reserved, qualified_name};
use crate::types::error::{Error, Result, SqlState};

/// Shorter chains of AND and OR stay as they are.
const CHAIN_BALANCED_MIN: usize = 16;

/// What is wrong with a tree, and how to find the place.
#[derive(Debug)]
pub(super) struct Problem {
    /// `None`: a syntax error there.
    error: Option<Error>,
    hint: String,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Span(Span),
    /// Where these words stand first.
    Words(&'static str),
    /// Where this string constant stands first.
    StringConstant(String),
    /// The token behind this one.
    Behind(Span),
}

impl Problem {
    /// A clause that is not Postgres's.
    fn syntax(words: &'static str, hint: &str) -> Box<Problem> {
        Problem::syntax_at(Place::Words(words), hint)
    }

    fn syntax_at(place: Place, hint: impl Into<String>) -> Box<Problem> {
        Box::new(Problem { error: None, hint: hint.into(), place })
    }

    fn unsupported(what: &str, words: &'static str, hint: &str) -> Box<Problem> {
        let error = Some(Error::unsupported(what));
        Box::new(Problem { error, hint: hint.to_owned(), place: Place::Words(words) })
    }

    /// The error with its position.
    pub(super) fn at(self, cursor: &Cursor<'_>) -> Error {
        let words: Vec<&str> = match self.place {
            Place::Words(words) => words.split(' ').collect(),
            _ => vec![],
        };
        let found = match self.place {
            Place::Span(span) => cursor.find(|token| token.span.start == span.start),
            Place::StringConstant(text) => {
                let wanted = Token::SingleQuotedString(text);
                cursor.find(|token| token.token == wanted)
            }
            Place::Words(_) => cursor.find_words(&words),
            Place::Behind(span) => {
                let behind = cursor.find(|token| token.span.start >= span.end);
                Some(behind.unwrap_or_else(|| cursor.end_token()))
            }
        };
        let token = found.unwrap_or_else(|| cursor.peek());
        let error = match self.error {
            Some(error) => error.position(cursor.text.position(token.span.start)),
            None => cursor.syntax_error_at(token),
        };
        if self.hint.is_empty() { error } else { error.hint(self.hint) }
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
    select.from.iter().try_for_each(|table| check_joins(&table.joins))?;
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
            let versioned = match version {
                None | Some(TableVersion::ForSystemTimeAsOf(_)) => false,
                Some(_) => true,
            };
            if versioned || !index_hints.is_empty() || !partitions.is_empty() {
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
        TableFactor::NestedJoin { alias, table_with_joins } => {
            check_joins(&table_with_joins.joins)?;
            check_alias(alias)
        }
        TableFactor::Function { alias, .. } => check_alias(alias),
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

/// sqlparser lets ON and USING be left out, and the planner then joins everything with everything.
pub(super) fn check_joins(joins: &[Join]) -> Result<(), Box<Problem>> {
    joins.iter().try_for_each(|join| match &join.join_operator {
        JoinOperator::CrossJoin(JoinConstraint::None) => Ok(()),
        JoinOperator::CrossJoin(_) => Err(Problem::syntax("CROSS JOIN", "Use JOIN ... ON.")),
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint)
        | JoinOperator::Semi(constraint)
        | JoinOperator::LeftSemi(constraint)
        | JoinOperator::RightSemi(constraint)
        | JoinOperator::Anti(constraint)
        | JoinOperator::LeftAnti(constraint)
        | JoinOperator::RightAnti(constraint) => match constraint {
            JoinConstraint::None => {
                let place = end_of(&join.relation).map_or(Place::Words("JOIN"), Place::Behind);
                Err(Problem::syntax_at(place, "Add ON or USING, or write CROSS JOIN."))
            }
            JoinConstraint::On(_) | JoinConstraint::Using(_) | JoinConstraint::Natural => Ok(()),
        },
        JoinOperator::CrossApply | JoinOperator::OuterApply => Err(Problem::syntax(
            "APPLY",
            "Use CROSS JOIN LATERAL or LEFT JOIN LATERAL ... ON true.",
        )),
        JoinOperator::AsOf { .. } => Err(Problem::unsupported(
            "ASOF JOIN",
            "ASOF",
            "Join on <= and keep the latest match with DISTINCT ON.",
        )),
        JoinOperator::StraightJoin(_) => Err(Problem::syntax("STRAIGHT_JOIN", "Use JOIN.")),
        JoinOperator::ArrayJoin | JoinOperator::LeftArrayJoin | JoinOperator::InnerArrayJoin => {
            Err(Problem::syntax("ARRAY JOIN", "Use CROSS JOIN UNNEST(...)."))
        }
    })
}

/// The last word of a table in FROM, where the tree tells it.
fn end_of(factor: &TableFactor) -> Option<Span> {
    let (alias, name) = match factor {
        TableFactor::Table { alias, name, args: None, .. } => (alias, name.0.last()),
        TableFactor::Table { alias, .. }
        | TableFactor::Derived { alias, .. }
        | TableFactor::Function { alias, .. }
        | TableFactor::UNNEST { alias, .. } => (alias, None),
        _ => return None,
    };
    let ident = match alias {
        Some(alias) if alias.columns.is_empty() => Some(&alias.name),
        Some(_) => None,
        None => name.and_then(|part| part.as_ident()),
    };
    ident.map(|ident| ident.span).filter(|span| span.start.line > 0)
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
    Err(Problem::syntax_at(
        Place::StringConstant(ident.value.clone()),
        "Names stand in double quotes; single quotes are for strings.",
    ))
}

fn check_name(name: &ObjectName) -> Result<(), Box<Problem>> {
    let idents = || name.0.iter().filter_map(|part| part.as_ident());
    idents().try_for_each(check_ident)?;
    let Some(first) = idents().next() else { return Ok(()) };
    let place = Place::Span(first.span);
    if first.quote_style.is_none() && is_reserved(&first.value) {
        return Err(Problem::syntax_at(place, reserved_hint(&first.value)));
    }
    match qualified_name(name) {
        Ok(_) => Ok(()),
        Err(error) => {
            let hint = error.body().hint.clone().unwrap_or_default();
            Err(Box::new(Problem { error: Some(error), hint, place }))
        }
    }
}

fn check_value(value: &ValueWithSpan) -> Result<(), Box<Problem>> {
    let Value::Placeholder(name) = &value.value else { return Ok(()) };
    if parameter_number(name).is_some() {
        return Ok(());
    }
    let numbered = name.strip_prefix('$').is_some_and(|digits| digits.parse::<u64>().is_ok());
    let error = numbered.then(|| {
        Error::user(SqlState::UNDEFINED_PARAMETER, format!("there is no parameter {name}"))
    });
    let hint = "Parameters are written $1, $2, ...".to_owned();
    Err(Box::new(Problem { error, hint, place: Place::Span(value.span) }))
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
