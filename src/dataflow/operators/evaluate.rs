//! Expressions over batches in which single rows may fail.
//!
//! An expression fails for a batch without saying for which row. The batch is then halved until
//! the failing rows stand alone; a batch without failures costs nothing extra, and k failing rows
//! of n cost about k log n evaluations of ever smaller parts. A row that stands alone counts as
//! failed whatever it failed of, unless the outside world did (out of memory): that stops the
//! dataflow.
//!
//! An expression that is marked so gives NULL for rows that fail, which then count as good.
//!
//! The parts' results are put together, not evaluated again: DataFusion leaves out the right side
//! of AND and OR by looking at a whole batch, so rows that pass in parts may fail together.

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, new_empty_array, new_null_array};
use arrow::compute;

use crate::dataflow::operator::{Output, RowError};
use crate::functions::scalar::cast::shown_value;
use crate::plan::expr::Expr;
use crate::types::error::{Error, ErrorKind, Result};

/// The values of an expression over a batch.
#[derive(Debug)]
pub struct Evaluated {
    /// One value per row; NULL where the row failed.
    pub values: ArrayRef,
    /// Rows that failed, ascending.
    pub failed: Vec<(usize, Error)>,
}

/// Evaluates `expr` over `rows` as far as it goes.
///
/// # Errors
/// When the outside world failed.
pub fn evaluate(expr: &Expr, rows: &RecordBatch) -> Result<Evaluated> {
    if rows.num_rows() == 0 {
        return Ok(Evaluated { values: new_empty_array(expr.data_type()), failed: vec![] });
    }
    let (mut parts, mut failed) = (Vec::new(), Vec::new());
    evaluate_part(expr, rows, 0, &mut parts, &mut failed)?;
    if expr.is_null_on_error() {
        failed.clear();
    }
    let values = match parts.as_slice() {
        [whole] => whole.clone(),
        parts => compute::concat(&parts.iter().map(|p| p.as_ref()).collect::<Vec<_>>())?,
    };
    assert_eq!(values.len(), rows.num_rows(), "one value per row");
    Ok(Evaluated { values, failed })
}

/// `first` is the number of the part's first row.
fn evaluate_part(
    expr: &Expr,
    part: &RecordBatch,
    first: usize,
    parts: &mut Vec<ArrayRef>,
    failed: &mut Vec<(usize, Error)>,
) -> Result<()> {
    let length = part.num_rows();
    match expr.evaluate(part) {
        Ok(values) => parts.push(values),
        Err(error) if error.kind() == ErrorKind::External => return Err(error),
        Err(error) if length == 1 => {
            failed.push((first, error));
            parts.push(new_null_array(expr.data_type(), 1));
        }
        Err(_) => {
            let half = length / 2;
            evaluate_part(expr, &part.slice(0, half), first, parts, failed)?;
            let rest = part.slice(half, length - half);
            evaluate_part(expr, &rest, first + half, parts, failed)?;
        }
    }
    Ok(())
}

/// Evaluates a condition over `rows`; NULL and failure count as false.
///
/// # Errors
/// When the outside world failed, or the expression is not boolean (ours).
pub fn evaluate_condition(
    expr: &Expr,
    rows: &RecordBatch,
) -> Result<(BooleanArray, Vec<(usize, Error)>)> {
    let Evaluated { values, failed } = evaluate(expr, rows)?;
    let condition = values
        .as_any()
        .downcast_ref::<BooleanArray>()
        .ok_or_else(|| Error::internal(format!("condition {expr} is not boolean")))?;
    let condition = match condition.null_count() {
        0 => condition.clone(),
        _ => compute::prep_null_mask_filter(condition),
    };
    Ok((condition, failed))
}

/// Reports rows that failed in `expr`, each with the weight it has.
pub fn report(
    expr: &Expr,
    rows: &RecordBatch,
    failed: Vec<(usize, Error)>,
    weight: impl Fn(usize) -> i64,
    out: &mut Output,
) -> Result<()> {
    for (row, error) in failed {
        out.row_error(RowError {
            error,
            expression: expr.to_string(),
            row: shown_row(rows, row),
            weight: weight(row),
        });
    }
    Ok(())
}

/// A row as records of errors show it, with its values as SQL prints them.
pub fn shown_row(rows: &RecordBatch, row: usize) -> String {
    let schema = rows.schema_ref();
    let values: Vec<String> = rows
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| shown_value(column, field, row))
        .collect();
    format!("({})", values.join(", "))
}
