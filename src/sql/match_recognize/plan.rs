//! MATCH_RECOGNIZE from the syntax tree to a logical plan: what each name means.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchemaRef, Result};
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{
    Expr, ExprSchemable, Extension, LogicalPlan, LogicalPlanBuilder, when,
};
use datafusion::sql::sqlparser::ast::{
    self, FunctionArg, FunctionArgExpr, FunctionArguments, Join, JoinConstraint, JoinOperator,
    SelectItem, SetExpr, Spanned, TableFactor, TableWithJoins, Value,
};

use crate::plan::match_recognize::text::{Named, add_name, bind_all};
use crate::plan::match_recognize::{
    Contiguity, Frame, MatchColumn, Pattern, PatternFrom, Read, RowsPerMatch, Skip, Variables,
    Within,
};
use crate::plan::node::SortColumn;
use crate::sql::errors::position_of;
use crate::sql::match_recognize::clauses::{Clauses, MARKER, RowsClause, SkipClause, WithinClause};
use crate::sql::match_recognize::node::{MatchFacts, MatchNode};
use crate::sql::match_recognize::reads::{MATCH_ALIAS, Names, Place, Reads};
use crate::sql::match_recognize::subqueries::columns_of;
use crate::sql::resolve::external;
use crate::sql::rewrite::names::column_name;
use crate::sql::schema::visible_name;
use crate::types::error::{Error, SqlState};
use crate::types::text::interval::{IntervalStyle, parse_interval};

/// Plans what `sql::extensions` made of MATCH_RECOGNIZE.
#[derive(Debug)]
pub struct MatchRecognizePlanner {
    /// The text that places count in.
    pub sql: Arc<str>,
    /// It is the user's statement, not the definition of a view that the statement reads.
    pub of_statement: bool,
}

impl RelationPlanner for MatchRecognizePlanner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let Some(Parts { clauses, items, table, filter }) = parts(&relation, &self.sql)? else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let mut input = context.plan(table)?;
        if let Some(filter) = filter {
            let filter = context.sql_to_expr(filter, input.schema())?;
            input = LogicalPlanBuilder::from(input).filter(filter)?.build()?;
        }
        let plan = plan_match(&clauses, items, input, self, context)?;
        let alias = match relation {
            TableFactor::Derived { alias, .. } => alias,
            _ => None,
        };
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

/// An expression of the list with the name that the list gives it.
struct Item {
    expr: ast::Expr,
    name: String,
}

/// What stands in the query that MATCH_RECOGNIZE has become.
struct Parts {
    clauses: Clauses,
    items: Vec<Item>,
    table: TableFactor,
    /// Of a window: WHERE.
    filter: Option<ast::Expr>,
}

/// The clauses, expressions and table, if the factor is what we are looking for.
fn parts(relation: &TableFactor, sql: &str) -> Result<Option<Parts>> {
    let TableFactor::Derived { subquery, .. } = relation else { return Ok(None) };
    let SetExpr::Select(select) = subquery.body.as_ref() else { return Ok(None) };
    let Some(SelectItem::UnnamedExpr(first) | SelectItem::ExprWithAlias { expr: first, .. }) =
        select.projection.first()
    else {
        return Ok(None);
    };
    let ast::Expr::Function(function) = first else { return Ok(None) };
    if function.name.to_string() != MARKER {
        return Ok(None);
    }
    let text = match &function.args {
        FunctionArguments::List(list) => match list.args.as_slice() {
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Value(value)))] => {
                match &value.value {
                    Value::SingleQuotedString(text) => text,
                    _ => return Ok(None),
                }
            }
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    let broken =
        || external(Error::user(SqlState::SYNTAX_ERROR, "MATCH_RECOGNIZE is not a function"));
    let clauses: Clauses = serde_json::from_str(text).map_err(|_| broken())?;
    let mut items = Vec::new();
    for item in &select.projection[1..] {
        items.push(match item {
            SelectItem::UnnamedExpr(expr) => Item { expr: expr.clone(), name: column_name(expr) },
            SelectItem::ExprWithAlias { expr, alias } => {
                Item { expr: expr.clone(), name: visible_name(&alias.value).to_owned() }
            }
            other => {
                let error =
                    Error::user(SqlState::SYNTAX_ERROR, format!("{other} is not an expression"))
                        .hint("Write the columns out; count(a.*) counts rows.");
                return Err(external(match position_of(sql, other.span().start) {
                    Some(position) => error.position(position),
                    None => error,
                }));
            }
        });
    }
    let expected =
        clauses.partition + clauses.order_by.len() + clauses.measures.len() + clauses.defines.len();
    let expected = expected + usize::from(clauses.pattern_from);
    if items.len() != expected {
        return Err(broken());
    }
    if clauses.frame.is_some() {
        let table = all_tables(&select.from).ok_or_else(broken)?;
        let filter = select.selection.clone();
        return Ok(Some(Parts { clauses, items, table, filter }));
    }
    let [table] = select.from.as_slice() else { return Err(broken()) };
    if !table.joins.is_empty() || select.selection.is_some() {
        return Err(broken());
    }
    Ok(Some(Parts { clauses, items, table: table.relation.clone(), filter: None }))
}

/// What stands in FROM as one table, whose columns keep their tables' names.
fn all_tables(from: &[TableWithJoins]) -> Option<TableFactor> {
    let (first, others) = from.split_first()?;
    if others.is_empty() && first.joins.is_empty() {
        return Some(first.relation.clone());
    }
    let mut all = first.clone();
    for other in others {
        let relation = match other.joins.is_empty() {
            true => other.relation.clone(),
            false => nested(other.clone()),
        };
        let join_operator = JoinOperator::CrossJoin(JoinConstraint::None);
        all.joins.push(Join { relation, global: false, join_operator });
    }
    Some(nested(all))
}

fn nested(table_with_joins: TableWithJoins) -> TableFactor {
    TableFactor::NestedJoin { table_with_joins: Box::new(table_with_joins), alias: None }
}

fn plan_match(
    clauses: &Clauses,
    items: Vec<Item>,
    input: LogicalPlan,
    planner: &MatchRecognizePlanner,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let mut pattern_names = Vec::new();
    let at_pattern = |error: Error| external(error.position(clauses.pattern_position));
    let pattern = bind_all(&clauses.pattern, &mut pattern_names).map_err(at_pattern)?;
    if clauses.pattern_from {
        // Any of them may stand in the patterns that come.
        for named in &clauses.defines {
            add_name(named, &mut pattern_names).map_err(at_pattern)?;
        }
    }
    let names = bind_names(clauses, pattern_names).map_err(external)?;
    let schema = input.schema().clone();
    let contiguity: Contiguity = clauses.contiguity.into();
    let is_strict = contiguity == Contiguity::Strict;
    let mut reads = Reads::new(&names, schema.clone(), &planner.sql, is_strict);
    let mut items = items.into_iter();

    let mut partition = Vec::new();
    for item in items.by_ref().take(clauses.partition) {
        let expr = context.sql_to_expr(item.expr, &schema)?;
        partition.push((reads.argument(expr, &item.name), item.name));
    }
    let mut order_by = Vec::new();
    for (item, sort) in items.by_ref().take(clauses.order_by.len()).zip(&clauses.order_by) {
        let expr = context.sql_to_expr(item.expr, &schema)?;
        order_by.push(SortColumn {
            column: reads.argument(expr, &item.name),
            descending: sort.descending,
            nulls_first: sort.nulls_first.unwrap_or(sort.descending),
        });
    }
    let rows = match clauses.rows {
        RowsClause::One => RowsPerMatch::One,
        RowsClause::AllShowEmpty => RowsPerMatch::All { shows_empty: true, shows_unmatched: false },
        RowsClause::AllOmitEmpty => {
            RowsPerMatch::All { shows_empty: false, shows_unmatched: false }
        }
        RowsClause::AllWithUnmatched => {
            RowsPerMatch::All { shows_empty: true, shows_unmatched: true }
        }
    };
    let all_rows = rows != RowsPerMatch::One;
    if clauses.rows_are_unmatched() && has_exclusion(&pattern) {
        let error = Error::user(
            SqlState::SYNTAX_ERROR,
            "WITH UNMATCHED ROWS cannot be combined with an exclusion in PATTERN",
        );
        return Err(external(error.position(clauses.pattern_position)));
    }
    let mut measures = Vec::new();
    for (item, named) in items.by_ref().take(clauses.measures.len()).zip(&clauses.measures) {
        let expr = bind_rowtime(item.expr, clauses, &order_by, &reads)?;
        let mut expr = reads.plan(expr, Place::Measure { all_rows }, context)?;
        if clauses.rows_are_unmatched() && !matches!(expr, Expr::Column(_)) {
            // A row of no match has no measures, whatever the expression.
            let timed_out = reads.add(Read::TimedOut, "MATCH_TIMED_OUT()")?;
            let timed_out = Column::from_name(reads.read_names[timed_out].clone());
            expr = when(Expr::Column(timed_out).is_not_null(), expr).end()?;
        }
        measures.push((expr, named));
    }
    let (mut defined, mut conditions) = (Vec::new(), Vec::new());
    for (item, named) in items.by_ref().take(clauses.defines.len()).zip(&clauses.defines) {
        let variable = names.variables.iter().position(|(name, _)| *name == named.name);
        let Some(variable) = variable else {
            return Err(external(not_defined(&names, named)));
        };
        if defined.contains(&variable) {
            let error = Error::user(
                SqlState::DUPLICATE_OBJECT,
                format!("pattern variable \"{}\" is defined twice", named.shown),
            );
            return Err(external(error.position(named.position)));
        }
        let condition = reads.plan(item.expr, Place::Define(variable), context)?;
        defined.push(variable);
        conditions.push(condition);
    }
    let pattern_from = match items.next() {
        None => None,
        Some(item) => {
            let expr = context.sql_to_expr(item.expr, &schema)?;
            let column = bind_pattern_column(expr, &item.name, &partition, &mut reads);
            let column = column.map_err(at_pattern)?;
            let names = names.variables.iter().map(|(folded, _)| folded.clone()).collect();
            Some(PatternFrom { column, names })
        }
    };
    let within = clauses.within.as_ref().map(|within| bind_within(within, &order_by, &reads));
    let within = within.transpose()?;
    let skip = bind_skip(&clauses.skip, &names).map_err(external)?;
    let skip_position = match &clauses.skip {
        SkipClause::ToFirst(named) | SkipClause::ToLast(named) if planner.of_statement => {
            Some(named.position)
        }
        _ => None,
    };

    let shown = match clauses.frame {
        Some(_) => all_columns(&schema, &mut reads),
        None => shown_columns(&schema, all_rows, &partition, &order_by, &mut reads)?,
    };
    if clauses.frame.is_none() {
        check_names(&shown, &measures).map_err(external)?;
    }
    let columns = match_columns(&shown, &measures, &reads)?;
    let input = reads.row_columns.project(input)?;
    let has_subqueries = reads.has_subqueries;
    let Reads { arguments, reads, read_names, read_texts, aggregates, aggregate_texts, .. } = reads;
    let projected = arguments.into_iter().map(|(expr, name)| expr.alias(name));
    let below = LogicalPlanBuilder::from(input).project(projected)?.build()?;
    let facts = MatchFacts {
        partition: partition.iter().map(|(column, _)| *column).collect(),
        order_by,
        variables: names.variables.iter().map(|(_, shown)| shown.clone()).collect(),
        pattern,
        pattern_from,
        contiguity,
        skip,
        skip_position,
        rows,
        frame: clauses
            .frame
            .map(|frame| Frame { rows_following: frame.rows_following, seek: frame.seek }),
        within,
        timeout_rows: clauses.timeout_rows,
        partial_rows: clauses.partial_rows,
        defined,
        reads,
        read_names,
        read_texts,
        aggregate_texts,
        columns,
    };
    // What is wrong with the pattern as such shows before anything runs.
    crate::plan::match_recognize::program::Program::new(&facts.pattern)
        .map_err(|error| external(error.position(clauses.pattern_position)))?;
    let below_schema = below.schema().clone();
    let node = MatchNode::new(Arc::new(facts), below, conditions, aggregates)?;
    let input_name = |column: usize| below_schema.field(column).name().clone();
    let mut result = Vec::new();
    if clauses.frame.is_some() {
        // A window adds columns to the rows.
        for ((column, name), (qualifier, _)) in shown.before.iter().zip(schema.iter()) {
            let own = Expr::Column(Column::from_name(input_name(*column)));
            result.push(own.alias_qualified(qualifier.cloned(), name));
        }
        result.extend(measures.into_iter().map(|(expr, named)| expr.alias(named.name.clone())));
        return above(node, has_subqueries)?.project(result)?.build();
    }
    for (column, name, measure) in shown_order(&shown, measures) {
        result.push(match measure {
            Some(expr) => expr.alias(name),
            None => Expr::Column(Column::from_name(input_name(column))).alias(name),
        });
    }
    above(node, has_subqueries)?.project(result)?.build()
}

/// What measures are computed above.
fn above(node: MatchNode, has_subqueries: bool) -> Result<LogicalPlanBuilder> {
    let node = LogicalPlan::Extension(Extension { node: Arc::new(node) });
    let above = LogicalPlanBuilder::from(node);
    if has_subqueries { above.alias(MATCH_ALIAS) } else { Ok(above) }
}

impl Clauses {
    fn rows_are_unmatched(&self) -> bool {
        matches!(self.rows, RowsClause::AllWithUnmatched)
    }
}

/// Columns of the input that the result has, before the measures and behind them.
struct Shown {
    before: Vec<(usize, String)>,
    behind: Vec<(usize, String)>,
}

/// All columns of the input.
fn all_columns(schema: &DFSchemaRef, reads: &mut Reads<'_>) -> Shown {
    let before = schema.columns().into_iter().map(|column| {
        let name = column.name.clone();
        (reads.argument(Expr::Column(column), &name), name)
    });
    Shown { before: before.collect(), behind: Vec::new() }
}

/// The standard's order: partition, order, measures, the others.
fn shown_columns(
    schema: &DFSchemaRef,
    all_rows: bool,
    partition: &[(usize, String)],
    order_by: &[SortColumn],
    reads: &mut Reads<'_>,
) -> Result<Shown> {
    let mut before: Vec<(usize, String)> = Vec::new();
    for (column, name) in partition {
        if !before.iter().any(|(other, _)| other == column) {
            before.push((*column, name.clone()));
        }
    }
    let mut behind = Vec::new();
    if all_rows {
        for sort in order_by {
            let name = match &reads.arguments[sort.column].0 {
                Expr::Column(column) => column.name.clone(),
                _ => continue,
            };
            if !before.iter().any(|(other, _)| *other == sort.column) {
                before.push((sort.column, name));
            }
        }
        for column in schema.columns() {
            let name = column.name.clone();
            let place = reads.argument(Expr::Column(column), &name);
            if !before.iter().any(|(other, _)| *other == place) {
                behind.push((place, name));
            }
        }
    }
    Ok(Shown { before, behind })
}

/// No two columns of the result have one name.
fn check_names(shown: &Shown, measures: &[(Expr, &Named)]) -> Result<(), Error> {
    let columns = shown.before.iter().chain(&shown.behind).map(|(_, name)| name.as_str());
    let mut taken: BTreeSet<&str> = columns.collect();
    for (_, named) in measures {
        if !taken.insert(named.name.as_str()) {
            return Err(Error::user(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{}\" specified more than once", named.shown),
            )
            .hint("Give the measure another name behind AS.")
            .position(named.position));
        }
    }
    Ok(())
}

/// The node's columns: of the input what is shown, and what measures read.
fn match_columns(
    shown: &Shown,
    measures: &[(Expr, &Named)],
    reads: &Reads<'_>,
) -> Result<Vec<MatchColumn>> {
    let inputs = shown.before.iter().chain(&shown.behind);
    let mut columns: Vec<MatchColumn> =
        inputs.map(|(column, _)| MatchColumn::Input(*column)).collect();
    let mut used = BTreeSet::new();
    for (measure, _) in measures {
        used.extend(columns_of(measure)?);
    }
    for (place, name) in reads.read_names.iter().enumerate() {
        if used.contains(name) {
            columns.push(MatchColumn::Read(place));
        }
    }
    Ok(columns)
}

/// The result's columns: a column of the input, or a measure.
fn shown_order(shown: &Shown, measures: Vec<(Expr, &Named)>) -> Vec<(usize, String, Option<Expr>)> {
    let column = |(column, name): &(usize, String)| (*column, name.clone(), None);
    let mut order: Vec<_> = shown.before.iter().map(column).collect();
    order.extend(measures.into_iter().map(|(expr, named)| (0, named.name.clone(), Some(expr))));
    order.extend(shown.behind.iter().map(column));
    order
}

/// `MATCH_ROWTIME()` is the time of the match's last row: the first column of ORDER BY.
fn bind_rowtime(
    mut expr: ast::Expr,
    clauses: &Clauses,
    order_by: &[SortColumn],
    reads: &Reads<'_>,
) -> Result<ast::Expr> {
    let mut finder = Rowtime { found: false, column: None };
    if let Some(sort) = order_by.first()
        && let Expr::Column(column) = &reads.arguments[sort.column].0
    {
        finder.column = Some(column.name.clone());
    }
    let _ = ast::VisitMut::visit(&mut expr, &mut finder);
    if finder.found && finder.column.is_none() {
        let error = Error::user(
            SqlState::INVALID_COLUMN_REFERENCE,
            "MATCH_ROWTIME() needs a column in ORDER BY",
        );
        return Err(external(error.position(clauses.position)));
    }
    Ok(expr)
}

struct Rowtime {
    found: bool,
    column: Option<String>,
}

impl ast::VisitorMut for Rowtime {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> std::ops::ControlFlow<()> {
        if let ast::Expr::Function(function) = expr
            && function.name.to_string().eq_ignore_ascii_case("match_rowtime")
        {
            self.found = true;
            if let Some(column) = &self.column {
                let column = ast::Expr::Identifier(ast::Ident::with_quote('"', column));
                let argument = FunctionArg::Unnamed(FunctionArgExpr::Expr(column));
                function.name = ast::ObjectName::from(vec![ast::Ident::new("last")]);
                if let FunctionArguments::List(list) = &mut function.args {
                    list.args = vec![argument];
                }
            }
        }
        std::ops::ControlFlow::Continue(())
    }
}

/// The column of a pattern that is a value: all rows of a partition must have the same.
fn bind_pattern_column(
    expr: Expr,
    name: &str,
    partition: &[(usize, String)],
    reads: &mut Reads<'_>,
) -> Result<usize, Error> {
    let data_type = expr.get_type(&reads.schema).map_err(Error::from)?;
    if !matches!(data_type, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8) {
        return Err(Error::user(
            SqlState::DATATYPE_MISMATCH,
            "the pattern of PATTERN FROM must be of type text",
        ));
    }
    let column = reads.argument(expr, name);
    if partition.iter().any(|(key, _)| *key == column) {
        return Ok(column);
    }
    Err(Error::user(
        SqlState::INVALID_COLUMN_REFERENCE,
        "the pattern of PATTERN FROM is not in PARTITION BY",
    )
    .hint("All rows of a partition have one pattern: add it to PARTITION BY."))
}

fn bind_names(clauses: &Clauses, variables: Vec<Named>) -> Result<Names, Error> {
    let variables = variables.into_iter().map(|named| (named.name, named.shown)).collect();
    let mut names = Names { variables, subsets: vec![] };
    for (named, members) in &clauses.subsets {
        if names.find(&named.name).is_some() {
            return Err(Error::user(
                SqlState::DUPLICATE_OBJECT,
                format!("pattern variable \"{}\" exists already", named.shown),
            )
            .position(named.position));
        }
        let mut set = 0;
        for member in members {
            if names.subsets.iter().any(|(name, _)| *name == member.name) {
                return Err(Error::user(
                    SqlState::INVALID_COLUMN_REFERENCE,
                    format!("\"{}\" in SUBSET is a SUBSET itself", member.shown),
                )
                .hint("Write its variables out.")
                .position(member.position));
            }
            let variable = names.variables.iter().position(|(name, _)| *name == member.name);
            let variable =
                variable.ok_or_else(|| names.unknown(&member.name).position(member.position))?;
            set |= Variables::one(variable).0;
        }
        names.subsets.push((named.name.clone(), Variables(set)));
    }
    Ok(names)
}

/// What is wrong with a name in DEFINE that is no variable of the pattern.
fn not_defined(names: &Names, named: &Named) -> Error {
    let error = match names.subsets.iter().any(|(subset, _)| *subset == named.name) {
        true => Error::user(
            SqlState::INVALID_COLUMN_REFERENCE,
            format!("\"{}\" in DEFINE is a SUBSET", named.shown),
        )
        .hint("Give its variables conditions."),
        false => names.unknown(&named.name),
    };
    error.position(named.position)
}

fn bind_skip(skip: &SkipClause, names: &Names) -> Result<Skip, Error> {
    let find = |named: &Named| {
        names.find(&named.name).ok_or_else(|| names.unknown(&named.name).position(named.position))
    };
    Ok(match skip {
        SkipClause::PastLastRow => Skip::PastLastRow,
        SkipClause::ToNextRow => Skip::ToNextRow,
        SkipClause::ToFirst(named) => Skip::ToFirst(find(named)?),
        SkipClause::ToLast(named) => Skip::ToLast(find(named)?),
    })
}

fn bind_within(
    within: &WithinClause,
    order_by: &[SortColumn],
    reads: &Reads<'_>,
) -> Result<Within> {
    let at = |error: Error| external(error.position(within.position));
    let interval = parse_interval(&within.interval, IntervalStyle::Postgres).map_err(at)?;
    let duration_us = fixed_duration_us(&interval).filter(|us| *us >= 0).ok_or_else(|| {
        at(Error::user(
            SqlState::INVALID_PARAMETER_VALUE,
            "WITHIN takes an interval of days and shorter units that is not negative",
        ))
    })?;
    let by_time = order_by.first().filter(|sort| !sort.descending).filter(|sort| {
        let data_type = reads.arguments[sort.column].0.get_type(&reads.schema);
        matches!(data_type, Ok(DataType::Timestamp(_, _) | DataType::Date32))
    });
    let Some(sort) = by_time else {
        return Err(at(Error::user(
            SqlState::INVALID_COLUMN_REFERENCE,
            "WITHIN needs rows in the order of a time",
        )
        .hint("Write ORDER BY with a timestamp or date first, ascending.")));
    };
    Ok(Within { column: sort.column, duration_us })
}

fn fixed_duration_us(interval: &crate::types::text::interval::Interval) -> Option<i64> {
    if interval.months != 0 {
        return None;
    }
    const DAY_US: i64 = 86_400_000_000;
    i64::from(interval.days).checked_mul(DAY_US)?.checked_add(interval.us)
}

fn has_exclusion(pattern: &Pattern) -> bool {
    match pattern {
        Pattern::Exclude(_) => true,
        Pattern::Concat(items) | Pattern::Alternation(items) | Pattern::Permute(items) => {
            items.iter().any(has_exclusion)
        }
        Pattern::Repeat { inner, .. } => has_exclusion(inner),
        _ => false,
    }
}
