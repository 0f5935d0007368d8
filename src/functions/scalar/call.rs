//! Functions and operators as Postgres resolves them: one name, several lists of argument types.
//!
//! 1. A file of a chapter lists its functions as [`Overload`]s. All of one name are a [`Family`],
//!    which stands in a plan while types are not known.
//! 2. [`Family::resolve`] picks the overload whose arguments are nearest: the same type, else one
//!    that Postgres converts to without asking. A quoted literal fits every type, text best.
//! 3. `sql::coerce` puts casts around the arguments and a [`Resolved`] call in the family's place;
//!    that is what runs, over whole columns.
//!
//! Functions are strict unless they say otherwise: a NULL argument gives NULL, and the function
//! does not see the row.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryBuilder, BooleanArray, BooleanBuilder,
    ListArray, PrimitiveArray, StringArray, StringBuilder, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, FieldRef, Float64Type, Int32Type, Int64Type,
    IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType,
    TimestampMicrosecondType,
};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    TypeSignature, Volatility,
};

use crate::functions::scalar::cast::CastSettings;
use crate::functions::scalar::marked::scalar_of;
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::{NUMERIC_DEFAULT, SqlType};

/// What an argument may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum T {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    /// Of any digits; the argument keeps its own.
    Numeric,
    Text,
    Bytea,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Interval,
    Uuid,
    Json,
    Jsonb,
    TextArray,
    /// Anything, as it is.
    Any,
    /// An array of anything.
    AnyArray,
    /// What an array among the arguments has as its items.
    AnyElement,
}

/// What a function gives.
#[derive(Clone, Copy)]
pub enum R {
    Is(T),
    /// The type of this argument.
    Like(usize),
    /// An array of this argument's type.
    ArrayOf(usize),
    /// What the array that this argument is has as its items.
    ItemOf(usize),
    /// An array of these.
    Array(T),
    /// From the arguments' types and, where they are literals, their values.
    By(fn(&[SqlType], &[Option<ScalarValue>]) -> SqlType),
}

/// One function with one list of arguments.
pub struct Overload {
    pub name: &'static str,
    pub arguments: Vec<T>,
    /// The last argument may come any number of times, also never.
    pub variadic: bool,
    pub result: R,
    /// Not called for rows with a NULL argument, which give NULL.
    pub strict: bool,
    pub volatile: bool,
    pub run: fn(&Call<'_>) -> Result<ArrayRef>,
}

/// A strict function without surprises.
pub fn function(
    name: &'static str,
    arguments: &[T],
    result: R,
    run: fn(&Call<'_>) -> Result<ArrayRef>,
) -> Overload {
    Overload {
        name,
        arguments: arguments.to_vec(),
        variadic: false,
        result,
        strict: true,
        volatile: false,
        run,
    }
}

impl Overload {
    /// The last argument may repeat.
    #[must_use]
    pub fn variadic(self) -> Overload {
        Overload { variadic: true, ..self }
    }

    /// It sees NULLs.
    #[must_use]
    pub fn sees_nulls(self) -> Overload {
        Overload { strict: false, ..self }
    }

    /// Every row gives something else.
    #[must_use]
    pub fn volatile(self) -> Overload {
        Overload { volatile: true, ..self }
    }

    fn argument(&self, index: usize) -> Option<T> {
        match self.arguments.get(index) {
            None if self.variadic => self.arguments.last().copied(),
            argument => argument.copied(),
        }
    }

    fn takes(&self, count: usize) -> bool {
        match self.variadic {
            true => count + 1 >= self.arguments.len(),
            false => count == self.arguments.len(),
        }
    }
}

/// Everything that one call sees.
pub struct Call<'a> {
    pub columns: &'a [ArrayRef],
    pub rows: usize,
    pub types: &'a [SqlType],
    pub result: &'a SqlType,
    pub settings: &'a CastSettings,
    /// Rows that have no NULL argument, for strict functions.
    nulls: Option<NullBuffer>,
}

impl Call<'_> {
    pub fn text(&self, index: usize) -> &StringArray {
        self.columns[index].as_string::<i32>()
    }

    /// The text of a row, if there are so many arguments.
    pub fn text_at(&self, index: usize, row: usize) -> Option<&str> {
        self.columns.get(index).map(|column| column.as_string::<i32>().value(row))
    }

    pub fn boolean(&self, index: usize) -> &BooleanArray {
        self.columns[index].as_boolean()
    }

    pub fn int4(&self, index: usize, row: usize) -> i32 {
        self.columns[index].as_primitive::<Int32Type>().value(row)
    }

    pub fn int8(&self, index: usize, row: usize) -> i64 {
        self.columns[index].as_primitive::<Int64Type>().value(row)
    }

    pub fn float8(&self, index: usize, row: usize) -> f64 {
        self.columns[index].as_primitive::<Float64Type>().value(row)
    }

    pub fn decimal(&self, index: usize, row: usize) -> i128 {
        self.columns[index].as_primitive::<Decimal128Type>().value(row)
    }

    /// Digits after the point of a numeric argument.
    pub fn scale(&self, index: usize) -> i8 {
        match &self.types[index] {
            SqlType::Numeric(_, scale) => *scale,
            _ => 0,
        }
    }

    pub fn bytes(&self, index: usize, row: usize) -> &[u8] {
        self.columns[index].as_binary::<i32>().value(row)
    }

    pub fn date(&self, index: usize, row: usize) -> i32 {
        self.columns[index].as_primitive::<Date32Type>().value(row)
    }

    pub fn time(&self, index: usize, row: usize) -> i64 {
        self.columns[index].as_primitive::<Time64MicrosecondType>().value(row)
    }

    /// Of either kind: microseconds.
    pub fn timestamp(&self, index: usize, row: usize) -> i64 {
        self.columns[index].as_primitive::<TimestampMicrosecondType>().value(row)
    }

    pub fn interval(&self, index: usize, row: usize) -> IntervalMonthDayNano {
        self.columns[index].as_primitive::<IntervalMonthDayNanoType>().value(row)
    }

    pub fn list(&self, index: usize) -> &ListArray {
        self.columns[index].as_list::<i32>()
    }

    /// Whether the function sees the row.
    pub fn sees(&self, row: usize) -> bool {
        self.nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row))
    }

    /// A column of text; `write` appends a row's to its buffer, or says `false` for NULL.
    pub fn to_text(
        &self,
        mut write: impl FnMut(usize, &mut String) -> Result<bool>,
    ) -> Result<ArrayRef> {
        let mut builder = StringBuilder::with_capacity(self.rows, self.rows * 8);
        let mut buffer = String::new();
        for row in 0..self.rows {
            buffer.clear();
            if self.sees(row) && write(row, &mut buffer)? {
                builder.append_value(&buffer);
            } else {
                builder.append_null();
            }
        }
        Ok(Arc::new(builder.finish()))
    }

    /// As [`Call::to_text`], of bytes.
    pub fn to_bytes(
        &self,
        mut write: impl FnMut(usize, &mut Vec<u8>) -> Result<bool>,
    ) -> Result<ArrayRef> {
        let mut builder = BinaryBuilder::with_capacity(self.rows, self.rows * 8);
        let mut buffer = Vec::new();
        for row in 0..self.rows {
            buffer.clear();
            if self.sees(row) && write(row, &mut buffer)? {
                builder.append_value(&buffer);
            } else {
                builder.append_null();
            }
        }
        Ok(Arc::new(builder.finish()))
    }

    /// A column of numbers, dates or the like, with the result's type.
    pub fn to_values<P: ArrowPrimitiveType>(
        &self,
        mut value: impl FnMut(usize) -> Result<Option<P::Native>>,
    ) -> Result<ArrayRef> {
        let mut builder = PrimitiveArray::<P>::builder(self.rows);
        for row in 0..self.rows {
            match self.sees(row) {
                true => builder.append_option(value(row)?),
                false => builder.append_null(),
            }
        }
        let array = builder.finish().with_data_type(self.result.to_arrow());
        Ok(Arc::new(array))
    }

    pub fn to_booleans(
        &self,
        mut value: impl FnMut(usize) -> Result<Option<bool>>,
    ) -> Result<ArrayRef> {
        let mut builder = BooleanBuilder::with_capacity(self.rows);
        for row in 0..self.rows {
            match self.sees(row) {
                true => builder.append_option(value(row)?),
                false => builder.append_null(),
            }
        }
        Ok(Arc::new(builder.finish()))
    }

    /// A column of text arrays; `write` appends a row's items, or says `false` for NULL.
    pub fn to_texts(
        &self,
        mut write: impl FnMut(usize, &mut StringBuilder) -> Result<bool>,
    ) -> Result<ArrayRef> {
        let mut items = StringBuilder::new();
        let (mut lengths, mut valid) = (Vec::with_capacity(self.rows), Vec::new());
        for row in 0..self.rows {
            let before = arrow::array::ArrayBuilder::len(&items);
            valid.push(self.sees(row) && write(row, &mut items)?);
            lengths.push(arrow::array::ArrayBuilder::len(&items) - before);
        }
        self.list_of(Arc::new(items.finish()), lengths, valid)
    }

    /// A column of arrays from all their items.
    pub fn list_of(
        &self,
        items: ArrayRef,
        lengths: Vec<usize>,
        valid: Vec<bool>,
    ) -> Result<ArrayRef> {
        let DataType::List(field) = self.result.to_arrow() else {
            return Err(Error::internal("an array was made for another type"));
        };
        let offsets = OffsetBuffer::from_lengths(lengths);
        Ok(Arc::new(ListArray::try_new(field, offsets, items, Some(valid.into()))?))
    }
}

impl T {
    /// The type; of those that stand for several, one of them.
    pub fn sql_type(self) -> SqlType {
        use SqlType as S;
        match self {
            T::Bool => S::Boolean,
            T::Int2 => S::Int2,
            T::Int4 => S::Int4,
            T::Int8 => S::Int8,
            T::Float4 => S::Float4,
            T::Float8 => S::Float8,
            T::Numeric => S::Numeric(NUMERIC_DEFAULT.0, NUMERIC_DEFAULT.1),
            T::Text | T::Any | T::AnyElement => S::Text,
            T::Bytea => S::Bytea,
            T::Date => S::Date,
            T::Time => S::Time,
            T::Timestamp => S::Timestamp,
            T::Timestamptz => S::Timestamptz,
            T::Interval => S::Interval,
            T::Uuid => S::Uuid,
            T::Json => S::Json,
            T::Jsonb => S::Jsonb,
            T::TextArray | T::AnyArray => S::Array(Box::new(S::Text)),
        }
    }

    /// How far a given type is from this one; `None`: it is not converted without asking. A
    /// literal in quotes and NULL have no type.
    fn distance(self, given: Option<&SqlType>) -> Option<u32> {
        use SqlType as S;
        let Some(given) = given else {
            return Some(match self {
                T::Text => 0,
                T::Any | T::AnyElement | T::AnyArray | T::TextArray => 3,
                _ => 1,
            });
        };
        Some(match (self, given) {
            (T::Bool, S::Boolean)
            | (T::Int2, S::Int2)
            | (T::Int4, S::Int4)
            | (T::Int8, S::Int8)
            | (T::Float4, S::Float4)
            | (T::Float8, S::Float8)
            | (T::Numeric, S::Numeric(_, _))
            | (T::Text, S::Text)
            | (T::Bytea, S::Bytea)
            | (T::Date, S::Date)
            | (T::Time, S::Time)
            | (T::Timestamp, S::Timestamp)
            | (T::Timestamptz, S::Timestamptz)
            | (T::Interval, S::Interval)
            | (T::Uuid, S::Uuid)
            | (T::Json, S::Json)
            | (T::Jsonb, S::Jsonb) => 0,
            (T::TextArray, S::Array(item)) if **item == S::Text => 0,
            (T::Int4, S::Int2) | (T::Int8, S::Int4) | (T::Float8, S::Float4) => 1,
            (T::Int8, S::Int2) | (T::Float8, S::Int2 | S::Int4 | S::Int8) => 2,
            (T::Float8, S::Numeric(_, _)) => 3,
            (T::Numeric, S::Int2 | S::Int4 | S::Int8) => 3,
            (T::Float4, S::Int2 | S::Int4 | S::Int8 | S::Numeric(_, _)) => 5,
            (T::Timestamptz, S::Date | S::Timestamp) => 1,
            (T::Timestamp, S::Date) => 2,
            (T::Interval, S::Time) => 2,
            (T::Any, S::Array(_)) => 9,
            (T::Any | T::AnyElement, _) => 4,
            (T::AnyArray, S::Array(_)) => 4,
            _ => return None,
        })
    }

    /// The type that an argument of a given type becomes.
    fn target(self, given: Option<&SqlType>, item: Option<&SqlType>) -> SqlType {
        match self {
            T::Bool => SqlType::Boolean,
            T::Int2 => SqlType::Int2,
            T::Int4 => SqlType::Int4,
            T::Int8 => SqlType::Int8,
            T::Float4 => SqlType::Float4,
            T::Float8 => SqlType::Float8,
            T::Numeric => match given {
                Some(SqlType::Numeric(precision, scale)) => SqlType::Numeric(*precision, *scale),
                Some(SqlType::Int2 | SqlType::Int4 | SqlType::Int8) => SqlType::Numeric(19, 0),
                _ => SqlType::Numeric(NUMERIC_DEFAULT.0, NUMERIC_DEFAULT.1),
            },
            T::Text => SqlType::Text,
            T::Bytea => SqlType::Bytea,
            T::Date => SqlType::Date,
            T::Time => SqlType::Time,
            T::Timestamp => SqlType::Timestamp,
            T::Timestamptz => SqlType::Timestamptz,
            T::Interval => SqlType::Interval,
            T::Uuid => SqlType::Uuid,
            T::Json => SqlType::Json,
            T::Jsonb => SqlType::Jsonb,
            T::TextArray => SqlType::Array(Box::new(SqlType::Text)),
            T::Any => given.cloned().unwrap_or(SqlType::Text),
            T::AnyElement => item.or(given).cloned().unwrap_or(SqlType::Text),
            T::AnyArray => match (item, given) {
                (Some(item), _) => SqlType::Array(Box::new(item.clone())),
                (None, Some(given)) => given.clone(),
                (None, None) => SqlType::Array(Box::new(SqlType::Text)),
            },
        }
    }
}

/// All functions of one name.
pub struct Family {
    pub name: &'static str,
    overloads: Vec<Arc<Overload>>,
    signature: Signature,
}

impl std::fmt::Debug for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Family").field("name", &self.name).finish()
    }
}

impl PartialEq for Family {
    fn eq(&self, other: &Family) -> bool {
        self.name == other.name
    }
}

impl Eq for Family {}

impl Hash for Family {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

fn any_arguments(volatility: Volatility) -> Signature {
    Signature::one_of(vec![TypeSignature::Nullary, TypeSignature::VariadicAny], volatility)
}

/// The families of a list of functions.
pub fn families(overloads: Vec<Overload>) -> Vec<Arc<ScalarUDF>> {
    let mut by_name: BTreeMap<&'static str, Vec<Arc<Overload>>> = BTreeMap::new();
    for overload in overloads {
        by_name.entry(overload.name).or_default().push(Arc::new(overload));
    }
    by_name
        .into_iter()
        .map(|(name, overloads)| {
            let volatile = overloads.iter().any(|overload| overload.volatile);
            let volatility = if volatile { Volatility::Volatile } else { Volatility::Immutable };
            let signature = any_arguments(volatility);
            Arc::new(ScalarUDF::new_from_impl(Family { name, overloads, signature }))
        })
        .collect()
}

/// An overload with the types that its arguments become.
pub struct Chosen {
    overload: Arc<Overload>,
    pub types: Vec<SqlType>,
    pub result: SqlType,
}

impl Family {
    /// The overload for arguments of these types; `None` is a literal in quotes, or NULL.
    ///
    /// # Errors
    /// SQLSTATE 42883 when there is none.
    pub fn resolve(
        &self,
        given: &[Option<SqlType>],
        literals: &[Option<ScalarValue>],
    ) -> Result<Chosen> {
        let distance = |overload: &Overload| -> Option<u32> {
            if !overload.takes(given.len()) {
                return None;
            }
            let mut sum = 0;
            for (index, given) in given.iter().enumerate() {
                sum += overload.argument(index)?.distance(given.as_ref())?;
            }
            Some(sum)
        };
        let best = self
            .overloads
            .iter()
            .filter_map(|overload| Some((distance(overload)?, overload)))
            .min_by_key(|(distance, _)| *distance);
        let Some((_, overload)) = best else { return Err(no_function(self.name, given)) };
        // What the arrays among the arguments have as items; else the widest of the others.
        let argument = |index: usize| overload.argument(index);
        let from_arrays =
            given.iter().enumerate().find_map(|(index, given)| match (argument(index), given) {
                (Some(T::AnyArray), Some(SqlType::Array(item))) => Some((**item).clone()),
                _ => None,
            });
        let elements = || {
            given.iter().enumerate().find_map(|(index, given)| match argument(index) {
                Some(T::AnyElement) => given.clone(),
                _ => None,
            })
        };
        let item = from_arrays.or_else(elements);
        let types: Vec<SqlType> = given
            .iter()
            .enumerate()
            .filter_map(|(index, given)| {
                Some(argument(index)?.target(given.as_ref(), item.as_ref()))
            })
            .collect();
        let result = match overload.result {
            R::Is(t) => t.target(None, None),
            R::Like(index) => types.get(index).cloned().unwrap_or(SqlType::Text),
            R::Array(t) => SqlType::Array(Box::new(t.target(None, None))),
            R::ArrayOf(index) => {
                SqlType::Array(Box::new(types.get(index).cloned().unwrap_or(SqlType::Text)))
            }
            R::ItemOf(index) => match types.get(index) {
                Some(SqlType::Array(item)) => (**item).clone(),
                _ => SqlType::Text,
            },
            R::By(of) => of(&types, literals),
        };
        Ok(Chosen { overload: overload.clone(), types, result })
    }

    /// The call of the overload for arguments of these types, and what the arguments become.
    ///
    /// # Errors
    /// SQLSTATE 42883 when there is none.
    pub fn call(
        &self,
        given: &[Option<SqlType>],
        literals: &[Option<ScalarValue>],
        settings: CastSettings,
    ) -> Result<(Arc<ScalarUDF>, Vec<SqlType>)> {
        let Chosen { overload, types, result } = self.resolve(given, literals)?;
        let volatility =
            if overload.volatile { Volatility::Volatile } else { Volatility::Immutable };
        let call = Resolved {
            name: self.name,
            overload,
            types: types.clone(),
            result,
            settings,
            signature: any_arguments(volatility),
        };
        Ok((Arc::new(ScalarUDF::new_from_impl(call)), types))
    }

    /// Whether there is an overload for arguments of these types.
    pub fn fits(&self, given: &[Option<SqlType>]) -> bool {
        self.resolve(given, &vec![None; given.len()]).is_ok()
    }
}

/// Letters and digits: a name; anything else: an operator.
pub fn is_operator(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

fn no_function(name: &str, given: &[Option<SqlType>]) -> Error {
    let types: Vec<String> = given
        .iter()
        .map(|t| t.as_ref().map_or_else(|| "unknown".to_owned(), ToString::to_string))
        .collect();
    let (message, kind) = match types.as_slice() {
        [left, right] if is_operator(name) => {
            (format!("operator does not exist: {left} {name} {right}"), "operator")
        }
        types => (format!("function {name}({}) does not exist", types.join(", ")), "function"),
    };
    Error::user(SqlState::UNDEFINED_FUNCTION, message).hint(format!(
        "No {kind} matches the given name and argument types. You might need to add explicit \
         type casts."
    ))
}

/// The type of an argument; `None` when it has none yet.
pub fn given_type(field: &Field, literal: Option<&ScalarValue>) -> Option<SqlType> {
    let untyped =
        matches!(literal, Some(ScalarValue::Utf8(Some(_)))) && field.metadata().is_empty();
    if untyped || field.data_type().is_null() {
        return None;
    }
    if let Some(ScalarValue::Int64(Some(value))) = literal
        && i32::try_from(*value).is_ok()
    {
        // A literal that fits is an integer.
        return Some(SqlType::Int4);
    }
    SqlType::of_field(field)
}

impl ScalarUDFImpl for Family {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> datafusion::common::Result<DataType> {
        let given: Vec<Option<SqlType>> =
            types.iter().map(|t| if t.is_null() { None } else { SqlType::of_arrow(t) }).collect();
        let chosen = self.resolve(&given, &vec![None; given.len()]).map_err(external)?;
        Ok(chosen.result.to_arrow())
    }

    fn return_field_from_args(
        &self,
        args: ReturnFieldArgs<'_>,
    ) -> datafusion::common::Result<FieldRef> {
        let given: Vec<Option<SqlType>> = args
            .arg_fields
            .iter()
            .zip(args.scalar_arguments)
            .map(|(field, literal)| given_type(field, *literal))
            .collect();
        let literals: Vec<_> = args.scalar_arguments.iter().map(|l| l.cloned()).collect();
        let chosen = match self.resolve(&given, &literals) {
            Ok(chosen) => chosen,
            // While a query is planned, what passes on a document or uuid (CASE, an array's item)
            // may have lost its mark: it may be anything. `sql::coerce` asks again with all marks.
            Err(error) => {
                let known = |t: &SqlType| {
                    !matches!(t, SqlType::Text | SqlType::Bytea | SqlType::Json | SqlType::Jsonb)
                };
                let guess: Vec<_> = given.iter().map(|t| t.clone().filter(known)).collect();
                self.resolve(&guess, &literals).map_err(|_| external(error))?
            }
        };
        Ok(Arc::new(chosen.result.to_field(self.name, true)))
    }

    fn invoke_with_args(
        &self,
        _args: ScalarFunctionArgs,
    ) -> datafusion::common::Result<ColumnarValue> {
        Err(DataFusionError::Internal(format!("{} ran before its types were known", self.name)))
    }
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// A function with its types.
pub struct Resolved {
    name: &'static str,
    overload: Arc<Overload>,
    types: Vec<SqlType>,
    result: SqlType,
    settings: CastSettings,
    signature: Signature,
}

impl std::fmt::Debug for Resolved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolved").field("name", &self.name).field("types", &self.types).finish()
    }
}

impl PartialEq for Resolved {
    fn eq(&self, other: &Resolved) -> bool {
        Arc::ptr_eq(&self.overload, &other.overload)
            && self.types == other.types
            && self.result == other.result
            && self.settings == other.settings
    }
}

impl Eq for Resolved {}

impl Hash for Resolved {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        self.types.hash(state);
        self.settings.hash(state);
    }
}

impl ScalarUDFImpl for Resolved {
    fn name(&self) -> &str {
        self.name
    }

    fn display_name(&self, args: &[Expr]) -> datafusion::common::Result<String> {
        let mut text = String::new();
        if let ([left, right], true) = (args, is_operator(self.name)) {
            let _ = write!(text, "{left} {} {right}", self.name);
        } else {
            let args: Vec<String> = args.iter().map(ToString::to_string).collect();
            let _ = write!(text, "{}({})", self.name, args.join(", "));
        }
        Ok(text)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> datafusion::common::Result<DataType> {
        Ok(self.result.to_arrow())
    }

    fn return_field_from_args(
        &self,
        _args: ReturnFieldArgs<'_>,
    ) -> datafusion::common::Result<FieldRef> {
        Ok(Arc::new(self.result.to_field(self.name, true)))
    }

    fn is_strict(&self) -> bool {
        self.overload.strict
    }

    fn invoke_with_args(
        &self,
        args: ScalarFunctionArgs,
    ) -> datafusion::common::Result<ColumnarValue> {
        let constant = !self.overload.volatile
            && args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let mut columns = Vec::with_capacity(args.args.len());
        for (arg, sql_type) in args.args.iter().zip(&self.types) {
            let column = arg.to_array(rows)?;
            let wanted = sql_type.to_arrow();
            columns.push(match *column.data_type() == wanted {
                true => column,
                false => arrow::compute::cast(&column, &wanted)?,
            });
        }
        let values = self.run(&columns, rows).map_err(external)?;
        Ok(match (constant, values.data_type()) {
            (false, _) => ColumnarValue::Array(values),
            // A list of one row, so that its items stay marked as documents or uuids.
            (true, DataType::List(_)) => {
                ColumnarValue::Scalar(ScalarValue::List(Arc::new(values.as_list().clone())))
            }
            (true, _) => ColumnarValue::Scalar(scalar_of(&values, 0)?),
        })
    }
}

impl Resolved {
    fn run(&self, columns: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let mut nulls = None;
        if self.overload.strict {
            for column in columns {
                nulls = NullBuffer::union(nulls.as_ref(), column.logical_nulls().as_ref());
            }
            if nulls.as_ref().is_some_and(|nulls| nulls.null_count() == rows) && rows > 0 {
                return Ok(new_null_array(&self.result.to_arrow(), rows));
            }
        }
        let call = Call {
            columns,
            rows,
            types: &self.types,
            result: &self.result,
            settings: &self.settings,
            nulls,
        };
        let values = (self.overload.run)(&call)?;
        assert_eq!(values.len(), rows, "{} gives a value for each row", self.name);
        Ok(values)
    }
}
