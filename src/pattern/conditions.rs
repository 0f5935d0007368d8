//! Which partial matches a row satisfies, and which it ends.

use crate::pattern::found::{FailedPart, Failure, Found};
use crate::pattern::history::{Candidate, Memory, States};
use crate::pattern::matcher::{Context, Matcher};
use crate::pattern::scratch::Scratch;
use crate::pattern::threads::Thread;
use crate::plan::match_recognize::program::Instruction;
use crate::plan::match_recognize::{Predicate, Variables};
use crate::types::error::{Error, ErrorKind, Result};

impl Matcher {
    /// Finds out which partial matches the row satisfies.
    pub(super) fn satisfy(
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
        // One of them cannot be told, or several: which.
        let mut holds = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let states = &mut self.states;
            holds.push(one_holds(context, &memory, states, far, candidate, index, found)?);
        }
        Ok(holds)
    }

    /// Whether the row is one that must not come.
    pub(super) fn is_forbidden(
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
            let memory = context.memory(self.matches + 1);
            if one_holds(context, &memory, &mut self.states, far, candidate, index, found)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether a far condition holds for one candidate; one that cannot be told does not.
fn one_holds(
    context: &Context<'_, '_>,
    memory: &Memory<'_, '_>,
    states: &mut States,
    far: &Predicate,
    candidate: Candidate<'_>,
    index: usize,
    found: &mut Found,
) -> Result<bool> {
    match memory.holds(states, far, &[candidate]) {
        Ok(holds) => Ok(holds.contains(&true)),
        Err(error) if error.kind() == ErrorKind::External => Err(error),
        Err(error) => {
            let part = FailedPart::Condition(candidate.variable);
            fail(context, context.place(index), part, error, found);
            Ok(false)
        }
    }
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
pub(super) fn fail(
    context: &Context<'_, '_>,
    row: u32,
    part: FailedPart,
    error: Error,
    found: &mut Found,
) {
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
