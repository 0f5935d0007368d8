//! GROUP BY and DISTINCT.
//!
//! Keys, arguments, FILTER conditions and ORDER BY expressions are columns of the `Map` below,
//! each once; rows meet by their keys.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::{DFSchema, DFSchemaRef, ScalarValue};
use datafusion::logical_expr::expr::AggregateFunction as LogicalCall;
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{
    Aggregate, Expr, ExprSchemable, GroupingSet, LogicalPlan, lit, when,
};

use crate::plan::expr::Expr as CompiledExpr;
use crate::plan::node::{self, AggregateCall, AggregateFunction, Edge, Node, SortColumn};
use crate::sql::expressions::{compile, text};
use crate::sql::lower::join::HAS_NULL;
use crate::sql::lower::lower_node;
use crate::sql::lower::panes::by_panes;
use crate::sql::lower::pipe::{Pipe, unqualified};
use crate::sql::lower::sessions::by_sessions;
use crate::types::error::{Error, Result};

pub fn lower_aggregate(aggregate: &Aggregate) -> Result<Pipe> {
    let input = lower_node(&aggregate.input)?;
    let mut columns = Columns::new(input.schema().clone());
    if let [Expr::GroupingSet(sets)] = aggregate.group_expr.as_slice() {
        return lower_grouping_sets(aggregate, sets, columns, input);
    }
    let keys: Vec<usize> = aggregate.group_expr.iter().map(|expr| columns.add(expr)).collect();
    let calls = lower_calls(aggregate, keys.len(), &mut columns)?;
    let input = columns.map(input)?;
    let schema = output_schema(aggregate, &input.schema(), &keys, &calls);
    let node = make_aggregate(input, keys, calls, schema);
    Ok(Pipe::new(node, aggregate.schema.clone()))
}

/// The calls, whose columns begin at this place of the output.
fn lower_calls(
    aggregate: &Aggregate,
    first: usize,
    columns: &mut Columns,
) -> Result<Vec<AggregateCall>> {
    aggregate
        .aggr_expr
        .iter()
        .zip(aggregate.schema.fields().iter().skip(first))
        .map(|(expr, field)| lower_call(expr, field, columns))
        .collect()
}

fn output_schema(
    aggregate: &Aggregate,
    input: &Schema,
    keys: &[usize],
    calls: &[AggregateCall],
) -> SchemaRef {
    let fields = aggregate.schema.fields().iter().enumerate().map(|(index, field)| {
        let name = match index.checked_sub(keys.len()) {
            Some(call) => calls[call].display.clone(),
            None => input.field(keys[index]).name().clone(),
        };
        field.as_ref().clone().with_name(name)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The column that says which rows were there before grouping sets were made.
const IS_ROW: &str = "is row";

/// GROUPING SETS, ROLLUP and CUBE: one aggregation of rows that come once for each set.
///
/// 1. A `Map` computes keys and arguments as ever.
/// 2. `Expand` gives each row once for each set, with the set's keys (the others NULL), the set's
///    number and the arguments.
/// 3. The set of no keys has a group also when there are no rows: a constant row makes it, which
///    every call filters out.
fn lower_grouping_sets(
    aggregate: &Aggregate,
    sets: &GroupingSet,
    mut columns: Columns,
    input: Pipe,
) -> Result<Pipe> {
    let sets = key_lists(sets);
    let all = std::slice::from_ref(&aggregate.group_expr[0]);
    let keys: Vec<Expr> = grouping_set_to_exprlist(all)
        .map_err(Error::from)?
        .into_iter()
        .map(|key| key.clone().unalias_nested().data)
        .collect();
    let key_columns: Vec<usize> = keys.iter().map(|key| columns.add(key)).collect();
    // The number of the set stands between the keys and the calls.
    let width = keys.len() + 1;
    let mut calls = lower_calls(aggregate, width, &mut columns)?;
    let input = columns.map(input)?;
    let below = input.schema();
    let id_field = aggregate.schema.field(keys.len()).clone();

    let mut fields: Vec<Field> = key_columns
        .iter()
        .map(|column| below.field(*column).as_ref().clone().with_nullable(true))
        .collect();
    fields.push(id_field.as_ref().clone());
    let is_row = fields.len();
    fields.push(Field::new(IS_ROW, DataType::Boolean, false));
    let shift = fields.len();
    fields.extend(below.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)));
    for call in &mut calls {
        for column in call.arguments.iter_mut().chain(call.filter.as_mut()) {
            *column += shift;
        }
        call.order_by.iter_mut().for_each(|sort| sort.column += shift);
    }
    let schema = Arc::new(Schema::new(fields));

    let (mut projections, mut empty_sets) = (vec![], vec![]);
    for (index, set) in sets.iter().enumerate() {
        let ordinal = sets[..index].iter().filter(|other| *other == set).count();
        let id = literal(&grouping_id(&keys, set, ordinal, id_field.data_type())?)?;
        let mut projection = vec![];
        for (key, column) in keys.iter().zip(&key_columns) {
            let field = below.field(*column);
            projection.push(match set.contains(key) {
                true => {
                    CompiledExpr::column(field.name(), *column, field.data_type().clone(), true)
                }
                false => literal(&ScalarValue::try_from(field.data_type()).map_err(Error::from)?)?,
            });
        }
        projection.push(id.clone());
        projection.push(literal(&ScalarValue::Boolean(Some(true)))?);
        projection.extend(below.fields().iter().enumerate().map(|(column, field)| {
            CompiledExpr::column(field.name(), column, field.data_type().clone(), true)
        }));
        if set.is_empty() {
            empty_sets.push(id);
        }
        projections.push(projection);
    }
    let expand = node::Expand { input: Edge::local(input), projections, schema: schema.clone() };
    let mut rows = Node::Expand(expand);
    if !empty_sets.is_empty() {
        let markers = marker_rows(&schema, is_row, empty_sets)?;
        rows = Node::Union(node::Union {
            inputs: vec![Edge::local(rows), Edge::local(Node::Constant(markers))],
            schema: schema.clone(),
        });
        // FILTER is NULL in the constant row already.
        calls.iter_mut().for_each(|call| call.filter = call.filter.or(Some(is_row)));
    }
    let keys: Vec<usize> = (0..width).collect();
    let schema = output_schema(aggregate, &schema, &keys, &calls);
    let node = make_aggregate(rows, keys, calls, schema);
    Ok(Pipe::new(node, aggregate.schema.clone()))
}

/// One row for each grouping set without keys: its number, and NULL else.
fn marker_rows(
    schema: &SchemaRef,
    is_row: usize,
    ids: Vec<CompiledExpr>,
) -> Result<node::Constant> {
    let one = RecordBatch::try_new_with_options(
        Arc::new(Schema::empty()),
        vec![],
        &RecordBatchOptions::new().with_row_count(Some(1)),
    )?;
    let mut rows = vec![];
    for id in ids {
        let columns = schema
            .fields()
            .iter()
            .enumerate()
            .map(|(column, field)| match column {
                column if column == is_row => Ok(Arc::new(BooleanArray::from(vec![false])) as _),
                column if column + 1 == is_row => id.evaluate(&one),
                _ => Ok(new_null_array(field.data_type(), 1)),
            })
            .collect::<Result<Vec<ArrayRef>>>()?;
        rows.push(RecordBatch::try_new(schema.clone(), columns)?);
    }
    Ok(node::Constant { rows: arrow::compute::concat_batches(schema, &rows)? })
}

/// The keys of each set, in the order in which DataFusion makes them.
fn key_lists(sets: &GroupingSet) -> Vec<Vec<Expr>> {
    let plain = |keys: &[Expr]| -> Vec<Expr> {
        keys.iter().map(|key| key.clone().unalias_nested().data).collect()
    };
    match sets {
        GroupingSet::GroupingSets(sets) => sets.iter().map(|set| plain(set)).collect(),
        GroupingSet::Rollup(keys) => (0..=keys.len()).map(|n| plain(&keys[..n])).collect(),
        GroupingSet::Cube(keys) => (0..1_usize << keys.len())
            .map(|mask| {
                let keys = keys.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1);
                keys.map(|(_, key)| key.clone().unalias_nested().data).collect()
            })
            .collect(),
    }
}

/// A set's number as GROUPING() reads it: a bit for each key, set where the key is left out, the
/// last key lowest; above them, how often the same set came before.
fn grouping_id(
    keys: &[Expr],
    set: &[Expr],
    ordinal: usize,
    data_type: &DataType,
) -> Result<ScalarValue> {
    let absent = keys.iter().fold(0_u64, |bits, key| bits << 1 | u64::from(!set.contains(key)));
    let id = absent | (ordinal as u64) << keys.len();
    ScalarValue::UInt64(Some(id)).cast_to(data_type).map_err(Error::from)
}

fn literal(value: &ScalarValue) -> Result<CompiledExpr> {
    compile(&Expr::Literal(value.clone(), None), &DFSchema::empty())
}

/// DISTINCT.
pub fn lower_distinct(input: &LogicalPlan) -> Result<Pipe> {
    make_distinct(lower_node(input)?)
}

/// Every column is a key, and there is nothing to compute.
pub fn make_distinct(pipe: Pipe) -> Result<Pipe> {
    let logical = pipe.schema().clone();
    let input = pipe.into_node()?;
    let schema = input.schema();
    let keys = (0..schema.fields().len()).collect();
    Ok(Pipe::new(make_aggregate(input, keys, vec![], schema), logical))
}

fn make_aggregate(
    input: Node,
    keys: Vec<usize>,
    calls: Vec<AggregateCall>,
    schema: SchemaRef,
) -> Node {
    let append_only = input.append_only();
    let input = Edge::hash(input, keys.clone());
    let phase = node::Phase::Whole;
    let on_close = false;
    let whole = node::Aggregate { input, keys, calls, append_only, phase, on_close, schema };
    if whole.keys.is_empty() {
        // Every row would go to one worker.
        return Node::Aggregate(whole.in_two_phases());
    }
    by_sessions(&whole).unwrap_or_else(|| by_panes(whole))
}

/// The columns that an operator reads, each expression once.
pub struct Columns {
    exprs: Vec<Expr>,
    schema: DFSchemaRef,
}

impl Columns {
    /// No columns yet, over an input of this schema.
    pub fn new(schema: DFSchemaRef) -> Columns {
        Columns { exprs: vec![], schema }
    }

    /// The place of an expression's column.
    pub fn add(&mut self, expr: &Expr) -> usize {
        let expr = expr.clone().unalias_nested().data;
        // Timestamps with a zone equal those without, as values; their types differ.
        let same = |e: &Expr| *e == expr && format!("{e:?}") == format!("{expr:?}");
        if let Some(index) = self.exprs.iter().position(same) {
            return index;
        }
        self.exprs.push(expr);
        self.exprs.len() - 1
    }

    fn field_of(&self, expr: &Expr) -> Result<FieldRef> {
        let (_, field) = expr.to_field(&self.schema).map_err(Error::from)?;
        Ok(field)
    }

    /// The input, mapped to these columns.
    pub fn map(self, input: Pipe) -> Result<Node> {
        let fields = self
            .exprs
            .iter()
            .enumerate()
            .map(|(index, expr)| {
                let field = self.field_of(expr)?;
                let name = match expr {
                    Expr::Column(column) => column.name.clone(),
                    expr => text(expr),
                };
                let taken = self.exprs[..index].iter().any(|other| match other {
                    Expr::Column(column) => column.name == name,
                    other => text(other) == name,
                });
                // Columns of one name from two tables: the place tells them apart.
                let name = if taken { format!("{name}#{index}") } else { name };
                Ok(Arc::new(field.as_ref().clone().with_name(name)))
            })
            .collect::<Result<Vec<FieldRef>>>()?;
        let schema = unqualified(fields)?;
        input.project(&self.exprs, &schema)?.into_node()
    }
}

fn lower_call(expr: &Expr, field: &Field, columns: &mut Columns) -> Result<AggregateCall> {
    let Expr::AggregateFunction(call) = expr.clone().unalias_nested().data else {
        return Err(Error::internal(format!("{expr} is not an aggregate call")));
    };
    let LogicalCall { func, params } = &call;
    let function = AggregateFunction::from_name(func.name()).ok_or_else(|| {
        let name = func.name();
        Error::unsupported(format!("the aggregate function {name}() in a maintained query"))
    })?;
    // count(*) and count(1) count rows; count(NULL) counts none.
    let counts_rows = function == AggregateFunction::Count
        && !params.distinct
        && params.args.iter().all(|arg| matches!(arg, Expr::Literal(v, _) if !v.is_null()));
    let arguments = params.args.iter().map(|argument| columns.add(argument));
    let arguments: Vec<usize> = if counts_rows { vec![] } else { arguments.collect() };
    let filter = params.filter.as_deref().map(|condition| columns.add(condition));
    let order_by = params
        .order_by
        .iter()
        .map(|sort| SortColumn {
            column: columns.add(&sort.expr),
            descending: !sort.asc,
            nulls_first: sort.nulls_first,
        })
        .collect();
    Ok(AggregateCall {
        function,
        arguments,
        distinct: params.distinct,
        filter,
        order_by,
        return_type: field.data_type().clone(),
        display: text(&Expr::AggregateFunction(call.clone())),
    })
}

/// One row: how many rows `input` has.
pub fn lower_count_rows(input: Pipe) -> Result<Node> {
    let input = input.project(&[], &unqualified(vec![])?)?.into_node()?;
    let call = whole_input(AggregateFunction::Count, vec![], DataType::Int64, "count(*)");
    let schema = Schema::new(vec![Field::new("rows", DataType::Int64, false)]);
    Ok(make_aggregate(input, vec![], vec![call], Arc::new(schema)))
}

/// One row that says whether a column of `input` has a NULL: NULL without rows, 0 without a NULL,
/// 1 with one. It changes only when that does.
pub fn lower_has_null(input: Pipe, column: &Expr) -> Result<Node> {
    let is_null = when(column.clone().is_null(), lit(1_i16)).otherwise(lit(0_i16));
    let is_null = is_null.map_err(Error::from)?;
    let schema = unqualified(vec![Arc::new(Field::new("is null", DataType::Int16, false))])?;
    let input = input.project(&[is_null], &schema)?.into_node()?;
    let call = whole_input(AggregateFunction::Max, vec![0], DataType::Int16, "max(is null)");
    let schema = Schema::new(vec![Field::new(HAS_NULL, DataType::Int16, true)]);
    Ok(make_aggregate(input, vec![], vec![call], Arc::new(schema)))
}

fn whole_input(
    function: AggregateFunction,
    arguments: Vec<usize>,
    return_type: DataType,
    display: &str,
) -> AggregateCall {
    AggregateCall {
        function,
        arguments,
        distinct: false,
        filter: None,
        order_by: vec![],
        return_type,
        display: display.to_owned(),
    }
}
