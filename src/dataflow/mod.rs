//! Runs plans on timely workers.
//!
//! | file | owns |
//! |---|---|
//! | `operator.rs` | the `Operator` trait, `Output`; no timely, no tokio |
//! | `operators/` | one file per operator |

pub mod operator;
pub mod operators;
