//! Sources and watermarks: columns, connector and rule of time of a CREATE SOURCE become an object,
//! with the table of its late rows.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::tables::{check_distinct, declared_field, field_of};
use super::views::{column_twice, definer};
use crate::catalog::object::{
    Object, ObjectKind, ObjectName, SourceObject, TableObject, WatermarkObject,
};
use crate::connectors::Source;
use crate::coordinator::command::Connection;
use crate::coordinator::event_loop::{Install, Timed};
use crate::plan::expr::Expr;
use crate::plan::node::{SourceSpec, WatermarkSpec};
use crate::plan::view_options::fixed_interval_us;
use crate::sql::bind::PlanContext;
use crate::sql::parse::Parsed;
use crate::sql::statement::{CreateSource, Noun, Watermark};
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::SqlType;

impl Connection {
    pub(super) async fn create_source(
        &self,
        context: &PlanContext,
        parsed: &Parsed,
        create: &CreateSource,
    ) -> Result<()> {
        let Some(place) = self.place(
            context,
            &create.name,
            create.if_not_exists,
            create.or_replace,
            Noun::Source,
        )?
        else {
            return Ok(());
        };
        let object = source_object(context, parsed, create, place.name)?;
        let ObjectKind::Source(definition) = &object.kind else {
            return Err(Error::internal("a source's object is a source"));
        };
        let watermark = match &create.watermark {
            Some(watermark) => {
                let (column, field) = watermark_column(&object.schema, watermark)?;
                let expr = watermark_expr(context, &object, watermark, field)?;
                let stored = definition.watermark.as_ref();
                let stored = stored.ok_or_else(|| Error::internal("a watermark was lost"))?;
                Some(watermark_spec(stored, column, expr))
            }
            None => None,
        };
        let spec = SourceSpec {
            object: object.id,
            name: object.name.name.clone(),
            connector: definition.connector.clone(),
            options: definition.options.clone(),
            physical_schema: definition.physical_schema.clone(),
            columns: source_columns(context, &object, definition)?,
            schema: object.schema.clone(),
            watermark,
        };
        let late =
            spec.watermark.as_ref().map(|w| late_table(&object.name, &object.schema, w.column));
        let (definer, install) = (Some(definer(context, parsed)), Install::Source(spec));
        let coordinator = &self.database.coordinator;
        let timed = Timed { late, rule: None };
        coordinator.create_timed(object, definer, install, place.replaces, timed).await?;
        Ok(())
    }
}

pub(super) fn watermark_object(watermark: &Watermark) -> WatermarkObject {
    WatermarkObject {
        column: watermark.column.clone(),
        expression_sql: watermark.expression.sql.clone(),
        ..WatermarkObject::default()
    }
}

/// The watermark of a source with its options, which are taken out of `options`.
pub(super) fn source_watermark(
    create: &CreateSource,
    options: &mut Vec<(String, String)>,
) -> Result<Option<WatermarkObject>> {
    let mut object = create.watermark.as_ref().map(watermark_object);
    for name in ["allowed_lateness", "idle_timeout", "watermark_drift_max"] {
        let Some(index) = options.iter().position(|(option, _)| option == name) else { continue };
        let (_, value) = options.remove(index);
        let position = create.options.iter().find(|o| o.name == name).map_or(0, |o| o.position);
        let Some(object) = &mut object else {
            return Err(Error::user(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("option \"{name}\" needs a watermark"),
            )
            .hint("Declare WATERMARK FOR column AS expression among the columns.")
            .position(position));
        };
        let length_us = fixed_interval_us(&value).ok_or_else(|| {
            Error::user(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("invalid value for option \"{name}\": \"{value}\""),
            )
            .hint("Give an interval of days and time, such as '30 seconds'.")
            .position(position)
        })?;
        match name {
            "allowed_lateness" => object.allowed_lateness_us = length_us,
            "idle_timeout" => object.idle_timeout_us = Some(length_us),
            _ => object.drift_max_us = Some(length_us),
        }
    }
    Ok(object)
}

/// The table of what comes late for a source or table of this name and schema.
pub(super) fn late_table(name: &ObjectName, schema: &SchemaRef, time_column: usize) -> Object {
    let mut fields: Vec<Field> =
        schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let time = schema.field(time_column).data_type().clone();
    let arrived = SqlType::Timestamptz.to_arrow();
    for (name, data_type) in
        [("event_time", time.clone()), ("watermark", time), ("arrived_at", arrived)]
    {
        let mut name = name.to_owned();
        while fields.iter().any(|field| *field.name() == name) {
            name.push('_');
        }
        fields.push(Field::new(name, data_type, true));
    }
    let name = ObjectName { name: format!("{}_late", name.name), ..name.clone() };
    // Whose late rows these are is known when the owner has an id.
    let kind = ObjectKind::Table(TableObject::plain(fields.len()));
    Object::new(name, kind, Arc::new(Schema::new(fields)))
}

/// The time column of a watermark.
pub(super) fn watermark_column<'a>(
    schema: &'a Schema,
    watermark: &Watermark,
) -> Result<(usize, &'a Field)> {
    let (index, field) = schema.column_with_name(&watermark.column).ok_or_else(|| {
        Error::user(
            SqlState::UNDEFINED_COLUMN,
            format!("column \"{}\" named in WATERMARK does not exist", watermark.column),
        )
        .position(watermark.position)
    })?;
    if !matches!(field.data_type(), DataType::Timestamp(_, _)) {
        let sql_type = SqlType::of_field(field).map_or_else(String::new, |t| t.to_string());
        return Err(Error::user(
            SqlState::DATATYPE_MISMATCH,
            format!("watermark column \"{}\" has type {sql_type}", watermark.column),
        )
        .hint("A watermark is for a column of type timestamp or timestamptz.")
        .position(watermark.position));
    }
    Ok((index, field))
}

pub(super) fn watermark_expr(
    context: &PlanContext,
    object: &Object,
    watermark: &Watermark,
    field: &Field,
) -> Result<Expr> {
    let nullable = field.clone().with_nullable(true);
    let expression = &watermark.expression.ast;
    context.plan_assigned_expr(expression, &object.schema, Some(&object.name.name), &nullable)
}

pub(in crate::coordinator) fn watermark_spec(
    watermark: &WatermarkObject,
    column: usize,
    expr: Expr,
) -> WatermarkSpec {
    let length = |us: i64| Duration::from_micros(u64::try_from(us).unwrap_or(0));
    WatermarkSpec {
        column,
        expr,
        allowed_lateness: length(watermark.allowed_lateness_us),
        idle_timeout: watermark.idle_timeout_us.map(length),
        drift_max: watermark.drift_max_us.map(length),
    }
}

pub(super) fn source_object(
    context: &PlanContext,
    parsed: &Parsed,
    create: &CreateSource,
    name: ObjectName,
) -> Result<Object> {
    if let Some(key) = &create.primary_key {
        return Err(Error::unsupported("a PRIMARY KEY of a source")
            .hint("Keep the newest row of each key with a materialized view.")
            .position(key.position));
    }
    check_distinct(&create.columns)?;
    for column in &create.columns {
        if let Some(default) = &column.default {
            return Err(Error::unsupported("DEFAULT in a source")
                .hint("Use a generated column: c type AS (coalesce(d, ...)).")
                .position(default.position));
        }
    }
    let mut options = create.option_pairs();
    let connector = take_connector(&mut options)?;
    let watermark = source_watermark(create, &mut options)?;
    let declared: Vec<Field> = create.columns.iter().filter_map(declared_field).collect();
    let declared = (!declared.is_empty()).then(|| Arc::new(Schema::new(declared)));
    let own_columns = declared.is_none();
    let source = crate::connectors::open_source(&connector, &options, declared)?;
    let physical_schema = source.schema();
    let (fields, column_sql) =
        source_fields(context, create, &physical_schema, own_columns, &name.name)?;
    let definition = SourceObject {
        connector,
        options,
        physical_schema,
        column_sql,
        watermark,
        bounded: source.bounded(),
    };
    let kind = ObjectKind::Source(definition);
    let object = Object::new(name, kind, Arc::new(Schema::new(fields)));
    Ok(Object { create_sql: parsed.sql.clone(), ..object })
}

/// The connector that is named among the options of a source or sink, without which these go on.
pub(in crate::coordinator) fn take_connector(
    options: &mut Vec<(String, String)>,
) -> Result<String> {
    match options.iter().position(|(name, _)| name == "connector") {
        Some(index) => Ok(options.remove(index).1),
        None => {
            Err(Error::user(SqlState::INVALID_PARAMETER_VALUE, "option \"connector\" is missing")
                .hint("Add connector = '...' to the WITH clause; SHOW CONNECTORS lists them."))
        }
    }
}

/// The visible columns of a source, and the SQL of those that are computed.
pub(super) fn source_fields(
    context: &PlanContext,
    create: &CreateSource,
    physical: &SchemaRef,
    own_columns: bool,
    name: &str,
) -> Result<(Vec<Field>, Vec<Option<String>>)> {
    let mut fields = Vec::new();
    let mut column_sql = Vec::new();
    if own_columns {
        fields.extend(physical.fields().iter().map(|f| f.as_ref().clone()));
        column_sql.resize(fields.len(), None);
    }
    for column in &create.columns {
        match &column.generated {
            None => {
                let (_, field) = physical.column_with_name(&column.name).ok_or_else(|| {
                    Error::internal(format!("the connector lost column {}", column.name))
                })?;
                fields.push(field.clone());
                column_sql.push(None);
            }
            Some(generated) => {
                if own_columns && physical.column_with_name(&column.name).is_some() {
                    return Err(column_twice(&column.name).position(column.position));
                }
                let field = field_of(context, name, column, physical)?;
                context.plan_assigned_expr(&generated.ast, physical, Some(name), &field)?;
                fields.push(field);
                column_sql.push(Some(generated.sql.clone()));
            }
        }
    }
    Ok((fields, column_sql))
}

/// A source's columns over the connector's; `None` when they are the same.
pub(in crate::coordinator) fn source_columns(
    context: &PlanContext,
    object: &Object,
    source: &SourceObject,
) -> Result<Option<Arc<Vec<Expr>>>> {
    let physical = &source.physical_schema;
    let same = source.column_sql.iter().all(Option::is_none)
        && object.schema.fields().len() == physical.fields().len()
        && object.schema.fields().iter().zip(physical.fields()).all(|(a, b)| a.name() == b.name());
    if same {
        return Ok(None);
    }
    let mut columns = Vec::with_capacity(source.column_sql.len());
    for (field, sql) in object.schema.fields().iter().zip(&source.column_sql) {
        columns.push(match sql {
            Some(sql) => {
                let expression = crate::sql::parse::parse_expression(sql)?;
                let table = Some(object.name.name.as_str());
                context.plan_assigned_expr(&expression, physical, table, field)?
            }
            None => {
                let (index, physical) =
                    physical.column_with_name(field.name()).ok_or_else(|| {
                        Error::internal(format!("the connector lost column {}", field.name()))
                    })?;
                let data_type = physical.data_type().clone();
                Expr::column(field.name(), index, data_type, physical.is_nullable())
            }
        });
    }
    Ok(Some(Arc::new(columns)))
}

/// A source's connector, with the options and columns of its definition.
pub(in crate::coordinator) fn open_connector(source: &SourceObject) -> Result<Arc<dyn Source>> {
    crate::connectors::open_source(
        &source.connector,
        &source.options,
        Some(source.physical_schema.clone()),
    )
}
