//! The value of a scalar subquery that may give several rows.
//!
//! `sql::subquery` makes such a subquery count its rows beside its value; [`single_row`] gives the
//! value, or says that there were too many rows. It stands in the expression around the subquery,
//! so that the row fails for which the subquery was computed.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use crate::types::error::{Error, SqlState};

/// `single_row(struct(count, value))`: the value, whose column is `field`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct SingleRow {
    field: FieldRef,
    signature: Signature,
}

/// The function for values of this column.
pub fn single_row(field: &FieldRef) -> Arc<ScalarUDF> {
    let field = Arc::new(field.as_ref().clone().with_nullable(true));
    let signature = Signature::any(1, Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(SingleRow { field, signature }))
}

impl ScalarUDFImpl for SingleRow {
    fn name(&self) -> &str {
        "single_row"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(self.field.data_type().clone())
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(self.field.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [counted] = ColumnarValue::values_to_arrays(&args.args)?
            .try_into()
            .map_err(|_| DataFusionError::Internal("single_row has one argument".to_owned()))?;
        let counted = counted.as_struct();
        let (counts, values) = (counted.column(0).as_primitive::<Int64Type>(), counted.column(1));
        let several =
            |row: usize| counted.is_valid(row) && counts.is_valid(row) && counts.value(row) > 1;
        if (0..counted.len()).any(several) {
            return Err(DataFusionError::External(Box::new(Error::user(
                SqlState::CARDINALITY_VIOLATION,
                "more than one row returned by a subquery used as an expression",
            ))));
        }
        // Where there is no struct there is no value.
        let values = match counted.nulls() {
            Some(nulls) => {
                let absent = arrow::array::BooleanArray::new(!nulls.inner(), None);
                arrow::compute::nullif(values, &absent)?
            }
            None => values.clone(),
        };
        Ok(ColumnarValue::Array(values))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int32Array, Int64Array, StructArray};
    use arrow::buffer::NullBuffer;
    use arrow::datatypes::{Field, Fields};
    use datafusion::config::ConfigOptions;

    use super::*;

    fn run(counts: Vec<i64>, values: Vec<Option<i32>>, there: Vec<bool>) -> Result<Vec<String>> {
        let field = Arc::new(Field::new("value", DataType::Int32, true));
        let fields =
            Fields::from(vec![Field::new("count", DataType::Int64, true), field.as_ref().clone()]);
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::from(counts)), Arc::new(Int32Array::from(values))];
        let counted = StructArray::new(fields, columns, Some(NullBuffer::from(there)));
        let rows = counted.len();
        let value = single_row(&field).invoke_with_args(ScalarFunctionArgs {
            args: vec![ColumnarValue::Array(Arc::new(counted))],
            arg_fields: vec![],
            number_rows: rows,
            return_field: field,
            config_options: Arc::new(ConfigOptions::new()),
        })?;
        let value = value.into_array(rows)?;
        let values = value.as_primitive::<arrow::datatypes::Int32Type>();
        Ok(values.iter().map(|v| format!("{v:?}")).collect())
    }

    #[test]
    fn one_row_has_a_value_and_two_are_an_error() {
        let values = run(
            vec![1, 0, 1, 1],
            vec![Some(5), None, None, Some(7)],
            vec![true, true, true, false],
        );
        assert_eq!(values.expect("one row each"), ["Some(5)", "None", "None", "None"]);
        let error =
            run(vec![1, 2], vec![Some(5), Some(6)], vec![true, true]).expect_err("two rows");
        assert!(error.to_string().contains("more than one row"), "{error}");
        let absent = run(vec![2], vec![Some(5)], vec![false]);
        assert_eq!(absent.expect("no subquery, no rows"), ["None"]);
    }
}
