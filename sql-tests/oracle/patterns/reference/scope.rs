//! What expressions give of the rows that were taken.

use std::collections::BTreeSet;

use super::Found;
use super::case::Row;
use super::expression::{Condition, Function, Measure, Number, Place};
use super::pattern::{LETTERS, Of};
use super::search::{Kind, Taken};

/// What an expression sees.
pub(super) struct Scope<'a> {
    pub(super) rows: &'a [Row],
    pub(super) taken: &'a Taken,
    /// How many of the rows are up to the current one.
    pub(super) running: usize,
    pub(super) number: Option<i64>,
    /// Without FINAL.
    pub(super) always_running: bool,
}

impl Scope<'_> {
    fn own(&self, of: Of, running: Option<bool>) -> Vec<(usize, usize)> {
        let running = running.unwrap_or(self.always_running);
        let until = if running { self.running } else { self.taken.len() };
        let own = self.taken[..until].iter().filter(|(_, variable, _)| of.contains(*variable));
        own.map(|(row, variable, _)| (*row, *variable)).collect()
    }

    fn row(&self, place: &Place) -> Option<usize> {
        let own = self.own(place.of, place.running);
        let nth = match place.first {
            true => Some(place.offset).filter(|nth| *nth < own.len()),
            false => (own.len()).checked_sub(place.offset + 1),
        };
        let row = own[nth?].0 as i64 + place.shift;
        usize::try_from(row).ok().filter(|row| *row < self.rows.len())
    }

    fn label(&self, place: &Place) -> Option<usize> {
        let row = self.row(place)?;
        self.taken.iter().find(|(taken, ..)| *taken == row).map(|(_, variable, _)| *variable)
    }

    fn number(&self, number: &Number) -> Option<i64> {
        match number {
            Number::Constant(value) => Some(*value),
            Number::V(place) => self.rows[self.row(place)?].v,
            Number::Id(place) => Some(self.rows[self.row(place)?].id),
            Number::OfMatch => self.number,
            Number::Sum(left, right) => Some(self.number(left)? + self.number(right)?),
            Number::Aggregate(function, of, least, variable, running) => {
                let mut own = self.own(*of, *running);
                own.retain(|(row, own)| {
                    let v = self.rows[*row].v;
                    least.is_none_or(|least| v.is_some_and(|v| v >= least))
                        && variable.is_none_or(|variable| variable == *own)
                });
                let values: Vec<i64> =
                    own.iter().filter_map(|(row, _)| self.rows[*row].v).collect();
                match function {
                    Function::CountRows => Some(own.len() as i64),
                    Function::Count => Some(values.len() as i64),
                    Function::CountDistinct => {
                        Some(values.iter().collect::<BTreeSet<_>>().len() as i64)
                    }
                    Function::Sum => (!values.is_empty()).then(|| values.iter().sum()),
                    Function::Min => values.iter().min().copied(),
                    Function::Max => values.iter().max().copied(),
                }
            }
        }
    }

    pub(super) fn holds(&self, condition: &Condition) -> Option<bool> {
        match condition {
            Condition::Compare(left, op, right) => {
                let (left, right) = (self.number(left)?, self.number(right)?);
                Some(match *op {
                    "<" => left < right,
                    "<=" => left <= right,
                    ">" => left > right,
                    "=" => left == right,
                    _ => left != right,
                })
            }
            Condition::IsNull(number) => Some(self.number(number).is_none()),
            Condition::Not(inner) => self.holds(inner).map(|holds| !holds),
            Condition::Or(left, right) => match (self.holds(left), self.holds(right)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            Condition::And(left, right) => match (self.holds(left), self.holds(right)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Condition::Classifier(place, variable) => Some(self.label(place)? == *variable),
        }
    }

    pub(super) fn measure(&self, measure: &Measure, found: &Found, order: &[usize]) -> String {
        let null = || "NULL".to_owned();
        let truth = |holds: bool| if holds { "true" } else { "false" }.to_owned();
        match measure {
            Measure::Number(number) => self.number(number).map_or_else(null, |n| n.to_string()),
            Measure::Holds(condition) => self.holds(condition).map_or_else(null, truth),
            Measure::Classifier(place) => {
                self.label(place).map_or_else(null, |variable| LETTERS[variable].to_owned())
            }
            Measure::Labels(of, running) => {
                let own = self.own(*of, *running);
                match own.is_empty() {
                    true => null(),
                    false => own.iter().map(|(_, variable)| LETTERS[*variable]).collect(),
                }
            }
            Measure::Ids(of, running) => {
                let mut own: Vec<Row> =
                    self.own(*of, *running).iter().map(|(row, _)| self.rows[*row]).collect();
                own.sort_by_key(|row| (row.v.is_none(), row.v, row.id));
                let ids: Vec<String> = own.iter().map(|row| row.id.to_string()).collect();
                if ids.is_empty() { null() } else { format!("{{{}}}", ids.join(",")) }
            }
            Measure::TimedOut => truth(found.kind == Kind::TimedOut),
            Measure::State => match found.kind {
                Kind::Match => "complete",
                Kind::TimedOut => "timed out",
                Kind::Failed => "failed",
                Kind::Open => "open",
            }
            .to_owned(),
            Measure::WaitedFor => {
                let (of, none_of, end) = &found.waits;
                let own = |set: &BTreeSet<usize>, before: &str| -> Vec<String> {
                    let own = order.iter().filter(|variable| set.contains(variable));
                    own.map(|variable| format!("{before}{}", LETTERS[*variable])).collect()
                };
                let mut texts = own(of, "");
                texts.extend(own(none_of, "NOT "));
                texts.extend(end.then(|| "$".to_owned()));
                if texts.is_empty() { null() } else { texts.join(" or ") }
            }
        }
    }
}
