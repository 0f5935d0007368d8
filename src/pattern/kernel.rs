//! A pattern ready to run: what does not change while rows come.

use crate::pattern::history::Registers;
use crate::plan::match_recognize::program::{Instruction, Program};
use crate::plan::match_recognize::{Contiguity, MatchSpec, Read, Skip};
use crate::types::error::{Error, Result};

/// A pattern ready to run: what does not change.
#[derive(Debug)]
pub struct Kernel {
    pub spec: MatchSpec,
    pub program: Program,
    pub(super) registers: Registers,
    /// Partial matches of different beginnings may stand for each other.
    pub(super) across_starts: bool,
    pub(super) rows_ahead: u64,
    /// Conditions ask for the number of the match: a match is looked for when all before it are
    /// decided, and rows are gone over again.
    pub one_at_a_time: bool,
    /// How many rows before a match's first row anyone looks at.
    pub rows_before: u64,
    /// A partial match may be told of when it ends.
    pub tells_of_partial: bool,
    /// Rows of no match are shown, and a match may pass over rows.
    pub(super) notes_passed: bool,
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
            notes_passed: spec.contiguity != Contiguity::Strict && spec.rows.shows_unmatched(),
            problem,
            spec,
            program,
            registers,
        })
    }
}
