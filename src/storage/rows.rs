//! Changes of rows as Arrow batches: the weights stand in a last column.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

use crate::types::change::{ChangeBatch, Weights};
use crate::types::error::{Error, Result};

/// Copies of a row that came (positive) or went (negative).
pub const WEIGHT_COLUMN: &str = "millstream_weight";

/// The rows with their weights as last column.
pub fn with_weights(changes: &ChangeBatch) -> Result<RecordBatch> {
    let schema = changes.schema();
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(WEIGHT_COLUMN, DataType::Int64, false)));
    let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
    let mut columns = changes.rows().columns().to_vec();
    columns.push(Arc::new(match changes.weights() {
        Weights::AllInserts => Int64Array::from(vec![1; changes.num_rows()]),
        Weights::Each(weights) => Int64Array::new(weights.clone(), None),
    }));
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// The opposite of [`with_weights`].
///
/// # Errors
/// When the last column is something else.
pub fn split_weights(rows: &RecordBatch) -> Result<ChangeBatch> {
    let weights = match rows.schema().fields().last() {
        Some(field) if field.name() == WEIGHT_COLUMN && *field.data_type() == DataType::Int64 => {
            rows.column(rows.num_columns() - 1).as_primitive::<Int64Type>()
        }
        _ => return Err(Error::internal("stored changes have no weights")),
    };
    if weights.null_count() > 0 {
        return Err(Error::internal("a stored weight is NULL"));
    }
    let weights = weights.values().to_vec();
    let columns: Vec<usize> = (0..rows.num_columns() - 1).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let schema = Arc::new(rows.schema().project(&columns)?);
    let columns = rows.columns()[..columns.len()].to_vec();
    ChangeBatch::new(RecordBatch::try_new_with_options(schema, columns, &options)?, weights)
}

/// A batch as an Arrow IPC stream.
pub fn to_stream(rows: &RecordBatch) -> Result<Vec<u8>> {
    let mut writer = StreamWriter::try_new(Vec::new(), &rows.schema())?;
    writer.write(rows)?;
    Ok(writer.into_inner()?)
}

/// The batches of an Arrow IPC stream.
pub fn from_stream(bytes: &[u8]) -> Result<Vec<RecordBatch>> {
    let reader = StreamReader::try_new(Cursor::new(bytes), None)?;
    Ok(reader.collect::<std::result::Result<_, _>>()?)
}
