//! A text that two plans share only if their operators keep the same state.
//!
//! It is stored with the state of a view; a view whose plan has another one after a restart is
//! computed anew. It may differ where the state would fit, never the other way round, so all that
//! a plan says goes into it: as EXPLAIN shows it, in order, with the ids of what is read, and every
//! line of its debug form. Those are added up without their order, because maps in it have none.

use std::fmt::Write as _;

use crate::plan::node::Plan;

/// Counted up when an operator's state gets another meaning for the same plan.
const STATE_VERSION: u32 = 3;

/// The fingerprint of a plan.
pub fn fingerprint(plan: &Plan) -> String {
    let mut text = format!("{plan}\n{:?}\n", plan.root.scanned_objects());
    plan.root.visit(&mut |node| {
        for field in node.schema().fields() {
            let (data_type, nullable) = (field.data_type(), field.is_nullable());
            writeln!(text, "{data_type} {nullable}").expect("writing to a string cannot fail");
        }
    });
    let lines = format!("{plan:#?}");
    // For how long history is kept is no matter of operators, and where no index is read nothing
    // need say so.
    let no_matter = |line: &&str| {
        line.trim_start().starts_with("history_retention:") || line.trim() == "index: None,"
    };
    let lines = lines.lines().filter(|line| !no_matter(line));
    let sum = lines.fold(0u64, |sum, line| sum.wrapping_add(hash(line.trim())));
    format!("{STATE_VERSION}-{:016x}{sum:016x}", hash(&text))
}

/// FNV-1a: the same for ever, on every machine.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::plan::node::{Node, Scan};
    use crate::plan::view_options::ViewOptions;
    use crate::types::id::ObjectId;

    fn plan(object: u64, columns: Vec<usize>, metadata: bool) -> Plan {
        let marks = [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")];
        let marks = marks.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let mut field = Field::new("k", DataType::Int64, false);
        if metadata {
            field = field.with_metadata(marks.into());
        }
        let schema = Arc::new(Schema::new(vec![field, Field::new("v", DataType::Utf8, true)]));
        let name = "t".to_owned();
        let object = ObjectId(object);
        let time_bounds = vec![];
        let scan = Scan {
            object,
            name,
            columns,
            schema,
            append_only: true,
            time_bounds,
            shared: false,
            index: None,
        };
        Plan { root: Node::Scan(scan), unique_key: None, options: ViewOptions::default() }
    }

    #[test]
    fn equal_plans_have_one_and_others_another() {
        let own = fingerprint(&plan(1, vec![0, 1], true));
        for _ in 0..20 {
            // Each map has an order of its own.
            assert_eq!(fingerprint(&plan(1, vec![0, 1], true)), own);
        }
        for other in
            [plan(2, vec![0, 1], true), plan(1, vec![0, 2], true), plan(1, vec![0, 1], false)]
        {
            assert_ne!(fingerprint(&other), own);
        }
        let keyed = Plan { unique_key: Some(vec![0]), ..plan(1, vec![0, 1], true) };
        assert_ne!(fingerprint(&keyed), own);
    }
}
