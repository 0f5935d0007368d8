//! What Postgres means by a syntax tree, said in the words that DataFusion plans.
//!
//! One walk over a copy of the tree, before names are looked up:
//! 1. An integer literal that fits is `integer`, as in Postgres (DataFusion reads `bigint`): where
//!    its type can show (operands, CASE, lists, select items, VALUES) it gets a cast. Positions in
//!    ORDER BY and GROUP BY, LIMIT, subscripts and arguments of functions stay as they are.
//! 2. Unnamed select items get the name that Postgres gives them (`count`, `?column?`, `case`),
//!    made unique within their list (`sql::schema` takes the mark off again).
//! 3. `current_date` and its kin are written with `now()`; AT TIME ZONE is `timezone(zone, time)`.
//! 4. `pg_catalog.` in front of functions and types, COLLATE "default" and `OPERATOR(...)` go.
//! 5. FETCH FIRST n ROWS ONLY is LIMIT n; a row comparison is a conjunction.
//! 6. Windows of event time are plain SQL (`sql::windows`).
//! 7. A parameter under a cast, in LIMIT or as a bare select item takes its type from there.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentList, FunctionArguments, Ident, LimitClause, NamedWindowDefinition,
    NamedWindowExpr, ObjectName, OrderByExpr, OrderByKind, Query, Select, SelectItem, SetExpr,
    TableFactor, UnaryOperator, Value, ValueWithSpan, Visit, VisitMut, Visitor, VisitorMut,
    WindowSpec, WindowType,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::functions::scalar::char::AS_CHAR;
use crate::functions::scalar::datetime::ROUND_TIME;
use crate::sql::catalog_query::{rewrite_catalog_expr, rewrite_catalog_query};
use crate::sql::parse::name::normalize as fold;
use crate::sql::parse::types::modifier;
use crate::sql::rewrite::arrays::{array_of_columns, array_of_rows, sort_unnested};
use crate::sql::rewrite::frames::plain_frame;
use crate::sql::rewrite::functions::{drop_constant_order, rewrite_function};
use crate::sql::rewrite::names::name_columns;
use crate::sql::rewrite::numbers::{as_integer, without_exponent, wrap_integer, wrap_integers};
use crate::sql::rewrite::row_subquery::{rows_in_condition, rows_in_subquery};
use crate::sql::rewrite::rows::{compare_rows, row_in_list};
use crate::sql::rewrite::tables::{
    name_function_column, number_elements, select_function, spread_series, unnest_constants,
    unnest_function, unnest_series,
};
use crate::sql::rewrite::using::{merge_joined_columns, name_merged_columns};
use crate::sql::rewrite::values::wrap_values;
use crate::sql::system_time::rewrite_system_time;
use crate::sql::types::sql_type_of;
use crate::sql::windows::{
    expand_group_window, expand_group_window_of_select, expand_window_function,
};
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::{Modifier, NUMERIC_DEFAULT, SqlType};

mod arrays;
mod frames;
mod functions;
mod named_windows;
pub mod names;
mod numbers;
mod row_subquery;
mod rows;
pub mod tables;
mod using;
mod values;

/// Functions of numbers, which Postgres takes to be double precision when nothing says otherwise.
const NUMERIC_FUNCTIONS: [&str; 20] = [
    "abs", "acos", "asin", "atan", "cbrt", "ceil", "ceiling", "cos", "degrees", "exp", "floor",
    "ln", "log", "power", "radians", "round", "sin", "sqrt", "tan", "trunc",
];
/// As many as the protocol can number.
const PARAMETERS_MAX: usize = 65_535;

/// The tree in DataFusion's words, and the types of parameters as far as they are known: those
/// declared, then those that a cast or a clause says.
pub struct Rewritten<T> {
    pub tree: T,
    pub parameters: Vec<Option<SqlType>>,
}

/// Rewrites a query.
///
/// # Errors
/// SQLSTATE 0A000 for clauses that no plan has.
pub fn rewrite_query(query: &Query, declared: &[Option<SqlType>]) -> Result<Rewritten<Query>> {
    let mut tree = query.clone();
    rewrite_catalog_query(&mut tree);
    let parameters = rewrite(&mut tree, declared)?;
    Ok(Rewritten { tree, parameters })
}

/// Rewrites a scalar expression.
pub fn rewrite_expr(expr: &Expr, declared: &[Option<SqlType>]) -> Result<Rewritten<Expr>> {
    let mut tree = expr.clone();
    rewrite_catalog_expr(&mut tree);
    let parameters = rewrite(&mut tree, declared)?;
    wrap_integer(&mut tree);
    Ok(Rewritten { tree, parameters })
}

fn rewrite<T: VisitMut>(
    tree: &mut T,
    declared: &[Option<SqlType>],
) -> Result<Vec<Option<SqlType>>> {
    let mut rewriter = Rewriter { parameters: declared.to_vec() };
    match tree.visit(&mut rewriter) {
        ControlFlow::Continue(()) => Ok(rewriter.parameters),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Rewriter {
    parameters: Vec<Option<SqlType>>,
}

impl VisitorMut for Rewriter {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        flow(named_windows::write_out_order(query).and_then(|()| {
            expand_group_window(query)?;
            self.rewrite_limit(query)
        }))
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        wrap_values(&mut query.body);
        sort_unnested(query);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        unnest_function(factor);
        unnest_series(factor);
        number_elements(factor);
        unnest_constants(factor);
        select_function(factor);
        flow(expand_window_function(factor))
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        name_function_column(factor);
        ControlFlow::Continue(())
    }

    // Names come from the tree as the user wrote it, so before the walk goes down.
    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        flow(reject_windows(select.selection.as_ref(), "WHERE").and_then(|()| {
            reject_windows(select.having.as_ref(), "HAVING")?;
            named_windows::write_out(select)?;
            if let Some(condition) = &mut select.selection {
                rows_in_condition(condition)?;
            }
            expand_group_window_of_select(select)?;
            rewrite_system_time(select)?;
            name_merged_columns(select);
            merge_joined_columns(select)?;
            name_columns(select)
        }))
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                wrap_integer(expr);
                spread_series(expr);
            }
        }
        for NamedWindowDefinition(_, window) in &mut select.named_window {
            if let NamedWindowExpr::WindowSpec(window) = window {
                plain_frame(window);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        flow(self.rewrite_before(expr))
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        flow(rewrite_after(expr))
    }
}

fn flow(result: Result<()>) -> ControlFlow<Error> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

impl Rewriter {
    /// Steps 5 and 7 of a query's LIMIT and FETCH.
    fn rewrite_limit(&mut self, query: &mut Query) -> Result<()> {
        if let Some(fetch) = query.fetch.take() {
            if fetch.percent {
                return Err(Error::unsupported("FETCH FIRST ... PERCENT")
                    .hint("Filter by percent_rank() over the same order instead."));
            }
            if fetch.with_ties {
                return self.rank_ties(query, fetch.quantity);
            }
            let quantity = fetch.quantity.unwrap_or_else(|| integer(1));
            match &mut query.limit_clause {
                None => {
                    query.limit_clause = Some(LimitClause::LimitOffset {
                        limit: Some(quantity),
                        offset: None,
                        limit_by: vec![],
                    });
                }
                Some(LimitClause::LimitOffset { limit: limit @ None, .. }) => {
                    *limit = Some(quantity);
                }
                Some(_) => {
                    return Err(Error::user(
                        SqlState::SYNTAX_ERROR,
                        "LIMIT and FETCH cannot both be given",
                    ));
                }
            }
        }
        let mut counts: Vec<&mut Expr> = vec![];
        match &mut query.limit_clause {
            Some(LimitClause::LimitOffset { limit, offset, .. }) => {
                counts.extend(limit.iter_mut());
                counts.extend(offset.iter_mut().map(|o| &mut o.value));
            }
            Some(LimitClause::OffsetCommaLimit { offset, limit }) => {
                counts.extend([offset, limit]);
            }
            None => {}
        }
        for count in counts {
            self.take_parameter_type(count, &SqlType::Int8)?;
        }
        Ok(())
    }

    /// FETCH FIRST n ROWS WITH TIES after OFFSET m: the rows whose rank is at most m + n, without
    /// the first m.
    fn rank_ties(&mut self, query: &mut Query, quantity: Option<Expr>) -> Result<()> {
        let order_by = match query.order_by.as_ref().map(|order_by| &order_by.kind) {
            Some(OrderByKind::Expressions(exprs)) if !exprs.is_empty() => exprs.clone(),
            _ => {
                return Err(Error::user(
                    SqlState::SYNTAX_ERROR,
                    "WITH TIES cannot be specified without ORDER BY clause",
                ));
            }
        };
        let unsupported = || {
            Error::unsupported("FETCH FIRST ... WITH TIES in this place")
                .hint("Filter by rank() over the same order instead.")
        };
        let SetExpr::Select(select) = &mut *query.body else { return Err(unsupported()) };
        if select.distinct.is_some() {
            return Err(unsupported());
        }
        let order_by = order_by
            .into_iter()
            .map(|by| Ok(OrderByExpr { expr: selected(by.expr, &select.projection)?, ..by }))
            .collect::<Result<Vec<_>>>()?;
        let window = |function: &str| {
            let mut ranked = call(function, vec![]);
            if let Expr::Function(function) = &mut ranked {
                function.over = Some(WindowType::WindowSpec(WindowSpec {
                    window_name: None,
                    partition_by: vec![],
                    order_by: order_by.clone(),
                    window_frame: None,
                }));
            }
            ranked
        };
        let quantity = quantity.unwrap_or_else(|| integer(1));
        self.take_parameter_type(&quantity, &SqlType::Int8)?;
        let binary = |left: Expr, op: BinaryOperator, right: Expr| Expr::BinaryOp {
            left: Box::new(left),
            op,
            right: Box::new(right),
        };
        let skipped = match query.limit_clause.take() {
            None => None,
            Some(LimitClause::LimitOffset { limit: None, offset, limit_by })
                if limit_by.is_empty() =>
            {
                offset.map(|offset| offset.value)
            }
            Some(_) => {
                return Err(Error::user(
                    SqlState::SYNTAX_ERROR,
                    "LIMIT and FETCH cannot both be given",
                ));
            }
        };
        let mut condition = match skipped {
            None => binary(window("rank"), BinaryOperator::LtEq, quantity),
            Some(skipped) => {
                self.take_parameter_type(&skipped, &SqlType::Int8)?;
                let last = binary(skipped.clone(), BinaryOperator::Plus, quantity);
                let last = binary(window("rank"), BinaryOperator::LtEq, last);
                let first = binary(window("row_number"), BinaryOperator::Gt, skipped);
                binary(last, BinaryOperator::And, first)
            }
        };
        if let Some(other) = select.qualify.take() {
            let other = Expr::Nested(Box::new(other));
            condition = binary(other, BinaryOperator::And, condition);
        }
        select.qualify = Some(condition);
        Ok(())
    }

    /// If `expr` is a bare parameter of unknown type, its type is `sql_type`.
    fn take_parameter_type(&mut self, expr: &Expr, sql_type: &SqlType) -> Result<bool> {
        let Some(index) = parameter_index(expr)? else { return Ok(false) };
        if self.parameters.len() <= index {
            self.parameters.resize(index + 1, None);
        }
        let known = self.parameters[index].get_or_insert_with(|| sql_type.clone());
        Ok(known == sql_type)
    }

    /// A parameter that is the argument of a numeric function is a number, as Postgres resolves it.
    fn take_function_types(&mut self, function: &Function) -> Result<()> {
        let FunctionArguments::List(list) = &function.args else { return Ok(()) };
        let name = function.name.0.last().and_then(|p| p.as_ident()).map(fold).unwrap_or_default();
        if !NUMERIC_FUNCTIONS.contains(&name.as_str()) {
            return Ok(());
        }
        // Digits are counted for numeric only.
        let counts_digits = list.args.len() == 2 && matches!(name.as_str(), "round" | "trunc");
        let number = if counts_digits {
            SqlType::Numeric(NUMERIC_DEFAULT.0, NUMERIC_DEFAULT.1)
        } else {
            SqlType::Float8
        };
        for (index, arg) in list.args.iter().enumerate() {
            if let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = arg {
                let digits = counts_digits && index == 1;
                self.take_parameter_type(expr, if digits { &SqlType::Int4 } else { &number })?;
            }
        }
        Ok(())
    }

    fn rewrite_before(&mut self, expr: &mut Expr) -> Result<()> {
        rows_in_subquery(expr)?;
        match expr {
            Expr::Value(_) => {
                // Every parameter has a place, also one whose type nothing says.
                if let Some(index) = parameter_index(expr)?
                    && self.parameters.len() <= index
                {
                    self.parameters.resize(index + 1, None);
                }
            }
            // A word that no column can be called, but sqlparser knows as one.
            Expr::Identifier(ident) if ident.quote_style.is_none() => {
                let name = fold(ident);
                if matches!(name.as_str(), "current_schema" | "current_catalog") {
                    *expr = call(&name, vec![]);
                }
            }
            Expr::Cast { expr: inner, data_type, array: false, .. } => {
                if let Ok(sql_type) = sql_type_of(data_type)
                    && self.take_parameter_type(inner, &sql_type)?
                {
                    let inner = std::mem::replace(&mut **inner, null());
                    *expr = inner;
                }
            }
            Expr::BinaryOp { left, op, right } => {
                if let BinaryOperator::PGCustomBinaryOperator(parts) = op {
                    *op = named_operator(parts)?;
                }
                if let (BinaryOperator::Overlaps, Expr::Tuple(lefts), Expr::Tuple(rights)) =
                    (&*op, &**left, &**right)
                {
                    *expr = call("overlaps", [lefts.as_slice(), rights.as_slice()].concat());
                } else if let (Expr::Tuple(lefts), Expr::Tuple(rights)) = (&**left, &**right) {
                    *expr = compare_rows(op, lefts, rights)?;
                }
            }
            Expr::InList { expr: inner, list, negated } => {
                if let Expr::Tuple(_) = **inner {
                    *expr = row_in_list(inner, list, *negated)?;
                }
            }
            Expr::Function(function) => {
                self.take_function_types(function)?;
                array_of_rows(expr)?;
            }
            Expr::Collate { expr: inner, collation } => {
                let name = collation.0.last().map(ToString::to_string).unwrap_or_default();
                let name = name.trim_matches('"').to_lowercase();
                if !matches!(name.as_str(), "default" | "c" | "posix" | "ucs_basic") {
                    return Err(Error::unsupported(format!("collation \"{name}\""))
                        .hint("Text is ordered by code point, as with COLLATE \"C\"."));
                }
                let inner = std::mem::replace(&mut **inner, null());
                *expr = inner;
                // The node that took its place has not been looked at yet.
                self.rewrite_before(expr)?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// For `x = ANY($1)`: the query with `x = $1` in its place, which tells the type of the array's
/// items, and the parameters that are such arrays. `None` when there are none.
pub fn array_parameters(query: &Query) -> Option<(Query, Vec<usize>)> {
    struct Prober {
        arrays: Vec<usize>,
    }
    impl VisitorMut for Prober {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::AnyOp { left, compare_op, right, .. }
            | Expr::AllOp { left, compare_op, right } = expr
                && let Ok(Some(index)) = parameter_index(right)
            {
                self.arrays.push(index);
                let (left, right) = (
                    std::mem::replace(&mut **left, null()),
                    std::mem::replace(&mut **right, null()),
                );
                *expr = binary(left, compare_op.clone(), right);
            }
            ControlFlow::Continue(())
        }
    }
    let mut probe = query.clone();
    let mut prober = Prober { arrays: vec![] };
    let _ = VisitMut::visit(&mut probe, &mut prober);
    (!prober.arrays.is_empty()).then_some((probe, prober.arrays))
}

/// The zero-based index of a parameter, when the expression is one.
fn parameter_index(expr: &Expr) -> Result<Option<usize>> {
    let Expr::Value(ValueWithSpan { value: Value::Placeholder(text), .. }) = expr else {
        return Ok(None);
    };
    let number: Option<usize> = text.strip_prefix('$').and_then(|n| n.parse().ok());
    match number {
        Some(n) if (1..=PARAMETERS_MAX).contains(&n) => Ok(Some(n - 1)),
        _ => {
            Err(Error::user(SqlState::UNDEFINED_PARAMETER, format!("there is no parameter {text}")))
        }
    }
}

/// Steps 1, 3 and 4, children first.
fn rewrite_after(expr: &mut Expr) -> Result<()> {
    match expr {
        Expr::BinaryOp { left, right, .. }
        | Expr::IsDistinctFrom(left, right)
        | Expr::IsNotDistinctFrom(left, right)
        | Expr::AnyOp { left, right, .. }
        | Expr::AllOp { left, right, .. } => wrap_integers([&mut **left, &mut **right]),
        Expr::Between { expr, low, high, .. } => {
            wrap_integers([&mut **expr, &mut **low, &mut **high]);
        }
        Expr::InList { expr, list, .. } => {
            wrap_integer(expr);
            wrap_integers(list);
        }
        Expr::InSubquery { expr, .. } => wrap_integer(expr),
        Expr::Case { operand, conditions, else_result, .. } => {
            wrap_integers(operand.iter_mut().chain(else_result).map(|e| &mut **e));
            for when in conditions {
                wrap_integers([&mut when.condition, &mut when.result]);
            }
        }
        Expr::Array(array) => {
            wrap_integers(&mut array.elem);
            array_of_columns(expr);
        }
        Expr::Value(ValueWithSpan { value: Value::Number(text, _), .. }) => {
            if let Some(plain) = without_exponent(text) {
                *text = plain;
            } else if text.contains(['e', 'E']) {
                let float = Value::SingleQuotedString(std::mem::take(text));
                let float = Expr::Value(ValueWithSpan { value: float, span: Span::empty() });
                *expr = cast(float, DataType::DoublePrecision);
            }
        }
        // A sign and parentheses belong to the literal: what is around decides.
        Expr::Nested(inner) if as_integer(inner).is_some() => {
            let inner = std::mem::replace(&mut **inner, null());
            *expr = inner;
        }
        Expr::Cast { expr: inner, data_type, .. } => {
            // An explicit cast to varchar(n) or char(n) cuts, as in Postgres.
            let inner = &mut **inner;
            match modifier(data_type) {
                Some(Modifier::Varchar(length)) => {
                    let text = cast(std::mem::replace(inner, null()), DataType::Text);
                    *expr = call("left", vec![text, integer(length.unsigned_abs())]);
                }
                Some(Modifier::Char(length)) => {
                    let text = cast(std::mem::replace(inner, null()), DataType::Text);
                    *expr = call(AS_CHAR, vec![text, integer(length.unsigned_abs())]);
                }
                Some(Modifier::Fraction(digits)) => {
                    let time = cast(std::mem::replace(inner, null()), data_type.clone());
                    *expr = call(ROUND_TIME, vec![time, integer(digits.unsigned_abs())]);
                }
                None => {}
            }
        }
        Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
            rewrite_escape(pattern, escape_char)?;
        }
        Expr::AtTimeZone { timestamp, time_zone } => {
            let timestamp = std::mem::replace(&mut **timestamp, null());
            let time_zone = std::mem::replace(&mut **time_zone, null());
            *expr = call("timezone", vec![time_zone, timestamp]);
        }
        Expr::Function(function) => {
            if let Some(WindowType::WindowSpec(window)) = &mut function.over {
                plain_frame(window);
            }
            drop_constant_order(function);
            if let Some(other) = rewrite_function(function)? {
                *expr = other;
            }
        }
        Expr::SimilarTo { negated, expr: inner, pattern, escape_char } => {
            let mut args = vec![
                std::mem::replace(&mut **inner, null()),
                std::mem::replace(&mut **pattern, null()),
            ];
            args.extend(escape_char.take().map(Expr::Value));
            let negated = *negated;
            *expr = call("similar_to", args);
            if negated {
                let inner = std::mem::replace(expr, null());
                *expr = Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(inner) };
            }
        }
        Expr::UnaryOp { op, expr: inner } => {
            let function = match op {
                UnaryOperator::PGSquareRoot => "sqrt",
                UnaryOperator::PGCubeRoot => "cbrt",
                UnaryOperator::PGAbs => "abs",
                _ => return Ok(()),
            };
            let inner = std::mem::replace(&mut **inner, null());
            *expr = call(function, vec![inner]);
        }
        Expr::Tuple(values) => {
            let mut values = std::mem::take(values);
            wrap_integers(&mut values);
            *expr = call("struct", values);
        }
        Expr::Interval(interval) => {
            if let Some(text) = interval_text(interval) {
                let text = Expr::Value(ValueWithSpan {
                    value: Value::SingleQuotedString(text),
                    span: Span::empty(),
                });
                *expr = cast(text, DataType::Interval { fields: None, precision: None });
            }
        }
        _ => {}
    }
    Ok(())
}

/// A pattern with an escape character of its own as one that escapes by backslash.
fn rewrite_escape(pattern: &mut Expr, escape_char: &mut Option<ValueWithSpan>) -> Result<()> {
    let Some(Value::SingleQuotedString(escape)) = escape_char.as_ref().map(|e| &e.value) else {
        return Ok(());
    };
    let mut chars = escape.chars();
    let escape = match (chars.next(), chars.next()) {
        (escape, None) if escape != Some('\\') => escape,
        (_, None) => return Ok(()),
        _ => {
            return Err(Error::user(SqlState("22019"), "invalid escape string")
                .hint("Escape string must be empty or one character."));
        }
    };
    // Stands for the escape character itself while the others are exchanged.
    const MARK: &str = "\u{1f}";
    let replace = |text: Expr, from: &str, to: &str| {
        let literal = |text: &str| {
            let value = Value::SingleQuotedString(text.to_owned());
            Expr::Value(ValueWithSpan { value, span: Span::empty() })
        };
        call("replace", vec![text, literal(from), literal(to)])
    };
    let mut text = std::mem::replace(pattern, null());
    text = replace(text, "\\", "\\\\");
    if let Some(escape) = escape {
        let escape = escape.to_string();
        text = replace(text, &escape.repeat(2), MARK);
        text = replace(text, &escape, "\\");
        text = replace(text, MARK, &escape);
    }
    *pattern = text;
    *escape_char = None;
    Ok(())
}

/// The text of an interval literal, its unit included, for Postgres's own reading of it.
fn interval_text(interval: &ast::Interval) -> Option<String> {
    let text = match interval.value.as_ref() {
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) => text,
        Expr::Value(ValueWithSpan { value: Value::Number(text, _), .. }) => text,
        _ => return None,
    };
    Some(match (&interval.leading_field, &interval.last_field) {
        // '5' MINUTE; for '1:30' HOUR TO MINUTE the text says enough.
        (Some(unit), None) if text.trim().parse::<f64>().is_ok() => format!("{text} {unit}"),
        _ => text.clone(),
    })
}

/// `OPERATOR(pg_catalog.~)` is `~`.
fn named_operator(parts: &[String]) -> Result<BinaryOperator> {
    let name = parts.last().map_or("", String::as_str);
    Ok(match name {
        "=" => BinaryOperator::Eq,
        "<>" | "!=" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        "<=" => BinaryOperator::LtEq,
        ">" => BinaryOperator::Gt,
        ">=" => BinaryOperator::GtEq,
        "+" => BinaryOperator::Plus,
        "-" => BinaryOperator::Minus,
        "*" => BinaryOperator::Multiply,
        "/" => BinaryOperator::Divide,
        "%" => BinaryOperator::Modulo,
        "||" => BinaryOperator::StringConcat,
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "~~" => BinaryOperator::PGLikeMatch,
        "~~*" => BinaryOperator::PGILikeMatch,
        "!~~" => BinaryOperator::PGNotLikeMatch,
        "!~~*" => BinaryOperator::PGNotILikeMatch,
        other => {
            return Err(Error::user(
                SqlState::UNDEFINED_FUNCTION,
                format!("operator does not exist: {other}"),
            ));
        }
    })
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

fn null() -> Expr {
    Expr::Value(ValueWithSpan { value: Value::Null, span: Span::empty() })
}

fn integer(n: u64) -> Expr {
    Expr::Value(ValueWithSpan { value: Value::Number(n.to_string(), false), span: Span::empty() })
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast {
        kind: CastKind::DoubleColon,
        expr: Box::new(expr),
        data_type,
        array: false,
        format: None,
    }
}

/// A call of a function by name.
pub fn call(name: &str, args: Vec<Expr>) -> Expr {
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: args
                .into_iter()
                .map(|e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e)))
                .collect(),
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

/// SQLSTATE 42P20 for a window function in a clause that is computed before windows are.
fn reject_windows(condition: Option<&Expr>, clause: &str) -> Result<()> {
    struct Finder;
    impl Visitor for Finder {
        type Break = bool;

        // A subquery has clauses of its own.
        fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<bool> {
            ControlFlow::Break(false)
        }

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<bool> {
            match expr {
                Expr::Function(function) if function.over.is_some() => ControlFlow::Break(true),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    match condition.map(|condition| condition.visit(&mut Finder)) {
        Some(ControlFlow::Break(true)) => Err(Error::user(
            SqlState::WINDOWING_ERROR,
            format!("window functions are not allowed in {clause}"),
        )),
        _ => Ok(()),
    }
}

/// What ORDER BY means by the number or name of a select item: its expression.
fn selected(expr: Expr, projection: &[SelectItem]) -> Result<Expr> {
    if let Some(number) = as_integer(&expr) {
        let item = number.parse::<usize>().ok().and_then(|n| projection.get(n.checked_sub(1)?));
        return match item {
            Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) => {
                Ok(expr.clone())
            }
            _ => Err(Error::unsupported("ORDER BY a number with WITH TIES in this place")
                .hint("Write the expression itself.")),
        };
    }
    let Expr::Identifier(name) = &expr else { return Ok(expr) };
    let named = projection.iter().find_map(|item| match item {
        SelectItem::ExprWithAlias { expr, alias } if fold(alias) == fold(name) => Some(expr),
        _ => None,
    });
    Ok(named.cloned().unwrap_or(expr))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    fn rewritten(sql: &str) -> Rewritten<Query> {
        let dialect = PostgreSqlDialect {};
        let query = Parser::new(&dialect)
            .try_with_sql(sql)
            .and_then(|mut parser| parser.parse_query())
            .expect("valid SQL");
        rewrite_query(&query, &[]).expect("rewrites")
    }

    fn check(sql: &str, expected: &str) {
        let text = rewritten(sql).tree.to_string();
        assert_eq!(text.replace('\u{1f}', "#"), expected);
    }

    #[test]
    fn unnamed_columns_get_postgres_names() {
        check(
            "SELECT a.x, count(*), x + 1, x::text, '1'::bigint, CASE WHEN x THEN 1 END FROM a",
            "SELECT a.x, count(*) AS \"count\", x + 1::INT AS \"?column?\", x::TEXT AS \"x#2\", \
             '1'::BIGINT AS \"int8\", CASE WHEN x THEN 1::INT END AS \"case\" FROM a",
        );
        check("SELECT 1, 2", "SELECT 1::INT AS \"?column?\", 2::INT AS \"?column?#2\"");
        check("SELECT *, x FROM t", "SELECT *, x AS \"x#1\" FROM t");
        check(
            "SELECT (SELECT max(v) FROM t), EXISTS (SELECT FROM t), true",
            "SELECT (SELECT max(v) AS \"max\" FROM t) AS \"max\", \
             EXISTS (SELECT FROM t) AS \"exists\", true AS \"?column?\"",
        );
    }

    #[test]
    fn integer_literals_are_integers_where_it_shows() {
        check(
            "SELECT x FROM t WHERE x IN (1, -2) AND y > 3000000000 GROUP BY 1 ORDER BY 1 LIMIT 5",
            "SELECT x FROM t WHERE x IN (1::INT, -2::INT) AND y > 3000000000 GROUP BY 1 \
             ORDER BY 1 LIMIT 5",
        );
        check("VALUES (1, 'a')", "VALUES (1::INT, 'a')");
        check(
            "SELECT coalesce(x, 0), round(x, 2) AS r, 99999999999999999999 AS n FROM t",
            "SELECT coalesce(x, 0::INT) AS \"coalesce\", round(x, 2) AS r, \
             99999999999999999999. AS n FROM t",
        );
    }

    #[test]
    fn rows_fetch_and_time_words() {
        check(
            "SELECT current_date FETCH FIRST 3 ROWS ONLY",
            "SELECT now()::DATE AS \"current_date\" LIMIT 3",
        );
        check(
            "SELECT x FROM t WHERE (a, b) = (1, 2) AND ts AT TIME ZONE 'UTC' > z",
            "SELECT x FROM t WHERE (a = 1::INT AND b = 2::INT) AND timezone('UTC', ts) > z",
        );
    }

    #[test]
    fn parameters_take_types_from_casts_and_limits() {
        let rewritten = rewritten("SELECT $1::int4, x FROM t WHERE y = $3 LIMIT $2");
        assert_eq!(rewritten.parameters, [Some(SqlType::Int4), Some(SqlType::Int8), None]);
        assert_eq!(
            rewritten.tree.to_string(),
            "SELECT $1 AS \"int4\", x FROM t WHERE y = $3 LIMIT $2"
        );
    }
}
