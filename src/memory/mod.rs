//! Memory that can go to the local disk when there is too little of it, and who asks for that.
//!
//! | file | owns |
//! |---|---|
//! | `spill.rs` | state that does not fit: who asks for room, who makes it, what queries may have |
//! | `running.rs` | queries that can be given up when nothing else makes room |
//! | `mapped.rs` | immutable arrays in files that are mapped into memory |
//! | `blocks.rs` | memory of arrays and hash tables that can go to the disk where it stands |
//!
//! Nothing here survives the process: files have no names.

pub mod blocks;
mod mapped;
pub mod running;
pub mod spill;
