//! Postgres types and the Arrow columns that carry them.
//!
//! | SQL | Arrow |
//! |---|---|
//! | boolean | Boolean |
//! | smallint, integer, bigint | Int16, Int32, Int64 |
//! | real, double precision | Float32, Float64 |
//! | numeric(p,s) | Decimal128(p, s), p <= 38; without p, s: Decimal128(38, 10) |
//! | text, varchar, char | Utf8 |
//! | bytea | Binary |
//! | date, time | Date32, Time64(us) |
//! | timestamp, timestamptz | Timestamp(us), Timestamp(us, "UTC") |
//! | interval | Interval(MonthDayNano) |
//! | uuid | FixedSizeBinary(16), field marked `arrow.uuid` |
//! | json, jsonb | Utf8, field marked `arrow.json`, `millstream.jsonb` |
//! | t[] | List(t) |
//! | row types | Struct |
//! | oid (of the system catalog only) | UInt32 |
//!
//! What Arrow's types do not tell apart is told by the field's extension name.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, IntervalUnit, TimeUnit};

/// The field metadata key that names an extension type (Arrow's canonical one).
pub const EXTENSION_NAME: &str = "ARROW:extension:name";
const UUID: &str = "arrow.uuid";
const JSON: &str = "arrow.json";
const JSONB: &str = "millstream.jsonb";

/// The field metadata key of the n of a column `varchar(n)`, in characters.
const LENGTH_CHARS_MAX: &str = "millstream.length";
/// The extension name of `char(n)` is this, n, and a closing parenthesis: it follows a value through
/// a query, to where it is shown.
const CHAR: &str = "millstream.char(";
/// The field metadata key of the p of a column `timestamp(p)` or `time(p)`, in digits.
const FRACTION_DIGITS: &str = "millstream.fraction";

/// What a type's name says in parentheses, besides the digits of a numeric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modifier {
    /// `varchar(n)` takes at most so many characters.
    Varchar(i64),
    /// `char(n)` takes as many, is kept without the blanks at its end, and shown filled up.
    Char(i64),
    /// `timestamp(p)`, `timestamptz(p)`, `time(p)`: digits of the fraction of a second.
    Fraction(i64),
}

impl Modifier {
    /// That of a column.
    pub fn of_field(field: &Field) -> Option<Modifier> {
        let metadata = field.metadata();
        let char = metadata.get(EXTENSION_NAME).and_then(|name| name.strip_prefix(CHAR));
        if let Some(length) = char.and_then(|rest| rest.strip_suffix(')')?.parse().ok()) {
            return Some(Modifier::Char(length));
        }
        let number = |key: &str| metadata.get(key).and_then(|text| text.parse().ok());
        number(LENGTH_CHARS_MAX)
            .map(Modifier::Varchar)
            .or_else(|| number(FRACTION_DIGITS).map(Modifier::Fraction))
    }

    /// The field, marked with it.
    pub fn mark(self, field: Field) -> Field {
        let (key, value) = match self {
            Modifier::Varchar(length) => (LENGTH_CHARS_MAX, length.to_string()),
            Modifier::Char(length) => (EXTENSION_NAME, format!("{CHAR}{length})")),
            Modifier::Fraction(digits) => (FRACTION_DIGITS, digits.to_string()),
        };
        let mut metadata = field.metadata().clone();
        metadata.insert(key.to_owned(), value);
        field.with_metadata(metadata)
    }

    /// As Postgres counts it in `atttypmod`.
    pub fn number(self) -> i64 {
        match self {
            Modifier::Varchar(length) | Modifier::Char(length) => length + 4,
            Modifier::Fraction(digits) => digits,
        }
    }
}

/// The id in `pg_type` of a column's type, which tells `varchar(n)` and `char(n)` from text.
pub fn field_oid(field: &Field) -> Option<u32> {
    Some(match Modifier::of_field(field) {
        Some(Modifier::Varchar(_)) => 1043,
        Some(Modifier::Char(_)) => 1042,
        Some(Modifier::Fraction(_)) | None => SqlType::of_field(field)?.oid(),
    })
}

/// The type of a column with all that its name says, as Postgres prints it.
pub fn type_text(field: &Field) -> Option<String> {
    let sql_type = SqlType::of_field(field)?;
    Some(match (Modifier::of_field(field), sql_type) {
        (Some(Modifier::Varchar(n)), _) => format!("character varying({n})"),
        (Some(Modifier::Char(n)), _) => format!("character({n})"),
        (Some(Modifier::Fraction(p)), sql_type) => {
            sql_type.to_string().replacen(' ', &format!("({p}) "), 1)
        }
        (None, sql_type) => sql_type.to_string(),
    })
}

/// Precision and scale of `numeric` without either.
pub const NUMERIC_DEFAULT: (u8, i8) = (38, 10);

/// A type a column or parameter can have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SqlType {
    Boolean,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    /// Digits in all, digits after the point.
    Numeric(u8, i8),
    Text,
    Bytea,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Interval,
    Uuid,
    /// The number of an object of the system catalog; no column of a table has this type.
    Oid,
    Json,
    Jsonb,
    Array(Box<SqlType>),
    /// Field names and types.
    Record(Vec<(String, SqlType)>),
}

impl SqlType {
    /// The type of a column; `None` for an Arrow type that no SQL type stands for.
    pub fn of_field(field: &Field) -> Option<SqlType> {
        let extension = field.metadata().get(EXTENSION_NAME).map(String::as_str);
        Some(match (field.data_type(), extension) {
            (DataType::FixedSizeBinary(16), Some(UUID)) => SqlType::Uuid,
            (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View, Some(JSON)) => {
                SqlType::Json
            }
            (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View, Some(JSONB)) => {
                SqlType::Jsonb
            }
            (data_type, _) => return SqlType::of_arrow(data_type),
        })
    }

    /// The type of an Arrow value without its field.
    pub fn of_arrow(data_type: &DataType) -> Option<SqlType> {
        Some(match data_type {
            DataType::Null => SqlType::Text,
            DataType::Boolean => SqlType::Boolean,
            DataType::Int8 | DataType::Int16 | DataType::UInt8 => SqlType::Int2,
            DataType::Int32 | DataType::UInt16 => SqlType::Int4,
            // row_number() and the like are unsigned in DataFusion; values beyond bigint cannot
            // arise from counting rows.
            DataType::Int64 | DataType::UInt64 => SqlType::Int8,
            DataType::UInt32 => SqlType::Oid,
            DataType::Float16 | DataType::Float32 => SqlType::Float4,
            DataType::Float64 => SqlType::Float8,
            DataType::Decimal128(precision, scale) => SqlType::Numeric(*precision, *scale),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => SqlType::Text,
            DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_) => SqlType::Bytea,
            DataType::Date32 | DataType::Date64 => SqlType::Date,
            DataType::Time32(_) | DataType::Time64(_) => SqlType::Time,
            DataType::Timestamp(_, None) => SqlType::Timestamp,
            DataType::Timestamp(_, Some(_)) => SqlType::Timestamptz,
            DataType::Interval(_) | DataType::Duration(_) => SqlType::Interval,
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                SqlType::Array(Box::new(SqlType::of_field(item)?))
            }
            DataType::Struct(fields) => SqlType::Record(
                fields
                    .iter()
                    .map(|f| Some((f.name().clone(), SqlType::of_field(f)?)))
                    .collect::<Option<_>>()?,
            ),
            DataType::Dictionary(_, value) => SqlType::of_arrow(value)?,
            _ => return None,
        })
    }

    /// The Arrow type of this type's columns.
    pub fn to_arrow(&self) -> DataType {
        match self {
            SqlType::Boolean => DataType::Boolean,
            SqlType::Int2 => DataType::Int16,
            SqlType::Int4 => DataType::Int32,
            SqlType::Int8 => DataType::Int64,
            SqlType::Float4 => DataType::Float32,
            SqlType::Float8 => DataType::Float64,
            SqlType::Numeric(precision, scale) => DataType::Decimal128(*precision, *scale),
            SqlType::Text | SqlType::Json | SqlType::Jsonb => DataType::Utf8,
            SqlType::Bytea => DataType::Binary,
            SqlType::Date => DataType::Date32,
            SqlType::Time => DataType::Time64(TimeUnit::Microsecond),
            SqlType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            SqlType::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            SqlType::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            SqlType::Uuid => DataType::FixedSizeBinary(16),
            SqlType::Oid => DataType::UInt32,
            SqlType::Array(item) => DataType::List(Arc::new(item.to_field("item", true))),
            SqlType::Record(fields) => DataType::Struct(
                fields.iter().map(|(name, t)| t.to_field(name, true)).collect::<Fields>(),
            ),
        }
    }

    /// A field of this type, marked with its extension name where it has one.
    pub fn to_field(&self, name: &str, nullable: bool) -> Field {
        let field = Field::new(name, self.to_arrow(), nullable);
        let extension = match self {
            SqlType::Uuid => UUID,
            SqlType::Json => JSON,
            SqlType::Jsonb => JSONB,
            _ => return field,
        };
        field.with_metadata(HashMap::from([(EXTENSION_NAME.to_owned(), extension.to_owned())]))
    }

    /// Object id of the type in Postgres's `pg_type`; arrays have their own.
    pub fn oid(&self) -> u32 {
        match self {
            SqlType::Boolean => 16,
            SqlType::Int2 => 21,
            SqlType::Int4 => 23,
            SqlType::Int8 => 20,
            SqlType::Float4 => 700,
            SqlType::Float8 => 701,
            SqlType::Numeric(_, _) => 1700,
            SqlType::Text => 25,
            SqlType::Bytea => 17,
            SqlType::Date => 1082,
            SqlType::Time => 1083,
            SqlType::Timestamp => 1114,
            SqlType::Timestamptz => 1184,
            SqlType::Interval => 1186,
            SqlType::Uuid => 2950,
            SqlType::Oid => 26,
            SqlType::Json => 114,
            SqlType::Jsonb => 3802,
            SqlType::Record(_) => 2249,
            SqlType::Array(item) => match item.as_ref() {
                SqlType::Boolean => 1000,
                SqlType::Int2 => 1005,
                SqlType::Int4 => 1007,
                SqlType::Int8 => 1016,
                SqlType::Float4 => 1021,
                SqlType::Float8 => 1022,
                SqlType::Numeric(_, _) => 1231,
                SqlType::Text => 1009,
                SqlType::Bytea => 1001,
                SqlType::Date => 1182,
                SqlType::Time => 1183,
                SqlType::Timestamp => 1115,
                SqlType::Timestamptz => 1185,
                SqlType::Interval => 1187,
                SqlType::Uuid => 2951,
                SqlType::Oid => 1028,
                SqlType::Json => 199,
                SqlType::Jsonb => 3807,
                SqlType::Record(_) => 2287,
                // Postgres arrays are not nested types: int[][] is int[].
                SqlType::Array(_) => item.oid(),
            },
        }
    }

    /// The type with this object id, as a client names a parameter's type.
    pub fn from_oid(oid: u32) -> Option<SqlType> {
        // varchar, bpchar, name and unknown are read as text.
        if [1043, 1042, 19, 705].contains(&oid) {
            return Some(SqlType::Text);
        }
        SqlType::all_scalar().into_iter().find_map(|t| {
            let array = SqlType::Array(Box::new(t.clone()));
            if t.oid() == oid {
                Some(t)
            } else if array.oid() == oid {
                Some(array)
            } else {
                None
            }
        })
    }

    /// All types that are neither arrays nor rows.
    pub fn all_scalar() -> [SqlType; 18] {
        use SqlType as T;
        [
            T::Boolean,
            T::Int2,
            T::Int4,
            T::Int8,
            T::Float4,
            T::Float8,
            T::Numeric(NUMERIC_DEFAULT.0, NUMERIC_DEFAULT.1),
            T::Text,
            T::Bytea,
            T::Date,
            T::Time,
            T::Timestamp,
            T::Timestamptz,
            T::Interval,
            T::Uuid,
            T::Oid,
            T::Json,
            T::Jsonb,
        ]
    }
}

impl SqlType {
    /// The name without digits, as Postgres's messages about types have it.
    pub fn family_name(&self) -> String {
        match self {
            SqlType::Numeric(_, _) => "numeric".to_owned(),
            SqlType::Array(item) => format!("{}[]", item.family_name()),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for SqlType {
    /// The name as Postgres prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SqlType::Boolean => f.write_str("boolean"),
            SqlType::Int2 => f.write_str("smallint"),
            SqlType::Int4 => f.write_str("integer"),
            SqlType::Int8 => f.write_str("bigint"),
            SqlType::Float4 => f.write_str("real"),
            SqlType::Float8 => f.write_str("double precision"),
            SqlType::Numeric(p, s) if (*p, *s) == NUMERIC_DEFAULT => f.write_str("numeric"),
            SqlType::Numeric(p, s) => write!(f, "numeric({p},{s})"),
            SqlType::Text => f.write_str("text"),
            SqlType::Bytea => f.write_str("bytea"),
            SqlType::Date => f.write_str("date"),
            SqlType::Time => f.write_str("time without time zone"),
            SqlType::Timestamp => f.write_str("timestamp without time zone"),
            SqlType::Timestamptz => f.write_str("timestamp with time zone"),
            SqlType::Interval => f.write_str("interval"),
            SqlType::Uuid => f.write_str("uuid"),
            SqlType::Oid => f.write_str("oid"),
            SqlType::Json => f.write_str("json"),
            SqlType::Jsonb => f.write_str("jsonb"),
            SqlType::Array(item) => write!(f, "{item}[]"),
            SqlType::Record(_) => f.write_str("record"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modifiers_mark_a_column_and_are_printed() {
        for (sql_type, modifier, text, oid, number) in [
            (SqlType::Text, Modifier::Varchar(5), "character varying(5)", 1043, 9),
            (SqlType::Text, Modifier::Char(3), "character(3)", 1042, 7),
            (SqlType::Timestamp, Modifier::Fraction(3), "timestamp(3) without time zone", 1114, 3),
            (SqlType::Timestamptz, Modifier::Fraction(0), "timestamp(0) with time zone", 1184, 0),
            (SqlType::Time, Modifier::Fraction(6), "time(6) without time zone", 1083, 6),
        ] {
            let field = modifier.mark(sql_type.to_field("c", true));
            assert_eq!(Modifier::of_field(&field), Some(modifier));
            assert_eq!(SqlType::of_field(&field), Some(sql_type));
            assert_eq!(type_text(&field).as_deref(), Some(text));
            assert_eq!((field_oid(&field), modifier.number()), (Some(oid), number));
        }
    }

    #[test]
    fn every_type_survives_a_field_and_an_oid() {
        for oid in [
            16, 21, 23, 20, 26, 700, 701, 1700, 25, 17, 1082, 1083, 1114, 1184, 1186, 2950, 114,
            3802,
        ] {
            let t = SqlType::from_oid(oid).expect("a known oid");
            assert_eq!(t.oid(), oid);
            assert_eq!(SqlType::of_field(&t.to_field("c", true)), Some(t.clone()));
            let array = SqlType::Array(Box::new(t));
            assert_eq!(SqlType::of_field(&array.to_field("c", true)), Some(array.clone()));
            assert_eq!(SqlType::from_oid(array.oid()), Some(array));
        }
    }
}
