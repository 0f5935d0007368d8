//! Logical expressions to compiled ones, and to text.

use std::fmt::Write;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::expr::{
    AggregateFunction, Between, Case, Cast, InList, Like, ScalarFunction, TryCast,
};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr as LogicalExpr, ExprSchemable, Operator, lit, when};
use datafusion::physical_expr::create_physical_expr;

use crate::functions::scalar::arithmetic::{Arithmetic, ArithmeticOp};
use crate::functions::scalar::call::is_operator;
use crate::functions::scalar::cast::PostgresCast;
use crate::functions::scalar::datetime::TimeArithmetic;
use crate::plan::expr::Expr;
use crate::sql::schema::visible_name;
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::SqlType;

/// Compiles a typed expression over the columns of `schema`.
pub fn compile(expr: &LogicalExpr, schema: &DFSchema) -> Result<Expr> {
    let (_, field) = expr.to_field(schema).map_err(Error::from)?;
    let physical = create_physical_expr(
        expr,
        schema,
        &ExecutionProps::new(),
        &PhysicalPlanningContext::default(),
    )
    .map_err(Error::from)?;
    let compiled = Expr::new(physical, field.data_type().clone(), field.is_nullable());
    Ok(compiled.with_text(text(expr)))
}

/// Refuses what only a query can have.
///
/// # Errors
/// SQLSTATE 0A000 for a subquery, 42803 for an aggregate, 42P20 for a window function.
pub fn reject_relational(expr: &LogicalExpr) -> Result<()> {
    let mut found = Ok(());
    expr.apply(|e| {
        found = match e {
            LogicalExpr::ScalarSubquery(_)
            | LogicalExpr::InSubquery(_)
            | LogicalExpr::Exists(_)
            | LogicalExpr::SetComparison(_) => Err(Error::user(
                SqlState::FEATURE_NOT_SUPPORTED,
                "cannot use subquery in this expression",
            )),
            LogicalExpr::AggregateFunction(_) => Err(Error::user(
                SqlState::GROUPING_ERROR,
                "aggregate functions are not allowed in this expression",
            )),
            LogicalExpr::WindowFunction(_) => Err(Error::user(
                SqlState::WINDOWING_ERROR,
                "window functions are not allowed in this expression",
            )),
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        Ok(TreeNodeRecursion::Stop)
    })
    .map_err(Error::from)?;
    found
}

/// A condition in which what may fail is looked at only where all else holds.
///
/// `b <> 0 AND a / b > 1` must not divide by zero: users rely on it, and Postgres evaluates from
/// left to right. Both our executions compute whole columns, so the order is made explicit with
/// CASE. NULL becomes false, which is the same to a condition.
pub fn ordered_condition(condition: LogicalExpr) -> LogicalExpr {
    let (fallible, safe): (Vec<_>, Vec<_>) =
        split_conjunction_owned(condition.clone()).into_iter().partition(may_fail);
    if fallible.is_empty() || fallible.len() + safe.len() == 1 {
        return condition;
    }
    let stages = conjunction(safe).into_iter().chain(fallible);
    stages
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .reduce(|then, first| {
            when(first, then).otherwise(lit(false)).unwrap_or_else(|_| condition.clone())
        })
        .unwrap_or(condition)
}

/// Whether the expression can fail for some values: divisions, functions, and casts that are no
/// plain widening. Overflow of `+ - *` is left out; guarding every sum would cost more than it
/// helps.
pub fn may_fail(expr: &LogicalExpr) -> bool {
    expr.exists(|e| {
        Ok(match e {
            LogicalExpr::ScalarFunction(call) => {
                let function = call.func.inner();
                if let Some(arithmetic) = function.downcast_ref::<Arithmetic>() {
                    matches!(arithmetic.op(), ArithmeticOp::Divide | ArithmeticOp::Modulo)
                } else if let Some(cast) = function.downcast_ref::<PostgresCast>() {
                    cast.may_fail()
                } else {
                    true
                }
            }
            LogicalExpr::BinaryExpr(binary) => {
                matches!(binary.op, Operator::Divide | Operator::Modulo)
            }
            _ => false,
        })
    })
    // The closure gives no error.
    .unwrap_or(true)
}

/// The expression as SQL, for EXPLAIN and for the record of a row that failed.
pub fn text(expr: &LogicalExpr) -> String {
    let mut out = String::new();
    write_expr(&mut out, expr, 0);
    out
}

/// How tightly an operator binds; what binds less needs parentheses inside it.
fn precedence(op: Operator) -> u8 {
    match op {
        Operator::Or => 1,
        Operator::And => 2,
        Operator::Eq
        | Operator::NotEq
        | Operator::Lt
        | Operator::LtEq
        | Operator::Gt
        | Operator::GtEq
        | Operator::IsDistinctFrom
        | Operator::IsNotDistinctFrom => 4,
        Operator::Plus | Operator::Minus => 6,
        Operator::Multiply | Operator::Divide | Operator::Modulo => 7,
        _ => 5,
    }
}

const NOT_PRECEDENCE: u8 = 3;
const POSTFIX_PRECEDENCE: u8 = 8;

fn write_expr(out: &mut String, expr: &LogicalExpr, outer: u8) {
    match expr {
        LogicalExpr::Column(column) => out.push_str(visible_name(&column.name)),
        LogicalExpr::OuterReferenceColumn(_, column) => out.push_str(visible_name(&column.name)),
        LogicalExpr::Alias(alias) => write_expr(out, &alias.expr, outer),
        LogicalExpr::Literal(value, _) => out.push_str(&literal(value)),
        LogicalExpr::BinaryExpr(binary) => {
            let (left, right) = (&binary.left, &binary.right);
            write_infix(out, left, &binary.op.to_string(), precedence(binary.op), right, outer);
        }
        LogicalExpr::Not(inner) => {
            write_parenthesized(out, outer > NOT_PRECEDENCE, |out| {
                out.push_str("NOT ");
                write_expr(out, inner, NOT_PRECEDENCE);
            });
        }
        LogicalExpr::Negative(inner) => {
            out.push('-');
            write_expr(out, inner, POSTFIX_PRECEDENCE);
        }
        LogicalExpr::IsNull(inner) => write_postfix(out, inner, " IS NULL"),
        LogicalExpr::IsNotNull(inner) => write_postfix(out, inner, " IS NOT NULL"),
        LogicalExpr::IsTrue(inner) => write_postfix(out, inner, " IS TRUE"),
        LogicalExpr::IsFalse(inner) => write_postfix(out, inner, " IS FALSE"),
        LogicalExpr::IsUnknown(inner) => write_postfix(out, inner, " IS UNKNOWN"),
        LogicalExpr::IsNotTrue(inner) => write_postfix(out, inner, " IS NOT TRUE"),
        LogicalExpr::IsNotFalse(inner) => write_postfix(out, inner, " IS NOT FALSE"),
        LogicalExpr::IsNotUnknown(inner) => write_postfix(out, inner, " IS NOT UNKNOWN"),
        LogicalExpr::Between(Between { expr, negated, low, high }) => {
            write_parenthesized(out, outer > precedence(Operator::Eq), |out| {
                write_expr(out, expr, 5);
                out.push_str(if *negated { " NOT BETWEEN " } else { " BETWEEN " });
                write_expr(out, low, 5);
                out.push_str(" AND ");
                write_expr(out, high, 5);
            });
        }
        LogicalExpr::InList(InList { expr, list, negated }) => {
            write_parenthesized(out, outer > precedence(Operator::Eq), |out| {
                write_expr(out, expr, 5);
                out.push_str(if *negated { " NOT IN (" } else { " IN (" });
                write_list(out, list);
                out.push(')');
            });
        }
        LogicalExpr::Like(Like { negated, expr, pattern, case_insensitive, .. }) => {
            let word = if *case_insensitive { "ILIKE" } else { "LIKE" };
            let op = if *negated { format!("NOT {word}") } else { word.to_owned() };
            write_infix(out, expr, &op, 5, pattern, outer);
        }
        LogicalExpr::Case(case) => write_case(out, case),
        LogicalExpr::Cast(Cast { expr, field }) | LogicalExpr::TryCast(TryCast { expr, field }) => {
            write_cast(out, expr, SqlType::of_field(field), &field.data_type().to_string());
        }
        LogicalExpr::ScalarFunction(call) => write_call(out, call, outer),
        LogicalExpr::AggregateFunction(call) => write_aggregate(out, call),
        // DataFusion's own spelling: rare, and still readable.
        other => out.push_str(&other.to_string()),
    }
}

fn write_parenthesized(out: &mut String, parentheses: bool, write: impl FnOnce(&mut String)) {
    if parentheses {
        out.push('(');
    }
    write(out);
    if parentheses {
        out.push(')');
    }
}

fn write_infix(
    out: &mut String,
    left: &LogicalExpr,
    op: &str,
    binds: u8,
    right: &LogicalExpr,
    outer: u8,
) {
    write_parenthesized(out, outer > binds, |out| {
        write_expr(out, left, binds);
        out.push(' ');
        out.push_str(op);
        out.push(' ');
        write_expr(out, right, binds + 1);
    });
}

fn write_postfix(out: &mut String, inner: &LogicalExpr, postfix: &str) {
    write_expr(out, inner, POSTFIX_PRECEDENCE);
    out.push_str(postfix);
}

fn write_list(out: &mut String, exprs: &[LogicalExpr]) {
    for (index, expr) in exprs.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        write_expr(out, expr, 0);
    }
}

fn write_case(out: &mut String, case: &Case) {
    out.push_str("CASE");
    if let Some(operand) = &case.expr {
        out.push(' ');
        write_expr(out, operand, 0);
    }
    for (condition, then) in &case.when_then_expr {
        out.push_str(" WHEN ");
        write_expr(out, condition, 0);
        out.push_str(" THEN ");
        write_expr(out, then, 0);
    }
    if let Some(otherwise) = &case.else_expr {
        out.push_str(" ELSE ");
        write_expr(out, otherwise, 0);
    }
    out.push_str(" END");
}

fn write_cast(out: &mut String, expr: &LogicalExpr, sql_type: Option<SqlType>, arrow: &str) {
    write_expr(out, expr, POSTFIX_PRECEDENCE);
    out.push_str("::");
    match sql_type {
        Some(sql_type) => {
            write!(out, "{sql_type}").expect("writing to a string does not fail");
        }
        None => out.push_str(arrow),
    }
}

fn write_call(out: &mut String, call: &ScalarFunction, outer: u8) {
    if let (Some(arithmetic), [left, right]) =
        (call.func.inner().downcast_ref::<Arithmetic>(), call.args.as_slice())
    {
        let binds = match arithmetic.op() {
            ArithmeticOp::Add | ArithmeticOp::Subtract => precedence(Operator::Plus),
            _ => precedence(Operator::Multiply),
        };
        write_infix(out, left, arithmetic.op().symbol(), binds, right, outer);
        return;
    }
    if let (Some(time), [left, right]) =
        (call.func.inner().downcast_ref::<TimeArithmetic>(), call.args.as_slice())
    {
        write_infix(out, left, time.op().symbol(), precedence(Operator::Plus), right, outer);
        return;
    }
    if let (Some(cast), [argument]) =
        (call.func.inner().downcast_ref::<PostgresCast>(), call.args.as_slice())
    {
        write_cast(out, argument, Some(cast.target().clone()), "");
        return;
    }
    // It changes nothing that is seen.
    if let ("marked", [argument]) = (call.func.name(), call.args.as_slice()) {
        write_expr(out, argument, outer);
        return;
    }
    if let ([left, right], true) = (call.args.as_slice(), is_operator(call.func.name())) {
        write_infix(out, left, call.func.name(), 5, right, outer);
        return;
    }
    out.push_str(call.func.name());
    out.push('(');
    write_list(out, &call.args);
    out.push(')');
}

fn write_aggregate(out: &mut String, call: &AggregateFunction) {
    let params = &call.params;
    out.push_str(call.func.name());
    out.push('(');
    if params.distinct {
        out.push_str("DISTINCT ");
    }
    let counts_rows = call.func.name() == "count"
        && params.args.iter().all(|arg| matches!(arg, LogicalExpr::Literal(v, _) if !v.is_null()));
    if counts_rows {
        out.push('*');
    } else {
        write_list(out, &params.args);
    }
    if !params.order_by.is_empty() {
        out.push_str(" ORDER BY ");
        for (index, sort) in params.order_by.iter().enumerate() {
            if index > 0 {
                out.push_str(", ");
            }
            write_expr(out, &sort.expr, 0);
            if !sort.asc {
                out.push_str(" DESC");
            }
        }
    }
    out.push(')');
    if let Some(filter) = &params.filter {
        out.push_str(" FILTER (WHERE ");
        write_expr(out, filter, 0);
        out.push(')');
    }
}

/// A literal as SQL text has it.
fn literal(value: &ScalarValue) -> String {
    match value {
        value if value.is_null() => "NULL".to_owned(),
        ScalarValue::Utf8(Some(text))
        | ScalarValue::LargeUtf8(Some(text))
        | ScalarValue::Utf8View(Some(text)) => format!("'{}'", text.replace('\'', "''")),
        ScalarValue::Decimal128(Some(digits), _, scale) => decimal(*digits, *scale),
        value => {
            let quoted = value.data_type().is_temporal();
            let text = match value.to_array() {
                Ok(array) => arrow::util::display::array_value_to_string(&array, 0)
                    .unwrap_or_else(|_| value.to_string()),
                Err(_) => value.to_string(),
            };
            if quoted { format!("'{text}'") } else { text }
        }
    }
}

fn decimal(digits: i128, scale: i8) -> String {
    let Ok(scale) = usize::try_from(scale) else { return digits.to_string() };
    if scale == 0 {
        return digits.to_string();
    }
    let sign = if digits < 0 { "-" } else { "" };
    let text = format!("{:0width$}", digits.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = text.split_at(text.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::logical_expr::{col, not};

    #[test]
    fn expressions_print_as_sql_with_the_parentheses_they_need() {
        let sum = (col("a").eq(lit(1)).or(col("b").lt(lit("x'y")))).and(not(col("c")));
        assert_eq!(text(&sum), "(a = 1 OR b < 'x''y') AND NOT c");
        let product = (col("a") - (col("b") - lit(2))) * lit(3);
        assert_eq!(text(&product), "(a - (b - 2)) * 3");
        let decimal = lit(ScalarValue::Decimal128(Some(-5), 3, 2));
        assert_eq!(
            text(&col("t.x").is_not_null().or(col("y").in_list(vec![decimal], true))),
            "x IS NOT NULL OR y NOT IN (-0.05)"
        );
    }

    #[test]
    fn what_may_fail_comes_last() {
        let divides = (col("a") / col("b")).gt(lit(1));
        let condition = divides.and(col("b").not_eq(lit(0)));
        assert_eq!(
            text(&ordered_condition(condition)),
            "CASE WHEN b != 0 THEN a / b > 1 ELSE false END"
        );
        let safe = col("a").gt(lit(1)).and(col("b").gt(lit(2)));
        assert_eq!(ordered_condition(safe.clone()), safe);
    }
}
