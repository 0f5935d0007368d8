//! Parquet files, with the columns that are asked for and from any row on.
//!
//! Row groups that are not asked for are not read. Values are cast to the declared types; a row
//! with a value that does not fit is malformed. An offset is a number of rows.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use crate::connectors::file::{Settings, check_columns, file_error, match_columns, may_be_growing};
use crate::connectors::{MalformedRecord, Offset, Read, ReadRange, SourceRows, SplitReader};
use crate::formats::cells::BadRows;
use crate::formats::text::not_null_message;
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::SqlType;

/// Rows decoded at a time.
const BATCH_ROWS_MAX: usize = 65_536;
/// How long to wait for a file that is still being written.
const WAIT_FOR_WRITER: Duration = Duration::from_secs(1);

/// Reads one parquet file.
pub struct ParquetReader {
    settings: Arc<Settings>,
    path: String,
    declared: SchemaRef,
    /// The columns to make.
    schema: SchemaRef,
    columns: Vec<usize>,
    /// Rows before the next one.
    row: u64,
    until: Option<u64>,
    /// `None`: not opened yet.
    open: Option<OpenFile>,
}

struct OpenFile {
    reader: ParquetRecordBatchReader,
    /// For each column to make, its place in the reader's batches.
    sources: Vec<Option<usize>>,
    /// Decoded, not given out yet.
    rest: Option<RecordBatch>,
}

/// The reader's builder of a file, or why it cannot be read.
pub fn open_builder(path: &str) -> Result<ParquetRecordBatchReaderBuilder<File>> {
    let file = File::open(path).map_err(|error| file_error("open", path, &error))?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| parquet_error(path, &error))
}

fn parquet_error(path: &str, error: &dyn std::fmt::Display) -> Error {
    Error::external(SqlState::DATA_CORRUPTED, format!("could not read parquet file \"{path}\""))
        .detail(error.to_string())
}

impl ParquetReader {
    pub fn new(
        settings: Arc<Settings>,
        path: String,
        declared: SchemaRef,
        range: ReadRange,
    ) -> Result<ParquetReader> {
        let rows = |offset: &Offset| -> Result<u64> {
            offset.0.parse().map_err(|_| {
                Error::internal(format!("{:?} is not an offset of a parquet file", offset.0))
            })
        };
        Ok(ParquetReader {
            settings,
            path,
            schema: Arc::new(declared.project(&range.columns)?),
            declared,
            row: range.from.as_ref().map(rows).transpose()?.unwrap_or(0),
            until: range.until.as_ref().map(rows).transpose()?,
            columns: range.columns,
            open: None,
        })
    }

    fn open_file(&self) -> Result<OpenFile> {
        let builder = open_builder(&self.path)?;
        let names: Vec<String> =
            builder.schema().fields().iter().map(|field| field.name().clone()).collect();
        let matched = match_columns(&self.declared, &names);
        check_columns(&self.path, &self.declared, &names, &matched)?;
        self.check_types(builder.schema(), &matched)?;
        let wanted: Vec<Option<usize>> =
            self.columns.iter().map(|column| matched[*column]).collect();
        // The reader gives the columns in the file's order, each once.
        let mut roots: Vec<usize> = wanted.iter().copied().flatten().collect();
        roots.sort_unstable();
        roots.dedup();
        let sources = wanted
            .iter()
            .map(|root| root.and_then(|root| roots.binary_search(&root).ok()))
            .collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        let (groups, skipped) = row_groups(
            builder.metadata().row_groups().iter().map(|g| g.num_rows().max(0) as u64),
            self.row,
        );
        let limit = self.until.map(|until| (until - self.row) as usize);
        let mut builder = builder
            .with_projection(mask)
            .with_row_groups(groups)
            .with_offset(skipped as usize)
            .with_batch_size(BATCH_ROWS_MAX);
        if let Some(limit) = limit {
            builder = builder.with_limit(limit);
        }
        let reader = builder.build().map_err(|error| parquet_error(&self.path, &error))?;
        Ok(OpenFile { reader, sources, rest: None })
    }

    /// # Errors
    /// When a column of the file can never be cast to the declared type.
    fn check_types(&self, found: &Schema, matched: &[Option<usize>]) -> Result<()> {
        for (field, source) in self.declared.fields().iter().zip(matched) {
            let Some(source) = source else { continue };
            let found = found.field(*source);
            if !can_cast_types(found.data_type(), field.data_type()) {
                let name = |field: &arrow::datatypes::Field| {
                    SqlType::of_field(field)
                        .map_or_else(|| field.data_type().to_string(), |t| t.to_string())
                };
                return Err(Error::user(
                    SqlState::DATATYPE_MISMATCH,
                    format!(
                        "column \"{}\" is declared as {}, but it is {} in file \"{}\"",
                        field.name(),
                        name(field),
                        name(found),
                        self.path
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The columns to make, and the rows with values that do not fit.
    fn cast(&self, batch: &RecordBatch, sources: &[Option<usize>]) -> Result<SourceRows> {
        let mut bad = BadRows::default();
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(sources.len());
        for (field, source) in self.schema.fields().iter().zip(sources) {
            let Some(source) = source else {
                arrays.push(new_null_array(field.data_type(), batch.num_rows()));
                continue;
            };
            let found = batch.column(*source);
            let options = CastOptions { safe: true, ..CastOptions::default() };
            let array = cast_with_options(found, field.data_type(), &options)?;
            if array.null_count() != found.logical_null_count() {
                for row in (0..array.len()).filter(|row| array.is_null(*row)) {
                    if !found.is_null(row) {
                        bad.add(row as u32, || misfit(field, found, row));
                    }
                }
            }
            if !field.is_nullable() && array.null_count() > 0 {
                for row in (0..array.len()).filter(|row| array.is_null(*row)) {
                    bad.add(row as u32, || not_null_message(field.name()));
                }
            }
            arrays.push(array);
        }
        let rows = bad.keep_good(&self.schema, arrays, batch.num_rows())?;
        let malformed = bad
            .into_messages()
            .map(|(row, message)| MalformedRecord {
                place: format!("{} row {}", self.path, self.row + u64::from(row) + 1),
                record: row_text(batch, row as usize),
                message,
            })
            .collect();
        let behind = self.row + batch.num_rows() as u64;
        Ok(SourceRows { rows, offset: Offset(behind.to_string()), malformed })
    }

    fn at_until(&self) -> bool {
        self.until.is_some_and(|until| self.row >= until)
    }
}

/// The row groups that hold rows from `first` on, and how many rows of them stand before it.
fn row_groups(sizes: impl Iterator<Item = u64>, first: u64) -> (Vec<usize>, u64) {
    let mut begin = 0;
    let mut chosen = Vec::new();
    let mut skipped = 0;
    for (group, rows) in sizes.enumerate() {
        if rows > 0 && begin + rows > first {
            if chosen.is_empty() {
                skipped = first.saturating_sub(begin);
            }
            chosen.push(group);
        }
        begin += rows;
    }
    (chosen, skipped)
}

fn misfit(field: &arrow::datatypes::Field, found: &ArrayRef, row: usize) -> String {
    let type_name =
        SqlType::of_field(field).map_or_else(|| field.data_type().to_string(), |t| t.to_string());
    let value = value_text(found, row);
    format!("column \"{}\": value {value} does not fit type {type_name}", field.name())
}

fn value_text(array: &ArrayRef, row: usize) -> String {
    let options = FormatOptions::default().with_null("NULL");
    match ArrayFormatter::try_new(array.as_ref(), &options) {
        Ok(formatter) => formatter.value(row).try_to_string().unwrap_or_default(),
        Err(_) => String::new(),
    }
}

/// The values that were read of a row, cut to 1,000 bytes.
fn row_text(batch: &RecordBatch, row: usize) -> String {
    let values: Vec<String> = batch.columns().iter().map(|array| value_text(array, row)).collect();
    let mut text = values.join(",");
    text.truncate(text.floor_char_boundary(1_000));
    text
}

impl SplitReader for ParquetReader {
    fn read(&mut self, rows_max: usize) -> Result<Read> {
        if self.at_until() {
            return Ok(Read::End);
        }
        let mut file = match self.open.take() {
            Some(file) => file,
            None => match self.open_file() {
                Ok(file) => file,
                // A parquet file is complete only when its footer is there.
                Err(error)
                    if self.settings.follow
                        && error.sqlstate() == SqlState::DATA_CORRUPTED
                        && may_be_growing(&self.path) =>
                {
                    return Ok(Read::Idle(WAIT_FOR_WRITER));
                }
                Err(error) => return Err(error),
            },
        };
        let batch = match file.rest.take() {
            Some(batch) => batch,
            None => match file.reader.next() {
                Some(batch) => batch.map_err(|error| parquet_error(&self.path, &error))?,
                None => {
                    self.open = Some(file);
                    return Ok(Read::End);
                }
            },
        };
        let taken = batch.num_rows().min(rows_max.max(1));
        if taken < batch.num_rows() {
            file.rest = Some(batch.slice(taken, batch.num_rows() - taken));
        }
        let told = self.cast(&batch.slice(0, taken), &file.sources)?;
        self.row += taken as u64;
        self.open = Some(file);
        Ok(Read::Rows(told))
    }
}

#[cfg(test)]
mod tests {
    use super::row_groups;

    #[test]
    fn only_row_groups_with_wanted_rows_are_read() {
        let sizes = [10, 0, 5, 20];
        let from = |first| row_groups(sizes.into_iter(), first);
        assert_eq!(from(0), (vec![0, 2, 3], 0));
        assert_eq!(from(9), (vec![0, 2, 3], 9));
        assert_eq!(from(10), (vec![2, 3], 0));
        assert_eq!(from(14), (vec![2, 3], 4));
        assert_eq!(from(15), (vec![3], 0));
        assert_eq!(from(35), (vec![], 0));
    }
}
