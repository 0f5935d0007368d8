//! What conditions and measures read of rows of the match.
//!
//! A walk over an expression's tree replaces each column, FIRST, LAST, PREV, NEXT, CLASSIFIER,
//! MATCH_NUMBER and each aggregate by a column of its own, and writes down what that column is.
//! What is left is an ordinary expression over those columns.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::common::{Column, DFSchema, DFSchemaRef, DataFusionError};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::sql::sqlparser::ast::{
    self, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Spanned, Value,
    VisitMut, VisitorMut,
};

use crate::plan::match_recognize::{
    CLASSIFIER_COLUMN, MATCH_NUMBER_COLUMN, Read, RowRead, RowValue, Variables,
};
use crate::sql::aggregates::in_window;
use crate::sql::errors::position_of;
use crate::sql::functions::FUNCTIONS;
use crate::sql::match_recognize::clauses::{FINAL, RUNNING};
use crate::sql::match_recognize::node::{aggregate_schema, read_field};
use crate::sql::parse::name::normalize as fold;
use crate::sql::resolve::{external, nearest};
use crate::types::error::{Error, Result, SqlState};

type Planned<T> = Result<T, DataFusionError>;

/// FIRST and LAST pass over so many rows at most; PREV and NEXT go so far.
const OFFSET_MAX: u64 = 100_000;
/// The same for FIRST and LAST of single variables in DEFINE, where each partial match remembers
/// as many rows.
const REMEMBERED_MAX: u64 = 1_000;

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
    pub fn new(names: &'a Names, schema: DFSchemaRef, sql: &'a str) -> Reads<'a> {
        Reads {
            names,
            schema,
            sql,
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
        let name = self.unique_name(name);
        self.arguments.push((expr, name));
        self.arguments.len() - 1
    }

    fn unique_name(&self, name: &str) -> String {
        let taken = |name: &str| {
            name == CLASSIFIER_COLUMN
                || name == MATCH_NUMBER_COLUMN
                || self.arguments.iter().any(|(_, other)| other == name)
                || self.read_names.iter().any(|other| other == name)
        };
        let mut unique = name.to_owned();
        let mut number = 1;
        while taken(&unique) {
            number += 1;
            unique = format!("{name} #{number}");
        }
        unique
    }

    /// The column of a read.
    fn add(&mut self, read: Read, name: &str) -> Planned<usize> {
        if let Some(place) = self.reads.iter().position(|other| *other == read) {
            return Ok(place);
        }
        let column = |index: usize| -> FieldRef {
            let typed = self.arguments[index].0.to_field(&self.schema);
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
        let around = aggregate_schema(&self.schema)?;
        let field = read_field(&read, column, |aggregate| {
            // Its arguments are columns of the projection that is made of `arguments`.
            let expr = self.over_input(&self.aggregates[aggregate])?;
            Ok(expr.to_field(&around)?.1)
        })?;
        self.read_texts.push(name.to_owned());
        let name = self.unique_name(name);
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
        let mut binder = Binder { reads: self, place, context };
        if let ControlFlow::Break(error) = VisitMut::visit(&mut expr, &mut binder) {
            return Err(error);
        }
        let fields = self.fields.iter().map(|field| (None, field.clone())).collect();
        let schema = DFSchema::new_with_metadata(fields, Default::default())?;
        context.sql_to_expr(expr, &schema)
    }

    fn at(&self, error: Error, tree: &impl Spanned) -> DataFusionError {
        external(match position_of(self.sql, tree.span().start) {
            Some(position) => error.position(position),
            None => error,
        })
    }
}

struct Binder<'b, 'a, 'c> {
    reads: &'b mut Reads<'a>,
    place: Place,
    context: &'c mut dyn RelationPlannerContext,
}

impl VisitorMut for Binder<'_, '_, '_> {
    type Break = DataFusionError;

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<DataFusionError> {
        match self.bind(expr, None) {
            Ok(Some(name)) => {
                *expr = ast::Expr::Identifier(Ident::with_quote('"', name));
                ControlFlow::Continue(())
            }
            Ok(None) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl Binder<'_, '_, '_> {
    fn error(
        &self,
        sqlstate: SqlState,
        message: impl Into<String>,
        tree: &impl Spanned,
    ) -> DataFusionError {
        self.reads.at(Error::user(sqlstate, message), tree)
    }

    /// The column of a read, if the expression is one; `None`: look further inside.
    fn bind(&mut self, expr: &ast::Expr, running: Option<bool>) -> Planned<Option<String>> {
        let read = match expr {
            // It is computed of each row of the input, as an expression of columns is.
            ast::Expr::Subquery(_)
            | ast::Expr::Exists { .. }
            | ast::Expr::InSubquery { .. }
            | ast::Expr::Identifier(_)
            | ast::Expr::CompoundIdentifier(_) => self.row_read(expr, expr, true, 0, 0, running)?,
            ast::Expr::Function(function) => {
                let [part] = function.name.0.as_slice() else { return Ok(None) };
                let Some(ident) = part.as_ident() else { return Ok(None) };
                let name = fold(ident);
                match name.as_str() {
                    RUNNING | FINAL => {
                        let [inner] = self.arguments(function)?[..] else {
                            return Err(self.error(
                                SqlState::SYNTAX_ERROR,
                                "RUNNING and FINAL stand before one function",
                                expr,
                            ));
                        };
                        return self.marked(inner, name == RUNNING);
                    }
                    "first" | "last" => {
                        let (inner, offset) = self.with_offset(function, expr, 0)?;
                        self.row_read(expr, inner, name == "last", offset, 0, running)?
                    }
                    "prev" | "next" => self.physical(function, expr, name == "next", running)?,
                    "classifier" => self.row_read(expr, expr, true, 0, 0, running)?,
                    "match_number" => {
                        self.without_arguments(function, expr)?;
                        self.reads.add(Read::MatchNumber, "MATCH_NUMBER()")?
                    }
                    "match_timed_out" => {
                        self.without_arguments(function, expr)?;
                        self.reads.add(Read::TimedOut, "MATCH_TIMED_OUT()")?
                    }
                    "match_state" => {
                        self.without_arguments(function, expr)?;
                        self.of_measure(expr)?;
                        self.reads.add(Read::State, "MATCH_STATE()")?
                    }
                    "match_waited_for" => {
                        self.without_arguments(function, expr)?;
                        self.of_measure(expr)?;
                        self.reads.add(Read::WaitedFor, "MATCH_WAITED_FOR()")?
                    }
                    name if FUNCTIONS.aggregate.contains_key(name) && function.over.is_none() => {
                        self.aggregate(function, expr, running)?
                    }
                    _ => return Ok(None),
                }
            }
            _ => return Ok(None),
        };
        Ok(Some(self.reads.read_names[read].clone()))
    }

    /// What stands behind RUNNING or FINAL.
    fn marked(&mut self, inner: &ast::Expr, running: bool) -> Planned<Option<String>> {
        if !running && matches!(self.place, Place::Define(_)) {
            return Err(self.error(SqlState::SYNTAX_ERROR, "FINAL in DEFINE", inner));
        }
        match self.bind(inner, Some(running))? {
            Some(name) => Ok(Some(name)),
            None => Err(self.error(
                SqlState::SYNTAX_ERROR,
                "RUNNING and FINAL stand before FIRST, LAST or an aggregate function",
                inner,
            )),
        }
    }

    fn is_running(&self, asked: Option<bool>) -> bool {
        match self.place {
            Place::Define(_) => true,
            Place::Measure { all_rows: true } => asked.unwrap_or(true),
            // Of one row per match, the last row is the end.
            Place::Measure { all_rows: false } => false,
        }
    }

    /// The arguments of a call, which are plain.
    fn arguments<'f>(&self, function: &'f Function) -> Planned<Vec<&'f ast::Expr>> {
        let FunctionArguments::List(list) = &function.args else { return Ok(vec![]) };
        list.args
            .iter()
            .map(|arg| match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr),
                other => Err(self.error(
                    SqlState::SYNTAX_ERROR,
                    format!("{} has no such argument: {other}", function.name),
                    function,
                )),
            })
            .collect()
    }

    fn without_arguments(&self, function: &Function, expr: &ast::Expr) -> Planned<()> {
        if self.arguments(function)?.is_empty() {
            return Ok(());
        }
        let message = format!("{} takes no argument", function.name.to_string().to_uppercase());
        Err(self.error(SqlState::SYNTAX_ERROR, message, expr))
    }

    /// What is known at a match's end only.
    fn of_measure(&self, expr: &ast::Expr) -> Planned<()> {
        match self.place {
            Place::Measure { .. } => Ok(()),
            Place::Define(_) => {
                let message = format!("{expr} in DEFINE");
                Err(self.error(SqlState::SYNTAX_ERROR, message.to_uppercase(), expr))
            }
        }
    }

    /// `f(x [, n])`.
    fn with_offset<'f>(
        &self,
        function: &'f Function,
        expr: &ast::Expr,
        usual: u64,
    ) -> Planned<(&'f ast::Expr, u64)> {
        let name = function.name.to_string().to_uppercase();
        let (inner, offset) = match self.arguments(function)?[..] {
            [inner] => (inner, usual),
            [inner, offset] => match number_of(offset) {
                Some(offset) if offset <= OFFSET_MAX => (inner, offset),
                _ => {
                    let message =
                        format!("the offset of {name} is no number from 0 to {OFFSET_MAX}");
                    return Err(self.error(SqlState::INVALID_PARAMETER_VALUE, message, offset));
                }
            },
            _ => {
                let message = format!("{name} takes an expression and perhaps an offset");
                return Err(self.error(SqlState::UNDEFINED_FUNCTION, message, expr));
            }
        };
        Ok((inner, offset))
    }

    /// PREV and NEXT.
    fn physical(
        &mut self,
        function: &Function,
        expr: &ast::Expr,
        next: bool,
        running: Option<bool>,
    ) -> Planned<usize> {
        let (mut inner, distance) = self.with_offset(function, expr, 1)?;
        let distance = distance as i64;
        let shift = if next { distance } else { -distance };
        let mut running = running;
        loop {
            let (ast::Expr::Function(call), Some(name)) = (inner, function_name(inner)) else {
                return self.row_read(expr, inner, true, 0, shift, running);
            };
            match name.as_str() {
                RUNNING | FINAL => {
                    if name == FINAL && matches!(self.place, Place::Define(_)) {
                        return Err(self.error(SqlState::SYNTAX_ERROR, "FINAL in DEFINE", inner));
                    }
                    running = Some(name == RUNNING);
                    let [marked] = self.arguments(call)?[..] else {
                        return Err(self.error(
                            SqlState::SYNTAX_ERROR,
                            "a function is missing",
                            inner,
                        ));
                    };
                    inner = marked;
                }
                "first" | "last" => {
                    let (of, offset) = self.with_offset(call, inner, 0)?;
                    return self.row_read(expr, of, name == "last", offset, shift, running);
                }
                _ => return self.row_read(expr, inner, true, 0, shift, running),
            }
        }
    }

    /// A value of one row; `whole` is what the user wrote for it.
    fn row_read(
        &mut self,
        whole: &ast::Expr,
        inner: &ast::Expr,
        from_last: bool,
        mut offset: u64,
        mut shift: i64,
        running: Option<bool>,
    ) -> Planned<usize> {
        let is_running = self.is_running(running);
        let classifier = matches!(function_name(inner).as_deref(), Some("classifier"));
        let (value, of) = if classifier {
            (RowValue::Classifier, self.classifier_of(inner)?)
        } else {
            let (stripped, of) = self.stripped(inner)?;
            let schema = self.reads.schema.clone();
            let planned = self.context.sql_to_expr(stripped.clone(), &schema)?;
            let name = match &planned {
                Expr::Column(column) => column.name.clone(),
                _ => stripped.to_string(),
            };
            (RowValue::Column(self.reads.argument(planned, &name)), of)
        };
        if let (Place::Define(variable), RowValue::Classifier) = (self.place, &value) {
            if shift != 0 {
                // Rows of a match stand side by side: the row before is the last but one.
                if !(shift < 0 && from_last && offset == 0 && of == Variables::ALL) {
                    let error = Error::unsupported("this place of CLASSIFIER() in DEFINE")
                        .hint("Use LAST(CLASSIFIER(), n).");
                    return Err(self.reads.at(error, whole));
                }
                (offset, shift) = (shift.unsigned_abs(), 0);
            }
            let _ = variable;
        }
        if matches!(self.place, Place::Define(_)) && offset > REMEMBERED_MAX {
            let message =
                format!("FIRST and LAST in DEFINE pass over {REMEMBERED_MAX} rows at most");
            return Err(self.error(SqlState::PROGRAM_LIMIT_EXCEEDED, message, whole));
        }
        let read = RowRead { value, of, from_last, offset, shift, running: is_running };
        let name = self.text(whole, is_running, running);
        self.reads.add(Read::Row(read), &name)
    }

    /// What a read is called in EXPLAIN.
    fn text(&self, whole: &ast::Expr, is_running: bool, asked: Option<bool>) -> String {
        let mut text = whole.to_string().replace(RUNNING, "RUNNING ").replace(FINAL, "FINAL ");
        if matches!((whole, self.place), (ast::Expr::Identifier(_), Place::Measure { .. })) {
            // The input has a column of that name.
            text = format!("LAST({text})");
        }
        match (asked, is_running) {
            (Some(false), false) => format!("FINAL {text}"),
            _ => text,
        }
    }

    /// The variables of CLASSIFIER([v]).
    fn classifier_of(&self, expr: &ast::Expr) -> Planned<Variables> {
        let ast::Expr::Function(function) = expr else { return Ok(Variables::ALL) };
        match self.arguments(function)?[..] {
            [] => Ok(Variables::ALL),
            [ast::Expr::Identifier(ident)] => {
                let name = fold(ident);
                let found = self.reads.names.find(&name);
                found.ok_or_else(|| self.reads.at(self.reads.names.unknown(&name), expr))
            }
            _ => Err(self.error(SqlState::SYNTAX_ERROR, "CLASSIFIER takes one variable", expr)),
        }
    }

    /// The expression over the input's columns, and the variables of the rows that it is of.
    fn stripped(&self, expr: &ast::Expr) -> Planned<(ast::Expr, Variables)> {
        let mut stripped = expr.clone();
        let mut stripper = Stripper {
            names: self.reads.names,
            of: None,
            in_aggregate: false,
            root: false,
            depth: 0,
        };
        match VisitMut::visit(&mut stripped, &mut stripper) {
            ControlFlow::Continue(()) => Ok((stripped, stripper.of.unwrap_or(Variables::ALL))),
            ControlFlow::Break(error) => Err(self.reads.at(error, expr)),
        }
    }

    fn aggregate(
        &mut self,
        function: &Function,
        expr: &ast::Expr,
        running: Option<bool>,
    ) -> Planned<usize> {
        let is_running = self.is_running(running);
        let mut call = ast::Expr::Function(function.clone());
        let mut stripper = Stripper {
            names: self.reads.names,
            of: None,
            in_aggregate: true,
            root: true,
            depth: 0,
        };
        if let ast::Expr::Function(function) = &mut call {
            stripper.wildcards(function).map_err(|error| self.reads.at(error, expr))?;
        }
        if let ControlFlow::Break(error) = VisitMut::visit(&mut call, &mut stripper) {
            return Err(self.reads.at(error, expr));
        }
        let of = stripper.of.unwrap_or(Variables::ALL);
        let around = aggregate_schema(&self.reads.schema)?;
        let planned = self.context.sql_to_expr(call, &around)?.unalias_nested().data;
        let Expr::AggregateFunction(mut planned) = planned else {
            let error = Error::unsupported(format!("{} in MATCH_RECOGNIZE", function.name));
            return Err(self.reads.at(error, expr));
        };
        // Values that are not sorted stand in the order of the match.
        let unsorted = !planned.params.distinct && planned.params.order_by.is_empty();
        if unsorted && let Some(ordered) = in_window(planned.func.name()) {
            planned.func = ordered;
        }
        self.over_arguments(&mut planned, expr)?;
        let planned = Expr::AggregateFunction(planned);
        let aggregate = match self.reads.aggregates.iter().position(|other| *other == planned) {
            Some(place) => place,
            None => {
                self.reads.aggregates.push(planned);
                self.reads.aggregate_texts.push(expr.to_string());
                self.reads.aggregates.len() - 1
            }
        };
        let name = self.text(expr, is_running, running);
        self.reads.add(Read::Aggregate { aggregate, of, running: is_running }, &name)
    }

    /// The parts of an aggregate call as columns of what is computed of each row.
    fn over_arguments(&mut self, call: &mut AggregateFunction, expr: &ast::Expr) -> Planned<()> {
        let params = &mut call.params;
        let parts = params
            .args
            .iter_mut()
            .chain(params.filter.iter_mut().map(|filter| &mut **filter))
            .chain(params.order_by.iter_mut().map(|sort| &mut sort.expr));
        for part in parts {
            let columns = part.column_refs();
            let beside = [CLASSIFIER_COLUMN, MATCH_NUMBER_COLUMN];
            let of_match = |column: &&&Column| beside.contains(&column.name.as_str());
            let count = columns.iter().filter(of_match).count();
            if columns.is_empty() || count == columns.len() {
                if count > 0 && matches!(self.place, Place::Define(_)) {
                    let numbered = columns.iter().any(|c| c.name == MATCH_NUMBER_COLUMN);
                    if numbered {
                        let error =
                            Error::unsupported("MATCH_NUMBER() within an aggregate in DEFINE");
                        return Err(self.reads.at(error, expr));
                    }
                }
                continue;
            }
            if count > 0 {
                let error = Error::unsupported(
                    "CLASSIFIER() or MATCH_NUMBER() beside columns in one argument",
                )
                .hint("Aggregate them apart.");
                return Err(self.reads.at(error, expr));
            }
            let name = part.schema_name().to_string();
            let place = self.reads.argument(part.clone(), &name);
            *part = Expr::Column(Column::from_name(self.reads.arguments[place].1.clone()));
        }
        Ok(())
    }
}

/// Takes the variables off columns.
struct Stripper<'a> {
    names: &'a Names,
    /// The variables of the columns so far.
    of: Option<Variables>,
    in_aggregate: bool,
    /// The aggregate call itself comes next.
    root: bool,
    /// Subqueries around the current place: names in them are theirs.
    depth: usize,
}

impl Stripper<'_> {
    fn meet(&mut self, of: Variables) -> Result<()> {
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
                        *expr = ast::Expr::Identifier(column.clone());
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
                        return Err(Error::user(
                            SqlState::GROUPING_ERROR,
                            "aggregate function calls cannot be nested",
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

    /// A name within a subquery must not be that of a variable, unless it is one of its tables'.
    fn strip_within(&self, expr: &ast::Expr, tables: &[String]) -> Result<()> {
        let ast::Expr::CompoundIdentifier(parts) = expr else { return Ok(()) };
        let [qualifier, _] = parts.as_slice() else { return Ok(()) };
        let name = fold(qualifier);
        if tables.contains(&name) || self.names.find(&name).is_none() {
            return Ok(());
        }
        Err(Error::unsupported(format!(
            "a subquery in MATCH_RECOGNIZE that reads a column of variable \"{name}\""
        ))
        .hint("Join what it reads to the table before MATCH_RECOGNIZE."))
    }
}

/// The names by which the tables of a query are known, within it.
#[derive(Default)]
struct TableNames(Vec<String>);

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
            let mut tables = TableNames::default();
            let _ = ast::Visit::visit(query, &mut tables);
            let within = ast::visit_expressions(query, |expr: &ast::Expr| {
                match self.strip_within(expr, &tables.0) {
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

fn function_name(expr: &ast::Expr) -> Option<String> {
    let ast::Expr::Function(function) = expr else { return None };
    match function.name.0.as_slice() {
        [part] => part.as_ident().map(fold),
        _ => None,
    }
}

/// The value of a literal without sign.
fn number_of(expr: &ast::Expr) -> Option<u64> {
    match expr {
        ast::Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => digits.parse().ok(),
            _ => None,
        },
        ast::Expr::Cast { expr, .. } | ast::Expr::Nested(expr) => number_of(expr),
        _ => None,
    }
}
