//! The functions of `pg_catalog` that look at the catalog or the session: what psql, drivers and
//! BI tools call in their queries of the system relations.
//!
//! | file | owns |
//! |---|---|
//! | `facts.rs` | look-ups in the catalog, by object id and by name |
//! | `names.rs` | names of types, relations and options as SQL writes them |
//! | `special.rs` | `pg_sleep`, `pg_typeof`, lists of rows |
//!
//! One list: name, argument types, result, and how one row is computed. These run over a few
//! rows of a catalog, so a value at a time is fast enough.

mod facts;
mod names;
mod special;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, ListBuilder, StringArray,
    StringBuilder, TimestampMicrosecondArray, UInt32Array,
};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, TimeUnit};
use datafusion::common::{DataFusionError, Result as PlanResult, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility,
};
use futures::future::BoxFuture;

use self::facts::Facts;
use self::names::{format_type, option_text, size_pretty, type_oid};
pub use self::special::keywords;
use crate::catalog::pg_catalog::ROLE_OID;
use crate::catalog::pg_proc::{Proc, proc_of};
use crate::sql::bind::PlanContext;
use crate::sql::resolve::{external, search_schemas};
use crate::types::error::{Error, Result, SqlState};

/// The Postgres version whose catalog and behaviour clients may expect.
pub const SERVER_VERSION: &str = "15.0";

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

    /// A number for the transaction that is under way.
    fn transaction_id(&self) -> i64;

    /// Ready after that time.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
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
    /// Object ids as arguments too.
    Int8,
    Oid,
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
            Kind::Oid => DataType::UInt32,
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

use Kind::{Bool, Int4, Int8, Oid, Text, Texts, Time};

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
    function("pg_my_temp_schema", NONE, Oid, |_, _| Ok(Out::Int(0))),
    function("pg_is_other_temp_schema", OID, Bool, |_, _| Ok(Out::Bool(false))),
    function("current_schemas", &[&[Bool]], Texts, current_schemas),
    function("pg_get_userbyid", OID, Text, |f, args| {
        let name =
            |oid| if oid == ROLE_OID { f.user.clone() } else { format!("unknown (OID={oid})") };
        Ok(args.int(0).map(name).into())
    }),
    // Transactions: everything that is visible is committed.
    function("txid_current", NONE, Int8, transaction_id),
    function("pg_current_xact_id", NONE, Int8, transaction_id),
    function("txid_current_if_assigned", NONE, Int8, null),
    function("pg_current_xact_id_if_assigned", NONE, Int8, null),
    function("txid_status", &[&[Int8]], Text, |_, args| {
        Ok(args.int(0).map(|_| "committed".to_owned()).into())
    }),
    function("pg_blocking_pids", &[&[Int4]], Texts, |_, _| Ok(Out::Texts(Vec::new()))),
    function("pg_advisory_unlock_all", NONE, Text, |_, _| Ok(Out::Text(String::new()))),
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
    function("to_regclass", &[&[Text]], Oid, |f, args| {
        Ok(args.text(0).and_then(|name| f.relation_oid(name)).into())
    }),
    function("to_regtype", &[&[Text]], Oid, |_, args| Ok(args.text(0).and_then(type_oid).into())),
    function("to_regnamespace", &[&[Text]], Oid, |f, args| {
        Ok(args.text(0).and_then(|name| f.schema_oid(name)).into())
    }),
    function("to_regrole", &[&[Text]], Oid, |f, args| {
        Ok(args.text(0).and_then(|name| (*name == f.user).then_some(ROLE_OID)).into())
    }),
    function("_regclass_in", &[&[Text]], Oid, |f, args| {
        number_in(args, |n| f.relation_oid(n), SqlState::UNDEFINED_TABLE, "relation")
    }),
    function("_regtype_in", &[&[Text]], Oid, |_, args| {
        number_in(args, type_oid, SqlState::UNDEFINED_OBJECT, "type")
    }),
    function("_regnamespace_in", &[&[Text]], Oid, |f, args| {
        number_in(args, |n| f.schema_oid(n), SqlState::INVALID_SCHEMA_NAME, "schema")
    }),
    function("_regrole_in", &[&[Text]], Oid, |f, args| {
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
    // Names.
    function("parse_ident", &[&[Text], &[Text, Bool]], Texts, |_, args| {
        let Some(text) = args.text(0) else { return Ok(Out::Null) };
        names::name_parts(text).map(Out::Texts).ok_or_else(|| {
            let message = format!("string is not a valid identifier: \"{text}\"");
            Error::user(SqlState::INVALID_PARAMETER_VALUE, message)
        })
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
    function("pg_get_function_sqlbody", OID, Text, null),
    function("pg_get_function_result", OID, Text, |_, args| {
        Ok(args.int(0).and_then(proc_of).map(|function| function.result.clone()).into())
    }),
    function("pg_get_function_arguments", OID, Text, function_arguments),
    function("pg_get_function_identity_arguments", OID, Text, function_arguments),
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
    if let Some(function) = special::find(context.session.as_ref(), name) {
        return Some(function);
    }
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
            // Literals as arguments are bigint.
            kinds => TypeSignature::Exact(
                kinds
                    .iter()
                    .map(|kind| if *kind == Int4 { Int8 } else { *kind })
                    .map(Kind::data_type)
                    .collect(),
            ),
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
        Kind::Oid => {
            Arc::new(UInt32Array::from_iter(ints().map(|v| v.and_then(|v| u32::try_from(v).ok()))))
        }
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
        "PostgreSQL {SERVER_VERSION} (Millstream {}) on {}-{}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        std::env::consts::OS
    )
}

fn start_time(facts: &Facts, _args: &Args) -> Result<Out> {
    Ok(facts.session.as_ref().map_or(Out::Null, |s| Out::Time(s.connected_at_us())))
}

fn transaction_id(facts: &Facts, _args: &Args) -> Result<Out> {
    Ok(facts.session.as_ref().map_or(Out::Null, |s| Out::Int(s.transaction_id())))
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

fn function_arguments(_: &Facts, args: &Args) -> Result<Out> {
    Ok(args.int(0).and_then(proc_of).map(Proc::arguments).into())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_there_once() {
        for (index, function) in FUNCTIONS.iter().enumerate() {
            assert!(FUNCTIONS[..index].iter().all(|f| f.name != function.name));
        }
    }
}
