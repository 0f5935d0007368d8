//! Expected text and bytes are Postgres 15's, with TimeZone Europe/Berlin.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Schema};

use super::*;
use crate::frontend::encode::{Style, encode_batch};
use crate::types::text::datetime::DateOrder;
use crate::types::text::zone::Zone;
use SqlType as T;

fn berlin() -> Zone {
    Zone::parse("Europe/Berlin").expect("a zone")
}

fn context() -> Context {
    let dates = DateContext { zone: berlin(), order: DateOrder::Mdy, now_us: 0 };
    Context { dates, interval: IntervalStyle::Postgres }
}

fn array(item: T) -> T {
    T::Array(Box::new(item))
}

/// The first value of `column` as it goes over the wire; `None` is NULL.
fn encoded(sql_type: &T, column: &ArrayRef, format: Format) -> Result<Option<Vec<u8>>> {
    let schema = Arc::new(Schema::new(vec![sql_type.to_field("c", true)]));
    let batch = RecordBatch::try_new(schema, vec![column.clone()]).expect("a column of its type");
    let style = Style { zone: berlin(), ..Style::default() };
    let mut out = BytesMut::new();
    encode_batch(&batch, &[format], &style, &mut out)?;
    // D, length, number of columns, length of the value.
    assert_eq!((out[0], &out[5..7]), (b'D', &[0, 1][..]));
    let length = i32::from_be_bytes(out[7..11].try_into().expect("four bytes"));
    Ok((length >= 0).then(|| out[11..11 + length as usize].to_vec()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex"))
        .collect()
}

/// Text in, then text and binary out, then binary in again.
fn check(sql_type: &T, text: &str, expected_text: &str, expected_binary: &str) {
    let column = decode_parameter(Some(text.as_bytes()), Format::Text, sql_type, &context());
    let column = column.expect(text);
    assert_eq!(*column.data_type(), sql_type.to_arrow());
    let out = encoded(sql_type, &column, Format::Text).expect(text).expect("not NULL");
    assert_eq!(String::from_utf8(out).expect("text"), expected_text, "{sql_type} {text}");
    let out = encoded(sql_type, &column, Format::Binary).expect(text).expect("not NULL");
    assert_eq!(hex(&out), expected_binary, "{sql_type} {text}");
    let back = decode_parameter(Some(&out), Format::Binary, sql_type, &context()).expect(text);
    assert_eq!(&back, &column, "{sql_type} {text}");
    let null = decode_parameter(None, Format::Binary, sql_type, &context()).expect("NULL");
    assert_eq!(encoded(sql_type, &null, Format::Text).expect("NULL"), None);
}

#[test]
fn values_travel_as_in_postgres() {
    let table = [
        (T::Boolean, "true", "t", "01"),
        (T::Boolean, "f", "f", "00"),
        (T::Int2, "-32768", "-32768", "8000"),
        (T::Int2, "7", "7", "0007"),
        (T::Int4, "2147483647", "2147483647", "7fffffff"),
        (T::Int4, "-1", "-1", "ffffffff"),
        (T::Int8, "-9223372036854775808", "-9223372036854775808", "8000000000000000"),
        (T::Int8, "0", "0", "0000000000000000"),
        (T::Float4, "1.5", "1.5", "3fc00000"),
        (T::Float4, "-Infinity", "-Infinity", "ff800000"),
        (T::Float4, "NaN", "NaN", "7fc00000"),
        (T::Float4, "1e10", "1e+10", "501502f9"),
        (T::Float8, "0.1", "0.1", "3fb999999999999a"),
        (T::Float8, "1e300", "1e+300", "7e37e43c8800759c"),
        (T::Float8, "-0", "-0", "8000000000000000"),
        (T::Numeric(10, 3), "0", "0.000", "0000000000000003"),
        (T::Numeric(10, 3), "1", "1.000", "00010000000000030001"),
        (T::Numeric(10, 3), "-1.5", "-1.500", "000200004000000300011388"),
        (T::Numeric(10, 3), "12345.678", "12345.678", "0003000100000003000109291a7c"),
        (T::Numeric(10, 3), "0.001", "0.001", "0001ffff00000003000a"),
        (T::Numeric(10, 3), "-0.010", "-0.010", "0001ffff400000030064"),
        (T::Numeric(10, 3), "10000", "10000.000", "00010001000000030001"),
        (T::Numeric(10, 3), "9999999.999", "9999999.999", "000300010000000303e7270f2706"),
        (T::Numeric(10, 3), "1000000", "1000000.000", "00010001000000030064"),
        (T::Numeric(10, 3), "0.5", "0.500", "0001ffff000000031388"),
        (
            T::Numeric(38, 0),
            "99999999999999999999999999999999999999",
            "99999999999999999999999999999999999999",
            "000a0009000000000063270f270f270f270f270f270f270f270f270f",
        ),
        (
            T::Numeric(38, 0),
            "100000000000000000000",
            "100000000000000000000",
            "00010005000000000001",
        ),
        (
            T::Numeric(38, 38),
            "0.00000000000000000000000000000000000001",
            "0.00000000000000000000000000000000000001",
            "0001fff6000000260064",
        ),
        (
            T::Numeric(38, 38),
            "-0.99999999999999999999999999999999999999",
            "-0.99999999999999999999999999999999999999",
            "000affff40000026270f270f270f270f270f270f270f270f270f26ac",
        ),
        (
            T::Numeric(38, 20),
            "123456789012345678.00000000000000000001",
            "123456789012345678.00000000000000000001",
            "000a000400000014000c0d801ed204d2162e00000000000000000001",
        ),
        (T::Numeric(38, 20), "1.00010000", "1.00010000000000000000", "000200000000001400010001"),
        (T::Text, "", "", ""),
        (T::Text, "héllo", "héllo", "68c3a96c6c6f"),
        (T::Text, "a\tb\nc", "a\tb\nc", "6109620a63"),
        (T::Text, "NULL", "NULL", "4e554c4c"),
        (T::Bytea, "\\x00ff10", "\\x00ff10", "00ff10"),
        (T::Bytea, "", "\\x", ""),
        (T::Bytea, "\\\\\\001a", "\\x5c0161", "5c0161"),
        (T::Date, "2024-02-29", "2024-02-29", "00002279"),
        (T::Date, "1999-12-31", "1999-12-31", "ffffffff"),
        (T::Date, "2000-01-01", "2000-01-01", "00000000"),
        (T::Date, "0044-03-15 BC", "0044-03-15 BC", "fff49d7b"),
        (T::Date, "10000-01-01", "10000-01-01", "002c95d4"),
        (T::Date, "infinity", "infinity", "7fffffff"),
        (T::Date, "-Infinity", "-infinity", "80000000"),
        (T::Timestamp, "infinity", "infinity", "7fffffffffffffff"),
        (T::Timestamp, "-infinity", "-infinity", "8000000000000000"),
        (T::Timestamptz, "infinity", "infinity", "7fffffffffffffff"),
        (T::Timestamptz, "-infinity", "-infinity", "8000000000000000"),
        (T::Time, "00:00:00", "00:00:00", "0000000000000000"),
        (T::Time, "23:59:59.999999", "23:59:59.999999", "000000141dd75fff"),
        (T::Time, "24:00:00", "24:00:00", "000000141dd76000"),
        (T::Timestamp, "2024-02-29 12:34:56.5", "2024-02-29 12:34:56.5", "0002b583416e1d20"),
        (T::Timestamp, "0001-01-01 00:00:00 BC", "0001-01-01 00:00:00 BC", "ff1fc63d1bb12000"),
        (T::Timestamp, "294246-12-31 23:59:59", "294246-12-31 23:59:59", "7ffca2465a941dc0"),
        (
            T::Timestamptz,
            "2024-02-29 12:34:56.789+02",
            "2024-02-29 11:34:56.789+01",
            "0002b581944b3e08",
        ),
        (
            T::Timestamptz,
            "1969-12-31 23:59:59.999999Z",
            "1970-01-01 00:59:59.999999+01",
            "fffca2fec4c81fff",
        ),
        (
            T::Interval,
            "1 year 2 mons 3 days 04:05:06.7",
            "1 year 2 mons 3 days 04:05:06.7",
            "000000036c966ee0000000030000000e",
        ),
        (T::Interval, "-1 day", "-1 days", "0000000000000000ffffffff00000000"),
        (T::Interval, "0", "00:00:00", "00000000000000000000000000000000"),
        (
            T::Uuid,
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
        ),
        (
            T::Json,
            "{\"a\" : 1, \"a\":2}",
            "{\"a\" : 1, \"a\":2}",
            "7b226122203a20312c202261223a327d",
        ),
        (
            T::Jsonb,
            "{\"bb\":[1,2], \"a\":null}",
            "{\"a\": null, \"bb\": [1, 2]}",
            "017b2261223a206e756c6c2c20226262223a205b312c20325d7d",
        ),
        (
            array(T::Int4),
            "{1,NULL,-3}",
            "{1,NULL,-3}",
            "00000001000000010000001700000003000000010000000400000001ffffffff00000004fffffffd",
        ),
        (array(T::Int4), "{}", "{}", "000000000000000000000017"),
        (
            array(T::Text),
            "{a,\"b c\",\"d\\\"e\",\"\",NULL,\"NULL\",\"{x}\",\"y,z\",\"\\\\\"}",
            "{a,\"b c\",\"d\\\"e\",\"\",NULL,\"NULL\",\"{x}\",\"y,z\",\"\\\\\"}",
            "00000001000000010000001900000009000000010000000161000000036220630000000364226500000000ffffffff000000044e554c4c000000037b787d00000003792c7a000000015c",
        ),
        (
            array(T::Text),
            "{ a b , c }",
            "{\"a b\",c}",
            "0000000100000000000000190000000200000001000000036120620000000163",
        ),
        (
            array(T::Float8),
            "{1.5,Infinity,1e20}",
            "{1.5,Infinity,1e+20}",
            "0000000100000000000002bd0000000300000001000000083ff8000000000000000000087ff0000000000000000000084415af1d78b58c40",
        ),
        (
            array(T::Numeric(6, 2)),
            "{1.005,-2}",
            "{1.01,-2.00}",
            "0000000100000000000006a400000002000000010000000c0002000000000002000100640000000a00010000400000020002",
        ),
        (
            array(T::Timestamptz),
            "{\"2024-01-01 00:00:00+00\",NULL}",
            "{\"2024-01-01 01:00:00+01\",NULL}",
            "0000000100000001000004a00000000200000001000000080002b0d5d4e94000ffffffff",
        ),
        (
            array(T::Date),
            "{\"0044-03-15 BC\",2024-01-01}",
            "{\"0044-03-15 BC\",2024-01-01}",
            "00000001000000000000043a000000020000000100000004fff49d7b000000040000223e",
        ),
        (
            array(T::Interval),
            "{\"1 day\",00:00:01}",
            "{\"1 day\",00:00:01}",
            "0000000100000000000004a2000000020000000100000010000000000000000000000001000000000000001000000000000f42400000000000000000",
        ),
        (
            array(T::Boolean),
            "{t,f,NULL}",
            "{t,f,NULL}",
            "000000010000000100000010000000030000000100000001010000000100ffffffff",
        ),
        (
            array(T::Bytea),
            "{\"\\\\x00ff\"}",
            "{\"\\\\x00ff\"}",
            "00000001000000000000001100000001000000010000000200ff",
        ),
        (
            array(T::Jsonb),
            "{\"{\\\"a\\\":1}\",NULL}",
            "{\"{\\\"a\\\": 1}\",NULL}",
            "000000010000000100000eda000000020000000100000009017b2261223a20317dffffffff",
        ),
        (
            array(T::Uuid),
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
            "000000010000000000000b86000000010000000100000010a0eebc999c0b4ef8bb6d6bb9bd380a11",
        ),
        (
            array(array(T::Int8)),
            "{{1,2},{3,NULL}}",
            "{{1,2},{3,NULL}}",
            "00000002000000010000001400000002000000010000000200000001000000080000000000000001000000080000000000000002000000080000000000000003ffffffff",
        ),
        (
            array(array(T::Int8)),
            "{{9}}",
            "{{9}}",
            "00000002000000000000001400000001000000010000000100000001000000080000000000000009",
        ),
        (
            array(array(T::Text)),
            "{{a,\"b}\"},{NULL,\"\"}}",
            "{{a,\"b}\"},{NULL,\"\"}}",
            "00000002000000010000001900000002000000010000000200000001000000016100000002627dffffffff00000000",
        ),
    ];
    for (sql_type, text, expected_text, expected_binary) in table {
        check(&sql_type, text, expected_text, expected_binary);
    }
}

#[test]
fn rows_travel_as_in_postgres() {
    let field = |name: &str, t| (name.to_owned(), t);
    let inner = T::Record(vec![field("yes", T::Boolean), field("s", T::Text)]);
    let row = T::Record(vec![
        field("a", T::Int4),
        field("b", T::Text),
        field("c", T::Text),
        field("d", array(T::Text)),
        field("e", T::Text),
        field("f", T::Text),
        field("g", inner),
        field("h", T::Numeric(4, 2)),
    ]);
    let text = r##"(1,"a b",,"{""x,y"",z}","","q""\\","(t,""in (side)"")",1.50)"##;
    let binary = "00000008000000170000000400000001000000190000000361206200000019ffffffff000003f100000020000000010000000000000019000000020000000100000003782c79000000017a0000001900000000000000190000000371225c000008c90000001e000000020000001000000001010000001900000009696e20287369646529000006a40000000c000200000000000200011388";
    check(&row, text, text, binary);
    let pair = T::Record(vec![field("a", T::Int4), field("b", T::Text)]);
    let text = r##"{"(1,\"a\"\"b\")","(2,)"}"##;
    let binary = "0000000100000000000008c900000002000000010000001b000000020000001700000004000000010000001900000003612262000000180000000200000017000000040000000200000019ffffffff";
    check(&array(pair), text, text, binary);
}

/// What a value is refused with: SQLSTATE, message.
fn refused(sql_type: &T, value: &[u8], format: Format) -> (String, String) {
    let error = decode_parameter(Some(value), format, sql_type, &context())
        .expect_err(&format!("{sql_type} {value:?}"));
    (error.sqlstate().0.to_owned(), error.message().to_owned())
}

#[test]
fn texts_that_are_no_values() {
    let row = T::Record(vec![("a".to_owned(), T::Int4), ("b".to_owned(), T::Int4)]);
    for (sql_type, text, sqlstate, message) in [
        (T::Int4, "x", "22P02", "invalid input syntax for type integer: \"x\""),
        (T::Jsonb, "{", "22P02", "invalid input syntax for type json"),
        (array(T::Int4), "1,2", "22P02", "malformed array literal: \"1,2\""),
        (array(T::Int4), "{1,2", "22P02", "malformed array literal: \"{1,2\""),
        (array(T::Int4), "{1,,2}", "22P02", "malformed array literal: \"{1,,2}\""),
        (array(T::Int4), "{1,}", "22P02", "malformed array literal: \"{1,}\""),
        (array(T::Int4), "{1}x", "22P02", "malformed array literal: \"{1}x\""),
        (array(T::Text), "{a\"b}", "22P02", "malformed array literal: \"{a\"b}\""),
        (array(T::Text), "{\"b}", "22P02", "malformed array literal: \"{\"b}\""),
        (array(T::Text), "{\\", "22P02", "malformed array literal: \"{\\\""),
        (array(T::Int4), "{1,x}", "22P02", "invalid input syntax for type integer: \"x\""),
        (
            array(T::Int4),
            "{{1},{2}}",
            "0A000",
            "a multidimensional value of type integer[] is not supported",
        ),
        (array(array(T::Int4)), "{{1},{2}", "22P02", "malformed array literal: \"{{1},{2}\""),
        (row.clone(), "1,2", "22P02", "malformed record literal: \"1,2\""),
        (row.clone(), "(1)", "22P02", "malformed record literal: \"(1)\""),
        (row.clone(), "(1,2,3)", "22P02", "malformed record literal: \"(1,2,3)\""),
        (row.clone(), "(1,2", "22P02", "malformed record literal: \"(1,2\""),
        (row.clone(), "(1,2)x", "22P02", "malformed record literal: \"(1,2)x\""),
        (row, "(1,x)", "22P02", "invalid input syntax for type integer: \"x\""),
    ] {
        let (state, text) = refused(&sql_type, text.as_bytes(), Format::Text);
        assert_eq!((state.as_str(), text.as_str()), (sqlstate, message));
    }
    let (state, message) = refused(&T::Text, b"a\xffb", Format::Text);
    assert_eq!(state, "22021");
    assert_eq!(message, "invalid byte sequence for encoding \"UTF8\": 0xff");
    assert_eq!(refused(&T::Text, b"a\0b", Format::Binary).0, "22021");
}

#[test]
fn bytes_that_are_no_values() {
    for (sql_type, value, sqlstate) in [
        (T::Int4, "000001", "22P03"),
        (T::Int2, "00000001", "22P03"),
        (T::Boolean, "", "22P03"),
        (T::Jsonb, "", "22P03"),
        (T::Jsonb, "027b7d", "22P03"),
        (T::Jsonb, "017b", "22P02"),
        (T::Uuid, "00", "22P03"),
        (T::Interval, "000000000000000000000000", "22P03"),
        (T::Timestamp, "7ffffffffffffffe", "22008"),
        (T::Date, "7ffffffe", "22008"),
        (T::Interval, "7fffffffffffffff0000000000000000", "22008"),
        // A group beyond 9999, a sign that is none, groups that are missing, too large, NaN.
        (T::Numeric(5, 2), "00010000000000002710", "22P03"),
        (T::Numeric(5, 2), "00010000123400000001", "22P03"),
        (T::Numeric(5, 2), "0002000000000000", "22P03"),
        (T::Numeric(5, 2), "00017fff000000000001", "22003"),
        (T::Numeric(5, 2), "00000000c0000000", "0A000"),
        // Two billion items in no bytes, a negative count, text items, two dimensions.
        (array(T::Int4), "0000000100000000000000177fffffff00000001", "22P03"),
        (array(T::Int4), "000000010000000000000017ffffffff00000001", "22P03"),
        (array(T::Int4), "0000000100000000000000190000000100000001000000016", "42804"),
        (array(T::Int4), "00000002000000000000001700000001000000010000000100000001", "0A000"),
        (array(array(T::Int4)), "000000010000000000000017000000010000000100000004000000", "42804"),
    ] {
        let value = if value.len() % 2 == 0 { value.to_owned() } else { format!("{value}1") };
        assert_eq!(
            refused(&sql_type, &bytes(&value), Format::Binary).0,
            sqlstate,
            "{sql_type} {value}"
        );
    }
    // An empty dimension beside a huge one is an empty array, at once.
    let empty = bytes("0000000200000000000000177fffffff000000010000000000000001");
    let column = decode_parameter(Some(&empty), Format::Binary, &array(array(T::Int4)), &context());
    let out = encoded(&array(array(T::Int4)), &column.expect("an array"), Format::Text);
    assert_eq!(out.expect("text").expect("not NULL"), b"{}");
}

#[test]
fn what_binary_format_rounds_and_widens() {
    let text = |sql_type: &T, value: &str| {
        let column = decode_parameter(Some(&bytes(value)), Format::Binary, sql_type, &context());
        let out = encoded(sql_type, &column.expect(value), Format::Text).expect(value);
        String::from_utf8(out.expect("not NULL")).expect("text")
    };
    // 1.005 with a scale of three, into two places; 12345678 from two groups.
    assert_eq!(text(&T::Numeric(5, 2), "000200000000000300010032"), "1.01");
    assert_eq!(text(&T::Numeric(38, 10), "000200010000000004d2162e"), "12345678");
    // Without a sign.
    assert_eq!(text(&T::Oid, "ffffffff"), "4294967295");
    let column =
        decode_parameter(Some(b"[2:4]={1,2,3}"), Format::Text, &array(T::Int4), &context());
    assert_eq!(
        column.expect("bounds").as_list::<i32>().value(0).as_primitive::<Int32Type>().len(),
        3
    );
}

#[test]
fn a_column_of_texts() {
    let mut column = ColumnBuilder::new(&T::Int4, 3);
    let texts = [Some("1"), None, Some(" 3 ")];
    column.append_texts(texts.into_iter(), &context()).expect("numbers");
    let (place, error) = column
        .append_texts([Some("4"), Some("y")].into_iter(), &context())
        .expect_err("y is no number");
    assert_eq!((place, error.message()), (1, "invalid input syntax for type integer: \"y\""));
    let mut column = ColumnBuilder::new(&array(T::Text), 3);
    column.append_texts([Some("{}"), None, Some("{a,b}")].into_iter(), &context()).expect("arrays");
    assert_eq!(column.len(), 3);
    let lists = column.finish();
    let lengths: Vec<_> = lists.as_list::<i32>().iter().map(|l| l.map(|l| l.len())).collect();
    assert_eq!(lengths, [Some(0), None, Some(2)]);
    assert!(column.is_empty());
}
