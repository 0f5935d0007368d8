//! `t FOR SYSTEM_TIME AS OF time`.
//!
//! As of a time that is the same for all rows, it is what `t` was then: a table or view, with all
//! that a plain view reads. The time becomes a part of the name, [`versioned_name`], which
//! `sql::resolve` takes apart; it is computed when the statement runs, by [`evaluate`].
//!
//! As of a column, behind JOIN, it is a join with the version of `t` that held at that time; as of
//! `PROCTIME()` a join with what is there when a row comes. That clause becomes a part of the join's condition, `system_time_condition(time)` or
//! `processing_time_condition()`, which
//! `sql::asof` finds when the names are resolved.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Int64Type, Schema, TimeUnit, TimestampMicrosecondType};
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, JoinConstraint, JoinOperator, ObjectNamePart, Select, TableAlias, TableFactor,
    TableVersion, TableWithJoins, visit_expressions,
};

use crate::functions::scalar::windows::{PROCESSING_TIME_CONDITION, SYSTEM_TIME_CONDITION};
use crate::sql::bind::PlanContext;
use crate::sql::dml::build::conjunction;
use crate::sql::parse::name::normalize as fold;
use crate::sql::parse::parse_expression;
use crate::sql::rewrite::call;
use crate::types::error::{Error, Result, SqlState};
use crate::types::time::{At, Epoch, EventTime};

/// Stands between a relation's name and the time as of which it is read. No name that a user
/// writes has it.
const VERSION_MARK: char = '\u{1}';

/// Moves the versions of joined tables into the conditions of their joins.
///
/// # Errors
/// SQLSTATE 0A000 where there is no join with ON, and for other kinds of versions.
pub fn rewrite_system_time(select: &mut Select) -> Result<()> {
    select.from.iter_mut().try_for_each(rewrite_joins)
}

fn rewrite_joins(table: &mut TableWithJoins) -> Result<()> {
    if let Some(time) = take_version(&mut table.relation)? {
        if is_proctime(&time) || names_columns(&time) {
            return Err(Error::unsupported("FOR SYSTEM_TIME AS OF a column without a join").hint(
                "Behind the right table of JOIN ... ON it may be a column of the left one; \
                       elsewhere it is one time for all rows.",
            ));
        }
        read_as_of(&mut table.relation, &time)?;
    }
    for join in &mut table.joins {
        let Some(time) = take_version(&mut join.relation)? else { continue };
        if !is_proctime(&time) && !names_columns(&time) {
            read_as_of(&mut join.relation, &time)?;
            continue;
        }
        let constraint = match &mut join.join_operator {
            JoinOperator::Join(on)
            | JoinOperator::Inner(on)
            | JoinOperator::Left(on)
            | JoinOperator::LeftOuter(on) => on,
            _ => {
                return Err(Error::unsupported("FOR SYSTEM_TIME AS OF in this kind of join")
                    .hint("Use JOIN or LEFT JOIN."));
            }
        };
        let JoinConstraint::On(condition) = constraint else {
            return Err(Error::unsupported("FOR SYSTEM_TIME AS OF in a join without ON")
                .hint("Join on the key of the versioned table."));
        };
        let mark = match is_proctime(&time) {
            true => call(PROCESSING_TIME_CONDITION, vec![]),
            false => call(SYSTEM_TIME_CONDITION, vec![time]),
        };
        let condition = std::mem::replace(condition, mark.clone());
        let both = vec![mark, Expr::Nested(Box::new(condition))];
        if let (JoinConstraint::On(place), Some(both)) = (constraint, conjunction(both)) {
            *place = both;
        }
    }
    Ok(())
}

/// Whether an expression has another value for each row.
fn names_columns(expr: &Expr) -> bool {
    let found = visit_expressions(expr, |part| match part {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

/// Lets a relation be read as of a time: both in its name, and the name alone as its alias.
fn read_as_of(factor: &mut TableFactor, time: &Expr) -> Result<()> {
    let has_others = visit_expressions(time, |part| match part {
        Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => {
            ControlFlow::Break("a subquery")
        }
        Expr::Value(value) if matches!(value.value, ast::Value::Placeholder(_)) => {
            ControlFlow::Break("a parameter")
        }
        _ => ControlFlow::Continue(()),
    });
    if let ControlFlow::Break(what) = has_others {
        return Err(Error::unsupported(format!("FOR SYSTEM_TIME AS OF with {what}"))
            .hint("Write the time, or an expression over now()."));
    }
    let TableFactor::Table { name, alias, .. } = factor else {
        return Err(Error::unsupported("FOR SYSTEM_TIME AS OF behind a subquery or function")
            .hint("Write it behind each table that the subquery reads."));
    };
    let Some(ObjectNamePart::Identifier(last)) = name.0.last_mut() else {
        return Err(Error::unsupported("FOR SYSTEM_TIME AS OF behind this name"));
    };
    let plain = fold(last);
    alias.get_or_insert_with(|| TableAlias {
        explicit: true,
        name: Ident::with_quote('"', plain.clone()),
        columns: Vec::new(),
        at: None,
    });
    let versioned = Ident::with_quote('"', versioned_name(&plain, &time.to_string()));
    *last = Ident { span: last.span, ..versioned };
    Ok(())
}

/// The name of a relation as of a time.
fn versioned_name(name: &str, time: &str) -> String {
    format!("{name}{VERSION_MARK}{time}")
}

/// The name of a relation, and the time as of which it is read.
pub fn split_version(name: &str) -> (&str, Option<&str>) {
    name.split_once(VERSION_MARK).map_or((name, None), |(name, time)| (name, Some(time)))
}

/// What a time means: a number is an epoch, an interval is so long ago, anything else is a time.
///
/// # Errors
/// When the expression is wrong, NULL, or none of these.
pub fn evaluate(context: &PlanContext, time: &str) -> Result<At> {
    let plain = value_of(context, time)?;
    match plain.data_type() {
        DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            let number = arrow::compute::cast(&plain, &DataType::Int64)?;
            let number = number.as_primitive::<Int64Type>().value(0);
            let epoch = u64::try_from(number).map_err(|_| {
                Error::user(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("{number} is not the number of an epoch"),
                )
            })?;
            Ok(At::Epoch(Epoch(epoch)))
        }
        DataType::Timestamp(_, Some(_)) => time_of(&plain),
        DataType::Interval(_) => time_of(&value_of(context, &format!("now() - ({time})"))?),
        _ => time_of(&value_of(context, &format!("CAST(({time}) AS timestamptz)"))?),
    }
}

/// The value of an expression over nothing.
fn value_of(context: &PlanContext, text: &str) -> Result<ArrayRef> {
    let context = PlanContext { sql: text.into(), ..context.clone() };
    let planned = context.plan_expr(&parse_expression(text)?, &Schema::empty(), None);
    let planned = planned.map_err(Error::without_position)?;
    let one = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &one)?;
    let value = planned.evaluate(&row)?;
    if value.is_null(0) {
        return Err(Error::user(SqlState("22004"), "the time of AS OF must not be NULL"));
    }
    Ok(value)
}

fn time_of(value: &ArrayRef) -> Result<At> {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let value = arrow::compute::cast(value, &utc)?;
    Ok(At::Time(EventTime(value.as_primitive::<TimestampMicrosecondType>().value(0))))
}

/// Whether a time is when a row comes.
fn is_proctime(time: &Expr) -> bool {
    let Expr::Function(function) = time else { return false };
    let [part] = function.name.0.as_slice() else { return false };
    part.as_ident().is_some_and(|ident| fold(ident) == "proctime")
}

/// Takes a table's version clause out, and gives its time.
fn take_version(factor: &mut TableFactor) -> Result<Option<Expr>> {
    match factor {
        TableFactor::Table { version, .. } => match version.take() {
            None => Ok(None),
            Some(TableVersion::ForSystemTimeAsOf(time)) => Ok(Some(time)),
            Some(other) => {
                Err(Error::unsupported(other.to_string()).hint("Write FOR SYSTEM_TIME AS OF time."))
            }
        },
        TableFactor::NestedJoin { table_with_joins, .. } => {
            rewrite_joins(table_with_joins).map(|()| None)
        }
        _ => Ok(None),
    }
}
