//! MATCH_RECOGNIZE in event time: rows are matched in order when the watermark has passed them, and
//! what is found never changes.
//!
//! 1. `on_batch`: rows wait under their times.
//! 2. `on_epoch`, when the watermark has moved: the rows before it go to their partitions, in
//!    order, and each partition's matcher goes on from where it was. A row is looked at once, by
//!    the partial matches that are alive; older rows are fetched only where a condition asks for
//!    them, or to show a match.
//! 3. Partial matches whose time (WITHIN) the watermark has passed end, also in partitions in which
//!    nothing comes any more: they are found by when they end.
//! 4. Rows before the first beginning that is not decided are forgotten, and partitions in which
//!    nothing is under way as a whole, unless something of them is needed (MATCH_NUMBER, `^`).
//!
//! The output's watermark stays behind what may still be shown: a match that is complete may have
//! to wait for a preferred one, or for rows to come that it may go on with.
//!
//! Keeps: rows behind the watermark, and of each partition those from the first beginning that is
//! not decided. Partial matches are not in checkpoints: a restored operator goes over the rows of
//! its partitions again, and finds nothing in them but what is under way.

pub(super) mod partitions;
pub(super) mod store;

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};

use crate::dataflow::operator::{Operator, Output, RowError};
use crate::dataflow::operators::match_recognize::by_watermark::partitions::{
    Partition, Partitions,
};
use crate::dataflow::operators::match_recognize::by_watermark::store::Waiting;
use crate::dataflow::operators::match_recognize::{counted, failed_text, show};
use crate::pattern::found::{FailedPart, Failure, Found};
use crate::pattern::kernel::Kernel;
use crate::pattern::kernels::Kernels;
use crate::pattern::matcher::Matcher;
use crate::pattern::rows::{PartitionRows, Rows};
use crate::pattern::scratch::Scratch;
use crate::plan::event_time::TimeBound;
use crate::plan::node;
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::state::row_ids::ShortId;
use crate::state::spill::StoreVisitor;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};
use crate::types::partial_match::PartialMatch;
use crate::types::text::datetime::US_PER_DAY;
use crate::types::time::{Epoch, EventTime, Watermark};

/// Rows that are matched together, unless a partition has more; also the rows of an output batch.
const STEP_ROWS: usize = 8192;
/// So many rows behind the next one are looked at again rather than fetched one by one.
const NEAR_ROWS: u64 = 64;

/// The `match_recognize` operator over an input with a watermark.
pub struct ByWatermark {
    kernels: Kernels,
    bound: TimeBound,
    /// Microseconds of one unit of the time column.
    unit_us: i64,
    pub(super) waiting: Waiting,
    pub(super) partitions: Partitions,
    /// The watermark, if it has moved in this epoch.
    moved: Option<Watermark>,
    /// What has been announced.
    announced: Option<Watermark>,
    scratch: Scratch,
}

/// A partition that is to be matched.
#[derive(Clone, Copy, Debug)]
struct Touched {
    slot: u32,
    /// How many rows it has got.
    new_rows: u64,
}

/// What the partitions of a step have found.
struct Step {
    touched: Vec<Touched>,
    matchers: Vec<Matcher>,
    kernels: Vec<Arc<Kernel>>,
    found: Found,
}

impl ByWatermark {
    /// # Errors
    /// For a column whose type has no order (SQLSTATE 0A000), or a pattern that is too large.
    pub fn new(
        node: &node::MatchRecognize,
        bound: TimeBound,
        input: &SchemaRef,
    ) -> Result<ByWatermark> {
        let kernels = Kernels::new(node.spec.as_ref().clone())?;
        let unit_us = match input.field(bound.column).data_type() {
            DataType::Date32 => US_PER_DAY,
            _ => 1,
        };
        let spec = kernels.spec();
        let numbered = spec.uses_match_number() || spec.pattern.has_start();
        Ok(ByWatermark {
            waiting: Waiting::new(spec, input, bound.column, node.input.input.append_only())?,
            partitions: Partitions::new(input, &spec.partition, numbered)?,
            kernels,
            bound,
            unit_us,
            moved: None,
            announced: None,
            scratch: Scratch::default(),
        })
    }

    /// Gives the rows that are due to their partitions; which these are.
    fn hand_out(&mut self, due: &[ShortId]) -> Result<Vec<Touched>> {
        let mut touched: Vec<Touched> = Vec::new();
        if due.is_empty() {
            return Ok(touched);
        }
        let rows = self.waiting.store.gather(due)?;
        let order = self.waiting.sorted(&rows)?;
        let keys = self.partitions.keys(&rows)?;
        let mut last: Option<&[u8]> = None;
        for index in order {
            let key = keys.key(index as usize);
            if last != Some(key) {
                last = Some(key);
                let slot = self.partitions.find_or_add(key);
                let partition = self.partitions.get_mut(slot);
                if partition.kernel.is_none() {
                    partition.kernel = Some(self.kernels.of_row(&rows, index as usize)?);
                }
                touched.push(Touched { slot, new_rows: 0 });
            }
            if let Some(touched) = touched.last_mut() {
                touched.new_rows += 1;
                self.partitions.get_mut(touched.slot).ids.push_back(due[index as usize]);
            }
        }
        Ok(touched)
    }

    /// The partitions that rows come to or whose time is over, those of new rows first.
    fn touched(&mut self, due: &[ShortId], now_us: i64, ended: bool) -> Result<Vec<Touched>> {
        let mut touched = self.hand_out(due)?;
        let over = match ended {
            true => self.partitions.slots().collect(),
            false => self.partitions.expired(now_us),
        };
        if !over.is_empty() {
            let known: std::collections::HashSet<u32> = touched.iter().map(|t| t.slot).collect();
            let more = over.into_iter().filter(|slot| !known.contains(slot));
            touched.extend(more.map(|slot| Touched { slot, new_rows: 0 }));
        }
        Ok(touched)
    }

    /// Lets the matchers of partitions go on.
    fn step(
        &mut self,
        touched: &[Touched],
        now_us: i64,
        ended: bool,
        out: &mut Output,
    ) -> Result<()> {
        let mut step = Step {
            touched: touched.to_vec(),
            matchers: Vec::with_capacity(touched.len()),
            kernels: Vec::with_capacity(touched.len()),
            found: Found::default(),
        };
        let mut ids: Vec<ShortId> = Vec::new();
        let mut places = Vec::with_capacity(touched.len());
        for one in touched {
            let partition = self.partitions.get_mut(one.slot);
            let kernel = partition.kernel.clone().unwrap_or_else(|| self.kernels.base().clone());
            let from = first_wanted(&kernel, partition, one.new_rows);
            let start = ids.len();
            ids.extend(partition.ids.iter().skip((from - partition.first) as usize));
            let mut place = PartitionRows::new(start, ids.len(), from, ended);
            (place.shown_from, place.shown_at) = (partition.first, 0);
            places.push(place);
            step.kernels.push(kernel);
            step.matchers.push(std::mem::take(&mut partition.matcher));
        }
        let batch = self.waiting.store.gather(&ids)?;
        let (store, partitions) = (&self.waiting.store, &self.partitions);
        let slots: Vec<u32> = touched.iter().map(|one| one.slot).collect();
        let old = move |number: usize, rows: &[u64]| {
            let ids = partitions.get(slots[number]).ids_of(rows)?;
            store.gather(&ids)
        };
        let rows = Rows::new(self.kernels.spec(), batch, places)?.with_old(Box::new(old));
        let scratch = &mut self.scratch;
        for (number, matcher) in step.matchers.iter_mut().enumerate() {
            let kernel = &step.kernels[number];
            if let Some(problem) = &kernel.problem
                && touched[number].new_rows > 0
            {
                let place = &rows.partitions[number];
                let row = place.place(place.end_row() - 1);
                let (part, error) = (FailedPart::Pattern, problem.clone());
                step.found.failures.push(Failure { partition: number, row, part, error });
            }
            go_on(kernel, scratch, &rows, number, matcher, now_us, &mut step.found)?;
        }
        self.report_failures(&mut step, &rows, out)?;
        self.emit(&mut step, &rows, out)?;
        drop(rows);
        self.settle(step, ended);
        Ok(())
    }

    /// Reports the rows whose conditions failed, unless they were before a restart.
    fn report_failures(&self, step: &mut Step, rows: &Rows<'_>, out: &mut Output) -> Result<()> {
        for failure in std::mem::take(&mut step.found.failures) {
            let Failure { partition: number, row, part, error } = failure;
            let partition = self.partitions.get(step.touched[number].slot);
            let row = rows.partitions[number].row_at(row);
            if part != FailedPart::Skip && row < partition.tried {
                continue;
            }
            let shown = self.waiting.store.gather(&partition.ids_of(&[row])?)?;
            let (expression, row) = failed_text(self.kernels.spec(), part, &shown, 0)?;
            out.row_error(RowError { error, expression, row, weight: 1 });
        }
        Ok(())
    }

    /// Sends the matches on.
    fn emit(&self, step: &mut Step, rows: &Rows<'_>, out: &mut Output) -> Result<()> {
        if step.found.matches.is_empty() {
            return Ok(());
        }
        let found = std::mem::take(&mut step.found);
        let (mut batches, mut errors) = (Vec::new(), Vec::new());
        match self.rows_of(&found, step, rows)? {
            None => {
                let found = in_batch(found, rows);
                show(self.kernels.base(), rows, found, 1, &mut batches, &mut errors)?;
            }
            Some((rows, found)) => {
                show(self.kernels.base(), &rows, found, 1, &mut batches, &mut errors)?
            }
        }
        for batch in batches {
            for start in (0..batch.num_rows()).step_by(STEP_ROWS) {
                let length = STEP_ROWS.min(batch.num_rows() - start);
                out.emit(ChangeBatch::inserts(batch.slice(start, length)));
            }
        }
        errors.into_iter().for_each(|error| out.row_error(error));
        Ok(())
    }

    /// The rows that the matches show and read, with the matches over them; `None`: they are all in
    /// the step's batch.
    fn rows_of<'a>(
        &'a self,
        found: &Found,
        step: &Step,
        rows: &Rows<'_>,
    ) -> Result<Option<(Rows<'a>, Found)>> {
        let spec = self.kernels.spec();
        // Of each partition with matches: the first row, and behind the last.
        let mut ranges: Vec<Option<(u64, u64)>> = vec![None; rows.partitions.len()];
        for one in &found.matches {
            let place = &rows.partitions[one.partition];
            let first = place.row_at(one.first);
            let last = found.rows[one.from..one.to].last().map_or(first, |row| place.row_at(*row));
            let (from, to) = ranges[one.partition].unwrap_or((first, last));
            ranges[one.partition] = Some((from.min(first), to.max(last)));
        }
        let wanted = |number: usize, (first, last): (u64, u64)| {
            let place = &rows.partitions[number];
            let from = first.saturating_sub(spec.rows_back()).max(place.shown_from);
            (from, (last + 1 + spec.rows_ahead()).min(place.end_row()))
        };
        let inside = ranges.iter().enumerate().all(|(number, range)| {
            range.is_none_or(|range| wanted(number, range).0 >= rows.partitions[number].first_row)
        });
        if inside {
            return Ok(None);
        }
        let (mut ids, mut places) = (Vec::new(), Vec::new());
        let mut moved = vec![0; ranges.len()];
        for (number, range) in ranges.iter().enumerate() {
            let Some(range) = range else { continue };
            let (from, to) = wanted(number, *range);
            let partition = self.partitions.get(step.touched[number].slot);
            let start = ids.len();
            let skipped = (from - partition.first) as usize;
            ids.extend(partition.ids.iter().skip(skipped).take((to - from) as usize));
            moved[number] = places.len();
            let complete = rows.partitions[number].complete;
            places.push(PartitionRows::new(start, ids.len(), from, complete));
        }
        let mut own = Found { labels: found.labels.clone(), ..Found::default() };
        for one in &found.matches {
            let mut one = one.clone();
            let before = &rows.partitions[one.partition];
            let after: &PartitionRows = &places[moved[one.partition]];
            let translate = |place: u32| after.place(before.row_at(place));
            one.first = translate(one.first);
            own.rows.extend(found.rows[one.from..one.to].iter().map(|row| translate(*row)));
            one.partition = moved[one.partition];
            own.matches.push(one);
        }
        assert_eq!(own.rows.len(), found.rows.len(), "every row belongs to one match");
        let batch = self.waiting.store.gather(&ids)?;
        Ok(Some((Rows::shown(spec, batch, places), own)))
    }

    /// Forgets what nobody needs any more, and notes when partitions are to be looked at again.
    fn settle(&mut self, step: Step, ended: bool) {
        let mut dead = Vec::new();
        let matchers = step.matchers.into_iter().zip(step.kernels);
        for (one, (matcher, kernel)) in step.touched.into_iter().zip(matchers) {
            let partition = self.partitions.get_mut(one.slot);
            partition.matcher = matcher;
            partition.tried = partition.tried.max(partition.matcher.next_row());
            let needed = match ended {
                true => partition.end_row(),
                false => partition.matcher.rows_needed_from(&kernel).min(partition.end_row()),
            };
            while partition.first < needed {
                dead.extend(partition.ids.pop_front());
                partition.first += 1;
            }
            let waits = partition.matcher.next_row() < partition.end_row();
            let unseen = waits.then(|| {
                let next = partition.matcher.next_row();
                let id = partition.ids[(next - partition.first) as usize];
                self.waiting.time_us(id, self.unit_us)
            });
            let (deadline, held) = {
                let matcher = &partition.matcher;
                let held = matcher.last_row_bound_us(&kernel);
                // A partition that waits for a row ahead cannot tell what its time is.
                let deadline = matcher.expires_at_us(&kernel).filter(|_| !waits);
                (deadline, held.into_iter().chain(unseen).min())
            };
            self.partitions.note(one.slot, deadline, held);
            if ended || self.partitions.get(one.slot).is_empty() {
                self.partitions.leave(one.slot, ended);
            }
        }
        self.waiting.store.kill_all(&dead);
    }

    /// Announces how far the output is.
    fn announce(&mut self, watermark: Watermark, out: &mut Output) {
        let announced = match self.partitions.held_us() {
            None => watermark,
            Some(_) if watermark == Watermark::END => watermark,
            Some(held_us) => self.held_back(watermark, held_us),
        };
        if self.announced.is_none_or(|before| before < announced) {
            self.announced = Some(announced);
            out.emit_watermark(announced);
        }
    }

    /// The greatest watermark up to this one whose bound is not behind a time.
    fn held_back(&self, watermark: Watermark, held_us: i64) -> Watermark {
        let bound_us =
            |at: i64| self.bound.at(Watermark(EventTime(at))).saturating_mul(self.unit_us);
        let (mut low, mut high) = (i64::MIN, watermark.0.0);
        if bound_us(high) <= held_us {
            return watermark;
        }
        // `high` is behind, `low` is not, or is the beginning of time.
        while high.abs_diff(low) > 1 {
            let middle = low + (high.abs_diff(low) / 2) as i64;
            if bound_us(middle) <= held_us { low = middle } else { high = middle }
        }
        Watermark(EventTime(low))
    }
}

/// The number of the first row that a partition's matcher looks at in this step; what it wants of
/// rows before it is fetched.
fn first_wanted(kernel: &Kernel, partition: &Partition, new_rows: u64) -> u64 {
    let next = partition.matcher.next_row().max(partition.first);
    let behind = next - partition.first;
    if kernel.one_at_a_time || behind <= NEAR_ROWS.max(4 * new_rows).min(STEP_ROWS as u64) {
        return partition.first;
    }
    next.saturating_sub(kernel.spec.rows_back()).max(partition.first)
}

/// Lets one matcher take its rows, and time pass.
fn go_on(
    kernel: &Kernel,
    scratch: &mut Scratch,
    rows: &Rows<'_>,
    number: usize,
    matcher: &mut Matcher,
    now_us: i64,
    found: &mut Found,
) -> Result<()> {
    let place = &rows.partitions[number];
    loop {
        matcher.advance(kernel, scratch, rows, number, u64::MAX, found)?;
        if place.complete || kernel.spec.within.is_none() {
            return Ok(());
        }
        let limit = place.end_row().saturating_sub(kernel.spec.rows_ahead());
        // A row that waits for others may still belong to a match.
        let unseen = place.index(matcher.next_row()).and_then(|index| rows.time_us(index));
        let now_us = unseen.map_or(now_us, |unseen| unseen.min(now_us));
        matcher.advance_time(kernel, scratch, rows, number, now_us, found)?;
        if matcher.next_row() >= limit {
            return Ok(());
        }
    }
}

/// What was found, with the places of rows in the step's batch.
fn in_batch(mut found: Found, rows: &Rows<'_>) -> Found {
    for one in &mut found.matches {
        let place = &rows.partitions[one.partition];
        let index = |row: u32| {
            let row = place.row_at(row);
            (place.start as u64 + (row - place.first_row)) as u32
        };
        one.first = index(one.first);
        found.rows[one.from..one.to].iter_mut().for_each(|row| *row = index(*row));
    }
    found
}

impl Operator for ByWatermark {
    fn name(&self) -> &'static str {
        "match_recognize"
    }

    fn on_batch(&mut self, port: usize, batch: ChangeBatch, _: &mut Output) -> Result<()> {
        assert_eq!(port, 0, "match_recognize has one input");
        self.waiting.add(batch)
    }

    fn on_watermark(&mut self, _: usize, watermark: Watermark, _: &mut Output) -> Result<()> {
        self.moved = Some(watermark);
        Ok(())
    }

    fn on_epoch(&mut self, _: Epoch, out: &mut Output) -> Result<()> {
        let Some(watermark) = self.moved.take() else {
            self.waiting.maintain(&mut self.partitions)?;
            return Ok(());
        };
        let ended = watermark == Watermark::END;
        let bound = self.bound.at(watermark);
        let now_us = bound.saturating_mul(self.unit_us);
        let due = self.waiting.take_due(bound)?;
        let touched = self.touched(&due, now_us, ended)?;
        let (mut begin, mut gathered) = (0, 0);
        for (index, one) in touched.iter().enumerate() {
            gathered += one.new_rows as usize + 1;
            if gathered >= STEP_ROWS || index + 1 == touched.len() {
                self.step(&touched[begin..=index], now_us, ended, out)?;
                (begin, gathered) = (index + 1, 0);
            }
        }
        self.waiting.maintain(&mut self.partitions)?;
        self.announce(watermark, out);
        Ok(())
    }

    fn checkpoint(&mut self, _: Epoch, writer: &mut CheckpointWriter) -> Result<()> {
        self.waiting.checkpoint(writer)?;
        writer.write(partitions::TABLE, self.partitions.checkpoint_delta()?);
        Ok(())
    }

    fn restore(&mut self, reader: &mut CheckpointReader) -> Result<()> {
        self.waiting.restore(reader, &self.kernels.spec().partition)?;
        let key: Vec<usize> = (0..self.kernels.spec().partition.len()).collect();
        self.partitions.restore(reader.read(partitions::TABLE, &key)?)
    }

    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        self.waiting.visit_stores(visit);
    }

    fn memory_bytes(&self) -> usize {
        self.waiting.memory_bytes() + self.partitions.memory_bytes()
    }

    fn state_rows(&self) -> usize {
        self.waiting.rows()
    }

    fn partial_matches(&self, limit: usize) -> Result<Vec<PartialMatch>> {
        self.under_way(limit)
    }

    fn counted(&self) -> Vec<(String, u64)> {
        counted(self.kernels.base(), &self.scratch.counts, Some(self.partitions.partial_matches()))
    }
}

/// The column that a watermark bounds is no time: our mistake.
fn missing_time() -> Error {
    Error::internal("a row's time is a timestamp or a date")
}
