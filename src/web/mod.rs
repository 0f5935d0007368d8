//! HTTP for people and machines.
//!
//! | file | owns |
//! |---|---|
//! | `api.rs` | health, readiness, version and metrics |

pub mod api;
