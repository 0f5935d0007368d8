//! Talks to SQL clients: bytes to statements, rows to bytes.
//!
//! | file | owns |
//! |---|---|
//! | `pgwire.rs` | the listener: startup, cancel requests, shutdown |
//! | `session.rs` | one connection: simple and extended queries, prepared statements, portals |
//! | `socket.rs` | one client's socket: messages in, a buffer out, who has gone |
//! | `message.rs` | the client's messages, read without trusting them |
//! | `encode.rs` | Arrow columns to rows in text and binary format |
//! | `decode.rs` | text and binary values to Arrow columns |
//! | `copy.rs` | COPY data in text and csv, both directions |
//! Talks to SQL clients; turns bytes into statements and rows into bytes.
//!
//! | `repl.rs` | the interactive shell; an ordinary client of the protocol |

pub mod decode;
pub mod encode;

pub mod copy;
pub mod message;
pub mod pgwire;
pub mod repl;
pub mod session;
pub mod socket;
