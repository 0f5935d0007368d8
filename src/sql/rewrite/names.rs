//! Names: what Postgres calls an unnamed select item, and the parts of a relation's name.

use datafusion::sql::sqlparser::ast::{
    self, Expr, Ident, ObjectName, ObjectNamePart, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr,
};

use crate::sql::parse::name::normalize as fold;
use crate::sql::rewrite::null;
use crate::sql::schema::repeated_name;
use crate::sql::types::type_name;
use crate::types::error::{Error, Result, SqlState};

/// Gives each unnamed select item its name, unique within the list.
pub(super) fn name_columns(select: &mut Select) -> Result<()> {
    if select.into.is_some() {
        return Err(Error::unsupported("SELECT INTO").hint("Use CREATE TABLE ... AS."));
    }
    // The tables whose columns all stand in the list; `None`: of every table.
    let wildcards: Vec<Option<String>> =
        select.projection.iter().filter_map(wildcard_table).collect();
    let mut seen: Vec<String> = vec![];
    let tables = table_names(&select.from);
    for item in &mut select.projection {
        let name = match item {
            SelectItem::UnnamedExpr(expr) => column_name(expr),
            SelectItem::ExprWithAlias { alias, .. } => fold(alias),
            SelectItem::ExprWithAliases { .. } => {
                return Err(Error::unsupported("several aliases for one column"));
            }
            SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(_, _) => continue,
        };
        let count = seen.iter().filter(|other| **other == name).count();
        seen.push(name.clone());
        // What `*` expands to is not known yet: a column named beside it may repeat one.
        let expanded = match &*item {
            SelectItem::UnnamedExpr(Expr::Identifier(_)) => !wildcards.is_empty(),
            // A column of another table keeps its table's name, which tells it apart.
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => {
                let table = parts.iter().rev().nth(1).map(fold);
                wildcards.iter().any(|wildcard| wildcard.is_none() || *wildcard == table)
            }
            _ => false,
        };
        let repeated = count > 0 || expanded;
        let unique = if repeated { repeated_name(&name, count + 1) } else { name };
        match item {
            // Columns keep their qualifier as long as nothing repeats.
            SelectItem::UnnamedExpr(expr @ (Expr::Identifier(_) | Expr::CompoundIdentifier(_)))
                if !repeated && !is_outside(expr, tables.as_deref()) => {}
            SelectItem::UnnamedExpr(expr) => {
                let expr = std::mem::replace(expr, null());
                *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', unique) };
            }
            SelectItem::ExprWithAlias { alias, .. } if count > 0 => {
                *alias = Ident::with_quote('"', unique);
            }
            _ => {}
        }
    }
    Ok(())
}

/// What the tables of FROM are called; `None`: something there has no name of its own.
fn table_names(from: &[ast::TableWithJoins]) -> Option<Vec<String>> {
    let joined = from.iter().flat_map(|table| {
        std::iter::once(&table.relation).chain(table.joins.iter().map(|join| &join.relation))
    });
    let name = |factor: &ast::TableFactor| match factor {
        ast::TableFactor::Table { alias: Some(alias), .. }
        | ast::TableFactor::Derived { alias: Some(alias), .. }
        | ast::TableFactor::Function { alias: Some(alias), .. }
        | ast::TableFactor::UNNEST { alias: Some(alias), .. } => Some(fold(&alias.name)),
        ast::TableFactor::Table { name, alias: None, .. }
        | ast::TableFactor::Function { name, alias: None, .. } => {
            name.0.last().and_then(|part| part.as_ident()).map(fold)
        }
        _ => None,
    };
    joined.map(name).collect()
}

/// Whether a column is of a table outside for sure: DataFusion would not call it by its name.
fn is_outside(column: &Expr, tables: Option<&[String]>) -> bool {
    let Some(tables) = tables else { return false };
    match column {
        Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [table, _] => !tables.contains(&fold(table)),
            _ => tables.is_empty(),
        },
        _ => tables.is_empty(),
    }
}

/// The query with marks on the aliases that stand beside a `*`, which may have columns of these
/// names; `None` when there are none, or something else may refer to them.
pub fn with_marked_aliases(query: &Query) -> Option<Query> {
    /// No list has so many items of one name.
    const FIRST: usize = 1_000_000;
    let mut marked = query.clone();
    let SetExpr::Select(select) = marked.body.as_mut() else { return None };
    let aliases: Vec<String> = select
        .projection
        .iter()
        .filter_map(|item| match item {
            SelectItem::ExprWithAlias { alias, .. } => Some(fold(alias)),
            _ => None,
        })
        .collect();
    let sorts_by_alias = match query.order_by.as_ref().map(|order_by| &order_by.kind) {
        None => false,
        Some(ast::OrderByKind::Expressions(sorts)) => sorts.iter().any(|sort| match &sort.expr {
            Expr::Identifier(name) => aliases.contains(&fold(name)),
            _ => false,
        }),
        Some(ast::OrderByKind::All(_)) => true,
    };
    let plain = !sorts_by_alias
        && select.distinct.is_none()
        && select.qualify.is_none()
        && matches!(&select.group_by, ast::GroupByExpr::Expressions(keys, _) if keys.is_empty());
    if !plain || !select.projection.iter().any(|item| wildcard_table(item).is_some()) {
        return None;
    }
    let mut marks = FIRST;
    for item in &mut select.projection {
        if let SelectItem::ExprWithAlias { alias, .. } = item {
            marks += 1;
            *alias = Ident::with_quote('"', repeated_name(&fold(alias), marks));
        }
    }
    (!aliases.is_empty()).then_some(marked)
}

/// The table of `table.*`, and `None` of `*`, when the item is such.
fn wildcard_table(item: &SelectItem) -> Option<Option<String>> {
    match item {
        SelectItem::Wildcard(_) => Some(None),
        SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
            Some(name.0.last().and_then(|part| part.as_ident()).map(fold))
        }
        SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::Expr(_), _) => Some(None),
        _ => None,
    }
}

/// The name that Postgres gives an unnamed select item (FigureColname in its parser).
pub fn column_name(expr: &Expr) -> String {
    name_and_strength(expr).map_or_else(|| "?column?".to_owned(), |(name, _)| name)
}

/// A name and how good it is: 2 for columns and functions, 1 for types and CASE, which give way
/// to a better one inside.
fn name_and_strength(expr: &Expr) -> Option<(String, u8)> {
    let strong = |name: &str| Some((name.to_owned(), 2));
    match expr {
        Expr::Identifier(ident) => Some((fold(ident), 2)),
        Expr::CompoundIdentifier(idents) => idents.last().map(|ident| (fold(ident), 2)),
        Expr::CompoundFieldAccess { root, access_chain } => access_chain
            .iter()
            .rev()
            .find_map(|access| match access {
                ast::AccessExpr::Dot(Expr::Identifier(ident)) => Some((fold(ident), 2)),
                _ => None,
            })
            .or_else(|| name_and_strength(root)),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => name_and_strength(inner),
        Expr::Function(function) => {
            let ident = function.name.0.last()?.as_ident()?;
            let name = fold(ident);
            Some((name, 2))
        }
        Expr::Cast { expr, data_type, .. } => match name_and_strength(expr) {
            Some((name, 2)) => Some((name, 2)),
            _ => Some((type_name(data_type), 1)),
        },
        Expr::TypedString(typed) => Some((type_name(&typed.data_type), 1)),
        Expr::Interval(_) => Some(("interval".to_owned(), 1)),
        Expr::Case { else_result, .. } => {
            match else_result.as_deref().and_then(name_and_strength) {
                Some((name, 2)) => Some((name, 2)),
                _ => Some(("case".to_owned(), 1)),
            }
        }
        Expr::Exists { .. } => strong("exists"),
        Expr::Subquery(query) => subquery_column_name(&query.body).map(|name| (name, 2)),
        Expr::Array(_) => strong("array"),
        Expr::Tuple(_) | Expr::Struct { .. } => strong("row"),
        Expr::Extract { .. } => strong("extract"),
        Expr::Position { .. } => strong("position"),
        Expr::Substring { shorthand, .. } => {
            strong(if *shorthand { "substr" } else { "substring" })
        }
        Expr::Overlay { .. } => strong("overlay"),
        Expr::Ceil { .. } => strong("ceil"),
        Expr::Floor { .. } => strong("floor"),
        Expr::AtTimeZone { .. } => strong("timezone"),
        Expr::Trim { trim_where, .. } => strong(match trim_where {
            Some(ast::TrimWhereField::Leading) => "ltrim",
            Some(ast::TrimWhereField::Trailing) => "rtrim",
            _ => "btrim",
        }),
        _ => None,
    }
}

fn subquery_column_name(body: &SetExpr) -> Option<String> {
    match body {
        SetExpr::Select(select) => match select.projection.first()? {
            SelectItem::UnnamedExpr(expr) => Some(column_name(expr)),
            SelectItem::ExprWithAlias { alias, .. } => Some(fold(alias)),
            _ => None,
        },
        SetExpr::Query(query) => subquery_column_name(&query.body),
        SetExpr::SetOperation { left, .. } => subquery_column_name(left),
        _ => None,
    }
}

/// The parts of a relation's name, folded.
pub fn name_parts(name: &ObjectName) -> Result<Vec<String>> {
    name.0
        .iter()
        .map(|part| match part {
            ObjectNamePart::Identifier(ident) => Ok(fold(ident)),
            ObjectNamePart::Function(_) => {
                Err(Error::user(SqlState::SYNTAX_ERROR, format!("invalid name: {name}")))
            }
        })
        .collect()
}
