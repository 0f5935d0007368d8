//! Lists to rows: unnest() in the select list, and in FROM.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion::common::NullHandling;
use datafusion::functions::core::expr_fn::get_field;
use datafusion::logical_expr::Unnest;

use crate::plan::node::{self, Edge, Node, UnnestColumn};
use crate::sql::lower::lower_node;
use crate::sql::lower::pipe::{Pipe, QualifiedField, qualified};
use crate::types::error::{Error, Result};

pub fn lower_unnest(unnest: &Unnest) -> Result<Pipe> {
    let mut input = lower_node(&unnest.input)?;
    let mut dependencies = unnest.dependency_indices.clone();
    let mut lists: Vec<usize> = unnest.list_type_columns.iter().map(|(index, _)| *index).collect();
    if unnest.list_type_columns.iter().any(|(_, list)| list.depth != 1) {
        return Err(Error::unsupported("unnest of unnest in a maintained query")
            .hint("Put the inner unnest into a subquery."));
    }
    if !unnest.struct_type_columns.is_empty() {
        input = spread(input, unnest)?;
        let is_list = |place: &usize| lists.contains(&dependencies[*place]);
        lists = (0..dependencies.len()).filter(is_list).collect();
        dependencies = (0..dependencies.len()).collect();
    }
    let input = input.into_node()?;
    let columns = dependencies.iter().map(|column| match lists.contains(column) {
        true => UnnestColumn::Elements(*column),
        false => UnnestColumn::Whole(*column),
    });
    let columns: Vec<UnnestColumn> = columns.collect();
    let keeps_empty = match unnest.options.null_handling {
        NullHandling::Drop => false,
        NullHandling::PreserveAndExpandEmpty => true,
        NullHandling::Preserve => {
            return Err(Error::internal("NULL is no list of one NULL, in Postgres"));
        }
    };
    let names = input.schema();
    let field = |(column, field): (&UnnestColumn, &Arc<arrow::datatypes::Field>)| {
        let (UnnestColumn::Whole(index) | UnnestColumn::Elements(index)) = column;
        field.as_ref().clone().with_name(names.field(*index).name())
    };
    let fields: Vec<_> = columns.iter().zip(unnest.schema.fields().iter()).map(field).collect();
    let node = Node::Unnest(node::Unnest {
        input: Edge::local(input),
        columns,
        keeps_empty,
        schema: Arc::new(Schema::new(fields)),
    });
    Ok(Pipe::new(node, unnest.schema.clone()))
}

/// One column for each of the output, the fields of composite values among them.
fn spread(input: Pipe, unnest: &Unnest) -> Result<Pipe> {
    let (own, fields) = (input.columns(), input.fields());
    let mut exprs = vec![];
    let mut spread: Vec<QualifiedField> = vec![];
    for (place, column) in unnest.dependency_indices.iter().enumerate() {
        let name = format!("{place}");
        let (expr, field) = match fields[*column].1.data_type() {
            DataType::Struct(members) if unnest.struct_type_columns.contains(column) => {
                let earlier = unnest.dependency_indices[..place].iter();
                let member = earlier.filter(|other| *other == column).count();
                let member = members.get(member).ok_or_else(|| {
                    Error::internal("a composite value has a column for each field")
                })?;
                let expr = get_field(own[*column].clone(), member.name().as_str());
                (expr, member.as_ref().clone().with_nullable(true))
            }
            _ => (own[*column].clone(), fields[*column].1.as_ref().clone()),
        };
        exprs.push(expr);
        spread.push((None, Arc::new(field.with_name(name))));
    }
    input.project(&exprs, &qualified(spread)?)
}
