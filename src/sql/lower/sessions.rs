//! Aggregation over the sessions of SESSION as one operator: rows are summed up by session, and not
//! kept to find their sessions.
//!
//! A `Session` gives each row its session, and its rows again when that grows. Where the rows only
//! ever come, and are grouped by their session at once (its bounds and all that it is partitioned by
//! are keys, and further keys follow from these), an aggregation whose groups are sessions does the
//! same with a row of accumulators for each session. Functions must be able to merge. A plan of
//! another form stays as it is.

use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema};

use crate::plan::expr::Expr;
use crate::plan::node::{Aggregate, AggregateCall, Edge, Map, Node, Phase, Session};

/// Columns over the sessions of rows.
struct OverSessions<'a> {
    over: &'a Map,
    exprs: &'a [Expr],
    session: &'a Session,
}

impl OverSessions<'_> {
    /// Columns of the session's input; behind them stand its two bounds.
    fn width(&self) -> usize {
        self.session.input.input.schema().fields().len()
    }

    /// The columns of the session that an output row has, in order: those of the partition, then
    /// where it begins and ends.
    fn identity(&self) -> Vec<usize> {
        let bounds = [self.width(), self.width() + 1];
        self.session.partition.iter().copied().chain(bounds).collect()
    }
}

fn find(aggregate: &Aggregate) -> Option<OverSessions<'_>> {
    let Node::Map(over @ Map { filter: None, projection: Some(exprs), .. }) =
        &*aggregate.input.input
    else {
        return None;
    };
    let Node::Session(session) = &*over.input.input else { return None };
    session.input.input.append_only().then_some(OverSessions { over, exprs, session })
}

/// The aggregation over sessions, if it is one.
pub fn by_sessions(whole: &Aggregate) -> Option<Node> {
    if !matches!(whole.phase, Phase::Whole) {
        return None;
    }
    let found = find(whole)?;
    let identity = found.identity();
    let own_keys: Vec<&Expr> = whole.keys.iter().map(|key| &found.exprs[*key]).collect();
    let is_key = |column: &usize| own_keys.iter().any(|key| key.as_column() == Some(*column));
    if !identity.iter().all(is_key) {
        return None;
    }
    // Keys over what identifies a session: the same for all of its rows.
    let keys: Option<Vec<Expr>> =
        own_keys.iter().map(|key| key.over_columns(&identity).ok()).collect();
    let sums = sums(whole, &found)?;
    let (mut projection, width) = (keys?, identity.len());
    for (place, call) in whole.calls.iter().enumerate() {
        let field = sums.schema.field(width + place);
        let (data_type, nullable) = (field.data_type().clone(), field.is_nullable());
        projection.push(Expr::column(&call.display, width + place, data_type, nullable));
    }
    Some(Node::Map(Map {
        input: Edge::local(Node::Aggregate(sums)),
        filter: None,
        projection: Some(projection),
        schema: whole.schema.clone(),
    }))
}

/// The aggregation by sessions, over their partition, time and arguments.
fn sums(whole: &Aggregate, found: &OverSessions<'_>) -> Option<Aggregate> {
    let OverSessions { over, exprs, session } = found;
    let source = session.input.input.schema();
    let column = |column: usize| {
        let field = source.field(column);
        let expr =
            Expr::column(field.name(), column, field.data_type().clone(), field.is_nullable());
        (expr, source.fields()[column].clone())
    };
    let mut columns: Vec<(Expr, FieldRef)> =
        session.partition.iter().copied().chain([session.time]).map(column).collect();
    let mut calls: Vec<AggregateCall> = whole.calls.clone();
    for call in &mut calls {
        if !call.order_by.is_empty() {
            return None;
        }
        for argument in call.arguments.iter_mut().chain(call.filter.as_mut()) {
            let expr = &exprs[*argument];
            // Of the session's bounds there is one value, which changes as it grows.
            if expr.input_columns().iter().any(|column| *column >= found.width()) {
                return None;
            }
            columns.push((expr.clone(), over.schema.fields()[*argument].clone()));
            *argument = columns.len() - 1;
        }
    }
    let (projection, fields): (Vec<Expr>, Vec<FieldRef>) = columns.into_iter().unzip();
    let schema = Arc::new(Schema::new(fields));
    let own = session.input.input.as_ref().clone();
    let in_place = |(place, expr): (usize, &Expr)| expr.as_column() == Some(place);
    let rows = match schema == source && projection.iter().enumerate().all(in_place) {
        true => own,
        false => Node::Map(Map {
            input: Edge::local(own),
            filter: None,
            projection: Some(projection),
            schema,
        }),
    };
    let keys: Vec<usize> = (0..session.partition.len()).collect();
    let mut fields: Vec<FieldRef> =
        session.partition.iter().map(|column| source.fields()[*column].clone()).collect();
    let bounds = session.schema.fields().iter().skip(found.width());
    fields.extend(bounds.cloned());
    fields.extend(whole.schema.fields().iter().skip(whole.keys.len()).cloned());
    let sums = Aggregate {
        input: Edge::hash(rows, keys.clone()),
        keys,
        calls,
        append_only: true,
        phase: Phase::Sessions { time: session.partition.len(), gap: session.gap },
        on_close: whole.on_close,
        schema: Arc::new(Schema::new(fields)),
    };
    sums.can_merge().then_some(sums)
}
