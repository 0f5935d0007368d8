//! The events of the Nexmark benchmark as Parquet files, for a comparison in which every system
//! reads the same bytes.
//!
//! `<directory>/<kind>/<split>.parquet`, two files of each kind. The generator's splits take runs
//! of events in turn, so the two files go through event time side by side, and a reader of both
//! sees hardly any disorder. Times are milliseconds, the finest that all peers read.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use crate::connectors::{Read, ReadRange, Source, SplitId, open_source};
use crate::types::error::{Error, Result, SqlState};

/// Files of each kind.
const FILES: usize = 2;
/// Rows that are made and written at a time.
const ROWS: usize = 8192;
/// The file that says for how many events the others are complete.
const COMPLETE: &str = "complete";

/// Writes the files of all three kinds, unless they are there for as many events.
///
/// # Errors
/// What the file system says.
pub fn write(directory: &Path, events: u64) -> Result<()> {
    let complete = directory.join(COMPLETE);
    if fs::read_to_string(&complete).is_ok_and(|text| text == events.to_string()) {
        return Ok(());
    }
    for kind in ["person", "auction", "bid"] {
        let options = [("table.type", kind), ("events.limit", &events.to_string())]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let splits = ("splits".to_owned(), FILES.to_string());
        let source = open_source("nexmark", &[options.to_vec(), vec![splits]].concat(), None)?;
        let folder = directory.join(kind);
        fs::create_dir_all(&folder)?;
        for (number, split) in source.splits()?.iter().enumerate() {
            write_split(source.as_ref(), split, &folder.join(format!("{number}.parquet")))?;
        }
    }
    Ok(fs::write(&complete, events.to_string())?)
}

fn write_split(source: &dyn Source, split: &SplitId, path: &Path) -> Result<()> {
    let schema = in_milliseconds(&source.schema());
    let columns = (0..schema.fields().len()).collect();
    let mut reader = source.open(split, ReadRange { columns, ..ReadRange::default() })?;
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = ArrowWriter::try_new(File::create(path)?, schema.clone(), Some(properties))
        .map_err(unwritable)?;
    loop {
        match reader.read(ROWS)? {
            Read::Rows(read) => {
                writer.write(&converted(&read.rows, &schema)?).map_err(unwritable)?
            }
            Read::Idle(_) => {}
            Read::End => break,
        }
    }
    writer.close().map_err(unwritable)?;
    Ok(())
}

fn in_milliseconds(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Timestamp(_, zone) => {
            let milliseconds = DataType::Timestamp(TimeUnit::Millisecond, zone.clone());
            Field::new(field.name(), milliseconds, field.is_nullable())
        }
        _ => Field::new(field.name(), field.data_type().clone(), field.is_nullable()),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn converted(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = rows.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| cast(column, field.data_type()));
    let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

fn unwritable(error: ParquetError) -> Error {
    Error::external(SqlState::IO_ERROR, error.to_string())
}

/// Declares a source of one kind of event over the files.
pub fn source_sql(kind: &str, directory: &Path) -> String {
    let path: PathBuf = directory.join(kind).join("*.parquet");
    let path = path.to_string_lossy().replace('\'', "''");
    format!("CREATE SOURCE {kind} WITH (connector = 'file', path = '{path}', format = 'parquet')")
}

#[cfg(test)]
mod tests {
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    fn rows_of(folder: &Path) -> usize {
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        files
            .map(|path| ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()))
            .map(|file| file.unwrap().metadata().file_metadata().num_rows() as usize)
            .sum()
    }

    #[test]
    fn files_hold_the_events_in_the_standard_proportions() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), 1_000).unwrap();
        let rows = ["person", "auction", "bid"].map(|kind| rows_of(&directory.path().join(kind)));
        assert_eq!(rows, [20, 60, 920]);
        // Another number of events is another set of files; the same is left alone.
        write(directory.path(), 500).unwrap();
        assert_eq!(rows_of(&directory.path().join("bid")), 460);
        fs::remove_dir_all(directory.path().join("bid")).unwrap();
        write(directory.path(), 500).unwrap();
        assert!(!directory.path().join("bid").exists());
    }
}
