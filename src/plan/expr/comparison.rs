//! Inequalities within a condition: what tells a join which rows are too old to meet others.

use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, CaseExpr, Literal};
use std::sync::Arc;

use arrow::datatypes::Schema;

use super::Expr;

/// One side of a condition is at least the other wherever the condition is true.
pub struct AtLeast {
    pub greater: Expr,
    pub lesser: Expr,
}

impl Expr {
    /// The inequalities that hold in every row for which the condition is true; `schema` has the
    /// columns that it reads.
    pub fn inequalities(&self, schema: &Schema) -> Vec<AtLeast> {
        let mut found = Vec::new();
        collect(&self.physical, schema, &mut found);
        found
    }
}

fn collect(condition: &Arc<dyn PhysicalExpr>, schema: &Schema, found: &mut Vec<AtLeast>) {
    // A conjunction in a fixed order: CASE WHEN a THEN b ELSE false END.
    if let Some(case) = condition.downcast_ref::<CaseExpr>() {
        let otherwise = case.else_expr().and_then(|other| other.downcast_ref::<Literal>());
        let is_false = otherwise.is_some_and(|l| *l.value() == ScalarValue::Boolean(Some(false)));
        if let (None, [(first, then)], true) = (case.expr(), case.when_then_expr(), is_false) {
            collect(first, schema, found);
            collect(then, schema, found);
        }
        return;
    }
    let Some(binary) = condition.downcast_ref::<BinaryExpr>() else { return };
    let (left, right) = (binary.left(), binary.right());
    let (greater, lesser) = match binary.op() {
        Operator::And => {
            collect(left, schema, found);
            collect(right, schema, found);
            return;
        }
        Operator::GtEq | Operator::Gt => (left, right),
        Operator::LtEq | Operator::Lt => (right, left),
        _ => return,
    };
    let expr = |physical: &Arc<dyn PhysicalExpr>| -> Option<Expr> {
        let data_type = physical.data_type(schema).ok()?;
        Some(Expr::new(physical.clone(), data_type, physical.nullable(schema).unwrap_or(true)))
    };
    if let (Some(greater), Some(lesser)) = (expr(greater), expr(lesser)) {
        found.push(AtLeast { greater, lesser });
    }
}
