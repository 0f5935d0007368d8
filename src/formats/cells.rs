//! One column's values as text, and the list of rows that turned out bad.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter;
use arrow::datatypes::{Field, SchemaRef};

use crate::formats::time_text::Bad;
use crate::types::error::Result;
use crate::types::sql_type::SqlType;

/// How much of a bad value a message shows.
const VALUE_SHOWN_CHARS_MAX: usize = 100;

/// Why rows are bad; the first reason of a row counts.
#[derive(Debug, Default)]
pub struct BadRows {
    messages: BTreeMap<u32, String>,
}

impl BadRows {
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub fn add(&mut self, row: u32, message: impl FnOnce() -> String) {
        self.messages.entry(row).or_insert_with(message);
    }

    /// The bad rows in order, with their messages.
    pub fn into_messages(self) -> impl Iterator<Item = (u32, String)> {
        self.messages.into_iter()
    }

    /// The rows that are not bad, of a batch of these columns.
    pub fn keep_good(
        &self,
        schema: &SchemaRef,
        mut columns: Vec<ArrayRef>,
        mut rows: usize,
    ) -> Result<RecordBatch> {
        if !self.is_empty() {
            let mut keep = vec![true; rows];
            for row in self.messages.keys() {
                keep[*row as usize] = false;
            }
            let keep = BooleanArray::from(keep);
            rows = keep.true_count();
            for column in &mut columns {
                *column = filter(column, &keep)?;
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
    }
}

/// Values of one column, or of one field or element within it. `None` is NULL.
#[derive(Clone, Copy)]
pub struct Cells<'a> {
    pub values: &'a [Option<&'a [u8]>],
    /// The row that each value belongs to; `None`: value i is row i's.
    pub rows: Option<&'a [u32]>,
    /// The column, for messages.
    pub column: &'a str,
}

impl Cells<'_> {
    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub fn row(&self, index: usize) -> u32 {
        self.rows.map_or(index as u32, |rows| rows[index])
    }

    /// Records that a value is not one of the field's type.
    pub fn bad_value(&self, bad: &mut BadRows, index: usize, field: &Field, why: Bad) {
        bad.add(self.row(index), || {
            let value = shown_value(self.values[index].unwrap_or_default());
            let type_name = SqlType::of_field(field)
                .map_or_else(|| field.data_type().to_string(), |t| t.to_string());
            let column = self.column;
            match why {
                Bad::Syntax => {
                    format!(
                        "column \"{column}\": invalid input syntax for type {type_name}: {value}"
                    )
                }
                Bad::Range => {
                    format!(
                        "column \"{column}\": value {value} is out of range for type {type_name}"
                    )
                }
            }
        });
    }
}

/// A value in quotes, cut where it is long.
fn shown_value(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    match text.char_indices().nth(VALUE_SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("\"{}...\"", &text[..end]),
        None => format!("\"{text}\""),
    }
}
