//! Which function computes a call of the plan.

use arrow::compute::SortOptions;
use arrow::datatypes::Schema;

use crate::functions::aggregate::Evaluate;
use crate::functions::aggregate::build::build;
use crate::functions::aggregate::layout::{Argument, Call, Layout};
use crate::plan::node::AggregateCall;
use crate::types::error::Result;

/// Adds what a call needs to the layout.
///
/// # Errors
/// For a call that Millstream does not have (SQLSTATE 0A000).
pub(in crate::dataflow::operators) fn plan(
    layout: &mut Layout,
    call: &AggregateCall,
    append_only: bool,
    schema: &Schema,
) -> Result<Box<dyn Evaluate>> {
    build(call.function.name(), layout, &call_of(call, append_only, schema))
}

fn call_of(call: &AggregateCall, append_only: bool, schema: &Schema) -> Call {
    let argument = |column: usize| {
        let field = schema.field(column);
        Argument { column, data_type: field.data_type().clone(), nullable: field.is_nullable() }
    };
    let order_by = call.order_by.iter().map(|sort| {
        let options = SortOptions { descending: sort.descending, nulls_first: sort.nulls_first };
        (argument(sort.column), options)
    });
    Call {
        arguments: call.arguments.iter().map(|column| argument(*column)).collect(),
        distinct: call.distinct,
        filter: call.filter,
        order_by: order_by.collect(),
        append_only,
        return_type: call.return_type.clone(),
        display: call.display.clone(),
    }
}
