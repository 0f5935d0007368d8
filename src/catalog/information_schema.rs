//! Rows of `information_schema`, as the SQL standard names them.

use arrow::datatypes::Field;

use crate::catalog::object::{Object, ObjectKind};
use crate::catalog::pg_catalog::{
    column_default, own_objects, primary_key, primary_key_name, schemas, type_fact,
};
use crate::catalog::system_views::{Row, SystemFacts, relations};
use crate::types::sql_type::{Modifier, NUMERIC_DEFAULT, SqlType, field_oid};

/// The relations that [`rows`] may fill.
pub(super) const FILLED: &[&str] = &[
    "character_sets",
    "columns",
    "constraint_column_usage",
    "enabled_roles",
    "information_schema_catalog_name",
    "key_column_usage",
    "schemata",
    "table_constraints",
    "tables",
    "views",
];

pub(super) fn rows(name: &str, facts: &SystemFacts) -> Vec<Row> {
    match name {
        "character_sets" => vec![vec![
            ("character_set_name", "UTF8".into()),
            ("character_repertoire", "UCS".into()),
            ("form_of_use", "UTF8".into()),
            ("default_collate_catalog", facts.database.to_owned().into()),
            ("default_collate_schema", "pg_catalog".into()),
            ("default_collate_name", "C".into()),
        ]],
        "columns" => column_rows(facts),
        "constraint_column_usage" => key_rows(facts, constraint_usage_row),
        "enabled_roles" => vec![vec![("role_name", facts.user.to_owned().into())]],
        "information_schema_catalog_name" => {
            vec![vec![("catalog_name", facts.database.to_owned().into())]]
        }
        "key_column_usage" => key_rows(facts, key_usage_row),
        "schemata" => schemas(facts)
            .map(|schema| {
                vec![
                    ("catalog_name", facts.database.to_owned().into()),
                    ("schema_name", schema.into()),
                    ("schema_owner", facts.user.to_owned().into()),
                ]
            })
            .collect(),
        "table_constraints" => own_objects(facts).filter_map(constraint_row).collect(),
        "tables" => table_rows(facts),
        "views" => own_objects(facts).filter_map(view_row).collect(),
        _ => Vec::new(),
    }
}

/// Catalog, schema and name of a relation, in the columns that most relations here share.
fn place(database: &str, schema: &str, name: &str) -> Row {
    vec![
        ("table_catalog", database.to_owned().into()),
        ("table_schema", schema.to_owned().into()),
        ("table_name", name.to_owned().into()),
    ]
}

fn place_of(object: &Object) -> Row {
    place(&object.name.database, &object.name.schema, &object.name.name)
}

fn yes_no(yes: bool) -> &'static str {
    if yes { "YES" } else { "NO" }
}

fn table_rows(facts: &SystemFacts) -> Vec<Row> {
    let own = own_objects(facts).map(|object| {
        let mut row = place_of(object);
        row.push(("table_type", table_type(object).into()));
        row.push((
            "is_insertable_into",
            yes_no(matches!(object.kind, ObjectKind::Table(_))).into(),
        ));
        row.push(("is_typed", "NO".into()));
        row
    });
    let system = relations().iter().map(|r| {
        let mut row = place(facts.database, r.schema_name, r.name);
        row.push(("table_type", "VIEW".into()));
        row.push(("is_insertable_into", "NO".into()));
        row.push(("is_typed", "NO".into()));
        row
    });
    own.chain(system).collect()
}

fn table_type(object: &Object) -> &'static str {
    match object.kind {
        ObjectKind::Table(_) => "BASE TABLE",
        ObjectKind::View(_) => "VIEW",
        // Postgres leaves these out; tools that only read this schema would never find them.
        ObjectKind::MaterializedView(_) => "MATERIALIZED VIEW",
        // Sinks are not listed.
        ObjectKind::Source(_) | ObjectKind::Sink(_) => "FOREIGN",
    }
}

fn view_row(object: &Object) -> Option<Row> {
    let ObjectKind::View(view) = &object.kind else { return None };
    let mut row = place_of(object);
    row.push(("view_definition", view.query_sql.clone().into()));
    row.push(("check_option", "NONE".into()));
    for column in [
        "is_updatable",
        "is_insertable_into",
        "is_trigger_updatable",
        "is_trigger_deletable",
        "is_trigger_insertable_into",
    ] {
        row.push((column, "NO".into()));
    }
    Some(row)
}

fn column_rows(facts: &SystemFacts) -> Vec<Row> {
    let own = own_objects(facts).flat_map(|object| {
        object.schema.fields().iter().enumerate().map(move |(index, field)| {
            let mut row = place_of(object);
            let derived =
                matches!(object.kind, ObjectKind::View(_) | ObjectKind::MaterializedView(_));
            row.extend(column_row(
                facts,
                index,
                &field.as_ref().clone().with_nullable(derived || field.is_nullable()),
            ));
            let updatable = matches!(object.kind, ObjectKind::Table(_));
            row.push(("is_updatable", yes_no(updatable).into()));
            match column_default(object, index) {
                Some((sql, true)) => {
                    row.push(("is_generated", "ALWAYS".into()));
                    row.push(("generation_expression", sql.to_owned().into()));
                }
                default => {
                    row.push(("is_generated", "NEVER".into()));
                    row.push(("column_default", default.map(|(sql, _)| sql.to_owned()).into()));
                }
            }
            row
        })
    });
    let system = relations().iter().flat_map(|r| {
        r.schema.fields().iter().enumerate().map(move |(index, field)| {
            let mut row = place(facts.database, r.schema_name, r.name);
            row.extend(column_row(facts, index, field));
            row.push(("is_updatable", "NO".into()));
            row.push(("is_generated", "NEVER".into()));
            row
        })
    });
    own.chain(system).collect()
}

/// What depends on the column alone.
fn column_row(facts: &SystemFacts, index: usize, field: &Field) -> Row {
    let sql_type = SqlType::of_field(field).unwrap_or(SqlType::Text);
    let (precision, radix, scale) = match &sql_type {
        SqlType::Int2 => (Some(16), Some(2), Some(0)),
        SqlType::Int4 => (Some(32), Some(2), Some(0)),
        SqlType::Int8 => (Some(64), Some(2), Some(0)),
        SqlType::Float4 => (Some(24), Some(2), None),
        SqlType::Float8 => (Some(53), Some(2), None),
        SqlType::Numeric(p, s) if (*p, *s) == NUMERIC_DEFAULT => (None, Some(10), None),
        SqlType::Numeric(p, s) => (Some(i64::from(*p)), Some(10), Some(i64::from(*s))),
        _ => (None, None, None),
    };
    let modifier = Modifier::of_field(field);
    let time_precision = match sql_type {
        _ if matches!(modifier, Some(Modifier::Fraction(_))) => modifier.map(Modifier::number),
        SqlType::Date => Some(0),
        SqlType::Time | SqlType::Timestamp | SqlType::Timestamptz | SqlType::Interval => Some(6),
        _ => None,
    };
    let octets = matches!(sql_type, SqlType::Text).then_some(1_073_741_824);
    let oid = field_oid(field).unwrap_or(sql_type.oid());
    let type_name = type_fact(i64::from(oid)).map_or("record", |t| t.name);
    let (data_type, length) = match modifier {
        Some(Modifier::Varchar(length)) => ("character varying".to_owned(), Some(length)),
        Some(Modifier::Char(length)) => ("character".to_owned(), Some(length)),
        _ => (data_type_name(&sql_type), None),
    };
    // A character has at most 4 bytes.
    let octets = length.map(|length| length * 4).or(octets);
    vec![
        ("column_name", field.name().clone().into()),
        ("ordinal_position", (index as i64 + 1).into()),
        ("is_nullable", yes_no(field.is_nullable()).into()),
        ("data_type", data_type.into()),
        ("character_maximum_length", length.into()),
        ("character_octet_length", octets.into()),
        ("numeric_precision", precision.into()),
        ("numeric_precision_radix", radix.into()),
        ("numeric_scale", scale.into()),
        ("datetime_precision", time_precision.into()),
        ("interval_precision", None::<i64>.into()),
        ("udt_catalog", facts.database.to_owned().into()),
        ("udt_schema", "pg_catalog".into()),
        ("udt_name", type_name.into()),
        ("maximum_cardinality", None::<i64>.into()),
        ("dtd_identifier", (index + 1).to_string().into()),
        ("is_self_referencing", "NO".into()),
        ("is_identity", "NO".into()),
        ("identity_cycle", "NO".into()),
    ]
}

/// The standard's name: without precision, arrays and records as words.
fn data_type_name(sql_type: &SqlType) -> String {
    match sql_type {
        SqlType::Numeric(_, _) => "numeric".to_owned(),
        SqlType::Array(_) => "ARRAY".to_owned(),
        other => other.to_string(),
    }
}

fn constraint_row(object: &Object) -> Option<Row> {
    if primary_key(object).is_empty() {
        return None;
    }
    let mut row = place_of(object);
    row.extend(constraint_place(object));
    row.push(("constraint_type", "PRIMARY KEY".into()));
    row.push(("is_deferrable", "NO".into()));
    row.push(("initially_deferred", "NO".into()));
    row.push(("enforced", "YES".into()));
    Some(row)
}

fn constraint_place(object: &Object) -> Row {
    vec![
        ("constraint_catalog", object.name.database.clone().into()),
        ("constraint_schema", object.name.schema.clone().into()),
        ("constraint_name", primary_key_name(object).into()),
    ]
}

/// One row for each column of each primary key.
fn key_rows(facts: &SystemFacts, row: fn(&Object, usize, &str) -> Row) -> Vec<Row> {
    own_objects(facts)
        .flat_map(|object| {
            primary_key(object)
                .iter()
                .enumerate()
                .map(move |(index, column)| row(object, index, object.schema.field(*column).name()))
        })
        .collect()
}

fn key_usage_row(object: &Object, index: usize, column: &str) -> Row {
    let mut row = constraint_usage_row(object, index, column);
    row.push(("ordinal_position", (index as i64 + 1).into()));
    row.push(("position_in_unique_constraint", None::<i64>.into()));
    row
}

fn constraint_usage_row(object: &Object, _index: usize, column: &str) -> Row {
    let mut row = place_of(object);
    row.extend(constraint_place(object));
    row.push(("column_name", column.to_owned().into()));
    row
}
