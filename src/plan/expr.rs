//! A compiled scalar expression over a batch's columns. DataFusion's physical expressions stop
//! here: everybody else sees `evaluate`.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_expr::expressions::{Column, IsNotNullExpr, Literal};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, split_conjunction};

use crate::types::error::{Error, Result};

mod comparison;
pub mod monotone;

/// An expression over the columns of one input schema. Cheap to clone.
#[derive(Clone)]
pub struct Expr {
    physical: Arc<dyn PhysicalExpr>,
    data_type: DataType,
    nullable: bool,
    /// As SQL, for EXPLAIN and for the record of a row that failed.
    text: Option<Arc<str>>,
    /// A row that fails gives NULL.
    null_on_error: bool,
}

impl Expr {
    pub fn new(physical: Arc<dyn PhysicalExpr>, data_type: DataType, nullable: bool) -> Expr {
        Expr { physical, data_type, nullable, text: None, null_on_error: false }
    }

    /// A column of the input.
    pub fn column(name: &str, index: usize, data_type: DataType, nullable: bool) -> Expr {
        let physical = Arc::new(Column::new(name, index));
        let text = Some(name.into());
        Expr { physical, data_type, nullable, text, null_on_error: false }
    }

    /// With its SQL.
    #[must_use]
    pub fn with_text(self, text: String) -> Expr {
        Expr { text: Some(text.into()), ..self }
    }

    /// With NULL for rows that fail. A column by itself never does.
    #[must_use]
    pub fn null_on_error(self) -> Expr {
        if self.as_column().is_some() {
            return Expr { nullable: true, ..self };
        }
        Expr { nullable: true, null_on_error: true, ..self }
    }

    /// Whether rows that fail give NULL.
    pub fn is_null_on_error(&self) -> bool {
        self.null_on_error
    }

    /// The column's index, when the expression is nothing but a column.
    pub fn as_column(&self) -> Option<usize> {
        self.physical.downcast_ref::<Column>().map(Column::index)
    }

    /// The input columns that it uses, ascending.
    pub fn input_columns(&self) -> Vec<usize> {
        let mut columns: Vec<usize> =
            collect_columns(&self.physical).iter().map(Column::index).collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// The same over a batch that has only these columns of the input, which are all that the
    /// expression uses.
    ///
    /// # Errors
    /// When it uses another one.
    pub fn over_columns(&self, columns: &[usize]) -> Result<Expr> {
        let physical = self.physical.clone().transform_up(|node| {
            let Some(column) = node.downcast_ref::<Column>() else {
                return Ok(Transformed::no(node));
            };
            let place = columns.iter().position(|c| *c == column.index()).ok_or_else(|| {
                datafusion::common::DataFusionError::Internal(format!(
                    "column {} is not among those that are there",
                    column.name()
                ))
            })?;
            let moved: Arc<dyn PhysicalExpr> = Arc::new(Column::new(column.name(), place));
            Ok(Transformed::yes(moved))
        })?;
        Ok(Expr { physical: physical.data, ..self.clone() })
    }

    /// The columns that must not be NULL, where the condition says nothing but that.
    pub fn not_null_columns(&self) -> Option<Vec<usize>> {
        let column = |part: &Arc<dyn PhysicalExpr>| {
            let tested = part.downcast_ref::<IsNotNullExpr>()?.arg();
            tested.downcast_ref::<Column>().map(Column::index)
        };
        split_conjunction(&self.physical).into_iter().map(column).collect()
    }

    /// Whether it is the literal NULL.
    pub fn is_null(&self) -> bool {
        let literal = self.physical.downcast_ref::<Literal>();
        literal.is_some_and(|literal| literal.value().is_null())
    }

    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    pub fn nullable(&self) -> bool {
        self.nullable
    }

    /// One value per row.
    ///
    /// # Errors
    /// When some row cannot be evaluated (overflow, division by zero, bad cast); it does not say
    /// which.
    pub fn evaluate(&self, rows: &RecordBatch) -> Result<ArrayRef> {
        if let Some(index) = self.as_column() {
            return Ok(rows.column(index).clone());
        }
        let value = self.physical.evaluate(rows)?;
        let array = value.into_array(rows.num_rows())?;
        if array.data_type() != &self.data_type {
            return Ok(arrow::compute::cast(&array, &self.data_type)?);
        }
        Ok(array)
    }

    /// Evaluates a condition; NULL counts as false.
    pub fn evaluate_condition(&self, rows: &RecordBatch) -> Result<BooleanArray> {
        let array = self.evaluate(rows)?;
        let condition = array
            .as_any()
            .downcast_ref::<BooleanArray>()
            .ok_or_else(|| Error::internal(format!("condition {self} is not boolean")))?;
        if condition.null_count() == 0 {
            return Ok(condition.clone());
        }
        Ok(arrow::compute::prep_null_mask_filter(condition))
    }
}

/// The same computation; the text may differ.
impl PartialEq for Expr {
    fn eq(&self, other: &Expr) -> bool {
        *self.physical == *other.physical
            && self.data_type == other.data_type
            && self.nullable == other.nullable
            && self.null_on_error == other.null_on_error
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => f.write_str(text),
            None => fmt::Display::fmt(&self.physical, f),
        }
    }
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.physical, f)
    }
}
