//! The partitions in which something is under way, and when they are to be looked at again.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use foldhash::fast::FixedState;

use crate::pattern::kernel::Kernel;
use crate::pattern::matcher::Matcher;
use crate::state::delta::TableDelta;
use crate::state::row_ids::ShortId;
use crate::types::error::{Error, Result};

/// The table in a checkpoint.
pub const TABLE: &str = "partitions";
/// What a checkpoint has of a partition behind its key.
const NUMBERS: [&str; 5] = ["first", "context", "tried", "matches", "covered"];
/// Behind these, the rows that matches passed over: their distances from the first row that is not
/// decided.
const PASSED: &str = "passed";
/// Rows of one batch of a checkpoint.
const CHECKPOINT_ROWS: usize = 8192;

/// The bytes of a partition's columns.
type Key = Box<[u8]>;

/// A partition with its rows.
pub struct Partition {
    key: Key,
    pub matcher: Matcher,
    /// What it is matched by; `None` until its first row comes.
    pub kernel: Option<Arc<Kernel>>,
    /// Its rows from `first` on, in order.
    pub ids: VecDeque<ShortId>,
    /// The number, in the partition, of the first row that is kept.
    pub first: u64,
    /// Rows before this one have been tried, and what failed there has been told.
    pub tried: u64,
    deadline_us: Option<i64>,
    held_us: Option<i64>,
    /// Its number in the last checkpoint; 0: it is not there.
    written_as: u64,
    /// It is among those to be written.
    changed: bool,
}

impl Partition {
    /// Behind the number of its last row.
    pub fn end_row(&self) -> u64 {
        self.first + self.ids.len() as u64
    }

    /// Nothing is under way, and no row is needed.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.matcher.is_idle()
    }

    /// The ids of rows by their numbers.
    ///
    /// # Errors
    /// For a row that is gone: our mistake.
    pub fn ids_of(&self, rows: &[u64]) -> Result<Vec<ShortId>> {
        let id = |row: &u64| {
            let place = row.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
            let id = place.and_then(|place| self.ids.get(place));
            id.copied().ok_or_else(|| Error::internal("a row of a partial match was forgotten"))
        };
        rows.iter().map(id).collect()
    }
}

/// The keys of a batch's rows.
pub struct Keys(Option<arrow::row::Rows>);

impl Keys {
    pub fn key(&self, row: usize) -> &[u8] {
        self.0.as_ref().map_or(&[], |rows| rows.row(row).data())
    }
}

/// All partitions, in slots that are used again.
pub struct Partitions {
    columns: Vec<usize>,
    fields: Vec<FieldRef>,
    /// `None` without PARTITION BY.
    bytes: Option<RowConverter>,
    by_key: HashMap<Key, u32, FixedState>,
    slots: Vec<Option<Partition>>,
    free: Vec<u32>,
    /// Something of a partition counts also when nothing is under way in it.
    numbered: bool,
    /// When the first beginning of a partition is over.
    deadlines: BTreeSet<(i64, u32)>,
    /// Before which time no match to come of a partition ends.
    held: BTreeSet<(i64, u32)>,
    last_written: u64,
    changed: Vec<u32>,
    /// Numbers of the last checkpoint whose partitions have gone or changed.
    dead: Vec<u64>,
}

impl Partitions {
    /// # Errors
    /// For a column whose type has no order.
    pub fn new(input: &SchemaRef, columns: &[usize], numbered: bool) -> Result<Partitions> {
        let fields: Vec<FieldRef> = columns.iter().map(|c| input.fields()[*c].clone()).collect();
        let sort_fields = fields.iter().map(|field| SortField::new(field.data_type().clone()));
        let bytes = match columns {
            [] => None,
            _ => Some(RowConverter::new(sort_fields.collect())?),
        };
        Ok(Partitions {
            columns: columns.to_vec(),
            fields,
            bytes,
            by_key: HashMap::with_hasher(FixedState::default()),
            slots: Vec::new(),
            free: Vec::new(),
            numbered,
            deadlines: BTreeSet::new(),
            held: BTreeSet::new(),
            last_written: 0,
            changed: Vec::new(),
            dead: Vec::new(),
        })
    }

    /// The keys of rows.
    pub fn keys(&self, rows: &RecordBatch) -> Result<Keys> {
        let columns: Vec<ArrayRef> =
            self.columns.iter().map(|column| rows.column(*column).clone()).collect();
        let bytes = self.bytes.as_ref().map(|bytes| bytes.convert_columns(&columns));
        Ok(Keys(bytes.transpose()?))
    }

    pub fn get(&self, slot: u32) -> &Partition {
        self.slots[slot as usize].as_ref().expect("a slot that is known has a partition")
    }

    /// A partition that will change.
    pub fn get_mut(&mut self, slot: u32) -> &mut Partition {
        let partition =
            self.slots[slot as usize].as_mut().expect("a slot that is known has a partition");
        if !std::mem::replace(&mut partition.changed, true) {
            self.changed.push(slot);
        }
        partition
    }

    /// The partition of a key; a fresh one if there is none.
    pub fn find_or_add(&mut self, key: &[u8]) -> u32 {
        match self.by_key.get(key) {
            Some(slot) => *slot,
            None => self.add(key.into(), Matcher::default(), 0),
        }
    }

    fn add(&mut self, key: Key, matcher: Matcher, first: u64) -> u32 {
        let partition = Partition {
            key: key.clone(),
            matcher,
            kernel: None,
            ids: VecDeque::new(),
            first,
            tried: 0,
            deadline_us: None,
            held_us: None,
            written_as: 0,
            changed: true,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(partition);
                slot
            }
            None => {
                self.slots.push(Some(partition));
                // Each partition is kilobytes: memory ends long before numbers.
                (self.slots.len() - 1) as u32
            }
        };
        self.by_key.insert(key, slot);
        self.changed.push(slot);
        slot
    }

    /// All partitions.
    pub fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        let there = self.slots.iter().enumerate().filter(|(_, partition)| partition.is_some());
        there.map(|(slot, _)| slot as u32)
    }

    /// Those of which a beginning is over at `now_us`, the longest ago first.
    pub fn expired(&self, now_us: i64) -> Vec<u32> {
        self.deadlines.range(..(now_us, 0)).map(|(_, slot)| *slot).collect()
    }

    /// The least time that a match to come may end at, of those that hold the output back.
    pub fn held_us(&self) -> Option<i64> {
        self.held.first().map(|(held_us, _)| *held_us)
    }

    /// Notes when a partition is to be looked at again, and what it holds back.
    pub fn note(&mut self, slot: u32, deadline_us: Option<i64>, held_us: Option<i64>) {
        let Some(partition) = &mut self.slots[slot as usize] else { return };
        let change = |set: &mut BTreeSet<(i64, u32)>, old: &mut Option<i64>, new: Option<i64>| {
            if *old != new {
                if let Some(old) = old {
                    set.remove(&(*old, slot));
                }
                set.extend(new.map(|new| (new, slot)));
                *old = new;
            }
        };
        change(&mut self.deadlines, &mut partition.deadline_us, deadline_us);
        change(&mut self.held, &mut partition.held_us, held_us);
    }

    /// Lets go of a partition in which nothing is under way, as far as it can be; of an ended one
    /// altogether.
    pub fn leave(&mut self, slot: u32, ended: bool) {
        self.note(slot, None, None);
        let kernel = self.get(slot).kernel.as_ref();
        let begins_once = kernel.is_some_and(|kernel| kernel.spec.pattern.has_start());
        if (self.numbered || begins_once) && !ended {
            let partition = self.get_mut(slot);
            let matcher = &partition.matcher;
            // Without the memory of what was under way.
            partition.matcher = Matcher::resume(
                matcher.undecided_row(),
                matcher.matches(),
                matcher.matched_until(),
            );
            partition.ids = VecDeque::new();
            return;
        }
        if let Some(partition) = self.slots[slot as usize].take() {
            self.by_key.remove(&partition.key);
            self.free.push(slot);
            self.dead.extend((partition.written_as != 0).then_some(partition.written_as));
        }
    }

    /// Rows have got other ids.
    pub fn move_rows(
        &mut self,
        rows: &RecordBatch,
        moved: &HashMap<ShortId, ShortId>,
    ) -> Result<()> {
        let keys = self.keys(rows)?;
        let mut slots: Vec<u32> = (0..rows.num_rows())
            .filter_map(|row| self.by_key.get(keys.key(row)).copied())
            .collect();
        slots.sort_unstable();
        slots.dedup();
        for slot in slots {
            // Ids are not in checkpoints: the partition has not changed.
            let Some(partition) = &mut self.slots[slot as usize] else { continue };
            for id in &mut partition.ids {
                *id = moved.get(id).copied().unwrap_or(*id);
            }
        }
        Ok(())
    }

    fn schema(&self) -> SchemaRef {
        let numbers = NUMBERS.map(|name| Arc::new(Field::new(name, DataType::Int64, false)));
        let passed = Arc::new(Field::new(PASSED, DataType::Utf8, false));
        let fields = self.fields.iter().cloned().chain(numbers).chain([passed]);
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// What changed since the last checkpoint.
    pub fn checkpoint_delta(&mut self) -> Result<TableDelta> {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        let mut delta = TableDelta { appended: vec![], deleted: std::mem::take(&mut self.dead) };
        let mut written: Vec<(u64, u32)> = Vec::with_capacity(changed.len());
        for slot in changed {
            // It may have gone, and its slot may have been taken and left again.
            let Some(partition) = &mut self.slots[slot as usize] else { continue };
            if !std::mem::take(&mut partition.changed) {
                continue;
            }
            delta.deleted.extend((partition.written_as != 0).then_some(partition.written_as));
            self.last_written += 1;
            partition.written_as = self.last_written;
            written.push((self.last_written, slot));
        }
        for part in written.chunks(CHECKPOINT_ROWS) {
            let partitions: Vec<&Partition> =
                part.iter().map(|(_, slot)| self.get(*slot)).collect();
            let mut columns: Vec<ArrayRef> = match &self.bytes {
                None => vec![],
                Some(bytes) => {
                    let parser = bytes.parser();
                    bytes.convert_rows(partitions.iter().map(|p| parser.parse(&p.key)))?
                }
            };
            let number = |of: &dyn Fn(&Partition) -> u64| -> ArrayRef {
                Arc::new(Int64Array::from_iter_values(partitions.iter().map(|p| of(p) as i64)))
            };
            let undecided = |p: &Partition| p.matcher.undecided_row();
            // Whether rows are missing before the first is all that counts of its number.
            columns.push(number(&|p| p.first.min(1)));
            columns.push(number(&|p| undecided(p) - p.first));
            columns.push(number(&|p| p.tried.saturating_sub(p.first)));
            columns.push(number(&|p| p.matcher.matches() as u64));
            columns.push(number(&|p| p.matcher.matched_until().saturating_sub(undecided(p))));
            let passed = partitions.iter().map(|p| {
                let distances = p.matcher.passed_rows().map(|row| (row - undecided(p)).to_string());
                distances.collect::<Vec<_>>().join(" ")
            });
            columns.push(Arc::new(StringArray::from_iter_values(passed)));
            let ids = UInt64Array::from_iter_values(part.iter().map(|(id, _)| *id));
            delta.appended.push((ids, RecordBatch::try_new(self.schema(), columns)?));
        }
        Ok(delta)
    }

    /// Fills fresh partitions from a checkpoint; their rows come later.
    ///
    /// # Errors
    /// When it is of something else.
    pub fn restore(&mut self, batches: Vec<RecordBatch>) -> Result<()> {
        let width = self.columns.len();
        for batch in batches {
            if batch.num_columns() != width + NUMBERS.len() + 1 {
                return Err(Error::internal("a checkpoint has partitions of another pattern"));
            }
            let passed = batch.column(width + NUMBERS.len()).as_string::<i32>();
            let numbers: Vec<Int64Array> = batch.columns()[width..width + NUMBERS.len()]
                .iter()
                .map(|column| column.as_primitive::<Int64Type>().clone())
                .collect();
            let keys = match &self.bytes {
                None => Keys(None),
                Some(bytes) => Keys(Some(bytes.convert_columns(&batch.columns()[..width])?)),
            };
            for row in 0..batch.num_rows() {
                let number = |place: usize| numbers[place].value(row) as u64;
                let [first, context, tried] = [number(0), number(1), number(2)];
                let at = first + context;
                let distances = passed.value(row).split_whitespace();
                let passed = distances.filter_map(|text| Some(at + text.parse::<u64>().ok()?));
                let matcher =
                    Matcher::resume(at, numbers[3].value(row), at + number(4)).with_passed(passed);
                let slot = self.add(keys.key(row).into(), matcher, first);
                self.get_mut(slot).tried = first + tried;
            }
        }
        Ok(())
    }

    /// Partial matches alive.
    pub fn partial_matches(&self) -> usize {
        self.slots.iter().flatten().map(|partition| partition.matcher.partial_matches()).sum()
    }

    pub fn memory_bytes(&self) -> usize {
        let there = self.slots.iter().flatten();
        let kept = there.map(|partition| {
            partition.matcher.memory_bytes()
                + 2 * partition.key.len()
                + partition.ids.capacity() * size_of::<ShortId>()
        });
        kept.sum::<usize>()
            + self.slots.capacity() * size_of::<Option<Partition>>()
            + self.by_key.capacity() * size_of::<(Key, u32)>()
            + (self.deadlines.len() + self.held.len()) * 2 * size_of::<(i64, u32)>()
    }
}
