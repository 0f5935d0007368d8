//! Runs a pattern's automaton over one partition's rows, in order: all partial matches in step.
//!
//! A match may begin at each row that the previous match does not skip; for each beginning the
//! standard prefers one match. Instead of trying beginnings one by one:
//! 1. Partial matches of all beginnings stand in one list, earlier beginnings first, and of one
//!    beginning the preferred first. A row is offered to each of them once (`step`).
//! 2. Of two at one place of the automaton with equal registers the later one goes: it could only
//!    lead to what the other leads to. Where the next match begins behind the last one
//!    (SKIP PAST LAST ROW), this holds across beginnings too, unless a match that is complete may
//!    yet be taken and skip the earlier one only; see `across_starts`.
//! 3. When one of them completes, those of its beginning behind it go; those before it may still
//!    complete and are preferred. A beginning is decided when it has no partial match left.
//! 4. Beginnings are decided in order (`settle`): a match skips some of those behind it.
//!
//! What happens next depends on the matcher's state and the rows to come only, so a stream hands
//! over rows as they come; `rows_needed_from` says which rows it will ask for again.

use std::collections::{BTreeSet, HashSet, VecDeque};

use crate::pattern::found::{Found, FoundMatch, HIDDEN, MatchKind};
use crate::pattern::history::{Candidate, Memory, States};
use crate::pattern::kernel::Kernel;
use crate::pattern::partial::{Partial, Waits};
use crate::pattern::rows::{PartitionRows, Rows};
use crate::pattern::scratch::Scratch;
use crate::pattern::threads::{NO_PATH, Step, Thread, Threads};
use crate::pattern::walk::Walk;
use crate::plan::match_recognize::Contiguity;
use crate::plan::match_recognize::program::Instruction;
use crate::types::error::{Error, Result, SqlState};

/// Partial matches of one partition; more are refused.
pub const PARTIAL_MATCHES_MAX: usize = 250_000;

/// A row at which a match may begin.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) row: u64,
    pub(super) time_us: Option<i64>,
    /// The last step of the most preferred match so far.
    pub(super) best: Option<u32>,
    /// The time of that step's row.
    pub(super) best_time_us: Option<i64>,
    /// The number of the first beginning behind that match.
    pub(super) best_end: u64,
    /// A partial match completed in this step: those behind it go.
    pub(super) cut: bool,
    /// What the most preferred partial match had taken when its time was over.
    pub(super) timed_out: Option<u32>,
    /// How far it came, if that is told.
    pub(super) partial: Option<Box<Partial>>,
}

/// The state of one partition.
#[derive(Default)]
pub struct Matcher {
    pub(super) next_row: u64,
    /// Rows before it are skipped as beginnings.
    pub(super) earliest_start: u64,
    /// Rows before it were in reach of a match; for those of no match.
    pub(super) matched_until: u64,
    /// Rows before that which no match has, as far as they are not reported: a relaxed match passed
    /// over them.
    pub(super) passed: BTreeSet<u64>,
    /// Of a window, rows before it have been reported.
    pub(super) reported_until: u64,
    pub(super) matches: i64,
    pub(super) starts: VecDeque<Start>,
    /// The number of the first of `starts`.
    pub(super) first_start: u64,
    pub(super) threads: Threads,
    pub(super) steps: Vec<Step>,
    /// The marks in `Scratch` are not of the partial matches that are alive.
    pub(super) marks_are_old: bool,
    /// Steps are collected when there are so many.
    pub(super) collect_at: usize,
    pub(super) states: States,
}

/// One partition's rows in a batch, for one call.
pub(super) struct Context<'a, 'r> {
    pub(super) kernel: &'a Kernel,
    pub(super) rows: &'a Rows<'r>,
    pub(super) partition: &'a PartitionRows,
    pub(super) number: usize,
}

impl Context<'_, '_> {
    pub(super) fn memory(&self, match_number: i64) -> Memory<'_, '_> {
        Memory {
            spec: &self.kernel.spec,
            layout: &self.kernel.registers,
            rows: self.rows,
            partition: self.partition,
            number: self.number,
            match_number,
        }
    }

    pub(super) fn index(&self, row: u64) -> Result<usize> {
        self.partition
            .index(row)
            .ok_or_else(|| Error::internal("the matcher asked for a row that is gone"))
    }

    /// The place of the row that stands there in the batch.
    pub(super) fn place(&self, index: usize) -> u32 {
        self.partition.place(self.partition.number_of(index))
    }

    /// Where the row stands, if all that its conditions look at is there.
    pub(super) fn index_ahead(&self, row: u64) -> Option<usize> {
        let ready =
            self.partition.complete || row + self.kernel.rows_ahead < self.partition.end_row();
        if ready { self.partition.index(row) } else { None }
    }
}

impl Matcher {
    /// The number of the next row that it wants.
    pub fn next_row(&self) -> u64 {
        self.next_row
    }

    /// The first row that it may ask for again.
    pub fn rows_needed_from(&self, kernel: &Kernel) -> u64 {
        let first = self.starts.front().map_or(self.next_row, |start| start.row);
        first.saturating_sub(kernel.rows_before)
    }

    /// Nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.starts.is_empty()
    }

    /// Matches found so far.
    pub fn matches(&self) -> i64 {
        self.matches
    }

    /// Behind the last row that some match reached.
    pub fn matched_until(&self) -> u64 {
        self.matched_until
    }

    /// Rows from the first one that is not decided on which are in reach of a match, but in none.
    pub fn passed_rows(&self) -> impl Iterator<Item = u64> + '_ {
        self.passed.iter().copied()
    }

    /// The first row whose part is not decided.
    pub fn undecided_row(&self) -> u64 {
        self.starts.front().map_or(self.next_row, |start| start.row).max(self.earliest_start)
    }

    /// Goes on as if all before a row were decided.
    pub fn resume(row: u64, matches: i64, matched_until: u64) -> Matcher {
        Matcher {
            next_row: row,
            earliest_start: row,
            reported_until: row,
            matched_until,
            matches,
            ..Matcher::default()
        }
    }

    /// The same with rows that matches passed over.
    #[must_use]
    pub fn with_passed(mut self, rows: impl Iterator<Item = u64>) -> Matcher {
        self.passed = rows.collect();
        self
    }

    /// Partial matches alive.
    pub fn partial_matches(&self) -> usize {
        self.threads.threads.len()
    }

    pub fn memory_bytes(&self) -> usize {
        self.threads.threads.capacity() * size_of::<Thread>()
            + self.threads.registers.capacity() * size_of::<u64>()
            + self.steps.capacity() * size_of::<Step>()
            + self.starts.capacity() * size_of::<Start>()
            + self.states.memory_bytes()
    }

    /// Takes the rows of a partition as far as they can be decided on, up to row `until` at most.
    ///
    /// # Errors
    /// When there are too many partial matches, or the outside world failed.
    pub fn advance(
        &mut self,
        kernel: &Kernel,
        scratch: &mut Scratch,
        rows: &Rows<'_>,
        number: usize,
        until: u64,
        found: &mut Found,
    ) -> Result<()> {
        let before = found.matches.len();
        self.advance_rows(kernel, scratch, rows, number, until, found)?;
        if kernel.spec.frame.is_some() {
            self.report_others(&rows.partitions[number], number, before, found);
        }
        Ok(())
    }

    /// Reports the rows of a window that are decided and have no match; matches have been reported
    /// from `before` on.
    fn report_others(
        &mut self,
        partition: &PartitionRows,
        number: usize,
        before: usize,
        found: &mut Found,
    ) {
        let until = self.undecided_row();
        let firsts: HashSet<u32> = found.matches[before..].iter().map(|one| one.first).collect();
        for row in self.reported_until..until {
            let first = partition.place(row);
            if !firsts.contains(&first) {
                found.matches.push(FoundMatch {
                    kind: MatchKind::Unmatched,
                    partition: number,
                    number: 0,
                    first,
                    from: 0,
                    to: 0,
                    waits: Waits::NOTHING,
                });
            }
        }
        self.reported_until = until.max(self.reported_until);
    }

    fn advance_rows(
        &mut self,
        kernel: &Kernel,
        scratch: &mut Scratch,
        rows: &Rows<'_>,
        number: usize,
        until: u64,
        found: &mut Found,
    ) -> Result<()> {
        let partition = &rows.partitions[number];
        let context = Context { kernel, rows, partition, number };
        scratch.prepare(kernel);
        self.marks_are_old = true;
        let ahead = if partition.complete { 0 } else { kernel.rows_ahead };
        let until = until.min(partition.end_row().saturating_sub(ahead));
        loop {
            while self.next_row < until {
                self.step(&context, scratch, found)?;
                self.settle(&context, found)?;
            }
            if !partition.complete || self.next_row != partition.end_row() {
                return Ok(());
            }
            self.finish(&context, scratch);
            self.settle(&context, found)?;
            assert!(self.starts.is_empty(), "a partition's end decides everything");
            // One at a time, rows may have to be gone over again.
            if self.next_row >= until {
                return Ok(());
            }
        }
    }

    /// No row to come has a time before `time_us`: what cannot be within its time any more ends.
    ///
    /// # Errors
    /// When a row is gone that should be there.
    pub fn advance_time(
        &mut self,
        kernel: &Kernel,
        scratch: &mut Scratch,
        rows: &Rows<'_>,
        number: usize,
        time_us: i64,
        found: &mut Found,
    ) -> Result<()> {
        let context = Context { kernel, rows, partition: &rows.partitions[number], number };
        self.expire(kernel, scratch, time_us);
        self.settle(&context, found)
    }

    /// No match to come that is not decided has a last row of an earlier time than this; `None`:
    /// nothing that there is now counts, rows to come do.
    pub fn last_row_bound_us(&self, kernel: &Kernel) -> Option<i64> {
        if kernel.tells_of_partial || kernel.one_at_a_time {
            return self.starts.front().and_then(|start| start.time_us);
        }
        let waiting = self.starts.iter().filter(|start| start.best.is_some());
        waiting.filter_map(|start| start.best_time_us).min()
    }

    /// When the first of the beginnings will be over; `None`: never, or there is none.
    pub fn expires_at_us(&self, kernel: &Kernel) -> Option<i64> {
        let within = kernel.spec.within?;
        let start = self.starts.front()?;
        Some(start.time_us?.saturating_add(within.duration_us))
    }

    /// Ends the beginnings whose time is over at `now_us`.
    fn expire(&mut self, kernel: &Kernel, scratch: &mut Scratch, now_us: i64) {
        let Some(within) = kernel.spec.within else { return };
        let mut expired = 0;
        for start in &self.starts {
            let over = start
                .time_us
                .is_some_and(|time_us| now_us.saturating_sub(time_us) > within.duration_us);
            if !over {
                break;
            }
            expired += 1;
        }
        if expired == 0 {
            return;
        }
        let end = self.first_start + expired as u64;
        let gone = self.threads.threads.partition_point(|thread| thread.start < end);
        for place in 0..gone {
            self.end_of_time(kernel, self.threads.threads[place], MatchKind::TimedOut);
        }
        scratch.counts.timed_out += gone as u64;
        self.threads.drop_first(gone, kernel.registers.width);
    }

    /// Ends the beginnings before a row: the next row is outside of their frames.
    fn leave_frames(&mut self, kernel: &Kernel, first: u64) {
        let gone = self.starts.partition_point(|start| start.row < first);
        let end = self.first_start + gone as u64;
        let threads = self.threads.threads.partition_point(|thread| thread.start < end);
        self.threads.drop_first(threads, kernel.registers.width);
    }

    /// Offers the next row to every partial match.
    fn step(
        &mut self,
        context: &Context<'_, '_>,
        scratch: &mut Scratch,
        found: &mut Found,
    ) -> Result<()> {
        let row = self.next_row;
        let index = context.index(row)?;
        let time_us = context.rows.time_us(index);
        if let Some(time_us) = time_us {
            self.expire(context.kernel, scratch, time_us);
        }
        if let Some(rows) = context.kernel.spec.frame.and_then(|frame| frame.rows_following) {
            self.leave_frames(context.kernel, row.saturating_sub(rows));
        }
        let in_turn = !context.kernel.one_at_a_time || self.starts.is_empty();
        if row >= self.earliest_start && in_turn {
            self.seed(context, scratch, row, index, time_us)?;
        }
        self.next_row = row + 1;
        if self.threads.threads.is_empty() {
            self.forget();
            return Ok(());
        }
        self.collect(context.kernel);
        self.satisfy(context, scratch, row, index, found)?;
        self.take(context, scratch, row, index, found)?;
        if self.threads.threads.len() > PARTIAL_MATCHES_MAX {
            return Err(Error::user(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                format!(
                    "MATCH_RECOGNIZE has more than {PARTIAL_MATCHES_MAX} partial matches in one \
                     partition"
                ),
            )
            .hint(
                "Bound the pattern with WITHIN, or write conditions that tell its variables \
                 apart.",
            ));
        }
        Ok(())
    }

    /// Lets a match begin at a row.
    fn seed(
        &mut self,
        context: &Context<'_, '_>,
        scratch: &mut Scratch,
        row: u64,
        index: usize,
        time_us: Option<i64>,
    ) -> Result<()> {
        let kernel = context.kernel;
        let start = self.first_start + self.starts.len() as u64;
        let before = self.threads.threads.len();
        if !kernel.across_starts {
            scratch.begin_list();
        } else {
            self.note_complete(scratch);
            if std::mem::take(&mut self.marks_are_old) {
                scratch.adopt(kernel, &self.threads);
            }
        }
        scratch.registers.clear();
        scratch.registers.resize(kernel.registers.width, 0);
        let registers = std::mem::take(&mut scratch.registers);
        let thread = Thread { place: 0, path: NO_PATH, start };
        let walk = Walk { kernel, rows: context.rows, row, peek: Some(index), at_end: false };
        let accepted = walk.from(scratch, thread, &registers, &mut self.threads);
        scratch.registers = registers;
        let alive = self.threads.threads.len() > before;
        let shows_unmatched = kernel.spec.rows.shows_unmatched();
        // A row at which nothing begins is of interest only to who shows it.
        if alive || accepted || shows_unmatched {
            self.starts.push_back(Start {
                row,
                time_us,
                best: accepted.then_some(NO_PATH),
                best_time_us: None,
                best_end: start + 1,
                cut: false,
                timed_out: None,
                partial: None,
            });
        }
        Ok(())
    }

    /// Notes which beginnings have a match that may yet be taken.
    fn note_complete(&self, scratch: &mut Scratch) {
        scratch.complete.clear();
        let numbered = self.starts.iter().zip(self.first_start..);
        let complete = numbered.filter(|(start, _)| start.best.is_some());
        scratch.complete.extend(complete.map(|(start, number)| (number, start.best_end)));
    }

    /// Moves every partial match over the row, or lets it go.
    fn take(
        &mut self,
        context: &Context<'_, '_>,
        scratch: &mut Scratch,
        row: u64,
        index: usize,
        found: &mut Found,
    ) -> Result<()> {
        let kernel = context.kernel;
        let width = kernel.registers.width;
        let strict = kernel.spec.contiguity == Contiguity::Strict;
        let mut next = std::mem::take(&mut scratch.next);
        next.clear();
        scratch.begin_list();
        if kernel.across_starts {
            self.note_complete(scratch);
        }
        let walk = Walk {
            kernel,
            rows: context.rows,
            row: row + 1,
            peek: context.index_ahead(row + 1),
            at_end: false,
        };
        let current = std::mem::take(&mut self.threads);
        let mut group = None;
        for (place, thread) in current.threads.iter().enumerate() {
            if group != Some(thread.start) {
                group = Some(thread.start);
                if !kernel.across_starts {
                    scratch.begin_list();
                }
            }
            let start = (thread.start - self.first_start) as usize;
            if self.starts[start].cut {
                continue;
            }
            let registers = current.registers(place, width);
            let instruction = kernel.program.instructions[thread.place as usize];
            if let Instruction::Row { forbidden, .. } | Instruction::Absent { forbidden } =
                instruction
                && self.is_forbidden(context, forbidden, *thread, registers, index, found)?
            {
                let waits = Waits::none_of(forbidden);
                self.note_partial(kernel, *thread, waits, MatchKind::Failed);
                continue;
            }
            match instruction {
                Instruction::Row { variable, excluded, .. } => {
                    let stays = thread.path != NO_PATH
                        && match kernel.spec.contiguity {
                            Contiguity::Strict => false,
                            Contiguity::Relaxed => !scratch.satisfied[place],
                            Contiguity::RelaxedAny => true,
                        };
                    let mut accepted = false;
                    if scratch.satisfied[place] {
                        let label = variable | if excluded { HIDDEN } else { 0 };
                        let path = self.push_step(thread.path, label as u16, row)?;
                        let mut taken = std::mem::take(&mut scratch.registers);
                        taken.clear();
                        let candidate =
                            Candidate { start: self.starts[start].row, row, variable, registers };
                        context.memory(self.matches + 1).take_row(
                            &mut self.states,
                            candidate,
                            &mut taken,
                        )?;
                        let moved = Thread { place: thread.place + 1, path, start: thread.start };
                        accepted = walk.from(scratch, moved, &taken, &mut next);
                        scratch.registers = taken;
                        if accepted {
                            self.starts[start].best = Some(path);
                            self.starts[start].best_time_us = context.rows.time_us(index);
                            self.starts[start].cut = true;
                            // All beginnings so far are at this row or before it.
                            let end = self.first_start + self.starts.len() as u64;
                            self.starts[start].best_end = end;
                            scratch.complete(thread.start, end);
                        }
                    }
                    if stays && !accepted {
                        scratch.park(kernel, *thread, registers, &mut next);
                    } else if !stays && !scratch.satisfied[place] {
                        let waits = Waits::of(variable);
                        self.note_partial(kernel, *thread, waits, MatchKind::Failed);
                    }
                }
                Instruction::Absent { .. } => {
                    if strict {
                        self.starts[start].best = Some(thread.path);
                        self.starts[start].cut = true;
                    } else {
                        scratch.park(kernel, *thread, registers, &mut next);
                    }
                }
                Instruction::Pass => {
                    let moved = Thread { place: thread.place + 1, ..*thread };
                    if walk.from(scratch, moved, registers, &mut next) {
                        self.starts[start].best = Some(thread.path);
                        self.starts[start].cut = true;
                    }
                }
                // There is a row: this is not the end.
                instruction => {
                    self.note_partial(kernel, *thread, Waits::at(instruction), MatchKind::Failed);
                }
            }
        }
        for start in &mut self.starts {
            start.cut = false;
        }
        scratch.next = current;
        self.threads = next;
        Ok(())
    }
}
