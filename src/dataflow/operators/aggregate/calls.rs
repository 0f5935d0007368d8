//! Which function computes a call of the plan.

use arrow::compute::SortOptions;
use arrow::datatypes::Schema;

use crate::functions::aggregate::bits::BitFunction;
use crate::functions::aggregate::layout::{Argument, Call, Layout};
use crate::functions::aggregate::moments::Statistic;
use crate::functions::aggregate::ordered::OrderedFunction;
use crate::functions::aggregate::{
    Evaluate, avg, bits, boolean, count, min_max, moments, ordered, sum,
};
use crate::plan::node::{AggregateCall, AggregateFunction};
use crate::types::error::Result;

/// Adds what a call needs to the layout.
///
/// # Errors
/// For a call that Millstream does not have (SQLSTATE 0A000).
pub(super) fn plan(
    layout: &mut Layout,
    call: &AggregateCall,
    append_only: bool,
    schema: &Schema,
) -> Result<Box<dyn Evaluate>> {
    let function = call.function;
    let call = call_of(call, append_only, schema);
    match function {
        AggregateFunction::Count => count::count(layout, &call),
        AggregateFunction::Sum => sum::sum(layout, &call),
        AggregateFunction::Avg => avg::avg(layout, &call),
        AggregateFunction::Min => min_max::extreme(layout, &call, false),
        AggregateFunction::Max => min_max::extreme(layout, &call, true),
        AggregateFunction::BoolAnd => boolean::boolean(layout, &call, true),
        AggregateFunction::BoolOr => boolean::boolean(layout, &call, false),
        AggregateFunction::BitAnd => bits::bits(layout, &call, BitFunction::And),
        AggregateFunction::BitOr => bits::bits(layout, &call, BitFunction::Or),
        AggregateFunction::BitXor => bits::bits(layout, &call, BitFunction::Xor),
        AggregateFunction::VarSamp => moments::moments(layout, &call, Statistic::VarSamp),
        AggregateFunction::VarPop => moments::moments(layout, &call, Statistic::VarPop),
        AggregateFunction::StddevSamp => moments::moments(layout, &call, Statistic::StddevSamp),
        AggregateFunction::StddevPop => moments::moments(layout, &call, Statistic::StddevPop),
        AggregateFunction::CovarSamp => moments::moments(layout, &call, Statistic::CovarSamp),
        AggregateFunction::CovarPop => moments::moments(layout, &call, Statistic::CovarPop),
        AggregateFunction::Corr => moments::moments(layout, &call, Statistic::Corr),
        AggregateFunction::RegrSlope => moments::moments(layout, &call, Statistic::RegrSlope),
        AggregateFunction::RegrIntercept => {
            moments::moments(layout, &call, Statistic::RegrIntercept)
        }
        AggregateFunction::RegrR2 => moments::moments(layout, &call, Statistic::RegrR2),
        AggregateFunction::RegrAvgx => moments::moments(layout, &call, Statistic::RegrAvgx),
        AggregateFunction::RegrAvgy => moments::moments(layout, &call, Statistic::RegrAvgy),
        AggregateFunction::RegrSxx => moments::moments(layout, &call, Statistic::RegrSxx),
        AggregateFunction::RegrSyy => moments::moments(layout, &call, Statistic::RegrSyy),
        AggregateFunction::RegrSxy => moments::moments(layout, &call, Statistic::RegrSxy),
        AggregateFunction::RegrCount => count::regr_count(layout, &call),
        AggregateFunction::Median => ordered::ordered(layout, &call, OrderedFunction::Median),
        AggregateFunction::PercentileCont => {
            ordered::ordered(layout, &call, OrderedFunction::PercentileCont)
        }
        AggregateFunction::PercentileDisc => {
            ordered::ordered(layout, &call, OrderedFunction::PercentileDisc)
        }
        AggregateFunction::Mode => ordered::ordered(layout, &call, OrderedFunction::Mode),
        AggregateFunction::FirstValue => {
            ordered::ordered(layout, &call, OrderedFunction::FirstValue)
        }
        AggregateFunction::LastValue => ordered::ordered(layout, &call, OrderedFunction::LastValue),
        AggregateFunction::ArrayAgg => ordered::ordered(layout, &call, OrderedFunction::ArrayAgg),
        AggregateFunction::StringAgg => ordered::ordered(layout, &call, OrderedFunction::StringAgg),
        AggregateFunction::AnyValue => ordered::any_value(layout, &call),
    }
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
