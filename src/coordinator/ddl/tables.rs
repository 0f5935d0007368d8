//! Tables: columns, keys and options of a CREATE TABLE become an object.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast;

use super::sources::{
    late_table, watermark_column, watermark_expr, watermark_object, watermark_spec,
};
use super::views::{definer, plan_definition, renamed};
use crate::catalog::object::{
    Object, ObjectKind, ObjectName, TableConflict, TableObject, TableRetention,
};
use crate::coordinator::command::{Connection, Response};
use crate::coordinator::event_loop::{Install, Timed};
use crate::coordinator::execute::done;
use crate::coordinator::running::Running;
use crate::coordinator::write::{RowCollector, concat};
use crate::plan::event_time::is_time;
use crate::plan::view_options::{
    HISTORY_RETENTION, RETENTION, RETENTION_COLUMN, RETENTION_SECONDS, fixed_interval_us,
    retention_us, seconds_us,
};
use crate::sql::bind::PlanContext;
use crate::sql::dml::check_rows;
use crate::sql::parse::Parsed;
use crate::sql::schema::check_storable;
use crate::sql::statement::{
    ColumnDef, CreateTable, Expression, Noun, OnConflict, PrimaryKey, WithOption,
};
use crate::types::error::{Error, Result, SqlState};
use crate::types::id::ObjectId;
use crate::types::sql_type::SqlType;

impl Connection {
    pub(super) async fn create_table(
        &self,
        context: &PlanContext,
        parsed: &Parsed,
        create: &CreateTable,
    ) -> Result<()> {
        let Some(place) = self.place(
            context,
            &create.name,
            create.if_not_exists,
            create.or_replace,
            Noun::Table,
        )?
        else {
            return Ok(());
        };
        let schema = table_schema(context, &create.name.name, &create.columns)?;
        let object = table_object(context, parsed, create, place.name, schema)?;
        self.install_table(context, parsed, create, (object, place.replaces), None).await
    }

    /// Table and rows are one step: after a crash there are both or neither.
    async fn install_table(
        &self,
        context: &PlanContext,
        parsed: &Parsed,
        create: &CreateTable,
        (object, replaces): (Object, Option<ObjectId>),
        rows: Option<RecordBatch>,
    ) -> Result<()> {
        let timed = table_time(context, &object, create)?;
        let definer = timed.rule.is_some().then(|| definer(context, parsed));
        let coordinator = &self.database.coordinator;
        let install = Install::Table(rows);
        coordinator.create_timed(object, definer, install, replaces, timed).await?;
        Ok(())
    }

    pub(super) async fn create_table_as(
        &mut self,
        running: &Running,
        context: &PlanContext,
        parsed: &Parsed,
        create: &CreateTable,
    ) -> Result<Response> {
        let Some(query) = &create.query else {
            return Err(Error::internal("CREATE TABLE AS has a query"));
        };
        let Some(place) = self.place(
            context,
            &create.name,
            create.if_not_exists,
            create.or_replace,
            Noun::Table,
        )?
        else {
            return Ok(done("CREATE TABLE AS"));
        };
        let planned = plan_definition(context, &query.ast)?;
        let names: Vec<&str> = create.columns.iter().map(|c| c.name.as_str()).collect();
        let schema = renamed(&planned.schema, &names, "CREATE TABLE AS")?;
        check_storable(&schema)?;
        let object = table_object(context, parsed, create, place.name, schema)?;
        let mut rows = RecordBatch::new_empty(object.schema.clone());
        if create.with_data {
            let found = self.run_query(running, context, &planned).await?;
            let mut collected = RowCollector::new(&self.database.coordinator);
            let mut found = std::pin::pin!(found);
            while let Some(batch) =
                running.wait(futures::TryStreamExt::try_next(&mut found)).await?
            {
                collected.add(check_rows(&object, batch)?)?;
            }
            rows = concat(&object.schema, &collected.batches)?;
        }
        let count = rows.num_rows();
        let object = (object, place.replaces);
        self.install_table(context, parsed, create, object, Some(rows)).await?;
        Ok(Response::Done { tag: format!("SELECT {count}") })
    }
}

/// The columns of CREATE TABLE.
pub(super) fn table_schema(
    context: &PlanContext,
    table: &str,
    columns: &[ColumnDef],
) -> Result<SchemaRef> {
    check_distinct(columns)?;
    let plain: Vec<Field> = columns.iter().filter_map(declared_field).collect();
    let plain = Schema::new(plain);
    let mut fields = Vec::with_capacity(columns.len());
    for column in columns {
        if column.default.is_some() && column.generated.is_some() {
            return Err(Error::user(
                SqlState::SYNTAX_ERROR,
                format!(
                    "both default and generation expression specified for column \"{}\" of table \
                     \"{table}\"",
                    column.name
                ),
            )
            .position(column.position));
        }
        fields.push(field_of(context, table, column, &plain)?);
    }
    for (column, field) in columns.iter().zip(&fields) {
        let assigned = |expression: &Expression, inputs: &Schema| {
            context.plan_assigned_expr(&expression.ast, inputs, Some(table), field)
        };
        if let Some(default) = &column.default {
            let planned = assigned(default, &Schema::empty()).map_err(|error| {
                if error.sqlstate() == SqlState::UNDEFINED_COLUMN {
                    Error::user(
                        SqlState::FEATURE_NOT_SUPPORTED,
                        "cannot use column reference in DEFAULT expression",
                    )
                    .hint("Use GENERATED ALWAYS AS (...) for values computed from other columns.")
                    .position(default.position)
                } else {
                    error
                }
            })?;
            if matches!(default.ast, ast::Expr::Value(_)) {
                // A literal that is none of the column's type is wrong now, and not at the first
                // INSERT.
                let one = RecordBatchOptions::new().with_row_count(Some(1));
                let row =
                    RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &one)?;
                planned.evaluate(&row).map_err(|error| error.position(default.position))?;
            }
        }
        if let Some(generated) = &column.generated {
            assigned(generated, &plain).map_err(|error| reads_generated(columns, error))?;
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// A generation expression sees the plain columns only; one that names a generated column gets
/// Postgres's words for it.
pub(super) fn reads_generated(columns: &[ColumnDef], error: Error) -> Error {
    let is_named = |name: &str| error.message() == format!("column \"{name}\" does not exist");
    let other = columns.iter().find(|c| c.generated.is_some() && is_named(&c.name));
    let Some(other) = other else { return error };
    let named = Error::user(
        SqlState::INVALID_OBJECT_DEFINITION,
        format!("cannot use generated column \"{}\" in column generation expression", other.name),
    )
    .detail("A generated column cannot reference another generated column.");
    match error.body().position {
        Some(position) => named.position(position),
        None => named,
    }
}

pub(super) fn check_distinct(columns: &[ColumnDef]) -> Result<()> {
    for (index, column) in columns.iter().enumerate() {
        if columns[..index].iter().any(|c| c.name == column.name) {
            return Err(Error::user(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{}\" specified more than once", column.name),
            )
            .position(column.position));
        }
    }
    Ok(())
}

/// The field of a column that is not generated.
pub(super) fn declared_field(column: &ColumnDef) -> Option<Field> {
    match (&column.sql_type, &column.generated) {
        (Some(sql_type), None) => Some(typed_field(column, sql_type)),
        _ => None,
    }
}

/// The field of a column with a type, marked with its modifier.
pub(super) fn typed_field(column: &ColumnDef, sql_type: &SqlType) -> Field {
    let field = sql_type.to_field(&column.name, !column.not_null);
    match column.modifier {
        Some(modifier) => modifier.mark(field),
        None => field,
    }
}

/// A column's field; a generated one without a type has that of its expression.
pub(super) fn field_of(
    context: &PlanContext,
    relation: &str,
    column: &ColumnDef,
    inputs: &Schema,
) -> Result<Field> {
    if let Some(sql_type) = &column.sql_type {
        return Ok(typed_field(column, sql_type));
    }
    let Some(generated) = &column.generated else {
        return Err(Error::user(
            SqlState::SYNTAX_ERROR,
            format!("column \"{}\" has no type", column.name),
        )
        .position(column.position));
    };
    let expr = context.plan_expr(&generated.ast, inputs, Some(relation))?;
    Ok(Field::new(&column.name, expr.data_type().clone(), !column.not_null))
}

pub(super) fn table_object(
    context: &PlanContext,
    parsed: &Parsed,
    create: &CreateTable,
    name: ObjectName,
    schema: SchemaRef,
) -> Result<Object> {
    let (schema, primary_key) = with_primary_key(&schema, create.primary_key.as_ref())?;
    let width = schema.fields().len();
    let sql = |expression: &Option<Expression>| expression.as_ref().map(|e| e.sql.clone());
    let of_columns = |of: fn(&ColumnDef) -> &Option<Expression>| {
        if create.query.is_some() {
            vec![None; width]
        } else {
            create.columns.iter().map(|c| sql(of(c))).collect()
        }
    };
    let on_conflict = table_conflict(create)?;
    if on_conflict != TableConflict::Error && primary_key.is_empty() {
        return Err(Error::user(
            SqlState::INVALID_TABLE_DEFINITION,
            "ON CONFLICT needs a PRIMARY KEY",
        ));
    }
    if create.append_only && on_conflict == TableConflict::Update {
        return Err(Error::user(
            SqlState::INVALID_TABLE_DEFINITION,
            "an APPEND ONLY table cannot replace rows",
        )
        .hint("Leave out APPEND ONLY, or use ON CONFLICT DO NOTHING."));
    }
    let table = TableObject {
        primary_key,
        defaults: of_columns(|c| &c.default),
        generated: of_columns(|c| &c.generated),
        on_conflict,
        append_only: create.append_only,
        watermark: create.watermark.as_ref().map(watermark_object),
        history_retention_us: table_history(create)?,
        retention: table_retention(create, &schema)?,
        late_of: None,
        replayed_of: None,
    };
    let object = Object::new(name, ObjectKind::Table(table), schema);
    let object = Object { create_sql: parsed.sql.clone(), ..object };
    if let Some(watermark) = &create.watermark {
        let (_, field) = watermark_column(&object.schema, watermark)?;
        watermark_expr(context, &object, watermark, field)?;
    }
    Ok(object)
}

/// What a table with a watermark has beside its rows.
pub(super) fn table_time(
    context: &PlanContext,
    object: &Object,
    create: &CreateTable,
) -> Result<Timed> {
    let (Some(watermark), ObjectKind::Table(TableObject { watermark: Some(stored), .. })) =
        (&create.watermark, &object.kind)
    else {
        return Ok(Timed::default());
    };
    let (column, field) = watermark_column(&object.schema, watermark)?;
    let rule = watermark_spec(stored, column, watermark_expr(context, object, watermark, field)?);
    let late = late_table(&object.name, &object.schema, column);
    Ok(Timed { late: Some(late), rule: Some(rule) })
}

/// Key columns are NOT NULL and can be compared.
pub(super) fn with_primary_key(
    schema: &SchemaRef,
    key: Option<&PrimaryKey>,
) -> Result<(SchemaRef, Vec<usize>)> {
    let Some(key) = key else { return Ok((schema.clone(), Vec::new())) };
    let mut fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone()).collect();
    let mut indices = Vec::with_capacity(key.columns.len());
    for name in &key.columns {
        let index = fields.iter().position(|f| f.name() == name).ok_or_else(|| {
            Error::user(
                SqlState::UNDEFINED_COLUMN,
                format!("column \"{name}\" named in key does not exist"),
            )
            .position(key.position)
        })?;
        if let Some(json @ SqlType::Json) = SqlType::of_field(&fields[index]) {
            return Err(Error::user(
                SqlState::UNDEFINED_OBJECT,
                format!("data type {json} cannot be compared, so it cannot be a key"),
            )
            .position(key.position));
        }
        fields[index] = fields[index].clone().with_nullable(false);
        indices.push(index);
    }
    Ok((Arc::new(Schema::new(fields)), indices))
}

pub(super) fn table_conflict(create: &CreateTable) -> Result<TableConflict> {
    let mut conflict = match create.on_conflict {
        None => TableConflict::Error,
        Some(OnConflict::Update) => TableConflict::Update,
        Some(OnConflict::Ignore) => TableConflict::Ignore,
    };
    for option in &create.options {
        match option.name.as_str() {
            HISTORY_RETENTION | RETENTION | RETENTION_SECONDS | RETENTION_COLUMN => continue,
            "on_conflict" => {}
            _ => return Err(unknown_option(option)),
        }
        conflict = match option.value.to_lowercase().as_str() {
            "error" => TableConflict::Error,
            "update" | "overwrite" => TableConflict::Update,
            "nothing" | "ignore" => TableConflict::Ignore,
            _ => {
                return Err(Error::user(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("invalid value for parameter \"on_conflict\": \"{}\"", option.value),
                )
                .hint("Available values: error, update, nothing.")
                .position(option.position));
            }
        };
    }
    Ok(conflict)
}

/// What the options of a table say of its history.
pub(super) fn table_history(create: &CreateTable) -> Result<Option<i64>> {
    let Some(option) = create.options.iter().find(|o| o.name == HISTORY_RETENTION) else {
        return Ok(None);
    };
    let us = retention_us(&option.value.to_lowercase()).ok_or_else(|| {
        let (name, value) = (&option.name, &option.value);
        Error::user(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("invalid value for parameter \"{name}\": \"{value}\""),
        )
        .hint("Available values: 0, or an interval of days and time, such as 1 hour.")
        .position(option.position)
    })?;
    Ok(Some(us))
}

/// What the options of a table say of rows that go by themselves.
pub(super) fn table_retention(
    create: &CreateTable,
    schema: &Schema,
) -> Result<Option<TableRetention>> {
    let find = |name: &str| create.options.iter().find(|option| option.name == name);
    let wrong = |option: &WithOption, message: String| {
        Error::user(SqlState::INVALID_PARAMETER_VALUE, message).position(option.position)
    };
    let named = find(RETENTION_COLUMN);
    let Some(option) = find(RETENTION).or_else(|| find(RETENTION_SECONDS)) else {
        return match named {
            Some(option) => {
                Err(wrong(option, format!("option \"{RETENTION_COLUMN}\" needs \"{RETENTION}\"")))
            }
            None => Ok(None),
        };
    };
    let in_seconds = option.name == RETENTION_SECONDS;
    let keep_us = match in_seconds {
        true => seconds_us(&option.value),
        false => fixed_interval_us(&option.value.to_lowercase()),
    };
    let keep_us = keep_us.ok_or_else(|| {
        let WithOption { name, value, .. } = option;
        let message = format!("invalid value for parameter \"{name}\": \"{value}\"");
        wrong(option, message).hint(match in_seconds {
            true => "Give a number of seconds, such as 3600.",
            false => "Give an interval of days and time, such as '1 day'.",
        })
    })?;
    if create.append_only {
        return Err(Error::user(
            SqlState::INVALID_TABLE_DEFINITION,
            "rows of an APPEND ONLY table never go",
        )
        .hint("Leave out APPEND ONLY, or create a materialized view with a retention over it.")
        .position(option.position));
    }
    let watermark = create.watermark.as_ref().map(|watermark| watermark.column.as_str());
    let named_or_watermark = named.map(|option| option.value.as_str()).or(watermark);
    let Some(name) = named_or_watermark.or_else(|| arrival_column(&create.columns)) else {
        return Err(wrong(option, "the retention of a table counts from a column".to_owned())
            .hint(
                "Name it: retention_column = 'at'. For the time of arrival, declare one column such as \
                 arrived_at timestamptz DEFAULT now().",
            ));
    };
    let at = named.unwrap_or(option);
    let Some((column, field)) = schema.column_with_name(name) else {
        let message = format!("option \"{RETENTION_COLUMN}\": column \"{name}\" does not exist");
        return Err(Error::user(SqlState::UNDEFINED_COLUMN, message).position(at.position));
    };
    if !is_time(field.data_type()) {
        let message =
            format!("option \"{RETENTION_COLUMN}\": column \"{name}\" is not a time or date");
        return Err(Error::user(SqlState::DATATYPE_MISMATCH, message).position(at.position));
    }
    Ok(Some(TableRetention { column, keep_us }))
}

/// The only column that has the time of a row's arrival by itself.
fn arrival_column(columns: &[ColumnDef]) -> Option<&str> {
    const NOW: [&str; 5] =
        ["now()", "proctime()", "current_timestamp", "localtimestamp", "transaction_timestamp()"];
    let is_now = |expression: &Expression| {
        let text = expression.sql.to_lowercase();
        NOW.contains(&text.trim())
    };
    let of_arrival =
        |column: &&ColumnDef| column.default.iter().chain(&column.generated).any(is_now);
    let mut found = columns.iter().filter(of_arrival);
    match (found.next(), found.next()) {
        (Some(column), None) => Some(&column.name),
        _ => None,
    }
}

pub(super) fn unknown_option(option: &WithOption) -> Error {
    Error::user(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("unrecognized parameter \"{}\"", option.name),
    )
    .position(option.position)
}

pub(super) fn refuse_options(options: &[WithOption]) -> Result<()> {
    options.first().map_or(Ok(()), |option| Err(unknown_option(option)))
}
