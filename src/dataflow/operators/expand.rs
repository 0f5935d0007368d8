//! Each row once for each list of columns (GROUPING SETS); stateless.
//!
//! Every list is a projection of its own, so a batch that comes in leaves as one batch per list.

use arrow::datatypes::SchemaRef;

use crate::dataflow::operator::{Output, Stateless};
use crate::dataflow::operators::map::{Map, MapSpec};
use crate::plan::node;
use crate::types::change::ChangeBatch;
use crate::types::error::Result;

/// The `expand` operator.
pub struct Expand {
    copies: Vec<Map>,
}

impl Expand {
    pub fn new(node: &node::Expand, input: &SchemaRef) -> Expand {
        let copy = |projection: &Vec<_>| {
            let spec = MapSpec {
                filter: None,
                projection: Some(projection.clone()),
                schema: node.schema.clone(),
            };
            Map::new(spec, input)
        };
        Expand { copies: node.projections.iter().map(copy).collect() }
    }
}

impl Stateless for Expand {
    fn name(&self) -> &'static str {
        "expand"
    }

    fn on_batch(&mut self, batch: ChangeBatch, out: &mut Output) -> Result<()> {
        for copy in &mut self.copies {
            copy.on_batch(batch.clone(), out)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;
    use expect_test::expect;

    use super::*;
    use crate::dataflow::script::{check, schema};
    use crate::plan::expr::Expr;
    use crate::plan::node::{Edge, Node, Scan};
    use crate::types::id::ObjectId;

    #[test]
    fn a_row_leaves_once_for_each_list() {
        let column = |index: usize, name: &str| Expr::column(name, index, DataType::Int64, true);
        let input = schema("a bigint, b bigint");
        let scan = Node::Scan(Scan {
            object: ObjectId(1),
            name: "t".to_owned(),
            columns: vec![0, 1],
            schema: input.clone(),
            append_only: false,
            time_bounds: vec![],
            shared: false,
            index: None,
        });
        let node = node::Expand {
            input: Edge::local(scan),
            projections: vec![
                vec![column(0, "a"), column(1, "b")],
                vec![column(1, "b"), column(1, "b")],
            ],
            schema: schema("x bigint, y bigint"),
        };
        check(
            || Box::new(Expand::new(&node, &input)),
            std::slice::from_ref(&input),
            "
            batch 0
              + 1 2
              -2 3 .
            epoch 1
            recover
            batch 0
              + 5 6
            epoch 2
            ",
            expect![[r#"
                epoch 1
                -2 . .
                + 1 2
                + 2 2
                -2 3 .
                epoch 2
                + 5 6
                + 6 6
            "#]],
        );
    }
}
