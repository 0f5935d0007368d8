//! All rows of all inputs (UNION ALL); stateless.
//!
//! Batches are given on under the output's column names. The watermark is the minimum over the
//! inputs, from when each of them has one.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;

use crate::dataflow::operator::{Operator, Output};
use crate::plan::node;
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use crate::types::time::{Epoch, Watermark};

/// What to unite.
#[derive(Clone, Debug)]
pub struct UnionSpec {
    pub inputs: usize,
    pub schema: SchemaRef,
}

impl From<&node::Union> for UnionSpec {
    fn from(node: &node::Union) -> UnionSpec {
        UnionSpec { inputs: node.inputs.len(), schema: node.schema.clone() }
    }
}

/// The `union` operator.
pub struct Union {
    spec: UnionSpec,
    /// The watermark of each input; they are sent anew after a restart.
    watermarks: Vec<Option<Watermark>>,
}

impl Union {
    pub fn new(spec: UnionSpec) -> Union {
        let watermarks = vec![None; spec.inputs];
        Union { spec, watermarks }
    }
}

impl Operator for Union {
    fn name(&self) -> &'static str {
        "union"
    }

    fn on_batch(&mut self, port: usize, batch: ChangeBatch, out: &mut Output) -> Result<()> {
        assert!(port < self.spec.inputs, "an input of the plan");
        if Arc::ptr_eq(&batch.schema(), &self.spec.schema) {
            out.emit(batch);
            return Ok(());
        }
        let columns = batch.rows().columns().to_vec();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let schema = self.spec.schema.clone();
        let rows = RecordBatch::try_new_with_options(schema, columns, &options)?;
        out.emit(batch.with_rows(rows));
        Ok(())
    }

    fn on_watermark(&mut self, port: usize, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.watermarks[port] = Some(watermark);
        // An input without a watermark may still send rows of any time.
        if let Some(all) = self.watermarks.iter().copied().collect::<Option<Vec<Watermark>>>()
            && let Some(least) = all.into_iter().min()
        {
            out.emit_watermark(least);
        }
        Ok(())
    }

    fn on_epoch(&mut self, _epoch: Epoch, _out: &mut Output) -> Result<()> {
        Ok(())
    }

    fn checkpoint(&mut self, _epoch: Epoch, _writer: &mut CheckpointWriter) -> Result<()> {
        Ok(())
    }

    fn restore(&mut self, _reader: &mut CheckpointReader) -> Result<()> {
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::dataflow::script::{check, schema};

    #[test]
    fn rows_of_all_inputs_and_the_least_watermark() {
        check(
            || Box::new(Union::new(UnionSpec { inputs: 2, schema: schema("k bigint, v text") })),
            &[schema("a bigint, b text"), schema("k bigint, v text")],
            "
            batch 0
              + 1 a
            batch 1
              +2 1 a
              - 2 .
            watermark 0 10
            epoch 1
            recover
            watermark 1 5
            epoch 2
            watermark 0 10
            epoch 3
            watermark 1 20
            epoch 4
            ",
            expect![[r#"
                epoch 1
                +3 1 a
                - 2 .
                epoch 2
                epoch 3
                watermark 5
                epoch 4
                watermark 10
            "#]],
        );
    }
}
