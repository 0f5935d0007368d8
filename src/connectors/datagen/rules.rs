//! The rules: from row numbers to a column's values.
//!
//! A rule is made from the options `fields.<column>.*`; within a row type the field's name
//! follows (`fields.<column>.<field>.*`), within an array `element`. Each rule draws from a random
//! stream of its own, named by its path, so columns can come and go without changing the others.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanArray, Date32Array, Decimal128Array,
    FixedSizeBinaryArray, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array,
    IntervalMonthDayNanoArray, ListArray, StringArray, StructArray, Time64MicrosecondArray,
    TimestampMicrosecondArray, UInt64Array,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::compute::{cast, nullif, take};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Fields, Float64Type, Int64Type,
    IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType,
    TimestampMicrosecondType,
};

use crate::connectors::draw::{Draw, below, fraction, push_letters};
use crate::connectors::options::Options;
use crate::formats::text;
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::SqlType;

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;
/// Where the time of generated rows begins.
const TIME_START: &str = "2026-01-01 00:00:00";
/// Characters and bytes of random text, elements of arrays.
const LENGTH_DEFAULT: u64 = 16;
const ARRAY_LENGTH_DEFAULT: u64 = 3;
const LENGTH_MAX: u64 = 10_000;
/// How deep arrays and row types may be nested.
const DEPTH_MAX: usize = 16;

/// The options of fields, and which of them rules have asked for.
pub struct FieldOptions<'a> {
    options: &'a Options,
    seed: u64,
    /// Rows per second, if they are paced: rows are then so far apart in their own time too.
    rate: Option<f64>,
    taken: Vec<String>,
}

impl<'a> FieldOptions<'a> {
    pub fn new(options: &'a Options, seed: u64, rate: Option<f64>) -> FieldOptions<'a> {
        FieldOptions { options, seed, rate, taken: Vec::new() }
    }

    /// The names of all options that the rules take.
    pub fn taken(&self) -> &[String] {
        &self.taken
    }

    /// The value of `<path>.<name>`, under either spelling of the name.
    fn get(&mut self, path: &str, name: &str) -> Option<(String, &'a str)> {
        let mut found = None;
        for spelling in [name.to_owned(), name.replace('.', "-")] {
            let full = format!("{path}.{spelling}");
            if let Some(value) = self.options.get(&full) {
                found.get_or_insert((full.clone(), value));
            }
            if !self.taken.contains(&full) {
                self.taken.push(full);
            }
        }
        found
    }

    /// A value of the field's type, as an array of length 1.
    fn value(&mut self, path: &str, name: &str, sql_type: &SqlType) -> Result<Option<ArrayRef>> {
        let Some((full, written)) = self.get(path, name) else { return Ok(None) };
        let field = sql_type.to_field(name, true);
        match text::single(&field, written)? {
            Ok(array) => Ok(Some(array)),
            Err(_) => Err(bad_value(&full, &format!("{written:?} is not of type {sql_type}"))),
        }
    }

    fn whole(&mut self, path: &str, name: &str, default: u64) -> Result<u64> {
        let Some((full, _)) = self.get(path, name) else { return Ok(default) };
        Ok(self.options.whole(&full, 0, LENGTH_MAX)?.unwrap_or(default))
    }

    /// A span of time in microseconds.
    fn span_us(&mut self, path: &str, name: &str) -> Result<Option<i64>> {
        let Some((full, written)) = self.get(path, name) else { return Ok(None) };
        let field = SqlType::Interval.to_field(name, true);
        let Ok(array) = text::single(&field, written)? else {
            return Err(bad_value(&full, &format!("{written:?} is not an interval")));
        };
        match interval_us(array.as_primitive::<IntervalMonthDayNanoType>().value(0)) {
            Some(micros) => Ok(Some(micros)),
            None => Err(bad_value(&full, "an interval of months has no fixed length")),
        }
    }
}

fn bad_value(option: &str, problem: &str) -> Error {
    Error::user(SqlState::INVALID_PARAMETER_VALUE, format!("option \"{option}\": {problem}"))
}

/// `None` for an interval with months, or beyond 292,000 years.
fn interval_us(interval: IntervalMonthDayNano) -> Option<i64> {
    if interval.months != 0 {
        return None;
    }
    i64::from(interval.days).checked_mul(DAY_US)?.checked_add(interval.nanoseconds / 1000)
}

/// How one column, field or element is filled.
pub struct Rule {
    field: Field,
    kind: Kind,
    draw: Draw,
    /// How many of the values are NULL.
    null_rate: f64,
}

/// What values come from.
enum Kind {
    /// `start + row * step`, for types that are whole numbers inside.
    Sequence(Sequence<i64>),
    SequenceFloat {
        start: f64,
        step: f64,
        rows_max: Option<u64>,
    },
    SequenceDecimal(Sequence<i128>),
    Boolean,
    /// `min + below(span)`; a span of 0 means all 2^64 values.
    Whole {
        min: i64,
        span: u64,
    },
    Float {
        min: f64,
        max: f64,
    },
    /// `min + below(span)`.
    Decimal {
        min: i128,
        span: u128,
    },
    /// The row's time minus up to `past_us_max`.
    RowTime {
        time: Sequence<i64>,
        past_us_max: i64,
    },
    Text {
        length: usize,
    },
    Bytes {
        length: usize,
    },
    Uuid,
    Json,
    /// Microseconds `min + below(span)`, as an interval.
    Interval {
        min: i64,
        span: u64,
    },
    Choice(ArrayRef),
    List {
        length: usize,
        element: Box<Rule>,
    },
    Record(Vec<Rule>),
}

/// Numbers at equal distances.
#[derive(Clone, Copy, Debug)]
struct Sequence<N> {
    start: N,
    step: N,
    /// Rows until it has passed its end, or what the type holds.
    rows_max: u64,
    /// Whether an end was given.
    ends: bool,
}

impl Rule {
    /// The rule of a column, from its options.
    pub fn of_column(field: &Field, options: &mut FieldOptions) -> Result<Rule> {
        let path = format!("fields.{}", field.name().to_lowercase());
        Rule::new(field, &path, options, 0)
    }

    fn new(field: &Field, path: &str, options: &mut FieldOptions, depth: usize) -> Result<Rule> {
        if depth > DEPTH_MAX {
            return Err(Error::unsupported(format!("a type nested deeper than {DEPTH_MAX}")));
        }
        let Some(sql_type) = SqlType::of_field(field) else {
            return Err(Error::unsupported(format!("generating {}", field.data_type())));
        };
        let null_rate = match options.get(path, "null.rate") {
            None => 0.0,
            Some((full, written)) => match written.trim().parse::<f64>() {
                Ok(rate) if (0.0..=1.0).contains(&rate) => rate,
                _ => return Err(bad_value(&full, &format!("{written:?} is not within 0 to 1"))),
            },
        };
        if null_rate > 0.0 && !field.is_nullable() {
            return Err(bad_value(&format!("{path}.null.rate"), "the column is NOT NULL"));
        }
        let kind = match options.get(path, "kind").map(|(full, kind)| (full, kind.to_lowercase())) {
            None => Kind::random(field, &sql_type, path, options, depth)?,
            Some((full, kind)) => match kind.trim() {
                "sequence" => Kind::sequence(&sql_type, path, options)?,
                "random" => Kind::random(field, &sql_type, path, options, depth)?,
                "choice" => Kind::choice(&sql_type, path, options)?,
                _ => {
                    return Err(bad_value(&full, &format!("unknown value {kind:?}"))
                        .hint("Choose one of: sequence, random, choice."));
                }
            },
        };
        let draw = Draw::new(options.seed, name_hash(path));
        Ok(Rule { field: field.clone(), kind, draw, null_rate })
    }

    /// Rows after which a sequence has no more values; `None`: it never ends.
    pub fn rows_max(&self) -> Option<u64> {
        match &self.kind {
            Kind::Sequence(sequence) => Some(sequence.rows_max),
            Kind::SequenceDecimal(sequence) => Some(sequence.rows_max),
            Kind::SequenceFloat { rows_max, .. } => *rows_max,
            Kind::RowTime { time, .. } => Some(time.rows_max),
            Kind::Record(fields) => fields.iter().filter_map(Rule::rows_max).min(),
            _ => None,
        }
    }

    /// Whether the options give this sequence an end.
    pub fn ends(&self) -> bool {
        match &self.kind {
            Kind::Sequence(sequence) => sequence.ends,
            Kind::SequenceDecimal(sequence) => sequence.ends,
            Kind::SequenceFloat { rows_max, .. } => rows_max.is_some(),
            Kind::Record(fields) => fields.iter().any(Rule::ends),
            _ => false,
        }
    }

    /// How many numbers a row of it takes, about: what one batch may have is bounded by this.
    pub fn row_weight(&self) -> u64 {
        match &self.kind {
            Kind::Text { length } | Kind::Bytes { length } => *length as u64 / 8 + 1,
            Kind::List { length, element } => {
                element.row_weight().saturating_mul(*length as u64).saturating_add(1)
            }
            Kind::Record(fields) => fields.iter().map(Rule::row_weight).sum(),
            Kind::Json => 8,
            _ => 1,
        }
    }

    /// The values of these rows.
    pub fn fill(&self, rows: &[u64]) -> Result<ArrayRef> {
        let values = self.values(rows)?;
        if self.null_rate == 0.0 {
            return Ok(values);
        }
        let draw = self.draw.child(u64::MAX);
        let is_null: BooleanArray =
            rows.iter().map(|row| Some(fraction(draw.at(*row)) < self.null_rate)).collect();
        with_nulls(&values, &is_null)
    }

    fn values(&self, rows: &[u64]) -> Result<ArrayRef> {
        let draw = self.draw;
        let bits = || rows.iter().map(move |row| draw.at(*row));
        Ok(match &self.kind {
            Kind::Sequence(sequence) => {
                let values = rows.iter().map(|row| sequence.at(*row));
                whole_numbers(self.field.data_type(), values)?
            }
            Kind::SequenceFloat { start, step, .. } => {
                let values = rows.iter().map(|row| start + *row as f64 * step);
                floats(self.field.data_type(), values)
            }
            Kind::SequenceDecimal(sequence) => {
                let values = rows.iter().map(|row| sequence.at(*row));
                decimals(self.field.data_type(), values)
            }
            Kind::Boolean => {
                Arc::new(bits().map(|bits| Some(bits >> 63 == 1)).collect::<BooleanArray>())
            }
            Kind::Whole { min, span } => {
                let values = bits().map(|bits| draw_whole(bits, *min, *span));
                whole_numbers(self.field.data_type(), values)?
            }
            Kind::Float { min, max } => {
                // Not min + f * (max - min): the difference may be infinite.
                let values = bits().map(fraction).map(|f| min * (1.0 - f) + max * f);
                floats(self.field.data_type(), values)
            }
            Kind::Decimal { min, span } => {
                let low = draw.child(1);
                let values = rows.iter().map(|row| {
                    let bits = u128::from(draw.at(*row)) << 64 | u128::from(low.at(*row));
                    min + (bits % span) as i128
                });
                decimals(self.field.data_type(), values)
            }
            Kind::RowTime { time, past_us_max } => {
                let span = past_us_max.unsigned_abs() + 1;
                let values = rows
                    .iter()
                    .map(|row| time.at(*row).wrapping_sub(below(draw.at(*row), span) as i64));
                whole_numbers(self.field.data_type(), values)?
            }
            Kind::Text { length } => texts(rows, *length, draw),
            Kind::Bytes { length } => bytes(rows, *length, draw),
            Kind::Uuid => uuids(rows, draw)?,
            Kind::Json => json(rows, draw),
            Kind::Interval { min, span } => {
                let values = bits().map(|bits| {
                    let micros = draw_whole(bits, *min, *span);
                    IntervalMonthDayNano::new(0, 0, micros.saturating_mul(1000))
                });
                Arc::new(IntervalMonthDayNanoArray::from_iter_values(values))
            }
            Kind::Choice(choices) => {
                let indices = bits().map(|bits| below(bits, choices.len() as u64));
                take(choices, &UInt64Array::from_iter_values(indices), None)?
            }
            Kind::List { length, element } => self.lists(rows, *length, element)?,
            Kind::Record(fields) => {
                let columns =
                    fields.iter().map(|rule| rule.fill(rows)).collect::<Result<Vec<_>>>()?;
                let fields: Fields = record_fields(self.field.data_type());
                Arc::new(StructArray::try_new_with_length(fields, columns, None, rows.len())?)
            }
        })
    }

    fn lists(&self, rows: &[u64], length: usize, element: &Rule) -> Result<ArrayRef> {
        let elements: Vec<u64> = rows
            .iter()
            .flat_map(|row| {
                let first = row.wrapping_mul(length as u64);
                (0..length as u64).map(move |n| first.wrapping_add(n))
            })
            .collect();
        let values = element.fill(&elements)?;
        let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(length, rows.len()));
        let field = Arc::new(element.field.clone());
        Ok(Arc::new(ListArray::try_new(field, offsets, values, None)?))
    }
}

/// The fields of a struct type.
fn record_fields(data_type: &DataType) -> Fields {
    match data_type {
        DataType::Struct(fields) => fields.clone(),
        _ => Fields::empty(),
    }
}

/// Puts NULLs over values, of any type.
fn with_nulls(values: &ArrayRef, is_null: &BooleanArray) -> Result<ArrayRef> {
    if values.data_type().is_nested() {
        let nulls = NullBuffer::new(!is_null.values());
        let data = values.to_data().into_builder().nulls(Some(nulls)).build()?;
        return Ok(arrow::array::make_array(data));
    }
    Ok(nullif(values, is_null)?)
}

fn draw_whole(bits: u64, min: i64, span: u64) -> i64 {
    let above = if span == 0 { bits } else { below(bits, span) };
    min.wrapping_add(above as i64)
}

/// A stream number for a path (FNV-1a).
fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

impl Sequence<i64> {
    /// The rows' own time: `start`, and one `step` per row.
    fn at(&self, row: u64) -> i64 {
        self.start.wrapping_add((row as i64).wrapping_mul(self.step))
    }
}

impl Sequence<i128> {
    fn at(&self, row: u64) -> i128 {
        self.start.wrapping_add(i128::from(row).wrapping_mul(self.step))
    }
}

/// Rows until `start + row * step` has passed `end`, or a limit of the type.
fn sequence_rows(start: i128, step: i128, end: Option<i128>, limits: (i128, i128)) -> u64 {
    let last = end.unwrap_or(if step < 0 { limits.0 } else { limits.1 });
    let last = last.clamp(limits.0, limits.1);
    let distance = if step < 0 { start.saturating_sub(last) } else { last.saturating_sub(start) };
    match step.checked_abs() {
        _ if distance < 0 => 0,
        Some(0) | None => u64::MAX,
        Some(step) => {
            u64::try_from(distance / step).map_or(u64::MAX, |rows| rows.saturating_add(1))
        }
    }
}

/// The value of a whole-number type in an array of length 1.
fn whole_value(array: &ArrayRef) -> Result<i64> {
    Ok(match array.data_type() {
        DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().value(0)
        }
        DataType::Date32 => i64::from(array.as_primitive::<Date32Type>().value(0)),
        DataType::Time64(_) => array.as_primitive::<Time64MicrosecondType>().value(0),
        DataType::Timestamp(_, _) => array.as_primitive::<TimestampMicrosecondType>().value(0),
        other => return Err(Error::internal(format!("{other} is no whole number inside"))),
    })
}

/// The smallest and the largest value of a whole-number type, and those that are drawn by default.
fn whole_limits(sql_type: &SqlType) -> Option<(i64, i64)> {
    match sql_type {
        SqlType::Int2 => Some((i64::from(i16::MIN), i64::from(i16::MAX))),
        SqlType::Int4 => Some((i64::from(i32::MIN), i64::from(i32::MAX))),
        SqlType::Int8 => Some((i64::MIN, i64::MAX)),
        SqlType::Date => Some((i64::from(i32::MIN), i64::from(i32::MAX))),
        SqlType::Time => Some((0, DAY_US - 1)),
        SqlType::Timestamp | SqlType::Timestamptz => Some((i64::MIN, i64::MAX)),
        _ => None,
    }
}

impl Kind {
    fn sequence(sql_type: &SqlType, path: &str, options: &mut FieldOptions) -> Result<Kind> {
        if let Some(limits) = whole_limits(sql_type) {
            return Ok(Kind::Sequence(whole_sequence(sql_type, limits, path, options)?));
        }
        let start = options.value(path, "start", sql_type)?;
        let end = options.value(path, "end", sql_type)?;
        let step = options.value(path, "step", sql_type)?;
        match sql_type {
            SqlType::Float4 | SqlType::Float8 => {
                let number = |array: &Option<ArrayRef>| -> Result<Option<f64>> {
                    let Some(array) = array else { return Ok(None) };
                    let wide = cast(array, &DataType::Float64)?;
                    Ok(Some(wide.as_primitive::<Float64Type>().value(0)))
                };
                let start = number(&start)?.unwrap_or(0.0);
                let step = number(&step)?.unwrap_or(1.0);
                let rows_max = number(&end)?.map(|end| {
                    let steps = (end - start) / step;
                    // A cast saturates; NaN and what is below 0 mean that there are no rows.
                    if steps >= 0.0 { (steps.floor() as u64).saturating_add(1) } else { 0 }
                });
                Ok(Kind::SequenceFloat { start, step, rows_max })
            }
            SqlType::Numeric(precision, scale) => {
                let number = |array: &Option<ArrayRef>| {
                    array.as_ref().map(|array| array.as_primitive::<Decimal128Type>().value(0))
                };
                let start = number(&start).unwrap_or(0);
                let one = 10i128.pow(u32::from(scale.unsigned_abs()));
                let step = number(&step).unwrap_or(one);
                let end = number(&end);
                let limit = 10i128.pow(u32::from(*precision)) - 1;
                let rows_max = sequence_rows(start, step, end, (-limit, limit));
                Ok(Kind::SequenceDecimal(Sequence { start, step, rows_max, ends: end.is_some() }))
            }
            other => Err(Error::unsupported(format!("a sequence of type {other}"))
                .hint(format!("Set {path}.kind to 'random' or 'choice'."))),
        }
    }

    fn choice(sql_type: &SqlType, path: &str, options: &mut FieldOptions) -> Result<Kind> {
        let Some((full, written)) = options.get(path, "choices") else {
            return Err(Error::user(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("option \"{path}.choices\" is missing"),
            )
            .hint("List the values, separated by commas."));
        };
        let field = sql_type.to_field("choice", true);
        let values: Vec<Option<&[u8]>> =
            written.split(',').map(|choice| Some(choice.trim().as_bytes())).collect();
        let cells = crate::formats::cells::Cells { values: &values, rows: None, column: "choice" };
        let mut bad = crate::formats::cells::BadRows::default();
        let array = text::column(&field, cells, &mut bad)?;
        match bad.into_messages().next() {
            Some((index, _)) => {
                let value = written.split(',').nth(index as usize).unwrap_or_default().trim();
                Err(bad_value(&full, &format!("{value:?} is not of type {sql_type}")))
            }
            None => Ok(Kind::Choice(array)),
        }
    }

    fn random(
        field: &Field,
        sql_type: &SqlType,
        path: &str,
        options: &mut FieldOptions,
        depth: usize,
    ) -> Result<Kind> {
        let length = |options: &mut FieldOptions, default| {
            options.whole(path, "length", default).map(|length| length as usize)
        };
        Ok(match sql_type {
            SqlType::Boolean => Kind::Boolean,
            SqlType::Int2 | SqlType::Int4 | SqlType::Int8 | SqlType::Date | SqlType::Time => {
                whole_range(sql_type, path, options)?
            }
            SqlType::Timestamp | SqlType::Timestamptz => {
                let given = ["min", "max"].iter().any(|n| options.get(path, n).is_some());
                if given {
                    whole_range(sql_type, path, options)?
                } else {
                    row_time(sql_type, path, options)?
                }
            }
            SqlType::Float4 | SqlType::Float8 => float_range(sql_type, path, options)?,
            SqlType::Numeric(precision, scale) => {
                decimal_range(sql_type, *precision, *scale, path, options)?
            }
            SqlType::Interval => {
                let min = options.span_us(path, "min")?.unwrap_or(0);
                let max = options.span_us(path, "max")?.unwrap_or(DAY_US.max(min));
                Kind::Interval { min, span: span(min, max, path)? }
            }
            SqlType::Text => Kind::Text { length: length(options, LENGTH_DEFAULT)? },
            SqlType::Bytea => Kind::Bytes { length: length(options, LENGTH_DEFAULT)? },
            SqlType::Uuid => Kind::Uuid,
            SqlType::Json | SqlType::Jsonb => Kind::Json,
            SqlType::Array(_) => {
                let length = length(options, ARRAY_LENGTH_DEFAULT)?;
                let DataType::List(item) = field.data_type() else {
                    return Err(Error::unsupported(format!("generating {}", field.data_type())));
                };
                let element = Rule::new(item, &format!("{path}.element"), options, depth + 1)?;
                Kind::List { length, element: Box::new(element) }
            }
            SqlType::Oid => return Err(Error::unsupported("generating oid")),
            SqlType::Record(_) => {
                let rules = record_fields(field.data_type())
                    .iter()
                    .map(|field| {
                        let path = format!("{path}.{}", field.name().to_lowercase());
                        Rule::new(field, &path, options, depth + 1)
                    })
                    .collect::<Result<Vec<_>>>()?;
                Kind::Record(rules)
            }
        })
    }
}

/// `start`, `end` and `step` of a whole-number type; the step of times is an interval.
fn whole_sequence(
    sql_type: &SqlType,
    limits: (i64, i64),
    path: &str,
    options: &mut FieldOptions,
) -> Result<Sequence<i64>> {
    let is_time = matches!(sql_type, SqlType::Time | SqlType::Timestamp | SqlType::Timestamptz);
    let start = match options.value(path, "start", sql_type)? {
        Some(start) => whole_value(&start)?,
        None if matches!(sql_type, SqlType::Int2 | SqlType::Int4 | SqlType::Int8) => 1,
        None if *sql_type == SqlType::Time => 0,
        None => time_start(sql_type)?,
    };
    let end = options.value(path, "end", sql_type)?.map(|end| whole_value(&end)).transpose()?;
    let step = if is_time {
        options.span_us(path, "step")?.unwrap_or(SECOND_US)
    } else {
        let step = options.value(path, "step", &SqlType::Int8)?;
        step.map(|step| whole_value(&step)).transpose()?.unwrap_or(1)
    };
    let rows_max = sequence_rows(
        i128::from(start),
        i128::from(step),
        end.map(i128::from),
        (i128::from(limits.0), i128::from(limits.1)),
    );
    Ok(Sequence { start, step, rows_max, ends: end.is_some() })
}

/// [`TIME_START`] as a date or timestamp.
fn time_start(sql_type: &SqlType) -> Result<i64> {
    let field = sql_type.to_field("start", true);
    match text::single(&field, TIME_START)? {
        Ok(array) => whole_value(&array),
        Err(message) => Err(Error::internal(message)),
    }
}

/// The number of values from `min` to `max`; 0 stands for all 2^64.
fn span(min: i64, max: i64, path: &str) -> Result<u64> {
    if min > max {
        return Err(bad_value(&format!("{path}.max"), "it is below the minimum"));
    }
    Ok((max.wrapping_sub(min) as u64).wrapping_add(1))
}

fn whole_range(sql_type: &SqlType, path: &str, options: &mut FieldOptions) -> Result<Kind> {
    let min = options.value(path, "min", sql_type)?.map(|min| whole_value(&min)).transpose()?;
    let max = options.value(path, "max", sql_type)?.map(|max| whole_value(&max)).transpose()?;
    let (least, most) = whole_limits(sql_type).unwrap_or((i64::MIN, i64::MAX));
    // Dates and timestamps without bounds stay within a decade, which every client can show.
    let decade_days = 3_652;
    let (least, most) = match sql_type {
        SqlType::Date => {
            let start = time_start(sql_type)?;
            (min.map_or(start - decade_days, |_| least), max.map_or(start, |_| most))
        }
        SqlType::Timestamp | SqlType::Timestamptz => {
            let start = time_start(sql_type)?;
            (
                max.unwrap_or(start).saturating_sub(decade_days * DAY_US),
                start.max(min.unwrap_or(start)),
            )
        }
        _ => (least, most),
    };
    let (min, max) = (min.unwrap_or(least), max.unwrap_or(most));
    Ok(Kind::Whole { min, span: span(min, max, path)? })
}

/// A timestamp near the row's own time.
fn row_time(sql_type: &SqlType, path: &str, options: &mut FieldOptions) -> Result<Kind> {
    let start = match options.value(path, "start", sql_type)? {
        Some(start) => whole_value(&start)?,
        None => time_start(sql_type)?,
    };
    let step = match (options.span_us(path, "step")?, options.rate) {
        (Some(step), _) => step,
        (None, Some(rate)) => (SECOND_US as f64 / rate) as i64,
        (None, None) => 1_000,
    };
    let past_us_max = options.span_us(path, "max.past")?.unwrap_or(0);
    if past_us_max < 0 {
        return Err(bad_value(&format!("{path}.max-past"), "it is negative"));
    }
    let limits = (i128::from(i64::MIN), i128::from(i64::MAX));
    let rows_max = sequence_rows(i128::from(start), i128::from(step), None, limits);
    Ok(Kind::RowTime { time: Sequence { start, step, rows_max, ends: false }, past_us_max })
}

fn float_range(sql_type: &SqlType, path: &str, options: &mut FieldOptions) -> Result<Kind> {
    let mut number = |name: &str| -> Result<Option<f64>> {
        let Some(array) = options.value(path, name, sql_type)? else { return Ok(None) };
        let value = cast(&array, &DataType::Float64)?.as_primitive::<Float64Type>().value(0);
        if value.is_finite() {
            Ok(Some(value))
        } else {
            Err(bad_value(&format!("{path}.{name}"), "it is not finite"))
        }
    };
    let min = number("min")?;
    let max = number("max")?.unwrap_or(min.unwrap_or(0.0).max(0.0) + 1.0);
    let min = min.unwrap_or(max.min(0.0));
    if min > max {
        return Err(bad_value(&format!("{path}.max"), "it is below the minimum"));
    }
    Ok(Kind::Float { min, max })
}

fn decimal_range(
    sql_type: &SqlType,
    precision: u8,
    scale: i8,
    path: &str,
    options: &mut FieldOptions,
) -> Result<Kind> {
    let limit = 10i128.pow(u32::from(precision)) - 1;
    // Without bounds the values have a few digits, not all 38.
    let usual = 10i128.pow(u32::from(scale.unsigned_abs()) + 6).min(limit);
    let mut number = |name: &str| -> Result<Option<i128>> {
        let array = options.value(path, name, sql_type)?;
        Ok(array.map(|array| array.as_primitive::<Decimal128Type>().value(0)))
    };
    let min = number("min")?;
    let max = number("max")?.unwrap_or(usual.max(min.unwrap_or(0)));
    let min = min.unwrap_or(max.min(0));
    if min > max {
        return Err(bad_value(&format!("{path}.max"), "it is below the minimum"));
    }
    Ok(Kind::Decimal { min, span: max.abs_diff(min) + 1 })
}

fn whole_numbers(data_type: &DataType, values: impl Iterator<Item = i64>) -> Result<ArrayRef> {
    Ok(match data_type {
        DataType::Int16 => Arc::new(Int16Array::from_iter_values(values.map(|v| v as i16))),
        DataType::Int32 => Arc::new(Int32Array::from_iter_values(values.map(|v| v as i32))),
        DataType::Int64 => Arc::new(Int64Array::from_iter_values(values)),
        DataType::Date32 => Arc::new(Date32Array::from_iter_values(values.map(|v| v as i32))),
        DataType::Time64(_) => Arc::new(Time64MicrosecondArray::from_iter_values(values)),
        DataType::Timestamp(_, zone) => {
            let array = TimestampMicrosecondArray::from_iter_values(values);
            Arc::new(array.with_timezone_opt(zone.clone()))
        }
        other => return Err(Error::internal(format!("{other} is no whole number inside"))),
    })
}

fn floats(data_type: &DataType, values: impl Iterator<Item = f64>) -> ArrayRef {
    match data_type {
        DataType::Float32 => Arc::new(Float32Array::from_iter_values(values.map(|v| v as f32))),
        _ => Arc::new(Float64Array::from_iter_values(values)),
    }
}

fn decimals(data_type: &DataType, values: impl Iterator<Item = i128>) -> ArrayRef {
    Arc::new(Decimal128Array::from_iter_values(values).with_data_type(data_type.clone()))
}

fn texts(rows: &[u64], length: usize, draw: Draw) -> ArrayRef {
    let mut values = Vec::with_capacity(rows.len() * length + 8);
    for row in rows {
        push_letters(&mut values, draw.child(*row), length);
    }
    let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(length, rows.len()));
    Arc::new(StringArray::new(offsets, values.into(), None))
}

fn bytes(rows: &[u64], length: usize, draw: Draw) -> ArrayRef {
    let mut builder = BinaryBuilder::with_capacity(rows.len(), rows.len() * length);
    let mut value = Vec::with_capacity(length + 8);
    for row in rows {
        value.clear();
        let draw = draw.child(*row);
        for word in 0..length.div_ceil(8) {
            value.extend_from_slice(&draw.at(word as u64).to_le_bytes());
        }
        builder.append_value(&value[..length]);
    }
    Arc::new(builder.finish())
}

fn uuids(rows: &[u64], draw: Draw) -> Result<ArrayRef> {
    let low = draw.child(1);
    let mut values = Vec::with_capacity(rows.len() * 16);
    for row in rows {
        let mut uuid = [0; 16];
        uuid[..8].copy_from_slice(&draw.at(*row).to_be_bytes());
        uuid[8..].copy_from_slice(&low.at(*row).to_be_bytes());
        // Version 4, variant 1: a random uuid by RFC 9562.
        uuid[6] = uuid[6] & 0x0F | 0x40;
        uuid[8] = uuid[8] & 0x3F | 0x80;
        values.extend_from_slice(&uuid);
    }
    Ok(Arc::new(FixedSizeBinaryArray::try_new(16, Buffer::from_vec(values), None)?))
}

fn json(rows: &[u64], draw: Draw) -> ArrayRef {
    let mut text = Vec::new();
    let mut ends = Vec::with_capacity(rows.len() + 1);
    ends.push(0i32);
    for row in rows {
        let value = below(draw.at(*row), 1_000_000);
        write!(text, "{{\"id\": {row}, \"name\": \"").expect("memory does not fail");
        push_letters(&mut text, draw.child(*row), 8);
        write!(text, "\", \"value\": {value}}}").expect("memory does not fail");
        ends.push(text.len() as i32);
    }
    Arc::new(StringArray::new(OffsetBuffer::new(ends.into()), text.into(), None))
}
