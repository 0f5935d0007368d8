//! How far before a match its conditions and measures look.
//!
//! A stream forgets the rows before the first beginning that is not decided. PREV in a condition of
//! a variable that never stands first (`down AS price < PREV(price)` of `strt down+ up+`) stays
//! within the match: so many rows fewer are kept before it, and a partition in which nothing is
//! under way keeps nothing at all.

use crate::plan::match_recognize::{
    MatchColumn, MatchSpec, Pattern, Predicate, Read, RowRead, Variables,
};

impl MatchSpec {
    /// How many rows before a match's first row conditions and measures look at most.
    pub fn rows_before(&self) -> u64 {
        rows_before(self)
    }
}

impl Pattern {
    /// Of each variable, how many rows of a match stand before it at least.
    pub fn rows_before_each(&self, variables: usize) -> Vec<u64> {
        let mut least = vec![u64::MAX; variables];
        place(self, 0, &mut least);
        least
    }

    /// Whether `^` stands somewhere.
    pub fn has_start(&self) -> bool {
        match self {
            Pattern::Start => true,
            Pattern::Concat(items) | Pattern::Alternation(items) | Pattern::Permute(items) => {
                items.iter().any(Pattern::has_start)
            }
            Pattern::Repeat { inner, .. } | Pattern::Exclude(inner) => inner.has_start(),
            Pattern::Empty | Pattern::Variable(_) | Pattern::End | Pattern::Not(_) => false,
        }
    }
}

fn rows_before(spec: &MatchSpec) -> u64 {
    if spec.frame.is_some() {
        // Rows before the current one are outside.
        return 0;
    }
    let least = match spec.pattern_from {
        // Any of them may stand first.
        Some(_) => vec![0; spec.variables.len()],
        None => spec.pattern.rows_before_each(spec.variables.len()),
    };
    let of_condition = |variable: usize, predicate: &Predicate| {
        let reads = predicate.reads.iter().map(|read| match &spec.reads[*read] {
            Read::Row(row) if row.is_near(variable) => beyond(row, least[variable]),
            Read::Row(row) => beyond(row, least_of(&least, row.of)),
            _ => 0,
        });
        reads.max().unwrap_or(0)
    };
    let conditions = spec.conditions.iter().enumerate().flat_map(|(variable, condition)| {
        let parts = condition.iter().flat_map(|c| [&c.near, &c.far]).flatten();
        parts.map(move |part| (variable, part))
    });
    let measures = spec.columns.iter().map(|column| match column {
        MatchColumn::Read(read) => match &spec.reads[*read] {
            Read::Row(row) => beyond(row, least_of(&least, row.of)),
            _ => 0,
        },
        MatchColumn::Input(_) => 0,
    });
    let conditions = conditions.map(|(variable, part)| of_condition(variable, part));
    conditions.chain(measures).max().unwrap_or(0)
}

/// How far before the match a read looks whose row has at least so many rows before it.
fn beyond(read: &RowRead, rows: u64) -> u64 {
    read.shift.min(0).unsigned_abs().saturating_sub(rows)
}

/// The least number of rows before one of these variables.
fn least_of(least: &[u64], of: Variables) -> u64 {
    let own = least.iter().enumerate().filter(|(variable, _)| of.contains(*variable));
    own.map(|(_, rows)| *rows).min().unwrap_or(0)
}

/// Notes the least number of rows of a match before each variable, `before` being that before the
/// pattern; gives the least number of rows that the pattern itself takes.
fn place(pattern: &Pattern, before: u64, least: &mut [u64]) -> u64 {
    match pattern {
        Pattern::Empty | Pattern::Start | Pattern::End => 0,
        Pattern::Variable(variable) => {
            least[*variable] = least[*variable].min(before);
            1
        }
        // Looked at, but not taken.
        Pattern::Not(variable) => {
            least[*variable] = least[*variable].min(before);
            0
        }
        Pattern::Concat(items) => {
            items.iter().fold(0, |rows, item| rows + place(item, before + rows, least))
        }
        Pattern::Alternation(items) => {
            items.iter().map(|item| place(item, before, least)).min().unwrap_or(0)
        }
        // Each of them may stand first.
        Pattern::Permute(items) => items.iter().map(|item| place(item, before, least)).sum(),
        Pattern::Repeat { inner, min, .. } => {
            place(inner, before, least).saturating_mul(u64::from(*min))
        }
        Pattern::Exclude(inner) => place(inner, before, least),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repeat(inner: Pattern, min: u32, max: Option<u32>) -> Pattern {
        Pattern::Repeat { inner: Box::new(inner), min, max, greedy: true }
    }

    #[test]
    fn variables_stand_behind_what_must_come_before_them() {
        use Pattern::{Alternation, Concat, Permute, Variable};
        let of = |pattern: &Pattern| {
            let mut least = vec![u64::MAX; 3];
            let rows = place(pattern, 0, &mut least);
            (rows, least)
        };
        // A B+ C
        let pattern = Concat(vec![Variable(0), repeat(Variable(1), 1, None), Variable(2)]);
        assert_eq!(of(&pattern), (3, vec![0, 1, 2]));
        // (A | B C) C{0,2}
        let pattern = Concat(vec![
            Alternation(vec![Variable(0), Concat(vec![Variable(1), Variable(2)])]),
            repeat(Variable(2), 0, Some(2)),
        ]);
        assert_eq!(of(&pattern), (1, vec![0, 0, 1]));
        // PERMUTE(A, B{2}) C
        let pattern =
            Concat(vec![Permute(vec![Variable(0), repeat(Variable(1), 2, Some(2))]), Variable(2)]);
        assert_eq!(of(&pattern), (4, vec![0, 0, 3]));
    }
}
