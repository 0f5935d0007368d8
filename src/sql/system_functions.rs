//! The functions of `pg_catalog` that look at the catalog or the session: what psql, drivers and
//! BI tools call in their queries of the system relations.
//!
//! One list: name, argument types, result, and how one row is computed. These run over a few
//! rows of a catalog, so a value at a time is fast enough.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, ListBuilder, StringArray,
    StringBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, TimeUnit};
use datafusion::common::{DataFusionError, Result as PlanResult, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility,
};

use crate::catalog::object::{Object, ObjectKind, ObjectName};
use crate::catalog::pg_catalog::{
    ROLE_OID, index_definition, object_of_constraint_oid, object_of_index_oid, object_of_oid,
    primary_key_columns, primary_key_name, relation_oid, schema_oid, system_relation_oid,
    type_fact, type_facts,
};
use crate::catalog::snapshot::Catalog;
use crate::catalog::system_views::{self, SYSTEM_SCHEMAS};
use crate::sql::bind::PlanContext;
use crate::sql::resolve::{external, search_schemas};
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::{NUMERIC_DEFAULT, SqlType};

/// What functions may ask and tell the connection that runs them.
pub trait Session: Send + Sync {
    fn process_id(&self) -> i32;

    /// When it began: microseconds since 1970.
    fn connected_at_us(&self) -> i64;

    /// The value of a setting.
    ///
    /// # Errors
    /// SQLSTATE 42704 for a name that nobody knows.
    fn setting(&self, name: &str) -> Result<String>;

    /// Sets a setting and gives back its value.
    ///
    /// # Errors
    /// As SET.
    fn set_setting(&self, name: &str, value: &str, local: bool) -> Result<String>;

    /// Cancels what another connection runs; false when there is none of that process id.
    fn cancel(&self, process_id: i32) -> bool;
}

/// What one statement's functions look at.
struct Facts {
    catalog: Arc<Catalog>,
    database: String,
    /// Existing schemas of the search path.
    search_path: Vec<String>,
    user: String,
    session: Option<Arc<dyn Session>>,
}

/// One value.
enum Out {
    Null,
    Bool(bool),
    Int(i64),
    Text(String),
    Texts(Vec<String>),
    Time(i64),
}

impl From<Option<String>> for Out {
    fn from(text: Option<String>) -> Out {
        text.map_or(Out::Null, Out::Text)
    }
}

impl From<Option<i64>> for Out {
    fn from(number: Option<i64>) -> Out {
        number.map_or(Out::Null, Out::Int)
    }
}

/// Types of arguments and results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bool,
    Int4,
    /// Object ids too.
    Int8,
    Text,
    Texts,
    Time,
}

impl Kind {
    fn data_type(self) -> DataType {
        match self {
            Kind::Bool => DataType::Boolean,
            Kind::Int4 => DataType::Int32,
            Kind::Int8 => DataType::Int64,
            Kind::Text => DataType::Utf8,
            Kind::Texts => DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))),
            Kind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }
}

/// One row's arguments.
struct Args<'a> {
    columns: &'a [ArrayRef],
    row: usize,
}

impl Args<'_> {
    fn int(&self, index: usize) -> Option<i64> {
        let column = self.columns.get(index)?;
        if column.is_null(self.row) {
            return None;
        }
        match column.data_type() {
            DataType::Int64 => Some(column.as_primitive::<Int64Type>().value(self.row)),
            DataType::Int32 => Some(column.as_primitive::<Int32Type>().value(self.row).into()),
            _ => None,
        }
    }

    fn text(&self, index: usize) -> Option<&str> {
        let column = self.columns.get(index)?.as_string_opt::<i32>()?;
        column.is_valid(self.row).then(|| column.value(self.row))
    }

    fn bool(&self, index: usize) -> Option<bool> {
        let column = self.columns.get(index)?.as_boolean_opt()?;
        column.is_valid(self.row).then(|| column.value(self.row))
    }

    fn texts(&self, index: usize) -> Option<Vec<String>> {
        let column = self.columns.get(index)?.as_list_opt::<i32>()?;
        if column.is_null(self.row) {
            return None;
        }
        let values = column.value(self.row);
        let values = values.as_string_opt::<i32>()?;
        Some(values.iter().flatten().map(str::to_owned).collect())
    }
}

type Evaluate = fn(&Facts, &Args) -> Result<Out>;

/// One function: all that a caller may write.
struct Function {
    name: &'static str,
    /// The lists of argument types that it takes.
    takes: &'static [&'static [Kind]],
    gives: Kind,
    /// It has an effect, or its value may differ within a statement.
    volatile: bool,
    evaluate: Evaluate,
}

const fn function(
    name: &'static str,
    takes: &'static [&'static [Kind]],
    gives: Kind,
    evaluate: Evaluate,
) -> Function {
    Function { name, takes, gives, volatile: false, evaluate }
}

const fn volatile(
    name: &'static str,
    takes: &'static [&'static [Kind]],
    gives: Kind,
    evaluate: Evaluate,
) -> Function {
    Function { name, takes, gives, volatile: true, evaluate }
}

use Kind::{Bool, Int4, Int8, Text, Texts, Time};

const NONE: &[&[Kind]] = &[&[]];
const OID: &[&[Kind]] = &[&[Int8]];
const OID_OR_TEXT: &[&[Kind]] = &[&[Int8], &[Text]];
const OID_PRETTY: &[&[Kind]] = &[&[Int8], &[Int8, Bool]];
/// `has_..._privilege([user,] object, privilege)`.
const PRIVILEGE: &[&[Kind]] =
    &[&[Int8, Text], &[Text, Text], &[Text, Int8, Text], &[Text, Text, Text], &[Int8, Int8, Text]];
const COLUMN_PRIVILEGE: &[&[Kind]] = &[
    &[Int8, Int8, Text],
    &[Text, Text, Text],
    &[Int8, Text, Text],
    &[Text, Int8, Text],
    &[Text, Text, Text, Text],
];

/// The number of UTF8 among Postgres's encodings.
const UTF8_ENCODING: i64 = 6;

/// Every function.
const FUNCTIONS: &[Function] = &[
    // Who and where.
    function("version", NONE, Text, |_, _| Ok(Out::Text(version()))),
    function("pg_backend_pid", NONE, Int4, |f, _| {
        Ok(Out::Int(f.session.as_ref().map_or(0, |s| i64::from(s.process_id()))))
    }),
    function("pg_is_in_recovery", NONE, Bool, |_, _| Ok(Out::Bool(false))),
    function("pg_postmaster_start_time", NONE, Time, start_time),
    function("pg_conf_load_time", NONE, Time, start_time),
    function("inet_server_addr", NONE, Text, null),
    function("inet_server_port", NONE, Int4, null),
    function("inet_client_addr", NONE, Text, null),
    function("inet_client_port", NONE, Int4, null),
    function("getdatabaseencoding", NONE, Text, |_, _| Ok(Out::Text("UTF8".into()))),
    function("pg_client_encoding", NONE, Text, |_, _| Ok(Out::Text("UTF8".into()))),
    function("pg_char_to_encoding", &[&[Text]], Int4, |_, args| {
        let utf8 = args.text(0).is_some_and(|e| e.eq_ignore_ascii_case("utf8"));
        Ok(Out::Int(if utf8 { UTF8_ENCODING } else { -1 }))
    }),
    function("pg_encoding_to_char", OID, Text, |_, args| {
        Ok(args.int(0).map(|e| if e == UTF8_ENCODING { "UTF8" } else { "" }.to_owned()).into())
    }),
    function("pg_my_temp_schema", NONE, Int8, |_, _| Ok(Out::Int(0))),
    function("pg_is_other_temp_schema", OID, Bool, |_, _| Ok(Out::Bool(false))),
    function("current_schemas", &[&[Bool]], Texts, current_schemas),
    function("pg_get_userbyid", OID, Text, |f, args| {
        let name =
            |oid| if oid == ROLE_OID { f.user.clone() } else { format!("unknown (OID={oid})") };
        Ok(args.int(0).map(name).into())
    }),
    // Settings.
    function("current_setting", &[&[Text], &[Text, Bool]], Text, current_setting),
    volatile("set_config", &[&[Text, Text, Bool]], Text, set_config),
    // Other connections.
    volatile("pg_cancel_backend", &[&[Int4]], Bool, |f, args| {
        let (Some(session), Some(id)) = (&f.session, args.int(0)) else { return Ok(Out::Null) };
        Ok(Out::Bool(i32::try_from(id).is_ok_and(|id| session.cancel(id))))
    }),
    // What is visible without a schema's name.
    function("pg_table_is_visible", OID, Bool, |f, args| {
        Ok(args.int(0).map_or(Out::Null, |oid| Out::Bool(f.relation_visible(oid))))
    }),
    function("pg_type_is_visible", OID, Bool, yes),
    function("pg_function_is_visible", OID, Bool, yes),
    function("pg_operator_is_visible", OID, Bool, yes),
    function("pg_opclass_is_visible", OID, Bool, yes),
    function("pg_opfamily_is_visible", OID, Bool, yes),
    function("pg_collation_is_visible", OID, Bool, yes),
    function("pg_conversion_is_visible", OID, Bool, yes),
    function("pg_ts_config_is_visible", OID, Bool, yes),
    function("pg_ts_dict_is_visible", OID, Bool, yes),
    function("pg_ts_parser_is_visible", OID, Bool, yes),
    function("pg_ts_template_is_visible", OID, Bool, yes),
    function("pg_statistics_obj_is_visible", OID, Bool, yes),
    // Names to object ids and back. The ones with an underscore stand for casts to the types
    // regclass, regtype, ..., which are numbers here.
    function("to_regclass", &[&[Text]], Int8, |f, args| {
        Ok(args.text(0).and_then(|name| f.relation_oid(name)).into())
    }),
    function("to_regtype", &[&[Text]], Int8, |_, args| Ok(args.text(0).and_then(type_oid).into())),
    function("to_regnamespace", &[&[Text]], Int8, |f, args| {
        Ok(args.text(0).and_then(|name| f.schema_oid(name)).into())
    }),
    function("to_regrole", &[&[Text]], Int8, |f, args| {
        Ok(args.text(0).and_then(|name| (*name == f.user).then_some(ROLE_OID)).into())
    }),
    function("_regclass_in", &[&[Text]], Int8, |f, args| {
        number_in(args, |n| f.relation_oid(n), SqlState::UNDEFINED_TABLE, "relation")
    }),
    function("_regtype_in", &[&[Text]], Int8, |_, args| {
        number_in(args, type_oid, SqlState::UNDEFINED_OBJECT, "type")
    }),
    function("_regnamespace_in", &[&[Text]], Int8, |f, args| {
        number_in(args, |n| f.schema_oid(n), SqlState::INVALID_SCHEMA_NAME, "schema")
    }),
    function("_regrole_in", &[&[Text]], Int8, |f, args| {
        let role = |name: &str| (*name == f.user).then_some(ROLE_OID);
        number_in(args, role, SqlState::UNDEFINED_OBJECT, "role")
    }),
    function("_regclass_out", OID_OR_TEXT, Text, |f, args| {
        Ok(name_out(args, |oid| f.shown_name(oid)))
    }),
    function("_regtype_out", OID_OR_TEXT, Text, |_, args| {
        Ok(name_out(args, |oid| Some(format_type(oid, -1))))
    }),
    function("_regnamespace_out", OID_OR_TEXT, Text, |f, args| {
        Ok(name_out(args, |oid| f.schema_name(oid)))
    }),
    function("_regproc_out", OID_OR_TEXT, Text, |_, args| Ok(name_out(args, |_| None))),
    function("_regrole_out", OID_OR_TEXT, Text, |f, args| {
        Ok(name_out(args, |oid| (oid == ROLE_OID).then(|| f.user.clone())))
    }),
    // Definitions.
    function("format_type", &[&[Int8, Int4]], Text, |_, args| {
        Ok(args.int(0).map(|oid| format_type(oid, args.int(1).unwrap_or(-1))).into())
    }),
    function("pg_get_expr", &[&[Text, Int8], &[Text, Int8, Bool]], Text, |_, args| {
        Ok(args.text(0).map(str::to_owned).into())
    }),
    function(
        "pg_get_viewdef",
        &[&[Int8], &[Int8, Bool], &[Int8, Int4], &[Text], &[Text, Bool]],
        Text,
        |f, args| {
            let oid = args.int(0).or_else(|| args.text(0).and_then(|n| f.relation_oid(n)));
            Ok(oid.and_then(|oid| f.view_definition(oid)).into())
        },
    ),
    function("pg_get_indexdef", &[&[Int8], &[Int8, Int4, Bool]], Text, |f, args| {
        Ok(args.int(0).and_then(|oid| f.index_definition(oid, args.int(1).unwrap_or(0))).into())
    }),
    function("pg_get_constraintdef", OID_PRETTY, Text, |f, args| {
        Ok(args.int(0).and_then(|oid| f.constraint_definition(oid)).into())
    }),
    function("pg_get_ruledef", OID_PRETTY, Text, null),
    function("pg_get_triggerdef", OID_PRETTY, Text, null),
    function("pg_get_partkeydef", OID, Text, null),
    function("pg_get_partition_constraintdef", OID, Text, null),
    function("pg_get_statisticsobjdef_columns", OID, Text, null),
    function("pg_get_functiondef", OID, Text, null),
    function("pg_get_function_result", OID, Text, null),
    function("pg_get_function_arguments", OID, Text, null),
    function("pg_get_function_identity_arguments", OID, Text, null),
    function("pg_get_serial_sequence", &[&[Text, Text]], Text, null),
    function("pg_tablespace_location", OID, Text, |_, _| Ok(Out::Text(String::new()))),
    function("pg_relation_is_publishable", OID_OR_TEXT, Bool, |_, _| Ok(Out::Bool(false))),
    function("_empty_texts", NONE, Texts, |_, _| Ok(Out::Texts(Vec::new()))),
    function("_pg_option_list", &[&[Texts]], Texts, |_, args| {
        Ok(args.texts(0).map_or(Out::Null, |options| {
            Out::Texts(options.iter().map(|option| option_text(option)).collect())
        }))
    }),
    // Comments.
    function("obj_description", &[&[Int8], &[Int8, Text]], Text, |f, args| {
        let of_relation = args.columns.len() == 1 || args.text(1) == Some("pg_class");
        let oid = args.int(0).filter(|_| of_relation);
        Ok(oid.and_then(|oid| f.comment(oid, None)).into())
    }),
    function("col_description", &[&[Int8, Int4]], Text, |f, args| {
        let column = args.int(1).and_then(|n| usize::try_from(n).ok()?.checked_sub(1));
        Ok(match (args.int(0), column) {
            (Some(oid), Some(column)) => f.comment(oid, Some(column)).into(),
            _ => Out::Null,
        })
    }),
    function("shobj_description", &[&[Int8, Text]], Text, null),
    // Sizes: rows live in memory, and nothing on disk belongs to one relation.
    function("pg_relation_size", &[&[Int8], &[Text], &[Int8, Text]], Int8, zero),
    function("pg_table_size", OID_OR_TEXT, Int8, zero),
    function("pg_total_relation_size", OID_OR_TEXT, Int8, zero),
    function("pg_indexes_size", OID_OR_TEXT, Int8, zero),
    function("pg_database_size", OID_OR_TEXT, Int8, zero),
    function("pg_tablespace_size", OID_OR_TEXT, Int8, zero),
    function("pg_stat_get_numscans", OID, Int8, zero),
    function("pg_size_pretty", OID, Text, |_, args| Ok(args.int(0).map(size_pretty).into())),
    // Privileges: everybody may do everything.
    function("has_table_privilege", PRIVILEGE, Bool, yes),
    function("has_schema_privilege", PRIVILEGE, Bool, yes),
    function("has_database_privilege", PRIVILEGE, Bool, yes),
    function("has_any_column_privilege", PRIVILEGE, Bool, yes),
    function("has_column_privilege", COLUMN_PRIVILEGE, Bool, yes),
    function("has_function_privilege", PRIVILEGE, Bool, yes),
    function("has_language_privilege", PRIVILEGE, Bool, yes),
    function("has_sequence_privilege", PRIVILEGE, Bool, yes),
    function("has_tablespace_privilege", PRIVILEGE, Bool, yes),
    function("has_type_privilege", PRIVILEGE, Bool, yes),
    function("has_server_privilege", PRIVILEGE, Bool, yes),
    function("has_foreign_data_wrapper_privilege", PRIVILEGE, Bool, yes),
    function("pg_has_role", PRIVILEGE, Bool, yes),
    function("row_security_active", OID_OR_TEXT, Bool, |_, _| Ok(Out::Bool(false))),
];

/// The function of that name, over the facts of one statement.
pub fn find(context: &PlanContext, name: &str) -> Option<Arc<ScalarUDF>> {
    let function = FUNCTIONS.iter().find(|f| f.name == name)?;
    let schemas = context.catalog.schemas(&context.database).unwrap_or_default();
    let facts = Facts {
        catalog: context.catalog.clone(),
        database: context.database.clone(),
        search_path: search_schemas(context).into_iter().filter(|s| schemas.contains(s)).collect(),
        user: context.user.clone(),
        session: context.session.clone(),
    };
    Some(Arc::new(ScalarUDF::new_from_impl(SystemFunction {
        function,
        signature: signature(function),
        facts: Arc::new(facts),
    })))
}

fn signature(function: &Function) -> Signature {
    let volatility = if function.volatile { Volatility::Volatile } else { Volatility::Stable };
    let lists = function
        .takes
        .iter()
        .map(|kinds| match kinds {
            [] => TypeSignature::Nullary,
            kinds => TypeSignature::Exact(kinds.iter().map(|k| k.data_type()).collect()),
        })
        .collect();
    Signature::one_of(lists, volatility)
}

/// A function bound to one statement.
struct SystemFunction {
    function: &'static Function,
    signature: Signature,
    facts: Arc<Facts>,
}

impl fmt::Debug for SystemFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.function.name)
    }
}

impl PartialEq for SystemFunction {
    fn eq(&self, other: &SystemFunction) -> bool {
        self.function.name == other.function.name && Arc::ptr_eq(&self.facts, &other.facts)
    }
}

impl Eq for SystemFunction {}

impl Hash for SystemFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.function.name.hash(state);
    }
}

impl ScalarUDFImpl for SystemFunction {
    fn name(&self) -> &str {
        self.function.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> PlanResult<DataType> {
        Ok(self.function.gives.data_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        // Arguments that are all constant come as arrays of one row.
        let rows = columns.first().map_or(1, |c| c.len());
        let values = (0..rows)
            .map(|row| (self.function.evaluate)(&self.facts, &Args { columns: &columns, row }))
            .collect::<Result<Vec<Out>>>()
            .map_err(external)?;
        let array = build(self.function.gives, &values);
        if args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_))) {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?));
        }
        if array.len() != args.number_rows {
            return Err(DataFusionError::Internal("a function lost rows".to_owned()));
        }
        Ok(ColumnarValue::Array(array))
    }
}

fn build(kind: Kind, values: &[Out]) -> ArrayRef {
    let ints = || {
        values.iter().map(|v| match v {
            Out::Int(value) | Out::Time(value) => Some(*value),
            _ => None,
        })
    };
    match kind {
        Kind::Bool => Arc::new(BooleanArray::from_iter(values.iter().map(|v| match v {
            Out::Bool(value) => Some(*value),
            _ => None,
        }))),
        Kind::Int4 => {
            Arc::new(Int32Array::from_iter(ints().map(|v| v.and_then(|v| i32::try_from(v).ok()))))
        }
        Kind::Int8 => Arc::new(Int64Array::from_iter(ints())),
        Kind::Time => Arc::new(TimestampMicrosecondArray::from_iter(ints()).with_timezone("UTC")),
        Kind::Text => Arc::new(StringArray::from_iter(values.iter().map(|v| match v {
            Out::Text(value) => Some(value.as_str()),
            _ => None,
        }))),
        Kind::Texts => {
            let mut lists = ListBuilder::new(StringBuilder::new());
            for value in values {
                match value {
                    Out::Texts(items) => lists.append_value(items.iter().map(|i| Some(i.as_str()))),
                    _ => lists.append_null(),
                }
            }
            Arc::new(lists.finish())
        }
    }
}

fn version() -> String {
    format!(
        "PostgreSQL 15.0 (Millstream {}) on {}-{}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        std::env::consts::OS
    )
}

fn start_time(facts: &Facts, _args: &Args) -> Result<Out> {
    Ok(facts.session.as_ref().map_or(Out::Null, |s| Out::Time(s.connected_at_us())))
}

fn null(_facts: &Facts, _args: &Args) -> Result<Out> {
    Ok(Out::Null)
}

fn yes(_facts: &Facts, args: &Args) -> Result<Out> {
    let any_null = args.columns.iter().any(|c| c.is_null(args.row));
    Ok(if any_null { Out::Null } else { Out::Bool(true) })
}

fn zero(_facts: &Facts, args: &Args) -> Result<Out> {
    Ok(if args.columns[0].is_null(args.row) { Out::Null } else { Out::Int(0) })
}

fn current_schemas(facts: &Facts, args: &Args) -> Result<Out> {
    let mut schemas = facts.search_path.clone();
    if args.bool(0) == Some(true) {
        schemas.insert(0, "pg_catalog".to_owned());
    }
    Ok(Out::Texts(schemas))
}

fn current_setting(facts: &Facts, args: &Args) -> Result<Out> {
    let (Some(session), Some(name)) = (&facts.session, args.text(0)) else {
        return Ok(Out::Null);
    };
    match session.setting(name) {
        Ok(value) => Ok(Out::Text(value)),
        Err(_) if args.bool(1) == Some(true) => Ok(Out::Null),
        Err(error) => Err(error),
    }
}

fn set_config(facts: &Facts, args: &Args) -> Result<Out> {
    let (Some(session), Some(name)) = (&facts.session, args.text(0)) else {
        return Ok(Out::Null);
    };
    let local = args.bool(2).unwrap_or(false);
    Ok(Out::Text(session.set_setting(name, args.text(1).unwrap_or_default(), local)?))
}

/// A name as its number; a number as itself.
fn number_in(
    args: &Args,
    find: impl Fn(&str) -> Option<i64>,
    sqlstate: SqlState,
    noun: &str,
) -> Result<Out> {
    let Some(name) = args.text(0) else { return Ok(Out::Null) };
    let number = name.parse().ok().or_else(|| find(name));
    number
        .map(Out::Int)
        .ok_or_else(|| Error::user(sqlstate, format!("{noun} \"{name}\" does not exist")))
}

/// A number as its name; what has none, as the number. Text is a name already.
fn name_out(args: &Args, name: impl Fn(i64) -> Option<String>) -> Out {
    match (args.text(0), args.int(0)) {
        (Some(text), _) => Out::Text(text.to_owned()),
        (None, Some(0)) => Out::Text("-".to_owned()),
        (None, Some(oid)) => Out::Text(name(oid).unwrap_or_else(|| oid.to_string())),
        (None, None) => Out::Null,
    }
}

/// `name=value` as `name 'value'`.
fn option_text(option: &str) -> String {
    let (name, value) = option.split_once('=').unwrap_or((option, ""));
    format!("{} '{}'", quote_name(name), value.replace('\'', "''"))
}

/// An identifier as it must be written so that it is read back as `name`.
fn quote_name(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// The type with this id as SQL writes it.
fn format_type(oid: i64, modifier: i64) -> String {
    if oid == 0 {
        return "-".to_owned();
    }
    // A numeric's modifier holds precision and scale, as Postgres packs them.
    if oid == 1700 && modifier >= 4 {
        let packed = modifier - 4;
        return format!("numeric({},{})", packed >> 16, packed & 0x7ff);
    }
    if let Some(name) = u32::try_from(oid).ok().and_then(own_type) {
        return name;
    }
    match type_fact(oid) {
        Some(fact) => match fact.name.strip_prefix('_') {
            Some(element) => format!("{}[]", sql_name(element)),
            None => sql_name(fact.name).to_owned(),
        },
        None => "???".to_owned(),
    }
}

/// Types that columns can have; those that are read as text keep their own names.
fn own_type(oid: u32) -> Option<String> {
    let sql_type = SqlType::from_oid(oid)?;
    (sql_type.oid() == oid).then(|| match sql_type {
        SqlType::Numeric(p, s) if (p, s) == NUMERIC_DEFAULT => "numeric".to_owned(),
        other => other.to_string(),
    })
}

/// Internal type names that SQL writes otherwise.
fn sql_name(internal: &str) -> &str {
    match internal {
        "bpchar" => "character",
        "varchar" => "character varying",
        "char" => "\"char\"",
        "timetz" => "time with time zone",
        "varbit" => "bit varying",
        "any" => "\"any\"",
        other => other,
    }
}

/// The id of the type that a text names, as SQL or `pg_type` writes it.
fn type_oid(text: &str) -> Option<i64> {
    let text = text.trim().to_lowercase();
    let text = text.strip_prefix("pg_catalog.").unwrap_or(&text);
    let (element, is_array) = match text.strip_suffix("[]") {
        Some(element) => (element.trim(), true),
        None => (text, false),
    };
    let element = element.split('(').next().unwrap_or(element).trim();
    let fact = type_facts().iter().find(|t| t.name == element.trim_matches('"')).or_else(|| {
        type_facts().iter().find(|t| !t.name.starts_with('_') && format_type(t.oid, -1) == element)
    })?;
    if is_array { (fact.array() != 0).then_some(fact.array()) } else { Some(fact.oid) }
}

/// Bytes as Postgres prints sizes.
fn size_pretty(bytes: i64) -> String {
    const UNITS: [&str; 6] = ["bytes", "kB", "MB", "GB", "TB", "PB"];
    let mut size = bytes;
    for (index, unit) in UNITS.iter().enumerate() {
        // From the second unit on, sizes are kept in halves, for rounding.
        let limit = if index == 0 { 10 * 1024 } else { 20 * 1024 - 1 };
        if size.abs() < limit || index == UNITS.len() - 1 {
            let shown = if index == 0 { size } else { (size + size.signum()) / 2 };
            return format!("{shown} {unit}");
        }
        size /= if index == 0 { 512 } else { 1024 };
    }
    format!("{bytes} bytes")
}

/// The parts of a name as SQL writes it, folded.
fn name_parts(text: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    loop {
        let (part, after) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let end = quoted.find('"')?;
                (quoted[..end].to_owned(), &quoted[end + 1..])
            }
            None => {
                let end = rest.find('.').unwrap_or(rest.len());
                (rest[..end].trim().to_lowercase(), &rest[end..])
            }
        };
        parts.push(part);
        if after.is_empty() {
            return Some(parts);
        }
        rest = after.strip_prefix('.')?;
    }
}

impl Facts {
    fn lookup(&self, schema: &str, name: &str) -> Option<&Arc<Object>> {
        self.catalog.lookup(&ObjectName {
            database: self.database.clone(),
            schema: schema.to_owned(),
            name: name.to_owned(),
        })
    }

    fn object(&self, oid: i64) -> Option<&Object> {
        let object = self.catalog.get(object_of_oid(oid)?)?;
        (object.name.database == self.database).then_some(object.as_ref())
    }

    fn relation_visible(&self, oid: i64) -> bool {
        let object = self
            .object(oid)
            .or_else(|| self.catalog.get(object_of_index_oid(oid)?).map(AsRef::as_ref));
        match object {
            // The first relation of that name on the path hides the others.
            Some(object) => {
                let name = &object.name.name;
                let first = self.search_path.iter().find_map(|schema| self.lookup(schema, name));
                first.is_some_and(|first| first.id == object.id)
            }
            None => system_relation(oid).is_some_and(|r| r.schema_name == "pg_catalog"),
        }
    }

    /// The id of the relation that a text names.
    fn relation_oid(&self, text: &str) -> Option<i64> {
        let in_schema = |schema: &str, name: &str| match system_views::find(schema, name) {
            Some(relation) => Some(system_relation_oid(relation.name, relation.index)),
            None => self.lookup(schema, name).map(|o| relation_oid(o.id)),
        };
        match &name_parts(text)?[..] {
            [name] => in_schema("pg_catalog", name)
                .or_else(|| self.search_path.iter().find_map(|schema| in_schema(schema, name))),
            [schema, name] => in_schema(schema, name),
            [database, schema, name] if *database == self.database => in_schema(schema, name),
            _ => None,
        }
    }

    /// A relation's name, with its schema when it would not be found without.
    fn shown_name(&self, oid: i64) -> Option<String> {
        if let Some(object) = self.object(oid) {
            let name = quote_name(&object.name.name);
            return Some(match self.relation_visible(oid) {
                true => name,
                false => format!("{}.{name}", quote_name(&object.name.schema)),
            });
        }
        if let Some(object) = object_of_index_oid(oid).and_then(|id| self.catalog.get(id)) {
            return Some(primary_key_name(object));
        }
        let relation = system_relation(oid)?;
        Some(match relation.schema_name {
            "pg_catalog" => relation.name.to_owned(),
            schema => format!("{schema}.{}", relation.name),
        })
    }

    fn schemas(&self) -> impl Iterator<Item = &str> {
        let own = self.catalog.schemas(&self.database).unwrap_or_default();
        SYSTEM_SCHEMAS.into_iter().chain(own.iter().map(String::as_str))
    }

    fn schema_oid(&self, name: &str) -> Option<i64> {
        let parts = name_parts(name)?;
        let [name] = &parts[..] else { return None };
        self.schemas().find(|s| s == name).map(|s| schema_oid(&self.database, s))
    }

    fn schema_name(&self, oid: i64) -> Option<String> {
        self.schemas().find(|s| schema_oid(&self.database, s) == oid).map(quote_name)
    }

    fn view_definition(&self, oid: i64) -> Option<String> {
        match &self.object(oid)?.kind {
            ObjectKind::View(view) | ObjectKind::MaterializedView(view) => {
                Some(format!(" {};", view.query_sql.trim()))
            }
            ObjectKind::Source(_) | ObjectKind::Table(_) => None,
        }
    }

    /// The statement that would make an index, or its n-th column.
    fn index_definition(&self, oid: i64, column: i64) -> Option<String> {
        let object = self.catalog.get(object_of_index_oid(oid)?)?;
        if column == 0 {
            return index_definition(object);
        }
        let place = usize::try_from(column).ok()?.checked_sub(1)?;
        primary_key_columns(object).get(place).map(|name| quote_name(name))
    }

    fn constraint_definition(&self, oid: i64) -> Option<String> {
        let object = self.catalog.get(object_of_constraint_oid(oid)?)?;
        let columns: Vec<String> =
            primary_key_columns(object).iter().map(|name| quote_name(name)).collect();
        (!columns.is_empty()).then(|| format!("PRIMARY KEY ({})", columns.join(", ")))
    }

    fn comment(&self, oid: i64, column: Option<usize>) -> Option<String> {
        let object = self.object(oid)?;
        let mut comments = self.catalog.comments(object.id);
        comments.find(|(of, _)| *of == column).map(|(_, text)| text.to_owned())
    }
}

fn system_relation(oid: i64) -> Option<&'static system_views::SystemRelation> {
    system_views::relations().iter().find(|r| system_relation_oid(r.name, r.index) == oid)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected texts are those of PostgreSQL 15.
    #[test]
    fn types_and_sizes_print_as_in_postgres() {
        for (oid, modifier, expected) in [
            (23, -1, "integer"),
            (1700, -1, "numeric"),
            (1700, 655_366, "numeric(10,2)"),
            (1043, -1, "character varying"),
            (1015, -1, "character varying[]"),
            (1007, -1, "integer[]"),
            (18, -1, "\"char\""),
            (19, -1, "name"),
            (1184, -1, "timestamp with time zone"),
            (2205, -1, "regclass"),
            (0, -1, "-"),
            (999_999, -1, "???"),
        ] {
            assert_eq!(format_type(oid, modifier), expected);
        }
        for (name, oid) in [
            ("integer", 23),
            ("int4", 23),
            ("pg_catalog.int4", 23),
            ("int4[]", 1007),
            ("double precision", 701),
            ("timestamp with time zone", 1184),
            ("hstore", 0),
        ] {
            assert_eq!(type_oid(name).unwrap_or(0), oid, "{name}");
        }
        for (bytes, expected) in [
            (10_239, "10239 bytes"),
            (10_240, "10 kB"),
            (10_485_247, "10239 kB"),
            (10_485_248, "10 MB"),
            (1_048_576, "1024 kB"),
            (-20_000, "-20 kB"),
        ] {
            assert_eq!(size_pretty(bytes), expected);
        }
    }

    #[test]
    fn every_name_is_there_once() {
        for (index, function) in FUNCTIONS.iter().enumerate() {
            assert!(FUNCTIONS[..index].iter().all(|f| f.name != function.name));
        }
        assert_eq!(name_parts("Public.\"My T\""), Some(vec!["public".into(), "My T".into()]));
        assert_eq!(name_parts("\"a"), None);
    }
}
