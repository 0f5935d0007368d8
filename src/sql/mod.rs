//! Text to plan; knows SQL, knows nothing of threads or storage.
//!
//! | file | owns |
//! |---|---|
//! | `types.rs` | names of types and identifiers, as Postgres reads them |
//! | `rewrite.rs` | Postgres's meaning of a syntax tree in the words that DataFusion plans |
//! | `windows.rs` | TUMBLE, HOP, CUMULATE and SESSION, said in plain SQL |
//! | `savepoint_tables.rs` | calls of savepoint(), and rows for them |
//! | `system_time.rs` | FOR SYSTEM_TIME AS OF becomes a part of its table's name, or of its join's condition |
//! | `asof.rs` | ASOF and temporal joins as a node of the logical plan, and in a batch |
//! | `bind.rs` | `PlanContext`: queries and expressions to typed plans |
//! | `assign.rs` | values to a table's columns, with assignment casts and defaults |
//! | `coerce.rs` | types and meaning of expressions, after names are resolved |
//! | `dependent.rs` | correlated subqueries that DataFusion cannot join |
//! | `exclude.rs` | EXCLUDE in window frames |
//! | `expressions.rs` | logical expressions to compiled ones, and to text |
//! | `optimize.rs` | which of DataFusion's rewrites run, in order, with reasons |
//! | `guarded_rules.rs` | rewrites that would change an answer, kept from where they would |
//! | `subquery.rs` | scalar subqueries that may give several rows |
//! | `lateral.rs` | LATERAL unnest without outer references |
//! | `derived.rs` | derived tables within correlated subqueries |
//! | `interrupt.rs` | joins of a batch that end when nobody waits for them |
//! | `grouping.rs` | GROUPING SETS over expressions |
//! | `join_order.rs` | in which order the inner joins of a dataflow are made |
//! | `limited.rs` | LIMIT in correlated subqueries |
//! | `nullable_side.rs` | the sides of outer joins that NULLs may stand for, in a batch |
//! | `offset.rs` | OFFSET without LIMIT, in a batch |
//! | `lookup.rs` | conditions that say which keys they want, and the index that has them |
//! | `lower.rs` | an optimised logical plan to the nodes of a dataflow |
//! | `match_recognize/` | row patterns: names, plans, batch execution |
//! | `resolve.rs` | names to catalog objects, views to their queries |
//! | `catalog_query.rs` | queries of the system catalog in words that can be planned |
//! | `system_functions.rs` | functions that look at the catalog or the session |
//! | `functions.rs` | which functions and operators a query may name |
//! | `aggregates.rs` | our aggregate functions in batch execution |
//! | `marking.rs` | DataFusion's aggregates over uuid, json and jsonb |
//! | `bags.rs` | EXCEPT ALL and INTERSECT ALL as counts of copies |
//! | `operators.rs` | operators as Postgres resolves them |
//! | `schema.rs` | result columns: the Arrow types and names that a client may see |
//! | `query.rs` | `PlannedQuery`: parameters, batch execution, lowering |
//! | `stored_scan.rs` | rows of large tables and views, made as a batch reads them |
//! | `query_memory.rs` | how much memory queries get, and the disk beside it |
//! | `errors.rs` | DataFusion's complaints in the words and codes of Postgres |
//! | `dml.rs` | INSERT, UPDATE, DELETE as queries over their table |
//! | `series.rs` | a long constant `generate_series()` in a maintained query |
//! | `returning.rs` | RETURNING as a query over the changed rows |
//! | `statement.rs` | the statements, one variant each |
//! | `parse.rs`, `parse/` | text to statements: tokens, our grammar around sqlparser's, errors |
//! | `extensions.rs` | streaming extensions of queries, turned into forms sqlparser has |

pub mod aggregates;
mod asof;
mod assign;
mod bags;
pub mod bind;
mod catalog_query;
pub mod coerce;
mod dependent;
mod derived;
pub mod dml;
pub mod errors;
mod exclude;
pub mod expressions;
pub mod functions;
mod grouping;
mod guarded_rules;
pub mod interrupt;
mod join_order;
pub mod lateral;
mod limited;
pub mod lookup;
pub mod lower;
mod marking;
pub mod match_recognize;
mod nullable_side;
pub mod offset;
pub mod operators;
pub mod optimize;
pub mod parse;
pub mod query;
pub mod query_memory;
pub mod resolve;
pub mod returning;
pub mod rewrite;
pub mod savepoint_tables;
pub mod schema;
mod series;
mod stored_scan;
mod subquery;
pub mod system_functions;
pub mod system_time;

mod extensions;
pub mod statement;
pub mod types;
mod windows;

#[cfg(test)]
mod tests;
