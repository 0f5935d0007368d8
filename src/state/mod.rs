//! Operator memory that survives: batches in, batches out; knows no network and no threads.
//!
//! | file | owns |
//! |---|---|
//! | `delta.rs` | what changed since the last checkpoint, and how it comes back |

pub mod delta;
pub mod keyed_table;
pub mod row_equal;
pub mod row_ids;
pub mod row_index;
pub mod row_store;
pub mod segment;
pub mod snapshot;
