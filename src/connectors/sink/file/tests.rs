//! Batches written to folders: what stands in the files, and that a batch that comes again changes
//! nothing.

use std::collections::BTreeMap;

use arrow::array::{Date32Array, Int64Array, StringArray};

use super::*;

fn schema() -> Arc<Schema> {
    Arc::new(Schema::new(vec![
        SqlType::Int8.to_field("id", false),
        SqlType::Text.to_field("label", true),
        SqlType::Date.to_field("day", true),
    ]))
}

/// `id label day weight`, a row a line; `-` is NULL; days count from 1970.
fn changes(text: &str) -> ChangeBatch {
    let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    let number = |text: &str| text.parse::<i64>().expect("a number");
    let ids = Int64Array::from_iter_values(rows.iter().map(|row| number(row[0])));
    let labels: StringArray = rows.iter().map(|row| (row[1] != "-").then_some(row[1])).collect();
    let days: Date32Array =
        rows.iter().map(|row| (row[2] != "-").then(|| number(row[2]) as i32)).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(ids), Arc::new(labels), Arc::new(days)];
    let batch = RecordBatch::try_new(schema(), columns).expect("they fit");
    ChangeBatch::new(batch, rows.iter().map(|row| number(row[3])).collect()).expect("they fit")
}

fn target(folder: &Path, options: &str) -> Result<Box<dyn Target>> {
    let mut pairs = vec![("path".to_owned(), folder.to_str().expect("UTF-8").to_owned())];
    let pair = |pair: &str| pair.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned()));
    pairs.extend(options.split(';').filter_map(pair));
    let input = SinkInput {
        name: "s".into(),
        identity: "0123456789abcdef".into(),
        schema: schema(),
        append_only: !options.contains("envelope"),
        unique_key: Some(vec![0]),
    };
    open(&CONNECTOR.connector.check(&pairs)?, &input)
}

/// Every file below a folder with its text, by its path there.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        let name = path.file_name().expect("it has one").to_string_lossy().into_owned();
        if path.is_dir() {
            let below = files(&path).into_iter();
            found.extend(below.map(|(other, text)| (format!("{name}/{other}"), text)));
        } else {
            let bytes = std::fs::read(&path).expect("readable");
            found.insert(name, String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    found
}

fn printed(files: &BTreeMap<String, String>) -> String {
    files.iter().map(|(name, text)| format!("{name}\n{text}")).collect()
}

async fn commit(target: &mut dyn Target, epoch: u64, changes: &[ChangeBatch]) -> Committed {
    let id = BatchId { generation: 3, epoch };
    let batch = Batch { id, time_us: 1_700_000_000_123_456, changes };
    target.commit(&batch).await.expect("is written")
}

#[tokio::test]
async fn a_batch_that_comes_again_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let out = folder.path().join("out");
    let mut first = target(&out, "partition_by=day;file_rows=2").expect("opens");
    first.abort().await.expect("there is nothing yet");
    first.prepare().await.expect("makes the folder");
    assert!(files(&out).is_empty(), "nothing is left of the probe");
    let rows = [changes("1 a 1 1\n2 b 2 1\n3 - - 2"), changes("4 d 1 1\n5 e 1 1")];
    let done = commit(first.as_mut(), 7, &rows).await;
    assert_eq!(done.rows, 6);
    let expected = "day=1970-01-02/part-0123456789ab-000003-000000000007-0000.ndjson\n\
        {\"id\":1,\"label\":\"a\"}\n{\"id\":4,\"label\":\"d\"}\n\
        day=1970-01-02/part-0123456789ab-000003-000000000007-0001.ndjson\n\
        {\"id\":5,\"label\":\"e\"}\n\
        day=1970-01-03/part-0123456789ab-000003-000000000007-0002.ndjson\n\
        {\"id\":2,\"label\":\"b\"}\n\
        day=__HIVE_DEFAULT_PARTITION__/part-0123456789ab-000003-000000000007-0003.ndjson\n\
        {\"id\":3,\"label\":null}\n{\"id\":3,\"label\":null}\n";
    let written = files(&out);
    let sorted: BTreeMap<String, String> = written.clone();
    // Folders are sorted: NULLs come first there and last here.
    let mut lines: Vec<&str> = expected.lines().collect();
    let all = printed(&sorted);
    let mut found: Vec<&str> = all.lines().collect();
    lines.iter_mut().chain(found.iter_mut()).for_each(|line| {
        if let Some((name, _)) = line.rsplit_once("-000") {
            *line = name;
        }
    });
    lines.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, lines);

    // A server was killed in the middle: one file is missing, another was never finished.
    let (gone, _) = written.iter().next().expect("there are files");
    std::fs::remove_file(out.join(gone)).expect("goes");
    std::fs::write(out.join(format!("{gone}#4")), "torn").expect("written");
    std::fs::write(out.join("day=1970-01-02/notes#4"), "of somebody else").expect("written");
    let mut second = target(&out, "partition_by=day;file_rows=2").expect("opens");
    second.abort().await.expect("takes the torn file away");
    assert_eq!(commit(second.as_mut(), 7, &rows).await, done);
    let mut again = files(&out);
    assert!(again.remove("day=1970-01-02/notes#4").is_some(), "is not ours to take away");
    assert_eq!(again, written);
}

#[tokio::test]
async fn envelopes_say_what_happened() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let rows = [changes("1 one 1 1\n2 two 1 -1\n2 zwei 1 1\n3 three 1 -1")];
    let mut csv = target(&folder.path().join("c"), "envelope=changelog;format=csv").expect("opens");
    commit(csv.as_mut(), 9, &rows).await;
    let text = files(&folder.path().join("c")).into_values().collect::<String>();
    assert_eq!(
        text,
        "op,epoch,id,label,day\ndelete,9,2,two,1970-01-02\ndelete,9,3,three,1970-01-02\n\
         insert,9,1,one,1970-01-02\ninsert,9,2,zwei,1970-01-02\n"
    );
    let mut debezium = target(&folder.path().join("d"), "envelope=debezium").expect("opens");
    commit(debezium.as_mut(), 9, &rows).await;
    let text = files(&folder.path().join("d")).into_values().collect::<String>();
    let row = |id: i64, label: &str| {
        format!("{{\"id\":{id},\"label\":\"{label}\",\"day\":\"1970-01-02\"}}")
    };
    assert_eq!(
        text,
        format!(
            "{{\"before\":{},\"after\":null,\"op\":\"d\",\"ts_ms\":1700000000123}}\n\
             {{\"before\":null,\"after\":{},\"op\":\"c\",\"ts_ms\":1700000000123}}\n\
             {{\"before\":{},\"after\":{},\"op\":\"u\",\"ts_ms\":1700000000123}}\n",
            row(3, "three"),
            row(1, "one"),
            row(2, "two"),
            row(2, "zwei")
        )
    );
}

#[tokio::test]
async fn a_file_is_cut_by_rows_and_by_bytes() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let rows: String = (0..100).map(|n| format!("{n} x - 1\n")).collect();
    let rows = [changes(&rows), changes("100 x - 1")];
    for (options, count) in [("file_rows=30", 4), ("file_bytes=1", 101), ("", 1)] {
        let out = folder.path().join(format!("out {options}"));
        let mut files_of = target(&out, options).expect("opens");
        assert_eq!(commit(files_of.as_mut(), 1, &rows).await.rows, 101);
        let written = files(&out);
        assert_eq!(written.len(), count, "{options}");
        let lines: usize = written.values().map(|text| text.lines().count()).sum();
        assert_eq!(lines, 101, "{options}");
    }
}

#[test]
fn what_files_cannot_say_is_refused() {
    let folder = Path::new("/nowhere");
    for (options, message) in [
        ("envelope=plain", "0A000 writing changing rows to plain files is not supported"),
        ("envelope=debezium;format=csv", "0A000 envelope \"debezium\" in another format than"),
        ("partition_by=id,label,day", "22023 option \"partition_by\" leaves no column"),
        ("partition_by=other", "42703 option \"partition_by\": column \"other\" does not exist"),
        ("partition_by=id,id", "42701 option \"partition_by\": column \"id\" is named twice"),
        ("format=orc", "22023 option \"format\": unknown value"),
    ] {
        let error = target(folder, options).err().expect(options);
        let text = format!("{} {}", error.sqlstate().0, error.message());
        assert!(text.starts_with(message), "{options}: {text}");
    }
}
