//! The checkpoint of an aggregation: three tables, each keyed by the group columns `k0, k1, ...`.
//!
//! | table | a row | further columns |
//! |---|---|---|
//! | `groups` | a group | `a0, a1, ...`: its words; `x`: what does not fit them, rarely |
//! | `distinct` | a group and DISTINCT arguments | `input`, `v{input}_{argument}`, `count` |
//! | `values` | a group and values that it has stored | `slot`, `v{slot}`: a list, `counts`: a list |
//!
//! A row of `distinct` or `values` uses the columns of its input or slot; the others are NULL.
//! Row ids of `distinct` and `values` have the number of the input or slot in the high byte.
//!
//! To hand over a million groups takes some twenty milliseconds, for which the stream would stand
//! still. Where words are all that groups have, many groups are handed over by and by, while epochs
//! go on: some at a time, and at the end of an epoch those that it has changed, as they were before.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, BinaryBuilder, Int32Array, Int64Array, ListArray, RecordBatch,
    UInt32Array, UInt64Array, new_null_array,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, UInt32Type};

use super::Aggregate;
use crate::functions::aggregate::Slots;
use crate::functions::aggregate::layout::Placed;
use crate::functions::aggregate::multiset::StoredChanges;
use crate::state::delta::{CheckpointReader, CheckpointWriter, TableDelta};
use crate::state::group_table::GroupChanges;
use crate::types::error::{Error, Result};

const GROUPS: &str = "groups";
const DISTINCT: &str = "distinct";
const VALUES: &str = "values";

/// Rows of one batch of a checkpoint.
const BATCH_ROWS: usize = 8192;

/// Groups whose values are handed over at once: they are copied for it.
const VALUES_GROUPS: usize = if cfg!(test) { 3 } else { BATCH_ROWS };

/// Groups that are handed over at once, and of which more are handed over by and by.
const SLICE_GROUPS: usize = if cfg!(test) { 5 } else { 32_768 };

/// Where the number of an input or slot stands in a row id.
const SLOT_SHIFT: u32 = 56;

fn damaged(what: &str) -> Error {
    Error::internal(format!("the checkpoint of an aggregation is damaged: {what}"))
}

impl Aggregate {
    pub(super) fn write_checkpoint(&mut self, writer: &mut CheckpointWriter) -> Result<()> {
        if self.is_global_here() && !self.global_emitted {
            return Ok(());
        }
        if self.has_words_only() && self.table.changed() > SLICE_GROUPS {
            self.table.begin_changes();
            writer.set_open(true);
            return self.hand_over_slice(writer).map(drop);
        }
        let changes = self.table.take_changes();
        writer.write(GROUPS, self.groups_delta(&changes, writer)?);
        if self.distinct.iter().any(Option::is_some) {
            writer.write(DISTINCT, self.distinct_delta(writer)?);
        }
        let mut delta = TableDelta::default();
        for slot in 0..self.layout.accumulators.len() {
            let mut parts = changes.changed.chunks(VALUES_GROUPS);
            // Rows of groups that have gone are to be deleted, too, if nothing else has changed.
            let mut groups = parts.next().unwrap_or_default();
            loop {
                let accumulator = &mut self.layout.accumulators[slot].accumulator;
                let Some(stored) = accumulator.stored() else { break };
                let stored = stored.changes(groups)?;
                self.values_delta(slot, stored, &mut delta, writer)?;
                let Some(next) = parts.next() else { break };
                groups = next;
            }
        }
        if self.slot_types().iter().any(Option::is_some) {
            writer.write(VALUES, delta);
        }
        Ok(())
    }

    /// Whether the words of the table are all that groups have.
    fn has_words_only(&mut self) -> bool {
        let beside = |placed: &mut Placed| {
            placed.accumulator.saves() || placed.accumulator.stored().is_some()
        };
        self.distinct.iter().all(Option::is_none)
            && !self.layout.accumulators.iter_mut().any(beside)
    }

    /// Hands over some of the groups that are left; whether there were any.
    pub(super) fn hand_over_slice(&mut self, writer: &mut CheckpointWriter) -> Result<bool> {
        let changes = self.table.take_pending(SLICE_GROUPS);
        let mut delta = self.groups_delta(&changes, writer)?;
        delta.appended.splice(0..0, std::mem::take(&mut self.rescued.appended));
        delta.deleted.append(&mut self.rescued.deleted);
        writer.add(GROUPS, delta);
        writer.set_open(self.table.pending() > 0);
        Ok(!changes.changed.is_empty())
    }

    /// Keeps what the checkpoint that has begun must still have of the groups that this epoch has
    /// changed. Called before they may be forgotten.
    pub(super) fn rescue(&mut self) -> Result<()> {
        if self.table.pending() == 0 {
            return Ok(());
        }
        let (changes, rows) = self.table.take_pending_dirty();
        self.rescued.deleted.extend(changes.deleted);
        if !changes.live.is_empty() {
            let words = self.table.columns_of_rows(&rows);
            let beside = BinaryArray::new_null(changes.live.len());
            let rows = self.group_batch(&changes.live, words, beside)?;
            self.rescued.appended.push((changes.row_ids.into(), rows));
        }
        Ok(())
    }

    fn groups_delta(
        &self,
        changes: &GroupChanges,
        writer: &CheckpointWriter,
    ) -> Result<TableDelta> {
        let mut delta = TableDelta { appended: vec![], deleted: changes.deleted.clone() };
        let ids = changes.row_ids.chunks(BATCH_ROWS);
        for (groups, ids) in changes.live.chunks(BATCH_ROWS).zip(ids) {
            let rows = writer.keep(self.group_rows(groups)?);
            delta.appended.push((ids.to_vec().into(), rows));
        }
        Ok(delta)
    }

    fn key_fields(&self) -> Vec<Field> {
        let fields = self.spec.schema.fields();
        (0..self.spec.keys.len())
            .map(|key| Field::new(format!("k{key}"), fields[key].data_type().clone(), true))
            .collect()
    }

    fn group_rows(&self, groups: &[u32]) -> Result<RecordBatch> {
        let beside = if self.layout.accumulators.iter().any(|placed| placed.accumulator.saves()) {
            let mut beside = BinaryBuilder::new();
            for group in groups {
                match self.saved(self.table.row(*group))? {
                    Some(saved) => beside.append_value(saved),
                    None => beside.append_null(),
                }
            }
            beside.finish()
        } else {
            BinaryArray::new_null(groups.len())
        };
        self.group_batch(groups, self.table.word_columns(groups), beside)
    }

    /// Rows of groups with these words.
    fn group_batch(
        &self,
        groups: &[u32],
        words: Vec<ArrayRef>,
        beside: BinaryArray,
    ) -> Result<RecordBatch> {
        let mut columns = self.table.keys(groups)?;
        columns.extend(words);
        columns.push(Arc::new(beside));
        let mut fields = self.key_fields();
        let words = 0..self.table.stride();
        fields.extend(words.map(|word| Field::new(format!("a{word}"), DataType::Int64, false)));
        fields.push(Field::new("x", DataType::Binary, true));
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }

    /// What accumulators have of a group beside its words: slot, length, bytes, for each.
    pub(super) fn saved(&self, row: &[u64]) -> Result<Option<Vec<u8>>> {
        let mut all = Vec::new();
        for (slot, placed) in self.layout.accumulators.iter().enumerate() {
            let width = placed.accumulator.width_words();
            if let Some(saved) = placed.accumulator.save(&row[placed.offset..][..width]) {
                let length = u32::try_from(saved.len());
                let length = length.map_err(|_| Error::internal("an accumulator of 4 GiB"))?;
                all.extend((slot as u32).to_le_bytes());
                all.extend(length.to_le_bytes());
                all.extend(saved);
            }
        }
        Ok((!all.is_empty()).then_some(all))
    }

    fn distinct_schema(&self) -> SchemaRef {
        let mut fields = self.key_fields();
        fields.push(Field::new("input", DataType::Int32, false));
        for (input, distinct) in self.distinct.iter().enumerate() {
            let types = distinct.iter().flat_map(|distinct| &distinct.argument_types);
            fields.extend(types.enumerate().map(|(argument, data_type)| {
                Field::new(format!("v{input}_{argument}"), data_type.clone(), true)
            }));
        }
        fields.push(Field::new("count", DataType::Int64, false));
        Arc::new(Schema::new(fields))
    }

    fn distinct_delta(&mut self, writer: &CheckpointWriter) -> Result<TableDelta> {
        let schema = self.distinct_schema();
        let mut delta = TableDelta::default();
        for input in 0..self.distinct.len() {
            let Some(distinct) = &mut self.distinct[input] else { continue };
            let changes = distinct.pairs.take_changes();
            let id = |row: &u64| (input as u64) << SLOT_SHIFT | row;
            delta.deleted.extend(changes.deleted.iter().map(id));
            let ids = changes.row_ids.chunks(BATCH_ROWS);
            for (pairs, ids) in changes.live.chunks(BATCH_ROWS).zip(ids) {
                let ids = UInt64Array::from_iter_values(ids.iter().map(id));
                let rows = writer.keep(self.distinct_rows(input, pairs, &schema)?);
                delta.appended.push((ids, rows));
            }
        }
        Ok(delta)
    }

    fn distinct_rows(
        &self,
        input: usize,
        pairs: &[u32],
        schema: &SchemaRef,
    ) -> Result<RecordBatch> {
        let distinct = self.distinct[input].as_ref().expect("called for a DISTINCT input");
        let mut arguments = distinct.pairs.keys(pairs)?;
        let groups = arguments.remove(0);
        let mut columns = self.table.keys(groups.as_primitive::<UInt32Type>().values())?;
        columns.push(Arc::new(Int32Array::from(vec![input as i32; pairs.len()])));
        let prefix = format!("v{input}_");
        let mut arguments = arguments.into_iter();
        for field in &schema.fields()[columns.len()..schema.fields().len() - 1] {
            columns.push(match field.name().starts_with(&prefix) {
                true => arguments.next().expect("one column for each argument"),
                false => new_null_array(field.data_type(), pairs.len()),
            });
        }
        columns.push(distinct.pairs.word_columns(pairs).remove(0));
        Ok(RecordBatch::try_new(schema.clone(), columns)?)
    }

    /// For each accumulator: the type of the values that it stores.
    fn slot_types(&mut self) -> Vec<Option<DataType>> {
        let accumulators = self.layout.accumulators.iter_mut();
        accumulators.map(|p| p.accumulator.stored().map(|stored| stored.value_type())).collect()
    }

    fn values_schema(&mut self) -> SchemaRef {
        let mut fields = self.key_fields();
        fields.push(Field::new("slot", DataType::Int32, false));
        for (slot, data_type) in self.slot_types().into_iter().enumerate() {
            if let Some(data_type) = data_type {
                let list = DataType::new_list(data_type, true);
                fields.push(Field::new(format!("v{slot}"), list, true));
            }
        }
        fields.push(Field::new("counts", DataType::new_list(DataType::Int64, true), true));
        Arc::new(Schema::new(fields))
    }

    fn values_delta(
        &mut self,
        slot: usize,
        stored: StoredChanges,
        delta: &mut TableDelta,
        writer: &CheckpointWriter,
    ) -> Result<()> {
        let row_id = |id: &u64| (slot as u64) << SLOT_SHIFT | id;
        delta.deleted.extend(stored.deleted.iter().map(row_id));
        if stored.ids.is_empty() {
            return Ok(());
        }
        let schema = self.values_schema();
        let rows = stored.groups.len();
        let mut columns = self.table.keys(&stored.groups)?;
        columns.push(Arc::new(Int32Array::from(vec![slot as i32; rows])));
        let name = format!("v{slot}");
        for field in &schema.fields()[columns.len()..schema.fields().len() - 1] {
            columns.push(match *field.name() == name {
                true => Arc::new(stored.values.clone()),
                false => new_null_array(field.data_type(), rows),
            });
        }
        columns.push(Arc::new(stored.counts.clone()));
        let ids = stored.ids.iter().map(row_id).collect();
        delta.appended.push((ids, writer.keep(RecordBatch::try_new(schema, columns)?)));
        Ok(())
    }

    pub(super) fn read_checkpoint(&mut self, reader: &mut CheckpointReader) -> Result<()> {
        assert!(self.table.is_empty(), "restore is called on a fresh operator");
        let keys: Vec<usize> = (0..self.routed_by.unwrap_or(self.spec.keys.len())).collect();
        let mut groups = Vec::new();
        for rows in reader.read(GROUPS, &keys)? {
            groups.extend(self.load_groups(&rows)?);
        }
        for rows in reader.read(DISTINCT, &keys)? {
            self.load_distinct(&rows)?;
        }
        for rows in reader.read(VALUES, &keys)? {
            self.load_values(&rows)?;
        }
        let stride = self.table.stride();
        let (words, _) = self.table.words_and_dirty();
        for placed in &mut self.layout.accumulators {
            let mut slots = Slots { words: &mut *words, stride, offset: placed.offset };
            placed.accumulator.settle(&mut slots, &groups)?;
        }
        self.global_emitted = self.spec.keys.is_empty() && !groups.is_empty();
        Ok(())
    }

    fn load_groups(&mut self, rows: &RecordBatch) -> Result<Vec<u32>> {
        let (keys, rest) = rows.columns().split_at(self.spec.keys.len());
        let (beside, words) = rest.split_last().ok_or_else(|| damaged("no words"))?;
        let words = words
            .iter()
            .map(|w| w.as_primitive_opt::<Int64Type>().cloned())
            .collect::<Option<Vec<Int64Array>>>()
            .ok_or_else(|| damaged("words of another type"))?;
        let groups = self.table.load(keys, &words)?;
        let beside: &BinaryArray =
            beside.as_binary_opt().ok_or_else(|| damaged("column x of another type"))?;
        for (group, saved) in groups.iter().zip(beside) {
            if let Some(saved) = saved {
                self.load_saved(*group, saved)?;
            }
        }
        Ok(groups)
    }

    fn load_saved(&mut self, group: u32, mut saved: &[u8]) -> Result<()> {
        let stride = self.table.stride();
        let (words, _) = self.table.words_and_dirty();
        let row = &mut words[group as usize * stride..][..stride];
        while let Some((head, rest)) = saved.split_first_chunk::<8>() {
            let [slot, length] = [&head[..4], &head[4..]]
                .map(|b| u32::from_le_bytes(b.try_into().expect("four bytes")) as usize);
            let bytes = rest.get(..length).ok_or_else(|| damaged("column x is cut off"))?;
            let Placed { accumulator, offset, .. } = self
                .layout
                .accumulators
                .get_mut(slot)
                .ok_or_else(|| damaged("column x names an unknown accumulator"))?;
            let width = accumulator.width_words();
            accumulator.load(&mut row[*offset..*offset + width], bytes)?;
            saved = &rest[length..];
        }
        if saved.is_empty() { Ok(()) } else { Err(damaged("column x has a rest")) }
    }

    fn load_distinct(&mut self, rows: &RecordBatch) -> Result<()> {
        let keys = &rows.columns()[..self.spec.keys.len()];
        let groups = self.table.known(keys, rows.num_rows())?;
        let groups: ArrayRef = Arc::new(UInt32Array::from(groups));
        let counts = rows.columns().last().ok_or_else(|| damaged("no counts"))?;
        let inputs = numbers(rows, "input")?;
        for (input, distinct) in self.distinct.iter_mut().enumerate() {
            let Some(distinct) = distinct else { continue };
            let mine = rows_of(&inputs, input);
            if mine.is_empty() {
                continue;
            }
            let mut pair = vec![take(&groups, &mine, None)?];
            for argument in 0..distinct.argument_types.len() {
                let column = rows
                    .column_by_name(&format!("v{input}_{argument}"))
                    .ok_or_else(|| damaged("a DISTINCT argument is missing"))?;
                pair.push(take(column, &mine, None)?);
            }
            let counts = take(counts, &mine, None)?;
            let counts = counts.as_primitive_opt::<Int64Type>();
            let counts = counts.ok_or_else(|| damaged("counts of another type"))?;
            distinct.pairs.load(&pair, std::slice::from_ref(counts))?;
        }
        Ok(())
    }

    fn load_values(&mut self, rows: &RecordBatch) -> Result<()> {
        let keys = &rows.columns()[..self.spec.keys.len()];
        let groups = self.table.known(keys, rows.num_rows())?;
        let counts = rows.columns().last().ok_or_else(|| damaged("no counts"))?;
        let slots = numbers(rows, "slot")?;
        for (slot, placed) in self.layout.accumulators.iter_mut().enumerate() {
            let Some(stored) = placed.accumulator.stored() else { continue };
            let mine = rows_of(&slots, slot);
            if mine.is_empty() {
                continue;
            }
            let values = rows
                .column_by_name(&format!("v{slot}"))
                .ok_or_else(|| damaged("stored values are missing"))?;
            let groups: Vec<u32> = mine.values().iter().map(|row| groups[*row as usize]).collect();
            let (values, counts) = (take(values, &mine, None)?, take(counts, &mine, None)?);
            let list = |column: &ArrayRef| -> Result<ListArray> {
                let list = column.as_list_opt().cloned();
                list.ok_or_else(|| damaged("stored values are not lists"))
            };
            stored.load(&groups, &list(&values)?, &list(&counts)?)?;
        }
        Ok(())
    }
}

/// What `saved` kept for one accumulator.
pub(super) fn saved_of(mut saved: &[u8], wanted: usize) -> Result<Option<&[u8]>> {
    while let Some((head, rest)) = saved.split_first_chunk::<8>() {
        let [slot, length] = [&head[..4], &head[4..]]
            .map(|b| u32::from_le_bytes(b.try_into().expect("four bytes")) as usize);
        let (bytes, rest) = rest.split_at_checked(length).ok_or_else(|| damaged("cut off"))?;
        if slot == wanted {
            return Ok(Some(bytes));
        }
        saved = rest;
    }
    if saved.is_empty() { Ok(None) } else { Err(damaged("a rest that is no entry")) }
}

/// A column of small numbers.
fn numbers(rows: &RecordBatch, name: &str) -> Result<Int32Array> {
    let column = rows.column_by_name(name);
    let column = column.and_then(|column| column.as_primitive_opt::<Int32Type>());
    column.cloned().ok_or_else(|| damaged("a column of numbers is missing"))
}

/// The rows that belong to one input or slot.
fn rows_of(numbers: &Int32Array, wanted: usize) -> UInt32Array {
    let values = numbers.values().iter().enumerate();
    UInt32Array::from_iter_values(
        values.filter(|(_, number)| **number as usize == wanted).map(|(row, _)| row as u32),
    )
}
