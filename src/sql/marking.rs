//! DataFusion's own aggregates over values that only a field's mark tells: uuid, json, jsonb.
//!
//! `min(u)` of uuids would be bytes, and `array_agg(j) OVER (...)` of documents an array of texts.
//! [`marking`] wraps the function: it computes the same, and says what it gives. Arrays are marked
//! when they are handed out, since their items' field is a part of their type.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, SetMonotonicity,
    Signature,
};

use crate::functions::scalar::marked::remarked;
use crate::types::sql_type::SqlType;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Marking {
    inner: Arc<AggregateUDF>,
    sql_type: SqlType,
}

/// The function, whose result has this type.
pub fn marking(function: &Arc<AggregateUDF>, sql_type: SqlType) -> Arc<AggregateUDF> {
    let inner = match function.inner().downcast_ref::<Marking>() {
        Some(marking) => marking.inner.clone(),
        None => function.clone(),
    };
    // Of a function of ours the field is right, and others know it by its kind.
    if matches!(sql_type, SqlType::Array(_)) && super::aggregates::is_ours(&inner) {
        return inner;
    }
    Arc::new(AggregateUDF::new_from_impl(Marking { inner, sql_type }))
}

impl Marking {
    fn wrapped(&self, inner: Box<dyn Accumulator>) -> Box<dyn Accumulator> {
        match &self.sql_type {
            SqlType::Array(_) => {
                Box::new(MarkedArrays { inner, data_type: self.sql_type.to_arrow() })
            }
            _ => inner,
        }
    }
}

impl AggregateUDFImpl for Marking {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(self.sql_type.to_arrow())
    }

    fn return_field(&self, arguments: &[FieldRef]) -> Result<FieldRef> {
        let field = self.inner.return_field(arguments)?;
        Ok(Arc::new(self.sql_type.to_field(field.name(), true)))
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(self.wrapped(self.inner.accumulator(args)?))
    }

    fn create_sliding_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>> {
        Ok(self.wrapped(self.inner.create_sliding_accumulator(args)?))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        !matches!(self.sql_type, SqlType::Array(_)) && self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        self.inner.create_groups_accumulator(args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::NotSupported
    }

    fn is_descending(&self) -> Option<bool> {
        self.inner.inner().is_descending()
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.inner.default_value(data_type)
    }

    fn supports_null_handling_clause(&self) -> bool {
        self.inner.supports_null_handling_clause()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.inner.inner().set_monotonicity(data_type)
    }
}

/// An accumulator whose arrays have marked items.
#[derive(Debug)]
struct MarkedArrays {
    inner: Box<dyn Accumulator>,
    data_type: DataType,
}

impl Accumulator for MarkedArrays {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        match self.inner.evaluate()? {
            ScalarValue::List(list) => {
                let list: ArrayRef = list;
                let list = remarked(&list, &self.data_type)?;
                Ok(ScalarValue::List(Arc::new(list.as_list::<i32>().clone())))
            }
            other => Ok(other),
        }
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }
}
