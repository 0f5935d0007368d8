//! An order for rows that sort alike: that of their other columns, from the first to the last, as
//! state keeps them (`state::ordered_table`). So what is found depends on the rows, not on how they
//! came, and a batch finds what a view holds.

use std::ops::Range;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{partition, take, take_record_batch};
use arrow::row::{RowConverter, SortField};

use crate::plan::match_recognize::MatchSpec;
use crate::types::error::Result;

/// Rows that are sorted by partition and order, in their final order.
///
/// # Errors
/// When there is no memory for it.
pub fn settle_ties(spec: &MatchSpec, rows: RecordBatch) -> Result<RecordBatch> {
    let keys: Vec<usize> =
        spec.partition.iter().copied().chain(spec.order_by.iter().map(|s| s.column)).collect();
    let tied = tied(&rows, &keys)?;
    if tied.is_empty() {
        return Ok(rows);
    }
    // A column without an order does not count; a view refuses it.
    let has_order = |column: &usize| {
        let data_type = rows.column(*column).data_type().clone();
        RowConverter::supports_fields(&[SortField::new(data_type)])
    };
    let others: Vec<usize> =
        (0..rows.num_columns()).filter(|c| !keys.contains(c)).filter(has_order).collect();
    if others.is_empty() {
        return Ok(rows);
    }
    let members: Vec<u32> = tied.iter().flat_map(|r| r.start as u32..r.end as u32).collect();
    let members = UInt32Array::from(members);
    let columns: Vec<ArrayRef> = others
        .iter()
        .map(|column| Ok(take(rows.column(*column), &members, None)?))
        .collect::<Result<_>>()?;
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone()));
    let bytes = RowConverter::new(fields.collect())?.convert_columns(&columns)?;
    let mut order: Vec<u32> = (0..rows.num_rows() as u32).collect();
    let mut first = 0;
    for range in tied {
        let length = range.len();
        let mut own: Vec<usize> = (first..first + length).collect();
        own.sort_by(|left, right| bytes.row(*left).cmp(&bytes.row(*right)));
        for (place, member) in own.into_iter().enumerate() {
            order[range.start + place] = (range.start + member - first) as u32;
        }
        first += length;
    }
    Ok(take_record_batch(&rows, &UInt32Array::from(order))?)
}

/// The ranges of more than one row that agree in these columns.
fn tied(rows: &RecordBatch, keys: &[usize]) -> Result<Vec<Range<usize>>> {
    let count = rows.num_rows();
    if keys.is_empty() {
        return Ok(if count > 1 { std::iter::once(0..count).collect() } else { vec![] });
    }
    let columns: Vec<ArrayRef> = keys.iter().map(|column| rows.column(*column).clone()).collect();
    let groups = partition(&columns)?;
    if groups.len() == count {
        return Ok(Vec::new());
    }
    Ok(groups.ranges().into_iter().filter(|range| range.len() > 1).collect())
}
