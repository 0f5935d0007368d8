//! Finds what an expression reads of rows of the match, and puts columns in its place.

use std::ops::ControlFlow;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DataFusionError};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    self, CaseWhen, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Spanned,
    Value, VisitorMut,
};

use crate::plan::match_recognize::{
    CLASSIFIER_COLUMN, MATCH_NUMBER_COLUMN, Read, RowRead, RowValue, Variables,
};
use crate::sql::aggregates::in_window;
use crate::sql::functions::FUNCTIONS;
use crate::sql::match_recognize::clauses::{FINAL, RUNNING};
use crate::sql::match_recognize::node::aggregate_schema;
use crate::sql::match_recognize::reads::{Place, Planned, Reads};
use crate::sql::match_recognize::stripper::{Stripper, TableNames};
use crate::sql::match_recognize::subqueries::looks_at;
use crate::sql::parse::name::normalize as fold;
use crate::types::error::{Error, SqlState};

/// FIRST and LAST pass over so many rows at most; PREV and NEXT go so far.
const OFFSET_MAX: u64 = 100_000;
/// The same for FIRST and LAST of single variables in DEFINE, where each partial match remembers
/// as many rows.
const REMEMBERED_MAX: u64 = 1_000;

/// Functions that `sql::rewrite` puts around aggregates.
const MADE: [&str; 4] = ["json_of_list", "jsonb_of_list", "json_of_pairs", "jsonb_of_pairs"];

/// See the head of the file.
pub struct Binder<'b, 'a, 'c> {
    pub reads: &'b mut Reads<'a>,
    pub place: Place,
    pub context: &'c mut dyn RelationPlannerContext,
    /// The names of the tables of the subqueries around the current place, of each subquery.
    pub tables: Vec<Vec<String>>,
    /// There was a subquery that stays where it is.
    pub has_subquery: bool,
}

/// A column by a name that is as it is.
fn column(name: impl Into<String>) -> ast::Expr {
    ast::Expr::Identifier(Ident::with_quote('"', name))
}

impl VisitorMut for Binder<'_, '_, '_> {
    type Break = DataFusionError;

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<DataFusionError> {
        if let Place::Define(_) = self.place {
            let error = Error::unsupported("this place of a subquery in DEFINE")
                .hint("Join what it reads to the table before MATCH_RECOGNIZE.");
            return ControlFlow::Break(self.reads.at(error, query));
        }
        self.has_subquery = true;
        self.tables.push(TableNames::of(query));
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut ast::Query) -> ControlFlow<DataFusionError> {
        self.tables.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<DataFusionError> {
        // What was put in the place of something is as it should be.
        let is_read = matches!(expr, ast::Expr::Identifier(ident)
            if self.reads.read_names.contains(&ident.value));
        if is_read || (!self.tables.is_empty() && !self.is_of_match(expr)) {
            return ControlFlow::Continue(());
        }
        match self.bind(expr, None) {
            Ok(Some(bound)) => {
                *expr = bound;
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

    /// Whether an expression within a subquery is about the match, not about the subquery's rows.
    fn is_of_match(&self, expr: &ast::Expr) -> bool {
        match expr {
            ast::Expr::CompoundIdentifier(_) => self.is_of_variable(expr),
            ast::Expr::Function(function) => {
                let name = function_name(expr).unwrap_or_default();
                match name.as_str() {
                    RUNNING | FINAL | "first" | "last" | "prev" | "next" | "classifier"
                    | "match_number" | "match_timed_out" | "match_state" | "match_waited_for" => {
                        true
                    }
                    name if FUNCTIONS.aggregate.contains_key(name) && function.over.is_none() => {
                        // An aggregate is of the query whose columns it is over.
                        let (mut own, mut others) = (self.counts_rows(function), false);
                        let _ = ast::visit_expressions(function, |e: &ast::Expr| {
                            match e {
                                ast::Expr::CompoundIdentifier(_) if self.is_of_variable(e) => {
                                    own = true;
                                }
                                ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_) => {
                                    others = true;
                                }
                                _ => {}
                            }
                            ControlFlow::<()>::Continue(())
                        });
                        own && !others
                    }
                    _ => false,
                }
            }
            _ => false,
        }
    }

    /// Whether it is `count(a.*)` of a variable.
    fn counts_rows(&self, function: &Function) -> bool {
        let FunctionArguments::List(list) = &function.args else { return false };
        list.args.iter().any(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::QualifiedWildcard(name)) => {
                let ident = name.0.last().and_then(|part| part.as_ident());
                ident.is_some_and(|ident| self.is_variable(&fold(ident)))
            }
            _ => false,
        })
    }

    /// Whether a name is a variable's, and no table of the subqueries around hides it.
    fn is_variable(&self, name: &str) -> bool {
        self.reads.names.find(name).is_some()
            && !self.tables.iter().any(|tables| tables.iter().any(|table| table == name))
    }

    /// Whether it is a column of a variable.
    fn is_of_variable(&self, expr: &ast::Expr) -> bool {
        let ast::Expr::CompoundIdentifier(parts) = expr else { return false };
        let [qualifier, _] = parts.as_slice() else { return false };
        self.is_variable(&fold(qualifier))
    }

    /// What stands in the place of an expression that reads something; `None`: look further inside.
    fn bind(&mut self, expr: &ast::Expr, running: Option<bool>) -> Planned<Option<ast::Expr>> {
        let read = match expr {
            ast::Expr::Subquery(_) | ast::Expr::Exists { .. } | ast::Expr::InSubquery { .. } => {
                return match self.place {
                    Place::Define(variable) => self.subquery(expr, variable, running).map(Some),
                    Place::Measure { .. } => Ok(None),
                };
            }
            ast::Expr::AnyOp { right, .. } | ast::Expr::AllOp { right, .. }
                if matches!(**right, ast::Expr::Subquery(_)) =>
            {
                return match self.place {
                    Place::Define(variable) => self.subquery(expr, variable, running).map(Some),
                    Place::Measure { .. } => Ok(None),
                };
            }
            ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_) => {
                self.row_read(expr, expr, true, 0, 0, running)?
            }
            ast::Expr::Function(function) => {
                if function.over.is_some() {
                    let error = Error::user(
                        SqlState::WINDOWING_ERROR,
                        "window functions are not allowed in MATCH_RECOGNIZE",
                    );
                    let error =
                        error.hint("Compute them in a subquery that MATCH_RECOGNIZE reads.");
                    return Err(self.reads.at(error, expr));
                }
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
                    "match_proctime" => {
                        let error = Error::unsupported("MATCH_PROCTIME()").hint(
                            "MATCH_ROWTIME() is a time of the stream; now() in the SELECT that \
                             reads the view is the time of reading.",
                        );
                        return Err(self.reads.at(error, expr));
                    }
                    name if FUNCTIONS.aggregate.contains_key(name) => {
                        self.aggregate(function, expr, running)?
                    }
                    _ => return Ok(None),
                }
            }
            _ => return Ok(None),
        };
        Ok(Some(self.column_of(read)))
    }

    fn column_of(&self, read: usize) -> ast::Expr {
        column(&self.reads.read_names[read])
    }

    /// A subquery in the condition of a variable.
    fn subquery(
        &mut self,
        expr: &ast::Expr,
        variable: usize,
        running: Option<bool>,
    ) -> Planned<ast::Expr> {
        let (stripped, of) = self.stripped(expr, Some(variable), false)?;
        let value = self.row_argument(&stripped, of, expr)?;
        let read_of = |value: usize, of: Variables| RowRead {
            value: RowValue::Column(value),
            of,
            from_last: true,
            offset: 0,
            shift: 0,
            running: true,
        };
        let text = self.text(expr, true, running);
        let value = self.reads.add(Read::Row(read_of(value, of)), &text)?;
        if of == Variables::ALL {
            return Ok(self.column_of(value));
        }
        // The variable may have no row: then its columns are NULL for the subquery.
        let is_there = self.reads.argument(datafusion::logical_expr::lit(true), "there");
        let is_there = self.reads.add(Read::Row(read_of(is_there, of)), "there is a row")?;
        let (absent, _) = self.stripped(expr, Some(variable), true)?;
        let absent = self.row_argument(&absent, Variables::ALL, expr)?;
        let absent = self.reads.add(Read::Row(read_of(absent, Variables::ALL)), &text)?;
        let condition = self.column_of(is_there);
        Ok(ast::Expr::Case {
            case_token: AttachedToken::empty(),
            end_token: AttachedToken::empty(),
            operand: None,
            conditions: vec![CaseWhen { condition, result: self.column_of(value) }],
            else_result: Some(Box::new(self.column_of(absent))),
        })
    }

    /// The place of an expression over one row among what is computed of each row of the input.
    fn row_argument(
        &mut self,
        stripped: &ast::Expr,
        of: Variables,
        whole: &ast::Expr,
    ) -> Planned<usize> {
        let schema = self.reads.row_schema()?;
        let planned = self.context.sql_to_expr(stripped.clone(), &schema);
        let planned = planned.map_err(|error| self.reads.no_variable(error, whole))?;
        if of != Variables::ALL && looks_at(&planned, &self.reads.schema)? {
            let error = Error::user(
                SqlState::INVALID_COLUMN_REFERENCE,
                "a subquery looks at columns of different pattern variables",
            );
            let error = error.hint("A column without a variable is one of the match's last row.");
            return Err(self.reads.at(error, whole));
        }
        let name = match &planned {
            Expr::Column(column) => column.name.clone(),
            _ => stripped.to_string(),
        };
        Ok(self.reads.argument(planned, &name))
    }

    /// What stands behind RUNNING or FINAL.
    fn marked(&mut self, inner: &ast::Expr, running: bool) -> Planned<Option<ast::Expr>> {
        if !running && matches!(self.place, Place::Define(_)) {
            return Err(self.error(SqlState::SYNTAX_ERROR, "FINAL in DEFINE", inner));
        }
        if let Some(bound) = self.bind(inner, Some(running))? {
            return Ok(Some(bound));
        }
        let mut made = inner.clone();
        let aggregates: Vec<&mut ast::Expr> = match &mut made {
            // What json_agg and its like are made of.
            ast::Expr::Function(function) if MADE.iter().any(|n| is_called(function, n)) => {
                match &mut function.args {
                    FunctionArguments::List(list) => list
                        .args
                        .iter_mut()
                        .filter_map(|arg| match arg {
                            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
                            _ => None,
                        })
                        .collect(),
                    _ => vec![],
                }
            }
            // Several percentiles at once.
            ast::Expr::Array(array) => array.elem.iter_mut().collect(),
            _ => vec![],
        };
        let count = aggregates.len();
        let mut bound = 0;
        for aggregate in aggregates {
            if let Some(own) = self.bind(aggregate, Some(running))? {
                *aggregate = own;
                bound += 1;
            }
        }
        match count > 0 && bound == count {
            true => Ok(Some(made)),
            false => Err(self.error(
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
            let (stripped, of) = self.stripped(inner, None, false)?;
            (RowValue::Column(self.row_argument(&stripped, of, inner)?), of)
        };
        if let (Place::Define(_), RowValue::Classifier) = (self.place, &value)
            && shift != 0
        {
            // Rows of a match stand side by side: the row before is the last but one.
            let is_last = shift < 0 && from_last && offset == 0 && of == Variables::ALL;
            if !is_last || !self.reads.is_strict {
                let error = Error::unsupported("this place of CLASSIFIER() in DEFINE")
                    .hint("Use LAST(CLASSIFIER(), n).");
                return Err(self.reads.at(error, whole));
            }
            (offset, shift) = (shift.unsigned_abs(), 0);
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

    /// The expression over the input's columns, and the variables of the row that it is of; see
    /// [`Stripper`].
    fn stripped(
        &mut self,
        expr: &ast::Expr,
        current: Option<usize>,
        absent: bool,
    ) -> Planned<(ast::Expr, Variables)> {
        let mut stripped = expr.clone();
        let schema = self.reads.schema.clone();
        let mut stripper = Stripper::new(self.reads.names, &schema, &mut self.reads.row_columns);
        (stripper.current, stripper.absent) = (current, absent);
        match stripper.strip_all(&mut stripped) {
            Ok(of) => Ok((stripped, of)),
            Err(error) => Err(self.reads.at(error, expr)),
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
        let schema = self.reads.schema.clone();
        let mut stripper = Stripper::new(self.reads.names, &schema, &mut self.reads.row_columns);
        let of = match stripper.strip_call(&mut call) {
            Ok(of) => of,
            Err(error) => return Err(self.reads.at(error, expr)),
        };
        let around = aggregate_schema(&self.reads.row_schema()?)?;
        let planned = self.context.sql_to_expr(call, &around);
        let planned = planned.map_err(|error| self.reads.no_variable(error, expr))?;
        let planned = planned.unalias_nested().data;
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
            let numbered = matches!(self.place, Place::Define(_))
                && columns.iter().any(|c| c.name == MATCH_NUMBER_COLUMN);
            if (columns.is_empty() && !part.exists(|e| Ok(is_subquery(e)))?)
                || (count > 0 && count == columns.len())
            {
                if numbered {
                    return Err(self.reads.at(number_in_define(), expr));
                }
                continue;
            }
            if count > 0 {
                // It is computed of the rows of matches; the columns that it needs, of all.
                if part.exists(|e| Ok(is_subquery(e)))? {
                    let error = Error::unsupported(
                        "a subquery beside CLASSIFIER() or MATCH_NUMBER() in one argument",
                    )
                    .hint("Aggregate them apart.");
                    return Err(self.reads.at(error, expr));
                }
                if numbered {
                    return Err(self.reads.at(number_in_define(), expr));
                }
                let over_columns = part.clone().transform_up(|e| match e {
                    Expr::Column(column) if !beside.contains(&column.name.as_str()) => {
                        let name = column.name.clone();
                        let place = self.reads.argument(Expr::Column(column), &name);
                        let own = self.reads.arguments[place].1.clone();
                        Ok(Transformed::yes(Expr::Column(Column::from_name(own))))
                    }
                    other => Ok(Transformed::no(other)),
                })?;
                *part = over_columns.data;
                continue;
            }
            let name = part.schema_name().to_string();
            let place = self.reads.argument(part.clone(), &name);
            *part = Expr::Column(Column::from_name(self.reads.arguments[place].1.clone()));
        }
        Ok(())
    }
}

fn is_called(function: &Function, name: &str) -> bool {
    function.name.to_string() == name
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

fn number_in_define() -> Error {
    Error::unsupported("MATCH_NUMBER() within an aggregate in DEFINE")
        .hint("MATCH_NUMBER() may stand beside the aggregate.")
}

fn is_subquery(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_)
    )
}
