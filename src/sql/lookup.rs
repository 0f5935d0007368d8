//! Point lookups: a condition that says which keys it wants, and an index that knows where they
//! are.
//!
//! 1. A filter right above the scan of a table or materialized view is taken apart at its ANDs.
//!    `column = constant`, `column IN (constants)` and `column = constant OR column = constant`
//!    say what a column may be; what has no columns counts as a constant, parameters are values by
//!    now.
//! 2. An index all of whose columns are said so is used; of several the one with most columns.
//! 3. The scan is replaced by the rows that the index finds. The filter stays, and looks at these:
//!    a lookup may find too much, never too little.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Filter, LogicalPlan, Operator, TableScan};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;

use crate::sql::resolve::{CatalogSource, NamedIndex};
use crate::types::error::{Error, Result};
use crate::types::id::ObjectId;

/// More keys than these are not looked up one by one.
const KEYS_MAX: usize = 1024;

/// Keys to look up instead of a scan.
#[derive(Clone, Debug)]
pub struct Lookup {
    pub object: ObjectId,
    /// For EXPLAIN.
    pub relation: String,
    pub index: Arc<NamedIndex>,
    /// One array per column of the index, one key a row.
    pub keys: Vec<ArrayRef>,
}

impl Lookup {
    /// `IndexLookup: t using t_pkey (id), 2 keys`.
    pub fn describe(&self) -> String {
        let count = self.keys.first().map_or(0, |keys| keys.len());
        let noun = if count == 1 { "key" } else { "keys" };
        let columns = self.index.column_names.join(", ");
        format!(
            "IndexLookup: {} using {} ({columns}), {count} {noun}",
            self.relation, self.index.name
        )
    }
}

/// The lookup that a node of a plan whose parameters are values stands for.
///
/// # Errors
/// When values cannot be made arrays (ours).
pub fn lookup_of(node: &LogicalPlan) -> Result<Option<Lookup>> {
    let LogicalPlan::Filter(Filter { predicate, input, .. }) = node else { return Ok(None) };
    let LogicalPlan::TableScan(scan) = input.as_ref() else { return Ok(None) };
    let Some(source) = scan.source.downcast_ref::<CatalogSource>() else { return Ok(None) };
    if source.indexes.is_empty() {
        return Ok(None);
    }
    let wanted: Vec<(usize, Vec<ScalarValue>)> = split_conjunction(predicate)
        .into_iter()
        .filter_map(|condition| values_of(condition, scan, source))
        .collect();
    let values = |column: &usize| wanted.iter().find(|(c, _)| c == column).map(|(_, v)| v);
    let usable = |index: &&Arc<NamedIndex>| {
        let counts = index.columns.iter().map(|column| values(column).map(Vec::len));
        let keys = counts.sum::<Option<usize>>().is_some().then(|| {
            let counts = index.columns.iter().filter_map(|c| values(c).map(Vec::len));
            counts.fold(1usize, usize::saturating_mul)
        });
        keys.is_some_and(|keys| keys <= KEYS_MAX)
    };
    let Some(index) = source.indexes.iter().filter(usable).max_by_key(|i| i.columns.len()) else {
        return Ok(None);
    };
    let columns: Vec<&Vec<ScalarValue>> = index.columns.iter().filter_map(values).collect();
    let keys = product(&columns, source, &index.columns)?;
    let object = &source.object;
    let relation = object.name.name.clone();
    Ok(Some(Lookup { object: object.id, relation, index: index.clone(), keys }))
}

/// Every combination of the columns' values, as arrays.
fn product(
    values: &[&Vec<ScalarValue>],
    source: &CatalogSource,
    columns: &[usize],
) -> Result<Vec<ArrayRef>> {
    let total: usize = values.iter().map(|values| values.len()).product();
    let mut repeat = total;
    let mut arrays = Vec::with_capacity(columns.len());
    for (values, column) in values.iter().zip(columns) {
        let data_type = source.object.schema.field(*column).data_type();
        if total == 0 {
            arrays.push(arrow::array::new_empty_array(data_type));
            continue;
        }
        repeat /= values.len();
        let all = (0..total).map(|row| values[row / repeat % values.len()].clone());
        arrays.push(ScalarValue::iter_to_array(all).map_err(Error::from)?);
    }
    Ok(arrays)
}

/// What a condition says that a column of the object may be.
fn values_of(
    condition: &Expr,
    scan: &TableScan,
    source: &CatalogSource,
) -> Option<(usize, Vec<ScalarValue>)> {
    let (column, constants) = equalities(condition)?;
    let position = scan.projected_schema.maybe_index_of_column(column)?;
    let position = scan.projection.as_ref().map_or(position, |columns| columns[position]);
    let data_type = source.object.schema.field(position).data_type();
    let mut values = Vec::with_capacity(constants.len());
    for constant in constants {
        let value = constant_value(constant, data_type)?;
        // Nothing equals NULL.
        if !value.is_null() && !values.contains(&value) {
            values.push(value);
        }
    }
    Some((position, values))
}

/// The column, and what it must be one of.
fn equalities(condition: &Expr) -> Option<(&Column, Vec<&Expr>)> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            match (left.as_ref(), right.as_ref()) {
                (Expr::Column(column), other) | (other, Expr::Column(column)) => {
                    Some((column, vec![other]))
                }
                _ => None,
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let (column, mut values) = equalities(left)?;
            let (other, more) = equalities(right)?;
            values.extend(more);
            (column == other).then_some((column, values))
        }
        Expr::InList(list) if !list.negated => match list.expr.as_ref() {
            Expr::Column(column) => Some((column, list.list.iter().collect())),
            _ => None,
        },
        _ => None,
    }
}

/// The value of an expression without columns, of exactly this type.
fn constant_value(expr: &Expr, data_type: &DataType) -> Option<ScalarValue> {
    if let Expr::Literal(value, _) = expr {
        return (value.data_type() == *data_type || value.is_null()).then(|| value.clone());
    }
    if !expr.column_refs().is_empty() || expr.is_volatile() {
        return None;
    }
    let simplifier = ExprSimplifier::new(SimplifyContext::builder().build());
    match simplifier.simplify(expr.clone()) {
        Ok(Expr::Literal(value, _)) => {
            (value.data_type() == *data_type || value.is_null()).then_some(value)
        }
        _ => None,
    }
}
