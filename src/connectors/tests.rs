//! What every connector promises, and the tools of the connectors' own tests.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::types::sql_type::SqlType;

/// `a=1 b='two words'` as option pairs.
pub fn pairs(text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').expect("name=value");
        let (value, after) = match after.strip_prefix('\'') {
            Some(quoted) => quoted.split_once('\'').expect("a closing quote"),
            None => after.split_once(char::is_whitespace).unwrap_or((after, "")),
        };
        pairs.push((name.trim().to_owned(), value.to_owned()));
        rest = after.trim_start();
    }
    pairs
}

fn sql_type(name: &str) -> SqlType {
    if let Some(item) = name.strip_suffix("[]")
        && !name.starts_with("row(")
    {
        return SqlType::Array(Box::new(sql_type(item)));
    }
    if let Some(inner) = name.strip_prefix("numeric(") {
        let (p, s) = inner.trim_end_matches(')').split_once('.').expect("numeric(p.s)");
        return SqlType::Numeric(p.parse().expect("digits"), s.parse().expect("digits"));
    }
    if let Some(inner) = name.strip_prefix("row(") {
        let fields = inner.trim_end_matches(')').split(';').map(|field| {
            let (name, t) = field.split_once(':').expect("name:type");
            (name.to_owned(), sql_type(t))
        });
        return SqlType::Record(fields.collect());
    }
    match name {
        "boolean" => SqlType::Boolean,
        "smallint" => SqlType::Int2,
        "integer" => SqlType::Int4,
        "bigint" => SqlType::Int8,
        "real" => SqlType::Float4,
        "float" => SqlType::Float8,
        "text" => SqlType::Text,
        "bytea" => SqlType::Bytea,
        "date" => SqlType::Date,
        "time" => SqlType::Time,
        "timestamp" => SqlType::Timestamp,
        "timestamptz" => SqlType::Timestamptz,
        "interval" => SqlType::Interval,
        "uuid" => SqlType::Uuid,
        "json" => SqlType::Json,
        "jsonb" => SqlType::Jsonb,
        other => panic!("the tests know no type {other}"),
    }
}

/// `a bigint, b text not null` as columns; row types are `row(x:bigint;y:text)`.
pub fn columns(text: &str) -> SchemaRef {
    let fields: Vec<Field> = text
        .split(',')
        .map(|column| {
            let (name, rest) = column.trim().split_once(' ').expect("name type");
            let nullable = !rest.ends_with(" not null");
            sql_type(rest.trim_end_matches(" not null")).to_field(name, nullable)
        })
        .collect();
    Arc::new(Schema::new(fields))
}

/// A source from its connector, options and columns (`""`: none are declared).
pub fn source(connector: &str, options: &str, declared: &str) -> Result<Arc<dyn Source>> {
    let declared = (!declared.is_empty()).then(|| columns(declared));
    open_source(connector, &pairs(options), declared)
}

/// Rows as text: one line each, values between bars, NULL as `-`.
pub fn lines(rows: &RecordBatch) -> String {
    let options = FormatOptions::default().with_null("-");
    let formatters: Vec<ArrayFormatter> = rows
        .columns()
        .iter()
        .map(|array| ArrayFormatter::try_new(array.as_ref(), &options).expect("printable"))
        .collect();
    let mut text = String::new();
    for row in 0..rows.num_rows() {
        let values: Vec<String> = formatters.iter().map(|f| f.value(row).to_string()).collect();
        text.push_str(&values.join("|"));
        text.push('\n');
    }
    text
}

/// Everything that reading a range of a split gives.
pub struct Reading {
    pub rows: RecordBatch,
    pub malformed: Vec<MalformedRecord>,
    /// After each batch: the offset, and how many rows and malformed records came before it.
    pub marks: Vec<(Offset, usize, usize)>,
}

/// Reads to the end; each batch has at most as many rows as `rows_max` says.
pub fn read_range(
    source: &dyn Source,
    split: &SplitId,
    range: ReadRange,
    mut rows_max: impl FnMut() -> usize,
) -> Result<Reading> {
    let schema = Arc::new(source.schema().project(&range.columns)?);
    let mut reader = source.open(split, range)?;
    let mut batches = Vec::new();
    let (mut rows, mut malformed, mut marks) = (0, Vec::new(), Vec::new());
    loop {
        let wanted = rows_max();
        match reader.read(wanted)? {
            Read::Rows(told) => {
                assert!(told.rows.num_rows() <= wanted, "more rows than asked for");
                assert_eq!(told.rows.schema(), schema);
                rows += told.rows.num_rows();
                malformed.extend(told.malformed);
                marks.push((told.offset, rows, malformed.len()));
                batches.push(told.rows);
            }
            Read::Idle(wait) => std::thread::sleep(wait),
            Read::End => break,
        }
    }
    assert!(matches!(reader.read(10)?, Read::End), "the end stays the end");
    Ok(Reading { rows: concat_batches(&schema, &batches)?, malformed, marks })
}

/// All columns of all splits.
pub fn read_all(source: &dyn Source) -> Result<Vec<Reading>> {
    let all = || ReadRange {
        columns: (0..source.schema().fields().len()).collect(),
        ..ReadRange::default()
    };
    source.splits()?.iter().map(|split| read_range(source, split, all(), || 8192)).collect()
}

/// The rows of all splits as text.
pub fn read_lines(source: &dyn Source) -> Result<String> {
    Ok(read_all(source)?.iter().map(|reading| lines(&reading.rows)).collect())
}

/// Malformed records as `place: message`, one a line.
pub fn malformed_lines(source: &dyn Source, directory: &str) -> Result<String> {
    let told: Vec<String> = read_all(source)?
        .into_iter()
        .flat_map(|reading| reading.malformed)
        .map(|bad| {
            let place = bad.place.replace(directory, "");
            format!("{}: {}\n", place.trim_start_matches('/'), bad.message)
        })
        .collect();
    Ok(told.concat())
}

/// Any range, in batches of any size, with any columns, gives the same as one reading of all.
pub fn check_ranges(source: &dyn Source, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let width = source.schema().fields().len();
    let everything = || ReadRange { columns: (0..width).collect(), ..ReadRange::default() };
    for split in source.splits().expect("there are splits") {
        let whole = read_range(source, &split, everything(), || 1_000_000).expect("readable");
        let mut sizes = SmallRng::seed_from_u64(random.random());
        let pieces = read_range(source, &split, everything(), || sizes.random_range(1..50))
            .expect("readable");
        assert_eq!(pieces.rows, whole.rows, "seed {seed}, split {split:?}, small batches");
        assert_eq!(pieces.malformed, whole.malformed, "seed {seed}, split {split:?}");
        let mut marks = pieces.marks;
        marks.insert(0, (Offset(String::new()), 0, 0));
        for _ in 0..30 {
            let a = random.random_range(0..marks.len());
            let b = random.random_range(a..marks.len());
            let columns: Vec<usize> = (0..width).filter(|_| random.random_bool(0.6)).collect();
            let range = ReadRange {
                from: (a > 0).then(|| marks[a].0.clone()),
                until: (b > 0).then(|| marks[b].0.clone()),
                columns: columns.clone(),
                paced_since: None,
            };
            let (first, last) =
                (marks[a].1, if b > 0 { marks[b].1 } else { whole.rows.num_rows() });
            let expected = whole.rows.slice(first, last - first);
            let expected = expected.project(&columns).expect("columns of the schema");
            let size = random.random_range(1..200);
            let got = read_range(source, &split, range.clone(), || size).expect("readable");
            assert_eq!(
                got.rows.num_rows(),
                expected.num_rows(),
                "seed {seed}, {split:?}, {range:?}"
            );
            assert_eq!(got.rows, expected, "seed {seed}, split {split:?}, {range:?}");
            if columns.len() == width && b > 0 {
                let told = &whole.malformed[marks[a].2..marks[b].2];
                assert_eq!(got.malformed, told, "seed {seed}, split {split:?}, {range:?}");
            }
        }
    }
}

/// SQLSTATE, message and hint of an error.
pub fn error_text<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => "no error".to_owned(),
        Err(error) => {
            let hint = error.body().hint.as_deref().unwrap_or("-");
            format!("{} {} / {hint}", error.sqlstate().0, error.message())
        }
    }
}

#[test]
fn the_list_is_documented_and_without_doubles() {
    let page = include_str!("../../docs/sql/sources.md");
    let mut names = HashSet::new();
    for connector in CONNECTORS {
        assert!(names.insert(connector.name), "connector {} is there twice", connector.name);
        assert!(!connector.doc.is_empty());
        let heading = format!("\n## {}\n", connector.name);
        let section = page.split(&heading).nth(1).expect("each connector has a section");
        let section = section.split("\n## ").next().expect("a split has a first part");
        assert!(section.contains("```sql"), "{} has no example", connector.name);
        let mut options = HashSet::new();
        for option in connector.options {
            assert!(!option.doc.is_empty() && !option.kind.is_empty());
            for name in option.aliases.iter().chain([&option.name]) {
                assert!(options.insert(*name), "option {name} is there twice");
                assert_eq!(*name, name.to_lowercase());
                assert!(section.contains(&format!("`{name}`")), "{name} is not on the docs page");
            }
            let default = match option.default {
                None => "required".to_owned(),
                Some("") => String::new(),
                Some(default) => format!("`{default}`"),
            };
            let kind = option.kind.replace('|', "\\|");
            let row = format!(
                "| `{}` | {kind} | {default} | {} |",
                option.name,
                option.doc.replace('|', "\\|")
            );
            let row = row.replace("|  |", "| |");
            assert!(section.contains(&row), "the docs page should have the row\n{row}");
        }
    }
}

#[test]
fn connectors_are_found_by_name() {
    assert_eq!(find("NexMark").expect("known").name, "nexmark");
    assert_eq!(
        error_text(find("nexmrk")),
        "22023 connector \"nexmrk\" does not exist / Perhaps you meant \"nexmark\"; there are: \
         datagen, file, nexmark."
    );
    assert_eq!(
        error_text(find("kafka").map(|_| ())),
        "22023 connector \"kafka\" does not exist / There are: datagen, file, nexmark."
    );
    assert_eq!(
        error_text(source("file", "pth=x", "")),
        "22023 connector \"file\" has no option \"pth\" / Perhaps you meant the option \"path\"."
    );
}
