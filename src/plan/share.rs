//! Two views with an equal sub-plan share its operators: the later one reads what the earlier keeps.
//!
//! A running view stands for the root of its plan, and, if above an operator the root only chooses
//! among its columns and leaves none of them out, for that operator. Where a new plan has an equal
//! node (names of columns apart), it gets a scan of that view instead: everything below is computed
//! and kept once. What is equal only inside of both plans is not shared: what it gives is kept
//! nowhere, and who comes later could not begin with it.
//!
//! Only what keeps state is shared. A view with options (`WITH`, `EMIT`) stands for nothing but
//! itself, and one that stops at rows that fail, or makes NULL of them, has operators of its own:
//! where they are shared, such rows are left out, and told of by the earlier view.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};

use crate::plan::event_time::time_bounds;
use crate::plan::node::{Node, Phase, Plan, Scan};
use crate::plan::view_options::{OnError, ViewOptions};
use crate::types::id::ObjectId;

/// A view that others may share.
pub struct Shareable<'a> {
    pub object: ObjectId,
    pub name: &'a str,
    pub plan: &'a Plan,
}

/// What a view stands for.
struct Kept<'a> {
    object: ObjectId,
    name: &'a str,
    /// Without names.
    node: Node,
    /// Where each of its columns is among the view's.
    columns: Vec<usize>,
    append_only: bool,
}

/// Lets the plan read what these views keep, where it computes the same; gives those that it reads
/// now. Of several equal views the first is taken.
pub fn share(plan: &mut Plan, views: &[Shareable<'_>]) -> Vec<ObjectId> {
    if plan.options.on_error != OnError::Quarantine {
        return Vec::new();
    }
    let kept: Vec<Kept<'_>> = views.iter().flat_map(kept_by).collect();
    let mut shared = Vec::new();
    if !kept.is_empty() {
        replace(&mut plan.root, &kept, &mut shared);
    }
    shared
}

fn kept_by<'a>(view: &Shareable<'a>) -> Vec<Kept<'a>> {
    let mut kept = Vec::new();
    let root = &view.plan.root;
    if view.plan.options != ViewOptions::default() || !has_state(root) {
        return kept;
    }
    let mut add = |node: &Node, columns: Vec<usize>| {
        kept.push(Kept {
            object: view.object,
            name: view.name,
            node: nameless(node),
            columns,
            append_only: root.append_only(),
        });
    };
    add(root, (0..root.schema().fields().len()).collect());
    if let Node::Map(map) = root
        && map.filter.is_none()
        && let Some(projection) = &map.projection
    {
        let below = &map.input.input;
        let place = |column| projection.iter().position(|expr| expr.as_column() == Some(column));
        let columns: Option<Vec<usize>> = (0..below.schema().fields().len()).map(place).collect();
        if let Some(columns) = columns {
            add(below, columns);
        }
    }
    kept
}

fn has_state(node: &Node) -> bool {
    let mut found = false;
    node.visit(&mut |node| found |= node.keeps_state());
    found
}

fn replace(node: &mut Node, kept: &[Kept<'_>], shared: &mut Vec<ObjectId>) {
    if has_state(node) {
        let wanted = nameless(node);
        if let Some(found) = kept.iter().find(|kept| kept.node == wanted) {
            if !shared.contains(&found.object) {
                shared.push(found.object);
            }
            *node = Node::Scan(Scan {
                object: found.object,
                name: found.name.to_owned(),
                columns: found.columns.clone(),
                schema: node.schema(),
                append_only: found.append_only,
                time_bounds: time_bounds(node),
                shared: true,
                index: None,
            });
            return;
        }
    }
    for edge in node.inputs_mut() {
        replace(&mut edge.input, kept, shared);
    }
}

/// The same node without the names of columns, which change nothing of what it computes.
fn nameless(node: &Node) -> Node {
    let mut node = node.clone();
    forget_names(&mut node);
    node
}

fn forget_names(node: &mut Node) {
    match node {
        Node::Scan(n) => {
            n.schema = without_names(&n.schema);
            n.name.clear();
        }
        Node::Map(n) => n.schema = without_names(&n.schema),
        Node::Expand(n) => n.schema = without_names(&n.schema),
        Node::Union(n) => n.schema = without_names(&n.schema),
        Node::Join(n) => n.schema = without_names(&n.schema),
        Node::TopN(n) => n.schema = without_names(&n.schema),
        Node::Over(n) => n.schema = without_names(&n.schema),
        Node::Aggregate(n) => {
            n.schema = without_names(&n.schema);
            n.calls.iter_mut().for_each(|call| call.display.clear());
            if let Phase::Final { input_schema } | Phase::Windows { input_schema, .. } =
                &mut n.phase
            {
                *input_schema = without_names(input_schema);
            }
        }
        // Their names may mean something.
        _ => {}
    }
    for edge in node.inputs_mut() {
        forget_names(&mut edge.input);
    }
}

fn without_names(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_name(""));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
