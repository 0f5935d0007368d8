//! Text to plan; knows SQL, knows nothing of threads or storage.
//!
//! | file | owns |
//! |---|---|
//! | `parse.rs` | our dialect on sqlparser |
//! | `types.rs` | names of types and identifiers, as Postgres reads them |
//! | `rewrite.rs` | Postgres's meaning of a syntax tree in the words that DataFusion plans |
//! | `bind.rs` | `PlanContext`: names to catalog objects, queries and expressions to plans |
//! | `schema.rs` | result columns: the Arrow types and names that a client may see |
//! | `query.rs` | `PlannedQuery`: parameters, batch execution, lowering |
//! | `dml.rs` | INSERT, UPDATE, DELETE as queries over their table |

pub mod bind;
pub mod dml;
pub mod parse;
pub mod query;
pub mod rewrite;
pub mod schema;
pub mod statement;
pub mod types;
