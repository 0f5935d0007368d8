//! Which file computes an aggregate function, by its name.

use arrow::datatypes::DataType;

use crate::functions::aggregate::bits::{BitFunction, bits};
use crate::functions::aggregate::interval::interval;
use crate::functions::aggregate::layout::{Call, Layout};
use crate::functions::aggregate::moments::{Statistic, moments};
use crate::functions::aggregate::ordered::{OrderedFunction, any_value, ordered};
use crate::functions::aggregate::{Evaluate, avg, boolean, count, min_max, sum};
use crate::types::error::{Error, Result};

/// Adds what a call of the function `name` needs to the layout.
///
/// # Errors
/// For a call that Millstream does not have (SQLSTATE 0A000).
pub fn build(name: &str, layout: &mut Layout, call: &Call) -> Result<Box<dyn Evaluate>> {
    if let Some(statistic) = statistic(name) {
        return moments(layout, call, statistic);
    }
    if let Some(function) = ordered_function(name) {
        return ordered(layout, call, function);
    }
    match name {
        "count" => count::count(layout, call),
        "regr_count" => count::regr_count(layout, call),
        "sum" | "avg" if is_interval(call) => interval(layout, call, name == "avg"),
        "sum" => sum::sum(layout, call),
        "avg" => avg::avg(layout, call),
        "min" => min_max::extreme(layout, call, false),
        "max" => min_max::extreme(layout, call, true),
        "any_value" => any_value(layout, call),
        "bool_and" => boolean::boolean(layout, call, true),
        "bool_or" => boolean::boolean(layout, call, false),
        "bit_and" => bits(layout, call, BitFunction::And),
        "bit_or" => bits(layout, call, BitFunction::Or),
        "bit_xor" => bits(layout, call, BitFunction::Xor),
        _ => Err(Error::unsupported(format!("the aggregate function {name}()"))),
    }
}

fn is_interval(call: &Call) -> bool {
    call.arguments.first().is_some_and(|a| matches!(a.data_type, DataType::Interval(_)))
}

fn statistic(name: &str) -> Option<Statistic> {
    Some(match name {
        "var_samp" => Statistic::VarSamp,
        "var_pop" => Statistic::VarPop,
        "stddev_samp" => Statistic::StddevSamp,
        "stddev_pop" => Statistic::StddevPop,
        "covar_samp" => Statistic::CovarSamp,
        "covar_pop" => Statistic::CovarPop,
        "corr" => Statistic::Corr,
        "regr_slope" => Statistic::RegrSlope,
        "regr_intercept" => Statistic::RegrIntercept,
        "regr_r2" => Statistic::RegrR2,
        "regr_avgx" => Statistic::RegrAvgx,
        "regr_avgy" => Statistic::RegrAvgy,
        "regr_sxx" => Statistic::RegrSxx,
        "regr_syy" => Statistic::RegrSyy,
        "regr_sxy" => Statistic::RegrSxy,
        _ => return None,
    })
}

fn ordered_function(name: &str) -> Option<OrderedFunction> {
    Some(match name {
        "median" => OrderedFunction::Median,
        "percentile_cont" => OrderedFunction::PercentileCont,
        "percentile_disc" => OrderedFunction::PercentileDisc,
        "mode" => OrderedFunction::Mode,
        "first_value" => OrderedFunction::FirstValue,
        "last_value" => OrderedFunction::LastValue,
        "array_agg" => OrderedFunction::ArrayAgg,
        "string_agg" => OrderedFunction::StringAgg,
        _ => return None,
    })
}
