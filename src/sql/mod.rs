//! Text to plan; knows SQL, knows nothing of threads or storage.
//!
//! | file | owns |
//! |---|---|
//! | `parse.rs` | our dialect on sqlparser |
//! | `bind.rs` | `PlanContext`: names to catalog objects, queries and expressions to plans |
//! | `query.rs` | `PlannedQuery`: parameters, batch execution, lowering |
//! | `dml.rs` | INSERT, UPDATE, DELETE as queries over their table |

pub mod bind;
pub mod dml;
pub mod parse;
pub mod query;
pub mod statement;
