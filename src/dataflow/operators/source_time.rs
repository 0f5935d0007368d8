//! Event time of a source's splits on one worker: how far each split is, and which rows are late.
//!
//! 1. For each row of a batch the watermark expression has a value; a split's watermark before a
//!    row is the greatest value of the rows before it. Per row, so that it does not depend on
//!    where batches begin.
//! 2. A row is late when its event time is before its own split's watermark, or before the floor:
//!    the watermark that the source had announced when the row was taken. The floor only matters
//!    for a split that fell silent and was not waited for, or came later than the others; it is
//!    remembered with the row's number, so that a second reading finds the same rows late.
//! 3. A row whose event time is NULL is never late and moves nothing. An infinite one moves nothing
//!    either.
//!
//! `allowed_lateness` makes every watermark so much smaller: rows that are late by less stay in,
//! and windows stay open for them.
//!
//! Keeps three numbers per split, and one floor for each time a split was found behind.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, TimestampMicrosecondArray,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute;
use arrow::datatypes::{Field, Schema};

use crate::connectors::SplitId;
use crate::dataflow::operators::evaluate::evaluate;
use crate::plan::event_time::{time_values, watermark_values};
use crate::plan::expr::Expr;
use crate::plan::node::WatermarkSpec;
use crate::types::error::{Error, Result};
use crate::types::text::datetime::INFINITY_US;
use crate::types::time::{EventTime, Watermark};

/// Stands for "no watermark yet": nothing is before it.
const NONE: i64 = i64::MIN;

/// A source's rule for batches that have only some of its columns.
pub struct ColumnRule {
    /// Where the time column stands in a batch.
    place: usize,
    expr: Expr,
    allowed_lateness_us: i64,
}

impl ColumnRule {
    /// The rule over batches with these columns of the source, all that it needs among them.
    ///
    /// # Errors
    /// When one that it needs is not.
    pub fn new(spec: &WatermarkSpec, columns: &[usize]) -> Result<ColumnRule> {
        let place = columns.iter().position(|column| *column == spec.column);
        let place = place.ok_or_else(|| Error::internal("a source's time column is not read"))?;
        let expr = spec.expr.over_columns(columns)?;
        let allowed_lateness_us = i64::try_from(spec.allowed_lateness.as_micros());
        let allowed_lateness_us = allowed_lateness_us.unwrap_or(i64::MAX);
        Ok(ColumnRule { place, expr, allowed_lateness_us })
    }

    /// The greatest watermark that rows stand for.
    ///
    /// # Errors
    /// When the columns are not what the rule was made for.
    pub fn reached(&self, rows: &RecordBatch) -> Result<Option<Watermark>> {
        let values = watermark_values(&evaluate(&self.expr, rows)?.values);
        let values = values.ok_or_else(|| Error::internal("watermarks are timestamps"))?;
        let reached =
            values.iter().flatten().map(|us| moved_to(us, self.allowed_lateness_us)).max();
        Ok(reached.filter(|us| *us != NONE).map(|us| Watermark(EventTime(us))))
    }

    /// Rows that are not behind the watermark, and those that are, with their event time and the
    /// watermark; and what the former move it to.
    ///
    /// # Errors
    /// When the columns are not what the rule was made for.
    pub fn divide(&self, rows: &RecordBatch, known: Option<Watermark>) -> Result<Divided> {
        let times = time_values(rows.column(self.place));
        let times = times.ok_or_else(|| Error::internal("event times are timestamps"))?;
        let limit = known.map_or(NONE, |watermark| watermark.0.0);
        if arrow::compute::min(&times).is_none_or(|first| first >= limit) {
            let reached = self.reached(rows)?;
            return Ok(Divided { on_time: rows.clone(), late: None, reached });
        }
        let late: BooleanArray =
            times.iter().map(|time| Some(time.is_some_and(|time| time < limit))).collect();
        let on_time = compute::filter_record_batch(rows, &compute::not(&late)?)?;
        let reached = self.reached(&on_time)?;
        let late = late_rows(rows, &late, &self.times(rows), vec![limit; rows.num_rows()])?;
        Ok(Divided { on_time, late: Some(late), reached })
    }

    /// The event times of a batch's rows.
    pub fn times(&self, rows: &RecordBatch) -> ArrayRef {
        rows.column(self.place).clone()
    }
}

/// What a value of the watermark expression moves the watermark to. Infinity is no time that has
/// been reached: it moves nothing.
fn moved_to(us: i64, lateness_us: i64) -> i64 {
    if us == INFINITY_US { NONE } else { us.saturating_sub(lateness_us) }
}

/// Rows of a table's write.
pub struct Divided {
    pub on_time: RecordBatch,
    pub late: Option<RecordBatch>,
    pub reached: Option<Watermark>,
}

/// The late rows of a batch, with their event time and the watermark that they came behind.
///
/// # Errors
/// When times cannot be written in the type of the time column.
pub fn late_rows(
    batch: &RecordBatch,
    late: &BooleanArray,
    times: &ArrayRef,
    against: Vec<i64>,
) -> Result<RecordBatch> {
    let against: ArrayRef = Arc::new(TimestampMicrosecondArray::from(against));
    let against = compute::cast(&against, times.data_type())?;
    let mut fields = batch.schema().fields().to_vec();
    let mut columns = batch.columns().to_vec();
    for (name, column) in [("event_time", times.clone()), ("watermark", against)] {
        fields.push(Arc::new(Field::new(name, times.data_type().clone(), true)));
        columns.push(column);
    }
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    Ok(compute::filter_record_batch(&rows, late)?)
}

/// The source's columns that its rule looks at, with `columns`, ascending.
pub fn with_needed(spec: Option<&WatermarkSpec>, columns: &[usize]) -> Vec<usize> {
    let mut all = columns.to_vec();
    if let Some(spec) = spec {
        all.extend(spec.expr.input_columns());
        all.push(spec.column);
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// How far one split is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitTime {
    /// Rows that have been taken.
    pub rows: u64,
    /// The greatest value of the watermark expression, less the allowed lateness.
    watermark: i64,
    /// Announced watermarks that held from a row on, by the row's number; ascending in both.
    floors: Vec<(u64, i64)>,
}

impl Default for SplitTime {
    fn default() -> SplitTime {
        SplitTime { rows: 0, watermark: NONE, floors: Vec::new() }
    }
}

/// What a batch's rows are.
pub struct Judged {
    /// Set for rows that are late; `None` when none is.
    pub late: Option<BooleanArray>,
    /// What a late row was measured against, per row; meaningless for others.
    pub against: Vec<i64>,
}

impl SplitTime {
    pub fn watermark(&self) -> Option<Watermark> {
        (self.watermark != NONE).then_some(Watermark(EventTime(self.watermark)))
    }

    /// From the next row on, rows before `announced` are late.
    pub fn raise_floor(&mut self, announced: Option<Watermark>) {
        let Some(Watermark(EventTime(floor))) = announced else { return };
        let next = self.floors.partition_point(|(row, _)| *row <= self.rows);
        let known = if next == 0 { NONE } else { self.floors[next - 1].1 };
        if floor > self.watermark && floor > known {
            self.insert_floor(next, self.rows, floor);
        }
    }

    /// Adds a floor at its place, and drops those after it that say less.
    fn insert_floor(&mut self, place: usize, row: u64, floor: i64) {
        let less = self.floors[place..].iter().take_while(|(_, after)| *after <= floor).count();
        self.floors.splice(place..place + less, [(row, floor)]);
    }

    /// The floors that another reading met hold here, too.
    pub fn meet_floors(&mut self, other: &SplitTime) {
        for (row, floor) in &other.floors {
            let place = self.floors.partition_point(|(from, _)| from <= row);
            if place == 0 || self.floors[place - 1].1 < *floor {
                self.insert_floor(place, *row, *floor);
            }
        }
    }

    /// This split's place, with the floors of another reading.
    #[must_use]
    pub fn with_floors_of(&self, other: &SplitTime) -> SplitTime {
        SplitTime { floors: other.floors.clone(), ..*self }
    }

    /// The same split before its first row, with the floors that it will meet.
    #[must_use]
    pub fn from_the_beginning(&self) -> SplitTime {
        SplitTime { floors: self.floors.clone(), ..SplitTime::default() }
    }

    /// As it stands in a checkpoint: rows, watermark, then each floor with the row it holds from.
    pub fn to_text(&self) -> String {
        let floors =
            self.floors.iter().flat_map(|(row, floor)| [row.to_string(), floor.to_string()]);
        let head = [self.rows.to_string(), self.watermark.to_string()];
        head.into_iter().chain(floors).collect::<Vec<_>>().join(" ")
    }

    /// The opposite; `None` for another text.
    pub fn from_text(text: &str) -> Option<SplitTime> {
        let mut words = text.split(' ');
        let rows = words.next()?.parse().ok()?;
        let watermark = words.next()?.parse().ok()?;
        let mut floors = Vec::new();
        while let Some(row) = words.next() {
            floors.push((row.parse().ok()?, words.next()?.parse().ok()?));
        }
        Some(SplitTime { rows, watermark, floors })
    }

    /// Takes a batch's rows.
    ///
    /// # Errors
    /// When the columns are not what the rule was made for.
    pub fn judge(&mut self, rule: &ColumnRule, rows: &RecordBatch) -> Result<Judged> {
        let wrong = || Error::internal("event times are timestamps");
        let times = time_values(rows.column(rule.place)).ok_or_else(wrong)?;
        // A row for which the expression fails moves nothing.
        let values = watermark_values(&evaluate(&rule.expr, rows)?.values).ok_or_else(wrong)?;
        let before = self.rows;
        self.rows += rows.num_rows() as u64;
        let next_floor = self.floors.partition_point(|(row, _)| *row <= before);
        let floor = if next_floor == 0 { NONE } else { self.floors[next_floor - 1].1 };
        let more = next_floor < self.floors.len();
        if !more && !self.any_late(&times, &values, floor, rule.allowed_lateness_us) {
            return Ok(Judged { late: None, against: Vec::new() });
        }
        Ok(self.judge_rows(&times, &values, before, rule.allowed_lateness_us))
    }

    /// Moves the watermark over a batch when no row is late; otherwise moves nothing.
    fn any_late(
        &mut self,
        times: &Int64Array,
        values: &Int64Array,
        floor: i64,
        lateness_us: i64,
    ) -> bool {
        let mut watermark = self.watermark;
        let mut late = false;
        if times.null_count() == 0 && values.null_count() == 0 {
            for (time, value) in times.values().iter().zip(values.values()) {
                late |= *time < watermark.max(floor);
                watermark = watermark.max(moved_to(*value, lateness_us));
            }
        } else {
            for row in 0..times.len() {
                late |= times.is_valid(row) && times.value(row) < watermark.max(floor);
                if values.is_valid(row) {
                    watermark = watermark.max(moved_to(values.value(row), lateness_us));
                }
            }
        }
        if !late {
            self.watermark = watermark;
        }
        late
    }

    fn judge_rows(
        &mut self,
        times: &Int64Array,
        values: &Int64Array,
        before: u64,
        lateness_us: i64,
    ) -> Judged {
        let mut floors = self.floors.iter().peekable();
        let mut floor = NONE;
        let mut late = Vec::with_capacity(times.len());
        let mut against = Vec::with_capacity(times.len());
        for row in 0..times.len() {
            while let Some((_, next)) = floors.next_if(|(from, _)| *from <= before + row as u64) {
                floor = *next;
            }
            let limit = self.watermark.max(floor);
            late.push(times.is_valid(row) && times.value(row) < limit);
            against.push(limit);
            if values.is_valid(row) {
                self.watermark = self.watermark.max(moved_to(values.value(row), lateness_us));
            }
        }
        let any = late.contains(&true);
        let late = any.then(|| BooleanArray::new(BooleanBuffer::from(late), None));
        Judged { late, against }
    }
}

/// The splits of a worker's share.
pub type SplitTimes = BTreeMap<SplitId, SplitTime>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataflow::script::{batch, schema};
    use arrow::datatypes::{DataType, TimeUnit};
    use std::time::Duration;

    fn rule(allowed_lateness_us: i64) -> ColumnRule {
        let data_type = DataType::Timestamp(TimeUnit::Microsecond, None);
        let expr = Expr::column("ts", 1, data_type, true);
        let spec = WatermarkSpec {
            column: 1,
            expr,
            allowed_lateness: Duration::from_micros(allowed_lateness_us as u64),
            idle_timeout: None,
            drift_max: None,
        };
        assert_eq!(with_needed(Some(&spec), &[2]), [1, 2]);
        ColumnRule::new(&spec, &[1]).expect("a rule")
    }

    #[test]
    fn a_split_goes_through_a_checkpoint() {
        let mut split = SplitTime::default();
        assert_eq!(SplitTime::from_text(&split.to_text()), Some(split.clone()));
        split.raise_floor(Some(Watermark(EventTime(7))));
        split.rows = 12;
        split.raise_floor(Some(Watermark(EventTime(9))));
        assert_eq!(split.to_text(), "12 -9223372036854775808 0 7 12 9");
        assert_eq!(SplitTime::from_text(&split.to_text()), Some(split));
        for wrong in ["", "1", "1 2 3", "1 x", "1 2 3 4 "] {
            assert_eq!(SplitTime::from_text(wrong), None, "{wrong:?}");
        }
    }

    /// Which of these times are late.
    fn judge(split: &mut SplitTime, lateness_us: i64, times: &[&str]) -> Vec<bool> {
        let rows: String = times.iter().map(|t| format!("+ {t}\n")).collect();
        let rows = batch(&schema("ts timestamp"), &rows);
        let judged = split.judge(&rule(lateness_us), rows.rows()).expect("judged");
        match judged.late {
            Some(late) => late.values().iter().collect(),
            None => vec![false; times.len()],
        }
    }

    #[test]
    fn floors_of_two_readings_hold_together() {
        let floors = |split: &SplitTime| split.to_text();
        let mut split = SplitTime::from_text("10 0 2 5 8 9").expect("a split");
        // Less than what holds: nothing new.
        split.raise_floor(Some(Watermark(EventTime(9))));
        assert_eq!(floors(&split), "10 0 2 5 8 9");
        let recorded = SplitTime::from_text("20 0 2 5 9 7 12 11 18 20").expect("a split");
        split.meet_floors(&recorded);
        assert_eq!(floors(&split), "10 0 2 5 8 9 12 11 18 20");
        // One that comes now holds until a greater one does.
        split.raise_floor(Some(Watermark(EventTime(15))));
        assert_eq!(floors(&split), "10 0 2 5 8 9 10 15 18 20");
        assert_eq!(floors(&split.with_floors_of(&recorded)), "10 0 2 5 9 7 12 11 18 20");
    }

    #[test]
    fn a_row_is_late_against_the_rows_before_it() {
        let times = ["5", "7", "6", ".", "9", "8", "9"];
        let late = [false, false, true, false, false, true, false];
        let mut whole = SplitTime::default();
        assert_eq!(judge(&mut whole, 0, &times), late);
        // The same wherever batches begin.
        for cut in 0..times.len() {
            let mut split = SplitTime::default();
            let mut found = judge(&mut split, 0, &times[..cut]);
            found.extend(judge(&mut split, 0, &times[cut..]));
            assert_eq!(found, late, "cut at {cut}");
            assert_eq!(split, whole);
        }
        assert_eq!(whole.watermark(), Some(Watermark(EventTime(9))));
    }

    #[test]
    fn infinity_moves_nothing() {
        let mut split = SplitTime::default();
        let infinity = i64::MAX.to_string();
        assert_eq!(judge(&mut split, 0, &["5", &infinity, "6", "4"]), [false, false, false, true]);
        assert_eq!(split.watermark(), Some(Watermark(EventTime(6))));
        let rows = batch(&schema("ts timestamp"), &format!("+ 7\n+ {infinity}\n"));
        let reached = rule(2).reached(rows.rows()).expect("reached");
        assert_eq!(reached, Some(Watermark(EventTime(5))));
    }

    #[test]
    fn allowed_lateness_keeps_rows_in() {
        let mut split = SplitTime::default();
        assert_eq!(judge(&mut split, 2, &["10", "8", "7"]), [false, false, true]);
        assert_eq!(split.watermark(), Some(Watermark(EventTime(8))));
    }

    #[test]
    fn a_split_that_was_not_waited_for_finds_the_same_rows_late_again() {
        let mut split = SplitTime::default();
        let mut found = judge(&mut split, 0, &["1", "2"]);
        split.raise_floor(Some(Watermark(EventTime(5))));
        found.extend(judge(&mut split, 0, &["3", "5", "4"]));
        split.raise_floor(Some(Watermark(EventTime(5))));
        split.raise_floor(Some(Watermark(EventTime(4))));
        found.extend(judge(&mut split, 0, &["6"]));
        assert_eq!(found, [false, false, true, false, true, false]);
        let mut again = split.from_the_beginning();
        assert_eq!(judge(&mut again, 0, &["1", "2", "3", "5", "4", "6"]), found);
        assert_eq!(again, split);
    }
}
