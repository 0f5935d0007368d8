//! Functions of one row: Postgres's that DataFusion lacks or means differently.
//!
//! | file | owns |
//! |---|---|
//! | `arithmetic.rs` | `+ - * / %` on integers and floats, with errors instead of wrap-around |
//! | `cast.rs`, `cast/` | casts that Postgres and Arrow do differently |
//! | `copies.rs` | how often EXCEPT ALL and INTERSECT ALL give a row |
//! | `datetime.rs` | operators on dates, timestamps and intervals |
//! | `session.rs` | `now()` and what the session knows while it plans (`current_user`) |
//! | `single_row.rs` | the value of a scalar subquery, if it has one row |
//! | `unknown.rs` | stands for a function that does not exist, until the error can tell its types |

pub mod arithmetic;
pub mod cast;
pub mod copies;
pub mod datetime;
pub mod session;
pub mod single_row;
pub mod unknown;

use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;

/// The functions that SQL text may call by name; they take the place of DataFusion's of that name.
pub fn all() -> Vec<Arc<ScalarUDF>> {
    vec![session::now_function()]
}
