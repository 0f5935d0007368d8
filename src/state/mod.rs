//! Operator memory that survives: batches in, batches out; knows no network and no threads.
//!
//! | file | owns |
//! |---|---|
//! | `group_index.rs` | group keys to dense ids |
//! | `delta.rs` | what changed since the last checkpoint, and how it comes back |

pub mod delta;
pub mod group_index;
pub mod keyed_table;
pub mod multi_table;
