//! How many copies of a row EXCEPT ALL and INTERSECT ALL give, and the copies.
//!
//! `sql::bags` plans both as counts of each distinct row on both sides. [`copy_count`] says how
//! many copies there are, [`copies`] makes an array of that length, which UNNEST turns into rows.
//! A dataflow multiplies weights instead.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::types::error::{Error, SqlState};

/// Which set operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BagOp {
    Except,
    Intersect,
}

/// `copy_count(left, right) -> bigint`, of two bigints that are not NULL.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CopyCount {
    op: BagOp,
    signature: Signature,
}

/// The function that says how many copies an operation gives.
pub fn copy_count(op: BagOp) -> Arc<ScalarUDF> {
    let types = vec![DataType::Int64, DataType::Int64];
    let signature = Signature::exact(types, Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(CopyCount { op, signature }))
}

impl ScalarUDFImpl for CopyCount {
    fn name(&self) -> &str {
        match self.op {
            BagOp::Except => "except_copies",
            BagOp::Intersect => "intersect_copies",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = ColumnarValue::values_to_arrays(&args.args)?
            .try_into()
            .map_err(|_| DataFusionError::Internal("copies are counted on two sides".to_owned()))?;
        let (left, right) = (left.as_primitive::<Int64Type>(), right.as_primitive::<Int64Type>());
        let count = |left: i64, right: i64| match self.op {
            BagOp::Except => left.saturating_sub(right).max(0),
            BagOp::Intersect => left.min(right),
        };
        let counts: Int64Array = arrow::compute::binary(left, right, count)?;
        Ok(ColumnarValue::Array(Arc::new(counts)))
    }
}

/// `copies(count) -> bigint[]`: the count, as often as it says.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Copies {
    signature: Signature,
}

/// The function that makes copies.
pub fn copies() -> Arc<ScalarUDF> {
    let signature = Signature::exact(vec![DataType::Int64], Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(Copies { signature }))
}

impl ScalarUDFImpl for Copies {
    fn name(&self) -> &str {
        "copies"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [counts] = ColumnarValue::values_to_arrays(&args.args)?
            .try_into()
            .map_err(|_| DataFusionError::Internal("copies have one count".to_owned()))?;
        let counts = counts.as_primitive::<Int64Type>().values();
        let all: i64 = counts.iter().map(|count| (*count).max(0)).sum();
        if all > i64::from(i32::MAX) {
            let error = Error::user(SqlState::PROGRAM_LIMIT_EXCEEDED, "too many copies of rows");
            return Err(DataFusionError::External(Box::new(error)));
        }
        let lengths = counts.iter().map(|count| (*count).max(0) as usize);
        let items: ArrayRef = Arc::new(Int64Array::from_iter_values(
            counts.iter().flat_map(|count| std::iter::repeat_n(*count, (*count).max(0) as usize)),
        ));
        let field = Arc::new(Field::new_list_field(DataType::Int64, true));
        let list = ListArray::try_new(field, OffsetBuffer::from_lengths(lengths), items, None)?;
        Ok(ColumnarValue::Array(Arc::new(list)))
    }
}
