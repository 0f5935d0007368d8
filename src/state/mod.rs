//! Operator memory that survives: batches in, batches out; knows no network and no threads, and
//! of the local disk only as a place for what does not fit.
//!
//! | file | owns |
//! |---|---|
//! | `group_index.rs` | group keys to dense ids |
//! | `keyed_table.rs` | unique key to row: SQL tables with a primary key |
//! | `multi_table.rs` | rows that may be equal, many to a key: contents of views, sides of a join |
//! | `arrangement.rs` | rows by key that several readers look up, each at its own epoch |
//! | `ordered_table.rs` | partitions of sorted rows: Top-N, window functions |
//! | `history.rs` | what has changed since recent epochs |
//! | `snapshot.rs` | the content of a table at one moment, shared with readers |
//! | `row_store.rs` | the rows of a table: segments, deletions, merging, checkpoint deltas |
//! | `row_index.rs` | hash of key columns to one row id |
//! | `segment.rs` | immutable rows of a range of ids |
//! | `segment_index.rs` | where the rows of a segment with some key stand, for lookups |
//! | `row_ids.rs` | row ids, and what is kept per row id |
//! | `row_equal.rs` | compares two values, type known once per column |
//! | `group_table.rs` | groups with a row of words each (aggregates) |
//! | `delta.rs` | what changed since the last checkpoint, and how it comes back |
//!
//! Invariants: a row id is never used twice; a snapshot never changes; whoever holds a snapshot
//! holds memory, and stops nobody.

pub mod arrangement;
pub mod delta;
pub mod group_index;
pub mod group_table;
pub mod history;
pub mod keyed_table;
pub mod multi_table;
pub mod ordered_table;
pub mod row_equal;
pub mod row_ids;
pub mod row_index;
pub mod row_store;
pub mod segment;
pub mod segment_index;
pub mod snapshot;
// Those who hold state know where it goes by this name.
pub use crate::memory::{blocks, spill};
