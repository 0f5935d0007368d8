//! Small pieces of syntax trees, for statements that are planned as other statements.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    self, ArrayElemTypeDef, BinaryOperator, CastKind, DataType, Distinct, ExactNumberInfo, Expr,
    GroupByExpr, Ident, ObjectName, Query, Select, SelectFlavor, SelectItem, SetExpr, TableAlias,
    TableFactor, TableWithJoins, TimezoneInfo, UnaryOperator, Value, ValueWithSpan, Visit, Visitor,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::types::sql_type::SqlType;

/// An identifier that is not folded.
pub fn quoted(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

/// `table.column`.
pub fn column(table: &Ident, name: &str) -> Expr {
    Expr::CompoundIdentifier(vec![table.clone(), quoted(name)])
}

pub fn equal(left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::Eq, right: Box::new(right) }
}

/// All conditions joined by AND.
pub fn conjunction(conditions: Vec<Expr>) -> Option<Expr> {
    conditions.into_iter().reduce(|left, right| Expr::BinaryOp {
        left: Box::new(left),
        op: BinaryOperator::And,
        right: Box::new(right),
    })
}

fn value(value: Value) -> Expr {
    Expr::Value(ValueWithSpan { value, span: Span::empty() })
}

/// The number 1.
pub fn one() -> Expr {
    value(Value::Number("1".to_owned(), false))
}

/// NULL of a type.
pub fn typed_null(sql_type: Option<SqlType>) -> Expr {
    match sql_type.as_ref().and_then(type_syntax) {
        Some(data_type) => cast(value(Value::Null), data_type),
        None => value(Value::Null),
    }
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

/// Whether a value is the word DEFAULT.
pub fn is_default(expr: &Expr) -> bool {
    match expr {
        Expr::Identifier(ident) => {
            ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default")
        }
        _ => false,
    }
}

fn is_untyped(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::Value(ValueWithSpan {
            value: Value::SingleQuotedString(_)
                | Value::EscapedStringLiteral(_)
                | Value::DollarQuotedString(_)
                | Value::Placeholder(_)
                | Value::Null,
            ..
        })
    )
}

fn is_number(expr: &Expr) -> bool {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::Number(..), .. }) => true,
        Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, expr } => is_number(expr),
        _ => false,
    }
}

/// A quoted literal, a parameter or NULL has no type yet: it takes that of the column it is for.
pub fn take_type(expr: &mut Expr, sql_type: Option<SqlType>) {
    // Numbers, too, beside others in VALUES: 0.1 beside 'NaN' is no numeric in a float column.
    let is_float = matches!(sql_type, Some(SqlType::Float4 | SqlType::Float8));
    let takes = is_untyped(expr) || is_float && is_number(expr);
    if !takes {
        return;
    }
    if let Some(data_type) = sql_type.as_ref().and_then(type_syntax) {
        let literal = std::mem::replace(expr, value(Value::Null));
        *expr = cast(literal, data_type);
    }
}

/// A type as its name in SQL; `None` for rows, which have none.
fn type_syntax(sql_type: &SqlType) -> Option<DataType> {
    Some(match sql_type {
        SqlType::Boolean => DataType::Boolean,
        SqlType::Int2 => DataType::SmallInt(None),
        SqlType::Int4 => DataType::Int(None),
        // No column has the type oid.
        SqlType::Int8 | SqlType::Oid => DataType::BigInt(None),
        SqlType::Float4 => DataType::Real,
        SqlType::Float8 => DataType::DoublePrecision,
        SqlType::Numeric(precision, scale) => DataType::Numeric(
            ExactNumberInfo::PrecisionAndScale(u64::from(*precision), i64::from(*scale)),
        ),
        SqlType::Text => DataType::Text,
        SqlType::Bytea => DataType::Bytea,
        SqlType::Date => DataType::Date,
        SqlType::Time => DataType::Time(None, TimezoneInfo::None),
        SqlType::Timestamp => DataType::Timestamp(None, TimezoneInfo::None),
        SqlType::Timestamptz => DataType::Timestamp(None, TimezoneInfo::Tz),
        SqlType::Interval => DataType::Interval { fields: None, precision: None },
        SqlType::Uuid => DataType::Uuid,
        SqlType::Json => DataType::JSON,
        SqlType::Jsonb => DataType::JSONB,
        SqlType::Array(item) => {
            DataType::Array(ArrayElemTypeDef::SquareBracket(Box::new(type_syntax(item)?), None))
        }
        SqlType::Record(_) => return None,
    })
}

/// A table in FROM.
pub fn table_factor(name: ObjectName, alias: Option<Ident>) -> TableWithJoins {
    let alias = alias.map(|name| TableAlias { explicit: true, name, columns: vec![], at: None });
    let relation = TableFactor::Table {
        name,
        alias,
        args: None,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    };
    TableWithJoins { relation, joins: vec![] }
}

/// `SELECT items FROM tables WHERE condition`.
pub fn query_of(items: Vec<Expr>, from: Vec<TableWithJoins>, condition: Option<Expr>) -> Query {
    let select = Select {
        select_token: AttachedToken::empty(),
        optimizer_hints: vec![],
        distinct: None,
        select_modifiers: None,
        top: None,
        top_before_distinct: false,
        projection: items.into_iter().map(SelectItem::UnnamedExpr).collect(),
        exclude: None,
        into: None,
        from,
        lateral_views: vec![],
        prewhere: None,
        selection: condition,
        connect_by: vec![],
        group_by: GroupByExpr::Expressions(vec![], vec![]),
        cluster_by: vec![],
        distribute_by: vec![],
        sort_by: vec![],
        having: None,
        named_window: vec![],
        qualify: None,
        window_before_qualify: false,
        value_table_mode: None,
        flavor: SelectFlavor::Standard,
    };
    Query {
        with: None,
        body: Box::new(SetExpr::Select(Box::new(select))),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: vec![],
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: vec![],
    }
}

/// Adds DISTINCT ON; nothing when `exprs` is empty.
pub fn distinct_on(query: &mut Query, exprs: Vec<Expr>) {
    if let (SetExpr::Select(select), false) = (query.body.as_mut(), exprs.is_empty()) {
        select.distinct = Some(Distinct::On(exprs));
    }
}

/// Whether an expression or item of a select list reads anything but its rows.
pub fn has_subquery(part: &impl Visit) -> bool {
    struct Finder;
    impl Visitor for Finder {
        type Break = ();

        fn pre_visit_query(&mut self, _query: &ast::Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    part.visit(&mut Finder).is_break()
}
