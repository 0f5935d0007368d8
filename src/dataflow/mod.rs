//! Runs plans on timely workers.
//!
//! | file | owns |
//! |---|---|
//! | `operator.rs` | the `Operator` trait, `Output`; no timely, no tokio |
//! | `operators/` | one file per operator |
//! | `assemble.rs` | walks a plan, wires its edges \[timely\] |
//! | `driver.rs` | runs one operator: capability, epoch alignment, failures \[timely\] |
//! | `exchange.rs` | batches by key hash between workers, watermarks to all \[timely\] |
//! | `worker.rs` | threads, commands in, reports out \[timely\] |
//! | `hub.rs` | where an object's changes meet the dataflows that read it |
//! | `metered.rs` | what each operator has done and holds |
//! | `contract.rs` | checks in debug builds that operators and drivers keep the contract |
//! | `script.rs` | (test only) drives one operator from text, including recovery |
//! | `published.rs` | the contents of views, the only thing SELECT may read |
//!
//! Invariants: timely is known in four files; operators never see time pass; a row is counted in
//! exactly one epoch; what is idle is complete.

pub mod assemble;
pub mod contract;
pub mod driver;
pub mod exchange;
pub mod hub;
pub mod metered;
pub mod operator;
pub mod operators;
pub mod published;
pub mod worker;

#[cfg(test)]
pub mod script;
