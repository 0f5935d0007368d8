//! Talks to SQL clients: bytes to statements, rows to bytes.
//!
//! | file | owns |
//! |---|---|
//! | `pgwire.rs` | the listener: startup, cancel requests, shutdown |
//! | `session.rs` | one connection: its messages, simple queries, results, errors |
//! | `session/portal.rs` | prepared statements and portals of the extended protocol |
//! | `session/copy.rs` | COPY as a conversation |
//! | `socket.rs` | one client's socket: messages in, a buffer out, who has gone |
//! | `message.rs` | the client's messages, read without trusting them |
//! | `encode.rs` | Arrow columns to rows in text and binary format |
//! | `decode.rs` | text and binary values to Arrow columns |
//! | `copy.rs` | COPY data in text and csv, both directions |
//! | `repl.rs` | the interactive shell; an ordinary client of the protocol |

pub mod copy;
pub mod decode;
pub mod encode;
pub mod message;
pub mod pgwire;
pub mod repl;
pub mod session;
pub mod socket;
