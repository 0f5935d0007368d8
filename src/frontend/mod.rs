//! Talks to SQL clients; turns bytes into statements and rows into bytes.
//!
//! | file | owns |
//! |---|---|
//! | `repl.rs` | the interactive shell; an ordinary client of the protocol |

pub mod repl;
