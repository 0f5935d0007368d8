//! The operators, one file each, named as their `plan::Node`.

pub mod aggregate;
