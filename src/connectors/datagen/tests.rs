//! Rules in, rows out.

use crate::connectors::tests::{
    check_ranges, columns, error_text, lines, read_all, read_lines, source,
};

/// All rows as text.
fn rows(declared: &str, options: &str) -> String {
    let source = source("datagen", options, declared).expect("good options");
    read_lines(source.as_ref()).expect("readable")
}

fn error(declared: &str, options: &str) -> String {
    error_text(source("datagen", options, declared))
}

#[test]
fn sequences() {
    assert_eq!(
        rows(
            "id bigint, n smallint, f float, d numeric(6.2), day date, at timestamp, t time",
            "number-of-rows=3 fields.id.kind=sequence fields.id.start=10 fields.n.kind=sequence \
             fields.n.step=-5 fields.f.kind=sequence fields.f.start=0.5 fields.f.step=0.25 \
             fields.d.kind=sequence fields.d.start=1.50 fields.day.kind=sequence \
             fields.at.kind=sequence fields.at.start='2026-03-01 00:00:00' \
             fields.at.step='1 minute' fields.t.kind=sequence"
        ),
        "10|1|0.5|1.50|2026-01-01|2026-03-01T00:00:00|00:00:00\n\
         11|-4|0.75|2.50|2026-01-02|2026-03-01T00:01:00|00:00:01\n\
         12|-9|1.0|3.50|2026-01-03|2026-03-01T00:02:00|00:00:02\n"
    );
    // The shortest sequence ends the source, and makes it bounded.
    let options = "fields.a.kind=sequence fields.a.start=5 fields.a.end=1 fields.a.step=-2 \
                   fields.b.kind=sequence fields.b.end=100";
    assert_eq!(rows("a integer, b integer", options), "5|1\n3|2\n1|3\n");
    let bounded =
        |options| source("datagen", options, "a integer").expect("good options").bounded();
    assert!(bounded("fields.a.kind=sequence fields.a.end=9"));
    assert!(bounded("rows=9"));
    assert!(!bounded("fields.a.kind=sequence"));
    // A type's last value ends it as well, instead of coming round to the first.
    let options = "fields.a.kind=sequence fields.a.start=32766 rows=10";
    assert_eq!(rows("a smallint", options), "32766\n32767\n");
    assert_eq!(rows("a numeric(2.1)", "fields.a.kind=sequence fields.a.start=9 rows=5"), "9.0\n");
    let none = "fields.a.kind=sequence fields.a.start=5 fields.a.end=4";
    assert_eq!(rows("a integer", none), "");
}

#[test]
fn random_values_stay_within_their_bounds() {
    let declared = "a integer, f float, d numeric(8.3), day date, at timestamptz, i interval, \
                    t text, b bytea, l bigint, r real";
    let options = "rows=2000 fields.a.min=-2 fields.a.max=2 fields.f.min=-1 fields.f.max=1 \
                   fields.d.min=-0.005 fields.d.max=0.005 fields.day.min=2026-01-30 \
                   fields.day.max=2026-02-01 fields.at.min='2026-01-01 00:00:00Z' \
                   fields.at.max='2026-01-01 00:00:00.000002Z' fields.i.min='1 second' \
                   fields.i.max='1 second' fields.t.length=5 fields.b.length=3";
    let source = source("datagen", options, declared).expect("good options");
    let reading = read_all(source.as_ref()).expect("readable").remove(0);
    let column = |n: usize| {
        let text = lines(&reading.rows.project(&[n]).expect("a column"));
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let distinct = |n: usize| {
        let mut values = column(n);
        values.sort();
        values.dedup();
        values
    };
    assert_eq!(distinct(0), ["-1", "-2", "0", "1", "2"]);
    assert!(column(1).iter().all(|f| (-1.0..1.0).contains(&f.parse::<f64>().expect("a float"))));
    assert_eq!(distinct(2).len(), 11);
    assert_eq!(distinct(3), ["2026-01-30", "2026-01-31", "2026-02-01"]);
    assert_eq!(
        distinct(4),
        ["2026-01-01T00:00:00.000001Z", "2026-01-01T00:00:00.000002Z", "2026-01-01T00:00:00Z"]
    );
    assert_eq!(distinct(5), ["1.000000000 secs"]);
    assert!(column(6).iter().all(|t| t.len() == 5 && t.bytes().all(|b| b.is_ascii_lowercase())));
    assert!(column(7).iter().all(|b| b.len() == 6));
    assert!(distinct(6).len() > 1990 && distinct(8).len() == 2000 && distinct(9).len() > 1990);
}

#[test]
fn every_type_can_be_made_and_be_null() {
    let types = [
        "boolean",
        "smallint",
        "integer",
        "bigint",
        "real",
        "float",
        "numeric(10.2)",
        "text",
        "bytea",
        "date",
        "time",
        "timestamp",
        "timestamptz",
        "interval",
        "uuid",
        "json",
        "jsonb",
        "integer[]",
        "text[][]",
        "row(x:bigint;y:text)",
    ];
    let declared: Vec<String> =
        types.iter().enumerate().map(|(n, name)| format!("c{n} {name}")).collect();
    let nulls: Vec<String> =
        (0..types.len()).map(|n| format!("fields.c{n}.null.rate=0.5")).collect();
    let declared = declared.join(", ");
    let full = source("datagen", "rows=1000 seed=5", &declared).expect("good options");
    let full = read_all(full.as_ref()).expect("readable").remove(0).rows;
    assert!(full.columns().iter().all(|column| column.null_count() == 0));
    let holes =
        source("datagen", &format!("rows=1000 seed=5 {}", nulls.join(" ")), &declared).expect("ok");
    let holes = read_all(holes.as_ref()).expect("readable").remove(0).rows;
    assert_eq!(holes.schema(), columns(&declared));
    for (with, without) in holes.columns().iter().zip(full.columns()) {
        assert!((400..600).contains(&with.null_count()), "{}", with.data_type());
        // NULLs are laid over the same values.
        for row in (0..1000).filter(|row| with.is_valid(*row)).take(20) {
            assert_eq!(with.slice(row, 1).to_data(), without.slice(row, 1).to_data());
        }
    }
    let uuid = lines(&full.project(&[14]).expect("a column").slice(0, 1));
    let uuid = uuid::Uuid::parse_str(uuid.trim()).expect("a uuid");
    assert_eq!(uuid.get_version_num(), 4);
    let json = lines(&full.project(&[15]).expect("a column").slice(7, 1));
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["id"], 7);
}

#[test]
fn choices_are_values_of_the_type() {
    let options = "rows=300 fields.a.kind=choice fields.a.choices='red, green,blue' \
                   fields.b.kind=choice fields.b.choices='1,2.50'";
    let text = rows("a text, b numeric(4.1)", options);
    for line in ["red|1.0", "green|2.5", "blue|1.0", "red|2.5"] {
        assert!(text.lines().filter(|l| *l == line).count() > 20, "{line}");
    }
    assert_eq!(
        error("a integer", "fields.a.kind=choice fields.a.choices='1,x'"),
        "22023 option \"fields.a.choices\": \"x\" is not of type integer / -"
    );
    assert_eq!(
        error("a integer", "fields.a.kind=choice"),
        "22023 option \"fields.a.choices\" is missing / List the values, separated by commas."
    );
}

#[test]
fn times_can_follow_the_rows() {
    // Four rows a second: their own time does the same, from 2026 on.
    assert_eq!(
        rows("at timestamp", "rows=3 rate=4"),
        "2026-01-01T00:00:00\n2026-01-01T00:00:00.250\n2026-01-01T00:00:00.500\n"
    );
    let options = "rows=500 fields.at.start='2026-05-01 00:00:00' fields.at.step='1 second' \
                   fields.at.max-past='10 seconds'";
    let text = rows("at timestamp", options);
    let behind: Vec<i64> = text
        .lines()
        .enumerate()
        .map(|(row, at)| {
            let at = at.parse::<chrono::NaiveDateTime>().expect("a time");
            let start = "2026-05-01T00:00:00".parse::<chrono::NaiveDateTime>().expect("a time");
            row as i64 * 1_000_000 - (at - start).num_microseconds().expect("small")
        })
        .collect();
    assert!(behind.iter().all(|us| (0..=10_000_000).contains(us)));
    let mean = behind.iter().sum::<i64>() / 500;
    assert!((4_000_000..6_000_000).contains(&mean), "{mean}");
}

#[test]
fn nested_types_take_rules_for_their_parts() {
    let options = "rows=2 fields.l.length=2 fields.l.element.kind=sequence fields.r.x.min=7 \
                   fields.r.x.max=7 fields.r.y.kind=choice fields.r.y.choices=k";
    assert_eq!(
        rows("l integer[], r row(x:bigint;y:text)", options),
        "[1, 2]|{x: 7, y: k}\n[3, 4]|{x: 7, y: k}\n"
    );
}

#[test]
fn values_do_not_depend_on_other_columns_or_splits() {
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let one = sorted(rows("a bigint, b text", "rows=1001"));
    assert_eq!(one, sorted(rows("a bigint, b text", "rows=1001 splits=3")));
    assert_ne!(one, sorted(rows("a bigint, b text", "rows=1001 seed=2")));
    let alone = rows("b text", "rows=5");
    let beside: String = rows("x integer, b text", "rows=5")
        .lines()
        .map(|l| format!("{}\n", &l[l.len() - 16..]))
        .collect();
    assert_eq!(alone, beside);
}

#[test]
fn any_range_gives_the_same_rows() {
    let declared = "id bigint, name text, n numeric(12.3), tags text[], r row(x:bigint;y:text)";
    let options = "rows=3001 splits=3 fields.id.kind=sequence fields.name.null.rate=0.2 \
                   fields.tags.null.rate=0.3 fields.r.x.null-rate=0.5";
    let source = source("datagen", options, declared).expect("good options");
    check_ranges(source.as_ref(), 11);
}

#[test]
fn wrong_options_are_told() {
    assert_eq!(
        error("", "rows=5"),
        "42P16 connector \"datagen\" needs declared columns / Write CREATE SOURCE name (column \
         type, ...) WITH (connector = 'datagen')."
    );
    assert_eq!(
        error("a integer", "fields.b.kind=random"),
        "22023 connector \"datagen\" has no option \"fields.b.kind\" for these columns / Perhaps \
         you meant the option \"fields.a.kind\"."
    );
    assert_eq!(
        error("a integer", "fields.a.length=5"),
        "22023 connector \"datagen\" has no option \"fields.a.length\" for these columns / It \
         takes: fields.a.null.rate, fields.a.kind, fields.a.min, fields.a.max."
    );
    assert_eq!(
        error("a integer", "fields.a.kind=sequential"),
        "22023 option \"fields.a.kind\": unknown value \"sequential\" / Choose one of: sequence, \
         random, choice."
    );
    assert_eq!(
        error("a integer", "fields.a.min=5 fields.a.max=4"),
        "22023 option \"fields.a.max\": it is below the minimum / -"
    );
    assert_eq!(
        error("a smallint", "fields.a.min=50000"),
        "22023 option \"fields.a.min\": \"50000\" is not of type smallint / -"
    );
    assert_eq!(
        error("a integer not null", "fields.a.null.rate=0.1"),
        "22023 option \"fields.a.null.rate\": the column is NOT NULL / -"
    );
    assert_eq!(
        error("a integer", "fields.a.null-rate=1.5"),
        "22023 option \"fields.a.null-rate\": \"1.5\" is not within 0 to 1 / -"
    );
    assert_eq!(
        error("a text", "fields.a.kind=sequence"),
        "0A000 a sequence of type text is not supported / Set fields.a.kind to 'random' or \
         'choice'."
    );
    assert_eq!(
        error("a timestamp", "fields.a.max-past='1 month'"),
        "22023 option \"fields.a.max-past\": an interval of months has no fixed length / -"
    );
    let huge = "fields.a.length=10000 fields.a.element.length=10000";
    assert!(error("a bigint[][]", huge).starts_with("54000"));
}
