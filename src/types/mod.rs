//! The words everything else uses; imports nothing of ours.
//!
//! | file | owns |
//! |---|---|
//! | `change.rs` | `ChangeBatch`: rows with signed weights, the only thing that flows |
//! | `time.rs` | `Epoch`, `EventTime`, `Watermark` |
//! | `id.rs` | `ObjectId`, `WorkerId` |
//! | `key.rs` | hashing and comparing rows by key columns |
//! | `value.rs` | single values as order-preserving words or bytes |
//! | `sql_type.rs` | Postgres types and their Arrow columns |
//! | `text/` | values as Postgres prints and reads them |
//! | `partial_match.rs` | a match of a row pattern that is under way |
//! | `error.rs` | `Error`: who must act, SQLSTATE, detail, hint, position |

pub mod change;
pub mod error;
pub mod id;
pub mod key;
pub mod partial_match;
pub mod sql_type;
pub mod text;
pub mod time;
pub mod value;
