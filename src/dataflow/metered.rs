//! What each operator of a running dataflow has done and holds: the figures behind EXPLAIN
//! ANALYZE, `millstream.operators` and `millstream.memory`.
//!
//! Every operator is wrapped once, by [`DataflowMetrics::watch`]. A call costs two looks at the
//! clock and a few additions, whatever the number of rows. State is asked for when someone looks.
//! Operators are numbered in the order in which they are assembled (`plan::operators`); the one
//! behind them keeps the result.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use crate::dataflow::operator::{Operator, Output};
use crate::observe::clock::Clock;
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::state::spill::{Pass, Spill, StateMemory, StoreVisitor};
use crate::types::change::ChangeBatch;
use crate::types::error::Result;
use crate::types::partial_match::PartialMatch;
use crate::types::time::{Epoch, Watermark};

/// One operator's figures on one worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperatorFigures {
    /// Rows of changes that came in, of all ports, and that went out; a row of any weight is one.
    pub rows_in: u64,
    pub rows_out: u64,
    /// Rows and bytes that it holds now.
    pub state_rows: u64,
    pub state_bytes: u64,
    /// Bytes of rows that it has on the disk.
    pub disk_bytes: u64,
    /// Time spent in it.
    pub busy: Duration,
    /// Closed epochs that it has not finished.
    pub lag_epochs: u64,
    /// The watermark of its output; `None`: it has announced none.
    pub watermark: Option<Watermark>,
}

impl OperatorFigures {
    /// The figures of two workers together.
    #[must_use]
    pub fn and(self, other: OperatorFigures) -> OperatorFigures {
        OperatorFigures {
            rows_in: self.rows_in + other.rows_in,
            rows_out: self.rows_out + other.rows_out,
            state_rows: self.state_rows + other.state_rows,
            state_bytes: self.state_bytes + other.state_bytes,
            disk_bytes: self.disk_bytes + other.disk_bytes,
            busy: self.busy + other.busy,
            lag_epochs: self.lag_epochs.max(other.lag_epochs),
            // A worker without one holds the others back.
            watermark: self.watermark.min(other.watermark),
        }
    }
}

/// A dataflow's figures on one worker.
#[derive(Clone, Debug, Default)]
pub struct DataflowFigures {
    /// By number.
    pub operators: Vec<OperatorFigures>,
    /// By number: what the operator counts beside rows.
    pub counted: Vec<Vec<(String, u64)>>,
    /// Partial matches of row patterns by the operator's number, if they were asked for.
    pub partial_matches: Vec<(usize, PartialMatch)>,
    /// Since it was built.
    pub age: Duration,
}

/// What is counted as it happens.
#[derive(Debug, Default)]
pub struct Counters {
    rows_in: Cell<u64>,
    rows_out: Cell<u64>,
    busy: Cell<Duration>,
    /// The newest epoch that is finished.
    finished: Cell<Epoch>,
    /// The newest watermark that was announced.
    watermark: Cell<Option<Watermark>>,
}

impl Counters {
    pub fn add_rows_out(&self, rows: usize) {
        self.rows_out.set(self.rows_out.get() + rows as u64);
    }

    pub fn finish(&self, epoch: Epoch) {
        self.finished.set(epoch.max(self.finished.get()));
    }
}

type Shared = Rc<RefCell<Box<dyn Operator>>>;

/// The operators of one dataflow on one worker.
pub struct DataflowMetrics {
    clock: Clock,
    /// When it was built, on the clock.
    since: Duration,
    watched: RefCell<Vec<(Rc<Counters>, Option<Shared>)>>,
}

impl DataflowMetrics {
    pub fn new(clock: Clock) -> DataflowMetrics {
        let since = clock.elapsed();
        DataflowMetrics { clock, since, watched: RefCell::default() }
    }

    /// The operator under watch, with the next number.
    pub fn watch(&self, operator: Box<dyn Operator>) -> Box<dyn Operator> {
        let name = operator.name();
        let (counters, operator) = (Rc::new(Counters::default()), Rc::new(RefCell::new(operator)));
        self.watched.borrow_mut().push((counters.clone(), Some(operator.clone())));
        Box::new(Metered { name, operator, counters, clock: self.clock.clone() })
    }

    /// Counters for what is no operator (scans, constants), with the next number.
    pub fn count(&self) -> Rc<Counters> {
        let counters = Rc::new(Counters::default());
        self.watched.borrow_mut().push((counters.clone(), None));
        counters
    }

    /// Lets rows of all operators go to the disk, as far as that is wanted.
    pub fn spill(&self, memory: &StateMemory, pass: Pass) {
        for (_, operator) in self.watched.borrow().iter() {
            if let Some(operator) = operator {
                let mut spill = |store: &mut dyn Spill| store.spill(memory, pass);
                operator.borrow_mut().visit_stores(&mut spill);
            }
        }
    }

    /// The figures now. `closed` is the newest epoch that the dataflow has to finish.
    pub fn figures(&self, closed: Epoch) -> DataflowFigures {
        let figures = |(counters, operator): &(Rc<Counters>, Option<Shared>)| {
            let mut disk_bytes = 0;
            if let Some(operator) = operator {
                let mut add = |store: &mut dyn Spill| disk_bytes += store.disk_bytes() as u64;
                operator.borrow_mut().visit_stores(&mut add);
            }
            let operator = operator.as_ref().map(|operator| operator.borrow());
            OperatorFigures {
                rows_in: counters.rows_in.get(),
                rows_out: counters.rows_out.get(),
                state_rows: operator.as_ref().map_or(0, |o| o.state_rows() as u64),
                state_bytes: operator.as_ref().map_or(0, |o| o.memory_bytes() as u64),
                disk_bytes,
                busy: counters.busy.get(),
                lag_epochs: closed.0.saturating_sub(counters.finished.get().0),
                watermark: counters.watermark.get(),
            }
        };
        let counted = |(_, operator): &(Rc<Counters>, Option<Shared>)| {
            operator.as_ref().map(|operator| operator.borrow().counted()).unwrap_or_default()
        };
        DataflowFigures {
            operators: self.watched.borrow().iter().map(figures).collect(),
            counted: self.watched.borrow().iter().map(counted).collect(),
            partial_matches: Vec::new(),
            age: self.clock.elapsed().saturating_sub(self.since),
        }
    }

    /// The partial matches of row patterns, so many of each operator at most. Operators that cannot
    /// tell now are left out: nobody's work depends on it.
    pub fn partial_matches(&self, limit: usize) -> Vec<(usize, PartialMatch)> {
        let watched = self.watched.borrow();
        let numbered = watched.iter().enumerate();
        let of = numbered.filter_map(|(number, (_, operator))| {
            let found = operator.as_ref()?.borrow().partial_matches(limit).ok()?;
            Some(found.into_iter().map(move |one| (number, one)))
        });
        of.flatten().collect()
    }
}

/// An operator with its counters.
struct Metered {
    name: &'static str,
    operator: Shared,
    counters: Rc<Counters>,
    clock: Clock,
}

impl Metered {
    fn call<T>(&self, run: impl FnOnce(&mut dyn Operator) -> Result<T>) -> Result<T> {
        let began = self.clock.elapsed();
        let result = run(self.operator.borrow_mut().as_mut());
        let took = self.clock.elapsed().saturating_sub(began);
        self.counters.busy.set(self.counters.busy.get() + took);
        result
    }

    /// A call that may emit.
    fn emit(
        &self,
        out: &mut Output,
        run: impl FnOnce(&mut dyn Operator, &mut Output) -> Result<()>,
    ) -> Result<()> {
        let before = out.batches.len();
        self.call(|operator| run(operator, out))?;
        let rows = out.batches[before..].iter().map(ChangeBatch::num_rows).sum();
        self.counters.add_rows_out(rows);
        self.counters.watermark.set(self.counters.watermark.get().max(out.watermark));
        Ok(())
    }
}

impl Operator for Metered {
    fn name(&self) -> &'static str {
        self.name
    }

    fn on_batch(&mut self, port: usize, batch: ChangeBatch, out: &mut Output) -> Result<()> {
        let rows = batch.num_rows() as u64;
        self.counters.rows_in.set(self.counters.rows_in.get() + rows);
        self.emit(out, |operator, out| operator.on_batch(port, batch, out))
    }

    fn on_watermark(&mut self, port: usize, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.emit(out, |operator, out| operator.on_watermark(port, watermark, out))
    }

    fn on_epoch(&mut self, epoch: Epoch, out: &mut Output) -> Result<()> {
        self.emit(out, |operator, out| operator.on_epoch(epoch, out))?;
        if !out.is_unfinished() {
            self.counters.finish(epoch);
        }
        Ok(())
    }

    fn checkpoint(&mut self, epoch: Epoch, writer: &mut CheckpointWriter) -> Result<()> {
        self.call(|operator| operator.checkpoint(epoch, writer))
    }

    fn go_on_with_checkpoint(&mut self, writer: &mut CheckpointWriter) -> Result<bool> {
        self.call(|operator| operator.go_on_with_checkpoint(writer))
    }

    fn restore(&mut self, reader: &mut CheckpointReader) -> Result<()> {
        self.call(|operator| operator.restore(reader))
    }

    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        self.operator.borrow_mut().visit_stores(visit);
    }

    fn memory_bytes(&self) -> usize {
        self.operator.borrow().memory_bytes()
    }

    fn state_rows(&self) -> usize {
        self.operator.borrow().state_rows()
    }

    fn counted(&self) -> Vec<(String, u64)> {
        self.operator.borrow().counted()
    }

    fn partial_matches(&self, limit: usize) -> Result<Vec<PartialMatch>> {
        self.operator.borrow().partial_matches(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataflow::operators::union::{Union, UnionSpec};
    use crate::dataflow::script::{batch, schema};
    use crate::types::time::EventTime;

    #[test]
    fn calls_are_counted_and_timed() {
        let clock = Clock::for_test();
        let metrics = DataflowMetrics::new(clock.clone());
        metrics.count().add_rows_out(7);
        let columns = schema("a bigint");
        let spec = UnionSpec { inputs: 2, schema: columns.clone() };
        let mut union = metrics.watch(Box::new(Union::new(spec)));
        let mut out = Output::default();
        for port in 0..2 {
            let rows = batch(&columns, "+ 1\n-3 2");
            union.on_batch(port, rows, &mut out).expect("two rows");
        }
        union.on_epoch(Epoch(4), &mut out).expect("the epoch");
        clock.advance(Duration::from_secs(2));
        assert_eq!(metrics.figures(Epoch(6)).operators[1].watermark, None);
        for port in 0..2 {
            let watermark = Watermark(EventTime(5 + port as i64));
            union.on_watermark(port, watermark, &mut out).expect("a watermark");
        }
        let figures = metrics.figures(Epoch(6));
        assert_eq!(figures.age, Duration::from_secs(2));
        let [scan, union] = figures.operators[..] else { panic!("two are counted") };
        assert_eq!(union.watermark, Some(Watermark(EventTime(5))));
        assert_eq!((scan.rows_in, scan.rows_out, scan.lag_epochs), (0, 7, 6));
        assert_eq!((union.rows_in, union.rows_out, union.lag_epochs), (4, 4, 2));
        assert_eq!(scan.and(union).rows_out, 11);
        assert_eq!(scan.and(union).lag_epochs, 6);
    }
}
