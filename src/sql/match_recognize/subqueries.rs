//! Subqueries that look at the match.
//!
//! 1. In MEASURES a subquery stays where it is: above the match, among what is computed of the
//!    reads. What it looks at of the match is read like anything else (`binder.rs`); a column that
//!    none of its tables has is one of the match's last row, which is found out when it has been
//!    planned ([`rename_outside`]).
//! 2. In DEFINE, and within a function over rows, a subquery is computed of each row of the input,
//!    as an expression of columns is. So all that it looks at is of one row. To tell `a.v` from a
//!    column of the subquery's own tables, such columns stand a second time in the input, under
//!    names that nobody has ([`RowColumns`]).

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Subquery};

/// Another name for a column, with its type.
type Rename<'a> = &'a mut dyn FnMut(&Column) -> Result<Option<(Column, FieldRef)>>;

/// Columns of a row of the input, for subqueries.
#[derive(Default)]
pub struct RowColumns {
    /// Places in the input.
    columns: BTreeSet<usize>,
    /// Those that are NULL, for a variable that has no row.
    nulls: BTreeSet<usize>,
}

impl RowColumns {
    /// The name of a column of the input.
    pub fn name(&mut self, column: usize, null: bool) -> String {
        let set = if null { &mut self.nulls } else { &mut self.columns };
        set.insert(column);
        name_of(column, null)
    }

    fn all(&self) -> impl Iterator<Item = (usize, bool)> + '_ {
        let nulls = self.nulls.iter().map(|column| (*column, true));
        self.columns.iter().map(|column| (*column, false)).chain(nulls)
    }

    /// The input's columns with these behind them.
    pub fn schema(&self, input: &DFSchema) -> Result<DFSchema> {
        let mut fields: Vec<_> =
            input.iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone())).collect();
        fields.extend(self.all().map(|(column, null)| {
            let field = input.field(column).as_ref().clone().with_name(name_of(column, null));
            (None, Arc::new(field.with_nullable(true)))
        }));
        DFSchema::new_with_metadata(fields, Default::default())
    }

    /// The input with these columns.
    pub fn project(&self, input: LogicalPlan) -> Result<LogicalPlan> {
        if self.all().next().is_none() {
            return Ok(input);
        }
        let schema = input.schema().clone();
        let mut columns: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).collect();
        for (column, null) in self.all() {
            let value = match null {
                true => {
                    Expr::Literal(ScalarValue::try_from(schema.field(column).data_type())?, None)
                }
                false => Expr::Column(Column::from(schema.qualified_field(column))),
            };
            columns.push(value.alias(name_of(column, null)));
        }
        LogicalPlanBuilder::from(input).project(columns)?.build()
    }
}

fn name_of(column: usize, null: bool) -> String {
    format!("__{} {column}", if null { "no row" } else { "row" })
}

/// Whether a subquery of the expression looks at columns of the input under their own names.
pub fn looks_at(expr: &Expr, input: &DFSchema) -> Result<bool> {
    let mut found = false;
    for_each_subquery(expr, &mut |subquery| {
        found |= subquery.outer_ref_columns.iter().any(|outer| match outer {
            Expr::OuterReferenceColumn(_, column) => input.has_column(column),
            _ => false,
        });
    })?;
    Ok(found)
}

/// The names of the columns that an expression and its subqueries look at.
pub fn columns_of(expr: &Expr) -> Result<BTreeSet<String>> {
    let mut names: BTreeSet<String> =
        expr.column_refs().into_iter().map(|column| column.name.clone()).collect();
    for_each_subquery(expr, &mut |subquery| {
        names.extend(subquery.outer_ref_columns.iter().filter_map(|outer| match outer {
            Expr::OuterReferenceColumn(_, column) => Some(column.name.clone()),
            _ => None,
        }));
    })?;
    Ok(names)
}

fn for_each_subquery(expr: &Expr, each: &mut dyn FnMut(&Subquery)) -> Result<()> {
    expr.apply(|e| {
        match e {
            Expr::ScalarSubquery(subquery) => each(subquery),
            Expr::Exists(exists) => each(&exists.subquery),
            Expr::InSubquery(within) => each(&within.subquery),
            Expr::SetComparison(comparison) => each(&comparison.subquery),
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// The expression with other names for what its subqueries look at outside; `None`: it keeps its
/// own.
pub fn rename_outside(expr: Expr, rename: Rename<'_>) -> Result<Expr> {
    let renamed = expr.transform_up(|e| {
        Ok(Transformed::yes(match e {
            Expr::ScalarSubquery(subquery) => Expr::ScalarSubquery(renamed(subquery, rename)?),
            Expr::Exists(mut exists) => {
                exists.subquery = renamed(exists.subquery, rename)?;
                Expr::Exists(exists)
            }
            Expr::InSubquery(mut within) => {
                within.subquery = renamed(within.subquery, rename)?;
                Expr::InSubquery(within)
            }
            Expr::SetComparison(mut comparison) => {
                comparison.subquery = renamed(comparison.subquery, rename)?;
                Expr::SetComparison(comparison)
            }
            other => return Ok(Transformed::no(other)),
        }))
    })?;
    Ok(renamed.data)
}

fn renamed(subquery: Subquery, rename: Rename<'_>) -> Result<Subquery> {
    let mut outside = |e: Expr| {
        e.transform_up(|e| match &e {
            Expr::OuterReferenceColumn(_, column) => Ok(match rename(column)? {
                Some((column, field)) => {
                    Transformed::yes(Expr::OuterReferenceColumn(field, column))
                }
                None => Transformed::no(e),
            }),
            _ => Ok(Transformed::no(e)),
        })
    };
    let plan = subquery.subquery.as_ref().clone();
    let plan = plan.transform_up(|node| node.map_expressions(&mut outside))?.data;
    let columns = subquery.outer_ref_columns.iter().cloned();
    let columns = columns.map(|column| Ok(outside(column)?.data)).collect::<Result<Vec<_>>>()?;
    Ok(Subquery { subquery: Arc::new(plan), outer_ref_columns: columns, spans: subquery.spans })
}

/// A column that may be NULL.
pub fn nullable(field: &Field) -> FieldRef {
    Arc::new(field.clone().with_nullable(true))
}
