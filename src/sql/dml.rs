//! INSERT, UPDATE and DELETE as queries over their table.
//!
//! 1. The statement is written as a SELECT: the rows to insert, or the rows to change beside their
//!    new values. Parameters, subqueries and FROM work as in any query.
//! 2. A projection over it assigns values to columns as Postgres does: casts without asking where
//!    the types allow, defaults for columns that are not named, generated columns computed from
//!    the new row.
//! 3. RETURNING is a SELECT over the rows that went in or out (`returning`).

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::sql::sqlparser::ast::{
    self, Assignment, AssignmentTarget, ConflictTarget, Expr, Ident, ObjectName, OnConflictAction,
    OnInsert, Query, SelectItem, SetExpr, TableFactor, TableObject as AstTable, TableWithJoins,
};

use crate::catalog::object::{Object, ObjectKind, TableConflict, TableObject};
use crate::plan::expr::Expr as CompiledExpr;
use crate::sql::assign::{AssignedRow, ColumnValue};
use crate::sql::bind::PlanContext;
use crate::sql::dml::build::{column, conjunction, equal, query_of, table_factor};
use crate::sql::errors::position_of;
use crate::sql::parse::name::normalize;
use crate::sql::query::PlannedQuery;
use crate::sql::returning::{
    Changes, PlannedReturning, ROW_NUMBER, Version, mentions_old, numbered_rows,
};
use crate::sql::rewrite::names::name_parts;
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;
use crate::types::sql_type::SqlType;

pub(super) mod build;

/// Stands for `excluded` in the query of [`InsertConflict::Update`]: the new rows.
pub const EXCLUDED: ObjectId = ObjectId(u64::MAX);
/// The name of the new rows in ON CONFLICT DO UPDATE.
const EXCLUDED_NAME: &str = "excluded";

/// What `ON CONFLICT` says.
#[derive(Clone)]
pub enum InsertConflict {
    /// No clause: as the table says.
    Default,
    /// DO NOTHING.
    Nothing,
    /// DO UPDATE that sets every column to the new value.
    Replace,
    /// Any other DO UPDATE.
    Update(Box<ConflictUpdate>),
}

/// What DO UPDATE makes of rows whose keys exist.
#[derive(Clone)]
pub struct ConflictUpdate {
    /// Run with `contents(table)` and `contents(EXCLUDED)`, it gives for each new row whose key
    /// exists the old row's columns, then the updated row's.
    pub query: PlannedQuery,
    /// A subquery may read the whole table; else the rows with the new rows' keys are enough.
    pub reads_table: bool,
}

/// Rows for a table.
#[derive(Clone)]
pub struct PlannedInsert {
    pub table: Arc<Object>,
    /// Whole rows of the table: defaults filled in, generated columns computed, types assigned.
    pub rows: PlannedQuery,
    pub conflict: InsertConflict,
    pub returning: Option<PlannedReturning>,
}

/// Rows to change.
#[derive(Clone)]
pub struct PlannedUpdate {
    pub table: Arc<Object>,
    /// The old row's columns, the new row's, then those joined to it when RETURNING is there; one
    /// row per row to change.
    pub rows: PlannedQuery,
    pub returning: Option<PlannedReturning>,
}

/// Rows to delete.
#[derive(Clone)]
pub struct PlannedDelete {
    pub table: Arc<Object>,
    /// The rows' columns, then those joined to them when RETURNING is there.
    pub rows: PlannedQuery,
    pub returning: Option<PlannedReturning>,
}

/// Makes whole rows from the columns that COPY names.
pub struct RowCompletion {
    /// The columns that are given, in order.
    pub input: SchemaRef,
    /// One per column of the table, over the given columns.
    pub columns: Vec<CompiledExpr>,
}

impl RowCompletion {
    /// Whole rows of the table from the given columns.
    ///
    /// # Errors
    /// When a default or a generated column cannot be computed; SQLSTATE 23502 for a NULL where
    /// none may be.
    pub fn complete(&self, table: &Object, given: &RecordBatch) -> Result<RecordBatch> {
        let columns = self.columns.iter().map(|c| c.evaluate(given)).collect::<Result<Vec<_>>>()?;
        check_columns(table, columns)
    }
}

/// The same rows with the table's own schema.
///
/// # Errors
/// SQLSTATE 23502 when a NOT NULL column is NULL.
pub fn check_rows(table: &Object, rows: RecordBatch) -> Result<RecordBatch> {
    check_columns(table, rows.columns().to_vec())
}

fn check_columns(table: &Object, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    for (column, field) in columns.iter().zip(table.schema.fields()) {
        if !field.is_nullable() && column.null_count() > 0 {
            return Err(Error::user(
                SqlState::NOT_NULL_VIOLATION,
                format!(
                    "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
                    field.name(),
                    table.name.name
                ),
            ));
        }
    }
    Ok(RecordBatch::try_new(table.schema.clone(), columns)?)
}

impl PlannedInsert {
    /// With values (arrays of one element) in place of the parameters.
    pub fn bind_parameters(self, values: &[ArrayRef]) -> Result<PlannedInsert> {
        let conflict = match self.conflict {
            InsertConflict::Update(update) => InsertConflict::Update(Box::new(ConflictUpdate {
                query: update.query.bind_parameters(values)?,
                reads_table: update.reads_table,
            })),
            other => other,
        };
        let rows = self.rows.bind_parameters(values)?;
        let returning = bind(self.returning, values)?;
        Ok(PlannedInsert { table: self.table, rows, conflict, returning })
    }
}

impl PlannedUpdate {
    /// With values (arrays of one element) in place of the parameters.
    pub fn bind_parameters(self, values: &[ArrayRef]) -> Result<PlannedUpdate> {
        let rows = self.rows.bind_parameters(values)?;
        Ok(PlannedUpdate { table: self.table, rows, returning: bind(self.returning, values)? })
    }
}

impl PlannedDelete {
    /// With values (arrays of one element) in place of the parameters.
    pub fn bind_parameters(self, values: &[ArrayRef]) -> Result<PlannedDelete> {
        let rows = self.rows.bind_parameters(values)?;
        Ok(PlannedDelete { table: self.table, rows, returning: bind(self.returning, values)? })
    }
}

fn bind(
    returning: Option<PlannedReturning>,
    values: &[ArrayRef],
) -> Result<Option<PlannedReturning>> {
    returning.map(|returning| returning.bind_parameters(values)).transpose()
}

impl PlanContext {
    /// Plans an INSERT.
    ///
    /// # Errors
    /// Whatever is wrong with it, as Postgres words it.
    pub fn plan_insert(
        &self,
        insert: &ast::Insert,
        parameter_types: &[Option<SqlType>],
    ) -> Result<PlannedInsert> {
        let AstTable::TableName(name) = &insert.table else {
            return Err(Error::unsupported("INSERT INTO a table function"));
        };
        let target = Target::resolve(self, name, "insert into")?;
        let columns = target.insert_columns(&insert.columns)?;
        let named = !insert.columns.is_empty();
        let source = self.insert_source(&target, &columns, named, insert)?;
        let rows = self.plan_assigned(&source.query, parameter_types, &[], None, |input| {
            if input.len() > columns.len() {
                return Err(Error::user(
                    SqlState::SYNTAX_ERROR,
                    "INSERT has more expressions than target columns",
                ));
            }
            if named && input.len() < columns.len() {
                return Err(Error::user(
                    SqlState::SYNTAX_ERROR,
                    "INSERT has more target columns than expressions",
                ));
            }
            let given = columns.iter().take(input.len());
            if !source.is_values
                && let Some(column) = given.clone().find(|c| target.is_generated(**c))
            {
                return Err(target.not_default(*column));
            }
            let given =
                given.enumerate().map(|(index, column)| (*column, ColumnValue::Input(index)));
            let given = if source.all_defaults { vec![] } else { given.collect() };
            Ok(vec![AssignedRow::new(target.object.clone(), given)])
        })?;
        let alias = insert.table_alias.as_ref().map(|a| a.alias.clone());
        let conflict = match &insert.on {
            None => InsertConflict::Default,
            Some(on) => {
                let keeps_old = insert.returning.as_ref().is_some_and(mentions_old);
                self.plan_conflict(&target, on, alias.clone(), keeps_old, &rows.parameters)?
            }
        };
        let old = match &conflict {
            InsertConflict::Update(_) => Version::Old,
            InsertConflict::Nothing => Version::Missing,
            InsertConflict::Default if target.table.on_conflict != TableConflict::Update => {
                Version::Missing
            }
            InsertConflict::Default | InsertConflict::Replace => Version::Unknown,
        };
        let changes = Changes {
            object: &target.object,
            from: vec![table_factor(name.clone(), alias)],
            joined: &[],
            old,
            new: Version::Changed,
        };
        let returning =
            self.plan_returning(insert.returning.as_deref(), changes, &rows.parameters)?;
        let mut planned = PlannedInsert { table: target.object, rows, conflict, returning };
        let PlannedInsert { rows, conflict, returning, .. } = &mut planned;
        let conflict = match conflict {
            InsertConflict::Update(update) => Some(&mut update.query),
            _ => None,
        };
        let returning = returning.as_mut().map(|returning| &mut returning.query);
        share_parameters([Some(rows), conflict, returning]);
        Ok(planned)
    }

    /// The query whose rows are inserted. DEFAULT and untyped literals in VALUES take the type of
    /// their column.
    fn insert_source(
        &self,
        target: &Target,
        columns: &[usize],
        named: bool,
        insert: &ast::Insert,
    ) -> Result<Source> {
        let Some(source) = &insert.source else {
            // DEFAULT VALUES.
            if named {
                return Err(Error::user(
                    SqlState::SYNTAX_ERROR,
                    "syntax error at or near \"DEFAULT\"",
                ));
            }
            let query = query_of(vec![build::one()], vec![], None);
            return Ok(Source { query, all_defaults: true, is_values: true });
        };
        let mut query = source.as_ref().clone();
        match query.body.as_mut() {
            SetExpr::Values(values) => {
                for row in &mut values.rows {
                    for (cell, column) in row.content.iter_mut().zip(columns) {
                        self.type_value(target, *column, cell)?;
                    }
                }
            }
            SetExpr::Select(select) => {
                for (item, column) in select.projection.iter_mut().zip(columns) {
                    if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } =
                        item
                    {
                        build::take_type(expr, target.field_type(*column));
                    } else {
                        // What `*` stands for is not known here; its columns have types.
                        break;
                    }
                }
            }
            _ => {}
        }
        let is_values = matches!(query.body.as_ref(), SetExpr::Values(_));
        Ok(Source { query, all_defaults: false, is_values })
    }

    /// A value for a column: DEFAULT is what the table says, a literal takes the column's type.
    fn type_value(&self, target: &Target, column: usize, value: &mut Expr) -> Result<()> {
        if build::is_default(value) {
            *value = target.default_of(column)?;
            build::take_type(value, target.field_type(column));
            return Ok(());
        }
        target.reject_generated(column, value)?;
        build::take_type(value, target.field_type(column));
        Ok(())
    }

    /// ON CONFLICT; with `keeps_old`, RETURNING reads the rows that are updated.
    fn plan_conflict(
        &self,
        target: &Target,
        on: &OnInsert,
        alias: Option<Ident>,
        keeps_old: bool,
        parameters: &[SqlType],
    ) -> Result<InsertConflict> {
        let OnInsert::OnConflict(on) = on else {
            return Err(Error::unsupported("ON DUPLICATE KEY UPDATE").hint("Use ON CONFLICT."));
        };
        let key = &target.table.primary_key;
        if let Some(conflict_target) = &on.conflict_target {
            let named: Option<Vec<usize>> = match conflict_target {
                ConflictTarget::Columns(idents) => {
                    Some(idents.iter().map(|i| target.column(i)).collect::<Result<_>>()?)
                }
                // The only constraint there is, under the name that Postgres gives it.
                ConflictTarget::OnConstraint(name) => {
                    let expected = format!("{}_pkey", target.object.name.name);
                    let given = name_parts(name)?.pop().unwrap_or_default();
                    (given == expected).then(|| key.clone())
                }
            };
            let fits = named.is_some_and(|mut named| {
                named.sort_unstable();
                let mut key = key.clone();
                key.sort_unstable();
                !key.is_empty() && named == key
            });
            if !fits {
                return Err(Error::user(
                    SqlState::INVALID_COLUMN_REFERENCE,
                    "there is no unique or exclusion constraint matching the ON CONFLICT \
                     specification",
                ));
            }
        }
        let update = match &on.action {
            OnConflictAction::DoNothing => return Ok(InsertConflict::Nothing),
            OnConflictAction::DoUpdate(update) => update,
        };
        if on.conflict_target.is_none() {
            return Err(Error::user(
                SqlState::SYNTAX_ERROR,
                "ON CONFLICT DO UPDATE requires inference specification or constraint name",
            )
            .hint("For example, ON CONFLICT (column_name)."));
        }
        let assignments = target.assignments(&update.assignments)?;
        let reads_table = assignments.iter().any(|(_, value)| build::has_subquery(value))
            || update.selection.as_ref().is_some_and(build::has_subquery);
        if !keeps_old && update.selection.is_none() && target.replaces_all(&assignments) {
            return Ok(InsertConflict::Replace);
        }
        let table = alias.unwrap_or_else(|| build::quoted(&target.object.name.name));
        let excluded = build::quoted(EXCLUDED_NAME);
        let mut condition: Vec<Expr> = key
            .iter()
            .map(|column_index| {
                let name = target.object.schema.field(*column_index).name();
                equal(column(&table, name), column(&excluded, name))
            })
            .collect();
        condition.extend(update.selection.clone().map(|s| Expr::Nested(Box::new(s))));
        let from = vec![
            target.from(Some(table.clone())),
            table_factor(ObjectName::from(vec![excluded]), None),
        ];
        let excluded = Arc::new(Object {
            id: EXCLUDED,
            name: crate::catalog::object::ObjectName {
                name: EXCLUDED_NAME.to_owned(),
                ..target.object.name.clone()
            },
            ..target.object.as_ref().clone()
        });
        let declared: Vec<_> = parameters.iter().cloned().map(Some).collect();
        let query = self.plan_changes(
            target,
            &table,
            assignments,
            from,
            conjunction(condition),
            Changing { joined: false, extra: &[excluded] },
            &declared,
        )?;
        Ok(InsertConflict::Update(Box::new(ConflictUpdate { query, reads_table })))
    }

    /// Plans an UPDATE.
    ///
    /// # Errors
    /// Whatever is wrong with it, as Postgres words it.
    pub fn plan_update(
        &self,
        update: &ast::Update,
        parameter_types: &[Option<SqlType>],
    ) -> Result<PlannedUpdate> {
        let (name, alias) = named_table(&update.table)?;
        let target = Target::resolve(self, &name, "update")?;
        let assignments = target.assignments(&update.assignments)?;
        let table = alias.clone().unwrap_or_else(|| build::quoted(&target.object.name.name));
        let others = match &update.from {
            Some(
                ast::UpdateTableFromKind::AfterSet(tables)
                | ast::UpdateTableFromKind::BeforeSet(tables),
            ) => tables.clone(),
            None => vec![],
        };
        let joined = !others.is_empty() && update.returning.is_some();
        let mut from = vec![target.in_from(&table, !others.is_empty())];
        from.extend(others.iter().cloned());
        let rows = self.plan_changes(
            &target,
            &table,
            assignments,
            from,
            update.selection.clone(),
            Changing { joined, extra: &[] },
            parameter_types,
        )?;
        let width = target.object.schema.fields().len();
        let mut from = vec![table_factor(name, alias)];
        from.extend(others);
        let changes = Changes {
            object: &target.object,
            from,
            joined: &rows.schema.fields()[2 * width..],
            old: Version::Old,
            new: Version::Changed,
        };
        let returning =
            self.plan_returning(update.returning.as_deref(), changes, &rows.parameters)?;
        let mut planned = PlannedUpdate { table: target.object, rows, returning };
        let returning = planned.returning.as_mut().map(|returning| &mut returning.query);
        share_parameters([Some(&mut planned.rows), returning, None]);
        Ok(planned)
    }

    /// Old rows beside new ones, for UPDATE and for ON CONFLICT DO UPDATE.
    #[expect(clippy::too_many_arguments, reason = "the parts of an UPDATE, each used once")]
    fn plan_changes(
        &self,
        target: &Target,
        table: &Ident,
        assignments: Vec<(usize, Expr)>,
        from: Vec<TableWithJoins>,
        condition: Option<Expr>,
        changing: Changing,
        parameter_types: &[Option<SqlType>],
    ) -> Result<PlannedQuery> {
        let width = target.object.schema.fields().len();
        let mut items: Vec<Expr> =
            target.object.schema.fields().iter().map(|f| column(table, f.name())).collect();
        // Where a column's new value stands among the items.
        let mut given: Vec<(usize, ColumnValue)> = vec![];
        for (index, mut value) in assignments {
            self.type_value(target, index, &mut value)?;
            given.push((index, ColumnValue::Input(items.len())));
            items.push(value);
        }
        let kept = (0..width).filter(|c| !given.iter().any(|(g, _)| g == c)).collect::<Vec<_>>();
        given.extend(kept.into_iter().map(|c| (c, ColumnValue::Input(c))));
        // Another table's rows may meet a row more than once; it changes once.
        let identity = if from.len() > 1 { target.identity(table) } else { vec![] };
        let own = target.width_in_from(from.len() > 1);
        let mut query = query_of(items, from, condition);
        build::distinct_on(&mut query, identity);
        let joined = changing.joined.then_some(own);
        self.plan_assigned(&query, parameter_types, changing.extra, joined, |_| {
            let old = (0..width).map(|c| (c, ColumnValue::Input(c))).collect();
            Ok(vec![
                AssignedRow::as_is(target.object.clone(), old),
                AssignedRow::new(target.object.clone(), given.clone()),
            ])
        })
    }

    /// A query for whole rows of a table where the condition holds.
    ///
    /// # Errors
    /// For names and types that are wrong.
    pub fn plan_rows_of(
        &self,
        table: &Arc<Object>,
        condition: Option<&Expr>,
        parameter_types: &[Option<SqlType>],
    ) -> Result<PlannedQuery> {
        let target = Target::of(self, table.clone(), "read")?;
        let name = build::quoted(&table.name.name);
        let items = table.schema.fields().iter().map(|field| column(&name, field.name()));
        let from = vec![target.from(Some(name.clone()))];
        self.plan_query(&query_of(items.collect(), from, condition.cloned()), parameter_types)
    }

    /// Plans a DELETE.
    ///
    /// # Errors
    /// Whatever is wrong with it, as Postgres words it.
    pub fn plan_delete(
        &self,
        delete: &ast::Delete,
        parameter_types: &[Option<SqlType>],
    ) -> Result<PlannedDelete> {
        let (ast::FromTable::WithFromKeyword(tables) | ast::FromTable::WithoutKeyword(tables)) =
            &delete.from;
        let [from] = tables.as_slice() else {
            return Err(Error::unsupported("DELETE from several tables"));
        };
        let (name, alias) = named_table(from)?;
        let target = Target::resolve(self, &name, "delete from")?;
        let table = alias.clone().unwrap_or_else(|| build::quoted(&target.object.name.name));
        let items = target.object.schema.fields().iter().map(|f| column(&table, f.name()));
        let items: Vec<Expr> = items.collect();
        let using = delete.using.clone().unwrap_or_default();
        let rows = if using.is_empty() || delete.returning.is_none() {
            let condition = match &delete.using {
                None => delete.selection.clone(),
                // A row goes when it has a partner, however many.
                Some(using) => Some(Expr::Exists {
                    subquery: Box::new(query_of(
                        vec![build::one()],
                        using.clone(),
                        delete.selection.clone(),
                    )),
                    negated: false,
                }),
            };
            let from = vec![target.from(Some(table.clone()))];
            self.plan_query(&query_of(items, from, condition), parameter_types)?
        } else {
            // RETURNING sees one partner of each row.
            let mut from = vec![target.in_from(&table, true)];
            from.extend(using.iter().cloned());
            let mut query = query_of(items, from, delete.selection.clone());
            build::distinct_on(&mut query, target.identity(&table));
            let joined = Some(target.width_in_from(true));
            self.plan_assigned(&query, parameter_types, &[], joined, |input| {
                let old = (0..input.len()).map(|c| (c, ColumnValue::Input(c))).collect();
                Ok(vec![AssignedRow::as_is(target.object.clone(), old)])
            })?
        };
        let width = target.object.schema.fields().len();
        let mut from = vec![table_factor(name, alias)];
        from.extend(using);
        let changes = Changes {
            object: &target.object,
            from,
            joined: &rows.schema.fields()[width..],
            old: Version::Changed,
            new: Version::Missing,
        };
        let returning =
            self.plan_returning(delete.returning.as_deref(), changes, &rows.parameters)?;
        let mut planned = PlannedDelete { table: target.object, rows, returning };
        let returning = planned.returning.as_mut().map(|returning| &mut returning.query);
        share_parameters([Some(&mut planned.rows), returning, None]);
        Ok(planned)
    }

    /// Whole rows of `table` from the columns that COPY names (all insertable ones, in order, when
    /// `columns` is empty): defaults filled in, generated columns computed.
    ///
    /// # Errors
    /// SQLSTATE 42703 for an unknown column, 42701 for one named twice.
    pub fn plan_row_completion(
        &self,
        table: &Arc<Object>,
        columns: &[String],
    ) -> Result<RowCompletion> {
        let idents: Vec<ObjectName> =
            columns.iter().map(|c| ObjectName::from(vec![build::quoted(c)])).collect();
        let target = Target::of(self, table.clone(), "copy to")?;
        let mut columns = target.insert_columns(&idents)?;
        let generated = |column: &usize| target.table.generated[*column].is_some();
        if idents.is_empty() {
            columns.retain(|column| !generated(column));
        } else if let Some(column) = columns.iter().find(|column| generated(column)) {
            let name = target.object.schema.field(*column).name();
            return Err(Error::user(
                SqlState::INVALID_COLUMN_REFERENCE,
                format!("column \"{name}\" is a generated column"),
            )
            .detail("Generated columns cannot be used in COPY."));
        }
        self.complete_row(&target.object, &columns)
    }
}

/// The rows to insert.
struct Source {
    query: Query,
    /// One row, and none of the query's columns is for the table.
    all_defaults: bool,
    /// A list of values, whose DEFAULTs have been replaced.
    is_values: bool,
}

/// What the query of an UPDATE has beside its clauses.
struct Changing<'a> {
    /// RETURNING reads what is joined to the rows.
    joined: bool,
    /// Relations beside the catalog's.
    extra: &'a [Arc<Object>],
}

/// The table that a statement changes.
struct Target<'a> {
    context: &'a PlanContext,
    object: Arc<Object>,
    table: TableObject,
}

impl<'a> Target<'a> {
    fn resolve(context: &'a PlanContext, name: &ObjectName, verb: &str) -> Result<Target<'a>> {
        Target::of(context, context.resolve(name)?, verb)
    }

    fn of(context: &'a PlanContext, object: Arc<Object>, verb: &str) -> Result<Target<'a>> {
        let ObjectKind::Table(table) = &object.kind else {
            return Err(Error::user(
                SqlState::WRONG_OBJECT_TYPE,
                format!("cannot {verb} {} \"{}\"", object.kind_noun(), object.name.name),
            ));
        };
        let table = table.clone();
        Ok(Target { context, object, table })
    }

    /// The table in a FROM clause, by its full name.
    fn from(&self, alias: Option<Ident>) -> TableWithJoins {
        let name = &self.object.name;
        let parts = [&name.database, &name.schema, &name.name];
        table_factor(ObjectName::from(parts.map(|p| build::quoted(p)).to_vec()), alias)
    }

    /// The table in a FROM clause, as `alias`; beside other tables each of its rows can be told
    /// from the others.
    fn in_from(&self, alias: &Ident, joined: bool) -> TableWithJoins {
        if joined && self.table.primary_key.is_empty() {
            return numbered_rows(self.from(None), alias.clone());
        }
        self.from(Some(alias.clone()))
    }

    /// How many columns [`Target::in_from`] has.
    fn width_in_from(&self, joined: bool) -> usize {
        let numbered = joined && self.table.primary_key.is_empty();
        self.object.schema.fields().len() + usize::from(numbered)
    }

    /// What tells the rows of [`Target::in_from`] apart beside other tables.
    fn identity(&self, alias: &Ident) -> Vec<Expr> {
        let key = &self.table.primary_key;
        if key.is_empty() {
            return vec![column(alias, ROW_NUMBER)];
        }
        key.iter().map(|c| column(alias, self.object.schema.field(*c).name())).collect()
    }

    fn column(&self, ident: &Ident) -> Result<usize> {
        let name = normalize(ident);
        let found = self.object.column(&name).map(|(index, _)| index);
        found.ok_or_else(|| {
            let error = Error::user(
                SqlState::UNDEFINED_COLUMN,
                format!(
                    "column \"{name}\" of relation \"{}\" does not exist",
                    self.object.name.name
                ),
            );
            match position_of(&self.context.sql, ident.span.start) {
                Some(position) => error.position(position),
                None => error,
            }
        })
    }

    /// The columns that values are given for.
    fn insert_columns(&self, names: &[ObjectName]) -> Result<Vec<usize>> {
        if names.is_empty() {
            return Ok((0..self.object.schema.fields().len()).collect());
        }
        let mut columns = vec![];
        for name in names {
            let ident = name.0.last().and_then(|part| part.as_ident()).ok_or_else(|| {
                Error::user(SqlState::SYNTAX_ERROR, format!("invalid column name: {name}"))
            })?;
            let column = self.column(ident)?;
            if columns.contains(&column) {
                return Err(named_twice(&normalize(ident)));
            }
            columns.push(column);
        }
        Ok(columns)
    }

    fn field_type(&self, column: usize) -> Option<SqlType> {
        SqlType::of_field(self.object.schema.field(column))
    }

    /// What DEFAULT stands for, as an expression.
    fn default_of(&self, column: usize) -> Result<Expr> {
        // A generated column's value is computed later, whatever stands here.
        match &self.table.defaults[column] {
            Some(sql) if self.table.generated[column].is_none() => {
                crate::sql::parse::parse_expression(sql)
            }
            _ => Ok(build::typed_null(self.field_type(column))),
        }
    }

    fn reject_generated(&self, column: usize, value: &Expr) -> Result<()> {
        if !self.is_generated(column) || build::is_default(value) {
            return Ok(());
        }
        Err(self.not_default(column))
    }

    fn is_generated(&self, column: usize) -> bool {
        self.table.generated[column].is_some()
    }

    /// SQLSTATE 428C9.
    fn not_default(&self, column: usize) -> Error {
        let name = self.object.schema.field(column).name();
        Error::user(
            SqlState::GENERATED_ALWAYS,
            format!("cannot insert a non-DEFAULT value into column \"{name}\""),
        )
        .detail(format!("Column \"{name}\" is a generated column."))
    }

    /// Column and value of each assignment.
    fn assignments(&self, assignments: &[Assignment]) -> Result<Vec<(usize, Expr)>> {
        let mut all: Vec<(usize, Expr)> = vec![];
        for assignment in assignments {
            let pairs: Vec<(&ObjectName, Expr)> = match &assignment.target {
                AssignmentTarget::ColumnName(name) => vec![(name, assignment.value.clone())],
                AssignmentTarget::Tuple(names) => {
                    let values = match &assignment.value {
                        Expr::Tuple(values) => values.clone(),
                        Expr::Nested(value) => vec![value.as_ref().clone()],
                        _ => {
                            return Err(Error::unsupported(
                                "assigning a subquery to several columns",
                            )
                            .hint("Use UPDATE ... FROM."));
                        }
                    };
                    if values.len() != names.len() {
                        return Err(Error::user(
                            SqlState::SYNTAX_ERROR,
                            "number of columns does not match number of values",
                        ));
                    }
                    names.iter().zip(values).collect()
                }
            };
            for (name, value) in pairs {
                let ident = name.0.last().and_then(|part| part.as_ident()).ok_or_else(|| {
                    Error::user(SqlState::SYNTAX_ERROR, format!("invalid column name: {name}"))
                })?;
                let column = self.column(ident)?;
                if self.table.generated[column].is_some() && !build::is_default(&value) {
                    let name = normalize(ident);
                    return Err(Error::user(
                        SqlState::GENERATED_ALWAYS,
                        format!("column \"{name}\" can only be updated to DEFAULT"),
                    )
                    .detail(format!("Column \"{name}\" is a generated column.")));
                }
                if all.iter().any(|(other, _)| *other == column) {
                    let name = normalize(ident);
                    return Err(Error::user(
                        SqlState::SYNTAX_ERROR,
                        format!("multiple assignments to same column \"{name}\""),
                    ));
                }
                all.push((column, value));
            }
        }
        Ok(all)
    }

    /// Whether DO UPDATE makes the old row the new one: every column that is no key and not
    /// generated is set to its value in `excluded`.
    fn replaces_all(&self, assignments: &[(usize, Expr)]) -> bool {
        let from_excluded = |index: usize, value: &Expr| {
            let Expr::CompoundIdentifier(idents) = value else { return false };
            let [table, name] = idents.as_slice() else { return false };
            normalize(table) == EXCLUDED_NAME
                && normalize(name) == *self.object.schema.field(index).name()
        };
        (0..self.object.schema.fields().len()).all(|index| {
            match assignments.iter().find(|(column, _)| *column == index) {
                Some((_, value)) => from_excluded(index, value),
                None => {
                    self.table.primary_key.contains(&index) || self.table.generated[index].is_some()
                }
            }
        })
    }
}

/// The queries of one statement have all of its parameters, whichever they use.
fn share_parameters(queries: [Option<&mut PlannedQuery>; 3]) {
    let longest = queries.iter().flatten().map(|q| q.parameters.clone()).max_by_key(Vec::len);
    for query in queries.into_iter().flatten() {
        query.parameters.clone_from(longest.as_ref().expect("one query at least"));
    }
}

/// SQLSTATE 42701.
fn named_twice(name: &str) -> Error {
    Error::user(SqlState::DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once"))
}

/// Name and alias of the one table of an UPDATE or DELETE.
fn named_table(table: &TableWithJoins) -> Result<(ObjectName, Option<Ident>)> {
    match (&table.relation, table.joins.as_slice()) {
        (TableFactor::Table { name, alias, .. }, []) => {
            Ok((name.clone(), alias.as_ref().map(|a| a.name.clone())))
        }
        _ => Err(Error::unsupported("changing the result of a join")
            .hint("Name the table, and the others after FROM or USING.")),
    }
}
