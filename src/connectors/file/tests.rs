//! Files in a temporary directory in, rows and complaints out.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use super::*;
use crate::connectors::Offset;
use crate::connectors::tests::{
    check_ranges, error_text, lines, malformed_lines, read_all, read_lines, source,
};

/// A directory with these files.
fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).expect("written");
    }
    directory
}

fn open_in(
    directory: &TempDir,
    name: &str,
    options: &str,
    declared: &str,
) -> Result<Arc<dyn Source>> {
    let path = directory.path().join(name);
    source("file", &format!("path='{}' {options}", path.display()), declared)
}

fn rows(directory: &TempDir, name: &str, options: &str, declared: &str) -> String {
    let source = open_in(directory, name, options, declared).expect("good options");
    read_lines(source.as_ref()).expect("readable")
}

fn complaints(directory: &TempDir, name: &str, options: &str, declared: &str) -> String {
    let source = open_in(directory, name, options, declared).expect("good options");
    malformed_lines(source.as_ref(), &directory.path().display().to_string()).expect("readable")
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).expect("memory");
    encoder.finish().expect("memory")
}

#[test]
fn columns_are_matched_by_name() {
    let dir = directory(&[("a.csv", "ID,name,other\n1,x,9\n2,\"y,z\",8\n")]);
    assert_eq!(rows(&dir, "a.csv", "", "name text, id bigint, missing float"), "x|1|-\ny,z|2|-\n");
    // The exact name goes before one that differs in case.
    let dir = directory(&[("a.csv", "ID,id\n1,2\n")]);
    assert_eq!(rows(&dir, "a.csv", "", "id bigint, Id bigint"), "2|1\n");
    let dir = directory(&[("a.csv", "1,x\n2,y\n")]);
    assert_eq!(rows(&dir, "a.csv", "csv.header=false", "id bigint, name text"), "1|x\n2|y\n");
    let dir = directory(&[("a.tsv", "id\tname\n1\t'x\n")]);
    let options = "format=csv csv.delimiter=\\t csv.quote=none";
    assert_eq!(rows(&dir, "a.tsv", options, "id bigint, name text"), "1|'x\n");
    let dir = directory(&[("a.csv", "\u{feff}id,name\n1,x\n")]);
    assert_eq!(rows(&dir, "a.csv", "", "id bigint, name text"), "1|x\n");
    let dir = directory(&[("a.csv", "\u{feff}1,x\n")]);
    assert_eq!(rows(&dir, "a.csv", "csv.header=false", "id bigint, name text"), "1|x\n");
}

#[test]
fn malformed_records_are_told_and_left_out() {
    let text = "id,price\n1,2.50\n2\nx,1\n\n4,NA\n\"5\n\",1\n6,7,8\n7,9.999\n\"8,1\n9,1";
    let dir = directory(&[("a.csv", text)]);
    let declared = "id bigint, price numeric(5.2)";
    assert_eq!(
        rows(&dir, "a.csv", "csv.null=NA", declared),
        "1|2.50\n4|-\n5|1.00\n7|10.00\n9|1.00\n"
    );
    assert_eq!(
        complaints(&dir, "a.csv", "csv.null=NA", declared),
        "a.csv line 3: record has 1 field, expected 2\n\
         a.csv line 4: column \"id\": invalid input syntax for type bigint: \"x\"\n\
         a.csv line 9: record has 3 fields, expected 2\n\
         a.csv line 11: unterminated quoted field\n"
    );
    let dir = directory(&[("a.ndjson", "{\"id\":1}\n{\"id\":\n{\"id\":\"x\"}\n\n{\"id\":2}")]);
    assert_eq!(rows(&dir, "a.ndjson", "", "id bigint"), "1\n2\n");
    assert_eq!(
        complaints(&dir, "a.ndjson", "", "id bigint"),
        "a.ndjson line 2: invalid JSON: unexpected end at byte 7\n\
         a.ndjson line 3: column \"id\": invalid input syntax for type bigint: \"x\"\n"
    );
    // Records that lack a value that must be there.
    let dir = directory(&[("a.csv", "id,name\n1,\n2,x\n")]);
    assert_eq!(rows(&dir, "a.csv", "", "id bigint, name text not null"), "2|x\n");
    assert_eq!(
        complaints(&dir, "a.csv", "", "id bigint, name text not null"),
        "a.csv line 2: null value in column \"name\" violates not-null constraint\n"
    );
}

#[test]
fn records_must_fit_the_columns_that_are_read_or_all() {
    let dir = directory(&[("a.csv", "id,name\n1,x\ntwo,y\n")]);
    let names = |options: &str| {
        let source = open_in(&dir, "a.csv", options, "id bigint, name text").expect("good");
        let range = ReadRange { columns: vec![1], ..ReadRange::default() };
        let split = &source.splits().expect("listed")[0];
        drain(source.open(split, range).expect("opened").as_mut())
    };
    assert_eq!(names(""), "x\ny\nend\n");
    let told = "! column \"id\": invalid input syntax for type bigint: \"two\"\n";
    assert_eq!(names("check.columns=all"), format!("x\n{told}end\n"));
}

/// The committed data set with natural types. Rows, NULLs and sums were counted by another reader.
#[test]
fn the_flights_are_read_with_natural_types() {
    let data = |name: &str, declared: &str| {
        let path = format!("{}/sql-tests/data/{name}", env!("CARGO_MANIFEST_DIR"));
        let options = format!("path='{path}' csv.null=NA");
        let source = source("file", &options, declared).expect("good options");
        let reading = read_all(source.as_ref()).expect("readable").remove(0);
        assert_eq!(reading.malformed, [], "{name}");
        reading.rows
    };
    let sum = |rows: &RecordBatch, column: &str| -> (usize, f64) {
        let array = rows.column_by_name(column).expect("a column");
        let wide = arrow::compute::cast(array, &arrow::datatypes::DataType::Float64).expect("cast");
        let wide = wide.as_primitive::<arrow::datatypes::Float64Type>();
        (wide.null_count(), arrow::compute::sum(wide).expect("values"))
    };
    let flights = data(
        "flights.csv.gz",
        "year smallint, month smallint, day smallint, dep_time integer, sched_dep_time integer, \
         dep_delay integer, arr_time integer, sched_arr_time integer, arr_delay integer, \
         carrier text, flight integer, tailnum text, origin text, dest text, air_time integer, \
         distance integer, hour smallint, minute smallint, time_hour timestamptz",
    );
    assert_eq!(flights.num_rows(), 27_004);
    for (column, expected) in [
        ("dep_time", (521, 35_678_150.0)),
        ("dep_delay", (521, 265_801.0)),
        ("arr_delay", (606, 161_819.0)),
        ("flight", (0, 52_890_721.0)),
        ("air_time", (606, 4_070_239.0)),
        ("distance", (0, 27_188_805.0)),
        ("hour", (0, 355_295.0)),
    ] {
        assert_eq!(sum(&flights, column), expected, "{column}");
    }
    assert_eq!(flights.column_by_name("tailnum").expect("a column").null_count(), 155);
    assert_eq!(
        lines(&flights.slice(0, 1)),
        "2013|1|1|517|515|2|830|819|11|UA|1545|N14228|EWR|IAH|227|1400|5|15|2013-01-01T10:00:00Z\n"
    );
    let weather = data(
        "weather.csv.gz",
        "origin text, year smallint, month smallint, day smallint, hour smallint, temp float, \
         dewp float, humid float, wind_dir smallint, wind_speed float, wind_gust float, \
         precip numeric(6.2), pressure numeric(6.1), visib float, time_hour timestamptz",
    );
    assert_eq!(weather.num_rows(), 2_226);
    assert_eq!(sum(&weather, "wind_dir"), (23, 503_210.0));
    assert_eq!(weather.column_by_name("wind_gust").expect("a column").null_count(), 1_691);
    assert_eq!(sum(&weather, "pressure").0, 249);
    assert!((sum(&weather, "pressure").1 - 2_018_435.1).abs() < 1e-4);
    assert!((sum(&weather, "temp").1 - 79_324.98).abs() < 1e-4);
    let planes = data(
        "planes.csv",
        "tailnum text, year smallint, type text, manufacturer text, model text, \
         engines smallint, seats smallint, speed smallint, engine text",
    );
    assert_eq!((planes.num_rows(), sum(&planes, "seats")), (3_322, (0, 512_639.0)));
    assert_eq!(sum(&planes, "year"), (70, 6_505_574.0));
    let airports = data(
        "airports.csv",
        "faa text, name text, lat float, lon float, alt integer, tz smallint, dst text, tzone text",
    );
    assert_eq!((airports.num_rows(), sum(&airports, "alt")), (1_458, (0, 1_460_064.0)));
    let airlines = data("airlines.csv", "carrier text, name text");
    assert_eq!(lines(&airlines.slice(0, 2)), "9E|Endeavor Air Inc.\nAA|American Airlines Inc.\n");
    assert_eq!(airlines.num_rows(), 16);
    // Without declared columns, the types are found out.
    let found = data("flights.csv.gz", "");
    assert_eq!(sum(&found, "arr_delay"), (606, 161_819.0));
}

/// Rows of all types with awkward values, some of them malformed.
fn random_csv(random: &mut SmallRng, rows: usize) -> String {
    let mut text = String::from("id,name,at,flag,n\n");
    for row in 0..rows {
        let name = ["plain", "\"two\nlines\"", "\"quo\"\"ted\"", "", "\"a,b\"", "ümläut"]
            [random.random_range(0..6)];
        let line = match random.random_range(0..20) {
            0 => format!("{row},short"),
            1 => format!("x{row},{name},2013-01-01,t,1"),
            2 => String::new(),
            _ => format!("{row},{name},2013-01-01T00:00:{:02}Z,{},{row}.5", row % 60, row % 2),
        };
        text.push_str(&line);
        text.push_str(if random.random_bool(0.1) { "\r\n" } else { "\n" });
    }
    text
}

const CSV_COLUMNS: &str = "id bigint, name text, at timestamptz, flag boolean, n float";

#[test]
fn any_range_of_a_text_file_gives_the_same_rows() {
    let mut random = SmallRng::seed_from_u64(17);
    let csv = random_csv(&mut random, 3_000);
    let mut ndjson = String::new();
    for row in 0..3_000 {
        ndjson.push_str(&match random.random_range(0..15) {
            0 => "{\"id\":\n".to_owned(),
            1 => "\n".to_owned(),
            2 => format!("{{\"id\":\"x{row}\"}}\r\n"),
            _ => format!("{{\"id\":{row},\"name\":\"n\\u00e4{row}\",\"tags\":[{row},null]}}\n"),
        });
    }
    let dir = directory(&[("a.csv", &csv), ("a.ndjson", &ndjson)]);
    std::fs::write(dir.path().join("b.csv.gz"), gzip(csv.as_bytes())).expect("written");
    let zstd = zstd::encode_all(ndjson.as_bytes(), 1).expect("memory");
    std::fs::write(dir.path().join("b.ndjson.zst"), zstd).expect("written");
    let json_columns = "id bigint, name text, tags integer[]";
    for (name, declared) in [
        ("a.csv", CSV_COLUMNS),
        ("b.csv.gz", CSV_COLUMNS),
        ("a.ndjson", json_columns),
        ("b.ndjson.zst", json_columns),
        ("?.csv*", CSV_COLUMNS),
    ] {
        let options = "format=csv check.columns=all";
        let options = if name.contains("csv") { options } else { "check.columns=all" };
        let source = open_in(&dir, name, options, declared).expect("good options");
        assert!(source.bounded());
        check_ranges(source.as_ref(), 23);
        let told = read_all(source.as_ref()).expect("readable");
        assert!(told.iter().all(|reading| reading.malformed.len() > 200));
    }
    assert_eq!(rows(&dir, "a.csv", "", CSV_COLUMNS), rows(&dir, "b.csv.gz", "", CSV_COLUMNS));
    assert_eq!(
        rows(&dir, "a.ndjson", "", json_columns),
        rows(&dir, "b.ndjson.zst", "", json_columns)
    );
}

#[test]
fn files_larger_than_a_block() {
    let mut text = String::from("id,text\n");
    let long = "x".repeat(700_000);
    for row in 0..12 {
        text.push_str(&format!("{row},{long}{row}\n"));
    }
    let dir = directory(&[("a.csv", &text)]);
    let source = open_in(&dir, "a.csv", "", "text text, id bigint").expect("good options");
    check_ranges(source.as_ref(), 5);
    let reading = read_all(source.as_ref()).expect("readable").remove(0);
    assert_eq!(reading.rows.num_rows(), 12);
    assert!(lines(&reading.rows).lines().nth(11).is_some_and(|line| line.ends_with("x11|11")));
}

#[test]
fn compression_goes_by_name_or_option() {
    let dir = directory(&[]);
    let text = b"id\n1\n2\n";
    // Two members, as `cat a.gz b.gz` makes them.
    let twice = [gzip(text), gzip(b"3\n")].concat();
    std::fs::write(dir.path().join("a.csv.gz"), &twice).expect("written");
    std::fs::write(dir.path().join("a"), &twice).expect("written");
    assert_eq!(rows(&dir, "a.csv.gz", "", "id bigint"), "1\n2\n3\n");
    assert_eq!(rows(&dir, "a", "format=csv compression=gzip", "id bigint"), "1\n2\n3\n");
    std::fs::write(dir.path().join("cut.csv.gz"), &gzip(&[b'1'; 100_000])[..50]).expect("written");
    let cut = open_in(&dir, "cut.csv.gz", "csv.header=false", "id bigint").expect("good options");
    let told = error_text(read_all(cut.as_ref()).map(|_| ()));
    assert!(told.starts_with("XX001 file ") && told.contains("is cut off"), "{told}");
    std::fs::write(dir.path().join("no.csv.gz"), "id\n1\nno compressed data\n").expect("written");
    let told = open_in(&dir, "no.csv.gz", "", "id bigint").and_then(|s| read_all(s.as_ref()));
    assert!(error_text(told.map(|_| ())).starts_with("58030 could not read file"));
}

#[test]
fn missing_files_and_columns_are_told() {
    let dir = directory(&[("a.csv", "x;y\n1;2\n"), ("empty.csv", ""), ("b.txt", "")]);
    let path = dir.path().display().to_string();
    let told = |name: &str, options: &str| {
        let source = open_in(&dir, name, options, "id bigint");
        error_text(source.and_then(|s| read_all(s.as_ref()).map(|_| ()))).replace(&path, "")
    };
    assert_eq!(
        told("none.csv", ""),
        "58P01 could not open file \"/none.csv\": No such file or directory / -"
    );
    assert_eq!(told("*.ndjson", ""), "58P01 no file matches \"/*.ndjson\" / -");
    assert_eq!(
        told("a.csv", ""),
        "42703 file \"/a.csv\" has none of the declared columns / Check the column names, and \
         csv.delimiter and csv.header for a csv file."
    );
    assert_eq!(
        told("b.txt", ""),
        "22023 option \"format\" is missing / Add format = 'csv', 'ndjson' or 'parquet' to the \
         WITH clause."
    );
    assert_eq!(told("empty.csv", ""), "no error");
    assert_eq!(
        told("a.csv", "csv.delimiter=;;"),
        "22023 option \"csv.delimiter\": \";;\" is not a single one-byte character / -"
    );
    assert!(told("[", "format=csv").starts_with("22023 option \"path\": "));
    let strict = open_in(&dir, "a.csv", "csv.delimiter=';'", "x bigint, z bigint not null");
    let told = error_text(strict.and_then(|s| read_all(s.as_ref()).map(|_| ())));
    assert!(told.contains("has no column \"z\", which is NOT NULL"), "{told}");
}

#[test]
fn patterns_and_directories_are_many_splits() {
    let dir = directory(&[
        ("b.csv", "id\n3\n"),
        ("a.csv", "id\n1\n2\n"),
        (".hidden.csv", "id\n9\n"),
        ("c.txt", "id\n8\n"),
    ]);
    assert_eq!(rows(&dir, "*.csv", "", "id bigint"), "1\n2\n3\n");
    assert_eq!(rows(&dir, "", "format=csv", "id bigint"), "1\n2\n3\n8\n");
    let source = open_in(&dir, "[ab].csv", "", "id bigint").expect("good options");
    let splits = source.splits().expect("listed");
    assert_eq!(splits.len(), 2);
    assert!(splits[0].0.ends_with("a.csv") && splits[1].0.ends_with("b.csv"));
}

/// Reads what there is now; the rows as text.
fn drain(reader: &mut dyn SplitReader) -> String {
    let mut text = String::new();
    loop {
        match reader.read(2).expect("readable") {
            Read::Rows(told) => {
                text.push_str(&lines(&told.rows));
                for bad in told.malformed {
                    text.push_str(&format!("! {}\n", bad.message));
                }
            }
            Read::Idle(_) => return text,
            Read::End => return text + "end\n",
        }
    }
}

fn append(path: &Path, text: &str) {
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.expect("opened").write_all(text.as_bytes()).expect("written");
}

#[test]
fn a_growing_file_is_followed() {
    let dir = directory(&[]);
    let path = dir.path().join("a.csv");
    let source = open_in(&dir, "a.csv", "follow=true", "id bigint, name text").expect("good");
    assert!(!source.bounded());
    // It need not be there yet.
    assert_eq!(source.splits().expect("none"), []);
    append(&path, "id,na");
    let splits = source.splits().expect("one");
    let range = ReadRange { columns: vec![0, 1], ..ReadRange::default() };
    let mut reader = source.open(&splits[0], range.clone()).expect("opened");
    assert_eq!(drain(reader.as_mut()), "");
    append(&path, "me\n1,x\n2,y");
    assert_eq!(drain(reader.as_mut()), "1|x\n");
    assert_eq!(drain(reader.as_mut()), "");
    append(&path, "z\n3,\"q\n");
    assert_eq!(drain(reader.as_mut()), "2|yz\n");
    append(&path, "r\"\n4\n5,v\n");
    assert_eq!(drain(reader.as_mut()), "3|q\nr\n! record has 1 field, expected 2\n5|v\n");
    // What has been read is the same when it is read again, up to there.
    let all = "1|x\n2|yz\n3|q\nr\n! record has 1 field, expected 2\n5|v\n";
    let mut again = source.open(&splits[0], range.clone()).expect("opened");
    assert_eq!(drain(again.as_mut()), all);
    let until = Offset(format!("{}:8", std::fs::metadata(&path).expect("there").len()));
    append(&path, "6,w\n");
    let bounded = ReadRange { until: Some(until), ..range.clone() };
    let mut again = source.open(&splits[0], bounded).expect("opened");
    assert_eq!(drain(again.as_mut()), format!("{all}end\n"));
    assert_eq!(drain(reader.as_mut()), "6|w\n");
    // A file that shrinks is an error, not new rows.
    std::fs::write(&path, "id,name\n").expect("written");
    let told = error_text(reader.read(10));
    assert!(told.starts_with("XX001 file ") && told.contains("has become shorter"), "{told}");
}

#[test]
fn new_files_of_a_pattern_are_new_splits() {
    let dir = directory(&[("a.ndjson", "{\"id\":1}\n")]);
    let source =
        open_in(&dir, "*.ndjson*", "format=json follow=true", "id bigint").expect("good options");
    assert_eq!(source.splits().expect("listed").len(), 1);
    append(&dir.path().join("b.ndjson"), "{\"id\":2}\n");
    assert_eq!(source.splits().expect("listed").len(), 2);
    // A split stays one, also when its file is gone.
    std::fs::remove_file(dir.path().join("a.ndjson")).expect("removed");
    assert_eq!(source.splits().expect("listed").len(), 2);
    // A compressed file that is being written is waited for, and ends.
    let packed = gzip(&b"{\"id\":3}\n".repeat(5));
    let path = dir.path().join("c.ndjson.gz");
    std::fs::write(&path, &packed[..packed.len() - 9]).expect("written");
    let splits = source.splits().expect("listed");
    let range = ReadRange { columns: vec![0], ..ReadRange::default() };
    let mut reader = source.open(&splits[2], range).expect("opened");
    let before = drain(reader.as_mut());
    std::fs::write(&path, &packed).expect("written");
    assert_eq!(before + &drain(reader.as_mut()), "3\n3\n3\n3\n3\nend\n");
}

fn write_parquet(path: &Path, batch: &RecordBatch, group_rows: usize) {
    let properties = ::parquet::file::properties::WriterProperties::builder()
        .set_max_row_group_row_count(Some(group_rows))
        .build();
    let file = File::create(path).expect("created");
    let mut writer = ::parquet::arrow::ArrowWriter::try_new(file, batch.schema(), Some(properties))
        .expect("a writer");
    writer.write(batch).expect("written");
    writer.close().expect("written");
}

fn parquet_batch(rows: i64) -> RecordBatch {
    let names = (0..rows).map(|n| (n % 3 > 0).then(|| format!("n{n}")));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from_iter_values(0..rows))),
        ("Name", Arc::new(names.collect::<StringArray>())),
        ("at", Arc::new(TimestampNanosecondArray::from_iter_values((0..rows).map(|n| n * 1_500)))),
    ];
    RecordBatch::try_from_iter(columns).expect("a batch")
}

#[test]
fn parquet_files_are_read_from_anywhere() {
    let dir = directory(&[]);
    write_parquet(&dir.path().join("a.parquet"), &parquet_batch(1_000), 128);
    let declared = "at timestamp, name text, more date, id integer";
    let source = open_in(&dir, "a.parquet", "", declared).expect("good options");
    check_ranges(source.as_ref(), 3);
    let text = rows(&dir, "a.parquet", "", declared);
    assert_eq!(text.lines().nth(4), Some("1970-01-01T00:00:00.000006|n4|-|4"));
    assert_eq!(text.lines().count(), 1_000);
    // Without declared columns they are the file's.
    let source = open_in(&dir, "*.parquet", "", "").expect("good options");
    assert_eq!(
        *source.schema(),
        *crate::connectors::tests::columns("id bigint, Name text, at timestamp")
    );
    check_ranges(source.as_ref(), 4);
}

#[test]
fn parquet_values_that_do_not_fit_are_told() {
    let dir = directory(&[]);
    write_parquet(&dir.path().join("a.parquet"), &parquet_batch(40_000), 1_000_000);
    let declared = "id smallint, name text";
    let source = open_in(&dir, "a.parquet", "", declared).expect("good options");
    let reading = read_all(source.as_ref()).expect("readable").remove(0);
    assert_eq!((reading.rows.num_rows(), reading.malformed.len()), (32_768, 7_232));
    let first = &reading.malformed[0];
    assert!(first.place.ends_with("a.parquet row 32769"), "{}", first.place);
    assert_eq!(first.message, "column \"id\": value 32768 does not fit type smallint");
    assert_eq!(first.record, "32768,n32768");
    let strict = open_in(&dir, "a.parquet", "", "name text not null").expect("good options");
    let reading = read_all(strict.as_ref()).expect("readable").remove(0);
    assert_eq!(reading.malformed.len(), 13_334);
    let wrong = open_in(&dir, "a.parquet", "", "id uuid");
    let told = error_text(wrong.and_then(|s| read_all(s.as_ref()).map(|_| ())));
    assert!(
        told.starts_with("42804 column \"id\" is declared as uuid, but it is bigint"),
        "{told}"
    );
    std::fs::write(dir.path().join("no.parquet"), "PAR1 nothing").expect("written");
    let wrong = open_in(&dir, "no.parquet", "", "id bigint");
    let told = error_text(wrong.and_then(|s| read_all(s.as_ref()).map(|_| ())));
    assert!(told.starts_with("XX001 could not read parquet file"), "{told}");
    // In a directory that is followed it may still be written to.
    let source = open_in(&dir, "no.parquet", "follow=true", "id bigint").expect("good options");
    let range = ReadRange { columns: vec![0], ..ReadRange::default() };
    let split = &source.splits().expect("listed")[0];
    let mut reader = source.open(split, range).expect("opened");
    assert_eq!(drain(reader.as_mut()), "");
    write_parquet(&dir.path().join("no.parquet"), &parquet_batch(3), 10);
    assert_eq!(drain(reader.as_mut()), "0\n1\n2\nend\n");
}

#[test]
fn columns_are_found_out() {
    let shape = |directory: &TempDir, name: &str, options: &str| {
        let source = open_in(directory, name, options, "").expect("columns");
        let fields: Vec<String> = source
            .schema()
            .fields()
            .iter()
            .map(|f| {
                let sql_type = crate::types::sql_type::SqlType::of_field(f).expect("known");
                format!("{} {sql_type}", f.name())
            })
            .collect();
        fields.join(", ")
    };
    let dir = directory(&[
        (
            "a.csv",
            "i,f,b,d,t,z,zip,text,none,mixed\n\
             1,1.5,true,2013-01-31,2013-01-31 10:00:00,2013-01-31T10:00:00Z,01234,x,NA,1\n\
             NA,2,FALSE,NA,2013-01-31 10:00,2013-01-31T10:00:00+01,00501,2,NA,x\n",
        ),
        (
            "a.ndjson",
            "{\"i\":1,\"f\":1,\"b\":true,\"at\":\"2013-01-31 10:00:00\",\"s\":\"5\",\"o\":{}}\n\
             not json\n\
             {\"i\":null,\"f\":2.5,\"late\":[1],\"mixed\":1}\n{\"mixed\":\"x\"}\n",
        ),
        ("empty.csv", ""),
    ]);
    assert_eq!(
        shape(&dir, "a.csv", "csv.null=NA"),
        "i bigint, f double precision, b boolean, d date, t timestamp without time zone, \
         z timestamp with time zone, zip text, text text, none text, mixed text"
    );
    assert_eq!(
        shape(&dir, "a.ndjson", ""),
        "i bigint, f double precision, b boolean, at timestamp without time zone, s text, \
         o jsonb, late jsonb, mixed jsonb"
    );
    assert!(shape(&dir, "a.csv", "csv.header=false").starts_with("column1 text, column2 text"));
    for (name, options) in [("empty.csv", ""), ("none.csv", "follow=true")] {
        let told = error_text(open_in(&dir, name, options, ""));
        assert!(told.starts_with("42P16 the columns of"), "{told}");
    }
}
