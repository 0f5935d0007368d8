//! A plan whose expressions give NULL where they fail: `WITH (on_error = 'null')`.
//!
//! Every computed expression is marked, and every column above the scans becomes nullable, because
//! a NULL may now come out of what could not be NULL before. What is a NULL by failure and what is
//! one by itself is the same from then on, to joins, groups and readers alike.
//!
//! Aggregates and window functions are not marked: where one of them fails (a sum that overflows)
//! its rows are left out and recorded, as without the option.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};

use crate::plan::expr::Expr;
use crate::plan::node::{Edge, Node, Phase, Plan};

/// The same plan with NULL for what fails.
#[must_use]
pub fn null_on_error(mut plan: Plan) -> Plan {
    mark(&mut plan.root);
    plan
}

/// The columns, each of which may be NULL.
pub fn nullable(schema: &SchemaRef) -> SchemaRef {
    first_nullable(schema, schema.fields().len())
}

fn first_nullable(schema: &SchemaRef, count: usize) -> SchemaRef {
    let fields = schema.fields().iter().enumerate().map(|(index, field)| {
        if index < count && !field.is_nullable() {
            Arc::new(field.as_ref().clone().with_nullable(true))
        } else {
            field.clone()
        }
    });
    let fields: Vec<_> = fields.collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn mark(node: &mut Node) {
    for Edge { input, .. } in node.inputs_mut() {
        mark(input);
    }
    match node {
        // They give what their objects have.
        Node::Scan(_) | Node::Constant(_) => {}
        // It has its input's columns.
        Node::Copies(_) => {}
        Node::Map(n) => {
            n.filter.iter_mut().chain(n.projection.iter_mut().flatten()).for_each(mark_expr);
            n.schema = nullable(&n.schema);
        }
        Node::Expand(n) => {
            n.projections.iter_mut().flatten().for_each(mark_expr);
            n.schema = nullable(&n.schema);
        }
        Node::Union(n) => n.schema = nullable(&n.schema),
        Node::Aggregate(n) => {
            // What partial aggregations give behind their keys is nobody else's business.
            let columns = match n.phase {
                Phase::Partial => n.keys.len(),
                Phase::Whole
                | Phase::Final { .. }
                | Phase::Windows { .. }
                | Phase::Sessions { .. } => n.schema.fields().len(),
            };
            n.schema = first_nullable(&n.schema, columns);
            if let Phase::Final { input_schema } | Phase::Windows { input_schema, .. } =
                &mut n.phase
            {
                *input_schema = nullable(input_schema);
            }
        }
        Node::Join(n) => {
            n.residual.iter_mut().for_each(mark_expr);
            n.schema = nullable(&n.schema);
        }
        Node::Session(n) => n.schema = nullable(&n.schema),
        Node::AsofJoin(n) => n.schema = nullable(&n.schema),
        Node::LookupJoin(n) => n.schema = nullable(&n.schema),
        Node::MatchRecognize(n) => {
            for condition in n.spec.conditions.iter_mut().flatten() {
                let parts = [&mut condition.near, &mut condition.far].into_iter().flatten();
                parts.for_each(|part| mark_expr(&mut part.expr));
            }
            n.spec.schema = nullable(&n.spec.schema);
        }
        Node::TopN(n) => n.schema = nullable(&n.schema),
        Node::Over(n) => n.schema = nullable(&n.schema),
        Node::Recursive(n) => {
            mark(&mut n.step);
            n.schema = nullable(&n.schema);
        }
        Node::Unnest(n) => n.schema = nullable(&n.schema),
        Node::Input(n) => n.schema = nullable(&n.schema),
        Node::TemporalFilter(n) => {
            n.conditions.iter_mut().for_each(|condition| mark_expr(&mut condition.value));
            n.of_rows.iter_mut().for_each(mark_expr);
        }
        // They have their input's columns.
        Node::Clock(_) | Node::WindowClose(_) | Node::Throttle(_) | Node::Retain(_) => {}
    }
}

fn mark_expr(expr: &mut Expr) {
    *expr = expr.clone().null_on_error();
}
