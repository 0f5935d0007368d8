//! Each row as often as a column of it says (EXCEPT ALL, INTERSECT ALL); stateless.
//!
//! The weight of a row is multiplied by the column; rows that would have the weight 0 are left out.

use arrow::array::{AsArray, BooleanArray};
use arrow::datatypes::Int64Type;

use crate::dataflow::operator::{Output, Stateless};
use crate::plan::node;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};

/// The `copies` operator.
pub struct Copies {
    /// The column that counts.
    count: usize,
}

impl Copies {
    pub fn new(node: &node::Copies) -> Copies {
        Copies { count: node.count }
    }
}

impl Stateless for Copies {
    fn name(&self) -> &'static str {
        "copies"
    }

    fn on_batch(&mut self, batch: ChangeBatch, out: &mut Output) -> Result<()> {
        let counts = batch.column(self.count).as_primitive::<Int64Type>().clone();
        let there = BooleanArray::from_iter(counts.iter().map(|c| Some(c.unwrap_or(0) > 0)));
        let batch = batch.filter(&there)?;
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let counts = batch.column(self.count).as_primitive::<Int64Type>().clone();
        let weights = (0..batch.num_rows())
            .map(|row| {
                batch
                    .weight(row)
                    .checked_mul(counts.value(row))
                    .ok_or_else(|| Error::internal("more copies of a row than can be counted"))
            })
            .collect::<Result<Vec<i64>>>()?;
        out.emit(ChangeBatch::new(batch.into_rows(), weights)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::dataflow::script::{check, schema};
    use crate::plan::node::{Edge, Node, Scan};
    use crate::types::id::ObjectId;

    #[test]
    fn weights_are_multiplied() {
        let input = schema("v text, n bigint");
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
        let node = node::Copies { input: Edge::local(scan), count: 1 };
        check(
            || Box::new(Copies::new(&node)),
            std::slice::from_ref(&input),
            "
            batch 0
              + a 3
              + b 0
              -2 c 2
            epoch 1
            recover
            batch 0
              - a 3
              + a 1
            epoch 2
            ",
            expect![[r#"
                epoch 1
                +3 a 3
                -4 c 2
                epoch 2
                + a 1
                -3 a 3
            "#]],
        );
    }
}
