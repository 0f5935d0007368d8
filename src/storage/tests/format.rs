//! The stored formats do not change unseen: storages of versions 1 and 2 stand in the tree and are
//! read; `docs/FORMAT.md` says what is in it.

use std::path::Path;

use arrow::array::UInt64Array;

use super::*;
use crate::storage::checkpoint::ViewCut;
use crate::storage::manifest::{EPOCHS_RESERVED, SourcePlace};
use crate::storage::recovery::recover_from;
use crate::storage::state_files::{StateChange, in_memory};
use crate::storage::store::Store;

const SAMPLE_1: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sql-tests/data/storage-v1");
const SAMPLE_2: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sql-tests/data/storage-v2");

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
    let mut first = cut(1, log_start, vec![(1, base(&many))]);
    first.views = [(ObjectId(9), state(true, &[(0, 1), (1, 2)], &[]))].into();
    first.errors = Some("[]".into());
    let offsets = [("0".into(), "17".into())].into();
    let values = [("announced".into(), "5".into())].into();
    first.places = [(3, SourcePlace { rows: 17, malformed: 1, offsets, values })].into();
    recovered.checkpointer.write(&first, log_a.durable()).await.unwrap();
    recovered.checkpointer.create_savepoint("early", 7).await.unwrap();
    let delta = [ChangeBatch::deletes(rows(&[2])), ChangeBatch::inserts(rows(&[4]))];
    let mut second =
        cut(1, log_start, vec![(1, TableCut::Delta { schema: schema(), changes: delta.to_vec() })]);
    second.views = [(ObjectId(9), state(false, &[(2, 4)], &[1]))].into();
    second.places.clone_from(&first.places);
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
    check_2(&copied).await;
}

/// The view's rows with these keys came, with these ids; rows with those ids went.
fn state(first: bool, came: &[(u64, i64)], went: &[u64]) -> ViewCut {
    let keys: Vec<i64> = came.iter().map(|(_, key)| *key).collect();
    let ids = UInt64Array::from_iter_values(came.iter().map(|(id, _)| *id));
    let change = StateChange {
        operator: 2,
        operator_name: "materialize".into(),
        worker: 0,
        table: "rows".into(),
        appended: vec![(ids, rows(&keys))],
        deleted: went.to_vec(),
    };
    let (fingerprint, changes) = ("1-abc".into(), Arc::new(vec![change]));
    ViewCut::Changed { fingerprint, workers: 1, first, changes }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_of_version_1_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let copied = folder.path().join("storage");
    copy(Path::new(SAMPLE_1), &copied);
    let recovered = check(&copied).await;
    assert!(recovered.views.is_empty() && recovered.errors.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_of_version_2_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let copied = folder.path().join("storage");
    copy(Path::new(SAMPLE_2), &copied);
    check_2(&copied).await;
}

async fn check_2(directory: &Path) {
    let recovered = check(directory).await;
    assert_eq!(recovered.errors.as_deref(), Some("[]"));
    let place = &recovered.manifest.places[&3];
    assert_eq!((place.rows, place.malformed), (17, 1));
    assert_eq!((place.offsets["0"].as_str(), place.values["announced"].as_str()), ("17", "5"));
    assert_eq!(recovered.manifest.views[&9].fingerprint, "1-abc");
    let rows = &recovered.views[&ObjectId(9)][&2][0]["rows"];
    let keys = rows.iter().flat_map(|r| r.column(0).as_primitive::<Int64Type>().values().to_vec());
    assert_eq!(keys.collect::<Vec<_>>(), [1, 4]);
    let early = &recovered.checkpointer.savepoints()["early"];
    assert_eq!((early.created_at_us, early.manifest.number), (7, 2));
    drop(recovered);
    // Back to what it was then.
    let store = Store::directory(directory).unwrap();
    let back = recover_from(store, "reader", Some("early"), in_memory()).await.unwrap();
    let keys = back.tables[&ObjectId(1)][0].column(0).as_primitive::<Int64Type>().values().to_vec();
    assert_eq!(keys, [1, 2, 3]);
    assert_eq!(back.views[&ObjectId(9)][&2][0]["rows"][0].num_rows(), 2);
    assert!(back.records.is_empty() && back.sequence == 2 && back.manifest.next_id > 2);
}

async fn check(directory: &Path) -> Recovered {
    let recovered = recover(Store::directory(directory).unwrap(), "reader").await.unwrap();
    assert_eq!(recovered.catalog.as_deref(), Some("{\"at\":1}"));
    let epoch = recovered.manifest.epoch;
    assert_eq!((recovered.manifest.sequence, epoch), (1, 101 + EPOCHS_RESERVED));
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
    recovered
}
