//! The stored formats do not change unseen: a storage of version 1 stands in the tree and is
//! read; `docs/FORMAT.md` says what is in it.

use std::path::Path;

use super::*;
use crate::storage::store::Store;

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sql-tests/data/storage-v1");

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Writes the sample anew, where `MILLSTREAM_WRITE_SAMPLE` says. For a new version of a format,
/// beside the old sample.
#[tokio::test(flavor = "multi_thread")]
async fn the_sample_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let target = std::env::var_os("MILLSTREAM_WRITE_SAMPLE");
    let target = target.map_or_else(|| folder.path().join("sample"), Into::into);
    let store = Store::directory(&target).unwrap();
    let mut recovered = recover(store, "sample").await.unwrap();
    let (mut log_a, _events) = log(&recovered);
    log_a.append(insert(1, &[1, 2, 3]));
    wait_durable(&log_a, 1).await;
    let log_start = log_a.durable_number() + 1;
    let many: Vec<i64> = (1..=3).collect();
    let first = cut(1, log_start, vec![(1, base(&many))]);
    recovered.checkpointer.write(&first, log_a.durable()).await.unwrap();
    let delta = [ChangeBatch::deletes(rows(&[2])), ChangeBatch::inserts(rows(&[4]))];
    let second =
        cut(1, log_start, vec![(1, TableCut::Delta { schema: schema(), changes: delta.to_vec() })]);
    recovered.checkpointer.write(&second, log_a.durable()).await.unwrap();
    let mut last = insert(2, &[5]);
    last.entries.insert(0, Entry::Catalog("{\"create_database\":\"x\"}".into()));
    let changes = ChangeBatch::deletes(rows(&[1]));
    last.entries.push(Entry::Rows { table: ObjectId(1), changes });
    log_a.append(last);
    wait_durable(&log_a, 2).await;
    log_a.stop();
    // Looking at it claims it.
    let copied = folder.path().join("copy");
    copy(&target, &copied);
    check(&copied).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_of_version_1_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let copied = folder.path().join("storage");
    copy(Path::new(SAMPLE), &copied);
    check(&copied).await;
}

async fn check(directory: &Path) {
    let recovered = recover(Store::directory(directory).unwrap(), "reader").await.unwrap();
    assert_eq!(recovered.catalog.as_deref(), Some("{\"at\":1}"));
    assert_eq!((recovered.manifest.sequence, recovered.manifest.epoch), (1, 101));
    assert_eq!((recovered.sequence, recovered.manifest.next_id), (2, 2));
    let all = ChangeBatch::concat(&schema(), &recovered.tables[&ObjectId(1)]).unwrap();
    let all = all.consolidate().unwrap();
    assert_eq!(all.column(0).as_primitive::<Int64Type>().values().to_vec(), [1, 3, 4]);
    let texts_of = |row: usize| all.column(1).as_string::<i32>().iter().nth(row).unwrap();
    assert_eq!([texts_of(0), texts_of(1), texts_of(2)], [Some("value 1"), None, Some("value 4")]);
    let [record] = &recovered.records[..] else { panic!("one record") };
    assert_eq!((record.sequence, record.epoch), (2, Epoch(102)));
    let [
        Entry::Catalog(text),
        Entry::Rows { changes: inserted, .. },
        Entry::Rows { table, changes },
    ] = &record.entries[..]
    else {
        panic!("three entries")
    };
    assert_eq!(text, "{\"create_database\":\"x\"}");
    assert_eq!(inserted.column(0).as_primitive::<Int64Type>().values().to_vec(), [5]);
    assert_eq!((*table, changes.weights_vec()), (ObjectId(1), vec![-1]));
}
