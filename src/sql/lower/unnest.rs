//! Lists to rows: unnest() in the select list, and in FROM.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::NullHandling;
use datafusion::logical_expr::Unnest;

use crate::plan::node::{self, Edge, Node, UnnestColumn};
use crate::sql::lower::lower_node;
use crate::sql::lower::pipe::Pipe;
use crate::types::error::{Error, Result};

pub fn lower_unnest(unnest: &Unnest) -> Result<Pipe> {
    let input = lower_node(&unnest.input)?.into_node()?;
    if !unnest.struct_type_columns.is_empty() {
        return Err(Error::unsupported("unnest of a composite value in a maintained query")
            .hint("Name its fields."));
    }
    if unnest.list_type_columns.iter().any(|(_, list)| list.depth != 1) {
        return Err(Error::unsupported("unnest of unnest in a maintained query")
            .hint("Put the inner unnest into a subquery."));
    }
    let columns = unnest.dependency_indices.iter().map(|column| {
        let list = unnest.list_type_columns.iter().any(|(index, _)| index == column);
        if list { UnnestColumn::Elements(*column) } else { UnnestColumn::Whole(*column) }
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
