//! Conditions and measures: what they say in SQL.

use super::pattern::{LETTERS, Of};

/// What stands before a row or an aggregate that is asked for as it is now, or as it is at the end.
fn mark(running: Option<bool>) -> &'static str {
    match running {
        None => "",
        Some(true) => "RUNNING ",
        Some(false) => "FINAL ",
    }
}

/// Which row of the match, and which row beside it.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) of: Of,
    pub(super) first: bool,
    pub(super) offset: usize,
    pub(super) shift: i64,
    /// Asked for; else as the place in the statement has it.
    pub(super) running: Option<bool>,
}

impl Place {
    /// `read` is what stands within FIRST or LAST.
    pub(super) fn sql(&self, read: &str) -> String {
        let mark = mark(self.running);
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
pub(super) enum Function {
    CountRows,
    Count,
    CountDistinct,
    Sum,
    Min,
    Max,
}

#[derive(Clone)]
pub(super) enum Number {
    Constant(i64),
    V(Place),
    Id(Place),
    /// With the least value that counts, and the variable whose rows count.
    Aggregate(Function, Of, Option<i64>, Option<usize>, Option<bool>),
    OfMatch,
    Sum(Box<Number>, Box<Number>),
}

impl Number {
    pub(super) fn sql(&self) -> String {
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
                let mark = mark(*running);
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
pub(super) enum Condition {
    Compare(Number, &'static str, Number),
    IsNull(Number),
    Or(Box<Condition>, Box<Condition>),
    And(Box<Condition>, Box<Condition>),
    Not(Box<Condition>),
    Classifier(Place, usize),
}

impl Condition {
    pub(super) fn sql(&self) -> String {
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
pub(super) enum Measure {
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
    pub(super) fn sql(&self) -> String {
        match self {
            Measure::Number(number) => number.sql(),
            Measure::Holds(condition) => format!("({})", condition.sql()),
            Measure::Classifier(place) => place.sql(&format!("CLASSIFIER({})", place.of.name())),
            Measure::Labels(of, running) => {
                format!("{}string_agg(CLASSIFIER({}), '')", mark(*running), of.name())
            }
            Measure::Ids(of, running) => {
                let prefix = of.prefix();
                format!("{}array_agg({prefix}id ORDER BY {prefix}v, {prefix}id)", mark(*running))
            }
            Measure::TimedOut => "MATCH_TIMED_OUT()".to_owned(),
            Measure::State => "MATCH_STATE()".to_owned(),
            Measure::WaitedFor => "MATCH_WAITED_FOR()".to_owned(),
        }
    }
}
