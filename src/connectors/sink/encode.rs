//! Rows as the bytes of a file: JSON lines, csv and Parquet, compressed or not.
//!
//! Values are written as the shell shows them, in UTC; in JSON as `row_to_json` does. In csv a NULL
//! is an empty field and an empty text is `""`, as COPY has them. Parquet has the columns' own
//! types, but for intervals, which its writer does not have: these are text.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::{Bytes, BytesMut};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression as ParquetCompression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::functions::scalar::cast::{CastSettings, cast_array};
use crate::functions::scalar::json::JsonRows;
use crate::types::error::{Error, Result};
use crate::types::sql_type::SqlType;
use crate::types::text::zone::Zone;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    Ndjson,
    Csv { header: bool },
    Parquet,
}

/// How its bytes are packed. Parquet packs its own pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    None,
    Gzip,
    Zstd,
}

impl FileFormat {
    /// The end of a file's name.
    pub fn extension(self, packing: Packing) -> &'static str {
        match (self, packing) {
            (FileFormat::Parquet, _) => "parquet",
            (FileFormat::Ndjson, Packing::None) => "ndjson",
            (FileFormat::Ndjson, Packing::Gzip) => "ndjson.gz",
            (FileFormat::Ndjson, Packing::Zstd) => "ndjson.zst",
            (FileFormat::Csv { .. }, Packing::None) => "csv",
            (FileFormat::Csv { .. }, Packing::Gzip) => "csv.gz",
            (FileFormat::Csv { .. }, Packing::Zstd) => "csv.zst",
        }
    }
}

/// The settings of printing for others: nothing of a session.
fn settings() -> CastSettings {
    CastSettings { zone: Zone::UTC, now_us: 0 }
}

/// A column as text.
pub fn text_of(column: &ArrayRef, sql_type: &SqlType) -> Result<StringArray> {
    let text = cast_array(column, sql_type, &SqlType::Text, &settings())?;
    Ok(text.as_string::<i32>().clone())
}

/// A whole file with `rows`, all of one schema.
///
/// # Errors
/// When a value cannot be written.
pub fn encode(
    rows: &[RecordBatch],
    types: &[SqlType],
    format: FileFormat,
    packing: Packing,
) -> Result<Bytes> {
    let plain = match format {
        FileFormat::Parquet => return parquet(rows, types, packing),
        FileFormat::Ndjson => {
            let mut out = BytesMut::new();
            for batch in rows {
                let lines = JsonRows::new(batch, types)?;
                for row in 0..batch.num_rows() {
                    lines.write(row, &mut out);
                    out.extend_from_slice(b"\n");
                }
            }
            out
        }
        FileFormat::Csv { header } => csv(rows, types, header)?,
    };
    packed(plain.freeze(), packing)
}

/// Text, packed.
pub fn packed(plain: Bytes, packing: Packing) -> Result<Bytes> {
    Ok(match packing {
        Packing::None => plain,
        Packing::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&plain)?;
            encoder.finish()?.into()
        }
        Packing::Zstd => zstd::encode_all(plain.as_ref(), 3)?.into(),
    })
}

fn csv(rows: &[RecordBatch], types: &[SqlType], header: bool) -> Result<BytesMut> {
    let mut out = BytesMut::new();
    if let (true, Some(first)) = (header, rows.first()) {
        for (index, field) in first.schema().fields().iter().enumerate() {
            out.extend_from_slice(if index > 0 { b"," } else { b"" });
            write_csv_field(field.name(), &mut out);
        }
        out.extend_from_slice(b"\n");
    }
    for batch in rows {
        let texts = batch.columns().iter().zip(types).map(|(column, t)| text_of(column, t));
        let texts = texts.collect::<Result<Vec<_>>>()?;
        for row in 0..batch.num_rows() {
            for (index, column) in texts.iter().enumerate() {
                out.extend_from_slice(if index > 0 { b"," } else { b"" });
                if !arrow::array::Array::is_null(column, row) {
                    write_csv_field(column.value(row), &mut out);
                }
            }
            out.extend_from_slice(b"\n");
        }
    }
    Ok(out)
}

fn write_csv_field(text: &str, out: &mut BytesMut) {
    let quoted = text.is_empty() || text.contains([',', '"', '\n', '\r']);
    if !quoted {
        return out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(b"\"");
    for (index, part) in text.split('"').enumerate() {
        out.extend_from_slice(if index > 0 { b"\"\"" } else { b"" });
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(b"\"");
}

fn parquet(rows: &[RecordBatch], types: &[SqlType], packing: Packing) -> Result<Bytes> {
    let Some(first) = rows.first() else { return Ok(Bytes::new()) };
    let schema = parquet_schema(&first.schema());
    let failed =
        |error: parquet::errors::ParquetError| Error::internal(format!("Parquet: {error}"));
    let compression = match packing {
        Packing::None => ParquetCompression::UNCOMPRESSED,
        Packing::Gzip => ParquetCompression::GZIP(Default::default()),
        Packing::Zstd => {
            ParquetCompression::ZSTD(ZstdLevel::try_new(3).expect("zstd has a level 3"))
        }
    };
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut writer =
        ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties)).map_err(failed)?;
    for batch in rows {
        let columns = batch.columns().iter().zip(types).zip(schema.fields());
        let columns = columns.map(|((column, t), field)| match field.data_type() {
            data_type if data_type == column.data_type() => Ok(column.clone()),
            _ => text_of(column, t).map(|text| Arc::new(text) as ArrayRef),
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let batch = RecordBatch::try_new(schema.clone(), columns)?;
        writer.write(&batch).map_err(failed)?;
    }
    Ok(Bytes::from(writer.into_inner().map_err(failed)?))
}

/// The schema with text in the place of what Parquet's writer does not have.
fn parquet_schema(schema: &SchemaRef) -> SchemaRef {
    let field = |field: &Arc<Field>| match has_interval(field.data_type()) {
        true => Arc::new(Field::new(field.name(), DataType::Utf8, field.is_nullable())),
        false => field.clone(),
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

fn has_interval(data_type: &DataType) -> bool {
    match data_type {
        DataType::Interval(_) => true,
        DataType::List(item) => has_interval(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| has_interval(field.data_type())),
        _ => false,
    }
}
