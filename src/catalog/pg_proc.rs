//! The rows of `pg_proc`: what `\df` of psql and the completion of other clients list.
//!
//! Functions that do the same under one name for several types have a row each, as in Postgres.
//! Ids are counted in the list's order and mean nothing beyond one version of the server.

use std::sync::OnceLock;

use crate::catalog::pg_catalog::ROLE_OID;
use crate::catalog::system_views::Row;
use crate::functions::scalar;
use crate::functions::scalar::call::{Overload, R, T};
use crate::functions::scalar::datetime::ROUND_TIME;
use crate::functions::scalar::string::{FIT_CHAR, FIT_LENGTH};
use crate::types::sql_type::SqlType;

/// Ids of functions begin here: none of Postgres's own objects that clients ask for have such ids.
const FIRST_OID: i64 = 9_000;
const SCHEMA_OID: i64 = 11;
const LANGUAGE_OID: i64 = 12;

/// Functions that the query engine brings (`f`), aggregate (`a`) and window (`w`) functions: kind,
/// name, arguments, result.
const OTHERS: &[(&str, &str, &[&str], &str)] = &[
    ("f", "abs", &["smallint"], "smallint"),
    ("f", "abs", &["integer"], "integer"),
    ("f", "abs", &["bigint"], "bigint"),
    ("f", "abs", &["numeric"], "numeric"),
    ("f", "abs", &["real"], "real"),
    ("f", "abs", &["double precision"], "double precision"),
    ("f", "asin", &["double precision"], "double precision"),
    ("f", "acos", &["double precision"], "double precision"),
    ("f", "atan", &["double precision"], "double precision"),
    ("f", "sin", &["double precision"], "double precision"),
    ("f", "cos", &["double precision"], "double precision"),
    ("f", "tan", &["double precision"], "double precision"),
    ("f", "cot", &["double precision"], "double precision"),
    ("f", "sinh", &["double precision"], "double precision"),
    ("f", "cosh", &["double precision"], "double precision"),
    ("f", "tanh", &["double precision"], "double precision"),
    ("f", "asinh", &["double precision"], "double precision"),
    ("f", "acosh", &["double precision"], "double precision"),
    ("f", "atanh", &["double precision"], "double precision"),
    ("f", "degrees", &["double precision"], "double precision"),
    ("f", "radians", &["double precision"], "double precision"),
    ("f", "atan2", &["double precision", "double precision"], "double precision"),
    ("f", "pi", &[], "double precision"),
    ("f", "ascii", &["text"], "integer"),
    ("f", "bit_length", &["text"], "integer"),
    ("f", "char_length", &["text"], "integer"),
    ("f", "octet_length", &["text"], "integer"),
    ("f", "btrim", &["text"], "text"),
    ("f", "btrim", &["text", "text"], "text"),
    ("f", "ltrim", &["text"], "text"),
    ("f", "ltrim", &["text", "text"], "text"),
    ("f", "rtrim", &["text"], "text"),
    ("f", "rtrim", &["text", "text"], "text"),
    ("f", "chr", &["integer"], "text"),
    ("f", "initcap", &["text"], "text"),
    ("f", "lower", &["text"], "text"),
    ("f", "upper", &["text"], "text"),
    ("f", "left", &["text", "integer"], "text"),
    ("f", "right", &["text", "integer"], "text"),
    ("f", "lpad", &["text", "integer"], "text"),
    ("f", "lpad", &["text", "integer", "text"], "text"),
    ("f", "rpad", &["text", "integer"], "text"),
    ("f", "rpad", &["text", "integer", "text"], "text"),
    ("f", "repeat", &["text", "integer"], "text"),
    ("f", "replace", &["text", "text", "text"], "text"),
    ("f", "reverse", &["text"], "text"),
    ("f", "translate", &["text", "text", "text"], "text"),
    ("f", "gen_random_uuid", &[], "uuid"),
    ("f", "generate_series", &["integer", "integer"], "integer"),
    ("f", "generate_series", &["bigint", "bigint"], "bigint"),
    (
        "f",
        "generate_series",
        &["timestamp without time zone", "timestamp without time zone", "interval"],
        "timestamp without time zone",
    ),
    ("f", "unnest", &["anyarray"], "anyelement"),
    ("f", "now", &[], "timestamp with time zone"),
    ("a", "count", &[], "bigint"),
    ("a", "count", &["\"any\""], "bigint"),
    ("a", "sum", &["smallint"], "bigint"),
    ("a", "sum", &["integer"], "bigint"),
    ("a", "sum", &["bigint"], "numeric"),
    ("a", "sum", &["numeric"], "numeric"),
    ("a", "sum", &["real"], "real"),
    ("a", "sum", &["double precision"], "double precision"),
    ("a", "avg", &["smallint"], "numeric"),
    ("a", "avg", &["integer"], "numeric"),
    ("a", "avg", &["bigint"], "numeric"),
    ("a", "avg", &["numeric"], "numeric"),
    ("a", "avg", &["real"], "double precision"),
    ("a", "avg", &["double precision"], "double precision"),
    ("a", "min", &["anyelement"], "anyelement"),
    ("a", "max", &["anyelement"], "anyelement"),
    ("a", "any_value", &["anyelement"], "anyelement"),
    ("a", "array_agg", &["anyelement"], "anyarray"),
    ("a", "string_agg", &["text", "text"], "text"),
    ("a", "bool_and", &["boolean"], "boolean"),
    ("a", "bool_or", &["boolean"], "boolean"),
    ("a", "bit_and", &["bigint"], "bigint"),
    ("a", "bit_or", &["bigint"], "bigint"),
    ("a", "bit_xor", &["bigint"], "bigint"),
    ("a", "var_samp", &["double precision"], "double precision"),
    ("a", "var_pop", &["double precision"], "double precision"),
    ("a", "variance", &["double precision"], "double precision"),
    ("a", "stddev_samp", &["double precision"], "double precision"),
    ("a", "stddev_pop", &["double precision"], "double precision"),
    ("a", "stddev", &["double precision"], "double precision"),
    ("a", "covar_samp", &["double precision", "double precision"], "double precision"),
    ("a", "covar_pop", &["double precision", "double precision"], "double precision"),
    ("a", "corr", &["double precision", "double precision"], "double precision"),
    ("a", "regr_slope", &["double precision", "double precision"], "double precision"),
    ("a", "regr_intercept", &["double precision", "double precision"], "double precision"),
    ("a", "regr_count", &["double precision", "double precision"], "bigint"),
    ("a", "regr_r2", &["double precision", "double precision"], "double precision"),
    ("a", "regr_avgx", &["double precision", "double precision"], "double precision"),
    ("a", "regr_avgy", &["double precision", "double precision"], "double precision"),
    ("a", "regr_sxx", &["double precision", "double precision"], "double precision"),
    ("a", "regr_syy", &["double precision", "double precision"], "double precision"),
    ("a", "regr_sxy", &["double precision", "double precision"], "double precision"),
    ("a", "median", &["double precision"], "double precision"),
    ("a", "percentile_cont", &["double precision", "double precision"], "double precision"),
    ("a", "percentile_disc", &["double precision", "anyelement"], "anyelement"),
    ("a", "mode", &["anyelement"], "anyelement"),
    ("w", "row_number", &[], "bigint"),
    ("w", "rank", &[], "bigint"),
    ("w", "dense_rank", &[], "bigint"),
    ("w", "percent_rank", &[], "double precision"),
    ("w", "cume_dist", &[], "double precision"),
    ("w", "ntile", &["integer"], "integer"),
    ("w", "lag", &["anyelement"], "anyelement"),
    ("w", "lag", &["anyelement", "integer"], "anyelement"),
    ("w", "lag", &["anyelement", "integer", "anyelement"], "anyelement"),
    ("w", "lead", &["anyelement"], "anyelement"),
    ("w", "lead", &["anyelement", "integer"], "anyelement"),
    ("w", "lead", &["anyelement", "integer", "anyelement"], "anyelement"),
    ("w", "first_value", &["anyelement"], "anyelement"),
    ("w", "last_value", &["anyelement"], "anyelement"),
    ("w", "nth_value", &["anyelement", "integer"], "anyelement"),
];

/// A function of the catalog.
#[derive(Debug)]
pub struct Proc {
    pub oid: i64,
    name: &'static str,
    /// `f`, `a` or `w`.
    kind: &'static str,
    arguments: Vec<String>,
    variadic: bool,
    /// A type's name.
    pub result: String,
    strict: bool,
    volatile: bool,
}

impl Proc {
    /// The list of arguments, as `\df` shows it.
    pub fn arguments(&self) -> String {
        let mut list = self.arguments.clone();
        if let (true, Some(last)) = (self.variadic, list.last_mut()) {
            last.insert_str(0, "VARIADIC ");
        }
        list.join(", ")
    }
}

/// All functions.
pub fn procs() -> &'static [Proc] {
    static PROCS: OnceLock<Vec<Proc>> = OnceLock::new();
    PROCS.get_or_init(|| {
        // Operators are functions too, and so is what columns do to values.
        let listed = |overload: &Overload| {
            overload.name.starts_with(|c: char| c.is_ascii_alphabetic())
                && ![FIT_LENGTH, FIT_CHAR, ROUND_TIME].contains(&overload.name)
        };
        let scalars = scalar::overloads().into_iter().filter(listed).map(of_overload);
        let others = OTHERS.iter().map(|(kind, name, arguments, result)| Proc {
            oid: 0,
            name,
            kind,
            arguments: arguments.iter().map(ToString::to_string).collect(),
            variadic: false,
            result: (*result).to_owned(),
            strict: false,
            volatile: false,
        });
        let numbered = scalars.chain(others).zip(FIRST_OID..);
        numbered.map(|(function, oid)| Proc { oid, ..function }).collect()
    })
}

/// The function with this id.
pub fn proc_of(oid: i64) -> Option<&'static Proc> {
    let place = usize::try_from(oid.checked_sub(FIRST_OID)?).ok()?;
    procs().get(place)
}

fn of_overload(overload: Overload) -> Proc {
    let types: Vec<SqlType> = overload.arguments.iter().map(|t| t.sql_type()).collect();
    let name_of = |t: T| match t {
        T::Any => "\"any\"".to_owned(),
        T::AnyArray => "anyarray".to_owned(),
        T::AnyElement => "anyelement".to_owned(),
        t => t.sql_type().family_name(),
    };
    let of_argument = |index: usize| overload.arguments.get(index).copied().unwrap_or(T::Any);
    let result = match overload.result {
        R::Is(t) => name_of(t),
        R::Like(index) => name_of(of_argument(index)),
        R::ArrayOf(_) => "anyarray".to_owned(),
        R::ItemOf(_) => "anyelement".to_owned(),
        R::Array(t) => format!("{}[]", name_of(t)),
        R::By(result) => result(&types, &vec![None; types.len()]).family_name(),
    };
    Proc {
        oid: 0,
        name: overload.name,
        kind: "f",
        arguments: overload.arguments.iter().map(|t| name_of(*t)).collect(),
        variadic: overload.variadic,
        result,
        strict: overload.strict,
        volatile: overload.volatile,
    }
}

/// The id of a type of these lists.
fn type_oid(name: &str) -> i64 {
    match name {
        "\"any\"" => 2276,
        "anyarray" => 2277,
        "anyelement" => 2283,
        name => {
            let (item, is_array) = match name.strip_suffix("[]") {
                Some(item) => (item, true),
                None => (name, false),
            };
            let known = SqlType::all_scalar().into_iter().find(|t| t.family_name() == item);
            known.map_or(0, |t| {
                let t = if is_array { SqlType::Array(Box::new(t)) } else { t };
                i64::from(t.oid())
            })
        }
    }
}

pub(super) fn rows() -> Vec<Row> {
    procs()
        .iter()
        .map(|function| {
            let arguments = function.arguments.iter().map(|name| type_oid(name)).collect();
            vec![
                ("oid", function.oid.into()),
                ("proname", function.name.into()),
                ("pronamespace", SCHEMA_OID.into()),
                ("proowner", ROLE_OID.into()),
                ("prolang", LANGUAGE_OID.into()),
                ("provariadic", if function.variadic { 2276 } else { 0 }.into()),
                ("prokind", function.kind.into()),
                ("proisstrict", function.strict.into()),
                ("provolatile", if function.volatile { "v" } else { "i" }.into()),
                ("proparallel", "s".into()),
                ("pronargs", (function.arguments.len() as i64).into()),
                ("prorettype", type_oid(&function.result).into()),
                ("proargtypes", super::system_views::Cell::Ints(arguments)),
                ("prosrc", function.name.into()),
            ]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_has_types_that_the_catalog_knows() {
        for function in procs() {
            let types = function.arguments.iter().chain([&function.result]);
            for name in types {
                assert_ne!(type_oid(name), 0, "{name} of {}", function.name);
            }
            assert!(std::ptr::eq(proc_of(function.oid).expect("a known id"), function));
        }
        assert!(proc_of(FIRST_OID - 1).is_none() && proc_of(FIRST_OID + 1_000_000).is_none());
    }
}
