//! A join reads the rows of a side from an index instead of keeping a copy of them.
//!
//! Where a side of a join is a table or view as it is (columns may be left out), an index has its
//! join columns as its key, and rows of that side never show by themselves (they do in the kept side
//! of an outer, semi or anti join), the side's scan becomes one of the index: its rows are spread by
//! the index's key once, for all joins that read it, and its changes come from there.
//!
//! Where rows of the join are forgotten when time has passed them, it keeps its own: an index forgets
//! nothing. Of a join both of whose sides have an index the right one is read.

use crate::plan::event_time::rows_age;
use crate::plan::node::{Exchange, IndexScan, Join, JoinKind, Node, Plan, Scan};
use crate::types::id::ObjectId;

/// An index that joins may read.
#[derive(Clone, Debug)]
pub struct JoinIndex<'a> {
    pub id: ObjectId,
    pub name: &'a str,
    pub relation: ObjectId,
    /// The relation's columns that are its key.
    pub columns: &'a [usize],
}

/// Lets the joins of a plan read these indexes; gives those that they read now. Of several that fit
/// the first is taken.
pub fn use_indexes(plan: &mut Plan, indexes: &[JoinIndex<'_>]) -> Vec<ObjectId> {
    let mut used = Vec::new();
    if !indexes.is_empty() {
        visit(&mut plan.root, indexes, &mut used);
    }
    used
}

fn visit(node: &mut Node, indexes: &[JoinIndex<'_>], used: &mut Vec<ObjectId>) {
    for edge in node.inputs_mut() {
        visit(&mut edge.input, indexes, used);
    }
    if let Node::Join(join) = node
        && let Some(index) = use_index(join, indexes)
        && !used.contains(&index)
    {
        used.push(index);
    }
}

/// The side of a join that is read from an index, with its scan.
pub fn indexed_side(join: &Join) -> Option<(usize, &Scan)> {
    let scan = |input| match input {
        &Node::Scan(ref scan) if scan.index.is_some() => Some(scan),
        _ => None,
    };
    let sides = [join.left.input.as_ref(), join.right.input.as_ref()];
    sides.into_iter().enumerate().find_map(|(port, input)| Some((port, scan(input)?)))
}

fn use_index(join: &mut Join, indexes: &[JoinIndex<'_>]) -> Option<ObjectId> {
    let spread = |exchange: &Exchange| matches!(exchange, Exchange::Hash(_));
    let own = rows_age(join).contains(&true) || indexed_side(join).is_some();
    if own || !spread(&join.left.exchange) || !spread(&join.right.exchange) {
        return None;
    }
    let right = !matches!(join.kind, JoinKind::Right | JoinKind::Full);
    let left = matches!(join.kind, JoinKind::Inner | JoinKind::Right);
    let found = right.then(|| fitting(join, 1, indexes)).flatten();
    let (port, index, keys) =
        found.or_else(|| left.then(|| fitting(join, 0, indexes)).flatten())?;
    join.left.exchange = Exchange::Hash(keys.iter().map(|(left, _)| *left).collect());
    join.right.exchange = Exchange::Hash(keys.iter().map(|(_, right)| *right).collect());
    join.keys = keys;
    let edge = if port == 0 { &mut join.left } else { &mut join.right };
    // The index has been spread by its key.
    edge.exchange = Exchange::Local;
    let Node::Scan(scan) = edge.input.as_mut() else { return None };
    scan.index = Some(IndexScan {
        relation: scan.object,
        relation_name: std::mem::replace(&mut scan.name, index.name.to_owned()),
        key: index.columns.to_vec(),
    });
    scan.object = index.id;
    scan.shared = true;
    Some(index.id)
}

/// The first index of the side's relation whose key are the join's keys, and these in its order.
type Fitting<'a> = (usize, &'a JoinIndex<'a>, Vec<(usize, usize)>);

fn fitting<'a>(join: &Join, port: usize, indexes: &'a [JoinIndex<'a>]) -> Option<Fitting<'a>> {
    let edge = if port == 0 { &join.left } else { &join.right };
    let Node::Scan(scan) = edge.input.as_ref() else { return None };
    if scan.shared {
        return None;
    }
    let of_side = |key: &(usize, usize)| scan.columns[if port == 0 { key.0 } else { key.1 }];
    let fits = |index: &'a JoinIndex<'a>| {
        if index.relation != scan.object || index.columns.len() != join.keys.len() {
            return None;
        }
        // The key's columns are different ones: each has its own place among the join's keys.
        let keys: Option<Vec<(usize, usize)>> = index
            .columns
            .iter()
            .map(|column| join.keys.iter().find(|key| of_side(key) == *column).copied())
            .collect();
        let keys = keys?;
        let all = join.keys.iter().all(|key| keys.contains(key));
        all.then_some((port, index, keys))
    };
    indexes.iter().find_map(fits)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::plan::node::Edge;
    use crate::plan::view_options::ViewOptions;

    fn scan(object: u64, name: &str, columns: &[usize]) -> Node {
        let fields = columns
            .iter()
            .map(|column| Field::new(format!("{name}{column}"), DataType::Int64, true));
        Node::Scan(Scan {
            object: ObjectId(object),
            name: name.to_owned(),
            columns: columns.to_vec(),
            schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            append_only: false,
            time_bounds: vec![],
            shared: false,
            index: None,
        })
    }

    fn join(kind: JoinKind, left: Node, right: Node, keys: Vec<(usize, usize)>) -> Plan {
        let fields = [left.schema(), right.schema()];
        let fields = fields.iter().flat_map(|schema| schema.fields().iter().cloned());
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let left = Edge::hash(left, keys.iter().map(|key| key.0).collect());
        let right = Edge::hash(right, keys.iter().map(|key| key.1).collect());
        let (null_equals_null, residual) = (false, None);
        let root = Node::Join(Join { left, right, kind, keys, null_equals_null, residual, schema });
        Plan { root, unique_key: None, options: ViewOptions::default() }
    }

    /// The plan with these indexes of relations 1 and 2, each number, relation and columns.
    fn indexed(mut plan: Plan, indexes: &[(u64, u64, &[usize])]) -> String {
        let indexes: Vec<JoinIndex<'_>> = indexes
            .iter()
            .map(|(id, relation, columns)| JoinIndex {
                id: ObjectId(*id),
                name: "i",
                relation: ObjectId(*relation),
                columns,
            })
            .collect();
        let used = use_indexes(&mut plan, &indexes);
        let used: Vec<u64> = used.iter().map(|id| id.0).collect();
        format!("{used:?}\n{}", plan.to_string().split_once('\n').expect("two lines").1)
    }

    fn two(kind: JoinKind, keys: Vec<(usize, usize)>) -> Plan {
        join(kind, scan(1, "a", &[0, 2]), scan(2, "b", &[3, 1, 0]), keys)
    }

    #[test]
    fn the_side_that_never_shows_by_itself_is_read_from_its_index() {
        assert_eq!(
            indexed(two(JoinKind::Left, vec![(0, 1)]), &[(7, 1, &[0]), (8, 2, &[0]), (9, 2, &[1])]),
            "[9]\n  Join left on a0 = b1 | retracts | keeps all rows of the left input; those of the \
             right are in index i\n    Exchange by hash of a0\n      Scan a (a0, a2) | retracts\n    \
             Scan b by index i (b3, b1, b0) | retracts\n"
        );
        // Keys come in the index's order, on both sides.
        assert_eq!(
            indexed(two(JoinKind::Right, vec![(0, 1), (1, 0)]), &[(7, 1, &[2, 0])]),
            "[7]\n  Join right on a2 = b3 AND a0 = b1 | retracts | keeps all rows of the right input; \
             those of the left are in index i\n    Scan a by index i (a0, a2) | retracts\n    \
             Exchange by hash of (b3, b1)\n      Scan b (b3, b1, b0) | retracts\n"
        );
    }

    #[test]
    fn other_sides_and_other_keys_are_kept_by_the_join() {
        let none = |plan: Plan, indexes: &[(u64, u64, &[usize])]| {
            let before = plan.clone();
            let text = before.to_string();
            let text = format!("[]\n{}", text.split_once('\n').expect("two lines").1);
            assert_eq!(indexed(plan, indexes), text);
        };
        none(two(JoinKind::Full, vec![(0, 1)]), &[(7, 1, &[0]), (8, 2, &[1])]);
        none(two(JoinKind::Left, vec![(0, 1)]), &[(7, 1, &[0])]);
        none(two(JoinKind::LeftAnti, vec![(0, 1)]), &[(7, 1, &[0])]);
        none(two(JoinKind::Inner, vec![(0, 1)]), &[(7, 1, &[0, 2]), (8, 2, &[1, 0])]);
        none(two(JoinKind::Inner, vec![(0, 1), (1, 1)]), &[(8, 2, &[1])]);
        none(two(JoinKind::Inner, vec![(0, 1), (0, 2)]), &[(7, 1, &[0, 0])]);
    }
}
