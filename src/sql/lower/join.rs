//! Joins of every kind.
//!
//! 1. Key expressions that are no columns are computed by the `Map` below, as columns after the
//!    input's own; a projection above drops them again.
//! 2. Right semi and anti joins are left ones with the sides swapped.
//! 3. A mark join (IN or EXISTS under OR) is a left join with the distinct keys of the right side;
//!    the mark says whether something was found. With a condition that is no equality it is the rows
//!    of a semi join and those of an anti join.
//! 4. NOT IN keeps a row only while the right side has no NULL: an anti join beside a one-row
//!    aggregate that says so.
//! 5. The keys of an ASOF join end with its time.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::{Column, DFSchemaRef, JoinType, NullEquality};
use datafusion::logical_expr::{Expr, ExprSchemable, Join, LogicalPlan, lit};

use crate::plan::node::{self, Edge, JoinKind, Node};
use crate::sql::asof::{AsofJoin, Sides};
use crate::sql::expressions::{compile, ordered_condition};
use crate::sql::lower::aggregate::{lower_count_rows, lower_has_null, make_distinct};
use crate::sql::lower::lower_node;
use crate::sql::lower::pipe::{Pipe, QualifiedField, column_index, qualified, unqualified};
use crate::types::error::{Error, Result};

pub fn lower_join(join: &Join) -> Result<Pipe> {
    let (left, right) = (&*join.left, &*join.right);
    let swapped: Vec<(Expr, Expr)> = join.on.iter().map(|(l, r)| (r.clone(), l.clone())).collect();
    match join.join_type {
        JoinType::Inner => lower_sides(join, left, right, &join.on, JoinKind::Inner),
        JoinType::Left => lower_sides(join, left, right, &join.on, JoinKind::Left),
        JoinType::Right => lower_sides(join, left, right, &join.on, JoinKind::Right),
        JoinType::Full => lower_sides(join, left, right, &join.on, JoinKind::Full),
        JoinType::LeftSemi => lower_sides(join, left, right, &join.on, JoinKind::LeftSemi),
        JoinType::LeftAnti if join.null_aware => lower_not_in(join),
        JoinType::LeftAnti => lower_sides(join, left, right, &join.on, JoinKind::LeftAnti),
        JoinType::RightSemi => lower_sides(join, right, left, &swapped, JoinKind::LeftSemi),
        JoinType::RightAnti => lower_sides(join, right, left, &swapped, JoinKind::LeftAnti),
        JoinType::LeftMark => lower_mark(join, left, right, &join.on),
        JoinType::RightMark => lower_mark(join, right, left, &swapped),
    }
}

fn lower_sides(
    join: &Join,
    left: &LogicalPlan,
    right: &LogicalPlan,
    on: &[(Expr, Expr)],
    kind: JoinKind,
) -> Result<Pipe> {
    let (left, right) = (lower_node(left)?, lower_node(right)?);
    let joined = make_join(left, right, on, kind, join.filter.as_ref(), join.null_equality)?;
    Ok(joined.rename(join.schema.clone()))
}

/// Joins two inputs; the output is the left input's columns, then (except for semi and anti) the
/// right one's.
fn make_join(
    left: Pipe,
    right: Pipe,
    on: &[(Expr, Expr)],
    kind: JoinKind,
    filter: Option<&Expr>,
    null_equality: NullEquality,
) -> Result<Pipe> {
    let left = Side::new(left, on.iter().map(|(l, _)| l), "left")?;
    let right = Side::new(right, on.iter().map(|(_, r)| r), "right")?;
    let left_only = matches!(kind, JoinKind::LeftSemi | JoinKind::LeftAnti);
    let (left_fields, right_fields) = (left.pipe.fields(), right.pipe.fields());
    let left_width = left_fields.len();
    let own_columns: Vec<usize> = if left_only {
        (0..left.own).collect()
    } else {
        (0..left.own).chain(left_width..left_width + right.own).collect()
    };
    let both = qualified(left_fields.iter().chain(&right_fields).cloned().collect())?;
    let residual = match filter {
        None => None,
        Some(filter) => Some(compile(&ordered_condition(filter.clone()), &both)?),
    };
    let left_optional = matches!(kind, JoinKind::Right | JoinKind::Full);
    let right_optional = matches!(kind, JoinKind::Left | JoinKind::Full);
    let mut fields = optional(left_fields, left_optional);
    if !left_only {
        fields.extend(optional(right_fields, right_optional));
    }
    let output = qualified(fields)?;
    let keys: Vec<(usize, usize)> = left.keys.iter().copied().zip(right.keys).collect();
    let node = Node::Join(node::Join {
        left: Edge::hash(left.pipe.into_node()?, keys.iter().map(|(l, _)| *l).collect()),
        right: Edge::hash(right.pipe.into_node()?, keys.iter().map(|(_, r)| *r).collect()),
        kind,
        keys,
        null_equals_null: null_equality == NullEquality::NullEqualsNull,
        residual,
        schema: output.inner().clone(),
    });
    let pipe = Pipe::new(node, output);
    if own_columns.len() == pipe.columns().len() {
        return Ok(pipe);
    }
    // Computed keys have done their work.
    let (columns, fields) = (pipe.columns(), pipe.fields());
    let own: Vec<Expr> = own_columns.iter().map(|index| columns[*index].clone()).collect();
    let schema = qualified(own_columns.iter().map(|index| fields[*index].clone()).collect())?;
    pipe.project(&own, &schema)
}

/// Each left row with the nearest right row in time, or with what is there when it comes.
pub fn lower_asof_join(asof: &AsofJoin) -> Result<Pipe> {
    let Sides { keys, times } = asof.sides().map_err(Error::from)?;
    let left_exprs = keys.iter().map(|(l, _)| l).chain(times.iter().map(|(l, _, _)| l));
    let right_exprs = keys.iter().map(|(_, r)| r).chain(times.iter().map(|(_, r, _)| r));
    let mut left = Side::new(lower_node(&asof.left)?, left_exprs, "left")?;
    let mut right = Side::new(lower_node(&asof.right)?, right_exprs, "right")?;
    let time = |side: &mut Side| side.keys.pop().expect("the time is the last of them");
    let times = times.map(|(_, _, order)| ((time(&mut left), time(&mut right)), order));
    let left_width = left.pipe.fields().len();
    let own: Vec<usize> = (0..left.own).chain(left_width..left_width + right.own).collect();
    let mut fields = left.pipe.fields();
    fields.extend(optional(right.pipe.fields(), asof.keeps_left));
    let output = qualified(fields.clone())?;
    let keys: Vec<(usize, usize)> = left.keys.iter().copied().zip(right.keys).collect();
    let left = Edge::hash(left.pipe.into_node()?, keys.iter().map(|(l, _)| *l).collect());
    let right = Edge::hash(right.pipe.into_node()?, keys.iter().map(|(_, r)| *r).collect());
    let (keeps_left, schema) = (asof.keeps_left, output.inner().clone());
    let node = match times {
        Some((times, order)) => {
            Node::AsofJoin(node::AsofJoin { left, right, keys, times, order, keeps_left, schema })
        }
        None if !left.input.append_only() => {
            return Err(Error::unsupported(
                "FOR SYSTEM_TIME AS OF PROCTIME() for rows that change or go",
            )
            .hint(
                "What such a row met when it came would have to be kept. Its left side must only \
                 grow: a source, an append-only table, a query that filters or computes over one.",
            ));
        }
        None => Node::LookupJoin(node::LookupJoin { left, right, keys, keeps_left, schema }),
    };
    let pipe = Pipe::new(node, output);
    let columns = pipe.columns();
    let exprs: Vec<Expr> = own.iter().map(|index| columns[*index].clone()).collect();
    let schema = qualified(own.iter().map(|index| fields[*index].clone()).collect())?;
    Ok(pipe.project(&exprs, &schema)?.rename(asof.schema_ref().clone()))
}

/// An input of a join: its own columns, then its computed keys.
struct Side {
    pipe: Pipe,
    /// How many columns are the input's own.
    own: usize,
    /// The key columns.
    keys: Vec<usize>,
}

impl Side {
    fn new<'a>(pipe: Pipe, keys: impl Iterator<Item = &'a Expr>, side: &str) -> Result<Side> {
        let own = pipe.fields().len();
        let mut exprs = pipe.columns();
        let mut fields = pipe.fields();
        let mut places = vec![];
        for key in keys {
            if let Some(index) = column_index(key, pipe.schema()) {
                places.push(index);
                continue;
            }
            let (_, field) = key.to_field(pipe.schema()).map_err(Error::from)?;
            let name = format!("{side} key {}", places.len() + 1);
            places.push(exprs.len());
            exprs.push(key.clone());
            fields.push((None, Arc::new(field.as_ref().clone().with_name(name))));
        }
        if exprs.len() == own {
            return Ok(Side { pipe, own, keys: places });
        }
        let schema = qualified(fields)?;
        Ok(Side { pipe: pipe.project(&exprs, &schema)?, own, keys: places })
    }
}

/// The fields of the side that may be missing.
fn optional(fields: Vec<QualifiedField>, optional: bool) -> Vec<QualifiedField> {
    if !optional {
        return fields;
    }
    fields
        .into_iter()
        .map(|(table, field)| (table, Arc::new(field.as_ref().clone().with_nullable(true))))
        .collect()
}

/// Left columns, then whether a match exists.
fn lower_mark(
    join: &Join,
    left: &LogicalPlan,
    right: &LogicalPlan,
    on: &[(Expr, Expr)],
) -> Result<Pipe> {
    if join.filter.is_some() {
        return lower_mark_by_condition(join, left, right, on);
    }
    const FOUND: &str = "found";
    let right = lower_node(right)?;
    let found = Field::new(FOUND, DataType::Boolean, false);
    let (keys, right) = if on.is_empty() {
        // Any row at all: count them, and keep one row while there are some.
        let counted = Pipe::new(lower_count_rows(right)?, unqualified(vec![count_field()])?);
        let any = counted.filter(&Expr::Column(Column::from_name(COUNT)).gt(lit(0_i64)))?;
        (vec![], any.project(&[lit(true)], &unqualified(vec![Arc::new(found)])?)?)
    } else {
        let exprs: Vec<Expr> = on.iter().map(|(_, r)| r.clone()).collect();
        let mut fields = vec![];
        for (index, expr) in exprs.iter().enumerate() {
            let (_, field) = expr.to_field(right.schema()).map_err(Error::from)?;
            let name = format!("mark key {}", index + 1);
            fields.push(Arc::new(field.as_ref().clone().with_name(name)));
        }
        let schema = unqualified(fields.clone())?;
        let distinct = make_distinct(right.project(&exprs, &schema)?)?;
        let mut columns = distinct.columns();
        let keys: Vec<(Expr, Expr)> =
            on.iter().map(|(l, _)| l.clone()).zip(columns.clone()).collect();
        columns.push(lit(true));
        fields.push(Arc::new(found));
        (keys, distinct.project(&columns, &unqualified(fields)?)?)
    };
    let left = lower_node(left)?;
    let mut output = left.columns();
    let joined = make_join(left, right, &keys, JoinKind::Left, None, join.null_equality)?;
    output.push(Expr::Column(Column::from_name(FOUND)).is_not_null());
    joined.project(&output, &join.schema)
}

/// The mark of a condition that is no equality: rows with a match, marked true, and rows without
/// one, marked false.
fn lower_mark_by_condition(
    join: &Join,
    left: &LogicalPlan,
    right: &LogicalPlan,
    on: &[(Expr, Expr)],
) -> Result<Pipe> {
    let schema = join.schema.inner().clone();
    let mut inputs = vec![];
    for (kind, found) in [(JoinKind::LeftSemi, true), (JoinKind::LeftAnti, false)] {
        let (left, right) = (lower_node(left)?, lower_node(right)?);
        let rows = make_join(left, right, on, kind, join.filter.as_ref(), join.null_equality)?;
        let mut columns = rows.columns();
        columns.push(lit(found));
        let marked = rows.project(&columns, &join.schema)?;
        inputs.push(Edge::local(marked.into_node_with(schema.clone())?));
    }
    let union = Node::Union(node::Union { inputs, schema });
    Ok(Pipe::new(union, join.schema.clone()))
}

const COUNT: &str = "rows";

fn count_field() -> Arc<Field> {
    Arc::new(Field::new(COUNT, DataType::Int64, false))
}

/// `x NOT IN (SELECT y ...)`.
fn lower_not_in(join: &Join) -> Result<Pipe> {
    let ([(left_key, right_key)], None) = (join.on.as_slice(), &join.filter) else {
        return Err(Error::unsupported(
            "NOT IN with a correlated subquery in a maintained query, where NULL may occur",
        )
        .hint("Use NOT EXISTS, or declare the columns NOT NULL."));
    };
    let left = lower_node(&join.left)?;
    let output: DFSchemaRef = left.schema().clone();
    let right = lower_node(&join.right)?;
    let nulls = Pipe::new(
        lower_has_null(lower_node(&join.right)?, right_key)?,
        unqualified(vec![Arc::new(Field::new(HAS_NULL, DataType::Int16, true))])?,
    );
    let unmatched = make_join(left, right, &join.on, JoinKind::LeftAnti, None, join.null_equality)?;
    let columns = unmatched.columns();
    let judged = make_join(unmatched, nulls, &[], JoinKind::Inner, None, join.null_equality)?;
    let has_null = Expr::Column(Column::from_name(HAS_NULL));
    let no_rows = has_null.clone().is_null();
    let no_null = has_null.eq(lit(0_i16)).and(left_key.clone().is_not_null());
    judged.filter(&no_rows.or(no_null))?.project(&columns, &output)
}

/// NULL: no rows; 0: no NULL; 1: a NULL.
pub const HAS_NULL: &str = "has null";
