//! Cases by chance.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::case::{Case, Contiguity, Row, RowsPerMatch, Skip};
use super::expression::{Condition, Function, Measure, Number, Place};
use super::pattern::{Of, Pattern};

/// A case, always the same for a seed.
pub fn draw(seed: u64) -> Case {
    let mut random = StdRng::seed_from_u64(seed);
    let mut draw = Draw { random: &mut random, contiguity: Contiguity::Strict };
    draw.case()
}

struct Draw<'a> {
    random: &'a mut StdRng,
    contiguity: Contiguity,
}

impl Draw<'_> {
    fn below(&mut self, bound: usize) -> usize {
        self.random.random_range(0..bound)
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        *list.choose(self.random).expect("not empty")
    }

    fn case(&mut self) -> Case {
        let contiguity = match self.below(4) {
            0 => Contiguity::Relaxed,
            1 if self.chance(50) => Contiguity::RelaxedAny,
            _ => Contiguity::Strict,
        };
        self.contiguity = contiguity;
        let mut pattern = loop {
            let pattern = self.pattern(3);
            let mut names = Vec::new();
            pattern.order(&mut names);
            // DEFINE and SUBSET name them all.
            if names.len() == 3 {
                break pattern;
            }
        };
        if self.chance(15) {
            let items = match pattern {
                Pattern::Concat(items) => items,
                other => vec![other],
            };
            let absent = (0..1 + self.below(2)).map(|_| Pattern::Not(self.below(3)));
            let absent: Vec<Pattern> = absent.collect();
            pattern = Pattern::Concat(items.into_iter().chain(absent).collect());
        }
        let within_s = self.chance(35).then(|| self.pick(&[0, 2, 5, 20]));
        let timeout_rows = within_s.is_some() && self.chance(40);
        // Relaxed ones end in more ways than can be said in short.
        let partial_rows = contiguity == Contiguity::Strict && self.chance(20);
        let kinds = if pattern.excludes() { 3 } else { 4 };
        let rows_per_match = match self.below(kinds + 2) {
            0 => RowsPerMatch::OmitEmpty,
            1 | 2 => RowsPerMatch::ShowEmpty,
            5 => RowsPerMatch::WithUnmatched,
            _ => RowsPerMatch::One,
        };
        let skip = match self.below(8) {
            0..=3 => Skip::PastLastRow,
            4 | 5 => Skip::ToNextRow,
            6 => Skip::ToFirst(self.of_variables()),
            _ => Skip::ToLast(self.of_variables()),
        };
        let conditions = std::array::from_fn(|_| self.chance(80).then(|| self.condition(1, false)));
        let measures = (0..1 + self.below(4)).map(|_| self.measure()).collect();
        let mut id = 0;
        let partitions = (0..1 + self.below(2)).map(|_| self.rows(&mut id)).collect();
        Case {
            pattern,
            contiguity,
            conditions,
            measures,
            rows_per_match,
            skip,
            within_s,
            timeout_rows,
            partial_rows,
            partitions,
        }
    }

    fn rows(&mut self, id: &mut i64) -> Vec<Row> {
        let mut at_s = 0;
        let count = 1 + self.below(8);
        let rows = (0..count).map(|_| {
            *id += 1;
            at_s += self.pick(&[0, 1, 1, 2, 5]);
            let v = (!self.chance(10)).then(|| self.below(5) as i64);
            Row { id: *id, at_s, v }
        });
        rows.collect()
    }

    fn pattern(&mut self, depth: u32) -> Pattern {
        if depth == 0 {
            return match self.below(16) {
                0 => Pattern::Empty,
                1 => Pattern::Start,
                2 => Pattern::End,
                n => Pattern::Variable(n % 3),
            };
        }
        match self.below(11) {
            0..=3 => {
                let mut items = Vec::new();
                for _ in 0..2 + self.below(2) {
                    let item = self.pattern(depth - 1);
                    // NOT stands before what takes a row.
                    if matches!(item, Pattern::Variable(_)) && self.chance(8) {
                        items.push(Pattern::Not(self.below(3)));
                    }
                    items.push(item);
                }
                Pattern::Concat(items)
            }
            4 | 5 => Pattern::Alternation(self.patterns(depth)),
            6 => Pattern::Permute(self.patterns(depth)),
            7 => Pattern::Exclude(Box::new(self.pattern(depth - 1))),
            8 => self.pattern(0),
            _ => {
                let inner = loop {
                    let inner = self.pattern(depth - 1);
                    // An anchor is not repeated.
                    if !matches!(inner, Pattern::Start | Pattern::End) {
                        break Box::new(inner);
                    }
                };
                let min = self.below(3) as u32;
                let max = match self.below(3) {
                    0 => None,
                    _ => Some((min + self.below(3) as u32).max(1)),
                };
                // The standard has no {n}?.
                let greedy = max == Some(min) || self.chance(60);
                Pattern::Repeat(inner, min, max, greedy)
            }
        }
    }

    fn patterns(&mut self, depth: u32) -> Vec<Pattern> {
        (0..2 + self.below(2)).map(|_| self.pattern(depth - 1)).collect()
    }

    fn of_variables(&mut self) -> Of {
        match self.below(4) {
            3 => Of::Union,
            variable => Of::Variable(variable),
        }
    }

    fn of(&mut self) -> Of {
        if self.chance(35) { Of::All } else { self.of_variables() }
    }

    /// RUNNING or FINAL, where they may be asked for.
    fn mark(&mut self, measure: bool) -> Option<bool> {
        match self.below(4) {
            0 if measure => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn place(&mut self, measure: bool) -> Place {
        Place {
            of: self.of(),
            first: self.chance(35),
            offset: self.pick(&[0, 0, 0, 1, 2]),
            shift: self.pick(&[0, 0, 0, -1, -1, -2, 1]),
            running: self.mark(measure),
        }
    }

    fn number(&mut self, depth: u32, measure: bool) -> Number {
        match self.below(10) {
            0 => Number::Constant(self.below(5) as i64),
            1..=4 => Number::V(self.place(measure)),
            5 => Number::Id(self.place(measure)),
            6 | 7 => {
                let functions = [
                    Function::CountRows,
                    Function::Count,
                    Function::CountDistinct,
                    Function::Sum,
                    Function::Min,
                    Function::Max,
                ];
                let (function, of) = (self.pick(&functions), self.of());
                let least = self.chance(25).then(|| self.below(4) as i64);
                let variable = self.chance(20).then(|| self.below(3));
                Number::Aggregate(function, of, least, variable, self.mark(measure))
            }
            8 if measure || self.chance(15) => Number::OfMatch,
            _ if depth > 0 => {
                let (left, right) = (self.number(0, measure), self.number(0, measure));
                Number::Sum(Box::new(left), Box::new(right))
            }
            _ => Number::V(self.place(measure)),
        }
    }

    fn condition(&mut self, depth: u32, measure: bool) -> Condition {
        match self.below(12) {
            0 if depth > 0 => {
                let (l, r) = (self.condition(0, measure), self.condition(0, measure));
                Condition::Or(Box::new(l), Box::new(r))
            }
            1 if depth > 0 => {
                let (l, r) = (self.condition(0, measure), self.condition(0, measure));
                Condition::And(Box::new(l), Box::new(r))
            }
            2 => Condition::IsNull(self.number(1, measure)),
            3 if depth > 0 => Condition::Not(Box::new(self.condition(0, measure))),
            4 => {
                let mut place = self.place(measure);
                if !measure {
                    // Of other places DEFINE knows no variable.
                    place.shift = 0;
                    let steps_back = place.of == Of::All && !place.first && place.offset == 0;
                    if steps_back && self.contiguity == Contiguity::Strict && self.chance(50) {
                        place.shift = -1;
                    }
                }
                Condition::Classifier(place, self.below(3))
            }
            _ => {
                let own = Place { of: Of::All, first: false, offset: 0, shift: 0, running: None };
                let left = if self.chance(60) { Number::V(own) } else { self.number(1, measure) };
                let op = self.pick(&["<", "<=", ">", "=", "<>"]);
                Condition::Compare(left, op, self.number(1, measure))
            }
        }
    }

    fn measure(&mut self) -> Measure {
        match self.below(12) {
            0 | 1 => Measure::Labels(self.of(), self.mark(true)),
            2 => Measure::Ids(self.of(), self.mark(true)),
            3 | 4 => Measure::Classifier(self.place(true)),
            5 => Measure::Holds(self.condition(1, true)),
            6 => Measure::TimedOut,
            7 => Measure::State,
            8 => Measure::WaitedFor,
            _ => Measure::Number(self.number(1, true)),
        }
    }
}
