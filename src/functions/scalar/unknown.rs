//! A function that does not exist.
//!
//! DataFusion asks for functions by name, and says no more than the name when there is none. This
//! one stands in for it until its arguments' types are known, so that the error can tell them.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    TypeSignature, Volatility,
};

use crate::types::error::{Error, SqlState};
use crate::types::sql_type::SqlType;

/// Stands for a function of that name.
pub fn unknown_function(name: &str) -> Arc<ScalarUDF> {
    let signature = Signature::one_of(
        vec![TypeSignature::Nullary, TypeSignature::VariadicAny],
        Volatility::Immutable,
    );
    Arc::new(ScalarUDF::new_from_impl(Unknown { name: name.to_owned(), signature }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Unknown {
    name: String,
    signature: Signature,
}

impl Unknown {
    fn error(&self, types: &[String]) -> DataFusionError {
        let message = format!("function {}({}) does not exist", self.name, types.join(", "));
        let error = Error::user(SqlState::UNDEFINED_FUNCTION, message).hint(
            "No function matches the given name and argument types. You might need to add \
             explicit type casts.",
        );
        DataFusionError::External(Box::new(error))
    }
}

impl ScalarUDFImpl for Unknown {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Err(self.error(&[]))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<String> = args
            .arg_fields
            .iter()
            .zip(args.scalar_arguments)
            .map(|(field, scalar)| match (SqlType::of_field(field), scalar) {
                // A quoted literal has no type yet.
                (Some(SqlType::Text), Some(_)) => "unknown".to_owned(),
                (Some(sql_type), _) => sql_type.to_string(),
                (None, _) => field.data_type().to_string(),
            })
            .collect();
        Err(self.error(&types))
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(self.error(&[]))
    }
}
