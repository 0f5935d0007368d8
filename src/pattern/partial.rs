//! Beginnings that came to nothing, and those that are under way: how far they came and what they
//! waited for. Who asks why nothing matched is told of the longest partial match of each beginning;
//! of equally long ones, of the preferred one, with what any of them waited for.

use crate::pattern::matcher::MatchKind;
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
