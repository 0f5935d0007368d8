//! SELECT against a reference that tries everything, straight from the definitions: of a beginning,
//! the first match in order of preference; measures of the rows that were taken.
//!
//! Patterns have all of the grammar, and NOT, relaxed contiguity, WITHIN, timeout rows and partial
//! matches; conditions and measures read rows of variables and unions, with offsets, distances,
//! RUNNING and FINAL, and aggregate them. The reference knows neither automata nor registers.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt::Write as _;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Ways that are tried for one beginning; a case with more is left out.
const TRIES_MAX: usize = 20_000;
const LETTERS: [&str; 3] = ["a", "b", "c"];

/// A set of rows of the match: a variable, the union u = (a, b), or all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Variable(usize),
    Union,
    All,
}

impl Of {
    fn contains(self, variable: usize) -> bool {
        match self {
            Of::Variable(own) => own == variable,
            Of::Union => variable < 2,
            Of::All => true,
        }
    }

    fn prefix(self) -> String {
        match self {
            Of::Variable(own) => format!("{}.", LETTERS[own]),
            Of::Union => "u.".to_owned(),
            Of::All => String::new(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Of::Variable(own) => LETTERS[own],
            Of::Union => "u",
            Of::All => "",
        }
    }
}

#[derive(Clone)]
enum Pattern {
    Empty,
    Variable(usize),
    Concat(Vec<Pattern>),
    Alternation(Vec<Pattern>),
    Permute(Vec<Pattern>),
    Repeat(Box<Pattern>, u32, Option<u32>, bool),
    Exclude(Box<Pattern>),
    Start,
    End,
    Not(usize),
}

impl Pattern {
    fn sql(&self) -> String {
        let list = |items: &[Pattern], between: &str| {
            items.iter().map(Pattern::sql).collect::<Vec<_>>().join(between)
        };
        match self {
            Pattern::Empty => "()".to_owned(),
            Pattern::Variable(variable) => LETTERS[*variable].to_owned(),
            Pattern::Concat(items) => format!("({})", list(items, " ")),
            Pattern::Alternation(items) => format!("({})", list(items, " | ")),
            Pattern::Permute(items) => format!("PERMUTE({})", list(items, ", ")),
            Pattern::Repeat(inner, min, max, greedy) => {
                let bounds = match max {
                    Some(max) if max == min => format!("{{{min}}}"),
                    Some(max) => format!("{{{min},{max}}}"),
                    None => format!("{{{min},}}"),
                };
                format!("({}){bounds}{}", inner.sql(), if *greedy { "" } else { "?" })
            }
            Pattern::Exclude(inner) => format!("{{- {} -}}", inner.sql()),
            Pattern::Start => "^".to_owned(),
            Pattern::End => "$".to_owned(),
            Pattern::Not(variable) => format!("NOT {}", LETTERS[*variable]),
        }
    }

    /// The variables in it.
    fn names(&self, into: &mut BTreeSet<usize>) {
        match self {
            Pattern::Variable(variable) | Pattern::Not(variable) => {
                into.insert(*variable);
            }
            Pattern::Concat(items) | Pattern::Alternation(items) | Pattern::Permute(items) => {
                items.iter().for_each(|item| item.names(into));
            }
            Pattern::Repeat(inner, ..) | Pattern::Exclude(inner) => inner.names(into),
            Pattern::Empty | Pattern::Start | Pattern::End => {}
        }
    }

    fn order(&self, into: &mut Vec<usize>) {
        match self {
            Pattern::Variable(variable) | Pattern::Not(variable) => {
                if !into.contains(variable) {
                    into.push(*variable);
                }
            }
            Pattern::Concat(items) | Pattern::Alternation(items) | Pattern::Permute(items) => {
                items.iter().for_each(|item| item.order(into));
            }
            Pattern::Repeat(inner, ..) | Pattern::Exclude(inner) => inner.order(into),
            Pattern::Empty | Pattern::Start | Pattern::End => {}
        }
    }

    fn excludes(&self) -> bool {
        match self {
            Pattern::Exclude(_) => true,
            Pattern::Concat(items) | Pattern::Alternation(items) | Pattern::Permute(items) => {
                items.iter().any(Pattern::excludes)
            }
            Pattern::Repeat(inner, ..) => inner.excludes(),
            _ => false,
        }
    }
}

/// Which row of the match, and which row beside it.
#[derive(Clone, Copy)]
struct Place {
    of: Of,
    first: bool,
    offset: usize,
    shift: i64,
    /// Asked for; else as the place in the statement has it.
    running: Option<bool>,
}

impl Place {
    /// `read` is what stands within FIRST or LAST.
    fn sql(&self, read: &str) -> String {
        let mark = match self.running {
            None => "",
            Some(true) => "RUNNING ",
            Some(false) => "FINAL ",
        };
        let plain = !self.first && self.offset == 0 && self.running.is_none();
        let inner = match (plain, self.offset) {
            (true, _) => read.to_owned(),
            (_, 0) => format!("{mark}{}({read})", if self.first { "FIRST" } else { "LAST" }),
            (_, n) => format!("{mark}{}({read}, {n})", if self.first { "FIRST" } else { "LAST" }),
        };
        match self.shift {
            0 => inner,
            1 => format!("NEXT({inner})"),
            -1 => format!("PREV({inner})"),
            n if n > 0 => format!("NEXT({inner}, {n})"),
            n => format!("PREV({inner}, {})", -n),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Function {
    CountRows,
    Count,
    CountDistinct,
    Sum,
    Min,
    Max,
}

#[derive(Clone)]
enum Number {
    Constant(i64),
    V(Place),
    Id(Place),
    /// With the least value that counts, and the variable whose rows count.
    Aggregate(Function, Of, Option<i64>, Option<usize>, Option<bool>),
    OfMatch,
    Sum(Box<Number>, Box<Number>),
}

impl Number {
    fn sql(&self) -> String {
        match self {
            Number::Constant(value) => value.to_string(),
            Number::V(place) => place.sql(&format!("{}v", place.of.prefix())),
            Number::Id(place) => place.sql(&format!("{}id", place.of.prefix())),
            Number::Aggregate(function, of, least, variable, running) => {
                let v = format!("{}v", of.prefix());
                let call = match function {
                    Function::CountRows if *of == Of::All => "count(*)".to_owned(),
                    Function::CountRows => format!("count({}*)", of.prefix()),
                    Function::Count => format!("count({v})"),
                    Function::CountDistinct => format!("count(DISTINCT {v})"),
                    Function::Sum => format!("sum({v})"),
                    Function::Min => format!("min({v})"),
                    Function::Max => format!("max({v})"),
                };
                let mut filters = Vec::new();
                filters.extend(least.map(|least| format!("{v} >= {least}")));
                filters.extend(variable.map(|variable| {
                    format!("CLASSIFIER({}) = '{}'", of.name(), LETTERS[variable])
                }));
                let mark = match running {
                    None => "",
                    Some(true) => "RUNNING ",
                    Some(false) => "FINAL ",
                };
                match filters.is_empty() {
                    true => format!("{mark}{call}"),
                    false => format!("{mark}{call} FILTER (WHERE {})", filters.join(" AND ")),
                }
            }
            Number::OfMatch => "MATCH_NUMBER()".to_owned(),
            Number::Sum(left, right) => format!("({} + {})", left.sql(), right.sql()),
        }
    }
}

#[derive(Clone)]
enum Condition {
    Compare(Number, &'static str, Number),
    IsNull(Number),
    Or(Box<Condition>, Box<Condition>),
    And(Box<Condition>, Box<Condition>),
    Not(Box<Condition>),
    Classifier(Place, usize),
}

impl Condition {
    fn sql(&self) -> String {
        match self {
            Condition::Compare(left, op, right) => {
                format!("{} {op} {}", left.sql(), right.sql())
            }
            Condition::IsNull(number) => format!("{} IS NULL", number.sql()),
            Condition::Or(left, right) => format!("({} OR {})", left.sql(), right.sql()),
            Condition::And(left, right) => format!("({} AND {})", left.sql(), right.sql()),
            Condition::Not(inner) => format!("NOT ({})", inner.sql()),
            Condition::Classifier(place, variable) => {
                let read = format!("CLASSIFIER({})", place.of.name());
                format!("{} = '{}'", place.sql(&read), LETTERS[*variable])
            }
        }
    }
}

#[derive(Clone)]
enum Measure {
    Number(Number),
    Holds(Condition),
    Classifier(Place),
    Labels(Of, Option<bool>),
    /// The ids of rows by v.
    Ids(Of, Option<bool>),
    TimedOut,
    State,
    WaitedFor,
}

impl Measure {
    fn sql(&self) -> String {
        let mark = |running: &Option<bool>| match running {
            None => "",
            Some(true) => "RUNNING ",
            Some(false) => "FINAL ",
        };
        match self {
            Measure::Number(number) => number.sql(),
            Measure::Holds(condition) => format!("({})", condition.sql()),
            Measure::Classifier(place) => place.sql(&format!("CLASSIFIER({})", place.of.name())),
            Measure::Labels(of, running) => {
                format!("{}string_agg(CLASSIFIER({}), '')", mark(running), of.name())
            }
            Measure::Ids(of, running) => {
                let prefix = of.prefix();
                format!("{}array_agg({prefix}id ORDER BY {prefix}v, {prefix}id)", mark(running))
            }
            Measure::TimedOut => "MATCH_TIMED_OUT()".to_owned(),
            Measure::State => "MATCH_STATE()".to_owned(),
            Measure::WaitedFor => "MATCH_WAITED_FOR()".to_owned(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Contiguity {
    Strict,
    Relaxed,
    RelaxedAny,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum RowsPerMatch {
    One,
    ShowEmpty,
    OmitEmpty,
    WithUnmatched,
}

#[derive(Clone, Copy)]
enum Skip {
    PastLastRow,
    ToNextRow,
    ToFirst(Of),
    ToLast(Of),
}

#[derive(Clone, Copy)]
struct Row {
    id: i64,
    at_s: i64,
    v: Option<i64>,
}

pub struct Case {
    pattern: Pattern,
    contiguity: Contiguity,
    conditions: [Option<Condition>; 3],
    measures: Vec<Measure>,
    rows_per_match: RowsPerMatch,
    skip: Skip,
    within_s: Option<i64>,
    timeout_rows: bool,
    partial_rows: bool,
    partitions: Vec<Vec<Row>>,
}

impl Case {
    pub fn sql(&self) -> String {
        let mut values = Vec::new();
        for (p, rows) in self.partitions.iter().enumerate() {
            for Row { id, at_s, v } in rows {
                let v = v.map_or("NULL::int".to_owned(), |v| v.to_string());
                values.push(format!("({p}, {id}, '2026-01-01 10:00:{at_s:02}'::timestamp, {v})"));
            }
        }
        // In no order.
        values.reverse();
        let measures = self.measures.iter().enumerate();
        let measures = measures.map(|(i, m)| format!("({})::text AS m{i}", m.sql()));
        let names: Vec<String> = (0..self.measures.len()).map(|i| format!("m{i}")).collect();
        let rows = match self.rows_per_match {
            RowsPerMatch::One => "ONE ROW PER MATCH",
            RowsPerMatch::ShowEmpty => "ALL ROWS PER MATCH SHOW EMPTY MATCHES",
            RowsPerMatch::OmitEmpty => "ALL ROWS PER MATCH OMIT EMPTY MATCHES",
            RowsPerMatch::WithUnmatched => "ALL ROWS PER MATCH WITH UNMATCHED ROWS",
        };
        let id = if self.rows_per_match == RowsPerMatch::One { "" } else { ", id" };
        let skip = match self.skip {
            Skip::PastLastRow => "PAST LAST ROW".to_owned(),
            Skip::ToNextRow => "TO NEXT ROW".to_owned(),
            Skip::ToFirst(of) => format!("TO FIRST {}", of.name()),
            Skip::ToLast(of) => format!("TO LAST {}", of.name()),
        };
        let contiguity = match self.contiguity {
            Contiguity::Strict => "",
            Contiguity::Relaxed => "RELAXED ",
            Contiguity::RelaxedAny => "RELAXED ANY ",
        };
        let mut behind = String::new();
        if let Some(within_s) = self.within_s {
            let _ = write!(behind, " WITHIN INTERVAL '{within_s}' SECOND");
        }
        behind.push_str(if self.timeout_rows { " EMIT TIMEOUT ROWS" } else { "" });
        behind.push_str(if self.partial_rows { " EMIT PARTIAL MATCHES" } else { "" });
        let defined = self.conditions.iter().zip(LETTERS);
        let defined =
            defined.filter_map(|(c, name)| Some(format!("{name} AS {}", c.as_ref()?.sql())));
        let defined: Vec<String> = defined.collect();
        let define = match defined.is_empty() {
            true => String::new(),
            false => format!(" DEFINE {}", defined.join(", ")),
        };
        format!(
            "SELECT p{id}, {} FROM (SELECT * FROM (VALUES {}) AS d(p, id, at, v)) AS d \
             MATCH_RECOGNIZE (PARTITION BY p ORDER BY at, id MEASURES {} {rows} \
             AFTER MATCH SKIP {skip} PATTERN {contiguity}({}){behind} SUBSET u = (a, b){define})",
            names.join(", "),
            values.join(", "),
            measures.collect::<Vec<_>>().join(", "),
            self.pattern.sql()
        )
    }
}

// What it should give.

/// Rows of a match: the row, its variable, whether it is hidden.
type Taken = Vec<(usize, usize, bool)>;
type Then<'a> = &'a mut dyn FnMut(usize, &Taken) -> bool;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Match,
    TimedOut,
    Failed,
    Open,
}

/// How a way ended that is no match.
struct Ended {
    taken: Taken,
    kind: Kind,
    of: BTreeSet<usize>,
    none_of: BTreeSet<usize>,
    end: bool,
}

struct Search<'a> {
    case: &'a Case,
    rows: &'a [Row],
    /// Where the match begins.
    first: usize,
    number: i64,
    tries: Cell<usize>,
    ended: RefCell<Vec<Ended>>,
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

    fn all(
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

/// What an expression sees.
struct Scope<'a> {
    rows: &'a [Row],
    taken: &'a Taken,
    /// How many of the rows are up to the current one.
    running: usize,
    number: Option<i64>,
    /// Without FINAL.
    always_running: bool,
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

    fn holds(&self, condition: &Condition) -> Option<bool> {
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

    fn measure(&self, measure: &Measure, found: &Found, order: &[usize]) -> String {
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

// Cases.

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
            let mut names = BTreeSet::new();
            pattern.names(&mut names);
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
