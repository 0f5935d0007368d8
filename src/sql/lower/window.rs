//! Window functions, and the first rows of something in all their spellings.
//!
//! 1. Keys, sort columns and arguments are columns of the `Map` below, after the input's own. Calls
//!    over one partition and order are one `Over`; several windows are several, one on another.
//! 2. `row_number() OVER (...) <= k` above a window function alone is a `TopN`, also for `rank()`
//!    and `dense_rank()`; what else the filter says stays a filter.
//! 3. `session_start()` and `session_end()` are a `Session`.
//! 4. ORDER BY with LIMIT or OFFSET is a `TopN` over all rows. Projections between the two change
//!    nothing of which rows are the first.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Int64Type, IntervalMonthDayNano, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ScalarValue, internal_datafusion_err};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::expr::{Between, NullTreatment, WindowFunction};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    Expr, FetchType, Filter, Limit, LogicalPlan, Operator, SkipType, SortExpr, Window, WindowFrame,
    WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
};
use datafusion::physical_planner::create_window_expr_with_name;

use crate::functions::scalar::cast::PostgresCast;
use crate::functions::window::session::{Bound, SessionFunction, gap_us};
use crate::plan::node::{
    self, AggregateCall, AggregateFunction, Edge as InputEdge, Node, RankFunction, SortColumn,
};
use crate::plan::window::{
    Distance, Edge, MovingFrame, Numbering, OpenFrame, RangeEdge, Summable, WindowCall,
};
use crate::sql::exclude::Excluding;
use crate::sql::expressions::{compile, text};
use crate::sql::lower::aggregate::Columns;
use crate::sql::lower::pipe::{Pipe, column_index, qualified};
use crate::sql::lower::{conjuncts, lower_node, temporal};
use crate::types::error::{Error, Result, SqlState};
use crate::types::time::EventDuration;

/// Months have 28 to 31 days.
const MONTH_SLACK_DAYS: i32 = 3;

pub fn lower_window(window: &Window) -> Result<Pipe> {
    let mut pipe = lower_node(&window.input)?;
    let own = pipe.columns().len();
    let calls = window.window_expr.iter().map(window_function).collect::<Result<Vec<_>>>()?;
    let fields: Vec<_> = window.schema.iter().skip(own).collect();
    // The numbers of calls over one window, each window once.
    let mut windows: Vec<Vec<usize>> = Vec::new();
    for (index, call) in calls.iter().enumerate() {
        let same = |other: &&mut Vec<usize>| {
            let (l, r) = (&calls[other[0]].params, &call.params);
            l.partition_by == r.partition_by && l.order_by == r.order_by
        };
        match windows.iter_mut().find(same) {
            Some(window) => window.push(index),
            None => windows.push(vec![index]),
        }
    }
    for window in &windows {
        let calls: Vec<(&WindowFunction, &Field)> =
            window.iter().map(|index| (&calls[*index], fields[*index].1.as_ref())).collect();
        pipe = match calls.iter().all(|(call, _)| session_bound(call).is_some()) {
            true => make_session(pipe, &calls)?,
            false => make_over(pipe, &calls)?,
        };
    }
    // Calls stand in the order of their windows.
    let columns = pipe.columns();
    let place = |call: usize| windows.iter().flatten().position(|index| *index == call);
    let mut exprs = columns[..own].to_vec();
    for call in 0..calls.len() {
        let place = place(call).expect("every call has a window");
        exprs.push(columns[own + place].clone());
    }
    pipe.project(&exprs, &window.schema)
}

fn window_function(expr: &Expr) -> Result<WindowFunction> {
    match expr.clone().unalias_nested().data {
        Expr::WindowFunction(call) => Ok(*call),
        other => Err(Error::internal(format!("{other} is not a window function"))),
    }
}

/// Which end of a session a call asks for, if it does.
fn session_bound(call: &WindowFunction) -> Option<Bound> {
    let WindowFunctionDefinition::WindowUDF(function) = &call.fun else { return None };
    function.inner().downcast_ref::<SessionFunction>().map(|function| function.bound)
}

/// The input's columns, then those of calls of `session_start` and `session_end` over one window.
fn make_session(input: Pipe, calls: &[(&WindowFunction, &Field)]) -> Result<Pipe> {
    let own = input.columns();
    let mut output = input.fields();
    let mut columns = Columns::new(input.schema().clone());
    for column in &own {
        columns.add(column);
    }
    let params = &calls[0].0.params;
    let ([time, gap], [order_by]) = (params.args.as_slice(), params.order_by.as_slice()) else {
        return Err(Error::internal("a session has a time, a gap and an order"));
    };
    let Expr::Literal(gap, _) = gap else {
        return Err(Error::unsupported("a gap of SESSION that is not constant")
            .hint("Write INTERVAL '10 minutes'."));
    };
    if order_by.expr != *time || !order_by.asc {
        return Err(Error::unsupported("session_start() in another order than that of its time"));
    }
    if calls.iter().any(|(call, _)| call.params.args != params.args) {
        return Err(Error::unsupported("sessions of several gaps over one window")
            .hint("Use SESSION in FROM, one over the other."));
    }
    let gap = gap_us(&gap.to_array().map_err(Error::from)?)?;
    let partition: Vec<usize> = params.partition_by.iter().map(|e| columns.add(e)).collect();
    let time = columns.add(time);
    let mapped = columns.map(input)?;
    let schema = mapped.schema();
    let width = schema.fields().len();
    let time_type = schema.field(time).data_type().clone();
    let bound = |name: &str| Arc::new(Field::new(name, time_type.clone(), true));
    let fields = schema.fields().iter().cloned();
    let fields = fields.chain([bound(SESSION_START), bound(SESSION_END)]);
    let node = Node::Session(node::Session {
        input: InputEdge::hash(mapped, partition.clone()),
        partition,
        time,
        gap: EventDuration(gap),
        schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
    });
    let mut kept: Vec<usize> = (0..own.len()).collect();
    for (call, field) in calls {
        kept.push(match session_bound(call) {
            Some(Bound::Start) => width,
            _ => width + 1,
        });
        output.push((None, Arc::new((*field).clone())));
    }
    keep(node, kept, output)
}

/// What the columns of a session are called in a plan.
const SESSION_START: &str = "session start";
const SESSION_END: &str = "session end";

/// The input's columns, then those of calls over one window.
fn make_over(input: Pipe, calls: &[(&WindowFunction, &Field)]) -> Result<Pipe> {
    let own = input.columns();
    let mut output = input.fields();
    let mut columns = Columns::new(input.schema().clone());
    for column in &own {
        columns.add(column);
    }
    let params = &calls[0].0.params;
    let partition: Vec<usize> = params.partition_by.iter().map(|e| columns.add(e)).collect();
    let order_by = sort_columns(&params.order_by, &mut columns);
    let arguments: Vec<Vec<Option<usize>>> = calls
        .iter()
        .map(|(call, _)| {
            // What is constant stays in the call: `ntile(4)` and `lag(x, 2)` want it there.
            let argument = |e: &Expr| e.any_column_refs().then(|| columns.add(e));
            call.params.args.iter().map(argument).collect()
        })
        .collect();
    let summable: Vec<Option<Summable>> =
        calls.iter().map(|(call, field)| summable(call, field.data_type(), &mut columns)).collect();
    let filters: Vec<Option<usize>> =
        calls.iter().map(|(call, _)| call.params.filter.as_ref().map(|e| columns.add(e))).collect();
    let mapped = columns.map(input)?;
    let schema = mapped.schema();
    let names = DFSchema::try_from(schema.as_ref().clone()).map_err(Error::from)?;
    let column = |index: usize| Expr::Column(Column::from_name(schema.field(index).name()));
    let mut compiled = Vec::with_capacity(calls.len());
    for (index, (call, field)) in calls.iter().enumerate() {
        let mut over_columns = (*call).clone();
        let params = &mut over_columns.params;
        for (argument, place) in params.args.iter_mut().zip(&arguments[index]) {
            if let Some(place) = place {
                *argument = column(*place);
            }
        }
        params.filter = filters[index].map(|place| Box::new(column(place)));
        params.partition_by = partition.iter().map(|place| column(*place)).collect();
        for (sort, by) in params.order_by.iter_mut().zip(&order_by) {
            sort.expr = column(by.column);
        }
        let known = summable[index].clone();
        compiled.push(compile_call(call, over_columns, field, &names)?.summed_up(known));
    }
    let fields = schema.fields().iter().cloned();
    let added = calls
        .iter()
        .zip(&compiled)
        .map(|((_, field), call)| Arc::new((*field).clone().with_name(&call.display)));
    let node_schema = Arc::new(Schema::new(fields.chain(added).collect::<Vec<_>>()));
    let displays: Vec<String> = compiled.iter().map(|call| call.display.clone()).collect();
    let node = Node::Over(node::Over {
        input: InputEdge::hash(mapped, partition.clone()),
        partition,
        order_by,
        calls: compiled,
        schema: node_schema,
    });
    let width = schema.fields().len();
    for ((_, field), display) in calls.iter().zip(&displays) {
        // For EXPLAIN, the name that the user would know, where it tells columns apart.
        let taken = output.iter().any(|(_, other)| other.name() == display);
        let name = if taken { field.name() } else { display };
        output.push((None, Arc::new((*field).clone().with_name(name))));
    }
    keep(node, (0..own.len()).chain(width..width + calls.len()).collect(), output)
}

/// Some columns of a node, called otherwise.
fn keep(
    node: Node,
    columns: Vec<usize>,
    fields: Vec<crate::sql::lower::pipe::QualifiedField>,
) -> Result<Pipe> {
    let own = node.schema();
    let numbered = own.fields().iter().enumerate().map(|(index, field)| {
        (None, Arc::new(field.as_ref().clone().with_name(format!("{index}"))))
    });
    let pipe = Pipe::new(node, qualified(numbered.collect())?);
    let all = pipe.columns();
    let exprs: Vec<Expr> = columns.iter().map(|index| all[*index].clone()).collect();
    pipe.project(&exprs, &qualified(fields)?)
}

fn sort_columns(order_by: &[SortExpr], columns: &mut Columns) -> Vec<SortColumn> {
    order_by
        .iter()
        .map(|sort| SortColumn {
            column: columns.add(&sort.expr),
            descending: !sort.asc,
            nulls_first: sort.nulls_first,
        })
        .collect()
}

/// `over_columns` is the call over the columns of `names`; `call` is what the user wrote.
fn compile_call(
    call: &WindowFunction,
    over_columns: WindowFunction,
    field: &Field,
    names: &DFSchema,
) -> Result<WindowCall> {
    let display = display(call);
    let distances = distances(call)?;
    let expr = create_window_expr_with_name(
        &Expr::WindowFunction(Box::new(over_columns)),
        display.clone(),
        names,
        &ExecutionProps::new(),
        &PhysicalPlanningContext::default(),
    )
    .map_err(Error::from)?;
    let compiled = WindowCall::new(expr, distances, field.data_type().clone(), display);
    // Some aggregates cannot give up rows as a frame moves on: that shows without rows.
    if matches!(call.fun, WindowFunctionDefinition::AggregateUDF(_)) {
        compiled.evaluate(&RecordBatch::new_empty(names.inner().clone()))?;
    }
    Ok(compiled)
}

/// The function with its arguments, and its frame if that is not the usual one.
fn display(call: &WindowFunction) -> String {
    let params = &call.params;
    let excluding = excluding(&call.fun);
    let count = excluding.map_or(params.args.len(), |excluding| excluding.arguments);
    let arguments: Vec<String> = params.args.iter().take(count).map(text).collect();
    let distinct = if params.distinct { "DISTINCT " } else { "" };
    let name = excluding.map_or(call.fun.name(), |excluding| excluding.own_name.as_str());
    let mut shown = format!("{name}({distinct}{})", arguments.join(", "));
    if params.null_treatment == Some(NullTreatment::IgnoreNulls) {
        shown.push_str(" IGNORE NULLS");
    }
    if let Some(filter) = &params.filter {
        shown.push_str(&format!(" FILTER (WHERE {})", text(filter)));
    }
    if let [condition] = &params.args[count..] {
        shown.push_str(&format!(" FILTER (WHERE {})", text(condition)));
    }
    let usual = WindowFrame::new(Some(false).filter(|_| !params.order_by.is_empty()));
    let frame = &params.window_frame;
    let same = usual.units == frame.units
        && usual.start_bound.is_unbounded() == frame.start_bound.is_unbounded()
        && (usual.end_bound == frame.end_bound
            || (usual.end_bound.is_unbounded() && frame.end_bound.is_unbounded()));
    if frame_matters(call) && !same {
        shown.push_str(&format!(" {frame}"));
    }
    if let Some(excluding) = excluding {
        shown.push_str(&format!(" EXCLUDE {}", excluding.exclusion.name()));
    }
    shown
}

/// The function as one that leaves rows of its frame out.
fn excluding(function: &WindowFunctionDefinition) -> Option<&Excluding> {
    match function {
        WindowFunctionDefinition::WindowUDF(function) => function.inner().downcast_ref(),
        WindowFunctionDefinition::AggregateUDF(_) => None,
    }
}

/// Whether the value depends on the frame.
fn frame_matters(call: &WindowFunction) -> bool {
    match &call.fun {
        WindowFunctionDefinition::AggregateUDF(_) => true,
        fun if excluding(fun).is_some() => true,
        WindowFunctionDefinition::WindowUDF(function) => {
            matches!(function.name(), "first_value" | "last_value" | "nth_value")
        }
    }
}

/// How far a row looks before it, and after it.
fn distances(call: &WindowFunction) -> Result<(Distance, Distance)> {
    let all = (Distance::Unbounded, Distance::Unbounded);
    let ignores_nulls = call.params.null_treatment == Some(NullTreatment::IgnoreNulls);
    match &call.fun {
        // What is excluded is within the frame.
        fun if excluding(fun).is_some() => frame_distances(&call.params.window_frame),
        WindowFunctionDefinition::WindowUDF(function) => match function.name() {
            "row_number" | "rank" | "dense_rank" => Ok((Distance::Unbounded, Distance::Rows(0))),
            "lag" | "lead" if !ignores_nulls => {
                let by = match call.params.args.get(1) {
                    None => Some(1),
                    Some(Expr::Literal(value, _)) => integer(value),
                    Some(_) => None,
                };
                let Some(by) = by.and_then(|by| i64::try_from(by).ok()) else { return Ok(all) };
                let back = (function.name() == "lag") == (by >= 0);
                let (far, near) = (Distance::Rows(by.unsigned_abs()), Distance::Rows(0));
                Ok(if back { (far, near) } else { (near, far) })
            }
            "first_value" | "last_value" | "nth_value" => {
                frame_distances(&call.params.window_frame)
            }
            _ => Ok(all),
        },
        // All aggregates are exact: a value does not depend on where summing began.
        WindowFunctionDefinition::AggregateUDF(_) => frame_distances(&call.params.window_frame),
    }
}

/// How rows can be summed up for a call.
fn summable(
    call: &WindowFunction,
    return_type: &DataType,
    columns: &mut Columns,
) -> Option<Summable> {
    let params = &call.params;
    if params.distinct || params.null_treatment == Some(NullTreatment::IgnoreNulls) {
        return None;
    }
    let literal = |index: usize| match params.args.get(index) {
        Some(Expr::Literal(value, _)) => integer(value),
        _ => None,
    };
    match &call.fun {
        WindowFunctionDefinition::WindowUDF(function) => {
            let numbering = match function.name() {
                "row_number" => Numbering::RowNumber,
                "rank" => Numbering::Rank,
                "dense_rank" => Numbering::DenseRank,
                "percent_rank" => Numbering::PercentRank,
                "cume_dist" => Numbering::CumeDist,
                "ntile" => {
                    let buckets = literal(0).and_then(|buckets| u64::try_from(buckets).ok());
                    Numbering::Ntile(buckets.filter(|buckets| *buckets > 0)?)
                }
                _ => return None,
            };
            Some(Summable::Number(numbering))
        }
        WindowFunctionDefinition::AggregateUDF(function) => {
            let open = open_frame(&params.window_frame);
            let moving = moving_frame(&params.window_frame);
            if open.is_none() && moving.is_none() {
                return None;
            }
            let function = AggregateFunction::from_name(function.name())?;
            // count(*) and count(1) count rows.
            let is_value = |e: &Expr| matches!(e, Expr::Literal(value, _) if !value.is_null());
            let counts_rows =
                function == AggregateFunction::Count && params.args.iter().all(is_value);
            // What has constants beside the value (a separator, a share) keeps all rows of a frame.
            if open.is_none() && !counts_rows && !params.args.iter().all(Expr::any_column_refs) {
                return None;
            }
            let arguments = match counts_rows {
                true => vec![],
                false => params.args.iter().map(|argument| columns.add(argument)).collect(),
            };
            let call = AggregateCall {
                function,
                arguments,
                distinct: false,
                filter: params.filter.as_ref().map(|condition| columns.add(condition)),
                order_by: vec![],
                return_type: return_type.clone(),
                display: display(call),
            };
            match (open, moving) {
                (Some(frame), _) => Some(Summable::Aggregate { call, frame }),
                (None, moving) => moving.map(|frame| Summable::Sliding { call, frame }),
            }
        }
    }
}

/// The frame, if both of its ends move along by so many rows, or so much of the sort value.
fn moving_frame(frame: &WindowFrame) -> Option<MovingFrame> {
    let row = |bound: &WindowFrameBound| {
        let rows = |by: &ScalarValue| match by {
            ScalarValue::UInt64(Some(by)) => i64::try_from(*by).ok(),
            _ => None,
        };
        match bound {
            WindowFrameBound::CurrentRow => Some(0),
            WindowFrameBound::Following(by) => rows(by),
            WindowFrameBound::Preceding(by) => rows(by).map(|by| -by),
        }
    };
    let edge = |bound: &WindowFrameBound| {
        let offset = |by: &ScalarValue| match by {
            // An offset that has not become one of the sort column's type.
            ScalarValue::Utf8(_) => None,
            by if by.is_null() => None,
            by => by.to_array().ok(),
        };
        match bound {
            WindowFrameBound::CurrentRow => Some(RangeEdge::Peers),
            WindowFrameBound::Following(by) => offset(by).map(RangeEdge::After),
            WindowFrameBound::Preceding(by) => offset(by).map(RangeEdge::Before),
        }
    };
    let (start, end) = (&frame.start_bound, &frame.end_bound);
    match frame.units {
        WindowFrameUnits::Rows => Some(MovingFrame::Rows { first: row(start)?, last: row(end)? }),
        WindowFrameUnits::Range => {
            Some(MovingFrame::Range { start: edge(start)?, end: edge(end)? })
        }
        WindowFrameUnits::Groups => None,
    }
}

/// The frame, if it reaches to an end of the partition and its other end is easily found.
fn open_frame(frame: &WindowFrame) -> Option<OpenFrame> {
    let rows = |by: &ScalarValue| match (frame.units, by) {
        (WindowFrameUnits::Rows, ScalarValue::UInt64(Some(by))) => i64::try_from(*by).ok(),
        _ => None,
    };
    let edge = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::CurrentRow if frame.units == WindowFrameUnits::Rows => Some(Edge::Row(0)),
        WindowFrameBound::CurrentRow => Some(Edge::Peers),
        WindowFrameBound::Following(by) => rows(by).map(Edge::Row),
        WindowFrameBound::Preceding(by) => rows(by).map(|by| Edge::Row(-by)),
    };
    match (frame.start_bound.is_unbounded(), frame.end_bound.is_unbounded()) {
        (true, true) => Some(OpenFrame::All),
        (true, false) => edge(&frame.end_bound).map(OpenFrame::To),
        (false, true) => edge(&frame.start_bound).map(OpenFrame::From),
        (false, false) => None,
    }
}

fn frame_distances(frame: &WindowFrame) -> Result<(Distance, Distance)> {
    let here = match frame.units {
        WindowFrameUnits::Rows => Distance::Rows(0),
        WindowFrameUnits::Range | WindowFrameUnits::Groups => Distance::Groups(0),
    };
    let by_months = has_months(&frame.start_bound) || has_months(&frame.end_bound);
    let distance = |offset: &ScalarValue| -> Result<Distance> {
        if offset.is_null() {
            return Ok(Distance::Unbounded);
        }
        Ok(match (frame.units, offset) {
            (WindowFrameUnits::Rows, ScalarValue::UInt64(Some(rows))) => Distance::Rows(*rows),
            (WindowFrameUnits::Groups, ScalarValue::UInt64(Some(groups))) => {
                Distance::Groups(*groups)
            }
            (WindowFrameUnits::Range, ScalarValue::Utf8(_)) => Distance::Unbounded,
            (WindowFrameUnits::Range, ScalarValue::IntervalMonthDayNano(Some(by))) if by_months => {
                with_month_slack(*by)?
            }
            (WindowFrameUnits::Range, offset) => {
                Distance::Range(offset.to_array().map_err(Error::from)?)
            }
            _ => Distance::Unbounded,
        })
    };
    let preceding = match &frame.start_bound {
        WindowFrameBound::Preceding(offset) => distance(offset)?,
        WindowFrameBound::CurrentRow | WindowFrameBound::Following(_) if by_months => {
            with_month_slack(IntervalMonthDayNano::ZERO)?
        }
        WindowFrameBound::CurrentRow | WindowFrameBound::Following(_) => here.clone(),
    };
    let following = match &frame.end_bound {
        WindowFrameBound::Following(offset) => distance(offset)?,
        WindowFrameBound::CurrentRow | WindowFrameBound::Preceding(_) => here,
    };
    Ok((preceding, following))
}

fn has_months(bound: &WindowFrameBound) -> bool {
    match bound {
        WindowFrameBound::Preceding(ScalarValue::IntervalMonthDayNano(Some(by)))
        | WindowFrameBound::Following(ScalarValue::IntervalMonthDayNano(Some(by))) => {
            by.months != 0
        }
        _ => false,
    }
}

/// How far a row looks with an offset of a frame by months.
///
/// A month before or after a time is up to three days further away than a month after or before
/// that. And by months a later row may have an earlier edge: `Mar 31 01:00 - 1 month` is before
/// `Mar 30 23:00 - 1 month`. Frames do not go back then, so a row's frame depends on rows up to
/// three days before it, too.
fn with_month_slack(by: IntervalMonthDayNano) -> Result<Distance> {
    // With signs that differ, an offset of months may be none, or lead the other way.
    if by.months < 0 || by.days < 0 || by.nanoseconds < 0 {
        return Ok(Distance::Unbounded);
    }
    let days = by.days.saturating_add(MONTH_SLACK_DAYS);
    let by = IntervalMonthDayNano::new(by.months, days, by.nanoseconds);
    let by = ScalarValue::IntervalMonthDayNano(Some(by));
    Ok(Distance::Range(by.to_array().map_err(Error::from)?))
}

/// A filter; over a window function alone that numbers rows, perhaps the first rows only.
pub fn lower_filter(filter: &Filter) -> Result<Pipe> {
    // The filter is looked at below projections of columns and other names.
    match &*filter.input {
        LogicalPlan::Projection(n) if is_above_window(&filter.input) => {
            let below = over_input(filter, n.input.schema(), |index| &n.expr[index])?;
            let filter = Filter::try_new(below, n.input.clone()).map_err(Error::from)?;
            return lower_filter(&filter)?.project(&n.expr, &n.schema);
        }
        LogicalPlan::SubqueryAlias(n) if is_above_window(&filter.input) => {
            let columns: Vec<Expr> =
                n.input.schema().columns().into_iter().map(Expr::Column).collect();
            let below = over_input(filter, n.input.schema(), |index| &columns[index])?;
            let filter = Filter::try_new(below, n.input.clone()).map_err(Error::from)?;
            return Ok(lower_filter(&filter)?.rename(n.schema.clone()));
        }
        _ => {}
    }
    if let LogicalPlan::Window(window) = &*filter.input
        && let [expr] = window.window_expr.as_slice()
    {
        let call = window_function(expr)?;
        let rank = match (&call.fun, call.params.args.as_slice()) {
            (WindowFunctionDefinition::WindowUDF(function), []) => match function.name() {
                "row_number" => Some(RankFunction::RowNumber),
                "rank" => Some(RankFunction::Rank),
                "dense_rank" => Some(RankFunction::DenseRank),
                _ => None,
            },
            _ => None,
        };
        if let Some(rank) = rank
            && let Some((limit, rest)) = number_limit(&filter.predicate, &window.schema)
        {
            let first = First { rank, offset: 0, limit: Some(limit), numbered: true };
            let params = &call.params;
            let input = lower_node(&window.input)?;
            let number = window.schema.iter().last().expect("the number is a column");
            let number = Some((number.0.cloned(), number.1.clone()));
            let top = make_top_n(input, &params.partition_by, &params.order_by, first, number)?;
            let top = top.rename(window.schema.clone());
            return rest.iter().try_fold(top, temporal::filter);
        }
    }
    temporal::filter(lower_node(&filter.input)?, &filter.predicate)
}

/// Whether a plan only picks and renames columns of a window function's result.
fn is_above_window(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Window(_) => true,
        LogicalPlan::Projection(n) => {
            let picks = |e: &Expr| column_index(e, n.input.schema()).is_some();
            n.expr.iter().all(picks) && is_above_window(&n.input)
        }
        LogicalPlan::SubqueryAlias(n) => is_above_window(&n.input),
        _ => false,
    }
}

/// A filter's condition over the columns below its input, of which `column` gives those of the
/// input.
fn over_input<'a>(
    filter: &Filter,
    below: &DFSchema,
    column: impl Fn(usize) -> &'a Expr,
) -> Result<Expr> {
    let schema = filter.input.schema();
    let replaced = filter.predicate.clone().transform_up(|e| match &e {
        Expr::Column(named) => {
            let expr = column(schema.index_of_column(named)?);
            let index = column_index(expr, below);
            let index = index.ok_or_else(|| internal_datafusion_err!("{expr} is no column"))?;
            Ok(Transformed::yes(Expr::Column(Column::from(below.qualified_field(index)))))
        }
        _ => Ok(Transformed::no(e)),
    });
    Ok(replaced.map_err(Error::from)?.data)
}

/// The greatest number that a condition lets pass, and what it says beside that; the number is the
/// last column.
fn number_limit(predicate: &Expr, schema: &DFSchema) -> Option<(u64, Vec<Expr>)> {
    let number = schema.fields().len() - 1;
    let (mut limit, mut rest) = (None, Vec::new());
    for condition in conjuncts(predicate) {
        let Some((at_most, said_all)) = at_most(&condition, number, schema) else {
            rest.push(condition);
            continue;
        };
        limit = Some(limit.map_or(at_most, |limit: u64| limit.min(at_most)));
        if !said_all {
            rest.push(condition);
        }
    }
    Some((limit?, rest))
}

/// What a condition on the number lets pass at most, and whether it lets all up to that pass.
fn at_most(condition: &Expr, number: usize, schema: &DFSchema) -> Option<(u64, bool)> {
    let is_number = |expr: &Expr| column_index(without_casts(expr), schema) == Some(number);
    let limit = |limit: i128| u64::try_from(limit.max(0)).unwrap_or(u64::MAX);
    match condition {
        Expr::BinaryExpr(binary) => {
            let (op, bound) = if is_number(&binary.left) {
                (binary.op, literal(&binary.right)?)
            } else if is_number(&binary.right) {
                (binary.op.swap()?, literal(&binary.left)?)
            } else {
                return None;
            };
            match op {
                Operator::Lt => Some((limit(bound - 1), true)),
                Operator::LtEq => Some((limit(bound), true)),
                Operator::Eq => Some((limit(bound), bound == 1)),
                _ => None,
            }
        }
        Expr::Between(Between { expr, negated: false, low, high }) if is_number(expr) => {
            Some((limit(literal(high)?), literal(low)? <= 1))
        }
        _ => None,
    }
}

/// A number as it was before casts to wider types.
fn without_casts(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast(cast) => without_casts(&cast.expr),
        Expr::Alias(alias) => without_casts(&alias.expr),
        Expr::ScalarFunction(call) if call.func.inner().is::<PostgresCast>() => {
            call.args.first().map_or(expr, without_casts)
        }
        other => other,
    }
}

fn literal(expr: &Expr) -> Option<i128> {
    match without_casts(expr) {
        Expr::Literal(value, _) => integer(value),
        _ => None,
    }
}

fn integer(value: &ScalarValue) -> Option<i128> {
    match value {
        ScalarValue::Int8(value) => value.map(i128::from),
        ScalarValue::Int16(value) => value.map(i128::from),
        ScalarValue::Int32(value) => value.map(i128::from),
        ScalarValue::Int64(value) => value.map(i128::from),
        ScalarValue::UInt8(value) => value.map(i128::from),
        ScalarValue::UInt16(value) => value.map(i128::from),
        ScalarValue::UInt32(value) => value.map(i128::from),
        ScalarValue::UInt64(value) => value.map(i128::from),
        ScalarValue::Decimal128(value, _, 0) => *value,
        _ => None,
    }
}

/// LIMIT and OFFSET.
pub fn lower_limit(limit: &Limit) -> Result<Pipe> {
    let unsupported = || {
        Error::unsupported("LIMIT or OFFSET with an expression in a maintained query")
            .hint("Write the number itself.")
    };
    let count = |expr: &Expr| -> Result<Option<u64>> {
        let Some(count) = constant(expr)? else { return Ok(None) };
        u64::try_from(count)
            .map(Some)
            .map_err(|_| Error::user(SqlState("2201W"), "LIMIT and OFFSET must not be negative"))
    };
    let skip = match limit.get_skip_type().map_err(Error::from)? {
        SkipType::Literal(skip) => skip as u64,
        // OFFSET NULL leaves nothing out.
        SkipType::UnsupportedExpr => match &limit.skip {
            Some(skip) if is_constant(skip)? => count(skip)?.unwrap_or(0),
            _ => return Err(unsupported()),
        },
    };
    let fetch = match limit.get_fetch_type().map_err(Error::from)? {
        FetchType::Literal(fetch) => fetch.map(|fetch| fetch as u64),
        FetchType::UnsupportedExpr => match &limit.fetch {
            Some(fetch) if is_constant(fetch)? => count(fetch)?,
            _ => return Err(unsupported()),
        },
    };
    lower_first(&limit.input, skip, fetch)
}

/// Whether an expression has a value of its own.
fn is_constant(expr: &Expr) -> Result<bool> {
    let depends = expr.exists(|e| {
        Ok(matches!(
            e,
            Expr::Column(_)
                | Expr::OuterReferenceColumn(_, _)
                | Expr::Placeholder(_)
                | Expr::ScalarSubquery(_)
                | Expr::Exists(_)
                | Expr::InSubquery(_)
        ))
    });
    Ok(!depends.map_err(Error::from)?)
}

/// The value of a number without columns.
fn constant(expr: &Expr) -> Result<Option<i64>> {
    let one = RecordBatch::try_new_with_options(
        Arc::new(Schema::empty()),
        vec![],
        &RecordBatchOptions::new().with_row_count(Some(1)),
    )?;
    let value = compile(expr, &DFSchema::empty())?.evaluate(&one)?;
    let value = arrow::compute::cast(&value, &DataType::Int64)?;
    let value = value.as_primitive::<Int64Type>();
    Ok(value.is_valid(0).then(|| value.value(0)))
}

/// The rows after the first `skip`, at most `fetch` of them.
fn lower_first(plan: &LogicalPlan, skip: u64, fetch: Option<u64>) -> Result<Pipe> {
    let first = |skip: u64, fetch: Option<u64>| First {
        rank: RankFunction::RowNumber,
        offset: skip,
        limit: fetch,
        numbered: false,
    };
    match plan {
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => {
            make_top_n(lower_node(&sort.input)?, &[], &sort.expr, first(skip, fetch), None)
        }
        LogicalPlan::Projection(n) => {
            lower_first(&n.input, skip, fetch)?.project(&n.expr, &n.schema)
        }
        LogicalPlan::SubqueryAlias(n) => {
            Ok(lower_first(&n.input, skip, fetch)?.rename(n.schema.clone()))
        }
        other => make_top_n(lower_node(other)?, &[], &[], first(skip, fetch), None),
    }
}

/// Which rows of a partition show.
struct First {
    rank: RankFunction,
    offset: u64,
    limit: Option<u64>,
    numbered: bool,
}

/// The first rows of each partition; `number` is the field of the number's column, if it is wanted.
fn make_top_n(
    input: Pipe,
    partition_by: &[Expr],
    order_by: &[SortExpr],
    first: First,
    number: Option<crate::sql::lower::pipe::QualifiedField>,
) -> Result<Pipe> {
    let own = input.columns();
    let mut output = input.fields();
    let mut columns = Columns::new(input.schema().clone());
    for column in &own {
        columns.add(column);
    }
    let partition: Vec<usize> = partition_by.iter().map(|e| columns.add(e)).collect();
    let mut order_by = sort_columns(order_by, &mut columns);
    // Within a partition these are all the same.
    order_by.retain(|by| !partition.contains(&by.column));
    let mapped = columns.map(input)?;
    let mut fields: Vec<_> = mapped.schema().fields().iter().cloned().collect();
    let width = fields.len();
    let mut kept: Vec<usize> = (0..own.len()).collect();
    if let Some((table, field)) = number {
        let name = match first.rank {
            RankFunction::RowNumber => "row_number",
            RankFunction::Rank => "rank",
            RankFunction::DenseRank => "dense_rank",
        };
        fields.push(Arc::new(field.as_ref().clone().with_name(format!("{name}()"))));
        kept.push(width);
        output.push((table, field));
    }
    let node = Node::TopN(node::TopN {
        input: InputEdge::hash(mapped, partition.clone()),
        partition,
        order_by,
        rank: first.rank,
        offset: first.offset,
        limit: first.limit,
        numbered: first.numbered,
        schema: Arc::new(Schema::new(fields)),
    });
    keep(node, kept, output)
}
