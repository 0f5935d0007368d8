//! What a partial match remembers of the rows behind it, as far as conditions ask for it.
//!
//! A partial match carries a few words, its registers: the last and the first rows of a set of
//! variables, or the state of an aggregate over them. Two partial matches at one place of the
//! automaton with the same registers have the same future, whatever rows they took; and what is
//! kept does not grow with the match.
//!
//! States of aggregates are a tree: to take a row is to step to a child. The accumulator moves on
//! with the first child; a second one, which is rare, is computed from its rows again.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray, UInt32Array, new_null_array};
use arrow::compute::{interleave, take};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Accumulator;

use crate::pattern::rows::{PartitionRows, Rows, batch_of};
use crate::plan::match_recognize::{
    Contiguity, MatchSpec, Predicate, Read, RowRead, RowValue, Variables,
};
use crate::types::error::{Error, Result};

/// A row with the variable that it is mapped to in one word; 0 is none.
fn register_of(row: u64, variable: usize) -> u64 {
    (row + 1) << 6 | variable as u64
}

fn row_of(register: u64) -> Option<(u64, usize)> {
    (register != 0).then(|| ((register >> 6) - 1, (register & 63) as usize))
}

/// Some registers of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The last rows, newest first.
    Last,
    /// The first rows, oldest first.
    First,
    /// The state of an aggregate.
    Aggregate(usize),
}

#[derive(Clone, Copy, Debug)]
struct Group {
    kind: Kind,
    of: Variables,
    /// Where it begins among the registers.
    at: usize,
    depth: usize,
}

/// Which registers a pattern's conditions need.
#[derive(Clone, Debug, Default)]
pub struct Registers {
    groups: Vec<Group>,
    /// How many words a partial match carries.
    pub width: usize,
    /// Conditions look at the match's first row, or at how far back it is.
    pub reads_start: bool,
}

impl Registers {
    pub fn new(spec: &MatchSpec) -> Registers {
        let mut registers = Registers::default();
        for condition in spec.conditions.iter().flatten() {
            for read in condition.far.iter().flat_map(|far| &far.reads) {
                match &spec.reads[*read] {
                    Read::Row(row) if by_distance(row, spec) => registers.reads_start = true,
                    Read::Row(row) => {
                        // A frame ends at its row.
                        registers.reads_start |= spec.frame.is_some() && row.shift != 0;
                        let kind = if row.from_last { Kind::Last } else { Kind::First };
                        // No match is longer than memory.
                        let depth = usize::try_from(row.offset).unwrap_or(usize::MAX);
                        registers.add(kind, row.of, depth.saturating_add(1));
                    }
                    Read::Aggregate { aggregate, of, .. } => {
                        registers.add(Kind::Aggregate(*aggregate), *of, 1);
                    }
                    Read::MatchNumber | Read::TimedOut | Read::State | Read::WaitedFor => {}
                }
            }
        }
        for group in &mut registers.groups {
            group.at = registers.width;
            registers.width += group.depth;
        }
        registers
    }

    fn add(&mut self, kind: Kind, of: Variables, depth: usize) {
        match self.groups.iter_mut().find(|group| group.kind == kind && group.of == of) {
            Some(group) => group.depth = group.depth.max(depth),
            None => self.groups.push(Group { kind, of, at: 0, depth }),
        }
    }

    fn find(&self, kind: Kind, of: Variables) -> Result<&Group> {
        self.groups
            .iter()
            .find(|group| group.kind == kind && group.of == of)
            .ok_or_else(|| Error::internal("a condition reads what nobody remembers"))
    }

    /// Whether any register holds the state of an aggregate.
    pub fn has_aggregates(&self) -> bool {
        self.groups.iter().any(|group| matches!(group.kind, Kind::Aggregate(_)))
    }

    /// The registers that hold states of aggregates.
    pub fn aggregate_places(&self) -> impl Iterator<Item = usize> + '_ {
        let aggregates = self.groups.iter().filter(|g| matches!(g.kind, Kind::Aggregate(_)));
        aggregates.map(|group| group.at)
    }
}

/// Whether a row of the match is found by counting rows, without a register.
fn by_distance(read: &RowRead, spec: &MatchSpec) -> bool {
    read.of == Variables::ALL
        && spec.contiguity == Contiguity::Strict
        && !spec.frame.is_some_and(|frame| frame.seek)
        && matches!(read.value, RowValue::Column(_))
}

/// Whether a row is within the frame that begins at `start`, if there are frames.
pub fn in_frame(spec: &MatchSpec, start: u64, row: u64) -> bool {
    spec.frame.is_none_or(|frame| {
        row >= start && frame.rows_following.is_none_or(|rows| row - start <= rows)
    })
}

/// A partial match about to take a row.
#[derive(Clone, Copy)]
pub struct Candidate<'a> {
    /// The match's first row.
    pub start: u64,
    /// The row, and the variable that it is tried for.
    pub row: u64,
    pub variable: usize,
    pub registers: &'a [u64],
}

/// The state of an aggregate over some rows.
struct State {
    /// The state without the last row, plus one; 0: no rows.
    parent: u32,
    row: u64,
    variable: usize,
    value: ScalarValue,
    /// Gone when a child took it.
    accumulator: Option<Box<dyn Accumulator>>,
}

/// The states of a partition's partial matches. A register holds a state's place plus one.
#[derive(Default)]
pub struct States {
    states: Vec<State>,
    /// Children that were made for the current row: aggregate, parent, variable.
    children: HashMap<(usize, u32, usize), u32>,
    children_row: u64,
}

impl States {
    pub fn clear(&mut self) {
        self.states.clear();
        self.children.clear();
    }

    pub fn len(&self) -> usize {
        self.states.len()
    }

    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// The state behind one with a row more.
    fn child(
        &mut self,
        memory: &Memory<'_, '_>,
        aggregate: usize,
        parent: u32,
        (row, variable): (u64, usize),
    ) -> Result<u32> {
        let Memory { spec, rows, partition, .. } = *memory;
        if self.children_row != row {
            self.children.clear();
            self.children_row = row;
        }
        if let Some(child) = self.children.get(&(aggregate, parent, variable)) {
            return Ok(*child);
        }
        let mut accumulator = match parent.checked_sub(1) {
            None => spec.aggregates[aggregate].accumulator()?,
            Some(place) => match self.states[place as usize].accumulator.take() {
                Some(accumulator) => accumulator,
                None => self.rebuild(memory, aggregate, parent)?,
            },
        };
        let index = index_of(partition, row)?;
        let arguments = rows.arguments(aggregate, &[index], &[variable], |_| 0)?.filtered()?;
        accumulator.update_batch(&arguments)?;
        let value = accumulator.evaluate()?;
        let accumulator = Some(accumulator);
        self.states.push(State { parent, row, variable, value, accumulator });
        let child = u32::try_from(self.states.len())
            .map_err(|_| Error::internal("more states of aggregates than numbers"))?;
        self.children.insert((aggregate, parent, variable), child);
        Ok(child)
    }

    /// The accumulator of a state whose own has moved on.
    fn rebuild(
        &self,
        memory: &Memory<'_, '_>,
        aggregate: usize,
        state: u32,
    ) -> Result<Box<dyn Accumulator>> {
        let (mut taken, mut labels) = (Vec::new(), Vec::new());
        let mut place = state;
        while let Some(index) = place.checked_sub(1) {
            let state = &self.states[index as usize];
            taken.push(state.row);
            labels.push(state.variable);
            place = state.parent;
        }
        taken.reverse();
        labels.reverse();
        let mut accumulator = memory.spec.aggregates[aggregate].accumulator()?;
        let indices: Option<Vec<u32>> = taken
            .iter()
            .map(|row| memory.partition.index(*row).map(|index| index as u32))
            .collect();
        let arguments = match indices {
            Some(indices) => memory.rows.arguments(aggregate, &indices, &labels, |_| 0)?,
            None => {
                let old = memory.rows.old_rows(memory.number, &taken)?;
                memory.rows.arguments_of(aggregate, old.columns().to_vec(), &labels, |_| 0)?
            }
        };
        let arguments = arguments.filtered()?;
        accumulator.update_batch(&arguments)?;
        Ok(accumulator)
    }

    fn value(&self, aggregate: usize, state: u32, spec: &MatchSpec) -> Result<ScalarValue> {
        match state.checked_sub(1) {
            Some(place) => Ok(self.states[place as usize].value.clone()),
            None => Ok(spec.aggregates[aggregate].accumulator()?.evaluate()?),
        }
    }

    /// Forgets the states that no register reaches; `registers` are rewritten.
    pub fn collect<'a>(&mut self, registers: impl Iterator<Item = &'a mut u64>) {
        let registers: Vec<&mut u64> = registers.collect();
        let mut alive = vec![false; self.states.len()];
        for register in &registers {
            let mut place = **register as u32;
            while let Some(index) = place.checked_sub(1) {
                if std::mem::replace(&mut alive[index as usize], true) {
                    break;
                }
                place = self.states[index as usize].parent;
            }
        }
        let mut moved = vec![0_u32; self.states.len() + 1];
        let mut kept = 0;
        for (place, alive) in alive.iter().enumerate() {
            if *alive {
                kept += 1;
                moved[place + 1] = kept;
            }
        }
        let mut place = 0;
        self.states.retain(|_| {
            place += 1;
            alive[place - 1]
        });
        for state in &mut self.states {
            state.parent = moved[state.parent as usize];
        }
        for register in registers {
            *register = u64::from(moved[*register as usize]);
        }
        self.children.clear();
    }

    pub fn memory_bytes(&self) -> usize {
        let accumulators = self.states.iter().filter_map(|state| state.accumulator.as_ref());
        self.states.capacity() * size_of::<State>()
            + accumulators.map(|accumulator| accumulator.size()).sum::<usize>()
    }
}

fn index_of(partition: &PartitionRows, row: u64) -> Result<u32> {
    partition
        .index(row)
        .map(|index| index as u32)
        .ok_or_else(|| Error::internal("a row of a partial match was forgotten"))
}

/// What conditions and updates of one partition work with.
pub struct Memory<'a, 'r> {
    pub spec: &'a MatchSpec,
    pub layout: &'a Registers,
    pub rows: &'a Rows<'r>,
    pub partition: &'a PartitionRows,
    /// Which of the partitions it is.
    pub number: usize,
    /// What MATCH_NUMBER() is for who is tried.
    pub match_number: i64,
}

impl Memory<'_, '_> {
    /// The registers behind the row.
    pub fn take_row(
        &self,
        states: &mut States,
        candidate: Candidate<'_>,
        into: &mut Vec<u64>,
    ) -> Result<()> {
        let base = into.len();
        into.extend_from_slice(candidate.registers);
        for group in &self.layout.groups {
            if !group.of.contains(candidate.variable) {
                continue;
            }
            let registers = &mut into[base + group.at..][..group.depth];
            let register = register_of(candidate.row, candidate.variable);
            match group.kind {
                Kind::Last => {
                    registers.rotate_right(1);
                    registers[0] = register;
                }
                Kind::First => {
                    if let Some(free) = registers.iter_mut().find(|r| **r == 0) {
                        *free = register;
                    }
                }
                Kind::Aggregate(aggregate) => {
                    let parent = registers[0] as u32;
                    let row = (candidate.row, candidate.variable);
                    let child = states.child(self, aggregate, parent, row)?;
                    registers[0] = u64::from(child);
                }
            }
        }
        Ok(())
    }

    /// For which of the candidates the predicate holds.
    ///
    /// # Errors
    /// When it cannot be computed for some of them; it does not say which.
    pub fn holds(
        &self,
        states: &mut States,
        predicate: &Predicate,
        candidates: &[Candidate<'_>],
    ) -> Result<Vec<bool>> {
        let mut columns = Vec::with_capacity(predicate.reads.len());
        for (place, read) in predicate.reads.iter().enumerate() {
            let data_type = predicate.schema.field(place).data_type();
            let column = match &self.spec.reads[*read] {
                Read::Row(row) => self.row_values(row, candidates)?,
                Read::Aggregate { aggregate, of, .. } => {
                    let values = candidates
                        .iter()
                        .map(|candidate| self.aggregate(states, *aggregate, *of, *candidate))
                        .collect::<Result<Vec<_>>>()?;
                    ScalarValue::iter_to_array(values)?
                }
                Read::MatchNumber => {
                    let number = std::iter::repeat_n(self.match_number, candidates.len());
                    Arc::new(Int64Array::from_iter_values(number))
                }
                Read::TimedOut | Read::State | Read::WaitedFor => {
                    new_null_array(data_type, candidates.len())
                }
            };
            columns.push(match column.data_type() == data_type {
                true => column,
                false => arrow::compute::cast(&column, data_type)?,
            });
        }
        let input = batch_of(predicate, columns, candidates.len())?;
        let holds = predicate.expr.evaluate_condition(&input)?;
        Ok(holds.values().iter().collect())
    }

    fn aggregate(
        &self,
        states: &mut States,
        aggregate: usize,
        of: Variables,
        candidate: Candidate<'_>,
    ) -> Result<ScalarValue> {
        let group = self.layout.find(Kind::Aggregate(aggregate), of)?;
        let mut state = candidate.registers[group.at] as u32;
        if of.contains(candidate.variable) {
            let row = (candidate.row, candidate.variable);
            state = states.child(self, aggregate, state, row)?;
        }
        states.value(aggregate, state, self.spec)
    }

    /// What a read is for each candidate.
    fn row_values(&self, read: &RowRead, candidates: &[Candidate<'_>]) -> Result<ArrayRef> {
        let mut found = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            found.push(self.find_row(read, *candidate)?);
        }
        match read.value {
            RowValue::Column(column) => self.column_values(column, &found, read.shift, candidates),
            RowValue::Classifier => {
                let names = found.iter().map(|found| {
                    let (_, variable) = found.as_ref()?;
                    self.spec.variables.get(*variable).map(String::as_str)
                });
                Ok(Arc::new(StringArray::from_iter(names)))
            }
        }
    }

    /// A column's values at rows at some distance from those that were found.
    fn column_values(
        &self,
        column: usize,
        found: &[Option<(u64, usize)>],
        shift: i64,
        candidates: &[Candidate<'_>],
    ) -> Result<ArrayRef> {
        let partition = self.partition;
        // The rows that are not in the batch, each once.
        let mut old: Vec<u64> = Vec::new();
        let mut shifted: Vec<Option<u64>> = Vec::with_capacity(found.len());
        for (found, candidate) in found.iter().zip(candidates) {
            let row = found.and_then(|(row, _)| row.checked_add_signed(shift));
            let row = row.filter(|row| (partition.shown_from..partition.end_row()).contains(row));
            let row = row.filter(|row| in_frame(self.spec, candidate.start, *row));
            old.extend(row.filter(|row| *row < partition.first_row));
            shifted.push(row);
        }
        if old.is_empty() {
            let indices = shifted.iter().map(|row| Some(partition.index((*row)?)? as u32));
            let indices = UInt32Array::from_iter(indices);
            return Ok(take(self.rows.batch.column(column), &indices, None)?);
        }
        old.sort_unstable();
        old.dedup();
        let fetched = self.rows.old_rows(self.number, &old)?;
        let own = self.rows.batch.column(column);
        let nothing = new_null_array(own.data_type(), 1);
        let places: Vec<(usize, usize)> = shifted
            .iter()
            .map(|row| match row {
                None => (2, 0),
                Some(row) => match partition.index(*row) {
                    Some(index) => (0, index),
                    None => (1, old.partition_point(|other| other < row)),
                },
            })
            .collect();
        Ok(interleave(&[own, fetched.column(column), &nothing], &places)?)
    }

    /// The row that a read means before it is shifted, with the row's variable.
    fn find_row(&self, read: &RowRead, candidate: Candidate<'_>) -> Result<Option<(u64, usize)>> {
        let current = Some((candidate.row, candidate.variable));
        let own = read.of.contains(candidate.variable);
        if by_distance(read, self.spec) {
            let row = match read.from_last {
                true => candidate.row.checked_sub(read.offset),
                false => candidate.start.checked_add(read.offset),
            };
            let inside = row.filter(|row| (candidate.start..=candidate.row).contains(row));
            return Ok(inside.map(|row| (row, candidate.variable)));
        }
        let kind = if read.from_last { Kind::Last } else { Kind::First };
        let group = self.layout.find(kind, read.of)?;
        let registers = &candidate.registers[group.at..][..group.depth];
        // The layout has room for the offset.
        let offset = read.offset as usize;
        Ok(match (read.from_last, own) {
            (true, true) if offset == 0 => current,
            (true, true) => row_of(registers[offset - 1]),
            (true, false) => row_of(registers[offset]),
            (false, _) => match row_of(registers[offset]) {
                Some(row) => Some(row),
                None => {
                    let known = registers.iter().take_while(|r| **r != 0).count();
                    if own && known == offset { current } else { None }
                }
            },
        })
    }
}
