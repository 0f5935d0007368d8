//! Types and meaning of expressions, after names are resolved and before anything is optimised.
//!
//! 1. Quoted literals beside a typed value take its type, also in lists, ranges and CASE
//!    (`operators` did it for operators).
//! 2. `now()` becomes a parameter that is bound when the statement runs.
//! 3. DataFusion's analyzer inserts the casts that functions and operators need.
//! 4. Casts get Postgres's meaning (`functions::scalar::cast`), unary minus its overflow error.
//! 5. Rows are sorted and partitioned by floats in SQL's order, in which -0.0 is 0.0.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use chrono::{DateTime, Utc};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, DataFusionError, ExprSchema, Result, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::{
    Between, InList, Placeholder, ScalarFunction, WindowFunctionParams,
};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, Cast, Distinct, Expr, ExprSchemable, LogicalPlan, Operator, Projection, SortExpr,
    Union, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
};
use datafusion::optimizer::Analyzer;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;

use crate::functions::scalar::arithmetic::{ArithmeticOp, arithmetic};
use crate::functions::scalar::call::{Family, given_type};
use crate::functions::scalar::cast::{
    CastKind, CastSettings, cannot_cast, cast_array, cast_function, cast_kind,
};
use crate::functions::scalar::datetime::ROUND_TIME;
use crate::functions::scalar::float_key::sort_key;
use crate::functions::scalar::marked::{is_marked, marked};
use crate::functions::scalar::session::{NOW, Now, now_parameter, now_type};
use crate::functions::scalar::string::{FIT_CHAR, FIT_LENGTH};
use crate::sql::asof::find_asof_joins;
use crate::sql::bags::count_copies;
use crate::sql::dependent::join_dependent_subqueries;
use crate::sql::derived::lift_conditions;
use crate::sql::functions::{FUNCTIONS, OPTIONS};
use crate::sql::grouping::group_by_columns;
use crate::sql::limited::number_limited_subqueries;
use crate::sql::marking::marking;
use crate::sql::operators::{
    UNMARKING, comparable, is_char, is_plain_text, is_quoted_literal, marked_result, no_operator,
    widen, with_mark, without_blanks,
};
use crate::sql::resolve::external;
use crate::sql::schema::canonical_field;
use crate::sql::subquery::count_rows_of_subqueries;
use crate::types::error::{Error, SqlState};
use crate::types::sql_type::{Modifier, SqlType};

/// Steps 1 to 4 for every expression of a plan.
pub fn coerce_plan(plan: LogicalPlan, settings: &CastSettings) -> Result<LogicalPlan> {
    let plan = find_asof_joins(plan)?;
    let plan = group_by_columns(plan)?;
    let plan = count_copies(plan)?;
    let plan = number_limited_subqueries(plan)?;
    let plan = lift_conditions(plan)?;
    let plan = count_rows_of_subqueries(plan)?;
    let plan = join_dependent_subqueries(plan)?;
    let before = |expr, schema: &DFSchema| before_analysis(expr, schema, settings);
    let plan = map_plan_expressions(plan, &before, &mark_elements)?;
    let plan = type_outer_columns(plan)?;
    let options: &ConfigOptions = &OPTIONS;
    let plan = Analyzer::new().execute_and_check(plan, options, |_, _| {})?;
    let after = |expr, schema: &DFSchema| after_analysis(expr, schema, settings);
    let plan = map_plan_expressions(plan, &after, &|node| Ok(node))?;
    sort_by_keys(plan)
}

/// Columns of outer queries, in subqueries, with the types that steps 1 and 2 have given them:
/// subqueries are rewritten before what they stand beside.
fn type_outer_columns(plan: LogicalPlan) -> Result<LogicalPlan> {
    let retype = |subquery: LogicalPlan, outer: &DFSchema| {
        subquery.transform_down_with_subqueries(|node| {
            node.map_expressions(|expr| {
                expr.transform_up(|e| match &e {
                    Expr::OuterReferenceColumn(old, column) => {
                        match outer.field_from_column(column) {
                            Ok(field) if field.data_type() != old.data_type() => {
                                let (field, column) = (field.clone(), column.clone());
                                Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column)))
                            }
                            _ => Ok(Transformed::no(e)),
                        }
                    }
                    _ => Ok(Transformed::no(e)),
                })
            })
        })
    };
    // From the outside in: the innermost query that has a column of the name is meant.
    let typed = plan.transform_down_with_subqueries(|node| {
        let outer = merge_schema(&node.inputs());
        let node = node.map_subqueries(|subquery| retype(subquery, &outer))?;
        node.transform_data(|node| match node {
            LogicalPlan::Join(mut join) if matches!(*join.right, LogicalPlan::Subquery(_)) => {
                let lateral = Arc::unwrap_or_clone(join.right);
                let lateral = retype(lateral, join.left.schema())?;
                join.right = Arc::new(lateral.data);
                Ok(Transformed::new_transformed(LogicalPlan::Join(join), lateral.transformed))
            }
            other => Ok(Transformed::no(other)),
        })
    })?;
    if !typed.transformed {
        return Ok(typed.data);
    }
    let plan = typed
        .data
        .transform_up_with_subqueries(|node| node.recompute_schema().map(Transformed::yes))?;
    Ok(plan.data)
}

/// Step 5, for what is not inside an expression.
fn sort_by_keys(plan: LogicalPlan) -> Result<LogicalPlan> {
    let keys = |sorts: &mut [SortExpr], schema: &DFSchema| -> Result<bool> {
        let mut changed = false;
        for sort in sorts {
            let key = key_of(sort.expr.clone(), schema)?;
            changed |= key.transformed;
            sort.expr = key.data;
        }
        Ok(changed)
    };
    let sorted = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Sort(mut sort) => {
            let changed = keys(&mut sort.expr, sort.input.schema())?;
            let sort = LogicalPlan::Sort(sort);
            Ok(if changed { Transformed::yes(sort) } else { Transformed::no(sort) })
        }
        LogicalPlan::Distinct(Distinct::On(mut on)) => {
            let schema = on.input.schema().clone();
            let mut changed = match &mut on.sort_expr {
                Some(sorts) => keys(sorts, &schema)?,
                None => false,
            };
            for expr in &mut on.on_expr {
                let key = key_of(expr.clone(), &schema)?;
                changed |= key.transformed;
                *expr = key.data;
            }
            let node = LogicalPlan::Distinct(Distinct::On(on));
            Ok(if changed { Transformed::yes(node) } else { Transformed::no(node) })
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(sorted.data)
}

/// What to sort or partition by in the place of an expression.
fn key_of(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let data_type = expr.get_type(schema)?;
    match data_type.is_floating() {
        true => Ok(Transformed::yes(sort_key(expr, &data_type))),
        false => Ok(Transformed::no(expr)),
    }
}

/// Steps 1 to 4 for one scalar expression.
pub fn coerce_expr(expr: Expr, schema: &DFSchema, settings: &CastSettings) -> Result<Expr> {
    let expr = expr.transform_up(|e| before_analysis(e, schema, settings))?.data;
    let schema_ref = Arc::new(schema.clone());
    let context = SimplifyContext::builder().with_schema(schema_ref).build();
    let expr = ExprSimplifier::new(context).coerce(expr, schema)?;
    Ok(expr.transform_up(|e| after_analysis(e, schema, settings))?.data)
}

/// Rewrites every expression of a plan and of its subqueries, inputs first; the names of columns
/// stay.
fn map_plan_expressions(
    plan: LogicalPlan,
    rewrite: &impl Fn(Expr, &DFSchema) -> Result<Transformed<Expr>>,
    finish: &impl Fn(LogicalPlan) -> Result<LogicalPlan>,
) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|node| {
        let node = match node {
            LogicalPlan::Union(union) => LogicalPlan::Union(unify_union(union)?),
            other => other,
        };
        let mut schema = merge_schema(&node.inputs());
        if let LogicalPlan::TableScan(scan) = &node {
            let table = DFSchema::try_from_qualified_schema(
                scan.table_name.clone(),
                &scan.source.schema(),
            )?;
            schema.merge(&table);
        }
        let names = NamePreserver::new(&node);
        let mapped = node.map_expressions(|expr| {
            let name = names.save(&expr);
            let mapped = expr.transform_up(|e| rewrite(e, &schema))?;
            Ok(mapped.update_data(|e| name.restore(e)))
        })?;
        mapped.map_data(|node| finish(node.recompute_schema()?))
    })?;
    Ok(rewritten.data)
}

/// Elements of unnested arrays in the fields that they should have: DataFusion drops their marks.
fn mark_elements(node: LogicalPlan) -> Result<LogicalPlan> {
    let unnest = match &node {
        LogicalPlan::Unnest(unnest) => unnest,
        LogicalPlan::Union(union) => return mark_united(union),
        _ => return Ok(node),
    };
    let input = unnest.input.schema();
    let element = |place: &usize| {
        let (_, list) = unnest.list_type_columns.iter().find(|(column, _)| column == place)?;
        let mut field = input.field(*place).clone();
        for _ in 0..list.depth {
            let DataType::List(item) = field.data_type() else { return None };
            field = item.clone();
        }
        SqlType::of_field(&field).filter(is_marked)
    };
    let types = unnest.dependency_indices.iter().map(element).collect();
    mark_columns(node, types)
}

/// What an array's items are is lost where DataFusion unites types, which knows storage only.
fn mark_united(union: &Union) -> Result<LogicalPlan> {
    let marked_array = |column: usize| {
        let inputs = union.inputs.iter();
        let known = inputs.map(|input| input.schema().field(column));
        let known = known.filter(|field| !field.data_type().is_null());
        let types: Vec<Option<SqlType>> = known.map(|field| SqlType::of_field(field)).collect();
        let first = types.first()?.clone()?;
        let array = matches!(first, SqlType::Array(_)) && is_marked(&first);
        let same = types.iter().all(|other| other.as_ref() == Some(&first));
        (array && same).then_some(first)
    };
    let types = (0..union.schema.fields().len()).map(marked_array).collect();
    mark_columns(LogicalPlan::Union(union.clone()), types)
}

/// The columns of a node, those marked whose types are given.
fn mark_columns(node: LogicalPlan, types: Vec<Option<SqlType>>) -> Result<LogicalPlan> {
    if types.iter().all(Option::is_none) {
        return Ok(node);
    }
    let columns = node.schema().iter().zip(types).map(|((table, field), sql_type)| {
        let column = Expr::Column(Column::new(table.cloned(), field.name()));
        match sql_type {
            Some(sql_type) => {
                marked(sql_type).call(vec![column]).alias_qualified(table.cloned(), field.name())
            }
            None => column,
        }
    });
    let columns: Vec<Expr> = columns.collect();
    Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(node))?))
}

/// Steps 1 and 2.
fn before_analysis(
    expr: Expr,
    schema: &DFSchema,
    settings: &CastSettings,
) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::ScalarFunction(call) if call.func.inner().is::<Now>() => {
            Transformed::yes(now_parameter())
        }
        Expr::ScalarFunction(call) if call.func.inner().is::<Family>() => {
            let resolved = resolve_call(call, schema, settings)?;
            // Before DataFusion finds common types: what is around must know this one.
            Transformed::yes(match &resolved {
                Expr::ScalarFunction(call) if ROUNDING.contains(&call.func.name()) => {
                    match rounded_type(call, schema)? {
                        Some(data_type) => plain_cast(resolved, data_type),
                        None => resolved,
                    }
                }
                _ => resolved,
            })
        }
        // The literal under the cast that `rewrite` put around it.
        Expr::Cast(Cast { expr, field }) if *field.data_type() == DataType::Int32 => {
            match expr.as_ref() {
                Expr::Literal(ScalarValue::Int64(Some(value)), None)
                    if i32::try_from(*value).is_ok() =>
                {
                    Transformed::yes(Expr::Literal(ScalarValue::Int32(Some(*value as i32)), None))
                }
                _ => Transformed::no(Expr::Cast(Cast { expr, field })),
            }
        }
        // An integer literal, which is read as a bigint, has no cast to boolean as such.
        Expr::Cast(Cast { expr, field }) if *field.data_type() == DataType::Boolean => {
            match expr.as_ref() {
                Expr::Literal(ScalarValue::Int64(Some(value)), None)
                    if i32::try_from(*value).is_ok() =>
                {
                    Transformed::yes(Expr::Literal(ScalarValue::Boolean(Some(*value != 0)), None))
                }
                _ => Transformed::no(Expr::Cast(Cast { expr, field })),
            }
        }
        Expr::InList(InList { expr, list, negated }) => {
            let mut expr = expr;
            let mut list = like_other(list, &expr, schema);
            check_comparable("=", &expr, &list, schema)?;
            let mut all: Vec<&mut Expr> = vec![expr.as_mut()];
            all.extend(&mut list);
            widen(&mut all, schema);
            Transformed::yes(Expr::InList(InList { expr, list, negated }))
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let mut ends = like_other(vec![*low, *high], &expr, schema).into_iter();
            let (Some(low), Some(high)) = (ends.next(), ends.next()) else {
                return Err(DataFusionError::Internal("a range has two ends".to_owned()));
            };
            check_comparable(">=", &expr, [&low], schema)?;
            check_comparable("<=", &expr, [&high], schema)?;
            let (mut expr, mut low, mut high) = (expr, Box::new(low), Box::new(high));
            widen(&mut [expr.as_mut(), low.as_mut(), high.as_mut()], schema);
            Transformed::yes(Expr::Between(Between { expr, negated, low, high }))
        }
        Expr::Case(mut case) => {
            if let Some(operand) = &case.expr {
                for (when, _) in &mut case.when_then_expr {
                    let taken =
                        std::mem::replace(&mut **when, Expr::Literal(ScalarValue::Null, None));
                    **when = one_like_other(taken, operand, schema);
                    check_comparable("=", operand, [&**when], schema)?;
                }
            } else {
                for (when, _) in &case.when_then_expr {
                    check_boolean("CASE/WHEN", when, schema)?;
                }
            }
            let results = case.when_then_expr.iter_mut().map(|(_, then)| &mut **then);
            unify("CASE", results.chain(case.else_expr.as_deref_mut()).collect(), schema)?;
            Transformed::yes(with_mark(Expr::Case(case), schema))
        }
        Expr::ScalarFunction(call) if UNMARKING.contains(&call.func.name()) => {
            Transformed::yes(with_mark(Expr::ScalarFunction(call), schema))
        }
        // Its one value is a scalar on the way, which forgets what an array's items are.
        Expr::ScalarSubquery(subquery) => {
            let sql_type = SqlType::of_field(subquery.subquery.schema().field(0));
            let subquery = Expr::ScalarSubquery(subquery);
            match sql_type {
                Some(array @ SqlType::Array(_)) if is_marked(&array) => {
                    Transformed::yes(marked(array).call(vec![subquery]))
                }
                _ => Transformed::no(subquery),
            }
        }
        Expr::ScalarFunction(ScalarFunction { func, mut args })
            if UNIFYING.contains(&func.name()) =>
        {
            unify(&func.name().to_uppercase(), args.iter_mut().collect(), schema)?;
            Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args }))
        }
        Expr::AggregateFunction(mut call) => {
            if let Some(filter) = &call.params.filter {
                check_boolean("FILTER", filter, schema)?;
            }
            // An aggregate stands by itself in its node: nothing can be put around it.
            match marked_result(&Expr::AggregateFunction(call.clone()), schema) {
                Some(sql_type) => {
                    call.func = marking(&call.func, sql_type);
                    Transformed::yes(Expr::AggregateFunction(call))
                }
                None => Transformed::no(Expr::AggregateFunction(call)),
            }
        }
        Expr::WindowFunction(mut call) => {
            let frame = frame_of_peers(&call.params, schema);
            let mut changed = frame.is_some();
            if let Some(frame) = frame {
                call.params.window_frame = frame;
            }
            let sql_type = marked_result(&Expr::WindowFunction(call.clone()), schema);
            if let (WindowFunctionDefinition::AggregateUDF(func), Some(sql_type)) =
                (&call.fun, sql_type)
            {
                call.fun = WindowFunctionDefinition::AggregateUDF(marking(func, sql_type));
                changed = true;
            }
            let call = Expr::WindowFunction(call);
            if changed { Transformed::yes(call) } else { Transformed::no(call) }
        }
        other => Transformed::no(other),
    })
}

/// A RANGE frame without offsets means what GROUPS means, and DataFusion knows RANGE of fewer
/// types than have an order: `None` for those that it knows.
fn frame_of_peers(params: &WindowFunctionParams, schema: &DFSchema) -> Option<WindowFrame> {
    let (frame, first) = (&params.window_frame, params.order_by.first()?);
    let plain = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::CurrentRow => true,
        WindowFrameBound::Preceding(offset) | WindowFrameBound::Following(offset) => {
            offset.is_null()
        }
    };
    let known = |t: &DataType| {
        let moment = matches!(t, DataType::Date32 | DataType::Timestamp(..));
        let other = matches!(t, DataType::Null | DataType::Boolean | DataType::List(_));
        t.is_numeric() || t.is_string() || moment || other
    };
    let of_peers = frame.units == WindowFrameUnits::Range
        && plain(&frame.start_bound)
        && plain(&frame.end_bound)
        && !known(&first.expr.get_type(schema).ok()?);
    of_peers.then(|| {
        let (start, end) = (frame.start_bound.clone(), frame.end_bound.clone());
        WindowFrame::new_bounds(WindowFrameUnits::Groups, start, end)
    })
}

/// A call of one of our functions: which of that name, with its arguments cast to what it takes.
fn resolve_call(call: ScalarFunction, schema: &DFSchema, settings: &CastSettings) -> Result<Expr> {
    let Some(family) = call.func.inner().downcast_ref::<Family>() else {
        return Ok(Expr::ScalarFunction(call));
    };
    let (mut given, mut literals) = (vec![], vec![]);
    for arg in &call.args {
        let literal = match arg {
            Expr::Literal(value, _) => Some(value),
            _ => None,
        };
        let (_, field) = arg.to_field(schema)?;
        given.push(given_type(&field, literal));
        literals.push(literal.cloned());
    }
    let (function, types) = family.call(&given, &literals, *settings).map_err(external)?;
    let args = call
        .args
        .into_iter()
        .zip(given.iter().zip(&types))
        .map(|(arg, (given, wanted))| {
            let fits = given.as_ref() == Some(wanted)
                || given.is_none() && *wanted == SqlType::Text && is_quoted_literal(&arg);
            if fits && !matches!(arg, Expr::Literal(ScalarValue::Int64(_), _)) {
                return arg;
            }
            let field = Arc::new(wanted.to_field("", true));
            Expr::Cast(Cast::new_from_field(Box::new(arg), field))
        })
        .collect();
    Ok(Expr::ScalarFunction(ScalarFunction::new_udf(function, args)))
}

/// SQLSTATE 42804 for a condition that is none.
fn check_boolean(clause: &str, condition: &Expr, schema: &DFSchema) -> Result<()> {
    let Ok((_, field)) = condition.to_field(schema) else { return Ok(()) };
    let sql_type = SqlType::of_field(&field);
    if field.data_type().is_null() || sql_type == Some(SqlType::Boolean) {
        return Ok(());
    }
    let name = sql_type.map_or_else(|| field.data_type().to_string(), |t| t.to_string());
    Err(external(Error::user(
        SqlState::DATATYPE_MISMATCH,
        format!("argument of {clause} must be type boolean, not type {name}"),
    )))
}

/// SQLSTATE 42883 for values of types that are not compared with each other.
fn check_comparable<'a>(
    op: &str,
    expr: &Expr,
    others: impl IntoIterator<Item = &'a Expr>,
    schema: &DFSchema,
) -> Result<()> {
    let Ok((_, field)) = expr.to_field(schema) else { return Ok(()) };
    for other in others {
        if let Ok((_, other)) = other.to_field(schema)
            && !comparable(&field, &other)
        {
            return Err(no_operator(op, &field, &other));
        }
    }
    Ok(())
}

/// Functions whose arguments share one type.
pub const UNIFYING: [&str; 5] = ["coalesce", "nullif", "greatest", "least", "nvl"];

/// Quoted literals in `list` cast to the type of `other`.
fn like_other(list: Vec<Expr>, other: &Expr, schema: &DFSchema) -> Vec<Expr> {
    list.into_iter().map(|item| one_like_other(item, other, schema)).collect()
}

fn one_like_other(item: Expr, other: &Expr, schema: &DFSchema) -> Expr {
    if !is_quoted_literal(&item) || is_quoted_literal(other) {
        return item;
    }
    match other.to_field(schema) {
        Ok((_, field)) if is_char(&field) => without_blanks(item),
        Ok((_, field)) if !is_plain_text(&field) && !field.data_type().is_null() => {
            typed_literal(item, &field)
        }
        _ => item,
    }
}

fn typed_literal(item: Expr, field: &FieldRef) -> Expr {
    let field = Arc::new(field.as_ref().clone().with_nullable(true));
    Expr::Cast(Cast::new_from_field(Box::new(item), field))
}

/// Casts quoted literals to the type of the first expression that is none.
///
/// # Errors
/// SQLSTATE 42804 when the others have no type in common.
fn unify(construct: &str, exprs: Vec<&mut Expr>, schema: &DFSchema) -> Result<()> {
    let typed = |expr: &Expr| {
        let (_, field) = expr.to_field(schema).ok()?;
        (!is_quoted_literal(expr) && !field.data_type().is_null()).then_some(field)
    };
    let Some(first) = exprs.iter().find_map(|expr| typed(expr)) else { return Ok(()) };
    let mut exprs = exprs;
    widen(&mut exprs, schema);
    for expr in exprs {
        match typed(expr) {
            Some(field) => check_unifiable(construct, &first, &field)?,
            None if is_quoted_literal(expr) && !is_plain_text(&first) => {
                let item = std::mem::replace(expr, Expr::Literal(ScalarValue::Null, None));
                *expr = typed_literal(item, &first);
            }
            None => {}
        }
    }
    Ok(())
}

/// SQLSTATE 42804 for types that Postgres finds no common one of.
fn check_unifiable(construct: &str, first: &Field, other: &Field) -> Result<()> {
    if comparable(first, other) || first.data_type() == other.data_type() {
        return Ok(());
    }
    let name = |field: &Field| {
        SqlType::of_field(field).map_or_else(|| field.data_type().to_string(), |t| t.to_string())
    };
    Err(external(Error::user(
        SqlState::DATATYPE_MISMATCH,
        format!("{construct} types {} and {} cannot be matched", name(first), name(other)),
    )))
}

/// Step 1 for UNION: its columns have one type each. A quoted literal in a select list takes the
/// other side's.
fn unify_union(union: Union) -> Result<Union> {
    let mut inputs: Vec<Arc<LogicalPlan>> = union.inputs;
    for column in 0..union.schema.fields().len() {
        let is_literal = |plan: &LogicalPlan| match plan {
            LogicalPlan::Projection(p) => {
                is_quoted_literal(&p.expr[column].clone().unalias_nested().data)
            }
            _ => false,
        };
        let field_of = |plan: &LogicalPlan| plan.schema().field(column).clone();
        let Some(first) = inputs
            .iter()
            .filter(|plan| !is_literal(plan) && !field_of(plan).data_type().is_null())
            .map(|plan| field_of(plan))
            .next()
        else {
            continue;
        };
        for input in &mut inputs {
            let field = field_of(input);
            if field.data_type().is_null() || comparable(&first, &field) {
                continue;
            }
            let LogicalPlan::Projection(projection) = input.as_ref() else {
                check_unifiable("UNION", &first, &field)?;
                continue;
            };
            if !is_literal(input) {
                check_unifiable("UNION", &first, &field)?;
                continue;
            }
            let mut exprs = projection.expr.clone();
            let literal = exprs[column].clone().unalias_nested().data;
            exprs[column] = typed_literal(literal, &first).alias(field.name());
            let retyped = Projection::try_new(exprs, projection.input.clone())?;
            *input = Arc::new(LogicalPlan::Projection(retyped));
        }
    }
    Ok(Union { inputs, schema: union.schema })
}

/// Step 4.
fn after_analysis(
    expr: Expr,
    schema: &DFSchema,
    settings: &CastSettings,
) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::Cast(cast) => return postgres_cast(cast, schema, settings),
        Expr::Negative(inner) => {
            let zero = match inner.get_type(schema)? {
                DataType::Int16 => ScalarValue::Int16(Some(0)),
                DataType::Int32 => ScalarValue::Int32(Some(0)),
                DataType::Int64 => ScalarValue::Int64(Some(0)),
                _ => return Ok(Transformed::no(Expr::Negative(inner))),
            };
            let args = vec![Expr::Literal(zero, None), *inner];
            let call = ScalarFunction::new_udf(arithmetic(ArithmeticOp::Subtract), args);
            Transformed::yes(Expr::ScalarFunction(call))
        }
        Expr::WindowFunction(mut call) => {
            let mut changed = false;
            let params = &mut call.params;
            let sorted = params.order_by.iter_mut().map(|sort| &mut sort.expr);
            for expr in params.partition_by.iter_mut().chain(sorted) {
                let key = key_of(expr.clone(), schema)?;
                changed |= key.transformed;
                *expr = key.data;
            }
            let call = Expr::WindowFunction(call);
            if changed { Transformed::yes(call) } else { Transformed::no(call) }
        }
        Expr::BinaryExpr(binary) => return keep_type(binary, schema),
        other => Transformed::no(other),
    })
}

/// DataFusion makes `x * 0` and `x % 1` the zero that is written there, or x's, whose type need not
/// be the product's: numerics with a constant say their type.
fn keep_type(binary: BinaryExpr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let may_vanish = matches!(binary.op, Operator::Multiply | Operator::Modulo)
        && (binary.left.column_refs().is_empty() || binary.right.column_refs().is_empty());
    let expr = Expr::BinaryExpr(binary);
    if !may_vanish {
        return Ok(Transformed::no(expr));
    }
    match expr.get_type(schema)? {
        numeric @ DataType::Decimal128(..) => Ok(Transformed::yes(plain_cast(expr, numeric))),
        _ => Ok(Transformed::no(expr)),
    }
}

/// Functions that take digits from a number.
const ROUNDING: [&str; 4] = ["round", "trunc", "ceil", "floor"];

/// A numeric that was rounded prints as many digits as it was rounded to; `None` when they are
/// not known, or it is no numeric.
fn rounded_type(call: &ScalarFunction, schema: &DFSchema) -> Result<Option<DataType>> {
    let Some(number) = call.args.first() else { return Ok(None) };
    let DataType::Decimal128(precision, scale) = number.get_type(schema)? else {
        return Ok(None);
    };
    let result = Expr::ScalarFunction(call.clone()).get_type(schema)?;
    let digits = match call.args.get(1).map(literal_integer) {
        None => 0,
        Some(Some(digits)) => digits.max(0),
        Some(None) => return Ok(None),
    };
    let whole_digits = i64::from(precision) - i64::from(scale) + 1;
    if !matches!(result, DataType::Decimal128(_, _)) || whole_digits + digits > 38 {
        return Ok(None);
    }
    Ok(Some(DataType::Decimal128((whole_digits + digits).max(1) as u8, digits as i8)))
}

/// The value of an integer literal, also under casts and a minus.
fn literal_integer(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(ScalarValue::Int64(value), _) => *value,
        Expr::Literal(ScalarValue::Int32(value), _) => value.map(i64::from),
        Expr::Literal(ScalarValue::Int16(value), _) => value.map(i64::from),
        Expr::Cast(cast) => literal_integer(&cast.expr),
        Expr::Negative(inner) => literal_integer(inner).map(|value| -value),
        Expr::ScalarFunction(call) => match call.args.as_slice() {
            // What unary minus and casts have become.
            [zero, value] if call.func.name() == "-" && literal_integer(zero) == Some(0) => {
                literal_integer(value).map(|value| -value)
            }
            [value] if call.func.name() == "cast" => literal_integer(value),
            _ => None,
        },
        _ => None,
    }
}

/// A cast with Postgres's meaning. Those between spellings of one type stay Arrow's.
fn postgres_cast(
    cast: Cast,
    schema: &DFSchema,
    settings: &CastSettings,
) -> Result<Transformed<Expr>> {
    let (_, from_field) = cast.expr.to_field(schema)?;
    let Some(to) =
        SqlType::of_field(&cast.field).filter(|t| t.to_arrow() == *cast.field.data_type())
    else {
        return Ok(Transformed::no(Expr::Cast(cast)));
    };
    let from = if from_field.data_type().is_null() {
        None
    } else {
        let Some(from) = SqlType::of_field(&from_field) else {
            return Ok(Transformed::no(Expr::Cast(cast)));
        };
        Some(from)
    };
    let marked = is_marked(&to);
    let kind = match &from {
        // NULL takes any type; what the Arrow type does not tell needs the function's field.
        None if marked => CastKind::Function,
        None => CastKind::Arrow,
        Some(from) => cast_kind(from, &to),
    };
    match (kind, from) {
        // What a cast makes of char(n) is text, and shown without blanks at its end.
        (CastKind::Nothing, Some(from)) if is_char(&from_field) && !is_char(&cast.field) => {
            let function = cast_function(Some(from), to, *settings);
            let call = ScalarFunction::new_udf(function, vec![*cast.expr]);
            Ok(Transformed::yes(Expr::ScalarFunction(call)))
        }
        (CastKind::Nothing, _) if from_field.data_type() == cast.field.data_type() => {
            Ok(Transformed::yes(*cast.expr))
        }
        (CastKind::Nothing | CastKind::Arrow, _) => Ok(Transformed::no(Expr::Cast(cast))),
        (CastKind::Function, from) => {
            if let (Expr::Literal(text @ ScalarValue::Utf8(Some(_)), _), Some(from)) =
                (cast.expr.as_ref(), &from)
            {
                // As in Postgres, a literal is read when the statement is: an error has its place.
                cast_array(&text.to_array()?, from, &to, settings).map_err(external)?;
            }
            let function = cast_function(from, to, *settings);
            let call = ScalarFunction::new_udf(function, vec![*cast.expr]);
            Ok(Transformed::yes(Expr::ScalarFunction(call)))
        }
        (CastKind::Missing, Some(from)) => Err(external(cannot_cast(&from, &to))),
        (CastKind::Missing, None) => Ok(Transformed::no(Expr::Cast(cast))),
    }
}

/// A cast that has nothing to do with SQL's: between spellings of one type.
pub fn plain_cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast(Cast::new(Box::new(expr), data_type))
}

/// The statement's time in place of its parameter.
pub fn bind_now(expr: Expr, now: DateTime<Utc>) -> Result<Expr> {
    let bound = expr.transform_up(|e| match e {
        Expr::Placeholder(Placeholder { ref id, .. }) if id == NOW => {
            Ok(Transformed::yes(Expr::Literal(now_value(now), None)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(bound.data)
}

/// A time as a value of `now()`'s type.
pub fn now_value(now: DateTime<Utc>) -> ScalarValue {
    debug_assert!(matches!(now_type(), DataType::Timestamp(_, Some(_))));
    ScalarValue::TimestampMicrosecond(Some(now.timestamp_micros()), Some("UTC".into()))
}

/// Casts an expression to a column's type where Postgres assigns without asking. What comes out
/// still has to go through [`coerce_plan`] or [`coerce_expr`].
///
/// # Errors
/// SQLSTATE 42804 where it wants an explicit cast.
pub fn assign(expr: Expr, schema: &DFSchema, column: &Field) -> crate::types::error::Result<Expr> {
    let assigned = assign_type(expr, schema, column)?;
    let (function, number) = match Modifier::of_field(column) {
        None => return Ok(assigned),
        Some(Modifier::Varchar(length)) => {
            (FIT_LENGTH, Expr::Literal(ScalarValue::Int64(Some(length)), None))
        }
        Some(Modifier::Char(length)) => {
            (FIT_CHAR, Expr::Literal(ScalarValue::Int64(Some(length)), None))
        }
        Some(Modifier::Fraction(digits)) => {
            (ROUND_TIME, Expr::Literal(ScalarValue::Int32(i32::try_from(digits).ok()), None))
        }
    };
    let function = FUNCTIONS.scalar.get(function).ok_or_else(|| {
        Error::internal(format!("there is no function {function}, which columns need"))
    })?;
    let call = ScalarFunction::new_udf(function.clone(), vec![assigned, number]);
    Ok(Expr::ScalarFunction(call))
}

fn assign_type(expr: Expr, schema: &DFSchema, column: &Field) -> crate::types::error::Result<Expr> {
    let (_, field) = expr.to_field(schema).map_err(Error::from)?;
    let from = canonical_field(&field).and_then(|f| SqlType::of_field(&f));
    let to = SqlType::of_field(column);
    if from == to && field.data_type() == column.data_type() {
        return Ok(expr);
    }
    let untyped = is_quoted_literal(&expr) || field.data_type().is_null();
    if !untyped && !from.as_ref().zip(to.as_ref()).is_some_and(|(from, to)| assignable(from, to)) {
        let name = |t: Option<SqlType>, f: &Field| {
            t.map_or_else(|| f.data_type().to_string(), |t| t.family_name())
        };
        return Err(Error::user(
            SqlState::DATATYPE_MISMATCH,
            format!(
                "column \"{}\" is of type {} but expression is of type {}",
                column.name(),
                name(to, column),
                name(from, &field)
            ),
        )
        .hint("You will need to rewrite or cast the expression."));
    }
    let target = Arc::new(column.clone().with_nullable(true));
    Ok(Expr::Cast(Cast::new_from_field(Box::new(expr), target)))
}

/// Postgres's assignment casts, as its pg_cast lists them.
pub fn assignable(from: &SqlType, to: &SqlType) -> bool {
    use SqlType as T;
    let is_number =
        |t: &T| matches!(t, T::Int2 | T::Int4 | T::Int8 | T::Float4 | T::Float8 | T::Numeric(_, _));
    match (from, to) {
        (from, to) if from == to => true,
        (from, to) if is_number(from) && is_number(to) => true,
        // Everything can be assigned to text.
        (_, T::Text) => true,
        (T::Date, T::Timestamp | T::Timestamptz)
        | (T::Timestamp, T::Date | T::Time | T::Timestamptz)
        | (T::Timestamptz, T::Date | T::Time | T::Timestamp)
        | (T::Time, T::Interval)
        | (T::Interval, T::Time)
        | (T::Json, T::Jsonb)
        | (T::Jsonb, T::Json) => true,
        (T::Array(from), T::Array(to)) => assignable(from, to),
        (T::Record(from), T::Record(to)) => {
            from.len() == to.len()
                && from.iter().zip(to).all(|((_, from), (_, to))| assignable(from, to))
        }
        _ => false,
    }
}
