//! What conditions and measures read of rows of the match.
//!
//! A walk over an expression's tree replaces each column, FIRST, LAST, PREV, NEXT, CLASSIFIER,
//! MATCH_NUMBER and each aggregate by a column of its own, and writes down what that column is.
//! What is left is an ordinary expression over those columns.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{
    Column, DFSchema, DFSchemaRef, DataFusionError, SchemaError, TableReference,
};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::sql::sqlparser::ast::{self, Spanned, VisitMut};

use crate::plan::match_recognize::{
    CLASSIFIER_COLUMN, MATCH_NUMBER_COLUMN, Read, RowRead, RowValue, Variables,
};
use crate::sql::errors::position_of;
use crate::sql::match_recognize::binder::Binder;
use crate::sql::match_recognize::node::{aggregate_schema, read_field};
use crate::sql::match_recognize::subqueries::{RowColumns, nullable, rename_outside};
use crate::sql::resolve::{external, nearest};
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::SqlType;

/// What the match is called for subqueries: tables of theirs have columns of the same names.
pub const MATCH_ALIAS: &str = "__match";

/// With DataFusion's errors, which have ours inside.
pub type Planned<T> = Result<T, DataFusionError>;

/// Where an expression stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The condition of this variable.
    Define(usize),
    /// A measure; all rows are shown if `all_rows`.
    Measure { all_rows: bool },
}

/// Pattern variables and their unions by name.
pub struct Names {
    /// Folded and as written, in the order of their first place in PATTERN.
    pub variables: Vec<(String, String)>,
    pub subsets: Vec<(String, Variables)>,
}

impl Names {
    pub fn find(&self, name: &str) -> Option<Variables> {
        let variable = self.variables.iter().position(|(folded, _)| folded == name);
        variable
            .map(Variables::one)
            .or_else(|| self.subsets.iter().find(|(n, _)| n == name).map(|(_, set)| *set))
    }

    /// SQLSTATE 42704 for a name that is no variable.
    pub fn unknown(&self, name: &str) -> Error {
        let error = Error::user(
            SqlState::UNDEFINED_OBJECT,
            format!("pattern variable \"{name}\" does not exist"),
        );
        let known = self.variables.iter().map(|(folded, _)| folded.as_str());
        match nearest(name, known.chain(self.subsets.iter().map(|(n, _)| n.as_str()))) {
            Some(near) => error.hint(format!("Perhaps you meant \"{near}\".")),
            None => error.hint("Variables are the names in PATTERN, and those of SUBSET."),
        }
    }
}

/// What has been read so far.
pub struct Reads<'a> {
    pub names: &'a Names,
    /// The input's columns.
    pub schema: DFSchemaRef,
    /// The text that places count in.
    pub sql: &'a str,
    /// Rows of a match stand side by side.
    pub is_strict: bool,
    /// Columns of the input that subqueries look at.
    pub row_columns: RowColumns,
    /// Subqueries of measures look at the match.
    pub has_subqueries: bool,
    /// What is computed of each row of the input, with its name.
    pub arguments: Vec<(Expr, String)>,
    pub reads: Vec<Read>,
    pub read_names: Vec<String>,
    /// The same as EXPLAIN shows them in conditions: those of one condition differ anyway.
    pub read_texts: Vec<String>,
    fields: Vec<FieldRef>,
    pub aggregates: Vec<Expr>,
    pub aggregate_texts: Vec<String>,
}

impl<'a> Reads<'a> {
    pub fn new(names: &'a Names, schema: DFSchemaRef, sql: &'a str, is_strict: bool) -> Reads<'a> {
        Reads {
            names,
            schema,
            sql,
            is_strict,
            row_columns: RowColumns::default(),
            has_subqueries: false,
            arguments: vec![],
            reads: vec![],
            read_names: vec![],
            read_texts: vec![],
            fields: vec![],
            aggregates: vec![],
            aggregate_texts: vec![],
        }
    }

    /// The place of an expression over the input among what is computed of each row.
    pub fn argument(&mut self, expr: Expr, name: &str) -> usize {
        let expr = expr.unalias_nested().data;
        if let Some(place) = self.arguments.iter().position(|(other, _)| *other == expr) {
            return place;
        }
        let name = self.unique_name(name, false);
        self.arguments.push((expr, name));
        self.arguments.len() - 1
    }

    /// Reads and the input's columns stand side by side where a subquery looks for names.
    fn unique_name(&self, name: &str, of_read: bool) -> String {
        let taken = |name: &str| {
            name == CLASSIFIER_COLUMN
                || name == MATCH_NUMBER_COLUMN
                || self.arguments.iter().any(|(_, other)| other == name)
                || self.read_names.iter().any(|other| other == name)
                || (of_read && self.schema.has_column_with_unqualified_name(name))
        };
        let mut unique = name.to_owned();
        let mut number = 1;
        while taken(&unique) {
            number += 1;
            unique = format!("{name} #{number}");
        }
        unique
    }

    /// The input's columns, with those that subqueries look at.
    pub fn row_schema(&self) -> Planned<DFSchema> {
        self.row_columns.schema(&self.schema)
    }

    /// The column of a read.
    pub fn add(&mut self, read: Read, name: &str) -> Planned<usize> {
        if let Some(place) = self.reads.iter().position(|other| *other == read) {
            return Ok(place);
        }
        let row_schema = self.row_schema()?;
        let column = |index: usize| -> FieldRef {
            let typed = self.arguments[index].0.to_field(&row_schema);
            typed.map_or_else(
                |_| {
                    Arc::new(arrow::datatypes::Field::new(
                        "",
                        arrow::datatypes::DataType::Null,
                        true,
                    ))
                },
                |(_, field)| field,
            )
        };
        let around = aggregate_schema(&row_schema)?;
        let field = read_field(&read, column, |aggregate| {
            // Its arguments are columns of the projection that is made of `arguments`.
            let expr = self.over_input(&self.aggregates[aggregate])?;
            Ok(expr.to_field(&around)?.1)
        })?;
        self.read_texts.push(name.to_owned());
        let name = self.unique_name(name, true);
        self.fields.push(Arc::new(field.as_ref().clone().with_name(&name).with_nullable(true)));
        self.reads.push(read);
        self.read_names.push(name);
        Ok(self.reads.len() - 1)
    }

    fn over_input(&self, expr: &Expr) -> Planned<Expr> {
        use datafusion::common::tree_node::{Transformed, TreeNode};
        let replaced = expr.clone().transform_up(|e| match &e {
            Expr::Column(column) => {
                let own = self.arguments.iter().find(|(_, name)| *name == column.name);
                Ok(own.map_or_else(
                    || Transformed::no(e.clone()),
                    |(argument, _)| Transformed::yes(argument.clone()),
                ))
            }
            _ => Ok(Transformed::no(e)),
        })?;
        Ok(replaced.data)
    }

    /// An expression over reads.
    ///
    /// # Errors
    /// Whatever is wrong with it, with its position.
    pub fn plan(
        &mut self,
        mut expr: ast::Expr,
        place: Place,
        context: &mut dyn RelationPlannerContext,
    ) -> Planned<Expr> {
        let whole = expr.clone();
        let mut binder =
            Binder { reads: self, place, context, tables: Vec::new(), has_subquery: false };
        if let ControlFlow::Break(error) = VisitMut::visit(&mut expr, &mut binder) {
            return Err(error);
        }
        let has_subquery = binder.has_subquery;
        let mut fields: Vec<_> = self.fields.iter().map(|field| (None, field.clone())).collect();
        if has_subquery {
            // A name that none of the subquery's tables has may be a column of the match.
            let own = self.schema.iter();
            fields.extend(own.map(|(qualifier, field)| (qualifier.cloned(), field.clone())));
        }
        let schema = DFSchema::new_with_metadata(fields, Default::default())?;
        let planned = context.sql_to_expr(expr, &schema)?;
        match place {
            Place::Define(_) => self.condition(planned, &schema, &whole),
            Place::Measure { all_rows } if has_subquery => self.of_last_row(planned, all_rows),
            Place::Measure { .. } => Ok(planned),
        }
    }

    /// A condition, which is boolean.
    fn condition(&self, planned: Expr, schema: &DFSchema, whole: &ast::Expr) -> Planned<Expr> {
        // What has no type yet is looked at later.
        let Ok(data_type) = planned.get_type(schema) else { return Ok(planned) };
        if data_type == DataType::Boolean || data_type.is_null() {
            return Ok(planned);
        }
        let name = SqlType::of_arrow(&data_type)
            .map_or_else(|| data_type.to_string(), |sql_type| sql_type.to_string());
        let message = format!("argument of DEFINE must be type boolean, not type {name}");
        Err(self.at(Error::user(SqlState::DATATYPE_MISMATCH, message), whole))
    }

    /// Columns of the input that subqueries of a measure look at become reads of the last row.
    fn of_last_row(&mut self, planned: Expr, all_rows: bool) -> Planned<Expr> {
        self.has_subqueries = true;
        let of_match =
            |name: &str| Column::new(Some(TableReference::bare(MATCH_ALIAS)), name.to_owned());
        rename_outside(planned, &mut |column: &Column| {
            let read = self.read_names.iter().position(|name| *name == column.name);
            if let (Some(read), None) = (read, &column.relation) {
                return Ok(Some((of_match(&column.name), nullable(&self.fields[read]))));
            }
            if !self.schema.has_column(column) {
                return Ok(None);
            }
            let value = self.argument(Expr::Column(column.clone()), &column.name);
            let read = RowRead {
                value: RowValue::Column(value),
                of: Variables::ALL,
                from_last: true,
                offset: 0,
                shift: 0,
                running: all_rows,
            };
            let read = self.add(Read::Row(read), &format!("LAST({})", column.name))?;
            Ok(Some((of_match(&self.read_names[read]), nullable(&self.fields[read]))))
        })
    }

    /// What stands before a column and is no table is meant to be a variable.
    pub fn no_variable(&self, error: DataFusionError, tree: &impl Spanned) -> DataFusionError {
        let DataFusionError::SchemaError(missing, _) = error.find_root() else { return error };
        let SchemaError::FieldNotFound { field, .. } = missing.as_ref() else { return error };
        let Some(name) = field.relation.as_ref().map(TableReference::table) else { return error };
        let is_table = |table: &TableReference| table.table() == name;
        match self.schema.iter().any(|(table, _)| table.is_some_and(is_table)) {
            true => error,
            false => self.at(self.names.unknown(name), tree),
        }
    }

    /// The error at the place of a tree.
    pub fn at(&self, error: Error, tree: &impl Spanned) -> DataFusionError {
        external(match position_of(self.sql, tree.span().start) {
            Some(position) => error.position(position),
            None => error,
        })
    }
}
