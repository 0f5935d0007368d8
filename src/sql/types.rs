//! The types that a cast may name, and the names that Postgres gives unnamed casts.

use datafusion::sql::sqlparser::ast::{ArrayElemTypeDef, DataType};

use crate::sql::parse::name::normalize;
use crate::sql::parse::types;
use crate::types::error::Result;
use crate::types::sql_type::SqlType;

/// The type that a type name in an expression means: those of columns, and those of Postgres's
/// system catalog, which clients cast to when they introspect.
///
/// # Errors
/// As [`types::sql_type_of`].
pub fn sql_type_of(data_type: &DataType) -> Result<SqlType> {
    match catalog_type(data_type) {
        Some(sql_type) => Ok(sql_type),
        None => types::sql_type_of(data_type),
    }
}

/// Object ids and their aliases are numbers here.
fn catalog_type(data_type: &DataType) -> Option<SqlType> {
    let last = match data_type {
        DataType::Regclass => return Some(SqlType::Oid),
        DataType::Array(ArrayElemTypeDef::SquareBracket(item, _)) => {
            return Some(SqlType::Array(Box::new(catalog_type(item)?)));
        }
        DataType::Custom(name, _) => normalize(name.0.last()?.as_ident()?),
        _ => return None,
    };
    Some(match last.as_str() {
        "oid" | "regclass" | "regtype" | "regproc" | "regprocedure" | "regnamespace"
        | "regrole" | "regoper" | "regoperator" | "regconfig" | "regdictionary" | "xid" | "cid" => {
            SqlType::Oid
        }
        "char" | "cstring" | "unknown" | "pg_node_tree" | "aclitem" => SqlType::Text,
        "bytea" => SqlType::Bytea,
        "date" => SqlType::Date,
        "time" => SqlType::Time,
        "interval" => SqlType::Interval,
        "uuid" => SqlType::Uuid,
        "json" => SqlType::Json,
        "jsonb" => SqlType::Jsonb,
        _ => return None,
    })
}

/// Postgres's internal name of the type that the text names: what an unnamed cast is called.
pub fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Varchar(_) | DataType::CharacterVarying(_) | DataType::CharVarying(_) => {
            return "varchar".to_owned();
        }
        DataType::Char(_) | DataType::Character(_) => return "bpchar".to_owned(),
        DataType::Custom(name, _) => {
            return name
                .0
                .last()
                .and_then(|part| part.as_ident())
                .map(normalize)
                .unwrap_or_default();
        }
        _ => {}
    }
    match sql_type_of(data_type) {
        Ok(sql_type) => internal_name(&sql_type),
        Err(_) => data_type.to_string().to_lowercase(),
    }
}

fn internal_name(sql_type: &SqlType) -> String {
    match sql_type {
        SqlType::Boolean => "bool",
        SqlType::Int2 => "int2",
        SqlType::Int4 => "int4",
        SqlType::Int8 => "int8",
        SqlType::Float4 => "float4",
        SqlType::Float8 => "float8",
        SqlType::Numeric(_, _) => "numeric",
        SqlType::Time => "time",
        SqlType::Timestamp => "timestamp",
        SqlType::Timestamptz => "timestamptz",
        SqlType::Array(item) => return internal_name(item),
        SqlType::Record(_) => "row",
        other => return other.to_string(),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    fn read(text: &str) -> DataType {
        let dialect = PostgreSqlDialect {};
        Parser::new(&dialect)
            .try_with_sql(text)
            .and_then(|mut parser| parser.parse_data_type())
            .expect("a type name")
    }

    #[test]
    fn casts_know_the_types_of_the_system_catalog() {
        for (text, expected) in [
            ("pg_catalog.regclass", "oid"),
            ("pg_catalog.int8", "bigint"),
            ("oid", "oid"),
            ("oid[]", "oid[]"),
            ("pg_catalog.\"char\"", "text"),
            ("numeric(12, 2)", "numeric(12,2)"),
        ] {
            assert_eq!(sql_type_of(&read(text)).expect(text).to_string(), expected, "{text}");
        }
    }

    #[test]
    fn unnamed_casts_are_called_by_internal_names() {
        for (text, expected) in [
            ("integer", "int4"),
            ("double precision", "float8"),
            ("character varying(3)", "varchar"),
            ("timestamp with time zone", "timestamptz"),
            ("pg_catalog.regclass", "regclass"),
        ] {
            assert_eq!(type_name(&read(text)), expected, "{text}");
        }
    }
}
