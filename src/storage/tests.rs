//! A storage over its whole life: written, torn, fenced, recovered.

mod format;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::runtime::Handle;

use super::checkpoint::{Cut, TableCut, ViewCut};
use super::faulty::{Fault, FaultyStore};
use super::log::{Entry, Log, LogEvent, Record, decode_object, encode_object};
use super::manifest;
use super::paths::{LOG, MANIFESTS, numbered};
use super::recovery::{Recovered, recover, remove_orphans};
use super::table_files::Rows;
use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use crate::types::id::ObjectId;
use crate::types::time::Epoch;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, false),
        Field::new("v", DataType::Utf8, true),
    ]))
}

fn rows(keys: &[i64]) -> RecordBatch {
    let values: Vec<Option<String>> =
        keys.iter().map(|k| (k % 3 != 0).then(|| format!("value {k}"))).collect();
    let keys = Int64Array::from(keys.to_vec());
    RecordBatch::try_new(schema(), vec![Arc::new(keys), Arc::new(StringArray::from(values))])
        .unwrap()
}

fn insert(sequence: u64, keys: &[i64]) -> Record {
    let changes = ChangeBatch::inserts(rows(keys));
    let entries = vec![Entry::Rows { table: ObjectId(1), changes }];
    Record { sequence, epoch: Epoch(sequence + 100), entries }
}

/// What a record says, as text.
fn text(record: &Record) -> String {
    let entries: Vec<String> = record
        .entries
        .iter()
        .map(|entry| match entry {
            Entry::Catalog(text) => text.clone(),
            Entry::Rows { table, changes } => {
                let keys = changes.column(0).as_primitive::<Int64Type>().values();
                let values: Vec<_> = changes.column(1).as_string::<i32>().iter().collect();
                format!("{table} {keys:?} {values:?} {:?}", changes.weights_vec())
            }
        })
        .collect();
    format!("{} {} {}", record.sequence, record.epoch, entries.join("; "))
}

fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(text).collect()
}

async fn start(faulty: &Arc<FaultyStore>, name: &str) -> Result<Recovered> {
    recover(faulty.store(), name).await
}

/// The log of a recovered storage, with what it tells.
fn log(recovered: &Recovered) -> (Log, crossbeam_channel::Receiver<LogEvent>) {
    let (sender, events) = crossbeam_channel::unbounded();
    let log = Log::start(
        recovered.store.clone(),
        Handle::current(),
        recovered.generation,
        recovered.log_number,
        recovered.sequence,
        Arc::new(move |event| drop(sender.send(event))),
    );
    (log.unwrap(), events)
}

async fn wait_durable(log: &Log, sequence: u64) {
    let mut durable = log.durable();
    let waited = durable.wait_for(|durable| *durable >= sequence);
    tokio::time::timeout(Duration::from_secs(20), waited).await.expect("in time").unwrap();
}

fn cut(sequence: u64, log_start: u64, tables: Vec<(u64, TableCut)>) -> Cut {
    Cut {
        sequence,
        log_until: sequence,
        epoch: Epoch(sequence + 100),
        next_id: 2,
        log_start,
        catalog: Some(format!("{{\"at\":{sequence}}}")),
        tables: tables.into_iter().map(|(id, cut)| (ObjectId(id), cut)).collect(),
        sources: Default::default(),
        views: Default::default(),
        places: Default::default(),
        errors: None,
        sinks: Default::default(),
    }
}

fn base(keys: &[i64]) -> TableCut {
    let rows = rows(keys);
    let again = Arc::new(move || Box::new(std::iter::once(Ok(rows.clone()))) as Rows);
    TableCut::Base { schema: schema(), rows: again }
}

#[test]
fn a_torn_or_changed_object_gives_the_records_before_the_damage() {
    let records = vec![
        insert(1, &[1, 2]),
        Record { sequence: 2, epoch: Epoch(9), entries: vec![Entry::Catalog("{}".into())] },
        insert(3, &[3]),
    ];
    let object = encode_object(5, 42, &records).unwrap();
    let whole = decode_object(42, &object);
    assert!(whole.damage.is_none());
    assert_eq!((whole.generation, texts(&whole.records)), (5, texts(&records)));
    for length in 0..object.len() {
        let read = decode_object(42, &object[..length]);
        assert!(read.damage.is_some(), "{length} bytes look whole");
        assert_eq!(texts(&read.records), texts(&records[..read.records.len()]));
    }
    for index in (0..object.len()).step_by(7) {
        let mut changed = object.to_vec();
        changed[index] ^= 1;
        let read = decode_object(42, &changed);
        assert!(read.damage.is_some(), "byte {index} does not count");
        assert_eq!(texts(&read.records), texts(&records[..read.records.len()]));
    }
    assert!(decode_object(41, &object).damage.is_some());
    let mut longer = object.to_vec();
    longer.push(0);
    assert!(decode_object(42, &longer).damage.is_some());
}

#[test]
fn an_object_of_another_version_is_refused_and_not_taken_for_torn() {
    let mut object = encode_object(1, 1, &[insert(1, &[1])]).unwrap().to_vec();
    object[7] = b'2';
    let damage = decode_object(1, &object).damage.unwrap();
    assert_eq!(damage.sqlstate().0, "0A000");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_appended_is_there_after_a_restart_in_order() {
    let faulty = FaultyStore::new();
    let first = start(&faulty, "a").await.unwrap();
    assert!(first.records.is_empty() && first.catalog.is_none());
    let (mut log_a, _events) = log(&first);
    let records: Vec<Record> = (1..=50).map(|n| insert(n, &[n as i64])).collect();
    for record in &records {
        log_a.append(record.clone());
    }
    wait_durable(&log_a, 50).await;
    assert_eq!(log_a.waiting_bytes(), 0);
    log_a.stop();
    let second = start(&faulty, "b").await.unwrap();
    assert_eq!(texts(&second.records), texts(&records));
    assert_eq!((second.sequence, second.generation, second.torn), (50, 2, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_store_loses_nothing_and_is_told_of() {
    let faulty = FaultyStore::new();
    let recovered = start(&faulty, "a").await.unwrap();
    let (mut log_a, events) = log(&recovered);
    faulty.set(Fault::DiskFull);
    log_a.append(insert(1, &[1]));
    let event = events.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(matches!(event, LogEvent::Failing(error) if error.sqlstate().0 == "53100"));
    // Written, but the answer is lost: the next attempt finds its own object.
    faulty.set(Fault::LostAnswers);
    log_a.append(insert(2, &[2]));
    tokio::time::sleep(Duration::from_millis(100)).await;
    faulty.set(Fault::None);
    wait_durable(&log_a, 2).await;
    log_a.stop();
    let second = start(&faulty, "b").await.unwrap();
    assert_eq!(texts(&second.records), texts(&[insert(1, &[1]), insert(2, &[2])]));
}

#[tokio::test(flavor = "multi_thread")]
async fn random_faults_lose_nothing() {
    for seed in 0..20 {
        let faulty = FaultyStore::new();
        let recovered = start(&faulty, "a").await.unwrap();
        let (mut log_a, _events) = log(&recovered);
        faulty.set_random(seed, 0.3);
        let records: Vec<Record> = (1..=8).map(|n| insert(n, &[n as i64])).collect();
        for record in &records {
            log_a.append(record.clone());
            tokio::task::yield_now().await;
        }
        wait_durable(&log_a, 8).await;
        faulty.set(Fault::None);
        log_a.stop();
        let second = start(&faulty, "b").await.unwrap();
        assert_eq!(texts(&second.records), texts(&records), "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_of_two_servers_writes_nothing_more() {
    let faulty = FaultyStore::new();
    let mut older = start(&faulty, "a").await.unwrap();
    let (mut older_log, events) = log(&older);
    older_log.append(insert(1, &[1]));
    wait_durable(&older_log, 1).await;
    let newer = start(&faulty, "b").await.unwrap();
    assert_eq!(newer.sequence, 1);
    older_log.append(insert(2, &[2]));
    let stopped = std::iter::from_fn(|| events.recv_timeout(Duration::from_secs(20)).ok())
        .find_map(|event| match event {
            LogEvent::Stopped(error) => Some(error),
            _ => None,
        })
        .expect("it is told");
    assert_eq!(stopped.message(), "another server has taken over storage test");
    let tables = vec![(1, base(&[1, 2]))];
    let error =
        older.checkpointer.write(&cut(1, 1, tables), older_log.durable()).await.unwrap_err();
    assert_eq!(error.sqlstate().0, "57P01");
    assert!(older.checkpointer.check_claim().await.unwrap().is_some());
    assert!(newer.checkpointer.check_claim().await.unwrap().is_none());
    older_log.stop();
    // Nothing of what the older one tried is there.
    let third = start(&faulty, "c").await.unwrap();
    assert_eq!(texts(&third.records), texts(&[insert(1, &[1])]));
}

/// A storage with two checkpoints and records after each.
async fn two_checkpoints(faulty: &Arc<FaultyStore>) {
    let mut recovered = start(faulty, "a").await.unwrap();
    let (mut log_a, _events) = log(&recovered);
    for (sequence, keys) in [(1, vec![1, 2, 3]), (2, vec![4])] {
        log_a.append(insert(sequence, &keys));
        wait_durable(&log_a, sequence).await;
        let log_start = log_a.durable_number() + 1;
        let all: Vec<i64> = (1..=keys.last().copied().unwrap()).collect();
        let cut = cut(sequence, log_start, vec![(1, base(&all))]);
        recovered.checkpointer.write(&cut, log_a.durable()).await.unwrap();
    }
    log_a.append(insert(3, &[5]));
    wait_durable(&log_a, 3).await;
    log_a.stop();
}

/// Manifests that can be read, newest first.
async fn manifests(faulty: &Arc<FaultyStore>) -> Vec<manifest::Manifest> {
    let store = faulty.store();
    manifest::find(&store).await.unwrap().all(&store).await.unwrap()
}

fn keys_of(recovered: &Recovered) -> Vec<i64> {
    let files = recovered.tables.values().flatten();
    let records = recovered.records.iter().flat_map(|r| &r.entries).filter_map(|e| match e {
        Entry::Rows { changes, .. } => Some(changes),
        Entry::Catalog(_) => None,
    });
    let mut keys: Vec<i64> = files
        .chain(records)
        .flat_map(|changes| changes.column(0).as_primitive::<Int64Type>().values().to_vec())
        .collect();
    keys.sort_unstable();
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_shorten_the_log_and_damage_falls_back_to_the_one_before() {
    let faulty = FaultyStore::new();
    two_checkpoints(&faulty).await;
    let store = faulty.store();
    // Manifests 2 and 3 are kept, with the log since 2.
    assert_eq!(store.list_numbers(MANIFESTS).await.unwrap(), [2, 3]);
    assert_eq!(store.list_numbers(LOG).await.unwrap(), [3, 4]);
    assert_eq!(store.list("tables").await.unwrap().len(), 2);
    let newest = manifests(&faulty).await.remove(0);
    let sound = start(&faulty, "b").await.unwrap();
    assert_eq!(sound.catalog.as_deref(), Some("{\"at\":2}"));
    assert_eq!((sound.records.len(), keys_of(&sound)), (1, vec![1, 2, 3, 4, 5]));

    // Each thing that the newest checkpoint alone has, damaged in turn.
    let file = &newest.tables[&1][0].name;
    let catalog = &newest.catalog.as_ref().unwrap().name;
    for name in [numbered(MANIFESTS, 3).to_string(), file.clone(), catalog.clone()] {
        let faulty = FaultyStore::new();
        two_checkpoints(&faulty).await;
        let path = object_store::path::Path::from(name.as_str());
        let bytes = faulty.store().get(&path).await.unwrap();
        faulty.overwrite(&path, bytes[..bytes.len() / 2].to_vec()).await;
        let recovered = start(&faulty, "b").await.unwrap();
        assert_eq!(recovered.catalog.as_deref(), Some("{\"at\":1}"), "{name}");
        assert_eq!((recovered.records.len(), keys_of(&recovered)), (2, vec![1, 2, 3, 4, 5]));
        // And again, now over the manifest that the start before wrote.
        let again = start(&faulty, "c").await.unwrap();
        assert_eq!(keys_of(&again), [1, 2, 3, 4, 5], "{name}");
    }
}

/// Half of the writes fail, before or after they were done: what is there is not written again, so
/// the tables of a cut come through one after the other, and its views.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_of_many_files_comes_through_where_half_of_the_writes_fail() {
    let faulty = FaultyStore::new();
    let mut recovered = start(&faulty, "a").await.unwrap();
    let (mut log_a, _events) = log(&recovered);
    log_a.append(insert(1, &[0]));
    wait_durable(&log_a, 1).await;
    let tables = (1..=40).map(|id| (id, base(&[id as i64]))).collect();
    let first = ViewCut::Changed {
        fingerprint: "of a plan".into(),
        workers: 1,
        first: true,
        changes: Arc::default(),
    };
    let mut cut = cut(1, log_a.durable_number() + 1, tables);
    cut.views.insert(ObjectId(41), first);
    cut.errors = Some("{}".into());
    faulty.set(Fault::Random(Box::new(StdRng::seed_from_u64(1)), 0.5));
    let mut attempts = 1;
    let written = loop {
        match recovered.checkpointer.write(&cut, log_a.durable()).await {
            Ok(written) => break written,
            Err(_) => attempts += 1,
        }
        assert!(attempts < 400, "it starts over and over again");
    };
    assert!(attempts > 10, "{attempts} attempts");
    faulty.set(Fault::None);
    log_a.stop();
    // 40 tables, a view, the catalog and the errors.
    assert_eq!(written.files, 43);
    assert_eq!(recovered.checkpointer.newest().files().len(), 43);
    let found = start(&faulty, "b").await.unwrap();
    assert_eq!(keys_of(&found), (1..=40).collect::<Vec<i64>>());
    assert_eq!(found.errors.as_deref(), Some("{}"));
    assert_eq!(found.views.keys().collect::<Vec<_>>(), [&ObjectId(41)]);
}

/// Names of files that a manifest has, and that are not there.
async fn missing_files(faulty: &Arc<FaultyStore>, manifest: &manifest::Manifest) -> Vec<String> {
    let mut missing = Vec::new();
    for file in manifest.files() {
        if !faulty.store().exists(&file.into()).await.unwrap() {
            missing.push(file.to_owned());
        }
    }
    missing
}

/// Lists that a start gets are as of any moment before, some of them or all: it takes up the newest
/// checkpoint, or does not come about; and files of the newest checkpoint are not deleted.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_over_old_lists_takes_up_the_newest_checkpoint_or_none() {
    let before = FaultyStore::new();
    two_checkpoints(&before).await;
    let done = before.operations().len();
    let newest = manifests(&before).await.remove(0);
    let mut started = 0;
    for old in 0..done {
        for lists in 1..12 {
            let faulty = FaultyStore::new();
            two_checkpoints(&faulty).await;
            assert_eq!(faulty.operations().len(), done);
            faulty.set_old_lists(lists, old);
            let context = format!("{lists} lists as of {old}");
            if let Ok(recovered) = start(&faulty, "b").await {
                started += 1;
                assert_eq!(recovered.catalog.as_deref(), Some("{\"at\":2}"), "{context}");
                let read = (recovered.records.len(), keys_of(&recovered));
                assert_eq!(read, (1, vec![1, 2, 3, 4, 5]), "{context}");
            }
            assert_eq!(missing_files(&faulty, &newest).await, [""; 0], "{context}");
            faulty.set_old_lists(0, 0);
            let recovered = start(&faulty, "c").await.unwrap();
            assert_eq!(recovered.catalog.as_deref(), Some("{\"at\":2}"), "{context}, again");
            assert_eq!(keys_of(&recovered), [1, 2, 3, 4, 5], "{context}, again");
        }
    }
    assert!(started > done, "only {started} starts came through");
}

/// Starts that fail behind their manifest leave one more each. None of those before the newest that
/// is sound needs to be read by the next: else each failure would make the next likelier. What they
/// name stays while it is not known, and they all go with the next checkpoint.
#[tokio::test(flavor = "multi_thread")]
async fn older_manifests_that_cannot_be_read_keep_nobody_from_starting() {
    let faulty = FaultyStore::new();
    two_checkpoints(&faulty).await;
    let store = faulty.store();
    let orphan = object_store::path::Path::from("tables/9/00000000000000000001-x.parquet");
    faulty.overwrite(&orphan, b"nobody needs it".to_vec()).await;
    let end = numbered(LOG, 4);
    for newest in 3..13 {
        let older = (1..newest).map(|number| numbered(MANIFESTS, number));
        faulty.set_unreadable(older.chain([end.clone()]));
        let error = start(&faulty, "b").await.unwrap_err();
        assert!(error.message().contains(end.as_ref()), "{error}");
        assert_eq!(store.list_numbers(MANIFESTS).await.unwrap().last(), Some(&(newest + 1)));
    }
    // A file that the oldest alone has.
    faulty.set_unreadable([]);
    let second = manifests(&faulty).await.pop().unwrap();
    assert_eq!(second.number, 2);
    let only = second.tables[&1][0].name.clone();
    faulty.set_unreadable((2..13).map(|number| numbered(MANIFESTS, number)));
    let mut recovered = start(&faulty, "c").await.unwrap();
    assert_eq!(keys_of(&recovered), [1, 2, 3, 4, 5]);
    assert!(store.exists(&orphan).await.unwrap());
    assert!(store.exists(&only.as_str().into()).await.unwrap());
    let (mut log_c, _events) = log(&recovered);
    let next = cut(3, log_c.durable_number() + 1, vec![(1, base(&[1, 2, 3, 4, 5]))]);
    recovered.checkpointer.write(&next, log_c.durable()).await.unwrap();
    log_c.stop();
    assert_eq!(store.list_numbers(MANIFESTS).await.unwrap(), [14, 15]);
    // The next start knows all that is named.
    faulty.set_unreadable([]);
    let recovered = start(&faulty, "d").await.unwrap();
    assert_eq!(keys_of(&recovered), [1, 2, 3, 4, 5]);
    for gone in [&orphan, &only.as_str().into()] {
        assert!(!store.exists(gone).await.unwrap(), "{gone}");
    }
}

/// Manifests go in order, damaged ones too: one that stays for ever would be the newest of an old
/// list, with nothing behind it that is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_manifest_goes_when_two_newer_ones_are_there() {
    let faulty = FaultyStore::new();
    two_checkpoints(&faulty).await;
    let store = faulty.store();
    faulty.overwrite(&numbered(MANIFESTS, 3), b"manifest".to_vec()).await;
    let mut recovered = start(&faulty, "b").await.unwrap();
    assert_eq!(store.list_numbers(MANIFESTS).await.unwrap(), [2, 3, 4]);
    let (mut log_b, _events) = log(&recovered);
    let next = cut(3, log_b.durable_number() + 1, vec![(1, base(&[1, 2, 3, 4, 5]))]);
    recovered.checkpointer.write(&next, log_b.durable()).await.unwrap();
    log_b.stop();
    assert_eq!(store.list_numbers(MANIFESTS).await.unwrap(), [4, 5]);
    assert_eq!(keys_of(&start(&faulty, "c").await.unwrap()), [1, 2, 3, 4, 5]);
}

/// What cannot be deleted keeps nobody from starting, and goes when it can.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_goes_on_where_orphans_cannot_be_deleted() {
    let faulty = FaultyStore::new();
    two_checkpoints(&faulty).await;
    let orphan = object_store::path::Path::from("tables/9/00000000000000000001-x.parquet");
    faulty.overwrite(&orphan, b"nobody needs it".to_vec()).await;
    faulty.set(Fault::NoDeletes);
    let recovered = start(&faulty, "b").await.unwrap();
    assert_eq!(keys_of(&recovered), [1, 2, 3, 4, 5]);
    assert!(faulty.refused_deletes() > 0 && faulty.store().exists(&orphan).await.unwrap());
    faulty.set(Fault::None);
    let recovered = start(&faulty, "c").await.unwrap();
    assert_eq!(keys_of(&recovered), [1, 2, 3, 4, 5]);
    assert!(!faulty.store().exists(&orphan).await.unwrap());
}

/// A start that was held up, and is replaced meanwhile, deletes no files of the newer server, whose
/// manifests it does not know.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_replaced_deletes_no_files_of_the_newer_server() {
    let faulty = FaultyStore::new();
    let store = faulty.store();
    let held_up = start(&faulty, "a").await.unwrap();
    let mut newer = start(&faulty, "b").await.unwrap();
    let (mut log_b, _events) = log(&newer);
    log_b.append(insert(1, &[1]));
    wait_durable(&log_b, 1).await;
    let next = cut(1, log_b.durable_number() + 1, vec![(1, base(&[1]))]);
    newer.checkpointer.write(&next, log_b.durable()).await.unwrap();
    log_b.stop();
    let (known, savepoints) = (&held_up.manifest, Default::default());
    remove_orphans(&store, held_up.generation, &[], known, &savepoints).await.unwrap();
    assert_eq!(missing_files(&faulty, newer.checkpointer.newest()).await, [""; 0]);
    // The newest may.
    remove_orphans(&store, newer.generation, &[], known, &savepoints).await.unwrap();
    assert_eq!(missing_files(&faulty, newer.checkpointer.newest()).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_end_of_the_log_is_left_out_and_a_hole_is_refused() {
    let faulty = FaultyStore::new();
    two_checkpoints(&faulty).await;
    let end = numbered(LOG, 4);
    let bytes = faulty.store().get(&end).await.unwrap();
    faulty.overwrite(&end, bytes[..bytes.len() - 3].to_vec()).await;
    let recovered = start(&faulty, "b").await.unwrap();
    assert!(recovered.torn && recovered.records.is_empty());
    assert_eq!((recovered.sequence, keys_of(&recovered)), (2, vec![1, 2, 3, 4]));

    // Behind the torn object are only fences: the same again.
    let again = start(&faulty, "c").await.unwrap();
    assert_eq!(keys_of(&again), [1, 2, 3, 4]);

    // Records behind it: something acknowledged would be lost.
    let number = again.log_number + 1;
    let object = encode_object(again.generation, number, &[insert(3, &[9])]).unwrap();
    faulty.overwrite(&numbered(LOG, number), object.to_vec()).await;
    let error = start(&faulty, "d").await.unwrap_err();
    assert_eq!(error.sqlstate().0, "XX001");

    let faulty = FaultyStore::new();
    two_checkpoints(&faulty).await;
    let object: Bytes = encode_object(1, 6, &[insert(4, &[9])]).unwrap();
    faulty.overwrite(&numbered(LOG, 6), object.to_vec()).await;
    let error = start(&faulty, "b").await.unwrap_err();
    assert!(error.message().contains("log/00000000000000000005"), "{error}");
}
