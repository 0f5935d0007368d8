//! `coalesce`, `nullif`, `greatest` and `least` of uuid, json and jsonb.
//!
//! These types are told by a field's metadata, which DataFusion's functions drop; then no operator
//! of theirs is found for the result (`nullif(j, '1') -> 'a'`). The functions are wrapped: the
//! result is marked as the arguments are, and a quoted literal beside such a value does not keep
//! the call from being planned. `sql::coerce` gives the literal its type afterwards, or refuses
//! what is text and no literal.

use std::sync::Arc;

use arrow::compute::can_cast_types;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};

use crate::functions::scalar::marked::{is_marked, marked};
use crate::types::sql_type::SqlType;

/// The functions that are wrapped.
pub const PASSING: [&str; 4] = ["coalesce", "nullif", "greatest", "least"];

#[derive(Debug, PartialEq, Eq, Hash)]
struct Passing {
    inner: Arc<ScalarUDF>,
    signature: Signature,
}

/// A function that gives one of its arguments, with the argument's mark.
pub fn passing(inner: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(Passing { inner, signature }))
}

/// The type of the first argument that only a mark tells.
fn mark_of(fields: &[FieldRef]) -> Option<SqlType> {
    let mut types = fields.iter().filter_map(|field| SqlType::of_field(field));
    types.find(is_marked)
}

impl ScalarUDFImpl for Passing {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        // Text may be a quoted literal, which takes the type of what stands beside it.
        let untyped = |t: &DataType| matches!(t, DataType::Utf8 | DataType::Null);
        if types.len() > 1
            && let Some(typed) = types.iter().find(|t| !untyped(t))
            && types.iter().all(|t| untyped(t) || t == typed)
        {
            // DataFusion wants what Arrow can cast; the literal is cast before anything runs.
            let castable = can_cast_types(&DataType::Utf8, typed);
            let known = types.iter().map(|t| match t {
                DataType::Utf8 if !castable => t.clone(),
                _ => typed.clone(),
            });
            return Ok(known.collect());
        }
        let fields: Vec<FieldRef> =
            types.iter().map(|t| Arc::new(Field::new("", t.clone(), true))).collect();
        let fields = fields_with_udf(&fields, self.inner.as_ref())?;
        Ok(fields.iter().map(|f| f.data_type().clone()).collect())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        match mark_of(args.arg_fields) {
            Some(sql_type) => Ok(Arc::new(sql_type.to_field(self.name(), true))),
            None => self.inner.return_field_from_args(args),
        }
    }

    // Of a coalesce: a CASE, which forgets the mark.
    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let fields = args.iter().map(|arg| Ok(arg.to_field(info.schema().as_ref())?.1));
        let mark = mark_of(&fields.collect::<Result<Vec<FieldRef>>>()?);
        Ok(match (self.inner.simplify(args, info)?, mark) {
            (ExprSimplifyResult::Simplified(expr), Some(sql_type)) => {
                ExprSimplifyResult::Simplified(marked(sql_type).call(vec![expr]))
            }
            (result, _) => result,
        })
    }

    fn conditional_arguments<'a>(
        &self,
        args: &'a [Expr],
    ) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.inner.conditional_arguments(args)
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.inner.invoke_with_args(args)
    }
}
