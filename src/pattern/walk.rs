//! From a place of the automaton along everything that takes no row.

use crate::pattern::kernel::Kernel;
use crate::pattern::rows::Rows;
use crate::pattern::scratch::Scratch;
use crate::pattern::threads::{NO_PATH, Thread, Threads};
use crate::plan::match_recognize::Contiguity;
use crate::plan::match_recognize::program::Instruction;

pub(super) enum Visit {
    Place(usize),
    Leave(usize),
}

/// From a place along everything that takes no row.
pub(super) struct Walk<'a, 'r> {
    pub(super) kernel: &'a Kernel,
    pub(super) rows: &'a Rows<'r>,
    /// The row before which it walks.
    pub(super) row: u64,
    /// Where that row stands, if it can be looked at.
    pub(super) peek: Option<usize>,
    /// There is no such row.
    pub(super) at_end: bool,
}

impl Walk<'_, '_> {
    /// Parks partial matches in order of preference; gives whether the match is complete, which
    /// ends the walk.
    pub(super) fn from(
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
    pub(super) fn is_hopeless(&self, variable: usize, thread: Thread) -> bool {
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
pub(super) fn mark_of(iteration: usize) -> u64 {
    let mut bits = (iteration as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}
