//! The output of an epoch: -old, +new for each changed group whose row differs.
//!
//! Groups are taken some thousands at a time. Their rows as they were and as they are stand in one
//! buffer of words, so each call is evaluated once for both; a row is emitted when the group was
//! there and its value can be represented, unless old and new are equal.

use std::ops::Range;

use arrow::array::{
    Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, make_comparator,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::SortOptions;
use arrow::compute::kernels::cmp::not_distinct;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::Aggregate;
use crate::dataflow::operator::{Output, RowError};
use crate::functions::aggregate::{ChangedRows, Evaluated};
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};

/// Groups whose rows make one output batch, at most.
const GROUPS_PER_BATCH: usize = 4096;

/// Why a row is absent: the call that failed.
pub(super) struct Failure {
    pub(super) call: usize,
    pub(super) error: Error,
}

impl Aggregate {
    /// Emits what the epoch changed.
    pub(super) fn emit_changes(&mut self, out: &mut Output) -> Result<()> {
        let changed = self.table.dirty().len();
        for start in (0..changed).step_by(GROUPS_PER_BATCH) {
            let places = start..changed.min(start + GROUPS_PER_BATCH);
            let there = self.rows_there(places.clone())?;
            self.emit_groups(places, there, out)?;
        }
        Ok(())
    }

    /// Emits the rows of the groups that are dirty as they are, as if they had not been before.
    pub(super) fn emit_final(&mut self, out: &mut Output) -> Result<()> {
        let changed = self.table.dirty().len();
        for start in (0..changed).step_by(GROUPS_PER_BATCH) {
            let places = start..changed.min(start + GROUPS_PER_BATCH);
            let mut there = vec![false; 2 * places.len()];
            there[places.len()..].fill(true);
            self.emit_groups(places, there, out)?;
        }
        Ok(())
    }

    /// Emits the changes of the groups at these places of the table's dirty list.
    /// `there`: which of their rows as they were, then as they are, count.
    fn emit_groups(
        &self,
        places: Range<usize>,
        mut there: Vec<bool>,
        out: &mut Output,
    ) -> Result<()> {
        let words = self.table.changed_words(places.clone());
        let groups = &self.table.dirty()[places.clone()];
        let stride = self.table.stride();
        let rows = ChangedRows { groups, words: &words, stride, remembered_from: places.start };
        let evaluated = self
            .values
            .iter()
            .map(|value| value.evaluate(&rows, &self.layout.accumulators))
            .collect::<Result<Vec<_>>>()?;
        let failures = failures(&evaluated, &there);
        if let Some(failures) = &failures {
            self.report(failures, groups, out)?;
            for (row, failure) in failures.iter().enumerate() {
                there[row] &= failure.is_none();
            }
        }
        let columns: Vec<ArrayRef> = evaluated.into_iter().map(|e| e.values).collect();
        leave_out_equal(&columns, &mut there)?;
        self.emit_rows(&columns, groups, &there, out)
    }

    /// Whether each row is there: the groups' rows as they were, then as they are.
    fn rows_there(&self, places: Range<usize>) -> Result<Vec<bool>> {
        let count = places.len();
        if self.spec.keys.is_empty() {
            assert_eq!(count, 1, "without keys there is one group");
            return Ok(vec![self.global_emitted, true]);
        }
        let mut there = vec![false; 2 * count];
        for (index, place) in places.enumerate() {
            let (before, now) = self.table.counts(place)?;
            there[index] = before != 0;
            there[count + index] = now != 0;
        }
        Ok(there)
    }

    /// Emits the rows for which `keep` is set.
    fn emit_rows(
        &self,
        values: &[ArrayRef],
        groups: &[u32],
        keep: &[bool],
        out: &mut Output,
    ) -> Result<()> {
        let kept = || (0..keep.len()).filter(|row| keep[*row]);
        let kept_count = kept().count();
        if kept_count == 0 {
            return Ok(());
        }
        let ids: Vec<u32> = kept().map(|row| groups[row % groups.len()]).collect();
        let mut columns = self.table.keys(&ids)?;
        if kept_count == keep.len() {
            columns.extend_from_slice(values);
        } else {
            let keep = BooleanArray::new(BooleanBuffer::from(keep), None);
            for value in values {
                columns.push(arrow::compute::filter(value, &keep)?);
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(kept_count));
        let rows = RecordBatch::try_new_with_options(self.spec.schema.clone(), columns, &options)?;
        if kept().next().is_some_and(|row| row >= groups.len()) {
            out.emit(ChangeBatch::inserts(rows));
            return Ok(());
        }
        let weights = kept().map(|row| if row < groups.len() { -1 } else { 1 }).collect();
        out.emit(ChangeBatch::new(rows, weights)?);
        Ok(())
    }

    /// Reports rows that have become absent, and takes back reports of those that were.
    fn report(&self, failures: &[Option<Failure>], groups: &[u32], out: &mut Output) -> Result<()> {
        let (before, now) = failures.split_at(groups.len());
        let keys = self.table.keys(groups)?;
        for (index, (before, now)) in before.iter().zip(now).enumerate() {
            if let (Some(before), Some(now)) = (before, now)
                && before.call == now.call
                && before.error.message() == now.error.message()
            {
                continue;
            }
            for (failure, weight) in [(before, -1), (now, 1)] {
                let Some(Failure { call, error }) = failure else { continue };
                out.row_error(RowError {
                    error: error.clone(),
                    expression: self.spec.calls[*call].display.clone(),
                    row: row_text(&keys, index)?,
                    weight,
                });
            }
        }
        Ok(())
    }
}

/// The first failure of each row that is there; `None` when nothing failed.
pub(super) fn failures(evaluated: &[Evaluated], there: &[bool]) -> Option<Vec<Option<Failure>>> {
    if evaluated.iter().all(|e| e.failed.is_empty()) {
        return None;
    }
    let mut failures: Vec<Option<Failure>> = there.iter().map(|_| None).collect();
    for (call, evaluated) in evaluated.iter().enumerate() {
        for (row, error) in &evaluated.failed {
            if there[*row] && failures[*row].is_none() {
                failures[*row] = Some(Failure { call, error: error.clone() });
            }
        }
    }
    Some(failures)
}

/// Clears both flags of a group whose old and new row are there and equal.
fn leave_out_equal(columns: &[ArrayRef], there: &mut [bool]) -> Result<()> {
    let (before, now) = there.split_at_mut(there.len() / 2);
    let count = before.len();
    if !before.iter().zip(now.iter()).any(|(before, now)| *before && *now) {
        return Ok(());
    }
    let mut equal = vec![true; count];
    for column in columns {
        compare_halves(column, &mut equal)?;
    }
    for (index, equal) in equal.into_iter().enumerate() {
        let unchanged = equal && before[index] && now[index];
        before[index] &= !unchanged;
        now[index] &= !unchanged;
    }
    Ok(())
}

/// Clears the flag of each value that differs between the first and the second half.
fn compare_halves(column: &ArrayRef, equal: &mut [bool]) -> Result<()> {
    let count = equal.len();
    if column.data_type().is_nested() {
        let compare = make_comparator(column, column, SortOptions::default())?;
        for (index, equal) in equal.iter_mut().enumerate() {
            *equal = *equal && compare(index, count + index).is_eq();
        }
        return Ok(());
    }
    let same = not_distinct(&column.slice(0, count), &column.slice(count, count))?;
    for (equal, same) in equal.iter_mut().zip(same.values().iter()) {
        *equal &= same;
    }
    Ok(())
}

/// A group's key, as text.
pub(super) fn row_text(keys: &[ArrayRef], row: usize) -> Result<String> {
    let options = FormatOptions::new().with_null("NULL");
    let texts = keys
        .iter()
        .map(|key| Ok(ArrayFormatter::try_new(key, &options)?.value(row).to_string()))
        .collect::<Result<Vec<_>>>()?;
    Ok(format!("({})", texts.join(", ")))
}
