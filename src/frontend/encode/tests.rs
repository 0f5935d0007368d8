//! Values of every SQL type are checked beside their decoding; here are the columns that only the
//! engine makes, and rows as a whole.

use std::sync::Arc;

use arrow::array::{
    BooleanArray, Date64Array, Decimal128Array, DictionaryArray, DurationMillisecondArray,
    FixedSizeListArray, Float16Array, Int8Array, Int64Array, IntervalDayTimeArray,
    IntervalYearMonthArray, LargeListArray, ListArray, NullArray, Time32SecondArray,
    Time64NanosecondArray, TimestampNanosecondArray, TimestampSecondArray, UInt8Array, UInt16Array,
    UInt32Array, UInt64Array,
};
use arrow::datatypes::{Int32Type, IntervalDayTime};

use super::*;

/// All rows of a column as text; NULL is `∅`.
fn texts(array: ArrayRef) -> Result<Vec<String>> {
    let schema = Arc::new(Schema::new(vec![Field::new("c", array.data_type().clone(), true)]));
    let batch = RecordBatch::try_new(schema, vec![array]).expect("a batch");
    let mut out = BytesMut::new();
    encode_batch(&batch, &[Format::Text], &Style::default(), &mut out)?;
    Ok(rows(&out).into_iter().map(|row| row.into_iter().next().expect("one column")).collect())
}

/// Takes DataRow messages apart.
fn rows(mut bytes: &[u8]) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    while let [b'D', a, b, c, d, rest @ ..] = bytes {
        let length = i32::from_be_bytes([*a, *b, *c, *d]) as usize - 4;
        let (mut row, after) = rest.split_at(length);
        let count = i16::from_be_bytes([row[0], row[1]]);
        row = &row[2..];
        let mut values = Vec::new();
        for _ in 0..count {
            let length = i32::from_be_bytes(row[..4].try_into().expect("four bytes"));
            row = &row[4..];
            if length < 0 {
                values.push("∅".to_owned());
                continue;
            }
            let (value, rest) = row.split_at(length as usize);
            values.push(String::from_utf8_lossy(value).into_owned());
            row = rest;
        }
        assert!(row.is_empty(), "the message is as long as it says");
        rows.push(values);
        bytes = after;
    }
    assert!(bytes.is_empty(), "only DataRow messages");
    rows
}

#[test]
fn columns_that_only_the_engine_makes() {
    let noon_ns = 43_200_000_000_000;
    for (array, expected) in [
        (Arc::new(NullArray::new(2)) as ArrayRef, vec!["∅", "∅"]),
        (Arc::new(Int8Array::from(vec![-128, 127])), vec!["-128", "127"]),
        (Arc::new(UInt8Array::from(vec![255])), vec!["255"]),
        (Arc::new(UInt16Array::from(vec![65535])), vec!["65535"]),
        (Arc::new(UInt32Array::from(vec![u32::MAX])), vec!["4294967295"]),
        (Arc::new(UInt64Array::from(vec![Some(7), None])), vec!["7", "∅"]),
        (Arc::new(Float16Array::from_iter_values([Default::default()])), vec!["0"]),
        (Arc::new(LargeStringArray::from(vec!["a", ""])), vec!["a", ""]),
        (Arc::new(StringViewArray::from(vec![Some("a"), None])), vec!["a", "∅"]),
        (Arc::new(BinaryViewArray::from(vec![&b"\x01"[..]])), vec!["\\x01"]),
        (Arc::new(LargeBinaryArray::from(vec![&b"\xff"[..]])), vec!["\\xff"]),
        (Arc::new(Date64Array::from(vec![86_400_000])), vec!["1970-01-02"]),
        (Arc::new(Time32SecondArray::from(vec![61])), vec!["00:01:01"]),
        (Arc::new(Time64NanosecondArray::from(vec![noon_ns + 1500])), vec!["12:00:00.000001"]),
        (Arc::new(TimestampSecondArray::from(vec![-1])), vec!["1969-12-31 23:59:59"]),
        (
            Arc::new(TimestampNanosecondArray::from(vec![-1]).with_timezone("+00:00")),
            vec!["1969-12-31 23:59:59.999999+00"],
        ),
        (Arc::new(IntervalYearMonthArray::from(vec![14])), vec!["1 year 2 mons"]),
        (
            Arc::new(IntervalDayTimeArray::from(vec![IntervalDayTime::new(-1, 500)])),
            vec!["-1 days +00:00:00.5"],
        ),
        // As the difference of timestamps shows in Postgres.
        (Arc::new(DurationMillisecondArray::from(vec![129_600_000])), vec!["1 day 12:00:00"]),
        (
            Arc::new(["b", "a", "b"].into_iter().collect::<DictionaryArray<Int32Type>>()),
            vec!["b", "a", "b"],
        ),
        (
            Arc::new(
                Decimal128Array::from(vec![15_000_000_000])
                    .with_data_type(DataType::Decimal128(38, 10)),
            ),
            vec!["1.5"],
        ),
    ] {
        assert_eq!(texts(array).expect("text"), expected);
    }
    let error = texts(Arc::new(UInt64Array::from(vec![u64::MAX]))).expect_err("beyond bigint");
    assert_eq!((error.sqlstate().0, error.message()), ("22003", "bigint out of range"));
}

#[test]
fn lists_of_all_layouts_and_slices() {
    let list = || {
        ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
            Some(vec![Some(1), None]),
            None,
            Some(vec![]),
            Some(vec![Some(4)]),
        ])
    };
    let expected = ["{1,NULL}", "∅", "{}", "{4}"];
    assert_eq!(texts(Arc::new(list())).expect("text"), expected);
    assert_eq!(texts(Arc::new(list().slice(1, 3))).expect("text"), expected[1..]);
    let large = arrow::compute::cast(
        &list(),
        &DataType::LargeList(Arc::new(Field::new("item", DataType::Int32, true))),
    );
    let large: LargeListArray = large.expect("a list").as_list().clone();
    assert_eq!(texts(Arc::new(large)).expect("text"), expected);
    let fixed = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(
        vec![Some(vec![Some(1), Some(2)]), None, Some(vec![Some(3), Some(4)])],
        2,
    );
    assert_eq!(texts(Arc::new(fixed.slice(1, 2))).expect("text"), ["∅", "{3,4}"]);
}

#[test]
fn a_ragged_array_has_no_binary_form() {
    let inner = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
        Some(vec![Some(1)]),
        Some(vec![Some(2), Some(3)]),
    ]);
    let field = Arc::new(Field::new("item", inner.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths([1, 1, 2]);
    let three = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
        Some(vec![Some(9)]),
        Some(vec![Some(8)]),
        Some(vec![Some(1)]),
        Some(vec![Some(2), Some(3)]),
    ]);
    let list = Arc::new(ListArray::new(field, offsets, Arc::new(three), None));
    assert_eq!(texts(list.clone()).expect("text"), ["{{9}}", "{{8}}", "{{1},{2,3}}"]);
    let schema = Arc::new(Schema::new(vec![Field::new("c", list.data_type().clone(), true)]));
    let batch = RecordBatch::try_new(schema, vec![list]).expect("a batch");
    let mut out = BytesMut::from(&b"before"[..]);
    let error = encode_batch(&batch, &[Format::Binary], &Style::default(), &mut out);
    assert_eq!(error.expect_err("no box").sqlstate().0, "2202E");
    assert_eq!(&out[..], b"before", "a batch that fails leaves nothing behind");
    // Row by row, the good rows before it stay.
    let mut encoder =
        BatchEncoder::new(&batch, &[Format::Binary], Style::default()).expect("ready");
    out.clear();
    assert!(encoder.encode_rows(0..3, &mut out).is_err());
    assert_eq!(rows(&out).len(), 2);
}

#[test]
fn rows_of_many_columns() {
    let schema = Arc::new(Schema::new(vec![
        Field::new("a", DataType::Int64, true),
        Field::new("b", DataType::Utf8, true),
        Field::new("c", DataType::Boolean, true),
    ]));
    let batch = RecordBatch::try_new(
        schema.clone(),
        vec![
            Arc::new(Int64Array::from(vec![Some(1), None])),
            Arc::new(StringArray::from(vec![None, Some("x")])),
            Arc::new(BooleanArray::from(vec![true, false])),
        ],
    )
    .expect("a batch");
    let mut out = BytesMut::new();
    encode_batch(&batch, &[Format::Text; 3], &Style::default(), &mut out).expect("text");
    assert_eq!(rows(&out), [["1", "∅", "t"], ["∅", "x", "f"]]);
    let expected = b"D\0\0\0\x1f\0\x03\0\0\0\x08\0\0\0\0\0\0\0\x01\xff\xff\xff\xff\0\0\0\x01\x01";
    out.clear();
    let mut encoder =
        BatchEncoder::new(&batch, &[Format::Binary; 3], Style::default()).expect("ready");
    encoder.encode_rows(0..1, &mut out).expect("binary");
    let length = expected.len() as u8 - 1;
    assert_eq!(out[4], length);
    assert_eq!(out[5..], expected[5..]);
    let description = describe(&schema, &[Format::Text, Format::Binary, Format::Text]);
    let shown: Vec<_> = description
        .expect("types that SQL has")
        .fields
        .iter()
        .map(|f| (f.name.clone(), f.type_id, f.type_size, f.type_modifier, f.format_code))
        .collect();
    let expected = [("a", 20, 8, -1, 0), ("b", 25, -1, -1, 1), ("c", 16, 1, -1, 0)]
        .map(|(n, t, s, m, f)| (n.to_owned(), t, s, m, f));
    assert_eq!(shown, expected);
}

#[test]
fn type_modifiers_are_postgres_s() {
    // pg_attribute.atttypmod of numeric(10,3) and numeric(38,0) columns.
    assert_eq!(numeric_modifier(&SqlType::Numeric(10, 3)), 655_367);
    assert_eq!(numeric_modifier(&SqlType::Numeric(38, 0)), 2_490_372);
    assert_eq!(numeric_modifier(&SqlType::Numeric(38, 10)), -1);
    let error = describe(
        &Schema::new(vec![Field::new("m", DataType::Decimal256(50, 2), true)]),
        &[Format::Text],
    )
    .expect_err("no SQL type");
    assert_eq!(error.sqlstate().0, "0A000");
}

#[test]
fn char_n_is_filled_up_in_both_formats() {
    let field = Modifier::Char(4).mark(SqlType::Text.to_field("c", true));
    let schema = Arc::new(Schema::new(vec![field]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("äb"), Some("abcd"), None]));
    let batch = RecordBatch::try_new(schema.clone(), vec![texts]).expect("one column");
    for format in [Format::Text, Format::Binary] {
        let description = describe(&schema, &[format]).expect("describes");
        assert_eq!((description.fields[0].type_id, description.fields[0].type_modifier), (1042, 8));
        let mut out = BytesMut::new();
        encode_batch(&batch, &[format], &Style::default(), &mut out).expect("encodes");
        assert!(out.windows(9).any(|w| w == b"\0\0\0\x05\xc3\xa4b  "));
        assert!(out.windows(8).any(|w| w == b"\0\0\0\x04abcd"));
    }
}
