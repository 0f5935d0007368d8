//! Subqueries in places where a join cannot say what they need to.
//!
//! 1. Scalar subqueries that may give several rows count them. A subquery that is joined (every
//!    one in a dataflow, every correlated one) may give one row only, and DataFusion asks for an
//!    aggregate where it cannot see that. So `(SELECT x FROM ...)` becomes
//!    `single_row((SELECT struct(count(*), any_value(x)) FROM ...))`, which fails where Postgres
//!    does.
//! 2. IN, EXISTS, ANY and ALL in the select list are no conditions: they count what they find. `x IN (SELECT
//!    y ...)` asks for rows with `y = x`, and where there are none for rows at all if `x` is NULL,
//!    and for a `y` that is NULL. So do those in a condition whose NULL is not simply false: under
//!    NOT or in a CASE, and NOT IN of what is correlated or a constant, for which a join knows the
//!    NULLs of all rows only, or has no key.
//!    And so do conditions over subqueries that no join follows (`dependent::is_unjoinable`).

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, ExprSchema, Result, ScalarValue};
use datafusion::functions::core::expr_fn::r#struct;
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison, SetQuantifier};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    AggregateUDF, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, Subquery,
    binary_expr, lit, not, when,
};

use crate::functions::scalar::single_row::single_row;
use crate::sql::dependent::is_unjoinable;
use crate::sql::functions::FUNCTIONS;

/// Lets scalar subqueries count their rows where they may have several.
pub fn count_rows_of_subqueries(plan: LogicalPlan) -> Result<LogicalPlan> {
    let counted = plan.transform_up_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        // Arguments of aggregates and window functions move into a select list (`dependent.rs`).
        let selects = matches!(
            node,
            LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Window(_)
        );
        let input = merge_schema(&node.inputs());
        let filters = matches!(node, LogicalPlan::Filter(_));
        let unjoinable = |s: &Subquery, compared| -> Result<bool> {
            is_unjoinable(&s.subquery, &input, compared)
        };
        let mapped = node.map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = if filters { count_unknown(expr, true, true, &input)? } else { expr };
            let counted = expr.transform_up(|e| match e {
                Expr::ScalarSubquery(subquery) if subquery.subquery.max_rows() != Some(1) => {
                    Ok(Transformed::yes(counted(subquery)?))
                }
                Expr::Exists(Exists { subquery, negated })
                    if selects || unjoinable(&subquery, false)? =>
                {
                    let rows = count_of(&subquery, None)?;
                    let found = if negated { rows.eq(lit(0_i64)) } else { rows.gt(lit(0_i64)) };
                    Ok(Transformed::yes(found))
                }
                Expr::InSubquery(InSubquery { expr, subquery, negated })
                    if selects || unjoinable(&subquery, true)? =>
                {
                    let found = found_in(*expr, &subquery, &input)?;
                    Ok(Transformed::yes(if negated { not(found) } else { found }))
                }
                Expr::SetComparison(comparison)
                    if selects || unjoinable(&comparison.subquery, true)? =>
                {
                    Ok(Transformed::yes(compared(comparison, &input)?))
                }
                other => Ok(Transformed::no(other)),
            })?;
            Ok(counted.update_data(|e| name.restore(e)))
        })?;
        mapped.map_data(LogicalPlan::recompute_schema)
    })?;
    Ok(counted.data)
}

/// Counts what IN finds where a join would take NULL for false and that makes a difference. `top`:
/// the condition has no other beside it but with AND; `positive`: only AND and OR are around it.
fn count_unknown(expr: Expr, top: bool, positive: bool, input: &DFSchema) -> Result<Expr> {
    match expr {
        Expr::BinaryExpr(mut binary) if matches!(binary.op, Operator::And | Operator::Or) => {
            let top = top && binary.op == Operator::And;
            binary.left = Box::new(count_unknown(*binary.left, top, positive, input)?);
            binary.right = Box::new(count_unknown(*binary.right, top, positive, input)?);
            Ok(Expr::BinaryExpr(binary))
        }
        Expr::Not(inner) if matches!(*inner, Expr::InSubquery(_)) => match *inner {
            Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                let not_in = InSubquery { expr, subquery, negated: !negated };
                count_unknown(Expr::InSubquery(not_in), top, positive, input)
            }
            other => Ok(not(other)),
        },
        Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
            let joined = match (positive, negated) {
                (true, false) => true,
                // What looks at no column of the row is no key of a join.
                (true, true) => {
                    let correlated = !subquery.outer_ref_columns.is_empty();
                    top && !correlated && !expr.column_refs().is_empty() && !expr.contains_outer()
                }
                (false, _) => false,
            };
            let nullable =
                expr.nullable(input)? || subquery.subquery.schema().field(0).is_nullable();
            if joined || !nullable {
                return Ok(Expr::InSubquery(InSubquery { expr, subquery, negated }));
            }
            let found = found_in(*expr, &subquery, input)?;
            Ok(if negated { not(found) } else { found })
        }
        other => {
            let counted = other.map_children(|child| {
                Ok(Transformed::yes(count_unknown(child, false, false, input)?))
            })?;
            Ok(counted.data)
        }
    }
}

/// Whether a subquery has `value`: true, false or NULL.
fn found_in(value: Expr, subquery: &Subquery, input: &DFSchema) -> Result<Expr> {
    let column = Expr::Column(Column::from(subquery.subquery.schema().qualified_field(0)));
    let equal = column.clone().eq(from_inside(value.clone(), input)?);
    let equal = count_of(subquery, Some(equal))?;
    let rows = count_of(subquery, None)?;
    let nulls = count_of(subquery, Some(column.is_null()))?;
    let unknown = Expr::Literal(ScalarValue::Boolean(None), None);
    when(equal.gt(lit(0_i64)), lit(true))
        .when(value.is_null().and(rows.gt(lit(0_i64))), unknown.clone())
        .when(nulls.gt(lit(0_i64)), unknown)
        .otherwise(lit(false))
}

/// `value op ANY (subquery)` and `ALL`: true, false or NULL.
fn compared(comparison: SetComparison, input: &DFSchema) -> Result<Expr> {
    let SetComparison { expr, subquery, op, quantifier } = comparison;
    let column = Expr::Column(Column::from(subquery.subquery.schema().qualified_field(0)));
    let holds = binary_expr(from_inside(*expr, input)?, op, column);
    // One row decides: one that holds for ANY, one that does not for ALL.
    let (decides, decided) = match quantifier {
        SetQuantifier::Any => (holds.clone(), true),
        SetQuantifier::All => (not(holds.clone()), false),
    };
    let deciding = count_of(&subquery, Some(decides))?;
    let unknown = count_of(&subquery, Some(holds.is_null()))?;
    when(deciding.gt(lit(0_i64)), lit(decided))
        .when(unknown.gt(lit(0_i64)), Expr::Literal(ScalarValue::Boolean(None), None))
        .otherwise(lit(!decided))
}

/// An expression over these columns as a subquery beside it sees it.
fn from_inside(expr: Expr, input: &DFSchema) -> Result<Expr> {
    let outer = expr.transform_up(|e| match e {
        Expr::Column(column) => {
            let field = input.field_from_column(&column)?.clone();
            Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(outer.data)
}

/// How many rows a subquery has that meet a condition.
fn count_of(subquery: &Subquery, condition: Option<Expr>) -> Result<Expr> {
    const ROWS: &str = "rows of the subquery";
    let mut plan = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone());
    let mut outer_ref_columns = subquery.outer_ref_columns.clone();
    if let Some(condition) = condition {
        condition.apply(|e| {
            if matches!(e, Expr::OuterReferenceColumn(_, _)) && !outer_ref_columns.contains(e) {
                outer_ref_columns.push(e.clone());
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        plan = plan.filter(condition)?;
    }
    let count = function("count")?.call(vec![lit(1_i64)]).alias(ROWS);
    let plan = Arc::new(plan.aggregate(Vec::<Expr>::new(), [count])?.build()?);
    Ok(Expr::ScalarSubquery(Subquery { outer_ref_columns, ..subquery.with_plan(plan) }))
}

fn function(name: &str) -> Result<&'static Arc<AggregateUDF>> {
    let function = FUNCTIONS.aggregate.get(name);
    function.ok_or_else(|| DataFusionError::Internal(format!("there is no {name}()")))
}

fn counted(subquery: Subquery) -> Result<Expr> {
    const ROWS: &str = "rows of the subquery";
    const VALUE: &str = "value of the subquery";
    let schema = subquery.subquery.schema().clone();
    let [field] = schema.fields().iter().as_slice() else {
        return Err(DataFusionError::Internal("a scalar subquery has one column".to_owned()));
    };
    let value = Expr::Column(Column::from(schema.qualified_field(0)));
    let plan = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone())
        .aggregate(
            Vec::<Expr>::new(),
            [
                function("count")?.call(vec![lit(1_i64)]).alias(ROWS),
                function("any_value")?.call(vec![value]).alias(VALUE),
            ],
        )?
        .project([r#struct(vec![
            Expr::Column(Column::from_name(ROWS)),
            Expr::Column(Column::from_name(VALUE)),
        ])])?
        .build()?;
    let subquery = subquery.with_plan(Arc::new(plan));
    Ok(single_row(field).call(vec![Expr::ScalarSubquery(subquery)]))
}
