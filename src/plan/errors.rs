//! DataFusion's errors in Postgres's words.
//!
//! DataFusion tells most planning errors by their text alone. [`RULES`] is the table of texts that
//! users meet, each with the SQLSTATE and the words that Postgres has for it; what is not in it is
//! a syntax error with DataFusion's words. The texts are those of DataFusion 55; the tests of
//! `sql` plan every kind of wrong statement and would notice other ones.

use std::str::FromStr;
use std::sync::Arc;

use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use datafusion::common::{Column, DataFusionError, SchemaError};

use crate::types::error::{Error, SqlState};
use crate::types::sql_type::SqlType;

const NO_FUNCTION_HINT: &str = "No function matches the given name and argument types. You might \
     need to add explicit type casts.";
const NO_OPERATOR_HINT: &str = "No operator matches the given name and argument types. You might \
     need to add explicit type casts.";

impl From<DataFusionError> for Error {
    /// Planning errors are the user's, resource errors the world's, the rest ours.
    fn from(error: DataFusionError) -> Error {
        match error {
            DataFusionError::ArrowError(arrow, _) => Error::from(*arrow),
            DataFusionError::External(source) => match source.downcast::<Error>() {
                Ok(ours) => *ours,
                Err(source) => match source.downcast::<ArrowError>() {
                    Ok(arrow) => Error::from(*arrow),
                    Err(other) => Error::external(SqlState::IO_ERROR, other.to_string()),
                },
            },
            DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => {
                Error::from(*inner)
            }
            DataFusionError::Collection(errors) => match errors.into_iter().next() {
                // They are of one statement: the user mends the first and meets the next.
                Some(first) => Error::from(first),
                None => Error::internal("an error without a cause"),
            },
            DataFusionError::Shared(inner) => match Arc::try_unwrap(inner) {
                Ok(inner) => Error::from(inner),
                Err(inner) => shared(&inner),
            },
            other => textual(&other),
        }
    }
}

/// An error that several streams hold: only what can be read of it without owning it.
fn shared(error: &DataFusionError) -> Error {
    match error {
        DataFusionError::External(source) => match source.downcast_ref::<Error>() {
            Some(ours) => ours.clone(),
            None => Error::external(SqlState::IO_ERROR, source.to_string()),
        },
        DataFusionError::ArrowError(arrow, _) => match arrow.as_ref() {
            ArrowError::DivideByZero => Error::from(ArrowError::DivideByZero),
            ArrowError::ArithmeticOverflow(text) => {
                Error::from(ArrowError::ArithmeticOverflow(text.clone()))
            }
            ArrowError::CastError(text) => Error::from(ArrowError::CastError(text.clone())),
            ArrowError::ParseError(text) => Error::from(ArrowError::ParseError(text.clone())),
            ArrowError::ExternalError(source) => match source.downcast_ref::<Error>() {
                Some(ours) => ours.clone(),
                None => Error::external(SqlState::IO_ERROR, source.to_string()),
            },
            other => Error::user(SqlState::DATA_EXCEPTION, other.to_string()),
        },
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => shared(inner),
        DataFusionError::Shared(inner) => shared(inner),
        other => textual(other),
    }
}

/// An error that is nothing but its text.
fn textual(error: &DataFusionError) -> Error {
    match error {
        DataFusionError::SchemaError(error, _) => schema_error(error),
        DataFusionError::Plan(text) => {
            from_rules(text).unwrap_or_else(|| Error::user(SqlState::SYNTAX_ERROR, sentence(text)))
        }
        DataFusionError::NotImplemented(text) => from_rules(text)
            .unwrap_or_else(|| Error::user(SqlState::FEATURE_NOT_SUPPORTED, sentence(text))),
        DataFusionError::Execution(text) => from_rules(text)
            .unwrap_or_else(|| Error::user(SqlState::DATA_EXCEPTION, sentence(text))),
        DataFusionError::SQL(error, _) => {
            Error::user(SqlState::SYNTAX_ERROR, sentence(&error.to_string()))
        }
        DataFusionError::ResourcesExhausted(text) => {
            Error::external(SqlState::OUT_OF_MEMORY, "not enough memory for the query")
                .detail(format!("{}.", text.trim_end_matches('.')))
                .hint("Let it do less at once, or start the server with a higher --memory-limit.")
        }
        other => {
            let text = other.to_string();
            from_rules(&text).unwrap_or_else(|| Error::internal(sentence(&text)))
        }
    }
}

/// A message as Postgres begins one: in lower case, one line, no full stop.
fn sentence(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim().trim_end_matches('.');
    let mut chars = line.chars();
    match (chars.next(), chars.next()) {
        // `LIMIT` and the like stay.
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().collect::<String>() + &line[first.len_utf8()..]
        }
        _ => line.to_owned(),
    }
}

fn schema_error(error: &SchemaError) -> Error {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => no_column(field, valid_fields),
        SchemaError::AmbiguousReference { field } => Error::user(
            SqlState::AMBIGUOUS_COLUMN,
            format!("column reference \"{}\" is ambiguous", field.name),
        ),
        SchemaError::DuplicateQualifiedField { qualifier, .. } => Error::user(
            SqlState::DUPLICATE_ALIAS,
            format!("table name \"{}\" specified more than once", qualifier.table()),
        ),
        SchemaError::DuplicateUnqualifiedField { name } => duplicate_column(name),
    }
}

fn duplicate_column(name: &str) -> Error {
    Error::user(SqlState::DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once"))
}

/// A name that no column has: the table may not be there either.
fn no_column(field: &Column, valid: &[Column]) -> Error {
    let Some(relation) = &field.relation else {
        let error = Error::user(
            SqlState::UNDEFINED_COLUMN,
            format!("column \"{}\" does not exist", field.name),
        );
        return match similar_column(&field.name, valid) {
            Some(similar) => {
                error.hint(format!("Perhaps you meant to reference the column \"{similar}\"."))
            }
            None => error,
        };
    };
    let table_exists = valid
        .iter()
        .any(|column| column.relation.as_ref().is_some_and(|r| r.table() == relation.table()));
    if table_exists {
        let error = Error::user(
            SqlState::UNDEFINED_COLUMN,
            format!("column {}.{} does not exist", relation.table(), field.name),
        );
        return match similar_column(&field.name, valid) {
            Some(similar) => {
                error.hint(format!("Perhaps you meant to reference the column \"{similar}\"."))
            }
            None => error,
        };
    }
    missing_table(relation.table())
}

fn missing_table(table: &str) -> Error {
    Error::user(
        SqlState::UNDEFINED_TABLE,
        format!("missing FROM-clause entry for table \"{table}\""),
    )
}

/// The column whose name is one or two edits away, if there is one.
fn similar_column(name: &str, valid: &[Column]) -> Option<String> {
    let similar = valid.iter().find(|column| {
        column.name != name
            && (column.name.eq_ignore_ascii_case(name) || one_edit_apart(&column.name, name))
    })?;
    Some(match &similar.relation {
        Some(relation) => format!("{}.{}", relation.table(), similar.name),
        None => similar.name.clone(),
    })
}

/// Whether one insertion, deletion, replacement or swap makes the names equal.
fn one_edit_apart(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let same_before = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let same_after = a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count();
    let longest = a.len().max(b.len());
    if longest < 3 {
        return false;
    }
    let shortest = a.len().min(b.len());
    let swapped = a.len() == b.len()
        && same_before + 2 + same_after >= a.len()
        && a.get(same_before) == b.get(same_before + 1)
        && a.get(same_before + 1) == b.get(same_before);
    (longest - shortest <= 1 && same_before + same_after + 1 >= longest) || swapped
}

/// What DataFusion says, and what Postgres would.
struct Rule {
    /// A part of DataFusion's text.
    sign: &'static str,
    /// Ours; `None` when the text is not of the expected form after all.
    say: fn(&str) -> Option<Error>,
}

/// The first rule whose sign is in the text decides.
const RULES: &[Rule] = &[
    Rule { sign: "No function matches the given name", say: no_function },
    Rule {
        sign: "Invalid function '",
        say: |text| {
            let name = between(text, "Invalid function '", "'")?;
            Some(Error::user(
                SqlState::UNDEFINED_FUNCTION,
                format!("function {name} does not exist"),
            ))
        },
    },
    Rule {
        sign: "Cannot coerce arithmetic expression ",
        say: |text| {
            no_operator(between(text, "Cannot coerce arithmetic expression ", " to valid types")?)
        },
    },
    Rule {
        sign: "Cannot infer common argument type for logical boolean operation ",
        say: |text| not_boolean(after(text, "logical boolean operation ")?),
    },
    Rule {
        sign: "Cannot infer common argument type for ",
        say: |text| no_operator(after(text, " operation ")?),
    },
    Rule {
        sign: "Cannot infer common string type for string concat operation ",
        say: |text| no_operator(after(text, "string concat operation ")?),
    },
    Rule {
        sign: "Cannot infer common type for bitwise operation ",
        say: |text| no_operator(after(text, "bitwise operation ")?),
    },
    Rule {
        sign: "Cannot get result type for ",
        say: |text| no_operator(between(text, " operation ", ": ")?),
    },
    Rule {
        sign: "Unary operator 'NOT' requires",
        say: |text| Some(must_be_boolean("NOT", after(text, ", got ")?)),
    },
    Rule {
        sign: "Unary operator '-' only supports",
        say: |_| {
            let error = Error::user(SqlState::UNDEFINED_FUNCTION, "operator does not exist: -");
            Some(error.hint(NO_OPERATOR_HINT))
        },
    },
    Rule {
        sign: "Cannot create filter with non-boolean predicate",
        say: |text| Some(must_be_boolean("WHERE", after(text, "' returning ")?)),
    },
    Rule {
        sign: "For SELECT DISTINCT, ORDER BY expressions ",
        say: |_| {
            Some(Error::user(
                SqlState::INVALID_COLUMN_REFERENCE,
                "for SELECT DISTINCT, ORDER BY expressions must appear in select list",
            ))
        },
    },
    Rule {
        sign: "cannot take square root of a negative number",
        say: |_| {
            Some(Error::user(SqlState("2201F"), "cannot take square root of a negative number"))
        },
    },
    Rule { sign: "must appear in the GROUP BY clause", say: not_grouped },
    Rule {
        sign: "Aggregate functions are not allowed in the WHERE clause",
        say: |_| {
            Some(Error::user(
                SqlState::GROUPING_ERROR,
                "aggregate functions are not allowed in WHERE",
            ))
        },
    },
    Rule {
        sign: "Aggregate function calls cannot be nested",
        say: |_| {
            Some(Error::user(SqlState::GROUPING_ERROR, "aggregate function calls cannot be nested"))
        },
    },
    Rule {
        sign: "queries have different number of columns",
        say: |text| {
            let op = text.split(' ').next()?;
            Some(Error::user(
                SqlState::SYNTAX_ERROR,
                format!("each {op} query must have the same number of columns"),
            ))
        },
    },
    Rule {
        sign: "Incompatible inputs for Union",
        say: |text| {
            let first = between(text, "were of type ", ",")?;
            let second = between(text, "incompatible type ", " on column")?;
            Some(types_do_not_match("UNION", first, second))
        },
    },
    Rule {
        sign: "to common types in CASE WHEN expression",
        say: |text| {
            let then = between(text, "then (", ")")?;
            let otherwise = between(text, "else (", ")")?;
            Some(types_do_not_match("CASE", then, otherwise))
        },
    },
    Rule {
        sign: "The subquery should only return one column",
        say: |_| Some(Error::user(SqlState::SYNTAX_ERROR, "subquery must return only one column")),
    },
    Rule {
        sign: "Scalar subquery returned more than one row",
        say: |_| {
            Some(Error::user(
                SqlState::CARDINALITY_VIOLATION,
                "more than one row returned by a subquery used as an expression",
            ))
        },
    },
    Rule {
        sign: "Order by column out of bounds, specified: ",
        say: |text| {
            let position = between(text, "specified: ", ",")?;
            Some(position_not_listed("ORDER BY", position))
        },
    },
    Rule {
        sign: "Cannot find column with position ",
        say: |text| {
            let position = between(text, "Cannot find column with position ", " ")?;
            Some(position_not_listed("GROUP BY", position))
        },
    },
    Rule {
        sign: "LIMIT must be >= 0",
        say: |_| {
            Some(Error::user(SqlState::INVALID_ROW_COUNT_IN_LIMIT, "LIMIT must not be negative"))
        },
    },
    Rule {
        sign: "OFFSET must be >= 0",
        say: |_| {
            Some(Error::user(SqlState::INVALID_ROW_COUNT_IN_OFFSET, "OFFSET must not be negative"))
        },
    },
    Rule {
        sign: " to be an integer or null, but got ",
        say: |text| {
            let clause = between(text, "Expected ", " to be")?;
            let name = type_name(after(text, "but got ")?);
            Some(Error::user(
                SqlState::DATATYPE_MISMATCH,
                format!("argument of {clause} must be type bigint, not type {name}"),
            ))
        },
    },
    Rule {
        sign: "Source table contains ",
        say: |text| {
            let available = between(text, "Source table contains ", " columns")?;
            let given = between(text, "but only ", " names")?;
            Some(Error::user(
                SqlState::INVALID_COLUMN_REFERENCE,
                format!("table has {available} columns available but {given} columns specified"),
            ))
        },
    },
    Rule {
        sign: "Inconsistent data length across values list",
        say: |_| {
            Some(Error::user(SqlState::SYNTAX_ERROR, "VALUES lists must all be the same length"))
        },
    },
    Rule {
        sign: "Invalid qualifier ",
        say: |text| Some(missing_table(after(text, "Invalid qualifier ")?)),
    },
    Rule {
        sign: "WITH query name ",
        say: |text| Some(Error::user(SqlState::DUPLICATE_ALIAS, text.to_owned())),
    },
    Rule {
        sign: "Projections require unique expression names",
        say: |text| {
            let name = between(text, "expression \"", "\"")?;
            Some(duplicate_column(name.rsplit('.').next()?.split(' ').next_back()?))
        },
    },
    Rule {
        sign: "Placeholder type could not be resolved",
        say: |text| {
            let id = between(text, "`", "`").or_else(|| between(text, "'", "'")).unwrap_or("$1");
            Some(Error::user(
                SqlState::INDETERMINATE_DATATYPE,
                format!("could not determine data type of parameter {id}"),
            ))
        },
    },
    Rule {
        sign: "Physical plan does not support logical expression WindowFunction",
        say: |_| {
            Some(
                Error::user(SqlState::WINDOWING_ERROR, "window functions are not allowed here")
                    .hint("Compute them in a subquery, and filter its result."),
            )
        },
    },
    Rule {
        sign: "Physical plan does not support logical expression ",
        say: |text| {
            let what = after(text, "Physical plan does not support logical expression ")?;
            let what = what.split('(').next()?;
            let subqueries = ["OuterReferenceColumn", "ScalarSubquery", "Exists", "InSubquery"];
            Some(match subqueries.contains(&what) {
                true => Error::unsupported("a correlated subquery of this kind")
                    .hint("Join what it reads in FROM, or write it as LATERAL (SELECT ...) there."),
                false => Error::unsupported(format!("{what} in this place")),
            })
        },
    },
    Rule {
        sign: "Correlated scalar subquery must be aggregated",
        say: |_| {
            Some(
                Error::unsupported("a correlated subquery that may give several rows")
                    .hint("Use an aggregate such as max() in it."),
            )
        },
    },
    Rule {
        sign: "Date part '",
        say: |text| {
            let part = between(text, "Date part '", "'")?;
            Some(Error::user(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("unit \"{part}\" not recognized"),
            ))
        },
    },
];

fn from_rules(text: &str) -> Option<Error> {
    let text = text.strip_prefix("Error during planning: ").unwrap_or(text);
    RULES.iter().find(|rule| text.contains(rule.sign)).and_then(|rule| (rule.say)(text))
}

fn after<'a>(text: &'a str, sign: &str) -> Option<&'a str> {
    text.split_once(sign).map(|(_, rest)| rest.trim())
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(from)?;
    rest.split_once(to).map(|(inner, _)| inner)
}

/// An Arrow type's name as SQL's.
fn type_name(arrow: &str) -> String {
    let arrow = arrow.trim();
    match DataType::from_str(arrow) {
        Ok(DataType::Null) => "unknown".to_owned(),
        Ok(data_type) => {
            SqlType::of_arrow(&data_type).map_or_else(|| arrow.to_owned(), |t| t.to_string())
        }
        Err(_) => arrow.to_owned(),
    }
}

/// `... 'sum(Utf8)'. You might need ...`
fn no_function(text: &str) -> Option<Error> {
    let call = between(text, "argument types '", "'. ")?;
    let (name, arguments) = call.strip_suffix(')')?.split_once('(')?;
    let arguments: Vec<String> = split_types(arguments).into_iter().map(type_name).collect();
    if name == "make_array"
        && let [first, .., last] = arguments.as_slice()
    {
        let error = format!("ARRAY types {first} and {last} cannot be matched");
        return Some(Error::user(SqlState::DATATYPE_MISMATCH, error));
    }
    let message = format!("function {name}({}) does not exist", arguments.join(", "));
    Some(Error::user(SqlState::UNDEFINED_FUNCTION, message).hint(NO_FUNCTION_HINT))
}

/// Types between commas, commas within parentheses apart.
fn split_types(list: &str) -> Vec<&str> {
    let mut types = vec![];
    let (mut depth, mut start) = (0_i32, 0);
    for (index, c) in list.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                types.push(&list[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    if !list[start..].trim().is_empty() {
        types.push(&list[start..]);
    }
    types
}

/// `Int32 + Utf8`.
fn no_operator(expression: &str) -> Option<Error> {
    let (left, op, right) = operands(expression)?;
    let message = format!("operator does not exist: {} {op} {}", type_name(left), type_name(right));
    Some(Error::user(SqlState::UNDEFINED_FUNCTION, message).hint(NO_OPERATOR_HINT))
}

/// `Boolean AND Int32`.
fn not_boolean(expression: &str) -> Option<Error> {
    let (left, op, right) = operands(expression)?;
    let wrong = if left == "Boolean" { right } else { left };
    Some(must_be_boolean(op, wrong))
}

/// The operator stands between spaces; types may have spaces in parentheses only.
fn operands(expression: &str) -> Option<(&str, &str, &str)> {
    let mut depth = 0_i32;
    let mut spaces = expression.char_indices().filter_map(|(index, c)| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ' ' if depth == 0 => return Some(index),
            _ => {}
        }
        None
    });
    let (first, second) = (spaces.next()?, spaces.next()?);
    Some((&expression[..first], &expression[first + 1..second], &expression[second + 1..]))
}

fn must_be_boolean(clause: &str, arrow: &str) -> Error {
    Error::user(
        SqlState::DATATYPE_MISMATCH,
        format!("argument of {clause} must be type boolean, not type {}", type_name(arrow)),
    )
}

fn types_do_not_match(construct: &str, first: &str, second: &str) -> Error {
    Error::user(
        SqlState::DATATYPE_MISMATCH,
        format!(
            "{construct} types {} and {} cannot be matched",
            type_name(first),
            type_name(second)
        ),
    )
}

fn position_not_listed(clause: &str, position: &str) -> Error {
    Error::user(
        SqlState::INVALID_COLUMN_REFERENCE,
        format!("{clause} position {position} is not in select list"),
    )
}

fn not_grouped(text: &str) -> Option<Error> {
    let column = match between(text, "column \"", "\"") {
        Some(column) => column,
        // HAVING clause references: t.id > 1 must appear ...
        None => after(text, "HAVING clause references: ")?.split(' ').next()?,
    };
    Some(Error::user(
        SqlState::GROUPING_ERROR,
        format!(
            "column \"{column}\" must appear in the GROUP BY clause or be used in an aggregate \
             function"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> String {
        let error = Error::from(DataFusionError::Plan(text.to_owned()));
        format!("{}: {}", error.sqlstate().0, error.message())
    }

    #[test]
    fn texts_become_postgres_words() {
        for (text, expected) in [
            (
                "Cannot coerce arithmetic expression Int32 + Utf8 to valid types",
                "42883: operator does not exist: integer + text",
            ),
            (
                "Cannot infer common argument type for comparison operation Timestamp(µs, \"UTC\") = Int64",
                "42883: operator does not exist: timestamp with time zone = bigint",
            ),
            (
                "Cannot infer common argument type for logical boolean operation Boolean AND Int32",
                "42804: argument of AND must be type boolean, not type integer",
            ),
            (
                "Function 'f' failed. No function matches the given name and argument types \
                 'f(Decimal128(10, 2), List(Int32))'. You might need to add explicit type casts.",
                "42883: function f(numeric(10,2), integer[]) does not exist",
            ),
            ("Something new.\nwith lines", "42601: something new"),
            ("LIMIT of something", "42601: LIMIT of something"),
        ] {
            assert_eq!(plan(text), expected);
        }
    }

    #[test]
    fn every_rule_reads_its_own_sign() {
        let signs: Vec<&str> = RULES.iter().map(|rule| rule.sign).collect();
        for (index, sign) in signs.iter().enumerate() {
            let hidden = signs[..index].iter().any(|earlier| sign.contains(earlier));
            assert!(!hidden, "{sign} is never reached");
        }
    }

    #[test]
    fn names_one_edit_apart_are_similar() {
        for (a, b, expected) in [
            ("name", "nmae", true),
            ("name", "names", true),
            ("name", "nam", true),
            ("name", "nome", true),
            ("name", "label", false),
            ("id", "ie", false),
        ] {
            assert_eq!(one_edit_apart(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn errors_inside_shared_ones_are_found() {
        let ours = Error::user(SqlState::DIVISION_BY_ZERO, "division by zero");
        let inner = Arc::new(DataFusionError::External(Box::new(ours)));
        let other = inner.clone();
        let error = Error::from(DataFusionError::Shared(inner));
        assert_eq!(error.sqlstate(), SqlState::DIVISION_BY_ZERO);
        drop(other);
    }
}
