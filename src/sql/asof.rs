//! ASOF joins, and temporal joins as of an event time, in the logical plan.
//!
//! 1. `sql::extensions` and `sql::rewrite` leave an ordinary join whose condition begins with
//!    `asof_condition()`, or with `system_time_condition(time)` for `FOR SYSTEM_TIME AS OF time`.
//! 2. [`find_asof_joins`] makes each of them an [`AsofJoin`] node: equalities are keys, the one
//!    inequality says which times compare, a condition on the right side alone filters it.
//! 3. A versioned table is one whose rows are versions: a source or table with a watermark, whose
//!    time column says since when a version holds; or a view that keeps the newest row of each key
//!    (`ROW_NUMBER() ... ORDER BY time DESC` = 1, or DISTINCT ON), of which the rows below are the
//!    versions. The version as of a time is the newest that is not after it: an ASOF join.
//!    As of `PROCTIME()`, a row meets what is there when it comes; so it does as of a column of the
//!    left side that is `PROCTIME()`, where the right side has no versions.
//! 4. A dataflow has an operator for it (`plan::Node::AsofJoin`); for a batch [`plan_as_windows`]
//!    writes it as a window function: rows of both sides in one order, each left row takes the
//!    last right row before it.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{
    Column, DFSchema, DFSchemaRef, DataFusionError, JoinType, Result, ScalarValue, TableReference,
};
use datafusion::functions::expr_fn::{get_field, named_struct};
use datafusion::functions_window::expr_fn::last_value;
use datafusion::logical_expr::expr::{NullTreatment, Sort, WindowFunctionDefinition};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Distinct, Expr, ExprFunctionExt, Extension, Filter, Join, LogicalPlan,
    LogicalPlanBuilder, Operator, Projection, UserDefinedLogicalNodeCore, WindowFrame,
    WindowFrameBound, WindowFrameUnits, lit,
};

use crate::catalog::object::ObjectKind;
use crate::functions::scalar::call::Family;
use crate::functions::scalar::windows::{
    ASOF_CONDITION, PROCESSING_TIME_CONDITION, SYSTEM_TIME_CONDITION,
};
use crate::plan::node::AsofOrder;
use crate::sql::resolve::{CatalogSource, external};
use crate::types::error::{Error, SqlState};

/// Each left row with the nearest right row; the output is the left columns, then the right ones.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AsofJoin {
    pub left: Arc<LogicalPlan>,
    pub right: Arc<LogicalPlan>,
    /// Equalities between the sides.
    keys: Vec<Expr>,
    /// The inequality between the sides' times; `None`: a left row meets what is there when it comes.
    times: Option<Expr>,
    /// A left row without a match stays.
    pub keeps_left: bool,
    schema: DFSchemaRef,
}

/// What an [`AsofJoin`] compares, sorted by sides.
pub struct Sides {
    /// (left, right)
    pub keys: Vec<(Expr, Expr)>,
    /// (left, right), and how they compare.
    pub times: Option<(Expr, Expr, AsofOrder)>,
}

impl AsofJoin {
    fn new(
        left: Arc<LogicalPlan>,
        right: Arc<LogicalPlan>,
        keys: Vec<Expr>,
        times: Option<Expr>,
        keeps_left: bool,
    ) -> Result<AsofJoin> {
        let left_fields = left.schema().iter().map(|(q, f)| (q.cloned(), f.clone()));
        let right_fields = right.schema().iter().map(|(q, f)| {
            let nullable = f.is_nullable() || keeps_left;
            (q.cloned(), Arc::new(f.as_ref().clone().with_nullable(nullable)))
        });
        let fields = left_fields.chain(right_fields).collect();
        let schema = Arc::new(DFSchema::new_with_metadata(fields, HashMap::new())?);
        Ok(AsofJoin { left, right, keys, times, keeps_left, schema })
    }

    /// The output's columns.
    pub fn schema_ref(&self) -> &DFSchemaRef {
        &self.schema
    }

    /// # Errors
    /// When an expression is no comparison between the sides any more (ours: nothing changes that).
    pub fn sides(&self) -> Result<Sides> {
        let (left, right) = (self.left.schema(), self.right.schema());
        let lost = |expr: &Expr| {
            DataFusionError::Internal(format!("{expr} does not compare the sides of an ASOF join"))
        };
        let keys = self
            .keys
            .iter()
            .map(|key| match across(key, left, right) {
                Some((l, Operator::Eq, r)) => Ok((l, r)),
                _ => Err(lost(key)),
            })
            .collect::<Result<_>>()?;
        let compared = |times: &Expr| {
            let (l, op, r) = across(times, left, right)?;
            Some((l, r, order_of(op)?))
        };
        let times = match &self.times {
            Some(times) => Some(compared(times).ok_or_else(|| lost(times))?),
            None => None,
        };
        Ok(Sides { keys, times })
    }
}

fn order_of(op: Operator) -> Option<AsofOrder> {
    Some(match op {
        Operator::GtEq => AsofOrder::AtOrBefore,
        Operator::Gt => AsofOrder::Before,
        Operator::LtEq => AsofOrder::AtOrAfter,
        Operator::Lt => AsofOrder::After,
        _ => return None,
    })
}

/// A comparison of something of the left side with something of the right one, in this order.
fn across(expr: &Expr, left: &DFSchema, right: &DFSchema) -> Option<(Expr, Operator, Expr)> {
    let Expr::BinaryExpr(BinaryExpr { left: l, op, right: r }) = expr else { return None };
    if is_over(l, left) && is_over(r, right) {
        return Some((l.as_ref().clone(), *op, r.as_ref().clone()));
    }
    if is_over(l, right) && is_over(r, left) {
        return Some((r.as_ref().clone(), op.swap()?, l.as_ref().clone()));
    }
    None
}

/// Whether an expression names columns, and only such of this schema.
fn is_over(expr: &Expr, schema: &DFSchema) -> bool {
    let columns = expr.column_refs();
    !columns.is_empty() && columns.iter().all(|column| schema.has_column(column))
}

impl PartialOrd for AsofJoin {
    fn partial_cmp(&self, other: &AsofJoin) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for AsofJoin {
    fn name(&self) -> &str {
        "AsofJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.keys.iter().chain(&self.times).cloned().collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conditions: Vec<String> =
            self.times.iter().chain(&self.keys).map(ToString::to_string).collect();
        write!(f, "AsofJoin: {}", conditions.join(" AND "))
    }

    fn with_exprs_and_inputs(
        &self,
        mut exprs: Vec<Expr>,
        inputs: Vec<LogicalPlan>,
    ) -> Result<AsofJoin> {
        let wrong = || DataFusionError::Internal("an ASOF join has two sides".to_owned());
        let times = match &self.times {
            Some(_) => Some(exprs.pop().ok_or_else(wrong)?),
            None => None,
        };
        // Rules that write a condition otherwise keep its name; it has none here.
        let exprs = exprs.into_iter().map(|e| e.unalias_nested().data).collect();
        let times = times.map(|e| e.unalias_nested().data);
        let [left, right] = <[LogicalPlan; 2]>::try_from(inputs).map_err(|_| wrong())?;
        AsofJoin::new(Arc::new(left), Arc::new(right), exprs, times, self.keeps_left)
    }

    /// All of the right columns: they decide between rows of one time.
    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.left.schema().fields().len();
        let left = output_columns.iter().copied().filter(|column| *column < width).collect();
        Some(vec![left, (0..self.right.schema().fields().len()).collect()])
    }
}

/// Step 2, everywhere in a plan whose names are resolved.
///
/// # Errors
/// SQLSTATE 42601 or 0A000 for conditions that an ASOF join does not have, 0A000 for a table
/// without versions.
pub fn find_asof_joins(plan: LogicalPlan) -> Result<LogicalPlan> {
    let found = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) => match asof_join(&join)? {
            Some(asof) => {
                let node = Arc::new(asof);
                Ok(Transformed::yes(LogicalPlan::Extension(Extension { node })))
            }
            None => Ok(Transformed::no(LogicalPlan::Join(join))),
        },
        other => Ok(Transformed::no(other)),
    })?;
    Ok(found.data)
}

/// What marks the condition of a join.
enum Mark {
    Asof,
    /// With the time.
    SystemTime(Expr),
    ProcessingTime,
}

fn mark_of(condition: &Expr) -> Option<Mark> {
    let Expr::ScalarFunction(call) = condition else { return None };
    let family = call.func.inner().downcast_ref::<Family>()?;
    match (family.name, call.args.as_slice()) {
        (ASOF_CONDITION, []) => Some(Mark::Asof),
        (PROCESSING_TIME_CONDITION, []) => Some(Mark::ProcessingTime),
        (SYSTEM_TIME_CONDITION, [time]) => Some(Mark::SystemTime(time.clone())),
        _ => None,
    }
}

fn asof_join(join: &Join) -> Result<Option<AsofJoin>> {
    let Some(filter) = &join.filter else { return Ok(None) };
    let mut mark = None;
    let mut conditions: Vec<Expr> = join.on.iter().map(|(l, r)| l.clone().eq(r.clone())).collect();
    for condition in split_conjunction_owned(filter.clone()) {
        match mark_of(&condition) {
            Some(found) => mark = Some(found),
            None => conditions.push(condition),
        }
    }
    let Some(mark) = mark else { return Ok(None) };
    let keeps_left = match join.join_type {
        JoinType::Inner => false,
        JoinType::Left => true,
        _ => return Err(external(unsupported("this kind of join").hint("Use ASOF LEFT JOIN."))),
    };
    let asof = match mark {
        Mark::Asof => by_conditions(join, conditions, keeps_left)?,
        Mark::SystemTime(time) => by_versions(join, &time, conditions, keeps_left)?,
        Mark::ProcessingTime => by_arrival(join, conditions, keeps_left)?,
    };
    // An error of ours shows now, not when it runs.
    asof.sides()?;
    Ok(Some(asof))
}

fn unsupported(what: &str) -> Error {
    Error::unsupported(format!("ASOF JOIN with {what}"))
}

/// Conditions of a join sorted by what they are about.
struct Conditions {
    keys: Vec<Expr>,
    inequalities: Vec<Expr>,
    left: Vec<Expr>,
    right: Vec<Expr>,
}

fn sorted(join: &Join, conditions: Vec<Expr>) -> Result<Conditions> {
    let (left, right) = (join.left.schema(), join.right.schema());
    let mut sorted = Conditions { keys: vec![], inequalities: vec![], left: vec![], right: vec![] };
    for condition in conditions {
        match across(&condition, left, right) {
            Some((_, Operator::Eq, _)) => sorted.keys.push(condition),
            Some((_, op, _)) if order_of(op).is_some() => sorted.inequalities.push(condition),
            None if is_over(&condition, left) => sorted.left.push(condition),
            None if is_over(&condition, right) => sorted.right.push(condition),
            _ => {
                return Err(external(unsupported(&format!("the condition {condition}")).hint(
                    "Its condition is equalities and one inequality between the two sides, \
                     joined by AND. Put others into WHERE, or into a subquery on one side.",
                )));
            }
        }
    }
    Ok(sorted)
}

/// The inputs, filtered by the conditions on one side.
fn filtered(
    join: &Join,
    conditions: &mut Conditions,
    keeps_left: bool,
) -> Result<(Arc<LogicalPlan>, Arc<LogicalPlan>)> {
    let filter = |input: &Arc<LogicalPlan>, conditions: Vec<Expr>| -> Result<Arc<LogicalPlan>> {
        match conjunction(conditions) {
            Some(all) => Ok(Arc::new(LogicalPlan::Filter(Filter::try_new(all, input.clone())?))),
            None => Ok(input.clone()),
        }
    };
    let left = std::mem::take(&mut conditions.left);
    if keeps_left && !left.is_empty() {
        return Err(external(
            unsupported("a condition on the left side alone")
                .hint("A left join keeps all left rows. Put the condition into WHERE."),
        ));
    }
    let right = std::mem::take(&mut conditions.right);
    Ok((filter(&join.left, left)?, filter(&join.right, right)?))
}

fn by_conditions(join: &Join, conditions: Vec<Expr>, keeps_left: bool) -> Result<AsofJoin> {
    let mut conditions = sorted(join, conditions)?;
    let times = match <[Expr; 1]>::try_from(std::mem::take(&mut conditions.inequalities)) {
        Ok([times]) => times,
        Err(several) => {
            let count = several.len();
            let message = format!("ASOF JOIN needs one inequality, and has {count}");
            return Err(external(
                Error::user(SqlState::SYNTAX_ERROR, message)
                    .hint("Write ON a.key = b.key AND a.time >= b.time."),
            ));
        }
    };
    let (left, right) = filtered(join, &mut conditions, keeps_left)?;
    AsofJoin::new(left, right, conditions.keys, Some(times), keeps_left)
}

/// Step 3.
fn by_versions(
    join: &Join,
    time: &Expr,
    conditions: Vec<Expr>,
    keeps_left: bool,
) -> Result<AsofJoin> {
    if !is_over(time, join.left.schema()) {
        return Err(external(
            Error::unsupported("FOR SYSTEM_TIME AS OF what is no time of the other side")
                .hint("Name a time column of the table on the left of JOIN."),
        ));
    }
    let Some(versions) = versions_of(&join.right)? else {
        if is_arrival(time, &join.left) {
            return by_arrival(join, conditions, keeps_left);
        }
        return Err(without_versions());
    };
    let mut conditions = sorted(join, conditions)?;
    if !conditions.inequalities.is_empty() {
        return Err(external(
            Error::unsupported("a temporal join on an inequality")
                .hint("Join on the versioned table's key, and put other conditions into WHERE."),
        ));
    }
    let right_schema = join.right.schema();
    if let Some(keys) = &versions.keys {
        let joined: Vec<usize> = conditions
            .keys
            .iter()
            .filter_map(|key| across(key, join.left.schema(), right_schema))
            .filter_map(|(_, _, r)| match r {
                Expr::Column(column) => right_schema.maybe_index_of_column(&column),
                _ => None,
            })
            .collect();
        let same = joined.len() == conditions.keys.len()
            && keys.iter().all(|key| joined.contains(key))
            && joined.iter().all(|key| keys.contains(key));
        if !same {
            return Err(external(
                Error::unsupported("a temporal join on other columns than the view's key")
                    .hint("Join on the columns of its PARTITION BY or DISTINCT ON, all of them."),
            ));
        }
    }
    let on_version = std::mem::take(&mut conditions.right);
    let (left, _) = filtered(join, &mut conditions, keeps_left)?;
    let mut right = Arc::new(versions.plan);
    if let Some(condition) = conjunction(on_version) {
        // A condition on a version comes after the version is chosen; only its key may be looked
        // at before.
        let keys = versions.keys.unwrap_or_default();
        let on_key = condition.column_refs().iter().all(|column| {
            right_schema.maybe_index_of_column(column).is_some_and(|index| keys.contains(&index))
        });
        if !on_key {
            return Err(external(
                Error::unsupported("a temporal join with a condition on the version")
                    .hint("Put the condition into WHERE."),
            ));
        }
        right = Arc::new(LogicalPlan::Filter(Filter::try_new(condition, right)?));
    }
    let version_time = Expr::Column(Column::from(right_schema.qualified_field(versions.time)));
    let times = time.clone().gt_eq(version_time);
    AsofJoin::new(left, right, conditions.keys, Some(times), keeps_left)
}

fn without_versions() -> DataFusionError {
    external(Error::unsupported("FOR SYSTEM_TIME AS OF a table without versions").hint(
        "A versioned table is a source or table with a WATERMARK, or a view, not materialized, that \
         keeps the newest row of each key by ROW_NUMBER() OVER (PARTITION BY key ORDER BY time \
         DESC) = 1. AS OF PROCTIME() any table will do.",
    ))
}

/// Whether a time is a column that says when a row has come: one of a source or table that is
/// computed as `PROCTIME()`, or the function itself in a subquery.
fn is_arrival(time: &Expr, plan: &LogicalPlan) -> bool {
    match column_of(time, plan.schema()) {
        Some(column) => arrives(plan, column),
        None => false,
    }
}

/// [`is_arrival`] of a plan's column, through columns that are only picked and renamed.
fn arrives(plan: &LogicalPlan, column: usize) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(n) => arrives(&n.input, column),
        LogicalPlan::Filter(n) => arrives(&n.input, column),
        LogicalPlan::Projection(n) => match n.expr[column].clone().unalias_nested().data {
            Expr::ScalarFunction(call) => call.func.name() == "now",
            expr => is_arrival(&expr, &n.input),
        },
        LogicalPlan::Join(n) => arrives_beside(&n.left, &n.right, column),
        LogicalPlan::Extension(n) => match n.node.as_any().downcast_ref::<AsofJoin>() {
            Some(asof) => arrives_beside(&asof.left, &asof.right, column),
            None => false,
        },
        LogicalPlan::TableScan(scan) => {
            let Some(source) = scan.source.downcast_ref::<CatalogSource>() else { return false };
            let name = plan.schema().field(column).name();
            let Ok(place) = source.object.schema.index_of(name) else { return false };
            let sql = match &source.object.kind {
                ObjectKind::Source(source) => source.column_sql.get(place),
                ObjectKind::Table(table) => table.generated.get(place),
                _ => None,
            };
            let is_proctime = |sql: &String| sql.trim().eq_ignore_ascii_case("proctime()");
            sql.is_some_and(|sql| sql.as_ref().is_some_and(is_proctime))
        }
        _ => false,
    }
}

fn arrives_beside(left: &LogicalPlan, right: &LogicalPlan, column: usize) -> bool {
    match column.checked_sub(left.schema().fields().len()) {
        None => arrives(left, column),
        Some(column) => right.schema().fields().len() > column && arrives(right, column),
    }
}

/// A join with what is there when a row comes.
fn by_arrival(join: &Join, conditions: Vec<Expr>, keeps_left: bool) -> Result<AsofJoin> {
    let mut conditions = sorted(join, conditions)?;
    if !conditions.inequalities.is_empty() || conditions.keys.is_empty() {
        return Err(external(
            Error::unsupported("a temporal join on an inequality, or without a key")
                .hint("Join on a key, and put other conditions into WHERE."),
        ));
    }
    let (left, right) = filtered(join, &mut conditions, keeps_left)?;
    AsofJoin::new(left, right, conditions.keys, None, keeps_left)
}

/// The versions behind a table.
struct Versions {
    /// All versions, with the table's columns.
    plan: LogicalPlan,
    /// The column since when a version holds.
    time: usize,
    /// The columns of which each value has one version at a time; `None`: whatever is joined on.
    keys: Option<Vec<usize>>,
}

fn versions_of(plan: &LogicalPlan) -> Result<Option<Versions>> {
    match plan {
        LogicalPlan::SubqueryAlias(n) => {
            let Some(below) = versions_of(&n.input)? else { return Ok(None) };
            let plan = LogicalPlanBuilder::from(below.plan).alias(n.alias.clone())?.build()?;
            Ok(Some(Versions { plan, ..below }))
        }
        LogicalPlan::Projection(n) => {
            let Some(below) = versions_of(&n.input)? else { return Ok(None) };
            let place = |wanted: usize| {
                n.expr.iter().position(|expr| column_of(expr, n.input.schema()) == Some(wanted))
            };
            let Some(time) = place(below.time) else { return Ok(None) };
            let keys = match below.keys {
                None => None,
                Some(keys) => match keys.into_iter().map(place).collect() {
                    None => return Ok(None),
                    keys => keys,
                },
            };
            let projection = Projection::try_new(n.expr.clone(), Arc::new(below.plan))?;
            Ok(Some(Versions { plan: LogicalPlan::Projection(projection), time, keys }))
        }
        LogicalPlan::TableScan(scan) => {
            let Some(source) = scan.source.downcast_ref::<CatalogSource>() else { return Ok(None) };
            if source.version.is_some() {
                return Ok(None);
            }
            let watermark = match &source.object.kind {
                ObjectKind::Source(source) => &source.watermark,
                ObjectKind::Table(table) => &table.watermark,
                _ => return Ok(None),
            };
            let Some(watermark) = watermark else { return Ok(None) };
            let time = plan.schema().fields().iter().position(|f| *f.name() == watermark.column);
            Ok(time.map(|time| Versions { plan: plan.clone(), time, keys: None }))
        }
        LogicalPlan::Filter(n) => newest_rows(n),
        LogicalPlan::Distinct(Distinct::On(on)) => {
            let width = on.on_expr.len();
            let sort = on.sort_expr.clone().unwrap_or_default();
            let Some(newest) = sort.get(width..).and_then(newest_first) else { return Ok(None) };
            let place = |wanted: &Expr| {
                let index = column_of(wanted, on.input.schema())?;
                on.select_expr.iter().position(|e| column_of(e, on.input.schema()) == Some(index))
            };
            let Some(time) = place(&newest) else { return Ok(None) };
            let Some(keys) = on.on_expr.iter().map(place).collect() else { return Ok(None) };
            let plan = Projection::try_new_with_schema(
                on.select_expr.clone(),
                on.input.clone(),
                on.schema.clone(),
            )?;
            Ok(Some(Versions { plan: LogicalPlan::Projection(plan), time, keys: Some(keys) }))
        }
        _ => Ok(None),
    }
}

/// The column that a single descending order is by.
fn newest_first(sort: &[Sort]) -> Option<Expr> {
    match sort {
        [only] if !only.asc => Some(only.expr.clone()),
        _ => None,
    }
}

/// `number = 1` over `row_number() OVER (PARTITION BY keys ORDER BY time DESC) AS number`: the rows
/// below, each as if it were numbered 1.
fn newest_rows(filter: &Filter) -> Result<Option<Versions>> {
    // Down to the window, through columns that are only picked and renamed.
    let mut number = match &filter.predicate {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq | Operator::LtEq, right })
            if is_one(right) =>
        {
            column_of(left, filter.input.schema())
        }
        _ => None,
    };
    let mut wrappers: Vec<&LogicalPlan> = vec![];
    let mut below: &LogicalPlan = &filter.input;
    let window = loop {
        match below {
            LogicalPlan::Window(window) => break window,
            LogicalPlan::Projection(n) => {
                number = number.and_then(|column| column_of(&n.expr[column], n.input.schema()));
                wrappers.push(below);
                below = &n.input;
            }
            LogicalPlan::SubqueryAlias(n) => {
                wrappers.push(below);
                below = &n.input;
            }
            _ => return Ok(None),
        }
    };
    let width = window.input.schema().fields().len();
    let [call] = window.window_expr.as_slice() else { return Ok(None) };
    let Expr::WindowFunction(call) = call.clone().unalias_nested().data else { return Ok(None) };
    let numbers = matches!(&call.fun, WindowFunctionDefinition::WindowUDF(function)
        if function.name() == "row_number");
    let Some(newest) = newest_first(&call.params.order_by) else { return Ok(None) };
    if !numbers || number != Some(width) {
        return Ok(None);
    }
    let input_schema = window.input.schema();
    let Some(mut time) = column_of(&newest, input_schema) else { return Ok(None) };
    let keys = call.params.partition_by.iter().map(|key| column_of(key, input_schema));
    let Some(mut keys) = keys.collect::<Option<Vec<usize>>>() else { return Ok(None) };
    let mut columns: Vec<Expr> = input_schema.columns().into_iter().map(Expr::Column).collect();
    let (table, number) = window.schema.qualified_field(width);
    columns.push(lit(1_u64).alias_qualified(table.cloned(), number.name()));
    let numbered = Projection::try_new(columns, window.input.clone())?;
    let mut plan = LogicalPlan::Projection(numbered);
    for wrapper in wrappers.into_iter().rev() {
        plan = match wrapper {
            LogicalPlan::Projection(n) => {
                let place = |wanted: usize| {
                    let is = |e: &Expr| column_of(e, n.input.schema()) == Some(wanted);
                    n.expr.iter().position(is)
                };
                let (Some(moved_time), Some(moved_keys)) =
                    (place(time), keys.iter().map(|key| place(*key)).collect())
                else {
                    return Ok(None);
                };
                (time, keys) = (moved_time, moved_keys);
                LogicalPlan::Projection(Projection::try_new(n.expr.clone(), Arc::new(plan))?)
            }
            LogicalPlan::SubqueryAlias(n) => {
                LogicalPlanBuilder::from(plan).alias(n.alias.clone())?.build()?
            }
            _ => return Ok(None),
        };
    }
    Ok(Some(Versions { plan, time, keys: Some(keys) }))
}

fn is_one(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(ScalarValue::Int32(Some(1)) | ScalarValue::Int64(Some(1)), _)
        | Expr::Literal(ScalarValue::UInt64(Some(1)), _) => true,
        Expr::Cast(cast) => is_one(&cast.expr),
        _ => false,
    }
}

fn column_of(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    match expr {
        Expr::Column(column) => schema.maybe_index_of_column(column),
        Expr::Alias(alias) => column_of(&alias.expr, schema),
        _ => None,
    }
}

/// Step 4, everywhere in a plan.
///
/// # Errors
/// Ours: the plan is made of what was checked before.
pub fn plan_as_windows(plan: LogicalPlan) -> Result<LogicalPlan> {
    let planned = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Extension(extension) = &node else { return Ok(Transformed::no(node)) };
        match extension.node.as_any().downcast_ref::<AsofJoin>() {
            Some(asof) => Ok(Transformed::yes(as_window(asof)?)),
            None => Ok(Transformed::no(node)),
        }
    })?;
    Ok(planned.data)
}

const TIME: &str = "asof time";
const IS_LEFT: &str = "asof is left";
const RIGHT: &str = "asof right";
const FOUND: &str = "asof match";

/// The rows of both sides in one order, left rows with the last right row before them.
fn as_window(asof: &AsofJoin) -> Result<LogicalPlan> {
    let Sides { keys, times } = asof.sides()?;
    let Some((left_time, right_time, order)) = times else { return as_join(asof, keys) };
    let times = (left_time, right_time);
    let (left_schema, right_schema) = (asof.left.schema(), asof.right.schema());
    let key = |index: usize| format!("asof key {index}");
    let left_name = |index: usize| format!("asof left {index}");
    let right_name = |index: usize| format!("asof right {index}");
    let field = |index: usize| format!("c{index}");

    let left_columns = left_schema.columns();
    let right_columns = right_schema.columns();
    let mut fields = vec![];
    for (index, column) in right_columns.iter().enumerate() {
        fields.push(lit(field(index)));
        fields.push(Expr::Column(column.clone()));
    }
    // A struct has a field; a right side without columns cannot be matched by time.
    let whole = named_struct(fields);
    let null_of = |expr: &Expr, schema: &DFSchema| -> Result<Expr> {
        use datafusion::logical_expr::ExprSchemable;
        Ok(Expr::Literal(ScalarValue::try_from(&expr.get_type(schema)?)?, None))
    };

    let (mut left, mut right) = (vec![], vec![]);
    for (index, (l, r)) in keys.iter().enumerate() {
        left.push(l.clone().alias(key(index)));
        right.push(r.clone().alias(key(index)));
    }
    left.push(times.0.clone().alias(TIME));
    right.push(times.1.clone().alias(TIME));
    for (index, column) in left_columns.iter().enumerate() {
        let column = Expr::Column(column.clone());
        right.push(null_of(&column, left_schema)?.alias(left_name(index)));
        left.push(column.alias(left_name(index)));
    }
    for (index, column) in right_columns.iter().enumerate() {
        let column = Expr::Column(column.clone());
        left.push(null_of(&column, right_schema)?.alias(right_name(index)));
        right.push(column.alias(right_name(index)));
    }
    left.push(null_of(&whole, right_schema)?.alias(RIGHT));
    right.push(whole.alias(RIGHT));

    // Rows without a key or a time match nothing.
    let comparable = keys.iter().map(|(_, r)| r).chain([&times.1]);
    let comparable = conjunction(comparable.map(|e| e.clone().is_not_null()).collect::<Vec<_>>());
    let right = LogicalPlanBuilder::from(asof.right.as_ref().clone())
        .filter(comparable.unwrap_or_else(|| lit(true)))?
        .project(right)?
        .build()?;
    let column = |name: &str| Expr::Column(Column::from_name(name));
    let ascending = order.looks_back();
    let sort = |name: &str| column(name).sort(ascending, ascending);
    // A left row without a time comes before all right rows.
    let mut order_by = vec![column(TIME).sort(ascending, true)];
    // Of one time, right rows come first where they match: false before true.
    order_by.push(column(IS_LEFT).sort(order.takes_equal(), true));
    order_by.extend((0..right_columns.len()).map(|index| sort(&right_name(index))));
    let frame = WindowFrame::new_bounds(
        WindowFrameUnits::Rows,
        WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
        WindowFrameBound::CurrentRow,
    );
    let found = last_value(column(RIGHT))
        .null_treatment(NullTreatment::IgnoreNulls)
        .partition_by((0..keys.len()).map(|index| column(&key(index))).collect())
        .order_by(order_by)
        .window_frame(frame)
        .build()?
        .alias(FOUND);
    let mut output = vec![];
    for (index, (table, named)) in left_schema.iter().enumerate() {
        output.push(qualified(column(&left_name(index)), table, named.name()));
    }
    for (index, (table, named)) in right_schema.iter().enumerate() {
        let value = get_field(column(FOUND), field(index));
        output.push(qualified(value, table, named.name()));
    }
    let mut shown = column(IS_LEFT);
    if !asof.keeps_left {
        shown = shown.and(column(FOUND).is_not_null());
    }
    // A column that is computed above the union: of one that is constant on each side of it, sorts
    // get confused.
    let both = LogicalPlanBuilder::from(asof.left.as_ref().clone()).project(left)?.union(right)?;
    let mut columns: Vec<Expr> = both.schema().columns().into_iter().map(Expr::Column).collect();
    columns.push(column(RIGHT).is_null().alias(IS_LEFT));
    both.project(columns)?.window([found])?.filter(shown)?.project(output)?.build()
}

/// As of the moment of the query, what is there is what there is.
fn as_join(asof: &AsofJoin, keys: Vec<(Expr, Expr)>) -> Result<LogicalPlan> {
    let on = keys.into_iter().map(|(l, r)| l.eq(r));
    let kind = if asof.keeps_left { JoinType::Left } else { JoinType::Inner };
    LogicalPlanBuilder::from(asof.left.as_ref().clone())
        .join_on(asof.right.as_ref().clone(), kind, on)?
        .build()
}

fn qualified(expr: Expr, table: Option<&TableReference>, name: &str) -> Expr {
    expr.alias_qualified(table.cloned(), name.to_owned())
}
