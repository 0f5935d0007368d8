//! Calls of functions that Postgres has by another name, with other arguments or in another form
//! than DataFusion, or that it has and DataFusion has not.

use datafusion::sql::sqlparser::ast::{
    self, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
    ObjectName, Value, ValueWithSpan,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use crate::sql::parse::name::normalize as fold;
use crate::sql::rewrite::numbers::{as_integer, wrap_integer};
use crate::sql::rewrite::tables::is_constant;
use crate::sql::rewrite::{call, cast, integer, null};
use crate::types::error::{Error, Result, SqlState};

/// Functions whose arguments decide the result's type together.
const UNIFYING: [&str; 5] = ["coalesce", "nullif", "greatest", "least", "ifnull"];

/// Parameters of `make_interval`, which people give by name.
const MAKE_INTERVAL: [&str; 7] = ["years", "months", "weeks", "days", "hours", "mins", "secs"];

pub(super) fn rewrite_function(function: &mut Function) -> Result<Option<Expr>> {
    if let [first, _] = function.name.0.as_slice()
        && first.as_ident().is_some_and(|ident| fold(ident) == "pg_catalog")
    {
        function.name.0.remove(0);
    }
    let [part] = function.name.0.as_slice() else { return Ok(None) };
    let Some(ident) = part.as_ident() else { return Ok(None) };
    let name = fold(ident);
    if (UNIFYING.contains(&name.as_str()) || matches!(name.as_str(), "row" | "pg_typeof"))
        && let FunctionArguments::List(list) = &mut function.args
    {
        for arg in &mut list.args {
            if let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = arg {
                wrap_integer(expr);
            }
        }
    }
    check_count(&name, function)?;
    check_supported(&name, function)?;
    let no_arguments = match &function.args {
        FunctionArguments::None => true,
        FunctionArguments::List(list) => list.args.is_empty(),
        FunctionArguments::Subquery(_) => false,
    };
    let bare = matches!(function.args, FunctionArguments::None);
    let now = || call("now", vec![]);
    Ok(Some(match name.as_str() {
        "current_timestamp" if bare => now(),
        "transaction_timestamp" | "statement_timestamp" | "proctime" if no_arguments => now(),
        "current_date" if bare => cast(now(), DataType::Date),
        "current_time" if bare => {
            return Err(Error::unsupported("time with time zone").hint("Use LOCALTIME."));
        }
        "localtime" if bare => cast(now(), DataType::Time(None, ast::TimezoneInfo::None)),
        "localtimestamp" if bare => cast(now(), DataType::Timestamp(None, ast::TimezoneInfo::None)),
        // The words that need no parentheses are functions with none.
        "current_user" | "current_role" | "session_user" | "user" if bare => call(&name, vec![]),
        "json_agg" | "jsonb_agg" => {
            let list = if name == "json_agg" { "json_of_list" } else { "jsonb_of_list" };
            function.name = ObjectName::from(vec![Ident::new("array_agg")]);
            call(list, vec![Expr::Function(function.clone())])
        }
        "json_object_agg" | "jsonb_object_agg" => {
            let pairs = if name == "json_object_agg" { "json_of_pairs" } else { "jsonb_of_pairs" };
            function.name = ObjectName::from(vec![Ident::new("array_agg")]);
            if let FunctionArguments::List(list) = &mut function.args {
                let pair = list.args.drain(..).filter_map(unnamed).collect();
                list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(call("struct", pair)))];
            }
            call(pairs, vec![Expr::Function(function.clone())])
        }
        "arg_max" | "max_by" => return Ok(value_at(function, false)),
        "arg_min" | "min_by" => return Ok(value_at(function, true)),
        "lag" | "lead" => return Ok(computed_default(function)),
        "every" => {
            function.name = ObjectName::from(vec![Ident::new("bool_and")]);
            return Ok(None);
        }
        // The exact answer is a good approximation, and a view can keep it.
        "approx_count_distinct" | "approx_distinct" => {
            function.name = ObjectName::from(vec![Ident::new("count")]);
            if let FunctionArguments::List(list) = &mut function.args {
                list.duplicate_treatment = Some(ast::DuplicateTreatment::Distinct);
            }
            return Ok(None);
        }
        "approx_median" => {
            function.name = ObjectName::from(vec![Ident::new("median")]);
            return Ok(None);
        }
        "approx_percentile" | "approx_percentile_cont" => {
            function.name = ObjectName::from(vec![Ident::new("percentile_cont")]);
            if function.within_group.is_empty()
                && let FunctionArguments::List(list) = &mut function.args
                && list.args.len() == 2
                && let Some(value) = unnamed(list.args.remove(0))
            {
                let options = ast::OrderByOptions { asc: None, nulls_first: None };
                function.within_group =
                    vec![ast::OrderByExpr { expr: value, options, with_fill: None }];
            }
            return Ok(None);
        }
        "percentile_cont" | "percentile_disc" => return Ok(percentiles(function)),
        "age" => {
            if let FunctionArguments::List(list) = &mut function.args
                && let [only] = list.args.as_mut_slice()
            {
                // Counted from this midnight.
                let timestamp = DataType::Timestamp(None, ast::TimezoneInfo::None);
                let midnight = cast(cast(now(), DataType::Date), timestamp);
                let midnight = FunctionArg::Unnamed(FunctionArgExpr::Expr(midnight));
                let time = std::mem::replace(only, midnight);
                list.args.push(time);
            }
            return Ok(None);
        }
        "make_interval" => {
            order_named(function, &MAKE_INTERVAL)?;
            return Ok(None);
        }
        "generate_subscripts" if list_length(function) == 2 => {
            let arguments = list_arguments(function);
            let ends = vec![call("array_lower", arguments.clone()), call("array_upper", arguments)];
            cast(call("unnest", vec![call("generate_series", ends)]), DataType::Int(None))
        }
        "row" => {
            if let FunctionArguments::List(list) = &mut function.args {
                for arg in &mut list.args {
                    if let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = arg {
                        wrap_integer(expr);
                    }
                }
            }
            function.name = ObjectName::from(vec![Ident::new("struct")]);
            return Ok(None);
        }
        _ => return Ok(None),
    }))
}

/// `array_agg(a ORDER BY 1)`: a constant orders nothing, and is no place in a select list.
pub(super) fn drop_constant_order(function: &mut ast::Function) {
    let FunctionArguments::List(list) = &mut function.args else { return };
    list.clauses.retain_mut(|clause| match clause {
        ast::FunctionArgumentClause::OrderBy(items) => {
            items.retain(|item| as_integer(&item.expr).is_none());
            !items.is_empty()
        }
        _ => true,
    });
}

/// DataFusion takes `count()` and `count(a, b)`; Postgres does not.
fn check_count(name: &str, function: &Function) -> Result<()> {
    let FunctionArguments::List(list) = &function.args else { return Ok(()) };
    match list.args.len() {
        1 => Ok(()),
        _ if name != "count" => Ok(()),
        0 => Err(Error::user(
            SqlState::WRONG_OBJECT_TYPE,
            "count(*) must be used to call a parameterless aggregate function",
        )),
        arguments => Err(Error::user(
            SqlState::UNDEFINED_FUNCTION,
            format!("function count with {arguments} arguments does not exist"),
        )),
    }
}

/// What Postgres has of a function and DataFusion has not.
fn check_supported(name: &str, function: &Function) -> Result<()> {
    let ranks = matches!(name, "rank" | "dense_rank" | "percent_rank" | "cume_dist");
    if ranks && !function.within_group.is_empty() {
        return Err(Error::unsupported(format!("{name}() WITHIN GROUP")).hint(
            "Count the rows that sort before the value: count(*) FILTER (WHERE x < value) + 1.",
        ));
    }
    if matches!(name, "lag" | "lead" | "nth_value")
        && function.over.is_some()
        && let FunctionArguments::List(list) = &function.args
        && let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(offset))) = list.args.get(1)
        && !is_constant(offset)
    {
        return Err(Error::unsupported(format!("{name}() with another number for each row"))
            .hint("Number the rows with row_number(), and join them with themselves."));
    }
    Ok(())
}

/// `arg_max(a, b)`: the first `a` in the order of `b`, where that is not NULL.
fn value_at(function: &mut Function, ascending: bool) -> Option<Expr> {
    let FunctionArguments::List(list) = &mut function.args else { return None };
    if list.args.len() != 2 || function.over.is_some() {
        return None;
    }
    let by = unnamed(list.args.remove(1))?;
    function.name = ObjectName::from(vec![Ident::new("first_value")]);
    let options = ast::OrderByOptions { asc: Some(ascending), nulls_first: Some(false) };
    let order = ast::OrderByExpr { expr: by.clone(), options, with_fill: None };
    list.clauses.push(ast::FunctionArgumentClause::OrderBy(vec![order]));
    let known = Expr::IsNotNull(Box::new(by));
    let filter = match function.filter.take() {
        None => known,
        Some(filter) => Expr::BinaryOp {
            left: Box::new(Expr::Nested(filter)),
            op: ast::BinaryOperator::And,
            right: Box::new(known),
        },
    };
    function.filter = Some(Box::new(filter));
    None
}

/// `lag(x, n, y)` and `lead(x, n, y)` where `y` is no constant: `y` where there is no row so far
/// away, which `lead(true, n)` tells; with IGNORE NULLS where there is no value.
fn computed_default(function: &Function) -> Option<Expr> {
    let arguments = list_arguments(function);
    let [value, offset, default] = arguments.as_slice() else { return None };
    let mut constant = default;
    while let Expr::Cast { expr, .. } | Expr::Nested(expr) | Expr::UnaryOp { expr, .. } = constant {
        constant = expr;
    }
    if matches!(constant, Expr::Value(_) | Expr::Interval(_) | Expr::TypedString(_)) {
        return None;
    }
    let at = |value: Expr| {
        let mut there = function.clone();
        if let FunctionArguments::List(list) = &mut there.args {
            let arguments = [value, offset.clone()].into_iter();
            list.args = arguments.map(|e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e))).collect();
        }
        Expr::Function(there)
    };
    let said = |treatment: &ast::NullTreatment| *treatment == ast::NullTreatment::IgnoreNulls;
    let ignores = function.null_treatment.as_ref().is_some_and(said)
        || matches!(&function.args, FunctionArguments::List(list) if list.clauses.iter().any(
            |clause| matches!(clause, ast::FunctionArgumentClause::IgnoreOrRespectNulls(t) if said(t))
        ));
    if ignores {
        return Some(call("coalesce", vec![at(value.clone()), default.clone()]));
    }
    let yes = Expr::Value(ValueWithSpan { value: Value::Boolean(true), span: Span::empty() });
    Some(Expr::Case {
        case_token: ast::helpers::attached_token::AttachedToken::empty(),
        end_token: ast::helpers::attached_token::AttachedToken::empty(),
        operand: None,
        conditions: vec![ast::CaseWhen {
            condition: Expr::IsNull(Box::new(at(yes))),
            result: default.clone(),
        }],
        else_result: Some(Box::new(at(value.clone()))),
    })
}

/// `percentile_cont(ARRAY[a, b])` is an array of one percentile each.
fn percentiles(function: &Function) -> Option<Expr> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Array(array)))] = list.args.as_slice()
    else {
        return None;
    };
    let one = |fraction: &Expr| {
        let mut one = function.clone();
        if let FunctionArguments::List(list) = &mut one.args {
            list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(fraction.clone()))];
        }
        Expr::Function(one)
    };
    let elem = array.elem.iter().map(one).collect();
    Some(Expr::Array(ast::Array { elem, named: true }))
}

/// Arguments that are given by name in the order of the parameters, 0 where there is none.
fn order_named(function: &mut Function, parameters: &[&str]) -> Result<()> {
    let FunctionArguments::List(list) = &mut function.args else { return Ok(()) };
    if !list.args.iter().any(|arg| matches!(arg, FunctionArg::Named { .. })) {
        return Ok(());
    }
    let mut ordered: Vec<Expr> = parameters.iter().map(|_| integer(0)).collect();
    for (index, arg) in std::mem::take(&mut list.args).into_iter().enumerate() {
        let (place, arg) = match arg {
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(expr), .. } => {
                let name = fold(&name);
                (parameters.iter().position(|parameter| *parameter == name), expr)
            }
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => (Some(index), expr),
            _ => (None, null()),
        };
        match place.and_then(|place| ordered.get_mut(place)) {
            Some(slot) => *slot = arg,
            None => {
                return Err(Error::user(
                    SqlState::UNDEFINED_FUNCTION,
                    format!("function {} has no such parameter", function.name),
                ));
            }
        }
    }
    list.args =
        ordered.into_iter().map(|expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))).collect();
    Ok(())
}

/// The expression of an argument without a name.
pub(super) fn unnamed(arg: FunctionArg) -> Option<Expr> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

/// The arguments of a call that are plain expressions.
fn list_arguments(function: &Function) -> Vec<Expr> {
    let FunctionArguments::List(list) = &function.args else { return vec![] };
    let plain = list.args.iter().filter_map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    });
    plain.collect()
}

fn list_length(function: &Function) -> usize {
    list_arguments(function).len()
}
