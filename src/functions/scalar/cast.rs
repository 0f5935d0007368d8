//! Casts that Postgres and Arrow do differently, as functions of one argument.
//!
//! | file | casts |
//! |---|---|
//! | `number.rs` | between numbers: rounding, ranges |
//! | `time.rs` | between dates and times, with the session's time zone |
//! | `text.rs` | from and to text: Postgres's input and output syntax |
//!
//! [`cast_kind`] says for two types whether Arrow's kernel is right, a function is needed, or
//! Postgres has no such cast. Arrays and rows are cast item by item.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StructArray, new_null_array};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::DataFusionError;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use crate::functions::scalar::marked::scalar_of;
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::SqlType;
use crate::types::text::zone::Zone;

mod number;
mod text;
mod time;

/// What casts depend on besides their value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CastSettings {
    /// The session's time zone: what local times mean.
    pub zone: Zone,
    /// What the words `now` and `today` mean in text: microseconds since 1970 in UTC.
    pub now_us: i64,
}

/// How a cast is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CastKind {
    /// Same type on both sides.
    Nothing,
    /// Arrow's kernel does what Postgres does, and cannot fail.
    Arrow,
    /// [`cast_function`].
    Function,
    /// Postgres has no such cast.
    Missing,
}

/// Which casts there are, as Postgres's `pg_cast` lists them; from and to text all.
pub fn cast_kind(from: &SqlType, to: &SqlType) -> CastKind {
    use SqlType as T;
    if from == to {
        return CastKind::Nothing;
    }
    match (from, to) {
        (T::Int2, T::Int4 | T::Int8 | T::Float4 | T::Float8)
        | (T::Int4, T::Int8 | T::Float8)
        | (T::Int8 | T::Float4, T::Float8)
        | (T::Int4 | T::Int8, T::Float4)
        | (T::Numeric(_, _), T::Float4 | T::Float8)
        | (T::Boolean, T::Int4) => CastKind::Arrow,
        (T::Int2, T::Numeric(precision, scale)) if precision_left(*precision, *scale) >= 5 => {
            CastKind::Arrow
        }
        (T::Int4, T::Numeric(precision, scale)) if precision_left(*precision, *scale) >= 10 => {
            CastKind::Arrow
        }
        (T::Int8, T::Numeric(precision, scale)) if precision_left(*precision, *scale) >= 19 => {
            CastKind::Arrow
        }
        (T::Numeric(from_precision, from_scale), T::Numeric(to_precision, to_scale))
            if to_scale >= from_scale
                && precision_left(*to_precision, *to_scale)
                    >= precision_left(*from_precision, *from_scale) =>
        {
            CastKind::Arrow
        }
        (from, to) if is_number(from) && is_number(to) => CastKind::Function,
        (T::Int4, T::Boolean) => CastKind::Arrow,
        (T::Text, _) | (_, T::Text) => CastKind::Function,
        (T::Date, T::Timestamp | T::Timestamptz)
        | (T::Timestamp, T::Date | T::Time | T::Timestamptz)
        | (T::Timestamptz, T::Date | T::Time | T::Timestamp)
        | (T::Time, T::Interval)
        | (T::Interval, T::Time)
        | (T::Json, T::Jsonb)
        | (T::Jsonb, T::Json) => CastKind::Function,
        (T::Jsonb, to) if is_number(to) || *to == T::Boolean => CastKind::Function,
        (T::Array(from), T::Array(to)) => match cast_kind(from, to) {
            CastKind::Nothing | CastKind::Arrow | CastKind::Function => CastKind::Function,
            CastKind::Missing => CastKind::Missing,
        },
        (T::Record(from), T::Record(to)) => {
            let missing = |((_, from), (_, to)): (&(String, SqlType), &(String, SqlType))| {
                cast_kind(from, to) == CastKind::Missing
            };
            if from.len() != to.len() || from.iter().zip(to).any(missing) {
                CastKind::Missing
            } else {
                CastKind::Function
            }
        }
        _ => CastKind::Missing,
    }
}

/// Digits before the point.
fn precision_left(precision: u8, scale: i8) -> i32 {
    i32::from(precision) - i32::from(scale)
}

fn is_number(sql_type: &SqlType) -> bool {
    use SqlType as T;
    matches!(
        sql_type,
        T::Int2 | T::Int4 | T::Int8 | T::Oid | T::Float4 | T::Float8 | T::Numeric(_, _)
    )
}

/// SQLSTATE 42846.
pub fn cannot_cast(from: &SqlType, to: &SqlType) -> Error {
    Error::user(SqlState::CANNOT_COERCE, format!("cannot cast type {from} to {to}"))
}

/// A cast as a function of one argument; `from` is `None` for NULL without a type.
pub fn cast_function(from: Option<SqlType>, to: SqlType, settings: CastSettings) -> Arc<ScalarUDF> {
    let signature = Signature::any(1, Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(PostgresCast { from, to, settings, signature }))
}

/// A cast with Postgres's meaning.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct PostgresCast {
    from: Option<SqlType>,
    to: SqlType,
    settings: CastSettings,
    signature: Signature,
}

impl PostgresCast {
    pub fn target(&self) -> &SqlType {
        &self.to
    }

    /// Whether some value of the source type cannot be cast.
    pub fn may_fail(&self) -> bool {
        self.from.is_some() && self.to != SqlType::Text
    }
}

impl ScalarUDFImpl for PostgresCast {
    fn name(&self) -> &str {
        "cast"
    }

    fn display_name(&self, args: &[Expr]) -> datafusion::common::Result<String> {
        Ok(format!(
            "CAST({} AS {})",
            args.first().map_or(String::new(), ToString::to_string),
            self.to
        ))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> datafusion::common::Result<DataType> {
        Ok(self.to.to_arrow())
    }

    fn return_field_from_args(
        &self,
        args: ReturnFieldArgs,
    ) -> datafusion::common::Result<FieldRef> {
        // An infinite timestamp has no time of day.
        let nullable =
            self.to == SqlType::Time || args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(self.to.to_field("cast", nullable)))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(
        &self,
        args: ScalarFunctionArgs,
    ) -> datafusion::common::Result<ColumnarValue> {
        let [argument] = args.args.as_slice() else {
            return Err(DataFusionError::Internal("a cast has one argument".to_owned()));
        };
        let convert = |array: &ArrayRef| {
            let converted = match &self.from {
                None => Ok(new_null_array(&self.to.to_arrow(), array.len())),
                Some(from) => cast_array(array, from, &self.to, &self.settings),
            };
            converted.map_err(|error| DataFusionError::External(Box::new(error)))
        };
        match argument {
            ColumnarValue::Array(array) => Ok(ColumnarValue::Array(convert(array)?)),
            ColumnarValue::Scalar(scalar) => {
                let array = convert(&scalar.to_array()?)?;
                Ok(ColumnarValue::Scalar(scalar_of(&array, 0)?))
            }
        }
    }
}

/// One value as messages show it: as text, in UTC; `null` stands for NULL.
pub fn shown_value(column: &ArrayRef, field: &Field, row: usize) -> String {
    let settings = CastSettings { zone: Zone::UTC, now_us: 0 };
    let text = SqlType::of_field(field)
        .and_then(|from| cast_array(&column.slice(row, 1), &from, &SqlType::Text, &settings).ok());
    match text {
        Some(text) if text.is_null(0) => "null".to_owned(),
        Some(text) => text.as_string::<i32>().value(0).to_owned(),
        // Not a type that SQL has.
        None => "?".to_owned(),
    }
}

/// Casts a column.
///
/// # Errors
/// When some value cannot be cast: SQLSTATE 22P02, 22003, 22007 or 22008.
pub fn cast_array(
    array: &ArrayRef,
    from: &SqlType,
    to: &SqlType,
    settings: &CastSettings,
) -> Result<ArrayRef> {
    use SqlType as T;
    let canonical = from.to_arrow();
    let array = if *array.data_type() == canonical {
        array.clone()
    } else {
        arrow::compute::cast(array, &canonical)?
    };
    match (from, to) {
        (from, to) if from == to => Ok(array),
        (T::Text, to) => text::from_text(&array, to, settings),
        (from, T::Text) => text::to_text(&array, from, settings),
        (from, to) if is_number(from) && is_number(to) => number::cast_number(&array, from, to),
        (T::Array(from), T::Array(to)) => cast_list(&array, from, to, settings),
        (T::Record(from), T::Record(to)) => cast_record(&array, from, to, settings),
        (T::Json, T::Jsonb) => text::from_text(&array, to, settings),
        (T::Jsonb, T::Json) => Ok(array),
        (T::Jsonb, to) => text::from_jsonb(&array, to, settings),
        (T::Boolean, T::Int4) | (T::Int4, T::Boolean) => {
            Ok(arrow::compute::cast(&array, &to.to_arrow())?)
        }
        (from, to) => time::cast_time(&array, from, to, settings),
    }
}

fn cast_list(
    array: &ArrayRef,
    from: &SqlType,
    to: &SqlType,
    settings: &CastSettings,
) -> Result<ArrayRef> {
    let list = array.as_list::<i32>();
    let items = cast_array(list.values(), from, to, settings)?;
    let field = Arc::new(to.to_field("item", true));
    let list = ListArray::try_new(field, list.offsets().clone(), items, list.nulls().cloned())?;
    Ok(Arc::new(list))
}

fn cast_record(
    array: &ArrayRef,
    from: &[(String, SqlType)],
    to: &[(String, SqlType)],
    settings: &CastSettings,
) -> Result<ArrayRef> {
    let record = array.as_struct();
    let columns = record
        .columns()
        .iter()
        .zip(from.iter().zip(to))
        .map(|(column, ((_, from), (_, to)))| cast_array(column, from, to, settings))
        .collect::<Result<Vec<_>>>()?;
    let fields = to.iter().map(|(name, sql_type)| sql_type.to_field(name, true)).collect();
    let record = StructArray::try_new(fields, columns, record.nulls().cloned())?;
    Ok(Arc::new(record))
}

#[cfg(test)]
mod tests;
