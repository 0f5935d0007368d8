//! REPLAY LATE in the coordinator: which late rows may still come, and how they come.
//!
//! 1. A row may come if no operator of any dataflow over the source or table, through views on views
//!    too, has forgotten anything that it could concern: its event time is not before what
//!    [`open_from`] says of each of their plans. Decided here, between two epochs, so that no
//!    watermark moves meanwhile: what the open epoch announces comes behind its rows.
//! 2. Such rows leave the table of late rows and enter another one, in the same write: a table's
//!    own rows, or for a source the table `<name>_replayed`, whose rows are rows of the source. So
//!    they are as durable as any write, and counted once after a crash.
//! 3. With the end of the epoch they go to whoever reads the source; a dataflow that is made later
//!    begins with them, beside what it reads from the source.

use std::cell::RefCell;
use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute;

use super::event_time::metric_name;
use super::{State, TableWrite, WriteChange, WriteConflict};
use crate::catalog::object::ObjectKind;
use crate::catalog::snapshot::Catalog;
use crate::observe::metrics;
use crate::plan::event_time::time_values;
use crate::plan::node::Plan;
use crate::plan::reopen::{open_from, output_watermark};
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;
use crate::types::time::{EventTime, Watermark};

/// Late rows that are to be taken in again.
#[derive(Debug)]
pub struct Replay {
    /// The source or table whose rows they are.
    pub owner: ObjectId,
    /// Where they go: the table itself, or that of a source's replayed rows.
    pub target: ObjectId,
    pub on_conflict: WriteConflict,
    /// Rows of the table of late rows.
    pub rows: RecordBatch,
    /// The place of their event time.
    pub event_time: usize,
}

/// What became of them.
#[derive(Debug)]
pub struct Replayed {
    pub taken: u64,
    pub owner: ObjectId,
    /// The earliest event time among those that were taken in.
    pub earliest: Option<EventTime>,
    /// The others, and for each the view (or sink) that has closed its time.
    pub beyond: RecordBatch,
    pub closed_by: Vec<String>,
}

impl State {
    /// Remembers that a table has replayed rows of a source.
    pub(super) fn note_replays(&mut self, catalog: &Catalog, table: ObjectId) {
        if let Some(object) = catalog.get(table)
            && let ObjectKind::Table(definition) = &object.kind
            && let Some(source) = definition.replayed_of
        {
            self.replays.insert(table, source);
        }
    }

    /// What an epoch's changes of tables bring to the readers of sources: replayed rows. When a
    /// source begins anew they go, but then nobody has read it.
    pub(super) fn rows_of_sources(
        &self,
        changes: &BTreeMap<ObjectId, Vec<ChangeBatch>>,
    ) -> Vec<(ObjectId, Vec<ChangeBatch>)> {
        let of = |(table, source): (&ObjectId, &ObjectId)| {
            let come = |change: &&ChangeBatch| !change.is_empty() && change.all_inserts();
            let rows: Vec<ChangeBatch> = changes.get(table)?.iter().filter(come).cloned().collect();
            (!rows.is_empty()).then_some((*source, rows))
        };
        self.replays.iter().filter_map(of).collect()
    }

    /// Makes of a replay the writes that it is.
    pub(super) fn expand_replays(
        &self,
        writes: Vec<TableWrite>,
    ) -> Result<(Vec<TableWrite>, Option<Replayed>)> {
        let mut expanded = Vec::with_capacity(writes.len() + 1);
        let mut replayed = None;
        for TableWrite { table, change } in writes {
            match change {
                WriteChange::Replay(replay) => {
                    replayed = Some(self.expand_replay(table, &replay, &mut expanded)?);
                }
                change => expanded.push(TableWrite { table, change }),
            }
        }
        Ok((expanded, replayed))
    }

    fn expand_replay(
        &self,
        late: ObjectId,
        replay: &Replay,
        writes: &mut Vec<TableWrite>,
    ) -> Result<Replayed> {
        let wrong = || Error::internal("late rows have an event time");
        let Replay { owner, target, on_conflict, rows, event_time } = replay;
        let times = time_values(rows.column(*event_time)).ok_or_else(wrong)?;
        if owner != target && !self.running.values().any(|r| r.reads.contains(owner)) {
            let error = Error::user(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                "nobody reads the source whose late rows are to be taken in again",
            );
            return Err(error.hint(
                "It is read from its beginning when a materialized view over it is created.",
            ));
        }
        let horizons = self.horizons(*owner);
        // By the latest horizon of those that a row is behind; of equal ones by the oldest view's.
        let closes = |time: i64| {
            let behind = horizons.iter().rev().filter(|(from, _)| time < *from);
            behind.max_by_key(|(from, _)| *from)
        };
        let closed: Vec<Option<&String>> = (0..times.len())
            .map(|row| times.is_valid(row).then(|| times.value(row)))
            .map(|time| time.and_then(closes).map(|(_, name)| name))
            .collect();
        let open: BooleanArray = closed.iter().map(|name| Some(name.is_none())).collect();
        let taken = compute::filter_record_batch(rows, &open)?;
        let beyond = compute::filter_record_batch(rows, &compute::not(&open)?)?;
        let of_taken = time_values(taken.column(*event_time)).ok_or_else(wrong)?;
        let replayed = Replayed {
            taken: taken.num_rows() as u64,
            owner: *owner,
            earliest: compute::min(&of_taken).map(EventTime),
            beyond,
            closed_by: closed.into_iter().flatten().cloned().collect(),
        };
        if taken.num_rows() > 0 {
            let catalog = self.catalog();
            let target_schema = &catalog.get(*target).ok_or_else(gone)?.schema;
            let width = target_schema.fields().len();
            let columns: Vec<ArrayRef> = taken.columns()[..width].to_vec();
            let come = RecordBatch::try_new(target_schema.clone(), columns)?;
            let gone = WriteChange::Changes(ChangeBatch::deletes(taken));
            writes.push(TableWrite { table: late, change: gone });
            let change = WriteChange::Insert { rows: come, on_conflict: *on_conflict };
            writes.push(TableWrite { table: *target, change });
        }
        Ok(replayed)
    }

    /// The earliest event time that each dataflow over an object can still take in, with its name.
    fn horizons(&self, owner: ObjectId) -> Vec<(i64, String)> {
        if self.watermarks.announced(owner).is_none() {
            return vec![];
        }
        let catalog = self.catalog();
        let known = RefCell::new(BTreeMap::new());
        let of = |id: ObjectId| {
            let running = self.running.get(&id)?;
            let name = match catalog.get(id) {
                Some(object) => object.name.name.clone(),
                None => match self.hydrating.get(&id) {
                    Some(hydrating) => hydrating.creation.object.name.name.clone(),
                    None => "a subscription".to_owned(),
                },
            };
            // Of one that has failed nothing is asked any more.
            let plan = running.plan.as_ref().filter(|_| running.failed.is_none())?;
            let from = open_from(&plan.root, &|object| self.watermark_of(object, &known));
            (from > i64::MIN).then_some((from, name))
        };
        self.dependants(&[owner]).into_iter().filter_map(of).collect()
    }

    /// The watermark of what an object gives to its readers: a view's is the least of what it reads.
    fn watermark_of(
        &self,
        object: ObjectId,
        known: &RefCell<BTreeMap<ObjectId, Option<Watermark>>>,
    ) -> Option<Watermark> {
        if let Some(watermark) = known.borrow().get(&object) {
            return *watermark;
        }
        let of_plan = |plan: &Plan| {
            output_watermark(&plan.root, &|below| self.watermark_of(below, known), &mut |_, _| {})
        };
        let plan = self.running.get(&object).and_then(|running| running.plan.as_deref());
        let watermark = self.watermarks.announced(object).or_else(|| plan.and_then(of_plan));
        known.borrow_mut().insert(object, watermark);
        watermark
    }

    /// Rows behind the watermark come in the open epoch.
    pub(super) fn note_reopened(&mut self, replayed: &Replayed) {
        if let Some(earliest) = replayed.earliest {
            self.reopened = Some(self.reopened.map_or(earliest, |before| before.min(earliest)));
        }
        if let Some(owner) = self.catalog().get(replayed.owner) {
            metrics::count_replayed_rows(metric_name(owner), replayed.taken);
        }
    }
}

fn gone() -> Error {
    Error::internal("the table of replayed rows is created before it is written to")
}
