//! All ways in which a pattern can take rows, the preferred first.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use super::case::{Case, Contiguity, Row};
use super::pattern::Pattern;
use super::scope::Scope;

/// Ways that are tried for one beginning; a case with more is left out.
pub(super) const TRIES_MAX: usize = 20_000;

/// Rows of a match: the row, its variable, whether it is hidden.
pub(super) type Taken = Vec<(usize, usize, bool)>;
pub(super) type Then<'a> = &'a mut dyn FnMut(usize, &Taken) -> bool;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Match,
    TimedOut,
    Failed,
    Open,
}

/// How a way ended that is no match.
pub(super) struct Ended {
    pub(super) taken: Taken,
    pub(super) kind: Kind,
    pub(super) of: BTreeSet<usize>,
    pub(super) none_of: BTreeSet<usize>,
    pub(super) end: bool,
}

pub(super) struct Search<'a> {
    pub(super) case: &'a Case,
    pub(super) rows: &'a [Row],
    /// Where the match begins.
    pub(super) first: usize,
    pub(super) number: i64,
    pub(super) tries: Cell<usize>,
    pub(super) ended: RefCell<Vec<Ended>>,
}

impl Search<'_> {
    fn holds(&self, variable: usize, at: usize, taken: &Taken) -> bool {
        let Some(condition) = &self.case.conditions[variable] else { return true };
        let mut with = taken.clone();
        with.push((at, variable, false));
        let scope = Scope {
            rows: self.rows,
            taken: &with,
            running: with.len(),
            number: Some(self.number),
            always_running: true,
        };
        scope.holds(condition) == Some(true)
    }

    /// Whether the row is too late for a match that has begun.
    fn is_over(&self, at: usize, taken: &Taken) -> bool {
        let first = taken.first().map_or(self.first, |(first, ..)| *first);
        let over = |within_s| self.rows[at].at_s - self.rows[first].at_s > within_s;
        self.case.within_s.is_some_and(over)
    }

    fn end(&self, taken: &Taken, at: usize, of: &[usize], none_of: &[usize], end: bool) {
        let kind = if at == self.rows.len() {
            Kind::Open
        } else if self.is_over(at, taken) {
            Kind::TimedOut
        } else {
            Kind::Failed
        };
        if !taken.is_empty() {
            self.ended.borrow_mut().push(Ended {
                taken: taken.clone(),
                kind,
                of: of.iter().copied().collect(),
                none_of: none_of.iter().copied().collect(),
                end,
            });
        }
    }

    /// Takes a row for a variable; none of `forbidden` may come before.
    fn take(
        &self,
        variable: usize,
        forbidden: &[usize],
        at: usize,
        taken: &Taken,
        hidden: bool,
        then: Then<'_>,
    ) -> bool {
        for row in at.. {
            if row == self.rows.len() || self.is_over(row, taken) {
                self.end(taken, row, &[variable], &[], false);
                return false;
            }
            if forbidden.iter().any(|other| self.holds(*other, row, taken)) {
                self.end(taken, row, &[], forbidden, false);
                return false;
            }
            let may_wait = !taken.is_empty() && self.case.contiguity != Contiguity::Strict;
            if self.holds(variable, row, taken) {
                let mut more = taken.clone();
                more.push((row, variable, hidden));
                if then(row + 1, &more) {
                    return true;
                }
                if !may_wait || self.case.contiguity != Contiguity::RelaxedAny {
                    return false;
                }
            } else if !may_wait {
                self.end(taken, row, &[variable], &[], false);
                return false;
            }
        }
        false
    }

    fn go(
        &self,
        pattern: &Pattern,
        forbidden: &[usize],
        at: usize,
        taken: &Taken,
        hidden: bool,
        then: Then<'_>,
    ) -> bool {
        self.tries.set(self.tries.get() + 1);
        if self.tries.get() > TRIES_MAX {
            return false;
        }
        match pattern {
            Pattern::Empty => then(at, taken),
            Pattern::Start => at == 0 && then(at, taken),
            Pattern::End if at == self.rows.len() => then(at, taken),
            Pattern::End => {
                self.end(taken, at, &[], &[], true);
                false
            }
            Pattern::Not(_) => unreachable!("it stands in sequences"),
            Pattern::Variable(variable) => self.take(*variable, forbidden, at, taken, hidden, then),
            Pattern::Concat(items) => self.all(items, forbidden, at, taken, hidden, then),
            Pattern::Alternation(items) => {
                items.iter().any(|item| self.go(item, forbidden, at, taken, hidden, &mut *then))
            }
            Pattern::Permute(items) => {
                let items: Vec<&Pattern> = items.iter().collect();
                self.any_order(&items, at, taken, hidden, then)
            }
            Pattern::Exclude(inner) => self.go(inner, forbidden, at, taken, true, then),
            Pattern::Repeat(inner, min, max, greedy) => {
                self.times(inner, 0, (*min, *max, *greedy), forbidden, at, taken, hidden, then)
            }
        }
    }

    pub(super) fn all(
        &self,
        items: &[Pattern],
        forbidden: &[usize],
        at: usize,
        taken: &Taken,
        hidden: bool,
        then: Then<'_>,
    ) -> bool {
        let Some((first, rest)) = items.split_first() else {
            return match forbidden.is_empty() {
                true => then(at, taken),
                false => self.none_follows(forbidden, at, taken) && then(at, taken),
            };
        };
        if let Pattern::Not(variable) = first {
            let mut forbidden = forbidden.to_vec();
            forbidden.push(*variable);
            return self.all(rest, &forbidden, at, taken, hidden, then);
        }
        self.go(first, forbidden, at, taken, hidden, &mut |at, taken| {
            self.all(rest, &[], at, taken, hidden, &mut *then)
        })
    }

    /// NOT at the end of the pattern.
    fn none_follows(&self, forbidden: &[usize], at: usize, taken: &Taken) -> bool {
        for row in at..self.rows.len() {
            if self.is_over(row, taken) {
                return true;
            }
            if forbidden.iter().any(|other| self.holds(*other, row, taken)) {
                self.end(taken, row, &[], forbidden, false);
                return false;
            }
            if self.case.contiguity == Contiguity::Strict {
                return true;
            }
        }
        true
    }

    fn any_order(
        &self,
        items: &[&Pattern],
        at: usize,
        taken: &Taken,
        hidden: bool,
        then: Then<'_>,
    ) -> bool {
        if items.is_empty() {
            return then(at, taken);
        }
        (0..items.len()).any(|index| {
            let mut rest = items.to_vec();
            let first = rest.remove(index);
            self.go(first, &[], at, taken, hidden, &mut |at, taken| {
                self.any_order(&rest, at, taken, hidden, &mut *then)
            })
        })
    }

    #[expect(clippy::too_many_arguments, reason = "one step of a search")]
    fn times(
        &self,
        inner: &Pattern,
        count: u32,
        bounds: (u32, Option<u32>, bool),
        forbidden: &[usize],
        at: usize,
        taken: &Taken,
        hidden: bool,
        then: Then<'_>,
    ) -> bool {
        let (min, max, greedy) = bounds;
        let more = |then: Then<'_>| {
            if max.is_some_and(|max| count >= max) {
                return false;
            }
            let before = taken.len();
            self.go(inner, forbidden, at, taken, hidden, &mut |at, taken| {
                // An iteration beyond the least number takes rows.
                if count >= min && taken.len() == before {
                    return false;
                }
                self.times(inner, count + 1, bounds, &[], at, taken, hidden, &mut *then)
            })
        };
        if count < min {
            return more(then);
        }
        match greedy {
            true => more(&mut *then) || then(at, taken),
            false => then(at, taken) || more(then),
        }
    }
}
