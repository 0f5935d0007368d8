//! What a view of provisional matches forgets: rows behind the watermark that nothing will change.
//!
//! No change comes behind the watermark. So where all before a row was decided by rows that the
//! watermark has passed, it stays decided, and what stands there is needed only as far as conditions
//! of later rows look back: that is the partition's floor, and a partition is matched from there.
//!
//! 1. `on_watermark` notes how far it is.
//! 2. At the end of `on_epoch`, partitions that changed and have become long, and those whose last
//!    row the watermark has passed (`due`), are matched from the last anchor on, as far as rows are
//!    settled. Decisions that looked at a row that may still change do not count.
//! 3. Rows before the first that is not decided are forgotten, but for those that are looked back
//!    at; a partition of which nothing is under way goes as a whole, unless it is numbered or `^`
//!    asks for its first row.
//!
//! Keeps: a floor for each partition that has one, also in checkpoints, and when each partition is
//! to be looked at again. After a restart all are looked at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};

use crate::dataflow::operators::match_recognize::{MatchRecognize, Touched};
use crate::pattern::found::Found;
use crate::pattern::rows::{PartitionRows, Rows};
use crate::pattern::scratch::Scratch;
use crate::plan::event_time::{TimeBound, time_values};
use crate::state::delta::TableDelta;
use crate::state::ordered_table::RowKey;
use crate::types::error::{Error, Result};
use crate::types::time::Watermark;

/// The table in a checkpoint.
pub const FLOORS: &str = "floors";
/// What a checkpoint has of a floor behind its partition.
const NUMBERS: [&str; 3] = ["context", "matches", "covered"];
/// A partition with so many anchors is worth being looked at when it changes.
const ANCHORS_MIN: usize = 4;

/// Where the rows of a partition begin that is forgotten before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    /// So many of its rows stand before the first that is not decided.
    pub context: u64,
    /// Matches before.
    pub matches: i64,
    /// How many rows from the first on belong to a match before.
    pub covered: u64,
}

/// How far an input is settled, and what has been forgotten.
pub struct Settled {
    bound: TimeBound,
    /// Microseconds of one unit of the time column.
    unit_us: i64,
    /// Rows of earlier times do not change any more.
    passed: i64,
    /// The watermark has moved in this epoch.
    moved: bool,
    floors: BTreeMap<RowKey, Floor>,
    /// When partitions are to be looked at again, and the same by partition.
    due: BTreeSet<(i64, RowKey)>,
    due_at: BTreeMap<RowKey, i64>,
    /// Floors that are not in the last checkpoint as they are, and the ids of those that are there.
    changed: BTreeSet<RowKey>,
    written_as: BTreeMap<RowKey, u64>,
    last_written: u64,
}

impl Settled {
    pub fn new(bound: TimeBound, unit_us: i64) -> Settled {
        Settled {
            bound,
            unit_us,
            passed: i64::MIN,
            moved: false,
            floors: BTreeMap::new(),
            due: BTreeSet::new(),
            due_at: BTreeMap::new(),
            changed: BTreeSet::new(),
            written_as: BTreeMap::new(),
            last_written: 0,
        }
    }

    pub fn advance(&mut self, watermark: Watermark) {
        let passed = self.bound.at(watermark);
        self.moved |= passed > self.passed;
        self.passed = self.passed.max(passed);
    }

    pub fn floor(&self, partition: &[u8]) -> Option<Floor> {
        self.floors.get(partition).copied()
    }

    fn set_floor(&mut self, partition: &RowKey, floor: Option<Floor>) {
        let before = match floor {
            Some(floor) => self.floors.insert(partition.clone(), floor),
            None => self.floors.remove(partition),
        };
        if before != floor {
            self.changed.insert(partition.clone());
        }
    }

    /// Has a partition looked at when rows before `at` are settled; `None`: when it changes.
    fn look_at(&mut self, partition: &RowKey, at: Option<i64>) {
        if let Some(before) = self.due_at.remove(partition) {
            self.due.remove(&(before, partition.clone()));
        }
        if let Some(at) = at {
            self.due_at.insert(partition.clone(), at);
            self.due.insert((at, partition.clone()));
        }
    }

    fn take_due(&mut self) -> Vec<RowKey> {
        let mut partitions = Vec::new();
        while self.due.first().is_some_and(|(at, _)| *at < self.passed) {
            let Some((_, partition)) = self.due.pop_first() else { break };
            self.due_at.remove(&partition);
            partitions.push(partition);
        }
        partitions
    }

    pub fn memory_bytes(&self) -> usize {
        let floors = self.floors.keys().map(|key| key.len() + size_of::<(RowKey, Floor)>());
        let due = self.due_at.keys().map(|key| 2 * (key.len() + size_of::<(i64, RowKey)>()));
        let written = self.written_as.keys().map(|key| key.len() + size_of::<(RowKey, u64)>());
        floors.chain(due).chain(written).sum()
    }
}

impl MatchRecognize {
    /// Notes partitions that have changed, and forgets what the watermark allows.
    pub(super) fn forget_settled(&mut self, changed: Vec<RowKey>) -> Result<()> {
        let Some(mut settled) = self.settled.take() else { return Ok(()) };
        let outcome = self.forget(&mut settled, changed);
        self.settled = Some(settled);
        outcome
    }

    fn forget(&mut self, settled: &mut Settled, changed: Vec<RowKey>) -> Result<()> {
        let mut wanted = Vec::new();
        for partition in changed {
            let long = self.anchors.get(&partition).is_some_and(|a| a.len() >= ANCHORS_MIN);
            if long && settled.passed > i64::MIN {
                wanted.push(partition);
            } else {
                let last = self.last_time(settled, &partition)?;
                settled.look_at(&partition, last);
                if last.is_none() && !self.remembers() {
                    settled.set_floor(&partition, None);
                }
            }
        }
        if std::mem::take(&mut settled.moved) {
            wanted.extend(settled.take_due());
        }
        wanted.sort_unstable();
        wanted.dedup();
        for partition in wanted {
            self.forget_in(settled, &partition)?;
        }
        Ok(())
    }

    /// Whether something of a partition counts of which no row is left.
    fn remembers(&self) -> bool {
        let spec = self.kernels.spec();
        // A pattern that is not known yet may have it.
        spec.uses_match_number() || spec.pattern.has_start() || spec.pattern_from.is_some()
    }

    /// The time of a partition's last row; `None`: it has no rows. A row without a time stands at
    /// the end, and is never passed.
    fn last_time(&self, settled: &Settled, partition: &RowKey) -> Result<Option<i64>> {
        let Some((key, _)) = self.table.last(partition) else { return Ok(None) };
        let row = self.table.decode(std::iter::once(key))?;
        Ok(Some(times(settled, &row)?[0]))
    }

    /// Forgets what is decided in one partition.
    fn forget_in(&mut self, settled: &mut Settled, partition: &RowKey) -> Result<()> {
        let anchor = self.anchors.get(partition).and_then(|anchors| {
            // All that it looked at is settled.
            let sound = anchors.iter().rev().find(|anchor| {
                let seen = self.table.decode(std::iter::once(&*anchor.seen));
                let seen = seen.and_then(|row| times(settled, &row));
                seen.is_ok_and(|times| times[0] < settled.passed)
            });
            sound.cloned()
        });
        let floor = settled.floor(partition);
        let touched =
            Touched { partition: partition.clone(), changes: 0..0, anchor, floor, later: vec![] };
        let part = self.part(&touched)?;
        let batch = self.table.decode(part.keys.iter().copied())?;
        let row_times = times(settled, &batch)?;
        let count = row_times.partition_point(|time| *time < settled.passed);
        let first_row = touched.first_number() - part.begin as u64;
        let place = PartitionRows::new(0, part.keys.len(), first_row, false);
        let kernel = self.kernels.of_partition(&batch, &place)?;
        if kernel.problem.is_some() {
            // What is wrong with its pattern is told as long as its rows are there.
            return Ok(());
        }
        let rows = Rows::new(&kernel.spec, batch, vec![place])?;
        let ahead = kernel.spec.rows_ahead();
        let all = count == part.keys.len();
        // The row behind may be looked at to see who has no hope.
        let behind = if all { ahead } else { ahead + 1 };
        let until = (first_row + count as u64).saturating_sub(behind);
        let mut matcher = touched.matcher();
        let (mut scratch, mut found) = (Scratch::default(), Found::default());
        if until > matcher.next_row() {
            matcher.advance(&kernel, &mut scratch, &rows, 0, until, &mut found)?;
        }
        let passed_us = settled.passed.saturating_mul(settled.unit_us);
        let unseen = rows.partitions[0].index(matcher.next_row()).and_then(|i| rows.time_us(i));
        let now_us = unseen.map_or(passed_us, |unseen| unseen.min(passed_us));
        matcher.advance_time(&kernel, &mut scratch, &rows, 0, now_us, &mut found)?;
        let undecided = matcher.undecided_row();
        let needed = undecided.saturating_sub(kernel.rows_before).max(first_row);
        let floor = Floor {
            context: undecided - needed,
            matches: matcher.matches(),
            covered: matcher.matched_until().saturating_sub(undecided),
        };
        let next = match row_times.last() {
            None => None,
            Some(last) if !all => Some(*last),
            // Until more rows come only time can end what is under way.
            Some(_) => matcher.expires_at_us(&kernel).map(|us| us / settled.unit_us),
        };
        let at = |row: u64| (row - first_row) as usize;
        let undecided_key: Option<RowKey> = part.keys.get(at(undecided)).map(|key| (*key).into());
        let kept_from: Option<RowKey> = part.keys.get(at(needed)).map(|key| (*key).into());
        let copies_kept = kept_from.as_ref().map_or(0, |key| {
            part.keys[at(needed)..].iter().take_while(|other| ***other == **key).count()
        });
        // A floor does not remember which rows were passed over: they are waited for.
        let progressed = (touched.anchor.is_some() || undecided > touched.first_number())
            && matcher.passed_rows().next().is_none();
        let is_over = kept_from.is_none();
        drop(rows);
        drop(part);
        if progressed {
            self.forget_before(partition, kept_from.as_ref(), copies_kept);
            self.forget_anchors(partition, undecided_key.as_ref());
            let keeps_floor = !is_over || self.remembers();
            settled.set_floor(partition, keeps_floor.then_some(floor));
        }
        settled.look_at(partition, next.filter(|_| !is_over));
        Ok(())
    }

    /// Removes a partition's rows before one of them, of which so many copies stay.
    fn forget_before(&mut self, partition: &RowKey, from: Option<&RowKey>, copies: usize) {
        let before = self.table.partition(partition).map(|(key, _)| key);
        let before = before.take_while(|key| from.is_none_or(|from| *key < &**from));
        let gone: Vec<RowKey> = before.map(RowKey::from).collect();
        for key in gone {
            self.table.remove(&key);
        }
        if let Some(from) = from
            && let Some(known) = self.table.get(from)
        {
            let (peers, gone) = (known.peers(from).len(), known.weight - copies as i64);
            self.table.add(from, peers, -gone);
        }
    }

    /// Drops the anchors up to the first row that is not decided; later ones stay.
    fn forget_anchors(&mut self, partition: &RowKey, undecided: Option<&RowKey>) {
        let Some(anchors) = self.anchors.get_mut(partition) else { return };
        anchors.retain(|anchor| undecided.is_some_and(|row| anchor.row > *row));
        if anchors.is_empty() {
            self.anchors.remove(partition);
        }
    }

    fn floors_schema(&self) -> SchemaRef {
        let input = self.table.schema();
        let keys = self.partition.iter().map(|column| input.fields()[*column].clone());
        let numbers = NUMBERS.map(|name| Arc::new(Field::new(name, DataType::Int64, false)));
        Arc::new(Schema::new(keys.chain(numbers).collect::<Vec<_>>()))
    }

    /// The floors that have changed since the last checkpoint.
    pub(super) fn floors_delta(&mut self) -> Result<TableDelta> {
        let schema = self.floors_schema();
        let mut delta = TableDelta { appended: vec![], deleted: vec![] };
        let Some(settled) = &mut self.settled else { return Ok(delta) };
        for partition in std::mem::take(&mut settled.changed) {
            delta.deleted.extend(settled.written_as.remove(&partition));
            let Some(floor) = settled.floors.get(&partition) else { continue };
            settled.last_written += 1;
            settled.written_as.insert(partition.clone(), settled.last_written);
            let mut columns = self.table.decode_partition(&partition)?;
            let numbers = [floor.context as i64, floor.matches, floor.covered as i64];
            columns
                .extend(numbers.map(|number| Arc::new(Int64Array::from(vec![number])) as ArrayRef));
            let ids = UInt64Array::from(vec![settled.last_written]);
            delta.appended.push((ids, RecordBatch::try_new(schema.clone(), columns)?));
        }
        Ok(delta)
    }

    /// Takes floors of a checkpoint; the rows are there.
    pub(super) fn restore_floors(&mut self, batches: Vec<RecordBatch>) -> Result<()> {
        let width = self.partition.len();
        let Some(mut settled) = self.settled.take() else { return Ok(()) };
        for batch in batches {
            if batch.num_columns() != width + NUMBERS.len() {
                return Err(Error::internal("a checkpoint has floors of another pattern"));
            }
            let keys = self.table.encode_partitions(batch.columns())?;
            let number = |place: usize, row: usize| {
                batch.column(width + place).as_primitive::<Int64Type>().value(row)
            };
            for row in 0..batch.num_rows() {
                let key: RowKey = match &keys {
                    Some(keys) => keys.row(row).data().into(),
                    None => RowKey::default(),
                };
                let floor = Floor {
                    context: number(0, row) as u64,
                    matches: number(1, row),
                    covered: number(2, row) as u64,
                };
                settled.set_floor(&key, Some(floor));
            }
        }
        for partition in self.table.partitions()? {
            settled.look_at(&partition, Some(i64::MIN));
        }
        self.settled = Some(settled);
        Ok(())
    }
}

/// The times of rows; what has none is behind all others.
fn times(settled: &Settled, rows: &RecordBatch) -> Result<Vec<i64>> {
    let times = time_values(rows.column(settled.bound.column));
    let times = times.ok_or_else(|| Error::internal("a row's time is a timestamp or a date"))?;
    Ok(times.iter().map(|time| time.unwrap_or(i64::MAX)).collect())
}
