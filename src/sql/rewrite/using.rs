//! `JOIN ... USING (k)`: the one column that stands for both sides' `k`.
//!
//! DataFusion takes the left side's column for it, which is NULL where only the right side has a
//! row, and leaves it among the left side's columns in `*`. In Postgres it is the right side's
//! column of a RIGHT JOIN, whichever is there of a FULL JOIN, and comes first in `*`:
//!
//! 1. Where RIGHT and FULL joins are about, USING becomes ON, and `k` what it stands for.
//! 2. `*` becomes these columns, and the others table by table.
//! 3. In WHERE `k` becomes what it stands for with other joins, too: there DataFusion does not know it.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, ExcludeSelectItem, Expr, Ident, JoinConstraint, JoinOperator, ObjectName,
    Query, Select, SelectItem, SelectItemQualifiedWildcardKind, VisitMut, VisitorMut,
    WildcardAdditionalOptions,
};

use crate::sql::parse::name::normalize as fold;
use crate::sql::rewrite::names::table_names;
use crate::sql::rewrite::{binary, call, null};
use crate::types::error::{Error, Result};

/// A column that joins have merged.
struct Merged {
    name: String,
    /// What it is.
    value: Expr,
    /// The tables whose columns it stands for, by their place in FROM.
    tables: Vec<usize>,
}

/// Which side's column may be NULL where the other's is not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Left,
    Right,
    Full,
}

fn kind_and_constraint(operator: &mut JoinOperator) -> Option<(Kind, &mut JoinConstraint)> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint) => Some((Kind::Left, constraint)),
        JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => {
            Some((Kind::Right, constraint))
        }
        JoinOperator::FullOuter(constraint) => Some((Kind::Full, constraint)),
        _ => None,
    }
}

fn quoted(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

fn column_of(table: &str, column: &str) -> Expr {
    Expr::CompoundIdentifier(vec![quoted(table), quoted(column)])
}

/// Steps 1 to 3.
///
/// # Errors
/// SQLSTATE 0A000 for RIGHT and FULL joins whose merged column cannot be told.
pub(super) fn merge_joined_columns(select: &mut Select) -> Result<()> {
    let Some(tables) = table_names(&select.from) else { return Ok(()) };
    let [from] = select.from.as_mut_slice() else { return Ok(()) };
    let mut merged: Vec<Merged> = vec![];
    // Whether some merged column is another than DataFusion takes.
    let mut differs = false;
    // Whether all of them are known.
    let mut known = true;
    // Columns that are the joined table's own, whichever table before it has them.
    let mut equal: Vec<(String, Expr)> = vec![];
    for (place, join) in from.joins.iter_mut().enumerate() {
        let is_inner =
            matches!(&join.join_operator, JoinOperator::Join(_) | JoinOperator::Inner(_));
        let Some((kind, constraint)) = kind_and_constraint(&mut join.join_operator) else {
            continue;
        };
        let names: Vec<String> = match &*constraint {
            JoinConstraint::Using(names) => names
                .iter()
                .filter_map(|name| name.0.last().and_then(|part| part.as_ident()).map(fold))
                .collect(),
            JoinConstraint::Natural if kind != Kind::Left => {
                return Err(Error::unsupported("NATURAL RIGHT and FULL JOIN")
                    .hint("Write USING with the columns that both sides have."));
            }
            JoinConstraint::Natural => {
                known = false;
                continue;
            }
            _ => continue,
        };
        // The joined table is the next in FROM.
        let right_place = place + 1;
        for name in &names {
            let right = column_of(&tables[right_place], name);
            let before = merged.iter().position(|column| column.name == *name);
            let left = match before {
                Some(before) => merged[before].value.clone(),
                None if place == 0 => column_of(&tables[0], name),
                None if kind == Kind::Left => {
                    known = false;
                    if is_inner {
                        equal.push((name.clone(), right));
                    }
                    continue;
                }
                None => {
                    return Err(Error::unsupported("RIGHT or FULL JOIN USING behind other joins")
                        .hint("Write ON, and coalesce() of both columns where one is meant."));
                }
            };
            differs |= kind != Kind::Left;
            let value = match kind {
                Kind::Left => left,
                Kind::Right => right,
                Kind::Full => call("coalesce", vec![left, right]),
            };
            match before {
                Some(before) => {
                    merged[before].value = value;
                    merged[before].tables.push(right_place);
                }
                None => {
                    merged.push(Merged { name: name.clone(), value, tables: vec![0, right_place] })
                }
            }
        }
    }
    if !differs {
        let columns = merged.iter().map(|column| (column.name.clone(), column.value.clone()));
        let mut replacer = Replacer { columns: columns.chain(equal).collect(), depth: 0 };
        let _ = VisitMut::visit(&mut select.selection, &mut replacer);
    }
    if merged.is_empty() || differs && !known {
        return match differs {
            true => Err(Error::unsupported("RIGHT or FULL JOIN USING beside such joins")
                .hint("Write ON, and coalesce() of both columns where one is meant.")),
            false => Ok(()),
        };
    }
    if known {
        spread_wildcards(select, &tables, &merged);
    }
    if differs {
        join_on(select, &tables);
        let names = merged.iter().map(|column| (column.name.clone(), column.value.clone()));
        let mut replacer = Replacer { columns: names.collect(), depth: 0 };
        let _ = VisitMut::visit(&mut select.projection, &mut replacer);
        let _ = VisitMut::visit(&mut select.selection, &mut replacer);
        let _ = VisitMut::visit(&mut select.group_by, &mut replacer);
        let _ = VisitMut::visit(&mut select.having, &mut replacer);
        let _ = VisitMut::visit(&mut select.qualify, &mut replacer);
        let _ = VisitMut::visit(&mut select.named_window, &mut replacer);
    }
    Ok(())
}

/// USING as ON, over what the columns are at each join.
fn join_on(select: &mut Select, tables: &[String]) {
    let [from] = select.from.as_mut_slice() else { return };
    let mut values: Vec<(String, Expr)> = vec![];
    for (place, join) in from.joins.iter_mut().enumerate() {
        let Some((kind, constraint)) = kind_and_constraint(&mut join.join_operator) else {
            continue;
        };
        let JoinConstraint::Using(names) = &*constraint else { continue };
        let mut condition: Option<Expr> = None;
        for name in names {
            let Some(name) = name.0.last().and_then(|part| part.as_ident()).map(fold) else {
                continue;
            };
            let right = column_of(&tables[place + 1], &name);
            let before = values.iter().position(|(other, _)| *other == name);
            let left = match before {
                Some(before) => values[before].1.clone(),
                None => column_of(&tables[0], &name),
            };
            let equal = binary(left.clone(), BinaryOperator::Eq, right.clone());
            condition = Some(match condition {
                None => equal,
                Some(all) => binary(all, BinaryOperator::And, equal),
            });
            let value = match kind {
                Kind::Left => left,
                Kind::Right => right,
                Kind::Full => call("coalesce", vec![left, right]),
            };
            match before {
                Some(before) => values[before].1 = value,
                None => values.push((name, value)),
            }
        }
        if let Some(condition) = condition {
            *constraint = JoinConstraint::On(condition);
        }
    }
}

/// `*` as the merged columns, those of the last join first, and the other columns of each table.
fn spread_wildcards(select: &mut Select, tables: &[String], merged: &[Merged]) {
    let plain = |options: &WildcardAdditionalOptions| {
        options.opt_ilike.is_none()
            && options.opt_exclude.is_none()
            && options.opt_except.is_none()
            && options.opt_replace.is_none()
            && options.opt_rename.is_none()
            && options.opt_alias.is_none()
    };
    let mut items = vec![];
    for item in std::mem::take(&mut select.projection) {
        let SelectItem::Wildcard(options) = &item else {
            items.push(item);
            continue;
        };
        if !plain(options) {
            items.push(item);
            continue;
        }
        let last = |column: &Merged| column.tables.last().copied().unwrap_or(0);
        let mut columns: Vec<&Merged> = merged.iter().collect();
        columns.sort_by_key(|column| std::cmp::Reverse(last(column)));
        items.extend(columns.iter().map(|column| SelectItem::ExprWithAlias {
            expr: column.value.clone(),
            alias: quoted(&column.name),
        }));
        for (place, table) in tables.iter().enumerate() {
            let own = merged.iter().filter(|column| column.tables.contains(&place));
            let excluded: Vec<ObjectName> =
                own.map(|column| ObjectName::from(vec![quoted(&column.name)])).collect();
            let exclude = (!excluded.is_empty()).then_some(ExcludeSelectItem::Multiple(excluded));
            let name = ObjectName::from(vec![quoted(table)]);
            items.push(SelectItem::QualifiedWildcard(
                SelectItemQualifiedWildcardKind::ObjectName(name),
                WildcardAdditionalOptions { opt_exclude: exclude, ..Default::default() },
            ));
        }
    }
    select.projection = items;
}

/// Puts what merged columns are into expressions, not into subqueries, which may have columns of
/// these names.
struct Replacer {
    columns: Vec<(String, Expr)>,
    depth: usize,
}

impl VisitorMut for Replacer {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    // After what it stands for has been put in, nobody looks at that again.
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.depth == 0
            && let Expr::Identifier(name) = &*expr
        {
            let name = fold(name);
            if let Some((_, value)) = self.columns.iter().find(|(column, _)| *column == name) {
                *expr = value.clone();
            }
        }
        ControlFlow::Continue(())
    }
}

/// Names select items that are merged columns: what they stand for is called otherwise.
pub(super) fn name_merged_columns(select: &mut Select) {
    let uses = select.from.iter().flat_map(|from| &from.joins).any(|join| {
        matches!(
            &join.join_operator,
            JoinOperator::Right(JoinConstraint::Using(_))
                | JoinOperator::RightOuter(JoinConstraint::Using(_))
                | JoinOperator::FullOuter(JoinConstraint::Using(_))
        )
    });
    if !uses {
        return;
    }
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr @ Expr::Identifier(_)) = item {
            let expr = std::mem::replace(expr, null());
            let Expr::Identifier(name) = &expr else { continue };
            let alias = name.clone();
            *item = SelectItem::ExprWithAlias { expr, alias };
        }
    }
}
