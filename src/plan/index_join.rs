//! A join reads the rows of a side from an index instead of keeping a copy of them.
//!
//! Where a side of a join is a table or view as it is (columns may be left out, and rows whose join
//! columns are NULL), an index has its join columns as its key, and rows of that side never show by
//! themselves (they do in the kept side of an outer, semi or anti join), the side's scan becomes one
//! of the index: its rows are spread by the index's key once, for all joins that read it, and its
//! changes come from there. Of a side that is filtered the join keeps what passes.
//!
//! Where rows of the join are forgotten when time has passed them, it keeps its own: an index forgets
//! nothing. Of a join both of whose sides have an index the right one is read.

use std::sync::Arc;

use arrow::datatypes::Schema;

use crate::plan::event_time::{rows_age, time_bounds};
use crate::plan::expr::Expr;
use crate::plan::node::{Edge, Exchange, IndexScan, Join, JoinKind, Node, Plan, Scan};
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
    let sides = [join.left.input.as_ref(), join.right.input.as_ref()];
    sides.into_iter().enumerate().find_map(|(port, input)| match input {
        Node::Scan(scan) if scan.index.is_some() => Some((port, scan)),
        _ => None,
    })
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
    let found = found.or_else(|| left.then(|| fitting(join, 0, indexes)).flatten())?;
    let Fitting { port, index, keys, mut scan } = found;
    join.left.exchange = Exchange::Hash(keys.iter().map(|(left, _)| *left).collect());
    join.right.exchange = Exchange::Hash(keys.iter().map(|(_, right)| *right).collect());
    join.keys = keys;
    scan.index = Some(IndexScan {
        relation: scan.object,
        relation_name: std::mem::replace(&mut scan.name, index.name.to_owned()),
        key: index.columns.to_vec(),
    });
    scan.object = index.id;
    scan.shared = true;
    let edge = if port == 0 { &mut join.left } else { &mut join.right };
    // The index has been spread by its key.
    *edge = Edge::local(Node::Scan(scan));
    Some(index.id)
}

/// An index for a side of a join.
struct Fitting<'a> {
    port: usize,
    index: &'a JoinIndex<'a>,
    /// The join's keys in the index's order.
    keys: Vec<(usize, usize)>,
    /// What the side reads.
    scan: Scan,
}

/// The first index of the side's relation whose key are the join's keys.
fn fitting<'a>(join: &Join, port: usize, indexes: &'a [JoinIndex<'a>]) -> Option<Fitting<'a>> {
    let edge = if port == 0 { &join.left } else { &join.right };
    let place = |key: &(usize, usize)| if port == 0 { key.0 } else { key.1 };
    let nullless: Vec<usize> = match join.null_equals_null {
        true => vec![],
        false => join.keys.iter().map(place).collect(),
    };
    let scan = plain_scan(&edge.input, &nullless)?;
    let fits = |index: &'a JoinIndex<'a>| {
        if index.relation != scan.object || index.columns.len() != join.keys.len() {
            return None;
        }
        // The key's columns are different ones: each has its own place among the join's keys.
        let key_of = |column: &usize| {
            join.keys.iter().find(|key| scan.columns[place(key)] == *column).copied()
        };
        let keys: Vec<(usize, usize)> = index.columns.iter().map(key_of).collect::<Option<_>>()?;
        let all = join.keys.iter().all(|key| keys.contains(key));
        all.then_some((index, keys))
    };
    let (index, keys) = indexes.iter().find_map(fits)?;
    Some(Fitting { port, index, keys, scan })
}

/// The scan that gives what a side of a join reads, where the join can do without what it leaves
/// out: rows in which one of these columns of the side is NULL.
fn plain_scan(side: &Node, nullless: &[usize]) -> Option<Scan> {
    let map = match side {
        Node::Scan(scan) => return (!scan.shared).then(|| scan.clone()),
        Node::Map(map) if map.input.exchange == Exchange::Local => map,
        _ => return None,
    };
    let Node::Scan(scan) = map.input.input.as_ref() else { return None };
    let columns: Vec<usize> = match &map.projection {
        None => (0..scan.columns.len()).collect(),
        Some(exprs) => exprs.iter().map(Expr::as_column).collect::<Option<_>>()?,
    };
    if let Some(filter) = &map.filter {
        let nullless: Vec<usize> = nullless.iter().map(|column| columns[*column]).collect();
        let tested = filter.not_null_columns()?;
        if tested.iter().any(|column| !nullless.contains(column)) {
            return None;
        }
    }
    let fields = columns.iter().zip(map.schema.fields()).map(|(column, field)| {
        let nullable = scan.schema.field(*column).is_nullable();
        field.as_ref().clone().with_nullable(nullable)
    });
    (!scan.shared).then(|| Scan {
        columns: columns.iter().map(|column| scan.columns[*column]).collect(),
        schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
        time_bounds: time_bounds(side),
        ..scan.clone()
    })
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};

    use super::*;
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
