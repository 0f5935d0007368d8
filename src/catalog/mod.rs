//! What the user has defined.
//!
//! | file | owns |
//! |---|---|
//! | `object.rs` | sources, tables, views, materialized views and their columns |
//! | `snapshot.rs` | the immutable versioned catalog; a change makes a new version |

pub mod object;
pub mod snapshot;
