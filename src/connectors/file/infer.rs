//! The columns of files whose columns are not declared.
//!
//! Parquet files have them. Of text files the first records of the first file are looked at: a
//! column gets the first type of a list that every value in it has, and text otherwise. A later
//! record that does not fit is malformed, and told; declared columns are the better choice.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{Field, Schema, SchemaRef};

use crate::connectors::file::input::{Fill, Input, cut_off};
use crate::connectors::file::text::BYTE_ORDER_MARK;
use crate::connectors::file::{Format, Settings, parquet};
use crate::formats::Decoder;
use crate::formats::csv::{CsvDecoder, read_header};
use crate::formats::json::Scanner;
use crate::formats::text;
use crate::formats::time_text;
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::SqlType;

/// How much of the first file is looked at.
const SAMPLE_RECORDS: usize = 1_000;
const SAMPLE_BYTES: usize = 1 << 20;

/// The columns of the first file there is.
pub fn infer_schema(settings: &Settings) -> Result<SchemaRef> {
    let files = settings.list()?;
    let Some(path) = files.first() else {
        return Err(no_columns(&settings.path, "There is no such file yet."));
    };
    let fields = match settings.format {
        Format::Parquet => parquet_fields(path)?,
        Format::Csv => csv_fields(settings, path)?,
        Format::Ndjson => ndjson_fields(settings, path)?,
    };
    if fields.is_empty() {
        return Err(no_columns(path, "The file is empty."));
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn no_columns(path: &str, detail: &str) -> Error {
    Error::external(
        SqlState::INVALID_TABLE_DEFINITION,
        format!("the columns of \"{path}\" cannot be found out"),
    )
    .detail(detail)
    .hint("Declare the columns of the source.")
}

fn parquet_fields(path: &str) -> Result<Vec<Field>> {
    let builder = parquet::open_builder(path)?;
    builder
        .schema()
        .fields()
        .iter()
        .map(|field| match SqlType::of_field(field) {
            Some(sql_type) => Ok(sql_type.to_field(field.name(), true)),
            None => Err(Error::unsupported(format!(
                "column \"{}\" of type {}",
                field.name(),
                field.data_type()
            ))
            .hint("Declare the columns that you need.")),
        })
        .collect()
}

/// The first bytes of a file, and whether they are all.
fn sample(settings: &Settings, path: &str) -> Result<(Vec<u8>, bool)> {
    let mut input = Input::open(settings, path)?;
    let mut bytes = Vec::new();
    let mut at_end = false;
    while bytes.len() < SAMPLE_BYTES && !at_end {
        let room = SAMPLE_BYTES - bytes.len();
        match input.read(&mut bytes, room)? {
            Fill::Bytes => {}
            Fill::End => at_end = true,
            Fill::CutOff => return Err(cut_off(path)),
        }
    }
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    Ok((bytes, at_end))
}

fn csv_fields(settings: &Settings, path: &str) -> Result<Vec<Field>> {
    let (bytes, at_end) = sample(settings, path)?;
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let Some(header) = read_header(&settings.csv, &bytes, at_end) else {
        return Err(no_columns(path, "Its first record is too long."));
    };
    let (names, records) = if settings.csv_header {
        (header.names, &bytes[header.bytes..])
    } else {
        ((1..=header.names.len()).map(|n| format!("column{n}")).collect(), bytes.as_slice())
    };
    let schema = texts(&names);
    let sources = (0..names.len()).map(Some).collect();
    let mut decoder = CsvDecoder::new(settings.csv.clone(), schema, sources, names.len());
    let rows = decoder.decode(records, at_end, SAMPLE_RECORDS)?.rows;
    let fields = names.iter().zip(rows.columns()).map(|(name, column)| {
        let values = column.as_string::<i32>().iter().flatten();
        type_of_texts(values).to_field(name, true)
    });
    Ok(fields.collect())
}

fn texts(names: &[String]) -> SchemaRef {
    let fields: Vec<Field> = names.iter().map(|name| SqlType::Text.to_field(name, true)).collect();
    Arc::new(Schema::new(fields))
}

/// The first type of the list that all these values have.
fn type_of_texts<'a>(values: impl Iterator<Item = &'a str>) -> SqlType {
    let mut candidates =
        vec![SqlType::Int8, SqlType::Float8, SqlType::Boolean, SqlType::Date, SqlType::Timestamp];
    let mut found = 0;
    let mut zones = 0;
    for value in values {
        found += 1;
        zones += usize::from(time_text::has_zone(value.as_bytes()));
        candidates.retain(|candidate| is_of_type(candidate, value));
        if candidates.is_empty() {
            return SqlType::Text;
        }
    }
    match candidates.first() {
        Some(SqlType::Timestamp) if zones == found => SqlType::Timestamptz,
        Some(candidate) if found > 0 => candidate.clone(),
        _ => SqlType::Text,
    }
}

fn is_of_type(sql_type: &SqlType, value: &str) -> bool {
    let digits = value.trim_start_matches(['-', '+']);
    match sql_type {
        // Numbers with leading zeros are codes, and would lose them.
        SqlType::Int8 | SqlType::Float8
            if digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.") =>
        {
            false
        }
        SqlType::Float8 => {
            digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') && parses(sql_type, value)
        }
        SqlType::Boolean => ["true", "false"].iter().any(|word| value.eq_ignore_ascii_case(word)),
        // Eight digits in a row are rather a number; a timestamp is no date.
        SqlType::Date => value.len() == 10 && parses(sql_type, value),
        SqlType::Timestamp => value.len() > 10 && parses(sql_type, value),
        _ => parses(sql_type, value),
    }
}

fn parses(sql_type: &SqlType, value: &str) -> bool {
    let field = sql_type.to_field("value", true);
    matches!(text::single(&field, value), Ok(Ok(_)))
}

/// A column and the kinds of values that its key has.
#[derive(Default)]
struct Seen {
    name: String,
    integers: bool,
    numbers: bool,
    booleans: bool,
    /// Arrays and objects.
    nested: bool,
    strings: Vec<String>,
}

fn ndjson_fields(settings: &Settings, path: &str) -> Result<Vec<Field>> {
    let (bytes, at_end) = sample(settings, path)?;
    let mut seen: Vec<Seen> = Vec::new();
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    if !at_end {
        // The last line is not whole.
        lines.pop();
    }
    for line in lines.into_iter().take(SAMPLE_RECORDS) {
        // Lines that are not JSON will be malformed; they tell nothing here.
        let mut members = Vec::new();
        let scanned = Scanner::new(line).object(|key, value| {
            members.push((key, value));
            Ok(())
        });
        if scanned.is_err() {
            continue;
        }
        for (key, value) in members {
            let name = String::from_utf8_lossy(&key.text()).into_owned();
            let place = seen.iter().position(|column| column.name == name);
            let place = place.unwrap_or_else(|| {
                seen.push(Seen { name, ..Seen::default() });
                seen.len() - 1
            });
            see(&mut seen[place], value);
        }
    }
    Ok(seen.iter().map(|column| type_of_seen(column).to_field(&column.name, true)).collect())
}

fn see(column: &mut Seen, value: &[u8]) {
    match value {
        b"null" => {}
        b"true" | b"false" => column.booleans = true,
        [b'{' | b'[', ..] => column.nested = true,
        [b'"', inner @ .., b'"'] => {
            column.strings.push(String::from_utf8_lossy(inner).into_owned());
        }
        number if number.iter().any(|b| matches!(b, b'.' | b'e' | b'E')) => column.numbers = true,
        _ => column.integers = true,
    }
}

fn type_of_seen(column: &Seen) -> SqlType {
    let strings = !column.strings.is_empty();
    match (column.nested, column.booleans, column.integers, column.numbers, strings) {
        (true, false, false, false, false) => SqlType::Jsonb,
        (false, true, false, false, false) => SqlType::Boolean,
        (false, false, true, false, false) => SqlType::Int8,
        (false, false, _, true, false) => SqlType::Float8,
        // Of strings only times are anything else: "5" is in quotes for a reason.
        (false, false, false, false, true) => {
            match type_of_texts(column.strings.iter().map(String::as_str)) {
                time @ (SqlType::Date | SqlType::Timestamp | SqlType::Timestamptz) => time,
                _ => SqlType::Text,
            }
        }
        (false, false, false, false, false) => SqlType::Text,
        // Values of several kinds keep their JSON.
        _ => SqlType::Jsonb,
    }
}
