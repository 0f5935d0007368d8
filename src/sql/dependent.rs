//! Correlated subqueries that no rule of DataFusion's makes a join of.
//!
//! DataFusion moves the conditions that look outside up to a join. It cannot where such a condition
//! is no equality and stands below an aggregate (`SELECT count(*) FROM b WHERE b.y < a.x`), where
//! something else than a condition looks outside, or below LIMIT. Then the subquery is computed for
//! each different value of what it looks at:
//!
//! 1. The *outside*: the different values of those columns of the node that has the subquery.
//! 2. The subquery is planned over them: its inputs are joined with the outside, every node passes
//!    the outside's columns on; aggregates group by them, window functions partition by them, LIMIT
//!    becomes a `row_number()` over them. An aggregate without GROUP BY has a row for each value
//!    outside, also where no rows are: a left join adds what is missing, with 0 for a count.
//! 3. The node's input is joined with the result by these columns, NULLs being equal. A scalar
//!    subquery's value is a column of that join; LATERAL is the join itself.
//!
//! A subquery that looks further outside than the query around it is joined to that query as it
//! is, and planned with it for the query that it looks at. A subquery among the arguments of an
//! aggregate or window function becomes a column below it first.
//!
//! What DataFusion knows is left to it: it needs no second reading of the outer input. Of LATERAL
//! it knows little; where all that looks outside is an equality, the subquery without these
//! conditions is joined by them (`limited::free`).

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{
    Column, DFSchema, JoinType, NullEquality, Result, TableReference, internal_err,
};
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{merge_schema, split_conjunction};
use datafusion::logical_expr::{
    Distinct, Expr, ExprFunctionExt, ExprSchemable, FetchType, GroupingSet, Join, JoinConstraint,
    Limit, LogicalPlan, LogicalPlanBuilder, SkipType, SortExpr, Subquery, Union, Unnest, cast, lit,
};

use crate::sql::limited::{Names, equality, free, looks_outside};

/// Columns of a CUBE that is written out, 1024 grouping sets.
const CUBE_COLUMNS_MAX: usize = 10;

/// Correlated subqueries that DataFusion does not know how to join become joins here.
pub fn join_dependent_subqueries(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut count = 0;
    let mut names = Names { prefix: "lateral key", count: 0 };
    let joined = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) => scalar(node, &mut count),
        LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) => arguments(node, &mut count),
        LogicalPlan::Join(join) => lateral(join, &mut count, &mut names),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(joined.data)
}

/// Scalar subqueries of a node.
fn scalar(node: LogicalPlan, count: &mut usize) -> Result<Transformed<LogicalPlan>> {
    let input = node.inputs()[0].clone();
    let mut below = input.clone();
    let mut changed = false;
    let names = NamePreserver::new(&node);
    let mut exprs = vec![];
    for expr in node.expressions() {
        let name = names.save(&expr);
        let replaced = expr.transform_up(|e| match e {
            Expr::ScalarSubquery(subquery)
                if is_hard(&subquery.subquery, true)?
                    || looks_further(&subquery.subquery, input.schema())? =>
            {
                let Some(plan) = over_outside(&subquery, &input, count)? else {
                    return Ok(Transformed::no(Expr::ScalarSubquery(subquery)));
                };
                *count += 1;
                let alias = format!("subquery {count}");
                let value = Column::from(plan.plan.schema().qualified_field(0));
                let mut columns = vec![Expr::Column(value).alias("value")];
                let keys = plan.outside.iter().enumerate();
                columns
                    .extend(keys.map(|(i, c)| Expr::Column(c.clone()).alias(format!("key {i}"))));
                let right = LogicalPlanBuilder::from(plan.plan)
                    .project(columns)?
                    .alias(alias.clone())?
                    .build()?;
                let keys = (0..plan.columns.len())
                    .map(|i| Column::new(Some(alias.clone()), format!("key {i}")))
                    .collect();
                below = join(below.clone(), right, JoinType::Left, (plan.columns, keys), None)?;
                changed = true;
                Ok(Transformed::yes(Expr::Column(Column::new(Some(alias), "value"))))
            }
            other => Ok(Transformed::no(other)),
        })?;
        exprs.push(name.restore(replaced.data));
    }
    if !changed {
        return Ok(Transformed::no(node));
    }
    let plan = match &node {
        LogicalPlan::Filter(_) => {
            let own = input.schema().columns().into_iter().map(Expr::Column);
            let condition = exprs.remove(0);
            LogicalPlanBuilder::from(below).filter(condition)?.project(own)?.build()?
        }
        _ => LogicalPlanBuilder::from(below).project(exprs)?.build()?,
    };
    Ok(Transformed::yes(plan))
}

/// Subqueries among the arguments of aggregates and window functions are columns of what is below.
fn arguments(node: LogicalPlan, count: &mut usize) -> Result<Transformed<LogicalPlan>> {
    let has_subquery = |expr: &Expr| expr.exists(|e| Ok(is_subquery(e)));
    let mut found = false;
    for expr in node.expressions() {
        found |= has_subquery(&expr)?;
    }
    if !found {
        return Ok(Transformed::no(node));
    }
    let input = node.inputs()[0].clone();
    let mut columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    let mut moved: Vec<Expr> = vec![];
    let names = NamePreserver::new_for_projection();
    let mut exprs = vec![];
    for expr in node.expressions() {
        let name = names.save(&expr);
        let replaced = expr.transform_up(|e| {
            if !is_subquery(&e) {
                return Ok(Transformed::no(e));
            }
            let place = moved.iter().position(|other| *other == e).unwrap_or(moved.len());
            let alias = format!("subquery among arguments {place}");
            if place == moved.len() {
                columns.push(e.clone().alias(alias.clone()));
                moved.push(e);
            }
            Ok(Transformed::yes(Expr::Column(Column::from_name(alias))))
        })?;
        exprs.push(name.restore(replaced.data));
    }
    let below = LogicalPlanBuilder::from(input).project(columns)?.build()?;
    let below = scalar(below, count)?.data;
    let own: Vec<Expr> = node.schema().columns().into_iter().map(Expr::Column).collect();
    let plan = LogicalPlanBuilder::from(node.with_new_exprs(exprs, vec![below])?);
    // A window function passes on what is below.
    Ok(Transformed::yes(plan.project(own)?.build()?))
}

fn is_subquery(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_)
    )
}

/// A join whose right side looks at its left side.
fn lateral(
    dependent: Join,
    count: &mut usize,
    names: &mut Names,
) -> Result<Transformed<LogicalPlan>> {
    let inner = matches!(dependent.join_type, JoinType::Inner | JoinType::Left);
    let (subquery, alias) = match &*dependent.right {
        LogicalPlan::Subquery(subquery) => (subquery, None),
        LogicalPlan::SubqueryAlias(alias) => match &*alias.input {
            LogicalPlan::Subquery(subquery) => (subquery, Some(alias.alias.clone())),
            _ => return Ok(Transformed::no(LogicalPlan::Join(dependent))),
        },
        _ => return Ok(Transformed::no(LogicalPlan::Join(dependent))),
    };
    // What only computes from the row at hand needs no second reading of it (`sql::lateral`).
    if !inner || !reads_rows(&subquery.subquery)? {
        return Ok(Transformed::no(LogicalPlan::Join(dependent)));
    }
    if !is_hard(&subquery.subquery, false)?
        && let Some(plan) = by_equalities(&dependent, subquery, alias.clone(), names)?
    {
        return Ok(Transformed::yes(plan));
    }
    let Some(plan) = over_outside(subquery, &dependent.left, count)? else {
        return Ok(Transformed::no(LogicalPlan::Join(dependent)));
    };
    let mut right = LogicalPlanBuilder::from(plan.plan);
    let mut keys = plan.outside;
    if let Some(alias) = alias {
        right = right.alias(alias.clone())?;
        keys = keys.into_iter().map(|key| Column::new(Some(alias.clone()), key.name)).collect();
    }
    let own: Vec<Expr> = dependent.schema.columns().into_iter().map(Expr::Column).collect();
    let on = dependent.on.iter().map(|(left, right)| left.clone().eq(right.clone()));
    let filter = on.chain(dependent.filter.clone()).reduce(Expr::and);
    let left = dependent.left.as_ref().clone();
    let joined = join(left, right.build()?, dependent.join_type, (plan.columns, keys), filter)?;
    Ok(Transformed::yes(LogicalPlanBuilder::from(joined).project(own)?.build()?))
}

/// A lateral join whose subquery looks outside in equalities only, as a join by them.
fn by_equalities(
    dependent: &Join,
    subquery: &Subquery,
    alias: Option<TableReference>,
    names: &mut Names,
) -> Result<Option<LogicalPlan>> {
    let Some(freed) = free(&subquery.subquery, names)? else { return Ok(None) };
    if freed.keys.is_empty() {
        return Ok(None);
    }
    let mut right = LogicalPlanBuilder::from(freed.plan);
    if let Some(alias) = &alias {
        right = right.alias(alias.clone())?;
    }
    let mut on = vec![];
    for (key, outside) in freed.keys {
        let mut further = false;
        let outside = outside.transform_up(|e| match e {
            Expr::OuterReferenceColumn(field, column) => {
                if dependent.left.schema().has_column(&column) {
                    return Ok(Transformed::yes(Expr::Column(column)));
                }
                further = true;
                Ok(Transformed::no(Expr::OuterReferenceColumn(field, column)))
            }
            other => Ok(Transformed::no(other)),
        })?;
        // It looks at a query further outside.
        if further {
            return Ok(None);
        }
        let key = match &alias {
            Some(alias) => Column::new(Some(alias.clone()), key.name),
            None => key,
        };
        on.push((outside.data, Expr::Column(key)));
    }
    let own: Vec<Expr> = dependent.schema.columns().into_iter().map(Expr::Column).collect();
    let conditions = dependent.on.iter().map(|(left, right)| left.clone().eq(right.clone()));
    let filter = conditions.chain(dependent.filter.clone()).reduce(Expr::and);
    let joined = LogicalPlan::Join(Join::try_new(
        dependent.left.clone(),
        Arc::new(right.build()?),
        on,
        filter,
        dependent.join_type,
        JoinConstraint::On,
        NullEquality::NullEqualsNothing,
        false,
    )?);
    LogicalPlanBuilder::from(joined).project(own)?.build().map(Some)
}

/// Whether a plan is an aggregate over all rows, perhaps with columns computed from it.
fn is_global_aggregate(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => {
            is_global_aggregate(plan.inputs()[0])
        }
        _ => false,
    }
}

/// Whether a plan reads rows of its own, or does more with its rows than to compute from them.
fn reads_rows(plan: &LogicalPlan) -> Result<bool> {
    let mut reads = false;
    plan.apply(|node| {
        reads |= match node {
            LogicalPlan::Aggregate(_)
            | LogicalPlan::Distinct(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Window(_) => true,
            LogicalPlan::EmptyRelation(_) => false,
            node => node.inputs().is_empty(),
        };
        Ok(if reads { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(reads)
}

/// A join by columns in which NULLs are equal.
fn join(
    left: LogicalPlan,
    right: LogicalPlan,
    kind: JoinType,
    (left_keys, right_keys): (Vec<Column>, Vec<Column>),
    filter: Option<Expr>,
) -> Result<LogicalPlan> {
    let on = left_keys.into_iter().map(Expr::Column).zip(right_keys.into_iter().map(Expr::Column));
    Ok(LogicalPlan::Join(Join::try_new(
        Arc::new(left),
        Arc::new(right),
        on.collect(),
        filter,
        kind,
        JoinConstraint::On,
        NullEquality::NullEqualsNull,
        false,
    )?))
}

/// Whether a subquery looks outside where DataFusion does not follow. `below`: its rows are
/// aggregated, or counted otherwise, before they meet what is outside.
fn is_hard(plan: &LogicalPlan, below: bool) -> Result<bool> {
    if !looks_outside(plan)? {
        return Ok(false);
    }
    let here = plan.expressions().iter().any(Expr::contains_outer);
    Ok(match plan {
        LogicalPlan::Filter(filter) => {
            let conditions = split_conjunction(&filter.predicate);
            let mut outer = conditions.iter().filter(|condition| condition.contains_outer());
            outer.any(|condition| below && equality(condition).is_none())
                // HAVING: a row that is not there for one value outside is there for others.
                || is_global_aggregate(&filter.input)
                || is_hard(&filter.input, below)?
        }
        _ if here => true,
        LogicalPlan::Projection(projection) => is_hard(&projection.input, below)?,
        LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) => is_hard(plan.inputs()[0], true)?,
        LogicalPlan::Join(join) if join.join_type == JoinType::Inner => {
            is_hard(&join.left, below)? || is_hard(&join.right, below)?
        }
        _ => true,
    })
}

/// Whether something in a plan looks at columns that are not among these, but further outside.
fn looks_further(plan: &LogicalPlan, near: &DFSchema) -> Result<bool> {
    looks(plan, |column| !near.has_column(column))
}

/// Whether something in a plan looks at these columns outside.
fn looks_at(plan: &LogicalPlan, near: &DFSchema) -> Result<bool> {
    looks(plan, |column| near.has_column(column))
}

fn looks(plan: &LogicalPlan, at: impl Fn(&Column) -> bool) -> Result<bool> {
    let mut looks = false;
    plan.apply(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                if let Expr::OuterReferenceColumn(_, column) = e {
                    looks |= at(column);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(looks)
}

/// Whether a subquery in a condition over these columns looks outside where DataFusion does not
/// follow with a join: past the query around it, from a query inside of it, below an unnest or the
/// name of a derived table (`derived.rs`), or in its first column where that is `compared`.
pub fn is_unjoinable(plan: &LogicalPlan, near: &DFSchema, compared: bool) -> Result<bool> {
    if looks_further(plan, near)? {
        return Ok(true);
    }
    let mut unjoinable = match plan {
        LogicalPlan::Projection(projection) if compared => {
            projection.expr.iter().any(Expr::contains_outer)
        }
        _ => false,
    };
    plan.apply(|node| {
        unjoinable |= match node {
            LogicalPlan::Unnest(unnest) => looks_outside(&unnest.input)?,
            LogicalPlan::SubqueryAlias(alias) => looks_at(&alias.input, near)?,
            _ => false,
        };
        let inputs = merge_schema(&node.inputs());
        node.apply_subqueries(|inner| {
            if let LogicalPlan::Subquery(inner) = inner {
                unjoinable |= looks_further(&inner.subquery, &inputs)?;
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(unjoinable)
}

/// A subquery for each value of what is outside.
struct Planned {
    plan: LogicalPlan,
    /// Columns of the plan that say for which values.
    outside: Vec<Column>,
    /// The columns outside that these are equal to.
    columns: Vec<Column>,
}

fn over_outside(
    subquery: &Subquery,
    input: &LogicalPlan,
    count: &mut usize,
) -> Result<Option<Planned>> {
    let mut columns: Vec<Column> = vec![];
    subquery.subquery.apply(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                if let Expr::OuterReferenceColumn(_, column) = e
                    && input.schema().has_column(column)
                    && !columns.contains(column)
                {
                    columns.push(column.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    if columns.is_empty() {
        // It looks past this query: a part of what the query around it is planned for.
        let further = looks_further(&subquery.subquery, input.schema())?;
        let plan = subquery.subquery.as_ref().clone();
        return Ok(further.then_some(Planned { plan, outside: vec![], columns }));
    }
    let mut dependent = Dependent { input, columns: &columns, count };
    let Some((plan, outside)) = dependent.plan(&subquery.subquery)? else { return Ok(None) };
    // What looks further outside is for the query around this one.
    Ok(Some(Planned { plan, outside, columns }))
}

/// Plans subqueries over the values of some columns.
struct Dependent<'a> {
    /// What has the columns.
    input: &'a LogicalPlan,
    columns: &'a [Column],
    /// Numbers of names.
    count: &'a mut usize,
}

/// A plan, and its columns with the values outside.
type WithOutside = (LogicalPlan, Vec<Column>);

impl Dependent<'_> {
    /// The different values outside.
    fn outside(&mut self) -> Result<WithOutside> {
        *self.count += 1;
        let alias = format!("outside {}", self.count);
        let name = |i: usize| format!("{alias} column {i}");
        let columns = self.columns.iter().enumerate();
        let columns = columns.map(|(i, c)| Expr::Column(c.clone()).alias(name(i)));
        let plan = LogicalPlanBuilder::from(self.input.clone())
            .project(columns)?
            .distinct()?
            .alias(alias.clone())?
            .build()?;
        let columns = (0..self.columns.len()).map(|i| Column::new(Some(alias.clone()), name(i)));
        Ok((plan, columns.collect()))
    }

    /// An expression over the values outside that stand in these columns.
    fn inside(&self, expr: &Expr, outside: &[Column]) -> Result<Expr> {
        let replaced = expr.clone().transform_up(|e| match &e {
            Expr::OuterReferenceColumn(_, column) => {
                match self.columns.iter().position(|own| own == column) {
                    Some(place) => Ok(Transformed::yes(Expr::Column(outside[place].clone()))),
                    None => Ok(Transformed::no(e)),
                }
            }
            _ => Ok(Transformed::no(e)),
        })?;
        Ok(replaced.data)
    }

    /// A subquery's plan for each value outside; `None`: it has a node that cannot be planned so.
    fn plan(&mut self, plan: &LogicalPlan) -> Result<Option<WithOutside>> {
        if !looks_outside(plan)? {
            let (outside, columns) = self.outside()?;
            let plan = LogicalPlanBuilder::from(plan.clone()).cross_join(outside)?.build()?;
            return Ok(Some((plan, columns)));
        }
        let planned = match plan {
            LogicalPlan::Filter(filter) => {
                let Some((input, outside)) = self.plan(&filter.input)? else { return Ok(None) };
                let predicate = self.inside(&filter.predicate, &outside)?;
                (LogicalPlanBuilder::from(input).filter(predicate)?.build()?, outside)
            }
            LogicalPlan::Projection(projection) => {
                let Some((input, outside)) = self.plan(&projection.input)? else {
                    return Ok(None);
                };
                let names = NamePreserver::new(plan);
                let mut exprs = vec![];
                for expr in &projection.expr {
                    let name = names.save(expr);
                    exprs.push(name.restore(self.inside(expr, &outside)?));
                }
                exprs.extend(outside.iter().cloned().map(Expr::Column));
                (LogicalPlanBuilder::from(input).project(exprs)?.build()?, outside)
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let Some((input, outside)) = self.plan(&alias.input)? else { return Ok(None) };
                let name = alias.alias.clone();
                let plan = LogicalPlanBuilder::from(input).alias(name.clone())?.build()?;
                let outside =
                    outside.into_iter().map(|c| Column::new(Some(name.clone()), c.name)).collect();
                (plan, outside)
            }
            LogicalPlan::Subquery(subquery) => return self.plan(&subquery.subquery),
            LogicalPlan::Aggregate(aggregate) => {
                let Some((input, outside)) = self.plan(&aggregate.input)? else { return Ok(None) };
                if let [Expr::GroupingSet(set)] = aggregate.group_expr.as_slice() {
                    return self.grouping_sets(plan, set, input, outside);
                }
                if aggregate.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_))) {
                    return Ok(None);
                }
                return self.aggregate(plan, input, outside).map(Some);
            }
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let Some((input, outside)) = self.plan(input)? else { return Ok(None) };
                (LogicalPlan::Distinct(Distinct::All(Arc::new(input))), outside)
            }
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => return self.plan(&sort.input),
            LogicalPlan::Limit(limit) => return self.limit(limit),
            LogicalPlan::Window(window) => {
                let Some((input, outside)) = self.plan(&window.input)? else { return Ok(None) };
                let mut calls = vec![];
                for expr in &window.window_expr {
                    let name = expr.schema_name().to_string();
                    let mut call = self.inside(expr, &outside)?.unalias_nested().data;
                    if let Expr::WindowFunction(function) = &mut call {
                        let keys = outside.iter().cloned().map(Expr::Column);
                        function.params.partition_by.extend(keys);
                    }
                    calls.push(call.alias(name));
                }
                (LogicalPlanBuilder::from(input).window(calls)?.build()?, outside)
            }
            LogicalPlan::Union(union) => return self.union(union),
            LogicalPlan::Join(join) => return self.join(join),
            LogicalPlan::Unnest(unnest) => {
                let plain = unnest.struct_type_columns.is_empty()
                    && unnest.list_type_columns.iter().all(|(_, list)| list.depth == 1);
                let Some((input, outside)) = self.plan(&unnest.input)? else { return Ok(None) };
                if !plain {
                    return Ok(None);
                }
                let mut options = unnest.options.clone();
                options.recursions = vec![];
                let lists = unnest.exec_columns.clone();
                let plan = LogicalPlan::Unnest(Unnest::try_new(Arc::new(input), lists, options)?);
                // As they were named; each column of the input has given one.
                let columns = plan.schema().columns();
                let own = unnest.dependency_indices.iter().zip(unnest.schema.iter());
                let mut exprs: Vec<Expr> = own
                    .map(|(place, (table, field))| {
                        let column = Expr::Column(columns[*place].clone());
                        column.alias_qualified(table.cloned(), field.name())
                    })
                    .collect();
                exprs.extend(outside.iter().cloned().map(Expr::Column));
                let plan = LogicalPlanBuilder::from(plan).project(exprs)?.build()?;
                (plan, outside)
            }
            LogicalPlan::Values(values) => {
                // Each row is a query of its own.
                let fields = values.schema.fields();
                let row = |row: &Vec<Expr>| {
                    let typed = row.iter().zip(fields).map(|(expr, field)| {
                        cast(expr.clone(), field.data_type().clone()).alias(field.name())
                    });
                    LogicalPlanBuilder::empty(true).project(typed.collect::<Vec<_>>())?.build()
                };
                let rows = values.values.iter().map(row).collect::<Result<Vec<_>>>()?;
                let rows = rows.into_iter().map(Ok).reduce(|all: Result<LogicalPlan>, row| {
                    LogicalPlanBuilder::from(all?).union(row?)?.build()
                });
                let Some(rows) = rows.transpose()? else { return Ok(None) };
                return self.plan(&rows);
            }
            _ => return Ok(None),
        };
        Ok(Some(planned))
    }

    fn aggregate(
        &mut self,
        plan: &LogicalPlan,
        input: LogicalPlan,
        outside: Vec<Column>,
    ) -> Result<WithOutside> {
        let LogicalPlan::Aggregate(aggregate) = plan else {
            return internal_err!("only aggregates are planned here");
        };
        let names = NamePreserver::new_for_projection();
        let over = |exprs: &[Expr]| -> Result<Vec<Expr>> {
            let over = |expr: &Expr| {
                let name = names.save(expr);
                Ok(name.restore(self.inside(expr, &outside)?))
            };
            exprs.iter().map(over).collect()
        };
        let (mut groups, calls) = (over(&aggregate.group_expr)?, over(&aggregate.aggr_expr)?);
        groups.extend(outside.iter().cloned().map(Expr::Column));
        let grouped = LogicalPlanBuilder::from(input).aggregate(groups, calls)?.build()?;
        if !aggregate.group_expr.is_empty() {
            return Ok((grouped, outside));
        }
        self.with_missing(plan, grouped, outside)
    }

    /// As [`Dependent::aggregate`], of one list of grouping sets, each of which gets the outside.
    fn grouping_sets(
        &mut self,
        plan: &LogicalPlan,
        set: &GroupingSet,
        input: LogicalPlan,
        outside: Vec<Column>,
    ) -> Result<Option<WithOutside>> {
        let LogicalPlan::Aggregate(aggregate) = plan else {
            return internal_err!("only aggregates are planned here");
        };
        let mut sets: Vec<Vec<Expr>> = match set {
            GroupingSet::GroupingSets(sets) => sets.clone(),
            GroupingSet::Rollup(exprs) => {
                (0..=exprs.len()).rev().map(|length| exprs[..length].to_vec()).collect()
            }
            GroupingSet::Cube(exprs) if exprs.len() <= CUBE_COLUMNS_MAX => (0..1_usize
                << exprs.len())
                .map(|chosen| {
                    let exprs = exprs.iter().enumerate();
                    exprs.filter(|(i, _)| chosen >> i & 1 == 0).map(|(_, e)| e.clone()).collect()
                })
                .collect(),
            GroupingSet::Cube(_) => return Ok(None),
        };
        // A key that is the same for all rows would have to keep its name.
        if sets.iter().flatten().any(Expr::contains_outer) {
            return Ok(None);
        }
        let totals = sets.iter().any(Vec::is_empty);
        let asks = |expr: &Expr| {
            expr.exists(|e| match e {
                Expr::AggregateFunction(call) => Ok(call.func.name() == "grouping"),
                _ => Ok(false),
            })
        };
        for expr in &aggregate.aggr_expr {
            // The row for a value outside without any rows would not know what it is a total of.
            if totals && asks(expr)? {
                return Ok(None);
            }
        }
        let names = NamePreserver::new_for_projection();
        for set in &mut sets {
            for expr in &mut *set {
                *expr = self.inside(expr, &outside)?;
            }
            set.extend(outside.iter().cloned().map(Expr::Column));
        }
        let mut calls = vec![];
        for expr in &aggregate.aggr_expr {
            let name = names.save(expr);
            calls.push(name.restore(self.inside(expr, &outside)?));
        }
        let groups = vec![Expr::GroupingSet(GroupingSet::GroupingSets(sets))];
        let grouped = LogicalPlanBuilder::from(input).aggregate(groups, calls)?.build()?;
        match totals {
            true => self.with_missing(plan, grouped, outside).map(Some),
            false => Ok(Some((grouped, outside))),
        }
    }

    /// A row for each value outside, also where there is nothing to aggregate.
    fn with_missing(
        &mut self,
        plan: &LogicalPlan,
        grouped: LogicalPlan,
        outside: Vec<Column>,
    ) -> Result<WithOutside> {
        let LogicalPlan::Aggregate(aggregate) = plan else {
            return internal_err!("only aggregates are planned here");
        };
        let (all, columns) = self.outside()?;
        let joined = join(all, grouped, JoinType::Left, (columns.clone(), outside), None)?;
        let schema = joined.schema().clone();
        let own = plan.schema().columns();
        let (keys, values) = own.split_at(own.len() - aggregate.aggr_expr.len());
        let mut exprs: Vec<Expr> = keys.iter().cloned().map(Expr::Column).collect();
        for (expr, column) in aggregate.aggr_expr.iter().zip(values) {
            let value = Expr::Column(column.clone());
            exprs.push(match counts(expr) {
                false => value,
                true => {
                    let zero = cast(lit(0_i64), value.get_type(&schema)?);
                    coalesce(vec![value, zero]).alias(column.name.clone())
                }
            });
        }
        exprs.extend(columns.iter().cloned().map(Expr::Column));
        Ok((LogicalPlanBuilder::from(joined).project(exprs)?.build()?, columns))
    }

    fn limit(&mut self, limit: &Limit) -> Result<Option<WithOutside>> {
        const PLACE: &str = "place in the dependent subquery";
        let (SkipType::Literal(skip), FetchType::Literal(fetch)) =
            (limit.get_skip_type()?, limit.get_fetch_type()?)
        else {
            return Ok(None);
        };
        // Projections above the sort drop what is only sorted by.
        let (order_by, above, below) = match &*limit.input {
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => {
                (sort.expr.clone(), None, &*sort.input)
            }
            LogicalPlan::Projection(projection) => match &*projection.input {
                LogicalPlan::Sort(sort) if sort.fetch.is_none() => {
                    (sort.expr.clone(), Some(projection), &*sort.input)
                }
                _ => (vec![], None, &*limit.input),
            },
            other => (vec![], None, other),
        };
        let Some((input, outside)) = self.plan(below)? else { return Ok(None) };
        let mut sorts: Vec<SortExpr> = vec![];
        for mut sort in order_by {
            sort.expr = self.inside(&sort.expr, &outside)?;
            sorts.push(sort);
        }
        let keys: Vec<Expr> = outside.iter().cloned().map(Expr::Column).collect();
        let place = row_number().partition_by(keys.clone()).order_by(sorts).build()?.alias(PLACE);
        let number = || Expr::Column(Column::from_name(PLACE));
        let skip = skip as u64;
        let mut condition = number().gt(lit(skip));
        if let Some(fetch) = fetch {
            condition = condition.and(number().lt_eq(lit(skip.saturating_add(fetch as u64))));
        }
        let mut exprs: Vec<Expr> = match above {
            None => below.schema().columns().into_iter().map(Expr::Column).collect(),
            Some(projection) => {
                let names = NamePreserver::new_for_projection();
                let over = |expr: &Expr| {
                    let name = names.save(expr);
                    Ok(name.restore(self.inside(expr, &outside)?))
                };
                projection.expr.iter().map(over).collect::<Result<_>>()?
            }
        };
        exprs.extend(keys);
        let plan = LogicalPlanBuilder::from(input)
            .window([place])?
            .filter(condition)?
            .project(exprs)?
            .build()?;
        Ok(Some((plan, outside)))
    }

    fn union(&mut self, union: &Union) -> Result<Option<WithOutside>> {
        let width = union.schema.fields().len();
        let mut inputs: Vec<LogicalPlan> = vec![];
        for input in &union.inputs {
            let Some((plan, outside)) = self.plan(input)? else { return Ok(None) };
            // Unions take their names from the first input; the others' only have to stand alike.
            let mut exprs = vec![];
            for (place, column) in plan.schema().columns().into_iter().enumerate() {
                if place < width {
                    let name = union.schema.field(place).name().clone();
                    exprs.push(Expr::Column(column).alias(name));
                }
            }
            let named = outside.into_iter().enumerate();
            exprs
                .extend(named.map(|(i, c)| Expr::Column(c).alias(format!("outside of union {i}"))));
            inputs.push(LogicalPlanBuilder::from(plan).project(exprs)?.build()?);
        }
        let mut inputs = inputs.into_iter();
        let Some(first) = inputs.next() else { return Ok(None) };
        let united =
            inputs.try_fold(LogicalPlanBuilder::from(first), |all, input| all.union(input))?;
        // As it was named, with what is outside behind.
        let plan = united.build()?;
        let columns = plan.schema().columns();
        let mut exprs = vec![];
        for (place, column) in columns[..width].iter().enumerate() {
            let (table, field) = union.schema.qualified_field(place);
            let expr = Expr::Column(column.clone());
            exprs.push(expr.alias_qualified(table.cloned(), field.name()));
        }
        *self.count += 1;
        let name = |i: usize| format!("outside {} column {i}", self.count);
        let own = columns[width..].iter().enumerate();
        exprs.extend(own.map(|(i, column)| Expr::Column(column.clone()).alias(name(i))));
        let outside = (0..self.columns.len()).map(|i| Column::from_name(name(i))).collect();
        Ok(Some((LogicalPlanBuilder::from(plan).project(exprs)?.build()?, outside)))
    }

    fn join(&mut self, dependent: &Join) -> Result<Option<WithOutside>> {
        if dependent.null_aware
            || !matches!(
                dependent.join_type,
                JoinType::Inner
                    | JoinType::Left
                    | JoinType::LeftSemi
                    | JoinType::LeftAnti
                    | JoinType::LeftMark
            )
        {
            return Ok(None);
        }
        let own: Vec<Expr> = dependent.schema.columns().into_iter().map(Expr::Column).collect();
        let Some((left, outside)) = self.plan(&dependent.left)? else { return Ok(None) };
        // Keys in which NULLs are equal stay keys, beside those of the outside; others are
        // conditions.
        let (mut on, mut conditions) = (vec![], vec![]);
        for (left, right) in &dependent.on {
            let pair = (self.inside(left, &outside)?, self.inside(right, &outside)?);
            match dependent.null_equality {
                NullEquality::NullEqualsNull => on.push(pair),
                NullEquality::NullEqualsNothing => conditions.push(pair.0.eq(pair.1)),
            }
        }
        if let Some(filter) = &dependent.filter {
            conditions.push(self.inside(filter, &outside)?);
        }
        let right = match looks_outside(&dependent.right)? {
            false => dependent.right.clone(),
            true => {
                let Some((right, keys)) = self.plan(&dependent.right)? else { return Ok(None) };
                let keys = keys.into_iter().map(Expr::Column);
                on.extend(outside.iter().cloned().map(Expr::Column).zip(keys));
                Arc::new(right)
            }
        };
        let plan = LogicalPlan::Join(Join::try_new(
            Arc::new(left),
            right,
            on,
            conditions.into_iter().reduce(Expr::and),
            dependent.join_type,
            JoinConstraint::On,
            NullEquality::NullEqualsNull,
            false,
        )?);
        let exprs = own.into_iter().chain(outside.iter().cloned().map(Expr::Column));
        Ok(Some((LogicalPlanBuilder::from(plan).project(exprs)?.build()?, outside)))
    }
}

/// Whether an aggregate is 0, not NULL, where there are no rows.
fn counts(expr: &Expr) -> bool {
    match expr {
        Expr::Alias(alias) => counts(&alias.expr),
        Expr::AggregateFunction(call) => matches!(call.func.name(), "count" | "regr_count"),
        _ => false,
    }
}
