//! Runs plans on timely workers.
//!
//! | file | owns |
//! |---|---|
//! | `operator.rs` | the `Operator` trait, `Output`; no timely, no tokio |
//! | `operators/` | one file per operator |
//! | `contract.rs` | checks in debug builds that operators and drivers keep the contract |
//! | `script.rs` | (test only) drives one operator from text, including recovery |

pub mod contract;
pub mod operator;
pub mod operators;

#[cfg(test)]
pub mod script;
