//! scaffold
use super::multi_table::*;
use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use crate::types::key::*;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
pub struct KeyedTable {
    key: Vec<usize>,
    bag: BagTable,
    schema: SchemaRef,
}
impl KeyedTable {
    pub fn new(schema: SchemaRef, key: Vec<usize>) -> KeyedTable {
        KeyedTable { key, bag: BagTable::new(schema.clone(), false), schema }
    }
    pub fn apply(&mut self, b: &ChangeBatch) -> Result<()> {
        self.bag.apply(b)
    }
    pub fn snapshot(&mut self) -> Snapshot {
        self.bag.snapshot()
    }
    pub fn existing(&self, rows: &RecordBatch) -> Result<(Vec<Option<u32>>, RecordBatch)> {
        let mut b = BagTable::new(self.schema.clone(), false);
        b.apply(&ChangeBatch::empty(self.schema.clone()))?;
        let all = vec![self.bag.all.rows().clone()];
        let old = arrow::compute::concat_batches(&self.schema, &all)?;
        let l: Vec<_> = self.key.iter().map(|c| rows.column(*c).clone()).collect();
        let r: Vec<_> = self.key.iter().map(|c| old.column(*c).clone()).collect();
        let cmp = RowComparator::new(&l, &r)?;
        let found: Vec<Option<usize>> =
            (0..rows.num_rows()).map(|i| (0..old.num_rows()).find(|j| cmp.equal(i, *j))).collect();
        let idx: Vec<u32> = found.iter().flatten().map(|j| *j as u32).collect();
        let mut n = 0;
        let map = found
            .iter()
            .map(|f| {
                f.map(|_| {
                    n += 1;
                    n - 1
                })
            })
            .collect();
        Ok((map, arrow::compute::take_record_batch(&old, &arrow::array::UInt32Array::from(idx))?))
    }
}
