//! What survives the process: one object store holds all of it, as `docs/FORMAT.md` says.
//!
//! | file | owns |
//! |---|---|
//! | `paths.rs` | every object name |
//! | `store.rs` | put-if-absent, reads, lists and their errors, over any object store |
//! | `local.rs` | a directory as an object store that survives power loss |
//! | `direct.rs` | large files past the kernel's cache |
//! | `remote.rs` | object storage of a cloud as the store |
//! | `checksum.rs` | CRC-32, and the envelope of text objects |
//! | `generation.rs` | which server may write: the newest that claimed the storage |
//! | `manifest.rs` | the numbered list of what is durable; which one counts at a start |
//! | `log.rs` | the write-ahead log: records, group commit, reading back |
//! | `rows.rs` | changes of rows as Arrow batches |
//! | `pieces.rs` | an object read in pieces, and their checksum |
//! | `raw_rows.rs` | rows as they are in memory: written and read without a copy |
//! | `table_files.rs` | contents of tables as base and delta files |
//! | `state_files.rs` | state of views as base and delta files; folding them |
//! | `sinks.rs` | what sinks have to write out, staged until their target has it |
//! | `savepoint.rs` | checkpoints with a name, whose files are kept |
//! | `checkpoint.rs` | writes what changed, then a manifest, then collects what nobody needs |
//! | `transfer.rs` | checkpoints in other storages: backup and restore, export and import |
//! | `faulty.rs` | for tests: a store that fails when it is told to |
//! | `seeded_store.rs` | for tests: a store whose faults follow from a seed |
//! | `recovery.rs` | claims a storage and finds out what is in it |
//!
//! Nobody else knows that object stores exist. What the log's entries mean is the coordinator's
//! affair: catalog changes are text here, rows are Arrow batches.

pub mod checkpoint;
pub mod checksum;
mod direct;
pub mod generation;
pub mod local;
pub mod log;
pub mod manifest;
pub mod paths;
pub mod pieces;
pub mod raw_rows;
pub mod recovery;
pub mod remote;
pub mod rows;
pub mod savepoint;
pub mod sinks;
pub mod state_files;
pub mod store;
pub mod table_files;
pub mod transfer;

#[cfg(test)]
pub mod faulty;
#[cfg(test)]
pub mod seeded_store;
#[cfg(test)]
mod tests;
