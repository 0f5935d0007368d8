//! Keeps the SQL type of what other functions pass on.
//!
//! uuid, json and jsonb are told by a field's metadata, which DataFusion's `greatest`, `least`,
//! `nullif` and `make_array` drop. [`marked`] gives a value as it is, in the field it should have.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use crate::types::sql_type::SqlType;

/// Whether only a field's mark tells the type, or that of an array's items.
pub fn is_marked(sql_type: &SqlType) -> bool {
    match sql_type {
        SqlType::Uuid | SqlType::Json | SqlType::Jsonb => true,
        SqlType::Array(item) => is_marked(item),
        _ => false,
    }
}

/// The same values in arrays whose items are marked as those of this type are.
pub fn remarked(values: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    let DataType::List(item) = data_type else { return Ok(values.clone()) };
    let Some(list) = values.as_list_opt::<i32>() else { return Ok(values.clone()) };
    let items = remarked(list.values(), item.data_type())?;
    let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
    Ok(Arc::new(ListArray::try_new(item.clone(), offsets, items, nulls)?))
}

/// One value of a column. [`ScalarValue::try_from_array`] drops the marks of an array's items.
///
/// # Errors
/// For a type that DataFusion has no scalar of.
pub fn scalar_of(column: &ArrayRef, row: usize) -> Result<ScalarValue> {
    match column.data_type() {
        DataType::List(_) => Ok(ScalarValue::List(Arc::new(column.as_list::<i32>().slice(row, 1)))),
        _ => ScalarValue::try_from_array(column, row),
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Marked {
    sql_type: SqlType,
    signature: Signature,
}

/// The function that gives its argument, marked as a value of this type.
pub fn marked(sql_type: SqlType) -> Arc<ScalarUDF> {
    let signature = Signature::any(1, Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(Marked { sql_type, signature }))
}

impl ScalarUDFImpl for Marked {
    fn name(&self) -> &str {
        "marked"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(self.sql_type.to_arrow())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let given = &args.arg_fields[0];
        Ok(Arc::new(self.sql_type.to_field(given.name(), given.is_nullable())))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let given: ArrayRef = arrays.swap_remove(0);
        Ok(ColumnarValue::Array(remarked(&given, args.return_field.data_type())?))
    }
}
