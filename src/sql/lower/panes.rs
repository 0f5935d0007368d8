//! HOP and CUMULATE aggregation by panes: a row is summed up once, however many windows it is in.
//!
//! All rows of a pane are in the same windows: a piece of time as long as the greatest common divisor
//! of slide and size, or as the step of CUMULATE. Instead of each row once for each of its windows:
//!
//! 1. each row gets its pane, and a partial aggregation sums up the rows of an epoch by pane and
//!    the other keys;
//! 2. each of these sums is spread over the pane's windows;
//! 3. the final aggregation merges the sums by window and keys.
//!
//! That works for functions whose accumulators can be merged, over windows that are keys and
//! nothing else. A plan of another form stays as it is.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, IntervalMonthDayNano, Schema};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::logical_expr::Expr as LogicalExpr;
use datafusion::logical_expr::expr::ScalarFunction;

use crate::functions::scalar::call::Family;
use crate::functions::scalar::cast::CastSettings;
use crate::plan::expr::Expr;
use crate::plan::expr::monotone::ManyWindows;
use crate::plan::node::{
    self, Aggregate, AggregateCall, Edge, Map, Node, PARTIAL_STATE, Phase, Unnest, UnnestColumn,
};
use crate::sql::expressions::compile;
use crate::sql::functions::FUNCTIONS;
use crate::types::sql_type::SqlType;
use crate::types::text::zone::Zone;

const NS_PER_US: i64 = 1_000;
const PANE: &str = "pane";
const WINDOWS: &str = "windows";

/// The aggregation by panes, if it is one over the windows of HOP; otherwise as it is.
pub fn by_panes(whole: Aggregate) -> Node {
    panes_of(&whole).unwrap_or(Node::Aggregate(whole))
}

/// What the aggregation reads: columns `over` the windows of rows that `below` computes.
struct Windowed<'a> {
    over: &'a Map,
    exprs: &'a [Expr],
    unnest: &'a Unnest,
    /// Which of the unnested columns is a window's start, or end.
    start: usize,
    below: &'a Map,
    /// Where the list of these is among the columns of `below`.
    list: usize,
    windows: ManyWindows,
}

fn windowed(aggregate: &Aggregate) -> Option<Windowed<'_>> {
    let Node::Map(over @ Map { filter: None, projection: Some(exprs), .. }) =
        &*aggregate.input.input
    else {
        return None;
    };
    let Node::Unnest(unnest @ Unnest { keeps_empty: false, .. }) = &*over.input.input else {
        return None;
    };
    let mut lists = unnest.columns.iter().enumerate().filter_map(|(place, column)| match column {
        UnnestColumn::Elements(list) => Some((place, *list)),
        UnnestColumn::Whole(_) => None,
    });
    let (Some((start, list)), None) = (lists.next(), lists.next()) else { return None };
    let Node::Map(below @ Map { projection: Some(computed), .. }) = &*unnest.input.input else {
        return None;
    };
    let windows = computed.get(list)?.many_windows()?;
    (!unnest.columns.contains(&UnnestColumn::Whole(list))).then_some(Windowed {
        over,
        exprs,
        unnest,
        start,
        below,
        list,
        windows,
    })
}

fn panes_of(whole: &Aggregate) -> Option<Node> {
    if !matches!(whole.phase, Phase::Whole) || whole.calls.is_empty() || !whole.can_merge() {
        return None;
    }
    let windowed = windowed(whole)?;
    let of_window =
        |column: usize| windowed.exprs[column].input_columns().contains(&windowed.start);
    let read = whole.calls.iter().flat_map(|call| call.arguments.iter().chain(&call.filter));
    if read.copied().any(of_window) || !whole.keys.iter().copied().any(of_window) {
        return None;
    }
    let (rows, places) = rows_with_panes(&windowed, &of_window)?;
    let partial = partial_sums(whole, rows, &places, &of_window)?;
    let input_schema = partial.input.input.schema();
    let calls = partial.calls.clone();
    let spread = spread_sums(whole, &windowed, partial, &of_window)?;
    let keys: Vec<usize> = (0..whole.keys.len()).collect();
    Some(Node::Aggregate(Aggregate {
        input: Edge::hash(spread, keys.clone()),
        keys,
        calls,
        append_only: whole.append_only,
        phase: Phase::Final { input_schema },
        on_close: whole.on_close,
        schema: whole.schema.clone(),
    }))
}

/// The columns that are not of windows, and the pane as the last one; and where they went.
fn rows_with_panes(
    windowed: &Windowed<'_>,
    of_window: &impl Fn(usize) -> bool,
) -> Option<(Node, Vec<Option<usize>>)> {
    let Windowed { over, exprs, unnest, below, list, windows, .. } = windowed;
    let source = below.input.input.schema();
    let time = source.field(windows.column);
    let lengths = [windows.pane_us, windows.offset_us];
    let pane = function("tumble_start", windows.column, &source, &lengths)?;
    let pane_field = Arc::new(Field::new(PANE, pane.data_type().clone(), true));
    if time.data_type() != pane.data_type() {
        return None;
    }
    let mut computed = below.projection.clone()?;
    computed[*list] = pane;
    let mut fields: Vec<FieldRef> = below.schema.fields().iter().cloned().collect();
    fields[*list] = pane_field.clone();
    let with_pane = Node::Map(Map {
        input: below.input.clone(),
        filter: below.filter.clone(),
        projection: Some(computed),
        schema: Arc::new(Schema::new(fields)),
    });
    // Columns of the unnest are columns of the map below it.
    let mut below_columns = vec![usize::MAX; below.schema.fields().len()];
    for (place, column) in unnest.columns.iter().enumerate() {
        if let UnnestColumn::Whole(column) = column {
            below_columns[*column] = place;
        }
    }
    let mut places = vec![None; exprs.len()];
    let (mut projection, mut fields) = (vec![], vec![]);
    for (index, expr) in exprs.iter().enumerate().filter(|(index, _)| !of_window(*index)) {
        places[index] = Some(projection.len());
        projection.push(expr.over_columns(&below_columns).ok()?);
        fields.push(over.schema.fields()[index].clone());
    }
    projection.push(Expr::column(PANE, *list, pane_field.data_type().clone(), true));
    fields.push(pane_field);
    let rows = Node::Map(Map {
        input: Edge::local(with_pane),
        filter: None,
        projection: Some(projection),
        schema: Arc::new(Schema::new(fields)),
    });
    Some((rows, places))
}

/// Sums of an epoch's rows, by pane and the keys that are not of windows.
fn partial_sums(
    whole: &Aggregate,
    rows: Node,
    places: &[Option<usize>],
    of_window: &impl Fn(usize) -> bool,
) -> Option<Aggregate> {
    let schema = rows.schema();
    let pane = schema.fields().len() - 1;
    let mut keys = vec![pane];
    for key in whole.keys.iter().filter(|key| !of_window(**key)) {
        keys.push(places[*key]?);
    }
    let mut calls: Vec<AggregateCall> = whole.calls.clone();
    for call in &mut calls {
        for column in call.arguments.iter_mut().chain(call.filter.as_mut()) {
            *column = places[*column]?;
        }
    }
    let mut fields: Vec<FieldRef> = keys.iter().map(|key| schema.fields()[*key].clone()).collect();
    fields.push(Arc::new(Field::new(PARTIAL_STATE, DataType::Binary, false)));
    Some(Aggregate {
        input: Edge::local(rows),
        keys,
        calls,
        append_only: whole.append_only,
        phase: Phase::Partial,
        on_close: false,
        schema: Arc::new(Schema::new(fields)),
    })
}

/// Each sum once for each window of its pane: the keys of the whole, then the sum.
fn spread_sums(
    whole: &Aggregate,
    windowed: &Windowed<'_>,
    partial: Aggregate,
    of_window: &impl Fn(usize) -> bool,
) -> Option<Node> {
    let windows = &windowed.windows;
    let sums = partial.schema.clone();
    let lengths = [windows.step_us, windows.size_us, windows.offset_us];
    let list = function(windows.function, 0, &sums, &lengths)?;
    let list_field = Arc::new(Field::new(WINDOWS, list.data_type().clone(), true));
    let DataType::List(start) = list.data_type().clone() else { return None };
    let column = |index: usize, place: usize| {
        let field = sums.field(index);
        Expr::column(field.name(), place, field.data_type().clone(), field.is_nullable())
    };
    let mut projection = vec![list];
    projection.extend((1..sums.fields().len()).map(|index| column(index, index)));
    let others = sums.fields().iter().skip(1).cloned();
    let listed = Node::Map(Map {
        input: Edge::local(Node::Aggregate(partial)),
        filter: None,
        projection: Some(projection),
        schema: Arc::new(Schema::new(
            [list_field].into_iter().chain(others.clone()).collect::<Vec<_>>(),
        )),
    });
    let start_field = Arc::new(start.as_ref().clone().with_name(WINDOWS));
    let whole_columns = (1..sums.fields().len()).map(UnnestColumn::Whole);
    let unnested = Node::Unnest(node::Unnest {
        input: Edge::local(listed),
        columns: [UnnestColumn::Elements(0)].into_iter().chain(whole_columns).collect(),
        keeps_empty: false,
        schema: Arc::new(Schema::new([start_field].into_iter().chain(others).collect::<Vec<_>>())),
    });
    let (mut projection, mut fields) = (vec![], vec![]);
    let mut next = 1;
    for key in &whole.keys {
        fields.push(windowed.over.schema.fields()[*key].clone());
        projection.push(match of_window(*key) {
            true => windowed.exprs[*key].over_columns(&[windowed.start]).ok()?,
            false => {
                next += 1;
                column(next - 1, next - 1)
            }
        });
    }
    fields.push(sums.fields()[next].clone());
    projection.push(column(next, next));
    Some(Node::Map(Map {
        input: Edge::local(unnested),
        filter: None,
        projection: Some(projection),
        schema: Arc::new(Schema::new(fields)),
    }))
}

/// A window function of a time column, with these lengths of time.
fn function(name: &str, column: usize, schema: &Schema, lengths_us: &[i64]) -> Option<Expr> {
    let family = FUNCTIONS.scalar.get(name)?;
    let family = family.inner().downcast_ref::<Family>()?;
    let field = schema.field(column);
    let mut given = vec![Some(SqlType::of_field(field)?)];
    given.extend(lengths_us.iter().map(|_| Some(SqlType::Interval)));
    let settings = CastSettings { zone: Zone::UTC, now_us: 0 };
    let (resolved, _) = family.call(&given, &vec![None; given.len()], settings).ok()?;
    // Columns by number: two may have one name.
    let numbered: Vec<FieldRef> = (schema.fields().iter().enumerate())
        .map(|(index, field)| Arc::new(field.as_ref().clone().with_name(index.to_string())))
        .collect();
    let names = DFSchema::try_from(Schema::new(numbered)).ok()?;
    let mut args = vec![LogicalExpr::Column(Column::from_name(column.to_string()))];
    for us in lengths_us {
        let interval = IntervalMonthDayNano::new(0, 0, us.checked_mul(NS_PER_US)?);
        args.push(LogicalExpr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), None));
    }
    let call = LogicalExpr::ScalarFunction(ScalarFunction::new_udf(resolved, args));
    let text = match lengths_us {
        [size_us, _] => format!("{name}({}, {} s)", field.name(), seconds(*size_us)),
        [slide_us, size_us, ..] => {
            format!("{name}({}, {} s, {} s)", field.name(), seconds(*slide_us), seconds(*size_us))
        }
        _ => name.to_owned(),
    };
    Some(compile(&call, &names).ok()?.with_text(text))
}

fn seconds(us: i64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
