use super::*;

fn shown(interval: Interval, style: IntervalStyle) -> String {
    let mut out = BytesMut::new();
    write_interval(interval, style, &mut out);
    String::from_utf8(out.to_vec()).expect("text")
}

/// Right column: what Postgres 15 prints, or `!` and the SQLSTATE.
#[test]
fn what_is_read() {
    for (text, expected) in [
        ("1 year 2 mons 3 days 04:05:06.7", "1 year 2 mons 3 days 04:05:06.7"),
        ("1-2", "1 year 2 mons"),
        ("-1-2 3 04:05", "-1 years -2 mons +3 days 04:05:00"),
        ("P1Y2M3DT4H5M6.7S", "1 year 2 mons 3 days 04:05:06.7"),
        ("P0001-02-03T04:05:06", "1 year 2 mons 3 days 04:05:06"),
        ("P-1Y2M", "-10 mons"),
        ("PT36H", "36:00:00"),
        ("1", "00:00:01"),
        ("30.5", "00:00:30.5"),
        ("1.5 days", "1 day 12:00:00"),
        ("1.5 months", "1 mon 15 days"),
        ("1.5 years", "1 year 6 mons"),
        ("0.1 years", "1 mon"),
        ("1.05 months", "1 mon 1 day 12:00:00"),
        ("+1.5 weeks", "10 days 12:00:00"),
        ("1 12:30", "1 day 12:30:00"),
        ("-1 day 02:03", "-1 days +02:03:00"),
        ("-02:03:04", "-02:03:04"),
        ("1 day ago", "-1 days"),
        ("1 year -1 day ago", "-1 years +1 day"),
        ("@ 1 minute", "00:01:00"),
        ("@ 4 hours 5 mins 6.7 secs ago", "-04:05:06.7"),
        ("1d 2h 3m 4s", "1 day 02:03:04"),
        ("1 ms 2 us", "00:00:00.001002"),
        ("1.5 millisecond", "00:00:00.0015"),
        ("2 decades 1 century 1 millennium", "1120 years"),
        ("0.00001 day", "00:00:00.864"),
        ("1 day 1 day", "!22007"),
        ("2147483648 days", "!22015"),
        ("1 fortnight", "!22007"),
        ("", "!22007"),
        ("x", "!22007"),
        ("1 2", "!22007"),
        ("1:2:3:4", "!22007"),
        ("ago", "!22007"),
        ("1 day 25:61", "!22015"),
        ("P", "!22007"),
        ("PT1Y", "!22007"),
        ("1.", "00:00:01"),
        (".5 days", "12:00:00"),
        ("1 day,2 hours", "1 day 02:00:00"),
        ("-  1 day", "-1 days"),
        ("5 days -3:00", "5 days -03:00:00"),
        ("+3:00", "03:00:00"),
        ("1:02.5", "00:01:02.5"),
        ("00:00", "00:00:00"),
        ("1e3 days", "!22007"),
        ("1 mon 2 mons 3 m", "!22007"),
    ] {
        let read = match parse_interval(text, IntervalStyle::Postgres) {
            Ok(interval) => shown(interval, IntervalStyle::Postgres),
            Err(error) => format!("!{}", error.sqlstate().0),
        };
        assert_eq!(read, expected, "{text}");
    }
}

/// Expected: Postgres 15.
#[test]
fn four_styles() {
    let styles = ["postgres", "postgres_verbose", "sql_standard", "iso_8601"];
    for (months, days, us, expected) in [
        (0, 0, 0_i64, ["00:00:00", "@ 0", "0", "PT0S"]),
        (
            14,
            3,
            14706700000_i64,
            [
                "1 year 2 mons 3 days 04:05:06.7",
                "@ 1 year 2 mons 3 days 4 hours 5 mins 6.7 secs",
                "+1-2 +3 +4:05:06.7",
                "P1Y2M3DT4H5M6.7S",
            ],
        ),
        (
            -14,
            3,
            -14706700000_i64,
            [
                "-1 years -2 mons +3 days -04:05:06.7",
                "@ 1 year 2 mons -3 days 4 hours 5 mins 6.7 secs ago",
                "-1-2 +3 -4:05:06.7",
                "P-1Y-2M3DT-4H-5M-6.7S",
            ],
        ),
        (
            -14,
            -3,
            -14706700000_i64,
            [
                "-1 years -2 mons -3 days -04:05:06.7",
                "@ 1 year 2 mons 3 days 4 hours 5 mins 6.7 secs ago",
                "-1-2 -3 -4:05:06.7",
                "P-1Y-2M-3DT-4H-5M-6.7S",
            ],
        ),
        (
            0,
            -19,
            -49781600040_i64,
            [
                "-19 days -13:49:41.60004",
                "@ 19 days 13 hours 49 mins 41.60004 secs ago",
                "-19 13:49:41.60004",
                "P-19DT-13H-49M-41.60004S",
            ],
        ),
        (0, 0, -500000_i64, ["-00:00:00.5", "@ 0.5 secs ago", "-0:00:00.5", "PT-0.5S"]),
        (1, 0, 0_i64, ["1 mon", "@ 1 mon", "0-1", "P1M"]),
        (
            -12,
            1,
            1000000_i64,
            [
                "-1 years +1 day 00:00:01",
                "@ 1 year -1 days -1 sec ago",
                "-1-0 +1 +0:00:01",
                "P-1Y1DT1S",
            ],
        ),
        (
            0,
            5,
            360000000000_i64,
            ["5 days 100:00:00", "@ 5 days 100 hours", "5 100:00:00", "P5DT100H"],
        ),
        (0, 0, -61000000_i64, ["-00:01:01", "@ 1 min 1 sec ago", "-0:01:01", "PT-1M-1S"]),
    ] {
        let interval = Interval { months, days, us };
        for (style, expected) in styles.into_iter().zip(expected) {
            let style = IntervalStyle::parse(style).expect("a style");
            assert_eq!(shown(interval, style), expected);
            assert_eq!(parse_interval(expected, style).expect(expected), interval, "{expected}");
        }
    }
}

#[test]
fn nothing_panics_at_the_ends() {
    for us in [i64::MIN, i64::MAX] {
        for style in ["postgres", "postgres_verbose", "sql_standard", "iso_8601"] {
            let style = IntervalStyle::parse(style).expect("a style");
            let interval = Interval { months: i32::MIN, days: i32::MIN, us };
            let _ = parse_interval(&shown(interval, style), style);
        }
    }
    for text in ["99999999999999999999 days", "9223372036854775807 hours", "-9e", "é", "1 é", "+"]
    {
        assert!(parse_interval(text, IntervalStyle::SqlStandard).is_err(), "{text}");
    }
}
