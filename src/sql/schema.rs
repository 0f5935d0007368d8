//! Result columns: which Arrow types may appear in one, and the names that Postgres would print.
//!
//! DataFusion computes with more types than a column of ours can have (unsigned integers, string
//! views, nanoseconds). [`canonical_field`] says what such a column becomes; planning casts to it
//! at the edges, so that neither operators nor clients meet the others.
//!
//! DataFusion wants the columns of a projection to have different names, Postgres does not: a
//! repeated name carries a mark inside a plan, which [`visible_name`] takes off at the end.

use std::sync::Arc;

use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Field, FieldRef, Fields, IntervalUnit, Schema, SchemaRef,
    TimeUnit,
};
use datafusion::common::DFSchema;

use crate::types::error::{Error, Result};
use crate::types::sql_type::{Modifier, SqlType};

/// Begins the mark of a repeated name; cannot be typed into a SQL text by accident.
const REPEATED_MARK: char = '\u{1f}';

/// The `count`-th column of that name in one select list.
pub fn repeated_name(name: &str, count: usize) -> String {
    format!("{name}{REPEATED_MARK}{count}")
}

/// The name without the mark of a repeated one.
pub fn visible_name(name: &str) -> &str {
    name.split(REPEATED_MARK).next().unwrap_or(name)
}

/// The Arrow type that a column of this type becomes; `None` when no SQL type stands for it.
pub fn canonical_type(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Boolean
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        // An oid.
        | DataType::UInt32
        | DataType::Float32
        | DataType::Float64
        | DataType::Utf8
        | DataType::Binary
        | DataType::Date32 => data_type.clone(),
        // Digits before the point cannot be left out in SQL.
        DataType::Decimal128(p, s) if *s < 0 => DataType::Decimal128(
            p.saturating_add(s.unsigned_abs()).min(DECIMAL128_MAX_PRECISION),
            0,
        ),
        DataType::Decimal128(_, _) => data_type.clone(),
        DataType::FixedSizeBinary(16) => data_type.clone(),
        DataType::Null | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) => DataType::Decimal128(*p, *s),
        DataType::Decimal256(_, s) => DataType::Decimal128(DECIMAL128_MAX_PRECISION, *s),
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            DataType::Binary
        }
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(_, None) => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(_, Some(_)) => {
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
        }
        DataType::Interval(_) | DataType::Duration(_) => {
            DataType::Interval(IntervalUnit::MonthDayNano)
        }
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => {
            let item = canonical_field(item)?.with_name("item").with_nullable(true);
            DataType::List(Arc::new(item))
        }
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(|f| canonical_field(f)).collect::<Option<Fields>>()?)
        }
        DataType::Dictionary(_, value) => canonical_type(value)?,
        DataType::RunEndEncoded(_, value) => canonical_type(value.data_type())?,
        _ => return None,
    })
}

/// The field with its canonical type. Metadata that names no type of ours is dropped.
pub fn canonical_field(field: &Field) -> Option<Field> {
    let data_type = canonical_type(field.data_type())?;
    let plain = Field::new(field.name(), data_type, field.is_nullable());
    let marked = plain.clone().with_metadata(field.metadata().clone());
    match SqlType::of_field(&marked) {
        Some(t @ (SqlType::Uuid | SqlType::Json | SqlType::Jsonb)) => {
            Some(t.to_field(field.name(), field.is_nullable()))
        }
        Some(SqlType::Text) => match Modifier::of_field(&marked) {
            Some(char @ Modifier::Char(_)) => Some(char.mark(plain)),
            _ => Some(plain),
        },
        _ => Some(plain),
    }
}

/// The columns that a client sees of a plan with this schema.
///
/// # Errors
/// SQLSTATE 0A000 for a column of a type that SQL does not have here.
pub fn visible_schema(schema: &DFSchema) -> Result<SchemaRef> {
    let fields = schema
        .fields()
        .iter()
        .map(|field: &FieldRef| {
            let field = canonical_field(field).ok_or_else(|| {
                Error::unsupported(format!(
                    "column \"{}\" of the internal type {}",
                    visible_name(field.name()),
                    field.data_type()
                ))
            })?;
            let name = visible_name(field.name()).to_owned();
            Ok(field.with_name(name))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(Schema::new(fields)))
}

/// Whether tables and maintained queries can have columns of these types.
///
/// # Errors
/// SQLSTATE 0A000 for an oid, alone or in a list or row.
pub fn check_storable(schema: &Schema) -> Result<()> {
    fn has_oid(sql_type: &SqlType) -> bool {
        match sql_type {
            SqlType::Oid => true,
            SqlType::Array(item) => has_oid(item),
            SqlType::Record(fields) => fields.iter().any(|(_, field)| has_oid(field)),
            _ => false,
        }
    }
    match schema.fields().iter().find(|f| SqlType::of_field(f).is_some_and(|t| has_oid(&t))) {
        Some(field) => Err(Error::unsupported(format!("column \"{}\" of type oid", field.name()))
            .hint("Cast it to bigint.")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_that_sql_lacks_become_their_nearest() {
        let list = DataType::LargeList(Arc::new(Field::new("x", DataType::UInt64, false)));
        let expected = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
        assert_eq!(canonical_type(&list), Some(expected));
        assert_eq!(
            canonical_type(&DataType::Timestamp(TimeUnit::Nanosecond, Some("Asia/Tokyo".into()))),
            Some(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))
        );
        assert_eq!(canonical_type(&DataType::Null), Some(DataType::Utf8));
    }

    #[test]
    fn extension_types_stay_and_other_metadata_goes() {
        let uuid = SqlType::Uuid.to_field("id", false);
        assert_eq!(canonical_field(&uuid), Some(uuid));
        let odd = Field::new("a", DataType::Int32, true)
            .with_metadata([("PARQUET:field_id".to_owned(), "7".to_owned())].into());
        assert_eq!(canonical_field(&odd), Some(Field::new("a", DataType::Int32, true)));
    }

    #[test]
    fn marks_of_repeated_names_are_invisible() {
        assert_eq!(visible_name(&repeated_name("?column?", 2)), "?column?");
        assert_eq!(visible_name("plain"), "plain");
    }
}
