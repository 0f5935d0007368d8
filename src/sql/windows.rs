//! Windows of event time, said in plain SQL: table functions in FROM, group windows in GROUP BY.
//!
//! | the user writes | what is planned |
//! |---|---|
//! | `TUMBLE(t, ts, size)` | `SELECT *, tumble_start(ts, size) AS window_start, ... FROM t` |
//! | `HOP(t, ts, slide, size)` | the rows of `t` with `unnest(hop_starts(ts, slide, size))` |
//! | `CUMULATE(t, ts, step, size)` | the same with `unnest(cumulate_ends(ts, step, size))` |
//! | `SESSION(t, ts, gap, k)` | `session_start(ts, gap) OVER (PARTITION BY k ORDER BY ts)`, and the end |
//! | `GROUP BY TUMBLE(ts, size)` | `GROUP BY tumble_start(ts, size)` |
//! | `GROUP BY HOP(ts, slide, size)` | grouping of `FROM ..., unnest(hop_starts(...))` |
//! | `GROUP BY k, SESSION(ts, gap)` | grouping of the SESSION table function by `k` |
//!
//! So there is one meaning of a window, for views and for batches, and everything that SQL does
//! with rows works on rows in windows: joins, Top-N, GROUPING SETS, windows on windows. Rows
//! without a time are in no window. `sql::extensions` has brought Flink's spelling into the short
//! form before.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    ExcludeSelectItem, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
    GroupByExpr, Ident, ObjectName, OrderByExpr, OrderByKind, OrderByOptions, Query, Select,
    SelectItem, SetExpr, TableAlias, TableAliasColumnDef, TableFactor, TableWithJoins, Value,
    ValueWithSpan, VisitMut, VisitorMut, WildcardAdditionalOptions, WindowSpec, WindowType,
};

use crate::sql::dml::build::{conjunction, query_of, quoted, table_factor};
use crate::sql::parse::name::normalize as fold;
use crate::sql::rewrite::call;
use crate::types::error::{Error, Result, SqlState};

const WINDOW_START: &str = "window_start";
const WINDOW_END: &str = "window_end";
const WINDOW_TIME: &str = "window_time";
/// A column that is only there between two steps of a rewrite; no user's column is called so.
const BOUND: &str = "bound of a window";
const SESSION_START: &str = "start of a session";
const SESSION_END: &str = "end of a session";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tumble,
    Hop,
    Cumulate,
    Session,
}

impl Kind {
    fn of(name: &str) -> Option<Kind> {
        Some(match name {
            "tumble" => Kind::Tumble,
            "hop" => Kind::Hop,
            "cumulate" => Kind::Cumulate,
            "session" => Kind::Session,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Tumble => "TUMBLE",
            Kind::Hop => "HOP",
            Kind::Cumulate => "CUMULATE",
            Kind::Session => "SESSION",
        }
    }

    /// What follows the table and its time column.
    fn sizes(self) -> &'static str {
        match self {
            Kind::Tumble => "size [, offset]",
            Kind::Hop => "slide, size [, offset]",
            Kind::Cumulate => "step, size [, offset]",
            Kind::Session => "gap",
        }
    }

    /// How many sizes there may be.
    fn takes(self, sizes: usize) -> bool {
        match self {
            Kind::Tumble => (1..=2).contains(&sizes),
            Kind::Hop | Kind::Cumulate => (2..=3).contains(&sizes),
            Kind::Session => sizes == 1,
        }
    }
}

/// A window table function in FROM becomes the query that it stands for.
///
/// # Errors
/// SQLSTATE 42883 when its arguments are not those of the function.
pub fn expand_window_function(factor: &mut TableFactor) -> Result<()> {
    let (name, args, alias) = match factor {
        TableFactor::Table { name, args: Some(args), alias, .. } => (name, &args.args, alias),
        TableFactor::Function { name, args, alias, .. } => (name, &*args, alias),
        _ => return Ok(()),
    };
    let [part] = name.0.as_slice() else { return Ok(()) };
    let Some(kind) = part.as_ident().and_then(|ident| Kind::of(&fold(ident))) else {
        return Ok(());
    };
    let arguments = plain_arguments(args).ok_or_else(|| wrong_arguments(kind))?;
    let mut arguments = arguments.into_iter();
    let (Some(data), Some(time)) = (arguments.next(), arguments.next()) else {
        return Err(wrong_arguments(kind));
    };
    let mut sizes: Vec<Expr> = arguments.collect();
    // Behind a session's gap stand the columns of PARTITION BY.
    let keys = match kind {
        Kind::Session if !sizes.is_empty() => sizes.split_off(1),
        _ => vec![],
    };
    if !kind.takes(sizes.len()) {
        return Err(wrong_arguments(kind));
    }
    check_time_column(kind, &time)?;
    let (from, default_alias) = data_factor(kind, data)?;
    let alias = alias.take().unwrap_or_else(|| plain_alias(default_alias));
    let query = match kind {
        Kind::Tumble => tumble_query(from, time, sizes),
        Kind::Hop => {
            let size = sizes[1].clone();
            let starts = call("hop_starts", [vec![time], sizes].concat());
            let start = || Expr::Identifier(quoted(BOUND));
            spread_query(from, starts, start(), call("window_end", vec![start(), size]))
        }
        Kind::Cumulate => {
            let end = || Expr::Identifier(quoted(BOUND));
            // From the end, the size and the offset.
            let whole = [vec![end()], sizes[1..].to_vec()].concat();
            let ends = call("cumulate_ends", [vec![time], sizes].concat());
            spread_query(from, ends, call("window_start", whole), end())
        }
        Kind::Session => session_query(from, time, &sizes[0], keys, None),
    };
    *factor = derived(query, alias);
    Ok(())
}

fn wrong_arguments(kind: Kind) -> Error {
    let (name, sizes) = (kind.name(), kind.sizes());
    Error::user(SqlState::UNDEFINED_FUNCTION, format!("wrong arguments for {name}")).hint(format!(
        "Write {name}(table, time_column, {sizes}), or Flink's TABLE({name}(TABLE table, \
         DESCRIPTOR(time_column), {sizes}))."
    ))
}

fn check_time_column(kind: Kind, time: &Expr) -> Result<()> {
    match time {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => Ok(()),
        _ => Err(Error::user(
            SqlState::WRONG_OBJECT_TYPE,
            format!("the time of {} must be a column", kind.name()),
        )
        .hint("Compute it in a subquery, which can take the table's place.")),
    }
}

fn plain_arguments(args: &[FunctionArg]) -> Option<Vec<Expr>> {
    args.iter()
        .map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
            _ => None,
        })
        .collect()
}

/// The first argument in FROM, and what it is called when nobody says otherwise.
fn data_factor(kind: Kind, data: Expr) -> Result<(TableWithJoins, Ident)> {
    let own_name = || quoted(&kind.name().to_lowercase());
    Ok(match data {
        Expr::Identifier(name) => (table_factor(ObjectName::from(vec![name.clone()]), None), name),
        Expr::CompoundIdentifier(parts) => {
            let last = parts.last().cloned().unwrap_or_else(own_name);
            (table_factor(ObjectName::from(parts), None), last)
        }
        Expr::Subquery(query) => {
            let factor = derived(*query, plain_alias(own_name()));
            (TableWithJoins { relation: factor, joins: vec![] }, own_name())
        }
        Expr::Nested(inner) => return data_factor(kind, *inner),
        Expr::Function(function) => (function_factor(function), own_name()),
        _ => {
            return Err(Error::user(
                SqlState::WRONG_OBJECT_TYPE,
                format!("the first argument of {} must be a table or a subquery", kind.name()),
            ));
        }
    })
}

/// A function in the place of a table: a window function within another.
fn function_factor(function: Function) -> TableWithJoins {
    let mut factor = table_factor(function.name, None);
    if let (TableFactor::Table { args, .. }, FunctionArguments::List(list)) =
        (&mut factor.relation, function.args)
    {
        *args = Some(datafusion::sql::sqlparser::ast::TableFunctionArgs {
            args: list.args,
            settings: None,
        });
    }
    factor
}

fn tumble_query(from: TableWithJoins, time: Expr, sizes: Vec<Expr>) -> Query {
    let condition = is_not_null(&time);
    let arguments = [vec![time], sizes].concat();
    let end = || call("tumble_end", arguments.clone());
    let items = window_items(call("tumble_start", arguments.clone()), end(), end());
    select_star(from, None, items, Some(condition))
}

/// The rows of `from` once for each item of a list of window bounds.
fn spread_query(from: TableWithJoins, bounds: Expr, start: Expr, end: Expr) -> Query {
    let bound = named(call("unnest", vec![bounds]), BOUND);
    let spread =
        derived(select_star(from, None, vec![bound], None), plain_alias(quoted("windows")));
    let spread = TableWithJoins { relation: spread, joins: vec![] };
    let items = window_items(start, end.clone(), end);
    select_star(spread, Some(BOUND), items, None)
}

/// The rows of `from` with the session that each is in.
fn session_query(
    from: TableWithJoins,
    time: Expr,
    gap: &Expr,
    keys: Vec<Expr>,
    condition: Option<Expr>,
) -> Query {
    let (start, end) = session_bounds(&time, gap, &keys);
    let conditions = condition.into_iter().chain([is_not_null(&time)]).collect();
    let items = window_items(start, end.clone(), end);
    select_star(from, None, items, conjunction(conditions))
}

fn session_bounds(time: &Expr, gap: &Expr, keys: &[Expr]) -> (Expr, Expr) {
    let over = |name: &str| {
        let mut bound = call(name, vec![time.clone(), gap.clone()]);
        if let Expr::Function(function) = &mut bound {
            let options = OrderByOptions { asc: None, nulls_first: None };
            function.over = Some(WindowType::WindowSpec(WindowSpec {
                window_name: None,
                partition_by: keys.to_vec(),
                order_by: vec![OrderByExpr { expr: time.clone(), options, with_fill: None }],
                window_frame: None,
            }));
        }
        bound
    };
    (over("session_start"), over("session_end"))
}

fn window_items(start: Expr, end: Expr, end_again: Expr) -> Vec<SelectItem> {
    vec![
        named(start, WINDOW_START),
        named(end, WINDOW_END),
        named(call("window_time", vec![end_again]), WINDOW_TIME),
    ]
}

/// Rewrites a query whose SELECT groups by a window: GROUP BY, and the functions that speak of the
/// group's window in the select list, HAVING and ORDER BY.
///
/// # Errors
/// SQLSTATE 0A000 for forms that are not supported, 42883 for wrong arguments.
pub fn expand_group_window(query: &mut Query) -> Result<()> {
    let SetExpr::Select(select) = &mut *query.body else { return Ok(()) };
    let Some(window) = expand_in_select(select)? else { return Ok(()) };
    if let Some(order_by) = &mut query.order_by
        && let OrderByKind::Expressions(exprs) = &mut order_by.kind
    {
        exprs.iter_mut().try_for_each(|by| window.replace_in(&mut by.expr))?;
    }
    Ok(())
}

/// As [`expand_group_window`], of one SELECT of a UNION.
///
/// # Errors
/// As [`expand_group_window`].
pub fn expand_group_window_of_select(select: &mut Select) -> Result<()> {
    expand_in_select(select).map(drop)
}

/// A window that rows are grouped by.
struct GroupWindow {
    kind: Kind,
    arguments: Vec<Expr>,
    /// There is one relation to which a column without a qualifier can belong.
    of_one_relation: bool,
    start: Expr,
    end: Expr,
}

impl GroupWindow {
    /// Puts the window's bounds where `TUMBLE_START(...)` and its kin stand.
    fn replace_in(&self, expr: &mut Expr) -> Result<()> {
        struct Replacer<'a>(&'a GroupWindow);
        impl VisitorMut for Replacer<'_> {
            type Break = Error;

            fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
                match self.0.bound(expr) {
                    Ok(Some(bound)) => *expr = bound,
                    Ok(None) => {}
                    Err(error) => return ControlFlow::Break(error),
                }
                ControlFlow::Continue(())
            }
        }
        match expr.visit(&mut Replacer(self)) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        }
    }

    fn has_arguments(&self, arguments: &[Expr]) -> bool {
        let (Some((time, sizes)), Some((own_time, own_sizes))) =
            (arguments.split_first(), self.arguments.split_first())
        else {
            return false;
        };
        sizes == own_sizes && is_same_column(time, own_time, self.of_one_relation)
    }

    /// What a function says of this window; `None`: it is about something else.
    fn bound(&self, expr: &Expr) -> Result<Option<Expr>> {
        let Expr::Function(function) = expr else { return Ok(None) };
        let Some((kind, bound)) = auxiliary(function) else { return Ok(None) };
        let same = |list: Vec<Expr>| self.has_arguments(&list);
        if kind != self.kind || !plain_list(function).is_some_and(same) {
            return Ok(None);
        }
        Ok(Some(match bound {
            "start" => self.start.clone(),
            "end" => self.end.clone(),
            "rowtime" => call("window_time", vec![self.end.clone()]),
            _ => {
                return Err(Error::unsupported(format!("{}_PROCTIME", kind.name()))
                    .hint("Windows are of event time."));
            }
        }))
    }
}

/// Whether two names mean the same column; `unqualified`: also when one has no qualifier.
fn is_same_column(one: &Expr, other: &Expr, unqualified: bool) -> bool {
    let parts = |expr: &Expr| -> Option<Vec<String>> {
        match expr {
            Expr::Identifier(name) => Some(vec![fold(name)]),
            Expr::CompoundIdentifier(names) => Some(names.iter().map(fold).collect()),
            _ => None,
        }
    };
    let (Some(one), Some(other)) = (parts(one), parts(other)) else { return one == other };
    one == other
        || (unqualified && (one.len() == 1 || other.len() == 1) && one.last() == other.last())
}

/// `TUMBLE_START` as the kind of window and the part of it.
fn auxiliary(function: &Function) -> Option<(Kind, &'static str)> {
    let name = function_name(function)?;
    let (kind, part) = name.split_once('_')?;
    let part = ["start", "end", "rowtime", "proctime"].into_iter().find(|p| *p == part)?;
    Some((Kind::of(kind)?, part))
}

fn function_name(function: &Function) -> Option<String> {
    match function.name.0.as_slice() {
        [part] if function.over.is_none() => part.as_ident().map(fold),
        _ => None,
    }
}

fn plain_list(function: &Function) -> Option<Vec<Expr>> {
    match &function.args {
        FunctionArguments::List(list) => plain_arguments(&list.args),
        _ => None,
    }
}

fn expand_in_select(select: &mut Select) -> Result<Option<GroupWindow>> {
    let GroupByExpr::Expressions(groups, _) = &mut select.group_by else { return Ok(None) };
    let mut found = vec![];
    for group in groups.iter_mut() {
        find_windows(group, &mut found);
    }
    let Some((kind, arguments)) = found.first().cloned() else { return Ok(None) };
    if found.iter().any(|other| *other != found[0]) {
        return Err(Error::unsupported("GROUP BY two windows")
            .hint("Use window table functions in FROM, one over the other."));
    }
    let Some((time, sizes)) = arguments.split_first() else {
        return Err(wrong_group_arguments(kind));
    };
    if !kind.takes(sizes.len()) || kind == Kind::Cumulate {
        return Err(wrong_group_arguments(kind));
    }
    let sets = has_grouping_sets(select);
    let of_one_relation = matches!(select.from.as_slice(), [only] if only.joins.is_empty());
    let bounds = match kind {
        // Keys of grouping sets are best columns: windows side by side slide by their size.
        Kind::Tumble if sets => {
            let mut windows = arguments.clone();
            windows.insert(1, sizes[0].clone());
            select.from.push(hop_factor(windows));
            let start = Expr::Identifier(quoted(BOUND));
            (start.clone(), call("window_end", vec![start, sizes[0].clone()]))
        }
        Kind::Tumble => {
            add_condition(select, is_not_null(time));
            let start = call("tumble_start", arguments.clone());
            let end = call("window_end", vec![start.clone(), sizes[0].clone()]);
            (start, end)
        }
        Kind::Hop => {
            select.from.push(hop_factor(arguments.clone()));
            let start = Expr::Identifier(quoted(BOUND));
            (start.clone(), call("window_end", vec![start, sizes[1].clone()]))
        }
        Kind::Cumulate | Kind::Session => group_session(select, time, &sizes[0])?,
    };
    let (start, end) = bounds;
    let window = GroupWindow { kind, arguments, of_one_relation, start, end };
    rewrite_select(select, &window)?;
    Ok(Some(window))
}

fn has_grouping_sets(select: &Select) -> bool {
    let GroupByExpr::Expressions(groups, modifiers) = &select.group_by else { return false };
    let is_set = |e: &Expr| matches!(e, Expr::GroupingSets(_) | Expr::Cube(_) | Expr::Rollup(_));
    !modifiers.is_empty() || groups.iter().any(is_set)
}

fn wrong_group_arguments(kind: Kind) -> Error {
    let name = kind.name();
    if kind == Kind::Cumulate {
        return Error::unsupported("GROUP BY CUMULATE(...)")
            .hint("Use CUMULATE in FROM, and group by window_start and window_end.");
    }
    Error::user(SqlState::UNDEFINED_FUNCTION, format!("wrong arguments for {name}"))
        .hint(format!("Write GROUP BY {name}(time_column, {}).", kind.sizes()))
}

/// The group windows in an element of GROUP BY, with their arguments.
fn find_windows(group: &Expr, found: &mut Vec<(Kind, Vec<Expr>)>) {
    match group {
        Expr::Function(function) => {
            let kind = function_name(function).and_then(|name| Kind::of(&name));
            if let (Some(kind), Some(arguments)) = (kind, plain_list(function)) {
                found.push((kind, arguments));
            }
        }
        Expr::GroupingSets(sets) | Expr::Cube(sets) | Expr::Rollup(sets) => {
            sets.iter().flatten().for_each(|group| find_windows(group, found));
        }
        Expr::Nested(inner) => find_windows(inner, found),
        Expr::Tuple(exprs) => exprs.iter().for_each(|group| find_windows(group, found)),
        _ => {}
    }
}

/// `unnest(hop_starts(...))` beside what the query reads.
fn hop_factor(arguments: Vec<Expr>) -> TableWithJoins {
    let column = TableAliasColumnDef { name: quoted(BOUND), data_type: None };
    let relation = TableFactor::UNNEST {
        alias: Some(TableAlias {
            explicit: true,
            name: quoted("windows"),
            columns: vec![column],
            at: None,
        }),
        array_exprs: vec![call("hop_starts", arguments)],
        with_offset: false,
        with_offset_alias: None,
        with_ordinality: false,
    };
    TableWithJoins { relation, joins: vec![] }
}

/// What the query reads, with the session of each row; where the sessions begin and end.
fn group_session(select: &mut Select, time: &Expr, gap: &Expr) -> Result<(Expr, Expr)> {
    let unsupported = |what: &str| {
        Error::unsupported(format!("GROUP BY SESSION(...) {what}"))
            .hint("Use SESSION in FROM, over a subquery if need be, and group by its columns.")
    };
    let [TableWithJoins { relation, joins }] = select.from.as_mut_slice() else {
        return Err(unsupported("over several tables"));
    };
    if !joins.is_empty() {
        return Err(unsupported("over a join"));
    }
    let alias = match relation {
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. } => Some(alias.name.clone()),
        TableFactor::Table { name, .. } => name.0.last().and_then(|part| part.as_ident()).cloned(),
        _ => None,
    };
    let alias = alias.ok_or_else(|| unsupported("over this"))?;
    let GroupByExpr::Expressions(groups, _) = &select.group_by else {
        return Err(unsupported("with ALL"));
    };
    let mut keys = vec![];
    for group in groups {
        match group {
            Expr::GroupingSets(_) | Expr::Cube(_) | Expr::Rollup(_) => {
                return Err(unsupported("with grouping sets"));
            }
            Expr::Function(function)
                if function_name(function).is_some_and(|name| name == "session") => {}
            other => keys.push(selected(other, &select.projection)),
        }
    }
    let (start, end) = session_bounds(time, gap, &keys);
    let items = vec![named(start, SESSION_START), named(end, SESSION_END)];
    let conditions = select.selection.take().into_iter().map(nested);
    let condition = conjunction(conditions.chain([is_not_null(time)]).collect());
    let from = std::mem::take(&mut select.from);
    let from = from.into_iter().next().ok_or_else(|| unsupported("over nothing"))?;
    let query = select_star(from, None, items, condition);
    select.from =
        vec![TableWithJoins { relation: derived(query, plain_alias(alias)), joins: vec![] }];
    Ok((Expr::Identifier(quoted(SESSION_START)), Expr::Identifier(quoted(SESSION_END))))
}

/// What an element of GROUP BY means that is the number or the name of a select item.
fn selected(group: &Expr, projection: &[SelectItem]) -> Expr {
    let item = match group {
        Expr::Value(ValueWithSpan { value: Value::Number(number, _), .. }) => {
            number.parse::<usize>().ok().and_then(|n| projection.get(n.checked_sub(1)?))
        }
        Expr::Identifier(name) => projection.iter().find(|item| {
            matches!(item, SelectItem::ExprWithAlias { alias, .. } if fold(alias) == fold(name))
        }),
        _ => None,
    };
    match item {
        Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) => {
            expr.clone()
        }
        _ => group.clone(),
    }
}

/// Puts the window's bounds into GROUP BY, the select list and HAVING.
fn rewrite_select(select: &mut Select, window: &GroupWindow) -> Result<()> {
    if let GroupByExpr::Expressions(groups, _) = &mut select.group_by {
        groups.iter_mut().for_each(|group| replace_group(group, window));
        // A session's end is as much its name as its start.
        if window.kind == Kind::Session {
            groups.push(window.end.clone());
        }
    }
    for item in &mut select.projection {
        // The column keeps the function's name.
        if let SelectItem::UnnamedExpr(expr) = item
            && let Expr::Function(function) = &*expr
            && auxiliary(function).is_some()
            && let Some(name) = function_name(function)
        {
            let expr = expr.clone();
            *item = SelectItem::ExprWithAlias { expr, alias: quoted(&name) };
        }
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
            window.replace_in(expr)?;
        }
    }
    for expr in select.having.iter_mut().chain(&mut select.qualify) {
        window.replace_in(expr)?;
    }
    Ok(())
}

fn replace_group(group: &mut Expr, window: &GroupWindow) {
    match group {
        Expr::Function(function) => {
            let kind = function_name(function).and_then(|name| Kind::of(&name));
            if kind == Some(window.kind) {
                *group = window.start.clone();
            }
        }
        Expr::GroupingSets(sets) | Expr::Cube(sets) | Expr::Rollup(sets) => {
            sets.iter_mut().flatten().for_each(|group| replace_group(group, window));
        }
        Expr::Nested(inner) => replace_group(inner, window),
        Expr::Tuple(exprs) => exprs.iter_mut().for_each(|group| replace_group(group, window)),
        _ => {}
    }
}

// Pieces of syntax trees.

fn add_condition(select: &mut Select, condition: Expr) {
    let conditions = select.selection.take().into_iter().map(nested).chain([condition]);
    select.selection = conjunction(conditions.collect());
}

fn nested(expr: Expr) -> Expr {
    Expr::Nested(Box::new(expr))
}

fn is_not_null(time: &Expr) -> Expr {
    Expr::IsNotNull(Box::new(time.clone()))
}

fn named(expr: Expr, name: &str) -> SelectItem {
    SelectItem::ExprWithAlias { expr, alias: quoted(name) }
}

fn plain_alias(name: Ident) -> TableAlias {
    TableAlias { explicit: true, name, columns: vec![], at: None }
}

fn derived(query: Query, alias: TableAlias) -> TableFactor {
    TableFactor::Derived {
        lateral: false,
        subquery: Box::new(query),
        alias: Some(alias),
        sample: None,
    }
}

/// `SELECT * [EXCLUDE without], items FROM from WHERE condition`.
fn select_star(
    from: TableWithJoins,
    without: Option<&str>,
    items: Vec<SelectItem>,
    condition: Option<Expr>,
) -> Query {
    let mut query = query_of(vec![], vec![from], condition);
    if let SetExpr::Select(select) = &mut *query.body {
        let excluded = |name| ExcludeSelectItem::Single(ObjectName::from(vec![quoted(name)]));
        let options = WildcardAdditionalOptions {
            opt_exclude: without.map(excluded),
            ..WildcardAdditionalOptions::default()
        };
        select.projection = vec![SelectItem::Wildcard(options)];
        select.projection.extend(items);
    }
    query
}
