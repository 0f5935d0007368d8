//! A plan as text: one line per operator, inputs indented below it.
//!
//! A line says what the operator does, whether its output only grows (`append-only`) or takes rows
//! back (`retracts`), and what it keeps. What is read twice is written once. An edge that sends rows to other workers is a line of its
//! own, `Exchange`.

use std::fmt;

use arrow::datatypes::SchemaRef;

use crate::plan::event_time::{
    aggregate_bounds, bounded_keys, find, rows_age, settling_order, time_bounds,
};
use crate::plan::index_join::indexed_side;
use crate::plan::match_recognize::program::Program;
use crate::plan::match_recognize::{MatchSpec, PatternText};
use crate::plan::node::{
    Aggregate, AsofJoin, Constant, Edge, Exchange, Join, JoinKind, LookupJoin, Map, MatchRecognize,
    Node, Over, Phase, Plan, RankFunction, Recursive, Scan, Session, SortColumn, TopN, Union,
    Unnest, UnnestColumn,
};
use crate::plan::operators::{number, operators};
use crate::plan::overlap::{ManyWindows, WindowKind};
use crate::types::time::EventDuration;

/// Two spaces a level.
const INDENT: &str = "  ";
/// Constants show this many rows.
const CONSTANT_ROWS_MAX: usize = 3;
/// Longer automata are not written out.
const AUTOMATON_STEPS_MAX: usize = 24;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Explained { plan: self, verbose: false, notes: None }, f)
    }
}

/// What is said of an operator beside the plan.
#[derive(Clone, Debug, Default)]
pub struct Note {
    /// Behind it.
    pub behind: String,
    /// Lines below it.
    pub below: Vec<String>,
}

/// A plan as text with more than it says by itself.
pub struct Explained<'a> {
    pub plan: &'a Plan,
    /// Says why operators keep what they keep.
    pub verbose: bool,
    /// One for each operator, by number (`plan::operators`), and one for the result.
    pub notes: Option<&'a [Note]>,
}

impl fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbered = operators(self.plan);
        let root = &self.plan.root;
        match &self.plan.unique_key {
            Some(key) => write!(f, "Result by key {}", names(&root.schema(), key))?,
            None => write!(f, "Result by whole row")?,
        }
        let result = self.notes.and_then(|notes| notes.get(numbered.len()));
        write_note(f, result, 1)?;
        let mut written = Written { nodes: Vec::new(), explained: self, numbered };
        write_node(f, root, 1, &mut written)
    }
}

/// What has been written, and what is to be added.
struct Written<'plan, 'a> {
    /// Nodes with state so far: an equal one is the same operator.
    nodes: Vec<&'plan Node>,
    explained: &'a Explained<'a>,
    numbered: Vec<&'a Node>,
}

impl<'a> Written<'_, 'a> {
    fn note(&self, node: &Node) -> Option<&'a Note> {
        self.explained.notes?.get(number(&self.numbered, node)?)
    }
}

/// Ends an operator's line.
fn write_note(f: &mut fmt::Formatter<'_>, note: Option<&Note>, level: usize) -> fmt::Result {
    let Some(note) = note else { return writeln!(f) };
    writeln!(f, "{}", note.behind)?;
    for line in &note.below {
        writeln!(f, "{}{line}", INDENT.repeat(level + 1))?;
    }
    Ok(())
}

/// One operator in one line, without its inputs.
pub fn describe(node: &Node) -> String {
    struct Head<'a>(&'a Node);
    impl fmt::Display for Head<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write_head(f, self.0)
        }
    }
    Head(node).to_string()
}

fn write_head(f: &mut fmt::Formatter<'_>, node: &Node) -> fmt::Result {
    match node {
        Node::Scan(n) => write_scan(f, n)?,
        Node::Constant(n) => write_constant(f, n)?,
        Node::Map(n) => write_map(f, n)?,
        Node::Expand(n) => write!(f, "Expand to {} grouping sets", n.projections.len())?,
        Node::Copies(n) => {
            write!(f, "Copies: {}", n.input.input.schema().field(n.count).name())?;
        }
        Node::Union(n) => write_union(f, n)?,
        Node::Aggregate(n) => write_aggregate(f, n)?,
        Node::Join(n) => write_join(f, n)?,
        Node::TopN(n) => write_top_n(f, n)?,
        Node::Over(n) => write_over(f, n)?,
        Node::Session(n) => write_session(f, n)?,
        Node::MatchRecognize(n) => write_match_recognize(f, n)?,
        Node::AsofJoin(n) => write_asof_join(f, n)?,
        Node::LookupJoin(n) => write_lookup_join(f, n)?,
        Node::Recursive(n) => write_recursive(f, n)?,
        Node::Unnest(n) => write_unnest(f, n)?,
        Node::Input(n) => write!(f, "Input {}: {}", n.port, n.name)?,
        Node::Clock(_) => f.write_str("Clock")?,
        Node::WindowClose(n) => {
            let schema = n.input.input.schema();
            write!(f, "WindowClose by {}", schema.field(n.bound.column).name())?;
        }
        Node::Throttle(n) => {
            write!(f, "Throttle: changes every {}", seconds(EventDuration(n.every_us)))?
        }
        Node::TemporalFilter(n) => {
            write!(f, "TemporalFilter where {}", n.display)?;
        }
        Node::Retain(n) => write!(f, "Retain for {}", seconds(EventDuration(n.keep_us)))?,
    }
    Ok(())
}

fn write_node<'plan>(
    f: &mut fmt::Formatter<'_>,
    node: &'plan Node,
    level: usize,
    written: &mut Written<'plan, '_>,
) -> fmt::Result {
    write!(f, "{}", INDENT.repeat(level))?;
    write_head(f, node)?;
    if let Node::Input(_) = node {
        return writeln!(f);
    }
    if node.keeps_state() && written.nodes.contains(&node) {
        return f.write_str(" | the same as above\n");
    }
    if node.keeps_state() {
        written.nodes.push(node);
    }
    f.write_str(if node.append_only() { " | append-only" } else { " | retracts" })?;
    if let Some(kept) = kept(node) {
        write!(f, " | keeps {kept}")?;
    }
    write_note(f, written.note(node), level)?;
    if let Some(why) = why(node)
        && written.explained.verbose
    {
        writeln!(f, "{}because {why}", INDENT.repeat(level + 1))?;
    }
    if let Node::MatchRecognize(n) = node {
        write_automaton(f, &n.spec, &INDENT.repeat(level + 1))?;
    }
    if let Node::Recursive(n) = node {
        writeln!(f, "{}Step", INDENT.repeat(level + 1))?;
        write_node(f, &n.step, level + 2, written)?;
    }
    for edge in node.inputs() {
        write_edge(f, edge, level + 1, written)?;
    }
    Ok(())
}

fn write_edge<'plan>(
    f: &mut fmt::Formatter<'_>,
    edge: &'plan Edge,
    level: usize,
    written: &mut Written<'plan, '_>,
) -> fmt::Result {
    let indent = INDENT.repeat(level);
    match &edge.exchange {
        Exchange::Local => return write_node(f, &edge.input, level, written),
        Exchange::Hash(columns) => {
            let columns = names(&edge.input.schema(), columns);
            writeln!(f, "{indent}Exchange by hash of {columns}")?;
        }
        Exchange::Single => writeln!(f, "{indent}Exchange to one worker")?,
    }
    write_node(f, &edge.input, level + 1, written)
}

/// What an operator holds from one epoch to the next; `None`: nothing.
fn kept(node: &Node) -> Option<String> {
    match node {
        Node::Scan(_)
        | Node::Constant(_)
        | Node::Map(_)
        | Node::Expand(_)
        | Node::Copies(_)
        | Node::Union(_)
        | Node::Unnest(_)
        | Node::Clock(_)
        | Node::Input(_) => None,
        Node::Recursive(n) if n.distinct => {
            Some("each derived row with the iterations that derive it".to_owned())
        }
        Node::Recursive(_) => None,
        Node::Aggregate(n) if matches!(n.phase, Phase::Sessions { .. }) => {
            Some(match closing_key(n) {
                Some(_) => "one row per session until the watermark passes its end".to_owned(),
                None => "one row per session".to_owned(),
            })
        }
        Node::Aggregate(n) if n.calls.is_empty() && closing_key(n).is_none() => {
            Some("each distinct row once".to_owned())
        }
        Node::Aggregate(n) if n.keys.is_empty() => Some("one row".to_owned()),
        Node::Aggregate(n) if n.on_close && matches!(n.phase, Phase::Windows { .. }) => {
            Some("the sums of each pane until the watermark passes its last window".to_owned())
        }
        Node::Aggregate(n) => Some(match closing_key(n) {
            Some(name) => format!("one row per group until the watermark passes {name}"),
            None => "one row per group".to_owned(),
        }),
        Node::WindowClose(_) => Some("the rows of open windows".to_owned()),
        Node::Throttle(_) => Some("the changes of one interval".to_owned()),
        Node::TemporalFilter(_) => Some("rows that will enter or leave".to_owned()),
        Node::Retain(_) => Some("the rows that are there".to_owned()),
        Node::Join(n) => Some(kept_by_join(n)),
        Node::TopN(n) => {
            let shown = n.input.input.append_only() && n.limit.is_some();
            let rows = if shown { "the rows that show" } else { "all rows, in order" };
            Some(format!("{rows}{}", until_passed(&n.input.input, &n.partition)))
        }
        Node::Over(n) => Some(kept_by_over(n)),
        Node::Session(n) if find(&time_bounds(&n.input.input), n.time).is_some() => {
            Some("rows, in order, until the watermark passes their session's end".to_owned())
        }
        Node::MatchRecognize(n) if n.closes.is_some() => Some(match n.spec.within {
            Some(_) => "rows of partial matches until the watermark ends them".to_owned(),
            None => "rows of partial matches".to_owned(),
        }),
        Node::MatchRecognize(n) if n.settles.is_some() => {
            Some("rows that may change, and those of partial matches, in order".to_owned())
        }
        Node::Session(_) | Node::MatchRecognize(_) => Some("all rows, in order".to_owned()),
        Node::AsofJoin(n)
            if find(&time_bounds(&n.left.input), n.times.0).is_some()
                && find(&time_bounds(&n.right.input), n.times.1).is_some() =>
        {
            Some("rows of both inputs, in order, until both watermarks pass them".to_owned())
        }
        Node::AsofJoin(_) => Some("all rows of both inputs, in order".to_owned()),
        Node::LookupJoin(_) => Some("all rows of the right input".to_owned()),
    }
}

/// The key by which an aggregation forgets groups.
fn closing_key(aggregate: &Aggregate) -> Option<String> {
    let bound = aggregate_bounds(aggregate).into_iter().next()?;
    Some(aggregate.schema.field(bound.column).name().clone())
}

/// ` until the watermark passes w`, where partitions have a time that it passes; or nothing.
fn until_passed(input: &Node, partition: &[usize]) -> String {
    let closing = bounded_keys(&time_bounds(input), partition).next();
    closing.map_or(String::new(), |(place, _)| {
        let schema = input.schema();
        let name = schema.field(partition[place]).name();
        format!(" until the watermark passes {name}")
    })
}

fn kept_by_over(over: &Over) -> String {
    let until = until_passed(&over.input.input, &over.partition);
    if until.is_empty()
        && let Some(column) = settling_order(over)
    {
        let schema = over.input.input.schema();
        let name = schema.field(column).name();
        return format!("rows, in order, until no row behind the watermark of {name} sees them");
    }
    format!("all rows, in order{until}")
}

fn kept_by_join(join: &Join) -> String {
    if let Some((port, scan)) = indexed_side(join) {
        let (kept, shared) = if port == 0 { ("right", "left") } else { ("left", "right") };
        let index = &scan.name;
        return format!("all rows of the {kept} input; those of the {shared} are in index {index}");
    }
    let until = "until the other watermark passes what they could meet";
    match rows_age(join) {
        [true, true] => format!("rows of both inputs {until}"),
        [true, false] => format!("all rows of the right input, of the left {until}"),
        [false, true] => format!("all rows of the left input, of the right {until}"),
        [false, false] => "all rows of both inputs".to_owned(),
    }
}

/// Why it holds that; `None` where it holds nothing.
fn why(node: &Node) -> Option<&'static str> {
    Some(match node {
        Node::Scan(_)
        | Node::Constant(_)
        | Node::Map(_)
        | Node::Expand(_)
        | Node::Copies(_)
        | Node::Union(_)
        | Node::Unnest(_)
        | Node::Clock(_)
        | Node::Input(_) => return None,
        Node::Recursive(n) if n.distinct => {
            "a row goes when the last of its derivations goes, and must not be derived by itself"
        }
        Node::Recursive(_) => return None,
        Node::Aggregate(n) if matches!(n.phase, Phase::Partial) => {
            "the rows of an epoch are summed up before they go to other workers"
        }
        Node::Aggregate(n) if n.calls.is_empty() => "a row that is there is not given twice",
        Node::Aggregate(n) if n.append_only => "the next row of a group changes its values",
        Node::Aggregate(_) => "a row that comes or goes changes its group's values",
        Node::Join(_) => "a later row of either input may match any of them",
        Node::TopN(n) if n.input.input.append_only() && n.limit.is_some() => {
            "a later row may push them out; what is pushed out never comes back"
        }
        Node::TopN(_) => "when a row that shows goes, the next one takes its place",
        Node::Over(_) => "a row that comes or goes changes what its neighbours see",
        Node::Session(_) => "a row that comes or goes may join sessions, or part them",
        Node::LookupJoin(_) => "a later row of the left input may look any of them up",
        Node::WindowClose(_) => "they may change until the watermark passes them",
        Node::Throttle(_) => "they leave together when the interval is over",
        Node::TemporalFilter(_) => "time alone lets them in or takes them out",
        Node::Retain(_) => "each goes when it has been there long enough",
        Node::MatchRecognize(n) if n.closes.is_some() => "a later row may go on with them",
        Node::MatchRecognize(_) => "a row that comes or goes may change any match behind it",
        Node::AsofJoin(_) => "a later row of either input may be the nearest of any of them",
    })
}

/// `(a, b)`, or `a` for a single one.
fn names(schema: &SchemaRef, columns: &[usize]) -> String {
    let names: Vec<&str> = columns.iter().map(|c| schema.field(*c).name().as_str()).collect();
    match names.as_slice() {
        [one] => (*one).to_owned(),
        many => format!("({})", many.join(", ")),
    }
}

fn all_names(schema: &SchemaRef) -> String {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    format!("({})", names.join(", "))
}

fn write_scan(f: &mut fmt::Formatter<'_>, scan: &Scan) -> fmt::Result {
    if let Some(index) = &scan.index {
        let columns = all_names(&scan.schema);
        return write!(f, "Scan {} by index {} {columns}", index.relation_name, scan.name);
    }
    let shared = if scan.shared { ", shared" } else { "" };
    write!(f, "Scan {}{shared} {}", scan.name, all_names(&scan.schema))
}

fn write_constant(f: &mut fmt::Formatter<'_>, constant: &Constant) -> fmt::Result {
    let rows = constant.rows.num_rows();
    write!(f, "Constant {}", all_names(&constant.rows.schema()))?;
    if rows > CONSTANT_ROWS_MAX {
        return write!(f, ": {rows} rows");
    }
    for row in 0..rows {
        f.write_str(if row == 0 { ": " } else { ", " })?;
        let values: Vec<String> = constant
            .rows
            .columns()
            .iter()
            .map(|column| {
                arrow::util::display::array_value_to_string(column, row)
                    .unwrap_or_else(|_| "?".to_owned())
            })
            .collect();
        write!(f, "({})", values.join(", "))?;
    }
    Ok(())
}

fn write_map(f: &mut fmt::Formatter<'_>, map: &Map) -> fmt::Result {
    f.write_str("Map")?;
    if let Some(projection) = &map.projection {
        let columns: Vec<String> = projection
            .iter()
            .zip(map.schema.fields())
            .map(|(expr, field)| {
                let text = expr.to_string();
                if text == *field.name() { text } else { format!("{text} AS {}", field.name()) }
            })
            .collect();
        write!(f, " ({})", columns.join(", "))?;
    }
    if let Some(filter) = &map.filter {
        write!(f, " where {filter}")?;
    }
    Ok(())
}

fn write_union(f: &mut fmt::Formatter<'_>, union: &Union) -> fmt::Result {
    write!(f, "Union of {}", union.inputs.len())
}

fn write_aggregate(f: &mut fmt::Formatter<'_>, aggregate: &Aggregate) -> fmt::Result {
    let input = aggregate.input.input.schema();
    if matches!(aggregate.phase, Phase::Partial) {
        f.write_str("Partial ")?;
    }
    if let Phase::Sessions { time, gap } = &aggregate.phase {
        f.write_str("Aggregate sessions")?;
        if !aggregate.keys.is_empty() {
            write!(f, " by {}", names(&input, &aggregate.keys))?;
        }
        let time = input.field(*time).name();
        write!(f, " of {time} with gap {}", seconds(*gap))?;
        for (place, call) in aggregate.calls.iter().enumerate() {
            write!(f, "{}{}", if place == 0 { ": " } else { ", " }, call.display)?;
        }
        return if aggregate.on_close { f.write_str(", when it closes") } else { Ok(()) };
    }
    let calls: Vec<&str> = aggregate.calls.iter().map(|call| call.display.as_str()).collect();
    if let Phase::Windows { windows, .. } = &aggregate.phase {
        let ManyWindows { kind, step_us, size_us, .. } = windows;
        let kind = match kind {
            WindowKind::Hop => "HOP",
            WindowKind::Cumulate => "CUMULATE",
        };
        let [step, size] = [*step_us, *size_us].map(|us| seconds(EventDuration(us)));
        write!(f, "Aggregate {kind} {step}, {size}")?;
        if let Some((_, keys)) = aggregate.keys.split_last().filter(|(_, keys)| !keys.is_empty()) {
            write!(f, " by {}", names(&input, keys))?;
        }
        write!(f, ": {}", calls.join(", "))?;
        return if aggregate.on_close { f.write_str(", when it closes") } else { Ok(()) };
    }
    match (aggregate.keys.as_slice(), calls.as_slice()) {
        (keys, []) => write!(f, "Distinct {}", names(&input, keys)),
        ([], calls) => write!(f, "Aggregate: {}", calls.join(", ")),
        (keys, calls) => {
            write!(f, "Aggregate by {}: {}", names(&input, keys), calls.join(", "))
        }
    }?;
    if aggregate.on_close { f.write_str(", when it closes") } else { Ok(()) }
}

fn write_join(f: &mut fmt::Formatter<'_>, join: &Join) -> fmt::Result {
    let kind = match join.kind {
        JoinKind::Inner => "inner",
        JoinKind::Left => "left",
        JoinKind::Right => "right",
        JoinKind::Full => "full",
        JoinKind::LeftSemi => "semi",
        JoinKind::LeftAnti => "anti",
    };
    write!(f, "Join {kind}")?;
    let (left, right) = (join.left.input.schema(), join.right.input.schema());
    let equal = if join.null_equals_null { "IS NOT DISTINCT FROM" } else { "=" };
    let mut conditions: Vec<String> = join
        .keys
        .iter()
        .map(|(l, r)| format!("{} {equal} {}", left.field(*l).name(), right.field(*r).name()))
        .collect();
    conditions.extend(join.residual.iter().map(ToString::to_string));
    if conditions.is_empty() {
        return f.write_str(" of every pair");
    }
    write!(f, " on {}", conditions.join(" AND "))
}

/// `by p order by a, b desc`; with a blank before it, or nothing.
fn partition_and_order(input: &SchemaRef, partition: &[usize], order_by: &[SortColumn]) -> String {
    let mut text = String::new();
    if !partition.is_empty() {
        text.push_str(&format!(" by {}", names(input, partition)));
    }
    if !order_by.is_empty() {
        text.push_str(" order by ");
        let columns: Vec<String> = order_by.iter().map(|sort| sort_text(input, sort)).collect();
        text.push_str(&columns.join(", "));
    }
    text
}

/// NULLs are named where they do not stand where SQL puts them.
fn sort_text(input: &SchemaRef, sort: &SortColumn) -> String {
    let mut text = input.field(sort.column).name().clone();
    if sort.descending {
        text.push_str(" desc");
    }
    match (sort.descending, sort.nulls_first) {
        (false, true) => text.push_str(" nulls first"),
        (true, false) => text.push_str(" nulls last"),
        (false, false) | (true, true) => {}
    }
    text
}

fn write_top_n(f: &mut fmt::Formatter<'_>, top_n: &TopN) -> fmt::Result {
    let counted = match top_n.rank {
        RankFunction::RowNumber => "rows",
        RankFunction::Rank => "ranks",
        RankFunction::DenseRank => "dense ranks",
    };
    let input = top_n.input.input.schema();
    write!(f, "TopN{}", partition_and_order(&input, &top_n.partition, &top_n.order_by))?;
    match (top_n.limit, top_n.offset) {
        (Some(limit), 0) => write!(f, ": the first {limit} {counted}")?,
        (Some(limit), offset) => write!(f, ": {limit} {counted} after the first {offset}")?,
        (None, offset) => write!(f, ": all {counted} after the first {offset}")?,
    }
    if top_n.numbered { f.write_str(", numbered") } else { Ok(()) }
}

fn write_over(f: &mut fmt::Formatter<'_>, over: &Over) -> fmt::Result {
    let calls: Vec<&str> = over.calls.iter().map(|call| call.display.as_str()).collect();
    let input = over.input.input.schema();
    let window = partition_and_order(&input, &over.partition, &over.order_by);
    write!(f, "Over{window}: {}", calls.join(", "))
}

/// `MatchRecognize by p order by t: pattern A B+, B when price < PREV(price)`.
fn write_match_recognize(f: &mut fmt::Formatter<'_>, n: &MatchRecognize) -> fmt::Result {
    let (spec, input) = (&n.spec, n.input.input.schema());
    let by = partition_and_order(&input, &spec.partition, &spec.order_by);
    let pattern = PatternText { pattern: &spec.pattern, variables: &spec.variables };
    let each = if spec.frame.is_some() { " for each row" } else { "" };
    write!(f, "MatchRecognize{each}{by}: pattern ")?;
    match &spec.pattern_from {
        Some(from) => write!(f, "from {}", input.field(from.column).name())?,
        None => write!(f, "{pattern}")?,
    }
    if let Some(within) = spec.within {
        write!(f, " within {}", seconds(EventDuration(within.duration_us)))?;
    }
    Ok(())
}

/// The steps of a pattern as lines, each behind the indent.
pub struct Automaton<'a> {
    pub spec: &'a MatchSpec,
    pub indent: &'a str,
}

impl fmt::Display for Automaton<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_automaton(f, self.spec, self.indent)
    }
}

/// The steps that the matcher goes through, if they are not too many to be read.
fn write_automaton(f: &mut fmt::Formatter<'_>, spec: &MatchSpec, indent: &str) -> fmt::Result {
    if spec.pattern_from.is_some() {
        return spec.variables.iter().enumerate().try_for_each(|(variable, name)| {
            writeln!(f, "{indent}Row {name} when {}", spec.condition_text(variable))
        });
    }
    let Ok(program) = Program::of(spec) else { return Ok(()) };
    let count = program.instructions.len();
    if count > AUTOMATON_STEPS_MAX {
        return writeln!(f, "{indent}Automaton of {count} steps");
    }
    program.text(spec).lines().try_for_each(|line| writeln!(f, "{indent}Step {line}"))
}

fn write_session(f: &mut fmt::Formatter<'_>, session: &Session) -> fmt::Result {
    let input = session.input.input.schema();
    let by = partition_and_order(&input, &session.partition, &[]);
    let time = input.field(session.time).name().clone();
    write!(f, "Session{by} of {time} with gap {}", seconds(session.gap))
}

/// A length of time, in seconds.
fn seconds(duration: EventDuration) -> String {
    let text = format!("{}.{:06}", duration.0 / 1_000_000, duration.0 % 1_000_000);
    format!("{} s", text.trim_end_matches('0').trim_end_matches('.'))
}

fn write_asof_join(f: &mut fmt::Formatter<'_>, join: &AsofJoin) -> fmt::Result {
    let (left, right) = (join.left.input.schema(), join.right.input.schema());
    let kind = if join.keeps_left { "left" } else { "inner" };
    let mut conditions: Vec<String> = join
        .keys
        .iter()
        .map(|(l, r)| format!("{} = {}", left.field(*l).name(), right.field(*r).name()))
        .collect();
    let (l, r) = join.times;
    let order = join.order.symbol();
    conditions.push(format!("{} {order} {}", left.field(l).name(), right.field(r).name()));
    write!(f, "AsofJoin {kind} on {}", conditions.join(" AND "))
}

fn write_lookup_join(f: &mut fmt::Formatter<'_>, join: &LookupJoin) -> fmt::Result {
    let (left, right) = (join.left.input.schema(), join.right.input.schema());
    let kind = if join.keeps_left { "left" } else { "inner" };
    let keys = join.keys.iter();
    let keys: Vec<String> = keys
        .map(|(l, r)| format!("{} = {}", left.field(*l).name(), right.field(*r).name()))
        .collect();
    write!(f, "LookupJoin {kind} on {}", keys.join(" AND "))
}

fn write_recursive(f: &mut fmt::Formatter<'_>, recursive: &Recursive) -> fmt::Result {
    let union = if recursive.distinct { "union" } else { "union all" };
    write!(f, "Recursive {} {}: {union}", recursive.name, all_names(&recursive.schema))
}

fn write_unnest(f: &mut fmt::Formatter<'_>, unnest: &Unnest) -> fmt::Result {
    let mut lists: Vec<usize> = Vec::new();
    for column in &unnest.columns {
        if let UnnestColumn::Elements(column) = column
            && !lists.contains(column)
        {
            lists.push(*column);
        }
    }
    write!(f, "Unnest {}", names(&unnest.input.input.schema(), &lists))?;
    if unnest.keeps_empty { f.write_str(", or NULL") } else { Ok(()) }
}
