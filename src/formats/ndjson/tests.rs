//! JSON lines in, rows and complaints out.

use arrow::array::Array;
use arrow::datatypes::{Field, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::*;
use crate::types::sql_type::SqlType;

fn schema() -> SchemaRef {
    let fields: Vec<Field> = [
        ("id", SqlType::Int8),
        ("name", SqlType::Text),
        ("price", SqlType::Numeric(20, 4)),
        ("ts", SqlType::Timestamp),
        ("tags", SqlType::Array(Box::new(SqlType::Text))),
        (
            "at",
            SqlType::Record(vec![
                ("x".to_owned(), SqlType::Float8),
                ("ys".to_owned(), SqlType::Array(Box::new(SqlType::Int4))),
            ]),
        ),
        ("doc", SqlType::Jsonb),
    ]
    .into_iter()
    .map(|(name, sql_type)| sql_type.to_field(name, true))
    .collect();
    Arc::new(Schema::new(fields))
}

/// Rows with values between bars, then complaints.
fn check(text: &str, columns: &[usize]) -> String {
    let mut shown = Vec::new();
    // Any way to cut the bytes into batches gives the same.
    for step in [1, 3, 1000] {
        let mut decoder = NdjsonDecoder::new(schema(), columns).expect("columns");
        let (mut at, mut line) = (0, 0);
        let (mut rows, mut told) = (String::new(), String::new());
        loop {
            let decoded = decoder.decode(&text.as_bytes()[at..], true, step).expect("decodes");
            let options = FormatOptions::default().with_null("-");
            for row in 0..decoded.rows.num_rows() {
                let values: Vec<String> = decoded
                    .rows
                    .columns()
                    .iter()
                    .map(|c| ArrayFormatter::try_new(c.as_ref(), &options).expect("printable"))
                    .map(|f| f.value(row).to_string())
                    .collect();
                rows.push_str(&format!("{}\n", values.join("|")));
            }
            for bad in decoded.malformed {
                told.push_str(&format!("line {}: {}\n", line + bad.line + 1, bad.message));
            }
            if decoded.bytes == 0 {
                break;
            }
            at += decoded.bytes;
            line += decoded.lines;
        }
        assert_eq!(at, text.len());
        shown.push(rows + &told);
    }
    assert!(shown.windows(2).all(|pair| pair[0] == pair[1]), "{shown:?}");
    shown.remove(0)
}

#[test]
fn every_kind_of_value() {
    let text = concat!(
        r#"{"id":1,"name":"a\tb \u00e4","price":12345678901234.5678,"ts":"2013-01-01T10:00:00Z","#,
        r#""tags":["x","y\"z",null],"at":{"x":1.5,"ys":[1,2]},"doc":{"k":[1, 2]}}"#,
        "\n\n",
        r#"{"doc":"s","at":null,"tags":[],"ts":null,"price":"7.25","name":true,"id":"42"}"#,
        "\r\n",
        r#"{"other":[{"deep":1}],"NAME":{"kept":"as json"},"id":5.0,"at":{"ys":null}}"#,
        "\n{}",
    );
    assert_eq!(
        check(text, &[0, 1, 2, 3, 4, 5, 6]),
        concat!(
            "1|a\tb ä|12345678901234.5678|2013-01-01T10:00:00|[x, y\"z, -]|",
            "{x: 1.5, ys: [1, 2]}|{\"k\":[1, 2]}\n",
            "42|true|7.2500|-|[]|-|\"s\"\n",
            "5|{\"kept\":\"as json\"}|-|-|-|{x: -, ys: -}|-\n",
            "-|-|-|-|-|-|-\n",
        )
    );
    assert_eq!(check(text, &[6, 0]), "{\"k\":[1, 2]}|1\n\"s\"|42\n-|5\n-|-\n");
}

#[test]
fn bad_lines_are_told_and_left_out() {
    let text = concat!(
        "{\"id\":1}\n",
        "{\"id\":1\n",
        "[1,2]\n",
        "{\"id\":2} x\n",
        "{\"id\":\"x\"}\n",
        "{\"id\":1e3}\n",
        "{\"at\":{\"ys\":[1,\"b\"]}}\n",
        "{\"at\":5}\n",
        "{\"tags\":{}}\n",
        "{\"id\":3,\"tags\":[{\"a\":1}]}\n",
        "{\"ts\":1357034400}\n",
        "{\"id\":9,\"id\":4}\n",
    );
    assert_eq!(
        check(text, &[0, 4, 5, 3]),
        concat!(
            "1|-|-|-\n3|[{\"a\":1}]|-|-\n4|-|-|-\n",
            "line 2: invalid JSON: expected a comma or a closing brace at byte 8\n",
            "line 3: invalid JSON: expected an object at byte 1\n",
            "line 4: invalid JSON: trailing characters at byte 10\n",
            "line 5: column \"id\": invalid input syntax for type bigint: \"x\"\n",
            "line 6: column \"id\": invalid input syntax for type bigint: \"1e3\"\n",
            "line 7: column \"at\": invalid input syntax for type integer: \"b\"\n",
            "line 8: column \"at\": invalid input syntax for type record: \"5\"\n",
            "line 9: column \"tags\": invalid input syntax for type text[]: \"{}\"\n",
            "line 11: column \"ts\": invalid input syntax for type timestamp without time zone: ",
            "\"1357034400\"\n",
        )
    );
    // Lines whose bad values nobody asks for are good.
    assert_eq!(check("{\"id\":\"x\",\"name\":\"n\"}\n", &[1]), "n\n");
    assert_eq!(
        check("{\"id\":1}\nnonsense\n", &[]),
        "\nline 2: invalid JSON: expected an object \
         at byte 1\n"
    );
}

#[test]
fn a_line_is_left_until_it_is_complete() {
    let mut decoder = NdjsonDecoder::new(schema(), &[0]).expect("columns");
    let decoded = decoder.decode(b"{\"id\":1}\n{\"id\":2}", false, 100).expect("decodes");
    assert_eq!((decoded.bytes, decoded.rows.num_rows()), (9, 1));
    let decoded = decoder.decode(b"{\"id\":2}", true, 100).expect("decodes");
    assert_eq!((decoded.bytes, decoded.rows.num_rows()), (8, 1));
    let endless = vec![b'['; RECORD_BYTES_MAX + 5];
    let decoded = decoder.decode(&endless, false, 100).expect("decodes");
    assert_eq!((decoded.bytes, decoded.malformed.len()), (RECORD_BYTES_MAX, 1));
    assert_eq!(decoded.rows.column(0).len(), 0);
}
