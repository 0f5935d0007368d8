//! Matches as rows: which rows are shown, and what each of them reads.
//!
//! A read is found for all shown rows at once: the place of its row for each of them, then one
//! `take`. Final aggregates of all matches are one grouped aggregation, with a match as a group.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray, UInt32Array,
};
use arrow::compute::{cast, concat, take};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::EmitTo;

use crate::pattern::found::{Found, FoundMatch, HIDDEN, MatchKind};
use crate::pattern::history::in_frame;
use crate::pattern::kernel::Kernel;
use crate::pattern::rows::Rows;
use crate::plan::match_recognize::{
    MatchColumn, MatchSpec, Read, RowRead, RowValue, RowsPerMatch, STATES, Variables,
};
use crate::types::error::Result;

/// Rows that are shown.
struct Shown {
    /// For each of [`Found::matches`], its rows here.
    of_match: Vec<Range<usize>>,
    /// For each shown row, how many of its match's rows are up to it.
    up_to: Vec<usize>,
    /// For each shown row, where it stands in the batch.
    current: Vec<u32>,
}

/// The rows that the matches give.
///
/// # Errors
/// When an aggregate cannot be computed for some match; it does not say which.
pub fn output(kernel: &Kernel, rows: &Rows<'_>, found: &Found) -> Result<RecordBatch> {
    let spec = &kernel.spec;
    let shown = shown(spec, found);
    let count = shown.current.len();
    if count == 0 {
        return Ok(RecordBatch::new_empty(spec.schema.clone()));
    }
    let current = UInt32Array::from(shown.current.clone());
    let mut columns = Vec::with_capacity(spec.columns.len());
    for (place, column) in spec.columns.iter().enumerate() {
        let data_type = spec.schema.field(place).data_type();
        let values = match column {
            MatchColumn::Input(column) => take(rows.batch.column(*column), &current, None)?,
            MatchColumn::Read(read) => match &spec.reads[*read] {
                Read::Row(read) => row_values(spec, rows, found, &shown, read)?,
                Read::Aggregate { aggregate, of, running: false } => {
                    final_values(spec, rows, found, &shown, *aggregate, *of)?
                }
                Read::Aggregate { aggregate, of, running: true } => {
                    running_values(spec, rows, found, &shown, *aggregate, *of)?
                }
                Read::MatchNumber => numbers(found, &shown),
                Read::TimedOut => timed_out(found, &shown),
                Read::State => states(found, &shown),
                Read::WaitedFor => waited_for(spec, found, &shown),
            },
        };
        columns.push(match values.data_type() == data_type {
            true => values,
            false => cast(&values, data_type)?,
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    Ok(RecordBatch::try_new_with_options(spec.schema.clone(), columns, &options)?)
}

fn shown(spec: &MatchSpec, found: &Found) -> Shown {
    let mut shown = Shown {
        of_match: Vec::with_capacity(found.matches.len()),
        up_to: Vec::new(),
        current: Vec::new(),
    };
    for one in &found.matches {
        let before = shown.current.len();
        let length = one.to - one.from;
        match spec.rows {
            RowsPerMatch::One => {
                if one.kind != MatchKind::Unmatched || spec.frame.is_some() {
                    shown.current.push(one.first);
                    shown.up_to.push(length);
                }
            }
            RowsPerMatch::All { shows_empty, .. } => {
                if length == 0 && (shows_empty || one.kind == MatchKind::Unmatched) {
                    shown.current.push(one.first);
                    shown.up_to.push(0);
                }
                for place in one.from..one.to {
                    if usize::from(found.labels[place]) & HIDDEN == 0 {
                        shown.current.push(found.rows[place]);
                        shown.up_to.push(place + 1 - one.from);
                    }
                }
            }
        }
        shown.of_match.push(before..shown.current.len());
    }
    shown
}

/// The places (counted from the match's first row) of rows of a set of variables.
fn places_of(found: &Found, one: &FoundMatch, of: Variables, into: &mut Vec<usize>) {
    into.clear();
    let labels = &found.labels[one.from..one.to];
    let own = labels.iter().enumerate().filter(|(_, l)| of.contains(usize::from(**l) & !HIDDEN));
    into.extend(own.map(|(place, _)| place));
}

/// Calls `each` for every shown row: its match, the rows of the set in it, and how many of these
/// count.
fn for_each_shown(
    found: &Found,
    shown: &Shown,
    of: Variables,
    running: bool,
    mut each: impl FnMut(&FoundMatch, &[usize], usize),
) {
    let mut places = Vec::new();
    for (one, range) in found.matches.iter().zip(&shown.of_match) {
        if range.is_empty() {
            continue;
        }
        places_of(found, one, of, &mut places);
        let mut counted = 0;
        for row in range.clone() {
            if running {
                while counted < places.len() && places[counted] < shown.up_to[row] {
                    counted += 1;
                }
            } else {
                counted = places.len();
            }
            each(one, &places, counted);
        }
    }
}

fn row_values(
    spec: &MatchSpec,
    rows: &Rows<'_>,
    found: &Found,
    shown: &Shown,
    read: &RowRead,
) -> Result<ArrayRef> {
    let offset = usize::try_from(read.offset).unwrap_or(usize::MAX);
    // Of each shown row: its match, and the place of the row that is meant in it.
    let mut meant: Vec<Option<usize>> = Vec::with_capacity(shown.current.len());
    let mut indices: Vec<Option<u32>> = Vec::with_capacity(shown.current.len());
    for_each_shown(found, shown, read.of, read.running, |one, places, counted| {
        let nth = match read.from_last {
            true => counted.checked_sub(1).and_then(|last| last.checked_sub(offset)),
            false => Some(offset).filter(|nth| *nth < counted),
        };
        let place = nth.map(|nth| one.from + places[nth]);
        let partition = &rows.partitions[one.partition];
        let index = place.and_then(|place| {
            partition.shifted(found.rows[place] as usize, read.shift).map(|index| index as u32)
        });
        let index = index.filter(|index| in_frame(spec, one.first.into(), (*index).into()));
        indices.push(index);
        // A row beside the match has no variable.
        meant.push(match read.shift {
            0 => place,
            _ => index.and_then(|index| {
                let own = &found.rows[one.from..one.to];
                own.binary_search(&index).ok().map(|place| one.from + place)
            }),
        });
    });
    match read.value {
        RowValue::Column(column) => {
            Ok(take(rows.batch.column(column), &UInt32Array::from(indices), None)?)
        }
        RowValue::Classifier => {
            let names = meant.iter().map(|place| {
                let label = usize::from(found.labels[(*place)?]) & !HIDDEN;
                spec.variables.get(label).map(String::as_str)
            });
            Ok(Arc::new(StringArray::from_iter(names)))
        }
    }
}

fn numbers(found: &Found, shown: &Shown) -> ArrayRef {
    let numbers = found.matches.iter().zip(&shown.of_match).flat_map(|(one, range)| {
        let number = (one.kind == MatchKind::Match).then_some(one.number);
        std::iter::repeat_n(number, range.len())
    });
    Arc::new(Int64Array::from_iter(numbers))
}

fn timed_out(found: &Found, shown: &Shown) -> ArrayRef {
    let flags = found.matches.iter().zip(&shown.of_match).flat_map(|(one, range)| {
        let flag = (one.kind != MatchKind::Unmatched).then_some(one.kind == MatchKind::TimedOut);
        std::iter::repeat_n(flag, range.len())
    });
    Arc::new(BooleanArray::from_iter(flags))
}

/// MATCH_STATE().
fn states(found: &Found, shown: &Shown) -> ArrayRef {
    let states = found.matches.iter().zip(&shown.of_match).flat_map(|(one, range)| {
        let state = match one.kind {
            MatchKind::Match => Some(STATES[0]),
            MatchKind::TimedOut => Some(STATES[1]),
            MatchKind::Failed => Some(STATES[2]),
            MatchKind::Open => Some(STATES[3]),
            MatchKind::Unmatched => None,
        };
        std::iter::repeat_n(state, range.len())
    });
    Arc::new(StringArray::from_iter(states))
}

/// MATCH_WAITED_FOR().
fn waited_for(spec: &MatchSpec, found: &Found, shown: &Shown) -> ArrayRef {
    let texts = found.matches.iter().zip(&shown.of_match).flat_map(|(one, range)| {
        let text = one.waits.text(&spec.variables);
        std::iter::repeat_n((!text.is_empty()).then_some(text), range.len())
    });
    Arc::new(StringArray::from_iter(texts))
}

/// One value per match, shown for each of its rows.
fn final_values(
    spec: &MatchSpec,
    rows: &Rows<'_>,
    found: &Found,
    shown: &Shown,
    aggregate: usize,
    of: Variables,
) -> Result<ArrayRef> {
    let Some(mut accumulator) = spec.aggregates[aggregate].groups_accumulator()? else {
        return one_by_one(spec, rows, found, shown, aggregate, of, false);
    };
    // Accumulators take it that each group has a row: matches without one have no group.
    let mut group_of: Vec<Option<u32>> = vec![None; found.matches.len()];
    let mut numbers: Vec<i64> = Vec::new();
    let (mut indices, mut labels, mut groups) = (Vec::new(), Vec::new(), Vec::new());
    for (one, group) in found.matches.iter().zip(&mut group_of) {
        for place in one.from..one.to {
            let label = usize::from(found.labels[place]) & !HIDDEN;
            if of.contains(label) {
                if group.is_none() {
                    *group = Some(numbers.len() as u32);
                    numbers.push(one.number);
                }
                indices.push(found.rows[place]);
                labels.push(label);
                groups.push(numbers.len() - 1);
            }
        }
    }
    let number = |row: usize| numbers[groups[row]];
    let arguments = rows.arguments(aggregate, &indices, &labels, number)?;
    accumulator.update_batch(
        &arguments.values,
        &groups,
        arguments.filter.as_ref(),
        numbers.len(),
    )?;
    let mut values = accumulator.evaluate(EmitTo::All)?;
    let nothing = numbers.len() as u32;
    if group_of.contains(&None) {
        let of_nothing = spec.aggregates[aggregate].accumulator()?.evaluate()?.to_array()?;
        let of_nothing = match of_nothing.data_type() == values.data_type() {
            true => of_nothing,
            false => cast(&of_nothing, values.data_type())?,
        };
        values = concat(&[&values, &of_nothing])?;
    }
    let spread = found.matches.iter().zip(&shown.of_match).zip(&group_of);
    let spread = spread.flat_map(|((one, range), group)| {
        // What is no match has no value at all.
        let is_match = one.kind != MatchKind::Unmatched;
        std::iter::repeat_n(is_match.then_some(group.unwrap_or(nothing)), range.len())
    });
    Ok(take(&values, &UInt32Array::from_iter(spread), None)?)
}

fn running_values(
    spec: &MatchSpec,
    rows: &Rows<'_>,
    found: &Found,
    shown: &Shown,
    aggregate: usize,
    of: Variables,
) -> Result<ArrayRef> {
    one_by_one(spec, rows, found, shown, aggregate, of, true)
}

/// One value per shown row, match by match.
fn one_by_one(
    spec: &MatchSpec,
    rows: &Rows<'_>,
    found: &Found,
    shown: &Shown,
    aggregate: usize,
    of: Variables,
    running: bool,
) -> Result<ArrayRef> {
    let mut values: Vec<ScalarValue> = Vec::with_capacity(shown.current.len());
    let mut places = Vec::new();
    let function = &spec.aggregates[aggregate];
    let null = ScalarValue::try_from(&function.data_type())?;
    for (one, range) in found.matches.iter().zip(&shown.of_match) {
        if one.kind == MatchKind::Unmatched {
            values.extend(range.clone().map(|_| null.clone()));
            continue;
        }
        if range.is_empty() {
            continue;
        }
        places_of(found, one, of, &mut places);
        let indices: Vec<u32> = places.iter().map(|place| found.rows[one.from + place]).collect();
        let labels: Vec<usize> = places
            .iter()
            .map(|place| usize::from(found.labels[one.from + place]) & !HIDDEN)
            .collect();
        let mut accumulator = function.accumulator()?;
        let mut counted = 0;
        let mut value = None;
        for row in range.clone() {
            let until = match running {
                true => places.partition_point(|place| *place < shown.up_to[row]),
                false => places.len(),
            };
            if until > counted {
                let part = counted..until;
                let arguments = rows
                    .arguments(aggregate, &indices[part.clone()], &labels[part], |_| one.number)?
                    .filtered()?;
                accumulator.update_batch(&arguments)?;
                counted = until;
                value = None;
            }
            let shown = match value.take() {
                Some(value) => value,
                None => accumulator.evaluate()?,
            };
            values.push(shown.clone());
            value = Some(shown);
        }
    }
    match values.is_empty() {
        true => Ok(arrow::array::new_empty_array(&function.data_type())),
        false => Ok(ScalarValue::iter_to_array(values)?),
    }
}
