//! Conditions that compare with now(): a `TemporalFilter` above what they are conditions of.
//!
//! 1. A comparison has a row's time on one side and a function of now() alone on the other, which
//!    never goes back (`now() - INTERVAL '1 hour'`, `date_trunc('day', now())`).
//!    `now() - t < interval` is written as `t > now() - interval`. Anything else that looks at now()
//!    has no time at which it becomes true or false by itself, and is refused.
//! 2. Comparisons and conditions of the row alone are combined by AND, OR, NOT, BETWEEN, IN and IS.
//!    NOT is carried down to them: what is true of `NOT (a AND b)` is true of `NOT a OR NOT b`, with
//!    NULLs too, and a comparison of which one side is NULL is true neither way. So a formula over
//!    what is true is all that remains.

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{Between, InList, Placeholder};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, binary_expr};

use crate::functions::scalar::session::{NOW, now_type};
use crate::plan::event_time::is_time;
use crate::plan::expr::Expr as CompiledExpr;
use crate::plan::node::{Clock, Edge, Formula, Node, NowCondition, NowOp, TemporalFilter};
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
    let mut lowering =
        Lowering { schema: &schema, names: &names, conditions: vec![], of_rows: vec![] };
    let formulas = temporal.iter().map(|condition| lowering.formula(condition, false, condition));
    let formulas = formulas.collect::<Result<Vec<_>>>()?;
    let Lowering { conditions, of_rows, .. } = lowering;
    let input = if node.append_only() {
        Edge::local(node)
    } else {
        Edge::hash(node, (0..names.fields().len()).collect())
    };
    let filter = TemporalFilter {
        input,
        clock: Clock::edge(),
        conditions,
        of_rows,
        formula: Formula::All(formulas),
        display: display(&temporal),
    };
    Ok(Pipe::new(Node::TemporalFilter(filter), schema))
}

/// Conditions that all must hold, as SQL.
fn display(conditions: &[Expr]) -> String {
    let part = |condition: &Expr| match condition {
        Expr::BinaryExpr(BinaryExpr { op: Operator::Or, .. }) if conditions.len() > 1 => {
            format!("({})", compile_text(condition))
        }
        _ => compile_text(condition),
    };
    conditions.iter().map(part).collect::<Vec<_>>().join(" AND ")
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
         t > now() - INTERVAL '5 minutes'.",
    )
}

/// A row's time, how it compares, and a function of now().
struct Comparison {
    value: Expr,
    op: NowOp,
    now: Expr,
}

/// Collects the conditions that a formula is over.
struct Lowering<'a> {
    schema: &'a DFSchema,
    names: &'a Schema,
    conditions: Vec<NowCondition>,
    of_rows: Vec<CompiledExpr>,
}

impl Lowering<'_> {
    /// When the expression is true; `negated`: when it is false. `whole`: what it is a part of.
    fn formula(&mut self, expr: &Expr, negated: bool, whole: &Expr) -> Result<Formula> {
        if !uses_now(expr) {
            let own = if negated { Expr::Not(Box::new(expr.clone())) } else { expr.clone() };
            self.of_rows.push(compile_named(&own, self.schema, self.names)?);
            return Ok(Formula::Row(self.of_rows.len() - 1));
        }
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
                let parts = [left.as_ref(), right.as_ref()];
                self.combined(parts, !negated, negated, whole)
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
                let parts = [left.as_ref(), right.as_ref()];
                self.combined(parts, negated, negated, whole)
            }
            Expr::Not(inner) => self.formula(inner, !negated, whole),
            Expr::Between(Between { expr, negated: not, low, high }) => {
                let negated = negated != *not;
                let side = |op, bound: &Expr| binary_expr(expr.as_ref().clone(), op, bound.clone());
                let (from, to) = (side(Operator::GtEq, low), side(Operator::LtEq, high));
                self.combined([&from, &to], !negated, negated, whole)
            }
            Expr::InList(InList { expr, list, negated: not }) => {
                let negated = negated != *not;
                let equal = |e: &Expr| binary_expr(expr.as_ref().clone(), Operator::Eq, e.clone());
                let equal: Vec<Expr> = list.iter().map(equal).collect();
                self.combined(&equal, negated, negated, whole)
            }
            // Two-valued questions: what is not true of them is false.
            Expr::IsTrue(inner) => self.asked(inner, &[false], negated, whole),
            Expr::IsNotTrue(inner) => self.asked(inner, &[false], !negated, whole),
            Expr::IsFalse(inner) => self.asked(inner, &[true], negated, whole),
            Expr::IsNotFalse(inner) => self.asked(inner, &[true], !negated, whole),
            Expr::IsUnknown(inner) => self.asked(inner, &[false, true], !negated, whole),
            Expr::IsNotUnknown(inner) => self.asked(inner, &[false, true], negated, whole),
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                self.comparison(left, *op, right, negated, whole)
            }
            _ => Err(refused(whole)),
        }
    }

    fn combined<'e>(
        &mut self,
        parts: impl IntoIterator<Item = &'e Expr>,
        all: bool,
        negated: bool,
        whole: &Expr,
    ) -> Result<Formula> {
        let parts = parts.into_iter().map(|part| self.formula(part, negated, whole));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        Ok(if all { Formula::All(parts) } else { Formula::Any(parts) })
    }

    /// Whether the expression is true, or false (`ways`), or not (`not`).
    fn asked(&mut self, expr: &Expr, ways: &[bool], not: bool, whole: &Expr) -> Result<Formula> {
        let parts = ways.iter().map(|negated| self.formula(expr, *negated, whole));
        let any = Formula::Any(parts.collect::<Result<Vec<_>>>()?);
        Ok(if not { Formula::Not(Box::new(any)) } else { any })
    }

    fn comparison(
        &mut self,
        left: &Expr,
        op: Operator,
        right: &Expr,
        negated: bool,
        whole: &Expr,
    ) -> Result<Formula> {
        use NowOp::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual};
        // now() is never NULL, so these are true exactly where `=` is, or where it is not.
        let distinct = match op {
            Operator::IsDistinctFrom => Some(true),
            Operator::IsNotDistinctFrom => Some(false),
            _ => None,
        };
        if let Some(distinct) = distinct {
            let equal = self.comparison(left, Operator::Eq, right, false, whole)?;
            let not = distinct != negated;
            return Ok(if not { Formula::Not(Box::new(equal)) } else { equal });
        }
        let ops: &[NowOp] = match (op, negated) {
            (Operator::Lt, false) | (Operator::GtEq, true) => &[Less],
            (Operator::LtEq, false) | (Operator::Gt, true) => &[LessOrEqual],
            (Operator::Gt, false) | (Operator::LtEq, true) => &[Greater],
            (Operator::GtEq, false) | (Operator::Lt, true) => &[GreaterOrEqual],
            (Operator::Eq, false) | (Operator::NotEq, true) => &[Equal],
            (Operator::NotEq, false) | (Operator::Eq, true) => &[Less, Greater],
            _ => return Err(refused(whole)),
        };
        let mut parts = Vec::with_capacity(ops.len());
        for op in ops {
            let comparison = comparison(left, *op, right).ok_or_else(|| refused(whole))?;
            let condition = now_condition(comparison, whole, self.schema, self.names)?;
            self.conditions.push(condition);
            parts.push(Formula::Now(self.conditions.len() - 1));
        }
        Ok(match parts.pop() {
            Some(only) if parts.is_empty() => only,
            last => Formula::Any(parts.into_iter().chain(last).collect()),
        })
    }
}

/// The comparison with the row's time on one side, and now() on the other.
fn comparison(left: &Expr, op: NowOp, right: &Expr) -> Option<Comparison> {
    let comparison = match (uses_now(left), uses_now(right)) {
        (false, true) => Comparison { value: left.clone(), op, now: right.clone() },
        (true, false) => Comparison { value: right.clone(), op: turned(op), now: left.clone() },
        _ => return None,
    };
    if comparison.now.any_column_refs() { age(comparison) } else { Some(comparison) }
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
