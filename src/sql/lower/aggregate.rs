//! GROUP BY and DISTINCT.
//!
//! Keys, arguments, FILTER conditions and ORDER BY expressions are columns of the `Map` below,
//! each once; rows meet by their keys.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::{DFSchemaRef, ScalarValue};
use datafusion::logical_expr::expr::AggregateFunction as LogicalCall;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan, lit, when};

use crate::plan::node::{self, AggregateCall, AggregateFunction, Edge, Node, SortColumn};
use crate::sql::expressions::text;
use crate::sql::lower::join::HAS_NULL;
use crate::sql::lower::lower_node;
use crate::sql::lower::pipe::{Pipe, unqualified};
use crate::types::error::{Error, Result};

pub fn lower_aggregate(aggregate: &Aggregate) -> Result<Pipe> {
    let input = lower_node(&aggregate.input)?;
    let mut columns = Columns::new(input.schema().clone());
    let keys: Vec<usize> = aggregate
        .group_expr
        .iter()
        .map(|expr| match expr {
            Expr::GroupingSet(_) => {
                Err(Error::unsupported("GROUPING SETS, ROLLUP and CUBE in a maintained query")
                    .hint("Use UNION ALL of one GROUP BY each."))
            }
            expr => Ok(columns.add(expr)),
        })
        .collect::<Result<_>>()?;
    let calls = aggregate
        .aggr_expr
        .iter()
        .zip(aggregate.schema.fields().iter().skip(keys.len()))
        .map(|(expr, field)| lower_call(expr, field, &mut columns))
        .collect::<Result<Vec<_>>>()?;
    let input = columns.map(input)?;
    let fields = aggregate.schema.fields().iter().enumerate().map(|(index, field)| {
        let name = match index.checked_sub(keys.len()) {
            Some(call) => calls[call].display.clone(),
            None => input.schema().field(keys[index]).name().clone(),
        };
        field.as_ref().clone().with_name(name)
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let node = make_aggregate(input, keys, calls, schema);
    Ok(Pipe::new(node, aggregate.schema.clone()))
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
    Node::Aggregate(node::Aggregate { input, keys, calls, append_only, schema })
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
        if let Some(index) = self.exprs.iter().position(|e| *e == expr) {
            return index;
        }
        self.exprs.push(expr);
        self.exprs.len() - 1
    }

    fn field_of(&self, expr: &Expr) -> Result<FieldRef> {
        let (_, field) = expr.to_field(&self.schema).map_err(Error::from)?;
        Ok(field)
    }

    /// What is under a cast that only widens an integer for `sum` or `avg`: their sums are exact
    /// for every integer, so the cast would only cost.
    fn narrow_integer<'a>(
        &self,
        function: AggregateFunction,
        argument: &'a Expr,
    ) -> Option<&'a Expr> {
        let Expr::Cast(cast) = argument else { return None };
        let from = self.field_of(&cast.expr).ok()?.data_type().clone();
        let widens = match (function, &from, cast.field.data_type()) {
            (AggregateFunction::Avg, from, DataType::Float64) => from.is_signed_integer(),
            (AggregateFunction::Sum, DataType::Int16 | DataType::Int32, DataType::Int64) => true,
            _ => false,
        };
        widens.then_some(&*cast.expr)
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
    let function = match func.name() {
        "count" => AggregateFunction::Count,
        "sum" => AggregateFunction::Sum,
        "avg" => AggregateFunction::Avg,
        "min" => AggregateFunction::Min,
        "max" => AggregateFunction::Max,
        name => {
            return Err(Error::unsupported(format!(
                "the aggregate function {name}() in a maintained query"
            )));
        }
    };
    // count(*) and count(1) count rows.
    let counts_rows = function == AggregateFunction::Count
        && !params.distinct
        && params
            .args
            .iter()
            .all(|arg| matches!(arg, Expr::Literal(v, _) if *v != ScalarValue::Null));
    let arguments = params.args.iter().map(|argument| {
        columns.add(columns.narrow_integer(function, argument).unwrap_or(argument))
    });
    let arguments: Vec<usize> = if counts_rows { vec![] } else { arguments.collect() };
    let mut shown = call.clone();
    for argument in &mut shown.params.args {
        if let Some(narrow) = columns.narrow_integer(function, argument) {
            *argument = narrow.clone();
        }
    }
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
        display: text(&Expr::AggregateFunction(shown)),
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
