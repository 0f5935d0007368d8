//! Each left row with the right rows of equal keys that are there when it comes, and no others:
//! `FOR SYSTEM_TIME AS OF PROCTIME()`.
//!
//! The left input only grows. Its rows meet the right rows as of their own epoch, whose right
//! changes count; what happens on the right later changes nothing of what they met. So the output
//! only grows, too, and depends on when rows came.
//!
//! `on_epoch`: the right changes enter their table; then the left rows look it up, 8192 pairs at a
//! time, and those without a match leave padded, or are dropped.
//!
//! Keeps: all right rows with a key. Of the left rows nothing.

use std::collections::VecDeque;

use arrow::array::{Array, new_null_array};
use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute;
use arrow::datatypes::SchemaRef;

use crate::dataflow::operator::{Operator, Output};
use crate::plan::node;
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::state::multi_table::{MultiTable, Walk};
use crate::state::row_ids::NIL;
use crate::state::spill::StoreVisitor;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};
use crate::types::time::{Epoch, Watermark};

/// Pairs, and rows looked up, in one step; also the rows of an output batch.
const STEP_ROWS: usize = 8192;

const RIGHT: usize = 1;
/// The table in a checkpoint.
const ROWS: &str = "right";

/// What to join.
#[derive(Clone, Debug)]
pub struct LookupJoinSpec {
    pub keys: Vec<(usize, usize)>,
    pub keeps_left: bool,
    pub schema: SchemaRef,
}

impl From<&node::LookupJoin> for LookupJoinSpec {
    fn from(node: &node::LookupJoin) -> LookupJoinSpec {
        LookupJoinSpec {
            keys: node.keys.clone(),
            keeps_left: node.keeps_left,
            schema: node.schema.clone(),
        }
    }
}

/// The `lookup_join` operator.
pub struct LookupJoin {
    spec: LookupJoinSpec,
    left_keys: Vec<usize>,
    right_keys: Vec<usize>,
    right_schema: SchemaRef,
    table: MultiTable,
    /// Rows of the current epoch that have yet to be looked up.
    left: VecDeque<ChangeBatch>,
    /// Changes of the current epoch that have yet to enter the table.
    right: Vec<ChangeBatch>,
    watermarks: [Option<Watermark>; 2],
}

impl LookupJoin {
    /// # Errors
    /// When two key columns differ in type (ours: the planner makes them equal), or cannot be
    /// compared (SQLSTATE 0A000).
    pub fn new(spec: LookupJoinSpec, left: &SchemaRef, right: &SchemaRef) -> Result<LookupJoin> {
        for (l, r) in &spec.keys {
            if left.field(*l).data_type() != right.field(*r).data_type() {
                return Err(Error::internal("keys of a lookup join differ in type"));
            }
        }
        let left_keys = spec.keys.iter().map(|(l, _)| *l).collect();
        let right_keys: Vec<usize> = spec.keys.iter().map(|(_, r)| *r).collect();
        Ok(LookupJoin {
            table: MultiTable::keyed(right.clone(), right_keys.clone())?,
            spec,
            left_keys,
            right_keys,
            right_schema: right.clone(),
            left: VecDeque::new(),
            right: Vec::new(),
            watermarks: [None; 2],
        })
    }

    /// Emits the rows of a batch, at most `STEP_ROWS` of them, with what they meet.
    fn look_up(&mut self, batch: &ChangeBatch, out: &mut Output) -> Result<()> {
        let keys: Vec<ArrayRef> = batch.columns_at(&self.left_keys);
        let mut heads = self.table.heads(keys.clone(), batch.num_rows())?;
        // NULL equals nothing.
        for key in &keys {
            if let Some(nulls) = key.logical_nulls().filter(|nulls| nulls.null_count() > 0) {
                (0..heads.len()).filter(|row| nulls.is_null(*row)).for_each(|row| heads[row] = NIL);
            }
        }
        if self.spec.keeps_left {
            let alone = BooleanArray::from_iter(heads.iter().map(|head| Some(*head == NIL)));
            if alone.true_count() > 0 {
                let rows = batch.filter(&alone)?;
                let mut columns = rows.rows().columns().to_vec();
                let fields = self.right_schema.fields().iter();
                columns.extend(fields.map(|f| new_null_array(f.data_type(), rows.num_rows())));
                let padded = RecordBatch::try_new(self.spec.schema.clone(), columns)?;
                out.emit(rows.with_rows(padded));
            }
        }
        let mut walk = Walk::new(&heads);
        let mut more = true;
        while more {
            let (mut rows, mut ids) = (Vec::new(), Vec::new());
            more = self.table.walk(&mut walk, STEP_ROWS, &mut rows, &mut ids);
            if ids.is_empty() {
                continue;
            }
            // A row that stands several times is met as often: the output is plain insertions.
            if let Some(copies) = self.table.weights(&ids) {
                let times = |index: usize| usize::try_from(copies[index]).unwrap_or(0);
                let repeated = (0..ids.len()).flat_map(|i| std::iter::repeat_n(i, times(i)));
                let repeated: Vec<usize> = repeated.collect();
                rows = repeated.iter().map(|index| rows[*index]).collect();
                ids = repeated.iter().map(|index| ids[*index]).collect();
            }
            let places = UInt32Array::from(rows);
            let columns = batch.rows().columns().iter();
            let mut columns = columns
                .map(|column| compute::take(column, &places, None))
                .collect::<std::result::Result<Vec<_>, _>>()?;
            let all: Vec<usize> = (0..self.right_schema.fields().len()).collect();
            columns.extend(self.table.gather(&all, &ids)?);
            let options = RecordBatchOptions::new().with_row_count(Some(ids.len()));
            let schema = self.spec.schema.clone();
            let pairs = RecordBatch::try_new_with_options(schema, columns, &options)?;
            out.emit(ChangeBatch::inserts(pairs));
        }
        Ok(())
    }
}

impl Operator for LookupJoin {
    fn name(&self) -> &'static str {
        "lookup_join"
    }

    fn on_batch(&mut self, port: usize, batch: ChangeBatch, _: &mut Output) -> Result<()> {
        if port == RIGHT {
            self.right.push(batch);
            return Ok(());
        }
        assert!(batch.all_inserts(), "the left input of a lookup join only grows");
        for start in (0..batch.num_rows()).step_by(STEP_ROWS) {
            let rows = STEP_ROWS.min(batch.num_rows() - start);
            self.left.push_back(batch.slice(start, rows));
        }
        Ok(())
    }

    fn on_watermark(&mut self, port: usize, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.watermarks[port] = Some(watermark);
        if let [Some(left), Some(right)] = self.watermarks {
            out.emit_watermark(left.min(right));
        }
        Ok(())
    }

    fn on_epoch(&mut self, _: Epoch, out: &mut Output) -> Result<()> {
        for batch in std::mem::take(&mut self.right) {
            self.table.apply(&batch)?;
        }
        while let Some(batch) = self.left.pop_front() {
            self.look_up(&batch, out)?;
            if out.is_full() && !self.left.is_empty() {
                out.unfinished();
                break;
            }
        }
        Ok(())
    }

    fn checkpoint(&mut self, _: Epoch, writer: &mut CheckpointWriter) -> Result<()> {
        assert!(self.left.is_empty() && self.right.is_empty(), "the epoch is complete");
        writer.write(ROWS, self.table.checkpoint_delta()?);
        Ok(())
    }

    fn restore(&mut self, reader: &mut CheckpointReader) -> Result<()> {
        self.table.restore(reader.read(ROWS, &self.right_keys)?)
    }

    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        visit(&mut self.table);
    }

    fn memory_bytes(&self) -> usize {
        let waiting = self.left.iter().chain(&self.right).map(ChangeBatch::size_bytes);
        self.table.memory_bytes() + waiting.sum::<usize>()
    }

    fn state_rows(&self) -> usize {
        self.table.live_rows()
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::dataflow::script::{check, schema};

    #[test]
    fn a_row_meets_what_is_there_when_it_comes() {
        let (left, right) = (schema("k bigint, a text"), schema("k bigint, v text"));
        let spec = LookupJoinSpec {
            keys: vec![(0, 0)],
            keeps_left: true,
            schema: schema("k bigint, a text, rk bigint, v text"),
        };
        let schemas = [left.clone(), right.clone()];
        let make = || -> Box<dyn Operator> {
            Box::new(LookupJoin::new(spec.clone(), &left, &right).expect("key types agree"))
        };
        check(
            make,
            &schemas,
            "
            batch 0
              + 1 early
              + . null
            batch 1
              + 1 x
              + 2 y
              +2 3 twice
            epoch 1
            batch 0
              + 1 next
              + 2 next
              + 3 next
            batch 1
              - 1 x
              + 1 z
              - 2 y
            epoch 2
            recover
            batch 1
              + 2 again
            batch 0
              + 2 last
            epoch 3
            ",
            expect![[r#"
                epoch 1
                + . null . .
                + 1 early 1 x
                epoch 2
                + 1 next 1 z
                + 2 next . .
                +2 3 next 3 twice
                epoch 3
                + 2 last 2 again
            "#]],
        );
    }
}
