//! Seeing and timing.
//!
//! | file | owns |
//! |---|---|
//! | `clock.rs` | the only reader of the wall clock; a test clock beside it |
//! | `log.rs` | where log lines go and which |
//! | `metrics.rs` | every metric: name, kind, meaning; Prometheus text |
//! | `process.rs` | processor time and memory of this process, from the kernel |

pub mod clock;

pub mod log;
pub mod metrics;
pub mod process;
