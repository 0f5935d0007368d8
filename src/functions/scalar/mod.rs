//! Functions of one row: Postgres's that DataFusion lacks or means differently.
//!
//! | file | owns |
//! |---|---|
//! | `call.rs` | functions of several types: which is meant, and how it is called |
//! | `math.rs` | numbers |
//! | `string.rs` | text and bytes |
//! | `calendar.rs` | dates, times, intervals |
//! | `json.rs` | json and jsonb |
//! | `template.rs` | `to_char` and what reads it back |
//! | `array.rs` | arrays, uuids |
//! | `arithmetic.rs` | `+ - * / %` on integers and floats, with errors instead of wrap-around |
//! | `cast.rs`, `cast/` | casts that Postgres and Arrow do differently |
//! | `copies.rs` | how often EXCEPT ALL and INTERSECT ALL give a row |
//! | `datetime.rs` | operators on dates, timestamps and intervals |
//! | `session.rs` | `now()` and what the session knows while it plans (`current_user`) |
//! | `single_row.rs` | the value of a scalar subquery, if it has one row |
//! | `windows.rs` | TUMBLE, HOP and CUMULATE: in which windows a time stands |
//! | `unknown.rs` | stands for a function that does not exist, until the error can tell its types |

pub mod arithmetic;
pub mod array;
pub mod calendar;
pub mod call;
pub mod cast;
pub mod copies;
pub mod datetime;
pub mod json;
pub mod math;
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
    let lists = [
        math::all(),
        string::all(),
        calendar::all(),
        template::all(),
        json::all(),
        array::all(),
        windows::all(),
    ];
    let mut functions = call::families(lists.into_iter().flatten().collect());
    functions.push(session::now_function());
    functions
}
