//! Functions that are no look-up by value: they wait, look at types, or give lists of rows.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    Array, ArrayRef, AsArray, Int32Array, Int32Builder, ListArray, RecordBatch, StringArray,
    StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, FieldRef, Fields, Float64Type, IntervalMonthDayNanoType, IntervalUnit, Schema,
};
use async_trait::async_trait;
use datafusion::common::{DataFusionError, Result as PlanResult, ScalarValue};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    TypeSignature, Volatility,
};

use super::Session;
use crate::sql::parse::name::RESERVED_WORDS;
use crate::sql::resolve::external;
use crate::types::error::{Error, SqlState};
use crate::types::sql_type::{Modifier, SqlType};

/// The function of that name, for a connection.
pub fn find(session: Option<&Arc<dyn Session>>, name: &str) -> Option<Arc<ScalarUDF>> {
    Some(Arc::new(match name {
        "pg_sleep" | "pg_sleep_for" => {
            let interval = DataType::Interval(IntervalUnit::MonthDayNano);
            let takes = if name == "pg_sleep" { DataType::Float64 } else { interval };
            let sleep = Sleep {
                name: if name == "pg_sleep" { "pg_sleep" } else { "pg_sleep_for" },
                signature: Signature::exact(vec![takes], Volatility::Volatile),
                session: session.cloned(),
            };
            AsyncScalarUDF::new(Arc::new(sleep)).into_scalar_udf()
        }
        "pg_typeof" => {
            ScalarUDF::new_from_impl(TypeOf { signature: Signature::any(1, Volatility::Stable) })
        }
        "_pg_expandarray" => ScalarUDF::new_from_impl(ExpandArray {
            signature: Signature::new(TypeSignature::Any(1), Volatility::Immutable),
        }),
        _ => return None,
    }))
}

/// `pg_sleep(seconds)` and `pg_sleep_for(interval)`: waits, and can be cancelled while it does.
/// Several rows wait one after another.
struct Sleep {
    name: &'static str,
    signature: Signature,
    session: Option<Arc<dyn Session>>,
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Sleep {
    fn eq(&self, other: &Sleep) -> bool {
        self.name == other.name
    }
}

impl Eq for Sleep {}

impl Hash for Sleep {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Sleep {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> PlanResult<DataType> {
        // Postgres's type void prints as nothing.
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        let error = Error::unsupported(format!("{}() in this place", self.name));
        Err(external(error.hint("Call it in a SELECT list or in WHERE.")))
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Sleep {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        let [argument] = args.args.as_slice() else {
            return Err(DataFusionError::Internal("it takes one argument".to_owned()));
        };
        let durations = argument.to_array(args.number_rows)?;
        let Some(session) = &self.session else {
            return Err(external(Error::unsupported(format!("{}() here", self.name))));
        };
        let mut values = Vec::with_capacity(durations.len());
        for row in 0..durations.len() {
            let seconds = seconds_at(&durations, row);
            if let Some(seconds) = seconds {
                let duration = Duration::try_from_secs_f64(seconds.max(0.0)).map_err(|_| {
                    let message = "the time to sleep is out of range";
                    external(Error::user(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, message))
                })?;
                session.sleep(duration).await;
            }
            values.push(seconds.map(|_| ""));
        }
        Ok(ColumnarValue::Array(Arc::new(StringArray::from(values))))
    }
}

fn seconds_at(durations: &ArrayRef, row: usize) -> Option<f64> {
    if durations.is_null(row) {
        return None;
    }
    if let Some(seconds) = durations.as_primitive_opt::<Float64Type>() {
        return Some(seconds.value(row));
    }
    let interval = durations.as_primitive_opt::<IntervalMonthDayNanoType>()?.value(row);
    let days = f64::from(interval.months) * 30.0 + f64::from(interval.days);
    Some(days * 86_400.0 + interval.nanoseconds as f64 / 1e9)
}

/// `pg_typeof(x)`: the name of x's type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct TypeOf {
    signature: Signature,
}

impl ScalarUDFImpl for TypeOf {
    fn name(&self) -> &str {
        "pg_typeof"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> PlanResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs) -> PlanResult<FieldRef> {
        Ok(Arc::new(Field::new("pg_typeof", DataType::Utf8, false)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        let name = match args.arg_fields.first() {
            Some(field) if field.data_type().is_null() => "unknown".to_owned(),
            Some(field) => match (Modifier::of_field(field), SqlType::of_field(field)) {
                (Some(Modifier::Char(_)), _) => "character".to_owned(),
                (Some(Modifier::Varchar(_)), _) => "character varying".to_owned(),
                (_, Some(sql_type)) => sql_type.family_name(),
                (_, None) => field.data_type().to_string(),
            },
            None => return Err(DataFusionError::Internal("it takes one argument".to_owned())),
        };
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(Some(name))))
    }
}

/// `information_schema._pg_expandarray(array)`, as a list of rows `(x, n)`: the item and its place.
/// (`catalog_query` puts `unnest` around it.)
#[derive(Debug, PartialEq, Eq, Hash)]
struct ExpandArray {
    signature: Signature,
}

fn expanded_fields(argument: &DataType) -> PlanResult<Fields> {
    let item = match argument {
        DataType::List(item) => item.data_type().clone(),
        other => {
            let message = format!("function _pg_expandarray({other}) does not exist");
            return Err(external(Error::user(SqlState::UNDEFINED_FUNCTION, message)));
        }
    };
    Ok(Fields::from(vec![Field::new("x", item, true), Field::new("n", DataType::Int32, true)]))
}

impl ScalarUDFImpl for ExpandArray {
    fn name(&self) -> &str {
        "_pg_expandarray"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> PlanResult<DataType> {
        let fields = expanded_fields(types.first().unwrap_or(&DataType::Null))?;
        Ok(DataType::List(Arc::new(Field::new("item", DataType::Struct(fields), true))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        let [argument] = args.args.as_slice() else {
            return Err(DataFusionError::Internal("it takes one argument".to_owned()));
        };
        let lists = argument.to_array(args.number_rows)?;
        let fields = expanded_fields(lists.data_type())?;
        let lists = lists.as_list::<i32>();
        let mut places = Int32Builder::with_capacity(lists.values().len());
        let mut items = Vec::with_capacity(lists.len());
        for row in 0..lists.len() {
            let list = lists.value(row);
            // A NULL list may still have items, which nobody sees.
            let length = if lists.is_null(row) { 0 } else { list.len() };
            places.append_slice(&(1..=length as i32).collect::<Vec<_>>());
            items.push(list.slice(0, length));
        }
        let slices: Vec<&dyn Array> = items.iter().map(AsRef::as_ref).collect();
        let values = if slices.is_empty() {
            lists.values().slice(0, 0)
        } else {
            arrow::compute::concat(&slices)?
        };
        let values = cast(&values, fields[0].data_type())?;
        let places: Int32Array = places.finish();
        let rows = StructArray::try_new(fields.clone(), vec![values, Arc::new(places)], None)?;
        let offsets = OffsetBuffer::from_lengths(items.iter().map(|item| item.len()));
        let item = Arc::new(Field::new("item", DataType::Struct(fields), true));
        let list = ListArray::try_new(item, offsets, Arc::new(rows), lists.nulls().cloned())?;
        Ok(ColumnarValue::Array(Arc::new(list)))
    }
}

/// `pg_get_keywords()`: the words that SQL keeps for itself, with their category.
pub fn keywords() -> PlanResult<MemTable> {
    let names = ["word", "catcode", "barelabel", "catdesc", "baredesc"];
    let fields: Vec<Field> = names.iter().map(|n| Field::new(*n, DataType::Utf8, true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let text = |value: &str| -> ArrayRef {
        Arc::new(StringArray::from(vec![value.to_owned(); RESERVED_WORDS.len()]))
    };
    let words: StringArray = RESERVED_WORDS.iter().map(|word| Some(*word)).collect();
    let columns = vec![
        Arc::new(words) as ArrayRef,
        text("R"),
        text("f"),
        text("reserved"),
        text("requires AS"),
    ];
    let batch = RecordBatch::try_new(schema.clone(), columns)?;
    MemTable::try_new(schema, vec![vec![batch]])
}
