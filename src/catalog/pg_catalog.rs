//! Rows of `pg_catalog`: what psql's backslash commands, drivers and BI tools read.
//!
//! Object ids are computed, so that every relation agrees on them without a table of ids: a
//! relation's from its [`ObjectId`], a schema's and a database's from its name.

use std::sync::OnceLock;

use arrow::datatypes::Field;

use crate::catalog::object::{IndexObject, Object, ObjectKind};
use crate::catalog::snapshot::Catalog;
use crate::catalog::system_views::{
    Cell, Row, SYSTEM_SCHEMAS, SystemFacts, option_texts, relations,
};
use crate::types::id::ObjectId;
use crate::types::sql_type::{Modifier, NUMERIC_DEFAULT, SqlType, field_oid};
use crate::types::text::quote::quote_ident;

/// The first object id of what users make.
const FIRST_USER_OID: i64 = 16_384;
/// Ids that one object uses: the relation, its primary key's index and constraint, spares.
const OIDS_PER_OBJECT: i64 = 8;
/// The one role: everybody is its superuser.
pub const ROLE_OID: i64 = 10;
const DEFAULT_COLLATION_OID: i64 = 100;
const TABLE_ACCESS_METHOD_OID: i64 = 2;
const INDEX_ACCESS_METHOD_OID: i64 = 405;
const DEFAULT_TABLESPACE_OID: i64 = 1663;

/// The id of a relation in `pg_class`.
pub fn relation_oid(id: ObjectId) -> i64 {
    FIRST_USER_OID + id.0 as i64 * OIDS_PER_OBJECT
}

/// The object with this relation id.
pub fn object_of_oid(oid: i64) -> Option<ObjectId> {
    let offset = oid.checked_sub(FIRST_USER_OID).filter(|o| *o >= 0)?;
    (offset % OIDS_PER_OBJECT == 0).then_some(ObjectId((offset / OIDS_PER_OBJECT) as u64))
}

/// The object whose primary key's index has this id.
pub fn object_of_index_oid(oid: i64) -> Option<ObjectId> {
    object_of_oid(oid.checked_sub(1)?)
}

/// The object whose primary key constraint has this id.
pub fn object_of_constraint_oid(oid: i64) -> Option<ObjectId> {
    object_of_oid(oid.checked_sub(2)?)
}

pub fn index_oid(id: ObjectId) -> i64 {
    relation_oid(id) + 1
}

fn constraint_oid(id: ObjectId) -> i64 {
    relation_oid(id) + 2
}

/// The id of a schema in `pg_namespace`.
pub fn schema_oid(database: &str, schema: &str) -> i64 {
    match schema {
        "pg_catalog" => 11,
        "public" => 2200,
        "information_schema" => 13_207,
        "millstream" => 13_208,
        _ => name_oid(&[database, schema]),
    }
}

/// The id of a database in `pg_database`.
pub fn database_oid(database: &str) -> i64 {
    name_oid(&[database])
}

/// An id from a name: FNV-1a into the upper half of what fits an `i32`, far from counted ids.
fn name_oid(parts: &[&str]) -> i64 {
    let mut hash: u32 = 0x811c_9dc5;
    for byte in parts.join("\0").bytes() {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    i64::from(0x4000_0000 | (hash & 0x3fff_ffff))
}

/// The catalogs that clients name in `classoid`, with Postgres's ids.
const CATALOG_OIDS: &[(&str, i64)] = &[
    ("pg_type", 1247),
    ("pg_attribute", 1249),
    ("pg_proc", 1255),
    ("pg_class", 1259),
    ("pg_authid", 1260),
    ("pg_database", 1262),
    ("pg_attrdef", 2604),
    ("pg_constraint", 2606),
    ("pg_description", 2609),
    ("pg_index", 2610),
    ("pg_language", 2612),
    ("pg_namespace", 2615),
    ("pg_operator", 2617),
    ("pg_rewrite", 2618),
    ("pg_trigger", 2620),
    ("pg_extension", 3079),
    ("pg_policy", 3256),
    ("pg_enum", 3501),
];

/// The id of a system relation in `pg_class`.
pub fn system_relation_oid(name: &str, index: usize) -> i64 {
    CATALOG_OIDS
        .iter()
        .find(|(catalog, _)| *catalog == name)
        .map_or(12_000 + index as i64, |(_, oid)| *oid)
}

/// The relations that [`rows`] may fill.
pub(super) const FILLED: &[&str] = &[
    "pg_am",
    "pg_attrdef",
    "pg_attribute",
    "pg_authid",
    "pg_class",
    "pg_collation",
    "pg_constraint",
    "pg_database",
    "pg_description",
    "pg_foreign_data_wrapper",
    "pg_foreign_server",
    "pg_foreign_table",
    "pg_index",
    "pg_indexes",
    "pg_language",
    "pg_matviews",
    "pg_namespace",
    "pg_proc",
    "pg_roles",
    "pg_settings",
    "pg_shadow",
    "pg_stat_activity",
    "pg_stat_all_tables",
    "pg_stat_database",
    "pg_stat_user_tables",
    "pg_statio_user_tables",
    "pg_tables",
    "pg_tablespace",
    "pg_type",
    "pg_user",
    "pg_views",
];

/// The rows that depend on the session or the user's objects.
pub(super) fn rows(name: &str, facts: &SystemFacts) -> Vec<Row> {
    match name {
        "pg_am" => access_methods(),
        "pg_attrdef" => own_objects(facts).flat_map(default_rows).collect(),
        "pg_attribute" => own_objects(facts).flat_map(|o| attribute_rows(facts, o)).collect(),
        "pg_authid" | "pg_roles" => vec![role_row(facts)],
        "pg_class" => own_objects(facts).flat_map(|o| class_rows(facts, o)).collect(),
        "pg_collation" => collation_rows(),
        "pg_constraint" => own_objects(facts).filter_map(|o| constraint_row(facts, o)).collect(),
        "pg_database" => facts.catalog.databases().map(database_row).collect(),
        "pg_description" => own_objects(facts).flat_map(|o| description_rows(facts, o)).collect(),
        "pg_foreign_data_wrapper" => wrapper_rows(facts),
        "pg_foreign_server" => server_rows(facts),
        "pg_foreign_table" => own_objects(facts).filter_map(foreign_table_row).collect(),
        "pg_index" => own_objects(facts).flat_map(|o| index_rows(facts, o)).collect(),
        "pg_indexes" => own_objects(facts).flat_map(|o| index_view_rows(facts, o)).collect(),
        "pg_language" => vec![language_row()],
        "pg_matviews" => own_objects(facts).filter_map(|o| matview_row(facts, o)).collect(),
        "pg_namespace" => schemas(facts).map(|s| namespace_row(facts, &s)).collect(),
        "pg_settings" => facts.settings.iter().map(setting_row).collect(),
        "pg_shadow" | "pg_user" => vec![user_row(facts)],
        "pg_stat_activity" => facts.sessions.iter().map(activity_row).collect(),
        "pg_stat_all_tables" | "pg_stat_user_tables" | "pg_statio_user_tables" => {
            own_objects(facts).filter(|o| is_table(o)).map(statistics_row).collect()
        }
        "pg_stat_database" => facts
            .catalog
            .databases()
            .map(|d| vec![("datid", database_oid(d).into()), ("datname", d.to_owned().into())])
            .collect(),
        "pg_tables" => {
            own_objects(facts).filter(|o| is_table(o)).map(|o| table_row(facts, o)).collect()
        }
        "pg_tablespace" => vec![vec![
            ("oid", DEFAULT_TABLESPACE_OID.into()),
            ("spcname", "pg_default".into()),
            ("spcowner", ROLE_OID.into()),
        ]],
        "pg_type" => type_rows(),
        "pg_views" => own_objects(facts).filter_map(|o| view_row(facts, o)).collect(),
        _ => Vec::new(),
    }
}

/// The rows that are the same for everybody: those about the system relations themselves.
pub(super) fn constant_rows(name: &str) -> Vec<Row> {
    match name {
        "pg_class" => relations()
            .iter()
            .map(|r| {
                let mut row = class_row(
                    system_relation_oid(r.name, r.index),
                    r.name.to_owned(),
                    schema_oid("", r.schema_name),
                    // Postgres has tables and views here; to clients all of them are tables.
                    if r.schema_name == "pg_catalog" { "r" } else { "v" },
                    r.schema.fields().len(),
                );
                row.push(("relam", 0.into()));
                row
            })
            .collect(),
        "pg_attribute" => relations()
            .iter()
            .flat_map(|r| {
                let oid = system_relation_oid(r.name, r.index);
                r.schema
                    .fields()
                    .iter()
                    .enumerate()
                    .map(move |(index, field)| attribute_row(oid, index, field, false, ""))
            })
            .collect(),
        "pg_proc" => crate::catalog::pg_proc::rows(),
        _ => Vec::new(),
    }
}

/// The relations of the session's database.
pub(super) fn own_objects<'a>(facts: &SystemFacts<'a>) -> impl Iterator<Item = &'a Object> {
    let database = facts.database;
    facts
        .catalog
        .objects()
        .map(AsRef::as_ref)
        .filter(move |o: &&Object| o.name.database == database && o.is_relation())
}

/// Every schema of the session's database, the system's too.
pub(super) fn schemas(facts: &SystemFacts) -> impl Iterator<Item = String> {
    let own = facts.catalog.schemas(facts.database).unwrap_or_default().to_vec();
    SYSTEM_SCHEMAS.iter().map(|s| (*s).to_owned()).chain(own)
}

fn is_table(object: &Object) -> bool {
    matches!(object.kind, ObjectKind::Table(_))
}

/// Columns of the primary key; empty without one.
pub(super) fn primary_key(object: &Object) -> &[usize] {
    match &object.kind {
        ObjectKind::Table(table) => &table.primary_key,
        _ => &[],
    }
}

/// Names of the columns of the primary key.
pub fn primary_key_columns(object: &Object) -> Vec<&str> {
    primary_key(object).iter().map(|column| object.schema.field(*column).name().as_str()).collect()
}

/// The name of a primary key's constraint and index, as Postgres makes it.
pub fn primary_key_name(object: &Object) -> String {
    format!("{}_pkey", object.name.name)
}

/// Per column: the SQL of its default or generation expression, and whether it is generated.
pub fn column_default(object: &Object, index: usize) -> Option<(&str, bool)> {
    match &object.kind {
        ObjectKind::Table(table) => {
            let generated = table.generated.get(index).and_then(Option::as_deref);
            let default = table.defaults.get(index).and_then(Option::as_deref);
            generated.map(|sql| (sql, true)).or(default.map(|sql| (sql, false)))
        }
        ObjectKind::Source(source) => {
            source.column_sql.get(index).and_then(Option::as_deref).map(|sql| (sql, true))
        }
        ObjectKind::View(_) | ObjectKind::MaterializedView(_) | ObjectKind::Sink(_) => None,
    }
}

fn relkind(object: &Object) -> &'static str {
    match object.kind {
        ObjectKind::Table(_) => "r",
        ObjectKind::View(_) => "v",
        ObjectKind::MaterializedView(_) => "m",
        // A source is rows that live elsewhere: Postgres's foreign table. Sinks are not listed.
        ObjectKind::Source(_) | ObjectKind::Sink(_) => "f",
    }
}

fn class_row(oid: i64, name: String, schema: i64, kind: &'static str, columns: usize) -> Row {
    vec![
        ("oid", oid.into()),
        ("relname", name.into()),
        ("relnamespace", schema.into()),
        ("relowner", ROLE_OID.into()),
        ("reltuples", Cell::Float(-1.0)),
        ("relpersistence", "p".into()),
        ("relkind", kind.into()),
        ("relnatts", (columns as i64).into()),
        ("relispopulated", true.into()),
        ("relreplident", "d".into()),
    ]
}

fn class_rows(facts: &SystemFacts, object: &Object) -> Vec<Row> {
    let schema = schema_oid(facts.database, &object.name.schema);
    let key = primary_key(object);
    let mut row = class_row(
        relation_oid(object.id),
        object.name.name.clone(),
        schema,
        relkind(object),
        object.schema.fields().len(),
    );
    let stored = matches!(object.kind, ObjectKind::Table(_) | ObjectKind::MaterializedView(_));
    row.push(("relam", if stored { TABLE_ACCESS_METHOD_OID } else { 0 }.into()));
    let indexes: Vec<_> = facts.catalog.indexes_of(object.id).collect();
    row.push(("relhasindex", (!key.is_empty() || !indexes.is_empty()).into()));
    row.push((
        "relhasrules",
        matches!(object.kind, ObjectKind::View(_) | ObjectKind::MaterializedView(_)).into(),
    ));
    let of_key =
        (!key.is_empty()).then(|| (index_oid(object.id), primary_key_name(object), key.len()));
    let others = indexes.iter().map(|i| (relation_oid(i.id), i.name.clone(), i.columns.len()));
    let mut rows = vec![row];
    for (oid, name, columns) in of_key.into_iter().chain(others) {
        let mut index = class_row(oid, name, schema, "i", columns);
        index.push(("relam", INDEX_ACCESS_METHOD_OID.into()));
        rows.push(index);
    }
    rows
}

fn attribute_rows(facts: &SystemFacts, object: &Object) -> Vec<Row> {
    let oid = relation_oid(object.id);
    let mut rows: Vec<Row> = object
        .schema
        .fields()
        .iter()
        .enumerate()
        .map(|(index, field)| {
            let default = column_default(object, index);
            let generated = if default.is_some_and(|d| d.1) { "s" } else { "" };
            let mut row = attribute_row(oid, index, field, default.is_some(), generated);
            if matches!(object.kind, ObjectKind::View(_) | ObjectKind::MaterializedView(_)) {
                // As in Postgres: what a query gives is not declared.
                row.retain(|(name, _)| *name != "attnotnull");
            }
            row
        })
        .collect();
    for (place, column) in primary_key(object).iter().enumerate() {
        let field = object.schema.field(*column);
        rows.push(attribute_row(index_oid(object.id), place, field, false, ""));
    }
    for index in facts.catalog.indexes_of(object.id) {
        for (place, column) in index.columns.iter().enumerate() {
            let field = object.schema.field(*column);
            rows.push(attribute_row(relation_oid(index.id), place, field, false, ""));
        }
    }
    rows
}

fn attribute_row(
    relation: i64,
    index: usize,
    field: &Field,
    has_default: bool,
    generated: &'static str,
) -> Row {
    let sql_type = SqlType::of_field(field).unwrap_or(SqlType::Text);
    let oid = field_oid(field).map_or(type_oid(&sql_type), i64::from);
    let stored = type_fact(oid);
    vec![
        ("attrelid", relation.into()),
        ("attname", field.name().clone().into()),
        ("atttypid", oid.into()),
        ("attstattarget", (-1).into()),
        ("attlen", stored.map_or(-1, |t| t.length).into()),
        ("attnum", (index as i64 + 1).into()),
        ("attndims", i64::from(matches!(sql_type, SqlType::Array(_))).into()),
        ("attcacheoff", (-1).into()),
        ("atttypmod", type_modifier(field).into()),
        ("attbyval", stored.is_some_and(|t| t.by_value).into()),
        ("attalign", stored.map_or("i", |t| t.align).into()),
        ("attstorage", stored.map_or("x", |t| t.storage).into()),
        ("attcompression", "".into()),
        ("attnotnull", (!field.is_nullable()).into()),
        ("atthasdef", has_default.into()),
        ("attidentity", "".into()),
        ("attgenerated", generated.into()),
        ("attislocal", true.into()),
        ("attcollation", stored.map_or(0, |t| t.collation).into()),
    ]
}

/// The type's id in `pg_type`.
fn type_oid(sql_type: &SqlType) -> i64 {
    i64::from(sql_type.oid())
}

/// Precision and scale of a numeric, as Postgres packs them, or the column's modifier; -1 for none.
pub fn type_modifier(field: &Field) -> i64 {
    if let Some(modifier) = Modifier::of_field(field) {
        return modifier.number();
    }
    match SqlType::of_field(field) {
        Some(SqlType::Numeric(precision, scale)) if (precision, scale) != NUMERIC_DEFAULT => {
            ((i64::from(precision) << 16) | (i64::from(scale) & 0x7ff)) + 4
        }
        _ => -1,
    }
}

fn default_rows(object: &Object) -> Vec<Row> {
    (0..object.schema.fields().len())
        .filter_map(|index| {
            let (sql, _) = column_default(object, index)?;
            let relation = relation_oid(object.id);
            Some(vec![
                ("oid", name_oid(&["default", &relation.to_string(), &index.to_string()]).into()),
                ("adrelid", relation.into()),
                ("adnum", (index as i64 + 1).into()),
                ("adbin", sql.to_owned().into()),
            ])
        })
        .collect()
}

fn key_numbers(object: &Object) -> Vec<i64> {
    primary_key(object).iter().map(|column| *column as i64 + 1).collect()
}

fn constraint_row(facts: &SystemFacts, object: &Object) -> Option<Row> {
    if primary_key(object).is_empty() {
        return None;
    }
    Some(vec![
        ("oid", constraint_oid(object.id).into()),
        ("conname", primary_key_name(object).into()),
        ("connamespace", schema_oid(facts.database, &object.name.schema).into()),
        ("contype", "p".into()),
        ("convalidated", true.into()),
        ("conrelid", relation_oid(object.id).into()),
        ("conindid", index_oid(object.id).into()),
        ("confupdtype", " ".into()),
        ("confdeltype", " ".into()),
        ("confmatchtype", " ".into()),
        ("conislocal", true.into()),
        ("connoinherit", true.into()),
        ("conkey", Cell::Ints(key_numbers(object))),
    ])
}

fn index_rows(facts: &SystemFacts, object: &Object) -> Vec<Row> {
    let key = key_numbers(object);
    let of_key = (!key.is_empty()).then(|| index_row(object, index_oid(object.id), key, true));
    let others = facts.catalog.indexes_of(object.id).map(|index| {
        let columns = index.columns.iter().map(|column| *column as i64 + 1).collect();
        index_row(object, relation_oid(index.id), columns, false)
    });
    of_key.into_iter().chain(others).collect()
}

fn index_row(object: &Object, oid: i64, key: Vec<i64>, primary: bool) -> Row {
    vec![
        ("indexrelid", oid.into()),
        ("indrelid", relation_oid(object.id).into()),
        ("indnatts", (key.len() as i64).into()),
        ("indnkeyatts", (key.len() as i64).into()),
        ("indisunique", primary.into()),
        ("indisprimary", primary.into()),
        ("indimmediate", true.into()),
        ("indisvalid", true.into()),
        ("indisready", true.into()),
        ("indislive", true.into()),
        ("indcollation", Cell::Ints(vec![0; key.len()])),
        ("indclass", Cell::Ints(vec![0; key.len()])),
        ("indoption", Cell::Ints(vec![0; key.len()])),
        ("indkey", Cell::Ints(key)),
    ]
}

/// The statement that makes an index.
pub fn definition_of_index(object: &Object, index: &IndexObject) -> String {
    let columns: Vec<String> = index
        .columns
        .iter()
        .map(|column| quote_ident(object.schema.field(*column).name()))
        .collect();
    format!(
        "CREATE INDEX {} ON {}.{} USING hash ({})",
        quote_ident(&index.name),
        quote_ident(&object.name.schema),
        quote_ident(&object.name.name),
        columns.join(", ")
    )
}

/// The statement that would make a primary key's index.
pub fn index_definition(object: &Object) -> Option<String> {
    let key = primary_key(object);
    if key.is_empty() {
        return None;
    }
    let columns: Vec<&str> =
        key.iter().map(|column| object.schema.field(*column).name().as_str()).collect();
    Some(format!(
        "CREATE UNIQUE INDEX {} ON {}.{} USING hash ({})",
        primary_key_name(object),
        object.name.schema,
        object.name.name,
        columns.join(", ")
    ))
}

/// Name and definition of each index of an object, that of its primary key first.
pub fn indexes(catalog: &Catalog, object: &Object) -> Vec<(String, String)> {
    let of_key = index_definition(object).map(|sql| (primary_key_name(object), sql));
    let others = catalog.indexes_of(object.id);
    let others = others.map(|index| (index.name.clone(), definition_of_index(object, index)));
    of_key.into_iter().chain(others).collect()
}

fn index_view_rows(facts: &SystemFacts, object: &Object) -> Vec<Row> {
    let row = |(name, sql): (String, String)| {
        vec![
            ("schemaname", object.name.schema.clone().into()),
            ("tablename", object.name.name.clone().into()),
            ("indexname", name.into()),
            ("indexdef", sql.into()),
        ]
    };
    indexes(facts.catalog, object).into_iter().map(row).collect()
}

fn description_rows(facts: &SystemFacts, object: &Object) -> Vec<Row> {
    facts
        .catalog
        .comments(object.id)
        .map(|(column, text)| {
            vec![
                ("objoid", relation_oid(object.id).into()),
                ("classoid", 1259.into()),
                ("objsubid", column.map_or(0, |c| c as i64 + 1).into()),
                ("description", text.to_owned().into()),
            ]
        })
        .collect()
}

fn namespace_row(facts: &SystemFacts, schema: &str) -> Row {
    vec![
        ("oid", schema_oid(facts.database, schema).into()),
        ("nspname", schema.to_owned().into()),
        ("nspowner", ROLE_OID.into()),
    ]
}

fn database_row(name: &str) -> Row {
    vec![
        ("oid", database_oid(name).into()),
        ("datname", name.to_owned().into()),
        ("datdba", ROLE_OID.into()),
        ("encoding", 6.into()),
        ("datlocprovider", "c".into()),
        ("datallowconn", true.into()),
        ("datconnlimit", (-1).into()),
        ("dattablespace", DEFAULT_TABLESPACE_OID.into()),
        ("datcollate", "C".into()),
        ("datctype", "C.UTF-8".into()),
    ]
}

fn role_row(facts: &SystemFacts) -> Row {
    vec![
        ("oid", ROLE_OID.into()),
        ("rolname", facts.user.to_owned().into()),
        ("rolsuper", true.into()),
        ("rolinherit", true.into()),
        ("rolcreaterole", true.into()),
        ("rolcreatedb", true.into()),
        ("rolcanlogin", true.into()),
        ("rolbypassrls", true.into()),
        ("rolconnlimit", (-1).into()),
    ]
}

fn user_row(facts: &SystemFacts) -> Row {
    vec![
        ("usename", facts.user.to_owned().into()),
        ("usesysid", ROLE_OID.into()),
        ("usecreatedb", true.into()),
        ("usesuper", true.into()),
        ("usebypassrls", true.into()),
    ]
}

fn access_methods() -> Vec<Row> {
    [(TABLE_ACCESS_METHOD_OID, "millstream", "t"), (INDEX_ACCESS_METHOD_OID, "hash", "i")]
        .into_iter()
        .map(|(oid, name, kind)| {
            vec![("oid", oid.into()), ("amname", name.into()), ("amtype", kind.into())]
        })
        .collect()
}

fn collation_rows() -> Vec<Row> {
    [(DEFAULT_COLLATION_OID, "default", "d"), (950, "C", "c"), (951, "POSIX", "c")]
        .into_iter()
        .map(|(oid, name, provider)| {
            vec![
                ("oid", oid.into()),
                ("collname", name.into()),
                ("collnamespace", 11.into()),
                ("collowner", ROLE_OID.into()),
                ("collprovider", provider.into()),
                ("collisdeterministic", true.into()),
                ("collencoding", (-1).into()),
                ("collcollate", "C".into()),
                ("collctype", "C".into()),
            ]
        })
        .collect()
}

fn language_row() -> Row {
    vec![
        ("oid", 14.into()),
        ("lanname", "sql".into()),
        ("lanowner", ROLE_OID.into()),
        ("lanpltrusted", true.into()),
    ]
}

/// Connectors in use, each a foreign data wrapper with one server of its name.
fn connectors<'a>(facts: &SystemFacts<'a>) -> Vec<&'a str> {
    let mut names: Vec<&str> = own_objects(facts)
        .filter_map(|o| match &o.kind {
            ObjectKind::Source(source) => Some(source.connector.as_str()),
            _ => None,
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn wrapper_rows(facts: &SystemFacts) -> Vec<Row> {
    connectors(facts)
        .into_iter()
        .map(|name| {
            vec![
                ("oid", name_oid(&["wrapper", name]).into()),
                ("fdwname", name.to_owned().into()),
                ("fdwowner", ROLE_OID.into()),
            ]
        })
        .collect()
}

fn server_rows(facts: &SystemFacts) -> Vec<Row> {
    connectors(facts)
        .into_iter()
        .map(|name| {
            vec![
                ("oid", name_oid(&["server", name]).into()),
                ("srvname", name.to_owned().into()),
                ("srvowner", ROLE_OID.into()),
                ("srvfdw", name_oid(&["wrapper", name]).into()),
            ]
        })
        .collect()
}

fn foreign_table_row(object: &Object) -> Option<Row> {
    let ObjectKind::Source(source) = &object.kind else { return None };
    Some(vec![
        ("ftrelid", relation_oid(object.id).into()),
        ("ftserver", name_oid(&["server", &source.connector]).into()),
        ("ftoptions", option_texts(&source.options).into()),
    ])
}

fn matview_row(facts: &SystemFacts, object: &Object) -> Option<Row> {
    let ObjectKind::MaterializedView(view) = &object.kind else { return None };
    Some(vec![
        ("schemaname", object.name.schema.clone().into()),
        ("matviewname", object.name.name.clone().into()),
        ("matviewowner", facts.user.to_owned().into()),
        ("ispopulated", true.into()),
        ("definition", view.query_sql.clone().into()),
    ])
}

fn view_row(facts: &SystemFacts, object: &Object) -> Option<Row> {
    let ObjectKind::View(view) = &object.kind else { return None };
    Some(vec![
        ("schemaname", object.name.schema.clone().into()),
        ("viewname", object.name.name.clone().into()),
        ("viewowner", facts.user.to_owned().into()),
        ("definition", view.query_sql.clone().into()),
    ])
}

fn table_row(facts: &SystemFacts, object: &Object) -> Row {
    vec![
        ("schemaname", object.name.schema.clone().into()),
        ("tablename", object.name.name.clone().into()),
        ("tableowner", facts.user.to_owned().into()),
        ("hasindexes", (!primary_key(object).is_empty()).into()),
    ]
}

fn statistics_row(object: &Object) -> Row {
    vec![
        ("relid", relation_oid(object.id).into()),
        ("schemaname", object.name.schema.clone().into()),
        ("relname", object.name.name.clone().into()),
    ]
}

fn setting_row(setting: &super::system_views::SettingFact) -> Row {
    vec![
        ("name", setting.name.clone().into()),
        ("setting", setting.value.clone().into()),
        ("category", "Millstream".into()),
        ("short_desc", setting.doc.into()),
        ("context", if setting.settable { "user" } else { "internal" }.into()),
        ("vartype", setting.kind.into()),
        ("source", if setting.value == setting.default { "default" } else { "session" }.into()),
        ("boot_val", setting.default.clone().into()),
        ("reset_val", setting.default.clone().into()),
    ]
}

fn activity_row(session: &super::system_views::SessionFact) -> Row {
    vec![
        ("datid", database_oid(&session.database).into()),
        ("datname", session.database.clone().into()),
        ("pid", i64::from(session.process_id).into()),
        ("leader_pid", Cell::Null),
        ("usesysid", ROLE_OID.into()),
        ("usename", session.user.clone().into()),
        ("application_name", session.application_name.clone().into()),
        ("client_port", (-1).into()),
        ("backend_start", Cell::Time(session.connected_at_us)),
        ("query_start", session.query_started_at_us.map_or(Cell::Null, Cell::Time)),
        ("state", session.state.into()),
        ("backend_xid", Cell::Null),
        ("backend_xmin", Cell::Null),
        ("query_id", Cell::Null),
        ("query", session.query.clone().into()),
        ("backend_type", "client backend".into()),
    ]
}

/// One line of `pg_type.txt`.
#[derive(Debug)]
pub struct TypeFact {
    pub oid: i64,
    pub name: &'static str,
    length: i64,
    by_value: bool,
    kind: &'static str,
    category: &'static str,
    preferred: bool,
    delimiter: &'static str,
    element: i64,
    array: i64,
    functions: [&'static str; 4],
    align: &'static str,
    storage: &'static str,
    collation: i64,
}

impl TypeFact {
    /// The id of its array type; 0 for none.
    pub fn array(&self) -> i64 {
        self.array
    }
}

/// The types in `pg_type`.
pub fn type_facts() -> &'static [TypeFact] {
    static FACTS: OnceLock<Vec<TypeFact>> = OnceLock::new();
    FACTS.get_or_init(|| {
        include_str!("pg_type.txt")
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(parse_type)
            .collect()
    })
}

fn parse_type(line: &'static str) -> TypeFact {
    let words: Vec<&'static str> = line.split(' ').collect();
    let number = |index: usize| -> i64 { words[index].parse().expect("pg_type.txt has numbers") };
    TypeFact {
        oid: number(0),
        name: words[1],
        length: number(2),
        by_value: words[3] == "t",
        kind: words[4],
        category: words[5],
        preferred: words[6] == "t",
        delimiter: words[7],
        element: number(8),
        array: number(9),
        functions: [words[10], words[11], words[12], words[13]],
        align: words[14],
        storage: words[15],
        collation: number(16),
    }
}

/// The type with this id.
pub fn type_fact(oid: i64) -> Option<&'static TypeFact> {
    type_facts().iter().find(|t| t.oid == oid)
}

fn type_rows() -> Vec<Row> {
    type_facts()
        .iter()
        .map(|t| {
            vec![
                ("oid", t.oid.into()),
                ("typname", t.name.into()),
                ("typnamespace", 11.into()),
                ("typowner", ROLE_OID.into()),
                ("typlen", t.length.into()),
                ("typbyval", t.by_value.into()),
                ("typtype", t.kind.into()),
                ("typcategory", t.category.into()),
                ("typispreferred", t.preferred.into()),
                ("typisdefined", true.into()),
                ("typdelim", t.delimiter.into()),
                (
                    "typsubscript",
                    if t.element != 0 { "array_subscript_handler" } else { "-" }.into(),
                ),
                ("typelem", t.element.into()),
                ("typarray", t.array.into()),
                ("typinput", t.functions[0].into()),
                ("typoutput", t.functions[1].into()),
                ("typreceive", t.functions[2].into()),
                ("typsend", t.functions[3].into()),
                ("typmodin", "-".into()),
                ("typmodout", "-".into()),
                ("typanalyze", "-".into()),
                ("typalign", t.align.into()),
                ("typstorage", t.storage.into()),
                ("typtypmod", (-1).into()),
                ("typcollation", t.collation.into()),
            ]
        })
        .collect()
}
