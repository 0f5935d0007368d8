//! WITH RECURSIVE over changing input.
//!
//! SQL defines it by iterations: R0 is the static term; the step, which reads R(i-1) in place of the
//! recursive reference, gives the derivations of iteration i. With UNION ALL they are Ri; with UNION
//! Ri is what of them no earlier iteration has, each row once. The result is all iterations
//! together.
//!
//! A row on its way through the step carries its iteration as a last column, and what comes out has
//! the same one: the step reads the recursive reference once and keeps the column, so one tree of
//! operators serves all iterations, and other inputs of the step stand in its joins once.
//! The result then changes in the order of iterations:
//!
//! 1. Changes of the static term are derivations of iteration 0. Changes of the step's other inputs
//!    run through the step first: they meet the rows of all iterations as they were.
//! 2. The lowest iteration i that has changed derivations is settled. Nothing comes to it any more,
//!    because what comes out of the step belongs to later iterations.
//!    UNION ALL: the changes are those of Ri.
//!    UNION: for each row, derivations are counted by iteration, and the row belongs to the lowest
//!    one that has any. Where this moves from m to n, the row leaves Rm and comes to Rn; both are
//!    after i, or i itself.
//! 3. The changes of the R run through the step, and give derivations of later iterations; go on
//!    with 2 until there are none.
//!
//! Deletions need nothing else: a row that is derived only from itself, around a circle, loses its
//! derivations one by one, because each of them is of a later iteration than what it is derived
//! from.
//!
//! The step is a chain, not a tree: all that does not depend on the recursive reference comes in by
//! ports of its own. Everything happens on one worker.
//!
//! More iterations than the plan allows are an error.
//!
//! Keeps: for UNION, derivations by row and iteration; and what the step's operators keep.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::SortOptions;
use arrow::datatypes::{Int64Type, SchemaRef};

use crate::dataflow::operator::{Operator, Output, complete_checkpoint, complete_epoch};
use crate::dataflow::operators::build;
use crate::dataflow::operators::materialize::consolidate;
use crate::plan::node::{self, Node, RECURSIVE_REFERENCE};
use crate::plan::view_options::RECURSION_LIMIT;
use crate::state::delta::{CheckpointReader, CheckpointWriter};
use crate::state::ordered_table::{OrderedBy, OrderedTable};
use crate::state::spill::StoreVisitor;
use crate::types::change::ChangeBatch;
use crate::types::error::{Error, Result, SqlState};
use crate::types::time::{Epoch, Watermark};

/// Rows of an output batch.
const STEP_ROWS: usize = 8192;
/// The table in a checkpoint.
const DERIVATIONS: &str = "derivations";

/// The recursion.
#[derive(Clone, Debug)]
pub struct RecursiveSpec {
    /// The name of the recursive reference, for errors.
    pub name: String,
    /// UNION, not UNION ALL.
    pub distinct: bool,
    /// More are an error.
    pub iterations_max: u64,
    pub schema: SchemaRef,
    /// The columns of `schema`, then the iteration.
    pub step_schema: SchemaRef,
}

impl From<&node::Recursive> for RecursiveSpec {
    fn from(node: &node::Recursive) -> RecursiveSpec {
        RecursiveSpec {
            name: node.name.clone(),
            distinct: node.distinct,
            iterations_max: node.iterations_max,
            schema: node.schema.clone(),
            step_schema: node.step.schema(),
        }
    }
}

/// The `recursive` operator.
pub struct Recursive {
    spec: RecursiveSpec,
    step: Chain,
    /// UNION only: how often each row is derived in each iteration; a partition is a row, in the
    /// order of iterations.
    derivations: Option<OrderedTable>,
    /// Changes of the current epoch, by port; empty right after `on_epoch`.
    changes: Vec<Vec<ChangeBatch>>,
}

impl Recursive {
    /// # Errors
    /// When an operator of the step cannot be built, or for a column whose type has no order
    /// (SQLSTATE 0A000).
    pub fn new(node: &node::Recursive, worker: usize) -> Result<Recursive> {
        let spec = RecursiveSpec::from(node);
        let width = spec.schema.fields().len();
        let by_iteration = OrderedBy { column: width, options: SortOptions::default() };
        let derivations = match spec.distinct {
            true => {
                let rows = (0..width).collect();
                Some(OrderedTable::new(spec.step_schema.clone(), rows, vec![by_iteration])?)
            }
            false => None,
        };
        let step = Chain::new(&node.step, worker)?;
        let changes = vec![Vec::new(); node.inputs.len()];
        Ok(Recursive { spec, step, derivations, changes })
    }

    /// Runs changes of the rows of iterations through the step.
    fn derive(
        &mut self,
        changes: Vec<(usize, ChangeBatch)>,
        waiting: &mut BTreeMap<i64, Vec<ChangeBatch>>,
        out: &mut Output,
    ) -> Result<()> {
        let iteration = self.spec.schema.fields().len();
        for batch in self.step.run(changes, out)? {
            let iterations = batch.column(iteration).as_primitive::<Int64Type>().clone();
            assert_eq!(iterations.null_count(), 0, "every row is of an iteration");
            let mut places: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
            for (row, iteration) in iterations.values().iter().enumerate() {
                places.entry(*iteration).or_default().push(row as u32);
            }
            for (iteration, rows) in places {
                let next = iteration + 1;
                let rows = batch.take(&rows.into())?;
                waiting.entry(next).or_default().push(self.of_iteration(rows, next)?);
            }
        }
        Ok(())
    }

    /// Rows with another iteration, or rows that had none.
    fn of_iteration(&self, rows: ChangeBatch, iteration: i64) -> Result<ChangeBatch> {
        let width = self.spec.schema.fields().len();
        let mut columns: Vec<ArrayRef> = rows.rows().columns()[..width].to_vec();
        columns.push(Arc::new(Int64Array::from(vec![iteration; rows.num_rows()])));
        let batch = RecordBatch::try_new(self.spec.step_schema.clone(), columns)?;
        Ok(rows.with_rows(batch))
    }

    /// Counts changed derivations of one iteration, which are its last of this epoch. Gives the
    /// changes of the R, and those of the result.
    fn settle(&mut self, iteration: i64, changes: ChangeBatch) -> Result<[ChangeBatch; 2]> {
        let Some(table) = &mut self.derivations else { return Ok([changes.clone(), changes]) };
        let encoded = table.encode(changes.rows())?;
        // Rows of the changes with the iteration that they leave or come to.
        let (mut rows, mut iterations, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        let (mut shown, mut shown_weights) = (Vec::new(), Vec::new());
        for row in 0..changes.num_rows() {
            let partition = encoded.partition(row);
            let before = first_iteration(table, partition)?;
            table.add(encoded.key(row), encoded.peers(row).len(), changes.weight(row));
            let now = first_iteration(table, partition)?;
            if before == now {
                continue;
            }
            for (place, weight) in [(before, -1), (now, 1)] {
                let Some(place) = place else { continue };
                assert!(place >= iteration, "earlier iterations stand still");
                rows.push(row as u32);
                iterations.push(place);
                weights.push(weight);
            }
            if before.is_none() != now.is_none() {
                shown.push(row as u32);
                shown_weights.push(if now.is_some() { 1 } else { -1 });
            }
        }
        let width = self.spec.schema.fields().len();
        let mut columns = changes.take(&rows.into())?.rows().columns()[..width].to_vec();
        columns.push(Arc::new(Int64Array::from(iterations)));
        let moved = RecordBatch::try_new(self.spec.step_schema.clone(), columns)?;
        let shown = changes.take(&shown.into())?.into_rows();
        Ok([ChangeBatch::new(moved, weights)?, ChangeBatch::new(shown, shown_weights)?])
    }
}

/// The iteration that a row belongs to.
fn first_iteration(table: &OrderedTable, partition: &[u8]) -> Result<Option<i64>> {
    let mut rows = table.partition(partition).filter(|(_, copies)| copies.weight > 0);
    let Some((key, _)) = rows.next() else { return Ok(None) };
    let columns = table.decode_peers(std::iter::once(key))?;
    let iteration = columns.last().expect("the iteration is what a partition is sorted by");
    Ok(Some(iteration.as_primitive::<Int64Type>().value(0)))
}

impl Operator for Recursive {
    fn name(&self) -> &'static str {
        "recursive"
    }

    fn on_batch(&mut self, port: usize, batch: ChangeBatch, _: &mut Output) -> Result<()> {
        self.changes[port].push(batch);
        Ok(())
    }

    fn on_watermark(&mut self, _: usize, _: Watermark, _: &mut Output) -> Result<()> {
        // A row may be derived from any that comes later.
        Ok(())
    }

    fn on_epoch(&mut self, _: Epoch, out: &mut Output) -> Result<()> {
        if self.changes.iter().all(Vec::is_empty) {
            return Ok(());
        }
        let mut waiting: BTreeMap<i64, Vec<ChangeBatch>> = BTreeMap::new();
        let mut others = Vec::new();
        for port in 0..self.changes.len() {
            for batch in std::mem::take(&mut self.changes[port]) {
                if port == RECURSIVE_REFERENCE {
                    waiting.entry(0).or_default().push(self.of_iteration(batch, 0)?);
                } else {
                    others.push((port, batch));
                }
            }
        }
        if !others.is_empty() {
            self.derive(others, &mut waiting, out)?;
        }
        let width = self.spec.schema.fields().len();
        let columns: Vec<usize> = (0..width).collect();
        let mut result = Vec::new();
        while let Some((iteration, changes)) = waiting.pop_first() {
            if iteration.unsigned_abs() > self.spec.iterations_max {
                return Err(too_many(&self.spec));
            }
            let changes = ChangeBatch::concat(&self.spec.step_schema, &changes)?;
            for changes in consolidate(&self.spec.step_schema, vec![changes])? {
                let [moved, shown] = self.settle(iteration, changes)?;
                if !shown.is_empty() {
                    let rows = shown.project(&columns)?;
                    let batch = RecordBatch::try_new(
                        self.spec.schema.clone(),
                        rows.rows().columns().to_vec(),
                    )?;
                    result.push(rows.with_rows(batch));
                }
                if !moved.is_empty() {
                    self.derive(vec![(RECURSIVE_REFERENCE, moved)], &mut waiting, out)?;
                }
            }
        }
        for batch in consolidate(&self.spec.schema, result)? {
            for start in (0..batch.num_rows()).step_by(STEP_ROWS) {
                out.emit(batch.slice(start, STEP_ROWS.min(batch.num_rows() - start)));
            }
        }
        Ok(())
    }

    fn checkpoint(&mut self, _: Epoch, writer: &mut CheckpointWriter) -> Result<()> {
        assert!(self.changes.iter().all(Vec::is_empty), "changes are taken in by the epoch");
        if let Some(table) = &mut self.derivations {
            writer.write(DERIVATIONS, table.checkpoint_delta()?);
        }
        self.step.checkpoint(writer)
    }

    fn restore(&mut self, reader: &mut CheckpointReader) -> Result<()> {
        if let Some(table) = &mut self.derivations {
            // Everything is on one worker.
            table.restore(reader.read(DERIVATIONS, &[])?)?;
        }
        self.step.restore(reader)
    }

    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        if let Some(table) = &mut self.derivations {
            visit(table);
        }
        for link in &mut self.step.links {
            link.operator.visit_stores(&mut *visit);
        }
    }

    fn memory_bytes(&self) -> usize {
        let changes = self.changes.iter().flatten().map(ChangeBatch::size_bytes);
        self.derivations.as_ref().map_or(0, OrderedTable::memory_bytes)
            + self.step.links.iter().map(|link| link.operator.memory_bytes()).sum::<usize>()
            + changes.sum::<usize>()
    }

    fn state_rows(&self) -> usize {
        self.derivations.as_ref().map_or(0, OrderedTable::len)
            + self.step.links.iter().map(|link| link.operator.state_rows()).sum::<usize>()
    }
}

fn too_many(spec: &RecursiveSpec) -> Error {
    Error::user(
        SqlState::PROGRAM_LIMIT_EXCEEDED,
        format!(
            "recursive query \"{}\" has more than {} iterations",
            spec.name, spec.iterations_max
        ),
    )
    .hint(format!(
        "Let UNION in place of UNION ALL leave out rows that are there already, bound the depth, or \
         create the view WITH ({RECURSION_LIMIT} = n)."
    ))
}

/// The step: operators one after another, from the one that reads the recursive reference.
struct Chain {
    links: Vec<Link>,
    /// A counter that never goes back: for the operators of the step each run is an epoch.
    runs: u64,
}

/// An operator of the step.
struct Link {
    operator: Box<dyn Operator>,
    /// The input by which the chain comes in.
    chain_port: usize,
    /// Ports of the recursive operator that are other inputs of this one: (ours, its).
    others: Vec<(usize, usize)>,
}

impl Chain {
    fn new(step: &Node, worker: usize) -> Result<Chain> {
        let mut links = Vec::new();
        add_links(step, worker, &mut links)?;
        Ok(Chain { links, runs: 0 })
    }

    /// Runs changes of ports through the chain; gives what comes out.
    fn run(
        &mut self,
        changes: Vec<(usize, ChangeBatch)>,
        out: &mut Output,
    ) -> Result<Vec<ChangeBatch>> {
        self.runs += 1;
        let (chain, others): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|(port, _)| *port == RECURSIVE_REFERENCE);
        let mut flowing: Vec<ChangeBatch> = chain.into_iter().map(|(_, batch)| batch).collect();
        for link in &mut self.links {
            let mut inner = Output::default();
            for batch in flowing {
                link.operator.on_batch(link.chain_port, batch, &mut inner)?;
            }
            for (port, batch) in &others {
                if let Some((_, own)) = link.others.iter().find(|(ours, _)| ours == port) {
                    link.operator.on_batch(*own, batch.clone(), &mut inner)?;
                }
            }
            complete_epoch(link.operator.as_mut(), Epoch(self.runs), &mut inner)?;
            flowing = inner.take_batches();
            inner.take_row_errors().into_iter().for_each(|error| out.row_error(error));
        }
        Ok(flowing)
    }

    fn checkpoint(&mut self, writer: &mut CheckpointWriter) -> Result<()> {
        for (index, link) in self.links.iter_mut().enumerate() {
            let mut inner = writer.nested();
            complete_checkpoint(link.operator.as_mut(), Epoch(self.runs), &mut inner)?;
            writer.write_nested(&prefix(index), inner);
        }
        Ok(())
    }

    fn restore(&mut self, reader: &mut CheckpointReader) -> Result<()> {
        for (index, link) in self.links.iter_mut().enumerate() {
            link.operator.restore(&mut reader.nested(&prefix(index)))?;
        }
        Ok(())
    }
}

fn prefix(link: usize) -> String {
    format!("step {link}: ")
}

/// Adds the operators of a step, the one that reads the recursive reference first.
fn add_links(node: &Node, worker: usize, links: &mut Vec<Link>) -> Result<()> {
    if let Node::Input(input) = node {
        return match input.port {
            RECURSIVE_REFERENCE => Ok(()),
            _ => Err(Error::internal("a recursive step does not read the recursive reference")),
        };
    }
    let (mut chain_port, mut others) = (None, Vec::new());
    for (port, edge) in node.inputs().into_iter().enumerate() {
        match &*edge.input {
            Node::Input(input) if input.port != RECURSIVE_REFERENCE => {
                others.push((input.port, port));
            }
            below => {
                if chain_port.replace(port).is_some() {
                    return Err(Error::internal("a recursive step is a chain"));
                }
                add_links(below, worker, links)?;
            }
        }
    }
    let chain_port = chain_port.ok_or_else(|| Error::internal("a recursive step is a chain"))?;
    links.push(Link { operator: build(node, worker)?, chain_port, others });
    Ok(())
}

#[cfg(test)]
mod tests;
