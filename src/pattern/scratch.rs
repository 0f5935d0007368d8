//! Memory that matchers use again, and which partial matches stand for each other in it.

use std::collections::HashSet;

use crate::pattern::kernel::Kernel;
use crate::pattern::threads::{Thread, Threads};
use crate::pattern::walk::Visit;

/// Memory that is used again from step to step and from partition to partition.
#[derive(Default)]
pub struct Scratch {
    pub(super) next: Threads,
    /// For each place, when a path of the current walk was there last.
    pub(super) visited: Vec<u64>,
    /// Places visited in this walk while iterations without a row were open, with which.
    pub(super) visited_open: HashSet<(usize, u64)>,
    /// For each place, in which list a partial match stands there (without registers), and the
    /// last one's beginning.
    pub(super) parked: Vec<(u64, u64)>,
    /// Beginnings with a match that may yet be taken, each with the first beginning behind it.
    pub(super) complete: Vec<(u64, u64)>,
    /// The first partial match of a list for a hash of place and registers.
    pub(super) parked_registers: std::collections::HashMap<u64, Vec<u32>>,
    pub(super) clock: u64,
    /// The list that is being made.
    pub(super) list: u64,
    pub(super) stack: Vec<Visit>,
    /// Iterations begun on the current path.
    pub(super) open_iterations: Vec<bool>,
    pub(super) registers: Vec<u64>,
    /// Of each partial match, whether the current row satisfies its variable.
    pub(super) satisfied: Vec<bool>,
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

impl Scratch {
    pub(super) fn prepare(&mut self, kernel: &Kernel) {
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
    pub(super) fn begin_list(&mut self) {
        self.clock += 1;
        self.list = self.clock;
        self.parked_registers.clear();
    }

    /// A beginning has a match that may yet be taken, up to before another beginning.
    pub(super) fn complete(&mut self, start: u64, end: u64) {
        match self.complete.iter_mut().find(|(other, _)| *other == start) {
            Some(known) => known.1 = end,
            None => self.complete.push((start, end)),
        }
    }

    /// Partial matches that are parked from now on are compared with these, too.
    pub(super) fn adopt(&mut self, kernel: &Kernel, threads: &Threads) {
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
    pub(super) fn park(
        &mut self,
        kernel: &Kernel,
        thread: Thread,
        registers: &[u64],
        into: &mut Threads,
    ) {
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
pub(super) fn stands_for(complete: &[(u64, u64)], earlier: u64, later: u64) -> bool {
    earlier == later
        || !complete.iter().any(|(start, end)| *start < earlier && earlier < *end && *end <= later)
}

pub(super) fn hash_of(place: u32, registers: &[u64]) -> u64 {
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
    registers.iter().fold(u64::from(place).wrapping_mul(FACTOR), |hash, register| {
        (hash.rotate_left(5) ^ register).wrapping_mul(FACTOR)
    })
}
