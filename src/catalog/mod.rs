//! What the user has defined.
//!
//! | file | owns |
//! |---|---|
//! | `object.rs` | sources, tables, views, materialized views and their columns |
//! | `snapshot.rs` | the immutable versioned catalog; a change makes a new version |
//! | `stored.rs` | the catalog and its changes as text, for the storage |
//! | `system_views.rs` | the server's own relations: their columns, and rows from facts |
//! | `pg_catalog.rs`, `information_schema.rs` | rows of these schemas |
//! | `pg_proc.rs` | the functions, as clients list them |

mod information_schema;
pub mod object;
pub mod pg_catalog;
pub mod pg_proc;
pub mod snapshot;
pub mod stored;
pub mod system_views;
