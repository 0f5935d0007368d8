//! scaffold
use crate::state::delta::TableDelta;
use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
pub struct BagTable {
    pub(super) all: ChangeBatch,
}
#[derive(Clone, Debug)]
pub struct Snapshot {
    all: ChangeBatch,
}
impl BagTable {
    pub fn new(schema: SchemaRef, _a: bool) -> BagTable {
        BagTable { all: ChangeBatch::empty(schema) }
    }
    pub fn apply(&mut self, b: &ChangeBatch) -> Result<()> {
        self.all = ChangeBatch::concat(&self.all.schema(), &[self.all.clone(), b.clone()])?
            .consolidate()?;
        Ok(())
    }
    pub fn snapshot(&mut self) -> Snapshot {
        Snapshot { all: self.all.clone() }
    }
    pub fn checkpoint_delta(&mut self) -> Result<TableDelta> {
        Ok(TableDelta::default())
    }
    pub fn restore(&mut self, _rows: Vec<RecordBatch>) -> Result<()> {
        Ok(())
    }
    pub fn memory_bytes(&self) -> usize {
        0
    }
}
impl Snapshot {
    pub fn batches(&self) -> Result<Vec<RecordBatch>> {
        let idx: Vec<u32> = (0..self.all.num_rows())
            .flat_map(|r| std::iter::repeat_n(r as u32, self.all.weight(r) as usize))
            .collect();
        Ok(vec![arrow::compute::take_record_batch(
            self.all.rows(),
            &arrow::array::UInt32Array::from(idx),
        )?])
    }
}
