//! EXCLUDE in window frames, which neither sqlparser nor DataFusion knows.
//!
//! 1. `sql::extensions` takes `EXCLUDE TIES` out of a frame and puts a call of [`MARKER`] into the
//!    window's PARTITION BY, where a constant means nothing.
//! 2. [`exclude`] finds the marker in a call that is being planned, and puts an [`Excluding`]
//!    window function in its place: the same function over the same frame, which DataFusion hands
//!    to it row by row, without the rows that are excluded. Functions of a row's place (`rank()`,
//!    `lag()`) do not look at frames and stay as they are.
//!
//! For each row:
//! - sums and counts follow the frame, forget what is excluded, and take it in again;
//! - other aggregates are computed anew from the rows that are left;
//! - `first_value`, `last_value` and `nth_value` pick among the rows that are left.
//!
//! The same code runs in a batch and in a dataflow.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::{filter, prep_null_mask_filter};
use arrow::datatypes::{DataType, FieldRef, Schema};
use arrow::row::{RowConverter, SortField};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_err};
use datafusion::logical_expr::expr::{NullTreatment, ScalarFunction};
use datafusion::logical_expr::function::{
    AccumulatorArgs, PartitionEvaluatorArgs, WindowUDFFieldArgs,
};
use datafusion::logical_expr::planner::RawWindowExpr;
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, ColumnarValue, Expr, PartitionEvaluator, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility, WindowFunctionDefinition, WindowUDF,
    WindowUDFImpl, lit,
};
use datafusion::physical_expr::PhysicalExpr;

use crate::functions::scalar::float_key::float_keys;
use crate::sql::aggregates;
use crate::sql::resolve::external;
use crate::types::error::{Error, SqlState};

/// The function that marks a window. No user writes a name with a blank by chance.
pub const MARKER: &str = "frame exclusion";

/// Which rows of a frame are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exclusion {
    CurrentRow,
    /// The row and all that sort like it.
    Group,
    /// All that sort like the row, but not the row.
    Ties,
}

impl Exclusion {
    const ALL: [(Exclusion, &'static str); 3] = [
        (Exclusion::CurrentRow, "CURRENT ROW"),
        (Exclusion::Group, "GROUP"),
        (Exclusion::Ties, "TIES"),
    ];

    /// As it stands in SQL.
    pub fn name(self) -> &'static str {
        let found = Exclusion::ALL.iter().find(|(exclusion, _)| *exclusion == self);
        found.expect("every exclusion is listed").1
    }

    fn by_name(name: &str) -> Option<Exclusion> {
        Exclusion::ALL.iter().find(|(_, own)| *own == name).map(|(exclusion, _)| *exclusion)
    }
}

/// The marker; it is never called.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Marker {
    signature: Signature,
}

/// The function behind [`MARKER`].
pub fn marker() -> Arc<ScalarUDF> {
    let signature = Signature::exact(vec![DataType::Utf8], Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(Marker { signature }))
}

impl ScalarUDFImpl for Marker {
    fn name(&self) -> &str {
        MARKER
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let error = Error::user(SqlState::WINDOWING_ERROR, "EXCLUDE belongs to a window frame");
        Err(external(error))
    }
}

/// A call with the marker becomes one that excludes rows.
pub fn exclude(mut raw: RawWindowExpr) -> Result<RawWindowExpr> {
    let exclusion = |expr: &Expr| match expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.inner().is::<Marker>() => {
            match args.as_slice() {
                [Expr::Literal(ScalarValue::Utf8(Some(name)), _)] => Exclusion::by_name(name),
                _ => None,
            }
        }
        _ => None,
    };
    let Some(found) = raw.partition_by.iter().find_map(exclusion) else { return Ok(raw) };
    raw.partition_by.retain(|expr| exclusion(expr).is_none());
    let function = match &raw.func_def {
        WindowFunctionDefinition::AggregateUDF(function) => Inner::Aggregate(function.clone()),
        WindowFunctionDefinition::WindowUDF(function) => match function.name() {
            "first_value" => Inner::Pick(Pick::First),
            "last_value" => Inner::Pick(Pick::Last),
            "nth_value" => Inner::Pick(Pick::Nth),
            // The frame is nothing to these.
            _ => return Ok(raw),
        },
    };
    #[expect(deprecated, reason = "count(*) is planned with it")]
    let is_all = matches!(raw.args.as_slice(), [] | [Expr::Wildcard { .. }]);
    if is_all {
        raw.args = vec![lit(1_i64)];
    }
    let arguments = raw.args.len();
    let filtered = raw.filter.take();
    let name = match &function {
        Inner::Aggregate(function) => function.name().to_owned(),
        Inner::Pick(pick) => pick.name().to_owned(),
    };
    let excluding = Excluding {
        name: format!("{name} EXCLUDE {}", found.name()),
        own_name: name,
        function,
        exclusion: found,
        arguments,
        filtered: filtered.is_some(),
        distinct: std::mem::take(&mut raw.distinct),
        signature: Signature::user_defined(Volatility::Immutable),
    };
    raw.args.extend(filtered.map(|condition| *condition));
    raw.func_def = WindowFunctionDefinition::WindowUDF(Arc::new(WindowUDF::from(excluding)));
    if raw.null_treatment == Some(NullTreatment::RespectNulls) {
        raw.null_treatment = None;
    }
    Ok(raw)
}

/// The function over what is left.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Inner {
    Aggregate(Arc<AggregateUDF>),
    Pick(Pick),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Pick {
    First,
    Last,
    Nth,
}

impl Pick {
    fn name(self) -> &'static str {
        match self {
            Pick::First => "first_value",
            Pick::Last => "last_value",
            Pick::Nth => "nth_value",
        }
    }
}

/// A window function over frames without some of their rows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Excluding {
    /// With what is excluded: windows with and without are told apart by it.
    name: String,
    /// Of the function alone.
    pub own_name: String,
    function: Inner,
    pub exclusion: Exclusion,
    /// Arguments of the function; a condition of FILTER may follow them.
    pub arguments: usize,
    filtered: bool,
    distinct: bool,
    signature: Signature,
}

impl WindowUDFImpl for Excluding {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let fields: Vec<FieldRef> = given
            .iter()
            .map(|t| Arc::new(arrow::datatypes::Field::new("", t.clone(), true)))
            .collect();
        let (own, rest) = fields.split_at(self.arguments.min(fields.len()));
        let mut types: Vec<DataType> = match &self.function {
            Inner::Aggregate(function) => fields_with_udf(own, function.as_ref())?
                .iter()
                .map(|field| field.data_type().clone())
                .collect(),
            Inner::Pick(Pick::Nth) if own.len() == 2 => {
                vec![own[0].data_type().clone(), DataType::Int64]
            }
            Inner::Pick(pick) if own.len() == 1 && *pick != Pick::Nth => {
                vec![own[0].data_type().clone()]
            }
            Inner::Pick(_) => return exec_err!("{} has other arguments", self.name),
        };
        types.extend(rest.iter().map(|_| DataType::Boolean));
        Ok(types)
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        let fields = &args.input_fields()[..self.arguments.min(args.input_fields().len())];
        let field = match &self.function {
            Inner::Aggregate(function) => function.return_field(fields)?,
            Inner::Pick(_) => fields.first().cloned().ok_or_else(|| {
                DataFusionError::Internal(format!("{} has no argument", self.name))
            })?,
        };
        // Nothing may be left of a frame; a count says so with 0.
        let nullable = self.own_name != "count";
        Ok(Arc::new(field.as_ref().clone().with_name(args.name()).with_nullable(nullable)))
    }

    fn partition_evaluator(
        &self,
        args: PartitionEvaluatorArgs<'_>,
    ) -> Result<Box<dyn PartitionEvaluator>> {
        let count = self.arguments.min(args.input_fields().len());
        let fields: Vec<FieldRef> = args.input_fields()[..count].to_vec();
        let function = match &self.function {
            Inner::Pick(pick) => Function::Pick { pick: *pick, ignores_nulls: args.ignore_nulls() },
            Inner::Aggregate(function) => {
                let maker = Maker {
                    function: function.clone(),
                    return_field: function.return_field(&fields)?,
                    exprs: args.input_exprs()[..count].to_vec(),
                    fields: fields.clone(),
                    ignores_nulls: args.ignore_nulls(),
                    distinct: self.distinct,
                };
                let follower = maker.make()?;
                let follows = aggregates::forgets_in_any_order(function)
                    && !self.distinct
                    && follower.supports_retract_batch();
                let follower = follows.then_some((follower, 0..0));
                Function::Aggregate { maker, follower }
            }
        };
        Ok(Box::new(Evaluator {
            exclusion: self.exclusion,
            arguments: count,
            filtered: self.filtered,
            function,
            row: 0,
            groups: None,
        }))
    }
}

/// Makes accumulators of the function.
#[derive(Debug)]
struct Maker {
    function: Arc<AggregateUDF>,
    return_field: FieldRef,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    fields: Vec<FieldRef>,
    ignores_nulls: bool,
    distinct: bool,
}

/// What an accumulator is told of its input, which it gets as arrays.
static NO_SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::empty);

impl Maker {
    fn make(&self) -> Result<Box<dyn Accumulator>> {
        self.function.accumulator(AccumulatorArgs {
            return_field: self.return_field.clone(),
            schema: &NO_SCHEMA,
            ignore_nulls: self.ignores_nulls,
            order_bys: &[],
            is_reversed: false,
            name: self.function.name(),
            is_distinct: self.distinct,
            exprs: &self.exprs,
            expr_fields: &self.fields,
        })
    }
}

#[derive(Debug)]
enum Function {
    Aggregate {
        maker: Maker,
        /// An accumulator that has the rows of a frame, and which: it can forget any of them.
        follower: Option<(Box<dyn Accumulator>, Range<usize>)>,
    },
    Pick {
        pick: Pick,
        ignores_nulls: bool,
    },
}

#[derive(Debug)]
struct Evaluator {
    exclusion: Exclusion,
    arguments: usize,
    filtered: bool,
    function: Function,
    /// Rows come in order; this is the next.
    row: usize,
    /// For each row of the partition, where its peers begin and end.
    groups: Option<Vec<Range<usize>>>,
}

impl PartitionEvaluator for Evaluator {
    fn uses_window_frame(&self) -> bool {
        true
    }

    /// `values` are the arguments, the condition of FILTER, and the columns of ORDER BY.
    fn evaluate(&mut self, values: &[ArrayRef], range: &Range<usize>) -> Result<ScalarValue> {
        let row = self.row;
        self.row += 1;
        let (arguments, rest) = values.split_at(self.arguments);
        let (condition, order_by) = rest.split_at(usize::from(self.filtered));
        if self.groups.is_none() {
            let rows = values.first().map_or(0, |column| column.len());
            self.groups = Some(peer_groups(order_by, rows)?);
        }
        let group = match self.groups.as_ref().and_then(|groups| groups.get(row)) {
            Some(group) => group.clone(),
            None => return exec_err!("a window function was asked for more rows than there are"),
        };
        let holes = match self.exclusion {
            Exclusion::CurrentRow => [row..row + 1, 0..0],
            Exclusion::Group => [group, 0..0],
            Exclusion::Ties => [group.start..row, row + 1..group.end],
        };
        let frame = range.start..range.end.max(range.start);
        let holes = holes.map(|hole| intersection(&hole, &frame));
        let condition = condition.first().map(AsArray::as_boolean);
        match &mut self.function {
            Function::Pick { pick, ignores_nulls } => {
                let ignores_nulls = *ignores_nulls;
                let counts = |row: &usize| {
                    let excluded = holes.iter().any(|hole| hole.contains(row));
                    let passed_over = ignores_nulls && arguments[0].is_null(*row);
                    !(excluded || passed_over)
                };
                pick_value(*pick, arguments, row, frame.filter(counts))
            }
            Function::Aggregate { follower: Some((follower, has)), .. } => {
                follow(follower.as_mut(), arguments, condition, has, &frame)?;
                *has = frame;
                for hole in holes.iter().filter(|hole| !hole.is_empty()) {
                    follower.retract_batch(&rows_of(arguments, condition, hole)?)?;
                }
                let value = follower.evaluate()?;
                for hole in holes.iter().filter(|hole| !hole.is_empty()) {
                    follower.update_batch(&rows_of(arguments, condition, hole)?)?;
                }
                Ok(value)
            }
            Function::Aggregate { maker, follower: None } => {
                let mut accumulator = maker.make()?;
                let mut from = frame.start;
                for hole in holes.iter().filter(|hole| !hole.is_empty()) {
                    let left = from..hole.start;
                    accumulator.update_batch(&rows_of(arguments, condition, &left)?)?;
                    from = hole.end;
                }
                accumulator.update_batch(&rows_of(arguments, condition, &(from..frame.end))?)?;
                accumulator.evaluate()
            }
        }
    }
}

fn intersection(hole: &Range<usize>, frame: &Range<usize>) -> Range<usize> {
    let start = hole.start.max(frame.start);
    start..hole.end.min(frame.end).max(start)
}

/// Moves an accumulator from the rows that it has to those of a frame.
fn follow(
    accumulator: &mut dyn Accumulator,
    arguments: &[ArrayRef],
    condition: Option<&BooleanArray>,
    has: &Range<usize>,
    frame: &Range<usize>,
) -> Result<()> {
    let kept = intersection(has, frame);
    let leaves = match kept.is_empty() {
        true => [has.clone(), 0..0],
        false => [has.start..kept.start, kept.end..has.end],
    };
    let comes = match kept.is_empty() {
        true => [frame.clone(), 0..0],
        false => [frame.start..kept.start, kept.end..frame.end],
    };
    for range in leaves.iter().filter(|range| !range.is_empty()) {
        accumulator.retract_batch(&rows_of(arguments, condition, range)?)?;
    }
    for range in comes.iter().filter(|range| !range.is_empty()) {
        accumulator.update_batch(&rows_of(arguments, condition, range)?)?;
    }
    Ok(())
}

/// The arguments of the rows of a range that pass the condition.
fn rows_of(
    arguments: &[ArrayRef],
    condition: Option<&BooleanArray>,
    range: &Range<usize>,
) -> Result<Vec<ArrayRef>> {
    let slices = arguments.iter().map(|column| column.slice(range.start, range.len()));
    let Some(condition) = condition else { return Ok(slices.collect()) };
    let condition = condition.slice(range.start, range.len());
    let condition = match condition.null_count() {
        0 => condition,
        _ => prep_null_mask_filter(&condition),
    };
    slices.map(|column| Ok(filter(&column, &condition)?)).collect()
}

/// The value of one of the rows that are left.
fn pick_value(
    pick: Pick,
    arguments: &[ArrayRef],
    row: usize,
    mut left: impl DoubleEndedIterator<Item = usize>,
) -> Result<ScalarValue> {
    let chosen = match pick {
        Pick::First => left.next(),
        Pick::Last => left.next_back(),
        Pick::Nth => {
            let wanted = ScalarValue::try_from_array(&arguments[1], row)?;
            let ScalarValue::Int64(Some(wanted)) = wanted else {
                return ScalarValue::try_from(arguments[0].data_type());
            };
            let Some(before) = usize::try_from(wanted).ok().and_then(|n| n.checked_sub(1)) else {
                return Err(external(Error::user(
                    SqlState("22016"),
                    "argument of nth_value must be greater than zero",
                )));
            };
            left.nth(before)
        }
    };
    match chosen {
        Some(chosen) => ScalarValue::try_from_array(&arguments[0], chosen),
        None => ScalarValue::try_from(arguments[0].data_type()),
    }
}

/// For each row, the range of its peers; without columns all rows are.
fn peer_groups(order_by: &[ArrayRef], rows: usize) -> Result<Vec<Range<usize>>> {
    let columns: Vec<ArrayRef> = order_by.iter().map(float_keys).collect();
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone()));
    let keys = match columns.is_empty() {
        true => None,
        false => Some(RowConverter::new(fields.collect())?.convert_columns(&columns)?),
    };
    let mut groups = Vec::with_capacity(rows);
    let mut start = 0;
    for end in 1..=rows {
        let ends =
            end == rows || keys.as_ref().is_some_and(|keys| keys.row(end - 1) != keys.row(end));
        if ends {
            groups.extend((start..end).map(|_| start..end));
            start = end;
        }
    }
    Ok(groups)
}
