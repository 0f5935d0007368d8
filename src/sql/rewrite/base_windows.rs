//! Windows that build on another: `OVER (w ROWS 2 PRECEDING)`, `WINDOW v AS (w ORDER BY x)`.
//!
//! DataFusion does not look at the name within the parentheses; it would plan the window without
//! what it builds on. So that is written out: PARTITION BY of the other window, and its ORDER BY
//! where the window has none of its own. What cannot be copied is an error, as in Postgres.
//!
//! A window's name is known within its SELECT and in the ORDER BY behind it, not in subqueries.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, NamedWindowDefinition, NamedWindowExpr, Query, Select, SetExpr, VisitMut, VisitorMut,
    WindowSpec, WindowType,
};

use crate::sql::parse::name::normalize as fold;
use crate::types::error::{Error, Result, SqlState};

/// Writes out what the windows of a SELECT build on.
///
/// # Errors
/// For a window that is not there, or that cannot be copied (SQLSTATE 42704, 42P20).
pub(super) fn write_out_base_windows(select: &mut Select) -> Result<()> {
    let mut builder = Builder { windows: define(&mut select.named_window)?, depth: 0 };
    builder.build(&mut select.projection)?;
    builder.build(&mut select.distinct)?;
    builder.build(&mut select.qualify)
}

/// The same for the ORDER BY behind a SELECT.
///
/// # Errors
/// As [`write_out_base_windows`].
pub(super) fn write_out_base_windows_of_order(query: &mut Query) -> Result<()> {
    let (Some(order_by), SetExpr::Select(select)) = (&mut query.order_by, &mut *query.body) else {
        return Ok(());
    };
    let mut builder = Builder { windows: define(&mut select.named_window)?, depth: 0 };
    builder.build(order_by)
}

/// The windows of a WINDOW clause by name, written out; each may build on those before it.
fn define(definitions: &mut [NamedWindowDefinition]) -> Result<Vec<(String, WindowSpec)>> {
    let mut windows: Vec<(String, WindowSpec)> = Vec::with_capacity(definitions.len());
    for NamedWindowDefinition(name, window) in definitions {
        if let NamedWindowExpr::WindowSpec(window) = window {
            build_on(window, &windows)?;
            windows.push((fold(name), window.clone()));
        }
    }
    Ok(windows)
}

/// Takes over what a window builds on.
fn build_on(window: &mut WindowSpec, windows: &[(String, WindowSpec)]) -> Result<()> {
    let Some(name) = window.window_name.take() else { return Ok(()) };
    let name = fold(&name);
    let Some((_, base)) = windows.iter().find(|(other, _)| *other == name) else {
        let message = format!("window \"{name}\" does not exist");
        return Err(Error::user(SqlState::UNDEFINED_OBJECT, message));
    };
    let refused = |message: String| Error::user(SqlState::WINDOWING_ERROR, message);
    if !window.partition_by.is_empty() {
        return Err(refused(format!("cannot override PARTITION BY clause of window \"{name}\"")));
    }
    if !window.order_by.is_empty() && !base.order_by.is_empty() {
        return Err(refused(format!("cannot override ORDER BY clause of window \"{name}\"")));
    }
    if base.window_frame.is_some() {
        let message = format!("cannot copy window \"{name}\" because it has a frame clause");
        let error = refused(message);
        return Err(match window.order_by.is_empty() && window.window_frame.is_none() {
            true => error.hint("Omit the parentheses in this OVER clause."),
            false => error,
        });
    }
    window.partition_by.clone_from(&base.partition_by);
    if window.order_by.is_empty() {
        window.order_by.clone_from(&base.order_by);
    }
    Ok(())
}

/// Walks expressions of one SELECT.
struct Builder {
    windows: Vec<(String, WindowSpec)>,
    /// Subqueries around the place of the walk, which know other windows.
    depth: usize,
}

impl Builder {
    fn build(&mut self, expressions: &mut impl VisitMut) -> Result<()> {
        match VisitMut::visit(expressions, self) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        }
    }
}

impl VisitorMut for Builder {
    type Break = Error;

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if self.depth == 0
            && let Expr::Function(function) = expr
            && let Some(WindowType::WindowSpec(window)) = &mut function.over
            && let Err(error) = build_on(window, &self.windows)
        {
            return ControlFlow::Break(error);
        }
        ControlFlow::Continue(())
    }
}
