//! Functions whose value is read off the group's rows in order: `median`, `percentile_cont`,
//! `percentile_disc`, `mode`, `first_value`, `last_value`, `any_value`, `array_agg`, `string_agg`.
//!
//! All rows of a group are kept in a sorted multiset; a change costs the logarithm of their
//! number. What is kept of a row is its argument (functions of a rank), or its ORDER BY columns
//! and then its arguments, so that rows that the ORDER BY leaves equal stand in the order of their
//! values. Without ORDER BY that is the whole order: SQL leaves it open, and so the result depends
//! on the rows alone, not on how they came. The value before an epoch is evaluated when the group
//! is touched first in it.
//!
//! Functions of a rank and `string_agg` leave NULL values out; the others keep them.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, LargeStringArray, ListArray, StructArray, UInt32Array,
    new_empty_array, new_null_array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use arrow::compute::{SortOptions, cast, concat, take};
use arrow::datatypes::{DataType, Decimal128Type, Field, Fields, Float64Type, Int64Type};

use crate::functions::aggregate::layout::{Call, Input, Kind, Layout, Placed};
use crate::functions::aggregate::multiset::{
    SortedSet, StoredValues, Value, ValueCodec, ValueSets,
};
use crate::functions::aggregate::{
    Accumulator, AggregateInfo, ChangedRows, Evaluate, Evaluated, Retraction, Rows, Slots,
};
use crate::memory::spill::StoreVisitor;
use crate::types::error::{Error, Result, SqlState};
use crate::types::value::{Shape, shape_of};

pub const MEDIAN: AggregateInfo = AggregateInfo {
    name: "median",
    signature: "median(number) -> the same type",
    retraction: Retraction::Stored,
    description: "The middle value, or the mean of the middle two; NULL when there are none.",
};

pub const PERCENTILE_CONT: AggregateInfo = AggregateInfo {
    name: "percentile_cont",
    signature: "percentile_cont(fraction) WITHIN GROUP (ORDER BY number) -> the same type",
    retraction: Retraction::Stored,
    description: "The value at a fraction of the order, interpolated between neighbours.",
};

pub const PERCENTILE_DISC: AggregateInfo = AggregateInfo {
    name: "percentile_disc",
    signature: "percentile_disc(fraction) WITHIN GROUP (ORDER BY value) -> the same type",
    retraction: Retraction::Stored,
    description: "The first value whose place in the order is at or past a fraction.",
};

pub const MODE: AggregateInfo = AggregateInfo {
    name: "mode",
    signature: "mode() WITHIN GROUP (ORDER BY value) -> the same type",
    retraction: Retraction::Stored,
    description: "The most frequent value; of several the first in order.",
};

pub const FIRST_VALUE: AggregateInfo = AggregateInfo {
    name: "first_value",
    signature: "first_value(value ORDER BY ...) -> the same type",
    retraction: Retraction::Stored,
    description: "The value of the first row in order.",
};

pub const LAST_VALUE: AggregateInfo = AggregateInfo {
    name: "last_value",
    signature: "last_value(value ORDER BY ...) -> the same type",
    retraction: Retraction::Stored,
    description: "The value of the last row in order.",
};

pub const ANY_VALUE: AggregateInfo = AggregateInfo {
    name: "any_value",
    signature: "any_value(value) -> the same type",
    retraction: Retraction::Stored,
    description: "A value that is not NULL: the smallest; NULL when there are none.",
};

pub const ARRAY_AGG: AggregateInfo = AggregateInfo {
    name: "array_agg",
    signature: "array_agg(value ORDER BY ...) -> array",
    retraction: Retraction::Stored,
    description: "All values in order, NULLs included; NULL when there are no rows.",
};

pub const STRING_AGG: AggregateInfo = AggregateInfo {
    name: "string_agg",
    signature: "string_agg(text, delimiter ORDER BY ...) -> text",
    retraction: Retraction::Stored,
    description: "All values that are not NULL in order, a delimiter between each two.",
};

/// What is read off the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderedFunction {
    Median,
    PercentileCont,
    PercentileDisc,
    Mode,
    FirstValue,
    LastValue,
    ArrayAgg,
    StringAgg,
}

impl OrderedFunction {
    /// It looks at values by rank and keeps nothing else of a row.
    fn by_rank(self) -> bool {
        use OrderedFunction as F;
        matches!(self, F::Median | F::PercentileCont | F::PercentileDisc | F::Mode)
    }

    fn interpolates(self) -> bool {
        matches!(self, OrderedFunction::Median | OrderedFunction::PercentileCont)
    }

    fn has_fraction(self) -> bool {
        matches!(self, OrderedFunction::PercentileCont | OrderedFunction::PercentileDisc)
    }

    fn argument_count(self) -> usize {
        if self.has_fraction() || self == OrderedFunction::StringAgg { 2 } else { 1 }
    }
}

/// One of the ordered functions. The fraction of a percentile and the delimiter of `string_agg`
/// are the second argument.
pub fn ordered(
    layout: &mut Layout,
    call: &Call,
    function: OrderedFunction,
) -> Result<Box<dyn Evaluate>> {
    let [argument, rest @ ..] = call.arguments.as_slice() else { return Err(call.unsupported()) };
    let value_type = &argument.data_type;
    let fits = match function {
        OrderedFunction::ArrayAgg => {
            matches!(&call.return_type, DataType::List(item) if item.data_type() == value_type)
        }
        OrderedFunction::StringAgg => {
            [&argument.data_type, &call.return_type].iter().all(|t| t.is_string())
                && rest.iter().all(|delimiter| delimiter.data_type.is_string())
        }
        function if function.interpolates() => {
            (value_type.is_numeric() || value_type.is_null()) && call.return_type == *value_type
                || call.return_type == DataType::Float64 && value_type.is_numeric()
        }
        _ => call.return_type == *value_type,
    };
    if !fits || call.arguments.len() != function.argument_count() {
        return Err(call.unsupported());
    }
    if call.distinct && !call.order_by.iter().all(|(by, _)| call.arguments.contains(by)) {
        return Err(Error::unsupported(format!("{} with DISTINCT", call.display))
            .hint("With DISTINCT, ORDER BY may name only the arguments."));
    }
    let mut directions: Vec<SortOptions> = call.order_by.iter().map(|by| by.1).collect();
    let mut columns = call.arguments.clone();
    if function.by_rank() {
        directions.truncate(1);
    } else if !call.distinct {
        columns.extend(call.order_by.iter().map(|by| by.0.clone()));
    }
    let order_columns = call
        .order_by
        .iter()
        .map(|(by, _)| columns.iter().position(|c| c == by))
        .collect::<Option<Vec<_>>>();
    let order_columns = match function.by_rank() {
        true => vec![],
        false => order_columns.ok_or_else(|| call.unsupported())?,
    };
    let kind = Kind::Ordered {
        function,
        order_columns,
        directions,
        return_type: call.return_type.clone(),
        keeps_nulls: !function.by_rank() && function != OrderedFunction::StringAgg,
    };
    let input = layout.ordered_input(call, columns);
    let index = layout.accumulator(input, kind)?;
    Ok(Box::new(OrderedValue { index, checks_fraction: function.has_fraction() }))
}

/// `any_value`: the smallest, so that all workers and all runs agree.
pub fn any_value(layout: &mut Layout, call: &Call) -> Result<Box<dyn Evaluate>> {
    super::min_max::extreme(layout, call, false)
}

struct OrderedValue {
    index: usize,
    checks_fraction: bool,
}

impl Evaluate for OrderedValue {
    fn evaluate(&self, rows: &ChangedRows<'_>, accumulators: &[Placed]) -> Result<Evaluated> {
        let Placed { accumulator, offset, .. } = &accumulators[self.index];
        let values = accumulator.values(rows, *offset)?;
        let mut failed = Vec::new();
        if self.checks_fraction {
            for row in 0..rows.len() {
                let fraction = f64::from_bits(rows.word(row, *offset));
                if !(0.0..=1.0).contains(&fraction) {
                    let message = format!("percentile value {fraction} is not between 0 and 1");
                    failed.push((row, Error::user(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, message)));
                }
            }
        }
        Ok(Evaluated { values, failed })
    }
}

/// All rows of each group in order.
pub struct OrderedRows {
    function: OrderedFunction,
    return_type: DataType,
    /// Indices into the input's columns: ORDER BY.
    order_columns: Vec<usize>,
    /// The value to order by descends (functions of a rank).
    descending: bool,
    keeps_nulls: bool,
    sets: Sets,
    /// Values of the groups in the order in which they were touched, when the epoch began.
    remembered: Vec<ArrayRef>,
}

enum Sets {
    Words(ValueSets<SortedSet<u64>>),
    Wide(ValueSets<SortedSet<u128>>),
    Bytes(ValueSets<SortedSet<Box<[u8]>>>),
    /// Structs: ORDER BY columns, then arguments.
    Rows(ValueSets<SortedSet<Box<[u8]>>>),
}

/// How an [`OrderedRows`] is made.
pub struct OrderedSpec<'a> {
    pub function: OrderedFunction,
    pub order_columns: &'a [usize],
    pub directions: &'a [SortOptions],
    pub return_type: &'a DataType,
    pub keeps_nulls: bool,
}

impl OrderedRows {
    /// # Errors
    /// For a type that has no order.
    pub fn new(input: &Input, spec: &OrderedSpec<'_>) -> Result<OrderedRows> {
        let sets = if spec.function.by_rank() {
            let data_type = &input.arguments[0].data_type;
            let codec = ValueCodec::new(data_type, false)?;
            match shape_of(data_type) {
                Shape::Word { .. } => Sets::Words(ValueSets::new(codec)),
                Shape::Wide => Sets::Wide(ValueSets::new(codec)),
                Shape::Bytes => Sets::Bytes(ValueSets::new(codec)),
            }
        } else {
            let arguments = 0..spec.function.argument_count();
            let mut fields = Vec::new();
            for column in spec.order_columns.iter().copied().chain(arguments) {
                let data_type = input.arguments[column].data_type.clone();
                fields.push(Field::new(format!("c{}", fields.len()), data_type, true));
            }
            let mut directions = spec.directions.to_vec();
            directions.resize(fields.len(), SortOptions::new(false, false));
            Sets::Rows(ValueSets::new(ValueCodec::of_struct(&fields.into(), &directions)?))
        };
        Ok(OrderedRows {
            function: spec.function,
            return_type: spec.return_type.clone(),
            order_columns: spec.order_columns.to_vec(),
            descending: spec.function.by_rank()
                && spec.directions.first().is_some_and(|d| d.descending),
            keeps_nulls: spec.keeps_nulls,
            sets,
            remembered: Vec::new(),
        })
    }

    /// The struct of each row, NULL where the row is left out.
    fn structs(&self, rows: &Rows<'_>, fields: &Fields) -> Result<ArrayRef> {
        let arguments = 0..self.function.argument_count();
        let columns = self.order_columns.iter().copied().chain(arguments);
        let columns = columns.map(|column| rows.arguments[column].clone()).collect();
        let nulls = match self.keeps_nulls {
            true => None,
            false => rows.arguments[0].logical_nulls(),
        };
        Ok(Arc::new(StructArray::try_new(fields.clone(), columns, nulls)?))
    }

    /// The value of each of these groups as it is.
    fn evaluate(&self, groups: &[u32], fractions: &[f64]) -> Result<ArrayRef> {
        match &self.sets {
            Sets::Words(sets) => self.by_rank(sets, groups, fractions),
            Sets::Wide(sets) => self.by_rank(sets, groups, fractions),
            Sets::Bytes(sets) => self.by_rank(sets, groups, fractions),
            Sets::Rows(sets) => self.by_row(sets, groups),
        }
    }

    /// The value at a rank, or between two, of each group.
    fn by_rank<V: Value>(
        &self,
        sets: &ValueSets<SortedSet<V>>,
        groups: &[u32],
        fractions: &[f64],
    ) -> Result<ArrayRef> {
        let mut low = Vec::with_capacity(groups.len());
        let mut high = Vec::with_capacity(groups.len());
        let mut shares = Vec::with_capacity(groups.len());
        for (group, fraction) in groups.iter().zip(fractions) {
            let set = sets.get(*group);
            let copies = set.map_or(0, SortedSet::copies);
            let place = self.place(set, *fraction, copies);
            let at = |rank: i64| set.and_then(|set| set.nth(rank.clamp(0, copies - 1)));
            if copies == 0 {
                low.push(None);
                high.push(None);
            } else {
                low.push(at(place.low));
                high.push(at(place.high));
            }
            shares.push(place.share);
        }
        let low = V::decode(sets.codec(), low.iter().copied())?;
        let high = V::decode(sets.codec(), high.iter().copied())?;
        if !self.function.interpolates() {
            return Ok(low);
        }
        interpolate(&low, &high, &shares, self.function, &self.return_type)
    }

    /// Where in the order the value lies.
    fn place<V: Value>(&self, set: Option<&SortedSet<V>>, fraction: f64, copies: i64) -> Place {
        let last = copies - 1;
        let flip = |rank: i64| if self.descending { last - rank } else { rank };
        match self.function {
            OrderedFunction::Median => Place {
                low: last / 2,
                high: copies / 2,
                share: if copies % 2 == 0 { 0.5 } else { 0.0 },
            },
            OrderedFunction::PercentileCont => {
                let exact = fraction.clamp(0.0, 1.0) * last as f64;
                let below = exact.floor();
                let (low, high) = (below as i64, exact.ceil() as i64);
                Place { low: flip(low), high: flip(high), share: exact - below }
            }
            OrderedFunction::PercentileDisc => {
                let rank = (fraction.clamp(0.0, 1.0) * copies as f64).ceil() as i64 - 1;
                let rank = flip(rank.max(0));
                Place { low: rank, high: rank, share: 0.0 }
            }
            _ => {
                let rank = set.map_or(0, |set| set.rank_of_most_frequent(self.descending));
                Place { low: rank, high: rank, share: 0.0 }
            }
        }
    }

    /// The value of the first or last row, or of all rows, of each group.
    fn by_row(&self, sets: &ValueSets<SortedSet<Box<[u8]>>>, groups: &[u32]) -> Result<ArrayRef> {
        let sets_of = groups.iter().map(|group| sets.get(*group));
        let argument = self.order_columns.len();
        let column = |structs: &ArrayRef, index: usize| structs.as_struct().column(index).clone();
        if self.function == OrderedFunction::FirstValue
            || self.function == OrderedFunction::LastValue
        {
            let first = self.function == OrderedFunction::FirstValue;
            let ends: Vec<Option<&Box<[u8]>>> = sets_of
                .map(|set| set.and_then(|set| if first { set.first() } else { set.last() }))
                .collect();
            let structs = <Box<[u8]>>::decode(sets.codec(), ends.iter().copied())?;
            return Ok(column(&structs, argument));
        }
        // All rows of all groups, each as often as it is there.
        let mut entries = Vec::new();
        let mut chosen: Vec<u32> = Vec::new();
        let mut lengths = Vec::with_capacity(groups.len());
        for set in sets_of {
            let before = chosen.len();
            for (value, copies) in set.into_iter().flat_map(SortedSet::iter) {
                let place = u32::try_from(entries.len()).map_err(|_| too_long())?;
                let copies = usize::try_from(copies).map_err(|_| too_long())?;
                if chosen.len().saturating_add(copies) > i32::MAX as usize {
                    return Err(too_long());
                }
                chosen.extend(std::iter::repeat_n(place, copies));
                entries.push(Some(value));
            }
            lengths.push(chosen.len() - before);
        }
        let structs = <Box<[u8]>>::decode(sets.codec(), entries.iter().copied())?;
        let chosen = UInt32Array::from(chosen);
        let values = take(&column(&structs, argument), &chosen, None)?;
        if self.function == OrderedFunction::ArrayAgg {
            return self.lists(values, lengths);
        }
        let delimiters = take(&column(&structs, argument + 1), &chosen, None)?;
        self.joined(&values, &delimiters, &lengths)
    }

    fn lists(&self, values: ArrayRef, lengths: Vec<usize>) -> Result<ArrayRef> {
        let DataType::List(item) = &self.return_type else {
            return Err(Error::internal("array_agg returns a list"));
        };
        let there = BooleanBuffer::collect_bool(lengths.len(), |row| lengths[row] > 0);
        let offsets = OffsetBuffer::from_lengths(lengths);
        let nulls = Some(NullBuffer::new(there));
        Ok(Arc::new(ListArray::try_new(item.clone(), offsets, values, nulls)?))
    }

    /// The texts of each group with the delimiter of each but the first before it.
    fn joined(
        &self,
        values: &ArrayRef,
        delimiters: &ArrayRef,
        lengths: &[usize],
    ) -> Result<ArrayRef> {
        let values = cast(values, &DataType::LargeUtf8)?;
        let delimiters = cast(delimiters, &DataType::LargeUtf8)?;
        let (values, delimiters) = (values.as_string::<i64>(), delimiters.as_string::<i64>());
        let mut at = 0;
        let texts = lengths.iter().map(|length| {
            let mut text = String::new();
            for row in at..at + length {
                if row > at && delimiters.is_valid(row) {
                    text.push_str(delimiters.value(row));
                }
                text.push_str(values.value(row));
            }
            at += length;
            (*length > 0).then_some(text)
        });
        let texts: ArrayRef = Arc::new(texts.collect::<LargeStringArray>());
        Ok(cast(&texts, &self.return_type)?)
    }
}

/// Ranks of the two neighbours of a place, and how far it is from the first to the second.
struct Place {
    low: i64,
    high: i64,
    share: f64,
}

fn too_long() -> Error {
    Error::user(SqlState::PROGRAM_LIMIT_EXCEEDED, "an aggregated array or text is too long")
        .hint("Aggregate fewer rows in a group.")
}

/// The values between `low` and `high`, at these shares of the way.
fn interpolate(
    low: &ArrayRef,
    high: &ArrayRef,
    shares: &[f64],
    function: OrderedFunction,
    return_type: &DataType,
) -> Result<ArrayRef> {
    let median = function == OrderedFunction::Median;
    let nulls = low.logical_nulls();
    match (low.data_type(), return_type) {
        // The mean of two integers or decimals, cut off as in batch execution.
        (DataType::Decimal128(_, _), DataType::Decimal128(_, _)) => {
            let (a, b) =
                (low.as_primitive::<Decimal128Type>(), high.as_primitive::<Decimal128Type>());
            let values = a.values().iter().zip(b.values()).zip(shares).map(|((a, b), share)| {
                if median { mean(*a, *b) } else { a + ((b - a) as f64 * share) as i128 }
            });
            let values = arrow::array::Decimal128Array::new(values.collect(), nulls);
            Ok(Arc::new(values.with_data_type(return_type.clone())))
        }
        (data_type, to) if data_type.is_integer() && to == data_type => {
            let (a, b) = (cast(low, &DataType::Int64)?, cast(high, &DataType::Int64)?);
            let (a, b) = (a.as_primitive::<Int64Type>(), b.as_primitive::<Int64Type>());
            let values = a.values().iter().zip(b.values()).zip(shares).map(|((a, b), share)| {
                let (a, b) = (i128::from(*a), i128::from(*b));
                let value = if median { mean(a, b) } else { a + ((b - a) as f64 * share) as i128 };
                value as i64
            });
            let values: ArrayRef = Arc::new(arrow::array::Int64Array::new(values.collect(), nulls));
            Ok(cast(&values, to)?)
        }
        _ => {
            let (a, b) = (cast(low, &DataType::Float64)?, cast(high, &DataType::Float64)?);
            let (a, b) = (a.as_primitive::<Float64Type>(), b.as_primitive::<Float64Type>());
            let values = a.values().iter().zip(b.values()).zip(shares).map(|((a, b), share)| {
                // Equal neighbours need no arithmetic, which would make NaN of infinities.
                if *share == 0.0 || a == b {
                    *a
                } else if median {
                    a / 2.0 + b / 2.0
                } else {
                    a + (b - a) * share
                }
            });
            let values: ArrayRef = Arc::new(Float64Array::new(values.collect(), nulls));
            Ok(cast(&values, return_type)?)
        }
    }
}

/// The mean, cut off towards 0, without overflow.
fn mean(a: i128, b: i128) -> i128 {
    a.checked_add(b).map_or_else(|| a / 2 + b / 2 + (a % 2 + b % 2) / 2, |sum| sum / 2)
}

impl Accumulator for OrderedRows {
    fn width_words(&self) -> usize {
        // The fraction's bits.
        usize::from(self.function.has_fraction())
    }

    fn fold(&mut self, slots: &mut Slots<'_>, rows: &Rows<'_>) -> Result<()> {
        if self.function.has_fraction() {
            let fractions = cast(&rows.arguments[1], &DataType::Float64)?;
            let fractions = fractions.as_primitive::<Float64Type>();
            rows.for_each(fractions.nulls(), |group, row, _| {
                *slots.word(group) = fractions.value(row).to_bits();
            });
        }
        if let Sets::Rows(sets) = &self.sets {
            let DataType::Struct(fields) = sets.codec().data_type().clone() else {
                return Err(Error::internal("rows are kept as structs"));
            };
            let structs = self.structs(rows, &fields)?;
            let Sets::Rows(sets) = &mut self.sets else { unreachable!("seen above") };
            return sets.fold(rows, &structs);
        }
        let column = &rows.arguments[0];
        match &mut self.sets {
            Sets::Words(sets) => sets.fold(rows, column),
            Sets::Wide(sets) => sets.fold(rows, column),
            Sets::Bytes(sets) | Sets::Rows(sets) => sets.fold(rows, column),
        }
    }

    fn remember(&mut self, slots: &mut Slots<'_>, groups: &[u32]) -> Result<()> {
        match &mut self.sets {
            Sets::Words(sets) => sets.thaw(groups)?,
            Sets::Wide(sets) => sets.thaw(groups)?,
            Sets::Bytes(sets) | Sets::Rows(sets) => sets.thaw(groups)?,
        }
        let has_fraction = self.function.has_fraction();
        let fraction = |group: &u32| match has_fraction {
            true => f64::from_bits(*slots.word(*group)),
            false => 0.0,
        };
        let fractions: Vec<f64> = groups.iter().map(fraction).collect();
        let values = self.evaluate(groups, &fractions)?;
        self.remembered.push(values);
        Ok(())
    }

    fn settle(&mut self, _: &mut Slots<'_>, groups: &[u32]) -> Result<()> {
        // One array, so that evaluating takes slices of it.
        if self.remembered.len() > 1 {
            let parts: Vec<&dyn Array> = self.remembered.iter().map(AsRef::as_ref).collect();
            self.remembered = vec![concat(&parts)?];
        }
        match &mut self.sets {
            Sets::Words(sets) => sets.settle(groups),
            Sets::Wide(sets) => sets.settle(groups),
            Sets::Bytes(sets) | Sets::Rows(sets) => sets.settle(groups),
        }
    }

    fn values(&self, rows: &ChangedRows<'_>, offset: usize) -> Result<ArrayRef> {
        let count = rows.groups.len();
        let before = match self.remembered.first() {
            Some(values) => values.slice(rows.remembered_from, count),
            None => new_null_array(&self.return_type, count),
        };
        let has_fraction = self.function.has_fraction();
        let fraction = |row| match has_fraction {
            true => f64::from_bits(rows.word(row, offset)),
            false => 0.0,
        };
        let fractions: Vec<f64> = (count..2 * count).map(fraction).collect();
        let now = self.evaluate(rows.groups, &fractions)?;
        if count == 0 {
            return Ok(new_empty_array(&self.return_type));
        }
        Ok(concat(&[before.as_ref(), now.as_ref()])?)
    }

    fn forget_remembered(&mut self) {
        self.remembered.clear();
    }

    fn free(&mut self, _: &mut Slots<'_>, groups: &[u32]) {
        match &mut self.sets {
            Sets::Words(sets) => sets.free(groups),
            Sets::Wide(sets) => sets.free(groups),
            Sets::Bytes(sets) | Sets::Rows(sets) => sets.free(groups),
        }
    }

    fn stored(&mut self) -> Option<&mut dyn StoredValues> {
        Some(match &mut self.sets {
            Sets::Words(sets) => sets,
            Sets::Wide(sets) => sets,
            Sets::Bytes(sets) | Sets::Rows(sets) => sets,
        })
    }

    fn visit_stores(&mut self, visit: StoreVisitor<'_>) {
        match &mut self.sets {
            Sets::Words(sets) => visit(sets),
            Sets::Wide(sets) => visit(sets),
            Sets::Bytes(sets) | Sets::Rows(sets) => visit(sets),
        }
    }

    fn memory_bytes(&self) -> usize {
        let sets = match &self.sets {
            Sets::Words(sets) => sets.memory_bytes(),
            Sets::Wide(sets) => sets.memory_bytes(),
            Sets::Bytes(sets) | Sets::Rows(sets) => sets.memory_bytes(),
        };
        sets + self.remembered.iter().map(|array| array.get_array_memory_size()).sum::<usize>()
    }
}
