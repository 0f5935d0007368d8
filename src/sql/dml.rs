//! INSERT, UPDATE and DELETE as queries over their table.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;

use crate::catalog::object::Object;
use crate::plan::expr::Expr;
use crate::sql::query::PlannedQuery;
use crate::types::error::Result;
use crate::types::id::ObjectId;

/// Stands for `excluded` in the query of [`InsertConflict::Update`]: the new rows.
pub const EXCLUDED: ObjectId = ObjectId(u64::MAX);

/// What `ON CONFLICT` says.
#[derive(Clone)]
pub enum InsertConflict {
    /// No clause: as the table says.
    Default,
    /// DO NOTHING.
    Nothing,
    /// DO UPDATE that sets every column to the new value.
    Replace,
    /// Any other DO UPDATE. Run with `contents(table)` and `contents(EXCLUDED)`, it gives for each
    /// new row whose key exists the old row's columns, then the updated row's.
    Update(Box<PlannedQuery>),
}

/// Rows for a table.
#[derive(Clone)]
pub struct PlannedInsert {
    pub table: Arc<Object>,
    /// Whole rows of the table: defaults filled in, generated columns computed, types assigned.
    pub rows: PlannedQuery,
    pub conflict: InsertConflict,
    /// Reads the table's object id as the rows that went in.
    pub returning: Option<PlannedQuery>,
}

/// Rows to change.
#[derive(Clone)]
pub struct PlannedUpdate {
    pub table: Arc<Object>,
    /// The old row's columns, then the new row's; one row per row to change.
    pub rows: PlannedQuery,
    /// Reads the table's object id as the new rows.
    pub returning: Option<PlannedQuery>,
}

/// Rows to delete.
#[derive(Clone)]
pub struct PlannedDelete {
    pub table: Arc<Object>,
    /// The rows' columns.
    pub rows: PlannedQuery,
    /// Reads the table's object id as the deleted rows.
    pub returning: Option<PlannedQuery>,
}

/// Makes whole rows from the columns that COPY or INSERT names.
pub struct RowCompletion {
    /// The columns that are given, in order.
    pub input: SchemaRef,
    /// One per column of the table, over the given columns.
    pub columns: Vec<Expr>,
}

/// The same rows with the table's own schema.
///
/// # Errors
/// SQLSTATE 23502 when a NOT NULL column is NULL.
pub fn check_rows(table: &Object, rows: RecordBatch) -> Result<RecordBatch> {
    for (column, field) in rows.columns().iter().zip(table.schema.fields()) {
        if !field.is_nullable() && column.null_count() > 0 {
            return Err(crate::types::error::Error::user(
                crate::types::error::SqlState::NOT_NULL_VIOLATION,
                format!(
                    "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                    field.name(),
                    table.name.name
                ),
            ));
        }
    }
    Ok(RecordBatch::try_new(table.schema.clone(), rows.columns().to_vec())?)
}

impl PlannedInsert {
    /// With values (arrays of one element) in place of the parameters.
    pub fn bind_parameters(self, values: &[ArrayRef]) -> Result<PlannedInsert> {
        let conflict = match self.conflict {
            InsertConflict::Update(query) => {
                InsertConflict::Update(Box::new(query.bind_parameters(values)?))
            }
            other => other,
        };
        Ok(PlannedInsert {
            table: self.table,
            rows: self.rows.bind_parameters(values)?,
            conflict,
            returning: self.returning.map(|q| q.bind_parameters(values)).transpose()?,
        })
    }
}

impl PlannedUpdate {
    /// With values (arrays of one element) in place of the parameters.
    pub fn bind_parameters(self, values: &[ArrayRef]) -> Result<PlannedUpdate> {
        Ok(PlannedUpdate {
            table: self.table,
            rows: self.rows.bind_parameters(values)?,

            returning: self.returning.map(|q| q.bind_parameters(values)).transpose()?,
        })
    }
}

impl PlannedDelete {
    /// With values (arrays of one element) in place of the parameters.
    pub fn bind_parameters(self, values: &[ArrayRef]) -> Result<PlannedDelete> {
        Ok(PlannedDelete {
            table: self.table,
            rows: self.rows.bind_parameters(values)?,

            returning: self.returning.map(|q| q.bind_parameters(values)).transpose()?,
        })
    }
}
