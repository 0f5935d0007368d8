//! Operators and functions of json and jsonb (chapter 9.16 of Postgres's manual).
//!
//! A document is read into a tree that borrows its text; what comes out is written in jsonb's
//! spelling, also where the function gives json.

use std::borrow::Cow;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder};
use arrow::datatypes::Int32Type;
use bytes::BytesMut;

use crate::functions::scalar::call::{Call, Overload, R, T, function};
use crate::functions::scalar::cast::{CastSettings, cast_array};
use crate::types::error::{Error, Result, SqlState};
use crate::types::sql_type::SqlType;
use crate::types::text::json::{Node, read_jsonb, write_json_string, write_jsonb};
use crate::types::text::zone::Zone;

/// All of them.
pub fn all() -> Vec<Overload> {
    use T::{Any, AnyArray, Bool, Int4, Json, Jsonb, Text, TextArray};
    let mut list = vec![];
    for (kind, names) in [(Json, JSON_NAMES), (Jsonb, JSONB_NAMES)] {
        list.extend([
            function("->", &[kind, Text], R::Like(0), |c| json_of(c, member)),
            function("->", &[kind, Int4], R::Like(0), |c| json_of(c, item)),
            function("->>", &[kind, Text], R::Is(Text), |c| text_of(c, member)),
            function("->>", &[kind, Int4], R::Is(Text), |c| text_of(c, item)),
            function("#>", &[kind, TextArray], R::Like(0), |c| json_of(c, at_path)),
            function("#>>", &[kind, TextArray], R::Is(Text), |c| text_of(c, at_path)),
            function(names[0], &[kind, Text], R::Like(0), |c| json_of(c, at_arguments)).variadic(),
            function(names[1], &[kind, Text], R::Is(Text), |c| text_of(c, at_arguments)).variadic(),
            function(names[2], &[kind], R::Is(Text), type_of),
            function(names[3], &[kind], R::Is(Int4), array_length),
            function(names[4], &[kind], R::Like(0), |c| {
                changed(c, |_, node, _| Ok(strip_nulls(node)))
            }),
            function(names[5], &[kind], R::Array(Text), keys),
            function(names[6], &[kind], R::ArrayOf(0), elements),
            function(names[7], &[kind], R::Array(Text), element_texts),
            function(names[8], &[kind], R::ArrayOf(0), member_values),
            function(names[9], &[kind], R::Array(Text), member_texts),
            function(names[10], &[Any], R::Is(kind), build_array).variadic().sees_nulls(),
            function(names[11], &[Any], R::Is(kind), build_object).variadic().sees_nulls(),
            function(names[12], &[TextArray], R::Is(kind), object_of_texts),
            function(names[13], &[AnyArray], R::Is(kind), json_of_list),
            function(names[14], &[AnyArray], R::Is(kind), json_of_pairs),
        ]);
    }
    list.extend([
        function("to_json", &[Any], R::Is(Json), to_json),
        function("to_jsonb", &[Any], R::Is(Jsonb), to_json),
        function("row_to_json", &[Any], R::Is(Json), to_json),
        function("array_to_json", &[AnyArray], R::Is(Json), to_json),
        function("@>", &[Jsonb, Jsonb], R::Is(Bool), |c| {
            pairs(c, |left, right| contains(left, right, true))
        }),
        function("<@", &[Jsonb, Jsonb], R::Is(Bool), |c| {
            pairs(c, |left, right| contains(right, left, true))
        }),
        function("?", &[Jsonb, Text], R::Is(Bool), |c| {
            c.to_booleans(|row| {
                let node = read_jsonb(c.text(0).value(row))?;
                Ok(Some(has_key(&node, c.text(1).value(row))))
            })
        }),
        function("?|", &[Jsonb, TextArray], R::Is(Bool), |c| has_keys(c, false)),
        function("?&", &[Jsonb, TextArray], R::Is(Bool), |c| has_keys(c, true)),
        function("||", &[Jsonb, Jsonb], R::Is(Jsonb), |c| {
            changed(c, |call, left, row| {
                let right = read_jsonb(call.text(1).value(row))?;
                Ok(joined(left, right))
            })
        }),
        function("-", &[Jsonb, Text], R::Is(Jsonb), |c| {
            changed(c, |call, node, row| without(node, &[call.text(1).value(row)]))
        }),
        function("-", &[Jsonb, TextArray], R::Is(Jsonb), |c| {
            changed(c, |call, node, row| {
                let keys = path(call, 1, row);
                without(node, &keys.iter().map(String::as_str).collect::<Vec<_>>())
            })
        }),
        function("-", &[Jsonb, Int4], R::Is(Jsonb), |c| {
            changed(c, |call, node, row| without_item(node, call.int4(1, row).into()))
        }),
        function("#-", &[Jsonb, TextArray], R::Is(Jsonb), |c| {
            changed(c, |call, node, row| without_path(node, &path(call, 1, row)))
        }),
        function("jsonb_delete_path", &[Jsonb, TextArray], R::Is(Jsonb), |c| {
            changed(c, |call, node, row| without_path(node, &path(call, 1, row)))
        }),
        function("jsonb_set", &[Jsonb, TextArray, Jsonb], R::Is(Jsonb), |c| set(c, Place::Set)),
        function("jsonb_set", &[Jsonb, TextArray, Jsonb, Bool], R::Is(Jsonb), |c| {
            set(c, Place::Set)
        }),
        function("jsonb_insert", &[Jsonb, TextArray, Jsonb], R::Is(Jsonb), |c| {
            set(c, Place::Before)
        }),
        function("jsonb_insert", &[Jsonb, TextArray, Jsonb, Bool], R::Is(Jsonb), |c| {
            set(c, Place::Before)
        }),
        function("jsonb_pretty", &[Jsonb], R::Is(Text), |c| {
            c.to_text(|row, out| {
                let node = read_jsonb(c.text(0).value(row))?;
                pretty(&node, 0, out)?;
                Ok(true)
            })
        }),
    ]);
    list
}

/// Functions that exist for both types, in the order in which they are listed above.
const JSON_NAMES: [&str; 15] = [
    "json_extract_path",
    "json_extract_path_text",
    "json_typeof",
    "json_array_length",
    "json_strip_nulls",
    "json_object_keys",
    "json_array_elements",
    "json_array_elements_text",
    "json_each_values",
    "json_each_texts",
    "json_build_array",
    "json_build_object",
    "json_object",
    "json_of_list",
    "json_of_pairs",
];
const JSONB_NAMES: [&str; 15] = [
    "jsonb_extract_path",
    "jsonb_extract_path_text",
    "jsonb_typeof",
    "jsonb_array_length",
    "jsonb_strip_nulls",
    "jsonb_object_keys",
    "jsonb_array_elements",
    "jsonb_array_elements_text",
    "jsonb_each_values",
    "jsonb_each_texts",
    "jsonb_build_array",
    "jsonb_build_object",
    "jsonb_object",
    "jsonb_of_list",
    "jsonb_of_pairs",
];

fn wrong(message: impl Into<String>) -> Error {
    Error::user(SqlState::INVALID_PARAMETER_VALUE, message.into())
}

/// Writes a node into a text.
fn print(node: &Node<'_>, out: &mut String) -> Result<()> {
    let mut bytes = BytesMut::new();
    node.write(&mut bytes)?;
    push(&bytes, out);
    Ok(())
}

fn push(bytes: &[u8], out: &mut String) {
    out.push_str(std::str::from_utf8(bytes).expect("json is written from text"));
}

/// Writes a json text in jsonb's spelling.
fn normal(text: &str, out: &mut String) -> Result<()> {
    let mut bytes = BytesMut::new();
    write_jsonb(text, &mut bytes)?;
    push(&bytes, out);
    Ok(())
}

/// What `->>` gives: a string without its quotes; `false` for null.
fn print_text(node: &Node<'_>, out: &mut String) -> Result<bool> {
    match node {
        Node::Word("null") => return Ok(false),
        Node::String(string) => out.push_str(string),
        node => print(node, out)?,
    }
    Ok(true)
}

type Find = for<'a> fn(&Call<'_>, Node<'a>, usize) -> Option<Node<'a>>;

fn json_of(call: &Call<'_>, find: Find) -> Result<ArrayRef> {
    call.to_text(|row, out| match find(call, read_jsonb(call.text(0).value(row))?, row) {
        Some(found) => print(&found, out).map(|()| true),
        None => Ok(false),
    })
}

fn text_of(call: &Call<'_>, find: Find) -> Result<ArrayRef> {
    call.to_text(|row, out| match find(call, read_jsonb(call.text(0).value(row))?, row) {
        Some(found) => print_text(&found, out),
        None => Ok(false),
    })
}

fn member<'a>(call: &Call<'_>, node: Node<'a>, row: usize) -> Option<Node<'a>> {
    member_named(node, call.text(1).value(row))
}

fn member_named<'a>(node: Node<'a>, key: &str) -> Option<Node<'a>> {
    let Node::Object(members) = node else { return None };
    members.into_iter().find(|(name, _)| name == key).map(|(_, value)| value)
}

fn item<'a>(call: &Call<'_>, node: Node<'a>, row: usize) -> Option<Node<'a>> {
    item_at(node, call.int4(1, row).into())
}

/// The place of an item; negative numbers count from the end.
fn place(length: usize, index: i64) -> Option<usize> {
    let index = if index < 0 { index + length as i64 } else { index };
    usize::try_from(index).ok().filter(|index| *index < length)
}

fn item_at(node: Node<'_>, index: i64) -> Option<Node<'_>> {
    let Node::Array(mut items) = node else { return None };
    let index = place(items.len(), index)?;
    Some(items.swap_remove(index))
}

fn step<'a>(node: Node<'a>, key: &str) -> Option<Node<'a>> {
    match node {
        Node::Array(_) => item_at(node, key.parse().ok()?),
        node => member_named(node, key),
    }
}

fn at_path<'a>(call: &Call<'_>, node: Node<'a>, row: usize) -> Option<Node<'a>> {
    path(call, 1, row).iter().try_fold(node, |node, key| step(node, key))
}

fn at_arguments<'a>(call: &Call<'_>, node: Node<'a>, row: usize) -> Option<Node<'a>> {
    (1..call.columns.len()).try_fold(node, |node, index| step(node, call.text(index).value(row)))
}

/// The items of a text array.
fn path(call: &Call<'_>, index: usize, row: usize) -> Vec<String> {
    let items = call.list(index).value(row);
    let texts = items.as_string::<i32>();
    texts.iter().map(|text| text.unwrap_or_default().to_owned()).collect()
}

fn type_of(call: &Call<'_>) -> Result<ArrayRef> {
    call.to_text(|row, out| {
        out.push_str(match read_jsonb(call.text(0).value(row))? {
            Node::Word("null") => "null",
            Node::Word(_) => "boolean",
            Node::Number(_) => "number",
            Node::String(_) => "string",
            Node::Array(_) => "array",
            Node::Object(_) => "object",
        });
        Ok(true)
    })
}

fn array_length(call: &Call<'_>) -> Result<ArrayRef> {
    call.to_values::<Int32Type>(|row| match read_jsonb(call.text(0).value(row))? {
        Node::Array(items) => Ok(Some(items.len() as i32)),
        Node::Object(_) => Err(wrong("cannot get array length of a non-array")),
        _ => Err(wrong("cannot get array length of a scalar")),
    })
}

/// A document made of the first argument.
fn changed(
    call: &Call<'_>,
    change: for<'a> fn(&'a Call<'_>, Node<'a>, usize) -> Result<Node<'a>>,
) -> Result<ArrayRef> {
    call.to_text(|row, out| {
        let node = change(call, read_jsonb(call.text(0).value(row))?, row)?;
        print(&node, out)?;
        Ok(true)
    })
}

fn strip_nulls(node: Node<'_>) -> Node<'_> {
    match node {
        Node::Array(items) => Node::Array(items.into_iter().map(strip_nulls).collect()),
        Node::Object(members) => Node::Object(
            members
                .into_iter()
                .filter(|(_, value)| !matches!(value, Node::Word("null")))
                .map(|(key, value)| (key, strip_nulls(value)))
                .collect(),
        ),
        node => node,
    }
}

type Member<'a> = (Cow<'a, str>, Node<'a>);

fn object_members<'a>(text: &'a str, what: &str) -> Result<Vec<Member<'a>>> {
    match read_jsonb(text)? {
        Node::Object(members) => Ok(members),
        Node::Array(_) => Err(wrong(format!("cannot call {what} on an array"))),
        _ => Err(wrong(format!("cannot call {what} on a scalar"))),
    }
}

fn keys(call: &Call<'_>) -> Result<ArrayRef> {
    call.to_texts(|row, items| {
        let members = object_members(call.text(0).value(row), "jsonb_object_keys")?;
        members.iter().for_each(|(key, _)| items.append_value(key));
        Ok(true)
    })
}

fn append(node: &Node<'_>, as_text: bool, items: &mut StringBuilder) -> Result<()> {
    let mut text = String::new();
    let there = match as_text {
        true => print_text(node, &mut text)?,
        false => {
            print(node, &mut text)?;
            true
        }
    };
    items.append_option(there.then_some(text));
    Ok(())
}

fn array_items(call: &Call<'_>, as_text: bool) -> Result<ArrayRef> {
    call.to_texts(|row, items| {
        let Node::Array(nodes) = read_jsonb(call.text(0).value(row))? else {
            return Err(wrong("cannot extract elements from an object or scalar"));
        };
        nodes.iter().try_for_each(|node| append(node, as_text, items))?;
        Ok(true)
    })
}

fn elements(call: &Call<'_>) -> Result<ArrayRef> {
    array_items(call, false)
}

fn element_texts(call: &Call<'_>) -> Result<ArrayRef> {
    array_items(call, true)
}

fn values_of(call: &Call<'_>, as_text: bool) -> Result<ArrayRef> {
    call.to_texts(|row, items| {
        let members = object_members(call.text(0).value(row), "jsonb_each")?;
        members.iter().try_for_each(|(_, value)| append(value, as_text, items))?;
        Ok(true)
    })
}

fn member_values(call: &Call<'_>) -> Result<ArrayRef> {
    values_of(call, false)
}

fn member_texts(call: &Call<'_>) -> Result<ArrayRef> {
    values_of(call, true)
}

fn pairs(call: &Call<'_>, test: fn(&Node<'_>, &Node<'_>) -> bool) -> Result<ArrayRef> {
    call.to_booleans(|row| {
        let left = read_jsonb(call.text(0).value(row))?;
        let right = read_jsonb(call.text(1).value(row))?;
        Ok(Some(test(&left, &right)))
    })
}

fn same_number(left: &str, right: &str) -> bool {
    // jsonb keeps trailing zeros: 1.0 equals 1.
    let plain = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    plain(left) == plain(right)
}

/// Whether everything of `right` is in `left`. An array at the top contains a scalar too.
fn contains(left: &Node<'_>, right: &Node<'_>, top: bool) -> bool {
    match (left, right) {
        (Node::Object(left), Node::Object(right)) => right.iter().all(|(key, value)| {
            left.iter().any(|(name, other)| name == key && contains(other, value, false))
        }),
        (Node::Array(left), Node::Array(right)) => {
            right.iter().all(|value| left.iter().any(|other| contains(other, value, false)))
        }
        (Node::Array(left), right) if top && !matches!(right, Node::Object(_)) => {
            left.iter().any(|other| contains(other, right, false))
        }
        (Node::Word(left), Node::Word(right)) => left == right,
        (Node::Number(left), Node::Number(right)) => same_number(left, right),
        (Node::String(left), Node::String(right)) => left == right,
        _ => false,
    }
}

fn has_key(node: &Node<'_>, key: &str) -> bool {
    match node {
        Node::Object(members) => members.iter().any(|(name, _)| name == key),
        Node::Array(items) => {
            items.iter().any(|item| matches!(item, Node::String(text) if text == key))
        }
        Node::String(text) => text == key,
        _ => false,
    }
}

fn has_keys(call: &Call<'_>, all: bool) -> Result<ArrayRef> {
    call.to_booleans(|row| {
        let node = read_jsonb(call.text(0).value(row))?;
        let keys = path(call, 1, row);
        Ok(Some(match all {
            true => keys.iter().all(|key| has_key(&node, key)),
            false => keys.iter().any(|key| has_key(&node, key)),
        }))
    })
}

/// Two objects are one; anything else is put into one array.
fn joined<'a>(left: Node<'a>, right: Node<'a>) -> Node<'a> {
    match (left, right) {
        (Node::Object(mut left), Node::Object(right)) => {
            left.extend(right);
            Node::object(left)
        }
        (left, right) => {
            let items = |node| match node {
                Node::Array(items) => items,
                other => vec![other],
            };
            let mut all = items(left);
            all.extend(items(right));
            Node::Array(all)
        }
    }
}

fn without<'a>(node: Node<'a>, keys: &[&str]) -> Result<Node<'a>> {
    Ok(match node {
        Node::Object(mut members) => {
            members.retain(|(key, _)| !keys.contains(&key.as_ref()));
            Node::Object(members)
        }
        Node::Array(mut items) => {
            items.retain(|item| !matches!(item, Node::String(s) if keys.contains(&s.as_ref())));
            Node::Array(items)
        }
        _ => return Err(wrong("cannot delete from scalar")),
    })
}

fn without_item(node: Node<'_>, index: i64) -> Result<Node<'_>> {
    match node {
        Node::Array(mut items) => {
            if let Some(index) = place(items.len(), index) {
                items.remove(index);
            }
            Ok(Node::Array(items))
        }
        Node::Object(_) => Err(wrong("cannot delete from object using integer index")),
        _ => Err(wrong("cannot delete from scalar")),
    }
}

fn path_index(key: &str, at: usize) -> Result<i64> {
    key.parse().map_err(|_| {
        Error::user(
            SqlState::INVALID_TEXT_REPRESENTATION,
            format!("path element at position {at} is not an integer: \"{key}\""),
        )
    })
}

fn without_path<'a>(node: Node<'a>, path: &[String]) -> Result<Node<'a>> {
    edit(node, path, 1, &mut |_| Ok(Edit::Remove))
}

/// What becomes of the value at the end of a path.
enum Edit<'a> {
    Remove,
    Replace(Node<'a>),
    /// A new item in front of it, or behind.
    Insert(Node<'a>, bool),
    /// As it is.
    Keep,
}

/// Changes the value at the end of `path`; `change` is told whether there is one.
fn edit<'a>(
    node: Node<'a>,
    path: &[String],
    at: usize,
    change: &mut dyn FnMut(bool) -> Result<Edit<'a>>,
) -> Result<Node<'a>> {
    let Some((key, rest)) = path.split_first() else { return Ok(node) };
    match node {
        Node::Object(mut members) => {
            let found = members.iter().position(|(name, _)| name == key.as_str());
            if !rest.is_empty() {
                if let Some(index) = found {
                    let value = std::mem::replace(&mut members[index].1, Node::Word("null"));
                    members[index].1 = edit(value, rest, at + 1, change)?;
                }
                return Ok(Node::Object(members));
            }
            match (change(found.is_some())?, found) {
                (Edit::Remove, Some(index)) => {
                    members.remove(index);
                }
                (Edit::Replace(value), Some(index)) => members[index].1 = value,
                (Edit::Replace(value) | Edit::Insert(value, _), None) => {
                    members.push((Cow::Owned(key.clone()), value));
                }
                (Edit::Insert(_, _), Some(_)) => {
                    return Err(wrong("cannot replace existing key")
                        .hint("Try using the function jsonb_set to replace key value."));
                }
                (Edit::Keep, _) | (Edit::Remove, None) => {}
            }
            Ok(Node::object(members))
        }
        Node::Array(mut items) => {
            let index = path_index(key, at)?;
            let found = place(items.len(), index);
            if !rest.is_empty() {
                if let Some(index) = found {
                    let value = std::mem::replace(&mut items[index], Node::Word("null"));
                    items[index] = edit(value, rest, at + 1, change)?;
                }
                return Ok(Node::Array(items));
            }
            match (change(found.is_some())?, found) {
                (Edit::Remove, Some(index)) => {
                    items.remove(index);
                }
                (Edit::Replace(value), Some(index)) => items[index] = value,
                (Edit::Insert(value, after), Some(index)) => {
                    items.insert(index + usize::from(after), value);
                }
                // Beyond the ends: at that end.
                (Edit::Replace(value) | Edit::Insert(value, _), None) if index < 0 => {
                    items.insert(0, value);
                }
                (Edit::Replace(value) | Edit::Insert(value, _), None) => items.push(value),
                (Edit::Keep, _) | (Edit::Remove, None) => {}
            }
            Ok(Node::Array(items))
        }
        _ if at == 1 => Err(wrong("cannot set path in scalar")),
        node => Ok(node),
    }
}

/// `jsonb_set` or `jsonb_insert`.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Set,
    Before,
}

fn set(call: &Call<'_>, place: Place) -> Result<ArrayRef> {
    call.to_text(|row, out| {
        let node = read_jsonb(call.text(0).value(row))?;
        let path = path(call, 1, row);
        let flag = call.columns.get(3).map(|column| column.as_boolean().value(row));
        let node = edit(node, &path, 1, &mut |there| {
            let value = read_jsonb(call.text(2).value(row))?;
            Ok(match place {
                Place::Set if there || flag.unwrap_or(true) => Edit::Replace(value),
                Place::Set => Edit::Keep,
                Place::Before => Edit::Insert(value, flag.unwrap_or(false)),
            })
        })?;
        print(&node, out)?;
        Ok(true)
    })
}

fn indent(level: usize, out: &mut String) {
    out.push('\n');
    out.extend(std::iter::repeat_n("    ", level));
}

fn pretty(node: &Node<'_>, level: usize, out: &mut String) -> Result<()> {
    match node {
        Node::Array(items) if !items.is_empty() => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                indent(level + 1, out);
                pretty(item, level + 1, out)?;
            }
            indent(level, out);
            out.push(']');
        }
        Node::Object(members) if !members.is_empty() => {
            out.push('{');
            for (index, (key, value)) in members.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                indent(level + 1, out);
                print(&Node::String(Cow::Borrowed(key)), out)?;
                out.push_str(": ");
                pretty(value, level + 1, out)?;
            }
            indent(level, out);
            out.push('}');
        }
        node => print(node, out)?,
    }
    Ok(())
}

/// A column whose values are written as JSON.
enum Source {
    /// Numbers, booleans and documents: the text as it is.
    Raw(StringArray),
    /// Anything else, in quotes.
    Quoted(StringArray),
    List(arrow::array::ListArray, Box<Source>),
    Record(arrow::array::StructArray, Vec<(String, Source)>),
}

/// A time with its zone as ISO 8601 and Postgres's JSON have it, from what a cast to text gives:
/// with a T, and minutes of the offset also where there are none.
fn iso_timestamptz(text: &str) -> String {
    let mut iso = text.replacen(' ', "T", 1);
    let hours_only = iso.rfind(['+', '-']).is_some_and(|sign| sign > 10 && iso.len() == sign + 3);
    if hours_only {
        iso.push_str(":00");
    }
    iso
}

impl Source {
    fn new(column: &ArrayRef, sql_type: &SqlType, settings: &CastSettings) -> Result<Source> {
        let text = |column: &ArrayRef| -> Result<StringArray> {
            let text = cast_array(column, sql_type, &SqlType::Text, settings)?;
            Ok(text.as_string::<i32>().clone())
        };
        Ok(match sql_type {
            SqlType::Json | SqlType::Jsonb => Source::Raw(column.as_string::<i32>().clone()),
            SqlType::Boolean
            | SqlType::Int2
            | SqlType::Int4
            | SqlType::Int8
            | SqlType::Numeric(_, _) => Source::Raw(text(column)?),
            SqlType::Float4 | SqlType::Float8 => {
                let texts = text(column)?;
                let finite = |t: &str| !t.contains(['N', 'y']);
                match texts.iter().flatten().all(finite) {
                    true => Source::Raw(texts),
                    // JSON has no NaN and no infinity: Postgres writes them as strings.
                    false => Source::Raw(
                        texts
                            .iter()
                            .map(|t| {
                                t.map(|t| if finite(t) { t.to_owned() } else { format!("\"{t}\"") })
                            })
                            .collect(),
                    ),
                }
            }
            SqlType::Timestamp => Source::Quoted(
                text(column)?.iter().map(|t| t.map(|t| t.replacen(' ', "T", 1))).collect(),
            ),
            SqlType::Timestamptz => {
                Source::Quoted(text(column)?.iter().map(|t| t.map(iso_timestamptz)).collect())
            }
            SqlType::Array(item) => {
                let list = column.as_list::<i32>().clone();
                let items = Source::new(list.values(), item, settings)?;
                Source::List(list, Box::new(items))
            }
            SqlType::Record(fields) => {
                let record = column.as_struct().clone();
                let sources = fields
                    .iter()
                    .zip(record.columns())
                    .map(|((name, t), column)| {
                        Ok((name.clone(), Source::new(column, t, settings)?))
                    })
                    .collect::<Result<_>>()?;
                Source::Record(record, sources)
            }
            _ => Source::Quoted(text(column)?),
        })
    }

    fn write(&self, row: usize, out: &mut BytesMut) {
        let nulls = match self {
            Source::Raw(texts) | Source::Quoted(texts) => texts.is_null(row),
            Source::List(list, _) => list.is_null(row),
            Source::Record(record, _) => record.is_null(row),
        };
        if nulls {
            out.extend_from_slice(b"null");
            return;
        }
        match self {
            Source::Raw(texts) => out.extend_from_slice(texts.value(row).as_bytes()),
            Source::Quoted(texts) => write_json_string(texts.value(row), out),
            Source::List(list, items) => {
                let offsets = list.value_offsets();
                write_items(items, offsets[row] as usize..offsets[row + 1] as usize, ",", out);
            }
            Source::Record(_, fields) => {
                out.extend_from_slice(b"{");
                for (index, (name, source)) in fields.iter().enumerate() {
                    out.extend_from_slice(if index > 0 { b"," } else { b"" });
                    write_json_string(name, out);
                    out.extend_from_slice(b":");
                    source.write(row, out);
                }
                out.extend_from_slice(b"}");
            }
        }
    }
}

fn write_items(
    source: &Source,
    places: std::ops::Range<usize>,
    separator: &str,
    out: &mut BytesMut,
) {
    out.extend_from_slice(b"[");
    let first = places.start;
    for place in places {
        if place > first {
            out.extend_from_slice(separator.as_bytes());
        }
        source.write(place, out);
    }
    out.extend_from_slice(b"]");
}

/// A column of documents; `write` makes a row's, which becomes jsonb if the result is.
fn documents(
    call: &Call<'_>,
    mut write: impl FnMut(usize, &mut BytesMut) -> Result<()>,
) -> Result<ArrayRef> {
    let mut bytes = BytesMut::new();
    call.to_text(|row, out| {
        bytes.clear();
        write(row, &mut bytes)?;
        match call.result {
            SqlType::Jsonb => {
                let text = std::str::from_utf8(&bytes).expect("json is written from text");
                normal(text, out)?;
            }
            _ => push(&bytes, out),
        }
        Ok(true)
    })
}

fn to_json(call: &Call<'_>) -> Result<ArrayRef> {
    let source = Source::new(&call.columns[0], &call.types[0], call.settings)?;
    documents(call, |row, out| {
        source.write(row, out);
        Ok(())
    })
}

fn sources(call: &Call<'_>) -> Result<Vec<Source>> {
    call.columns
        .iter()
        .zip(call.types)
        .map(|(column, sql_type)| Source::new(column, sql_type, call.settings))
        .collect()
}

fn build_array(call: &Call<'_>) -> Result<ArrayRef> {
    let sources = sources(call)?;
    documents(call, |row, out| {
        out.extend_from_slice(b"[");
        for (index, source) in sources.iter().enumerate() {
            out.extend_from_slice(if index > 0 { b", " } else { b"" });
            source.write(row, out);
        }
        out.extend_from_slice(b"]");
        Ok(())
    })
}

/// The keys of an object as text.
fn key_texts(column: &ArrayRef, sql_type: &SqlType, call: &Call<'_>) -> Result<ArrayRef> {
    cast_array(column, sql_type, &SqlType::Text, call.settings)
}

fn write_key(keys: &ArrayRef, row: usize, out: &mut BytesMut) -> Result<()> {
    if keys.is_null(row) {
        return Err(wrong("argument of an object's key must not be null"));
    }
    write_json_string(keys.as_string::<i32>().value(row), out);
    Ok(())
}

fn build_object(call: &Call<'_>) -> Result<ArrayRef> {
    if !call.columns.len().is_multiple_of(2) {
        return Err(wrong("argument list must have even number of elements").hint(
            "The arguments of json_build_object() must consist of alternating keys and values.",
        ));
    }
    let sources = sources(call)?;
    let keys = (0..call.columns.len())
        .step_by(2)
        .map(|index| key_texts(&call.columns[index], &call.types[index], call))
        .collect::<Result<Vec<_>>>()?;
    documents(call, |row, out| {
        out.extend_from_slice(b"{");
        for (index, key) in keys.iter().enumerate() {
            out.extend_from_slice(if index > 0 { b", " } else { b"" });
            write_key(key, row, out)?;
            out.extend_from_slice(b" : ");
            sources[2 * index + 1].write(row, out);
        }
        out.extend_from_slice(b"}");
        Ok(())
    })
}

fn object_of_texts(call: &Call<'_>) -> Result<ArrayRef> {
    let list = call.list(0);
    documents(call, |row, out| {
        let items = list.value(row);
        if !items.len().is_multiple_of(2) {
            return Err(wrong("array must have even number of elements"));
        }
        let texts = items.as_string::<i32>();
        out.extend_from_slice(b"{");
        for index in (0..items.len()).step_by(2) {
            out.extend_from_slice(if index > 0 { b", " } else { b"" });
            write_key(&items, index, out)?;
            out.extend_from_slice(b" : ");
            match texts.is_null(index + 1) {
                true => out.extend_from_slice(b"null"),
                false => write_json_string(texts.value(index + 1), out),
            }
        }
        out.extend_from_slice(b"}");
        Ok(())
    })
}

fn item_type<'a>(call: &'a Call<'_>) -> Result<&'a SqlType> {
    match &call.types[0] {
        SqlType::Array(item) => Ok(item),
        _ => Err(Error::internal("rows were gathered into no array")),
    }
}

/// What `json_agg` gives: the items of an array.
fn json_of_list(call: &Call<'_>) -> Result<ArrayRef> {
    let list = call.list(0);
    let source = Source::new(list.values(), item_type(call)?, call.settings)?;
    let offsets = list.value_offsets();
    documents(call, |row, out| {
        write_items(&source, offsets[row] as usize..offsets[row + 1] as usize, ", ", out);
        Ok(())
    })
}

/// Only `json_object_agg` calls for pairs, but anyone may write the call.
fn no_pairs(call: &Call<'_>) -> Error {
    Error::user(
        SqlState::UNDEFINED_FUNCTION,
        format!("there is no object of the items of {}", call.types[0]),
    )
    .hint("Use json_object_agg or jsonb_object_agg.")
}

/// What `json_object_agg` gives: an array of rows of a key and a value.
fn json_of_pairs(call: &Call<'_>) -> Result<ArrayRef> {
    let list = call.list(0);
    let SqlType::Record(fields) = item_type(call)? else {
        return Err(no_pairs(call));
    };
    let [(_, key_type), (_, value_type)] = fields.as_slice() else {
        return Err(no_pairs(call));
    };
    let pairs = list.values().as_struct();
    let keys = key_texts(pairs.column(0), key_type, call)?;
    let values = Source::new(pairs.column(1), value_type, call.settings)?;
    let offsets = list.value_offsets();
    documents(call, |row, out| {
        let places = offsets[row] as usize..offsets[row + 1] as usize;
        out.extend_from_slice(b"{ ");
        for place in places.clone() {
            out.extend_from_slice(if place > places.start { b", " } else { b"" });
            write_key(&keys, place, out)?;
            out.extend_from_slice(b" : ");
            values.write(place, out);
        }
        out.extend_from_slice(b" }");
        Ok(())
    })
}

/// Rows as JSON objects, as `row_to_json` writes them, for whoever writes rows out.
pub struct JsonRows {
    /// By column: its name as JSON with the colon, and its values.
    columns: Vec<(BytesMut, Source)>,
}

impl JsonRows {
    /// The columns of `rows` that have these types.
    ///
    /// # Errors
    /// When a value has no text.
    pub fn new(rows: &arrow::array::RecordBatch, types: &[SqlType]) -> Result<JsonRows> {
        let settings = CastSettings { zone: Zone::UTC, now_us: 0 };
        let schema = rows.schema();
        let columns = schema.fields().iter().zip(rows.columns()).zip(types);
        let columns = columns.map(|((field, column), sql_type)| {
            let mut name = BytesMut::new();
            write_json_string(field.name(), &mut name);
            name.extend_from_slice(b":");
            Ok((name, Source::new(column, sql_type, &settings)?))
        });
        Ok(JsonRows { columns: columns.collect::<Result<_>>()? })
    }

    /// Writes one value of a row.
    pub fn write_value(&self, row: usize, column: usize, out: &mut BytesMut) {
        self.columns[column].1.write(row, out);
    }

    /// Writes a row on one line: `{"a":1,"b":null}`.
    pub fn write(&self, row: usize, out: &mut BytesMut) {
        let start = out.len();
        out.extend_from_slice(b"{");
        for (index, (name, source)) in self.columns.iter().enumerate() {
            out.extend_from_slice(if index > 0 { b"," } else { b"" });
            out.extend_from_slice(name);
            source.write(row, out);
        }
        out.extend_from_slice(b"}");
        // Those in strings are escaped; what is left is space in documents of the type json.
        let line = &mut out[start..];
        if memchr::memchr2(b'\n', b'\r', line).is_some() {
            line.iter_mut().filter(|b| matches!(**b, b'\n' | b'\r')).for_each(|b| *b = b' ');
        }
    }
}
