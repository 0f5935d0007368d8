//! Where in the statement an error is.

use std::ops::ControlFlow;

use datafusion::common::DataFusionError;
use datafusion::sql::sqlparser::ast::{self, Visit, Visitor};
use datafusion::sql::sqlparser::tokenizer::Location;

use crate::sql::parse::name::normalize as fold;
use crate::types::error::{Error, SqlState};

/// The 1-based character position of a line and column of the text; `None` for no place at all.
pub fn position_of(sql: &str, location: Location) -> Option<usize> {
    if location.line == 0 || location.column == 0 {
        return None;
    }
    let line = usize::try_from(location.line).ok()? - 1;
    let column = usize::try_from(location.column).ok()?;
    let before: usize = sql.split_inclusive('\n').take(line).map(|l| l.chars().count()).sum();
    let position = before + column;
    (position <= sql.chars().count() + 1).then_some(position)
}

/// DataFusion's error as ours, with the place in the text where the tree tells it.
pub fn locate(error: DataFusionError, sql: &str, tree: &impl Visit) -> Error {
    let span = error.diagnostic().and_then(|d| d.span);
    let position = span.and_then(|span| {
        position_of(sql, Location { line: span.start.line, column: span.start.column })
    });
    let ours = Error::from(error);
    if ours.body().position.is_some() {
        return ours;
    }
    let position = position.or_else(|| position_of(sql, find_named(&ours, tree)?));
    match position {
        Some(position) => ours.position(position),
        None => ours,
    }
}

/// The first place of the name that the message quotes.
fn find_named(error: &Error, tree: &impl Visit) -> Option<Location> {
    let literal = match error.sqlstate() {
        SqlState::INVALID_TEXT_REPRESENTATION
        | SqlState::INVALID_DATETIME_FORMAT
        | SqlState::DATETIME_FIELD_OVERFLOW
        | SqlState::NUMERIC_VALUE_OUT_OF_RANGE => last_quoted(error.message()),
        _ => None,
    };
    if let Some(text) = literal {
        return tree.visit(&mut LiteralFinder { text }).break_value();
    }
    let wanted = match error.sqlstate() {
        SqlState::UNDEFINED_COLUMN
        | SqlState::AMBIGUOUS_COLUMN
        | SqlState::GROUPING_ERROR
        | SqlState::UNDEFINED_FUNCTION
        | SqlState::UNDEFINED_TABLE => named_in(error.message())?,
        _ => return None,
    };
    let mut finder = Finder { wanted };
    match tree.visit(&mut finder) {
        ControlFlow::Break(location) => Some(location),
        ControlFlow::Continue(()) => None,
    }
}

/// The name that a message is about: quoted, or bare before a word or a parenthesis.
fn named_in(message: &str) -> Option<String> {
    if let Some((_, rest)) = message.split_once('"') {
        let (name, _) = rest.split_once('"')?;
        return Some(name.rsplit('.').next()?.to_owned());
    }
    let rest = message.strip_prefix("column ").or_else(|| message.strip_prefix("function "))?;
    let name = rest.split([' ', '(']).next()?;
    Some(name.rsplit('.').next()?.to_owned())
}

/// What the message quotes last: the text that is no value.
fn last_quoted(message: &str) -> Option<&str> {
    let (before, rest) = message.split_once('"')?;
    let text = rest.get(..rest.rfind('"')?)?;
    // `value "x" is out of range for type t` and `invalid input syntax for type t: "x"`.
    (before.ends_with(": ") || before.ends_with("value ")).then_some(text)
}

/// Finds the first string literal of that text.
struct LiteralFinder<'a> {
    text: &'a str,
}

impl Visitor for LiteralFinder<'_> {
    type Break = Location;

    fn pre_visit_value(&mut self, value: &ast::ValueWithSpan) -> ControlFlow<Location> {
        let text = match &value.value {
            ast::Value::SingleQuotedString(text) | ast::Value::EscapedStringLiteral(text) => text,
            _ => return ControlFlow::Continue(()),
        };
        if text == self.text && value.span.start.line > 0 {
            ControlFlow::Break(value.span.start)
        } else {
            ControlFlow::Continue(())
        }
    }
}

struct Finder {
    wanted: String,
}

impl Finder {
    fn check(&self, ident: &ast::Ident, start: Location) -> ControlFlow<Location> {
        if fold(ident) == self.wanted && start.line > 0 {
            ControlFlow::Break(start)
        } else {
            ControlFlow::Continue(())
        }
    }
}

impl Visitor for Finder {
    type Break = Location;

    fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<Location> {
        match expr {
            ast::Expr::Identifier(ident) => self.check(ident, ident.span.start),
            // The whole of `t.c` is the place, as in Postgres.
            ast::Expr::CompoundIdentifier(idents) => match (idents.first(), idents.last()) {
                (Some(first), Some(last)) => self.check(last, first.span.start),
                _ => ControlFlow::Continue(()),
            },
            ast::Expr::Function(function) => {
                match (function.name.0.first(), function.name.0.last()) {
                    (Some(first), Some(last)) => match (first.as_ident(), last.as_ident()) {
                        (Some(first), Some(last)) => self.check(last, first.span.start),
                        _ => ControlFlow::Continue(()),
                    },
                    _ => ControlFlow::Continue(()),
                }
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_over_lines() {
        let sql = "SELECT 'é',\n  nosuch\nFROM t";
        let position = position_of(sql, Location { line: 2, column: 3 }).expect("inside");
        assert_eq!(sql.chars().skip(position - 1).take(6).collect::<String>(), "nosuch");
        assert_eq!(position_of(sql, Location { line: 0, column: 0 }), None);
        assert_eq!(position_of(sql, Location { line: 9, column: 9 }), None);
    }

    #[test]
    fn the_name_in_a_message_is_found() {
        assert_eq!(named_in("column \"x\" does not exist").as_deref(), Some("x"));
        assert_eq!(named_in("column t.x does not exist").as_deref(), Some("x"));
        assert_eq!(named_in("function f(integer) does not exist").as_deref(), Some("f"));
    }
}
