//! Sorted rows of one or many partitions in one batch, and which of them satisfy which condition.
//!
//! What depends on a row and rows at fixed distances from it only is computed here, for the whole
//! batch at once. Where that fails for some row, the batch is halved until the failing rows stand
//! alone: an error counts only when a partial match asks for that row.

use std::cell::OnceCell;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions,
    StringArray, UInt32Array,
};
use arrow::compute::{cast, concat, filter, prep_null_mask_filter, take};
use arrow::datatypes::{DataType, Int64Type, TimeUnit};

use crate::plan::event_time::is_time;
use crate::plan::match_recognize::{MatchSpec, Predicate, Read, RowValue};
use crate::types::error::{Error, ErrorKind, Result};

/// Where a partition's rows stand.
#[derive(Clone, Debug)]
pub struct PartitionRows {
    /// Its place in the batch.
    pub start: usize,
    pub end: usize,
    /// The number, in the partition, of the row at `start`.
    pub first_row: u64,
    /// No row comes behind the last one.
    pub complete: bool,
    /// What is found is told by places of rows: the row of this number ...
    pub shown_from: u64,
    /// ... has this place. Rows from it on are there, in the batch or to be fetched.
    pub shown_at: usize,
}

impl PartitionRows {
    /// A partition all of whose rows that anyone asks for are in the batch.
    pub fn new(start: usize, end: usize, first_row: u64, complete: bool) -> PartitionRows {
        PartitionRows { start, end, first_row, complete, shown_from: first_row, shown_at: start }
    }

    /// The place by which a row is told of.
    pub fn place(&self, row: u64) -> u32 {
        (self.shown_at as u64 + (row - self.shown_from)) as u32
    }

    /// The number of the row with this place.
    pub fn row_at(&self, place: u32) -> u64 {
        self.shown_from + (u64::from(place) - self.shown_at as u64)
    }

    /// The number of the row that stands there in the batch.
    pub fn number_of(&self, index: usize) -> u64 {
        self.first_row + (index - self.start) as u64
    }

    /// Behind the number of the last row.
    pub fn end_row(&self) -> u64 {
        self.first_row + (self.end - self.start) as u64
    }

    /// Where a row stands in the batch; `None`: there is no such row.
    pub fn index(&self, row: u64) -> Option<usize> {
        let index = self.start as u64 + row.checked_sub(self.first_row)?;
        (index < self.end as u64).then_some(index as usize)
    }

    /// The row at some distance from an index.
    pub fn shifted(&self, index: usize, shift: i64) -> Option<usize> {
        let index = i64::try_from(index).ok()?.checked_add(shift)?;
        let index = usize::try_from(index).ok()?;
        (self.start..self.end).contains(&index).then_some(index)
    }
}

/// Which rows satisfy a condition.
struct Near {
    holds: BooleanArray,
    /// Rows of which nobody can say, ascending.
    failed: Vec<(usize, Error)>,
}

/// Arguments of an aggregate.
pub struct Arguments {
    pub values: Vec<ArrayRef>,
    pub filter: Option<BooleanArray>,
}

/// Gives rows of a partition that are not in the batch, by their numbers.
pub type OldRows<'a> = Box<dyn Fn(usize, &[u64]) -> Result<RecordBatch> + 'a>;

/// Rows to be matched.
pub struct Rows<'a> {
    spec: &'a MatchSpec,
    /// `None`: all rows are in the batch.
    old: Option<OldRows<'a>>,
    pub batch: RecordBatch,
    pub partitions: Vec<PartitionRows>,
    /// One for each variable; `None`: every row.
    near: Vec<Option<Near>>,
    /// Of the column that WITHIN looks at, or else of the first that is sorted by, if it is a time.
    times_us: Option<Int64Array>,
    /// Of all rows, for each aggregate; the inner `None`: they cannot be computed for all.
    arguments: Vec<OnceCell<Option<Arguments>>>,
}

impl<'a> Rows<'a> {
    /// # Errors
    /// When the outside world failed.
    pub fn new(
        spec: &'a MatchSpec,
        batch: RecordBatch,
        partitions: Vec<PartitionRows>,
    ) -> Result<Rows<'a>> {
        let mut rows = Rows::shown(spec, batch, partitions);
        rows.times_us = Rows::times_of(spec, &rows.batch)?;
        for condition in &spec.conditions {
            let near = condition.as_ref().and_then(|condition| condition.near.as_ref());
            let near = near.map(|predicate| rows.evaluate_near(predicate)).transpose()?;
            rows.near.push(near);
        }
        Ok(rows)
    }

    /// The times of rows, if they are in the order of a time.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub fn times_of(spec: &MatchSpec, batch: &RecordBatch) -> Result<Option<Int64Array>> {
        let Some(column) = time_column(spec, batch) else { return Ok(None) };
        let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
        let column = batch.column(column);
        let column = match column.data_type() {
            DataType::Timestamp(TimeUnit::Microsecond, _) => column.clone(),
            _ => cast(column, &micros)?,
        };
        Ok(Some(cast(&column, &DataType::Int64)?.as_primitive().clone()))
    }

    /// Rows of matches that have been found, to be shown: nothing of conditions.
    pub fn shown(
        spec: &'a MatchSpec,
        batch: RecordBatch,
        partitions: Vec<PartitionRows>,
    ) -> Rows<'a> {
        Rows {
            spec,
            old: None,
            times_us: None,
            near: Vec::with_capacity(spec.conditions.len()),
            arguments: spec.aggregates.iter().map(|_| OnceCell::new()).collect(),
            batch,
            partitions,
        }
    }

    /// The same with rows that are not in the batch.
    #[must_use]
    pub fn with_old(mut self, old: OldRows<'a>) -> Rows<'a> {
        self.old = Some(old);
        self
    }

    /// Rows of a partition that are not in the batch.
    ///
    /// # Errors
    /// When nobody has them: our mistake.
    pub fn old_rows(&self, partition: usize, rows: &[u64]) -> Result<RecordBatch> {
        match &self.old {
            Some(old) => old(partition, rows),
            None => Err(Error::internal("a row of a partial match was forgotten")),
        }
    }

    /// The rows at some distance from each row.
    fn shifted_indices(&self, shift: i64) -> UInt32Array {
        let mut indices = Vec::with_capacity(self.batch.num_rows());
        for partition in &self.partitions {
            // Rows between partitions do not occur; the indices stay in step all the same.
            indices.resize(partition.start, None);
            let shifted = (partition.start..partition.end)
                .map(|index| partition.shifted(index, shift).map(|index| index as u32));
            indices.extend(shifted);
        }
        indices.resize(self.batch.num_rows(), None);
        UInt32Array::from(indices)
    }

    fn evaluate_near(&self, predicate: &Predicate) -> Result<Near> {
        let mut columns = Vec::with_capacity(predicate.reads.len());
        let mut indices: Vec<(i64, UInt32Array)> = Vec::new();
        for read in &predicate.reads {
            let Read::Row(row) = &self.spec.reads[*read] else {
                return Err(Error::internal("a near condition reads rows only"));
            };
            let RowValue::Column(column) = row.value else {
                return Err(Error::internal("a near condition reads columns only"));
            };
            let column = self.batch.column(column);
            if row.shift == 0 {
                columns.push(column.clone());
                continue;
            }
            let place = match indices.iter().position(|(shift, _)| *shift == row.shift) {
                Some(place) => place,
                None => {
                    indices.push((row.shift, self.shifted_indices(row.shift)));
                    indices.len() - 1
                }
            };
            columns.push(take(column, &indices[place].1, None)?);
        }
        let input = batch_of(predicate, columns, self.batch.num_rows())?;
        let (mut parts, mut failed) = (Vec::new(), Vec::new());
        evaluate_parts(predicate, &input, 0, &mut parts, &mut failed)?;
        let holds = match parts.as_slice() {
            [whole] => whole.clone(),
            parts => {
                let parts: Vec<&dyn Array> = parts.iter().map(|p| p as &dyn Array).collect();
                if parts.is_empty() {
                    BooleanArray::from(Vec::<bool>::new())
                } else {
                    concat(&parts)?.as_boolean().clone()
                }
            }
        };
        Ok(Near { holds, failed })
    }

    /// Whether what is near lets the row be mapped to the variable.
    ///
    /// # Errors
    /// When the condition fails for this row.
    pub fn holds(&self, variable: usize, index: usize) -> Result<bool> {
        let Some(near) = &self.near[variable] else { return Ok(true) };
        if !near.failed.is_empty()
            && let Ok(place) = near.failed.binary_search_by_key(&index, |(row, _)| *row)
        {
            return Err(near.failed[place].1.clone());
        }
        Ok(near.holds.value(index))
    }

    /// Whether the row surely cannot be mapped to the variable.
    pub fn excludes(&self, variable: usize, index: usize) -> bool {
        self.near[variable]
            .as_ref()
            .is_some_and(|near| near.failed.is_empty() && !near.holds.value(index))
    }

    /// The row's time, if it has one.
    pub fn time_us(&self, index: usize) -> Option<i64> {
        let times = self.times_us.as_ref()?;
        times.is_valid(index).then(|| times.value(index))
    }

    /// The arguments of rows for an aggregate.
    ///
    /// # Errors
    /// When one of them cannot be computed.
    pub fn arguments(
        &self,
        aggregate: usize,
        indices: &[u32],
        labels: &[usize],
        number: impl Fn(usize) -> i64,
    ) -> Result<Arguments> {
        let function = &self.spec.aggregates[aggregate];
        let taken = UInt32Array::from(indices.to_vec());
        if !function.reads_match {
            let all = self.arguments[aggregate].get_or_init(|| self.all_arguments(aggregate).ok());
            if let Some(all) = all {
                let values = all.values.iter().map(|v| Ok(take(v, &taken, None)?));
                let filter = all.filter.as_ref().map(|f| -> Result<BooleanArray> {
                    Ok(take(f, &taken, None)?.as_boolean().clone())
                });
                return Ok(Arguments {
                    values: values.collect::<Result<_>>()?,
                    filter: filter.transpose()?,
                });
            }
        }
        let columns = self
            .batch
            .columns()
            .iter()
            .map(|column| Ok(take(column, &taken, None)?))
            .collect::<Result<Vec<_>>>()?;
        self.arguments_of(aggregate, columns, labels, number)
    }

    /// The arguments of rows with these columns.
    ///
    /// # Errors
    /// When one of them cannot be computed.
    pub fn arguments_of(
        &self,
        aggregate: usize,
        mut columns: Vec<ArrayRef>,
        labels: &[usize],
        number: impl Fn(usize) -> i64,
    ) -> Result<Arguments> {
        let names = labels.iter().map(|label| self.spec.variables[*label].as_str());
        columns.push(Arc::new(StringArray::from_iter_values(names)));
        let numbers = Int64Array::from_iter_values((0..labels.len()).map(number));
        columns.push(Arc::new(numbers));
        let schema = self.spec.aggregates_schema.clone();
        self.evaluate_arguments(aggregate, &RecordBatch::try_new(schema, columns)?)
    }

    fn all_arguments(&self, aggregate: usize) -> Result<Arguments> {
        let count = self.batch.num_rows();
        let mut columns = self.batch.columns().to_vec();
        columns.push(arrow::array::new_null_array(&DataType::Utf8, count));
        columns.push(arrow::array::new_null_array(&DataType::Int64, count));
        let schema = self.spec.aggregates_schema.clone();
        self.evaluate_arguments(aggregate, &RecordBatch::try_new(schema, columns)?)
    }

    fn evaluate_arguments(&self, aggregate: usize, rows: &RecordBatch) -> Result<Arguments> {
        let function = &self.spec.aggregates[aggregate];
        let filter = function.filter(rows)?.map(|filter| {
            let filter = filter.as_boolean();
            match filter.null_count() {
                0 => filter.clone(),
                _ => prep_null_mask_filter(filter),
            }
        });
        Ok(Arguments { values: function.arguments(rows)?, filter })
    }
}

impl Arguments {
    /// Those that the filter lets through.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub fn filtered(self) -> Result<Vec<ArrayRef>> {
        let Some(condition) = &self.filter else { return Ok(self.values) };
        self.values.iter().map(|values| Ok(filter(values, condition)?)).collect()
    }
}

/// The column of the rows' times.
fn time_column(spec: &MatchSpec, batch: &RecordBatch) -> Option<usize> {
    let first = || {
        let column = spec.order_by.first()?.column;
        is_time(batch.column(column).data_type()).then_some(column)
    };
    spec.within.map(|within| within.column).or_else(first)
}

/// The columns that a predicate reads.
pub fn batch_of(predicate: &Predicate, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(predicate.schema.clone(), columns, &options)?)
}

/// `first` is the number of the part's first row.
fn evaluate_parts(
    predicate: &Predicate,
    part: &RecordBatch,
    first: usize,
    parts: &mut Vec<BooleanArray>,
    failed: &mut Vec<(usize, Error)>,
) -> Result<()> {
    let length = part.num_rows();
    if length == 0 {
        return Ok(());
    }
    match predicate.expr.evaluate_condition(part) {
        Ok(holds) => parts.push(holds),
        Err(error) if error.kind() == ErrorKind::External => return Err(error),
        Err(error) if length == 1 => {
            failed.push((first, error));
            parts.push(BooleanArray::from(vec![false]));
        }
        Err(_) => {
            let half = length / 2;
            evaluate_parts(predicate, &part.slice(0, half), first, parts, failed)?;
            let rest = part.slice(half, length - half);
            evaluate_parts(predicate, &rest, first + half, parts, failed)?;
        }
    }
    Ok(())
}

/// The numbers of an array of bigint.
pub fn integers(array: &ArrayRef) -> &Int64Array {
    array.as_primitive::<Int64Type>()
}
