//! Takes the variables off columns: what is left is an expression over one row of the input, and
//! the variables whose row it is.

use std::ops::ControlFlow;

use datafusion::common::DFSchema;
use datafusion::sql::sqlparser::ast::{
    self, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, VisitMut, VisitorMut,
};

use crate::plan::match_recognize::{CLASSIFIER_COLUMN, MATCH_NUMBER_COLUMN, Variables};
use crate::sql::functions::FUNCTIONS;
use crate::sql::match_recognize::reads::Names;
use crate::sql::match_recognize::subqueries::RowColumns;
use crate::sql::parse::name::normalize as fold;
use crate::types::error::{Error, Result, SqlState};

/// See the head of the file.
pub struct Stripper<'a> {
    pub names: &'a Names,
    /// The input's columns.
    pub schema: &'a DFSchema,
    /// The variable that the row itself is tried for: its columns are the row's.
    pub current: Option<usize>,
    /// Columns are those of a variable that has no row.
    pub absent: bool,
    /// What subqueries look at.
    pub row_columns: &'a mut RowColumns,
    /// The variables of the columns so far.
    of: Option<Variables>,
    in_aggregate: bool,
    /// The aggregate call itself comes next.
    root: bool,
    /// Subqueries around the current place: names in them are theirs.
    depth: usize,
}

impl<'a> Stripper<'a> {
    pub fn new(
        names: &'a Names,
        schema: &'a DFSchema,
        row_columns: &'a mut RowColumns,
    ) -> Stripper<'a> {
        Stripper {
            names,
            schema,
            current: None,
            absent: false,
            row_columns,
            of: None,
            in_aggregate: false,
            root: false,
            depth: 0,
        }
    }

    /// Strips the arguments of an aggregate function; the variables of the rows that it is over.
    pub fn strip_call(&mut self, call: &mut ast::Expr) -> Result<Variables> {
        (self.in_aggregate, self.root) = (true, true);
        if let ast::Expr::Function(function) = call {
            self.wildcards(function)?;
        }
        self.strip_all(call)
    }

    /// Strips an expression; the variables of its row.
    pub fn strip_all(&mut self, expr: &mut ast::Expr) -> Result<Variables> {
        match VisitMut::visit(expr, self) {
            ControlFlow::Continue(()) => Ok(self.of.unwrap_or(Variables::ALL)),
            ControlFlow::Break(error) => Err(error),
        }
    }
}

impl Stripper<'_> {
    fn meet(&mut self, of: Variables) -> Result<()> {
        let own = self.current.is_some_and(|current| of.contains(current));
        let of = if own { Variables::ALL } else { of };
        match self.of.replace(of) {
            Some(other) if other != of => Err(Error::user(
                SqlState::INVALID_COLUMN_REFERENCE,
                "columns of different pattern variables in one function",
            )
            .hint("Give the variables a common name with SUBSET U = (A, B), and write U.column.")),
            _ => Ok(()),
        }
    }

    /// `count(A.*)` is count(*) of the rows of A.
    fn wildcards(&mut self, function: &mut Function) -> Result<()> {
        let FunctionArguments::List(list) = &mut function.args else { return Ok(()) };
        for arg in &mut list.args {
            let FunctionArg::Unnamed(arg) = arg else { continue };
            if let FunctionArgExpr::QualifiedWildcard(name) = arg {
                let ident = name.0.last().and_then(|part| part.as_ident());
                let name = ident.map(fold).unwrap_or_default();
                let of = self.names.find(&name).ok_or_else(|| self.names.unknown(&name))?;
                self.meet(of)?;
                *arg = FunctionArgExpr::Wildcard;
            }
        }
        Ok(())
    }

    fn strip(&mut self, expr: &mut ast::Expr) -> Result<()> {
        match expr {
            ast::Expr::Identifier(ident) => {
                let own = [CLASSIFIER_COLUMN, MATCH_NUMBER_COLUMN].contains(&ident.value.as_str());
                if own { Ok(()) } else { self.meet(Variables::ALL) }
            }
            ast::Expr::CompoundIdentifier(parts) => {
                let [qualifier, column] = parts.as_slice() else {
                    return self.meet(Variables::ALL);
                };
                // What is no variable may be the input's name.
                match self.names.find(&fold(qualifier)) {
                    None => self.meet(Variables::ALL),
                    Some(of) => {
                        self.meet(of)?;
                        *expr = match self.absent {
                            true => self.row_column(column)?,
                            false => ast::Expr::Identifier(column.clone()),
                        };
                        Ok(())
                    }
                }
            }
            ast::Expr::Function(function) => {
                if std::mem::take(&mut self.root) {
                    return Ok(());
                }
                let name = match function.name.0.as_slice() {
                    [part] => part.as_ident().map(fold).unwrap_or_default(),
                    _ => return Ok(()),
                };
                let own = match name.as_str() {
                    "classifier" if self.in_aggregate => CLASSIFIER_COLUMN,
                    "match_number" if self.in_aggregate => MATCH_NUMBER_COLUMN,
                    "first" | "last" | "prev" | "next" | "classifier" | "match_number" => {
                        return Err(Error::user(
                            SqlState::WINDOWING_ERROR,
                            format!("{} cannot stand here", name.to_uppercase()),
                        )
                        .hint(
                            "PREV and NEXT take a column, FIRST or LAST; FIRST, LAST and \
                             aggregates take columns.",
                        ));
                    }
                    name if FUNCTIONS.aggregate.contains_key(name) && function.over.is_none() => {
                        let message = match self.in_aggregate {
                            true => "aggregate function calls cannot be nested".to_owned(),
                            false => format!("the aggregate {name} cannot stand here"),
                        };
                        return Err(Error::user(SqlState::GROUPING_ERROR, message).hint(
                            "PREV and NEXT take a column, FIRST or LAST; FIRST, LAST and \
                             aggregates take columns.",
                        ));
                    }
                    _ => return Ok(()),
                };
                if let FunctionArguments::List(list) = &function.args
                    && let [FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Identifier(of)))] =
                        list.args.as_slice()
                {
                    let name = fold(of);
                    let of = self.names.find(&name).ok_or_else(|| self.names.unknown(&name))?;
                    self.meet(of)?;
                }
                *expr = ast::Expr::Identifier(Ident::with_quote('"', own));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A column of the row under a name that no table has.
    fn row_column(&mut self, column: &Ident) -> Result<ast::Expr> {
        let name = fold(column);
        let mut places = self.schema.fields().iter().enumerate().filter(|(_, f)| *f.name() == name);
        match (places.next(), places.next()) {
            (Some((place, _)), None) => {
                let name = self.row_columns.name(place, self.absent);
                Ok(ast::Expr::Identifier(Ident::with_quote('"', name)))
            }
            (None, _) => Err(Error::user(
                SqlState::UNDEFINED_COLUMN,
                format!("column \"{name}\" does not exist"),
            )),
            _ => Err(Error::user(
                SqlState::AMBIGUOUS_COLUMN,
                format!("column reference \"{name}\" is ambiguous"),
            )),
        }
    }

    /// What stands in a subquery whose tables have these names.
    fn strip_within(&mut self, expr: &mut ast::Expr, tables: &[String]) -> Result<()> {
        match expr {
            ast::Expr::CompoundIdentifier(parts) => {
                let [qualifier, column] = parts.as_slice() else { return Ok(()) };
                let name = fold(qualifier);
                let Some(of) = self.names.find(&name).filter(|_| !tables.contains(&name)) else {
                    return Ok(());
                };
                self.meet(of)?;
                *expr = self.row_column(&column.clone())?;
                Ok(())
            }
            ast::Expr::Function(function) => {
                let name = match function.name.0.as_slice() {
                    [part] => part.as_ident().map(fold).unwrap_or_default(),
                    _ => return Ok(()),
                };
                match name.as_str() {
                    "first" | "last" | "prev" | "next" | "classifier" | "match_number" => {
                        Err(Error::unsupported(format!(
                            "{} in a subquery of DEFINE",
                            name.to_uppercase()
                        ))
                        .hint(
                            "A subquery there may look at columns of one variable; FIRST, LAST, \
                             PREV and NEXT may stand around it.",
                        ))
                    }
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

/// The names by which the tables of a query are known, within it.
#[derive(Default)]
pub struct TableNames(pub Vec<String>);

impl TableNames {
    /// Those of a query.
    pub fn of(query: &ast::Query) -> Vec<String> {
        let mut tables = TableNames::default();
        let _ = ast::Visit::visit(query, &mut tables);
        tables.0
    }
}

impl ast::Visitor for TableNames {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &ast::TableFactor) -> ControlFlow<()> {
        let (name, alias) = match factor {
            ast::TableFactor::Table { name, alias, .. } => {
                (name.0.last().and_then(|part| part.as_ident()), alias.as_ref())
            }
            ast::TableFactor::Derived { alias, .. } => (None, alias.as_ref()),
            _ => return ControlFlow::Continue(()),
        };
        self.0.extend(alias.map(|alias| &alias.name).or(name).map(fold));
        ControlFlow::Continue(())
    }
}

impl VisitorMut for Stripper<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<Error> {
        if self.depth == 0 {
            let tables = TableNames::of(query);
            let within = ast::visit_expressions_mut(query, |expr: &mut ast::Expr| {
                match self.strip_within(expr, &tables) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => ControlFlow::Break(error),
                }
            });
            if let ControlFlow::Break(error) = within {
                return ControlFlow::Break(error);
            }
        }
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut ast::Query) -> ControlFlow<Error> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<Error> {
        if self.depth > 0 {
            return ControlFlow::Continue(());
        }
        match self.strip(expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}
