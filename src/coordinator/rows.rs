//! Whole tables as batches: changes on top of them, rows by key, equality as bags of rows.
//!
//! Everything here hashes rows column by column and compares only rows of equal hash.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute;
use arrow::datatypes::SchemaRef;
use hashbrown::HashTable;

use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use crate::types::key::{HashUse, RowComparator, hash_rows};

/// The content after `changes`; a row of weight -n takes n copies away.
pub(super) fn overlay(
    base: &[RecordBatch],
    schema: &SchemaRef,
    changes: &[ChangeBatch],
) -> Result<Vec<RecordBatch>> {
    if changes.is_empty() {
        return Ok(base.to_vec());
    }
    // Inserts and deletes of the same row cancel before anything is looked up in the base.
    let all = ChangeBatch::concat(schema, changes)?.consolidate()?;
    let negative = BooleanArray::from_iter((0..all.num_rows()).map(|r| Some(all.weight(r) < 0)));
    let deletes = all.filter(&negative)?;
    let inserts = all.filter(&compute::not(&negative)?)?;
    let mut content = if deletes.is_empty() { base.to_vec() } else { take_away(base, &deletes)? };
    if !inserts.is_empty() {
        content.push(expand(&inserts)?);
    }
    Ok(content)
}

/// Each row as often as its weight says; weights are positive.
pub(super) fn expand(changes: &ChangeBatch) -> Result<RecordBatch> {
    if changes.all_inserts() {
        return Ok(changes.rows().clone());
    }
    let indices: Vec<u32> = (0..changes.num_rows())
        .flat_map(|row| std::iter::repeat_n(row as u32, changes.weight(row).max(0) as usize))
        .collect();
    Ok(compute::take_record_batch(changes.rows(), &UInt32Array::from(indices))?)
}

/// `base` without the rows of `deletes`, each as often as its (negative) weight says.
fn take_away(base: &[RecordBatch], deletes: &ChangeBatch) -> Result<Vec<RecordBatch>> {
    let index = RowIndex::new(deletes.rows().columns(), deletes.num_rows())?;
    let mut left: Vec<i64> = deletes.weights_vec();
    let mut content = Vec::with_capacity(base.len());
    for batch in base {
        let found = index.lookup(batch.columns(), batch.num_rows())?;
        let mut kept_all = true;
        let keep: Vec<bool> = found
            .into_iter()
            .map(|row| match row {
                Some(row) if left[row as usize] < 0 => {
                    left[row as usize] += 1;
                    kept_all = false;
                    false
                }
                _ => true,
            })
            .collect();
        content.push(if kept_all {
            batch.clone()
        } else {
            compute::filter_record_batch(batch, &BooleanArray::from(keep))?
        });
    }
    Ok(content)
}

/// Finds rows by the values of some columns; of equal rows, the first.
pub(super) struct RowIndex {
    columns: Vec<ArrayRef>,
    hashes: Vec<u64>,
    table: HashTable<u32>,
    /// A row that has an equal one before it, if there is any: (first, second).
    pub repeated: Option<(u32, u32)>,
}

impl RowIndex {
    pub fn new(columns: &[ArrayRef], rows: usize) -> Result<RowIndex> {
        let hashes = hash_rows(columns, rows, HashUse::Table)?;
        let same = RowComparator::new(columns, columns)?;
        let mut table = HashTable::with_capacity(rows);
        let mut repeated = None;
        for row in 0..rows as u32 {
            let hash = hashes[row as usize];
            let entry = table.entry(
                hash,
                |other: &u32| {
                    hashes[*other as usize] == hash && same.equal(*other as usize, row as usize)
                },
                |other| hashes[*other as usize],
            );
            match entry {
                hashbrown::hash_table::Entry::Occupied(first) => {
                    repeated.get_or_insert((*first.get(), row));
                }
                hashbrown::hash_table::Entry::Vacant(vacant) => {
                    vacant.insert(row);
                }
            }
        }
        Ok(RowIndex { columns: columns.to_vec(), hashes, table, repeated })
    }

    /// For each of `rows` rows of `columns`: the equal row here.
    pub fn lookup(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<Option<u32>>> {
        let hashes = hash_rows(columns, rows, HashUse::Table)?;
        let same = RowComparator::new(&self.columns, columns)?;
        let find = |row: usize| {
            self.table
                .find(hashes[row], |here| {
                    self.hashes[*here as usize] == hashes[row] && same.equal(*here as usize, row)
                })
                .copied()
        };
        Ok((0..rows).map(find).collect())
    }
}

/// Which of `rows` have the `key` of some row of `wanted`.
pub(super) fn has_keys(
    rows: &RecordBatch,
    key: &[usize],
    wanted: &RecordBatch,
) -> Result<BooleanArray> {
    let index = RowIndex::new(&columns_at(wanted, key), wanted.num_rows())?;
    let hits = index.lookup(&columns_at(rows, key), rows.num_rows())?;
    Ok(BooleanArray::from_iter(hits.iter().map(|hit| Some(hit.is_some()))))
}

/// The columns at `indices`, shared.
pub(super) fn columns_at(rows: &RecordBatch, indices: &[usize]) -> Vec<ArrayRef> {
    indices.iter().map(|index| rows.column(*index).clone()).collect()
}

/// Whether both hold the same rows equally often, in whatever order.
pub(super) fn same_content(
    left: &[RecordBatch],
    right: &[RecordBatch],
    schema: &SchemaRef,
) -> Result<bool> {
    if left.len() == right.len() && left.iter().zip(right).all(|(l, r)| same_buffers(l, r)) {
        return Ok(true);
    }
    let count = |batches: &[RecordBatch]| batches.iter().map(RecordBatch::num_rows).sum::<usize>();
    if count(left) != count(right) {
        return Ok(false);
    }
    let mut changes: Vec<ChangeBatch> =
        left.iter().map(|batch| ChangeBatch::deletes(batch.clone())).collect();
    changes.extend(right.iter().map(|batch| ChangeBatch::inserts(batch.clone())));
    Ok(ChangeBatch::concat(schema, &changes)?.consolidate()?.is_empty())
}

/// Whether both are the same arrays in memory: an unchanged snapshot.
fn same_buffers(left: &RecordBatch, right: &RecordBatch) -> bool {
    left.num_rows() == right.num_rows()
        && left
            .columns()
            .iter()
            .zip(right.columns())
            .all(|(l, r)| Arc::ptr_eq(l, r) || l.to_data().ptr_eq(&r.to_data()))
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int32Array, StringArray};
    use arrow::datatypes::{DataType, Field, Int32Type, Schema};

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("k", DataType::Int32, true),
            Field::new("v", DataType::Utf8, true),
        ]))
    }

    fn batch(rows: &[(i32, &str)]) -> RecordBatch {
        RecordBatch::try_new(
            schema(),
            vec![
                Arc::new(Int32Array::from_iter_values(rows.iter().map(|r| r.0))),
                Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1))),
            ],
        )
        .expect("two columns")
    }

    fn show(content: &[RecordBatch]) -> String {
        let mut rows: Vec<String> = content
            .iter()
            .flat_map(|b| {
                let keys = b.column(0).as_primitive::<Int32Type>();
                let values = b.column(1).as_string::<i32>();
                (0..b.num_rows()).map(|r| format!("{}{}", keys.value(r), values.value(r)))
            })
            .collect();
        rows.sort();
        rows.join(" ")
    }

    #[test]
    fn an_overlay_takes_away_as_many_copies_as_it_says() {
        let base = [batch(&[(1, "a"), (2, "b"), (1, "a")]), batch(&[(1, "a"), (3, "c")])];
        let changes = [
            ChangeBatch::deletes(batch(&[(1, "a"), (1, "a")])),
            ChangeBatch::inserts(batch(&[(4, "d"), (4, "d")])),
            // Inserted before, so the base's own row must stay.
            ChangeBatch::inserts(batch(&[(2, "b")])),
            ChangeBatch::deletes(batch(&[(2, "b")])),
        ];
        let content = overlay(&base, &schema(), &changes).expect("overlays");
        assert_eq!(show(&content), "1a 2b 3c 4d 4d");
        assert_eq!(show(&overlay(&base, &schema(), &[]).expect("same")), "1a 1a 1a 2b 3c");
    }

    #[test]
    fn rows_are_found_by_key() {
        let content = batch(&[(1, "a"), (2, "b"), (3, "c"), (2, "x")]);
        let wanted = batch(&[(2, "?"), (9, "?"), (2, "?")]);
        let found = has_keys(&content, &[0], &wanted).expect("finds");
        assert_eq!(found, BooleanArray::from(vec![false, true, false, true]));
        let index = RowIndex::new(&columns_at(&wanted, &[0]), 3).expect("indexes");
        assert_eq!(index.repeated, Some((0, 2)));
    }

    #[test]
    fn contents_are_equal_as_bags() {
        let left = [batch(&[(1, "a"), (2, "b")]), batch(&[(1, "a")])];
        let right = [batch(&[(2, "b"), (1, "a"), (1, "a")])];
        assert!(same_content(&left, &right, &schema()).expect("compares"));
        assert!(same_content(&left, &left, &schema()).expect("compares"));
        let other = [batch(&[(2, "b"), (2, "b"), (1, "a")])];
        assert!(!same_content(&left, &other, &schema()).expect("compares"));
    }
}
