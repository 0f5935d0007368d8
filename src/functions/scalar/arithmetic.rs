//! `+ - * / %` on integers and floats, with Postgres's errors.
//!
//! DataFusion's own operators wrap around on integer overflow and give infinity for a float
//! divided by zero; these raise SQLSTATE 22003 and 22012. They are functions, not operators, so
//! that constant folding, the dataflow and batch execution all compute the same.
//!
//! The types of both operands are the wider one's; so is the result.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, Datum};
use arrow::compute::kernels::numeric;
use arrow::datatypes::{DataType, Field, FieldRef, Float32Type, Float64Type};
use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::physical_expr_common::datum::apply;
use std::sync::Arc;

use crate::types::error::{Error, SqlState};
use crate::types::sql_type::SqlType;

/// Which operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ArithmeticOp {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

impl ArithmeticOp {
    pub fn symbol(self) -> &'static str {
        match self {
            ArithmeticOp::Add => "+",
            ArithmeticOp::Subtract => "-",
            ArithmeticOp::Multiply => "*",
            ArithmeticOp::Divide => "/",
            ArithmeticOp::Modulo => "%",
        }
    }
}

/// One operator as a function of two arguments.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Arithmetic {
    op: ArithmeticOp,
    signature: Signature,
}

impl Arithmetic {
    pub fn op(&self) -> ArithmeticOp {
        self.op
    }
}

/// The operator's function.
pub fn arithmetic(op: ArithmeticOp) -> Arc<ScalarUDF> {
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(Arithmetic { op, signature }))
}

/// The type that both operands become; `None` for operands that are not integers or floats.
pub fn common_type(left: &DataType, right: &DataType) -> Option<DataType> {
    use DataType::{Float32, Float64, Int16, Int32, Int64};
    Some(match (left, right) {
        (Int16, Int16) => Int16,
        (Int16 | Int32, Int16 | Int32) => Int32,
        (Int16 | Int32 | Int64, Int16 | Int32 | Int64) => Int64,
        (Float32, Float32) => Float32,
        (Float32 | Float64, Float32 | Float64 | Int16 | Int32 | Int64)
        | (Int16 | Int32 | Int64, Float32 | Float64) => Float64,
        _ => return None,
    })
}

impl ScalarUDFImpl for Arithmetic {
    fn name(&self) -> &str {
        self.op.symbol()
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        infix(self.op, args.iter().map(ToString::to_string))
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        infix(self.op, args.iter().map(|a| a.schema_name().to_string()))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let common = match types {
            [DataType::Null, other] | [other, DataType::Null] => Some(other.clone()),
            [left, right] => common_type(left, right),
            _ => None,
        };
        let common = common.ok_or_else(|| {
            DataFusionError::Plan(format!("operator {} has no types {types:?}", self.op.symbol()))
        })?;
        Ok(vec![common.clone(), common])
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.coerce_types(types)?
            .pop()
            .ok_or_else(|| DataFusionError::Internal("an operator without an operand".to_owned()))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<_> = args.arg_fields.iter().map(|f| f.data_type().clone()).collect();
        let nullable = args.arg_fields.iter().any(|f| f.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = args.args.as_slice() else {
            return Err(DataFusionError::Internal("an operator takes two operands".to_owned()));
        };
        let data_type = args.return_field.data_type();
        let op = self.op;
        apply(left, right, |left, right| {
            compute(op, left, right)
                .and_then(|result| check_float_range(op, left, right, result))
                .map_err(|error| out_of_range(error, data_type))
        })
    }
}

fn infix(op: ArithmeticOp, mut args: impl Iterator<Item = String>) -> Result<String> {
    let left = args.next().unwrap_or_default();
    let right = args.next().unwrap_or_default();
    Ok(format!("{left} {} {right}", op.symbol()))
}

fn compute(op: ArithmeticOp, left: &dyn Datum, right: &dyn Datum) -> Result<ArrayRef, ArrowError> {
    match op {
        ArithmeticOp::Add => numeric::add(left, right),
        ArithmeticOp::Subtract => numeric::sub(left, right),
        ArithmeticOp::Multiply => numeric::mul(left, right),
        ArithmeticOp::Divide => {
            reject_float_zero(left, right)?;
            numeric::div(left, right)
        }
        ArithmeticOp::Modulo => {
            reject_float_zero(left, right)?;
            numeric::rem(left, right)
        }
    }
}

/// Integers are checked by the kernel; floats are not. NULL / 0 is NULL, not an error.
fn reject_float_zero(left: &dyn Datum, right: &dyn Datum) -> Result<(), ArrowError> {
    let (left, left_scalar) = left.get();
    let (right, right_scalar) = right.get();
    let rows = if right_scalar { left.len() } else { right.len() };
    let is_zero = |row: usize| match right.data_type() {
        DataType::Float32 => right.as_primitive::<Float32Type>().value(row) == 0.0,
        _ => right.as_primitive::<Float64Type>().value(row) == 0.0,
    };
    if !right.data_type().is_floating() {
        return Ok(());
    }
    for row in 0..rows {
        let (left_row, right_row) =
            (if left_scalar { 0 } else { row }, if right_scalar { 0 } else { row });
        if right.is_valid(right_row) && is_zero(right_row) && left.is_valid(left_row) {
            return Err(ArrowError::DivideByZero);
        }
        if right_scalar && right.is_valid(0) && !is_zero(0) {
            break;
        }
    }
    Ok(())
}

/// Floats become infinite or zero without a word: an error unless an operand was so.
fn check_float_range(
    op: ArithmeticOp,
    left: &dyn Datum,
    right: &dyn Datum,
    result: ArrayRef,
) -> Result<ArrayRef, ArrowError> {
    let failed = match result.data_type() {
        DataType::Float32 => first_out_of_range::<Float32Type>(op, left, right, &result),
        DataType::Float64 => first_out_of_range::<Float64Type>(op, left, right, &result),
        _ => None,
    };
    match failed {
        None => Ok(result),
        Some(how) => Err(ArrowError::ExternalError(Box::new(Error::user(
            SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
            format!("value out of range: {how}"),
        )))),
    }
}

fn first_out_of_range<T>(
    op: ArithmeticOp,
    left: &dyn Datum,
    right: &dyn Datum,
    result: &ArrayRef,
) -> Option<&'static str>
where
    T: ArrowPrimitiveType,
    T::Native: Into<f64>,
{
    let values = result.as_primitive::<T>();
    let shrinks = matches!(op, ArithmeticOp::Multiply | ArithmeticOp::Divide);
    let suspect = |value: &T::Native| {
        let value: f64 = (*value).into();
        value.is_infinite() || shrinks && value == 0.0
    };
    // Nearly always nothing: one pass over the result tells.
    if !values.values().iter().any(suspect) {
        return None;
    }
    let operand = |datum: &dyn Datum, row: usize| -> f64 {
        let (array, scalar) = datum.get();
        array.as_primitive::<T>().value(if scalar { 0 } else { row }).into()
    };
    (0..values.len()).filter(|row| values.is_valid(*row)).find_map(|row| {
        let (a, b) = (operand(left, row), operand(right, row));
        let value: f64 = values.value(row).into();
        if value.is_infinite() && !a.is_infinite() && !b.is_infinite() {
            return Some("overflow");
        }
        let vanished = match op {
            ArithmeticOp::Multiply => a != 0.0 && b != 0.0,
            ArithmeticOp::Divide => a != 0.0 && !b.is_infinite(),
            _ => false,
        };
        (value == 0.0 && vanished).then_some("underflow")
    })
}

/// Overflow in Postgres's words.
fn out_of_range(error: ArrowError, data_type: &DataType) -> ArrowError {
    let ArrowError::ArithmeticOverflow(_) = &error else { return error };
    let name = SqlType::of_arrow(data_type).map_or_else(String::new, |t| t.to_string());
    let ours = Error::user(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("{name} out of range"));
    ArrowError::ExternalError(Box::new(ours))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int32Array};

    fn run(
        op: ArithmeticOp,
        left: ArrayRef,
        right: ArrayRef,
    ) -> crate::types::error::Result<ArrayRef> {
        let fields: Vec<FieldRef> = [&left, &right]
            .iter()
            .map(|a| Arc::new(Field::new("x", a.data_type().clone(), true)))
            .collect();
        let number_rows = left.len();
        let return_field = fields[0].clone();
        let value = arithmetic(op).invoke_with_args(ScalarFunctionArgs {
            args: vec![ColumnarValue::Array(left), ColumnarValue::Array(right)],
            arg_fields: fields,
            number_rows,
            return_field,
            config_options: Arc::default(),
        })?;
        Ok(value.into_array(number_rows)?)
    }

    #[test]
    fn overflow_and_division_by_zero_are_errors() {
        let max = || Arc::new(Int32Array::from(vec![i32::MAX]));
        let error = run(ArithmeticOp::Add, max(), max()).expect_err("overflows");
        assert_eq!(error.sqlstate(), SqlState::NUMERIC_VALUE_OUT_OF_RANGE);
        assert_eq!(error.message(), "integer out of range");
        let zero = Arc::new(Int32Array::from(vec![0]));
        let error = run(ArithmeticOp::Divide, max(), zero).expect_err("divides by zero");
        assert_eq!(error.sqlstate(), SqlState::DIVISION_BY_ZERO);
    }

    #[test]
    fn float_division_by_zero_is_an_error_unless_null() {
        let left = || Arc::new(Float64Array::from(vec![Some(1.0), None]));
        let right = Arc::new(Float64Array::from(vec![Some(2.0), Some(0.0)]));
        let halves = run(ArithmeticOp::Divide, left(), right).expect("no zero under a value");
        assert_eq!(halves.as_ref(), &Float64Array::from(vec![Some(0.5), None]));
        let zeros = Arc::new(Float64Array::from(vec![0.0, 0.0]));
        let error = run(ArithmeticOp::Modulo, left(), zeros).expect_err("divides by zero");
        assert_eq!(error.sqlstate(), SqlState::DIVISION_BY_ZERO);
    }

    #[test]
    fn integer_division_cuts_towards_zero() {
        let left = Arc::new(Int32Array::from(vec![7, -7]));
        let right = || Arc::new(Int32Array::from(vec![2, 2]));
        let quotients = run(ArithmeticOp::Divide, left.clone(), right()).expect("divides");
        assert_eq!(quotients.as_ref(), &Int32Array::from(vec![3, -3]));
        let rests = run(ArithmeticOp::Modulo, left, right()).expect("divides");
        assert_eq!(rests.as_ref(), &Int32Array::from(vec![1, -1]));
    }

    #[test]
    fn operands_become_the_wider_type() {
        use DataType::{Decimal128, Float32, Float64, Int16, Int32, Int64};
        assert_eq!(common_type(&Int16, &Int32), Some(Int32));
        assert_eq!(common_type(&Int64, &Int16), Some(Int64));
        assert_eq!(common_type(&Int32, &Float32), Some(Float64));
        assert_eq!(common_type(&Int32, &Decimal128(5, 0)), None);
    }
}
