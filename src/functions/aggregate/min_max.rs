//! `min` and `max` of every type that has an order.
//!
//! Values are kept so that the larger word is the better one, and 0 is worse than all: `min` keeps
//! complements. Whether there is a value at all says the count of the argument.
//!
//! | input | values up to 16 bytes | text and others |
//! |---|---|---|
//! | only inserts | the best in the words: [`LastingExtreme`] | the best: [`ByteExtreme`] |
//! | deletes too | a set per group, its best in the words: [`WordExtreme`] | a set per group |
//!
//! NaN is larger than every other float, as in Postgres.

use std::cmp::Reverse;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type};

use crate::functions::aggregate::layout::{Call, Kind, Layout, Placed};
use crate::functions::aggregate::multiset::{
    ExtremeSet, StoredValues, Value, ValueCodec, ValueSets,
};
use crate::functions::aggregate::{
    Accumulator, AggregateInfo, ChangedRows, Evaluate, Evaluated, Retraction, Rows, Slots,
};
use crate::memory::spill::StoreVisitor;
use crate::types::error::Result;
use crate::types::value::{Shape, from_wide_words, from_words, shape_of, to_wide_words, to_words};

pub const MIN: AggregateInfo = AggregateInfo {
    name: "min",
    signature: "min(value) -> the same type",
    retraction: Retraction::StoredWhenDeleting,
    description: "The smallest value that is not NULL; NULL when there are none.",
};

pub const MAX: AggregateInfo = AggregateInfo {
    name: "max",
    signature: "max(value) -> the same type",
    retraction: Retraction::StoredWhenDeleting,
    description: "The largest value that is not NULL; NULL when there are none.",
};

/// `max` (or `min`) of one argument.
pub fn extreme(layout: &mut Layout, call: &Call, largest: bool) -> Result<Box<dyn Evaluate>> {
    let argument = call.argument()?;
    if call.return_type != argument.data_type {
        return Err(call.unsupported());
    }
    let input = layout.input_with_duplicates(call, &call.arguments);
    let kind = Kind::Extreme { largest, append_only: call.append_only };
    let index = layout.accumulator(input, kind)?;
    let shape = shape_of(&argument.data_type);
    if shape == Shape::Bytes {
        return Ok(Box::new(ByteExtremeValue { index }));
    }
    let offset = layout.accumulators[index].offset;
    let count = layout.count(input)?;
    let data_type = argument.data_type.clone();
    Ok(Box::new(WordExtremeValue { offset, count, shape, largest, data_type }))
}

struct WordExtremeValue {
    offset: usize,
    count: usize,
    shape: Shape,
    largest: bool,
    data_type: DataType,
}

impl Evaluate for WordExtremeValue {
    fn evaluate(&self, rows: &ChangedRows<'_>, _: &[Placed]) -> Result<Evaluated> {
        let valid = Some(rows.counted(self.count));
        let values = if self.shape == Shape::Wide {
            let flip = if self.largest { 0 } else { u128::MAX };
            let word = |row| wide_of(rows.array::<2>(row, self.offset)) ^ flip;
            let words: Vec<u128> = (0..rows.len()).map(word).collect();
            from_wide_words(&words, valid, &self.data_type)
        } else {
            let flip = if self.largest { 0 } else { u64::MAX };
            let word = |row| rows.word(row, self.offset) ^ flip;
            let words: Vec<u64> = (0..rows.len()).map(word).collect();
            from_words(&words, valid, &self.data_type)
        };
        Ok(Evaluated::all(values))
    }
}

struct ByteExtremeValue {
    index: usize,
}

impl Evaluate for ByteExtremeValue {
    fn evaluate(&self, rows: &ChangedRows<'_>, accumulators: &[Placed]) -> Result<Evaluated> {
        let Placed { accumulator, offset, .. } = &accumulators[self.index];
        Ok(Evaluated::all(accumulator.values(rows, *offset)?))
    }
}

fn wide_of(words: &[u64; 2]) -> u128 {
    u128::from(words[1]) << 64 | u128::from(words[0])
}

fn set_wide(words: &mut [u64; 2], value: u128) {
    *words = [value as u64, (value >> 64) as u64];
}

/// Makes every NaN the one that is larger than all other floats.
fn fold_nans(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float64 => {
            let floats = column.as_primitive::<Float64Type>();
            if !floats.values().iter().any(|v| v.is_nan()) {
                return column.clone();
            }
            Arc::new(floats.unary::<_, Float64Type>(|v| if v.is_nan() { f64::NAN } else { v }))
        }
        DataType::Float32 => {
            let floats = column.as_primitive::<Float32Type>();
            if !floats.values().iter().any(|v| v.is_nan()) {
                return column.clone();
            }
            Arc::new(floats.unary::<_, Float32Type>(|v| if v.is_nan() { f32::NAN } else { v }))
        }
        _ => column.clone(),
    }
}

/// Of input that never deletes: the best value, in one or two words.
pub struct LastingExtreme {
    wide: bool,
    largest: bool,
}

impl LastingExtreme {
    /// For a type whose shape is a word.
    pub fn new(data_type: &DataType, largest: bool) -> LastingExtreme {
        LastingExtreme { wide: shape_of(data_type) == Shape::Wide, largest }
    }
}

impl Accumulator for LastingExtreme {
    fn width_words(&self) -> usize {
        if self.wide { 2 } else { 1 }
    }

    fn fold(&mut self, slots: &mut Slots<'_>, rows: &Rows<'_>) -> Result<()> {
        assert!(rows.weights.is_none_or(|w| w.iter().all(|w| *w > 0)), "input only inserts");
        let column = fold_nans(&rows.arguments[0]);
        if self.wide {
            let flip = if self.largest { 0 } else { u128::MAX };
            let values = to_wide_words(&column);
            rows.for_each(column.nulls(), |group, row, _| {
                let words = slots.array::<2>(group);
                set_wide(words, wide_of(words).max(values[row] ^ flip));
            });
        } else {
            let flip = if self.largest { 0 } else { u64::MAX };
            let values = to_words(&column);
            rows.for_each(column.nulls(), |group, row, _| {
                let word = slots.word(group);
                *word = (*word).max(values[row] ^ flip);
            });
        }
        Ok(())
    }

    fn merge(&mut self, own: &mut [u64], other: &[u64], _: Option<&[u8]>) -> Result<()> {
        if own.iter().rev().lt(other.iter().rev()) {
            own.copy_from_slice(other);
        }
        Ok(())
    }
}

/// Of input that deletes too: all values of each group, and the best of them in the words.
pub enum WordExtreme {
    Narrow { sets: ValueSets<ExtremeSet<u64>>, flip: u64 },
    Wide { sets: ValueSets<ExtremeSet<u128>>, flip: u128 },
}

impl WordExtreme {
    /// For a type whose shape is a word.
    pub fn new(data_type: &DataType, largest: bool) -> WordExtreme {
        // Sets know their smallest value, so for `max` they hold complements; the words hold the
        // complement of the set's value either way.
        let codec = ValueCodec::new(data_type, largest).expect("words need no codec");
        if shape_of(data_type) == Shape::Wide {
            WordExtreme::Wide { sets: ValueSets::new(codec), flip: u128::MAX }
        } else {
            WordExtreme::Narrow { sets: ValueSets::new(codec), flip: u64::MAX }
        }
    }
}

impl Accumulator for WordExtreme {
    fn width_words(&self) -> usize {
        match self {
            WordExtreme::Narrow { .. } => 1,
            WordExtreme::Wide { .. } => 2,
        }
    }

    fn fold(&mut self, _: &mut Slots<'_>, rows: &Rows<'_>) -> Result<()> {
        let column = fold_nans(&rows.arguments[0]);
        match self {
            WordExtreme::Narrow { sets, .. } => sets.fold(rows, &column),
            WordExtreme::Wide { sets, .. } => sets.fold(rows, &column),
        }
    }

    fn settle(&mut self, slots: &mut Slots<'_>, groups: &[u32]) -> Result<()> {
        match self {
            WordExtreme::Narrow { sets, flip } => {
                sets.settle(groups)?;
                for group in groups {
                    let first = sets.get(*group).and_then(ExtremeSet::first);
                    *slots.word(*group) = first.map_or(0, |value| value ^ *flip);
                }
            }
            WordExtreme::Wide { sets, flip } => {
                sets.settle(groups)?;
                for group in groups {
                    let first = sets.get(*group).and_then(ExtremeSet::first);
                    set_wide(slots.array(*group), first.map_or(0, |value| value ^ *flip));
                }
            }
        }
        Ok(())
    }

    fn free(&mut self, _: &mut Slots<'_>, groups: &[u32]) {
        match self {
            WordExtreme::Narrow { sets, .. } => sets.free(groups),
            WordExtreme::Wide { sets, .. } => sets.free(groups),
        }
    }

    fn stored(&mut self) -> Option<&mut dyn StoredValues> {
        Some(match self {
            WordExtreme::Narrow { sets, .. } => sets,
            WordExtreme::Wide { sets, .. } => sets,
        })
    }

    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        match self {
            WordExtreme::Narrow { sets, .. } => visit(sets),
            WordExtreme::Wide { sets, .. } => visit(sets),
        }
    }

    fn memory_bytes(&self) -> usize {
        match self {
            WordExtreme::Narrow { sets, .. } => sets.memory_bytes(),
            WordExtreme::Wide { sets, .. } => sets.memory_bytes(),
        }
    }
}

/// Text and other values of any length.
pub enum ByteExtreme {
    Smallest(ByteExtremes<Box<[u8]>>),
    Largest(ByteExtremes<Reverse<Box<[u8]>>>),
}

/// The values of each group, or only the best when input never deletes.
pub struct ByteExtremes<V: Value> {
    append_only: bool,
    sets: ValueSets<ExtremeSet<V>>,
    /// The best of groups when the epoch began, in the order in which they were remembered.
    remembered: Vec<Option<V>>,
}

impl ByteExtreme {
    /// # Errors
    /// For a type that has no order.
    pub fn new(data_type: &DataType, largest: bool, append_only: bool) -> Result<ByteExtreme> {
        let codec = ValueCodec::new(data_type, largest)?;
        Ok(if largest {
            ByteExtreme::Largest(ByteExtremes::new(codec, append_only))
        } else {
            ByteExtreme::Smallest(ByteExtremes::new(codec, append_only))
        })
    }
}

impl<V: Value> ByteExtremes<V> {
    fn new(codec: ValueCodec, append_only: bool) -> ByteExtremes<V> {
        ByteExtremes { append_only, sets: ValueSets::new(codec), remembered: Vec::new() }
    }

    fn fold(&mut self, rows: &Rows<'_>) -> Result<()> {
        let column = &rows.arguments[0];
        if !self.append_only {
            return self.sets.fold(rows, column);
        }
        assert!(rows.weights.is_none_or(|w| w.iter().all(|w| *w > 0)), "input only inserts");
        self.sets.thaw(rows.groups)?;
        let values = V::encode(self.sets.codec(), column)?;
        let nulls = column.logical_nulls();
        rows.for_each(nulls.as_ref(), |group, row, _| {
            self.sets.get_mut(group).insert_lasting(V::get(&values, row));
        });
        Ok(())
    }

    fn first(&self, group: u32) -> Option<&V> {
        self.sets.get(group).and_then(ExtremeSet::first)
    }

    fn remember(&mut self, groups: &[u32]) -> Result<()> {
        self.sets.thaw(groups)?;
        for group in groups {
            self.remembered.push(self.first(*group).cloned());
        }
        Ok(())
    }

    fn values(&self, rows: &ChangedRows<'_>) -> Result<ArrayRef> {
        // A batch, which has no epochs, remembers nothing.
        let remembered = self.remembered.get(rows.remembered_from..).unwrap_or(&[]);
        let before =
            (0..rows.groups.len()).map(|place| remembered.get(place).and_then(Option::as_ref));
        let now = rows.groups.iter().map(|group| self.first(*group));
        V::decode(self.sets.codec(), before.chain(now))
    }

    fn memory_bytes(&self) -> usize {
        self.sets.memory_bytes() + self.remembered.capacity() * size_of::<Option<V>>()
    }
}

impl Accumulator for ByteExtreme {
    fn width_words(&self) -> usize {
        0
    }

    fn fold(&mut self, _: &mut Slots<'_>, rows: &Rows<'_>) -> Result<()> {
        match self {
            ByteExtreme::Smallest(extremes) => extremes.fold(rows),
            ByteExtreme::Largest(extremes) => extremes.fold(rows),
        }
    }

    fn remember(&mut self, _: &mut Slots<'_>, groups: &[u32]) -> Result<()> {
        match self {
            ByteExtreme::Smallest(extremes) => extremes.remember(groups),
            ByteExtreme::Largest(extremes) => extremes.remember(groups),
        }
    }

    fn settle(&mut self, _: &mut Slots<'_>, groups: &[u32]) -> Result<()> {
        match self {
            ByteExtreme::Smallest(extremes) => extremes.sets.settle(groups),
            ByteExtreme::Largest(extremes) => extremes.sets.settle(groups),
        }
    }

    fn values(&self, rows: &ChangedRows<'_>, _: usize) -> Result<ArrayRef> {
        match self {
            ByteExtreme::Smallest(extremes) => extremes.values(rows),
            ByteExtreme::Largest(extremes) => extremes.values(rows),
        }
    }

    fn forget_remembered(&mut self) {
        match self {
            ByteExtreme::Smallest(extremes) => extremes.remembered.clear(),
            ByteExtreme::Largest(extremes) => extremes.remembered.clear(),
        }
    }

    fn free(&mut self, _: &mut Slots<'_>, groups: &[u32]) {
        match self {
            ByteExtreme::Smallest(extremes) => extremes.sets.free(groups),
            ByteExtreme::Largest(extremes) => extremes.sets.free(groups),
        }
    }

    fn stored(&mut self) -> Option<&mut dyn StoredValues> {
        Some(match self {
            ByteExtreme::Smallest(extremes) => &mut extremes.sets,
            ByteExtreme::Largest(extremes) => &mut extremes.sets,
        })
    }

    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        match self {
            ByteExtreme::Smallest(extremes) => visit(&mut extremes.sets),
            ByteExtreme::Largest(extremes) => visit(&mut extremes.sets),
        }
    }

    fn memory_bytes(&self) -> usize {
        match self {
            ByteExtreme::Smallest(extremes) => extremes.memory_bytes(),
            ByteExtreme::Largest(extremes) => extremes.memory_bytes(),
        }
    }
}
