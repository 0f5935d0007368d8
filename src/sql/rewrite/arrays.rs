//! Arrays: of columns, of a subquery's rows, and rows of arrays that are sorted.
//!
//! 1. `ARRAY[a, b]` is a call of `make_array`: DataFusion plans the constructor's items as if there
//!    were no query around them, so that they could not look outside.
//! 2. `ARRAY(SELECT ...)` is `array_agg` over the subquery, in its order, and `{}` where there are
//!    no rows.
//! 3. `SELECT unnest(a) FROM t ORDER BY b`: DataFusion finds a column to sort by above the unnest
//!    only. The query becomes a subquery that gives it, and what is around drops it.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, Expr, FunctionArgumentClause, FunctionArguments, GroupByExpr, Ident, OrderByExpr,
    OrderByKind, Query, SelectItem, SetExpr, TableAlias, TableAliasColumnDef, TableFactor,
    TableWithJoins, Value, ValueWithSpan, Visit, Visitor,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::sql::dml::build::query_of;
use crate::sql::functions::FUNCTIONS;
use crate::sql::parse::name::normalize as fold;
use crate::sql::rewrite::names::column_name;
use crate::sql::rewrite::numbers::as_integer;
use crate::sql::rewrite::tables::{gives_rows, is_constant};
use crate::sql::rewrite::{call, null};
use crate::types::error::{Error, Result, SqlState};

/// Step 1. Constants stay as they are: others look for them.
pub(super) fn array_of_columns(expr: &mut Expr) {
    if matches!(expr, Expr::Array(array) if !array.elem.is_empty())
        && !is_constant(expr)
        && let Expr::Array(array) = std::mem::replace(expr, null())
    {
        *expr = call("make_array", array.elem);
    }
}

/// Step 2.
pub(super) fn array_of_rows(expr: &mut Expr) -> Result<()> {
    let Expr::Function(function) = &mut *expr else { return Ok(()) };
    let [part] = function.name.0.as_slice() else { return Ok(()) };
    let is_array = part.as_ident().is_some_and(|ident| fold(ident) == "array");
    let FunctionArguments::Subquery(query) = &mut function.args else { return Ok(()) };
    if is_array {
        let query = std::mem::replace(query, Box::new(query_of(vec![], vec![], None)));
        *expr = array_from(*query)?;
    }
    Ok(())
}

fn quoted(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

fn array_from(mut query: Query) -> Result<Expr> {
    const ITEM: &str = "item";
    let item = || Expr::Identifier(quoted(ITEM));
    let mut columns = vec![quoted(ITEM)];
    let mut sorts: Vec<OrderByExpr> = vec![];
    let order_by = match query.order_by.as_ref().map(|order_by| &order_by.kind) {
        Some(OrderByKind::Expressions(exprs)) => exprs.clone(),
        _ => vec![],
    };
    if let SetExpr::Select(select) = query.body.as_mut() {
        if select.projection.len() != 1 {
            return Err(Error::user(
                SqlState::SYNTAX_ERROR,
                "subquery must return only one column",
            ));
        }
        for sort in order_by {
            let by_item = select.distinct.is_some()
                || place_in(&sort.expr, &select.projection[..1]) == Some(0);
            let expr = match by_item {
                true => item(),
                false => {
                    let name = quoted(&format!("order {}", columns.len()));
                    columns.push(name.clone());
                    let expr = sort.expr.clone();
                    select.projection.push(SelectItem::ExprWithAlias { expr, alias: name.clone() });
                    Expr::Identifier(name)
                }
            };
            sorts.push(OrderByExpr { expr, ..sort });
        }
        if is_plain(select) && query.limit_clause.is_none() && query.fetch.is_none() {
            query.order_by = None;
            return Ok(or_empty(aggregated_in_place(query, &columns, sorts)));
        }
    } else {
        sorts.extend(order_by.into_iter().map(|sort| OrderByExpr { expr: item(), ..sort }));
    }
    let rows = TableFactor::Derived {
        lateral: false,
        subquery: Box::new(query),
        alias: Some(TableAlias {
            explicit: true,
            name: quoted("rows of an array"),
            columns: columns
                .into_iter()
                .map(|name| TableAliasColumnDef { name, data_type: None })
                .collect(),
            at: None,
        }),
        sample: None,
    };
    let mut aggregate = call("array_agg", vec![item()]);
    if let Expr::Function(function) = &mut aggregate
        && let FunctionArguments::List(list) = &mut function.args
        && !sorts.is_empty()
    {
        list.clauses.push(FunctionArgumentClause::OrderBy(sorts));
    }
    let from = vec![TableWithJoins { relation: rows, joins: vec![] }];
    Ok(or_empty(query_of(vec![aggregate], from, None)))
}

/// The query's array, or one without items.
fn or_empty(query: Query) -> Expr {
    let array = Expr::Subquery(Box::new(query));
    let empty = Value::SingleQuotedString("{}".to_owned());
    let empty = Expr::Value(ValueWithSpan { value: empty, span: Span::empty() });
    call("coalesce", vec![array, empty])
}

/// Whether each row of FROM that WHERE keeps gives one of the result.
fn is_plain(select: &ast::Select) -> bool {
    let groups = match &select.group_by {
        GroupByExpr::Expressions(keys, modifiers) => !keys.is_empty() || !modifiers.is_empty(),
        GroupByExpr::All(_) => true,
    };
    let expressions = |item: &SelectItem| match item {
        SelectItem::ExprWithAlias { expr, .. } | SelectItem::UnnamedExpr(expr) => !gathers(expr),
        _ => false,
    };
    select.distinct.is_none()
        && !groups
        && select.having.is_none()
        && select.qualify.is_none()
        && !select.from.is_empty()
        && select.projection.iter().all(expressions)
}

/// Whether an expression has an aggregate, a window function or a function that gives rows.
fn gathers(expr: &Expr) -> bool {
    struct Finder;
    impl Visitor for Finder {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
            let name = function.name.0.last().and_then(|part| part.as_ident()).map(fold);
            let scalar = function.over.is_none()
                && name.is_some_and(|name| {
                    FUNCTIONS.scalar.contains_key(&name)
                        && !FUNCTIONS.aggregate.contains_key(&name)
                        && !gives_rows(&name)
                });
            if scalar { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        }
    }
    expr.visit(&mut Finder).is_break()
}

/// The query with an aggregate of its first column in the place of its columns, which the order
/// knows by these names.
fn aggregated_in_place(mut query: Query, columns: &[Ident], sorts: Vec<OrderByExpr>) -> Query {
    let SetExpr::Select(select) = query.body.as_mut() else { return query };
    let items: Vec<Expr> = std::mem::take(&mut select.projection)
        .into_iter()
        .filter_map(|item| match item {
            SelectItem::ExprWithAlias { expr, .. } | SelectItem::UnnamedExpr(expr) => Some(expr),
            _ => None,
        })
        .collect();
    let meant = |expr: Expr| {
        let place = match &expr {
            Expr::Identifier(name) => columns.iter().position(|column| column == name),
            _ => None,
        };
        place.and_then(|place| items.get(place).cloned()).unwrap_or(expr)
    };
    let sorts: Vec<OrderByExpr> = sorts
        .into_iter()
        .map(|OrderByExpr { expr, options, with_fill }| OrderByExpr {
            expr: meant(expr),
            options,
            with_fill,
        })
        .collect();
    let mut aggregate = call("array_agg", items.into_iter().take(1).collect());
    if let Expr::Function(function) = &mut aggregate
        && let FunctionArguments::List(list) = &mut function.args
        && !sorts.is_empty()
    {
        list.clauses.push(FunctionArgumentClause::OrderBy(sorts));
    }
    select.projection = vec![SelectItem::UnnamedExpr(aggregate)];
    query
}

/// The item of a select list that ORDER BY means: by its number, its name, or what it is.
fn place_in(sort: &Expr, items: &[SelectItem]) -> Option<usize> {
    let mut number = sort;
    // A number has got its type meanwhile.
    while let Expr::Cast { expr, .. } | Expr::Nested(expr) = number {
        number = expr;
    }
    if let Some(number) = as_integer(number) {
        return number.parse::<usize>().ok()?.checked_sub(1).filter(|place| *place < items.len());
    }
    if let Expr::Identifier(name) = sort {
        let named = items.iter().position(|item| match item {
            SelectItem::ExprWithAlias { alias, .. } => fold(alias) == fold(name),
            SelectItem::UnnamedExpr(expr) => column_name(expr) == fold(name),
            _ => false,
        });
        if named.is_some() {
            return named;
        }
    }
    items.iter().position(|item| match item {
        SelectItem::ExprWithAlias { expr, .. } | SelectItem::UnnamedExpr(expr) => expr == sort,
        _ => false,
    })
}

/// Step 3, when everything below has been rewritten.
pub(super) fn sort_unnested(query: &mut Query) {
    let Some(order_by) = &mut query.order_by else { return };
    let OrderByKind::Expressions(sorts) = &mut order_by.kind else { return };
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let plain = |item: &SelectItem| {
        matches!(item, SelectItem::ExprWithAlias { .. } | SelectItem::UnnamedExpr(_))
    };
    if select.distinct.is_some()
        || !select.projection.iter().all(plain)
        || !select.projection.iter().any(unnests)
    {
        return;
    }
    let places: Vec<Option<usize>> =
        sorts.iter().map(|sort| place_in(&sort.expr, &select.projection)).collect();
    if places.iter().all(Option::is_some) {
        return;
    }
    let mut outer = vec![];
    for (place, item) in select.projection.iter_mut().enumerate() {
        let (expr, name) = match std::mem::replace(item, SelectItem::UnnamedExpr(null())) {
            SelectItem::ExprWithAlias { expr, alias } => (expr, alias),
            SelectItem::UnnamedExpr(expr) => {
                let name = quoted(&column_name(&expr));
                (expr, name)
            }
            other => {
                // There are none: all items are plain.
                *item = other;
                continue;
            }
        };
        let alias = quoted(&format!("item {place}"));
        outer
            .push(SelectItem::ExprWithAlias { expr: Expr::Identifier(alias.clone()), alias: name });
        *item = SelectItem::ExprWithAlias { expr, alias };
    }
    for (index, (sort, place)) in sorts.iter_mut().zip(places).enumerate() {
        let name = match place {
            Some(place) => quoted(&format!("item {place}")),
            None => {
                let alias = quoted(&format!("sort {index}"));
                let expr = sort.expr.clone();
                select.projection.push(SelectItem::ExprWithAlias { expr, alias: alias.clone() });
                alias
            }
        };
        sort.expr = Expr::Identifier(name);
    }
    let body = std::mem::replace(
        &mut query.body,
        Box::new(SetExpr::Values(ast::Values {
            explicit_row: false,
            value_keyword: false,
            rows: vec![],
        })),
    );
    let mut inner = query_of(vec![], vec![], None);
    inner.body = body;
    let rows = TableFactor::Derived {
        lateral: false,
        subquery: Box::new(inner),
        alias: Some(TableAlias {
            explicit: true,
            name: quoted("rows to sort"),
            columns: vec![],
            at: None,
        }),
        sample: None,
    };
    let from = vec![TableWithJoins { relation: rows, joins: vec![] }];
    let mut sorted = query_of(vec![], from, None);
    if let SetExpr::Select(select) = sorted.body.as_mut() {
        select.projection = outer;
        select.group_by = GroupByExpr::Expressions(vec![], vec![]);
    }
    query.body = sorted.body;
}

/// Whether an item of a select list unnests something.
fn unnests(item: &SelectItem) -> bool {
    struct Finder;
    impl Visitor for Finder {
        type Break = bool;

        fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<bool> {
            ControlFlow::Break(false)
        }

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<bool> {
            if let Expr::Function(function) = expr
                && let [part] = function.name.0.as_slice()
                && part.as_ident().is_some_and(|ident| fold(ident) == "unnest")
            {
                return ControlFlow::Break(true);
            }
            ControlFlow::Continue(())
        }
    }
    matches!(item.visit(&mut Finder), ControlFlow::Break(true))
}
