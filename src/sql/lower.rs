//! An optimised logical plan to the nodes of a dataflow, one arm per logical node.
//!
//! Filters and projections gather in a [`Pipe`] and become one `Map` above the operator that they
//! follow. What an operator needs as a column (a join's key, an aggregate's argument) is computed
//! by the `Map` below it. ORDER BY without LIMIT says nothing about a set and is dropped. What no
//! operator maintains yet is refused with SQLSTATE 0A000.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Distinct, EmptyRelation, Expr, LogicalPlan, SubqueryAlias, TableScan, Union, Unnest, Values,
};

use crate::catalog::object::{Object, ObjectKind, WatermarkObject};
use crate::functions::scalar::copies::Copies;
use crate::functions::scalar::session::NOW;
use crate::plan::event_time::{TimeBound, find};
use crate::plan::node::{self, Edge, Node, Plan};
use crate::plan::view_options::ViewOptions;
use crate::sql::asof::AsofJoin;
use crate::sql::expressions::compile;
use crate::sql::lower::pipe::Pipe;
use crate::sql::lower::unique_key::unique_key;
use crate::sql::match_recognize::compile::{compile_match, match_node};
use crate::sql::match_recognize::node::MatchNode;
use crate::sql::resolve::CatalogSource;
use crate::types::error::{Error, Result, SqlState};

mod aggregate;
mod join;
mod panes;
mod pipe;
mod recursive;
mod sessions;
mod temporal;
mod unique_key;
mod unnest;
mod window;

/// The dataflow of an optimised plan, whose result has the columns of `schema`.
pub fn lower(plan: &LogicalPlan, schema: &SchemaRef) -> Result<Plan> {
    reject_unstable(plan)?;
    let root = lower_node(plan)?.into_node_with(schema.clone())?;
    Ok(Plan { root, unique_key: unique_key(plan), options: ViewOptions::default() })
}

/// Refuses what has another value at every look.
fn reject_unstable(plan: &LogicalPlan) -> Result<()> {
    let mut found = Ok(());
    plan.apply_with_subqueries(|node| {
        // Conditions may compare with now(): `temporal`.
        let filters = matches!(node, LogicalPlan::Filter(_) | LogicalPlan::TableScan(_));
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                match e {
                    Expr::Placeholder(Placeholder { id, .. }) if id == NOW && filters => {}
                    Expr::Placeholder(Placeholder { id, .. }) if id == NOW => {
                        found = Err(Error::unsupported("now() in a maintained query").hint(
                            "Compare a row's time with now() in WHERE, or use now() in the SELECT \
                             that reads the view.",
                        ));
                    }
                    Expr::Placeholder(Placeholder { id, .. }) => {
                        found = Err(Error::user(
                            SqlState::UNDEFINED_PARAMETER,
                            format!("there is no parameter {id}"),
                        ));
                    }
                    e if e.is_volatile_node() => {
                        let name = match e {
                            Expr::ScalarFunction(call) => call.func.name().to_owned(),
                            other => other.to_string(),
                        };
                        found = Err(Error::unsupported(format!(
                            "the volatile function {name}() in a maintained query"
                        ))
                        .hint(
                            "Call it in the SELECT that reads the view, or where rows are \
                             inserted, and keep its value in a column.",
                        ));
                    }
                    _ => return Ok(TreeNodeRecursion::Continue),
                }
                Ok(TreeNodeRecursion::Stop)
            })
        })
    })
    .map_err(Error::from)?;
    found
}

/// One logical node with everything below it.
fn lower_node(plan: &LogicalPlan) -> Result<Pipe> {
    match plan {
        LogicalPlan::TableScan(scan) => lower_scan(scan),
        LogicalPlan::Projection(n) => lower_node(&n.input)?.project(&n.expr, &n.schema),
        LogicalPlan::Filter(n) => window::lower_filter(n),
        LogicalPlan::Window(n) => window::lower_window(n),
        LogicalPlan::Limit(n) => window::lower_limit(n),
        LogicalPlan::SubqueryAlias(SubqueryAlias { input, schema, .. }) => {
            Ok(lower_node(input)?.rename(schema.clone()))
        }
        LogicalPlan::Aggregate(n) => aggregate::lower_aggregate(n),
        LogicalPlan::Distinct(Distinct::All(input)) => aggregate::lower_distinct(input),
        LogicalPlan::Join(n) => join::lower_join(n),
        LogicalPlan::Extension(n) => {
            if let Some(asof) = n.node.as_any().downcast_ref::<AsofJoin>() {
                join::lower_asof_join(asof)
            } else if let Some(node) = match_node(plan) {
                lower_match(node)
            } else {
                Err(not_maintained(plan))
            }
        }
        LogicalPlan::RecursiveQuery(n) => recursive::lower_recursive(n),
        LogicalPlan::Union(n) => lower_union(n),
        LogicalPlan::Values(n) => lower_values(n),
        LogicalPlan::EmptyRelation(n) => Ok(lower_empty(n)),
        LogicalPlan::Sort(n) if n.fetch.is_none() => lower_node(&n.input),
        LogicalPlan::Repartition(n) => lower_node(&n.input),
        LogicalPlan::Subquery(n) => lower_node(&n.subquery),
        LogicalPlan::Unnest(n) => match lower_copies(n)? {
            Some(pipe) => Ok(pipe),
            None => unnest::lower_unnest(n),
        },
        other => Err(not_maintained(other)),
    }
}

/// UNNEST of the copies that EXCEPT ALL and INTERSECT ALL give (`sql::bags`): weights are
/// multiplied. `None` for other arrays.
fn lower_copies(unnest: &Unnest) -> Result<Option<Pipe>> {
    let LogicalPlan::Projection(below) = &*unnest.input else { return Ok(None) };
    let [(list, _)] = unnest.list_type_columns.as_slice() else { return Ok(None) };
    let mut exprs: Vec<Expr> = below.expr.iter().map(|e| e.clone().unalias_nested().data).collect();
    match &exprs[*list] {
        Expr::ScalarFunction(call) if call.func.inner().is::<Copies>() => {
            let [count] = call.args.as_slice() else {
                return Err(Error::internal("copies have one count"));
            };
            exprs[*list] = count.clone();
        }
        _ => return Ok(None),
    }
    let exprs: Vec<Expr> =
        unnest.dependency_indices.iter().map(|index| exprs[*index].clone()).collect();
    let count = unnest
        .dependency_indices
        .iter()
        .position(|index| index == list)
        .ok_or_else(|| Error::internal("copies were counted for nobody"))?;
    let input = lower_node(&below.input)?.project(&exprs, &unnest.schema)?.into_node()?;
    let node = Node::Copies(node::Copies { input: Edge::local(input), count });
    Ok(Some(Pipe::new(node, unnest.schema.clone())))
}

/// MATCH_RECOGNIZE: the rows of a partition meet.
fn lower_match(node: &MatchNode) -> Result<Pipe> {
    let input = lower_node(&node.input)?.into_node()?;
    let spec = Box::new(compile_match(node)?);
    let input = Edge::hash(input, spec.partition.clone());
    let lowered =
        Node::MatchRecognize(node::MatchRecognize { input, spec, closes: None, settles: None });
    Ok(Pipe::new(lowered, node.schema.clone()))
}

fn not_maintained(plan: &LogicalPlan) -> Error {
    let name = plan.display().to_string();
    Error::unsupported(format!("{name} in a maintained query"))
}

fn lower_scan(scan: &TableScan) -> Result<Pipe> {
    if let Some(reference) = recursive::lower_work_table(scan) {
        return reference;
    }
    let Some(source) = scan.source.downcast_ref::<CatalogSource>() else {
        return Err(Error::unsupported(format!(
            "reading \"{}\" in a maintained query",
            scan.table_name.table()
        ))
        .hint("Only sources, tables and materialized views have changes to follow."));
    };
    if source.version.is_some() {
        return Err(Error::unsupported("FOR SYSTEM_TIME AS OF a time in a maintained query")
            .hint("What was then does not change: keep it with CREATE TABLE ... AS SELECT."));
    }
    let object = &source.object;
    let columns: Vec<usize> = match &scan.projection {
        Some(columns) => columns.clone(),
        None => (0..object.schema.fields().len()).collect(),
    };
    let node = Node::Scan(scan_of(object, columns)?);
    let mut pipe = Pipe::new(node, scan.projected_schema.clone());
    for filter in &scan.filters {
        pipe = temporal::filter(pipe, filter)?;
    }
    if scan.fetch.is_some() {
        return Err(Error::internal("a limit was pushed into a scan of a dataflow"));
    }
    Ok(pipe)
}

/// Reads these columns of a source, table or materialized view.
///
/// # Errors
/// When it has no such columns (ours).
pub fn scan_of(object: &Object, columns: Vec<usize>) -> Result<node::Scan> {
    Ok(node::Scan {
        object: object.id,
        name: object.name.name.clone(),
        schema: Arc::new(object.schema.project(&columns)?),
        append_only: is_append_only(object),
        time_bounds: time_bounds(object, &columns),
        columns,
        shared: false,
        index: None,
    })
}

/// Whether rows of the object never go.
fn is_append_only(object: &Object) -> bool {
    match &object.kind {
        ObjectKind::Source(_) => true,
        ObjectKind::Table(table) => table.append_only,
        ObjectKind::MaterializedView(view) => view.append_only,
        ObjectKind::View(_) | ObjectKind::Sink(_) => false,
    }
}

/// What the object's watermark promises of these of its columns.
fn time_bounds(object: &Object, columns: &[usize]) -> Vec<TimeBound> {
    let of_watermark = |watermark: &Option<WatermarkObject>| {
        let column = watermark.as_ref().and_then(|w| Some(object.column(&w.column)?.0));
        column.map(TimeBound::of_watermark).into_iter().collect()
    };
    let own: Vec<TimeBound> = match &object.kind {
        ObjectKind::Source(source) => of_watermark(&source.watermark),
        // Elsewhere rows may change behind the watermark.
        ObjectKind::Table(table) if table.append_only => of_watermark(&table.watermark),
        ObjectKind::Table(_) => vec![],
        ObjectKind::MaterializedView(view) => view.time_bounds.clone(),
        ObjectKind::View(_) | ObjectKind::Sink(_) => vec![],
    };
    let scanned = columns.iter().enumerate();
    scanned.filter_map(|(place, column)| Some(find(&own, *column)?.moved(place))).collect()
}

/// Inputs are brought to the union's own column names and types.
fn lower_union(union: &Union) -> Result<Pipe> {
    let schema = union.schema.inner().clone();
    let inputs = union
        .inputs
        .iter()
        .map(|input| Ok(Edge::local(lower_node(input)?.into_node_with(schema.clone())?)))
        .collect::<Result<Vec<_>>>()?;
    let node = Node::Union(node::Union { inputs, schema });
    Ok(Pipe::new(node, union.schema.clone()))
}

fn lower_values(values: &Values) -> Result<Pipe> {
    let no_columns = DFSchema::empty();
    let one_row = one_row_without_columns();
    let schema = values.schema.inner().clone();
    let mut rows = Vec::with_capacity(values.values.len());
    for row in &values.values {
        let columns = row
            .iter()
            .zip(schema.fields())
            .map(|(expr, field)| {
                let value = compile(expr, &no_columns)?.evaluate(&one_row)?;
                Ok(arrow::compute::cast(&value, field.data_type())?)
            })
            .collect::<Result<Vec<_>>>()?;
        rows.push(RecordBatch::try_new(schema.clone(), columns)?);
    }
    let rows = arrow::compute::concat_batches(&schema, &rows)?;
    Ok(Pipe::new(Node::Constant(node::Constant { rows }), values.schema.clone()))
}

fn lower_empty(empty: &EmptyRelation) -> Pipe {
    let rows = if empty.produce_one_row {
        one_row_without_columns()
    } else {
        RecordBatch::new_empty(empty.schema.inner().clone())
    };
    Pipe::new(Node::Constant(node::Constant { rows }), empty.schema.clone())
}

/// What SELECT without FROM reads.
fn one_row_without_columns() -> RecordBatch {
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)
        .expect("no columns fit every row count")
}

/// Whether the plan is `SELECT expressions` without FROM.
fn is_one_row(node: &Node) -> bool {
    matches!(node, Node::Constant(c) if c.rows.num_columns() == 0 && c.rows.num_rows() == 1)
}

/// Conditions joined by AND, one by one.
fn conjuncts(predicate: &Expr) -> Vec<Expr> {
    split_conjunction(predicate).into_iter().cloned().collect()
}
