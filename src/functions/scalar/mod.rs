//! Functions of one row: Postgres's that DataFusion lacks or means differently.
//!
//! | file | owns |
//! |---|---|
//! | `call.rs` | functions of several types: which is meant, and how it is called |
//! | `math.rs` | numbers |
//! | `passing.rs` | `nullif`, `greatest`, `least` of types that a mark tells |
//! | `padding.rs` | `repeat`, `lpad`, `rpad` |
//! | `string.rs` | text and bytes |
//! | `degrees.rs` | trigonometry in degrees, counting of NULLs |
//! | `bytes.rs` | bits and bytes, encodings, what is in a uuid |
//! | `calendar.rs` | dates, times, intervals |
//! | `json.rs` | json and jsonb |
//! | `json_path.rs` | SQL/JSON paths over jsonb |
//! | `template.rs` | `to_char` and what reads it back |
//! | `array.rs` | arrays, uuids |
//! | `arithmetic.rs` | `+ - * / %` on integers and floats, with errors instead of wrap-around |
//! | `cast.rs`, `cast/` | casts that Postgres and Arrow do differently |
//! | `char.rs` | `char(n)` |
//! | `copies.rs` | how often EXCEPT ALL and INTERSECT ALL give a row |
//! | `datetime.rs` | operators on dates, timestamps and intervals |
//! | `float_key.rs` | floats as something to sort by |
//! | `marked.rs` | the SQL type of what other functions pass on |
//! | `series.rs` | `generate_series()` as an array |
//! | `session.rs` | `now()` and what the session knows while it plans (`current_user`) |
//! | `single_row.rs` | the value of a scalar subquery, if it has one row |
//! | `windows.rs` | TUMBLE, HOP and CUMULATE: in which windows a time stands |
//! | `unknown.rs` | stands for a function that does not exist, until the error can tell its types |

pub mod arithmetic;
pub mod array;
pub mod bytes;
pub mod calendar;
pub mod call;
pub mod cast;
pub mod char;
pub mod copies;
pub mod datetime;
pub mod degrees;
pub mod float_key;
pub mod json;
pub mod json_path;
pub mod marked;
pub mod math;
mod padding;
pub mod passing;
pub mod series;
pub mod session;
pub mod single_row;
pub mod string;
pub mod template;
pub mod unknown;
pub mod windows;

use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;

/// The functions that SQL text may call by name; they take the place of DataFusion's of that name.
pub fn all() -> Vec<Arc<ScalarUDF>> {
    let mut functions = call::families(overloads());
    functions.extend(call::families(windows::markers()));
    functions.push(session::now_function());
    functions.push(char::as_char());
    functions
}

/// Those of them that are told apart by their arguments, one by one.
pub fn overloads() -> Vec<call::Overload> {
    let lists = [
        math::all(),
        string::all(),
        padding::all(),
        calendar::all(),
        template::all(),
        json::all(),
        json_path::all(),
        array::all(),
        bytes::all(),
        degrees::all(),
        series::all(),
        windows::all(),
    ];
    lists.into_iter().flatten().collect()
}
