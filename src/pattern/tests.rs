//! The matcher against a reference that tries everything in the standard's order of preference.

use std::cell::Cell;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column};

use crate::pattern::found::{Found, HIDDEN, MatchKind};
use crate::pattern::kernel::Kernel;
use crate::pattern::matcher::Matcher;
use crate::pattern::rows::{PartitionRows, Rows};
use crate::pattern::scratch::Scratch;
use crate::plan::expr::Expr;
use crate::plan::match_recognize::{
    Condition, Contiguity, MatchSpec, Pattern, Predicate, Read, RowRead, RowValue, RowsPerMatch,
    Skip, Variables,
};

const VARIABLES: usize = 3;
const VALUE: usize = VARIABLES;

/// A generator of its own: the same cases at every run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A row: which variables it may be mapped to as such, and a value.
#[derive(Clone, Copy, Debug)]
struct Row {
    fits: [bool; VARIABLES],
    value: i64,
}

/// A far condition: the row's value is above, or not below, what is read.
#[derive(Clone, Debug)]
struct Far {
    read: RowRead,
    or_equal: bool,
    /// The number of the match is read instead.
    numbered: bool,
}

#[derive(Clone, Debug)]
struct Case {
    pattern: Pattern,
    near: [bool; VARIABLES],
    far: [Option<Far>; VARIABLES],
    skip: Skip,
    unmatched: bool,
    rows: Vec<Row>,
}

fn draw_pattern(draw: &mut Draw, depth: u32) -> Pattern {
    let items = |draw: &mut Draw| -> Vec<Pattern> {
        (0..2 + draw.below(2)).map(|_| draw_pattern(draw, depth - 1)).collect()
    };
    if depth == 0 {
        return match draw.below(14) {
            0 => Pattern::Empty,
            1 => Pattern::Start,
            2 => Pattern::End,
            n => Pattern::Variable(n as usize % VARIABLES),
        };
    }
    match draw.below(10) {
        0..=2 => Pattern::Concat(items(draw)),
        3 | 4 => Pattern::Alternation(items(draw)),
        5 => Pattern::Permute(items(draw)),
        6 => Pattern::Exclude(Box::new(draw_pattern(draw, depth - 1))),
        7 => draw_pattern(draw, 0),
        _ => {
            let inner = Box::new(draw_pattern(draw, depth - 1));
            let min = draw.below(3) as u32;
            let max = match draw.below(3) {
                0 => None,
                _ => Some((min + draw.below(3) as u32).max(1)),
            };
            Pattern::Repeat { inner, min, max, greedy: draw.chance(60) }
        }
    }
}

fn draw_case(draw: &mut Draw) -> Case {
    let pattern = draw_pattern(draw, 3);
    let far = |draw: &mut Draw| {
        draw.chance(25).then(|| Far {
            read: RowRead {
                value: RowValue::Column(VALUE),
                of: match draw.below(3) {
                    0 => Variables::ALL,
                    1 => Variables::one(draw.below(VARIABLES as u64) as usize),
                    _ => Variables(1 + draw.below(7)),
                },
                from_last: draw.chance(60),
                offset: draw.below(3),
                shift: draw.below(3) as i64 - 1,
                running: true,
            },
            or_equal: draw.chance(50),
            numbered: draw.chance(15),
        })
    };
    let skip = match draw.below(4) {
        0 | 1 => Skip::PastLastRow,
        2 => Skip::ToNextRow,
        _ => {
            let set = Variables(1 + draw.below(7));
            if draw.chance(50) { Skip::ToFirst(set) } else { Skip::ToLast(set) }
        }
    };
    let rows = (0..draw.below(8))
        .map(|_| Row {
            fits: std::array::from_fn(|_| draw.chance(60)),
            value: draw.below(4) as i64,
        })
        .collect();
    Case {
        pattern,
        near: std::array::from_fn(|_| draw.chance(80)),
        far: [far(draw), far(draw), far(draw)],
        skip,
        unmatched: draw.chance(50),
        rows,
    }
}

// The reference.

/// Rows of a match so far: row, variable, hidden.
type Taken = Vec<(usize, usize, bool)>;
/// What a step leads to; `true`: the match is complete, no other is tried.
type Then<'a> = &'a mut dyn FnMut(usize, &Taken) -> bool;

struct Reference<'a> {
    case: &'a Case,
    /// Of the match that is looked for.
    number: i64,
    tries: Cell<usize>,
}

impl Reference<'_> {
    fn holds(&self, variable: usize, at: usize, taken: &Taken) -> bool {
        let row = &self.case.rows[at];
        if self.case.near[variable] && !row.fits[variable] {
            return false;
        }
        let Some(Far { read, or_equal, numbered }) = &self.case.far[variable] else { return true };
        if *numbered {
            return row.value > self.number || (*or_equal && row.value == self.number);
        }
        let mut own: Vec<usize> =
            taken.iter().filter(|(_, v, _)| read.of.contains(*v)).map(|(row, _, _)| *row).collect();
        if read.of.contains(variable) {
            own.push(at);
        }
        let offset = read.offset as usize;
        let found = match read.from_last {
            true => own.len().checked_sub(1 + offset).map(|nth| own[nth]),
            false => own.get(offset).copied(),
        };
        let shifted = found.map(|row| row as i64 + read.shift);
        let other = shifted.and_then(|row| self.case.rows.get(usize::try_from(row).ok()?));
        other
            .is_some_and(|other| row.value > other.value || (*or_equal && row.value == other.value))
    }

    fn go(&self, p: &Pattern, at: usize, taken: &Taken, hidden: bool, then: Then<'_>) -> bool {
        self.tries.set(self.tries.get() + 1);
        if self.tries.get() > 20_000 {
            return false;
        }
        match p {
            Pattern::Empty => then(at, taken),
            Pattern::Start => at == 0 && then(at, taken),
            Pattern::End => at == self.case.rows.len() && then(at, taken),
            Pattern::Not(_) => unreachable!("the reference is of the standard"),
            Pattern::Variable(variable) => {
                if at == self.case.rows.len() || !self.holds(*variable, at, taken) {
                    return false;
                }
                let mut taken = taken.clone();
                taken.push((at, *variable, hidden));
                then(at + 1, &taken)
            }
            Pattern::Concat(items) => self.all(items, at, taken, hidden, then),
            Pattern::Alternation(items) => {
                items.iter().any(|item| self.go(item, at, taken, hidden, &mut *then))
            }
            Pattern::Permute(items) => {
                let items: Vec<&Pattern> = items.iter().collect();
                self.any_order(&items, at, taken, hidden, then)
            }
            Pattern::Exclude(inner) => self.go(inner, at, taken, true, then),
            Pattern::Repeat { inner, min, max, greedy } => {
                let bounds = (*min, *max, *greedy);
                self.times(inner, 0, bounds, (at, taken), hidden, then)
            }
        }
    }

    fn all(
        &self,
        items: &[Pattern],
        at: usize,
        taken: &Taken,
        hidden: bool,
        then: Then<'_>,
    ) -> bool {
        let Some((first, rest)) = items.split_first() else { return then(at, taken) };
        self.go(first, at, taken, hidden, &mut |at, taken| {
            self.all(rest, at, taken, hidden, &mut *then)
        })
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
            self.go(first, at, taken, hidden, &mut |at, taken| {
                self.any_order(&rest, at, taken, hidden, &mut *then)
            })
        })
    }

    fn times(
        &self,
        inner: &Pattern,
        count: u32,
        (min, max, greedy): (u32, Option<u32>, bool),
        (at, taken): (usize, &Taken),
        hidden: bool,
        then: Then<'_>,
    ) -> bool {
        let bounds = (min, max, greedy);
        let more = |then: Then<'_>| {
            if max.is_some_and(|max| count >= max) {
                return false;
            }
            self.go(inner, at, taken, hidden, &mut |next, taken| {
                // An iteration beyond the least number takes rows.
                if count >= min && next == at {
                    return false;
                }
                self.times(inner, count + 1, bounds, (next, taken), hidden, &mut *then)
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

/// A match, or a row of no match (`number` 0).
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    number: i64,
    first: usize,
    rows: Taken,
}

/// What the standard says; `None`: the case is too large for the reference.
fn expected(case: &Case) -> Option<(Vec<Shown>, usize)> {
    let (mut shown, mut failures) = (Vec::new(), 0);
    let (mut at, mut number, mut until) = (0, 0, 0);
    while at < case.rows.len() {
        let mut found = None;
        let reference = Reference { case, number: number + 1, tries: Cell::new(0) };
        let _ = reference.go(&case.pattern, at, &vec![], false, &mut |_, taken| {
            found = Some(taken.clone());
            true
        });
        if reference.tries.get() > 20_000 {
            return None;
        }
        let Some(rows) = found else {
            if case.unmatched && at >= until {
                shown.push(Shown { number: 0, first: at, rows: vec![] });
            }
            at += 1;
            continue;
        };
        number += 1;
        until = until.max(rows.last().map_or(at + 1, |(row, _, _)| row + 1));
        let of = |set: &Variables| {
            let own: Vec<usize> =
                rows.iter().filter(|(_, v, _)| set.contains(*v)).map(|r| r.0).collect();
            own
        };
        let target = match &case.skip {
            _ if rows.is_empty() => Some(at + 1),
            Skip::PastLastRow => rows.last().map(|(row, _, _)| row + 1),
            Skip::ToNextRow => Some(at + 1),
            Skip::ToFirst(set) => of(set).first().copied(),
            Skip::ToLast(set) => of(set).last().copied(),
        };
        let first = at;
        at = match target {
            Some(target) if target > at => target,
            _ => {
                failures += 1;
                at + 1
            }
        };
        shown.push(Shown { number, first, rows });
    }
    Some((shown, failures))
}

// The matcher.

fn input_schema() -> SchemaRef {
    let mut fields: Vec<Field> =
        (0..VARIABLES).map(|v| Field::new(format!("f{v}"), DataType::Boolean, true)).collect();
    fields.push(Field::new("value", DataType::Int64, true));
    Arc::new(Schema::new(fields))
}

fn spec_of(case: &Case) -> MatchSpec {
    let read_of = |column: usize| {
        Read::Row(RowRead {
            value: RowValue::Column(column),
            of: Variables::ALL,
            from_last: true,
            offset: 0,
            shift: 0,
            running: true,
        })
    };
    let mut reads: Vec<Read> = (0..=VALUE).map(read_of).collect();
    let mut fields: Vec<Field> =
        input_schema().fields().iter().map(|f| f.as_ref().clone()).collect();
    let mut conditions = Vec::new();
    for variable in 0..VARIABLES {
        let near = case.near[variable].then(|| {
            let field = Field::new("fits", DataType::Boolean, true);
            Predicate {
                expr: Expr::column("fits", 0, DataType::Boolean, true),
                reads: vec![variable],
                schema: Arc::new(Schema::new(vec![field])),
            }
        });
        let far = case.far[variable].as_ref().map(|far| {
            reads.push(match far.numbered {
                true => Read::MatchNumber,
                false => Read::Row(far.read.clone()),
            });
            fields.push(Field::new(format!("far {variable}"), DataType::Int64, true));
            let operator = if far.or_equal { Operator::GtEq } else { Operator::Gt };
            let own = Arc::new(Column::new("own", 0));
            let physical =
                Arc::new(BinaryExpr::new(own, operator, Arc::new(Column::new("other", 1))));
            let schema = Schema::new(vec![
                Field::new("own", DataType::Int64, true),
                Field::new("other", DataType::Int64, true),
            ]);
            // The row's own value is the last of any set that the row is in.
            reads.push(Read::Row(RowRead {
                value: RowValue::Column(VALUE),
                of: Variables::one(variable),
                from_last: true,
                offset: 0,
                shift: 0,
                running: true,
            }));
            fields.push(Field::new(format!("own {variable}"), DataType::Int64, true));
            Predicate {
                expr: Expr::new(physical, DataType::Boolean, true),
                reads: vec![reads.len() - 1, reads.len() - 2],
                schema: Arc::new(schema),
            }
        });
        conditions.push(Some(Condition { near, far }));
    }
    MatchSpec {
        partition: vec![],
        order_by: vec![],
        variables: ["A", "B", "C"].map(str::to_owned).to_vec(),
        pattern: case.pattern.clone(),
        pattern_from: None,
        contiguity: Contiguity::Strict,
        skip: case.skip,
        rows: RowsPerMatch::All { shows_empty: true, shows_unmatched: case.unmatched },
        frame: None,
        within: None,
        timeout_rows: false,
        partial_rows: false,
        conditions,
        reads,
        reads_schema: Arc::new(Schema::new(fields)),
        aggregates: vec![],
        aggregates_schema: input_schema(),
        columns: vec![],
        schema: Arc::new(Schema::empty()),
    }
}

fn batch_of(rows: &[Row]) -> RecordBatch {
    let mut columns: Vec<ArrayRef> = (0..VARIABLES)
        .map(|v| {
            let fits: Vec<bool> = rows.iter().map(|row| row.fits[v]).collect();
            Arc::new(BooleanArray::from(fits)) as ArrayRef
        })
        .collect();
    columns.push(Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.value))));
    RecordBatch::try_new(input_schema(), columns).expect("columns of one length")
}

fn shown(found: &Found) -> Vec<Shown> {
    found
        .matches
        .iter()
        .map(|one| Shown {
            number: if one.kind == MatchKind::Match { one.number } else { 0 },
            first: one.first as usize,
            rows: (one.from..one.to)
                .map(|place| {
                    let label = usize::from(found.labels[place]);
                    (found.rows[place] as usize, label & !HIDDEN, label & HIDDEN != 0)
                })
                .collect(),
        })
        .collect()
}

/// The matches, with the rows handed over in pieces.
fn matched(kernel: &Kernel, rows: &[Row], pieces: &[usize]) -> (Vec<Shown>, usize) {
    let (mut matcher, mut scratch) = (Matcher::default(), Scratch::default());
    let mut found = Found::default();
    for (nth, end) in pieces.iter().enumerate() {
        let complete = nth + 1 == pieces.len();
        let place = PartitionRows::new(0, *end, 0, complete);
        let batch = batch_of(&rows[..*end]);
        let rows = Rows::new(&kernel.spec, batch, vec![place]).expect("conditions are computed");
        matcher
            .advance(kernel, &mut scratch, &rows, 0, u64::MAX, &mut found)
            .expect("few partial matches");
    }
    let failures = found.failures.len();
    (shown(&found), failures)
}

/// The matches, with the rows handed over as a stream does it: what comes, and the rows before that
/// conditions at fixed distances look at; others are fetched. Rows that are not needed are gone.
fn streamed(kernel: &Kernel, rows: &[Row], pieces: &[usize]) -> (Vec<Shown>, usize) {
    let (mut matcher, mut scratch) = (Matcher::default(), Scratch::default());
    let mut found = Found::default();
    let mut kept = 0;
    for (nth, end) in pieces.iter().enumerate() {
        let complete = nth + 1 == pieces.len();
        let from = match kernel.one_at_a_time {
            true => kept,
            false => matcher.next_row().saturating_sub(kernel.spec.rows_back()).max(kept),
        };
        let mut place = PartitionRows::new(0, *end - from as usize, from, complete);
        (place.shown_from, place.shown_at) = (kept, kept as usize);
        let batch = batch_of(&rows[from as usize..*end]);
        let old = move |_: usize, numbers: &[u64]| {
            assert!(numbers.iter().all(|row| *row >= kept), "{numbers:?} of {kept}");
            Ok(batch_of(&numbers.iter().map(|row| rows[*row as usize]).collect::<Vec<_>>()))
        };
        let rows = Rows::new(&kernel.spec, batch, vec![place]).expect("conditions are computed");
        let rows = rows.with_old(Box::new(old));
        matcher
            .advance(kernel, &mut scratch, &rows, 0, u64::MAX, &mut found)
            .expect("few partial matches");
        kept = matcher.rows_needed_from(kernel).min(*end as u64);
    }
    // Who goes over rows again finds the same failures again.
    let mut failures: Vec<_> = found.failures.iter().map(|f| (f.row, f.part)).collect();
    failures.sort_unstable();
    failures.dedup();
    (shown(&found), failures.len())
}

/// Compares as many random cases as asked for, whole and in pieces.
fn compare(seed: u64, cases: usize) {
    let mut draw = Draw(seed);
    let mut compared = 0;
    while compared < cases {
        let before = draw.0;
        let case = draw_case(&mut draw);
        let Some((wanted, failures)) = expected(&case) else { continue };
        let kernel = Kernel::new(spec_of(&case)).expect("a small pattern");
        let length = case.rows.len();
        let mut pieces: Vec<usize> =
            (0..draw.below(4)).map(|_| draw.below(length as u64 + 1) as usize).collect();
        pieces.sort_unstable();
        pieces.push(length);
        let (got, got_failures) = streamed(&kernel, &case.rows, &pieces);
        assert_eq!(got, wanted, "seed {before}, streamed in {pieces:?}, {case:#?}");
        assert_eq!(got_failures, failures, "seed {before}, {case:#?}");
        for pieces in [vec![length], pieces] {
            let (got, got_failures) = matched(&kernel, &case.rows, &pieces);
            assert_eq!(got, wanted, "seed {before}, pieces {pieces:?}, {case:#?}");
            assert_eq!(got_failures, failures, "seed {before}, {case:#?}");
        }
        compared += 1;
    }
}

#[test]
fn random_patterns_match_as_the_standard_says() {
    let cases = std::env::var("MILLSTREAM_PATTERN_CASES").ok().and_then(|n| n.parse().ok());
    compare(0x5EED_1234_5678_9ABC, cases.unwrap_or(20_000));
}

/// `(A*)*B`, `(A|A)*` and all orders of eight, where nothing matches: work grows with the rows.
#[test]
fn pathological_patterns_stay_small() {
    let a = || Pattern::Variable(0);
    let star = |inner: Pattern| Pattern::Repeat {
        inner: Box::new(inner),
        min: 0,
        max: None,
        greedy: true,
    };
    let patterns = [
        Pattern::Concat(vec![star(star(a())), Pattern::Variable(1)]),
        Pattern::Concat(vec![star(Pattern::Alternation(vec![a(), a()])), Pattern::Variable(1)]),
        Pattern::Concat(vec![Pattern::Permute(vec![a(); 8]), Pattern::Variable(1)]),
    ];
    let rows: Vec<Row> = (0..3_000).map(|_| Row { fits: [true, false, false], value: 0 }).collect();
    for pattern in patterns {
        let case = Case {
            pattern,
            near: [true; VARIABLES],
            far: [None, None, None],
            skip: Skip::PastLastRow,
            unmatched: false,
            rows: rows.clone(),
        };
        let kernel = Kernel::new(spec_of(&case)).expect("a bounded pattern");
        assert!(kernel.program.instructions.len() < 5_000);
        assert_eq!(matched(&kernel, &rows, &[rows.len()]).0, vec![]);
    }
}
