//! Change batches: rows with signed weights, the only thing that flows through a dataflow.
//!
//! +n means n copies inserted, -n deleted. An update is -old and +new in the same epoch, in any
//! order. A batch of inserts alone carries no weights: the append-only fast path.
//! Batches are immutable and cheap to clone; no batch holds a row of weight 0.

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute;
use arrow::datatypes::{Int64Type, SchemaRef};
use hashbrown::HashTable;

use crate::types::error::Result;
use crate::types::key::{HashUse, RowComparator, hash_rows};

/// The weight of each row.
#[derive(Clone, Debug)]
pub enum Weights {
    /// Every row is inserted once.
    AllInserts,
    /// One weight per row, none of them 0.
    Each(ScalarBuffer<i64>),
}

/// Rows and their weights.
#[derive(Clone, Debug)]
pub struct ChangeBatch {
    rows: RecordBatch,
    weights: Weights,
}

impl ChangeBatch {
    /// Every row inserted once.
    pub fn inserts(rows: RecordBatch) -> ChangeBatch {
        ChangeBatch { rows, weights: Weights::AllInserts }
    }

    /// Every row deleted once.
    pub fn deletes(rows: RecordBatch) -> ChangeBatch {
        let weights = vec![-1; rows.num_rows()];
        ChangeBatch { rows, weights: Weights::Each(weights.into()) }
    }

    /// Rows with these weights; rows of weight 0 are left out.
    pub fn new(rows: RecordBatch, weights: Vec<i64>) -> Result<ChangeBatch> {
        assert_eq!(rows.num_rows(), weights.len(), "one weight per row");
        if weights.iter().all(|w| *w == 1) {
            return Ok(ChangeBatch::inserts(rows));
        }
        if weights.contains(&0) {
            let keep = BooleanArray::from_iter(weights.iter().map(|w| Some(*w != 0)));
            let rows = compute::filter_record_batch(&rows, &keep)?;
            let weights: Vec<i64> = weights.into_iter().filter(|w| *w != 0).collect();
            return Ok(ChangeBatch { rows, weights: Weights::Each(weights.into()) });
        }
        Ok(ChangeBatch { rows, weights: Weights::Each(weights.into()) })
    }

    /// No rows.
    pub fn empty(schema: SchemaRef) -> ChangeBatch {
        ChangeBatch::inserts(RecordBatch::new_empty(schema))
    }

    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    pub fn into_rows(self) -> RecordBatch {
        self.rows
    }

    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    pub fn num_rows(&self) -> usize {
        self.rows.num_rows()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.num_rows() == 0
    }

    pub fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    pub fn column(&self, index: usize) -> &ArrayRef {
        self.rows.column(index)
    }

    /// The columns at `indices`, shared.
    pub fn columns_at(&self, indices: &[usize]) -> Vec<ArrayRef> {
        indices.iter().map(|i| self.rows.column(*i).clone()).collect()
    }

    pub fn all_inserts(&self) -> bool {
        matches!(self.weights, Weights::AllInserts)
    }

    pub fn weight(&self, row: usize) -> i64 {
        match &self.weights {
            Weights::AllInserts => 1,
            Weights::Each(weights) => weights[row],
        }
    }

    /// The weights as a vector, for kernels that want one shape.
    pub fn weights_vec(&self) -> Vec<i64> {
        match &self.weights {
            Weights::AllInserts => vec![1; self.num_rows()],
            Weights::Each(weights) => weights.to_vec(),
        }
    }

    /// The sum of all weights: how many rows the receiver has more.
    pub fn weight_sum(&self) -> i64 {
        match &self.weights {
            Weights::AllInserts => self.num_rows() as i64,
            Weights::Each(weights) => weights.iter().sum(),
        }
    }

    /// The same weights over other rows of the same number (a projection).
    pub fn with_rows(&self, rows: RecordBatch) -> ChangeBatch {
        assert_eq!(rows.num_rows(), self.num_rows(), "a projection keeps the rows");
        ChangeBatch { rows, weights: self.weights.clone() }
    }

    /// Only these columns.
    pub fn project(&self, columns: &[usize]) -> Result<ChangeBatch> {
        Ok(ChangeBatch { rows: self.rows.project(columns)?, weights: self.weights.clone() })
    }

    /// A window of the rows, without copying.
    pub fn slice(&self, offset: usize, length: usize) -> ChangeBatch {
        let weights = match &self.weights {
            Weights::AllInserts => Weights::AllInserts,
            Weights::Each(weights) => Weights::Each(weights.slice(offset, length)),
        };
        ChangeBatch { rows: self.rows.slice(offset, length), weights }
    }

    /// The rows where `keep` is true (NULL counts as false).
    pub fn filter(&self, keep: &BooleanArray) -> Result<ChangeBatch> {
        let rows = compute::filter_record_batch(&self.rows, keep)?;
        let weights = match &self.weights {
            Weights::AllInserts => Weights::AllInserts,
            Weights::Each(weights) => {
                let array = arrow::array::PrimitiveArray::<Int64Type>::new(weights.clone(), None);
                let kept = compute::filter(&array, keep)?;
                let kept = arrow::array::AsArray::as_primitive::<Int64Type>(&kept);
                Weights::Each(kept.values().clone())
            }
        };
        Ok(ChangeBatch { rows, weights })
    }

    /// The rows at `indices`, in that order.
    pub fn take(&self, indices: &UInt32Array) -> Result<ChangeBatch> {
        // Not `take_record_batch`, which fails for rows without columns.
        let columns = self.rows.columns().iter().map(|c| compute::take(c, indices, None));
        let options = RecordBatchOptions::new().with_row_count(Some(indices.len()));
        let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
        let rows = RecordBatch::try_new_with_options(self.rows.schema(), columns, &options)?;
        let weights = match &self.weights {
            Weights::AllInserts => Weights::AllInserts,
            Weights::Each(weights) => Weights::Each(
                indices.values().iter().map(|i| weights[*i as usize]).collect::<Vec<_>>().into(),
            ),
        };
        Ok(ChangeBatch { rows, weights })
    }

    /// The opposite change.
    #[must_use]
    pub fn negate(&self) -> ChangeBatch {
        let weights = match &self.weights {
            Weights::AllInserts => vec![-1; self.num_rows()],
            Weights::Each(weights) => weights.iter().map(|w| -w).collect(),
        };
        ChangeBatch { rows: self.rows.clone(), weights: Weights::Each(weights.into()) }
    }

    /// All rows of `batches` in one batch of this schema.
    pub fn concat(schema: &SchemaRef, batches: &[ChangeBatch]) -> Result<ChangeBatch> {
        if let [one] = batches {
            return Ok(one.clone());
        }
        let rows = compute::concat_batches(schema, batches.iter().map(|b| &b.rows))?;
        if batches.iter().all(ChangeBatch::all_inserts) {
            return Ok(ChangeBatch::inserts(rows));
        }
        let mut weights = Vec::with_capacity(rows.num_rows());
        for batch in batches {
            match &batch.weights {
                Weights::AllInserts => weights.resize(weights.len() + batch.num_rows(), 1),
                Weights::Each(each) => weights.extend_from_slice(each),
            }
        }
        Ok(ChangeBatch { rows, weights: Weights::Each(weights.into()) })
    }

    /// Adds up the weights of equal rows; each row that is left occurs once.
    ///
    /// A batch of inserts alone is returned as it is: nothing in it can cancel.
    pub fn consolidate(self) -> Result<ChangeBatch> {
        let Weights::Each(weights) = &self.weights else { return Ok(self) };
        let mut sums = weights.to_vec();
        sum_equal_rows(&self.rows, &mut sums)?;
        ChangeBatch::new(self.rows, sums)
    }

    /// Bytes of the rows and weights; shared buffers are counted in each holder.
    pub fn size_bytes(&self) -> usize {
        let weights = match &self.weights {
            Weights::AllInserts => 0,
            Weights::Each(weights) => weights.len() * size_of::<i64>(),
        };
        self.rows
            .columns()
            .iter()
            .map(|c| c.to_data().get_slice_memory_size().unwrap_or(0))
            .sum::<usize>()
            + weights
    }
}

/// Adds the weight of each row to that of the first equal row, and lets it be 0.
///
/// # Errors
/// For a column whose type cannot be hashed or compared.
pub fn sum_equal_rows(rows: &RecordBatch, weights: &mut [i64]) -> Result<()> {
    let columns = rows.columns();
    let hashes = hash_rows(columns, rows.num_rows(), HashUse::Table)?;
    let same = RowComparator::new(columns, columns)?;
    let mut seen: HashTable<u32> = HashTable::with_capacity(rows.num_rows());
    for row in 0..rows.num_rows() {
        let hash = hashes[row];
        let entry = seen.entry(
            hash,
            |other| hashes[*other as usize] == hash && same.equal(*other as usize, row),
            |other| hashes[*other as usize],
        );
        match entry {
            hashbrown::hash_table::Entry::Occupied(first) => {
                // A row that stands 2^63 times is beyond any memory.
                let first = *first.get() as usize;
                weights[first] = weights[first].saturating_add(weights[row]);
                weights[row] = 0;
            }
            hashbrown::hash_table::Entry::Vacant(vacant) => {
                vacant.insert(row as u32);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn batch(rows: &[(i64, Option<&str>, i64)]) -> ChangeBatch {
        let schema = Arc::new(Schema::new(vec![
            Field::new("k", DataType::Int64, false),
            Field::new("v", DataType::Utf8, true),
        ]));
        let rows_only = RecordBatch::try_new(
            schema,
            vec![
                Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0))),
                Arc::new(StringArray::from_iter(rows.iter().map(|r| r.1))),
            ],
        )
        .expect("two columns");
        ChangeBatch::new(rows_only, rows.iter().map(|r| r.2).collect()).expect("weights")
    }

    #[test]
    fn consolidate_cancels_and_adds_up() {
        let out = batch(&[
            (1, Some("a"), 1),
            (2, None, 1),
            (1, Some("a"), -1),
            (2, None, 2),
            (3, None, -1),
        ])
        .consolidate()
        .expect("consolidates");
        let keys = out.column(0).as_primitive::<Int64Type>().values().to_vec();
        assert_eq!(keys, [2, 3]);
        assert_eq!(out.weights_vec(), [3, -1]);
    }

    #[test]
    fn zero_weights_leave_and_inserts_stay_compact() {
        assert!(batch(&[(1, None, 1), (2, None, 1)]).all_inserts());
        let out = batch(&[(1, None, 0), (2, None, -2)]);
        assert_eq!(out.num_rows(), 1);
        assert_eq!(out.weight_sum(), -2);
        assert_eq!(out.negate().weight(0), 2);
    }

    #[test]
    fn filter_take_slice_and_concat_keep_weights_with_rows() {
        let all = batch(&[(1, None, 1), (2, None, -1), (3, None, 5)]);
        let odd = all.filter(&BooleanArray::from(vec![true, false, true])).expect("filters");
        assert_eq!(odd.weights_vec(), [1, 5]);
        let back = all.take(&UInt32Array::from(vec![2, 1])).expect("takes");
        assert_eq!(back.weights_vec(), [5, -1]);
        assert_eq!(all.slice(1, 2).weights_vec(), [-1, 5]);
        let both =
            ChangeBatch::concat(&all.schema(), &[odd, batch(&[(9, None, 1)])]).expect("concat");
        assert_eq!(both.weights_vec(), [1, 5, 1]);
    }
}
