//! Where the rows of a segment with some key stand: what makes a SELECT by key a lookup.
//!
//! A segment never changes, so its index is made once, when a lookup has come across it, and goes
//! with it. Writers know nothing of it, every snapshot that shares the segment shares it,
//! and an index can never disagree with the rows that it is of. Segments grow by merging, 16 of
//! one size to one, so a row is indexed again about once for each factor of 16 of the table.
//!
//! Rows are found by the hash of their key columns: who asks compares, since it has the condition
//! anyway. Rows with equal low bits of the hash form a chain. 12 bytes a row, and 4 for each of up
//! to twice as many buckets.

use arrow::array::{ArrayRef, RecordBatch};

use crate::types::error::Result;
use crate::types::key::{HashUse, hash_rows};

/// No row.
const NONE: u32 = u32::MAX;

/// The rows of one segment by the hash of some columns.
#[derive(Debug)]
pub struct SegmentIndex {
    /// The first row of each chain; as many as a power of two.
    heads: Vec<u32>,
    /// The next row of the chain, by row.
    next: Vec<u32>,
    /// The upper half of each row's hash.
    tags: Vec<u32>,
}

impl SegmentIndex {
    /// The index of a segment's rows by these columns.
    ///
    /// # Errors
    /// For a column whose type cannot be hashed.
    pub fn new(rows: &RecordBatch, columns: &[usize]) -> Result<SegmentIndex> {
        let count = rows.num_rows();
        let keys: Vec<ArrayRef> = columns.iter().map(|c| rows.column(*c).clone()).collect();
        let hashes = hash_rows(&keys, count, HashUse::Table)?;
        let mask = count.next_power_of_two() - 1;
        let mut heads = vec![NONE; mask + 1];
        let mut next = vec![NONE; count];
        // From the end, so that chains are in the order of the rows.
        for row in (0..count).rev() {
            let head = &mut heads[hashes[row] as usize & mask];
            next[row] = std::mem::replace(head, row as u32);
        }
        let tags = hashes.iter().map(|hash| tag(*hash)).collect();
        Ok(SegmentIndex { heads, next, tags })
    }

    /// Adds the rows whose key has this hash; a row of another key may be among them.
    pub fn find(&self, hash: u64, found: &mut Vec<u32>) {
        let mut row = self.heads[hash as usize & (self.heads.len() - 1)];
        while row != NONE {
            if self.tags[row as usize] == tag(hash) {
                found.push(row);
            }
            row = self.next[row as usize];
        }
    }

    pub fn memory_bytes(&self) -> usize {
        (self.heads.len() + self.next.len() + self.tags.len()) * size_of::<u32>()
    }
}

fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    #[test]
    fn every_row_of_a_key_is_found() {
        let keys: Vec<i64> = (0..1000).map(|n| n % 300).collect();
        let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, false)]));
        let column: ArrayRef = Arc::new(Int64Array::from(keys.clone()));
        let rows = RecordBatch::try_new(schema, vec![column]).expect("one column");
        let index = SegmentIndex::new(&rows, &[0]).expect("bigints are hashed");
        for wanted in [0, 1, 99, 100, 299, 300] {
            let key: ArrayRef = Arc::new(Int64Array::from(vec![wanted]));
            let hash = hash_rows(&[key], 1, HashUse::Table).expect("hashed")[0];
            let mut found = Vec::new();
            index.find(hash, &mut found);
            let right: Vec<u32> =
                (0..1000u32).filter(|row| keys[*row as usize] == wanted).collect();
            assert_eq!(found, right, "key {wanted}");
        }
        assert_eq!(index.memory_bytes(), (1024 + 1000 + 1000) * 4);
    }
}
