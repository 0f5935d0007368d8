//! Millstream, a streaming SQL database. The rooms, in reading order; a file may import its own
//! room and rooms with a lower number, never sideways and never up (`tidy.rs` checks it).
//!
//! | layer | rooms |
//! |---|---|
//! | 0 | `types` |
//! | 1 | `config`, `observe` |
//! | 2 | `memory` |
//! | 3 | `functions`, `plan`, `formats`, `storage` |
//! | 4 | `catalog`, `connectors`, `pattern`, `state` |
//! | 5 | `sql`, `dataflow`: not each other; they meet in `plan` |
//! | 6 | `coordinator` |
//! | 7 | `frontend`, `web`: from here only `coordinator::command`, `observe`, `config`, `types` |
//! | 8 | `server`: the only one that knows every room |
//! | 9 | `slt` |
//! | 10 | `bench` |
//! | 11 | `cli`, `main` |

// Tests may wait and time.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod types;

pub mod config;
pub mod observe;

pub mod memory;

pub mod formats;
pub mod functions;
pub mod plan;
pub mod storage;

pub mod catalog;
pub mod connectors;
pub mod pattern;
pub mod state;

pub mod dataflow;
pub mod sql;

pub mod coordinator;

pub mod frontend;
pub mod web;

pub mod bench;
pub mod cli;
pub mod server;
pub mod slt;

#[cfg(test)]
mod tidy;
