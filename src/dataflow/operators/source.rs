//! One source on one worker: takes rows from its reader into the open epoch, remembers how far it
//! got, and gives new views its past.
//!
//! 1. The reader reads the columns that the dataflows want, of the splits that belong to this
//!    worker, on its own thread.
//! 2. While the source is admitted to the open epoch, batches are taken from the reader, the
//!    declared columns computed, and pushed to all readers of the source; up to a number of bytes
//!    per epoch, which is the back-pressure.
//! 3. A new view gets a second reading from the beginning up to exactly the offsets of the epoch
//!    that it starts at; the source is not admitted meanwhile.
//!
//! 4. With a watermark, rows that are late (`source_time.rs`) are taken out and told; how far each
//!    split is goes to the coordinator, which announces the source's watermark with the end of an
//!    epoch. As long as no row was late only the wanted columns are read; from the first one on
//!    all are, since a late row is kept whole.
//!
//! Keeps one offset per split. A source that nobody reads is not read, and starts from the
//! beginning for the next who does.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{
    Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array,
};
use arrow::compute;
use arrow::datatypes::{Field, Schema};

use crate::connectors::reader::{Began, Paused, ReadJob, ReaderItem, SourceReader, owner_of};
use crate::connectors::{MalformedRecord, Offset, Source, SourceRows, SplitId};
use crate::dataflow::hub::{Hub, Inbox};
use crate::dataflow::operator::RowError;
use crate::dataflow::operators::evaluate::{Evaluated, evaluate, shown_row};
use crate::dataflow::operators::source_time::{
    ColumnRule, SplitTime, SplitTimes, late_rows, with_needed,
};
use crate::dataflow::worker::{Report, SourceMetrics, TimeNews, count_rows};
use crate::plan::node::SourceSpec;
use crate::storage::manifest::SourcePlace;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;
use crate::types::time::{Epoch, EventTime, Watermark};

/// The value of a source's place that has its announced watermark, in microseconds.
pub const ANNOUNCED: &str = "announced";
/// What stands before a split's name in the value that has its event time.
const SPLIT_TIME: &str = "time of ";
/// The same before the event time up to which late rows of the split are in the table already.
pub const LATE_UNTIL: &str = "late until ";
/// What stands before a worker's number in the value that has how many of its rows were late.
const LATE_ROWS: &str = "late rows of worker ";

/// Of which split late rows are, and how far in event time it was behind them: marks of the schema
/// of the rows, which go into the log with them. A reading that begins again before them does not
/// tell the same rows twice.
pub const LATE_SPLIT_MARK: &str = "millstream.late.split";
pub const LATE_TIME_MARK: &str = "millstream.late.time";

/// One source on one worker.
pub struct WorkerSource {
    spec: Arc<SourceSpec>,
    source: Arc<dyn Source>,
    metrics: Arc<SourceMetrics>,
    worker: usize,
    workers: usize,
    pub hub: Rc<RefCell<Hub>>,
    reader: Option<SourceReader>,
    /// Since when there is a reader.
    began: Option<Began>,
    /// The source's columns that are read, ascending.
    columns: Vec<usize>,
    /// How far each split has gone into closed and open epochs.
    offsets: BTreeMap<SplitId, Offset>,
    /// Rows and malformed records up to there, of this worker.
    given: (u64, u64),
    finished: bool,
    /// Rows may go into the open epoch.
    admitted: bool,
    /// The open epoch has rows of this source from here.
    touched: bool,
    /// Said in this epoch that rows wait.
    ready_told: bool,
    /// Said in this epoch that there are no more.
    drained_told: bool,
    epoch_bytes: usize,
    /// Wakes this worker's thread.
    notify: Arc<dyn Fn() + Send + Sync>,
    /// How far in event time each split is; empty without a watermark.
    times: SplitTimes,
    /// The watermark's rule over `columns`.
    rule: Option<ColumnRule>,
    /// A late row has been seen: all columns are read.
    reads_all: bool,
    /// Splits that are too far ahead.
    paused: Paused,
    /// Late rows up to here, and by the floors that are said here, are in their table already: they
    /// were told before a crash.
    told: SplitTimes,
    /// Late rows of this worker.
    late: u64,
}

impl WorkerSource {
    /// Made on the worker's own thread, which its readers will wake.
    pub fn new(
        spec: Arc<SourceSpec>,
        source: Arc<dyn Source>,
        metrics: Arc<SourceMetrics>,
        worker: usize,
        workers: usize,
    ) -> WorkerSource {
        let thread = std::thread::current();
        WorkerSource {
            spec,
            source,
            metrics,
            worker,
            workers,
            hub: Rc::default(),
            reader: None,
            began: None,
            columns: Vec::new(),
            offsets: BTreeMap::new(),
            given: (0, 0),
            finished: false,
            admitted: false,
            touched: false,
            ready_told: false,
            drained_told: false,
            epoch_bytes: 0,
            notify: Arc::new(move || thread.unpark()),
            times: SplitTimes::new(),
            rule: None,
            reads_all: false,
            paused: Paused::default(),
            told: SplitTimes::new(),
            late: 0,
        }
    }

    pub fn object(&self) -> ObjectId {
        self.spec.object
    }

    /// Goes on where the source was read to before the start. For who reads it from the beginning,
    /// everything up to there is its past.
    pub fn resume(&mut self, place: &SourcePlace) {
        assert!(self.reader.is_none() && self.offsets.is_empty(), "a fresh source is resumed");
        for (split, offset) in &place.offsets {
            let split = SplitId(split.clone());
            if owner_of(&split, self.workers) == self.worker {
                self.offsets.insert(split, Offset(offset.clone()));
            }
        }
        self.times = self.split_times(place, SPLIT_TIME);
        self.told = self.split_times(place, LATE_UNTIL);
        for (split, told) in &self.told {
            self.times.entry(split.clone()).or_default().meet_floors(told);
        }
        let announced = place.values.get(ANNOUNCED).and_then(|text| text.parse().ok());
        if let Some(announced) = announced {
            self.hub.borrow_mut().resume_at(Watermark(EventTime(announced)));
        }
        if self.worker == 0 {
            // What others gave before is counted here.
            self.given = (place.rows, place.malformed);
            let late = place.values.iter().filter(|(name, _)| name.starts_with(LATE_ROWS));
            self.late = late.filter_map(|(_, count)| count.parse::<u64>().ok()).sum();
            self.metrics.late.fetch_add(self.late, Ordering::Relaxed);
            self.metrics.rows.fetch_add(place.rows, Ordering::Relaxed);
            self.metrics.malformed.fetch_add(place.malformed, Ordering::Relaxed);
        }
    }

    /// The values of a place that are times of this worker's splits.
    fn split_times(&self, place: &SourcePlace, prefix: &str) -> SplitTimes {
        let of = |(name, text): (&String, &String)| {
            let split = SplitId(name.strip_prefix(prefix)?.to_owned());
            let own = owner_of(&split, self.workers) == self.worker;
            own.then(|| Some((split, SplitTime::from_text(text)?))).flatten()
        };
        place.values.iter().filter_map(of).collect()
    }

    /// How far this worker's splits have gone; `None` before the first row.
    pub fn place(&self) -> Option<SourcePlace> {
        let (rows, malformed) = self.given;
        if self.offsets.is_empty() && self.given == (0, 0) {
            return None;
        }
        let text = |(split, offset): (&SplitId, &Offset)| (split.0.clone(), offset.0.clone());
        let offsets = self.offsets.iter().map(text).collect();
        let time = |(split, time): (&SplitId, &SplitTime)| {
            (format!("{SPLIT_TIME}{}", split.0), time.to_text())
        };
        let mut values: BTreeMap<String, String> = self.times.iter().map(time).collect();
        let reached = |split: &SplitId| self.times.get(split).map_or(0, |time| time.rows);
        for (split, told) in self.told.iter().filter(|(split, told)| reached(split) < told.rows) {
            values.insert(format!("{LATE_UNTIL}{}", split.0), told.to_text());
        }
        if self.late > 0 {
            values.insert(format!("{LATE_ROWS}{}", self.worker), self.late.to_string());
        }
        Some(SourcePlace { rows, malformed, offsets, values })
    }

    /// Starts the reading, or starts it again where it was when other columns are wanted.
    ///
    /// # Errors
    /// When the reader's thread cannot be started.
    pub fn read_wanted_columns(&mut self) -> Result<()> {
        let mut wanted = self.hub.borrow().wanted_columns();
        if self.reads_all {
            wanted = (0..self.spec.schema.fields().len()).collect();
        }
        let wanted = with_needed(self.spec.watermark.as_ref(), &wanted);
        let enough = wanted.iter().all(|column| self.columns.binary_search(column).is_ok());
        if self.reader.is_some() && enough {
            return Ok(());
        }
        self.columns = wanted;
        self.rule = rule_over(&self.spec, &self.columns)?;
        self.ready_told = false;
        if !self.finished {
            let began = self.began.get_or_insert_with(|| Began::now(self.offsets.clone())).clone();
            self.metrics.began_at(began.at);
            self.reader =
                Some(self.start_reader(&self.columns, self.offsets.clone(), None, began)?);
        }
        Ok(())
    }

    /// Ends the reading when no dataflow reads the source any more.
    pub fn stop_if_unread(&mut self) {
        if self.reader.is_some() && !self.hub.borrow().has_readers() {
            if self.finished {
                self.metrics.workers_finished.fetch_sub(1, Ordering::Relaxed);
            }
            self.metrics.rows.store(0, Ordering::Relaxed);
            self.metrics.ended();
            self.reader = None;
            self.began = None;
            self.columns = Vec::new();
            self.offsets = BTreeMap::new();
            self.given = (0, 0);
            self.finished = false;
            self.times = SplitTimes::new();
            self.told = SplitTimes::new();
            self.late = 0;
            self.metrics.late.store(0, Ordering::Relaxed);
            self.rule = None;
            self.reads_all = false;
            self.hub.borrow_mut().forget_watermark();
        }
    }

    fn start_reader(
        &self,
        columns: &[usize],
        from: BTreeMap<SplitId, Offset>,
        until: Option<BTreeMap<SplitId, Offset>>,
        began: Began,
    ) -> Result<SourceReader> {
        // What has been read before is not held back.
        let paused = if until.is_none() { self.paused.clone() } else { Paused::default() };
        SourceReader::start(ReadJob {
            source: self.source.clone(),
            name: self.spec.name.clone(),
            worker: self.worker,
            workers: self.workers,
            from,
            began,
            until,
            columns: physical_columns(&self.spec, columns),
            paused,
            notify: self.notify.clone(),
        })
    }

    /// A reading of everything before the open epoch, into `inbox`; `None` when there is nothing.
    ///
    /// # Errors
    /// When the reader's thread cannot be started.
    pub fn backfill(&self, inbox: Rc<RefCell<Inbox>>) -> Result<Option<Backfill>> {
        if self.offsets.is_empty() {
            return Ok(None);
        }
        let columns = with_needed(self.spec.watermark.as_ref(), &inbox.borrow().columns);
        let rule = rule_over(&self.spec, &columns)?;
        let again =
            |(split, time): (&SplitId, &SplitTime)| (split.clone(), time.from_the_beginning());
        let times = self.times.iter().map(again).collect();
        let (from, until) = (BTreeMap::new(), Some(self.offsets.clone()));
        let reader = self.start_reader(&columns, from, until, Began::now(BTreeMap::new()))?;
        let spec = self.spec.clone();
        Ok(Some(Backfill { spec, reader, columns, inbox, done: false, rule, times }))
    }

    /// Lets splits wait that are further ahead of the source's watermark than they may be. Batches
    /// that have been read already are still taken.
    fn align_splits(&self) {
        let Some(drift_max) = self.spec.watermark.as_ref().and_then(|w| w.drift_max) else {
            return;
        };
        let Some(announced) = self.hub.borrow().watermark() else { return };
        let drift_us = i64::try_from(drift_max.as_micros()).unwrap_or(i64::MAX);
        let limit = announced.0.0.saturating_add(drift_us);
        let ahead = |time: &SplitTime| time.watermark().is_some_and(|w| w.0.0 > limit);
        let splits = self.times.iter().filter(|(_, time)| ahead(time));
        self.paused.set(splits.map(|(split, _)| split.clone()).collect());
    }

    /// A new epoch has opened.
    pub fn open_epoch(&mut self, admitted: bool) {
        self.align_splits();
        self.admitted = admitted;
        self.touched = false;
        self.ready_told = false;
        self.drained_told = false;
        self.epoch_bytes = 0;
    }

    /// Takes at most one batch from the reader into the epoch `open`; whether there was one.
    pub fn poll(&mut self, open: Epoch, epoch_bytes_max: usize, reports: &mut Vec<Report>) -> bool {
        let object = self.spec.object;
        let Some(reader) = &self.reader else { return false };
        if !self.admitted {
            if !self.ready_told && !reader.is_empty() {
                self.ready_told = true;
                reports.push(Report::SourceReady(object));
            }
            return false;
        }
        let item = if self.epoch_bytes < epoch_bytes_max { reader.try_next() } else { None };
        let Some(item) = item else {
            if self.touched && !self.drained_told {
                self.drained_told = true;
                reports.push(Report::SourceDrained { object, epoch: open });
            }
            return false;
        };
        if !self.touched {
            self.touched = true;
            reports.push(Report::SourceTouched { object, epoch: open });
        }
        match item {
            ReaderItem::Splits(splits) => {
                let with_watermark = |split: SplitId| {
                    let watermark = self.times.get(&split).and_then(SplitTime::watermark);
                    (split, watermark)
                };
                let splits = splits.into_iter().map(with_watermark).collect();
                self.tell_time(TimeNews::Splits(splits), reports);
            }
            ReaderItem::Rows { split, rows } => self.take_rows(open, split, rows, reports),
            ReaderItem::End { split } => self.tell_time(TimeNews::Ended(split), reports),
            ReaderItem::Finished => {
                self.finished = true;
                self.tell_time(TimeNews::Finished, reports);
                self.metrics.workers_finished.fetch_add(1, Ordering::Relaxed);
            }
            ReaderItem::Failed { place, error } => reports.push(Report::RowErrors {
                object,
                epoch: open,
                errors: vec![RowError { error, expression: place, row: String::new(), weight: 1 }],
            }),
        }
        true
    }
}

impl WorkerSource {
    /// Takes rows of a split into the epoch `open`.
    fn take_rows(
        &mut self,
        open: Epoch,
        split: SplitId,
        read: SourceRows,
        reports: &mut Vec<Report>,
    ) {
        let (object, count) = (self.spec.object, read.rows.num_rows());
        if let Err(error) = self.try_take_rows(open, split, read, reports) {
            let errors = vec![batch_error(error, count)];
            reports.push(Report::RowErrors { object, epoch: open, errors });
        }
    }

    fn try_take_rows(
        &mut self,
        open: Epoch,
        split: SplitId,
        read: SourceRows,
        reports: &mut Vec<Report>,
    ) -> Result<()> {
        let object = self.spec.object;
        let declared = declared_columns(&self.spec, &self.columns, &read.rows);
        let (mut split_time, mut told) = (None, None);
        if let (Some(rule), Ok(declared)) = (&self.rule, &declared) {
            let mut time = self.times.get(&split).cloned().unwrap_or_default();
            time.raise_floor(self.hub.borrow().watermark());
            told = self.already_told(&split, &time, rule, &declared.rows)?;
            let judged = time.judge(rule, &declared.rows)?;
            let all_read = self.columns.len() == self.spec.schema.fields().len();
            if judged.late.is_some() && !all_read {
                // Read again from here, with all columns.
                self.reads_all = true;
                return self.read_wanted_columns();
            }
            split_time = Some((time, judged));
        }
        self.offsets.insert(split.clone(), read.offset.clone());
        count_rows(&self.metrics, read.rows.num_rows(), read.malformed.len());
        self.given.0 += read.rows.num_rows() as u64;
        self.given.1 += read.malformed.len() as u64;
        take_malformed(object, open, read, reports);
        let Declared { rows: mut batch, left_out } = declared?;
        if !left_out.is_empty() {
            reports.push(Report::RowErrors { object, epoch: open, errors: left_out });
        }
        if let Some((time, judged)) = split_time {
            let watermark = time.watermark();
            if let Some(late) = &judged.late {
                let rule = self.rule.as_ref().expect("rows were judged by it");
                self.late += late.true_count() as u64;
                self.metrics.late.fetch_add(late.true_count() as u64, Ordering::Relaxed);
                let fresh = match &told {
                    Some(told) => &compute::and_not(late, told)?,
                    None => late,
                };
                let rows = late_rows(&batch, fresh, &rule.times(&batch), judged.against)?;
                if rows.num_rows() > 0 {
                    let rows = marked(rows, &split, &time)?;
                    reports.push(Report::LateRows { object, rows });
                }
                batch = compute::filter_record_batch(&batch, &compute::not(late)?)?;
            }
            self.times.insert(split.clone(), time);
            self.tell_time(TimeNews::Rows { split, watermark }, reports);
            self.align_splits();
        }
        self.epoch_bytes += batch.get_array_memory_size();
        let batch = ChangeBatch::inserts(batch);
        self.hub.borrow_mut().push(open, &batch, Some(&self.columns))
    }

    /// Which rows, the next ones of their split, were found late before a crash; `None`: none.
    fn already_told(
        &self,
        split: &SplitId,
        time: &SplitTime,
        rule: &ColumnRule,
        rows: &RecordBatch,
    ) -> Result<Option<BooleanArray>> {
        let Some(told) = self.told.get(split).filter(|told| told.rows > time.rows) else {
            return Ok(None);
        };
        let until = usize::try_from(told.rows - time.rows).unwrap_or(usize::MAX);
        let late = time.with_floors_of(told).judge(rule, rows)?.late;
        let before = |(row, late): (usize, Option<bool>)| Some(row < until && late == Some(true));
        Ok(late.map(|late| late.iter().enumerate().map(before).collect()))
    }

    /// Tells the coordinator of event time, if it is of any interest.
    fn tell_time(&self, news: TimeNews, reports: &mut Vec<Report>) {
        if self.spec.watermark.is_some() {
            let (object, worker) = (self.spec.object, self.worker);
            reports.push(Report::SourceTime { object, worker, drops: 0, news });
        }
    }
}

/// Late rows with the marks of their split.
fn marked(rows: RecordBatch, split: &SplitId, time: &SplitTime) -> Result<RecordBatch> {
    let mut schema = rows.schema().as_ref().clone();
    schema.metadata.insert(LATE_SPLIT_MARK.to_owned(), split.0.clone());
    schema.metadata.insert(LATE_TIME_MARK.to_owned(), time.to_text());
    Ok(rows.with_schema(Arc::new(schema))?)
}

fn rule_over(spec: &SourceSpec, columns: &[usize]) -> Result<Option<ColumnRule>> {
    spec.watermark.as_ref().map(|watermark| ColumnRule::new(watermark, columns)).transpose()
}

/// A reading of a source's past for one scan of a new dataflow.
pub struct Backfill {
    spec: Arc<SourceSpec>,
    reader: SourceReader,
    /// The source's columns that are read, ascending.
    columns: Vec<usize>,
    inbox: Rc<RefCell<Inbox>>,
    done: bool,
    /// The watermark's rule over `columns`.
    rule: Option<ColumnRule>,
    /// How far the reading is, with what was announced when the rows were read first.
    times: SplitTimes,
}

impl Backfill {
    pub fn done(&self) -> bool {
        self.done
    }

    pub fn fills(&self, inbox: &Rc<RefCell<Inbox>>) -> bool {
        Rc::ptr_eq(&self.inbox, inbox)
    }

    /// Takes at most one batch from the reader into `epoch`; whether there was one. What cannot
    /// be read or computed fails the dataflow `reader_of`: its content would not be the source's.
    pub fn poll(&mut self, epoch: Epoch, reader_of: ObjectId, reports: &mut Vec<Report>) -> bool {
        if self.done {
            return false;
        }
        match self.reader.try_next() {
            None => return false,
            Some(ReaderItem::Rows { split, rows }) => {
                if let Err(error) = self.take_rows(epoch, split, &rows) {
                    reports.push(Report::RowErrors {
                        object: reader_of,
                        epoch,
                        errors: vec![batch_error(error, rows.rows.num_rows())],
                    });
                }
            }
            Some(ReaderItem::End { .. } | ReaderItem::Splits(_)) => {}
            Some(ReaderItem::Finished) => self.done = true,
            Some(ReaderItem::Failed { place, error }) => reports.push(Report::RowErrors {
                object: reader_of,
                epoch,
                errors: vec![RowError { error, expression: place, row: String::new(), weight: 1 }],
            }),
        }
        true
    }
}

impl Backfill {
    /// What is malformed, left out or late was told when it was read first.
    fn take_rows(&mut self, epoch: Epoch, split: SplitId, read: &SourceRows) -> Result<()> {
        let Declared { rows: mut batch, .. } =
            declared_columns(&self.spec, &self.columns, &read.rows)?;
        if let Some(rule) = &self.rule
            && let Some(late) = self.times.entry(split).or_default().judge(rule, &batch)?.late
        {
            batch = compute::filter_record_batch(&batch, &compute::not(&late)?)?;
        }
        let mut inbox = self.inbox.borrow_mut();
        let place = |c: &usize| self.columns.binary_search(c).expect("wanted and read");
        let places: Vec<usize> = inbox.columns.iter().map(place).collect();
        inbox.push(epoch, ChangeBatch::inserts(batch.project(&places)?));
        Ok(())
    }
}

/// The connector's columns that the source's columns `columns` are computed from.
fn physical_columns(spec: &SourceSpec, columns: &[usize]) -> Vec<usize> {
    match &spec.columns {
        None => columns.to_vec(),
        Some(exprs) => {
            let mut needed: Vec<usize> =
                columns.iter().flat_map(|column| exprs[*column].input_columns()).collect();
            needed.sort_unstable();
            needed.dedup();
            needed
        }
    }
}

/// Rows with the source's columns.
struct Declared {
    rows: RecordBatch,
    /// Rows for which a computed column failed, or is NULL and must not be.
    left_out: Vec<RowError>,
}

/// The source's columns `columns` over the rows that the connector gave for them.
fn declared_columns(spec: &SourceSpec, columns: &[usize], rows: &RecordBatch) -> Result<Declared> {
    let Some(exprs) = &spec.columns else {
        return Ok(Declared { rows: rows.clone(), left_out: Vec::new() });
    };
    let read = physical_columns(spec, columns);
    // Expressions count columns of the whole physical schema; what none of them uses is NULL.
    let full: Vec<ArrayRef> = spec
        .physical_schema
        .fields()
        .iter()
        .enumerate()
        .map(|(index, field)| match read.binary_search(&index) {
            Ok(position) => rows.column(position).clone(),
            Err(_) => new_null_array(field.data_type(), rows.num_rows()),
        })
        .collect();
    let nullable: Vec<_> = spec
        .physical_schema
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_nullable(true))
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let schema = Arc::new(Schema::new(nullable));
    let full = RecordBatch::try_new_with_options(schema, full, &options)?;
    let mut computed = Vec::with_capacity(columns.len());
    // The first error of each row that is left out.
    let mut failed: BTreeMap<usize, RowError> = BTreeMap::new();
    for column in columns {
        let expr = &exprs[*column];
        let field = spec.schema.field(*column);
        let Evaluated { values, failed: rows_failed } = evaluate(expr, &full)?;
        let missing = missing_values(field, &values);
        for (row, error) in rows_failed.into_iter().chain(missing) {
            failed.entry(row).or_insert_with(|| RowError {
                error,
                expression: format!("{} AS {expr}", field.name()),
                row: shown_row(rows, row),
                weight: 1,
            });
        }
        computed.push(values);
    }
    let mut kept = rows.num_rows();
    if !failed.is_empty() {
        let keep = BooleanArray::from_iter((0..kept).map(|row| Some(!failed.contains_key(&row))));
        kept -= failed.len();
        for values in &mut computed {
            *values = compute::filter(values, &keep)?;
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(kept));
    let schema = Arc::new(spec.schema.project(columns)?);
    let rows = RecordBatch::try_new_with_options(schema, computed, &options)?;
    Ok(Declared { rows, left_out: failed.into_values().collect() })
}

/// The rows in which a column that is NOT NULL has no value.
fn missing_values<'a>(
    field: &'a Field,
    values: &'a ArrayRef,
) -> impl Iterator<Item = (usize, Error)> + use<'a> {
    let must_be = !field.is_nullable() && values.null_count() > 0;
    let rows = if must_be { 0..values.len() } else { 0..0 };
    rows.filter(|row| values.is_null(*row)).map(|row| {
        let message =
            format!("null value in column \"{}\" violates not-null constraint", field.name());
        (row, Error::user(SqlState::NOT_NULL_VIOLATION, message))
    })
}

fn take_malformed(object: ObjectId, epoch: Epoch, rows: SourceRows, reports: &mut Vec<Report>) {
    if !rows.malformed.is_empty() {
        let errors = rows.malformed.into_iter().map(malformed_error).collect();
        reports.push(Report::RowErrors { object, epoch, errors });
    }
}

fn malformed_error(record: MalformedRecord) -> RowError {
    RowError {
        error: Error::user(SqlState::BAD_COPY_FILE_FORMAT, record.message),
        expression: record.place,
        row: record.record,
        weight: 1,
    }
}

fn batch_error(error: Error, rows: usize) -> RowError {
    RowError { error, expression: format!("{rows} rows"), row: String::new(), weight: 1 }
}
