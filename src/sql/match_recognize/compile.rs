//! A MATCH_RECOGNIZE node of a typed plan as a `plan::MatchSpec`.
//!
//! A condition is cut at its ANDs: what looks at the row and rows at fixed distances only is
//! computed for all rows at once, the rest for each partial match that gets there.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, ScalarValue};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;

use crate::plan::match_recognize::{
    CLASSIFIER_COLUMN, Condition, MATCH_NUMBER_COLUMN, MatchAggregate, MatchSpec, Predicate, Read,
    RowRead,
};
use crate::sql::expressions::{compile, ordered_condition};
use crate::sql::match_recognize::node::{MatchFacts, MatchNode, aggregate_schema};
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::SqlType;

/// The node of an extension, if it is one.
pub fn match_node(plan: &LogicalPlan) -> Option<&MatchNode> {
    let LogicalPlan::Extension(extension) = plan else { return None };
    extension.node.as_any().downcast_ref::<MatchNode>()
}

/// What is to be matched and how.
///
/// # Errors
/// When an expression cannot be computed.
pub fn compile_match(node: &MatchNode) -> Result<MatchSpec> {
    let facts = &node.facts;
    let reads = node.reads.schema();
    let mut conditions = vec![None; facts.variables.len()];
    for (variable, condition) in facts.defined.iter().zip(&node.conditions) {
        conditions[*variable] = Some(compile_condition(node, *variable, condition)?);
    }
    let around = aggregate_schema(node.input.schema()).map_err(Error::from)?;
    let aggregates = node
        .aggregates
        .iter()
        .zip(&facts.aggregate_texts)
        .map(|(expr, text)| compile_aggregate(expr, &around, text))
        .collect::<Result<_>>()?;
    let count = facts.reads.len();
    let places: Vec<usize> = (0..count).collect();
    Ok(MatchSpec {
        partition: facts.partition.clone(),
        order_by: facts.order_by.clone(),
        variables: facts.variables.clone(),
        pattern: facts.pattern.clone(),
        pattern_from: facts.pattern_from.clone(),
        contiguity: facts.contiguity,
        skip: facts.skip,
        rows: facts.rows,
        frame: facts.frame,
        within: facts.within,
        timeout_rows: facts.timeout_rows,
        partial_rows: facts.partial_rows,
        conditions,
        reads: facts.reads.clone(),
        reads_schema: Arc::new(reads.inner().project(&places)?),
        aggregates,
        aggregates_schema: around.inner().clone(),
        columns: facts.columns.clone(),
        schema: node.schema.inner().clone(),
    })
}

fn compile_condition(node: &MatchNode, variable: usize, condition: &Expr) -> Result<Condition> {
    let schema = node.reads.schema();
    let data_type = condition.get_type(schema).map_err(Error::from)?;
    if data_type != DataType::Boolean && !data_type.is_null() {
        let name = SqlType::of_arrow(&data_type)
            .map_or_else(|| data_type.to_string(), |sql_type| sql_type.to_string());
        return Err(Error::user(
            SqlState::DATATYPE_MISMATCH,
            format!("argument of DEFINE must be type boolean, not type {name}"),
        ));
    }
    // NULL lets no row in.
    let condition = match data_type.is_null() {
        true => &Expr::Literal(ScalarValue::Boolean(Some(false)), None),
        false => condition,
    };
    let (mut near, mut far) = (Vec::new(), Vec::new());
    let inside = |row: &RowRead| inside_frame(&node.facts, row, variable);
    for part in split_conjunction_owned(condition.clone()) {
        let is_near = reads_of(&part, schema)?.into_iter().all(|read| {
            matches!(&node.facts.reads[read], Read::Row(row)
                    if row.is_near(variable) && inside(row))
        });
        if is_near { near.push(part) } else { far.push(part) }
    }
    let predicate = |parts: Vec<Expr>| -> Result<Option<Predicate>> {
        let Some(whole) = conjunction(parts) else { return Ok(None) };
        let reads = reads_of(&whole, schema)?;
        let fields = reads.iter().map(|read| (None, schema.field(*read).clone())).collect();
        let own = DFSchema::new_with_metadata(fields, Default::default()).map_err(Error::from)?;
        let expr = compile(&ordered_condition(whole.clone()), &own)?;
        let shown = with_texts(whole, schema, &node.facts.read_texts)?;
        let expr = expr.with_text(crate::sql::expressions::text(&shown));
        Ok(Some(Predicate { expr, reads, schema: own.inner().clone() }))
    };
    Ok(Condition { near: predicate(near)?, far: predicate(far)? })
}

/// The expression with its reads as they were written.
fn with_texts(expr: Expr, schema: &DFSchema, texts: &[String]) -> Result<Expr> {
    let shown = expr.transform(|e| {
        let Expr::Column(column) = &e else { return Ok(Transformed::no(e)) };
        let text = texts.get(schema.index_of_column(column)?);
        Ok(match text {
            Some(text) => Transformed::yes(Expr::Column(Column::new_unqualified(text))),
            None => Transformed::no(e),
        })
    });
    Ok(shown.map_err(|error: DataFusionError| Error::from(error))?.data)
}

/// Whether a row at a distance is within the frame of every match, if there are frames.
fn inside_frame(facts: &MatchFacts, row: &RowRead, variable: usize) -> bool {
    let Some(frame) = facts.frame else { return true };
    if row.shift > 0 {
        return frame.rows_following.is_none();
    }
    let least = facts.pattern.rows_before_each(facts.variables.len());
    row.shift.unsigned_abs() <= least[variable]
}

/// The reads of an expression, each once.
fn reads_of(expr: &Expr, schema: &DFSchema) -> Result<Vec<usize>> {
    let mut reads = Vec::new();
    expr.apply(|e| {
        if let Expr::Column(column) = e {
            let read = schema.index_of_column(column)?;
            if !reads.contains(&read) {
                reads.push(read);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(|error: DataFusionError| Error::from(error))?;
    reads.sort_unstable();
    Ok(reads)
}

fn compile_aggregate(expr: &Expr, schema: &DFSchema, text: &str) -> Result<MatchAggregate> {
    let (props, planning) = (ExecutionProps::new(), PhysicalPlanningContext::default());
    let lowered = LoweredAggregateBuilder::new(expr, schema, schema.as_arrow(), &props, &planning)
        .build()
        .map_err(Error::from)?;
    let reads_match = expr
        .column_refs()
        .iter()
        .any(|column| [CLASSIFIER_COLUMN, MATCH_NUMBER_COLUMN].contains(&column.name.as_str()));
    Ok(MatchAggregate::new(lowered.aggregate, lowered.filter, reads_match, text.to_owned()))
}
