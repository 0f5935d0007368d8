//! Beginnings that came to nothing, and those that are under way: how far they came and what they
//! waited for. Who asks why nothing matched is told of the longest partial match of each beginning;
//! of equally long ones, of the preferred one, with what any of them waited for.

use crate::pattern::found::MatchKind;
use crate::pattern::kernel::Kernel;
use crate::pattern::matcher::Matcher;
use crate::pattern::threads::{NO_PATH, Thread};
use crate::plan::match_recognize::Variables;
use crate::plan::match_recognize::program::Instruction;

/// What a partial match waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// A row of one of these.
    of: Variables,
    /// That none of these comes.
    none_of: Variables,
    /// The partition's end.
    end: bool,
}

impl Waits {
    pub const NOTHING: Waits = Waits { of: Variables(0), none_of: Variables(0), end: false };

    pub fn of(variable: usize) -> Waits {
        Waits { of: Variables::one(variable), ..Waits::NOTHING }
    }

    pub fn none_of(forbidden: Variables) -> Waits {
        Waits { none_of: forbidden, ..Waits::NOTHING }
    }

    /// What is waited for at a step of the automaton.
    pub fn at(instruction: Instruction) -> Waits {
        match instruction {
            Instruction::Row { variable, .. } => Waits::of(variable),
            Instruction::Absent { forbidden } => Waits::none_of(forbidden),
            Instruction::End => Waits { end: true, ..Waits::NOTHING },
            _ => Waits::NOTHING,
        }
    }

    #[must_use]
    pub fn or(self, other: Waits) -> Waits {
        Waits {
            of: Variables(self.of.0 | other.of.0),
            none_of: Variables(self.none_of.0 | other.none_of.0),
            end: self.end || other.end,
        }
    }

    /// The variables of which a row is waited for.
    pub fn variables(self) -> Variables {
        self.of
    }

    /// `b or NOT c`.
    pub fn text(self, names: &[String]) -> String {
        let named = |set: Variables, before: &'static str| {
            let own = names.iter().enumerate().filter(move |(v, _)| set.contains(*v));
            own.map(move |(_, name)| format!("{before}{name}"))
        };
        let end = self.end.then(|| "$".to_owned());
        let all: Vec<String> = named(self.of, "").chain(named(self.none_of, "NOT ")).collect();
        all.into_iter().chain(end).collect::<Vec<_>>().join(" or ")
    }
}

/// How far a beginning came.
#[derive(Clone, Copy, Debug)]
pub struct Partial {
    /// Its last step.
    pub path: u32,
    /// The row of that step.
    pub last_row: u64,
    pub waits: Waits,
    pub kind: MatchKind,
}

impl Partial {
    /// Takes note of another partial match of the same beginning, which ends later or is less
    /// preferred.
    pub fn meet(&mut self, other: Partial) {
        if other.last_row > self.last_row {
            *self = other;
        } else if other.last_row == self.last_row {
            self.waits = self.waits.or(other.waits);
            self.kind = other.kind;
        }
    }
}

/// A beginning that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnderWay {
    /// Its first row and the last one that the longest partial match has taken.
    pub first_row: u64,
    pub last_row: u64,
    /// What its rows are mapped to, in order.
    pub labels: Vec<u16>,
    pub waits: Waits,
    /// There is a match already; a preferred one may yet come.
    pub is_complete: bool,
    /// When its time is over.
    pub deadline_us: Option<i64>,
}

impl Matcher {
    /// What becomes of a partial match when nothing more can come.
    pub(super) fn end_of_time(&mut self, kernel: &Kernel, thread: Thread, kind: MatchKind) {
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
    pub(super) fn note_partial(
        &mut self,
        kernel: &Kernel,
        thread: Thread,
        waits: Waits,
        kind: MatchKind,
    ) {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_has_a_text() {
        let names: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
        let waits = Waits::of(1).or(Waits::none_of(Variables::one(2)));
        assert_eq!(waits.text(&names), "b or NOT c");
        assert_eq!(Waits::at(Instruction::End).or(Waits::of(0)).text(&names), "a or $");
        assert_eq!(Waits::NOTHING.text(&names), "");
    }

    #[test]
    fn the_longest_counts() {
        let partial = |path, last_row, variable| Partial {
            path,
            last_row,
            waits: Waits::of(variable),
            kind: MatchKind::Failed,
        };
        let mut longest = partial(0, 4, 0);
        longest.meet(partial(1, 3, 1));
        assert_eq!((longest.path, longest.waits), (0, Waits::of(0)));
        longest.meet(partial(2, 4, 1));
        assert_eq!((longest.path, longest.waits), (0, Waits::of(0).or(Waits::of(1))));
        longest.meet(partial(3, 5, 2));
        assert_eq!((longest.path, longest.waits), (3, Waits::of(2)));
    }
}
