//! Frames of windows: their offsets as DataFusion reads them.

use datafusion::sql::sqlparser::ast::{
    self, DataType, Expr, Value, ValueWithSpan, WindowFrameBound, WindowSpec,
};

use crate::sql::rewrite::null;

/// DataFusion reads the offsets of a frame as they stand: numbers and INTERVAL literals.
pub(super) fn plain_frame(window: &mut WindowSpec) {
    let Some(frame) = &mut window.window_frame else { return };
    for bound in std::iter::once(&mut frame.start_bound).chain(&mut frame.end_bound) {
        let (WindowFrameBound::Preceding(Some(offset)) | WindowFrameBound::Following(Some(offset))) =
            bound
        else {
            continue;
        };
        // The type of a number is decided by what is sorted by.
        while let Expr::Cast { expr: inner, .. } | Expr::Nested(inner) = &mut **offset
            && number_in(inner)
        {
            let inner = std::mem::replace(&mut **inner, null());
            **offset = inner;
        }
        if let Expr::Cast { expr: text, data_type: DataType::Interval { .. }, .. } = &mut **offset
            && matches!(
                **text,
                Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(_), .. })
            )
        {
            let value = std::mem::replace(text, Box::new(null()));
            **offset = Expr::Interval(ast::Interval {
                value,
                leading_field: None,
                leading_precision: None,
                last_field: None,
                fractional_seconds_precision: None,
            });
        }
    }
}

/// Whether an expression is a number under casts and parentheses.
fn number_in(expr: &Expr) -> bool {
    match expr {
        Expr::Cast { expr, .. } | Expr::Nested(expr) => number_in(expr),
        Expr::Value(ValueWithSpan { value: Value::Number(..), .. }) => true,
        _ => false,
    }
}
