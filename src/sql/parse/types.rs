//! SQL's type names to [`SqlType`]: Postgres's names first, Flink's and RisingWave's where they do
//! not collide.

use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, CharacterLength, DataType, ExactNumberInfo, ObjectName, StructField,
    TimezoneInfo,
};

use crate::sql::parse::name::normalize;
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::{Modifier, NUMERIC_DEFAULT, SqlType};

/// Digits that a numeric can have.
const NUMERIC_PRECISION_MAX: u64 = 38;
/// Digits of a second that are kept: microseconds.
const TIME_PRECISION_MAX: u64 = 6;

/// The type that a type name means.
///
/// # Errors
/// SQLSTATE 0A000 for a type that Millstream does not have, 42704 for one that nobody has, 22023
/// for a precision that makes no sense.
pub fn sql_type_of(data_type: &DataType) -> Result<SqlType> {
    Ok(match data_type {
        DataType::Bool | DataType::Boolean => SqlType::Boolean,

        // Flink's TINYINT has one byte; the next larger type holds it.
        DataType::TinyInt(_) | DataType::SmallInt(_) | DataType::Int2(_) | DataType::Int16 => {
            SqlType::Int2
        }
        DataType::Int(_) | DataType::Integer(_) | DataType::Int4(_) | DataType::Int32 => {
            SqlType::Int4
        }
        // In Postgres INT8 counts bytes.
        DataType::BigInt(_) | DataType::Int8(_) | DataType::Int64 => SqlType::Int8,

        DataType::Real | DataType::Float4 | DataType::Float32 => SqlType::Float4,
        DataType::DoublePrecision
        | DataType::Double(ExactNumberInfo::None)
        | DataType::Float8
        | DataType::Float64 => SqlType::Float8,
        DataType::Float(info) => float_type(info)?,

        DataType::Numeric(info) | DataType::Decimal(info) | DataType::Dec(info) => numeric(info)?,

        DataType::Text
        | DataType::Character(_)
        | DataType::Char(_)
        | DataType::CharacterVarying(_)
        | DataType::CharVarying(_)
        | DataType::Varchar(_)
        | DataType::String(_) => SqlType::Text,
        DataType::Bytea
        | DataType::Bytes(_)
        | DataType::Binary(_)
        | DataType::Varbinary(_)
        | DataType::Blob(_) => SqlType::Bytea,

        DataType::Date => SqlType::Date,
        DataType::Time(precision, zone) => {
            fraction(*precision)?;
            match zone {
                TimezoneInfo::None | TimezoneInfo::WithoutTimeZone => SqlType::Time,
                TimezoneInfo::WithTimeZone | TimezoneInfo::Tz => {
                    return Err(Error::unsupported("type time with time zone")
                        .hint("Use timestamp with time zone, or time."));
                }
            }
        }
        DataType::Timestamp(precision, zone) => {
            fraction(*precision)?;
            match zone {
                TimezoneInfo::None | TimezoneInfo::WithoutTimeZone => SqlType::Timestamp,
                TimezoneInfo::WithTimeZone | TimezoneInfo::Tz => SqlType::Timestamptz,
            }
        }
        DataType::TimestampNtz(precision) => {
            fraction(*precision)?;
            SqlType::Timestamp
        }
        DataType::Interval { .. } => SqlType::Interval,

        DataType::Uuid => SqlType::Uuid,
        DataType::JSON => SqlType::Json,
        DataType::JSONB => SqlType::Jsonb,

        DataType::Array(
            ArrayElemTypeDef::AngleBracket(item)
            | ArrayElemTypeDef::SquareBracket(item, _)
            | ArrayElemTypeDef::Parenthesis(item),
        ) => SqlType::Array(Box::new(sql_type_of(item)?)),
        DataType::Struct(fields, _) => record(fields)?,
        DataType::Custom(name, modifiers) => custom(name, modifiers)?,
        other => {
            return Err(Error::unsupported(format_args!(
                "type {}",
                other.to_string().to_ascii_lowercase()
            ))
            .hint(hint_for(other)));
        }
    })
}

/// What a type's name says in parentheses, besides the digits of a numeric; `char` alone is
/// `char(1)`.
pub fn modifier(data_type: &DataType) -> Option<Modifier> {
    let length = |length: &CharacterLength| match length {
        CharacterLength::IntegerLength { length, .. } => i64::try_from(*length).ok(),
        CharacterLength::Max => None,
    };
    match data_type {
        DataType::Character(None) | DataType::Char(None) => Some(Modifier::Char(1)),
        DataType::Character(Some(n)) | DataType::Char(Some(n)) => length(n).map(Modifier::Char),
        DataType::CharacterVarying(Some(n))
        | DataType::CharVarying(Some(n))
        | DataType::Varchar(Some(n)) => length(n).map(Modifier::Varchar),
        DataType::Time(Some(digits), _)
        | DataType::Timestamp(Some(digits), _)
        | DataType::TimestampNtz(Some(digits)) => {
            i64::try_from(*digits).ok().map(Modifier::Fraction)
        }
        _ => None,
    }
}

/// `float(n)` counts binary digits.
fn float_type(info: &ExactNumberInfo) -> Result<SqlType> {
    match info {
        ExactNumberInfo::None => Ok(SqlType::Float8),
        ExactNumberInfo::Precision(1..=24) => Ok(SqlType::Float4),
        ExactNumberInfo::Precision(25..=53) => Ok(SqlType::Float8),
        ExactNumberInfo::Precision(0) => {
            Err(invalid("precision for type float must be at least 1 bit"))
        }
        ExactNumberInfo::Precision(_) => {
            Err(invalid("precision for type float must be less than 54 bits"))
        }
        ExactNumberInfo::PrecisionAndScale(_, _) => {
            Err(invalid("type float has no scale").hint("Use numeric(precision, scale)."))
        }
    }
}

fn numeric(info: &ExactNumberInfo) -> Result<SqlType> {
    let (precision, scale) = match *info {
        ExactNumberInfo::None => {
            return Ok(SqlType::Numeric(NUMERIC_DEFAULT.0, NUMERIC_DEFAULT.1));
        }
        ExactNumberInfo::Precision(precision) => (precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (precision, scale),
    };
    if precision == 0 {
        return Err(invalid("NUMERIC precision 0 must be between 1 and 38"));
    }
    if precision > NUMERIC_PRECISION_MAX {
        return Err(Error::unsupported(format_args!("numeric precision {precision}")).hint(
            "A numeric has at most 38 digits: use numeric(38, scale), or double precision for \
             larger magnitudes.",
        ));
    }
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(precision), Ok(scale)) if (0..=precision as i8).contains(&scale) => {
            Ok(SqlType::Numeric(precision, scale))
        }
        _ => Err(Error::unsupported(format_args!("numeric scale {scale}"))
            .hint(format!("The scale must be between 0 and the precision, {precision}."))),
    }
}

/// There are microseconds, and no smaller parts of a second.
fn fraction(precision: Option<u64>) -> Result<()> {
    match precision {
        Some(digits) if digits > TIME_PRECISION_MAX => {
            Err(Error::unsupported(format_args!("a time precision of {digits} digits"))
                .hint("Times have microseconds: use a precision of 6 or less."))
        }
        _ => Ok(()),
    }
}

fn record(fields: &[StructField]) -> Result<SqlType> {
    let mut named = Vec::with_capacity(fields.len());
    for (i, field) in fields.iter().enumerate() {
        let name = match &field.field_name {
            Some(ident) => normalize(ident),
            None => format!("f{}", i + 1),
        };
        if named.iter().any(|(other, _)| *other == name) {
            return Err(Error::user(
                SqlState::DUPLICATE_COLUMN,
                format!("field name \"{name}\" specified more than once"),
            ));
        }
        named.push((name, sql_type_of(&field.field_type)?));
    }
    Ok(SqlType::Record(named))
}

/// Types that sqlparser knows no keyword for.
fn custom(name: &ObjectName, modifiers: &[String]) -> Result<SqlType> {
    let parts: Vec<String> = name.0.iter().filter_map(|p| p.as_ident()).map(normalize).collect();
    let base = match parts.as_slice() {
        [base] => base.as_str(),
        [schema, base] if schema == "pg_catalog" => base.as_str(),
        _ => return Err(undefined(&parts.join("."))),
    };
    let precision = modifiers.first().and_then(|m| m.parse().ok());
    Ok(match base {
        "bpchar" | "name" | "text" | "varchar" if modifiers.is_empty() => SqlType::Text,
        "bool" => SqlType::Boolean,
        "int2" => SqlType::Int2,
        "int4" => SqlType::Int4,
        "int8" => SqlType::Int8,
        "float4" => SqlType::Float4,
        "float8" => SqlType::Float8,
        "numeric" => numeric(&ExactNumberInfo::None)?,
        "timestamp" => SqlType::Timestamp,
        "timestamptz" => SqlType::Timestamptz,
        "timestamp_ltz" => {
            fraction(precision)?;
            SqlType::Timestamptz
        }
        "serial" | "serial4" | "bigserial" | "serial8" | "smallserial" | "serial2" => {
            return Err(Error::unsupported(format_args!("type {base}"))
                .hint("Use bigint and supply the values, or a uuid DEFAULT gen_random_uuid()."));
        }
        "map" | "multiset" => {
            return Err(Error::unsupported(format_args!("type {base}"))
                .hint("Use jsonb, or an array of STRUCT<key, value>."));
        }
        "money" | "inet" | "cidr" | "macaddr" | "macaddr8" | "xml" | "hstore" | "citext"
        | "point" | "line" | "lseg" | "box" | "path" | "polygon" | "circle" | "int4range"
        | "int8range" | "numrange" | "tsrange" | "tstzrange" | "daterange" | "oid" | "regproc"
        | "regtype" | "pg_lsn" | "variant" | "raw" => {
            return Err(Error::unsupported(format_args!("type {base}"))
                .hint("Store the value as text or jsonb."));
        }
        _ => return Err(undefined(&parts.join("."))),
    })
}

fn hint_for(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Datetime(_) | DataType::Datetime64(_, _) => "Use timestamp.",
        DataType::Map(_, _) => "Use jsonb, or an array of STRUCT<key, value>.",
        DataType::Enum(_, _) | DataType::Set(_) => "Use text.",
        DataType::Array(ArrayElemTypeDef::None) => "Name the element type: integer[].",
        DataType::Bit(_) | DataType::BitVarying(_) | DataType::VarBit(_) => "Use bytea or text.",
        DataType::Double(_) => "Use double precision, or numeric(precision, scale).",
        _ => "The types are listed in docs/sql/types.md.",
    }
}

fn undefined(name: &str) -> Error {
    Error::user(SqlState::UNDEFINED_OBJECT, format!("type \"{name}\" does not exist"))
}

fn invalid(message: &str) -> Error {
    Error::user(SqlState::INVALID_PARAMETER_VALUE, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::parse::parse;
    use crate::sql::statement::Statement;

    fn column(type_name: &str) -> Result<(String, Option<Modifier>)> {
        let sql = format!("CREATE TABLE t (a {type_name})");
        let statement = parse(&sql)?.pop().expect("a statement").statement;
        let Statement::CreateTable(table) = statement else { panic!("{sql}") };
        let column = &table.columns[0];
        let sql_type = column.sql_type.as_ref().expect("a type");
        let shown = match sql_type {
            SqlType::Record(fields) => fields
                .iter()
                .map(|(name, field)| format!("{name} {field}"))
                .collect::<Vec<_>>()
                .join(", "),
            other => other.to_string(),
        };
        Ok((shown, column.modifier))
    }

    #[test]
    fn names_of_postgres_flink_and_risingwave() {
        let rows = [
            ("bool", "boolean"),
            ("boolean", "boolean"),
            ("tinyint", "smallint"),
            ("int2", "smallint"),
            ("int", "integer"),
            ("INTEGER", "integer"),
            ("int4", "integer"),
            ("int8", "bigint"),
            ("bigint", "bigint"),
            ("pg_catalog.int8", "bigint"),
            ("real", "real"),
            ("float4", "real"),
            ("float(24)", "real"),
            ("float(25)", "double precision"),
            ("float", "double precision"),
            ("double", "double precision"),
            ("double precision", "double precision"),
            ("numeric", "numeric"),
            ("decimal(38)", "numeric(38,0)"),
            ("dec(10, 2)", "numeric(10,2)"),
            ("text", "text"),
            ("STRING", "text"),
            ("name", "text"),
            ("bytea", "bytea"),
            ("BYTES", "bytea"),
            ("varbinary(10)", "bytea"),
            ("date", "date"),
            ("time", "time without time zone"),
            ("timestamp", "timestamp without time zone"),
            ("timestamp without time zone", "timestamp without time zone"),
            ("timestamp with time zone", "timestamp with time zone"),
            ("timestamptz", "timestamp with time zone"),
            ("TIMESTAMP_LTZ", "timestamp with time zone"),
            ("TIMESTAMP WITH LOCAL TIME ZONE", "timestamp with time zone"),
            ("interval", "interval"),
            ("interval day to second", "interval"),
            ("uuid", "uuid"),
            ("json", "json"),
            ("jsonb", "jsonb"),
            ("int[]", "integer[]"),
            ("int[3][]", "integer[][]"),
            ("int ARRAY[4]", "integer[]"),
            ("ARRAY<ARRAY<text>>", "text[][]"),
            ("STRUCT<x int, \"Y\" ARRAY<STRUCT<z int>>>", "x integer, Y record[]"),
            ("ROW<x int, y ROW<z int>>", "x integer, y record"),
            ("ROW(x int, y ROW(z int) ARRAY)", "x integer, y record[]"),
        ];
        for (name, expected) in rows {
            assert_eq!(column(name).expect(name), (expected.to_owned(), None), "{name}");
        }
    }

    #[test]
    fn what_stands_in_parentheses_is_kept() {
        let rows = [
            ("varchar(10)", "text", Some(Modifier::Varchar(10))),
            ("character varying(7)", "text", Some(Modifier::Varchar(7))),
            ("char(3)", "text", Some(Modifier::Char(3))),
            ("char", "text", Some(Modifier::Char(1))),
            ("character", "text", Some(Modifier::Char(1))),
            ("varchar", "text", None),
            ("time(0)", "time without time zone", Some(Modifier::Fraction(0))),
            ("timestamp(3)", "timestamp without time zone", Some(Modifier::Fraction(3))),
            (
                "timestamp(3) with time zone",
                "timestamp with time zone",
                Some(Modifier::Fraction(3)),
            ),
        ];
        for (name, sql_type, modifier) in rows {
            assert_eq!(column(name).expect(name), (sql_type.to_owned(), modifier), "{name}");
        }
    }
}
