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

use std::collections::{HashSet, VecDeque};

use crate::pattern::history::{Candidate, Memory, Registers, States};
use crate::pattern::partial::{Partial, UnderWay, Waits};
use crate::pattern::rows::{PartitionRows, Rows};
use crate::plan::match_recognize::program::{Instruction, Program};
use crate::plan::match_recognize::{Contiguity, MatchSpec, Read, RowsPerMatch, Skip, Variables};
use crate::types::error::{Error, ErrorKind, Result, SqlState};

/// Partial matches of one partition; more are refused.
pub const PARTIAL_MATCHES_MAX: usize = 250_000;
/// Steps of the paths are collected when they are this many, or twice what was alive.
const COLLECT_MIN: usize = 4096;
/// No step: the partial match has taken no row.
const NO_PATH: u32 = u32::MAX;
/// A label whose row ALL ROWS PER MATCH does not show.
pub const HIDDEN: usize = 1 << 15;

/// A pattern ready to run: what does not change.
#[derive(Debug)]
pub struct Kernel {
    pub spec: MatchSpec,
    pub program: Program,
    registers: Registers,
    /// Partial matches of different beginnings may stand for each other.
    across_starts: bool,
    rows_ahead: u64,
    /// Conditions ask for the number of the match: a match is looked for when all before it are
    /// decided, and rows are gone over again.
    pub one_at_a_time: bool,
    /// How many rows before a match's first row anyone looks at.
    pub rows_before: u64,
    /// A partial match may be told of when it ends.
    pub tells_of_partial: bool,
    /// The pattern is none: nothing matches.
    pub problem: Option<Error>,
}

impl Kernel {
    /// # Errors
    /// For a pattern that is too large or means nothing.
    pub fn new(spec: MatchSpec) -> Result<Kernel> {
        let program = Program::of(&spec)?;
        Kernel::of(spec, program, None)
    }

    /// One that matches nothing, because of what is wrong with the pattern.
    ///
    /// # Errors
    /// None for a specification that another kernel has.
    pub fn broken(spec: MatchSpec, problem: Error) -> Result<Kernel> {
        Kernel::of(spec, Program::never(), Some(problem))
    }

    fn of(spec: MatchSpec, program: Program, problem: Option<Error>) -> Result<Kernel> {
        let registers = Registers::new(&spec);
        // Equal future also needs an equal end: the time that is left, or what a timeout shows.
        let across_starts = spec.skip == Skip::PastLastRow
            && spec.within.is_none()
            && !spec.timeout_rows
            && !spec.partial_rows
            && !registers.reads_start
            && spec.frame.is_none_or(|frame| frame.rows_following.is_none())
            && spec.contiguity == Contiguity::Strict;
        let one_at_a_time = spec.any_far_read(|read| *read == Read::MatchNumber);
        let absent = |step: &Instruction| matches!(step, Instruction::Absent { .. });
        let tells_of_partial =
            spec.timeout_rows || spec.partial_rows || program.instructions.iter().any(absent);
        Ok(Kernel {
            // What waits for the row behind it ends before that row, where another may begin.
            across_starts: across_starts && !one_at_a_time && !tells_of_partial,
            rows_ahead: spec.rows_ahead(),
            one_at_a_time,
            rows_before: spec.rows_before(),
            tells_of_partial,
            problem,
            spec,
            program,
            registers,
        })
    }
}

/// What the matcher found, in order.
#[derive(Debug, Default)]
pub struct Found {
    pub matches: Vec<FoundMatch>,
    /// Rows of all matches, as places (`PartitionRows::place`).
    pub rows: Vec<u32>,
    /// What they are mapped to; [`HIDDEN`] is set for those within an exclusion.
    pub labels: Vec<u16>,
    pub failures: Vec<Failure>,
}

impl Found {
    pub fn clear(&mut self) {
        self.matches.clear();
        self.rows.clear();
        self.labels.clear();
        self.failures.clear();
    }
}

/// A match, or a row of no match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundMatch {
    pub kind: MatchKind,
    /// Which of the partitions.
    pub partition: usize,
    /// 1 for the partition's first match; 0 for what is no match.
    pub number: i64,
    /// The place of the row that it begins at.
    pub first: u32,
    /// Where its rows begin among [`Found::rows`], and end.
    pub from: usize,
    pub to: usize,
    /// Of a partial match, what it waited for.
    pub waits: Waits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchKind {
    Match,
    /// A partial match whose time is over.
    TimedOut,
    /// A partial match that a row ended.
    Failed,
    /// A partial match that the end of the partition left.
    Open,
    /// A row that no match has.
    Unmatched,
}

/// Something could not be computed.
#[derive(Debug)]
pub struct Failure {
    pub partition: usize,
    /// The row's place.
    pub row: u32,
    pub part: FailedPart,
    pub error: Error,
}

/// What of a MATCH_RECOGNIZE could not be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailedPart {
    /// A variable's.
    Condition(usize),
    /// Where the next match begins.
    Skip,
    /// The partition's own.
    Pattern,
}

/// A row at which a match may begin.
#[derive(Debug)]
struct Start {
    row: u64,
    time_us: Option<i64>,
    /// The last step of the most preferred match so far.
    best: Option<u32>,
    /// The time of that step's row.
    best_time_us: Option<i64>,
    /// The number of the first beginning behind that match.
    best_end: u64,
    /// A partial match completed in this step: those behind it go.
    cut: bool,
    /// What the most preferred partial match had taken when its time was over.
    timed_out: Option<u32>,
    /// How far it came, if that is told.
    partial: Option<Box<Partial>>,
}

/// A partial match.
#[derive(Clone, Copy, Debug)]
struct Thread {
    /// A `Row`, `End` or `Absent` of the program.
    place: u32,
    /// Its last step.
    path: u32,
    /// The number of its beginning.
    start: u64,
}

/// A row that a partial match took.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// The step before.
    parent: u32,
    label: u16,
    row: u64,
}

/// Partial matches with their registers.
#[derive(Default)]
struct Threads {
    threads: Vec<Thread>,
    registers: Vec<u64>,
}

impl Threads {
    fn clear(&mut self) {
        self.threads.clear();
        self.registers.clear();
    }

    fn registers(&self, thread: usize, width: usize) -> &[u64] {
        &self.registers[thread * width..][..width]
    }

    fn drop_first(&mut self, count: usize, width: usize) {
        self.threads.drain(..count);
        self.registers.drain(..count * width);
    }
}

/// The state of one partition.
#[derive(Default)]
pub struct Matcher {
    next_row: u64,
    /// Rows before it are skipped as beginnings.
    earliest_start: u64,
    /// Rows before it were in reach of a match; for those of no match.
    matched_until: u64,
    /// Of a window, rows before it have been reported.
    reported_until: u64,
    matches: i64,
    starts: VecDeque<Start>,
    /// The number of the first of `starts`.
    first_start: u64,
    threads: Threads,
    steps: Vec<Step>,
    /// The marks in `Scratch` are not of the partial matches that are alive.
    marks_are_old: bool,
    /// Steps are collected when there are so many.
    collect_at: usize,
    states: States,
}

/// Memory that is used again from step to step and from partition to partition.
#[derive(Default)]
pub struct Scratch {
    next: Threads,
    /// For each place, when a path of the current walk was there last.
    visited: Vec<u64>,
    /// Places visited in this walk while iterations without a row were open, with which.
    visited_open: HashSet<(usize, u64)>,
    /// For each place, in which list a partial match stands there (without registers), and the
    /// last one's beginning.
    parked: Vec<(u64, u64)>,
    /// Beginnings with a match that may yet be taken, each with the first beginning behind it.
    complete: Vec<(u64, u64)>,
    /// The first partial match of a list for a hash of place and registers.
    parked_registers: std::collections::HashMap<u64, Vec<u32>>,
    clock: u64,
    /// The list that is being made.
    list: u64,
    stack: Vec<Visit>,
    /// Iterations begun on the current path.
    open_iterations: Vec<bool>,
    registers: Vec<u64>,
    /// Of each partial match, whether the current row satisfies its variable.
    satisfied: Vec<bool>,
    pub counts: Counts,
}

/// What has been done so far, for those who look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How often a row was tried for each variable.
    pub tries: Vec<u64>,
    /// How often its condition held.
    pub held: Vec<u64>,
    /// Partial matches that were given up because another one stands for them.
    pub pruned: u64,
    /// Partial matches whose time was over.
    pub timed_out: u64,
}

enum Visit {
    Place(usize),
    Leave(usize),
}

/// One partition's rows in a batch, for one call.
struct Context<'a, 'r> {
    kernel: &'a Kernel,
    rows: &'a Rows<'r>,
    partition: &'a PartitionRows,
    number: usize,
}

impl Context<'_, '_> {
    fn memory(&self, match_number: i64) -> Memory<'_, '_> {
        Memory {
            spec: &self.kernel.spec,
            layout: &self.kernel.registers,
            rows: self.rows,
            partition: self.partition,
            number: self.number,
            match_number,
        }
    }

    fn index(&self, row: u64) -> Result<usize> {
        self.partition
            .index(row)
            .ok_or_else(|| Error::internal("the matcher asked for a row that is gone"))
    }

    /// The place of the row that stands there in the batch.
    fn place(&self, index: usize) -> u32 {
        self.partition.place(self.partition.number_of(index))
    }

    /// Where the row stands, if all that its conditions look at is there.
    fn index_ahead(&self, row: u64) -> Option<usize> {
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
        let shows_unmatched =
            matches!(kernel.spec.rows, RowsPerMatch::All { shows_unmatched: true, .. });
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

    /// Finds out which partial matches the row satisfies.
    fn satisfy(
        &mut self,
        context: &Context<'_, '_>,
        scratch: &mut Scratch,
        row: u64,
        index: usize,
        found: &mut Found,
    ) -> Result<()> {
        let spec = &context.kernel.spec;
        scratch.satisfied.clear();
        scratch.satisfied.resize(self.threads.threads.len(), false);
        // For each variable with a far condition, who asks.
        let mut asked: Vec<Vec<usize>> = Vec::new();
        for (place, thread) in self.threads.threads.iter().enumerate() {
            let Instruction::Row { variable, .. } =
                context.kernel.program.instructions[thread.place as usize]
            else {
                continue;
            };
            scratch.counts.tries[variable] += 1;
            let near = near_holds(context, variable, index, found);
            let far = spec.conditions[variable].as_ref().is_some_and(|c| c.far.is_some());
            if near && far {
                if asked.is_empty() {
                    asked.resize_with(spec.variables.len(), Vec::new);
                }
                asked[variable].push(place);
            }
            scratch.satisfied[place] = near && !far;
            scratch.counts.held[variable] += u64::from(near && !far);
        }
        for (variable, places) in asked.iter().enumerate().filter(|(_, p)| !p.is_empty()) {
            let holds = self.far_holds(context, variable, places, row, index, found)?;
            for (place, holds) in places.iter().zip(holds) {
                scratch.satisfied[*place] = holds;
                scratch.counts.held[variable] += u64::from(holds);
            }
        }
        Ok(())
    }

    fn far_holds(
        &mut self,
        context: &Context<'_, '_>,
        variable: usize,
        places: &[usize],
        row: u64,
        index: usize,
        found: &mut Found,
    ) -> Result<Vec<bool>> {
        let spec = &context.kernel.spec;
        let far = spec.conditions[variable].as_ref().and_then(|c| c.far.as_ref());
        let Some(far) = far else { return Ok(vec![true; places.len()]) };
        let width = context.kernel.registers.width;
        let candidates: Vec<Candidate<'_>> = places
            .iter()
            .map(|place| {
                let start = self.threads.threads[*place].start - self.first_start;
                Candidate {
                    start: self.starts[start as usize].row,
                    row,
                    variable,
                    registers: self.threads.registers(*place, width),
                }
            })
            .collect();
        let memory = context.memory(self.matches + 1);
        match memory.holds(&mut self.states, far, &candidates) {
            Ok(holds) => return Ok(holds),
            Err(error) if error.kind() == ErrorKind::External => return Err(error),
            Err(_) => {}
        }
        let mut holds = Vec::with_capacity(candidates.len());
        for candidate in &candidates {
            match memory.holds(&mut self.states, far, std::slice::from_ref(candidate)) {
                Ok(one) => holds.extend(one),
                Err(error) if error.kind() == ErrorKind::External => return Err(error),
                Err(error) => {
                    holds.push(false);
                    fail(
                        context,
                        context.place(index),
                        FailedPart::Condition(variable),
                        error,
                        found,
                    );
                }
            }
        }
        Ok(holds)
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
            match kernel.program.instructions[thread.place as usize] {
                Instruction::Row { variable, excluded, forbidden } => {
                    if self.is_forbidden(context, forbidden, *thread, registers, index, found)? {
                        self.note_partial(
                            kernel,
                            *thread,
                            Waits::none_of(forbidden),
                            MatchKind::Failed,
                        );
                        continue;
                    }
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
                Instruction::Absent { forbidden } => {
                    if self.is_forbidden(context, forbidden, *thread, registers, index, found)? {
                        self.note_partial(
                            kernel,
                            *thread,
                            Waits::none_of(forbidden),
                            MatchKind::Failed,
                        );
                        continue;
                    }
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

    /// Whether the row is one that must not come.
    fn is_forbidden(
        &mut self,
        context: &Context<'_, '_>,
        forbidden: Variables,
        thread: Thread,
        registers: &[u64],
        index: usize,
        found: &mut Found,
    ) -> Result<bool> {
        if forbidden == Variables(0) {
            return Ok(false);
        }
        let spec = &context.kernel.spec;
        let row = self.next_row - 1;
        let start = self.starts[(thread.start - self.first_start) as usize].row;
        for variable in (0..spec.variables.len()).filter(|v| forbidden.contains(*v)) {
            if !near_holds(context, variable, index, found) {
                continue;
            }
            let far = spec.conditions[variable].as_ref().and_then(|c| c.far.as_ref());
            let Some(far) = far else { return Ok(true) };
            let candidate = Candidate { start, row, variable, registers };
            match context.memory(self.matches + 1).holds(&mut self.states, far, &[candidate]) {
                Ok(holds) if holds.contains(&true) => return Ok(true),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::External => return Err(error),
                Err(error) => {
                    fail(
                        context,
                        context.place(index),
                        FailedPart::Condition(variable),
                        error,
                        found,
                    );
                }
            }
        }
        Ok(false)
    }

    /// The partition is over.
    fn finish(&mut self, context: &Context<'_, '_>, scratch: &mut Scratch) {
        let kernel = context.kernel;
        let width = kernel.registers.width;
        let current = std::mem::take(&mut self.threads);
        let row = self.next_row;
        let mut nobody = Threads::default();
        for (place, thread) in current.threads.iter().enumerate() {
            let start = (thread.start - self.first_start) as usize;
            if self.starts[start].cut {
                continue;
            }
            match kernel.program.instructions[thread.place as usize] {
                Instruction::End => {
                    scratch.begin_list();
                    let walk = Walk { kernel, rows: context.rows, row, peek: None, at_end: true };
                    let behind = Thread { place: thread.place + 1, ..*thread };
                    let registers = current.registers(place, width);
                    nobody.clear();
                    let accepted = walk.from(scratch, behind, registers, &mut nobody);
                    let waits = nobody.threads.iter().any(|thread| {
                        let place = thread.place as usize;
                        matches!(kernel.program.instructions[place], Instruction::Absent { .. })
                    });
                    if accepted || waits {
                        self.starts[start].best = Some(thread.path);
                        self.starts[start].cut = true;
                    }
                }
                _ => self.end_of_time(kernel, *thread, MatchKind::Open),
            }
        }
        for start in &mut self.starts {
            start.cut = false;
        }
    }

    /// Decides on beginnings that have no partial match any more, in order.
    fn settle(&mut self, context: &Context<'_, '_>, found: &mut Found) -> Result<()> {
        let kernel = context.kernel;
        let mut gone = 0;
        while let Some(front) = self.starts.front() {
            let next = self.threads.threads.get(gone);
            if next.is_some_and(|thread| thread.start == self.first_start) {
                break;
            }
            let (row, best, timed_out) = (front.row, front.best, front.timed_out);
            let partial = self.starts.pop_front().and_then(|start| start.partial);
            self.first_start += 1;
            if kernel.one_at_a_time {
                // The next beginning is looked for among rows that were passed already.
                self.next_row = row + 1;
            }
            match best {
                Some(path) => {
                    self.matches += 1;
                    self.report(context, MatchKind::Match, row, path, found)?;
                    let target = self.target(context, row, found)?;
                    self.earliest_start = self.earliest_start.max(target);
                    while self.starts.front().is_some_and(|start| start.row < target) {
                        self.starts.pop_front();
                        self.first_start += 1;
                    }
                    let rest = &self.threads.threads[gone..];
                    gone += rest.partition_point(|thread| thread.start < self.first_start);
                }
                None => {
                    if let Some(path) = timed_out {
                        self.report(context, MatchKind::TimedOut, row, path, found)?;
                    }
                    if let Some(partial) = partial {
                        self.report(context, partial.kind, row, partial.path, found)?;
                        if let Some(reported) = found.matches.last_mut() {
                            reported.waits = partial.waits;
                        }
                    }
                    let shows_unmatched =
                        matches!(kernel.spec.rows, RowsPerMatch::All { shows_unmatched: true, .. });
                    if shows_unmatched && row >= self.matched_until {
                        self.report(context, MatchKind::Unmatched, row, NO_PATH, found)?;
                    }
                }
            }
        }
        self.threads.drop_first(gone, kernel.registers.width);
        // Who has gone may not keep others out any more.
        self.marks_are_old |= gone > 0;
        Ok(())
    }

    /// Writes down a match with its rows.
    fn report(
        &mut self,
        context: &Context<'_, '_>,
        kind: MatchKind,
        first: u64,
        path: u32,
        found: &mut Found,
    ) -> Result<()> {
        let from = found.rows.len();
        let mut place = path;
        while place != NO_PATH {
            let step = self.steps[place as usize];
            found.rows.push(context.partition.place(step.row));
            found.labels.push(step.label);
            place = step.parent;
        }
        found.rows[from..].reverse();
        found.labels[from..].reverse();
        let to = found.rows.len();
        if kind == MatchKind::Match {
            let end = match path {
                // An empty match has the row that it begins at.
                NO_PATH => first + 1,
                path => self.steps[path as usize].row + 1,
            };
            self.matched_until = self.matched_until.max(end);
        }
        found.matches.push(FoundMatch {
            kind,
            partition: context.number,
            number: if kind == MatchKind::Match { self.matches } else { 0 },
            first: context.partition.place(first),
            from,
            to,
            waits: Waits::NOTHING,
        });
        Ok(())
    }

    /// Where the next match may begin, after the match that was reported last.
    fn target(&self, context: &Context<'_, '_>, first: u64, found: &mut Found) -> Result<u64> {
        let Some(last) = found.matches.last() else { return Ok(first + 1) };
        let (from, to) = (last.from, last.to);
        if from == to {
            return Ok(first + 1);
        }
        let row_at = |place: usize| context.partition.row_at(found.rows[place]);
        let (set, place) = match context.kernel.spec.skip {
            Skip::PastLastRow => return Ok(row_at(to - 1) + 1),
            Skip::ToNextRow => return Ok(first + 1),
            Skip::ToFirst(set) => {
                (set, (from..to).find(|place| labelled(found.labels[*place], set)))
            }
            Skip::ToLast(set) => {
                (set, (from..to).rev().find(|place| labelled(found.labels[*place], set)))
            }
        };
        let names: Vec<&str> = (context.kernel.spec.variables.iter().enumerate())
            .filter(|(variable, _)| set.contains(*variable))
            .map(|(_, name)| name.as_str())
            .collect();
        let error = match place.map(row_at) {
            Some(row) if row > first => return Ok(row),
            Some(_) => Error::user(
                SqlState("2202L"),
                format!(
                    "AFTER MATCH SKIP goes back to the first row of the match ({})",
                    names.join(", ")
                ),
            )
            .hint("The same match would be found without end. Skip to another variable."),
            None => Error::user(
                SqlState("2202K"),
                format!(
                    "AFTER MATCH SKIP goes to {}, which has no row in the match",
                    names.join(", ")
                ),
            )
            .hint("Skip to a variable that every match has."),
        };
        fail(context, found.rows[from], FailedPart::Skip, error, found);
        Ok(first + 1)
    }

    fn push_step(&mut self, parent: u32, label: u16, row: u64) -> Result<u32> {
        let place = u32::try_from(self.steps.len()).ok().filter(|place| *place < NO_PATH);
        let place = place.ok_or_else(|| {
            Error::user(SqlState::PROGRAM_LIMIT_EXCEEDED, "partial matches have too many rows")
        })?;
        self.steps.push(Step { parent, label, row });
        Ok(place)
    }

    /// What becomes of a partial match when nothing more can come.
    fn end_of_time(&mut self, kernel: &Kernel, thread: Thread, kind: MatchKind) {
        let start = &mut self.starts[(thread.start - self.first_start) as usize];
        if start.cut {
            return;
        }
        let instruction = kernel.program.instructions[thread.place as usize];
        if matches!(instruction, Instruction::Absent { .. }) {
            start.best = Some(thread.path);
            start.cut = true;
        } else if kernel.spec.partial_rows {
            self.note_partial(kernel, thread, Waits::at(instruction), kind);
        } else if kernel.spec.timeout_rows
            && start.best.is_none()
            && start.timed_out.is_none()
            && thread.path != NO_PATH
        {
            start.timed_out = Some(thread.path);
        }
    }

    /// Remembers of a partial match that ends how far it came.
    fn note_partial(&mut self, kernel: &Kernel, thread: Thread, waits: Waits, kind: MatchKind) {
        if !kernel.spec.partial_rows || thread.path == NO_PATH {
            return;
        }
        let last_row = self.steps[thread.path as usize].row;
        let partial = Partial { path: thread.path, last_row, waits, kind };
        match &mut self.starts[(thread.start - self.first_start) as usize].partial {
            Some(known) => known.meet(partial),
            none => *none = Some(Box::new(partial)),
        }
    }

    /// The beginnings under way that have taken a row, in order, so many at most.
    pub fn under_way(&self, kernel: &Kernel, limit: usize) -> Vec<UnderWay> {
        let mut all = Vec::new();
        let alive = self.threads.threads.chunk_by(|l, r| l.start == r.start);
        for threads in alive {
            if all.len() == limit {
                break;
            }
            let start = &self.starts[(threads[0].start - self.first_start) as usize];
            let place = |thread: &Thread| kernel.program.instructions[thread.place as usize];
            let partial = |thread: &Thread| Partial {
                path: thread.path,
                last_row: self.steps[thread.path as usize].row,
                waits: Waits::at(place(thread)),
                kind: MatchKind::Open,
            };
            let moved = threads.iter().filter(|thread| thread.path != NO_PATH).map(partial);
            let longest = moved.reduce(|mut longest, other| {
                longest.meet(other);
                longest
            });
            let Some(longest) = longest else { continue };
            let mut labels = Vec::new();
            let mut path = longest.path;
            while path != NO_PATH {
                let step = self.steps[path as usize];
                labels.push(step.label);
                path = step.parent;
            }
            labels.reverse();
            let within = kernel.spec.within.zip(start.time_us);
            all.push(UnderWay {
                first_row: start.row,
                last_row: longest.last_row,
                labels,
                waits: longest.waits,
                is_complete: start.best.is_some(),
                deadline_us: within.map(|(within, us)| us.saturating_add(within.duration_us)),
            });
        }
        all
    }

    /// Nothing is under way: nothing needs to be remembered.
    fn forget(&mut self) {
        // Matches that wait for their turn still have steps.
        if self.starts.is_empty() {
            self.steps.clear();
            self.states.clear();
        }
    }

    /// Forgets steps and states that nothing reaches any more, now and then.
    fn collect(&mut self, kernel: &Kernel) {
        if self.steps.len().max(self.states.len()) < self.collect_at.max(COLLECT_MIN) {
            return;
        }
        let mut alive = vec![false; self.steps.len()];
        let partial = |start: &Start| start.partial.as_ref().map(|partial| partial.path);
        let starts = self.starts.iter();
        let starts = starts.flat_map(|start| [start.best, start.timed_out, partial(start)]);
        let paths = self.threads.threads.iter().map(|thread| thread.path);
        for path in starts.flatten().chain(paths) {
            let mut place = path;
            while place != NO_PATH && !std::mem::replace(&mut alive[place as usize], true) {
                place = self.steps[place as usize].parent;
            }
        }
        let mut moved = vec![NO_PATH; self.steps.len()];
        let mut kept = 0;
        for place in 0..self.steps.len() {
            if alive[place] {
                let mut step = self.steps[place];
                if step.parent != NO_PATH {
                    // A parent stands before its children.
                    step.parent = moved[step.parent as usize];
                }
                self.steps[kept] = step;
                moved[place] = kept as u32;
                kept += 1;
            }
        }
        self.steps.truncate(kept);
        let rename = |path: &mut u32| {
            if *path != NO_PATH {
                *path = moved[*path as usize];
            }
        };
        for start in &mut self.starts {
            start.best.iter_mut().chain(&mut start.timed_out).for_each(rename);
            start.partial.iter_mut().for_each(|partial| rename(&mut partial.path));
        }
        self.threads.threads.iter_mut().for_each(|thread| rename(&mut thread.path));
        if kernel.registers.has_aggregates() {
            let places: Vec<usize> = kernel.registers.aggregate_places().collect();
            let width = kernel.registers.width;
            let registers = self.threads.registers.iter_mut().enumerate();
            let registers = registers.filter(|(at, _)| places.contains(&(at % width)));
            self.states.collect(registers.map(|(_, register)| register));
        }
        self.collect_at = 2 * self.steps.len().max(self.states.len());
    }
}

fn labelled(label: u16, set: Variables) -> bool {
    set.contains(usize::from(label) & !HIDDEN)
}

fn near_holds(context: &Context<'_, '_>, variable: usize, index: usize, found: &mut Found) -> bool {
    match context.rows.holds(variable, index) {
        Ok(holds) => holds,
        Err(error) => {
            fail(context, context.place(index), FailedPart::Condition(variable), error, found);
            false
        }
    }
}

/// Records a failure, once for each row and part.
fn fail(context: &Context<'_, '_>, row: u32, part: FailedPart, error: Error, found: &mut Found) {
    let known = found
        .failures
        .iter()
        .rev()
        .take_while(|failure| failure.row == row && failure.partition == context.number)
        .any(|failure| failure.part == part);
    if !known {
        found.failures.push(Failure { partition: context.number, row, part, error });
    }
}

impl Scratch {
    fn prepare(&mut self, kernel: &Kernel) {
        let places = kernel.program.instructions.len();
        // Marks are of one walk or list: what others have left behind means nothing.
        if self.visited.len() < places {
            self.visited.resize(places, 0);
            self.parked.resize(places, (0, 0));
        }
        if self.open_iterations.len() < kernel.program.iterations {
            self.open_iterations.resize(kernel.program.iterations, false);
        }
        self.counts.tries.resize(kernel.spec.variables.len(), 0);
        self.counts.held.resize(kernel.spec.variables.len(), 0);
    }

    /// Partial matches that are parked from now on are compared with each other only.
    fn begin_list(&mut self) {
        self.clock += 1;
        self.list = self.clock;
        self.parked_registers.clear();
    }

    /// A beginning has a match that may yet be taken, up to before another beginning.
    fn complete(&mut self, start: u64, end: u64) {
        match self.complete.iter_mut().find(|(other, _)| *other == start) {
            Some(known) => known.1 = end,
            None => self.complete.push((start, end)),
        }
    }

    /// Partial matches that are parked from now on are compared with these, too.
    fn adopt(&mut self, kernel: &Kernel, threads: &Threads) {
        self.begin_list();
        for (index, thread) in threads.threads.iter().enumerate() {
            match kernel.registers.width {
                0 => self.parked[thread.place as usize] = (self.list, thread.start),
                width => {
                    let hash = hash_of(thread.place, threads.registers(index, width));
                    self.parked_registers.entry(hash).or_default().push(index as u32);
                }
            }
        }
    }

    /// Adds a partial match to a list unless one like it is there.
    fn park(&mut self, kernel: &Kernel, thread: Thread, registers: &[u64], into: &mut Threads) {
        let width = kernel.registers.width;
        if width == 0 {
            let parked = &mut self.parked[thread.place as usize];
            let (list, start) = *parked;
            // A relaxed match may stand at one place with other rows behind it, but what it did
            // before is not what decides what it does next.
            if list == self.list && stands_for(&self.complete, start, thread.start) {
                self.counts.pruned += 1;
                return;
            }
            *parked = (self.list, thread.start);
        } else {
            let hash = hash_of(thread.place, registers);
            let alike = self.parked_registers.entry(hash).or_default();
            let same = |other: &&u32| {
                let other = **other as usize;
                into.threads.get(other).is_some_and(|t| {
                    t.place == thread.place && stands_for(&self.complete, t.start, thread.start)
                }) && into.registers(other, width) == registers
            };
            if alike.iter().any(|other| same(&other)) {
                self.counts.pruned += 1;
                return;
            }
            alike.push(into.threads.len() as u32);
        }
        into.threads.push(thread);
        into.registers.extend_from_slice(registers);
    }
}

/// Whether a partial match of an earlier beginning lives as long as one of a later beginning: not
/// if a match before both, which is complete and may yet be taken, skips the earlier one only.
fn stands_for(complete: &[(u64, u64)], earlier: u64, later: u64) -> bool {
    earlier == later
        || !complete.iter().any(|(start, end)| *start < earlier && earlier < *end && *end <= later)
}

fn hash_of(place: u32, registers: &[u64]) -> u64 {
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
    registers.iter().fold(u64::from(place).wrapping_mul(FACTOR), |hash, register| {
        (hash.rotate_left(5) ^ register).wrapping_mul(FACTOR)
    })
}

/// From a place along everything that takes no row.
struct Walk<'a, 'r> {
    kernel: &'a Kernel,
    rows: &'a Rows<'r>,
    /// The row before which it walks.
    row: u64,
    /// Where that row stands, if it can be looked at.
    peek: Option<usize>,
    /// There is no such row.
    at_end: bool,
}

impl Walk<'_, '_> {
    /// Parks partial matches in order of preference; gives whether the match is complete, which
    /// ends the walk.
    fn from(
        &self,
        scratch: &mut Scratch,
        thread: Thread,
        registers: &[u64],
        into: &mut Threads,
    ) -> bool {
        scratch.clock += 1;
        let walk = scratch.clock;
        let mut stack = std::mem::take(&mut scratch.stack);
        stack.clear();
        stack.push(Visit::Place(thread.place as usize));
        scratch.visited_open.clear();
        // Stands for the set of open iterations: what they forbid, another way to the same place
        // may do.
        let mut open = 0;
        let mut accepted = false;
        while let Some(visit) = stack.pop() {
            let place = match visit {
                Visit::Place(place) => place,
                Visit::Leave(number) => {
                    scratch.open_iterations[number] = false;
                    open ^= mark_of(number);
                    continue;
                }
            };
            let instruction = self.kernel.program.instructions[place];
            if let Instruction::IterationEnd(number) = instruction
                && scratch.open_iterations[number]
            {
                continue;
            }
            // Where a row is waited for, iterations that had none end.
            let waits = matches!(
                instruction,
                Instruction::Row { .. }
                    | Instruction::End
                    | Instruction::Absent { .. }
                    | Instruction::Pass
            );
            let again = if open == 0 || waits {
                std::mem::replace(&mut scratch.visited[place], walk) == walk
            } else {
                !scratch.visited_open.insert((place, open))
            };
            if again {
                continue;
            }
            match instruction {
                Instruction::Split(first, second) => {
                    stack.push(Visit::Place(second));
                    stack.push(Visit::Place(first));
                }
                Instruction::Jump(target) => stack.push(Visit::Place(target)),
                Instruction::IterationStart(number) => {
                    scratch.open_iterations[number] = true;
                    open ^= mark_of(number);
                    stack.push(Visit::Leave(number));
                    stack.push(Visit::Place(place + 1));
                }
                Instruction::IterationEnd(_) => stack.push(Visit::Place(place + 1)),
                Instruction::Start => {
                    if self.row == 0 && thread.path == NO_PATH {
                        stack.push(Visit::Place(place + 1));
                    }
                }
                Instruction::End if self.at_end => stack.push(Visit::Place(place + 1)),
                Instruction::Row { variable, .. } => {
                    if self.is_hopeless(variable, thread) {
                        scratch.counts.tries[variable] += 1;
                    } else {
                        let parked = Thread { place: place as u32, ..thread };
                        scratch.park(self.kernel, parked, registers, into);
                    }
                }
                Instruction::End | Instruction::Absent { .. } | Instruction::Pass => {
                    let parked = Thread { place: place as u32, ..thread };
                    scratch.park(self.kernel, parked, registers, into);
                }
                Instruction::Accept => {
                    accepted = true;
                    break;
                }
            }
        }
        for visit in stack.drain(..) {
            if let Visit::Leave(number) = visit {
                scratch.open_iterations[number] = false;
            }
        }
        scratch.stack = stack;
        accepted
    }

    /// Whether the partial match would die at the next row for sure.
    fn is_hopeless(&self, variable: usize, thread: Thread) -> bool {
        let spec = &self.kernel.spec;
        let waits = spec.contiguity != Contiguity::Strict && thread.path != NO_PATH;
        let told_of = spec.timeout_rows || spec.partial_rows;
        if waits || (told_of && thread.path != NO_PATH) {
            return false;
        }
        self.peek.is_some_and(|index| self.rows.excludes(variable, index))
    }
}

/// A number of many bits for an iteration; those of a set, combined by exclusive or, tell it from
/// other sets (splitmix64).
fn mark_of(iteration: usize) -> u64 {
    let mut bits = (iteration as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}
