//! `JOIN t FOR SYSTEM_TIME AS OF time`: a join with the version of `t` that held at that time.
//!
//! As of `PROCTIME()` it is a join with what is there when a row comes.
//!
//! The clause becomes a part of the join's condition, `system_time_condition(time)` or
//! `processing_time_condition()`, which
//! `sql::asof` finds when the names are resolved.

use datafusion::sql::sqlparser::ast::{
    Expr, JoinConstraint, JoinOperator, Select, TableFactor, TableVersion, TableWithJoins,
};

use crate::functions::scalar::windows::{PROCESSING_TIME_CONDITION, SYSTEM_TIME_CONDITION};
use crate::sql::dml::build::conjunction;
use crate::sql::parse::name::normalize as fold;
use crate::sql::rewrite::call;
use crate::types::error::{Error, Result};

/// Moves the versions of joined tables into the conditions of their joins.
///
/// # Errors
/// SQLSTATE 0A000 where there is no join with ON, and for other kinds of versions.
pub fn rewrite_system_time(select: &mut Select) -> Result<()> {
    select.from.iter_mut().try_for_each(rewrite_joins)
}

fn rewrite_joins(table: &mut TableWithJoins) -> Result<()> {
    if take_version(&mut table.relation)?.is_some() {
        return Err(Error::unsupported("FOR SYSTEM_TIME AS OF without a join")
            .hint("It stands behind the right table of JOIN ... ON."));
    }
    for join in &mut table.joins {
        let Some(time) = take_version(&mut join.relation)? else { continue };
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
