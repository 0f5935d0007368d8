//! A window that builds on a named one (`OVER (w ROWS 1 PRECEDING)`, `w2 AS (w ORDER BY a)`): gets
//! the other's PARTITION BY and ORDER BY. DataFusion takes it for one of its own.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, NamedWindowDefinition, NamedWindowExpr, Query, Select, VisitMut, VisitorMut,
    WindowSpec, WindowType,
};

use crate::sql::parse::name::normalize as fold;
use crate::types::error::{Error, Result, SqlState};

const WINDOWING_ERROR: SqlState = SqlState("42P20");

/// Windows by name.
type Known = Vec<(String, WindowSpec)>;

/// Writes out what windows of a SELECT take from others.
///
/// # Errors
/// As Postgres has them: no such window (42704), or one that cannot be built on (42P20).
pub(super) fn inherit_windows(select: &mut Select) -> Result<()> {
    let mut known: Known = Vec::new();
    for NamedWindowDefinition(name, window) in &mut select.named_window {
        if let NamedWindowExpr::WindowSpec(window) = window {
            inherit(window, &known)?;
            known.push((fold(name), window.clone()));
        }
    }
    let mut visitor = Inheriting { known, depth: 0 };
    for item in &mut select.projection {
        if let ControlFlow::Break(error) = item.visit(&mut visitor) {
            return Err(error);
        }
    }
    match select.qualify.visit(&mut visitor) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Inheriting {
    known: Known,
    /// Queries around: these have windows of their own.
    depth: usize,
}

impl VisitorMut for Inheriting {
    type Break = Error;

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Error> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Error> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if self.depth == 0
            && let Expr::Function(function) = expr
            && let Some(WindowType::WindowSpec(window)) = &mut function.over
            && let Err(error) = inherit(window, &self.known)
        {
            return ControlFlow::Break(error);
        }
        ControlFlow::Continue(())
    }
}

fn inherit(window: &mut WindowSpec, known: &[(String, WindowSpec)]) -> Result<()> {
    let Some(name) = window.window_name.take() else { return Ok(()) };
    let base = base_of(&name, known)?;
    let refused = |what: &str| {
        Err(Error::user(WINDOWING_ERROR, format!("cannot {what} of window \"{}\"", fold(&name))))
    };
    if !window.partition_by.is_empty() {
        return refused("override PARTITION BY clause");
    }
    if !window.order_by.is_empty() && !base.order_by.is_empty() {
        return refused("override ORDER BY clause");
    }
    if base.window_frame.is_some() {
        return Err(Error::user(
            WINDOWING_ERROR,
            format!("cannot copy window \"{}\" because it has a frame clause", fold(&name)),
        )
        .hint("Omit the parentheses in this OVER clause."));
    }
    window.partition_by.clone_from(&base.partition_by);
    if window.order_by.is_empty() {
        window.order_by.clone_from(&base.order_by);
    }
    Ok(())
}

fn base_of<'a>(name: &Ident, known: &'a [(String, WindowSpec)]) -> Result<&'a WindowSpec> {
    let name = fold(name);
    known.iter().find(|(other, _)| *other == name).map(|(_, window)| window).ok_or_else(|| {
        Error::user(SqlState::UNDEFINED_OBJECT, format!("window \"{name}\" does not exist"))
    })
}
