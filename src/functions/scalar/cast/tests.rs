//! Casts as text in, text out; expected values are what Postgres 16 prints.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray};

use super::*;
use crate::types::sql_type::SqlType as T;

fn settings(zone: &str) -> CastSettings {
    CastSettings { zone: Zone::parse(zone).expect("a zone"), now_us: 0 }
}

/// Reads `text` as `from`, casts it to `to`, and prints it.
fn cast(text: &str, from: &T, to: &T, zone: &str) -> Result<String> {
    let settings = settings(zone);
    let value: ArrayRef = Arc::new(StringArray::from(vec![Some(text), None]));
    let value = cast_array(&value, &T::Text, from, &settings)?;
    let value = cast_array(&value, from, to, &settings)?;
    assert_eq!(*value.data_type(), to.to_arrow(), "a cast gives its type");
    assert!(value.is_null(1), "NULL stays NULL");
    let text = cast_array(&value, to, &T::Text, &settings)?;
    Ok(text.as_string::<i32>().value(0).to_owned())
}

fn check(text: &str, from: &T, to: &T, expected: &str) {
    match cast(text, from, to, "UTC") {
        Ok(printed) => assert_eq!(printed, expected, "{text}::{from}::{to}"),
        Err(error) => {
            assert_eq!(
                format!("{}: {}", error.sqlstate().0, error.message()),
                expected,
                "{text}::{from}::{to}"
            );
        }
    }
}

#[test]
fn numbers_round_and_stay_in_range() {
    let numeric = T::Numeric(10, 2);
    check("2.5", &T::Float8, &T::Int4, "2");
    check("3.5", &T::Float8, &T::Int4, "4");
    check("-2.5", &T::Float8, &T::Int4, "-2");
    check("2.50", &numeric, &T::Int4, "3");
    check("-2.50", &numeric, &T::Int4, "-3");
    check("2147483647.4", &T::Float8, &T::Int4, "2147483647");
    check("2147483647.5", &T::Float8, &T::Int4, "22003: integer out of range");
    check("NaN", &T::Float8, &T::Int8, "22003: bigint out of range");
    check("9223372036854775807", &T::Float8, &T::Int8, "22003: bigint out of range");
    check("70000", &T::Int4, &T::Int2, "22003: smallint out of range");
    check("99999999.99", &numeric, &T::Int2, "22003: smallint out of range");
    check("0.1", &T::Float8, &T::Numeric(38, 10), "0.1");
    check("123.456", &T::Numeric(10, 3), &T::Numeric(5, 1), "123.5");
    check("99999", &T::Int4, &T::Numeric(4, 0), "22003: numeric field overflow");
    check("1e300", &T::Float8, &T::Float4, "22003: value out of range: overflow");
    check("1", &T::Int4, &T::Boolean, "true");
    check("f", &T::Boolean, &T::Int4, "0");
}

#[test]
fn text_is_read_and_printed_as_postgres_does() {
    check(" 12 ", &T::Text, &T::Int4, "12");
    check("12x", &T::Text, &T::Int4, "22P02: invalid input syntax for type integer: \"12x\"");
    check("yes", &T::Text, &T::Boolean, "true");
    check("\\x00ff", &T::Text, &T::Bytea, "\\x00ff");
    check(
        "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
        &T::Text,
        &T::Uuid,
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    );
    check("{\"b\":1, \"a\": [1,2]}", &T::Text, &T::Jsonb, "{\"a\": [1, 2], \"b\": 1}");
    check("{\"b\":1, \"a\": [1,2]}", &T::Text, &T::Json, "{\"b\":1, \"a\": [1,2]}");
    check("{", &T::Text, &T::Json, "22P02: invalid input syntax for type json");
    check("1 day 2 hours", &T::Text, &T::Interval, "1 day 02:00:00");
    check("1.500", &T::Numeric(10, 3), &T::Text, "1.500");
    check("1e20", &T::Float8, &T::Text, "1e+20");
}

#[test]
fn times_follow_the_zone() {
    check("1969-12-31 23:59:59", &T::Timestamp, &T::Date, "1969-12-31");
    check("2024-02-29 13:14:15.5", &T::Timestamp, &T::Time, "13:14:15.5");
    check("2024-02-29", &T::Date, &T::Timestamp, "2024-02-29 00:00:00");
    let berlin = |text, from, to| cast(text, from, to, "Europe/Berlin").expect("casts");
    assert_eq!(
        berlin("2024-07-01 12:00", &T::Timestamp, &T::Timestamptz),
        "2024-07-01 12:00:00+02"
    );
    assert_eq!(berlin("2024-07-01 22:30+00", &T::Timestamptz, &T::Date), "2024-07-02");
    assert_eq!(
        berlin("2024-01-01 00:00+00", &T::Timestamptz, &T::Timestamp),
        "2024-01-01 01:00:00"
    );
    assert_eq!(berlin("2024-01-01", &T::Date, &T::Timestamptz), "2024-01-01 00:00:00+01");
    check("25:00:00", &T::Interval, &T::Time, "01:00:00");
    check("01:02:03", &T::Time, &T::Interval, "01:02:03");
}

#[test]
fn arrays_and_rows_cast_item_by_item() {
    let ints = T::Array(Box::new(T::Int4));
    let texts = T::Array(Box::new(T::Text));
    check("{1, NULL,3}", &T::Text, &ints, "{1,NULL,3}");
    check(
        "{a,\"b c\",\"\",\"NULL\",\"q\\\"\"}",
        &T::Text,
        &texts,
        "{a,\"b c\",\"\",\"NULL\",\"q\\\"\"}",
    );
    check("{1.5,2.5}", &T::Array(Box::new(T::Float8)), &ints, "{2,2}");
    check("{{1,2},{3,4}}", &T::Text, &T::Array(Box::new(ints.clone())), "{{1,2},{3,4}}");
    check("{t,f}", &T::Text, &T::Array(Box::new(T::Boolean)), "{t,f}");
    check("{}", &T::Text, &ints, "{}");
    check("{1,", &T::Text, &ints, "22P02: malformed array literal: \"{1,\"");
    let row = T::Record(vec![("a".to_owned(), T::Int4), ("b".to_owned(), T::Text)]);
    check("(1,\"x, y\")", &T::Text, &row, "(1,\"x, y\")");
    check("(,)", &T::Text, &row, "(,)");
    check("(1)", &T::Text, &row, "22P02: malformed record literal: \"(1)\"");
}

#[test]
fn casts_that_postgres_lacks_are_missing() {
    assert_eq!(cast_kind(&T::Boolean, &T::Int8), CastKind::Missing);
    assert_eq!(cast_kind(&T::Date, &T::Int4), CastKind::Missing);
    assert_eq!(cast_kind(&T::Uuid, &T::Bytea), CastKind::Missing);
    assert_eq!(cast_kind(&T::Int4, &T::Int8), CastKind::Arrow);
    assert_eq!(cast_kind(&T::Int8, &T::Int4), CastKind::Function);
    assert_eq!(cast_kind(&T::Numeric(5, 2), &T::Numeric(10, 4)), CastKind::Arrow);
    assert_eq!(cast_kind(&T::Numeric(10, 4), &T::Numeric(10, 6)), CastKind::Function);
}
