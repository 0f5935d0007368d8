//! The single owner of decisions: what exists, which epoch, what is durable.
//!
//! | file | owns |
//! |---|---|
//! | `command.rs` | what a client may ask, and the answers; the only door for frontend and web |
//! | `execute.rs` | runs one statement of a connection |
//! | `settings.rs` | what SET, SHOW and RESET work on |
//! | `transaction.rs` | blocks: one epoch to read, one epoch to write |
//! | `running.rs` | cancel and timeout of a statement |
//! | `query.rs`, `source_scan.rs` | SELECT: hold an epoch, run batch DataFusion over it; SUBSCRIBE |
//! | `stored.rs` | what a statement sees of tables and views; lookups in it |
//! | `batch.rs` | the threads that queries compute on |
//! | `write.rs`, `copy.rs` | INSERT, UPDATE, DELETE, TRUNCATE; COPY FROM STDIN |
//! | `rows.rs` | whole tables as batches: changes on top of them, rows by key |
//! | `ddl.rs`, `drop.rs` | CREATE and DROP as steps over the catalog and the data plane |
//! | `show.rs` | SHOW, DESCRIBE, EXPLAIN |
//! | `index.rs` | CREATE INDEX and DROP INDEX |
//! | `replace.rs` | CREATE OR REPLACE MATERIALIZED VIEW: what its dependants can live with |
//! | `verify.rs` | VERIFY: a view's query once more as a batch, and what differs |
//! | `explain.rs` | EXPLAIN of dataflows, running or not |
//! | `replay.rs` | REPLAY LATE: late rows are taken in again |
//! | `sinks.rs`, `sink_writer.rs` | CREATE SINK; one sink's batches on their way to its target |
//! | `savepoints.rs`, `savepoint_rows.rs` | savepoints, backups, SHOW CHECKPOINTS; savepoints read by SELECT |
//! | `clone.rs` | CREATE DATABASE ... FROM SAVEPOINT |
//! | `cursor.rs` | cursors and the statements of PREPARE |
//! | `system_relations.rs` | the facts behind `pg_catalog`, `information_schema`, `millstream` |
//! | `event_loop.rs` | one closed `Event` enum, one match: epochs, writes, reads, dataflows |
//! | `epoch.rs` | opens and closes epochs; a pure state machine |
//! | `memory.rs` | when state goes to the disk, and when nothing new is let in |
//! | `watermarks.rs` | what the watermarks of sources and tables are; a pure state machine |
//! | `table.rs` | the contents of tables: keys, conflicts, snapshots |
//! | `ground.rs` | catalog and tables as a storage has them: files, then the log |
//! | `recovery.rs` | from a storage to a coordinator that answers as before |
//! | `owed.rs` | what a sink has given before it is computed again |
//! | `locks.rs` | who may write which table, and the line of those who wait |
//! | `subscription.rs` | the workers' changes of a query as one feed in epoch order |
//! | `errors.rs` | rows and records that were left out |

mod batch;
mod clone;
pub mod command;
mod copy;
mod cursor;
mod ddl;
mod drop;
pub mod epoch;
pub mod errors;
pub mod event_loop;
mod execute;
mod explain;
pub mod ground;
mod index;
pub mod locks;
pub mod memory;
mod owed;
mod query;
pub mod recovery;
mod replace;
mod replay;
mod rows;
mod running;
mod savepoint_rows;
mod savepoints;
pub mod settings;
mod show;
mod sink_writer;
mod sinks;
mod source_scan;
mod stored;
pub mod subscription;
mod system_relations;
pub mod table;
mod transaction;
mod verify;
mod watermarks;
mod write;

#[cfg(test)]
mod tests;
