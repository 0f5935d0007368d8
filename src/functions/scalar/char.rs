//! `char(n)`: text that is kept without the blanks at its end, and shown filled up to n characters.
//!
//! So equal values are equal text, their length does not count the blanks, and other text that is
//! made of them has none: all as in Postgres. What shows values looks at the column's mark.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringBuilder};
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use crate::types::sql_type::{Modifier, SqlType};

/// `as_char(text, n)`: a cast to `char(n)`, which cuts.
pub const AS_CHAR: &str = "as_char";

/// The function.
pub fn as_char() -> Arc<ScalarUDF> {
    let types = vec![DataType::Utf8, DataType::Int64];
    let signature = Signature::exact(types, Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(AsChar { signature }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct AsChar {
    signature: Signature,
}

impl ScalarUDFImpl for AsChar {
    fn name(&self) -> &str {
        AS_CHAR
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let field = SqlType::Text.to_field(AS_CHAR, true);
        let length = match args.scalar_arguments.get(1) {
            Some(Some(ScalarValue::Int64(length))) => *length,
            Some(Some(ScalarValue::Int32(length))) => length.map(i64::from),
            _ => None,
        };
        let length = length.ok_or_else(|| {
            DataFusionError::Internal("the length of char(n) is a literal".to_owned())
        })?;
        Ok(Arc::new(Modifier::Char(length).mark(field)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let [texts, lengths] = columns.as_slice() else {
            return Err(DataFusionError::Internal("as_char has two arguments".to_owned()));
        };
        let lengths = lengths.as_primitive::<Int64Type>();
        let mut cut = StringBuilder::with_capacity(texts.len(), 0);
        for (text, length) in texts.as_string::<i32>().iter().zip(lengths) {
            match text.zip(length) {
                Some((text, length)) => {
                    let end = text.char_indices().nth(usize::try_from(length).unwrap_or(0));
                    let text = &text[..end.map_or(text.len(), |(at, _)| at)];
                    cut.append_value(text.trim_end_matches(' '));
                }
                None => cut.append_null(),
            }
        }
        let cut: ArrayRef = Arc::new(cut.finish());
        Ok(match scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&cut, 0)?),
            false => ColumnarValue::Array(cut),
        })
    }
}
