//! VALUES: what its columns are by the form of what stands in them.

use datafusion::sql::sqlparser::ast::{
    self, CastKind, DataType, Expr, SetExpr, UnaryOperator, Value, ValueWithSpan,
};

use crate::sql::rewrite::null;
use crate::sql::rewrite::numbers::wrap_integer;
use crate::sql::types::sql_type_of;
use crate::types::sql_type::SqlType;

pub(super) fn wrap_values(body: &mut SetExpr) {
    match body {
        SetExpr::Values(values) => {
            let width = values.rows.first().map_or(0, |row| row.content.len());
            for column in 0..width {
                type_column(values, column);
            }
            values.rows.iter_mut().flat_map(|row| row.content.iter_mut()).for_each(wrap_integer);
        }
        SetExpr::SetOperation { left, right, .. } => {
            wrap_values(left);
            wrap_values(right);
        }
        _ => {}
    }
}

/// In a column of VALUES in which some value says its type, quoted literals take it; numbers
/// beside a float are floats.
fn type_column(values: &mut ast::Values, column: usize) {
    let cells = || values.rows.iter().filter_map(|row| row.content.get(column));
    let Some(data_type) = cells().find_map(said_type) else { return };
    let is_float = matches!(sql_type_of(&data_type), Ok(SqlType::Float4 | SqlType::Float8));
    for row in &mut values.rows {
        let Some(cell) = row.content.get_mut(column) else { continue };
        if is_quoted(cell) || is_float && is_number(cell) {
            let expr = Box::new(std::mem::replace(cell, null()));
            *cell = Expr::Cast {
                kind: CastKind::DoubleColon,
                expr,
                data_type: data_type.clone(),
                array: false,
                format: None,
            };
        }
    }
}

/// The type that an expression has by its form.
fn said_type(expr: &Expr) -> Option<DataType> {
    match expr {
        Expr::Cast { data_type, .. } => Some(data_type.clone()),
        Expr::TypedString(typed) => Some(typed.data_type.clone()),
        Expr::Interval(_) => Some(DataType::Interval { fields: None, precision: None }),
        _ => None,
    }
}

fn is_quoted(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::Value(ValueWithSpan {
            value: Value::SingleQuotedString(_)
                | Value::EscapedStringLiteral(_)
                | Value::DollarQuotedString(_),
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
