//! The partial matches of a partition, and the rows behind each of them.
//!
//! A partial match is a place in the automaton, a beginning, and its last step; steps are a tree, so
//! partial matches that have gone the same way share it. Steps that nothing reaches any more are
//! collected now and then.

use crate::pattern::kernel::Kernel;
use crate::pattern::matcher::{Matcher, Start};
use crate::types::error::{Error, Result, SqlState};

/// Steps of the paths are collected when they are this many, or twice what was alive.
const COLLECT_MIN: usize = 4096;
/// No step: the partial match has taken no row.
pub(super) const NO_PATH: u32 = u32::MAX;

/// A partial match.
#[derive(Clone, Copy, Debug)]
pub(super) struct Thread {
    /// A `Row`, `End` or `Absent` of the program.
    pub(super) place: u32,
    /// Its last step.
    pub(super) path: u32,
    /// The number of its beginning.
    pub(super) start: u64,
}

/// A row that a partial match took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// The step before.
    pub(super) parent: u32,
    pub(super) label: u16,
    pub(super) row: u64,
}

/// Partial matches with their registers.
#[derive(Default)]
pub(super) struct Threads {
    pub(super) threads: Vec<Thread>,
    pub(super) registers: Vec<u64>,
}

impl Threads {
    pub(super) fn clear(&mut self) {
        self.threads.clear();
        self.registers.clear();
    }

    pub(super) fn registers(&self, thread: usize, width: usize) -> &[u64] {
        &self.registers[thread * width..][..width]
    }

    pub(super) fn drop_first(&mut self, count: usize, width: usize) {
        self.threads.drain(..count);
        self.registers.drain(..count * width);
    }
}

impl Matcher {
    pub(super) fn push_step(&mut self, parent: u32, label: u16, row: u64) -> Result<u32> {
        let place = u32::try_from(self.steps.len()).ok().filter(|place| *place < NO_PATH);
        let place = place.ok_or_else(|| {
            Error::user(SqlState::PROGRAM_LIMIT_EXCEEDED, "partial matches have too many rows")
        })?;
        self.steps.push(Step { parent, label, row });
        Ok(place)
    }

    /// Nothing is under way: nothing needs to be remembered.
    pub(super) fn forget(&mut self) {
        // Matches that wait for their turn still have steps.
        if self.starts.is_empty() {
            self.steps.clear();
            self.states.clear();
        }
    }

    /// Forgets steps and states that nothing reaches any more, now and then.
    pub(super) fn collect(&mut self, kernel: &Kernel) {
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
