//! Queries of the system catalog, as psql, drivers and BI tools write them, in words that can be
//! planned. A query that names no system relation and casts to no `reg...` type stays as it is.
//!
//! 1. A SELECT that needs rows of a relation that never has any (`pg_policy`, `pg_trigger`, ...)
//!    becomes one without rows: what it computes from them need not be planned.
//! 2. `'t'::regclass` is a look-up of the number, `oid::regclass` of the name; so are `regtype`,
//!    `regnamespace`, `regrole`; `regproc` is text.
//! 3. `ARRAY(SELECT x FROM ...)` is the scalar subquery `(SELECT array_agg(x) FROM ...)`.
//! 4. `x.tableoid` is the number of x's relation.
//! 5. What would have to be of a kind that nobody can make here (domains, enums, composite types;
//!    a column with a collation of its own) is nothing: a SELECT of it has no rows, a CASE branch
//!    for it goes, and a subquery in it need not be planned.
//! 6. A subquery for one value takes the greatest: the planner wants to be sure that there is one.
//!    A condition in it that is about the outer row only stands around it as a CASE.
//! 7. EXISTS in a select list or ORDER BY is a count above 0, IN (SELECT ...) a look into the
//!    array of its rows.
//! 8. `(_pg_expandarray(x)).n` is a field of `unnest`.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    AccessExpr, ArrayElemTypeDef, BinaryOperator, CaseWhen, CastKind, DataType, Expr, Function,
    FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArgumentList, FunctionArguments,
    GroupByExpr, Ident, JoinOperator, ObjectName, OrderByKind, Query, Select, SelectItem, SetExpr,
    SetOperator, TableFactor, UnaryOperator, Value, Visit, VisitMut, Visitor, VisitorMut,
};

use crate::catalog::pg_catalog::system_relation_oid;
use crate::catalog::system_views::{SystemRelation, find};
use crate::sql::parse::name::normalize;
use crate::sql::rewrite::names::column_name;

/// Functions that give a row when there are none.
const AGGREGATES: [&str; 12] = [
    "array_agg",
    "avg",
    "bool_and",
    "bool_or",
    "count",
    "every",
    "json_agg",
    "jsonb_agg",
    "max",
    "min",
    "string_agg",
    "sum",
];

/// Rewrites a query that looks at the system catalog; leaves every other one alone.
pub fn rewrite_catalog_query(query: &mut Query) {
    if Visit::visit(query, &mut CatalogFinder).is_break() {
        // Nothing breaks this walk.
        let _: ControlFlow<()> = VisitMut::visit(query, &mut CatalogRewriter::default());
    }
}

/// The same for an expression of its own.
pub fn rewrite_catalog_expr(expr: &mut Expr) {
    if Visit::visit(expr, &mut CatalogFinder).is_break() {
        let _: ControlFlow<()> = VisitMut::visit(expr, &mut CatalogRewriter::default());
    }
}

/// Breaks at the first thing that is the catalog's.
struct CatalogFinder;

impl Visitor for CatalogFinder {
    type Break = ();

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
        match system_relation(name) {
            None if !is_settings_function(name) => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Cast { data_type, .. } if reg_type(data_type).is_some() => ControlFlow::Break(()),
            Expr::Function(function)
                if last_name(&function.name).is_some_and(|name| name == "_pg_expandarray") =>
            {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

/// The system relation that a name means; without a schema, one of `pg_catalog`.
fn system_relation(name: &ObjectName) -> Option<&'static SystemRelation> {
    let parts: Vec<String> =
        name.0.iter().map(|part| part.as_ident().map(normalize)).collect::<Option<_>>()?;
    match &parts[..] {
        [name] => find("pg_catalog", name),
        [schema, name] | [_, schema, name] => find(schema, name),
        _ => None,
    }
}

/// `pg_show_all_settings`, the function behind `pg_settings`.
fn is_settings_function(name: &ObjectName) -> bool {
    last_name(name).is_some_and(|name| name == "pg_show_all_settings")
}

fn last_name(name: &ObjectName) -> Option<String> {
    name.0.last()?.as_ident().map(normalize)
}

/// `regclass`, `regtype`, ...
fn reg_type(data_type: &DataType) -> Option<&'static str> {
    let name = match data_type {
        DataType::Regclass => "regclass".to_owned(),
        DataType::Custom(name, arguments) if arguments.is_empty() => last_name(name)?,
        _ => return None,
    };
    ["regclass", "regtype", "regnamespace", "regrole", "regproc", "regprocedure"]
        .into_iter()
        .find(|reg| *reg == name)
}

#[derive(Default)]
struct CatalogRewriter {
    /// How many queries we are inside of.
    depth: usize,
    /// Aliases of the system relations in the queries around, innermost last.
    tables: Vec<Vec<(String, &'static SystemRelation)>>,
}

impl VisitorMut for CatalogRewriter {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        for cte in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
            drop_empty_recursion(&mut cte.query);
        }
        if let SetExpr::Select(select) = query.body.as_mut()
            && let Some(columns) = columns_without_rows(select)
        {
            make_empty(select, columns);
            query.order_by = None;
            query.limit_clause = None;
            query.fetch = None;
        }
        // Nothing ends these walks.
        if let SetExpr::Select(select) = query.body.as_mut() {
            let _ = VisitMut::visit(&mut select.projection, &mut SubqueryValues);
        }
        let _ = VisitMut::visit(&mut query.order_by, &mut SubqueryValues);
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if let Some(columns) = columns_without_rows(select) {
            make_empty(select, columns);
        }
        // Columns keep the names that they have as the user wrote them.
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) = item
                && !matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
            {
                let alias = Ident::with_quote('"', column_name(expr));
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
        }
        self.tables.push(aliases(select));
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, args: args @ Some(_), .. } = factor
            && is_settings_function(name)
        {
            *name = ObjectName::from(vec![Ident::new("pg_catalog"), Ident::new("pg_settings")]);
            *args = None;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        self.tables.pop();
        if self.depth <= 1 {
            // What a client sees of a regclass is its name.
            for item in &mut select.projection {
                if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item
                    && let Expr::Function(function) = &*expr
                    && let Some(name) = last_name(&function.name)
                    && let Some(reg) = name.strip_prefix("_reg").and_then(|n| n.strip_suffix("_in"))
                {
                    *expr = call(&format!("_reg{reg}_out"), vec![expr.clone()]);
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(function) => {
                if let Some(subquery) = array_subquery(function) {
                    *expr = array_of(subquery.clone());
                }
            }
            Expr::Case { operand: None, conditions, else_result, .. } => {
                let nothing: Vec<Expr> = conditions
                    .extract_if(.., |branch| is_never(&branch.condition))
                    .map(|branch| typed_null(&branch.result))
                    .collect();
                if conditions.is_empty() {
                    let other = else_result.take().map(|e| *e);
                    let null = nothing.into_iter().next();
                    *expr = match (other, null) {
                        (Some(other), _) if !is_null(&other) => other,
                        (_, Some(null)) => null,
                        (other, None) => other.unwrap_or_else(|| value(Value::Null)),
                    };
                }
            }
            Expr::Subquery(query) => {
                if let Some(null) = subquery_for_nothing(query) {
                    *expr = null;
                } else {
                    one_value(query);
                    if let Some(condition) = take_outer_conditions(query) {
                        let subquery = std::mem::replace(expr, value(Value::Null));
                        *expr = when(condition, subquery);
                    }
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Cast { expr: inner, data_type, .. } => {
                if let Some(reg) = reg_type(data_type) {
                    *expr = reg_cast(reg, inner);
                } else if is_oid(data_type)
                    && let Some((function, argument)) = reg_out(inner)
                {
                    // A name that is wanted as its number after all.
                    let text = cast(argument, DataType::Text);
                    *expr = call(&function.replace("_out", "_in"), vec![text]);
                }
            }
            Expr::Function(function)
                if last_name(&function.name).is_some_and(|name| name == "_pg_expandarray") =>
            {
                function.name = ObjectName::from(vec![Ident::new("_pg_expandarray")]);
                let rows = std::mem::replace(expr, value(Value::Null));
                *expr = call("unnest", vec![rows]);
            }
            Expr::CompoundFieldAccess { root, access_chain } => {
                if let [AccessExpr::Dot(Expr::Identifier(field))] = access_chain.as_slice() {
                    let name = value(Value::SingleQuotedString(normalize(field)));
                    let mut root = root.as_ref();
                    while let Expr::Nested(inner) = root {
                        root = inner;
                    }
                    *expr = call("get_field", vec![root.clone(), name]);
                }
            }
            Expr::Identifier(ident) if normalize(ident) == "tableoid" => {
                if let Some([(_, relation)]) = self.tables.last().map(Vec::as_slice) {
                    *expr = relation_number(relation);
                }
            }
            Expr::CompoundIdentifier(parts) => {
                if let [alias, column] = &parts[..]
                    && normalize(column) == "tableoid"
                {
                    let alias = normalize(alias);
                    let relation = self.tables.iter().rev().flatten().find(|(a, _)| *a == alias);
                    if let Some((_, relation)) = relation {
                        *expr = relation_number(relation);
                    }
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// The kinds of types that the catalog has none of. (Of constraints it has primary keys only.)
const MISSING_TYPE_KINDS: [&str; 5] = ["c", "d", "e", "m", "r"];

/// Whether a condition holds for nothing in the catalog, whatever is in it.
fn is_never(condition: &Expr) -> bool {
    let column = |expr: &Expr| match expr {
        Expr::Identifier(ident) => Some(normalize(ident)),
        Expr::CompoundIdentifier(parts) => parts.last().map(normalize),
        _ => None,
    };
    match condition {
        Expr::Nested(inner) => is_never(inner),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            is_never(left) || is_never(right)
        }
        Expr::BinaryOp { left, op: BinaryOperator::Or, right } => is_never(left) && is_never(right),
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
            let kind = match right.as_ref() {
                Expr::Value(value) => match &value.value {
                    Value::SingleQuotedString(kind) => kind.as_str(),
                    _ => return false,
                },
                _ => return false,
            };
            match column(left).as_deref() {
                Some("typtype") => MISSING_TYPE_KINDS.contains(&kind),
                Some("contype") => kind != "p",
                _ => false,
            }
        }
        Expr::BinaryOp { left, op: BinaryOperator::NotEq, right } => {
            let named = |expr: &Expr| {
                column(expr).is_some_and(|c| c == "attcollation" || c == "typcollation")
            };
            let own = |expr: &Expr| match expr {
                Expr::Subquery(query) => match query.body.as_ref() {
                    SetExpr::Select(select) => matches!(&select.projection[..],
                        [SelectItem::UnnamedExpr(item)] if named(item)),
                    _ => false,
                },
                expr => named(expr),
            };
            own(left) && own(right)
        }
        _ => false,
    }
}

/// What a recursive query adds in its steps is nothing, when they need rows that are never there.
fn drop_empty_recursion(query: &mut Query) {
    let SetExpr::SetOperation { op: SetOperator::Union, left, right, .. } = query.body.as_mut()
    else {
        return;
    };
    if let SetExpr::Select(step) = right.as_ref()
        && columns_without_rows(step).is_some()
    {
        let first = left.as_ref().clone();
        *query.body = first;
    }
}

/// NULL in place of the value of a subquery that would have no rows.
fn subquery_for_nothing(query: &Query) -> Option<Expr> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    columns_without_rows(select)
        .is_some()
        .then(|| typed_null(&Expr::Subquery(Box::new(query.clone()))))
}

/// NULL of about the type that the expression has: what the catalog has is texts, numbers of
/// objects and lists of them.
fn typed_null(expr: &Expr) -> Expr {
    let item = match expr {
        Expr::Subquery(query) => match query.body.as_ref() {
            SetExpr::Select(select) => select.projection.first(),
            _ => None,
        },
        _ => return value(Value::Null),
    };
    let expr = match item {
        Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) => expr,
        _ => return value(Value::Null),
    };
    let text = DataType::Text;
    let oid = DataType::Custom(ObjectName::from(vec![Ident::new("oid")]), vec![]);
    let list = |item| DataType::Array(ArrayElemTypeDef::SquareBracket(Box::new(item), None));
    let name = column_name(expr);
    cast(
        value(Value::Null),
        match expr {
            Expr::Function(function) if name == "array_agg" => {
                let texts = function.to_string().to_lowercase().contains("::text");
                list(if texts { text } else { oid })
            }
            _ if name.ends_with("oid") => oid,
            _ => text,
        },
    )
}

fn is_null(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if value.value == Value::Null)
}

/// Makes conditions about subqueries of values of subqueries.
struct SubqueryValues;

impl VisitorMut for SubqueryValues {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } = expr
            && let Expr::Function(function) = right.as_ref()
            && let Some(query) = array_subquery(function)
        {
            *expr = call("array_has", vec![array_of(query.clone()), left.as_ref().clone()]);
            return ControlFlow::Continue(());
        }
        if let Expr::InSubquery { expr: item, subquery, negated } = expr {
            let array = array_of(subquery.as_ref().clone());
            let found = call("array_has", vec![array, item.as_ref().clone()]);
            *expr = match negated {
                true => Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(found) },
                false => found,
            };
            return ControlFlow::Continue(());
        }
        let Expr::Exists { subquery, negated } = expr else { return ControlFlow::Continue(()) };
        let SetExpr::Select(select) = subquery.body.as_mut() else {
            return ControlFlow::Continue(());
        };
        if columns_without_rows(select).is_some() {
            *expr = value(Value::Boolean(*negated));
            return ControlFlow::Continue(());
        }
        let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(e, _) if e.is_empty());
        if grouped || select.having.is_some() || subquery.limit_clause.is_some() {
            return ControlFlow::Continue(());
        }
        select.distinct = None;
        select.projection = vec![SelectItem::UnnamedExpr(call_star("count"))];
        subquery.order_by = None;
        let op = if *negated { BinaryOperator::Eq } else { BinaryOperator::Gt };
        let count = Expr::Subquery(subquery.clone());
        let zero = value(Value::Number("0".to_owned(), false));
        *expr = Expr::Nested(Box::new(Expr::BinaryOp {
            left: Box::new(count),
            op,
            right: Box::new(zero),
        }));
        ControlFlow::Continue(())
    }
}

/// The conditions of a subquery that name no column of its own, taken out of it.
fn take_outer_conditions(query: &mut Query) -> Option<Expr> {
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    let own: Vec<String> = select
        .from
        .iter()
        .flat_map(|t| std::iter::once(&t.relation).chain(t.joins.iter().map(|j| &j.relation)))
        .map(|factor| match factor {
            TableFactor::Table { alias: Some(alias), .. }
            | TableFactor::Derived { alias: Some(alias), .. } => Some(normalize(&alias.name)),
            TableFactor::Table { name, .. } => last_name(name),
            _ => None,
        })
        .collect::<Option<_>>()?;
    let mut inner = Vec::new();
    let mut outer = Vec::new();
    conjuncts(select.selection.take(), &mut |condition| {
        // `alias.column`, or with the schema in front of the relation.
        let is_outer = matches!(&condition, Expr::CompoundIdentifier(parts)
            if parts.len() > 1 && !own.contains(&normalize(&parts[parts.len() - 2])));
        if is_outer { outer.push(condition) } else { inner.push(condition) }
    });
    let all = |conditions: Vec<Expr>| {
        conditions.into_iter().reduce(|left, right| Expr::BinaryOp {
            left: Box::new(left),
            op: BinaryOperator::And,
            right: Box::new(right),
        })
    };
    select.selection = all(inner);
    all(outer)
}

/// The conditions that AND joins, in order.
fn conjuncts(condition: Option<Expr>, take: &mut impl FnMut(Expr)) {
    match condition {
        Some(Expr::BinaryOp { left, op: BinaryOperator::And, right }) => {
            conjuncts(Some(*left), take);
            conjuncts(Some(*right), take);
        }
        Some(condition) => take(condition),
        None => {}
    }
}

/// `CASE WHEN condition THEN result END`.
fn when(condition: Expr, result: Expr) -> Expr {
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![CaseWhen { condition, result }],
        else_result: None,
    }
}

/// The greatest of what a subquery selects, unless it is one row anyway.
fn one_value(query: &mut Query) {
    if let SetExpr::Select(select) = query.body.as_ref()
        && matches!(&select.group_by, GroupByExpr::Expressions(e, _) if e.is_empty())
        && has_aggregate(select)
    {
        // One row: no LIMIT takes it away but 0, which nobody writes.
        query.limit_clause = None;
        return;
    }
    if query.limit_clause.is_some() || query.fetch.is_some() || query.with.is_some() {
        return;
    }
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let plain = select.distinct.is_none()
        && select.having.is_none()
        && !select.from.is_empty()
        && matches!(&select.group_by, GroupByExpr::Expressions(e, _) if e.is_empty());
    if !plain || has_aggregate(select) {
        return;
    }
    if let [SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }] =
        &mut select.projection[..]
    {
        let selected = std::mem::replace(item, value(Value::Null));
        *item = call("max", vec![selected]);
        query.order_by = None;
    }
}

fn is_oid(data_type: &DataType) -> bool {
    match data_type {
        DataType::Custom(name, _) => last_name(name).is_some_and(|name| name == "oid"),
        DataType::BigInt(_) | DataType::Int8(_) => true,
        _ => false,
    }
}

/// The function and argument of a look-up of a name.
fn reg_out(expr: &Expr) -> Option<(String, Expr)> {
    let Expr::Function(function) = expr else { return None };
    let name = last_name(&function.name)?;
    if !name.starts_with("_reg") || !name.ends_with("_out") {
        return None;
    }
    let FunctionArguments::List(list) = &function.args else { return None };
    match &list.args[..] {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] => Some((name, argument.clone())),
        _ => None,
    }
}

/// A cast to a `reg...` type.
fn reg_cast(reg: &'static str, inner: &Expr) -> Expr {
    let literal = match inner {
        Expr::Value(value) => Some(&value.value),
        _ => None,
    };
    if reg.starts_with("regproc") {
        // Functions have no numbers here; columns of that type hold their names.
        return match literal {
            Some(Value::SingleQuotedString(name)) => {
                let name = name.strip_prefix("pg_catalog.").unwrap_or(name);
                value(Value::SingleQuotedString(name.to_owned()))
            }
            _ => call("_regproc_out", vec![inner.clone()]),
        };
    }
    match literal {
        Some(Value::SingleQuotedString(_)) => call(&format!("_{reg}_in"), vec![inner.clone()]),
        // A parameter is of the type that its cast says.
        Some(Value::Placeholder(_)) => {
            call(&format!("_{reg}_in"), vec![cast(inner.clone(), DataType::Text)])
        }
        _ => call(&format!("_{reg}_out"), vec![inner.clone()]),
    }
}

/// The query of `ARRAY(SELECT ...)`.
fn array_subquery(function: &Function) -> Option<&Query> {
    match &function.args {
        FunctionArguments::Subquery(query) if last_name(&function.name)? == "array" => Some(query),
        _ => None,
    }
}

/// An array of the rows of a query of one column.
fn array_of(mut query: Query) -> Expr {
    let SetExpr::Select(select) = query.body.as_mut() else {
        return Expr::Subquery(Box::new(query));
    };
    if columns_without_rows(select).is_some() {
        return call("_empty_texts", vec![]);
    }
    if let Some((function, argument)) = from_function(select) {
        return match function.as_str() {
            "pg_options_to_table" => call("_pg_option_list", vec![argument]),
            // Relations have no storage parameters here.
            _ => call("_empty_texts", vec![]),
        };
    }
    let [SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }] =
        &mut select.projection[..]
    else {
        return Expr::Subquery(Box::new(query));
    };
    let order = match query.order_by.take().map(|order| order.kind) {
        Some(OrderByKind::Expressions(mut keys)) => {
            for key in &mut keys {
                // ORDER BY 1: the only column.
                if matches!(&key.expr, Expr::Value(v) if matches!(v.value, Value::Number(_, _))) {
                    key.expr = item.clone();
                }
            }
            vec![FunctionArgumentClause::OrderBy(keys)]
        }
        _ => vec![],
    };
    let mut aggregate = call("array_agg", vec![item.clone()]);
    if let Expr::Function(Function { args: FunctionArguments::List(list), .. }) = &mut aggregate {
        list.clauses = order;
    }
    *item = aggregate;
    Expr::Subquery(Box::new(query))
}

/// The table function that a SELECT reads, when that is all, and its argument.
fn from_function(select: &Select) -> Option<(String, Expr)> {
    let [table] = &select.from[..] else { return None };
    let (name, argument) = match &table.relation {
        TableFactor::Table { name, args: Some(args), .. } => (name, args.args.first()?),
        TableFactor::Function { name, args, .. } => (name, args.first()?),
        TableFactor::UNNEST { array_exprs, .. } => {
            return Some(("unnest".to_owned(), array_exprs.first()?.clone()));
        }
        _ => return None,
    };
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) = argument else { return None };
    let name = last_name(name)?;
    matches!(name.as_str(), "pg_options_to_table" | "unnest").then(|| (name, argument.clone()))
}

/// The column names of a SELECT that has no rows because a relation that it needs never has any.
fn columns_without_rows(select: &Select) -> Option<Vec<String>> {
    let mut needed = Vec::new();
    for table in &select.from {
        needed.push(&table.relation);
        for join in &table.joins {
            match &join.join_operator {
                JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_) => {
                    needed.push(&join.relation);
                }
                JoinOperator::Left(_) | JoinOperator::LeftOuter(_) => {}
                _ => return None,
            }
        }
    }
    let empty = needed.iter().any(|factor| match factor {
        TableFactor::Table { name, args: None, .. } => {
            system_relation(name).is_some_and(SystemRelation::always_empty)
        }
        _ => false,
    });
    let empty = empty || select.selection.as_ref().is_some_and(is_never);
    let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(e, _) if e.is_empty());
    if !empty || (!grouped && has_aggregate(select)) {
        return None;
    }
    let mut columns = Vec::new();
    for item in &select.projection {
        match item {
            SelectItem::UnnamedExpr(expr) => columns.push(column_name(expr)),
            SelectItem::ExprWithAlias { alias, .. } => columns.push(normalize(alias)),
            SelectItem::Wildcard(_) if needed.len() == 1 && select.from[0].joins.is_empty() => {
                let TableFactor::Table { name, .. } = needed[0] else { return None };
                let relation = system_relation(name)?;
                columns.extend(relation.schema.fields().iter().map(|f| f.name().clone()));
            }
            _ => return None,
        }
    }
    Some(columns)
}

/// Whether the SELECT gives a row also for none.
fn has_aggregate(select: &Select) -> bool {
    /// How many subqueries it is inside of: their aggregates are theirs.
    struct Finder(usize);
    impl Visitor for Finder {
        type Break = ();

        fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
            self.0 += 1;
            ControlFlow::Continue(())
        }

        fn post_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
            self.0 -= 1;
            ControlFlow::Continue(())
        }

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
            match last_name(&function.name) {
                Some(name) if self.0 == 0 && AGGREGATES.contains(&name.as_str()) => {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    Visit::visit(&select.projection, &mut Finder(0)).is_break()
        || Visit::visit(&select.having, &mut Finder(0)).is_break()
}

/// The same columns, NULL, and no rows.
fn make_empty(select: &mut Select, columns: Vec<String>) {
    select.projection = columns
        .into_iter()
        .map(|name| SelectItem::ExprWithAlias {
            expr: value(Value::Null),
            alias: Ident::with_quote('"', name),
        })
        .collect();
    select.distinct = None;
    select.from = vec![];
    select.selection = Some(value(Value::Boolean(false)));
    select.group_by = GroupByExpr::Expressions(vec![], vec![]);
    select.having = None;
    select.named_window = vec![];
    select.qualify = None;
}

/// The system relations of a SELECT, by the names that its expressions use.
fn aliases(select: &Select) -> Vec<(String, &'static SystemRelation)> {
    let factors = select
        .from
        .iter()
        .flat_map(|t| std::iter::once(&t.relation).chain(t.joins.iter().map(|j| &j.relation)));
    factors
        .filter_map(|factor| match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                let relation = system_relation(name)?;
                let alias = alias.as_ref().map(|a| normalize(&a.name));
                Some((alias.unwrap_or_else(|| relation.name.to_owned()), relation))
            }
            _ => None,
        })
        .collect()
}

fn relation_number(relation: &SystemRelation) -> Expr {
    let oid = system_relation_oid(relation.name, relation.index);
    cast(value(Value::Number(oid.to_string(), false)), DataType::BigInt(None))
}

fn value(value: Value) -> Expr {
    Expr::Value(value.with_empty_span())
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    call_with(name, arguments.into_iter().map(FunctionArgExpr::Expr).collect())
}

fn call_star(name: &str) -> Expr {
    call_with(name, vec![FunctionArgExpr::Wildcard])
}

fn call_with(name: &str, arguments: Vec<FunctionArgExpr>) -> Expr {
    let args = arguments.into_iter().map(FunctionArg::Unnamed).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(sql: &str) -> String {
        let mut query = crate::sql::parse::parse_query(sql).expect("parses");
        rewrite_catalog_query(&mut query);
        query.to_string()
    }

    #[test]
    fn queries_of_tables_stay_as_they_are() {
        for sql in ["SELECT count(*) FROM t", "SELECT a::TEXT FROM public.pg_class_of_mine"] {
            assert_eq!(rewritten(sql), sql);
        }
    }

    #[test]
    fn relations_without_rows_make_queries_without_rows() {
        assert_eq!(
            rewritten(
                "SELECT p.polname, 'd' = any(p.polroles) AS x FROM pg_catalog.pg_policy p, \
                 pg_class c ORDER BY 1"
            ),
            "SELECT NULL AS \"polname\", NULL AS \"x\" WHERE false"
        );
        // A row all the same.
        assert!(rewritten("SELECT count(*) FROM pg_policy").contains("FROM pg_policy"));
        // Needed only where it is there.
        let sql = "SELECT c.oid FROM pg_class AS c LEFT JOIN pg_policy AS p ON p.polrelid = c.oid";
        assert_eq!(rewritten(sql), sql);
    }

    #[test]
    fn what_nobody_can_make_is_nothing() {
        for (sql, expected) in [
            (
                "SELECT t.typname FROM pg_type AS t WHERE t.typtype = 'd' AND t.oid > 5",
                "SELECT NULL AS \"typname\" WHERE false",
            ),
            (
                "SELECT CASE WHEN typtype = 'c' THEN (SELECT array_agg(a.atttypid) FROM \
                 pg_attribute AS a) ELSE NULL END AS x FROM pg_type",
                "SELECT CAST(NULL AS oid[]) AS x FROM pg_type",
            ),
            (
                "SELECT CASE WHEN typtype = 'b' THEN 1 ELSE 2 END AS x FROM pg_type",
                "SELECT CASE WHEN typtype = 'b' THEN 1 ELSE 2 END AS x FROM pg_type",
            ),
            (
                "SELECT (SELECT s.seqstart FROM pg_sequence AS s) AS x FROM pg_class",
                "SELECT CAST(NULL AS TEXT) AS x FROM pg_class",
            ),
        ] {
            assert_eq!(rewritten(sql), expected);
        }
    }

    #[test]
    fn subqueries_give_one_value() {
        for (sql, expected) in [
            (
                "SELECT (SELECT d.adbin FROM pg_attrdef AS d WHERE d.adrelid = a.attrelid AND \
                 a.atthasdef) AS x FROM pg_attribute AS a",
                "SELECT CASE WHEN a.atthasdef THEN (SELECT max(d.adbin) AS \"max\" FROM \
                 pg_attrdef AS d WHERE d.adrelid = a.attrelid) END AS x FROM pg_attribute AS a",
            ),
            (
                "SELECT NOT EXISTS (SELECT 1 FROM pg_index) AS x FROM pg_class",
                "SELECT ((SELECT count(*) AS \"count\" FROM pg_index) = 0) AS x FROM pg_class",
            ),
            (
                "SELECT oid IN (SELECT indrelid FROM pg_index) AS x FROM pg_class",
                "SELECT array_has((SELECT array_agg(indrelid) AS \"array_agg\" FROM pg_index), \
                 oid) AS x FROM pg_class",
            ),
        ] {
            assert_eq!(rewritten(sql), expected);
        }
    }

    #[test]
    fn casts_to_object_names_are_look_ups() {
        for (from, to) in [
            ("'t'::regclass", "_regclass_in('t')"),
            ("c.oid::pg_catalog.regclass", "_regclass_out(c.oid)"),
            ("c.oid::regclass::oid", "_regclass_in(CAST(c.oid AS TEXT))"),
            ("$1::regclass", "_regclass_in(CAST($1 AS TEXT))"),
            ("'array_in'::regproc", "'array_in' = x"),
        ] {
            let sql = rewritten(&format!("SELECT 1 AS a FROM pg_class c WHERE {from} = x"));
            assert!(sql.contains(to), "{sql}");
        }
        assert_eq!(
            rewritten("SELECT conrelid::regclass FROM pg_constraint"),
            "SELECT _regclass_out(conrelid) AS \"conrelid\" FROM pg_constraint"
        );
    }
}
