//! Conditions that compare with now(): a `TemporalFilter` above what they are conditions of.
//!
//! A condition has a row's time on one side and a function of now() alone on the other, which never
//! goes back (`now() - INTERVAL '1 hour'`, `date_trunc('day', now())`). `now() - t < interval` is
//! written as `t > now() - interval`. Anything else that looks at now() has no time at which it
//! becomes true or false by itself, and is refused.

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{Between, Placeholder};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, binary_expr};

use crate::functions::scalar::session::{NOW, now_type};
use crate::plan::event_time::is_time;
use crate::plan::node::{Clock, Edge, Node, NowCondition, NowOp, TemporalFilter};
use crate::sql::expressions::{compile, text};
use crate::sql::lower::conjuncts;
use crate::sql::lower::pipe::{Pipe, compile_named};
use crate::types::error::{Error, Result};

/// Keeps the rows where the condition is true.
pub fn filter(pipe: Pipe, predicate: &Expr) -> Result<Pipe> {
    if !uses_now(predicate) {
        return pipe.filter(predicate);
    }
    let (temporal, plain): (Vec<Expr>, Vec<Expr>) =
        conjuncts(predicate).into_iter().partition(uses_now);
    let pipe = match conjunction(plain) {
        Some(plain) => pipe.filter(&plain)?,
        None => pipe,
    };
    let schema = pipe.schema().clone();
    let node = pipe.into_node()?;
    let names = node.schema();
    let mut conditions = Vec::new();
    for condition in &temporal {
        for comparison in comparisons(condition)? {
            conditions.push(now_condition(comparison, condition, &schema, &names)?);
        }
    }
    let input = if node.append_only() {
        Edge::local(node)
    } else {
        Edge::hash(node, (0..names.fields().len()).collect())
    };
    let filter = TemporalFilter { input, clock: Clock::edge(), conditions };
    Ok(Pipe::new(Node::TemporalFilter(filter), schema))
}

fn is_now(expr: &Expr) -> bool {
    matches!(expr, Expr::Placeholder(Placeholder { id, .. }) if id == NOW)
}

pub fn uses_now(expr: &Expr) -> bool {
    expr.exists(|e| Ok(is_now(e))).unwrap_or(false)
}

fn refused(condition: &Expr) -> Error {
    Error::unsupported(format!("the condition {} in a maintained query", text(condition))).hint(
        "Compare a time of the row with now(), or with now() and an interval: \
         t > now() - INTERVAL '5 minutes'. Conditions with now() are joined by AND.",
    )
}

/// A row's time, how it compares, and a function of now().
struct Comparison {
    value: Expr,
    op: NowOp,
    now: Expr,
}

fn comparisons(condition: &Expr) -> Result<Vec<Comparison>> {
    let (left, op, right) = match condition {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => (left, op, right),
        Expr::Between(Between { expr, negated: false, low, high }) => {
            let mut both = Vec::new();
            for (op, bound) in [(Operator::GtEq, low), (Operator::LtEq, high)] {
                let side = binary_expr(expr.as_ref().clone(), op, bound.as_ref().clone());
                both.extend(comparisons(&side)?);
            }
            return Ok(both);
        }
        _ => return Err(refused(condition)),
    };
    let op = match op {
        Operator::Lt => NowOp::Less,
        Operator::LtEq => NowOp::LessOrEqual,
        Operator::Gt => NowOp::Greater,
        Operator::GtEq => NowOp::GreaterOrEqual,
        Operator::Eq => NowOp::Equal,
        _ => return Err(refused(condition)),
    };
    let comparison = match (uses_now(left), uses_now(right)) {
        (false, true) => {
            Comparison { value: left.as_ref().clone(), op, now: right.as_ref().clone() }
        }
        (true, false) => {
            let (value, now) = (right.as_ref().clone(), left.as_ref().clone());
            Comparison { value, op: turned(op), now }
        }
        _ => return Err(refused(condition)),
    };
    if comparison.now.any_column_refs() {
        return Ok(vec![age(comparison).ok_or_else(|| refused(condition))?]);
    }
    Ok(vec![comparison])
}

/// The operator with its sides exchanged.
fn turned(op: NowOp) -> NowOp {
    match op {
        NowOp::Less => NowOp::Greater,
        NowOp::LessOrEqual => NowOp::GreaterOrEqual,
        NowOp::Greater => NowOp::Less,
        NowOp::GreaterOrEqual => NowOp::LessOrEqual,
        NowOp::Equal => NowOp::Equal,
    }
}

/// `interval op (now() - t)` as `t op now() - interval`, `interval op (t - now())` as
/// `t turned(op) now() + interval`.
fn age(comparison: Comparison) -> Option<Comparison> {
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) = &comparison.value
    else {
        return None;
    };
    let Expr::ScalarFunction(call) = &comparison.now else { return None };
    let [minuend, subtrahend] = call.args.as_slice() else { return None };
    if call.func.name() != "-" || interval.months != 0 {
        return None;
    }
    let apart =
        |now: &Expr, time: &Expr| uses_now(now) && !now.any_column_refs() && !uses_now(time);
    let length = comparison.value.clone();
    if apart(minuend, subtrahend) {
        let now = binary_expr(minuend.clone(), Operator::Minus, length);
        return Some(Comparison { value: subtrahend.clone(), op: comparison.op, now });
    }
    if apart(subtrahend, minuend) {
        let now = binary_expr(subtrahend.clone(), Operator::Plus, length);
        return Some(Comparison { value: minuend.clone(), op: turned(comparison.op), now });
    }
    None
}

fn now_condition(
    comparison: Comparison,
    condition: &Expr,
    schema: &DFSchema,
    names: &Schema,
) -> Result<NowCondition> {
    let clock = Schema::new(vec![Field::new("now", now_type(), false)]);
    let over_clock = comparison.now.transform_up(|e| {
        Ok(if is_now(&e) {
            Transformed::yes(Expr::Column(Column::from_name("now")))
        } else {
            Transformed::no(e)
        })
    });
    let clock_schema = DFSchema::try_from(clock.clone()).map_err(Error::from)?;
    let now = compile(&over_clock.map_err(Error::from)?.data, &clock_schema)?;
    let value = compile_named(&comparison.value, schema, names)?;
    let same_unit = matches!(now.data_type(), DataType::Date32)
        == matches!(value.data_type(), DataType::Date32);
    let steps = now.time_steps(&clock).filter(|_| same_unit && is_time(value.data_type()));
    let Some((_, steps)) = steps else { return Err(refused(condition)) };
    let display = compile_text(condition);
    Ok(NowCondition { value, op: comparison.op, steps, display })
}

/// The condition as SQL, with now() for its parameter.
fn compile_text(condition: &Expr) -> String {
    text(condition).replace(NOW, "now()")
}
