//! The coordinator with real workers, over hand-made plans.

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};

use std::sync::atomic::Ordering;

use super::*;
use crate::catalog::object::{ObjectName, TableObject, ViewObject};
use crate::catalog::snapshot::Change;
use crate::plan::node::{Edge, Node, Scan, Union};
use crate::plan::view_options::ViewOptions;
use crate::types::error::{Result, SqlState};

fn schema() -> Arc<Schema> {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, false),
        Field::new("v", DataType::Int64, false),
    ]))
}

fn rows(pairs: &[(i64, i64)]) -> RecordBatch {
    let k = Int64Array::from_iter_values(pairs.iter().map(|p| p.0));
    let v = Int64Array::from_iter_values(pairs.iter().map(|p| p.1));
    RecordBatch::try_new(schema(), vec![Arc::new(k), Arc::new(v)]).expect("two columns")
}

fn start(workers: usize) -> Coordinator {
    let config = CoordinatorConfig {
        workers,
        epoch_interval_max: Duration::from_millis(10),
        lock_timeout: Duration::from_millis(200),
        history: HistoryConfig::default(),
        memory: crate::coordinator::memory::state_memory(&std::env::temp_dir()),
    };
    Coordinator::start(config, Clock::system()).expect("starts")
}

fn object(name: &str, kind: ObjectKind, depends_on: Vec<ObjectId>) -> Object {
    Object {
        id: ObjectId(0),
        name: ObjectName {
            database: "millstream".into(),
            schema: "public".into(),
            name: name.into(),
        },
        kind,
        schema: schema(),
        create_sql: String::new(),
        depends_on,
    }
}

async fn table(coordinator: &Coordinator, name: &str, primary_key: Vec<usize>) -> ObjectId {
    let kind = ObjectKind::Table(TableObject { primary_key, ..TableObject::plain(2) });
    coordinator
        .create_object(object(name, kind, vec![]), Install::Table(None))
        .await
        .expect("created")
}

fn scan(object: ObjectId) -> Node {
    Node::Scan(Scan {
        object,
        name: "input".into(),
        columns: vec![0, 1],
        schema: schema(),
        append_only: false,
        time_bounds: vec![],
        shared: false,
        index: None,
    })
}

/// All rows of all inputs.
fn union(inputs: Vec<Node>) -> Plan {
    let inputs = inputs.into_iter().map(Edge::local).collect();
    Plan {
        root: Node::Union(Union { inputs, schema: schema() }),
        unique_key: None,
        options: ViewOptions::default(),
    }
}

async fn view(coordinator: &Coordinator, name: &str, inputs: Vec<ObjectId>) -> Result<ObjectId> {
    let plan = union(inputs.iter().map(|i| scan(*i)).collect());
    let kind = ObjectKind::MaterializedView(ViewObject::default());
    coordinator.create_object(object(name, kind, inputs), Install::Dataflow(Box::new(plan))).await
}

async fn insert(coordinator: &Coordinator, table: ObjectId, pairs: &[(i64, i64)]) -> Result<Epoch> {
    let change = WriteChange::Insert { rows: rows(pairs), on_conflict: WriteConflict::Error };
    Ok(coordinator.write(None, vec![TableWrite { table, change }]).await?.epoch)
}

async fn change(
    coordinator: &Coordinator,
    table: ObjectId,
    out: &[(i64, i64)],
    into: &[(i64, i64)],
) -> Result<WriteOutcome> {
    let parts = [ChangeBatch::deletes(rows(out)), ChangeBatch::inserts(rows(into))];
    let change = WriteChange::Changes(ChangeBatch::concat(&schema(), &parts).expect("one schema"));
    let lock = coordinator.lock_tables(vec![table]).await?;
    coordinator.write(Some(&lock), vec![TableWrite { table, change }]).await
}

fn pairs(batches: &[RecordBatch]) -> Vec<(i64, i64)> {
    let mut pairs: Vec<(i64, i64)> = batches
        .iter()
        .flat_map(|b| {
            let k = b.column(0).as_primitive::<Int64Type>().values().to_vec();
            let v = b.column(1).as_primitive::<Int64Type>().values().to_vec();
            k.into_iter().zip(v)
        })
        .collect();
    pairs.sort_unstable();
    pairs
}

async fn content(coordinator: &Coordinator, object: ObjectId) -> Vec<(i64, i64)> {
    let view = coordinator.read(vec![object]).await.expect("readable");
    pairs(&view.contents[&object])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_shows_every_acknowledged_write() {
    for workers in [1, 2, 3] {
        let coordinator = start(workers);
        let t = table(&coordinator, "t", vec![0]).await;
        insert(&coordinator, t, &[(1, 10)]).await.expect("inserted");
        let v = view(&coordinator, "v", vec![t]).await.expect("created");
        let w = view(&coordinator, "w", vec![v, t]).await.expect("created");
        assert_eq!(content(&coordinator, v).await, [(1, 10)]);
        for k in 2..50 {
            insert(&coordinator, t, &[(k, k)]).await.expect("inserted");
            assert_eq!(content(&coordinator, v).await.len(), k as usize);
        }
        change(&coordinator, t, &[(1, 10), (2, 2)], &[(1, 11)]).await.expect("changed");
        let both = coordinator.read(vec![t, v, w]).await.expect("readable");
        let (t_rows, v_rows) = (pairs(&both.contents[&t]), pairs(&both.contents[&v]));
        assert_eq!(t_rows, v_rows);
        assert_eq!(t_rows[0], (1, 11));
        assert_eq!(both.contents[&w].iter().map(RecordBatch::num_rows).sum::<usize>(), 96);
        coordinator.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_unique_and_a_failed_write_changes_nothing() {
    let coordinator = start(1);
    let t = table(&coordinator, "t", vec![0]).await;
    let u = table(&coordinator, "u", vec![]).await;
    insert(&coordinator, t, &[(1, 1), (2, 2)]).await.expect("inserted");
    let twice = insert(&coordinator, t, &[(3, 3), (3, 4)]).await.expect_err("key twice");
    assert_eq!(twice.sqlstate(), SqlState::UNIQUE_VIOLATION);
    let lock = coordinator.lock_tables(vec![t, u]).await.expect("free");
    let into = |table, pairs: &[(i64, i64)]| TableWrite {
        table,
        change: WriteChange::Insert { rows: rows(pairs), on_conflict: WriteConflict::Error },
    };
    let failed = coordinator.write(Some(&lock), vec![into(u, &[(9, 9)]), into(t, &[(1, 5)])]).await;
    assert!(failed.is_err());
    drop(lock);
    assert_eq!(content(&coordinator, u).await, []);
    // A key may move within one write.
    let moved = change(&coordinator, t, &[(1, 1), (2, 2)], &[(2, 1), (1, 2)]).await.expect("moved");
    assert_eq!(moved.counts, [2]);
    assert_eq!(content(&coordinator, t).await, [(1, 2), (2, 1)]);
    let taken = change(&coordinator, t, &[(1, 2)], &[(2, 7)]).await.expect_err("key 2 is there");
    assert_eq!(taken.sqlstate(), SqlState::UNIQUE_VIOLATION);
    coordinator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_are_ignored_or_replaced_as_asked() {
    let coordinator = start(2);
    let t = table(&coordinator, "t", vec![0]).await;
    let write = async |pairs: &[(i64, i64)], on_conflict| {
        let change = WriteChange::Insert { rows: rows(pairs), on_conflict };
        coordinator.write(None, vec![TableWrite { table: t, change }]).await.expect("written")
    };
    write(&[(1, 1), (2, 2)], WriteConflict::Error).await;
    let ignored = write(&[(1, 9), (3, 3), (3, 4)], WriteConflict::Ignore).await;
    assert_eq!(ignored.counts, [1]);
    assert_eq!(content(&coordinator, t).await, [(1, 1), (2, 2), (3, 3)]);
    write(&[(1, 5), (1, 6), (4, 4)], WriteConflict::Replace).await;
    assert_eq!(content(&coordinator, t).await, [(1, 6), (2, 2), (3, 3), (4, 4)]);
    coordinator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_keeps_others_waiting_until_it_is_dropped() {
    let coordinator = start(1);
    let t = table(&coordinator, "t", vec![]).await;
    let lock = coordinator.lock_tables(vec![t]).await.expect("free");
    let late = coordinator.lock_tables(vec![t]).await.err().expect("held");
    assert_eq!(late.sqlstate(), SqlState::LOCK_NOT_AVAILABLE);
    let other = coordinator.clone();
    let waiting = tokio::spawn(async move { insert(&other, t, &[(1, 1)]).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!waiting.is_finished());
    drop(lock);
    waiting.await.expect("runs").expect("inserted");
    assert_eq!(content(&coordinator, t).await, [(1, 1)]);
    coordinator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_starts_with_the_content_and_follows_without_gap() {
    for workers in [1, 2] {
        let coordinator = start(workers);
        let t = table(&coordinator, "t", vec![0]).await;
        insert(&coordinator, t, &[(1, 1), (2, 2)]).await.expect("inserted");
        let writer = {
            let coordinator = coordinator.clone();
            tokio::spawn(async move {
                for k in 3..200 {
                    insert(&coordinator, t, &[(k, k)]).await.expect("inserted");
                }
                change(&coordinator, t, &[(1, 1)], &[]).await.expect("deleted");
            })
        };
        let mut feed = coordinator.subscribe(union(vec![scan(t)])).await.expect("subscribed");
        let mut sum: HashMap<i64, i64> = HashMap::new();
        let mut last = Epoch(0);
        while sum.values().sum::<i64>() != 198 || sum.get(&1).copied().unwrap_or(0) != 0 {
            let step = feed.changes.recv().await.expect("goes on").expect("no error");
            assert!(step.epoch > last || last == Epoch(0), "steps come in order");
            last = step.epoch;
            for batch in step.changes {
                for row in 0..batch.num_rows() {
                    let k = batch.column(0).as_primitive::<Int64Type>().value(row);
                    *sum.entry(k).or_default() += batch.weight(row);
                }
            }
        }
        assert!(sum.values().all(|weight| (0..=1).contains(weight)));
        writer.await.expect("writes");
        drop(feed);
        coordinator.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn views_made_under_load_miss_nothing_and_double_nothing() {
    let coordinator = start(2);
    let t = table(&coordinator, "t", vec![0]).await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers: Vec<_> = (0..2i64)
        .map(|writer| {
            let (coordinator, stop) = (coordinator.clone(), stop.clone());
            tokio::spawn(async move {
                let mut k = writer;
                while !stop.load(Ordering::Relaxed) {
                    insert(&coordinator, t, &[(k, k)]).await.expect("inserted");
                    k += 2;
                }
            })
        })
        .collect();
    let mut views = vec![t];
    for number in 0..10 {
        let below = *views.last().expect("not empty");
        let name = format!("v{number}");
        views.push(view(&coordinator, &name, vec![below]).await.expect("created"));
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("writes");
    }
    let all = coordinator.read(views.clone()).await.expect("readable");
    let expected = pairs(&all.contents[&t]);
    assert!(!expected.is_empty());
    for view in &views[1..] {
        assert_eq!(pairs(&all.contents[view]), expected);
    }
    let refused = coordinator.apply(vec![Change::DropObject(t)]).await;
    assert!(refused.is_err(), "dependants are dropped first");
    let order = coordinator.catalog().drop_order(t);
    coordinator.apply(order.into_iter().map(Change::DropObject).collect()).await.expect("dropped");
    assert_eq!(coordinator.catalog().objects().count(), 0);
    coordinator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pinned_stays_at_its_epoch_and_becomes_rows_later() {
    let coordinator = start(2);
    let t = table(&coordinator, "t", vec![0]).await;
    let v = view(&coordinator, "v", vec![t]).await.expect("created");
    insert(&coordinator, t, &[(1, 10), (2, 20)]).await.expect("inserted");
    let mut pinned = coordinator.pin(vec![t, v, ObjectId(999)]).await.expect("pins");
    insert(&coordinator, t, &[(3, 30)]).await.expect("inserted");
    change(&coordinator, t, &[(1, 10)], &[(1, 11)]).await.expect("changed");
    assert_eq!(content(&coordinator, v).await, [(1, 11), (2, 20), (3, 30)]);
    for object in [v, t] {
        let rows = pinned.get_mut(&object).expect("asked for").rows().await.expect("readable");
        assert_eq!(pairs(&rows), [(1, 10), (2, 20)]);
    }
    // What cannot be read says so, and disturbs nothing else.
    let missing = pinned.get_mut(&ObjectId(999)).expect("asked for").rows().await;
    assert_eq!(missing.expect_err("gone").sqlstate(), SqlState::UNDEFINED_TABLE);
    coordinator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_looked_up_by_key() {
    let coordinator = start(1);
    let t = table(&coordinator, "t", vec![0]).await;
    insert(&coordinator, t, &[(1, 10), (2, 20), (3, 30)]).await.expect("inserted");
    let found = coordinator.lookup(t, rows(&[(3, 0), (9, 0), (1, 0), (3, 7)])).await;
    assert_eq!(pairs(&[found.expect("found")]), [(1, 10), (3, 30)]);
    coordinator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_withdrawn_only_before_it_is_done() {
    let coordinator = start(1);
    let t = table(&coordinator, "t", vec![0]).await;
    let write = |pairs: &[(i64, i64)]| {
        let change = WriteChange::Insert { rows: rows(pairs), on_conflict: WriteConflict::Error };
        vec![TableWrite { table: t, change }]
    };
    // One waits behind a lock: it is taken back, and the next one is not.
    let lock = coordinator.lock_tables(vec![t]).await.expect("granted");
    let withdrawn = coordinator.write_in_line(write(&[(1, 1)])).await.expect("waits");
    let mut kept = coordinator.write_in_line(write(&[(2, 2)])).await.expect("waits");
    assert!(withdrawn.withdraw());
    drop(lock);
    kept.outcome().await.expect("written");
    assert_eq!(content(&coordinator, t).await, [(2, 2)]);
    // One that is done is not taken back.
    let mut done = coordinator.write_in_line(write(&[(3, 3)])).await.expect("runs");
    assert_eq!(content(&coordinator, t).await, [(2, 2), (3, 3)]);
    assert!(!done.withdraw());
    assert_eq!(done.outcome().await.expect("written").counts, [1]);
    coordinator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_object_goes_when_the_new_one_is_ready() {
    let coordinator = start(2);
    let t = table(&coordinator, "t", vec![0]).await;
    insert(&coordinator, t, &[(1, 10)]).await.expect("inserted");
    let old = view(&coordinator, "v", vec![t]).await.expect("created");
    let replace = |name: &str, inputs: Vec<ObjectId>, replaces: ObjectId| {
        let plan = union(inputs.iter().map(|i| scan(*i)).collect());
        let kind = ObjectKind::MaterializedView(ViewObject::default());
        let object = object(name, kind, inputs);
        let coordinator = coordinator.clone();
        async move {
            coordinator
                .replace_object(object, None, Install::Dataflow(Box::new(plan)), Some(replaces))
                .await
        }
    };
    let new = replace("v", vec![t, t], old).await.expect("replaced");
    assert_eq!(content(&coordinator, new).await, [(1, 10), (1, 10)]);
    assert!(coordinator.read(vec![old]).await.is_err(), "the old one is gone");
    assert_eq!(coordinator.catalog().objects().count(), 2);
    // Not while something depends on it.
    let above = view(&coordinator, "above", vec![new]).await.expect("created");
    let refused = replace("v", vec![t], new).await.expect_err("needed");
    assert_eq!(refused.sqlstate(), SqlState::DEPENDENT_OBJECTS_STILL_EXIST);
    assert_eq!(content(&coordinator, above).await, [(1, 10), (1, 10)]);
    coordinator.stop();
}
