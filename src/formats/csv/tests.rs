//! Csv against the csv crate, malformed records, and any way to cut the bytes.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Field, Schema};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;

use super::*;

fn format() -> CsvFormat {
    CsvFormat { delimiter: b',', quote: Some(b'"'), null: String::new() }
}

fn schema(types: &[SqlType]) -> SchemaRef {
    let fields: Vec<Field> =
        types.iter().enumerate().map(|(n, t)| t.to_field(&format!("c{n}"), true)).collect();
    Arc::new(Schema::new(fields))
}

fn decoder(format: CsvFormat, types: &[SqlType]) -> CsvDecoder {
    let sources = (0..types.len()).map(Some).collect();
    CsvDecoder::new(format, schema(types), sources, types.len())
}

/// All values as text, NULL as `-`, records by `;`.
fn values(rows: &RecordBatch) -> String {
    let mut text = Vec::new();
    for row in 0..rows.num_rows() {
        let record: Vec<&str> = rows
            .columns()
            .iter()
            .map(|c| if c.is_null(row) { "-" } else { c.as_string::<i32>().value(row) })
            .collect();
        text.push(record.join("|"));
    }
    text.join(";")
}

/// Decodes all bytes as text columns, `step` records at a time, and shows rows and complaints.
fn decode(bytes: &[u8], columns: usize, step: usize) -> (String, Vec<(u64, String)>) {
    let mut decoder = decoder(format(), &vec![SqlType::Text; columns]);
    let (mut at, mut line) = (0, 0);
    let (mut rows, mut malformed) = (Vec::new(), Vec::new());
    loop {
        let decoded = decoder.decode(&bytes[at..], true, step).expect("text");
        if decoded.bytes == 0 {
            break;
        }
        if decoded.rows.num_rows() > 0 {
            rows.push(values(&decoded.rows));
        }
        malformed.extend(decoded.malformed.into_iter().map(|m| (line + m.line + 1, m.message)));
        at += decoded.bytes;
        line += decoded.lines;
    }
    assert_eq!(at, bytes.len());
    (rows.join(";"), malformed)
}

#[test]
fn fields_and_records() {
    let check = |text: &str, columns| decode(text.as_bytes(), columns, 100).0;
    assert_eq!(check("a,b\nc,d\n", 2), "a|b;c|d");
    assert_eq!(check("a,b\r\nc,d", 2), "a|b;c|d");
    assert_eq!(check("a,b\n\n\r\nc,d\r\n\n", 2), "a|b;c|d");
    assert_eq!(check("\"a,1\",\"b \"\"x\"\"\"\n", 2), "a,1|b \"x\"");
    assert_eq!(check("\"a\nb\",\"c\r\n\"\r\n", 2), "a\nb|c\r\n");
    // Quotes inside a field are characters; what follows a closing quote is kept.
    assert_eq!(check("a\"b,\"c\"d\n", 2), "a\"b|cd");
    // Without quotes an empty field is NULL, with quotes it is an empty text.
    assert_eq!(check(",\"\"\n", 2), "-|");
    assert_eq!(check("a,\n,b", 2), "a|-;-|b");
    assert_eq!(check("", 2), "");
    assert_eq!(check("ä,\"ö\"\n", 2), "ä|ö");
}

#[test]
fn nulls_delimiters_and_quotes_are_chosen() {
    let format = CsvFormat { delimiter: b'\t', quote: None, null: "NA".to_owned() };
    let mut decoder = decoder(format.clone(), &[SqlType::Int4, SqlType::Text]);
    let decoded = decoder.decode(b"1\t\"x\nNA\tNA\n\ty\n", true, 10).expect("decodes");
    let first = decoded.rows.column(0);
    assert_eq!((first.len(), first.is_null(1)), (2, true));
    assert_eq!(decoded.rows.column(1).as_string::<i32>().value(0), "\"x");
    assert!(decoded.rows.column(1).is_null(1));
    // The empty text is no integer when NULL is written NA.
    assert_eq!(decoded.malformed[0].line, 2);
    let quoted = CsvFormat { quote: Some(b'"'), delimiter: b',', ..format };
    let mut decoder = self::decoder(quoted, &[SqlType::Int4, SqlType::Text]);
    let decoded = decoder.decode(b"\"NA\",\"NA\"\n", true, 10).expect("decodes");
    assert!(decoded.rows.column(0).is_null(0));
    assert_eq!(decoded.rows.column(1).as_string::<i32>().value(0), "NA");
}

#[test]
fn malformed_records_are_told_with_their_lines() {
    let text = "a,b\n\nc\n\"d\nd\",e,f\ng,h\n\"open,i\nj,k\n";
    for step in [1, 2, 100] {
        let (rows, malformed) = decode(text.as_bytes(), 2, step);
        assert_eq!(rows, "a|b;g|h;j|k", "step {step}");
        let told: Vec<(u64, &str)> = malformed.iter().map(|(l, m)| (*l, m.as_str())).collect();
        assert_eq!(
            told,
            [
                (3, "record has 1 field, expected 2"),
                (4, "record has 3 fields, expected 2"),
                (7, "unterminated quoted field"),
            ],
            "step {step}"
        );
    }
}

#[test]
fn bad_values_take_their_row_out() {
    let mut decoder = decoder(format(), &[SqlType::Int4, SqlType::Boolean]);
    let text = "1,t\nx,maybe\n3,\n4,perhaps\n5,f\n";
    let decoded = decoder.decode(text.as_bytes(), true, 100).expect("decodes");
    assert_eq!(decoded.rows.num_rows(), 3);
    let told: Vec<(u64, &str, &str)> =
        decoded.malformed.iter().map(|m| (m.line, m.record.as_str(), m.message.as_str())).collect();
    assert_eq!(
        told,
        [
            (1, "x,maybe", "column \"c0\": invalid input syntax for type integer: \"x\""),
            (3, "4,perhaps", "column \"c1\": invalid input syntax for type boolean: \"perhaps\""),
        ]
    );
}

#[test]
fn columns_come_from_any_field() {
    let schema = schema(&[SqlType::Text, SqlType::Int4, SqlType::Text, SqlType::Text]);
    let sources = vec![Some(2), Some(0), None, Some(2)];
    let mut decoder = CsvDecoder::new(format(), schema, sources, 3);
    let decoded = decoder.decode(b"1,x,\"y\"\"\"\n2,x,z\n", true, 100).expect("decodes");
    let text = |column: usize, row| decoded.rows.column(column).as_string::<i32>().value(row);
    assert_eq!((text(0, 0), text(3, 0), text(0, 1)), ("y\"", "y\"", "z"));
    assert_eq!(decoded.rows.column(2).null_count(), 2);
    let mut none = CsvDecoder::new(format(), Arc::new(Schema::empty()), vec![], 3);
    let decoded = none.decode(b"1,x,y\n1,x\n2,x,z\n", true, 100).expect("decodes");
    assert_eq!((decoded.rows.num_rows(), decoded.malformed.len()), (2, 1));
}

#[test]
fn headers() {
    let check = |text: &str, at_end| read_header(&format(), text.as_bytes(), at_end);
    let header = check("\na,\"b c\", d \n1,2,3\n", false).expect("complete");
    assert_eq!((header.names.join("|"), header.bytes, header.lines), ("a|b c|d".to_owned(), 13, 2));
    assert_eq!(check("a,b", false), None);
    assert_eq!(check("a,b", true).expect("complete").names, ["a", "b"]);
    assert_eq!(check("", false), None);
}

#[test]
fn a_record_is_left_until_it_is_complete() {
    let mut decoder = decoder(format(), &[SqlType::Text, SqlType::Text]);
    for (text, used) in [
        ("a,b", 0),
        ("a,b\n", 4),
        ("a,b\nc,", 4),
        ("a,b\nc,\"d\n", 4),
        ("a,\"b\"", 0),
        ("a,\"b\"\"", 0),
        ("\n\n", 2),
    ] {
        let decoded = decoder.decode(text.as_bytes(), false, 100).expect("decodes");
        assert_eq!(decoded.bytes, used, "{text:?}");
        assert!(decoded.malformed.is_empty());
    }
}

#[test]
fn endless_records_are_cut() {
    let mut decoder = decoder(format(), &[SqlType::Text, SqlType::Text]);
    let mut text = b"\"a,".to_vec();
    text.resize(RECORD_BYTES_MAX + 100, b'x');
    text.insert(10, b'\n');
    let decoded = decoder.decode(&text, false, 1).expect("decodes");
    // Only the line of the quote is given up.
    assert_eq!((decoded.bytes, decoded.malformed.len()), (11, 1));
    let decoded = decoder.decode(&text[11..], false, 1).expect("decodes");
    assert_eq!((decoded.bytes, decoded.malformed.len()), (RECORD_BYTES_MAX, 1));
    assert_eq!(decoded.malformed[0].record.len(), 1_000);
}

/// Records of the csv crate with the same number of fields, NULL where a field is empty.
fn reference(text: &[u8], columns: usize) -> String {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text);
    let records = reader.byte_records().map(|record| record.expect("bytes are bytes"));
    let records = records.filter(|record| record.len() == columns).map(|record| {
        let fields: Vec<String> = record
            .iter()
            .map(|field| match String::from_utf8_lossy(field).into_owned() {
                empty if empty.is_empty() => "-".to_owned(),
                text => text,
            })
            .collect();
        fields.join("|")
    });
    records.collect::<Vec<_>>().join(";")
}

#[test]
fn random_texts_are_read_as_the_csv_crate_does() {
    let pieces =
        ["a", "bc", ",", ",", "\n", "\r\n", "\"x\"", "\"y,\"\"z\"\"\"", "\"1\n2\"", " ", "ä"];
    let mut random = SmallRng::seed_from_u64(3);
    let mut compared = 0;
    for round in 0..20_000 {
        let count = random.random_range(0..24);
        let text: String =
            (0..count).map(|_| pieces[random.random_range(0..pieces.len())]).collect();
        let (rows, _) = decode(text.as_bytes(), 2, random.random_range(1..5));
        assert_eq!(rows, reference(text.as_bytes(), 2), "round {round}: {text:?}");
        compared += rows.len();
    }
    assert!(compared > 50_000, "{compared}");
}
