//! Columns as a Postgres database declares them, and their values as COPY reads them.
//!
//! Every type is the target's own of the same name; a row type, which would have to be declared
//! there first, is jsonb.

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::Field;
use bytes::BytesMut;

use crate::connectors::sink::encode::text_of;
use crate::functions::scalar::json::JsonRows;
use crate::types::error::Result;
use crate::types::sql_type::{SqlType, type_text};

/// Whether the values are written as documents.
fn as_json(sql_type: &SqlType) -> bool {
    match sql_type {
        SqlType::Record(_) => true,
        SqlType::Array(item) => as_json(item),
        _ => false,
    }
}

/// The type of a column in CREATE TABLE.
pub fn declared_type(field: &Field, sql_type: &SqlType) -> String {
    match as_json(sql_type) {
        true => "jsonb".to_owned(),
        false => type_text(field).unwrap_or_else(|| sql_type.to_string()),
    }
}

/// Rows in COPY's text format, each with `last` as one more column.
///
/// # Errors
/// When a value cannot be written.
pub fn copy_text(rows: &RecordBatch, types: &[SqlType], last: Option<&str>) -> Result<BytesMut> {
    let schema = rows.schema();
    let columns = rows.columns().iter().zip(types).zip(schema.fields());
    let texts = columns.map(|((column, t), field)| match as_json(t) {
        true => documents(column, t, field),
        false => text_of(column, t),
    });
    let texts = texts.collect::<Result<Vec<StringArray>>>()?;
    let mut out = BytesMut::with_capacity(rows.num_rows() * (texts.len() + 1) * 8);
    for row in 0..rows.num_rows() {
        for (index, column) in texts.iter().enumerate() {
            out.extend_from_slice(if index > 0 { b"\t" } else { b"" });
            match column.is_null(row) {
                true => out.extend_from_slice(b"\\N"),
                false => write_escaped(column.value(row).as_bytes(), &mut out),
            }
        }
        if let Some(last) = last {
            out.extend_from_slice(if texts.is_empty() { b"" } else { b"\t" });
            out.extend_from_slice(last.as_bytes());
        }
        out.extend_from_slice(b"\n");
    }
    Ok(out)
}

fn write_escaped(text: &[u8], out: &mut BytesMut) {
    let mut start = 0;
    for (at, byte) in text.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            _ => continue,
        };
        out.extend_from_slice(&text[start..at]);
        out.extend_from_slice(escape);
        start = at + 1;
    }
    out.extend_from_slice(&text[start..]);
}

/// The values as JSON documents: those of a column of row types.
fn documents(column: &ArrayRef, sql_type: &SqlType, field: &Field) -> Result<StringArray> {
    let schema = arrow::datatypes::Schema::new(vec![field.clone()]);
    let rows = RecordBatch::try_new(schema.into(), vec![column.clone()])?;
    let rows = JsonRows::new(&rows, std::slice::from_ref(sql_type))?;
    let mut line = BytesMut::new();
    let mut texts = arrow::array::StringBuilder::new();
    for row in 0..column.len() {
        if column.is_null(row) {
            texts.append_null();
            continue;
        }
        line.clear();
        rows.write_value(row, 0, &mut line);
        texts.append_value(std::str::from_utf8(&line).expect("JSON is written from text"));
    }
    Ok(texts.finish())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BinaryArray, Int32Array};
    use arrow::datatypes::Schema;

    use super::*;

    #[test]
    fn values_stand_as_copy_reads_them() {
        let texts = StringArray::from(vec![Some("a\tb\\c\nd\re"), None, Some("")]);
        let numbers = Int32Array::from(vec![Some(1), Some(-2), None]);
        let bytes = BinaryArray::from(vec![Some(&b"\x00\xff"[..]), None, Some(b"")]);
        let types = [SqlType::Text, SqlType::Int4, SqlType::Bytea];
        let fields: Vec<Field> = types.iter().map(|t| t.to_field(&t.to_string(), true)).collect();
        let columns: Vec<ArrayRef> = vec![Arc::new(texts), Arc::new(numbers), Arc::new(bytes)];
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("fits");
        let text = copy_text(&rows, &types, Some("t")).expect("has text");
        // As COPY ... TO of PostgreSQL 15 prints the same values.
        assert_eq!(
            std::str::from_utf8(&text).expect("text"),
            "a\\tb\\\\c\\nd\\re\t1\t\\\\x00ff\tt\n\\N\t-2\t\\N\tt\n\t\\N\t\\\\x\tt\n"
        );
    }
}
