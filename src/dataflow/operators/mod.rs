//! The operators, one file each, named as their `plan::Node`.

pub mod evaluate;
pub mod join;
pub mod map;
pub mod union;
