//! Turns of one worker, taken one by one, with commands between them.

use arrow::array::StringArray;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::*;
use crate::dataflow::operator::FUEL_BYTES;
use crate::plan::node::{Edge, Node, Scan, Union};
use crate::plan::view_options::ViewOptions;

const TABLE: ObjectId = ObjectId(100);
/// Each reads the one before it; the first reads the table.
const VIEWS: [ObjectId; 3] = [ObjectId(101), ObjectId(102), ObjectId(103)];
/// Rows of a content or of an epoch, of which one turn takes one or two.
const ROWS: usize = 4;
/// More than views need for an epoch.
const TURNS: usize = 100;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("text", DataType::Utf8, false)]))
}

fn rows(from: usize) -> RecordBatch {
    let text = "x".repeat(FUEL_BYTES);
    let texts = (from..from + ROWS).map(|row| format!("{text}{row}"));
    let column = StringArray::from_iter_values(texts);
    RecordBatch::try_new(schema(), vec![Arc::new(column)]).expect("of the schema")
}

/// A view of all rows of another object.
fn view(object: ObjectId, of: ObjectId) -> Command {
    let scan = Scan {
        object: of,
        name: format!("o{}", of.0),
        columns: vec![0],
        schema: schema(),
        append_only: false,
        time_bounds: Vec::new(),
        shared: false,
        index: None,
    };
    let scan = Node::Scan(scan);
    let root = if of == TABLE {
        // It sends what it gets, and stops after the fuel of a turn.
        Node::Union(Union { inputs: vec![Edge::local(scan)], schema: schema() })
    } else {
        scan
    };
    let options = ViewOptions::default();
    let content =
        (of == TABLE).then(|| (TABLE, vec![(0..ROWS).map(|row| rows(0).slice(row, 1)).collect()]));
    Command::CreateDataflow(Arc::new(DataflowSpec {
        object,
        name: format!("o{}", object.0),
        plan: Arc::new(Plan { root, unique_key: None, options }),
        result: DataflowResult::Materialize,
        as_of: Epoch(0),
        time: EventTime(0),
        table_contents: content.into_iter().collect(),
        restore: None,
        past: None,
        keeps_history: false,
        not_yet: HashMap::new(),
    }))
}

fn first_epoch() -> Command {
    let rows = rows(ROWS);
    let change = |row| (TABLE, vec![ChangeBatch::inserts(rows.slice(row, 1))]);
    Command::Close(Arc::new(CloseEpoch {
        epoch: Epoch(1),
        changes: (0..ROWS).map(change).collect(),
        affected: Arc::new(VIEWS.to_vec()),
        admitted: Vec::new(),
        checkpoint: None,
        watermarks: Vec::new(),
        time: EventTime(1),
        reopened: None,
    }))
}

fn turn(worker: &mut Worker, plane: &mut Plane) {
    worker.step_or_park(Some(Duration::ZERO));
    plane.after_step();
}

/// What one worker tells when the first epoch closes so many turns after views were made, and when
/// it has nothing more to do; `E` stands for the epoch.
fn told(turns: usize) -> String {
    let reports = Arc::new(Mutex::new(String::new()));
    let reporter: Reporter = {
        let reports = reports.clone();
        Arc::new(move |report| {
            let told = match report {
                Report::Computed { epoch: Epoch(1), .. } => "E".to_owned(),
                Report::Hydrated { object, .. } => format!("{}", object.0 - TABLE.0),
                Report::Failed { error, .. } => panic!("{error}"),
                _ => return,
            };
            reports.lock().expect("no panic under this lock").push_str(&told);
        })
    };
    let ended = timely::execute_directly(move |worker| {
        let memory = Arc::new(StateMemory::new(std::env::temp_dir()));
        let history = HistoryBudget::new(usize::MAX);
        let clock = Clock::system();
        let mut plane = Plane::new(worker, Epoch(0), clock, history, memory, reporter);
        plane.apply(worker, Command::CreateTable(TABLE));
        let mut of = TABLE;
        for object in VIEWS {
            plane.apply(worker, view(object, of));
            of = object;
        }
        for _ in 0..turns {
            turn(worker, &mut plane);
        }
        plane.apply(worker, first_epoch());
        // It would sleep from when there is nothing to do.
        for _ in 0..TURNS {
            turn(worker, &mut plane);
        }
        let ended = VIEWS.map(|view| plane.frontier_of(view));
        for index in worker.installed_dataflows() {
            worker.drop_dataflow(index);
        }
        ended
    });
    assert_eq!(ended, [Epoch(2); 3], "after {turns} turns");
    let reports = reports.lock().expect("no panic under this lock");
    reports.clone()
}

#[test]
fn views_reach_an_epoch_that_closed_before_they_had_their_content() {
    for turns in 0..10 {
        let told = told(turns);
        let mut sorted: Vec<char> = told.chars().collect();
        sorted.sort_unstable();
        assert_eq!(sorted, ['1', '2', '3', 'E'], "after {turns} turns: {told}");
    }
}
