//! An operator with the filters and projections that follow it, which become one `Map`.
//!
//! 1. A filter joins the filters before it; over a projection, its columns are replaced by what
//!    they are computed from.
//! 2. A projection over a projection is one, unless that would compute something twice.
//! 3. Where neither is possible the pipe is closed: a `Map` is made, and a new pipe begins.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DFSchemaRef, TableReference};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::conjunction;

use crate::plan::expr::Expr as CompiledExpr;
use crate::plan::node::{self, Edge, Node};
use crate::sql::expressions::{compile, ordered_condition, text};
use crate::sql::lower::{conjuncts, is_one_row};
use crate::types::error::{Error, Result};

/// A node, then conditions over its columns, then columns computed from its columns.
pub struct Pipe {
    node: Node,
    /// The node's columns, as the logical plan calls them.
    input: DFSchemaRef,
    /// Conditions over `input`.
    filter: Vec<Expr>,
    /// One per column of `output`, over `input`; `None`: the input's columns as they are.
    projection: Option<Vec<Expr>>,
    /// What the pipe gives, as the logical plan calls it.
    output: DFSchemaRef,
}

impl Pipe {
    pub fn new(node: Node, schema: DFSchemaRef) -> Pipe {
        assert_eq!(
            node.schema().fields().len(),
            schema.fields().len(),
            "a node has the columns of its logical plan"
        );
        Pipe { node, input: schema.clone(), filter: vec![], projection: None, output: schema }
    }

    /// What the pipe gives.
    pub fn schema(&self) -> &DFSchemaRef {
        &self.output
    }

    /// The same columns under other names.
    pub fn rename(mut self, schema: DFSchemaRef) -> Pipe {
        if self.projection.is_none() {
            self.input = schema.clone();
            // Conditions name columns of the old schema, which has them in the same places.
            let filter = std::mem::take(&mut self.filter);
            self.filter =
                filter.into_iter().map(|expr| renamed(expr, &self.output, &schema)).collect();
        }
        self.output = schema;
        self
    }

    /// Keeps the rows where the condition over the output is true.
    pub fn filter(self, predicate: &Expr) -> Result<Pipe> {
        let mut pipe = if self.replaces_cheaply(std::slice::from_ref(predicate)) {
            self
        } else {
            self.closed()?
        };
        let conditions = conjuncts(predicate);
        for condition in conditions {
            let condition = pipe.over_input(condition)?;
            pipe.filter.push(condition);
        }
        Ok(pipe)
    }

    /// Computes columns from the output.
    pub fn project(self, exprs: &[Expr], schema: &DFSchemaRef) -> Result<Pipe> {
        let mut pipe = if self.replaces_cheaply(exprs) { self } else { self.closed()? };
        let exprs = exprs
            .iter()
            .map(|expr| pipe.over_input(expr.clone().unalias_nested().data))
            .collect::<Result<Vec<_>>>()?;
        pipe.projection = Some(exprs);
        pipe.output = schema.clone();
        Ok(pipe)
    }

    /// Whether expressions over the output can be written over the input without computing
    /// anything twice.
    fn replaces_cheaply(&self, exprs: &[Expr]) -> bool {
        let Some(projection) = &self.projection else { return true };
        let mut uses = vec![0; projection.len()];
        for expr in exprs {
            let counted = expr.apply(|e| {
                if let Expr::Column(column) = e
                    && let Some(index) = self.output.maybe_index_of_column(column)
                {
                    uses[index] += 1;
                }
                Ok(TreeNodeRecursion::Continue)
            });
            if counted.is_err() {
                return false;
            }
        }
        projection
            .iter()
            .zip(uses)
            .all(|(expr, uses)| uses == 0 || is_trivial(expr) || (uses == 1 && !expr.is_volatile()))
    }

    /// An expression over the output, written over the input.
    fn over_input(&self, expr: Expr) -> Result<Expr> {
        let Some(projection) = &self.projection else { return Ok(expr) };
        let replaced = expr.transform_up(|e| match &e {
            Expr::Column(column) => {
                let index = self.output.index_of_column(column)?;
                Ok(Transformed::yes(projection[index].clone()))
            }
            _ => Ok(Transformed::no(e)),
        });
        Ok(replaced.map_err(Error::from)?.data)
    }

    /// The pipe with its `Map` made, if it has anything to do.
    fn closed(self) -> Result<Pipe> {
        let schema = self.output.clone();
        let node = self.into_node()?;
        Ok(Pipe::new(node, schema))
    }

    /// The operator with its `Map` above it.
    pub fn into_node(self) -> Result<Node> {
        let schema = self.output.inner().clone();
        self.into_node_with(schema)
    }

    /// As [`Pipe::into_node`], with these columns: other names, or NULL allowed where it was not.
    pub fn into_node_with(mut self, schema: SchemaRef) -> Result<Node> {
        self.drop_number()?;
        let plain = self.filter.is_empty() && self.projects_nothing();
        if plain && *self.node.schema() == *schema {
            return Ok(self.node);
        }
        let projection = self
            .projection
            .clone()
            .unwrap_or_else(|| self.input.columns().into_iter().map(Expr::Column).collect());
        assert_eq!(projection.len(), schema.fields().len(), "one expression per column");
        let names = self.node.schema();
        let columns = projection
            .iter()
            .map(|expr| compile_named(expr, &self.input, &names))
            .collect::<Result<Vec<_>>>()?;
        for (column, field) in columns.iter().zip(schema.fields()) {
            if column.data_type() != field.data_type() {
                return Err(Error::internal(format!(
                    "column {} was planned as {} and compiled as {}",
                    field.name(),
                    field.data_type(),
                    column.data_type()
                )));
            }
        }
        let filter = match conjunction(self.filter) {
            Some(condition) => {
                Some(compile_named(&ordered_condition(condition), &self.input, &names)?)
            }
            None => None,
        };
        if is_one_row(&self.node) && filter.is_none() {
            return constant(&self.node, &columns, schema);
        }
        // A filter alone hands its rows on as they are.
        let keeps_columns = self.projection.is_none() && *self.node.schema() == *schema;
        Ok(Node::Map(node::Map {
            input: Edge::local(self.node),
            filter,
            projection: (!keeps_columns).then_some(columns),
            schema,
        }))
    }

    /// Lets a `TopN` not number its rows when nobody reads the number, which is its last column:
    /// rows that only move up would be changes otherwise.
    fn drop_number(&mut self) -> Result<()> {
        let Node::TopN(top_n) = &mut self.node else { return Ok(()) };
        let Some(projection) = &self.projection else { return Ok(()) };
        let number = self.input.fields().len() - 1;
        let reads = |expr: &Expr| {
            expr.column_refs().iter().any(|c| self.input.maybe_index_of_column(c) == Some(number))
        };
        if !top_n.numbered || projection.iter().chain(&self.filter).any(reads) {
            return Ok(());
        }
        top_n.numbered = false;
        let fields: Vec<_> = top_n.schema.fields()[..number].to_vec();
        top_n.schema = Arc::new(Schema::new(fields));
        let fields = self.input.iter().take(number);
        self.input = qualified(fields.map(|(q, field)| (q.cloned(), field.clone())).collect())?;
        Ok(())
    }

    fn projects_nothing(&self) -> bool {
        match &self.projection {
            None => true,
            Some(exprs) => {
                exprs.len() == self.input.fields().len()
                    && exprs
                        .iter()
                        .enumerate()
                        .all(|(index, expr)| column_index(expr, &self.input) == Some(index))
            }
        }
    }

    /// The output's columns, for those who add to them.
    pub fn columns(&self) -> Vec<Expr> {
        self.output.columns().into_iter().map(Expr::Column).collect()
    }

    /// The output's fields, for those who add to them.
    pub fn fields(&self) -> Vec<QualifiedField> {
        self.output.iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone())).collect()
    }
}

/// Compiles an expression; its text calls columns as the node below does.
pub fn compile_named(expr: &Expr, schema: &DFSchema, names: &Schema) -> Result<CompiledExpr> {
    let named = expr.clone().transform_up(|e| match &e {
        Expr::Column(column) => {
            let name = names.field(schema.index_of_column(column)?).name();
            Ok(Transformed::yes(Expr::Column(Column::from_name(name))))
        }
        _ => Ok(Transformed::no(e)),
    });
    Ok(compile(expr, schema)?.with_text(text(&named.map_err(Error::from)?.data)))
}

/// SELECT without FROM: the row is computed now.
fn constant(node: &Node, columns: &[CompiledExpr], schema: SchemaRef) -> Result<Node> {
    let Node::Constant(input) = node else {
        return Err(Error::internal("only a constant is one row"));
    };
    let columns = columns.iter().map(|c| c.evaluate(&input.rows)).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let rows = RecordBatch::try_new_with_options(schema, columns, &options)?;
    Ok(Node::Constant(node::Constant { rows }))
}

fn is_trivial(expr: &Expr) -> bool {
    matches!(expr, Expr::Column(_) | Expr::Literal(_, _))
}

/// The place of a column in a schema, when the expression is nothing but a column.
pub fn column_index(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    match expr {
        Expr::Column(column) => schema.maybe_index_of_column(column),
        Expr::Alias(alias) => column_index(&alias.expr, schema),
        _ => None,
    }
}

/// Columns of one schema as the columns in the same places of another.
fn renamed(expr: Expr, from: &DFSchema, to: &DFSchema) -> Expr {
    let replaced = expr.transform_up(|e| match &e {
        Expr::Column(column) => {
            let index = from.index_of_column(column)?;
            Ok(Transformed::yes(Expr::Column(Column::from(to.qualified_field(index)))))
        }
        _ => Ok(Transformed::no(e)),
    });
    replaced.expect("a condition names columns of its own schema").data
}

/// A field with the table that it belongs to.
pub type QualifiedField = (Option<TableReference>, FieldRef);

/// The schema of an operator that has columns beside the logical plan's.
pub fn qualified(fields: Vec<QualifiedField>) -> Result<DFSchemaRef> {
    let schema = DFSchema::new_with_metadata(fields, HashMap::new()).map_err(Error::from)?;
    Ok(Arc::new(schema))
}

/// A schema of fields without tables.
pub fn unqualified(fields: Vec<FieldRef>) -> Result<DFSchemaRef> {
    qualified(fields.into_iter().map(|field| (None, field)).collect())
}
