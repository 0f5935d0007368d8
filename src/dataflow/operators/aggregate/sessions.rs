//! Aggregation over sessions: one group per session, no row of it is kept.
//!
//! A session is a group whose key is its partition, its first time and its end. It only grows: the
//! input never deletes.
//!
//! 1. `on_batch`: the rows, by partition and time, fall into runs at most a gap apart. A partial
//!    aggregation sums up each run.
//! 2. Runs join the sessions that they touch, which may become one by it: the group of the session
//!    that results takes over the sums of those, whose groups are empty then, and of the runs.
//! 3. `on_epoch`: -old and +new, as of any aggregation; a session that has grown is another group,
//!    so its old row is that of a group which went.
//! 4. Sessions whose end the watermark has passed are forgotten with their groups.
//!
//! Keeps: of each open session the row of accumulator words, and its first and last time, in order.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, UInt32Type};
use arrow::row::{RowConverter, Rows, SortField};
use hashbrown::HashMap;

use super::{Aggregate, AggregateSpec, TimeKey};
use crate::dataflow::operator::{Operator, Output, complete_checkpoint};
use crate::functions::window::session::{is_apart, session_end};
use crate::plan::event_time::{aggregate_bounds, time_values};
use crate::plan::node::{self, PARTIAL_STATE, Phase};
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::state::spill::StoreVisitor;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};
use crate::types::id::WorkerId;
use crate::types::time::{Epoch, Watermark};

/// The column that says which run a row is in.
const RUN: &str = "run";
/// Bytes of a session beside its key's: the entry, and its share of half-empty nodes.
const ENTRY_BYTES: usize = 64;

/// The bytes of a session's partition and first time.
type SessionKey = Box<[u8]>;

/// An open session.
#[derive(Clone, Copy, Debug)]
struct Open {
    last: i64,
    group: u32,
}

/// Rows of a batch that follow each other at most a gap apart.
struct Run {
    /// One of them.
    row: u32,
    /// The number of their partition within the batch.
    partition: u32,
    first: i64,
    last: i64,
}

/// A session as it is with the batch.
struct Grown {
    row: u32,
    partition: u32,
    first: i64,
    last: i64,
    runs: Range<usize>,
    /// Groups of the sessions that it was.
    absorbed: Vec<u32>,
}

/// The `aggregate` operator over sessions.
pub struct SessionAggregate {
    partition: Vec<usize>,
    time: usize,
    gap_us: i64,
    /// Groups by partition, first time and end.
    groups: Aggregate,
    /// Sums up the runs of a batch.
    runs: AggregateSpec,
    runs_schema: SchemaRef,
    partition_bytes: Option<RowConverter>,
    /// By partition and first time.
    open: BTreeMap<SessionKey, Open>,
}

impl SessionAggregate {
    /// Over input of this schema.
    ///
    /// # Errors
    /// For a call that Millstream does not have, as the whole aggregation.
    pub fn new(node: &node::Aggregate, input: &SchemaRef) -> Result<SessionAggregate> {
        let Phase::Sessions { time, gap } = node.phase else {
            return Err(Error::internal("an aggregation over sessions has a time and a gap"));
        };
        let width = node.keys.len();
        let time_keys = aggregate_bounds(node).into_iter();
        let time_keys = time_keys.map(|bound| TimeKey { place: bound.column, bound }).collect();
        let keyed = node.schema.fields().iter().take(width + 2).cloned();
        let state: FieldRef = Arc::new(Field::new(PARTIAL_STATE, DataType::Binary, false));
        let groups_schema = Arc::new(Schema::new(keyed.chain([state]).collect::<Vec<_>>()));
        let groups = AggregateSpec {
            keys: (0..width + 2).collect(),
            calls: node.calls.clone(),
            append_only: true,
            phase: Phase::Final { input_schema: input.clone() },
            time_keys,
            on_close: node.on_close,
            schema: node.schema.clone(),
        };
        let run: FieldRef = Arc::new(Field::new(RUN, DataType::UInt32, false));
        let runs_schema = input.fields().iter().cloned().chain([run]).collect::<Vec<_>>();
        let runs_schema = Arc::new(Schema::new(runs_schema));
        let runs = AggregateSpec {
            keys: vec![input.fields().len()],
            calls: node.calls.clone(),
            append_only: true,
            phase: Phase::Partial,
            time_keys: vec![],
            on_close: false,
            schema: runs_schema.clone(),
        };
        let fields = node.keys.iter().map(|key| input.field(*key).data_type().clone());
        let fields: Vec<SortField> = fields.map(SortField::new).collect();
        let mut groups = Aggregate::new(groups, &groups_schema, WorkerId(0))?;
        groups.routed_by = Some(width);
        groups.closed = Some(Vec::new());
        Ok(SessionAggregate {
            partition: node.keys.clone(),
            time,
            gap_us: gap.0,
            groups,
            runs,
            runs_schema,
            partition_bytes: match fields.is_empty() {
                true => None,
                false => Some(RowConverter::new(fields)?),
            },
            open: BTreeMap::new(),
        })
    }

    /// The runs of a batch, in order, and the run of each row.
    fn find_runs(&self, partitions: Option<&Rows>, times: &[i64]) -> (Vec<Run>, Vec<u32>) {
        let mut numbers: HashMap<&[u8], u32> = HashMap::new();
        let mut order: Vec<(u32, i64, u32)> = Vec::with_capacity(times.len());
        for (row, time) in times.iter().enumerate() {
            let next = numbers.len() as u32;
            let partition = bytes_of(partitions, row as u32);
            order.push((*numbers.entry(partition).or_insert(next), *time, row as u32));
        }
        order.sort_unstable();
        let mut runs: Vec<Run> = Vec::new();
        let mut run_of = vec![0; times.len()];
        for (partition, time, row) in order {
            match runs.last_mut() {
                Some(run)
                    if run.partition == partition && !is_apart(run.last, time, self.gap_us) =>
                {
                    run.last = time;
                }
                _ => runs.push(Run { row, partition, first: time, last: time }),
            }
            run_of[row as usize] = runs.len() as u32 - 1;
        }
        (runs, run_of)
    }

    /// The sessions that runs make with those that are open, which are taken out.
    fn grow(&mut self, partitions: Option<&Rows>, runs: &[Run]) -> Vec<Grown> {
        let mut sessions: Vec<Grown> = Vec::new();
        for (index, run) in runs.iter().enumerate() {
            let partition = bytes_of(partitions, run.row);
            let last = sessions.last_mut().filter(|session| {
                session.partition == run.partition
                    && !is_apart(session.last, run.first, self.gap_us)
            });
            if let Some(session) = last {
                session.last = session.last.max(run.last);
                session.runs.end = index + 1;
                take_later(&mut self.open, partition, self.gap_us, session);
                continue;
            }
            let Run { row, partition: number, first, last } = *run;
            let mut session = Grown {
                row,
                partition: number,
                first,
                last,
                runs: index..index + 1,
                absorbed: Vec::new(),
            };
            take_earlier(&mut self.open, partition, self.gap_us, &mut session);
            take_later(&mut self.open, partition, self.gap_us, &mut session);
            sessions.push(session);
        }
        sessions
    }

    /// The groups of sessions, each of which is open from now on.
    fn intern(
        &mut self,
        batch: &ChangeBatch,
        partitions: Option<&Rows>,
        sessions: &[Grown],
    ) -> Result<Vec<u32>> {
        let rows = UInt32Array::from_iter_values(sessions.iter().map(|session| session.row));
        let column = |column: &usize| Ok(take(batch.column(*column), &rows, None)?);
        let mut keys: Vec<ArrayRef> = self.partition.iter().map(column).collect::<Result<_>>()?;
        let time_type = batch.column(self.time).data_type();
        let firsts = sessions.iter().map(|session| session.first);
        let ends = sessions.iter().map(|session| session_end(session.last, self.gap_us));
        for times in [firsts.collect::<Vec<_>>(), ends.collect()] {
            let times = TimestampMicrosecondArray::from(times).with_data_type(time_type.clone());
            keys.push(Arc::new(times));
        }
        let mut groups = Vec::new();
        self.groups.table.intern(&keys, sessions.len(), &mut groups)?;
        for (session, group) in sessions.iter().zip(&groups) {
            let key = session_key(bytes_of(partitions, session.row), session.first);
            self.open.insert(key, Open { last: session.last, group: *group });
        }
        Ok(groups)
    }

    /// Forgets the sessions of groups that have closed, or makes those of restored groups known.
    fn for_each_session(
        &mut self,
        keys: &[ArrayRef],
        mut visit: impl FnMut(&mut BTreeMap<SessionKey, Open>, SessionKey, usize, i64),
    ) -> Result<()> {
        let width = self.partition.len();
        let partitions = self.partition_bytes.as_ref();
        let partitions = partitions.map(|c| c.convert_columns(&keys[..width])).transpose()?;
        let wrong = || Error::internal("a session has two times");
        let firsts = time_values(&keys[width]).ok_or_else(wrong)?;
        let ends = time_values(&keys[width + 1]).ok_or_else(wrong)?;
        for row in 0..firsts.len() {
            let key = session_key(bytes_of(partitions.as_ref(), row as u32), firsts.value(row));
            visit(&mut self.open, key, row, ends.value(row).saturating_sub(self.gap_us));
        }
        Ok(())
    }
}

/// Takes out the session before a grown one, if they touch.
fn take_earlier(
    open: &mut BTreeMap<SessionKey, Open>,
    partition: &[u8],
    gap_us: i64,
    session: &mut Grown,
) {
    let to = session_key(partition, session.first);
    let before = open.range::<[u8], _>((Bound::Unbounded, Bound::Included(&*to))).next_back();
    let before = before.filter(|(key, other)| {
        key.starts_with(partition) && !is_apart(other.last, session.first, gap_us)
    });
    if let Some((key, other)) = before.map(|(key, other)| (key.clone(), *other)) {
        open.remove(&key);
        session.first = first_of(&key);
        session.last = session.last.max(other.last);
        session.absorbed.push(other.group);
    }
}

/// Takes out the sessions that a grown one reaches.
fn take_later(
    open: &mut BTreeMap<SessionKey, Open>,
    partition: &[u8],
    gap_us: i64,
    session: &mut Grown,
) {
    let from = session_key(partition, session.first);
    loop {
        let after = open.range::<[u8], _>((Bound::Excluded(&*from), Bound::Unbounded)).next();
        let after = after.filter(|(key, _)| {
            key.starts_with(partition) && !is_apart(session.last, first_of(key), gap_us)
        });
        let Some((key, other)) = after.map(|(key, other)| (key.clone(), *other)) else { return };
        open.remove(&key);
        session.last = session.last.max(other.last);
        session.absorbed.push(other.group);
    }
}

fn bytes_of(partitions: Option<&Rows>, row: u32) -> &[u8] {
    partitions.map_or(&[], |rows| rows.row(row as usize).data())
}

/// Sorts by partition, then time: the number with its sign turned round, highest byte first.
fn session_key(partition: &[u8], first: i64) -> SessionKey {
    let number = (first as u64 ^ (1 << 63)).to_be_bytes();
    [partition, &number].concat().into()
}

/// The time at the end of a session's key.
fn first_of(key: &[u8]) -> i64 {
    let number = key.last_chunk::<8>().expect("a key ends with a time");
    (u64::from_be_bytes(*number) ^ (1 << 63)) as i64
}

impl Operator for SessionAggregate {
    fn name(&self) -> &'static str {
        "aggregate"
    }

    fn on_batch(&mut self, port: usize, batch: ChangeBatch, out: &mut Output) -> Result<()> {
        assert_eq!(port, 0, "aggregate has one input");
        assert!(batch.all_inserts(), "this input never deletes");
        // Rows without a time are in no session.
        let batch = match batch.column(self.time).nulls().filter(|n| n.null_count() > 0) {
            Some(nulls) => batch.filter(&BooleanArray::new(nulls.inner().clone(), None))?,
            None => batch,
        };
        if batch.is_empty() {
            return Ok(());
        }
        let columns = batch.columns_at(&self.partition);
        let partitions = self.partition_bytes.as_ref();
        let partitions = partitions.map(|c| c.convert_columns(&columns)).transpose()?;
        let partitions = partitions.as_ref();
        let times = time_values(batch.column(self.time));
        let times = times.ok_or_else(|| Error::internal("a session's time is a timestamp"))?;
        let (runs, run_of) = self.find_runs(partitions, times.values());

        let mut columns = batch.rows().columns().to_vec();
        columns.push(Arc::new(UInt32Array::from(run_of)));
        let rows = RecordBatch::try_new(self.runs_schema.clone(), columns)?;
        let mut sums = Aggregate::new(self.runs.clone(), &self.runs_schema, WorkerId(0))?;
        sums.on_batch(0, batch.with_rows(rows), out)?;
        sums.settle()?;
        let summed = sums.table.dirty().to_vec();
        let numbers = sums.table.keys(&summed)?;
        let mut sum_of = vec![0; runs.len()];
        for (group, run) in summed.iter().zip(numbers[0].as_primitive::<UInt32Type>().values()) {
            sum_of[*run as usize] = *group;
        }

        let sessions = self.grow(partitions, &runs);
        let groups = self.intern(&batch, partitions, &sessions)?;
        let absorbed = sessions.iter().flat_map(|session| &session.absorbed);
        self.groups.groups = groups.iter().chain(absorbed).copied().collect();
        self.groups.touch()?;
        for (session, group) in sessions.iter().zip(&groups) {
            for other in session.absorbed.iter().filter(|other| *other != group) {
                self.groups.absorb(*other, *group)?;
            }
            for sum in &sum_of[session.runs.clone()] {
                let row = sums.table.row(*sum);
                let beside = sums.saved(row)?.unwrap_or_default();
                self.groups.merge_row(*group, row, &beside)?;
            }
        }
        Ok(())
    }

    fn on_watermark(&mut self, port: usize, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.groups.on_watermark(port, watermark, out)
    }

    fn on_epoch(&mut self, epoch: Epoch, out: &mut Output) -> Result<()> {
        self.groups.on_epoch(epoch, out)?;
        let closed = self.groups.closed.as_mut().map(std::mem::take).unwrap_or_default();
        for keys in closed {
            self.for_each_session(&keys, |open, key, _, _| {
                open.remove(&key);
            })?;
        }
        Ok(())
    }

    fn checkpoint(&mut self, epoch: Epoch, writer: &mut CheckpointWriter) -> Result<()> {
        complete_checkpoint(&mut self.groups, epoch, writer)
    }

    fn restore(&mut self, reader: &mut CheckpointReader) -> Result<()> {
        self.groups.restore(reader)?;
        let groups = self.groups.table.live();
        let keys = self.groups.table.keys(&groups)?;
        self.for_each_session(&keys, |open, key, row, last| {
            open.insert(key, Open { last, group: groups[row] });
        })
    }

    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        self.groups.visit_stores(visit);
    }

    fn memory_bytes(&self) -> usize {
        // Keys of one operator are about as long as each other.
        let key = self.open.keys().next().map_or(0, |key| key.len());
        self.groups.memory_bytes() + self.open.len() * (ENTRY_BYTES + key)
    }

    fn state_rows(&self) -> usize {
        self.groups.state_rows()
    }
}

impl Aggregate {
    /// A group takes over all of another, which is empty then.
    fn absorb(&mut self, from: u32, into: u32) -> Result<()> {
        let row = self.table.row(from).to_vec();
        let beside = self.saved(&row)?.unwrap_or_default();
        self.merge_row(into, &row, &beside)?;
        self.table.set_empty(from);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::dataflow::script::{check, schema};
    use crate::plan::event_time::TimeBound;
    use crate::plan::node::{AggregateCall, AggregateFunction, Edge, Node, Scan};
    use crate::types::id::ObjectId;
    use crate::types::time::EventDuration;

    const INPUT: &str = "k bigint, ts timestamp, v integer";
    const OUTPUT: &str = "k bigint, s timestamp, e timestamp, n bigint, sv bigint, hi integer";

    fn call(
        function: AggregateFunction,
        arguments: &[usize],
        return_type: DataType,
    ) -> AggregateCall {
        AggregateCall {
            function,
            arguments: arguments.to_vec(),
            distinct: false,
            filter: None,
            order_by: vec![],
            return_type,
            display: function.name().to_owned(),
        }
    }

    /// Sessions of 10 us, by `k`.
    fn node(on_close: bool) -> node::Aggregate {
        let scan = Scan {
            object: ObjectId(1),
            name: "t".into(),
            columns: vec![0, 1, 2],
            schema: schema(INPUT),
            append_only: true,
            time_bounds: vec![TimeBound::of_watermark(1)],
            shared: false,
            index: None,
        };
        let output = schema(OUTPUT);
        let type_of = |column: usize| output.field(column).data_type().clone();
        node::Aggregate {
            input: Edge::hash(Node::Scan(scan), vec![0]),
            keys: vec![0],
            calls: vec![
                call(AggregateFunction::Count, &[], type_of(3)),
                call(AggregateFunction::Sum, &[2], type_of(4)),
                call(AggregateFunction::Max, &[2], type_of(5)),
            ],
            append_only: true,
            phase: Phase::Sessions { time: 1, gap: EventDuration(10) },
            on_close,
            schema: output,
        }
    }

    #[test]
    fn sessions_grow_join_and_close() {
        check(
            || Box::new(SessionAggregate::new(&node(false), &schema(INPUT)).expect("new")),
            &[schema(INPUT)],
            "
            batch 0
              + 1 100 5
              + 1 120 7
              + 1 108 1
              + 2 100 3
              + 2 . 9
            epoch 1
            batch 0
              + 1 115 4
              + 2 89 2
            epoch 2
            recover
            batch 0
              + 2 95 8
            watermark 0 105
            epoch 3
            batch 0
              + 1 105 9
            watermark 0 120
            epoch 4
            batch 0
              + 1 135 1
            watermark 0 131
            epoch 5
            ",
            expect![[r#"
                epoch 1
                + 1 1970-01-01T00:00:00.000100 1970-01-01T00:00:00.000118 2 6 5
                + 1 1970-01-01T00:00:00.000120 1970-01-01T00:00:00.000130 1 7 7
                + 2 1970-01-01T00:00:00.000100 1970-01-01T00:00:00.000110 1 3 3
                epoch 2
                - 1 1970-01-01T00:00:00.000100 1970-01-01T00:00:00.000118 2 6 5
                + 1 1970-01-01T00:00:00.000100 1970-01-01T00:00:00.000130 4 17 7
                - 1 1970-01-01T00:00:00.000120 1970-01-01T00:00:00.000130 1 7 7
                + 2 1970-01-01T00:00:00.000089 1970-01-01T00:00:00.000099 1 2 2
                epoch 3
                - 2 1970-01-01T00:00:00.000089 1970-01-01T00:00:00.000099 1 2 2
                + 2 1970-01-01T00:00:00.000089 1970-01-01T00:00:00.000110 3 13 8
                - 2 1970-01-01T00:00:00.000100 1970-01-01T00:00:00.000110 1 3 3
                watermark 105
                epoch 4
                - 1 1970-01-01T00:00:00.000100 1970-01-01T00:00:00.000130 4 17 7
                + 1 1970-01-01T00:00:00.000100 1970-01-01T00:00:00.000130 5 26 9
                watermark 120
                epoch 5
                + 1 1970-01-01T00:00:00.000135 1970-01-01T00:00:00.000145 1 1 1
                watermark 131
            "#]],
        );
    }
}
