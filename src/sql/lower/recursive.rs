//! WITH RECURSIVE.
//!
//! 1. The recursive reference gets a last column, the iteration of the row, and every node of the
//!    step on the way up passes it on (grouping by it, where it groups). So the step computes all
//!    iterations at once, and rows of different iterations never meet: where they would, in an
//!    aggregate over all rows or on the far side of an outer join, the query is refused, as
//!    Postgres does.
//! 2. What does not depend on the reference becomes an input of the `Recursive` node.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::{Column, DFSchema, JoinType};
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, Filter, Join, LogicalPlan, Projection, RecursiveQuery,
    SubqueryAlias, TableScan, TableScanBuilder, Window,
};

use crate::plan::node::{self, Edge, Exchange, Node, RECURSIVE_REFERENCE};
use crate::plan::recursion::ITERATIONS_MAX;
use crate::sql::lower::aggregate::make_distinct;
use crate::sql::lower::lower_node;
use crate::sql::lower::pipe::Pipe;
use crate::types::error::{Error, Result, SqlState};

/// The column that says of which iteration a row is. No column of a user is called so.
const ITERATION: &str = "iteration of the recursive query";

pub fn lower_recursive(query: &RecursiveQuery) -> Result<Pipe> {
    let fields = query.schema.fields().iter();
    let fields: Vec<FieldRef> =
        fields.map(|field| Arc::new(field.as_ref().clone().with_nullable(true))).collect();
    let schema = Arc::new(Schema::new(fields.clone()));
    let iteration = Arc::new(Field::new(ITERATION, DataType::Int64, false));
    let step_schema = Arc::new(Schema::new([fields, vec![iteration]].concat()));
    let start = lower_node(&query.static_term)?.into_node_with(schema.clone())?;
    match references(&query.recursive_term, &query.name) {
        1 => {}
        // A condition that never holds: what is left of the step gives nothing.
        0 if gives_nothing(&query.recursive_term) => {
            let pipe = Pipe::new(start, query.schema.clone());
            return if query.is_distinct { make_distinct(pipe) } else { Ok(pipe) };
        }
        _ => return Err(misplaced(&query.name, "must not appear more than once")),
    }
    let step = with_iteration(&query.recursive_term, &query.name)?;
    let width = query.schema.fields().len();
    let mut columns: Vec<Expr> = step
        .schema()
        .columns()
        .into_iter()
        .filter(|c| c.name != ITERATION)
        .map(Expr::Column)
        .collect();
    if columns.len() != width {
        return Err(Error::internal("a recursive step has the columns of its query"));
    }
    columns.push(iteration_column());
    let step =
        LogicalPlan::Projection(Projection::try_new(columns, Arc::new(step)).map_err(Error::from)?);
    let step = lower_node(&step)?.into_node_with(step_schema)?;
    let mut inputs = vec![Edge { input: Box::new(start), exchange: Exchange::Single }];
    let step = cut(step, &mut inputs);
    let node = Node::Recursive(node::Recursive {
        inputs,
        step: Box::new(step),
        distinct: query.is_distinct,
        name: query.name.clone(),
        iterations_max: ITERATIONS_MAX,
        schema,
    });
    Ok(Pipe::new(node, query.schema.clone()))
}

/// Whether the optimiser has found that there are no rows.
fn gives_nothing(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::EmptyRelation(empty) => !empty.produce_one_row,
        LogicalPlan::Projection(n) => gives_nothing(&n.input),
        LogicalPlan::SubqueryAlias(n) => gives_nothing(&n.input),
        _ => false,
    }
}

fn iteration_column() -> Expr {
    Expr::Column(Column::from_name(ITERATION))
}

fn misplaced(name: &str, what: &str) -> Error {
    Error::user(
        SqlState::INVALID_RECURSION,
        format!("recursive reference to query \"{name}\" {what}"),
    )
    .hint(
        "Let the recursive part read the query once, in FROM, alone or in a join whose other side \
         may be missing; aggregate and limit in the query that reads the result.",
    )
}

/// The work table that a scan reads, if it does.
fn work_table(scan: &TableScan) -> Option<Arc<CteWorkTable>> {
    let provider = source_as_provider(&scan.source).ok()?;
    let table = provider.downcast_ref::<CteWorkTable>()?;
    Some(Arc::new(CteWorkTable::new(table.name(), table.schema())))
}

/// A window function over partitions by the iteration besides, with the name that it had.
fn partitioned(call: &Expr) -> Expr {
    let name = call.schema_name().to_string();
    let mut call = call.clone().unalias_nested().data;
    if let Expr::WindowFunction(function) = &mut call {
        function.params.partition_by.push(iteration_column());
    }
    call.alias(name)
}

/// How often a plan reads the recursive reference of this name.
fn references(plan: &LogicalPlan, name: &str) -> usize {
    match plan {
        LogicalPlan::TableScan(scan) => {
            usize::from(work_table(scan).is_some_and(|table| table.name() == name))
        }
        // A query of the same name inside of it means itself.
        LogicalPlan::RecursiveQuery(inner) if inner.name == name => {
            references(&inner.static_term, name)
        }
        other => other.inputs().into_iter().map(|input| references(input, name)).sum(),
    }
}

/// The plan with the iteration as a further column.
fn with_iteration(plan: &LogicalPlan, name: &str) -> Result<LogicalPlan> {
    let below = |input: &LogicalPlan| Ok::<_, Error>(Arc::new(with_iteration(input, name)?));
    Ok(match plan {
        LogicalPlan::TableScan(scan) => LogicalPlan::TableScan(scan_with_iteration(scan)?),
        LogicalPlan::Projection(n) => {
            let mut exprs = n.expr.clone();
            exprs.push(iteration_column());
            let projection = Projection::try_new(exprs, below(&n.input)?);
            LogicalPlan::Projection(projection.map_err(Error::from)?)
        }
        LogicalPlan::Filter(n) => {
            let filter = Filter::try_new(n.predicate.clone(), below(&n.input)?);
            LogicalPlan::Filter(filter.map_err(Error::from)?)
        }
        LogicalPlan::SubqueryAlias(n) => {
            let alias = SubqueryAlias::try_new(below(&n.input)?, n.alias.clone());
            LogicalPlan::SubqueryAlias(alias.map_err(Error::from)?)
        }
        LogicalPlan::Join(n) => LogicalPlan::Join(join_with_iteration(n, name)?),
        LogicalPlan::Aggregate(n) if !n.group_expr.is_empty() => {
            let mut keys = n.group_expr.clone();
            if keys.iter().any(|key| matches!(key, Expr::GroupingSet(_))) {
                return Err(misplaced(name, "must not appear below GROUPING SETS"));
            }
            keys.push(iteration_column());
            let aggregate = Aggregate::try_new(below(&n.input)?, keys, n.aggr_expr.clone());
            LogicalPlan::Aggregate(aggregate.map_err(Error::from)?)
        }
        LogicalPlan::Aggregate(_) => {
            return Err(misplaced(name, "must not appear below an aggregate over all rows"));
        }
        LogicalPlan::Distinct(Distinct::All(input)) => {
            LogicalPlan::Distinct(Distinct::All(below(input)?))
        }
        LogicalPlan::Sort(n) if n.fetch.is_none() => with_iteration(&n.input, name)?,
        LogicalPlan::Subquery(n) => with_iteration(&n.subquery, name)?,
        LogicalPlan::Union(_) => return Err(misplaced(name, "must not appear within a UNION")),
        LogicalPlan::Limit(_) | LogicalPlan::Sort(_) => {
            return Err(misplaced(name, "must not appear below LIMIT"));
        }
        LogicalPlan::Window(n) => {
            // Rows of different iterations are in different partitions.
            let calls = n.window_expr.iter().map(partitioned).collect();
            let window = Window::try_new(calls, below(&n.input)?).map_err(Error::from)?;
            LogicalPlan::Window(window)
        }
        LogicalPlan::RecursiveQuery(_) => {
            return Err(misplaced(name, "must not appear within another recursive query"));
        }
        other => {
            let kind = other.display().to_string();
            return Err(Error::unsupported(format!("{kind} in a recursive term")));
        }
    })
}

fn scan_with_iteration(scan: &TableScan) -> Result<TableScan> {
    let table = work_table(scan)
        .ok_or_else(|| Error::internal("only the recursive reference has an iteration"))?;
    let iteration = Arc::new(Field::new(ITERATION, DataType::Int64, false));
    let width = table.schema().fields().len();
    let fields: Vec<FieldRef> =
        table.schema().fields().iter().cloned().chain([iteration]).collect();
    let source = provider_as_source(Arc::new(CteWorkTable::new(
        table.name(),
        Arc::new(Schema::new(fields)),
    )));
    let projection = scan.projection.clone().map(|mut columns| {
        columns.push(width);
        columns
    });
    TableScanBuilder::new(scan.table_name.clone(), source)
        .with_projection(projection)
        .with_filters(scan.filters.clone())
        .with_fetch(scan.fetch)
        .build()
        .map_err(Error::from)
}

/// The reference stands on the side whose rows all come out, each by itself.
fn join_with_iteration(join: &Join, name: &str) -> Result<Join> {
    let on_left = references(&join.left, name) > 0;
    let keeps = match join.join_type {
        JoinType::Inner => true,
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => on_left,
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
            !on_left
        }
        JoinType::Full => false,
    };
    if !keeps {
        let what = match join.join_type {
            JoinType::Left | JoinType::Right | JoinType::Full => {
                "must not appear within an outer join"
            }
            _ => "must not appear within a subquery",
        };
        return Err(misplaced(name, what));
    }
    let (mut left, mut right) = (join.left.clone(), join.right.clone());
    let side = if on_left { &mut left } else { &mut right };
    *side = Arc::new(with_iteration(side, name)?);
    Join::try_new(
        left,
        right,
        join.on.clone(),
        join.filter.clone(),
        join.join_type,
        join.join_constraint,
        join.null_equality,
        join.null_aware,
    )
    .map_err(Error::from)
}

/// What a scan of the recursive reference is: the input of that port.
///
/// # Errors
/// When it is a reference from inside of another query's plan (ours).
pub fn lower_work_table(scan: &TableScan) -> Option<Result<Pipe>> {
    let table = work_table(scan)?;
    Some(lower_reference(scan, &table))
}

fn lower_reference(scan: &TableScan, table: &CteWorkTable) -> Result<Pipe> {
    let schema = table.schema();
    let input = Node::Input(node::Input {
        port: RECURSIVE_REFERENCE,
        name: table.name().to_owned(),
        schema: schema.clone(),
    });
    let all = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &schema);
    let mut pipe = Pipe::new(input, Arc::new(all.map_err(Error::from)?));
    for filter in &scan.filters {
        pipe = pipe.filter(filter)?;
    }
    let Some(columns) = &scan.projection else { return Ok(pipe) };
    let all = pipe.columns();
    let columns: Vec<Expr> = columns.iter().map(|column| all[*column].clone()).collect();
    pipe.project(&columns, &scan.projected_schema)
}

/// Replaces what does not depend on the recursive reference by inputs.
fn cut(mut node: Node, inputs: &mut Vec<Edge>) -> Node {
    for edge in node.inputs_mut() {
        let below = std::mem::replace(&mut *edge.input, Node::Input(placeholder()));
        // All of the step is on one worker already.
        edge.exchange = Exchange::Local;
        *edge.input = if depends(&below) {
            cut(below, inputs)
        } else {
            let input = node::Input {
                port: inputs.len(),
                name: "beside the recursive reference".to_owned(),
                schema: below.schema(),
            };
            inputs.push(Edge { input: Box::new(below), exchange: Exchange::Single });
            Node::Input(input)
        };
    }
    node
}

/// Whether a node reads the recursive reference.
fn depends(node: &Node) -> bool {
    let mut found = false;
    node.visit(&mut |node| found |= matches!(node, Node::Input(_)));
    found
}

fn placeholder() -> node::Input {
    node::Input { port: usize::MAX, name: String::new(), schema: Arc::new(Schema::empty()) }
}
