use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, StringArray};
use arrow::datatypes::Int64Type;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::memory::spill::{EVERYTHING, PASSES};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, true),
        Field::new("t", DataType::Utf8, true),
    ]))
}

fn rows(values: impl Iterator<Item = i64> + Clone) -> RecordBatch {
    let texts = StringArray::from_iter_values(values.clone().map(|n| format!("t{n}")));
    let numbers = Int64Array::from_iter_values(values);
    RecordBatch::try_new(schema(), vec![Arc::new(numbers), Arc::new(texts)]).expect("two columns")
}

fn numbers(batch: &RecordBatch) -> Vec<i64> {
    batch.column(0).as_primitive::<Int64Type>().values().to_vec()
}

fn content(snapshot: &Snapshot) -> Vec<i64> {
    let mut all = Vec::new();
    for batch in snapshot.batches() {
        let batch = batch.expect("a batch");
        assert!(batch.num_rows() <= 8192);
        all.extend(numbers(&batch));
    }
    assert_eq!(all.len(), snapshot.num_rows());
    all.sort_unstable();
    all
}

#[test]
fn small_appends_are_merged_and_keep_their_ids() {
    let mut store = RowStore::new(schema());
    for n in 0..40_000 {
        store.append(&ChangeBatch::inserts(rows(n..n + 1))).expect("appends");
        store.compact().expect("compacts");
    }
    assert!(store.slots.len() < 16 * 5, "{} segments", store.slots.len());
    let ids: Vec<u32> = (0..40_000).step_by(77).collect();
    let expected: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
    assert_eq!(numbers(&store.gather(&ids).expect("gathers")), expected);
    assert_eq!(content(&store.snapshot()), (0..40_000).collect::<Vec<_>>());
}

#[test]
fn large_appends_are_cut_and_merged_up_to_the_ceiling() {
    let mut store = RowStore::new(schema());
    store.append(&ChangeBatch::inserts(rows(0..600_000))).expect("appends");
    assert_eq!(store.slots.len(), 3);
    for n in 0..64 {
        let from = 600_000 + n * 8192;
        store.append(&ChangeBatch::inserts(rows(from..from + 8192))).expect("appends");
        store.compact().expect("compacts");
    }
    assert!(store.slots.iter().all(|slot| slot.segment.num_rows() <= SEGMENT_ROWS_MAX));
    assert!(store.slots.len() < 10, "{} segments", store.slots.len());
}

#[test]
fn a_snapshot_does_not_see_what_happens_after_it() {
    let mut store = RowStore::new(schema());
    store.append(&ChangeBatch::inserts(rows(0..3000))).expect("appends");
    let before = store.snapshot();
    store.kill_all(&(0..2000).collect::<Vec<u32>>());
    store.compact().expect("compacts");
    store.append(&ChangeBatch::inserts(rows(9000..9001))).expect("appends");
    let after = store.snapshot();
    assert_eq!(content(&before), (0..3000).collect::<Vec<_>>());
    assert_eq!(content(&after), (2000..3000).chain([9000]).collect::<Vec<_>>());
    let read = std::thread::spawn(move || content(&before).len());
    assert_eq!(read.join().expect("a snapshot is read on another thread"), 3000);
    assert!(store.slots[0].segment.num_rows() == 1000, "rewritten");
}

#[test]
fn weights_repeat_rows_in_snapshots() {
    let mut store = RowStore::new(schema());
    let batch = ChangeBatch::new(rows(0..3), vec![2, 20_000, -1]).expect("weights");
    store.append(&batch).expect("appends");
    store.append(&ChangeBatch::inserts(rows(7..8))).expect("appends");
    assert_eq!(store.weight_sum(), 20_002);
    assert_eq!([0, 1, 2, 3].map(|id| store.weight(id)), [2, 20_000, -1, 1]);
    let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
    for batch in store.snapshot().batches() {
        for n in numbers(&batch.expect("a batch")) {
            *counts.entry(n).or_default() += 1;
        }
    }
    assert_eq!(counts, BTreeMap::from([(0, 2), (1, 20_000), (7, 1)]));
    store.kill(1);
    store.compact().expect("compacts");
    assert_eq!(store.weight_sum(), 2);
}

/// Ids end in NIL's bits and wrap around while the window slides over them.
#[test]
fn short_ids_survive_the_end_of_their_range() {
    let mut store = RowStore::new(schema());
    store.end = u64::from(u32::MAX) - 5000;
    let mut alive: BTreeMap<u32, i64> = BTreeMap::new();
    for n in 0..10i64 {
        let start = store.append(&ChangeBatch::inserts(rows(n * 1000..n * 1000 + 1000)));
        let start = start.expect("appends");
        alive.extend((0..1000).map(|row| ((start + row) as u32, n * 1000 + row as i64)));
        let oldest: Vec<u32> = alive
            .iter()
            .map(|(id, n)| (*n, *id))
            .collect::<BTreeMap<_, _>>()
            .into_values()
            .take(300)
            .collect();
        store.kill_all(&oldest);
        oldest.iter().for_each(|id| assert!(alive.remove(id).is_some()));
        store.compact().expect("compacts");
        let ids: Vec<u32> = alive.keys().copied().collect();
        assert!(!ids.contains(&NIL));
        let values: Vec<i64> = alive.values().copied().collect();
        assert_eq!(numbers(&store.gather(&ids).expect("gathers")), values);
        assert!(oldest.iter().all(|id| store.outside(*id) || store.is_dead(*id)));
        assert!(ids.iter().all(|id| !store.outside(*id) && !store.is_dead(*id)));
    }
    assert!(store.end > u64::from(u32::MAX));
}

/// Random appends, deaths and moves; content, gathers and folded checkpoints against a map.
#[test]
fn random_histories_against_a_map() {
    let seed = std::env::var("MILLSTREAM_SEED").ok().and_then(|s| s.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| rand::rng().random());
    println!("MILLSTREAM_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut store = RowStore::new(schema());
    let mut alive: BTreeMap<u64, i64> = BTreeMap::new();
    let mut folded: BTreeMap<u64, i64> = BTreeMap::new();
    let mut next = 0i64;
    let memory = StateMemory::always_full(std::env::temp_dir());
    for step in 0..400 {
        if random.random_bool(0.2) {
            store.spill(&memory, EVERYTHING);
        }
        let length = if random.random_bool(0.1) { 5000 } else { random.random_range(0..40) };
        let start = store.append(&ChangeBatch::inserts(rows(next..next + length)));
        let start = start.expect("appends");
        alive.extend((0..length as u64).map(|row| (start + row, next + row as i64)));
        next += length;
        let share = if step % 50 == 49 { 0.95 } else { 0.1 };
        let dying: Vec<u64> = alive.keys().copied().filter(|_| random.random_bool(share)).collect();
        store.kill_all(&dying.iter().map(|id| *id as u32).collect::<Vec<_>>());
        dying.iter().for_each(|id| assert!(alive.remove(id).is_some()));
        store.compact().expect("compacts");
        while store.front_is_due() {
            let (ids, moving) = store.front().expect("a front");
            let start = store.append(&moving).expect("appends");
            for (row, id) in ids.iter().enumerate() {
                let n = alive.remove(&store.full_id(*id)).expect("the front is alive");
                alive.insert(start + row as u64, n);
            }
            store.kill_all(&ids);
            store.compact().expect("compacts");
        }
        assert!(store.end - store.base() <= 4 * alive.len() as u64 + WINDOW_IDS_FREE);
        assert_eq!(store.live_rows(), alive.len());
        if step % 7 == 0 {
            let mut expected: Vec<i64> = alive.values().copied().collect();
            let ids: Vec<u32> = alive.keys().map(|id| *id as u32).collect();
            assert_eq!(numbers(&store.gather(&ids).expect("gathers")), expected);
            expected.sort_unstable();
            assert_eq!(content(&store.snapshot()), expected, "step {step}");
        }
        if step % 11 == 0 {
            let delta = store.checkpoint_delta().expect("a delta");
            // Some of the dead may be among those that came.
            for (ids, batch) in delta.appended {
                let pairs = ids.values().iter().copied().zip(numbers(&batch));
                pairs.for_each(|(id, n)| assert!(folded.insert(id, n).is_none()));
            }
            for id in delta.deleted {
                assert!(folded.remove(&id).is_some(), "row {id} came, and died once");
            }
            assert_eq!(folded, alive, "step {step}");
        }
    }
}

#[test]
fn rows_go_to_the_disk_oldest_and_coldest_first_and_nobody_can_tell() {
    let mut store = RowStore::new(schema());
    for n in 0..8 {
        let from = n * SEGMENT_ROWS_MAX as i64;
        let batch = rows(from..from + SEGMENT_ROWS_MAX as i64);
        store.append(&ChangeBatch::inserts(batch)).expect("appends");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let memory = StateMemory::new(directory.path().to_owned());
    let before = store.memory_bytes();
    let row_bytes = |store: &RowStore, slot: usize| store.slots[slot].segment.row_bytes();
    assert!(row_bytes(&store, 0) > PASSES[0].bytes_min);
    let two_bytes = row_bytes(&store, 1) + row_bytes(&store, 3);
    let on_disk = |store: &RowStore| -> Vec<usize> {
        (0..8).filter(|slot| store.slots[*slot].segment.disk_bytes() > 0).collect()
    };
    // What has just come counts as looked at.
    assert!(memory.ask(two_bytes as u64, 1));
    store.spill(&memory, PASSES[0]);
    assert!(on_disk(&store).is_empty());
    let taken = store.gather(&[0, 5, SEGMENT_ROWS_MAX as u32 * 2]).expect("rows");
    let held = store.snapshot();
    store.spill(&memory, PASSES[0]);
    assert_eq!(on_disk(&store), [1, 3]);
    assert!(!memory.is_wanted());
    memory.done();
    assert!(!memory.is_exhausted());
    assert!(memory.ask(100 * two_bytes as u64, 1));
    PASSES.into_iter().for_each(|pass| store.spill(&memory, pass));
    memory.done();
    assert!(memory.is_exhausted(), "more was wanted than there is");
    assert_eq!(on_disk(&store), (0..8).collect::<Vec<_>>());
    assert_eq!(store.disk_bytes() as u64, memory.disk().now_bytes());
    assert!(store.memory_bytes() < before / 20, "{} of {before}", store.memory_bytes());
    let again = store.gather(&[0, 5, SEGMENT_ROWS_MAX as u32 * 2]).expect("rows");
    assert_eq!(taken, again);
    assert_eq!(content(&held), content(&store.snapshot()));
    // Rewriting brings back what lives.
    let dying: Vec<u32> = (0..SEGMENT_ROWS_MAX as u32 * 4).filter(|id| id % 4 != 0).collect();
    store.kill_all(&dying);
    store.compact().expect("compacts");
    assert_eq!(store.disk_bytes() as u64, memory.disk().now_bytes());
    assert_eq!(on_disk(&store).len(), 4);
    let ids: Vec<u32> = (0..SEGMENT_ROWS_MAX as u32 * 8).step_by(400).collect();
    let expected: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
    assert_eq!(numbers(&store.gather(&ids).expect("gathers")), expected);
}

#[test]
fn shares_of_a_snapshot_are_all_of_it_once() {
    let mut store = RowStore::new(schema());
    store.append(&ChangeBatch::inserts(rows(0..100_000))).expect("appends");
    let weighted = ChangeBatch::new(rows(100_000..100_500), vec![50; 500]).expect("weights");
    store.append(&weighted).expect("appends");
    store.append(&ChangeBatch::inserts(rows(100_500..120_000))).expect("appends");
    store.kill_all(&(0..30_000).step_by(3).collect::<Vec<_>>());
    let snapshot = store.snapshot();
    for snapshot in [snapshot.clone(), snapshot.without_last(10_000)] {
        for shares in [1, 2, 3, 7] {
            let mut all = Vec::new();
            for share in 0..shares {
                let batches = snapshot.share_of(vec![0], (share, shares));
                let part: Vec<i64> = batches.flat_map(|b| numbers(&b.expect("rows"))).collect();
                all.extend(part);
            }
            all.sort_unstable();
            assert_eq!(all, content(&snapshot), "{shares} shares");
        }
    }
}

#[test]
fn a_disk_that_takes_nothing_leaves_rows_in_memory() {
    let mut store = RowStore::new(schema());
    store.append(&ChangeBatch::inserts(rows(0..100_000))).expect("appends");
    let directory = tempfile::tempdir().expect("a directory");
    let gone = directory.path().join("gone");
    let memory = StateMemory::new(gone.clone());
    assert!(memory.ask(u64::MAX, 1));
    PASSES.into_iter().for_each(|pass| store.spill(&memory, pass));
    memory.done();
    assert!(memory.is_exhausted() && memory.failure().is_some());
    assert_eq!(store.disk_bytes(), 0);
    assert_eq!(numbers(&store.gather(&[99_999]).expect("gathers")), [99_999]);
    // It is tried again after a while, and then it works.
    std::fs::create_dir(&gone).expect("a directory");
    let asks = (0..1000).take_while(|_| !memory.ask(u64::MAX, 1)).count();
    assert!((10..1000).contains(&asks));
    PASSES.into_iter().for_each(|pass| store.spill(&memory, pass));
    assert!(memory.failure().is_none() && store.disk_bytes() > 0);
}
