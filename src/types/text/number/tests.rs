use super::*;

fn written(write: impl FnOnce(&mut BytesMut)) -> String {
    let mut out = BytesMut::new();
    write(&mut out);
    String::from_utf8(out.to_vec()).expect("text")
}

/// A value as `write` prints it, or `!` and the SQLSTATE.
fn shown<T>(read: Result<T>, write: impl FnOnce(T, &mut BytesMut)) -> String {
    match read {
        Ok(value) => written(|out| write(value, out)),
        Err(error) => format!("!{}", error.sqlstate().0),
    }
}

/// Right column: what Postgres 15 prints. The last of each kind lie exactly between two floats.
#[test]
fn floats_print_as_in_postgres() {
    for (value, expected) in [
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (-1.5, "-1.5"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1e14, "100000000000000"),
        (1e15, "1e+15"),
        (123456789012345.6, "123456789012345.6"),
        (1234567890123456.7, "1.2345678901234568e+15"),
        (1e-4, "0.0001"),
        (1e-5, "1e-05"),
        (1.25e-7, "1.25e-07"),
        (1e100, "1e+100"),
        (f64::MAX, "1.7976931348623157e+308"),
        (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
        (5e-324, "5e-324"),
        (f64::INFINITY, "Infinity"),
        (f64::NEG_INFINITY, "-Infinity"),
        (f64::NAN, "NaN"),
        (618970019642690137449562112.0, "6.189700196426902e+26"),
        (9007199254740993.0, "9.007199254740992e+15"),
        (1e23, "9.999999999999999e+22"),
        (8.41e21, "8.409999999999999e+21"),
    ] {
        assert_eq!(written(|out| write_float8(value, out)), expected);
    }
    for (value, expected) in [
        (100000.0, "100000"),
        (1e6, "1e+06"),
        (16777216.0, "1.6777216e+07"),
        (9.5e-7, "9.5e-07"),
        (0.1, "0.1"),
        (3.4028235e38, "3.4028235e+38"),
        (1e-45, "1e-45"),
        (8589934592.0, "8.589935e+09"),
        (-0.0, "-0"),
        (f32::NAN, "NaN"),
    ] {
        assert_eq!(written(|out| write_float4(value, out)), expected);
    }
}

/// Expected: Postgres 15 with extra_float_digits = 0 and -15.
#[test]
fn floats_print_rounded() {
    for (value, digits, expected) in [
        (0.1 + 0.2, 15, "0.3"),
        (1e15, 15, "1e+15"),
        (123456789012345.6, 15, "123456789012346"),
        (1234.5, 0, "1e+03"),
        (0.05, 0, "0.05"),
        (f64::from(0.1f32), 6, "0.1"),
        (-0.0, 6, "-0"),
        (f64::NEG_INFINITY, 6, "-Infinity"),
    ] {
        assert_eq!(written(|out| write_float_rounded(value, digits, out)), expected);
    }
}

#[test]
fn floats_read_back() {
    let mut bits: u64 = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..20_000 {
        // A multiplicative generator; any spread over the bit patterns will do.
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let wide = f64::from_bits(bits);
        let narrow = f32::from_bits((bits >> 32) as u32);
        if !wide.is_nan() {
            let text = written(|out| write_float8(wide, out));
            assert_eq!(parse_float8(&text).expect("a float").to_bits(), wide.to_bits(), "{text}");
        }
        if !narrow.is_nan() {
            let text = written(|out| write_float4(narrow, out));
            assert_eq!(parse_float4(&text).expect("a float").to_bits(), narrow.to_bits(), "{text}");
        }
    }
}

#[test]
fn floats_are_read_as_in_postgres() {
    for (text, expected) in [
        ("1.5", "1.5"),
        ("1e400", "!22003"),
        ("1e-400", "!22003"),
        ("4.9e-324", "5e-324"),
        ("inf", "Infinity"),
        ("-Infinity", "-Infinity"),
        ("+inf", "Infinity"),
        ("nan", "NaN"),
        ("-nan", "NaN"),
        ("NaN", "NaN"),
        (" 1 ", "1"),
        ("1e", "!22P02"),
        (".5", "0.5"),
        ("5.", "5"),
        ("1.5x", "!22P02"),
        ("infinit", "!22P02"),
        ("", "!22P02"),
        ("+", "!22P02"),
        ("1_0", "!22P02"),
    ] {
        assert_eq!(shown(parse_float8(text), write_float8), expected, "{text}");
    }
    for (text, expected) in [
        ("1e39", "!22003"),
        ("1e-46", "!22003"),
        ("3.4028235e38", "3.4028235e+38"),
        ("1e-45", "1e-45"),
        ("0e-100", "0"),
    ] {
        assert_eq!(shown(parse_float4(text), write_float4), expected, "{text}");
    }
    let error = parse_float8("1e400").expect_err("too large");
    assert_eq!(error.message(), "\"1e400\" is out of range for type double precision");
}

#[test]
fn integers_are_read_as_in_postgres() {
    for (text, expected) in [
        ("1", "1"),
        ("-5", "-5"),
        ("+7", "7"),
        (" 42 ", "42"),
        ("2147483647", "2147483647"),
        ("2147483648", "!22003"),
        ("-2147483648", "-2147483648"),
        ("1.0", "!22P02"),
        ("1e3", "!22P02"),
        ("0x10", "!22P02"),
        ("x", "!22P02"),
        ("", "!22P02"),
        ("-", "!22P02"),
        ("99999999999999999999", "!22003"),
    ] {
        let read = parse_int4(text).map(i64::from);
        assert_eq!(shown(read, write_integer), expected, "{text}");
    }
    assert_eq!(parse_int8("-9223372036854775808").expect("the least"), i64::MIN);
    let error = parse_int2("32768").expect_err("too large");
    assert_eq!(error.message(), "value \"32768\" is out of range for type smallint");
    let error = parse_int8("1x").expect_err("no number");
    assert_eq!(error.message(), "invalid input syntax for type bigint: \"1x\"");
}

#[test]
fn numerics_are_read_as_in_postgres() {
    for (text, expected) in [
        ("1", "1.00"),
        ("-1.005", "-1.01"),
        ("+1.5", "1.50"),
        (".5", "0.50"),
        ("5.", "5.00"),
        ("1e3", "!22003"),
        ("1.5e-2", "0.02"),
        ("999.994", "999.99"),
        ("999.995", "!22003"),
        ("1000", "!22003"),
        (" 12 ", "12.00"),
        ("-0", "0.00"),
        ("1e400", "!22003"),
        ("-1e-400", "0.00"),
        ("0.00499", "0.00"),
        ("0.005", "0.01"),
        ("1e", "!22P02"),
        (".", "!22P02"),
        ("1.2.3", "!22P02"),
        ("1_0", "!22P02"),
        ("0x10", "!22P02"),
        ("12a", "!22P02"),
        ("", "!22P02"),
    ] {
        let read = parse_numeric(text, 5, 2);
        assert_eq!(shown(read, |value, out| write_numeric(value, 2, out)), expected, "{text}");
    }
    let most = "9".repeat(38);
    let read = parse_numeric(&most, 38, 0);
    assert_eq!(shown(read, |value, out| write_numeric(value, 0, out)), most);
    assert_eq!(shown(parse_numeric(&(most + "9"), 38, 0), |_, _| ()), "!22003");
    assert_eq!(shown(parse_numeric("NaN", 5, 2), |_, _| ()), "!0A000");
    assert_eq!(parse_numeric("12345", 5, -2).expect("rounded to hundreds"), 123);
    let error = parse_numeric("1000", 5, 2).expect_err("too large");
    assert_eq!(
        error.body().detail.as_deref(),
        Some("A field with precision 5, scale 2 must round to an absolute value less than 10^3.")
    );
}

#[test]
fn numerics_print_their_scale() {
    for (value, scale, expected) in [
        (0, 0, "0"),
        (0, 3, "0.000"),
        (-5, 3, "-0.005"),
        (12345, 2, "123.45"),
        (12345, 5, "0.12345"),
        (-12345, -2, "-1234500"),
        (0, -2, "0"),
        (i128::MIN, 0, "-170141183460469231731687303715884105728"),
    ] {
        assert_eq!(written(|out| write_numeric(value, scale, out)), expected);
    }
    assert_eq!(trim_numeric(12300, 4), (123, 2));
    assert_eq!(trim_numeric(-10000, 4), (-1, 0));
    assert_eq!(trim_numeric(0, 10), (0, 0));
    assert_eq!(trim_numeric(1200, 0), (1200, 0));
}
