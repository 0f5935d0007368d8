//! The single owner of decisions: what exists, which epoch, what is durable.
//!
//! | file | owns |
//! |---|---|
//! | `command.rs` | what a client may ask, and the answers; the only door for frontend and web |
//! | `execute.rs` | runs one statement of a connection |
//! | `ddl.rs` | CREATE and DROP as steps over the catalog and the data plane |
//! | `write.rs` | INSERT, UPDATE, DELETE, TRUNCATE, COPY and transactions of writes |
//! | `query.rs` | SELECT: plan, hold an epoch, run batch DataFusion over snapshots |
//! | `event_loop.rs` | one closed `Event` enum, one match: epochs, writes, reads, dataflows |
//! | `epoch.rs` | opens and closes epochs; a pure state machine |
//! | `table.rs` | the contents of tables: keys, conflicts, snapshots |
//! | `locks.rs` | who may write which table, and the line of those who wait |
//! | `subscription.rs` | the workers' changes of a query as one feed in epoch order |
//! | `errors.rs` | rows and records that were left out |

pub mod command;
pub mod epoch;
pub mod errors;
pub mod event_loop;
pub mod locks;
pub mod settings;
pub mod subscription;
pub mod table;
