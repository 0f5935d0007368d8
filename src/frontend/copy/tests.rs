//! Where a right column shows lines, they are what Postgres 15 writes for the same rows.

use std::sync::Arc;

use arrow::array::{Int32Array, StringArray};
use arrow::datatypes::{DataType, Field};

use super::*;
use crate::frontend::encode::{Format, Style};
use crate::types::text::datetime::{DateContext, DateOrder};
use crate::types::text::interval::IntervalStyle;
use crate::types::text::zone::Zone;

fn text_format() -> CopyFormat {
    CopyFormat {
        kind: CopyKind::Text,
        delimiter: b'\t',
        null: "\\N".into(),
        header: false,
        quote: b'"',
        escape: b'"',
    }
}

fn csv_format() -> CopyFormat {
    CopyFormat { kind: CopyKind::Csv, delimiter: b',', null: String::new(), ..text_format() }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("a", DataType::Int32, true),
        Field::new("b", DataType::Utf8, true),
    ]))
}

fn new_reader(schema: SchemaRef, format: CopyFormat) -> Result<CopyReader> {
    let dates = DateContext { zone: Zone::UTC, order: DateOrder::Mdy, now_us: 0 };
    let context = Context { dates, interval: IntervalStyle::Postgres };
    CopyReader::new(schema, format, context)
}

fn reader(schema: SchemaRef, format: CopyFormat) -> CopyReader {
    new_reader(schema, format).expect("types that SQL has")
}

/// Reads data that comes in pieces of `piece` bytes.
fn read(format: CopyFormat, data: &[u8], piece: usize) -> Result<Vec<RecordBatch>> {
    let mut reader = new_reader(schema(), format)?;
    let mut batches = Vec::new();
    for piece in data.chunks(piece) {
        reader.push(piece, &mut batches)?;
    }
    batches.extend(reader.finish()?);
    Ok(batches)
}

fn table(rows: &[(Option<i32>, Option<&str>)]) -> RecordBatch {
    let a: Int32Array = rows.iter().map(|r| r.0).collect();
    let b: StringArray = rows.iter().map(|r| r.1).collect();
    RecordBatch::try_new(schema(), vec![Arc::new(a), Arc::new(b)]).expect("a batch")
}

/// The same rows however the data is cut into pieces.
fn check_in(format: &CopyFormat, data: &str, expected: &[(Option<i32>, Option<&str>)]) {
    for piece in 1..=data.len().max(1) {
        let batches = read(format.clone(), data.as_bytes(), piece).expect(data);
        let expected: Vec<_> = if expected.is_empty() { vec![] } else { vec![table(expected)] };
        assert_eq!(batches, expected, "{data:?} in pieces of {piece}");
    }
}

#[test]
fn text_lines() {
    let format = text_format();
    check_in(&format, "", &[]);
    check_in(
        &format,
        "1\tx\n2\t\n\\N\t\\N\n",
        &[(Some(1), Some("x")), (Some(2), Some("")), (None, None)],
    );
    check_in(&format, "1\tno newline", &[(Some(1), Some("no newline"))]);
    check_in(&format, "1\tx\r\n2\ty\r\n", &[(Some(1), Some("x")), (Some(2), Some("y"))]);
    check_in(&format, "1\ta\\tb\\nc\\\\d\\be\\qé\\é\n", &[(Some(1), Some("a\tb\nc\\d\u{8}eqéé"))]);
    check_in(&format, "1\t\\101\\x42\\303\\251\\x\\\t\n", &[(Some(1), Some("ABéx\t"))]);
    check_in(&format, "1\ta\\\nb\n", &[(Some(1), Some("a\nb"))]);
    // Only a whole field is NULL, and only unescaped.
    check_in(&format, "1\tx\\N\n2\t\\\\N\n", &[(Some(1), Some("xN")), (Some(2), Some("\\N"))]);
    check_in(&format, "1\tx\n\\.\nanything\n", &[(Some(1), Some("x"))]);
    check_in(&format, "1\tx\\", &[(Some(1), Some("x\\"))]);
    let bars = CopyFormat { delimiter: b'|', null: "nil".into(), header: true, ..text_format() };
    check_in(&bars, "a|b\nnil|x\\|y\n", &[(None, Some("x|y"))]);
}

#[test]
fn csv_lines() {
    let format = csv_format();
    check_in(
        &format,
        "1,x\n2,\n3,\"\"\n,y\n",
        &[(Some(1), Some("x")), (Some(2), None), (Some(3), Some("")), (None, Some("y"))],
    );
    check_in(
        &format,
        "1,\"a,\"\"b\"\"\nc\"\n2,d\n",
        &[(Some(1), Some("a,\"b\"\nc")), (Some(2), Some("d"))],
    );
    check_in(
        &format,
        "1,a\"b,c\"d\r\n\"2\",é\r\n",
        &[(Some(1), Some("ab,cd")), (Some(2), Some("é"))],
    );
    check_in(&format, "1,x\n\\.\n", &[(Some(1), Some("x"))]);
    let odd = CopyFormat {
        quote: b'\'',
        escape: b'\\',
        null: "nil".into(),
        header: true,
        ..csv_format()
    };
    check_in(
        &odd,
        "a,'b\nb'\n1,'it\\'s \\\\ \\x'\n2,nil\n3,'nil'\n",
        &[(Some(1), Some("it's \\ \\x")), (Some(2), None), (Some(3), Some("nil"))],
    );
}

#[test]
fn lines_that_are_no_rows() {
    for (format, data, sqlstate, message, place) in [
        (text_format(), "1\tx\n2\n", "22P04", "missing data for column \"b\"", "COPY data, line 2"),
        (
            text_format(),
            "1\tx\ty\n",
            "22P04",
            "extra data after last expected column",
            "COPY data, line 1",
        ),
        (
            text_format(),
            "1\tx\n\nq\ty\n",
            "22P04",
            "missing data for column \"b\"",
            "COPY data, line 2",
        ),
        (
            text_format(),
            "1\tx\nq\ty\n",
            "22P02",
            "invalid input syntax for type integer: \"q\"",
            "COPY data, line 2, column a: \"q\"",
        ),
        (
            text_format(),
            "1\tx\n2\ty\rz\n",
            "22P04",
            "literal carriage return found in data",
            "COPY data, line 2",
        ),
        (
            text_format(),
            "1\t\\xff\n",
            "22021",
            "invalid byte sequence for encoding \"UTF8\": 0xff",
            "COPY data, line 1",
        ),
        (
            csv_format(),
            "1,\"a\nb\"\n2,\"x",
            "22P04",
            "unterminated CSV quoted field",
            "COPY data, line 3",
        ),
        (
            csv_format(),
            "1,\"a\nb\"\nx,y",
            "22P02",
            "invalid input syntax for type integer: \"x\"",
            "COPY data, line 3, column a: \"x\"",
        ),
    ] {
        for piece in 1..=data.len() {
            let error = read(format.clone(), data.as_bytes(), piece).expect_err(data);
            assert_eq!((error.sqlstate().0, error.message()), (sqlstate, message), "{data:?}");
            assert_eq!(error.body().place.as_deref(), Some(place));
        }
    }
    let error = read(text_format(), b"1\t\xff\n", 100).expect_err("no text");
    assert_eq!(error.sqlstate().0, "22021");
    let odd = CopyFormat { delimiter: 0xe9, ..text_format() };
    assert_eq!(read(odd, b"", 1).map(|_| ()).expect_err("no character").sqlstate().0, "0A000");
}

#[test]
fn null_where_none_may_be() {
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int32, false)]));
    let mut reader = reader(schema, csv_format());
    let mut batches = Vec::new();
    // The empty line of a table with one column is one empty field.
    reader.push(b"1\n\n", &mut batches).expect("lines");
    let error = reader.finish().expect_err("NULL");
    assert_eq!(error.sqlstate().0, "23502");
    assert_eq!(error.body().place.as_deref(), Some("COPY data, line 2, column a: null input"));
}

#[test]
fn large_data_goes_in_batches() {
    let data: String = (0..20_000).map(|n| format!("{n}\tx{n}\n")).collect();
    let batches = read(text_format(), data.as_bytes(), 1000).expect("rows");
    let rows: Vec<_> = batches.iter().map(RecordBatch::num_rows).collect();
    assert_eq!(rows, [8192, 8192, 3616]);
    let wide: String = (0..10).map(|n| format!("{n}\t{}\n", "y".repeat(1 << 20))).collect();
    let batches = read(text_format(), wide.as_bytes(), 1 << 16).expect("rows");
    assert_eq!(batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [4, 4, 2]);
}

/// The lines of `batch`, without the messages around them.
fn written(batch: &RecordBatch, format: &CopyFormat) -> String {
    let formats = vec![Format::Text; batch.num_columns()];
    let mut rows = BatchEncoder::new(batch, &formats, Style::default()).expect("ready");
    let mut writer = CopyWriter::new(format.clone()).expect("a format");
    let mut out = BytesMut::new();
    writer.write_header(batch.schema_ref(), &mut out);
    assert_eq!(writer.write_some(&mut rows, usize::MAX, &mut out), batch.num_rows());
    let mut lines = Vec::new();
    let mut rest = &out[..];
    while let [b'd', a, b, c, d, after @ ..] = rest {
        let (line, after) = after.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize - 4);
        lines.extend_from_slice(line);
        rest = after;
    }
    assert!(rest.is_empty(), "only CopyData messages");
    String::from_utf8(lines).expect("text")
}

#[test]
fn rows_as_lines() {
    let rows = [
        (Some(1), Some("plain")),
        (None, None),
        (Some(2), Some("")),
        (Some(3), Some("tab\tnl\nbs\\cr\r bs\u{8} vt\u{b} ff\u{c} esc\u{1b}")),
        (Some(4), Some("a,b|c")),
        (Some(5), Some("say \"hi\"")),
        (Some(6), Some("\\N")),
        (Some(7), Some("\\.")),
    ];
    let batch = table(&rows);
    assert_eq!(
        written(&batch, &text_format()),
        "1\tplain\n\\N\t\\N\n2\t\n3\ttab\\tnl\\nbs\\\\cr\\r bs\\b vt\\v ff\\f esc\u{1b}\n\
         4\ta,b|c\n5\tsay \"hi\"\n6\t\\\\N\n7\t\\\\.\n"
    );
    assert_eq!(
        written(&batch, &CopyFormat { header: true, ..csv_format() }),
        "a,b\n1,plain\n,\n2,\"\"\n3,\"tab\tnl\nbs\\cr\r bs\u{8} vt\u{b} ff\u{c} esc\u{1b}\"\n\
         4,\"a,b|c\"\n5,\"say \"\"hi\"\"\"\n6,\\N\n7,\\.\n"
    );
    let bars = CopyFormat { delimiter: b'|', null: "plain".into(), ..text_format() };
    assert_eq!(written(&table(&rows[1..2]), &bars), "plain|plain\n");
    assert_eq!(written(&table(&rows[4..5]), &bars), "4|a,b\\|c\n");
    for format in [text_format(), csv_format(), CopyFormat { header: true, ..csv_format() }] {
        let lines = written(&batch, &format);
        let back = read(format, lines.as_bytes(), 7).expect("our own lines");
        assert_eq!(back, std::slice::from_ref(&batch));
    }
    let alone = batch.project(&[1]).expect("a column").slice(7, 1);
    assert_eq!(written(&alone, &csv_format()), "\"\\.\"\n");
}
