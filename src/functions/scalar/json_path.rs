//! SQL/JSON paths (chapter 9.16.2 of Postgres's manual): the `jsonb_path_...` functions, `@?` and
//! `@@`, and `json_value`, `json_query` and `json_exists` in their short forms.
//!
//! The path language is that of the crate `sql_json_path`; this file makes documents its values,
//! bounds what a path may nest, and gives errors their SQLSTATEs.
//!
//! A path is read once for consecutive rows that have the same.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::ArrayRef;
use chrono::FixedOffset;
use serde_json::{Map, Number, Value};
use sql_json_path::{EvalError, JsonPath};

use crate::functions::scalar::call::{Call, Overload, R, T, function};
use crate::types::error::{Error, Result, SqlState};
use crate::types::text::json::{Node, read_jsonb, write_jsonb};

/// Brackets and signs within each other: the crate's parser calls itself, and tries some brackets
/// as two things, so that its time doubles with each.
const PATH_DEPTH_MAX: usize = 12;

/// All of them.
pub fn all() -> Vec<Overload> {
    use T::{Bool, Json, Jsonb, Text};
    let mut list = vec![
        function("@?", &[Jsonb, Text], R::Is(Bool), |c| exists(c, Mode::SILENT)),
        function("@@", &[Jsonb, Text], R::Is(Bool), |c| matches(c, Mode::SILENT)),
    ];
    for arguments in [&[Jsonb, Text][..], &[Jsonb, Text, Jsonb], &[Jsonb, Text, Jsonb, Bool]] {
        list.extend([
            function("jsonb_path_exists", arguments, R::Is(Bool), |c| exists(c, Mode::PLAIN)),
            function("jsonb_path_match", arguments, R::Is(Bool), |c| matches(c, Mode::PLAIN)),
            function("jsonb_path_query", arguments, R::ArrayOf(0), |c| items(c, Mode::PLAIN)),
            function("jsonb_path_query_array", arguments, R::Is(Jsonb), |c| array(c, Mode::PLAIN)),
            function("jsonb_path_query_first", arguments, R::Is(Jsonb), |c| first(c, Mode::PLAIN)),
            function("jsonb_path_exists_tz", arguments, R::Is(Bool), |c| exists(c, Mode::ZONED)),
            function("jsonb_path_match_tz", arguments, R::Is(Bool), |c| matches(c, Mode::ZONED)),
            function("jsonb_path_query_tz", arguments, R::ArrayOf(0), |c| items(c, Mode::ZONED)),
            function("jsonb_path_query_array_tz", arguments, R::Is(Jsonb), |c| {
                array(c, Mode::ZONED)
            }),
            function("jsonb_path_query_first_tz", arguments, R::Is(Jsonb), |c| {
                first(c, Mode::ZONED)
            }),
        ]);
    }
    for kind in [Jsonb, Json] {
        list.extend([
            function("json_exists", &[kind, Text], R::Is(Bool), json_exists),
            function("json_value", &[kind, Text], R::Is(Text), json_value),
            function("json_query", &[kind, Text], R::Is(Jsonb), json_query),
        ]);
    }
    list
}

/// How a function reads a path.
#[derive(Clone, Copy)]
struct Mode {
    /// Errors are NULL, or no items.
    silent: bool,
    /// Times with and without a zone are comparable.
    zoned: bool,
}

impl Mode {
    const PLAIN: Mode = Mode { silent: false, zoned: false };
    const SILENT: Mode = Mode { silent: true, zoned: false };
    const ZONED: Mode = Mode { silent: false, zoned: true };
}

/// The paths of a call's rows.
struct Paths<'a> {
    call: &'a Call<'a>,
    mode: Mode,
    /// The last path that was read, with its text.
    last: RefCell<Option<(String, JsonPath)>>,
}

impl<'a> Paths<'a> {
    fn new(call: &'a Call<'a>, mode: Mode) -> Paths<'a> {
        Paths { call, mode, last: RefCell::new(None) }
    }

    /// What a row's path finds; `None`: it fails, silently.
    fn find(&self, row: usize) -> Result<Option<Vec<Value>>> {
        let text = self.call.text(1).value(row);
        let mut last = self.last.borrow_mut();
        let path = match &mut *last {
            Some((of, path)) if of == text => path,
            last => &mut last.insert((text.to_owned(), read_path(text)?)).1,
        };
        let document = value_of(&read_jsonb(self.call.text(0).value(row))?)?;
        let variables = match self.call.text_at(2, row) {
            Some(text) => value_of(&read_jsonb(text)?)?,
            None => Value::Object(Map::new()),
        };
        let silent = self.is_silent(row);
        let zone = self.call.settings.zone.offset_at(self.call.settings.now_us);
        let zone = FixedOffset::east_opt(zone).ok_or_else(|| Error::internal("a zone's offset"))?;
        let query = || -> Result<Vec<Value>, EvalError> {
            let found = match self.mode.zoned {
                true => path.query_with_vars_tz(&document, &variables, zone)?,
                false => path.query_with_vars_at_timezone(&document, &variables, zone)?,
            };
            Ok(found.into_iter().map(sql_json_path::json::Cow::into_owned).collect())
        };
        // The crate computes with floats and panics where a result is none, as for 1e300 * 1e300.
        let Ok(found) = catch_unwind(AssertUnwindSafe(query)) else {
            return match silent {
                true => Ok(None),
                false => Err(Error::user(
                    SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
                    "a number of a jsonpath is out of range",
                )),
            };
        };
        match found {
            Ok(found) => Ok(Some(found)),
            // Not an error of what the path is applied to.
            Err(error @ (EvalError::VarsNotObject | EvalError::NoVariable(_))) => {
                Err(path_error(&error))
            }
            Err(_) if silent => Ok(None),
            Err(error) => Err(path_error(&error)),
        }
    }

    fn is_silent(&self, row: usize) -> bool {
        self.mode.silent || (self.call.columns.len() > 3 && self.call.boolean(3).value(row))
    }
}

/// Reads a path.
fn read_path(text: &str) -> Result<JsonPath> {
    if depth(text) > PATH_DEPTH_MAX {
        return Err(Error::user(
            SqlState::STATEMENT_TOO_COMPLEX,
            format!("a jsonpath may nest {PATH_DEPTH_MAX} brackets and signs"),
        ));
    }
    JsonPath::new(text).map_err(|error| {
        Error::user(SqlState::SYNTAX_ERROR, "syntax error in jsonpath")
            .detail(format!("\"{text}\": {error}"))
    })
}

/// How deeply brackets stand within each other, and signs before each other.
fn depth(text: &str) -> usize {
    let (mut depth, mut signs, mut deepest) = (0_usize, 0, 0);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                // To the end of the string.
                while let Some(character) = characters.next() {
                    match character {
                        '\\' => {
                            characters.next();
                        }
                        '"' => break,
                        _ => {}
                    }
                }
                signs = 0;
            }
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '+' | '-' | '!' => signs += 1,
            character if character.is_whitespace() => {}
            _ => signs = 0,
        }
        deepest = deepest.max(depth + signs);
    }
    deepest
}

/// A document as the crate's value.
fn value_of(node: &Node<'_>) -> Result<Value> {
    Ok(match node {
        Node::Word("true") => Value::Bool(true),
        Node::Word("false") => Value::Bool(false),
        Node::Word(_) => Value::Null,
        Node::Number(number) => {
            let parsed: Result<Number, _> = number.parse();
            Value::Number(parsed.map_err(|e| Error::internal(format!("number {number}: {e}")))?)
        }
        Node::String(string) => Value::String(string.as_ref().to_owned()),
        Node::Array(items) => Value::Array(items.iter().map(value_of).collect::<Result<_>>()?),
        Node::Object(members) => {
            let member = |(key, value): &(std::borrow::Cow<'_, str>, Node<'_>)| {
                Ok((key.as_ref().to_owned(), value_of(value)?))
            };
            Value::Object(members.iter().map(member).collect::<Result<_>>()?)
        }
    })
}

/// Writes a value in jsonb's spelling.
fn print(value: &Value, out: &mut String) -> Result<()> {
    let mut bytes = bytes::BytesMut::new();
    write_jsonb(&value.to_string(), &mut bytes)?;
    out.push_str(std::str::from_utf8(&bytes).expect("json is written from text"));
    Ok(())
}

/// Postgres's codes for what can go wrong on a path.
fn path_error(error: &EvalError) -> Error {
    let state = match error {
        EvalError::DivisionByZero => "22012",
        EvalError::NoKey(_) => "2203A",
        EvalError::ArrayAccess | EvalError::WildcardArrayAccess => "22039",
        EvalError::MemberAccess | EvalError::WildcardMemberAccess => "2203C",
        EvalError::ArrayIndexOutOfBounds
        | EvalError::ArrayIndexOutOfRange
        | EvalError::ArrayIndexNotNumeric => "22033",
        EvalError::NoVariable(_) => "42704",
        EvalError::VarsNotObject => "22023",
        EvalError::ExpectSingleBoolean => "22038",
        _ => "2203F",
    };
    Error::user(SqlState(state), error.to_string())
}

fn exists(call: &Call<'_>, mode: Mode) -> Result<ArrayRef> {
    let paths = Paths::new(call, mode);
    call.to_booleans(|row| Ok(paths.find(row)?.map(|found| !found.is_empty())))
}

fn matches(call: &Call<'_>, mode: Mode) -> Result<ArrayRef> {
    let paths = Paths::new(call, mode);
    call.to_booleans(|row| match paths.find(row)?.as_deref() {
        Some([Value::Bool(is)]) => Ok(Some(*is)),
        Some([Value::Null]) | None => Ok(None),
        Some(_) if paths.is_silent(row) => Ok(None),
        Some(_) => Err(Error::user(SqlState("22038"), "single boolean result is expected")),
    })
}

fn items(call: &Call<'_>, mode: Mode) -> Result<ArrayRef> {
    let paths = Paths::new(call, mode);
    call.to_texts(|row, items| {
        for value in paths.find(row)?.unwrap_or_default() {
            let mut text = String::new();
            print(&value, &mut text)?;
            items.append_value(text);
        }
        Ok(true)
    })
}

fn array(call: &Call<'_>, mode: Mode) -> Result<ArrayRef> {
    let paths = Paths::new(call, mode);
    call.to_text(|row, out| {
        let found = paths.find(row)?.unwrap_or_default();
        print(&Value::Array(found), out)?;
        Ok(true)
    })
}

fn first(call: &Call<'_>, mode: Mode) -> Result<ArrayRef> {
    let paths = Paths::new(call, mode);
    call.to_text(|row, out| match paths.find(row)?.unwrap_or_default().first() {
        Some(value) => print(value, out).map(|()| true),
        None => Ok(false),
    })
}

/// `JSON_EXISTS(a, path)`: errors are false.
fn json_exists(call: &Call<'_>) -> Result<ArrayRef> {
    let paths = Paths::new(call, Mode::SILENT);
    call.to_booleans(|row| Ok(Some(paths.find(row)?.is_some_and(|found| !found.is_empty()))))
}

/// `JSON_VALUE(a, path)`: the only item, a scalar; NULL for anything else.
fn json_value(call: &Call<'_>) -> Result<ArrayRef> {
    let paths = Paths::new(call, Mode::SILENT);
    call.to_text(|row, out| match paths.find(row)?.unwrap_or_default().as_slice() {
        [Value::Null | Value::Array(_) | Value::Object(_)] => Ok(false),
        [Value::String(string)] => {
            out.push_str(string);
            Ok(true)
        }
        [value] => print(value, out).map(|()| true),
        _ => Ok(false),
    })
}

/// `JSON_QUERY(a, path)`: the only item; NULL for none or several.
fn json_query(call: &Call<'_>) -> Result<ArrayRef> {
    let paths = Paths::new(call, Mode::SILENT);
    call.to_text(|row, out| match paths.find(row)?.unwrap_or_default().as_slice() {
        [value] => print(value, out).map(|()| true),
        _ => Ok(false),
    })
}
