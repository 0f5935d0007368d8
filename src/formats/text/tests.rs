//! Text in, values out. Expected values are what Postgres gives for the same casts.

use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::*;

/// Each value as it comes out, or the message that takes its row out. `\N` is NULL.
fn check(sql_type: SqlType, values: &str) -> String {
    let field = sql_type.to_field("c", true);
    let values: Vec<&str> = values.split('|').collect();
    let cells: Vec<Option<&[u8]>> =
        values.iter().map(|v| (*v != "\\N").then_some(v.as_bytes())).collect();
    let mut bad = BadRows::default();
    let cells = Cells { values: &cells, rows: None, column: "c" };
    let array = column(&field, cells, &mut bad).expect("a type that text can be");
    assert_eq!(array.data_type(), field.data_type());
    assert_eq!(array.len(), values.len());
    let options = FormatOptions::default().with_null("-");
    let formatter = ArrayFormatter::try_new(array.as_ref(), &options).expect("printable");
    let mut told: Vec<String> =
        (0..values.len()).map(|row| formatter.value(row).to_string()).collect();
    for (row, message) in bad.into_messages() {
        assert!(array.is_null(row as usize), "a bad value leaves a NULL");
        told[row as usize] = message.replace("column \"c\": ", "! ");
    }
    told.join("|")
}

fn syntax(type_name: &str, value: &str) -> String {
    format!("! invalid input syntax for type {type_name}: \"{value}\"")
}

fn range(type_name: &str, value: &str) -> String {
    format!("! value \"{value}\" is out of range for type {type_name}")
}

#[test]
fn integers() {
    assert_eq!(check(SqlType::Int8, "0|-1| 42 |+7|007|\\N"), "0|-1|42|7|7|-");
    assert_eq!(
        check(SqlType::Int8, "9223372036854775807|-9223372036854775808|5.0|5."),
        "9223372036854775807|-9223372036854775808|5|5"
    );
    for value in ["9223372036854775808", "-9223372036854775809", "99999999999999999999999"] {
        assert_eq!(check(SqlType::Int8, value), range("bigint", value));
    }
    for value in ["", "-", "+", "x", "5.5", ".0", "5 5", "0x10", "--5", "5e3", "NA", "١"] {
        assert_eq!(check(SqlType::Int8, value), syntax("bigint", value));
    }
    assert_eq!(check(SqlType::Int2, "32767|-32768"), "32767|-32768");
    assert_eq!(check(SqlType::Int2, "32768"), range("smallint", "32768"));
    assert_eq!(check(SqlType::Int4, "-2147483649"), range("integer", "-2147483649"));
}

#[test]
fn floats() {
    assert_eq!(
        check(SqlType::Float8, "1.5|-0.25|1e3| 10.357019999999999 |NaN|Infinity|-inf|.5"),
        "1.5|-0.25|1000.0|10.357019999999999|NaN|inf|-inf|0.5"
    );
    assert_eq!(check(SqlType::Float8, "1e999"), range("double precision", "1e999"));
    assert_eq!(check(SqlType::Float4, "1e39"), range("real", "1e39"));
    for value in ["", "1,5", "one", "1.5.2", "0x1p3"] {
        assert_eq!(check(SqlType::Float8, value), syntax("double precision", value));
    }
}

#[test]
fn numerics_round_half_away_from_zero() {
    let two = SqlType::Numeric(6, 2);
    assert_eq!(
        check(two.clone(), "1|1.2|-1.25|1.255|-1.255|1.254999|9999.99|.5|-0|1.5e2|15e-3|0e99"),
        "1.00|1.20|-1.25|1.26|-1.26|1.25|9999.99|0.50|0.00|150.00|0.02|0.00"
    );
    for value in ["9999.995", "10000", "1e5", "-1e300", "1e9999999"] {
        assert_eq!(check(two.clone(), value), range("numeric(6,2)", value));
    }
    for value in ["", ".", "1.2.3", "1e", "e5", "-", "NaN", "1 000"] {
        assert_eq!(check(two.clone(), value), syntax("numeric(6,2)", value));
    }
    let wide = "12345678901234567890123456789012345678";
    assert_eq!(check(SqlType::Numeric(38, 0), wide), wide);
    assert_eq!(check(SqlType::Numeric(5, 0), "0.5|1.49|0.05|5e-1|5e-2"), "1|1|0|1|0");
}

#[test]
fn booleans() {
    assert_eq!(
        check(SqlType::Boolean, "t|true|1|YES|on|f|False|0|n|off|\\N"),
        "true|true|true|true|true|false|false|false|false|false|-"
    );
    assert_eq!(check(SqlType::Boolean, "2"), syntax("boolean", "2"));
}

#[test]
fn times() {
    assert_eq!(
        check(SqlType::Timestamp, "2013-01-01T10:00:00Z|2013-01-01 10:00:00.5|\\N"),
        "2013-01-01T10:00:00|2013-01-01T10:00:00.500|-"
    );
    assert_eq!(check(SqlType::Timestamptz, "2013-01-01T10:00:00+02:00"), "2013-01-01T08:00:00Z");
    assert_eq!(check(SqlType::Date, "2013-01-31|2012-02-29"), "2013-01-31|2012-02-29");
    assert_eq!(check(SqlType::Date, "2013-02-29"), range("date", "2013-02-29"));
    assert_eq!(check(SqlType::Time, "10:15:30.25"), "10:15:30.250");
    assert_eq!(check(SqlType::Interval, "1 day 2 hours"), "1 days 2 hours");
    assert_eq!(check(SqlType::Interval, "soon"), syntax("interval", "soon"));
    assert_eq!(check(SqlType::Timestamp, "later"), syntax("timestamp without time zone", "later"));
}

#[test]
fn bytes_and_uuids() {
    assert_eq!(check(SqlType::Bytea, "\\x00fF|abc|a\\\\b\\000"), "00ff|616263|615c6200");
    for value in ["\\x0", "\\xzz", "\\9", "\\999"] {
        assert_eq!(check(SqlType::Bytea, value), syntax("bytea", value));
    }
    assert_eq!(
        check(
            SqlType::Uuid,
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11|A0EEBC999C0B4EF8BB6D6BB9BD380A11"
        ),
        "a0eebc999c0b4ef8bb6d6bb9bd380a11|a0eebc999c0b4ef8bb6d6bb9bd380a11"
    );
    assert_eq!(check(SqlType::Uuid, "a0ee"), syntax("uuid", "a0ee"));
}

#[test]
fn arrays_and_rows() {
    let ints = SqlType::Array(Box::new(SqlType::Int4));
    assert_eq!(
        check(ints.clone(), "{1,NULL, 3}|[1,null,3]|{}|[]|\\N"),
        "[1, -, 3]|[1, -, 3]|[]|[]|-"
    );
    for value in ["{1,", "1,2", "{1}}", "[1,2", "{1,,2}"] {
        assert_eq!(check(ints.clone(), value), syntax("integer[]", value));
    }
    // The row is bad, its message is about the element.
    assert_eq!(check(SqlType::Array(Box::new(SqlType::Int2)), "\\N"), "-");
    let texts = SqlType::Array(Box::new(SqlType::Text));
    assert_eq!(check(texts.clone(), r#"{a,"b, \"c\"",null,"null"}"#), r#"[a, b, "c", -, null]"#);
    assert_eq!(check(texts, r#"["a","b\n",null,"null"]"#), "[a, b\n, -, null]");
    let nested = SqlType::Array(Box::new(ints));
    assert_eq!(check(nested, "{{1,2},{3}}|[[1,2],[3]]"), "[[1, 2], [3]]|[[1, 2], [3]]");
    let row =
        SqlType::Record(vec![("x".to_owned(), SqlType::Int8), ("y".to_owned(), SqlType::Text)]);
    assert_eq!(
        check(row, r#"{"x": 5, "y": "five"}|{"Y": "k"}|\N"#),
        "{x: 5, y: five}|{x: -, y: k}|-"
    );
}

#[test]
fn a_bad_element_makes_its_row_bad() {
    let field = SqlType::Array(Box::new(SqlType::Int4)).to_field("c", true);
    let values: Vec<Option<&[u8]>> = vec![Some(b"{1,2}"), Some(b"{3,x}"), None, Some(b"[4,5.5]")];
    let mut bad = BadRows::default();
    let cells = Cells { values: &values, rows: None, column: "c" };
    column(&field, cells, &mut bad).expect("integers");
    let told: Vec<(u32, String)> = bad.into_messages().collect();
    assert_eq!(
        told,
        [
            (1, "column \"c\": invalid input syntax for type integer: \"x\"".to_owned()),
            (3, "column \"c\": invalid input syntax for type integer: \"5.5\"".to_owned()),
        ]
    );
}

#[test]
fn text_is_utf8_without_zero_bytes() {
    assert_eq!(check(SqlType::Text, "a|| ä \\N|\\N"), "a|| ä \\N|-");
    let told = check(SqlType::Json, r#"{"a":[1]}|5|"x"|nul"#);
    assert_eq!(told, format!(r#"{{"a":[1]}}|5|"x"|{}"#, syntax("json", "nul")));
    let field = SqlType::Text.to_field("c", true);
    // The two halves of a character in two values are valid together, but neither is.
    let values: Vec<Option<&[u8]>> = vec![Some(b"\xC3"), Some(b"\xA4"), Some(b"ok"), Some(b"a\0b")];
    let mut bad = BadRows::default();
    let cells = Cells { values: &values, rows: None, column: "c" };
    let array = column(&field, cells, &mut bad).expect("text");
    assert_eq!(array.null_count(), 3);
    let rows: Vec<u32> = bad.into_messages().map(|(row, _)| row).collect();
    assert_eq!(rows, [0, 1, 3]);
}

#[test]
fn not_null_columns_take_no_null() {
    let field = SqlType::Int8.to_field("c", false);
    let values: Vec<Option<&[u8]>> = vec![Some(b"1"), None, Some(b"x")];
    let mut bad = BadRows::default();
    let cells = Cells { values: &values, rows: None, column: "c" };
    column(&field, cells, &mut bad).expect("integers");
    let told: Vec<String> = bad.into_messages().map(|(_, message)| message).collect();
    assert_eq!(
        told,
        [
            "null value in column \"c\" violates not-null constraint",
            "column \"c\": invalid input syntax for type bigint: \"x\"",
        ]
    );
}
