//! What grows without bound: operators that keep something for rows that never stop coming.
//!
//! A scan is endless if its object only ever gets rows and does not end (a source without end); what
//! goes through it without being summed up is endless, too. An operator that keeps rows or groups of
//! such an input grows for as long as rows come, unless it forgets them by the watermark or by the
//! clock. A table is not endless: it keeps its rows itself, and what is kept for it is in proportion to it.

use crate::plan::event_time::{
    aggregate_bounds, bounded_keys, find as find_bound, rows_age, settling_order, time_bounds,
};
use crate::plan::explain::describe;
use crate::plan::node::{Aggregate, Join, JoinKind, MatchRecognize, Node, Phase, Plan, TopN};
use crate::types::id::ObjectId;

/// An object whose rows never stop coming.
#[derive(Clone, Debug)]
pub struct Endless {
    pub name: String,
    /// The column of its watermark.
    pub watermark: Option<String>,
}

/// One line for each operator that grows without bound, and the hint that would bound it.
/// `endless` says of an object whether it is.
pub fn growing(plan: &Plan, endless: &dyn Fn(ObjectId) -> Option<Endless>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut seen: Vec<&Node> = Vec::new();
    let inputs = find(&plan.root, endless, &mut seen, &mut lines);
    if plan.root.append_only() && !inputs.is_empty() {
        lines.push(format!("Grows without bound: the result keeps every row{}", of(&inputs)));
        lines.push(hint(&inputs, "of the view's own WHERE"));
    }
    lines
}

/// Adds the lines of a node and what is below it; gives the endless objects behind its output.
fn find<'plan>(
    node: &'plan Node,
    endless: &dyn Fn(ObjectId) -> Option<Endless>,
    seen: &mut Vec<&'plan Node>,
    lines: &mut Vec<String>,
) -> Vec<Endless> {
    // An equal operator is the same one: its lines are there.
    let again = node.keeps_state() && seen.contains(&node);
    let mut unused = Vec::new();
    let lines = if again { &mut unused } else { lines };
    let inputs: Vec<Vec<Endless>> =
        node.inputs().iter().map(|edge| find(&edge.input, endless, seen, lines)).collect();
    let all = merged(&inputs);
    let (keeps, place) = match node {
        Node::Scan(scan) => return endless(scan.object).into_iter().collect(),
        Node::Constant(_) | Node::Input(_) | Node::Clock(_) => return Vec::new(),
        Node::Map(_) | Node::Expand(_) | Node::Copies(_) | Node::Union(_) | Node::Unnest(_) => {
            return all;
        }
        // What it keeps is gone at the epoch's end.
        Node::Aggregate(Aggregate { phase: Phase::Partial, .. }) => return all,
        Node::Aggregate(n) if !aggregate_bounds(n).is_empty() => return all,
        Node::Aggregate(Aggregate { phase: Phase::Sessions { .. }, .. }) => {
            ("a row for every session", "of the rows that make the sessions")
        }
        Node::Aggregate(n) if n.keys.is_empty() => return Vec::new(),
        // Rows leave by themselves.
        Node::TemporalFilter(n) if n.ends() => return Vec::new(),
        Node::WindowClose(_) | Node::Throttle(_) | Node::TemporalFilter(_) => return all,
        // What has been there long enough goes.
        Node::Retain(_) => return Vec::new(),
        Node::Aggregate(n) if n.calls.is_empty() => {
            ("every distinct row", "of the rows that are made distinct")
        }
        Node::Aggregate(_) => ("a row for every group", "in GROUP BY, or of the grouped rows"),
        Node::Join(n) if rows_age(n) == [true, true] => return all,
        Node::AsofJoin(n)
            if find_bound(&time_bounds(&n.left.input), n.times.0).is_some()
                && find_bound(&time_bounds(&n.right.input), n.times.1).is_some() =>
        {
            return all;
        }
        Node::LookupJoin(_) => return inputs.into_iter().next().unwrap_or_default(),
        Node::Join(_) | Node::AsofJoin(_) => {
            ("every row", "of both inputs, compared with each other")
        }
        Node::Session(n) if find_bound(&time_bounds(&n.input.input), n.time).is_some() => {
            return all;
        }
        Node::Session(_) => ("every row", "of the rows that make the sessions"),
        Node::TopN(n) if closes(&n.input.input, &n.partition) => return all,
        Node::Over(n) if closes(&n.input.input, &n.partition) => return all,
        Node::Over(n) if settling_order(n).is_some() => return all,
        Node::TopN(TopN { partition, limit: Some(_), input, .. })
            if partition.is_empty() && input.input.append_only() =>
        {
            return Vec::new();
        }
        Node::TopN(TopN { limit: Some(_), input, .. }) if input.input.append_only() => {
            ("the first rows of every partition", "of the rows that are ordered")
        }
        // Partial matches end, and nothing else of a partition is kept.
        Node::MatchRecognize(n) if waits_for_time(n) && forgets(n) => return all,
        Node::MatchRecognize(n) if waits_for_time(n) => {
            let keeps = match n.spec.within {
                None => "partial matches that nothing ends",
                Some(_) => "something of every partition",
            };
            if !all.is_empty() {
                let place = describe(node);
                lines.push(format!("Grows without bound: {place} keeps {keeps}{}", of(&all)));
                lines.push(match n.spec.within {
                    None => "Hint: PATTERN (...) WITHIN INTERVAL '...' would end them by the \
                             watermark."
                        .to_owned(),
                    Some(_) => "Hint: without MATCH_NUMBER(), ^, and PREV in front of the match, \
                                nothing is kept of a partition in which nothing is under way."
                        .to_owned(),
                });
            }
            return all;
        }
        Node::TopN(_) | Node::Over(_) | Node::MatchRecognize(_) => {
            ("every row", "of the rows that are ordered")
        }
        Node::Recursive(n) if n.distinct => {
            ("every derived row", "of the rows that it begins with")
        }
        Node::Recursive(_) => return all,
    };
    if node.keeps_state() && !again {
        seen.push(node);
    }
    if !all.is_empty() {
        lines.push(format!("Grows without bound: {} keeps {keeps}{}", describe(node), of(&all)));
        lines.push(hint(&all, place));
    }
    match node {
        Node::Join(Join { kind: JoinKind::LeftSemi | JoinKind::LeftAnti, .. }) => {
            inputs.into_iter().next().unwrap_or_default()
        }
        // As many rows as partitions at the most, which may be endless.
        _ => all,
    }
}

/// Whether the watermark frees rows of a pattern.
fn waits_for_time(node: &MatchRecognize) -> bool {
    node.closes.is_some() || node.settles.is_some()
}

/// Whether a pattern that is matched in event time keeps nothing of partitions that have fallen
/// silent.
fn forgets(node: &MatchRecognize) -> bool {
    node.spec.within.is_some()
        && !node.spec.uses_match_number()
        && !node.spec.pattern.has_start()
        && node.spec.rows_before() == 0
}

/// Whether partitions have a time that the watermark passes.
fn closes(input: &Node, partition: &[usize]) -> bool {
    bounded_keys(&time_bounds(input), partition).next().is_some()
}

/// Each object once.
fn merged(inputs: &[Vec<Endless>]) -> Vec<Endless> {
    let mut all: Vec<Endless> = Vec::new();
    for endless in inputs.iter().flatten() {
        if !all.iter().any(|other| other.name == endless.name) {
            all.push(endless.clone());
        }
    }
    all
}

fn of(objects: &[Endless]) -> String {
    let names: Vec<&str> = objects.iter().map(|o| o.name.as_str()).collect();
    format!(" of {}, which never ends", names.join(" and "))
}

fn hint(objects: &[Endless], place: &str) -> String {
    let known: Vec<String> = objects
        .iter()
        .filter_map(|o| Some(format!("{}.{}", o.name, o.watermark.as_ref()?)))
        .collect();
    let unknown: Vec<&str> =
        objects.iter().filter(|o| o.watermark.is_none()).map(|o| o.name.as_str()).collect();
    match (known.as_slice(), unknown.as_slice()) {
        (known, []) => format!(
            "Hint: a time window or interval over {} {place} would bound it by the watermark.",
            known.join(" and ")
        ),
        (_, unknown) => format!(
            "Hint: declare WATERMARK FOR a time column of {}; a time window or interval over it \
             {place} would then bound it.",
            unknown.join(" and ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

    use super::*;
    use crate::plan::node::{AggregateCall, AggregateFunction, Edge, Scan};
    use crate::plan::view_options::ViewOptions;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true)]))
    }

    fn scan(object: u64, name: &str) -> Node {
        Node::Scan(Scan {
            object: ObjectId(object),
            name: name.to_owned(),
            columns: vec![0],
            schema: schema(),
            append_only: true,
            time_bounds: vec![],
            shared: false,
            index: None,
        })
    }

    fn counted(input: Node, keys: Vec<usize>) -> Node {
        let call = AggregateCall {
            function: AggregateFunction::Count,
            arguments: vec![],
            distinct: false,
            filter: None,
            order_by: vec![],
            return_type: DataType::Int64,
            display: "count(*)".into(),
        };
        Node::Aggregate(Aggregate {
            input: Edge::hash(input, keys.clone()),
            keys,
            calls: vec![call],
            append_only: true,
            phase: Phase::Whole,
            on_close: false,
            schema: schema(),
        })
    }

    /// Object 1 is endless and has a watermark, 2 is endless, 3 ends.
    fn lines(root: Node) -> Vec<String> {
        let plan = Plan { root, unique_key: None, options: ViewOptions::default() };
        growing(&plan, &|object| match object.0 {
            1 => Some(Endless { name: "clicks".into(), watermark: Some("ts".into()) }),
            2 => Some(Endless { name: "logs".into(), watermark: None }),
            _ => None,
        })
    }

    #[test]
    fn groups_of_what_never_ends_grow() {
        let found = lines(counted(scan(1, "clicks"), vec![0]));
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(
            found[0],
            "Grows without bound: Aggregate by k: count(*) keeps a row for every group of clicks, \
             which never ends"
        );
        assert!(found[1].starts_with("Hint: a time window or interval over clicks.ts in GROUP BY"));
        let found = lines(counted(scan(2, "logs"), vec![0]));
        assert!(found[1].starts_with("Hint: declare WATERMARK FOR a time column of logs;"));
    }

    #[test]
    fn what_ends_or_is_one_row_does_not() {
        assert!(lines(counted(scan(3, "file"), vec![0])).is_empty());
        assert!(lines(counted(scan(1, "clicks"), vec![])).is_empty());
        assert!(lines(counted(counted(scan(1, "clicks"), vec![]), vec![0])).is_empty());
        assert!(lines(scan(3, "file")).is_empty());
        assert_eq!(lines(scan(2, "logs")).len(), 2, "the result itself");
    }
}
