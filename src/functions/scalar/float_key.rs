//! Floats as something to sort and divide rows by: -0.0 is 0.0, and there is one NaN.
//!
//! Arrow orders floats by their bits, in which 0.0 follows -0.0 and a negative NaN comes first. To
//! SQL the zeros are equal, and NaN is the greatest.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float32Array, Float64Array};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// `float_key(x)`, of the type of `x`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct FloatKey {
    signature: Signature,
}

/// The expression to sort by in the place of one of this type.
pub fn sort_key(expr: Expr, data_type: &DataType) -> Expr {
    if !matches!(data_type, DataType::Float32 | DataType::Float64) {
        return expr;
    }
    let signature = Signature::any(1, Volatility::Immutable);
    ScalarUDF::new_from_impl(FloatKey { signature }).call(vec![expr])
}

/// Floats with one zero and one NaN; other columns as they are.
pub fn float_keys(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float64 => {
            let floats = column.as_primitive::<Float64Type>();
            let keys: Float64Array = floats.unary(|v| if v.is_nan() { f64::NAN } else { v + 0.0 });
            Arc::new(keys)
        }
        DataType::Float32 => {
            let floats = column.as_primitive::<Float32Type>();
            let keys: Float32Array = floats.unary(|v| if v.is_nan() { f32::NAN } else { v + 0.0 });
            Arc::new(keys)
        }
        _ => column.clone(),
    }
}

impl ScalarUDFImpl for FloatKey {
    fn name(&self) -> &str {
        "float_key"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Float64))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        Ok(ColumnarValue::Array(float_keys(&columns[0])))
    }
}
