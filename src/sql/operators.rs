//! Operators as Postgres resolves them, where DataFusion resolves them otherwise.
//!
//! 1. A quoted literal has no type yet: it takes the other operand's.
//! 2. Arithmetic on integers and floats raises errors (`functions::scalar::arithmetic`).
//! 3. Dates and intervals have operators that DataFusion lacks (`functions::scalar::datetime`).
//! 4. Operators of documents, arrays, numerics and times are functions of several types
//!    (`functions::scalar::call`), as are EXTRACT and SUBSTRING.
//! 5. Operands that have no operator in common are an error (42883) where DataFusion would compare
//!    them as text or as bytes.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::WindowFunctionDefinition;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{
    ExprPlanner, PlannerResult, RawBinaryExpr, RawFieldAccessExpr, RawWindowExpr,
};
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, GetFieldAccess};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use crate::functions::scalar::arithmetic::{ArithmeticOp, arithmetic, common_type};
use crate::functions::scalar::call::{Family, given_type};
use crate::functions::scalar::datetime::{TimeOp, time_arithmetic};
use crate::functions::scalar::marked::{is_marked, marked};
use crate::functions::scalar::passing::PASSING;
use crate::sql::aggregates;
use crate::sql::exclude::exclude;
use crate::sql::functions::FUNCTIONS;
use crate::types::error::{Error, SqlState};
use crate::types::sql_type::{Modifier, SqlType};

/// Plugged into DataFusion's SQL planner, before its own.
#[derive(Debug)]
pub struct PostgresOperators;

impl ExprPlanner for PostgresOperators {
    fn plan_binary_op(
        &self,
        raw: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let RawBinaryExpr { op, left, right } = raw;
        let (left, right) = (with_mark(left, schema), with_mark(right, schema));
        let raw = RawBinaryExpr { op, left, right };
        let (Some(left), Some(right)) = (field_of(&raw.left, schema), field_of(&raw.right, schema))
        else {
            // A parameter without a type, or a name that does not exist: others will say.
            return Ok(PlannerResult::Original(raw));
        };
        // Documents and arrays have operators of their own, in which a quoted literal need not
        // be a document too.
        let typed = |field: &Field| {
            let sql_type = SqlType::of_field(field);
            matches!(sql_type, Some(SqlType::Json | SqlType::Jsonb | SqlType::Array(_)))
        };
        let arithmetic = arithmetic_op(&raw.op).is_some();
        if (!arithmetic || typed(&left) || typed(&right))
            && let Some(planned) = plan_family(&raw, &left, &right)
        {
            return Ok(PlannerResult::Planned(planned));
        }
        let raw = type_quoted_literal(raw, &left, &right);
        let raw = widened(raw, schema);
        let (Some(left), Some(right)) = (field_of(&raw.left, schema), field_of(&raw.right, schema))
        else {
            return Ok(PlannerResult::Original(raw));
        };
        if let Some(op) = arithmetic_op(&raw.op) {
            let is = |field: &Field, wanted: fn(&SqlType) -> bool| {
                SqlType::of_field(field).as_ref().is_some_and(wanted)
            };
            let numeric = |field: &Field| is(field, |t| matches!(t, SqlType::Numeric(_, _)));
            let time = |field: &Field| {
                is(field, |t| matches!(t, SqlType::Timestamp | SqlType::Timestamptz))
            };
            let interval = |field: &Field| is(field, |t| *t == SqlType::Interval);
            let (raw, left, right) = date_as_timestamp(raw, left, right);
            // A day later is by the clocks of the session's zone; what is infinite stays so.
            let moved = time(&left) && interval(&right) || interval(&left) && time(&right);
            if (numeric(&left) || numeric(&right) || moved)
                && let Some(planned) = plan_family(&raw, &left, &right)
            {
                return Ok(PlannerResult::Planned(planned));
            }
            return plan_arithmetic(op, raw, left.data_type(), right.data_type());
        }
        if is_only_ours(&raw.op) {
            // What looks like text may be a document whose mark is not known yet.
            if let Some(planned) = plan_unmarked(&raw, &left, &right) {
                return Ok(PlannerResult::Planned(planned));
            }
            return Err(no_operator(&raw.op.to_string(), &left, &right));
        }
        if is_comparison(&raw.op) && !comparable(&left, &right) {
            return Err(no_operator(&raw.op.to_string(), &left, &right));
        }
        Ok(PlannerResult::Original(raw))
    }

    // DataFusion makes `nth_value(x, n)` of `(array_agg(x))[n]`, which counts from the other end
    // where n is negative, and which views do not maintain.
    fn plan_field_access(
        &self,
        raw: RawFieldAccessExpr,
        _schema: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>> {
        let element = FUNCTIONS.scalar.get("array_element");
        match (raw, element) {
            (
                RawFieldAccessExpr {
                    expr: array @ Expr::AggregateFunction(_),
                    field_access: GetFieldAccess::ListIndex { key },
                },
                Some(element),
            ) => Ok(PlannerResult::Planned(element.call(vec![array, *key]))),
            (raw, _) => Ok(PlannerResult::Original(raw)),
        }
    }

    fn plan_extract(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        plan_call("extract", args)
    }

    fn plan_window(&self, raw: RawWindowExpr) -> Result<PlannerResult<RawWindowExpr>> {
        let mut raw = raw;
        if let WindowFunctionDefinition::AggregateUDF(function) = &raw.func_def
            && let Some(function) = aggregates::in_window(function.name())
        {
            raw.func_def = WindowFunctionDefinition::AggregateUDF(function);
        }
        Ok(PlannerResult::Original(exclude(raw)?))
    }

    fn plan_substring(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        plan_call("substring", args)
    }
}

/// Whether DataFusion would do something else, or nothing, with an operator of ours.
fn is_only_ours(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::Arrow
            | BinaryOperator::LongArrow
            | BinaryOperator::HashArrow
            | BinaryOperator::HashLongArrow
            | BinaryOperator::AtArrow
            | BinaryOperator::ArrowAt
            | BinaryOperator::Question
            | BinaryOperator::QuestionPipe
            | BinaryOperator::QuestionAnd
            | BinaryOperator::HashMinus
            | BinaryOperator::AtQuestion
            | BinaryOperator::AtAt
            | BinaryOperator::PGOverlap
            | BinaryOperator::PGStartsWith
            | BinaryOperator::PGExp
            | BinaryOperator::PGRegexMatch
            | BinaryOperator::PGRegexIMatch
            | BinaryOperator::PGRegexNotMatch
            | BinaryOperator::PGRegexNotIMatch
    )
}

/// The call of one of our functions that an operator means for operands of these types; `None`
/// when there is none.
fn plan_family(raw: &RawBinaryExpr, left: &FieldRef, right: &FieldRef) -> Option<Expr> {
    let both_text = [left, right].iter().all(|field| is_plain_text(field));
    if raw.op == BinaryOperator::StringConcat && both_text {
        return None;
    }
    let given = given_types(raw, left, right);
    if given.iter().all(Option::is_none) && !is_only_ours(&raw.op) {
        return None;
    }
    family_call(raw, &given)
}

/// As [`plan_family`], where text may be anything; `sql::coerce` looks again when all marks are
/// known.
fn plan_unmarked(raw: &RawBinaryExpr, left: &FieldRef, right: &FieldRef) -> Option<Expr> {
    let known =
        |t: &SqlType| !matches!(t, SqlType::Text | SqlType::Bytea | SqlType::Json | SqlType::Jsonb);
    let given = given_types(raw, left, right).map(|given| given.filter(known));
    family_call(raw, &given)
}

fn given_types(raw: &RawBinaryExpr, left: &FieldRef, right: &FieldRef) -> [Option<SqlType>; 2] {
    let literal = |expr: &Expr| match expr {
        Expr::Literal(value, _) => Some(value.clone()),
        _ => None,
    };
    let (left_literal, right_literal) = (literal(&raw.left), literal(&raw.right));
    [given_type(left, left_literal.as_ref()), given_type(right, right_literal.as_ref())]
}

fn family_call(raw: &RawBinaryExpr, given: &[Option<SqlType>]) -> Option<Expr> {
    // sqlparser reads `#` and `^` as operators of their own.
    let symbol = match &raw.op {
        BinaryOperator::PGBitwiseXor => "#".to_owned(),
        BinaryOperator::PGExp => "^".to_owned(),
        op => op.to_string(),
    };
    let function = FUNCTIONS.scalar.get(&symbol)?;
    let family = function.inner().downcast_ref::<Family>()?;
    family.fits(given).then(|| {
        let args = vec![raw.left.clone(), raw.right.clone()];
        Expr::ScalarFunction(ScalarFunction::new_udf(function.clone(), args))
    })
}

/// A call of the function of that name.
fn plan_call(name: &str, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
    match FUNCTIONS.scalar.get(name) {
        Some(function) => {
            let call = ScalarFunction::new_udf(function.clone(), args);
            Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
        }
        None => Ok(PlannerResult::Original(args)),
    }
}

/// The field that an expression gives; `None` while it cannot be known.
fn field_of(expr: &Expr, schema: &DFSchema) -> Option<FieldRef> {
    let field = expr.to_field(schema).ok().map(|(_, field)| field)?;
    match marked_result(expr, schema) {
        Some(sql_type) => Some(Arc::new(sql_type.to_field(field.name(), true))),
        None => Some(field),
    }
}

/// An expression in the field that it should have.
pub fn with_mark(expr: Expr, schema: &DFSchema) -> Expr {
    match marked_result(&expr, schema) {
        Some(sql_type) => marked(sql_type).call(vec![expr]),
        None => expr,
    }
}

/// Functions of DataFusion that give one of their values, and forget which type of ours it has.
pub const UNMARKING: [&str; 3] = ["make_array", "array_element", "array_slice"];

/// The type of an expression when only a field's mark tells it, and DataFusion drops that: of CASE,
/// of arrays and their items, of aggregates. `None` for all others.
pub fn marked_result(expr: &Expr, schema: &DFSchema) -> Option<SqlType> {
    let type_of = |expr: &Expr| SqlType::of_field(field_of(expr, schema)?.as_ref());
    let first = |args: &[Expr]| args.iter().filter_map(type_of).find(is_marked);
    let aggregated = |name: &str, args: &[Expr]| match name {
        "array_agg" => Some(SqlType::Array(Box::new(first(args)?))),
        "min" | "max" => first(args),
        _ => None,
    };
    match expr {
        Expr::Case(case) => {
            let mut results =
                case.when_then_expr.iter().map(|(_, then)| then).chain(&case.else_expr);
            results.find_map(|result| type_of(result).filter(is_marked))
        }
        Expr::ScalarFunction(call) => match (call.func.name(), call.args.as_slice()) {
            ("make_array", items) => Some(SqlType::Array(Box::new(first(items)?))),
            ("array_slice", [array, ..]) => type_of(array).filter(is_marked),
            ("array_element", [array, ..]) => match type_of(array)? {
                SqlType::Array(item) if is_marked(&item) => Some(*item),
                _ => None,
            },
            (name, args) if PASSING.contains(&name) => first(args),
            _ => None,
        },
        Expr::AggregateFunction(call) => aggregated(call.func.name(), &call.params.args),
        Expr::WindowFunction(call) => match &call.fun {
            WindowFunctionDefinition::AggregateUDF(function) => {
                aggregated(function.name(), &call.params.args)
            }
            WindowFunctionDefinition::WindowUDF(_) => None,
        },
        _ => None,
    }
}

fn arithmetic_op(op: &BinaryOperator) -> Option<ArithmeticOp> {
    Some(match op {
        BinaryOperator::Plus => ArithmeticOp::Add,
        BinaryOperator::Minus => ArithmeticOp::Subtract,
        BinaryOperator::Multiply => ArithmeticOp::Multiply,
        BinaryOperator::Divide => ArithmeticOp::Divide,
        BinaryOperator::Modulo => ArithmeticOp::Modulo,
        _ => return None,
    })
}

fn is_comparison(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq
    )
}

/// A text literal, which in Postgres has no type until something gives it one.
pub fn is_quoted_literal(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Utf8(Some(_)), _))
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Whether the column is `char(n)`: what is compared with it counts without blanks at its end.
pub fn is_char(field: &Field) -> bool {
    matches!(Modifier::of_field(field), Some(Modifier::Char(_)))
}

/// A quoted literal beside `char(n)`.
pub fn without_blanks(literal: Expr) -> Expr {
    match literal {
        Expr::Literal(ScalarValue::Utf8(Some(text)), metadata) => {
            let text = text.trim_end_matches(' ').to_owned();
            Expr::Literal(ScalarValue::Utf8(Some(text)), metadata)
        }
        other => other,
    }
}

/// Whether the column is text and nothing but text (not json).
pub fn is_plain_text(field: &Field) -> bool {
    is_text(field.data_type())
        && !matches!(SqlType::of_field(field), Some(SqlType::Json | SqlType::Jsonb))
}

/// Step 1.
fn type_quoted_literal(raw: RawBinaryExpr, left: &FieldRef, right: &FieldRef) -> RawBinaryExpr {
    let arithmetic = arithmetic_op(&raw.op);
    if arithmetic.is_none() && !is_comparison(&raw.op) {
        return raw;
    }
    let RawBinaryExpr { op, left: left_expr, right: right_expr } = raw;
    let (left_expr, right_expr) =
        match (is_quoted_literal(&left_expr), is_quoted_literal(&right_expr)) {
            (true, false) if is_char(right) => (without_blanks(left_expr), right_expr),
            (false, true) if is_char(left) => (left_expr, without_blanks(right_expr)),
            (true, false) if !is_plain_text(right) => {
                (cast_to_other(left_expr, right, arithmetic), right_expr)
            }
            (false, true) if !is_plain_text(left) => {
                let right_expr = cast_to_other(right_expr, left, arithmetic);
                (left_expr, right_expr)
            }
            _ => (left_expr, right_expr),
        };
    RawBinaryExpr { op, left: left_expr, right: right_expr }
}

/// Casts a quoted literal to what stands beside it. Beside a date or timestamp it is one too,
/// except that only an interval can be added to one.
fn cast_to_other(literal: Expr, other: &FieldRef, op: Option<ArithmeticOp>) -> Expr {
    let temporal = matches!(
        other.data_type(),
        DataType::Date32 | DataType::Timestamp(_, _) | DataType::Time64(_)
    );
    let field = if temporal && op == Some(ArithmeticOp::Add) {
        Arc::new(SqlType::Interval.to_field("", true))
    } else if other.data_type().is_null() {
        return literal;
    } else {
        Arc::new(other.as_ref().clone().with_nullable(true))
    };
    Expr::Cast(Cast::new_from_field(Box::new(literal), field))
}

/// A float and a numeric meet as double precision: not every float is a numeric. A date meets a
/// timestamp as one.
fn widened(raw: RawBinaryExpr, schema: &DFSchema) -> RawBinaryExpr {
    if arithmetic_op(&raw.op).is_none() && !is_comparison(&raw.op) {
        return raw;
    }
    let RawBinaryExpr { op, mut left, mut right } = raw;
    widen(&mut [&mut left, &mut right], schema);
    RawBinaryExpr { op, left, right }
}

/// Casts numerics to double precision beside a float, and dates to timestamps beside one: of these
/// pairs DataFusion makes types that have fewer values.
pub fn widen(exprs: &mut [&mut Expr], schema: &DFSchema) {
    widen_to_float(exprs, schema);
    widen_to_timestamp(exprs, schema);
}

/// DataFusion compares dates and timestamps in nanoseconds, which end in the year 2262.
fn widen_to_timestamp(exprs: &mut [&mut Expr], schema: &DFSchema) {
    let types: Vec<Option<SqlType>> = exprs
        .iter()
        .map(|expr| field_of(expr, schema).and_then(|field| SqlType::of_field(&field)))
        .collect();
    let has = |wanted: SqlType| types.iter().flatten().any(|t| *t == wanted);
    if !has(SqlType::Date) {
        return;
    }
    let target = if has(SqlType::Timestamptz) {
        SqlType::Timestamptz
    } else if has(SqlType::Timestamp) {
        SqlType::Timestamp
    } else {
        return;
    };
    let field = Arc::new(target.to_field("", true));
    for (expr, sql_type) in exprs.iter_mut().zip(&types) {
        if *sql_type == Some(SqlType::Date) {
            let date = std::mem::replace(&mut **expr, Expr::Literal(ScalarValue::Null, None));
            **expr = Expr::Cast(Cast::new_from_field(Box::new(date), field.clone()));
        }
    }
}

fn widen_to_float(exprs: &mut [&mut Expr], schema: &DFSchema) {
    let type_of = |expr: &Expr| field_of(expr, schema).map(|field| field.data_type().clone());
    if !exprs.iter().any(|expr| type_of(expr).is_some_and(|t| t.is_floating())) {
        return;
    }
    for expr in exprs {
        if matches!(type_of(expr), Some(DataType::Decimal128(_, _))) {
            let taken = std::mem::replace(&mut **expr, Expr::Literal(ScalarValue::Null, None));
            **expr = Expr::Cast(Cast::new(Box::new(taken), DataType::Float64));
        }
    }
}

/// A date that an interval is added to is a timestamp: the interval's time shows in the sum.
fn date_as_timestamp(
    mut raw: RawBinaryExpr,
    mut left: FieldRef,
    mut right: FieldRef,
) -> (RawBinaryExpr, FieldRef, FieldRef) {
    let timestamp = |field: &Field| Arc::new(SqlType::Timestamp.to_field("", field.is_nullable()));
    use BinaryOperator::{Minus, Plus};
    match (&raw.op, left.data_type(), right.data_type()) {
        (Plus | Minus, DataType::Date32, DataType::Interval(_)) => {
            left = timestamp(&left);
            raw.left = to_timestamp(raw.left);
        }
        (Plus, DataType::Interval(_), DataType::Date32) => {
            right = timestamp(&right);
            raw.right = to_timestamp(raw.right);
        }
        _ => {}
    }
    (raw, left, right)
}

fn to_timestamp(date: Expr) -> Expr {
    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, None);
    Expr::Cast(Cast::new(Box::new(date), timestamp))
}

/// Steps 2 and 3.
fn plan_arithmetic(
    op: ArithmeticOp,
    raw: RawBinaryExpr,
    left: &DataType,
    right: &DataType,
) -> Result<PlannerResult<RawBinaryExpr>> {
    use ArithmeticOp::{Add, Divide, Multiply, Subtract};
    use DataType::{Date32, Int16, Int32, Interval, Time64, Timestamp};
    let is_number = |t: &DataType| t.is_numeric();
    let (time_op, swapped) = match (op, left, right) {
        (Subtract, Date32, Date32) => (TimeOp::DateDifference, false),
        (Add, Date32, Int16 | Int32) => (TimeOp::DatePlus, false),
        (Subtract, Date32, Int16 | Int32) => (TimeOp::DateMinus, false),
        (Add, Int16 | Int32, Date32) => (TimeOp::DatePlus, true),
        (Add, Date32, Time64(_)) => (TimeOp::DatePlusTime, false),
        (Add, Time64(_), Date32) => (TimeOp::DatePlusTime, true),
        (Add, Time64(_), Interval(_)) => (TimeOp::TimePlus, false),
        (Add, Interval(_), Time64(_)) => (TimeOp::TimePlus, true),
        (Subtract, Time64(_), Interval(_)) => (TimeOp::TimeMinus, false),
        (Subtract, Time64(_), Time64(_)) => (TimeOp::TimeDifference, false),
        // Of two kinds, DataFusion casts first.
        (Subtract, Timestamp(_, from), Timestamp(_, to)) if from.is_some() == to.is_some() => {
            (TimeOp::TimestampDifference, false)
        }
        (Multiply, Interval(_), number) if is_number(number) => (TimeOp::IntervalMultiply, false),
        (Multiply, number, Interval(_)) if is_number(number) => (TimeOp::IntervalMultiply, true),
        (Divide, Interval(_), number) if is_number(number) => (TimeOp::IntervalDivide, false),
        (op, left, right) if common_type(left, right).is_some() => {
            let call = ScalarFunction::new_udf(arithmetic(op), vec![raw.left, raw.right]);
            return Ok(PlannerResult::Planned(Expr::ScalarFunction(call)));
        }
        _ => return Ok(PlannerResult::Original(raw)),
    };
    let args = if swapped { vec![raw.right, raw.left] } else { vec![raw.left, raw.right] };
    let call = ScalarFunction::new_udf(time_arithmetic(time_op), args);
    Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
}

/// Step 5: which types Postgres compares with each other.
pub fn comparable(left: &Field, right: &Field) -> bool {
    let class = |field: &Field| match SqlType::of_field(field) {
        Some(
            SqlType::Int2
            | SqlType::Int4
            | SqlType::Int8
            | SqlType::Oid
            | SqlType::Float4
            | SqlType::Float8
            | SqlType::Numeric(_, _),
        ) => 1,
        Some(SqlType::Text) => 2,
        Some(SqlType::Date | SqlType::Timestamp | SqlType::Timestamptz) => 3,
        Some(SqlType::Boolean) => 4,
        Some(SqlType::Bytea) => 5,
        Some(SqlType::Time) => 6,
        Some(SqlType::Interval) => 7,
        Some(SqlType::Uuid) => 8,
        Some(SqlType::Jsonb) => 9,
        Some(SqlType::Array(_)) => 10,
        Some(SqlType::Record(_)) => 11,
        // json has no equality in Postgres.
        Some(SqlType::Json) | None => 0,
    };
    if left.data_type().is_null() || right.data_type().is_null() {
        return true;
    }
    class(left) == class(right) && class(left) != 0
}

/// `operator does not exist: integer = text`.
pub fn no_operator(op: &str, left: &Field, right: &Field) -> DataFusionError {
    let name = |field: &Field| {
        SqlType::of_field(field).map_or_else(|| field.data_type().to_string(), |t| t.family_name())
    };
    let message = format!("operator does not exist: {} {op} {}", name(left), name(right));
    DataFusionError::External(Box::new(Error::user(SqlState::UNDEFINED_FUNCTION, message).hint(
        "No operator matches the given name and argument types. You might need to add \
             explicit type casts.",
    )))
}
