//! Conditions that compare a row's time with now(): rows enter and leave when time passes.
//!
//! 1. Each comparison holds from a time on or until a time, which the row alone decides; so the
//!    times at which a formula over comparisons holds for a row are a few intervals, which begin and
//!    end where those of its comparisons do.
//! 2. `on_epoch`, with the time of the epoch: rows whose state changes now are taken out and looked
//!    at again: visible ones whose interval has ended are taken back, waiting ones whose interval
//!    has begun are given. Then the epoch's changes are looked at: what is over is passed over, what
//!    has not begun waits, the rest is given on. A row stands under the next time at which it
//!    enters or leaves, so that its deletion finds it there.
//! 3. The operator asks to be woken when the next row enters or leaves.
//!
//! Keeps: exactly the rows that are not yet visible, and those that are and will not be for ever.

use arrow::array::{Array, AsArray, BooleanArray, Int64Array};
use arrow::datatypes::SchemaRef;

use crate::dataflow::operator::{Operator, Output, RowError};
use crate::dataflow::operators::clocked::Clocked;
use crate::dataflow::operators::evaluate::{Evaluated, evaluate, shown_row};
use crate::dataflow::operators::timed_rows::TimedRows;
use crate::plan::event_time::{Step, time_values};
use crate::plan::expr::Expr;
use crate::plan::node::{self, Formula, NowCondition, NowOp};
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::state::spill::StoreVisitor;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result};
use crate::types::time::{Epoch, Watermark};

/// The `temporal_filter` operator.
pub struct TemporalFilter {
    conditions: Vec<NowCondition>,
    of_rows: Vec<Expr>,
    formula: Formula,
    epoch: Clocked,
    /// By the time from which they are visible.
    waiting: TimedRows,
    /// By the time from which they are not visible any more.
    visible: TimedRows,
}

/// When one comparison holds for each row of a batch: from a time on, until before another.
struct Intervals {
    from: Vec<i64>,
    until: Vec<i64>,
}

/// Where each row of a batch stands at the time of the epoch.
struct Places {
    shown: Vec<bool>,
    /// When that changes next; the end of time: never.
    next: Vec<i64>,
}

/// Never.
const NEVER: i64 = i64::MAX;

impl TemporalFilter {
    /// Over input of this schema.
    ///
    /// # Errors
    /// For a column whose type cannot be compared.
    pub fn new(node: &node::TemporalFilter, schema: &SchemaRef) -> Result<TemporalFilter> {
        Ok(TemporalFilter {
            conditions: node.conditions.clone(),
            of_rows: node.of_rows.clone(),
            formula: node.formula.clone(),
            epoch: Clocked::new(schema.clone()),
            waiting: TimedRows::new(schema.clone())?,
            visible: TimedRows::new(schema.clone())?,
        })
    }

    /// Where rows stand; `out` is told of those for which a condition fails, which never show.
    fn places(&self, change: &ChangeBatch, out: Option<&mut Output>) -> Result<Places> {
        let (mut errors, mut left_out) = (Vec::new(), Vec::new());
        let mut told = |failed: Vec<(usize, Error)>, expression: &str| {
            left_out.extend(failed.iter().map(|(row, _)| *row));
            errors.extend(failed.into_iter().map(|(row, error)| RowError {
                error,
                expression: expression.to_owned(),
                row: shown_row(change.rows(), row),
                weight: change.weight(row),
            }));
        };
        let mut intervals = Vec::with_capacity(self.conditions.len());
        for condition in &self.conditions {
            let Evaluated { values, failed } = evaluate(&condition.value, change.rows())?;
            told(failed, &condition.display);
            let values = time_values(&values)
                .ok_or_else(|| Error::internal("what is compared with now() is a time"))?;
            intervals.push(intervals_of(condition, &values));
        }
        let mut of_rows = Vec::with_capacity(self.of_rows.len());
        for condition in &self.of_rows {
            let Evaluated { values, failed } = evaluate(condition, change.rows())?;
            told(failed, &condition.to_string());
            let values = values
                .as_boolean_opt()
                .ok_or_else(|| Error::internal("a condition is true or false"))?;
            of_rows.push(values.clone());
        }
        if let Some(out) = out {
            errors.into_iter().for_each(|error| out.row_error(error));
        }
        let mut places = match is_conjunction(&self.formula) {
            true => self.places_of_all(&intervals, change.num_rows()),
            false => self.places_of_formula(&intervals, &of_rows, change.num_rows()),
        };
        for row in left_out {
            places.shown[row] = false;
            places.next[row] = NEVER;
        }
        Ok(places)
    }

    /// Where all comparisons must hold, a row has one interval.
    fn places_of_all(&self, intervals: &[Intervals], rows: usize) -> Places {
        let mut places = Places { shown: Vec::with_capacity(rows), next: Vec::with_capacity(rows) };
        for row in 0..rows {
            let from = intervals.iter().map(|i| i.from[row]).max().unwrap_or(i64::MIN);
            let until = intervals.iter().map(|i| i.until[row]).min().unwrap_or(NEVER);
            let shown = from <= self.epoch.now_us() && until > self.epoch.now_us();
            // A row whose interval is empty never shows.
            let waits = from > self.epoch.now_us() && until > from;
            places.shown.push(shown);
            places.next.push(if shown {
                until
            } else if waits {
                from
            } else {
                NEVER
            });
        }
        places
    }

    /// The formula is tried at each time at which a comparison begins or ends to hold.
    fn places_of_formula(
        &self,
        intervals: &[Intervals],
        of_rows: &[BooleanArray],
        rows: usize,
    ) -> Places {
        let mut places = Places { shown: Vec::with_capacity(rows), next: Vec::with_capacity(rows) };
        let mut times = Vec::with_capacity(2 * intervals.len());
        for row in 0..rows {
            let of_row = |n: usize| of_rows[n].is_valid(row) && of_rows[n].value(row);
            let holds_at = |time: i64| {
                let now =
                    |n: usize| intervals[n].from[row] <= time && time < intervals[n].until[row];
                self.formula.holds(&now, &of_row)
            };
            times.clear();
            times.extend(intervals.iter().flat_map(|i| [i.from[row], i.until[row]]));
            times.retain(|time| *time > self.epoch.now_us() && *time != NEVER);
            times.sort_unstable();
            let shown = holds_at(self.epoch.now_us());
            let next = times.iter().find(|time| holds_at(**time) != shown);
            places.shown.push(shown);
            places.next.push(next.copied().unwrap_or(NEVER));
        }
        places
    }

    /// Lets the time of the epoch begin.
    fn advance(&mut self, sent: &mut Vec<ChangeBatch>) -> Result<()> {
        for gone in self.visible.take_until(self.epoch.now_us())? {
            sent.push(gone.negate());
            let places = self.places(&gone, None)?;
            self.take(gone, &places, sent)?;
        }
        for come in self.waiting.take_until(self.epoch.now_us())? {
            let places = self.places(&come, None)?;
            self.take(come, &places, sent)?;
        }
        Ok(())
    }

    /// Gives on the rows that show, and keeps those whose place will change.
    fn take(
        &mut self,
        change: ChangeBatch,
        places: &Places,
        sent: &mut Vec<ChangeBatch>,
    ) -> Result<()> {
        let Places { shown, next } = places;
        for (kept, shows) in [(&mut self.waiting, false), (&mut self.visible, true)] {
            let stays = |row: &usize| shown[*row] == shows && next[*row] != NEVER;
            let times: Int64Array =
                (0..next.len()).filter(stays).map(|row| Some(next[row])).collect();
            if !times.is_empty() {
                let stay = (0..next.len()).map(|row| Some(stays(&row)));
                kept.add(&change.filter(&BooleanArray::from_iter(stay))?, times)?;
            }
        }
        if shown.iter().all(|shown| *shown) {
            sent.push(change);
        } else {
            let shown = BooleanArray::from(shown.clone());
            sent.push(change.filter(&shown)?);
        }
        Ok(())
    }
}

/// Whether all comparisons must hold, and there is nothing else.
fn is_conjunction(formula: &Formula) -> bool {
    match formula {
        Formula::Now(_) => true,
        Formula::All(parts) => parts.iter().all(is_conjunction),
        Formula::Row(_) | Formula::Any(_) | Formula::Not(_) => false,
    }
}

/// When a comparison holds for rows of these times; with NULL it never does.
fn intervals_of(condition: &NowCondition, values: &Int64Array) -> Intervals {
    let of = |value: Option<i64>| value.map_or((NEVER, i64::MIN), |v| interval(condition, v));
    let (from, until) = values.iter().map(of).unzip();
    Intervals { from, until }
}

/// When a condition holds for a row of this time: from, and until before.
fn interval(condition: &NowCondition, value: i64) -> (i64, i64) {
    let reaches = |value| first_reaching(&condition.steps, value);
    let after = value.saturating_add(1);
    match condition.op {
        NowOp::Greater => (i64::MIN, reaches(value)),
        NowOp::GreaterOrEqual => (i64::MIN, reaches(after)),
        NowOp::Less => (reaches(after), i64::MAX),
        NowOp::LessOrEqual => (reaches(value), i64::MAX),
        NowOp::Equal => (reaches(value), reaches(after)),
    }
}

/// The first time at which the function is at least `value`.
fn first_reaching(steps: &[Step], value: i64) -> i64 {
    steps.iter().rev().fold(value, |value, step| step.first_reaching(value))
}

impl Operator for TemporalFilter {
    fn name(&self) -> &'static str {
        "temporal_filter"
    }

    fn on_batch(&mut self, _: usize, batch: ChangeBatch, _: &mut Output) -> Result<()> {
        self.epoch.on_batch(batch);
        Ok(())
    }

    fn on_watermark(&mut self, port: usize, watermark: Watermark, _: &mut Output) -> Result<()> {
        self.epoch.on_watermark(port, watermark);
        Ok(())
    }

    fn on_epoch(&mut self, _: Epoch, out: &mut Output) -> Result<()> {
        let mut sent = Vec::new();
        self.advance(&mut sent)?;
        for change in self.epoch.take() {
            let places = self.places(&change, Some(out))?;
            self.take(change, &places, &mut sent)?;
        }
        let next = [self.waiting.next_time(), self.visible.next_time()];
        self.epoch.send(sent, next, out)
    }

    fn checkpoint(&mut self, _: Epoch, writer: &mut CheckpointWriter) -> Result<()> {
        writer.write("waiting", self.waiting.checkpoint_delta()?);
        writer.write("visible", self.visible.checkpoint_delta()?);
        Ok(())
    }

    fn restore(&mut self, reader: &mut CheckpointReader) -> Result<()> {
        let columns: Vec<usize> = (0..self.epoch.schema().fields().len()).collect();
        self.waiting.restore(reader.read("waiting", &columns)?)?;
        self.visible.restore(reader.read("visible", &columns)?)
    }

    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        visit(self.waiting.store());
        visit(self.visible.store());
    }

    fn memory_bytes(&self) -> usize {
        self.waiting.memory_bytes() + self.visible.memory_bytes() + self.epoch.memory_bytes()
    }

    fn state_rows(&self) -> usize {
        self.waiting.len() + self.visible.len()
    }
}

#[cfg(test)]
mod tests;
