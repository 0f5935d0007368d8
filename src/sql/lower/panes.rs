//! HOP and CUMULATE aggregation by panes: a row is summed up once, however many windows it is in.
//!
//! Instead of each row once for each of its windows:
//!
//! 1. each row gets its pane (`plan/overlap.rs`), and a partial aggregation sums up the rows of an
//!    epoch by pane and the other keys;
//! 2. the sums go to the workers by the other keys, where they are kept by pane until a window
//!    closes (EMIT ON WINDOW CLOSE), or count for each of the pane's windows at once;
//! 3. a map computes the bounds of the windows.
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
use crate::plan::event_time::Step;
use crate::plan::expr::Expr;
use crate::plan::node::{
    Aggregate, AggregateCall, Edge, Map, Node, PARTIAL_STATE, Phase, Unnest, UnnestColumn,
};
use crate::plan::overlap::{ManyWindows, WindowKind};
use crate::sql::expressions::compile;
use crate::sql::functions::FUNCTIONS;
use crate::types::sql_type::SqlType;
use crate::types::text::zone::Zone;

const NS_PER_US: i64 = 1_000;
const PANE: &str = "pane";

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
    /// The column of the rows' times, of what `below` reads.
    time: usize,
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
    let (time, windows) = computed.get(list)?.many_windows()?;
    (!unnest.columns.contains(&UnnestColumn::Whole(list))).then_some(Windowed {
        over,
        exprs,
        unnest,
        start,
        below,
        list,
        windows,
        time,
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
    // Of windows that have a key in common only, several would be one group.
    let tells_apart = |key: &usize| {
        let steps = windowed.exprs[*key].time_steps(&windowed.unnest.schema);
        steps.is_some_and(|(column, steps)| {
            let fixed = |step: &Step| matches!(step, Step::Shift { months: 0, .. });
            column == windowed.start && steps.iter().all(fixed)
        })
    };
    if !whole.keys.iter().any(tells_apart) {
        return None;
    }
    let (rows, places) = rows_with_panes(&windowed, &of_window)?;
    let partial = partial_sums(whole, rows, &places, &of_window)?;
    let windows = windows_of(whole, &windowed, partial)?;
    with_bounds(whole, &windowed, windows, &of_window)
}

/// The columns that are not of windows, and the pane as the last one; and where they went.
fn rows_with_panes(
    windowed: &Windowed<'_>,
    of_window: &impl Fn(usize) -> bool,
) -> Option<(Node, Vec<Option<usize>>)> {
    let Windowed { over, exprs, unnest, below, list, windows, .. } = windowed;
    let source = below.input.input.schema();
    let time = source.field(windowed.time);
    let pane = pane_of(windowed.time, &source, windows)?;
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
    let others = whole.keys.iter().filter(|key| !of_window(**key)).map(|key| places[*key]);
    let mut keys = others.collect::<Option<Vec<_>>>()?;
    keys.push(pane);
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

/// The sums by the keys that are not of windows, and the window.
fn windows_of(whole: &Aggregate, windowed: &Windowed<'_>, partial: Aggregate) -> Option<Aggregate> {
    let (_, others) = partial.keys.split_last()?;
    let others: Vec<usize> = (0..others.len()).collect();
    let pane = partial.schema.field(others.len());
    let name = match windowed.windows.kind {
        WindowKind::Hop => "window_start",
        WindowKind::Cumulate => "window_end",
    };
    let window = Arc::new(pane.clone().with_name(name));
    let fields = partial.schema.fields().iter().take(others.len()).cloned();
    let values = whole.schema.fields().iter().skip(whole.keys.len()).cloned();
    let fields: Vec<FieldRef> = fields.chain([window]).chain(values).collect();
    Some(Aggregate {
        keys: (0..=others.len()).collect(),
        calls: partial.calls.clone(),
        append_only: whole.append_only,
        phase: Phase::Windows {
            input_schema: partial.input.input.schema(),
            windows: windowed.windows,
        },
        input: Edge::hash(Node::Aggregate(partial), others),
        on_close: whole.on_close,
        schema: Arc::new(Schema::new(fields)),
    })
}

/// The columns of the whole, of the sums by window.
fn with_bounds(
    whole: &Aggregate,
    windowed: &Windowed<'_>,
    windows: Aggregate,
    of_window: &impl Fn(usize) -> bool,
) -> Option<Node> {
    let place = windows.keys.len() - 1;
    let column = |place: usize| {
        let field = windows.schema.field(place);
        Expr::column(field.name(), place, field.data_type().clone(), field.is_nullable())
    };
    // The window is where the list's element was.
    let mut columns = vec![usize::MAX; place];
    columns.push(windowed.start);
    let mut others = 0..place;
    let mut projection = Vec::with_capacity(whole.schema.fields().len());
    for key in &whole.keys {
        projection.push(match of_window(*key) {
            true => windowed.exprs[*key].over_columns(&columns).ok()?,
            false => column(others.next()?),
        });
    }
    projection.extend((place + 1..windows.schema.fields().len()).map(column));
    Some(Node::Map(Map {
        input: Edge::local(Node::Aggregate(windows)),
        filter: None,
        projection: Some(projection),
        schema: whole.schema.clone(),
    }))
}

/// The pane of a time column: a tumbling window.
fn pane_of(column: usize, schema: &Schema, windows: &ManyWindows) -> Option<Expr> {
    const NAME: &str = "tumble_start";
    let family = FUNCTIONS.scalar.get(NAME)?;
    let family = family.inner().downcast_ref::<Family>()?;
    let field = schema.field(column);
    let given = [Some(SqlType::of_field(field)?), Some(SqlType::Interval), Some(SqlType::Interval)];
    let settings = CastSettings { zone: Zone::UTC, now_us: 0 };
    let (resolved, _) = family.call(&given, &[None, None, None], settings).ok()?;
    // Columns by number: two may have one name.
    let numbered: Vec<FieldRef> = (schema.fields().iter().enumerate())
        .map(|(index, field)| Arc::new(field.as_ref().clone().with_name(index.to_string())))
        .collect();
    let names = DFSchema::try_from(Schema::new(numbered)).ok()?;
    let mut args = vec![LogicalExpr::Column(Column::from_name(column.to_string()))];
    for us in [windows.pane_us, windows.offset_us] {
        let interval = IntervalMonthDayNano::new(0, 0, us.checked_mul(NS_PER_US)?);
        args.push(LogicalExpr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), None));
    }
    let call = LogicalExpr::ScalarFunction(ScalarFunction::new_udf(resolved, args));
    let text = format!("{NAME}({}, {} s)", field.name(), seconds(windows.pane_us));
    Some(compile(&call, &names).ok()?.with_text(text))
}

fn seconds(us: i64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
