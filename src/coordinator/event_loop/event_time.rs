//! Event time in the coordinator: what workers tell of watermarks and late rows, and who asks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, TimestampMicrosecondArray};

use super::{
    Command, Reply, Running, RunningKind, State, TableWrite, WriteChange, WriteConflict,
    dependency_gone,
};
use crate::catalog::object::Object;
use crate::coordinator::epoch::Moment;
use crate::coordinator::table::Table;
use crate::dataflow::operators::source::LATE_SPLIT_MARK;
use crate::dataflow::operators::source_time::{ColumnRule, Divided};
use crate::observe::metrics;
use crate::plan::node::WatermarkSpec;
use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use crate::types::id::ObjectId;
use crate::types::time::{EventTime, Watermark};

/// Someone who asks for the watermarks of all objects.
pub(super) struct PendingWatermarks {
    /// Workers that have not answered.
    missing: usize,
    /// Per object: the least of the workers' watermarks, and how many workers have one.
    found: BTreeMap<ObjectId, (Watermark, usize)>,
    reply: Reply<BTreeMap<ObjectId, Watermark>>,
}

impl State {
    /// Asks the workers what the watermarks of sources, tables and views are.
    pub(super) fn ask_watermarks(&mut self, reply: Reply<BTreeMap<ObjectId, Watermark>>) {
        let request = self.next_read;
        self.next_read += 1;
        let missing = self.workers.count();
        let pending = PendingWatermarks { missing, found: BTreeMap::new(), reply };
        self.watermark_reads.insert(request, pending);
        self.workers.send(Command::Watermarks { request });
    }

    /// A worker's answer. An object's watermark is the least of its workers', once all have one.
    pub(super) fn watermarks_arrived(&mut self, request: u64, marks: &[(ObjectId, Watermark)]) {
        let Some(pending) = self.watermark_reads.get_mut(&request) else { return };
        for (object, watermark) in marks {
            let found = pending.found.entry(*object).or_insert((*watermark, 0));
            found.0 = found.0.min(*watermark);
            found.1 += 1;
        }
        pending.missing -= 1;
        if pending.missing == 0 {
            let pending = self.watermark_reads.remove(&request).expect("just found");
            let workers = self.workers.count();
            let told = |(object, (watermark, count)): (ObjectId, (Watermark, usize))| {
                (count == workers).then_some((object, watermark))
            };
            // The client may have gone.
            let _ = pending.reply.send(Ok(pending.found.into_iter().filter_map(told).collect()));
        }
    }

    /// The time that an epoch closes at. It never goes back, whatever the machine's clock does.
    pub(super) fn logical_time(&mut self) -> EventTime {
        self.time = self.time.max(self.clock.now());
        self.time
    }

    /// When the next dataflow wants an epoch.
    pub(super) fn wake_due(&self, now: Moment) -> Option<Moment> {
        let (at, _) = self.wakes.first()?;
        let in_us = at.0.saturating_sub(self.clock.now().0);
        Some(now + Duration::from_micros(u64::try_from(in_us).unwrap_or(0)))
    }

    /// The dataflows that wanted an epoch up to `time`, which is that of the one that closes. Those
    /// that still wait ask again.
    pub(super) fn take_woken(&mut self, time: EventTime) -> Vec<ObjectId> {
        let mut woken = BTreeSet::new();
        while let Some((at, object)) = self.wakes.first().copied()
            && at <= time
        {
            self.wakes.remove(&(at, object));
            woken.insert(object);
        }
        woken.into_iter().collect()
    }

    /// Rows that came behind a source's watermark, with their event time and that watermark: they
    /// go into the table of its late rows.
    pub(super) fn late_rows(&mut self, object: ObjectId, rows: RecordBatch) {
        if !self.new_dataflows.is_empty() {
            self.late_waiting.push((object, rows));
            return;
        }
        self.count_late(object, rows.num_rows() as u64);
        let Some(late) = self.catalog().late_of(object).map(|late| late.id) else { return };
        if let Some(error) = self.writes_refused() {
            tracing::warn!(%object, rows = rows.num_rows(), %error, "late rows are not kept");
            return;
        }
        let written = self.arrived(late, &rows).and_then(|rows| {
            let table = self.tables.get_mut(&late).ok_or_else(|| dependency_gone("late rows"))?;
            table.write(WriteChange::Insert { rows, on_conflict: WriteConflict::Error })
        });
        let marks = rows.schema().metadata().clone();
        match written {
            Ok(written) => self.late_written(late, written.changes, marks),
            Err(error) => tracing::error!(%object, %error, "late rows are not kept"),
        }
    }

    /// Counts late rows of a source or table.
    fn count_late(&self, object: ObjectId, rows: u64) {
        if let Some(object) = self.catalog().get(object) {
            metrics::count_late_rows(metric_name(object), rows);
        }
    }

    /// Objects that are about to go have no metrics any more.
    pub(super) fn forget_figures(&self, dropped: &[ObjectId]) {
        let catalog = self.catalog();
        for object in dropped.iter().filter_map(|id| catalog.get(*id)) {
            metrics::forget_event_time(metric_name(object));
        }
    }

    /// Counts the late rows of a write of tables.
    pub(super) fn count_diverted(&self, late: &[(ObjectId, u64)]) {
        late.iter().for_each(|(table, rows)| self.count_late(*table, *rows));
    }

    /// What is announced with the end of an epoch, for those who look from outside.
    pub(super) fn note_watermarks(&self, moved: &[(ObjectId, Watermark)]) {
        let catalog = self.catalog();
        for (object, watermark) in moved {
            let us = (*watermark != Watermark::END).then_some(watermark.0.0);
            if let Some(object) = catalog.get(*object) {
                metrics::set_watermark(metric_name(object), us);
            }
        }
    }

    /// Changes of a table of late rows enter the log, with marks that say how far its source was,
    /// and the open epoch.
    fn late_written(
        &mut self,
        late: ObjectId,
        changes: ChangeBatch,
        marks: HashMap<String, String>,
    ) {
        let rows = changes.rows();
        let schema = Arc::new(rows.schema().as_ref().clone().with_metadata(marks));
        let logged = match rows.clone().with_schema(schema) {
            Ok(rows) => changes.with_rows(rows),
            // Without marks they are rows all the same.
            Err(_) => changes.clone(),
        };
        self.log_rows(&[(late, logged)]);
        self.changes.entry(late).or_default().push(changes);
        let now = self.now();
        self.epochs.touch(now);
    }

    /// Before a dataflow is filled: sources that nobody reads are read from their beginning again.
    pub(super) fn begin_sources(&mut self, reads: &[ObjectId]) {
        let begins = |source: &ObjectId| {
            let is_source = |running: &Running| matches!(running.kind, RunningKind::Source { .. });
            let read = self.running.values().any(|running| running.reads.contains(source));
            self.running.get(source).is_some_and(is_source)
                && !read
                && !self.resumed.contains(source)
        };
        let begin: Vec<ObjectId> = reads.iter().filter(|read| begins(read)).copied().collect();
        for source in begin {
            self.forget_late(source);
        }
    }

    /// A source is read from its beginning again: its late rows will come again, those that were
    /// taken in again as late ones.
    fn forget_late(&mut self, source: ObjectId) {
        for part in self.catalog().parts_of(source) {
            let Some(table) = self.tables.get_mut(&part).filter(|table| table.has_rows()) else {
                continue;
            };
            match table.write(WriteChange::Truncate) {
                Ok(written) => {
                    let forgotten = (LATE_SPLIT_MARK.to_owned(), String::new());
                    self.late_written(part, written.changes, HashMap::from([forgotten]));
                }
                Err(error) => {
                    tracing::error!(%source, %error, "late rows of an older reading stay")
                }
            }
        }
    }

    /// Late rows as rows of their table: with the time of their arrival.
    fn arrived(&self, late: ObjectId, rows: &RecordBatch) -> Result<RecordBatch> {
        let catalog = self.catalog();
        let table = catalog.get(late).ok_or_else(|| dependency_gone("late rows"))?;
        let now = TimestampMicrosecondArray::from(vec![self.clock.now().0; rows.num_rows()]);
        let last = table.schema.fields().len() - 1;
        let now = arrow::compute::cast(&now, table.schema.field(last).data_type())?;
        let columns = rows.columns().iter().cloned().chain([now]).collect();
        Ok(RecordBatch::try_new(table.schema.clone(), columns)?)
    }

    /// A table with a watermark: its rows so far have moved it.
    pub(super) fn start_table_time(&mut self, id: ObjectId, rule: WatermarkSpec, table: &Table) {
        self.watermarks.add(id, None);
        let columns: Vec<usize> = (0..table.schema().fields().len()).collect();
        for rows in table.snapshot().batches().flatten() {
            if let Ok(rule) = ColumnRule::new(&rule, &columns)
                && let Ok(Some(watermark)) = rule.reached(&rows)
            {
                self.watermarks.advance(id, watermark);
            }
        }
        self.table_rules.insert(id, rule);
    }

    /// What moved the watermark of a table before the start, and may not be among its rows any more:
    /// what a checkpoint says, and changes in the log since.
    pub(super) fn resume_table_time(
        &mut self,
        id: ObjectId,
        known: Option<&Watermark>,
        changes: Option<&Vec<ChangeBatch>>,
    ) {
        if let Some(known) = known {
            self.watermarks.advance(id, *known);
        }
        let Some(rule) = self.table_rules.get(&id) else { return };
        for change in changes.into_iter().flatten() {
            let columns: Vec<usize> = (0..change.rows().num_columns()).collect();
            let reached = ColumnRule::new(rule, &columns).and_then(|r| r.reached(change.rows()));
            if let Ok(Some(watermark)) = reached {
                self.watermarks.advance(id, watermark);
            }
        }
    }

    /// Takes late rows out of what is inserted: they go into the tables of late rows, in the same
    /// write. All rows of a write are measured against the watermark before it.
    pub(super) fn divert_late(&self, writes: Vec<TableWrite>) -> Diverted {
        let mut diverted = Diverted { writes: vec![], late: vec![], advances: vec![] };
        if self.table_rules.is_empty() {
            return Diverted { writes, ..diverted };
        }
        let mut late_writes = Vec::new();
        for write in writes {
            let table = write.table;
            match self.divert_write(write, &mut diverted) {
                (write, Some(rows)) => {
                    diverted.writes.push(write);
                    diverted.late.push((table, rows.num_rows() as u64));
                    let kept = self.catalog().late_of(table).map(|late| late.id);
                    if let Some((late, rows)) =
                        kept.and_then(|late| Some((late, self.arrived(late, &rows).ok()?)))
                    {
                        let on_conflict = WriteConflict::Error;
                        let change = WriteChange::Insert { rows, on_conflict };
                        late_writes.push(TableWrite { table: late, change });
                    }
                }
                (write, None) => diverted.writes.push(write),
            }
        }
        diverted.writes.extend(late_writes);
        diverted
    }

    /// The write without its late rows, and those.
    fn divert_write(
        &self,
        write: TableWrite,
        diverted: &mut Diverted,
    ) -> (TableWrite, Option<RecordBatch>) {
        let TableWrite { table, change } = write;
        let Some(rule) = self.table_rules.get(&table) else {
            return (TableWrite { table, change }, None);
        };
        let rows = match &change {
            WriteChange::Insert { rows, .. } => rows.clone(),
            WriteChange::Changes(changes) if changes.all_inserts() => changes.rows().clone(),
            WriteChange::Changes(_) | WriteChange::Truncate | WriteChange::Replay(_) => {
                return (TableWrite { table, change }, None);
            }
        };
        let columns: Vec<usize> = (0..rows.num_columns()).collect();
        let known = self.watermarks.current(table);
        let judged = ColumnRule::new(rule, &columns).and_then(|rule| rule.divide(&rows, known));
        let Ok(Divided { on_time, late, reached }) = judged else {
            return (TableWrite { table, change }, None);
        };
        diverted.advances.extend(reached.map(|watermark| (table, watermark)));
        if late.is_none() {
            return (TableWrite { table, change }, None);
        }
        let change = match change {
            WriteChange::Insert { on_conflict, .. } => {
                WriteChange::Insert { rows: on_time, on_conflict }
            }
            _ => WriteChange::Changes(ChangeBatch::inserts(on_time)),
        };
        (TableWrite { table, change }, late)
    }
}

/// The labels of a source's or table's metrics.
pub(super) fn metric_name(object: &Object) -> [&str; 3] {
    [&object.name.database, &object.name.schema, &object.name.name]
}

/// Writes without late rows, then those of the late rows.
pub(super) struct Diverted {
    pub writes: Vec<TableWrite>,
    /// How many late rows of which tables.
    pub late: Vec<(ObjectId, u64)>,
    /// Watermarks when the writes are done.
    pub advances: Vec<(ObjectId, Watermark)>,
}
