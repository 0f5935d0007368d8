//! Rows compared with the rows of a subquery: `(a, b) IN (SELECT x, y ...)`, `(a, b) = (SELECT ...)`.
//!
//! 1. Where only true counts (what WHERE asks for) IN is `EXISTS (SELECT ... WHERE a = x AND b = y)`,
//!    and NOT IN is `NOT EXISTS (SELECT ... WHERE (a = x AND b = y) IS NOT FALSE)`.
//! 2. Elsewhere it is true, unknown or false by whether rows are equal, and whether they may be.
//! 3. A comparison with one row is a subquery that compares.

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, Expr, Ident, Query, TableAlias, TableAliasColumnDef, TableFactor,
    TableWithJoins, Value, ValueWithSpan,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::null;
use super::rows::compare_rows;
use crate::sql::dml::build::query_of;
use crate::types::error::Result;

/// The rows of the subquery; nobody else has columns of such names.
const ROWS: &str = "rows of a subquery";

/// `lefts` among the rows of a query, or not.
struct Among {
    lefts: Vec<Expr>,
    query: Query,
    negated: bool,
}

/// Step 1, for what a condition asks for.
pub(super) fn rows_in_condition(condition: &mut Expr) -> Result<()> {
    match condition {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            rows_in_condition(left)?;
            rows_in_condition(right)
        }
        Expr::Nested(inner) => rows_in_condition(inner),
        other => {
            let Some(Among { lefts, query, negated }) = among(other) else { return Ok(()) };
            *other = match negated {
                false => exists(query, &lefts, |equal| equal, false)?,
                true => exists(query, &lefts, |equal| Expr::IsNotFalse(Box::new(equal)), true)?,
            };
            Ok(())
        }
    }
}

/// Steps 2 and 3.
pub(super) fn rows_in_subquery(expr: &mut Expr) -> Result<()> {
    if let Expr::BinaryOp { left, op, right } = expr
        && let Expr::Tuple(lefts) = left.as_ref()
        && let Expr::Subquery(query) = right.as_ref()
    {
        let condition = compare_rows(op, lefts, &columns(lefts.len()))?;
        let compared =
            query_of(vec![condition], rows_of(query.as_ref().clone(), lefts.len()), None);
        *expr = Expr::Subquery(Box::new(compared));
        return Ok(());
    }
    let Some(Among { lefts, query, negated }) = among(expr) else { return Ok(()) };
    let when = |condition: Expr, result: Expr| CaseWhen { condition, result };
    let is = |value: bool| {
        Expr::Value(ValueWithSpan { value: Value::Boolean(value), span: Span::empty() })
    };
    let unknown = |equal| Expr::IsUnknown(Box::new(equal));
    let conditions = vec![
        when(exists(query.clone(), &lefts, |equal| equal, false)?, is(!negated)),
        when(exists(query, &lefts, unknown, false)?, null()),
    ];
    *expr = Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions,
        else_result: Some(Box::new(is(negated))),
    };
    Ok(())
}

fn among(expr: &mut Expr) -> Option<Among> {
    let (left, query, negated) = match expr {
        Expr::InSubquery { expr, subquery, negated } => (expr, subquery, *negated),
        Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } => match right.as_mut() {
            Expr::Subquery(query) => (left, query, false),
            _ => return None,
        },
        Expr::AllOp { left, compare_op: BinaryOperator::NotEq, right } => match right.as_mut() {
            Expr::Subquery(query) => (left, query, true),
            _ => return None,
        },
        _ => return None,
    };
    let Expr::Tuple(lefts) = left.as_mut() else { return None };
    Some(Among { lefts: std::mem::take(lefts), query: query.as_ref().clone(), negated })
}

/// EXISTS over the rows for which what is made of "equal" is true.
fn exists(
    query: Query,
    lefts: &[Expr],
    test: impl FnOnce(Expr) -> Expr,
    negated: bool,
) -> Result<Expr> {
    let equal = compare_rows(&BinaryOperator::Eq, lefts, &columns(lefts.len()))?;
    let one = Expr::Value(ValueWithSpan {
        value: Value::Number("1".to_owned(), false),
        span: Span::empty(),
    });
    let found = query_of(vec![one], rows_of(query, lefts.len()), Some(test(equal)));
    Ok(Expr::Exists { subquery: Box::new(found), negated })
}

fn name_of(column: usize) -> Ident {
    Ident::with_quote('"', format!("value {column}"))
}

fn columns(count: usize) -> Vec<Expr> {
    let rows = Ident::with_quote('"', ROWS);
    (0..count).map(|c| Expr::CompoundIdentifier(vec![rows.clone(), name_of(c)])).collect()
}

/// The query's rows in FROM.
fn rows_of(query: Query, count: usize) -> Vec<TableWithJoins> {
    let column = |column| TableAliasColumnDef { name: name_of(column), data_type: None };
    let relation = TableFactor::Derived {
        lateral: false,
        subquery: Box::new(query),
        alias: Some(TableAlias {
            explicit: true,
            name: Ident::with_quote('"', ROWS),
            columns: (0..count).map(column).collect(),
            at: None,
        }),
        sample: None,
    };
    vec![TableWithJoins { relation, joins: vec![] }]
}
