//! What changed since the last checkpoint, and how it comes back.
//!
//! An operator's state is a few named tables. Each table hands over, at a checkpoint, the rows
//! that were appended since the last one and are still alive, and the ids of older rows that
//! died. Where few of the appended rows have died, they may be among them, and among the ids: to
//! leave them out would mean to copy the others. Base + deltas in order give the live rows; a restored operator reads those that belong
//! to its worker (`route_rows` of the table's key columns), whatever the number of workers was.
//! With the same number each worker takes what it has written, without a look at the keys.
//! It numbers its rows anew, so its first checkpoint is a base again: it holds all its rows, and
//! nothing of the checkpoints before it is folded under it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array, UInt64Array};
use arrow::compute;

use crate::memory::spill::StateMemory;
use crate::types::error::{Error, Result};
use crate::types::key::route_rows;

/// The change of one table between two checkpoints.
#[derive(Clone, Debug, Default)]
pub struct TableDelta {
    /// Rows appended, each with its row id (unique within table and worker).
    pub appended: Vec<(UInt64Array, RecordBatch)>,
    /// Ids of rows of earlier deltas that died, and of those of `appended` that are dead.
    pub deleted: Vec<u64>,
}

/// The live rows of one operator's tables, as one worker wrote them, by the name of the table.
pub type TableRows = BTreeMap<String, Vec<RecordBatch>>;

/// A dataflow's state, which a fresh dataflow of the same plan takes up.
#[derive(Debug, Default)]
pub struct RestoredState {
    /// By the operator's index: what each worker of the run that wrote it has.
    pub operators: BTreeMap<usize, Vec<TableRows>>,
}

impl RestoredState {
    /// What is there for one operator on one of `workers` workers.
    pub fn reader(&self, operator: usize, worker: usize, workers: usize) -> CheckpointReader {
        let written: &[TableRows] = self.operators.get(&operator).map_or(&[], Vec::as_slice);
        CheckpointReader::over(written, worker, workers)
    }
}

/// Collects the deltas of one operator at one epoch.
#[derive(Debug, Default)]
pub struct CheckpointWriter {
    tables: BTreeMap<String, TableDelta>,
    /// The operator has more to hand over, and does so by and by.
    open: bool,
    /// Who knows how much room there is; `None`: nobody asks.
    memory: Option<Arc<StateMemory>>,
}

impl CheckpointWriter {
    /// One whose rows wait on the disk where there is no room for them.
    pub fn within(memory: Arc<StateMemory>) -> CheckpointWriter {
        CheckpointWriter { memory: Some(memory), ..CheckpointWriter::default() }
    }

    /// One for an operator within the operator.
    pub fn nested(&self) -> CheckpointWriter {
        CheckpointWriter { memory: self.memory.clone(), ..CheckpointWriter::default() }
    }

    /// Rows that were made for this checkpoint, where they wait until they are written. Rows that
    /// state has anyway are handed over as they are.
    pub fn keep(&self, rows: RecordBatch) -> RecordBatch {
        match &self.memory {
            Some(memory) => memory.keep_batch(rows),
            None => rows,
        }
    }

    /// Says whether the operator has more to hand over than it has: it is asked again then.
    pub fn set_open(&mut self, open: bool) {
        self.open = open;
    }

    /// Whether there is more to come.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Adds to what has been written of a table, in a checkpoint that is open.
    pub fn add(&mut self, table: &str, delta: TableDelta) {
        assert!(self.open, "what is complete is complete");
        let written = self.tables.entry(table.to_owned()).or_default();
        written.appended.extend(delta.appended);
        written.deleted.extend(delta.deleted);
    }

    /// Adds a table's delta; each table once per checkpoint.
    pub fn write(&mut self, table: &str, delta: TableDelta) {
        let before = self.tables.insert(table.to_owned(), delta);
        assert!(before.is_none(), "table {table} is written once per checkpoint");
    }

    /// Adds what an operator within the operator has written; `prefix` tells its tables from
    /// those of others.
    pub fn write_nested(&mut self, prefix: &str, nested: CheckpointWriter) {
        for (table, delta) in nested.tables {
            self.write(&format!("{prefix}{table}"), delta);
        }
    }

    /// Whether nothing has changed in any table.
    pub fn is_empty(&self) -> bool {
        let empty = |delta: &TableDelta| delta.appended.is_empty() && delta.deleted.is_empty();
        self.tables.values().all(empty)
    }

    pub fn into_tables(self) -> BTreeMap<String, TableDelta> {
        self.tables
    }
}

/// All checkpoints of one operator on one worker, oldest first, folded as they come.
#[derive(Clone, Debug, Default)]
pub struct CheckpointFold {
    tables: BTreeMap<String, BTreeMap<u64, RecordBatch>>,
}

impl CheckpointFold {
    /// Applies the deltas of the next checkpoint.
    ///
    /// # Errors
    /// When a row dies that never was, or an id comes twice: the checkpoint is damaged.
    pub fn apply(&mut self, writer: CheckpointWriter) -> Result<()> {
        for (name, delta) in writer.into_tables() {
            let rows = self.tables.entry(name.clone()).or_default();
            for (ids, batch) in &delta.appended {
                for (row, id) in ids.values().iter().enumerate() {
                    if rows.insert(*id, batch.slice(row, 1)).is_some() {
                        return Err(Error::internal(format!(
                            "checkpoint of {name} has row {id} twice"
                        )));
                    }
                }
            }
            for id in &delta.deleted {
                rows.remove(id).ok_or_else(|| {
                    Error::internal(format!("checkpoint of {name} deletes row {id} that it lacks"))
                })?;
            }
        }
        Ok(())
    }
}

/// Gives a fresh operator the rows of a checkpoint that belong to its worker.
#[derive(Debug)]
pub struct CheckpointReader {
    tables: TableRows,
    worker: usize,
    workers: usize,
    /// All rows are this worker's.
    own: bool,
}

impl CheckpointReader {
    /// `written`: what each worker of the run that wrote the checkpoint has.
    pub fn over(written: &[TableRows], worker: usize, workers: usize) -> CheckpointReader {
        let own = written.len() == workers;
        let parts = if own { &written[worker..=worker] } else { written };
        let mut tables = TableRows::new();
        for (name, batches) in parts.iter().flatten() {
            tables.entry(name.clone()).or_default().extend(batches.iter().cloned());
        }
        CheckpointReader { tables, worker, workers, own }
    }

    /// `folds`: one per worker of the run that wrote the checkpoint.
    ///
    /// # Errors
    /// When the rows of a table do not have one schema.
    pub fn new(
        folds: &[CheckpointFold],
        worker: usize,
        workers: usize,
    ) -> Result<CheckpointReader> {
        let mut written = Vec::with_capacity(folds.len());
        for fold in folds {
            let mut tables = TableRows::new();
            for (name, rows) in &fold.tables {
                let Some(first) = rows.values().next() else { continue };
                let batch = compute::concat_batches(&first.schema(), rows.values())?;
                tables.insert(name.clone(), vec![batch]);
            }
            written.push(tables);
        }
        Ok(CheckpointReader::over(&written, worker, workers))
    }

    /// What an operator within the operator has written with this prefix. It is for one that runs
    /// as a whole on worker 0; elsewhere there is nothing of it.
    pub fn nested(&mut self, prefix: &str) -> CheckpointReader {
        let mut tables = BTreeMap::new();
        let names: Vec<String> =
            self.tables.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
        for name in names {
            let rows = self.tables.remove(&name).unwrap_or_default();
            if self.worker == 0 {
                tables.insert(name[prefix.len()..].to_owned(), rows);
            }
        }
        CheckpointReader { tables, worker: 0, workers: 1, own: true }
    }

    /// The live rows of a table that says the same on every worker: this worker's own, or with another
    /// number of workers those of all.
    pub fn read_everywhere(&mut self, table: &str) -> Vec<RecordBatch> {
        self.tables.remove(table).unwrap_or_default()
    }

    /// The live rows of `table` whose key columns route to this worker; without key columns all
    /// rows belong to worker 0.
    ///
    /// # Errors
    /// When a key column cannot be hashed.
    pub fn read(&mut self, table: &str, key_columns: &[usize]) -> Result<Vec<RecordBatch>> {
        let batches = self.tables.remove(table).unwrap_or_default();
        if self.own {
            return Ok(batches);
        }
        if key_columns.is_empty() {
            return Ok(if self.worker == 0 { batches } else { vec![] });
        }
        let mut mine = Vec::new();
        for batch in batches {
            let keys: Vec<_> = key_columns.iter().map(|c| batch.column(*c).clone()).collect();
            let route = route_rows(&keys, batch.num_rows(), self.workers)?;
            let rows: Vec<u32> = (0..batch.num_rows() as u32)
                .filter(|row| route[*row as usize] as usize == self.worker)
                .collect();
            if !rows.is_empty() {
                mine.push(compute::take_record_batch(&batch, &UInt32Array::from(rows))?);
            }
        }
        Ok(mine)
    }
}
