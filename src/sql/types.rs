//! The names of types and identifiers, as Postgres reads and prints them.

use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, DataType, ExactNumberInfo, Ident, TimezoneInfo,
};

use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::{NUMERIC_DEFAULT, SqlType};

/// An identifier as it is stored: lower case unless quoted.
pub fn fold(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// The type that a type name in SQL text means.
///
/// # Errors
/// SQLSTATE 42704 for a type that does not exist, 0A000 for one that Millstream lacks, 22023 for
/// a precision that numeric cannot have.
pub fn sql_type_of(data_type: &DataType) -> Result<SqlType> {
    use DataType as D;
    Ok(match data_type {
        D::Boolean | D::Bool => SqlType::Boolean,
        D::SmallInt(None) | D::Int2(None) => SqlType::Int2,
        D::Int(None) | D::Integer(None) | D::Int4(None) => SqlType::Int4,
        D::BigInt(None) | D::Int8(None) => SqlType::Int8,
        D::Real | D::Float4 => SqlType::Float4,
        D::Float8 | D::DoublePrecision | D::Double(ExactNumberInfo::None) => SqlType::Float8,
        // float(p) counts binary digits: up to 24 are real.
        D::Float(ExactNumberInfo::Precision(digits)) if *digits <= 24 => SqlType::Float4,
        D::Float(_) => SqlType::Float8,
        D::Numeric(info) | D::Decimal(info) | D::Dec(info) => numeric(info)?,
        D::Text
        | D::Varchar(_)
        | D::CharacterVarying(_)
        | D::CharVarying(_)
        | D::Char(_)
        | D::Character(_)
        | D::String(_) => SqlType::Text,
        D::Bytea => SqlType::Bytea,
        D::Date => SqlType::Date,
        D::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => SqlType::Time,
        D::Time(_, _) => return Err(Error::unsupported("time with time zone")),
        D::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => SqlType::Timestamp,
        D::Timestamp(_, _) => SqlType::Timestamptz,
        D::Datetime(_) => SqlType::Timestamp,
        D::Interval { .. } => SqlType::Interval,
        D::Uuid => SqlType::Uuid,
        D::JSON => SqlType::Json,
        D::JSONB => SqlType::Jsonb,
        D::Array(
            ArrayElemTypeDef::SquareBracket(item, _)
            | ArrayElemTypeDef::AngleBracket(item)
            | ArrayElemTypeDef::Parenthesis(item),
        ) => SqlType::Array(Box::new(sql_type_of(item)?)),
        D::Regclass => SqlType::Int8,
        D::Custom(name, arguments) if arguments.is_empty() => {
            let last = name.0.last().and_then(|part| part.as_ident()).map(fold);
            let last = last.unwrap_or_default();
            named_type(&last).ok_or_else(|| {
                Error::user(SqlState::UNDEFINED_OBJECT, format!("type \"{last}\" does not exist"))
            })?
        }
        other => {
            let text = other.to_string().to_lowercase();
            return Err(Error::unsupported(format!("type {text}")));
        }
    })
}

/// Types that sqlparser knows by name only: Postgres's internal names, which may stand behind
/// `pg_catalog.`, and those of its system catalog.
fn named_type(name: &str) -> Option<SqlType> {
    Some(match name {
        "bool" => SqlType::Boolean,
        "int2" => SqlType::Int2,
        "int4" => SqlType::Int4,
        "int8" => SqlType::Int8,
        "float4" => SqlType::Float4,
        "float8" => SqlType::Float8,
        "numeric" => SqlType::Numeric(NUMERIC_DEFAULT.0, NUMERIC_DEFAULT.1),
        "text" | "varchar" | "bpchar" | "name" | "char" | "citext" | "cstring" | "unknown" => {
            SqlType::Text
        }
        "bytea" => SqlType::Bytea,
        "date" => SqlType::Date,
        "time" => SqlType::Time,
        "timestamp" => SqlType::Timestamp,
        "timestamptz" => SqlType::Timestamptz,
        "interval" => SqlType::Interval,
        "uuid" => SqlType::Uuid,
        "json" => SqlType::Json,
        "jsonb" => SqlType::Jsonb,
        // Object ids and their aliases are plain numbers here.
        "oid" | "regclass" | "regtype" | "regproc" | "regprocedure" | "regnamespace"
        | "regrole" | "xid" | "cid" => SqlType::Int8,
        _ => return None,
    })
}

fn numeric(info: &ExactNumberInfo) -> Result<SqlType> {
    let (precision, scale) = match info {
        ExactNumberInfo::None => {
            return Ok(SqlType::Numeric(NUMERIC_DEFAULT.0, NUMERIC_DEFAULT.1));
        }
        ExactNumberInfo::Precision(precision) => (*precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    let invalid = |message: String| Error::user(SqlState::INVALID_PARAMETER_VALUE, message);
    let digits = u8::try_from(precision).ok().filter(|p| (1..=NUMERIC_DEFAULT.0).contains(p));
    let digits = digits.ok_or_else(|| {
        invalid(format!(
            "NUMERIC precision {precision} must be between 1 and {}",
            NUMERIC_DEFAULT.0
        ))
    })?;
    let after_point =
        i8::try_from(scale).ok().filter(|s| (0..=precision as i64).contains(&i64::from(*s)));
    let after_point = after_point.ok_or_else(|| {
        invalid(format!("NUMERIC scale {scale} must be between 0 and precision {precision}"))
    })?;
    Ok(SqlType::Numeric(digits, after_point))
}

/// Postgres's internal name of the type that the text names: what an unnamed cast is called.
pub fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Varchar(_) | DataType::CharacterVarying(_) | DataType::CharVarying(_) => {
            return "varchar".to_owned();
        }
        DataType::Char(_) | DataType::Character(_) => return "bpchar".to_owned(),
        DataType::Custom(name, _) => {
            return name.0.last().and_then(|part| part.as_ident()).map(fold).unwrap_or_default();
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

    fn read(text: &str) -> Result<SqlType> {
        let dialect = PostgreSqlDialect {};
        let data_type = Parser::new(&dialect)
            .try_with_sql(text)
            .and_then(|mut parser| parser.parse_data_type())
            .expect("a type name");
        sql_type_of(&data_type)
    }

    #[test]
    fn type_names_mean_what_postgres_says() {
        for (text, expected) in [
            ("int", "integer"),
            ("pg_catalog.int8", "bigint"),
            ("float(24)", "real"),
            ("float", "double precision"),
            ("numeric(12, 2)", "numeric(12,2)"),
            ("numeric", "numeric"),
            ("numeric(5)", "numeric(5,0)"),
            ("character varying(10)", "text"),
            ("timestamp(3) with time zone", "timestamp with time zone"),
            ("uuid[]", "uuid[]"),
        ] {
            assert_eq!(read(text).expect(text).to_string(), expected, "{text}");
        }
    }

    #[test]
    fn types_that_are_not_there_say_so() {
        assert_eq!(read("nosuch").expect_err("unknown").sqlstate(), SqlState::UNDEFINED_OBJECT);
        assert_eq!(read("timetz").expect_err("lacking").sqlstate().0, "0A000");
        let error = read("numeric(39)").expect_err("too wide");
        assert_eq!(error.message(), "NUMERIC precision 39 must be between 1 and 38");
    }
}
