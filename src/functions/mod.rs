//! SQL functions that DataFusion lacks or means differently, one file each or each family.
//!
//! | file | owns |
//! |---|---|
//! | `scalar/` | functions of one row |
//! | `aggregate/` | accumulators and what they evaluate to |
//! | `window/` | functions over partitions in order |
//!
//! Invariant: functions know nothing of plans, state tables or operators; they work on columns
//! and on words that somebody else keeps.

pub mod scalar;

pub mod aggregate;
pub mod window;
