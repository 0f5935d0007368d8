//! MATCH_RECOGNIZE over changing partitions: the matches of the rows as they are, at every epoch.
//!
//! All rows stand in a sorted table, partition by partition. The matcher goes through a partition
//! from its beginning, and what it decides depends on the rows that it has seen, and on a few
//! ahead. So a change concerns nothing that was decided before the matcher got there. A partition
//! has anchors: places where all before was decided, with the last row that was looked at.
//!
//! `on_epoch`, for the rows that changed, partition by partition:
//! 1. The last anchor is taken that looked at nothing which changes.
//! 2. From there the partition is matched to its end, once as it was and once as it is; the second
//!    time sets new anchors. Where there are anchors behind the changes, it is matched only to the
//!    first of them where everything is as it was (`resync.rs`).
//! 3. -old and +new are consolidated.
//!
//! A new row at the end thus costs what is under way at the end: the rows since the last anchor.
//! Partitions of an epoch are matched together, so that conditions are evaluated for many rows at
//! once.
//!
//! Rows whose condition fails cannot be mapped to the variable; they are reported, and taken back
//! when they go. So is a match of which an aggregate cannot be computed.
//!
//! Where a watermark says which rows do not change any more, what is decided behind it is forgotten
//! (`settled.rs`).
//!
//! Keeps: all rows that are not forgotten, sorted, and the anchors. Anchors are not in checkpoints:
//! the first change of a partition after a restart matches it from the beginning.

pub mod by_watermark;
mod resync;
mod settled;
mod under_way;

use std::collections::BTreeMap;
use std::ops::{Bound, Range};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};

use crate::dataflow::operator::{Operator, Output, RowError};
use crate::dataflow::operators::evaluate::shown_row;
use crate::dataflow::operators::match_recognize::settled::{FLOORS, Floor, Settled};
use crate::dataflow::operators::materialize::consolidate;
use crate::dataflow::operators::top_n::ordered_by;
use crate::pattern::found::{FailedPart, Failure, Found};
use crate::pattern::kernel::Kernel;
use crate::pattern::kernels::Kernels;
use crate::pattern::matcher::Matcher;
use crate::pattern::output::output;
use crate::pattern::rows::{PartitionRows, Rows};
use crate::pattern::scratch::{Counts, Scratch};
use crate::plan::match_recognize::MatchSpec;
use crate::plan::node;
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::state::ordered_table::{OrderedTable, RowChange, RowKey, added_up};
use crate::state::spill::StoreVisitor;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, ErrorKind, Result, SqlState};
use crate::types::partial_match::PartialMatch;
use crate::types::text::datetime::US_PER_DAY;
use crate::types::time::{Epoch, Watermark};

/// Rows that are decoded and matched together, unless a partition has more; also the rows of an
/// output batch.
const STEP_ROWS: usize = 8192;
/// Rows between two anchors.
const ANCHOR_ROWS: u64 = if cfg!(test) { 8 } else { 64 };
/// So many anchors behind its changes make a partition worth being matched by itself.
const RESYNC_ANCHORS: usize = 4;
/// Rows of a part of a partition: more do not fit Arrow's indices, nor any memory.
const PART_ROWS_MAX: usize = 1 << 30;
/// The number of an anchor's row when it is matched from there: rows before it have numbers too.
const ANCHOR_NUMBER: u64 = 1 << 40;
/// The table in a checkpoint.
const ROWS: &str = "rows";

/// The `match_recognize` operator.
pub struct MatchRecognize {
    kernels: Kernels,
    partition: Vec<usize>,
    schema: SchemaRef,
    table: OrderedTable,
    /// Changes of the current epoch; empty right after `on_epoch`.
    changes: Vec<RowChange>,
    /// By partition, in the order of its rows. A partition without anchors is matched from its
    /// beginning.
    anchors: BTreeMap<RowKey, Vec<Anchor>>,
    scratch: Scratch,
    /// What the watermark lets it forget, if it does.
    settled: Option<Settled>,
}

/// A place before which everything is decided.
#[derive(Clone, Debug)]
struct Anchor {
    /// The first row that is not decided, and which of its copies.
    row: RowKey,
    copy: usize,
    /// The last row that the decisions looked at.
    seen: RowKey,
    /// Matches before it.
    matches: i64,
    /// How many rows from `row` on belong to a match before.
    covered: u64,
    /// How many rows from `row` on the matcher had passed when it was set.
    ahead_rows: u64,
}

/// A partition that changes.
struct Touched {
    partition: RowKey,
    /// Where its changes stand among those of the epoch.
    changes: Range<usize>,
    /// Where it is matched from.
    anchor: Option<Anchor>,
    /// Otherwise, where its rows begin that are not forgotten.
    floor: Option<Floor>,
    /// Anchors behind the changes.
    later: Vec<Anchor>,
}

impl Touched {
    /// The number of the first row to match.
    fn first_number(&self) -> u64 {
        if self.anchor.is_some() || self.floor.is_some() { ANCHOR_NUMBER } else { 0 }
    }

    /// A matcher that begins there.
    fn matcher(&self) -> Matcher {
        let (matches, covered) = match (&self.anchor, &self.floor) {
            (Some(anchor), _) => (anchor.matches, anchor.covered),
            (None, Some(floor)) => (floor.matches, floor.covered),
            (None, None) => return Matcher::default(),
        };
        Matcher::resume(ANCHOR_NUMBER, matches, ANCHOR_NUMBER + covered)
    }
}

/// The end of a partition, to be matched, or a stretch of it.
struct Part<'a> {
    /// A row of several copies several times.
    keys: Vec<&'a [u8]>,
    /// Where the first row to match stands among `keys`.
    begin: usize,
    /// The partition ends where it ends.
    complete: bool,
}

/// What a partition gives.
#[derive(Default)]
struct Matched {
    rows: Vec<RecordBatch>,
    errors: Vec<RowError>,
    /// For each part, the anchors that were set.
    anchors: Vec<Vec<Anchor>>,
}

impl MatchRecognize {
    /// # Errors
    /// For a column whose type has no order (SQLSTATE 0A000), or a pattern that is too large.
    pub fn new(node: &node::MatchRecognize, input: &SchemaRef) -> Result<MatchRecognize> {
        let spec = node.spec.clone();
        let partition = spec.partition.clone();
        let order_by = ordered_by(&spec.order_by);
        let table = OrderedTable::new(input.clone(), partition.clone(), order_by)?;
        Ok(MatchRecognize {
            schema: spec.schema.clone(),
            kernels: Kernels::new(*spec)?,
            partition,
            table,
            changes: Vec::new(),
            anchors: BTreeMap::new(),
            scratch: Scratch::default(),
            settled: settled(node, input),
        })
    }

    /// The partitions of changes, which are in order, with where each is matched from; anchors
    /// behind that are dropped.
    fn touched(&mut self, changes: &[RowChange]) -> Vec<Touched> {
        let mut touched: Vec<Touched> = Vec::new();
        for (index, change) in changes.iter().enumerate() {
            let partition = change.partition();
            match touched.last_mut() {
                Some(last) if *last.partition == *partition => last.changes.end = index + 1,
                _ => {
                    let (mut anchor, mut later) = (None, Vec::new());
                    if let Some(anchors) = self.anchors.get_mut(partition) {
                        // Decisions look further and further: those before are sound, too.
                        let sound = anchors.partition_point(|anchor| anchor.seen < change.key);
                        later = anchors.split_off(sound);
                        anchor = anchors.last().cloned();
                    }
                    let changes = index..index + 1;
                    let floor = self.settled.as_ref().and_then(|settled| settled.floor(partition));
                    let partition = partition.into();
                    touched.push(Touched { partition, changes, anchor, floor, later });
                }
            }
        }
        for one in &mut touched {
            let last = &changes[one.changes.end - 1].key;
            one.later.retain(|anchor| anchor.row > *last);
        }
        touched
    }

    fn apply(&mut self, changes: &[RowChange]) {
        for change in changes {
            self.table.add(&change.key, change.peer_length, change.weight);
        }
    }

    /// A partition's rows from its anchor on, with those before that are looked at.
    fn part<'a>(&'a self, touched: &'a Touched) -> Result<Part<'a>> {
        self.part_with(touched, None, None)
    }

    /// The same with these changes undone, and up to behind an anchor only.
    fn part_with<'a>(
        &'a self,
        touched: &'a Touched,
        undone: Option<&'a [RowChange]>,
        limit: Option<&Anchor>,
    ) -> Result<Part<'a>> {
        let mut part = Part { keys: Vec::new(), begin: 0, complete: true };
        let copies_of = |weight: i64| usize::try_from(weight).unwrap_or(0);
        let from = match &touched.anchor {
            None => {
                part.begin = touched.floor.map_or(0, |floor| floor.context as usize);
                Bound::Included(&*touched.partition)
            }
            Some(anchor) => {
                let mut back =
                    usize::try_from(self.kernels.spec().rows_back()).unwrap_or(usize::MAX);
                part.keys.extend(std::iter::repeat_n(&*anchor.row, anchor.copy.min(back)));
                back -= anchor.copy.min(back);
                let before = Bound::Excluded(&*anchor.row);
                for (key, copies) in self.table.walk_back(&touched.partition, before) {
                    if back == 0 {
                        break;
                    }
                    let copies = copies_of(copies.weight).min(back);
                    part.keys.extend(std::iter::repeat_n(key, copies));
                    back -= copies;
                }
                part.keys.reverse();
                part.begin = part.keys.len();
                Bound::Included(&*anchor.row)
            }
        };
        let mut skipped = touched.anchor.as_ref().map_or(0, |anchor| anchor.copy);
        // Rows to be read behind the limit.
        let mut behind = limit.map(|anchor| {
            let rows = anchor.copy as u64 + anchor.ahead_rows + self.kernels.spec().rows_ahead();
            usize::try_from(rows).unwrap_or(usize::MAX).saturating_add(1)
        });
        let table = self.table.walk(&touched.partition, from);
        let table = table.map(|(key, copies)| (key, copies.weight));
        for (key, weight) in Undone::new(table, undone.unwrap_or(&[])) {
            let copies = copies_of(weight);
            if let (Some(behind), Some(anchor)) = (&mut behind, limit)
                && *key >= *anchor.row
            {
                if *behind == 0 {
                    part.complete = false;
                    break;
                }
                *behind = behind.saturating_sub(copies);
            }
            if part.keys.len().saturating_add(copies) > PART_ROWS_MAX {
                return Err(Error::user(
                    SqlState::PROGRAM_LIMIT_EXCEEDED,
                    "a partition of MATCH_RECOGNIZE has more than 2^30 rows",
                ));
            }
            let shown = copies.saturating_sub(skipped);
            skipped = 0;
            part.keys.extend(std::iter::repeat_n(key, shown));
        }
        Ok(part)
    }

    /// The matches of one part, and what failed.
    fn show_part(
        &self,
        rows: &Rows<'_>,
        found: Found,
        weight: i64,
        matched: &mut Matched,
    ) -> Result<()> {
        for failure in &found.failures {
            let (expression, row) =
                failed_text(self.kernels.spec(), failure.part, &rows.batch, failure.row as usize)?;
            let error = failure.error.clone();
            matched.errors.push(RowError { error, expression, row, weight });
        }
        show(self.kernels.base(), rows, found, weight, &mut matched.rows, &mut matched.errors)
    }

    /// The matches of partitions from their anchors on, as the table is.
    fn compute(&self, touched: &[Touched], scratch: &mut Scratch, weight: i64) -> Result<Matched> {
        let mut matched = Matched::default();
        let mut parts: Vec<(Part<'_>, &Touched)> = Vec::new();
        let mut gathered = 0;
        for (index, one) in touched.iter().enumerate() {
            let part = self.part(one)?;
            gathered += part.keys.len();
            parts.push((part, one));
            if gathered >= STEP_ROWS || index + 1 == touched.len() {
                self.compute_parts(&parts, scratch, weight, &mut matched)?;
                parts.clear();
                gathered = 0;
            }
        }
        Ok(matched)
    }

    fn compute_parts(
        &self,
        parts: &[(Part<'_>, &Touched)],
        scratch: &mut Scratch,
        weight: i64,
        matched: &mut Matched,
    ) -> Result<()> {
        let keys: Vec<&[u8]> =
            parts.iter().flat_map(|(part, _)| part.keys.iter().copied()).collect();
        let batch = self.table.decode(keys.into_iter())?;
        let mut start = 0;
        let mut places = Vec::with_capacity(parts.len());
        for (part, touched) in parts {
            let end = start + part.keys.len();
            let first_row = touched.first_number() - part.begin as u64;
            places.push(PartitionRows::new(start, end, first_row, part.complete));
            start = end;
        }
        let rows = Rows::new(self.kernels.spec(), batch, places)?;
        let mut found = Found::default();
        for (number, (part, touched)) in parts.iter().enumerate() {
            let anchors = self.compute_part(&rows, number, part, touched, scratch, &mut found)?;
            matched.anchors.push(anchors);
        }
        self.show_part(&rows, found, weight, matched)
    }

    /// Matches one part to its end; gives the anchors that it sets.
    fn compute_part(
        &self,
        rows: &Rows<'_>,
        number: usize,
        part: &Part<'_>,
        touched: &Touched,
        scratch: &mut Scratch,
        found: &mut Found,
    ) -> Result<Vec<Anchor>> {
        let mut matcher = touched.matcher();
        let place = &rows.partitions[number];
        let end_row = place.end_row();
        let kernel = self.kernels.of_partition(&rows.batch, place)?;
        if let Some(problem) = &kernel.problem {
            // Without anchors it is always matched from its beginning, and always reported.
            let (partition, row, part) = (number, place.start as u32, FailedPart::Pattern);
            found.failures.push(Failure { partition, row, part, error: problem.clone() });
            return Ok(Vec::new());
        }
        let mut anchors: Vec<Anchor> = Vec::new();
        self.set_anchors(
            rows,
            number,
            part,
            touched,
            &mut matcher,
            end_row,
            scratch,
            found,
            &mut anchors,
        )?;
        let place = &rows.partitions[number];
        if matcher.next_row() == place.end_row() {
            matcher.advance(&kernel, scratch, rows, number, u64::MAX, found)?;
        }
        Ok(anchors)
    }

    /// Lets a matcher go to a row, and sets anchors on the way.
    #[expect(clippy::too_many_arguments, reason = "a step of one computation")]
    fn set_anchors(
        &self,
        rows: &Rows<'_>,
        number: usize,
        part: &Part<'_>,
        touched: &Touched,
        matcher: &mut Matcher,
        to: u64,
        scratch: &mut Scratch,
        found: &mut Found,
        anchors: &mut Vec<Anchor>,
    ) -> Result<()> {
        let place = &rows.partitions[number];
        let kernel = self.kernels.of_partition(&rows.batch, place)?;
        let ahead = kernel.spec.rows_ahead();
        let mut decided = matcher.undecided_row();
        while matcher.next_row() < to {
            let until = (matcher.next_row() + ANCHOR_ROWS).min(to);
            matcher.advance(&kernel, scratch, rows, number, until, found)?;
            let row = matcher.undecided_row();
            // Conditions of the next row may have been looked at, and rows ahead of it.
            let seen = matcher.next_row() + ahead;
            // An anchor does not remember which rows were passed over.
            let is_plain = matcher.passed_rows().next().is_none();
            if row > decided && row < place.end_row() && seen < place.end_row() && is_plain {
                decided = row;
                let at = (row - place.first_row) as usize;
                let key = part.keys[at];
                // Copies before the part's beginning are not among its keys.
                let before = match &touched.anchor {
                    Some(anchor) if *anchor.row == *key => anchor.copy,
                    _ => 0,
                };
                let from = if touched.anchor.is_some() { part.begin } else { 0 };
                let own = part.keys[from..at].iter().rev().take_while(|k| **k == key);
                anchors.push(Anchor {
                    row: key.into(),
                    copy: before + own.count(),
                    seen: part.keys[(seen - place.first_row) as usize].into(),
                    matches: matcher.matches(),
                    covered: matcher.matched_until().saturating_sub(row),
                    ahead_rows: matcher.next_row() - row,
                });
            }
        }
        Ok(())
    }
}

/// A partition's rows as they were before some changes.
struct Undone<'a, I: Iterator<Item = (&'a [u8], i64)>> {
    rows: std::iter::Peekable<I>,
    changes: std::iter::Peekable<std::slice::Iter<'a, RowChange>>,
}

impl<'a, I: Iterator<Item = (&'a [u8], i64)>> Undone<'a, I> {
    fn new(rows: I, changes: &'a [RowChange]) -> Undone<'a, I> {
        Undone { rows: rows.peekable(), changes: changes.iter().peekable() }
    }
}

impl<'a, I: Iterator<Item = (&'a [u8], i64)>> Iterator for Undone<'a, I> {
    type Item = (&'a [u8], i64);

    fn next(&mut self) -> Option<(&'a [u8], i64)> {
        loop {
            let gone = match (self.rows.peek(), self.changes.peek()) {
                (Some((row, _)), Some(change)) => *change.key < **row,
                (None, Some(_)) => true,
                (_, None) => false,
            };
            if gone {
                // It is not there any more.
                let change = self.changes.next()?;
                return Some((&change.key, -change.weight));
            }
            let (row, weight) = self.rows.next()?;
            let change = self.changes.next_if(|change| *change.key == *row);
            let before = weight - change.map_or(0, |change| change.weight);
            if before != 0 {
                return Some((row, before));
            }
        }
    }
}

/// What a node's watermark says of its rows.
fn settled(node: &node::MatchRecognize, input: &SchemaRef) -> Option<Settled> {
    let bound = node.settles.clone()?;
    let unit_us = match input.field(bound.column).data_type() {
        DataType::Date32 => US_PER_DAY,
        _ => 1,
    };
    Some(Settled::new(bound, unit_us))
}

/// What failed, and the row, as text; of a pattern, the partition.
fn failed_text(
    spec: &MatchSpec,
    part: FailedPart,
    rows: &RecordBatch,
    row: usize,
) -> Result<(String, String)> {
    Ok(match part {
        FailedPart::Condition(variable) => (spec.condition_text(variable), shown_row(rows, row)),
        FailedPart::Skip => ("AFTER MATCH SKIP".to_owned(), shown_row(rows, row)),
        FailedPart::Pattern => {
            ("PATTERN".to_owned(), shown_row(&rows.project(&spec.partition)?, row))
        }
    })
}

/// What EXPLAIN ANALYZE tells of a matcher's work.
fn counted(kernel: &Kernel, counts: &Counts, alive: Option<usize>) -> Vec<(String, u64)> {
    let mut counted = Vec::new();
    counted.extend(alive.map(|alive| ("partial matches".to_owned(), alive as u64)));
    counted.push(("pruned".to_owned(), counts.pruned));
    counted.push(("timed out".to_owned(), counts.timed_out));
    let counts = counts.tries.iter().zip(&counts.held);
    for (variable, (tries, held)) in kernel.spec.variables.iter().zip(counts) {
        counted.push((format!("{variable} tried"), *tries));
        counted.push((format!("{variable} held"), *held));
    }
    counted
}

/// The rows of what was found. Matches that cannot be shown are left out and reported.
fn show(
    kernel: &Kernel,
    rows: &Rows<'_>,
    mut found: Found,
    weight: i64,
    batches: &mut Vec<RecordBatch>,
    errors: &mut Vec<RowError>,
) -> Result<()> {
    match output(kernel, rows, &found) {
        Ok(batch) => {
            batches.push(batch);
            return Ok(());
        }
        Err(error) if error.kind() == ErrorKind::External => return Err(error),
        Err(_) => {}
    }
    for one in std::mem::take(&mut found.matches) {
        let first = one.first as usize;
        found.matches = vec![one];
        match output(kernel, rows, &found) {
            Ok(batch) => batches.push(batch),
            Err(error) if error.kind() == ErrorKind::External => return Err(error),
            Err(error) => errors.push(RowError {
                error,
                expression: "MEASURES".to_owned(),
                row: shown_row(&rows.batch, first),
                weight,
            }),
        }
    }
    Ok(())
}

impl Operator for MatchRecognize {
    fn name(&self) -> &'static str {
        "match_recognize"
    }

    fn on_batch(&mut self, port: usize, batch: ChangeBatch, _: &mut Output) -> Result<()> {
        assert_eq!(port, 0, "match_recognize has one input");
        let encoded = self.table.encode(batch.rows())?;
        self.changes.extend(encoded.changes(&batch));
        Ok(())
    }

    fn on_watermark(&mut self, _: usize, watermark: Watermark, out: &mut Output) -> Result<()> {
        if let Some(settled) = &mut self.settled {
            settled.advance(watermark);
        }
        // It promises nothing of the output: a late row changes matches that are there already.
        out.emit_watermark(watermark);
        Ok(())
    }

    fn on_epoch(&mut self, _: Epoch, out: &mut Output) -> Result<()> {
        let changes = added_up(std::mem::take(&mut self.changes));
        if changes.is_empty() {
            return self.forget_settled(Vec::new());
        }
        let touched = self.touched(&changes);
        // What few rows follow is matched to its end, with others together.
        let (mut touched, inside): (Vec<_>, Vec<_>) =
            touched.into_iter().partition(|one| one.later.len() < RESYNC_ANCHORS);
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut before = self.compute(&touched, &mut scratch, -1)?;
        self.apply(&changes);
        let mut now = self.compute(&touched, &mut scratch, 1)?;
        for one in &inside {
            let mut resynced = self.resync(one, &changes, &one.later, &mut scratch)?;
            before.rows.append(&mut resynced.before.rows);
            before.errors.append(&mut resynced.before.errors);
            now.rows.append(&mut resynced.now.rows);
            now.errors.append(&mut resynced.now.errors);
            now.anchors.push(resynced.anchors);
        }
        touched.extend(inside);
        self.scratch = scratch;
        let changed = touched.iter().map(|one| one.partition.clone()).collect();
        for (touched, anchors) in touched.into_iter().zip(now.anchors) {
            if touched.anchor.is_none() && anchors.is_empty() {
                self.anchors.remove(&touched.partition);
            } else {
                self.anchors.entry(touched.partition).or_default().extend(anchors);
            }
        }
        report(before.errors, now.errors, out);
        let output = before.rows.into_iter().map(ChangeBatch::deletes);
        let output = output.chain(now.rows.into_iter().map(ChangeBatch::inserts));
        for batch in consolidate(&self.schema, output.collect())? {
            for start in (0..batch.num_rows()).step_by(STEP_ROWS) {
                out.emit(batch.slice(start, STEP_ROWS.min(batch.num_rows() - start)));
            }
        }
        self.forget_settled(changed)
    }

    fn checkpoint(&mut self, _: Epoch, writer: &mut CheckpointWriter) -> Result<()> {
        assert!(self.changes.is_empty(), "an epoch's changes are taken in when it completes");
        writer.write(ROWS, self.table.checkpoint_delta()?);
        if self.settled.is_some() {
            writer.write(FLOORS, self.floors_delta()?);
        }
        Ok(())
    }

    fn restore(&mut self, reader: &mut CheckpointReader) -> Result<()> {
        self.table.restore(reader.read(ROWS, &self.partition)?)?;
        if self.settled.is_some() {
            let key: Vec<usize> = (0..self.partition.len()).collect();
            self.restore_floors(reader.read(FLOORS, &key)?)?;
        }
        Ok(())
    }

    fn state_rows(&self) -> usize {
        self.table.len()
    }

    fn counted(&self) -> Vec<(String, u64)> {
        counted(self.kernels.base(), &self.scratch.counts, None)
    }

    fn partial_matches(&self, limit: usize) -> Result<Vec<PartialMatch>> {
        self.under_way(limit)
    }

    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        visit(&mut self.table);
    }

    fn memory_bytes(&self) -> usize {
        let changes = self.changes.iter().map(|change| change.key.len());
        let anchors = self.anchors.values().flatten();
        let anchors = anchors.map(|a| a.row.len() + a.seen.len() + size_of::<Anchor>());
        self.table.memory_bytes()
            + changes.sum::<usize>()
            + self.changes.capacity() * size_of::<RowChange>()
            + anchors.sum::<usize>()
            + self.settled.as_ref().map_or(0, Settled::memory_bytes)
    }
}

/// Reports what has come and takes back what has gone.
fn report(before: Vec<RowError>, now: Vec<RowError>, out: &mut Output) {
    let same = |l: &RowError, r: &RowError| {
        l.row == r.row && l.expression == r.expression && l.error.message() == r.error.message()
    };
    let mut now = now;
    for gone in before {
        match now.iter().position(|come| same(come, &gone)) {
            Some(place) => {
                now.swap_remove(place);
            }
            None => out.row_error(gone),
        }
    }
    for come in now {
        out.row_error(come);
    }
}
