//! LATERAL over the row at hand: `FROM t, unnest(t.a) AS x`, `FROM t, LATERAL (SELECT t.a + 1) AS x`.
//!
//! DataFusion plans a join of `t` with a subquery that unnests an outer reference, and cannot
//! decorrelate it. A lateral subquery that only unnests, filters and computes, starting from no
//! table, is the same steps over the rows of `t` themselves:
//!
//! 1. The subquery's one row is replaced by the join's left input, whose columns stay to the end.
//! 2. Outer references are columns then. What the subquery projects is written into what reads it;
//!    where lists are unnested they become columns beside the left ones.
//! 3. A projection on top gives the join's columns. An inner join's condition is a filter above it;
//!    a left join keeps rows whose list is empty, which only works without conditions.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchemaRef, JoinType, NullHandling, Result};
use datafusion::logical_expr::{
    EmptyRelation, Expr, Filter, Join, LogicalPlan, Projection, Unnest, lit,
};

/// Replaces lateral joins with subqueries that only unnest.
pub fn unnest_lateral(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) => match grafted(&join)? {
            Some(plan) => Ok(Transformed::yes(plan)),
            None => Ok(Transformed::no(LogicalPlan::Join(join))),
        },
        other => Ok(Transformed::no(other)),
    })?;
    Ok(rewritten.data)
}

/// The join without a join, if it is one of these.
fn grafted(join: &Join) -> Result<Option<LogicalPlan>> {
    let left_join = match join.join_type {
        JoinType::Inner => false,
        JoinType::Left => true,
        _ => return Ok(None),
    };
    let condition = join.on.iter().map(|(l, r)| l.clone().eq(r.clone())).chain(join.filter.clone());
    let condition = condition.filter(|e| *e != lit(true)).reduce(Expr::and);
    if left_join && condition.is_some() {
        return Ok(None);
    }
    let mut graft = Graft { left: join.left.clone(), left_join, unnests: 0, lateral: false };
    let Some(grafted) = graft.plan(&join.right)? else { return Ok(None) };
    if !graft.lateral {
        return Ok(None);
    }
    let left_width = join.left.schema().fields().len();
    let mut columns = left_columns(&join.left);
    let names = join.schema.iter().skip(left_width);
    columns.extend(grafted.columns.into_iter().zip(names).map(|(column, (table, field))| {
        column.alias_qualified(table.cloned(), field.name().clone())
    }));
    let projection = Projection::try_new(columns, Arc::new(grafted.plan))?;
    let plan = LogicalPlan::Projection(projection);
    Ok(Some(match condition {
        Some(condition) => LogicalPlan::Filter(Filter::try_new(condition, Arc::new(plan))?),
        None => plan,
    }))
}

fn left_columns(left: &LogicalPlan) -> Vec<Expr> {
    left.schema().columns().into_iter().map(Expr::Column).collect()
}

/// A part of the subquery over the left input.
struct Grafted {
    /// Has all columns of the left input.
    plan: LogicalPlan,
    /// What the part gives, over the plan's columns.
    columns: Vec<Expr>,
}

struct Graft {
    left: Arc<LogicalPlan>,
    left_join: bool,
    unnests: usize,
    /// An outer reference was found.
    lateral: bool,
}

impl Graft {
    fn plan(&mut self, plan: &LogicalPlan) -> Result<Option<Grafted>> {
        match plan {
            LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: true, .. }) => {
                Ok(Some(Grafted { plan: self.left.as_ref().clone(), columns: vec![] }))
            }
            LogicalPlan::SubqueryAlias(n) => self.plan(&n.input),
            LogicalPlan::Subquery(n) => self.plan(&n.subquery),
            LogicalPlan::Projection(n) => {
                let Some(below) = self.plan(&n.input)? else { return Ok(None) };
                let columns = n
                    .expr
                    .iter()
                    .map(|expr| {
                        let expr = expr.clone().unalias_nested().data;
                        self.over(expr, n.input.schema(), &below.columns)
                    })
                    .collect::<Result<_>>()?;
                Ok(Some(Grafted { plan: below.plan, columns }))
            }
            // A left join's rows that a filter drops would have to come back.
            LogicalPlan::Filter(n) if !self.left_join => {
                let Some(below) = self.plan(&n.input)? else { return Ok(None) };
                let predicate = self.over(n.predicate.clone(), n.input.schema(), &below.columns)?;
                let filter = Filter::try_new(predicate, Arc::new(below.plan))?;
                Ok(Some(Grafted { plan: LogicalPlan::Filter(filter), columns: below.columns }))
            }
            LogicalPlan::Unnest(n) => self.unnest(n),
            _ => Ok(None),
        }
    }

    fn unnest(&mut self, unnest: &Unnest) -> Result<Option<Grafted>> {
        let plain = unnest.struct_type_columns.is_empty()
            && unnest.list_type_columns.iter().all(|(_, list)| list.depth == 1);
        // What a left join keeps, a second unnest would drop.
        if !plain || (self.left_join && self.unnests > 0) {
            return Ok(None);
        }
        let Some(below) = self.plan(&unnest.input)? else { return Ok(None) };
        self.unnests += 1;
        let name = |index: usize| format!("lateral {} {index}", self.unnests);
        let mut columns: Vec<Expr> =
            below.plan.schema().columns().into_iter().map(Expr::Column).collect();
        let own = below.columns.into_iter().enumerate();
        columns.extend(own.map(|(index, column)| column.alias(name(index))));
        let input = Projection::try_new(columns, Arc::new(below.plan))?;
        let lists = unnest.list_type_columns.iter();
        let lists = lists.map(|(index, _)| Column::from_name(name(*index))).collect();
        let mut options = unnest.options.clone();
        options.recursions = vec![];
        if self.left_join {
            options.null_handling = NullHandling::PreserveAndExpandEmpty;
        }
        let unnested = Unnest::try_new(Arc::new(LogicalPlan::Projection(input)), lists, options)?;
        let columns = unnest.dependency_indices.iter();
        let columns = columns.map(|index| Expr::Column(Column::from_name(name(*index))));
        Ok(Some(Grafted { plan: LogicalPlan::Unnest(unnested), columns: columns.collect() }))
    }

    /// An expression of the subquery over the plan's columns.
    fn over(&mut self, expr: Expr, schema: &DFSchemaRef, columns: &[Expr]) -> Result<Expr> {
        let replaced = expr.transform_up(|e| match &e {
            Expr::OuterReferenceColumn(_, column) => {
                self.lateral = true;
                Ok(Transformed::yes(Expr::Column(column.clone())))
            }
            Expr::Column(column) => {
                let index = schema.index_of_column(column)?;
                Ok(Transformed::yes(columns[index].clone()))
            }
            _ => Ok(Transformed::no(e)),
        })?;
        Ok(replaced.data)
    }
}
