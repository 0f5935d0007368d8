//! Which matches are taken: beginnings are decided in order, and a match skips some of those behind
//! it.

use crate::pattern::conditions::fail;
use crate::pattern::found::{FailedPart, Found, FoundMatch, MatchKind, labelled};
use crate::pattern::matcher::{Context, Matcher};
use crate::pattern::partial::Waits;
use crate::pattern::scratch::Scratch;
use crate::pattern::threads::{NO_PATH, Thread, Threads};
use crate::pattern::walk::Walk;
use crate::plan::match_recognize::Skip;
use crate::plan::match_recognize::program::Instruction;
use crate::types::error::{Error, Result, SqlState};

impl Matcher {
    /// The partition is over.
    pub(super) fn finish(&mut self, context: &Context<'_, '_>, scratch: &mut Scratch) {
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
                    // Behind `$` no row comes either.
                    for waiting in &nobody.threads {
                        self.end_of_time(kernel, *waiting, MatchKind::Open);
                    }
                    if accepted && !self.starts[start].cut {
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
    pub(super) fn settle(&mut self, context: &Context<'_, '_>, found: &mut Found) -> Result<()> {
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
                    self.report_passed(context, target, found)?;
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
                    let passed = self.passed.remove(&row);
                    if kernel.spec.rows.shows_unmatched() && (passed || row >= self.matched_until) {
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
    pub(super) fn report(
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
            if context.kernel.notes_passed {
                self.passed.remove(&first);
                self.note_passed(context, &found.rows[from..]);
            }
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

    /// Notes which rows no match has, though the match that is reported reaches behind them.
    fn note_passed(&mut self, context: &Context<'_, '_>, rows: &[u32]) {
        let mut rows = rows.iter().map(|place| context.partition.row_at(*place)).peekable();
        let Some(first) = rows.peek() else { return };
        let mut next = self.matched_until.max(*first);
        for row in rows {
            if row < next {
                self.passed.remove(&row);
            } else {
                self.passed.extend(next..row);
                next = row + 1;
            }
        }
    }

    /// Reports rows of no match that no match to come can have: it begins behind them.
    fn report_passed(
        &mut self,
        context: &Context<'_, '_>,
        target: u64,
        found: &mut Found,
    ) -> Result<()> {
        while let Some(row) = self.passed.first().copied().filter(|row| *row < target) {
            self.passed.remove(&row);
            self.report(context, MatchKind::Unmatched, row, NO_PATH, found)?;
        }
        Ok(())
    }

    /// Where the next match may begin, after the match that was reported last.
    pub(super) fn target(
        &self,
        context: &Context<'_, '_>,
        first: u64,
        found: &mut Found,
    ) -> Result<u64> {
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
}
