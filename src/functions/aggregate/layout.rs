//! Which accumulators a list of calls needs, and where their words lie in a group's row.
//!
//! Calls over the same rows share accumulators: `sum(x)`, `avg(x)` and `count(x)` keep one sum and
//! one count. Word 0 of every row counts the group's rows; where an argument is never NULL, it is
//! the count of that argument too.

use arrow::compute::SortOptions;
use arrow::datatypes::DataType;

use crate::functions::aggregate::bits::{BitCounts, BitFold, BitXor};
use crate::functions::aggregate::boolean::CountTrue;
use crate::functions::aggregate::count::CountRows;
use crate::functions::aggregate::exact_float::{FloatSum, Term};
use crate::functions::aggregate::interval::IntervalSum;
use crate::functions::aggregate::min_max::{ByteExtreme, LastingExtreme, WordExtreme};
use crate::functions::aggregate::ordered::{OrderedFunction, OrderedRows, OrderedSpec};
use crate::functions::aggregate::sum::{IntegerSum, WideSum};
use crate::functions::aggregate::{Accumulator, Rows, Slots};
use crate::types::error::{Error, Result};
use crate::types::value::{Shape, shape_of};

/// Where word 0 of a row stands: the number of rows in the group.
pub const ROW_COUNT: usize = 0;

/// An argument of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Argument {
    /// The input column.
    pub column: usize,
    pub data_type: DataType,
    pub nullable: bool,
}

/// One call as its function sees it.
#[derive(Clone, Debug)]
pub struct Call {
    pub arguments: Vec<Argument>,
    pub distinct: bool,
    /// Boolean input column of FILTER.
    pub filter: Option<usize>,
    pub order_by: Vec<(Argument, SortOptions)>,
    /// The input never deletes.
    pub append_only: bool,
    pub return_type: DataType,
    /// As the user wrote it.
    pub display: String,
}

impl Call {
    /// The error for a call that its function does not have.
    pub fn unsupported(&self) -> Error {
        let types: Vec<String> = self.arguments.iter().map(|a| a.data_type.to_string()).collect();
        Error::unsupported(format!("aggregate {} over ({})", self.display, types.join(", ")))
            .hint("Cast the argument to a type that the function takes.")
    }

    /// The only argument.
    ///
    /// # Errors
    /// When there is none, or more.
    pub fn argument(&self) -> Result<&Argument> {
        match self.arguments.as_slice() {
            [argument] => Ok(argument),
            _ => Err(self.unsupported()),
        }
    }
}

/// Which rows, and what of them, an accumulator folds.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Arguments, then ORDER BY columns.
    pub arguments: Vec<Argument>,
    pub filter: Option<usize>,
    /// Equal arguments of a group are folded once.
    pub distinct: bool,
    /// DISTINCT rows with a NULL argument are left out.
    pub skips_nulls: bool,
}

/// Every kind of accumulator. Two calls that need the same kind over the same input share it.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Rows whose arguments are all not NULL.
    Count,
    /// Exact while it fits 128 bits, which wrap: only the final value has to fit.
    IntegerSum,
    /// Exact within 256 bits, for decimals of many digits.
    WideSum,
    FloatSum(Term),
    /// Months, days and time apart.
    IntervalSum,
    /// Rows whose argument is true.
    TrueCount,
    /// For each of `width` bits, the values that have it.
    BitCounts {
        width: usize,
    },
    /// The bits that any value (or complement) has; of input that never deletes.
    BitFold {
        complement: bool,
    },
    /// The bits that an odd number of values have.
    BitXor,
    /// All rows in order.
    Ordered {
        function: OrderedFunction,
        /// Columns of the input to order by.
        order_columns: Vec<usize>,
        directions: Vec<SortOptions>,
        return_type: DataType,
        /// Rows whose value is NULL are kept.
        keeps_nulls: bool,
    },
    /// The smallest or largest value.
    Extreme {
        largest: bool,
        append_only: bool,
    },
}

impl Kind {
    fn build(&self, input: &Input) -> Result<Box<dyn Accumulator>> {
        Ok(match self {
            Kind::Count => Box::new(CountRows),
            Kind::IntegerSum => Box::new(IntegerSum),
            Kind::WideSum => Box::new(WideSum),
            Kind::FloatSum(term) => Box::new(FloatSum::new(*term)),
            Kind::IntervalSum => Box::new(IntervalSum),
            Kind::TrueCount => Box::new(CountTrue),
            Kind::BitCounts { width } => Box::new(BitCounts { width: *width }),
            Kind::BitFold { complement } => Box::new(BitFold { complement: *complement }),
            Kind::BitXor => Box::new(BitXor),
            Kind::Ordered { function, order_columns, directions, return_type, keeps_nulls } => {
                let spec = OrderedSpec {
                    function: *function,
                    order_columns,
                    directions,
                    return_type,
                    keeps_nulls: *keeps_nulls,
                };
                Box::new(OrderedRows::new(input, &spec)?)
            }
            Kind::Extreme { largest, append_only } => {
                let data_type = &input.arguments[0].data_type;
                match (shape_of(data_type), append_only) {
                    (Shape::Bytes, _) => {
                        Box::new(ByteExtreme::new(data_type, *largest, *append_only)?)
                    }
                    (_, true) => Box::new(LastingExtreme::new(data_type, *largest)),
                    (_, false) => Box::new(WordExtreme::new(data_type, *largest)),
                }
            }
        })
    }
}

/// One accumulator and the place of its words.
pub struct Placed {
    pub kind: Kind,
    /// Index of its [`Input`].
    pub input: usize,
    /// First of its words in a group's row.
    pub offset: usize,
    pub accumulator: Box<dyn Accumulator>,
}

impl Placed {
    /// Folds rows of its input into the groups' rows.
    pub fn fold(&mut self, words: &mut [u64], stride: usize, rows: &Rows<'_>) -> Result<()> {
        self.accumulator.fold(&mut Slots { words, stride, offset: self.offset }, rows)
    }
}

/// The accumulators of an aggregation.
pub struct Layout {
    pub inputs: Vec<Input>,
    pub accumulators: Vec<Placed>,
    /// Words of a group's row; word 0 is the row count.
    pub stride: usize,
}

impl Default for Layout {
    fn default() -> Layout {
        Layout { inputs: Vec::new(), accumulators: Vec::new(), stride: ROW_COUNT + 1 }
    }
}

impl Layout {
    /// The input of these arguments under the call's FILTER and DISTINCT.
    pub fn input(&mut self, call: &Call, arguments: &[Argument]) -> usize {
        let input = Input {
            arguments: arguments.to_vec(),
            filter: call.filter,
            distinct: call.distinct,
            skips_nulls: true,
        };
        self.intern_input(input)
    }

    /// The same for functions to which DISTINCT makes no difference.
    pub fn input_with_duplicates(&mut self, call: &Call, arguments: &[Argument]) -> usize {
        let input = Input {
            arguments: arguments.to_vec(),
            filter: call.filter,
            distinct: false,
            skips_nulls: true,
        };
        self.intern_input(input)
    }

    /// The input of a function that sees NULLs as values, also under DISTINCT.
    pub fn ordered_input(&mut self, call: &Call, arguments: Vec<Argument>) -> usize {
        let (filter, distinct) = (call.filter, call.distinct);
        self.intern_input(Input { arguments, filter, distinct, skips_nulls: false })
    }

    fn intern_input(&mut self, input: Input) -> usize {
        if let Some(index) = self.inputs.iter().position(|i| *i == input) {
            return index;
        }
        self.inputs.push(input);
        self.inputs.len() - 1
    }

    /// The index of an accumulator of this kind over this input, shared when there is one.
    pub fn accumulator(&mut self, input: usize, kind: Kind) -> Result<usize> {
        if let Some(index) =
            self.accumulators.iter().position(|p| p.input == input && p.kind == kind)
        {
            return Ok(index);
        }
        let accumulator = kind.build(&self.inputs[input])?;
        let offset = self.stride;
        self.stride += accumulator.width_words();
        self.accumulators.push(Placed { kind, input, offset, accumulator });
        Ok(self.accumulators.len() - 1)
    }

    /// The first word of an accumulator of this kind over this input.
    pub fn words(&mut self, input: usize, kind: Kind) -> Result<usize> {
        let index = self.accumulator(input, kind)?;
        Ok(self.accumulators[index].offset)
    }

    /// Adds a group's row of words to another. What does not fit them is in these accumulators, of
    /// both.
    ///
    /// # Errors
    /// When an accumulator cannot add them.
    pub fn merge_row(&mut self, own: &mut [u64], other: &[u64]) -> Result<()> {
        own[ROW_COUNT] = own[ROW_COUNT].wrapping_add(other[ROW_COUNT]);
        for placed in &mut self.accumulators {
            let range = placed.offset..placed.offset + placed.accumulator.width_words();
            let other = &other[range.clone()];
            let saved = placed.accumulator.save(other);
            placed.accumulator.merge(&mut own[range], other, saved.as_deref())?;
        }
        Ok(())
    }

    /// Frees what accumulators keep of some groups beside their rows of words.
    pub fn free(&mut self, words: &mut [u64], groups: &[u32]) {
        let stride = self.stride;
        for placed in &mut self.accumulators {
            let mut slots = Slots { words: &mut *words, stride, offset: placed.offset };
            placed.accumulator.free(&mut slots, groups);
        }
    }

    /// The word that counts the input's rows without NULLs.
    pub fn count(&mut self, input: usize) -> Result<usize> {
        let Input { arguments, filter, distinct, .. } = &self.inputs[input];
        if filter.is_none() && !distinct && arguments.iter().all(|a| !a.nullable) {
            return Ok(ROW_COUNT);
        }
        self.words(input, Kind::Count)
    }
}
