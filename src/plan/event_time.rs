//! What a stream promises of its time columns: "no change still to come has a smaller value here
//! than f(watermark)".
//!
//! A watermark is one number that travels through a dataflow as it is; what it means for a column
//! is a property of the plan, and this file derives it. A source with `WATERMARK FOR ts` promises
//! of `ts` the watermark itself. A column that is computed from a bounded one by a function that
//! never goes back (`ts + INTERVAL '1 hour'`, `date_trunc`, `date_bin`, a window's start) is
//! bounded by the function of the bound. Rounding makes bounds exact: a tumbling window's start
//! below `bin(watermark)` is closed exactly when the window's end has been reached.
//!
//! Operators ask for the bounds of their inputs, and forget what is below. A change is a row that
//! comes or goes: nothing behind the bound is taken back either. NULL has no time, so a row whose
//! time is NULL is never behind a bound, until the stream ends.

use arrow::array::{ArrayRef, AsArray, Date32Array, Int64Array, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Date32Type, Schema, TimeUnit, TimestampMicrosecondType};
use serde::{Deserialize, Serialize};

use crate::plan::expr::Expr;
use crate::plan::match_recognize::{MatchColumn, Read, RowValue, Variables};
use crate::plan::node::{
    Aggregate, AsofJoin, Join, JoinKind, MatchRecognize, Node, Over, Phase, Session, TopN, Unnest,
    UnnestColumn,
};
use crate::plan::window::Distance;
use crate::types::text::datetime::US_PER_DAY;
use crate::types::time::Watermark;

/// A function of time that never goes back, one step of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Calendar months, then microseconds, later (or earlier, when negative).
    Shift { months: i32, us: i64 },
    /// Down to a multiple of `stride_us` after `origin_us`.
    Bin { stride_us: i64, origin_us: i64 },
    /// Down to the first of a month whose number, counted from the year 0, is a multiple of this.
    Months { every: i32 },
    /// A timestamp's date: from microseconds to days.
    Date,
    /// A date's midnight: from days to microseconds.
    Midnight,
}

impl Step {
    /// The value of the step. Saturates: what is out of range is at the end of time.
    pub fn apply(self, value: i64) -> i64 {
        match self {
            Step::Shift { months, us } => shift_months(value, months).saturating_add(us),
            Step::Bin { stride_us, origin_us } => {
                let distance = value.saturating_sub(origin_us);
                value.saturating_sub(distance.rem_euclid(stride_us))
            }
            Step::Months { every } => floor_months(value, every),
            Step::Date => value.div_euclid(US_PER_DAY),
            Step::Midnight => value.saturating_mul(US_PER_DAY),
        }
    }

    /// The least value for which the step's is at least `value`. Saturates.
    pub fn first_reaching(self, value: i64) -> i64 {
        match self {
            Step::Shift { months: 0, us } => value.saturating_sub(us),
            Step::Bin { stride_us, origin_us } => {
                let beyond = value.saturating_sub(origin_us).rem_euclid(stride_us);
                if beyond == 0 { value } else { value.saturating_add(stride_us - beyond) }
            }
            Step::Date => value.saturating_mul(US_PER_DAY),
            Step::Midnight => {
                value.div_euclid(US_PER_DAY) + i64::from(value.rem_euclid(US_PER_DAY) != 0)
            }
            Step::Months { .. } | Step::Shift { .. } => first_reaching(self, value),
        }
    }
}

/// The same for steps of months, whose value is not far from what it is of: by halves.
fn first_reaching(step: Step, value: i64) -> i64 {
    let (mut low, mut high, mut reach) = (value, value, 1_i64 << 32);
    while step.apply(low) >= value && low > i64::MIN {
        low = low.saturating_sub(reach);
        reach = reach.saturating_mul(2);
    }
    reach = 1 << 32;
    while step.apply(high) < value && high < i64::MAX {
        high = high.saturating_add(reach);
        reach = reach.saturating_mul(2);
    }
    // The value of `low` is less, that of `high` is not; or they are the ends of time.
    while i128::from(high) - i128::from(low) > 1 {
        let middle = ((i128::from(low) + i128::from(high)) / 2) as i64;
        if step.apply(middle) >= value { high = middle } else { low = middle }
    }
    high
}

/// What is promised of one column.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TimeBound {
    pub column: usize,
    /// The bound is the least of these functions of the watermark. Without any there is nothing
    /// still to come.
    pub functions: Vec<Vec<Step>>,
}

impl TimeBound {
    /// The column that a watermark is of.
    pub fn of_watermark(column: usize) -> TimeBound {
        TimeBound { column, functions: vec![vec![]] }
    }

    /// The least value that a change still to come may have in the column, in the column's own
    /// unit: microseconds of a timestamp, days of a date.
    pub fn at(&self, watermark: Watermark) -> i64 {
        if watermark == Watermark::END {
            return i64::MAX;
        }
        let value = |steps: &Vec<Step>| steps.iter().fold(watermark.0.0, |v, step| step.apply(v));
        self.functions.iter().map(value).min().unwrap_or(i64::MAX)
    }

    /// The least watermark, in microseconds, with which no change with this value is still to come.
    pub fn closes_at(&self, value: i64) -> i64 {
        let above = value.saturating_add(1);
        let of = |steps: &Vec<Step>| {
            steps.iter().rev().fold(above, |least, step| step.first_reaching(least))
        };
        self.functions.iter().map(of).max().unwrap_or(i64::MIN)
    }

    /// The bound of a column that is computed from this one.
    #[must_use]
    pub fn then(&self, column: usize, steps: &[Step]) -> TimeBound {
        let functions = self.functions.iter().map(|f| f.iter().chain(steps).copied().collect());
        TimeBound { column, functions: functions.collect() }
    }

    /// The same bound for another column.
    #[must_use]
    pub fn moved(&self, column: usize) -> TimeBound {
        TimeBound { column, functions: self.functions.clone() }
    }

    /// Whichever of the two is looser.
    #[must_use]
    pub fn or(mut self, other: &TimeBound) -> TimeBound {
        for function in &other.functions {
            if !self.functions.contains(function) {
                self.functions.push(function.clone());
            }
        }
        self
    }
}

/// The values of a time column as integers in its own unit, with its NULLs; `None` for a column of
/// another type.
pub fn time_values(column: &ArrayRef) -> Option<Int64Array> {
    match column.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Some(column.as_primitive::<TimestampMicrosecondType>().reinterpret_cast())
        }
        DataType::Date32 => {
            let days = column.as_primitive::<Date32Type>();
            let days: arrow::array::Int32Array = days.reinterpret_cast();
            Some(days.unary(i64::from))
        }
        _ => None,
    }
}

/// The values of a watermark's expression. An infinite time says nothing about others: it is NULL
/// here, so that one such row does not make all others late.
pub fn watermark_values(column: &ArrayRef) -> Option<Int64Array> {
    let values = time_values(column)?;
    let ends = match column.data_type() {
        DataType::Date32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => (i64::MIN, i64::MAX),
    };
    let infinite = |value: i64| value == ends.0 || value == ends.1;
    if !values.values().iter().any(|value| infinite(*value)) {
        return Some(values);
    }
    Some(values.unary_opt(|value| (!infinite(value)).then_some(value)))
}

/// Whether a column of this type can have a bound.
pub fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(TimeUnit::Microsecond, _) | DataType::Date32)
}

/// What the output of `node` promises, by ascending column.
pub fn time_bounds(node: &Node) -> Vec<TimeBound> {
    let mut bounds = match node {
        Node::Scan(n) => n.time_bounds.clone(),
        // Its rows are there from the beginning, and none follow.
        Node::Constant(n) => (0..n.rows.num_columns())
            .filter(|column| is_time(n.rows.column(*column).data_type()))
            .map(|column| TimeBound { column, functions: vec![] })
            .collect(),
        Node::Map(n) => {
            let input = time_bounds(&n.input.input);
            match &n.projection {
                None => input,
                Some(exprs) => projected(&input, exprs, &n.input.input.schema()),
            }
        }
        Node::Expand(n) => {
            let input = time_bounds(&n.input.input);
            expanded(&input, &n.projections, &n.input.input.schema())
        }
        Node::Copies(n) => time_bounds(&n.input.input),
        Node::Union(n) => {
            let inputs: Vec<_> = n.inputs.iter().map(|edge| time_bounds(&edge.input)).collect();
            (0..n.schema.fields().len()).filter_map(|column| in_all(&inputs, column)).collect()
        }
        Node::Aggregate(n) => aggregate_bounds(n),
        Node::Join(n) => joined(n),
        Node::TopN(n) => first_rows(n),
        Node::Over(n) => windowed(n),
        Node::Unnest(n) => {
            let input = time_bounds(&n.input.input);
            let columns = n.columns.iter().enumerate();
            let whole = columns.filter_map(|(place, column)| match column {
                UnnestColumn::Whole(column) => Some(find(&input, *column)?.moved(place)),
                UnnestColumn::Elements(list) => Some(elements(n, *list)?.moved(place)),
            });
            whole.collect()
        }
        // What a step derives may be of any time.
        Node::Recursive(_) | Node::Input(_) | Node::Clock(_) => vec![],
        // What was not emitted before the watermark is not behind it.
        Node::WindowClose(n) => time_bounds(&n.input.input),
        Node::Throttle(n) => time_bounds(&n.input.input),
        // Rows of any time come and go as logical time passes.
        Node::TemporalFilter(_) | Node::Retain(_) => vec![],
        Node::Session(n) => in_sessions(n),
        Node::AsofJoin(n) => nearest(n),
        // Left rows pass once, whatever comes on the right.
        Node::LookupJoin(n) => time_bounds(&n.left.input),
        Node::MatchRecognize(n) => matched(n),
    };
    bounds.sort_by_key(|bound| bound.column);
    bounds
}

/// The bound of a list's elements, when the list is computed right below.
fn elements(unnest: &Unnest, list: usize) -> Option<TimeBound> {
    let Node::Map(map) = &*unnest.input.input else { return None };
    let expr = map.projection.as_ref()?.get(list)?;
    let input = time_bounds(&map.input.input);
    let (column, steps) = expr.element_time_steps(&map.input.input.schema())?;
    Some(find(&input, column)?.then(0, &steps))
}

/// What an aggregation's output promises of its keys: by what it forgets groups. Of sessions, as
/// [`Session`]s, the end; of windows that overlap the window.
pub fn aggregate_bounds(node: &Aggregate) -> Vec<TimeBound> {
    let mut input = time_bounds(&node.input.input);
    if let (Phase::Windows { windows, .. }, Some(pane)) = (&node.phase, node.keys.last())
        && let Some(bound) = input.iter().position(|bound| bound.column == *pane)
    {
        let bound = input[bound].then(*pane, &windows.steps());
        // Put together when they close, windows do so whatever other times their keys have.
        input.retain(|other| !node.on_close && other.column != *pane);
        input.push(bound);
    }
    let keys = bounded_keys(&input, &node.keys).map(|(place, bound)| bound.moved(place));
    let end = match node.phase {
        Phase::Sessions { time, .. } => {
            find(&input, time).map(|bound| bound.moved(node.keys.len() + 1))
        }
        _ => None,
    };
    keys.chain(end).collect()
}

/// A change concerns sessions of its own partition that have not ended before it; they may have
/// begun at any time.
fn in_sessions(node: &Session) -> Vec<TimeBound> {
    let input = time_bounds(&node.input.input);
    let end = find(&input, node.time).map(|bound| bound.moved(node.schema.fields().len() - 1));
    let partition = input.into_iter().filter(|bound| node.partition.contains(&bound.column));
    partition.chain(end).collect()
}

/// A change on the right concerns left rows on the near side of it only: later ones, where matches
/// are earlier.
fn nearest(node: &AsofJoin) -> Vec<TimeBound> {
    let (left, right) = (time_bounds(&node.left.input), time_bounds(&node.right.input));
    let both = |(l, r): (usize, usize)| Some(find(&left, l)?.clone().or(find(&right, r)?));
    let times = node.order.looks_back().then_some(node.times);
    let compared = node.keys.iter().copied().chain(times);
    let mut bounds: Vec<TimeBound> = Vec::new();
    for (l, r) in compared {
        if let Some(bound) = both((l, r))
            && find(&bounds, l).is_none()
        {
            bounds.push(bound.moved(l));
        }
    }
    bounds
}

/// Matched at once, a change may change matches of any earlier time. In event time, a match ends at
/// or behind the watermark that the operator announces; with WITHIN, all its rows are at most so
/// much earlier.
fn matched(node: &MatchRecognize) -> Vec<TimeBound> {
    let Some(bound) = &node.closes else { return vec![] };
    let spec = &node.spec;
    let timestamps = matches!(
        node.input.input.schema().field(bound.column).data_type(),
        DataType::Timestamp(TimeUnit::Microsecond, _)
    );
    let earlier = spec.within.filter(|_| timestamps).map(|within| {
        let us = within.duration_us.saturating_neg();
        bound.then(bound.column, &[Step::Shift { months: 0, us }])
    });
    let of = |column: &MatchColumn| match column {
        MatchColumn::Input(column) if *column == bound.column => earlier.as_ref(),
        MatchColumn::Input(_) => None,
        MatchColumn::Read(read) => match &spec.reads[*read] {
            Read::Row(row) if row.value != RowValue::Column(bound.column) || row.shift != 0 => None,
            Read::Row(row) => {
                let last = row.of == Variables::ALL && row.from_last && row.offset == 0;
                if last && !row.running { Some(bound) } else { earlier.as_ref() }
            }
            _ => None,
        },
    };
    let columns = spec.columns.iter().enumerate();
    columns.filter_map(|(place, column)| Some(of(column)?.moved(place))).collect()
}

/// The bound of the time that rows of a pattern are sorted by: they can be matched in event time.
pub fn closing_time(node: &MatchRecognize) -> Option<TimeBound> {
    let first = node.spec.order_by.first()?;
    let in_time = !first.descending && !first.nulls_first;
    find(&time_bounds(&node.input.input), first.column).filter(|_| in_time).cloned()
}

/// The bound of a column, if it has one.
pub fn find(bounds: &[TimeBound], column: usize) -> Option<&TimeBound> {
    bounds.iter().find(|bound| bound.column == column)
}

/// The bounds of columns that are computed.
pub fn projected(input: &[TimeBound], exprs: &[Expr], schema: &Schema) -> Vec<TimeBound> {
    let of = |(place, expr): (usize, &Expr)| {
        computed(input, expr, schema).map(|bound| bound.moved(place))
    };
    exprs.iter().enumerate().filter_map(of).collect()
}

fn computed(input: &[TimeBound], expr: &Expr, schema: &Schema) -> Option<TimeBound> {
    // Most plans have no bounds, and expressions are tried out to be recognised.
    if !expr.input_columns().iter().any(|column| find(input, *column).is_some()) {
        return None;
    }
    if let Some((column, steps)) = expr.time_steps(schema) {
        return Some(find(input, column)?.then(0, &steps));
    }
    // One of several times is at least the least of their bounds.
    let mut bound: Option<TimeBound> = None;
    for choice in expr.time_choices().iter().filter(|choice| !choice.is_null()) {
        let other = computed(input, choice, schema)?;
        bound = Some(match bound {
            None => other,
            Some(bound) => bound.or(&other),
        });
    }
    bound
}

/// Each row is there once per projection: the bound must hold for all of them. What is NULL in
/// one has no time there.
fn expanded(input: &[TimeBound], projections: &[Vec<Expr>], schema: &Schema) -> Vec<TimeBound> {
    let width = projections.first().map_or(0, Vec::len);
    let of = |place: usize| {
        let mut bound: Option<TimeBound> = None;
        for exprs in projections.iter().filter(|exprs| !exprs[place].is_null()) {
            let other = computed(input, &exprs[place], schema)?;
            bound = Some(match bound {
                None => other,
                Some(bound) => bound.or(&other),
            });
        }
        bound.map(|bound| bound.moved(place))
    };
    (0..width).filter_map(of).collect()
}

/// The bound of a column that all inputs bound.
fn in_all(inputs: &[Vec<TimeBound>], column: usize) -> Option<TimeBound> {
    let (first, others) = inputs.split_first()?;
    let mut bound = find(first, column)?.clone();
    for other in others {
        bound = bound.or(find(other, column)?);
    }
    Some(bound)
}

/// A change on either side meets rows of any age on the other one, but for what the condition asks:
/// columns that the keys make equal stay bounded, by whichever bound is looser, and so do times that
/// it asks to be at least a time of the other side, less some length.
fn joined(join: &Join) -> Vec<TimeBound> {
    let sides = [time_bounds(&join.left.input), time_bounds(&join.right.input)];
    let width = join.left.input.schema().fields().len();
    let mut bounds: Vec<TimeBound> = Vec::new();
    let has_right = !matches!(join.kind, JoinKind::LeftSemi | JoinKind::LeftAnti);
    let mut add = |side: usize, column: usize, bound: TimeBound| {
        let column = if side == 0 { column } else { width + column };
        if (side == 0 || has_right) && find(&bounds, column).is_none() {
            bounds.push(bound.moved(column));
        }
    };
    for (l, r) in &join.keys {
        let (Some(on_left), Some(on_right)) = (find(&sides[0], *l), find(&sides[1], *r)) else {
            continue;
        };
        let both = on_left.clone().or(on_right);
        add(0, *l, both.clone());
        add(1, *r, both);
    }
    let schemas = [join.left.input.schema(), join.right.input.schema()];
    for (side, expiries) in expiries_within(join, &sides).into_iter().enumerate() {
        for Expiry { value, bound } in expiries {
            let Some((column, steps)) = value.time_steps(&schemas[side]) else { continue };
            let later_us = steps.iter().try_fold(0_i64, |sum, step| match step {
                Step::Shift { months: 0, us } => sum.checked_add(*us),
                _ => None,
            });
            if let (Some(own), Some(us)) = (find(&sides[side], column), later_us) {
                let met = bound.then(column, &[Step::Shift { months: 0, us: -us }]);
                add(side, column, own.clone().or(&met));
            }
        }
    }
    bounds
}

/// When a row of one side of a join can meet no change of the other side any more.
#[derive(Clone, Debug, PartialEq)]
pub struct Expiry {
    /// Of the side's columns.
    pub value: Expr,
    /// What changes of the other side are not below, of the other side's watermark: the row meets
    /// none of them when its value is.
    pub bound: TimeBound,
}

/// A key of a join that is a time which both sides bound.
#[derive(Clone, Debug, PartialEq)]
pub struct TimedKey {
    /// Which of the keys.
    pub key: usize,
    /// What the left input promises of it, and the right one.
    pub bounds: [TimeBound; 2],
}

/// Keys by which rows of both sides are forgotten together: nothing comes with a time that both
/// sides are past.
pub fn timed_keys(join: &Join) -> Vec<TimedKey> {
    let (left, right) = (time_bounds(&join.left.input), time_bounds(&join.right.input));
    let both = |(key, (l, r)): (usize, &(usize, usize))| {
        let bounds = [find(&left, *l)?.clone(), find(&right, *r)?.clone()];
        Some(TimedKey { key, bounds })
    };
    join.keys.iter().enumerate().filter_map(both).collect()
}

/// Whether rows of the left side, and of the right side, are forgotten when they are too old.
pub fn rows_age(join: &Join) -> [bool; 2] {
    if !timed_keys(join).is_empty() {
        return [true, true];
    }
    let [left, right] = expiries(join);
    let ages = |expiries: Vec<Expiry>, input: &Node| {
        !expiries.is_empty() && (input.append_only() || !time_bounds(input).is_empty())
    };
    [ages(left, &join.left.input), ages(right, &join.right.input)]
}

/// What tells of the left side's rows that they are too old, and of the right side's: where the
/// condition asks for `a.expires >= b.ts`, a row of `a` that expires before the watermark of `b`.
pub fn expiries(join: &Join) -> [Vec<Expiry>; 2] {
    if join.residual.is_none() {
        return [vec![], vec![]];
    }
    let bounds = [time_bounds(&join.left.input), time_bounds(&join.right.input)];
    expiries_within(join, &bounds)
}

/// The same, of what the inputs are known to promise.
fn expiries_within(join: &Join, bounds: &[Vec<TimeBound>; 2]) -> [Vec<Expiry>; 2] {
    let Some(residual) = &join.residual else { return [vec![], vec![]] };
    let schemas = [join.left.input.schema(), join.right.input.schema()];
    let width = schemas[0].fields().len();
    let both = schemas.iter().flat_map(|schema| schema.fields().iter().cloned());
    let both = Schema::new(both.collect::<Vec<_>>());
    let ranges = [0..width, width..both.fields().len()];
    let over = |side: usize, expr: &Expr| -> Option<Expr> {
        let used = expr.input_columns();
        let own = !used.is_empty() && used.iter().all(|column| ranges[side].contains(column));
        let columns: Vec<usize> = ranges[side].clone().collect();
        own.then(|| expr.over_columns(&columns).ok()).flatten()
    };
    let mut found = [vec![], vec![]];
    for inequality in residual.inequalities(&both) {
        for side in [0, 1] {
            let (own, other) =
                (over(side, &inequality.greater), over(1 - side, &inequality.lesser));
            let (Some(value), Some(lesser)) = (own, other) else { continue };
            let same = value.data_type() == lesser.data_type() && is_time(value.data_type());
            let bound = computed(&bounds[1 - side], &lesser, &schemas[1 - side]);
            if let (true, Some(bound)) = (same, bound) {
                found[side].push(Expiry { value, bound });
            }
        }
    }
    found
}

/// A change concerns rows of its own partition that do not sort before it.
fn first_rows(node: &TopN) -> Vec<TimeBound> {
    let input = time_bounds(&node.input.input);
    let first = node.order_by.first().filter(|sort| !sort.descending && !sort.nulls_first);
    input
        .into_iter()
        .filter(|bound| {
            node.partition.contains(&bound.column)
                || first.is_some_and(|sort| sort.column == bound.column)
        })
        .collect()
}

/// A change concerns rows of its own partition; when none of them look ahead, not those that sort
/// before it.
fn windowed(node: &Over) -> Vec<TimeBound> {
    let input = time_bounds(&node.input.input);
    let looks_back = node
        .calls
        .iter()
        .all(|call| matches!(call.following, Distance::Rows(0) | Distance::Groups(0)));
    let first =
        node.order_by.first().filter(|sort| looks_back && !sort.descending && !sort.nulls_first);
    input
        .into_iter()
        .filter(|bound| {
            node.partition.contains(&bound.column)
                || first.is_some_and(|sort| sort.column == bound.column)
        })
        .collect()
}

/// The column in whose order rows stand, when rows behind its bound are forgotten: no call looks to
/// an end of the partition.
pub fn settling_order(node: &Over) -> Option<usize> {
    let first = node.order_by.first().filter(|sort| !sort.descending && !sort.nulls_first)?;
    let reach = |call: &crate::plan::window::WindowCall| {
        [&call.preceding, &call.following].iter().all(|d| **d != Distance::Unbounded)
    };
    let bounds = time_bounds(&node.input.input);
    (node.calls.iter().all(reach) && find(&bounds, first.column).is_some()).then_some(first.column)
}

/// The keys of a list that have a bound: what an operator can forget its state by.
pub fn bounded_keys(
    bounds: &[TimeBound],
    keys: &[usize],
) -> impl Iterator<Item = (usize, TimeBound)> {
    let of = |(place, key): (usize, &usize)| Some((place, find(bounds, *key)?.clone()));
    keys.iter().enumerate().filter_map(of)
}

/// Whether the steps compute what the expression does, for times of all seasons of a century:
/// names of functions alone do not say what a time zone makes of them.
pub(super) fn agrees(
    steps: &[Step],
    input: &DataType,
    evaluate: &dyn Fn(ArrayRef) -> Option<ArrayRef>,
) -> bool {
    /// An odd number of seconds: every hour, weekday and month comes up.
    const PROBE_STRIDE_US: i64 = 1_618_033 * 1_000_000 + 987_654;
    const PROBES: i64 = 1_500;
    let (times, probes): (ArrayRef, Vec<i64>) = match input {
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let probes: Vec<i64> = (-100..PROBES).map(|n| n * PROBE_STRIDE_US).collect();
            let times = TimestampMicrosecondArray::from(probes.clone());
            (std::sync::Arc::new(times.with_timezone_opt(zone.clone())), probes)
        }
        DataType::Date32 => {
            let days: Vec<i32> = (-100..PROBES as i32).map(|n| n * 19 + 1).collect();
            let probes = days.iter().map(|day| i64::from(*day)).collect();
            (std::sync::Arc::new(Date32Array::from(days)), probes)
        }
        _ => return false,
    };
    let Some(values) = evaluate(times).as_ref().and_then(time_values) else { return false };
    arrow::array::Array::null_count(&values) == 0
        && values.len() == probes.len()
        && values
            .values()
            .iter()
            .zip(&probes)
            .all(|(value, probe)| *value == steps.iter().fold(*probe, |v, step| step.apply(v)))
}

fn shift_months(us: i64, months: i32) -> i64 {
    if months == 0 {
        return us;
    }
    let Some(time) = chrono::DateTime::from_timestamp_micros(us) else { return us };
    let by = chrono::Months::new(months.unsigned_abs());
    let shifted =
        if months > 0 { time.checked_add_months(by) } else { time.checked_sub_months(by) };
    shifted.map_or(if months > 0 { i64::MAX } else { i64::MIN }, |time| time.timestamp_micros())
}

fn floor_months(us: i64, every: i32) -> i64 {
    use chrono::Datelike;
    let Some(time) = chrono::DateTime::from_timestamp_micros(us) else { return us };
    let months = time.year() * 12 + time.month0() as i32;
    let floor = months.div_euclid(every) * every;
    let (year, month) = (floor.div_euclid(12), floor.rem_euclid(12) as u32 + 1);
    chrono::NaiveDate::from_ymd_opt(year, month, 1)
        .and_then(|date| date.and_hms_opt(0, 0, 0))
        .map_or(us, |time| time.and_utc().timestamp_micros())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::time::EventTime;

    const SECOND: i64 = 1_000_000;
    const HOUR: i64 = 3_600 * SECOND;

    fn at(functions: Vec<Vec<Step>>, watermark: i64) -> i64 {
        TimeBound { column: 0, functions }.at(Watermark(EventTime(watermark)))
    }

    #[test]
    fn a_window_closes_when_its_end_is_reached() {
        let start = vec![Step::Bin { stride_us: HOUR, origin_us: 0 }];
        let end = [start.clone(), vec![Step::Shift { months: 0, us: HOUR }]].concat();
        // The window from 1:00 to 2:00 has the start 1 h and the end 2 h.
        for (watermark, closed) in [(2 * HOUR - 1, false), (2 * HOUR, true)] {
            assert_eq!(HOUR < at(vec![start.clone()], watermark), closed);
            assert_eq!(2 * HOUR < at(vec![end.clone()], watermark), closed);
        }
    }

    #[test]
    fn a_value_closes_with_the_first_watermark_that_passes_it() {
        let day = 24 * HOUR;
        let steps = [
            vec![],
            vec![Step::Bin { stride_us: HOUR, origin_us: 7 }],
            vec![Step::Bin { stride_us: HOUR, origin_us: 0 }, Step::Shift { months: 0, us: HOUR }],
            vec![
                Step::Shift { months: 0, us: -1 },
                Step::Bin { stride_us: 3 * HOUR, origin_us: 0 },
            ],
            vec![Step::Months { every: 3 }],
            vec![Step::Shift { months: -1, us: 5 }],
            vec![Step::Date],
            vec![Step::Date, Step::Midnight],
        ];
        for steps in steps {
            let bound = TimeBound { column: 0, functions: vec![steps.clone()] };
            let values = match steps.contains(&Step::Date) && steps.len() == 1 {
                true => vec![-3, 0, 1, 40],
                false => vec![-day, -1, 0, 1, HOUR, 3 * HOUR, 3 * HOUR + 7, 31 * day, 400 * day],
            };
            for value in values {
                let at = bound.closes_at(value);
                assert!(value < bound.at(Watermark(EventTime(at))), "{steps:?} of {value}");
                assert!(value >= bound.at(Watermark(EventTime(at - 1))), "{steps:?} of {value}");
            }
        }
        let both =
            TimeBound { column: 0, functions: vec![vec![], vec![Step::Date, Step::Midnight]] };
        assert_eq!(both.closes_at(5), day);
        assert_eq!(TimeBound { column: 0, functions: vec![] }.closes_at(5), i64::MIN);
    }

    #[test]
    fn bounds_before_1970_round_down() {
        let bin = Step::Bin { stride_us: HOUR, origin_us: 0 };
        assert_eq!(at(vec![vec![bin]], -1), -HOUR);
        assert_eq!(at(vec![vec![Step::Date]], -1), -1);
    }

    #[test]
    fn the_looser_bound_counts_and_the_end_closes_everything() {
        let earlier = vec![Step::Shift { months: 0, us: -HOUR }];
        assert_eq!(at(vec![vec![], earlier.clone()], 5 * HOUR), 4 * HOUR);
        assert_eq!(at(vec![], 0), i64::MAX);
        assert_eq!(at(vec![earlier], i64::MAX), i64::MAX);
    }

    #[test]
    fn months_are_the_calendars() {
        let day = 24 * HOUR;
        // 1970-03-31 a month earlier is the last of February.
        let march_31 = (31 + 28 + 30) * day;
        assert_eq!(Step::Shift { months: -1, us: 0 }.apply(march_31), (31 + 27) * day);
        assert_eq!(Step::Months { every: 1 }.apply(march_31 + 5), (31 + 28) * day);
        assert_eq!(Step::Months { every: 3 }.apply(march_31), 0);
        assert_eq!(Step::Months { every: 12 }.apply(-1), -365 * day);
    }
}
