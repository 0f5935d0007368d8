//! Our aggregate functions in batch execution: the accumulators of `functions::aggregate`, which
//! maintain views, behind DataFusion's interface. A view and its query compute the same.
//!
//! 1. The words of all groups stand in one vector, as in the `aggregate` operator. DataFusion
//!    numbers groups from 0 and, when it takes the first n away, numbers the others anew; ours keep
//!    the number that they were made with.
//! 2. DISTINCT rows are told apart by a table of (group, arguments).
//! 3. DataFusion aggregates in two phases, with states that go from one to the other. States of
//!    exact sums and of ordered values are as large as their groups, so [`OnePhase`] joins both
//!    phases into one, whose input is spread by the group's keys.

use std::fmt;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array};
use arrow::compute::{filter, take};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};

use crate::functions::aggregate::build::build;
use crate::functions::aggregate::layout::{Argument, Call, Layout};
use crate::functions::aggregate::{ChangedRows, Evaluate, Rows, Slots, types};
use crate::functions::scalar::marked::scalar_of;
use crate::sql::resolve::external;
use crate::state::group_table::GroupTable;
use crate::types::error::Error;

/// Functions that DataFusion lacks or computes otherwise, and other names of theirs.
const NAMES: [(&str, &[&str]); 32] = [
    ("bit_and", &[]),
    ("bit_or", &[]),
    ("bit_xor", &[]),
    ("bool_and", &[]),
    ("bool_or", &[]),
    ("sum", &[]),
    ("avg", &["mean"]),
    ("var_samp", &["var", "variance", "var_sample"]),
    ("var_pop", &["var_population"]),
    ("stddev_samp", &["stddev"]),
    ("stddev_pop", &[]),
    ("covar_samp", &["covar"]),
    ("covar_pop", &[]),
    ("corr", &[]),
    ("regr_slope", &[]),
    ("regr_intercept", &[]),
    ("regr_count", &[]),
    ("regr_r2", &[]),
    ("regr_avgx", &[]),
    ("regr_avgy", &[]),
    ("regr_sxx", &[]),
    ("regr_syy", &[]),
    ("regr_sxy", &[]),
    ("median", &[]),
    ("percentile_cont", &["quantile_cont"]),
    ("percentile_disc", &["quantile_disc"]),
    ("mode", &[]),
    ("any_value", &[]),
    ("array_agg", &[]),
    ("string_agg", &[]),
    ("first_value", &[]),
    ("last_value", &[]),
];

/// The functions, to stand over DataFusion's of these names.
pub fn all() -> Vec<Arc<AggregateUDF>> {
    NAMES
        .into_iter()
        .map(|(name, aliases)| {
            Arc::new(AggregateUDF::new_from_impl(OurAggregate {
                name,
                aliases: aliases.iter().map(ToString::to_string).collect(),
                signature: Signature::user_defined(Volatility::Immutable),
            }))
        })
        .collect()
}

/// The function of that name over a window, whose order is the window's and not of the values:
/// DataFusion's own. `None` for functions whose result does not depend on an order.
pub fn in_window(name: &str) -> Option<Arc<AggregateUDF>> {
    static ORDERED: LazyLock<Vec<Arc<AggregateUDF>>> = LazyLock::new(|| {
        let mut functions = SessionStateDefaults::default_aggregate_functions();
        functions.retain(|function| {
            matches!(function.name(), "array_agg" | "string_agg" | "first_value" | "last_value")
        });
        functions
    });
    ORDERED.iter().find(|function| function.name() == name).cloned()
}

/// Whether an accumulator of the function can forget rows in any order, not only the oldest first.
pub fn forgets_in_any_order(function: &AggregateUDF) -> bool {
    function.name() == "count" || function.inner().is::<OurAggregate>()
}

/// Whether a function is one of [`all`].
pub fn is_ours(function: &AggregateUDF) -> bool {
    function.inner().is::<OurAggregate>()
}

/// One aggregate function.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OurAggregate {
    name: &'static str,
    aliases: Vec<String>,
    signature: Signature,
}

impl OurAggregate {
    /// Whether the value to order by stands in WITHIN GROUP.
    fn is_ordered_set(&self) -> bool {
        matches!(self.name, "percentile_cont" | "percentile_disc" | "mode")
    }

    fn accumulate(&self, args: &AccumulatorArgs<'_>) -> Result<Groups> {
        Groups::new(self.name, args).map_err(external)
    }
}

impl AggregateUDFImpl for OurAggregate {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        types::arguments(self.name, given).map_err(external)
    }

    fn return_type(&self, given: &[DataType]) -> Result<DataType> {
        let fields: Vec<FieldRef> = given
            .iter()
            .map(|t| Arc::new(arrow::datatypes::Field::new("", t.clone(), true)))
            .collect();
        Ok(self.return_field(&fields)?.data_type().clone())
    }

    fn return_field(&self, arguments: &[FieldRef]) -> Result<FieldRef> {
        Ok(types::result(self.name, arguments))
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(OneGroup { groups: self.accumulate(&args)?, slides: !args.is_distinct }))
    }

    fn groups_accumulator_supported(&self, _args: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(self.accumulate(&args)?))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        // Never filled: see `OnePhase`.
        Ok(vec![args.return_field.clone()])
    }

    // The order is kept by the accumulators; sorting the input would not help them.
    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Beneficial
    }

    fn with_beneficial_ordering(
        self: Arc<Self>,
        _beneficial_ordering: bool,
    ) -> Result<Option<Arc<dyn AggregateUDFImpl>>> {
        // It does the same for input in order.
        Ok(Some(self))
    }

    fn supports_within_group_clause(&self) -> bool {
        self.is_ordered_set()
    }
}

/// The accumulator of one call for all groups.
struct Groups {
    layout: Layout,
    value: Box<dyn Evaluate>,
    words: Vec<u64>,
    /// Groups that were taken away: DataFusion's number of a group plus this is ours.
    taken: usize,
    /// The number of each argument and ORDER BY column in the values that DataFusion hands over,
    /// for each input of the layout.
    inputs: Vec<Vec<usize>>,
    distinct: Option<DistinctRows>,
    data_type: DataType,
}

/// The (group, arguments) pairs that were there.
struct DistinctRows {
    pairs: GroupTable,
    ids: Vec<u32>,
    skips_nulls: bool,
}

impl Groups {
    fn new(name: &str, args: &AccumulatorArgs<'_>) -> crate::types::error::Result<Groups> {
        let argument = |column: usize, data_type: &DataType| Argument {
            column,
            data_type: data_type.clone(),
            nullable: true,
        };
        let arguments: Vec<Argument> = args
            .expr_fields
            .iter()
            .enumerate()
            .map(|(column, field)| argument(column, field.data_type()))
            .collect();
        let mut order_by = vec![];
        for (index, sort) in args.order_bys.iter().enumerate() {
            let same = args.exprs.iter().position(|expr| expr.as_ref() == sort.expr.as_ref());
            let options = sort.options;
            let column = match same {
                Some(column) => arguments[column].clone(),
                None => {
                    let data_type = sort.expr.data_type(args.schema).map_err(Error::from)?;
                    argument(args.exprs.len() + index, &data_type)
                }
            };
            order_by.push((column, options));
        }
        let call = Call {
            arguments,
            distinct: args.is_distinct,
            filter: None,
            order_by,
            append_only: false,
            return_type: args.return_type().clone(),
            display: args.name.to_owned(),
        };
        let mut layout = Layout::default();
        let value = build(name, &mut layout, &call)?;
        let inputs = layout
            .inputs
            .iter()
            .map(|input| input.arguments.iter().map(|a| a.column).collect())
            .collect();
        let distinct = match layout.inputs.iter().find(|input| input.distinct) {
            None => None,
            Some(input) => {
                let types: Vec<DataType> = std::iter::once(DataType::UInt32)
                    .chain(input.arguments.iter().map(|a| a.data_type.clone()))
                    .collect();
                Some(DistinctRows {
                    pairs: GroupTable::new(&types, 1)?,
                    ids: vec![],
                    skips_nulls: input.skips_nulls,
                })
            }
        };
        Ok(Groups {
            layout,
            value,
            words: vec![],
            taken: 0,
            inputs,
            distinct,
            data_type: call.return_type,
        })
    }

    /// Makes room for groups up to this number.
    fn grow(&mut self, groups: usize) {
        let words = groups * self.layout.stride;
        if self.words.len() < words {
            self.words.resize(words, 0);
        }
    }

    /// Adds rows (or takes them away, with the weight -1); `groups` are our numbers.
    fn fold(
        &mut self,
        values: &[ArrayRef],
        groups: &[u32],
        weight: i64,
    ) -> crate::types::error::Result<()> {
        let stride = self.layout.stride;
        for group in groups {
            let count = &mut self.words[*group as usize * stride];
            *count = count.wrapping_add(weight as u64);
        }
        let weights = (weight != 1).then(|| vec![weight; groups.len()]);
        for index in 0..self.inputs.len() {
            let columns: Vec<ArrayRef> =
                self.inputs[index].iter().map(|column| values[*column].clone()).collect();
            let (columns, chosen) = match &mut self.distinct {
                Some(distinct) if self.layout.inputs[index].distinct => {
                    let (columns, groups) = distinct.fresh(columns, groups)?;
                    (columns, Some(groups))
                }
                _ => (columns, None),
            };
            let rows = Rows {
                groups: chosen.as_deref().unwrap_or(groups),
                weights: weights.as_deref(),
                arguments: &columns,
            };
            for placed in self.layout.accumulators.iter_mut().filter(|p| p.input == index) {
                placed.fold(&mut self.words, stride, &rows)?;
            }
        }
        Ok(())
    }

    /// The values of the next `count` groups.
    fn values(&mut self, count: usize) -> crate::types::error::Result<ArrayRef> {
        self.grow(self.taken + count);
        let stride = self.layout.stride;
        let number = |group: usize| {
            u32::try_from(group).map_err(|_| Error::internal("more groups than numbers"))
        };
        let groups: Vec<u32> =
            (self.taken..self.taken + count).map(number).collect::<Result<_, _>>()?;
        for placed in &mut self.layout.accumulators {
            let mut slots = Slots { words: &mut self.words, stride, offset: placed.offset };
            placed.accumulator.settle(&mut slots, &groups)?;
        }
        // As they were: nothing was there.
        let mut words = vec![0; count * stride];
        words.extend_from_slice(&self.words[self.taken * stride..][..count * stride]);
        let rows = ChangedRows { groups: &groups, words: &words, stride, remembered_from: 0 };
        let evaluated = self.value.evaluate(&rows, &self.layout.accumulators)?;
        // A group without rows has no value that could fail.
        if let Some((_, error)) = evaluated.failed.into_iter().find(|(row, _)| *row >= count) {
            return Err(error);
        }
        let values = evaluated.values.slice(count, count);
        match *values.data_type() == self.data_type {
            true => Ok(values),
            false => Ok(arrow::compute::cast(&values, &self.data_type)?),
        }
    }

    /// Takes the next `count` groups away.
    fn take(&mut self, count: usize) {
        let stride = self.layout.stride;
        let groups: Vec<u32> = (self.taken..self.taken + count).map(|g| g as u32).collect();
        for placed in &mut self.layout.accumulators {
            let mut slots = Slots { words: &mut self.words, stride, offset: placed.offset };
            placed.accumulator.free(&mut slots, &groups);
        }
        self.taken += count;
    }
}

impl DistinctRows {
    /// The rows whose pair was not there before, with the groups of these.
    fn fresh(
        &mut self,
        columns: Vec<ArrayRef>,
        groups: &[u32],
    ) -> crate::types::error::Result<(Vec<ArrayRef>, Vec<u32>)> {
        let numbers: ArrayRef = Arc::new(UInt32Array::from(groups.to_vec()));
        let keys: Vec<ArrayRef> = std::iter::once(numbers).chain(columns.iter().cloned()).collect();
        let before = self.pairs.len();
        self.pairs.intern(&keys, groups.len(), &mut self.ids)?;
        let mut seen = before;
        let mut chosen = vec![];
        for (row, id) in self.ids.iter().enumerate() {
            if *id as usize >= seen {
                seen = *id as usize + 1;
                let null = self.skips_nulls && columns.iter().any(|column| column.is_null(row));
                if !null {
                    chosen.push(row as u32);
                }
            }
        }
        let groups = chosen.iter().map(|row| groups[*row as usize]).collect();
        let chosen = UInt32Array::from(chosen);
        let columns = columns
            .iter()
            .map(|column| Ok(take(column, &chosen, None)?))
            .collect::<crate::types::error::Result<_>>()?;
        Ok((columns, groups))
    }
}

fn no_states() -> DataFusionError {
    DataFusionError::Internal("our aggregate functions run in one phase".to_owned())
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.grow(self.taken + total_num_groups);
        let groups: Vec<u32> =
            group_indices.iter().map(|group| (self.taken + group) as u32).collect();
        let Some(condition) = opt_filter else {
            return self.fold(values, &groups, 1).map_err(external);
        };
        let condition = match condition.null_count() {
            0 => condition.clone(),
            _ => arrow::compute::prep_null_mask_filter(condition),
        };
        let values = values.iter().map(|v| filter(v, &condition)).collect::<Result<Vec<_>, _>>()?;
        let groups: Vec<u32> = condition.values().set_indices().map(|row| groups[row]).collect();
        self.fold(&values, &groups, 1).map_err(external)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let count = match emit_to {
            EmitTo::All => self.words.len() / self.layout.stride - self.taken,
            EmitTo::First(count) => count,
        };
        let values = self.values(count).map_err(external)?;
        self.take(count);
        Ok(values)
    }

    fn state(&mut self, _emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Err(no_states())
    }

    fn merge_batch(
        &mut self,
        _values: &[ArrayRef],
        _group_indices: &[usize],
        _total_num_groups: usize,
    ) -> Result<()> {
        Err(no_states())
    }

    fn convert_to_state(
        &self,
        _values: &[ArrayRef],
        _opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        Err(no_states())
    }

    fn size(&self) -> usize {
        let beside: usize =
            self.layout.accumulators.iter().map(|p| p.accumulator.memory_bytes()).sum();
        let distinct = self.distinct.as_ref().map_or(0, |d| d.pairs.memory_bytes());
        beside + distinct + self.words.capacity() * size_of::<u64>()
    }
}

/// The accumulator of one group: of a query without GROUP BY, or of a window.
struct OneGroup {
    groups: Groups,
    slides: bool,
}

impl fmt::Debug for OneGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneGroup").field("data_type", &self.groups.data_type).finish()
    }
}

impl OneGroup {
    fn fold(&mut self, values: &[ArrayRef], weight: i64) -> Result<()> {
        let rows = values.first().map_or(0, |v| v.len());
        self.groups.grow(1);
        self.groups.fold(values, &vec![0; rows], weight).map_err(external)
    }
}

impl Accumulator for OneGroup {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.fold(values, 1)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.fold(values, -1)
    }

    fn supports_retract_batch(&self) -> bool {
        self.slides
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let values = self.groups.values(1).map_err(external)?;
        scalar_of(&values, 0)
    }

    fn size(&self) -> usize {
        GroupsAccumulator::size(&self.groups)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Err(no_states())
    }

    fn merge_batch(&mut self, _states: &[ArrayRef]) -> Result<()> {
        Err(no_states())
    }
}

/// Aggregations that use our functions run in one phase.
#[derive(Debug)]
pub struct OnePhase;

impl PhysicalOptimizerRule for OnePhase {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_down(|plan| {
            let Some(last) = plan.downcast_ref::<AggregateExec>() else {
                return Ok(Transformed::no(plan));
            };
            let Some(first) = last.input().downcast_ref::<AggregateExec>() else {
                return Ok(Transformed::no(plan));
            };
            let ours = first.aggr_expr().iter().any(|call| call.fun().inner().is::<OurAggregate>());
            if !ours || *first.mode() != AggregateMode::Partial {
                return Ok(Transformed::no(plan));
            }
            let keys = first.group_expr();
            let mode = match last.mode() {
                // Rows of one group may not be in two partitions; a grouping set has less keys.
                AggregateMode::FinalPartitioned if keys.is_single() => {
                    AggregateMode::SinglePartitioned
                }
                AggregateMode::Final | AggregateMode::FinalPartitioned => AggregateMode::Single,
                _ => return Ok(Transformed::no(plan)),
            };
            let joined = AggregateExec::try_new(
                mode,
                keys.clone(),
                first.aggr_expr().to_vec(),
                first.filter_expr().to_vec(),
                first.input().clone(),
                first.input_schema(),
            )?;
            Ok(Transformed::yes(Arc::new(joined)))
        })
        .data()
    }

    fn name(&self) -> &str {
        "one_phase"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
