//! Windows that build on others: `OVER (w ROWS ...)`, `WINDOW v AS (w ORDER BY ...)`.
//!
//! Each gets the PARTITION BY and ORDER BY of the window that it names, as in Postgres: a window
//! builds on those defined before it, adds an order where there is none, and has its own frame.
//! `OVER w`, without parentheses, is the window itself, which whoever plans the query looks up.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, NamedWindowDefinition, NamedWindowExpr, OrderByKind, Query, Select, SetExpr,
    VisitMut, VisitorMut, WindowSpec, WindowType,
};

use crate::sql::parse::name::normalize as fold;
use crate::types::error::{Error, Result, SqlState};

/// The windows of one SELECT, written out.
struct Windows(Vec<(String, WindowSpec)>);

/// Writes out the windows of a SELECT that build on others.
///
/// # Errors
/// SQLSTATE 42704 for a window that is not defined, 42P20 for what a window may not change.
pub fn write_out(select: &mut Select) -> Result<()> {
    let windows = Windows::of(select)?;
    for (definition, (_, spec)) in select.named_window.iter_mut().zip(&windows.0) {
        definition.1 = NamedWindowExpr::WindowSpec(spec.clone());
    }
    let mut writer = Writer { windows: &windows, depth: 0 };
    done(VisitMut::visit(&mut select.projection, &mut writer))?;
    done(VisitMut::visit(&mut select.qualify, &mut writer))
}

fn done(flow: ControlFlow<Error>) -> Result<()> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// The same in the ORDER BY behind it.
///
/// # Errors
/// As [`write_out`].
pub fn write_out_order(query: &mut Query) -> Result<()> {
    let SetExpr::Select(select) = &*query.body else { return Ok(()) };
    let Some(OrderByKind::Expressions(exprs)) = query.order_by.as_mut().map(|by| &mut by.kind)
    else {
        return Ok(());
    };
    let windows = Windows::of(select)?;
    done(VisitMut::visit(exprs, &mut Writer { windows: &windows, depth: 0 }))
}

impl Windows {
    fn of(select: &Select) -> Result<Windows> {
        let mut windows = Windows(Vec::with_capacity(select.named_window.len()));
        for NamedWindowDefinition(name, definition) in &select.named_window {
            let spec = match definition {
                NamedWindowExpr::NamedWindow(other) => windows.find(other)?.clone(),
                NamedWindowExpr::WindowSpec(spec) => windows.written_out(spec.clone())?,
            };
            windows.0.push((fold(name), spec));
        }
        Ok(windows)
    }

    fn find(&self, name: &Ident) -> Result<&WindowSpec> {
        let wanted = fold(name);
        let found = self.0.iter().find(|(name, _)| *name == wanted);
        found.map(|(_, spec)| spec).ok_or_else(|| {
            let message = format!("window \"{wanted}\" does not exist");
            Error::user(SqlState::UNDEFINED_OBJECT, message)
        })
    }

    fn written_out(&self, mut spec: WindowSpec) -> Result<WindowSpec> {
        let Some(name) = spec.window_name.take() else { return Ok(spec) };
        let base = self.find(&name)?;
        let refused = |what: &str| {
            Error::user(SqlState::WINDOWING_ERROR, format!("{what} window \"{}\"", fold(&name)))
        };
        if !spec.partition_by.is_empty() {
            return Err(refused("cannot override PARTITION BY clause of"));
        }
        if !spec.order_by.is_empty() && !base.order_by.is_empty() {
            return Err(refused("cannot override ORDER BY clause of"));
        }
        if base.window_frame.is_some() {
            let message =
                format!("cannot copy window \"{}\" because it has a frame clause", fold(&name));
            let error = Error::user(SqlState::WINDOWING_ERROR, message);
            return Err(match spec.order_by.is_empty() && spec.window_frame.is_none() {
                true => error.hint("Omit the parentheses in this OVER clause."),
                false => error,
            });
        }
        spec.partition_by = base.partition_by.clone();
        if spec.order_by.is_empty() {
            spec.order_by = base.order_by.clone();
        }
        Ok(spec)
    }
}

/// Writes out windows of calls, but for those of queries within.
struct Writer<'a> {
    windows: &'a Windows,
    depth: usize,
}

impl VisitorMut for Writer<'_> {
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
            && let Some(WindowType::WindowSpec(spec)) = &mut function.over
            && spec.window_name.is_some()
        {
            match self.windows.written_out(spec.clone()) {
                Ok(written) => *spec = written,
                Err(error) => return ControlFlow::Break(error),
            }
        }
        ControlFlow::Continue(())
    }
}
