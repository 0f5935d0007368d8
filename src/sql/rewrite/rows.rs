//! Rows compared with rows: what is said column by column.

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, UnaryOperator};

use crate::sql::rewrite::binary;
use crate::types::error::{Error, Result, SqlState};

/// `(a, b) = (c, d)` and `<>`, column by column; the others by the first column that differs.
pub(super) fn compare_rows(op: &BinaryOperator, lefts: &[Expr], rights: &[Expr]) -> Result<Expr> {
    if lefts.len() != rights.len() {
        return Err(Error::user(
            SqlState::SYNTAX_ERROR,
            "unequal number of entries in row expressions",
        ));
    }
    let joint = match op {
        BinaryOperator::Eq => BinaryOperator::And,
        BinaryOperator::NotEq => BinaryOperator::Or,
        BinaryOperator::Lt | BinaryOperator::LtEq => {
            return order_rows(op, &BinaryOperator::Lt, lefts, rights);
        }
        BinaryOperator::Gt | BinaryOperator::GtEq => {
            return order_rows(op, &BinaryOperator::Gt, lefts, rights);
        }
        other => return Err(Error::unsupported(format!("comparing rows with {other}"))),
    };
    let pairs = lefts.iter().zip(rights).map(|(l, r)| binary(l.clone(), op.clone(), r.clone()));
    pairs
        .reduce(|all, next| binary(all, joint.clone(), next))
        .map(|all| Expr::Nested(Box::new(all)))
        .ok_or_else(|| Error::user(SqlState::SYNTAX_ERROR, "a row needs at least one column"))
}

/// `a < c OR (a = c AND b < d)`; the last columns are compared as the operator says.
fn order_rows(
    op: &BinaryOperator,
    strict: &BinaryOperator,
    lefts: &[Expr],
    rights: &[Expr],
) -> Result<Expr> {
    let pairs = lefts.iter().zip(rights).rev();
    let ordered = pairs.fold(None, |behind: Option<Expr>, (left, right)| {
        let (left, right) = (left.clone(), right.clone());
        Some(match behind {
            None => binary(left, op.clone(), right),
            Some(behind) => {
                let equal = binary(left.clone(), BinaryOperator::Eq, right.clone());
                let later = binary(equal, BinaryOperator::And, behind);
                let first = binary(left, strict.clone(), right);
                let later = Expr::Nested(Box::new(later));
                Expr::Nested(Box::new(binary(first, BinaryOperator::Or, later)))
            }
        })
    });
    ordered.ok_or_else(|| Error::user(SqlState::SYNTAX_ERROR, "a row needs at least one column"))
}

/// `(a, b) IN ((1, 2), (3, 4))` as a disjunction.
pub(super) fn row_in_list(row: &Expr, list: &[Expr], negated: bool) -> Result<Expr> {
    let Expr::Tuple(lefts) = row else { return Err(Error::internal("a row was expected")) };
    let mut any: Option<Expr> = None;
    for other in list {
        let Expr::Tuple(rights) = other else {
            return Err(Error::user(
                SqlState::SYNTAX_ERROR,
                "unequal number of entries in row expressions",
            ));
        };
        let equal = compare_rows(&BinaryOperator::Eq, lefts, rights)?;
        any = Some(match any {
            None => equal,
            Some(any) => binary(any, BinaryOperator::Or, equal),
        });
    }
    let any = any.ok_or_else(|| Error::user(SqlState::SYNTAX_ERROR, "IN needs a value"))?;
    let any = Expr::Nested(Box::new(any));
    Ok(if negated { Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(any) } } else { any })
}
