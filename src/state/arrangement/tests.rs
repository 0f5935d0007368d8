use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

type Row = (Option<i64>, i64);
type Content = BTreeMap<Row, i64>;

const KEYS: i64 = 4;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("v", DataType::Int64, false),
    ]))
}

fn change(rows: &[(Row, i64)]) -> ChangeBatch {
    let keys = Int64Array::from_iter(rows.iter().map(|row| row.0.0));
    let values = Int64Array::from_iter_values(rows.iter().map(|row| row.0.1));
    let batch = RecordBatch::try_new(schema(), vec![Arc::new(keys), Arc::new(values)]);
    let weights = rows.iter().map(|row| row.1).collect();
    ChangeBatch::new(batch.expect("two columns"), weights).expect("weights")
}

fn keys() -> Vec<ArrayRef> {
    let keys = (0..KEYS).map(Some).chain([None]);
    vec![Arc::new(Int64Array::from_iter(keys))]
}

/// Goes on with a walk over all keys; what it finds goes to `found`. True when there is more.
fn walk_on(reader: &mut Reader, walk: &mut Walk, found: &mut Content) -> bool {
    let (mut rows, mut ids) = (vec![], vec![]);
    let more = reader.walk(walk, 3, &mut rows, &mut ids);
    let columns = reader.gather(&[0, 1], &ids).expect("gathers");
    let weights = reader.weights(&ids).unwrap_or_else(|| vec![1; ids.len()]);
    let keys = columns[0].as_primitive::<Int64Type>().iter();
    let values = columns[1].as_primitive::<Int64Type>().values();
    for ((key, value), weight) in keys.zip(values).zip(weights) {
        *found.entry((key, *value)).or_default() += weight;
    }
    more
}

fn begin(reader: &Reader) -> (Vec<bool>, Walk) {
    let heads = reader.heads(keys(), KEYS as usize + 1).expect("heads");
    (heads.iter().map(|head| *head != crate::state::row_ids::NIL).collect(), Walk::new(&heads))
}

fn there(content: &Content) -> Vec<bool> {
    let has = |key: Option<i64>| content.keys().any(|row| row.0 == key);
    (0..KEYS).map(Some).chain([None]).map(has).collect()
}

/// A change of an epoch that deletes only what is there, and has no row twice.
fn random_change(random: &mut SmallRng, content: &mut Content) -> Vec<(Row, i64)> {
    let mut rows: BTreeMap<Row, i64> = BTreeMap::new();
    for _ in 0..random.random_range(0..12) {
        let key = random.random_range(0..=KEYS);
        let row = ((key < KEYS).then_some(key), random.random_range(0..6));
        let there = content.get(&row).copied().unwrap_or(0);
        let weight = random.random_range(-there..=3);
        rows.insert(row, weight);
    }
    rows.retain(|_, weight| *weight != 0);
    for (row, weight) in &rows {
        *content.entry(*row).or_default() += weight;
    }
    content.retain(|_, weight| *weight != 0);
    rows.into_iter().collect()
}

/// A reader that is somewhere between the oldest epoch and the newest.
struct Follower {
    reader: Reader,
    at: u64,
    /// A walk that has begun, with what it has found.
    walk: Option<(Walk, Content)>,
}

#[test]
fn readers_see_their_own_epochs_however_far_the_table_is() {
    for seed in 0..60 {
        let mut random = SmallRng::seed_from_u64(seed);
        let arrangement = Arrangement::new(schema(), vec![0], Epoch(1)).expect("columns compare");
        let arrangement = Rc::new(RefCell::new(arrangement));
        let mut contents: Vec<Content> = vec![Content::new()];
        let read = |since: u64| Follower {
            reader: Arrangement::read(&arrangement, Epoch(since), Rc::default()),
            at: since,
            walk: None,
        };
        let mut followers = vec![read(1), read(1)];
        for epoch in 1..80_u64 {
            let mut content = contents.last().expect("the empty one").clone();
            let rows = random_change(&mut random, &mut content);
            contents.push(content);
            // An epoch without changes is not applied.
            if !rows.is_empty() {
                let applied = arrangement.borrow_mut().apply(Epoch(epoch), &[change(&rows)]);
                applied.unwrap_or_else(|error| panic!("seed {seed}, epoch {epoch}: {error}"));
            }
            for follower in &mut followers {
                let Follower { reader, at, walk } = follower;
                while *at <= epoch && random.random_bool(0.8) {
                    let (mut going, mut found) = walk.take().unwrap_or_else(|| {
                        reader.look_at(Epoch(*at));
                        let (heads, going) = begin(reader);
                        let expected = there(&contents[*at as usize]);
                        assert_eq!(heads, expected, "seed {seed}, keys at {at} of {epoch}");
                        (going, Content::new())
                    });
                    let mut more = true;
                    while more && random.random_bool(0.8) {
                        more = walk_on(reader, &mut going, &mut found);
                    }
                    if more {
                        *walk = Some((going, found));
                        break;
                    }
                    assert_eq!(found, contents[*at as usize], "seed {seed}, {at} of {epoch}");
                    reader.finish(Epoch(*at));
                    *at += 1;
                }
            }
            if random.random_bool(0.1) {
                followers.push(read(epoch + 1));
            }
            if !followers.is_empty() && random.random_bool(0.05) {
                followers.remove(0);
            }
        }
        // One that has failed holds nothing back, and without readers nothing is kept.
        for follower in &followers {
            follower.reader.hold.failed.set(true);
        }
        arrangement.borrow_mut().settle().expect("settles");
        assert_eq!(arrangement.borrow().dying_rows(), 0);
        let left: i64 = contents.last().expect("the newest").values().sum();
        let arrangement = arrangement.borrow();
        let ids: Vec<ShortId> =
            (arrangement.table.live()).flat_map(|segment| segment.expect("reads").0).collect();
        let weights = arrangement.table.weights(&ids).unwrap_or_else(|| vec![1; ids.len()]);
        assert_eq!(weights.iter().sum::<i64>(), left, "seed {seed}");
    }
}

#[test]
fn rows_get_new_ids_only_when_nobody_is_behind() {
    let arrangement = Arrangement::new(schema(), vec![0], Epoch(1)).expect("columns compare");
    let arrangement = Rc::new(RefCell::new(arrangement));
    let mut reader = Arrangement::read(&arrangement, Epoch(1), Rc::default());
    let all: Vec<(Row, i64)> = (0..200_000).map(|value| ((Some(1), value), 1)).collect();
    arrangement.borrow_mut().apply(Epoch(1), &[change(&all)]).expect("applies");
    reader.look_at(Epoch(1));
    let (_, mut walk) = begin(&reader);
    let mut found = Content::new();
    assert!(walk_on(&mut reader, &mut walk, &mut found));
    // All but every hundredth row go, and others come and go, so that the window grows long.
    let gone = all.iter().filter(|row| row.0.1 % 100 != 0);
    let deletes: Vec<(Row, i64)> = gone.map(|row| (row.0, -1)).collect();
    arrangement.borrow_mut().apply(Epoch(2), &[change(&deletes)]).expect("applies");
    for turn in 0..20_u64 {
        let rows: Vec<(Row, i64)> = (0..20_000).map(|value| ((Some(2), value), 1)).collect();
        let gone: Vec<(Row, i64)> = rows.iter().map(|row| (row.0, -1)).collect();
        let mut arrangement = arrangement.borrow_mut();
        arrangement.apply(Epoch(3 + 2 * turn), &[change(&rows)]).expect("applies");
        arrangement.apply(Epoch(4 + 2 * turn), &[change(&gone)]).expect("applies");
    }
    while walk_on(&mut reader, &mut walk, &mut found) {}
    assert_eq!(found.len(), 200_000);
    assert!(arrangement.borrow().dying_rows() > 500_000);
    reader.finish(Epoch(43));
    arrangement.borrow_mut().apply(Epoch(44), &[]).expect("applies");
    assert_eq!(arrangement.borrow().dying_rows(), 0);
    assert_eq!(arrangement.borrow().rows(), 2_000);
    reader.look_at(Epoch(44));
    let (_, mut walk) = begin(&reader);
    let mut found = Content::new();
    while walk_on(&mut reader, &mut walk, &mut found) {}
    assert_eq!(found.len(), 2_000);
}
