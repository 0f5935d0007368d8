//! Lists to rows; stateless.
//!
//! Each row becomes as many as its longest list has elements, with the same weight; shorter lists
//! are filled up with NULLs. A row without elements is left out, or kept once with NULLs where a
//! left join wants it. What comes out at a time is bounded: [`STEP_ROWS`] rows a batch.

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};

use crate::dataflow::operator::{Output, Stateless};
use crate::plan::node::{self, UnnestColumn};
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};

/// Rows of an output batch.
const STEP_ROWS: usize = 8192;

/// What becomes of each column.
#[derive(Clone, Debug)]
pub struct UnnestSpec {
    pub columns: Vec<UnnestColumn>,
    pub keeps_empty: bool,
    pub schema: SchemaRef,
}

impl From<&node::Unnest> for UnnestSpec {
    fn from(node: &node::Unnest) -> UnnestSpec {
        UnnestSpec {
            columns: node.columns.clone(),
            keeps_empty: node.keeps_empty,
            schema: node.schema.clone(),
        }
    }
}

/// The `unnest` operator.
pub struct Unnest {
    spec: UnnestSpec,
    /// The input columns that are lists to be taken apart, each once.
    lists: Vec<usize>,
}

/// The rows of an output batch.
#[derive(Default)]
struct Step {
    /// Input rows.
    rows: Vec<u32>,
    /// Which element of the row's lists.
    elements: Vec<i64>,
}

impl Unnest {
    /// # Errors
    /// For a column that is no list (SQLSTATE 0A000).
    pub fn new(spec: UnnestSpec, input: &SchemaRef) -> Result<Unnest> {
        let mut lists: Vec<usize> = Vec::new();
        for column in &spec.columns {
            let UnnestColumn::Elements(column) = column else { continue };
            let field = input.field(*column);
            if !matches!(field.data_type(), DataType::List(_)) {
                return Err(Error::unsupported(format!(
                    "unnest of {} in a maintained query",
                    field.data_type()
                )));
            }
            if !lists.contains(column) {
                lists.push(*column);
            }
        }
        Ok(Unnest { spec, lists })
    }

    fn emit(&self, batch: &ChangeBatch, step: &mut Step, out: &mut Output) -> Result<()> {
        let step = std::mem::take(step);
        if step.rows.is_empty() {
            return Ok(());
        }
        let rows = UInt32Array::from(step.rows);
        let columns = self.spec.columns.iter().map(|column| -> Result<ArrayRef> {
            match column {
                UnnestColumn::Whole(column) => Ok(take(batch.column(*column), &rows, None)?),
                UnnestColumn::Elements(column) => {
                    let list = batch.column(*column).as_list::<i32>();
                    let place = |(row, element): (&u32, &i64)| {
                        let row = *row as usize;
                        let there = list.is_valid(row) && *element < length(list, row);
                        there.then(|| i64::from(list.value_offsets()[row]) + element)
                    };
                    let places: Int64Array =
                        rows.values().iter().zip(&step.elements).map(place).collect();
                    Ok(take(list.values(), &places, None)?)
                }
            }
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let taken = RecordBatch::try_new_with_options(self.spec.schema.clone(), columns, &options)?;
        if batch.all_inserts() {
            out.emit(ChangeBatch::inserts(taken));
        } else {
            let weights = rows.values().iter().map(|row| batch.weight(*row as usize));
            out.emit(ChangeBatch::new(taken, weights.collect())?);
        }
        Ok(())
    }
}

/// Elements of a row's list.
fn length(list: &arrow::array::ListArray, row: usize) -> i64 {
    if list.is_valid(row) { i64::from(list.value_length(row)) } else { 0 }
}

impl Stateless for Unnest {
    fn name(&self) -> &'static str {
        "unnest"
    }

    fn on_batch(&mut self, batch: ChangeBatch, out: &mut Output) -> Result<()> {
        let lists: Vec<_> =
            self.lists.iter().map(|column| batch.column(*column).as_list::<i32>()).collect();
        let mut step = Step::default();
        for row in 0..batch.num_rows() {
            let longest = lists.iter().map(|list| length(list, row)).max().unwrap_or(0);
            let count = if longest == 0 && self.spec.keeps_empty { 1 } else { longest };
            for element in 0..count {
                step.rows.push(row as u32);
                step.elements.push(element);
                if step.rows.len() == STEP_ROWS {
                    self.emit(&batch, &mut step, out)?;
                }
            }
        }
        self.emit(&batch, &mut step, out)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int32Array;
    use arrow::datatypes::{Field, Int32Type, Schema};

    use super::*;
    use crate::dataflow::script::row_texts;

    type Lists = Vec<Option<Vec<Option<i32>>>>;

    /// Row numbers with lists.
    fn batch(lists: Lists, weights: Vec<i64>) -> ChangeBatch {
        let ids = Int32Array::from_iter_values(0..lists.len() as i32);
        let lists = arrow::array::ListArray::from_iter_primitive::<Int32Type, _, _>(lists);
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int32, false),
            Field::new("a", lists.data_type().clone(), true),
        ]));
        let rows = RecordBatch::try_new(schema, vec![Arc::new(ids), Arc::new(lists)]);
        ChangeBatch::new(rows.expect("two columns"), weights).expect("weights")
    }

    fn run(keeps_empty: bool, batch: ChangeBatch) -> Vec<ChangeBatch> {
        let spec = UnnestSpec {
            columns: vec![UnnestColumn::Elements(1), UnnestColumn::Whole(0)],
            keeps_empty,
            schema: Arc::new(Schema::new(vec![
                Field::new("v", DataType::Int32, true),
                Field::new("id", DataType::Int32, false),
            ])),
        };
        let mut unnest = Unnest::new(spec, &batch.schema()).expect("a list");
        let mut out = Output::default();
        unnest.on_batch(batch, &mut out).expect("unnests");
        out.take_batches()
    }

    fn lines(batches: Vec<ChangeBatch>) -> Vec<String> {
        let of = |batch: ChangeBatch| {
            let texts = row_texts(batch.rows());
            let weights = batch.weights_vec();
            texts.into_iter().zip(weights).map(|(text, w)| format!("{w:+} {text}"))
        };
        batches.into_iter().flat_map(of).collect()
    }

    #[test]
    fn each_element_is_a_row_of_its_rows_weight() {
        let lists: Lists =
            vec![Some(vec![Some(1), None, Some(3)]), None, Some(vec![]), Some(vec![Some(9)])];
        let input = batch(lists, vec![2, 1, 1, -1]);
        assert_eq!(lines(run(false, input.clone())), ["+2 1 0", "+2 . 0", "+2 3 0", "-1 9 3"]);
        let kept = ["+2 1 0", "+2 . 0", "+2 3 0", "+1 . 1", "+1 . 2", "-1 9 3"];
        assert_eq!(lines(run(true, input)), kept);
    }

    #[test]
    fn batches_are_bounded_however_long_a_list_is() {
        let long = Some((0..20_000).map(Some).collect());
        let batches = run(false, batch(vec![long], vec![1]));
        assert_eq!(batches.iter().map(ChangeBatch::num_rows).max(), Some(STEP_ROWS));
        assert_eq!(batches.iter().map(ChangeBatch::num_rows).sum::<usize>(), 20_000);
    }

    #[test]
    fn slices_of_lists_keep_their_elements() {
        let lists: Lists = vec![Some(vec![Some(1)]), Some(vec![Some(2), Some(3)]), None];
        let input = batch(lists, vec![1, 1, 1]).slice(1, 2);
        assert_eq!(lines(run(false, input)), ["+1 2 1", "+1 3 1"]);
    }
}
