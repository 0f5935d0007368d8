use std::collections::BTreeMap;

use arrow::array::StringArray;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::memory::spill::{EVERYTHING, PASSES, Pass, Spill, StateMemory};

/// The net content of a set.
fn content<S: ValueSet>(set: &S) -> Vec<(S::Value, i64)> {
    sum_up(set.entries())
}

/// Random epochs on one set against a map; `spread` values, `growth` is the share of insertions.
fn exercise<S: ValueSet<Value = u64>>(
    seed: u64,
    spread: u64,
    growth: f64,
    check: impl Fn(&S, &BTreeMap<u64, i64>),
) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut set = S::default();
    let mut oracle: BTreeMap<u64, i64> = BTreeMap::new();
    for epoch in 0..300 {
        // The second half shrinks what the first half made.
        let growth = if epoch < 150 { growth } else { 1.0 - growth };
        for _ in 0..rng.random_range(0..200) {
            if rng.random_bool(growth) {
                let value = rng.random_range(0..spread);
                let many = spread < 100 && rng.random_bool(0.01);
                let count = if many { 100 } else { rng.random_range(1..3) };
                set.insert(value, count);
                *oracle.entry(value).or_default() += count;
            }
        }
        for _ in 0..rng.random_range(0..200) {
            if !rng.random_bool(growth) && !oracle.is_empty() {
                let from = rng.random_range(0..spread);
                let found = oracle.range(from..).next().or(oracle.iter().next());
                let (value, held) = found.map(|(v, c)| (*v, *c)).expect("not empty");
                let count = rng.random_range(1..=held);
                set.delete(value, count).expect("it is there");
                if held == count {
                    oracle.remove(&value);
                } else {
                    oracle.insert(value, held - count);
                }
            }
        }
        set.settle().expect("settles");
        assert_eq!(set.is_empty(), oracle.is_empty());
        check(&set, &oracle);
        if epoch % 50 == 0 {
            let expected: Vec<(u64, i64)> = oracle.iter().map(|(v, c)| (*v, *c)).collect();
            assert_eq!(content(&set), expected);
        }
    }
}

#[test]
fn the_smallest_value_is_known_in_every_form() {
    let forms = std::cell::RefCell::new([0; 3]);
    for (seed, spread) in [(1, 5), (2, 40), (3, 300), (4, 100_000), (5, u64::MAX)] {
        exercise::<ExtremeSet<u64>>(seed, spread, 0.7, |set, oracle| {
            assert_eq!(set.first(), oracle.keys().next());
            let form = match set {
                ExtremeSet::Few(_) => 0,
                ExtremeSet::Heaps(_) => 1,
                ExtremeSet::Sorted(_) => 2,
            };
            forms.borrow_mut()[form] += 1;
        });
    }
    let forms = forms.into_inner();
    assert!(forms.iter().all(|seen| *seen > 100), "{forms:?}");
}

#[test]
fn ranks_are_those_of_the_sorted_values() {
    for (seed, spread) in [(1, 5), (2, 3000), (3, u64::MAX)] {
        exercise::<SortedSet<u64>>(seed, spread, 0.8, |set, oracle| {
            assert_eq!(set.first(), oracle.keys().next());
            assert_eq!(set.last(), oracle.keys().next_back());
            let copies: i64 = oracle.values().sum();
            assert_eq!(set.copies(), copies);
            for rank in [0, copies / 3, copies / 2, copies - 1] {
                let mut rest = rank;
                let expected = oracle.iter().find(|(_, count)| {
                    rest -= **count;
                    rest < 0
                });
                assert_eq!(set.nth(rank), expected.map(|e| e.0).filter(|_| rank >= 0));
            }
            assert_eq!(set.nth(copies), None);
            let most = oracle.values().max();
            for last in [false, true] {
                let values: Vec<&u64> =
                    oracle.iter().filter(|(_, c)| Some(*c) == most).map(|(v, _)| v).collect();
                let expected = if last { values.last() } else { values.first() };
                let found = set.nth(set.rank_of_most_frequent(last));
                assert_eq!(found, expected.copied());
            }
        });
    }
}

/// Epochs of one change, some, and very many, spread over the values or close together.
#[test]
fn a_large_set_takes_changes_in_any_amount() {
    let seed = std::env::var("MILLSTREAM_SEED").ok().and_then(|s| s.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| rand::rng().random());
    println!("MILLSTREAM_SEED={seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    for tree in [false, true] {
        let mut oracle: BTreeMap<u64, i64> =
            (0..60_000).map(|_| (rng.random_range(0..200_000), 1)).collect();
        let mut set = SortedSet::<u64>::of_sorted(oracle.clone().into_iter().collect());
        if tree {
            set = SortedSet::default();
            oracle.iter().for_each(|(value, count)| set.insert(*value, *count));
            set.settle().expect("settles");
        }
        for epoch in 0..60 {
            let many = [1, 3, 200, 5000, 30_000][rng.random_range(0..5)];
            let center = rng.random_range(0..200_000);
            let width = [10, 1000, 200_000][rng.random_range(0..3)];
            let near = |rng: &mut SmallRng| (center + rng.random_range(0..width)) % 200_000;
            // In the middle most of it goes.
            let growth = if (20..40).contains(&epoch) { 0.2 } else { 0.6 };
            for _ in 0..(many as f64 * growth) as usize + 1 {
                let (value, count) = (near(&mut rng), rng.random_range(1..3));
                set.insert(value, count);
                *oracle.entry(value).or_default() += count;
            }
            for _ in 0..(many as f64 * (1.0 - growth)) as usize + 1 {
                let from = near(&mut rng);
                let Some((value, held)) = oracle.range(from..).next() else { continue };
                let (value, held) = (*value, *held);
                set.delete(value, held).expect("it is there");
                oracle.remove(&value);
            }
            set.settle().expect("settles");
            let expected: Vec<(u64, i64)> = oracle.iter().map(|(v, c)| (*v, *c)).collect();
            assert_eq!(set.entries(), expected, "epoch {epoch}");
            assert_eq!(set.entries_len(), expected.len());
            assert_eq!(set.copies(), expected.iter().map(|entry| entry.1).sum::<i64>());
            let most = expected.iter().map(|entry| entry.1).max().unwrap_or(0);
            let first = expected.iter().find(|entry| entry.1 == most).map(|entry| &entry.0);
            assert_eq!(set.nth(set.rank_of_most_frequent(false)), first);
            assert_eq!(set.first(), expected.first().map(|entry| &entry.0));
        }
        let (value, held) = oracle.pop_first().expect("not empty");
        // A small set sees it at once, a large one when it is settled.
        let seen = set.delete(value, held + 1).and_then(|()| set.settle());
        assert!(seen.is_err(), "more is deleted than is there");
    }
}

#[test]
fn a_large_heap_becomes_sorted_and_the_way_back() {
    let mut set = ExtremeSet::<u64>::default();
    for value in 0..200_000 {
        set.insert(value, 1);
        if value % 1000 == 0 {
            set.settle().expect("settles");
        }
    }
    assert!(matches!(set, ExtremeSet::Sorted(_)));
    for value in 0..199_990 {
        set.delete(value, 1).expect("it is there");
    }
    set.settle().expect("settles");
    assert!(matches!(set, ExtremeSet::Few(_)));
    assert_eq!(set.first(), Some(&199_990));
}

#[test]
fn deleting_what_is_not_there_is_an_error() {
    let mut few = ExtremeSet::<u64>::default();
    few.insert(1, 1);
    assert!(few.delete(2, 1).is_err());
    assert!(few.delete(1, 2).is_err());
    let mut heaps = ExtremeSet::<u64>::default();
    for value in 10..100 {
        heaps.insert(value, 1);
    }
    heaps.delete(5, 1).expect("seen later");
    assert!(heaps.settle().is_err());
    let mut sorted = SortedSet::<u64>::default();
    assert!(sorted.delete(1, 1).is_err());
    sorted.insert(1, 1);
    assert!(sorted.delete(1, 2).is_err());
}

/// The rows of a checkpoint, by id: group and entries.
type Written = BTreeMap<u64, (u32, ListArray, ListArray)>;

fn checkpoint(
    sets: &mut ValueSets<ExtremeSet<Reverse<Box<[u8]>>>>,
    groups: &[u32],
    to: &mut Written,
) {
    let changes = sets.changes(groups).expect("changes");
    for id in changes.deleted {
        assert!(to.remove(&id).is_some(), "row {id} was never written");
    }
    for (row, (id, group)) in changes.ids.iter().zip(changes.groups).enumerate() {
        let row = (group, changes.values.slice(row, 1), changes.counts.slice(row, 1));
        assert!(to.insert(*id, row).is_none(), "row {id} is written twice");
    }
}

#[test]
fn checkpoints_hold_what_the_sets_hold_at_little_cost() {
    let mut rng = SmallRng::seed_from_u64(11);
    let text = |n: usize| -> ArrayRef { Arc::new(StringArray::from(vec![format!("{n:05}")])) };
    let new_sets = || {
        let codec = ValueCodec::new(&DataType::Utf8, true).expect("a codec");
        ValueSets::<ExtremeSet<Reverse<Box<[u8]>>>>::new(codec)
    };
    let memory = StateMemory::always_full(std::env::temp_dir());
    let mut sets = new_sets();
    let mut written = Written::new();
    // Group 0 has few values, group 1 many, group 2 comes and goes.
    let mut oracle: Vec<BTreeMap<usize, i64>> = vec![BTreeMap::new(); 3];
    for round in 0..60 {
        for _ in 0..200 {
            let group = [0, 1, 1, 1, 2][rng.random_range(0..5)];
            let value = rng.random_range(0..[10, 20_000, 300][group]);
            let held = oracle[group].get(&value).copied().unwrap_or(0);
            let weight = if held > 0 && rng.random_bool(0.6) { -held } else { 1 };
            let column = text(value);
            let rows = Rows {
                groups: &[group as u32],
                weights: Some(&[weight]),
                arguments: std::slice::from_ref(&column),
            };
            sets.fold(&rows, &column).expect("folds");
            *oracle[group].entry(value).or_default() += weight;
        }
        if round % 10 == 9 {
            for (value, held) in std::mem::take(&mut oracle[2]) {
                let column = text(value);
                let arguments = std::slice::from_ref(&column);
                let rows = Rows { groups: &[2], weights: Some(&[-held]), arguments };
                if held > 0 {
                    sets.fold(&rows, &column).expect("folds");
                }
            }
        }
        oracle.iter_mut().for_each(|group| group.retain(|_, held| *held > 0));
        sets.settle(&[0, 1, 2]).expect("settles");
        if oracle[2].is_empty() {
            sets.free(&[2]);
        }
        if round % 4 == 1 {
            let pass = if round % 8 == 1 { EVERYTHING } else { PASSES[0] };
            sets.spill(&memory, pass);
            // A set that nobody asks for is not needed in memory.
            let gone = (0..3).filter(|group| sets.cold.is_cold(*group)).count();
            assert!(round % 8 != 1 || gone >= 2, "{gone} of three sets are on the disk");
        }
        if round % 3 == 0 {
            checkpoint(&mut sets, &[0, 1, 2], &mut written);
            let mut loaded = new_sets();
            for (group, values, counts) in written.values() {
                loaded.load(&[*group], values, counts).expect("loads");
            }
            loaded.settle(&[0, 1, 2]).expect("settles");
            for group in 0..3 {
                let expected = oracle[group as usize].iter();
                let mut expected: Vec<(Reverse<Box<[u8]>>, i64)> = expected
                    .map(|(v, c)| (Reverse(format!("{v:05}").into_bytes().into()), *c))
                    .collect();
                expected.sort();
                for sets in [&mut sets, &mut loaded] {
                    sets.thaw(&[group]).expect("thaws");
                    let held = sets.get(group).map(content).unwrap_or_default();
                    assert_eq!(held, expected, "round {round} group {group}");
                }
            }
        }
    }
    // One more change of the large group is one small row.
    checkpoint(&mut sets, &[0, 1, 2], &mut written);
    let before = written.len();
    let column = text(7);
    let rows = Rows { groups: &[1], weights: None, arguments: std::slice::from_ref(&column) };
    sets.fold(&rows, &column).expect("folds");
    sets.settle(&[1]).expect("settles");
    checkpoint(&mut sets, &[1], &mut written);
    assert_eq!(written.len(), before + 1);
    assert_eq!(written.values().next_back().expect("a row").1.values().len(), 1);
    drop(sets);
    assert_eq!(memory.disk().now_bytes(), 0);
}

#[test]
fn sets_that_rest_are_on_the_disk_and_pieces_of_few_go() {
    let memory = StateMemory::always_full(std::env::temp_dir());
    let codec = ValueCodec::new(&DataType::Int64, false).expect("a codec");
    let mut sets = ValueSets::<ExtremeSet<u64>>::new(codec);
    let groups: Vec<u32> = (0..40_000).collect();
    let values = |groups: &[u32]| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(groups.iter().map(|g| i64::from(*g) - 7)))
    };
    let fold = |sets: &mut ValueSets<ExtremeSet<u64>>, groups: &[u32], weight: i64| {
        let column = values(groups);
        let weights = vec![weight; groups.len()];
        let arguments = std::slice::from_ref(&column);
        let rows = Rows { groups, weights: Some(&weights), arguments };
        sets.fold(&rows, &column).expect("folds");
        sets.settle(groups).expect("settles");
    };
    fold(&mut sets, &groups, 2);
    let before = sets.memory_bytes();
    sets.spill(&memory, EVERYTHING);
    assert!(groups.iter().all(|group| sets.cold.is_cold(*group)));
    assert!(sets.memory_bytes() < before / 10, "{} of {before}", sets.memory_bytes());
    // Three of four groups come back; the others follow as soon as somebody looks for room.
    let some: Vec<u32> = groups.iter().copied().filter(|group| group % 5 != 0).collect();
    fold(&mut sets, &some, -1);
    assert_eq!(groups.iter().filter(|group| sets.cold.is_cold(**group)).count(), 8000);
    let with_first_pieces = memory.disk().now_bytes();
    // What was looked at stays, and one piece takes the place of three.
    sets.spill(&memory, Pass { spares_touched: true, ..EVERYTHING });
    assert!(groups.iter().filter(|group| sets.cold.is_cold(**group)).count() <= 8000);
    assert!(memory.disk().now_bytes() < with_first_pieces);
    sets.spill(&memory, EVERYTHING);
    sets.thaw(&groups).expect("thaws");
    for group in &groups {
        let copies = if group % 5 == 0 { 2 } else { 1 };
        let entries = sets.get(*group).expect("there").entries();
        assert_eq!(entries.iter().map(|entry| entry.1).collect::<Vec<_>>(), [copies]);
    }
    fold(&mut sets, &some, -1);
    sets.free(&some);
    sets.spill(&memory, EVERYTHING);
    sets.free(&groups);
    drop(sets);
    assert_eq!(memory.disk().now_bytes(), 0);
}
