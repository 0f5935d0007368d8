use super::*;

/// Reads each text in the zone America/New_York and prints what was read, or `!` and the
/// SQLSTATE; the right column is what Postgres 15 does.
fn check(
    table: &[(&str, &str)],
    convert: impl Fn(&str, &DateContext, &mut BytesMut) -> Result<()>,
) {
    let zone = Zone::parse("America/New_York").expect("a zone");
    let context = DateContext { zone, order: DateOrder::Mdy, now_us: 1_720_000_000_123_456 };
    for (text, expected) in table {
        let mut out = BytesMut::new();
        let shown = match convert(text, &context, &mut out) {
            Ok(()) => String::from_utf8(out.to_vec()).expect("text"),
            Err(error) => format!("!{}", error.sqlstate().0),
        };
        assert_eq!(shown, *expected, "{text}");
    }
}

#[test]
fn dates() {
    let table = [
        ("2024-01-02", "2024-01-02"),
        ("2024-1-2", "2024-01-02"),
        ("20240102", "2024-01-02"),
        ("240102", "2024-01-02"),
        ("1/8/1999", "1999-01-08"),
        ("1/8/99", "1999-01-08"),
        ("1/8/69", "2069-01-08"),
        ("January 8, 1999", "1999-01-08"),
        ("Jan 8 1999", "1999-01-08"),
        ("8 Jan 1999", "1999-01-08"),
        ("1999-Jan-08", "1999-01-08"),
        ("08-Jan-1999", "1999-01-08"),
        ("Jan-08-1999", "1999-01-08"),
        ("Mon Jan 8 1999", "1999-01-08"),
        ("2024/01/02", "2024-01-02"),
        ("2024.01.02", "2024-01-02"),
        ("0044-03-15 BC", "0044-03-15 BC"),
        ("10000-01-01", "10000-01-01"),
        ("2024-01-02 03:04:05+02", "2024-01-02"),
        ("2024-02-29", "2024-02-29"),
        ("2023-02-29", "!22008"),
        ("2024-13-01", "!22008"),
        ("2024-00-10", "!22008"),
        ("2024-01-32", "!22008"),
        ("0000-01-01", "!22008"),
        ("epoch", "1970-01-01"),
        ("2024-01", "!22007"),
        ("2024", "!22007"),
        ("x", "!22007"),
        ("", "!22007"),
        ("2024-01-02 x", "!22007"),
        ("99-01-02", "!22008"),
        ("12:00", "!22007"),
        ("-infinity", "-infinity"),
        (" Infinity ", "infinity"),
        ("+infinity", "infinity"),
        ("- infinity", "!22007"),
        ("inf", "!22007"),
        ("infinity BC", "!22007"),
        ("2024-01-02 infinity", "!22007"),
        ("today", "2024-07-03"),
        ("yesterday", "2024-07-02"),
    ];
    check(&table, |text, context, out| {
        write_date(parse_date(text, context)?, out);
        Ok(())
    });
}

#[test]
fn timestamps_with_a_zone() {
    let table = [
        ("2024-01-02 03:04:05", "2024-01-02 03:04:05-05"),
        ("2024-01-02T03:04:05.678", "2024-01-02 03:04:05.678-05"),
        ("2024-01-02t03:04:05Z", "2024-01-01 22:04:05-05"),
        ("20240102T030405", "2024-01-02 03:04:05-05"),
        ("20240102 030405.5", "2024-01-02 03:04:05.5-05"),
        ("2024-01-02 0304", "2024-01-02 03:04:00-05"),
        ("2024-01-02 03:04", "2024-01-02 03:04:00-05"),
        ("2024-01-02 3:4:5", "2024-01-02 03:04:05-05"),
        ("2024-01-02 03:04 PM", "2024-01-02 15:04:00-05"),
        ("2024-01-02 12:04 AM", "2024-01-02 00:04:00-05"),
        ("2024-01-02 13:04 PM", "!22008"),
        ("2024-01-02 24:00:00", "2024-01-03 00:00:00-05"),
        ("2024-01-02 23:59:60", "2024-01-03 00:00:00-05"),
        ("2024-01-02 24:00:01", "!22008"),
        ("2024-01-02 03:60:00", "!22008"),
        ("2024-01-02 03:04:05.9999995", "2024-01-02 03:04:06-05"),
        ("2024-01-02 03:04:05.1234564", "2024-01-02 03:04:05.123456-05"),
        ("2024-01-02 03:04:05 BC", "2024-01-02 03:04:05-04:56:02 BC"),
        ("2024-01-02 03:04:05+02", "2024-01-01 20:04:05-05"),
        ("2024-01-02 03:04:05-0330", "2024-01-02 01:34:05-05"),
        ("2024-01-02 03:04:05+05:30", "2024-01-01 16:34:05-05"),
        ("2024-01-02 03:04:05+05:30:15", "2024-01-01 16:33:50-05"),
        ("2024-01-02 03:04:05 UTC", "2024-01-01 22:04:05-05"),
        ("2024-01-02 03:04:05 EST", "2024-01-02 03:04:05-05"),
        ("2024-07-02 03:04:05 EDT", "2024-07-02 03:04:05-04"),
        ("2024-01-02 03:04:05 Europe/Berlin", "2024-01-01 21:04:05-05"),
        ("2024-07-02 03:04:05 europe/berlin", "2024-07-01 21:04:05-04"),
        ("2024-01-02 03:04:05 Mars/Base", "!22023"),
        ("2024-01-02", "2024-01-02 00:00:00-05"),
        ("Wed Jul 17 15:04:05 2024", "2024-07-17 15:04:05-04"),
        ("Jul 17 2024 3:04:05 pm", "2024-07-17 15:04:05-04"),
        ("17 July 2024 at 15:04:05 CET", "2024-07-17 10:04:05-04"),
        ("2024-03-10 02:30", "2024-03-10 03:30:00-04"),
        ("2024-11-03 01:30", "2024-11-03 01:30:00-05"),
        ("2024-01-02 03:04:05 06:07:08", "!22007"),
        ("2024-01-02 03:04:05+02+03", "!22007"),
        ("2024-01-02 03:04:05 foo", "!22007"),
        ("2024-01-02 03:", "2024-01-02 03:00:00-05"),
        ("allballs", "!22007"),
        ("epoch", "1969-12-31 19:00:00-05"),
        ("294277-01-01 00:00:00", "!22008"),
        ("now", "2024-07-03 05:46:40.123456-04"),
        ("tomorrow", "2024-07-04 00:00:00-04"),
        ("infinity", "infinity"),
        ("-INFINITY", "-infinity"),
        ("infinity+02", "!22007"),
    ];
    check(&table, |text, context, out| {
        write_timestamptz(parse_timestamptz(text, context)?, context.zone, out);
        Ok(())
    });
}

#[test]
fn timestamps() {
    let table = [
        ("2024-01-02 24:00:00", "2024-01-03 00:00:00"),
        ("2024-01-02 23:59:60", "2024-01-03 00:00:00"),
        ("2024-01-02 24:00:01", "!22008"),
        ("2024-01-02 03:60:00", "!22008"),
        ("2024-01-02 03:04:05 BC", "2024-01-02 03:04:05 BC"),
        ("2024-01-02 03:04:05+02", "2024-01-02 03:04:05"),
        ("2024-01-02 03:04:05+05:30", "2024-01-02 03:04:05"),
        ("2024-01-02 03:04:05+05:30:15", "2024-01-02 03:04:05"),
        ("2024-01-02 03:04:05 Europe/Berlin", "2024-01-02 03:04:05"),
        ("2024-01-02 03:04:05 Mars/Base", "!22023"),
        ("2024-01-02 03:04:05+02+03", "!22007"),
        ("epoch", "1970-01-01 00:00:00"),
    ];
    check(&table, |text, context, out| {
        write_timestamp(parse_timestamp(text, context)?, out);
        Ok(())
    });
}

#[test]
fn times() {
    let table = [
        ("04:05:06.789", "04:05:06.789"),
        ("04:05:06", "04:05:06"),
        ("04:05", "04:05:00"),
        ("040506", "04:05:06"),
        ("040506.5", "04:05:06.5"),
        ("0405", "04:05:00"),
        ("04:05 PM", "16:05:00"),
        ("04:05:06 PM", "16:05:06"),
        ("16:05 PM", "!22008"),
        ("24:00", "24:00:00"),
        ("24:00:01", "!22008"),
        ("23:59:60", "24:00:00"),
        ("2003-04-12 04:05:06", "04:05:06"),
        ("04:05:06-08", "04:05:06"),
        ("04", "!22007"),
        ("x", "!22007"),
        ("", "!22007"),
    ];
    check(&table, |text, context, out| {
        write_time(parse_time(text, context)?, out);
        Ok(())
    });
}

#[test]
fn the_order_of_a_date_is_a_setting() {
    let read = |order, text| {
        let context = DateContext { zone: Zone::UTC, order, now_us: 0 };
        parse_date(text, &context).map(|days| civil(i64::from(days)))
    };
    assert_eq!(read(DateOrder::Ymd, "99-01-08").expect("a date"), (1999, 1, 8));
    assert_eq!(read(DateOrder::Dmy, "08/01/1999").expect("a date"), (1999, 1, 8));
    let error = read(DateOrder::Mdy, "99-01-08").expect_err("month 99");
    assert_eq!(error.message(), "date/time field value out of range: \"99-01-08\"");
    let hint = error.body().hint.as_deref();
    assert_eq!(hint, Some("Perhaps you need a different \"datestyle\" setting."));
    let error = read(DateOrder::Mdy, "x").expect_err("no date");
    assert_eq!(error.message(), "invalid input syntax for type date: \"x\"");
}

/// chrono is the oracle for the calendar.
#[test]
fn the_calendar_is_chronos() {
    use chrono::Datelike;
    let epoch = chrono::NaiveDate::from_ymd_opt(1970, 1, 1).expect("a date");
    for days in (-1_000_000..1_000_000).step_by(97) {
        let date = epoch + chrono::Duration::days(days);
        let expected = (i64::from(date.year()), date.month(), date.day());
        assert_eq!(civil(days), expected, "day {days}");
        assert_eq!(days_from_civil(expected.0, expected.1, expected.2), days);
    }
}

/// Expected: Postgres 15.
#[test]
fn zones_go_on_beyond_their_tables() {
    for (us, zone, expected) in [
        (468393026089197625, "Europe/Berlin", "16812-10-13 15:54:49.197625+02"),
        (9080584806672962052, "Europe/Berlin", "289722-04-12 06:31:12.962052+02"),
        (192928712264475257, "America/St_Johns", "8083-09-01 02:27:44.475257-02:30"),
        (-2524521600000000, "Europe/Berlin", "1890-01-01 00:53:28+00:53:28"),
        (-62135596800000001, "UTC", "0001-12-31 23:59:59.999999+00 BC"),
    ] {
        let mut out = BytesMut::new();
        write_timestamptz(us, Zone::parse(zone).expect(zone), &mut out);
        assert_eq!(std::str::from_utf8(&out).expect("text"), expected);
    }
}

#[test]
fn nothing_panics_at_the_ends() {
    let mut out = BytesMut::new();
    let zone = Zone::parse("Asia/Kolkata").expect("a zone");
    for us in [i64::MIN, i64::MIN + 1, i64::MAX] {
        write_timestamp(us, &mut out);
        write_timestamptz(us, zone, &mut out);
        write_time(us, &mut out);
    }
    write_date(i32::MIN, &mut out);
    write_date(i32::MAX, &mut out);
    let context = DateContext { zone, order: DateOrder::Mdy, now_us: 0 };
    for text in [
        "9999999-12-31",
        "99999999-12-31 BC",
        "1-1-1 99:99:99",
        "é",
        "2024-01-02é",
        "Z/",
        "1:1:1.",
        "+",
    ] {
        let _ = parse_timestamptz(text, &context);
        let _ = parse_date(text, &context);
        let _ = parse_time(text, &context);
    }
}
