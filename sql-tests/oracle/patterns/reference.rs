//! SELECT against a reference that tries everything, straight from the definitions: of a beginning,
//! the first match in order of preference; measures of the rows that were taken.
//!
//! Patterns have all of the grammar, and NOT, relaxed contiguity, WITHIN, timeout rows and partial
//! matches; conditions and measures read rows of variables and unions, with offsets, distances,
//! RUNNING and FINAL, and aggregate them. The reference knows neither automata nor registers.
//!
//! | file | owns |
//! |---|---|
//! | `reference/pattern.rs` | patterns, and sets of the rows that they take |
//! | `reference/expression.rs` | conditions and measures, in SQL |
//! | `reference/case.rs` | rows, and the statement over them |
//! | `reference/draw.rs` | cases by chance |
//! | `reference/search.rs` | all ways to take rows, the preferred first |
//! | `reference/scope.rs` | what conditions and measures give |

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

pub use self::case::Case;
use self::case::{Row, RowsPerMatch, Skip};
pub use self::draw::draw;
use self::pattern::Pattern;
use self::scope::Scope;
use self::search::{Ended, Kind, Search, TRIES_MAX, Taken};

mod case;
mod draw;
mod expression;
mod pattern;
mod scope;
mod search;

/// A match, or a partial one.
struct Found {
    kind: Kind,
    first: usize,
    taken: Taken,
    number: Option<i64>,
    waits: (BTreeSet<usize>, BTreeSet<usize>, bool),
}

/// What a case gives.
pub enum Expected {
    /// Rows as text, sorted.
    Rows(Vec<String>),
    /// SQLSTATEs, one of which it fails with.
    Error(BTreeSet<&'static str>),
    /// It is too large for the reference.
    Unknown,
}

impl Case {
    pub fn expected(&self) -> Expected {
        let (mut lines, mut errors) = (Vec::new(), BTreeSet::new());
        for (p, rows) in self.partitions.iter().enumerate() {
            let Some(found) = self.matches(rows, &mut errors) else { return Expected::Unknown };
            self.show(p, rows, &found, &mut lines);
        }
        if !errors.is_empty() {
            return Expected::Error(errors);
        }
        lines.sort_unstable();
        Expected::Rows(lines)
    }

    fn matches(&self, rows: &[Row], errors: &mut BTreeSet<&'static str>) -> Option<Vec<Found>> {
        let mut all = Vec::new();
        let (mut at, mut matches) = (0, 0);
        while at < rows.len() {
            let search = Search {
                case: self,
                rows,
                first: at,
                number: matches + 1,
                tries: Cell::new(0),
                ended: RefCell::default(),
            };
            let mut best = None;
            let items = std::slice::from_ref(&self.pattern);
            let items = match &self.pattern {
                Pattern::Concat(items) => items,
                _ => items,
            };
            search.all(items, &[], at, &vec![], false, &mut |_, taken| {
                best = Some(taken.clone());
                true
            });
            if search.tries.get() > TRIES_MAX {
                return None;
            }
            let Some(taken) = best else {
                all.extend(self.partial(at, search.ended.take()));
                at += 1;
                continue;
            };
            matches += 1;
            let first = at;
            at = self.next(first, &taken, errors);
            let waits = Default::default();
            all.push(Found { kind: Kind::Match, first, taken, number: Some(matches), waits });
        }
        Some(all)
    }

    /// Where the next match is looked for.
    fn next(&self, first: usize, taken: &Taken, errors: &mut BTreeSet<&'static str>) -> usize {
        let Some((last, ..)) = taken.last() else { return first + 1 };
        let target = match self.skip {
            Skip::PastLastRow => return last + 1,
            Skip::ToNextRow => return first + 1,
            Skip::ToFirst(of) => taken.iter().find(|(_, variable, _)| of.contains(*variable)),
            Skip::ToLast(of) => taken.iter().rfind(|(_, variable, _)| of.contains(*variable)),
        };
        match target {
            Some((row, ..)) if *row > first => return *row,
            Some(_) => errors.insert("2202L"),
            None => errors.insert("2202K"),
        };
        first + 1
    }

    /// What is told of a beginning without a match.
    fn partial(&self, first: usize, ended: Vec<Ended>) -> Option<Found> {
        if self.partial_rows {
            let longest = ended.iter().map(|one| one.taken.len()).max()?;
            let mut longest = ended.into_iter().filter(|one| one.taken.len() == longest);
            let one = longest.next()?;
            let mut waits = (one.of, one.none_of, one.end);
            for other in longest {
                waits.0.extend(other.of);
                waits.1.extend(other.none_of);
                waits.2 |= other.end;
            }
            return Some(Found { kind: one.kind, first, taken: one.taken, number: None, waits });
        }
        if self.timeout_rows {
            let one = ended.into_iter().find(|one| one.kind != Kind::Failed)?;
            let waits = Default::default();
            return Some(Found {
                kind: Kind::TimedOut,
                first,
                taken: one.taken,
                number: None,
                waits,
            });
        }
        None
    }

    fn show(&self, p: usize, rows: &[Row], found: &[Found], lines: &mut Vec<String>) {
        let mut order = Vec::new();
        self.pattern.order(&mut order);
        let all_rows = self.rows_per_match != RowsPerMatch::One;
        let mut line = |id: Option<i64>, measures: Vec<String>| {
            let mut line = vec![p.to_string()];
            line.extend(id.map(|id| id.to_string()));
            line.extend(measures);
            lines.push(line.join(" | "));
        };
        let mut covered = BTreeSet::new();
        for one in found {
            if one.kind == Kind::Match {
                covered.extend(one.taken.iter().map(|(row, ..)| *row));
                covered.extend(one.taken.is_empty().then_some(one.first));
            }
            let of = |running: usize| {
                let scope = Scope {
                    rows,
                    taken: &one.taken,
                    running,
                    number: one.number,
                    always_running: all_rows,
                };
                self.measures.iter().map(|m| scope.measure(m, one, &order)).collect::<Vec<_>>()
            };
            if !all_rows {
                line(None, of(one.taken.len()));
                continue;
            }
            if one.taken.is_empty() && self.rows_per_match != RowsPerMatch::OmitEmpty {
                line(Some(rows[one.first].id), of(0));
            }
            for (place, (row, _, hidden)) in one.taken.iter().enumerate() {
                if !hidden {
                    line(Some(rows[*row].id), of(place + 1));
                }
            }
        }
        if self.rows_per_match == RowsPerMatch::WithUnmatched {
            for (row, unmatched) in rows.iter().enumerate() {
                if !covered.contains(&row) {
                    line(Some(unmatched.id), vec!["NULL".to_owned(); self.measures.len()]);
                }
            }
        }
    }
}
